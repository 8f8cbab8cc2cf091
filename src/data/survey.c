/* The first pass decides which documents stay. Rules on one document run in parallel; what depends on others (exact and
 * near-duplicates) is settled in reading order, so the outcome does not depend on threads: the first of equals stays.
 * Near-duplicates are known only at the end, which is why nothing is encoded in this pass.
 *
 * The split is a function of the text's hash and the seed: adding documents moves none of the others between train and
 * validation. Memory: 40 bytes per document, 8-16 for the table of hashes, and 116-124 more with dedup.near. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/hash.h"
#include "base/safetensors.h"
#include "base/sys.h"
#include "data/prepare.h"

#define EXAMPLES 5
#define ALPHABET_BYTES (0x110000 / 8)

struct row { /* of one document */
	XXH128_hash_t hash;
	int64_t bytes;
	uint32_t source, line;
	uint8_t verdict;
	bool message;
};
struct finding { /* of one document in the batch at work */
	struct row row;
	bool repaired;
	int64_t lines_removed;
	uint64_t keys[STAVE_MINHASH_BUCKETS];
	char *why;
};
struct worker {
	struct stave_reading reading;
	struct stave_buf word;
	uint8_t *alphabet;
};
struct survey {
	const struct stave_prepare *p;
	struct stave_sources *sources;
	struct worker *worker;
	struct finding *found;  /* (STAVE_SLOTS) */
	struct row *row;        /* (n) */
	size_t n, cap;
	uint32_t *table;        /* exact hashes: 1 + index of row, 0 empty */
	size_t mask, in_table;
	uint64_t *keys;         /* (n_keyed, BUCKETS) */
	uint32_t *keyed;        /* (n_keyed) index of row */
	size_t n_keyed, cap_keyed;
	int64_t repaired, lines_removed, bad_lines;
	char first_bad[400];
};

/* ---- one document ---- */

static void mark_alphabet(uint8_t *seen, const char *text, size_t n)
{
	bool ascii[128] = {false};
	for (size_t i = 0; i < n;) {
		unsigned char c = (unsigned char)text[i];
		if (c < 0x80) {
			ascii[c] = true;
			i++;
			continue;
		}
		/* the text is valid UTF-8 by now */
		size_t len = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
		uint32_t code = c & (0x7fu >> len);
		for (size_t k = 1; k < len; k++)
			code = code << 6 | ((unsigned char)text[i + k] & 0x3f);
		seen[code >> 3] |= (uint8_t)(1u << (code & 7));
		i += len;
	}
	for (unsigned c = 0; c < 128; c++)
		if (ascii[c])
			seen[c >> 3] |= (uint8_t)(1u << (c & 7));
}

/* FineWeb's order. A chat is no web page: the rules would drop it for being one. */
static enum stave_verdict rules(struct survey *s, struct worker *w)
{
	const struct stave_prepare *p = s->p;
	struct stave_reading *r = &w->reading;
	enum stave_verdict v = STAVE_V_TRAIN;
	if (r->record.n_messages)
		return v;
	const char *text = r->record.text;
	size_t n = r->record.n;
	if (p->filter_gopher_repetition || p->filter_gopher_quality || p->filter_fineweb)
		stave_quality_words(&r->quality, text, n);
	if (p->filter_gopher_repetition)
		v = stave_gopher_repetition(&r->quality, text, n);
	if (!v && p->filter_gopher_quality)
		v = stave_gopher_quality(&r->quality, text, n);
	if (!v && p->filter_c4)
		v = stave_c4(&r->quality, text, n, p->c4_terminal, &r->text, &r->n, &r->lines_removed);
	if (!v && p->filter_fineweb) {
		if (p->filter_c4)
			stave_quality_words(&r->quality, r->text, r->n);
		v = stave_fineweb(&r->quality, r->text, r->n);
	}
	return v;
}

