/* The shared bare repository of a remote, and what is taken out of it.
 *
 *  1. A ref that was fetched is kept below refs/tags, so that the next fetch tells the server what is here. A ref that moved is
 *     forced.
 *  2. The result is the commit that the cache key names, also when the remote moved on in between: it is looked for in the
 *     repository, then asked for by its id.
 *  3. A path inside the checkout is a peer's: it is walked without following links.
 * Source: moby/buildkit source/git/{source,bundle}.go. */
#include "ops/git_job.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OBJECT_MAX = 8 << 20, DEPTH_MAX = 1000 };

/* The directory as a path for git; it is ours, not a peer's. */
static int dir_path(int fd, char **ret, struct err *e)
{
	char link[64], path[4096];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	if (n < 0) return err_sys(e, errno, "readlink %s", link);
	path[n] = 0;
	*ret = xstrdup(path);
	return 0;
}

static char *shown(const struct git_job *j) { return git_redact(j->src->git.remote); }
static bool has_commit(const struct git_cli *g, const char *sha)
{
	_cleanup_free_ char *commit = xasprintf("%s^{commit}", sha);
	return git_run(g, NULL, NULL, "cat-file", "-e", commit, NULL) == 0;
}

static const char *fetch_ref(const struct git_job *j)
{
	return j->src->git.fetch_by_commit && *j->src->git.checksum ? j->src->git.checksum : j->ref;
}

/* ---- bundles ---- */

/* git reads a bundle's refs directly: the length of an id tells the repository's format. */
static int bundle_format(struct git_job *j, const char *path, struct err *e)
{
	struct git_cli g = {.j = j, .no_auth = true};
	_cleanup_buf_ struct buf out = BUF_MAX(OBJECT_MAX);
	if (git_run(&g, &out, e, "ls-remote", "--", path, NULL) < 0) return err_wrap(e, "failed to inspect git bundle");
	_cleanup_free_ char *id = xstrndup(buf_str(&out), strcspn(buf_str(&out), "\t\n"));
	if (!*id) return err_set(e, CODE_UNKNOWN, "failed to inspect git bundle: no refs found");
	if (!git_is_commit(id)) return err_set(e, CODE_UNKNOWN, "failed to inspect git bundle: invalid object ID \"%s\"", id);
	j->sha256 = strlen(id) == 64;
	return 0;
}

static int copy_file(int from, const char *path, struct err *e)
{
	_cleanup_close_ int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	loff_t at = 0;
	ssize_t n;
	if (to < 0) return err_sys(e, errno, "%s", path);
	while ((n = copy_file_range(from, &at, to, NULL, 1 << 30, 0)) > 0) {
	}
	return n < 0 ? err_sys(e, errno, "copy to %s", path) : 0;
}

int git_stage_bundle(struct git_job *j, struct err *e)
{
	const char *ref = strstr(j->src->git.bundle, "://") + 3;
	_cleanup_free_ char *path = NULL, *repo = NULL;
	if (j->staged) return 0;
	if (git_tmp(j, "bundle.pack", &path, e) < 0 || git_tmp(j, "repo.git", &repo, e) < 0) return -1;
	if (copy_file(j->bundle_fd, path, e) < 0) return err_wrap(e, "git bundle %s", ref);
	if (bundle_format(j, path, e) < 0) return -1;
	struct git_cli g = {.j = j, .dir = repo, .no_auth = true};
	if (git_init(&g, true, e) < 0) return err_wrap(e, "failed to init temp bare repo");
	if (git_run(&g, NULL, e, "fetch", path, "+refs/*:refs/*", NULL) < 0)
		return err_wrap(e, "failed to import git bundle %s into temp", ref);
	if (!has_commit(&g, j->src->git.checksum))
		return err_set(e, CODE_UNKNOWN, "commit %s not found in bundle %s", j->src->git.checksum, ref);
	j->staged = xasprintf("file://%s", repo);
	return 0;
}

/* ---- fetching ---- */

static bool is_shallow(const char *dir)
{
	_cleanup_free_ char *path = xasprintf("%s/shallow", dir);
	struct stat st;
	return lstat(path, &st) == 0;
}

