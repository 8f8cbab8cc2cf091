/* The run store: what a run writes about itself under runs/NAME/.
 *
 *   config.yaml, plan.json   by the caller, through stave_run_file
 *   metrics.jsonl            one object per line, appended; flushed line by line, so that `tail -f` and a kill -9 both see
 *                            whole lines; synced to disk when the run closes
 *   tensorboard/             one event file per start of the run
 *   receipt.json             written whole or not at all
 *
 * One run has one history. A killed run may have logged steps after its last checkpoint, and its last line may be torn;
 * a resumed run would log those steps again. So on resuming at a step, metrics.jsonl is rewritten without the torn line
 * and without lines of that step or later (atomically: the old file or the new one). Event files are never edited:
 * the new one opens with a session start at that step, and TensorBoard drops what earlier files say from there on.
 *
 * What it refuses: a metrics.jsonl above 1 GiB or with a whole line that is no JSON object with a step. That file was not
 * written by us, and repairing it silently would lose somebody's data. */
#include "watch/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/sys.h"
#include "watch/events.h"
#include "watch/metrics.h"
#include "watch/run.h"

#define METRICS_MAX ((size_t)1 << 30)
#define SCALARS 64 /* of one line */
#define DIGITS 13  /* of a number in it */

struct stave_run {
	char dir[STAVE_PATH];
	FILE *metrics, *events;
};

static double wall_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- resuming ---- */

int stave_run_history(const char *text, size_t n, int64_t step, const char *what, struct stave_buf *kept, struct stave_err *err)
{
	size_t line = 0;
	for (const char *p = text, *end = text + n, *next; p < end; p = next) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));
		json_t *o;
		char where[STAVE_PATH + 32];
		int64_t at;
		line++;
		if (!eol)
			return 0; /* torn: the run was killed while writing it */
		next = eol + 1;
		snprintf(where, sizeof where, "%s:%zu", what, line);
		int rc = stave_json_parse(&o, p, (size_t)(eol - p), where, err);
		if (rc)
			return rc;
		rc = stave_json_int(o, "step", -1, 0, INT64_MAX, &at, where, err);
		json_decref(o);
		if (!rc && at < 0)
			rc = stave_err_set(err, STAVE_ECORRUPT, "%s: a line without a step; move the file away to resume", where);
		if (rc)
			return rc;
		if (at < step)
			stave_buf_put(kept, p, (size_t)(next - p));
	}
	return 0;
}

static int rewrite_history(const char *path, int64_t step, struct stave_err *err)
{
	struct stave_buf text = {0}, kept = {0};
	if (!stave_exists(path))
		return 0;
	int rc = stave_file_read(&text, path, METRICS_MAX, err);
	if (!rc)
		rc = stave_run_history(text.p, text.len, step, path, &kept, err);
	if (!rc && kept.len != text.len)
		rc = stave_file_write(path, kept.p ? kept.p : "", kept.len, err);
	stave_buf_free(&text);
	stave_buf_free(&kept);
	return rc;
}

/* ---- opening and closing ---- */

/* TensorBoard reads the files of a run in the order of their names: the time of the start to the microsecond. */
static FILE *create_events(const char *dir, struct stave_err *err)
{
	char path[STAVE_PATH + 128], host[64] = "localhost";
	struct timespec t;
	gethostname(host, sizeof host - 1);
	clock_gettime(CLOCK_REALTIME, &t);
	snprintf(path, sizeof path, "%s/tensorboard/events.out.tfevents.%010lld.%06ld.%s.%d", dir, (long long)t.tv_sec, t.tv_nsec / 1000,
	         host, (int)getpid());
	FILE *f = fopen(path, "wbxe");
	if (!f)
		stave_err_errno(err, "cannot create %s", path);
	return f;
}

