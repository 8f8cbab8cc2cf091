/* How long a list of operations takes on a measured machine, and what limits it.
 *
 * A profile holds a few dozen measured rates; an operation of a model is seldom one of them. Its rate is interpolated
 * between the samples of its own class, pass and dtype, in logarithms of its sizes, weighting each sample by the inverse
 * fourth power of its distance (Shepard 1968): at a sample the answer is the sample, far outside it is the nearest one, and in
 * between no sample has to lie on a grid. Where a class was never sampled, peak and bandwidth of the machine bound it
 * from below. */
#include "cost/machine.h"

#include <math.h>
#include <string.h>

/* The classes of answering: "packed TYPE" and "paged". */
static bool is_stored(const struct stave_op *op) { return !strncmp(op->rate, "packed ", 7); }
static bool is_paged(const struct stave_op *op) { return !strcmp(op->rate, "paged"); }

/* Distance of an operation from a sample, squared, in octaves. What matters differs by class: a product of training by all three
 * sizes; one with stored weights by its rows, which decide whether it waits for memory or for arithmetic, and a little by the rest;
 * attention by row length and head width (its rows of heads only say how many cores are busy), over a paged cache also a little by
 * the positions seen; everything limited by memory by how many bytes it walks through, and a little by its row. */
static double distance2(const struct stave_op *op, const struct stave_rate *r)
{
	double m = log2((double)op->m / (double)r->m), n = log2((double)op->n / (double)r->n), k = log2((double)op->k / (double)r->k);
	switch (op->kind) {
	case STAVE_OP_MATMUL: return is_stored(op) ? m * m + 0.1 * (n * n + k * k) : m * m + n * n + k * k;
	case STAVE_OP_ATTENTION: return is_paged(op) ? n * n + k * k + 0.1 * m * m : n * n + k * k;
	default: return (m + n) * (m + n) + 0.1 * n * n;
	}
}

/* Interpolated rate of the samples that `op` may use, 0 when there is none. */
static double interpolate(const struct stave_machine *M, const struct stave_op *op)
{
	double sum = 0, weights = 0;
	for (int i = 0; i < M->n_rates; i++) {
		const struct stave_rate *r = &M->rates[i];
		if (r->pass != op->pass || r->dtype != op->dtype || strcmp(r->what, op->rate))
			continue;
		double d2 = distance2(op, r);
		if (d2 < 1e-9)
			return r->per_s;
		double w = 1 / (d2 * d2);
		sum += w * log(r->per_s);
		weights += w;
	}
	return weights > 0 ? exp(sum / weights) : 0;
}

static double peak(const struct stave_machine *M, enum stave_dtype dtype)
{
	double p = dtype == STAVE_BF16 ? M->peak_bf16 : dtype == STAVE_I8 ? M->peak_i8 : M->peak_f32;
	return p > 0 ? p : M->peak_f32; /* without instructions of its own a type is widened to f32 */
}

static bool counts_flops(const struct stave_op *op) { return op->kind == STAVE_OP_MATMUL || op->kind == STAVE_OP_ATTENTION; }

double stave_machine_op_s(const struct stave_machine *M, const struct stave_op *op)
{
	double rate = interpolate(M, op), s;
	if (counts_flops(op)) {
		s = rate > 0 ? op->flops / rate : fmax(op->flops / peak(M, op->dtype), op->bytes / M->read_bytes_s);
		/* one head per thread: the last round of heads leaves the other threads idle */
		if (op->kind == STAVE_OP_ATTENTION && !is_paged(op) && M->threads > 0) {
			double rounds = ceil((double)op->m / M->threads);
			s *= rounds * M->threads / (double)op->m;
		}
	} else {
		s = op->bytes / (rate > 0 ? rate : M->copy_bytes_s);
	}
	return fmax(s, M->call_s);
}

/* One class of the forecast while it is being summed. `useful` is what the class would take at the arithmetic peak; for
 * classes that do no products all time is overhead. `reading`: seconds of products that memory bandwidth bounds, as decoding's. */
struct class_sum {
	double s, useful, reading;
};

/* What would buy most if lengthened: the class with most time beyond its useful work, or the peak itself once little else is
 * left to gain. */
static void name_shortest(struct stave_forecast *f, const struct class_sum *c)
{
	static const char *const names[] = {
		[STAVE_OP_MATMUL] = "matrix products below peak",     [STAVE_OP_ATTENTION] = "attention below peak",
		[STAVE_OP_ELEMENT] = "memory traffic of elementwise operations", [STAVE_OP_LOSS] = "memory traffic of the loss",
		[STAVE_OP_OPTIMIZER] = "memory traffic of the optimizer", [STAVE_OP_COMM] = "communication",
	};
	double useful = 0, most = 0, reading = c[STAVE_OP_MATMUL].reading + c[STAVE_OP_ATTENTION].reading;
	f->shortest = "arithmetic peak of the cores";
	for (int k = 0; k <= STAVE_OP_COMM; k++) {
		useful += c[k].useful;
		if (c[k].s - c[k].useful > most) {
			most = c[k].s - c[k].useful;
			f->shortest = names[k];
		}
	}
	if (f->step_s <= 0)
		return;
	if (useful >= 0.8 * f->step_s) {
		f->shortest = "arithmetic peak of the cores";
		most = useful;
	}
	if (reading >= 0.5 * f->step_s) {
		f->shortest = "memory bandwidth: reading weights and cache";
		most = reading;
	}
	f->shortest_share = most / f->step_s;
}

struct stave_forecast stave_machine_forecast(const struct stave_machine *M, const struct stave_op *ops, int n)
{
	struct stave_forecast f = {0};
	struct class_sum c[STAVE_OP_COMM + 1] = {{0}};
	for (int i = 0; i < n; i++) {
		struct class_sum *k = &c[ops[i].kind];
		double s = stave_machine_op_s(M, &ops[i]) * (double)ops[i].count;
		k->s += s;
		if (counts_flops(&ops[i]) && ops[i].bytes / M->read_bytes_s > ops[i].flops / peak(M, ops[i].dtype))
			k->reading += s;
		if (counts_flops(&ops[i]))
			k->useful += fmin(s, ops[i].flops * (double)ops[i].count / peak(M, ops[i].dtype));
		f.step_s += s;
	}
	f.matmul_s = c[STAVE_OP_MATMUL].s;
	f.attention_s = c[STAVE_OP_ATTENTION].s;
	f.element_s = c[STAVE_OP_ELEMENT].s;
	f.loss_s = c[STAVE_OP_LOSS].s;
	f.optimizer_s = c[STAVE_OP_OPTIMIZER].s;
	f.comm_s = c[STAVE_OP_COMM].s;
	name_shortest(&f, c);
	return f;
}
