/* The loader. Shards are mapped and seen as one row of tokens; a batch row is a window of it, found by arithmetic, so any
 * step of any run can be asked for at once and nothing is replayed on resume.
 *
 * The order of windows is a permutation computed, not stored: a Feistel network over the next power of four, walked until
 * it falls inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Each epoch has its own key and shifts
 * the grid of windows by its own offset, so that documents meet window borders at other places.
 *
 * Everything in a file is checked at open, ids included: one scan of the tokens, by all threads, buys a training loop
 * that cannot index outside an embedding. Foreign files: llm.c's .bin (256 int32: magic 20240520, version 1, count; then
 * u16) and nanoGPT's (raw u16), which know nothing of documents and count as one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/safetensors.h"
#include "base/sys.h"
#include "data/data.h"

#define SHARDS_MAX 100000
#define LLMC_MAGIC 20240520
#define LLMC_HEADER 1024

struct shard {
	struct stave_st st;       /* or, of a .bin: */
	struct stave_map map;
	int64_t first, n;         /* tokens of the split before this shard; tokens in it */
	const void *tokens;
	bool wide;                /* u32 */
	const int64_t *starts;    /* (n_starts) document starts, in tokens of this shard */
	int64_t n_starts;
	const uint8_t *mask;      /* (n), NULL: learn all */
};
struct stave_tokens {
	struct shard *shard;
	int n_shards;
	int64_t n, bytes;
	int32_t max_id;
	char sha256[65];
	char dir[STAVE_PATH];     /* "" unknown */
};

/* ---- opening ---- */

static int corrupt(const char *path, const char *what, struct stave_err *err)
{
	return stave_err_set(err, STAVE_ECORRUPT, "%s: %s; prepare the data again", path, what);
}

static int check_starts(const struct shard *s, const int64_t *documents, int64_t n, const char *path, struct stave_err *err)
{
	if (documents[n - 1] != s->n)
		return corrupt(path, "the last of `documents` is not the number of tokens", err);
	for (int64_t i = 0; i + 1 < n; i++)
		if (documents[i] < 0 || documents[i] >= documents[i + 1])
			return corrupt(path, "`documents` does not rise from 0 to the number of tokens", err);
	return 0;
}

static int read_meta(struct stave_tokens *t, const struct shard *s, const char *split, const char *path, struct stave_err *err)
{
	const char *sha = stave_st_meta(&s->st, "tokenizer_sha256"), *of = stave_st_meta(&s->st, "split"), *bytes = stave_st_meta(&s->st, "bytes");
	char *end = NULL;
	if (!sha || strlen(sha) != 64)
		return corrupt(path, "no tokenizer_sha256 in its metadata", err);
	if (!of || strcmp(of, split))
		return corrupt(path, "its metadata names another split", err);
	if (*t->sha256 && strcmp(t->sha256, sha))
		return corrupt(path, "made with another tokenizer than the shards before it", err);
	snprintf(t->sha256, sizeof t->sha256, "%s", sha);
	long long b = bytes ? strtoll(bytes, &end, 10) : -1;
	if (b < 0 || *end || b > INT64_MAX / SHARDS_MAX)
		return corrupt(path, "no sensible `bytes` in its metadata", err);
	t->bytes += b;
	return 0;
}

static int open_shard(struct stave_tokens *t, struct shard *s, const char *split, const char *path, struct stave_err *err)
{
	int rc = stave_st_open(&s->st, path, err);
	if (rc)
		return rc;
	const struct stave_st_tensor *tokens = stave_st_find(&s->st, "tokens"), *documents = stave_st_find(&s->st, "documents"), *mask = stave_st_find(&s->st, "loss_mask");
	if (!tokens || tokens->n_dims != 1 || (tokens->dtype != STAVE_U16 && tokens->dtype != STAVE_U32) || tokens->shape[0] < 1)
		return corrupt(path, "no tensor `tokens` (n) of U16 or U32", err);
	if (!documents || documents->n_dims != 1 || documents->dtype != STAVE_I64 || documents->shape[0] < 1)
		return corrupt(path, "no tensor `documents` (d+1) of I64", err);
	if (mask && (mask->n_dims != 1 || mask->dtype != STAVE_U8 || mask->shape[0] != tokens->shape[0]))
		return corrupt(path, "`loss_mask` is not (n) of U8", err);
	if ((uintptr_t)documents->data % 8 || (uintptr_t)tokens->data % stave_dtype_bytes(tokens->dtype))
		return corrupt(path, "a tensor is not aligned to its type", err);
	s->n = tokens->shape[0];
	s->tokens = tokens->data;
	s->wide = tokens->dtype == STAVE_U32;
	s->starts = documents->data;
	s->n_starts = documents->shape[0] - 1;
	s->mask = mask ? mask->data : NULL;
	rc = check_starts(s, documents->data, documents->shape[0], path, err);
	return rc ? rc : read_meta(t, s, split, path, err);
}

