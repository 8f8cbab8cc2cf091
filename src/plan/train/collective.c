/* Collectives on a hierarchical network: alpha-beta per tier, rings inside a node and between nodes at once (pipelined, so the slower of the two counts).
 *
 * Inside a node a ring of n ranks moves 2 (n-1)/n of the tensor per link for an all-reduce, half for gather or scatter (Thakur et al. 2005). Between nodes
 * every rank of the group in a node brings its share of the node's network ports, so a group with all ranks of a node has all of them and a data-parallel
 * group of tensor-parallel jobs has one. An oversubscribed tier slows a ring only when fewer of its members lie below the tier than the taper divides by:
 * the ring leaves the unit once, however many members are in it. All-to-all and sends get no such help. Latency grows with the ring's steps inside a
 * node and with the depth of a tree between nodes. Every term falls, or stays, when a bandwidth rises. */
#include <math.h>

#include "plan/train/train.h"

int plan_machine_domain(const struct plan_machine *m)
{
	/* a scale-up network of more than one box (NVL72, a slice of TPUs) joins nodes; a smaller one ends at the box */
	int link = m->accelerator->link_domain, node = m->gpus_per_node > 0 ? m->gpus_per_node : 1;
	int domain = link > 16 ? link : node;
	return domain < m->gpus ? domain : m->gpus;
}

static double link_rate(const struct plan_machine *m)
{
	const struct plan_accelerator *a = m->accelerator;
	double rate = a->link_domain > 1 && a->link_bytes_s > 0 ? a->link_bytes_s : a->host_bytes_s > 0 ? a->host_bytes_s : 16e9;
	return rate * m->fit->link;
}

/* Of one device's share of its node's ports. A machine without a network that is asked to use one crawls over 1 Gbit/s. */
static double port_rate(const struct plan_machine *m, double share)
{
	double node = m->nic_bytes_s > 0 ? m->nic_bytes_s : 125e6;
	return node / (m->gpus_per_node > 0 ? m->gpus_per_node : 1) * share;
}

/* What is left of the ports' rate, and the latency added, when a group of `ranks` spans `nodes` nodes. */
static double taper(const struct plan_machine *m, int ranks, double nodes, bool ring, double *latency_s)
{
	double left = 1, inside = m->network.tiers ? m->network.tier[0].nodes : 0;
	*latency_s = m->network.tiers ? m->network.tier[0].latency_s : 0;
	for (int i = 1; i < m->network.tiers && inside > 0 && nodes > inside; i++) {
		const struct plan_tier *t = &m->network.tier[i];
		double members = ring ? fmax(1, ranks * inside / nodes) : 1;
		left = fmin(left, fmin(1, (t->taper > 0 ? t->taper : 1) * members));
		*latency_s = t->latency_s;
		inside = t->nodes;
	}
	return left;
}

/* Rate of a ring of `per` ranks a node between nodes, sites included: the line between sites is shared by all groups that cross it. */
static double between(const struct plan_machine *m, struct plan_group g, double per, double span, bool ring, double share, double *latency_s)
{
	double nodes = span / (m->gpus_per_node > 0 ? m->gpus_per_node : 1);
	double rate = port_rate(m, share) * per * taper(m, g.ranks, nodes, ring, latency_s);
	if (m->sites > 1 && m->site_bytes_s > 0 && span * m->sites > m->gpus) {
		rate = fmin(rate, m->site_bytes_s * g.ranks / fmax(1, m->gpus));
		*latency_s += m->site_latency_s;
	}
	return rate;
}

double plan_group_collective_s(const struct plan_machine *m, enum plan_collective kind, double bytes, struct plan_group g, double share)
{
	if (g.ranks < 2)
		return 0;
	double n = g.ranks, domain = plan_machine_domain(m), span = n * g.stride;
	double per = fmin(n, fmax(1, floor(domain / g.stride))), nodes = n / per, latency = 0, tier = 0;
	const struct plan_train_fit *f = m->fit;
	if (kind == PLAN_SEND) {
		double rate = span > domain ? between(m, g, 1, span, false, share, &tier) : link_rate(m);
		return bytes / rate + f->send_s + tier;
	}
	double passes = kind == PLAN_ALL_REDUCE ? 2 : 1, inside = passes * (per - 1) / per * bytes / link_rate(m), outside = 0;
	latency = f->latency_s + f->hop_s * passes * (per - 1);
	if (nodes > 1) {
		double rate = between(m, g, per, span, kind != PLAN_ALL_TO_ALL, share, &tier);
		/* all-to-all: each rank keeps the tensor's 1/n and sends the rest of the nodes' part through its own ports */
		outside = kind == PLAN_ALL_TO_ALL ? (nodes - 1) / nodes * bytes * per / rate : passes * (nodes - 1) / nodes * bytes / rate;
		latency += 2 * log2(nodes) * (f->hop_s + tier);
	}
	return fmax(inside, outside) + latency;
}

double plan_collective_s(const struct plan_machine *m, enum plan_collective kind, double bytes, int ranks, int per_node)
{
	int domain = plan_machine_domain(m), per = per_node < 1 ? 1 : per_node < domain ? per_node : domain;
	/* the stride that puts so many ranks into a node */
	return plan_group_collective_s(m, kind, bytes, (struct plan_group){.ranks = ranks, .stride = ranks <= per ? 1 : (domain + per - 1) / per}, m->fit->nic);
}
