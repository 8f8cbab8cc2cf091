/* Checkpoints as files.
 *
 *   OUT/checkpoints/step-N/
 *     config.json, model.safetensors     a Hugging Face directory, float32: `stave run` and others read it as a model
 *     tokenizer.json, …                  copies, when the data has a tokenizer
 *     optimizer.safetensors              m.NAME (and v.NAME where AdamW updates) per parameter, and "batches", the loader's state
 *     state.json                         step, counts, fingerprint
 *     DONE                               {"step": N, "files": {name: {"bytes": …, "xxh64": "…"}}}
 *
 * All is written under .tmp-step-N, synced, renamed; DONE comes last. A directory without DONE is the leftover of a killed
 * writer: it is never read, and removed by the next run. Removing a checkpoint takes DONE away first, for the same reason.
 * Nothing in the files depends on how many ranks or threads wrote them.
 *
 * A file whose size or hash differs from DONE is refused; the newest one that verifies is used, and damaged ones are set
 * aside under another name, since they are evidence, and since the run is going to write those steps again. */
#include "train/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/json.h"
#include "base/safetensors.h"
#include "base/sys.h"

#define STATE_BYTES_MAX (1 << 20)
#define TOKENIZER_BYTES_MAX ((size_t)1 << 30)
#define LIST_MAX 4096

static int step_path(char out[STAVE_PATH], const char *root, const char *prefix, int64_t step, struct stave_err *err)
{
	char name[48];
	snprintf(name, sizeof name, "%sstep-%lld", prefix, (long long)step);
	return stave_path(out, root, name, err);
}

/* ---- hashes ---- */

/* Read through a small buffer instead of a mapping: a fresh mapping costs a page fault per 4 KiB. */
static int hash_file(const char *path, uint64_t *hash, int64_t *bytes, struct stave_err *err)
{
	enum { PIECE = 1 << 18 };
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return stave_err_errno(err, "opening %s", path);
	void *piece = malloc(PIECE);
	XXH64_state_t *x = XXH64_createState();
	int rc = piece && x ? 0 : stave_err_set(err, STAVE_ENOMEM, "no memory to check %s", path);
	ssize_t n = 0;
	*bytes = 0;
	if (!rc)
		XXH64_reset(x, 0);
	while (!rc && ((n = read(fd, piece, PIECE)) > 0 || (n < 0 && errno == EINTR)))
		if (n > 0) {
			XXH64_update(x, piece, (size_t)n);
			*bytes += n;
		}
	if (!rc && n < 0)
		rc = stave_err_errno(err, "reading %s", path);
	if (!rc)
		*hash = XXH64_digest(x);
	XXH64_freeState(x);
	free(piece);
	close(fd);
	return rc;
}

static json_t *hex(uint64_t x)
{
	char text[17];
	snprintf(text, sizeof text, "%016llx", (unsigned long long)x);
	return json_string(text);
}

static bool read_hex(const json_t *o, const char *key, uint64_t *x)
{
	const char *text = json_string_value(json_object_get(o, key));
	char *end;
	if (!text || strlen(text) != 16)
		return false;
	*x = strtoull(text, &end, 16);
	return !*end;
}

/* ---- the manifest ---- */

static int manifest(const char *dir, int64_t step, json_t **out, struct stave_err *err)
{
	DIR *d = opendir(dir);
	if (!d)
		return stave_err_errno(err, "opening directory %s", dir);
	json_t *files = json_object();
	int rc = 0;
	for (struct dirent *e; !rc && (e = readdir(d));) {
		char path[STAVE_PATH];
		uint64_t hash;
		int64_t bytes;
		if (e->d_name[0] == '.')
			continue;
		if (!(rc = stave_path(path, dir, e->d_name, err)) && !(rc = hash_file(path, &hash, &bytes, err)))
			json_object_set_new(files, e->d_name, json_pack("{s:I, s:o}", "bytes", (json_int_t)bytes, "xxh64", hex(hash)));
	}
	closedir(d);
	if (rc)
		json_decref(files);
	else
		*out = json_pack("{s:I, s:o}", "step", (json_int_t)step, "files", files);
	return rc;
}

