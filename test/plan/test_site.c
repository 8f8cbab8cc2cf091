/* Storage, power, cooling, money, placement and schedule against published figures and hand calculations, and the properties a user relies on: parts add up,
 * more is never fewer, a missing price is never nothing. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "plan/site/facility.h"
#include "plan/site/money.h"
#include "plan/site/placement.h"
#include "plan/site/reliability.h"
#include "plan/site/schedule.h"
#include "plan/site/storage.h"

static void near(double got, double want, double tolerance)
{
	if (!(fabs(got - want) <= tolerance * fabs(want)))
		fail_msg("got %.12g, wanted %.12g within %g %%", got, want, 100 * tolerance);
}

static void says(const struct stave_err *err, int code, const char *text)
{
	assert_int_equal(err->code, code);
	if (!strstr(err->msg, text))
		fail_msg("'%s' does not say '%s'", err->msg, text);
}

/* ---- storage ---- */

/* MLPerf Storage's sizes of Llama 3 8B, 70B and 405B in binary units, and SC21's 13.8 TB of 1008 G parameters. */
static void checkpoint_sizes(void **state)
{
	near(8.03e9 * PLAN_CHECKPOINT_BYTES_PER_PARAMETER, 105 * 0x1p30, 0.01);
	near(70.55e9 * PLAN_CHECKPOINT_BYTES_PER_PARAMETER, 912 * 0x1p30, 0.01);
	near(405.85e9 * PLAN_CHECKPOINT_BYTES_PER_PARAMETER, 5.29 * 0x1p40, 0.03);
	near(1008e9 * PLAN_CHECKPOINT_BYTES_PER_PARAMETER, 13.8e12, 0.03);
}

/* The 1T model of SC21 section 5.10: 13.8 TB at 273 GB/s are 50 s to write, at 1 TB/s 14 s to read. */
static struct plan_saving selene(void)
{
	return (struct plan_saving){.parameters = 1008e9, .nodes = 384, .devices = 3072, .device_host_bytes_s = 25e9, .nic_bytes_s = 200e9, .write_bytes_s = 273e9,
	                            .read_bytes_s = 1e12, .keep = 3};
}

static void checkpoint_times(void **state)
{
	struct stave_err err = {0};
	struct plan_saving s = selene();
	struct plan_checkpoint c;
	assert_int_equal(plan_checkpoint_evaluate(&s, &c, &err), 0);
	near(c.stall_s, 14.112e12 / 273e9, 1e-9);
	near(c.load_s, 14.112, 1e-9);
	assert_true(c.exposed_s == 0);
	assert_string_equal(c.binding, "storage");
	s.asynchronous = true;
	assert_int_equal(plan_checkpoint_evaluate(&s, &c, &err), 0);
	near(c.stall_s, 14.112e12 / (3072 * 25e9), 1e-9);
	near(c.exposed_s, 14.112e12 / 273e9, 1e-9);
	s.asynchronous = false;
	s.local_write_bytes_s = 10e9;
	assert_int_equal(plan_checkpoint_evaluate(&s, &c, &err), 0);
	near(c.stall_s, 14.112e12 / (384 * 10e9), 1e-9);
	s.nic_bytes_s = 0.5e9;
	assert_int_equal(plan_checkpoint_evaluate(&s, &c, &err), 0);
	assert_string_equal(c.binding, "nic");
	s.capacity_bytes = 50e12;
	assert_int_equal(plan_checkpoint_evaluate(&s, &c, &err), STAVE_ENOFIT);
	says(&err, STAVE_ENOFIT, "keep 2, or take 6.45 TB more");
}

static void faster_pipes_never_slow(void **state)
{
	for (int async = 0; async < 2; async++)
		for (int local = 0; local < 2; local++)
			for (double k = 1; k < 100; k *= 1.3) {
				struct plan_saving s = selene(), t;
				struct plan_checkpoint a, b;
				s.asynchronous = async;
				s.local_write_bytes_s = local * 5e9;
				t = s;
				t.write_bytes_s *= k;
				t.nic_bytes_s *= k;
				t.read_bytes_s *= k;
				t.device_host_bytes_s *= k;
				plan_checkpoint_evaluate(&s, &a, NULL);
				plan_checkpoint_evaluate(&t, &b, NULL);
				assert_true(b.stall_s <= a.stall_s && b.exposed_s <= a.exposed_s && b.load_s <= a.load_s);
			}
}

