/* The one container: weights, optimizer state and token shards are safetensors files. Lives in base/ because data/ and
 * model/ both need it. Reading maps the file and validates everything before any tensor is handed out: header size, JSON,
 * dtypes, shape products, contiguity without holes or overlap, last byte = file size. Writing is streaming. */
#ifndef STAVE_BASE_SAFETENSORS_H
#define STAVE_BASE_SAFETENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/err.h"
#include "base/fs.h"

#define STAVE_DIMS 8
struct stave_st_tensor {
	const char *name;
	enum stave_dtype dtype;
	int n_dims;
	int64_t shape[STAVE_DIMS];
	size_t begin, end;  /* byte offsets from the start of the data */
	const void *data;   /* into the mapping (reading only) */
};
struct stave_st {
	struct stave_map map;
	struct stave_st_tensor *t; /* in file order of data */
	int n;
	char **meta;               /* key, value, key, value … of __metadata__ */
	int n_meta;                /* pairs */
	void *own;
};
int stave_st_open(struct stave_st *st, const char *path, struct stave_err *err);
void stave_st_close(struct stave_st *st);
const struct stave_st_tensor *stave_st_find(const struct stave_st *st, const char *name); /* NULL: absent */
const char *stave_st_meta(const struct stave_st *st, const char *key);                    /* NULL: absent */
int64_t stave_st_elements(const struct stave_st_tensor *t);

/* Writing: describe all tensors, then write their bytes in that order in pieces of any size. The file appears under
 * `path` only at commit (path.tmp, fsync, rename). Fill name, dtype, n_dims, shape; offsets are computed in array order. */
struct stave_st_writer {
	int fd;
	char path[STAVE_PATH], tmp[STAVE_PATH + 8];
	uint64_t expected, written;
};
int stave_st_create(struct stave_st_writer *w, const char *path, struct stave_st_tensor *t, int n, const char *const *meta_pairs, int n_meta, struct stave_err *err);
int stave_st_write(struct stave_st_writer *w, const void *p, size_t n, struct stave_err *err);
int stave_st_commit(struct stave_st_writer *w, struct stave_err *err);
void stave_st_abort(struct stave_st_writer *w); /* removes the temporary file; safe after commit */

#endif
