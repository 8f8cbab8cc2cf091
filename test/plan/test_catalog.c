/* The catalog: what is built in is complete, dated and consistent; names are found as people write them; files of the user add to what is built in,
 * and a fault in one says file and line. */
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

#include "base/fs.h"
#include "base/yaml.h"
#include "plan/catalog/hardware.h"

static struct plan_catalog *catalog;

static int open_catalog(void **state)
{
	struct stave_err e = {0};
	int rc = plan_catalog_open(&catalog, NULL, &e);
	if (rc)
		fprintf(stderr, "%s\n", e.msg);
	return rc;
}

static int close_catalog(void **state)
{
	plan_catalog_close(catalog);
	return 0;
}

static void sourced(const char *name, const struct plan_source *s)
{
	if (strlen(s->text) < 5 || strlen(s->date) != 10)
		fail_msg("%s has no source or date", name);
	if (strcmp(s->date, "2010-01-01") < 0)
		fail_msg("%s has a source of %s", name, s->date);
}

static void priced(const char *name, const struct plan_price *p, const struct plan_source *market)
{
	if (p->amount == 0)
		return;
	sourced(name, market);
	assert_string_equal(p->date, market->date);
	if (plan_exchange_usd(catalog, p->currency) <= 0)
		fail_msg("%s is priced in '%s'", name, p->currency);
}

static void every_accelerator_is_whole(void **state)
{
	assert_true(catalog->accelerators >= 50);
	for (int i = 0; i < catalog->accelerators; i++) {
		const struct plan_accelerator *a = &catalog->accelerator[i];
		if (!(a->peak[PLAN_F32] > 0 || a->peak[PLAN_BF16] > 0) || a->memory_bytes < 1e9 || a->memory_bytes_s < 1e10 || a->tdp_w < 10 || a->host_bytes_s <= 0 || !*a->vendor)
			fail_msg("%s lacks a fact", a->name);
		if (a->idle_w <= 0 || a->idle_w > a->tdp_w / 2 || a->embodied_kg <= 0)
			fail_msg("%s: idle %g W, embodied %g kg", a->name, a->idle_w, a->embodied_kg);
		sourced(a->name, &a->source);
		sourced(a->name, &a->estimates);
		priced(a->name, &a->price, &a->market);
		priced(a->name, &a->rent_h, &a->market);
		/* narrower numbers are never slower; a rent pays for a device in half a year to five years of hours */
		for (int p = PLAN_BF16; p < PLAN_FP4; p++)
			if (a->peak[p + 1] > 0 && a->peak[p + 1] < a->peak[p])
				fail_msg("%s is slower in precision %d", a->name, p + 1);
		double hours = a->price.amount > 0 && a->rent_h.amount > 0 ? a->price.amount / a->rent_h.amount : 10000;
		if (hours < 1500 || hours > 5 * 8766)
			fail_msg("%s costs %g hours of its rent", a->name, hours);
	}
}

