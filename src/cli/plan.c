/* stave plan: from model and machines to time, power and money. The verb's first word may be one of its other jobs (simulate, validate, calibrate,
 * catalog, keys); else it is the specification. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/config.h"
#include "base/fs.h"
#include "base/sys.h"
#include "cli/cli.h"
#include "model/model.h"
#include "plan/plan.h"

struct options {
	char *catalog, *html, *accelerator, *stack;
	bool json, csv;
};
#define AT(field) offsetof(struct options, field)
static const struct stave_key keys[] = {
	{"json", STAVE_KEY_BOOL, AT(json), "false", 0, 0, NULL, "print one JSON document"},
	{"csv", STAVE_KEY_BOOL, AT(csv), "false", 0, 0, NULL, "print a row per figure"},
	{"html", STAVE_KEY_STR, AT(html), NULL, 0, 0, NULL, "also write the report as one page to this file"},
	{"catalog", STAVE_KEY_STR, AT(catalog), NULL, 0, 0, NULL, "directory whose files add to the built-in catalog and replace namesakes"},
	{"accelerator", STAVE_KEY_STR, AT(accelerator), NULL, 0, 0, NULL, "of calibrate: whose runs these are"},
	{"stack", STAVE_KEY_STR, AT(stack), NULL, 0, 0, NULL, "of calibrate: the software that made them"},
};
#undef AT

static const char usage[] =
	"stave plan: how long, how much and what it costs, with the error of each forecast and the shortest stave.\n\n"
	"  stave plan examples/plan/gpt3-175b-1024.yaml\n"
	"  stave plan examples/plan/laptop.yaml --html plan.html\n\n"
	"  stave plan simulate SPEC.yaml       the same as a fleet over time: jobs, failures, repairs, load by the hour\n"
	"  stave plan validate TRUTH.json      predict measured runs, print the error\n"
	"  stave plan calibrate RUN... --accelerator NAME --stack NAME   fit constants to measured runs, print them as YAML\n"
	"  stave plan catalog [KIND | NAME]    what is known about hardware, with sources and dates\n"
	"  stave plan keys                     every key of a specification\n\n";

static int failed(const struct stave_err *err)
{
	stave_log(STAVE_LOG_ERROR, "%s", err->msg);
	return stave_err_exit(err->code);
}

static int shape_of(const char *ref, struct stave_shape *out, struct stave_err *err)
{
	struct stave_source *s;
	int rc = stave_source_open(&s, ref, err);
	if (rc)
		return rc;
	*out = *stave_source_shape(s);
	stave_source_close(s);
	return 0;
}

static int write_html(const struct stave_plan *p, const char *path, struct stave_err *err)
{
	FILE *f = fopen(path, "w");
	if (!f)
		return stave_err_errno(err, "cannot write %s", path);
	stave_plan_html(p, f);
	bool bad = ferror(f) != 0;
	if (fclose(f) || bad)
		return stave_err_errno(err, "cannot write %s", path);
	stave_log(STAVE_LOG_INFO, "wrote %s", path);
	return 0;
}

static int plan(const struct options *o, const struct stave_plan_options *po, const char *spec, struct stave_err *err)
{
	struct stave_plan *p;
	int rc = stave_plan_open(&p, spec, po, err);
	if (rc)
		return rc;
	if (o->json) {
		json_t *j = stave_plan_json(p);
		json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
		putchar('\n');
		json_decref(j);
	} else if (o->csv) {
		stave_plan_csv(p, stdout);
	} else {
		stave_plan_text(p, stdout);
	}
	if (o->html)
		rc = write_html(p, o->html, err);
	stave_plan_close(p);
	return rc;
}

static int no_more(int n, int most, const char *what, struct stave_err *err)
{
	return n > most ? stave_err_set(err, STAVE_EUSAGE, "stave plan: too many arguments; %s is wanted", what) : 0;
}

static int run(const struct options *o, const char *const *word, int n, struct stave_err *err)
{
	static const char *const jobs[] = {"simulate", "validate", "calibrate", "catalog", "keys"};
	struct stave_plan_options po = {.catalog = o->catalog, .shape_of = shape_of};
	enum stave_plan_form form = o->json ? STAVE_PLAN_JSON : o->csv ? STAVE_PLAN_CSV : STAVE_PLAN_TEXT;
	int job = 0, rc;
	while (job < 5 && strcmp(word[0], jobs[job]))
		job++;
	if (job < 3 && n < 2)
		return stave_err_set(err, STAVE_EUSAGE, "stave plan %s: a file is wanted; 'stave plan -h' shows how", word[0]);
	switch (job) {
	case 0: return (rc = no_more(n, 2, "one SPEC.yaml", err)) ? rc : stave_plan_simulate(word[1], &po, form, stdout, err);
	case 1: return (rc = no_more(n, 2, "one TRUTH.json", err)) ? rc : stave_plan_validate(word[1], &po, form, stdout, err);
	case 2: return stave_plan_calibrate(word + 1, n - 1, o->accelerator, o->stack, &po, stdout, err);
	case 3: return (rc = no_more(n, 2, "one NAME", err)) ? rc : stave_plan_catalog(n > 1 ? word[1] : NULL, &po, form, stdout, err);
	case 4: stave_plan_keys(stdout); return 0;
	default: break;
	}
	const char *near = strchr(word[0], '.') || strchr(word[0], '/') ? NULL : stave_nearest(word[0], jobs, 5);
	if (near)
		return stave_err_set(err, STAVE_EUSAGE, "stave plan '%s': did you mean %s?", word[0], near);
	return (rc = no_more(n, 1, "one SPEC.yaml", err)) ? rc : plan(o, &po, word[0], err);
}

int stave_cli_plan(int argc, char **argv)
{
	struct options o;
	struct stave_config c;
	struct stave_err err = {0};
	const char *word[66];
	int n = 0, status = 0;
	bool help = false;
	if (stave_config_open(&c, keys, sizeof keys / sizeof *keys, &o, &err))
		return failed(&err);
	if (stave_config_args(&c, argc, argv, false, word, 66, &n, &help, &err)) {
		status = failed(&err);
	} else if (help || !n) {
		fputs(usage, help ? stdout : stderr);
		stave_config_help(&c, help ? stdout : stderr);
		status = help ? 0 : stave_err_exit(STAVE_EUSAGE);
	} else if (run(&o, word, n, &err)) {
		status = failed(&err);
	} else if (fflush(stdout) || ferror(stdout)) {
		stave_err_errno(&err, "cannot write the report");
		status = failed(&err);
	}
	stave_config_close(&c);
	return status;
}
