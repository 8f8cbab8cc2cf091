/* The second pass: text into tokens, tokens into shards. A document is encoded in pieces of about 1 MiB, so that one
 * large book keeps every thread busy and only a piece of it is in memory as ids. A piece may end only where encoding the
 * two sides apart gives the same ids as encoding them together, which is tried at each cut: no knowledge of the
 * tokenizer's pattern is needed, and where no cut is safe none is made.
 *
 * A shard ends at the first end of a piece after shard_tokens tokens. That depends on nothing but the corpus and the
 * options, so a run that was killed writes the same bytes as one that was not: it skips what finished shards hold and
 * goes on. Memory: one shard of each split. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/safetensors.h"
#include "base/sys.h"
#include "data/prepare.h"

#define PIECE ((size_t)1 << 20)
#define PIECES_AT_ONCE 64
#define CONTEXT 256        /* bytes on each side of a cut that are encoded to try it */
#define CANDIDATES 16      /* places tried per cut */
#define LEARN_BYTES (1 << 30)

const char *const stave_split_name[STAVE_SPLITS] = {"train", "val"};

/* ---- one shard in the making ---- */

struct shard {
	int index;              /* number of its file */
	void *tokens;           /* (n) u16 or u32 */
	uint8_t *mask;          /* (n), NULL without chats */
	size_t n, cap;
	int64_t *starts;        /* (n_starts) offsets of documents that begin here */
	size_t n_starts, cap_starts;
	int64_t bytes;          /* of text */
	struct stave_at resume; /* pieces before this one are in finished shards */
	struct stave_at next;   /* the piece after the last one put here */
};
struct piece {
	const char *text;
	size_t n;
	struct stave_ids ids;
	int rc;
};
struct slot { /* a small document of the batch at work */
	struct stave_ids ids;
	struct stave_buf mask;  /* of a chat; empty: learn all */
	int64_t bytes;
	bool ready, learn_end;
	int rc;
};
struct encode {
	struct stave_encoding *e;
	struct stave_encoder **encoder; /* per thread */
	struct stave_reading *reading;
	struct stave_ids *scratch;      /* three per thread, for trying cuts */
	struct stave_err *errors;       /* per thread */
	struct slot *slot;              /* (STAVE_SLOTS) */
	struct shard shard[STAVE_SPLITS];
	struct piece piece[PIECES_AT_ONCE];
	int32_t bos, eos;               /* -1: none is written */
	size_t token_bytes;
};

static int reserve(struct encode *x, struct shard *s, size_t more, struct stave_err *err)
{
	if (s->n + more > s->cap) {
		size_t cap = s->cap ? s->cap : 1 << 16;
		while (cap < s->n + more)
			cap += cap / 2;
		void *tokens = realloc(s->tokens, cap * x->token_bytes);
		s->tokens = tokens ? tokens : s->tokens;
		uint8_t *mask = tokens && x->e->survey->messages ? realloc(s->mask, cap) : s->mask;
		s->mask = mask ? mask : s->mask;
		if (!tokens || (x->e->survey->messages && !mask))
			return stave_err_set(err, STAVE_ENOMEM, "no memory for a shard of %zu tokens; lower --shard_tokens", cap);
		s->cap = cap;
	}
	if (s->n_starts == s->cap_starts) {
		size_t cap = s->cap_starts ? 2 * s->cap_starts : 1024;
		int64_t *starts = realloc(s->starts, cap * sizeof *starts);
		if (!starts)
			return stave_err_set(err, STAVE_ENOMEM, "no memory for a shard of %zu documents", cap);
		s->starts = starts;
		s->cap_starts = cap;
	}
	return 0;
}

static void put(struct encode *x, struct shard *s, const int32_t *ids, size_t n, const char *mask, char learn)
{
	if (x->token_bytes == 2)
		for (size_t i = 0; i < n; i++)
			((uint16_t *)s->tokens)[s->n + i] = (uint16_t)ids[i];
	else if (n)
		memcpy((uint32_t *)s->tokens + s->n, ids, n * sizeof *ids);
	if (s->mask && mask)
		memcpy(s->mask + s->n, mask, n);
	else if (s->mask)
		memset(s->mask + s->n, learn, n);
	s->n += n;
}

/* ---- shards on disk ---- */