static int add_shard(struct stave_tokens *t, struct shard **out, struct stave_err *err)
{
	struct shard *shard = t->n_shards < SHARDS_MAX ? realloc(t->shard, ((size_t)t->n_shards + 1) * sizeof *shard) : NULL;
	if (!shard)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for %d shards", t->n_shards + 1);
	t->shard = shard;
	*out = &shard[t->n_shards++];
	**out = (struct shard){.first = t->n};
	return 0;
}

/* state.json, where there is one, knows whether the directory is whole; a directory copied without it is taken as is. */
static int check_complete(const struct stave_tokens *t, const char *split, struct stave_err *err)
{
	char path[STAVE_PATH];
	json_t *state = NULL, *j;
	size_t i;
	int shards = 0, rc = stave_path(path, t->dir, "state.json", err);
	if (rc || !stave_exists(path))
		return rc;
	rc = stave_json_load(&state, path, (size_t)1 << 30, err);
	if (rc)
		return rc;
	json_array_foreach(json_object_get(state, "shards"), i, j)
		shards += !strcmp(stave_json_str(j, "split", ""), split);
	if (!json_is_true(json_object_get(state, "complete")))
		rc = stave_err_set(err, STAVE_ECORRUPT, "%s is not complete: its preparation was interrupted; run the same stave prepare again", t->dir);
	else if (shards != t->n_shards)
		rc = stave_err_set(err, STAVE_ECORRUPT, "%s holds %d %s shards where its state.json says %d; run the same stave prepare again", t->dir, t->n_shards, split, shards);
	json_decref(state);
	return rc;
}

static int check_tokenizer(const struct stave_tokens *t, struct stave_err *err)
{
	char path[STAVE_PATH];
	struct stave_tokenizer *tokenizer = NULL;
	int rc = stave_path(path, t->dir, "tokenizer.json", err);
	if (rc || !stave_exists(path))
		return rc;
	rc = stave_tokenizer_load(&tokenizer, t->dir, err);
	if (rc)
		return rc;
	if (strcmp(stave_tokenizer_sha256(tokenizer), t->sha256))
		rc = stave_err_set(err, STAVE_ECORRUPT, "%s: the shards were made with tokenizer %.12s…, but tokenizer.json is %.12s…; prepare the data again", t->dir,
		                   t->sha256, stave_tokenizer_sha256(tokenizer));
	else if (t->max_id >= stave_tokenizer_vocab(tokenizer))
		rc = stave_err_set(err, STAVE_ECORRUPT, "%s: a token has id %d, outside the tokenizer's %d; prepare the data again", t->dir, t->max_id,
		                   stave_tokenizer_vocab(tokenizer));
	stave_tokenizer_free(tokenizer);
	return rc;
}

static int open_dir(struct stave_tokens *t, const char *split, struct stave_err *err)
{
	char name[64], path[STAVE_PATH];
	int rc = 0;
	for (int i = 0; !rc && i < SHARDS_MAX; i++) {
		struct shard *s;
		snprintf(name, sizeof name, "%s-%05d.safetensors", split, i);
		rc = stave_path(path, t->dir, name, err);
		if (rc || !stave_exists(path))
			break;
		rc = add_shard(t, &s, err);
		if (!rc)
			rc = open_shard(t, s, split, path, err);
		if (!rc)
			t->n += s->n;
	}
	return rc ? rc : check_complete(t, split, err);
}

