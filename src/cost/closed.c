/* A layer in closed form: its products, its parameters and its flops, without listing the operations of a step. The list of ops.c is exact for the
 * programs of this tree; a planner that weighs a million layouts of hardware it has never seen asks here instead. Both count the same parameters
 * (stave_shape_params) and the same flops per product; a test holds them together. */
#include "cost/cost.h"

static void product(struct stave_closed *c, double k, double n, double blocks, double used, char split)
{
	c->product[c->products++] = (struct stave_closed_product){.k = k, .n = n, .blocks = blocks, .used = used, .split = split};
}

static void feed_forward(const struct stave_shape *s, struct stave_closed *c)
{
	double C = s->C, I = s->I, up = stave_act_gated(s->act) ? 2 * I : I, E = s->experts ? s->experts : 1, used = s->experts ? s->experts_used : 1;
	double block = up * C + C * I + (s->mlp_bias ? up + C : 0);
	if (s->experts)
		product(c, C, E, 1, 1, 0);
	product(c, C, up, E, used, 'n');
	product(c, I, C, E, used, 'k');
	c->up = up * used;
	c->inner = I * used;
	c->expert_params = s->experts ? E * block : 0;
	c->layer_params += s->experts ? E * (C + block) : block;
}

void stave_closed_of(const struct stave_shape *s, struct stave_closed *out)
{
	double C = s->C, V = s->V, norm = s->layernorm && s->norm_bias ? 2 * C : C;
	*out = (struct stave_closed){.query = (double)s->H * s->D, .key_value = (double)s->K * s->D};
	double qkv = out->query + 2 * out->key_value;
	product(out, C, qkv, 1, 1, 'n');
	product(out, out->query, C, 1, 1, 'k');
	out->layer_params = (s->sandwich ? 4 : 2) * norm + qkv * C + C * out->query + (s->qkv_bias ? qkv : 0) + (s->out_bias ? C : 0) + (s->qk_norm ? 2.0 * s->D : 0);
	feed_forward(s, out);
	out->embed_params = V * C + (s->learned_pos ? (double)s->T_max * C : 0) + (double)s->token_types * C;
	out->head_params = (s->tied || s->encoder ? 0 : V * C) + norm;
}

double stave_closed_layer_flops(const struct stave_closed *c)
{
	double sum = 0;
	for (int i = 0; i < c->products; i++)
		sum += 2 * c->product[i].k * c->product[i].n * c->product[i].used;
	return sum;
}

double stave_closed_attention_flops(const struct stave_closed *c, double seq)
{
	return 4 * seq * c->query;
}

double stave_closed_step_flops(const struct stave_shape *s, double B, double seq, double recompute)
{
	struct stave_closed c;
	stave_closed_of(s, &c);
	double layer = stave_closed_layer_flops(&c) + stave_closed_attention_flops(&c, seq);
	return B * seq * ((3 + recompute) * s->L * layer + 6 * (double)s->C * s->V);
}
