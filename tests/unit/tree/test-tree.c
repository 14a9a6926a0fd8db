/* Trees on disk against what BuildKit's contenthash and fsutil answer for the same trees: cases.jsonl was written by them
 * (one case a line: "sum" a content digest for a scanned and for a synced tree, "walk" a filtered listing) from trees.jsonl. */
#include "tree/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <cmocka.h>

enum { TREES = 3 };
static struct {
	char name[32];
	int fd;
	struct tree_index *scanned, *synced;
} trees[TREES];
static size_t n_trees;
static char base[64];

static json_t *load(const char *name)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", FIXTURES, name);
	FILE *f = fopen(path, "re");
	if (!f) fail_msg("no fixture %s", path);
	json_t *all = json_array();
	json_error_t je;
	char *line = NULL;
	size_t cap = 0;
	for (ssize_t n; (n = getline(&line, &cap, f)) > 0;) {
		json_t *c = json_loadb(line, (size_t)n, 0, &je);
		if (!c) fail_msg("%s: %s", name, je.text);
		json_array_append_new(all, c);
	}
	free(line);
	fclose(f);
	return all;
}

static const char *str(json_t *c, const char *key)
{
	const char *s = json_string_value(json_object_get(c, key));
	return s ? s : "";
}
static int64_t num(json_t *c, const char *key) { return json_integer_value(json_object_get(c, key)); }

static void make_file(int fd, const char *path, json_t *c)
{
	_cleanup_buf_ struct buf data = BUF_INIT;
	for (int64_t i = 0; i < num(c, "repeat"); i++) buf_adds(&data, str(c, "data"));
	assert_int_equal(path_write_file(fd, path, data.p, data.n, 0600, false, NULL), 0);
	assert_int_equal(fchmodat(fd, path, (mode_t)num(c, "mode"), 0), 0);
}

static void make_entry(int fd, json_t *c)
{
	const char *path = str(c, "path"), *data = str(c, "data");
	switch (*str(c, "kind")) {
	case 'f': make_file(fd, path, c); break;
	case 'd':
		assert_int_equal(mkdirat(fd, path, 0755), 0);
		assert_int_equal(fchmodat(fd, path, (mode_t)num(c, "mode"), 0), 0);
		break;
	case 'l': assert_int_equal(symlinkat(data, fd, path), 0); break;
	case 'h': assert_int_equal(linkat(fd, data, fd, path, 0), 0); break;
	case 'p': assert_int_equal(mkfifoat(fd, path, (mode_t)num(c, "mode")), 0); break;
	default: fail();
	}
}

static int tree_of(const char *name)
{
	for (size_t i = 0; i < n_trees; i++)
		if (strcmp(trees[i].name, name) == 0) return (int)i;
	assert_true(n_trees < TREES);
	snprintf(trees[n_trees].name, sizeof trees[0].name, "%s", name);
	_cleanup_free_ char *path = xasprintf("%s/%s", base, name);
	assert_int_equal(mkdir(path, 0755), 0);
	trees[n_trees].fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(trees[n_trees].fd >= 0);
	return (int)n_trees++;
}

struct sync {
	int fd;
	struct tree_index *x;
};

/* What a receiver does: the digest is made while the bytes go by. */
static int sync_entry(const struct tree_entry *t, void *arg, struct err *e)
{
	struct sync *s = arg;
	struct tree_entry *mine = tree_index_put(s->x, t);
	if (!tree_is_regular(t) || tree_is_hardlink(t)) return 0;
	_cleanup_close_ int fd = path_open_in(s->fd, t->path, O_RDONLY, 0, e);
	if (fd < 0) return -1;
	struct tree_hasher h;
	char b[1000];
	ssize_t n;
	tree_hash_begin(&h, t);
	while ((n = read(fd, b, sizeof b)) > 0) tree_hash_update(&h, b, (size_t)n);
	tree_hash_final(&h, &mine->digest);
	mine->has_digest = true;
	return 0;
}

