/* The machine profile: measured rates of this machine, written by `stave bench machine`, read by train, run and plan. */
#ifndef STAVE_COST_MACHINE_H
#define STAVE_COST_MACHINE_H

#include <jansson.h>

#include "base/fs.h"
#include "base/qtype.h"
#include "cost/cost.h"

/* The measured rate of one operation class at one size. The model of a machine is a list of these samples. */
struct stave_rate {
	char what[24];             /* "matmul", "attention", "norm", "gelu", "swiglu", "loss", "adamw", "rope", "embed", "convert"…; of answering "packed Q8_0"…, "paged", "place", "enter", "activate", "operand" */
	enum stave_pass pass;
	enum stave_dtype dtype;
	int64_t m, n, k;           /* as in stave_op */
	double per_s;              /* flops/s for MATMUL and ATTENTION, bytes/s for the rest */
};
#define STAVE_RATES_MAX 512
struct stave_machine {
	char cpu[64], level[16];   /* model name, kernel level used */
	int cores, threads;
	int64_t memory_bytes;
	double peak_f32, peak_bf16, peak_i8; /* flop/s (op/s) of the best matrix product, 0: no such instructions */
	double read_bytes_s, copy_bytes_s;   /* DRAM */
	double touch_s_per_page;             /* first touch of a 4 KiB page */
	double disk_write_bytes_s, disk_read_bytes_s;
	double call_s;                       /* one parallel region with nothing in it */
	int n_rates;
	struct stave_rate rates[STAVE_RATES_MAX];
};
/* JSON, default path $STAVE_MACHINE, else $XDG_CONFIG_HOME/stave/machine.json, else ~/.config/stave/machine.json. */
int stave_machine_load(struct stave_machine *m, const char *path_or_null, struct stave_err *err);
int stave_machine_save(const struct stave_machine *m, const char *path_or_null, struct stave_err *err);
/* The path that load and save use. */
int stave_machine_path(char out[STAVE_PATH], const char *path_or_null, struct stave_err *err);
/* The same, its directory made. */
int stave_machine_place(char out[STAVE_PATH], const char *path_or_null, struct stave_err *err);
/* The document as text in memory; `what` names it in errors. *m is set only on success. */
int stave_machine_parse(struct stave_machine *m, const char *text, size_t n, const char *what, struct stave_err *err);
/* The document to write or print; NULL if the processor's name is not UTF-8. */
json_t *stave_machine_json(const struct stave_machine *m);
/* Seconds of one operation by interpolating the samples of its class; peaks and bandwidth where there is no sample. */
double stave_machine_op_s(const struct stave_machine *m, const struct stave_op *op);
/* Sum over ops, and the shortest stave: name and share of the class that takes most of the time beyond its share of
 * the useful work. `text` e.g. "matrix products at 81 % of peak, 74 % of the step". */
struct stave_forecast {
	double step_s;
	double matmul_s, attention_s, element_s, loss_s, optimizer_s, comm_s;
	const char *shortest;  /* static string */
	double shortest_share;
};
struct stave_forecast stave_machine_forecast(const struct stave_machine *m, const struct stave_op *ops, int n);

/* A model that answers: `sequences` (1 or more) that decode together, each after a prompt of `prompt` tokens (1 or more) of which it
 * reads `chunk` (0: 512) at a time, alone; `generate` tokens each (0 or more: where in the answer the decoding step is taken). */
struct stave_answering {
	enum stave_qtype weights, head; /* types in memory of the matrices, and of the classifier */
	enum stave_dtype cache;         /* of cached keys and values: F32, BF16 or I8 */
	int prompt, generate, sequences, chunk;
};
struct stave_answer_rates {
	double prefill_tokens_s, decode_tokens_s; /* of one prompt; of all sequences (0: an encoder) */
	struct stave_forecast prefill, decode;    /* seconds of the whole prompt, of one decoding step; `shortest` of each */
	bool sampled; /* the profile holds rates of these types; else peaks and bandwidth bound the rates from above */
};
/* Rates from a profile alone. `s` has passed stave_shape_check. */
struct stave_answer_rates stave_machine_answer(const struct stave_machine *m, const struct stave_shape *s, const struct stave_answering *a);
/* The type of the other operand of a product with weights stored in t: int8 for blocks, bf16, or f32 (kernel/panel.h). */
enum stave_dtype stave_cost_operand(enum stave_qtype t);

#endif
