/* How unusual is a value among its recent like? The last `window` values, their mean and deviation computed afresh each
 * time: 128 additions per step cost nothing, and running sums would drift. State is plain data, saved with a checkpoint,
 * so that a resumed run judges as the undisturbed one would. */
#include <math.h>

#include "watch/watch.h"

#define WINDOW (int)(sizeof((struct stave_zscore *)0)->v / sizeof *((struct stave_zscore *)0)->v)
#define ENOUGH 32

double stave_zscore_push(struct stave_zscore *z, double x, bool keep)
{
	double mean = 0, square = 0, score = 0;
	if (z->n >= ENOUGH) {
		for (int i = 0; i < z->n; i++)
			mean += z->v[i];
		mean /= z->n;
		for (int i = 0; i < z->n; i++)
			square += (z->v[i] - mean) * (z->v[i] - mean);
		double deviation = sqrt(square / z->n);
		score = deviation > 0 ? (x - mean) / deviation : 0; /* a constant window says nothing about what is usual */
	}
	if (keep && isfinite(x)) {
		z->at = z->at < 0 || z->at >= WINDOW ? 0 : z->at;
		z->v[z->at] = x;
		z->at = (z->at + 1) % WINDOW;
		z->n += z->n < WINDOW;
	}
	return score;
}