static int verify_file(const char *dir, const char *name, const json_t *entry, struct stave_err *err)
{
	char path[STAVE_PATH];
	uint64_t want = 0, have = 0;
	int64_t bytes = 0, want_bytes = json_integer_value(json_object_get(entry, "bytes"));
	/* names come from a file: none may lead out of the directory */
	if (strchr(name, '/') || name[0] == '.' || !read_hex(entry, "xxh64", &want))
		return stave_err_set(err, STAVE_ECORRUPT, "%s/DONE: bad entry for \"%.80s\"", dir, name);
	int rc = stave_path(path, dir, name, err);
	if (rc || (rc = hash_file(path, &have, &bytes, err)))
		return stave_err_set(err, STAVE_ECORRUPT, "%s: %s is missing or unreadable", dir, name);
	if (bytes != want_bytes)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: %s has %lld bytes, DONE says %lld", dir, name, (long long)bytes, (long long)want_bytes);
	if (have != want)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: the content of %s is damaged (xxh64 %016llx, DONE says %016llx)", dir, name,
		                     (unsigned long long)have, (unsigned long long)want);
	return 0;
}

int checkpoint_verify(const char *dir, struct stave_err *err)
{
	static const char *const needed[] = {"config.json", "model.safetensors", "optimizer.safetensors", "state.json"};
	char path[STAVE_PATH];
	json_t *done = NULL;
	int rc = stave_path(path, dir, "DONE", err);
	if (!rc && !stave_exists(path))
		return stave_err_set(err, STAVE_ECORRUPT, "%s has no DONE: it is not a whole checkpoint", dir);
	if (rc || (rc = stave_json_load(&done, path, STATE_BYTES_MAX, err)))
		return rc;
	json_t *files = json_object_get(done, "files");
	for (size_t i = 0; !rc && i < sizeof needed / sizeof *needed; i++)
		if (!json_object_get(files, needed[i]))
			rc = stave_err_set(err, STAVE_ECORRUPT, "%s/DONE does not list %s", dir, needed[i]);
	const char *name;
	json_t *entry;
	if (!rc)
		json_object_foreach(files, name, entry)
			if ((rc = verify_file(dir, name, entry, err)))
				break;
	json_decref(done);
	return rc;
}

/* ---- state.json ---- */

static json_t *zscore_json(const struct stave_zscore *z)
{
	json_t *values = json_array();
	for (size_t i = 0; i < sizeof z->v / sizeof *z->v; i++)
		json_array_append_new(values, json_real(z->v[i]));
	return json_pack("{s:i, s:i, s:o}", "n", z->n, "at", z->at, "values", values);
}

static int zscore_load(struct stave_zscore *z, const json_t *j, const char *what, struct stave_err *err)
{
	const size_t max = sizeof z->v / sizeof *z->v;
	const json_t *values = json_object_get(j, "values");
	int64_t n, at;
	int rc = stave_json_int(j, "n", 0, 0, (int64_t)max, &n, what, err);
	if (rc || (rc = stave_json_int(j, "at", 0, 0, (int64_t)max, &at, what, err)))
		return rc;
	if (json_array_size(values) != max)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: a spike guard's window must have %zu values", what, max);
	for (size_t i = 0; i < max; i++)
		z->v[i] = json_number_value(json_array_get(values, i));
	z->n = (int)n;
	z->at = (int)at;
	return 0;
}

