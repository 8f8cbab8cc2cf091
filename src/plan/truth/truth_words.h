/* Private to truth.c: the words of a table of measured runs, made the program's (truth_words.c). Each takes NULL for a word not written. */
#ifndef STAVE_PLAN_TRUTH_WORDS_H
#define STAVE_PLAN_TRUTH_WORDS_H

#include "plan/truth/truth.h"

/* Whether `word` occurs in `text`, whatever the case. */
bool plan_words_have(const char *text, const char *word);
enum plan_precision plan_words_precision(const char *text);
/* 0 none, 1 selective, 2 full; -1 not said. */
int plan_words_recompute(const char *text, bool *seq_parallel);
/* Bytes/s of all NICs of a node: "8x200Gb/s … per node", "400 Gb/s RDMA per GPU" (times `gpus_per_node`). 0: not said. */
double plan_words_nic(const char *text, int gpus_per_node);
/* What the row's words change in the data sheet: memory ("96GB"), bandwidth ("2.4TB/s"), power ("500W cap"). */
void plan_words_variant(const char *text, struct plan_accelerator *a);
/* "DEP4", "TP8", "TEP8", "TP4-PP2": a degree of 0 where the layout says nothing of it. */
void plan_words_layout(const char *text, int *tp, int *pp, int *ep);
/* "128 experts top-8, expert ffn 1536", "256 routed experts, top-8, expert ffn 2048, 37B active". Zeros where nothing is said. */
void plan_words_moe(const char *text, int *experts, int *used, int *ffn);
/* The software, from the engine or else from what group, source, notes and id say; "" when none is known. Static. */
const char *plan_words_stack(const char *engine, const char *const *others, int n);

#endif
