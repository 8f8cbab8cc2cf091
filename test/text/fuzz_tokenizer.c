/* Any bytes as a tokenizer.json: opened or refused, and what is opened encodes and decodes a text of every trouble. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "text/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char text[] = "It's hello <|endoftext|> world, caf\xc3\xa9 e\xcc\x81 \xff\xc3\n\n  0001 \xe2\x96\x81x\xf0\x9f\x91\x8d <s>";
	static int fd = -1;
	static char path[64];
	if (fd < 0) {
		fd = memfd_create("fuzz", 0);
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	}
	struct stave_tokenizer *t = NULL;
	struct stave_encoder *e = NULL;
	struct stave_ids ids = {0};
	struct stave_buf out = {0};
	if (ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
		return 0;
	if (stave_tokenizer_load(&t, path, NULL))
		return 0;
	if (!stave_encoder_open(&e, t, NULL)) {
		for (int specials = 0; specials < 2; specials++)
			if (!stave_encode(e, text, sizeof text - 1, specials, &ids, NULL) && stave_decode(t, ids.p, ids.n, specials, &out, NULL))
				__builtin_trap(); /* what was encoded always decodes */
		stave_chat_encode(e, &(struct stave_message){"user", text}, 1, true, &ids, NULL);
	}
	stave_buf_free(&out);
	stave_ids_free(&ids);
	stave_encoder_free(e);
	stave_tokenizer_free(t);
	return 0;
}
