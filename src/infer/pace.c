/* Pace: a prompt beside running answers is cut so that a step takes STRETCH times what it takes without (issue: no stream may
 * wait longer than three times). Times are measured on the steps themselves: what a step costs depends on the model, the
 * machine, and on how far the prompt has come. */
#include <string.h>

#include "infer/engine.h"

#define STRETCH 2.2
#define RATE 0.2 /* of the running averages */

void pace_forget(struct pace *p)
{
	memset(p->idle_s, 0, ((size_t)p->slots + 1) * sizeof *p->idle_s);
	p->token_s = 0;
}

static double idle(const struct pace *p, int answering)
{
	int i = answering < p->slots ? answering : p->slots;
	for (int k = i; k > 0; k--) /* more sequences cost more: a smaller number's time errs on the safe side */
		if (p->idle_s[k] > 0)
			return p->idle_s[k];
	for (int k = i + 1; k <= p->slots; k++)
		if (p->idle_s[k] > 0)
			return p->idle_s[k] * i / k;
	return 0;
}

int pace_chunk(const struct pace *p, int answering, int most)
{
	double alone = idle(p, answering), spare_s = (STRETCH - 1) * alone;
	if (!answering)
		return most;
	if (alone <= 0)
		return 0;
	double n = p->token_s > 0 ? spare_s / p->token_s : 4; /* a first guess, soon corrected */
	return n >= most ? most : n < 1 ? 1 : (int)n;
}

static void average(double *a, double v)
{
	if (*a > 0 && v > 2 * *a) /* the machine was away */
		v = 2 * *a;
	*a = *a > 0 ? *a + RATE * (v - *a) : v;
}

void pace_note(struct pace *p, int answering, int prompt_tokens, double seconds)
{
	double alone = idle(p, answering);
	if (!prompt_tokens)
		average(&p->idle_s[answering < p->slots ? answering : p->slots], seconds);
	else if (!answering || alone <= 0)
		p->token_s = p->token_s > 0 ? p->token_s : seconds / prompt_tokens;
	else if (seconds > alone)
		average(&p->token_s, (seconds - alone) / prompt_tokens);
	else
		average(&p->token_s, 0.05 * seconds / prompt_tokens);
}
