/* What the reports share: the names of the parts, and numbers as people write them. */
#include "plan/report/report.h"

#include <math.h>
#include <string.h>
#include <time.h>

#define PART(name, field, color) {name, color, offsetof(struct plan_step, field)}
const struct plan_part plan_parts[PLAN_PARTS] = {
	PART("products", product_s, "#3b6ea5"),   PART("attention", attention_s, "#5fa3d9"), PART("elementwise", element_s, "#9fc5e8"), PART("recompute", recompute_s, "#7d5ba6"),
	PART("launches", launch_s, "#b4a7d6"),    PART("pipeline bubble", bubble_s, "#cccccc"), PART("tensor parallel", tp_s, "#cc4125"), PART("context parallel", cp_s, "#e06666"),
	PART("expert parallel", ep_s, "#ea9999"), PART("pipeline transfers", pp_s, "#f6b26b"), PART("data parallel", dp_s, "#e69138"), PART("optimizer", optimizer_s, "#6aa84f"),
};
#undef PART
double plan_part_s(const struct plan_step *s, int part) { return *(const double *)(const void *)((const char *)s + plan_parts[part].offset); }

#define PART(name, field, color) {name, color, offsetof(struct plan_memory, field)}
const struct plan_part plan_classes[PLAN_CLASSES] = {
	PART("weights", weights, "#3b6ea5"), PART("gradients", gradients, "#5fa3d9"), PART("optimizer", optimizer, "#6aa84f"),
	PART("activations", activations, "#e69138"), PART("logits", logits, "#cc4125"), PART("buffers", buffers, "#cccccc"),
};

const char *plan_layout_text(const struct plan_layout *l, char out[128])
{
	static const char *const recompute[] = {"", ", selective recompute", ", full recompute"};
	const struct { const char *name; int n; } degree[] = {{"tp", l->tp}, {"pp", l->pp}, {"dp", l->dp}, {"cp", l->cp}, {"ep", l->ep}, {"vp", l->vp}};
	int n = snprintf(out, 128, "micro %d", l->micro);
	for (size_t i = 0; i < sizeof degree / sizeof *degree; i++)
		if (degree[i].n > 1)
			n += snprintf(out + n, (size_t)(128 - n), ", %s %d", degree[i].name, degree[i].n);
	if (l->zero > 0)
		n += snprintf(out + n, (size_t)(128 - n), ", ZeRO %d", l->zero);
	n += snprintf(out + n, (size_t)(128 - n), "%s", l->recompute >= 0 && l->recompute <= PLAN_FULL ? recompute[l->recompute] : "");
	if (l->seq_parallel && n < 100)
		snprintf(out + n, (size_t)(128 - n), ", seq-parallel");
	return out;
}

/* v between 1 and 1000 with its SI prefix. */
static double prefixed(double v, const char **prefix)
{
	static const char *const up[] = {"", "k", "M", "G", "T", "P", "E"};
	int i = 0;
	while (fabs(v) >= 999.5 && i < 6) {
		v /= 1000;
		i++;
	}
	*prefix = up[i];
	return v;
}

static const char *three(double v, char out[16])
{
	snprintf(out, 16, fabs(v) < 9.995 ? "%.2f" : fabs(v) < 99.95 ? "%.1f" : "%.0f", v);
	return out;
}

const char *plan_si_text(double v, const char *unit, char out[32])
{
	const char *prefix;
	char digits[16];
	if (!isfinite(v))
		return strcpy(out, "-");
	v = prefixed(v, &prefix);
	snprintf(out, 32, "%s %s%s", three(v, digits), prefix, unit);
	return out;
}

const char *plan_money_text(double amount, const char *currency, char out[48])
{
	char digits[32];
	if (!isfinite(amount))
		return strcpy(out, "no price");
	snprintf(out, 48, "%s", plan_si_text(amount, currency, digits));
	return out;
}

const char *plan_energy_text(double j, char out[32]) { return plan_si_text(j / 3600, "Wh", out); }
const char *plan_mass_text(double kg, char out[32]) { return kg >= 1000 ? plan_si_text(kg / 1000, "t", out) : plan_si_text(kg, "kg", out); }

const char *plan_time_text(double s, char out[32])
{
	static const struct { double s; const char *unit; } units[] = {{31557600, "y"}, {86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}, {1e-3, "ms"}, {1e-6, "us"}};
	char digits[16];
	size_t i = 0;
	if (!isfinite(s) || s > 1e13)
		return strcpy(out, isfinite(s) ? "ages" : "-");
	while (i < 6 && s < 1.5 * units[i].s)
		i++;
	snprintf(out, 32, "%s %s", three(s / units[i].s, digits), units[i].unit);
	return out;
}

const char *plan_day_text(double day, char out[16])
{
	struct tm t;
	time_t s = (time_t)(day * 86400);
	if (!isfinite(day) || fabs(day) > 1e7 || !gmtime_r(&s, &t) || !strftime(out, 16, "%Y-%m-%d", &t))
		return strcpy(out, "-");
	return out;
}
