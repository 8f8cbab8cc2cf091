/* A model that runs: what it keeps in memory and how it comes there.
 *
 * Everything is taken from one arena, in one order, by one function (`take`): on an arena that only counts it is the plan, on a
 * real one the model. Three parts: weights (packed matrices, vectors, rotary tables), the cache, the workspace of a call.
 *
 * Each matrix has its place there from the beginning, but most come into it only when there is time (lm_pack.c). Rows that are looked
 * up (embedding, positions, token types) stay in the mapping.
 *
 * Matrices that read the same operand form a product: q, k and v; gate and up. Their panels are one list of work for the
 * threads, whatever the type of each (mixes store v wider than q and k). */
#include "model/lm.h"

#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "kernel/quant.h"

enum { ROWS_MAX = 1 << 20, CHUNK_FLOATS = 64 << 10, FRESH_BYTES = 256 << 10 };

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

/* ---- what is in it ---- */

struct builder {
	struct stave_lm *d;
	struct stave_arena *arena;
	float *vector; /* as long as the longest */
};

static int longest_vector(const struct stave_shape *s)
{
	int n = s->C > s->H * s->D ? s->C : s->H * s->D;
	return n > s->I ? n : s->I;
}

/* NULL when the model has none; while planning, something that is not NULL. */
static const float *vector(struct builder *b, enum stave_role role, bool bias, int layer, int n)
{
	if (!stave_source_vector(b->d->c.source, role, bias, layer, b->vector, n))
		return NULL;
	float *to = stave_arena_take(b->arena, (size_t)n * 4);
	if (!to)
		return b->vector;
	return memcpy(to, b->vector, (size_t)n * 4);
}

static struct lm_norm norm(struct builder *b, enum stave_role role, int layer)
{
	struct lm_norm n = {.gain = vector(b, role, false, layer, b->d->s.C)};
	if (n.gain)
		n.bias = vector(b, role, true, layer, b->d->s.C);
	return n;
}

/* The type a matrix is packed as. A router decides between experts by small differences and is small itself: as stored. */
static enum stave_qtype packed_type(const struct stave_lm_config *c, enum stave_role role, const struct stave_weight *w)
{
	if (c->type == STAVE_QTYPE_COUNT || role == STAVE_ROLE_ROUTER || w->cols % stave_qtype_info(c->type).per)
		return w->type;
	return c->type;
}

/* One more matrix of the product; false when the model has none of this role. */
static bool part(struct builder *b, struct lm_product *p, enum stave_role role, int layer, int expert)
{
	struct stave_lm *d = b->d;
	struct lm_matrix *m = &p->part[p->parts];
	if (!stave_source_weight(d->c.source, role, layer, expert, &m->from))
		return false;
	enum stave_qtype type = packed_type(&d->c, role, &m->from);
	size_t bytes = stave_packed_bytes(type, m->from.rows, m->from.cols);
	m->w = (struct stave_packed){.type = type, .rows = m->from.rows, .cols = m->from.cols, .data = stave_arena_take(b->arena, bytes)};
	m->role = role;
	m->at = p->out;
	m->bias = expert < 0 && role != STAVE_ROLE_HEAD ? vector(b, role, true, layer, m->from.rows) : NULL;
	p->parts++;
	p->out += m->from.rows;
	p->cols = m->from.cols;
	p->kinds |= 1u << stave_operand_kind(type);
	d->kinds |= p->kinds;
	d->widest = p->cols > d->widest ? p->cols : d->widest;
	if (lm_packs_later(m)) {
		d->fresh_bytes = most(d->fresh_bytes, most(2 * lm_panel_bytes(&m->w), FRESH_BYTES));
		d->rows_bytes = most(d->rows_bytes, STAVE_PANEL * stave_qtype_row_bytes(type, m->w.cols));
	}
	*(expert < 0 ? &d->weight_bytes : &d->expert_bytes) += (double)bytes;
	return true;
}

static void experts(struct builder *b, struct lm_layer *y, int layer)
{
	part(b, &y->router, STAVE_ROLE_ROUTER, layer, -1);
	for (int e = 0; e < b->d->s.experts; e++) {
		part(b, &y->expert_up[e], STAVE_ROLE_EXPERT_GATE, layer, e);
		part(b, &y->expert_up[e], STAVE_ROLE_EXPERT_UP, layer, e);
		part(b, &y->expert_down[e], STAVE_ROLE_EXPERT_DOWN, layer, e);
	}
}