int stave_run_open(struct stave_run **out, const char *dir, bool resume, int64_t step, struct stave_err *err)
{
	char path[STAVE_PATH];
	struct stave_run *r = calloc(1, sizeof *r);
	if (!r)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the run store");
	int rc = stave_path(r->dir, dir, ".", err); /* room for names below it */
	r->dir[rc ? 0 : strlen(dir)] = 0;
	if (!rc && !(rc = stave_path(path, dir, "tensorboard", err)))
		rc = stave_mkdirs(path, err);
	if (!rc && !(rc = stave_path(path, dir, "metrics.jsonl", err)) && resume)
		rc = rewrite_history(path, step, err);
	if (!rc && !(r->metrics = fopen(path, resume ? "ae" : "we")))
		rc = stave_err_errno(err, "cannot open %s", path);
	if (!rc && !(r->events = create_events(dir, err)))
		rc = err ? err->code : STAVE_EIO;
	if (!rc)
		rc = stave_events_version(r->events, wall_s(), err);
	if (!rc && resume)
		rc = stave_events_session(r->events, wall_s(), step, err);
	if (rc) {
		stave_run_close(r);
		return rc;
	}
	*out = r;
	return 0;
}

static void close_synced(FILE *f)
{
	if (!f)
		return;
	if (fflush(f) || fsync(fileno(f)))
		stave_log(STAVE_LOG_WARN, "the run's metrics may be incomplete on disk: %s", strerror(errno));
	fclose(f);
}

void stave_run_close(struct stave_run *r)
{
	if (!r)
		return;
	close_synced(r->metrics);
	close_synced(r->events);
	free(r);
}

const char *stave_run_dir(const struct stave_run *r) { return r->dir; }

FILE *stave_run_file(struct stave_run *r, const char *name, struct stave_err *err)
{
	char path[STAVE_PATH];
	if (stave_path(path, r->dir, name, err))
		return NULL;
	FILE *f = fopen(path, "we");
	if (!f)
		stave_err_errno(err, "cannot create %s", path);
	return f;
}

/* ---- writing ---- */

/* One line, by one write: whole even when the process dies right after. */
static int put_line(struct stave_run *r, json_t *o, struct stave_err *err)
{
	char *text = o ? json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(DIGITS)) : NULL;
	json_decref(o);
	if (!text)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for a line of metrics.jsonl");
	int bad = fprintf(r->metrics, "%s\n", text) < 0 || fflush(r->metrics);
	free(text);
	return bad ? stave_err_errno(err, "cannot write %s/metrics.jsonl", r->dir) : 0;
}

/* {"step", "time"}: Unix time to the millisecond, which is what DIGITS leaves of it. */
static json_t *new_line(int64_t step)
{
	return json_pack("{s:I, s:f}", "step", (json_int_t)step, "time", round(wall_s() * 1e3) / 1e3);
}

int stave_run_scalars(struct stave_run *r, int64_t step, const struct stave_scalar *s, int n, struct stave_err *err)
{
	struct scalar_tag tag[SCALARS];
	if (n < 0 || n > SCALARS)
		return stave_err_set(err, STAVE_EFAIL, "%d scalars in one line of metrics, at most %d", n, SCALARS);
	json_t *o = new_line(step);
	for (int i = 0; i < n; i++) {
		const struct stave_metric *m = stave_metric_find(s[i].name);
		tag[i] = (struct scalar_tag){m ? m->board : NULL, s[i].name, (float)s[i].value};
		if (o)
			json_object_set_new(o, s[i].name, isfinite(s[i].value) ? json_real(s[i].value) : json_null());
	}
	int rc = put_line(r, o, err);
	if (!rc)
		rc = stave_events_scalars(r->events, wall_s(), step, tag, n, err);
	if (!rc && fflush(r->events))
		rc = stave_err_errno(err, "cannot write the TensorBoard event file of %s", r->dir);
	return rc;
}

/* A message may quote a file name, which need not be UTF-8. */
static json_t *text(const char *message)
{
	struct stave_buf b = {0};
	json_t *t = json_string(message);
	if (t)
		return t;
	stave_buf_put(&b, message, strlen(message));
	for (size_t i = 0; i < b.len; i++)
		if ((unsigned char)b.p[i] >= 0x80)
			b.p[i] = '?';
	t = json_string(b.p);
	stave_buf_free(&b);
	return t;
}

int stave_run_event(struct stave_run *r, int64_t step, const char *event, const char *message, struct stave_err *err)
{
	json_t *o = new_line(step);
	if (o) {
		json_object_set_new(o, "event", json_string(event));
		json_object_set_new(o, "message", text(message));
	}
	return put_line(r, o, err);
}

int stave_run_receipt(struct stave_run *r, json_t *receipt, struct stave_err *err)
{
	char path[STAVE_PATH];
	int rc = stave_path(path, r->dir, "receipt.json", err);
	return rc ? rc : stave_json_save(receipt, path, err);
}
