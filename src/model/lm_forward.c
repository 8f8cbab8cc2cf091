/* The forward pass of new tokens after cached ones, for every family.
 *
 * Rows (tokens) of all sequences go through each matrix together, so that it is read from memory once; attention is per
 * sequence. The kernels compute a row as if it were alone, whatever stands beside it, and everything here follows them: no sum runs
 * over rows, and how work is cut (chunks of panels, spans of rows) never enters the arithmetic. So an answer is the same to the bit
 * alone, in company, and however its prompt was cut.
 *
 * A run is one parallel region. Its phases are lists of tasks which the threads take one by one, so that a slow core
 * does not hold the others up, with a barrier after each (team.h): ten phases per layer. Between two products a row is finished in
 * one visit: residual, norm and the operand of the next product. Gate and up are computed chunk by chunk into the
 * thread's own memory and activated there, so that their results, the widest of the model, never go to main memory. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/sys.h"
#include "kernel/quant.h"
#include "model/lm.h"

#define ALONE_BYTES ((size_t)128 << 10) /* of a matrix in one task, for one row: long enough to stream */
#define FEW_BYTES ((size_t)512 << 10)   /* for a few rows: the kernel looks ahead within a task, and not from one to the next */
#define MANY_ROWS 16                   /* from here on tasks are of a few panels, which the kernel reuses for all rows */
#define MANY_PANELS 8
#define SOFTCAP_COLUMNS 4096

void lm_lap(struct stave_lm *d, double *class)
{
	if (stave_thread_index())
		return;
	double now = stave_now_s();
	*class += now - d->mark_s;
	d->mark_s = now;
}

static int least(int a, int b) { return a < b ? a : b; }
static int most(int a, int b) { return a > b ? a : b; }

/* ---- products ---- */

int stave_task_panels(const struct stave_packed *w, int n, int threads, int limit)
{
	size_t each = n == 1 ? ALONE_BYTES : FEW_BYTES;
	int panels = stave_panels(w), c = n < MANY_ROWS ? (int)(each / lm_panel_bytes(w)) : MANY_PANELS;
	c = least(least(c, panels / (4 * threads)), limit); /* enough tasks to even out */
	if (n > 1 && c > 1)
		c -= c % 2; /* the kernel takes panels in pairs */
	return most(c, 1);
}

int lm_chunk(const struct stave_lm *d, const struct lm_matrix *m, int n, int halves)
{
	int room = halves ? least(LM_CHUNK_PANELS, d->chunk_floats / (halves * STAVE_PANEL * n)) : LM_CHUNK_PANELS;
	return stave_task_panels(&m->w, n, d->threads, room);
}

void lm_operand_row(unsigned kinds, void *const *operand, const float *x, int n, int cols, int r)
{
	for (int k = 0; k < STAVE_OPERAND_KINDS; k++)
		if (kinds >> k & 1) /* stride 0: the row stands alone, whatever its number */
			stave_operand_make((enum stave_operand_kind)k, operand[k], x, 0, n, cols, r, r + 1);
}

/* Panels p0..p1, packed at `data`, times n rows of x. */
static void multiply_panels(struct stave_lm *d, const struct lm_matrix *m, const void *data, int p0, int p1, const void *x, int n, float *y, size_t ldy)
{
	int first = p0 * STAVE_PANEL;
	struct stave_packed w = {m->w.type, least(p1 * STAVE_PANEL, m->w.rows) - first, m->w.cols, data};
	stave_packed_multiply(&w, 0, p1 - p0, x, n, y, ldy, m->bias ? m->bias + first : NULL, lm_self(d)->panel);
}

void lm_multiply_chunk(struct stave_lm *d, const struct lm_matrix *m, int part, void *const *operand, int n, int p0, int p1, float *y, size_t ldy, int layer)
{
	size_t bytes = lm_panel_bytes(&m->w);
	int first = p0 * STAVE_PANEL, rows = least(p1 * STAVE_PANEL, m->w.rows) - first, ready = least(most(m->ready, p0), p1);
	const void *x = operand[stave_operand_kind(m->w.type)];
	if (p0 < ready)
		multiply_panels(d, m, (const char *)m->w.data + (size_t)p0 * bytes, p0, ready, x, n, y, ldy);
	for (int p = ready, end; p < p1; p = end) {
		char *fresh = lm_self(d)->fresh;
		end = least(p1, p + (int)(d->fresh_bytes / bytes));
		for (int i = p; i < end; i++)
			lm_pack_panel(d, m, i, fresh + (size_t)(i - p) * bytes);
		multiply_panels(d, m, fresh, p, end, x, n, y + (p - p0) * STAVE_PANEL, ldy);
	}
	if (d->adapted && layer >= 0)
		lm_adapter_up(d, part, m->role, layer, first, rows, y, ldy);
}

