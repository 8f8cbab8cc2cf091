/* The vocabulary of a specification: one table per map. Parsing, bounds, defaults and the list that `stave plan keys` prints come from here. */
#include <math.h>
#include <string.h>

#include "plan/spec.h"

#define HUGE 1e30
#define DAYS 200000 /* past the year 2500 */

#define Q(t, name, field, dim, def, min, max, doc) {name, PLAN_KEY_QUANTITY, offsetof(struct t, field), dim, def, min, max, NULL, doc}
#define PRICE(t, name, field, dim, doc) {name, PLAN_KEY_PRICE, offsetof(struct t, field), dim, NAN, 0, HUGE, NULL, doc}
#define WORD(t, name, field, doc) {name, PLAN_KEY_WORD, offsetof(struct t, field), 0, 0, 0, 0, NULL, doc}
#define PATH(t, name, field, doc) {name, PLAN_KEY_PATH, offsetof(struct t, field), 0, 0, 0, 0, NULL, doc}
#define BOOL(t, name, field, def, doc) {name, PLAN_KEY_BOOL, offsetof(struct t, field), 0, def, 0, 0, NULL, doc}
#define CHOICE(t, name, field, def, words, doc) {name, PLAN_KEY_CHOICE, offsetof(struct t, field), 0, def, 0, 0, words, doc}
#define OTHER(name, doc) {name, PLAN_KEY_OTHER, 0, 0, 0, 0, 0, NULL, doc}
#define MAP(map, name, doc) const struct plan_map plan_map_##map = {name, map##_keys, sizeof map##_keys / sizeof *map##_keys, doc}

static const struct plan_key top_keys[] = {
	WORD(plan_spec, "name", name, "what the report is headed with"),
	WORD(plan_spec, "currency", currency, "of the report, three letters (USD)"),
	OTHER("dated", "date of the prices in this file (2027-01-31); wanted where it gives one"),
	Q(plan_spec, "seed", seed, STAVE_COUNT, 1, 0, 4294967295, "of everything random"),
	Q(plan_spec, "start", start_day, STAVE_DATE, NAN, 0, DAYS, "when the work may begin"),
	CHOICE(plan_spec, "objective", objective, 0, "time|cost|energy", "what layouts and sites are chosen by"),
	OTHER("work", "list of maps, each with one of train, finetune, serve"),
	OTHER("sites", "list of site maps"),
	OTHER("limits", "map: what the whole plan may take"),
	OTHER("export", "list of rule maps: accelerators that may not stand in a region"),
	OTHER("simulate", "map: for stave plan simulate"),
};
MAP(top, "top", "the specification");

#define COMMON                                                                                                                    \
	WORD(plan_work, "name", name, "of this work in the report"),                                                              \
	OTHER("model", "a catalog name, a model's directory or file, or a model map"),                                            \
	WORD(plan_work, "site", site, "where it runs; absent: the best of the allowed sites"),                                    \
	WORD(plan_work, "residency", residency, "region that its data may not leave")

#define TRAINING                                                                                                                  \
	COMMON, CHOICE(plan_work, "precision", precision, PLAN_BF16, "f32|bf16|fp8|fp4", "of the products"),                       \
	WORD(plan_work, "stack", stack, "training software whose measured constants are used (megatron, torchtitan …); absent: the best known"), \
	Q(plan_work, "tokens", tokens, STAVE_COUNT, NAN, 1, 1e18, "to train on"),                                                 \
	Q(plan_work, "batch", batch, STAVE_COUNT, NAN, 1, 1e7, "sequences of an optimizer step"),                                 \
	Q(plan_work, "seq", seq, STAVE_COUNT, NAN, 1, 1e7, "tokens of a sequence (the model's context)"),                         \
	Q(plan_work, "gpus", gpus, STAVE_COUNT, NAN, 1, 1e6, "devices (all of the site's)"),                                      \
	Q(plan_work, "start", start_day, STAVE_DATE, NAN, 0, DAYS, "not before (the specification's start)"),                     \
	Q(plan_work, "by", by_day, STAVE_DATE, NAN, 0, DAYS, "finished with 90 % probability"),                                   \
	OTHER("layout", "map: parts of the layout that are given; the rest is searched"),                                         \
	Q(plan_work, "checkpoint_interval", checkpoint_interval_s, STAVE_SECONDS, NAN, 1, 1e8, "between checkpoints (the exact optimum)"), \
	BOOL(plan_work, "checkpoint_async", checkpoint_async, 1, "training goes on while a checkpoint is written"),               \
	Q(plan_work, "bytes_per_token", bytes_per_token, STAVE_BYTES, 4, 0, 1e12, "read from storage per token (images, video: more)"), \
	Q(plan_work, "straggler", straggler, STAVE_SHARE, 0, 0, 10, "time that slow devices add to a step")