/* Locks of a git that was killed; nobody else works here. */
static void drop_locks(const char *dir)
{
	static const char *const locks[] = {"shallow.lock", "packed-refs.lock", "config.lock", "HEAD.lock", "index.lock"};
	for (size_t i = 0; i < array_len(locks); i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, locks[i]);
		unlink(path);
	}
}

static void all_of_it(const char *dir, struct strvec *args)
{
	strvec_add(args, "fetch");
	strvec_add(args, "--tags");
	if (is_shallow(dir)) strvec_add(args, "--unshallow");
}

/* 1: the repository cannot take the new refs beside its old ones. */
static bool needs_reset(const char *text)
{
	if (strstr(text, "rejected") && strstr(text, "(would clobber existing tag)")) return true;
	return strstr(text, "some local refs could not be updated;") &&
	       (strstr(text, "(unable to update local ref)") || strstr(text, "refname conflict"));
}

static int run_fetch(struct git_job *j, const struct git_cli *g, const char *origin, const char *target, struct err *e)
{
	_cleanup_strvec_ struct strvec args = {0};
	const char *from = fetch_ref(j);
	if (j->src->git.fetch_by_commit || !git_is_commit(from)) {
		strvec_add(&args, "fetch");
		strvec_add(&args, "--depth=1");
		strvec_add(&args, "--no-tags");
	} else {
		all_of_it(g->dir, &args);
	}
	strvec_add(&args, origin);
	if (git_is_commit(j->ref)) {
		strvec_add(&args, j->ref);
	} else {
		strvec_add(&args, "--force");
		strvec_add(&args, "--");
		strvec_addf(&args, "%s:%s", from, target);
	}
	if (git_runv(g, NULL, e, &args) >= 0) return 0;
	_cleanup_free_ char *remote = shown(j);
	j->reset = needs_reset(e->msg);
	return err_wrap(e, "failed to fetch remote %s", remote);
}

static int force_ref(struct git_job *j, const struct git_cli *g, const char *target, struct err *e)
{
	_cleanup_free_ char *full = xasprintf("%s%s", str_starts(target, "refs/") ? "" : "refs/", target);
	return git_run(g, NULL, e, "update-ref", full, j->digest, "--no-deref", NULL);
}

/* The ref at the remote is another commit by now than when the key was made. */
static int find_expected(struct git_job *j, const struct git_cli *g, const char *origin, const char *target, struct err *e)
{
	_cleanup_strvec_ struct strvec args = {0};
	_cleanup_free_ char *remote = shown(j);
	if (git_run(g, NULL, NULL, "cat-file", "-e", j->digest, NULL) == 0) return force_ref(j, g, target, e);
	all_of_it(g->dir, &args);
	strvec_add(&args, origin);
	strvec_add(&args, j->digest);
	if (git_runv(g, NULL, e, &args) < 0) return err_wrap(e, "failed to fetch remote %s", remote);
	if (git_run(g, NULL, e, "reflog", "expire", "--all", "--expire=now", NULL) < 0)
		return err_wrap(e, "failed to expire reflog for remote %s", remote);
	if (git_run(g, NULL, NULL, "cat-file", "-e", j->digest, NULL) == 0) return force_ref(j, g, target, e);
	return err_set(e, CODE_UNKNOWN,
		       "fetched ref %s does not match expected commit %s and commit can not be found in the repository", j->ref,
		       j->digest);
}

static int fetch(struct git_job *j, const struct git_cli *g, const char *origin, struct err *e)
{
	_cleanup_free_ char *target = xasprintf("%s%s", str_starts(j->ref, "refs/tags/") ? "" : "tags/", j->ref);
	_cleanup_buf_ struct buf out = BUF_MAX(4096);
	const char *from = fetch_ref(j);
	if (git_is_commit(from) && has_commit(g, from)) return 0;
	drop_locks(g->dir);
	if (run_fetch(j, g, origin, target, e) < 0 || git_run(g, &out, e, "rev-parse", from, NULL) < 0) return -1;
	_cleanup_free_ char *got = git_line(&out);
	return str_eq(got, j->digest) ? 0 : find_expected(j, g, origin, target, e);
}

