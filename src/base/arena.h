/* Arenas: memory is planned, taken once, and handed out by moving a pointer. Three lifetimes: process, run or request,
 * step. A plan is written by making the same calls on an arena without memory (stave_arena_plan), so the planned size
 * and the allocated size are one computation and equal to the byte. */
#ifndef STAVE_BASE_ARENA_H
#define STAVE_BASE_ARENA_H

#include <stddef.h>

#include "base/err.h"

#define STAVE_ALIGN 64 /* a cache line, and the widest vector */

struct stave_arena {
	const char *name;
	char *base;     /* NULL while only planning */
	size_t size;    /* bytes taken from the system (0 while planning) */
	size_t used;    /* bytes handed out, padding included */
	size_t peak;    /* largest `used` seen (rewinds lower `used`) */
};

/* An arena that only counts: stave_arena_take returns NULL and advances `used`. */
struct stave_arena stave_arena_plan(const char *name);
/* Map `size` bytes (rounded up to 2 MiB, huge pages asked for) and touch every page, on `threads` threads, so that no
 * page fault is left for the step loop. STAVE_ENOMEM with the numbers when the machine has not got it. */
int stave_arena_open(struct stave_arena *a, const char *name, size_t size, struct stave_err *err);
/* The same without touching: for what is wanted before all of it is used. Pages come with their first use, or with stave_arena_touch. */
int stave_arena_reserve(struct stave_arena *a, const char *name, size_t size, struct stave_err *err);
/* Touches the pages of from .. to on all threads and leaves what is there as it is. Nobody else writes there meanwhile. */
void stave_arena_touch(const struct stave_arena *a, size_t from, size_t to);
void stave_arena_close(struct stave_arena *a);
/* `bytes`, aligned to STAVE_ALIGN, zero on first use. NULL only while planning. Exceeding an open arena is our bug: it
 * aborts with the arena's name, since the plan has lied. */
void *stave_arena_take(struct stave_arena *a, size_t bytes);

#endif
