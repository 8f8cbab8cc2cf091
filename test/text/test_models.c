/* Tokenizers that are not byte-level BPE, and those of GGUF files: SentencePiece's BPE against a naive one written here, Unigram
 * against all ways to cut a word, WordPiece against the examples of its papers; there and back between tokenizer.json and GGUF with
 * the same ids; long runs of one character; files that lie. */
#include "gguf_fixture.h"

#include <math.h>
#include <time.h>

static char dir[64];

static void path_of(char path[128], const char *name)
{
	snprintf(path, 128, "%s/%s", dir, name);
}

static struct stave_tokenizer *open_path(const char *path)
{
	struct stave_tokenizer *t = NULL;
	struct stave_err err = {0};
	if (stave_tokenizer_load(&t, path, &err))
		fail_msg("%s", err.msg);
	return t;
}

static struct stave_ids encode(const struct stave_tokenizer *t, const char *text, size_t n)
{
	struct stave_encoder *e;
	struct stave_ids ids = {0};
	struct stave_err err = {0};
	assert_int_equal(stave_encoder_open(&e, t, &err), 0);
	if (stave_encode(e, text, n, false, &ids, &err))
		fail_msg("%s", err.msg);
	stave_encoder_free(e);
	return ids;
}

/* A GGUF with this list, through the reader. */
static struct stave_tokenizer *open_list(const struct list *l, const char *model, const char *pre, int prefix)
{
	char path[128];
	path_of(path, "list.gguf");
	struct stave_gguf_writer *w = begin_gguf(path, l->n);
	put_text_key(w, KEY "model", model);
	if (pre)
		put_text_key(w, KEY "pre", pre);
	put_list(w, l);
	if (prefix >= 0)
		stave_gguf_put_bool(w, KEY "add_space_prefix", prefix);
	end_gguf(w, l->n);
	return open_path(path);
}

/* ---- SentencePiece's BPE ---- */

/* Joins the best pair over and over, by strings: O(n^2), and nothing shared with the code under test. Characters here are bytes. */
static size_t naive_spm(const struct list *l, const char *text, size_t n, int32_t *out)
{
	static size_t at[512], len[512];
	size_t count = n;
	for (size_t i = 0; i < n; i++) {
		at[i] = i;
		len[i] = 1;
	}
	for (;;) {
		size_t best = count;
		float score = -INFINITY;
		for (size_t i = 0; i + 1 < count; i++) {
			int id = token_find(l, text + at[i], len[i] + len[i + 1]);
			if (id >= 0 && l->type[id] == 1 && l->score[id] > score) {
				score = l->score[id];
				best = i;
			}
		}
		if (best == count)
			break;
		len[best] += len[best + 1];
		memmove(at + best + 1, at + best + 2, (count - best - 2) * sizeof *at);
		memmove(len + best + 1, len + best + 2, (count - best - 2) * sizeof *len);
		count--;
	}
	for (size_t i = 0; i < count; i++) {
		out[i] = token_find(l, text + at[i], len[i]);
		if (out[i] < 0) { /* one unknown byte */
			char name[8];
			snprintf(name, sizeof name, "<0x%02X>", (unsigned char)text[at[i]]);
			out[i] = token_find(l, name, 6);
		}
	}
	return count;
}

static struct list *spm_list(void)
{
	struct list *l = calloc(1, sizeof *l);
	put_token(l, "<unk>", 5, 0, 2);
	put_token(l, "<s>", 3, 0, 3);
	put_token(l, "</s>", 4, 0, 3);
	for (int b = 0; b < 256; b++) {
		char name[8];
		snprintf(name, sizeof name, "<0x%02X>", b);
		put_token(l, name, 6, 0, 6);
	}
	return l;
}

