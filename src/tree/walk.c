/* Walking a directory as fsutil's filtered file system does.
 *
 * Names of a directory are read whole, sorted bytewise and gone through; a subdirectory's contents come right behind it.
 * Every file is reached by its name in an open directory, so no link is ever followed. A file is looked at (stat) only
 * when it passes the filters.
 * 1. A directory that is not included itself is stated as soon as something below it is, before that.
 * 2. A directory is left unread when no include pattern, or no exception to the exclude patterns, can match below it.
 *    That is judged by literal prefixes, and only when all those patterns are literal but for a trailing star.
 * 3. Only what was emitted counts as a first link.
 * The depth is bounded by the length of paths. Source: tonistiigi/fsutil filter.go, fs.go, stat.go. */
#include "spec/pattern.h"
#include "tree/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { DENTS_BYTES = 64 << 10 };

struct filter {
	struct spec_patterns *p;
	bool by_prefix; /* invariant 2 */
};
struct level { /* a directory being read */
	int fd;
	size_t path_n;
	bool emitted;
	bool *include, *exclude; /* what its path matched; NULL: nothing to know */
	struct level *parent;
};
struct walker {
	const struct tree_walk_opts *o;
	struct filter include, exclude;
	tree_walk_fn *fn;
	void *arg;
	char path[TREE_PATH_MAX];
	char link[TREE_PATH_MAX];
	uint8_t *dents;
	struct map links; /* "dev:ino" -> path of the first link */
	uint64_t no_xattr_dev;
	bool no_xattr;
};

struct name {
	const char *s;
	unsigned char type;
};
struct names {
	VEC(struct name) v;
	struct arena *a;
};

static int name_cmp(const void *a, const void *b) { return strcmp(((const struct name *)a)->s, ((const struct name *)b)->s); }

static int read_names(struct walker *w, int fd, struct names *ret, struct err *e)
{
	for (;;) {
		ssize_t n = getdents64(fd, w->dents, DENTS_BYTES);
		if (n < 0) return err_sys(e, errno, "readdir %s", *w->path ? w->path : ".");
		if (n == 0) break;
		for (ssize_t at = 0; at < n;) {
			const struct dirent64 *d = (const struct dirent64 *)(const void *)(w->dents + at);
			at += d->d_reclen;
			if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0) continue;
			vec_push(&ret->v, ((struct name){arena_strdup(ret->a, d->d_name), d->d_type}));
		}
	}
	if (ret->v.n) qsort(ret->v.v, ret->v.n, sizeof *ret->v.v, name_cmp);
	return 0;
}

static bool vanished(int errnum) { return errnum == ENOENT || errnum == ENOTDIR || errnum == ELOOP; }

/* The second link of an inode that was emitted names the first. */
static void note_link(struct walker *w, struct tree_entry *t, const struct stat *st)
{
	char key[48];
	if (S_ISDIR(st->st_mode) || st->st_nlink < 2) return;
	snprintf(key, sizeof key, "%" PRIx64 ":%" PRIx64, (uint64_t)st->st_dev, (uint64_t)st->st_ino);
	const char *first = map_get(&w->links, key);
	if (!first)
		map_put(&w->links, key, xstrdup(t->path));
	else if (!S_ISLNK(st->st_mode))
		t->linkname = (char *)(uintptr_t)first;
}

static int call(struct walker *w, struct tree_entry *t, int dirfd, const char *name, const struct stat *st, struct err *e)
{
	tree_stat_fill(t, st);
	note_link(w, t, st);
	if (w->o->set_owner) {
		t->uid = w->o->uid;
		t->gid = w->o->gid;
	}
	bool read_xattrs = !w->o->no_xattrs && !(w->no_xattr && w->no_xattr_dev == st->st_dev);
	int r = read_xattrs ? tree_xattrs_read(t, dirfd, name, "com.apple.", e) : 0;
	if (r == 0) r = w->fn(t, w->arg, e);
	tree_xattrs_fini(t);
	return r;
}

/* The directories above that were not stated yet. */
static int emit_parents(struct walker *w, struct level *l, struct err *e)
{
	struct stat st;
	if (!l || l->emitted) return 0;
	if (emit_parents(w, l->parent, e) < 0) return -1;
	l->emitted = true;
	if (fstat(l->fd, &st) < 0) return err_sys(e, errno, "stat %.*s", (int)l->path_n, w->path);
	char rest = w->path[l->path_n];
	w->path[l->path_n] = 0;
	struct tree_entry t = {.path = w->path};
	int r = call(w, &t, l->fd, NULL, &st, e);
	w->path[l->path_n] = rest;
	return r < 0 ? -1 : 0;
}