/* mlcommons/storage: 3D U-Net, ResNet-50 and CosmoFlow on one H100. */
static void feeding(void **state)
{
	near(plan_feed_device_bytes_s(7, 146600628, 0.323), 3.1771e9, 1e-3);
	near(plan_feed_device_bytes_s(400, 114660.07, 0.224), 0.2048e9, 1e-3);
	near(plan_feed_device_bytes_s(1, 2828486, 0.0035), 0.8081e9, 1e-3);
	struct plan_feed f = {.units_s = 1000, .bytes_per_unit = 1e6, .nodes = 4, .nic_bytes_s = 1e9, .read_bytes_s = 2e9};
	struct plan_feeding r;
	plan_feed_evaluate(&f, &r);
	assert_string_equal(r.binding, "storage");
	near(r.share, 0.5, 1e-12);
	f.decode_bytes_s = 0.2e9;
	plan_feed_evaluate(&f, &r);
	assert_string_equal(r.binding, "decode");
	near(r.share, 1.25, 1e-12);
	f.nic_bytes_s = 0.1e9;
	plan_feed_evaluate(&f, &r);
	assert_string_equal(r.binding, "nic");
	f.read_bytes_s = 0;
	plan_feed_evaluate(&f, &r);
	assert_true(r.share == PLAN_NEVER_S);
	near(plan_staging_s(1e15, 10e9, 50e9), 1e5, 1e-12);
}

/* ---- facility ---- */

static const struct plan_cooling classes[] = {
	{.name = "air", .rack_w = 20e3, .pue = 1.5}, {.name = "contained-air", .rack_w = 40e3, .pue = 1.3}, {.name = "rear-door", .rack_w = 70e3, .pue = 1.2},
	{.name = "direct-to-chip", .rack_w = 140e3, .pue = 1.15},
};
static const struct plan_node dgx = {.name = "dgx-h100", .count = 8, .nics = 8, .idle_w = 2000, .rated_w = 10200, .peak_share = 0.82, .units = 8};

static void node_power(void **state)
{
	near(plan_node_power_w(&dgx, 1), 8400, 0.01); /* Latif et al. 2025: 8.4 of 10.2 kW */
	near(plan_node_power_w(&dgx, 0), 2000, 1e-12);
	near(plan_node_power_w(&dgx, 0.5), (2000 + 8364) / 2.0, 1e-12);
	struct plan_node plain = dgx;
	plain.peak_share = 0;
	near(plan_node_power_w(&plain, 1), PLAN_PEAK_SHARE * 10200, 1e-12);
	assert_true(plan_node_power_w(&dgx, -3) == 2000 && plan_node_power_w(&dgx, 7) == plan_node_power_w(&dgx, 1));
	struct plan_network net = {.port_w = 25};
	struct plan_storage st = {.power_w = 9000};
	struct plan_draw d;
	plan_draw_evaluate(&dgx, 10, 8, 0.9, &net, &st, &d);
	near(d.network_w, 2000, 1e-12);
	near(d.mean_w, 8 * plan_node_power_w(&dgx, 0.9) + 2 * 2000 + 2000 + 9000, 1e-12);
	near(d.nodes_mean_w + d.network_w + d.storage_w, d.mean_w, 1e-12);
	assert_true(d.idle_w <= d.mean_w && d.mean_w <= d.peak_w);
	plan_draw_evaluate(&dgx, 10, 8, 0.9, NULL, NULL, &d);
	near(d.peak_w, 10 * plan_node_power_w(&dgx, 1), 1e-12);
}

/* CFM = W 3.16 / dF, and 1 kW at 10 K is 0.0239 L/s. DGX H100: 1,105 CFM for 10.2 kW, a rise of 29 F. */
static void air_and_water(void **state)
{
	near(plan_air_cfm(plan_air_m3_s(1000, 10 / 1.8)), 316, 0.005);
	near(plan_air_cfm(plan_air_m3_s(10200, 29.2 / 1.8)), 1105, 0.01);
	near(plan_water_l_s(1000, 10), 0.02389, 1e-3);
}

