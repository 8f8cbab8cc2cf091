/* Private to serve/: a request on its way. A job is made by the event loop, filled by the intake thread, fed by the engine's
 * events, and freed by the event loop when the intake is done with it, every choice has ended and the client has its reply
 * or has left. Messages to the event loop pass through one outbox. */
#ifndef STAVE_SERVE_JOB_H
#define STAVE_SERVE_JOB_H

#include <pthread.h>

#include "base/fs.h"
#include "serve/http.h"
#include "serve/metrics.h"
#include "serve/request.h"
#include "serve/serve.h"

struct choice { /* one sequence of the engine */
	struct job *job;
	int index, prompt;
	int32_t *ids;                /* (n_ids) prompt tokens; owned by the first choice of each prompt */
	int n_ids;
	/* event loop's: */
	struct stave_buf text, chunk; /* text so far (whole replies), text to send (streams) */
	json_t *tokens, *token_logprobs, *tops, *offsets; /* completions' logprobs, or `tokens` alone = chat's content */
	int64_t offset;              /* in characters */
	struct stave_event end;
	double last_token_s;
	bool done, first_sent;
};
struct job {
	struct stave_server *server;
	struct job *next, **link;    /* event loop's list of all */
	struct job *queue;           /* intake's queue */
	struct http_conn *conn;      /* event loop's; NULL: the client left, or has its reply */
	bool chat;
	char id[48];
	int64_t created;
	double arrived_s;
	struct stave_buf body;
	/* set by the intake before it submits or fails */
	struct api_request request;
	struct api_error error;      /* status != 0: refused */
	struct choice *choices;
	struct stave_request *sequences; /* (n_choices); gone after the intake */
	uint64_t *seq_ids;           /* (n_choices) */
	int n_choices;
	/* event loop's */
	bool begun, taken_in;        /* the reply's stream has begun; the intake is done */
	int open;                    /* choices that have not ended */
	bool quiet;                  /* nothing was sent since the last tick: time for a comment */
};

enum message_kind { MESSAGE_LOADED, MESSAGE_TAKEN_IN, MESSAGE_EVENT };
struct message {
	struct message *next;
	enum message_kind kind;
	struct job *job;
	int choice;
	struct stave_event event;    /* its text is `text`, its logprob `lp` */
	struct stave_logprob lp;
	char text[];
};

/* intake.c: the thread; arg is the server. */
void *intake_main(void *arg);
/* False when its queue is full. */
bool intake_push(struct stave_server *s, struct job *j);
void message_post(struct stave_server *s, struct message *m); /* from any thread */

/* reply.c: what a client reads. All on the event loop's thread. */
void reply_error(struct stave_server *s, struct http_conn *c, const struct api_error *e, const char *extra);
void reply_json(struct stave_server *s, struct http_conn *c, int status, const char *request_id, json_t *body); /* takes body */
void reply_begin(struct job *j);                                     /* a stream's headers and first chunks */
void reply_event(struct job *j, struct choice *c, const struct stave_event *v); /* notes it; sends it if streaming */
void reply_end(struct job *j);                                       /* all choices have ended */

struct stave_server {
	struct stave_serve_config c;
	char name[256];
	struct event_base *base;
	struct http_server *http;
	struct event *wake, *tick, *term, *interrupt;
	int wake_fd;                 /* eventfd: the outbox has mail, or stop */
	char (*keys)[65];            /* (n_keys) SHA-256 of accepted keys */
	int n_keys;
	int64_t started, next_id;
	struct metrics metrics;
	/* event loop's */
	struct job *jobs;
	int n_jobs;
	bool ready, failed, draining;
	int port;
	double drain_s;              /* when draining began */
	int rc;                      /* of the load, with err; set before MESSAGE_LOADED */
	struct stave_err err;

	struct stave_engine *engine; /* set by the intake before MESSAGE_LOADED */
	pthread_t intake;
	bool intake_started;
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct job *inbox, **inbox_end; /* lock */
	int n_inbox;                 /* lock */
	bool closing, stop;          /* lock */
	struct message *outbox, **outbox_end; /* lock */
};

#endif
