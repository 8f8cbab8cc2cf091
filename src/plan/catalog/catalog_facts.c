/* The vocabulary of the catalog: which facts each kind of thing has, their keys, units and bounds. Facts come in groups that share a source and a
 * date: those of a data sheet at the top, `estimates` (what makers do not publish) and `market` (prices and lead times, which age fastest). */
#include "plan/catalog/catalog_parts.h"

#define T_        struct plan_accelerator
#define AT(field) offsetof(T_, field)
#define SIZE(field) sizeof(((T_ *)0)->field)
#define TEXT(k, field, ...)                 {.key = k, .type = PLAN_FACT_TEXT, .offset = AT(field), .size = SIZE(field), __VA_ARGS__}
#define REAL(k, field, dim, low, high, ...) {.key = k, .type = PLAN_FACT_REAL, .dimension = dim, .offset = AT(field), .min = low, .max = high, __VA_ARGS__}
#define SINGLE(k, field, low, high)         {.key = k, .type = PLAN_FACT_SINGLE, .dimension = STAVE_NUMBER, .offset = AT(field), .min = low, .max = high}
#define WHOLE(k, field, low, high, ...)     {.key = k, .type = PLAN_FACT_WHOLE, .offset = AT(field), .min = low, .max = high, __VA_ARGS__}
#define FLAG(k, field)                      {.key = k, .type = PLAN_FACT_FLAG, .offset = AT(field)}
#define PRICE(k, field, dim, ...)           {.key = k, .type = PLAN_FACT_REAL, .dimension = dim, .offset = AT(field.amount), .max = 1e12, \
                                             .currency = AT(field.currency), .day = AT(field.date), __VA_ARGS__}
#define GROUP(k, facts)                     {.key = k, .type = PLAN_FACT_GROUP, .group = facts}
#define SOURCE(field)                       TEXT("source", field.text, .required = true), {.key = "date", .type = PLAN_FACT_DAY, .offset = AT(field.date), .size = 12, .required = true}
#define LEAD                                REAL("lead_time", lead_time_s, STAVE_SECONDS, 0, 3e8)
#define NEED                                .required = true

#define YEAR (365.25 * 86400)

static const struct plan_fact accelerator_peak[] = {
#define X(k, i, ...) REAL(k, peak[i], STAVE_FLOP_RATE, 1e6, 1e20, __VA_ARGS__),
	X("f32", PLAN_F32, .listed = "f32") X("bf16", PLAN_BF16, .listed = "bf16") X("fp8", PLAN_FP8, .listed = "fp8") X("fp4", PLAN_FP4) X("int8", PLAN_I8) X("int4", PLAN_I4)
#undef X
	{0}};
static const struct plan_fact accelerator_estimates[] = {
	REAL("idle", idle_w, STAVE_WATTS, 0, 1e5), REAL("embodied", embodied_kg, STAVE_KILOGRAMS, 0, 1e6), SOURCE(estimates), {0}};
static const struct plan_fact accelerator_market[] = {
	PRICE("price", price, STAVE_MONEY, .listed = "price"), PRICE("rent", rent_h, STAVE_MONEY_PER_SECOND, .scale = 3600, .listed = "rent"), LEAD, SOURCE(market), {0}};
static const struct plan_fact accelerator_facts[] = {
	{.key = "alias", .type = PLAN_FACT_ALIASES, .offset = AT(alias)},
	TEXT("vendor", vendor, NEED), FLAG("cpu", cpu),
	GROUP("peak", accelerator_peak),
	REAL("memory", memory_bytes, STAVE_BYTES, 1e6, 1e15, NEED, .listed = "memory"),
	REAL("bandwidth", memory_bytes_s, STAVE_BYTE_RATE, 1e6, 1e16, NEED, .listed = "bandwidth"),
	REAL("link", link_bytes_s, STAVE_BYTE_RATE, 0, 1e15, .listed = "link"), WHOLE("link_domain", link_domain, 1, 1e6),
	REAL("host", host_bytes_s, STAVE_BYTE_RATE, 0, 1e15),
	REAL("tdp", tdp_w, STAVE_WATTS, 0.1, 1e6, NEED, .listed = "TDP"),
	SOURCE(source), GROUP("estimates", accelerator_estimates), GROUP("market", accelerator_market), {0}};

