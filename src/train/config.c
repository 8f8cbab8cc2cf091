/* The options of `stave train`: one table, and the model shape they describe.
 *
 * `model` names a preset, whose shape the shape.* keys may change, or a Hugging Face directory, whose shape they may not:
 * its weights have that shape. The shape keys are called shape.* because `model` is a value itself and a YAML key cannot be
 * both a value and a map. */
#include <limits.h>
#include <math.h>

#include "base/fs.h"
#include "train/train.h"

#define AT(field) offsetof(struct stave_train, field)
#define COUNT_MAX 1e15

const struct stave_key stave_train_keys[] = {
	{"model", STAVE_KEY_STR, AT(model), "nano", 0, 0, NULL, "preset (from scratch) or Hugging Face directory (fine-tuning)"},
	{"data", STAVE_KEY_STR, AT(data), NULL, 0, 0, NULL, "directory of `stave prepare`, or a nanoGPT / llm.c .bin file"},
	{"out", STAVE_KEY_STR, AT(out), "out", 0, 0, NULL, "directory of the model and its checkpoints"},
	{"run", STAVE_KEY_STR, AT(run), NULL, 0, 0, NULL, "name of the run under `runs`; default: last part of `out`"},
	{"runs", STAVE_KEY_STR, AT(runs), "runs", 0, 0, NULL, "directory of metrics, plans and receipts"},
	{"resume", STAVE_KEY_STR, AT(resume), "auto", 0, 0, NULL, "auto (newest whole checkpoint of `out`, if any), no, or a checkpoint directory"},
	{"threads", STAVE_KEY_INT, AT(threads), "0", 0, 4096, NULL, "threads of this process; 0: one per physical core"},
	{"json", STAVE_KEY_BOOL, AT(json), "false", 0, 0, NULL, "print the receipt as JSON on stdout"},

	{"shape.layers", STAVE_KEY_INT, AT(layers), "0", 0, 1024, NULL, "layers; 0 here and below: as the preset says"},
	{"shape.heads", STAVE_KEY_INT, AT(heads), "0", 0, 1024, NULL, "query heads"},
	{"shape.kv_heads", STAVE_KEY_INT, AT(kv_heads), "0", 0, 1024, NULL, "key and value heads"},
	{"shape.channels", STAVE_KEY_INT, AT(channels), "0", 0, 65536, NULL, "width of the residual stream"},
	{"shape.ff", STAVE_KEY_INT, AT(ff), "0", 0, 1 << 20, NULL, "width of the feed-forward layer"},
	{"shape.context", STAVE_KEY_INT, AT(context), "0", 0, 1 << 24, NULL, "longest context, tokens"},
	{"shape.vocab", STAVE_KEY_INT, AT(vocab), "0", 0, 1 << 22, NULL, "vocabulary; 0: the tokenizer's"},
	{"shape.act", STAVE_KEY_CHOICE, AT(act), "preset", 0, 0, "preset|gelu|gelu_tanh|swiglu", "activation; gelu is the exact form"},
	{"shape.bias", STAVE_KEY_CHOICE, AT(bias), "preset", 0, 0, "preset|yes|no", "biases in products and norms"},
	{"shape.tied", STAVE_KEY_CHOICE, AT(tied), "preset", 0, 0, "preset|yes|no", "the classifier is the embedding"},

	{"train.steps", STAVE_KEY_INT, AT(steps), "1000", 0, COUNT_MAX, NULL, "optimizer steps"},
	{"train.batch", STAVE_KEY_INT, AT(batch), "16", 1, 1 << 24, NULL, "rows of one step, over all ranks and micro-batches"},
	{"train.micro_batch", STAVE_KEY_INT, AT(micro_batch), "0", 0, 1 << 20, NULL, "rows computed at once; 0: what suits the memory"},
	{"train.seq", STAVE_KEY_INT, AT(seq), "0", 0, 1 << 24, NULL, "tokens of a row; 0: the model's context, at most 1024"},
	{"train.lr", STAVE_KEY_REAL, AT(lr), "1e-3", 0, 100, NULL, "peak learning rate of AdamW"},
	{"train.min_lr", STAVE_KEY_REAL, AT(min_lr), "0", 0, 100, NULL, "learning rate at the end of the schedule"},
	{"train.schedule", STAVE_KEY_CHOICE, AT(schedule), "cosine", 0, 0, "cosine|wsd|linear|constant", "shape of the decay"},
	{"train.warmup", STAVE_KEY_INT, AT(warmup), "0", 0, COUNT_MAX, NULL, "steps of linear warm-up"},
	{"train.decay_steps", STAVE_KEY_INT, AT(decay_steps), "0", 0, COUNT_MAX, NULL, "step at which the schedule ends; 0: train.steps"},
	{"train.decay_fraction", STAVE_KEY_REAL, AT(decay_fraction), "0.2", 1e-9, 1, NULL, "share of the steps wsd decays over"},
	{"train.optimizer", STAVE_KEY_CHOICE, AT(optimizer), "adamw", 0, 0, "adamw|muon", "muon: for matrices in layers, AdamW for the rest"},
	{"train.muon_lr", STAVE_KEY_REAL, AT(muon_lr), "0.02", 0, 100, NULL, "peak learning rate of Muon's matrices"},
	{"train.muon_momentum", STAVE_KEY_REAL, AT(muon_momentum), "0.95", 0, 0.9999999, NULL, "momentum of Muon (Nesterov)"},
	{"train.beta1", STAVE_KEY_REAL, AT(beta1), "0.9", 0, 0.9999999, NULL, "AdamW's decay of the mean"},
	{"train.beta2", STAVE_KEY_REAL, AT(beta2), "0.95", 0, 0.9999999, NULL, "AdamW's decay of the variance"},
	{"train.eps", STAVE_KEY_REAL, AT(eps), "1e-8", 1e-30, 1, NULL, "AdamW's epsilon"},
	{"train.weight_decay", STAVE_KEY_REAL, AT(weight_decay), "0.1", 0, 10, NULL, "decoupled weight decay of matrices"},
	{"train.clip", STAVE_KEY_REAL, AT(clip), "1", 0, 1e9, NULL, "largest norm of the whole gradient; 0: no clipping"},
	{"train.seed", STAVE_KEY_INT, AT(seed), "1337", 0, COUNT_MAX, NULL, "of initial weights and the order of data"},
	{"train.dtype", STAVE_KEY_CHOICE, AT(dtype), "auto", 0, 0, "auto|f32|bf16", "of products and activations; auto: bf16 where the CPU has it"},
	{"train.recompute", STAVE_KEY_CHOICE, AT(recompute), "none", 0, 0, "none|cheap|layer", "what backward computes again to save memory"},
	{"train.doc_mask", STAVE_KEY_BOOL, AT(doc_mask), "true", 0, 0, NULL, "attention stays within a document"},
	{"train.eval_every", STAVE_KEY_INT, AT(eval_every), "250", 0, COUNT_MAX, NULL, "steps between evaluations; 0: only at the end"},
	{"train.eval_batches", STAVE_KEY_INT, AT(eval_batches), "20", 0, 1 << 20, NULL, "batches of each set per evaluation; 0: never evaluate"},
	{"train.on_nonfinite", STAVE_KEY_CHOICE, AT(on_nonfinite), "stop", 0, 0, "stop|skip", "at a NaN or infinity in loss or gradient"},
	{"train.spike_z", STAVE_KEY_REAL, AT(spike_z), "0", 0, 1e6, NULL, "skip updates whose loss or gradient norm lies this many deviations above the last 128; 0: off"},
	{"train.time_limit_s", STAVE_KEY_REAL, AT(time_limit_s), "0", 0, 1e9, NULL, "finish early after this many seconds; 0: no limit"},

	{"checkpoint.every", STAVE_KEY_INT, AT(checkpoint_every), "250", 0, COUNT_MAX, NULL, "steps between checkpoints; 0: only at the end and on a signal"},
	{"checkpoint.keep", STAVE_KEY_INT, AT(checkpoint_keep), "2", 1, 1000000, NULL, "newest checkpoints kept"},
	{"checkpoint.every_keep", STAVE_KEY_INT, AT(checkpoint_every_keep), "0", 0, COUNT_MAX, NULL, "checkpoints at multiples of this are kept for ever; 0: none"},
};
const int stave_train_n_keys = sizeof stave_train_keys / sizeof *stave_train_keys;

