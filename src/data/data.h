/* data/: text becomes tokens, tokens become batches. `prepare` reads corpora, drops what should not be learnt, counting
 * why, splits, tokenizes, and writes token shards; the loader feeds batches from them. A shard directory:
 *   DIR/tokenizer.json, tokenizer_config.json
 *   DIR/train-00000.safetensors …, DIR/val-00000.safetensors …   tensors: tokens (n) U16 or U32, documents (d+1) I64 =
 *       offsets of document starts in tokens, the last = n; optional loss_mask (n) U8, 1 = learn this token (from
 *       `messages`: assistant turns); __metadata__: tokenizer_sha256, split, bytes (UTF-8 bytes of the text, for bits per byte)
 *   DIR/report.json    what was read, kept and dropped, and why
 *   DIR/state.json     what the shards were made from: for continuing after a kill and noticing changed inputs */
#ifndef STAVE_DATA_H
#define STAVE_DATA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "base/err.h"
#include "text/text.h"

/* The options of `stave prepare`; keys and defaults in prepare.c's table. */
struct stave_prepare {
	char *out, *tokenizer;    /* "char", "byte", "bpe:N" or a path */
	char *name_field;         /* unused by most: JSONL text field, default "text" */
	double val_fraction;      /* default 0.1 of documents (of bytes for a single document: its tail) */
	bool dedup_exact, dedup_near;
	bool filter_gopher_quality, filter_gopher_repetition, filter_c4, filter_fineweb;
	int64_t shard_tokens, seed;
	bool json;
};
extern const struct stave_key stave_prepare_keys[];
extern const int stave_prepare_n_keys;
struct stave_prepare_result {
	int64_t documents_read, documents_kept, bytes_read, bytes_kept, tokens_train, tokens_val, bytes_val, bytes_train;
	double seconds;
	int vocab;
	bool reused;              /* nothing had changed: the shards on disk were kept */
};
/* inputs: files, directories, "-" for stdin. */
int stave_prepare_run(const struct stave_prepare *p, const char *const *inputs, int n, struct stave_prepare_result *r, struct stave_err *err);

/* The loader: maps the shards of one split (or a nanoGPT / llm.c .bin file) and addresses tokens in O(1). Position is a
 * function of (seed, step): nothing is replayed on resume. */
struct stave_tokens;
/* dir_or_bin: a shard directory or a .bin file; split "train" or "val" (a .bin is one split: its last tenth is val). */
int stave_tokens_open(struct stave_tokens **out, const char *dir_or_bin, const char *split, struct stave_err *err);
void stave_tokens_close(struct stave_tokens *t);
int64_t stave_tokens_count(const struct stave_tokens *t);
int64_t stave_tokens_bytes(const struct stave_tokens *t);  /* UTF-8 bytes behind them, 0 unknown */
const char *stave_tokens_tokenizer_sha256(const struct stave_tokens *t); /* "" unknown */
const char *stave_tokens_tokenizer_dir(const struct stave_tokens *t);    /* where tokenizer.json lies, NULL unknown */
int32_t stave_tokens_max_id(const struct stave_tokens *t);               /* checked once at open against vocab by the caller */
/* Row `row` of epoch-wise shuffled windows of T+1 tokens (window order = a seeded permutation per epoch, computed
 * without storage). inputs, targets, start, pos: (T) each. targets -1 where the loss is masked or (with doc_mask) the
 * target belongs to another document; start[t] = row-relative first token of t's document (0 without doc_mask); pos[t] =
 * t - start[t]. */
void stave_tokens_row(const struct stave_tokens *t, uint64_t seed, int64_t row, int T, bool doc_mask, int32_t *inputs,
                      int32_t *targets, int32_t *start, int32_t *pos);
/* The i-th consecutive, unshuffled window; rows 0 .. stave_tokens_windows-1 cover every target exactly once (the last may be padded with -1). */
int64_t stave_tokens_windows(const struct stave_tokens *t, int T);
void stave_tokens_window(const struct stave_tokens *t, int64_t i, int T, bool doc_mask, int32_t *inputs, int32_t *targets, int32_t *start, int32_t *pos);

#endif