static int state_save(const char *dir, const struct train_state *s, struct stave_err *err)
{
	char path[STAVE_PATH];
	int rc = stave_path(path, dir, "state.json", err);
	if (rc)
		return rc;
	json_t *j = json_pack("{s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:s, s:o, s:o}", "step", (json_int_t)s->step, "updates",
	                      (json_int_t)s->updates, "tokens", (json_int_t)s->tokens, "losses_xxh64", hex(s->losses_hash), "seed",
	                      (json_int_t)s->seed, "batch", (json_int_t)s->batch, "seq", (json_int_t)s->seq, "optimizer",
	                      s->optimizer ? "muon" : "adamw", "loss_window", zscore_json(&s->loss_z), "norm_window", zscore_json(&s->norm_z));
	rc = stave_json_save(j, path, err);
	json_decref(j);
	return rc;
}

/* Continuing with another order of data would look like continuing and not be it. */
static int state_agrees(const struct train_state *was, const struct train_state *now, const char *path, struct stave_err *err)
{
	const struct {
		const char *key;
		int64_t was, now;
	} fixed[] = {{"train.seed", was->seed, now->seed}, {"train.batch", was->batch, now->batch}, {"train.seq", was->seq, now->seq},
	             {"train.optimizer (0 adamw, 1 muon)", was->optimizer, now->optimizer}};
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
		if (fixed[i].was != fixed[i].now)
			return stave_err_set(err, STAVE_ECONFIG, "%s: the run was made with %s %lld, now it is %lld; resume with the same, or start "
			                     "a new run (other --out) from its weights with --model", path, fixed[i].key, (long long)fixed[i].was, (long long)fixed[i].now);
	return 0;
}

static int state_load(const char *dir, struct train_state *s, struct stave_err *err)
{
	char path[STAVE_PATH];
	json_t *j = NULL;
	struct train_state t = {0};
	int rc = stave_path(path, dir, "state.json", err);
	if (rc || (rc = stave_json_load(&j, path, STATE_BYTES_MAX, err)))
		return rc;
	const struct {
		const char *key;
		int64_t *to;
	} ints[] = {{"step", &t.step}, {"updates", &t.updates}, {"tokens", &t.tokens}, {"seed", &t.seed}, {"batch", &t.batch}, {"seq", &t.seq}};
	for (size_t i = 0; !rc && i < sizeof ints / sizeof *ints; i++)
		rc = stave_json_int(j, ints[i].key, -1, 0, INT64_MAX / 2, ints[i].to, path, err);
	t.optimizer = strcmp(stave_json_str(j, "optimizer", "adamw"), "muon") == 0;
	if (!rc && !read_hex(j, "losses_xxh64", &t.losses_hash))
		rc = stave_err_set(err, STAVE_ECORRUPT, "%s: losses_xxh64 must be 16 hexadecimal digits", path);
	if (!rc)
		rc = zscore_load(&t.loss_z, json_object_get(j, "loss_window"), path, err);
	if (!rc)
		rc = zscore_load(&t.norm_z, json_object_get(j, "norm_window"), path, err);
	json_decref(j);
	if (!rc && !(rc = state_agrees(&t, s, path, err)))
		*s = t;
	return rc;
}

/* ---- optimizer.safetensors ---- */

struct moment {
	char name[128];
	float *at; /* NULL: the loader's state */
	size_t bytes;
};

/* Every tensor of the file, in order: m and v of each parameter, then the loader's state. */
static struct moment *moments(const struct checkpoint *c, int *n)
{
	const struct stave_layout *l = c->opt->l;
	struct moment *t = calloc((size_t)l->n_params * 2 + 1, sizeof *t);
	*n = 0;
	for (int i = 0; t && i < l->n_params; i++) {
		const struct stave_param *p = &l->params[i];
		size_t bytes = (size_t)p->rows * (size_t)p->cols * sizeof(float);
		struct moment *m = &t[(*n)++];
		snprintf(m->name, sizeof m->name, "m.%s", p->name);
		m->at = c->m + p->offset;
		m->bytes = bytes;
		if (c->opt->v_at[i] < 0)
			continue;
		m = &t[(*n)++];
		snprintf(m->name, sizeof m->name, "v.%s", p->name);
		m->at = c->v + c->opt->v_at[i];
		m->bytes = bytes;
	}
	if (t && c->batches_bytes) {
		snprintf(t[*n].name, sizeof t[*n].name, "batches");
		t[(*n)++].bytes = c->batches_bytes;
	}
	return t;
}

