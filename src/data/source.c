/* The list of input files. Order is part of the contract: the first of two equal documents is the one kept, and shards
 * must be the same bytes on every machine, so a directory is walked in byte order of its names. Files of every name are
 * taken, because corpora are named in every way; what is not text is dropped later, by content, and counted. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "data/corpus.h"

#define FILES_MAX 20000000
#define DEPTH_MAX 64

const char *stave_verdict_key(enum stave_verdict v)
{
	static const char *const keys[] = {
#define X(e, key, doc) key,
		STAVE_VERDICTS(X)
#undef X
	};
	return keys[v];
}

static bool ends_with(const char *s, size_t n, const char *tail)
{
	size_t t = strlen(tail);
	return n >= t && !memcmp(s + n - t, tail, t);
}

static bool named_jsonl(const char *path)
{
	size_t n = strlen(path);
	if (ends_with(path, n, ".gz"))
		n -= 3;
	else if (ends_with(path, n, ".zst"))
		n -= 4;
	return ends_with(path, n, ".jsonl") || ends_with(path, n, ".ndjson") || ends_with(path, n, ".json");
}

static int add(struct stave_sources *s, const char *path, const char *file, const struct stat *st, struct stave_err *err)
{
	if (s->n >= FILES_MAX)
		return stave_err_set(err, STAVE_EUSAGE, "more than %d input files; pack them into JSONL files", FILES_MAX);
	if (s->n == s->cap) {
		int cap = s->cap ? 2 * s->cap : 64;
		struct stave_source *v = realloc(s->v, (size_t)cap * sizeof *v);
		if (!v)
			return stave_err_set(err, STAVE_ENOMEM, "no memory for a list of %d input files", cap);
		s->v = v;
		s->cap = cap;
	}
	struct stave_source *f = &s->v[s->n];
	*f = (struct stave_source){.path = strdup(path), .file = strdup(file), .jsonl = named_jsonl(path), .size = st->st_size,
	                           .mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec};
	if (!f->path || !f->file) {
		free(f->path);
		free(f->file);
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the name of %s", path);
	}
	s->n++;
	s->bytes += st->st_size;
	return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void free_names(char **names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

/* The names in a directory, hidden ones left out, sorted. */
static int list(const char *dir, char ***out, size_t *n_out, struct stave_err *err)
{
	DIR *d = opendir(dir);
	if (!d)
		return stave_err_errno(err, "opening directory %s", dir);
	char **names = NULL;
	size_t n = 0, cap = 0;
	int rc = 0;
	for (struct dirent *e; !rc && (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		if (n == cap) {
			char **more = realloc(names, (cap = cap ? 2 * cap : 64) * sizeof *names);
			if (!more) {
				rc = stave_err_set(err, STAVE_ENOMEM, "no memory for the names in %s", dir);
				break;
			}
			names = more;
		}
		if (!(names[n] = strdup(e->d_name)))
			rc = stave_err_set(err, STAVE_ENOMEM, "no memory for the names in %s", dir);
		else
			n++;
	}
	closedir(d);
	if (rc) {
		free_names(names, n);
		return rc;
	}
	if (n)
		qsort(names, n, sizeof *names, by_name);
	*out = names;
	*n_out = n;
	return 0;
}

static int walk(struct stave_sources *s, const char *dir, const struct stat *out, int depth, struct stave_err *err)
{
	char **names = NULL, path[STAVE_PATH];
	size_t n = 0;
	if (depth > DEPTH_MAX)
		return stave_err_set(err, STAVE_EUSAGE, "%s: directories nested deeper than %d", dir, DEPTH_MAX);
	int rc = list(dir, &names, &n, err);
	for (size_t i = 0; !rc && i < n; i++) {
		struct stat link, st;
		rc = stave_path(path, dir, names[i], err);
		if (rc)
			break;
		if (lstat(path, &link) || stat(path, &st)) {
			rc = stave_err_errno(err, "looking at %s", path);
		} else if (S_ISDIR(st.st_mode)) {
			bool own = st.st_dev == out->st_dev && st.st_ino == out->st_ino;
			/* a link to a directory may lead round in a circle */
			if (!own && !S_ISLNK(link.st_mode))
				rc = walk(s, path, out, depth + 1, err);
		} else if (S_ISREG(st.st_mode)) {
			rc = add(s, path, path, &st, err);
		}
	}
	free_names(names, n);
	return rc;
}

static int spool_stdin(struct stave_sources *s, const char *out, struct stave_err *err)
{
	static char chunk[1 << 16];
	struct stat st;
	if (*s->spool)
		return stave_err_set(err, STAVE_EUSAGE, "'-' (stdin) is given twice");
	int rc = stave_path(s->spool, out, "stdin.part", err);
	if (rc)
		return rc;
	int fd = open(s->spool, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return stave_err_errno(err, "creating %s", s->spool);
	for (ssize_t got; !rc && (got = read(0, chunk, sizeof chunk)) != 0;) {
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			rc = stave_err_errno(err, "reading stdin");
		for (ssize_t at = 0; !rc && at < got;) {
			ssize_t put = write(fd, chunk + at, (size_t)(got - at));
			if (put < 0 && errno != EINTR)
				rc = stave_err_errno(err, "copying stdin to %s", s->spool);
			at += put > 0 ? put : 0;
		}
	}
	if (!rc && fstat(fd, &st))
		rc = stave_err_errno(err, "looking at %s", s->spool);
	close(fd);
	if (rc)
		return rc;
	st.st_mtim = (struct timespec){0}; /* stdin has no age: only its content counts */
	return add(s, "-", s->spool, &st, err);
}

int stave_sources_open(struct stave_sources *s, const char *const *inputs, int n, const char *out, struct stave_err *err)
{
	struct stat own, st;
	int rc = 0;
	*s = (struct stave_sources){0};
	if (stat(out, &own))
		return stave_err_errno(err, "looking at %s", out);
	for (int i = 0; !rc && i < n; i++) {
		if (!strcmp(inputs[i], "-"))
			rc = spool_stdin(s, out, err);
		else if (stat(inputs[i], &st))
			rc = stave_err_errno(err, "input %s", inputs[i]);
		else if (S_ISDIR(st.st_mode))
			rc = walk(s, inputs[i], &own, 0, err);
		else if (S_ISREG(st.st_mode))
			rc = add(s, inputs[i], inputs[i], &st, err);
		else
			rc = stave_err_set(err, STAVE_EUSAGE, "input %s is neither a file nor a directory; pipe it in and write '-'", inputs[i]);
	}
	if (!rc && !s->n)
		rc = stave_err_set(err, STAVE_EUSAGE, "no input files: name files, directories, or '-' for stdin");
	if (rc)
		stave_sources_close(s);
	return rc;
}

void stave_sources_close(struct stave_sources *s)
{
	for (int i = 0; i < s->n; i++) {
		free(s->v[i].path);
		free(s->v[i].file);
	}
	free(s->v);
	if (*s->spool)
		unlink(s->spool);
	*s = (struct stave_sources){0};
}

void stave_hash_hex(const void *p, size_t n, char hex[33])
{
	XXH128_hash_t h = XXH3_128bits(p, n);
	snprintf(hex, 33, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

int stave_file_hash(const char *path, char hex[33], struct stave_err *err)
{
	struct stave_map m = {0};
	int rc = stave_map_open(&m, path, err);
	if (rc)
		return rc;
	stave_hash_hex(m.p, m.size, hex);
	stave_map_close(&m);
	return 0;
}