/* 0: go on, 1: a directory not to be entered, 2: it is gone, -1. */
static int emit(struct walker *w, struct level *l, const char *name, struct err *e)
{
	struct stat st;
	if (fstatat(l->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return vanished(errno) ? 2 : err_sys(e, errno, "lstat %s", w->path);
	struct tree_entry t = {.path = w->path};
	if (S_ISLNK(st.st_mode)) {
		ssize_t n = readlinkat(l->fd, name, w->link, sizeof w->link - 1);
		if (n < 0) return vanished(errno) || errno == EINVAL ? 2 : err_sys(e, errno, "readlink %s", w->path);
		w->link[n] = 0;
		t.linkname = w->link;
	}
	if (emit_parents(w, l, e) < 0) return -1;
	return call(w, &t, l->fd, name, &st, e);
}

/* Could a pattern of the given sort match below dir (whose path ends at n)? */
static bool prefix_may_match(const struct spec_patterns *p, bool exclusion, const char *dir, size_t n)
{
	for (size_t i = 0; i < spec_patterns_count(p); i++) {
		if (spec_patterns_is_exclusion(p, i) != exclusion) continue;
		const char *s = spec_patterns_text(p, i);
		size_t len = strlen(s);
		if (str_ends(s, "/**")) len -= 3;
		if (len >= 2 && s[len - 1] == '*' && s[len - 2] == '/') len -= 2;
		if (len >= n && memcmp(s, dir, n) == 0 && (len == n || s[n] == '/')) return true;
	}
	return false;
}

enum verdict { EMIT, PASS, PRUNE, BAD }; /* PASS: not stated, but a directory is entered */

static enum verdict judge(struct walker *w, const struct level *l, bool dir, bool *include, bool *exclude, struct err *e)
{
	enum verdict v = EMIT;
	size_t n = strlen(w->path);
	if (w->include.p) {
		int m = spec_patterns_match_parents(w->include.p, w->path, l->include, include, e);
		if (m < 0) return err_wrap(e, "failed to match includepatterns"), BAD;
		if (!m && dir && w->include.by_prefix && !prefix_may_match(w->include.p, false, w->path, n)) return PRUNE;
		if (!m) v = PASS;
	}
	if (w->exclude.p) {
		int m = spec_patterns_match_parents(w->exclude.p, w->path, l->exclude, exclude, e);
		if (m < 0) return err_wrap(e, "failed to match excludepatterns"), BAD;
		if (m && dir && w->exclude.by_prefix && !prefix_may_match(w->exclude.p, true, w->path, n)) return PRUNE;
		if (m) v = PASS;
	}
	return v;
}

static int walk_level(struct walker *w, struct level *l, struct err *e);

static bool *info_new(const struct filter *f) { return f->p ? xcalloc(spec_patterns_count(f->p) + 1, sizeof(bool)) : NULL; }

static int descend(struct walker *w, struct level *l, const char *name, bool *include, bool *exclude, bool emitted,
		   struct err *e)
{
	_cleanup_close_ int fd = openat(l->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && (vanished(errno) || (errno == EACCES && !emitted))) return 0;
	if (fd < 0) return err_sys(e, errno, "open %s", w->path);
	struct level sub = {fd, strlen(w->path), emitted, include, exclude, l};
	return walk_level(w, &sub, e);
}

static int visit(struct walker *w, struct level *l, const struct name *name, struct err *e)
{
	bool dir = name->type == DT_DIR;
	if (name->type == DT_UNKNOWN) {
		struct stat st;
		if (fstatat(l->fd, name->s, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return vanished(errno) ? 0 : err_sys(e, errno, "lstat %s", w->path);
		dir = S_ISDIR(st.st_mode);
	}
	_cleanup_free_ bool *include = dir ? info_new(&w->include) : NULL, *exclude = dir ? info_new(&w->exclude) : NULL;
	enum verdict v = judge(w, l, dir, include, exclude, e);
	if (v == BAD) return -1;
	if (v == PRUNE) return 0;
	int r = v == EMIT ? emit(w, l, name->s, e) : 0;
	if (r < 0) return -1;
	return dir && r == 0 ? descend(w, l, name->s, include, exclude, v == EMIT, e) : 0;
}

/* w->path is the directory's own path; it is so again afterwards. */
static int walk_level(struct walker *w, struct level *l, struct err *e)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	struct names names = {.a = a};
	int r = read_names(w, l->fd, &names, e);
	size_t at = l->path_n ? l->path_n + 1 : 0;
	for (size_t i = 0; r == 0 && i < names.v.n; i++) {
		size_t len = strlen(names.v.v[i].s);
		if (tree_flag(w->o->cancelled)) {
			r = tree_cancelled(e);
		} else if (at + len >= sizeof w->path) {
			r = err_sys(e, ENAMETOOLONG, "open %.*s/%s", (int)l->path_n, w->path, names.v.v[i].s);
		} else {
			if (at) w->path[l->path_n] = '/';
			memcpy(w->path + at, names.v.v[i].s, len + 1);
			r = visit(w, l, &names.v.v[i], e);
		}
	}
	w->path[l->path_n] = 0;
	vec_fini(&names.v);
	return r;
}

static int filter_init(struct filter *f, char *const *v, size_t n, bool prune_by_exclusions, const char *what, struct err *e)
{
	if (!n) return 0;
	if (spec_patterns_new(v, n, &f->p, e) < 0) {
		_cleanup_strvec_ struct strvec list = {0};
		strvec_copy(&list, v, n);
		_cleanup_free_ char *joined = strvec_join(&list, " ");
		return err_wrap(e, "invalid %s: [%s]", what, joined);
	}
	f->by_prefix = true;
	for (size_t i = 0; i < spec_patterns_count(f->p); i++) {
		if (spec_patterns_is_exclusion(f->p, i) != prune_by_exclusions) continue;
		const char *s = spec_patterns_text(f->p, i);
		size_t len = strlen(s);
		if (str_ends(s, "/**")) len -= 3;
		if (len >= 2 && s[len - 1] == '*' && s[len - 2] == '/') len -= 2;
		if (strcspn(s, "*[]?^\\") < len) f->by_prefix = false;
	}
	return 0;
}

/* "." among sorted paths: no filter at all; what lies below another is covered by it. */
static void dedupe(struct strvec *paths)
{
	struct strvec out = {0};
	const char *last = "";
	for (size_t i = 0; i < paths->n; i++) {
		const char *s = paths->v[i];
		if (strcmp(s, ".") == 0) {
			strvec_fini(&out);
			break;
		}
		size_t n = strlen(last);
		if (strncmp(s, last, n) == 0 && s[n] == '/') continue;
		strvec_add(&out, s);
		last = s;
	}
	strvec_fini(paths);
	*paths = out;
}

/* The include patterns with what the follow-paths lead to. */
static int include_patterns(int rootfd, const struct tree_walk_opts *o, struct strvec *ret, struct err *e)
{
	strvec_copy(ret, o->include, o->n_include);
	if (!o->n_follow) return 0;
	_cleanup_strvec_ struct strvec targets = {0};
	if (tree_follow_links(rootfd, o->follow, o->n_follow, &targets, e) < 0) return -1;
	if (!targets.n) return 0;
	strvec_copy(ret, targets.v, targets.n);
	dedupe(ret);
	return 0;
}

int tree_walk(int rootfd, const struct tree_walk_opts *o, tree_walk_fn *fn, void *arg, struct err *e)
{
	static const struct tree_walk_opts none;
	_cleanup_strvec_ struct strvec include = {0};
	if (!o) o = &none;
	if (include_patterns(rootfd, o, &include, e) < 0) return -1;
	_cleanup_close_ int fd = openat(rootfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) return err_sys(e, errno, "open .");
	struct walker *w = xnew(struct walker);
	w->o = o;
	w->fn = fn;
	w->arg = arg;
	w->dents = xmalloc(DENTS_BYTES);
	struct level root = {.fd = fd, .emitted = true};
	int r = filter_init(&w->include, include.v, include.n, false, "includepatterns", e);
	if (r == 0) r = filter_init(&w->exclude, o->exclude, o->n_exclude, true, "excludepatterns", e);
	if (r == 0) r = walk_level(w, &root, e);
	spec_patterns_free(w->include.p);
	spec_patterns_free(w->exclude.p);
	map_fini_free(&w->links);
	free(w->dents);
	free(w);
	return r;
}

/* ---- follow-paths ---- */

/* Differs from fsutil on purpose: that forgets what is left of a path behind a link it has met before, so of "link/a" and
 * "link/b" only one is sent. */
struct resolver {
	int rootfd;
	struct map resolved; /* the paths, a set */
	struct map links;    /* links with what was left behind them: done, a set */
	size_t steps;
	int depth;
};

/* Where the link at p leads, as paths from the root, appended; 1: it is a link (or links, by wildcard), 0: not. */
static int read_link(struct resolver *r, const char *p, bool allow_wildcard, struct strvec *ret, struct err *e)
{
	_cleanup_free_ char *dir = path_dir(p);
	const char *base = path_base(p);
	struct err why = ERR_INIT;
	if (strcmp(p, ".") == 0) return 0;
	_cleanup_close_ int dirfd = path_open_in(r->rootfd, dir, O_RDONLY | O_DIRECTORY, 0, &why);
	if (dirfd < 0 && (vanished(errno) || errno == EACCES)) return err_fini(&why), 0;
	if (dirfd < 0) return err_move(e, &why);
	if (allow_wildcard && spec_path_has_wildcard(base)) {
		DIR *d = fdopendir(take_fd(dirfd));
		int any = 0;
		for (struct dirent *de; any >= 0 && d && (de = readdir(d));) {
			if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0) continue;
			if (spec_path_match(base, de->d_name, NULL) != 1) continue;
			_cleanup_free_ char *sub = path_join(dir, de->d_name);
			int m = read_link(r, sub, false, ret, e);
			any = m < 0 ? -1 : any | m;
		}
		if (d) closedir(d);
		return any;
	}
	char link[TREE_PATH_MAX];
	ssize_t n = readlinkat(dirfd, base, link, sizeof link - 1);
	if (n < 0) return 0; /* no link, or nothing */
	link[n] = 0;
	_cleanup_free_ char *joined = link[0] == '/' ? xstrdup(link) : path_join(dir, link);
	strvec_take(ret, path_abs_in(joined));
	return 1;
}

static bool first_time(struct map *set, const char *p)
{
	if (map_has(set, p)) return false;
	map_put(set, p, set);
	return true;
}

static int resolve(struct resolver *r, const char *path, struct err *e);

/* The targets of the link (or links, by wildcard) at current, each with the rest behind it. */
static int resolve_targets(struct resolver *r, const char *current, const char *rest, const struct strvec *targets,
			   struct err *e)
{
	enum { DEPTH_MAX = 40 }; /* the kernel follows no more either */
	_cleanup_free_ char *key = xasprintf("%s//%s", current, rest);
	if (!first_time(&r->links, key) || r->depth == DEPTH_MAX) return 0;
	r->depth++;
	int result = 0;
	for (size_t i = 0; result == 0 && i < targets->n; i++) {
		_cleanup_free_ char *joined = path_join(targets->v[i], rest);
		result = resolve(r, joined, e);
	}
	r->depth--;
	return result;
}

/* Resolve one path component by component; what links lead to is put in turn. */
static int resolve(struct resolver *r, const char *path, struct err *e)
{
	enum { STEPS_MAX = 20000 };
	_cleanup_free_ char *abs = path_abs_in(path), *current = xstrdup("."), *clean = path_clean(path);
	if (str_starts(clean, "..") && (!clean[2] || clean[2] == '/')) { /* outside: a pattern that matches nothing */
		first_time(&r->resolved, clean);
		return 0;
	}
	const char *rest = abs[1] ? abs + 1 : ".";
	for (;;) {
		_cleanup_strvec_ struct strvec targets = {0};
		size_t n = strcspn(rest, "/");
		_cleanup_free_ char *part = xstrndup(rest, n);
		char *next = path_join(current, part);
		free(current);
		current = next;
		rest += n + (rest[n] == '/');
		if (++r->steps > STEPS_MAX) return err_set(e, CODE_INVALID_ARGUMENT, "too many links on the way to %s", path);
		int is_link = read_link(r, current, true, &targets, e);
		if (is_link < 0) return -1;
		if (!is_link && *rest) continue;
		first_time(&r->resolved, current);
		return is_link ? resolve_targets(r, current, rest, &targets, e) : 0;
	}
}

int tree_follow_links(int rootfd, char *const *paths, size_t n, struct strvec *ret, struct err *e)
{
	struct resolver r = {.rootfd = rootfd};
	struct strvec out = {0};
	int result = 0;
	for (size_t i = 0; result == 0 && i < n; i++) result = resolve(&r, paths[i], e);
	MAP_EACH(&r.resolved, it) strvec_add(&out, it->key);
	map_fini(&r.resolved);
	map_fini(&r.links);
	strvec_sort(&out);
	dedupe(&out);
	if (result == 0) strvec_copy(ret, out.v, out.n);
	strvec_fini(&out);
	return result;
}
