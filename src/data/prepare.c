/* `prepare` as a whole: survey, tokenizer, shards, each recorded in state.json as soon as it is safely on disk. A second
 * run reads the record, keeps what still holds and does the rest; a changed input or option makes the whole record void,
 * because one document more or less moves every shard after it. state.json says `complete` only at the very end, and the
 * loader refuses a directory that is not: half a corpus would train without complaint.
 *
 * The web filters are off by default. They were tuned to throw away half of the web; poems, logs, code, chats and short
 * notes break several of their rules, and a user who brings a private corpus wants all of it. --filters web turns on
 * FineWeb's set; each rule has its own switch and its own count in report.json. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/sys.h"
#include "data/prepare.h"

#define AT(field) offsetof(struct stave_prepare, field)
const struct stave_key stave_prepare_keys[] = {
	{"out", STAVE_KEY_STR, AT(out), NULL, 0, 0, NULL, "directory for the shards (made if absent)"},
	{"tokenizer", STAVE_KEY_STR, AT(tokenizer), "bpe:8192", 0, 0, NULL, "char, byte, bpe:N (trained here, N tokens), or the path of a tokenizer.json"},
	{"field", STAVE_KEY_STR, AT(field), "text", 0, 0, NULL, "key of the text in JSONL; lines with `messages` instead are chats"},
	{"split_on", STAVE_KEY_CHOICE, AT(split_on), "file", 0, 0, "file|blank|line", "where a plain text file ends a document"},
	{"bad_lines", STAVE_KEY_CHOICE, AT(bad_lines), "error", 0, 0, "error|drop", "a JSONL line that is no document: stop, or drop and count it"},
	{"val_fraction", STAVE_KEY_REAL, AT(val_fraction), "0.1", 0, 0.9, NULL, "documents for validation; of a single document, its tail"},
	{"filters", STAVE_KEY_CHOICE, AT(filters), "none", 0, 0, "none|web", "web: all filters and dedup.near, as FineWeb; a switch set by hand wins"},
	{"filter.gopher_repetition", STAVE_KEY_BOOL, AT(filter_gopher_repetition), "false", 0, 0, NULL, "drop documents that repeat themselves"},
	{"filter.gopher_quality", STAVE_KEY_BOOL, AT(filter_gopher_quality), "false", 0, 0, NULL, "drop what is not English prose"},
	{"filter.c4", STAVE_KEY_BOOL, AT(filter_c4), "false", 0, 0, NULL, "drop lines of menus and notices, and documents of code or filler"},
	{"filter.c4_terminal", STAVE_KEY_BOOL, AT(c4_terminal), "true", 0, 0, NULL, "with c4: drop lines that end no sentence"},
	{"filter.fineweb", STAVE_KEY_BOOL, AT(filter_fineweb), "false", 0, 0, NULL, "drop lists, short lines and repeated lines"},
	{"dedup.exact", STAVE_KEY_BOOL, AT(dedup_exact), "true", 0, 0, NULL, "keep one of equal documents"},
	{"dedup.near", STAVE_KEY_BOOL, AT(dedup_near), "false", 0, 0, NULL, "keep one of similar documents (MinHash, 14 x 8; half of pairs at similarity 0.68)"},
	{"shard_tokens", STAVE_KEY_INT, AT(shard_tokens), "32M", 1, 1e9, NULL, "tokens of a shard, rounded up to the end of a piece"},
	{"seed", STAVE_KEY_INT, AT(seed), "1337", 0, 9e15, NULL, "of the train/validation split"},
	{"json", STAVE_KEY_BOOL, AT(json), "false", 0, 0, NULL, "print the receipt as JSON on stdout"},
};
const int stave_prepare_n_keys = sizeof stave_prepare_keys / sizeof *stave_prepare_keys;

void stave_prepare_resolve(struct stave_prepare *p, const struct stave_config *c)
{
	const struct {
		const char *key;
		bool *on, web;
	} set[] = {{"filter.gopher_repetition", &p->filter_gopher_repetition, true}, {"filter.gopher_quality", &p->filter_gopher_quality, true},
	           {"filter.c4", &p->filter_c4, true}, {"filter.c4_terminal", &p->c4_terminal, false},
	           {"filter.fineweb", &p->filter_fineweb, true}, {"dedup.near", &p->dedup_near, true}};
	for (size_t i = 0; p->filters == 1 && i < sizeof set / sizeof *set; i++)
		for (size_t k = 0; k < c->n; k++)
			if (!strcmp(c->keys[k].name, set[i].key) && !c->source[k])
				*set[i].on = set[i].web;
}

struct run {
	const struct stave_prepare *p;
	struct stave_prepare_result *r;
	struct stave_sources sources;
	struct stave_survey survey;
	struct stave_tokenizer *tokenizer, *given; /* given: loaded from a path the user named */
	int vocab_wanted;                          /* of bpe:N */
	json_t *state;                             /* what is on disk as state.json */
	int lock;
};

