/* The tar room: the bytes of Go's writer, streams cut and damaged, layers unpacked, evil archives, diffs. */
#include "tar/tar.h"
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

static char dir[64];

static int setup(void **st)
{
	snprintf(dir, sizeof dir, "/tmp/test-tar.XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **st) { return path_remove_all(AT_FDCWD, dir, NULL); }

#define need_root() \
	if (geteuid()) skip()

static int sub(const char *name)
{
	_cleanup_free_ char *p = path_join(dir, name);
	mkdir(p, 0755);
	int fd = open(p, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

/* ---- archives in memory ---- */
struct made {
	struct buf bytes;
	struct tar_writer *w;
};

static void made_begin(struct made *m)
{
	m->bytes = BUF_INIT;
	m->w = tar_writer_new(tar_out_buf(&m->bytes));
}

static void add(struct made *m, struct tar_entry t, const char *data)
{
	struct err e = ERR_INIT;
	t.size = data ? (int64_t)strlen(data) : 0;
	if (!t.mtime.tv_sec && !t.mtime.tv_nsec) t.mtime.tv_sec = 1700000000;
	if (!t.mode) t.mode = t.type == TAR_DIR ? 0755 : 0644;
	if (geteuid()) t.uid = geteuid(), t.gid = getegid();
	assert_int_equal(tar_write_header(m->w, &t, &e), 0);
	if (data) assert_int_equal(tar_write_data(m->w, data, strlen(data), &e), 0);
}

static void made_end(struct made *m)
{
	assert_int_equal(tar_writer_finish(m->w, NULL), 0);
	tar_writer_free(m->w);
}

#define REG(n, d) add(&m, (struct tar_entry){.type = TAR_REG, .name = (n)}, d)
#define DIR_(n) add(&m, (struct tar_entry){.type = TAR_DIR, .name = (n)}, NULL)
#define LINK(n, to) add(&m, (struct tar_entry){.type = TAR_LINK, .name = (n), .linkname = (to)}, NULL)
#define SYM(n, to) add(&m, (struct tar_entry){.type = TAR_SYMLINK, .name = (n), .linkname = (to), .mode = 0777}, NULL)

static int apply_to(int fd, const void *p, size_t n, const struct tar_apply_opts *o, struct tar_pending *pending, struct err *e)
{
	struct tar_mem mem = {p, n};
	_cleanup_tar_reader_ struct tar_reader *r = tar_reader_new(tar_in_mem(&mem));
	return tar_apply(r, fd, o, pending, NULL, e);
}

static void expect_fail(struct made *m, enum tar_apply_mode mode, enum code code, const char *text)
{
	struct err e = ERR_INIT;
	struct tar_apply_opts o = TAR_APPLY_OPTS(mode);
	_cleanup_close_ int fd = sub("fail");
	made_end(m);
	assert_int_equal(apply_to(fd, m->bytes.p, m->bytes.n, &o, NULL, &e), -1);
	if (e.code != code || !strstr(e.msg, text)) fail_msg("got %d %s, want %d %s", e.code, e.msg, code, text);
	err_fini(&e);
	buf_fini(&m->bytes);
}

static bool holds(int fd, const char *name, const char *text)
{
	_cleanup_free_ uint8_t *p = NULL;
	size_t n;
	int in = path_read_file(fd, name, 1 << 20, &p, &n, NULL);
	return in == 0 && n == strlen(text) && !memcmp(p, text, n);
}

/* ---- the writer ---- */
static char *repeat(const char *s, int n)
{
	struct buf b = BUF_INIT;
	while (n--) buf_adds(&b, s);
	return buf_take_str(&b);
}

/* The digest is that of the same entries written by Go's archive/tar with Format: FormatPAX. */
static void writer_is_go(void **st)
{
	need_root(); /* add() would put our uid in */
	struct made m;
	_cleanup_free_ char *p90 = repeat("p", 90), *q95 = repeat("q", 95), *n150 = repeat("n", 150), *d80 = repeat("d/", 80),
			    *t70 = repeat("t/", 70), *s99 = repeat("s", 99), *v985 = repeat("v", 985);
	_cleanup_free_ char *split = xasprintf("%s/%s", p90, q95), *sx = xasprintf("%s/x/", s99);
	const struct tar_xattr caps[] = {{"user.a", "", 0}, {"security.capability", "\x01\x00\x00\x02\x00 =\n", 8}};
	const struct tar_xattr big[] = {{"user.b", v985, 985}};
	made_begin(&m);
	DIR_("dir/");
	add(&m, (struct tar_entry){.type = TAR_REG, .name = "dir/file", .mode = 04755, .uid = 1000, .gid = 1001}, "hello\n");
	REG(split, "split");
	REG(n150, "long");
	add(&m, (struct tar_entry){.type = TAR_DIR, .name = d80, .mode = 0700}, NULL);
	add(&m, (struct tar_entry){.type = TAR_REG, .name = "ünï", .uid = 3000000, .gid = 9000000}, "u");
	SYM("link", t70);
	add(&m, (struct tar_entry){.type = TAR_LINK, .name = "hard", .linkname = "dir/file", .mode = 04755}, NULL);
	add(&m, (struct tar_entry){.type = TAR_CHAR, .name = "dev", .mode = 0600, .devmajor = 5, .devminor = 1}, NULL);
	add(&m, (struct tar_entry){.type = TAR_REG, .name = "frac", .mtime = {-2, 750000000}}, NULL);
	add(&m, (struct tar_entry){.type = TAR_REG, .name = "old", .mtime = {(1ll << 33) + 5, 500}}, NULL);
	add(&m, (struct tar_entry){.type = TAR_REG, .name = "cap", .mode = 0755, .xattrs = caps, .n_xattrs = 2}, "c");
	add(&m, (struct tar_entry){.type = TAR_DIR, .name = sx, .xattrs = big, .n_xattrs = 1}, NULL);
	made_end(&m);
	char digest[DIGEST_STR];
	digest_str_of(m.bytes.p, m.bytes.n, digest);
	assert_string_equal(digest, "sha256:2c4f8c517903a1c518776a489f891fb8bb6a76ccbac547a9b75ffa7ee2e7be35");
	/* and our reader gives back what went in */
	struct tar_mem mem = {m.bytes.p, m.bytes.n};
	_cleanup_tar_reader_ struct tar_reader *r = tar_reader_new(tar_in_mem(&mem));
	struct tar_entry t;
	const char *names[] = {"dir/", "dir/file", split, n150, d80, "ünï", "link", "hard", "dev", "frac", "old", "cap", sx};
	for (size_t i = 0; i < array_len(names); i++) {
		assert_int_equal(tar_read_next(r, &t, NULL), 1);
		assert_string_equal(t.name, names[i]);
		if (i == 5) assert_true(t.uid == 3000000 && t.gid == 9000000 && t.size == 1);
		if (i == 6) assert_string_equal(t.linkname, t70);
		if (i == 8) assert_true(t.devmajor == 5 && t.devminor == 1);
		if (i == 9) assert_true(t.mtime.tv_sec == -2 && t.mtime.tv_nsec == 750000000);
		if (i == 11)
			assert_true(t.n_xattrs == 2 && t.xattrs[0].len == 8 &&
				    !memcmp(t.xattrs[0].value, "\x01\x00\x00\x02\x00 =\n", 8));
	}
	assert_int_equal(tar_read_next(r, &t, NULL), 0);
	buf_fini(&m.bytes);
}

static void writer_refuses(void **st)
{
	struct made m;
	struct err e = ERR_INIT;
	made_begin(&m);
	struct tar_entry t = {.type = TAR_REG, .name = "a", .size = 3};
	assert_int_equal(tar_write_header(m.w, &t, &e), 0);
	assert_int_equal(tar_write_data(m.w, "abcd", 4, &e), -1);
	err_fini(&e);
	assert_int_equal(tar_write_data(m.w, "ab", 2, &e), 0);
	assert_int_equal(tar_write_header(m.w, &t, &e), -1);
	err_fini(&e);
	assert_int_equal(tar_writer_finish(m.w, &e), -1);
	err_fini(&e);
	tar_writer_free(m.w);
	buf_fini(&m.bytes);
}

/* ---- compression ---- */
static void compress(const struct buf *in, enum tar_kind k, int threads, size_t step, struct buf *out, struct tar_sums *sums)
{
	_cleanup_tar_comp_ struct tar_comp *c = NULL;
	assert_int_equal(tar_comp_new(tar_out_buf(out), k, TAR_LEVEL_DEFAULT, threads, &c, NULL), 0);
	struct tar_out o = tar_comp_out(c);
	for (size_t at = 0; at < in->n; at += step)
		assert_int_equal(o.write(o.ctx, in->p + at, min_of(step, in->n - at), NULL), 0);
	assert_int_equal(tar_comp_finish(c, sums, NULL), 0);
}

static int decompress(const void *p, size_t n, int64_t max, struct buf *out, struct err *e)
{
	struct tar_mem mem = {p, n};
	_cleanup_tar_decomp_ struct tar_decomp *d = NULL;
	return tar_decomp_new(tar_in_mem(&mem), max, &d, e) < 0 ? -1 : tar_copy(tar_decomp_in(d), tar_out_buf(out), NULL, e);
}

static void compression(void **st)
{
	_cleanup_buf_ struct buf in = BUF_INIT;
	uint32_t x = 1;
	for (int i = 0; i < 700000; i++) {
		x = x * 1664525 + 1013904223;
		buf_addf(&in, "%x ", x >> 26);
	}
	for (enum tar_kind k = TAR_PLAIN; k <= TAR_ZSTD; k++) {
		_cleanup_buf_ struct buf one = BUF_INIT, three = BUF_INIT, back = BUF_INIT;
		struct tar_sums s1, s3;
		char want[DIGEST_STR];
		compress(&in, k, 1, in.n, &one, &s1);
		compress(&in, k, 3, 10007, &three, &s3);
		assert_true(one.n == three.n && !memcmp(one.p, three.p, one.n));
		digest_str_of(in.p, in.n, want);
		assert_string_equal(s1.diff_id, want);
		digest_str_of(one.p, one.n, want);
		assert_string_equal(s3.digest, want);
		assert_true(s1.size == (int64_t)one.n && s1.diff_size == (int64_t)in.n);
		assert_int_equal(tar_detect(one.p, one.n), k);
		assert_int_equal(decompress(one.p, one.n, 0, &back, NULL), 0);
		assert_true(back.n == in.n && !memcmp(back.p, in.p, in.n));
		if (k == TAR_PLAIN) continue;
		struct err e = ERR_INIT;
		buf_reset(&back);
		assert_int_equal(decompress(one.p, one.n - 3, 0, &back, &e), -1);
		assert_int_equal(e.code, CODE_DATA_LOSS);
		err_fini(&e);
		one.p[one.n / 2] ^= 0x10;
		buf_reset(&back);
		assert_int_equal(decompress(one.p, one.n, 0, &back, &e), -1);
		err_fini(&e);
		one.p[one.n / 2] ^= 0x10;
		buf_reset(&back);
		assert_int_equal(decompress(one.p, one.n, 1000, &back, &e), -1);
		assert_int_equal(e.code, CODE_RESOURCE_EXHAUSTED);
		err_fini(&e);
		buf_adds(&one, "garbage");
		buf_reset(&back);
		assert_int_equal(decompress(one.p, one.n, 0, &back, &e), -1);
		err_fini(&e);
	}
}

/* Others read our gzip, and we theirs. */
static void other_tools(void **st)
{
	_cleanup_buf_ struct buf in = BUF_INIT, gz = BUF_INIT;
	struct tar_sums s;
	for (int i = 0; i < 400000; i++) buf_addf(&in, "%u\n", (i * 7919u) & 0xffffff);
	compress(&in, TAR_GZIP, 2, in.n, &gz, &s);
	_cleanup_close_ int fd = sub("tools");
	assert_int_equal(path_write_file(fd, "in", in.p, in.n, 0644, false, NULL), 0);
	assert_int_equal(path_write_file(fd, "gz", gz.p, gz.n, 0644, false, NULL), 0);
	static const char *const cmd[] = {
		"gzip -t < %s/tools/gz && gzip -dc < %s/tools/gz | cmp - %s/tools/in",
		"python3 -c 'import gzip,sys; sys.exit(gzip.open(\"%s/tools/gz\").read() != "
		"open(\"%s/tools/in\",\"rb\").read())' # %s",
		"cd %s/tools && xz -kc in > xz && bzip2 -kc in > bz2 && zstd -q -c in > zst; gzip -c in > gz2 # %s %s",
	};
	for (size_t i = 0; i < array_len(cmd); i++) {
		char line[512];
		snprintf(line, sizeof line, i == 0 ? cmd[0] : i == 1 ? cmd[1] : cmd[2], dir, dir, dir);
		assert_int_equal(system(line), 0);
	}
	static const char *const made[] = {"xz", "bz2", "gz2"};
	for (size_t i = 0; i < array_len(made); i++) {
		_cleanup_free_ uint8_t *p = NULL;
		_cleanup_buf_ struct buf back = BUF_INIT;
		size_t n;
		if (path_read_file(fd, made[i], 1 << 24, &p, &n, NULL) < 0 || !n) continue; /* tool not here */
		assert_int_equal(decompress(p, n, 0, &back, NULL), 0);
		assert_true(back.n == in.n && !memcmp(back.p, in.p, in.n));
		buf_reset(&back);
		assert_int_equal(decompress(p, n - 20, 0, &back, NULL), -1);
	}
}

/* ---- evil archives ---- */
static void evil(void **st)
{
	struct made m;
	made_begin(&m);
	REG("../x", "evil");
	expect_fail(&m, TAR_APPLY_OVERLAY, CODE_INVALID_ARGUMENT, "archive entry \"../x\": its name leads out");
	made_begin(&m);
	REG("a/../../x", "evil");
	expect_fail(&m, TAR_APPLY_PLAIN, CODE_INVALID_ARGUMENT, "leads out");
	made_begin(&m);
	LINK("pw", "../../../etc/passwd");
	expect_fail(&m, TAR_APPLY_OVERLAY, CODE_INVALID_ARGUMENT, "archive entry \"pw\": hard link");
	made_begin(&m);
	LINK("pw", "/etc/passwd"); /* inside the root there is none */
	expect_fail(&m, TAR_APPLY_OVERLAY, CODE_NOT_FOUND, "pw");
	made_begin(&m);
	REG("f", "file");
	REG("f/below", "x");
	expect_fail(&m, TAR_APPLY_OVERLAY, CODE_UNKNOWN, "f/below");
	made_begin(&m);
	REG("a/.wh...", "");
	expect_fail(&m, TAR_APPLY_OVERLAY, CODE_INVALID_ARGUMENT, "invalid whiteout");
	made_begin(&m);
	_cleanup_free_ char *long_part = repeat("x", 256);
	REG(long_part, "");
	expect_fail(&m, TAR_APPLY_PLAIN, CODE_INVALID_ARGUMENT, "longer than 255");
	made_begin(&m);
	_cleanup_free_ char *deep = repeat("d/", 2000), *huge = repeat("abcdefghi/", 7000);
	DIR_(deep);
	expect_fail(&m, TAR_APPLY_PLAIN, CODE_INVALID_ARGUMENT, "nested too deeply");
	made_begin(&m);
	DIR_(huge);
	expect_fail(&m, TAR_APPLY_PLAIN, CODE_INVALID_ARGUMENT, "longer than 65536");
}

/* Links that point out are followed inside: nothing appears outside, and what is outside is not touched. */
static void links_stay_in(void **st)
{
	_cleanup_close_ int out = sub("outside"), fd = sub("inside");
	struct made m;
	struct err e = ERR_INIT;
	struct tar_apply_opts o = TAR_APPLY_OPTS(TAR_APPLY_PLAIN);
	_cleanup_free_ char *outside = path_join(dir, "outside"), *up = xasprintf("../outside");
	made_begin(&m);
	SYM("abs", outside);
	SYM("rel", up);
	DIR_("real/");
	SYM("ok", "/real");
	REG("ok/file", "in");
	REG("/rooted", "r");
	made_end(&m);
	assert_int_equal(apply_to(fd, m.bytes.p, m.bytes.n, &o, NULL, &e), 0);
	assert_true(holds(fd, "real/file", "in") && holds(fd, "rooted", "r"));
	buf_fini(&m.bytes);
	static const char *const through[] = {"abs/x", "rel/x"};
	for (size_t i = 0; i < array_len(through); i++) {
		made_begin(&m);
		REG(through[i], "evil");
		made_end(&m);
		assert_int_equal(apply_to(fd, m.bytes.p, m.bytes.n, &o, NULL, &e), -1);
		assert_non_null(strstr(e.msg, through[i]));
		err_fini(&e);
		buf_fini(&m.bytes);
	}
	/* a link in the place of a file is replaced, not written through */
	made_begin(&m);
	SYM("victim", "../outside/made");
	REG("victim", "safe");
	made_end(&m);
	assert_int_equal(apply_to(fd, m.bytes.p, m.bytes.n, &o, NULL, &e), 0);
	assert_true(holds(fd, "victim", "safe"));
	buf_fini(&m.bytes);
	assert_int_equal(faccessat(out, "x", F_OK, 0), -1);
	assert_int_equal(faccessat(out, "made", F_OK, 0), -1);
}

/* Cut at every block, and one bit wrong in every header byte: an error or fewer entries, never a crash. */
static void damaged(void **st)
{
	struct made m;
	made_begin(&m);
	_cleanup_free_ char *n150 = repeat("n", 150), *data = repeat("data", 300);
	REG(n150, data);
	DIR_("d/");
	REG("d/e", "x");
	made_end(&m);
	for (size_t n = 1; n < m.bytes.n - 1024; n += 100) {
		struct tar_mem mem = {m.bytes.p, n};
		_cleanup_tar_reader_ struct tar_reader *r = tar_reader_new(tar_in_mem(&mem));
		struct tar_entry t;
		struct err e = ERR_INIT;
		int k;
		while ((k = tar_read_next(r, &t, &e)) > 0) {
		}
		bool at_header = k == 0; /* cut exactly where an entry ends */
		if (!at_header)
			assert_int_equal(e.code, CODE_DATA_LOSS);
		else
			assert_int_equal(n % 512, 0);
		err_fini(&e);
	}
	for (size_t i = 0; i < m.bytes.n; i++) {
		m.bytes.p[i] ^= 0x44;
		struct tar_mem mem = {m.bytes.p, m.bytes.n};
		_cleanup_tar_reader_ struct tar_reader *r = tar_reader_new(tar_in_mem(&mem));
		struct tar_entry t;
		int k;
		while ((k = tar_read_next(r, &t, NULL)) > 0) {
		}
		if (i < 512) assert_int_equal(k, -1); /* under the checksum of the first header */
		m.bytes.p[i] ^= 0x44;
	}
	buf_fini(&m.bytes);
}

static void sparse(void **st)
{
	_cleanup_close_ int fd = sub("sparse");
	char cmd[400];
	static const char *const format[] = {"gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1",
					     "pax --sparse-version=1.0"};
	for (size_t i = 0; i < array_len(format); i++) {
		snprintf(cmd, sizeof cmd,
			 "cd %s/sparse && rm -rf f out && truncate -s 3000000 f && for i in 1 5 9 13 17 21 25 29; do printf "
			 "data$i | dd of=f bs=1 "
			 "seek=$((i*90000)) conv=notrunc status=none; done && tar -S --format=%s -cf t.tar f 2>/dev/null",
			 dir, format[i]);
		if (system(cmd)) skip();
		_cleanup_free_ uint8_t *p = NULL;
		size_t n;
		assert_int_equal(path_read_file(fd, "t.tar", 1 << 24, &p, &n, NULL), 0);
		assert_true(n < 200000);
		_cleanup_close_ int out = sub("sparse/out");
		struct tar_apply_opts o = TAR_APPLY_OPTS(TAR_APPLY_PLAIN);
		struct err e = ERR_INIT;
		if (apply_to(out, p, n, &o, NULL, &e)) fail_msg("%s: %s", format[i], e.msg);
		snprintf(cmd, sizeof cmd, "cmp %s/sparse/f %s/sparse/out/f", dir, dir);
		assert_int_equal(system(cmd), 0);
	}
}

/* ---- layers ---- */
static bool whiteout_at(int fd, const char *name)
{
	struct stat st;
	return fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == 0;
}

static bool opaque_at(int fd, const char *name)
{
	_cleanup_close_ int d = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char c;
	return d >= 0 && fgetxattr(d, "trusted.overlay.opaque", &c, 1) == 1 && c == 'y';
}

static void whiteouts(void **st)
{
	need_root();
	struct made m;
	struct err e = ERR_INIT;
	made_begin(&m);
	DIR_("a/");
	REG("a/.wh.gone", NULL);
	DIR_("b/");
	REG("b/.wh..wh..opq", NULL);
	REG("b/new", "n");
	REG(".wh.c", NULL); /* c is whited out, then made anew: it must hide what is below */
	DIR_("c/");
	REG("c/x", "x");
	DIR_("d/"); /* the other way round */
	REG(".wh.d", NULL);
	REG(".wh.e", NULL);
	REG("e/f", "parent not named");
	REG(".wh..wh.plnk", NULL);
	made_end(&m);
	struct tar_apply_opts o = TAR_APPLY_OPTS(TAR_APPLY_OVERLAY);
	_cleanup_close_ int fd = sub("overlay");
	if (apply_to(fd, m.bytes.p, m.bytes.n, &o, NULL, &e)) fail_msg("%s", e.msg);
	assert_true(whiteout_at(fd, "a/gone"));
	assert_true(opaque_at(fd, "b") && !opaque_at(fd, "a"));
	assert_true(opaque_at(fd, "c") && opaque_at(fd, "d") && opaque_at(fd, "e"));
	assert_true(holds(fd, "b/new", "n") && holds(fd, "c/x", "x") && holds(fd, "e/f", "parent not named"));
	/* the same on a full tree */
	_cleanup_close_ int tree = sub("merged");
	static const char *const there[] = {"a", "b", "b/sub", "c", "d", "e"};
	for (size_t i = 0; i < array_len(there); i++) mkdirat(tree, there[i], 0755);
	static const char *const files[] = {"a/gone", "a/stays", "b/old", "b/sub/old", "c/old", "e/old"};
	for (size_t i = 0; i < array_len(files); i++) path_write_file(tree, files[i], "o", 1, 0644, false, NULL);
	o.mode = TAR_APPLY_MERGED;
	if (apply_to(tree, m.bytes.p, m.bytes.n, &o, NULL, &e)) fail_msg("%s", e.msg);
	static const char *const gone[] = {"a/gone", "b/old", "b/sub", "c/old", "e/old"};
	for (size_t i = 0; i < array_len(gone); i++) assert_int_equal(faccessat(tree, gone[i], F_OK, AT_SYMLINK_NOFOLLOW), -1);
	assert_true(holds(tree, "a/stays", "o") && holds(tree, "b/new", "n") && holds(tree, "c/x", "x"));
	/* and for ADD they are plain names */
	_cleanup_close_ int plain = sub("plain");
	o.mode = TAR_APPLY_PLAIN;
	assert_int_equal(apply_to(plain, m.bytes.p, m.bytes.n, &o, NULL, &e), 0);
	assert_true(holds(plain, "a/.wh.gone", ""));
	buf_fini(&m.bytes);
}

static void metadata(void **st)
{
	need_root();
	struct made m;
	struct stat s;
	const struct tar_xattr x[] = {{"user.k", "v", 1}, {"trusted.overlay.opaque", "y", 1}, {"trusted.other", "y", 1}};
	made_begin(&m);
	add(&m,
	    (struct tar_entry){.type = TAR_DIR,
			       .name = "d/",
			       .mode = 02750,
			       .uid = 5,
			       .gid = 6,
			       .mtime = {1000, 0},
			       .xattrs = x,
			       .n_xattrs = 3},
	    NULL);
	add(&m,
	    (struct tar_entry){.type = TAR_REG,
			       .name = "d/f",
			       .mode = 06755,
			       .uid = 70000,
			       .gid = 80000,
			       .mtime = {2000, 5},
			       .xattrs = x,
			       .n_xattrs = 1},
	    "f");
	add(&m,
	    (struct tar_entry){
		    .type = TAR_SYMLINK, .name = "d/s", .linkname = "nowhere", .uid = 7, .gid = 8, .mtime = {3000, 0}},
	    NULL);
	add(&m, (struct tar_entry){.type = TAR_FIFO, .name = "d/p", .mode = 0622}, NULL);
	LINK("h", "d/f");
	made_end(&m);
	struct tar_apply_opts o = TAR_APPLY_OPTS(TAR_APPLY_OVERLAY);
	_cleanup_close_ int fd = sub("meta");
	mode_t was = umask(077);
	assert_int_equal(apply_to(fd, m.bytes.p, m.bytes.n, &o, NULL, NULL), 0);
	umask(was);
	assert_int_equal(fstatat(fd, "d", &s, 0), 0);
	assert_true(s.st_mode == (S_IFDIR | 02750) && s.st_uid == 5 && s.st_gid == 6 && s.st_mtim.tv_sec == 1000);
	assert_int_equal(fstatat(fd, "h", &s, 0), 0);
	assert_true(s.st_mode == (S_IFREG | 06755) && s.st_uid == 70000 && s.st_gid == 80000 && s.st_nlink == 2);
	assert_true(s.st_mtim.tv_sec == 2000 && s.st_mtim.tv_nsec == 5);
	assert_int_equal(fstatat(fd, "d/s", &s, AT_SYMLINK_NOFOLLOW), 0);
	assert_true(S_ISLNK(s.st_mode) && s.st_uid == 7 && s.st_mtim.tv_sec == 3000);
	assert_int_equal(fstatat(fd, "d/p", &s, 0), 0);
	assert_true(s.st_mode == (S_IFIFO | 0622));
	_cleanup_close_ int d = openat(fd, "d", O_RDONLY | O_DIRECTORY);
	char c[8];
	assert_int_equal(fgetxattr(d, "user.k", c, sizeof c), 1);
	assert_int_equal(fgetxattr(d, "trusted.other", c, sizeof c), -1);
	assert_false(opaque_at(fd, "d"));
	buf_fini(&m.bytes);
}

/* Parents and link targets that only the layers below have. */
static void lower_layers(void **st)
{
	need_root();
	_cleanup_close_ int low = sub("low"), up = sub("up");
	struct stat s;
	struct err e = ERR_INIT;
	mkdirat(low, "p", 0755);
	mkdirat(low, "p/q", 0755);
	path_write_file(low, "p/q/t", "target", 6, 0640, false, NULL);
	assert_int_equal(fchownat(low, "p/q/t", 11, 12, 0), 0);
	assert_int_equal(fchownat(low, "p/q", 9, 10, 0), 0);
	fchmodat(low, "p/q", 01777, 0);
	struct timespec ts[2] = {{500, 0}, {500, 0}};
	utimensat(low, "p/q", ts, 0);
	utimensat(low, "p", ts, 0);
	struct made m;
	made_begin(&m);
	REG("p/new", "n");
	DIR_("z/");
	LINK("z/l", "p/q/t");
	LINK("z/l2", "z/l");
	made_end(&m);
	struct tar_apply_opts o = TAR_APPLY_OPTS(TAR_APPLY_OVERLAY);
	_cleanup_tar_pending_ struct tar_pending pending = {0};
	if (apply_to(up, m.bytes.p, m.bytes.n, &o, &pending, &e)) fail_msg("%s", e.msg);
	assert_int_equal(pending.names.n, 2);
	assert_int_equal(faccessat(up, "z/l", F_OK, 0), -1);
	if (tar_apply_fixup(&pending, up, low, &o, &e)) fail_msg("%s", e.msg);
	assert_true(holds(up, "z/l", "target") && holds(up, "z/l2", "target"));
	assert_int_equal(fstatat(up, "p/q/t", &s, 0), 0);
	assert_true(s.st_nlink == 3 && s.st_uid == 11 && s.st_gid == 12 && (s.st_mode & 07777) == 0640);
	assert_int_equal(fstatat(up, "p/q", &s, 0), 0);
	assert_true((s.st_mode & 07777) == 01777 && s.st_uid == 9 && s.st_mtim.tv_sec == 500);
	assert_int_equal(fstatat(up, "p", &s, 0), 0);
	assert_int_equal(s.st_mtim.tv_sec, 500);
	assert_int_equal(fstatat(up, "z", &s, 0), 0);
	assert_int_equal(s.st_mtim.tv_sec, 1700000000);
	/* in no layer at all */
	_cleanup_close_ int other = sub("other");
	assert_int_equal(tar_apply_fixup(&pending, other, other, &o, &e), -1);
	assert_int_equal(e.code, CODE_NOT_FOUND);
	err_fini(&e);
	buf_fini(&m.bytes);
}

/* ---- diff ---- */
static char *listing(const struct buf *b)
{
	struct tar_mem mem = {b->p, b->n};
	_cleanup_tar_reader_ struct tar_reader *r = tar_reader_new(tar_in_mem(&mem));
	struct tar_entry t;
	struct buf out = BUF_INIT;
	while (tar_read_next(r, &t, NULL) > 0) {
		buf_addf(&out, "%s%s%s ", t.name, t.type == TAR_LINK ? "=" : "", t.type == TAR_LINK ? t.linkname : "");
	}
	return buf_take_str(&out);
}

static char *diff_of(int low, int up, bool trees)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct err e = ERR_INIT;
	_cleanup_tar_writer_ struct tar_writer *w = tar_writer_new(tar_out_buf(&b));
	if ((trees ? tar_diff_trees(low, up, w, &e) : tar_diff_overlay(up, low, w, &e)) || tar_writer_finish(w, &e))
		fail_msg("%s", e.msg);
	return listing(&b);
}

static void diffs(void **st)
{
	need_root();
	_cleanup_close_ int low = sub("dl"), up = sub("du"), full = sub("df");
	struct made m;
	made_begin(&m);
	DIR_("a/");
	REG("a/keep", "k");
	REG("a/del", "d");
	DIR_("o/");
	REG("o/old", "o");
	REG("o/both", "b");
	LINK("o/link", "o/both");
	DIR_("rm/");
	REG("rm/x", "x");
	SYM("sl", "a");
	made_end(&m);
	struct tar_apply_opts o = TAR_APPLY_OPTS(TAR_APPLY_OVERLAY);
	assert_int_equal(apply_to(low, m.bytes.p, m.bytes.n, &o, NULL, NULL), 0);
	o.mode = TAR_APPLY_MERGED;
	assert_int_equal(apply_to(full, m.bytes.p, m.bytes.n, &o, NULL, NULL), 0);
	buf_fini(&m.bytes);
	made_begin(&m);
	DIR_("a/");
	REG("a/.wh.del", NULL);
	REG("a/keep", "k"); /* copied up, not changed */
	REG("a/nothing/.wh.there", NULL);
	DIR_("o/");
	REG("o/.wh..wh..opq", NULL);
	REG("o/both", "b");
	LINK("o/new", "o/both");
	REG(".wh.rm", NULL);
	DIR_("sl/");
	REG("sl/in", "i");
	REG("foo.d", "1");
	DIR_("foo/");
	REG("foo/z", "1");
	made_end(&m);
	o.mode = TAR_APPLY_OVERLAY;
	assert_int_equal(apply_to(up, m.bytes.p, m.bytes.n, &o, NULL, NULL), 0);
	o.mode = TAR_APPLY_MERGED;
	assert_int_equal(apply_to(full, m.bytes.p, m.bytes.n, &o, NULL, NULL), 0);
	buf_fini(&m.bytes);
	_cleanup_free_ char *over = diff_of(low, up, false);
	assert_string_equal(
		over, "a/ a/.wh.del a/nothing/ foo/ foo/z foo.d o/ o/.wh.link o/new o/both=o/new o/.wh.old .wh.rm sl/ sl/in ");
	_cleanup_free_ char *trees = diff_of(low, full, true);
	assert_string_equal(trees, over);
	_cleanup_free_ char *none = diff_of(-1, up, false);
	assert_string_equal(none, "a/ a/keep a/nothing/ foo/ foo/z foo.d o/ o/both o/new=o/both sl/ sl/in ");
	_cleanup_free_ char *same = diff_of(full, full, true);
	assert_string_equal(same, "");
}

static void clamped(void **st)
{
	struct made m;
	made_begin(&m);
	add(&m, (struct tar_entry){.type = TAR_REG, .name = "new", .mtime = {5000, 7}}, "x");
	add(&m, (struct tar_entry){.type = TAR_REG, .name = "old", .mtime = {50, 0}}, "y");
	made_end(&m);
	_cleanup_buf_ struct buf out = BUF_INIT;
	struct tar_mem mem = {m.bytes.p, m.bytes.n};
	_cleanup_tar_reader_ struct tar_reader *r = tar_reader_new(tar_in_mem(&mem));
	_cleanup_tar_writer_ struct tar_writer *w = tar_writer_new(tar_out_buf(&out));
	assert_int_equal(tar_clamp(r, (struct timespec){100, 0}, w, NULL), 0);
	mem = (struct tar_mem){out.p, out.n};
	_cleanup_tar_reader_ struct tar_reader *back = tar_reader_new(tar_in_mem(&mem));
	struct tar_entry t;
	assert_int_equal(tar_read_next(back, &t, NULL), 1);
	assert_true(t.mtime.tv_sec == 100 && t.mtime.tv_nsec == 0 && t.size == 1);
	assert_int_equal(tar_read_next(back, &t, NULL), 1);
	assert_int_equal(t.mtime.tv_sec, 50);
	buf_fini(&m.bytes);
}

static void detects_archives(void **st)
{
	struct made m;
	made_begin(&m);
	REG("x", "y");
	made_end(&m);
	_cleanup_buf_ struct buf gz = BUF_INIT;
	struct tar_sums s;
	compress(&m.bytes, TAR_GZIP, 1, 512, &gz, &s);
	const struct {
		const void *p;
		size_t n;
		bool is;
	} cases[] = {{m.bytes.p, m.bytes.n, true}, {gz.p, gz.n, true}, {"hello", 5, false}, {"", 0, false}, {gz.p, 30, false}};
	for (size_t i = 0; i < array_len(cases); i++) {
		struct tar_mem mem = {cases[i].p, cases[i].n};
		assert_int_equal(tar_is_archive(tar_in_mem(&mem)), cases[i].is);
	}
	buf_fini(&m.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writer_is_go), cmocka_unit_test(writer_refuses),
		cmocka_unit_test(compression),  cmocka_unit_test(other_tools),
		cmocka_unit_test(evil),         cmocka_unit_test(links_stay_in),
		cmocka_unit_test(damaged),      cmocka_unit_test(sparse),
		cmocka_unit_test(whiteouts),    cmocka_unit_test(metadata),
		cmocka_unit_test(lower_layers), cmocka_unit_test(diffs),
		cmocka_unit_test(clamped),      cmocka_unit_test(detects_archives),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
