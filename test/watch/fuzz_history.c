/* Any bytes as a metrics.jsonl to resume from: refused, or kept as whole lines of the input, in order. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "watch/run.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stave_buf kept = {0}, again = {0};
	struct stave_err err;
	if (stave_run_history((const char *)data, size, 3, "metrics.jsonl", &kept, &err) == 0) {
		if (kept.len > size || (kept.len && kept.p[kept.len - 1] != '\n'))
			abort();
		if (kept.len && (stave_run_history(kept.p, kept.len, 3, "kept", &again, &err) || again.len != kept.len ||
		                 memcmp(again.p, kept.p, kept.len)))
			abort();
	}
	stave_buf_free(&kept);
	stave_buf_free(&again);
	return 0;
}
