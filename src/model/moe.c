/* Mixture of experts (Shazeer et al. 2017; Mixtral, Jiang et al. 2024): a router scores the experts for each row, the best few
 * compute it, and their results are summed with the softmax of the scores, divided by the sum of the chosen ones where the
 * family does so.
 *
 * Rows are grouped by expert: each expert that was chosen reads its matrices once, for all its rows, as a product of its
 * own. A row's experts, weights and the order of its sum depend on that row alone, best expert first, so grouping does not show
 * in the result. */
#include <math.h>
#include <string.h>

#include "base/sys.h"
#include "model/lm.h"

static size_t up64(size_t n) { return (n + 63) / 64 * 64; }

/* Operands of n rows cost at most those of n rows together and the rounding of each expert's share. */
static size_t operands_bytes(const struct stave_lm *d, enum stave_operand_kind kind, int n)
{
	int groups = n < d->s.experts ? n : d->s.experts, cols = d->s.C > d->s.I ? d->s.C : d->s.I;
	return up64(stave_operand_bytes(kind, n, cols)) + (size_t)groups * up64(stave_operand_bytes(kind, 1, cols));
}

void lm_moe_take(struct stave_lm *d, struct stave_arena *a)
{
	struct lm_moe *m = &d->moe;
	size_t n = (size_t)d->c.rows, E = (size_t)d->s.experts, places = n * (size_t)d->s.experts_used;
	m->score = stave_arena_take(a, n * E * 4);
	m->choice = stave_arena_take(a, places * 4);
	m->weight = stave_arena_take(a, places * 4);
	m->place = stave_arena_take(a, places * 4);
	m->row = stave_arena_take(a, places * 4);
	m->expert = stave_arena_take(a, places * 4);
	m->first = stave_arena_take(a, (E + 1) * 4);
	m->active = stave_arena_take(a, E * 4);
	m->up_end = stave_arena_take(a, E * 4);
	m->down_end = stave_arena_take(a, E * 4);
	for (int k = 0; k < STAVE_OPERAND_KINDS; k++)
		if (d->kinds >> k & 1) {
			m->operand[k] = stave_arena_take(a, operands_bytes(d, (enum stave_operand_kind)k, (int)places));
			m->at[k] = stave_arena_take(a, E * sizeof *m->at[k]);
		}
}

/* The experts of one row, best first (the lower number on a tie), and their weights. Scores that are not numbers lose. */
static void choose(const struct stave_lm *d, int r)
{
	int E = d->s.experts, used = d->s.experts_used;
	float *score = d->moe.score + (size_t)r * (size_t)E, *weight = d->moe.weight + (size_t)r * (size_t)used, max = -INFINITY, sum = 0;
	int32_t *choice = d->moe.choice + (size_t)r * (size_t)used;
	for (int e = 0; e < E; e++)
		max = score[e] > max ? score[e] : max;
	for (int e = 0; e < E; e++) {
		score[e] = expf(score[e] - max);
		sum += score[e];
	}
	float chosen = 0;
	for (int j = 0; j < used; j++) {
		int best = -1;
		for (int e = 0; e < E; e++)
			if (score[e] >= 0 && (best < 0 || score[e] > score[best]))
				best = e;
		for (int e = 0; best < 0; e++) /* nothing but NaN is left: any expert carries it on */
			if (!(score[e] < 0))
				best = e;
		choice[j] = best;
		weight[j] = score[best] / sum;
		chosen += weight[j];
		score[best] = -1; /* taken: below every exponential */
	}
	for (int j = 0; d->s.experts_norm && j < used; j++)
		weight[j] /= chosen;
}

/* Counting sort of the rows by expert, and the lists of tasks. */
static void group(struct stave_lm *d, const struct lm_layer *y)
{
	struct lm_moe *m = &d->moe;
	int E = d->s.experts, places = d->n_rows * d->s.experts_used, used = d->s.experts_used, ups = 0, downs = 0;
	memset(m->first, 0, ((size_t)E + 1) * 4);
	for (int i = 0; i < places; i++)
		m->first[m->choice[i] + 1]++;
	for (int e = 0; e < E; e++)
		m->first[e + 1] += m->first[e];
	for (int i = 0; i < places; i++) {
		int a = m->first[m->choice[i]]++;
		m->place[i] = a;
		m->row[a] = i / used;
		m->expert[a] = m->choice[i];
	}
	memmove(m->first + 1, m->first, (size_t)E * 4); /* each begin has become the next one's */
	m->first[0] = 0;
	size_t at[STAVE_OPERAND_KINDS] = {0};
	m->n_active = 0;
	for (int e = 0; e < E; e++) {
		int n = m->first[e + 1] - m->first[e], i = m->n_active;
		if (!n)
			continue;
		const struct lm_matrix *up = &y->expert_up[e].part[0], *down = &y->expert_down[e].part[0];
		int up_chunk = lm_chunk(d, up, n, y->expert_up[e].parts), down_chunk = lm_chunk(d, down, n, 0);
		m->active[m->n_active++] = e;
		m->up_end[i] = ups += (stave_panels(&up->w) + up_chunk - 1) / up_chunk;
		m->down_end[i] = downs += (stave_panels(&down->w) + down_chunk - 1) / down_chunk;
		for (int k = 0; k < STAVE_OPERAND_KINDS; k++)
			if (d->kinds >> k & 1) {
				int cols = d->s.C > d->s.I ? d->s.C : d->s.I;
				m->at[k][e] = at[k];
				at[k] += up64(stave_operand_bytes((enum stave_operand_kind)k, n, cols));
			}
	}
}

