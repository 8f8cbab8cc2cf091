/* Specifications: what is read, and every refusal with its file and line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "plan/spec.h"

static struct plan_catalog *catalog;

static int open_catalog(void **state)
{
	struct stave_err err;
	return plan_catalog_open(&catalog, NULL, &err);
}
static int close_catalog(void **state)
{
	plan_catalog_close(catalog);
	return 0;
}

static int parse(struct plan_spec **s, const char *text, struct stave_err *err) { return plan_spec_parse(s, text, strlen(text), "spec.yaml", catalog, NULL, err); }

#define SITES "sites:\n  - {name: here, grid: de, nodes: {type: dgx-h100, count: 4}}\n"
#define TRAIN "{model: llama-3.1-8b, tokens: 10G, batch: 512, seq: 4096"
#define SERVE "{model: llama-3.1-8b, input: 1000, output: 200"

static void reads_what_is_said(void **state)
{
	struct plan_spec *s;
	struct stave_err err;
	int rc = parse(&s, "name: two works\ncurrency: EUR\nseed: 7\nstart: 2027-01-01\ndated: 2027-01-01\nwork:\n"
	                   "  - train: " TRAIN ", by: 2027-02-01, layout: {tp: 4, zero: 1, recompute: full}}\n"
	                   "  - serve: " SERVE ", rate: 90 /min, ttft_p99: 500 ms, precision: fp8}\n"
	                   "sites:\n  - {name: a, grid: de, rack: 40 kW, energy: 0.2 EUR/kWh, nodes: [{type: dgx-h100, count: 4}, {type: dgx-a100}]}\n", &err);
	if (rc)
		fail_msg("%s", err.msg);
	assert_string_equal(s->currency, "EUR");
	assert_int_equal(s->works, 2);
	const struct plan_work *t = &s->work[0], *v = &s->work[1];
	assert_int_equal(t->kind, PLAN_TRAIN);
	assert_true(t->tokens == 10e9 && t->batch == 512 && t->seq == 4096 && t->by_day - t->start_day == 31);
	assert_true(t->layout.tp == 4 && t->layout.pp == 0 && t->layout.zero == 1 && t->layout.recompute == PLAN_FULL);
	assert_int_equal(t->shape.L, 32);
	assert_int_equal(v->precision, PLAN_FP8);
	assert_true(fabs(v->hourly[0] - 1.5) < 1e-12 && v->hourly[23] == v->hourly[0] && v->ttft_p99_s == 0.5 && isnan(v->tpot_p99_s));
	assert_true(s->site[0].pools == 2 && s->site[0].pool[0].count == 4 && s->site[0].pool[1].count == 1 && s->site[0].rack_w == 40000);
	assert_string_equal(s->site[0].region, "eu");
	assert_true(fabs(s->site[0].energy.amount - 0.2 / 3.6e6) < 1e-15);
	assert_string_equal(s->site[0].energy.date, "2027-01-01");
	plan_spec_free(s);
}

static void a_model_by_its_shape(void **state)
{
	struct plan_spec *s;
	struct stave_err err;
	int rc = parse(&s, "work:\n  - train: {model: {layers: 12, hidden: 768, heads: 12, vocab: 50257, gated: no, tied: yes, seq: 1024}, tokens: 1G, batch: 512}\n" SITES, &err);
	if (rc)
		fail_msg("%s", err.msg);
	assert_int_equal(stave_shape_params(&s->work[0].shape), 124439808); /* GPT-2 124M, as published */
	assert_true(s->work[0].seq == 1024);
	plan_spec_free(s);
}