static int check_pinned(struct git_job *j, const struct git_cli *g, struct err *e)
{
	const char *want = j->src->git.checksum, *ref = fetch_ref(j);
	_cleanup_buf_ struct buf out = BUF_MAX(4096);
	_cleanup_free_ char *remote = shown(j), *peel = xasprintf("%s^{}", ref);
	if (!*want) return 0;
	if (git_run(g, &out, e, "rev-parse", ref, NULL) < 0) return err_wrap(e, "failed to rev-parse %s for %s", ref, remote);
	_cleanup_free_ char *first = git_line(&out);
	if (str_starts(first, want)) return 0;
	_cleanup_free_ char *second = git_run(g, &out, NULL, "rev-parse", peel, NULL) == 0 ? git_line(&out) : xstrdup(first);
	if (str_starts(second, want)) return 0;
	if (str_eq(first, second)) return err_set(e, CODE_UNKNOWN, "expected checksum to match %s, got %s", want, first);
	return err_set(e, CODE_UNKNOWN, "expected checksum to match %s, got %s or %s", want, first, second);
}

static int make_repo(struct git_job *j, const struct git_cli *g, struct err *e)
{
	if (!j->repo_new) return 0;
	if (git_init(g, true, e) < 0) return err_wrap(e, "failed to init repo");
	if (git_run(g, NULL, e, "remote", "add", "origin", j->src->git.remote, NULL) < 0)
		return err_wrap(e, "failed add origin repo");
	return 0;
}

/* What the ref stands for where none, or only a commit, was asked for. */
static int settle_ref(struct git_job *j, const struct git_cli *g, struct err *e)
{
	char *ref = NULL;
	if (*j->src->git.bundle && (!*j->ref || git_is_commit(j->ref))) ref = xstrdup(j->src->git.checksum);
	if (!ref && *j->ref) return 0;
	if (!ref && git_default_branch(g, j->src->git.remote, &ref, e) < 0) return -1;
	free(j->ref);
	j->ref = ref;
	return 0;
}

static int fetch_into(struct git_job *j, const char *dir, struct err *e)
{
	struct git_cli g = {.j = j, .dir = dir, .no_auth = *j->src->git.bundle};
	const char *origin = "origin";
	if (*j->src->git.bundle) {
		if (git_stage_bundle(j, e) < 0) return -1;
		origin = j->staged;
	} else {
		j->sha256 = strlen(j->digest) == 64;
	}
	if (make_repo(j, &g, e) < 0 || settle_ref(j, &g, e) < 0) return -1;
	if (*j->src->git.bundle && has_commit(&g, j->src->git.checksum)) {
		j->repo_ok = true;
		if (git_is_commit(j->ref)) return 0;
	}
	if (fetch(j, &g, origin, e) < 0) return -1;
	j->repo_ok = true;
	return check_pinned(j, &g, e);
}

/* ---- objects ---- */

static int cat(const struct git_cli *g, const char *type, const char *id, uint8_t **ret, size_t *ret_len, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_MAX(OBJECT_MAX);
	if (git_run(g, &out, e, "cat-file", type, id, NULL) < 0) return -1;
	*ret_len = out.n;
	*ret = (uint8_t *)buf_take_str(&out);
	return 0;
}

int git_objects(struct git_job *j, const char *repo_dir, struct err *e)
{
	struct git_cli g = {.j = j, .dir = repo_dir};
	_cleanup_buf_ struct buf out = BUF_MAX(4096);
	if (git_run(&g, &out, e, "cat-file", "-t", j->digest, NULL) < 0) return -1;
	_cleanup_free_ char *type = git_line(&out);
	bool tag = str_eq(type, "tag");
	if (!tag && !str_eq(type, "commit")) return err_set(e, CODE_UNKNOWN, "expected commit or tag object, got %s", type);
	if (!tag || !*j->commit) {
		_cleanup_free_ char *peel = xasprintf("%s^{commit}", j->digest);
		if (tag && git_run(&g, &out, e, "rev-parse", peel, NULL) < 0) return -1;
		free(j->commit);
		j->commit = tag ? git_line(&out) : xstrdup("");
	}
	if (tag && cat(&g, "tag", j->digest, &j->tag_object, &j->tag_len, e) < 0) return -1;
	return cat(&g, "commit", *j->commit ? j->commit : j->digest, &j->commit_object, &j->commit_len, e);
}

