/* Any bytes as a model's config.json: a shape that passes its own check and has a layout, or a refusal. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fs.h"
#include "model/model.h"
#include "model/shape.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char dir[] = "/dev/shm/stave-fuzz-XXXXXX", path[64];
	struct stave_shape s;
	struct stave_err e;
	if (!*path) {
		if (!mkdtemp(dir))
			abort();
		snprintf(path, sizeof path, "%s/config.json", dir);
	}
	FILE *f = fopen(path, "wb");
	if (!f)
		abort();
	fwrite(data, 1, size, f);
	fclose(f);
	struct shape_factors factors;
	if (!shape_from_json(&s, &factors, dir, &e)) /* the families that are run only, too */
		shape_factors_free(&factors);
	if (stave_shape_load(&s, dir, &e))
		return 0;
	struct stave_layout l;
	if (!stave_layout_open(&l, &s, &e)) {
		if (l.n < stave_shape_params(&s))
			abort();
		stave_layout_close(&l);
	}
	return 0;
}
