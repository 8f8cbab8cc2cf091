/* Private to data/: the passes `prepare` makes over its inputs. */
#ifndef STAVE_DATA_PREPARE_H
#define STAVE_DATA_PREPARE_H

#include "data/corpus.h"
#include "data/data.h"
#include "data/quality.h"

/* ---- pass.c: one pass over all documents ---- */

/* Called in parallel for each document of a batch; slot is its index in the batch, thread < stave_threads(). */
typedef void stave_each(void *ctx, const struct stave_document *d, int64_t id, size_t slot, int thread);
/* Called between batches, in order, by one thread, which may open its own parallel regions. */
typedef int stave_merge(void *ctx, const struct stave_documents *d, struct stave_err *err);
struct stave_pass {
	const char *what;   /* for the progress line */
	stave_each *each;
	stave_merge *merge;
	void *ctx;
	double read_s;      /* seconds the reader was at work, beside the others */
};
/* While a batch is worked on, one thread reads the next. STAVE_EINTERRUPTED or STAVE_EREQUEUE when asked to stop. */
int stave_pass_run(struct stave_pass *p, struct stave_sources *s, enum stave_split_on split_on, struct stave_err *err);
int stave_pass_stopped(struct stave_err *err);
#define STAVE_BATCH_BYTES ((size_t)4 << 20)

/* Text of a document as it is learnt: read, and with C4 its lines chosen. Used alike by every pass. */
struct stave_reading {
	struct stave_record record;
	struct stave_quality quality;
	const char *text;
	size_t n;
	int64_t lines_removed;
};
enum stave_verdict stave_reading_text(struct stave_reading *r, const struct stave_prepare *p, const struct stave_document *d, bool jsonl);
void stave_reading_free(struct stave_reading *r);

/* ---- survey.c: what stays ---- */

struct stave_survey {
	uint8_t *verdict;          /* (n) enum stave_verdict */
	size_t n;
	bool single;               /* one document stays, and it is text: its tail is the validation set */
	bool messages;             /* some kept document is a chat: shards carry a loss mask */
	int64_t kept, train_bytes; /* documents kept; text bytes of those for training */
	uint8_t *alphabet;         /* one bit per code point met in text that passed the filters; NULL when resumed */
	json_t *report;            /* the first half of report.json */
};
int stave_survey_run(struct stave_survey *v, const struct stave_prepare *p, struct stave_sources *s, struct stave_err *err);
/* The verdicts as DIR/survey.safetensors, so that a killed run need not repeat the survey. */
int stave_survey_save(const struct stave_survey *v, const char *dir, struct stave_err *err);
int stave_survey_load(struct stave_survey *v, const char *dir, const json_t *report, struct stave_err *err);
void stave_survey_free(struct stave_survey *v);

/* ---- encode.c: tokens into shards ---- */

enum { STAVE_TRAIN, STAVE_VAL, STAVE_SPLITS };
extern const char *const stave_split_name[STAVE_SPLITS];

struct stave_at { /* where in the stream of documents a shard ends */
	int64_t document, piece;
};
struct stave_encoding {
	const struct stave_prepare *prepare;
	const struct stave_survey *survey;
	struct stave_sources *sources;
	const struct stave_tokenizer *tokenizer;
	json_t *shards;                       /* array of finished shards, appended to */
	int (*saved)(void *ctx, struct stave_err *err); /* after each finished shard */
	void *ctx;
	double write_s, read_s;
};
/* Checks the shards listed against their files and drops from the list what cannot be trusted. */
int stave_shards_verify(json_t *shards, const char *dir, struct stave_err *err);
/* Encodes what the listed shards do not hold yet. */
int stave_encoding_run(struct stave_encoding *e, struct stave_err *err);
/* Trains the tokenizer on the documents kept for training: all, or a sample of 1 GiB of text. */
int stave_train_bpe(struct stave_tokenizer **out, const struct stave_prepare *p, const struct stave_survey *v, struct stave_sources *s,
                    int vocab, struct stave_err *err);
/* Bytes of a single document that are for training. */
size_t stave_tail_cut(const char *text, size_t n, double val_fraction);

#endif
