/* Lifelines (private to comm/): who is alive, where they are, and who is missing. See lifeline.c. */
#ifndef STAVE_COMM_LIFELINE_H
#define STAVE_COMM_LIFELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define LIFELINE_MAGIC 0x65767473u /* "stve" */
#define LIFELINE_OP 32 /* bytes of an operation's name on the wire, NUL included */

/* How a rank was lost. On the wire: append only. */
enum lifeline_how {
	LIFELINE_ENDED,  /* its connection closed without a goodbye: the process died */
	LIFELINE_SILENT, /* no heartbeat: stopped, or its machine or network is gone */
	LIFELINE_LATE,   /* alive, but never joined the collective the others wait in */
	LIFELINE_LEFT,   /* it stopped because of an error of its own */
	LIFELINE_HOWS
};

struct lifeline_loss {
	int rank;
	enum lifeline_how how;
	int64_t step;         /* the lost rank's own last word */
	char op[LIFELINE_OP];
	double age_s;         /* of that word, when the loss was noticed */
};

struct lifeline;
/* An allgather over the ranks, used while opening only. */
typedef int lifeline_gather(void *ctx, const void *mine, void *all, size_t bytes, struct stave_err *err);

/* Collective. host: a number equal on ranks that share a machine's loopback network. */
int stave_lifeline_open(struct lifeline **out, int rank, int size, uint64_t host, double silence_s, lifeline_gather *gather,
                        void *ctx, struct stave_err *err);
/* left: peers are told that this rank stops because of an error; otherwise goodbye means that all is done. After a loss it
 * returns together with the other survivors. */
void stave_lifeline_close(struct lifeline *l, bool left);
void stave_lifeline_silence_set(struct lifeline *l, double silence_s);
/* This rank's own place: step, the seq-th collective named op (NULL: between collectives, seq counts those joined). */
void stave_lifeline_step(struct lifeline *l, int64_t step);
void stave_lifeline_op(struct lifeline *l, const char *op, int64_t seq);
/* True when some rank is known to be lost; the first loss noticed anywhere is the one everybody names. Cheap. */
bool stave_lifeline_lost(struct lifeline *l, struct lifeline_loss *loss);
/* The seq-th collective does not complete: ask all ranks who has not joined it, and declare the furthest behind lost.
 * False when nobody answers within patience_s. */
bool stave_lifeline_blame(struct lifeline *l, int64_t seq, double patience_s, struct lifeline_loss *loss);
/* Called on the lifeline's thread, every heartbeat from the moment a loss was noticed, with the seconds since. */
void stave_lifeline_alarm_set(struct lifeline *l, void (*alarm)(void *ctx, double since_s), void *ctx);

/* One machine's identity for `host` above: kernel boot and network namespace. */
uint64_t stave_lifeline_host(void);

/* The wire: fixed frames of 64 bytes. */
enum lifeline_type { LIFELINE_HELLO = 1, LIFELINE_BEAT, LIFELINE_LOST, LIFELINE_ASK, LIFELINE_LATE_, LIFELINE_BYE };
struct lifeline_frame {
	uint32_t magic;
	uint8_t type, how;
	uint16_t to;      /* HELLO: low bits of the rank dialled */
	uint32_t rank;    /* whom the frame is about */
	uint32_t age_ms;
	int64_t step, seq;
	char op[LIFELINE_OP]; /* HELLO: 16 bytes of cookie */
};
/* Checks every field of a frame from the network against the size of the job; op comes out NUL-terminated and printable.
 * False: not a frame of ours. */
bool stave_lifeline_frame_check(struct lifeline_frame *f, int size);

#endif
