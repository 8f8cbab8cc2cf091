/* Loading: a Hugging Face directory becomes a decoder, samplers and buffers in one planned arena. The plan is logged before
 * memory is taken, and what does not fit is refused with the context that would. F32 weights stay in their own arena; for
 * BF16 they pass through it and it is given back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/sys.h"
#include "infer/engine.h"
#include "kernel/kernel.h"

#define CONTEXT_DEFAULT 4096

static int limits(struct stave_engine_config *c, const struct stave_shape *s, struct stave_err *err)
{
	c->slots = c->slots ? c->slots : 8;
	c->chunk = c->chunk ? c->chunk : 128;
	c->queue = c->queue ? c->queue : 64;
	c->context = c->context ? c->context : s->T_max < CONTEXT_DEFAULT ? s->T_max : CONTEXT_DEFAULT;
	if (c->slots < 1 || c->slots > 1024 || c->chunk < 1 || c->chunk > 65536 || c->queue < 1 || c->queue > 1 << 20)
		return stave_err_set(err, STAVE_EUSAGE, "slots must be 1..1024, chunk 1..65536, queue 1..1048576; not %d, %d, %d", c->slots, c->chunk, c->queue);
	if (c->context < 1 || c->context > s->T_max)
		return stave_err_set(err, STAVE_EUSAGE, "context %d: the model was made for 1..%d positions", c->context, s->T_max);
	c->chunk = c->chunk < c->context ? c->chunk : c->context;
	return 0;
}

/* What config.json says the weights are stored as. */
static bool stored_as_bf16(const char *dir)
{
	char path[STAVE_PATH];
	json_t *j;
	if (stave_path(path, dir, "config.json", NULL) || stave_json_load(&j, path, 16 << 20, NULL))
		return false;
	const char *t = stave_json_str(j, "dtype", stave_json_str(j, "torch_dtype", ""));
	bool yes = !strcmp(t, "bfloat16");
	json_decref(j);
	return yes;
}

static int choose_dtype(const struct stave_engine_config *c, enum stave_dtype *out, struct stave_err *err)
{
	const char *t = c->dtype ? c->dtype : "auto";
	if (!strcmp(t, "auto"))
		*out = stave_has_bf16() && stored_as_bf16(c->model) ? STAVE_BF16 : STAVE_F32;
	else if (!strcmp(t, "f32"))
		*out = STAVE_F32;
	else if (!strcmp(t, "bf16"))
		*out = STAVE_BF16;
	else
		return stave_err_set(err, STAVE_EUSAGE, "dtype '%s': wanted auto, f32 or bf16", t);
	return 0;
}

/* What the engine itself holds beside the decoder; planned and taken by the same calls. */
static void take(struct loaded *m, const struct stave_engine_config *c, struct stave_arena *a)
{
	struct sampler planned;
	m->logits = stave_arena_take(a, (size_t)c->slots * (size_t)m->layout.shape.V * sizeof *m->logits);
	for (int i = 0; i < c->slots; i++)
		sampler_take(a->base ? &m->samplers[i] : &planned, m->V, a);
}

static int plan(struct loaded *m, const struct stave_decoder_config *d, const struct stave_engine_config *c, struct stave_err *err)
{
	struct stave_decoder_memory mem;
	struct stave_arena a = stave_arena_plan("inference");
	int rc = stave_decoder_plan(d, &mem, err);
	if (rc)
		return rc;
	take(m, c, &a);
	struct stave_engine_info *info = &m->info;
	size_t params = (size_t)m->layout.n * sizeof(float), stays = d->dtype == STAVE_F32 ? params : 0;
	info->weights_bytes = mem.weights + stays;
	info->cache_bytes = mem.cache;
	info->workspace_bytes = mem.workspace + a.used;
	info->planned_bytes = info->weights_bytes + info->cache_bytes + info->workspace_bytes;
	char w[32], k[32], s[32], t[32], avail[32];
	stave_log(STAVE_LOG_INFO, "memory plan: weights %s (%s), cache %s (%d x %d positions), workspace %s: %s", stave_bytes_text(w, (double)info->weights_bytes),
	          stave_dtype_name(d->dtype), stave_bytes_text(k, (double)mem.cache), d->slots, d->context, stave_bytes_text(s, (double)info->workspace_bytes),
	          stave_bytes_text(t, (double)info->planned_bytes));
	size_t need = info->planned_bytes - stays + params, have = stave_memory_available_bytes(), fixed = need - mem.cache;
	if (need <= have)
		return 0;
	int fits = have > fixed ? (int)((double)(have - fixed) / (double)mem.cache * d->context) : 0;
	return stave_err_set(err, STAVE_ENOFIT, "the model needs %s and the machine has %s available; %s%d", stave_bytes_text(t, (double)need),
	                     stave_bytes_text(avail, (double)have), fits > 0 ? "it would fit with --context " : "without any cache it would still not fit: context ",
	                     fits);
}