static const struct plan_key train_keys[] = {TRAINING};
MAP(train, "train", "pre-training");
static const struct plan_key finetune_keys[] = {
	TRAINING,
	BOOL(plan_work, "lora", lora, 0, "adapters only; the base weights are frozen"),
	Q(plan_work, "lora_rank", lora_rank, STAVE_COUNT, 16, 1, 4096, "of the adapters"),
};
MAP(finetune, "finetune", "fine-tuning, whole or by adapters");

static const struct plan_key serve_keys[] = {
	COMMON,
	CHOICE(plan_work, "precision", precision, PLAN_BF16, "f32|bf16|fp8|fp4|int8|int4", "of the weights"),
	CHOICE(plan_work, "kv", kv, PLAN_BF16, "f32|bf16|fp8|fp4|int8", "of the cached keys and values"),
	WORD(plan_work, "engine", stack, "serving software whose measured constants are used (vllm, trtllm, sglang, stave …); absent: the best known"),
	OTHER("rate", "requests per second, the same at any hour: '20 /s'"),
	OTHER("hourly", "24 rates, one for each hour of the day"),
	Q(plan_work, "input", input, STAVE_COUNT, NAN, 1, 1e8, "mean tokens of a prompt"),
	Q(plan_work, "output", output, STAVE_COUNT, NAN, 1, 1e8, "mean tokens of an answer"),
	Q(plan_work, "spread", spread, STAVE_NUMBER, 0.5, 0, 5, "coefficient of variation of both lengths"),
	Q(plan_work, "prefix_hit", prefix_hit, STAVE_SHARE, 0, 0, 0.999, "share of the prompt that is already cached"),
	Q(plan_work, "ttft_p99", ttft_p99_s, STAVE_SECONDS, NAN, 1e-6, 1e6, "limit of the time to the first token, queueing included"),
	Q(plan_work, "tpot_p99", tpot_p99_s, STAVE_SECONDS, NAN, 1e-6, 1e6, "limit of the time per further token"),
	Q(plan_work, "tp", tp, STAVE_COUNT, NAN, 1, 1024, "devices a replica is split over (chosen)"),
	Q(plan_work, "days", days, STAVE_SECONDS, 31557600, 3600, 1e9, "how long it is served (1 y)"),
};
MAP(serve, "serve", "serving");

static const struct plan_key site_keys[] = {
	WORD(plan_site, "name", name, "of the site"),
	OTHER("nodes", "a pool map, or a list of them"),
	WORD(plan_site, "network", network, "catalog network that joins the nodes (full bisection)"),
	WORD(plan_site, "storage", storage, "catalog storage"),
	WORD(plan_site, "grid", grid, "catalog grid: its carbon, water and electricity price"),
	WORD(plan_site, "region", region, "for residency and export (the grid's)"),
	WORD(plan_site, "cooling", cooling, "catalog cooling class (plain air)"),
	BOOL(plan_site, "rented", rented, 0, "the devices are rented by the hour, not owned"),
	Q(plan_site, "uplink", uplink_bytes_s, STAVE_BYTE_RATE, NAN, 1, 1e18, "over which training data comes to the site before a job (it is there)"),
	Q(plan_site, "places", places, STAVE_COUNT, 1, 1, 64, "buildings that the nodes stand in, in equal shares"),
	Q(plan_site, "line", line_bytes_s, STAVE_BYTE_RATE, NAN, 1, 1e18, "between the places, one direction; wanted with more than one"),
	Q(plan_site, "line_latency", line_latency_s, STAVE_SECONDS, 0.001, 0, 1, "of that line, one way (1 ms: 200 km)"),
	Q(plan_site, "power", power_w, STAVE_WATTS, NAN, 1, 1e12, "what the utility gives, all included"),
	Q(plan_site, "rack", rack_w, STAVE_WATTS, NAN, 1, 1e9, "what a rack may draw"),
	Q(plan_site, "pue", pue, STAVE_NUMBER, NAN, 1, 10, "facility energy over IT energy (the cooling class's)"),
	Q(plan_site, "carbon", kg_per_j, STAVE_KG_PER_JOULE, NAN, 0, HUGE, "location based (the grid's)"),
	Q(plan_site, "carbon_market", kg_per_j_market, STAVE_KG_PER_JOULE, NAN, 0, HUGE, "market based: contracts counted (location's)"),
	Q(plan_site, "water", water_l_per_j, STAVE_LITRE_PER_JOULE, NAN, 0, HUGE, "on site, per IT energy (the cooling class's)"),
	PRICE(plan_site, "energy", energy, STAVE_MONEY_PER_JOULE, "electricity (the grid's)"),
	PRICE(plan_site, "device", device, STAVE_MONEY, "of one node, with its accelerators (the catalog's)"),
	PRICE(plan_site, "rent", rent_s, STAVE_MONEY_PER_SECOND, "of one accelerator (the catalog's)"),
	PRICE(plan_site, "staff", staff_s, STAVE_MONEY_PER_SECOND, "people, for the whole site"),
	PRICE(plan_site, "space", space_s, STAVE_MONEY_PER_SECOND, "rooms, for the whole site"),
	PRICE(plan_site, "building", building_w, STAVE_MONEY, "power and cooling works, once, per kW of IT power"),
	Q(plan_site, "interest", interest, STAVE_SHARE, 0.08, 0, 1, "yearly"),
	Q(plan_site, "life", life_s, STAVE_SECONDS, 126230400, 86400, 1e10, "of the machines (4 y)"),
	Q(plan_site, "maintenance", maintenance, STAVE_SHARE, 0.04, 0, 1, "of the purchase, yearly"),
	Q(plan_site, "utilisation", utilisation, STAVE_SHARE, 0.8, 0.001, 1, "share of an owned machine's hours that are used: idle hours are paid by these"),
	Q(plan_site, "failures", failures_per_node_s, STAVE_RATE, 0.0065 / 86400, 0, 1, "of one node: '0.0065 /d' (Meta RSC-1)"),
	Q(plan_site, "repair", repair_s, STAVE_SECONDS, 172800, 0, 1e8, "of a failed node (2 d)"),
	Q(plan_site, "restart", restart_s, STAVE_SECONDS, NAN, 0, 1e6, "of a job after a failure (by its size)"),
	Q(plan_site, "spares", spares, STAVE_COUNT, NAN, 0, 1e6, "nodes kept free (enough for 99 %)"),
	Q(plan_site, "ready", ready_day, STAVE_DATE, NAN, 0, DAYS, "when the machines stand (start)"),
	OTHER("build", "list of build maps: what has to come before the site is ready"),
};
MAP(site, "site", "a place with machines");

