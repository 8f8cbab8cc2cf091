/* Chat: messages become ids in the form the model was tuned on, by its own template (jinja.h).
 *
 * What the template wrote and what came with the messages are told apart byte by byte: control tokens are read only where
 * the template wrote them, so a user who types <|im_end|> types ten characters. The text is encoded as one, since the words
 * of a pattern may join the two.
 *
 * A model without a template gets the plain form, "role: content\n". */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "text/jinja.h"
#include "text/tokenizer.h"

/* The answer's header ends with the colon, not the space: words carry the space before them, so the model's first token
 * will have it. Each message is two texts, "role:" and " content\n", so that a conversation is a prefix of its answer. */
static int plain_text(struct stave_encoder *e, struct stave_buf *b, struct stave_ids *ids, struct stave_err *err)
{
	int rc = stave_encode(e, b->p, b->len, false, ids, err);
	b->len = 0;
	return rc;
}

static int plain(struct stave_encoder *e, const json_t *messages, bool answer, struct stave_ids *ids, struct stave_err *err)
{
	const struct stave_tokenizer *t = text_encoder_tokenizer(e);
	struct stave_buf b = {0};
	const json_t *m;
	size_t i;
	int rc = 0;
	if (t->add_bos && t->bos >= 0)
		stave_ids_put(ids, t->bos);
	json_array_foreach((json_t *)messages, i, m) {
		stave_buf_printf(&b, "%s:", stave_json_str(m, "role", ""));
		if (rc || (rc = plain_text(e, &b, ids, err)))
			break;
		stave_buf_printf(&b, " %s\n", stave_json_str(m, "content", ""));
		rc = plain_text(e, &b, ids, err);
	}
	if (!rc && answer) {
		stave_buf_printf(&b, "assistant:");
		rc = plain_text(e, &b, ids, err);
	}
	stave_buf_free(&b);
	return rc;
}

/* A role becomes part of a header, so it may not hold anything that would end one. */
static int check(const json_t *messages, struct stave_err *err)
{
	const json_t *m;
	size_t i;
	if (!json_is_array(messages))
		return stave_err_set(err, STAVE_EUSAGE, "messages must be a list");
	json_array_foreach((json_t *)messages, i, m) {
		const char *role = stave_json_str(m, "role", "");
		size_t len = strlen(role);
		if (!len || len > 64 || strspn(role, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != len)
			return stave_err_set(err, STAVE_EUSAGE, "message %zu: a role must be 1 to 64 letters, digits, _ or -", i);
	}
	return 0;
}

static void add_token(json_t *o, const struct stave_tokenizer *t, const char *name, int32_t id)
{
	struct stave_buf b = {0};
	if (id >= 0 && !stave_decode(t, &id, 1, true, &b, NULL) && b.len)
		json_object_set_new(o, name, json_stringn(b.p, b.len));
	stave_buf_free(&b);
}

int stave_chat_render(struct stave_encoder *e, const json_t *data, bool answer, struct stave_ids *ids, struct stave_err *err)
{
	const struct stave_tokenizer *t = text_encoder_tokenizer(e);
	size_t before = ids->n;
	int rc = check(json_object_get(data, "messages"), err);
	if (rc)
		return rc;
	if (!t->chat_template) {
		rc = plain(e, json_object_get(data, "messages"), answer, ids, err);
		if (rc)
			ids->n = before;
		return rc;
	}
	struct jinja *template = NULL;
	struct jinja_text out = {0};
	json_t *vars = json_copy((json_t *)data), *own = json_object();
	if (!vars || !own || json_object_set_new(vars, "add_generation_prompt", json_boolean(answer))) {
		rc = stave_err_set(err, STAVE_ENOMEM, "out of memory for a chat");
	} else {
		add_token(own, t, "bos_token", t->bos);
		add_token(own, t, "eos_token", t->eos);
		add_token(own, t, "unk_token", t->unknown);
		rc = jinja_open(&template, t->chat_template, strlen(t->chat_template), err);
	}
	if (!rc && !(rc = jinja_render(template, vars, own, time(NULL), &out, err)))
		rc = stave_encode_marked(e, out.text.p ? out.text.p : "", out.text.len, (const uint8_t *)out.own.p, ids, err);
	jinja_close(template);
	jinja_text_free(&out);
	json_decref(vars);
	json_decref(own);
	if (rc)
		ids->n = before;
	return rc;
}

int stave_chat_encode(struct stave_encoder *e, const struct stave_message *m, int n, bool answer, struct stave_ids *ids, struct stave_err *err)
{
	json_t *list = json_array(), *data = json_object();
	int rc = list && data ? 0 : stave_err_set(err, STAVE_ENOMEM, "out of memory for a chat");
	for (int i = 0; i < n && !rc; i++) {
		json_t *o = m[i].role && m[i].content ? json_pack("{s:s, s:s}", "role", m[i].role, "content", m[i].content) : NULL;
		if (!o || json_array_append_new(list, o))
			rc = stave_err_set(err, STAVE_EUSAGE, "message %d: role and content must be text in UTF-8", i);
	}
	if (!rc && json_object_set(data, "messages", list))
		rc = stave_err_set(err, STAVE_ENOMEM, "out of memory for a chat");
	if (!rc)
		rc = stave_chat_render(e, data, answer, ids, err);
	json_decref(list);
	json_decref(data);
	return rc;
}

/* Besides the end of text: what ends a turn in the templates that use it. */
int stave_chat_stops(const struct stave_tokenizer *t, int32_t *ids, int max)
{
	static const char *const enders[] = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<end_of_turn>", "<|end|>", "<|return|>", "<|endoftext|>", "</s>"};
	int n = 0;
	if (t->eos >= 0 && n < max)
		ids[n++] = t->eos;
	bool llama3 = t->chat_template && strstr(t->chat_template, "<|start_header_id|>");
	for (size_t i = 0; i < sizeof enders / sizeof *enders; i++) {
		const struct text_added *a = text_added_find(t, enders[i], strlen(enders[i]));
		bool ours = t->chat_template && (strstr(t->chat_template, enders[i]) || (llama3 && i >= 1 && i <= 3));
		if (a && ours && a->id != t->eos && n < max)
			ids[n++] = a->id;
	}
	return n;
}

const char *stave_chat_stop_text(const struct stave_tokenizer *t) { return t->chat_template ? NULL : "\nuser:"; }
