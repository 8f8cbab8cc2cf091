/* How fast a model answers on a measured machine: the operations of reading a prompt and of one decoding step, by the classes that a
 * profile samples for stored weights. Sequences that decode together share the reading of the weights (one product of as many
 * rows), not the attention. */
#include "cost/machine.h"

#include <string.h>

#define PIECES_MAX 64 /* of a prompt, each forecast at its middle: attention grows evenly from one to the next */

/* The operations of `rows` new tokens: of one sequence after `past` cached ones, or one token each of as many sequences. */
static int answer_ops(const struct stave_shape *s, const struct stave_answering *a, int rows, int past, bool together, struct stave_op *ops)
{
	static const char *const rates[] = {
#define X(e, id, name, per, bytes) "packed " name,
		STAVE_QTYPES(X)
#undef X
	};
	struct stave_op alone[STAVE_OPS_MAX];
	struct stave_qtype_info w = stave_qtype_info(a->weights), h = stave_qtype_info(a->head);
	double weight_bytes = (double)w.bytes / w.per, head_bytes = (double)h.bytes / h.per, cache_bytes = (double)stave_dtype_bytes(a->cache);
	enum stave_dtype products = stave_cost_operand(a->weights);
	if (a->cache == STAVE_I8)
		cache_bytes += 4.0 / s->D; /* one float scale for the values of a position and head */
	int n = stave_cost_infer_ops(s, rows, past, products, weight_bytes, cache_bytes, ops);
	stave_cost_infer_ops(s, 1, past, products, weight_bytes, cache_bytes, alone);
	for (int i = 0; i < n; i++) {
		struct stave_op *op = &ops[i];
		bool head = !strcmp(op->name, "head");
		if (op->kind == STAVE_OP_MATMUL)
			op->rate = rates[head ? a->head : a->weights];
		if (head) {
			double one = op->bytes - op->flops / 2 * weight_bytes, m = together ? rows : 1;
			*op = (struct stave_op){.name = op->name, .rate = op->rate, .kind = op->kind, .pass = op->pass, .dtype = stave_cost_operand(a->head),
			                        .m = (int64_t)m, .n = op->n, .k = op->k, .count = 1, .flops = m * op->flops,
			                        .bytes = op->flops / 2 * head_bytes + m * one};
		}
		if (together && op->kind == STAVE_OP_ATTENTION) {
			*op = alone[i];
			op->count *= rows;
		}
	}
	return n;
}

enum stave_dtype stave_cost_operand(enum stave_qtype t)
{
	return t == STAVE_Q_BF16 ? STAVE_BF16 : t == STAVE_Q_F32 || t == STAVE_Q_F16 ? STAVE_F32 : STAVE_I8;
}

/* Adds `times` f to *sum; the shortest stave of the longest part is the sum's. */
static void add(struct stave_forecast *sum, const struct stave_forecast *f, double times)
{
	if (!sum->shortest || f->step_s * times > sum->step_s) {
		sum->shortest = f->shortest;
		sum->shortest_share = f->shortest_share;
	}
	sum->step_s += times * f->step_s;
	sum->matmul_s += times * f->matmul_s;
	sum->attention_s += times * f->attention_s;
	sum->element_s += times * f->element_s;
}

/* The prompt in pieces of `chunk`, the last one shorter; only that one has logits. */
static struct stave_forecast read_prompt(const struct stave_machine *m, const struct stave_shape *s, const struct stave_answering *a)
{
	struct stave_op ops[STAVE_OPS_MAX];
	struct stave_forecast sum = {0};
	int chunk = s->encoder ? a->prompt : a->chunk > 0 ? a->chunk : 512, whole = (a->prompt - 1) / chunk, last = a->prompt - whole * chunk;
	int pieces = whole < PIECES_MAX ? whole : PIECES_MAX;
	for (int i = 0; i < pieces; i++) {
		double middle = ((double)i + 0.5) * whole / pieces - 0.5;
		int n = answer_ops(s, a, chunk, (int)(middle * chunk), false, ops);
		struct stave_forecast f = stave_machine_forecast(m, ops, s->encoder ? n : n - 1);
		add(&sum, &f, (double)whole / pieces);
	}
	int n = answer_ops(s, a, last, whole * chunk, false, ops);
	struct stave_forecast f = stave_machine_forecast(m, ops, n);
	add(&sum, &f, 1);
	return sum;
}

static bool sampled(const struct stave_machine *m, enum stave_qtype t)
{
	for (int i = 0; i < m->n_rates; i++)
		if (!strncmp(m->rates[i].what, "packed ", 7) && !strcmp(m->rates[i].what + 7, stave_qtype_info(t).name))
			return true;
	return false;
}

struct stave_answer_rates stave_machine_answer(const struct stave_machine *m, const struct stave_shape *s, const struct stave_answering *a)
{
	struct stave_op ops[STAVE_OPS_MAX];
	struct stave_answer_rates r = {.sampled = sampled(m, a->weights) && (s->encoder || sampled(m, a->head))};
	r.prefill = read_prompt(m, s, a);
	r.prefill_tokens_s = a->prompt / r.prefill.step_s;
	if (s->encoder)
		return r;
	int n = answer_ops(s, a, a->sequences, a->prompt + a->generate / 2, true, ops);
	r.decode = stave_machine_forecast(m, ops, n);
	r.decode_tokens_s = a->sequences / r.decode.step_s;
	return r;
}
