/* Private to infer/: choosing a token from a row of logits. */
#ifndef STAVE_INFER_SAMPLE_H
#define STAVE_INFER_SAMPLE_H

#include "base/arena.h"
#include "infer/infer.h"

/* What a sampler remembers of a sequence, and its scratch; one per slot, (V) each. */
struct sampler {
	int V;
	uint32_t *seen;    /* occurrences in prompt and answer, as far back as the penalties look */
	uint32_t *made;    /* occurrences in the answer, likewise */
	float *logit;      /* scratch: adjusted logits */
	float *score;      /* scratch: another order of the candidates */
	int32_t *order;    /* scratch: candidates */
};
/* What may not be drawn now, whatever the controls say. */
struct sampler_bans {
	const uint32_t *allowed; /* bits of the ids that may come, or NULL: all */
	const int32_t *ids[2];   /* (n[0]), (n[1]) ids that may not, each 0..V-1 */
	int n[2];
};
/* Takes the memory of `s` (pointers NULL while planning). */
void sampler_take(struct sampler *s, int V, struct stave_arena *a);
void sampler_reset(struct sampler *s);
/* A token has entered the sequence, or has left what the penalties look back on. */
void sampler_note(struct sampler *s, int32_t id, bool generated);
void sampler_forget(struct sampler *s, int32_t id, bool generated);
/* Token `index` of the answer; -1: all are banned. logits (V) are left as they are. NaN logits are never chosen. bans may be NULL. */
int32_t sampler_draw(struct sampler *s, const struct stave_sampling *p, const struct sampler_bans *bans, const float *logits, uint64_t index);
/* log softmax of `id` and of the n_top likeliest. */
void logprob_of(const float *logits, int V, int32_t id, int n_top, struct stave_logprob *out);

#endif