static int house(const struct plan_room *r, double nodes, struct plan_housing *h, struct stave_err *err)
{
	return plan_housing_evaluate(r, &dgx, nodes, 10e3, classes, 4, h, err);
}

static void each_limit_binds_in_its_turn(void **state)
{
	struct stave_err err = {0};
	struct plan_housing h;
	struct plan_room r = {.racks = 10, .rack_w = 45e3, .cooling = &classes[2], .overhead = 1.2};
	assert_int_equal(house(&r, 50, &h, &err), 0); /* 5 x 8.364 kW in 45 kW, 5 x 8 units in 42 */
	assert_int_equal(h.nodes_per_rack, 5);
	near(h.racks, 10, 1e-12);
	near(h.rack_w, 41820, 1e-9);
	assert_string_equal(h.needs->name, "rear-door");
	assert_true(h.has_cooling);
	assert_true(h.air_cfm == 0); /* the doors' water takes it all */
	near(h.water_l_s, 50 * 8364 / 41860.0, 1e-9);
	assert_int_equal(house(&r, 51, &h, &err), STAVE_ENOFIT);
	says(&err, STAVE_ENOFIT, "rack: 10 racks of 5 dgx-h100 (41.8 kW) hold 50 of 51 nodes: 1 racks more");
	r.busway_w = 20e3;
	assert_int_equal(house(&r, 50, &h, &err), STAVE_ENOFIT);
	assert_int_equal(h.binding, PLAN_LIMIT_BUSWAY);
	r.busway_w = 0;
	r.cooling = &classes[0];
	assert_int_equal(house(&r, 50, &h, &err), STAVE_ENOFIT);
	says(&err, STAVE_ENOFIT, "cooling class air: 10 racks of 2 dgx-h100");
	assert_false(h.has_cooling);
	r.cooling = &classes[3];
	r.cdu_l_s = 4; /* 167.4 kW at 10 K: 25 nodes of 6.69 kW in water */
	assert_int_equal(house(&r, 50, &h, &err), STAVE_ENOFIT);
	says(&err, STAVE_ENOFIT, "cooling water: 4 L/s cool 25 of 50 nodes");
	near(h.nodes, 25, 1e-12);
	near(h.air_m3_s, plan_air_m3_s(50 * 8364 * 0.2, 12), 1e-9);
	r.cdu_l_s = 0;
	r.room_w = 200e3;
	assert_int_equal(house(&r, 50, &h, &err), STAVE_ENOFIT);
	says(&err, STAVE_ENOFIT, "room power: 200 kW carry 22 of 50 nodes dgx-h100 (8.36 kW each at the peak, 10 kW network and storage): 228.2 kW more");
	r.room_w = 0;
	r.feed_w = 300e3;
	assert_int_equal(house(&r, 50, &h, &err), STAVE_ENOFIT);
	says(&err, STAVE_ENOFIT, "utility feed: 300 kW carry 28 of 50 nodes");
	assert_int_equal(h.binding, PLAN_LIMIT_FEED);
	/* the change it asks for is enough, and one watt less is not */
	r.feed_w = (50 * h.node_w + 10e3) * 1.2;
	assert_int_equal(house(&r, 50, &h, &err), 0);
	r.feed_w -= 1;
	assert_int_equal(house(&r, 50, &h, &err), STAVE_ENOFIT);
}

static void a_rack_too_weak_for_one_node(void **state)
{
	struct stave_err err = {0};
	struct plan_housing h;
	struct plan_room r = {.racks = 10, .rack_w = 5e3};
	assert_int_equal(house(&r, 1, &h, &err), STAVE_ENOFIT);
	says(&err, STAVE_ENOFIT, "rack: a rack may have 5 kW, but one dgx-h100 draws 8.36 kW at its peak: give racks 8.4 kW (cooling class air)");
	r = (struct plan_room){0};
	assert_int_equal(house(&r, 1e5, &h, &err), 0); /* nothing said, nothing limits */
	assert_int_equal(h.binding, PLAN_LIMIT_COUNT);
	assert_true(isinf(h.nodes) && isfinite(h.racks) && isfinite(h.rack_w));
}

