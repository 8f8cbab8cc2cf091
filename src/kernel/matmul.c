/* oneDNN behind a handle. Layouts stay plain: measured on AVX-512-BF16 they reach 93-100 % of the packed layouts' rate
 * (SPEED.md), and a weight matrix then has one copy that the optimizer writes and all three products read. */
#include "kernel/matmul.h"

#include <dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/dtype.h"
#include "kernel/kernel.h"

struct stave_matmul {
	struct stave_matmul_desc d;
	dnnl_primitive_t prim;
	dnnl_memory_t a, b, c, bias, scratch;
	bool has_scratch;
};

static dnnl_engine_t engine;
static dnnl_stream_t stream;

/* One engine and stream for the process; STAVE_CPU lowers oneDNN too. */
static int start(struct stave_err *err)
{
	if (engine)
		return 0;
	const char *level = stave_kernels()->level;
	if (!strcmp(level, "ref"))
		dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41);
	else if (!strcmp(level, "avx2"))
		dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
	else if (!strcmp(level, "avx512"))
		dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core);
	if (dnnl_engine_create(&engine, dnnl_cpu, 0) || dnnl_stream_create(&stream, engine, dnnl_stream_default_flags)) {
		engine = NULL;
		return stave_err_set(err, STAVE_EDEVICE, "oneDNN cannot use this CPU");
	}
	return 0;
}

static dnnl_data_type_t type_of(enum stave_dtype t)
{
	switch (t) {
	case STAVE_F32: return dnnl_f32;
	case STAVE_BF16: return dnnl_bf16;
	case STAVE_I8: return dnnl_s8;
	case STAVE_I32: return dnnl_s32;
	default: return dnnl_data_type_undef;
	}
}

static dnnl_status_t matrix(dnnl_memory_desc_t *md, int64_t rows, int64_t cols, enum stave_dtype t, bool transposed)
{
	dnnl_dims_t dims = {rows, cols}, strides = {transposed ? 1 : cols, transposed ? rows : 1};
	return dnnl_memory_desc_init_by_strides(md, 2, dims, type_of(t), strides);
}

/* The primitive descriptor; NULL when oneDNN has no such product for this CPU. */
static dnnl_primitive_desc_t describe(const struct stave_matmul_desc *d, dnnl_memory_desc_t md[4])
{
	dnnl_dims_t bias_dims = {1, d->n}, bias_strides = {d->n, 1};
	dnnl_matmul_desc_t desc;
	dnnl_primitive_attr_t attr = NULL;
	dnnl_post_ops_t post = NULL;
	dnnl_primitive_desc_t pd = NULL;
	if (matrix(&md[0], d->m, d->k, d->in, d->a_transposed) || matrix(&md[1], d->k, d->n, d->in, d->b_transposed) ||
	    matrix(&md[2], d->m, d->n, d->out, false) || dnnl_memory_desc_init_by_strides(&md[3], 2, bias_dims, dnnl_f32, bias_strides) ||
	    dnnl_matmul_desc_init(&desc, &md[0], &md[1], d->bias ? &md[3] : NULL, &md[2]) || dnnl_primitive_attr_create(&attr))
		return NULL;
	dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
	if (d->accumulate && !dnnl_post_ops_create(&post)) {
		dnnl_post_ops_append_sum(post, 1.0f);
		dnnl_primitive_attr_set_post_ops(attr, post);
		dnnl_post_ops_destroy(post);
	}
	if (dnnl_primitive_desc_create(&pd, &desc, attr, engine, NULL))
		pd = NULL;
	dnnl_primitive_attr_destroy(attr);
	return pd;
}