static void take_layer(struct builder *b, int i)
{
	struct stave_lm *d = b->d;
	const struct stave_shape *s = &d->s;
	struct lm_layer *y = &d->layer[i];
	bool local = s->window && (!s->window_pattern || (i + 1) % s->window_pattern);
	y->window = local ? s->window : 0;
	y->rope = local && d->rope_local ? d->rope_local : d->rope;
	y->norm1 = norm(b, STAVE_ROLE_NORM1, i);
	y->norm1_post = norm(b, STAVE_ROLE_NORM1_POST, i);
	y->norm2 = norm(b, STAVE_ROLE_NORM2, i);
	y->norm2_post = norm(b, STAVE_ROLE_NORM2_POST, i);
	y->qnorm = vector(b, STAVE_ROLE_QNORM, false, i, s->D);
	y->knorm = vector(b, STAVE_ROLE_KNORM, false, i, s->D);
	part(b, &y->qkv, STAVE_ROLE_Q, i, -1);
	part(b, &y->qkv, STAVE_ROLE_K, i, -1);
	part(b, &y->qkv, STAVE_ROLE_V, i, -1);
	part(b, &y->out, STAVE_ROLE_OUT, i, -1);
	if (s->experts) {
		experts(b, y, i);
		return;
	}
	if (stave_act_gated(s->act))
		part(b, &y->up, STAVE_ROLE_GATE, i, -1);
	part(b, &y->up, STAVE_ROLE_UP, i, -1);
	part(b, &y->down, STAVE_ROLE_DOWN, i, -1);
}

/* Angles of a position: f_i = theta^(-2i / dims), scaled as the shape says and divided by `factors`. */
static void fill_rope(const struct stave_lm *d, bool local, float *table)
{
	const struct stave_shape *s = &d->s;
	const float *factors = local ? NULL : stave_source_rope_factors(d->c.source, d->c.context);
	stave_rope_angles(s, local, factors, d->c.context, table);
}

static void take_weights(struct builder *b)
{
	struct stave_lm *d = b->d;
	const struct stave_source *from = d->c.source;
	const struct stave_shape *s = &d->s;
	size_t table = (size_t)d->c.context * (size_t)(s->rope_dims ? s->rope_dims : s->D) * 4;
	d->rope = s->learned_pos ? NULL : stave_arena_take(b->arena, table);
	d->rope_local = s->learned_pos || !(s->rope_local > 0) ? NULL : stave_arena_take(b->arena, table);
	if (d->rope)
		fill_rope(d, false, d->rope);
	if (d->rope_local)
		fill_rope(d, true, d->rope_local);
	stave_source_weight(from, STAVE_ROLE_EMBED, 0, 0, &d->embed);
	d->has_positions = stave_source_weight(from, STAVE_ROLE_POSITIONS, 0, 0, &d->positions);
	d->has_token_types = stave_source_weight(from, STAVE_ROLE_TOKEN_TYPES, 0, 0, &d->token_types);
	d->embed_norm = norm(b, STAVE_ROLE_EMBED_NORM, 0);
	for (int i = 0; i < s->L; i++)
		take_layer(b, i);
	d->norm_f = norm(b, STAVE_ROLE_NORM_F, 0);
	if (!s->encoder)
		part(b, &d->head, STAVE_ROLE_HEAD, 0, -1);
}

/* ---- workspace ---- */

static struct lm_thread take_thread(const struct stave_lm *d, struct stave_arena *a)
{
	const struct stave_shape *s = &d->s;
	size_t pages = ((size_t)d->c.context + STAVE_PAGE - 1) / STAVE_PAGE;
	return (struct lm_thread){
		.panel = stave_arena_take(a, stave_panel_scratch(d->widest)),
		.fresh = stave_arena_take(a, d->fresh_bytes),
		.rows = stave_arena_take(a, d->rows_bytes),
		.paged = stave_arena_take(a, stave_paged_scratch(d->G, s->D)),
		.pages = stave_arena_take(a, pages * sizeof(void *)),
		.row = stave_arena_take(a, (size_t)s->C * 4),
		.stored = stave_arena_take(a, (size_t)s->C * 4),
		.stat = stave_arena_take(a, (size_t)d->G * 4),
		.chunk = stave_arena_take(a, (size_t)d->chunk_floats * 4),
		.low = stave_arena_take(a, (size_t)LM_CHUNK_PANELS * STAVE_PANEL * 4),
	};
}