static int moments_save(const char *dir, const struct checkpoint *c, struct stave_err *err)
{
	char path[STAVE_PATH];
	int n, rc = stave_path(path, dir, "optimizer.safetensors", err);
	if (rc)
		return rc;
	struct moment *m = moments(c, &n);
	struct stave_st_tensor *t = m ? calloc((size_t)n, sizeof *t) : NULL;
	struct stave_st_writer w = {.fd = -1};
	if (!t)
		rc = stave_err_set(err, STAVE_ENOMEM, "no memory to save %s", path);
	for (int i = 0; !rc && i < n; i++) {
		t[i] = (struct stave_st_tensor){.name = m[i].name, .dtype = m[i].at ? STAVE_F32 : STAVE_U8, .n_dims = 1};
		t[i].shape[0] = (int64_t)(m[i].at ? m[i].bytes / sizeof(float) : m[i].bytes);
	}
	if (!rc)
		rc = stave_st_create(&w, path, t, n, NULL, 0, err);
	for (int i = 0; !rc && i < n; i++)
		rc = stave_st_write(&w, m[i].at ? (void *)m[i].at : c->batches, m[i].bytes, err);
	if (!rc)
		rc = stave_st_commit(&w, err);
	else
		stave_st_abort(&w);
	free(t);
	free(m);
	return rc;
}

static int moments_load(const char *dir, struct checkpoint *c, struct stave_err *err)
{
	char path[STAVE_PATH];
	struct stave_st st = {0};
	int n = 0, rc = stave_path(path, dir, "optimizer.safetensors", err);
	if (rc || (rc = stave_st_open(&st, path, err)))
		return rc;
	struct moment *m = moments(c, &n);
	if (!m)
		rc = stave_err_set(err, STAVE_ENOMEM, "no memory to load %s", path);
	for (int i = 0; !rc && i < n; i++) {
		const struct stave_st_tensor *t = stave_st_find(&st, m[i].name);
		if (!t || t->dtype != (m[i].at ? STAVE_F32 : STAVE_U8) || t->end - t->begin != m[i].bytes)
			rc = stave_err_set(err, STAVE_ECONFIG, "%s: %s %s; the checkpoint is of another model or loader", path, m[i].name,
			                   t ? "has another size or type" : "is missing");
		else
			memcpy(m[i].at ? (void *)m[i].at : c->batches, t->data, m[i].bytes);
	}
	free(m);
	stave_st_close(&st);
	return rc;
}

/* ---- writing ---- */

int checkpoint_copy_tokenizer(const char *from, const char *to, struct stave_err *err)
{
	static const char *const names[] = {"tokenizer.json", "tokenizer_config.json"};
	int rc = 0;
	for (int i = 0; !rc && from && i < 2; i++) {
		char a[STAVE_PATH], b[STAVE_PATH];
		struct stave_buf text = {0};
		if ((rc = stave_path(a, from, names[i], err)) || (rc = stave_path(b, to, names[i], err)))
			return rc;
		if (!stave_exists(a))
			continue;
		if (!(rc = stave_file_read(&text, a, TOKENIZER_BYTES_MAX, err)))
			rc = stave_file_write(b, text.p, text.len, err);
		stave_buf_free(&text);
	}
	return rc;
}

/* Asking first gives an error that says how much is missing, before the disk is full for everybody else too. */
static int enough_space(const char *root, const struct checkpoint *c, struct stave_err *err)
{
	struct statvfs fs;
	const struct stave_layout *l = c->opt->l;
	double need = 4.0 * (2.0 * (double)l->n + (double)c->opt->n_v) + (double)c->batches_bytes + (1 << 20);
	char a[32], b[32];
	if (statvfs(root, &fs))
		return stave_err_errno(err, "asking for free space at %s", root);
	double have = (double)fs.f_bavail * (double)fs.f_frsize;
	if (have < need)
		return stave_err_set(err, STAVE_ENOSPACE, "a checkpoint needs %s but %s has %s free", stave_bytes_text(a, need), root, stave_bytes_text(b, have));
	return 0;
}

