/* Products with the block types for any vector level: one panel's 16 outputs grow in the lanes of one vector, so there is
 * no sum across lanes, and a broadcast of four activations meets four codes of each of 16 rows in one instruction.
 *
 * One row of x (decoding) is bound by memory: the codes are unpacked in registers and used at once. Several rows are bound by
 * arithmetic: a chunk of two panels is unpacked once into scratch (bytes and float scales, a record per group of 32), where
 * it stays in the first-level cache while all rows of x pass, in register tiles of 32 outputs by 6 rows. The partial sums
 * of a tile wait in memory between chunks, which is exact. Both ways call the same `step` for each group in order of k: the bits are the same.
 *
 * Codes go into the dot product as unsigned bytes, value + 128; -128 * sum(q) is in the operand, and the accumulator starts
 * there. Types with mins have codes from 0 and start from zero. */
#include "kernel/panel_simd.h"

/* Sums stay in registers only where loops over them are unrolled. */
#ifdef STAVE_INSTRUMENTED
#define UNROLL
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

/* ---- codes ---- */

/* The eight quads of a group from its planes. */
INLINE void unpack(int bits, const char *planes, ri w[8])
{
	const ri nibble = ri_set(0x0f0f0f0f), two = ri_set(0x03030303);
	if (bits == 8) {
		UNROLL for (int j = 0; j < 8; j++) w[j] = ri_load(planes + 64 * j);
		return;
	}
	if (bits >= 4) {
		UNROLL for (int i = 0; i < 4; i++) {
			ri z = ri_load(planes + 64 * i);
			w[i] = ri_and(z, nibble);
			w[i + 4] = ri_and(ri_srl16(z, 4), nibble);
		}
		planes += 256;
	} else {
		UNROLL for (int i = 0; i < 2; i++) {
			ri z = ri_load(planes + 64 * i);
			w[4 * i] = ri_and(z, two);
			w[4 * i + 1] = ri_and(ri_srl16(z, 2), two);
			w[4 * i + 2] = ri_and(ri_srl16(z, 4), two);
			w[4 * i + 3] = ri_and(ri_srl16(z, 6), two);
		}
		planes += 128;
	}
	if (bits == 5 || bits == 3) {
		const int at = bits - 1;
		const ri mask = ri_set(0x01010101 << at);
		ri z = ri_load(planes);
		UNROLL for (int j = 0; j < 8; j++) w[j] = ri_or_and(w[j], j < at ? ri_sll16(z, at - j) : ri_srl16(z, j - at), mask);
	}
	if (bits == 6) {
		const ri mask = ri_set(0x30303030);
		UNROLL for (int j = 0; j < 8; j++) {
			ri z = ri_load(planes + 64 * (j / 4));
			w[j] = ri_or_and(w[j], j % 4 < 2 ? ri_sll16(z, 4 - 2 * (j % 4)) : ri_srl16(z, 2 * (j % 4) - 4), mask);
		}
	}
}

INLINE ri small_signed(const char *p) { return ri_signed(_mm_loadu_si128((const __m128i *)(const void *)p)); }
INLINE ri small_unsigned(const char *p) { return ri_unsigned(_mm_loadu_si128((const __m128i *)(const void *)p)); }

/* Q3_K: with the sub-scale s of 16 elements, 128 - s (code - 4) is 0..252, so a group has one scale, -d (stored so), and
 * the dot product is the exact integer. Two neighbouring bytes are multiplied as one 16-bit number: (a + 256 b) s =
 * a s + 256 b s, and taken from 257 (128 + 4 s) both bytes come out in range, whatever was borrowed between. */
INLINE void scale_q3k(ri w[8], const char *small)
{
	for (int h = 0; h < 2; h++) {
		ri s = ri_pair(small_signed(small + 16 * h));
		ri base = ri_add16(ri_sll16(s, 2), ri_set(0x00800080));
		base = ri_add16(base, ri_sll16(base, 8));
		UNROLL for (int j = 0; j < 4; j++) w[4 * h + j] = ri_sub16(base, ri_mul16(w[4 * h + j], s));
	}
}

