/* The reference kernels against truth from elsewhere: values computed by PyTorch 1.13 in double, and for the backward
 * operations central differences, in double, of definitions written here from the papers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "kernel/kernel.h"

static const struct stave_kernels *ref;

static uint64_t drawn;
static float uniform(double lo, double hi) { return (float)(lo + (hi - lo) * stave_random_unit(7, drawn++)); }
static void fill(float *x, int n, double lo, double hi)
{
	for (int i = 0; i < n; i++)
		x[i] = uniform(lo, hi);
}

static void expect(const char *what, const float *got, const double *want, int n, double tol)
{
	for (int i = 0; i < n; i++)
		if (!(fabs(got[i] - want[i]) <= tol * (1 + fabs(want[i]))))
			fail_msg("%s[%d] is %.9g, want %.9g", what, i, got[i], want[i]);
}

/* ---- PyTorch's values ---- */

static const float X[8] = {1, -2, 0.5f, 3, 0.25f, 0.75f, -1.5f, 2}, GAIN[4] = {1, 0.5f, -1, 2}, BIAS[4] = {0, 1, -0.5f, 0.25f};
static const float DY[8] = {0.5f, -1, 2, 0.25f, 1, 0.125f, -0.75f, -2};

static void test_norm_values(void **state)
{
	static const double y[] = {0.210558389988637, 0.26304563503977, -0.429813870003788, 2.91707293985607, -0.0995034037631894,
	                           1.14925510564478, 0.99255105644784, 2.83708849784292};
	static const double dx[] = {0.442553091601161, 0.27106259861007, -0.896169750493319, 0.182554060282088, 1.1051289500573,
	                            0.863756107882049, -0.861037258639415, -1.10784779929994};
	static const double dg[] = {0.00577579123112915, 1.51122250633166, 0.979041032343456, -2.25370438036091};
	static const double db[] = {1.5, -0.875, 1.25, -1.75};
	float gy[8], mean[2], rstd[2], gx[8] = {0}, gg[4] = {0}, gb[4] = {0}, copy[8];
	ref->norm_fwd(STAVE_F32, false, gy, mean, rstd, X, GAIN, BIAS, 1e-5f, 2, 4);
	ref->norm_bwd(STAVE_F32, false, gx, copy, gg, gb, DY, X, mean, rstd, GAIN, 2, 4);
	expect("y", gy, y, 8, 1e-6);
	expect("dx", gx, dx, 8, 1e-6);
	expect("dgain", gg, dg, 4, 1e-6);
	expect("dbias", gb, db, 4, 1e-6);
	assert_memory_equal(copy, gx, sizeof gx);
}

static void test_rmsnorm_values(void **state)
{
	static const double y[] = {0.529812868466322, -0.529812868466322, -0.264906434233161, 3.17887721079793, 0.190692462374956,
	                           0.286038693562433, 1.14415477424973, 3.05107939799929};
	static const double dx[] = {0.190546754268675, -0.116187074304189, -1.09680557691489, 0.0418273943397033, 1.00763616439999,
	                            0.782272060294239, -0.897120502276133, -1.09214887879796};
	static const double dg[] = {0.455598896608117, 1.13113541032325, 1.38792894915362, -2.65371974664955};
	float gy[8], rstd[2], gx[8] = {0}, gg[4] = {0}, hg[4] = {0}, hy[8], hx[8], head_rstd[2];
	ref->norm_fwd(STAVE_F32, true, gy, NULL, rstd, X, GAIN, NULL, 1e-6f, 2, 4);
	ref->norm_bwd(STAVE_F32, true, gx, NULL, gg, NULL, DY, X, NULL, rstd, GAIN, 2, 4);
	expect("y", gy, y, 8, 1e-6);
	expect("dx", gx, dx, 8, 1e-6);
	expect("dgain", gg, dg, 4, 1e-6);
	/* the same numbers as one row of two heads */
	memcpy(hx, DY, sizeof hx);
	ref->headnorm_fwd(STAVE_F32, hy, 8, head_rstd, X, 8, GAIN, 1e-6f, 1, 2, 4);
	ref->headnorm_bwd(hx, 8, hg, X, STAVE_F32, 8, head_rstd, GAIN, 1, 2, 4);
	expect("head y", hy, y, 8, 1e-6);
	expect("head dx", hx, dx, 8, 1e-6);
	expect("head dgain", hg, dg, 4, 1e-6);
}