static int write_files(const char *dir, const struct checkpoint_policy *policy, const struct checkpoint *c, struct stave_err *err)
{
	int rc;
	if ((rc = stave_mkdirs(dir, err)) || (rc = enough_space(dir, c, err)) ||
	    (rc = stave_weights_save(c->opt->l, c->p, dir, STAVE_F32, policy->eos, policy->bos, err)) || (rc = moments_save(dir, c, err)) ||
	    (rc = checkpoint_copy_tokenizer(policy->tokenizer_dir, dir, err)) || (rc = state_save(dir, &c->state, err)))
		return rc;
	return stave_fsync_dir(dir, err);
}

/* DONE goes first: what is left of a removal that is cut short is no checkpoint. */
static int remove_checkpoint(const char *dir, struct stave_err *err)
{
	char done[STAVE_PATH];
	int rc = stave_path(done, dir, "DONE", err);
	if (!rc && !(rc = stave_remove_tree(done, err)))
		rc = stave_remove_tree(dir, err);
	return rc;
}

static int prune(const struct checkpoint_policy *policy, struct stave_err *err)
{
	int64_t steps[LIST_MAX];
	int n = checkpoint_list(policy->root, steps, LIST_MAX), rc = 0;
	for (int i = 0, kept = 0; !rc && i < n; i++) {
		char dir[STAVE_PATH];
		if (kept++ < policy->keep || (policy->every_keep && steps[i] % policy->every_keep == 0))
			continue;
		if (!(rc = step_path(dir, policy->root, "", steps[i], err)))
			rc = remove_checkpoint(dir, err);
	}
	return rc;
}

/* From a finished temporary directory to a whole checkpoint. */
static int publish(const char *tmp, const char *dir, const struct checkpoint_policy *policy, int64_t step, struct stave_err *err)
{
	char done[STAVE_PATH];
	json_t *list = NULL;
	int rc = stave_path(done, dir, "DONE", err);
	if (rc || (rc = manifest(tmp, step, &list, err)))
		return rc;
	if (!(rc = remove_checkpoint(dir, err)) && rename(tmp, dir))
		rc = stave_err_errno(err, "renaming %s to %s", tmp, dir);
	if (!rc && !(rc = stave_fsync_dir(policy->root, err)))
		rc = stave_json_save(list, done, err);
	json_decref(list);
	return rc;
}

int checkpoint_write(const struct checkpoint_policy *policy, const struct checkpoint *c, struct stave_err *err)
{
	char tmp[STAVE_PATH], dir[STAVE_PATH];
	int64_t step = c->state.step;
	int rc;
	if ((rc = step_path(tmp, policy->root, ".tmp-", step, err)) || (rc = step_path(dir, policy->root, "", step, err)) ||
	    (rc = stave_remove_tree(tmp, err)))
		return rc;
	if (!(rc = write_files(tmp, policy, c, err)))
		rc = publish(tmp, dir, policy, step, err);
	if (rc) {
		stave_remove_tree(tmp, NULL); /* the space is wanted back; the first error is the one to report */
		return rc;
	}
	return prune(policy, err);
}

/* ---- finding and reading ---- */

/* N of "step-N" and nothing else, -1 otherwise. */
static int64_t step_of(const char *name)
{
	char *end;
	if (strncmp(name, "step-", 5) || name[5] < '0' || name[5] > '9')
		return -1;
	errno = 0;
	long long n = strtoll(name + 5, &end, 10);
	return *end || errno ? -1 : n;
}

static int newest_first(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return x < y ? 1 : x > y ? -1 : 0;
}