/* Q2_K: sub-scale (0..15) times code (0..3) fits a byte. */
INLINE void scale_q2k(ri w[8], const char *small)
{
	for (int h = 0; h < 2; h++) {
		ri s = ri_pair(ri_and(small_unsigned(small + 16 * h), ri_set(15)));
		UNROLL for (int j = 0; j < 4; j++) w[4 * h + j] = ri_mul16(w[4 * h + j], s);
	}
}

/* The codes of group g (of its block) as unsigned bytes: value + 128, or the value itself for types with mins. */
INLINE void group_codes(enum stave_qtype t, const char *planes, const char *scales, int g, ri w[8])
{
	const struct panel_layout l = panel_layouts[t];
	unpack(l.bits, planes, w);
	if (l.table) {
		__m128i table = _mm_loadu_si128((const __m128i *)(const void *)panel_values(t));
		table = _mm_add_epi8(table, _mm_set1_epi8(-128));
		UNROLL for (int j = 0; j < 8; j++) w[j] = ri_lookup(table, w[j]);
	} else if (t == STAVE_Q_Q3_K) {
		scale_q3k(w, scales + 32 + 32 * g);
	} else if (t == STAVE_Q_Q2_K) {
		scale_q2k(w, scales + 64 + 32 * g);
	} else if (l.offset && l.offset != 128) {
		const ri add = ri_set(0x01010101 * (128 - l.offset));
		UNROLL for (int j = 0; j < 8; j++) w[j] = ri_add8(w[j], add);
	}
}

/* ---- scales ---- */

/* 2^(e - 128): normal from e = 2 on, below that a subnormal. */
INLINE rf power_of_two(const char *p)
{
	ri e = small_unsigned(p);
	ri normal = ri_sll32(ri_add(e, ri_set(-1)), 23); /* e = 1 gives zero, e = 0 a negative number */
	ri low = ri_add(ri_set(0x00200000), ri_and(ri_sll32(e, 21), ri_set(0x00200000)));
	/* low is 2^-128 or, for odd e, 2^-127: below every normal one */
	return rf_bits(ri_max(normal, low));
}

/* The one to three scales and mins of group g (of its block). Products of an f16 and a small integer are exact. */
INLINE void group_scales(enum stave_qtype t, const char *scales, int g, rf s[3])
{
	s[0] = s[1] = s[2] = rf_set(0);
	if (t == STAVE_Q_MXFP4) {
		s[0] = power_of_two(scales);
		return;
	}
	rf d = rf_half(scales);
	s[0] = d;
	if (t == STAVE_Q_Q4_1 || t == STAVE_Q_Q5_1) {
		s[1] = rf_half(scales + 32);
	} else if (t == STAVE_Q_Q4_K || t == STAVE_Q_Q5_K) {
		s[0] = rf_mul(d, rf_of(small_unsigned(scales + 64 + 16 * g)));
		s[1] = rf_mul(rf_half(scales + 32), rf_of(small_unsigned(scales + 192 + 16 * g)));
	} else if (t == STAVE_Q_Q6_K) {
		s[0] = rf_mul(d, rf_of(small_signed(scales + 32 + 32 * g)));
		s[1] = rf_mul(d, rf_of(small_signed(scales + 48 + 32 * g)));
	} else if (t == STAVE_Q_IQ4_XS) {
		s[0] = rf_mul(d, rf_of(small_signed(scales + 32 + 16 * g)));
	} else if (t == STAVE_Q_Q2_K) {
		rf m = rf_half(scales + 32);
		const ri nibble = ri_set(15);
		for (int h = 0; h < 2; h++)
			s[1 + h] = rf_mul(m, rf_of(ri_and(ri_srl16(small_unsigned(scales + 64 + 32 * g + 16 * h), 4), nibble)));
	}
}

/* ---- one group of one tile ---- */

INLINE int least(int a, int b) { return a < b ? a : b; }

/* The same group of one or two panels: quads and scales, in registers or in a record. */
struct group {
	const ri *w;
	const rf *s;
};