/* ---- options ---- */

static bool named(const struct run *x, const char *name) { return !strcmp(x->p->tokenizer, name); }

static int check_options(struct run *x, int n_inputs, struct stave_err *err)
{
	const char *t = x->p->tokenizer;
	char *end = NULL;
	if (!n_inputs)
		return stave_err_set(err, STAVE_EUSAGE, "no input: name files, directories, or '-' for stdin");
	if (!x->p->out || !*x->p->out)
		return stave_err_set(err, STAVE_EUSAGE, "where should the shards go? give --out DIR");
	bool nul;
	if (stave_utf8_invalid(x->p->field, strlen(x->p->field), &nul))
		return stave_err_set(err, STAVE_EUSAGE, "--field wants UTF-8");
	if (named(x, "char") || named(x, "byte"))
		return 0;
	if (strncmp(t, "bpe:", 4))
		return stave_tokenizer_load(&x->given, t, err);
	errno = 0;
	long vocab = strtol(t + 4, &end, 10);
	if (*end == 'k')
		vocab *= 1000, end++;
	if (end == t + 4 || *end || errno || vocab < 257 || vocab > 1000000)
		return stave_err_set(err, STAVE_EUSAGE, "--tokenizer %s: bpe:N wants N from 257 (256 bytes and <|endoftext|>) to 1000000", t);
	x->vocab_wanted = (int)vocab;
	return 0;
}

/* Everything the shards depend on, apart from the inputs. */
static json_t *options(const struct run *x)
{
	const struct stave_prepare *p = x->p;
	return json_pack("{s:i, s:s, s:s, s:s, s:i, s:i, s:f, s:b, s:b, s:b, s:b, s:b, s:b, s:b, s:I, s:I}", "format", 1, "tokenizer", x->given ? "given" : p->tokenizer,
	                 "given_sha256", x->given ? stave_tokenizer_sha256(x->given) : "", "field", p->field, "split_on", p->split_on, "bad_lines", p->bad_lines,
	                 "val_fraction", p->val_fraction, "gopher_repetition", p->filter_gopher_repetition, "gopher_quality", p->filter_gopher_quality,
	                 "c4", p->filter_c4, "c4_terminal", p->c4_terminal, "fineweb", p->filter_fineweb, "dedup_exact", p->dedup_exact, "dedup_near",
	                 p->dedup_near, "shard_tokens", (json_int_t)p->shard_tokens, "seed", (json_int_t)p->seed);
}

/* ---- the record ---- */

static int save(void *ctx, struct stave_err *err)
{
	struct run *x = ctx;
	char path[STAVE_PATH];
	int rc = stave_path(path, x->p->out, "state.json", err);
	return rc ? rc : stave_json_save(x->state, path, err);
}

static int remove_named(const struct run *x, const char *name, struct stave_err *err)
{
	char path[STAVE_PATH];
	int rc = stave_path(path, x->p->out, name, err);
	return rc ? rc : stave_remove_tree(path, err);
}