static int setup(void **state)
{
	(void)state;
	umask(0);
	snprintf(base, sizeof base, "/tmp/slipway-tree-XXXXXX");
	assert_non_null(mkdtemp(base));
	json_t *all = load("trees.jsonl"), *c;
	size_t i;
	assert_true(json_array_size(all) >= 69);
	json_array_foreach(all, i, c) make_entry(trees[tree_of(str(c, "tree"))].fd, c);
	json_decref(all);
	struct tree_walk_opts o = {.set_owner = true};
	for (i = 0; i < n_trees; i++) {
		struct sync s = {trees[i].fd, trees[i].synced = tree_index_new()};
		assert_int_equal(tree_walk(trees[i].fd, &o, sync_entry, &s, NULL), 0);
		assert_int_equal(tree_index_scan(trees[i].fd, NULL, &trees[i].scanned, NULL), 0);
		/* the peer's trees were root's */
		for (size_t k = 0; k < tree_index_count(trees[i].scanned); k++)
			tree_index_at(trees[i].scanned, k)->uid = tree_index_at(trees[i].scanned, k)->gid = 0;
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (size_t i = 0; i < n_trees; i++) {
		close(trees[i].fd);
		tree_index_free(trees[i].scanned);
		tree_index_free(trees[i].synced);
	}
	return path_remove_all(AT_FDCWD, base, NULL);
}

struct texts {
	char *v[64];
	size_t n;
};

static struct texts texts_of(json_t *c, const char *key)
{
	json_t *a = json_object_get(c, key);
	struct texts l = {.n = json_array_size(a)};
	assert_true(l.n <= array_len(l.v));
	for (size_t i = 0; i < l.n; i++) l.v[i] = (char *)(uintptr_t)json_string_value(json_array_get(a, i));
	return l;
}

static void check_sum(json_t *c, const struct tree_selector *s, struct tree_index *x, int fd, const char *want,
		      const char *error)
{
	_cleanup_free_ char *dump = json_dumps(c, JSON_COMPACT);
	_cleanup_err_ struct err e = ERR_INIT;
	char got[DIGEST_STR] = "";
	int r = tree_checksum_one(x, fd, s, NULL, got, &e);
	if (!*error && r < 0) fail_msg("%s: failed: %s", dump, e.msg);
	if (!*error && strcmp(got, want) != 0) fail_msg("%s: got %s", dump, got);
	if (!*error) return;
	if (r == 0) fail_msg("%s: should fail", dump);
	if (!strstr(error, "lstat") && strcmp(error, e.msg) != 0) fail_msg("%s: failed with: %s", dump, e.msg);
}

static void sum_case(json_t *c)
{
	struct texts inc = texts_of(c, "include"), exc = texts_of(c, "exclude"), req = texts_of(c, "required");
	struct tree_selector s = {
		.path = str(c, "path"),
		.wildcard = json_is_true(json_object_get(c, "wildcard")),
		.follow_links = json_is_true(json_object_get(c, "follow")),
		.include_patterns = inc.v,
		.n_include = inc.n,
		.exclude_patterns = exc.v,
		.n_exclude = exc.n,
		.required_paths = req.v,
		.n_required = req.n,
	};
	int i = tree_of(str(c, "tree"));
	check_sum(c, &s, trees[i].synced, -1, str(c, "synced"), str(c, "synced_error"));
	/* the root of a scanned tree belongs to whoever runs this */
	if (geteuid() == 0 || strcmp(str(c, "scanned"), "") != 0)
		check_sum(c, &s, trees[i].scanned, trees[i].fd, str(c, "scanned"), str(c, "error"));
}

static int list_entry(const struct tree_entry *t, void *arg, struct err *e)
{
	(void)e;
	strvec_addf(arg, "%s %x %lld %s", t->path, t->mode, (long long)t->size, t->linkname ? t->linkname : "");
	return 0;
}

static void walk_case(json_t *c)
{
	struct texts inc = texts_of(c, "include"), exc = texts_of(c, "exclude"), follow = texts_of(c, "followpaths"),
		     want = texts_of(c, "list");
	struct tree_walk_opts o = {inc.v, exc.v, follow.v, inc.n, exc.n, follow.n};
	_cleanup_free_ char *dump = json_dumps(c, JSON_COMPACT);
	_cleanup_strvec_ struct strvec got = {0};
	_cleanup_err_ struct err e = ERR_INIT;
	int r = tree_walk(trees[tree_of(str(c, "tree"))].fd, &o, list_entry, &got, &e);
	_cleanup_free_ char *text = strvec_join(&got, "|");
	if ((r < 0) != (*str(c, "error") != 0)) fail_msg("%s: got %d %s", dump, r, e.msg ? e.msg : "");
	if (r < 0) {
		assert_string_equal(e.msg, str(c, "error"));
		return;
	}
	if (got.n != want.n) fail_msg("%s: got %s", dump, text);
	for (size_t i = 0; i < got.n; i++)
		if (strcmp(got.v[i], want.v[i]) != 0) fail_msg("%s: got %s", dump, text);
}

static void test_cases(void **state)
{
	(void)state;
	json_t *all = load("cases.jsonl"), *c;
	size_t i, sums = 0, walks = 0;
	json_array_foreach(all, i, c)
	{
		bool sum = strcmp(str(c, "kind"), "sum") == 0;
		(sum ? sum_case : walk_case)(c);
		sums += sum;
		walks += !sum;
	}
	assert_true(sums > 900 && walks > 250);
	json_decref(all);
}

static struct tree_entry entry(const char *path, uint32_t mode, int64_t size)
{
	return (struct tree_entry){.path = (char *)(uintptr_t)path, .mode = mode, .size = size};
}

static void put(struct tree_index *x, const char *path, uint32_t mode, const char *content)
{
	struct tree_entry t = entry(path, mode, (int64_t)strlen(content)), *mine = tree_index_put(x, &t);
	struct tree_hasher h;
	tree_hash_begin(&h, mine);
	tree_hash_update(&h, content, strlen(content));
	tree_hash_final(&h, &mine->digest);
	mine->has_digest = true;
}

static void sum_is(struct tree_index *x, const char *path, const char *want)
{
	char got[DIGEST_STR];
	struct tree_selector s = {.path = path};
	assert_int_equal(tree_checksum_one(x, -1, &s, NULL, got, NULL), 0);
	assert_string_equal(got, want);
}

/* The examples of reference 06 §7.3, which a running BuildKit gave. */
static void test_examples(void **state)
{
	(void)state;
	_cleanup_tree_index_ struct tree_index *x = tree_index_new();
	put(x, "a.txt", 0644, "hello\n");
	put(x, "sub", TREE_DIR | 0755, "");
	put(x, "sub/b.txt", 0644, "sub\n");
	struct tree_entry link = entry("link", TREE_SYMLINK | 0777, 5);
	link.linkname = (char *)(uintptr_t) "a.txt";
	tree_index_put(x, &link);
	sum_is(x, "/a.txt", "sha256:09eefdc91e8894bc767daae7daa5a4e8cbf396610f10ae20604d9086c76d4a93");
	sum_is(x, "/sub/b.txt", "sha256:dea367f7072f5c2d06c72134dd0d03cd183026b3079d66063c7a200075709498");
	sum_is(x, "/sub", "sha256:2487cdd0e4ecf744decb214c6435bf95371527be5ca2763bbde47f475d0f46d0");
	sum_is(x, "/link", "sha256:653b232d38441e60f35673ca781dca8fd169229d6500fa11cd461a7e10e02789");
	struct tree_entry dir = entry("d", TREE_DIR | 0755, 0);
	struct digest d = tree_hash_header(&dir);
	char text[DIGEST_STR];
	digest_format(&d, text);
	assert_string_equal(text, "sha256:1a2805521573cb10d73bcd51d16bfa84c8f461d68599740e35484b90b2ab1bab");
	/* several selectors: the hash of their digests, and so for one alone and for none */
	struct tree_selector sel[2] = {{.path = "/sub"}, {.path = "a.txt"}};
	char want[DIGEST_STR];
	static const char joined[] = "sha256:2487cdd0e4ecf744decb214c6435bf95371527be5ca2763bbde47f475d0f46d0\0"
				     "sha256:09eefdc91e8894bc767daae7daa5a4e8cbf396610f10ae20604d9086c76d4a93";
	assert_int_equal(tree_checksum(x, -1, sel, 2, NULL, text, NULL), 0);
	digest_str_of(joined, sizeof joined - 1, want);
	assert_string_equal(text, want);
	assert_int_equal(tree_checksum(x, -1, sel, 1, NULL, text, NULL), 0);
	digest_str_of(joined, DIGEST_STR - 1, want);
	assert_string_equal(text, want);
	_cleanup_err_ struct err e = ERR_INIT;
	sel[0].path = "/x";
	assert_int_equal(tree_checksum(x, -1, sel, 1, NULL, text, &e), -1);
	assert_string_equal(e.msg, "\"/x\": not found");
	assert_int_equal(e.code, CODE_NOT_FOUND);
	sel[0].path = "/";
	assert_int_equal(tree_checksum(NULL, -1, sel, 1, NULL, text, NULL), 0);
	sel[0].path = "/x";
	assert_int_equal(tree_checksum(NULL, -1, sel, 1, NULL, text, &e), -1);
	assert_string_equal(e.msg, "/x: no such file or directory");
}

/* An empty 0755 root that was scanned. */
static void test_empty_root(void **state)
{
	(void)state;
	_cleanup_free_ char *path = xasprintf("%s/none", base);
	assert_int_equal(mkdir(path, 0755), 0);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_tree_index_ struct tree_index *x = NULL;
	assert_int_equal(tree_index_scan(fd, NULL, &x, NULL), 0);
	char got[DIGEST_STR];
	struct tree_selector s = {.path = "/"};
	assert_int_equal(tree_checksum_one(x, fd, &s, NULL, got, NULL), 0);
	if (geteuid() != 0) skip(); /* needs root: the digest names the owner */
	assert_string_equal(got, "sha256:0e5db88383bce812f795689f5318a2b2f4fde740ef31c2a2365a46368aafddd2");
}

static void same_index(const struct tree_index *a, const struct tree_index *b)
{
	assert_int_equal(tree_index_count(a), tree_index_count(b));
	for (size_t i = 0; i < tree_index_count(a); i++) {
		const struct tree_entry *s = tree_index_at(a, i), *t = tree_index_at(b, i);
		assert_string_equal(s->path, t->path);
		assert_string_equal(s->linkname ? s->linkname : "", t->linkname ? t->linkname : "");
		assert_true(s->mode == t->mode && s->size == t->size && s->mtime_ns == t->mtime_ns &&
			    s->ctime_ns == t->ctime_ns);
		assert_true(s->dev == t->dev && s->ino == t->ino && s->flags == t->flags && s->n_xattrs == t->n_xattrs);
		assert_true(s->has_digest == t->has_digest && (!s->has_digest || digest_eq(&s->digest, &t->digest)));
	}
}

static void test_suspend(void **state)
{
	(void)state;
	_cleanup_close_ int dir = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_tree_index_ struct tree_index *x = NULL, *y = NULL;
	struct stat before, after;
	assert_int_equal(tree_index_suspend(dir, "suspended", NULL), 0); /* there is none */
	assert_int_equal(tree_index_save(trees[0].scanned, dir, "suspended", NULL), 0);
	assert_int_equal(tree_index_suspend(dir, "suspended", NULL), 0);
	assert_int_equal(tree_index_load(dir, "suspended", &x, NULL), -1);
	/* the same again: the same file */
	assert_int_equal(fstatat(dir, "suspended", &before, 0), 0);
	assert_int_equal(tree_index_save(trees[0].scanned, dir, "suspended", NULL), 0);
	assert_int_equal(fstatat(dir, "suspended", &after, 0), 0);
	assert_true(before.st_ino == after.st_ino);
	assert_int_equal(tree_index_load(dir, "suspended", &x, NULL), 0);
	same_index(trees[0].scanned, x);
	/* another one of the same length */
	assert_int_equal(tree_index_suspend(dir, "suspended", NULL), 0);
	tree_index_at(x, 0)->flags ^= 1;
	assert_int_equal(tree_index_save(x, dir, "suspended", NULL), 0);
	assert_int_equal(tree_index_load(dir, "suspended", &y, NULL), 0);
	same_index(x, y);
}

static void test_save(void **state)
{
	(void)state;
	_cleanup_close_ int dir = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_err_ struct err e = ERR_INIT;
	struct tree_index *x = trees[0].scanned;
	assert_int_equal(tree_index_hash(x, trees[0].fd, NULL, NULL), 0);
	tree_index_at(x, 3)->flags = 7;
	tree_entry_xattr(tree_index_at(x, 3), "user.b", "1", 1);
	tree_entry_xattr(tree_index_at(x, 3), "user.a", "", 0);
	assert_string_equal(tree_index_at(x, 3)->xattrs[0].name, "user.a");
	assert_true(tree_index_dirty(x));
	assert_int_equal(tree_index_save(x, dir, "saved", &e), 0);
	assert_false(tree_index_dirty(x));
	_cleanup_tree_index_ struct tree_index *y = NULL, *z = NULL, *copy = tree_index_copy(x);
	assert_int_equal(tree_index_load(dir, "saved", &y, &e), 0);
	same_index(x, y);
	same_index(x, copy);
	char a[DIGEST_STR], b[DIGEST_STR];
	assert_int_equal(tree_checksum(x, -1, NULL, 0, NULL, a, NULL), 0);
	assert_int_equal(tree_checksum(y, -1, NULL, 0, NULL, b, NULL), 0);
	assert_string_equal(a, b);
	assert_false(tree_index_dirty(y));
	assert_int_equal(tree_index_load(dir, "nothing", &z, &e), -1);
	assert_int_equal(e.code, CODE_NOT_FOUND);
	/* any byte that is wrong is noticed, and any that is missing */
	_cleanup_free_ uint8_t *p = NULL;
	size_t n;
	assert_int_equal(path_read_file(dir, "saved", 1 << 20, &p, &n, &e), 0);
	for (size_t i = 0; i < n; i += 97) {
		p[i] ^= 1;
		assert_int_equal(path_write_file(dir, "bad", p, n, 0600, false, NULL), 0);
		assert_int_equal(tree_index_load(dir, "bad", &z, &e), -1);
		assert_int_equal(e.code, CODE_DATA_LOSS);
		p[i] ^= 1;
		assert_int_equal(path_write_file(dir, "bad", p, i, 0600, false, NULL), 0);
		assert_int_equal(tree_index_load(dir, "bad", &z, &e), -1);
	}
}

/* The index stays in order and complete whatever is put and removed, against a plain model. */
static void test_index(void **state)
{
	(void)state;
	static const char *const names[] = {"a",     "a/b", "a/b/c", "a-b", "a.x", "b", "b/a",
					    "b/a/z", "b/b", "c",     "c/-", "c/d", "d"};
	_cleanup_tree_index_ struct tree_index *x = tree_index_new();
	bool there[array_len(names)] = {0};
	unsigned seed = 1;
	for (int step = 0; step < 20000; step++) {
		seed = seed * 1103515245 + 12345;
		size_t i = (seed >> 16) % array_len(names);
		if (seed >> 8 & 1) {
			struct tree_entry t = entry(names[i], TREE_DIR | 0755, 0);
			tree_index_put(x, &t);
			there[i] = true;
		} else {
			assert_int_equal(tree_index_remove(x, names[i]), there[i]);
			size_t n = strlen(names[i]);
			for (size_t k = 0; there[i] && k < array_len(names); k++)
				if (k != i && str_starts(names[k], names[i]) && names[k][n] == '/') there[k] = false;
			there[i] = false;
		}
		size_t count = 0;
		for (size_t k = 0; k < array_len(names); k++) {
			count += there[k];
			assert_int_equal(tree_index_find(x, names[k]) != NULL, there[k]);
		}
		assert_int_equal(tree_index_count(x), count);
		for (size_t k = 1; k < count; k++)
			assert_true(tree_path_cmp(tree_index_at(x, k - 1)->path, tree_index_at(x, k)->path) < 0);
	}
	/* a directory that becomes a file loses what was below */
	tree_index_remove(x, "");
	put(x, "d", TREE_DIR | 0755, "");
	put(x, "d/f", 0644, "f");
	put(x, "d-", 0644, "g");
	put(x, "d", 0644, "now a file");
	assert_int_equal(tree_index_count(x), 2);
	assert_null(tree_index_find(x, "d/f"));
}

static int stop_at(const struct tree_entry *t, void *arg, struct err *e)
{
	strvec_add(arg, t->path);
	if (strcmp(t->path, "dir/sub") == 0) return 1;
	return strcmp(t->path, "dir2") == 0 ? err_set(e, CODE_ABORTED, "enough") : 0;
}

static void test_walk_control(void **state)
{
	(void)state;
	_cleanup_strvec_ struct strvec got = {0};
	_cleanup_err_ struct err e = ERR_INIT;
	atomic_bool cancelled = true;
	struct tree_walk_opts o = {.cancelled = &cancelled};
	int fd = trees[tree_of("links")].fd;
	assert_int_equal(tree_walk(fd, NULL, stop_at, &got, &e), -1);
	assert_string_equal(e.msg, "enough");
	assert_int_equal(strvec_find(&got, "dir/sub/g"), -1);
	assert_true(strvec_find(&got, "dir/up") >= 0);
	assert_int_equal(tree_walk(fd, &o, stop_at, &got, &e), -1);
	assert_int_equal(e.code, CODE_CANCELLED);
	struct tree_index *x = NULL;
	assert_int_equal(tree_index_scan(fd, &cancelled, &x, &e), -1);
	assert_null(x);
}

/* Attributes: in the walk, and in the digest but for those of the security and system namespaces. */
static void test_xattrs(void **state)
{
	(void)state;
	_cleanup_free_ char *path = xasprintf("%s/none/x", base), *large = xmalloc(3000);
	memset(large, 'v', 3000);
	assert_int_equal(path_write_file(AT_FDCWD, path, "data", 4, 0644, false, NULL), 0);
	if (setxattr(path, "user.big", large, 3000, 0) < 0 || setxattr(path, "user.a", "", 0, 0) < 0) {
		print_message("no user attributes in /tmp: %s\n", strerror(errno));
		skip();
	}
	_cleanup_free_ char *dir = xasprintf("%s/none", base);
	_cleanup_close_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_tree_index_ struct tree_index *scanned = NULL, *synced = tree_index_new();
	struct sync s = {fd, synced};
	assert_int_equal(tree_walk(fd, NULL, sync_entry, &s, NULL), 0);
	struct tree_entry *t = tree_index_find(synced, "x");
	assert_int_equal(t->n_xattrs, 2);
	assert_true(strcmp(t->xattrs[0].name, "user.a") == 0 && t->xattrs[1].len == 3000);
	assert_int_equal(tree_index_scan(fd, NULL, &scanned, NULL), 0);
	assert_int_equal(tree_index_hash(scanned, fd, NULL, NULL), 0);
	assert_true(digest_eq(&tree_index_find(scanned, "x")->digest, &t->digest));
	struct digest with = tree_hash_header(t), without;
	tree_entry_xattr(t, "security.selinux", "s", 1);
	tree_entry_xattr(t, "system.acl", "s", 1);
	without = tree_hash_header(t);
	assert_true(digest_eq(&with, &without));
	tree_entry_xattr(t, "security.capability", "s", 1);
	without = tree_hash_header(t);
	assert_false(digest_eq(&with, &without));
}

/* Both files behind one link are found (fsutil finds the first only), and a loop ends. */
static void test_follow(void **state)
{
	(void)state;
	char p1[] = "ld/f1", p2[] = "ld/f2.txt", p3[] = "self/x/y", *paths[] = {p1, p2, p3};
	_cleanup_strvec_ struct strvec got = {0};
	assert_int_equal(tree_follow_links(trees[tree_of("links")].fd, paths, 3, &got, NULL), 0);
	_cleanup_free_ char *text = strvec_join(&got, " ");
	assert_string_equal(text, "dir/f1 dir/f2.txt ld self");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_examples),     cmocka_unit_test(test_empty_root), cmocka_unit_test(test_cases),
		cmocka_unit_test(test_save),         cmocka_unit_test(test_suspend),    cmocka_unit_test(test_index),
		cmocka_unit_test(test_walk_control), cmocka_unit_test(test_xattrs),     cmocka_unit_test(test_follow),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
