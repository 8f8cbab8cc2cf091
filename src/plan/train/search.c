/* The search over layouts: every valid one, memory first, since it is cheaper to know and rules out most.
 *
 * Degrees are all divisors of the devices that the model allows: tensor parallelism inside the scale-up domain, pipelines of any length whose fullest
 * stage holds at most a quarter more layers than the mean (uneven ones are legal, and pay for it in the step), virtual stages and experts that divide,
 * context parallelism in powers of two while a rank keeps 1,024 tokens, ZeRO 0-3, three levels of recompute, and micro-batches that divide. Sequence
 * parallelism goes with tensor parallelism: it costs nothing and saves memory; so does overlap of its communication where the software has it. Order of enumeration is fixed, so the same job gives the same answer. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "plan/train/train.h"

#define UNEVEN 1.25      /* layers of the fullest stage over the mean */
#define LEAST_TOKENS 1024 /* of a sequence on one context-parallel rank */
#define BUSY_POWER 0.85  /* of rated power, a device at work; waiting ones idle */

struct hunt {
	const struct plan_train_job *j;
	const struct plan_machine *m;
	struct plan_layout fixed;
	double limit;
	struct plan_search *s;
	int room;
	bool memory_only, failed; /* only the least memory is wanted; no memory of our own left */
};

/* ---- the front ---- */

static double energy_j(const struct plan_machine *m, const struct plan_step *y)
{
	const struct plan_accelerator *a = m->accelerator;
	double busy = (y->product_s + y->attention_s + y->element_s + y->recompute_s + y->optimizer_s) / y->total_s;
	return y->total_s * m->gpus * (a->idle_w + busy * fmax(0, BUSY_POWER * a->tdp_w - a->idle_w));
}

/* Keeps `front` sorted by time, with memory falling: a candidate that something is at least as good as is not let in, and those it beats leave. */
static void offer(struct hunt *h, const struct plan_candidate *c)
{
	struct plan_search *s = h->s;
	int at = 0;
	while (at < s->fronts && s->front[at].step_s < c->step_s)
		at++;
	bool as_fast = at < s->fronts && s->front[at].step_s == c->step_s;
	if ((at > 0 && s->front[at - 1].memory_bytes <= c->memory_bytes) || (as_fast && s->front[at].memory_bytes <= c->memory_bytes))
		return;
	int beaten = at;
	while (beaten < s->fronts && s->front[beaten].memory_bytes >= c->memory_bytes)
		beaten++;
	if (beaten == at && s->fronts == h->room) {
		int room = h->room ? 2 * h->room : 64;
		struct plan_candidate *more = realloc(s->front, (size_t)room * sizeof *more);
		if (!more) {
			h->failed = true;
			return;
		}
		s->front = more;
		h->room = room;
	}
	memmove(&s->front[at + 1], &s->front[beaten], (size_t)(s->fronts - beaten) * sizeof *s->front);
	s->fronts += 1 - (beaten - at);
	s->front[at] = *c;
}

static void consider(struct hunt *h, const struct plan_layout *l)
{
	struct plan_memory y;
	struct plan_search *s = h->s;
	s->evaluated++;
	plan_memory_evaluate(h->j, h->m, l, &y);
	if (y.total < s->least_memory_bytes) {
		s->least_memory_bytes = y.total;
		s->least_memory = *l;
	}
	if (h->memory_only || y.total > h->limit)
		return;
	struct plan_step t;
	plan_step_evaluate(h->j, h->m, l, &t);
	s->feasible++;
	struct plan_candidate c = {.layout = *l, .step_s = t.total_s, .memory_bytes = y.total, .energy_j = energy_j(h->m, &t)};
	if (c.step_s < s->best.step_s)
		s->best = c;
	offer(h, &c);
}

/* ---- the loops, from the outside in ---- */

