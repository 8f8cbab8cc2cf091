/* The learning rate as a pure function of the step, so that a resumed run needs no schedule state. Evaluated in double;
 * the optimizer rounds to float once. */
#include <math.h>

#include "train/train.h"

/* How far into the decay `it` is, 0 to 1. */
static double progress(int64_t it, double from, double to)
{
	return to > from ? fmin(fmax(((double)it - from) / (to - from), 0), 1) : 1;
}

double stave_schedule_lr(const struct stave_schedule *s, int64_t it)
{
	double warmup = (double)s->warmup, end = (double)s->decay_steps, span = s->peak - s->min;
	if (it < s->warmup)
		return s->peak * (double)(it + 1) / (warmup + 1);
	switch (s->kind) {
	case STAVE_CONSTANT:
		return s->peak;
	case STAVE_LINEAR:
		return s->peak - span * progress(it, warmup, end);
	case STAVE_WSD: {
		double decay = s->decay_fraction * end;
		/* a warm-up that reaches into the decay wins: the rate never jumps up again after it */
		return s->min + span * (1 - sqrt(progress(it, fmax(end - decay, warmup), end)));
	}
	default:
		return s->min + 0.5 * (1 + cos(M_PI * progress(it, warmup, end))) * span;
	}
}
