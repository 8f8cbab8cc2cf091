/* stave VERB …: finds the verb and calls it. */
#include <stdio.h>
#include <string.h>

#include "base/config.h"
#include "base/err.h"
#include "base/sys.h"
#include "cli/cli.h"

static const struct verb {
	const char *name, *help;
	int (*run)(int argc, char **argv);
} verbs[] = {
#define X(verb, help) {#verb, help, stave_cli_##verb},
	STAVE_VERBS(X)
#undef X
};
enum { VERBS = sizeof verbs / sizeof *verbs };

static void usage(FILE *to)
{
	fputs("stave: own your AI. Prepares text, trains, evaluates, runs and serves language models on your own machine.\n\n"
	      "  stave prepare book.txt --out data --tokenizer bpe:4096\n"
	      "  stave train --model mini --data data --out model\n\n", to);
	for (int i = 0; i < VERBS; i++)
		fprintf(to, "  stave %-9s %s\n", verbs[i].name, verbs[i].help);
	fputs("\n'stave VERB -h' shows a verb's options, with two examples that work.\n", to);
}

int main(int argc, char **argv)
{
	if (argc < 2 || !strcmp(argv[1], "-h") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
		usage(argc < 2 ? stderr : stdout);
		return argc < 2 ? stave_err_exit(STAVE_EUSAGE) : 0;
	}
	if (!strcmp(argv[1], "--version")) {
		puts("stave 0.1");
		return 0;
	}
	const char *names[VERBS];
	for (int i = 0; i < VERBS; i++) {
		if (!strcmp(argv[1], verbs[i].name)) {
			stave_signals_install();
			stave_threads(); /* the pool's size is settled before anything computes */
			return verbs[i].run(argc - 1, argv + 1);
		}
		names[i] = verbs[i].name;
	}
	const char *near = stave_nearest(argv[1], names, VERBS);
	stave_log(STAVE_LOG_ERROR, "unknown verb '%s'%s%s; 'stave -h' lists them", argv[1], near ? "; did you mean " : "", near ? near : "");
	return stave_err_exit(STAVE_EUSAGE);
}
