/* Continuous batching, by discrete events.
 *
 * An engine loops: take what waits while the cache has room, compute one iteration of prompts and decoding sequences, hand out tokens. The simulation does
 * the same with times from serve_step.c. Iterations that only decode are alike but for the growing context, in which their time is all but linear; so a
 * run of them up to the next finish, arrival or full cache is one event, timed at its mean context. The work of a simulation then grows with requests
 * and prompt chunks (times log of the batch), not with tokens.
 *
 * Invariants: every request finishes once; cache in use never exceeds what there is; time never goes back. Same seed, same result. */
#include "plan/serve/serve_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/fleet/heap.h"

enum { PAGE = 16, REQUESTS_MAX = 1000000 };

struct request {
	double arrival, ready, first, last; /* ready: out of the front end */
	int input, output;
	int prompt, done;   /* tokens to compute before decoding (more than the input after a preemption), computed */
	int made;           /* output tokens handed out; of a decoding sequence as of its last join */
	double end;         /* (decoding) iteration at which it finishes */
	int32_t next, older, newer;
	bool decoding;
};
/* A list by `next`: what waits, and the admitted whose prompts are not done. */
struct queue { int32_t head, tail; int n; };

struct sim {
	const struct plan_replica *r;
	const struct plan_load *load;
	struct plan_serve_model model;
	struct request *q;
	struct plan_heap decoding;
	struct queue front, waiting, prompts; /* in the front end, in the engine's queue, admitted and not done */
	double front_free;          /* when the front end has done with all that came */
	int32_t newest;             /* of the admitted */
	int n, issued, finished, warm;
	double now, iteration;
	double capacity_bytes, per_token, per_window, window;
	double held, admitted, promised; /* tokens in the cache, sequences in it, tokens kept free for their outputs */
	double contexts;            /* of the decoding sequences, summed */
	double work_s, batch_s, held_s;
	struct plan_parts parts;
	double warm_s, tokens_out, tokens_all, requests_out, end_s;
	int backlog;                /* waiting when the last request arrived */
	int chunk, max_batch;
	long iterations, preemptions;
	uint64_t steps, random;
};

/* ---- random numbers: splitmix64 (Vigna), so that a seed gives the same run on every machine ---- */

static double uniform(struct sim *s)
{
	uint64_t z = (s->random += 0x9e3779b97f4a7c15u);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return ((double)((z ^ (z >> 31)) >> 11) + 0.5) * 0x1p-53;
}

static double exponential(struct sim *s, double mean) { return -mean * log(uniform(s)); }

/* Log-normal of the given mean and coefficient of variation (lengths of requests are skewed), at least 1. */
static int length(struct sim *s, double mean, double spread)
{
	if (!(spread > 0))
		return (int)fmax(1, round(mean));
	double sigma = sqrt(log1p(spread * spread));
	double normal = sqrt(-2 * log(uniform(s))) * cos(2 * M_PI * uniform(s));
	return (int)fmin(fmax(1, round(mean * exp(sigma * normal - sigma * sigma / 2))), 1 << 24);
}

/* ---- lists ---- */

static void push_back(struct sim *s, struct queue *l, int32_t i)
{
	s->q[i].next = -1;
	if (l->n++)
		s->q[l->tail].next = i;
	else
		l->head = i;
	l->tail = i;
}

static void push_front(struct sim *s, struct queue *l, int32_t i)
{
	s->q[i].next = l->n ? l->head : -1;
	if (!l->n++)
		l->tail = i;
	l->head = i;
}

static int32_t pop_front(struct sim *s, struct queue *l)
{
	int32_t i = l->head;
	l->head = s->q[i].next;
	l->n--;
	return i;
}

/* ---- the cache ---- */

/* Bytes of all sequences of a replica; half a page of each is empty on average. */
static double cache_used(const struct sim *s, double tokens, double sequences)
{
	if (!(sequences > 0))
		return 0;
	double padded = tokens + sequences * PAGE / 2;
	return s->per_token * padded + s->per_window * fmin(padded, sequences * s->window);
}

static bool cache_has_room(const struct sim *s, double tokens)
{
	return cache_used(s, s->held + s->promised + s->decoding.n + tokens, s->admitted + 1) <= s->capacity_bytes;
}

static void enter(struct sim *s, int32_t i)
{
	struct request *q = &s->q[i];
	double left = q->output - q->made;
	s->held += q->prompt;
	s->promised += s->r->fit->engine.reserve * left;
	s->admitted++;
	q->older = s->newest;
	q->newer = -1;
	if (s->newest >= 0)
		s->q[s->newest].newer = i;
	s->newest = i;
}

