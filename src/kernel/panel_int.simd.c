/* Products with the block types for any vector level: one panel's 16 outputs grow in the lanes of one vector, so there is
 * no sum across lanes, and a broadcast of four activations meets four codes of each of 16 rows in one instruction.
 *
 * One row of x (decoding) is bound by memory: the codes are unpacked in registers and used at once. Several rows are bound by
 * arithmetic: a chunk of a few panels is unpacked once into scratch (bytes and float scales, a record per group of 32),
 * where it stays in the second-level cache, and register tiles of 16 outputs by up to 12 rows of x run over it. The partial sums
 * of a tile wait in y between chunks, which is exact. Both ways call the same `step` for each group in order of k: the bits are the same.
 *
 * Codes go into the dot product as unsigned bytes, value + 128; -128 * sum(q) is in the operand, and the accumulator starts
 * there. Types with mins have codes from 0 and start from zero. */
#include "kernel/panel_simd.h"

#define UNROLL _Pragma("GCC unroll 32")

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

/* acc[0..count] gains the group that w, s and o (at this group) describe. m: rows of the operand's tile. */
INLINE void step(enum panel_kind kind, const int count, const ri *w, const rf *s, const struct panel_operand *o, size_t m, rf *acc)
{
	const bool two = kind == PANEL_TWO, mins = kind == PANEL_MIN || kind == PANEL_MIN2;
	const int sub = least(count, two ? SUB / 2 : SUB), halves = two ? 2 : 1;
	UNROLL for (int t0 = 0; t0 < count; t0 += sub) {
		const int live = least(sub, count - t0);
		ri d[2 * SUB];
		UNROLL for (int t = 0; t < live; t++) UNROLL for (int h = 0; h < halves; h++)
			d[2 * t + h] = mins ? ri_zero() : ri_set(two ? o->init16[(size_t)h * m + (size_t)(t0 + t)] : o->init[t0 + t]);
		const int8_t *q = o->q + 4 * t0;
		UNROLL for (int j = 0; j < 8; j++, q += 4 * m) UNROLL for (int t = 0; t < live; t++)
			d[2 * t + j / 4 * (halves - 1)] = ri_dot(d[2 * t + j / 4 * (halves - 1)], w[j], q + 4 * t);
		UNROLL for (int t = 0; t < live; t++) {
			const int at = t0 + t;
			const rf scale = rf_set(o->scale[at]);
			if (two)
				acc[at] = rf_fma(rf_fma(rf_of(d[2 * t + 1]), s[1], rf_mul(rf_of(d[2 * t]), s[0])), scale, acc[at]);
			else
				acc[at] = rf_fma(rf_of(d[2 * t]), rf_mul(s[0], scale), acc[at]);
			if (kind == PANEL_MIN)
				acc[at] = rf_fma(s[1], rf_set(o->smin[at]), acc[at]);
			if (kind == PANEL_MIN2) {
				acc[at] = rf_fma(s[1], rf_set(o->smin16[at]), acc[at]);
				acc[at] = rf_fma(s[2], rf_set(o->smin16[m + (size_t)at]), acc[at]);
			}
		}
	}
}

