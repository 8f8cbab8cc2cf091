/* Metrics by two tables (metrics.h): the fields, their names and their help are one line each. Names carry the prefix stave_,
 * base units and no label whose values a client can choose. */
#include "serve/metrics.h"

#define BUCKETS_FIRST .001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160
#define BUCKETS_GAP .001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5
#define BUCKETS_LONG .3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960
#define BUCKETS_TOKENS 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000

static const int statuses[STATUSES] = {200, 204, 400, 401, 404, 405, 408, 413, 429, 431, 500, 501, 503, 505};
static const char *const endpoints[ENDPOINTS] = {"/v1/completions", "/v1/chat/completions", "/v1/models", "/metrics", "probe", "other"};
static const char *const finishes[] = {"stop", "length", "cancelled"};

static void observe(struct histogram *h, const double *bounds, int n, double v)
{
	int i = 0;
	while (i < n && v > bounds[i])
		i++;
	h->count[i]++;
	h->n++;
	h->sum += v;
}

#define X(field, name, help, ...)                                          \
	static const double bounds_##field[] = {__VA_ARGS__};              \
	_Static_assert(sizeof bounds_##field / sizeof(double) < METRIC_BUCKETS_MAX, "too many buckets"); \
	void metrics_##field(struct metrics *m, double value)              \
	{                                                                  \
		observe(&m->field, bounds_##field, sizeof bounds_##field / sizeof(double), value); \
	}
METRIC_HISTOGRAMS(X)
#undef X

void metrics_http(struct metrics *m, enum endpoint e, int status)
{
	for (int i = 0; i < STATUSES; i++)
		if (statuses[i] == status)
			m->http[e][i]++;
}

static void head(struct stave_buf *out, const char *name, const char *type, const char *help)
{
	stave_buf_printf(out, "# HELP stave_%s %s\n# TYPE stave_%s %s\n", name, help, name, type);
}

static void histogram_text(struct stave_buf *out, const char *name, const char *help, const struct histogram *h, const double *bounds, int n)
{
	uint64_t sum = 0;
	head(out, name, "histogram", help);
	for (int i = 0; i < n; i++) {
		sum += h->count[i];
		stave_buf_printf(out, "stave_%s_bucket{le=\"%g\"} %llu\n", name, bounds[i], (unsigned long long)sum);
	}
	stave_buf_printf(out, "stave_%s_bucket{le=\"+Inf\"} %llu\nstave_%s_sum %.9g\nstave_%s_count %llu\n", name, (unsigned long long)h->n, name, h->sum, name,
	                 (unsigned long long)h->n);
}

static void gauge(struct stave_buf *out, const char *name, const char *help, double v)
{
	head(out, name, "gauge", help);
	stave_buf_printf(out, "stave_%s %.9g\n", name, v);
}

static void engine_text(struct stave_buf *out, const char *model, struct stave_engine *engine)
{
	struct stave_engine_stats s = stave_engine_stats(engine);
	const struct stave_engine_info *info = stave_engine_info(engine);
	gauge(out, "requests_running", "Sequences being computed", s.running);
	gauge(out, "requests_waiting", "Sequences waiting for a slot", s.waiting);
	gauge(out, "kv_cache_usage_ratio", "Share of the cache's pages held by running sequences", (double)s.pages_used / (double)s.pages);
	head(out, "cache_config_info", "gauge", "The cache's pages");
	stave_buf_printf(out, "stave_cache_config_info{block_size=\"%d\",num_blocks=\"%d\",cache_dtype=\"%s\"} 1\n", STAVE_PAGE, info->pages, info->cache);
	head(out, "steps_total", "counter", "Forward passes");
	stave_buf_printf(out, "stave_steps_total %llu\n", (unsigned long long)s.steps);
	head(out, "step_tokens_total", "counter", "Tokens, of prompts and answers, that went through them");
	stave_buf_printf(out, "stave_step_tokens_total %llu\n", (unsigned long long)s.step_tokens);
	head(out, "prefix_cache_queries_total", "counter", "Prompt tokens looked up in the cache");
	stave_buf_printf(out, "stave_prefix_cache_queries_total %llu\n", (unsigned long long)s.prefix_tokens);
	head(out, "prefix_cache_hits_total", "counter", "Prompt tokens found there");
	stave_buf_printf(out, "stave_prefix_cache_hits_total %llu\n", (unsigned long long)s.prefix_hits);
	head(out, "preemptions_total", "counter", "Times a sequence had to give its pages up");
	stave_buf_printf(out, "stave_preemptions_total %llu\n", (unsigned long long)s.preemptions);
	head(out, "proposed_tokens_total", "counter", "Tokens proposed by speculation");
	stave_buf_printf(out, "stave_proposed_tokens_total %llu\n", (unsigned long long)s.proposed);
	head(out, "accepted_tokens_total", "counter", "Proposed tokens that were right");
	stave_buf_printf(out, "stave_accepted_tokens_total %llu\n", (unsigned long long)s.accepted);
	head(out, "model_info", "gauge", "The model being served");
	stave_buf_printf(out, "stave_model_info{model=\"");
	for (const char *p = model; *p; p++)
		stave_buf_printf(out, *p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
	stave_buf_printf(out, "\",weights_xxh64=\"%s\",dtype=\"%s\"} 1\n", info->model_hash, info->type);
}

void metrics_text(const struct metrics *m, const char *model, struct stave_engine *engine, struct stave_buf *out)
{
	if (engine)
		engine_text(out, model, engine);
#define X(field, name, help) head(out, name, "counter", help); stave_buf_printf(out, "stave_" name " %llu\n", (unsigned long long)m->field);
	METRIC_COUNTERS(X)
#undef X
	head(out, "sequences_total", "counter", "Sequences ended, by why");
	for (int i = 0; i < 3; i++)
		stave_buf_printf(out, "stave_sequences_total{finish_reason=\"%s\"} %llu\n", finishes[i], (unsigned long long)m->finished[i]);
	head(out, "rejections_total", "counter", "Requests refused before any work, by why");
	stave_buf_printf(out, "stave_rejections_total{reason=\"queue_full\"} %llu\nstave_rejections_total{reason=\"not_ready\"} %llu\n"
	                      "stave_rejections_total{reason=\"unauthorized\"} %llu\n",
	                 (unsigned long long)m->rejected_queue, (unsigned long long)m->rejected_draining, (unsigned long long)m->rejected_auth);
	head(out, "requests_total", "counter", "HTTP requests answered");
	for (int e = 0; e < ENDPOINTS; e++)
		for (int i = 0; i < STATUSES; i++)
			if (m->http[e][i])
				stave_buf_printf(out, "stave_requests_total{endpoint=\"%s\",code=\"%d\"} %llu\n", endpoints[e], statuses[i],
				                 (unsigned long long)m->http[e][i]);
#define X(field, name, help, ...) histogram_text(out, name, help, &m->field, bounds_##field, sizeof bounds_##field / sizeof(double));
	METRIC_HISTOGRAMS(X)
#undef X
}