int checkpoint_list(const char *root, int64_t *steps, int max)
{
	DIR *d = opendir(root);
	int n = 0;
	for (struct dirent *e; d && n < max && (e = readdir(d));) {
		char done[STAVE_PATH * 2];
		int64_t step = step_of(e->d_name);
		snprintf(done, sizeof done, "%s/%s/DONE", root, e->d_name);
		if (step >= 0 && stave_exists(done))
			steps[n++] = step;
	}
	if (d)
		closedir(d);
	qsort(steps, (size_t)n, sizeof *steps, newest_first);
	return n;
}

bool checkpoint_newest(const char *root, int64_t *step)
{
	int64_t steps[LIST_MAX];
	int n = checkpoint_list(root, steps, LIST_MAX);
	*step = n ? steps[0] : -1;
	return n > 0;
}

int checkpoint_load(const char *dir, struct checkpoint *c, struct stave_err *err)
{
	struct stave_shape s;
	struct train_state state = c->state;
	int rc;
	if ((rc = checkpoint_verify(dir, err)) || (rc = state_load(dir, &state, err)) || (rc = stave_shape_load(&s, dir, err)))
		return rc;
	const struct stave_shape *want = &c->opt->l->shape;
	if (s.L != want->L || s.C != want->C || s.H != want->H || s.K != want->K || s.I != want->I || s.V != want->V || s.T_max != want->T_max)
		return stave_err_set(err, STAVE_ECONFIG, "%s is of another model: %d layers of %d channels, %d tokens, not %d of %d, %d", dir, s.L,
		                     s.C, s.V, want->L, want->C, want->V);
	if ((rc = stave_weights_load(c->opt->l, c->p, dir, err)) || (rc = moments_load(dir, c, err)))
		return rc;
	c->state = state;
	return 0;
}

/* Only once an older one has proved good: a run must not lose sight of its checkpoints and begin anew by itself. */
static int set_aside(const char *root, int64_t step, struct stave_err *err)
{
	char dir[STAVE_PATH], aside[STAVE_PATH + 16];
	int rc = step_path(dir, root, "", step, err);
	if (rc)
		return rc;
	snprintf(aside, sizeof aside, "%s.corrupt", dir);
	stave_remove_tree(aside, NULL);
	return rename(dir, aside) ? stave_err_errno(err, "renaming %s to %s", dir, aside) : 0;
}

int checkpoint_load_newest(const struct checkpoint_policy *policy, struct checkpoint *c, bool *found, struct stave_err *err)
{
	int64_t steps[LIST_MAX];
	int n = checkpoint_list(policy->root, steps, LIST_MAX), rc = 0, i;
	*found = false;
	for (i = 0; i < n; i++) {
		char dir[STAVE_PATH];
		if ((rc = step_path(dir, policy->root, "", steps[i], err)))
			return rc;
		rc = checkpoint_load(dir, c, err);
		if (rc != STAVE_ECORRUPT)
			break;
		stave_log(STAVE_LOG_WARN, "%s; trying the checkpoint before", err->msg);
	}
	if (n && i == n)
		return stave_err_set(err, STAVE_ECORRUPT, "all %d checkpoints in %s are damaged (the last one tried: step-%lld); move them away to start anew",
		                     n, policy->root, (long long)steps[n - 1]);
	while (!rc && i-- > 0)
		rc = set_aside(policy->root, steps[i], err);
	*found = n && !rc;
	return rc;
}

int checkpoint_sweep(const char *root, struct stave_err *err)
{
	DIR *d = opendir(root);
	int rc = 0;
	for (struct dirent *e; d && !rc && (e = readdir(d));) {
		char path[STAVE_PATH], done[STAVE_PATH];
		bool unfinished = strncmp(e->d_name, ".tmp-step-", 10) == 0;
		if ((!unfinished && step_of(e->d_name) < 0) || (rc = stave_path(path, root, e->d_name, err)))
			continue;
		if (!unfinished && (rc = stave_path(done, path, "DONE", err)))
			continue;
		if (unfinished || !stave_exists(done))
			rc = stave_remove_tree(path, err);
	}
	if (d)
		closedir(d);
	return rc;
}
