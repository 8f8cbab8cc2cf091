/* The event loop's side: routes, the outbox, the lives of jobs, draining. Nothing here waits or computes. */
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/sys.h"
#include "serve/job.h"

#define VERSION "0.1"
enum { TICK_S = 15, DRAIN_S = 30 };

/* ---- jobs ---- */

static void job_free(struct job *j)
{
	*j->link = j->next;
	if (j->next)
		j->next->link = j->link;
	j->server->n_jobs--;
	for (int i = 0; i < j->n_choices; i++) {
		struct choice *c = &j->choices[i];
		free(c->ids);
		stave_buf_free(&c->text);
		stave_buf_free(&c->chunk);
		json_decref(c->tokens);
		json_decref(c->token_logprobs);
		json_decref(c->tops);
		json_decref(c->offsets);
	}
	free(j->choices);
	free(j->sequences);
	free(j->seq_ids);
	stave_buf_free(&j->body);
	api_request_free(&j->request);
	free(j);
}

static void job_cancel(struct job *j)
{
	for (int i = 0; i < j->n_choices; i++)
		if (!j->choices[i].done)
			stave_engine_cancel(j->server->engine, j->seq_ids[i]);
}

/* First news of a job: its choices are known. */
static void job_begin(struct job *j)
{
	if (j->begun)
		return;
	j->open = j->n_choices;
	if (j->conn)
		reply_begin(j);
	j->begun = true;
}

static void count_error(struct stave_server *s, enum endpoint e, int status)
{
	metrics_http(&s->metrics, e, status);
	if (status == 429)
		s->metrics.rejected_queue++;
}

static enum endpoint endpoint_of(const struct job *j) { return j->chat ? ENDPOINT_CHAT : ENDPOINT_COMPLETIONS; }

static void job_refuse(struct job *j)
{
	char extra[96];
	count_error(j->server, endpoint_of(j), j->error.status);
	if (!j->conn)
		return;
	snprintf(extra, sizeof extra, "x-request-id: %s\r\n%s", j->id, j->error.status == 429 || j->error.status == 503 ? "retry-after: 1\r\n" : "");
	reply_error(j->server, j->conn, &j->error, extra);
	j->conn = NULL;
}

static void on_taken_in(struct job *j)
{
	j->taken_in = true;
	if (j->error.status) {
		job_refuse(j);
		job_free(j);
		return;
	}
	job_begin(j);
	if (!j->conn)
		job_cancel(j); /* the client left before there was anything to cancel */
	if (j->open == 0)
		job_free(j);
}

static void measure(struct job *j, struct choice *c, const struct stave_event *v)
{
	struct metrics *m = &j->server->metrics;
	if (v->kind == STAVE_EVENT_TOKEN) {
		if (c->last_token_s > 0)
			metrics_gap(m, v->time_s - c->last_token_s);
		else
			metrics_ttft(m, v->time_s - j->arrived_s);
		c->last_token_s = v->time_s;
	}
	if (v->kind != STAVE_EVENT_DONE)
		return;
	m->finished[v->finish]++;
	m->prompt_tokens += (uint64_t)v->prompt_tokens;
	m->generation_tokens += (uint64_t)v->completion_tokens;
	metrics_queue(m, v->queue_s);
	if (v->finish == STAVE_FINISH_CANCELLED)
		return;
	metrics_duration(m, v->time_s - j->arrived_s);
	metrics_prefill(m, v->prefill_s);
	metrics_decode(m, v->decode_s);
	metrics_prompt(m, v->prompt_tokens);
	metrics_generation(m, v->completion_tokens);
}

static void on_event(struct job *j, int choice, const struct stave_event *v)
{
	job_begin(j);
	struct choice *c = &j->choices[choice];
	measure(j, c, v);
	if (j->conn)
		reply_event(j, c, v);
	if (v->kind != STAVE_EVENT_DONE)
		return;
	c->done = true;
	if (--j->open)
		return;
	if (j->conn) {
		struct http_conn *conn = j->conn;
		http_user_set(conn, NULL);
		metrics_http(&j->server->metrics, endpoint_of(j), 200);
		reply_end(j);
		j->conn = NULL;
	}
	if (j->taken_in)
		job_free(j);
}