/* acc[p][0..count] gains a group of panel p; o is the operand's tile at this group. An activation, broadcast once, meets
 * the codes of both panels: loads, one a cycle at this width, would otherwise be what limits the products. */
INLINE void step(enum panel_kind kind, const int panels, const int count, const struct group *g, const struct panel_operand *o,
                 size_t m, rf acc[2][PANEL_TILE])
{
	const bool two = kind == PANEL_TWO, mins = kind == PANEL_MIN || kind == PANEL_MIN2;
	const int sub = least(count, two ? SUB / 2 : SUB), halves = two ? 2 : 1;
	UNROLL for (int t0 = 0; t0 < count; t0 += sub) {
		const int live = least(sub, count - t0);
		ri d[2][SUB][2];
		UNROLL for (int t = 0; t < live; t++) UNROLL for (int h = 0; h < halves; h++) {
			ri start = mins ? ri_zero() : ri_set(two ? o->init16[(size_t)h * m + (size_t)(t0 + t)] : o->init[t0 + t]);
			UNROLL for (int p = 0; p < panels; p++) d[p][t][h] = start;
		}
		const int8_t *q = o->q + 4 * t0;
		UNROLL for (int j = 0; j < 8; j++, q += 4 * m) UNROLL for (int t = 0; t < live; t++) {
			const int h = j / 4 * (halves - 1);
			const ri x = ri_set(load_int(q + 4 * t));
			UNROLL for (int p = 0; p < panels; p++) d[p][t][h] = ri_dot(d[p][t][h], g[p].w[j], x);
		}
		UNROLL for (int t = 0; t < live; t++) UNROLL for (int p = 0; p < panels; p++) {
			const rf *s = g[p].s, scale = rf_set(o->scale[t0 + t]);
			rf *a = &acc[p][t0 + t];
			if (two)
				*a = rf_fma(rf_fma(rf_of(d[p][t][1]), s[1], rf_mul(rf_of(d[p][t][0]), s[0])), scale, *a);
			else
				*a = rf_fma(rf_of(d[p][t][0]), rf_mul(s[0], scale), *a);
			if (kind == PANEL_MIN)
				*a = rf_fma(s[1], rf_set(o->smin[t0 + t]), *a);
			if (kind == PANEL_MIN2) {
				*a = rf_fma(s[1], rf_set(o->smin16[t0 + t]), *a);
				*a = rf_fma(s[2], rf_set(o->smin16[m + (size_t)(t0 + t)]), *a);
			}
		}
	}
}

/* ---- one row of x ---- */

struct panel_at {
	const char *scales, *planes;
};
INLINE struct panel_at panel_of(const struct stave_packed *w, int p)
{
	const char *panel = (const char *)w->data + (size_t)p * panel_int_bytes(w->type, w->cols);
	return (struct panel_at){panel, panel + panel_scale_bytes(w->type, w->cols)};
}

/* The processor's own prefetching stops at pages and is shared by two streams, scales and planes: asking for lines this far
 * ahead gains a fifth. Addresses beyond the panel are the next panel's, or harmless. */
enum { AHEAD = 3072, SCALES_AHEAD = 1024 };

INLINE void fetch(const char *p, int bytes)
{
	for (int i = 0; i < bytes; i += 64)
		_mm_prefetch(p + i, _MM_HINT_T0);
}

INLINE void one_row(enum stave_qtype t, const struct stave_packed *w, int p, const void *operand, float *y, const float *bias)
{
	const struct panel_layout l = panel_layouts[t];
	const int per_block = stave_qtype_info(t).per / 32, groups = w->cols / 32;
	struct panel_at at = panel_of(w, p);
	struct panel_operand o = panel_operand_tile(operand, 0, 1, w->cols);
	rf acc[2][PANEL_TILE];
	acc[0][0] = rf_set(0);
	for (int g = 0; g < groups; at.scales += l.scales) {
		fetch(at.scales + SCALES_AHEAD, l.scales);
		for (int i = 0; i < per_block; i++, g++, at.planes += l.bits * 64) {
			ri codes[8];
			rf s[3];
			fetch(at.planes + AHEAD, l.bits * 64);
			group_scales(t, at.scales, i, s);
			group_codes(t, at.planes, at.scales, i, codes);
			step(l.kind, 1, 1, &(struct group){codes, s}, &o, 1, acc);
			o = panel_operand_at(o, 1);
		}
	}
	const int rows = least(STAVE_PANEL, w->rows - p * STAVE_PANEL);
	if (bias)
		acc[0][0] = rf_add(acc[0][0], rf_load_n(bias + p * STAVE_PANEL, rows));
	rf_store_n(y + p * STAVE_PANEL, acc[0][0], rows);
}