/* Fractions of the file: a single .bin is both splits. */
static int open_bin(struct stave_tokens *t, const char *path, bool whole, const char *split, struct stave_err *err)
{
	static const int64_t one_document = 0;
	struct shard *s;
	int32_t header[3] = {0};
	int rc = add_shard(t, &s, err);
	if (!rc)
		rc = stave_map_open(&s->map, path, err);
	if (rc)
		return rc;
	const char *p = s->map.p;
	int64_t size = (int64_t)s->map.size;
	if (size >= (int64_t)sizeof header)
		memcpy(header, p, sizeof header);
	if (header[0] == LLMC_MAGIC) {
		if (header[1] != 1)
			return stave_err_set(err, STAVE_ECORRUPT, "%s: llm.c token file of version %d, of which only 1 (GPT-2, u16) is known", path, header[1]);
		if (size < LLMC_HEADER || header[2] < 0 || size - LLMC_HEADER != 2 * (int64_t)header[2])
			return stave_err_set(err, STAVE_ECORRUPT, "%s: its header announces %d tokens but %lld bytes follow it", path, header[2], (long long)(size - LLMC_HEADER));
		p += LLMC_HEADER;
		size -= LLMC_HEADER;
	}
	if (size % 2 || !size)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: %lld bytes are no row of u16 tokens", path, (long long)size);
	int64_t n = size / 2, train = whole ? 0 : (int64_t)((double)n * .9);
	bool val = !strcmp(split, "val");
	s->tokens = p + (val && !whole ? 2 * train : 0);
	s->n = whole ? n : val ? n - train : train;
	s->starts = &one_document;
	s->n_starts = 1;
	t->n = s->n;
	return 0;
}

static int64_t id_at(const struct shard *s, int64_t i)
{
	return s->wide ? ((const uint32_t *)s->tokens)[i] : ((const uint16_t *)s->tokens)[i];
}

static int scan_ids(struct stave_tokens *t, struct stave_err *err)
{
	int64_t max = 0;
	for (int k = 0; k < t->n_shards; k++) {
		const struct shard *s = &t->shard[k];
#pragma omp parallel for schedule(static) reduction(max : max) num_threads(stave_threads())
		for (int64_t i = 0; i < s->n; i++) {
			int64_t id = id_at(s, i);
			max = id > max ? id : max;
		}
	}
	if (max > INT32_MAX)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: a token has id %lld; prepare the data again", t->dir, (long long)max);
	t->max_id = (int32_t)max;
	return 0;
}

static int open_any(struct stave_tokens *t, const char *from, const char *split, struct stave_err *err)
{
	char path[STAVE_PATH], name[64];
	if (!stave_exists(from))
		return stave_err_set(err, STAVE_EUSAGE, "no data at %s: give a directory written by stave prepare, or a .bin file of tokens", from);
	if (!stave_is_dir(from))
		return open_bin(t, from, false, split, err);
	if ((size_t)snprintf(t->dir, sizeof t->dir, "%s", from) >= sizeof t->dir)
		return stave_err_set(err, STAVE_EUSAGE, "path too long: %s", from);
	int rc = open_dir(t, split, err);
	if (rc || t->n_shards)
		return rc;
	/* nanoGPT's data directories: train.bin and val.bin */
	snprintf(name, sizeof name, "%s.bin", split);
	rc = stave_path(path, from, name, err);
	if (rc)
		return rc;
	t->dir[0] = 0;
	if (stave_exists(path))
		return open_bin(t, path, true, split, err);
	return stave_err_set(err, STAVE_EUSAGE, "%s holds no %s shards (%s-00000.safetensors or %s.bin)", from, split, split, split);
}

int stave_tokens_open(struct stave_tokens **out, const char *dir_or_bin, const char *split, struct stave_err *err)
{
	if (strcmp(split, "train") && strcmp(split, "val"))
		return stave_err_set(err, STAVE_EUSAGE, "a split is train or val, not '%s'", split);
	struct stave_tokens *t = calloc(1, sizeof *t);
	if (!t)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the loader");
	int rc = open_any(t, dir_or_bin, split, err);
	if (!rc)
		rc = scan_ids(t, err);
	if (!rc && *t->dir)
		rc = check_tokenizer(t, err);
	if (rc) {
		stave_tokens_close(t);
		return rc;
	}
	*out = t;
	return 0;
}

void stave_tokens_close(struct stave_tokens *t)
{
	if (!t)
		return;
	for (int i = 0; i < t->n_shards; i++) {
		stave_st_close(&t->shard[i].st);
		stave_map_close(&t->shard[i].map);
	}
	free(t->shard);
	free(t);
}

int64_t stave_tokens_count(const struct stave_tokens *t) { return t->n; }
int64_t stave_tokens_bytes(const struct stave_tokens *t) { return t->bytes; }
const char *stave_tokens_tokenizer_sha256(const struct stave_tokens *t) { return t->sha256; }
const char *stave_tokens_tokenizer_dir(const struct stave_tokens *t) { return *t->dir ? t->dir : NULL; }
int32_t stave_tokens_max_id(const struct stave_tokens *t) { return t->max_id; }

/* ---- windows ---- */

/* The shard that holds token `at`. */
static const struct shard *shard_of(const struct stave_tokens *t, int64_t at)
{
	int low = 0, high = t->n_shards - 1;
	while (low < high) {
		int mid = (low + high + 1) / 2;
		if (t->shard[mid].first <= at)
			low = mid;
		else
			high = mid - 1;
	}
	return &t->shard[low];
}