/* `context` tokens are freed, and what was promised for `left` more. */
static void leave(struct sim *s, int32_t i, double context, double left)
{
	struct request *q = &s->q[i];
	s->held = fmax(0, s->held - context);
	s->promised = fmax(0, s->promised - s->r->fit->engine.reserve * left);
	s->admitted--;
	if (q->newer >= 0)
		s->q[q->newer].older = q->older;
	else
		s->newest = q->older;
	if (q->older >= 0)
		s->q[q->older].newer = q->newer;
}

/* ---- a request's life ---- */

/* The front end (client, HTTP, tokenizer) takes requests one after the other, for varying times. That spreads requests that come at once over several
 * iterations, which is why clients that all started together do not stay together. */
static void issue(struct sim *s, double at)
{
	int32_t i = s->issued++;
	s->q[i].arrival = at;
	s->q[i].ready = s->front_free = fmax(at, s->front_free) + exponential(s, s->r->fit->k[PLAN_SERVE_REQUEST]);
	push_back(s, &s->front, i);
}

static void join_decoding(struct sim *s, int32_t i)
{
	struct request *q = &s->q[i];
	q->decoding = true;
	q->end = s->iteration + (q->output - q->made);
	s->contexts += q->prompt;
	plan_heap_set(&s->decoding, i, q->end);
}

static void finish(struct sim *s, int32_t i)
{
	struct request *q = &s->q[i];
	q->last = s->now;
	leave(s, i, q->input + q->output, 0);
	s->finished++;
	s->requests_out += s->finished > s->warm;
	s->tokens_out += s->finished > s->warm ? q->output : 0;
	s->tokens_all += s->finished > s->warm ? (double)q->input + q->output : 0;
	if (s->finished == s->warm)
		s->warm_s = s->now;
	s->end_s = s->now;
	if (s->load->concurrency > 0 && s->issued < s->n)
		issue(s, s->now);
}

/* The prompt is computed: its first token is out. After a preemption the first one was out long ago, and this is just the next. */
static void end_prompt(struct sim *s, int32_t i)
{
	struct request *q = &s->q[i];
	if (q->made == 0)
		q->first = s->now;
	q->made++;
	s->held++;
	q->prompt++;
	s->promised = fmax(0, s->promised - s->r->fit->engine.reserve);
	if (q->made >= q->output)
		finish(s, i);
	else
		join_decoding(s, i);
}

/* The newest of the admitted gives back its cache and starts again from what it has, as vLLM's recomputation does. */
static void preempt(struct sim *s)
{
	int32_t i = s->newest;
	struct request *q = &s->q[i];
	if (q->decoding) {
		int made = q->output - (int)(q->end - s->iteration);
		double context = q->input + made;
		s->contexts -= context;
		plan_heap_drop(&s->decoding, i);
		leave(s, i, context, q->output - made);
		q->made = made;
		q->prompt = (int)context;
		q->decoding = false;
	} else {
		for (int32_t *p = &s->prompts.head, k = 0, before = -1; k < s->prompts.n; before = *p, p = &s->q[*p].next, k++) {
			if (*p != i)
				continue;
			*p = q->next;
			if (s->prompts.tail == i)
				s->prompts.tail = before;
			s->prompts.n--;
			break;
		}
		leave(s, i, q->prompt, q->output - q->made);
	}
	q->done = 0;
	push_front(s, &s->waiting, i);
	s->preemptions++;
}

/* ---- one iteration's work ---- */

static double add_prompt(struct plan_work *w, struct request *q, double budget)
{
	double n = fmin(budget, q->prompt - q->done);
	w->prefill += n;
	w->pairs += n * (q->done + (n + 1) / 2);
	q->done += (int)n;
	return n;
}

static bool may_admit(const struct sim *s)
{
	if (s->waiting.n == 0 || s->admitted >= s->max_batch)
		return false;
	const struct request *q = &s->q[s->waiting.head];
	return s->admitted == 0 || cache_has_room(s, q->prompt + s->r->fit->engine.reserve * (q->output - q->made));
}

