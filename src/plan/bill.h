/* Private to plan/: what using a place costs and what it does to the world (bill.c): power to energy, money, carbon and water, for a work and for a site. */
#ifndef STAVE_PLAN_BILL_H
#define STAVE_PLAN_BILL_H

#include "plan/site/money.h"
#include "plan/result.h"

/* Devices of a place used for some time. */
struct plan_use {
	double nodes, devices;      /* held for `seconds` on average: nodes for power, devices for money */
	double peak_nodes;
	double seconds, busy;       /* busy: share of that time in which they compute (their power) */
	double network_share;       /* share of the site's nodes: of its network's and storage's power and price */
};
/* The same place's prices for owning all of it; energy parts are of all its nodes. */
int plan_bill_owning(const struct stave_plan *p, const struct plan_here *h, struct plan_owning *out, struct stave_err *err);
/* Rent of one device-second, in the specification's currency: the site's, else the catalog's; NAN when neither is known. */
int plan_bill_rent_s(const struct stave_plan *p, const struct plan_here *h, double *out, struct stave_err *err);
/* Price of electricity per J. */
int plan_bill_energy_j(const struct stave_plan *p, const struct plan_here *h, double *out, struct stave_err *err);
/* What the use draws, emits and costs. Rented devices bring power, rooms and people with their price. */
int plan_bill_use(const struct stave_plan *p, const struct plan_here *h, const struct plan_use *u, struct plan_money *m, struct plan_footprint *f, struct stave_err *err);
/* PUE of the place: the site's, its cooling class's, or 1. */
double plan_bill_pue(const struct plan_here *h);
void plan_money_add(struct plan_money *sum, const struct plan_money *m);
void plan_footprint_add(struct plan_footprint *sum, const struct plan_footprint *f);

#endif