static void each_zero(struct hunt *h, struct plan_layout *l)
{
	int zero = h->fixed.zero, re = (int)h->fixed.recompute, most = l->dp * l->cp > 1 ? 3 : 0;
	for (l->zero = zero < 0 ? 0 : zero; l->zero <= (zero < 0 ? most : zero); l->zero++) {
		for (int r = re < 0 ? PLAN_KEEP : re; r <= (re < 0 ? PLAN_FULL : re); r++) {
			l->recompute = (enum plan_recompute)r;
			consider(h, l);
		}
	}
	l->zero = 0; /* a stage past the last must not make the next layout invalid */
}

static void each_stage(struct hunt *h, struct plan_layout *l)
{
	int L = h->j->shape.L, most = l->pp > 1 ? L + PLAN_END_STAGES : L, fixed = h->fixed.vp;
	for (l->vp = fixed ? fixed : 1; l->vp <= (fixed ? fixed : most / l->pp); l->vp++) {
		int chunks = l->pp * l->vp;
		if ((l->vp == 1 || fixed || L % chunks == 0 || most % chunks == 0) && !plan_layout_invalid(h->j, h->m, l))
			each_zero(h, l);
	}
}

static void each_micro(struct hunt *h, struct plan_layout *l)
{
	int all = h->j->batch / l->dp, fixed = h->fixed.micro;
	for (l->micro = fixed ? fixed : 1; l->micro <= (fixed ? fixed : all) && l->micro <= 4096; l->micro++) {
		if (!fixed && all % l->micro)
			continue;
		l->vp = 1;
		each_stage(h, l);
	}
}

static void each_expert(struct hunt *h, struct plan_layout *l)
{
	int E = h->j->shape.experts, fixed = h->fixed.ep, most = E ? (E < l->dp ? E : l->dp) : 1;
	for (l->ep = fixed ? fixed : 1; l->ep <= (fixed ? fixed : most); l->ep++)
		if (l->dp % l->ep == 0)
			each_micro(h, l);
}

static void each_pipeline(struct hunt *h, struct plan_layout *l, int rest)
{
	int L = h->j->shape.L, fixed = h->fixed.pp;
	for (l->pp = fixed ? fixed : 1; l->pp <= (fixed ? fixed : L) && l->pp <= rest; l->pp++) {
		if (rest % l->pp || (!fixed && ceil((double)L / l->pp) * l->pp > UNEVEN * L))
			continue;
		l->dp = rest / l->pp;
		if ((!h->fixed.dp || h->fixed.dp == l->dp) && l->dp <= h->j->batch && h->j->batch % l->dp == 0)
			each_expert(h, l);
	}
}

static void each_context(struct hunt *h, struct plan_layout *l, int rest)
{
	int fixed = h->fixed.cp;
	for (l->cp = fixed ? fixed : 1; l->cp <= (fixed ? fixed : rest); l->cp *= 2) {
		if (rest % l->cp == 0 && (fixed || l->cp == 1 || (h->j->seq % l->cp == 0 && h->j->seq / l->cp >= LEAST_TOKENS)))
			each_pipeline(h, l, rest / l->cp);
		if (l->cp > (1 << 20))
			break;
	}
}

static void hunt(struct hunt *h)
{
	int domain = plan_machine_domain(h->m), fixed = h->fixed.tp, n = h->m->gpus;
	struct plan_layout l = {0};
	for (l.tp = fixed ? fixed : 1; l.tp <= (fixed ? fixed : domain) && l.tp <= n; l.tp++) {
		if (n % l.tp || (!fixed && (h->j->shape.H % l.tp || h->j->shape.I % l.tp)))
			continue;
		l.seq_parallel = l.tp > 1;
		l.async_tp = l.tp > 1 && (h->fixed.async_tp || h->m->fit->async_tp > 0);
		each_context(h, &l, n / l.tp);
	}
}

/* ---- when nothing fits ---- */

