/* The one table: rows are operations, columns are vector levels. A hole (0) borrows from the level to its left, so the
 * reference column is full and every level can run every operation. Which column a process uses is decided once: the
 * rightmost one whose instructions the CPU has, or the one STAVE_CPU names if that is further left. Nothing else in the
 * tree asks the CPU what it can do. */
#include "kernel/kernel.h"

#include <cpuid.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "kernel/table.h"

enum { REF, AVX2, AVX512, AVX512BF16, LEVELS };

const char *const stave_levels[] = {"ref", "avx2", "avx512", "avx512bf16", NULL};

/*    operation     ref               avx2               avx512               avx512bf16 */
#define TABLE(X)                                                                                            \
	X(to_bf16,      to_bf16_ref,      to_bf16_avx2,      to_bf16_avx512,      to_bf16_avx512bf16)       \
	X(from_bf16,    from_bf16_ref,    from_bf16_avx2,    from_bf16_avx512,    from_bf16_avx512bf16)     \
	X(norm_fwd,     norm_fwd_ref,     norm_fwd_avx2,     norm_fwd_avx512,     norm_fwd_avx512bf16)      \
	X(norm_bwd,     norm_bwd_ref,     norm_bwd_avx2,     norm_bwd_avx512,     norm_bwd_avx512bf16)      \
	X(headnorm_fwd, headnorm_fwd_ref, headnorm_fwd_avx2, headnorm_fwd_avx512, headnorm_fwd_avx512bf16)  \
	X(headnorm_bwd, headnorm_bwd_ref, headnorm_bwd_avx2, headnorm_bwd_avx512, headnorm_bwd_avx512bf16)  \
	X(rope,         rope_ref,         rope_avx2,         rope_avx512,         rope_avx512bf16)          \
	X(gelu_fwd,     gelu_fwd_ref,     gelu_fwd_avx2,     gelu_fwd_avx512,     gelu_fwd_avx512bf16)      \
	X(gelu_bwd,     gelu_bwd_ref,     gelu_bwd_avx2,     gelu_bwd_avx512,     gelu_bwd_avx512bf16)      \
	X(swiglu_fwd,   swiglu_fwd_ref,   swiglu_fwd_avx2,   swiglu_fwd_avx512,   swiglu_fwd_avx512bf16)    \
	X(swiglu_bwd,   swiglu_bwd_ref,   swiglu_bwd_avx2,   swiglu_bwd_avx512,   swiglu_bwd_avx512bf16)    \
	X(embed_fwd,    embed_fwd_ref,    embed_fwd_avx2,    embed_fwd_avx512,    embed_fwd_avx512bf16)     \
	X(bias_add,     bias_add_ref,     bias_add_avx2,     bias_add_avx512,     bias_add_avx512bf16)      \
	X(colsum,       colsum_ref,       colsum_avx2,       colsum_avx512,       colsum_avx512bf16)        \
	X(add,          add_ref,          add_avx2,          add_avx512,          add_avx512bf16)           \
	X(scale,        scale_ref,        scale_avx2,        scale_avx512,        scale_avx512bf16)         \
	X(xent,         xent_ref,         xent_avx2,         xent_avx512,         xent_avx512bf16)          \
	X(attn_fwd,     attn_fwd_ref,     attn_fwd_avx2,     attn_fwd_avx512,     attn_fwd_avx512bf16)      \
	X(attn_bwd,     attn_bwd_ref,     attn_bwd_avx2,     attn_bwd_avx512,     attn_bwd_avx512bf16)      \
	X(attn_scratch, attn_scratch_ref, attn_scratch_avx2, attn_scratch_avx512, attn_scratch_avx512bf16)  \
	X(adamw,        adamw_ref,        adamw_avx2,        adamw_avx512,        adamw_avx512bf16)         \
	X(sumsq,        sumsq_ref,        sumsq_avx2,        sumsq_avx512,        sumsq_avx512bf16)         \
	X(gemv,         gemv_ref,         gemv_avx2,         gemv_avx512,         gemv_avx512bf16)         \
	X(paged_attn,   paged_attn_ref,   paged_attn_avx2,   paged_attn_avx512,   paged_attn_avx512bf16)

static struct stave_kernels tables[LEVELS];
static const struct stave_kernels *chosen;
static int best; /* rightmost level this CPU runs */
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* What clang 14's builtin has no name for: F16C is CPUID leaf 1, ECX bit 29; AVX512-VNNI leaf 7.0, ECX bit 11;
 * AVX512-BF16 leaf 7.1, EAX bit 5. */
static bool has_f16c(void)
{
	unsigned a, b, c = 0, d;
	return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}
static bool has_vnni_and_bf16(void)
{
	unsigned a = 0, b, c = 0, d;
	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c >> 11 & 1) && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}

/* The builtins ask cpuid and, for the wide registers, whether the kernel saves them; what clang's builtin does not
 * know is asked of cpuid above. */
static int detect(void)
{
	__builtin_cpu_init();
	if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
	      has_f16c()))
		return REF;
	if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
	      __builtin_cpu_supports("avx512vl")))
		return AVX2;
	if (!has_vnni_and_bf16())
		return AVX512;
	return AVX512BF16;
}

static int level_index(const char *name)
{
	for (int i = 0; i < LEVELS; i++)
		if (!strcmp(name, stave_levels[i]))
			return i;
	return -1;
}

/* STAVE_CPU lowers the level; it cannot raise it above what the CPU has. */
static int wanted_level(void)
{
	const char *name = getenv("STAVE_CPU");
	if (!name || !*name)
		return best;
	int level = level_index(name);
	if (level < 0)
		stave_log(STAVE_LOG_WARN, "STAVE_CPU=%s is no vector level (ref, avx2, avx512, avx512bf16); using %s", name,
		          stave_levels[best]);
	else if (level > best)
		stave_log(STAVE_LOG_WARN, "STAVE_CPU=%s, but this CPU has only %s; using that", name, stave_levels[best]);
	return level < 0 || level > best ? best : level;
}

static void build(void)
{
#define X(op, ...)                                                                       \
	{                                                                                \
		__typeof__(tables[0].op) const row[LEVELS] = {__VA_ARGS__};              \
		for (int l = 0; l < LEVELS; l++)                                         \
			tables[l].op = row[l] ? row[l] : tables[l ? l - 1 : 0].op;       \
	}
	TABLE(X)
#undef X
	for (int l = 0; l < LEVELS; l++)
		tables[l].level = stave_levels[l];
	best = detect();
	chosen = &tables[wanted_level()];
}

const struct stave_kernels *stave_kernels(void)
{
	pthread_once(&once, build);
	return chosen;
}

const struct stave_kernels *stave_kernels_level(const char *level)
{
	pthread_once(&once, build);
	int l = level_index(level);
	return l < 0 || l > best ? NULL : &tables[l];
}

bool stave_has_bf16(void)
{
	return stave_kernels() == &tables[AVX512BF16];
}
