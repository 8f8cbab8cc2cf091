/* Private to serve/: HTTP/1.1 on libevent. http_parse.c is the grammar, pure functions over bytes; http.c the connections:
 * limits, deadlines, keep-alive, replies whole or in pieces. One thread, the event loop's, calls all of it. */
#ifndef STAVE_SERVE_HTTP_H
#define STAVE_SERVE_HTTP_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/fs.h"

#define HTTP_HEAD_MAX ((size_t)16 << 10) /* request line and headers */
#define HTTP_HEADERS_MAX 100
#define HTTP_BODY_MAX ((size_t)16 << 20)
#define HTTP_CONNECTIONS_MAX 1024

/* ---- the grammar ---- */

struct http_head {
	char method[16];
	char path[512];         /* of the target, without the query */
	int minor;              /* HTTP/1.minor */
	bool keep_alive, chunked, expect_continue;
	int64_t length;         /* Content-Length, -1: none */
	char key[256];          /* Authorization: Bearer …, or x-api-key; empty: none */
};
/* Bytes of the head at p[0..n), 0 when it is not whole yet, or minus the status of the refusal with *why. What two
 * servers might read differently (both lengths, bare line ends, folded lines, spaces before a colon) is refused. */
int http_head_parse(const char *p, size_t n, struct http_head *h, const char **why);

struct http_chunks {
	int state;
	uint64_t left;
	int digits;
	size_t overhead;        /* bytes of sizes, extensions and trailers, bounded */
};
/* Decodes a chunked body from p[0..n) into body (at most `max` bytes): 1 at its end, 0 for more, or minus a status. */
int http_chunks_feed(struct http_chunks *c, const char *p, size_t n, size_t *used, struct stave_buf *body, size_t max);
const char *http_reason(int status);

/* ---- connections ---- */

struct http_conn;
struct http_server;
struct http_handler {
	void (*request)(void *ctx, struct http_conn *c); /* a whole request: reply now or later */
	void (*gone)(void *ctx, struct http_conn *c);    /* the client left before its reply was complete: c is invalid after */
	void (*refused)(void *ctx, struct http_conn *c, int status, const char *why); /* must reply */
	void *ctx;
};
int http_server_open(struct http_server **out, struct event_base *base, const char *host, int port, const struct http_handler *h, struct stave_err *err);
int http_server_port(const struct http_server *s);
/* No new connections; idle ones close, and the others after their present reply. */
void http_server_drain(struct http_server *s);
int http_server_connections(const struct http_server *s);
void http_server_close(struct http_server *s);

const struct http_head *http_head(const struct http_conn *c);
struct stave_buf *http_body(struct http_conn *c); /* the handler may take it (and zero it) */
void *http_user(const struct http_conn *c);
void http_user_set(struct http_conn *c, void *user);
/* `extra`: header lines, each ended by CRLF, or "". */
void http_reply(struct http_conn *c, int status, const char *type, const char *extra, const char *body, size_t n);
void http_stream_begin(struct http_conn *c, const char *type, const char *extra);
void http_stream_put(struct http_conn *c, const char *p, size_t n);
void http_stream_end(struct http_conn *c);

#endif
