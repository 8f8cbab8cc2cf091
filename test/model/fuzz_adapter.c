/* Adapter directories: the first two bytes say how much of the input is adapter_config.json, the rest is the safetensors file. The
 * base is a small random llama. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "model/any_model.h"
#include "model/model.h"

static char dir[] = "/dev/shm/stave-fuzz-adapter-XXXXXX";
static void clean_up(void) { stave_remove_tree(dir, NULL); }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char path[STAVE_PATH];
	static struct stave_source *base;
	static struct stave_arena arena;
	struct stave_err err = {0};
	if (!base) {
		struct stave_shape s = any_shape(STAVE_LLAMA);
		if (!mkdtemp(dir) || atexit(clean_up))
			abort();
		snprintf(path, sizeof path, "%s/base.gguf", dir);
		any_write(path, &s, STAVE_Q_F32);
		if (stave_source_open(&base, path, &err) || stave_arena_open(&arena, "adapter", 16 << 20, &err))
			abort();
	}
	if (size < 2)
		return 0;
	size_t config = (size_t)data[0] | (size_t)data[1] << 8;
	data += 2, size -= 2;
	config = config < size ? config : size;
	FILE *f;
	snprintf(path, sizeof path, "%s/adapter_config.json", dir);
	if (!(f = fopen(path, "w")))
		abort();
	fwrite(data, 1, config, f);
	fclose(f);
	snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir);
	if (!(f = fopen(path, "w")))
		abort();
	fwrite(data + config, 1, size - config, f);
	fclose(f);
	struct stave_adapter *a;
	if (stave_adapter_open(&a, dir, base, &err))
		return 0;
	struct stave_arena plan = stave_arena_plan("adapter");
	stave_adapter_take(a, &plan);
	if (plan.used <= arena.size) {
		stave_adapter_take(a, &arena);
		if (arena.used != plan.used)
			abort();
	}
	arena.used = 0;
	stave_adapter_close(a);
	return 0;
}
