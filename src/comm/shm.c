/* Sums of ranks that share a machine, through a small window of shared memory.
 *
 * A vector is summed in chunks; a chunk is cut into one slice per rank, and each rank sums its own slice of everybody's.
 * Per chunk a rank goes through three stages, each announced by a counter of its own:
 *
 *   put   copy what the others will sum (all but my slice) into my part of the window
 *   add   my slice: mine from x, theirs from the window, added in rank order; the sum goes to x and to the window
 *   take  copy the other slices' sums from the window into x
 *
 * The stages of different chunks overlap: round i puts chunk i, adds chunk i-LAG and takes chunk i-2*LAG, so a rank asks
 * for what its peers did LAG rounds ago, which they mostly have. Without that lag two ranks fall into a rhythm of putting
 * each other to sleep, and on virtual machines every awakening costs as much as a chunk. 2*LAG+1 slots per rank make it
 * possible: before chunk i is put, everybody must have taken the chunk whose place it gets. The window is reused all the
 * time and stays in the cache: memory sees each element of x read and written twice, whatever the number of ranks.
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

#define CHUNK (128 * 1024)      /* floats, halved until the window fits */
#define WINDOW (32u << 20)      /* bytes: half of the /dev/shm a container gets by default */
#define LAG 4              /* rounds between two stages of a chunk */
#define SLOTS (2 * LAG + 1)
#define SPIN 200           /* polls before sleeping: a few microseconds */
#define NAP_MS 10          /* between two questions to stop() */

enum stage { PUT, ADD, TAKE, STAGES };

struct counters {
	_Alignas(64) atomic_uint at[STAGES]; /* chunks this rank has finished, per stage */
	atomic_uint asleep[STAGES];          /* peers sleeping until that grows */
};

struct shm {
	int rank, size;
	uint64_t base; /* chunks of all former sums; counters are its low 32 bits */
	size_t bytes, chunk;    /* floats of a chunk */
	struct counters *count; /* (size) */
	float *slot;            /* (size, SLOTS, chunk) */
};

static void file_name(char out[64], const char *name) { snprintf(out, 64, "/stave-%.40s", name); }

int stave_shm_open(struct shm **out, int rank, int size, const char *name, bool create, struct stave_err *err)
{
	char file[64];
	size_t chunk = CHUNK, row = (size_t)size * SLOTS * sizeof(float), head = (size_t)size * sizeof(struct counters);
	while (chunk > 1024 && chunk * row > WINDOW)
		chunk /= 2;
	size_t bytes = head + chunk * row;
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
	*s = (struct shm){.rank = rank, .size = size, .bytes = bytes, .chunk = chunk, .count = p, .slot = (float *)((char *)p + head)};
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
	return s->slot + ((size_t)rank * SLOTS + chunk % SLOTS) * s->chunk;
}

static void announce(struct shm *s, enum stage stage, uint32_t value)
{
	atomic_uint *w = &s->count[s->rank].at[stage];
	atomic_store(w, value); /* before asleep is read: either we see the sleeper, or its futex sees the value */
	if (atomic_load(&s->count[s->rank].asleep[stage]))
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
		atomic_fetch_add(&m->s->count[rank].asleep[stage], 1);
		syscall(SYS_futex, w, FUTEX_WAIT, have, &nap, NULL, 0);
		atomic_fetch_sub(&m->s->count[rank].asleep[stage], 1);
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

static size_t length(const struct sum *m, size_t i)
{
	size_t chunk = m->s->chunk, left = m->n - i * chunk;
	return left < chunk ? left : chunk;
}

static int put(const struct sum *m, size_t i)
{
	struct shm *s = m->s;
	uint64_t chunk = s->base + i;
	size_t a, b, len = length(m, i);
	const float *x = m->x + i * s->chunk;
	if (wait_all(m, TAKE, (uint32_t)(chunk + 1 - SLOTS)))
		return -1;
	float *to = slot(s, s->rank, chunk);
	slice(s, s->rank, len, &a, &b);
	memcpy(to, x, a * sizeof *x);
	memcpy(to + b, x + b, (len - b) * sizeof *x);
	announce(s, PUT, (uint32_t)(chunk + 1));
	return 0;
}

/* out may be p. Whole cache lines first: the compiler vectorizes a loop of known length without asking for more flags. */
static void add2(float *out, const float *p, const float *q, size_t n)
{
	size_t k = 0;
	for (; k + 16 <= n; k += 16) {
		float t[16];
		for (int j = 0; j < 16; j++)
			t[j] = p[k + (size_t)j] + q[k + (size_t)j];
		memcpy(out + k, t, sizeof t);
	}
	for (; k < n; k++)
		out[k] = p[k] + q[k];
}

static int add(const struct sum *m, size_t i)
{
	struct shm *s = m->s;
	uint64_t chunk = s->base + i;
	size_t a, b;
	float *x = m->x + i * s->chunk;
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
	float *x = m->x + i * s->chunk;
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
	size_t chunks = (n + s->chunk - 1) / s->chunk;
	for (size_t i = 0; i < chunks + 2 * LAG; i++) {
		if (i < chunks && put(&m, i))
			return -1;
		if (i >= LAG && i - LAG < chunks && add(&m, i - LAG))
			return -1;
		if (i >= 2 * LAG && take(&m, i - 2 * LAG))
			return -1;
	}
	s->base += chunks;
	return 0;
}