static const struct plan_key pool_keys[] = {
	WORD(plan_pool, "type", type, "a catalog node, or 'profile'"),
	PATH(plan_pool, "profile", profile, "written by stave bench machine; for type profile"),
	Q(plan_pool, "count", count, STAVE_COUNT, 1, 1, 1e6, "nodes"),
};
MAP(pool, "nodes", "nodes of one type");

static const struct plan_key layout_keys[] = {
	Q(plan_layout_text, "tp", tp, STAVE_COUNT, 0, 1, 65536, "tensor parallel"),
	Q(plan_layout_text, "pp", pp, STAVE_COUNT, 0, 1, 65536, "pipeline stages"),
	Q(plan_layout_text, "dp", dp, STAVE_COUNT, 0, 1, 1e6, "data parallel"),
	Q(plan_layout_text, "cp", cp, STAVE_COUNT, 0, 1, 65536, "context parallel"),
	Q(plan_layout_text, "ep", ep, STAVE_COUNT, 0, 1, 65536, "expert parallel, within dp"),
	Q(plan_layout_text, "vp", vp, STAVE_COUNT, 0, 1, 1024, "virtual stages of a rank (interleaved 1F1B)"),
	Q(plan_layout_text, "zero", zero, STAVE_COUNT, -1, 0, 3, "ZeRO stage; 3 is FSDP"),
	Q(plan_layout_text, "micro", micro, STAVE_COUNT, 0, 1, 1e6, "sequences of a micro-batch"),
	CHOICE(plan_layout_text, "recompute", recompute, 0, "free|none|selective|full", "of activations in the backward pass"),
	BOOL(plan_layout_text, "seq_parallel", seq_parallel, 0, "norms split over tp"),
	BOOL(plan_layout_text, "async_tp", async_tp, 0, "tensor-parallel communication overlapped"),
};
MAP(layout, "layout", "how a training job is split");

static const struct plan_key model_keys[] = {
	Q(plan_model_text, "layers", layers, STAVE_COUNT, NAN, 1, 10000, ""),
	Q(plan_model_text, "hidden", hidden, STAVE_COUNT, NAN, 1, 1e6, "width of the residual stream"),
	Q(plan_model_text, "heads", heads, STAVE_COUNT, NAN, 1, 1e5, "of queries"),
	Q(plan_model_text, "kv_heads", kv_heads, STAVE_COUNT, NAN, 1, 1e5, "of keys and values (heads)"),
	Q(plan_model_text, "head_dim", head_dim, STAVE_COUNT, NAN, 1, 1e5, "(hidden / heads)"),
	Q(plan_model_text, "ffn", ffn, STAVE_COUNT, NAN, 1, 1e7, "width of the feed-forward layer, or of one expert (4 hidden)"),
	Q(plan_model_text, "vocab", vocab, STAVE_COUNT, NAN, 1, 1e8, ""),
	Q(plan_model_text, "seq", seq, STAVE_COUNT, 4096, 1, 1e7, "context"),
	Q(plan_model_text, "experts", experts, STAVE_COUNT, 0, 2, 65536, "of a mixture, per layer"),
	Q(plan_model_text, "experts_used", experts_used, STAVE_COUNT, 0, 1, 65536, "by a token"),
	Q(plan_model_text, "window", window, STAVE_COUNT, 0, 1, 1e7, "of sliding attention"),
	BOOL(plan_model_text, "gated", gated, 1, "SwiGLU; else two matrices (GPT)"),
	BOOL(plan_model_text, "tied", tied, 0, "the classifier is the embedding"),
};
MAP(model, "model", "a model by its shape");