static void spm_naive(void **state)
{
	srand(11);
	for (int round = 0; round < 20; round++) {
		struct list *l = spm_list();
		char text[200];
		int32_t want[200];
		for (int c = 'a'; c < 'e'; c++)
			put_token(l, &(char){(char)c}, 1, -(float)(rand() % 9), 1);
		for (int k = 0; k < 60; k++) { /* any strings, whether their halves are tokens or not; scores with ties */
			char word[8];
			int n = 2 + rand() % 5;
			for (int i = 0; i < n; i++)
				word[i] = (char)('a' + rand() % 5);
			if (token_find(l, word, (size_t)n) < 0)
				put_token(l, word, (size_t)n, -(float)(rand() % 20), 1);
		}
		struct stave_tokenizer *t = open_list(l, "llama", NULL, 0);
		for (int k = 0; k < 30; k++) {
			size_t n = (size_t)(1 + rand() % 120);
			for (size_t i = 0; i < n; i++)
				text[i] = (char)('a' + rand() % 6); /* e and f may be unknown */
			size_t m = naive_spm(l, text, n, want);
			check_ids(t, text, n, 0, want, m);
		}
		stave_tokenizer_free(t);
		list_free(l);
	}
}

/* Words of a real kind: prefix, marks, bytes of what is unknown, text back from ids after bos. */
static void spm_words(void **state)
{
	struct list *l = spm_list();
	static const char *const tokens[] = {"\xe2\x96\x81", "a", "b", "ab", "\xe2\x96\x81" "ab", "\xe2\x96\x81\xe2\x96\x81", "\xe2\x96\x81" "a"};
	for (int i = 0; i < 7; i++)
		put_token(l, tokens[i], strlen(tokens[i]), -(float)i, 1);
	put_token(l, "<tool>", 6, 0, 4);
	struct stave_tokenizer *t = open_list(l, "llama", NULL, 1);
	const int mark = 259, b = 261, mab = 263, two = 264, ma = 265, tool = 266;
	IDS(t, "ab", mab);
	IDS(t, "ab  ab", mab, mark, mab); /* ab is worth more than two marks, and takes one of them along */
	IDS(t, "b  b", mark, b, two, b);
	IDS(t, "b\xc3\xa9", mark, b, 3 + 0xc3, 3 + 0xa9);
	IDS(t, "\xff", mark, 3 + 0xff);
	IDS(t, "a<tool>b", ma, tool, mark, b); /* user-defined tokens are found in any text, and a prefix follows each */
	IDS(t, "<s>", mark, 3 + '<', 3 + 's', 3 + '>');
	IDS_SPECIAL(t, "<s>b", 1, mark, b);
	IDS(t, "<0x41>", mark, 3 + '<', 3 + '0', 3 + 'x', 3 + '4', 3 + '1', 3 + '>');
	assert_int_equal(stave_tokenizer_bos(t), 1);
	assert_int_equal(stave_tokenizer_eos(t), 2);
	assert_true(stave_tokenizer_add_bos(t));
	assert_false(stave_tokenizer_add_eos(t));
	assert_true(stave_tokenizer_is_stop(t, 2));
	assert_false(stave_tokenizer_is_stop(t, 1));
	size_t n;
	assert_memory_equal(stave_tokenizer_bytes(t, 3 + 0xc3, &n), "\xc3", 1);
	assert_int_equal(n, 1);
	assert_memory_equal(stave_tokenizer_bytes(t, mab, &n), " ab", 3);
	assert_int_equal(stave_tokenizer_find(t, "<0x0A>", 6), 3 + 10);
	/* any bytes come back, the prefix not with them */
	char text[256];
	for (int i = 0; i < 256; i++)
		text[i] = (char)(i * 7);
	struct stave_ids ids = encode(t, text, 256);
	struct stave_buf out = {0};
	stave_ids_put(&ids, 0);
	memmove(ids.p + 1, ids.p, (ids.n - 1) * sizeof *ids.p);
	ids.p[0] = 1;
	assert_int_equal(stave_decode(t, ids.p, ids.n, false, &out, NULL), 0);
	assert_int_equal(out.len, 256);
	assert_memory_equal(out.p, text, 256);
	stave_buf_free(&out);
	stave_ids_free(&ids);
	stave_tokenizer_free(t);
	list_free(l);
}

/* ---- Unigram ---- */

/* The highest sum over all ways to cut; unknown characters cost ten more than the worst token. */
static double best_cut(const struct list *l, const char *p, size_t n, double unknown)
{
	double best = n ? -INFINITY : 0;
	for (size_t k = 1; k <= n; k++) {
		int id = token_find(l, p, k);
		if (id < 0 && k > 1)
			continue;
		double s = (id < 0 ? unknown : (double)l->score[id]) + best_cut(l, p + k, n - k, unknown);
		best = s > best ? s : best;
	}
	return best;
}

