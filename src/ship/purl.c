/* Qualifiers come sorted by key; what Go's url.PathEscape or QueryEscape keeps is kept. */
#include "ship/purl.h"

#include <ctype.h>
#include <string.h>

static void escape(struct buf *b, const char *s, size_t n, const char *keep)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];
		if (isalnum(c) || strchr("-._~", c) || strchr(keep, c))
			buf_addc(b, (char)c);
		else
			buf_addf(b, "%%%02X", c);
	}
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct purl_extra *)a)->key, ((const struct purl_extra *)b)->key);
}

static void qualifiers(struct buf *b, struct purl_extra *q, size_t n)
{
	qsort(q, n, sizeof *q, by_key);
	for (size_t i = 0; i < n; i++) {
		buf_addf(b, "%c%s=", i ? '&' : '?', q[i].key);
		escape(b, q[i].value, strlen(q[i].value), ":");
	}
}

char *ship_purl(const char *type, const char *ref, const struct spec_platform *platform, const struct purl_extra *extra,
		size_t n_extra, struct err *e)
{
	_cleanup_spec_ref_ struct spec_ref r = {0};
	struct buf b = BUF_INIT;
	if (spec_ref_parse(ref, &r, e) < 0) {
		err_wrap(e, "failed to parse ref \"%s\"", ref);
		return NULL;
	}
	if (!r.digest) spec_ref_tag_name_only(&r);
	_cleanup_free_ char *name = spec_ref_familiar_name(&r), *p = NULL;
	buf_addf(&b, "pkg:%s/", type);
	escape(&b, name, strlen(name), "/");
	if (r.tag) {
		buf_addc(&b, '@');
		escape(&b, r.tag, strlen(r.tag), ":");
	}
	struct purl_extra *q = xcalloc(n_extra + 2, sizeof *q);
	size_t n = 0;
	if (r.digest) q[n++] = (struct purl_extra){"digest", r.digest};
	if (platform) {
		struct spec_platform norm;
		spec_platform_copy(&norm, platform);
		spec_platform_normalize(&norm);
		p = spec_platform_format(&norm);
		spec_platform_fini(&norm);
		q[n++] = (struct purl_extra){"platform", p};
	}
	for (size_t i = 0; i < n_extra; i++) q[n++] = extra[i];
	qualifiers(&b, q, n);
	free(q);
	return buf_take_str(&b);
}