static const struct plan_key limits_keys[] = {
	PRICE(plan_limits, "cost", cost, STAVE_MONEY, "of all work"),
	Q(plan_limits, "energy", energy_j, STAVE_JOULES, NAN, 0, HUGE, "of all work"),
	Q(plan_limits, "carbon", carbon_kg, STAVE_NUMBER, NAN, 0, HUGE, "kg of CO2e of all work, location based"),
	Q(plan_limits, "power", power_w, STAVE_WATTS, NAN, 0, HUGE, "of any site, facility peak"),
};
MAP(limits, "limits", "what the whole plan may take");

static const struct plan_key rule_keys[] = {
	WORD(plan_rule, "accelerator", accelerator, "by name; or"),
	Q(plan_rule, "above", flop_s, STAVE_FLOP_RATE, NAN, 0, HUGE, "any whose greatest dense rate, of any precision, is at least this"),
	OTHER("regions", "list: where it may not stand"),
};
MAP(rule, "export", "an export rule");

static const struct plan_key build_keys[] = {
	WORD(plan_build, "item", item, "catalog lead time, or any name with the three below"),
	OTHER("after", "list of items that come before it"),
	Q(plan_build, "low", low_s, STAVE_SECONDS, NAN, 0, 1e10, "shortest it takes"),
	Q(plan_build, "likely", likely_s, STAVE_SECONDS, NAN, 0, 1e10, "most likely"),
	Q(plan_build, "high", high_s, STAVE_SECONDS, NAN, 0, 1e10, "longest"),
};
MAP(build, "build", "a step on the way to a running site");

static const struct plan_key fleet_keys[] = {
	Q(plan_fleet_spec, "horizon", horizon_s, STAVE_SECONDS, 90 * 86400, 3600, 1e9, "time simulated (90 d)"),
	Q(plan_fleet_spec, "replications", replications, STAVE_COUNT, 1, 1, 10000, "runs with other random numbers"),
	Q(plan_fleet_spec, "weekend", weekend, STAVE_SHARE, 1, 0, 10, "serving load on Saturdays and Sundays"),
	Q(plan_fleet_spec, "shape", shape, STAVE_NUMBER, 1, 0.2, 10, "Weibull shape of failures; 1: exponential"),
};
MAP(fleet, "simulate", "the fleet over time");

static void key_text(const struct plan_key *k, char out[64])
{
	static const char *const units[STAVE_DIMENSIONS] = {
		"number", "count", "share", "bytes", "bytes/s", "FLOP/s", "time", "power", "energy", "rate", "money", "money/energy", "money/time", "g/kWh", "L/kWh", "date"};
	switch (k->type) {
	case PLAN_KEY_QUANTITY:
	case PLAN_KEY_PRICE: snprintf(out, 64, "%s", units[k->dimension]); break;
	case PLAN_KEY_BOOL: snprintf(out, 64, "%s", k->def > 0 ? "yes|no (yes)" : "yes|no (no)"); break;
	case PLAN_KEY_CHOICE: snprintf(out, 64, "%s", k->choices); break;
	default: snprintf(out, 64, "%s", k->type == PLAN_KEY_OTHER ? "" : "word");
	}
}

void stave_plan_keys(FILE *to)
{
	static const struct plan_map *const maps[] = {&plan_map_top,    &plan_map_train, &plan_map_finetune, &plan_map_serve, &plan_map_model, &plan_map_layout,
	                                              &plan_map_site,   &plan_map_pool,  &plan_map_build,    &plan_map_limits, &plan_map_rule, &plan_map_fleet};
	for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
		fprintf(to, "%s%s: %s\n", i ? "\n" : "", maps[i]->name, maps[i]->doc);
		for (int j = 0; j < maps[i]->n; j++) {
			char unit[64];
			key_text(&maps[i]->key[j], unit);
			fprintf(to, "  %-20s %-22s %s\n", maps[i]->key[j].name, unit, maps[i]->key[j].doc);
		}
	}
}