/* ---- the outbox ---- */

static void on_loaded(struct stave_server *s)
{
	if (s->rc) {
		s->failed = true;
		event_base_loopbreak(s->base);
		return;
	}
	s->ready = true;
	stave_log(STAVE_LOG_INFO, "serving %s on http://%s:%d/v1", s->name, s->c.host, s->port);
}

static void start_drain(struct stave_server *s)
{
	struct timeval soon = {0, 50000};
	if (s->draining)
		return;
	s->draining = true;
	s->drain_s = stave_now_s();
	stave_log(STAVE_LOG_INFO, "stopping: %d requests are being answered", s->n_jobs);
	http_server_drain(s->http);
	event_add(s->tick, &soon);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct stave_server *s = arg;
	uint64_t ignored;
	if (read(s->wake_fd, &ignored, sizeof ignored) < 0)
		return; /* another wake-up has read it */
	pthread_mutex_lock(&s->lock);
	struct message *m = s->outbox;
	s->outbox = NULL;
	s->outbox_end = &s->outbox;
	bool stop = s->stop;
	pthread_mutex_unlock(&s->lock);
	while (m) {
		struct message *next = m->next;
		if (m->kind == MESSAGE_LOADED)
			on_loaded(s);
		else if (m->kind == MESSAGE_TAKEN_IN)
			on_taken_in(m->job);
		else
			on_event(m->job, m->choice, &m->event);
		free(m);
		m = next;
	}
	if (stop)
		start_drain(s);
}

/* Every 15 s: a comment into streams that had nothing to say, so that proxies do not give them up. While draining, every
 * 50 ms: are we done? */
static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct stave_server *s = arg;
	struct timeval next = {TICK_S, 0};
	if (s->draining) {
		double waited = stave_now_s() - s->drain_s;
		if ((!s->n_jobs && (!http_server_connections(s->http) || waited > 2)) || waited > DRAIN_S + 5) {
			event_base_loopbreak(s->base);
			return;
		}
		if (waited > DRAIN_S)
			for (struct job *j = s->jobs; j; j = j->next)
				if (j->begun)
					job_cancel(j);
		next = (struct timeval){0, 50000};
	} else {
		for (struct job *j = s->jobs; j; j = j->next) {
			if (j->quiet && j->conn && j->begun && j->request.stream)
				http_stream_put(j->conn, ": keep-alive\n\n", 14);
			j->quiet = true;
		}
	}
	event_add(s->tick, &next);
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
	struct stave_server *s = arg;
	if (s->draining)
		event_base_loopbreak(s->base); /* asked twice */
	start_drain(s);
}

/* ---- routes ---- */

static bool authorized(const struct stave_server *s, const char *key)
{
	char hex[65];
	bool found = false;
	if (!s->c.key_file)
		return true;
	stave_sha256(key, strlen(key), hex);
	for (int i = 0; i < s->n_keys; i++) { /* all of them, all of each: the time says nothing about the key */
		unsigned char diff = 0;
		for (int k = 0; k < 64; k++)
			diff |= (unsigned char)(hex[k] ^ s->keys[i][k]);
		found |= diff == 0;
	}
	return found;
}

static void deny(struct stave_server *s, struct http_conn *c, enum endpoint e, int status, const char *type, const char *code, const char *message, const char *extra)
{
	struct api_error error;
	api_fail(&error, status, type, code, NULL, "%s", message);
	count_error(s, e, status);
	reply_error(s, c, &error, extra);
}

