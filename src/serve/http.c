/* Connections. Each is a small state machine: HEAD and BODY collect a request, BUSY waits for the handler's reply, CLOSING
 * flushes and lingers. Every state but BUSY has a deadline of its own that further bytes do not extend, so a client that
 * sends one byte a minute is cut off. While BUSY the socket is still read: end of file means the client left, and the
 * handler hears of it at once.
 *
 * A connection may be ended from within its own callbacks; it is then only marked, and freed when the callback returns. */
#include "serve/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define INPUT_MAX ((size_t)256 << 10) /* read ahead of the parser */
enum { IDLE_S = 75, HEAD_S = 15, BODY_S = 60, WRITE_S = 60, LINGER_S = 2 };
enum state { IDLE, HEAD, BODY, BUSY, CLOSING };

struct http_conn {
	struct http_server *server;
	struct http_conn *next, **link;
	struct bufferevent *bev;
	struct event *deadline;
	enum state state;
	bool inside, dead, streaming, chunked, linger;
	struct http_head head;
	struct http_chunks chunks;
	struct stave_buf body;
	void *user;
};

struct http_server {
	struct event_base *base;
	struct evconnlistener *listener;
	struct http_handler h;
	struct http_conn *conns;
	int n_conns;
	bool draining;
};

static void process(struct http_conn *c);

static void deadline(struct http_conn *c, int seconds)
{
	struct timeval t = {seconds, 0};
	if (seconds)
		evtimer_add(c->deadline, &t);
	else
		evtimer_del(c->deadline);
}

static void enter(struct http_conn *c, enum state state)
{
	static const int seconds[] = {IDLE_S, HEAD_S, BODY_S, 0, WRITE_S};
	c->state = state;
	deadline(c, seconds[state]);
}

static void conn_free(struct http_conn *c)
{
	if (c->inside) {
		c->dead = true;
		return;
	}
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	c->server->n_conns--;
	event_free(c->deadline);
	bufferevent_free(c->bev);
	stave_buf_free(&c->body);
	free(c);
}

static void gone(struct http_conn *c)
{
	if (c->state == BUSY)
		c->server->h.gone(c->server->h.ctx, c);
	conn_free(c);
}

/* ---- requests ---- */

static void refuse(struct http_conn *c, int status, const char *why)
{
	c->head.keep_alive = false;
	enter(c, BUSY);
	c->server->h.refused(c->server->h.ctx, c, status, why);
}

static bool read_head(struct http_conn *c, struct evbuffer *in)
{
	const char *why = "";
	size_t n = evbuffer_get_length(in);
	if (n && c->state == IDLE)
		enter(c, HEAD);
	if (n > HTTP_HEAD_MAX + 1)
		n = HTTP_HEAD_MAX + 1;
	const char *p = (const char *)evbuffer_pullup(in, (ev_ssize_t)n);
	int used = n ? http_head_parse(p, n, &c->head, &why) : 0;
	if (used < 0)
		refuse(c, -used, why);
	if (used <= 0)
		return false;
	evbuffer_drain(in, (size_t)used);
	c->chunks = (struct http_chunks){0};
	c->body.len = 0;
	if (c->head.length > (int64_t)HTTP_BODY_MAX) {
		refuse(c, 413, "the body is too large");
		return false;
	}
	enter(c, BODY);
	if (c->head.expect_continue && (c->head.chunked || c->head.length > 0))
		bufferevent_write(c->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	return true;
}

/* 1 when the body is whole, 0 for more, or minus a status. */
static int read_body(struct http_conn *c, struct evbuffer *in)
{
	size_t n = evbuffer_get_length(in), used;
	if (c->head.chunked) {
		const char *p = (const char *)evbuffer_pullup(in, -1);
		int rc = n ? http_chunks_feed(&c->chunks, p, n, &used, &c->body, HTTP_BODY_MAX) : 0;
		if (n)
			evbuffer_drain(in, used);
		return rc;
	}
	size_t want = c->head.length > 0 ? (size_t)c->head.length - c->body.len : 0;
	n = n < want ? n : want;
	stave_buf_reserve(&c->body, n + 1);
	if (n)
		stave_buf_put(&c->body, evbuffer_pullup(in, (ev_ssize_t)n), n);
	evbuffer_drain(in, n);
	return n == want;
}

/* As many requests as have arrived, one reply at a time. */
static void process(struct http_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	if (c->inside)
		return;
	c->inside = true;
	while (!c->dead && c->state != BUSY && c->state != CLOSING) {
		if (c->state != BODY && !read_head(c, in))
			break;
		int rc = read_body(c, in);
		if (rc < 0)
			refuse(c, -rc, rc == -413 ? "the body is too large" : "the chunked body is malformed");
		if (rc <= 0)
			break;
		enter(c, BUSY);
		c->server->h.request(c->server->h.ctx, c);
	}
	if (c->state == CLOSING)
		evbuffer_drain(in, evbuffer_get_length(in));
	c->inside = false;
	if (c->dead)
		conn_free(c);
}

static void on_read(struct bufferevent *bev, void *arg) { process(arg); }

static void on_write(struct bufferevent *bev, void *arg)
{
	struct http_conn *c = arg;
	if (c->state != CLOSING || c->linger)
		return;
	/* all is flushed: say so, and read what is still coming, lest a reset overtake the reply */
	c->linger = true;
	shutdown(bufferevent_getfd(bev), SHUT_WR);
	deadline(c, LINGER_S);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT))
		gone(arg);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct http_conn *c = arg;
	if (c->state == HEAD || c->state == BODY)
		refuse(c, 408, "the request took too long to arrive");
	else
		gone(c);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *addr, int len, void *arg)
{
	struct http_server *s = arg;
	struct http_conn *c = s->n_conns < HTTP_CONNECTIONS_MAX ? calloc(1, sizeof *c) : NULL;
	if (!c) {
		close(fd);
		return;
	}
	int one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* a token is a packet: do not wait for more */
	c->server = s;
	c->bev = bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE);
	c->deadline = evtimer_new(s->base, on_deadline, c);
	if (!c->bev || !c->deadline) {
		if (c->bev)
			bufferevent_free(c->bev);
		else
			close(fd);
		if (c->deadline)
			event_free(c->deadline);
		free(c);
		return;
	}
	c->next = s->conns;
	c->link = &s->conns;
	if (c->next)
		c->next->link = &c->next;
	s->conns = c;
	s->n_conns++;
	struct timeval write_timeout = {WRITE_S, 0};
	bufferevent_setcb(c->bev, on_read, on_write, on_event, c);
	bufferevent_set_timeouts(c->bev, NULL, &write_timeout);
	bufferevent_setwatermark(c->bev, EV_READ, 0, INPUT_MAX);
	bufferevent_enable(c->bev, EV_READ | EV_WRITE);
	enter(c, HEAD);
}

