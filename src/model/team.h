/* Private to model/: phases of work inside one OpenMP region. A phase is a list of tasks that threads take one by one:
 *
 *     for (int t; (t = team_take(team, 1)) < tasks;)
 *             …
 *     team_meet(team);
 *
 * All threads of the region pass all phases in the same order. Zero-initialise. */
#ifndef STAVE_MODEL_TEAM_H
#define STAVE_MODEL_TEAM_H

#include <stdatomic.h>

struct team {
	_Atomic int next;           /* first task that nobody has taken */
	char apart_[60];            /* takers and waiters do not share a cache line */
	_Atomic unsigned generation; /* phases passed */
	_Atomic int arrived, asleep;
};
/* The first of the next n tasks of this phase; beyond the last one there is nothing left to do. */
int team_take(struct team *t, int n);
/* The end of a phase: returns once all threads are here. What they wrote is visible. */
void team_meet(struct team *t);

#endif
