/* Bytes of files become a stream of documents. Three shapes: a whole file (mapped when it lies plain and large on disk,
 * so a 100 GB book costs no memory), a line (JSONL, or --split_on line), a paragraph (--split_on blank). Compression is
 * told by its magic number, never by the name. A truncated or damaged archive is an error, not a shorter corpus.
 *
 * Lines are cut out of a buffer that belongs to the batch; the unfinished tail moves to the next batch. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zlib.h>
#include <zstd.h>

#include "data/corpus.h"

#define CHUNK ((size_t)1 << 20)
#define MAP_FROM ((int64_t)1 << 20) /* smaller plain files are cheaper to read than to map */

enum packing { PLAIN, GZIP, ZSTD };

/* ---- one file, unpacked ---- */

struct stream {
	const char *path;
	int fd;
	enum packing packing;
	unsigned char *in;     /* CHUNK bytes of the file, in[at..n) not yet used */
	size_t at, n;
	bool eof;              /* of the file */
	bool open_member;      /* inside a gzip member or zstd frame */
	z_stream z;
	ZSTD_DStream *zd;
	XXH3_state_t *hash;    /* of the file's bytes as they lie */
	int64_t bytes;         /* of the file, read so far */
};

static int refill(struct stream *s, struct stave_err *err)
{
	while (s->at == s->n && !s->eof) {
		ssize_t got = read(s->fd, s->in, CHUNK);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return stave_err_errno(err, "reading %s", s->path);
		s->at = 0;
		s->n = (size_t)got;
		s->eof = got == 0;
		s->bytes += got;
		XXH3_128bits_update(s->hash, s->in, s->n);
	}
	return 0;
}

static void stream_close(struct stream *s)
{
	if (s->fd >= 0)
		close(s->fd);
	if (s->packing == GZIP)
		inflateEnd(&s->z);
	ZSTD_freeDStream(s->zd);
	s->zd = NULL;
	s->fd = -1;
	s->packing = PLAIN;
}

