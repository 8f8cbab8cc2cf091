/* The report as one stable JSON document, and as CSV: a row per work and figure. What could not be said is null, and no row. SI units in the keys' names. */
#include <math.h>
#include <string.h>

#include "plan/report/report.h"

static void real(json_t *o, const char *key, double v) { json_object_set_new(o, key, isfinite(v) ? json_real(v) : json_null()); }
static void whole(json_t *o, const char *key, double v) { json_object_set_new(o, key, isfinite(v) ? json_integer((json_int_t)v) : json_null()); }
static void word(json_t *o, const char *key, const char *v) { json_object_set_new(o, key, json_string(v)); }
static void day(json_t *o, const char *key, double v)
{
	char text[16];
	json_object_set_new(o, key, isfinite(v) ? json_string(plan_day_text(v, text)) : json_null());
}

static json_t *layout(const struct plan_layout *l)
{
	static const char *const recompute[] = {"none", "selective", "full"};
	json_t *o = json_object();
	const struct { const char *key; int v; } n[] = {{"tp", l->tp}, {"pp", l->pp}, {"dp", l->dp}, {"cp", l->cp}, {"ep", l->ep}, {"vp", l->vp}, {"zero", l->zero}, {"micro", l->micro}};
	for (size_t i = 0; i < sizeof n / sizeof *n; i++)
		json_object_set_new(o, n[i].key, json_integer(n[i].v));
	word(o, "recompute", recompute[l->recompute]);
	json_object_set_new(o, "seq_parallel", json_boolean(l->seq_parallel));
	json_object_set_new(o, "async_tp", json_boolean(l->async_tp));
	return o;
}

static json_t *parts(const struct plan_part *part, int n, const void *of, const char *unit)
{
	json_t *o = json_object();
	for (int i = 0; i < n; i++) {
		char key[64];
		snprintf(key, sizeof key, "%s_%s", part[i].name, unit);
		for (char *c = key; (c = strchr(c, ' '));)
			*c = '_';
		real(o, key, *(const double *)(const void *)((const char *)of + part[i].offset));
	}
	return o;
}

static json_t *money(const struct plan_money *m, const char *currency)
{
	json_t *o = json_object();
	const struct { const char *key; double v; } n[] = {{"total", m->total},       {"devices", m->devices}, {"network", m->network},         {"storage", m->storage},
	                                                   {"building", m->building}, {"staff", m->staff},     {"maintenance", m->maintenance}, {"energy", m->energy}};
	for (size_t i = 0; i < sizeof n / sizeof *n; i++)
		real(o, n[i].key, n[i].v);
	word(o, "currency", currency);
	return o;
}

static json_t *footprint(const struct plan_footprint *f)
{
	json_t *o = json_object();
	real(o, "it_power_w", f->it_power_w);
	real(o, "facility_mean_power_w", f->mean_power_w);
	real(o, "facility_peak_power_w", f->peak_power_w);
	real(o, "energy_j", f->energy_j);
	real(o, "energy_kwh", f->energy_j / 3.6e6);
	real(o, "carbon_location_kg", f->carbon_kg);
	real(o, "carbon_market_kg", f->carbon_market_kg);
	real(o, "carbon_embodied_kg", f->embodied_kg);
	real(o, "water_site_l", f->water_l);
	real(o, "water_source_l", f->source_water_l);
	return o;
}