static int load_weights(struct loaded *m, const struct stave_decoder_config *d, const struct stave_engine_config *c, struct stave_err *err)
{
	size_t bytes = (size_t)m->layout.n * sizeof(float), stays = d->dtype == STAVE_F32 ? bytes : 0;
	int rc = stave_arena_open(&m->params, "parameters", bytes, err);
	if (rc)
		return rc;
	float *p = stave_arena_take(&m->params, bytes);
	if ((rc = stave_weights_load(&m->layout, p, c->model, err)))
		return rc;
	snprintf(m->info.model_hash, sizeof m->info.model_hash, "%016llx", (unsigned long long)stave_hash64(p, bytes, 0));
	if ((rc = stave_arena_open(&m->arena, "inference", m->info.planned_bytes - stays, err)) ||
	    (rc = stave_decoder_open(&m->decoder, d, &m->layout, p, &m->arena, err)))
		return rc;
	if (!stays)
		stave_arena_close(&m->params);
	take(m, c, &m->arena);
	m->info.taken_bytes = m->arena.used + stays;
	return 0;
}

/* One token through everything, so that the first request does not pay for first uses. */
static void warm_up(struct loaded *m)
{
	struct stave_decode s = {.n = 1, .ids = (int32_t[]){0}};
	stave_decoder_run(m->decoder, &s, 1);
	stave_decoder_logits(m->decoder, &s.hidden, 1, m->logits);
}

int load_model(struct loaded *m, const struct stave_engine_config *config, struct stave_err *err)
{
	struct stave_engine_config c = *config;
	struct stave_shape shape;
	double start = stave_now_s();
	int rc;
	*m = (struct loaded){0};
	if ((rc = stave_shape_load(&shape, c.model, err)) || (rc = limits(&c, &shape, err)) || (rc = stave_layout_open(&m->layout, &shape, err)) ||
	    (rc = stave_tokenizer_load(&m->tokenizer, c.model, err)))
		goto fail;
	struct stave_decoder_config d = {.shape = shape, .slots = c.slots, .context = c.context, .rows = c.slots + c.chunk};
	int vocab = stave_tokenizer_vocab(m->tokenizer);
	m->V = vocab < shape.V ? vocab : shape.V;
	m->samplers = calloc((size_t)c.slots, sizeof *m->samplers);
	if (!m->samplers) {
		rc = stave_err_set(err, STAVE_ENOMEM, "out of memory for %d slots", c.slots);
		goto fail;
	}
	if ((rc = choose_dtype(&c, &d.dtype, err)) || (rc = plan(m, &d, &c, err)) || (rc = load_weights(m, &d, &c, err)))
		goto fail;
	warm_up(m);
	struct stave_engine_info *info = &m->info;
	info->shape = shape;
	info->dtype = d.dtype;
	info->slots = c.slots, info->context = c.context, info->chunk = c.chunk, info->queue = c.queue;
	info->tokenizer = m->tokenizer;
	info->load_s = stave_now_s() - start;
	return 0;
fail:
	unload_model(m);
	return rc;
}

void unload_model(struct loaded *m)
{
	stave_decoder_close(m->decoder);
	free(m->samplers);
	if (m->arena.base)
		stave_arena_close(&m->arena);
	if (m->params.base)
		stave_arena_close(&m->params);
	if (m->tokenizer)
		stave_tokenizer_free(m->tokenizer);
	if (m->layout.params)
		stave_layout_close(&m->layout);
	*m = (struct loaded){0};
}
