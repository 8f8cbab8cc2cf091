/* The memory of a training network. One function lays every buffer out on an arena; run on an arena that only counts it
 * is the plan, run on the real one it is the allocation, so the two are equal by construction. Products are opened in the
 * same pass, because the scratch they need is oneDNN's to say. */
#include "model/net.h"

#include <stdlib.h>
#include <string.h>

#include "base/sys.h"

static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

static int open_products(struct stave_net *n, size_t *scratch, struct stave_err *err)
{
	const struct stave_shape *s = &n->c.shape;
	const enum stave_dtype dt = n->c.dtype, f = STAVE_F32;
	const int64_t r = n->n, C = s->C, I = s->I, h = n->chunk, t = n->n % n->chunk;
	const struct stave_matmul_desc d[PRODUCTS] = {
		/*            m       n       k   in  out   A^T    B^T    bias         C += */
		[QKV_FWD] =  {r,      n->QKV, C,  dt, dt, false, true,  s->qkv_bias, false},
		[OUT_FWD] =  {r,      C,   n->Q,  dt, f,  false, true,  s->out_bias, true},
		[UP_FWD] =   {r,      n->F,   C,  dt, dt, false, true,  s->mlp_bias, false},
		[DOWN_FWD] = {r,      C,      I,  dt, f,  false, true,  s->mlp_bias, true},
		[DOWN_DG] =  {r,      I,      C,  dt, dt, false, false, false, false},
		[UP_DG] =    {r,      C,   n->F,  dt, dt, false, false, false, false},
		[OUT_DG] =   {r,      n->Q,   C,  dt, dt, false, false, false, false},
		[QKV_DG] =   {r,      C, n->QKV,  dt, dt, false, false, false, false},
		[DOWN_WG] =  {C,      I,      r,  dt, f,  true,  false, false, false},
		[UP_WG] =    {n->F,   C,      r,  dt, f,  true,  false, false, false},
		[OUT_WG] =   {C,      n->Q,   r,  dt, f,  true,  false, false, false},
		[QKV_WG] =   {n->QKV, C,      r,  dt, f,  true,  false, false, false},
		[DOWN_WG_ADD] = {C,      I,    r, dt, f,  true,  false, false, true},
		[UP_WG_ADD] =   {n->F,   C,    r, dt, f,  true,  false, false, true},
		[OUT_WG_ADD] =  {C,      n->Q, r, dt, f,  true,  false, false, true},
		[QKV_WG_ADD] =  {n->QKV, C,    r, dt, f,  true,  false, false, true},
		[HEAD_FWD] =    {h,     n->Vp, C, dt, dt, false, true,  false, false},
		[HEAD_DG] =     {h,     C, n->Vp, dt, dt, false, false, false, false},
		[HEAD_WG] =     {n->Vp, C,     h, dt, f,  true,  false, false, false},
		[HEAD_WG_ADD] = {n->Vp, C,     h, dt, f,  true,  false, false, true},
		[TAIL_FWD] =    {t,     n->Vp, C, dt, dt, false, true,  false, false},
		[TAIL_DG] =     {t,     C, n->Vp, dt, dt, false, false, false, false},
		[TAIL_WG] =     {n->Vp, C,     t, dt, f,  true,  false, false, false},
		[TAIL_WG_ADD] = {n->Vp, C,     t, dt, f,  true,  false, false, true},
	};
	for (int i = 0; i < PRODUCTS; i++) {
		bool backward = (i >= DOWN_DG && i <= QKV_WG_ADD) || (i >= HEAD_DG && i <= HEAD_WG_ADD) || i > TAIL_FWD;
		if (d[i].m == 0 || d[i].k == 0 || (backward && !n->c.train))
			continue;
		size_t bytes = 0;
		int rc = stave_matmul_open(&n->mm[i], &d[i], &bytes, err);
		if (rc)
			return rc;
		*scratch = max_size(*scratch, bytes);
	}
	return 0;
}

