/* The report for a terminal: a paragraph of aligned lines for each work, one for each site, and the sums. */
#include <math.h>
#include <string.h>

#include "base/sys.h"
#include "plan/report/report.h"

enum { BAR = 40 };

static void line(FILE *to, const char *name) { fprintf(to, "  %-9s ", name); }

/* Parts of a whole as a bar of letters, and below it what the letters are; parts under 1 % are left out. */
static void step_bar(const struct plan_step *s, FILE *to)
{
	static const char letters[PLAN_PARTS + 1] = "PAEREBTCXSDO";
	double left = 0;
	int drawn = 0;
	line(to, "");
	fputc('|', to);
	for (int i = 0; i < PLAN_PARTS; i++) {
		left += plan_part_s(s, i) / s->total_s * BAR;
		for (; drawn < (int)(left + 0.5) && drawn < BAR; drawn++)
			fputc(letters[i], to);
	}
	fputs("| ", to);
	for (int i = 0, n = 0; i < PLAN_PARTS; i++)
		if (plan_part_s(s, i) >= 0.01 * s->total_s)
			fprintf(to, "%s%s %.0f", n++ ? ", " : "", plan_parts[i].name, 100 * plan_part_s(s, i) / s->total_s);
	fputs(" %\n", to);
}

static void memory_line(const struct plan_memory *m, double have, FILE *to)
{
	char a[32], b[32];
	line(to, "memory");
	fprintf(to, "%s of %s:", stave_bytes_text(a, m->total), stave_bytes_text(b, have));
	for (int i = 0, n = 0; i < PLAN_CLASSES; i++) {
		double v = *(const double *)(const void *)((const char *)m + plan_classes[i].offset);
		if (v >= 0.005 * m->total)
			fprintf(to, "%s %s %.0f", n++ ? "," : "", plan_classes[i].name, 100 * v / m->total);
	}
	fputs(" %\n", to);
}

static void training(const struct stave_plan *p, const struct plan_work_result *r, FILE *to)
{
	const struct plan_training_result *t = &r->train;
	char a[128], b[32], c[32], d[16], e[16], f[16];
	line(to, "layout");
	fprintf(to, "%s  (%ld layouts in %.2f s, %ld fit)\n", plan_layout_text(&t->layout, a), t->search.evaluated, t->search.seconds, t->search.feasible);
	line(to, "step");
	fprintf(to, "%.4g s +- %.0f %% (p50), %.0f %% (p90); %s; MFU %.1f %%\n", t->step_s, 100 * r->error_p50, 100 * r->error_p90, plan_si_text(t->tokens_s, "tokens/s", b),
	        100 * t->step.mfu);
	step_bar(&t->step, to);
	memory_line(&t->step.memory, r->here.accelerator->memory_bytes, to);
	line(to, "storage");
	if (t->stage_s > 0)
		fprintf(to, "data there after %s; ", plan_time_text(t->stage_s, b));
	fprintf(to, "load %s; checkpoint %s", plan_si_text(t->load_bytes_s, "B/s", b), plan_si_text(t->checkpoint_bytes, "B", c));
	fprintf(to, " in %s every %s, %.2f %% stalled\n", plan_time_text(t->checkpoint_write_s, b), plan_time_text(t->interval_s, c), 100 * t->checkpoint_stall_s / t->interval_s);
	line(to, "failures");
	fprintf(to, "one in %s, %.3g expected, goodput %.1f %%; %d spare nodes, %.0f would do for 99 %%\n", plan_time_text(t->mtbf_s, b), t->failures, 100 * t->goodput, r->here.spares,
	        t->spares_wanted);
	line(to, "time");
	fprintf(to, "%s (p10 %s, ", plan_time_text(t->wall_p50_s, a), plan_time_text(t->wall_p10_s, b));
	fprintf(to, "p90 %s)", plan_time_text(t->wall_p90_s, c));
	if (isfinite(r->finish_p50_day))
		fprintf(to, ", done %s (p10 %s, p90 %s)", plan_day_text(r->finish_p50_day, d), plan_day_text(r->finish_p10_day, e), plan_day_text(r->finish_p90_day, f));
	if (isfinite(r->work->by_day))
		fprintf(to, ", wanted by %s", plan_day_text(r->work->by_day, d));
	fputc('\n', to);
}

