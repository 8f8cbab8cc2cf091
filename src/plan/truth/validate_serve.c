/* Measured serving runs, predicted.
 *
 * Closed-loop rows start their clients all at once and are simulated so, for ten requests of each (the custom of the load generators), the first crowd
 * counted: latencies of such tables are means over the whole run. Offline rows hand in all requests at once, to an engine set for throughput (large
 * chunks). Rows of one stream (llama-bench) are one prompt, or one decoding sequence at its mean context. */
#include <math.h>
#include <stddef.h>

#include "plan/serve/serve_parts.h"
#include "plan/truth/truth_words.h"

enum { WAVES = 10, OFFLINE_CHUNK = 8192 };

static void read_measured(const struct plan_truth *t, struct plan_serve_case *c)
{
	const struct {
		const char *key;
		double factor;
		enum plan_serve_metric metric;
	} keys[] = {{"ttft_ms", 1e-3, PLAN_SERVE_TTFT}, {"tpot_ms", 1e-3, PLAN_SERVE_TPOT},
	            {"output_tokens_per_s_per_gpu", t->gpus ? t->gpus : 1, PLAN_SERVE_THROUGHPUT}, {"output_tokens_per_s", 1, PLAN_SERVE_THROUGHPUT},
	            {"prefill_tokens_per_s", 1, PLAN_SERVE_PREFILL}, {"decode_tokens_per_s", 1, PLAN_SERVE_DECODE}};
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		double x = plan_truth_measured(t, keys[i].key);
		if (x > 0 && x < 1e12)
			c->measured[keys[i].metric] = x * keys[i].factor;
	}
}

static void read_replica(const struct plan_truth *t, struct plan_serve_case *c)
{
	struct plan_replica *r = &c->replica;
	*r = (struct plan_replica){.shape = t->shape, .weights = t->precision, .kv = PLAN_BF16, .tp = t->tp, .pp = t->pp, .ep = t->ep, .latent = t->latent,
	                           .accelerator = &t->variant};
	int gpus = t->gpus ? t->gpus : 1;
	/* a row that says no layout runs one replica on all its devices */
	if (r->tp * r->pp == 1 && r->ep == 1 && t->dp == 0 && gpus > 1)
		r->tp = gpus;
	c->replicas = fmax(1, (double)gpus / plan_replica_devices(r));
}

const char *plan_serve_case_of(const struct plan_truths *t, int row, struct plan_serve_case *out)
{
	const struct plan_truth *x = &t->row[row];
	*out = (struct plan_serve_case){.row = row};
	read_measured(x, out);
	if (!x->has_shape)
		return "the model's sizes are not stated";
	if (!x->accelerator)
		return "unknown accelerator";
	read_replica(x, out);
	bool single = out->measured[PLAN_SERVE_PREFILL] > 0 || out->measured[PLAN_SERVE_DECODE] > 0;
	if (!x->osl || (!x->isl && !single))
		return "lengths of requests are not stated";
	if (x->accelerator->cpu && x->threads)
		return "a CPU with a limited number of threads";
	int clients = x->concurrency ? (int)ceil(x->concurrency / out->replicas) : 0;
	out->load = (struct plan_load){.concurrency = clients, .input = x->isl, .output = x->osl, .seed = 1};
	out->load.requests = clients > 0 && clients <= 1 << 14 ? WAVES * clients : 0;
	out->load.from_start = true;
	out->replica.chunk = clients || single ? 0 : OFFLINE_CHUNK;
	return NULL;
}

/* One stream: the prompt alone, then a sequence at the mean context of its output. llama-bench times the two apart, so its output starts empty. */
static void predict_stream(const struct plan_serve_case *c, const struct plan_replica *r, double *predicted)
{
	double past = plan_words_have(r->fit->engine.name, "llama.cpp") ? 0 : c->load.input;
	predicted[PLAN_SERVE_PREFILL] = c->load.input > 0 ? c->load.input / plan_iteration_s(r, 0, 0, (int)c->load.input, 0) : 0;
	predicted[PLAN_SERVE_DECODE] = 1 / plan_iteration_s(r, 1, past + c->load.output / 2, 0, 0);
}

int plan_serve_case_predict(const struct plan_serve_case *c, const struct plan_serve_fit *fit, double predicted[PLAN_SERVE_METRICS], struct stave_err *err)
{
	struct plan_replica r = c->replica;
	struct plan_service s;
	r.fit = fit;
	r.kv = plan_serve_cache_precision(fit, r.weights);
	for (int i = 0; i < PLAN_SERVE_METRICS; i++)
		predicted[i] = 0;
	if (c->measured[PLAN_SERVE_PREFILL] > 0 || c->measured[PLAN_SERVE_DECODE] > 0) {
		predict_stream(c, &r, predicted);
		return 0;
	}
	int rc = plan_serve_simulate(&r, &c->load, &s, err);
	if (rc < 0)
		return rc;
	predicted[PLAN_SERVE_TTFT] = s.ttft_mean_s;
	predicted[PLAN_SERVE_TPOT] = s.tpot_mean_s;
	predicted[PLAN_SERVE_THROUGHPUT] = s.output_tokens_s * c->replicas;
	return 0;
}

static const char *const metric_names[PLAN_SERVE_METRICS] = {"ttft", "tpot", "throughput", "prefill_rate", "decode_rate"};

static int add(struct plan_predictions *l, const struct plan_serve_case *c, const double *predicted, const char *skipped, struct stave_err *err)
{
	int rc = 0;
	for (int i = 0; rc == 0 && i < PLAN_SERVE_METRICS; i++) {
		struct plan_prediction p = {.row = c->row, .metric = metric_names[i], .measured = c->measured[i], .predicted = predicted ? predicted[i] : 0, .skipped = skipped};
		if (c->measured[i] > 0)
			rc = plan_predictions_add(l, &p, err);
	}
	return rc;
}

int plan_predict_serve(const struct plan_truths *t, const struct plan_catalog *c, struct plan_predictions *out, struct stave_err *err)
{
	int rc = 0;
	for (int i = 0; rc == 0 && i < t->n; i++) {
		struct plan_serve_case x;
		struct plan_serve_fit *fit = NULL;
		double predicted[PLAN_SERVE_METRICS];
		struct stave_err why;
		if (!plan_words_have(t->row[i].kind, "infer"))
			continue;
		const char *skipped = plan_serve_case_of(t, i, &x);
		if (!skipped) {
			if ((rc = plan_serve_fit_open(&fit, c, x.replica.accelerator, t->row[i].stack, err)) < 0)
				return rc;
			if (plan_serve_case_predict(&x, fit, predicted, &why) < 0)
				skipped = why.code == STAVE_ENOFIT ? "the model does not fit the devices' memory" : "a load outside what can be simulated";
			plan_serve_fit_free(fit);
		}
		rc = add(out, &x, skipped ? NULL : predicted, skipped, err);
	}
	return rc;
}
