/* The intake thread: loads the model, then turns bodies into sequences. Parsing megabytes of JSON and tokenizing them takes
 * tens of milliseconds, which neither the event loop nor the engine can spare. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/sys.h"
#include "serve/job.h"

#define INBOX_MAX 256

void message_post(struct stave_server *s, struct message *m)
{
	uint64_t one = 1;
	m->next = NULL;
	pthread_mutex_lock(&s->lock);
	bool first = !s->outbox;
	*s->outbox_end = m;
	s->outbox_end = &m->next;
	pthread_mutex_unlock(&s->lock);
	if (first && write(s->wake_fd, &one, sizeof one) < 0)
		stave_log(STAVE_LOG_ERROR, "waking the event loop: %m");
}

static struct message *message_new(enum message_kind kind, struct job *j, size_t n_text)
{
	struct message *m = malloc(sizeof *m + n_text + 1);
	if (!m) { /* a lost message would leave its client waiting for ever */
		stave_log(STAVE_LOG_ERROR, "out of memory for %zu bytes of reply", n_text);
		abort();
	}
	m->kind = kind;
	m->job = j;
	return m;
}

/* On the engine's thread: copy, post, return. */
static void on_event(void *ctx, const struct stave_event *v)
{
	struct choice *c = ctx;
	struct message *m = message_new(MESSAGE_EVENT, c->job, v->n_text);
	m->choice = c->index;
	m->event = *v;
	memcpy(m->text, v->text, v->n_text);
	m->event.text = m->text;
	if (v->logprob) {
		m->lp = *v->logprob;
		m->event.logprob = &m->lp;
	}
	message_post(c->job->server, m);
}

bool intake_push(struct stave_server *s, struct job *j)
{
	pthread_mutex_lock(&s->lock);
	bool room = s->n_inbox < INBOX_MAX;
	if (room) {
		j->queue = NULL;
		*s->inbox_end = j;
		s->inbox_end = &j->queue;
		s->n_inbox++;
		pthread_cond_signal(&s->work);
	}
	pthread_mutex_unlock(&s->lock);
	return room;
}

static struct job *next_job(struct stave_server *s)
{
	pthread_mutex_lock(&s->lock);
	while (!s->inbox && !s->closing)
		pthread_cond_wait(&s->work, &s->lock);
	struct job *j = s->closing ? NULL : s->inbox;
	if (j) {
		s->inbox = j->queue;
		if (!s->inbox)
			s->inbox_end = &s->inbox;
		s->n_inbox--;
	}
	pthread_mutex_unlock(&s->lock);
	return j;
}

/* ---- a body becomes sequences ---- */

static bool fail_err(struct job *j, int status, const char *type, const char *code, const char *param, const struct stave_err *err)
{
	return api_fail(&j->error, status, type, code, param, "%s", err->msg);
}

/* Ids of prompt i, into c (the first choice of that prompt). */
static bool encode_prompt(struct job *j, struct stave_encoder *encoder, int i, struct choice *c)
{
	const struct stave_tokenizer *t = stave_engine_info(j->server->engine)->tokenizer;
	const struct api_request *r = &j->request;
	struct stave_ids ids = {0};
	struct stave_err err;
	int rc = 0;
	int32_t bos = stave_tokenizer_bos(t), eos = stave_tokenizer_eos(t);
	if (j->chat) {
		rc = stave_chat_encode(encoder, r->messages, r->n_messages, true, &ids, &err);
	} else if (r->prompts[i].text) {
		size_t n = strlen(r->prompts[i].text);
		if (bos >= 0 && (n == 0 || stave_tokenizer_add_bos(t)))
			stave_ids_put(&ids, bos);
		else if (n == 0 && eos >= 0)
			stave_ids_put(&ids, eos);
		rc = stave_encode(encoder, r->prompts[i].text, n, false, &ids, &err);
	} else {
		for (int k = 0; k < r->prompts[i].n_ids; k++)
			stave_ids_put(&ids, r->prompts[i].ids[k]);
	}
	c->ids = ids.p;
	c->n_ids = (int)ids.n;
	return !rc || fail_err(j, 400, "invalid_request_error", NULL, j->chat ? "messages" : "prompt", &err);
}

static bool check_lengths(struct job *j)
{
	const struct stave_engine_info *info = stave_engine_info(j->server->engine);
	for (int i = 0; i < j->n_choices; i++) {
		int n = j->choices[i].n_ids, asked = j->request.max_tokens > 0 ? j->request.max_tokens : 0;
		if (n > info->context)
			return api_fail(&j->error, 400, "invalid_request_error", "context_length_exceeded", j->chat ? "messages" : "prompt",
			                "the prompt has %d tokens%s; this model's context is %d", n, asked ? " before the completion" : "", info->context);
	}
	return true;
}

