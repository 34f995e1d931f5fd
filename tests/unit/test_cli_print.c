// SPDX-License-Identifier: MIT
/*
 * JSON as text for people: nothing is believed of its shape, and nothing in it reaches the terminal that
 * is not printable.
 */
#include "cli/print.h"

#include "capture.h"

static struct capture got;
static json_t *json;

static const char text[] =
	"{\"a\":{\"b\":{\"c\":7}},\"s\":\"text\",\"empty\":\"\",\"yes\":true,\"no\":false,"
	"\"null\":null,\"real\":1.5,\"minus\":-3,\"list\":[\"x\",2,null,{},\"y\"],\"none\":[],"
	"\"us\":11045123456,\"bytes\":1536,\"huge\":1e30,\"evil\":\"a\\u001b[31m\\u0007b\\nc\\u00e9\","
	"\"counts\":{\"b\":1,\"zero\":0,\"a\":3,\"text\":\"x\",\"e\\u001b\":2},\"zeros\":{\"a\":0}}";

static int set_up(void **state)
{
	(void)state;
	json = json_loads(text, 0, NULL);
	return json ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	json_decref(json);
	return 0;
}

static void test_at(void **state)
{
	static const struct {
		const char *path;
		bool there;
	} rows[] = {
		{"", true},
		{"a", true},
		{"a.b", true},
		{"a.b.c", true},
		{"a.b.c.d", false},
		{"a.", true},
		{".a", false},
		{"a..b", false},
		{"x", false},
		{"s.x", false},
		{"list.0", false},
		{"null", true},
		{"null.x", false},
		{"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++)
		if ((sm_print_at(json, rows[i].path) != NULL) != rows[i].there)
			fail_msg("'%s'", rows[i].path);
	assert_null(sm_print_at(NULL, "a"));
	assert_null(sm_print_at(NULL, ""));
}

static void test_u64(void **state)
{
	static const struct {
		const char *path;
		bool good;
		uint64_t value;
	} rows[] = {
		{"a.b.c", true, 7},  {"real", true, 1},  {"us", true, UINT64_C(11045123456)},
		{"minus", false, 0}, {"huge", false, 0}, {"s", false, 0},
		{"yes", false, 0},   {"null", false, 0}, {"none", false, 0},
		{"x", false, 0},
	};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		uint64_t value = 99;

		assert_int_equal(sm_print_u64(json, rows[i].path, &value), rows[i].good);
		assert_int_equal(value, rows[i].good ? rows[i].value : 99);
	}
}

typedef const char *printer(const json_t *from, const char *path, char cell[SM_CELL_MAX]);

static void test_cells(void **state)
{
	static const struct {
		printer *print;
		const char *path, *cell;
	} rows[] = {
		{sm_print_text, "s", "text"},
		{sm_print_text, "empty", "-"},
		{sm_print_text, "a.b.c", "7"},
		{sm_print_text, "minus", "-3"},
		{sm_print_text, "real", "1.500"},
		{sm_print_text, "yes", "yes"},
		{sm_print_text, "no", "no"},
		{sm_print_text, "null", "-"},
		{sm_print_text, "a", "-"},
		{sm_print_text, "list", "-"},
		{sm_print_text, "x.y", "-"},
		{sm_print_text, "evil", "a?[31m?b?c\xc3\xa9"},
		{sm_print_list, "list", "x, 2, y"},
		{sm_print_list, "none", "-"},
		{sm_print_list, "s", "-"},
		{sm_print_list, "x", "-"},
		{sm_print_ms, "a.b.c", "0.007 ms"},
		{sm_print_ms, "bytes", "1.536 ms"},
		{sm_print_ms, "minus", "-"},
		{sm_print_ms, "s", "-"},
		{sm_print_duration, "us", "3 h 4 min"},
		{sm_print_duration, "minus", "-"},
		{sm_print_bytes, "a.b.c", "7 B"},
		{sm_print_bytes, "s", "-"},
		{sm_print_counts, "counts", "b 1, a 3, e? 2"},
		{sm_print_counts, "zeros", "none"},
		{sm_print_counts, "a.b.c", "-"},
		{sm_print_counts, "x", "-"},
	};
	char cell[SM_CELL_MAX];

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(rows); i++) {
		memset(cell, 'z', sizeof(cell));
		assert_ptr_equal(rows[i].print(json, rows[i].path, cell), cell);
		if (strcmp(cell, rows[i].cell) != 0)
			fail_msg("%s: '%s', not '%s'", rows[i].path, cell, rows[i].cell);
	}
	assert_string_equal(sm_print_text(NULL, "s", cell), "-");
}

/* Too long for a cell: cut, and never inside a character */
static void test_long(void **state)
{
	char cell[SM_CELL_MAX], much[2000];

	(void)state;
	for (size_t shift = 0; shift < 3; shift++) {
		json_t *long_one, *list;
		size_t len;

		memset(much, 'x', shift);
		for (size_t i = shift; i + 2 < sizeof(much); i += 2)
			memcpy(much + i, "\xc3\xa9", 3);
		long_one = json_pack("{s:s}", "t", much);
		assert_non_null(long_one);
		len = strlen(sm_print_text(long_one, "t", cell));
		assert_true(len >= SM_CELL_MAX - 2 && len < SM_CELL_MAX);
		assert_int_equal((len - shift) % 2, 0);
		list = json_pack("{s:[s,s,s]}", "l", much, much, "end");
		assert_true(strlen(sm_print_list(list, "l", cell)) < SM_CELL_MAX);
		json_decref(long_one);
		json_decref(list);
	}
}

static void test_json(void **state)
{
	json_t *small = json_pack("{s:s}", "k", "\xc3\xa9\x1b");

	(void)state;
	capture_begin(&got);
	sm_print_json(small);
	capture_end(&got);
	assert_string_equal(got.out, "{\n  \"k\": \"\\u00E9\\u001B\"\n}\n");
	json_decref(small);
}

static void test_table(void **state)
{
	static const char *const cells[][3] = {
		{"name", "n", "last"}, {"\xc3\xa9", "1234", "x"}, {"longer", "5", ""}};
	struct sm_table_out table = {.columns = 3, .right = 1u << 1};

	(void)state;
	for (size_t i = 0; i < SM_ARRAY_SIZE(cells); i++) {
		struct sm_table_cell *row = sm_table_out_row(&table);

		assert_non_null(row);
		for (size_t k = 0; k < 3; k++) {
			assert_string_equal(row[k].text, "");
			snprintf(row[k].text, sizeof(row[k].text), "%s", cells[i][k]);
			row[k].colour = SM_COLOUR_BAD; /* stdout is no terminal here */
		}
	}
	capture_begin(&got);
	sm_table_out_print(&table);
	capture_end(&got);
	assert_string_equal(got.out, "name       n  last\n"
				     "\xc3\xa9       1234  x\n"
				     "longer     5  \n");
	assert_null(table.cells);
	assert_int_equal(table.rows, 0);
	assert_int_equal(table.columns, 3); /* and it may be filled again */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_at),    cmocka_unit_test(test_u64),
		cmocka_unit_test(test_cells), cmocka_unit_test(test_long),
		cmocka_unit_test(test_json),  cmocka_unit_test(test_table),
	};

	return cmocka_run_group_tests_name("print", tests, set_up, tear_down);
}
