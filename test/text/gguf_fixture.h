/* Small GGUF models for the tests of tokenizers: tokenizer keys as the test says, and the fewest tensors with which llama.cpp opens
 * a file (a llama of one layer, 32 wide, all zeros). */
#ifndef STAVE_TEST_TEXT_GGUF_FIXTURE_H
#define STAVE_TEST_TEXT_GGUF_FIXTURE_H

#include "fixtures.h"

#include "base/gguf.h"

#define KEY "tokenizer.ggml."

/* A list of tokens under construction. */
struct list {
	struct stave_buf bytes;
	size_t at[8192], len[8192];
	float score[8192];
	int32_t type[8192];
	int n;
	struct stave_buf merge_bytes;
	size_t merge_at[8192], merge_len[8192];
	int merges;
};

static inline int put_token(struct list *l, const char *p, size_t n, float score, int type)
{
	assert_true(l->n < 8192);
	l->at[l->n] = l->bytes.len;
	l->len[l->n] = n;
	l->score[l->n] = score;
	l->type[l->n] = type;
	stave_buf_put(&l->bytes, p, n);
	return l->n++;
}

static inline void put_merge_text(struct list *l, const char *left, size_t l_n, const char *right, size_t r_n)
{
	assert_true(l->merges < 8192);
	l->merge_at[l->merges] = l->merge_bytes.len;
	stave_buf_put(&l->merge_bytes, left, l_n);
	stave_buf_put(&l->merge_bytes, " ", 1);
	stave_buf_put(&l->merge_bytes, right, r_n);
	l->merge_len[l->merges++] = l_n + r_n + 1;
}

static inline int token_is(const struct list *l, int i, const char *p, size_t n)
{
	return l->len[i] == n && !memcmp(l->bytes.p + l->at[i], p, n);
}

static inline int token_find(const struct list *l, const char *p, size_t n)
{
	for (int i = 0; i < l->n; i++)
		if (token_is(l, i, p, n))
			return i;
	return -1;
}

static inline void list_free(struct list *l)
{
	stave_buf_free(&l->bytes);
	stave_buf_free(&l->merge_bytes);
	free(l);
}

static inline void put_list(struct stave_gguf_writer *w, const struct list *l)
{
	static const char *p[8192];
	for (int i = 0; i < l->n; i++)
		p[i] = l->bytes.p + l->at[i];
	stave_gguf_put_strs(w, KEY "tokens", p, l->len, l->n);
	stave_gguf_put_f32s(w, KEY "scores", l->score, l->n);
	stave_gguf_put_i32s(w, KEY "token_type", l->type, l->n);
	for (int i = 0; i < l->merges; i++)
		p[i] = l->merge_bytes.p + l->merge_at[i];
	if (l->merges)
		stave_gguf_put_strs(w, KEY "merges", p, l->merge_len, l->merges);
}

static inline void put_text_key(struct stave_gguf_writer *w, const char *key, const char *text)
{
	stave_gguf_put_str(w, key, text, strlen(text));
}

static inline struct stave_gguf_writer *begin_gguf(const char *path, int vocab)
{
	struct stave_gguf_writer *w;
	struct stave_err err = {0};
	if (stave_gguf_create(&w, path, &err))
		fail_msg("%s", err.msg);
	put_text_key(w, "general.architecture", "llama");
	put_text_key(w, "general.name", "tiny");
	stave_gguf_put_u32(w, "general.file_type", 0);
	stave_gguf_put_u32(w, "llama.block_count", 1);
	stave_gguf_put_u32(w, "llama.context_length", 64);
	stave_gguf_put_u32(w, "llama.embedding_length", 32);
	stave_gguf_put_u32(w, "llama.feed_forward_length", 32);
	stave_gguf_put_u32(w, "llama.attention.head_count", 1);
	stave_gguf_put_u32(w, "llama.attention.head_count_kv", 1);
	stave_gguf_put_u32(w, "llama.rope.dimension_count", 32);
	stave_gguf_put_u32(w, "llama.vocab_size", (uint32_t)vocab);
	stave_gguf_put_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
	return w;
}

static inline void end_gguf(struct stave_gguf_writer *w, int vocab)
{
	static const char *const names[] = {"token_embd.weight", "output_norm.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight",
	                                    "blk.0.attn_output.weight", "blk.0.ffn_norm.weight", "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight", "blk.0.ffn_down.weight"};
	struct stave_gguf_tensor t[11] = {0};
	struct stave_err err = {0};
	static const float zeros[8192 * 32];
	for (int i = 0; i < 11; i++) {
		int norm = strstr(names[i], "norm") != NULL;
		t[i] = (struct stave_gguf_tensor){.name = names[i], .type = STAVE_Q_F32, .n_dims = norm ? 1 : 2, .ne = {32, i == 0 ? vocab : norm ? 1 : 32, 1, 1}};
	}
	int rc = stave_gguf_tensors(w, t, 11, &err);
	for (int i = 0; i < 11 && !rc; i++)
		rc = stave_gguf_write(w, zeros, (size_t)(t[i].ne[0] * t[i].ne[1]) * 4, &err);
	if (rc)
		fail_msg("%s", err.msg);
	if (stave_gguf_commit(w, &err))
		fail_msg("%s", err.msg);
}

/* BPE by counting pairs over the whole text, with no regard to words: its tokens go across whatever a pattern would cut, so a cut in
 * another place shows. Tokens are spelled as the text is; starts from what l holds. */
static inline void train_blindly(struct list *l, const char *text, size_t n, int tokens)
{
	int *s = malloc(n * sizeof *s);
	int *count = NULL;
	size_t len = 0;
	for (size_t i = 0; i < n;) { /* characters that l has */
		size_t k = 1;
		while (i + k < n && (text[i + k] & 0xc0) == 0x80)
			k++;
		int id = token_find(l, text + i, k);
		if (id >= 0)
			s[len++] = id;
		i += k;
	}
	while (l->n < tokens) {
		int size = l->n, best = 0, at = -1;
		count = realloc(count, (size_t)size * (size_t)size * sizeof *count);
		memset(count, 0, (size_t)size * (size_t)size * sizeof *count);
		for (size_t i = 0; i + 1 < len; i++)
			if (l->len[s[i]] + l->len[s[i + 1]] <= 24 && ++count[s[i] * size + s[i + 1]] > best) {
				best = count[s[i] * size + s[i + 1]];
				at = s[i] * size + s[i + 1];
			}
		if (best < 2)
			break;
		int a = at / size, b = at % size;
		char both[24];
		size_t both_n = l->len[a] + l->len[b];
		memcpy(both, l->bytes.p + l->at[a], l->len[a]);
		memcpy(both + l->len[a], l->bytes.p + l->at[b], l->len[b]);
		int id = token_find(l, both, both_n);
		if (id < 0)
			id = put_token(l, both, both_n, -(float)l->n, 1);
		put_merge_text(l, both, l->len[a], both + l->len[a], l->len[b]);
		size_t k = 0;
		for (size_t i = 0; i < len; k++) {
			int hit = i + 1 < len && s[i] == a && s[i + 1] == b;
			s[k] = hit ? id : s[i];
			i += hit ? 2 : 1;
		}
		len = k;
	}
	free(count);
	free(s);
}

#endif