static void post(struct stave_server *s, struct http_conn *c, bool chat)
{
	enum endpoint e = chat ? ENDPOINT_CHAT : ENDPOINT_COMPLETIONS;
	if (!s->ready || s->draining) {
		s->metrics.rejected_draining++;
		deny(s, c, e, 503, "server_error", NULL, s->draining ? "the server is shutting down" : "the model is being loaded", "retry-after: 2\r\n");
		return;
	}
	struct job *j = calloc(1, sizeof *j);
	if (!j) {
		deny(s, c, e, 500, "server_error", NULL, "out of memory", "");
		return;
	}
	j->server = s;
	j->chat = chat;
	j->conn = c;
	j->created = (int64_t)time(NULL);
	j->arrived_s = stave_now_s();
	snprintf(j->id, sizeof j->id, "%s-%016llx", chat ? "chatcmpl" : "cmpl", (unsigned long long)stave_random64((uint64_t)s->started, (uint64_t)s->next_id++));
	j->body = *http_body(c);
	*http_body(c) = (struct stave_buf){0};
	j->next = s->jobs;
	j->link = &s->jobs;
	if (j->next)
		j->next->link = &j->next;
	s->jobs = j;
	s->n_jobs++;
	http_user_set(c, j);
	if (intake_push(s, j))
		return;
	http_user_set(c, NULL);
	job_free(j);
	deny(s, c, e, 429, "rate_limit_error", "queue_full", "too many requests are waiting; try again later", "retry-after: 1\r\n");
}

static json_t *model_json(const struct stave_server *s)
{
	return json_pack("{s:s, s:s, s:I, s:s, s:i}", "id", s->name, "object", "model", "created", (json_int_t)s->started, "owned_by", "stave", "max_model_len",
	                 stave_engine_info(s->engine)->context);
}

static void models(struct stave_server *s, struct http_conn *c, const char *id)
{
	bool listed = s->ready && !s->draining;
	if (*id && (!listed || strcmp(id + 1, s->name))) {
		deny(s, c, ENDPOINT_MODELS, 404, "invalid_request_error", "model_not_found", "no model has that id", "");
		return;
	}
	metrics_http(&s->metrics, ENDPOINT_MODELS, 200);
	json_t *list = json_array();
	if (listed && !*id)
		json_array_append_new(list, model_json(s));
	if (*id)
		json_decref(list);
	reply_json(s, c, 200, NULL, *id ? model_json(s) : json_pack("{s:s, s:o}", "object", "list", "data", list));
}

static void probe(struct stave_server *s, struct http_conn *c, bool ok, const char *text)
{
	metrics_http(&s->metrics, ENDPOINT_PROBE, ok ? 200 : 503);
	reply_json(s, c, ok ? 200 : 503, NULL, json_pack("{s:s}", "status", text));
}

static void metrics_page(struct stave_server *s, struct http_conn *c)
{
	struct stave_buf b = {0};
	metrics_text(&s->metrics, s->name, s->ready ? s->engine : NULL, &b);
	metrics_http(&s->metrics, ENDPOINT_METRICS, 200);
	http_reply(c, 200, "text/plain; version=0.0.4; charset=utf-8", "", b.p, b.len);
	stave_buf_free(&b);
}

static void preflight(struct stave_server *s, struct http_conn *c)
{
	metrics_http(&s->metrics, ENDPOINT_OTHER, 204);
	http_reply(c, 204, NULL, "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Methods: GET, POST, OPTIONS\r\n"
	                         "Access-Control-Allow-Headers: *, Authorization\r\nAccess-Control-Max-Age: 86400\r\n", "", 0);
}

static bool open_to_all(const char *path) { return !strcmp(path, "/health") || !strcmp(path, "/ready") || !strcmp(path, "/version"); }

static void get(struct stave_server *s, struct http_conn *c, const char *path)
{
	if (!strcmp(path, "/health"))
		probe(s, c, true, "ok");
	else if (!strcmp(path, "/ready"))
		probe(s, c, s->ready && !s->draining, s->draining ? "stopping" : s->ready ? "ready" : "loading");
	else if (!strcmp(path, "/version"))
		reply_json(s, c, 200, NULL, json_pack("{s:s}", "version", VERSION));
	else if (!strcmp(path, "/metrics"))
		metrics_page(s, c);
	else
		models(s, c, path + strlen("/v1/models"));
}