/* ---- several rows of x ---- */

/* A record of a group in scratch: eight quads, then the scales its kind has. */
INLINE size_t record_bytes(enum panel_kind kind)
{
	return 512 + 64 * (kind == PANEL_SYM ? 1 : kind == PANEL_MIN2 ? 3 : 2);
}

/* Groups g0..g1 of a panel as records; g0 begins a block. */
INLINE void expand(enum stave_qtype t, const struct stave_packed *w, int p, int g0, int g1, char *record)
{
	const struct panel_layout l = panel_layouts[t];
	const int per_block = stave_qtype_info(t).per / 32;
	struct panel_at at = panel_of(w, p);
	const char *scales = at.scales + (size_t)(g0 / per_block) * (size_t)l.scales, *planes = at.planes + (size_t)g0 * l.bits * 64;
	for (int g = g0; g < g1; scales += l.scales)
		for (int i = 0; i < per_block; i++, g++, planes += l.bits * 64, record += record_bytes(l.kind)) {
			ri codes[8];
			rf s[3];
			group_scales(t, scales, i, s);
			group_codes(t, planes, scales, i, codes);
			UNROLL for (int j = 0; j < 8; j++) ri_store(record + 64 * j, codes[j]);
			UNROLL for (size_t k = 0; k < record_bytes(l.kind) / 64 - 8; k++) rf_store((float *)(void *)(record + 512 + 64 * k), s[k]);
		}
}

/* What the next chunk will read: scales and planes of two panels. The tiles ask for a few lines with each group; more at once
 * would wait for one another and hold up everything else. */
struct ahead {
	const char *at[4], *end[4];
	int lines[4]; /* with each group */
};

INLINE void prefetch(struct ahead *a)
{
	for (int i = 0; i < 4; i++)
		for (int k = 0; k < a->lines[i] && a->at[i] < a->end[i]; k++, a->at[i] += 64)
			_mm_prefetch(a->at[i], _MM_HINT_T1);
}

/* A register tile: `groups` records of one panel or two times the rows of an operand's tile (at the first group). */
struct tile {
	const char *record[2];
	int groups;
	struct panel_operand o;
	float *sums; /* (rows of the tile, 32) */
	struct ahead *ahead;
};

INLINE void run_tile(enum panel_kind kind, const int panels, const int count, const struct tile *a)
{
	rf acc[2][PANEL_TILE];
	UNROLL for (int t = 0; t < count; t++) UNROLL for (int p = 0; p < panels; p++)
		acc[p][t] = rf_load(a->sums + (2 * t + p) * STAVE_PANEL);
	struct panel_operand o = a->o;
	size_t at = 0;
	for (int i = 0; i < a->groups; i++, at += record_bytes(kind)) {
		prefetch(a->ahead);
		struct group g[2];
		UNROLL for (int p = 0; p < panels; p++)
			g[p] = (struct group){(const ri *)(const void *)(a->record[p] + at), (const rf *)(const void *)(a->record[p] + at + 512)};
		step(kind, panels, count, g, &o, o.m, acc);
		o = panel_operand_at(o, 1);
	}
	UNROLL for (int t = 0; t < count; t++) UNROLL for (int p = 0; p < panels; p++)
		rf_store(a->sums + (2 * t + p) * STAVE_PANEL, acc[p][t]);
}

#define COUNTS(X, kind, p) X(kind, p, 1) X(kind, p, 2) X(kind, p, 3) X(kind, p, 4) X(kind, p, 5) X(kind, p, 6)
#define KINDS(X, p) COUNTS(X, SYM, p) COUNTS(X, MIN, p) COUNTS(X, TWO, p) COUNTS(X, MIN2, p)
#define DEFINE(kind, p, count) \
	static void tile_##kind##_##p##_##count(const struct tile *a) { run_tile(PANEL_##kind, p, count, a); }