static int shard_write(struct encode *x, struct shard *s, int split, const char *path, struct stave_err *err)
{
	char bytes[32], vocab[16];
	snprintf(bytes, sizeof bytes, "%lld", (long long)s->bytes);
	snprintf(vocab, sizeof vocab, "%d", stave_tokenizer_vocab(x->e->tokenizer));
	const char *meta[] = {"tokenizer_sha256", stave_tokenizer_sha256(x->e->tokenizer), "split", stave_split_name[split], "bytes", bytes, "vocab", vocab};
	int64_t n = (int64_t)s->n;
	struct stave_st_tensor t[] = {
		{.name = "documents", .dtype = STAVE_I64, .n_dims = 1, .shape = {(int64_t)s->n_starts + 1}},
		{.name = "tokens", .dtype = x->token_bytes == 2 ? STAVE_U16 : STAVE_U32, .n_dims = 1, .shape = {n}},
		{.name = "loss_mask", .dtype = STAVE_U8, .n_dims = 1, .shape = {n}},
	};
	struct stave_st_writer w;
	int rc = stave_st_create(&w, path, t, s->mask ? 3 : 2, meta, 4, err);
	if (rc)
		return rc;
	rc = stave_st_write(&w, s->starts, s->n_starts * sizeof *s->starts, err);
	if (!rc)
		rc = stave_st_write(&w, &n, sizeof n, err);
	if (!rc)
		rc = stave_st_write(&w, s->tokens, s->n * x->token_bytes, err);
	if (!rc && s->mask)
		rc = stave_st_write(&w, s->mask, s->n, err);
	if (!rc)
		rc = stave_st_commit(&w, err);
	if (rc)
		stave_st_abort(&w);
	return rc;
}

static int shard_finish(struct encode *x, int split, struct stave_err *err)
{
	struct shard *s = &x->shard[split];
	char name[64], path[STAVE_PATH], hash[33];
	double start = stave_now_s();
	if (!s->n)
		return 0;
	snprintf(name, sizeof name, "%s-%05d.safetensors", stave_split_name[split], s->index);
	int rc = stave_path(path, x->e->prepare->out, name, err);
	if (!rc)
		rc = shard_write(x, s, split, path, err);
	if (!rc)
		rc = stave_file_hash(path, hash, err);
	if (rc)
		return rc;
	json_array_append_new(x->e->shards, json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "file", name, "split", stave_split_name[split], "xxh128", hash,
	                      "tokens", (json_int_t)s->n, "documents", (json_int_t)s->n_starts, "bytes", (json_int_t)s->bytes,
	                      "next_document", (json_int_t)s->next.document, "next_piece", (json_int_t)s->next.piece));
	s->index++;
	s->resume = s->next;
	s->n = s->n_starts = 0;
	s->bytes = 0;
	rc = x->e->saved(x->e->ctx, err);
	x->e->write_s += stave_now_s() - start;
	return rc;
}

int stave_shards_verify(json_t *shards, const char *dir, struct stave_err *err)
{
	bool sound[STAVE_SPLITS] = {true, true};
	int next[STAVE_SPLITS] = {0};
	for (size_t i = 0; i < json_array_size(shards);) {
		const json_t *j = json_array_get(shards, i);
		int split = !strcmp(stave_json_str(j, "split", ""), "val");
		char want[64], path[STAVE_PATH], hash[33];
		struct stave_err ignored;
		snprintf(want, sizeof want, "%s-%05d.safetensors", stave_split_name[split], next[split]++);
		int rc = stave_path(path, dir, want, err);
		if (rc)
			return rc;
		/* the name is rebuilt, not believed: state.json may come from anywhere */
		sound[split] = sound[split] && !strcmp(stave_json_str(j, "file", ""), want) && !stave_file_hash(path, hash, &ignored) &&
		               !strcmp(hash, stave_json_str(j, "xxh128", ""));
		if (sound[split])
			i++;
		else
			json_array_remove(shards, i);
	}
	return 0;
}

/* ---- pieces ---- */

static bool char_start(char c) { return ((unsigned char)c & 0xc0) != 0x80; }

/* The start of the character at `at`. */
static size_t char_floor(const char *text, size_t n, size_t at)
{
	while (at && at < n && !char_start(text[at]))
		at--;
	return at;
}

size_t stave_tail_cut(const char *text, size_t n, double val_fraction)
{
	return char_floor(text, n, (size_t)((double)n * (1 - val_fraction)));
}