static void unigram_best(void **state)
{
	srand(5);
	for (int round = 0; round < 15; round++) {
		struct list *l = calloc(1, sizeof *l);
		double least = 0;
		put_token(l, "<pad>", 5, 0, 3);
		put_token(l, "</s>", 4, 0, 3);
		put_token(l, "<unk>", 5, 0, 2);
		for (int k = 0; k < 40; k++) {
			char word[8];
			int n = 1 + rand() % 4;
			for (int i = 0; i < n; i++)
				word[i] = (char)('a' + rand() % 3);
			float score = -1 - (float)(rand() % 1000) / 100;
			if (token_find(l, word, (size_t)n) >= 0)
				continue;
			put_token(l, word, (size_t)n, score, 1);
			least = score < least ? score : least;
		}
		struct stave_tokenizer *t = open_list(l, "t5", NULL, 0);
		assert_true(stave_tokenizer_add_eos(t));
		for (int k = 0; k < 20; k++) {
			char text[16];
			size_t n = (size_t)(1 + rand() % 12);
			for (size_t i = 0; i < n; i++)
				text[i] = (char)('a' + rand() % 3);
			struct stave_ids ids = encode(t, text, n);
			double sum = 0;
			bool unknown = false;
			struct stave_buf out = {0};
			for (size_t i = 0; i < ids.n; i++) {
				unknown |= ids.p[i] == 2;
				sum += l->score[ids.p[i]];
			}
			assert_int_equal(stave_decode(t, ids.p, ids.n, false, &out, NULL), 0);
			if (!unknown) { /* unknown ones in a row are one id, so their number does not show */
				assert_true(fabs(sum - best_cut(l, text, n, least - 10)) < 1e-4);
				assert_int_equal(out.len, n);
				assert_memory_equal(out.p, text, n);
			}
			stave_buf_free(&out);
			stave_ids_free(&ids);
		}
		stave_tokenizer_free(t);
		list_free(l);
	}
}

/* From tokenizer.json, as T5 writes it: white space of any kind parts words. */
static void unigram_json(void **state)
{
	json_t *vocab = json_pack("[[s, f], [s, f], [s, f], [s, f], [s, f], [s, f]]", "<unk>", 0.0, "</s>", 0.0, "\xe2\x96\x81", -2.0, "\xe2\x96\x81he", -3.0, "llo", -3.5, "l", -5.0);
	json_t *doc = json_pack("{s:s, s:[o], s:n, s:{s:s, s:[{s:s}, {s:s, s:s, s:s, s:b}]}, s:{s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}]}, s:{s:s, s:s, s:s}, s:{s:s, s:i, s:o}}", "version", "1.0", "added_tokens",
	                        special_token(1, "</s>"), "normalizer", "pre_tokenizer", "type", "Sequence", "pretokenizers", "type", "WhitespaceSplit", "type", "Metaspace", "replacement", "\xe2\x96\x81",
	                        "prepend_scheme", "always", "split", 1, "post_processor", "type", "TemplateProcessing", "single", "Sequence", "id", "A", "type_id", 0, "SpecialToken", "id", "</s>", "type_id", 0,
	                        "decoder", "type", "Metaspace", "replacement", "\xe2\x96\x81", "prepend_scheme", "always", "model", "type", "Unigram", "unk_id", 0, "vocab", vocab);
	struct stave_tokenizer *t = open_document(doc, NULL);
	IDS(t, " hello\n\thello ", 3, 4, 3, 4);
	IDS(t, "hexxxl", 3, 0, 5);
	IDS(t, "x y", 2, 0, 2, 0);
	assert_int_equal(stave_tokenizer_eos(t), 1);
	assert_true(stave_tokenizer_add_eos(t));
	assert_false(stave_tokenizer_add_bos(t));
	stave_tokenizer_free(t);
}

/* A table of one unit per place, laid out by hand: "ab" becomes "X", "a" nothing else. The root's offset is 256; 'a' is at
 * 256 ^ 'a', its children at that ^ 512; 'b' has a leaf, whose value is the string at 1. */