static void more_power_never_fewer_nodes(void **state)
{
	double last[4] = {0};
	for (double k = 1; k < 50; k *= 1.1)
		for (int which = 0; which < 4; which++) {
			struct plan_room r = {.racks = 10, .rack_w = 30e3, .busway_w = 30e3, .room_w = 100e3, .feed_w = 120e3, .cdu_l_s = 3, .liquid_share = 0.7, .overhead = 1.3};
			struct plan_housing h;
			*(which == 0 ? &r.rack_w : which == 1 ? &r.room_w : which == 2 ? &r.feed_w : &r.cdu_l_s) *= k;
			house(&r, 5, &h, NULL);
			assert_true(h.nodes >= last[which]);
			last[which] = h.nodes;
		}
}

/* Patterson et al. 2021, table 4: chips x mean power x PUE x days. Meena: 1024 x 289 W x 1.09 x 30 d = 232 MWh. Llama 3.1: 39.3 M h at 700 W are 11,390 t at
 * PUE 1.08 and 383 g/kWh. */
static void energy_water_carbon(void **state)
{
	struct plan_consumption c = {.it_mean_w = 1024 * 289, .seconds = 30 * 86400, .pue = 1.09, .water_l_per_j = 1.8 / 3.6e6, .source_l_per_j = 3.1 / 3.6e6,
	                             .kg_per_j = 0.35 / 3.6e6, .market_kg_per_j = 0, .embodied_kg = 1e6, .life_s = 300 * 86400};
	struct plan_impact i;
	plan_impact_evaluate(&c, &i);
	near(i.facility_j / 3.6e9, 232, 0.005);
	near(i.facility_j, 1.09 * i.it_j, 1e-12);
	near(i.water_l, 1.8 * i.it_j / 3.6e6, 1e-12);
	near(i.source_water_l, 3.1 * i.facility_j / 3.6e6, 1e-12);
	near(i.carbon_kg, 0.35 * i.facility_j / 3.6e6, 1e-12);
	assert_true(i.market_kg == 0);
	near(i.embodied_kg, 1e5, 1e-12);
	c = (struct plan_consumption){.it_mean_w = 700, .seconds = 39.3e6 * 3600, .pue = 1.08, .kg_per_j = 0.383 / 3.6e6};
	plan_impact_evaluate(&c, &i);
	near(i.carbon_kg, 11390e3, 0.005);
}

/* ---- money ---- */

static void recovery_factor(void **state)
{
	near(plan_crf(0.08, 5), 0.2504565, 1e-6); /* textbook tables */
	near(plan_crf(0.10, 10), 0.1627454, 1e-6);
	near(plan_crf(0, 4), 0.25, 1e-12);
	near(plan_crf(1e-12, 4), 0.25, 1e-9);
	assert_true(isfinite(plan_crf(1, 1e9)) && isfinite(plan_crf(0.1, 0)));
}

static void prices(void **state)
{
	struct plan_exchange rates[] = {{.currency = "USD", .usd = 1}, {.currency = "EUR", .usd = 1.1}, {.currency = "GBP", .usd = 1.32}};
	struct plan_catalog c = {.exchange = rates, .exchanges = 3};
	struct plan_price p = {.amount = 100, .currency = "GBP", .date = "2025-06-01"};
	struct stave_err err = {0};
	double v = -1;
	assert_int_equal(plan_price_in(&p, "a node", "EUR", &c, &v, &err), 0);
	near(v, 120, 1e-12);
	assert_int_equal(plan_price_in(&p, "a node", "CHF", &c, &v, &err), STAVE_ECONFIG);
	says(&err, STAVE_ECONFIG, "no exchange rate of CHF");
	strcpy(p.currency, "CHF");
	assert_int_equal(plan_price_in(&p, "a node", "CHF", &c, &v, &err), 0);
	near(v, 100, 1e-12);
	p = (struct plan_price){0};
	v = -1;
	assert_int_equal(plan_price_in(&p, "network ports", "USD", &c, &v, &err), STAVE_ECONFIG);
	says(&err, STAVE_ECONFIG, "no price is known for network ports");
	assert_true(v == -1);
	p = (struct plan_price){.amount = NAN, .currency = "USD"};
	assert_int_equal(plan_price_in(&p, "x", "USD", &c, &v, &err), STAVE_ECONFIG);
	p.amount = 0; /* written down: free */
	assert_int_equal(plan_price_in(&p, "x", "USD", &c, &v, &err), 0);
	assert_true(v == 0);
}

