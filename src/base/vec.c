#include "base/vec.h"
#include "base/buf.h"

#include <stdio.h>

void strvec_take(struct strvec *sv, char *s)
{
	vec_grow(sv, sv->n + 2);
	sv->v[sv->n++] = s;
	sv->v[sv->n] = NULL;
}

void strvec_add(struct strvec *sv, const char *s) { strvec_take(sv, xstrdup(s)); }

void strvec_addf(struct strvec *sv, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	strvec_take(sv, xvasprintf(fmt, ap));
	va_end(ap);
}

void strvec_copy(struct strvec *dst, char *const *v, size_t n)
{
	for (size_t i = 0; i < n; i++) strvec_add(dst, v[i]);
}

void strvec_fini(struct strvec *sv)
{
	for (size_t i = 0; i < sv->n; i++) free(sv->v[i]);
	vec_fini(sv);
}

ptrdiff_t strvec_find(const struct strvec *sv, const char *s)
{
	for (size_t i = 0; i < sv->n; i++)
		if (!strcmp(sv->v[i], s)) return (ptrdiff_t)i;
	return -1;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

void strvec_sort(struct strvec *sv)
{
	if (sv->n > 1) qsort(sv->v, sv->n, sizeof *sv->v, by_bytes);
}

char *strvec_join(const struct strvec *sv, const char *sep)
{
	struct buf b = BUF_INIT;
	for (size_t i = 0; i < sv->n; i++) {
		if (i) buf_adds(&b, sep);
		buf_adds(&b, sv->v[i]);
	}
	return buf_take_str(&b);
}

static ptrdiff_t env_find(const struct strvec *sv, const char *k)
{
	size_t n = strlen(k);
	for (size_t i = sv->n; i-- > 0;)
		if (!strncmp(sv->v[i], k, n) && sv->v[i][n] == '=') return (ptrdiff_t)i;
	return -1;
}

const char *strvec_env_get(const struct strvec *sv, const char *k)
{
	ptrdiff_t i = env_find(sv, k);
	return i < 0 ? NULL : sv->v[i] + strlen(k) + 1;
}

void strvec_env_set(struct strvec *sv, const char *k, const char *v)
{
	char *kv = xasprintf("%s=%s", k, v);
	ptrdiff_t i = env_find(sv, k);
	if (i < 0) {
		strvec_take(sv, kv);
		return;
	}
	free(sv->v[i]);
	sv->v[i] = kv;
}
