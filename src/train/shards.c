/* The data room's tokens as batches: row i of the batch of step s is row s·batch + i of the seeded shuffle, a pure function,
 * so there is no state to save and nothing to replay. */
#include "data/data.h"
#include "train/train.h"

/* Training rows used for evaluation come from their own shuffle: the same ones at each evaluation, and not the batch at hand. */
#define EVAL_SEED 0x6576616c75617465u

int stave_shard_batches_open(struct stave_shard_batches *s, const struct stave_train *o, struct stave_err *err)
{
	*s = (struct stave_shard_batches){.seed = (uint64_t)o->seed, .batch = o->batch, .eval_rows = o->eval_batches * o->batch, .doc_mask = o->doc_mask};
	if (!o->data)
		return stave_err_set(err, STAVE_EUSAGE, "no data: give --data DIR, made by `stave prepare INPUT... --out DIR`");
	int rc = stave_tokens_open(&s->train, o->data, "train", err);
	if (rc)
		return rc;
	struct stave_err none = {0};
	rc = stave_tokens_open(&s->val, o->data, "val", &none);
	if (rc == STAVE_ECORRUPT) { /* absent is fine, damaged is not */
		*err = none;
		stave_shard_batches_close(s);
		return rc;
	}
	if (rc)
		s->val = NULL;
	return 0;
}

void stave_shard_batches_close(struct stave_shard_batches *s)
{
	stave_tokens_close(s->train);
	if (s->val)
		stave_tokens_close(s->val);
	*s = (struct stave_shard_batches){0};
}

int stave_shard_batches_vocab(const struct stave_shard_batches *s)
{
	int32_t train = stave_tokens_max_id(s->train), val = s->val ? stave_tokens_max_id(s->val) : 0;
	return (train > val ? train : val) + 1;
}

static int fill(void *ctx, enum stave_set set, int64_t step, int64_t row0, int nrows, int T, int32_t *inputs, int32_t *targets,
                int32_t *start, int32_t *pos, struct stave_err *err)
{
	const struct stave_shard_batches *s = ctx;
	int64_t windows = set == STAVE_SET_VAL ? stave_tokens_windows(s->val, T) : 0;
	int64_t spread = s->eval_rows < windows ? s->eval_rows : windows;
	for (int i = 0; i < nrows; i++) {
		size_t at = (size_t)i * (size_t)T;
		int64_t row = row0 + i;
		if (set == STAVE_SET_TRAIN)
			stave_tokens_row(s->train, s->seed, step * s->batch + row, T, s->doc_mask, inputs + at, targets + at, start + at, pos + at);
		else if (set == STAVE_SET_EVAL_TRAIN)
			stave_tokens_row(s->train, EVAL_SEED, row, T, s->doc_mask, inputs + at, targets + at, start + at, pos + at);
		else if (row < spread)
			stave_tokens_window(s->val, row * windows / spread, T, s->doc_mask, inputs + at, targets + at, start + at, pos + at);
		else /* a validation split smaller than the evaluation: each window once */
			for (int t = 0; t < T; t++) {
				inputs[at + (size_t)t] = start[at + (size_t)t] = 0;
				targets[at + (size_t)t] = -1;
				pos[at + (size_t)t] = t;
			}
	}
	return 0;
}

struct stave_batches stave_shard_batches_door(struct stave_shard_batches *s)
{
	int64_t bytes = s->val ? stave_tokens_bytes(s->val) : 0;
	return (struct stave_batches){
		.ctx = s,
		.fill = fill,
		.has_val = s->val != NULL,
		.val_tokens_per_byte = bytes > 0 ? (double)stave_tokens_count(s->val) / (double)bytes : 0,
	};
}
