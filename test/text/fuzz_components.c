/* Every component of a tokenizer.json in any order around every model, chosen by the fuzzer from the list of what there is, with a
 * text of its own: opened or refused, and what is opened encodes without harm and decodes what it encoded. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "text/text.h"

static const char *const normalizers[] = {
	"{\"type\":\"NFC\"}", "{\"type\":\"NFD\"}", "{\"type\":\"NFKC\"}", "{\"type\":\"NFKD\"}", "{\"type\":\"Lowercase\"}", "{\"type\":\"StripAccents\"}", "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}",
	"{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"}", "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}", "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}|a*\"},\"content\":\" b \"}",
	"{\"type\":\"BertNormalizer\"}", "{\"type\":\"BertNormalizer\",\"clean_text\":false,\"lowercase\":false,\"strip_accents\":true}", "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"BAAAAAAEAAAAYQA=\"}",
};
static const char *const splits[] = {
	"{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}", "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}", "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"always\"}",
	"{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"first\",\"split\":false}", "{\"type\":\"Digits\",\"individual_digits\":true}", "{\"type\":\"Digits\",\"individual_digits\":false}", "{\"type\":\"Whitespace\"}",
	"{\"type\":\"WhitespaceSplit\"}", "{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}", "{\"type\":\"Punctuation\"}", "{\"type\":\"BertPreTokenizer\"}",
	"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\s?\\\\p{L}+\"},\"behavior\":\"MergedWithPrevious\",\"invert\":true}", "{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Removed\"}",
};
static const char *const decoders[] = {
	"{\"type\":\"ByteLevel\"}", "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\"}", "{\"type\":\"ByteFallback\"}", "{\"type\":\"Fuse\"}", "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}",
	"{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"}", "{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}",
};
static const char *const posts[] = {
	"null", "{\"type\":\"BertProcessing\",\"sep\":[\"b\",3],\"cls\":[\"a\",2]}", "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"a\"}},{\"Sequence\":{\"id\":\"A\"}}]}",
	"{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"}]}",
};
#define VOCAB "\"<unk>\":0,\"\xe2\x96\x81\":1,\"a\":2,\"b\":3,\"ab\":4,\"##b\":5,\"\xe2\x96\x81" "a\":6,\"<0x61>\":7,\"\xc4\xa0\":8,\"0\":9,\"<0xC3>\":10,\"<0xA9>\":11"
static const char *const models[] = {
	"{\"type\":\"BPE\",\"vocab\":{" VOCAB "},\"merges\":[\"a b\",\"\xe2\x96\x81 a\"],\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true}",
	"{\"type\":\"BPE\",\"vocab\":{" VOCAB "},\"merges\":[[\"a\",\"b\"]],\"unk_token\":\"<unk>\",\"ignore_merges\":true}",
	"{\"type\":\"WordPiece\",\"vocab\":{" VOCAB "},\"unk_token\":\"<unk>\",\"max_input_chars_per_word\":9}",
	"{\"type\":\"WordLevel\",\"vocab\":{" VOCAB "},\"unk_token\":\"<unk>\"}",
	"{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"\xe2\x96\x81\",-1],[\"a\",-2],[\"b\",-3],[\"ab\",-4.5],[\"bb\",-2]]}",
	"{\"type\":\"Unigram\",\"unk_id\":0,\"byte_fallback\":true,\"vocab\":[[\"<unk>\",0],[\"a\",-2],[\"<0x62>\",-9],[\"b\xc3\xa9\",-4.5],[\"<0xC3>\",0]]}",
};
#define SIZE(list) (sizeof list / sizeof *list)

static size_t pick(const uint8_t **p, size_t *n, size_t of)
{
	if (!*n)
		return 0;
	(*n)--;
	return *(*p)++ % of;
}

/* "{type: Sequence, <member>: [up to four of the list]}", or null. */
static void sequence(struct stave_buf *b, const char *name, const char *member, const char *const *list, size_t size, const uint8_t **p, size_t *n)
{
	size_t k = pick(p, n, 5);
	stave_buf_printf(b, "\"%s\":", name);
	if (!k) {
		stave_buf_printf(b, "null,");
		return;
	}
	stave_buf_printf(b, "{\"type\":\"Sequence\",\"%s\":[", member);
	for (size_t i = 0; i < k; i++)
		stave_buf_printf(b, "%s%s", i ? "," : "", list[pick(p, n, size)]);
	stave_buf_printf(b, "]},");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static char path[64];
	struct stave_buf b = {0}, out = {0};
	struct stave_tokenizer *t = NULL;
	struct stave_encoder *e = NULL;
	struct stave_ids ids = {0};
	if (fd < 0) {
		fd = memfd_create("fuzz", 0);
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	}
	stave_buf_printf(&b, "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":12,\"content\":\"<x>\",\"special\":true},{\"id\":13,\"content\":\"a b\",\"lstrip\":true}],");
	sequence(&b, "normalizer", "normalizers", normalizers, SIZE(normalizers), &data, &size);
	sequence(&b, "pre_tokenizer", "pretokenizers", splits, SIZE(splits), &data, &size);
	sequence(&b, "decoder", "decoders", decoders, SIZE(decoders), &data, &size);
	stave_buf_printf(&b, "\"post_processor\":%s,", posts[pick(&data, &size, SIZE(posts))]);
	stave_buf_printf(&b, "\"model\":%s}", models[pick(&data, &size, SIZE(models))]);
	if (!ftruncate(fd, 0) && pwrite(fd, b.p, b.len, 0) == (ssize_t)b.len && !stave_tokenizer_load(&t, path, NULL) && !stave_encoder_open(&e, t, NULL))
		for (int specials = 0; specials < 2; specials++)
			if (!stave_encode(e, (const char *)data, size, specials, &ids, NULL) && stave_decode(t, ids.p, ids.n, specials, &out, NULL))
				__builtin_trap(); /* what was encoded always decodes */
	stave_buf_free(&b);
	stave_buf_free(&out);
	stave_ids_free(&ids);
	stave_encoder_free(e);
	stave_tokenizer_free(t);
	return 0;
}
