/* File actions on plain directories: a table of trees, one action, and the tree or the error that comes out. The cases follow
 * BuildKit's own tests (client_fileop_test.go, dockerfile_copy_test.go, dockerfile_parents_test.go, exclude_patterns_test.go,
 * fsutil's copy_test.go); what they give was compared with BuildKit's file backend on the same trees.
 *
 * A tree is text, an entry a line: "a/ 755", "a/f 644 =content", "a/l -> target", "a/h == a/f" (hard link), "p fifo 600"; an
 * owner other than 0:0 stands behind the mode as " 1:2". '|' is a line's end in a content. Entries come in byte order. */
#include "ops/file_job.h"
#include "ops/file_parts_job.h"
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

struct fix {
	char dir[64];
	int src, dst;
	struct err e;
};

static int setup(void **st)
{
	struct fix *f = xnew(struct fix);
	snprintf(f->dir, sizeof f->dir, "/tmp/test-file.XXXXXX");
	if (!mkdtemp(f->dir)) return -1;
	*st = f;
	f->src = f->dst = -1;
	return 0;
}

static void close_trees(struct fix *f)
{
	close_fd(&f->src);
	close_fd(&f->dst);
	f->src = f->dst = -1;
	assert_int_equal(path_remove_all(AT_FDCWD, f->dir, NULL), 0);
}

static int teardown(void **st)
{
	struct fix *f = *st;
	close_trees(f);
	err_fini(&f->e);
	free(f);
	return 0;
}

/* ---- trees as text ---- */