KINDS(DEFINE, 1)
KINDS(DEFINE, 2)
#define NAME(kind, p, count) tile_##kind##_##p##_##count,
static void (*const tiles[2][4][PANEL_TILE])(const struct tile *) = {
	{{COUNTS(NAME, SYM, 1)}, {COUNTS(NAME, MIN, 1)}, {COUNTS(NAME, TWO, 1)}, {COUNTS(NAME, MIN2, 1)}},
	{{COUNTS(NAME, SYM, 2)}, {COUNTS(NAME, MIN, 2)}, {COUNTS(NAME, TWO, 2)}, {COUNTS(NAME, MIN2, 2)}},
};

/* Per type, the two functions that know its bits. */
#define TYPES(X) X(Q8_0) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ4_NL) X(IQ4_XS) X(MXFP4)
#define DEFINE_TYPE(t)                                                                                                      \
	static void one_row_##t(const struct stave_packed *w, int p, const void *operand, float *y, const float *bias)     \
	{                                                                                                                  \
		one_row(STAVE_Q_##t, w, p, operand, y, bias);                                                              \
	}                                                                                                                  \
	static void expand_##t(const struct stave_packed *w, int p, int g0, int g1, char *record)                          \
	{                                                                                                                  \
		expand(STAVE_Q_##t, w, p, g0, g1, record);                                                                 \
	}
TYPES(DEFINE_TYPE)
#define TYPE_ROW(t) [STAVE_Q_##t] = {one_row_##t, expand_##t},
static const struct {
	void (*one_row)(const struct stave_packed *w, int p, const void *operand, float *y, const float *bias);
	void (*expand)(const struct stave_packed *w, int p, int g0, int g1, char *record);
} types[STAVE_QTYPE_COUNT] = {TYPES(TYPE_ROW)};

/* A block of the product: tiles t0..t1 of x, groups g0..g1 and panels p0..p1 of W. Within it the operand stays in the
 * second-level cache while the weights stream past: each pair of panels is expanded chunk by chunk, and each chunk meets all
 * the tiles. Partial sums of a pair lie side by side in scratch: rows of y are often a power of two apart and would evict each other. */
enum { BLOCK_TILES = PANEL_BLOCK_ROWS / PANEL_TILE, BLOCK_GROUPS = 64 };

struct block {
	const struct stave_packed *w;
	const void *operand;
	int n, t0, t1, g0, g1, p0, p1;
	float *y;
	size_t ldy;
	const float *bias;
	float *sums;   /* (rows of the tiles, 32) */
	char *records; /* (2, PANEL_CHUNK) */
};

/* What the chunk after this one reads, spread over the `steps` groups of this one's tiles. */
static struct ahead look_ahead(const struct block *b, int p, int g, int steps)
{
	struct ahead a = {.lines = {0}};
	const struct panel_layout l = panel_layouts[b->w->type];
	const int per_block = stave_qtype_info(b->w->type).per / 32;
	if (g >= b->g1) {
		g = b->g0;
		p += 2;
	}
	const int groups = least(PANEL_CHUNK, b->g1 - g);
	const size_t bytes[2] = {(size_t)groups * l.bits * 64, (size_t)(groups / per_block) * (size_t)l.scales};
	for (int i = 0; i < 2 && p + i < b->p1; i++) {
		struct panel_at at = panel_of(b->w, p + i);
		a.at[2 * i] = at.planes + (size_t)g * l.bits * 64;
		a.at[2 * i + 1] = at.scales + (size_t)(g / per_block) * (size_t)l.scales;
		for (int k = 0; k < 2; k++) {
			a.end[2 * i + k] = a.at[2 * i + k] + bytes[k];
			a.lines[2 * i + k] = (int)(bytes[k] / 64) / steps + 1;
		}
	}
	return a;
}

/* The tiles over the expanded groups g.. of `panels` panels; next: what will be expanded after this. */
static void run_chunk(const struct block *b, int panels, int g, int groups, struct ahead *next)
{
	const enum panel_kind kind = panel_layouts[b->w->type].kind;
	struct tile a = {.groups = groups, .ahead = next};
	for (int i = 0; i < 2; i++)
		a.record[i] = b->records + (size_t)(i * PANEL_CHUNK) * record_bytes(kind);
	a.sums = b->sums;
	for (int t = b->t0; t < b->t1; t++) {
		a.o = panel_operand_at(panel_operand_tile(b->operand, t, b->n, b->w->cols), g);
		tiles[panels - 1][kind][a.o.m - 1](&a);
		a.sums += a.o.m * 2 * STAVE_PANEL;
	}
}

/* Sums of a pair of panels from y, or zero before the first group; and back, with the bias after the last group. */
static void load_sums(const struct block *b, int p, int panels, int r0, int r1)
{
	for (int r = r0; r < r1; r++)
		for (int i = 0; i < panels; i++) {
			const int o = (p + i) * STAVE_PANEL, rows = least(STAVE_PANEL, b->w->rows - o);
			rf v = b->g0 ? rf_load_n(b->y + (size_t)r * b->ldy + o, rows) : rf_set(0);
			rf_store(b->sums + (size_t)(r - r0) * 2 * STAVE_PANEL + STAVE_PANEL * i, v);
		}
}
static void store_sums(const struct block *b, int p, int panels, int r0, int r1)
{
	const float *bias = b->g1 * PANEL_GROUP == b->w->cols ? b->bias : NULL;
	for (int r = r0; r < r1; r++)
		for (int i = 0; i < panels; i++) {
			const int o = (p + i) * STAVE_PANEL, rows = least(STAVE_PANEL, b->w->rows - o);
			rf v = rf_load(b->sums + (size_t)(r - r0) * 2 * STAVE_PANEL + STAVE_PANEL * i);
			rf_store_n(b->y + (size_t)r * b->ldy + o, bias ? rf_add(v, rf_load_n(bias + o, rows)) : v, rows);
		}
}

static void run_block(const struct block *b)
{
	const size_t panel = (size_t)PANEL_CHUNK * record_bytes(panel_layouts[b->w->type].kind);
	const int r0 = panel_tile_first(b->t0, b->n), r1 = panel_tile_first(b->t1, b->n);
	for (int p = b->p0; p < b->p1; p += 2) {
		const int panels = least(2, b->p1 - p);
		load_sums(b, p, panels, r0, r1);
		for (int g = b->g0; g < b->g1; g += PANEL_CHUNK) {
			const int end = least(b->g1, g + PANEL_CHUNK);
			struct ahead next = look_ahead(b, p, end, (end - g) * (b->t1 - b->t0));
			for (int i = 0; i < panels; i++)
				types[b->w->type].expand(b->w, p + i, g, end, b->records + (size_t)i * panel);
			run_chunk(b, panels, g, end - g, &next);
		}
		store_sums(b, p, panels, r0, r1);
	}
}

void STAVE_LEVELED(panel_int_multiply)(const struct stave_packed *w, int p0, int p1, const void *operand, int n, float *y,
                                       size_t ldy, const float *bias, void *scratch)
{
	if (n == 1) {
		for (int p = p0; p < p1; p++)
			types[w->type].one_row(w, p, operand, y, bias);
		return;
	}
	const int groups = w->cols / PANEL_GROUP;
	struct block b = {.w = w, .operand = operand, .n = n, .p0 = p0, .p1 = p1, .y = y, .ldy = ldy, .bias = bias};
	b.sums = scratch;
	b.records = (char *)scratch + PANEL_SUMS_BYTES;
	for (b.t0 = 0; b.t0 < panel_tiles(n); b.t0 = b.t1) {
		b.t1 = least(panel_tiles(n), b.t0 + BLOCK_TILES);
		for (b.g0 = 0; b.g0 < groups; b.g0 = b.g1) {
			b.g1 = least(groups, b.g0 + BLOCK_GROUPS);
			run_block(&b);
		}
	}
}
