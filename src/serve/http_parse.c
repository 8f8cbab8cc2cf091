/* The grammar of HTTP/1.1 requests (RFC 9112), strictly: lines end in CRLF, one length only, no folding. Nothing here
 * allocates but the body, which has a bound. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "serve/http.h"

static bool is_token(unsigned char c) { return isalnum(c) || (c && strchr("!#$%&'*+-.^_`|~", c)); }

const char *http_reason(int status)
{
	switch (status) {
	case 200: return "OK";
	case 204: return "No Content";
	case 400: return "Bad Request";
	case 401: return "Unauthorized";
	case 404: return "Not Found";
	case 405: return "Method Not Allowed";
	case 408: return "Request Timeout";
	case 413: return "Content Too Large";
	case 429: return "Too Many Requests";
	case 431: return "Request Header Fields Too Large";
	case 500: return "Internal Server Error";
	case 501: return "Not Implemented";
	case 503: return "Service Unavailable";
	case 505: return "HTTP Version Not Supported";
	}
	return "Error";
}

static int refuse(int status, const char *text, const char **why)
{
	*why = text;
	return -status;
}

/* A line within p[0..n): its length without CRLF, or -1 if it contains a bare CR or LF or another control character. */
static int line_length(const char *p, size_t n)
{
	for (size_t i = 0; i + 1 < n; i++) {
		unsigned char c = (unsigned char)p[i];
		if (c == '\r' && p[i + 1] == '\n')
			return (int)i;
		if ((c < 32 && c != '\t') || c == 127)
			return -1;
	}
	return -1;
}

static int request_line(const char *p, int n, struct http_head *h, const char **why)
{
	int m = 0, t;
	while (m < n && is_token((unsigned char)p[m]))
		m++;
	if (m == 0 || m >= (int)sizeof h->method || m >= n || p[m] != ' ')
		return refuse(400, "the request line has no method", why);
	memcpy(h->method, p, (size_t)m);
	const char *target = p + m + 1;
	n -= m + 1;
	for (t = 0; t < n && target[t] != ' '; t++)
		;
	if (t == n || n - t != 9 || memcmp(target + t, " HTTP/", 6) || !isdigit((unsigned char)target[t + 6]) || target[t + 7] != '.' ||
	    !isdigit((unsigned char)target[t + 8]))
		return refuse(400, "the request line has no HTTP version", why);
	if (target[t + 6] != '1')
		return refuse(505, "HTTP/1.1 is spoken here", why);
	h->minor = target[t + 8] - '0';
	if (t == 0 || target[0] != '/')
		return refuse(400, "the request's target must be a path", why);
	int path = 0;
	while (path < t && target[path] != '?')
		path++;
	if (path >= (int)sizeof h->path)
		return refuse(431, "the path is too long", why);
	memcpy(h->path, target, (size_t)path);
	return 0;
}

static bool same(const char *name, int n, const char *want) { return (int)strlen(want) == n && !strncasecmp(name, want, (size_t)n); }

/* Is `word` an element of the comma-separated list? */
static bool lists(const char *v, int n, const char *word)
{
	int len = (int)strlen(word), i = 0;
	while (i < n) {
		while (i < n && (v[i] == ' ' || v[i] == '\t' || v[i] == ','))
			i++;
		int end = i;
		while (end < n && v[end] != ',')
			end++;
		int last = end;
		while (last > i && (v[last - 1] == ' ' || v[last - 1] == '\t'))
			last--;
		if (last - i == len && !strncasecmp(v + i, word, (size_t)len))
			return true;
		i = end;
	}
	return false;
}

static int content_length(const char *v, int n, struct http_head *h, const char **why)
{
	if (h->length >= 0)
		return refuse(400, "two Content-Length headers", why);
	if (n < 1 || n > 18)
		return refuse(400, "Content-Length is not a number of bytes", why);
	h->length = 0;
	for (int i = 0; i < n; i++) {
		if (!isdigit((unsigned char)v[i]))
			return refuse(400, "Content-Length is not a number of bytes", why);
		h->length = h->length * 10 + (v[i] - '0');
	}
	return 0;
}

static int header(const char *name, int nn, const char *v, int nv, struct http_head *h, int *hosts, const char **why)
{
	if (same(name, nn, "content-length"))
		return content_length(v, nv, h, why);
	if (same(name, nn, "transfer-encoding")) {
		if (h->chunked || !same(v, nv, "chunked"))
			return refuse(501, "the only Transfer-Encoding understood is one 'chunked'", why);
		h->chunked = true;
	} else if (same(name, nn, "connection")) {
		if (lists(v, nv, "close"))
			h->keep_alive = false;
		else if (h->minor == 0 && lists(v, nv, "keep-alive"))
			h->keep_alive = true;
	} else if (same(name, nn, "expect")) {
		h->expect_continue = same(v, nv, "100-continue");
	} else if (same(name, nn, "host")) {
		++*hosts;
	} else if (same(name, nn, "authorization") && nv > 7 && !strncasecmp(v, "bearer ", 7)) {
		snprintf(h->key, sizeof h->key, "%.*s", nv - 7, v + 7);
	} else if (same(name, nn, "x-api-key") && !h->key[0]) {
		snprintf(h->key, sizeof h->key, "%.*s", nv, v);
	}
	return 0;
}