/* The stops of the chat template join the client's. */
static void fill_sequence(struct job *j, struct stave_request *q, struct choice *c, const int32_t *stop_ids, int n_stop_ids)
{
	struct api_request *r = &j->request;
	const struct choice *first = &j->choices[c->prompt * r->n];
	*q = (struct stave_request){.ids = first->ids, .n_ids = first->n_ids, .sampling = r->sampling, .max_tokens = r->max_tokens, .stop = r->stop, .n_stop = r->n_stop,
	                            .stop_ids = stop_ids, .n_stop_ids = n_stop_ids, .ignore_eos = r->ignore_eos, .logprobs = r->logprobs,
	                            .prompt_logprobs = r->echo && r->logprobs >= 0, .event = on_event, .ctx = c};
	if (q->max_tokens < 0 && !j->chat)
		q->max_tokens = 16; /* the API's default for completions */
	q->sampling.seed += (uint64_t)c->index; /* choices of one request differ */
	c->n_ids = first->n_ids;
}

static bool make_choices(struct job *j, struct stave_encoder *encoder)
{
	struct api_request *r = &j->request;
	const struct stave_engine_info *info = stave_engine_info(j->server->engine);
	int prompts = j->chat ? 1 : r->n_prompts, n = prompts * r->n;
	if (n > info->queue)
		return api_fail(&j->error, 400, "invalid_request_error", NULL, "n", "%d sequences in one request; this server queues at most %d", n, info->queue);
	j->choices = calloc((size_t)n, sizeof *j->choices);
	j->sequences = calloc((size_t)n, sizeof *j->sequences);
	j->seq_ids = calloc((size_t)n, sizeof *j->seq_ids);
	if (!j->choices || !j->sequences || !j->seq_ids)
		return api_fail(&j->error, 500, "server_error", NULL, NULL, "out of memory");
	j->n_choices = n;
	if (!r->has_seed && getrandom(&r->sampling.seed, sizeof r->sampling.seed, 0) != sizeof r->sampling.seed)
		r->sampling.seed = (uint64_t)(stave_now_s() * 1e9);
	int32_t stop_ids[8];
	int n_stop_ids = j->chat ? stave_chat_stops(info->tokenizer, stop_ids, 8) : 0;
	const char *turn = j->chat ? stave_chat_stop_text(info->tokenizer) : NULL;
	if (turn)
		r->stop[r->n_stop++] = turn;
	for (int i = 0; i < n; i++) {
		struct choice *c = &j->choices[i];
		c->job = j;
		c->index = i;
		c->prompt = i / r->n;
		if (i % r->n == 0 && !encode_prompt(j, encoder, c->prompt, c))
			return false;
		fill_sequence(j, &j->sequences[i], c, stop_ids, n_stop_ids);
	}
	if (!check_lengths(j))
		return false;
	struct stave_err err = {0};
	int rc = stave_engine_submit(j->server->engine, j->sequences, n, j->seq_ids, &err);
	if (rc == STAVE_ENOFIT)
		return fail_err(j, 429, "rate_limit_error", "queue_full", NULL, &err);
	if (rc == STAVE_EUSAGE)
		return fail_err(j, 400, "invalid_request_error", NULL, NULL, &err);
	return !rc || fail_err(j, 503, "server_error", NULL, NULL, &err);
}

static void take_in(struct job *j, struct stave_encoder *encoder)
{
	struct stave_server *s = j->server;
	bool ok = api_request_parse(&j->request, j->chat, j->body.p ? j->body.p : "", j->body.len, &j->error);
	stave_buf_free(&j->body);
	if (ok && j->request.model && strcmp(j->request.model, s->name))
		ok = api_fail(&j->error, 404, "invalid_request_error", "model_not_found", "model", "the model '%.100s' does not exist; this server has '%s'",
		              j->request.model, s->name);
	ok = ok && make_choices(j, encoder);
	message_post(s, message_new(MESSAGE_TAKEN_IN, j, 0));
}

static int load(struct stave_server *s, struct stave_encoder **encoder, struct stave_err *err)
{
	struct stave_engine *e;
	int rc = stave_engine_open(&e, &s->c.engine, err);
	if (rc)
		return rc;
	if ((rc = stave_encoder_open(encoder, stave_engine_info(e)->tokenizer, err))) {
		stave_engine_close(e);
		return rc;
	}
	s->engine = e;
	return 0;
}

void *intake_main(void *arg)
{
	struct stave_server *s = arg;
	struct stave_encoder *encoder;
	struct job *j;
	s->rc = load(s, &encoder, &s->err);
	bool loaded = !s->rc;
	message_post(s, message_new(MESSAGE_LOADED, NULL, 0));
	if (!loaded)
		return NULL;
	while ((j = next_job(s)))
		take_in(j, encoder);
	stave_encoder_free(encoder);
	return NULL;
}
