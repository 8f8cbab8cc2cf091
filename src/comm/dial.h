/* Connections between ranks (private to comm/). See dial.c. */
#ifndef STAVE_COMM_DIAL_H
#define STAVE_COMM_DIAL_H

#include "comm/lifeline.h"

#define FINGERS 31 /* 2^31 ranks */
#define LINES (2 * FINGERS)
struct line {
	int fd, rank;
};
/* Collective: this rank's lines to its neighbours, *n of them; none on failure. host as in stave_lifeline_open. */
int stave_dial(int rank, int size, uint64_t host, lifeline_gather *gather, void *ctx, struct line line[LINES], int *n,
               struct stave_err *err);

#endif
