/* GGUF, read. A file is: magic, version, number of tensors, number of keys, the keys with their values, the descriptions of the
 * tensors, padding to the alignment, the tensors' bytes. Files of a split are whole files, each with its own tensors; the
 * keys that matter are the first one's.
 *
 * The invariant: a cursor walks the mapping and never passes its end, and every count is compared with the bytes that are left
 * (an entry takes at least so many) before anything is allocated by it. So what is allocated is bounded by the file's
 * length times a small constant. Names and strings are copied once, because the format has no terminators and what
 * follows a string in the mapping is the next one's length. Tensors' bytes are not touched.
 *
 * Refused, as ggml does: version 1 and byte-swapped files, nested arrays, empty or repeated keys and tensor names, offsets that are not
 * consecutive. Types that are defined but not computed here are refused by name. */
#include "base/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/gguf_file.h"

#define KEY_BYTES_MIN 14    /* length, one character, type, one byte */
#define TENSOR_BYTES_MIN 33 /* length, one character, dimensions, one of them, type, offset */
#define ELEMENTS_MAX ((int64_t)1 << 48)
#define PARTS_MAX 1024

struct part {
	struct stave_map map;
	char path[STAVE_PATH];
	struct gguf_key *key;
	int *order;     /* keys by name */
	int n_keys, n_tensors, first; /* first: its tensors begin here in the list */
	uint32_t alignment;
};

struct file {
	struct stave_gguf g;
	struct part *part;
	char **names;   /* (n) of tensors, owned */
	int *order;     /* tensors by name */
	int cap;
};

/* The cursor over one part. */
struct cursor {
	const char *p, *end;
	const char *path;
	struct stave_err *err;
};

static size_t left(const struct cursor *c) { return (size_t)(c->end - c->p); }

static int cut(struct cursor *c, const char *what)
{
	return stave_err_set(c->err, STAVE_ECORRUPT, "%s: the file ends inside %s (cut short?)", c->path, what);
}

static int read_u32(struct cursor *c, uint32_t *v, const char *what)
{
	if (left(c) < 4)
		return cut(c, what);
	memcpy(v, c->p, 4);
	c->p += 4;
	return 0;
}

static int read_u64(struct cursor *c, uint64_t *v, const char *what)
{
	if (left(c) < 8)
		return cut(c, what);
	memcpy(v, c->p, 8);
	c->p += 8;
	return 0;
}

/* A string in place. */
static int read_span(struct cursor *c, const char **s, size_t *n, const char *what)
{
	uint64_t len = 0;
	int rc = read_u64(c, &len, what);
	if (rc)
		return rc;
	if (len > left(c))
		return stave_err_set(c->err, STAVE_ECORRUPT, "%s: a string of %llu bytes in %s, with %zu left in the file", c->path, (unsigned long long)len, what, left(c));
	*s = c->p;
	*n = (size_t)len;
	c->p += len;
	return 0;
}

/* A copy of a name: not empty, no control characters (it ends up in messages). */
static int read_name(struct cursor *c, char **name, size_t max, const char *what)
{
	const char *s = NULL;
	size_t n = 0;
	int rc = read_span(c, &s, &n, what);
	if (rc)
		return rc;
	bool bad = n == 0 || n > max;
	for (size_t i = 0; !bad && i < n; i++)
		bad = (unsigned char)s[i] < 0x20 || s[i] == 0x7f;
	if (bad)
		return stave_err_set(c->err, STAVE_ECORRUPT, "%s: %s is %zu bytes; expected 1 to %zu without control characters", c->path, what, n, max);
	if (!(*name = strndup(s, n)))
		return stave_err_set(c->err, STAVE_ENOMEM, "%s: no memory for %s", c->path, what);
	return 0;
}

/* ---- keys and values ---- */

size_t gguf_type_bytes(enum stave_gguf_type t)
{
	static const unsigned char bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
	return bytes[t];
}

