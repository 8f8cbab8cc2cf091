/* One mmap per arena. Pages are touched at once: on a virtual machine a first touch costs 1 to 7 us per 4 KiB, and a
 * step loop that meets those faults one by one measures the hypervisor instead of the model. Who is wanted sooner than that reserves, and
 * touches when there is time. */
#include "base/arena.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/sys.h"

#define HUGE_PAGE ((size_t)2 << 20)

static size_t up(size_t n, size_t to) { return (n + to - 1) / to * to; }

struct stave_arena stave_arena_plan(const char *name)
{
	return (struct stave_arena){.name = name};
}

int stave_arena_reserve(struct stave_arena *a, const char *name, size_t size, struct stave_err *err)
{
	size = up(size ? size : 1, HUGE_PAGE);
	size_t avail = stave_memory_available_bytes();
	if (avail && size > avail)
		return stave_err_set(err, STAVE_ENOFIT, "%s needs %.2f GiB but the machine has %.2f GiB available", name,
		                     (double)size / (1 << 30), (double)avail / (1 << 30));
	/* reserve one huge page more, so that the arena can start on a boundary */
	char *raw = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (raw == MAP_FAILED)
		return stave_err_errno(err, "%s: mapping %.2f GiB", name, (double)size / (1 << 30));
	char *base = (char *)up((size_t)raw, HUGE_PAGE);
	if (base > raw)
		munmap(raw, (size_t)(base - raw));
	munmap(base + size, (size_t)(raw + HUGE_PAGE - base));
	madvise(base, size, MADV_HUGEPAGE);
	*a = (struct stave_arena){.name = name, .base = base, .size = size};
	return 0;
}

void stave_arena_touch(const struct stave_arena *a, size_t from, size_t to)
{
#pragma omp parallel for schedule(dynamic, 512) /* a huge page at a time: some cost the hypervisor much more than others */
	for (size_t at = from; at < to; at += 4096) {
		char zero = 0; /* a zero is written where there is one: a fault for writing, not first one for reading */
		__atomic_compare_exchange_n(a->base + at, &zero, 0, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
	}
}

int stave_arena_open(struct stave_arena *a, const char *name, size_t size, struct stave_err *err)
{
	int rc = stave_arena_reserve(a, name, size, err);
	if (!rc)
		stave_arena_touch(a, 0, a->size);
	return rc;
}

void stave_arena_close(struct stave_arena *a)
{
	if (a->base)
		munmap(a->base, a->size);
	*a = (struct stave_arena){0};
}

void *stave_arena_take(struct stave_arena *a, size_t bytes)
{
	size_t at = a->used;
	a->used += up(bytes, STAVE_ALIGN);
	if (a->used > a->peak)
		a->peak = a->used;
	if (!a->base)
		return NULL;
	if (a->used > a->size) {
		fprintf(stderr, "stave: bug: arena %s planned %zu bytes, asked for %zu\n", a->name, a->size, a->used);
		abort();
	}
	return a->base + at;
}
