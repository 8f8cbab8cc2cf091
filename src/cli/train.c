/* stave train: a corpus and a configuration in, a model directory out. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "cli/cli.h"
#include "data/data.h"
#include "text/text.h"
#include "train/train.h"

static void help(const struct stave_config *c)
{
	fputs("stave train [CONFIG.yaml] [--key value ...]: train a language model, from scratch or from a Hugging Face directory.\n\n"
	      "  stave train --model nano --data data --out model --train.steps 500\n"
	      "  mpirun -n 2 stave train run.yaml --train.lr 3e-4 --train.dtype f32\n\n"
	      "A flag beats STAVE_* in the environment (STAVE_TRAIN_LR), which beats the file, which beats the default.\n"
	      "SIGTERM or SIGUSR1 ends the run after the present step with a checkpoint and exit status 75; the same command\n"
	      "then continues it, to the bit.\n\n", stdout);
	stave_config_help(c, stdout);
	fputs("\nPresets:\n", stdout);
	for (const char *const *p = stave_presets; *p; p += 2)
		printf("  %-14s %s\n", p[0], p[1]);
}

/* Rank 0 speaks for errors every rank meets alike. */
static int failed(const struct stave_comm *comm, const struct stave_err *err)
{
	bool alike = err->code == STAVE_EUSAGE || err->code == STAVE_ECONFIG || err->code == STAVE_ENOFIT || err->code == STAVE_EREQUEUE ||
	             err->code == STAVE_EINTERRUPTED;
	bool stopped = err->code == STAVE_EREQUEUE || err->code == STAVE_EINTERRUPTED;
	if (!comm || stave_comm_rank(comm) == 0 || !alike)
		stave_log(stopped ? STAVE_LOG_WARN : STAVE_LOG_ERROR, "%s", err->msg);
	return stave_err_exit(err->code);
}

/* A peer was lost in the middle of a long step: leave with the message before the launcher kills us without one. */
static void lost(void *arg, const char *message)
{
	stave_log(STAVE_LOG_ERROR, "%s", message);
	_exit(stave_err_exit(STAVE_EPEER));
}

/* The data's tokenizer says the vocabulary and what ends a document; without one the largest id does. */
static int tokenizer(struct stave_train_job *job, const struct stave_shard_batches *data, int *vocab, struct stave_err *err)
{
	struct stave_tokenizer *t;
	job->tokenizer_dir = stave_tokens_tokenizer_dir(data->train);
	*vocab = stave_shard_batches_vocab(data);
	if (!job->tokenizer_dir)
		return 0;
	int rc = stave_tokenizer_load(&t, job->tokenizer_dir, err);
	if (rc)
		return rc;
	if (*vocab > stave_tokenizer_vocab(t))
		rc = stave_err_set(err, STAVE_ECORRUPT, "%s: the data has tokens up to %d, its tokenizer only %d", job->tokenizer_dir, *vocab - 1, stave_tokenizer_vocab(t));
	*vocab = stave_tokenizer_vocab(t);
	job->eos = stave_tokenizer_eos(t);
	job->bos = stave_tokenizer_bos(t);
	stave_tokenizer_free(t);
	return rc;
}

static int train(const struct stave_train *o, const struct stave_config *c, struct stave_comm *comm, struct stave_err *err)
{
	struct stave_shard_batches data;
	struct stave_train_job job = {.options = o, .comm = comm, .config = c, .eos = -1, .bos = -1};
	struct stave_train_result r = {0};
	int vocab, rc = stave_shard_batches_open(&data, o, err);
	if (rc)
		return rc;
	job.batches = stave_shard_batches_door(&data);
	if (!(rc = tokenizer(&job, &data, &vocab, err)) && !(rc = stave_train_shape(o, vocab, &job.shape, err)))
		rc = stave_train_run(&job, &r, err);
	if (r.receipt && o->json) {
		json_dumpf(r.receipt, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(r.receipt);
	stave_shard_batches_close(&data);
	return rc;
}

int stave_cli_train(int argc, char **argv)
{
	struct stave_train o;
	struct stave_config c;
	struct stave_comm *comm = NULL;
	struct stave_err err = {0};
	const char *positional[1];
	int n = 0, rc = stave_config_open(&c, stave_train_keys, (size_t)stave_train_n_keys, &o, &err);
	bool wants_help = false;
	if (rc)
		return failed(NULL, &err);
	rc = stave_config_args(&c, argc, argv, true, positional, 1, &n, &wants_help, &err);
	if (!rc && wants_help) {
		help(&c);
		stave_config_close(&c);
		return 0;
	}
	if (!rc && n)
		rc = stave_err_set(&err, STAVE_EUSAGE, "'%s' is neither a flag nor a .yaml file; 'stave train -h' shows both", positional[0]);
	if (!rc)
		rc = stave_comm_open(&comm, &err);
	if (!rc) {
		stave_comm_lost_set(comm, lost, NULL, 1);
		rc = train(&o, &c, comm, &err);
	}
	int status = rc ? failed(comm, &err) : 0;
	/* a rank that fails alone must not wait for the others in a collective shutdown */
	bool together = !rc || rc == STAVE_EREQUEUE || rc == STAVE_EINTERRUPTED;
	if (comm && !together && stave_comm_size(comm) > 1)
		stave_comm_abort(comm);
	else if (comm)
		stave_comm_close(comm);
	stave_config_close(&c);
	return status;
}
