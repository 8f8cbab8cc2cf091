/* The arrays of one kernel call, for tests: described by a table, filled with random values, each ending at a page that
 * may not be touched and preceded by canary bytes. */
#ifndef TEST_KERNEL_ARRAYS_H
#define TEST_KERNEL_ARRAYS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/hash.h"
#include "kernel/dtype.h"

enum role { NONE, IN, OUT, INOUT };
enum kind { ACT, REAL, INDEX, WIDE }; /* activation of the shape's dtype, float, int32, double */
enum { MAX_ARRAYS = 10 };

/* One pointer argument: rows * cols cells, ld apart; not per_row means one row shared by all rows of the call. */
struct array {
	const char *name;
	enum role role;
	enum kind kind;
	bool per_row;
	size_t cols, ld;
	double lo, hi; /* values are uniform here; an index is below hi */
};

/* ---- random numbers ---- */

static uint64_t seed = 1, drawn;
static double unit(void) { return stave_random_unit(seed, drawn++); }
static int below(int n) { return (int)(unit() * n); }

/* ---- memory that ends where nothing may be touched ---- */

struct image {
	char *map, *p;
	size_t mapped, bytes;
};

static struct image image_new(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + page) / page * page; /* at least a byte of canary in front */
	struct image m = {.mapped = body + page, .bytes = bytes};
	m.map = mmap(NULL, m.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m.map == MAP_FAILED || mprotect(m.map + body, page, PROT_NONE)) {
		perror("mmap");
		exit(2);
	}
	memset(m.map, 0xa5, body);
	m.p = m.map + body - bytes;
	return m;
}

static void image_free(struct image *m)
{
	if (m->map)
		munmap(m->map, m->mapped);
	m->map = NULL;
}

/* ---- one set of arrays for one call ---- */

struct set {
	enum stave_dtype dt;
	struct image image[MAX_ARRAYS];
	void *p[MAX_ARRAYS]; /* NULL: absent */
};

static size_t cell_bytes(enum kind kind, enum stave_dtype dt)
{
	return kind == WIDE ? 8 : kind == ACT ? stave_dtype_bytes(dt) : 4;
}
static size_t rows_of(const struct array *a, int n) { return a->per_row ? (size_t)n : 1; }
static size_t cells_of(const struct array *a, int n) { return (rows_of(a, n) - 1) * a->ld + a->cols; }

static double cell(const struct set *s, const struct array *a, int i, size_t at)
{
	switch (a->kind) {
	case ACT: return stave_get(s->dt, s->p[i], at);
	case REAL: return ((const float *)s->p[i])[at];
	case WIDE: return ((const double *)s->p[i])[at];
	default: return ((const int32_t *)s->p[i])[at];
	}
}

static struct set set_new(const struct array *a, int n, enum stave_dtype dt)
{
	struct set s = {.dt = dt};
	for (int i = 0; i < MAX_ARRAYS; i++)
		if (a[i].role != NONE) {
			s.image[i] = image_new(cells_of(&a[i], n) * cell_bytes(a[i].kind, dt));
			s.p[i] = s.image[i].p;
		}
	return s;
}

static void set_free(struct set *s)
{
	for (int i = 0; i < MAX_ARRAYS; i++)
		image_free(&s->image[i]);
}

static void fill(struct set *s, const struct array *a, int n)
{
	for (int i = 0; i < MAX_ARRAYS; i++)
		for (size_t r = 0; a[i].role != NONE && r < rows_of(&a[i], n); r++)
			for (size_t c = 0; c < a[i].cols; c++) {
				size_t at = r * a[i].ld + c;
				if (a[i].kind == INDEX)
					((int32_t *)s->p[i])[at] = below((int)a[i].hi);
				else if (a[i].kind == ACT)
					stave_put(s->dt, s->p[i], at, (float)(a[i].lo + (a[i].hi - a[i].lo) * unit()));
				else if (a[i].kind == REAL)
					((float *)s->p[i])[at] = (float)(a[i].lo + (a[i].hi - a[i].lo) * unit());
			}
}

/* Rows [row, row + n) of `from`, with activations as `dt`; the rest of the images is canary. */
static struct set set_copy(const struct set *from, const struct array *a, int row, int n, enum stave_dtype dt)
{
	struct set s = set_new(a, n, dt);
	for (int i = 0; i < MAX_ARRAYS; i++)
		for (size_t r = 0; a[i].role != NONE && r < rows_of(&a[i], n); r++)
			for (size_t c = 0; c < a[i].cols; c++) {
				size_t at = r * a[i].ld + c, src = at + (a[i].per_row ? row * a[i].ld : 0), w = cell_bytes(a[i].kind, dt);
				if (a[i].kind == ACT && dt != from->dt)
					stave_put(dt, s.p[i], at, stave_get(from->dt, from->p[i], src));
				else
					memcpy((char *)s.p[i] + at * w, (const char *)from->p[i] + src * w, w);
			}
	return s;
}

#endif
