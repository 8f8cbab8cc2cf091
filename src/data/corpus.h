/* Private to data/: where documents come from. Inputs are files, directories or stdin; a reader turns them into a
 * stream of numbered documents in a fixed order, a batch at a time, so that memory is bounded by the batch and by the
 * largest single document. */
#ifndef STAVE_DATA_CORPUS_H
#define STAVE_DATA_CORPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/fs.h"
#include "base/json.h"
#include "text/text.h"

/* ---- what becomes of a document ---- */

/* Every verdict but the first two names a reason to drop; the words are the keys of report.json. */
/*        enum               key                                        meaning */
#define STAVE_VERDICTS(X)                                                                                              \
	X(TRAIN,             "train",                                   "kept for training")                           \
	X(VAL,               "val",                                     "kept for validation")                         \
	X(EMPTY,             "empty",                                   "no text")                                     \
	X(NOT_TEXT,          "not_text",                                "NUL bytes, or more than 1 in 1000 is not UTF-8") \
	X(BAD_LINE,          "bad_line",                                "a JSONL line that is no document")            \
	X(REP_DUP_PARA,      "gopher_repetition.dup_para_frac",         "over 30 % of paragraphs repeat")              \
	X(REP_DUP_PARA_CHAR, "gopher_repetition.dup_para_char_frac",    "over 20 % of text is in repeated paragraphs") \
	X(REP_DUP_LINE,      "gopher_repetition.dup_line_frac",         "over 30 % of lines repeat")                   \
	X(REP_DUP_LINE_CHAR, "gopher_repetition.dup_line_char_frac",    "over 20 % of text is in repeated lines")      \
	X(REP_TOP_2,         "gopher_repetition.top_2_gram",            "one 2-gram is over 20 % of the text")         \
	X(REP_TOP_3,         "gopher_repetition.top_3_gram",            "one 3-gram is over 18 % of the text")         \
	X(REP_TOP_4,         "gopher_repetition.top_4_gram",            "one 4-gram is over 16 % of the text")         \
	X(REP_DUP_5,         "gopher_repetition.duplicated_5_n_grams",  "repeated 5-grams are over 15 %")              \
	X(REP_DUP_6,         "gopher_repetition.duplicated_6_n_grams",  "repeated 6-grams are over 14 %")              \
	X(REP_DUP_7,         "gopher_repetition.duplicated_7_n_grams",  "repeated 7-grams are over 13 %")              \
	X(REP_DUP_8,         "gopher_repetition.duplicated_8_n_grams",  "repeated 8-grams are over 12 %")              \
	X(REP_DUP_9,         "gopher_repetition.duplicated_9_n_grams",  "repeated 9-grams are over 11 %")              \
	X(REP_DUP_10,        "gopher_repetition.duplicated_10_n_grams", "repeated 10-grams are over 10 %")             \
	X(GQ_SHORT,          "gopher_quality.short_doc",                "fewer than 50 words")                         \
	X(GQ_LONG,           "gopher_quality.long_doc",                 "more than 100000 words")                      \
	X(GQ_SHORT_WORDS,    "gopher_quality.below_avg_word_length",    "mean word shorter than 3 characters")         \
	X(GQ_LONG_WORDS,     "gopher_quality.above_avg_word_length",    "mean word longer than 10 characters")         \
	X(GQ_HASHES,         "gopher_quality.too_many_hashes",          "more than one # per 10 words")                \
	X(GQ_ELLIPSES,       "gopher_quality.too_many_ellipsis",        "more than one ellipsis per 10 words")         \
	X(GQ_BULLETS,        "gopher_quality.too_many_bullets",         "over 90 % of lines start with a bullet")      \
	X(GQ_END_ELLIPSIS,   "gopher_quality.too_many_end_ellipsis",    "over 30 % of lines end in an ellipsis")       \
	X(GQ_ALPHA,          "gopher_quality.below_alpha_threshold",    "under 80 % of words hold a letter")           \
	X(GQ_STOP_WORDS,     "gopher_quality.enough_stop_words",        "fewer than two common English words")         \
	X(C4_LOREM,          "c4.lorem_ipsum",                          "placeholder text")                            \
	X(C4_CURLY,          "c4.curly_bracket",                        "a { : code, not prose")                       \
	X(C4_SENTENCES,      "c4.too_few_sentences",                    "fewer than 5 sentences left")                 \
	X(FW_EMPTY,          "fineweb.empty",                           "no lines")                                    \
	X(FW_LINE_PUNCT,     "fineweb.line_punct_ratio",                "under 12 % of lines end in punctuation")      \
	X(FW_SHORT_LINES,    "fineweb.short_line_ratio",                "over 67 % of lines have 30 characters or fewer") \
	X(FW_CHAR_DUP,       "fineweb.char_dup_ratio",                  "over 1 % of text is in repeated lines")       \
	X(FW_NEWLINES,       "fineweb.list_ratio",                      "more than 0.3 newlines per word")             \
	X(EXACT,             "exact_duplicate",                         "the same bytes as an earlier document")       \
	X(NEAR,              "near_duplicate",                          "MinHash: close to an earlier document")