void lm_multiply(struct stave_lm *d, const struct lm_product *p, void *const *operand, int n, float *y, size_t ldy, int layer)
{
	int chunk[3], end[3], tasks = 0;
	for (int i = 0; i < p->parts; i++) {
		chunk[i] = lm_chunk(d, &p->part[i], n, 0);
		tasks += (stave_panels(&p->part[i].w) + chunk[i] - 1) / chunk[i];
		end[i] = tasks;
	}
	for (int t; (t = team_next(&d->team, tasks)) < tasks;) {
		int i = 0;
		while (t >= end[i])
			i++;
		const struct lm_matrix *m = &p->part[i];
		int p0 = (t - (i ? end[i - 1] : 0)) * chunk[i], p1 = least(p0 + chunk[i], stave_panels(&m->w));
		lm_multiply_chunk(d, m, i, operand, n, p0, p1, y + m->at + p0 * STAVE_PANEL, ldy, layer);
	}
	team_meet(&d->team);
}

/* y (n) = act(g) u, or act(u) alone; gu holds gate and up. */
static void activate_row(const struct stave_lm *d, float *y, const float *gu, int n)
{
	if (d->s.act == STAVE_SWIGLU) {
		d->k->swiglu_fwd(STAVE_F32, y, gu, 1, n);
		return;
	}
	d->k->gelu_fwd(STAVE_F32, d->s.act == STAVE_GELU_EXACT, y, gu, (size_t)n);
	if (d->s.act == STAVE_GEGLU)
		for (int i = 0; i < n; i++)
			y[i] *= gu[n + i];
}

void lm_activate_chunk(struct stave_lm *d, const struct lm_product *p, void *const *operand, int n, int p0, int p1, float *act, int layer)
{
	int first = p0 * STAVE_PANEL, cols = least(p1 * STAVE_PANEL, d->s.I) - first;
	float *gu = lm_self(d)->chunk;
	size_t ld = (size_t)(p->parts * cols);
	for (int i = 0; i < p->parts; i++)
		lm_multiply_chunk(d, &p->part[i], i, operand, n, p0, p1, gu + i * cols, ld, layer);
	for (int r = 0; r < n; r++)
		activate_row(d, act + (size_t)r * (size_t)d->s.I + first, gu + (size_t)r * ld, cols);
}

static void activate(struct stave_lm *d, const struct lm_product *p, int n, int layer)
{
	int panels = stave_panels(&p->part[0].w), chunk = lm_chunk(d, &p->part[0], n, p->parts);
	int tasks = (panels + chunk - 1) / chunk;
	for (int t; (t = team_next(&d->team, tasks)) < tasks;)
		lm_activate_chunk(d, p, d->operand, n, t * chunk, least((t + 1) * chunk, panels), d->act, layer);
	team_meet(&d->team);
}

/* ---- rows ---- */

static void norm_row(const struct stave_lm *d, float *y, const float *x, const struct lm_norm *w)
{
	float mean, rstd;
	d->k->norm_fwd(STAVE_F32, !d->s.layernorm, y, &mean, &rstd, x, w->gain, w->bias, d->s.norm_eps, 1, d->s.C);
}

static void look_up(const struct stave_lm *d, float *y, const struct stave_weight *w, int r)
{
	stave_dequantize(w->type, y, stave_weight_row(w, r, lm_self(d)->stored), w->cols);
}

static void embed_row(const struct stave_lm *d, int r)
{
	size_t C = (size_t)d->s.C;
	float *x = d->x + (size_t)r * C, *row = lm_self(d)->row;
	look_up(d, x, &d->embed, d->ids[r]);
	if (d->s.embed_scale > 0)
		d->k->scale(x, d->s.embed_scale, C);
	if (d->has_positions) {
		look_up(d, row, &d->positions, d->pos[r]);
		d->k->add(x, row, C);
	}
	if (d->has_token_types) { /* all of one text: type 0 */
		look_up(d, row, &d->token_types, 0);
		d->k->add(x, row, C);
	}
	if (d->embed_norm.gain) {
		norm_row(d, row, x, &d->embed_norm);
		memcpy(x, row, C * 4);
	}
}