/* Removes shards of `split` numbered from..; stops at the first gap, since shards are made without gaps. */
static int remove_shards(const struct run *x, const char *split, int from, struct stave_err *err)
{
	char name[64], path[STAVE_PATH];
	for (;; from++) {
		snprintf(name, sizeof name, "%s-%05d.safetensors", split, from);
		int rc = stave_path(path, x->p->out, name, err);
		if (rc || !stave_exists(path))
			return rc;
		rc = stave_remove_tree(path, err);
		if (rc)
			return rc;
	}
}

static int start_anew(struct run *x, struct stave_err *err)
{
	json_decref(x->state);
	x->state = json_pack("{s:o, s:b}", "options", options(x), "complete", 0);
	/* the record first: a kill in between then finds shards that no record vouches for, and removes them */
	int rc = save(x, err);
	for (int k = 0; !rc && k < STAVE_SPLITS; k++)
		rc = remove_shards(x, stave_split_name[k], 0, err);
	const char *const others[] = {"report.json", "survey.safetensors", "tokenizer.json", "tokenizer_config.json"};
	for (size_t i = 0; !rc && i < sizeof others / sizeof *others; i++)
		rc = remove_named(x, others[i], err);
	return rc;
}

static json_t *inputs(const struct run *x)
{
	json_t *all = json_array();
	for (int i = 0; i < x->sources.n; i++) {
		const struct stave_source *f = &x->sources.v[i];
		/* a path need not be UTF-8: its hash names it */
		char name[33];
		stave_hash_hex(f->path, strlen(f->path), name);
		json_array_append_new(all, json_pack("{s:s, s:I, s:I, s:s}", "path_xxh128", name, "size", (json_int_t)f->size, "mtime_ns", (json_int_t)f->mtime_ns, "xxh128", f->hash));
	}
	return all;
}

/* The first input that is not as recorded, or NULL. A new time alone is no change if the content is the same. */
static const char *changed_input(struct run *x, const json_t *recorded)
{
	if (json_array_size(recorded) != (size_t)x->sources.n)
		return "the number of input files";
	for (int i = 0; i < x->sources.n; i++) {
		struct stave_source *f = &x->sources.v[i];
		const json_t *j = json_array_get(recorded, (size_t)i);
		const char *hash = stave_json_str(j, "xxh128", "");
		char name[33];
		struct stave_err ignored;
		stave_hash_hex(f->path, strlen(f->path), name);
		if (strcmp(name, stave_json_str(j, "path_xxh128", "")) || json_integer_value(json_object_get(j, "size")) != f->size)
			return f->path;
		bool same_time = f->mtime_ns && json_integer_value(json_object_get(j, "mtime_ns")) == f->mtime_ns;
		if (!same_time && (stave_file_hash(f->file, f->hash, &ignored) || strcmp(f->hash, hash)))
			return f->path;
		snprintf(f->hash, sizeof f->hash, "%s", hash);
	}
	return NULL;
}

/* Loads state.json and decides whether it still holds. */
static int open_record(struct run *x, struct stave_err *err)
{
	char path[STAVE_PATH];
	struct stave_err why = {0};
	int rc = stave_path(path, x->p->out, "state.json", err);
	if (rc)
		return rc;
	if (!stave_exists(path)) {
		if (!stave_path(path, x->p->out, "train-00000.safetensors", err) && stave_exists(path))
			return stave_err_set(err, STAVE_EUSAGE, "%s holds shards without a state.json, so they are not ours to replace; choose another --out", x->p->out);
		return start_anew(x, err);
	}
	if (stave_json_load(&x->state, path, (size_t)1 << 30, &why)) {
		stave_log(STAVE_LOG_WARN, "%s; preparing anew", why.msg);
		return start_anew(x, err);
	}
	json_t *now = options(x);
	bool same = json_equal(now, json_object_get(x->state, "options"));
	json_decref(now);
	const char *input = same ? changed_input(x, json_object_get(x->state, "inputs")) : NULL;
	if (same && !input)
		return 0;
	if (json_object_get(x->state, "survey"))
		stave_log(STAVE_LOG_INFO, "%s changed since %s was written; preparing anew", same ? input : "the options", x->p->out);
	return start_anew(x, err);
}

