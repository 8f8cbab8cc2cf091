/* Private to infer/: choosing a token from a row of logits. */
#ifndef STAVE_INFER_SAMPLE_H
#define STAVE_INFER_SAMPLE_H

#include "base/arena.h"
#include "infer/infer.h"

/* What a sampler remembers of a sequence, and its scratch; one per slot, (V) each. */
struct sampler {
	int V;
	uint16_t *seen;    /* occurrences in prompt and answer, saturating */
	uint16_t *made;    /* occurrences in the answer */
	float *logit;      /* scratch: adjusted logits */
	int32_t *order;    /* scratch: candidates */
};
/* Takes the memory of `s` (pointers NULL while planning). */
void sampler_take(struct sampler *s, int V, struct stave_arena *a);
void sampler_reset(struct sampler *s);
/* A token has entered the sequence. */
void sampler_note(struct sampler *s, int32_t id, bool generated);
/* Token `index` of the answer. logits (V) are left as they are. NaN logits are never chosen. */
int32_t sampler_draw(struct sampler *s, const struct stave_sampling *p, const float *logits, uint64_t index);
/* log softmax of `id` and of the n_top likeliest. */
void logprob_of(const float *logits, int V, int32_t id, int n_top, struct stave_logprob *out);

#endif