/* ---- trees ---- */

/* Each entry below dir, directories after what they hold; fn gets its directory and name. */
static int walk(int dir, int depth, int (*fn)(void *ctx, int dir, const char *name, const struct stat *st, struct err *e),
		void *ctx, struct err *e)
{
	if (depth > DEPTH_MAX) return err_set(e, CODE_RESOURCE_EXHAUSTED, "folders nested more than %d deep", DEPTH_MAX);
	int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	int r = 0;
	if (!d) return err_sys(e, errno, "open a folder of the checkout");
	for (struct dirent *de; r == 0 && (de = readdir(d));) {
		struct stat st;
		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, "..")) continue;
		if (fstatat(dir, de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
			r = err_sys(e, errno, "stat %s", de->d_name);
			break;
		}
		if (S_ISDIR(st.st_mode)) {
			_cleanup_close_ int sub = openat(dir, de->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			r = sub < 0 ? err_sys(e, errno, "open %s", de->d_name) : walk(sub, depth + 1, fn, ctx, e);
		}
		if (r == 0) r = fn(ctx, dir, de->d_name, &st, e);
	}
	closedir(d);
	return r;
}

static int set_time(void *ctx, int dir, const char *name, const struct stat *st, struct err *e)
{
	const struct timespec *t = ctx, times[2] = {*t, *t};
	return utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? err_sys(e, errno, "utimes %s", name) : 0;
}

static int set_old_mode(void *ctx, int dir, const char *name, const struct stat *st, struct err *e)
{
	if (!S_ISREG(st->st_mode) || st->st_mode & 0111) return 0;
	return fchmodat(dir, name, (st->st_mode & 07777) | 0222, 0) < 0 ? err_sys(e, errno, "chmod %s", name) : 0;
}

static int set_times(struct git_job *j, const struct git_cli *g, const char *commit, int root, struct err *e)
{
	_cleanup_free_ char *peel = xasprintf("%s^{commit}", commit), *remote = shown(j);
	_cleanup_buf_ struct buf out = BUF_MAX(4096);
	if (git_run(g, &out, e, "log", "-1", "--format=%ct", peel, NULL) < 0)
		return err_wrap(e, "failed to get commit time for %s", remote);
	struct timespec t = {.tv_sec = strtoll(buf_str(&out), NULL, 10)}, times[2] = {t, t};
	if (walk(root, 0, set_time, &t, e) < 0) return err_wrap(e, "failed to normalize mtimes for %s", remote);
	return futimens(root, times) < 0 ? err_sys(e, errno, "utimes of the checkout") : 0;
}

/* ---- checking out ---- */

static int checkout_error(struct git_job *j, struct err *e)
{
	_cleanup_free_ char *remote = shown(j);
	return err_wrap(e, "failed to checkout remote %s", remote);
}

/* What to pull into the checkout's own repository, "source:target". */
static int pull_ref(struct git_job *j, const struct git_cli *bare, char **ret, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_MAX(4096);
	const char *from = fetch_ref(j);
	if (git_run(bare, &out, e, "cat-file", "-t", from, NULL) < 0) return -1;
	_cleanup_free_ char *type = git_line(&out);
	if (str_eq(type, "tag")) {
		*ret = xasprintf("%s:%s%s", j->ref, str_starts(j->ref, "refs/tags/") ? "" : "refs/tags/", j->ref);
	} else if (strcmp(j->ref, from)) {
		*ret = xasprintf("%s:%s", from, j->ref);
	} else if (git_is_commit(j->ref)) {
		char id[ID_STR];
		id_new(id);
		*ret = xasprintf("refs/buildkit/%s", id);
		if (git_run(bare, NULL, e, "update-ref", *ret, j->ref, NULL) < 0) return -1;
	} else {
		*ret = xasprintf("%s:%s", j->ref, j->ref);
	}
	return 0;
}