/* Whether encoding apart at `at` equals encoding together, as far as CONTEXT bytes can tell. */
static bool safe_cut(struct encode *x, int thread, const char *text, size_t n, size_t at)
{
	struct stave_ids *whole = &x->scratch[3 * thread], *left = whole + 1, *right = whole + 2;
	size_t from = at > CONTEXT ? at - CONTEXT : 0, to = n - at > CONTEXT ? at + CONTEXT : n;
	while (from < at && !char_start(text[from]))
		from++;
	while (to > at && to < n && !char_start(text[to]))
		to--;
	whole->n = left->n = right->n = 0;
	struct stave_encoder *e = x->encoder[thread];
	if (stave_encode(e, text + from, to - from, false, whole, NULL) || stave_encode(e, text + from, at - from, false, left, NULL) ||
	    stave_encode(e, text + at, to - at, false, right, NULL))
		return false;
	return whole->n == left->n + right->n && !memcmp(whole->p, left->p, left->n * sizeof *left->p) &&
	       !memcmp(whole->p + left->n, right->p, right->n * sizeof *right->p);
}

/* The end of the piece that starts at `from`: before a space after a letter or digit, where every known tokenizer has a
 * boundary; n when no place within a piece's length of the ideal one is safe. */
static size_t piece_end(struct encode *x, int thread, const char *text, size_t n, size_t from)
{
	while (n - from > PIECE + PIECE / 2) {
		size_t at = from + PIECE, tries = 0, stop = n - at > PIECE ? at + PIECE : n;
		for (; at < stop && tries < CANDIDATES; at++) {
			unsigned char before = (unsigned char)text[at - 1];
			if ((text[at] != ' ' && text[at] != '\n') || before <= ' ' || (before < 0x80 && !((before | 32) >= 'a' && (before | 32) <= 'z')))
				continue;
			tries++;
			if (safe_cut(x, thread, text, n, at))
				return at;
		}
		from += PIECE; /* the piece grows */
	}
	return n;
}

/* Appends one piece; `first`, `last`: of its document. Ends the shard when it is full. */
static int append(struct encode *x, int split, struct stave_at at, bool first, bool last, const struct stave_ids *ids, const char *mask,
                  bool learn_end, int64_t bytes, struct stave_err *err)
{
	struct shard *s = &x->shard[split];
	int rc = reserve(x, s, ids->n + 2, err);
	if (rc)
		return rc;
	if (first)
		s->starts[s->n_starts++] = (int64_t)s->n;
	if (first && x->bos >= 0)
		put(x, s, &x->bos, 1, NULL, 0);
	put(x, s, ids->p, ids->n, mask, 1);
	if (last && x->eos >= 0)
		put(x, s, &x->eos, 1, NULL, learn_end);
	s->bytes += bytes;
	s->next = last ? (struct stave_at){at.document + 1, 0} : (struct stave_at){at.document, at.piece + 1};
	return s->n >= (size_t)x->e->prepare->shard_tokens ? shard_finish(x, split, err) : 0;
}

static bool done_already(const struct shard *s, struct stave_at at)
{
	return at.document < s->resume.document || (at.document == s->resume.document && at.piece < s->resume.piece);
}

/* text[0..n) of a document goes to `split` in pieces, encoded side by side. */
static int encode_large(struct encode *x, int split, int64_t document, const char *text, size_t n, struct stave_err *err)
{
	int64_t first_piece = 0;
	/* enough to share out evenly, few enough that their ids stay small */
	int at_once = 8 * stave_threads() < PIECES_AT_ONCE ? 8 * stave_threads() : PIECES_AT_ONCE;
	int rc = 0;
	for (size_t from = 0; !rc && from < n;) {
		int k = 0;
		for (; k < at_once && from < n; k++) {
			size_t end = piece_end(x, 0, text, n, from);
			x->piece[k] = (struct piece){.text = text + from, .n = end - from, .ids = x->piece[k].ids};
			from = end;
		}
#pragma omp parallel for schedule(dynamic, 1) num_threads(stave_threads())
		for (int i = 0; i < k; i++) {
			struct piece *p = &x->piece[i];
			p->ids.n = 0;
			int thread = stave_thread_index();
			if (!done_already(&x->shard[split], (struct stave_at){document, first_piece + i}))
				p->rc = stave_encode(x->encoder[thread], p->text, p->n, false, &p->ids, &x->errors[thread]);
		}
		for (int i = 0; i < k; i++)
			rc = rc ? rc : x->piece[i].rc;
		for (int t = 0; rc && t < stave_threads(); t++)
			if (x->errors[t].code)
				return stave_err_set(err, rc, "%s", x->errors[t].msg);
		for (int i = 0; !rc && i < k; i++) {
			struct stave_at at = {document, first_piece + i};
			const struct piece *p = &x->piece[i];
			if (!done_already(&x->shard[split], at))
				rc = append(x, split, at, at.piece == 0, p->text + p->n == text + n, &p->ids, NULL, true, (int64_t)p->n, err);
		}
		first_piece += k;
		if (!rc && from < n) {
			char got[32], all[32];
			stave_progress(false, "encode  %s of a document of %s", stave_bytes_text(got, (double)from), stave_bytes_text(all, (double)n));
			rc = stave_pass_stopped(err);
		}
	}
	return rc;
}

