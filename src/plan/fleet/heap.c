/* The heap of discrete events. O(log n) for each call; see heap.h. */
#include "plan/fleet/heap.h"

#include <stdbool.h>

static bool before(const struct plan_heap *h, int a, int b)
{
	++*h->steps;
	return h->key[a] < h->key[b] || (h->key[a] == h->key[b] && h->id[a] < h->id[b]);
}

static void swap(struct plan_heap *h, int a, int b)
{
	double key = h->key[a];
	int32_t id = h->id[a];
	h->key[a] = h->key[b], h->id[a] = h->id[b];
	h->key[b] = key, h->id[b] = id;
	h->at[h->id[a]] = a;
	h->at[h->id[b]] = b;
}

static int rise(struct plan_heap *h, int i)
{
	while (i > 0 && before(h, i, (i - 1) / 2)) {
		swap(h, i, (i - 1) / 2);
		i = (i - 1) / 2;
	}
	return i;
}

static void sink(struct plan_heap *h, int i)
{
	for (;;) {
		int least = i, left = 2 * i + 1;
		if (left < h->n && before(h, left, least))
			least = left;
		if (left + 1 < h->n && before(h, left + 1, least))
			least = left + 1;
		if (least == i)
			return;
		swap(h, i, least);
		i = least;
	}
}

void plan_heap_set(struct plan_heap *h, int32_t id, double key)
{
	int i = h->at[id];
	if (i < 0) {
		i = h->n++;
		h->id[i] = id;
		h->at[id] = i;
	}
	h->key[i] = key;
	sink(h, rise(h, i));
}

void plan_heap_drop(struct plan_heap *h, int32_t id)
{
	int i = h->at[id];
	if (i < 0)
		return;
	int last = h->n - 1;
	if (i != last)
		swap(h, i, last);
	h->n--;
	h->at[id] = -1;
	if (i < h->n)
		sink(h, rise(h, i));
}
