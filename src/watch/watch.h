/* watch/: what a run says about itself. A run owns runs/NAME/: config.yaml (resolved), plan.json, metrics.jsonl (one
 * object per line), tensorboard/events.out.tfevents.*, receipt.json. Metric names are one table (metrics.h). */
#ifndef STAVE_WATCH_H
#define STAVE_WATCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

struct stave_run;
/* Creates (or, with `resume`, reopens for appending) dir. `step` is the next step the run will log: when resuming, lines
 * of metrics.jsonl of that step and later (written after the checkpoint by the killed run) and a torn last line are
 * dropped, so that one run has one history. STAVE_ECORRUPT for a metrics.jsonl that is not ours. */
int stave_run_open(struct stave_run **out, const char *dir, bool resume, int64_t step, struct stave_err *err);
void stave_run_close(struct stave_run *r);
const char *stave_run_dir(const struct stave_run *r);
/* Opens dir/name for writing (config.yaml, plan.json …); the caller closes it. */
FILE *stave_run_file(struct stave_run *r, const char *name, struct stave_err *err);

struct stave_scalar {
	const char *name; /* from the metrics table, e.g. "loss", "tokens_per_s" */
	double value;
};
/* One line of metrics.jsonl {"step":…,"time":…,name:value…} (non-finite values as null) and one TensorBoard event each. */
int stave_run_scalars(struct stave_run *r, int64_t step, const struct stave_scalar *s, int n, struct stave_err *err);
/* An event without numbers: {"step":…,"event":"spike","message":…}. */
int stave_run_event(struct stave_run *r, int64_t step, const char *event, const char *message, struct stave_err *err);
/* receipt.json, atomically. */
int stave_run_receipt(struct stave_run *r, json_t *receipt, struct stave_err *err);
/* An online mean and deviation of the last `window` values: spike detection. */
struct stave_zscore {
	double v[128];
	int n, at;
};
/* z of x against the window (0 until it has 32 values, and while they are all equal), then adds x if `keep` and finite. */
double stave_zscore_push(struct stave_zscore *z, double x, bool keep);

#endif