/* Prompts for this iteration: those begun, then those that wait, while tokens are left. A whole prompt waits for an iteration that can hold it. */
static void take_prompts(struct sim *s, struct plan_work *w, double budget)
{
	bool whole = s->r->fit->engine.whole;
	for (int32_t i = s->prompts.n ? s->prompts.head : -1; i >= 0 && budget >= 1; i = s->q[i].next)
		budget -= add_prompt(w, &s->q[i], budget);
	while (budget >= 1 && may_admit(s)) {
		struct request *q = &s->q[s->waiting.head];
		int todo = q->prompt - (int)(s->load->prefix_hit * q->input);
		if (whole && todo > budget && w->prefill > 0 && todo <= s->chunk)
			break;
		int32_t i = pop_front(s, &s->waiting);
		enter(s, i);
		q->done = todo < 1 ? q->prompt - 1 : q->prompt - todo;
		push_back(s, &s->prompts, i);
		budget -= add_prompt(w, q, whole ? fmax(budget, fmin(todo, s->chunk)) : budget);
	}
	for (int32_t i = s->prompts.n ? s->prompts.head : -1; i >= 0 && s->q[i].done >= s->q[i].prompt; i = s->q[i].next)
		w->firsts++;
}

static struct plan_work choose_work(struct sim *s)
{
	struct plan_work w = {0};
	double batch = s->decoding.n;
	bool mixed = s->r->fit->engine.mixed;
	take_prompts(s, &w, mixed ? fmax(1, s->chunk - batch) : s->chunk);
	if (mixed || !(w.prefill > 0))
		w.decode = batch;
	return w;
}

/* Requests of an open load wait outside until their time; those of clients are issued as the last ones finish. */
static double next_arrival(const struct sim *s)
{
	double ready = s->front.n ? s->q[s->front.head].ready : INFINITY;
	bool open = s->load->concurrency == 0 && s->issued < s->n;
	return fmin(ready, open ? s->q[s->issued].arrival : INFINITY);
}

/* How many iterations may pass as one event. */
static double iterations_until_event(struct sim *s, const struct plan_work *w, double one_s)
{
	if (w->prefill > 0)
		return 1;
	double k = s->decoding.key[0] - s->iteration;
	double free = s->capacity_bytes - cache_used(s, s->held, s->admitted);
	k = fmin(k, fmax(1, floor(free / ((s->per_token + s->per_window) * w->decode))));
	double arrival = next_arrival(s);
	return isfinite(arrival) ? fmin(k, fmax(1, ceil((arrival - s->now) / one_s))) : k;
}

static void make_room(struct sim *s)
{
	while (s->admitted > 1 && s->decoding.n && cache_used(s, s->held + s->decoding.n, s->admitted) > s->capacity_bytes)
		preempt(s);
}

static void advance(struct sim *s, struct plan_work *w)
{
	struct plan_parts p;
	double batch = w->decode, mean = batch > 0 ? s->contexts / batch : 0;
	w->context = mean;
	plan_serve_iteration(&s->model, w, &p);
	double k = iterations_until_event(s, w, plan_parts_sum(&p));
	if (k > 1) {
		w->context = mean + (k - 1) / 2;
		plan_serve_iteration(&s->model, w, &p);
	}
	double dt = k * plan_parts_sum(&p);
	s->parts.weights += k * p.weights;
	s->parts.cache += k * p.cache;
	s->parts.flops += k * p.flops;
	s->parts.launch += k * p.launch;
	s->parts.comm += k * p.comm;
	s->now += dt;
	s->work_s += dt;
	s->batch_s += dt * batch;
	s->held_s += dt * cache_used(s, s->held, s->admitted);
	s->iterations += (long)k;
	if (batch > 0) {
		s->iteration += k;
		s->contexts += k * batch;
		s->held += k * batch;
		s->promised = fmax(0, s->promised - s->r->fit->engine.reserve * k * batch);
	}
}

static void hand_out(struct sim *s)
{
	while (s->decoding.n && s->decoding.key[0] <= s->iteration) {
		int32_t i = s->decoding.id[0];
		plan_heap_drop(&s->decoding, i);
		s->contexts = fmax(0, s->contexts - (s->q[i].input + s->q[i].output));
		finish(s, i);
	}
	while (s->prompts.n && s->q[s->prompts.head].done >= s->q[s->prompts.head].prompt)
		end_prompt(s, pop_front(s, &s->prompts));
}

static void arrive(struct sim *s)
{
	while (s->load->concurrency == 0 && s->issued < s->n && s->q[s->issued].arrival <= s->now) {
		issue(s, s->q[s->issued].arrival);
		if (s->issued == s->n)
			s->backlog = s->waiting.n + s->front.n;
	}
	while (s->front.n && s->q[s->front.head].ready <= s->now)
		push_back(s, &s->waiting, pop_front(s, &s->front));
}

