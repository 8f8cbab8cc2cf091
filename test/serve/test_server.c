/* The server through real sockets on the loopback: what clients of the API depend on, what hostile ones try, and what is left
 * behind when they go. The model is tiny and speaks bytes. */
#include "infer/tiny_model.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/sys.h"
#include "serve/serve.h"

static char *dir;
static struct stave_server *server;
static pthread_t thread;
static int port;

/* ---- a client ---- */

struct reply {
	int status;
	struct stave_buf raw, body; /* body: chunks joined */
	json_t *json;               /* of the body, if it is JSON */
};

static int dial(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct timeval t = {30, 0};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a))
		fail_msg("connect to port %d: %m", port);
	return fd;
}

static void put(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
		if (k <= 0)
			return; /* the server may have refused already; the reply tells */
		p += k;
		n -= (size_t)k;
	}
}

static void read_all(int fd, struct stave_buf *b)
{
	char part[65536];
	ssize_t n;
	while ((n = recv(fd, part, sizeof part, 0)) > 0)
		stave_buf_put(b, part, (size_t)n);
	if (n < 0 && !b->len)
		fail_msg("no reply within 30 s: %m");
}

static void parse(struct reply *r)
{
	stave_buf_put(&r->raw, "", 0);
	char *head_end = r->raw.len ? strstr(r->raw.p, "\r\n\r\n") : NULL;
	if (!head_end || sscanf(r->raw.p, "HTTP/1.1 %d", &r->status) != 1)
		fail_msg("not a reply: '%.200s'", r->raw.len ? r->raw.p : "");
	const char *p = head_end + 4, *end = r->raw.p + r->raw.len;
	const char *te = strcasestr(r->raw.p, "transfer-encoding: chunked");
	if (!te || te > head_end) {
		stave_buf_put(&r->body, p, (size_t)(end - p));
	} else {
		for (;;) { /* strictly: size CRLF data CRLF … 0 CRLF CRLF */
			char *after;
			size_t n = strtoul(p, &after, 16);
			assert_true(after > p && after + 2 <= end && !memcmp(after, "\r\n", 2));
			p = after + 2;
			assert_true(p + n + 2 <= end && !memcmp(p + n, "\r\n", 2));
			if (!n)
				break;
			stave_buf_put(&r->body, p, n);
			p += n + 2;
		}
	}
	if (r->body.len)
		r->json = json_loadb(r->body.p, r->body.len, 0, NULL);
}

static void reply_free(struct reply *r)
{
	stave_buf_free(&r->raw);
	stave_buf_free(&r->body);
	json_decref(r->json);
	*r = (struct reply){0};
}

/* Sends raw bytes, half-closes nothing, reads to the end. */
static struct reply raw(const char *p, size_t n)
{
	struct reply r = {0};
	int fd = dial();
	put(fd, p, n);
	read_all(fd, &r.raw);
	close(fd);
	parse(&r);
	return r;
}