static size_t small_charsmap(uint8_t *out)
{
	static uint32_t unit[2048];
	memset(unit, 0, sizeof unit);
	uint32_t a = 256 ^ 'a', b = a ^ 512 ^ 'b', leaf = b ^ 1024;
	unit[0] = 256u << 10;
	unit[a] = 512u << 10 | 'a';
	unit[b] = 1024u << 10 | 1u << 8 | 'b';
	unit[leaf] = 1u << 31 | 1;
	uint32_t size = sizeof unit;
	memcpy(out, &size, 4);
	memcpy(out + 4, unit, size);
	memcpy(out + 4 + size, "\0X\0", 3);
	return 4 + size + 3;
}

static void charsmap(void **state)
{
	static uint8_t map[16384];
	size_t n = small_charsmap(map);
	char path[128];
	struct list *l = calloc(1, sizeof *l);
	put_token(l, "<pad>", 5, 0, 3);
	put_token(l, "</s>", 4, 0, 3);
	put_token(l, "<unk>", 5, 0, 2);
	put_token(l, "a", 1, -1, 1);
	put_token(l, "b", 1, -1, 1);
	put_token(l, "X", 1, -1, 1);
	for (int kind = 0; kind < 4; kind++) {
		struct stave_tokenizer *t = NULL;
		struct stave_err err = {0};
		path_of(path, "map.gguf");
		struct stave_gguf_writer *w = begin_gguf(path, l->n);
		put_text_key(w, KEY "model", "t5");
		put_list(w, l);
		n = small_charsmap(map);
		uint32_t wild = kind == 1 ? (uint32_t)n : kind == 2 ? 0x3fffffffu << 10 : 0;
		if (kind == 1)
			memcpy(map, &wild, 4); /* a trie as long as all */
		if (kind == 2)
			memcpy(map + 4, &wild, 4); /* the root leads out */
		if (kind == 3)
			map[n - 1] = 'Y'; /* the last string does not end */
		stave_gguf_put_u8s(w, KEY "precompiled_charsmap", map, (int64_t)n);
		end_gguf(w, l->n);
		int rc = stave_tokenizer_load(&t, path, &err);
		if (kind == 0) {
			assert_int_equal(rc, 0);
			IDS(t, "aabba", 3, 5, 4, 3);
		} else if (kind == 2) {
			struct stave_encoder *e;
			struct stave_ids ids = {0};
			assert_int_equal(rc, 0);
			assert_int_equal(stave_encoder_open(&e, t, NULL), 0);
			assert_int_equal(stave_encode(e, "ab", 2, false, &ids, &err), STAVE_ECORRUPT);
			stave_ids_free(&ids);
			stave_encoder_free(e);
		} else {
			assert_int_equal(rc, STAVE_ECORRUPT);
			assert_non_null(strstr(err.msg, "charsmap"));
		}
		stave_tokenizer_free(t);
	}
	list_free(l);
}

/* ---- WordPiece ---- */

static json_t *bert_document(void)
{
	static const char *const tokens[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "runn", "##ing", "want", "##want", "##ed", "wa", "low", "lowest", "##est", "ah", "\xe5\x8d\x9a", "\xe6\x8e\xa8", "zz", "##z", "!", ",", "how", "are", "you", "?", "cafe"};
	json_t *vocab = json_object(), *added = json_array();
	for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
		json_object_set_new(vocab, tokens[i], json_integer((json_int_t)i));
		if (i < 4)
			json_array_append_new(added, special_token((int)i, tokens[i]));
	}
	return json_pack("{s:s, s:o, s:{s:s, s:b, s:b, s:n, s:b}, s:{s:s}, s:{s:s, s:[s, i], s:[s, i]}, s:{s:s, s:s, s:b}, s:{s:s, s:s, s:s, s:i, s:o}}", "version", "1.0", "added_tokens", added, "normalizer", "type",
	                 "BertNormalizer", "clean_text", 1, "handle_chinese_chars", 1, "strip_accents", "lowercase", 1, "pre_tokenizer", "type", "BertPreTokenizer", "post_processor", "type", "BertProcessing", "sep",
	                 "[SEP]", 3, "cls", "[CLS]", 2, "decoder", "type", "WordPiece", "prefix", "##", "cleanup", 1, "model", "type", "WordPiece", "unk_token", "[UNK]", "continuing_subword_prefix", "##",
	                 "max_input_chars_per_word", 100, "vocab", vocab);
}

