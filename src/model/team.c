/* Tasks shared out and a barrier, for a team of threads that passes some hundred phases per token.
 *
 * Waiting threads spin, since a phase is microseconds long, but not for ever: OpenMP's own barrier spins for milliseconds, and
 * when another process has taken the core of the thread that is waited for, spinning takes the core it needs to come back
 * on. So after SPINS looks a thread sleeps on the barrier's generation, and the last to arrive wakes it. */
#include "model/team.h"

#include <limits.h>
#include <linux/futex.h>
#include <omp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPINS = 1000 };

static void look_again(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

int team_take(struct team *t, int n) { return atomic_fetch_add_explicit(&t->next, n, memory_order_relaxed); }

static int ranges(void)
{
	int n = omp_get_num_threads();
	return n < TEAM_RANGES ? n : TEAM_RANGES;
}

int team_next(struct team *t, int tasks)
{
	int n = ranges();
	for (int i = 0; i < n; i++) {
		int r = (omp_get_thread_num() + i) % n, first = (int)((int64_t)tasks * r / n), end = (int)((int64_t)tasks * (r + 1) / n);
		_Atomic int *taken = &t->range[r].taken;
		if (first + atomic_load_explicit(taken, memory_order_relaxed) >= end)
			continue; /* without a write: other threads look here too */
		int mine = first + atomic_fetch_add_explicit(taken, 1, memory_order_relaxed);
		if (mine < end)
			return mine;
	}
	return tasks;
}

static void release(struct team *t, unsigned generation)
{
	for (int i = 0, n = ranges(); i < n; i++)
		atomic_store_explicit(&t->range[i].taken, 0, memory_order_relaxed);
	atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
	atomic_store_explicit(&t->next, 0, memory_order_relaxed);
	atomic_store(&t->generation, generation + 1);
	if (atomic_load(&t->asleep))
		syscall(SYS_futex, &t->generation, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void team_meet(struct team *t)
{
	unsigned generation = atomic_load(&t->generation);
	if (atomic_fetch_add(&t->arrived, 1) + 1 == omp_get_num_threads()) {
		release(t, generation);
		return;
	}
	for (int i = 0; i < SPINS; i++) {
		if (atomic_load_explicit(&t->generation, memory_order_acquire) != generation)
			return;
		look_again();
	}
	atomic_fetch_add(&t->asleep, 1);
	while (atomic_load(&t->generation) == generation)
		syscall(SYS_futex, &t->generation, FUTEX_WAIT_PRIVATE, generation, NULL, NULL, 0);
	atomic_fetch_sub(&t->asleep, 1);
}