/* The operand of product p from the residual stream's row, normed. */
static void prepare_row(struct stave_lm *d, const struct lm_norm *norm, const struct lm_product *p, bool keep, int layer, int r)
{
	size_t at = (size_t)r * (size_t)d->s.C;
	float *in = d->x + at;
	if (norm->gain) {
		float *to = keep || d->adapted ? d->h + at : lm_self(d)->row;
		norm_row(d, to, in, norm);
		in = to;
	}
	lm_operand_row(p->kinds, d->operand, in, d->n_rows, d->s.C, r);
	if (d->adapted)
		lm_adapter_down(d, p, layer, r, in);
}

/* The result y of a sublayer into the residual stream. Encoders norm the sum, gemma's sandwich norms what is added. */
static void add_row(struct stave_lm *d, float *y, const struct lm_norm *post, int r)
{
	size_t C = (size_t)d->s.C, at = (size_t)r * C;
	float *x = d->x + at, *row = lm_self(d)->row;
	y += at;
	if (d->s.encoder) {
		d->k->add(y, x, C);
		norm_row(d, x, y, post);
		return;
	}
	if (post->gain) {
		norm_row(d, row, y, post);
		y = row;
	}
	d->k->add(x, y, C);
}

/* Rows a task takes: neighbours of an operand may share cache lines. */
static int rows_at_once(const struct stave_lm *d) { return d->n_rows > 64 ? 8 : 1; }

#define EACH_ROW(d, r)                                                                                          \
	for (int step = rows_at_once(d), first_; (first_ = team_take(&(d)->team, step)) < (d)->n_rows;)         \
		for (int r = first_; r < least(first_ + step, (d)->n_rows); r++)

static void operand_of(struct stave_lm *d, const struct lm_product *p, const float *x, int layer)
{
	EACH_ROW(d, r) {
		const float *in = x + (size_t)r * (size_t)p->cols;
		lm_operand_row(p->kinds, d->operand, in, d->n_rows, p->cols, r);
		if (d->adapted)
			lm_adapter_down(d, p, layer, r, in);
	}
	team_meet(&d->team);
	lm_lap(d, &d->times.element_s);
}

/* Before layer i: the result of the layer before is added (the embedding looked up), and the operand of q, k, v made; after the last
 * layer the result of the run. */
static void enter_layer(struct stave_lm *d, int i)
{
	const struct lm_layer *y = i < d->s.L ? &d->layer[i] : NULL;
	EACH_ROW(d, r) {
		size_t at = (size_t)r * (size_t)d->s.C;
		if (i == 0)
			embed_row(d, r);
		else
			add_row(d, d->s.experts ? d->h : d->y, &d->layer[i - 1].norm2_post, r);
		if (y)
			prepare_row(d, &y->norm1, &y->qkv, false, i, r);
		else if (d->norm_f.gain)
			norm_row(d, d->h + at, d->x + at, &d->norm_f);
		else
			memcpy(d->h + at, d->x + at, (size_t)d->s.C * 4);
	}
	team_meet(&d->team);
	lm_lap(d, &d->times.element_s);
}

static void enter_feed_forward(struct stave_lm *d, int i)
{
	const struct lm_layer *y = &d->layer[i];
	EACH_ROW(d, r) {
		add_row(d, d->y, &y->norm1_post, r);
		prepare_row(d, &y->norm2, d->s.experts ? &y->router : &y->up, d->s.experts > 0, i, r);
	}
	team_meet(&d->team);
	lm_lap(d, &d->times.element_s);
}

/* ---- attention ---- */

static void *page_at(const struct stave_lm *d, int32_t page, int layer, int head)
{
	return d->cache + (size_t)page * d->page_all_bytes + ((size_t)layer * (size_t)d->s.K + (size_t)head) * d->page_bytes;
}

