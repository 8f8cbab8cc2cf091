/* The tables of metrics.h as data. */
#include "watch/metrics.h"

#include <stddef.h>
#include <string.h>

const struct stave_metric stave_train_metrics[] = {
#define X(name, exposed, type, board, help) {name, exposed, STAVE_METRIC_##type, board, help},
	STAVE_TRAIN_METRICS(X)
#undef X
	{NULL, NULL, STAVE_METRIC_GAUGE, NULL, NULL},
};

const struct stave_metric *stave_metric_find(const char *name)
{
	for (const struct stave_metric *m = stave_train_metrics; m->name; m++)
		if (!strcmp(m->name, name))
			return m;
	return NULL;
}
