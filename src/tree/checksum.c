/* Content digests of parts of a tree, equal to those of BuildKit's contenthash.
 *
 * A record is a file, a link, a directory's header or a directory; the last is the hash of its header and its children,
 * each with its name. In BuildKit's radix tree a directory is two keys, "/dir" and "/dir/" (the header), so a pass over
 * the tree visits a directory twice; that order and what is compared when are kept here, as digests depend on them.
 *  - A path without wildcards and filters: the digest of its record, links in the middle followed within the tree.
 *  - Else: the records that match, files and headers only, with the headers of directories above them; one record whose
 *    name is the pattern's own is taken as it is, several are hashed together with their paths.
 * Paths here are absolute, "" is the root. Source: BuildKit cache/contenthash/checksum.go. */
#include "spec/pattern.h"
#include "tree/internal.h"

#include <string.h>

enum { LINKS_MAX = 255 };

static struct tree_entry *lookup(const struct tree_index *x, const char *path)
{
	return *path ? tree_index_find(x, path + 1) : (struct tree_entry *)(uintptr_t)&x->root;
}

/* "/" + p cleaned; the root is "". */
static char *key_path(const char *p)
{
	char *s = path_abs_in(p);
	if (!s[1]) s[0] = 0;
	return s;
}

/* Follow links on the way to path, and a last one if follow says so: where it is (heap), and what (NULL: nothing). */
static int resolve(const struct tree_index *x, const char *path, bool follow, char **ret, struct tree_entry **ret_entry,
		   struct err *e)
{
	struct tree_entry *t = lookup(x, path);
	_cleanup_free_ char *at = xstrdup(""), *rest = xstrdup(path);
	if (t && !(follow && tree_is_symlink(t))) {
		*ret = take_ptr(rest);
		*ret_entry = t;
		return 0;
	}
	t = NULL;
	for (int links = 0; *rest;) {
		size_t n = strcspn(rest, "/");
		bool last = !rest[n];
		_cleanup_free_ char *part = xstrndup(rest, n), *joined = xasprintf("%s/%s", at, part), *next = key_path(joined);
		memmove(rest, rest + n + !last, strlen(rest + n + !last) + 1);
		t = lookup(x, next);
		if (!t || !tree_is_symlink(t) || (!follow && !*rest)) {
			free(at);
			at = take_ptr(next);
			continue;
		}
		if (++links > LINKS_MAX) return err_set(e, CODE_UNKNOWN, "too many links");
		char *longer = xasprintf("%s/%s", t->linkname ? t->linkname : "", rest);
		free(rest);
		rest = longer;
		if (t->linkname && t->linkname[0] == '/') *at = 0;
	}
	*ret = take_ptr(at);
	*ret_entry = t;
	return 0;
}

static int not_found(const char *path, struct err *e)
{
	_cleanup_free_ char *q = go_quote(path, strlen(path));
	return err_set(e, CODE_NOT_FOUND, "%s: not found", q);
}

static void add_digest(struct hasher *h, const struct digest *d)
{
	char text[DIGEST_STR];
	digest_format(d, text);
	hasher_update(h, text, DIGEST_STR - 1);
}

static bool below(const char *path, const char *dir, size_t n) { return !n || (strncmp(path, dir, n) == 0 && path[n] == '/'); }

/* The digest of directory t with all below it; *i: the place of its first child, then of what follows it. */
static int dir_digest(struct tree_reader *r, struct tree_entry *t, size_t *i, struct digest *ret, struct err *e)
{
	struct hasher h;
	struct digest d;
	size_t n = strlen(t->path), skip = n ? n + 1 : 0;
	if (tree_flag(r->cancelled)) return tree_cancelled(e);
	if (tree_record_digest(r, t, &d, e) < 0) return -1;
	hasher_init(&h);
	hasher_update(&h, "", 1);
	add_digest(&h, &d);
	while (*i < tree_index_count(r->x)) {
		struct tree_entry *c = tree_index_at(r->x, *i);
		if (!below(c->path, t->path, n)) break;
		++*i;
		int result = tree_is_dir(c) ? dir_digest(r, c, i, &d, e) : tree_record_digest(r, c, &d, e);
		if (result < 0) {
			hasher_fini(&h);
			return -1;
		}
		hasher_update(&h, "", 1);
		hasher_updates(&h, c->path + skip);
		add_digest(&h, &d);
	}
	hasher_final(&h, ret);
	return 0;
}