/* ---- chats ---- */

/* Learn the assistant's turns: ids between the header that asks for a turn and the end of that turn. */
static int encode_chat(struct stave_encoder *e, const struct stave_record *r, struct slot *s, struct stave_ids *part, struct stave_err *err)
{
	int rc = stave_chat_encode(e, r->messages, r->n_messages, false, &s->ids, err);
	stave_buf_reserve(&s->mask, s->ids.n);
	memset(s->mask.p, 0, s->ids.n);
	s->mask.len = s->ids.n;
	for (int i = 0; !rc && i < r->n_messages; i++) {
		if (strcmp(r->messages[i].role, "assistant"))
			continue;
		part->n = 0;
		rc = stave_chat_encode(e, r->messages, i, true, part, err);
		size_t from = part->n;
		if (rc || from > s->ids.n || memcmp(part->p, s->ids.p, from * sizeof *part->p))
			continue; /* a template that rewrites earlier turns: nothing of this one can be told apart */
		part->n = 0;
		rc = stave_chat_encode(e, r->messages, i + 1, false, part, err);
		if (!rc && part->n <= s->ids.n && part->n > from)
			memset(s->mask.p + from, 1, part->n - from);
	}
	s->learn_end = r->n_messages && !strcmp(r->messages[r->n_messages - 1].role, "assistant");
	return rc;
}

/* ---- the pass ---- */

static int split_of(const struct encode *x, int64_t id)
{
	const struct stave_survey *v = x->e->survey;
	return (size_t)id >= v->n || v->verdict[id] > STAVE_V_VAL ? -1 : v->verdict[id] == STAVE_V_VAL;
}

static void each(void *ctx, const struct stave_document *d, int64_t id, size_t slot, int thread)
{
	struct encode *x = ctx;
	struct slot *s = &x->slot[slot];
	int split = split_of(x, id);
	s->ready = false;
	s->rc = 0;
	if (split < 0 || x->e->survey->single || done_already(&x->shard[split], (struct stave_at){id, 0}))
		return;
	struct stave_reading *r = &x->reading[thread];
	if (stave_reading_text(r, x->e->prepare, d, x->e->sources->v[d->source].jsonl))
		return; /* merge notices that the text has changed */
	if (r->n > PIECE + PIECE / 2 && !r->record.n_messages)
		return; /* in pieces, by all threads */
	s->ids.n = 0;
	s->mask.len = 0;
	s->learn_end = true;
	s->bytes = (int64_t)r->record.content_bytes;
	if (r->record.n_messages)
		s->rc = encode_chat(x->encoder[thread], &r->record, s, &x->scratch[3 * thread], &x->errors[thread]);
	else
		s->rc = stave_encode(x->encoder[thread], r->text, r->n, false, &s->ids, &x->errors[thread]);
	s->ready = true;
}

static int changed(const struct stave_source *f, struct stave_err *err)
{
	return stave_err_set(err, STAVE_EFAIL, "%s changed while it was being prepared; run the same command again", f->path);
}

static int merge_large(struct encode *x, const struct stave_document *d, int64_t id, int split, struct stave_err *err)
{
	struct stave_reading *r = &x->reading[0];
	const struct stave_source *f = &x->e->sources->v[d->source];
	if (stave_reading_text(r, x->e->prepare, d, f->jsonl))
		return changed(f, err);
	if (!x->e->survey->single)
		return encode_large(x, split, id, r->text, r->n, err);
	size_t cut = stave_tail_cut(r->text, r->n, x->e->prepare->val_fraction);
	int rc = encode_large(x, STAVE_TRAIN, id, r->text, cut, err);
	return rc ? rc : encode_large(x, STAVE_VAL, id, r->text + cut, r->n - cut, err);
}

