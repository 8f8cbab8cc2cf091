/* The report as one page: style and drawings (SVG) inside it, no scripts, nothing fetched. Drawn are the barrel with its staves, the parts of a step, time against
 * money for other device counts, and cost and power over time. */
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "base/sys.h"
#include "plan/report/report.h"

static void escaped(FILE *to, const char *s)
{
	for (; *s; s++)
		switch (*s) {
		case '<': fputs("&lt;", to); break;
		case '>': fputs("&gt;", to); break;
		case '&': fputs("&amp;", to); break;
		case '"': fputs("&quot;", to); break;
		default: fputc((unsigned char)*s < 32 ? ' ' : *s, to);
		}
}

static void head(const struct stave_plan *p, FILE *to)
{
	fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>", to);
	escaped(to, p->spec->name[0] ? p->spec->name : p->spec->file);
	fputs("</title><style>\n"
	      "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222;background:#fff}\n"
	      "h1{font-size:1.5em}h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid #ccc}h3{font-size:1em}\n"
	      "table{border-collapse:collapse}td,th{padding:.15em .8em .15em 0;text-align:left;vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums}\n"
	      "svg{display:block;margin:.8em 0;max-width:100%}svg text{font:12px system-ui,sans-serif;fill:#222}.grey{color:#777}\n"
	      "</style></head><body>\n<h1>", to);
	escaped(to, p->spec->name[0] ? p->spec->name : p->spec->file);
	fputs("</h1>\n", to);
}

__attribute__((format(printf, 3, 4))) static void row(FILE *to, const char *name, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	fputs("<tr><td>", to);
	escaped(to, name);
	fputs("</td><td>", to);
	escaped(to, text);
	fputs("</td></tr>\n", to);
}

/* ---- drawings ---- */

enum { BARREL_W = 640, BARREL_H = 260, STAVE_TOP = 30, STAVE_FLOOR = 210 };