/* ---- the stages ---- */

static int survey_stage(struct run *x, struct stave_err *err)
{
	struct stave_err why = {0};
	const json_t *found = json_object_get(x->state, "survey");
	/* characters are not in the record: without its tokenizer the survey is made again */
	bool need = named(x, "char") && !json_object_get(x->state, "tokenizer_sha256");
	if (found && !need) {
		if (!stave_survey_load(&x->survey, x->p->out, found, &why))
			return 0;
		stave_log(STAVE_LOG_WARN, "%s; surveying again", why.msg);
	}
	double start = stave_now_s();
	int rc = stave_survey_run(&x->survey, x->p, &x->sources, err);
	if (!rc)
		rc = stave_survey_save(&x->survey, x->p->out, err);
	if (rc)
		return rc;
	json_object_set(x->state, "survey", x->survey.report);
	json_object_set_new(x->state, "inputs", inputs(x));
	x->r->survey_s = stave_now_s() - start;
	return save(x, err);
}

/* The alphabet as a text that holds each character once. */
static int char_tokenizer(struct run *x, struct stave_err *err)
{
	struct stave_buf text = {0};
	for (uint32_t c = 0; c < 0x110000; c++) {
		if (!(x->survey.alphabet[c >> 3] >> (c & 7) & 1))
			continue;
		unsigned char u[4];
		size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
		for (size_t i = n; i-- > 1;)
			u[i] = (unsigned char)(0x80 | (c >> 6 * (n - 1 - i) & 0x3f));
		u[0] = n == 1 ? (unsigned char)c : (unsigned char)((0xf00u >> n & 0xff) | c >> 6 * (n - 1));
		stave_buf_put(&text, u, n);
	}
	int rc = stave_tokenizer_char(&x->tokenizer, text.p ? text.p : "", text.len, !x->survey.single, err);
	stave_buf_free(&text);
	return rc;
}

static int make_tokenizer(struct run *x, struct stave_err *err)
{
	if (named(x, "char"))
		return char_tokenizer(x, err);
	if (named(x, "byte"))
		return stave_tokenizer_byte(&x->tokenizer, err);
	if (x->vocab_wanted)
		return stave_train_bpe(&x->tokenizer, x->p, &x->survey, &x->sources, x->vocab_wanted, err);
	x->tokenizer = x->given;
	x->given = NULL;
	return 0;
}

static int tokenizer_stage(struct run *x, struct stave_err *err)
{
	const char *sha = stave_json_str(x->state, "tokenizer_sha256", NULL);
	struct stave_err why = {0};
	if (sha && !stave_tokenizer_load(&x->tokenizer, x->p->out, &why)) {
		if (!strcmp(stave_tokenizer_sha256(x->tokenizer), sha))
			return 0;
		stave_tokenizer_free(x->tokenizer);
		x->tokenizer = NULL;
	}
	double start = stave_now_s();
	int rc = make_tokenizer(x, err);
	if (!rc)
		rc = stave_tokenizer_save(x->tokenizer, x->p->out, err);
	if (rc)
		return rc;
	/* the same corpus and options give the same tokenizer, so shards already made stay valid, unless they do not */
	if (sha && strcmp(sha, stave_tokenizer_sha256(x->tokenizer)))
		json_object_del(x->state, "shards");
	json_object_set_new(x->state, "tokenizer_sha256", json_string(stave_tokenizer_sha256(x->tokenizer)));
	x->r->learn_s = stave_now_s() - start;
	return save(x, err);
}