static void on_request(void *ctx, struct http_conn *c)
{
	struct stave_server *s = ctx;
	const struct http_head *h = http_head(c);
	const char *path = h->path;
	bool chat = !strcmp(path, "/v1/chat/completions"), posts = chat || !strcmp(path, "/v1/completions");
	bool gets = open_to_all(path) || !strcmp(path, "/metrics") || !strcmp(path, "/v1/models") || !strncmp(path, "/v1/models/", 11);
	if (!strcmp(h->method, "OPTIONS"))
		preflight(s, c);
	else if (!open_to_all(path) && !authorized(s, h->key)) {
		s->metrics.rejected_auth++;
		deny(s, c, ENDPOINT_OTHER, 401, "authentication_error", "invalid_api_key", "a valid API key is needed: Authorization: Bearer KEY", "WWW-Authenticate: Bearer\r\n");
	} else if (!posts && !gets)
		deny(s, c, ENDPOINT_OTHER, 404, "invalid_request_error", NULL, "no such path", "");
	else if (posts && !strcmp(h->method, "POST"))
		post(s, c, chat);
	else if (gets && (!strcmp(h->method, "GET") || !strcmp(h->method, "HEAD")))
		get(s, c, path);
	else
		deny(s, c, ENDPOINT_OTHER, 405, "invalid_request_error", NULL, "that method is not for this path", posts ? "Allow: POST, OPTIONS\r\n" : "Allow: GET, HEAD, OPTIONS\r\n");
}

static void on_gone(void *ctx, struct http_conn *c)
{
	struct stave_server *s = ctx;
	struct job *j = http_user(c);
	s->metrics.disconnects++;
	if (!j)
		return;
	j->conn = NULL;
	if (j->begun)
		job_cancel(j);
}

static void on_refused(void *ctx, struct http_conn *c, int status, const char *why)
{
	deny(ctx, c, ENDPOINT_OTHER, status, "invalid_request_error", NULL, why, "");
}

/* ---- opening and closing ---- */

static int read_keys(struct stave_server *s, const char *path, struct stave_err *err)
{
	struct stave_buf b = {0};
	char *save = NULL;
	int rc = stave_file_read(&b, path, 1 << 20, err);
	if (rc)
		return rc;
	for (char *line = strtok_r(b.p, "\r\n", &save); line && !rc; line = strtok_r(NULL, "\r\n", &save)) {
		if (!*line || *line == '#')
			continue;
		if (strspn(line, "0123456789abcdef") != 64 || (line[64] && line[64] != ' ')) {
			rc = stave_err_set(err, STAVE_ECONFIG, "%s: each line must begin with 64 lower-case hex digits, the SHA-256 of a key (printf %%s KEY | sha256sum)", path);
			break;
		}
		s->keys = realloc(s->keys, (size_t)(s->n_keys + 1) * sizeof *s->keys);
		if (!s->keys)
			abort();
		snprintf(s->keys[s->n_keys++], sizeof *s->keys, "%.64s", line);
	}
	if (!rc && !s->n_keys)
		rc = stave_err_set(err, STAVE_ECONFIG, "%s holds no key", path);
	stave_buf_free(&b);
	return rc;
}

/* The model's id: as told, or the last part of its path. */
static void choose_name(struct stave_server *s)
{
	const char *path = s->c.engine.model;
	size_t n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		n--;
	size_t begin = n;
	while (begin > 0 && path[begin - 1] != '/')
		begin--;
	if (s->c.name)
		snprintf(s->name, sizeof s->name, "%s", s->c.name);
	else
		snprintf(s->name, sizeof s->name, "%.*s", (int)(n - begin), path + begin);
	struct stave_buf clean = {0};
	stave_utf8_clean(s->name, strlen(s->name), &clean); /* it goes into JSON */
	snprintf(s->name, sizeof s->name, "%s", clean.p ? clean.p : "");
	stave_buf_free(&clean);
}