/* A checkout with a repository of its own. */
static int checkout_clone(struct git_job *j, const struct git_cli *bare, const struct git_cli *own, struct err *e)
{
	_cleanup_free_ char *pull = NULL, *url = xasprintf("file://%s", bare->dir), *remote = shown(j);
	_cleanup_free_ char *head = xasprintf("%s/FETCH_HEAD", own->dir);
	if (git_init(own, false, e) < 0 || git_run(own, NULL, e, "remote", "add", "origin", url, NULL) < 0) return -1;
	if (pull_ref(j, bare, &pull, e) < 0) return -1;
	if (git_run(own, NULL, e, "fetch", "-u", "--depth=1", "--", "origin", pull, NULL) < 0) return -1;
	if (git_run(own, NULL, e, "checkout", "FETCH_HEAD", NULL) < 0) return checkout_error(j, e);
	if (git_run(own, NULL, e, "remote", "set-url", "origin", remote, NULL) < 0)
		return err_wrap(e, "failed to set remote origin to %s", remote);
	if (git_run(own, NULL, e, "reflog", "expire", "--all", "--expire=now", NULL) < 0)
		return err_wrap(e, "failed to expire reflog for remote %s", remote);
	if (unlink(head) < 0 && errno != ENOENT) return err_sys(e, errno, "failed to remove FETCH_HEAD for remote %s", remote);
	return 0;
}

static int submodules(struct git_job *j, const struct git_cli *g, struct err *e)
{
	_cleanup_free_ char *list = xasprintf("%s/.gitmodules", g->tree), *remote = shown(j);
	struct stat st;
	if (j->src->git.skip_submodules || lstat(list, &st) < 0) return 0;
	if (git_run(g, NULL, e, "submodule", "update", "--init", "--recursive", "--depth=1", NULL) < 0)
		return err_wrap(e, "failed to update submodules for %s", remote);
	return 0;
}

