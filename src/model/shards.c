/* Which files of a Hugging Face directory hold its weights: model.safetensors, or the shards that model.safetensors.index.json names. The index
 * only says which files; what is in them is read from them. Its file names are hostile: plain names of files in the same directory only,
 * and no more of them than any model has. */
#include "model/shards.h"

#include <string.h>

#include "base/fs.h"
#include "base/json.h"

#define SHARDS_MAX 4096
#define INDEX_BYTES_MAX ((size_t)64 << 20)

static bool plain_name(const char *f) { return f && *f && !strchr(f, '/') && strcmp(f, "..") && strcmp(f, "."); }

/* The names as keys of *names, each once, in the order of the index. */
static int read_index(json_t *names, const char *index, struct stave_err *err)
{
	json_t *j = NULL, *file;
	const char *tensor;
	int rc = stave_json_load(&j, index, INDEX_BYTES_MAX, err);
	json_t *map = json_object_get(j, "weight_map");
	if (!rc && !json_is_object(map))
		rc = stave_err_set(err, STAVE_ECORRUPT, "%s has no weight_map", index);
	json_object_foreach(map, tensor, file) {
		const char *f = json_string_value(file);
		if (rc)
			break;
		if (!plain_name(f))
			rc = stave_err_set(err, STAVE_ECORRUPT, "%s: a shard's name must be a plain file name in the same directory", index);
		else if (json_object_size(names) == SHARDS_MAX && !json_object_get(names, f))
			rc = stave_err_set(err, STAVE_ECORRUPT, "%s names more than %d files", index, SHARDS_MAX);
		else if (json_object_set_new(names, f, json_true()))
			rc = stave_err_set(err, STAVE_ENOMEM, "out of memory reading %s", index);
	}
	json_decref(j);
	return rc;
}

int shards_each(const char *dir, int (*each)(void *ctx, const char *path, struct stave_err *err), void *ctx, struct stave_err *err)
{
	char path[STAVE_PATH], index[STAVE_PATH];
	int rc;
	if ((rc = stave_path(path, dir, "model.safetensors", err)) || (rc = stave_path(index, dir, "model.safetensors.index.json", err)))
		return rc;
	if (stave_exists(path) || !stave_exists(index))
		return each(ctx, path, err);
	json_t *names = json_object(), *yes;
	const char *name;
	rc = names ? read_index(names, index, err) : stave_err_set(err, STAVE_ENOMEM, "out of memory reading %s", index);
	json_object_foreach(names, name, yes)
		if (!rc && !(rc = stave_path(path, dir, name, err)))
			rc = each(ctx, path, err);
	json_decref(names);
	return rc;
}