/* The first document start of s at or after token `at` of it, as an index. */
static int64_t start_from(const struct shard *s, int64_t at)
{
	int64_t low = 0, high = s->n_starts;
	while (low < high) {
		int64_t mid = (low + high) / 2;
		if (s->starts[mid] < at)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* Tokens [at, at+n) of the split: token at+i is input i and the target of input i-1. Targets that may not be learnt
 * become -1, those that begin another document get their sign bit, start[i] is 1 where a document begins. */
static void copy(const struct stave_tokens *t, int64_t at, int n, int32_t *inputs, int32_t *targets, int32_t *start)
{
	for (int i = 0; i < n;) {
		const struct shard *s = shard_of(t, at + i);
		int64_t local = at + i - s->first;
		int k = s->n - local < n - i ? (int)(s->n - local) : n - i;
		for (int j = 0; j < k; j++) {
			int32_t id = (int32_t)id_at(s, local + j);
			if (i + j < n - 1)
				inputs[i + j] = id;
			if (i + j > 0)
				targets[i + j - 1] = s->mask && !s->mask[local + j] ? -1 : id;
		}
		for (int64_t d = start_from(s, local); d < s->n_starts && s->starts[d] < local + k; d++) {
			int64_t where = i + s->starts[d] - local;
			if (where < n - 1)
				start[where] = 1;
			if (where > 0)
				targets[where - 1] |= INT32_MIN;
		}
		i += k;
	}
}

static void window(const struct stave_tokens *t, int64_t at, int T, bool doc_mask, int32_t *inputs, int32_t *targets, int32_t *start, int32_t *pos)
{
	int n = t->n - at < (int64_t)T + 1 ? (int)(t->n - at) : T + 1; /* tokens there are, the last only a target */
	if (n < 2)
		n = 0;
	memset(start, 0, (size_t)T * sizeof *start);
	if (n)
		copy(t, at, n, inputs, targets, start);
	for (int i = n ? n - 1 : 0; i < T; i++) {
		inputs[i] = 0;
		targets[i] = -1;
	}
	for (int i = 0, began = 0; i < T; i++) {
		began = doc_mask && start[i] ? i : began;
		start[i] = began;
		pos[i] = i - began;
		if (targets[i] < -1)
			targets[i] = doc_mask ? -1 : targets[i] & INT32_MAX;
	}
}

int64_t stave_tokens_windows(const struct stave_tokens *t, int T)
{
	return t->n < 2 ? 0 : (t->n - 1 + T - 1) / T;
}

void stave_tokens_window(const struct stave_tokens *t, int64_t i, int T, bool doc_mask, int32_t *inputs, int32_t *targets, int32_t *start, int32_t *pos)
{
	window(t, i * T, T, doc_mask, inputs, targets, start, pos);
}

uint64_t stave_permute(uint64_t i, uint64_t n, uint64_t key)
{
	int half = 1;
	while (half < 32 && (uint64_t)1 << 2 * half < n)
		half++;
	uint64_t low = ((uint64_t)1 << half) - 1;
	do { /* outside [0, n) the walk goes on: a permutation's cycle leads back inside */
		uint64_t left = i >> half, right = i & low;
		for (uint64_t round = 0; round < 6; round++) {
			uint64_t f = stave_random64(key + round, right) >> (64 - half);
			uint64_t was = right;
			right = left ^ f;
			left = was;
		}
		i = left << half | right;
	} while (i >= n);
	return i;
}

void stave_tokens_row(const struct stave_tokens *t, uint64_t seed, int64_t row, int T, bool doc_mask, int32_t *inputs, int32_t *targets,
                      int32_t *start, int32_t *pos)
{
	int64_t targets_all = t->n - 1, windows = targets_all / T;
	if (windows < 1) {
		window(t, 0, T, doc_mask, inputs, targets, start, pos);
		return;
	}
	/* one window fewer leaves room for every shift of the grid; among few windows one is too dear */
	windows -= windows >= 16;
	uint64_t epoch = (uint64_t)(row / windows), key = stave_random64(seed, epoch);
	int64_t room = targets_all - windows * T, shifts = room < T ? room + 1 : T;
	int64_t offset = (int64_t)(stave_random64(key, 0x6f6666736574) % (uint64_t)shifts);
	int64_t i = (int64_t)stave_permute((uint64_t)(row % windows), (uint64_t)windows, key);
	window(t, offset + i * T, T, doc_mask, inputs, targets, start, pos);
}