static const char *largest(const struct plan_memory *y)
{
	const struct {
		const char *what;
		double bytes;
	} parts[] = {{"weights", y->weights}, {"gradients", y->gradients}, {"optimizer state", y->optimizer}, {"activations", y->activations}, {"logits", y->logits},
	             {"gathered weights", y->buffers}};
	size_t best = 0;
	for (size_t i = 1; i < sizeof parts / sizeof *parts; i++)
		best = parts[i].bytes > parts[best].bytes ? i : best;
	return parts[best].what;
}

/* How many devices (doubling) would do; 0: no more than 256 times as many. */
static int devices_that_fit(const struct hunt *h)
{
	for (int times = 2; times <= 256 && (double)h->m->gpus * times < 1e7; times *= 2) {
		struct plan_machine m = *h->m;
		struct plan_search s = {.least_memory_bytes = INFINITY};
		struct hunt more = {.j = h->j, .m = &m, .fixed = h->fixed, .limit = h->limit, .s = &s, .memory_only = true};
		m.gpus = h->m->gpus * times;
		m.gpus_per_node = m.gpus_per_node < h->m->gpus ? m.gpus_per_node : m.gpus < 8 ? m.gpus : 8;
		more.fixed.dp = 0;
		hunt(&more);
		if (s.least_memory_bytes <= h->limit)
			return m.gpus;
	}
	return 0;
}

#define GIB (1024.0 * 1024 * 1024)

static int no_layout(const struct hunt *h, struct stave_err *err)
{
	const struct plan_search *s = h->s;
	const struct plan_layout *l = &s->least_memory;
	if (!(s->least_memory_bytes < INFINITY)) {
		struct plan_layout plain = {.tp = 1, .pp = 1, .dp = h->m->gpus, .cp = 1, .ep = 1, .vp = 1, .micro = 1};
		const char *why = plan_layout_invalid(h->j, h->m, &plain);
		return stave_err_set(err, STAVE_ENOFIT,
		                     "no layout of %d devices divides this job evenly: %s; take a batch (now %d sequences) that is a multiple of a divisor of the devices, or another number of devices",
		                     h->m->gpus, why ? why : "the layout that was asked for breaks a rule", h->j->batch);
	}
	struct plan_memory y;
	plan_memory_evaluate(h->j, h->m, l, &y);
	int devices = devices_that_fit(h);
	char more[96] = "no number of devices up to 256 times as many would do";
	if (devices)
		snprintf(more, sizeof more, "%d devices would do", devices);
	return stave_err_set(err, STAVE_ENOFIT,
	                     "memory binds: the leanest layout (tensor %d, pipeline %d, data %d, context %d, expert %d, ZeRO %d, recompute %s, micro-batch %d) needs %.1f GiB of each device "
	                     "and %.1f GiB may be used, most of it %s; devices with %.0f GiB more would do, or %s",
	                     l->tp, l->pp, l->dp, l->cp, l->ep, l->zero, l->recompute == PLAN_FULL ? "full" : l->recompute == PLAN_SELECTIVE ? "selective" : "none", l->micro,
	                     s->least_memory_bytes / GIB, h->limit / GIB, largest(&y), ceil((s->least_memory_bytes - h->limit) / GIB), more);
}

int plan_search_layouts(const struct plan_train_job *j, const struct plan_machine *m, const struct plan_layout *fixed, double memory_limit, struct plan_search *out,
                        struct stave_err *err)
{
	double began = stave_now_s();
	struct plan_search s = {.best.step_s = INFINITY, .least_memory_bytes = INFINITY};
	struct hunt h = {.j = j, .m = m, .limit = memory_limit, .s = &s};
	h.fixed = fixed ? *fixed : (struct plan_layout){.zero = -1, .recompute = (enum plan_recompute)-1};
	hunt(&h);
	s.seconds = stave_now_s() - began;
	int rc = h.failed ? stave_err_set(err, STAVE_ENOMEM, "no memory for the front of layouts") : s.feasible ? 0 : no_layout(&h, err);
	if (rc)
		free(s.front);
	else
		*out = s;
	return rc;
}

void plan_search_free(struct plan_search *s)
{
	free(s->front);
	*s = (struct plan_search){0};
}
