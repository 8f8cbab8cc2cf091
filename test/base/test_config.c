/* The configuration table: precedence, validation, nearest names, YAML's forms and its refusals, the dump read back. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"
#include "base/fs.h"

struct target {
	bool json;
	int64_t steps;
	double lr;
	char *name;
	int kind;
};
static const struct stave_key keys[] = {
	{"json", STAVE_KEY_BOOL, offsetof(struct target, json), "false", 0, 0, NULL, "print JSON"},
	{"train.steps", STAVE_KEY_INT, offsetof(struct target, steps), "100", 1, 1e6, NULL, "steps"},
	{"train.lr", STAVE_KEY_REAL, offsetof(struct target, lr), "3e-4", 0, 1, NULL, "learning rate"},
	{"train.run_name", STAVE_KEY_STR, offsetof(struct target, name), NULL, 0, 0, NULL, "name"},
	{"train.kind", STAVE_KEY_CHOICE, offsetof(struct target, kind), "cosine", 0, 0, "cosine|wsd|linear", "schedule"},
};
#define N (sizeof keys / sizeof *keys)

static char dir[] = "/tmp/stave-config-XXXXXX";

static const char *yaml(const char *text)
{
	static char path[STAVE_PATH];
	snprintf(path, sizeof path, "%s/c.yaml", dir);
	assert_int_equal(stave_file_write(path, text, strlen(text), NULL), 0);
	return path;
}

static int parse(struct target *t, const char *file, int argc, char **argv, struct stave_err *e)
{
	struct stave_config c;
	const char *pos[2];
	int n;
	bool help;
	assert_int_equal(stave_config_open(&c, keys, N, t, e), 0);
	int rc = file ? stave_config_yaml(&c, yaml(file), e) : 0;
	if (!rc)
		rc = stave_config_args(&c, argc, argv, true, pos, 2, &n, &help, e);
	char *name = t->name ? strdup(t->name) : NULL;
	stave_config_close(&c);
	t->name = name;
	return rc;
}

static void sources_have_an_order(void **state)
{
	struct target t;
	struct stave_err e;
	char *argv[] = {"train", "--train.lr", "0.5"};
	setenv("STAVE_TRAIN_STEPS", "7", 1);
	setenv("STAVE_TRAIN_LR", "0.25", 1);
	assert_int_equal(parse(&t, "train:\n  steps: 5\n  lr: 0.125\n  kind: wsd\n  run_name: 'it''s'\n", 3, argv, &e), 0);
	unsetenv("STAVE_TRAIN_STEPS");
	unsetenv("STAVE_TRAIN_LR");
	assert_int_equal(t.steps, 7);      /* environment over file */
	assert_true(t.lr == 0.5);          /* flag over environment */
	assert_int_equal(t.kind, 1);       /* file over default */
	assert_string_equal(t.name, "it's");
	assert_false(t.json);
	free(t.name);
}

static void flags_have_their_forms(void **state)
{
	struct target t;
	struct stave_err e;
	char *argv[] = {"train", "--json", "--train.steps=2k", "--train.run-name", "x"};
	assert_int_equal(parse(&t, NULL, 5, argv, &e), 0);
	assert_true(t.json);
	assert_int_equal(t.steps, 2000);
	assert_string_equal(t.name, "x");
	free(t.name);
	char *no[] = {"train", "--json", "--no-json"};
	assert_int_equal(parse(&t, NULL, 3, no, &e), 0);
	assert_false(t.json);
}

static void refuses(const char *file, int argc, char **argv, int code, const char *words)
{
	struct target t;
	struct stave_err e = {0};
	int rc = parse(&t, file, argc, argv, &e);
	free(t.name);
	if (rc != code || e.code != code || !strstr(e.msg, words))
		fail_msg("code %d (wanted %d): %s", rc, code, e.msg);
}

static void mistakes_are_named(void **state)
{
	char *none[] = {"train"};
	refuses("train:\n  stepz: 4\n", 1, none, STAVE_ECONFIG, "did you mean 'train.steps'");
	refuses("trian:\n  lr: 1\n", 1, none, STAVE_ECONFIG, "c.yaml:2");
	refuses("train:\n  steps: many\n", 1, none, STAVE_ECONFIG, "whole number");
	refuses("train:\n  steps: 0\n", 1, none, STAVE_ECONFIG, "outside");
	refuses("train:\n  lr: nan\n", 1, none, STAVE_ECONFIG, "wants a number");
	refuses("train:\n  kind: cosin\n", 1, none, STAVE_ECONFIG, "cosine|wsd|linear");
	refuses("train: [1, 2]\n", 1, none, STAVE_ECONFIG, "list");
	refuses("a: &x 1\nb: *x\n", 1, none, STAVE_ECONFIG, "unknown key 'a'");
	refuses("- 1\n", 1, none, STAVE_ECONFIG, "list");
	refuses("train: {lr: 1\n", 1, none, STAVE_ECONFIG, "not valid YAML");
	refuses("a: {b: {c: {d: {e: {f: {g: {h: {i: {j: 1}}}}}}}}}\n", 1, none, STAVE_ECONFIG, "deep");
	refuses("\x01\x02", 1, none, STAVE_ECONFIG, "not valid YAML");
	char *flag[] = {"train", "--train.stpes", "3"};
	refuses(NULL, 3, flag, STAVE_EUSAGE, "did you mean 'train.steps'");
	char *suffix[] = {"train", "--lr", "3"};
	refuses(NULL, 3, suffix, STAVE_EUSAGE, "did you mean 'train.lr'");
	char *lacks[] = {"train", "--train.lr"};
	refuses(NULL, 2, lacks, STAVE_EUSAGE, "wants a value");
	char *single[] = {"train", "-lr", "3"};
	refuses(NULL, 3, single, STAVE_EUSAGE, "unknown option");
	char *extra[] = {"train", "a", "b", "c"};
	refuses(NULL, 4, extra, STAVE_EUSAGE, "unexpected argument 'c'");
}

static void the_dump_reads_back(void **state)
{
	struct target a, b;
	struct stave_config c, d;
	struct stave_err e = {0};
	char path[STAVE_PATH];
	assert_int_equal(stave_config_open(&c, keys, N, &a, &e), 0);
	assert_int_equal(stave_config_set(&c, "train.lr", "0.1", "test", 3, &e), 0);
	assert_int_equal(stave_config_set(&c, "train.run_name", "a: 'b' #c", "test", 3, &e), 0);
	assert_int_equal(stave_config_set(&c, "train.kind", "linear", "test", 3, &e), 0);
	snprintf(path, sizeof path, "%s/dump.yaml", dir);
	FILE *f = fopen(path, "w");
	stave_config_dump(&c, f);
	fclose(f);
	assert_int_equal(stave_config_open(&d, keys, N, &b, &e), 0);
	if (stave_config_yaml(&d, path, &e))
		fail_msg("%s", e.msg);
	assert_true(a.lr == b.lr && a.steps == b.steps && a.kind == b.kind && a.json == b.json);
	assert_string_equal(a.name, b.name);
	stave_config_close(&c);
	stave_config_close(&d);
}

static int start(void **state) { return mkdtemp(dir) ? 0 : -1; }
static int end(void **state) { return stave_remove_tree(dir, NULL); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sources_have_an_order), cmocka_unit_test(flags_have_their_forms), cmocka_unit_test(mistakes_are_named),
		cmocka_unit_test(the_dump_reads_back),
	};
	return cmocka_run_group_tests(tests, start, end);
}