int stave_matmul_open(struct stave_matmul **out, const struct stave_matmul_desc *d, size_t *scratch_bytes, struct stave_err *err)
{
	int rc = start(err);
	if (rc)
		return rc;
	struct stave_matmul *mm = calloc(1, sizeof *mm);
	if (!mm)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for a product's handle");
	mm->d = *d;
	dnnl_memory_desc_t md[4];
	dnnl_primitive_desc_t pd = describe(d, md);
	if (!pd) {
		free(mm);
		return stave_err_set(err, STAVE_EDEVICE, "this CPU (level %s) has no %s product; use --train.dtype f32", stave_kernels()->level, stave_dtype_name(d->in));
	}
	const dnnl_memory_desc_t *smd = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
	size_t bytes = smd ? dnnl_memory_desc_get_size(smd) : 0;
	mm->has_scratch = bytes > 0;
	int bad = dnnl_primitive_create(&mm->prim, pd) || dnnl_memory_create(&mm->a, &md[0], engine, DNNL_MEMORY_NONE) ||
	          dnnl_memory_create(&mm->b, &md[1], engine, DNNL_MEMORY_NONE) || dnnl_memory_create(&mm->c, &md[2], engine, DNNL_MEMORY_NONE) ||
	          (d->bias && dnnl_memory_create(&mm->bias, &md[3], engine, DNNL_MEMORY_NONE)) ||
	          (bytes && dnnl_memory_create(&mm->scratch, smd, engine, DNNL_MEMORY_NONE));
	dnnl_primitive_desc_destroy(pd);
	if (bad) {
		stave_matmul_close(mm);
		return stave_err_set(err, STAVE_EDEVICE, "oneDNN could not make a product of %lld x %lld x %lld", (long long)d->m, (long long)d->n, (long long)d->k);
	}
	if (scratch_bytes)
		*scratch_bytes = bytes;
	*out = mm;
	return 0;
}

void stave_matmul_close(struct stave_matmul *mm)
{
	if (!mm)
		return;
	dnnl_memory_t mem[] = {mm->a, mm->b, mm->c, mm->bias, mm->scratch};
	for (int i = 0; i < 5; i++)
		if (mem[i])
			dnnl_memory_destroy(mem[i]);
	if (mm->prim)
		dnnl_primitive_destroy(mm->prim);
	free(mm);
}

void stave_matmul_run(struct stave_matmul *mm, const void *A, const void *B, void *C, const float *bias, void *scratch)
{
	dnnl_exec_arg_t arg[5] = {{DNNL_ARG_SRC, mm->a}, {DNNL_ARG_WEIGHTS, mm->b}, {DNNL_ARG_DST, mm->c}};
	int n = 3;
	dnnl_memory_set_data_handle(mm->a, (void *)(uintptr_t)A);
	dnnl_memory_set_data_handle(mm->b, (void *)(uintptr_t)B);
	dnnl_memory_set_data_handle(mm->c, C);
	if (mm->d.bias) {
		dnnl_memory_set_data_handle(mm->bias, (void *)(uintptr_t)bias);
		arg[n++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, mm->bias};
	}
	if (mm->has_scratch) {
		dnnl_memory_set_data_handle(mm->scratch, scratch);
		arg[n++] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, mm->scratch};
	}
	if (dnnl_primitive_execute(mm->prim, stream, n, arg) || dnnl_stream_wait(stream)) {
		fprintf(stderr, "stave: bug: oneDNN failed on a product of %lld x %lld x %lld\n", (long long)mm->d.m, (long long)mm->d.n, (long long)mm->d.k);
		abort();
	}
}

static double element(enum stave_dtype t, const void *x, int64_t i)
{
	return t == STAVE_I8 ? ((const int8_t *)x)[i] : (double)stave_get(t, x, (size_t)i);
}

void stave_matmul_ref(const struct stave_matmul_desc *d, const void *A, const void *B, void *C, const float *bias)
{
	for (int64_t i = 0; i < d->m; i++)
		for (int64_t j = 0; j < d->n; j++) {
			double sum = bias ? bias[j] : 0;
			for (int64_t l = 0; l < d->k; l++)
				sum += element(d->in, A, d->a_transposed ? l * d->m + i : i * d->k + l) *
				       element(d->in, B, d->b_transposed ? j * d->k + l : l * d->n + j);
			if (d->out == STAVE_I32)
				((int32_t *)C)[i * d->n + j] = (int32_t)sum + (d->accumulate ? ((int32_t *)C)[i * d->n + j] : 0);
			else
				stave_put(d->out, C, (size_t)(i * d->n + j), (float)(sum + (d->accumulate ? (double)stave_get(d->out, C, (size_t)(i * d->n + j)) : 0)));
		}
}
