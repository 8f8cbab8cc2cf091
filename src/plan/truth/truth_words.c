/* The words people write beside measured runs, and what they mean here.
 *
 * A table is written by hand, from papers and pages that each have their own spelling, so nothing here can fail: a word that is not understood
 * leaves its default, and the row is then skipped by whoever needs what is missing. Numbers in the words are bounded before use. */
#include "plan/truth/truth_words.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool plan_words_have(const char *text, const char *word)
{
	return text && strcasestr(text, word);
}

enum plan_precision plan_words_precision(const char *text)
{
	static const struct {
		const char *word;
		enum plan_precision is;
	} words[] = {{"fp8", PLAN_FP8},    {"float8", PLAN_FP8}, {"e4m3", PLAN_FP8}, {"fp4", PLAN_FP4}, {"float4", PLAN_FP4}, {"int8", PLAN_I8},
	             {"w8a8", PLAN_I8},    {"q8", PLAN_I8},      {"q6", PLAN_I8},    {"int4", PLAN_I4}, {"w4a16", PLAN_I4},   {"awq", PLAN_I4},
	             {"gptq", PLAN_I4},    {"q5", PLAN_I4},      {"q4", PLAN_I4},    {"q3", PLAN_I4},   {"q2", PLAN_I4},      {"mixed", PLAN_BF16},
	             {"amp", PLAN_BF16},   {"16", PLAN_BF16},    {"fp32", PLAN_F32}, {"f32", PLAN_F32}, {"float32", PLAN_F32}};
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (plan_words_have(text, words[i].word))
			return words[i].is;
	return PLAN_BF16;
}

int plan_words_recompute(const char *text, bool *seq_parallel)
{
	if (plan_words_have(text, "seqpar") || plan_words_have(text, "sequence parallel"))
		*seq_parallel = true;
	if (!text)
		return -1;
	if (plan_words_have(text, "selective"))
		return 1;
	if (plan_words_have(text, "full") || !strcasecmp(text, "yes") || !strcasecmp(text, "true"))
		return 2;
	return plan_words_have(text, "no") || plan_words_have(text, "seqpar") || !strcasecmp(text, "false") ? 0 : -1;
}

/* The number that ends just before `at` (blanks between allowed), NAN when there is none. */
static double number_before(const char *text, const char *at)
{
	const char *end = at;
	while (end > text && end[-1] == ' ')
		end--;
	const char *p = end;
	while (p > text && (isdigit((unsigned char)p[-1]) || p[-1] == '.'))
		p--;
	return p == end ? NAN : strtod(p, NULL);
}

/* The first sensible number before a unit. */
static double number_with(const char *text, const char *unit)
{
	for (const char *p = text; p && (p = strstr(p, unit)); p++) {
		double x = number_before(text, p);
		if (isfinite(x) && x > 0 && x < 1e9)
			return x;
	}
	return NAN;
}

/* "8x200Gb/s", "4x Omni-Path 100 Gb/s": how many of them. */
static double multiplier(const char *text)
{
	for (const char *p = text; (p = strchr(p, 'x')); p++) {
		double x = number_before(text, p);
		if (x >= 1 && x <= 64)
			return x;
	}
	return 1;
}

double plan_words_nic(const char *text, int gpus_per_node)
{
	if (!text)
		return 0;
	double bits = number_with(text, "Gb/s"), bytes = number_with(text, "GB/s");
	double rate = isfinite(bits) ? bits * 1e9 / 8 : isfinite(bytes) ? bytes * 1e9 : 0;
	if (plan_words_have(text, "per gpu") || plan_words_have(text, "per device"))
		return rate * (gpus_per_node > 0 ? gpus_per_node : 8);
	return rate * multiplier(text);
}