/* Dense peaks, not those with sparsity; figures of the data sheets. */
static void known_figures(void **state)
{
	static const struct {
		const char *name;
		enum plan_precision p;
		double peak, bandwidth, link, tdp;
	} known[] = {
		{"a100-sxm-80gb", PLAN_BF16, 312e12, 2039e9, 300e9, 400}, {"h100-sxm", PLAN_BF16, 989.4e12, 3352e9, 450e9, 700}, {"h100-sxm", PLAN_FP8, 1978.9e12, 3352e9, 450e9, 700},
		{"h200-sxm", PLAN_BF16, 989.4e12, 4800e9, 450e9, 700},    {"b200-sxm", PLAN_FP4, 9e15, 7680e9, 900e9, 1000},     {"gb200", PLAN_FP8, 5e15, 8e12, 900e9, 1200},
		{"mi300x", PLAN_BF16, 1307.4e12, 5300e9, 448e9, 750},     {"tpu-v4", PLAN_BF16, 275e12, 1228e9, 300e9, 192},     {"rtx-4090", PLAN_BF16, 165.2e12, 1008e9, 0, 450},
		{"l40s", PLAN_FP8, 733e12, 864e9, 0, 350},
	};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		const struct plan_accelerator *a = plan_accelerator_find(catalog, known[i].name);
		assert_non_null(a);
		assert_string_equal(a->name, known[i].name);
		assert_true(a->peak[known[i].p] == known[i].peak && a->memory_bytes_s == known[i].bandwidth && a->link_bytes_s == known[i].link && a->tdp_w == known[i].tdp);
	}
	const struct plan_accelerator *h100 = plan_accelerator_find(catalog, "h100");
	assert_true(fabs(h100->memory_bytes - 81559 * 1048576.) < 1 && h100->link_domain == 8);
	assert_true(fabs(h100->rent_h.amount - 2.5) < 1e-9 && !strcmp(h100->rent_h.currency, "USD"));
}

static void accelerators_are_found_as_people_write_them(void **state)
{
	static const char *const names[][2] = {
		{"A100-SXM-80GB", "a100-sxm-80gb"}, {"A100", "a100-sxm-80gb"}, {"A100-SXM-40GB", "a100-sxm-40gb"}, {"NVIDIA A100-SXM4-40GB", "a100-sxm-40gb"},
		{"NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"}, {"A100 80GB PCIe", "a100-pcie-80gb"}, {"NVIDIA Ampere (A100-class)", "a100-sxm-80gb"}, {"8xA100 SXM4 NVLink", "a100-sxm-80gb"},
		{"h100_sxm", "h100-sxm"}, {"H100-SXM-80GB HBM3", "h100-sxm"}, {"H100 96GB HBM2e 2.4TB/s, 500W cap", "h100-sxm"}, {"8xH100 SXM5 NVLink", "h100-sxm"},
		{"8 x H100", "h100-sxm"}, {"NVIDIA H100 80GB HBM3", "h100-sxm"}, {"8xH100 PCIe no NVSwitch", "h100-pcie"}, {"4xH100 PCIe + NVLink bridge", "h100-pcie"},
		{"NVIDIA H100 NVL", "h100-nvl"}, {"H800", "h800-sxm"}, {"H200-SXM", "h200-sxm"}, {"GH200", "gh200"}, {"B200", "b200-sxm"}, {"GB200", "gb200"}, {"GB200 NVL72", "gb200"},
		{"B300", "b300-sxm"}, {"GB300", "gb300"}, {"TPU v3", "tpu-v3"}, {"TPU v4", "tpu-v4"}, {"TPUv5e", "tpu-v5e"}, {"tpu_v5p", "tpu-v5p"}, {"Trillium", "tpu-v6e"},
		{"RTX 3090 Ti (assumed: same page)", "rtx-3090-ti"}, {"RTX3090", "rtx-3090"}, {"NVIDIA GeForce RTX 4090", "rtx-4090"}, {"AMD Instinct MI300X", "mi300x"},
		{"MI250X", "mi250x"}, {"Mac Studio M3 Ultra 512GB", "m3-ultra"}, {"MacBook Pro M3 Max 128GB", "m3-max"}, {"DGX Spark GB10 128GB", "gb10"}, {"V100-SXM2", "v100-sxm2-32gb"},
		{"CPU (i9-13900K in the page JSON samples)", "i9-13900k"}, {"Intel Xeon Platinum 8480+", "xeon-8480"}, {"L40S", "l40s"}, {"L40", "l40"}, {"NVIDIA L4", "l4"},
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		const struct plan_accelerator *a = plan_accelerator_find(catalog, names[i][0]);
		if (!a || strcmp(a->name, names[i][1]))
			fail_msg("'%s' found %s, wanted %s", names[i][0], a ? a->name : "nothing", names[i][1]);
	}
	assert_null(plan_accelerator_find(catalog, ""));
	assert_null(plan_accelerator_find(catalog, "WSE-3"));
	assert_null(plan_accelerator_find(catalog, "XH100")); /* parts of words are not names */
	assert_null(plan_accelerator_find(catalog, "H1000"));
	assert_null(plan_accelerator_find(catalog, "8x"));
	char longer[600];
	memset(longer, 'x', sizeof longer);
	longer[sizeof longer - 1] = 0;
	assert_null(plan_accelerator_find(catalog, longer));
}