static void run(struct sim *s)
{
	for (int i = 0; i < s->load->concurrency && i < s->n; i++)
		issue(s, 0);
	while (s->finished < s->n) {
		arrive(s);
		make_room(s);
		struct plan_work w = choose_work(s);
		if (w.decode + w.prefill > 0) {
			advance(s, &w);
			hand_out(s);
		} else {
			s->now = fmax(s->now, next_arrival(s));
		}
	}
}

/* ---- setting up and summing up ---- */

static int default_requests(const struct plan_load *l)
{
	if (l->concurrency > 0)
		return (int)fmin(fmax(64, 6.0 * l->concurrency), 60000);
	if (l->rate_s > 0)
		return 4000;
	/* offline: enough that filling and draining the batch are a small part */
	return (int)fmin(fmax(1000, 4e6 / (l->input + l->output)), 20000);
}

/* Lengths that the cache cannot hold for one sequence are cut to what it can. */
static void draw_requests(struct sim *s)
{
	double drift = s->load->concurrency > 0 ? hypot(s->load->spread, s->r->fit->engine.drift) : s->load->spread;
	double at = 0, most = (s->capacity_bytes - s->per_window * s->window) / fmax(s->per_token, 1e-9) - PAGE;
	for (int i = 0; i < s->n; i++) {
		struct request *q = &s->q[i];
		*q = (struct request){.next = -1, .older = -1, .newer = -1};
		q->input = (int)fmin(length(s, s->load->input, s->load->spread), fmax(1, most / 2));
		q->output = (int)fmin(length(s, s->load->output, drift), fmax(1, most - q->input));
		q->prompt = q->input;
		if (s->load->rate_s > 0 && s->load->concurrency == 0)
			q->arrival = at += exponential(s, 1 / s->load->rate_s);
	}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double at_share(const double *sorted, int n, double q) { return sorted[(int)fmin(n - 1, floor(q * n))]; }

static void percentiles(double *v, int n, double *p50, double *p90, double *p99, double *mean)
{
	*p50 = *p90 = *p99 = *mean = 0;
	if (n == 0)
		return;
	qsort(v, (size_t)n, sizeof *v, by_value);
	for (int i = 0; i < n; i++)
		*mean += v[i] / n;
	*p50 = at_share(v, n, 0.5);
	*p90 = at_share(v, n, 0.9);
	*p99 = at_share(v, n, 0.99);
}

/* Latencies of the requests after the warm-up, in the order they were issued. */
static void latencies(const struct sim *s, double *v, struct plan_service *out)
{
	int n = 0, m = 0;
	for (int i = s->warm; i < s->n; i++)
		v[n++] = s->q[i].first - s->q[i].arrival;
	percentiles(v, n, &out->ttft_p50_s, &out->ttft_p90_s, &out->ttft_p99_s, &out->ttft_mean_s);
	for (int i = s->warm; i < s->n; i++)
		if (s->q[i].output > 1)
			v[m++] = (s->q[i].last - s->q[i].first) / (s->q[i].output - 1);
	percentiles(v, m, &out->tpot_p50_s, &out->tpot_p90_s, &out->tpot_p99_s, &out->tpot_mean_s);
}

static void sum_up(const struct sim *s, struct plan_service *out)
{
	const struct plan_parts *p = &s->parts;
	double all = plan_parts_sum(p), span = s->end_s - s->warm_s;
	out->output_tokens_s = span > 0 ? s->tokens_out / span : 0;
	out->total_tokens_s = span > 0 ? s->tokens_all / span : 0;
	out->requests_s = span > 0 ? s->requests_out / span : 0;
	out->batch_mean = s->work_s > 0 ? s->batch_s / s->work_s : 0;
	out->kv_used_share = s->work_s > 0 ? s->held_s / s->work_s / s->capacity_bytes : 0;
	out->busy_share = s->now > 0 ? fmin(1, s->work_s / s->now) : 0;
	out->iterations = s->iterations;
	out->preemptions = s->preemptions;
	/* a stable queue is short when the last request arrives; a growing one holds a share of all that came */
	out->saturated = s->load->rate_s > 0 && s->load->concurrency == 0 && s->backlog > 0.05 * s->n;
	out->weights_s = all > 0 ? p->weights / all : 0;
	out->kv_s = all > 0 ? p->cache / all : 0;
	out->flops_s = all > 0 ? p->flops / all : 0;
	out->launch_s = all > 0 ? p->launch / all : 0;
	out->comm_s = all > 0 ? p->comm / all : 0;
	const struct plan_serve_fit *f = s->r->fit;
	out->error_ttft_p50 = f->ttft.p50;
	out->error_ttft_p90 = f->ttft.p90;
	out->error_tpot_p50 = f->tpot.p50;
	out->error_tpot_p90 = f->tpot.p90;
}

static int check_load(const struct plan_replica *r, const struct plan_load *l, const struct plan_serve_memory *m, struct stave_err *err)
{
	if (!(l->input >= 1) || !(l->output >= 1) || l->input + l->output > 1 << 24)
		return stave_err_set(err, STAVE_ECONFIG, "a request of %g tokens in and %g out: expected at least 1 of each and at most %d together", l->input, l->output, 1 << 24);
	if (!(l->rate_s >= 0 && l->rate_s < 1e9) || l->concurrency < 0 || l->requests < 0 || l->requests > REQUESTS_MAX || !(l->spread >= 0 && l->spread <= 10) ||
	    !(l->prefix_hit >= 0 && l->prefix_hit <= 1))
		return stave_err_set(err, STAVE_ECONFIG, "a load of %g requests/s, %d clients, %d requests (at most %d), spread %g (0 to 10), prefix hits %g (0 to 1)", l->rate_s,
		                     l->concurrency, l->requests, REQUESTS_MAX, l->spread, l->prefix_hit);
	double room = r->accelerator->memory_bytes * (r->memory_share > 0 ? r->memory_share : r->fit->engine.memory_share);
	if (!(m->kv_bytes > 0))
		return stave_err_set(err, STAVE_ENOFIT, "memory: weights take %.1f GB and activations %.1f GB of the %.1f GB a device may use at tp %d, pp %d, ep %d; "
		                     "use more devices or narrower weights",
		                     m->weights_bytes / 1e9, m->activation_bytes / 1e9, room / 1e9, r->tp, r->pp, r->ep);
	double need = plan_serve_cache_bytes(r, l->input + l->output + PAGE), have = plan_serve_cache_bytes(r, 8192) / 8192 * m->kv_tokens;
	if (need > have)
		return stave_err_set(err, STAVE_ENOFIT, "memory: one request of %.0f tokens needs a cache of %.2f GB and %.2f GB are left beside the weights; "
		                     "use more devices, a narrower cache or shorter requests",
		                     l->input + l->output, need / 1e9, have / 1e9);
	return 0;
}

static int set_up(struct sim *s, struct stave_err *err)
{
	const struct plan_load *l = s->load;
	s->n = l->requests ? l->requests : default_requests(l);
	s->warm = l->from_start ? 0 : l->concurrency > 0 ? (l->concurrency < s->n / 2 ? l->concurrency : s->n / 2) : l->rate_s > 0 ? s->n / 10 : 0;
	s->random = l->seed;
	s->newest = -1;
	s->chunk = s->r->chunk > 0 ? s->r->chunk : s->r->fit->engine.chunk;
	s->max_batch = s->r->max_batch > 0 ? s->r->max_batch : s->r->fit->engine.max_batch;
	s->q = malloc((size_t)s->n * sizeof *s->q);
	s->decoding.key = malloc((size_t)s->n * sizeof *s->decoding.key);
	s->decoding.id = malloc((size_t)s->n * sizeof *s->decoding.id);
	s->decoding.at = malloc((size_t)s->n * sizeof *s->decoding.at);
	s->decoding.steps = &s->steps;
	if (!s->q || !s->decoding.key || !s->decoding.id || !s->decoding.at)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to simulate %d requests", s->n);
	memset(s->decoding.at, 0xff, (size_t)s->n * sizeof *s->decoding.at);
	plan_serve_model_init(&s->model, s->r);
	draw_requests(s);
	return 0;
}

int plan_serve_simulate(const struct plan_replica *r, const struct plan_load *load, struct plan_service *out, struct stave_err *err)
{
	struct plan_serve_memory memory;
	plan_serve_memory(r, &memory);
	int rc = check_load(r, load, &memory, err);
	if (rc < 0)
		return rc;
	double token = plan_serve_cache_bytes(r, 1), open = (plan_serve_cache_bytes(r, 2e9) - plan_serve_cache_bytes(r, 1e9)) / 1e9;
	struct sim s = {.r = r, .load = load, .per_token = open, .per_window = token - open, .window = r->shape.window,
	                .capacity_bytes = plan_serve_cache_bytes(r, 8192) / 8192 * memory.kv_tokens};
	if ((rc = set_up(&s, err)) == 0) {
		run(&s);
		*out = (struct plan_service){0};
		latencies(&s, s.decoding.key, out);
		sum_up(&s, out);
	}
	free(s.q);
	free(s.decoding.key);
	free(s.decoding.id);
	free(s.decoding.at);
	return rc;
}
