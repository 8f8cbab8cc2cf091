/* The talk in the terminal: the model's own template, the history, Ctrl-C that stops the answer and not the program. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/sys.h"
#include "cli/run.h"

/* ---- the messages ---- */

int run_talk_add(struct run_talk *t, const char *role, const char *text, size_t n, struct stave_err *err)
{
	struct stave_buf clean = {0}; /* templates want UTF-8 */
	stave_utf8_clean(text, n, &clean);
	json_t *m = json_pack("{s:s, s:s}", "role", role, "content", clean.p ? clean.p : "");
	stave_buf_free(&clean);
	return m && !json_array_append_new(t->messages, m) ? 0 : stave_err_set(err, STAVE_ENOMEM, "out of memory for the talk");
}

int run_talk_open(struct run_talk *t, const struct run_options *o, struct stave_err *err)
{
	int rc = 0;
	*t = (struct run_talk){0};
	if (o->variables && (rc = stave_json_parse(&t->data, o->variables, strlen(o->variables), "--variables", err)))
		return rc;
	if (!t->data)
		t->data = json_object();
	if (!json_is_object(t->data)) {
		run_talk_close(t);
		return stave_err_set(err, STAVE_EUSAGE, "--variables: a JSON object is wanted");
	}
	t->messages = json_array();
	if (json_object_set_new(t->data, "messages", t->messages)) {
		run_talk_close(t);
		return stave_err_set(err, STAVE_ENOMEM, "out of memory for the talk");
	}
	if (o->system && *o->system && (rc = run_talk_add(t, "system", o->system, strlen(o->system), err)))
		run_talk_close(t);
	return rc;
}

void run_talk_close(struct run_talk *t)
{
	json_decref(t->data);
	*t = (struct run_talk){0};
}

static bool is_system(const json_t *m) { return !strcmp(stave_json_str(m, "role", ""), "system"); }

/* Forgets the oldest question and its answer; false: only the newest question (and the system's words) are left. */
static bool forget(struct run_talk *t)
{
	size_t first = is_system(json_array_get(t->messages, 0)), n = json_array_size(t->messages);
	if (n <= first + 1)
		return false;
	json_array_remove(t->messages, first);
	if (n > first + 2)
		json_array_remove(t->messages, first);
	return true;
}

/* The oldest turns are forgotten, aloud, when the talk leaves less than a quarter of the context for the answer. */
static int encode(struct stave_encoder *encoder, struct run_talk *t, int context, struct stave_ids *ids, struct stave_err *err)
{
	for (;;) {
		ids->n = 0;
		int rc = stave_chat_render(encoder, t->data, true, ids, err);
		if (rc || ids->n <= (size_t)context * 3 / 4 || !forget(t))
			return rc;
		stave_log(STAVE_LOG_WARN, "the context of %d tokens is full: the oldest turn is forgotten", context);
	}
}

/* ---- turns ---- */

static int turn(struct stave_engine *e, const struct run_options *o, const struct run_rules *rules, struct stave_encoder *encoder, struct run_talk *t, struct stave_err *err)
{
	struct stave_ids ids = {0};
	struct run_answer a;
	run_answer_init(&a, true);
	run_interrupted = 0;
	int rc = encode(encoder, t, stave_engine_info(e)->context, &ids, err);
	if (!rc)
		rc = run_generate(e, o, rules, run_seed(o), &ids, true, &a, err);
	if (!rc) {
		struct run_speed s = run_measure(e, &a.end);
		rc = run_talk_add(t, "assistant", a.text.p ? a.text.p : "", a.text.len, err);
		putchar('\n');
		fflush(stdout);
		fprintf(stderr, "  [read %d tokens%s%.0f tokens/s, wrote %d, %.1f tokens/s, %s]\n", a.end.prompt_tokens - a.end.cached_tokens, a.end.cached_tokens ? " anew, " : ", ", s.prefill_per_s,
		        a.end.completion_tokens, s.decode_per_s, run_finish_name(a.end.finish));
	}
	run_answer_free(&a);
	stave_ids_free(&ids);
	return rc;
}

static void on_interrupt(int sig) { run_interrupted = 1; }

int run_chat(struct stave_engine *e, const struct run_options *o, const struct run_rules *rules, struct stave_err *err)
{
	struct stave_encoder *encoder;
	struct run_talk t;
	char *line = NULL;
	size_t cap = 0;
	int rc = stave_encoder_open(&encoder, stave_engine_info(e)->tokenizer, err);
	if (rc)
		return rc;
	if ((rc = run_talk_open(&t, o, err))) {
		stave_encoder_free(encoder);
		return rc;
	}
	struct sigaction sa = {.sa_handler = on_interrupt}; /* no SA_RESTART: Ctrl-C at the prompt ends the chat */
	sigaction(SIGINT, &sa, NULL);
	fputs("Ctrl-C stops an answer, Ctrl-D ends, /clear begins anew.\n", stderr);
	while (!rc) {
		fputs("> ", stderr);
		ssize_t n = getline(&line, &cap, stdin);
		if (n <= 0)
			break;
		line[n = (ssize_t)strcspn(line, "\n")] = 0;
		if (!*line)
			continue;
		if (!strcmp(line, "/clear")) {
			run_talk_close(&t);
			rc = run_talk_open(&t, o, err);
			continue;
		}
		if (!(rc = run_talk_add(&t, "user", line, (size_t)n, err)))
			rc = turn(e, o, rules, encoder, &t, err);
	}
	fputc('\n', stderr);
	free(line);
	run_talk_close(&t);
	stave_encoder_free(encoder);
	return rc;
}