/* 8 nodes of 300 kUSD, 4 years at 8 %, 6.5 kW at PUE 1.2 and 9.4 ct/kWh: about 1.7 USD per device-hour at 80 %. */
static struct plan_owning owning(void)
{
	double kwh_year = 8766;
	return (struct plan_owning){.devices = 8 * 300e3, .network = 200e3, .storage = 100e3, .building = 8 * 8.4 * 10e3, .interest = 0.08, .life_years = 4, .building_years = 15,
	                            .maintenance = 0.04, .staff_year = 150e3, .space_year = 50e3, .idle_energy_year = 8 * 2.0 * 1.2 * kwh_year * 0.094,
	                            .busy_energy_year = 8 * 6.4 * 1.2 * kwh_year * 0.094, .count = 64};
}

static void owned_hours(void **state)
{
	struct plan_owning o = owning();
	struct plan_owned r;
	plan_owned_evaluate(&o, 0.8, &r);
	near(r.devices_year + r.network_year + r.storage_year + r.building_year, r.capital_year, 1e-12);
	near(r.maintenance_year + r.staff_year + r.space_year + r.energy_year, r.operation_year, 1e-12);
	near(r.capital_year + r.operation_year, r.year, 1e-12);
	near(r.devices_year, 2.4e6 * 0.301921, 1e-5);
	near(r.device_hour * 64 * 8766 * 0.8, r.year, 1e-12);
	assert_true(r.device_hour > 2 && r.device_hour < 4);
	double last = INFINITY;
	for (double use = 0.01; use <= 1; use += 0.01) {
		plan_owned_evaluate(&o, use, &r);
		assert_true(r.device_hour < last);
		last = r.device_hour;
	}
}

static void break_even(void **state)
{
	struct plan_owning o = owning();
	struct plan_owned r;
	double use = plan_break_even(&o, 3.5);
	assert_true(use > 0.3 && use < 1);
	plan_owned_evaluate(&o, use, &r);
	near(r.device_hour, 3.5, 1e-9);
	assert_true(plan_break_even(&o, 5) < use);
	assert_true(plan_break_even(&o, 0.01) == PLAN_NEVER_S);
}

static void hybrid_is_never_dearer(void **state)
{
	double load[24];
	for (unsigned seed = 1; seed < 400; seed++) {
		for (int i = 0; i < 24; i++)
			load[i] = (seed * 7919u * (unsigned)(i + 3) * (unsigned)(i + seed)) % 257u;
		double step = seed % 3 ? 8 : 0, fixed = 0.1 * (seed % 31), used = 0.05 * (seed % 7), once = seed % 5, rented = 0.1 * (seed % 41);
		struct plan_mix best, rent, own;
		plan_hybrid_choose(load, 24, step, fixed, used, once, rented, &best, &rent, &own);
		assert_true(best.total_hour <= rent.total_hour && best.total_hour <= own.total_hour);
		near(best.owned_hour + best.rented_hour, best.total_hour, 1e-12);
		assert_true(rent.owned == 0 && own.rented_share == 0 && (step == 0 || fmod(best.owned, step) == 0));
		for (double base = step > 0 ? step : 1; base < 300; base += step > 0 ? step : 1) { /* brute force */
			double cost = once + base * fixed;
			for (int i = 0; i < 24; i++)
				cost += (fmin(load[i], base) * used + fmax(load[i] - base, 0) * rented) / 24;
			assert_true(best.total_hour <= cost * (1 + 1e-12));
		}
	}
}

/* Owning pays for hours used more than fixed / (rent - used) of the day: with 2 of 4 USD/h, those loads present half of the day. */
static void hybrid_owns_the_base(void **state)
{
	double load[24];
	for (int i = 0; i < 24; i++)
		load[i] = i < 6 ? 100 : i < 14 ? 60 : 20;
	struct plan_mix best;
	plan_hybrid_choose(load, 24, 0, 2, 0, 0, 4, &best, NULL, NULL);
	near(best.owned, 60, 1e-12);
	near(best.total_hour, 60 * 2 + 40 * 4 * 6 / 24.0, 1e-12);
	plan_hybrid_choose(load, 24, 0, 5, 0, 0, 4, &best, NULL, NULL);
	assert_true(best.owned == 0);
}