/* No spelling belongs to two accelerators: each alias and name finds its own. */
static void aliases_are_of_one_accelerator(void **state)
{
	for (int i = 0; i < catalog->accelerators; i++) {
		const struct plan_accelerator *a = &catalog->accelerator[i];
		assert_ptr_equal(plan_accelerator_find(catalog, a->name), a);
		for (int j = 0; j < 8 && *a->alias[j]; j++)
			if (plan_accelerator_find(catalog, a->alias[j]) != a)
				fail_msg("'%s' of %s finds %s", a->alias[j], a->name, plan_accelerator_find(catalog, a->alias[j])->name);
	}
}

static void every_node_is_whole(void **state)
{
	assert_true(catalog->nodes >= 40);
	for (int i = 0; i < catalog->nodes; i++) {
		const struct plan_node *n = &catalog->node[i];
		const struct plan_accelerator *a = plan_accelerator_find(catalog, n->accelerator);
		if (!a || strcmp(a->name, n->accelerator))
			fail_msg("%s has accelerator '%s'", n->name, n->accelerator);
		/* rated power covers its devices, all but those of the desk that are rated together with their machine */
		if (n->rated_w < 0.6 * n->count * a->tdp_w || n->idle_w <= 0 || n->idle_w > n->rated_w / 2 || n->peak_share < 0.5 || n->units < 1)
			fail_msg("%s: rated %g W for %d of %g W, idle %g W, peak share %g", n->name, n->rated_w, n->count, a->tdp_w, n->idle_w, n->peak_share);
		if (n->price.amount > 0 && a->price.amount > 0 && n->price.amount < 0.9 * n->count * a->price.amount)
			fail_msg("%s is cheaper than its accelerators", n->name);
		if ((n->nic_bytes_s > 0) != (n->nics > 0))
			fail_msg("%s has a network rate without ports or ports without a rate", n->name);
		sourced(n->name, &n->source);
		sourced(n->name, &n->estimates);
		priced(n->name, &n->price, &n->market);
	}
}

static void networks_storage_and_cooling_are_whole(void **state)
{
	for (int i = 0; i < catalog->networks; i++) {
		const struct plan_network *n = &catalog->network[i];
		assert_in_range(n->tiers, 1, 4);
		assert_int_equal(n->tier[n->tiers - 1].nodes, 0);
		for (int t = 0; t < n->tiers; t++)
			assert_true(n->tier[t].taper > 0 && n->tier[t].taper <= 1 && n->tier[t].latency_s > 0);
		sourced(n->name, &n->source);
		priced(n->name, &n->port, &n->market);
	}
	for (int i = 0; i < catalog->storages; i++) {
		sourced(catalog->storage[i].name, &catalog->storage[i].source);
		priced(catalog->storage[i].name, &catalog->storage[i].price, &catalog->storage[i].market);
	}
	for (int i = 0; i < catalog->coolings; i++) {
		const struct plan_cooling *c = &catalog->cooling[i];
		assert_true(c->pue >= 1 && c->rack_w > (i ? c[-1].rack_w : 0));
		sourced(c->name, &c->source);
	}
	const void *found;
	assert_int_equal(plan_catalog_find(catalog, "cooling", "plain-air", NULL, &found, NULL), 0);
	assert_true(((const struct plan_cooling *)found)->rack_w == 20e3);
	assert_int_equal(plan_catalog_find(catalog, "network", "roce-llama3", NULL, &found, NULL), 0);
	const struct plan_network *llama = found;
	assert_true(llama->tiers == 3 && llama->tier[1].nodes == 384 && fabs(llama->tier[2].taper * 7 - 1) < 1e-6);
}

