/* Sums of ranks that share a machine, through a small window of shared memory.
 *
 * A vector is summed in chunks of CHUNK floats; a chunk is cut into one slice per rank, and each rank sums its own slice
 * of everybody's. Per chunk a rank goes through three stages, each announced by a counter of its own:
 *
 *   put   copy what the others will sum (all but my slice) into my part of the window
 *   add   my slice: mine from x, theirs from the window, added in rank order; the sum goes to x and to the window
 *   take  copy the other slices' sums from the window into x
 *
 * The stages of neighbouring chunks overlap: round i puts chunk i, adds chunk i-1 and takes chunk i-2, so a rank waits for
 * something its peers did a whole round ago, which they mostly have. Three slots per rank make that possible: before
 * chunk i is put, everybody must have taken chunk i-3, whose place it gets. The window is reused all the time and stays
 * in the cache: memory sees each element of x read and written twice, whatever the number of ranks, and no MPI.
 *
 * Each element is x_0 + x_1 + … in rank order whoever adds it: the same bits every time and on every rank.
 *
 * Waiting: a few polls, then a futex on the peer's counter. A progress thread that waits must not burn the core its own
 * rank computes on. Counters run on over all sums of a process and wrap. */
#include "comm/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/sys.h"

#define CHUNK (128 * 1024) /* floats: 512 KiB; SPEED.md has the measurement */
#define SLOTS 3
#define SPIN 200           /* polls before sleeping: a few microseconds */
#define NAP_MS 10          /* between two questions to stop() */

enum stage { PUT, ADD, TAKE, STAGES };

struct counters {
	_Alignas(64) atomic_uint at[STAGES]; /* chunks this rank has finished, per stage */
};

struct shm {
	int rank, size;
	uint64_t base; /* chunks of all former sums; counters are its low 32 bits */
	size_t bytes;
	struct counters *count; /* (size) */
	float *slot;            /* (size, SLOTS, CHUNK) */
};

static void file_name(char out[64], const char *name) { snprintf(out, 64, "/stave-%.40s", name); }

int stave_shm_open(struct shm **out, int rank, int size, const char *name, bool create, struct stave_err *err)
{
	char file[64];
	size_t head = (size_t)size * sizeof(struct counters), bytes = head + (size_t)size * SLOTS * CHUNK * sizeof(float);
	file_name(file, name);
	struct shm *s = malloc(sizeof *s);
	if (!s)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the shared window");
	int fd = shm_open(file, O_RDWR | (create ? O_CREAT | O_EXCL : 0), 0600);
	if (fd < 0) {
		free(s);
		return stave_err_errno(err, "cannot %s shared memory %s", create ? "create" : "open", file);
	}
	/* posix_fallocate, since a full /dev/shm would otherwise show as SIGBUS in the middle of a sum */
	int e = create ? posix_fallocate(fd, 0, (off_t)bytes) : 0;
	void *p = e ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (p == MAP_FAILED) {
		errno = e ? e : errno;
		stave_err_errno(err, "cannot take %zu bytes of shared memory", bytes);
		if (create)
			shm_unlink(file);
	}
	close(fd);
	if (p == MAP_FAILED) {
		free(s);
		return err ? err->code : STAVE_ENOMEM;
	}
	*s = (struct shm){.rank = rank, .size = size, .bytes = bytes, .count = p, .slot = (float *)((char *)p + head)};
	*out = s;
	return 0;
}

void stave_shm_unlink(const char *name)
{
	char file[64];
	file_name(file, name);
	shm_unlink(file);
}

void stave_shm_close(struct shm *s)
{
	if (!s)
		return;
	munmap(s->count, s->bytes);
	free(s);
}

/* ---- one sum ---- */

struct sum {
	struct shm *s;
	float *x;
	size_t n;
	bool (*stop)(void *, double);
	void *ctx;
};

static float *slot(const struct shm *s, int rank, uint64_t chunk)
{
	return s->slot + ((size_t)rank * SLOTS + chunk % SLOTS) * CHUNK;
}