/* Buffers of one layer; a buffer that is recomputed is the previous layer's. */
static void take_acts(struct stave_net *n, struct acts *a, const struct acts *previous, struct stave_arena *m)
{
	const struct stave_shape *s = &n->c.shape;
	size_t r = (size_t)n->n, e = stave_dtype_bytes(n->c.dtype), C = (size_t)s->C;
	bool keep = n->c.train && n->c.recompute != STAVE_RECOMPUTE_LAYER;        /* what attention and products left */
	bool keep_cheap = n->c.train && n->c.recompute == STAVE_KEEP_ALL;         /* norms and activation function */
	if (previous)
		*a = *previous;
	if (!previous || n->c.train)
		a->x0 = stave_arena_take(m, r * C * 4);
	if (!previous || keep) {
		a->mean1 = stave_arena_take(m, r * 4);
		a->rstd1 = stave_arena_take(m, r * 4);
		a->qkv = stave_arena_take(m, r * (size_t)n->QKV * e);
		a->qk = s->qk_norm ? stave_arena_take(m, r * (size_t)(n->Q + n->KV) * e) : NULL;
		a->qk_rstd = s->qk_norm ? stave_arena_take(m, r * (size_t)(s->H + s->K) * 4) : NULL;
		a->att = stave_arena_take(m, r * (size_t)n->Q * e);
		a->lse = stave_arena_take(m, r * (size_t)s->H * 4);
		a->x1 = stave_arena_take(m, r * C * 4);
		a->mean2 = stave_arena_take(m, r * 4);
		a->rstd2 = stave_arena_take(m, r * 4);
		a->up = stave_arena_take(m, r * (size_t)n->F * e);
	}
	if (!previous || keep_cheap) {
		a->norm1 = stave_arena_take(m, r * C * e);
		a->norm2 = stave_arena_take(m, r * C * e);
		a->act = stave_arena_take(m, r * (size_t)s->I * e);
	}
}

static void take_gradients(struct stave_net *n, struct stave_arena *m)
{
	const struct stave_shape *s = &n->c.shape;
	size_t r = (size_t)n->n, e = stave_dtype_bytes(n->c.dtype);
	bool f32 = n->c.dtype == STAVE_F32;
	n->dx = stave_arena_take(m, r * (size_t)s->C * 4);
	n->dx16 = f32 ? (void *)n->dx : stave_arena_take(m, r * (size_t)s->C * e);
	n->dnorm = stave_arena_take(m, r * (size_t)s->C * e);
	n->dact = stave_arena_take(m, r * (size_t)s->I * e);
	n->dup = stave_arena_take(m, r * (size_t)n->F * e);
	n->datt = stave_arena_take(m, r * (size_t)n->Q * e);
	n->dqkv = stave_arena_take(m, r * (size_t)n->QKV * 4);
	n->dqkv16 = f32 ? (void *)n->dqkv : stave_arena_take(m, r * (size_t)n->QKV * e);
	size_t width = max_size(max_size((size_t)n->F, (size_t)n->QKV), 2 * (size_t)s->C);
	n->slices = stave_arena_take(m, SLICES * width * 4);
}

static int build(struct stave_net *n, struct stave_arena *m, struct stave_err *err)
{
	const struct stave_shape *s = &n->c.shape;
	size_t e = stave_dtype_bytes(n->c.dtype), r, start = m->used, scratch = 0;
	n->n = n->c.B * n->c.T;
	n->Q = s->H * s->D;
	n->KV = s->K * s->D;
	n->QKV = n->Q + 2 * n->KV;
	n->F = s->act == STAVE_SWIGLU ? 2 * s->I : s->I;
	n->Vp = stave_shape_vpad(s);
	n->threads = stave_threads();
	r = (size_t)n->n;
	n->chunk = stave_cost_logit_rows(s, n->n, n->c.dtype);
	int rc = open_products(n, &scratch, err);
	if (rc)
		return rc;
	if (n->c.dtype == STAVE_BF16)
		n->w16 = stave_arena_take(m, (size_t)n->l->n * 2);
	n->memory.weights16 = m->used - start;
	for (int l = 0; l < s->L; l++)
		take_acts(n, &n->acts[l], l ? &n->acts[l - 1] : NULL, m);
	n->xl = n->c.train ? stave_arena_take(m, r * (size_t)s->C * 4) : n->acts[0].x0;
	n->normf = stave_arena_take(m, r * (size_t)s->C * e);
	n->meanf = stave_arena_take(m, r * 4);
	n->rstdf = stave_arena_take(m, r * 4);
	n->memory.activations = m->used - start - n->memory.weights16;
	n->logits = stave_arena_take(m, (size_t)n->chunk * (size_t)n->Vp * e);
	n->losses = stave_arena_take(m, r * 4);
	n->rope = s->learned_pos ? NULL : stave_arena_take(m, (size_t)n->c.T * (size_t)s->D * 4);
	n->pos = stave_arena_take(m, r * 4);
	if (n->c.train)
		take_gradients(n, m);
	n->attn_bytes = n->k->attn_scratch(n->c.dtype, n->c.T, s->D, n->c.train);
	n->attn_bytes = (n->attn_bytes + 63) / 64 * 64;
	n->attn_scratch = stave_arena_take(m, n->attn_bytes * (size_t)n->threads);
	n->mm_scratch = stave_arena_take(m, scratch);
	n->memory.total = m->used - start;
	n->memory.workspace = n->memory.total - n->memory.weights16 - n->memory.activations;
	return 0;
}