static void grids_lead_times_and_money_are_whole(void **state)
{
	assert_true(catalog->grids >= 25);
	for (int i = 0; i < catalog->grids; i++) {
		const struct plan_grid *g = &catalog->grid[i];
		double usd_per_kwh = g->price_per_j * 3.6e6 * plan_exchange_usd(catalog, g->currency);
		if (!*g->region || !(usd_per_kwh > 0.02 && usd_per_kwh < 0.5) || g->kg_per_j * 3.6e6 > 1.2)
			fail_msg("%s: %g USD/kWh, %g kg/kWh", g->name, usd_per_kwh, g->kg_per_j * 3.6e6);
		assert_string_equal(g->date, g->market.date);
		sourced(g->name, &g->source);
		sourced(g->name, &g->market);
	}
	for (int i = 0; i < catalog->lead_times; i++)
		sourced(catalog->lead_time[i].name, &catalog->lead_time[i].source);
	for (int i = 0; i < catalog->exchanges; i++)
		sourced(catalog->exchange[i].currency, &catalog->exchange[i].source);
	assert_true(plan_exchange_usd(catalog, "USD") == 1);
	assert_true(plan_exchange_usd(catalog, "XXX") == 0);
}

/* Parameters as published, in thousands of millions. */
static void models_have_their_published_sizes(void **state)
{
	static const struct {
		const char *name;
		double published, tolerance;
	} known[] = {
		{"gpt2-124m", 0.124, .01},     {"gpt2-1.5b", 1.558, .01},     {"gpt3-175b", 175, .01},       {"megatron-1008b", 1008, .001}, {"megatron-39.1b", 39.1, .001},
		{"llama-2-7b", 6.738, .001},   {"llama-2-70b", 68.98, .001},  {"llama-3.1-8b", 8.03, .001},  {"llama-3.1-405b", 405.9, .001}, {"llama-3.2-1b", 1.236, .001},
		{"mistral-7b", 7.248, .001},   {"mixtral-8x7b", 46.7, .001},  {"mixtral-8x22b", 140.6, .001}, {"qwen2.5-7b", 7.616, .001},   {"qwen2.5-72b", 72.71, .001},
		{"qwen3-0.6b", 0.596, .001},   {"qwen3-30b-a3b", 30.53, .001}, {"qwen3-235b-a22b", 235.1, .001}, {"gemma-2-9b", 9.24, .001}, {"gemma-3-27b", 27.01, .001},
		{"phi-3-mini", 3.82, .001},    {"phi-4", 14.66, .001},        {"gpt-oss-20b", 20.91, .001},  {"gpt-oss-120b", 116.8, .001}, {"deepseek-v3", 671, .03},
		{"bert-base", 0.109, .01},     {"bloom-176b", 176.2, .001},   {"falcon-180b", 180, .01},     {"mpt-7b", 6.65, .002},
	};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		const void *found;
		struct stave_err e;
		if (plan_catalog_find(catalog, "model", known[i].name, NULL, &found, &e))
			fail_msg("%s", e.msg);
		double n = (double)stave_shape_params(&((const struct plan_model *)found)->shape) / 1e9;
		if (fabs(n - known[i].published) > known[i].tolerance * known[i].published)
			fail_msg("%s has %g, published are %g", known[i].name, n, known[i].published);
	}
	for (int i = 0; i < catalog->models; i++) {
		assert_int_equal(stave_shape_check(&catalog->model[i].shape, NULL), 0);
		sourced(catalog->model[i].name, &catalog->model[i].source);
	}
}