/* The examples of Google's BERT (tokenization_test.py), with our ids. */
static void wordpiece(void **state)
{
	struct stave_tokenizer *t = open_document(bert_document(), NULL);
	IDS(t, "unwanted running", 4, 10, 11, 7, 8);
	IDS(t, "unwantedX running", 1, 7, 8);
	IDS(t, "UNAFFABLE", 4, 5, 6);
	IDS(t, "lowest low", 14, 13);
	IDS(t, "ah\xe5\x8d\x9a\xe6\x8e\xa8zz", 16, 17, 18, 19);
	IDS(t, " \tHow \n  Are yoU!,?  ", 23, 24, 25, 21, 22, 26);
	IDS(t, "Caf\xc3\xa9 cafe\xcc\x81 ca\xe2\x80\x8b""fe\x07", 27, 27, 27);
	IDS(t, "[CLS]", 1, 1, 1); /* typed, not meant */
	IDS_SPECIAL(t, "[CLS]how", 2, 23);
	assert_int_equal(stave_tokenizer_bos(t), 2);
	assert_int_equal(stave_tokenizer_eos(t), 3);
	assert_true(stave_tokenizer_add_bos(t) && stave_tokenizer_add_eos(t));
	char z[102];
	memset(z, 'z', sizeof z);
	struct stave_ids ids = encode(t, z, 100), more = encode(t, z, 101);
	assert_int_equal(ids.n, 99);
	assert_int_equal(more.n, 1);
	assert_int_equal(more.p[0], 1);
	struct stave_buf out = {0};
	assert_int_equal(stave_decode(t, (int32_t[]){2, 4, 5, 6, 23, 24, 25, 26, 3}, 9, false, &out, NULL), 0);
	assert_string_equal(out.p, "unaffable how are you?");
	stave_buf_free(&out);
	stave_ids_free(&ids);
	stave_ids_free(&more);
	stave_tokenizer_free(t);
}

static void wordlevel(void **state)
{
	json_t *doc = json_pack("{s:s, s:[], s:{s:s}, s:{s:s, s:s, s:{s:i, s:i, s:i}}}", "version", "1.0", "added_tokens", "pre_tokenizer", "type", "Whitespace", "model", "type", "WordLevel", "unk_token", "[UNK]", "vocab",
	                        "[UNK]", 0, "one", 1, "!", 2);
	struct stave_tokenizer *t = open_document(doc, NULL);
	IDS(t, "one two one!", 1, 0, 1, 2);
	stave_tokenizer_free(t);
}

/* ---- there and back ---- */

static const char passage[] = "Hello, hello  world's 123 4567\n\n\tcaf\xc3\xa9 e\xcc\x81 \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x91\x8d unaffable running! how are you\n \n  end  ";

static void same_ids(const struct stave_tokenizer *a, const struct stave_tokenizer *b)
{
	struct stave_ids x = encode(a, passage, sizeof passage - 1), y = encode(b, passage, sizeof passage - 1);
	assert_int_equal(x.n, y.n);
	assert_memory_equal(x.p, y.p, x.n * sizeof *x.p);
	assert_int_equal(stave_tokenizer_bos(a), stave_tokenizer_bos(b));
	assert_int_equal(stave_tokenizer_eos(a), stave_tokenizer_eos(b));
	assert_int_equal(stave_tokenizer_add_bos(a), stave_tokenizer_add_bos(b));
	assert_int_equal(stave_tokenizer_add_eos(a), stave_tokenizer_add_eos(b));
	for (int id = 0; id < stave_tokenizer_vocab(a); id++) {
		size_t n, m;
		const char *p = stave_tokenizer_bytes(a, id, &n), *q = stave_tokenizer_bytes(b, id, &m);
		if (n != m || memcmp(p, q, n))
			fail_msg("token %d decodes to \"%.*s\" and to \"%.*s\"", id, (int)n, p, (int)m, q);
		assert_int_equal(stave_tokenizer_is_special(a, id), stave_tokenizer_is_special(b, id));
		assert_int_equal(stave_tokenizer_is_stop(a, id), stave_tokenizer_is_stop(b, id));
	}
	assert_string_equal(stave_tokenizer_chat_template(a) ? stave_tokenizer_chat_template(a) : "", stave_tokenizer_chat_template(b) ? stave_tokenizer_chat_template(b) : "");
	stave_ids_free(&x);
	stave_ids_free(&y);
}

