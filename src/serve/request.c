/* Requests of the API. Every value is looked at before it is used: type, range, count. A field nobody knows is ignored, as
 * clients expect; a field that asks for something this server does not do is refused by name, since an answer that
 * silently lacks it would be wrong. */
#include "serve/request.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

bool api_fail(struct api_error *e, int status, const char *type, const char *code, const char *param, const char *fmt, ...)
{
	va_list ap;
	*e = (struct api_error){.status = status, .type = type, .code = code};
	snprintf(e->param, sizeof e->param, "%s", param ? param : "");
	va_start(ap, fmt);
	vsnprintf(e->message, sizeof e->message, fmt, ap);
	va_end(ap);
	return false;
}

#define BAD(e, param, ...) api_fail(e, 400, "invalid_request_error", NULL, param, __VA_ARGS__)

/* ---- fields ---- */

static json_t *field(const json_t *o, const char *key) /* NULL when absent or null */
{
	json_t *v = json_object_get(o, key);
	return json_is_null(v) ? NULL : v;
}

static bool integer(const json_t *o, const char *key, int64_t min, int64_t max, int *out, struct api_error *e)
{
	json_t *v = field(o, key);
	if (!v)
		return true;
	double d = json_number_value(v); /* 1.0 is an integer to many clients */
	if (!json_is_number(v) || d != floor(d))
		return BAD(e, key, "%s must be an integer", key);
	if (!(d >= (double)min && d <= (double)max))
		return BAD(e, key, "%s must be between %lld and %lld", key, (long long)min, (long long)max);
	*out = (int)d;
	return true;
}

static bool number(const json_t *o, const char *key, double min, double max, float *out, struct api_error *e)
{
	json_t *v = field(o, key);
	if (!v)
		return true;
	double d = json_number_value(v);
	if (!json_is_number(v))
		return BAD(e, key, "%s must be a number", key);
	if (!(d >= min && d <= max))
		return BAD(e, key, "%s must be between %g and %g", key, min, max);
	*out = (float)d;
	return true;
}

static bool boolean(const json_t *o, const char *key, bool *out, struct api_error *e)
{
	json_t *v = field(o, key);
	if (!v)
		return true;
	if (!json_is_boolean(v))
		return BAD(e, key, "%s must be true or false", key);
	*out = json_is_true(v);
	return true;
}

static bool stops(struct api_request *r, struct api_error *e)
{
	json_t *v = field(r->root, "stop"), *s;
	size_t i;
	if (!v)
		return true;
	if (json_is_string(v)) {
		r->stop[0] = json_string_value(v);
		r->n_stop = json_string_length(v) > 0;
		return true;
	}
	if (!json_is_array(v) || json_array_size(v) > API_STOPS_MAX)
		return BAD(e, "stop", "stop must be a string or at most %d of them", API_STOPS_MAX);
	json_array_foreach(v, i, s) {
		if (!json_is_string(s))
			return BAD(e, "stop", "stop must be a string or an array of strings");
		if (json_string_length(s))
			r->stop[r->n_stop++] = json_string_value(s);
	}
	return true;
}

static bool logit_bias(struct api_request *r, struct api_error *e)
{
	json_t *v = field(r->root, "logit_bias"), *b;
	const char *key;
	if (!v)
		return true;
	if (!json_is_object(v) || json_object_size(v) > 4096)
		return BAD(e, "logit_bias", "logit_bias must be an object of token ids and numbers, at most 4096");
	size_t n = json_object_size(v);
	int32_t *ids = calloc(n + 1, sizeof *ids);
	float *bias = calloc(n + 1, sizeof *bias);
	r->sampling.bias_ids = ids;
	r->sampling.bias = bias;
	if (!ids || !bias)
		return api_fail(e, 500, "server_error", NULL, "logit_bias", "out of memory");
	json_object_foreach(v, key, b) {
		char *end;
		long id = strtol(key, &end, 10);
		double d = json_number_value(b);
		if (!*key || *end || id < 0 || id > INT32_MAX)
			return BAD(e, "logit_bias", "logit_bias: '%.40s' is not a token id", key);
		if (!json_is_number(b) || !(d >= -100 && d <= 100))
			return BAD(e, "logit_bias", "logit_bias values must be numbers between -100 and 100");
		ids[r->sampling.n_bias] = (int32_t)id;
		bias[r->sampling.n_bias++] = (float)d;
	}
	return true;
}