static void test_activation_values(void **state)
{
	static const float x[9] = {-6, -3, -1, -0.25f, 0, 0.5f, 1, 2.5f, 5};
	static const float ones[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
	static const double exact[] = {-5.91952586947997e-09, -0.00404969409489031, -0.158655253931457, -0.100323418579269, 0,
	                               0.345731230637007, 0.841344746068543, 2.48447583668556, 4.99999856674214};
	static const double exact_slope[] = {-3.54687094540264e-08, -0.0119456472041839, -0.0833154705876863, 0.304626645116364, 0.5,
	                                     0.867495124656163, 1.08331547058769, 1.03761108590815, 1.000007146946};
	static const double tanhs[] = {-8.43964897967453e-11, -0.00363739208177299, -0.158808009391723, -0.100324649298315, 0,
	                               0.345714009825144, 0.841191990608277, 2.48491573391, 4.99999977082038};
	static const double tanh_slope[] = {-7.70997601283633e-10, -0.0115841666309696, -0.0829640838457826, 0.30464590484894, 0.5,
	                                    0.867369903534642, 1.08296408384578, 1.03795157621267, 1.00000154636199};
	static const double silu[] = {-0.0148357389398086, -0.1422776195327, -0.268941421369995, -0.10945587477855, 0,
	                              0.311229665600927, 0.731058578630005, 2.31035454994689, 4.96653574537858};
	static const double silu_slope[] = {-0.0123264325915255, -0.0881041060151696, 0.0723294881285133, 0.376289978429802, 0.5,
	                                    0.739961187302652, 0.927670511871487, 1.09940111134153, 1.02654743242967};
	float y[18], gu[18];
	ref->gelu_fwd(STAVE_F32, true, y, x, 9);
	expect("gelu", y, exact, 9, 1e-7);
	ref->gelu_bwd(STAVE_F32, true, y, ones, x, 9);
	expect("gelu'", y, exact_slope, 9, 1e-7);
	ref->gelu_fwd(STAVE_F32, false, y, x, 9);
	expect("gelu tanh", y, tanhs, 9, 1e-7);
	ref->gelu_bwd(STAVE_F32, false, y, ones, x, 9);
	expect("gelu tanh'", y, tanh_slope, 9, 1e-7);
	memcpy(gu, x, sizeof x);
	memcpy(gu + 9, ones, sizeof ones);
	ref->swiglu_fwd(STAVE_F32, y, gu, 1, 9);
	expect("silu", y, silu, 9, 1e-7);
	ref->swiglu_bwd(STAVE_F32, y, ones, gu, 1, 9);
	expect("silu'", y, silu_slope, 9, 1e-7);
	expect("d up", y + 9, silu, 9, 1e-7);
}

static void test_adamw_values(void **state)
{
	static const float grads[3][3] = {{0.1f, -0.2f, 3}, {-0.5f, 0.01f, 1}, {0, 2, -0.25f}};
	static const double want_p[] = {0.99762584312438, -1.98358203614823, 0.473611125817903}, want_m[] = {-0.0369, 0.1847, 0.308};
	static const double want_v[] = {0.00025973001, 0.00404001994, 0.010043509};
	float p[3] = {1, -2, 0.5f}, m[3] = {0}, v[3] = {0}, g[3];
	uint16_t w16[3];
	for (int t = 1; t <= 3; t++) {
		for (int i = 0; i < 3; i++)
			g[i] = grads[t - 1][i] * 4; /* undone by g_scale */
		ref->adamw(p, w16, m, v, g, 3, 0.25f, 0.01, 0.9, 0.999, 1e-8, 0.1, 1 - pow(0.9, t), 1 - pow(0.999, t));
	}
	expect("p", p, want_p, 3, 2e-7);
	expect("m", m, want_m, 3, 2e-7);
	expect("v", v, want_v, 3, 1e-8);
	for (int i = 0; i < 3; i++)
		assert_int_equal(w16[i], stave_f32_to_bf16(p[i]));
}

static void test_rope_values(void **state)
{
	static const double want[] = {1, 2, 3, 4, -0.777236264419957, -0.992051158698364, -1.90942498917096, -0.279883008639743};
	static const float start[8] = {1, 2, 3, 4, 0.5f, -1, 2, -0.25f};
	static const int32_t pos[2] = {0, 3};
	float table[4 * 2 * 2], x[8];
	double back[8];
	for (int t = 0; t < 4; t++)
		for (int i = 0; i < 2; i++) {
			double angle = t * pow(10000, -i / 2.0);
			table[(t * 2 + i) * 2] = (float)cos(angle);
			table[(t * 2 + i) * 2 + 1] = (float)sin(angle);
		}
	memcpy(x, start, sizeof x);
	ref->rope(STAVE_F32, false, x, 4, pos, table, 2, 1, 4);
	expect("rope", x, want, 8, 1e-6);
	ref->rope(STAVE_F32, true, x, 4, pos, table, 2, 1, 4);
	for (int i = 0; i < 8; i++)
		back[i] = start[i];
	expect("rope and back", x, back, 8, 1e-6);
}

/* ---- central differences ---- */

enum { ROWS = 3, WIDTH = 7 };

/* A scalar of parameters: sum over outputs of weight * f. All in double, so that a step of 1e-5 leaves ten digits. */
struct problem {
	double x[ROWS * WIDTH], gain[WIDTH], bias[WIDTH], weight[ROWS * WIDTH];
	bool rms;
};

static double norm_loss(const struct problem *p)
{
	double loss = 0;
	for (int r = 0; r < ROWS; r++) {
		const double *x = p->x + r * WIDTH;
		double mu = 0, var = 0;
		for (int c = 0; c < WIDTH && !p->rms; c++)
			mu += x[c] / WIDTH;
		for (int c = 0; c < WIDTH; c++)
			var += (x[c] - mu) * (x[c] - mu) / WIDTH;
		for (int c = 0; c < WIDTH; c++)
			loss += p->weight[r * WIDTH + c] * ((x[c] - mu) / sqrt(var + 1e-5) * p->gain[c] + p->bias[c]);
	}
	return loss;
}

static double slope(const struct problem *p, double *at)
{
	double was = *at, h = 1e-5;
	*at = was + h;
	double up = norm_loss(p);
	*at = was - h;
	double down = norm_loss(p);
	*at = was;
	return (up - down) / (2 * h);
}

static void norm_differences(bool rms)
{
	enum { N = ROWS * WIDTH };
	struct problem p = {.rms = rms};
	float x[N], gain[WIDTH], bias[WIDTH], dy[N], y[N], mean[ROWS], rstd[ROWS], dx[N], dgain[WIDTH], dbias[WIDTH];
	fill(x, N, -2, 3), fill(gain, WIDTH, -1, 2), fill(bias, WIDTH, -1, 1), fill(dy, N, -1, 1);
	fill(dx, N, -1, 1), fill(dgain, WIDTH, -1, 1), fill(dbias, WIDTH, -1, 1); /* added to, not set */
	double want_dx[N], want_dgain[WIDTH], want_dbias[WIDTH];
	for (int i = 0; i < N; i++)
		p.x[i] = x[i], p.weight[i] = dy[i];
	for (int c = 0; c < WIDTH; c++)
		p.gain[c] = gain[c], p.bias[c] = bias[c];
	for (int i = 0; i < N; i++)
		want_dx[i] = dx[i] + slope(&p, &p.x[i]);
	for (int c = 0; c < WIDTH; c++) {
		want_dgain[c] = dgain[c] + slope(&p, &p.gain[c]);
		want_dbias[c] = dbias[c] + slope(&p, &p.bias[c]);
	}
	ref->norm_fwd(STAVE_F32, rms, y, mean, rstd, x, gain, bias, 1e-5f, ROWS, WIDTH);
	ref->norm_bwd(STAVE_F32, rms, dx, NULL, dgain, dbias, dy, x, mean, rstd, gain, ROWS, WIDTH);
	expect("dx", dx, want_dx, N, 1e-6);
	expect("dgain", dgain, want_dgain, WIDTH, 1e-6);
	expect("dbias", dbias, want_dbias, WIDTH, 1e-6);
}

static void test_norm_differences(void **state) { norm_differences(false); }
static void test_rmsnorm_differences(void **state) { norm_differences(true); }

/* Headnorm is RMSNorm of every head: the same loss, its rows laid out as heads with gaps between the rows. */
static void test_headnorm_differences(void **state)
{
	enum { N = ROWS * WIDTH, LDX = N + 5, LDY = N + 2 };
	struct problem p = {.rms = true};
	float x[LDX], gain[WIDTH], dy[LDY], y[N], rstd[ROWS], dgain[WIDTH] = {0};
	fill(x, LDX, -2, 3), fill(gain, WIDTH, -1, 2), fill(dy, LDY, -1, 1);
	double want_dx[N], want_dgain[WIDTH];
	for (int i = 0; i < N; i++)
		p.x[i] = x[i], p.weight[i] = dy[i];
	for (int c = 0; c < WIDTH; c++)
		p.gain[c] = gain[c];
	for (int i = 0; i < N; i++)
		want_dx[i] = slope(&p, &p.x[i]);
	for (int c = 0; c < WIDTH; c++)
		want_dgain[c] = slope(&p, &p.gain[c]);
	ref->headnorm_fwd(STAVE_F32, y, N, rstd, x, LDX, gain, 1e-5f, 1, ROWS, WIDTH);
	ref->headnorm_bwd(dy, LDY, dgain, x, STAVE_F32, LDX, rstd, gain, 1, ROWS, WIDTH);
	expect("dx", dy, want_dx, N, 1e-6);
	expect("dgain", dgain, want_dgain, WIDTH, 1e-6);
}

static double exact_gelu(double x, double unused) { return x * 0.5 * (1 + erf(x / sqrt(2))); }
static double tanh_gelu(double x, double unused) { return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }
static double swiglu(double g, double u) { return g / (1 + exp(-g)) * u; }

static double difference(double (*f)(double, double), double a, double b, bool second)
{
	double h = 1e-5;
	return second ? (f(a, b + h) - f(a, b - h)) / (2 * h) : (f(a + h, b) - f(a - h, b)) / (2 * h);
}

static void test_activation_differences(void **state)
{
	enum { N = 50 };
	float x[2 * N], dy[N], got[2 * N];
	double want[2 * N];
	fill(x, 2 * N, -5, 5), fill(dy, N, -1, 1);
	for (int exact = 0; exact < 2; exact++) {
		ref->gelu_bwd(STAVE_F32, exact, got, dy, x, N);
		for (int i = 0; i < N; i++)
			want[i] = dy[i] * difference(exact ? exact_gelu : tanh_gelu, x[i], 0, false);
		expect(exact ? "gelu'" : "gelu tanh'", got, want, N, 1e-6);
	}
	ref->swiglu_bwd(STAVE_F32, got, dy, x, 1, N);
	for (int i = 0; i < N; i++) {
		want[i] = dy[i] * difference(swiglu, x[i], x[i + N], false);
		want[i + N] = dy[i] * difference(swiglu, x[i], x[i + N], true);
	}
	expect("swiglu'", got, want, 2 * N, 1e-6);
}

/* dx may be dy, dgu may be gu. */
static void test_in_place(void **state)
{
	enum { N = 37 };
	for (int l = 0; stave_levels[l]; l++) {
		const struct stave_kernels *k = stave_kernels_level(stave_levels[l]);
		if (!k)
			continue;
		float x[2 * N], dy[N], apart[2 * N];
		fill(x, 2 * N, -3, 3), fill(dy, N, -1, 1);
		k->swiglu_bwd(STAVE_F32, apart, dy, x, 1, N);
		k->swiglu_bwd(STAVE_F32, x, dy, x, 1, N);
		assert_memory_equal(apart, x, sizeof x);
		k->gelu_bwd(STAVE_F32, true, apart, dy, x, N);
		k->gelu_bwd(STAVE_F32, true, dy, dy, x, N);
		assert_memory_equal(apart, dy, sizeof dy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_norm_values),          cmocka_unit_test(test_rmsnorm_values),
		cmocka_unit_test(test_activation_values),    cmocka_unit_test(test_adamw_values),
		cmocka_unit_test(test_rope_values),          cmocka_unit_test(test_norm_differences),
		cmocka_unit_test(test_rmsnorm_differences),  cmocka_unit_test(test_headnorm_differences),
		cmocka_unit_test(test_activation_differences), cmocka_unit_test(test_in_place),
	};
	ref = stave_kernels_level("ref");
	return cmocka_run_group_tests_name("reference kernels", tests, NULL, NULL);
}
