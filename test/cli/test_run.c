/* `stave run` and `stave serve` as their user meets them: streams kept apart, the same seed the same text, the JSON document,
 * exit statuses, a chat on a terminal, and the end of a server by signal. The program is the one built beside this test. */
#include "infer/tiny_model.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* `stave VERB dir ARGS` with `before` in front (a pipe, a wrapper) and stdin from nowhere unless it gives one. */
static int stave(const char *before, const char *verb, const char *args)
{
	char command[4096];
	snprintf(command, sizeof command, "cd %s && %s %s %s . %s > out 2> talk%s", dir, before, program, verb, args, *before ? "" : " < /dev/null");
	int status = system(command);
	slurp("out", out, sizeof out);
	slurp("talk", talk, sizeof talk);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void text(void **state)
{
	char first[sizeof out];
	assert_int_equal(stave("", "run", "--prompt Hello --max-tokens 20 --seed 7"), 0);
	assert_memory_equal(out, "Hello", 5);
	assert_non_null(strstr(talk, "memory plan"));
	assert_non_null(strstr(talk, "fingerprint"));
	assert_non_null(strstr(talk, "next         stave serve ."));
	memcpy(first, out, sizeof out);
	assert_int_equal(stave("", "run", "--prompt Hello --max-tokens 20 --seed 7"), 0);
	assert_memory_equal(first, out, sizeof out);
	assert_int_equal(stave("", "run", "--prompt Hello --max-tokens 20 --seed 8"), 0);
	assert_int_not_equal(memcmp(first, out, 64), 0);
	assert_int_equal(stave("printf 'Hello\\n' |", "run", "--max-tokens 20 --seed 7"), 0); /* by pipe, its last line end dropped */
	assert_memory_equal(first, out, sizeof out);
	assert_int_equal(stave("", "run", "--prompt Hello --max-tokens 0 --no-echo"), 0);
	assert_string_equal(out, "\n");
}

static void document(void **state)
{
	assert_int_equal(stave("", "run", "--prompt Hello --max-tokens 9 --temperature 0 --json"), 0);
	json_t *j = json_loads(out, 0, NULL);
	assert_non_null(j);
	assert_int_equal(json_integer_value(json_object_get(j, "prompt_tokens")), 5);
	assert_int_equal(json_integer_value(json_object_get(j, "completion_tokens")), 9);
	assert_string_equal(json_string_value(json_object_get(j, "finish_reason")), "length");
	assert_int_equal(json_string_length(json_object_get(j, "logits_hash")), 16);
	assert_true(json_number_value(json_object_get(j, "decode_tokens_per_s")) > 0);
	json_decref(j);
}

static void bench(void **state)
{
	static const char *const keys[] = {"open_s", "first_token_s", "prefill_tokens_per_s", "decode_tokens_per_s", "decode_bytes_per_s", "bandwidth_share"};
	assert_int_equal(stave("", "bench infer", "--prompt 40 --generate 8 --reps 1 --json"), 0);
	json_t *j = json_loads(out, 0, NULL);
	assert_non_null(j);
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (json_number_value(json_object_get(j, keys[i])) <= 0)
			fail_msg("%s in %s", keys[i], out);
	json_decref(j);
	assert_int_equal(stave("", "bench infer", "--prompt 20 --generate 8 --reps 1 --sequences 3"), 0);
	assert_non_null(strstr(out, "of all sequences"));
	/* prompts of several steps, answers of two tokens: at no time do all of them decode, and no rate is made up */
	assert_int_equal(stave("", "bench infer", "--prompt 200 --generate 1 --reps 1 --sequences 12"), 2);
	assert_non_null(strstr(talk, "--generate"));
}

static void refusals(void **state)
{
	static const struct {
		const char *verb, *args;
		int status;
		const char *says;
	} cases[] = {
		{"run", "--prompt x --temprature 1", 2, "temperature"}, {"run", "--prompt x --top-p 2", 2, "top_p"},     {"run", "--prompt x second", 2, "second"},
		{"run", "--prompt x --type f8", 2, "f8"},              {"run", "--prompt x --context 100000", 2, "256"}, {"serve", "--port 70000", 2, "65535"},
		{"serve", "--host no.such.host.invalid", 2, "no.such"}, {"serve", "--slots 0", 2, "slots"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int status = stave("", cases[i].verb, cases[i].args);
		if (status != cases[i].status || !strstr(talk, cases[i].says) || out[0])
			fail_msg("%s %s: exit %d, '%s'", cases[i].verb, cases[i].args, status, talk);
	}
	char prompt[TINY_CONTEXT + 40] = "--prompt ";
	memset(prompt + 9, 'a', TINY_CONTEXT + 1);
	assert_int_equal(stave("", "run", prompt), 2);
	assert_string_equal(out, ""); /* not even the prompt */
	assert_non_null(strstr(talk, "257 tokens"));
	assert_int_equal(stave("", "run", "-h"), 0);
	assert_non_null(strstr(out, "stave run model.gguf --prompt"));
}

/* A corrupt model is exit 4, whichever part of it. */
static void corrupt(void **state)
{
	char command[3 * STAVE_PATH];
	snprintf(command, sizeof command, "cp -r %s %s-cut && truncate -s -7 %s-cut/model.safetensors && %s run %s-cut --prompt x 2> /dev/null > /dev/null", dir, dir, dir,
	         program, dir);
	int status = system(command);
	assert_int_equal(WEXITSTATUS(status), 4);
	snprintf(command, sizeof command, "rm -r %s-cut", dir);
	assert_int_equal(system(command), 0);
}

static void chat(void **state)
{
	if (system("which script > /dev/null 2>&1")) {
		print_message("skipped: no script(1) to make a terminal\n");
		skip();
	}
	char command[4096];
	snprintf(command, sizeof command, "cd %s && (sleep 1; echo hello; sleep 1; echo again; sleep 1) | script -qec '%s run . --max-tokens 5 --seed 1' /dev/null > out 2>&1", dir, program);
	int status = system(command);
	slurp("out", out, sizeof out);
	if (status)
		fail_msg("exit %d: %s", WEXITSTATUS(status), out);
	const char *first = strstr(out, "wrote 5");
	assert_non_null(first);
	assert_non_null(strstr(first + 1, "wrote 5")); /* two answers */
}

static void serve(void **state)
{
	char log[STAVE_PATH];
	snprintf(log, sizeof log, "%s/log", dir);
	pid_t pid = fork();
	if (!pid) {
		freopen(log, "w", stderr);
		execl(program, "stave", "serve", dir, "--port", "0", NULL);
		_exit(127);
	}
	for (int i = 0; i < 1000; i++) {
		slurp("log", talk, sizeof talk);
		if (strstr(talk, "serving stave-test"))
			break;
		usleep(10000);
	}
	assert_non_null(strstr(talk, "on http://127.0.0.1:"));
	int status;
	kill(pid, SIGTERM);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(int argc, char **argv)
{
	char self[STAVE_PATH];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	self[n > 0 ? n : 0] = 0;
	for (int up = 0; up < 3; up++) /* BUILD/test/cli/test_run */
		*strrchr(self, '/') = 0;
	snprintf(program, sizeof program, "%s/stave", self);
	if (access(program, X_OK)) {
		fprintf(stderr, "%s is not built: 'make' first\n", program);
		return 1;
	}
	dir = tiny_dir();
	const struct CMUnitTest tests[] = {cmocka_unit_test(text), cmocka_unit_test(document), cmocka_unit_test(bench), cmocka_unit_test(refusals),
	                                   cmocka_unit_test(corrupt), cmocka_unit_test(chat), cmocka_unit_test(serve)};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	tiny_remove(dir);
	return failed;
}