/* t to GGUF, with three rows more, to a directory, and to GGUF again. Takes t. */
static void there_and_back(struct stave_tokenizer *t)
{
	char path[128], saved[128];
	struct stave_err err = {0};
	path_of(path, "there.gguf");
	path_of(saved, "saved");
	const struct stave_tokenizer *from = t;
	struct stave_tokenizer *made[3];
	for (int i = 0; i < 3; i++) {
		if (i == 1) {
			if (stave_tokenizer_save(from, saved, &err))
				fail_msg("%s", err.msg);
		} else {
			int vocab = stave_tokenizer_vocab(from) + 3;
			struct stave_gguf_writer *w = begin_gguf(path, vocab);
			if (stave_tokenizer_to_gguf(from, vocab, w, &err))
				fail_msg("%s", err.msg);
			end_gguf(w, vocab);
		}
		made[i] = open_path(i == 1 ? saved : path);
		same_ids(t, made[i]);
		from = made[i];
	}
	for (int i = 0; i < 3; i++)
		stave_tokenizer_free(made[i]);
	assert_int_equal(stave_remove_tree(saved, NULL), 0);
	stave_tokenizer_free(t);
}

static void conversions(void **state)
{
	static const char *const patterns[] = {"gpt2", "llama3", "qwen2"};
	struct stave_tokenizer *t;
	for (int i = 0; i < 3; i++) {
		struct stave_bpe_trainer *b;
		assert_int_equal(stave_bpe_trainer_open(&b, patterns[i], NULL), 0);
		for (int k = 0; k < 9; k++)
			assert_int_equal(stave_bpe_trainer_add(b, passage, sizeof passage - 1, NULL), 0);
		assert_int_equal(stave_bpe_trainer_finish(b, 300, &t, NULL), 0);
		there_and_back(t);
	}
	assert_int_equal(stave_tokenizer_byte(&t, NULL), 0);
	char path[128];
	struct stave_err err = {0};
	path_of(path, "refused.gguf");
	struct stave_gguf_writer *w = begin_gguf(path, 257);
	assert_int_equal(stave_tokenizer_to_gguf(t, 257, w, &err), STAVE_ECONFIG); /* a text as one word: no name for that */
	assert_non_null(strstr(err.msg, "pre"));
	assert_int_equal(stave_tokenizer_to_gguf(t, 256, w, &err), STAVE_ECONFIG);
	assert_non_null(strstr(err.msg, "rows"));
	stave_gguf_abort(w);
	stave_tokenizer_free(t);
	assert_int_equal(stave_tokenizer_char(&t, passage, sizeof passage - 1, true, NULL), 0);
	there_and_back(t);
	there_and_back(open_document(bert_document(), NULL));
}

static void conversions_sentencepiece(void **state)
{
	struct list *l = spm_list();
	struct stave_buf b = {0};
	for (const char *p = passage; *p; p++)
		stave_buf_put(&b, *p == ' ' ? "\xe2\x96\x81" : p, *p == ' ' ? 3 : 1);
	put_token(l, "\xe2\x96\x81", 3, -5000, 1);
	for (int c = 'a'; c <= 'z'; c++)
		put_token(l, &(char){(char)c}, 1, -6000 - (float)c, 1);
	for (int again = 0; again < 3; again++)
		train_blindly(l, b.p, b.len, 400);
	l->merges = 0;
	there_and_back(open_list(l, "llama", NULL, 1));
	there_and_back(open_list(l, "t5", NULL, 1));
	stave_buf_free(&b);
	list_free(l);
}

/* ---- what ends an answer ---- */

