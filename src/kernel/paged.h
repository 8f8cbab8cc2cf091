/* Attention over a paged cache: a sequence's keys and values lie in pages of STAVE_PAGE positions; one page of one key/value
 * head holds K and V, in the layout the products want (private to paged*.c). One thread's work: one key/value head of one
 * sequence, with the G query heads that share it and n consecutive query rows.
 *
 * The arithmetic of one row (softmax in blocks of one page, from the first visible page up, running maximum and sum in
 * float) depends only on its position and the cache: not on n, not on how a prompt was cut. A row computed alone
 * equals the row computed among others, to the bit. */
#ifndef STAVE_KERNEL_PAGED_H
#define STAVE_KERNEL_PAGED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STAVE_PAGE 64

/* F32: exact, for checks. BF16: products by bf16 instructions where the CPU has them. I8: int8 with one float scale per
 * (position, head) of K and of V; exact products with 16-bit integers, one scale per query row and, for probabilities, per
 * row and page. */
enum stave_cache_type { STAVE_CACHE_F32, STAVE_CACHE_BF16, STAVE_CACHE_I8 };

/* Bytes of one page of one head, K and V; a multiple of 64. D even, at most 512. */
size_t stave_page_bytes(enum stave_cache_type t, int D);
/* Stores k (D) and v (D) of the position `at` (0..STAVE_PAGE-1) of the page. Position at-1's bytes stay what they are. */
void stave_page_put(enum stave_cache_type t, void *page, int at, const float *k, const float *v, int D);
/* What was stored, widened: for tests and for moving a cache. */
void stave_page_get(enum stave_cache_type t, const void *page, int at, float *k, float *v, int D);

struct stave_paged_attn {
	enum stave_cache_type type;
	int n, past;             /* rows at positions past .. past + n - 1, whose keys and values are already stored */
	int G, D;
	const float *q;          /* row r, head g, at q + r * ldq + g * D */
	float *o;                /* likewise with ldo */
	size_t ldq, ldo;
	const void *const *pages; /* pages[i]: this head's page for positions i * STAVE_PAGE … */
	int window;              /* a row sees its last `window` positions, itself included; 0 = all before it */
	float scale, softcap;    /* scores = softcap * tanh(q·k * scale / softcap); softcap 0 = none */
	bool bidirectional;      /* every row sees all past + n positions (encoders) */
};
void stave_paged_attention(const struct stave_paged_attn *a, void *scratch);
size_t stave_paged_scratch(int G, int D); /* bytes for any n, 64-aligned */

#endif
