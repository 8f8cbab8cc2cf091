/* A model in a Hugging Face directory: config.json, and model.safetensors or its shards (shards.h), whose tensors become one list. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "model/shards.h"
#include "model/source.h"

static int open_file(void *source, const char *path, struct stave_err *err)
{
	struct stave_source *s = source;
	void *p = realloc(s->st, ((size_t)s->n_st + 1) * sizeof *s->st);
	if (!p)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to open %s", path);
	s->st = p;
	int rc = stave_st_open(&s->st[s->n_st], path, err);
	if (!rc)
		s->n_st++;
	return rc;
}

static enum stave_qtype type_of(enum stave_dtype t)
{
	return t == STAVE_F32 ? STAVE_Q_F32 : t == STAVE_F16 ? STAVE_Q_F16 : t == STAVE_BF16 ? STAVE_Q_BF16 : STAVE_QTYPE_COUNT;
}

static int list(struct stave_source *s, struct stave_err *err)
{
	size_t n = 0;
	for (int i = 0; i < s->n_st; i++)
		n += (size_t)s->st[i].n;
	s->t = calloc(n + 1, sizeof *s->t);
	if (!s->t)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the tensors of %s", s->path);
	for (int i = 0; i < s->n_st; i++)
		for (int k = 0; k < s->st[i].n; k++) {
			const struct stave_st_tensor *from = &s->st[i].t[k];
			struct source_tensor *t = &s->t[s->n++];
			*t = (struct source_tensor){.name = from->name, .type = from->n_dims <= 4 ? type_of(from->dtype) : STAVE_QTYPE_COUNT, .n_dims = from->n_dims,
			                            .ne = {1, 1, 1, 1}, .data = from->data, .bytes = from->end - from->begin};
			for (int d = 0; d < from->n_dims && d < 4; d++) /* more than 4: images' filters, never used */
				t->ne[d] = from->shape[from->n_dims - 1 - d];
		}
	return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(((const struct source_tensor *)a)->name, ((const struct source_tensor *)b)->name); }

/* Which of the family's roots the names have: the one under which the embedding is. */
static int find_root(struct stave_source *s, struct stave_err *err)
{
	const struct role_name *embed = role_find(s->shape.family, STAVE_ROLE_EMBED);
	const char *const *root = role_roots(s->shape.family);
	char name[ROLE_NAME_MAX + 8];
	qsort(s->t, (size_t)s->n, sizeof *s->t, by_name);
	for (; *root; root++) {
		role_name(name, embed, *root, 0, 0);
		strcat(name, ".weight");
		if (source_find(s, name)) {
			s->root = *root;
			return 0;
		}
	}
	role_name(name, embed, role_roots(s->shape.family)[0], 0, 0);
	return stave_err_set(err, STAVE_ECORRUPT, "%s: tensor %s.weight is missing", s->path, name);
}

/* sentence-transformers' file beside an embedding model. */
static int read_pooling(struct stave_source *s, struct stave_err *err)
{
	static const char *const keys[] = {NULL, "pooling_mode_mean_tokens", "pooling_mode_cls_token", "pooling_mode_lasttoken"};
	char path[STAVE_PATH];
	json_t *j = NULL;
	int rc = stave_path(path, s->path, "1_Pooling/config.json", err);
	if (rc || !stave_exists(path))
		return rc;
	rc = stave_json_load(&j, path, 1 << 16, err);
	for (int i = 1; !rc && i < 4; i++) {
		bool on = false;
		if (!(rc = stave_json_bool(j, keys[i], false, &on, path, err)) && on)
			s->pooling = (enum stave_pooling)i;
	}
	json_decref(j);
	return rc;
}

int source_open_dir(struct stave_source *s, struct stave_err *err)
{
	int rc;
	if ((rc = shape_from_json(&s->shape, &s->factors, s->path, err)) || (rc = shards_each(s->path, open_file, s, err)) || (rc = list(s, err)) ||
	    (rc = read_pooling(s, err)))
		return rc;
	return find_root(s, err);
}