static int entry_digest(struct tree_reader *r, struct tree_entry *t, struct digest *ret, struct err *e)
{
	if (!tree_is_dir(t)) return tree_record_digest(r, t, ret, e);
	size_t i = *t->path ? tree_index_lower(r->x, t->path) + 1 : 0;
	return dir_digest(r, t, &i, ret, e);
}

static int path_digest(struct tree_reader *r, const char *path, bool follow, struct digest *ret, struct err *e)
{
	_cleanup_free_ char *key = key_path(path), *at = NULL;
	struct tree_entry *t;
	if (resolve(r->x, key, follow, &at, &t, e) < 0) return -1;
	return t ? entry_digest(r, t, ret, e) : not_found(key, e);
}

/* ---- wildcards and filters ---- */

/* A record that matched, or the header of a directory that something below may yet want. */
struct match {
	char *path; /* as the selector sees it */
	struct tree_entry *t;
	bool included, follow;
	bool *include, *exclude; /* what the patterns said; NULL: not asked */
};
struct pass {
	struct tree_index *x;
	const struct tree_selector *sel;
	char *pattern; /* the selector's path as a key */
	bool ends_in_slash;
	char *prefix, *resolved; /* its part without wildcards, and where that lies */
	struct spec_patterns *include, *exclude;
	char *last_dir;              /* wildcard: what matched last, under which all counts */
	VEC(struct match *) parents; /* headers on the way to here */
	VEC(struct match *) found;
	VEC(struct match *) all; /* to be freed */
};

static void pass_fini(struct pass *p)
{
	for (size_t i = 0; i < p->all.n; i++) {
		free(p->all.v[i]->path);
		free(p->all.v[i]->include);
		free(p->all.v[i]->exclude);
		free(p->all.v[i]);
	}
	vec_fini(&p->all);
	vec_fini(&p->found);
	vec_fini(&p->parents);
	spec_patterns_free(p->include);
	spec_patterns_free(p->exclude);
	free(p->pattern);
	free(p->prefix);
	free(p->resolved);
	free(p->last_dir);
}

static bool path_below(const char *path, const char *dir) { return str_starts(path, dir) && path[strlen(dir)] == '/'; }

/* path relative to dir, "" for dir itself; a path elsewhere stays as it is. */
static const char *relative(const char *path, const char *dir)
{
	if (strcmp(path, dir) == 0) return "";
	return path_below(path, dir) ? path + strlen(dir) + 1 : path;
}

/* 1: the patterns let the candidate through, 0, -1. */
static int filter(struct pass *p, const char *candidate, struct match *m, const struct match *parent, struct err *e)
{
	if (p->include) {
		m->include = xcalloc(spec_patterns_count(p->include) + 1, sizeof(bool));
		int r = spec_patterns_match_parents(p->include, candidate, parent ? parent->include : NULL, m->include, e);
		if (r < 0) return err_wrap(e, "failed to match includepatterns");
		if (!r) return 0;
	}
	if (p->exclude) {
		m->exclude = xcalloc(spec_patterns_count(p->exclude) + 1, sizeof(bool));
		int r = spec_patterns_match_parents(p->exclude, candidate, parent ? parent->exclude : NULL, m->exclude, e);
		if (r < 0) return err_wrap(e, "failed to match excludepatterns");
		if (r) return 0;
	}
	return 1;
}

/* Does the wildcard cover path, itself or by a directory that it matched? 1, 0, -1. */
static int wildcard(struct pass *p, const char *path, struct err *e)
{
	if (!*p->pattern || (p->last_dir && *p->last_dir && path_below(path, p->last_dir))) return 1;
	int r = spec_path_match(p->pattern, path, e);
	if (r <= 0) return r;
	free(p->last_dir);
	p->last_dir = xstrdup(path);
	return 1;
}

static struct match *new_match(struct pass *p, const char *path, struct tree_entry *t, const struct match *parent)
{
	struct match *m = xnew(struct match);
	m->path = xstrdup(path);
	m->t = t;
	m->follow = !parent && p->sel->follow_links;
	vec_push(&p->all, m);
	return m;
}

