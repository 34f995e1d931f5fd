// SPDX-License-Identifier: MIT
/*
 * From JSON to a terminal: members that may be missing, safe text, tables, colours.
 *
 * Nothing here trusts the shape of what the daemon says: what is missing or of another type is "-". Text
 * is printed without control characters, for peers have a say in it.
 */
#ifndef SM_CLI_PRINT_H
#define SM_CLI_PRINT_H

#include "base/base.h"

#include <jansson.h>
#include <stdio.h>

#define SM_CELL_MAX 256u /* bytes of a cell or a value, terminator included */

/** sm_print_at() - Follow a path such as "node.certificate.not_after"; Return: borrowed, NULL if not there */
const json_t *sm_print_at(const json_t *json, const char *path);

/** sm_print_u64() - A number at @path; Return: true if there is one and it is not negative */
bool sm_print_u64(const json_t *json, const char *path, uint64_t *ret_value);

/** sm_print_text() - The scalar at @path as safe text; Return: @cell, "-" if there is none */
const char *sm_print_text(const json_t *json, const char *path, char cell[SM_CELL_MAX]);

/** sm_print_list() - The scalars of the array at @path, separated by ", "; Return: @cell, or "-" */
const char *sm_print_list(const json_t *json, const char *path, char cell[SM_CELL_MAX]);

/** sm_print_duration() - Microseconds at @path as "3 h 2 min"; Return: @cell, or "-" */
const char *sm_print_duration(const json_t *json, const char *path, char cell[SM_CELL_MAX]);

/** sm_print_ms() - Microseconds at @path as "0.412 ms"; Return: @cell, or "-" */
const char *sm_print_ms(const json_t *json, const char *path, char cell[SM_CELL_MAX]);

/** sm_print_bytes() - Bytes at @path as "1.5 MB"; Return: @cell, or "-" */
const char *sm_print_bytes(const json_t *json, const char *path, char cell[SM_CELL_MAX]);

/** sm_print_counts() - The members of the object at @path that are not 0, "a 3, b 1"; Return: @cell, or "none" */
const char *sm_print_counts(const json_t *json, const char *path, char cell[SM_CELL_MAX]);

/** sm_print_json() - The whole of it, for programs */
void sm_print_json(const json_t *json);

enum sm_colour {
	SM_COLOUR_NONE,
	SM_COLOUR_BOLD,
	SM_COLOUR_GOOD,
	SM_COLOUR_FAIR,
	SM_COLOUR_BAD,
	SM_COLOUR_COUNT,
};

/** sm_print_coloured() - Write @text to stdout; plain unless stdout is a terminal and NO_COLOR is unset */
void sm_print_coloured(enum sm_colour colour, const char *text);

#define SM_COLUMNS_MAX 16u

struct sm_table_cell {
	char text[SM_CELL_MAX];
	enum sm_colour colour;
};

/**
 * struct sm_table_out - A table that is printed once all rows are known (zero-initialise)
 * @right: bit per column: numbers, to the right
 */
struct sm_table_out {
	uint32_t columns, rows, right;
	struct sm_table_cell *cells;
};

/** sm_table_out_row() - Begin a row; Return: its cells, all empty; NULL: out of memory */
struct sm_table_cell *sm_table_out_row(struct sm_table_out *table);

/** sm_table_out_print() - Print with the first row as head, and free */
void sm_table_out_print(struct sm_table_out *table);

#endif
