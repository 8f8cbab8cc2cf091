/* A GGUF's tokenizer keys made of any bytes: the file around them is well formed (base/ has a target of its own for that), the
 * tokens, scores, types, merges, ids, flags and normalization table are the fuzzer's. Opened or refused; what is opened encodes and
 * decodes a text of every trouble, and is written again in both formats or refused. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/gguf.h"
#include "text/text.h"

struct input {
	const uint8_t *p;
	size_t n;
};

static uint8_t byte(struct input *in)
{
	if (!in->n)
		return 0;
	in->n--;
	return *in->p++;
}

static const char *const words[] = {"\xe2\x96\x81", "<unk>", "<s>", "</s>", "a", "b", "ab", "\xe2\x96\x81" "a", "##a", "[CLS]", "<0x41>", "<0xff>", "\xc3\xa9", "aa", "\n", "\n\n", "<|im_end|>", "\xc4\xa0", "\xc4\xa0" "a", "aaaa"};
#define WORDS (sizeof words / sizeof *words)

/* A word of the list, or a few bytes as they come. */
static void put_word(struct stave_buf *b, struct input *in)
{
	char any[16];
	uint8_t k = byte(in);
	if (k < 4 * WORDS) {
		stave_buf_put(b, words[k % WORDS], strlen(words[k % WORDS]));
		return;
	}
	size_t n = k % 16;
	for (size_t i = 0; i < n; i++)
		any[i] = (char)byte(in);
	stave_buf_put(b, any, n);
}

static void put_u32(struct stave_buf *b, uint32_t v)
{
	stave_buf_put(b, &v, 4);
}

static void put_text(struct stave_buf *b, const char *p, size_t n)
{
	uint64_t len = n;
	stave_buf_put(b, &len, 8);
	stave_buf_put(b, p, n);
}

static void key(struct stave_buf *b, const char *name, uint32_t type, uint64_t *keys)
{
	put_text(b, name, strlen(name));
	put_u32(b, type);
	(*keys)++;
}

static void array(struct stave_buf *b, const char *name, uint32_t type, uint64_t n, uint64_t *keys)
{
	key(b, name, STAVE_GGUF_ARRAY, keys);
	put_u32(b, type);
	stave_buf_put(b, &n, 8);
}

static void lists(struct stave_buf *b, struct input *in, uint64_t *keys)
{
	struct stave_buf s = {0};
	unsigned n = byte(in) % 64u, merges = byte(in) % 32u;
	array(b, "tokenizer.ggml.tokens", STAVE_GGUF_STR, n, keys);
	for (unsigned i = 0; i < n; i++) {
		s.len = 0;
		put_word(&s, in);
		put_text(b, s.p, s.len);
	}
	array(b, "tokenizer.ggml.scores", STAVE_GGUF_F32, n, keys);
	for (unsigned i = 0; i < n; i++) {
		uint8_t k = byte(in);
		float v = k == 255 ? __builtin_nanf("") : k == 254 ? __builtin_inff() : (float)k - 100;
		stave_buf_put(b, &v, 4);
	}
	array(b, "tokenizer.ggml.token_type", STAVE_GGUF_I32, n, keys);
	for (unsigned i = 0; i < n; i++)
		put_u32(b, byte(in) % 9u);
	array(b, "tokenizer.ggml.merges", STAVE_GGUF_STR, merges, keys);
	for (unsigned i = 0; i < merges; i++) {
		s.len = 0;
		put_word(&s, in);
		stave_buf_put(&s, " ", byte(in) % 8u != 7);
		put_word(&s, in);
		put_text(b, s.p, s.len);
	}
	stave_buf_free(&s);
}

static void compose(struct stave_buf *b, struct input *in)
{
	static const char *const models[] = {"gpt2", "llama", "t5", "bert", "gemma4", "none"};
	static const char *const pres[] = {"llama-bpe", "gpt-2", "qwen2", "deepseek-llm", "falcon", "tekken", "kimi-k2", "bloom", "nonsense"};
	static const char *const ids[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.cls_token_id"};
	static const char *const flags[] = {"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token", "tokenizer.ggml.add_space_prefix", "tokenizer.ggml.remove_extra_whitespaces"};
	struct stave_buf k = {0};
	uint64_t keys = 0, none = 0;
	const char *model = models[byte(in) % 6], *pre = pres[byte(in) % 9];
	key(&k, "tokenizer.ggml.model", STAVE_GGUF_STR, &keys);
	put_text(&k, model, strlen(model));
	key(&k, "tokenizer.ggml.pre", STAVE_GGUF_STR, &keys);
	put_text(&k, pre, strlen(pre));
	lists(&k, in, &keys);
	uint8_t which = byte(in), value = byte(in), map = byte(in);
	for (int i = 0; i < 5; i++)
		if (which >> i & 1) {
			key(&k, ids[i], STAVE_GGUF_U32, &keys);
			put_u32(&k, byte(in));
		}
	for (int i = 0; i < 4; i++)
		if (value >> i & 1) {
			uint8_t on = value >> (4 + i) & 1;
			key(&k, flags[i], STAVE_GGUF_BOOL, &keys);
			stave_buf_put(&k, &on, 1);
		}
	if (map & 1) { /* the rest of the input, its length made plausible */
		uint32_t trie = in->n > 16 ? (uint32_t)(in->n - 8) / 4 * 4 : 4;
		array(&k, "tokenizer.ggml.precompiled_charsmap", STAVE_GGUF_U8, in->n + 6, &keys);
		put_u32(&k, trie);
		stave_buf_put(&k, in->p, in->n);
		stave_buf_put(&k, "a\0", 2);
	}
	stave_buf_put(b, "GGUF\3\0\0\0", 8);
	stave_buf_put(b, &none, 8);
	stave_buf_put(b, &keys, 8);
	stave_buf_put(b, k.p, k.len);
	stave_buf_free(&k);
}

static void use(const struct stave_tokenizer *t)
{
	static const char text[] = "It's ab aab  aaaaab <s> caf\xc3\xa9 e\xcc\x81 \xff\xc3\n\n  0001 \xe2\x96\x81x\xf0\x9f\x91\x8d </s> \xe4\xb8\xad!";
	struct stave_encoder *e;
	struct stave_ids ids = {0};
	struct stave_buf out = {0};
	struct stave_gguf_writer *w;
	char path[64];
	if (stave_encoder_open(&e, t, NULL))
		return;
	for (int specials = 0; specials < 2; specials++)
		if (!stave_encode(e, text, sizeof text - 1, specials, &ids, NULL) && stave_decode(t, ids.p, ids.n, specials, &out, NULL))
			__builtin_trap();
	stave_tokenizer_sha256(t);
	snprintf(path, sizeof path, "/dev/shm/stave-fuzz-%d.gguf", (int)getpid());
	if (!stave_gguf_create(&w, path, NULL)) {
		stave_tokenizer_to_gguf(t, stave_tokenizer_vocab(t) + 2, w, NULL);
		stave_gguf_abort(w);
	}
	stave_buf_free(&out);
	stave_ids_free(&ids);
	stave_encoder_free(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static char path[64];
	struct input in = {data, size};
	struct stave_buf b = {0};
	struct stave_tokenizer *t = NULL;
	if (fd < 0) {
		fd = memfd_create("fuzz", 0);
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	}
	compose(&b, &in);
	if (!ftruncate(fd, 0) && pwrite(fd, b.p, b.len, 0) == (ssize_t)b.len && !stave_tokenizer_load(&t, path, NULL))
		use(t);
	stave_tokenizer_free(t);
	stave_buf_free(&b);
	return 0;
}
