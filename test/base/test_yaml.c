/* The YAML reader and its quantities: trees keep the lines of what they hold, every refusal says where and why, and each unit of each dimension
 * reads as its definition says. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/yaml.h"

static struct stave_yaml *parse(const char *text)
{
	struct stave_yaml *y;
	struct stave_err e = {0};
	if (stave_yaml_parse(&y, text, strlen(text), "spec.yaml", &e))
		fail_msg("%s", e.msg);
	return y;
}

static void refused(const char *text, const char *message)
{
	struct stave_yaml *y = NULL;
	struct stave_err e = {0};
	assert_int_equal(stave_yaml_parse(&y, text, strlen(text), "spec.yaml", &e), STAVE_ECONFIG);
	assert_null(y);
	if (!strstr(e.msg, message))
		fail_msg("wanted '%s' in: %s", message, e.msg);
}

static void trees_keep_lines_keys_and_order(void **state)
{
	struct stave_yaml *y = parse("model: llama\nsites:\n  - name: a\n    power: 2 MW\n  - name: b\nflow: {x: [1, 2, '3 4'], y: \"q\"}\nempty:\n");
	assert_int_equal(y->kind, STAVE_YAML_MAP);
	assert_int_equal(y->n, 4);
	assert_null(y->key);
	struct stave_yaml *sites = stave_yaml_get(y, "sites"), *flow = stave_yaml_get(y, "flow");
	assert_int_equal(sites->kind, STAVE_YAML_LIST);
	assert_int_equal(sites->n, 2);
	assert_string_equal(sites->key, "sites");
	assert_int_equal(stave_yaml_get(&sites->child[0], "power")->line, 4);
	assert_string_equal(stave_yaml_get(&sites->child[1], "name")->text, "b");
	assert_string_equal(stave_yaml_get(&sites->child[1], "name")->file, "spec.yaml");
	assert_string_equal(stave_yaml_get(flow, "x")->child[2].text, "3 4");
	assert_int_equal(stave_yaml_get(flow, "x")->child[2].line, 6);
	assert_string_equal(stave_yaml_get(y, "empty")->text, "");
	assert_null(stave_yaml_get(y, "absent"));
	assert_null(stave_yaml_get(NULL, "absent"));
	assert_null(stave_yaml_get(sites, "absent"));
	stave_yaml_free(y);
}

static void what_readers_differ_on_is_refused_with_its_line(void **state)
{
	refused("a: 1\nb: &x 2\n", "spec.yaml:2: anchors");
	refused("&x a: 1\n", "spec.yaml:1: anchors");
	refused("a: &m {b: 1}\n", "spec.yaml:1: anchors");
	refused("a: 1\nb: *x\n", "spec.yaml:2: aliases");
	refused("a: !!int 3\n", "spec.yaml:1: tags");
	refused("a: !own {b: 1}\n", "spec.yaml:1: tags");
	refused("a: ! [1]\n", "spec.yaml:1: tags");
	refused("%TAG ! tag:example.com,2000:\n---\na: 1\n", "%TAG");
	refused("a: 1\n---\nb: 2\n", "spec.yaml:2: a second document");
	refused("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "spec.yaml:5: 'c' stands here a second time; the first is in line 3");
	refused("? [a]\n: 1\n", "spec.yaml:1: a key must be plain text");
	refused("{{a: 1}: 2}\n", "a key must be plain text");
	refused("\"\": 1\n", "an entry has no key");
	refused("a: \"x\\0y\"\n", "NUL");
	refused("a: 'x\n", "not valid YAML");
	refused("a: 1\n b: 2\n", "not valid YAML");
	refused("a: \xff\xfe\n", "not valid YAML");
	refused("", "spec.yaml:1: the text is empty");
	refused("# only a comment\n", "the text is empty");
}

static void size_depth_and_entries_are_bounded(void **state)
{
	char deep[100];
	memset(deep, '[', 40);
	memset(deep + 40, ']', 40);
	deep[80] = 0;
	refused(deep, "nested too deeply");
	memset(deep, '[', 32);
	memset(deep + 32, ']', 32);
	deep[64] = 0;
	stave_yaml_free(parse(deep));

	size_t many = 200001, big = (4u << 20) + 1;
	char *text = malloc(big + 1);
	assert_non_null(text);
	text[0] = '[';
	for (size_t i = 0; i < many; i++)
		memcpy(text + 1 + 2 * i, "1,", 2);
	strcpy(text + 1 + 2 * many, "]");
	refused(text, "too many entries");
	memset(text, ' ', big);
	text[big] = 0;
	refused(text, "bytes of YAML");
	free(text);
}

/* A map of 40,000 keys: the check for duplicates must not take the square of them. */
static void many_keys_are_checked_in_order(void **state)
{
	size_t n = 40000;
	char *text = malloc(n * 16 + 32), *p = text;
	assert_non_null(text);
	for (size_t i = 0; i < n; i++)
		p += sprintf(p, "k%zu: 1\n", (i * 7919) % n);
	struct stave_yaml *y = parse(text);
	assert_int_equal(y->n, (int)n);
	stave_yaml_free(y);
	strcpy(p, "k17: 1\n");
	refused(text, "spec.yaml:40001: 'k17' stands here a second time");
	free(text);
}

