/* Private to watch/: the repair of a resumed run's history, apart for its tests. */
#ifndef STAVE_WATCH_RUN_H
#define STAVE_WATCH_RUN_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/fs.h"

/* Append to `kept` the lines of a metrics.jsonl that precede `step`, without a torn last one. STAVE_ECORRUPT for a whole
 * line that is no object with a step; `what` names the file. */
int stave_run_history(const char *text, size_t n, int64_t step, const char *what, struct stave_buf *kept, struct stave_err *err);

#endif
