/* What frontends return, as values. */
#include "build/internal.h"

#include <string.h>

void result_fini(struct result *r)
{
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