static void files_are_named_in_errors(void **state)
{
	struct stave_yaml *y = NULL;
	struct stave_err e;
	assert_int_equal(stave_yaml_load(&y, "/nonexistent/spec.yaml", &e), STAVE_ECONFIG);
	assert_non_null(strstr(e.msg, "/nonexistent/spec.yaml"));
	char path[] = "/tmp/test_yaml.XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0 && write(fd, "a: 1\na: 2\n", 10) == 10);
	close(fd);
	assert_int_equal(stave_yaml_load(&y, path, &e), STAVE_ECONFIG);
	assert_true(!strncmp(e.msg, path, strlen(path)) && !strncmp(e.msg + strlen(path), ":2: ", 4));
	unlink(path);
}

static void unknown_keys_name_the_nearest(void **state)
{
	static const char *const keys[] = {"power", "cooling", "price"};
	struct stave_err e;
	struct stave_yaml *y = parse("power: 1\ncoolling: 2\n");
	assert_int_equal(stave_yaml_keys(y, keys, 3, &e), STAVE_ECONFIG);
	assert_string_equal(e.msg, "spec.yaml:2: unknown key 'coolling'; did you mean 'cooling'?");
	stave_yaml_free(y);
	y = parse("power: 1\nzzzzzzzzzz: 2\n");
	assert_int_equal(stave_yaml_keys(y, keys, 3, &e), STAVE_ECONFIG);
	assert_string_equal(e.msg, "spec.yaml:2: unknown key 'zzzzzzzzzz'; known here: power cooling price");
	stave_yaml_free(y);
	y = parse("price: 1\npower: 2\n");
	assert_int_equal(stave_yaml_keys(y, keys, 3, &e), 0);
	assert_int_equal(stave_yaml_keys(&y->child[0], keys, 3, &e), STAVE_ECONFIG);
	assert_non_null(strstr(e.msg, "spec.yaml:1: 'price': a map of keys is wanted here, found a single value"));
	stave_yaml_free(y);
}

static void written_and_read_again(void **state)
{
	struct stave_yaml *y = parse("a: 1\nb: {c: 'x: y, #z', d: \"two\\nlines\"}\nl: [{e: 4 GB/s}, [5, 6], '']\n"), *again;
	char *first = NULL, *second = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&first, &n);
	stave_yaml_write(y, f);
	fclose(f);
	again = parse(first);
	f = open_memstream(&second, &n);
	stave_yaml_write(again, f);
	fclose(f);
	assert_string_equal(first, second);
	assert_string_equal(stave_yaml_get(stave_yaml_get(again, "b"), "c")->text, "x: y, #z");
	assert_string_equal(stave_yaml_get(stave_yaml_get(again, "b"), "d")->text, "two\nlines");
	free(first);
	free(second);
	stave_yaml_free(again);
	stave_yaml_free(y);
}

/* ---- quantities ---- */

static int quantity(const char *text, enum stave_dimension d, double min, double max, double *out, char currency[4], struct stave_err *e)
{
	char spec[200];
	snprintf(spec, sizeof spec, "# first line\nvalue: \"%s\"\n", text);
	struct stave_yaml *y = parse(spec);
	int rc = stave_yaml_quantity(stave_yaml_get(y, "value"), d, min, max, out, currency, e);
	stave_yaml_free(y);
	return rc;
}

