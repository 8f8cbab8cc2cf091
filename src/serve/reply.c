/* Replies in the API's form, whole or as server-sent events. What a choice has produced since the last chunk (text, logprobs) is
 * gathered in the choice; a stream sends it after each event, a whole reply at the end. Text reaches JSON only as valid
 * UTF-8: bytes that never became characters turn into U+FFFD, except in the logprobs of completions, whose tokens
 * must stay distinct and are written "bytes:\xe2". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "serve/job.h"

#define CORS "Access-Control-Allow-Origin: *\r\n"

static const char *kind(const struct job *j, bool chunk)
{
	return j->chat ? (chunk ? "chat.completion.chunk" : "chat.completion") : "text_completion";
}

/* Takes j. */
static void send_json(struct http_conn *c, int status, const char *extra, json_t *j)
{
	char *text = json_dumps(j, JSON_COMPACT);
	json_decref(j);
	http_reply(c, status, "application/json", extra, text ? text : "{}", text ? strlen(text) : 2);
	free(text);
}

void reply_json(struct stave_server *s, struct http_conn *c, int status, const char *request_id, json_t *body)
{
	char extra[160] = CORS;
	if (request_id)
		snprintf(extra, sizeof extra, CORS "x-request-id: %s\r\n", request_id);
	send_json(c, status, extra, body);
}

static json_t *error_json(const struct api_error *e)
{
	struct stave_buf clean = {0};
	stave_utf8_clean(e->message, strlen(e->message), &clean); /* it may quote, and cut, what the client sent */
	json_t *j = json_pack("{s:{s:s, s:s, s:s?, s:s?}}", "error", "message", clean.p ? clean.p : "", "type", e->type, "param", e->param[0] ? e->param : NULL,
	                      "code", e->code);
	stave_buf_free(&clean);
	return j;
}

void reply_error(struct stave_server *s, struct http_conn *c, const struct api_error *e, const char *extra)
{
	char all[256];
	snprintf(all, sizeof all, CORS "%s", extra);
	send_json(c, e->status, all, error_json(e));
}

/* ---- pieces ---- */

static json_t *text_json(const struct stave_buf *b)
{
	struct stave_buf clean = {0};
	stave_utf8_clean(b->p ? b->p : "", b->len, &clean);
	json_t *j = json_stringn(clean.p ? clean.p : "", clean.len);
	stave_buf_free(&clean);
	return j;
}

static void token_bytes(const struct job *j, int32_t id, struct stave_buf *out)
{
	stave_buf_reserve(out, 1);
	out->p[0] = 0;
	stave_decode(stave_engine_info(j->server->engine)->tokenizer, &id, 1, true, out, NULL);
}

/* A token as text; "bytes:\x…" when it is not UTF-8 by itself. */
static json_t *token_name(const struct job *j, int32_t id)
{
	struct stave_buf raw = {0}, name = {0};
	token_bytes(j, id, &raw);
	json_t *text = json_stringn(raw.p, raw.len); /* NULL unless valid UTF-8 */
	if (!text) {
		stave_buf_printf(&name, "bytes:");
		for (size_t i = 0; i < raw.len; i++)
			stave_buf_printf(&name, "\\x%02x", (unsigned char)raw.p[i]);
		text = json_string(name.p);
	}
	stave_buf_free(&raw);
	stave_buf_free(&name);
	return text;
}

static int64_t characters(const char *p, size_t n)
{
	int64_t count = 0;
	for (size_t i = 0; i < n; i++)
		count += ((unsigned char)p[i] & 0xc0) != 0x80;
	return count;
}

/* ---- logprobs ---- */

static void put_real(json_t *array, double v) /* JSON has no -inf: the log of what rounds to nothing */
{
	json_array_append_new(array, json_real(v > -9999 ? v : -9999));
}

static void logprob_open(struct job *j, struct choice *c)
{
	c->tokens = json_array();
	if (j->chat)
		return;
	c->token_logprobs = json_array();
	c->tops = json_array();
	c->offsets = json_array();
}

static void logprob_close(struct choice *c)
{
	json_decref(c->tokens);
	json_decref(c->token_logprobs);
	json_decref(c->tops);
	json_decref(c->offsets);
	c->tokens = c->token_logprobs = c->tops = c->offsets = NULL;
}

static json_t *chat_token(const struct job *j, int32_t id, float logprob)
{
	struct stave_buf raw = {0};
	json_t *bytes = json_array();
	token_bytes(j, id, &raw);
	for (size_t i = 0; i < raw.len; i++)
		json_array_append_new(bytes, json_integer((unsigned char)raw.p[i]));
	json_t *o = json_pack("{s:o, s:f, s:o}", "token", text_json(&raw), "logprob", logprob > -9999 ? logprob : -9999.0, "bytes", bytes);
	stave_buf_free(&raw);
	return o;
}