static int stream_open(struct stream *s, const char *path, struct stave_err *err)
{
	unsigned char *in = s->in;
	XXH3_state_t *hash = s->hash;
	*s = (struct stream){.path = path, .fd = open(path, O_RDONLY | O_CLOEXEC), .in = in, .hash = hash};
	if (s->fd < 0)
		return stave_err_errno(err, "opening %s", path);
	posix_fadvise(s->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	XXH3_128bits_reset(hash);
	int rc = refill(s, err);
	if (rc)
		return rc;
	if (s->n >= 2 && in[0] == 0x1f && in[1] == 0x8b) {
		if (inflateInit2(&s->z, 15 + 16) != Z_OK)
			return stave_err_set(err, STAVE_ENOMEM, "%s: no memory to unpack", path);
		s->packing = GZIP;
	} else if (s->n >= 4 && !memcmp(in, "\x28\xb5\x2f\xfd", 4)) {
		s->packing = ZSTD;
		if (!(s->zd = ZSTD_createDStream()))
			return stave_err_set(err, STAVE_ENOMEM, "%s: no memory to unpack", path);
	}
	return 0;
}

static int damaged(const struct stream *s, const char *what, struct stave_err *err)
{
	return stave_err_set(err, STAVE_ECORRUPT, "%s: %s data %s, near byte %lld of the file; copy it again from its source", s->path,
	                     s->packing == GZIP ? "gzip" : "zstd", what, (long long)(s->bytes - (int64_t)(s->n - s->at)));
}

static int unpack_gzip(struct stream *s, char *p, size_t n, size_t *got, struct stave_err *err)
{
	s->z.next_in = s->in + s->at;
	s->z.avail_in = (uInt)(s->n - s->at);
	s->z.next_out = (unsigned char *)p;
	s->z.avail_out = (uInt)n;
	if (!s->open_member) {
		if (inflateReset(&s->z) != Z_OK)
			return damaged(s, "cannot be reset", err);
		s->open_member = true;
	}
	int z = inflate(&s->z, Z_NO_FLUSH);
	s->at = s->n - s->z.avail_in;
	*got = n - s->z.avail_out;
	if (z == Z_STREAM_END)
		s->open_member = false;
	else if (z != Z_OK && z != Z_BUF_ERROR)
		return damaged(s, s->z.msg ? s->z.msg : "is damaged", err);
	return 0;
}

static int unpack_zstd(struct stream *s, char *p, size_t n, size_t *got, struct stave_err *err)
{
	ZSTD_inBuffer in = {s->in, s->n, s->at};
	ZSTD_outBuffer out = {p, n, 0};
	size_t left = ZSTD_decompressStream(s->zd, &out, &in);
	if (ZSTD_isError(left))
		return damaged(s, ZSTD_getErrorName(left), err);
	s->at = in.pos;
	s->open_member = left != 0;
	*got = out.pos;
	return 0;
}

/* Up to n unpacked bytes; *got == 0 only at the end. */
static int stream_read(struct stream *s, char *p, size_t n, size_t *got, struct stave_err *err)
{
	n = n < CHUNK ? n : CHUNK;
	for (*got = 0; !*got;) {
		int rc = refill(s, err);
		if (rc)
			return rc;
		if (s->eof && s->packing == PLAIN)
			return 0;
		if (s->packing == PLAIN) {
			*got = n < s->n - s->at ? n : s->n - s->at;
			memcpy(p, s->in + s->at, *got);
			s->at += *got;
			return 0;
		}
		if (s->eof && !s->open_member)
			return 0;
		bool starved = s->eof;
		rc = s->packing == GZIP ? unpack_gzip(s, p, n, got, err) : unpack_zstd(s, p, n, got, err);
		if (rc)
			return rc;
		if (starved && !*got && s->open_member)
			return damaged(s, "ends too early: the file is cut short", err);
	}
	return 0;
}

/* ---- the stream of documents ---- */

struct stave_reader {
	struct stave_sources *sources;
	enum stave_split_on split_on;
	struct stream s;
	int source;             /* the one being read; the stream is open iff `open` */
	bool open, ended;       /* `ended`: every byte of it is in the carry or handed out */
	struct stave_buf carry; /* the unfinished document between batches */
	int64_t line;           /* of the first byte of the carry */
	int64_t documents, bytes_done;
};

void stave_documents_free(struct stave_documents *d)
{
	for (int i = 0; i < d->n_maps; i++)
		stave_map_close(&d->maps[i]);
	free(d->maps);
	free(d->v);
	stave_buf_free(&d->buf);
	*d = (struct stave_documents){0};
}

int stave_reader_open(struct stave_reader **out, struct stave_sources *s, enum stave_split_on split_on, struct stave_err *err)
{
	struct stave_reader *r = calloc(1, sizeof *r);
	if (!r)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for a reader");
	*r = (struct stave_reader){.sources = s, .split_on = split_on, .s = {.fd = -1, .in = malloc(CHUNK), .hash = XXH3_createState()}};
	if (!r->s.in || !r->s.hash) {
		stave_reader_close(r);
		return stave_err_set(err, STAVE_ENOMEM, "no memory for a reader");
	}
	*out = r;
	return 0;
}

void stave_reader_close(struct stave_reader *r)
{
	if (!r)
		return;
	stream_close(&r->s);
	free(r->s.in);
	XXH3_freeState(r->s.hash);
	stave_buf_free(&r->carry);
	free(r);
}

/* A text in the batch's buffer is an offset (text NULL) until the batch is full: the buffer moves while it grows. */
static int put(struct stave_documents *d, const char *text, size_t at, size_t n, int source, int64_t line, struct stave_err *err)
{
	if (d->n == d->cap) {
		size_t cap = d->cap ? 2 * d->cap : 256;
		struct stave_document *v = realloc(d->v, cap * sizeof *v);
		if (!v)
			return stave_err_set(err, STAVE_ENOMEM, "no memory for a batch of %zu documents", cap);
		d->v = v;
		d->cap = cap;
	}
	d->v[d->n++] = (struct stave_document){.text = text, .at = at, .n = n, .source = source, .line = line};
	return 0;
}

static void settle(struct stave_documents *d)
{
	for (size_t i = 0; i < d->n; i++)
		if (!d->v[i].text)
			d->v[i].text = d->buf.p + d->v[i].at;
}

static void source_end(struct stave_reader *r)
{
	struct stave_source *f = &r->sources->v[r->source];
	XXH128_hash_t h = XXH3_128bits_digest(r->s.hash);
	snprintf(f->hash, sizeof f->hash, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
	r->bytes_done += f->size;
	stream_close(&r->s);
	r->open = false;
	r->source++;
}

/* A UTF-8 byte order mark belongs to the file, not to its text. */
static size_t bom(const char *p, size_t n) { return n >= 3 && !memcmp(p, "\xef\xbb\xbf", 3) ? 3 : 0; }

static int map_whole(struct stave_reader *r, struct stave_documents *d, struct stave_err *err)
{
	struct stave_map m = {0};
	if (d->n_maps == d->cap_maps) {
		int cap = d->cap_maps ? 2 * d->cap_maps : 8;
		struct stave_map *maps = realloc(d->maps, (size_t)cap * sizeof *maps);
		if (!maps)
			return stave_err_set(err, STAVE_ENOMEM, "no memory for a batch");
		d->maps = maps;
		d->cap_maps = cap;
	}
	int rc = stave_map_open(&m, r->s.path, err);
	if (rc)
		return rc;
	d->maps[d->n_maps++] = m;
	XXH3_128bits_reset(r->s.hash);
	XXH3_128bits_update(r->s.hash, m.p, m.size);
	size_t skip = bom(m.p, m.size);
	rc = put(d, m.p + skip, 0, m.size - skip, r->source, 0, err);
	source_end(r);
	return rc;
}

static int read_whole(struct stave_reader *r, struct stave_documents *d, struct stave_err *err)
{
	if (r->s.packing == PLAIN && r->sources->v[r->source].size >= MAP_FROM)
		return map_whole(r, d, err);
	size_t from = d->buf.len;
	for (size_t got = 1; got;) {
		stave_buf_reserve(&d->buf, CHUNK);
		int rc = stream_read(&r->s, d->buf.p + d->buf.len, CHUNK, &got, err);
		if (rc)
			return rc;
		d->buf.len += got;
		if (d->buf.len - from > STAVE_UNPACKED_MAX)
			return stave_err_set(err, STAVE_EUSAGE, "%s unpacks to one document of more than %zu MiB; unpack it first, or use --split_on blank or line",
			                     r->s.path, STAVE_UNPACKED_MAX >> 20);
	}
	size_t skip = bom(d->buf.p + from, d->buf.len - from);
	int rc = put(d, NULL, from + skip, d->buf.len - from - skip, r->source, 0, err);
	source_end(r);
	return rc;
}

static bool blank(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != ' ' && p[i] != '\t' && p[i] != '\r' && p[i] != '\n')
			return false;
	return true;
}

/* Cuts documents out of buf[from..), where `from` starts a document or blank lines; returns where the unfinished one
 * starts. `last`: nothing follows, so the unfinished one is finished. */
static int cut(struct stave_reader *r, struct stave_documents *d, size_t *from, size_t *scan, bool last, size_t batch_bytes, struct stave_err *err)
{
	bool jsonl = r->sources->v[r->source].jsonl, paragraphs = !jsonl && r->split_on == STAVE_SPLIT_BLANK;
	const char *p = d->buf.p;
	int rc = 0;
	while (!rc && *scan < d->buf.len && d->n < STAVE_SLOTS && *from < batch_bytes) {
		const char *newline = memchr(p + *scan, '\n', d->buf.len - *scan);
		if (!newline && !last)
			break;
		size_t end = newline ? (size_t)(newline - p) : d->buf.len, next = newline ? end + 1 : end;
		bool empty = blank(p + *scan, end - *scan);
		size_t n = (paragraphs && empty ? *scan : end) - *from;
		bool done = paragraphs ? empty || (last && next == d->buf.len) : true;
		if (done && n && !blank(p + *from, n)) {
			while (n && (p[*from + n - 1] == '\n' || p[*from + n - 1] == '\r'))
				n--; /* the separator is not part of a line or a paragraph */
			rc = put(d, NULL, *from, n, r->source, r->line, err);
		}
		if (done) {
			for (const char *q = p + *from; (q = memchr(q, '\n', (size_t)(p + next - q))); q++)
				r->line++;
			*from = next;
		}
		*scan = next;
	}
	return rc;
}

static int read_lines(struct stave_reader *r, struct stave_documents *d, size_t batch_bytes, struct stave_err *err)
{
	size_t from = d->buf.len, scan = from, got = 0;
	stave_buf_put(&d->buf, r->carry.p, r->carry.len);
	r->carry.len = 0;
	for (;;) {
		int rc = cut(r, d, &from, &scan, r->ended, batch_bytes, err);
		if (rc)
			return rc;
		if (d->n >= STAVE_SLOTS || from >= batch_bytes || (r->ended && scan >= d->buf.len))
			break;
		if (d->buf.len - from > STAVE_LINE_MAX)
			return stave_err_set(err, STAVE_ECORRUPT, "%s:%lld: longer than the %zu MiB a line may have", r->s.path, (long long)r->line, STAVE_LINE_MAX >> 20);
		bool first = r->line == 1 && from == d->buf.len;
		stave_buf_reserve(&d->buf, CHUNK);
		rc = stream_read(&r->s, d->buf.p + d->buf.len, CHUNK, &got, err);
		if (rc)
			return rc;
		d->buf.len += got;
		r->ended = !got;
		if (first) {
			from += bom(d->buf.p + from, got);
			scan = from;
		}
	}
	stave_buf_put(&r->carry, d->buf.p + from, d->buf.len - from);
	d->buf.len = from;
	if (r->ended && !r->carry.len)
		source_end(r);
	return 0;
}

/* Stdin has no name to tell JSONL by: its first character does. */
static int sniff(struct stave_reader *r, struct stave_source *f, struct stave_err *err)
{
	char first[64];
	size_t got = 0;
	int rc = stream_read(&r->s, first, sizeof first, &got, err);
	if (rc)
		return rc;
	f->jsonl = got && first[0] == '{';
	stream_close(&r->s);
	return stream_open(&r->s, f->file, err);
}

int stave_reader_next(struct stave_reader *r, struct stave_documents *d, size_t batch_bytes, struct stave_err *err)
{
	for (int i = 0; i < d->n_maps; i++)
		stave_map_close(&d->maps[i]);
	d->n = 0;
	d->n_maps = 0;
	d->buf.len = 0;
	d->first = r->documents;
	size_t mapped = 0;
	while (r->source < r->sources->n && d->n < STAVE_SLOTS && d->buf.len + mapped < batch_bytes) {
		struct stave_source *f = &r->sources->v[r->source];
		if (!r->open) {
			int rc = stream_open(&r->s, f->file, err);
			if (rc)
				return rc;
			r->open = true;
			r->ended = false;
			r->line = 1;
			if (!strcmp(f->path, "-") && (rc = sniff(r, f, err)))
				return rc;
		}
		size_t before = d->n;
		int rc = f->jsonl || r->split_on != STAVE_SPLIT_FILE ? read_lines(r, d, batch_bytes, err) : read_whole(r, d, err);
		if (rc)
			return rc;
		/* mapped documents, and all of the buffer: separators and blank lines fill a batch too */
		for (size_t i = before; i < d->n; i++)
			mapped += d->v[i].text ? d->v[i].n : 0;
		if (!d->n) /* nothing but blank lines: an empty batch would mean the end */
			d->buf.len = 0;
	}
	settle(d);
	r->documents += (int64_t)d->n;
	d->bytes_read = r->bytes_done + (r->open ? r->s.bytes : 0);
	return 0;
}