static void reads(const char *text, enum stave_dimension d, double wanted, const char *money)
{
	double v = NAN;
	char currency[4] = "";
	struct stave_err e = {0};
	if (quantity(text, d, -INFINITY, INFINITY, &v, currency, &e))
		fail_msg("'%s': %s", text, e.msg);
	if (!(fabs(v - wanted) <= 1e-12 * fabs(wanted)))
		fail_msg("'%s' is %.17g, wanted %.17g", text, v, wanted);
	assert_string_equal(currency, money);
}

static void wrong(const char *text, enum stave_dimension d, const char *message)
{
	double v = -1;
	struct stave_err e = {0};
	assert_int_equal(quantity(text, d, -INFINITY, INFINITY, &v, NULL, &e), STAVE_ECONFIG);
	assert_true(v == -1);
	if (strncmp(e.msg, "spec.yaml:2: value ", 19) || !strstr(e.msg, message))
		fail_msg("wanted '%s' in: %s", message, e.msg);
}

static void numbers_and_counts(void **state)
{
	reads("1.5", STAVE_NUMBER, 1.5, "");
	reads("-2e-3", STAVE_NUMBER, -0.002, "");
	reads(".5", STAVE_NUMBER, 0.5, "");
	reads("3.", STAVE_NUMBER, 3, "");
	reads("300G", STAVE_COUNT, 300e9, "");
	reads("4.35G", STAVE_COUNT, 4350000000., "");
	reads("15 T", STAVE_COUNT, 15e12, "");
	reads("1k", STAVE_COUNT, 1000, "");
	reads("2M", STAVE_COUNT, 2e6, "");
	reads("1P", STAVE_COUNT, 1e15, "");
	reads("1e6", STAVE_COUNT, 1e6, "");
	reads("80 %", STAVE_SHARE, 0.8, "");
	reads("80%", STAVE_SHARE, 0.8, "");
	reads("0.8", STAVE_SHARE, 0.8, "");
	const char *const no_numbers[] = {"", "x", "inf", "nan", "-inf", "0x10", "1e999", "1,5", "1 2", "--1", "e5", ".", "infinity"};
	for (size_t i = 0; i < sizeof no_numbers / sizeof *no_numbers; i++)
		wrong(no_numbers[i], STAVE_NUMBER, "wants a number such as '1.5'");
	wrong("1.5", STAVE_COUNT, "not a whole number");
	wrong("1.0000001", STAVE_COUNT, "not a whole number");
	wrong("300B", STAVE_COUNT, "such as '300G'");
	wrong("1e17", STAVE_COUNT, "at most 2^53");
	wrong("5 GB", STAVE_NUMBER, "which is an amount of memory");
}