static int header_line(const char *p, int n, struct http_head *h, int *hosts, const char **why)
{
	int name = 0;
	while (name < n && is_token((unsigned char)p[name]))
		name++;
	if (name == 0 || name == n || p[name] != ':')
		return refuse(400, "a header line is not 'Name: value'", why);
	const char *v = p + name + 1, *end = p + n;
	while (v < end && (*v == ' ' || *v == '\t'))
		v++;
	while (end > v && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	return header(p, name, v, (int)(end - v), h, hosts, why);
}

int http_head_parse(const char *p, size_t n, struct http_head *h, const char **why)
{
	size_t at = 0;
	while (at + 1 < n && at < 8 && p[at] == '\r' && p[at + 1] == '\n') /* empty lines before a request are allowed */
		at += 2;
	const char *end = at < n ? memmem(p + at, n - at, "\r\n\r\n", 4) : NULL;
	size_t size = end ? (size_t)(end - p) + 4 : n;
	if (size > HTTP_HEAD_MAX)
		return refuse(431, "the request's headers are too long", why);
	if (!end)
		return 0;
	*h = (struct http_head){.length = -1};
	int hosts = 0, headers = 0, len = line_length(p + at, size - at), rc;
	if (len < 0)
		return refuse(400, "a control character in the request line", why);
	if ((rc = request_line(p + at, len, h, why)))
		return rc;
	h->keep_alive = h->minor > 0;
	for (at += (size_t)len + 2; at + 2 < size; at += (size_t)len + 2) {
		if ((len = line_length(p + at, size - at)) < 0)
			return refuse(400, "a control character in a header", why);
		if (++headers > HTTP_HEADERS_MAX)
			return refuse(431, "too many headers", why);
		if ((rc = header_line(p + at, len, h, &hosts, why)))
			return rc;
	}
	if (h->chunked && (h->length >= 0 || h->minor == 0))
		return refuse(400, "Transfer-Encoding together with Content-Length or HTTP/1.0", why);
	if (hosts > 1 || (hosts == 0 && h->minor > 0))
		return refuse(400, "exactly one Host header is wanted", why);
	return (int)size;
}

enum { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER, TRAILER_LINE, TRAILER_LF, LAST_LF };

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int http_chunks_feed(struct http_chunks *c, const char *p, size_t n, size_t *used, struct stave_buf *body, size_t max)
{
	size_t i = 0;
	*used = 0;
	while (i < n) {
		char ch = p[i];
		if (c->state == DATA) {
			size_t take = n - i < c->left ? n - i : (size_t)c->left;
			stave_buf_put(body, p + i, take);
			c->left -= take;
			i += take;
			if (!c->left)
				c->state = DATA_CR;
			continue;
		}
		i++;
		if (++c->overhead > HTTP_HEAD_MAX + max / 8)
			return -413;
		switch (c->state) {
		case SIZE:
			if (hex(ch) >= 0) {
				if (++c->digits > 15)
					return -413;
				c->left = c->left * 16 + (uint64_t)hex(ch);
			} else if (c->digits && (ch == ';' || ch == ' ' || ch == '\t')) {
				c->state = EXTENSION;
			} else if (c->digits && ch == '\r') {
				c->state = SIZE_LF;
			} else {
				return -400;
			}
			break;
		case EXTENSION:
			if (ch == '\n')
				return -400;
			if (ch == '\r')
				c->state = SIZE_LF;
			break;
		case SIZE_LF:
			if (ch != '\n')
				return -400;
			if (c->left > max - body->len)
				return -413;
			c->digits = 0;
			c->state = c->left ? DATA : TRAILER;
			break;
		case DATA_CR:
			if (ch != '\r')
				return -400;
			c->state = DATA_LF;
			break;
		case DATA_LF:
			if (ch != '\n')
				return -400;
			c->state = SIZE;
			break;
		case TRAILER: /* trailers are read and forgotten */
			c->state = ch == '\r' ? LAST_LF : TRAILER_LINE;
			break;
		case TRAILER_LINE:
			if (ch == '\n')
				return -400;
			if (ch == '\r')
				c->state = TRAILER_LF;
			break;
		case TRAILER_LF:
			if (ch != '\n')
				return -400;
			c->state = TRAILER;
			break;
		case LAST_LF:
			*used = i;
			return ch == '\n' ? 1 : -400;
		}
	}
	*used = i;
	return 0;
}