/* Heads of one row that lie side by side: normed and rotated. */
static void turn(const struct stave_lm *d, const struct lm_layer *y, float *x, const float *gain, int heads, int r)
{
	const struct stave_shape *s = &d->s;
	size_t D = (size_t)s->D;
	if (gain)
		d->k->headnorm_fwd(STAVE_F32, x, D, lm_self(d)->stat, x, D, gain, s->norm_eps, 1, heads, s->D);
	if (!y->rope)
		return;
	if (!s->rope_dims || s->rope_dims == s->D) {
		d->k->rope(STAVE_F32, false, x, D, d->pos + r, y->rope, 1, heads, s->D);
		return;
	}
	for (int h = 0; h < heads; h++)
		d->k->rope(STAVE_F32, false, x + (size_t)h * D, D, d->pos + r, y->rope, 1, 1, s->rope_dims);
}

/* Key/value head h of a span: its queries are made ready, its keys and values stored. */
static void place_span(const struct stave_lm *d, int layer, const struct lm_span *sp, int h)
{
	const struct stave_shape *s = &d->s;
	const struct lm_layer *y = &d->layer[layer];
	const struct stave_lm_rows *e = &d->rows[sp->entry];
	size_t D = (size_t)s->D;
	for (int i = 0; i < sp->n; i++) {
		int r = sp->row + i, pos = sp->pos + i;
		float *q = d->qkv + (size_t)r * (size_t)d->qkv_cols, *k = q + ((size_t)s->H + (size_t)h) * D, *v = k + (size_t)s->K * D;
		turn(d, y, q + (size_t)h * (size_t)d->G * D, y->qnorm, d->G, r);
		turn(d, y, k, y->knorm, 1, r);
		stave_page_put(d->c.cache, page_at(d, e->pages[pos / STAVE_PAGE], layer, h), pos % STAVE_PAGE, k, v, s->D);
	}
}

static void place(struct stave_lm *d, int layer)
{
	int K = d->s.K, tasks = d->n_spans * K;
	for (int t; (t = team_take(&d->team, 1)) < tasks;)
		place_span(d, layer, &d->span[t / K], t % K);
	team_meet(&d->team);
	lm_lap(d, &d->times.element_s);
}

/* Query heads g .. g + G of key/value head h, for the rows of one span. */
static void attend(const struct stave_lm *d, int layer, const struct lm_span *sp, int h, int g, int G)
{
	const struct stave_shape *s = &d->s;
	const struct lm_layer *y = &d->layer[layer];
	const struct stave_lm_rows *e = &d->rows[sp->entry];
	struct lm_thread *my = lm_self(d);
	int from = y->window && sp->pos >= y->window ? (sp->pos - y->window + 1) / STAVE_PAGE : 0;
	for (int p = from; p * STAVE_PAGE < sp->pos + sp->n; p++)
		my->pages[p] = page_at(d, e->pages[p], layer, h);
	size_t head = ((size_t)h * (size_t)d->G + (size_t)g) * (size_t)s->D, ldo = (size_t)s->H * (size_t)s->D;
	struct stave_paged_attn a = {
		.type = d->c.cache, .n = sp->n, .past = sp->pos, .G = G, .D = s->D,
		.q = d->qkv + (size_t)sp->row * (size_t)d->qkv_cols + head, .ldq = (size_t)d->qkv_cols,
		.o = d->att + (size_t)sp->row * ldo + head, .ldo = ldo,
		.pages = my->pages, .window = y->window, .softcap = s->attn_softcap, .bidirectional = s->encoder,
		.scale = s->attn_scale > 0 ? s->attn_scale : 1 / sqrtf((float)s->D),
	};
	stave_paged_attention(&a, my->paged);
}

static void attention(struct stave_lm *d, int layer)
{
	/* fewer key/value heads than threads: query heads of one group are shared out too */
	int K = d->s.K, parts = 1;
	while (parts < d->G && (d->n_spans * K * parts < d->threads || d->G % parts))
		parts++;
	int G = d->G / parts, tasks = d->n_spans * K * parts;
	for (int t; (t = team_take(&d->team, 1)) < tasks;) { /* the last spans of a prompt see most: first */
		int rest = t % (K * parts);
		attend(d, layer, &d->span[d->n_spans - 1 - t / (K * parts)], rest / parts, rest % parts * G, G);
	}
	team_meet(&d->team);
	lm_lap(d, &d->times.attention_s);
}

/* ---- the run ---- */