static bool sampling(struct api_request *r, struct api_error *e)
{
	struct stave_sampling *s = &r->sampling;
	json_t *seed = field(r->root, "seed");
	*s = stave_sampling_default();
	if (seed && !json_is_integer(seed))
		return BAD(e, "seed", "seed must be an integer");
	if (seed) {
		r->has_seed = true;
		s->seed = (uint64_t)json_integer_value(seed);
	}
	int top_k = 0;
	if (!integer(r->root, "top_k", -1, 1000000000, &top_k, e))
		return false;
	s->top_k = top_k > 0 ? top_k : 0; /* -1 means all to some clients */
	return number(r->root, "temperature", 0, 100, &s->temperature, e) && number(r->root, "top_p", 0, 1, &s->top_p, e) &&
	       number(r->root, "min_p", 0, 1, &s->min_p, e) && number(r->root, "repetition_penalty", 0.01, 100, &s->repetition_penalty, e) &&
	       number(r->root, "presence_penalty", -2, 2, &s->presence_penalty, e) &&
	       number(r->root, "frequency_penalty", -2, 2, &s->frequency_penalty, e) && logit_bias(r, e);
}

/* ---- prompts ---- */

static bool prompt_ids(struct api_prompt *p, const json_t *a, struct api_error *e)
{
	size_t n = json_array_size(a), i;
	json_t *v;
	if (n > INT32_MAX / 8)
		return BAD(e, "prompt", "the prompt has too many tokens");
	p->ids = calloc(n + 1, sizeof *p->ids);
	if (!p->ids)
		return api_fail(e, 500, "server_error", NULL, "prompt", "out of memory");
	json_array_foreach(a, i, v) {
		if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
			return BAD(e, "prompt", "a prompt of tokens must hold token ids only");
		p->ids[i] = (int32_t)json_integer_value(v);
	}
	p->n_ids = (int)n;
	return true;
}

static bool prompts(struct api_request *r, struct api_error *e)
{
	json_t *v = field(r->root, "prompt"), *p, *first = json_is_array(v) ? json_array_get(v, 0) : NULL;
	bool several = json_is_array(first) || json_is_string(first);
	size_t n = several ? json_array_size(v) : 1, i;
	if (!json_is_string(v) && !json_is_integer(first) && !several)
		return BAD(e, "prompt", "prompt must be a string, an array of strings, of token ids, or of arrays of token ids");
	if (n > API_PROMPTS_MAX)
		return BAD(e, "prompt", "at most %d prompts in one request", API_PROMPTS_MAX);
	r->prompts = calloc(n, sizeof *r->prompts);
	if (!r->prompts)
		return api_fail(e, 500, "server_error", NULL, "prompt", "out of memory");
	r->n_prompts = (int)n;
	if (!several) {
		r->prompts[0].text = json_string_value(v);
		return r->prompts[0].text || prompt_ids(&r->prompts[0], v, e);
	}
	json_array_foreach(v, i, p) {
		if (json_typeof(p) != json_typeof(first))
			return BAD(e, "prompt", "prompts must be all strings or all arrays of token ids");
		r->prompts[i].text = json_string_value(p);
		if (!r->prompts[i].text && !prompt_ids(&r->prompts[i], p, e))
			return false;
	}
	return true;
}

/* ---- messages ---- */

static const char *role_of(const char *role)
{
	static const char *const known[][2] = {{"system", "system"}, {"developer", "system"}, {"user", "user"}, {"assistant", "assistant"}, {"tool", "tool"}, {"function", "tool"}};
	for (size_t i = 0; role && i < sizeof known / sizeof *known; i++)
		if (!strcmp(role, known[i][0]))
			return known[i][1];
	return NULL;
}

/* A string, null, or parts of type text, joined by line ends. */
static bool content_of(const json_t *v, struct stave_buf *out, struct api_error *e)
{
	json_t *part;
	size_t i;
	stave_buf_reserve(out, 1);
	out->p[0] = 0;
	if (!v || json_is_null(v))
		return true;
	if (json_is_string(v)) {
		stave_buf_put(out, json_string_value(v), json_string_length(v));
		return true;
	}
	if (!json_is_array(v))
		return BAD(e, "messages", "a message's content must be a string or an array of parts");
	json_array_foreach(v, i, part) {
		const char *type = stave_json_str(part, "type", "");
		json_t *text = json_object_get(part, "text");
		if (strcmp(type, "text"))
			return BAD(e, "messages", "content part of type '%.40s': this model reads text only", type);
		if (!json_is_string(text))
			return BAD(e, "messages", "a text part needs a string in 'text'");
		if (out->len)
			stave_buf_put(out, "\n", 1);
		stave_buf_put(out, json_string_value(text), json_string_length(text));
	}
	return true;
}