/* The first `rows` of sixteen floats; a panel's last rows may not exist. */
INLINE rf load_rows(const float *p, int rows)
{
	if (rows == STAVE_PANEL)
		return rf_load(p);
	float all[STAVE_PANEL] = {0};
	memcpy(all, p, (size_t)rows * 4);
	return rf_load(all);
}
INLINE void store_rows(float *p, rf v, int rows)
{
	float all[STAVE_PANEL];
	if (rows == STAVE_PANEL) {
		rf_store(p, v);
		return;
	}
	rf_store(all, v);
	memcpy(p, all, (size_t)rows * 4);
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

INLINE void one_row(enum stave_qtype t, const struct stave_packed *w, int p, const void *operand, float *y, const float *bias)
{
	const struct panel_layout l = panel_layouts[t];
	const int per_block = stave_qtype_info(t).per / 32, groups = w->cols / 32;
	struct panel_at at = panel_of(w, p);
	struct panel_operand o = panel_operand_tile(operand, 0, 1, w->cols);
	rf acc = rf_set(0);
	for (int g = 0; g < groups; at.scales += l.scales)
		for (int i = 0; i < per_block; i++, g++, at.planes += l.bits * 64) {
			ri codes[8];
			rf s[3];
			group_scales(t, at.scales, i, s);
			group_codes(t, at.planes, at.scales, i, codes);
			step(l.kind, 1, codes, s, &o, 1, &acc);
			o = panel_operand_at(o, 1);
		}
	const int rows = least(STAVE_PANEL, w->rows - p * STAVE_PANEL);
	if (bias)
		acc = rf_add(acc, load_rows(bias + p * STAVE_PANEL, rows));
	store_rows(y + p * STAVE_PANEL, acc, rows);
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

/* A register tile: `groups` records of one panel times the rows of an operand's tile (at the first group). */
struct tile {
	const char *record;
	int groups;
	struct panel_operand o;
	float *y;   /* first output of the panel, first row of the tile */
	size_t ldy;
	int rows;   /* of the panel that exist */
	bool first; /* y holds no sums yet */
	const float *bias; /* of this panel, after the last group; or NULL */
};

INLINE void run_tile(enum panel_kind kind, const int count, const struct tile *a)
{
	rf acc[PANEL_TILE];
	UNROLL for (int t = 0; t < count; t++) acc[t] = a->first ? rf_set(0) : load_rows(a->y + (size_t)t * a->ldy, a->rows);
	struct panel_operand o = a->o;
	const char *record = a->record;
	for (int g = 0; g < a->groups; g++, record += record_bytes(kind)) {
		const float *scales = (const float *)(const void *)(record + 512);
		rf s[3];
		UNROLL for (size_t k = 0; k < record_bytes(kind) / 64 - 8; k++) s[k] = rf_load(scales + 16 * k);
		step(kind, count, (const ri *)(const void *)record, s, &o, o.m, acc);
		o = panel_operand_at(o, 1);
	}
	UNROLL for (int t = 0; t < count; t++) {
		rf v = a->bias ? rf_add(acc[t], load_rows(a->bias, a->rows)) : acc[t];
		store_rows(a->y + (size_t)t * a->ldy, v, a->rows);
	}
}

#define COUNTS(X, kind) X(kind, 1) X(kind, 2) X(kind, 3) X(kind, 4) X(kind, 5) X(kind, 6) X(kind, 7) X(kind, 8) X(kind, 9) X(kind, 10) X(kind, 11) X(kind, 12)
#define KINDS(X) COUNTS(X, SYM) COUNTS(X, MIN) COUNTS(X, TWO) COUNTS(X, MIN2)
#define DEFINE(kind, count) \
	static void tile_##kind##_##count(const struct tile *a) { run_tile(PANEL_##kind, count, a); }
KINDS(DEFINE)
#define NAME(kind, count) tile_##kind##_##count,
static void (*const tiles[4][PANEL_TILE])(const struct tile *) = {
	{COUNTS(NAME, SYM)}, {COUNTS(NAME, MIN)}, {COUNTS(NAME, TWO)}, {COUNTS(NAME, MIN2)},
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

/* A chunk: panels and groups that are expanded together. With one tile of rows each record is used once, so it need only
 * pass through the first-level cache; with more, the panels wait in the second level while the tiles of x, which fit the
 * first, pass over them. */
struct chunk { int panels, groups; };
INLINE struct chunk chunk_of(int n)
{
	return n <= PANEL_TILE ? (struct chunk){1, 8} : (struct chunk){PANEL_CHUNK_PANELS, PANEL_CHUNK_GROUPS};
}

/* Every tile of x over the expanded groups g0..g1 of panels p0..p1. */
static void run_chunk(const struct stave_packed *w, int p0, int p1, int g0, int g1, const void *operand, int n, float *y,
                      size_t ldy, const float *bias, const char *scratch)
{
	const enum panel_kind kind = panel_layouts[w->type].kind;
	const size_t panel = (size_t)(g1 - g0) * record_bytes(kind);
	for (int tile = 0; tile < panel_tiles(n); tile++) {
		struct tile a = {.groups = g1 - g0, .ldy = ldy, .first = g0 == 0};
		a.o = panel_operand_at(panel_operand_tile(operand, tile, n, w->cols), g0);
		for (int p = p0; p < p1; p++) {
			a.record = scratch + (size_t)(p - p0) * panel;
			a.y = y + (size_t)panel_tile_first(tile, n) * ldy + p * STAVE_PANEL;
			a.rows = least(STAVE_PANEL, w->rows - p * STAVE_PANEL);
			a.bias = bias && g1 * 32 == w->cols ? bias + p * STAVE_PANEL : NULL;
			tiles[kind][a.o.m - 1](&a);
		}
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
	const struct chunk c = chunk_of(n);
	const int groups = w->cols / 32;
	const size_t record = record_bytes(panel_layouts[w->type].kind);
	for (int p = p0; p < p1; p += c.panels)
		for (int g = 0; g < groups; g += c.groups) {
			const int pe = least(p1, p + c.panels), ge = least(groups, g + c.groups);
			for (int i = p; i < pe; i++)
				types[w->type].expand(w, i, g, ge, (char *)scratch + (size_t)(i - p) * (size_t)(ge - g) * record);
			run_chunk(w, p, pe, g, ge, operand, n, y, ldy, bias, scratch);
		}
}
