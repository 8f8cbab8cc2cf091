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

static void release(struct team *t, unsigned generation)
{
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