static void token_prices_add_up(void **state)
{
	struct plan_tokens t = {.input_s = 5000, .cached_s = 3000, .output_s = 1000, .input_share = 0.3, .cached_share = 0.02, .output_share = 0.68};
	struct plan_token_price p;
	double money_s = 24.0 / 3600;
	plan_token_price_evaluate(&t, money_s, &p);
	near((p.input * t.input_s + p.cached * t.cached_s + p.output * t.output_s) / 1e6, money_s, 1e-12);
	near(p.mean * 9000 / 1e6, money_s, 1e-12);
	assert_true(p.cached < p.input && p.input < p.output);
	t.cached_s = 0;
	plan_token_price_evaluate(&t, money_s, &p);
	near((p.input * t.input_s + p.output * t.output_s) / 1e6, money_s, 1e-12);
	assert_true(p.cached == 0);
	t = (struct plan_tokens){0};
	plan_token_price_evaluate(&t, money_s, &p);
	assert_true(p.mean == 0 && p.input == 0 && p.output == 0);
}

/* ---- placement ---- */

static void residency_and_export(void **state)
{
	struct plan_accelerator a100 = {.name = "a100-80gb", .alias = {"A100"}, .peak = {[PLAN_F32] = 19.5e12, [PLAN_BF16] = 312e12, [PLAN_I8] = 624e12}};
	struct plan_location eu = {"north", "eu-west"}, us = {"plains", "us"}, x = {"hill", ""};
	struct stave_err err = {0};
	assert_true(plan_region_within("EU-west", "eu") && plan_region_within("eu", "EU") && !plan_region_within("eurasia", "eu") && !plan_region_within("eu", "eu-west"));
	assert_int_equal(plan_placement_check(&eu, "eu", &a100, NULL, 0, &err), 0);
	assert_int_equal(plan_placement_check(&us, "", &a100, NULL, 0, &err), 0);
	assert_int_equal(plan_placement_check(&us, "eu", &a100, NULL, 0, &err), STAVE_ENOFIT);
	says(&err, STAVE_ENOFIT, "plains: its region is us, but the data must stay in eu");
	assert_int_equal(plan_placement_check(&x, "eu", &a100, NULL, 0, &err), STAVE_ENOFIT);
	says(&err, STAVE_ENOFIT, "not given");
	struct plan_rule fast = {.flop_s = 600e12, .region = {"apac", "us"}, .regions = 2, .line = 12};
	assert_int_equal(plan_placement_check(&eu, "", &a100, &fast, 1, &err), 0);
	assert_int_equal(plan_placement_check(&us, "", &a100, &fast, 1, &err), STAVE_ENOFIT);
	says(&err, STAVE_ENOFIT, "line 12 keeps a100-80gb out of us");
	fast.flop_s = 700e12;
	assert_int_equal(plan_placement_check(&us, "", &a100, &fast, 1, &err), 0);
	struct plan_rule named = {.accelerator = "a100", .region = {"us"}, .regions = 1, .line = 3};
	assert_int_equal(plan_placement_check(&us, "", &a100, &named, 1, &err), STAVE_ENOFIT);
	assert_int_equal(plan_placement_check(&x, "", &a100, &named, 1, &err), STAVE_ENOFIT);
	strcpy(named.accelerator, "h100");
	assert_int_equal(plan_placement_check(&us, "", &a100, &named, 1, &err), 0);
}

/* ---- schedule ---- */

#define DAY 86400.0
static const struct plan_item site_items[] = {
	{"permit", 60 * DAY, 120 * DAY, 240 * DAY, {NULL}, 0},
	{"transformer", 700 * DAY, 900 * DAY, 1400 * DAY, {"permit"}, 1},
	{"building", 365 * DAY, 450 * DAY, 550 * DAY, {"permit"}, 1},
	{"accelerators", 90 * DAY, 180 * DAY, 360 * DAY, {NULL}, 0},
	{"burn-in", 14 * DAY, 21 * DAY, 40 * DAY, {"transformer", "building", "accelerators"}, 3},
};

