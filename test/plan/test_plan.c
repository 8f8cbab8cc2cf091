/* Whole plans from random valid specifications: every number is finite, parts add up, limits hold, and the same file gives the same bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plan/plan.h"

static char path[] = "/tmp/stave-plan-XXXXXX";
static const struct stave_plan_options options;

static void write_spec(const char *text)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

/* New reference, or NULL with the error. */
static json_t *plan_of(const char *text, struct stave_err *err)
{
	struct stave_plan *p;
	write_spec(text);
	if (stave_plan_open(&p, path, &options, err))
		return NULL;
	json_t *j = stave_plan_json(p);
	stave_plan_close(p);
	return j;
}

static double at(const json_t *o, const char *dotted)
{
	char copy[128], *save = NULL;
	snprintf(copy, sizeof copy, "%s", dotted);
	for (char *w = strtok_r(copy, ".", &save); w; w = strtok_r(NULL, ".", &save))
		o = w[0] >= '0' && w[0] <= '9' ? json_array_get(o, (size_t)atoi(w)) : json_object_get(o, w);
	if (!json_is_number(o))
		fail_msg("no number at %s", dotted);
	return json_number_value(o);
}

/* jansson itself refuses NAN and infinity, so a null where a number belongs is what to look for. */
static void sums(const json_t *work)
{
	const json_t *t = json_object_get(work, "training"), *part;
	const char *key;
	double total = 0;
	if (!t)
		return;
	json_object_foreach(json_object_get((json_t *)t, "step_parts"), key, part) total += json_number_value(part);
	assert_true(fabs(total - at(t, "step_parts_total_s")) <= 1e-6 * total);
	total = 0;
	json_object_foreach(json_object_get((json_t *)t, "memory"), key, part) total += strcmp(key, "total_bytes") ? json_number_value(part) : 0;
	assert_true(fabs(total - at(t, "memory.total_bytes")) <= 1e-6 * total);
	assert_true(at(t, "goodput") > 0 && at(t, "goodput") <= 1);
	assert_true(at(t, "wall_p10_s") <= at(t, "wall_p50_s") && at(t, "wall_p50_s") <= at(t, "wall_p90_s"));
	assert_true(at(t, "mfu") > 0 && at(t, "mfu") < 1);
}

static void money_adds_up(const json_t *o)
{
	const json_t *cost = json_object_get(o, "cost"), *part;
	const char *key;
	double total = 0;
	if (!json_is_number(json_object_get(cost, "total")))
		return; /* no price is known */
	json_object_foreach((json_t *)cost, key, part) total += strcmp(key, "total") ? json_number_value(part) : 0;
	assert_true(fabs(total - at(cost, "total")) <= 1e-6 * total);
}

static unsigned long rng = 1;
static unsigned draw(unsigned n)
{
	rng = rng * 6364136223846793005ul + 1442695040888963407ul;
	return (unsigned)(rng >> 33) % n;
}
#define ONE_OF(...) ((const char *const[]){__VA_ARGS__}[draw(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))])

static void random_spec(char *out, size_t room)
{
	const char *node = ONE_OF("dgx-a100", "dgx-h100", "hgx-h200", "mi300x-8", "l40s-8", "workstation-4090", "dgx-b200", "tpu-v5p-host");
	int nodes = 1 << draw(7), train = (int)draw(3);
	size_t n = (size_t)snprintf(out, room, "seed: %u\nstart: 2027-01-01\nobjective: %s\nwork:\n", draw(1000), ONE_OF("time", "cost", "energy"));
	if (train)
		n += (size_t)snprintf(out + n, room - n, "  - train: {model: %s, tokens: %u00G, batch: %u, precision: %s, straggler: %u %%, checkpoint_async: %s}\n",
		                      ONE_OF("gpt2-124m", "llama-3.2-1b", "llama-2-7b", "mixtral-8x7b", "llama-3.1-8b"), 1 + draw(9), 64u << draw(6), ONE_OF("bf16", "f32", "bf16"), draw(10), ONE_OF("yes", "no"));
	else
		n += (size_t)snprintf(out + n, room - n, "  - serve: {model: %s, input: %u, output: %u, rate: %u /s, precision: %s, spread: 0.%u, prefix_hit: %u %%}\n",
		                      ONE_OF("llama-3.2-1b", "qwen3-8b", "mixtral-8x7b", "gemma-2-9b"), 16 + draw(3000), 2 + draw(600), 1 + draw(20), ONE_OF("bf16", "fp8", "int4"), draw(9), draw(90));
	snprintf(out + n, room - n, "sites:\n  - {name: a, grid: %s, network: %s, storage: %s, failures: 0.00%u /d, nodes: {type: %s, count: %d}, rented: %s}\n",
	         ONE_OF("de", "fr", "us-average", "cn"), ONE_OF("ib-ndr", "eth-100", "roce-llama3"), ONE_OF("lustre-flash", "nas-10g", "object-s3"), 1 + draw(9), node, nodes,
	         ONE_OF("no", "no", "yes"));
}