static void unknown_names_bring_the_nearest(void **state)
{
	const void *found = NULL;
	struct stave_err e;
	assert_int_equal(plan_catalog_find(catalog, "grid", "us-averge", NULL, &found, &e), STAVE_ECONFIG);
	assert_string_equal(e.msg, "unknown grid 'us-averge'; did you mean 'us-average'?");
	assert_int_equal(plan_catalog_find(catalog, "model", "llama-3.1-9b", NULL, &found, &e), STAVE_ECONFIG);
	assert_non_null(strstr(e.msg, "did you mean 'llama-3.1-8b'?"));
	assert_int_equal(plan_catalog_find(catalog, "node", "something else", NULL, &found, &e), STAVE_ECONFIG);
	assert_non_null(strstr(e.msg, "`stave plan catalog node` lists them"));
	assert_int_equal(plan_catalog_find(catalog, "planet", "mars", NULL, &found, &e), STAVE_ECONFIG);
	assert_non_null(strstr(e.msg, "no kind 'planet'"));
	struct stave_yaml *y;
	assert_int_equal(stave_yaml_parse(&y, "a: 1\nnode: dgx-h10\n", 19, "spec.yaml", &e), 0);
	assert_int_equal(plan_catalog_find(catalog, "node", "dgx-h10", stave_yaml_get(y, "node"), &found, &e), STAVE_ECONFIG);
	assert_string_equal(e.msg, "spec.yaml:2: unknown node 'dgx-h10'; did you mean 'dgx-h100'?");
	stave_yaml_free(y);
	assert_null(found);
	assert_int_equal(plan_catalog_find(catalog, "model", "Llama 3.1 8B", NULL, &found, &e), 0);
	assert_string_equal(((const struct plan_model *)found)->name, "llama-3.1-8b");
	assert_int_equal(plan_catalog_find(catalog, "accelerator", "NVIDIA H100", NULL, &found, &e), 0);
	assert_string_equal(((const struct plan_accelerator *)found)->name, "h100-sxm");
}

/* ---- files of the user ---- */

static char dir[] = "/tmp/test_catalog.XXXXXX";

