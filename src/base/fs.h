/* Files: mapped reads, growable buffers, writes that are whole or absent. */
#ifndef STAVE_BASE_FS_H
#define STAVE_BASE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define STAVE_PATH 1024 /* bytes of a path, its end included */

/* A growable byte buffer, for text outside hot loops. Zero-initialise; free with stave_buf_free. Always NUL-terminated
 * after a put. Out of memory aborts with a message: these buffers are bounded by their callers. */
struct stave_buf {
	char *p;
	size_t len, cap;
};
void stave_buf_reserve(struct stave_buf *b, size_t more);
void stave_buf_put(struct stave_buf *b, const void *p, size_t n);
__attribute__((format(printf, 2, 3))) void stave_buf_printf(struct stave_buf *b, const char *fmt, ...);
void stave_buf_free(struct stave_buf *b);

/* A read-only mapping. size 0 gives p == "" unmapped. */
struct stave_map {
	const char *p;
	size_t size;
};
int stave_map_open(struct stave_map *m, const char *path, struct stave_err *err);
void stave_map_close(struct stave_map *m);
/* n <= STAVE_GATHER pieces of `each` bytes, anywhere in mappings, one after the other to `to`. For what is read through once: the kernel
 * copies from where it keeps the file, and our own pages of the mapping, which on a virtual machine cost microseconds apiece at
 * their first use, are not used. */
#define STAVE_GATHER 16
void stave_map_gather(char *to, const void *const *from, int n, size_t each);

/* A whole file of at most `max` bytes, NUL-terminated, into b (replaced). Works on pipes. */
int stave_file_read(struct stave_buf *b, const char *path, size_t max, struct stave_err *err);
/* Write path.tmp, fsync, rename over path, fsync the directory: path is the old or the new content, never a mix. */
int stave_file_write(const char *path, const void *p, size_t n, struct stave_err *err);
/* Begins a file that is whole or absent: opens path.tmp for writing and sets tmp to its name, for a later rename over path. What is at
 * path must be a regular file or nothing: a rename would take the place of a device or a pipe. */
#define STAVE_TMP (STAVE_PATH + 8)
int stave_tmp_open(int *fd, char tmp[STAVE_TMP], const char *path, struct stave_err *err);
/* mkdir -p. */
int stave_mkdirs(const char *path, struct stave_err *err);
/* rm -r of a directory or file; 0 when absent. Does not follow symbolic links. */
int stave_remove_tree(const char *path, struct stave_err *err);
int stave_fsync_dir(const char *path, struct stave_err *err);
bool stave_exists(const char *path);
bool stave_is_dir(const char *path);
/* dir + "/" + name into a static-size buffer; STAVE_EUSAGE when it does not fit. */
int stave_path(char out[STAVE_PATH], const char *dir, const char *name, struct stave_err *err);

#endif