/* Two walks: the first checks the lengths and adds them up, the second copies. */
static int read_strings(struct cursor *c, struct gguf_key *k)
{
	struct cursor ahead = *c;
	const char *s = NULL;
	size_t len = 0, total = 0;
	int rc;
	for (int64_t i = 0; i < k->n; i++) {
		if ((rc = read_span(&ahead, &s, &len, k->name)))
			return rc;
		total += len + 1;
	}
	k->text = malloc(total + 1);
	k->at = malloc(((size_t)k->n + 1) * sizeof *k->at);
	if (!k->text || !k->at)
		return stave_err_set(c->err, STAVE_ENOMEM, "%s: no memory for the %lld strings of %.100s", c->path, (long long)k->n, k->name);
	size_t at = 0;
	for (int64_t i = 0; i < k->n; i++) {
		if ((rc = read_span(c, &s, &len, k->name)))
			return rc;
		k->at[i] = at;
		memcpy(k->text + at, s, len);
		k->text[at + len] = 0;
		at += len + 1;
	}
	k->at[k->n] = at;
	return 0;
}

static int read_array(struct cursor *c, struct gguf_key *k)
{
	uint32_t type = 0;
	uint64_t n = 0;
	int rc;
	if ((rc = read_u32(c, &type, k->name)) || (rc = read_u64(c, &n, k->name)))
		return rc;
	if (type > STAVE_GGUF_F64 || type == STAVE_GGUF_ARRAY)
		return stave_err_set(c->err, STAVE_ECORRUPT, "%s: key %.100s is an array of %s", c->path, k->name, type == STAVE_GGUF_ARRAY ? "arrays" : "an unknown type");
	k->element = (enum stave_gguf_type)type;
	size_t each = type == STAVE_GGUF_STR ? 8 : gguf_type_bytes(k->element);
	if (n > left(c) / each)
		return stave_err_set(c->err, STAVE_ECORRUPT, "%s: key %.100s announces %llu elements, with %zu bytes left in the file", c->path, k->name,
		                     (unsigned long long)n, left(c));
	k->n = (int64_t)n;
	if (type == STAVE_GGUF_STR)
		return read_strings(c, k);
	c->p += n * each;
	return 0;
}

static int read_key(struct cursor *c, struct gguf_key *k)
{
	uint32_t type = 0;
	char *name = NULL;
	int rc = read_name(c, &name, 65535, "a key's name");
	k->name = name;
	if (rc || (rc = read_u32(c, &type, k->name)))
		return rc;
	if (type > STAVE_GGUF_F64)
		return stave_err_set(c->err, STAVE_ECORRUPT, "%s: key %.100s has unknown type %u", c->path, k->name, type);
	k->type = (enum stave_gguf_type)type;
	k->value = c->p;
	if (k->type == STAVE_GGUF_ARRAY) {
		rc = read_array(c, k);
	} else if (k->type == STAVE_GGUF_STR) {
		const char *s = NULL;
		size_t n = 0;
		if (!(rc = read_span(c, &s, &n, k->name))) {
			k->n = (int64_t)n;
			if (!(k->text = malloc(n + 1)))
				return stave_err_set(c->err, STAVE_ENOMEM, "%s: no memory for %.100s", c->path, k->name);
			memcpy(k->text, s, n);
			k->text[n] = 0;
		}
	} else {
		size_t n = gguf_type_bytes(k->type);
		if (left(c) < n)
			return cut(c, k->name);
		c->p += n;
	}
	k->end = c->p;
	return rc;
}

static int compare_keys(const void *a, const void *b, void *ctx)
{
	const struct gguf_key *k = ctx;
	return strcmp(k[*(const int *)a].name, k[*(const int *)b].name);
}