static void put(const char *file, const char *text)
{
	char path[STAVE_PATH];
	snprintf(path, sizeof path, "%s/%s", dir, file);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static int make_dir(void **state)
{
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state) { return stave_remove_tree(dir, NULL); }

/* Opens with the directory; the error must begin with DIR/FILE:LINE and hold `message`. */
static void broken(const char *file, const char *text, int line, const char *message)
{
	struct plan_catalog *c = NULL;
	struct stave_err e = {0};
	char begin[STAVE_PATH], path[STAVE_PATH];
	put(file, text);
	assert_int_equal(plan_catalog_open(&c, dir, &e), STAVE_ECONFIG);
	assert_null(c);
	snprintf(begin, sizeof begin, "%s/%s:%d: ", dir, file, line);
	if (strncmp(e.msg, begin, strlen(begin)) || !strstr(e.msg, message))
		fail_msg("wanted '%s…%s' in: %s", begin, message, e.msg);
	snprintf(path, sizeof path, "%s/%s", dir, file);
	unlink(path);
}

#define SOURCED  "  source: \"a test\"\n  date: 2025-01-01\n"
#define FACTS    "  vendor: me\n  peak: {bf16: 10 TFLOP/s}\n  memory: 16 GB\n  bandwidth: 100 GB/s\n  tdp: 100 W\n"

static void things_of_the_user_are_added_or_take_the_place_of_namesakes(void **state)
{
	struct plan_catalog *c;
	struct stave_err e = {0};
	const void *found;
	put("grids.yaml", "here:\n  region: mine\n  carbon: 10 g/kWh\n" SOURCED "  market: {price: 0.5 EUR/kWh, source: \"my bill\", date: 2025-02-01}\n"
	                  "fr:\n  region: eu\n  carbon: 1 g/kWh\n" SOURCED);
	put("cooling.yaml", "cellar:\n  rack: 30 kW\n  pue: 1.2\n  water: 0 L/kWh\n" SOURCED);
	if (plan_catalog_open(&c, dir, &e))
		fail_msg("%s", e.msg);
	assert_int_equal(c->grids, catalog->grids + 1);
	assert_int_equal(plan_catalog_find(c, "grid", "here", NULL, &found, &e), 0);
	const struct plan_grid *here = found;
	assert_string_equal(here->currency, "EUR");
	assert_string_equal(here->date, "2025-02-01");
	assert_true(fabs(here->price_per_j * 3.6e6 - 0.5) < 1e-12);
	assert_int_equal(plan_catalog_find(c, "grid", "fr", NULL, &found, &e), 0);
	const struct plan_grid *fr = found;
	assert_true(fabs(fr->kg_per_j * 3.6e6 - 0.001) < 1e-12 && fr->price_per_j == 0); /* nothing of the old one is left */
	assert_int_equal(c->coolings, catalog->coolings + 1);
	for (int i = 1; i < c->coolings; i++)
		assert_true(c->cooling[i].rack_w > c->cooling[i - 1].rack_w);
	plan_catalog_close(c);
}

static void an_accelerator_may_be_known_by_its_data_sheet_alone(void **state)
{
	struct plan_catalog *c;
	struct stave_err e = {0};
	const void *found;
	put("accelerators.yaml", "mine:\n" FACTS SOURCED);
	put("nodes.yaml", "box:\n  accelerator: mine\n  count: 2\n  host_memory: 64 GB\n  rated: 500 W\n" SOURCED);
	if (plan_catalog_open(&c, dir, &e))
		fail_msg("%s", e.msg);
	const struct plan_accelerator *a = plan_accelerator_find(c, "mine");
	assert_non_null(a);
	assert_int_equal(a->link_domain, 1);
	assert_true(a->peak[PLAN_BF16] == 1e13 && a->price.amount == 0);
	assert_int_equal(plan_catalog_find(c, "node", "box", NULL, &found, &e), 0);
	assert_true(((const struct plan_node *)found)->peak_share == 0.8);
	plan_catalog_close(c);
}

static void faults_say_file_and_line(void **state)
{
	broken("accelerators.yaml", "mine:\n" FACTS "  colour: red\n" SOURCED, 7, "unknown key 'colour'");
	broken("accelerators.yaml", "mine:\n" FACTS "  bandwith: 1 GB/s\n" SOURCED, 7, "did you mean 'bandwidth'?");
	broken("accelerators.yaml", "mine:\n" FACTS, 1, "mine: 'source' is missing");
	broken("accelerators.yaml", "mine:\n" FACTS "  source: \"x\"\n", 1, "mine: 'date' is missing");
	broken("accelerators.yaml", "mine:\n  vendor: me\n  memory: 16\n  bandwidth: 1 GB/s\n  tdp: 1 W\n" SOURCED, 3, "no unit");
	broken("accelerators.yaml", "mine:\n  vendor: me\n  memory: 16 GB\n  bandwidth: 1 GB/s\n  tdp: 1 W\n" SOURCED, 1, "needs a peak");
	broken("accelerators.yaml", "mine:\n" FACTS "  link_domain: 8\n" SOURCED, 1, "rate is missing");
	broken("accelerators.yaml", "mine:\n" FACTS "  estimates: {idle: 200 W, source: \"x\", date: 2025-01-01}\n" SOURCED, 1, "above its TDP");
	broken("accelerators.yaml", "mine:\n" FACTS "  market: {price: 5 USD, source: \"x\"}\n" SOURCED, 7, "price needs a date beside it");
	broken("accelerators.yaml", "mine:\n" FACTS "  market: {price: 5 XYZ, source: \"x\", date: 2025-01-01}\n" SOURCED, 1, "the price of mine is in XYZ, which has no rate");
	broken("accelerators.yaml", "mine:\n" FACTS "  alias: [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" SOURCED, 7, "at most 8 names");
	broken("accelerators.yaml", "mine:\n" FACTS "  source: \"x\"\n  date: 2025-02-30\n", 8, "wants a date");
	broken("accelerators.yaml", "this-name-is-very-long-this-name-is-very-long-this-name-is-very-long:\n" FACTS SOURCED, 1, "too long");
	broken("accelerators.yaml", "- mine\n", 1, "a map of names is wanted");
	broken("nodes.yaml", "box:\n  accelerator: h10O-sxm\n  count: 8\n  host_memory: 1 TB\n  rated: 9 kW\n" SOURCED, 2, "did you mean 'h100-sxm'?");
	broken("nodes.yaml", "box:\n  accelerator: h100-sxm\n  count: 0\n  host_memory: 1 TB\n  rated: 9 kW\n" SOURCED, 3, "expected 1 to 65536");
	broken("networks.yaml", "net:\n  tiers: [{nodes: 8, taper: 1, latency: 1 us}]\n" SOURCED, 2, "the last, without 'nodes', joins all");
	broken("networks.yaml", "net:\n  tiers: [{nodes: 8, taper: 1, latency: 1 us}, {nodes: 8, taper: 1, latency: 1 us}, {taper: 1, latency: 1 us}]\n" SOURCED, 2, "from inside out");
	broken("networks.yaml", "net:\n  tiers: []\n" SOURCED, 2, "1 to 4 tiers");
	broken("cooling.yaml", "a:\n  rack: 20 kW\n  pue: 0.5\n  water: 0 L/kWh\n" SOURCED, 3, "expected 1 to 10");
	broken("lead-times.yaml", "a:\n  low: 3 mo\n  likely: 2 mo\n  high: 4 mo\n" SOURCED, 1, "must rise");
	broken("prices.yaml", "usd: {usd: 1, source: \"x\", date: 2025-01-01}\n", 1, "three capital letters");
	broken("models.yaml", "m:\n  family: lama\n  layers: 2\n  hidden: 64\n  heads: 4\n  ffn: 128\n  vocab: 100\n  context: 64\n" SOURCED, 2, "Did you mean 'llama'?");
	broken("models.yaml", "m:\n  family: llama\n  layers: 2\n  hidden: 64\n  heads: 5\n  ffn: 128\n  vocab: 100\n  context: 64\n" SOURCED, 1, "say head_width");
	broken("models.yaml", "m:\n  family: llama\n  layers: 2\n  hidden: 64\n  heads: 4\n  kv_heads: 3\n  ffn: 128\n  vocab: 100\n  context: 64\n" SOURCED, 1, "evenly");
	broken("storage.yaml", "s: {read: 1 GB/s, write: 1 GB/s, capacity: 1 GB/s, source: \"x\", date: 2025-01-01}\n", 1, "which is a data rate");
	broken("grids.yaml", "g: [1]\n", 1, "a map of keys is wanted");
	broken("fits-train.yaml", "a: 1\na: 2\n", 2, "a second time");
}

static void a_directory_must_hold_something(void **state)
{
	struct plan_catalog *c = NULL;
	struct stave_err e = {0};
	assert_int_equal(plan_catalog_open(&c, "/nonexistent", &e), STAVE_ECONFIG);
	assert_non_null(strstr(e.msg, "is no directory"));
	assert_int_equal(plan_catalog_open(&c, dir, &e), STAVE_ECONFIG);
	assert_non_null(strstr(e.msg, "holds none of the files"));
	assert_null(c);
}

/* ---- shown ---- */

static char *shown(const char *kind, const char *name, int *rc, struct stave_err *e)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);
	assert_non_null(f);
	*rc = name ? plan_catalog_explain(catalog, name, f, e) : plan_catalog_list(catalog, kind, f, e);
	fclose(f);
	return text;
}

