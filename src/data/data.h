/* data/: text becomes tokens, tokens become batches. `prepare` reads corpora, drops what should not be learnt, counting
 * why, splits, tokenizes, and writes token shards; the loader feeds batches from them. A shard directory:
 *   DIR/tokenizer.json, tokenizer_config.json
 *   DIR/train-00000.safetensors …, DIR/val-00000.safetensors …   tensors: tokens (n) U16 or U32, documents (d+1) I64 =
 *       offsets of document starts in tokens, the last = n; the first is 0 unless the shard begins inside a document; optional loss_mask (n) U8, 1 = learn this token (from
 *       `messages`: assistant turns); __metadata__: tokenizer_sha256, split, bytes (UTF-8 bytes of the text, for bits per byte)
 *   DIR/report.json    what was read, kept and dropped, and why
 *   DIR/state.json     what the shards were made from: for continuing after a kill and noticing changed inputs
 *   DIR/survey.safetensors   verdict (documents) U8: which documents stay, for the same purpose */
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
	char *field;              /* of JSONL: where the text is */
	int split_on;             /* of plain text: a document is a file, a paragraph, a line */
	int bad_lines;            /* of JSONL: 0 stop at the first, 1 drop and count */
	double val_fraction;      /* of documents (of the bytes of a single document: its tail) */
	bool dedup_exact, dedup_near;
	int filters;              /* 1 "web": the four filters, without c4_terminal, and dedup_near, unless set themselves */
	bool filter_gopher_quality, filter_gopher_repetition, filter_c4, filter_fineweb;
	bool c4_terminal;
	int64_t shard_tokens, seed;
	bool json;
};
extern const struct stave_key stave_prepare_keys[];
extern const int stave_prepare_n_keys;
/* After parsing: turns `filters` into the switches it stands for, where they were not set by hand. */
void stave_prepare_resolve(struct stave_prepare *p, const struct stave_config *c);
struct stave_prepare_result {
	int64_t documents_read, documents_kept, bytes_read, bytes_kept, tokens_train, tokens_val, bytes_val, bytes_train;
	double seconds;
	double survey_s, learn_s, encode_s, write_s; /* reading and cleaning; training a tokenizer; encoding; shards to disk */
	int shards, shards_kept;  /* files that hold the tokens; of those, finished by an earlier run */
	int vocab;
	char tokenizer_sha256[65];
	bool reused;              /* nothing had changed: the shards on disk were kept */
	char shortest[64];        /* the shortest stave, with its share of the time */
};
/* inputs: files, directories, "-" for stdin. */
int stave_prepare_run(const struct stave_prepare *p, const char *const *inputs, int n, struct stave_prepare_result *r, struct stave_err *err);

/* The loader: maps the shards of one split (or a nanoGPT / llm.c .bin file) and addresses tokens in O(1). Position is a
 * function of (seed, step): nothing is replayed on resume. */
struct stave_tokens;
/* dir_or_bin: a directory written by prepare, a directory with train.bin and val.bin, or one .bin file, whose last tenth
 * is val. split: "train" or "val". STAVE_ECORRUPT for a directory that is unfinished, damaged or of another tokenizer. */
int stave_tokens_open(struct stave_tokens **out, const char *dir_or_bin, const char *split, struct stave_err *err);
void stave_tokens_close(struct stave_tokens *t);
int64_t stave_tokens_count(const struct stave_tokens *t);
int64_t stave_tokens_bytes(const struct stave_tokens *t);  /* UTF-8 bytes behind them, 0 unknown */
const char *stave_tokens_tokenizer_sha256(const struct stave_tokens *t); /* "" unknown */
const char *stave_tokens_tokenizer_dir(const struct stave_tokens *t);    /* where tokenizer.json lies, NULL unknown */
int32_t stave_tokens_max_id(const struct stave_tokens *t);               /* found by a scan at open; callers check it against their model's vocabulary */
/* Image of i under a permutation of [0, n), chosen by key. */
uint64_t stave_permute(uint64_t i, uint64_t n, uint64_t key);
/* Row `row` of epoch-wise shuffled windows of T+1 tokens (window order = a seeded permutation per epoch, computed
 * without storage). inputs, targets, start, pos: (T) each. targets -1 where the loss is masked or (with doc_mask) the
 * target belongs to another document; start[t] = row-relative first token of t's document (0 without doc_mask); pos[t] =
 * t - start[t]. A split shorter than T+1 tokens is one window, padded with targets -1. */
void stave_tokens_row(const struct stave_tokens *t, uint64_t seed, int64_t row, int T, bool doc_mask, int32_t *inputs,
                      int32_t *targets, int32_t *start, int32_t *pos);
/* The i-th consecutive, unshuffled window; rows 0 .. stave_tokens_windows-1 cover every target exactly once (the last may be padded with -1). */
int64_t stave_tokens_windows(const struct stave_tokens *t, int T);
void stave_tokens_window(const struct stave_tokens *t, int64_t i, int T, bool doc_mask, int32_t *inputs, int32_t *targets, int32_t *start, int32_t *pos);

#endif
