/* A simulated fleet as people and programs read it: one screen with curves, one JSON document, one CSV line per site and sample. All three say the same
 * numbers; nothing is computed here but means over a sample and shares of a whole. */
#include <math.h>
#include <string.h>

#include "base/sys.h"
#include "plan/fleet/simulate.h"

enum { CURVE = 64, TRAINING_ROWS = 10, SERVING_ROWS = 4 };

static const char *const stave_words[PLAN_STAVES] = {
	[PLAN_STAVE_NODES] = "nodes", [PLAN_STAVE_POWER] = "power", [PLAN_STAVE_FAILURES] = "failures", [PLAN_STAVE_CHECKPOINTS] = "checkpoints", [PLAN_STAVE_STARTS] = "starts",
	[PLAN_STAVE_MAINTENANCE] = "maintenance", [PLAN_STAVE_SPARES] = "spares", [PLAN_STAVE_ARRIVALS] = "arrivals", [PLAN_STAVE_FRAGMENTS] = "fragments"};
static const char *const stave_notes[PLAN_STAVES] = {
	[PLAN_STAVE_NODES] = "work waited for nodes", [PLAN_STAVE_POWER] = "work waited for power or was slowed by it",
	[PLAN_STAVE_FAILURES] = "repairs, work done twice, restarts", [PLAN_STAVE_CHECKPOINTS] = "standing still to save", [PLAN_STAVE_STARTS] = "starting and scaling up",
	[PLAN_STAVE_MAINTENANCE] = "planned", [PLAN_STAVE_SPARES] = "kept back, idle", [PLAN_STAVE_ARRIVALS] = "idle, no job came", [PLAN_STAVE_FRAGMENTS] = "idle, waiting jobs did not fit"};
static const char *const state_words[PLAN_NODE_STATES] = {
	[PLAN_NODE_BUSY] = "busy", [PLAN_NODE_SERVING] = "serving", [PLAN_NODE_STARTING] = "starting", [PLAN_NODE_IDLE] = "idle", [PLAN_NODE_DOWN] = "down",
	[PLAN_NODE_MAINTENANCE] = "maintenance"};
static const char *const figure_words[PLAN_FIGURES] = {
	[PLAN_FIGURE_UTILISATION] = "utilisation", [PLAN_FIGURE_GOODPUT] = "goodput", [PLAN_FIGURE_ENERGY] = "energy_j", [PLAN_FIGURE_COST] = "cost",
	[PLAN_FIGURE_CARBON] = "carbon_kg", [PLAN_FIGURE_FAILURES] = "failures", [PLAN_FIGURE_THROTTLED] = "throttled_s", [PLAN_FIGURE_UNSERVED] = "unserved_share",
	[PLAN_FIGURE_WAIT] = "wait_mean_s", [PLAN_FIGURE_FINISHED] = "jobs_finished", [PLAN_FIGURE_LATE] = "jobs_late"};

static const char *name_of(const char *name) { return name ? name : ""; }

/* ---- samples as means ---- */

struct mean {
	double nodes[PLAN_NODE_STATES], utilisation, power_w, peak_w, cost_h, kg_h, speed, queue_jobs, queue_nodes, load_s, unserved_s;
};

/* Seconds of a sample: the last one may be cut short by the horizon. */
static double span(const struct plan_simulation *s, int i)
{
	return fmin(s->span_s, s->fleet->horizon_s - i * s->span_s);
}

static struct mean mean_of(const struct plan_fleet_sample *a, double seconds)
{
	struct mean m = {.power_w = a->energy_j / seconds, .peak_w = a->peak_w, .cost_h = a->cost / seconds * 3600, .kg_h = a->kg / seconds * 3600, .speed = a->speed_s / seconds,
	                 .queue_jobs = a->queue_job_s / seconds, .queue_nodes = a->queue_node_s / seconds, .load_s = a->load / seconds, .unserved_s = a->unserved / seconds};
	double all = 0;
	for (int k = 0; k < PLAN_NODE_STATES; k++)
		all += m.nodes[k] = (double)a->node_us[k] * 1e-6 / seconds;
	m.utilisation = all > 0 ? (m.nodes[PLAN_NODE_BUSY] + m.nodes[PLAN_NODE_SERVING]) / all : 0;
	return m;
}