static void stops(void **state)
{
	json_t *v = byte_vocab();
	json_t *added = json_pack("[o, o, o, o]", special_token(256, "<|endoftext|>"), special_token(257, "<|im_end|>"), special_token(258, "<|pause|>"), special_token(259, "<|other|>"));
	char path[128], file[160];
	path_of(path, "stops");
	assert_int_equal(stave_mkdirs(path, NULL), 0);
	write_json(path, "tokenizer.json", document(v, json_array(), added, byte_level(1), 0));
	write_json(path, "tokenizer_config.json", json_pack("{s:s, s:s}", "eos_token", "<|endoftext|>", "chat_template", "{{ messages }}"));
	write_json(path, "generation_config.json", json_pack("{s:[i, i]}", "eos_token_id", 258, 100000)); /* the second is a row that only pads */
	struct stave_tokenizer *t = open_path(path);
	for (int id = 0; id < 260; id++)
		assert_int_equal(stave_tokenizer_is_stop(t, id), id >= 256 && id <= 258);
	assert_false(stave_tokenizer_is_stop(t, -1) || stave_tokenizer_is_stop(t, 260) || stave_tokenizer_is_stop(t, 100000));
	assert_string_equal(stave_tokenizer_chat_template(t), "{{ messages }}");
	stave_tokenizer_free(t);
	write_json(path, "generation_config.json", json_pack("{s:s}", "eos_token_id", "256"));
	struct stave_err err = {0};
	assert_int_equal(stave_tokenizer_load(&t, path, &err), STAVE_ECORRUPT);
	assert_non_null(strstr(err.msg, "generation_config"));
	snprintf(file, sizeof file, "%s/generation_config.json", path);
	assert_int_equal(stave_remove_tree(file, NULL), 0);
	t = open_path(path);
	assert_false(stave_tokenizer_is_stop(t, 258));
	stave_tokenizer_free(t);
	assert_int_equal(stave_remove_tree(path, NULL), 0);
}

/* ---- long runs and hostile files ---- */

static double now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts); /* other processes do not count */
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* A megabyte takes a second or so; what is quadratic would take many minutes. */
static void long_runs(void **state)
{
	static const char *const models[] = {"llama", "t5"};
	struct list *l = spm_list();
	static char run[1 << 20];
	put_token(l, "\xe2\x96\x81", 3, -1, 1);
	for (int n = 1; n <= 64; n *= 2) {
		char word[64 * 3];
		memset(word, 'a', 64);
		put_token(l, word, (size_t)n, -2 - (float)n, 1);
		for (int i = 0; i < n && n > 1; i++)
			memcpy(word + 3 * i, "\xe2\x96\x81", 3);
		if (n > 1)
			put_token(l, word, 3 * (size_t)n, -3 - (float)n, 1);
	}
	put_token(l, "a\xe2\x96\x81", 4, -9, 1); /* over a word's end: the text stays one word */
	for (int m = 0; m < 2; m++) {
		struct stave_tokenizer *t = open_list(l, models[m], NULL, 0);
		for (int kind = 0; kind < 2; kind++) {
			memset(run, kind ? ' ' : 'a', sizeof run);
			double start = now();
			struct stave_ids ids = encode(t, run, sizeof run);
			double s = now() - start;
			assert_true(ids.n <= sizeof run / 64 + 1 || m == 1);
			if (s > 10)
				fail_msg("%s: a run of %d bytes takes %.1f s", models[m], (int)sizeof run, s);
			stave_ids_free(&ids);
		}
		stave_tokenizer_free(t);
	}
	list_free(l);
}

typedef void change_fn(struct list *l, struct stave_gguf_writer *w);

static void refuse(const char *model, const char *pre, struct list *l, change_fn *more, int code, const char *words)
{
	char path[128];
	struct stave_tokenizer *t = NULL;
	struct stave_err err = {0};
	path_of(path, "bad.gguf");
	struct stave_gguf_writer *w = begin_gguf(path, l->n);
	if (model)
		put_text_key(w, KEY "model", model);
	if (pre)
		put_text_key(w, KEY "pre", pre);
	put_list(w, l);
	if (more)
		more(l, w);
	end_gguf(w, l->n);
	int rc = stave_tokenizer_load(&t, path, &err);
	if (rc != code || !strstr(err.msg, words))
		fail_msg("code %d, message \"%s\"; wanted %d and \"%s\"", rc, err.msg, code, words);
	list_free(l);
}

static void bos_beyond(struct list *l, struct stave_gguf_writer *w)
{
	stave_gguf_put_u32(w, KEY "bos_token_id", (uint32_t)l->n);
}

static void eot_huge(struct list *l, struct stave_gguf_writer *w)
{
	stave_gguf_put_u32(w, KEY "eot_token_id", 0x80000000u);
}

static void bos_without_id(struct list *l, struct stave_gguf_writer *w)
{
	stave_gguf_put_bool(w, KEY "add_bos_token", true);
}

