/* A model in GGUF: shape from keys, tensors as they are, and the lists of rotary divisors, which GGUF keeps as tensors. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/quant.h"
#include "model/source.h"

/* A list of rotary divisors; NULL and 0 when the file has none. */
static int read_factors(struct stave_source *s, const char *name, float **out, struct stave_err *err)
{
	const struct stave_gguf_tensor *t = stave_gguf_find(s->gguf, name);
	int n = (s->shape.rope_dims ? s->shape.rope_dims : s->shape.D) / 2;
	if (!t)
		return 0;
	if (t->type != STAVE_Q_F32 || t->n_dims != 1 || t->ne[0] != n)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: %s has %lld values of %s; expected %d of F32", s->path, name, (long long)t->ne[0], stave_qtype_info(t->type).name, n);
	float *f = malloc((size_t)n * sizeof *f);
	if (!f)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for %s", name);
	stave_dequantize(t->type, f, t->data, n);
	for (int i = 0; i < n; i++)
		if (!(f[i] > 0) || !isfinite(f[i])) {
			int rc = stave_err_set(err, STAVE_ECORRUPT, "%s: %s holds %g", s->path, name, (double)f[i]);
			free(f);
			return rc;
		}
	*out = f;
	s->factors.n = n;
	return 0;
}

static int read_all_factors(struct stave_source *s, struct stave_err *err)
{
	struct shape_factors *f = &s->factors;
	int rc;
	if (s->shape.learned_pos)
		return 0;
	if ((rc = read_factors(s, "rope_freqs.weight", &f->near, err)))
		return rc;
	if (f->near) {
		f->far = f->near;
		return 0;
	}
	if ((rc = read_factors(s, "rope_factors_short.weight", &f->near, err)) || (rc = read_factors(s, "rope_factors_long.weight", &f->far, err)))
		return rc;
	if (!f->near != !f->far)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: of rope_factors_short and rope_factors_long one is missing", s->path);
	f->original = s->shape.rope_original ? s->shape.rope_original : s->shape.T_max;
	return 0;
}

static int read_pooling(struct stave_source *s, struct stave_err *err)
{
	char key[64];
	int64_t v = 0;
	snprintf(key, sizeof key, "%s.pooling_type", shape_arch(s->shape.family));
	int rc = stave_gguf_int(s->gguf, key, &v, err);
	if (rc >= 0 && (v < STAVE_POOL_NONE || v > STAVE_POOL_LAST))
		rc = stave_err_set(err, STAVE_ECONFIG, "%s: %s = %lld is not supported", s->path, key, (long long)v);
	s->pooling = (enum stave_pooling)v;
	return rc < 0 ? rc : 0;
}

int source_open_gguf(struct stave_source *s, struct stave_err *err)
{
	struct stave_err inner = {0};
	int rc = stave_gguf_open(&s->gguf, s->path, err);
	if (rc)
		return rc;
	if ((rc = shape_from_gguf(&s->shape, s->gguf, &inner)))
		return stave_err_set(err, rc, "%s: %s", s->path, inner.msg);
	if ((rc = read_all_factors(s, err)) || (rc = read_pooling(s, err)))
		return rc;
	s->t = calloc((size_t)s->gguf->n + 1, sizeof *s->t);
	if (!s->t)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the tensors of %s", s->path);
	for (; s->n < s->gguf->n; s->n++) {
		const struct stave_gguf_tensor *g = &s->gguf->t[s->n];
		s->t[s->n] = (struct source_tensor){.name = g->name, .type = g->type, .n_dims = g->n_dims, .data = g->data, .bytes = g->bytes};
		memcpy(s->t[s->n].ne, g->ne, sizeof g->ne);
	}
	return 0;
}
