/* Models from one file into another: between formats (convert.c) and between types (requantize.c). One matrix is in memory at a
 * time, a few rows of it, never the model. The new file is whole or absent. */
#ifndef STAVE_MODEL_CONVERT_H
#define STAVE_MODEL_CONVERT_H

#include "base/gguf.h"
#include "model/model.h"

/* ---- mixes: what users call types of files, and the type each matrix has in them (mix.c) ---- */

/*         enum    name      base   file_type: general.file_type of GGUF */
#define STAVE_MIXES(X)              \
	X(Q8_0,   "Q8_0",   Q8_0,  7)   \
	X(Q6_K,   "Q6_K",   Q6_K, 18)   \
	X(Q5_K_M, "Q5_K_M", Q5_K, 17)   \
	X(Q4_K_M, "Q4_K_M", Q4_K, 15)   \
	X(Q4_0,   "Q4_0",   Q4_0,  2)   \
	X(BF16,   "BF16",   BF16, 32)   \
	X(F16,    "F16",    F16,   1)

enum stave_mix {
#define X(e, name, base, file_type) STAVE_MIX_##e,
	STAVE_MIXES(X)
#undef X
	STAVE_MIX_COUNT
};
const char *stave_mix_name(enum stave_mix m);
enum stave_mix stave_mix_of_name(const char *name); /* either case; STAVE_MIX_COUNT: none */
int stave_mix_file_type(enum stave_mix m);
/* A model as a mix sees it. */
struct stave_mix_model {
	enum stave_mix mix;
	int experts;    /* 0: dense */
	int q_rows;     /* H * D: a matrix of role Q with more rows is q, k and v in one; 0: unknown */
	bool tied;      /* the embedding is the head */
};
/* From the keys and tensors of a file of any architecture. */
int stave_mix_model_gguf(struct stave_mix_model *m, enum stave_mix mix, const struct stave_gguf *g, struct stave_err *err);
/* The type of a matrix in that mix, a `choose` of stave_convert with a stave_mix_model as ctx; STAVE_QTYPE_COUNT: as it is, which is the
 * lot of norms, positions and routers. Rows that the type's block does not divide get the next larger type that does. */
enum stave_qtype stave_mix_choose(void *model, enum stave_role role, int layer, int n_layers, int rows, int cols);

/* ---- what conversion is asked, and what it tells ---- */

struct stave_convert {
	/* The type of a matrix in the new file, or STAVE_QTYPE_COUNT for "as it is"; NULL: all as they are. layer is -1 outside layers.
	 * A fused matrix has the role of its first part, stacked experts the rows of one. */
	enum stave_qtype (*choose)(void *ctx, enum stave_role role, int layer, int n_layers, int rows, int cols);
	void *ctx;
	int file_type; /* general.file_type of a GGUF file; -1: as it was */
};
/* What has become of the matrices of a role. The error is relative: root of squared errors over squared values. */
struct stave_convert_part {
	int tensors;
	int64_t elements;
	size_t bytes;
	unsigned types;        /* bits 1 << stave_qtype */
	double error2, value2; /* sums; error2 counts what was stored anew only */
};
struct stave_convert_result {
	struct stave_convert_part part[STAVE_ROLES + 1]; /* the last: names without a role */
	int tensors;
	int64_t elements;
	size_t bytes_in, bytes_out; /* of tensors */
	enum stave_qtype from;      /* the type most elements had */
	double seconds, compute_s, write_s;
};

/* Rows of a matrix, as floats. */
struct stave_float_rows {
	const char *name;
	int64_t rows;
	int64_t cols;
	void (*row)(void *ctx, int64_t r, float *out); /* called by several threads at once */
	void *ctx;
};
/* Writes the matrix as the current tensor of w, in type `to`, on all threads, and adds to `part` (bytes, elements, errors) and to the
 * times of r. A value that is not finite is STAVE_ECORRUPT: a model that has one is damaged. STAVE_EINTERRUPTED on request. */
int stave_convert_rows(struct stave_gguf_writer *w, enum stave_qtype to, const struct stave_float_rows *m, struct stave_convert_part *part,
                       struct stave_convert_result *r, struct stave_err *err);

/* The GGUF file(s) at `in` with their matrices in other types, at `out` as one file; all else is copied. */
int stave_requantize(const char *in, const char *out, const struct stave_convert *c, struct stave_convert_result *r, struct stave_err *err);

/* ---- between formats (convert.c, convert_dir.c): tensors change their names, fusions and order of rows, values do not ---- */

/* What a GGUF file says beyond shape and tensors: the tokenizer's keys, which this room does not know. */
struct stave_convert_keys {
	int (*put)(void *ctx, struct stave_gguf_writer *w, struct stave_err *err);
	void *ctx;
	const char *name; /* general.name */
};
/* A directory (or any source) as one GGUF file. Norms, biases, routers and tables of positions become F32, as readers want them; matrices what
 * c->choose says. STAVE_ECONFIG names what GGUF cannot say. r (zeroed by the caller) is filled as by stave_requantize. */
int stave_source_to_gguf(const struct stave_source *s, const char *out, const struct stave_convert *c, const struct stave_convert_keys *k,
                         struct stave_convert_result *r, struct stave_err *err);
/* A GGUF file (or any source) as a directory: config.json and model.safetensors, in F32, F16 or BF16, or as stored when `type` is
 * STAVE_QTYPE_COUNT, which quantized types cannot be: STAVE_ECONFIG. eos, bos: -1 = none. */
int stave_source_to_dir(const struct stave_source *s, const char *dir, enum stave_qtype type, int eos, int bos, struct stave_convert_result *r,
                        struct stave_err *err);

#endif