static void critical_path(void **state)
{
	struct stave_err err = {0};
	struct plan_ready r, again;
	assert_int_equal(plan_schedule_run(site_items, 5, 7, 20000, 1100 * DAY, &r, &err), 0);
	assert_int_equal(r.path_n, 3);
	assert_true(r.path[0] == 0 && r.path[1] == 1 && r.path[2] == 4);
	near(r.likely_s, (120 + 900 + 21) * DAY, 1e-12);
	assert_int_equal(r.decides, 1);
	near(r.critical[1], 1, 0.01);
	assert_true(r.critical[2] < 0.01 && r.critical[3] == 0 && r.critical[4] == 1);
	near(r.critical_s[0] + r.critical_s[1] + r.critical_s[2] + r.critical_s[3] + r.critical_s[4], r.mean_s, 1e-12);
	/* with one branch deciding, the mean is the sum of the PERT means */
	near(r.mean_s, ((60 + 4 * 120 + 240) + (700 + 4 * 900 + 1400) + (14 + 4 * 21 + 40)) / 6.0 * DAY, 0.005);
	assert_true(r.p10_s < r.p50_s && r.p50_s < r.p90_s && r.by_share > 0.3 && r.by_share < 0.7);
	assert_int_equal(plan_schedule_run(site_items, 5, 7, 20000, 1100 * DAY, &again, &err), 0);
	assert_memory_equal(&r, &again, sizeof r);
	assert_int_equal(plan_schedule_run(NULL, 0, 7, 10, 0, &r, &err), 0);
	assert_true(r.p90_s == 0 && r.decides == -1);
}

static void later_items_never_make_it_earlier(void **state)
{
	double last = 0;
	for (int i = 0; i < 12; i++) {
		struct plan_item item[5];
		struct plan_ready r;
		memcpy(item, site_items, sizeof item);
		item[3].low_s *= 1 + i;
		item[3].likely_s *= 1 + i;
		item[3].high_s *= 1 + i;
		assert_int_equal(plan_schedule_run(item, 5, 3, 4000, 0, &r, NULL), 0);
		assert_true(r.p50_s >= last * 0.999);
		assert_true(r.p10_s >= 0 && isfinite(r.p90_s));
		last = r.p50_s;
		if (i == 11)
			assert_int_equal(r.decides, 3);
	}
}

static void bad_schedules(void **state)
{
	struct stave_err err = {0};
	struct plan_ready r;
	struct plan_item circle[] = {
		{"start", 1, 1, 1, {NULL}, 0}, {"a", 1, 1, 1, {"start", "c"}, 2}, {"b", 1, 1, 1, {"a"}, 1}, {"c", 1, 1, 1, {"b"}, 1}, {"end", 1, 1, 1, {"c"}, 1},
	};
	assert_int_equal(plan_schedule_run(circle, 5, 1, 10, 0, &r, &err), STAVE_ECONFIG);
	says(&err, STAVE_ECONFIG, "in a circle: 'a' waits for 'c' waits for 'b' waits for 'a'");
	struct plan_item self = {"a", 1, 1, 1, {"a"}, 1};
	assert_int_equal(plan_schedule_run(&self, 1, 1, 10, 0, &r, &err), STAVE_ECONFIG);
	says(&err, STAVE_ECONFIG, "'a' waits for 'a'");
	self.after[0] = "b";
	assert_int_equal(plan_schedule_run(&self, 1, 1, 10, 0, &r, &err), STAVE_ECONFIG);
	says(&err, STAVE_ECONFIG, "'b', which is not an item");
	struct plan_item twice[] = {{"a", 1, 2, 3, {NULL}, 0}, {"a", 1, 2, 3, {NULL}, 0}};
	assert_int_equal(plan_schedule_run(twice, 2, 1, 10, 0, &r, &err), STAVE_ECONFIG);
	struct plan_item order = {"a", 2, 1, 3, {NULL}, 0};
	assert_int_equal(plan_schedule_run(&order, 1, 1, 10, 0, &r, &err), STAVE_ECONFIG);
	order.low_s = NAN;
	assert_int_equal(plan_schedule_run(&order, 1, 1, 10, 0, &r, &err), STAVE_ECONFIG);
	assert_int_equal(plan_schedule_run(&order, 1, 1, 0, 0, &r, &err), STAVE_ECONFIG);
}