static void include_match(struct pass *p, struct match *m)
{
	for (size_t i = 0; i < p->parents.n; i++) {
		if (p->parents.v[i]->included) continue;
		p->parents.v[i]->included = true;
		vec_push(&p->found, p->parents.v[i]);
	}
	m->included = true;
	vec_push(&p->found, m);
}

/* One key: a directory (header false), its header, or a file. 1: go on, 0: all is seen, -1. */
static int visit_key(struct pass *p, struct tree_entry *t, const char *path, bool header, struct err *e)
{
	while (p->parents.n && !path_below(path, p->parents.v[p->parents.n - 1]->path)) p->parents.n--;
	const struct match *parent = p->parents.n ? p->parents.v[p->parents.n - 1] : NULL;
	if (header && p->ends_in_slash && strcmp(path, p->pattern) == 0) return 1; /* the source directory itself */
	const char *base = p->pattern;
	if (p->sel->wildcard) {
		int r = wildcard(p, path, e);
		if (r <= 0) return r < 0 ? -1 : 1;
		base = p->last_dir ? p->last_dir : "";
	} else if (strcmp(path, p->pattern) != 0 && !path_below(path, p->pattern)) {
		return 0;
	}
	bool dir = tree_is_dir(t);
	if (dir && !header) return 1; /* never part of the result: something below may be left out */
	struct match *m = new_match(p, path, t, parent);
	int r = filter(p, relative(path, base), m, parent, e);
	if (r < 0) return -1;
	if (r) include_match(p, m);
	if (header) vec_push(&p->parents, m);
	return 1;
}

static int visit(struct pass *p, struct tree_entry *t, const char *at, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s%s", p->prefix, at + strlen(p->resolved));
	int r = visit_key(p, t, path, false, e);
	if (r > 0 && tree_is_dir(t)) r = visit_key(p, t, path, true, e);
	return r;
}

/* The components before the first with a wildcard; *ret_more: there are others behind. "" is the root. */
static char *literal_prefix(const char *pattern, bool *ret_more)
{
	const char *s = pattern;
	while (*s) {
		size_t n = strcspn(s + 1, "/");
		_cleanup_free_ char *part = xstrndup(s + 1, n);
		if (spec_path_has_wildcard(part)) break;
		s += n + 1;
	}
	*ret_more = *s != 0;
	return xstrndup(pattern, (size_t)(s - pattern));
}

static int patterns_new(char *const *v, size_t n, const char *what, struct spec_patterns **ret, struct err *e)
{
	if (!n || spec_patterns_new(v, n, ret, e) == 0) return 0;
	_cleanup_strvec_ struct strvec list = {0};
	strvec_copy(&list, v, n);
	_cleanup_free_ char *joined = strvec_join(&list, " ");
	return err_wrap(e, "invalid %s: [%s]", what, joined);
}

static int check_required(const struct pass *p, struct err *e)
{
	for (size_t i = 0; i < p->sel->n_required; i++) {
		bool found = false;
		for (size_t k = 0; k < p->found.n && !found; k++)
			found = str_starts(p->found.v[k]->path, p->sel->required_paths[i]);
		if (!found) return not_found(p->sel->required_paths[i], e);
	}
	return 0;
}

static int collect(struct pass *p, struct err *e)
{
	bool more = false;
	struct tree_entry *t;
	p->prefix = p->sel->wildcard ? literal_prefix(p->pattern, &more) : xstrdup(p->pattern);
	if (resolve(p->x, p->prefix, more, &p->resolved, &t, e) < 0) return -1;
	if (!t) return 0;
	int r = visit(p, t, p->resolved, e);
	size_t i = *p->resolved ? tree_index_lower(p->x, p->resolved + 1) + 1 : 0, n = strlen(p->resolved);
	for (; r > 0 && i < tree_index_count(p->x); i++) {
		t = tree_index_at(p->x, i);
		if (n && !below(t->path, p->resolved + 1, n - 1)) break;
		_cleanup_free_ char *at = xasprintf("/%s", t->path);
		r = visit(p, t, at, e);
	}
	return r < 0 ? -1 : 0;
}