static const struct { const char *text, *says; } bad[] = {
	{"", "wanted"},
	{"work: []\n" SITES, "needs work"},
	{"wrok:\n  - train: " TRAIN "}\n" SITES, "work"},
	{"work:\n  - trian: " TRAIN "}\n" SITES, "train"},
	{"work:\n  - train: " TRAIN "}\n", "needs work: and sites"},
	{"work:\n  - train: {model: llama-3.1-8b, batch: 512}\n" SITES, "tokens is wanted"},
	{"work:\n  - train: {tokens: 1G, batch: 512}\n" SITES, "model is wanted"},
	{"work:\n  - train: {model: lama-3.1-8b, tokens: 1G, batch: 512}\n" SITES, "llama-3.1-8b"},
	{"work:\n  - train: {model: ./nowhere, tokens: 1G, batch: 512}\n" SITES, "none can be read here"},
	{"work:\n  - train: {model: llama-3.1-8b, tokens: -5, batch: 512}\n" SITES, "spec.yaml:2"},
	{"work:\n  - train: {model: llama-3.1-8b, tokens: 1000, batch: 512}\n" SITES, "less than one step"},
	{"work:\n  - train: {model: llama-3.1-8b, tokens: .inf, batch: 512}\n" SITES, "spec.yaml:2"},
	{"work:\n  - train: {model: llama-3.1-8b, tokens: nan, batch: 512}\n" SITES, "spec.yaml:2"},
	{"work:\n  - train: {model: llama-3.1-8b, tokens: 1e40, batch: 512}\n" SITES, "spec.yaml:2"},
	{"work:\n  - train: " TRAIN ", by: 2027-02-01}\n" SITES, "needs a start"},
	{"start: 2027-03-01\nwork:\n  - train: " TRAIN ", by: 2027-02-01}\n" SITES, "before it starts"},
	{"work:\n  - train: " TRAIN ", precision: bf17}\n" SITES, "bf16"},
	{"work:\n  - train: " TRAIN ", layout: {tp: 0}}\n" SITES, "spec.yaml:2"},
	{"work:\n  - train: " TRAIN ", layout: {tpp: 4}}\n" SITES, "tp"},
	{"work:\n  - train: {model: {layers: 2, hidden: 100, heads: 7, vocab: 100}, tokens: 1G, batch: 4}\n" SITES, "no multiple of 7 heads"},
	{"work:\n  - train: {model: {layers: 2, hidden: 100, vocab: 100}, tokens: 1G, batch: 4}\n" SITES, "heads is wanted"},
	{"work:\n  - serve: " SERVE "}\n" SITES, "one of rate and hourly"},
	{"work:\n  - serve: " SERVE ", rate: 5}\n" SITES, "/s"},
	{"work:\n  - serve: " SERVE ", rate: 5 GB}\n" SITES, "spec.yaml:2"},
	{"work:\n  - serve: " SERVE ", hourly: [1 /s, 2 /s]}\n" SITES, "24 rates"},
	{"work:\n  - serve: {model: llama-3.1-8b, input: 1M, output: 5, rate: 1 /s}\n" SITES, "context"},
	{"work:\n  - train: " TRAIN ", site: there}\n" SITES, "no site is called so"},
	{"work:\n  - train: " TRAIN "}\nsites:\n  - {name: a, nodes: {type: dgx-h100}}\n", "price of energy is missing"},
	{"work:\n  - train: " TRAIN "}\nsites:\n  - {name: a, grid: de}\n", "nodes are wanted"},
	{"work:\n  - train: " TRAIN "}\nsites:\n  - {name: a, grid: de, nodes: {type: dgx-h101}}\n", "dgx-h100"},
	{"work:\n  - train: " TRAIN "}\nsites:\n  - {name: a, grid: xx, nodes: {type: dgx-h100}}\n", "spec.yaml:4"},
	{"work:\n  - train: " TRAIN "}\nsites:\n  - {name: a, grid: de, power: 40 GB, nodes: {type: dgx-h100}}\n", "kW"},
	{"work:\n  - train: " TRAIN "}\nsites:\n  - {name: a, grid: de, power: -4 kW, nodes: {type: dgx-h100}}\n", "spec.yaml:4"},
	{"work:\n  - train: " TRAIN "}\nsites:\n  - {name: a, grid: de, energy: 0.2 EUR/kWh, nodes: {type: dgx-h100}}\n", "dated"},
	{"work:\n  - train: " TRAIN "}\nsites:\n  - {name: a, grid: de, nodes: {type: dgx-h100, count: 0}}\n", "spec.yaml:4"},
	{"work:\n  - train: " TRAIN "}\nsites:\n  - {name: a, grid: de, nodes: {type: dgx-h100}}\n  - {name: a, grid: fr, nodes: {type: dgx-h100}}\n", "two sites"},
	{"work:\n  - train: " TRAIN "}\nexport:\n  - {regions: [cn]}\n" SITES, "a rule has regions and one of"},
	{"currency: euro\nwork:\n  - train: " TRAIN "}\n" SITES, "three letters"},
	{"work:\n  - train: " TRAIN "}\nwork:\n  - train: " TRAIN "}\n" SITES, "spec.yaml:3"},
	{"work: &a\n  - train: " TRAIN "}\n" SITES, "spec.yaml:1"},
	{"work: {train: [", "spec.yaml"},
};

static void refusals_name_the_line(void **state)
{
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct plan_spec *s = NULL;
		struct stave_err err = {0};
		int rc = parse(&s, bad[i].text, &err);
		if (rc != STAVE_ECONFIG || strncmp(err.msg, "spec.yaml", 9) || !strstr(err.msg, bad[i].says))
			fail_msg("case %zu: code %d, '%s' should say '%s'\n%s", i, rc, err.msg, bad[i].says, bad[i].text);
		assert_null(s);
	}
}

/* A cut at any byte is read or refused, never worse. */
static void cut_anywhere(void **state)
{
	static const char text[] = "start: 2027-01-01\nwork:\n  - train: " TRAIN "}\n  - serve: " SERVE ", rate: 5 /s}\n" SITES;
	for (size_t n = 0; n < sizeof text; n++) {
		struct plan_spec *s = NULL;
		struct stave_err err;
		if (!plan_spec_parse(&s, text, n, "spec.yaml", catalog, NULL, &err))
			plan_spec_free(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(reads_what_is_said), cmocka_unit_test(a_model_by_its_shape), cmocka_unit_test(refusals_name_the_line),
	                                   cmocka_unit_test(cut_anywhere)};
	return cmocka_run_group_tests(tests, open_catalog, close_catalog);
}