static int inputs_held_still(const struct run *x, struct stave_err *err)
{
	const json_t *recorded = json_object_get(x->state, "inputs");
	for (int i = 0; i < x->sources.n; i++)
		if (strcmp(x->sources.v[i].hash, stave_json_str(json_array_get(recorded, (size_t)i), "xxh128", "")))
			return stave_err_set(err, STAVE_EFAIL, "%s changed while it was being prepared; run the same command again", x->sources.v[i].path);
	return 0;
}

static int shard_stage(struct run *x, struct stave_err *err)
{
	json_t *shards = json_object_get(x->state, "shards");
	if (!shards) {
		shards = json_array();
		json_object_set_new(x->state, "shards", shards);
	}
	size_t recorded = json_array_size(shards);
	int rc = stave_shards_verify(shards, x->p->out, err);
	if (rc)
		return rc;
	size_t sound = json_array_size(shards);
	x->r->shards_kept = (int)sound;
	if (sound == recorded && json_is_true(json_object_get(x->state, "complete"))) {
		x->r->reused = true;
		return 0;
	}
	if (sound < recorded)
		stave_log(STAVE_LOG_WARN, "%zu of %zu shards in %s are missing or damaged; making them again", recorded - sound, recorded, x->p->out);
	json_object_set_new(x->state, "complete", json_false());
	int n[STAVE_SPLITS] = {0};
	for (size_t i = 0; i < sound; i++)
		n[!strcmp(stave_json_str(json_array_get(shards, i), "split", ""), "val")]++;
	rc = save(x, err);
	for (int k = 0; !rc && k < STAVE_SPLITS; k++)
		rc = remove_shards(x, stave_split_name[k], n[k], err);
	struct stave_encoding e = {.prepare = x->p, .survey = &x->survey, .sources = &x->sources, .tokenizer = x->tokenizer,
	                           .shards = shards, .saved = save, .ctx = x};
	double start = stave_now_s();
	if (!rc)
		rc = stave_encoding_run(&e, err);
	if (!rc)
		rc = inputs_held_still(x, err);
	x->r->write_s = e.write_s;
	x->r->encode_s = stave_now_s() - start - e.write_s;
	return rc;
}

/* ---- the end ---- */

static void count(struct run *x)
{
	struct stave_prepare_result *r = x->r;
	const json_t *found = json_object_get(x->state, "survey"), *j;
	size_t i;
	r->documents_read = json_integer_value(json_object_get(found, "documents_read"));
	r->documents_kept = json_integer_value(json_object_get(found, "documents_kept"));
	r->bytes_read = json_integer_value(json_object_get(found, "bytes_read"));
	json_array_foreach(json_object_get(x->state, "shards"), i, j) {
		bool val = !strcmp(stave_json_str(j, "split", ""), "val");
		*(val ? &r->tokens_val : &r->tokens_train) += json_integer_value(json_object_get(j, "tokens"));
		*(val ? &r->bytes_val : &r->bytes_train) += json_integer_value(json_object_get(j, "bytes"));
		r->shards++;
	}
	r->bytes_kept = r->bytes_train + r->bytes_val;
	r->vocab = stave_tokenizer_vocab(x->tokenizer);
	snprintf(r->tokenizer_sha256, sizeof r->tokenizer_sha256, "%s", stave_tokenizer_sha256(x->tokenizer));
}

static void name_shortest(struct stave_prepare_result *r)
{
	const struct {
		const char *name;
		double s;
	} stave[] = {{"reading and cleaning", r->survey_s}, {"training the tokenizer", r->learn_s}, {"encoding", r->encode_s}, {"writing shards", r->write_s}};
	int worst = 0;
	double all = 0;
	for (int i = 0; i < 4; i++) {
		worst = stave[i].s > stave[worst].s ? i : worst;
		all += stave[i].s;
	}
	if (r->reused || all <= 0)
		snprintf(r->shortest, sizeof r->shortest, "none: nothing had changed");
	else
		snprintf(r->shortest, sizeof r->shortest, "%s, %.0f %% of the time", stave[worst].name, 100 * stave[worst].s / all);
}

