/* Any bytes as a YAML text, and each scalar of it as every kind of value: what is read is finite, within the bounds asked for, and is written and
 * read again as nearly the same. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/yaml.h"

static void value_again(double value, enum stave_dimension d, const char *currency)
{
	char text[64], again_currency[4];
	struct stave_yaml *y;
	struct stave_err e;
	double again;
	stave_quantity_text(text, sizeof text, d, value, currency);
	if (stave_yaml_parse(&y, text, strlen(text), "again", &e))
		abort();
	/* beyond the largest unit a count is not whole to the digits shown, and a time may be shown as 1e+300 y: still a number */
	if (stave_yaml_quantity(y, d, -INFINITY, INFINITY, &again, again_currency, &e) || fabs(again - value) > 1e-3 * fabs(value))
		abort();
	stave_yaml_free(y);
}

static void scalar(struct stave_yaml *node)
{
	static const char *const words[] = {"one", "two", "three"};
	struct stave_err e;
	char currency[4];
	bool flag;
	int word;
	for (int d = 0; d < STAVE_DIMENSIONS; d++) {
		double v = NAN;
		if (stave_yaml_quantity(node, (enum stave_dimension)d, -1e15, 1e15, &v, currency, &e))
			continue;
		if (!(fabs(v) <= 1e15))
			abort();
		if (fabs(v) > 1e-12)
			value_again(v, (enum stave_dimension)d, currency);
	}
	stave_yaml_bool(node, &flag, &e);
	if (!stave_yaml_choice(node, words, 3, &word, &e) && (word < 0 || word > 2))
		abort();
}

static void walk(struct stave_yaml *node)
{
	static const char *const keys[] = {"a", "power", "nodes"};
	struct stave_err e;
	if (node->line < 1 || !node->file)
		abort();
	stave_yaml_keys(node, keys, 3, &e);
	if (node->kind == STAVE_YAML_MAP)
		for (int i = 0; i < node->n && i < 8; i++)
			if (stave_yaml_get(node, node->child[i].key) != &node->child[i])
				abort();
	if (node->kind == STAVE_YAML_SCALAR)
		scalar(node);
	for (int i = 0; i < node->n; i++)
		walk(&node->child[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stave_yaml *y;
	struct stave_err e;
	if (stave_yaml_parse(&y, (const char *)data, size, "fuzz", &e))
		return 0;
	walk(y);
	stave_yaml_free(y);
	return 0;
}
