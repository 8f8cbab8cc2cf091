/* Private to plan/: what a job writes to and reads from storage. Bytes, bytes per second, seconds; a rate of 0 is one that is not there, unless
 * said otherwise. Pure functions; nothing here allocates. */
#ifndef STAVE_PLAN_STORAGE_H
#define STAVE_PLAN_STORAGE_H

#include <stdbool.h>

#include "base/err.h"

/* Of each trained parameter: bf16 weight, fp32 master copy and Adam's two moments, 2 + 4 + 4 + 4 (Narayanan et al. SC21 section 5.10: 1T
 * parameters are 13.8 TB; MLPerf Storage's checkpoint sizes are 14 binary bytes of a parameter). */
#define PLAN_CHECKPOINT_BYTES_PER_PARAMETER 14.0

/* Who writes a checkpoint, and whereto. */
struct plan_saving {
	double parameters;          /* trained ones: frozen weights are not written again */
	double nodes, devices;
	double device_host_bytes_s; /* of one device to its host (PCIe), one direction; for asynchronous */
	double nic_bytes_s;         /* of one node */
	double write_bytes_s, read_bytes_s, capacity_bytes; /* of the shared storage, all of it; capacity 0: not limited */
	double local_write_bytes_s; /* of one node's own disks; 0: none are used */
	bool asynchronous;          /* the job goes on once the state lies in host memory */
	int keep;                   /* checkpoints kept on the shared storage, >= 1 */
};
struct plan_checkpoint {
	double bytes;
	double stall_s;             /* the job stands still */
	double exposed_s;           /* after that, until it is safe on the shared storage: the same word as in struct plan_recovery */
	double load_s;              /* reading it back, from the shared storage */
	double kept_bytes;          /* keep checkpoints, and the one being written */
	const char *binding;        /* what the write to shared storage waits for: "storage" or "nic" */
	double binding_bytes_s;
};
/* Time = bytes / min(storage, nodes nic) (planner.md d.5). The stall is the whole write when it blocks, the write to the nodes' own disks when there are any
 * (the copy to shared storage then follows behind the job), and the copy to host memory alone when it is asynchronous. STAVE_ENOFIT when what is
 * kept exceeds the capacity, with the numbers and how many would fit. */
int plan_checkpoint_evaluate(const struct plan_saving *s, struct plan_checkpoint *out, struct stave_err *err);

/* Training data on its way to the devices, all of the job together. */
struct plan_feed {
	double units_s;             /* tokens or samples per second that the devices ask for */
	double bytes_per_unit;      /* of one, as stored: 2 or 4 of a token, more of a picture */
	double nodes, nic_bytes_s;  /* of one node */
	double read_bytes_s;        /* of the storage, all of it */
	double decode_bytes_s;      /* stored bytes that one node's CPUs unpack per second; 0: nothing to unpack */
};
struct plan_feeding {
	double need_bytes_s, have_bytes_s;
	double share;               /* need / have; above 1 the devices wait, and a step takes so much longer */
	const char *binding;        /* "storage", "nic" or "decode": what `have` is */
};
/* have = min(storage, nodes nic, nodes decode); after prefetching a step takes max(compute, bytes / have) (planner.md d.5). */
void plan_feed_evaluate(const struct plan_feed *f, struct plan_feeding *out);
/* Bytes per second that one device reads at full speed: `samples` of a step that takes step_s (MLPerf Storage, DLIO). */
double plan_feed_device_bytes_s(double samples, double bytes_per_sample, double step_s);

/* Seconds to bring data to a site before the job: over a link and into its storage, which go on together. A rate of 0 does not limit. */
double plan_staging_s(double bytes, double link_bytes_s, double write_bytes_s);

#endif
