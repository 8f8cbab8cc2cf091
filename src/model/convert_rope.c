/* Llama-3's rotary scaling in two spellings: four numbers in config.json, one divisor per frequency (rope_freqs) in GGUF. With t the turns
 * that a frequency makes within the original context, keep = (t - low) / (high - low), held to 0..1, is the share of
 * the frequency that stays; the rest is divided by the factor. Going back, two divisors between the extremes give the
 * straight line keep(f), and low is taken as 1, which every published model has. */
#include <math.h>

#include "model/convert_items.h"

static double frequency(const struct stave_shape *s, int i) { return pow(s->rope_theta, -2.0 * i / s->D); }

void rope_to_factors(const struct stave_shape *s, float *divisor)
{
	for (int i = 0; i < s->D / 2; i++) {
		double turns = s->rope_original * frequency(s, i) / (2 * M_PI), keep = (turns - s->rope_low) / (s->rope_high - s->rope_low);
		keep = keep < 0 ? 0 : keep > 1 ? 1 : keep;
		divisor[i] = (float)(1 / (keep + (1 - keep) / s->rope_factor));
	}
}

bool rope_from_factors(struct stave_shape *s, const float *divisor)
{
	int n = s->D / 2, first = -1, last = -1;
	struct stave_shape t = *s;
	t.rope_factor = (double)divisor[n - 1];
	t.rope_linear = false;
	t.rope_low = 1;
	if (!(t.rope_factor > 1))
		return false;
	for (int i = 0; i < n; i++)
		if (divisor[i] > 1 && (double)divisor[i] < t.rope_factor) {
			first = first < 0 ? i : first;
			last = i;
		}
	if (first == last)
		return false;
	double keep[2], f[2] = {frequency(s, first), frequency(s, last)};
	for (int k = 0; k < 2; k++)
		keep[k] = (1 / (double)divisor[k ? last : first] - 1 / t.rope_factor) / (1 - 1 / t.rope_factor);
	double slope = (keep[0] - keep[1]) / (f[0] - f[1]), at_zero = keep[0] - slope * f[0]; /* -low / (high - low) */
	if (!(at_zero < 0) || !(slope > 0))
		return false;
	double span = -1 / at_zero;
	t.rope_high = round((1 + span) * 1000) / 1000;
	double original = round(slope * 2 * M_PI * span);
	if (!(original >= 1 && original <= INT32_MAX))
		return false;
	t.rope_original = (int)original;
	float again[512]; /* a head is at most 1024 wide (cost/shape.c) */
	rope_to_factors(&t, again);
	for (int i = 0; i < n; i++)
		if (fabsf(again[i] - divisor[i]) > 1e-4f * divisor[i])
			return false;
	*s = t;
	return true;
}