/* "500W" is power; "2.4TB/s" and "GB/s" are rates, so a memory size is a "GB" that is not followed by a stroke. */
void plan_words_variant(const char *text, struct plan_accelerator *a)
{
	if (!text)
		return;
	double tb = number_with(text, "TB/s"), gbs = number_with(text, "GB/s"), w = number_with(text, "W");
	if (isfinite(tb) && tb < 1000)
		a->memory_bytes_s = tb * 1e12;
	else if (isfinite(gbs) && gbs < 1e6)
		a->memory_bytes_s = gbs * 1e9;
	if (isfinite(w) && w >= 1 && w < 1e5)
		a->tdp_w = w;
	for (const char *p = text; (p = strstr(p, "GB")); p++) {
		double gb = number_before(text, p);
		/* a size within 12 % of the data sheet's is the same memory in other units */
		if (p[2] != '/' && gb >= 1 && gb < 1e5 && fabs(gb * 1e9 - a->memory_bytes) > 0.12 * a->memory_bytes)
			a->memory_bytes = gb * 1e9;
	}
}

static int degree(const char *p)
{
	long n = strtol(p, NULL, 10);
	return n >= 1 && n <= 65536 ? (int)n : 0;
}

void plan_words_layout(const char *text, int *tp, int *pp, int *ep)
{
	*tp = *pp = *ep = 0;
	for (const char *p = text; p && *p; p++) {
		bool starts = p == text || !isalpha((unsigned char)p[-1]);
		if (!starts)
			continue;
		if (!strncasecmp(p, "DEP", 3)) { /* attention data-parallel, experts spread */
			*ep = degree(p + 3);
			*tp = 1;
		} else if (!strncasecmp(p, "TEP", 3)) {
			*tp = *ep = degree(p + 3);
		} else if (!strncasecmp(p, "TP", 2)) {
			*tp = degree(p + 2);
		} else if (!strncasecmp(p, "PP", 2)) {
			*pp = degree(p + 2);
		} else if (!strncasecmp(p, "EP", 2)) {
			*ep = degree(p + 2);
		}
	}
}

static int number_after(const char *text, const char *word)
{
	const char *p = text ? strcasestr(text, word) : NULL;
	if (!p)
		return 0;
	for (p += strlen(word); *p == ' ' || *p == '-' || *p == '='; p++)
		;
	long n = strtol(p, NULL, 10);
	return n >= 1 && n <= 1 << 20 ? (int)n : 0;
}

void plan_words_moe(const char *text, int *experts, int *used, int *ffn)
{
	*used = number_after(text, "top");
	*ffn = number_after(text, "ffn");
	double n = text ? number_with(text, "routed") : NAN;
	if (!isfinite(n) && text)
		n = number_with(text, "expert");
	*experts = n >= 1 && n <= 1024 ? (int)n : 0;
	if (*used > *experts)
		*used = *experts;
}

const char *plan_words_stack(const char *engine, const char *const *others, int n)
{
	static const struct {
		const char *word, *stack;
	} words[] = {{"trtllm", "trtllm"},       {"TensorRT", "trtllm"},      {"vllm", "vllm"},         {"sglang", "sglang"},
	             {"llama.cpp", "llama.cpp"}, {"llama-bench", "llama.cpp"}, {"ds4", "ds4"},          {"exllama", "exllama"},
	             {"mlx", "mlx"},             {"torchtitan", "torchtitan"}, {"llm-foundry", "llm-foundry"}, {"mosaic", "llm-foundry"},
	             {"llm.c", "llm.c"},         {"modded-nanogpt", "modded-nanogpt"}, {"nanochat", "nanochat"}, {"nanogpt", "nanogpt"},
	             {"nemo", "nemo"},           {"megatron-deepspeed", "megatron-deepspeed"}, {"deepspeed", "deepspeed"},  {"megatron", "megatron"}, {"korthikanti", "megatron"},
	             {"fsdp", "fsdp"},           {"maxtext", "maxtext"}};
	for (size_t i = 0; engine && i < sizeof words / sizeof *words; i++)
		if (plan_words_have(engine, words[i].word))
			return words[i].stack;
	if (engine)
		return "";
	for (int k = 0; k < n; k++)
		for (size_t i = 0; i < sizeof words / sizeof *words; i++)
			if (plan_words_have(others[k], words[i].word))
				return words[i].stack;
	return "";
}