static void each(void *ctx, const struct stave_document *d, int64_t id, size_t slot, int thread)
{
	struct survey *s = ctx;
	struct worker *w = &s->worker[thread];
	struct stave_reading *r = &w->reading;
	struct finding *f = &s->found[slot];
	*f = (struct finding){.row = {.source = (uint32_t)d->source, .line = d->line < UINT32_MAX ? (uint32_t)d->line : UINT32_MAX, .bytes = (int64_t)d->n}};
	enum stave_verdict v = stave_record_read(&r->record, d->text, d->n, s->sources->v[d->source].jsonl, s->p->field);
	r->text = r->record.text;
	r->n = r->record.n;
	r->lines_removed = 0;
	if (!v)
		v = rules(s, w);
	f->row.verdict = (uint8_t)v;
	if (v == STAVE_V_BAD_LINE)
		f->why = strdup(r->record.why);
	if (v)
		return;
	f->row.hash = XXH3_128bits(r->text, r->n);
	f->row.bytes = (int64_t)r->n;
	f->row.message = r->record.n_messages > 0;
	f->repaired = r->record.repaired;
	f->lines_removed = r->lines_removed;
	if (w->alphabet)
		mark_alphabet(w->alphabet, r->text, r->n);
	if (s->p->dedup_near) {
		uint32_t signature[STAVE_MINHASH];
		stave_minhash(r->text, r->n, &w->word, signature);
		stave_minhash_keys(signature, f->keys);
	}
}

/* ---- all documents ---- */

static bool same(XXH128_hash_t a, XXH128_hash_t b) { return a.low64 == b.low64 && a.high64 == b.high64; }

static size_t table_slot(const struct survey *s, XXH128_hash_t h)
{
	size_t at = h.low64 & s->mask;
	while (s->table[at] && !same(s->row[s->table[at] - 1].hash, h))
		at = (at + 1) & s->mask;
	return at;
}

static int grow(struct survey *s, struct stave_err *err)
{
	if (s->n == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 4096;
		struct row *row = realloc(s->row, cap * sizeof *row);
		if (!row || cap >= UINT32_MAX)
			return stave_err_set(err, STAVE_ENOMEM, "no memory for a table of %zu documents; prepare the corpus in parts", cap);
		s->row = row;
		s->cap = cap;
	}
	if (2 * (s->in_table + 1) > s->mask) {
		size_t slots = s->mask ? 2 * (s->mask + 1) : 8192;
		uint32_t *table = calloc(slots, sizeof *table);
		if (!table)
			return stave_err_set(err, STAVE_ENOMEM, "no memory for a table of %zu hashes", slots);
		uint32_t *old = s->table;
		size_t old_slots = s->mask + 1;
		s->table = table;
		s->mask = slots - 1;
		for (size_t i = 0; old && i < old_slots; i++)
			if (old[i])
				table[table_slot(s, s->row[old[i] - 1].hash)] = old[i];
		free(old);
	}
	if (s->p->dedup_near && s->n_keyed == s->cap_keyed) {
		size_t cap = s->cap_keyed ? 2 * s->cap_keyed : 4096;
		uint64_t *keys = realloc(s->keys, cap * STAVE_MINHASH_BUCKETS * sizeof *keys);
		s->keys = keys ? keys : s->keys;
		uint32_t *keyed = realloc(s->keyed, cap * sizeof *keyed);
		s->keyed = keyed ? keyed : s->keyed;
		if (!keys || !keyed)
			return stave_err_set(err, STAVE_ENOMEM, "no memory for the MinHash keys of %zu documents; prepare without dedup.near", cap);
		s->cap_keyed = cap;
	}
	return 0;
}