static void operand_of(const struct stave_lm *d, int e, void *operand[STAVE_OPERAND_KINDS])
{
	for (int k = 0; k < STAVE_OPERAND_KINDS; k++)
		operand[k] = d->moe.operand[k] ? (char *)d->moe.operand[k] + d->moe.at[k][e] : NULL;
}

/* Operands of all places, each expert's rows side by side: from the rows themselves, or from the activations by place. */
static void make_operands(struct stave_lm *d, const struct lm_layer *y, bool down)
{
	struct lm_moe *m = &d->moe;
	int places = d->n_rows * d->s.experts_used;
	for (int a; (a = team_take(&d->team, 1)) < places;) {
		int e = m->expert[a], n = m->first[e + 1] - m->first[e];
		const struct lm_product *p = down ? &y->expert_down[e] : &y->expert_up[e];
		const float *x = down ? d->act + (size_t)a * (size_t)d->s.I : d->h + (size_t)m->row[a] * (size_t)d->s.C;
		void *operand[STAVE_OPERAND_KINDS];
		operand_of(d, e, operand);
		lm_operand_row(p->kinds, operand, x, n, p->cols, a - m->first[e]);
	}
	team_meet(&d->team);
	lm_lap(d, &d->times.element_s);
}

/* Task t of a list: the active expert and its first panel. */
static int expert_of(const struct lm_moe *m, const int32_t *end, int t, int *task)
{
	int i = 0;
	while (t >= end[i])
		i++;
	*task = t - (i ? end[i - 1] : 0);
	return m->active[i];
}

static void up(struct stave_lm *d, const struct lm_layer *y)
{
	struct lm_moe *m = &d->moe;
	int tasks = m->up_end[m->n_active - 1];
	for (int t; (t = team_next(&d->team, tasks)) < tasks;) {
		int task, e = expert_of(m, m->up_end, t, &task), n = m->first[e + 1] - m->first[e];
		const struct lm_product *p = &y->expert_up[e];
		int chunk = lm_chunk(d, &p->part[0], n, p->parts), panels = stave_panels(&p->part[0].w), p0 = task * chunk;
		void *operand[STAVE_OPERAND_KINDS];
		operand_of(d, e, operand);
		lm_activate_chunk(d, p, operand, n, p0, p0 + chunk < panels ? p0 + chunk : panels, d->act + (size_t)m->first[e] * (size_t)d->s.I, -1);
	}
	team_meet(&d->team);
	lm_lap(d, &d->times.matmul_s);
}

static void down(struct stave_lm *d, const struct lm_layer *y)
{
	struct lm_moe *m = &d->moe;
	int tasks = m->down_end[m->n_active - 1];
	for (int t; (t = team_next(&d->team, tasks)) < tasks;) {
		int task, e = expert_of(m, m->down_end, t, &task), n = m->first[e + 1] - m->first[e];
		const struct lm_product *p = &y->expert_down[e];
		int chunk = lm_chunk(d, &p->part[0], n, 0), panels = stave_panels(&p->part[0].w), p0 = task * chunk;
		void *operand[STAVE_OPERAND_KINDS];
		operand_of(d, e, operand);
		lm_multiply_chunk(d, &p->part[0], 0, operand, n, p0, p0 + chunk < panels ? p0 + chunk : panels,
		                  d->y + (size_t)m->first[e] * (size_t)d->s.C + (size_t)p0 * STAVE_PANEL, (size_t)d->s.C, -1);
	}
	team_meet(&d->team);
	lm_lap(d, &d->times.matmul_s);
}

static void combine(struct stave_lm *d)
{
	struct lm_moe *m = &d->moe;
	int C = d->s.C, used = d->s.experts_used;
	for (int r; (r = team_take(&d->team, 1)) < d->n_rows;) {
		float *to = d->h + (size_t)r * (size_t)C;
		memset(to, 0, (size_t)C * 4);
		for (int j = r * used; j < (r + 1) * used; j++) {
			float *from = d->y + (size_t)m->place[j] * (size_t)C;
			d->k->scale(from, m->weight[j], (size_t)C);
			d->k->add(to, from, (size_t)C);
		}
	}
	team_meet(&d->team);
	lm_lap(d, &d->times.element_s);
}

void lm_experts(struct stave_lm *d, const struct lm_layer *y)
{
	lm_multiply(d, &y->router, d->operand, d->n_rows, d->moe.score, (size_t)d->s.experts, -1);
	lm_lap(d, &d->times.matmul_s);
	for (int r; (r = team_take(&d->team, 1)) < d->n_rows;)
		choose(d, r);
	team_meet(&d->team);
	if (stave_thread_index() == 0)
		group(d, y);
	team_meet(&d->team);
	make_operands(d, y, false);
	up(d, y);
	make_operands(d, y, true);
	down(d, y);
	combine(d);
}