/* ---- replies ---- */

const struct http_head *http_head(const struct http_conn *c) { return &c->head; }
struct stave_buf *http_body(struct http_conn *c) { return &c->body; }
void *http_user(const struct http_conn *c) { return c->user; }
void http_user_set(struct http_conn *c, void *user) { c->user = user; }

static void complete(struct http_conn *c)
{
	c->user = NULL;
	c->streaming = false;
	if (c->head.keep_alive && !c->server->draining) {
		enter(c, IDLE);
		process(c);
		return;
	}
	enter(c, CLOSING);
	if (!evbuffer_get_length(bufferevent_get_output(c->bev)))
		on_write(c->bev, c);
}

static void start(struct http_conn *c, int status, const char *type, const char *extra, const char *framing)
{
	bool close_after = !c->head.keep_alive || c->server->draining;
	evbuffer_add_printf(bufferevent_get_output(c->bev), "HTTP/1.1 %d %s\r\n%s%s%s%s%s%s\r\n", status, http_reason(status), type ? "Content-Type: " : "",
	                    type ? type : "", type ? "\r\n" : "", framing, extra, close_after ? "Connection: close\r\n" : "");
}

void http_reply(struct http_conn *c, int status, const char *type, const char *extra, const char *body, size_t n)
{
	char length[48] = "";
	if (status != 204)
		snprintf(length, sizeof length, "Content-Length: %zu\r\n", n);
	start(c, status, type, extra, length);
	if (strcmp(c->head.method, "HEAD"))
		bufferevent_write(c->bev, body, n);
	complete(c);
}

void http_stream_begin(struct http_conn *c, const char *type, const char *extra)
{
	c->streaming = true;
	c->chunked = c->head.minor > 0;
	if (!c->chunked)
		c->head.keep_alive = false; /* HTTP/1.0: the end of the connection is the end of the stream */
	start(c, 200, type, extra, c->chunked ? "Transfer-Encoding: chunked\r\n" : "");
}

void http_stream_put(struct http_conn *c, const char *p, size_t n)
{
	struct evbuffer *out = bufferevent_get_output(c->bev);
	if (!n)
		return;
	if (c->chunked)
		evbuffer_add_printf(out, "%zx\r\n", n);
	evbuffer_add(out, p, n);
	if (c->chunked)
		evbuffer_add(out, "\r\n", 2);
}

void http_stream_end(struct http_conn *c)
{
	if (c->chunked)
		bufferevent_write(c->bev, "0\r\n\r\n", 5);
	complete(c);
}

/* ---- the server ---- */

int http_server_open(struct http_server **out, struct event_base *base, const char *host, int port, const struct http_handler *h, struct stave_err *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found;
	char service[16];
	snprintf(service, sizeof service, "%d", port);
	int rc = getaddrinfo(host, service, &hints, &found);
	if (rc)
		return stave_err_set(err, STAVE_EUSAGE, "host '%s': %s", host, gai_strerror(rc));
	struct http_server *s = calloc(1, sizeof *s);
	if (s) {
		s->base = base;
		s->h = *h;
		s->listener = evconnlistener_new_bind(base, on_accept, s, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, 512,
		                                      found->ai_addr, (int)found->ai_addrlen);
	}
	freeaddrinfo(found);
	if (!s || !s->listener) {
		free(s);
		stave_err_errno(err, "listening on %s port %d", host, port);
		return err ? err->code = STAVE_EPEER : STAVE_EPEER;
	}
	*out = s;
	return 0;
}

int http_server_port(const struct http_server *s)
{
	struct sockaddr_storage a;
	socklen_t n = sizeof a;
	if (getsockname(evconnlistener_get_fd(s->listener), (struct sockaddr *)&a, &n))
		return -1;
	return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port : ((struct sockaddr_in *)&a)->sin_port);
}

void http_server_drain(struct http_server *s)
{
	s->draining = true;
	if (s->listener)
		evconnlistener_free(s->listener);
	s->listener = NULL;
	for (struct http_conn *c = s->conns, *next; c; c = next) {
		next = c->next;
		if (c->state == IDLE || (c->state == HEAD && !evbuffer_get_length(bufferevent_get_input(c->bev))))
			conn_free(c);
	}
}

int http_server_connections(const struct http_server *s) { return s->n_conns; }

void http_server_close(struct http_server *s)
{
	if (!s)
		return;
	while (s->conns)
		gone(s->conns);
	if (s->listener)
		evconnlistener_free(s->listener);
	free(s);
}