static void take_workspace(struct stave_lm *d, struct stave_arena *a)
{
	const struct stave_shape *s = &d->s;
	size_t n = (size_t)d->c.rows, used = s->experts ? (size_t)s->experts_used : 1, C = (size_t)s->C, Q = (size_t)s->H * (size_t)s->D;
	d->x = stave_arena_take(a, n * C * 4);
	d->h = stave_arena_take(a, n * C * 4);
	d->y = stave_arena_take(a, n * used * C * 4);
	d->qkv = stave_arena_take(a, n * (size_t)d->qkv_cols * 4);
	d->att = stave_arena_take(a, n * Q * 4);
	d->act = stave_arena_take(a, n * used * (size_t)s->I * 4);
	for (int k = 0; k < STAVE_OPERAND_KINDS; k++)
		if (d->kinds >> k & 1)
			d->operand[k] = stave_arena_take(a, stave_operand_bytes((enum stave_operand_kind)k, d->c.rows, d->widest));
	d->low = stave_arena_take(a, n * 3 * LM_RANK_MAX * 4);
	d->span = stave_arena_take(a, n * sizeof *d->span);
	d->ids = stave_arena_take(a, n * 4);
	d->pos = stave_arena_take(a, n * 4);
	d->entry = stave_arena_take(a, n * 4);
	if (s->experts)
		lm_moe_take(d, a);
	d->thread = stave_arena_take(a, (size_t)d->threads * sizeof *d->thread);
	for (int t = 0; t < d->threads; t++) {
		struct lm_thread one = take_thread(d, a);
		if (d->thread)
			d->thread[t] = one;
	}
}

/* All memory of the model, in one order, for the plan and for the run. */
static void take(struct builder *b, struct stave_lm_memory *m)
{
	struct stave_lm *d = b->d;
	struct stave_arena *a = b->arena;
	size_t begin = a->used;
	take_weights(b);
	size_t weights = a->used;
	d->cache = stave_arena_take(a, (size_t)d->c.pages * d->page_all_bytes);
	size_t cached = a->used;
	take_workspace(d, a);
	*m = (struct stave_lm_memory){weights - begin, cached - weights, a->used - cached, a->used - begin};
}

/* ---- opening ---- */

static int check(const struct stave_lm_config *c, struct stave_err *err)
{
	const struct stave_shape *s = stave_source_shape(c->source);
	int rc = stave_shape_check(s, err);
	if (rc)
		return rc;
	if (c->pages < 1 || c->rows < 1 || c->rows > ROWS_MAX || c->context < 1 || c->context > s->T_max)
		return stave_err_set(err, STAVE_EUSAGE, "%d pages, %d positions and %d rows per step: wanted at least 1 of each, at most %d positions and %d rows",
		                     c->pages, c->context, c->rows, s->T_max, ROWS_MAX);
	if ((int)c->type < 0 || c->type > STAVE_QTYPE_COUNT || (int)c->cache < 0 || c->cache > STAVE_CACHE_I8)
		return stave_err_set(err, STAVE_EUSAGE, "unknown weight type %d or cache type %d", (int)c->type, (int)c->cache);
	if (c->type != STAVE_QTYPE_COUNT && !stave_can_quantize(c->type))
		return stave_err_set(err, STAVE_EUSAGE, "weights cannot be converted to %s on loading; choose one of F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K",
		                     stave_qtype_info(c->type).name);
	if (s->D % 2 || s->D > 512)
		return stave_err_set(err, STAVE_ECONFIG, "heads of %d values: the cache holds even widths up to 512", s->D);
	if ((double)c->pages * s->L * s->K * (double)stave_page_bytes(c->cache, s->D) > 0x1p60)
		return stave_err_set(err, STAVE_ENOFIT, "a cache of %d pages is larger than any machine", c->pages);
	return 0;
}

