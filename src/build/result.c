/* What frontends return, as values. */
#include "build/provenance.h"

#include <string.h>

static void attest_fini(struct result_attest *a)
{
	for (size_t i = 0; i < a->subjects.n; i++) {
		free(a->subjects.v[i].name);
		free(a->subjects.v[i].digest);
	}
	for (size_t i = 0; i < a->meta.n; i++) {
		free(a->meta.v[i].key);
		free(a->meta.v[i].data);
	}
	vec_fini(&a->subjects);
	vec_fini(&a->meta);
	ref_drop(a->ref);
	provenance_free(a->provenance);
	free(a->key);
	free(a->path);
	free(a->predicate_type);
}

struct result_attest *result_attest_add(struct result *r, const char *key, bool bundle, const char *path, const char *predicate_type)
{
	struct result_attest *a = vec_add(&r->attests);
	a->key = xstrdup(key);
	a->bundle = bundle;
	a->path = xstrdup(path ? path : "");
	a->predicate_type = xstrdup(predicate_type ? predicate_type : "");
	return a;
}

void result_attest_meta(struct result_attest *a, const char *key, const void *p, size_t n)
{
	struct buf b = BUF_INIT;
	buf_add(&b, p, n);
	struct result_meta m = {xstrdup(key), (uint8_t *)buf_take_str(&b), n};
	vec_push(&a->meta, m);
}

static void attest_copy(struct result *dst, const struct result_attest *a)
{
	struct result_attest *x = result_attest_add(dst, a->key, a->bundle, a->path, a->predicate_type);
	x->ref = a->ref ? ref_hold(a->ref) : NULL;
	for (size_t i = 0; i < a->subjects.n; i++) {
		struct result_subject s = {a->subjects.v[i].raw, xstrdup(a->subjects.v[i].name), xstrdup(a->subjects.v[i].digest)};
		vec_push(&x->subjects, s);
	}
	for (size_t i = 0; i < a->meta.n; i++) result_attest_meta(x, a->meta.v[i].key, a->meta.v[i].data, a->meta.v[i].len);
}

void result_fini(struct result *r)
{
	for (size_t i = 0; i < r->attests.n; i++) attest_fini(&r->attests.v[i]);
	vec_fini(&r->attests);
	for (size_t i = 0; i < r->refs.n; i++) {
		free(r->refs.v[i].key);
		ref_drop(r->refs.v[i].ref);
	}
	for (size_t i = 0; i < r->meta.n; i++) {
		free(r->meta.v[i].key);
		free(r->meta.v[i].data);
	}
	vec_fini(&r->refs);
	vec_fini(&r->meta);
}

void result_copy(struct result *dst, const struct result *src)
{
	*dst = (struct result){.is_map = src->is_map};
	for (size_t i = 0; i < src->refs.n; i++) {
		struct result_ref x = {xstrdup(src->refs.v[i].key), src->refs.v[i].ref ? ref_hold(src->refs.v[i].ref) : NULL};
		vec_push(&dst->refs, x);
	}
	for (size_t i = 0; i < src->attests.n; i++) attest_copy(dst, &src->attests.v[i]);
	for (size_t i = 0; i < src->meta.n; i++) result_meta_set(dst, src->meta.v[i].key, src->meta.v[i].data, src->meta.v[i].len);
}

const struct result_meta *result_meta_find(const struct result *r, const char *key)
{
	for (size_t i = 0; i < r->meta.n; i++)
		if (!strcmp(r->meta.v[i].key, key)) return &r->meta.v[i];
	return NULL;
}

void result_meta_set(struct result *r, const char *key, const void *p, size_t n)
{
	struct buf b = BUF_INIT;
	buf_add(&b, p, n);
	uint8_t *data = (uint8_t *)buf_take_str(&b);
	struct result_meta *m = (struct result_meta *)result_meta_find(r, key);
	if (m) {
		free(m->data);
		m->data = data;
		m->len = n;
		return;
	}
	struct result_meta x = {xstrdup(key), data, n};
	vec_push(&r->meta, x);
}