static struct reply call(const char *method, const char *path, const char *headers, const char *body)
{
	struct stave_buf b = {0};
	stave_buf_printf(&b, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n%s\r\n%s", method, path, strlen(body), headers, body);
	struct reply r = raw(b.p, b.len);
	stave_buf_free(&b);
	return r;
}

static struct reply post(const char *path, const char *body) { return call("POST", path, "Content-Type: application/json\r\n", body); }

static json_t *at(json_t *j, const char *path) /* "choices.0.text" */
{
	char copy[200], *save, *word;
	snprintf(copy, sizeof copy, "%s", path);
	for (word = strtok_r(copy, ".", &save); word; word = strtok_r(NULL, ".", &save))
		j = json_is_array(j) ? json_array_get(j, (size_t)atoi(word)) : json_object_get(j, word);
	return j;
}
static const char *text_at(json_t *j, const char *path) { return json_string_value(at(j, path)); }
static int64_t int_at(json_t *j, const char *path) { return json_integer_value(at(j, path)); }

static void expect_error(struct reply *r, int status, const char *what)
{
	if (r->status != status || !text_at(r->json, "error.message") || !text_at(r->json, "error.type"))
		fail_msg("%.120s: expected %d with an error object, got %d '%.300s'", what, status, r->status, r->body.p ? r->body.p : "");
	reply_free(r);
}

static double metric(const char *name)
{
	struct reply r = call("GET", "/metrics", "", "");
	double v = -1;
	size_t n = strlen(name);
	for (const char *p = r.body.p; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
		if (!strncmp(p, name, n) && p[n] == ' ')
			v = atof(p + n);
	reply_free(&r);
	return v;
}

static void settle(void) /* nothing runs and nothing waits, soon */
{
	for (int i = 0; i < 500; i++) {
		if (metric("stave_requests_running") == 0 && metric("stave_requests_waiting") == 0)
			return;
		usleep(10000);
	}
	fail_msg("sequences are still running");
}

/* Events of a stream: calls see with each JSON; returns how many; the last must be [DONE]. */
static int events(const struct stave_buf *body, void (*see)(json_t *j, void *ctx), void *ctx)
{
	int n = 0;
	bool done = false;
	for (const char *p = body->p; p && *p;) {
		const char *end = strstr(p, "\n\n");
		if (!end)
			fail_msg("an event without end: '%.100s'", p);
		if (*p != ':') {
			assert_false(done);
			assert_memory_equal(p, "data: ", 6);
			if (!strncmp(p + 6, "[DONE]", 6)) {
				done = true;
			} else {
				json_t *j = json_loadb(p + 6, (size_t)(end - p - 6), 0, NULL);
				assert_non_null(j);
				see(j, ctx);
				json_decref(j);
				n++;
			}
		}
		p = end + 2;
	}
	assert_true(done);
	return n;
}

/* ---- what clients depend on ---- */

static void pages(void **state)
{
	struct reply r = call("GET", "/health", "", "");
	assert_int_equal(r.status, 200);
	reply_free(&r);
	r = call("GET", "/v1/models", "", "");
	assert_string_equal(text_at(r.json, "object"), "list");
	assert_string_equal(text_at(r.json, "data.0.id"), "tiny");
	assert_string_equal(text_at(r.json, "data.0.object"), "model");
	reply_free(&r);
	r = call("GET", "/v1/models/tiny", "", "");
	assert_string_equal(text_at(r.json, "id"), "tiny");
	reply_free(&r);
	r = call("GET", "/v1/models/other", "", "");
	expect_error(&r, 404, "unknown model");
	r = call("GET", "/nowhere", "", "");
	expect_error(&r, 404, "unknown path");
	r = call("DELETE", "/v1/models", "", "");
	assert_non_null(strstr(r.raw.p, "Allow: GET"));
	expect_error(&r, 405, "DELETE");
	r = call("GET", "/v1/completions", "", "");
	expect_error(&r, 405, "GET of completions");
	r = call("OPTIONS", "/v1/chat/completions", "Origin: http://a\r\n", "");
	assert_int_equal(r.status, 204);
	assert_non_null(strstr(r.raw.p, "Access-Control-Allow-Origin: *"));
	reply_free(&r);
	r = call("HEAD", "/v1/models?x=1", "", "");
	assert_int_equal(r.status, 200);
	assert_int_equal(r.body.len, 0);
	reply_free(&r);
	r = call("GET", "/metrics", "", "");
	assert_non_null(strstr(r.body.p, "# TYPE stave_time_to_first_token_seconds histogram"));
	reply_free(&r);
}

static void completion(void **state)
{
	struct reply a = post("/v1/completions", "{\"model\":\"tiny\",\"prompt\":\"Hello\",\"max_tokens\":12,\"seed\":3,\"ignore_eos\":true,\"unknown\":{\"x\":[1]}}");
	assert_int_equal(a.status, 200);
	assert_string_equal(text_at(a.json, "object"), "text_completion");
	assert_string_equal(text_at(a.json, "choices.0.finish_reason"), "length");
	assert_true(json_is_null(at(a.json, "choices.0.logprobs")));
	assert_int_equal(int_at(a.json, "usage.prompt_tokens"), 5);
	assert_int_equal(int_at(a.json, "usage.completion_tokens"), 12);
	assert_int_equal(int_at(a.json, "usage.total_tokens"), 17);
	assert_non_null(strstr(a.raw.p, "x-request-id: cmpl-"));
	struct reply b = post("/v1/completions", "{\"prompt\":[72,101,108,108,111],\"max_tokens\":12,\"seed\":3,\"ignore_eos\":true}");
	assert_string_equal(text_at(a.json, "choices.0.text"), text_at(b.json, "choices.0.text")); /* same ids, same seed */
	reply_free(&b);
	b = post("/v1/completions", "{\"prompt\":\"Hello\",\"max_tokens\":12,\"seed\":4,\"ignore_eos\":true}");
	assert_string_not_equal(text_at(a.json, "choices.0.text"), text_at(b.json, "choices.0.text"));
	reply_free(&b);
	reply_free(&a);
	a = post("/v1/completions", "{\"prompt\":[\"ab\",\"c\"],\"n\":2,\"max_tokens\":3,\"echo\":true,\"ignore_eos\":true}");
	assert_int_equal(json_array_size(at(a.json, "choices")), 4); /* prompt-major */
	for (int i = 0; i < 4; i++) {
		json_t *c = json_array_get(at(a.json, "choices"), (size_t)i);
		assert_int_equal(json_integer_value(json_object_get(c, "index")), i);
		assert_memory_equal(json_string_value(json_object_get(c, "text")), i < 2 ? "ab" : "c", i < 2 ? 2 : 1);
	}
	assert_int_equal(int_at(a.json, "usage.prompt_tokens"), 3);
	assert_int_equal(int_at(a.json, "usage.completion_tokens"), 12);
	reply_free(&a);
	a = post("/v1/completions", "{\"prompt\":\"\",\"max_tokens\":1}");
	assert_int_equal(a.status, 200);
	reply_free(&a);
	a = post("/v1/completions", "{\"prompt\":\"x\",\"model\":\"gpt-5\"}");
	assert_string_equal(text_at(a.json, "error.code"), "model_not_found");
	expect_error(&a, 404, "model");
}

/* What lm-eval asks: log-likelihoods of a prompt's tokens. */
static void scoring(void **state)
{
	struct reply r = post("/v1/completions", "{\"prompt\":[[65,66,67,68]],\"max_tokens\":1,\"echo\":true,\"logprobs\":3,\"temperature\":0,\"ignore_eos\":true}");
	json_t *lp = at(r.json, "choices.0.logprobs");
	assert_int_equal(json_array_size(json_object_get(lp, "tokens")), 5);
	assert_int_equal(json_array_size(json_object_get(lp, "token_logprobs")), 5);
	assert_int_equal(json_array_size(json_object_get(lp, "top_logprobs")), 5);
	assert_int_equal(json_array_size(json_object_get(lp, "text_offset")), 5);
	assert_true(json_is_null(at(lp, "token_logprobs.0")));
	assert_string_equal(text_at(lp, "tokens.3"), "D");
	assert_int_equal(int_at(lp, "text_offset.3"), 3);
	double best = -1e9, v;
	const char *key;
	json_t *e;
	json_object_foreach(at(lp, "top_logprobs.4"), key, e) best = (v = json_real_value(e)) > best ? v : best;
	assert_true(json_real_value(at(lp, "token_logprobs.4")) == best); /* greedy: the token is the likeliest, to the bit */
	assert_true(json_real_value(at(lp, "token_logprobs.1")) <= 0);
	reply_free(&r);
	r = post("/v1/completions", "{\"prompt\":[65,66,67],\"max_tokens\":0,\"echo\":true,\"logprobs\":0}");
	assert_string_equal(text_at(r.json, "choices.0.text"), "ABC");
	assert_string_equal(text_at(r.json, "choices.0.finish_reason"), "length");
	assert_int_equal(int_at(r.json, "usage.completion_tokens"), 0);
	reply_free(&r);
}

static void chat(void **state)
{
	struct reply r = post("/v1/chat/completions",
	                      "{\"messages\":[{\"role\":\"developer\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\"},"
	                      "{\"type\":\"text\",\"text\":\"you\"}]},{\"role\":\"assistant\",\"content\":null},{\"role\":\"user\",\"content\":\"?\"}],"
	                      "\"max_completion_tokens\":6,\"logprobs\":true,\"top_logprobs\":2,\"tools\":[],\"response_format\":{\"type\":\"text\"},\"user\":\"u\",\"ignore_eos\":true}");
	assert_int_equal(r.status, 200);
	assert_string_equal(text_at(r.json, "object"), "chat.completion");
	assert_string_equal(text_at(r.json, "choices.0.message.role"), "assistant");
	assert_non_null(text_at(r.json, "choices.0.message.content"));
	assert_int_equal(json_array_size(at(r.json, "choices.0.logprobs.content")), 6);
	assert_int_equal(json_array_size(at(r.json, "choices.0.logprobs.content.0.top_logprobs")), 2);
	assert_true(json_array_size(at(r.json, "choices.0.logprobs.content.0.bytes")) >= 1);
	reply_free(&r);
}

struct seen {
	struct stave_buf text[4];
	int roles, finishes, usages, nulls, n_logprobs;
	char id[64];
};
static void see_chat(json_t *j, void *ctx)
{
	struct seen *s = ctx;
	assert_string_equal(text_at(j, "object"), "chat.completion.chunk");
	if (!s->id[0])
		snprintf(s->id, sizeof s->id, "%s", text_at(j, "id"));
	assert_string_equal(text_at(j, "id"), s->id);
	if (json_is_object(json_object_get(j, "usage"))) {
		assert_int_equal(json_array_size(json_object_get(j, "choices")), 0);
		s->usages++;
		return;
	}
	s->nulls += json_is_null(json_object_get(j, "usage"));
	json_t *c = at(j, "choices.0"), *delta = json_object_get(c, "delta");
	int64_t i = int_at(c, "index");
	assert_in_range(i, 0, 3);
	s->roles += json_object_get(delta, "role") != NULL;
	const char *text = text_at(delta, "content");
	if (text)
		stave_buf_put(&s->text[i], text, strlen(text));
	s->n_logprobs += (int)json_array_size(at(c, "logprobs.content"));
	if (json_is_string(json_object_get(c, "finish_reason"))) {
		assert_int_equal(json_object_size(delta), 0);
		s->finishes++;
	}
}

static void stream(void **state)
{
	struct seen s = {0};
	const char *ask = "{\"messages\":[{\"role\":\"user\",\"content\":\"Tell\"}],\"n\":3,\"max_tokens\":9,\"seed\":5,\"logprobs\":true,\"ignore_eos\":true%s}";
	char body[400];
	snprintf(body, sizeof body, ask, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
	struct reply r = post("/v1/chat/completions", body);
	assert_int_equal(r.status, 200);
	assert_non_null(strstr(r.raw.p, "Content-Type: text/event-stream"));
	events(&r.body, see_chat, &s);
	assert_int_equal(s.roles, 3);
	assert_int_equal(s.finishes, 3);
	assert_int_equal(s.usages, 1);
	assert_true(s.nulls > 3);
	assert_int_equal(s.n_logprobs, 27);
	reply_free(&r);
	snprintf(body, sizeof body, ask, "");
	r = post("/v1/chat/completions", body); /* whole: the same text */
	for (int i = 0; i < 3; i++) {
		char path[60];
		snprintf(path, sizeof path, "choices.%d.message.content", i);
		assert_string_equal(text_at(r.json, path), s.text[i].p);
		stave_buf_free(&s.text[i]);
	}
	assert_string_not_equal(text_at(r.json, "choices.0.message.content"), text_at(r.json, "choices.1.message.content"));
	reply_free(&r);
}

/* Several requests on one connection, sent at once; HTTP/1.0; a chunked body; Expect. */
static void connections(void **state)
{
	const char *two = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
	                  "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 31\r\n\r\n{\"prompt\":\"ab\",\"max_tokens\":2}\n"
	                  "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	struct reply r = raw(two, strlen(two));
	int replies = 0;
	for (const char *p = r.raw.p; (p = strstr(p, "HTTP/1.1 200 OK")); p++)
		replies++;
	assert_int_equal(replies, 3);
	assert_non_null(strstr(r.raw.p, "\"version\""));
	reply_free(&r);
	const char *old = "POST /v1/completions HTTP/1.0\r\nContent-Length: 45\r\n\r\n{\"prompt\":\"ab\",\"max_tokens\":2,\"stream\":true}\n";
	r = raw(old, strlen(old));
	assert_null(strcasestr(r.raw.p, "transfer-encoding"));
	assert_non_null(strstr(r.raw.p, "data: [DONE]"));
	reply_free(&r);
	const char *chunked = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
	                      "10\r\n{\"prompt\":\"ab\",\"\r\nf;ext=1\r\nmax_tokens\":2}\n\r\n0\r\nTrailer: x\r\n\r\n";
	r = raw(chunked, strlen(chunked));
	assert_int_equal(r.status, 200);
	assert_int_equal(int_at(r.json, "usage.completion_tokens"), 2);
	reply_free(&r);
	const char *expect = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 31\r\n\r\n";
	int fd = dial();
	put(fd, expect, strlen(expect));
	char got[26] = {0};
	assert_int_equal(recv(fd, got, 25, MSG_WAITALL), 25);
	assert_string_equal(got, "HTTP/1.1 100 Continue\r\n\r\n");
	put(fd, "{\"prompt\":\"ab\",\"max_tokens\":2}\n", 31);
	read_all(fd, &r.raw);
	close(fd);
	parse(&r);
	assert_int_equal(r.status, 200);
	reply_free(&r);
}

/* ---- hostile ones ---- */

static void bad_bodies(void **state)
{
#define CHAT(x) "{\"messages\":[" x "]}"
#define OPT(x) "{\"prompt\":\"a\",\"max_tokens\":1," x "}"
	static const char *const completions[] = {
		"", " ", "{", "}", "[]", "null", "1", "\"x\"", "{\"prompt\"}", "{'prompt':'a'}", "{\"prompt\":}", "nul", "{\"prompt\":\"a\"}}", "{\"prompt\":\"\\ud800\"}",
		"{\"prompt\":\"\xff\xfe\"}", "{\"prompt\":\"a\\u0000b\"}", "{\"prompt\":\"a\",\"prompt\":\"b\"}", "{}", "{\"prompt\":null}", "{\"prompt\":5}",
		"{\"prompt\":{}}", "{\"prompt\":[]}", "{\"prompt\":[1.5]}", "{\"prompt\":[-1]}", "{\"prompt\":[99999999999999999999]}", "{\"prompt\":[999999999999]}",
		"{\"prompt\":[257000]}", "{\"prompt\":[1,\"a\"]}", "{\"prompt\":[\"a\",1]}", "{\"prompt\":[[1],\"a\"]}", "{\"prompt\":[[\"a\"]]}", "{\"prompt\":[[[1]]]}",
		"{\"prompt\":[[]]}", "{\"prompt\":[true]}", OPT("\"max_tokens\":2"), OPT("\"n\":0"), OPT("\"n\":-1"), OPT("\"n\":1e9"), OPT("\"n\":1000000000000000000000"),
		OPT("\"n\":\"2\""), OPT("\"n\":1.5"), OPT("\"n\":[]"), OPT("\"temperature\":-0.1"), OPT("\"temperature\":\"hot\""), OPT("\"temperature\":1e400"),
		OPT("\"temperature\":NaN"), OPT("\"temperature\":Infinity"), OPT("\"temperature\":{}"), OPT("\"top_p\":2"), OPT("\"top_p\":-1"), OPT("\"min_p\":7"),
		OPT("\"top_k\":-2"), OPT("\"top_k\":1.5"), OPT("\"top_k\":99999999999"), OPT("\"repetition_penalty\":0"), OPT("\"repetition_penalty\":-1"),
		OPT("\"presence_penalty\":3"), OPT("\"frequency_penalty\":-3"), OPT("\"seed\":\"x\""), OPT("\"seed\":1.5"), OPT("\"seed\":99999999999999999999"),
		OPT("\"stop\":5"), OPT("\"stop\":[5]"), OPT("\"stop\":{}"), OPT("\"logprobs\":21"), OPT("\"logprobs\":-1"), OPT("\"logprobs\":true"), OPT("\"logprobs\":\"5\""),
		OPT("\"logit_bias\":[]"), OPT("\"logit_bias\":{\"x\":1}"), OPT("\"logit_bias\":{\"-1\":1}"), OPT("\"logit_bias\":{\"5\":101}"), OPT("\"logit_bias\":{\"5\":\"1\"}"),
		OPT("\"logit_bias\":{\"999999\":1}"), OPT("\"logit_bias\":{\"99999999999999999999\":1}"), OPT("\"logit_bias\":{\"\":1}"), OPT("\"stream\":1"), OPT("\"stream\":\"true\""),
		OPT("\"stream_options\":[]"), OPT("\"stream_options\":{\"include_usage\":3}"), OPT("\"echo\":\"yes\""), OPT("\"model\":5"), OPT("\"suffix\":\"x\""), OPT("\"best_of\":5"),
		OPT("\"ignore_eos\":2"), OPT("\"response_format\":{\"type\":\"json_object\"}"), OPT("\"tools\":[{\"type\":\"function\"}]"), "{\"prompt\":\"a\",\"max_tokens\":-1}",
		"{\"prompt\":\"a\",\"max_tokens\":1e300}", "{\"prompt\":\"a\",\"max_tokens\":9223372036854775808}", "{\"prompt\":\"a\",\"max_tokens\":\"5\"}", "{\"prompt\":\"a\",\"n\":128,\"max_tokens\":1}",
	};
	static const char *const chats[] = {
		"{}", "{\"messages\":{}}", "{\"messages\":[]}", "{\"messages\":\"hi\"}", CHAT("5"), CHAT("{}"), CHAT("{\"role\":\"king\",\"content\":\"x\"}"), CHAT("{\"role\":5,\"content\":\"x\"}"),
		CHAT("{\"role\":\"user\",\"content\":5}"), CHAT("{\"role\":\"user\",\"content\":{}}"), CHAT("{\"role\":\"user\",\"content\":[5]}"),
		CHAT("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"file:///etc/passwd\"}}]}"), CHAT("{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}"),
		CHAT("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":5}]}"), "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"top_logprobs\":2}",
		"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"logprobs\":true,\"top_logprobs\":21}", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_completion_tokens\":-4}",
	};
	size_t n = sizeof completions / sizeof *completions, m = sizeof chats / sizeof *chats;
	assert_true(n + m >= 100);
	for (size_t i = 0; i < n; i++) {
		struct reply r = post("/v1/completions", completions[i]);
		expect_error(&r, 400, completions[i]);
	}
	for (size_t i = 0; i < m; i++) {
		struct reply r = post("/v1/chat/completions", chats[i]);
		expect_error(&r, 400, chats[i]);
	}
	/* too long for the context; nested a hundred thousand deep; a truncated copy of a good body at every byte */
	struct stave_buf b = {0};
	stave_buf_printf(&b, "{\"prompt\":\"");
	for (int i = 0; i <= TINY_CONTEXT; i++)
		stave_buf_put(&b, "a", 1);
	stave_buf_printf(&b, "\"}");
	struct reply r = post("/v1/completions", b.p);
	assert_string_equal(text_at(r.json, "error.code"), "context_length_exceeded");
	expect_error(&r, 400, "a long prompt");
	b.len = 0;
	for (int i = 0; i < 100000; i++)
		stave_buf_put(&b, "[", 1);
	r = post("/v1/completions", b.p);
	expect_error(&r, 400, "deep nesting");
	stave_buf_free(&b);
	const char *good = "{\"prompt\":[\"a\"],\"stop\":[\"x\"],\"logit_bias\":{\"1\":2},\"max_tokens\":1}";
	for (size_t len = 0; len < strlen(good); len += 3) {
		char cut[100];
		snprintf(cut, sizeof cut, "%.*s", (int)len, good);
		r = post("/v1/completions", cut);
		expect_error(&r, 400, cut);
	}
	settle();
}

static void bad_http(void **state)
{
	static const struct {
		int status;
		const char *text;
	} cases[] = {
		{400, "\x16\x03\x01\x02\r\n\r\n"}, {400, "GET\r\n\r\n"}, {400, "GET /health\r\n\r\n"}, {505, "GET /health HTTP/2.0\r\nHost: x\r\n\r\n"}, {400, "GET /health HTTP/1.1\r\n\r\n"},
		{400, "GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"}, {400, "GET  /health HTTP/1.1\r\nHost: x\r\n\r\n"}, {400, "GET health HTTP/1.1\r\nHost: x\r\n\r\n"},
		{400, "GET /health HTTP/1.1\r\nHost : x\r\n\r\n"}, {400, "GET /health HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n"}, {400, "GET /health HTTP/1.1\nHost: x\r\n\r\n"},
		{400, "GET /health HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n"}, {400, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"},
		{400, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n"}, {400, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5x\r\n\r\n"},
		{400, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n"}, {413, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"},
		{400, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{501, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"}, {400, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"},
		{413, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n"}, {413, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"},
		{400, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct reply r = raw(cases[i].text, strlen(cases[i].text));
		expect_error(&r, cases[i].status, cases[i].text);
	}
	struct stave_buf b = {0};
	stave_buf_printf(&b, "GET /health HTTP/1.1\r\nHost: x\r\nA: ");
	for (int i = 0; i < 20000; i++)
		stave_buf_put(&b, "a", 1);
	struct reply r = raw(b.p, b.len);
	expect_error(&r, 431, "a long header");
	b.len = 0;
	stave_buf_printf(&b, "GET /health HTTP/1.1\r\nHost: x\r\n");
	for (int i = 0; i < 200; i++)
		stave_buf_printf(&b, "A%d: b\r\n", i);
	stave_buf_printf(&b, "\r\n");
	r = raw(b.p, b.len);
	expect_error(&r, 431, "many headers");
	stave_buf_free(&b);
}

/* ---- clients that leave, and many at once ---- */

static void disconnects(void **state)
{
	const char *body = "{\"prompt\":\"ab\",\"max_tokens\":250,\"n\":4,\"stream\":%s,\"ignore_eos\":true}";
	const char *cancelled = "stave_sequences_total{finish_reason=\"cancelled\"}";
	double before = metric("stave_client_disconnects_total"), ended = metric(cancelled);
	for (int i = 0; i < 20; i++) {
		struct stave_buf b = {0};
		char text[200], first[64];
		snprintf(text, sizeof text, body, i % 2 ? "true" : "false");
		stave_buf_printf(&b, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s", strlen(text), text);
		int fd = dial();
		bool whole = i % 5 != 4; /* some leave before the request is */
		put(fd, b.p, whole ? b.len : b.len - 10);
		if (whole && i % 4 == 1)
			assert_true(recv(fd, first, sizeof first, 0) > 0);
		struct linger hard = {1, 0};
		if (i % 3 == 0)
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard); /* a reset */
		close(fd);
		stave_buf_free(&b);
	}
	settle();
	assert_true(metric("stave_client_disconnects_total") > before);
	assert_true(metric(cancelled) > ended);
}

struct worker {
	pthread_t thread;
	int i, events;
	char text[600];
};
static void count(json_t *j, void *ctx)
{
	struct worker *w = ctx;
	const char *text = text_at(j, "choices.0.text");
	size_t at_end = strlen(w->text);
	if (text)
		snprintf(w->text + at_end, sizeof w->text - at_end, "%s", text);
}
static void *work(void *arg)
{
	struct worker *w = arg;
	char body[200];
	snprintf(body, sizeof body, "{\"prompt\":\"stream %d\",\"max_tokens\":40,\"stream\":true,\"temperature\":0,\"ignore_eos\":true}", w->i / 2);
	struct reply r = post("/v1/completions", body);
	if (r.status == 200)
		w->events = events(&r.body, count, w);
	reply_free(&r);
	return NULL;
}

static void sixteen(void **state)
{
	static struct worker w[16];
	for (int i = 0; i < 16; i++) {
		w[i].i = i;
		pthread_create(&w[i].thread, NULL, work, &w[i]);
	}
	for (int i = 0; i < 16; i++)
		pthread_join(w[i].thread, NULL);
	for (int i = 0; i < 16; i += 2) {
		assert_true(w[i].events > 1);
		assert_string_equal(w[i].text, w[i + 1].text); /* the same question at the same time: the same answer */
		if (i)
			assert_string_not_equal(w[i].text, w[0].text);
	}
}

static void full_queue(void **state)
{
	enum { N = 12 };
	int fds[N], refused = 0;
	const char *body = "{\"prompt\":\"ab\",\"max_tokens\":250,\"n\":8,\"ignore_eos\":true}";
	for (int i = 0; i < N; i++) {
		struct stave_buf b = {0};
		stave_buf_printf(&b, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
		fds[i] = dial();
		put(fds[i], b.p, b.len);
		stave_buf_free(&b);
	}
	for (int i = 0; i < N; i++) {
		struct reply r = {0};
		read_all(fds[i], &r.raw);
		close(fds[i]);
		parse(&r);
		if (r.status == 429) {
			refused++;
			assert_non_null(strstr(r.raw.p, "retry-after: "));
			expect_error(&r, 429, "a full queue");
		} else {
			assert_int_equal(r.status, 200);
			reply_free(&r);
		}
	}
	assert_in_range(refused, 1, N - 1);
}

/* A client that sends a header byte by byte for ever: cut off after 15 s, counted from its first byte, not its last. */
struct loris {
	pthread_t thread;
	double seconds;
	struct reply r;
};
static struct loris loris;
static void *dribble(void *arg)
{
	struct loris *l = arg;
	double start = stave_now_s();
	int fd = dial();
	char byte;
	put(fd, "GET /health HTTP/1.1\r\nA: ", 25);
	while (stave_now_s() - start < 100 && recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0) {
		put(fd, "a", 1);
		usleep(300000);
	}
	l->seconds = stave_now_s() - start;
	read_all(fd, &l->r.raw);
	close(fd);
	return NULL;
}

static void slow_loris(void **state)
{
	pthread_join(loris.thread, NULL);
	assert_true(loris.seconds > 10);
	parse(&loris.r);
	expect_error(&loris.r, 408, "a slow client");
}

/* ---- life and death ---- */

static void *serve(void *arg)
{
	struct stave_err e = {0};
	return (void *)(intptr_t)stave_server_run(arg, &e);
}

static void start(const char *key_file)
{
	struct stave_err e = {0};
	struct stave_serve_config c = {.engine = {.model = dir, .slots = 4, .chunk = 16, .queue = 24, .cache = "f32"}, .name = "tiny", .key_file = key_file};
	tiny_must(stave_server_open(&server, &c, &e), &e);
	port = stave_server_port(server);
	pthread_create(&thread, NULL, serve, server);
	for (int i = 0;; i++) {
		struct reply r = call("GET", "/ready", "", "");
		int status = r.status;
		reply_free(&r);
		if (status == 200)
			return;
		assert_int_equal(status, 503);
		if (i > 1000)
			fail_msg("not ready");
		usleep(10000);
	}
}

static int end(void)
{
	void *rc;
	pthread_join(thread, &rc);
	stave_server_close(server);
	return (int)(intptr_t)rc;
}

static void keys(void **state)
{
	char path[STAVE_PATH], hex[65], line[100];
	struct stave_err e = {0};
	stave_server_stop(server);
	assert_int_equal(end(), 0);
	stave_sha256("secret", 6, hex);
	snprintf(line, sizeof line, "# keys\n%s  someone\n", hex);
	tiny_must(stave_path(path, dir, "keys", &e), &e);
	tiny_must(stave_file_write(path, line, strlen(line), &e), &e);
	start(path);
	struct reply r = call("GET", "/v1/models", "", "");
	assert_non_null(strstr(r.raw.p, "WWW-Authenticate: Bearer"));
	expect_error(&r, 401, "no key");
	r = call("GET", "/v1/models", "Authorization: Bearer Secret\r\n", "");
	expect_error(&r, 401, "a wrong key");
	r = call("GET", "/metrics", "", "");
	expect_error(&r, 401, "metrics");
	r = call("GET", "/v1/models", "Authorization: Bearer secret\r\n", "");
	assert_int_equal(r.status, 200);
	reply_free(&r);
	r = call("GET", "/v1/models", "x-api-key: secret\r\n", "");
	assert_int_equal(r.status, 200);
	reply_free(&r);
	struct stave_server *other;
	struct stave_serve_config c = {.engine = {.model = dir}, .key_file = "/nonexistent"};
	assert_int_not_equal(stave_server_open(&other, &c, &e), 0);
	tiny_must(stave_file_write(path, "secret\n", 7, &e), &e);
	c.key_file = path;
	assert_int_equal(stave_server_open(&other, &c, &e), STAVE_ECONFIG); /* a key instead of its hash */
}

/* SIGTERM lets the answer end, then the loop returns 0. */
static void drain(void **state)
{
	stave_server_stop(server);
	assert_int_equal(end(), 0);
	start(NULL);
	const char *body = "{\"prompt\":\"ab\",\"max_tokens\":200,\"n\":4,\"stream\":true,\"ignore_eos\":true}";
	struct stave_buf b = {0};
	struct reply r = {0};
	char first[1];
	stave_buf_printf(&b, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
	int fd = dial(), idle = dial();
	put(fd, b.p, b.len);
	assert_int_equal(recv(fd, first, 1, MSG_PEEK), 1);
	kill(getpid(), SIGTERM);
	read_all(fd, &r.raw);
	assert_non_null(strstr(r.raw.p, "data: [DONE]"));
	assert_null(strstr(r.raw.p, "\"error\""));
	assert_int_equal(recv(idle, first, 1, 0), 0); /* idle connections are closed */
	close(fd);
	close(idle);
	assert_int_equal(end(), 0);
	server = NULL;
	reply_free(&r);
	stave_buf_free(&b);
}

static void no_model(void **state)
{
	struct stave_server *s;
	struct stave_err e = {0};
	struct stave_serve_config c = {.engine = {.model = "/nonexistent"}};
	tiny_must(stave_server_open(&s, &c, &e), &e);
	assert_int_not_equal(stave_server_run(s, &e), 0);
	assert_non_null(strstr(e.msg, "/nonexistent"));
	c.port = stave_server_port(s);
	struct stave_server *other;
	assert_int_equal(stave_server_open(&other, &c, &e), STAVE_EPEER); /* the port is taken */
	stave_server_close(s);
}

int main(void)
{
	setenv("STAVE_LOG", "error", 0);
	dir = tiny_dir();
	start(NULL);
	pthread_create(&loris.thread, NULL, dribble, &loris); /* beside the other tests: it takes its time */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages),      cmocka_unit_test(completion), cmocka_unit_test(scoring), cmocka_unit_test(chat),    cmocka_unit_test(stream),
		cmocka_unit_test(connections), cmocka_unit_test(bad_bodies), cmocka_unit_test(bad_http), cmocka_unit_test(disconnects), cmocka_unit_test(sixteen),
		cmocka_unit_test(full_queue), cmocka_unit_test(slow_loris), cmocka_unit_test(keys),       cmocka_unit_test(drain),   cmocka_unit_test(no_model),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	if (server) {
		stave_server_stop(server);
		end();
	}
	tiny_remove(dir);
	return failed;
}
