/* Snapshots on real directories and mounts, in a mount namespace of its own. Each content test runs in both modes. */
#include "snap/store.h"
#include "db/db.h"
#include "loop/loop.h"
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>

struct fix {
	char dir[64];
	const char *mode;
	struct db *db;
	struct snap_store *s;
	struct err e;
};

static const char *no_overlay; /* why not, NULL: it can */

#define OK(x)                                                                                             \
	({                                                                                                \
		__typeof__(x) _r = (x);                                                                   \
		if (_r < 0) fail_msg("%s:%d: %s: %s", __FILE__, __LINE__, #x, f->e.msg ? f->e.msg : "?"); \
		_r;                                                                                       \
	})

static void reopen_as(struct fix *f, const char *boot)
{
	_cleanup_free_ char *p = path_join(f->dir, "db.sqlite");
	struct snap_opts o = {.dir = f->dir, .mode = f->mode, .boot_id = boot};

	snap_store_close(f->s);
	db_close(f->db);
	f->s = NULL;
	f->db = NULL;
	OK(db_open(NULL, p, &f->db, &f->e));
	OK(snap_store_open(NULL, f->db, &o, &f->s, &f->e));
}
static void reopen(struct fix *f) { reopen_as(f, "boot1"); }

static int setup_mode(void **st, const char *mode)
{
	struct fix *f = xnew(struct fix);

	f->mode = mode;
	snprintf(f->dir, sizeof f->dir, "/tmp/test-snap.XXXXXX");
	if (!mkdtemp(f->dir)) return -1;
	reopen(f);
	*st = f;
	return 0;
}
static int setup_overlay(void **st) { return no_overlay ? (*st = NULL, 0) : setup_mode(st, "overlayfs"); }
static int setup_native(void **st) { return setup_mode(st, "native"); }

static int teardown(void **st)
{
	struct fix *f = *st;
	int r;

	if (!f) return 0;
	snap_store_close(f->s);
	db_close(f->db);
	r = path_remove_all(AT_FDCWD, f->dir, &f->e);
	err_fini(&f->e);
	free(f);
	return r;
}
#define FIX(st)                                                        \
	struct fix *f = *(st);                                         \
	if (!f) {                                                      \
		print_message("skipped: overlayfs: %s\n", no_overlay); \
		skip();                                                \
	}

/* ---- small hands ---- */

static void put(int root, const char *path, const char *text)
{
	struct err e = ERR_INIT;
	_cleanup_close_ int fd = path_open_in(root, path, O_WRONLY | O_CREAT | O_TRUNC, 0644, &e);

	if (fd < 0) fail_msg("%s: %s", path, e.msg);
	assert_int_equal(path_write_all(fd, text, strlen(text), &e), 0);
}

/* The file's text, "-" when it is not there. */
static char *get(int root, const char *path)
{
	static char text[256];
	_cleanup_close_ int fd = openat(root, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

	if (n < 0) return strcpy(text, "-");
	text[n] = 0;
	return text;
}

static int root_of(struct fix *f, struct snap *s, bool writable)
{
	struct snap_view *v = s ? snap_view_new(s) : snap_view_empty(f->s);
	int fd = OK(snap_view_open_root(v, writable, &f->e));

	snap_view_free(v);
	return fd;
}

static void expect(struct fix *f, struct snap *s, const char *path, const char *text)
{
	_cleanup_close_ int root = root_of(f, s, false);

	assert_string_equal(get(root, path), text);
}

static void commit(struct fix *f, struct snap *s)
{
	struct snap_view *v = snap_view_new(s);

	OK(snap_view_seal(v, &f->e));
	snap_view_free(v);
	OK(snap_commit(s, &f->e));
}

static struct snap *layer(struct fix *f, struct snap *parent, void (*write)(int root))
{
	struct snap *s = snap_create(f->s, parent, "test", SNAP_REGULAR);
	int root = root_of(f, s, true);

	write(root);
	close(root);
	commit(f, s);
	return s;
}

static char *own(const struct fix *f, const struct snap *s, const char *sub)
{
	return xasprintf("%s/snapshots/%jd/%s", f->dir, (intmax_t)s->id, sub);
}

static void w_base(int r)
{
	assert_int_equal(mkdirat(r, "d", 0755), 0);
	assert_int_equal(mkdirat(r, "d/sub", 0750), 0);
	put(r, "a", "base-a");
	put(r, "b", "base-b");
	put(r, "d/x", "base-x");
	put(r, "d/sub/y", "base-y");
	assert_int_equal(fchmodat(r, ".", 0711, 0), 0);
}
static void w_change(int r)
{
	put(r, "a", "two");
	put(r, "n", "new");
	assert_int_equal(unlinkat(r, "b", 0), 0);
	assert_int_equal(unlinkat(r, "d/sub/y", 0), 0);
}
static void w_opaque(int r)
{
	assert_int_equal(unlinkat(r, "d/x", 0), 0);
	assert_int_equal(unlinkat(r, "d/sub", AT_REMOVEDIR), 0);
	assert_int_equal(unlinkat(r, "d", AT_REMOVEDIR), 0);
	assert_int_equal(mkdirat(r, "d", 0700), 0);
	put(r, "d/only", "opaque");
}
static void w_other(int r)
{
	assert_int_equal(mkdirat(r, "d", 0755), 0);
	assert_int_equal(mkdirat(r, "d/sub", 0750), 0);
	put(r, "d/sub/y", "other");
	put(r, "d/sub/kept", "other");
}
static void w_p(int r) { put(r, "p", "p"); }
static void w_q(int r)
{
	put(r, "q", "q");
	put(r, "a", "q-a");
}

/* ---- tests ---- */

static void test_chain(void **st)
{
	FIX(st);
	struct snap *s1 = layer(f, NULL, w_base), *s2 = layer(f, s1, w_change), *s3 = layer(f, s2, w_opaque);

	expect(f, s1, "a", "base-a");
	expect(f, s1, "d/sub/y", "base-y");
	expect(f, s2, "a", "two");
	expect(f, s2, "b", "-");
	expect(f, s2, "n", "new");
	expect(f, s2, "d/x", "base-x");
	expect(f, s2, "d/sub/y", "-");
	expect(f, s3, "d/x", "-");
	expect(f, s3, "d/only", "opaque");
	expect(f, s3, "n", "new");
	assert_int_equal(s3->chain.n, 3);
	/* The root's own mode comes through, and the layers have overlay's form in both modes. */
	_cleanup_close_ int root = root_of(f, s3, false);
	struct stat sb;
	assert_int_equal(fstat(root, &sb), 0);
	assert_int_equal(sb.st_mode & 07777, 0711);
	_cleanup_free_ char *wh = own(f, s2, "fs/b"), *same = own(f, s2, "fs/d/x");
	assert_int_equal(lstat(wh, &sb), 0);
	assert_true(S_ISCHR(sb.st_mode) && sb.st_rdev == makedev(0, 0));
	assert_int_equal(lstat(same, &sb), -1);
	/* Committed: not writable through the API. */
	struct snap_view *v = snap_view_new(s2);
	assert_int_equal(snap_view_open_root(v, true, &f->e), -1);
	assert_int_equal(f->e.code, CODE_FAILED_PRECONDITION);
	assert_true(snap_view_usage(v, NULL, &f->e) > 0);
	snap_view_free(v);
	snap_unref(s1);
	snap_unref(s2);
	snap_unref(s3);
}

static void test_empty(void **st)
{
	FIX(st);
	_cleanup_close_ int root = root_of(f, NULL, false);
	_cleanup_strvec_ struct strvec names = {0};

	OK(snap_dir_names(root, &names, &f->e));
	assert_int_equal(names.n, 0);
	assert_null(snap_merge(f->s, NULL, 0, NULL, &f->e));
	/* A layer in which nothing was written is a layer all the same. */
	struct snap *s1 = layer(f, NULL, w_base), *s2 = snap_create(f->s, s1, "", NULL);
	commit(f, s2);
	expect(f, s2, "a", "base-a");
	int64_t id = s2->id;
	snap_unref(s1);
	snap_unref(s2);
	reopen(f);
	assert_non_null(snap_find(f->s, id));
}

/* As a container writes it: a directory made anew, a file moved away and back, a copied-up directory with nothing in it. */
static void w_shuffle(int r)
{
	assert_int_equal(renameat(r, "d/x", r, "d/z"), 0);
	assert_int_equal(renameat(r, "d/z", r, "d/x"), 0);
	assert_int_equal(unlinkat(r, "d/sub/y", 0), 0);
	assert_int_equal(unlinkat(r, "d/sub", AT_REMOVEDIR), 0);
	assert_int_equal(mkdirat(r, "d/sub", 0750), 0);
	put(r, "d/sub/n", "new");
	assert_int_equal(renameat(r, "a", r, "aa"), 0);
	assert_int_equal(renameat(r, "aa", r, "a"), 0);
}

static void test_tidy(void **st)
{
	FIX(st);
	struct snap *base = layer(f, NULL, w_base), *s = snap_create(f->s, base, "", SNAP_REGULAR);
	struct stat sb;
	int root = root_of(f, s, true);
	w_shuffle(root);
	close(root);
	struct snap_view *v = snap_view_new(s);
	_cleanup_close_ int lower = root_of(f, base, false);
	OK(snap_view_tidy(v, lower, &f->e));
	snap_view_free(v);
	commit(f, s);
	expect(f, s, "a", "base-a");
	expect(f, s, "d/x", "base-x");
	expect(f, s, "d/sub/y", "-");
	expect(f, s, "d/sub/n", "new");
	_cleanup_free_ char *a = own(f, s, "fs/a"), *x = own(f, s, "fs/d/x"), *y = own(f, s, "fs/d/sub/y"), *sub = own(f, s, "fs/d/sub");
	assert_int_equal(lstat(a, &sb), -1);
	assert_int_equal(lstat(x, &sb), -1);
	assert_int_equal(lstat(y, &sb), 0);
	assert_true(S_ISCHR(sb.st_mode) && sb.st_rdev == makedev(0, 0));
	char value[4];
	assert_int_equal(lgetxattr(sub, "trusted.overlay.opaque", value, sizeof value), -1);
	/* Upon another tree: what the step did not know stays. */
	struct snap *other = layer(f, NULL, w_other), *range, *in[2] = {other};
	assert_int_equal(snap_diff(f->s, base, s, "", &range, &f->e), 1);
	in[1] = range;
	struct snap *m = snap_merge(f->s, in, 2, "", &f->e);
	expect(f, m, "d/sub/kept", "other");
	expect(f, m, "d/sub/y", "-");
	struct snap *all[] = {m, range, other, s, base};
	for (size_t i = 0; i < array_len(all); i++) snap_unref(all[i]);
}

static void test_merge(void **st)
{
	FIX(st);
	struct snap *base = layer(f, NULL, w_base), *p = layer(f, base, w_p), *q = layer(f, base, w_q);
	struct snap *chg = layer(f, base, w_change), *in[] = {p, NULL, q};
	struct snap *m = snap_merge(f->s, in, 3, "merge", &f->e);

	assert_non_null(m);
	assert_int_equal(m->chain.n, 4);
	expect(f, m, "p", "p");
	expect(f, m, "q", "q");
	expect(f, m, "a", "q-a");
	expect(f, m, "b", "base-b");
	assert_ptr_equal(snap_merge(f->s, in, 3, "again", &f->e), m);
	snap_unref(m);
	/* The base that comes again covers what the first chain deleted. */
	struct snap *in2[] = {chg, p}, *m2 = snap_merge(f->s, in2, 2, NULL, &f->e);
	expect(f, m2, "b", "base-b");
	expect(f, m2, "n", "new");
	expect(f, m2, "a", "base-a");
	/* One on top of a merge. */
	struct snap *top = layer(f, m, w_change);
	expect(f, top, "q", "q");
	expect(f, top, "b", "-");
	int64_t id = top->id, mid = m->id;
	struct snap *all[] = {base, p, q, chg, m, m2, top};
	for (size_t i = 0; i < array_len(all); i++) snap_unref(all[i]);
	reopen(f);
	expect(f, snap_find(f->s, id), "q", "q");
	assert_int_equal(snap_find(f->s, mid)->kind, SNAP_MERGE);
}

static void test_diff_range(void **st)
{
	FIX(st);
	struct snap *base = layer(f, NULL, w_base), *chg = layer(f, base, w_change), *top = layer(f, chg, w_p),
		    *other = layer(f, NULL, w_q);
	struct snap *d = NULL, *same = NULL;

	assert_int_equal(OK(snap_diff(f->s, base, top, "diff", &d, &f->e)), 1);
	assert_int_equal(d->kind, SNAP_RANGE);
	assert_int_equal(d->chain.n, 2);
	expect(f, d, "p", "p");
	expect(f, d, "n", "new");
	expect(f, d, "b", "-");
	expect(f, d, "d/x", "-");
	assert_int_equal(OK(snap_diff(f->s, base, base, NULL, &same, &f->e)), 1);
	assert_null(same);
	assert_int_equal(OK(snap_diff(f->s, NULL, base, NULL, &same, &f->e)), 1);
	assert_ptr_equal(same, base);
	snap_unref(same);
	/* A range keeps its deletions when it is merged upon another tree. */
	struct snap *in[] = {base, other, d}, *m = snap_merge(f->s, in, 3, NULL, &f->e);
	expect(f, m, "b", "-");
	expect(f, m, "q", "q");
	expect(f, m, "a", "two");
	expect(f, m, "d/x", "base-x");
	int64_t id = d->id;
	struct snap *all[] = {base, chg, top, other, d, m};
	for (size_t i = 0; i < array_len(all); i++) snap_unref(all[i]);
	reopen(f);
	d = snap_find(f->s, id);
	assert_int_equal(d->chain.n, 2);
	expect(f, d, "n", "new");
}

static void w_links(int r)
{
	w_base(r);
	put(r, "l1", "linked");
	assert_int_equal(linkat(r, "l1", r, "d/l2", 0), 0);
	assert_int_equal(symlinkat("../a", r, "d/sym"), 0);
	assert_int_equal(mkfifoat(r, "fifo", 0600), 0);
	assert_int_equal(fchownat(r, "l1", 5, 6, 0), 0);
	assert_int_equal(fchmodat(r, "l1", 04755, 0), 0);
	_cleanup_close_ int fd = openat(r, "l1", O_RDONLY);
	assert_int_equal(fsetxattr(fd, "user.k", "v", 1, 0), 0);
}

static void test_diff_computed(void **st)
{
	FIX(st);
	/* Two trees that share no layer: y is the same in both but for its inode; a has the same size and time but other bytes.
	 */
	struct snap *lo = layer(f, NULL, w_base), *up = snap_create(f->s, NULL, NULL, NULL), *d = NULL;
	int lr = root_of(f, lo, false), ur = root_of(f, up, true);
	struct stat sb, sa;

	w_links(ur);
	assert_int_equal(unlinkat(ur, "b", 0), 0);
	put(ur, "a", "BASE-A");
	struct timespec t[2];
	static const char *const same_time[] = {"a", "d/sub/y", "d/x"};
	for (size_t i = 0; i < array_len(same_time); i++) {
		assert_int_equal(fstatat(lr, same_time[i], &sb, 0), 0);
		t[0] = sb.st_atim, t[1] = sb.st_mtim;
		assert_int_equal(utimensat(ur, same_time[i], t, 0), 0);
	}
	close(ur);
	close(lr);
	commit(f, up);
	assert_int_equal(OK(snap_diff(f->s, lo, up, "computed", &d, &f->e)), 0);
	struct snap_view *vl = snap_view_new(lo), *vu = snap_view_new(up), *vd = snap_view_new(d);
	OK(snap_diff_compute(vl, vu, vd, NULL, &f->e));
	snap_view_free(vd);
	OK(snap_commit(d, &f->e));
	vd = snap_view_new(d);
	_cleanup_close_ int fs = OK(snap_view_open_layer(vd, &f->e));
	assert_string_equal(get(fs, "a"), "BASE-A");
	assert_string_equal(get(fs, "l1"), "linked");
	assert_string_equal(get(fs, "d/x"), "-"); /* unchanged: not in the layer */
	assert_int_equal(fstatat(fs, "d/sub", &sb, 0), -1);
	assert_int_equal(fstatat(fs, "b", &sb, AT_SYMLINK_NOFOLLOW), 0);
	assert_true(S_ISCHR(sb.st_mode) && sb.st_rdev == 0);
	assert_int_equal(fstatat(fs, "l1", &sb, 0), 0);
	assert_int_equal(fstatat(fs, "d/l2", &sa, 0), 0);
	assert_int_equal(sa.st_ino, sb.st_ino);
	assert_int_equal(sb.st_uid, 5);
	assert_int_equal(sb.st_gid, 6);
	assert_int_equal(sb.st_mode & 07777, 04755);
	assert_int_equal(fstatat(fs, "fifo", &sb, 0), 0);
	assert_true(S_ISFIFO(sb.st_mode));
	_cleanup_close_ int fa = openat(fs, "d/l2", O_RDONLY | O_CLOEXEC);
	char v[4];
	assert_int_equal(fgetxattr(fa, "user.k", v, sizeof v), 1);
	/* Upon lower it gives upper. */
	struct snap *in[] = {lo, d}, *m = snap_merge(f->s, in, 2, NULL, &f->e);
	expect(f, m, "a", "BASE-A");
	expect(f, m, "b", "-");
	expect(f, m, "d/sub/y", "base-y");
	assert_ptr_equal(snap_layer_lower(d), lo);
	snap_view_free(vl);
	snap_view_free(vu);
	snap_view_free(vd);
	int64_t id = d->id, lid = lo->id;
	struct snap *all[] = {lo, up, d, m};
	for (size_t i = 0; i < array_len(all); i++) snap_unref(all[i]);
	reopen(f);
	d = snap_find(f->s, id);
	assert_int_equal(d->parents.n, 2);
	assert_int_equal(snap_layer_lower(d)->id, lid);
	/* From something to scratch: deletions only. */
	struct snap *gone = NULL;
	lo = snap_ref(snap_find(f->s, lid));
	assert_int_equal(OK(snap_diff(f->s, lo, NULL, NULL, &gone, &f->e)), 0);
	vl = snap_view_new(lo), vu = snap_view_empty(f->s), vd = snap_view_new(gone);
	OK(snap_diff_compute(vl, vu, vd, NULL, &f->e));
	snap_view_free(vl), snap_view_free(vu), snap_view_free(vd);
	OK(snap_commit(gone, &f->e));
	struct snap *in2[] = {lo, gone};
	m = snap_merge(f->s, in2, 2, NULL, &f->e);
	_cleanup_close_ int empty = root_of(f, m, false);
	_cleanup_strvec_ struct strvec names = {0};
	OK(snap_dir_names(empty, &names, &f->e));
	assert_int_equal(names.n, 0);
	snap_unref(m), snap_unref(gone), snap_unref(lo);
}

/* Holding, children, removal. */
static int removed;
static void on_remove(void *arg, struct snap *sn) { removed++; }

static void test_refs(void **st)
{
	FIX(st);
	struct snap *s1 = layer(f, NULL, w_base), *s2 = layer(f, s1, w_change);
	_cleanup_free_ char *d2 = own(f, s2, ""), *d1 = own(f, s1, "");
	int64_t n;

	removed = 0;
	snap_store_on_remove(f->s, on_remove, NULL);
	snap_unref(s1);
	assert_true(snap_in_use(s1)); /* by its child */
	assert_int_equal(snap_remove(s1, &f->e), -1);
	snap_unref(s2);
	assert_false(snap_in_use(s1));
	assert_false(snap_removable(s1));
	assert_int_equal(snap_remove(s1, &f->e), -1);
	OK(db_exec(f->db, &f->e, "INSERT INTO key(id) VALUES(1)"));
	OK(db_exec(f->db, &f->e, "INSERT INTO result(key_id, snapshot_id, created_at) VALUES(1, ?, 0)", DB_INT(s2->id)));
	OK(snap_remove(s2, &f->e));
	assert_int_equal(access(d2, F_OK), -1);
	assert_int_equal(OK(db_get_int(f->db, &f->e, "SELECT count(*) FROM result", &n)), 1);
	assert_int_equal(n, 0);
	OK(snap_remove(s1, &f->e));
	assert_int_equal(access(d1, F_OK), -1);
	assert_int_equal(removed, 2);
	/* An active one goes with its last reference. */
	struct snap *a = snap_create(f->s, NULL, NULL, NULL);
	int64_t id = a->id;
	close(root_of(f, a, true));
	_cleanup_free_ char *da = own(f, a, "");
	assert_int_equal(access(da, F_OK), 0);
	snap_unref(a);
	assert_null(snap_find(f->s, id));
	assert_int_equal(access(da, F_OK), -1);
}

/* What a kill leaves: an active one, a directory without a row, a row without a directory (and its child), half made things. */
static void test_recovery(void **st)
{
	FIX(st);
	struct snap *s1 = layer(f, NULL, w_base), *s2 = layer(f, s1, w_change), *s3 = layer(f, s2, w_p);
	int64_t id1 = s1->id, id2 = s2->id, id3 = s3->id;
	_cleanup_free_ char *d2 = own(f, s2, ""), *stray = xasprintf("%s/snapshots/777/fs", f->dir),
			    *half = xasprintf("%s/snapshots/new/own-x", f->dir);

	OK(db_flush(f->db, &f->e));
	pid_t pid = fork();
	if (pid == 0) {
		/* The child has the store as it was at the kill; the parent's copy is closed below without having written more.
		 */
		struct snap *a = snap_create(f->s, s3, NULL, NULL);
		put(root_of(f, a, true), "half", "half");
		kill(getpid(), SIGKILL);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	OK(path_mkdirs(stray, 0755, &f->e));
	OK(path_mkdirs(half, 0755, &f->e));
	snap_unref(s1), snap_unref(s2), snap_unref(s3);
	_cleanup_free_ char *left = xasprintf("%s/snapshots/%jd", f->dir, (intmax_t)id3 + 1);
	assert_int_equal(access(left, F_OK), 0);
	reopen(f);
	for (int64_t id = id1; id <= id3; id++) assert_non_null(snap_find(f->s, id));
	assert_ptr_equal(snap_after(f->s, id3), NULL);
	expect(f, snap_find(f->s, id3), "p", "p");
	assert_int_equal(access(left, F_OK), -1);
	assert_int_equal(access(stray, F_OK), -1);
	assert_int_equal(access(half, F_OK), -1);
	OK(path_remove_all(AT_FDCWD, d2, &f->e));
	reopen(f);
	assert_non_null(snap_find(f->s, id1));
	assert_null(snap_find(f->s, id2));
	assert_null(snap_find(f->s, id3));
	/* Ids are not used again while a stray directory had a greater one. */
	struct snap *n = snap_create(f->s, NULL, NULL, NULL);
	assert_true(n->id > id1);
	snap_unref(n);
}

/* After an unclean reboot only what a syncfs covered is left. */
static void test_reboot(void **st)
{
	FIX(st);
	struct snap *s1 = layer(f, NULL, w_base);
	int64_t id1 = s1->id;

	snap_unref(s1);
	reopen(f); /* a clean stop marks it */
	struct snap *s2 = layer(f, snap_find(f->s, id1), w_change), *s3 = layer(f, s2, w_p);
	int64_t id2 = s2->id, id3 = s3->id;
	snap_unref(s2), snap_unref(s3);
	/* s3's own row is durable, its parent's is not: both go. */
	OK(db_exec(f->db, &f->e, "UPDATE snapshot SET boot = NULL WHERE id = ?", DB_INT(id3)));
	OK(db_flush(f->db, &f->e));
	pid_t pid = fork();
	if (pid == 0) {
		f->s = NULL; /* killed: nothing is marked */
		f->db = NULL;
		reopen_as(f, "boot2");
		_exit(snap_find(f->s, id1) && !snap_find(f->s, id2) && !snap_find(f->s, id3) ? 0 : 1);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_mutable(void **st)
{
	FIX(st);
	struct snap *m = snap_create(f->s, NULL, "local source", SNAP_SOURCE_LOCAL), *copy = NULL;

	OK(snap_set_key(m, "local:ctx", &f->e));
	int r = root_of(f, m, true);
	put(r, "f", "one");
	close(r);
	int64_t id = m->id;
	snap_unref(m);
	assert_ptr_equal(snap_find_key(f->s, "local:ctx"), m);
	reopen(f);
	m = snap_find_key(f->s, "local:ctx");
	assert_non_null(m);
	assert_int_equal(m->id, id);
	assert_true(m->is_mutable);
	assert_string_equal(m->type, SNAP_SOURCE_LOCAL);
	snap_ref(m);
	assert_true(snap_lock(m, false));
	assert_true(snap_lock(m, false));
	assert_false(snap_lock(m, true));
	snap_unlock(m), snap_unlock(m);
	assert_true(snap_lock(m, true));
	assert_false(snap_lock(m, false));
	snap_unlock(m);
	expect(f, m, "f", "one");
	/* Frozen it is a parent; in use it thaws into a copy that shares no inode. */
	struct snap_view *v = snap_view_new(m);
	OK(snap_view_seal(v, &f->e));
	snap_view_free(v);
	OK(snap_freeze(m, &f->e));
	struct snap *child = layer(f, m, w_p);
	assert_int_equal(OK(snap_thaw(m, &copy, &f->e)), 0);
	struct snap_view *from = snap_view_new(m), *to = snap_view_new(copy);
	OK(snap_copy_tree(from, to, NULL, &f->e));
	snap_view_free(from), snap_view_free(to);
	r = root_of(f, copy, true);
	put(r, "f", "two");
	close(r);
	expect(f, copy, "f", "two");
	expect(f, child, "f", "one");
	assert_ptr_equal(snap_find_key(f->s, "local:ctx"), copy);
	assert_int_equal(snap_set_key(m, "local:ctx", &f->e), -1);
	/* Alone it thaws in place, and results that named it are gone. */
	v = snap_view_new(copy);
	OK(snap_view_seal(v, &f->e));
	snap_view_free(v);
	OK(snap_freeze(copy, &f->e));
	OK(db_exec(f->db, &f->e, "INSERT INTO key(id) VALUES(1)"));
	OK(db_exec(f->db, &f->e, "INSERT INTO result(key_id, snapshot_id, created_at) VALUES(1, ?, 0)", DB_INT(copy->id)));
	assert_int_equal(OK(snap_thaw(copy, NULL, &f->e)), 1);
	int64_t n = -1;
	OK(db_get_int(f->db, &f->e, "SELECT count(*) FROM result", &n));
	assert_int_equal(n, 0);
	snap_unref(child), snap_unref(m), snap_unref(copy);
}

/* The doubt about long-lived sources lasts as long as the daemon; cache mounts are marked like layers. */
static void test_mutable_reboot(void **st)
{
	FIX(st);
	struct snap *src = snap_create(f->s, NULL, NULL, SNAP_SOURCE_LOCAL),
		    *cache = snap_create(f->s, NULL, NULL, SNAP_CACHEMOUNT);
	int64_t n;

	OK(snap_set_key(src, "src", &f->e));
	OK(snap_set_key(cache, "cache", &f->e));
	close(root_of(f, src, true));
	close(root_of(f, cache, true));
	snap_unref(src), snap_unref(cache);
	reopen(f);
	src = snap_find_key(f->s, "src"), cache = snap_find_key(f->s, "cache");
	assert_false(src->durable);
	assert_true(cache->durable);
	OK(db_get_int(f->db, &f->e, "SELECT count(*) FROM snapshot WHERE boot IS NOT NULL", &n));
	assert_int_equal(n, 1);
	snap_ref(cache);
	assert_false(cache->durable);
	snap_unref(cache);
	snap_row_set_boot(cache, true); /* as the idle syncfs does */
	OK(db_flush(f->db, &f->e));
	pid_t pid = fork();
	if (pid == 0) {
		f->s = NULL;
		f->db = NULL;
		reopen_as(f, "boot2");
		_exit(!snap_find_key(f->s, "src") && snap_find_key(f->s, "cache") ? 0 : 1);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#define SHA(c)                                                                                                                \
	"sha256:" c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c \
		c c c c c c c c c c

/* An opaque directory and a whiteout, as an unpacked layer has them. */
static void fill_forms(int dir, bool upper)
{
	assert_int_equal(mkdirat(dir, "od", 0755), 0);
	if (!upper) {
		put(dir, "od/x", "x");
		put(dir, "gone", "here");
		return;
	}
	_cleanup_close_ int od = openat(dir, "od", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(fsetxattr(od, "trusted.overlay.opaque", "y", 1, 0), 0);
	put(dir, "od/y", "y");
	assert_int_equal(mknodat(dir, "gone", S_IFCHR, makedev(0, 0)), 0);
}

static void test_lazy_blobs(void **st)
{
	FIX(st);
	struct snap *l1 = snap_create_lazy(f->s, NULL, SHA("a"), "pulled", NULL, &f->e), *l2, *lazy[4];
	struct snap_blob b = {.compression = (char *)"gzip",
			      .digest = (char *)SHA("1"),
			      .media_type = (char *)"m",
			      .size = 12,
			      .source = (char *)"docker.io/library/x"};

	assert_non_null(l1);
	strvec_add(&b.annotations, "k=v w");
	strvec_add(&b.annotations, "k2=");
	OK(snap_blob_add(l1, &b, &f->e));
	l2 = snap_create_lazy(f->s, l1, SHA("b"), NULL, NULL, &f->e);
	assert_int_equal(snap_lazy_layers(l2, lazy, 4), 2);
	assert_ptr_equal(lazy[0], l1);
	struct snap_view *v = snap_view_new(l2);
	assert_int_equal(snap_view_open_root(v, false, &f->e), -1);
	snap_view_free(v);
	/* sha256("sha256:aa.. sha256:bb..") */
	_cleanup_free_ char *chain = xstrdup(snap_chain_id(l2));
	char want[DIGEST_STR];
	const char *both = SHA("a") " " SHA("b");
	digest_str_of(both, strlen(both), want);
	assert_string_equal(chain, want);
	snap_unref(l1), snap_unref(l2);
	reopen(f);
	l2 = snap_ref(snap_find_chain(f->s, chain));
	l1 = snap_ref(snap_find_chain(f->s, SHA("a")));
	assert_int_equal(l1->state, SNAP_LAZY);
	struct snap *again = snap_create_lazy(f->s, l1, SHA("b"), NULL, NULL, &f->e);
	assert_ptr_equal(again, l2);
	snap_unref(again);
	const struct snap_blob *got = snap_blob_find(l1, NULL);
	assert_string_equal(got->source, "docker.io/library/x");
	assert_int_equal(got->annotations.n, 2);
	assert_string_equal(got->annotations.v[0], "k=v w");
	assert_null(snap_blob_find(l1, "zstd"));
	assert_true(snap_store_has_blob(f->s, SHA("1")));
	/* Fill both; an aborted attempt leaves nothing, a second finisher does no harm. */
	struct snap *ls[] = {l1, l2};
	for (size_t i = 0; i < 2; i++) {
		struct snap_fill a, x;
		v = snap_view_new(ls[i]);
		OK(snap_fill_begin(v, &a, &f->e));
		OK(snap_fill_begin(v, &x, &f->e));
		put(a.dirfd, i ? "two" : "one", "filled");
		fill_forms(a.dirfd, i == 1);
		OK(snap_fill_commit(&a, &f->e));
		OK(snap_fill_commit(&x, &f->e));
		snap_view_free(v);
		OK(snap_filled(ls[i], &f->e));
	}
	expect(f, l2, "one", "filled");
	expect(f, l2, "two", "filled");
	expect(f, l2, "od/x", "-");
	expect(f, l2, "od/y", "y");
	expect(f, l2, "gone", "-");
	expect(f, l1, "od/x", "x");
	assert_int_equal(snap_lazy_layers(l2, lazy, 4), 0);
	/* Another diff ID is refused, a bad blob too. */
	assert_int_equal(snap_set_diff_id(l1, SHA("c"), &f->e), -1);
	b.digest = (char *)"sha256:1";
	assert_int_equal(snap_blob_add(l1, &b, &f->e), -1);
	OK(snap_blob_drop(l1, SHA("1"), &f->e));
	assert_false(snap_store_has_blob(f->s, SHA("1")));
	strvec_fini(&b.annotations);
	snap_unref(l1), snap_unref(l2);
	reopen(f);
	expect(f, snap_find_chain(f->s, chain), "one", "filled");
}

static bool is_mounted(const char *path)
{
	struct stat a, b;
	_cleanup_free_ char *up = path_join(path, "..");

	if (stat(path, &a) < 0 || stat(up, &b) < 0) return false;
	_cleanup_free_ uint8_t *p = NULL;
	size_t n;
	assert_int_equal(path_read_file(AT_FDCWD, "/proc/self/mountinfo", 1 << 20, &p, &n, NULL), 0);
	return strstr((char *)p, path) != NULL;
}

static void test_mount(void **st)
{
	FIX(st);
	struct snap *s1 = layer(f, NULL, w_base), *s2 = layer(f, s1, w_change), *a = snap_create(f->s, s2, NULL, NULL);
	_cleanup_free_ char *t1 = path_join(f->dir, "t1"), *t2 = path_join(f->dir, "t2");
	struct snap_view *v = snap_view_new(a), *v2 = snap_view_new(a), *vr = snap_view_new(s2);

	OK(path_mkdirs(t1, 0755, &f->e));
	OK(path_mkdirs(t2, 0755, &f->e));
	/* Two attached mounts and a root of one active snapshot show one tree. */
	OK(snap_view_mount(v, t1, false, &f->e));
	OK(snap_view_mount(v2, t2, true, &f->e));
	assert_true(is_mounted(t1));
	int r1 = open(t1, O_RDONLY | O_DIRECTORY), r2 = open(t2, O_RDONLY | O_DIRECTORY),
	    r3 = OK(snap_view_open_root(v, true, &f->e));
	put(r1, "m", "mounted");
	assert_string_equal(get(r2, "m"), "mounted");
	put(r3, "m2", "root");
	assert_string_equal(get(r1, "m2"), "root");
	assert_int_equal(openat(r2, "x", O_CREAT | O_WRONLY, 0644), -1);
	assert_int_equal(errno, EROFS);
	close(r1), close(r2), close(r3);
	OK(snap_view_umount(t1, &f->e));
	OK(snap_view_umount(t2, &f->e));
	OK(snap_view_umount(t2, &f->e));
	assert_false(is_mounted(t1));
	/* A committed one is read-only whatever is asked. */
	OK(snap_view_mount(vr, t1, false, &f->e));
	r1 = open(t1, O_RDONLY | O_DIRECTORY);
	assert_string_equal(get(r1, "a"), "two");
	assert_int_equal(openat(r1, "x", O_CREAT | O_WRONLY, 0644), -1);
	assert_int_equal(errno, EROFS);
	close(r1);
	OK(snap_view_umount(t1, &f->e));
	/* Written again after its mount went (the volatile mark), then committed. */
	snap_view_free(v2);
	snap_view_free(v);
	snap_unref(s1), snap_unref(s2);
	snap_view_free(vr);
	v = snap_view_new(a);
	snap_mnt_close(v->mnt ? v->mnt : (v->mnt = snap_mnt_new()));
	r1 = OK(snap_view_open_root(v, true, &f->e));
	assert_string_equal(get(r1, "m"), "mounted");
	close(r1);
	snap_view_free(v);
	commit(f, a);
	expect(f, a, "m2", "root");
	snap_unref(a);
}

/* The way for kernels without lowerdir+ gives the same tree. */
static void test_old_mount(void **st)
{
	FIX(st);
	struct snap *s1 = layer(f, NULL, w_base), *s2 = layer(f, s1, w_change);
	struct snap_view *v = snap_view_new(s2);
	int fd;

	v->caps.lower_add = false;
	fd = OK(snap_view_open_root(v, false, &f->e));
	assert_string_equal(get(fd, "a"), "two");
	assert_string_equal(get(fd, "b"), "-");
	close(fd);
	snap_view_free(v);
	struct snap *a = snap_create(f->s, s2, NULL, NULL);
	v = snap_view_new(a);
	v->caps.lower_add = false;
	fd = OK(snap_view_open_root(v, true, &f->e));
	put(fd, "w", "written");
	close(fd);
	snap_view_free(v);
	commit(f, a);
	expect(f, a, "w", "written");
	snap_unref(a), snap_unref(s1), snap_unref(s2);
}

/* On a loop: rows become durable after the idle time, and deletion is done behind. */
struct turn {
	struct loop *l;
	struct loop_timer t;
};
static void turn_end(void *arg)
{
	struct turn *t = arg;

	loop_timer_stop(&t->t);
	loop_stop(t->l);
}
static void turn(struct loop *l, uint64_t ms)
{
	struct turn t = {.l = l};

	loop_timer_start(l, &t.t, ms, 0, turn_end, &t);
	loop_run(l);
}

static void test_loop(void **st)
{
	FIX(st);
	struct loop *l = loop_new();
	struct snap_opts o = {.dir = f->dir, .mode = f->mode, .durable_ms = 20};
	_cleanup_free_ char *p = path_join(f->dir, "db.sqlite");

	snap_store_close(f->s);
	db_close(f->db);
	OK(db_open(l, p, &f->db, &f->e));
	OK(snap_store_open(l, f->db, &o, &f->s, &f->e));
	struct snap *s = layer(f, NULL, w_base);
	assert_false(s->durable);
	for (int i = 0; i < 100 && !s->durable; i++) turn(l, 50);
	assert_true(s->durable);
	_cleanup_free_ char *d = own(f, s, "");
	snap_unref(s);
	OK(snap_remove(s, &f->e));
	for (int i = 0; i < 100 && (!snap_store_idle(f->s) || !db_idle(f->db)); i++) turn(l, 20);
	assert_int_equal(access(d, F_OK), -1);
	snap_store_close(f->s);
	db_close(f->db);
	loop_free(l);
	f->s = NULL;
	f->db = NULL;
	reopen(f);
}

#define BOTH(t) \
	{#t " (overlay)", t, setup_overlay, teardown, NULL}, { #t " (native)", t, setup_native, teardown, NULL }
#define OVERLAY(t)                                                \
	{                                                         \
#t " (overlay)", t, setup_overlay, teardown, NULL \
	}

int main(void)
{
	static struct err why;
	char dir[] = "/tmp/test-snap-probe.XXXXXX";
	struct snap_caps caps;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		print_message("skipped: a mount namespace is needed: %s\n", strerror(errno));
		return 77;
	}
	if (!mkdtemp(dir)) return 1;
	snap_mount_probe(dir, &caps, &why);
	path_remove_all(AT_FDCWD, dir, NULL);
	if (!caps.overlay) no_overlay = why.msg;
	const struct CMUnitTest tests[] = {
		BOTH(test_chain),         BOTH(test_empty),
		OVERLAY(test_tidy),
		BOTH(test_merge),         BOTH(test_diff_range),
		BOTH(test_diff_computed), BOTH(test_refs),
		BOTH(test_recovery),      OVERLAY(test_reboot),
		BOTH(test_mutable),       OVERLAY(test_mutable_reboot),
		BOTH(test_lazy_blobs),    BOTH(test_mount),
		OVERLAY(test_old_mount),  OVERLAY(test_loop),
	};
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	err_fini(&why);
	return r;
}