static void lists_and_explanations(void **state)
{
	static const char *const kinds[] = {"accelerator", "nodes", "network", "storage", "cooling", "grids", "lead_times", "exchange", "models", NULL};
	struct stave_err e;
	int rc;
	for (int i = 0; i < 10; i++) {
		char *text = shown(kinds[i], NULL, &rc, &e);
		assert_int_equal(rc, 0);
		assert_true(strlen(text) > 100);
		free(text);
	}
	char *text = shown(NULL, "H100", &rc, &e);
	assert_int_equal(rc, 0);
	const char *const parts[] = {"accelerator h100-sxm\n", "also written", "3.352 TB/s", "989.4 TFLOP/s", "2.5 USD/h", "8 w", "NVIDIA H100 data sheet", "(2023-03-01)"};
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		if (!strstr(text, parts[i]))
			fail_msg("no '%s' in:\n%s", parts[i], text);
	free(text);
	text = shown(NULL, "llama-3.1-8b", &rc, &e);
	assert_non_null(strstr(text, "8030261248"));
	free(text);
	free(shown("nodez", NULL, &rc, &e));
	assert_int_equal(rc, STAVE_ECONFIG);
	assert_non_null(strstr(e.msg, "did you mean node"));
	free(shown(NULL, "dgx-h10", &rc, &e));
	assert_int_equal(rc, STAVE_ECONFIG);
	assert_string_equal(e.msg, "the catalog has nothing named 'dgx-h10'; did you mean 'dgx-h100'?");
}