/* The widths that follow from others unless given: D from C and H, K and I in the preset's proportion. */
static int apply_widths(const struct stave_train *o, struct stave_shape *s, struct stave_err *err)
{
	const struct stave_shape was = *s;
	if (o->layers)
		s->L = (int)o->layers;
	if (o->channels)
		s->C = (int)o->channels;
	if (o->heads)
		s->H = (int)o->heads;
	if (o->channels || o->heads) {
		if (s->C % s->H)
			return stave_err_set(err, STAVE_ECONFIG, "shape.channels %d is not a multiple of shape.heads %d", s->C, s->H);
		s->D = s->C / s->H;
	}
	if (o->kv_heads)
		s->K = (int)o->kv_heads;
	else if (o->heads)
		s->K = was.K == was.H || s->H % was.K ? s->H : was.K;
	if (o->ff)
		s->I = (int)o->ff;
	else if (o->channels)
		s->I = (int)((int64_t)was.I * s->C / was.C);
	return 0;
}

static void apply_switches(const struct stave_train *o, struct stave_shape *s)
{
	static const enum stave_act acts[] = {0, STAVE_GELU_EXACT, STAVE_GELU_TANH, STAVE_SWIGLU};
	if (o->act)
		s->act = acts[o->act];
	if (o->bias)
		s->qkv_bias = s->out_bias = s->mlp_bias = s->norm_bias = o->bias == 1;
	if (o->tied)
		s->tied = o->tied == 1;
	if (o->context)
		s->T_max = (int)o->context;
}

static bool shape_keys_given(const struct stave_train *o)
{
	return o->layers || o->heads || o->kv_heads || o->channels || o->ff || o->context || o->vocab || o->act || o->bias || o->tied;
}

int stave_train_shape(const struct stave_train *o, int vocab, struct stave_shape *s, struct stave_err *err)
{
	int rc;
	if (stave_is_dir(o->model)) {
		if (shape_keys_given(o))
			return stave_err_set(err, STAVE_ECONFIG, "shape.* keys go with a preset; the shape of %s is in its config.json", o->model);
		if ((rc = stave_shape_load(s, o->model, err)))
			return rc;
		if (vocab > s->V)
			return stave_err_set(err, STAVE_ECONFIG, "the data has tokens up to %d but %s has a vocabulary of %d: prepare the data with its tokenizer",
			                     vocab - 1, o->model, s->V);
	} else {
		if (o->vocab && vocab > o->vocab)
			return stave_err_set(err, STAVE_ECONFIG, "the data has tokens up to %d but shape.vocab is %lld", vocab - 1, (long long)o->vocab);
		if ((rc = stave_preset(s, o->model, o->vocab ? (int)o->vocab : vocab, err)) || (rc = apply_widths(o, s, err)))
			return rc;
		apply_switches(o, s);
	}
	return stave_shape_check(s, err);
}