static void serving(const struct stave_plan *p, const struct plan_work_result *r, FILE *to)
{
	const struct plan_serving_result *s = &r->serve;
	const struct plan_service *v = &s->at_peak;
	char a[48], b[48], c[48];
	line(to, "replica");
	fprintf(to, "tp %d, pp %d: %s of weights a device, cache for %s tokens; %.0f sequences at once on average\n", s->choice.replica.tp, s->choice.replica.pp,
	        plan_si_text(s->memory.weights_bytes, "B", a), plan_si_text(s->memory.kv_tokens, "", b), v->batch_mean);
	line(to, "capacity");
	fprintf(to, "%.3g requests/s, %s out a replica; %d at the peak of %.3g/s, %.1f on average\n", s->choice.capacity_s,
	        plan_si_text(s->choice.at_capacity.output_tokens_s, "tokens/s", a),
	        s->choice.replicas_peak, s->peak_rate, s->choice.replicas_mean);
	if (s->choice.split) {
		line(to, "split");
		fprintf(to, "%d replicas for prefill, %d for decoding\n", s->choice.prefill_replicas, s->choice.decode_replicas);
	}
	line(to, "latency");
	fprintf(to, "at the peak: first token p50 %.3g, p99 %.3g s (queueing included, +- %.0f %%); further ones p50 %.3g, p99 %.3g ms (+- %.0f %%)\n", v->ttft_p50_s, v->ttft_p99_s,
	        100 * v->error_ttft_p50, 1e3 * v->tpot_p50_s, 1e3 * v->tpot_p99_s, 100 * v->error_tpot_p50);
	if (isfinite(s->alone_decode_tokens_s)) {
		line(to, "alone");
		fprintf(to, "one request reads %s", plan_si_text(s->alone_prefill_tokens_s, "tokens/s", a));
		fprintf(to, " and writes %s, by this machine's own samples\n", plan_si_text(s->alone_decode_tokens_s, "tokens/s", b));
	}
	line(to, "time");
	fprintf(to, "of an iteration: weights %.0f, cache %.0f, arithmetic %.0f, launches %.0f, communication %.0f %%\n", 100 * v->weights_s, 100 * v->kv_s, 100 * v->flops_s,
	        100 * v->launch_s, 100 * v->comm_s);
	if (isfinite(s->best.total_hour)) {
		line(to, "owning");
		fprintf(to, "an hour of this load costs %s owned, %s rented, ", plan_money_text(s->own.total_hour, p->spec->currency, a), plan_money_text(s->rent.total_hour, p->spec->currency, b));
		fprintf(to, "%s with %.0f devices owned and %.0f %% rented\n", plan_money_text(s->best.total_hour, p->spec->currency, c), s->best.owned, 100 * s->best.rented_share);
	}
	line(to, "price");
	fprintf(to, "a million tokens: %s; input %s, cached %s,", plan_money_text(s->money_per_mtoken, p->spec->currency, a), plan_money_text(s->input_per_mtoken, p->spec->currency, b),
	        plan_money_text(s->cached_per_mtoken, p->spec->currency, c));
	fprintf(to, " output %s\n", plan_money_text(s->output_per_mtoken, p->spec->currency, a));
}

static void staves(const struct stave_plan *p, const struct plan_work_result *r, FILE *to)
{
	char a[48];
	if (!r->staves)
		return;
	line(to, "staves");
	for (int i = 0; i < r->staves && i < 4; i++) {
		const struct plan_stave *s = &r->stave[i];
		fprintf(to, "%s+10 %% %s: %.1f %%", i ? "; " : "", plan_resource_name[s->resource], -100 * s->gain);
		if (isfinite(s->money))
			fprintf(to, " for %s", plan_money_text(s->money, p->spec->currency, a));
	}
	fputc('\n', to);
	line(to, "");
	fprintf(to, "the shortest stave is %s; the next wall is %s\n", r->shortest, plan_resource_name[r->next_wall]);
}