/* Each stave as tall as it is little felt: the one whose +10 % gains most is the shortest, and the water stands at it. */
static void barrel(const struct plan_work_result *r, FILE *to)
{
	double most = r->stave[0].gain > 1e-9 ? r->stave[0].gain : 1e-9, width = (BARREL_W - 40.) / r->staves;
	double tallest = STAVE_FLOOR - STAVE_TOP, water = STAVE_FLOOR - 0.35 * tallest;
	fprintf(to, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"the barrel and its staves\">\n", BARREL_W, BARREL_H);
	for (int i = 0; i < r->staves; i++) {
		const struct plan_stave *s = &r->stave[i];
		double part = s->gain > 0 ? s->gain / most : 0, h = tallest * (1 - 0.65 * part), x = 20 + i * width;
		fprintf(to, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\" fill-opacity=\".75\" stroke=\"#5b3a1e\"/>\n", x + 2, STAVE_FLOOR - h, width - 4, h,
		        i ? "#b98b5e" : "#c0392b");
		fprintf(to, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" style=\"font-size:%.0fpx\">%s</text>\n", x + width / 2, STAVE_FLOOR + 16,
		        fmin(12, 1.7 * (width - 4) / strlen(plan_resource_name[s->resource])), plan_resource_name[s->resource]);
		fprintf(to, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.1f %%</text>\n", x + width / 2, STAVE_FLOOR + 32, -100 * s->gain);
	}
	fprintf(to, "<rect x=\"20\" y=\"%.1f\" width=\"%d\" height=\"%.1f\" fill=\"#5fa3d9\" opacity=\".35\"/>\n", water, BARREL_W - 40, STAVE_FLOOR - water);
	fprintf(to, "<path d=\"M20 60H%d M20 %dH%d\" stroke=\"#555\" stroke-width=\"5\" fill=\"none\" opacity=\".5\"/>\n", BARREL_W - 20, STAVE_FLOOR - 25, BARREL_W - 20);
	fputs("</svg>\n<p class=\"grey\">Below each stave: what ten percent more of it changes. The red one is the shortest; the water cannot stand higher.</p>\n", to);
}

static void bar(const struct plan_part *part, int n, const void *of, double total, FILE *to)
{
	double x = 0;
	fputs("<svg viewBox=\"0 0 640 78\" role=\"img\">\n", to);
	for (int i = 0; i < n; i++) {
		double w = *(const double *)(const void *)((const char *)of + part[i].offset) / total * 640;
		if (w > 0)
			fprintf(to, "<rect x=\"%.2f\" y=\"0\" width=\"%.2f\" height=\"28\" fill=\"%s\"><title>%s %.1f %%</title></rect>\n", x, w, part[i].color, part[i].name, w / 6.4);
		x += w > 0 ? w : 0;
	}
	for (int i = 0, k = 0; i < n; i++) {
		double share = *(const double *)(const void *)((const char *)of + part[i].offset) / total;
		if (share < 0.005)
			continue;
		fprintf(to, "<rect x=\"%d\" y=\"%d\" width=\"10\" height=\"10\" fill=\"%s\"/><text x=\"%d\" y=\"%d\">%s %.1f %%</text>\n", k % 4 * 160, 36 + k / 4 * 15, part[i].color, k % 4 * 160 + 14,
		        45 + k / 4 * 15, part[i].name, 100 * share);
		k++;
	}
	fputs("</svg>\n", to);
}

struct axes {
	double x1, y1; /* largest values */
	const char *x, *y;
};
enum { PLOT_W = 640, PLOT_H = 220, PLOT_L = 70, PLOT_B = 36 };
static double at_x(const struct axes *a, double v) { return PLOT_L + (a->x1 > 0 ? v / a->x1 : 0) * (PLOT_W - PLOT_L - 20); }
static double at_y(const struct axes *a, double v) { return PLOT_H - PLOT_B - (a->y1 > 0 ? v / a->y1 : 0) * (PLOT_H - PLOT_B - 14); }

static void frame(const struct axes *a, FILE *to)
{
	char text[32];
	fprintf(to, "<svg viewBox=\"0 0 %d %d\" role=\"img\">\n<path d=\"M%d 8V%dH%d\" fill=\"none\" stroke=\"#888\"/>\n", PLOT_W, PLOT_H, PLOT_L, PLOT_H - PLOT_B, PLOT_W - 10);
	for (int i = 0; i <= 4; i++) {
		fprintf(to, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", at_x(a, a->x1 * i / 4), PLOT_H - PLOT_B + 15, plan_si_text(a->x1 * i / 4, "", text));
		fprintf(to, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", PLOT_L - 6, at_y(a, a->y1 * i / 4) + 4, plan_si_text(a->y1 * i / 4, "", text));
	}
	fprintf(to, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text><text x=\"%d\" y=\"16\">%s</text>\n", PLOT_W - 10, PLOT_H - 4, a->x, PLOT_L + 8, a->y);
}

/* Days against money, a point for each device count; the front's points are filled. Energy is the size of a point. */
static void pareto(const struct stave_plan *p, const struct plan_training_result *t, FILE *to)
{
	char label[48];
	struct axes a = {0, 0, "days", NULL};
	double energy = 0;
	bool priced = true;
	for (int i = 0; i < t->points; i++)
		priced &= isfinite(t->point[i].money) != 0;
	for (int i = 0; i < t->points; i++) {
		a.x1 = fmax(a.x1, t->point[i].wall_s / 86400);
		a.y1 = fmax(a.y1, priced ? t->point[i].money : t->point[i].energy_j / 3.6e9);
		energy = fmax(energy, t->point[i].energy_j);
	}
	a.y = priced ? p->spec->currency : "MWh";
	frame(&a, to);
	for (int i = 0; i < t->points; i++) {
		const struct plan_point *q = &t->point[i];
		double x = at_x(&a, q->wall_s / 86400), v = at_y(&a, priced ? q->money : q->energy_j / 3.6e9);
		fprintf(to, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"%s\" stroke=\"#3b6ea5\"><title>%s</title></circle><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%d</text>\n", x, v,
		        3 + 5 * sqrt(q->energy_j / energy), q->front ? "#3b6ea5" : "none", plan_energy_text(q->energy_j, label), x - 9, v + 14, q->gpus);
	}
	fputs("</svg>\n<p class=\"grey\">Number of devices beside each point, energy as its size; filled: none is better in time, money and energy at once.</p>\n", to);
}

/* Cumulative cost (left axis) and facility power (steps) while the works run, from each one's start to its middle forecast of the end. */
static void over_time(const struct stave_plan *p, FILE *to)
{
	enum { POINTS = 96 };
	double begin = INFINITY, end = -INFINITY, money[POINTS + 1], power[POINTS + 1], span[PLAN_WORKS_MAX], start[PLAN_WORKS_MAX];
	for (int w = 0; w < p->spec->works; w++) {
		const struct plan_work_result *r = &p->work[w];
		start[w] = isfinite(r->start_day) ? r->start_day : 0;
		span[w] = r->serving ? r->work->days / 86400 : r->train.wall_p50_s / 86400;
		begin = fmin(begin, start[w]);
		end = fmax(end, start[w] + span[w]);
	}
	struct axes cost = {end - begin, 0, "days", p->spec->currency}, watts = {end - begin, 0, "days", "W"};
	for (int i = 0; i <= POINTS; i++) {
		double day = begin + (end - begin) * i / POINTS;
		money[i] = power[i] = 0;
		for (int w = 0; w < p->spec->works; w++) {
			double done = fmin(fmax((day - start[w]) / span[w], 0), 1);
			money[i] += isfinite(p->work[w].money.total) ? p->work[w].money.total * done : 0;
			power[i] += day >= start[w] && day <= start[w] + span[w] ? p->work[w].footprint.mean_power_w : 0;
		}
		cost.y1 = fmax(cost.y1, money[i]);
		watts.y1 = fmax(watts.y1, power[i]);
	}
	fputs("<h2>Cost and power over time</h2>\n", to);
	const struct { const struct axes *a; const double *v; const char *color; } plots[] = {{&cost, money, "#c0392b"}, {&watts, power, "#3b6ea5"}};
	for (int k = 0; k < 2; k++) {
		frame(plots[k].a, to);
		fputs("<polyline fill=\"none\" stroke-width=\"2\" stroke=\"", to);
		fprintf(to, "%s\" points=\"", plots[k].color);
		for (int i = 0; i <= POINTS; i++)
			fprintf(to, "%.1f,%.1f ", at_x(plots[k].a, (end - begin) * i / POINTS), at_y(plots[k].a, plots[k].v[i]));
		fputs("\"/></svg>\n", to);
	}
}

/* ---- tables ---- */

static void training(const struct stave_plan *p, const struct plan_work_result *r, FILE *to)
{
	const struct plan_training_result *t = &r->train;
	char a[128], b[48], c[48], d[16], e[16], f[16];
	row(to, "layout", "%s", plan_layout_text(&t->layout, a));
	row(to, "step", "%.4g s, half of such forecasts within %.0f %%, nine in ten within %.0f %%", t->step_s, 100 * r->error_p50, 100 * r->error_p90);
	row(to, "rate", "%s, MFU %.1f %%", plan_si_text(t->tokens_s, "tokens/s", b), 100 * t->step.mfu);
	row(to, "memory of a device", "%s of %s", stave_bytes_text(b, t->step.memory.total), stave_bytes_text(c, r->here.accelerator->memory_bytes));
	row(to, "checkpoint", "%s in %s every %s", plan_si_text(t->checkpoint_bytes, "B", a), plan_time_text(t->checkpoint_write_s, b), plan_time_text(t->interval_s, c));
	row(to, "failures", "%.3g expected, goodput %.1f %%", t->failures, 100 * t->goodput);
	row(to, "time", "%s (p10 %s, p90 %s)", plan_time_text(t->wall_p50_s, a), plan_time_text(t->wall_p10_s, b), plan_time_text(t->wall_p90_s, c));
	if (isfinite(r->finish_p50_day))
		row(to, "done", "%s (p10 %s, p90 %s)", plan_day_text(r->finish_p50_day, d), plan_day_text(r->finish_p10_day, e), plan_day_text(r->finish_p90_day, f));
}

static void serving(const struct stave_plan *p, const struct plan_work_result *r, FILE *to)
{
	const struct plan_serving_result *s = &r->serve;
	const struct plan_service *v = &s->at_peak;
	char a[48];
	row(to, "replica", "tp %d, pp %d, cache for %s tokens", s->choice.replica.tp, s->choice.replica.pp, plan_si_text(s->memory.kv_tokens, "", a));
	row(to, "replicas", "%d at the peak of %.3g requests/s, %.1f on average; one carries %.3g/s", s->choice.replicas_peak, s->peak_rate, s->choice.replicas_mean, s->choice.capacity_s);
	row(to, "first token", "p50 %.3g s, p99 %.3g s, queueing included (+- %.0f %%)", v->ttft_p50_s, v->ttft_p99_s, 100 * v->error_ttft_p50);
	row(to, "further tokens", "p50 %.3g ms, p99 %.3g ms (+- %.0f %%)", 1e3 * v->tpot_p50_s, 1e3 * v->tpot_p99_s, 100 * v->error_tpot_p50);
	row(to, "a million tokens", "%s", plan_money_text(s->money_per_mtoken, p->spec->currency, a));
}

static void sums(const struct stave_plan *p, const struct plan_money *m, const struct plan_footprint *f, FILE *to)
{
	char a[48], b[48];
	row(to, "cost", "%s, of which energy %s", plan_money_text(m->total, p->spec->currency, a), plan_money_text(m->energy, p->spec->currency, b));
	row(to, "power", "%s mean, %s peak with the building", plan_si_text(f->mean_power_w, "W", a), plan_si_text(f->peak_power_w, "W", b));
	row(to, "energy", "%s", plan_energy_text(f->energy_j, a));
	if (isfinite(f->carbon_kg))
		row(to, "CO2e", "%s by location, %s embodied", plan_mass_text(f->carbon_kg, a), plan_mass_text(f->embodied_kg, b));
}

static void work(const struct stave_plan *p, const struct plan_work_result *r, FILE *to)
{
	fputs("<h2>", to);
	escaped(to, r->work->name);
	fprintf(to, ": %d &times; ", r->serving ? r->serve.gpus_peak : r->train.gpus);
	escaped(to, r->here.accelerator->name);
	fputs(" at ", to);
	escaped(to, r->here.site->name);
	fputs("</h2>\n", to);
	if (r->staves)
		barrel(r, to);
	fputs("<table>\n", to);
	if (r->serving)
		serving(p, r, to);
	else
		training(p, r, to);
	sums(p, &r->money, &r->footprint, to);
	if (r->staves)
		row(to, "shortest stave", "%s; the next wall is %s", r->shortest, plan_resource_name[r->next_wall]);
	fputs("</table>\n", to);
	if (r->serving)
		return;
	fputs("<h3>Where a step's time goes</h3>\n", to);
	bar(plan_parts, PLAN_PARTS, &r->train.step, r->train.step.total_s, to);
	fputs("<h3>What is in a device's memory</h3>\n", to);
	bar(plan_classes, PLAN_CLASSES, &r->train.step.memory, r->train.step.memory.total, to);
	if (r->train.points > 1) {
		fputs("<h3>With other numbers of devices</h3>\n", to);
		pareto(p, &r->train, to);
	}
}

static void site(const struct stave_plan *p, int i, FILE *to)
{
	const struct plan_site_result *s = &p->site[i];
	char a[48], b[48], c[16], d[16], e[16];
	fputs("<h2>Site ", to);
	escaped(to, p->spec->site[i].name);
	fputs("</h2>\n<table>\n", to);
	row(to, "nodes", "%d in %d racks of %s", s->nodes, s->racks, plan_si_text(s->rack_w, "W", a));
	row(to, "facility", "%s mean, %s peak", plan_si_text(s->facility_mean_w, "W", a), plan_si_text(s->facility_peak_w, "W", b));
	row(to, "cooling wanted", "%s%s", s->needs_cooling, s->has_cooling ? ", which it has" : "");
	row(to, "a device-hour", "owned %s, rented %s", plan_money_text(s->owned_device_h, p->spec->currency, a), plan_money_text(s->rented_device_h, p->spec->currency, b));
	if (s->critical[0])
		row(to, "ready", "%s (p10 %s, p90 %s); %s decides", plan_day_text(s->ready_p50_day, c), plan_day_text(s->ready_p10_day, d), plan_day_text(s->ready_p90_day, e), s->critical);
	fputs("</table>\n", to);
}

void stave_plan_html(const struct stave_plan *p, FILE *to)
{
	head(p, to);
	for (int i = 0; i < p->spec->works; i++)
		work(p, &p->work[i], to);
	for (int i = 0; i < p->spec->sites; i++)
		site(p, i, to);
	over_time(p, to);
	fputs("<h2>All work</h2>\n<table>\n", to);
	sums(p, &p->money, &p->footprint, to);
	fputs("</table>\n<p class=\"grey\">Made by stave plan.</p></body></html>\n", to);
}
