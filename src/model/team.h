/* Private to model/: phases of work inside one OpenMP region. A phase is a list of tasks that threads take one by one:
 *
 *     for (int t; (t = team_take(team, 1)) < tasks;)
 *             …
 *     team_meet(team);
 *
 * Where a task reads what lies behind the task before it, team_next in place of team_take gives each thread neighbours, so that what the
 * processor has fetched ahead is what comes next. All threads of the region pass all phases in the same order. Zero-initialise. */
#ifndef STAVE_MODEL_TEAM_H
#define STAVE_MODEL_TEAM_H

#include <stdatomic.h>

enum { TEAM_RANGES = 64 };

struct team_range {
	_Alignas(64) _Atomic int taken;
};
struct team {
	_Atomic int next;           /* first task that nobody has taken */
	char apart_[60];            /* takers and waiters do not share a cache line */
	_Atomic unsigned generation; /* phases passed */
	_Atomic int arrived, asleep;
	struct team_range range[TEAM_RANGES]; /* of team_next: thread i begins in range i */
};
/* The first of the next n tasks of this phase; beyond the last one there is nothing left to do. */
int team_take(struct team *t, int n);
/* The next of this phase's tasks in the calling thread's own range of them, or, when that is done, in another's; `tasks` when there are
 * none left. A phase uses either team_take or team_next. */
int team_next(struct team *t, int tasks);
/* The end of a phase: returns once all threads are here. What they wrote is visible. */
void team_meet(struct team *t);

#endif
