/* text/: Unicode and tokenizers. A tokenizer turns bytes into ids and ids into bytes; it is immutable once made, and may
 * be used by many threads, each with its own stave_encoder. Every tokenizer is saved as (and loaded from) a Hugging Face
 * tokenizer.json; char and byte tokenizers are expressed in it too (BPE without merges), so nothing else reads a format
 * of our own; GGUF files carry one in their keys, and conversion goes both ways with the same ids. Models: BPE (byte-level or over
 * characters), SentencePiece's BPE, Unigram, WordPiece, WordLevel. Encoding and decoding round-trip any bytes for byte-level
 * tokenizers and for those that fall back to bytes; others refuse what is outside their alphabet only if they have no unknown token. */
#ifndef STAVE_TEXT_H
#define STAVE_TEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/fs.h"

struct stave_tokenizer;

/* A .gguf file, a tokenizer.json, or a directory that holds one, with tokenizer_config.json and chat_template.jinja beside it when
 * present. STAVE_ECORRUPT for a file that is wrong, STAVE_ECONFIG for a component that is not supported, by name. */
int stave_tokenizer_load(struct stave_tokenizer **out, const char *path, struct stave_err *err);
/* Writes tokenizer.json and tokenizer_config.json (with the chat template, if any) into dir, atomically each. */
int stave_tokenizer_save(const struct stave_tokenizer *t, const char *dir, struct stave_err *err);
/* tokenizer.ggml.* of an open GGUF: byte-level BPE (an unknown `pre` is STAVE_ECONFIG), SentencePiece-style BPE, Unigram, WordPiece. */
struct stave_gguf;
struct stave_gguf_writer;
int stave_tokenizer_gguf(struct stave_tokenizer **out, const struct stave_gguf *g, struct stave_err *err);
/* Writes tokenizer.ggml.* and the chat template; STAVE_ECONFIG names what GGUF cannot say (a pattern without a `pre` name …); that an
 * added token swallows white space beside it is lost. The list of
 * tokens is padded to `vocab` entries (the model's rows) with unused ones. */
int stave_tokenizer_to_gguf(const struct stave_tokenizer *t, int vocab, struct stave_gguf_writer *w, struct stave_err *err);
void stave_tokenizer_free(struct stave_tokenizer *t);

/* 256 byte tokens, then <|endoftext|>. */
int stave_tokenizer_byte(struct stave_tokenizer **out, struct stave_err *err);
/* One token per distinct Unicode character of the text, sorted by code point (nanoGPT's order: ids 0..n-1, no specials
 * before them); `<|endoftext|>` last only if `eot`. */
int stave_tokenizer_char(struct stave_tokenizer **out, const char *text, size_t n, bool eot, struct stave_err *err);
/* Byte-level BPE training. Texts are given in pieces (documents); word counts are collected in parallel; merges are
 * deterministic: highest count, ties by the pair of lower ids (left, then right), whatever the number of threads.
 * `pattern`: "gpt2" (also for NULL), "llama3" or "qwen2". vocab = 256 bytes + merges + <|endoftext|>, "bpe:N" means N tokens
 * in all; fewer come out when no pair is left that occurs twice, so ask stave_tokenizer_vocab. Calls to add must not
 * overlap: each uses all threads itself when its text is large, and give it large pieces where you can (a document
 * boundary matters only in that no word crosses it). */
struct stave_bpe_trainer;
int stave_bpe_trainer_open(struct stave_bpe_trainer **out, const char *pattern, struct stave_err *err);
int stave_bpe_trainer_add(struct stave_bpe_trainer *b, const char *text, size_t n, struct stave_err *err);
int stave_bpe_trainer_finish(struct stave_bpe_trainer *b, int vocab, struct stave_tokenizer **out, struct stave_err *err); /* also frees b */
void stave_bpe_trainer_free(struct stave_bpe_trainer *b);

