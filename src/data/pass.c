/* A pass over the corpus: one thread reads the next batch while the others work on this one, then joins them. Memory is
 * two batches plus what `each` keeps per slot, whatever the size of the corpus. */
#include "base/sys.h"
#include "data/prepare.h"

static void progress(const struct stave_pass *p, const struct stave_sources *s, const struct stave_documents *d, double start)
{
	char rate[32], done[32], all[32], left[32];
	double elapsed = stave_now_s() - start, bytes = (double)d->bytes_read, total = (double)s->bytes;
	double per_s = elapsed > 0 ? bytes / elapsed : 0;
	if (elapsed < 1)
		return; /* what is over at once needs no line */
	stave_progress(false, "%s  %s of %s  %s/s  ETA %s", p->what, stave_bytes_text(done, bytes), stave_bytes_text(all, total),
	               stave_bytes_text(rate, per_s), stave_duration_text(left, per_s > 0 ? (total - bytes) / per_s : -1));
}

int stave_pass_stopped(struct stave_err *err)
{
	if (stave_stop_requested())
		return stave_err_set(err, STAVE_EINTERRUPTED, "interrupted; the same command continues from the last finished shard");
	if (stave_requeue_requested())
		return stave_err_set(err, STAVE_EREQUEUE, "asked to stop; the same command continues from the last finished shard");
	return 0;
}

int stave_pass_run(struct stave_pass *p, struct stave_sources *s, enum stave_split_on split_on, struct stave_err *err)
{
	struct stave_documents batch[2] = {{0}};
	struct stave_reader *reader = NULL;
	double start = stave_now_s();
	int threads = stave_threads(), rc = stave_reader_open(&reader, s, split_on, err);
	size_t batch_bytes = STAVE_BATCH_BYTES * (size_t)threads;
	if (!rc)
		rc = stave_reader_next(reader, &batch[0], batch_bytes, err);
	for (int now = 0; !rc && batch[now].n; now ^= 1) {
		const struct stave_documents *d = &batch[now];
		int rc_read = 0;
#pragma omp parallel num_threads(threads)
		{
#pragma omp single nowait
			{
				double t = stave_now_s();
				rc_read = stave_reader_next(reader, &batch[now ^ 1], batch_bytes, err);
				p->read_s += stave_now_s() - t;
			}
#pragma omp for schedule(dynamic, 4)
			for (size_t i = 0; i < d->n; i++)
				p->each(p->ctx, &d->v[i], d->first + (int64_t)i, i, stave_thread_index());
		}
		rc = rc_read;
		if (!rc)
			rc = p->merge(p->ctx, d, err);
		if (!rc)
			rc = stave_pass_stopped(err);
		progress(p, s, d, start);
	}
	stave_documents_free(&batch[0]);
	stave_documents_free(&batch[1]);
	stave_reader_close(reader);
	return rc;
}

enum stave_verdict stave_reading_text(struct stave_reading *r, const struct stave_prepare *p, const struct stave_document *d, bool jsonl)
{
	enum stave_verdict v = stave_record_read(&r->record, d->text, d->n, jsonl, p->field);
	r->text = r->record.text;
	r->n = r->record.n;
	r->lines_removed = 0;
	if (!v && p->filter_c4 && !r->record.n_messages) {
		v = stave_c4(&r->quality, r->text, r->n, p->c4_terminal, &r->text, &r->n, &r->lines_removed);
		r->record.content_bytes = r->n;
	}
	return v;
}

void stave_reading_free(struct stave_reading *r)
{
	stave_record_free(&r->record);
	stave_quality_free(&r->quality);
}