/* The alternatives as an object {token: logprob}; if two tokens share a name the likelier keeps it. The token itself is always there. */
static json_t *top_object(const struct job *j, const struct stave_logprob *lp)
{
	json_t *top = json_object();
	for (int i = -1; i < lp->n_top; i++) {
		int32_t id = i < 0 ? lp->id : lp->top_id[i];
		double v = i < 0 ? lp->logprob : lp->top_logprob[i];
		json_t *name = token_name(j, id), *old = json_object_get(top, json_string_value(name));
		if (!old || json_real_value(old) < v)
			json_object_set_new(top, json_string_value(name), json_real(v > -9999 ? v : -9999));
		json_decref(name);
	}
	return top;
}

static void note_chat(struct job *j, struct choice *c, const struct stave_logprob *lp)
{
	json_t *o = chat_token(j, lp->id, lp->logprob), *top = json_array();
	for (int i = 0; i < lp->n_top; i++)
		json_array_append_new(top, chat_token(j, lp->top_id[i], lp->top_logprob[i]));
	json_object_set_new(o, "top_logprobs", top);
	json_array_append_new(c->tokens, o);
}

/* A token of a completion; lp NULL for the first of the prompt, which nothing predicts. */
static void note_completion(struct job *j, struct choice *c, int32_t id, const struct stave_logprob *lp)
{
	struct stave_buf raw = {0};
	json_array_append_new(c->tokens, token_name(j, id));
	json_array_append_new(c->offsets, json_integer(c->offset));
	if (lp)
		put_real(c->token_logprobs, lp->logprob);
	else
		json_array_append_new(c->token_logprobs, json_null());
	json_array_append_new(c->tops, lp ? top_object(j, lp) : json_null());
	token_bytes(j, id, &raw);
	c->offset += characters(raw.p, raw.len);
	stave_buf_free(&raw);
}

/* What has been noted since the last call, as the "logprobs" of a choice or chunk. */
static json_t *logprob_take(struct job *j, struct choice *c)
{
	if (!c->tokens)
		return json_null();
	json_t *o = j->chat ? json_pack("{s:O}", "content", c->tokens)
	                    : json_pack("{s:O, s:O, s:O, s:O}", "tokens", c->tokens, "token_logprobs", c->token_logprobs, "top_logprobs", c->tops, "text_offset", c->offsets);
	logprob_close(c);
	logprob_open(j, c);
	return o;
}

/* ---- usage ---- */

static json_t *usage_json(const struct job *j)
{
	int64_t prompt = 0, completion = 0;
	double queue = 0, prefill = 0, decode = 0;
	for (int i = 0; i < j->n_choices; i++) {
		const struct stave_event *v = &j->choices[i].end;
		prompt += i % j->request.n == 0 ? j->choices[i].n_ids : 0; /* choices share their prompt */
		completion += v->completion_tokens;
		queue = v->queue_s > queue ? v->queue_s : queue;
		prefill = v->prefill_s > prefill ? v->prefill_s : prefill;
		decode = v->decode_s > decode ? v->decode_s : decode;
	}
	return json_pack("{s:I, s:I, s:I, s:{s:i}, s:{s:i}, s:{s:f, s:f, s:f}}", "prompt_tokens", (json_int_t)prompt, "completion_tokens", (json_int_t)completion,
	                 "total_tokens", (json_int_t)(prompt + completion), "prompt_tokens_details", "cached_tokens", 0, "completion_tokens_details",
	                 "reasoning_tokens", 0, "stave", "queue_ms", queue * 1e3, "prefill_ms", prefill * 1e3, "decode_ms", decode * 1e3);
}

static json_t *envelope(const struct job *j, bool chunk, json_t *choices)
{
	char fingerprint[32];
	snprintf(fingerprint, sizeof fingerprint, "stave-%s", stave_engine_info(j->server->engine)->model_hash);
	return json_pack("{s:s, s:s, s:I, s:s, s:s, s:o}", "id", j->id, "object", kind(j, chunk), "created", (json_int_t)j->created, "model", j->server->name,
	                 "system_fingerprint", fingerprint, "choices", choices);
}

static const char *finish_name(const struct choice *c) { return c->end.finish == STAVE_FINISH_STOP ? "stop" : "length"; }

/* ---- streams ---- */

static void send_data(struct job *j, json_t *o) /* takes o */
{
	struct stave_buf b = {0};
	char *text = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	stave_buf_printf(&b, "data: ");
	if (text)
		stave_buf_put(&b, text, strlen(text));
	stave_buf_put(&b, "\n\n", 2);
	http_stream_put(j->conn, b.p, b.len);
	j->quiet = false;
	free(text);
	stave_buf_free(&b);
}

