// SPDX-License-Identifier: MIT
/*
 * Values of JSON as text for people.
 */
#include "cli/print.h"

#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

/* --- values --- */

const json_t *sm_print_at(const json_t *json, const char *path)
{
	while (json != NULL && *path != '\0') {
		char name[64];
		size_t len = strcspn(path, ".");

		if (len >= sizeof(name))
			return NULL;
		memcpy(name, path, len);
		name[len] = '\0';
		json = json_object_get(json, name);
		path += len;
		path += *path == '.';
	}
	return json;
}

bool sm_print_u64(const json_t *json, const char *path, uint64_t *ret_value)
{
	const json_t *v = sm_print_at(json, path);

	if (json_is_integer(v) && json_integer_value(v) >= 0) {
		*ret_value = (uint64_t)json_integer_value(v);
		return true;
	}
	if (json_is_real(v) && json_real_value(v) >= 0 && json_real_value(v) < 1e18) {
		*ret_value = (uint64_t)json_real_value(v);
		return true;
	}
	return false;
}

/* Appends what is printable of @text; what is not becomes '?' */
static void append_safely(char *cell, const char *text)
{
	size_t used = strlen(cell), len = strlen(text);

	while (len > 0) {
		size_t n = sm_text_char_len(text, len);
		const char *from = n > 0 ? text : "?";
		size_t take = SM_MAX(n, (size_t)1);

		if (used + take >= SM_CELL_MAX)
			break;
		memcpy(cell + used, from, take);
		used += take;
		text += take;
		len -= take;
	}
	cell[used] = '\0';
}

static bool append_scalar(char *cell, const json_t *v)
{
	char number[40];

	switch (v != NULL ? json_typeof(v) : JSON_NULL) {
	case JSON_STRING:
		append_safely(cell, json_string_value(v));
		return json_string_length(v) > 0;
	case JSON_INTEGER:
		snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT, json_integer_value(v));
		break;
	case JSON_REAL:
		snprintf(number, sizeof(number), "%.3f", json_real_value(v));
		break;
	case JSON_TRUE:
		snprintf(number, sizeof(number), "yes");
		break;
	case JSON_FALSE:
		snprintf(number, sizeof(number), "no");
		break;
	case JSON_OBJECT:
	case JSON_ARRAY:
	case JSON_NULL:
		return false;
	}
	append_safely(cell, number);
	return true;
}

static const char *nothing(char *cell)
{
	snprintf(cell, SM_CELL_MAX, "-");
	return cell;
}

const char *sm_print_text(const json_t *json, const char *path, char cell[SM_CELL_MAX])
{
	cell[0] = '\0';
	return append_scalar(cell, sm_print_at(json, path)) ? cell : nothing(cell);
}

const char *sm_print_list(const json_t *json, const char *path, char cell[SM_CELL_MAX])
{
	const json_t *list = sm_print_at(json, path);
	bool any = false;

	cell[0] = '\0';
	for (size_t i = 0; i < json_array_size(list); i++) {
		const size_t used = strlen(cell);

		if (any)
			append_safely(cell, ", ");
		if (append_scalar(cell, json_array_get(list, i)))
			any = true;
		else
			cell[used] = '\0';
	}
	return any ? cell : nothing(cell);
}

const char *sm_print_duration(const json_t *json, const char *path, char cell[SM_CELL_MAX])
{
	uint64_t us;

	if (!sm_print_u64(json, path, &us))
		return nothing(cell);
	return sm_text_format_duration(us, cell, SM_CELL_MAX);
}

const char *sm_print_ms(const json_t *json, const char *path, char cell[SM_CELL_MAX])
{
	uint64_t us;

	if (!sm_print_u64(json, path, &us))
		return nothing(cell);
	snprintf(cell, SM_CELL_MAX, "%" PRIu64 ".%03u ms", us / 1000, (unsigned)(us % 1000));
	return cell;
}

const char *sm_print_bytes(const json_t *json, const char *path, char cell[SM_CELL_MAX])
{
	uint64_t bytes;

	if (!sm_print_u64(json, path, &bytes))
		return nothing(cell);
	return sm_text_format_bytes(bytes, cell, SM_CELL_MAX);
}

const char *sm_print_counts(const json_t *json, const char *path, char cell[SM_CELL_MAX])
{
	json_t *counts = (json_t *)(uintptr_t)sm_print_at(json, path), *value;
	const char *name;

	if (!json_is_object(counts))
		return nothing(cell);
	cell[0] = '\0';
	json_object_foreach(counts, name, value)
	{
		if (!json_is_integer(value) || json_integer_value(value) == 0)
			continue;
		if (cell[0] != '\0')
			append_safely(cell, ", ");
		append_safely(cell, name);
		append_safely(cell, " ");
		(void)append_scalar(cell, value);
	}
	if (cell[0] == '\0')
		snprintf(cell, SM_CELL_MAX, "none");
	return cell;
}

void sm_print_json(const json_t *json)
{
	(void)json_dumpf(json, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
	putchar('\n');
}

/* --- colours --- */

static bool has_colours(void)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && (no_color == NULL || no_color[0] == '\0') && term != NULL &&
	       strcmp(term, "dumb") != 0;
}

void sm_print_coloured(enum sm_colour colour, const char *text)
{
	static const char *const codes[] = {"", "1", "32", "33", "31"};

	static_assert(SM_ARRAY_SIZE(codes) == SM_COLOUR_COUNT, "one for each colour");
	if (colour != SM_COLOUR_NONE && has_colours())
		printf("\033[%sm%s\033[0m", codes[colour], text);
	else
		fputs(text, stdout);
}

/* --- tables --- */

struct sm_table_cell *sm_table_out_row(struct sm_table_out *table)
{
	size_t used = (size_t)table->rows * table->columns;
	struct sm_table_cell *cells = reallocarray(table->cells, used + table->columns,
						   sizeof(*cells));

	if (cells == NULL)
		return NULL;
	table->cells = cells;
	table->rows++;
	memset(cells + used, 0, table->columns * sizeof(*cells));
	return cells + used;
}

/* Characters, as far as they are one column wide */
static int width(const char *text)
{
	int n = 0;

	for (; *text != '\0'; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

void sm_table_out_print(struct sm_table_out *table)
{
	int widths[SM_COLUMNS_MAX] = {0};

	assert(table->columns <= SM_COLUMNS_MAX);
	for (uint32_t i = 0; i < table->rows * table->columns; i++)
		widths[i % table->columns] = SM_MAX(widths[i % table->columns],
						    width(table->cells[i].text));
	for (uint32_t row = 0; row < table->rows; row++) {
		for (uint32_t col = 0; col < table->columns; col++) {
			const struct sm_table_cell *cell =
				&table->cells[row * table->columns + col];
			int pad = widths[col] - width(cell->text);
			bool last = col + 1 == table->columns;

			if (table->right >> col & 1)
				printf("%*s", pad, "");
			sm_print_coloured(row == 0 ? SM_COLOUR_BOLD : cell->colour, cell->text);
			if (!(table->right >> col & 1) && !last)
				printf("%*s", pad, "");
			fputs(last ? "\n" : "  ", stdout);
		}
	}
	free(table->cells);
	*table = (struct sm_table_out){.columns = table->columns, .right = table->right};
}
