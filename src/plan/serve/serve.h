/* Private to plan/: serving. One engine iteration's time (serve_step.c), continuous batching by discrete events per iteration (serve_events.c), and how
 * many replicas a load needs (serve_fleet.c). TTFT includes queueing; TPOT is (last - first token) / (tokens - 1). */
#ifndef STAVE_PLAN_SERVE_H
#define STAVE_PLAN_SERVE_H

#include "plan/catalog/hardware.h"
#include "plan/truth/truth.h"

struct plan_serve_fit; /* constants of an (accelerator, engine), from catalog/fits-serve.yaml */
int plan_serve_fit_open(struct plan_serve_fit **out, const struct plan_catalog *c, const struct plan_accelerator *a, const char *engine, struct stave_err *err);
void plan_serve_fit_free(struct plan_serve_fit *f);

struct plan_replica {
	struct stave_shape shape;
	enum plan_precision weights, kv;  /* kv: of a cached value; products run in the weights' precision where the device has it */
	int tp, pp, ep;                   /* devices: pp max(tp, ep). ep > tp: attention runs data-parallel on ep / tp groups ("DEP"); else experts are spread in the tp group */
	int latent;                       /* values cached per token and layer by latent attention (DeepSeek: 576); 0: keys and values of the shape */
	double nic_bytes_s;               /* of one device, to other replicas; 0: its host link */
	const struct plan_accelerator *accelerator;
	const struct plan_serve_fit *fit;
	double memory_share;              /* of device memory the engine may use; 0: engine's default */
	int max_batch;                    /* sequences decoding together; 0: engine's default */
	int chunk;                        /* tokens of prefill that an iteration takes at most; 0: engine's default */
};
struct plan_serve_memory {
	double weights_bytes, activation_bytes, kv_bytes_per_token, kv_bytes; /* per device, but kv_bytes_per_token of the whole replica */
	double kv_tokens;                 /* that fit; < 1: the model does not fit */
};
void plan_serve_memory(const struct plan_replica *r, struct plan_serve_memory *out);
/* Seconds of one iteration: `decode` sequences of mean context `context` each gain a token, and `prefill` tokens after `past` are computed. */
double plan_iteration_s(const struct plan_replica *r, int decode, double context, int prefill, double past);
/* Seconds of moving the KV cache of `tokens` between prefill and decode replicas, all devices of the replica sending at their NICs' rate. */
double plan_serve_transfer_s(const struct plan_replica *r, double tokens);
int plan_replica_devices(const struct plan_replica *r);

struct plan_load {
	double rate_s;                    /* requests per second (Poisson, seeded), or */
	int concurrency;                  /* closed loop of so many clients; or both 0: offline, all at once */
	double input, output;             /* mean tokens */
	double spread;                    /* coefficient of variation of both lengths, 0: fixed */
	double prefix_hit;                /* share of the input found in the cache */
	int requests;                     /* simulated; 0: enough for the percentiles */
	bool from_start;                  /* the first requests count too, as in a short benchmark; else they are left out as warming up */
	unsigned long seed;
};
struct plan_service {
	double ttft_p50_s, ttft_p90_s, ttft_p99_s, ttft_mean_s;
	double tpot_p50_s, tpot_p90_s, tpot_p99_s, tpot_mean_s;
	double output_tokens_s, total_tokens_s, requests_s;
	double batch_mean, kv_used_share, busy_share;   /* busy: iterations' time over all time */
	long iterations, preemptions;
	bool saturated;                   /* the queue grew without end */
	double weights_s, kv_s, flops_s, launch_s, comm_s; /* where iterations' time went, sums to 1 */
	double error_ttft_p50, error_ttft_p90, error_tpot_p50, error_tpot_p90; /* relative */
};
/* Discrete events, one per engine iteration. STAVE_ENOFIT when the weights or one request do not fit. */
int plan_serve_simulate(const struct plan_replica *r, const struct plan_load *load, struct plan_service *out, struct stave_err *err);

struct plan_slo { double ttft_p99_s, tpot_p99_s; }; /* 0: no limit */
struct plan_serve_choice {
	struct plan_replica replica;      /* tp, pp, max_batch, chunk chosen */
	double capacity_s;                /* requests/s of one replica within the limits */
	struct plan_service at_capacity;
	int replicas_peak;                /* for the load curve's peak, with spares */
	double replicas_mean;             /* over the day, with autoscaling and its lag */
	bool split;                       /* prefill and decode on replicas of their own is better */
	int prefill_replicas, decode_replicas;
};
/* The cheapest way (devices at peak) to serve load[24] requests/s by the hour within the limits. tp 0 in `r`: choose. load_s: time to start a replica. */
int plan_serve_choose(const struct plan_replica *r, const struct plan_load *load, const double hourly[24], const struct plan_slo *slo, double load_s,
                      struct plan_serve_choice *out, struct stave_err *err);

#endif
