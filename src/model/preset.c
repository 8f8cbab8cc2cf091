/* Shapes by name: sizes to train from nothing. */
#include <string.h>

#include "base/config.h"
#include "model/model.h"

/* name, description, family, L, C, H, K, I, T_max */
#define PRESETS(X) \
	X("nano", "gpt2 of 0.8 M plus embeddings, nanoGPT's CPU size: 4 layers, 128 wide", STAVE_GPT2, 4, 128, 4, 4, 512, 256) \
	X("mini", "llama of 3 M plus embeddings, for a minute on a laptop: 4 layers, 256 wide", STAVE_LLAMA, 4, 256, 4, 2, 688, 512) \
	X("small", "llama of 10 M plus embeddings: 6 layers, 384 wide", STAVE_LLAMA, 6, 384, 6, 2, 1024, 1024) \
	X("gpt2-124m", "GPT-2: 12 layers, 768 wide", STAVE_GPT2, 12, 768, 12, 12, 3072, 1024) \
	X("gpt2-350m", "GPT-2 medium: 24 layers, 1024 wide", STAVE_GPT2, 24, 1024, 16, 16, 4096, 1024) \
	X("llama-124m", "llama: 12 layers, 768 wide, 4 key/value heads", STAVE_LLAMA, 12, 768, 12, 4, 2048, 2048) \
	X("llama-350m", "llama: 24 layers, 1024 wide, 4 key/value heads", STAVE_LLAMA, 24, 1024, 16, 4, 2816, 2048) \
	X("llama-1b", "llama: 16 layers, 2048 wide, 8 key/value heads (Llama-3.2-1B's body)", STAVE_LLAMA, 16, 2048, 32, 8, 8192, 8192) \
	X("mistral-124m", "mistral: as llama-124m with a window of 1024", STAVE_MISTRAL, 12, 768, 12, 4, 2048, 4096) \
	X("qwen2-124m", "qwen2: as llama-124m with q/k/v biases, tied", STAVE_QWEN2, 12, 768, 12, 4, 2048, 4096) \
	X("qwen3-124m", "qwen3: as llama-124m with q/k norms, tied", STAVE_QWEN3, 12, 768, 12, 4, 2048, 4096)

static const struct preset {
	const char *name;
	enum stave_family family;
	int L, C, H, K, I, T;
} presets[] = {
#define X(name, doc, ...) {name, __VA_ARGS__},
	PRESETS(X)
#undef X
};
const char *const stave_presets[] = {
#define X(name, doc, ...) name, doc,
	PRESETS(X)
#undef X
	NULL};
#define N_PRESETS (sizeof presets / sizeof *presets)

int stave_preset(struct stave_shape *s, const char *name, int V, struct stave_err *err)
{
	const char *names[N_PRESETS];
	for (size_t i = 0; i < N_PRESETS; i++) {
		const struct preset *p = &presets[i];
		names[i] = p->name;
		if (strcmp(p->name, name))
			continue;
		bool gpt2 = p->family == STAVE_GPT2, qwen = p->family == STAVE_QWEN2 || p->family == STAVE_QWEN3;
		*s = (struct stave_shape){.family = p->family, .L = p->L, .C = p->C, .H = p->H, .K = p->K, .D = p->C / p->H, .I = p->I,
			.V = V ? V : 50257, .T_max = p->T, .act = gpt2 ? STAVE_GELU_TANH : STAVE_SWIGLU, .layernorm = gpt2, .norm_bias = gpt2,
			.learned_pos = gpt2, .qkv_bias = gpt2 || p->family == STAVE_QWEN2, .out_bias = gpt2, .mlp_bias = gpt2,
			.qk_norm = p->family == STAVE_QWEN3, .tied = gpt2 || qwen, .norm_eps = 1e-5f, .rope_theta = gpt2 ? 0 : 10000,
			.window = p->family == STAVE_MISTRAL ? 1024 : 0};
		return stave_shape_check(s, err);
	}
	const char *near = stave_nearest(name, names, N_PRESETS);
	return stave_err_set(err, STAVE_ECONFIG, "unknown model '%s'%s%s; a preset or a Hugging Face directory is wanted", name,
	                     near ? "; did you mean " : "", near ? near : "");
}