#undef T_
#define T_ struct plan_node
static const struct plan_fact node_estimates[] = {
	REAL("idle", idle_w, STAVE_WATTS, 0, 1e7), REAL("peak_share", peak_share, STAVE_SHARE, 0.1, 1), REAL("embodied", embodied_kg, STAVE_KILOGRAMS, 0, 1e7), SOURCE(estimates), {0}};
static const struct plan_fact node_market[] = {PRICE("price", price, STAVE_MONEY, .listed = "price"), LEAD, SOURCE(market), {0}};
static const struct plan_fact node_facts[] = {
	TEXT("accelerator", accelerator, NEED, .listed = "accelerator"), WHOLE("count", count, 1, 65536, NEED, .listed = "count"),
	REAL("nic", nic_bytes_s, STAVE_BYTE_RATE, 0, 1e15, .listed = "network"), WHOLE("nics", nics, 0, 65536),
	REAL("storage", storage_bytes_s, STAVE_BYTE_RATE, 0, 1e15), REAL("host_memory", host_memory_bytes, STAVE_BYTES, 0, 1e16, NEED),
	REAL("rated", rated_w, STAVE_WATTS, 1, 1e7, NEED, .listed = "rated"), REAL("rack_units", units, STAVE_NUMBER, 0, 1000, .listed = "units"),
	SOURCE(source), GROUP("estimates", node_estimates), GROUP("market", node_market), {0}};

#undef T_
#define T_ struct plan_network
static const struct plan_fact network_market[] = {PRICE("port", port, STAVE_MONEY, .listed = "price/port"), LEAD, SOURCE(market), {0}};
static const struct plan_fact network_facts[] = {
	{.key = "tiers", .type = PLAN_FACT_TIERS, .required = true, .listed = "tiers"}, REAL("port_power", port_w, STAVE_WATTS, 0, 1e5, .listed = "W/port"),
	SOURCE(source), GROUP("market", network_market), {0}};

#undef T_
#define T_ struct plan_storage
static const struct plan_fact storage_market[] = {PRICE("price", price, STAVE_MONEY, .listed = "price"), LEAD, SOURCE(market), {0}};
static const struct plan_fact storage_facts[] = {
	REAL("read", read_bytes_s, STAVE_BYTE_RATE, 1e3, 1e16, NEED, .listed = "read"), REAL("write", write_bytes_s, STAVE_BYTE_RATE, 1e3, 1e16, NEED, .listed = "write"),
	REAL("capacity", capacity_bytes, STAVE_BYTES, 1e6, 1e20, NEED, .listed = "capacity"), REAL("power", power_w, STAVE_WATTS, 0, 1e8, .listed = "power"),
	SOURCE(source), GROUP("market", storage_market), {0}};

#undef T_
#define T_ struct plan_cooling
static const struct plan_fact cooling_facts[] = {
	REAL("rack", rack_w, STAVE_WATTS, 1, 1e8, NEED, .listed = "rack"), REAL("pue", pue, STAVE_NUMBER, 1, 10, NEED, .listed = "PUE"),
	REAL("water", water_l_per_j, STAVE_LITRE_PER_JOULE, 0, 1e-4, NEED, .listed = "water"), SOURCE(source), {0}};

#undef T_
#define T_ struct plan_grid
static const struct plan_fact grid_market[] = {
	REAL("price", price_per_j, STAVE_MONEY_PER_JOULE, 0, 1e-3, NEED, .currency = AT(currency), .day = AT(date), .listed = "price"), SOURCE(market), {0}};
static const struct plan_fact grid_facts[] = {
	TEXT("region", region, NEED, .listed = "region"), REAL("carbon", kg_per_j, STAVE_KG_PER_JOULE, 0, 1e-5, NEED, .listed = "carbon"),
	REAL("water", water_l_per_j, STAVE_LITRE_PER_JOULE, 0, 1e-4, .listed = "water"), SOURCE(source), GROUP("market", grid_market), {0}};

#undef T_
#define T_ struct plan_lead_time
static const struct plan_fact lead_time_facts[] = {
	REAL("low", low_s, STAVE_SECONDS, 0, 30 * YEAR, NEED, .listed = "low"), REAL("likely", likely_s, STAVE_SECONDS, 0, 30 * YEAR, NEED, .listed = "likely"),
	REAL("high", high_s, STAVE_SECONDS, 0, 30 * YEAR, NEED, .listed = "high"), SOURCE(source), {0}};

