/* Private to the training part of plan/: how a layout cuts a job, shared by time (train_step.c) and memory (train_memory.c). */
#ifndef STAVE_PLAN_TRAIN_PARTS_H
#define STAVE_PLAN_TRAIN_PARTS_H

#include "plan/train/train.h"

struct plan_cut {
	struct stave_closed c;
	double tokens;            /* of a micro-batch on one device, before tensor parallelism */
	double micros;            /* micro-batches of a step on one pipeline */
	double outside;           /* tensor-parallel ranks that share norms and residuals: tp with sequence parallelism, else 1 */
	double layers_full, layers_last; /* of the fullest stage, and of the one with the classifier */
	double dense, expert;     /* trained parameters per layer and device, experts apart */
	double ends;              /* of embedding and classifier, per device */
	int group, expert_group;  /* devices that hold the same dense weights (dp cp), and the same experts */
	bool sharded;             /* ZeRO 3 over more than one device */
};
void plan_cut_of(const struct plan_train_job *j, const struct plan_layout *l, struct plan_cut *out);
/* Trained parameters of a device that holds `layers` layers, dense and expert ones: of adapters when the base is frozen. */
double plan_cut_dense(const struct plan_cut *c, double layers);

#endif
