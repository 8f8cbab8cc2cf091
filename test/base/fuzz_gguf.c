/* Any bytes as a GGUF file: refused, or every key and every tensor's bytes can be read. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/gguf.h"

static volatile uint64_t sink;

static void touch(const void *p, size_t n)
{
	const unsigned char *b = p;
	for (size_t i = 0; i < n; i++)
		sink += b[i];
}

static void read_all(const struct stave_gguf *g)
{
	struct stave_err e;
	for (int i = 0; i < stave_gguf_keys(g); i++) {
		enum stave_gguf_type type, element;
		int64_t n, v;
		double x;
		bool b;
		size_t len;
		const char *key = stave_gguf_key(g, i, &type);
		stave_gguf_int(g, key, &v, &e);
		stave_gguf_real(g, key, &x, &e);
		stave_gguf_bool(g, key, &b, &e);
		if (stave_gguf_str(g, key))
			touch(stave_gguf_str(g, key), stave_gguf_str_n(g, key) + 1);
		if (!stave_gguf_array(g, key, &element, &n))
			continue;
		for (int64_t k = 0; k < n; k++) {
			sink += (uint64_t)stave_gguf_array_int(g, key, k);
			sink += stave_gguf_array_real(g, key, k) > 0;
			const char *s = stave_gguf_array_str(g, key, k, &len);
			touch(s, len + 1);
		}
	}
	for (int i = 0; i < g->n; i++) {
		touch(g->t[i].data, g->t[i].bytes);
		if (stave_gguf_find(g, g->t[i].name) != &g->t[i])
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	char path[64];
	struct stave_err e;
	struct stave_gguf *g;
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (!stave_gguf_open(&g, path, &e)) {
		read_all(g);
		stave_gguf_close(g);
	}
	close(fd);
	return 0;
}