static void random_specifications(void **state)
{
	int planned = 0;
	for (int i = 0; i < 40; i++) {
		char text[2048];
		struct stave_err err = {0};
		random_spec(text, sizeof text);
		json_t *j = plan_of(text, &err);
		if (!j) { /* what does not fit says so, with a reason */
			if (err.code != STAVE_ENOFIT || strlen(err.msg) < 30)
				fail_msg("code %d '%s' of\n%s", err.code, err.msg, text);
			continue;
		}
		planned++;
		const json_t *work = json_array_get(json_object_get(j, "work"), 0);
		sums(work);
		money_adds_up(work);
		assert_true(at(work, "footprint.energy_j") >= 0);
		json_t *again = plan_of(text, &err);
		json_object_del(j, "seconds");
		if (!json_equal(j, again))
			fail_msg("two plans of the same file differ:\n%s", text);
		json_decref(again);
		json_decref(j);
	}
	assert_true(planned > 10);
}

#define HERE "sites:\n  - {name: a, grid: de, network: ib-ndr, storage: lustre-flash, nodes: {type: dgx-h100, count: %d}%s}\n"
static json_t *of(struct stave_err *err, const char *top, int nodes, const char *more)
{
	char text[2048];
	int n = snprintf(text, sizeof text, "start: 2027-01-01\n%s", top);
	snprintf(text + n, sizeof text - (size_t)n, HERE, nodes, more);
	return plan_of(text, err);
}

static void what_does_not_fit(void **state)
{
	static const struct { const char *top, *more, *says[2]; int nodes; } cases[] = {
		{"work:\n  - train: {model: llama-3.1-405b, tokens: 1T, batch: 512}\n", "", {"memory", "GiB"}, 1},
		{"work:\n  - train: {model: llama-3.1-8b, tokens: 1T, batch: 512, by: 2027-01-03}\n", "", {"days", "times the devices"}, 1},
		{"work:\n  - serve: {model: llama-3.1-405b, input: 100, output: 100, rate: 1 /s}\n", "", {"devices", ""}, 1},
		{"work:\n  - serve: {model: llama-3.1-8b, input: 4000, output: 100, rate: 1 /s, ttft_p99: 1 ms}\n", "", {"first token", ""}, 1},
		{"work:\n  - serve: {model: llama-3.1-70b, input: 1000, output: 1000, rate: 10000 /s}\n", "", {"replicas", "would fit"}, 1},
		{"work:\n  - train: {model: llama-3.1-8b, tokens: 1T, batch: 512, residency: us}\n", "", {"us", "eu"}, 1},
		{"work:\n  - train: {model: llama-3.1-8b, tokens: 1T, batch: 512}\nexport:\n  - {accelerator: h100-sxm, regions: [eu]}\n", "", {"export", "eu"}, 1},
		{"work:\n  - train: {model: llama-3.1-8b, tokens: 1T, batch: 512}\nlimits: {cost: 5 USD}\n", "", {"USD", "limit"}, 1},
		{"work:\n  - train: {model: llama-3.1-8b, tokens: 1T, batch: 512}\nlimits: {energy: 1 kWh}\n", "", {"J", "limit"}, 1},
		{"work:\n  - train: {model: llama-3.1-8b, tokens: 1T, batch: 512}\n", ", power: 2 kW", {"utility feed", "kW more"}, 1},
		{"work:\n  - train: {model: llama-3.1-8b, tokens: 1T, batch: 512}\n", ", spares: 4", {"spares", ""}, 4},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct stave_err err = {0};
		json_t *j = of(&err, cases[i].top, cases[i].nodes, cases[i].more);
		if (j || err.code != STAVE_ENOFIT || !strcasestr(err.msg, cases[i].says[0]) || !strcasestr(err.msg, cases[i].says[1]))
			fail_msg("case %zu: code %d '%s' should say '%s' and '%s'", i, err.code, err.msg, cases[i].says[0], cases[i].says[1]);
	}
}

/* More of anything is never worse. */
static void more_is_no_worse(void **state)
{
	static const char top[] = "work:\n  - train: {model: llama-3.1-8b, tokens: 100G, batch: 512, seq: 4096}\n";
	struct stave_err err = {0};
	double before = INFINITY;
	for (int nodes = 1; nodes <= 16; nodes *= 2) {
		json_t *j = of(&err, top, nodes, "");
		if (!j)
			fail_msg("%s", err.msg);
		double wall = at(j, "work.0.training.wall_p50_s");
		assert_true(wall <= before * 1.0001);
		before = wall;
		json_decref(j);
	}
}