int stave_tokenizer_vocab(const struct stave_tokenizer *t);      /* ids are 0..vocab-1 */
const char *stave_tokenizer_sha256(const struct stave_tokenizer *t); /* of the canonical tokenizer.json bytes; "" where there is no such document (gemma4's GGUF) */
int32_t stave_tokenizer_eos(const struct stave_tokenizer *t);    /* end of text / document separator, -1: none */
int32_t stave_tokenizer_bos(const struct stave_tokenizer *t);    /* -1: none */
bool stave_tokenizer_add_bos(const struct stave_tokenizer *t);   /* the model expects bos before the text */
bool stave_tokenizer_add_eos(const struct stave_tokenizer *t);   /* and eos after it (encoders: cls and sep are bos and eos) */
bool stave_tokenizer_is_stop(const struct stave_tokenizer *t, int32_t id); /* eos, eot, eom and generation_config's list: ends an answer */
const char *stave_tokenizer_chat_template(const struct stave_tokenizer *t); /* NULL: none */
/* Bytes that id decodes to in the middle of a text, special tokens as their names; *n their number. For token tries. */
const char *stave_tokenizer_bytes(const struct stave_tokenizer *t, int32_t id, size_t *n);
int32_t stave_tokenizer_find(const struct stave_tokenizer *t, const char *token, size_t n); /* id of an exact token text, -1 */
bool stave_tokenizer_is_special(const struct stave_tokenizer *t, int32_t id);

/* Per-thread scratch and word cache. */
struct stave_encoder;
int stave_encoder_open(struct stave_encoder **out, const struct stave_tokenizer *t, struct stave_err *err);
void stave_encoder_free(struct stave_encoder *e);
/* A growable list of ids. */
struct stave_ids {
	int32_t *p;
	size_t n, cap;
};
void stave_ids_free(struct stave_ids *ids);
void stave_ids_put(struct stave_ids *ids, int32_t id);
/* Appends the ids of text to ids. `specials`: occurrences of added special tokens become their ids (only for trusted
 * text: never for what a user typed); otherwise they are plain text. Never adds bos or eos. */
int stave_encode(struct stave_encoder *e, const char *text, size_t n, bool specials, struct stave_ids *ids, struct stave_err *err);
/* The same, with special tokens read only where every byte is marked as trusted: own (n), 1 or 0 for each byte of text. */
int stave_encode_marked(struct stave_encoder *e, const char *text, size_t n, const uint8_t *own, struct stave_ids *ids, struct stave_err *err);
/* Appends the bytes of ids to out; a space that the tokenizer itself put before the text is dropped after bos; special tokens are skipped unless `specials`. An id outside the vocabulary is
 * STAVE_EUSAGE. */
int stave_decode(const struct stave_tokenizer *t, const int32_t *ids, size_t n, bool specials, struct stave_buf *out, struct stave_err *err);
/* How many leading bytes of p form whole UTF-8 characters or bytes that can never become one: streaming holds back the rest. */
size_t stave_utf8_complete(const char *p, size_t n);
/* Replaces invalid UTF-8 by U+FFFD into out: what a JSON string may hold. */
void stave_utf8_clean(const char *p, size_t n, struct stave_buf *out);

/* Chat: renders messages into ids with the model's own template, in the Jinja subset of jinja.h; a model without one gets the plain form
 * ("role: content\n"). Control tokens count only where the template wrote them, never in what a message says; a role is 1 to 64
 * letters, digits, _ or -, else STAVE_EUSAGE, as is whatever the template itself refuses. Ends with the assistant's header if `answer`;
 * in the plain form that is "assistant:", the answer begins with the space, and a conversation so ended is a prefix of the one
 * with the answer (templates may rewrite earlier turns). */
struct stave_message {
	const char *role, *content;
};
/* data: {"messages": [...], and what else the template may read: "tools", "documents", "enable_thinking" …}. */
int stave_chat_render(struct stave_encoder *e, const json_t *data, bool answer, struct stave_ids *ids, struct stave_err *err);
int stave_chat_encode(struct stave_encoder *e, const struct stave_message *m, int n, bool answer, struct stave_ids *ids, struct stave_err *err);
/* Ids that end an assistant's turn under that template (up to max); returns how many. */
int stave_chat_stops(const struct stave_tokenizer *t, int32_t *ids, int max);
/* Text that ends a turn under the plain template ("\nuser:"), or NULL when a stop id does it. */
const char *stave_chat_stop_text(const struct stave_tokenizer *t);

#endif