#undef T_
#define T_ struct plan_exchange
static const struct plan_fact exchange_facts[] = {REAL("usd", usd, STAVE_NUMBER, 1e-9, 1e9, NEED, .listed = "USD"), SOURCE(source), {0}};

#undef T_
#define T_ struct plan_model
static const char *const family_words[] = {"gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "mixtral", "qwen3_moe", "bert", NULL};
static const char *const act_words[] = {"gelu_tanh", "gelu", "swiglu", "geglu", NULL};
static const struct plan_fact model_facts[] = {
	{.key = "family", .type = PLAN_FACT_WORD, .offset = AT(shape.family), .words = family_words, .required = true, .listed = "family"},
	WHOLE("layers", shape.L, 1, 1024, NEED, .listed = "layers"), WHOLE("hidden", shape.C, 1, 65536, NEED, .listed = "hidden"),
	WHOLE("heads", shape.H, 1, 1024, NEED, .listed = "heads"), WHOLE("kv_heads", shape.K, 1, 1024, .listed = "kv_heads"), WHOLE("head_width", shape.D, 1, 1024),
	WHOLE("ffn", shape.I, 1, 1 << 20, NEED, .listed = "ffn"), WHOLE("vocab", shape.V, 1, 1 << 22, NEED, .listed = "vocab"),
	WHOLE("context", shape.T_max, 1, 1 << 24, NEED, .listed = "context"),
	WHOLE("experts", shape.experts, 1, 1024, .listed = "experts"), WHOLE("experts_used", shape.experts_used, 1, 1024),
	{.key = "act", .type = PLAN_FACT_WORD, .offset = AT(shape.act), .words = act_words},
	FLAG("tied", shape.tied), FLAG("layernorm", shape.layernorm), FLAG("norm_bias", shape.norm_bias), FLAG("learned_positions", shape.learned_pos),
	FLAG("qkv_bias", shape.qkv_bias), FLAG("out_bias", shape.out_bias), FLAG("mlp_bias", shape.mlp_bias), FLAG("qk_norm", shape.qk_norm), FLAG("sandwich", shape.sandwich),
	WHOLE("window", shape.window, 1, 1 << 24), WHOLE("window_pattern", shape.window_pattern, 1, 1024),
	REAL("rope_theta", shape.rope_theta, STAVE_NUMBER, 1, 1e12), SINGLE("attn_softcap", shape.attn_softcap, 0, 1e6), SINGLE("final_softcap", shape.final_softcap, 0, 1e6),
	SOURCE(source), {0}};

/* ---- what a table of facts cannot say ---- */

static int accelerator_before(void *thing, struct stave_yaml *at, struct stave_err *err)
{
	((struct plan_accelerator *)thing)->link_domain = 1;
	return 0;
}

static int accelerator_after(void *thing, const struct stave_yaml *at, struct stave_err *err)
{
	const struct plan_accelerator *a = thing;
	bool any = false;
	for (int i = 0; i < PLAN_PRECISIONS; i++)
		any = any || a->peak[i] > 0;
	if (!any)
		return stave_yaml_error(at, err, "%s needs a peak, such as 'peak: {bf16: 989 TFLOP/s}'", a->name);
	if (a->idle_w > a->tdp_w)
		return stave_yaml_error(at, err, "%s idles at %g W, above its TDP of %g W", a->name, a->idle_w, a->tdp_w);
	if (a->link_domain > 1 && a->link_bytes_s <= 0)
		return stave_yaml_error(at, err, "%s reaches %d devices by a link whose rate is missing", a->name, a->link_domain);
	return 0;
}

static int node_before(void *thing, struct stave_yaml *at, struct stave_err *err)
{
	((struct plan_node *)thing)->peak_share = 0.8; /* planner's middle of what 8-GPU training nodes were measured at, 0.76 to 0.82 */
	return 0;
}

static int node_after(void *thing, const struct stave_yaml *at, struct stave_err *err)
{
	const struct plan_node *n = thing;
	if (n->idle_w > n->rated_w)
		return stave_yaml_error(at, err, "%s idles at %g W, above its rated %g W", n->name, n->idle_w, n->rated_w);
	return 0;
}

static int lead_time_after(void *thing, const struct stave_yaml *at, struct stave_err *err)
{
	const struct plan_lead_time *l = thing;
	if (l->low_s > l->likely_s || l->likely_s > l->high_s)
		return stave_yaml_error(at, err, "%s: low, likely and high must rise", l->name);
	return 0;
}

static int exchange_after(void *thing, const struct stave_yaml *at, struct stave_err *err)
{
	const char *c = ((const struct plan_exchange *)thing)->currency;
	for (int i = 0; i < 3; i++)
		if (c[i] < 'A' || c[i] > 'Z')
			return stave_yaml_error(at, err, "'%s' is no currency; three capital letters such as EUR are wanted", c);
	return 0;
}

/* A family's habits; a model that differs says so. */
static int model_before(void *thing, struct stave_yaml *at, struct stave_err *err)
{
	struct stave_shape *s = &((struct plan_model *)thing)->shape;
	struct stave_yaml *family = stave_yaml_get(at, "family");
	int f = 0, rc = family ? stave_yaml_choice(family, family_words, STAVE_FAMILIES, &f, err) : 0;
	if (rc)
		return rc;
	bool gpt2 = f == STAVE_GPT2, bert = f == STAVE_BERT, gemma = f == STAVE_GEMMA2 || f == STAVE_GEMMA3, old = gpt2 || bert;
	s->act = gpt2 ? STAVE_GELU_TANH : bert ? STAVE_GELU_EXACT : gemma ? STAVE_GEGLU : STAVE_SWIGLU;
	s->layernorm = s->norm_bias = s->learned_pos = s->out_bias = s->mlp_bias = old;
	s->qkv_bias = old || f == STAVE_QWEN2;
	s->qk_norm = f == STAVE_QWEN3 || f == STAVE_QWEN3_MOE || f == STAVE_GEMMA3;
	s->sandwich = gemma;
	s->tied = gpt2 || gemma;
	s->encoder = bert;
	s->token_types = bert ? 2 : 0;
	s->norm_eps = 1e-5f;
	s->rope_theta = old ? 0 : 10000;
	return 0;
}

static int model_after(void *thing, const struct stave_yaml *at, struct stave_err *err)
{
	struct plan_model *m = thing;
	struct stave_shape *s = &m->shape;
	struct stave_err why;
	s->K = s->K ? s->K : s->H;
	if (!s->D && s->C % s->H)
		return stave_yaml_error(at, err, "%s: %d channels do not divide into %d heads; say head_width", m->name, s->C, s->H);
	s->D = s->D ? s->D : s->C / s->H;
	if (stave_shape_check(s, &why))
		return stave_yaml_error(at, err, "%s: %s", m->name, why.msg);
	return 0;
}

static double model_params(const void *thing) { return (double)stave_shape_params(&((const struct plan_model *)thing)->shape); }

#define KIND(w, f, type, named, field, n, ...) \
	{.word = w, .file = f, .size = sizeof(struct type), .name_size = sizeof(((struct type *)0)->named), .array = offsetof(struct plan_catalog, field), \
	 .count = offsetof(struct plan_catalog, n), __VA_ARGS__}
const struct plan_kind plan_kinds[PLAN_KINDS] = {
	KIND("accelerator", "accelerators.yaml", plan_accelerator, name, accelerator, accelerators, .facts = accelerator_facts, .before = accelerator_before, .after = accelerator_after),
	KIND("node", "nodes.yaml", plan_node, name, node, nodes, .facts = node_facts, .before = node_before, .after = node_after),
	KIND("network", "networks.yaml", plan_network, name, network, networks, .facts = network_facts),
	KIND("storage", "storage.yaml", plan_storage, name, storage, storages, .facts = storage_facts),
	KIND("cooling", "cooling.yaml", plan_cooling, name, cooling, coolings, .facts = cooling_facts),
	KIND("grid", "grids.yaml", plan_grid, name, grid, grids, .facts = grid_facts),
	KIND("lead_time", "lead-times.yaml", plan_lead_time, name, lead_time, lead_times, .facts = lead_time_facts, .after = lead_time_after),
	KIND("exchange", "prices.yaml", plan_exchange, currency, exchange, exchanges, .facts = exchange_facts, .after = exchange_after),
	KIND("model", "models.yaml", plan_model, name, model, models, .facts = model_facts, .before = model_before, .after = model_after,
	     .derived = "parameters", .derive = model_params),
};
