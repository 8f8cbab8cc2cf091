/* Any bytes as a token shard: refused, or a shard whose every window can be read. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/data.h"

static char dir[64], path[128];

static void leave(void)
{
	unlink(path);
	rmdir(dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stave_tokens *t;
	struct stave_err err;
	int32_t v[4][16];
	if (!*dir) {
		snprintf(dir, sizeof dir, "/dev/shm/stave-fuzz-shard-%d", (int)getpid());
		snprintf(path, sizeof path, "%s/train-00000.safetensors", dir);
		mkdir(dir, 0700);
		atexit(leave);
	}
	FILE *f = fopen(path, "wb");
	if (!f || fwrite(data, 1, size, f) != size)
		abort();
	fclose(f);
	if (stave_tokens_open(&t, dir, "train", &err) == 0) {
		for (int64_t i = 0; i < stave_tokens_windows(t, 16) && i < 64; i++)
			for (int mask = 0; mask < 2; mask++) {
				stave_tokens_window(t, i, 16, mask, v[0], v[1], v[2], v[3]);
				for (int k = 0; k < 16; k++)
					if (v[2][k] < 0 || v[2][k] > k || v[3][k] != k - v[2][k] || v[0][k] < 0 || v[0][k] > stave_tokens_max_id(t) || v[1][k] < -1)
						abort();
			}
		stave_tokens_row(t, 1, 5, 16, true, v[0], v[1], v[2], v[3]);
		stave_tokens_close(t);
	}
	/* the same bytes as a .bin file */
	if (stave_tokens_open(&t, path, "val", &err) == 0) {
		stave_tokens_row(t, 1, 5, 16, true, v[0], v[1], v[2], v[3]);
		stave_tokens_close(t);
	}
	return 0;
}
