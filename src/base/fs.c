/* Files. A write either appears whole under its name or not at all: temporary file, fsync, rename, fsync of the
 * directory. Paths are bounded; trees are removed without following links. */
#include "base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

void stave_buf_reserve(struct stave_buf *b, size_t more)
{
	if (b->len + more + 1 <= b->cap)
		return;
	size_t cap = b->cap ? b->cap : 256;
	while (cap < b->len + more + 1)
		cap *= 2;
	char *p = realloc(b->p, cap);
	if (!p) {
		fprintf(stderr, "stave: out of memory for a buffer of %zu bytes\n", cap);
		abort();
	}
	b->p = p;
	b->cap = cap;
}

void stave_buf_put(struct stave_buf *b, const void *p, size_t n)
{
	stave_buf_reserve(b, n);
	if (n)
		memcpy(b->p + b->len, p, n);
	b->len += n;
	b->p[b->len] = 0;
}

void stave_buf_printf(struct stave_buf *b, const char *fmt, ...)
{
	va_list ap, again;
	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n > 0) {
		stave_buf_reserve(b, (size_t)n);
		vsnprintf(b->p + b->len, (size_t)n + 1, fmt, again);
		b->len += (size_t)n;
	}
	va_end(again);
}

void stave_buf_free(struct stave_buf *b)
{
	free(b->p);
	*b = (struct stave_buf){0};
}

int stave_map_open(struct stave_map *m, const char *path, struct stave_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return stave_err_errno(err, "opening %s", path);
	struct stat st;
	int rc = 0;
	if (fstat(fd, &st) < 0) {
		rc = stave_err_errno(err, "reading the size of %s", path);
	} else if (!S_ISREG(st.st_mode)) {
		rc = stave_err_set(err, STAVE_EIO, "%s is not a regular file", path);
	} else if (st.st_size == 0) {
		*m = (struct stave_map){.p = "", .size = 0};
	} else {
		void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
		if (p == MAP_FAILED)
			rc = stave_err_errno(err, "mapping %s", path);
		else
			*m = (struct stave_map){.p = p, .size = (size_t)st.st_size};
	}
	close(fd);
	return rc;
}

void stave_map_close(struct stave_map *m)
{
	if (m->size)
		munmap((void *)(uintptr_t)m->p, m->size);
	*m = (struct stave_map){0};
}

void stave_map_gather(char *to, const void *const *from, int n, size_t each)
{
	struct iovec out = {to, (size_t)n * each}, in[STAVE_GATHER];
	for (int i = 0; i < n; i++)
		in[i] = (struct iovec){(void *)(uintptr_t)from[i], each};
	if (process_vm_readv(getpid(), &out, 1, in, (unsigned long)n, 0) == (ssize_t)out.iov_len)
		return;
	for (int i = 0; i < n; i++) /* some sandboxes forbid the call */
		memcpy(to + (size_t)i * each, from[i], each);
}

int stave_file_read(struct stave_buf *b, const char *path, size_t max, struct stave_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return stave_err_errno(err, "opening %s", path);
	b->len = 0;
	stave_buf_reserve(b, 0);
	int rc = 0;
	for (;;) {
		stave_buf_reserve(b, 65536);
		ssize_t n = read(fd, b->p + b->len, b->cap - b->len - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			rc = stave_err_errno(err, "reading %s", path);
		if (n <= 0)
			break;
		b->len += (size_t)n;
		if (b->len > max) {
			rc = stave_err_set(err, STAVE_ECORRUPT, "%s is larger than the %zu bytes such a file may have", path, max);
			break;
		}
	}
	b->p[b->len] = 0;
	close(fd);
	return rc;
}

static int write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t k = write(fd, p, n);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -1;
		p += k;
		n -= (size_t)k;
	}
	return 0;
}

int stave_fsync_dir(const char *path, struct stave_err *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return stave_err_errno(err, "opening directory %s", path);
	int rc = fsync(fd) ? stave_err_errno(err, "syncing directory %s", path) : 0;
	close(fd);
	return rc;
}

