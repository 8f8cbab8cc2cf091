/* `stave quantize` as its user meets it: a directory and a GGUF file in, a smaller GGUF file out that the program itself reads; the receipt
 * on stderr, the document on stdout, refusals by name and without leftovers. */
#include "infer/tiny_model.h"

#include <jansson.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/gguf.h"

static char program[STAVE_PATH + 8], *dir;
static char out[1 << 16], talk[1 << 16];

static void slurp(const char *name, char *to, size_t size)
{
	char path[STAVE_PATH];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "r");
	size_t n = f ? fread(to, 1, size - 1, f) : 0;
	to[n] = 0;
	if (f)
		fclose(f);
}

static int stave(const char *before, const char *args)
{
	char command[4096];
	snprintf(command, sizeof command, "cd %s && %s %s %s > out 2> talk < /dev/null", dir, before, program, args);
	int status = system(command);
	slurp("out", out, sizeof out);
	slurp("talk", talk, sizeof talk);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void runs(const char *args)
{
	int status = stave("", args);
	if (status)
		fail_msg("stave %s: exit %d: %s", args, status, talk);
}

/* The types of a file that the verb has written. */
static void has(const char *file, const char *tensor, enum stave_qtype type)
{
	char path[STAVE_PATH];
	struct stave_err err = {0};
	struct stave_gguf *g;
	snprintf(path, sizeof path, "%s/%s", dir, file);
	tiny_must(stave_gguf_open(&g, path, &err), &err);
	const struct stave_gguf_tensor *t = stave_gguf_find(g, tensor);
	assert_non_null(t);
	if (t->type != type)
		fail_msg("%s of %s is %s, want %s", tensor, file, stave_qtype_info(t->type).name, stave_qtype_info(type).name);
	stave_gguf_close(g);
}

static void a_directory_becomes_a_smaller_file(void **state)
{
	runs("quantize . --type q8_0 --out eight.gguf --json");
	json_t *j = json_loads(out, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(j);
	assert_string_equal(json_string_value(json_object_get(j, "type")), "Q8_0");
	assert_string_equal(json_string_value(json_object_get(j, "from")), "F32");
	double bits = json_number_value(json_object_get(j, "bits_per_weight")), error = json_number_value(json_object_get(j, "relative_error"));
	assert_true(bits > 8.5 && bits < 9); /* 34 bytes for 32, and the norms in F32 */
	assert_true(error > .002 && error < .01);
	json_t *q = json_object_get(json_object_get(j, "roles"), "q");
	assert_int_equal(json_integer_value(json_object_get(q, "tensors")), 2);
	assert_string_equal(json_string_value(json_array_get(json_object_get(q, "types"), 0)), "Q8_0");
	json_decref(j);
	assert_non_null(strstr(talk, "quantized eight.gguf"));
	assert_non_null(strstr(talk, "next         stave run eight.gguf"));
	has("eight.gguf", "token_embd.weight", STAVE_Q_Q8_0);
	has("eight.gguf", "blk.1.ffn_down.weight", STAVE_Q_Q8_0);
	has("eight.gguf", "output_norm.weight", STAVE_Q_F32);
}

/* Rows of 64 and 96 are no multiple of 256. */
static void a_file_becomes_another(void **state)
{
	runs("quantize . --type BF16 --out plain.gguf");
	has("plain.gguf", "blk.0.attn_q.weight", STAVE_Q_BF16);
	runs("quantize plain.gguf --type Q4_K_M --out four.gguf");
	assert_string_equal(out, "");
	assert_non_null(strstr(talk, "of BF16"));
	assert_null(strstr(talk, "quantized before"));
	has("four.gguf", "blk.0.attn_q.weight", STAVE_Q_Q5_0);
	has("four.gguf", "token_embd.weight", STAVE_Q_Q8_0);
	runs("quantize four.gguf --type Q4_0 --out again.gguf");
	assert_non_null(strstr(talk, "quantized before (Q5_0)"));
	has("again.gguf", "blk.0.attn_q.weight", STAVE_Q_Q4_0);
}

static void the_program_runs_what_it_wrote(void **state)
{
	runs("quantize . --type Q8_0 --out model.gguf");
	runs("run model.gguf --prompt Hello --max-tokens 8 --temperature 0");
	assert_memory_equal(out, "Hello", 5);
}

static void refusals(void **state)
{
	static const struct {
		const char *args;
		int status;
		const char *says;
	} cases[] = {
		{"quantize", 2, "MODEL"}, {"quantize . --type Q8_0", 2, "--out"}, {"quantize . --tpye Q8_0 --out no.gguf", 2, "'type'"},
		{"quantize . --type Q3_K_M --out no.gguf", 2, "Q4_K_M"}, {"quantize missing.gguf --out no.gguf", 1, "missing.gguf"},
		{"quantize tokenizer.json --out no.gguf", 4, "tokenizer.json"}, {"quantize . --out absent/no.gguf", 1, "absent/no.gguf"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int status = stave("", cases[i].args);
		if (status != cases[i].status || !strstr(talk, cases[i].says) || out[0])
			fail_msg("%s: exit %d, '%s'", cases[i].args, status, talk);
	}
	char path[STAVE_PATH];
	snprintf(path, sizeof path, "%s/no.gguf", dir);
	assert_int_not_equal(access(path, F_OK), 0);
}

static void a_full_disk_is_said_and_leaves_nothing(void **state)
{
	char path[STAVE_PATH];
	int status = stave("(trap '' XFSZ; ulimit -f 8;", "quantize plain.gguf --type F16 --out full.gguf; exit $?)");
	if (status != 1 || !strstr(talk, "writing full.gguf"))
		fail_msg("exit %d, '%s'", status, talk);
	snprintf(path, sizeof path, "%s/full.gguf", dir);
	assert_int_not_equal(access(path, F_OK), 0);
	strcat(path, ".tmp");
	assert_int_not_equal(access(path, F_OK), 0);
}

static void help_leads_with_two_examples(void **state)
{
	runs("quantize -h");
	char *first = strstr(out, "\n  stave quantize"), *second = first ? strstr(first + 1, "\n  stave quantize") : NULL;
	assert_non_null(second);
	assert_true(second < strstr(out, "--type Q4_K_M") + 400 && strstr(out, "\n  --") > second);
	assert_string_equal(talk, "");
}

/* The tiny model's tokens are bytes, which GGUF has no name for; byte-level BPE without a merge has as many. */
static void rename_tokens(void)
{
	struct stave_err err = {0};
	struct stave_bpe_trainer *b;
	struct stave_tokenizer *t;
	tiny_must(stave_bpe_trainer_open(&b, NULL, &err), &err);
	tiny_must(stave_bpe_trainer_finish(b, 257, &t, &err), &err);
	tiny_must(stave_tokenizer_save(t, dir, &err), &err);
	stave_tokenizer_free(t);
}

int main(int argc, char **argv)
{
	/* BUILD/test/cli/test_quantize runs BUILD/stave */
	char self[STAVE_PATH];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	if (n < 0)
		return 1;
	self[n] = 0;
	for (int up = 0; up < 3; up++)
		*strrchr(self, '/') = 0;
	snprintf(program, sizeof program, "%s/stave", self);
	dir = tiny_dir();
	rename_tokens();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_directory_becomes_a_smaller_file),
		cmocka_unit_test(a_file_becomes_another),
		cmocka_unit_test(the_program_runs_what_it_wrote),
		cmocka_unit_test(refusals),
		cmocka_unit_test(a_full_disk_is_said_and_leaves_nothing),
		cmocka_unit_test(help_leads_with_two_examples),
	};
	int rc = cmocka_run_group_tests_name("quantize", tests, NULL, NULL);
	tiny_remove(dir);
	return rc;
}