/* By file: the order of making depends on what an earlier run had left to do. */
static json_t *shards_in_order(const json_t *made)
{
	json_t *all = json_array(), *j;
	size_t i;
	for (int k = 0; k < STAVE_SPLITS; k++)
		json_array_foreach(made, i, j)
			if (!strcmp(stave_json_str(j, "split", ""), stave_split_name[k]))
				json_array_append(all, j);
	return all;
}

/* report.json holds no times: equal runs give equal reports. */
static int report(struct run *x, struct stave_err *err)
{
	const struct stave_prepare_result *r = x->r;
	char path[STAVE_PATH];
	json_t *j = json_deep_copy(json_object_get(x->state, "survey"));
	json_object_del(j, "single");
	json_object_del(j, "train_bytes");
	json_object_set(j, "options", json_object_get(x->state, "options"));
	json_object_set_new(j, "tokenizer", json_pack("{s:I, s:s}", "vocab", (json_int_t)r->vocab, "sha256", r->tokenizer_sha256));
	json_object_set_new(j, "train", json_pack("{s:I, s:I}", "tokens", (json_int_t)r->tokens_train, "bytes", (json_int_t)r->bytes_train));
	json_object_set_new(j, "val", json_pack("{s:I, s:I}", "tokens", (json_int_t)r->tokens_val, "bytes", (json_int_t)r->bytes_val));
	json_object_set_new(j, "shards", shards_in_order(json_object_get(x->state, "shards")));
	int rc = stave_path(path, x->p->out, "report.json", err);
	if (!rc)
		rc = stave_json_save(j, path, err);
	json_decref(j);
	return rc;
}

static int finish(struct run *x, struct stave_err *err)
{
	count(x);
	name_shortest(x->r);
	if (!x->r->tokens_train)
		return stave_err_set(err, STAVE_EFAIL, "the corpus of %lld bytes leaves no token for training; bring more text, or lower --val_fraction", (long long)x->r->bytes_read);
	if (x->r->reused)
		return 0;
	int rc = report(x, err);
	json_object_set_new(x->state, "complete", json_true());
	return rc ? rc : save(x, err);
}

/* Two runs in one directory would tear each other's shards apart. */
static int lock_out(struct run *x, struct stave_err *err)
{
	x->lock = open(x->p->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (x->lock < 0)
		return stave_err_errno(err, "opening %s", x->p->out);
	if (flock(x->lock, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? stave_err_set(err, STAVE_EFAIL, "another stave prepare is at work in %s", x->p->out)
		                            : stave_err_errno(err, "locking %s", x->p->out);
	return 0;
}

int stave_prepare_run(const struct stave_prepare *p, const char *const *in, int n, struct stave_prepare_result *r, struct stave_err *err)
{
	struct stave_prepare_result result = {0};
	struct run x = {.p = p, .r = &result, .lock = -1};
	double start = stave_now_s();
	int rc = check_options(&x, n, err);
	if (!rc)
		rc = stave_mkdirs(p->out, err);
	if (!rc)
		rc = lock_out(&x, err);
	if (!rc)
		rc = stave_sources_open(&x.sources, in, n, p->out, err);
	if (!rc)
		rc = open_record(&x, err);
	if (!rc)
		rc = survey_stage(&x, err);
	if (!rc)
		rc = tokenizer_stage(&x, err);
	if (!rc)
		rc = shard_stage(&x, err);
	if (!rc)
		rc = finish(&x, err);
	stave_survey_free(&x.survey);
	stave_tokenizer_free(x.tokenizer);
	stave_tokenizer_free(x.given);
	stave_sources_close(&x.sources);
	json_decref(x.state);
	if (x.lock >= 0)
		close(x.lock);
	if (rc)
		return rc;
	result.seconds = stave_now_s() - start;
	*r = result;
	return 0;
}
