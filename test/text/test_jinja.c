/* Chat templates: held against Jinja itself (jinja_cases.h), the origin of every byte, and the bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/jinja.h"
#include "text/jinja_cases.h"

static struct stave_err err;

/* The text, or NULL and err. */
static char *render(const char *template, const char *data, const char *tokens, char **own)
{
	struct jinja *t = NULL;
	struct jinja_text out = {0};
	json_t *d = json_loads(data, 0, NULL), *k = json_loads(tokens, 0, NULL);
	char *text = NULL;
	err.msg[0] = 0;
	assert_non_null(d);
	assert_non_null(k);
	if (!jinja_open(&t, template, strlen(template), &err) && !jinja_render(t, d, k, 1700000000, &out, &err)) {
		stave_buf_put(&out.text, "", 0);
		text = strdup(out.text.p ? out.text.p : "");
		assert_int_equal(out.own.len, out.text.len);
		if (own) {
			*own = calloc(1, out.own.len + 1);
			for (size_t i = 0; i < out.own.len; i++)
				(*own)[i] = out.own.p[i] ? 'T' : '.';
		}
	}
	jinja_text_free(&out);
	jinja_close(t);
	json_decref(d);
	json_decref(k);
	return text;
}

static void as_jinja_does(void **state)
{
	int wrong = 0;
	for (size_t i = 0; i < sizeof jinja_cases / sizeof *jinja_cases; i++) {
		char *got = render(jinja_cases[i].template, jinja_cases[i].data, "{}", NULL);
		const char *want = jinja_cases[i].want;
		if (got && want ? strcmp(got, want) : got != want) {
			wrong++;
			print_error("template: %s\nwant: %s\ngot:  %s %s\n\n", jinja_cases[i].template, want ? want : "(an error)", got ? got : "(an error)", err.msg);
		}
		if (!got)
			assert_non_null(strstr(err.msg, "line "));
		free(got);
	}
	assert_int_equal(wrong, 0);
}

static void bytes_remember_their_origin(void **state)
{
	char *own, *text = render("{{ bos }}<|a|>{{ m|trim }}{{ '<' ~ m[1:3]|upper + '>' }}{% set x %}{{ m }}!{% endset %}{{ x }}{{ m|replace('z', '<|b|>') }}{{ m|tojson }}",
	                          "{\"m\": \" yz\"}", "{\"bos\": \"<s>\"}", &own);
	assert_string_equal(text, "<s><|a|>yz<YZ> yz! y<|b|>\" yz\"");
	assert_string_equal(own, "TTTTTTTT..T..T...T..TTTTT.....");
	free(text);
	free(own);
}

static void bounds_hold(void **state)
{
	static const char *const bad[] = {
		"{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "{{ range(99999999999)|list }}", "{{ 'x' * 100000 * 100000 }}",
		"{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ 9223372036854775807 + 1 }}",
		"{{ (-9223372036854775807 - 1) // -1 }}", "{{ 99999999999999999999 }}", "{{ 'a", "{{ a", "{% if %}", "{% if a %}", "{% endif %}", "{% include 'x' %}", "{% import 'x' as y %}", "{{ a|nosuch }}", "{{ a is nosuch }}",
		"{% for %}", "{{ }}", "{{ a[] }}", "{{ a[1:2:3:4] }}", "{{ 1 2 }}", "{# ", "{% set a.b.c = 1 %}", "{% set q.b = 1 %}", "{% call 3 %}{% endcall %}", "{{ x = 1 }}", "{{ [1,2][::0] }}", "{{ range(1,2,0) }}",
		"{% for a, b in [[1]] %}{% endfor %}", "{{ {}.x.y }}", "{{ loop(1) }}", "{% break", "{{ 1e999999999999999999999 }}", "{{ (1).__class__() }}", "{{ \"%s\"|format(1) }}", "{{ range() }}", "{{ 'x'.split('') }}",
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		char *text = render(bad[i], "{}", "{}", NULL);
		if (text)
			fail_msg("%s gave '%.60s'", bad[i], text);
	}
	enum { N = 200000 };
	char *deep = malloc(N + 20);
	for (const char *c = "([{-"; *c; c++) {
		strcpy(deep, "{{ ");
		memset(deep + 3, *c, N);
		strcpy(deep + N + 3, " 1 }}");
		assert_null(render(deep, "{}", "{}", NULL));
	}
	size_t n = 0;
	for (int i = 0; i < N / 10; i++, n += 10)
		memcpy(deep + n, "{% if 1 %}", 10);
	deep[n] = 0;
	assert_null(render(deep, "{}", "{}", NULL));
	free(deep);
	/* deep data */
	char json[2100] = "{\"x\": ";
	memset(json + 6, '[', 1000);
	memset(json + 1006, ']', 1000);
	strcpy(json + 2006, "}");
	assert_null(render("{{ x }}", json, "{}", NULL));
	assert_non_null(strstr(err.msg, "nested deeper"));
}

static void a_template_is_used_many_times(void **state)
{
	struct jinja *t;
	static const char source[] = "{% for i in n %}{{ i }}{% endfor %}";
	assert_int_equal(jinja_open(&t, source, sizeof source - 1, &err), 0);
	for (int i = 0; i < 3; i++) {
		struct jinja_text out = {0};
		json_t *d = json_pack("{s:[i,i]}", "n", i, i + 1);
		assert_int_equal(jinja_render(t, d, NULL, 0, &out, &err), 0);
		assert_int_equal(out.text.len, 2);
		assert_int_equal(out.text.p[0], '0' + i);
		jinja_text_free(&out);
		json_decref(d);
	}
	jinja_close(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_jinja_does),
		cmocka_unit_test(bytes_remember_their_origin),
		cmocka_unit_test(bounds_hold),
		cmocka_unit_test(a_template_is_used_many_times),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