static void add_entry(int fd, char *line)
{
	char *name = strtok(line, " "), *kind = strtok(NULL, " "), *rest = strtok(NULL, "");
	unsigned uid = 0, gid = 0;
	assert_non_null(kind);
	if (!strcmp(kind, "->")) {
		assert_int_equal(symlinkat(rest, fd, name), 0);
		return;
	}
	if (!strcmp(kind, "==")) {
		assert_int_equal(linkat(fd, rest, fd, name, 0), 0);
		return;
	}
	bool fifo = !strcmp(kind, "fifo"), dir = str_ends(name, "/");
	if (fifo) kind = rest;
	mode_t mode = (mode_t)strtol(kind, NULL, 8);
	if (rest && !fifo) sscanf(rest, "%u:%u", &uid, &gid);
	if (dir) {
		name[strlen(name) - 1] = 0;
		assert_int_equal(mkdirat(fd, name, 0755), 0);
	} else if (fifo) {
		assert_int_equal(mkfifoat(fd, name, 0600), 0);
	} else {
		int file = openat(fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		char *text = rest ? strchr(rest, '=') : NULL;
		for (char *p = text; p && *p; p++)
			if (*p == '|') *p = '\n';
		assert_true(file >= 0);
		if (text) assert_int_equal(path_write_all(file, text + 1, strlen(text + 1), NULL), 0);
		close(file);
	}
	assert_int_equal(fchownat(fd, name, uid, gid, 0), 0);
	assert_int_equal(fchmodat(fd, name, mode, 0), 0);
}

static int make_tree(struct fix *f, const char *name, const char *text)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", f->dir, name), *all = xstrdup(text ? text : "");
	assert_int_equal(mkdir(path, 0755), 0);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	char *save = NULL;
	for (char *line = strtok_r(all, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		_cleanup_free_ char *copy = xstrdup(line);
		add_entry(fd, copy);
	}
	return fd;
}

struct show {
	struct buf out;
	struct map names; /* of files with several */
};

static void show_dir(struct show *s, int dirfd, const char *at);

static void show_one(struct show *s, int dirfd, const char *at, const char *name)
{
	struct stat st;
	char text[256];
	_cleanup_free_ char *path = xasprintf("%s%s", at, name), *key = NULL;
	assert_int_equal(fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	if (s->out.n) buf_addc(&s->out, '\n');
	if (S_ISLNK(st.st_mode)) {
		ssize_t n = readlinkat(dirfd, name, text, sizeof text);
		buf_addf(&s->out, "%s -> %.*s", path, (int)n, text);
		return;
	}
	key = xasprintf("%ju", (uintmax_t)st.st_ino);
	if (S_ISREG(st.st_mode) && st.st_nlink > 1) {
		char *first = map_get(&s->names, key);
		if (first) {
			buf_addf(&s->out, "%s == %s", path, first);
			return;
		}
		map_put(&s->names, key, xstrdup(path));
	}
	buf_addf(&s->out, "%s%s %s%o", path, S_ISDIR(st.st_mode) ? "/" : "", S_ISFIFO(st.st_mode) ? "fifo " : "",
		 st.st_mode & 07777);
	if (st.st_uid || st.st_gid) buf_addf(&s->out, " %u:%u", st.st_uid, st.st_gid);
	if (S_ISREG(st.st_mode) && st.st_size) {
		int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
		ssize_t n = read(fd, text, sizeof text);
		close(fd);
		for (ssize_t i = 0; i < n; i++)
			if (text[i] == '\n') text[i] = '|';
		buf_addf(&s->out, " =%.*s", (int)n, text);
	}
	if (S_ISDIR(st.st_mode)) {
		int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		_cleanup_free_ char *below = xasprintf("%s/", path);
		show_dir(s, fd, below);
		close(fd);
	}
}

static void show_dir(struct show *s, int dirfd, const char *at)
{
	_cleanup_strvec_ struct strvec names = {0};
	DIR *d = fdopendir(openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	struct dirent *ent;
	while ((ent = readdir(d)))
		if (strcmp(ent->d_name, ".") && strcmp(ent->d_name, "..")) strvec_add(&names, ent->d_name);
	closedir(d);
	strvec_sort(&names);
	for (size_t i = 0; i < names.n; i++) show_one(s, dirfd, at, names.v[i]);
}

static char *show_tree(int fd)
{
	struct show s = {0};
	show_dir(&s, fd, "");
	map_fini_free(&s.names);
	return buf_take_str(&s.out);
}

/* ---- actions ---- */

static int act(struct fix *f, const Pb__FileAction *a)
{
	struct file_job_ctx c = {f->dst, f->src, f->src, f->src, NULL};
	err_fini(&f->e);
	return file_job_action(&c, a, &f->e);
}

static Pb__FileAction action_of(Pb__FileActionCopy *c)
{
	Pb__FileAction a = PB__FILE_ACTION__INIT;
	a.action_case = PB__FILE_ACTION__ACTION_COPY;
	a.copy = c;
	return a;
}

struct copy_case {
	const char *name, *from, *to, *src, *dest, *want, *error;
	bool follow, contents, unpack, no_create, wildcard, empty_ok, replace;
	const char *include, *exclude, *mode_text, *user; /* patterns with spaces between */
	int mode;                                         /* 0: keep */
	uint32_t owner;                                   /* 0: keep */
};

static size_t split(const char *text, struct strvec *v)
{
	_cleanup_free_ char *all = xstrdup(text ? text : "");
	for (char *p = strtok(all, " "); p; p = strtok(NULL, " ")) strvec_add(v, p);
	return v->n;
}

static const struct copy_case cases[] = {
	{"file to a name", "f 600 =x", "", "f", "/g", "g 600 =x"},
	{"file into a directory with a slash", "f 600 =x", "", "f", "/d/", "d/ 755\nd/f 600 =x"},
	{"file into a directory that is there", "f 600 =x", "d/ 700", "/f", "/d", "d/ 700\nd/f 600 =x"},
	{"parents are made", "f 600 =x", "", "f", "/a/b/f", "a/ 755\na/b/ 755\na/b/f 600 =x", .mode = 0},
	{"parents take the mode", "f 600 =x", "", "f", "/a/b/f", "a/ 770\na/b/ 770\na/b/f 770 =x", .mode = 0770},
	{"no parents without createDestPath", "f 600", "", "f", "/a/f", NULL,
	 "failed to stat /a/f: lstat /a: no such file or directory", .no_create = true},
	{"a file replaces a file", "f 600 =new", "f 4755 5:6 =old", "f", "/", "f 600 =new"},
	{"a file does not replace a directory", "f 600 =new", "x/ 755\nx/f/ 755", "f", "/x", NULL,
	 "cannot replace to directory /x/f with file"},
	{"unless it always replaces", "f 600 =new", "x/ 755\nx/f/ 755\nx/f/a 644", "f", "/x", "x/ 755\nx/f 600 =new",
	 .replace = true},
	{"a missing source", "", "", "/nope", "/", NULL, "lstat /nope: no such file or directory"},
	{"directory to a new name", "d/ 2750 3:4\nd/f 640 3:4 =x", "", "d", "/e", "e/ 2750 3:4\ne/f 640 3:4 =x"},
	{"directory into one that is there", "d/ 700\nd/f 600", "e/ 755", "d", "/e", "e/ 755\ne/d/ 700\ne/d/f 600"},
	{"its contents into one that is there", "d/ 700 3:4\nd/f 600", "e/ 755", "d", "/e", "e/ 755\ne/f 600",
	 .contents = true},
	{"its contents into a new one", "d/ 700 3:4\nd/f 600", "", "d", "/e", "e/ 755\ne/f 600", .contents = true},
	{"/. is the directory itself", "d/ 700\nd/f 600", "e/ 755", "/d/.", "/e", "e/ 755\ne/f 600"},
	{"inner directories are overwritten", "d/ 755\nd/s/ 711 7:8", "s/ 700 1:1\ns/keep 600", "d", "/",
	 "s/ 711 7:8\ns/keep 600", .contents = true},
	{"a directory over a file", "d/ 755\nd/x/ 755", "x 644", "d", "/", NULL, "cannot copy to non-directory: /x",
	 .contents = true},
	{"a directory below a file", "d/ 755", "e 644", "d", "/e", NULL, "mkdir /e: not a directory"},
	{"always replace", "d/ 755\ndir/ 755\ndir/dirfile2 644\ndir/overfile/ 755\noverdir 755\noverlink/ 755",
	 "dir/ 755\ndir/dirfile1 755\ndir/overfile 644\noverdir/ 755\noverdir/sub 644\noverlink -> dir", "/", "/",
	 "d/ 755\ndir/ 755\ndir/dirfile1 755\ndir/dirfile2 644\ndir/overfile/ 755\noverdir 755\noverlink/ 755",
	 .contents = true, .replace = true},
	{"owner", "d/ 700 3:4\nd/f 600 5:6\nd/l -> f", "", "d", "/x/e",
	 "x/ 755 10:10\nx/e/ 700 10:10\nx/e/f 600 10:10\nx/e/l -> f", .owner = 10},
	{"owner by name", "etc/ 755\netc/passwd 644 =root:x:0:0::/:/bin/sh|foo:x:77:78::/:/bin/sh", "", "etc/passwd", "/p",
	 "p 644 77:78 =root:x:0:0::/:/bin/sh|foo:x:77:78::/:/bin/sh", .user = "foo"},
	{"an unknown name is root", "f 644 3:4", "", "f", "/", "f 644", .user = "nobody"},
	{"mode", "d/ 700\nd/f 600", "", "d", "/e", "e/ 4711\ne/f 4711", .mode = 04711},
	{"mode text", "d/ 500\nd/f 644\nd/x 700", "", "d", "/e", "e/ 755\ne/f 644\ne/x 755", .mode_text = "u=rwX,go=rX"},
	{"octal mode text", "f 600", "", "f", "/e", "e 1750", .mode_text = "1750"},
	{"bad mode text", "f 600", "", "f", "/e", NULL, "invalid syntax", .mode_text = "u"},
	{"bad octal mode", "f 600", "", "f", "/e", NULL, "strconv.ParseInt: parsing \"64a\": invalid syntax",
	 .mode_text = "64a"},
	{"wildcard", "a1 600\na2/ 755\na2/f 600\nb 600", "", "/a*", "/d/", "d/ 755\nd/a1 600\nd/a2/ 755\nd/a2/f 600",
	 .wildcard = true},
	{"wildcard with contents", "a1 600\na2/ 755\na2/f 600\nb 600", "", "/a*", "/d/", "d/ 755\nd/a1 600\nd/f 600",
	 .wildcard = true, .contents = true},
	{"wildcard on two levels", "a/ 755\na/x 600\nb/ 755\nb/x 600\nb/y 600\nl -> a", "", "*/x", "/d/", "d/ 755\nd/x 600",
	 .wildcard = true},
	{"a class may match a slash", "a/ 755\na/b 600", "", "a[^x]b", "/d/", "d/ 755\nd/b 600", .wildcard = true},
	{"nothing matches", "a 600", "", "/x*", "/d/", NULL, "/x* not found", .wildcard = true},
	{"nothing need match", "a 600", "", "/x*", "/d/", "", .wildcard = true, .empty_ok = true},
	{"an escaped wildcard is none", "a 600", "", "/\\*", "/d/", NULL, "lstat /\\*: no such file or directory",
	 .wildcard = true},
	{"links stay links", "l -> /f\nf 600 =x", "", "l", "/m", "m -> /f"},
	{"followed at the top", "d/ 755\nd/f 600 =x\nl -> /m\nm -> d/f", "", "l", "/m", "m 600 =x", .follow = true},
	{"not below", "d/ 755\nd/f 600 =x\nd/l -> f", "", "d", "/e", "e/ 755\ne/f 600 =x\ne/l -> f", .follow = true},
	{"links among the parents of the source", "d/ 755\nd/f 600 =x\nl -> ../../d", "", "l/f", "/g", "g 600 =x"},
	{"links in the destination stay inside", "f 600 =x", "l -> /../..//d\nd/ 755", "f", "/l/",
	 "d/ 755\nd/f 600 =x\nl -> /../..//d"},
	{"a link at the destination is written through", "f 600 =x", "l -> g\ng 644 =old", "f", "/l", "g 600 =x\nl -> g"},
	{"a dangling one too", "f 600 =x", "l -> /new/g", "f", "/l", "l -> /new/g\nnew/ 755\nnew/g 600 =x"},
	{"but not inside a copied directory", "d/ 755\nd/l 600 =x", "g 644 =old\nl -> g", "d", "/", "g 644 =old\nl 600 =x",
	 .contents = true},
	{"a circle of links", "f 600", "a -> b\nb -> a", "f", "/a/", NULL, "too many links"},
	{"include", "myfile 600\nsub/ 700\nsub/bar 600\nsub/foo 600", "", "/", "/", "sub/ 700\nsub/foo 600", .include = "sub/*",
	 .exclude = "sub/bar", .contents = true},
	{"parents of what is included, later", "a/ 711 3:4\na/b/ 700\na/b/c 600\nx/ 755\nx/y/ 755\nx/y/z 600", "", "/", "/",
	 "a/ 711 3:4\na/b/ 700\na/b/c 600", .include = "*/*/c", .contents = true},
	{"they keep an owner that is there", "a/ 711 3:4\na/b 600", "a/ 755 9:9", "/", "/", "a/ 711 9:9\na/b 600",
	 .include = "a/b", .contents = true},
	{"exclude", "a.png 600\nd/ 755\nd/b.png 600\nd/c.txt 600", "", "/", "/1",
	 "1/ 755\n1/a.png 600\n1/d/ 755\n1/d/c.txt 600", .exclude = "*/*.png", .contents = true},
	{"exclude a directory", "d/ 755\nd/f 600\ne 600", "", "/", "/", "e 600", .exclude = "d", .contents = true},
	{"with an exception", "d/ 755\nd/f 600\nd/g 600\ne 600", "", "/", "/", "d/ 755\nd/g 600\ne 600", .exclude = "d !d/g",
	 .contents = true},
	{"all excluded", "d/ 755\nd/f 600", "", "/", "/6", "6/ 755", .exclude = "*", .contents = true},
	{"bad pattern", "d/ 755", "", "/", "/", NULL, "invalid excludepatterns: [a [-]]: syntax error in pattern",
	 .exclude = "a [-]"},
	{"hard links", "a 644 =x\nd/ 755\nd/b == a\nd/c 644 =x", "", "/", "/", "a 644 =x\nd/ 755\nd/b == a\nd/c 644 =x",
	 .contents = true},
	{"fifo", "p fifo 640", "", "p", "/q", "q fifo 640"},
	{"no archive", "f 644 =hello", "", "f", "/d/", "d/ 755\nd/f 644 =hello", .unpack = true},
};

static void fill_owner(const struct copy_case *t, Pb__ChownOpt *o, Pb__UserOpt *u, Pb__NamedUserOpt *named)
{
	*o = (Pb__ChownOpt)PB__CHOWN_OPT__INIT;
	*u = (Pb__UserOpt)PB__USER_OPT__INIT;
	*named = (Pb__NamedUserOpt)PB__NAMED_USER_OPT__INIT;
	u->user_case = t->user ? PB__USER_OPT__USER_BY_NAME : PB__USER_OPT__USER_BY_ID;
	if (t->user) {
		named->name = (char *)t->user;
		u->byname = named;
	} else {
		u->byid = t->owner;
	}
	o->user = u;
}

static void run_case(struct fix *f, const struct copy_case *t)
{
	_cleanup_strvec_ struct strvec include = {0}, exclude = {0};
	Pb__FileActionCopy c = PB__FILE_ACTION_COPY__INIT;
	Pb__ChownOpt owner;
	Pb__UserOpt user;
	Pb__NamedUserOpt named;
	_cleanup_free_ char *from = xstrdup(t->from);
	f->src = make_tree(f, "src", from);
	f->dst = make_tree(f, "dst", t->to);
	fill_owner(t, &owner, &user, &named);
	c.src = (char *)t->src;
	c.dest = (char *)t->dest;
	c.owner = t->owner || t->user ? &owner : NULL;
	c.mode = t->mode ? t->mode : -1;
	c.timestamp = -1;
	c.followsymlink = t->follow;
	c.dircopycontents = t->contents;
	c.attemptunpackdockercompatibility = t->unpack;
	c.createdestpath = !t->no_create;
	c.allowwildcard = t->wildcard;
	c.allowemptywildcard = t->empty_ok;
	c.alwaysreplaceexistingdestpaths = t->replace;
	c.n_include_patterns = split(t->include, &include);
	c.n_exclude_patterns = split(t->exclude, &exclude);
	c.include_patterns = (void *)include.v;
	c.exclude_patterns = (void *)exclude.v;
	if (t->mode_text) c.modestr = (char *)t->mode_text;
	Pb__FileAction a = action_of(&c);
	int r = act(f, &a);
	_cleanup_free_ char *got = show_tree(f->dst);
	if (t->error) {
		if (r == 0) fail_msg("%s: no error", t->name);
		if (strcmp(t->error, f->e.msg)) fail_msg("%s: \"%s\" instead of \"%s\"", t->name, f->e.msg, t->error);
	} else {
		if (r < 0) fail_msg("%s: %s", t->name, f->e.msg);
		if (strcmp(got, t->want)) fail_msg("%s: got\n%s\ninstead of\n%s", t->name, got, t->want);
	}
}

static void test_copies(void **st)
{
	struct fix *f = *st;
	for (size_t i = 0; i < array_len(cases); i++) {
		run_case(f, &cases[i]);
		close_trees(f);
		assert_int_equal(mkdir(f->dir, 0755), 0);
	}
}

/* ---- times, attributes, contents ---- */

static Pb__FileActionCopy plain_copy(const char *src, const char *dest)
{
	Pb__FileActionCopy c = PB__FILE_ACTION_COPY__INIT;
	c.src = (char *)src;
	c.dest = (char *)dest;
	c.mode = -1;
	c.timestamp = -1;
	c.createdestpath = true;
	c.dircopycontents = true;
	return c;
}

static int64_t mtime_of(int fd, const char *name)
{
	struct stat st;
	assert_int_equal(fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	return st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
}

static void set_mtime(int fd, const char *name, time_t sec)
{
	struct timespec ts[2] = {{sec, 5}, {sec, 5}};
	assert_int_equal(utimensat(fd, name, ts, AT_SYMLINK_NOFOLLOW), 0);
}

static void test_times(void **st)
{
	struct fix *f = *st;
	f->src = make_tree(f, "src", "d/ 755\nd/e/ 755\nd/e/f 644\nd/l -> e");
	f->dst = make_tree(f, "dst", "old/ 755\nold/e/ 755");
	set_mtime(f->src, "d/l", 100);
	set_mtime(f->src, "d/e/f", 200);
	set_mtime(f->src, "d/e", 300);
	set_mtime(f->src, "d", 400);
	Pb__FileActionCopy c = plain_copy("/d", "/old");
	Pb__FileAction a = action_of(&c);
	assert_int_equal(act(f, &a), 0);
	assert_int_equal(mtime_of(f->dst, "old/l"), 100000000005);
	assert_int_equal(mtime_of(f->dst, "old/e/f"), 200000000005);
	assert_int_equal(mtime_of(f->dst, "old/e"), 300000000005);
	assert_int_equal(mtime_of(f->dst, "old"), 400000000005); /* the top keeps its owner and mode, not its time */
	c = plain_copy("/d", "/p/q/new");
	c.timestamp = 7000000001;
	assert_int_equal(act(f, &a), 0);
	static const char *const all[] = {"p", "p/q", "p/q/new", "p/q/new/e", "p/q/new/e/f", "p/q/new/l"};
	for (size_t i = 0; i < array_len(all); i++) assert_int_equal(mtime_of(f->dst, all[i]), 7000000001);
	c = plain_copy("/", "/inc");
	const char *include[] = {"d/e/f"};
	c.n_include_patterns = 1;
	c.include_patterns = include;
	assert_int_equal(act(f, &a), 0);
	assert_int_equal(mtime_of(f->dst, "inc/d"), 400000000005);
	assert_int_equal(mtime_of(f->dst, "inc/d/e"), 300000000005);
}

static void test_attributes(void **st)
{
	struct fix *f = *st;
	char value[16];
	f->src = make_tree(f, "src", "d/ 755\nd/f 4755 =x\nd/l -> f");
	f->dst = make_tree(f, "dst", "");
	_cleanup_free_ char *file = xasprintf("%s/src/d/f", f->dir), *dir = xasprintf("%s/src/d", f->dir);
	_cleanup_free_ char *link = xasprintf("%s/src/d/l", f->dir);
	if (setxattr(file, "user.k", "v", 1, 0) < 0) skip(); /* no attributes here */
	assert_int_equal(setxattr(dir, "user.d", "w", 1, 0), 0);
	assert_int_equal(lsetxattr(link, "trusted.l", "z", 1, 0), 0);
	assert_int_equal(setxattr(file, "trusted.overlay.x", "v", 1, 0), 0);
	Pb__FileActionCopy c = plain_copy("/", "/");
	Pb__FileAction a = action_of(&c);
	assert_int_equal(act(f, &a), 0);
	_cleanup_free_ char *file2 = xasprintf("%s/dst/d/f", f->dir), *dir2 = xasprintf("%s/dst/d", f->dir);
	_cleanup_free_ char *link2 = xasprintf("%s/dst/d/l", f->dir);
	assert_int_equal(getxattr(file2, "user.k", value, sizeof value), 1);
	assert_int_equal(getxattr(dir2, "user.d", value, sizeof value), 1);
	assert_int_equal(lgetxattr(link2, "trusted.l", value, sizeof value), 1);
	assert_int_equal(getxattr(file2, "trusted.overlay.x", value, sizeof value), -1);
}

/* Three data extents in a sparse file of 3 MiB, and a dense one beyond a chunk. */
static void test_contents(void **st)
{
	struct fix *f = *st;
	f->src = make_tree(f, "src", "");
	f->dst = make_tree(f, "dst", "");
	_cleanup_free_ uint8_t *all = xcalloc(1, 3 << 20), *dense = xmalloc(700001);
	for (size_t i = 0; i < 700001; i++) dense[i] = (uint8_t)(i * 31 >> 3);
	int fd = openat(f->src, "sparse", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	assert_int_equal(ftruncate(fd, 3 << 20), 0);
	for (size_t i = 0; i < 3; i++) {
		memcpy(all + i * (1 << 20), "data", 4);
		assert_int_equal(pwrite(fd, "data", 4, (off_t)(i << 20)), 4);
	}
	fsync(fd);
	close(fd);
	assert_int_equal(path_write_file(f->src, "dense", dense, 700001, 0644, false, NULL), 0);
	Pb__FileActionCopy c = plain_copy("/", "/");
	Pb__FileAction a = action_of(&c);
	assert_int_equal(act(f, &a), 0);
	uint8_t *got;
	size_t n;
	assert_int_equal(path_read_file(f->dst, "sparse", 4 << 20, &got, &n, NULL), 0);
	assert_int_equal(n, 3 << 20);
	assert_memory_equal(got, all, n);
	free(got);
	assert_int_equal(path_read_file(f->dst, "dense", 4 << 20, &got, &n, NULL), 0);
	assert_int_equal(n, 700001);
	assert_memory_equal(got, dense, n);
	free(got);
	struct stat from, to;
	assert_int_equal(fstatat(f->src, "sparse", &from, 0), 0);
	assert_int_equal(fstatat(f->dst, "sparse", &to, 0), 0);
	if (from.st_blocks * 512 < 1 << 20) assert_true(to.st_blocks * 512 < 1 << 20);
}

static void test_unpack(void **st)
{
	struct fix *f = *st;
	f->src = make_tree(f, "src", "in/ 755\nin/a/ 711 3:4\nin/a/f 640 3:4 =x");
	f->dst = make_tree(f, "dst", "f 600");
	_cleanup_free_ char *cmd = xasprintf("cd %s/src && tar -C in -czf x.tgz a 2>/dev/null && rm -r in", f->dir);
	if (system(cmd) != 0) skip();
	Pb__FileActionCopy c = plain_copy("/x.tgz", "/d/e");
	Pb__FileAction a = action_of(&c);
	c.attemptunpackdockercompatibility = true;
	assert_int_equal(act(f, &a), 0);
	_cleanup_free_ char *got = show_tree(f->dst);
	assert_string_equal(got, "d/ 755\nd/e/ 755\nd/e/a/ 711 3:4\nd/e/a/f 640 3:4 =x\nf 600");
	Pb__ChownOpt o;
	Pb__UserOpt u;
	Pb__NamedUserOpt n;
	fill_owner(&(struct copy_case){.owner = 9}, &o, &u, &n);
	c = plain_copy("/x.t*", "/o/");
	c.attemptunpackdockercompatibility = c.allowwildcard = true;
	c.owner = &o;
	assert_int_equal(act(f, &a), 0);
	_cleanup_free_ char *owned = show_tree(f->dst);
	assert_non_null(strstr(owned, "o/ 755 9:9\no/a/ 711 9:9\no/a/f 640 9:9 =x"));
	c.dest = (char *)"/f";
	assert_int_equal(act(f, &a), -1);
	assert_string_equal(f->e.msg, "mkdir /f: not a directory");
}

/* ---- the small actions ---- */

static int do_mkdir(struct fix *f, const char *path, int mode, bool parents)
{
	Pb__FileActionMkDir d = PB__FILE_ACTION_MK_DIR__INIT;
	Pb__FileAction a = PB__FILE_ACTION__INIT;
	d.path = (char *)path;
	d.mode = mode;
	d.makeparents = parents;
	d.timestamp = -1;
	a.action_case = PB__FILE_ACTION__ACTION_MKDIR;
	a.mkdir = &d;
	return act(f, &a);
}

static int do_mkfile(struct fix *f, const char *path, int mode, const char *text)
{
	Pb__FileActionMkFile m = PB__FILE_ACTION_MK_FILE__INIT;
	Pb__FileAction a = PB__FILE_ACTION__INIT;
	m.path = (char *)path;
	m.mode = mode;
	m.data = (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
	m.timestamp = -1;
	a.action_case = PB__FILE_ACTION__ACTION_MKFILE;
	a.mkfile = &m;
	return act(f, &a);
}

static int do_rm(struct fix *f, const char *path, bool missing_ok, bool wildcard)
{
	Pb__FileActionRm r = PB__FILE_ACTION_RM__INIT;
	Pb__FileAction a = PB__FILE_ACTION__INIT;
	r.path = (char *)path;
	r.allownotfound = missing_ok;
	r.allowwildcard = wildcard;
	a.action_case = PB__FILE_ACTION__ACTION_RM;
	a.rm = &r;
	return act(f, &a);
}

static int do_symlink(struct fix *f, const char *target, const char *path)
{
	Pb__FileActionSymlink s = PB__FILE_ACTION_SYMLINK__INIT;
	Pb__FileAction a = PB__FILE_ACTION__INIT;
	s.oldpath = (char *)target;
	s.newpath = (char *)path;
	s.timestamp = -1;
	a.action_case = PB__FILE_ACTION__ACTION_SYMLINK;
	a.symlink = &s;
	return act(f, &a);
}

#define WANT(tree)                                             \
	do {                                                   \
		_cleanup_free_ char *_got = show_tree(f->dst); \
		assert_string_equal(_got, tree);               \
	} while (0)
#define FAILS(x, text)                               \
	do {                                         \
		assert_int_equal(x, -1);             \
		assert_string_equal(f->e.msg, text); \
	} while (0)

static void test_small(void **st)
{
	struct fix *f = *st;
	f->dst = make_tree(f, "dst", "l -> ../../d");
	assert_int_equal(do_mkdir(f, "/a/b", 0750, true), 0);
	assert_int_equal(do_mkdir(f, "d", 0711, false), 0);
	assert_int_equal(do_mkdir(f, "/d", 0700, false), 0); /* it is there: nothing changes */
	assert_int_equal(do_mkdir(f, "/l/sub", 0777, false), 0);
	FAILS(do_mkdir(f, "/x/y", 0755, false), "mkdir /x/y: no such file or directory");
	WANT("a/ 750\na/b/ 750\nd/ 711\nd/sub/ 777\nl -> ../../d");
	assert_int_equal(do_mkfile(f, "/l/f", 0666, "long text"), 0);
	assert_int_equal(do_mkfile(f, "/d/f", 0600, "text"), 0); /* emptied, its mode stays */
	FAILS(do_mkfile(f, "/d", 0600, ""), "open /d: is a directory");
	FAILS(do_mkfile(f, "/no/f", 0600, ""), "open /no/f: no such file or directory");
	FAILS(do_mkdir(f, "/d/f/x", 0755, true), "lstat /d/f/x: not a directory");
	assert_int_equal(do_symlink(f, "f", "/d/s"), 0);
	assert_int_equal(do_symlink(f, "anywhere", "/d/t"), 0);
	FAILS(do_symlink(f, "f", "/d/f"), "symlink f /d/f: file exists");
	WANT("a/ 750\na/b/ 750\nd/ 711\nd/f 666 =text\nd/s -> f\nd/sub/ 777\nd/t -> anywhere\nl -> ../../d");
}

static void test_rm(void **st)
{
	struct fix *f = *st;
	f->dst = make_tree(f, "dst",
			   "bar 644\ndir/ 755\ndir/foo/ 755\ndir/foo/x 644\ndir/l -> foo\nfoo1 644\nfoo2 644\nl -> dir");
	FAILS(do_rm(f, "/", false, false), "rmPath: invalid empty path");
	FAILS(do_rm(f, "a/../..", false, false), "rmPath: invalid empty path");
	FAILS(do_rm(f, "/nope", false, false), "stat /nope: no such file or directory");
	assert_int_equal(do_rm(f, "/nope", true, false), 0);
	assert_int_equal(do_rm(f, "/no/such", true, false), 0);
	assert_int_equal(do_rm(f, "/l/l", false, false), 0); /* the link itself, by way of a link */
	assert_int_equal(do_rm(f, "foo*", false, true), 0);
	assert_int_equal(do_rm(f, "/none*", false, true), 0);
	WANT("bar 644\ndir/ 755\ndir/foo/ 755\ndir/foo/x 644\nl -> dir");
	assert_int_equal(do_rm(f, "/*/foo", false, true), 0);
	assert_int_equal(do_rm(f, "/l", false, false), 0);
	WANT("bar 644\ndir/ 755");
	FAILS(do_rm(f, "/bar/x/y", true, false), "lstat /bar/x: not a directory");
}

static void test_cancel_and_scratch(void **st)
{
	struct fix *f = *st;
	atomic_bool cancelled = true;
	f->dst = make_tree(f, "dst", "");
	Pb__FileActionCopy c = plain_copy("/", "/d");
	Pb__FileAction a = action_of(&c);
	struct file_job_ctx ctx = {f->dst, -1, -1, -1, &cancelled};
	assert_int_equal(file_job_action(&ctx, &a, &f->e), -1);
	assert_int_equal(f->e.code, CODE_CANCELLED);
	cancelled = false;
	assert_int_equal(file_job_action(&ctx, &a, &f->e), 0); /* from an empty tree */
	WANT("d/ 755");
	c.src = (char *)"/nope";
	FAILS(file_job_action(&ctx, &a, &f->e), "lstat /nope: no such file or directory");
}

static ino_t inode(int dir, const char *name)
{
	struct stat st;
	assert_int_equal(fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	return st.st_ino;
}

/* Hard links to the source: only of files that are copied as they are, and never a second one. */
static void test_sharing(void **st)
{
	struct fix *f = *st;
	f->src = make_tree(f, "src", "a 644 =1\nb 600 1:2 =2\nd/ 755\nd/x 755 =3\nh 644 =4\ni == h");
	f->dst = make_tree(f, "dst", "a/ 755\nb 644 =old");
	struct file_job_ctx ctx = {f->dst, f->src, -1, -1, NULL, .share = true};
	Pb__FileActionCopy c = plain_copy("/", "/t");
	c.dircopycontents = true;
	Pb__FileAction a = action_of(&c);
	assert_int_equal(file_job_action(&ctx, &a, &f->e), 0);
	assert_true(inode(f->src, "a") == inode(f->dst, "t/a"));
	assert_true(inode(f->src, "b") == inode(f->dst, "t/b"));
	assert_true(inode(f->src, "d/x") == inode(f->dst, "t/d/x"));
	assert_true(inode(f->src, "h") != inode(f->dst, "t/h"));
	assert_true(inode(f->dst, "t/i") == inode(f->dst, "t/h"));
	c.dest = (char *)"/again";
	assert_int_equal(file_job_action(&ctx, &a, &f->e), 0);
	assert_true(inode(f->src, "a") != inode(f->dst, "again/a"));
	assert_int_equal(unlinkat(f->dst, "t/a", 0), 0);
	c.mode = 0600;
	c.dest = (char *)"/other";
	assert_int_equal(file_job_action(&ctx, &a, &f->e), 0);
	assert_true(inode(f->src, "a") != inode(f->dst, "other/a"));
}

struct mode_case {
	const char *text;
	mode_t from, want;
};

static void test_modes(void **st)
{
	static const struct mode_case modes[] = {
		{"go-w", 0666, 0644},          {"o-rwx,g+x", 0644, 0650},
		{"u=rwx,g=,o=", 0644, 0700},   {"u+rw,g+r,o-x,o+w", 0755, 0756},
		{"a+X", S_IFDIR | 0500, 0511}, {"a+X", 0600, 0600},
		{"a+X", 0610, 0711},           {"go=u", 0750, 0777},
		{"go=u-w", 0700, 0755},        {"=rw,+X", 0711, 0777},
		{"u+s,g+s", 0755, 06755},      {"o+s", 0755, 0755},
		{"+t", S_IFDIR | 0755, 01755}, {"a=r", 07777, 01444},
		{"u=g,g=o", 0754, 0544},       {"0", 07777, 0},
	};
	for (size_t i = 0; i < array_len(modes); i++) {
		struct file_mode m;
		assert_int_equal(file_mode_parse(modes[i].text, &m, NULL), 0);
		mode_t got = file_mode_apply(&m, modes[i].from);
		if (got != modes[i].want)
			fail_msg("%s of %o: %o instead of %o", modes[i].text, modes[i].from, got, modes[i].want);
		file_mode_fini(&m);
	}
	static const char *const bad[] = {"", "u", "x", "u=rwx,", "8", "10000", "77777777", "rw", "u+r x"};
	for (size_t i = 0; i < array_len(bad); i++) assert_int_equal(file_mode_parse(bad[i], &(struct file_mode){0}, NULL), -1);
}

int main(void)
{
	if (geteuid() != 0) {
		fputs("skipped: needs root for owners\n", stderr);
		return 77;
	}
	umask(077); /* no result may depend on it */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_copies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_times, setup, teardown),
		cmocka_unit_test_setup_teardown(test_attributes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_contents, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unpack, setup, teardown),
		cmocka_unit_test_setup_teardown(test_small, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rm, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cancel_and_scratch, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sharing, setup, teardown),
		cmocka_unit_test(test_modes),
	};
	return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