static struct lm_layer *layers_open(const struct stave_shape *s)
{
	struct lm_layer *layer = calloc((size_t)s->L, sizeof *layer);
	for (int i = 0; layer && s->experts && i < s->L; i++) {
		layer[i].expert_up = calloc((size_t)s->experts, sizeof *layer[i].expert_up);
		layer[i].expert_down = calloc((size_t)s->experts, sizeof *layer[i].expert_down);
	}
	return layer;
}

static bool layers_whole(const struct lm_layer *layer, const struct stave_shape *s)
{
	for (int i = 0; layer && s->experts && i < s->L; i++)
		if (!layer[i].expert_up || !layer[i].expert_down)
			return false;
	return layer;
}

void stave_lm_close(struct stave_lm *d)
{
	if (!d)
		return;
	for (int i = 0; d->layer && i < d->s.L; i++) {
		free(d->layer[i].expert_up);
		free(d->layer[i].expert_down);
	}
	free(d->layer);
	free(d->matrix);
	free(d);
}

/* Lays the model out on the arena, which may only count. */
static int build(struct stave_lm **out, const struct stave_lm_config *c, struct stave_arena *a, struct stave_lm_memory *m, struct stave_err *err)
{
	int rc = check(c, err);
	if (rc)
		return rc;
	struct stave_lm *d = calloc(1, sizeof *d);
	struct builder b = {.d = d, .arena = a};
	if (d) {
		d->c = *c;
		d->s = *stave_source_shape(c->source);
		d->layer = layers_open(&d->s);
		b.vector = malloc((size_t)longest_vector(&d->s) * 4);
	}
	if (!d || !b.vector || !layers_whole(d->layer, &d->s)) {
		stave_lm_close(d);
		free(b.vector);
		return stave_err_set(err, STAVE_ENOMEM, "out of memory describing %d layers", stave_source_shape(c->source)->L);
	}
	d->k = stave_kernels();
	d->threads = stave_threads();
	d->G = d->s.H / d->s.K;
	d->qkv_cols = (d->s.H + 2 * d->s.K) * d->s.D;
	d->page_bytes = stave_page_bytes(c->cache, d->s.D);
	d->page_all_bytes = (size_t)d->s.L * (size_t)d->s.K * d->page_bytes;
	int least = 2 * STAVE_PANEL * c->rows;
	d->chunk_floats = least > CHUNK_FLOATS ? least : least > CHUNK_FLOATS / LM_CHUNK_PANELS ? CHUNK_FLOATS : least * LM_CHUNK_PANELS;
	take(&b, m);
	free(b.vector);
	*out = d;
	return 0;
}

int stave_lm_plan(const struct stave_lm_config *c, struct stave_lm_memory *m, struct stave_err *err)
{
	struct stave_arena a = stave_arena_plan("model");
	struct stave_lm *d;
	int rc = build(&d, c, &a, m, err);
	if (!rc)
		stave_lm_close(d);
	return rc;
}

int stave_lm_open(struct stave_lm **out, const struct stave_lm_config *c, struct stave_arena *arena, struct stave_err *err)
{
	struct stave_lm_memory m;
	struct stave_lm *d;
	int rc = build(&d, c, arena, &m, err);
	if (rc)
		return rc;
	if ((rc = lm_pack(d, err))) {
		stave_lm_close(d);
		return rc;
	}
	*out = d;
	return 0;
}

/* ---- small services ---- */

void stave_lm_copy_page(struct stave_lm *d, int to, int from)
{
	memcpy(d->cache + (size_t)to * d->page_all_bytes, d->cache + (size_t)from * d->page_all_bytes, d->page_all_bytes);
}

double stave_lm_token_bytes(const struct stave_lm *d, int past)
{
	double bytes = d->weight_bytes, position = (double)d->page_bytes / STAVE_PAGE * d->s.K;
	if (d->s.experts)
		bytes += d->expert_bytes * d->s.experts_used / d->s.experts;
	for (int i = 0; i < d->s.L; i++) {
		int window = d->layer[i].window;
		bytes += position * (window && past + 1 > window ? window : past + 1);
	}
	return bytes;
}

struct stave_lm_times stave_lm_times(struct stave_lm *d)
{
	struct stave_lm_times t = d->times;
	d->times = (struct stave_lm_times){0};
	return t;
}
