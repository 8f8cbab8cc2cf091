/* Any bytes as a safetensors file: opened or refused, and what is handed out is readable. An input that starts with an odd
 * byte is taken as header and 8 bytes of data, with a true header length in front: else few inputs would get that far. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static char path[64];
	if (fd < 0) {
		fd = memfd_create("fuzz", 0);
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	}
	struct stave_st st;
	struct stave_err e;
	uint64_t header = size - 1;
	bool framed = size > 1 && (data[0] & 1);
	if (ftruncate(fd, 0))
		return 0;
	if (framed && (pwrite(fd, &header, 8, 0) != 8 || pwrite(fd, data + 1, header, 8) != (ssize_t)header || ftruncate(fd, (off_t)(8 + header + 8))))
		return 0;
	if (!framed && pwrite(fd, data, size, 0) != (ssize_t)size)
		return 0;
	if (stave_st_open(&st, path, &e))
		return 0;
	volatile uint8_t sum = 0;
	for (int i = 0; i < st.n; i++)
		for (size_t b = st.t[i].begin; b < st.t[i].end; b++)
			sum = (uint8_t)(sum + ((const uint8_t *)st.t[i].data)[b - st.t[i].begin]);
	stave_st_close(&st);
	return 0;
}