enum stave_verdict {
#define X(e, key, doc) STAVE_V_##e,
	STAVE_VERDICTS(X)
#undef X
	STAVE_VERDICT_COUNT
};
const char *stave_verdict_key(enum stave_verdict v);

/* ---- inputs ---- */

struct stave_source {
	char *path;       /* as reports show it; "-" is stdin */
	char *file;       /* what is opened: path, or the spooled copy of stdin */
	bool jsonl;       /* by name (.jsonl, .ndjson, .json, with or without .gz or .zst); stdin by its first byte */
	int64_t size, mtime_ns;
	char hash[33];    /* XXH3-128 of the file's bytes; "" until it has been read to its end */
};
struct stave_sources {
	struct stave_source *v; /* files in the order given; a directory's in byte order of their paths */
	int n, cap;
	int64_t bytes;          /* sum of sizes */
	char spool[STAVE_PATH]; /* the copy of stdin, "" without */
};
/* Lists inputs. Directories are walked without following links to directories, hidden names and `out` itself are left
 * out. "-" is copied to out/stdin.part first: the work takes more than one pass. */
int stave_sources_open(struct stave_sources *s, const char *const *inputs, int n, const char *out, struct stave_err *err);
void stave_sources_close(struct stave_sources *s);
/* XXH3-128 in hex, of bytes and of a file's bytes. */
void stave_hash_hex(const void *p, size_t n, char hex[33]);
int stave_file_hash(const char *path, char hex[33], struct stave_err *err);

/* ---- documents, still as they lie in the file ---- */

enum stave_split_on { STAVE_SPLIT_FILE, STAVE_SPLIT_BLANK, STAVE_SPLIT_LINE };
#define STAVE_SLOTS 8192                       /* documents in a batch, at most */
#define STAVE_LINE_MAX ((size_t)256 << 20)     /* of a JSONL line or a paragraph */
#define STAVE_UNPACKED_MAX ((size_t)1 << 30)   /* of a compressed plain file that is one document */

struct stave_document {
	const char *text;
	size_t at, n;     /* at: offset in the batch's buffer, of texts that lie there */
	int source;
	int64_t line;     /* 1-based, of its first byte; 0 when the document is a whole file */
};
struct stave_documents { /* a batch; zero-initialise */
	struct stave_document *v;
	size_t n, cap;
	int64_t first;           /* number of v[0] in the whole stream */
	int64_t bytes_read;      /* of the input files, up to the end of this batch: for progress */
	struct stave_buf buf;    /* texts that are not mapped */
	struct stave_map *maps;  /* files whose last document is in this batch */
	int n_maps, cap_maps;
};
void stave_documents_free(struct stave_documents *d);

struct stave_reader;
/* Reads sources in order; fills in each source's hash as it ends. One pass: open again for another. */
int stave_reader_open(struct stave_reader **out, struct stave_sources *s, enum stave_split_on split_on, struct stave_err *err);
/* The next batch, of about `batch_bytes`, replacing d's content; n == 0 at the end. A batch's texts stay valid until the
 * NEXT batch but one is read into another struct: two batches may be alive, as double buffering needs. */
int stave_reader_next(struct stave_reader *r, struct stave_documents *d, size_t batch_bytes, struct stave_err *err);
void stave_reader_close(struct stave_reader *r);

/* ---- a document made readable: record.c ---- */

struct stave_record { /* reusable scratch; zero-initialise */
	const char *text;              /* UTF-8; of messages, their plain rendering */
	size_t n;
	struct stave_message *messages; /* NULL for text */
	int n_messages, cap_messages;
	size_t content_bytes;           /* UTF-8 bytes that count for bits per byte */
	bool repaired;                  /* some bytes were not UTF-8 and became U+FFFD */
	struct stave_buf own;
	json_t *json;
	char why[200];                  /* of a BAD_LINE */
};
#define STAVE_MESSAGES_MAX 1000
/* STAVE_V_TRAIN when the document holds text, else EMPTY, NOT_TEXT or BAD_LINE (r->why says what was wrong). */
enum stave_verdict stave_record_read(struct stave_record *r, const char *line, size_t n, bool jsonl, const char *field);
void stave_record_free(struct stave_record *r);
/* Sequences in p that are not UTF-8 (each maximal invalid run of bytes counts per byte); *nul: a NUL byte is there. */
size_t stave_utf8_invalid(const char *p, size_t n, bool *nul);

#endif