static void map_of_words(struct list *l, struct stave_gguf_writer *w)
{
	stave_gguf_put_i32s(w, KEY "precompiled_charsmap", (int32_t[]){1, 2}, 2);
}

static struct list *byte_list(void)
{
	struct list *l = calloc(1, sizeof *l);
	for (int b = 0; b < 256; b++) {
		char c = (char)b;
		put_token(l, mapped(&c, 1), strlen(mapped(&c, 1)), 0, 1);
	}
	put_merge_text(l, "t", 1, "h", 1);
	return l;
}

static struct list *with(struct list *l, const char *token, size_t n, float score)
{
	put_token(l, token, n, score, 1);
	return l;
}

static struct list *with_merge(struct list *l, const char *left, const char *right)
{
	put_merge_text(l, left, strlen(left), right, strlen(right));
	return l;
}

static void hostile(void **state)
{
	refuse("gpt2", "newest-model", byte_list(), NULL, STAVE_ECONFIG, "newest-model");
	refuse("gpt2", NULL, byte_list(), NULL, STAVE_ECONFIG, "pre");
	refuse("rwkv", NULL, byte_list(), NULL, STAVE_ECONFIG, "rwkv");
	refuse(NULL, NULL, byte_list(), NULL, STAVE_ECORRUPT, "model");
	refuse("gpt2", "gpt-2", byte_list(), bos_beyond, STAVE_ECORRUPT, "bos_token_id is 256");
	refuse("gpt2", "gpt-2", byte_list(), eot_huge, STAVE_ECORRUPT, "eot_token_id is 2147483648");
	refuse("gpt2", "gpt-2", byte_list(), bos_without_id, STAVE_ECORRUPT, "bos");
	refuse("gpt2", "gpt-2", with(byte_list(), "t", 1, 0), NULL, STAVE_ECORRUPT, "both");
	refuse("gpt2", "gpt-2", with(byte_list(), "\xff\xfe", 2, 0), NULL, STAVE_ECORRUPT, "UTF-8");
	refuse("gpt2", "gpt-2", with_merge(byte_list(), "th", "e"), NULL, STAVE_ECORRUPT, "merge 1 names");
	refuse("gpt2", "gpt-2", with_merge(byte_list(), "zebra", "e"), NULL, STAVE_ECORRUPT, "merge 1 names");
	refuse("gpt2", "gpt-2", with_merge(byte_list(), "", ""), NULL, STAVE_ECORRUPT, "merge 1 is not");
	refuse("llama", NULL, with(spm_list(), "a", 1, NAN), NULL, STAVE_ECORRUPT, "finite");
	refuse("llama", NULL, with(spm_list(), "a", 1, -INFINITY), NULL, STAVE_ECORRUPT, "finite");
	refuse("t5", NULL, spm_list(), map_of_words, STAVE_ECORRUPT, "charsmap");
	static char huge[70000];
	memset(huge, 'x', sizeof huge);
	refuse("llama", NULL, with(spm_list(), huge, sizeof huge, 0), NULL, STAVE_ECORRUPT, "too long");
	refuse("t5", NULL, with(spm_list(), huge, 2000, 0), NULL, STAVE_ECONFIG, "2000 bytes");
	/* empty tokens are holes; a merge whose result is no token is none; bytes that are missing are errors at the text that needs them */
	struct list *l = with(byte_list(), "", 0, 0);
	struct stave_tokenizer *t = open_list(with(l, "", 0, 0), "gpt2", "gpt-2", -1);
	IDS(t, "the", 't', 'h', 'e');
	assert_int_equal(stave_tokenizer_vocab(t), 256);
	stave_tokenizer_free(t);
	list_free(l);
}

static int make_dir(void **state)
{
	new_dir(dir);
	return 0;
}

static int remove_dir(void **state)
{
	return stave_remove_tree(dir, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spm_naive), cmocka_unit_test(spm_words), cmocka_unit_test(unigram_best), cmocka_unit_test(unigram_json), cmocka_unit_test(charsmap),
		cmocka_unit_test(wordpiece), cmocka_unit_test(wordlevel), cmocka_unit_test(conversions), cmocka_unit_test(conversions_sentencepiece), cmocka_unit_test(stops), cmocka_unit_test(long_runs),
		cmocka_unit_test(hostile),
	};
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