static int check(const struct stave_net_config *c, struct stave_err *err)
{
	if (c->B < 1 || c->T < 1 || (int64_t)c->B * c->T > 1 << 28)
		return stave_err_set(err, STAVE_ECONFIG, "a micro-batch of %d rows of %d tokens is not possible", c->B, c->T);
	if (c->T > c->shape.T_max)
		return stave_err_set(err, STAVE_ECONFIG, "rows of %d tokens exceed the model's context of %d; lower train.seq", c->T, c->shape.T_max);
	if (c->dtype != STAVE_F32 && c->dtype != STAVE_BF16)
		return stave_err_set(err, STAVE_ECONFIG, "training computes in F32 or BF16, not %s", stave_dtype_name(c->dtype));
	return 0;
}

static int create(struct stave_net **out, const struct stave_net_config *c, const struct stave_layout *l, struct stave_arena *m, struct stave_err *err)
{
	int rc = check(c, err);
	if (rc)
		return rc;
	struct stave_net *n = calloc(1, sizeof *n);
	if (n)
		n->acts = calloc((size_t)c->shape.L, sizeof *n->acts);
	if (!n || !n->acts) {
		free(n);
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the network's tables");
	}
	n->c = *c;
	n->l = l;
	n->k = stave_kernels();
	rc = build(n, m, err);
	if (rc) {
		stave_net_close(n);
		return rc;
	}
	*out = n;
	return 0;
}

int stave_net_plan(const struct stave_net_config *c, struct stave_net_memory *m, struct stave_err *err)
{
	struct stave_layout l;
	struct stave_net *n;
	struct stave_arena count = stave_arena_plan("plan");
	int rc = stave_layout_open(&l, &c->shape, err);
	if (rc)
		return rc;
	rc = create(&n, c, &l, &count, err);
	if (!rc) {
		*m = n->memory;
		stave_net_close(n);
	}
	stave_layout_close(&l);
	return rc;
}

int stave_net_open(struct stave_net **out, const struct stave_net_config *c, const struct stave_layout *l, float *params, float *grads,
                   struct stave_arena *arena, struct stave_err *err)
{
	struct stave_net *n;
	int rc = create(&n, c, l, arena, err);
	if (rc)
		return rc;
	n->p = params;
	n->g = grads;
	for (int i = 0; i < n->n; i++)
		n->pos[i] = i % c->T;
	if (n->rope)
		stave_rope_table(&c->shape, c->T, n->rope);
	stave_net_refresh(n);
	*out = n;
	return 0;
}

void stave_net_close(struct stave_net *n)
{
	if (!n)
		return;
	for (int i = 0; i < PRODUCTS; i++)
		stave_matmul_close(n->mm[i]);
	free(n->acts);
	free(n);
}

uint16_t *stave_net_weights16(struct stave_net *n) { return n->w16; }

void stave_net_refresh(struct stave_net *n)
{
	const int64_t piece = 1 << 16;
	if (!n->w16)
		return;
#pragma omp parallel for schedule(static)
	for (int64_t i = 0; i < n->l->n; i += piece)
		n->k->to_bf16(n->w16 + i, n->p + i, (size_t)(n->l->n - i < piece ? n->l->n - i : piece));
}

struct stave_net_times stave_net_times(struct stave_net *n)
{
	struct stave_net_times t = n->times;
	n->times = (struct stave_net_times){0};
	return t;
}

void net_product(struct stave_net *n, enum product which, const void *a, const void *b, void *c, const float *bias)
{
	double t = stave_now_s();
	stave_matmul_run(n->mm[which], a, b, c, bias, n->mm_scratch);
	n->times.matmul_s += stave_now_s() - t;
}