/* ---- all ---- */

static void all_finite(const char *what, const void *p, size_t bytes)
{
	double d[32];
	assert_true(bytes <= sizeof d);
	memcpy(d, p, bytes);
	for (size_t i = 0; i < bytes / sizeof *d; i++)
		if (!isfinite(d[i]))
			fail_msg("%s: number %zu is %g", what, i, d[i]);
}

static void extremes_stay_finite(void **state)
{
	static const double v[] = {0, 1e-9, 1, 1e15};
	for (int i = 0; i < 4; i++)
		for (int j = 0; j < 4; j++)
			for (int k = 0; k < 4; k++) {
				struct plan_saving s = {.parameters = v[i], .nodes = v[j], .devices = v[j], .device_host_bytes_s = v[k], .nic_bytes_s = v[k], .write_bytes_s = v[k], .read_bytes_s = v[j],
				                        .local_write_bytes_s = v[i], .asynchronous = k & 1, .keep = i};
				struct plan_checkpoint c;
				assert_int_equal(plan_checkpoint_evaluate(&s, &c, NULL), 0);
				const double times[] = {c.bytes, c.stall_s, c.exposed_s, c.load_s, c.kept_bytes, c.binding_bytes_s};
				all_finite("checkpoint", times, sizeof times);
				struct plan_feed f = {v[i], v[j], v[k], v[i], v[j], v[k]};
				struct plan_feeding g;
				plan_feed_evaluate(&f, &g);
				all_finite("feeding", &g, offsetof(struct plan_feeding, binding));
				struct plan_owning o = {v[i], v[j], v[k], v[i], fmin(v[j], 1), v[k], v[i], v[j], v[k], v[i], v[j], v[k], v[i]};
				struct plan_owned w;
				plan_owned_evaluate(&o, v[k], &w);
				all_finite("owned", &w, sizeof w);
				assert_true(isfinite(plan_break_even(&o, v[k])));
				struct plan_tokens t = {v[i], v[j], v[k], v[k], v[i], v[j]};
				struct plan_token_price p;
				plan_token_price_evaluate(&t, v[j], &p);
				all_finite("tokens", &p, sizeof p);
				struct plan_node n = {.idle_w = v[i], .rated_w = v[j], .peak_share = fmin(v[k], 1), .units = v[k], .count = 8};
				struct plan_room r = {.feed_w = v[i], .room_w = v[j], .rack_w = v[k], .racks = v[i], .overhead = v[j], .cdu_l_s = v[k], .cooling = &classes[i]};
				struct plan_housing h;
				plan_housing_evaluate(&r, &n, v[k], v[i], classes, 4, &h, NULL);
				const double housing[] = {h.racks, h.node_w, h.rack_w, h.air_cfm, h.water_l_s};
				all_finite("housing", housing, sizeof housing);
				assert_true(h.nodes >= 0);
			}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(checkpoint_sizes),
		cmocka_unit_test(checkpoint_times),
		cmocka_unit_test(faster_pipes_never_slow),
		cmocka_unit_test(feeding),
		cmocka_unit_test(node_power),
		cmocka_unit_test(air_and_water),
		cmocka_unit_test(each_limit_binds_in_its_turn),
		cmocka_unit_test(a_rack_too_weak_for_one_node),
		cmocka_unit_test(more_power_never_fewer_nodes),
		cmocka_unit_test(energy_water_carbon),
		cmocka_unit_test(recovery_factor),
		cmocka_unit_test(prices),
		cmocka_unit_test(owned_hours),
		cmocka_unit_test(break_even),
		cmocka_unit_test(hybrid_is_never_dearer),
		cmocka_unit_test(hybrid_owns_the_base),
		cmocka_unit_test(token_prices_add_up),
		cmocka_unit_test(residency_and_export),
		cmocka_unit_test(critical_path),
		cmocka_unit_test(later_items_never_make_it_earlier),
		cmocka_unit_test(bad_schedules),
		cmocka_unit_test(extremes_stay_finite),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