/* The bill against arithmetic by hand: kWh times their price; rented devices times hours; a PUE that multiplies energy once. */
static void the_bill_by_hand(void **state)
{
	static const char top[] = "currency: USD\ndated: 2026-11-01\nwork:\n  - train: {model: llama-3.1-8b, tokens: 100G, batch: 512, seq: 4096, gpus: 16}\n";
	struct stave_err err = {0};
	json_t *j = of(&err, top, 2, ", energy: 0.25 USD/kWh, pue: 1.5"), *lean = of(&err, top, 2, ", energy: 0.25 USD/kWh, pue: 1");
	json_t *rent = of(&err, top, 2, ", rented: yes, rent: 3 USD/h");
	if (!j || !lean || !rent)
		fail_msg("%s", err.msg);
	double kwh = at(j, "work.0.footprint.energy_kwh"), wall = at(j, "work.0.training.wall_p50_s");
	assert_true(fabs(at(j, "work.0.cost.energy") - 0.25 * kwh) < 1e-6 * kwh);
	assert_true(fabs(kwh - at(j, "work.0.footprint.facility_mean_power_w") * wall / 3.6e6) < 1e-6 * kwh);
	assert_true(fabs(kwh - 1.5 * at(lean, "work.0.footprint.energy_kwh")) < 1e-6 * kwh);
	assert_true(kwh > 16 * 0.4 * wall / 3600 && kwh < 1.5 * 16 * 1.4 * wall / 3600); /* 400 to 1400 W a device */
	assert_true(fabs(at(rent, "work.0.cost.total") - 3 * 16 * wall / 3600) < 1e-6 * at(rent, "work.0.cost.total"));
	json_decref(j);
	json_decref(lean);
	json_decref(rent);
}

/* Ten percent more arithmetic gains what products' share of the step lets it, never more than 1 - 1/1.1; storage, nearly idle, gains nothing; ranked. */
static void staves_are_ranked(void **state)
{
	struct stave_err err = {0};
	json_t *j = of(&err, "work:\n  - train: {model: llama-3.1-8b, tokens: 100G, batch: 512, seq: 4096, gpus: 8}\n", 1, "");
	if (!j)
		fail_msg("%s", err.msg);
	const json_t *list = json_object_get(json_array_get(json_object_get(j, "work"), 0), "staves");
	double before = -1, arithmetic = 0, storage = 1;
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *s = json_array_get(list, i);
		double change = at(s, "objective_change_per_10_percent");
		const char *name = json_string_value(json_object_get(s, "resource"));
		assert_true(change >= before && change <= 0);
		before = change;
		arithmetic = strcmp(name, "arithmetic") ? arithmetic : change;
		storage = strcmp(name, "storage") ? storage : change;
	}
	double share = at(j, "work.0.training.step_parts.products_s") / at(j, "work.0.training.step_parts_total_s");
	assert_true(arithmetic < -0.5 * share / 11 && arithmetic > -1. / 11 - 1e-3); /* 1 - 1/1.1 of what scales */
	assert_true(fabs(storage) < 0.005);
	assert_string_equal(json_string_value(json_object_get(json_array_get(json_object_get(j, "work"), 0), "shortest_stave")),
	                    json_string_value(json_object_get(json_array_get(list, 0), "resource")));
	json_decref(j);
}

static void every_report_is_whole(void **state)
{
	struct stave_plan *p;
	struct stave_err err;
	write_spec("name: a <b> & \"c\"\nstart: 2027-01-01\nwork:\n  - train: {model: llama-2-7b, tokens: 10G, batch: 512}\n  - serve: {model: llama-2-7b, input: 500, output: 100, rate: 2 /s}\n"
	           "sites:\n  - {name: a, grid: de, nodes: {type: dgx-h100, count: 2}, build: [{item: gpus}, {item: burn-in, after: [gpus]}]}\n");
	if (stave_plan_open(&p, path, &options, &err))
		fail_msg("%s", err.msg);
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);
	stave_plan_html(p, f);
	fclose(f);
	assert_non_null(strstr(text, "a &lt;b&gt; &amp; &quot;c&quot;"));
	assert_non_null(strstr(text, "</html>"));
	assert_null(strstr(text, "http")); /* nothing is fetched */
	assert_null(strstr(text, "<script"));
	assert_null(strstr(text, "nan"));
	free(text);
	f = open_memstream(&text, &n);
	stave_plan_text(p, f);
	fclose(f);
	assert_non_null(strstr(text, "the shortest stave is "));
	assert_non_null(strstr(text, "the next wall is "));
	int lines = 0;
	for (const char *c = text; *c; c++)
		lines += *c == '\n';
	assert_true(lines <= 50); /* one screen */
	free(text);
	f = open_memstream(&text, &n);
	stave_plan_csv(p, f);
	fclose(f);
	assert_non_null(strstr(text, ",training.step_s,"));
	free(text);
	stave_plan_close(p);
}

static int make_file(void **state)
{
	int fd = mkstemp(path);
	return fd < 0 ? -1 : close(fd);
}
static int remove_file(void **state) { return unlink(path); }

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(random_specifications), cmocka_unit_test(what_does_not_fit), cmocka_unit_test(more_is_no_worse), cmocka_unit_test(the_bill_by_hand), cmocka_unit_test(staves_are_ranked),
	                                   cmocka_unit_test(every_report_is_whole)};
	return cmocka_run_group_tests(tests, make_file, remove_file);
}