static int fsync_parent(const char *path, struct stave_err *err)
{
	char dir[STAVE_PATH];
	const char *slash = strrchr(path, '/');
	if (!slash)
		return stave_fsync_dir(".", err);
	snprintf(dir, sizeof dir, "%.*s", slash == path ? 1 : (int)(slash - path), path);
	return stave_fsync_dir(dir, err);
}

int stave_tmp_open(int *fd, char tmp[STAVE_TMP], const char *path, struct stave_err *err)
{
	struct stat st;
	if (strlen(path) >= STAVE_PATH)
		return stave_err_set(err, STAVE_EUSAGE, "path too long: %s", path);
	if (!stat(path, &st) && !S_ISREG(st.st_mode))
		return stave_err_set(err, STAVE_EUSAGE, "%s is %s; the name of a file is wanted", path, S_ISDIR(st.st_mode) ? "a directory" : "a device or a pipe");
	snprintf(tmp, STAVE_TMP, "%s.tmp", path);
	*fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	return *fd < 0 ? stave_err_errno(err, "creating %s", tmp) : 0;
}

int stave_file_write(const char *path, const void *p, size_t n, struct stave_err *err)
{
	char tmp[STAVE_TMP];
	int fd, open_rc = stave_tmp_open(&fd, tmp, path, err);
	if (open_rc)
		return open_rc;
	int rc = write_all(fd, p, n) || fsync(fd) ? stave_err_errno(err, "writing %s (%zu bytes)", path, n) : 0;
	if (close(fd) && !rc)
		rc = stave_err_errno(err, "closing %s", path);
	if (!rc && rename(tmp, path))
		rc = stave_err_errno(err, "renaming %s to %s", tmp, path);
	if (rc) {
		unlink(tmp);
		return rc;
	}
	return fsync_parent(path, err);
}

int stave_mkdirs(const char *path, struct stave_err *err)
{
	char p[STAVE_PATH];
	if ((size_t)snprintf(p, sizeof p, "%s", path) >= sizeof p)
		return stave_err_set(err, STAVE_EUSAGE, "path too long: %s", path);
	for (char *c = p + 1; *p; c++) {
		char was = *c;
		if (was && was != '/')
			continue;
		*c = 0;
		if (mkdir(p, 0755) && errno != EEXIST)
			return stave_err_errno(err, "creating directory %s", p);
		*c = was;
		if (!was)
			break;
	}
	if (!stave_is_dir(path))
		return stave_err_set(err, STAVE_EIO, "%s exists and is not a directory", path);
	return 0;
}

int stave_remove_tree(const char *path, struct stave_err *err)
{
	struct stat st;
	if (lstat(path, &st))
		return errno == ENOENT ? 0 : stave_err_errno(err, "looking at %s", path);
	if (!S_ISDIR(st.st_mode))
		return unlink(path) ? stave_err_errno(err, "removing %s", path) : 0;
	DIR *d = opendir(path);
	if (!d)
		return stave_err_errno(err, "opening directory %s", path);
	int rc = 0;
	for (struct dirent *e; !rc && (e = readdir(d));) {
		char child[STAVE_PATH];
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		rc = stave_path(child, path, e->d_name, err);
		if (!rc)
			rc = stave_remove_tree(child, err);
	}
	closedir(d);
	if (!rc && rmdir(path))
		rc = stave_err_errno(err, "removing directory %s", path);
	return rc;
}

bool stave_exists(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0;
}

bool stave_is_dir(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int stave_path(char out[STAVE_PATH], const char *dir, const char *name, struct stave_err *err)
{
	if (snprintf(out, STAVE_PATH, "%s/%s", dir, name) >= STAVE_PATH)
		return stave_err_set(err, STAVE_EUSAGE, "path too long: %s/%s", dir, name);
	return 0;
}
