/* Small tokenizer.json documents for the tests, composed without the code under test: the byte alphabet is written out
 * from its description (printable bytes 33-126, 161-172, 174-255 stand for themselves, the other 68 for U+0100 on). */
#ifndef STAVE_TEST_TEXT_FIXTURES_H
#define STAVE_TEST_TEXT_FIXTURES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/fs.h"
#include "text/text.h"

static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
static const char llama3_pattern[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char qwen2_pattern[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* id of a byte in the vocabularies of OpenAI: the printable ones first. */
static inline int byte_order(int b)
{
	int printable = 0, other = 188;
	for (int i = 0; i < b; i++)
		if ((i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174)
			printable++;
		else
			other++;
	return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174 ? printable : other;
}

/* n bytes in the byte alphabet; static storage, eight at a time. */
static inline const char *mapped(const char *bytes, size_t n)
{
	static char ring[8][256];
	static int turn;
	char *s = ring[turn++ % 8], *o = s;
	for (size_t i = 0; i < n; i++) {
		int b = (unsigned char)bytes[i], id = byte_order(b), c = id < 188 ? b : 0x100 + id - 188;
		if (c < 128) {
			*o++ = (char)c;
		} else {
			*o++ = (char)(0xc0 | c >> 6);
			*o++ = (char)(0x80 | (c & 63));
		}
	}
	*o = 0;
	return s;
}

/* vocab of the 256 bytes in that order. */
static inline json_t *byte_vocab(void)
{
	json_t *v = json_object();
	for (int b = 0; b < 256; b++) {
		char c = (char)b;
		json_object_set_new(v, mapped(&c, 1), json_integer(byte_order(b)));
	}
	return v;
}

/* Token left+right with that id, and its merge. */
static inline void add_merge(json_t *vocab, json_t *merges, const char *left, size_t l, const char *right, size_t r, int id, int as_array)
{
	char both[256], line[600];
	memcpy(both, left, l);
	memcpy(both + l, right, r);
	if (!json_object_get(vocab, mapped(both, l + r)))
		json_object_set_new(vocab, mapped(both, l + r), json_integer(id));
	snprintf(line, sizeof line, "%s %s", mapped(left, l), mapped(right, r));
	if (as_array)
		json_array_append_new(merges, json_pack("[s, s]", mapped(left, l), mapped(right, r)));
	else
		json_array_append_new(merges, json_string(line));
}
#define MERGE(v, m, left, right, id) add_merge(v, m, left, sizeof(left) - 1, right, sizeof(right) - 1, id, 0)

static inline json_t *byte_level(int use_regex)
{
	return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", use_regex);
}

static inline json_t *split_then_bytes(const char *pattern)
{
	return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type", "Split", "pattern", "Regex", pattern,
	                 "behavior", "Isolated", "invert", 0, byte_level(0));
}

static inline json_t *special_token(int id, const char *content)
{
	return json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", id, "content", content, "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
}

/* A whole document; takes over what it is given. */
static inline json_t *document(json_t *vocab, json_t *merges, json_t *added, json_t *pre_tokenizer, int ignore_merges)
{
	return json_pack("{s:s, s:n, s:n, s:o, s:n, s:o, s:n, s:{s:s}, s:{s:s, s:n, s:n, s:b, s:b, s:b, s:o, s:o}}", "version", "1.0", "truncation", "padding",
	                 "added_tokens", added, "normalizer", "pre_tokenizer", pre_tokenizer, "post_processor", "decoder", "type", "ByteLevel",
	                 "model", "type", "BPE", "dropout", "unk_token", "fuse_unk", 0, "byte_fallback", 0, "ignore_merges", ignore_merges, "vocab", vocab, "merges", merges);
}

static inline void new_dir(char dir[64])
{
	strcpy(dir, "/tmp/stave-text-XXXXXX");
	assert_non_null(mkdtemp(dir));
}

static inline void write_json(const char *dir, const char *name, json_t *j)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	assert_non_null(j);
	assert_int_equal(json_dump_file(j, path, 0), 0);
	json_decref(j);
}

/* Load a directory made by write_json, and remove it. */
static inline int load_dir(struct stave_tokenizer **t, const char *dir, struct stave_err *err)
{
	int rc = stave_tokenizer_load(t, dir, err);
	assert_int_equal(stave_remove_tree(dir, NULL), 0);
	return rc;
}

static inline struct stave_tokenizer *open_document(json_t *doc, json_t *config)
{
	char dir[64];
	struct stave_tokenizer *t = NULL;
	struct stave_err err = {0};
	new_dir(dir);
	write_json(dir, "tokenizer.json", doc);
	if (config)
		write_json(dir, "tokenizer_config.json", config);
	if (load_dir(&t, dir, &err))
		fail_msg("%s", err.msg);
	return t;
}

/* The ids of a text must be exactly want[0..n). */
static inline void check_ids(const struct stave_tokenizer *t, const char *text, size_t len, int specials, const int32_t *want, size_t n)
{
	struct stave_encoder *e = NULL;
	struct stave_ids ids = {0};
	struct stave_err err = {0};
	assert_int_equal(stave_encoder_open(&e, t, &err), 0);
	for (int again = 0; again < 2; again++) { /* the second time from the cache */
		ids.n = 0;
		if (stave_encode(e, text, len, specials, &ids, &err))
			fail_msg("%s", err.msg);
		int same = ids.n == n && !memcmp(ids.p, want, n * sizeof *want);
		if (!same) {
			for (size_t i = 0; i < ids.n; i++)
				fprintf(stderr, "%d ", ids.p[i]);
			fail_msg("ids of \"%s\" differ", text);
		}
	}
	stave_ids_free(&ids);
	stave_encoder_free(e);
}
#define IDS(t, text, ...) check_ids(t, text, sizeof(text) - 1, 0, (int32_t[]){__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / 4)
#define IDS_SPECIAL(t, text, ...) check_ids(t, text, sizeof(text) - 1, 1, (int32_t[]){__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / 4)

/* decode(encode(text)) == text */
static inline void check_round_trip(const struct stave_tokenizer *t, const char *text, size_t n)
{
	struct stave_encoder *e = NULL;
	struct stave_ids ids = {0};
	struct stave_buf out = {0};
	struct stave_err err = {0};
	assert_int_equal(stave_encoder_open(&e, t, &err), 0);
	if (stave_encode(e, text, n, 0, &ids, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(stave_decode(t, ids.p, ids.n, 1, &out, &err), 0);
	assert_int_equal(out.len, n);
	assert_memory_equal(out.p ? out.p : "", text, n);
	stave_buf_free(&out);
	stave_ids_free(&ids);
	stave_encoder_free(e);
}

#endif