static int read_keys(struct part *p, struct cursor *c, uint64_t n)
{
	if (n > left(c) / KEY_BYTES_MIN || n > INT32_MAX)
		return stave_err_set(c->err, STAVE_ECORRUPT, "%s announces %llu keys, with %zu bytes left in the file", c->path, (unsigned long long)n, left(c));
	p->key = calloc(n + 1, sizeof *p->key);
	p->order = malloc((n + 1) * sizeof *p->order);
	if (!p->key || !p->order)
		return stave_err_set(c->err, STAVE_ENOMEM, "%s: no memory for %llu keys", c->path, (unsigned long long)n);
	for (uint64_t i = 0; i < n; i++) {
		p->order[i] = p->n_keys++; /* counted first, so that closing frees what a failing one holds */
		int rc = read_key(c, &p->key[i]);
		if (rc)
			return rc;
	}
	qsort_r(p->order, n, sizeof *p->order, compare_keys, p->key);
	for (uint64_t i = 1; i < n; i++)
		if (!strcmp(p->key[p->order[i - 1]].name, p->key[p->order[i]].name))
			return stave_err_set(c->err, STAVE_ECORRUPT, "%s: key %.100s is there twice", c->path, p->key[p->order[i]].name);
	return 0;
}

static const struct gguf_key *find_key(const struct part *p, const char *name)
{
	int lo = 0, hi = p->n_keys;
	while (lo < hi) {
		int mid = lo + (hi - lo) / 2, c = strcmp(name, p->key[p->order[mid]].name);
		if (!c)
			return &p->key[p->order[mid]];
		if (c < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

const struct gguf_key *gguf_key_find(const struct stave_gguf *g, const char *key) { return find_key(((const struct file *)g->own)->part, key); }

/* ---- tensors ---- */

static const char *type_name(uint32_t id)
{
	static const struct {
		unsigned id;
		const char *name;
	} known[] = {{9, "Q8_1"}, {15, "Q8_K"}, {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"}, {21, "IQ3_S"}, {22, "IQ2_S"}, {24, "I8"}, {25, "I16"},
	             {26, "I32"}, {27, "I64"}, {28, "F64"}, {29, "IQ1_M"}, {34, "TQ1_0"}, {35, "TQ2_0"}, {40, "NVFP4"}, {41, "Q1_0"}, {42, "Q2_0"}};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (known[i].id == id)
			return known[i].name;
	return NULL;
}

static int read_dims(struct cursor *c, struct stave_gguf_tensor *t)
{
	uint32_t n_dims = 0;
	int rc = read_u32(c, &n_dims, t->name);
	if (rc)
		return rc;
	if (n_dims < 1 || n_dims > GGUF_DIMS)
		return stave_err_set(c->err, STAVE_ECORRUPT, "%s: tensor %s has %u dimensions; expected 1 to %d", c->path, t->name, n_dims, GGUF_DIMS);
	int64_t elements = 1;
	t->n_dims = (int)n_dims;
	for (int d = 0; d < GGUF_DIMS; d++) {
		uint64_t ne = 1;
		if (d < t->n_dims && (rc = read_u64(c, &ne, t->name)))
			return rc;
		if (ne < 1 || ne > (uint64_t)(ELEMENTS_MAX / elements))
			return stave_err_set(c->err, STAVE_ECORRUPT, "%s: tensor %s has an impossible shape: dimension %d is %llu", c->path, t->name, d, (unsigned long long)ne);
		t->ne[d] = (int64_t)ne;
		elements *= t->ne[d];
	}
	return 0;
}

/* One description. `at`: where its bytes must begin from the start of the data; advanced over them and their padding. */
static int read_tensor(struct cursor *c, struct stave_gguf_tensor *t, char **name, uint64_t *at, uint32_t alignment)
{
	uint32_t id = 0;
	uint64_t offset = 0;
	int rc = read_name(c, name, GGUF_NAME_MAX, "a tensor's name");
	if (rc)
		return rc;
	t->name = *name;
	if ((rc = read_dims(c, t)) || (rc = read_u32(c, &id, t->name)) || (rc = read_u64(c, &offset, t->name)))
		return rc;
	t->type = stave_qtype_of_id(id);
	if (t->type == STAVE_QTYPE_COUNT && type_name(id))
		return stave_err_set(c->err, STAVE_ECONFIG, "%s: tensor %s is stored as %s, which is not supported", c->path, t->name, type_name(id));
	if (t->type == STAVE_QTYPE_COUNT)
		return stave_err_set(c->err, STAVE_ECORRUPT, "%s: tensor %s has unknown type %u", c->path, t->name, id);
	int per = stave_qtype_info(t->type).per;
	if (t->ne[0] % per)
		return stave_err_set(c->err, STAVE_ECORRUPT, "%s: tensor %s: rows of %lld are no whole number of %s blocks of %d", c->path, t->name, (long long)t->ne[0],
		                     stave_qtype_info(t->type).name, per);
	if (offset != *at)
		return stave_err_set(c->err, STAVE_ECORRUPT, "%s: tensor %s begins at %llu of the data, expected %llu: tensors overlap, leave a hole or are not aligned to %u",
		                     c->path, t->name, (unsigned long long)offset, (unsigned long long)*at, alignment);
	t->bytes = stave_qtype_row_bytes(t->type, t->ne[0]) * (size_t)(t->ne[1] * t->ne[2] * t->ne[3]);
	uint64_t end = *at + t->bytes;
	if (end > (uint64_t)1 << 62) /* at most 2^50 are added a time */
		return stave_err_set(c->err, STAVE_ECORRUPT, "%s: the tensors up to %s are larger than any file", c->path, t->name);
	*at = (end + alignment - 1) / alignment * alignment;
	return 0;
}

static int read_tensors(struct file *f, struct part *p, struct cursor *c, uint64_t n)
{
	if (n > left(c) / TENSOR_BYTES_MIN || n > (uint64_t)(INT32_MAX / 2 - f->g.n))
		return stave_err_set(c->err, STAVE_ECORRUPT, "%s announces %llu tensors, with %zu bytes left in the file", c->path, (unsigned long long)n, left(c));
	size_t total = (size_t)f->g.n + (size_t)n + 1;
	void *t = realloc(f->g.t, total * sizeof *f->g.t);
	f->g.t = t ? t : f->g.t;
	void *names = realloc(f->names, total * sizeof *f->names);
	f->names = names ? names : f->names;
	if (!t || !names)
		return stave_err_set(c->err, STAVE_ENOMEM, "%s: no memory for %llu tensors", c->path, (unsigned long long)n);
	p->first = f->g.n;
	uint64_t at = 0;
	for (uint64_t i = 0; i < n; i++) {
		int k = f->g.n++;
		f->g.t[k] = (struct stave_gguf_tensor){0};
		f->names[k] = NULL;
		int rc = read_tensor(c, &f->g.t[k], &f->names[k], &at, p->alignment);
		if (rc)
			return rc;
		p->n_tensors++;
	}
	return 0;
}

/* The bytes of each tensor, once it is known where the data begin. */
static int place_tensors(struct file *f, struct part *p, const struct cursor *c)
{
	uint64_t data = ((uint64_t)(c->p - p->map.p) + p->alignment - 1) / p->alignment * p->alignment, at = data;
	for (int i = p->first; i < p->first + p->n_tensors; i++) {
		struct stave_gguf_tensor *t = &f->g.t[i];
		if (at > p->map.size || t->bytes > p->map.size - at)
			return stave_err_set(c->err, STAVE_ECORRUPT, "%s: tensor %s lies at %llu..%llu, beyond the end of the file at %zu (cut short?)", c->path, t->name,
			                     (unsigned long long)at, (unsigned long long)(at + t->bytes), p->map.size);
		t->data = p->map.p + at;
		at = (at + t->bytes + p->alignment - 1) / p->alignment * p->alignment;
	}
	return 0;
}

/* ---- a part ---- */

static int key_int(const struct part *p, const char *name, int64_t *v, struct stave_err *err)
{
	const struct gguf_key *k = find_key(p, name);
	if (!k)
		return 0;
	int64_t x = 0;
	switch (k->type) {
	case STAVE_GGUF_U8: case STAVE_GGUF_U16: case STAVE_GGUF_U32: case STAVE_GGUF_U64: case STAVE_GGUF_BOOL:
		memcpy(&x, k->value, gguf_type_bytes(k->type));
		if (x < 0)
			return stave_err_set(err, STAVE_ECORRUPT, "%s: key %.100s is %llu, beyond any use", p->path, name, (unsigned long long)x);
		break;
	case STAVE_GGUF_I8: case STAVE_GGUF_I16: case STAVE_GGUF_I32: case STAVE_GGUF_I64: {
		size_t n = gguf_type_bytes(k->type);
		memcpy(&x, k->value, n);
		x = (int64_t)((uint64_t)x << (64 - 8 * n)) >> (64 - 8 * n); /* the sign */
		break;
	}
	default:
		return stave_err_set(err, STAVE_ECORRUPT, "%s: key %.100s must be an integer", p->path, name);
	}
	*v = x;
	return 1;
}

static int read_alignment(struct part *p, struct stave_err *err)
{
	int64_t v = GGUF_ALIGNMENT;
	const struct gguf_key *k = find_key(p, "general.alignment");
	if (k && k->type != STAVE_GGUF_U32)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: general.alignment must be an unsigned 32-bit integer", p->path);
	int rc = key_int(p, "general.alignment", &v, err);
	if (rc < 0)
		return rc;
	if (!gguf_alignment_ok((uint64_t)v))
		return stave_err_set(err, STAVE_ECORRUPT, "%s: general.alignment is %lld; expected a power of two", p->path, (long long)v);
	p->alignment = (uint32_t)v;
	return 0;
}

static int read_header(struct cursor *c, uint64_t *n_tensors, uint64_t *n_keys)
{
	uint32_t version = 0;
	int rc;
	if (left(c) < 4 || memcmp(c->p, GGUF_MAGIC, 4))
		return stave_err_set(c->err, STAVE_ECORRUPT, "%s is no GGUF file", c->path);
	c->p += 4;
	if ((rc = read_u32(c, &version, "the header")))
		return rc;
	if (version && !(version & 0xffff))
		return stave_err_set(c->err, STAVE_ECONFIG, "%s is a big-endian GGUF file, which is not supported", c->path);
	if (version != 2 && version != GGUF_VERSION)
		return stave_err_set(c->err, STAVE_ECONFIG, "%s is GGUF version %u; supported are 2 and %u", c->path, version, GGUF_VERSION);
	if ((rc = read_u64(c, n_tensors, "the header")) || (rc = read_u64(c, n_keys, "the header")))
		return rc;
	return 0;
}

static int open_part(struct file *f, struct part *p, const char *path, struct stave_err *err)
{
	uint64_t n_tensors = 0, n_keys = 0;
	if ((size_t)snprintf(p->path, sizeof p->path, "%s", path) >= sizeof p->path)
		return stave_err_set(err, STAVE_EUSAGE, "path too long: %s", path);
	int rc = stave_map_open(&p->map, path, err);
	if (rc)
		return rc;
	struct cursor c = {p->map.p, p->map.p + p->map.size, p->path, err};
	if ((rc = read_header(&c, &n_tensors, &n_keys)) || (rc = read_keys(p, &c, n_keys)) || (rc = read_alignment(p, err)) ||
	    (rc = read_tensors(f, p, &c, n_tensors)))
		return rc;
	return place_tensors(f, p, &c);
}

static void close_part(struct part *p)
{
	for (int i = 0; i < p->n_keys; i++) {
		free((char *)(uintptr_t)p->key[i].name);
		free(p->key[i].text);
		free(p->key[i].at);
	}
	free(p->key);
	free(p->order);
	stave_map_close(&p->map);
}

/* ---- the parts of a split ---- */

#define SUFFIX_CHARS 20 /* -00001-of-00002.gguf */

static int split_key(const struct part *p, const char *key, int64_t *v, struct stave_err *err)
{
	int rc = key_int(p, key, v, err);
	if (rc == 0)
		return stave_err_set(err, STAVE_ECORRUPT, "%s is a part of a split without %s", p->path, key);
	return rc < 0 ? rc : 0;
}

/* Part i of the split that `like` (its part number `no`) belongs to; paths come from the path given, never from inside a file. */
static int part_path(char out[STAVE_PATH], const char *like, int64_t no, int i, int count, struct stave_err *err)
{
	char suffix[64];
	size_t n = strlen(like);
	snprintf(suffix, sizeof suffix, "-%05d-of-%05d.gguf", (int)no + 1, count);
	if (n < SUFFIX_CHARS || strcmp(like + n - SUFFIX_CHARS, suffix))
		return stave_err_set(err, STAVE_ECORRUPT, "%s says it is part %d of %d, so its name must end in %s", like, (int)no + 1, count, suffix);
	snprintf(out, STAVE_PATH, "%.*s-%05d-of-%05d.gguf", (int)(n - SUFFIX_CHARS), like, i + 1, count);
	return 0;
}

/* A part must say that it is this one, of as many, of a model of as many tensors, and bring no other model's keys. */
static int check_part(const struct part *first, const struct part *p, int i, int count, int64_t tensors, struct stave_err *err)
{
	int64_t no = 0, n = 0, all = 0;
	int rc;
	if ((rc = split_key(p, "split.no", &no, err)) || (rc = split_key(p, "split.count", &n, err)) || (rc = split_key(p, "split.tensors.count", &all, err)))
		return rc;
	if (no != i || n != count || all != tensors)
		return stave_err_set(err, STAVE_ECORRUPT, "%s is part %lld of %lld of a model of %lld tensors; wanted part %d of %d of one of %lld", p->path,
		                     (long long)no + 1, (long long)n, (long long)all, i + 1, count, (long long)tensors);
	const struct gguf_key *a = find_key(first, "general.architecture"), *b = find_key(p, "general.architecture");
	if (a && b && (a->type != b->type || a->n != b->n || (a->text && memcmp(a->text, b->text, (size_t)a->n))))
		return stave_err_set(err, STAVE_ECORRUPT, "%s is a part of another model than %s", p->path, first->path);
	return 0;
}

/* The file at path tells whether there are others; all are read in order, it again in its place. */
static int open_parts(struct file *f, const char *path, struct stave_err *err)
{
	int64_t count = 1, no = 0, tensors = 0;
	f->part = calloc(1, sizeof *f->part);
	if (!f->part)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to open %s", path);
	f->g.n_parts = 1;
	int rc = open_part(f, f->part, path, err);
	if (rc)
		return rc;
	rc = key_int(f->part, "split.count", &count, err);
	if (rc < 0)
		return rc;
	if (rc == 0 || count == 1 || count == 0)
		return 0;
	if ((rc = split_key(f->part, "split.no", &no, err)) || (rc = split_key(f->part, "split.tensors.count", &tensors, err)))
		return rc;
	if (count < 0 || count > PARTS_MAX || no < 0 || no >= count)
		return stave_err_set(err, STAVE_ECORRUPT, "%s says it is part %lld of %lld; at most %d are supported", path, (long long)no + 1, (long long)count, PARTS_MAX);
	struct part *all = calloc((size_t)count, sizeof *all);
	if (!all)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to open %s", path);
	close_part(f->part);
	free(f->part);
	f->part = all;
	f->g.n_parts = (int)count;
	while (f->g.n)
		free(f->names[--f->g.n]);
	for (int i = 0; !rc && i < count; i++) {
		char name[STAVE_PATH];
		if (!(rc = part_path(name, path, no, i, (int)count, err)) && !(rc = open_part(f, &all[i], name, err)))
			rc = check_part(all, &all[i], i, (int)count, tensors, err);
	}
	if (!rc && f->g.n != tensors)
		rc = stave_err_set(err, STAVE_ECORRUPT, "%s and its parts hold %d tensors; split.tensors.count says %lld", path, f->g.n, (long long)tensors);
	return rc;
}

/* ---- opening and looking up ---- */

static int compare_tensors(const void *a, const void *b, void *ctx)
{
	const struct stave_gguf_tensor *t = ctx;
	return strcmp(t[*(const int *)a].name, t[*(const int *)b].name);
}

static int sort_tensors(struct file *f, const char *path, struct stave_err *err)
{
	size_t n = (size_t)f->g.n;
	f->order = malloc((n + 1) * sizeof *f->order);
	if (!f->order)
		return stave_err_set(err, STAVE_ENOMEM, "%s: no memory for the index of %zu tensors", path, n);
	for (int i = 0; i < f->g.n; i++)
		f->order[i] = i;
	qsort_r(f->order, n, sizeof *f->order, compare_tensors, f->g.t);
	for (size_t i = 1; i < n; i++)
		if (!strcmp(f->g.t[f->order[i - 1]].name, f->g.t[f->order[i]].name))
			return stave_err_set(err, STAVE_ECORRUPT, "%s: tensor %s is there twice", path, f->g.t[f->order[i]].name);
	return 0;
}

int stave_gguf_open(struct stave_gguf **out, const char *path, struct stave_err *err)
{
	struct file *f = calloc(1, sizeof *f);
	if (!f)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to open %s", path);
	f->g.own = f;
	int rc = open_parts(f, path, err);
	if (!rc)
		rc = sort_tensors(f, path, err);
	if (rc)
		stave_gguf_close(&f->g);
	else
		*out = &f->g;
	return rc;
}

void stave_gguf_close(struct stave_gguf *g)
{
	if (!g)
		return;
	struct file *f = g->own;
	for (int i = 0; f->part && i < g->n_parts; i++)
		close_part(&f->part[i]);
	for (int i = 0; i < g->n; i++)
		free(f->names[i]);
	free(f->part);
	free(f->names);
	free(f->order);
	free(g->t);
	free(f);
}

bool stave_is_gguf(const char *path)
{
	struct stat st;
	char magic[4];
	if (stat(path, &st) || !S_ISREG(st.st_mode))
		return false;
	FILE *f = fopen(path, "rb");
	bool is = f && fread(magic, 1, 4, f) == 4 && !memcmp(magic, GGUF_MAGIC, 4);
	if (f)
		fclose(f);
	return is;
}

const struct stave_gguf_tensor *stave_gguf_find(const struct stave_gguf *g, const char *name)
{
	const struct file *f = g->own;
	int lo = 0, hi = g->n;
	while (lo < hi) {
		int mid = lo + (hi - lo) / 2, c = strcmp(name, g->t[f->order[mid]].name);
		if (!c)
			return &g->t[f->order[mid]];
		if (c < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

int stave_gguf_int(const struct stave_gguf *g, const char *key, int64_t *v, struct stave_err *err)
{
	return key_int(((const struct file *)g->own)->part, key, v, err);
}

int stave_gguf_keys(const struct stave_gguf *g) { return ((const struct file *)g->own)->part->n_keys; }

const char *stave_gguf_key(const struct stave_gguf *g, int i, enum stave_gguf_type *type)
{
	const struct gguf_key *k = &((const struct file *)g->own)->part->key[i];
	*type = k->type;
	return k->name;
}
