/* serve/: a model behind the OpenAI-style HTTP API. Three threads: the event loop's, which moves bytes and never computes; the
 * intake's, which loads the model, reads request bodies and tokenizes; the engine's, which computes and never touches a
 * socket. They share by queues. Every queue, body, header and connection count has a bound: what is over is refused at
 * once with a status a client can act on (413, 429 with retry-after, 431, 503), and a client that leaves frees its slots
 * within one step.
 *
 *   GET  /health  the process lives      /ready  the model is loaded and nothing drains      /version      /metrics
 *   GET  /v1/models, /v1/models/{id}     POST /v1/completions, /v1/chat/completions */
#ifndef STAVE_SERVE_H
#define STAVE_SERVE_H

#include "infer/infer.h"

struct stave_serve_config {
	struct stave_engine_config engine;
	const char *name;       /* the model's id; NULL: the last part of its path */
	const char *host;       /* NULL: 127.0.0.1 */
	int port;               /* 0: one the system chooses */
	const char *key_file;   /* NULL: open to all; else lines of SHA-256 in hex, one per accepted API key */
};
struct stave_server;
/* Listens; the model loads in the background (until then /ready and the API answer 503). */
int stave_server_open(struct stave_server **out, const struct stave_serve_config *c, struct stave_err *err);
int stave_server_port(const struct stave_server *s);
/* Serves until stave_server_stop, SIGTERM or SIGINT: then no new connections, running answers end (30 s at most), 0. A model
 * that does not load is the error it failed with. */
int stave_server_run(struct stave_server *s, struct stave_err *err);
void stave_server_stop(struct stave_server *s); /* from any thread */
void stave_server_close(struct stave_server *s);

#endif
