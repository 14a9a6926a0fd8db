/* What may be meant by a key that is not there: in this order, a name like it in the same section; the same name in another
 * section; a path like it. Pure. */
#include "conf/internal.h"

#include <ctype.h>
#include <strings.h>

static char *lower(const char *s)
{
	char *p = xstrdup(s);
	size_t n = 0;
	for (char *c = p; *c; c++) /* max_parallelism is near enough to max-parallelism, and maxParallelism too */
		if (*c != '-' && *c != '_') p[n++] = (char)tolower((unsigned char)*c);
	p[n] = 0;
	return p;
}

static size_t distance(const char *a, const char *b)
{
	_cleanup_free_ char *x = lower(a), *y = lower(b);
	return text_distance(x, y);
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

struct best {
	size_t distance;
	char *text; /* heap */
};

static void better(struct best *b, size_t distance, const char *prefix, const char *path)
{
	if (distance >= b->distance) return;
	free(b->text);
	b->distance = distance;
	b->text = conf_shown(prefix, path);
}

/* Names of the table `rel`: its keys, and sections below it. */
static void same_section(const struct conf_rows *rs, const char *rel, const char *key, struct best *b)
{
	size_t n = strlen(rel);
	for (size_t i = 0; i < rs->n; i++) {
		const char *p = rs->rows[i].path;
		if (n && (strncasecmp(p, rel, n) != 0 || p[n] != '/')) continue;
		_cleanup_free_ char *name = xstrdup(p + (n ? n + 1 : 0));
		name[strcspn(name, "/")] = 0;
		better(b, distance(key, name), "", name);
	}
}

struct elsewhere {
	const char *key;
	const char *place; /* section of the manual, borrowed */
	bool found, top;
};

static void look(const struct conf_rows *rs, const char *prefix, struct elsewhere *w)
{
	for (size_t i = 0; i < rs->n && !w->found; i++) {
		const struct conf_row *r = &rs->rows[i];
		_cleanup_free_ char *path = *prefix ? xasprintf("%s/%s", prefix, r->path) : xstrdup(r->path);
		if (distance(w->key, last_part(r->path)) == 0) {
			size_t n = (size_t)(last_part(path) - path);
			for (size_t k = 0; k < conf_n_sections; k++) {
				const char *s = conf_sections[k].path;
				if (strlen(s) + (*s ? 1 : 0) != n || strncmp(s, path, strlen(s)) != 0) continue;
				w->found = true;
				w->top = !*s;
				w->place = conf_sections[k].title;
			}
		}
		if (r->sub) look(r->sub, path, w);
	}
}

static void like_path(const struct conf_rows *rs, const char *rel, const char *key, struct best *b)
{
	_cleanup_free_ char *path = *rel ? xasprintf("%s/%s", rel, key) : xstrdup(key);
	for (size_t i = 0; i < rs->n; i++) better(b, distance(path, rs->rows[i].path), "", rs->rows[i].path);
}

/* Spellings that are in use and near to nothing. */
static const struct {
	const char *key, *hint;
} known[] = {
	{"ghacache", ": BuildKit's manual has it so, but the section is [cache.gha]"},
	{"registries", ": write [registry.\"HOST\"]"},
	{"mirror", ": write [registry.\"HOST\"] with mirrors = [\"MIRROR\"]"},
	{"plain-http", ", did you mean http?"},
	{"plainhttp", ", did you mean http?"},
	{"insecure-registries", ": write [registry.\"HOST\"] with insecure = true"},
	{"registry-mirrors", ": write [registry.\"docker.io\"] with mirrors = [\"MIRROR\"]"},
};

char *conf_hint(const struct conf_rows *rs, const char *rel, const char *key, bool is_table)
{
	struct best b = {2 + strlen(key) / 5, NULL};
	same_section(rs, rel, key, &b);
	if (!b.text)
		for (size_t i = 0; i < array_len(known); i++)
			if (strcasecmp(known[i].key, key) == 0) return xstrdup(known[i].hint);
	struct elsewhere w = {.key = key};
	if (!b.text || b.distance > 1) look(&conf_all_rows, "", &w);
	if (w.found && !is_table) {
		free(b.text);
		return w.top ? xstrdup(", it belongs to the top level: before the first [section]")
			     : xasprintf(", it belongs to %s", w.place);
	}
	if (!b.text) like_path(rs, rel, key, &b);
	char *r = b.text ? xasprintf(", did you mean %s?", b.text) : xstrdup("");
	free(b.text);
	return r;
}