/* The folder `sub` below dir, no link on the way. */
static int open_subdir(int dir, const char *sub, struct err *e)
{
	_cleanup_free_ char *rest = xstrdup(sub);
	int at = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (at < 0) return err_sys(e, errno, "open the checkout");
	for (char *part = rest, *next; part && *part; part = next) {
		struct stat st;
		next = strchr(part, '/');
		if (next) *next = 0;
		int r = fstatat(at, part, &st, AT_SYMLINK_NOFOLLOW), saved = errno, sub_fd = -1;
		if (r == 0 && S_ISDIR(st.st_mode)) sub_fd = openat(at, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(at);
		at = sub_fd;
		if (next) *next++ = '/';
		if (at >= 0) continue;
		size_t n = next ? (size_t)(next - rest - 1) : strlen(rest);
		if (r < 0)
			err_sys(e, saved, "failed to lstat \"%.*s\"", (int)n, rest);
		else
			err_set(e, CODE_UNKNOWN, "git subpath \"%s\" contains non-directory \"%.*s\"", sub, (int)n, rest);
		return err_wrap(e, "invalid subdir %s", sub);
	}
	return at;
}

/* The entries of tree/sub become those of root. */
static int lift(int root, const char *tree_name, const char *sub, struct err *e)
{
	_cleanup_close_ int tree = openat(root, tree_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	_cleanup_close_ int from = tree < 0 ? err_sys(e, errno, "open the checkout") : open_subdir(tree, sub, e);
	if (from < 0) return -1;
	DIR *d = fdopendir(openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	int r = 0;
	if (!d) return err_sys(e, errno, "failed to open subdir %s", sub);
	for (struct dirent *de; r == 0 && (de = readdir(d));) {
		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, "..")) continue;
		if (renameat2(from, de->d_name, root, de->d_name, RENAME_NOREPLACE) < 0)
			r = err_sys(e, errno, "rename %s", de->d_name);
	}
	closedir(d);
	return r < 0 ? -1 : path_remove_all(root, tree_name, e);
}

static int checkout_tree(struct git_job *j, const struct git_cli *bare, int root, const char *root_path, struct err *e)
{
	const char *sub = j->src->git.subdir, *from = fetch_ref(j);
	bool whole = !*sub, clone = j->src->git.keep_git_dir && whole;
	char id[ID_STR];
	id_new(id);
	_cleanup_free_ char *tree_name = whole ? NULL : xasprintf(".checkout-%s", id);
	_cleanup_free_ char *tree = whole ? xstrdup(root_path) : xasprintf("%s/%s", root_path, tree_name),
			    *own_dir = xasprintf("%s/.git", root_path);
	if (!whole && mkdirat(root, tree_name, 0755) < 0) return err_sys(e, errno, "failed to create temporary checkout dir");
	struct git_cli g = {.j = j, .dir = clone ? own_dir : bare->dir, .tree = tree};
	if (clone && checkout_clone(j, bare, &g, e) < 0) return -1;
	if (!clone && git_run(&g, NULL, e, "checkout", "--no-overlay", from, "--", ".", NULL) < 0) return checkout_error(j, e);
	if (submodules(j, &g, e) < 0 || (!whole && lift(root, tree_name, sub, e) < 0)) return -1;
	if (j->compat == 10 && walk(root, 0, set_old_mode, NULL, e) < 0) return -1;
	struct git_cli plain = {.j = j, .dir = g.dir};
	return strcmp(j->src->git.mtime, "commit") ? 0 : set_times(j, &plain, from, root, e);
}

/* A single file: a bundle with one ref, made in a repository that has nothing else. */
static int checkout_bundle(struct git_job *j, const struct git_cli *bare, int root, struct err *e)
{
	_cleanup_free_ char *repo = NULL, *file = NULL, *url = xasprintf("file://%s", bare->dir), *target = NULL;
	const char *commit = *j->src->git.checksum ? j->src->git.checksum : j->ref, *ref = j->ref;
	if (!*ref || git_is_commit(ref)) {
		target = xstrdup("refs/heads/main");
	} else if (str_starts(ref, "refs/tags/")) {
		target = xstrdup(ref);
	} else {
		const char *name = str_starts(ref, "refs/") ? ref + 5 : ref;
		target = xasprintf("refs/heads/%s", str_starts(name, "heads/") ? name + 6 : name);
	}
	if (git_tmp(j, "out.git", &repo, e) < 0 || git_tmp(j, "out.bundle", &file, e) < 0) return -1;
	struct git_cli g = {.j = j, .dir = repo};
	if (git_init(&g, true, e) < 0) return err_wrap(e, "failed to init temp bare repo for bundle creation");
	if (git_run(&g, NULL, e, "fetch", url, "--", commit, NULL) < 0)
		return err_wrap(e, "failed to fetch commit %s from shared repo for bundle creation", commit);
	if (git_run(&g, NULL, e, "update-ref", target, commit, NULL) < 0)
		return err_wrap(e, "failed to create target ref for bundle %s", commit);
	if (git_run(&g, NULL, e, "bundle", "create", file, target, NULL) < 0)
		return err_wrap(e, "failed to create git bundle for %s", commit);
	if (renameat(AT_FDCWD, file, root, "bundle") < 0) return err_sys(e, errno, "failed to write bundle");
	return 0;
}

int git_checkout(struct git_job *j, const char *repo_dir, struct err *e)
{
	struct git_cli bare = {.j = j, .dir = repo_dir};
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int root = snap_view_open_root(j->checkout, true, e);
	if (root < 0 || dir_path(root, &path, e) < 0) return -1;
	if ((j->src->git.checkout_bundle ? checkout_bundle(j, &bare, root, e) : checkout_tree(j, &bare, root, path, e)) < 0)
		return -1;
	return snap_view_seal(j->checkout, e);
}

void git_job_fetch(struct git_job *j, bool objects)
{
	struct err *e = &j->error;
	_cleanup_free_ char *dir = NULL;
	j->repo_bytes = -1;
	_cleanup_close_ int fd = snap_view_open_root(j->repo, true, e);
	if (fd < 0 || dir_path(fd, &dir, e) < 0 || fetch_into(j, dir, e) < 0) return;
	j->repo_bytes = snap_view_usage(j->repo, j->cancelled, NULL);
	if ((objects || j->src->git.verify) && git_objects(j, dir, e) < 0) return;
	if (j->src->git.verify && git_verify(j, e) < 0) return;
	if (j->checkout) git_checkout(j, dir, e);
}
