/* The vocabulary of measurements: one table from which metrics.jsonl, TensorBoard tags (board/name), the Prometheus
 * exposition and the docs take names, units and meaning. Exposed names follow the Prometheus rules (base units, unit
 * last, counters end in _total) and get stave_train_ in front; a counter's value in metrics.jsonl is the step's own
 * part. To add a metric is to add a line. */
#ifndef STAVE_WATCH_METRICS_H
#define STAVE_WATCH_METRICS_H

/*        name               exposed as                                      type       board         help */
#define STAVE_TRAIN_METRICS(X) \
	X("step",              "step",                                         GAUGE,     "progress",   "optimizer steps done") \
	X("loss",              "loss",                                         GAUGE,     "loss",       "training loss of the step, nats per token") \
	X("train_loss",        "eval_loss{set=\"train\"}",                     GAUGE,     "loss",       "loss on batches of the training split, nats per token") \
	X("val_loss",          "eval_loss{set=\"validation\"}",                GAUGE,     "loss",       "loss on the validation split, nats per token") \
	X("lr",                "learning_rate",                                GAUGE,     "optimizer",  "learning rate of the step") \
	X("grad_norm",         "grad_norm",                                    GAUGE,     "optimizer",  "norm of all gradients before clipping") \
	X("loss_scale",        "loss_scale",                                   GAUGE,     "optimizer",  "factor on the loss in mixed precision") \
	X("tokens",            "tokens_total",                                 COUNTER,   "progress",   "tokens trained on") \
	X("flops",             "flops_total",                                  COUNTER,   "progress",   "model operations done, by the cost model") \
	X("tokens_per_s",      "tokens_per_second",                            GAUGE,     "speed",      "tokens per second of the step") \
	X("mfu",               "mfu_ratio",                                    GAUGE,     "speed",      "model operations per second over the measured matrix peak") \
	X("roofline",          "roofline_ratio",                               GAUGE,     "speed",      "predicted step time over the measured one") \
	X("step_s",            "step_seconds",                                 HISTOGRAM, "speed",      "time of a step") \
	X("data_wait_s",       "phase_seconds_total{phase=\"data\"}",          COUNTER,   "phase",      "time waiting for batches") \
	X("forward_s",         "phase_seconds_total{phase=\"forward\"}",       COUNTER,   "phase",      "time in the forward pass") \
	X("backward_s",        "phase_seconds_total{phase=\"backward\"}",      COUNTER,   "phase",      "time in the backward pass") \
	X("comm_wait_s",       "phase_seconds_total{phase=\"comm\"}",          COUNTER,   "phase",      "time waiting for other ranks") \
	X("optimizer_s",       "phase_seconds_total{phase=\"optimizer\"}",     COUNTER,   "phase",      "time in the optimizer") \
	X("checkpoint_s",      "phase_seconds_total{phase=\"checkpoint\"}",    COUNTER,   "phase",      "time the step loop gave to checkpoints") \
	X("comm_bytes",        "comm_bytes_total{op=\"gradients\"}",           COUNTER,   "comm",       "bytes summed over ranks") \
	X("rank_lag_s",        "rank_lag_seconds",                             GAUGE,     "comm",       "slowest rank's step time minus the median") \
	X("skipped_steps",     "skipped_steps_total{reason=\"spike\"}",        COUNTER,   "guard",      "steps not applied") \
	X("restarts",          "restarts_total",                               COUNTER,   "progress",   "times the run was resumed") \
	X("checkpoint_bytes",  "checkpoint_bytes",                             GAUGE,     "checkpoint", "size of the last checkpoint") \
	X("checkpoint_time",   "checkpoint_timestamp_seconds",                 GAUGE,     "checkpoint", "Unix time at which the last checkpoint was complete") \
	X("plan_step_s",       "plan_step_seconds",                            GAUGE,     "plan",       "step time predicted before step 0") \
	X("plan_memory_bytes", "plan_memory_bytes",                            GAUGE,     "plan",       "memory planned before step 0")

enum stave_metric_type { STAVE_METRIC_GAUGE, STAVE_METRIC_COUNTER, STAVE_METRIC_HISTOGRAM };
struct stave_metric {
	const char *name;    /* in metrics.jsonl */
	const char *exposed; /* with its labels */
	enum stave_metric_type type;
	const char *board;
	const char *help;
};
/* NULL-terminated by name. */
extern const struct stave_metric stave_train_metrics[];
/* NULL: not in the table. */
const struct stave_metric *stave_metric_find(const char *name);

#endif