/* ---- text ---- */

/* A curve of `n` values as blocks an eighth of the height each, 0 to `top`; each character is the mean of its part. */
static void curve(FILE *to, const char *label, const double *v, int n, double top, const char *scale)
{
	static const char *const block[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	int width = n < CURVE ? n : CURVE;
	fprintf(to, "  %-12s", label);
	for (int c = 0; c < width; c++) {
		int from = (int)((long)c * n / width), end = (int)((long)(c + 1) * n / width);
		double sum = 0;
		for (int i = from; i < end; i++)
			sum += v[i];
		double share = top > 0 ? sum / (end - from) / top : 0;
		fputs(block[(int)fmin(8, fmax(0, ceil(share * 8 - 1e-9)))], to);
	}
	fprintf(to, "  %s\n", scale);
}

enum what { UTILISATION, POWER, QUEUE, UNSERVED };

static double value(const struct plan_simulation *s, int i, enum what what)
{
	double sum = 0, of = 0;
	for (int k = 0; k < s->fleet->sites; k++) {
		const struct plan_fleet_sample *a = &s->series[(size_t)k * (size_t)s->samples + (size_t)i];
		struct mean m = mean_of(a, span(s, i));
		sum += what == UTILISATION ? m.nodes[PLAN_NODE_BUSY] + m.nodes[PLAN_NODE_SERVING] : what == POWER ? m.power_w : what == QUEUE ? m.queue_nodes : m.unserved_s;
		of += what == UNSERVED ? m.load_s : 0;
	}
	return what == UTILISATION ? sum / (double)s->nodes : what == UNSERVED ? (of > 0 ? sum / of : 0) : sum;
}

static void text_curve(const struct plan_simulation *s, FILE *to, const char *label, enum what what)
{
	double v[8784], top = 0, sum = 0; /* as many as there are samples at most */
	for (int i = 0; i < s->samples; i++) {
		v[i] = value(s, i, what);
		top = fmax(top, v[i]);
		sum += v[i];
	}
	if (what == QUEUE && top == 0)
		return;
	char scale[96];
	double mean = sum / s->samples;
	if (what == POWER)
		snprintf(scale, sizeof scale, "mean %.5g kW, 0 to %.5g", mean * 1e-3, top * 1e-3);
	else if (what == QUEUE)
		snprintf(scale, sizeof scale, "mean %.4g nodes wanted, 0 to %.4g", mean, top);
	else
		snprintf(scale, sizeof scale, "mean %.3g %%, 0 to %.3g %%", mean * 100, (what == UTILISATION ? 1 : top) * 100);
	curve(to, label, v, s->samples, what == UTILISATION ? 1 : top, scale);
}

static void text_date(FILE *to, double t_s)
{
	if (t_s < 0)
		fprintf(to, " %9s", "-");
	else
		fprintf(to, " %7.2f d", t_s / 86400);
}

static void text_job(const struct plan_simulation *s, FILE *to, int i)
{
	const struct plan_fleet_job *j = &s->fleet->job[i];
	const struct plan_fleet_outcome *o = &s->outcome[i];
	fprintf(to, "  %-20.20s", name_of(j->name));
	if (j->kind == PLAN_FLEET_SERVE) {
		fprintf(to, " serves %.4g requests, %.3g %% of %.4g unserved; %ld failures\n", o->load - o->unserved, o->load > 0 ? o->unserved / o->load * 100 : 0, o->load, o->failures);
		return;
	}
	text_date(to, o->start_s);
	text_date(to, o->finish_s);
	fprintf(to, " %5.1f %% %5.1f %% %7.1f h %7.1f h %6ld", o->progress * 100, o->goodput * 100, o->wait_s / 3600, o->lost_s / 3600, o->failures);
	if (s->fleet->replications > 1) {
		text_date(to, o->finish_p10_s);
		text_date(to, o->finish_p90_s);
	}
	if (j->deadline_s > 0)
		fprintf(to, "  in time %.0f %%", o->in_time_share * 100);
	fputc('\n', to);
}

/* The first few of a kind. */
static void text_kind(const struct plan_simulation *s, FILE *to, enum plan_fleet_kind kind, int rows)
{
	long n = 0;
	for (int i = 0; i < s->fleet->jobs; i++)
		if (s->fleet->job[i].kind == kind && n++ < rows)
			text_job(s, to, i);
	if (n > rows)
		fprintf(to, "  ... %ld more, all of them with --json\n", n - rows);
}

static void text_jobs(const struct plan_simulation *s, FILE *to)
{
	if (!s->fleet->jobs)
		return;
	fprintf(to, "\n  %-20s %9s %9s %7s %7s %9s %9s %6s%s\n", "job", "start", "finish", "done", "goodput", "waited", "lost", "failed", s->fleet->replications > 1 ? "   p10 end   p90 end" : "");
	text_kind(s, to, PLAN_FLEET_TRAIN, TRAINING_ROWS);
	text_kind(s, to, PLAN_FLEET_SERVE, SERVING_ROWS);
}

static void text_figure(const struct plan_simulation *s, FILE *to, enum plan_fleet_figure k, double unit, const char *form)
{
	const struct plan_fleet_percentiles *p = &s->over[k];
	fprintf(to, form, s->figure[k] * unit);
	if (s->fleet->replications > 1)
		fprintf(to, " (p10 %.4g, p90 %.4g)", p->p10 * unit, p->p90 * unit);
}

static void text_figures(const struct plan_simulation *s, FILE *to)
{
	text_figure(s, to, PLAN_FIGURE_UTILISATION, 100, "  nodes computing %.1f %%");
	text_figure(s, to, PLAN_FIGURE_GOODPUT, 100, " · training goodput %.1f %%");
	text_figure(s, to, PLAN_FIGURE_FAILURES, 1, " · %.0f failures of jobs");
	fputc('\n', to);
	text_figure(s, to, PLAN_FIGURE_ENERGY, 1 / 3.6e9, "  energy %.5g MWh");
	fprintf(to, ", most power %.5g kW", s->total.peak_w * 1e-3);
	if (s->figure[PLAN_FIGURE_COST] > 0)
		text_figure(s, to, PLAN_FIGURE_COST, 1e-3, " · cost %.6g k"), fputs(name_of(s->fleet->currency), to);
	if (s->figure[PLAN_FIGURE_CARBON] > 0)
		text_figure(s, to, PLAN_FIGURE_CARBON, 1e-3, " · %.4g t CO2e");
	fputc('\n', to);
	text_figure(s, to, PLAN_FIGURE_THROTTLED, 1 / 3600., "  throttled %.1f h");
	text_figure(s, to, PLAN_FIGURE_UNSERVED, 100, " · load unserved %.3g %%");
	text_figure(s, to, PLAN_FIGURE_LATE, 1, " · %.0f jobs late");
	fputc('\n', to);
}

/* Longest first. */
static void text_staves(const struct plan_simulation *s, FILE *to)
{
	bool told[PLAN_STAVES] = {false};
	double all_h = (double)s->nodes * s->fleet->horizon_s / 3600;
	fprintf(to, "\n  node-hours: %.0f in all, %.1f %% useful; shortest stave: %s\n", all_h, s->useful_node_s / 36 / all_h, stave_words[s->shortest]);
	for (int n = 0; n < PLAN_STAVES; n++) {
		int next = -1;
		for (int k = 0; k < PLAN_STAVES; k++)
			if (!told[k] && (next < 0 || s->stave_node_s[k] > s->stave_node_s[next]))
				next = k;
		told[next] = true;
		if (s->stave_node_s[next] <= 0)
			return;
		fprintf(to, "  %-12s %12.0f  %5.1f %%  %s\n", stave_words[next], s->stave_node_s[next] / 3600, s->stave_node_s[next] / 36 / all_h, stave_notes[next]);
	}
}

void plan_simulation_text(const struct plan_simulation *s, FILE *to)
{
	char events[32];
	fprintf(to, "%lld nodes at %lld site%s, %lld jobs, %.4g days, %d replication%s, seed %llu, %s events\n\n", (long long)s->nodes, (long long)s->fleet->sites,
	        s->fleet->sites == 1 ? "" : "s", (long long)s->fleet->jobs, s->fleet->horizon_s / 86400, s->fleet->replications, s->fleet->replications == 1 ? "" : "s",
	        (unsigned long long)s->fleet->seed, stave_count_text(events, (double)s->events));
	text_curve(s, to, "utilisation", UTILISATION);
	text_curve(s, to, "power", POWER);
	text_curve(s, to, "queue", QUEUE);
	if (s->total.load > 0 && s->total.unserved > 0)
		text_curve(s, to, "unserved", UNSERVED);
	text_jobs(s, to);
	fputc('\n', to);
	text_figures(s, to);
	text_staves(s, to);
}

/* ---- JSON ---- */

static json_t *date_json(double t_s) { return t_s < 0 ? json_null() : json_real(t_s); }

static json_t *job_json(const struct plan_fleet_job *j, const struct plan_fleet_outcome *o)
{
	json_t *out = json_pack("{s:s, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I}", "name", name_of(j->name), "kind", j->kind == PLAN_FLEET_TRAIN ? "train" : "serve", "nodes", j->nodes,
	                        "goodput", o->goodput, "wait_s", o->wait_s, "wait_power_s", o->wait_power_s, "useful_s", o->useful_s, "starting_s", o->starting_s, "restarting_s",
	                        o->restarting_s, "failures", (json_int_t)o->failures, "preemptions", (json_int_t)o->preemptions);
	json_object_set_new(out, "start_s", date_json(o->start_s));
	if (j->kind == PLAN_FLEET_SERVE) {
		json_object_set_new(out, "load", json_real(o->load));
		json_object_set_new(out, "unserved", json_real(o->unserved));
		return out;
	}
	json_object_set_new(out, "finish_s", date_json(o->finish_s));
	json_object_set_new(out, "finish_p10_s", date_json(o->finish_p10_s));
	json_object_set_new(out, "finish_p50_s", date_json(o->finish_p50_s));
	json_object_set_new(out, "finish_p90_s", date_json(o->finish_p90_s));
	json_object_set_new(out, "finished_share", json_real(o->finished_share));
	json_object_set_new(out, "in_time_share", json_real(o->in_time_share));
	json_object_set_new(out, "progress", json_real(o->progress));
	json_object_set_new(out, "lost_s", json_real(o->lost_s));
	json_object_set_new(out, "checkpoint_s", json_real(o->checkpoint_s));
	json_object_set_new(out, "throttled_s", json_real(o->throttled_s));
	json_object_set_new(out, "checkpoints", json_integer((json_int_t)o->checkpoints));
	return out;
}

/* One array per quantity: smaller than an object per sample, and what plots want. */
static json_t *series_json(const struct plan_simulation *s, int site)
{
	static const char *const key[] = {"utilisation", "power_w", "peak_w", "cost_h", "carbon_kg_h", "speed", "queue_jobs", "queue_nodes", "load_s", "unserved_s"};
	enum { KEYS = sizeof key / sizeof *key };
	json_t *out = json_pack("{s:s}", "site", name_of(s->fleet->site[site].name)), *column[KEYS], *nodes[PLAN_NODE_STATES];
	for (int k = 0; k < KEYS; k++)
		json_object_set_new(out, key[k], column[k] = json_array());
	for (int k = 0; k < PLAN_NODE_STATES; k++)
		json_object_set_new(out, state_words[k], nodes[k] = json_array());
	for (int i = 0; i < s->samples; i++) {
		struct mean m = mean_of(&s->series[(size_t)site * (size_t)s->samples + (size_t)i], span(s, i));
		const double v[KEYS] = {m.utilisation, m.power_w, m.peak_w, m.cost_h, m.kg_h, m.speed, m.queue_jobs, m.queue_nodes, m.load_s, m.unserved_s};
		for (int k = 0; k < KEYS; k++)
			json_array_append_new(column[k], json_real(v[k]));
		for (int k = 0; k < PLAN_NODE_STATES; k++)
			json_array_append_new(nodes[k], json_real(m.nodes[k]));
	}
	return out;
}

json_t *plan_simulation_json(const struct plan_simulation *s)
{
	json_t *figures = json_object(), *staves = json_object(), *node_s = json_object(), *jobs = json_array(), *sites = json_array();
	for (int k = 0; k < PLAN_FIGURES; k++) {
		const struct plan_fleet_percentiles *p = &s->over[k];
		json_object_set_new(figures, figure_words[k], json_pack("{s:f, s:f, s:f, s:f, s:f}", "value", s->figure[k], "mean", p->mean, "p10", p->p10, "p50", p->p50, "p90", p->p90));
	}
	for (int k = 0; k < PLAN_STAVES; k++)
		json_object_set_new(staves, stave_words[k], json_real(s->stave_node_s[k]));
	for (int k = 0; k < PLAN_NODE_STATES; k++)
		json_object_set_new(node_s, state_words[k], json_real((double)s->total.node_us[k] * 1e-6));
	for (int i = 0; i < s->fleet->jobs; i++)
		json_array_append_new(jobs, job_json(&s->fleet->job[i], &s->outcome[i]));
	for (int i = 0; i < s->fleet->sites; i++)
		json_array_append_new(sites, series_json(s, i));
	return json_pack("{s:I, s:f, s:i, s:I, s:I, s:I, s:f, s:i, s:f, s:f, s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "nodes", (json_int_t)s->nodes, "horizon_s", s->fleet->horizon_s,
	                 "replications", s->fleet->replications, "seed", (json_int_t)s->fleet->seed, "events", (json_int_t)s->events, "heap_steps", (json_int_t)s->heap_steps,
	                 "sample_s", s->span_s, "samples", s->samples, "useful_node_s", s->useful_node_s, "peak_w", s->total.peak_w, "currency", name_of(s->fleet->currency),
	                 "shortest_stave", stave_words[s->shortest], "figures", figures, "staves_node_s", staves, "node_s", node_s, "jobs", jobs, "series", sites);
}

/* ---- CSV ---- */

void plan_simulation_csv(const struct plan_simulation *s, FILE *to)
{
	fputs("site,time_s", to);
	for (int k = 0; k < PLAN_NODE_STATES; k++)
		fprintf(to, ",%s", state_words[k]);
	fputs(",utilisation,power_w,peak_w,energy_j,cost,carbon_kg,speed,queue_jobs,queue_nodes,load_s,unserved_s\n", to);
	for (int i = 0; i < s->fleet->sites * s->samples; i++) {
		const struct plan_fleet_sample *a = &s->series[i];
		struct mean m = mean_of(a, span(s, i % s->samples));
		fputc('"', to);
		for (const char *c = name_of(s->fleet->site[i / s->samples].name); *c; c++)
			fputs(*c == '"' ? "\"\"" : (char[2]){*c, 0}, to);
		fprintf(to, "\",%.10g", i % s->samples * s->span_s);
		for (int k = 0; k < PLAN_NODE_STATES; k++)
			fprintf(to, ",%.10g", m.nodes[k]);
		fprintf(to, ",%.10g,%.10g,%.10g,%.10g,%.10g,%.10g,%.10g,%.10g,%.10g,%.10g,%.10g\n", m.utilisation, m.power_w, m.peak_w, a->energy_j, a->cost, a->kg, m.speed, m.queue_jobs,
		        m.queue_nodes, m.load_s, m.unserved_s);
	}
}
