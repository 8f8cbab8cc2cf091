/* TensorBoard event files (private to watch/). See events.c. */
#ifndef STAVE_WATCH_EVENTS_H
#define STAVE_WATCH_EVENTS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

struct scalar_tag {
	const char *group, *name; /* shown as group/name; group may be NULL */
	float value;
};
/* CRC-32C (Castagnoli), RFC 3720 B.4. */
uint32_t stave_crc32c(const void *p, size_t n);
/* The first record of a file. */
int stave_events_version(FILE *f, double time_s, struct stave_err *err);
/* The run goes on at `step`: readers drop that step and later of earlier files. */
int stave_events_session(FILE *f, double time_s, int64_t step, struct stave_err *err);
/* One event with n scalars. */
int stave_events_scalars(FILE *f, double time_s, int64_t step, const struct scalar_tag *s, int n, struct stave_err *err);

#endif