static json_t *points(const struct plan_training_result *t)
{
	json_t *list = json_array();
	for (int i = 0; i < t->points; i++) {
		json_t *o = json_object();
		whole(o, "gpus", t->point[i].gpus);
		json_object_set_new(o, "layout", layout(&t->point[i].layout));
		real(o, "wall_s", t->point[i].wall_s);
		real(o, "cost", t->point[i].money);
		real(o, "energy_j", t->point[i].energy_j);
		json_object_set_new(o, "pareto", json_boolean(t->point[i].front));
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *front(const struct plan_search *s)
{
	json_t *list = json_array();
	for (int i = 0; i < s->fronts; i++) {
		json_t *o = json_object();
		json_object_set_new(o, "layout", layout(&s->front[i].layout));
		real(o, "step_s", s->front[i].step_s);
		real(o, "memory_bytes", s->front[i].memory_bytes);
		real(o, "energy_j", s->front[i].energy_j);
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *training(const struct plan_work_result *r)
{
	const struct plan_training_result *t = &r->train;
	json_t *o = json_object(), *m = parts(plan_classes, PLAN_CLASSES, &t->step.memory, "bytes");
	real(m, "total_bytes", t->step.memory.total);
	whole(o, "gpus", t->gpus);
	json_object_set_new(o, "layout", layout(&t->layout));
	real(o, "step_s", t->step_s);
	real(o, "step_error_p50", r->error_p50);
	real(o, "step_error_p90", r->error_p90);
	json_object_set_new(o, "step_parts", parts(plan_parts, PLAN_PARTS, &t->step, "s"));
	real(o, "step_parts_total_s", t->step.total_s);
	json_object_set_new(o, "memory", m);
	real(o, "mfu", t->step.mfu);
	real(o, "hfu", t->step.hfu);
	real(o, "tokens_per_s", t->tokens_s);
	real(o, "model_flops_per_step", t->step.model_flops);
	whole(o, "steps", t->steps);
	real(o, "load_bytes_per_s", t->load_bytes_s);
	real(o, "load_limit_bytes_per_s", t->load_limit_bytes_s);
	real(o, "data_wait_share", t->wait_share);
	real(o, "checkpoint_bytes", t->checkpoint_bytes);
	real(o, "checkpoint_write_s", t->checkpoint_write_s);
	real(o, "checkpoint_stall_s", t->checkpoint_stall_s);
	real(o, "checkpoint_interval_s", t->interval_s);
	real(o, "mtbf_s", t->mtbf_s);
	real(o, "failures_expected", t->failures);
	real(o, "goodput", t->goodput);
	real(o, "restart_s", t->restart_s);
	whole(o, "spare_nodes", r->here.spares);
	real(o, "spare_nodes_wanted", t->spares_wanted);
	real(o, "data_staging_s", t->stage_s);
	real(o, "ideal_s", t->ideal_s);
	real(o, "wall_p10_s", t->wall_p10_s);
	real(o, "wall_p50_s", t->wall_p50_s);
	real(o, "wall_p90_s", t->wall_p90_s);
	day(o, "start", r->start_day);
	day(o, "finish_p10", r->finish_p10_day);
	day(o, "finish_p50", r->finish_p50_day);
	day(o, "finish_p90", r->finish_p90_day);
	real(o, "layouts_evaluated", (double)t->search.evaluated);
	real(o, "layouts_feasible", (double)t->search.feasible);
	json_object_set_new(o, "layouts_pareto", front(&t->search));
	json_object_set_new(o, "device_counts", points(t));
	return o;
}

static json_t *serving(const struct plan_work_result *r)
{
	const struct plan_serving_result *s = &r->serve;
	const struct plan_service *v = &s->at_peak;
	json_t *o = json_object();
	const struct { const char *key; double v; } n[] = {
		{"weights_bytes_per_device", s->memory.weights_bytes}, {"kv_bytes_per_token", s->memory.kv_bytes_per_token}, {"kv_tokens", s->memory.kv_tokens},
		{"capacity_requests_per_s", s->choice.capacity_s}, {"capacity_output_tokens_per_s", s->choice.at_capacity.output_tokens_s}, {"output_tokens_per_s", v->output_tokens_s}, {"total_tokens_per_s", v->total_tokens_s},
		{"ttft_p50_s", v->ttft_p50_s}, {"ttft_p90_s", v->ttft_p90_s}, {"ttft_p99_s", v->ttft_p99_s}, {"tpot_p50_s", v->tpot_p50_s}, {"tpot_p90_s", v->tpot_p90_s},
		{"tpot_p99_s", v->tpot_p99_s}, {"ttft_error_p50", v->error_ttft_p50}, {"ttft_error_p90", v->error_ttft_p90}, {"tpot_error_p50", v->error_tpot_p50},
		{"tpot_error_p90", v->error_tpot_p90}, {"weights_share", v->weights_s}, {"kv_share", v->kv_s}, {"flops_share", v->flops_s}, {"launch_share", v->launch_s},
		{"comm_share", v->comm_s}, {"batch_mean", v->batch_mean}, {"kv_used_share", v->kv_used_share}, {"busy_share", v->busy_share}, {"replicas_mean", s->choice.replicas_mean},
		{"peak_requests_per_s", s->peak_rate}, {"mean_requests_per_s", s->mean_rate}, {"cost_per_mtoken", s->money_per_mtoken}, {"cost_per_m_input_tokens", s->input_per_mtoken},
		{"cost_per_m_cached_tokens", s->cached_per_mtoken}, {"cost_per_m_output_tokens", s->output_per_mtoken}};
	const struct { const char *key; int v; } k[] = {
		{"tp", s->choice.replica.tp}, {"pp", s->choice.replica.pp}, {"ep", s->choice.replica.ep}, {"max_batch", s->choice.replica.max_batch}, {"gpus_per_replica", s->gpus_replica},
		{"gpus", s->gpus_peak}, {"replicas_peak", s->choice.replicas_peak}, {"prefill_replicas", s->choice.prefill_replicas}, {"decode_replicas", s->choice.decode_replicas}};
	for (size_t i = 0; i < sizeof k / sizeof *k; i++)
		whole(o, k[i].key, k[i].v);
	for (size_t i = 0; i < sizeof n / sizeof *n; i++)
		real(o, n[i].key, n[i].v);
	json_object_set_new(o, "split", json_boolean(s->choice.split));
	real(o, "alone_prefill_tokens_per_s", s->alone_prefill_tokens_s);
	real(o, "alone_decode_tokens_per_s", s->alone_decode_tokens_s);
	real(o, "owned_cost_per_hour", s->own.total_hour);
	real(o, "rented_cost_per_hour", s->rent.total_hour);
	real(o, "hybrid_cost_per_hour", s->best.total_hour);
	real(o, "hybrid_owned_devices", s->best.owned);
	real(o, "hybrid_rented_share", s->best.rented_share);
	return o;
}

static json_t *staves(const struct plan_work_result *r)
{
	json_t *list = json_array();
	for (int i = 0; i < r->staves; i++) {
		const struct plan_stave *s = &r->stave[i];
		json_t *o = json_object();
		word(o, "resource", plan_resource_name[s->resource]);
		real(o, "objective_change_per_10_percent", -s->gain);
		real(o, "cost", s->money);
		real(o, "percent_per_million", s->money > 0 ? 100 * s->gain / (s->money / 1e6) : NAN);
		real(o, "objective_change_after_the_shortest", -s->next_gain);
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *work(const struct stave_plan *p, const struct plan_work_result *r)
{
	static const char *const kinds[] = {"train", "finetune", "serve"};
	json_t *o = json_object();
	word(o, "name", r->work->name);
	word(o, "kind", kinds[r->work->kind]);
	word(o, "model", r->work->model);
	real(o, "parameters", (double)stave_shape_params(&r->work->shape));
	word(o, "site", r->here.site->name);
	word(o, "node", r->here.node->name);
	word(o, "accelerator", r->here.accelerator->name);
	whole(o, "nodes", r->here.nodes);
	json_object_set_new(o, r->serving ? "serving" : "training", r->serving ? serving(r) : training(r));
	json_object_set_new(o, "cost", money(&r->money, p->spec->currency));
	json_object_set_new(o, "footprint", footprint(&r->footprint));
	json_object_set_new(o, "staves", staves(r));
	if (r->staves) {
		word(o, "shortest_stave", r->shortest);
		word(o, "next_wall", plan_resource_name[r->next_wall]);
	}
	json_t *refused = json_object();
	for (int i = 0; i < p->spec->sites; i++)
		if (r->refused[i][0])
			word(refused, p->spec->site[i].name, r->refused[i]);
	json_object_set_new(o, "refused_sites", refused);
	return o;
}

static json_t *site(const struct stave_plan *p, int i)
{
	const struct plan_site_result *s = &p->site[i];
	json_t *o = json_object();
	word(o, "name", p->spec->site[i].name);
	whole(o, "nodes", s->nodes);
	whole(o, "nodes_per_rack", s->nodes_per_rack);
	whole(o, "racks", s->racks);
	real(o, "it_peak_w", s->it_peak_w);
	real(o, "facility_peak_w", s->facility_peak_w);
	real(o, "facility_mean_w", s->facility_mean_w);
	real(o, "rack_w", s->rack_w);
	real(o, "air_cfm_per_rack", s->air_cfm > 0 ? s->air_cfm : NAN);
	real(o, "water_l_per_s_per_rack", s->water_l_s > 0 ? s->water_l_s : NAN);
	word(o, "cooling_wanted", s->needs_cooling);
	json_object_set_new(o, "cooling_there", json_boolean(s->has_cooling));
	real(o, "capex", s->capex);
	real(o, "owned_device_hour", s->owned_device_h);
	real(o, "rented_device_hour", s->rented_device_h);
	real(o, "break_even_utilisation", s->break_even);
	day(o, "ready_p10", s->ready_p10_day);
	day(o, "ready_p50", s->ready_p50_day);
	day(o, "ready_p90", s->ready_p90_day);
	word(o, "critical_item", s->critical);
	word(o, "critical_path", s->path);
	return o;
}

json_t *stave_plan_json(const struct stave_plan *p)
{
	json_t *o = json_object(), *works = json_array(), *sites = json_array();
	word(o, "name", p->spec->name);
	word(o, "spec", p->spec->file);
	real(o, "seed", p->spec->seed);
	for (int i = 0; i < p->spec->works; i++)
		json_array_append_new(works, work(p, &p->work[i]));
	for (int i = 0; i < p->spec->sites; i++)
		json_array_append_new(sites, site(p, i));
	json_object_set_new(o, "work", works);
	json_object_set_new(o, "sites", sites);
	json_object_set_new(o, "cost", money(&p->money, p->spec->currency));
	json_object_set_new(o, "footprint", footprint(&p->footprint));
	return o;
}

/* ---- CSV ---- */

static void csv_word(FILE *to, const char *s)
{
	if (!s[strcspn(s, ",\"\n\r")]) {
		fputs(s, to);
		return;
	}
	fputc('"', to);
	for (; *s; s++)
		fprintf(to, *s == '"' ? "\"\"" : "%c", *s);
	fputc('"', to);
}

/* Every number and word of the document below `of`, one row each, its path as the figure's name. */
static void csv_rows(const char *of, const char *path, const json_t *j, FILE *to)
{
	const char *key;
	json_t *child;
	json_object_foreach((json_t *)j, key, child)
	{
		char name[256];
		if (snprintf(name, sizeof name, "%s%s%s", path, path[0] ? "." : "", key) >= (int)sizeof name)
			continue;
		if (json_is_object(child))
			csv_rows(of, name, child, to);
		if (!json_is_number(child) && !json_is_string(child))
			continue;
		csv_word(to, of);
		fprintf(to, ",%s,", name);
		if (json_is_string(child))
			csv_word(to, json_string_value(child));
		else if (json_is_integer(child))
			fprintf(to, "%lld", (long long)json_integer_value(child));
		else
			fprintf(to, "%.9g", json_real_value(child));
		fputc('\n', to);
	}
}

void stave_plan_csv(const struct stave_plan *p, FILE *to)
{
	json_t *all = stave_plan_json(p), *item;
	size_t i;
	fputs("of,figure,value\n", to);
	json_array_foreach(json_object_get(all, "work"), i, item) csv_rows(json_string_value(json_object_get(item, "name")), "", item, to);
	json_array_foreach(json_object_get(all, "sites"), i, item) csv_rows(json_string_value(json_object_get(item, "name")), "", item, to);
	json_t *sums = json_pack("{s:O, s:O}", "cost", json_object_get(all, "cost"), "footprint", json_object_get(all, "footprint"));
	csv_rows("all", "", sums, to);
	json_decref(sums);
	json_decref(all);
}
