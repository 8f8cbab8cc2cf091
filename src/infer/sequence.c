/* A sequence from the request to its end: what a stranger asked is checked, and copied, here; after that nothing of the
 * request is doubted again. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/sys.h"
#include "infer/engine.h"

static int check_ids(const int32_t *ids, int n, int V, const char *what, struct stave_err *err)
{
	for (int i = 0; i < n; i++)
		if (ids[i] < 0 || ids[i] >= V)
			return stave_err_set(err, STAVE_EUSAGE, "%s token %d; the vocabulary has 0..%d", what, ids[i], V - 1);
	return 0;
}

static int check_embed(const struct loaded *m, const struct stave_request *r, struct stave_err *err)
{
	if ((int)r->embed < STAVE_EMBED_NONE || r->embed > STAVE_EMBED_CLS)
		return stave_err_set(err, STAVE_EUSAGE, "embed must be none, auto, mean, last or cls, not number %d", (int)r->embed);
	if (r->embed == STAVE_EMBED_NONE && m->info.shape.encoder)
		return stave_err_set(err, STAVE_EUSAGE, "this model is an encoder: it makes embeddings and generates no text");
	if (r->embed != STAVE_EMBED_NONE && (r->grammar || r->prompt_logprobs))
		return stave_err_set(err, STAVE_EUSAGE, "an embedding has neither a grammar nor log-probabilities");
	return 0;
}

static int check(const struct loaded *m, const struct stave_request *r, struct stave_err *err)
{
	int context = m->info.context, rc;
	if (r->n_ids < 1)
		return stave_err_set(err, STAVE_EUSAGE, "the prompt is empty");
	if (r->n_ids > context)
		return stave_err_set(err, STAVE_EUSAGE, "the prompt has %d tokens; the context holds %d", r->n_ids, context);
	if (r->n_stop < 0 || r->n_stop_ids < 0)
		return stave_err_set(err, STAVE_EUSAGE, "%d stop texts and %d stop tokens", r->n_stop, r->n_stop_ids);
	if (r->logprobs > STAVE_TOP_MAX)
		return stave_err_set(err, STAVE_EUSAGE, "logprobs must be at most %d, not %d", STAVE_TOP_MAX, r->logprobs);
	if (r->min_tokens < 0 || (r->max_tokens >= 0 && r->min_tokens > r->max_tokens))
		return stave_err_set(err, STAVE_EUSAGE, "min_tokens must be between 0 and max_tokens, not %d", r->min_tokens);
	for (int i = 0; i < r->n_stop; i++)
		if (!r->stop[i] || !*r->stop[i])
			return stave_err_set(err, STAVE_EUSAGE, "a stop text is empty");
	if ((rc = check_ids(r->ids, r->n_ids, m->info.shape.V, "the prompt holds", err)) ||
	    (rc = check_ids(r->stop_ids, r->n_stop_ids, m->info.shape.V, "stop_ids names", err)) || (rc = check_embed(m, r, err)))
		return rc;
	return stave_sampling_check(&r->sampling, m->V, err);
}

/* The adapter's index in key and handle; the salt by SHA-256, so that nobody can find another's. */
static int set_prefix(struct seq *s, const struct loaded *m, const struct stave_request *r, struct stave_err *err)
{
	int i = -1;
	if (r->adapter) {
		for (i = 0; i < m->n_adapters && strcmp(m->adapters[i].name, r->adapter); i++)
			;
		if (i == m->n_adapters)
			return stave_err_set(err, STAVE_EUSAGE, "there is no adapter '%.100s'", r->adapter);
		s->adapter = m->adapters[i].a;
	}
	s->prefix.adapter = i;
	if (r->cache_salt && *r->cache_salt) {
		char hex[65];
		stave_sha256(r->cache_salt, strlen(r->cache_salt), hex);
		for (int k = 0; k < 2; k++) {
			char half[17] = {0};
			memcpy(half, hex + 16 * k, 16);
			s->prefix.salt[k] = strtoull(half, NULL, 16);
		}
	}
	return 0;
}

static void *copy(const void *p, size_t n) /* NULL for nothing; out of memory is NULL too, with n > 0 */
{
	void *q = n ? malloc(n) : NULL;
	return q ? memcpy(q, p, n) : NULL;
}

