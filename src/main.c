// SPDX-License-Identifier: MIT
/*
 * shadowmesh: one program, one command a file in src/cli.
 */
#include "cli/cli.h"

int main(int argc, char **argv)
{
	return sm_cli_main(argc, argv);
}
