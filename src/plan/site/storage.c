/* Checkpoints out and data in, each as bytes over the narrowest of the pipes they pass.
 *
 * All pipes work at once, so the time is that of the narrowest one, and naming it says what to widen. A rate that is missing where one is
 * needed has no answer: such times are PLAN_NEVER_S, never 0. */
#include "plan/site/storage.h"

#include <math.h>

#include "plan/site/reliability.h"

static double seconds(double bytes, double bytes_s)
{
	if (bytes <= 0)
		return 0;
	return bytes_s > bytes / PLAN_NEVER_S ? bytes / bytes_s : PLAN_NEVER_S;
}

static void shared_write(const struct plan_saving *s, struct plan_checkpoint *c)
{
	double nics = s->nodes * s->nic_bytes_s;
	bool storage = s->write_bytes_s <= nics || s->nic_bytes_s <= 0;
	c->binding = storage ? "storage" : "nic";
	c->binding_bytes_s = storage ? s->write_bytes_s : nics;
}

int plan_checkpoint_evaluate(const struct plan_saving *s, struct plan_checkpoint *out, struct stave_err *err)
{
	struct plan_checkpoint c = {.bytes = PLAN_CHECKPOINT_BYTES_PER_PARAMETER * s->parameters};
	shared_write(s, &c);
	double write = seconds(c.bytes, c.binding_bytes_s);
	double local = s->local_write_bytes_s > 0 ? seconds(c.bytes, s->nodes * s->local_write_bytes_s) : write;
	double copy = seconds(c.bytes, s->devices * s->device_host_bytes_s);
	c.stall_s = s->asynchronous ? fmin(copy, local) : local;
	/* a disk of the node goes down with the node: safe is what lies on shared storage, and the copies follow one another */
	bool staged = s->local_write_bytes_s > 0;
	c.exposed_s = s->asynchronous ? (staged ? fmax(local, write) : write) : (staged ? write : 0);
	double nics = s->nic_bytes_s > 0 ? s->nodes * s->nic_bytes_s : s->read_bytes_s;
	c.load_s = seconds(c.bytes, fmin(s->read_bytes_s, nics));
	c.kept_bytes = c.bytes * (s->keep + 1);
	if (s->capacity_bytes > 0 && c.kept_bytes > s->capacity_bytes)
		return stave_err_set(err, STAVE_ENOFIT, "%d checkpoints of %.3g TB and the one being written need %.3g TB, but the storage holds %.3g TB: keep %.0f, or take %.3g TB more",
		                     s->keep, c.bytes / 1e12, c.kept_bytes / 1e12, s->capacity_bytes / 1e12, fmax(floor(s->capacity_bytes / c.bytes) - 1, 0),
		                     (c.kept_bytes - s->capacity_bytes) / 1e12);
	*out = c;
	return 0;
}

void plan_feed_evaluate(const struct plan_feed *f, struct plan_feeding *out)
{
	struct plan_feeding r = {.need_bytes_s = f->units_s * f->bytes_per_unit, .have_bytes_s = f->read_bytes_s, .binding = "storage"};
	double nics = f->nodes * f->nic_bytes_s, decode = f->nodes * f->decode_bytes_s;
	if (f->nic_bytes_s > 0 && nics < r.have_bytes_s) {
		r.have_bytes_s = nics;
		r.binding = "nic";
	}
	if (f->decode_bytes_s > 0 && decode < r.have_bytes_s) {
		r.have_bytes_s = decode;
		r.binding = "decode";
	}
	r.share = seconds(r.need_bytes_s, r.have_bytes_s);
	*out = r;
}

double plan_feed_device_bytes_s(double samples, double bytes_per_sample, double step_s) { return samples * bytes_per_sample / step_s; }

double plan_staging_s(double bytes, double link_bytes_s, double write_bytes_s)
{
	double link = link_bytes_s > 0 ? seconds(bytes, link_bytes_s) : 0;
	double write = write_bytes_s > 0 ? seconds(bytes, write_bytes_s) : 0;
	return fmax(link, write);
}
