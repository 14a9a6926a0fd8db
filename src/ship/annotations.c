#include "ship/annotations.h"

#include <string.h>

static bool platform_char(char c)
{
	return c == '_' || c == '/' || c == '-' || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

/* "annotation-TYPE[PLATFORM].KEY" in pieces; false: it has another form. type and platform are empty when they are not given.
 */
static bool split(const char *attr, char **ret_type, char **ret_platform, const char **ret_key)
{
	if (!str_starts(attr, "annotation")) return false;
	const char *s = attr + strlen("annotation"), *type = s, *platform = s;
	size_t n_type = 0, n_platform = 0;
	if (*s == '-') {
		type = ++s;
		while ((*s >= 'a' && *s <= 'z') || *s == '-') s++;
		if (!(n_type = (size_t)(s - type))) return false;
	}
	if (*s == '[') {
		platform = ++s;
		while (platform_char(*s)) s++;
		if (!(n_platform = (size_t)(s - platform)) || *s++ != ']') return false;
	}
	if (*s != '.' || !s[1] || strpbrk(s + 1, " \t\n\f\r")) return false;
	*ret_type = xstrndup(type, n_type);
	*ret_platform = xstrndup(platform, n_platform);
	*ret_key = s + 1;
	return true;
}

int ship_annotation_add(struct ship_annotations *s, const char *attr, const void *value, size_t n, struct err *e)
{
	static const char *const names[] = {"index", "index-descriptor", "manifest", "manifest-descriptor"};
	_cleanup_free_ char *type = NULL, *platform = NULL, *normal = NULL;
	const char *key;
	size_t t = 0;
	if (!split(attr, &type, &platform, &key)) return 0;
	while (t < SHIP_ANNOTATE_TYPES && strcmp(names[t], *type ? type : "manifest") != 0) t++;
	if (t == SHIP_ANNOTATE_TYPES) return err_set(e, CODE_UNKNOWN, "unrecognized annotation type %s", type);
	if (*platform) {
		_cleanup_spec_platform_ struct spec_platform p = {0};
		if (spec_platform_parse_normal(platform, &p, e) < 0) return -1;
		normal = spec_platform_format(&p);
	}
	vec_push(&s->all,
		 ((struct ship_annotation){(enum ship_annotation_type)t, take_ptr(normal), xstrdup(key), xstrndup(value, n)}));
	return 1;
}

bool ship_annotations_any(const struct ship_annotations *s, enum ship_annotation_type type)
{
	for (size_t i = 0; i < s->all.n; i++)
		if (s->all.v[i].type == type) return true;
	return false;
}

struct ship_kv *ship_annotations_of(const struct ship_annotations *s, enum ship_annotation_type type, const char *platform,
				    size_t *ret_n)
{
	struct ship_kv *v = xcalloc(s->all.n + 1, sizeof *v);
	size_t n = 0;
	for (int own = 0; own < 2; own++) /* what is for one platform counts more */
		for (size_t i = 0; i < s->all.n; i++) {
			const struct ship_annotation *a = &s->all.v[i];
			bool fits = own ? a->platform && (type < SHIP_ANNOTATE_MANIFEST || str_eq(a->platform, platform))
					: !a->platform;
			if (a->type == type && fits) v[n++] = (struct ship_kv){a->key, a->value};
		}
	*ret_n = n;
	return v;
}

void ship_annotations_fini(struct ship_annotations *s)
{
	for (size_t i = 0; i < s->all.n; i++) {
		free(s->all.v[i].platform);
		free(s->all.v[i].key);
		free(s->all.v[i].value);
	}
	vec_fini(&s->all);
}
