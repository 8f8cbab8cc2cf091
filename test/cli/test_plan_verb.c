/* The verb `plan` as a user types it: its jobs, its forms, its exit codes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/wait.h>
#include <unistd.h>

static char program[4096];

/* What the verb prints; the exit status must be `wanted`. Free it. */
static char *verb_output(const char *args, int wanted)
{
	char command[8192], *text = NULL;
	size_t n = 0, got;
	char part[4096];
	snprintf(command, sizeof command, "%s %s 2> /dev/null < /dev/null", program, args);
	FILE *from = popen(command, "r"), *to = open_memstream(&text, &n);
	assert_true(from && to);
	while ((got = fread(part, 1, sizeof part, from)) > 0)
		fwrite(part, 1, got, to);
	fclose(to);
	int status = pclose(from);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != wanted)
		fail_msg("stave %s: status %d, wanted exit %d\n%s", args, status, wanted, text);
	return text;
}

static void examples_give_plans(void **state)
{
	static const char *const names[] = {"laptop", "one-node", "gpt3-175b-1024", "cluster-64", "fleet-16384", "two-regions"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char command[256];
		snprintf(command, sizeof command, "plan examples/plan/%s.yaml", names[i]);
		char *out = verb_output(command, 0);
		assert_non_null(strstr(out, "the shortest stave is "));
		free(out);
	}
}
static void forms(void **state)
{
	char *out = verb_output("plan examples/plan/gpt3-175b-1024.yaml --json", 0);
	assert_non_null(strstr(out, "\"shortest_stave\""));
	free(out);
	out = verb_output("plan examples/plan/gpt3-175b-1024.yaml --csv", 0);
	assert_int_equal(strncmp(out, "of,figure,value\n", 16), 0);
	free(out);
	out = verb_output("plan simulate examples/plan/fleet-16384.yaml --json", 0);
	assert_non_null(strstr(out, "\"goodput\""));
	free(out);
	out = verb_output("plan catalog h100-sxm", 0);
	assert_non_null(strstr(out, "source"));
	free(out);
	out = verb_output("plan keys", 0);
	assert_non_null(strstr(out, "checkpoint_interval"));
	free(out);
}
static void refusals(void **state)
{
	free(verb_output("plan", 2));
	free(verb_output("plan nowhere.yaml", 2));
	free(verb_output("plan simulte examples/plan/laptop.yaml", 2));
	free(verb_output("plan catalog h101-sxm", 2));
	free(verb_output("plan validate README.md", 4));
	free(verb_output("plan calibrate README.md", 2));
}

int main(int argc, char **argv)
{
	char here[4096];
	if (!realpath(argv[0], here) || !strrchr(here, '/'))
		return 1;
	*strrchr(here, '/') = 0;
	snprintf(program, sizeof program, "%.4000s/../../stave", here);
	const struct CMUnitTest tests[] = {cmocka_unit_test(examples_give_plans), cmocka_unit_test(forms), cmocka_unit_test(refusals)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
