/* Packing: the rows of a matrix in the mapping become panels (kernel/panel.h).
 *
 * Memory that nobody has used yet is what costs most of opening a model: a virtual machine takes up to 7 us to bring 4 KiB of it, several
 * times what packing takes. So a matrix that stays in its stored type is not packed by opening. A product packs the panels it needs into
 * scratch of its thread that stays in the processor's cache, at the price of reading the mapping with 16 rows at a time; and when there is
 * time, stave_lm_settle packs panel after panel for good, in the order in which layers use them. The bytes of a panel are the same in both
 * places, so results do not tell which. What must be converted, or gathered from a transposed matrix, takes so long that it is
 * done once, by opening.
 *
 * Once a matrix is packed the pages of the file that were read are given back to the kernel, so that the process holds one copy of
 * the weights, not two. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/sys.h"
#include "kernel/quant.h"
#include "model/lm.h"

#define SLICE_BYTES ((size_t)8 << 20) /* packed between two looks at the clock */
#define TASK_BYTES ((size_t)1 << 20)

/* Every matrix of the product to the list, if there is one; returns how many. */
static int add(struct lm_matrix **list, int n, struct lm_product *p)
{
	for (int i = 0; list && i < p->parts; i++)
		list[n + i] = &p->part[i];
	return n + p->parts;
}

static int matrices(struct stave_lm *d, struct lm_matrix **list)
{
	int n = 0;
	for (int i = 0; i < d->s.L; i++) {
		struct lm_layer *y = &d->layer[i];
		n = add(list, n, &y->qkv);
		n = add(list, n, &y->out);
		n = add(list, n, &y->up);
		n = add(list, n, &y->down);
		n = add(list, n, &y->router);
		for (int e = 0; e < d->s.experts; e++) {
			n = add(list, n, &y->expert_up[e]);
			n = add(list, n, &y->expert_down[e]);
		}
	}
	return add(list, n, &d->head);
}

/* The pages of the mapping that hold nothing but this matrix: read once, not wanted again. */
static void release(const struct stave_weight *w)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)w->data;
	uintptr_t end = begin + (size_t)(w->transposed ? w->cols : w->rows) * w->row_bytes;
	begin = (begin + page - 1) / page * page;
	end = end / page * page;
	if (end > begin)
		madvise((void *)begin, end - begin, MADV_DONTNEED);
}

static void *place(const struct lm_matrix *m, int p) { return (char *)m->w.data + (size_t)p * lm_panel_bytes(&m->w); }

/* ---- what cannot wait ---- */

/* Of one thread while packing a panel: 16 gathered rows as stored, one as floats, 16 as wanted. */
struct packer {
	char *stored, *wanted;
	float *plain;
	size_t row; /* from one of the rows to the next */
};

static void convert_panel(const struct lm_matrix *m, int p, const struct packer *k)
{
	const void *row[STAVE_PANEL];
	enum stave_qtype from = m->from.type, to = m->w.type;
	for (int i = 0; i < STAVE_PANEL; i++) {
		int r = p * STAVE_PANEL + i;
		row[i] = NULL;
		if (r >= m->w.rows)
			continue;
		row[i] = stave_weight_row(&m->from, r, k->stored + (size_t)i * k->row);
		if (from == to)
			continue;
		char *wanted = k->wanted + (size_t)i * k->row;
		stave_dequantize(from, k->plain, row[i], m->w.cols);
		stave_quantize(to, wanted, k->plain, m->w.cols);
		row[i] = wanted;
	}
	stave_pack_panel(to, place(m, p), row, m->w.cols);
}

static void convert_all(struct stave_lm *d, const struct packer *packer)
{
#pragma omp parallel num_threads(d->threads)
	{
		const struct packer *mine = &packer[stave_thread_index()];
		for (int i = 0; i < d->n_matrices; i++) {
			struct lm_matrix *m = d->matrix[i];
			if (lm_packs_later(m))
				continue;
#pragma omp for schedule(dynamic, 4) nowait
			for (int p = 0; p < stave_panels(&m->w); p++)
				convert_panel(m, p, mine);
		}
	}
	for (int i = 0; i < d->n_matrices; i++) {
		struct lm_matrix *m = d->matrix[i];
		if (lm_packs_later(m))
			continue;
		m->ready = stave_panels(&m->w);
		release(&m->from);
	}
}

int lm_pack(struct stave_lm *d, struct stave_err *err)
{
	size_t row = (size_t)d->widest * 4 + 64, each = (2 * STAVE_PANEL + 1) * row;
	d->n_matrices = matrices(d, NULL);
	d->matrix = malloc((size_t)d->n_matrices * sizeof *d->matrix);
	struct packer *packer = malloc((size_t)d->threads * sizeof *packer);
	char *memory = malloc((size_t)d->threads * each);
	bool ok = d->matrix && packer && memory;
	if (ok) {
		matrices(d, d->matrix);
		for (int t = 0; t < d->threads; t++) {
			char *base = memory + (size_t)t * each;
			packer[t] = (struct packer){.plain = (float *)base, .stored = base + row, .wanted = base + row + STAVE_PANEL * row, .row = row};
		}
		convert_all(d, packer);
	}
	free(memory);
	free(packer);
	return ok ? 0 : stave_err_set(err, STAVE_ENOMEM, "out of memory packing the weights");
}

/* ---- what can ---- */

bool lm_packs_later(const struct lm_matrix *m) { return m->from.type == m->w.type && !m->from.transposed; }

void lm_pack_panel(struct stave_lm *d, const struct lm_matrix *m, int p, void *panel)
{
	const void *row[STAVE_PANEL] = {NULL};
	int first = p * STAVE_PANEL, left = m->w.rows - first, n = left < STAVE_PANEL ? left : STAVE_PANEL;
	size_t bytes = stave_qtype_row_bytes(m->w.type, m->w.cols);
	char *rows = lm_self(d)->rows;
	for (int i = 0; i < n; i++)
		row[i] = stave_weight_row(&m->from, first + i, NULL);
	stave_map_gather(rows, row, n, bytes);
	for (int i = 0; i < n; i++)
		row[i] = rows + (size_t)i * bytes;
	stave_pack_panel(m->w.type, panel, row, m->w.cols);
}

/* The next panels of m. */
static void settle_slice(struct stave_lm *d, struct lm_matrix *m)
{
	size_t bytes = lm_panel_bytes(&m->w);
	int slice = (int)(SLICE_BYTES / bytes) + 1, task = (int)(TASK_BYTES / bytes) + 1, left = stave_panels(&m->w) - m->ready;
	int end = m->ready + (left < slice ? left : slice);
#pragma omp parallel for num_threads(d->threads) schedule(dynamic, task)
	for (int p = m->ready; p < end; p++)
		lm_pack_panel(d, m, p, place(m, p));
	m->ready = end;
	if (end == stave_panels(&m->w))
		release(&m->from);
}

bool stave_lm_settle(struct stave_lm *d, double seconds)
{
	double end = stave_now_s() + seconds;
	while (d->settled < d->n_matrices) {
		struct lm_matrix *m = d->matrix[d->settled];
		if (m->ready == stave_panels(&m->w))
			d->settled++;
		else if (stave_now_s() < end)
			settle_slice(d, m);
		else
			break;
	}
	return d->settled == d->n_matrices;
}