static void run_layer(struct stave_lm *d, int i)
{
	const struct lm_layer *y = &d->layer[i];
	size_t C = (size_t)d->s.C;
	enter_layer(d, i);
	lm_multiply(d, &y->qkv, d->operand, d->n_rows, d->qkv, (size_t)d->qkv_cols, i);
	lm_lap(d, &d->times.matmul_s);
	place(d, i);
	attention(d, i);
	operand_of(d, &y->out, d->att, i);
	lm_multiply(d, &y->out, d->operand, d->n_rows, d->y, C, i);
	lm_lap(d, &d->times.matmul_s);
	enter_feed_forward(d, i);
	if (d->s.experts) {
		lm_experts(d, y);
		return;
	}
	activate(d, &y->up, d->n_rows, i);
	lm_lap(d, &d->times.matmul_s);
	operand_of(d, &y->down, d->act, i);
	lm_multiply(d, &y->down, d->operand, d->n_rows, d->y, C, i);
	lm_lap(d, &d->times.matmul_s);
}

/* Rows and spans of the call. Spans end where pages do, so that no two tasks write the same page; an encoder's rows see
 * one another and stay together. */
static void lay_out(struct stave_lm *d, struct stave_lm_rows *rows, int n)
{
	d->rows = rows;
	d->n_rows = d->n_spans = 0;
	d->adapted = false;
	for (int i = 0; i < n; i++) {
		d->adapted |= rows[i].adapter != NULL;
		assert(rows[i].n >= 0 && rows[i].n <= d->c.rows - d->n_rows && rows[i].past >= 0 && rows[i].past + rows[i].n <= d->c.context);
		for (int j = 0; j < rows[i].n;) {
			int pos = rows[i].past + j, span = d->s.encoder ? rows[i].n : least(rows[i].n - j, STAVE_PAGE - pos % STAVE_PAGE);
			d->span[d->n_spans++] = (struct lm_span){.entry = i, .row = d->n_rows, .n = span, .pos = pos};
			for (int end = j + span; j < end; j++, d->n_rows++) {
				d->ids[d->n_rows] = rows[i].ids[j];
				d->pos[d->n_rows] = rows[i].past + j;
				d->entry[d->n_rows] = i;
			}
		}
	}
}

void stave_lm_run(struct stave_lm *d, struct stave_lm_rows *s, int n)
{
	d->mark_s = stave_now_s();
	lay_out(d, s, n);
	if (!d->n_rows)
		return;
#pragma omp parallel num_threads(d->threads)
	{
		for (int i = 0; i < d->s.L; i++)
			run_layer(d, i);
		enter_layer(d, d->s.L);
	}
	const float *hidden = d->h; /* rows of an entry lie together */
	for (int i = 0; i < n; i++) {
		s[i].hidden = hidden;
		hidden += (size_t)s[i].n * (size_t)d->s.C;
	}
}

static void softcap(struct stave_lm *d, float *logits, int n)
{
	int V = d->s.V, blocks = (V + SOFTCAP_COLUMNS - 1) / SOFTCAP_COLUMNS;
	float cap = d->s.final_softcap;
	for (int t; (t = team_take(&d->team, 1)) < n * blocks;) {
		float *row = logits + (size_t)(t / blocks) * (size_t)V;
		int from = t % blocks * SOFTCAP_COLUMNS, to = least(from + SOFTCAP_COLUMNS, V);
		for (int i = from; i < to; i++)
			row[i] = cap * tanhf(row[i] / cap);
	}
	team_meet(&d->team);
}

void stave_lm_logits(struct stave_lm *d, const float *const *hidden, int n, float *logits)
{
	d->mark_s = stave_now_s();
	d->adapted = false;
#pragma omp parallel num_threads(d->threads)
	for (int done = 0; done < n; done += d->c.rows) {
		int m = least(n - done, d->c.rows);
		float *to = logits + (size_t)done * (size_t)d->s.V;
		for (int r; (r = team_take(&d->team, 1)) < m;)
			lm_operand_row(d->head.kinds, d->operand, hidden[done + r], m, d->s.C, r);
		team_meet(&d->team);
		lm_lap(d, &d->times.element_s);
		lm_multiply(d, &d->head, d->operand, m, to, (size_t)d->s.V, -1);
		lm_lap(d, &d->times.matmul_s);
		if (d->s.final_softcap > 0)
			softcap(d, to, m);
		lm_lap(d, &d->times.element_s);
	}
}