static void bytes_rates_and_work(void **state)
{
	const char *const decimal[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"}, *const binary[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
	char text[64];
	for (int i = 0; i < 7; i++) {
		snprintf(text, sizeof text, "2.5 %s", decimal[i]);
		reads(text, STAVE_BYTES, 2.5 * pow(1000, i), "");
		snprintf(text, sizeof text, "2.5 %s/s", decimal[i]);
		reads(text, STAVE_BYTE_RATE, 2.5 * pow(1000, i), "");
	}
	for (int i = 0; i < 5; i++) {
		snprintf(text, sizeof text, "3%s", binary[i]);
		reads(text, STAVE_BYTES, 3 * pow(1024, i + 1), "");
	}
	reads("400 Gb/s", STAVE_BYTE_RATE, 50e9, "");
	reads("400 Gbit/s", STAVE_BYTE_RATE, 50e9, "");
	reads("8 b/s", STAVE_BYTE_RATE, 1, "");
	reads("8 kb/s", STAVE_BYTE_RATE, 1e3, "");
	reads("8 Mb/s", STAVE_BYTE_RATE, 1e6, "");
	reads("28.8 Tb/s", STAVE_BYTE_RATE, 3.6e12, "");
	reads("6 GB/min", STAVE_BYTE_RATE, 1e8, "");
	reads("989 TFLOP/s", STAVE_FLOP_RATE, 989e12, "");
	reads("989 TFLOPS", STAVE_FLOP_RATE, 989e12, "");
	reads("1.979 PFLOP/s", STAVE_FLOP_RATE, 1.979e15, "");
	reads("624 TOP/s", STAVE_FLOP_RATE, 624e12, "");
	reads("624 TOPS", STAVE_FLOP_RATE, 624e12, "");
	reads("1 EFLOP/s", STAVE_FLOP_RATE, 1e18, "");
	reads("5 GFLOP/s", STAVE_FLOP_RATE, 5e9, "");
	wrong("80", STAVE_BYTES, "wants an amount of memory such as '80 GB' (units: B kB MB GB TB PB, KiB MiB GiB TiB PiB); found '80', which has no unit");
	wrong("80 Gb", STAVE_BYTES, "wants an amount of memory");
	wrong("80 gb", STAVE_BYTES, "wants an amount of memory");
	wrong("80 GB/s", STAVE_BYTES, "which is a data rate");
	wrong("400 GB", STAVE_BYTE_RATE, "which is an amount of memory");
	wrong("400", STAVE_BYTE_RATE, "which has no unit");
	wrong("989", STAVE_FLOP_RATE, "which has no unit");
	wrong("989 TFLOP", STAVE_FLOP_RATE, "wants a computing rate such as '989 TFLOP/s'");
	wrong("1e300 EB", STAVE_BYTES, "too large");
}

static void times_powers_and_energies(void **state)
{
	static const struct {
		const char *unit;
		double seconds;
	} times[] = {{"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"min", 60}, {"h", 3600}, {"d", 86400}, {"w", 604800}, {"mo", 2629800}, {"y", 31557600}};
	char text[64];
	for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
		snprintf(text, sizeof text, "1.25 %s", times[i].unit);
		reads(text, STAVE_SECONDS, 1.25 * times[i].seconds, "");
	}
	reads("40 kW", STAVE_WATTS, 40e3, "");
	reads("700W", STAVE_WATTS, 700, "");
	reads("1.5 MW", STAVE_WATTS, 1.5e6, "");
	reads("2 GW", STAVE_WATTS, 2e9, "");
	reads("1 J", STAVE_JOULES, 1, "");
	reads("1 kJ", STAVE_JOULES, 1e3, "");
	reads("1 MJ", STAVE_JOULES, 1e6, "");
	reads("1 Wh", STAVE_JOULES, 3600, "");
	reads("1 kWh", STAVE_JOULES, 3.6e6, "");
	reads("1 MWh", STAVE_JOULES, 3.6e9, "");
	reads("1 GWh", STAVE_JOULES, 3.6e12, "");
	reads("20 /s", STAVE_RATE, 20, "");
	reads("30/min", STAVE_RATE, 0.5, "");
	reads("36 /h", STAVE_RATE, 0.01, "");
	reads("86400 /d", STAVE_RATE, 1, "");
	wrong("20", STAVE_RATE, "such as '20 /s'");
	wrong("40 kWh", STAVE_WATTS, "which is an energy");
	wrong("40 kW", STAVE_JOULES, "which is a power");
	wrong("40", STAVE_WATTS, "which has no unit");
	wrong("5 m", STAVE_SECONDS, "us ms s min h d w mo y");
}

static void money_carbon_water_and_mass(void **state)
{
	reads("300 kUSD", STAVE_MONEY, 300e3, "USD");
	reads("2.5 EUR", STAVE_MONEY, 2.5, "EUR");
	reads("3 MEUR", STAVE_MONEY, 3e6, "EUR");
	reads("1 GJPY", STAVE_MONEY, 1e9, "JPY");
	reads("0.11 EUR/kWh", STAVE_MONEY_PER_JOULE, 0.11 / 3.6e6, "EUR");
	reads("110 EUR/MWh", STAVE_MONEY_PER_JOULE, 0.11 / 3.6e6, "EUR");
	reads("3.6 USD/h", STAVE_MONEY_PER_SECOND, 1e-3, "USD");
	reads("1 kUSD/mo", STAVE_MONEY_PER_SECOND, 1000 / 2629800., "USD");
	reads("350 g/kWh", STAVE_KG_PER_JOULE, 0.35 / 3.6e6, "");
	reads("350 kg/MWh", STAVE_KG_PER_JOULE, 0.35 / 3.6e6, "");
	reads("1.8 L/kWh", STAVE_LITRE_PER_JOULE, 1.8 / 3.6e6, "");
	reads("1.8 m3/MWh", STAVE_LITRE_PER_JOULE, 1.8 / 3.6e6, "");
	reads("150 kg", STAVE_KILOGRAMS, 150, "");
	reads("2 t", STAVE_KILOGRAMS, 2000, "");
	wrong("300", STAVE_MONEY, "a currency of three letters");
	wrong("$300", STAVE_MONEY, "a currency of three letters");
	wrong("300 usd", STAVE_MONEY, "a currency of three letters");
	wrong("300 DOLLAR", STAVE_MONEY, "a currency of three letters");
	wrong("2.5 USD", STAVE_MONEY_PER_SECOND, "which is an amount of money");
	wrong("2.5 USD/kWh", STAVE_MONEY_PER_SECOND, "which is a price of energy");
	wrong("0.1 EUR/kW", STAVE_MONEY_PER_JOULE, "CURRENCY/kWh");
	wrong("350", STAVE_KG_PER_JOULE, "such as '350 g/kWh'");
}

static void dates(void **state)
{
	reads("1970-01-01", STAVE_DATE, 0, "");
	reads("1970-12-31", STAVE_DATE, 364, "");
	reads("2000-02-29", STAVE_DATE, 11016, "");
	reads("2027-06-30", STAVE_DATE, 20999, "");
	const char *const no_dates[] = {"2027-02-29", "2100-02-29", "2027-13-01", "2027-00-01", "2027-01-00", "2027-1-1", "2027-01-32", "1969-12-31", "2027-01-01 ", "01-01-2027", "27-01-01"};
	for (size_t i = 0; i < sizeof no_dates / sizeof *no_dates; i++)
		wrong(no_dates[i], STAVE_DATE, "wants a date such as '2027-06-30'");
	/* each day of a century is the day after the one before, and is written as it was read */
	char text[16];
	for (int i = 0; i < 36524; i += 13) {
		stave_quantity_text(text, sizeof text, STAVE_DATE, i, NULL);
		reads(text, STAVE_DATE, i, "");
	}
}

static void values_outside_their_bounds_are_refused(void **state)
{
	double v = -1;
	struct stave_err e;
	assert_int_equal(quantity("2 MW", STAVE_WATTS, 1, 1e6, &v, NULL, &e), STAVE_ECONFIG);
	assert_string_equal(e.msg, "spec.yaml:2: value is '2 MW'; expected 1 W to 1 MW");
	assert_int_equal(quantity("-1", STAVE_COUNT, 0, 1e6, &v, NULL, &e), STAVE_ECONFIG);
	assert_string_equal(e.msg, "spec.yaml:2: value is '-1'; expected 0 to 1000000");
	assert_int_equal(quantity("120 %", STAVE_SHARE, 0, 1, &v, NULL, &e), STAVE_ECONFIG);
	assert_string_equal(e.msg, "spec.yaml:2: value is '120 %'; expected 0 % to 100 %");
	assert_int_equal(quantity("2020-01-01", STAVE_DATE, 20000, INFINITY, &v, NULL, &e), STAVE_ECONFIG);
	assert_string_equal(e.msg, "spec.yaml:2: value is '2020-01-01'; expected 2024-10-04 to 9999-12-31");
	assert_true(v == -1);
	assert_int_equal(quantity("1 MW", STAVE_WATTS, 1, 1e6, &v, NULL, &e), 0);
}

static void maps_and_lists_are_no_quantities(void **state)
{
	struct stave_yaml *y = parse("a: [1]\nb: {c: 1}\n");
	double v;
	bool flag;
	int i;
	struct stave_err e;
	assert_int_equal(stave_yaml_quantity(stave_yaml_get(y, "a"), STAVE_WATTS, 0, 1, &v, NULL, &e), STAVE_ECONFIG);
	assert_string_equal(e.msg, "spec.yaml:1: a wants a power; found a list");
	assert_int_equal(stave_yaml_bool(stave_yaml_get(y, "b"), &flag, &e), STAVE_ECONFIG);
	assert_string_equal(e.msg, "spec.yaml:2: b wants yes or no; found a map");
	static const char *const words[] = {"x"};
	assert_int_equal(stave_yaml_choice(stave_yaml_get(y, "b"), words, 1, &i, &e), STAVE_ECONFIG);
	stave_yaml_free(y);
}

static void flags_and_words(void **state)
{
	struct stave_yaml *y = parse("a: yes\nb: false\nc: maybe\nw: contained-air\nv: contaned-air\n");
	static const char *const words[] = {"plain-air", "contained-air"};
	bool flag = false;
	int i = -1;
	struct stave_err e;
	assert_int_equal(stave_yaml_bool(stave_yaml_get(y, "a"), &flag, &e), 0);
	assert_true(flag);
	assert_int_equal(stave_yaml_bool(stave_yaml_get(y, "b"), &flag, &e), 0);
	assert_false(flag);
	assert_int_equal(stave_yaml_bool(stave_yaml_get(y, "c"), &flag, &e), STAVE_ECONFIG);
	assert_string_equal(e.msg, "spec.yaml:3: c wants yes or no; found 'maybe'");
	assert_int_equal(stave_yaml_choice(stave_yaml_get(y, "w"), words, 2, &i, &e), 0);
	assert_int_equal(i, 1);
	assert_int_equal(stave_yaml_choice(stave_yaml_get(y, "v"), words, 2, &i, &e), STAVE_ECONFIG);
	assert_string_equal(e.msg, "spec.yaml:5: v is one of plain-air, contained-air; found 'contaned-air'. Did you mean 'contained-air'?");
	stave_yaml_free(y);
}

static void writes(enum stave_dimension d, double value, const char *money, const char *wanted)
{
	char text[64];
	assert_string_equal(stave_quantity_text(text, sizeof text, d, value, money), wanted);
}

static void quantities_are_written_in_fitting_units(void **state)
{
	writes(STAVE_BYTES, 80e9, NULL, "80 GB");
	writes(STAVE_BYTES, 0, NULL, "0 B");
	writes(STAVE_BYTE_RATE, 3.352e12, NULL, "3.352 TB/s");
	writes(STAVE_FLOP_RATE, 989.4e12, NULL, "989.4 TFLOP/s");
	writes(STAVE_SECONDS, 1.25e-3, NULL, "1.25 ms");
	writes(STAVE_SECONDS, 56 * 86400, NULL, "8 w");
	writes(STAVE_SECONDS, 90, NULL, "90 s");
	writes(STAVE_SECONDS, 90 * 86400, NULL, "90 d");
	writes(STAVE_SECONDS, 100000, NULL, "1.157 d");
	writes(STAVE_SECONDS, 2.5 * 31557600, NULL, "30 mo");
	writes(STAVE_WATTS, 10200, NULL, "10.2 kW");
	writes(STAVE_WATTS, -10200, NULL, "-10.2 kW");
	writes(STAVE_JOULES, 7.2e9, NULL, "2 MWh");
	writes(STAVE_SHARE, 0.82, NULL, "82 %");
	writes(STAVE_COUNT, 300e9, NULL, "300000000000");
	writes(STAVE_RATE, 20, NULL, "20 /s");
	writes(STAVE_MONEY, 300e3, "USD", "300 kUSD");
	writes(STAVE_MONEY, 2.5, "EUR", "2.5 EUR");
	writes(STAVE_MONEY, 3.2e6, "USD", "3.2 MUSD");
	writes(STAVE_MONEY_PER_JOULE, 0.11 / 3.6e6, "EUR", "0.11 EUR/kWh");
	writes(STAVE_MONEY_PER_SECOND, 2.5 / 3600, "USD", "2.5 USD/h");
	writes(STAVE_KG_PER_JOULE, 0.35 / 3.6e6, NULL, "350 g/kWh");
	writes(STAVE_LITRE_PER_JOULE, 1.8 / 3.6e6, NULL, "1.8 L/kWh");
	writes(STAVE_KILOGRAMS, 164, NULL, "164 kg");
	writes(STAVE_DATE, 20999, NULL, "2027-06-30");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(trees_keep_lines_keys_and_order),
		cmocka_unit_test(what_readers_differ_on_is_refused_with_its_line),
		cmocka_unit_test(size_depth_and_entries_are_bounded),
		cmocka_unit_test(many_keys_are_checked_in_order),
		cmocka_unit_test(files_are_named_in_errors),
		cmocka_unit_test(unknown_keys_name_the_nearest),
		cmocka_unit_test(written_and_read_again),
		cmocka_unit_test(numbers_and_counts),
		cmocka_unit_test(bytes_rates_and_work),
		cmocka_unit_test(times_powers_and_energies),
		cmocka_unit_test(money_carbon_water_and_mass),
		cmocka_unit_test(dates),
		cmocka_unit_test(values_outside_their_bounds_are_refused),
		cmocka_unit_test(maps_and_lists_are_no_quantities),
		cmocka_unit_test(flags_and_words),
		cmocka_unit_test(quantities_are_written_in_fitting_units),
	};
	return cmocka_run_group_tests_name("yaml", tests, NULL, NULL);
}