static void announce(struct shm *s, enum stage stage, uint32_t value)
{
	atomic_uint *w = &s->count[s->rank].at[stage];
	atomic_store_explicit(w, value, memory_order_release);
	syscall(SYS_futex, w, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
}

/* Wait until `rank` has finished `value` chunks of a stage. */
static int wait_for(const struct sum *m, int rank, enum stage stage, uint32_t value)
{
	atomic_uint *w = &m->s->count[rank].at[stage];
	const struct timespec nap = {.tv_nsec = NAP_MS * 1000000L};
	double start_s = 0;
	for (int i = 0;; i++) {
		uint32_t have = atomic_load_explicit(w, memory_order_acquire);
		if ((int32_t)(have - value) >= 0)
			return 0;
		if (i < SPIN)
			continue;
		double now = stave_now_s();
		if (start_s == 0)
			start_s = now;
		if (m->stop && m->stop(m->ctx, now - start_s))
			return -1;
		syscall(SYS_futex, w, FUTEX_WAIT, have, &nap, NULL, 0);
	}
}

static int wait_all(const struct sum *m, enum stage stage, uint32_t value)
{
	for (int r = 0; r < m->s->size; r++)
		if (r != m->s->rank && wait_for(m, r, stage, value))
			return -1;
	return 0;
}

/* Elements [*a, *b) of a chunk of `len` that rank r sums; multiples of a cache line, so that no two ranks write one. */
static void slice(const struct shm *s, int r, size_t len, size_t *a, size_t *b)
{
	size_t lines = (len + 15) / 16;
	*a = lines * (size_t)r / (size_t)s->size * 16;
	*b = lines * (size_t)(r + 1) / (size_t)s->size * 16;
	*a = *a < len ? *a : len;
	*b = *b < len ? *b : len;
}

static size_t length(const struct sum *m, size_t i) { return m->n - i * CHUNK < CHUNK ? m->n - i * CHUNK : CHUNK; }

static int put(const struct sum *m, size_t i)
{
	struct shm *s = m->s;
	uint64_t chunk = s->base + i;
	size_t a, b, len = length(m, i);
	const float *x = m->x + i * CHUNK;
	if (wait_all(m, TAKE, (uint32_t)(chunk + 1 - SLOTS)))
		return -1;
	float *to = slot(s, s->rank, chunk);
	slice(s, s->rank, len, &a, &b);
	memcpy(to, x, a * sizeof *x);
	memcpy(to + b, x + b, (len - b) * sizeof *x);
	announce(s, PUT, (uint32_t)(chunk + 1));
	return 0;
}

/* out may be p */
static void add2(float *out, const float *p, const float *q, size_t n)
{
#pragma omp simd
	for (size_t k = 0; k < n; k++)
		out[k] = p[k] + q[k];
}

static int add(const struct sum *m, size_t i)
{
	struct shm *s = m->s;
	uint64_t chunk = s->base + i;
	size_t a, b;
	float *x = m->x + i * CHUNK;
	if (wait_all(m, PUT, (uint32_t)(chunk + 1)))
		return -1;
	slice(s, s->rank, length(m, i), &a, &b);
	float *out = slot(s, s->rank, chunk);
#define PART(r) ((r) == s->rank ? x : slot(s, (r), chunk))
	add2(out + a, PART(0) + a, PART(1) + a, b - a);
	for (int r = 2; r < s->size; r++)
		add2(out + a, out + a, PART(r) + a, b - a);
#undef PART
	memcpy(x + a, out + a, (b - a) * sizeof *x);
	announce(s, ADD, (uint32_t)(chunk + 1));
	return 0;
}

static int take(const struct sum *m, size_t i)
{
	struct shm *s = m->s;
	uint64_t chunk = s->base + i;
	float *x = m->x + i * CHUNK;
	for (int k = 1; k < s->size; k++) {
		int r = (s->rank + k) % s->size; /* each starts at another peer */
		size_t a, b;
		if (wait_for(m, r, ADD, (uint32_t)(chunk + 1)))
			return -1;
		slice(s, r, length(m, i), &a, &b);
		memcpy(x + a, slot(s, r, chunk) + a, (b - a) * sizeof *x);
	}
	announce(s, TAKE, (uint32_t)(chunk + 1));
	return 0;
}

int stave_shm_sum(struct shm *s, float *x, size_t n, bool (*stop)(void *ctx, double waited_s), void *ctx)
{
	struct sum m = {s, x, n, stop, ctx};
	size_t chunks = (n + CHUNK - 1) / CHUNK;
	for (size_t i = 0; i < chunks + 2; i++) {
		if (i < chunks && put(&m, i))
			return -1;
		if (i >= 1 && i - 1 < chunks && add(&m, i - 1))
			return -1;
		if (i >= 2 && take(&m, i - 2))
			return -1;
	}
	s->base += chunks;
	return 0;
}