static bool messages(struct api_request *r, struct api_error *e)
{
	json_t *v = field(r->root, "messages"), *m;
	size_t n = json_array_size(v), i;
	if (!json_is_array(v) || n == 0 || n > 100000)
		return BAD(e, "messages", "messages must be a non-empty array");
	r->messages = calloc(n, sizeof *r->messages);
	if (!r->messages)
		return api_fail(e, 500, "server_error", NULL, "messages", "out of memory");
	json_array_foreach(v, i, m) {
		struct stave_buf text = {0};
		const char *role = role_of(json_string_value(json_object_get(m, "role")));
		if (!role)
			return BAD(e, "messages", "message %zu: role must be system, developer, user, assistant or tool", i);
		bool ok = content_of(json_object_get(m, "content"), &text, e);
		r->messages[r->n_messages++] = (struct stave_message){role, text.p};
		if (!ok)
			return false;
	}
	return true;
}

/* ---- the whole ---- */

static bool refuse_unsupported(const struct api_request *r, struct api_error *e)
{
	json_t *format = field(r->root, "response_format"), *tools = field(r->root, "tools"), *suffix = field(r->root, "suffix");
	if (format && strcmp(stave_json_str(format, "type", "text"), "text"))
		return BAD(e, "response_format", "response_format: this server answers in plain text only");
	json_t *choice = field(r->root, "tool_choice");
	bool no_tools = json_is_string(choice) && !strcmp(json_string_value(choice), "none");
	if (json_array_size(tools) && !no_tools)
		return BAD(e, "tools", "tools: this server does not call tools");
	if (suffix && (!json_is_string(suffix) || json_string_length(suffix)))
		return BAD(e, "suffix", "suffix: this server does not fill in the middle");
	int best_of = r->n;
	if (!integer(r->root, "best_of", 1, API_CHOICES_MAX, &best_of, e))
		return false;
	return best_of == r->n || BAD(e, "best_of", "best_of must equal n");
}

static bool logprobs(struct api_request *r, struct api_error *e)
{
	r->logprobs = -1;
	if (!r->chat)
		return integer(r->root, "logprobs", 0, STAVE_TOP_MAX, &r->logprobs, e);
	bool wanted = false;
	int top = 0;
	if (!boolean(r->root, "logprobs", &wanted, e) || !integer(r->root, "top_logprobs", 0, STAVE_TOP_MAX, &top, e))
		return false;
	if (top && !wanted)
		return BAD(e, "top_logprobs", "top_logprobs needs logprobs: true");
	if (wanted)
		r->logprobs = top;
	return true;
}

static bool common(struct api_request *r, struct api_error *e)
{
	json_t *model = field(r->root, "model"), *options = field(r->root, "stream_options");
	if (model && !json_is_string(model))
		return BAD(e, "model", "model must be a string");
	if (options && !json_is_object(options))
		return BAD(e, "stream_options", "stream_options must be an object");
	r->model = json_string_value(model);
	r->n = 1;
	r->max_tokens = -1;
	return integer(r->root, "n", 1, API_CHOICES_MAX, &r->n, e) && integer(r->root, "max_tokens", 0, 1000000000, &r->max_tokens, e) &&
	       (!r->chat || integer(r->root, "max_completion_tokens", 0, 1000000000, &r->max_tokens, e)) && boolean(r->root, "stream", &r->stream, e) &&
	       (!options || boolean(options, "include_usage", &r->include_usage, e)) && boolean(r->root, "ignore_eos", &r->ignore_eos, e) &&
	       (r->chat || boolean(r->root, "echo", &r->echo, e)) && stops(r, e) && sampling(r, e) && logprobs(r, e) && refuse_unsupported(r, e);
}

bool api_request_parse(struct api_request *r, bool chat, const char *body, size_t n, struct api_error *e)
{
	struct stave_err err;
	*r = (struct api_request){.chat = chat};
	if (stave_json_parse(&r->root, body, n, "request body", &err))
		return BAD(e, NULL, "%s", err.msg);
	bool ok = json_is_object(r->root) ? true : BAD(e, NULL, "the request body must be a JSON object");
	ok = ok && common(r, e) && (chat ? messages(r, e) : prompts(r, e));
	if (!ok)
		api_request_free(r);
	return ok;
}

void api_request_free(struct api_request *r)
{
	for (int i = 0; i < r->n_prompts; i++)
		free(r->prompts[i].ids);
	for (int i = 0; i < r->n_messages; i++)
		free((void *)r->messages[i].content);
	free(r->prompts);
	free(r->messages);
	free((void *)r->sampling.bias_ids);
	free((void *)r->sampling.bias);
	json_decref(r->root);
	*r = (struct api_request){0};
}