static int merge(void *ctx, const struct stave_documents *d, struct stave_err *err)
{
	struct survey *s = ctx;
	int rc = 0;
	for (size_t i = 0; i < d->n; i++) {
		struct finding *f = &s->found[i];
		if (!rc)
			rc = grow(s, err);
		if (f->row.verdict == STAVE_V_BAD_LINE) {
			const char *path = s->sources->v[f->row.source].path;
			if (!rc && !s->p->bad_lines)
				rc = stave_err_set(err, STAVE_ECORRUPT, "%.400s:%u: %s; mend it, or drop such lines with --bad_lines drop", path, f->row.line, f->why ? f->why : "");
			if (!s->bad_lines++)
				snprintf(s->first_bad, sizeof s->first_bad, "%.150s:%u: %s", path, f->row.line, f->why ? f->why : "");
			free(f->why);
		}
		if (rc)
			continue; /* only to free what the batch holds */
		s->row[s->n] = f->row;
		s->repaired += f->repaired;
		s->lines_removed += f->lines_removed;
		if (!f->row.verdict && s->p->dedup_exact) {
			size_t at = table_slot(s, f->row.hash);
			if (s->table[at])
				s->row[s->n].verdict = STAVE_V_EXACT;
			else
				s->table[at] = (uint32_t)s->n + 1, s->in_table++;
		}
		if (!s->row[s->n].verdict && s->p->dedup_near) {
			memcpy(s->keys + s->n_keyed * STAVE_MINHASH_BUCKETS, f->keys, sizeof f->keys);
			s->keyed[s->n_keyed++] = (uint32_t)s->n;
		}
		s->n++;
	}
	return rc;
}

static int drop_near(struct survey *s, struct stave_err *err)
{
	if (!s->n_keyed)
		return 0;
	uint32_t *keeper = malloc(s->n_keyed * sizeof *keeper);
	if (!keeper)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to join near-duplicates of %zu documents", s->n_keyed);
	int rc = stave_near_clusters(s->keys, s->n_keyed, keeper, err);
	for (size_t i = 0; !rc && i < s->n_keyed; i++)
		if (keeper[i] != i)
			s->row[s->keyed[i]].verdict = STAVE_V_NEAR;
	free(keeper);
	return rc;
}

/* ---- the split ---- */

static double unit(const struct survey *s, const struct row *r)
{
	return stave_random_unit((uint64_t)s->p->seed ^ r->hash.high64, r->hash.low64);
}

/* Both sets get at least one document when there are two: the lowest hash validates, the highest trains. */
static void choose_split(struct survey *s, struct stave_survey *v)
{
	struct row *low = NULL, *high = NULL;
	int64_t val = 0;
	v->kept = 0;
	for (size_t i = 0; i < s->n; i++) {
		struct row *r = &s->row[i];
		if (r->verdict)
			continue;
		v->kept++;
		v->messages |= r->message;
		low = !low || unit(s, r) < unit(s, low) ? r : low;
		high = !high || unit(s, r) > unit(s, high) ? r : high;
	}
	v->single = v->kept == 1 && !low->message;
	for (size_t i = 0; i < s->n && v->kept > 1; i++) {
		struct row *r = &s->row[i];
		if (!r->verdict && unit(s, r) < s->p->val_fraction && r != high) {
			r->verdict = STAVE_V_VAL;
			val++;
		}
	}
	if (v->kept > 1 && !val && s->p->val_fraction > 0)
		low->verdict = STAVE_V_VAL;
}

/* ---- the report ---- */

static json_t *dropped(const struct survey *s)
{
	json_t *all = json_object();
	for (int v = STAVE_V_EMPTY; v < STAVE_VERDICT_COUNT; v++) {
		int64_t documents = 0, bytes = 0;
		json_t *examples = json_array();
		for (size_t i = 0; i < s->n; i++) {
			const struct row *r = &s->row[i];
			if (r->verdict != v)
				continue;
			if (documents++ < EXAMPLES) {
				const char *path = s->sources->v[r->source].path;
				/* a path that is not UTF-8 cannot be a JSON string */
				json_t *name = r->line ? json_sprintf("%s:%u", path, r->line) : json_string(path);
				json_array_append_new(examples, name ? name : json_sprintf("input %u", r->source));
			}
			bytes += r->bytes;
		}
		if (documents)
			json_object_set_new(all, stave_verdict_key((enum stave_verdict)v),
			                    json_pack("{s:I, s:I, s:o}", "documents", (json_int_t)documents, "bytes", (json_int_t)bytes, "first", json_incref(examples)));
		json_decref(examples);
	}
	return all;
}