/* One chunk of one choice: `delta` (chat) or `text`, taken. */
static void send_chunk(struct job *j, struct choice *c, json_t *what, json_t *logprobs, const char *finish)
{
	json_t *choice = json_pack("{s:i, s:o, s:o, s:s?}", "index", c->index, j->chat ? "delta" : "text", what, "logprobs", logprobs, "finish_reason", finish);
	json_t *o = envelope(j, true, json_pack("[o]", choice));
	if (j->request.include_usage)
		json_object_set_new(o, "usage", json_null());
	send_data(j, o);
}

static void send_text(struct job *j, struct choice *c)
{
	bool lp = json_array_size(c->tokens) > 0;
	if (!c->chunk.len && !lp)
		return;
	json_t *text = text_json(&c->chunk);
	c->chunk.len = 0;
	send_chunk(j, c, j->chat ? json_pack("{s:o}", "content", text) : text, logprob_take(j, c), NULL);
}

/* ---- the life of a reply ---- */

void reply_begin(struct job *j)
{
	const struct api_request *r = &j->request;
	char extra[200];
	snprintf(extra, sizeof extra, CORS "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\nx-request-id: %s\r\n", j->id);
	j->begun = true;
	if (r->stream)
		http_stream_begin(j->conn, "text/event-stream; charset=utf-8", extra);
	for (int i = 0; i < j->n_choices; i++) {
		struct choice *c = &j->choices[i];
		const struct choice *first = &j->choices[c->prompt * r->n];
		if (r->logprobs >= 0)
			logprob_open(j, c);
		if (r->echo) {
			stave_decode(stave_engine_info(j->server->engine)->tokenizer, first->ids, (size_t)first->n_ids, true, r->stream ? &c->chunk : &c->text, NULL);
			if (r->logprobs >= 0)
				note_completion(j, c, first->ids[0], NULL);
		}
		if (r->stream && j->chat)
			send_chunk(j, c, json_pack("{s:s, s:s}", "role", "assistant", "content", ""), json_null(), NULL);
	}
}

void reply_event(struct job *j, struct choice *c, const struct stave_event *v)
{
	stave_buf_put(j->request.stream ? &c->chunk : &c->text, v->text, v->n_text);
	if (v->logprob && j->chat)
		note_chat(j, c, v->logprob);
	else if (v->logprob)
		note_completion(j, c, v->id, v->logprob);
	if (v->kind == STAVE_EVENT_DONE)
		c->end = *v;
	if (!j->request.stream || v->kind == STAVE_EVENT_PROMPT)
		return;
	send_text(j, c);
	if (v->kind == STAVE_EVENT_DONE && v->finish != STAVE_FINISH_CANCELLED)
		send_chunk(j, c, j->chat ? json_object() : json_string(""), json_null(), finish_name(c));
}

static void end_stream(struct job *j, bool cancelled)
{
	if (cancelled) {
		struct api_error e;
		api_fail(&e, 503, "server_error", NULL, NULL, "the server is shutting down");
		send_data(j, error_json(&e));
	} else if (j->request.include_usage) {
		json_t *o = envelope(j, true, json_array());
		json_object_set_new(o, "usage", usage_json(j));
		send_data(j, o);
	}
	http_stream_put(j->conn, "data: [DONE]\n\n", 14);
	http_stream_end(j->conn);
}

static json_t *whole(struct job *j)
{
	json_t *choices = json_array();
	for (int i = 0; i < j->n_choices; i++) {
		struct choice *c = &j->choices[i];
		json_t *text = text_json(&c->text), *what = j->chat ? json_pack("{s:s, s:o}", "role", "assistant", "content", text) : text;
		json_array_append_new(choices, json_pack("{s:i, s:o, s:o, s:s}", "index", c->index, j->chat ? "message" : "text", what, "logprobs",
		                                         logprob_take(j, c), "finish_reason", finish_name(c)));
	}
	json_t *o = envelope(j, false, choices);
	json_object_set_new(o, "usage", usage_json(j));
	return o;
}

void reply_end(struct job *j)
{
	bool cancelled = false;
	for (int i = 0; i < j->n_choices; i++)
		cancelled |= j->choices[i].end.finish == STAVE_FINISH_CANCELLED;
	if (j->request.stream) {
		end_stream(j, cancelled);
	} else if (cancelled) {
		struct api_error e;
		api_fail(&e, 503, "server_error", NULL, NULL, "the server is shutting down");
		reply_error(j->server, j->conn, &e, "retry-after: 5\r\n");
	} else {
		reply_json(j->server, j->conn, 200, j->id, whole(j));
	}
}
