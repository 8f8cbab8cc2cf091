/* Private to paged*.c: where an element lies in a page, what a row sees, and the scratch of a call.
 *
 * A page is two operands of a product, each cut into groups of 16 lanes, one vector of AVX-512: K (64/16, D/per, 16, per),
 * whose lanes are keys, then V (W/16, 64/per, 16, per), whose lanes are dimensions, W being D rounded up to 16. `per` is 2
 * for 16-bit and 8-bit elements, neighbours along the inner dimension side by side as vdpbf16ps and vpdpwssd want them, and 1
 * for floats. An int8 page ends with 64 scales of K and 64 of V. */
#ifndef STAVE_KERNEL_PAGED_PARTS_H
#define STAVE_KERNEL_PAGED_PARTS_H

#include "kernel/paged.h"

enum {
	PAGED_GROUP = 16,      /* lanes of one group */
	PAGED_TILE = 6,        /* most query rows worked on at once */
	PAGED_BLOCK = 16384,   /* query values of a block: it and its output stay in the second-level cache */
};

static inline int paged_wide(int D) { return (D + PAGED_GROUP - 1) / PAGED_GROUP * PAGED_GROUP; }

/* Index of element d of the key or value of position `at`; V begins STAVE_PAGE * D elements after K. */
static inline size_t paged_k(int at, int d, int D, int per)
{
	return ((size_t)(at / PAGED_GROUP * (D / per) + d / per) * PAGED_GROUP + at % PAGED_GROUP) * per + d % per;
}
static inline size_t paged_v(int at, int d, int per)
{
	return ((size_t)(d / PAGED_GROUP * (STAVE_PAGE / per) + at / per) * PAGED_GROUP + d % PAGED_GROUP) * per + at % per;
}
/* Scales of an int8 page: K's, then V's. */
static inline size_t paged_scales_at(int D) { return (size_t)STAVE_PAGE * (D + paged_wide(D)); }

/* The first and last position row r sees. */
static inline int paged_first(const struct stave_paged_attn *a, int r)
{
	int first = a->past + r - a->window + 1;
	return a->bidirectional || !a->window || first < 0 ? 0 : first;
}
static inline int paged_last(const struct stave_paged_attn *a, int r)
{
	return a->past + (a->bidirectional ? a->n - 1 : r);
}

/* Rows of q, with their G heads, that are taken together. */
static inline int paged_block_rows(int G, int D)
{
	int rows = PAGED_BLOCK / (D * G);
	return rows > 0 ? rows : 1;
}

/* A call's scratch, in bytes from its start; the lanes of query rows are (row, head), head fastest. */
struct paged_scratch {
	size_t q, q_scale, o, max, sum, score, p, end;
};
static inline struct paged_scratch paged_lay_out(int G, int D)
{
	size_t rows = (size_t)paged_block_rows(G, D) * G, at = 0;
	struct paged_scratch s;
#define TAKE(field, bytes) (s.field = at, at += ((bytes) + 63) / 64 * 64)
	TAKE(q, rows * D * sizeof(float));
	TAKE(q_scale, rows * sizeof(float));
	TAKE(o, rows * paged_wide(D) * sizeof(float));
	TAKE(max, rows * sizeof(float));
	TAKE(sum, rows * PAGED_GROUP * sizeof(float));
	TAKE(score, PAGED_TILE * STAVE_PAGE * sizeof(float));
	TAKE(p, PAGED_TILE * STAVE_PAGE * sizeof(float));
#undef TAKE
	s.end = at;
	return s;
}

#endif