static void cost_lines(const struct stave_plan *p, const struct plan_money *m, const struct plan_footprint *f, FILE *to)
{
	char a[48], b[48], c[48], d[48];
	line(to, "power");
	fprintf(to, "%s mean, %s peak with the building; %s", plan_si_text(f->mean_power_w, "W", a), plan_si_text(f->peak_power_w, "W", b), plan_energy_text(f->energy_j, c));
	if (isfinite(f->carbon_kg))
		fprintf(to, "; CO2e %s by location, %s by market, %s embodied", plan_mass_text(f->carbon_kg, a), plan_mass_text(f->carbon_market_kg, b), plan_mass_text(f->embodied_kg, c));
	fprintf(to, "; water %s on site\n", plan_si_text(f->water_l, "L", a));
	line(to, "cost");
	fprintf(to, "%s: devices %s, energy %s, other %s\n", plan_money_text(m->total, p->spec->currency, a), plan_money_text(m->devices, p->spec->currency, b),
	        plan_money_text(m->energy, p->spec->currency, c),
	        plan_money_text(m->network + m->storage + m->building + m->staff + m->maintenance, p->spec->currency, d));
}

static void work(const struct stave_plan *p, const struct plan_work_result *r, FILE *to)
{
	static const char *const kinds[] = {"train", "fine-tune", "serve"};
	fprintf(to, "\n%s %s (%s) at %s: %d x %s on %d %s%s\n", kinds[r->work->kind], r->work->name, r->work->model, r->here.site->name,
	        r->serving ? r->serve.gpus_peak : r->train.gpus, r->here.accelerator->name, r->here.nodes, r->here.node->name, r->here.power_bound ? ", fewer than there are: power" : "");
	if (r->serving)
		serving(p, r, to);
	else
		training(p, r, to);
	cost_lines(p, &r->money, &r->footprint, to);
	staves(p, r, to);
	for (int i = 0; i < p->spec->sites; i++)
		if (r->refused[i][0])
			fprintf(to, "  not at %s: %s\n", p->spec->site[i].name, r->refused[i]);
}

static void site(const struct stave_plan *p, int i, FILE *to)
{
	const struct plan_site_result *s = &p->site[i];
	char a[48], b[48], c[16], d[16];
	fprintf(to, "\nsite %s: %d nodes in %d racks of %s; facility %s mean, %s peak\n", p->spec->site[i].name, s->nodes, s->racks, plan_si_text(s->rack_w, "W", a),
	        plan_si_text(s->facility_mean_w, "W", b), plan_si_text(s->facility_peak_w, "W", (char[32]){0}));
	line(to, "cooling");
	fprintf(to, "wants %s%s", s->needs_cooling, s->has_cooling ? ", which it has" : "");
	fprintf(to, s->air_cfm > 0 ? "; %.0f CFM of air a rack\n" : s->water_l_s > 0 ? "; %.2f L/s of water a rack\n" : "\n", s->air_cfm > 0 ? s->air_cfm : s->water_l_s);
	line(to, "price");
	fprintf(to, "%s to buy; a device-hour owned %s, rented %s", plan_money_text(s->capex, p->spec->currency, a), plan_money_text(s->owned_device_h, p->spec->currency, b),
	        plan_money_text(s->rented_device_h, p->spec->currency, (char[48]){0}));
	if (isfinite(s->break_even))
		fprintf(to, "; owning pays from %.0f %% use", 100 * s->break_even);
	fputc('\n', to);
	if (!isfinite(s->ready_p50_day) || !s->critical[0])
		return;
	line(to, "ready");
	fprintf(to, "%s (p10 %s, p90 %s)", plan_day_text(s->ready_p50_day, (char[16]){0}), plan_day_text(s->ready_p10_day, c), plan_day_text(s->ready_p90_day, d));
	fprintf(to, "; %s decides the date: %s\n", s->critical, s->path);
}

void stave_plan_text(const struct stave_plan *p, FILE *to)
{
	fprintf(to, "%s\n", p->spec->name[0] ? p->spec->name : p->spec->file);
	for (int i = 0; i < p->spec->works; i++)
		work(p, &p->work[i], to);
	for (int i = 0; i < p->spec->sites; i++)
		site(p, i, to);
	if (p->spec->works > 1) {
		fputs("\nall work\n", to);
		cost_lines(p, &p->money, &p->footprint, to);
	}
}