static int merge(void *ctx, const struct stave_documents *d, struct stave_err *err)
{
	struct encode *x = ctx;
	int rc = 0;
	for (size_t i = 0; !rc && i < d->n; i++) {
		struct slot *s = &x->slot[i];
		int64_t id = d->first + (int64_t)i;
		int split = split_of(x, id);
		if ((size_t)id >= x->e->survey->n)
			return changed(&x->e->sources->v[d->v[i].source], err);
		if (split < 0)
			continue;
		if (s->rc) {
			for (int t = 0; t < stave_threads(); t++)
				if (x->errors[t].code)
					return stave_err_set(err, s->rc, "%.400s:%lld: %.500s", x->e->sources->v[d->v[i].source].path, (long long)d->v[i].line, x->errors[t].msg);
		} else if (s->ready) {
			rc = append(x, split, (struct stave_at){id, 0}, true, true, &s->ids, s->mask.len ? s->mask.p : NULL, s->learn_end, s->bytes, err);
		} else if (x->e->survey->single || !done_already(&x->shard[split], (struct stave_at){id, 0}) || x->shard[split].resume.document == id) {
			rc = merge_large(x, &d->v[i], id, split, err);
		}
	}
	return rc;
}

static void encode_close(struct encode *x)
{
	for (int t = 0; t < stave_threads(); t++) {
		if (x->encoder)
			stave_encoder_free(x->encoder[t]);
		if (x->reading)
			stave_reading_free(&x->reading[t]);
		for (int k = 0; x->scratch && k < 3; k++)
			stave_ids_free(&x->scratch[3 * t + k]);
	}
	for (size_t i = 0; x->slot && i < STAVE_SLOTS; i++) {
		stave_ids_free(&x->slot[i].ids);
		stave_buf_free(&x->slot[i].mask);
	}
	for (int i = 0; i < PIECES_AT_ONCE; i++)
		stave_ids_free(&x->piece[i].ids);
	for (int k = 0; k < STAVE_SPLITS; k++) {
		free(x->shard[k].tokens);
		free(x->shard[k].mask);
		free(x->shard[k].starts);
	}
	free(x->encoder);
	free(x->reading);
	free(x->scratch);
	free(x->errors);
	free(x->slot);
}

static int encode_open(struct encode *x, struct stave_err *err)
{
	const struct stave_tokenizer *t = x->e->tokenizer;
	size_t threads = (size_t)stave_threads();
	x->encoder = calloc(threads, sizeof(struct stave_encoder *));
	x->reading = calloc(threads, sizeof *x->reading);
	x->scratch = calloc(3 * threads, sizeof *x->scratch);
	x->errors = calloc(threads, sizeof *x->errors);
	x->slot = calloc(STAVE_SLOTS, sizeof *x->slot);
	if (!x->encoder || !x->reading || !x->scratch || !x->errors || !x->slot)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to encode with %zu threads", threads);
	for (size_t i = 0; i < threads; i++) {
		int rc = stave_encoder_open(&x->encoder[i], t, err);
		if (rc)
			return rc;
	}
	/* a document alone has no neighbour to be told apart from */
	x->eos = x->e->survey->single ? -1 : stave_tokenizer_eos(t);
	x->bos = stave_tokenizer_add_bos(t) && !x->e->survey->messages ? stave_tokenizer_bos(t) : -1;
	x->token_bytes = stave_tokenizer_vocab(t) <= 65536 ? 2 : 4;
	return 0;
}

/* Where each split goes on after the shards that are finished. */
static int resume(struct encode *x, struct stave_err *err)
{
	int rc = 0;
	for (size_t i = 0; !rc && i < json_array_size(x->e->shards); i++) {
		const json_t *j = json_array_get(x->e->shards, i);
		struct shard *s = &x->shard[!strcmp(stave_json_str(j, "split", ""), "val")];
		rc = stave_json_int(j, "next_document", -1, 0, INT64_MAX, &s->resume.document, "state.json", err);
		if (!rc)
			rc = stave_json_int(j, "next_piece", -1, 0, INT64_MAX, &s->resume.piece, "state.json", err);
		s->next = s->resume;
		s->index++;
	}
	return rc;
}