static int open_events(struct stave_server *s, struct stave_err *err)
{
	struct timeval tick = {TICK_S, 0};
	s->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	s->base = event_base_new();
	if (s->wake_fd < 0 || !s->base)
		return stave_err_errno(err, "opening the event loop");
	s->wake = event_new(s->base, s->wake_fd, EV_READ | EV_PERSIST, on_wake, s);
	s->tick = evtimer_new(s->base, on_tick, s);
	s->term = evsignal_new(s->base, SIGTERM, on_signal, s);
	s->interrupt = evsignal_new(s->base, SIGINT, on_signal, s);
	if (!s->wake || !s->tick || !s->term || !s->interrupt || event_add(s->wake, NULL) || event_add(s->tick, &tick))
		return stave_err_set(err, STAVE_ENOMEM, "opening the event loop");
	struct http_handler h = {on_request, on_gone, on_refused, s};
	int rc = http_server_open(&s->http, s->base, s->c.host, s->c.port, &h, err);
	if (!rc)
		s->port = http_server_port(s->http);
	return rc;
}

int stave_server_open(struct stave_server **out, const struct stave_serve_config *c, struct stave_err *err)
{
	struct stave_server *s = calloc(1, sizeof *s);
	if (!s)
		return stave_err_set(err, STAVE_ENOMEM, "out of memory opening the server");
	s->c = *c;
	s->c.host = c->host ? c->host : "127.0.0.1";
	s->wake_fd = -1;
	s->started = (int64_t)time(NULL);
	s->inbox_end = &s->inbox;
	s->outbox_end = &s->outbox;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->work, NULL);
	choose_name(s);
	signal(SIGPIPE, SIG_IGN);
	int rc = c->key_file ? read_keys(s, c->key_file, err) : 0;
	if (!rc)
		rc = open_events(s, err);
	if (!rc) {
		s->intake_started = !pthread_create(&s->intake, NULL, intake_main, s);
		rc = s->intake_started ? 0 : stave_err_set(err, STAVE_EFAIL, "starting the intake thread");
	}
	if (rc) {
		stave_server_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

int stave_server_port(const struct stave_server *s) { return s->port; }

int stave_server_run(struct stave_server *s, struct stave_err *err)
{
	event_add(s->term, NULL);
	event_add(s->interrupt, NULL);
	event_base_dispatch(s->base);
	event_del(s->term);
	event_del(s->interrupt);
	return s->failed ? stave_err_set(err, s->rc, "%s", s->err.msg) : 0;
}

void stave_server_stop(struct stave_server *s)
{
	uint64_t one = 1;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_mutex_unlock(&s->lock);
	if (write(s->wake_fd, &one, sizeof one) < 0)
		stave_log(STAVE_LOG_ERROR, "waking the event loop: %m");
}

void stave_server_close(struct stave_server *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->closing = true;
	pthread_cond_broadcast(&s->work);
	pthread_mutex_unlock(&s->lock);
	if (s->intake_started)
		pthread_join(s->intake, NULL);
	stave_engine_close(s->engine); /* every sequence ends; after this nobody posts */
	http_server_close(s->http);
	while (s->jobs)
		job_free(s->jobs);
	while (s->outbox) {
		struct message *next = s->outbox->next;
		free(s->outbox);
		s->outbox = next;
	}
	struct event *events[] = {s->wake, s->tick, s->term, s->interrupt};
	for (size_t i = 0; i < sizeof events / sizeof *events; i++)
		if (events[i])
			event_free(events[i]);
	if (s->base)
		event_base_free(s->base);
	if (s->wake_fd >= 0)
		close(s->wake_fd);
	free(s->keys);
	pthread_cond_destroy(&s->work);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