static void everything_as_json(void **state)
{
	json_t *j = plan_catalog_json(catalog);
	assert_non_null(j);
	assert_int_equal(json_array_size(json_object_get(j, "accelerator")), catalog->accelerators);
	assert_int_equal(json_array_size(json_object_get(j, "model")), catalog->models);
	size_t i;
	json_t *a, *h100 = NULL;
	json_array_foreach(json_object_get(j, "accelerator"), i, a)
		if (!strcmp(json_string_value(json_object_get(a, "name")), "h100-sxm"))
			h100 = a;
	assert_true(json_number_value(json_object_get(h100, "bandwidth_bytes_s")) == 3352e9);
	assert_true(json_number_value(json_object_get(json_object_get(h100, "peak"), "bf16_flop_s")) == 989.4e12);
	json_t *rent = json_object_get(json_object_get(h100, "market"), "rent_per_s");
	assert_true(fabs(json_number_value(json_object_get(rent, "amount")) * 3600 - 2.5) < 1e-9);
	assert_string_equal(json_string_value(json_object_get(rent, "currency")), "USD");
	json_decref(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_accelerator_is_whole),
		cmocka_unit_test(known_figures),
		cmocka_unit_test(accelerators_are_found_as_people_write_them),
		cmocka_unit_test(aliases_are_of_one_accelerator),
		cmocka_unit_test(every_node_is_whole),
		cmocka_unit_test(networks_storage_and_cooling_are_whole),
		cmocka_unit_test(grids_lead_times_and_money_are_whole),
		cmocka_unit_test(models_have_their_published_sizes),
		cmocka_unit_test(unknown_names_bring_the_nearest),
		cmocka_unit_test_setup_teardown(things_of_the_user_are_added_or_take_the_place_of_namesakes, make_dir, drop_dir),
		cmocka_unit_test_setup_teardown(an_accelerator_may_be_known_by_its_data_sheet_alone, make_dir, drop_dir),
		cmocka_unit_test_setup_teardown(faults_say_file_and_line, make_dir, drop_dir),
		cmocka_unit_test_setup_teardown(a_directory_must_hold_something, make_dir, drop_dir),
		cmocka_unit_test(lists_and_explanations),
		cmocka_unit_test(everything_as_json),
	};
	return cmocka_run_group_tests_name("catalog", tests, open_catalog, close_catalog);
}
