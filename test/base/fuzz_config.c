/* Any bytes as a YAML configuration. */
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/config.h"

struct target {
	bool b;
	int64_t i;
	double r;
	char *s;
	int c;
};
static const struct stave_key keys[] = {
	{"b", STAVE_KEY_BOOL, offsetof(struct target, b), "false", 0, 0, NULL, ""},
	{"t.i", STAVE_KEY_INT, offsetof(struct target, i), "1", 1, 9, NULL, ""},
	{"t.r", STAVE_KEY_REAL, offsetof(struct target, r), "1", 0, 0, NULL, ""},
	{"t.s", STAVE_KEY_STR, offsetof(struct target, s), NULL, 0, 0, NULL, ""},
	{"t.c", STAVE_KEY_CHOICE, offsetof(struct target, c), "x", 0, 0, "x|y", ""},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static char path[64];
	if (fd < 0) {
		fd = memfd_create("fuzz", 0);
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	}
	struct target t;
	struct stave_config c;
	struct stave_err e;
	if (ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size || stave_config_open(&c, keys, 5, &t, &e))
		return 0;
	stave_config_yaml(&c, path, &e);
	stave_config_close(&c);
	return 0;
}
