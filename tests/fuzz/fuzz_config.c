// SPDX-License-Identifier: MIT
/*
 * Any bytes as a configuration: refused with a reason, or taken, printed and taken again the same.
 */
#include "daemon/config.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct sm_config_errors errors;

static void require(bool truth)
{
	if (!truth)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct sm_config *cfg = NULL, *again = NULL;
	char restart[SM_CONFIG_RESTART_MAX], *text = NULL;
	size_t text_len;
	FILE *out;

	if (sm_config_parse((const char *)data, len, "f", "/d", &cfg, &errors)) {
		require(errors.count > 0 && !cfg);
		return 0;
	}
	require(errors.count == 0);
	out = open_memstream(&text, &text_len);
	require(out);
	sm_config_print(cfg, out);
	fclose(out);
	require(!sm_config_parse(text, text_len, "f", "/d", &again, &errors));
	require(!sm_config_diff(cfg, again, restart));
	sm_config_free(cfg);
	sm_config_free(again);
	free(text);
	return 0;
}