int stave_encoding_run(struct stave_encoding *e, struct stave_err *err)
{
	struct encode x = {.e = e};
	struct stave_pass pass = {.what = "encode", .each = each, .merge = merge, .ctx = &x};
	int rc = encode_open(&x, err);
	if (!rc)
		rc = resume(&x, err);
	if (!rc)
		rc = stave_pass_run(&pass, e->sources, (enum stave_split_on)e->prepare->split_on, err);
	for (int split = 0; !rc && split < STAVE_SPLITS; split++)
		rc = shard_finish(&x, split, err);
	e->read_s = pass.read_s;
	encode_close(&x);
	return rc;
}

/* ---- training a tokenizer ---- */

struct learn {
	const struct stave_prepare *p;
	const struct stave_survey *v;
	struct stave_sources *sources;
	struct stave_bpe_trainer *trainer;
	struct stave_reading *reading;
	struct stave_buf *copy; /* (STAVE_SLOTS) */
	const char **text;      /* into the file's mapping or the slot's copy; NULL: not learnt from */
	size_t *n;
	double share;           /* of documents to learn from */
};

static void learn_each(void *ctx, const struct stave_document *d, int64_t id, size_t slot, int thread)
{
	struct learn *l = ctx;
	struct stave_reading *r = &l->reading[thread];
	l->text[slot] = NULL;
	if ((size_t)id >= l->v->n || l->v->verdict[id] != STAVE_V_TRAIN || stave_random_unit((uint64_t)l->p->seed + 1, (uint64_t)id) >= l->share)
		return;
	if (stave_reading_text(r, l->p, d, l->sources->v[d->source].jsonl))
		return;
	l->n[slot] = l->v->single ? stave_tail_cut(r->text, r->n, l->p->val_fraction) : r->n;
	if (l->n[slot] > LEARN_BYTES)
		l->n[slot] = char_floor(r->text, l->n[slot], LEARN_BYTES);
	l->text[slot] = r->text;
	if (r->text == d->text)
		return;
	l->copy[slot].len = 0;
	stave_buf_put(&l->copy[slot], r->text, l->n[slot]);
	l->text[slot] = l->copy[slot].p;
}

static int learn_merge(void *ctx, const struct stave_documents *d, struct stave_err *err)
{
	struct learn *l = ctx;
	int rc = 0;
	for (size_t i = 0; !rc && i < d->n; i++)
		if (l->text[i])
			rc = stave_bpe_trainer_add(l->trainer, l->text[i], l->n[i], err);
	return rc;
}

int stave_train_bpe(struct stave_tokenizer **out, const struct stave_prepare *p, const struct stave_survey *v, struct stave_sources *s,
                    int vocab, struct stave_err *err)
{
	struct learn l = {.p = p, .v = v, .sources = s, .share = v->train_bytes > LEARN_BYTES && !v->single ? (double)LEARN_BYTES / (double)v->train_bytes : 2};
	struct stave_pass pass = {.what = "tokenizer", .each = learn_each, .merge = learn_merge, .ctx = &l};
	size_t threads = (size_t)stave_threads();
	l.reading = calloc(threads, sizeof *l.reading);
	l.copy = calloc(STAVE_SLOTS, sizeof *l.copy);
	l.text = calloc(STAVE_SLOTS, sizeof(char *));
	l.n = calloc(STAVE_SLOTS, sizeof *l.n);
	int rc = l.reading && l.copy && l.text && l.n ? 0 : stave_err_set(err, STAVE_ENOMEM, "no memory to train a tokenizer");
	if (!rc)
		rc = stave_bpe_trainer_open(&l.trainer, NULL, err);
	if (!rc)
		rc = stave_pass_run(&pass, s, (enum stave_split_on)p->split_on, err);
	if (!rc)
		rc = stave_bpe_trainer_finish(l.trainer, vocab, out, err);
	else
		stave_bpe_trainer_free(l.trainer);
	for (size_t i = 0; l.reading && i < threads; i++)
		stave_reading_free(&l.reading[i]);
	for (size_t i = 0; l.copy && i < STAVE_SLOTS; i++)
		stave_buf_free(&l.copy[i]);
	free(l.reading);
	free(l.copy);
	free(l.text);
	free(l.n);
	return rc;
}
