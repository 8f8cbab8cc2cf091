/* The update of all parameters. Parameters are cut into chunks once; threads take chunks, and a sum over chunks is a sum
 * over an array in a fixed order. That makes norm and update the same for any number of threads.
 *
 * AdamW (Loshchilov & Hutter, arXiv 1711.05101) is elementwise and lives in kernel/; here is only who decays: matrices do,
 * gains and biases do not (the GPT convention). Padding rows belong to no parameter and stay zero. */
#include "train/optimizer.h"

#include <math.h>
#include <string.h>

#include "kernel/kernel.h"
#include "train/train.h"

/* 256 KiB of each array: large enough to amortise a call, small enough to balance over threads */
#define CHUNK_FLOATS 65536

static int64_t param_floats(const struct stave_param *p) { return (int64_t)p->rows * p->cols; }

bool optimizer_is_muon(const struct optimizer *o, int param)
{
	return o->kind == STAVE_MUON && o->l->params[param].hidden;
}

static void cut(struct optimizer *o)
{
	int at = 0;
	int64_t v_at = 0;
	for (int i = 0; i < o->l->n_params; i++) {
		const struct stave_param *p = &o->l->params[i];
		int64_t n = param_floats(p);
		for (int64_t done = 0; done < n; done += CHUNK_FLOATS)
			o->chunks[at++] = (struct optimizer_chunk){p->offset + done, n - done < CHUNK_FLOATS ? n - done : CHUNK_FLOATS, i};
		o->v_at[i] = optimizer_is_muon(o, i) ? -1 : v_at;
		if (o->v_at[i] >= 0)
			v_at += n;
	}
}

int optimizer_open(struct optimizer *o, const struct stave_layout *l, int kind, struct stave_arena *arena, struct stave_err *err)
{
	*o = (struct optimizer){.l = l, .kind = kind};
	for (int i = 0; i < l->n_params; i++) {
		int64_t n = param_floats(&l->params[i]);
		o->n_chunks += (int)((n + CHUNK_FLOATS - 1) / CHUNK_FLOATS);
		if (!optimizer_is_muon(o, i))
			o->n_v += n;
	}
	o->m = stave_arena_take(arena, (size_t)l->n * sizeof *o->m);
	o->v = stave_arena_take(arena, (size_t)o->n_v * sizeof *o->v);
	o->v_at = stave_arena_take(arena, (size_t)l->n_params * sizeof *o->v_at);
	o->chunks = stave_arena_take(arena, (size_t)o->n_chunks * sizeof *o->chunks);
	o->partial = stave_arena_take(arena, (size_t)o->n_chunks * sizeof *o->partial);
	if (arena->base)
		cut(o);
	int rc = kind == STAVE_MUON ? muon_open(&o->muon, l, arena, err) : 0;
	if (rc)
		optimizer_close(o);
	return rc;
}

void optimizer_close(struct optimizer *o)
{
	muon_close(&o->muon);
}

int optimizer_sumsq(struct optimizer *o, const float *x, double *sum)
{
	const struct stave_kernels *k = stave_kernels();
#pragma omp parallel for schedule(static)
	for (int i = 0; i < o->n_chunks; i++)
		o->partial[i] = k->sumsq(x + o->chunks[i].at, (size_t)o->chunks[i].n);
	*sum = 0;
	int bad = -1;
	for (int i = 0; i < o->n_chunks; i++) {
		*sum += o->partial[i];
		if (bad < 0 && !isfinite(o->partial[i]))
			bad = o->chunks[i].param;
	}
	return bad;
}

static void adamw(struct optimizer *o, float *p, uint16_t *w16, const float *g, const struct optimizer_rates *r)
{
	const struct stave_kernels *k = stave_kernels();
	float c1 = (float)(1 - pow(r->beta1, (double)r->t)), c2 = (float)(1 - pow(r->beta2, (double)r->t));
#pragma omp parallel for schedule(static)
	for (int i = 0; i < o->n_chunks; i++) {
		const struct optimizer_chunk *c = &o->chunks[i];
		const struct stave_param *param = &o->l->params[c->param];
		if (o->v_at[c->param] < 0)
			continue;
		float *v = o->v + o->v_at[c->param] + (c->at - param->offset);
		k->adamw(p + c->at, w16 ? w16 + c->at : NULL, o->m + c->at, v, g + c->at, (size_t)c->n, (float)r->g_scale, (float)r->lr, (float)r->beta1,
		         (float)r->beta2, (float)r->eps, param->decay ? (float)r->weight_decay : 0, c1, c2);
	}
}

void optimizer_step(struct optimizer *o, float *p, uint16_t *w16, const float *g, const struct optimizer_rates *r)
{
	adamw(o, p, w16, g, r);
	for (int i = 0; i < o->l->n_params; i++)
		if (optimizer_is_muon(o, i)) {
			const struct stave_param *at = &o->l->params[i];
			muon_step(&o->muon, at, p + at->offset, w16 ? w16 + at->offset : NULL, o->m + at->offset, g + at->offset, r);
		}
}
