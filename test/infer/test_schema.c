/* JSON schemas as grammars, against python3-jsonschema (schema_truth.py): texts of valid instances are taken, of others refused; random
 * answers drawn from masks validate. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <unistd.h>

#include "infer/grammar_kit.h"
#include "infer/schema_cases.h"

enum { N_CASES = sizeof schema_cases / sizeof *schema_cases };

static void truth(void **state)
{
	struct stave_vocab *v = bytes_and(NULL, 0);
	int bad = 0, strict = 0, n = 0;
	(void)state;
	for (int i = 0; i < N_CASES; i++) {
		struct stave_err err = {0};
		struct stave_grammar *g = grammar(STAVE_GRAMMAR_JSON_SCHEMA, schema_cases[i].schema, v, &err);
		if (!g) {
			print_message("%s\n  refused: %s\n", schema_cases[i].schema, err.msg);
			bad++;
			continue;
		}
		for (int k = 0; schema_cases[i].t[k].text; k++) {
			const char *text = schema_cases[i].t[k].text;
			char verdict = schema_cases[i].t[k].verdict;
			bool ok = accepts(g, 256, text, strlen(text), NULL);
			n++;
			strict += verdict == 's' && !ok;
			if (verdict == (ok ? 'r' : 'a')) {
				print_message("%s\n  %s: %s\n", schema_cases[i].schema, ok ? "taken but not valid" : "valid but refused", text);
				bad++;
			}
		}
		stave_grammar_close(g);
	}
	print_message("%d texts under %d schemas; %d of the valid ones refused where the grammar may be stricter\n", n, N_CASES, strict);
	stave_vocab_close(v);
	assert_int_equal(bad, 0);
}

/* Answers drawn at random; the shorter way out is preferred more and more, so that they end. */
static size_t answer(struct stave_matcher *m, uint64_t *seed, char *text, size_t max)
{
	uint32_t bits[9];
	size_t n = 0;
	while (n < max) {
		static const char closing[] = "\"]},:0truefalsn";
		int allowed[256] = {0}, k = 0;
		stave_matcher_mask(m, bits);
		if (bit(bits, 256) && (stave_matcher_done(m) || draw(seed) % 4 == 0)) {
			assert_true(stave_matcher_accept(m, 256));
			assert_true(stave_matcher_done(m));
			return n;
		}
		if (draw(seed) % 100 < n / 4) /* of what closes, the first allowed */
			for (const char *c = closing; *c && !k; c++)
				if (bit(bits, (unsigned char)*c))
					allowed[k++] = (unsigned char)*c;
		for (int i = 0; !k && i < 256; i++)
			if (bit(bits, i) && (i < 128 || draw(seed) % 8 == 0))
				allowed[k++] = i;
		for (int i = 0; !k && i < 256; i++)
			if (bit(bits, i))
				allowed[k++] = i;
		assert_true(k > 0); /* every state has a way out */
		int id = allowed[draw(seed) % (uint64_t)k];
		assert_true(stave_matcher_accept(m, id));
		text[n++] = (char)id;
	}
	return max + 1; /* given up */
}

static void drawn_answers_validate(void **state)
{
	struct stave_vocab *v = bytes_and(NULL, 0);
	char path[] = "/tmp/stave-schema-XXXXXX", command[400], text[4096];
	uint64_t seed = 1;
	int fd = mkstemp(path), n = 0, unfinished = 0;
	FILE *f = fdopen(fd, "w");
	(void)state;
	for (int i = 0; i < N_CASES; i++) {
		struct stave_grammar *g = grammar(STAVE_GRAMMAR_JSON_SCHEMA, schema_cases[i].schema, v, NULL);
		assert_non_null(g);
		bool decimal = strstr(schema_cases[i].schema, "multipleOf\": 0.0"); /* which Python's floats misjudge */
		for (int k = 0; k < (decimal ? 0 : 12); k++) {
			struct stave_matcher *m;
			assert_int_equal(stave_matcher_open(&m, g, NULL), 0);
			size_t len = answer(m, &seed, text, sizeof text - 1);
			stave_matcher_close(m);
			if (len > sizeof text - 1) {
				unfinished++;
				continue;
			}
			text[len] = 0;
			for (char *p = text; *p; p++) /* one line each: a line break between tokens is a space as well */
				*p = *p == '\n' ? ' ' : *p;
			fprintf(f, "[%s, %s]\n", schema_cases[i].schema, text);
			n++;
		}
		stave_grammar_close(g);
	}
	fclose(f);
	stave_vocab_close(v);
	assert_true(n > 10 * unfinished);
	snprintf(command, sizeof command, "python3 -c \"import json, jsonschema\nfor line in open('%s'): schema, x = json.loads(line); jsonschema.Draft202012Validator(schema).validate(x)\"", path);
	if (system("python3 -c 'import jsonschema' 2>/dev/null")) {
		unlink(path);
		print_message("no python3-jsonschema: drawn answers are not validated\n");
		skip();
	}
	int rc = system(command);
	if (!rc)
		unlink(path);
	assert_int_equal(rc, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(truth), cmocka_unit_test(drawn_answers_validate)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