static json_t *report(const struct survey *s, const struct stave_survey *v)
{
	int64_t bytes = 0, kept_bytes = 0;
	for (int i = 0; i < s->sources->n; i++)
		bytes += s->sources->v[i].size;
	for (size_t i = 0; i < s->n; i++)
		kept_bytes += s->row[i].verdict <= STAVE_V_VAL ? s->row[i].bytes : 0;
	json_t *r = json_pack("{s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:I, s:I, s:o, s:I}", "files", (json_int_t)s->sources->n, "bytes_read", (json_int_t)bytes,
	                      "documents_read", (json_int_t)s->n, "documents_kept", (json_int_t)v->kept, "bytes_kept", (json_int_t)kept_bytes,
	                      "single", v->single, "messages", v->messages, "documents_repaired", (json_int_t)s->repaired, "c4_lines_removed",
	                      (json_int_t)s->lines_removed, "dropped", dropped(s), "memory_bytes_per_document",
	                      (json_int_t)(sizeof(struct row) + 12 + (s->p->dedup_near ? 8 * STAVE_MINHASH_BUCKETS + 12 : 0)));
	if (s->bad_lines)
		json_object_set_new(r, "first_bad_line", json_string(s->first_bad));
	return r;
}

/* ---- the pass ---- */

static int open_workers(struct survey *s, bool alphabet, struct stave_err *err)
{
	s->worker = calloc((size_t)stave_threads(), sizeof *s->worker);
	s->found = calloc(STAVE_SLOTS, sizeof *s->found);
	bool ok = s->worker && s->found;
	for (int i = 0; ok && alphabet && i < stave_threads(); i++)
		ok = (s->worker[i].alphabet = calloc(1, ALPHABET_BYTES)) != NULL;
	return ok ? 0 : stave_err_set(err, STAVE_ENOMEM, "no memory for the survey");
}

static void close_workers(struct survey *s)
{
	for (int i = 0; s->worker && i < stave_threads(); i++) {
		stave_reading_free(&s->worker[i].reading);
		stave_buf_free(&s->worker[i].word);
		free(s->worker[i].alphabet);
	}
	free(s->worker);
	free(s->found);
	free(s->row);
	free(s->table);
	free(s->keys);
	free(s->keyed);
}

static int nothing_left(const struct stave_survey *v, struct stave_err *err)
{
	char *why = json_dumps(json_object_get(v->report, "dropped"), JSON_COMPACT);
	int rc = stave_err_set(err, STAVE_EFAIL, "no document is left of %zu read; dropped: %.700s", v->n, why ? why : "");
	free(why);
	return rc;
}

static int conclude(struct survey *s, struct stave_survey *v, struct stave_err *err)
{
	int rc = drop_near(s, err);
	if (rc)
		return rc;
	v->n = s->n;
	if (!(v->verdict = malloc(s->n ? s->n : 1)))
		return stave_err_set(err, STAVE_ENOMEM, "no memory for %zu verdicts", s->n);
	choose_split(s, v);
	for (size_t i = 0; i < s->n; i++) {
		v->verdict[i] = s->row[i].verdict;
		v->train_bytes += s->row[i].verdict == STAVE_V_TRAIN ? s->row[i].bytes : 0;
	}
	for (int i = 0; s->worker[0].alphabet && i < stave_threads(); i++)
		for (size_t k = 0; i && k < ALPHABET_BYTES; k++)
			s->worker[0].alphabet[k] |= s->worker[i].alphabet[k];
	v->alphabet = s->worker[0].alphabet;
	s->worker[0].alphabet = NULL;
	v->report = report(s, v);
	json_object_set_new(v->report, "train_bytes", json_integer(v->train_bytes));
	return v->kept ? 0 : nothing_left(v, err);
}