static bool copy_all(struct seq *s, const struct loaded *m, const struct stave_request *r)
{
	size_t n_stop_ids = (size_t)r->n_stop_ids, n_bias = (size_t)r->sampling.n_bias;
	s->r.stop_ids = copy(r->stop_ids, n_stop_ids * sizeof *r->stop_ids);
	s->r.sampling.bias_ids = copy(r->sampling.bias_ids, n_bias * sizeof *r->sampling.bias_ids);
	s->r.sampling.bias = copy(r->sampling.bias, n_bias * sizeof *r->sampling.bias);
	s->tokens = calloc((size_t)r->n_ids + (size_t)s->limit + STAVE_SPECULATE_MAX, sizeof *s->tokens);
	s->embedding = r->embed == STAVE_EMBED_NONE ? NULL : calloc((size_t)m->info.shape.C, sizeof *s->embedding);
	s->stream.stop = calloc((size_t)r->n_stop + 1, sizeof *s->stream.stop);
	if (!s->tokens || !s->stream.stop || (n_stop_ids && !s->r.stop_ids) || (n_bias && (!s->r.sampling.bias_ids || !s->r.sampling.bias)) ||
	    (r->embed != STAVE_EMBED_NONE && !s->embedding))
		return false;
	memcpy(s->tokens, r->ids, (size_t)r->n_ids * sizeof *s->tokens);
	s->r.ids = s->tokens;
	for (int i = 0; i < r->n_stop; i++, s->stream.n_stop++)
		if (!(s->stream.stop[i] = strdup(r->stop[i])))
			return false;
	return true;
}

int seq_open(struct seq **out, const struct loaded *m, const struct stave_request *r, struct stave_err *err)
{
	int rc = check(m, r, err);
	if (rc)
		return rc;
	struct seq *s = calloc(1, sizeof *s);
	if (!s)
		return stave_err_set(err, STAVE_ENOMEM, "out of memory for the request");
	int room = m->info.context - r->n_ids + 1; /* the last token drawn needs no place in the cache */
	s->r = *r;
	s->r.ids = s->r.stop_ids = s->r.sampling.bias_ids = NULL;
	s->r.sampling.bias = NULL;
	s->r.stop = NULL;
	if (r->embed == STAVE_EMBED_AUTO)
		s->r.embed = m->embed;
	s->limit = r->embed != STAVE_EMBED_NONE ? 0 : r->max_tokens >= 0 && r->max_tokens < room ? r->max_tokens : room;
	s->n = r->n_ids;
	s->slot = -1;
	s->spec = (m->speculate + 1) / 2;
	s->draftable = true;
	for (int i = 0; i < r->n_ids; i++)
		s->draftable &= r->ids[i] < m->draft_V;
	if (!copy_all(s, m, r))
		rc = stave_err_set(err, STAVE_ENOMEM, "out of memory for the request");
	else if (!(rc = set_prefix(s, m, r, err)) && r->grammar)
		rc = stave_matcher_open(&s->matcher, r->grammar, err);
	if (rc)
		seq_free(s);
	else
		*out = s;
	return rc;
}

void seq_free(struct seq *s)
{
	if (!s)
		return;
	stream_free(&s->stream);
	stave_matcher_close(s->matcher);
	free((void *)s->r.stop_ids);
	free((void *)s->r.sampling.bias_ids);
	free((void *)s->r.sampling.bias);
	free(s->tokens);
	free(s->embedding);
	free(s);
}

/* ---- what the penalties look back on ---- */

void seq_note_last(struct seq *s, struct sampler *p)
{
	int left = s->n - 1 - s->r.sampling.penalty_last_n;
	sampler_note(p, s->tokens[s->n - 1], s->made > 0);
	if (s->r.sampling.penalty_last_n > 0 && left >= 0)
		sampler_forget(p, s->tokens[left], left >= s->r.n_ids);
}

void seq_note_all(struct seq *s, struct sampler *p)
{
	int last = s->r.sampling.penalty_last_n, from = last > 0 && last < s->n ? s->n - last : 0;
	sampler_reset(p);
	for (int i = from; i < s->n; i++)
		sampler_note(p, s->tokens[i], i >= s->r.n_ids);
}
