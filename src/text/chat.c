/* Chat: messages become ids in the form the model was tuned on. A template is recognised by its control tokens; what it
 * prints around the messages is written here, so nothing in a model's directory is executed. Control tokens are put as
 * ids, and everything a message says is encoded with specials off: a user who types <|im_end|> types ten characters.
 *
 * Three forms:
 *   ChatML     <|im_start|>role\ncontent<|im_end|>\n                       (first a system message, if the template has one)
 *   Llama-3    <|begin_of_text|>, then <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>, content trimmed
 *   plain      role: content\n                                            for models without a template
 * Header and content are encoded as one text, since the words of a pattern may join them. */
#include <ctype.h>
#include <stdlib.h>

#include "text/tokenizer.h"

struct chat {
	struct stave_encoder *e;
	const struct stave_tokenizer *t;
	struct stave_ids *ids;
	struct stave_err *err;
	struct stave_buf text;
};

static int put_control(struct chat *c, const char *token)
{
	const struct text_added *a = text_added_find(c->t, token, strlen(token));
	if (!a)
		return stave_err_set(c->err, STAVE_ECORRUPT, "the chat template uses %s, which is no added token of the tokenizer", token);
	stave_ids_put(c->ids, a->id);
	return 0;
}

/* Encode what has gathered in c->text. */
static int put_text(struct chat *c)
{
	int rc = c->text.len ? stave_encode(c->e, c->text.p, c->text.len, false, c->ids, c->err) : 0;
	c->text.len = 0;
	return rc;
}

static void add(struct chat *c, const char *s)
{
	stave_buf_put(&c->text, s, strlen(s));
}

static int chatml_message(struct chat *c, const char *role, const char *content, size_t n)
{
	int rc = put_control(c, "<|im_start|>");
	add(c, role);
	add(c, "\n");
	stave_buf_put(&c->text, content, n);
	if (rc || (rc = put_text(c)) || (rc = put_control(c, "<|im_end|>")))
		return rc;
	add(c, "\n");
	return put_text(c);
}

/* Qwen's templates begin a conversation that has no system message with one of their own, a literal in the template:
 * <|im_start|>system\n then words up to <|im_end|> with no quote between. NULL when there is none. */
static const char *default_system(const char *template, size_t *n)
{
	static const char head[] = "<|im_start|>system\\n";
	for (const char *p = template; (p = strstr(p, head));) {
		p += sizeof head - 1;
		const char *end = strstr(p, "<|im_end|>");
		*n = end ? (size_t)(end - p) : 0;
		if (*n && strcspn(p, "'\"{}\\") >= *n)
			return p;
	}
	return NULL;
}

static int chatml(struct chat *c, const struct stave_message *m, int n, bool answer)
{
	size_t len;
	const char *system = n && !strcmp(m[0].role, "system") ? NULL : default_system(c->t->chat_template, &len);
	int rc = system ? chatml_message(c, "system", system, len) : 0;
	for (int i = 0; i < n && !rc; i++)
		rc = chatml_message(c, m[i].role, m[i].content, strlen(m[i].content));
	if (rc || !answer)
		return rc;
	if ((rc = put_control(c, "<|im_start|>")))
		return rc;
	add(c, "assistant\n");
	return put_text(c);
}

static int llama3_header(struct chat *c, const char *role)
{
	int rc = put_control(c, "<|start_header_id|>");
	add(c, role);
	if (rc || (rc = put_text(c)))
		return rc;
	rc = put_control(c, "<|end_header_id|>");
	add(c, "\n\n");
	return rc;
}

static int llama3(struct chat *c, const struct stave_message *m, int n, bool answer)
{
	int rc = put_control(c, "<|begin_of_text|>");
	for (int i = 0; i < n && !rc; i++) {
		const char *p = m[i].content, *end = p + strlen(p);
		while (p < end && isspace((unsigned char)*p))
			p++;
		while (end > p && isspace((unsigned char)end[-1]))
			end--;
		rc = llama3_header(c, m[i].role);
		stave_buf_put(&c->text, p, (size_t)(end - p));
		if (!rc && !(rc = put_text(c)))
			rc = put_control(c, "<|eot_id|>");
	}
	if (!rc && answer && !(rc = llama3_header(c, "assistant")))
		rc = put_text(c);
	return rc;
}

/* The answer's header ends with the colon, not the space: words carry the space before them, so the model's first token
 * will have it. Each message is two texts, "role:" and " content\n", so that a conversation is a prefix of its answer. */
static int plain(struct chat *c, const struct stave_message *m, int n, bool answer)
{
	int rc = 0;
	if (c->t->add_bos)
		stave_ids_put(c->ids, c->t->bos);
	for (int i = 0; i < n && !rc; i++) {
		add(c, m[i].role);
		add(c, ":");
		if ((rc = put_text(c)))
			return rc;
		add(c, " ");
		add(c, m[i].content);
		add(c, "\n");
		rc = put_text(c);
	}
	if (rc || !answer)
		return rc;
	add(c, "assistant:");
	return put_text(c);
}

/* A role becomes part of a header, so it may not hold anything that would end one. */
static int check(const struct stave_message *m, int n, struct stave_err *err)
{
	for (int i = 0; i < n; i++) {
		size_t len = m[i].role ? strlen(m[i].role) : 0;
		if (!len || len > 64 || strspn(m[i].role, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != len)
			return stave_err_set(err, STAVE_EUSAGE, "message %d: a role must be 1 to 64 letters, digits, _ or -", i);
		if (!m[i].content)
			return stave_err_set(err, STAVE_EUSAGE, "message %d has no content", i);
	}
	return 0;
}

int stave_chat_encode(struct stave_encoder *e, const struct stave_message *m, int n, bool answer, struct stave_ids *ids, struct stave_err *err)
{
	const struct stave_tokenizer *t = text_encoder_tokenizer(e);
	struct chat c = {.e = e, .t = t, .ids = ids, .err = err};
	size_t before = ids->n;
	int rc = check(m, n, err);
	if (rc)
		return rc;
	switch (t->chat) {
	case TEXT_CHAT_CHATML:
		rc = chatml(&c, m, n, answer);
		break;
	case TEXT_CHAT_LLAMA3:
		rc = llama3(&c, m, n, answer);
		break;
	case TEXT_CHAT_PLAIN:
		rc = plain(&c, m, n, answer);
		break;
	case TEXT_CHAT_UNKNOWN:
		rc = stave_err_set(err, STAVE_ECONFIG, "the model's chat template is neither ChatML nor Llama-3; use completions with the prompt written out");
		break;
	}
	stave_buf_free(&c.text);
	if (rc)
		ids->n = before;
	return rc;
}

int stave_chat_stops(const struct stave_tokenizer *t, int32_t *ids, int max)
{
	static const char *const enders[] = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"};
	int n = 0;
	if (t->eos >= 0 && n < max)
		ids[n++] = t->eos;
	for (size_t i = 0; i < sizeof enders / sizeof *enders; i++) {
		const struct text_added *a = text_added_find(t, enders[i], strlen(enders[i]));
		bool ours = i == 0 ? t->chat == TEXT_CHAT_CHATML : t->chat == TEXT_CHAT_LLAMA3;
		if (a && ours && a->id != t->eos && n < max)
			ids[n++] = a->id;
	}
	return n;
}

const char *stave_chat_stop_text(const struct stave_tokenizer *t)
{
	return t->chat == TEXT_CHAT_PLAIN ? "\nuser:" : NULL;
}
