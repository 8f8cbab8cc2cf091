/* Private to serve/: counters and histograms of the service, kept by the event loop's thread, and their Prometheus text. */
#ifndef STAVE_SERVE_METRICS_H
#define STAVE_SERVE_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/fs.h"
#include "infer/infer.h"

/*        field          name                              help */
#define METRIC_HISTOGRAMS(X)                                                                                            \
	X(ttft,          "time_to_first_token_seconds",    "From the arrival of a request to its first token", BUCKETS_FIRST)      \
	X(gap,           "inter_token_latency_seconds",    "Between two tokens of a sequence", BUCKETS_GAP)                 \
	X(duration,      "request_duration_seconds",       "From the arrival of a request to the end of a sequence", BUCKETS_LONG) \
	X(queue,         "request_queue_seconds",          "Waiting for a slot", BUCKETS_FIRST)                             \
	X(prefill,       "request_prefill_seconds",        "From the slot to the first token", BUCKETS_FIRST)               \
	X(decode,        "request_decode_seconds",         "From the first token to the last", BUCKETS_LONG)                \
	X(prompt,        "request_prompt_tokens",          "Tokens of a prompt", BUCKETS_TOKENS)                            \
	X(generation,    "request_generation_tokens",      "Tokens of an answer", BUCKETS_TOKENS)
/*        field          name                              help */
#define METRIC_COUNTERS(X)                                                                                              \
	X(prompt_tokens,     "prompt_tokens_total",        "Prompt tokens of ended sequences")                              \
	X(generation_tokens, "generation_tokens_total",    "Tokens generated")                                              \
	X(disconnects,       "client_disconnects_total",   "Clients that left before their reply was complete")

#define METRIC_BUCKETS_MAX 24
struct histogram {
	uint64_t count[METRIC_BUCKETS_MAX]; /* per bucket, the last one open */
	uint64_t n;
	double sum;
};
enum endpoint { ENDPOINT_COMPLETIONS, ENDPOINT_CHAT, ENDPOINT_MODELS, ENDPOINT_METRICS, ENDPOINT_PROBE, ENDPOINT_OTHER, ENDPOINTS };
enum { STATUSES = 16 };
struct metrics {
#define X(field, name, help, buckets) struct histogram field;
	METRIC_HISTOGRAMS(X)
#undef X
#define X(field, name, help) uint64_t field;
	METRIC_COUNTERS(X)
#undef X
	uint64_t finished[3];                    /* by enum stave_finish */
	uint64_t http[ENDPOINTS][STATUSES];      /* by status, in the order of metrics.c */
	uint64_t rejected_queue, rejected_draining, rejected_auth;
};
void metrics_http(struct metrics *m, enum endpoint e, int status);
#define X(field, name, help, buckets) void metrics_##field(struct metrics *m, double value);
METRIC_HISTOGRAMS(X)
#undef X
/* engine NULL until loaded. */
void metrics_text(const struct metrics *m, const char *model, struct stave_engine *engine, struct stave_buf *out);

#endif
