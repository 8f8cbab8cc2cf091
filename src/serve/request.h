/* Private to serve/: what a client asked, checked. Pure: bytes in, a request or an error out (the fuzz target's door). */
#ifndef STAVE_SERVE_REQUEST_H
#define STAVE_SERVE_REQUEST_H

#include <jansson.h>

#include "infer/infer.h"

#define API_PROMPTS_MAX 1024
#define API_CHOICES_MAX 128
#define API_STOPS_MAX 64

/* An error as clients of the API expect it; code may be NULL. */
struct api_error {
	int status;
	const char *type, *code;
	char param[64];
	char message[400];
};
/* Returns false, for `return api_fail(...)`. */
__attribute__((format(printf, 6, 7))) bool api_fail(struct api_error *e, int status, const char *type, const char *code, const char *param, const char *fmt, ...);

struct api_prompt {
	const char *text;       /* or, if NULL, ids */
	int32_t *ids;           /* (n_ids), owned */
	int n_ids;
};
struct api_request {
	json_t *root;           /* owns every string below */
	bool chat, stream, include_usage, echo, ignore_eos;
	const char *model;      /* NULL: not said */
	int n;                  /* choices per prompt */
	int max_tokens;         /* -1: not said */
	int logprobs;           /* -1: none */
	bool has_seed;
	struct stave_sampling sampling; /* bias arrays owned */
	const char *stop[API_STOPS_MAX + 1];
	int n_stop;
	struct api_prompt *prompts;
	int n_prompts;
	struct stave_message *messages; /* (n_messages); contents owned */
	int n_messages;
};
/* POST bodies of /v1/completions, or of /v1/chat/completions if `chat`. */
bool api_request_parse(struct api_request *r, bool chat, const char *body, size_t n, struct api_error *e);
void api_request_free(struct api_request *r);

#endif