int stave_survey_run(struct stave_survey *v, const struct stave_prepare *p, struct stave_sources *sources, struct stave_err *err)
{
	struct survey s = {.p = p, .sources = sources};
	struct stave_pass pass = {.what = "survey", .each = each, .merge = merge, .ctx = &s};
	*v = (struct stave_survey){0};
	int rc = open_workers(&s, !strcmp(p->tokenizer, "char"), err);
	if (!rc)
		rc = stave_pass_run(&pass, sources, (enum stave_split_on)p->split_on, err);
	if (!rc)
		rc = conclude(&s, v, err);
	close_workers(&s);
	if (rc)
		stave_survey_free(v);
	return rc;
}

void stave_survey_free(struct stave_survey *v)
{
	free(v->verdict);
	free(v->alphabet);
	json_decref(v->report);
	*v = (struct stave_survey){0};
}

int stave_survey_save(const struct stave_survey *v, const char *dir, struct stave_err *err)
{
	char path[STAVE_PATH];
	struct stave_st_tensor t = {.name = "verdict", .dtype = STAVE_U8, .n_dims = 1, .shape = {(int64_t)v->n}};
	struct stave_st_writer w;
	int rc = stave_path(path, dir, "survey.safetensors", err);
	if (!rc)
		rc = stave_st_create(&w, path, &t, 1, NULL, 0, err);
	if (rc)
		return rc;
	rc = stave_st_write(&w, v->verdict, v->n, err);
	if (!rc)
		rc = stave_st_commit(&w, err);
	stave_st_abort(&w);
	return rc;
}

int stave_survey_load(struct stave_survey *v, const char *dir, const json_t *found, struct stave_err *err)
{
	char path[STAVE_PATH];
	struct stave_st st = {0};
	int64_t n, kept, train_bytes;
	*v = (struct stave_survey){0};
	int rc = stave_path(path, dir, "survey.safetensors", err);
	if (!rc)
		rc = stave_json_int(found, "documents_read", -1, 0, INT64_MAX, &n, "state.json", err);
	if (!rc)
		rc = stave_json_int(found, "documents_kept", -1, 1, INT64_MAX, &kept, "state.json", err);
	if (!rc)
		rc = stave_json_int(found, "train_bytes", -1, 0, INT64_MAX, &train_bytes, "state.json", err);
	if (!rc)
		rc = stave_st_open(&st, path, err);
	if (rc)
		return rc;
	const struct stave_st_tensor *t = stave_st_find(&st, "verdict");
	if (!t || t->dtype != STAVE_U8 || t->n_dims != 1 || t->shape[0] != n)
		rc = stave_err_set(err, STAVE_ECORRUPT, "%s does not hold the verdicts of %lld documents", path, (long long)n);
	for (int64_t i = 0; !rc && i < n; i++)
		if (((const uint8_t *)t->data)[i] >= STAVE_VERDICT_COUNT)
			rc = stave_err_set(err, STAVE_ECORRUPT, "%s: document %lld has no known verdict", path, (long long)i);
	if (!rc && !(v->verdict = malloc((size_t)(n ? n : 1))))
		rc = stave_err_set(err, STAVE_ENOMEM, "no memory for %lld verdicts", (long long)n);
	if (!rc) {
		memcpy(v->verdict, t->data, (size_t)n);
		v->n = (size_t)n;
		v->kept = kept;
		v->train_bytes = train_bytes;
		v->single = json_is_true(json_object_get(found, "single"));
		v->messages = json_is_true(json_object_get(found, "messages"));
		v->report = json_deep_copy(found);
	}
	stave_st_close(&st);
	return rc;
}