/* Go's path.Base, heap. */
static char *base_name(const char *path)
{
	size_t n = strlen(path);
	if (!n) return xstrdup(".");
	while (n > 1 && path[n - 1] == '/') n--;
	const char *slash = memrchr(path, '/', n);
	const char *from = slash && n > 1 ? slash + 1 : path;
	return xstrndup(from, n - (size_t)(from - path));
}

static int match_digest(struct tree_reader *r, const struct match *m, struct digest *ret, struct err *e)
{
	if (m->follow && tree_is_symlink(m->t)) return path_digest(r, m->path, true, ret, e);
	return tree_record_digest(r, m->t, ret, e);
}

static void add_path(struct hasher *h, const char *path)
{
	if (!*path) hasher_update(h, "", 1);
	for (; *path; path++) hasher_update(h, *path == '/' ? "" : path, 1);
}

static int found_digest(struct pass *p, struct tree_reader *r, struct digest *ret, struct err *e)
{
	struct digest d;
	if (p->found.n == 0) {
		*ret = digest_of("", 0);
		return 0;
	}
	_cleanup_free_ char *want = base_name(p->sel->path), *is = base_name(p->found.v[0]->path);
	if (p->found.n == 1 && strcmp(want, is) == 0) return match_digest(r, p->found.v[0], ret, e);
	struct hasher h;
	hasher_init(&h);
	for (size_t i = 0; i < p->found.n; i++) {
		const char *path = p->found.v[i]->path;
		if (match_digest(r, p->found.v[i], &d, e) < 0) {
			hasher_fini(&h);
			return -1;
		}
		add_path(&h, str_starts(path, p->prefix) ? path + strlen(p->prefix) : path);
		add_digest(&h, &d);
	}
	hasher_final(&h, ret);
	return 0;
}

static int filtered_digest(struct tree_reader *r, const struct tree_selector *sel, struct digest *ret, struct err *e)
{
	struct pass p = {.x = r->x, .sel = sel, .pattern = key_path(sel->path), .ends_in_slash = str_ends(sel->path, "/")};
	int result = patterns_new(sel->include_patterns, sel->n_include, "includepatterns", &p.include, e);
	if (result == 0) result = patterns_new(sel->exclude_patterns, sel->n_exclude, "excludepatterns", &p.exclude, e);
	if (result == 0) result = collect(&p, e);
	if (result == 0) result = check_required(&p, e);
	if (result == 0) result = found_digest(&p, r, ret, e);
	pass_fini(&p);
	return result;
}

static int select_digest(struct tree_reader *r, const struct tree_selector *sel, struct digest *ret, struct err *e)
{
	if (!r->x) {
		if (strcmp(sel->path, "/") != 0) return err_set(e, CODE_NOT_FOUND, "%s: no such file or directory", sel->path);
		*ret = digest_of("", 0);
		return 0;
	}
	if (!sel->wildcard && !sel->n_include && !sel->n_exclude) return path_digest(r, sel->path, sel->follow_links, ret, e);
	return filtered_digest(r, sel, ret, e);
}

int tree_checksum_one(struct tree_index *x, int rootfd, const struct tree_selector *sel, const atomic_bool *cancelled,
		      char ret[static DIGEST_STR], struct err *e)
{
	_cleanup_tree_reader_ struct tree_reader r;
	struct tree_selector s = *sel;
	struct digest d;
	if (!s.path) s.path = "";
	tree_reader_init(&r, x, rootfd, cancelled);
	if (select_digest(&r, &s, &d, e) < 0) return -1;
	digest_format(&d, ret);
	return 0;
}

int tree_checksum(struct tree_index *x, int rootfd, const struct tree_selector *sel, size_t n, const atomic_bool *cancelled,
		  char ret[static DIGEST_STR], struct err *e)
{
	static const struct tree_selector whole;
	_cleanup_buf_ struct buf joined = BUF_INIT;
	char text[DIGEST_STR];
	if (!n) sel = &whole, n = 1;
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *path = path_abs_in(sel[i].path ? sel[i].path : "");
		struct tree_selector s = sel[i];
		s.path = path;
		if (tree_checksum_one(x, rootfd, &s, cancelled, text, e) < 0) return -1;
		if (i) buf_addc(&joined, 0);
		buf_adds(&joined, text);
	}
	digest_str_of(joined.p, joined.n, ret);
	return 0;
}
