/* A client played by hand: what Docker's client sends (no proof of freshness), and what an attacker would send. */
#include "rig.h"

struct fake_file {
	const char *path;
	uint32_t mode;
	const char *text, *link;
	int64_t mtime_ns, size; /* size -1: that of text */
};
struct fake {
	struct rig *r;
	const struct fake_file *files;
	size_t n, asked;
	int fail_at; /* answer this id with an error; -1: none */
	struct wire_call *call;
	char told[512]; /* the error the receiver sent */
	/* instead of files: raw packets */
	const char *raw;
	size_t n_raw;
};

static void fake_send(struct wire_call *c, const struct buf *b) { wire_call_send(c, b->p ? b->p : (const uint8_t *)"", b->n); }

static void fake_message(struct wire_call *c, const uint8_t *p, size_t n)
{
	struct fake *f = c->user;
	_cleanup_sess_packet_ struct sess_packet pk = {0};
	_cleanup_buf_ struct buf b = BUF_INIT;
	assert_int_equal(sess_packet_read(&pk, p, n, NULL), 0);
	if (pk.type == SESS_PACKET_ERR) snprintf(f->told, sizeof f->told, "%.*s", (int)pk.n_data, pk.data);
	if (pk.type == SESS_PACKET_FIN) {
		sess_packet_add(&b, SESS_PACKET_FIN, 0, NULL, 0);
		fake_send(c, &b);
		wire_call_finish(c, NULL);
	}
	if (pk.type != SESS_PACKET_REQ) return;
	f->asked++;
	if ((int)pk.id == f->fail_at) {
		sess_packet_add(&b, SESS_PACKET_ERR, 0, "disk on fire", 12);
		fake_send(c, &b);
		return;
	}
	const char *text = pk.id < f->n ? f->files[pk.id].text : NULL; /* a request of the listing before may come late */
	if (!text) return;
	sess_packet_add(&b, SESS_PACKET_DATA, pk.id, text, strlen(text));
	if (*text) fake_send(c, &b);
	buf_reset(&b);
	sess_packet_add(&b, SESS_PACKET_DATA, pk.id, NULL, 0);
	fake_send(c, &b);
}

static void fake_half(struct wire_call *c) { wire_call_finish(c, NULL); }
static const struct wire_call_ops fake_ops = {.message = fake_message, .half_closed = fake_half};

static void fake_start(void *arg, struct wire_call *call)
{
	struct fake *f = arg;
	_cleanup_buf_ struct buf b = BUF_INIT;
	call->ops = &fake_ops;
	call->user = f;
	f->asked = 0;
	wire_call_send_headers(call);
	if (f->raw) {
		wire_call_send(call, f->raw, f->n_raw);
		return;
	}
	for (size_t i = 0; i < f->n; i++) {
		const struct fake_file *x = &f->files[i];
		struct tree_entry t = {
			.path = (char *)(uintptr_t)x->path, .mode = x->mode, .linkname = (char *)(uintptr_t)x->link};
		t.mtime_ns = x->mtime_ns;
		t.size = x->size ? x->size : x->text ? (int64_t)strlen(x->text) : 0;
		buf_reset(&b);
		sess_packet_add_stat(&b, &t, false);
		fake_send(call, &b);
	}
	wire_call_send(call, "", 0);
}

static int sync_fake(struct fake *f, const struct fake_file *files, size_t n)
{
	f->files = files;
	f->n = n;
	*f->told = 0;
	return rig_sync(f->r, NULL);
}
#define SYNC(f, files) sync_fake(f, files, array_len(files))

static struct fake *fake_new(struct rig *r)
{
	static struct fake f;
	f = (struct fake){.r = r, .fail_at = -1};
	sess_client_add_method(r->client, METHOD_FILESYNC_DIFF_COPY, fake_start, &f);
	rig_connect(r);
	return &f;
}

static void expect(struct rig *r, const char *path, const char *text)
{
	_cleanup_free_ char *got = get_file(r, path);
	assert_string_equal(got, text);
}

enum { S = 1000000000 };
#define T0 (1700000000ll * S)

/* Docker's client: which stamps are trusted. */
static void test_stamps(void **state)
{
	struct rig *r = *state;
	struct fake *f = fake_new(r);
	struct fake_file v[] = {
		{"future", 0644, "f1", NULL, 4000000000ll * S + 5, 0},
		{"shared1", 0644, "a1", NULL, T0 + 77, 0},
		{"shared2", 0644, "b1", NULL, T0 + 77, 0},
		{"unique", 0644, "u1", NULL, T0 + 123456789, 0},
		{"whole", 0644, "w1", NULL, T0, 0},
	};
	assert_int_equal(SYNC(f, v), 0);
	assert_int_equal(f->asked, 5);
	assert_int_equal(SYNC(f, v), 0);
	assert_int_equal(f->asked, 4); /* all but the unique one */
	assert_int_equal(r->st.requested_again, 4);
	assert_int_equal(r->st.changed, 0);
	check_index(r);
	/* other bytes under the same stamps and sizes */
	v[0].text = "f2";
	v[1].text = "a2";
	v[2].text = "b2";
	v[4].text = "w2";
	assert_int_equal(SYNC(f, v), 0);
	expect(r, "dst/future", "f2");
	expect(r, "dst/shared1", "a2");
	expect(r, "dst/shared2", "b2");
	expect(r, "dst/whole", "w2");
	expect(r, "dst/unique", "u1");
	assert_int_equal(r->st.changed, 4);
	check_index(r);
	/* shorter and longer than was said, under the same stat */
	v[4].text = "w";
	v[4].size = 2;
	v[1].text = "a2-and-more";
	v[1].size = 2;
	assert_int_equal(SYNC(f, v), 0);
	expect(r, "dst/whole", "w");
	expect(r, "dst/shared1", "a2-and-more");
}

static void test_failure_keeps_index_true(void **state)
{
	struct rig *r = *state;
	struct fake *f = fake_new(r);
	const struct fake_file v1[] =
		{
			{"a", TREE_DIR | 0755, NULL, NULL, T0, 0}, {"a/f", 0644, "f1", NULL, T0 + 1, 0},
			{"a/g", 0644, "g1", NULL, T0 + 2, 0},      {"h", 0644, NULL, "a/f", T0 + 1, 0},
			{"z", 0644, "z1", NULL, T0 + 3, 0},
		},
			       v2[] = {
				       {"a", TREE_DIR | 0700, NULL, NULL, T0 + 5, 0}, {"a/e", 0644, "e2", NULL, T0 + 10, 0},
				       {"a/f", 0644, "f2", NULL, T0 + 11, 0},         {"a/g", 0644, "g2", NULL, T0 + 12, 0},
				       {"h", 0644, NULL, "a/f", T0 + 1, 0},           {"n", 0644, "n2", NULL, T0 + 14, 0},
			       };
	assert_int_equal(SYNC(f, v1), 0);
	check_index(r);
	for (f->fail_at = 1; f->fail_at <= 5; f->fail_at++) {
		if (f->fail_at == 4) continue;
		assert_int_equal(SYNC(f, v2), -1);
		assert_non_null(strstr(r->err.msg, "error from sender: disk on fire"));
		check_index(r);
	}
	f->fail_at = -1;
	assert_int_equal(SYNC(f, v2), 0);
	expect(r, "dst/a/e", "e2");
	expect(r, "dst/a/f", "f2");
	expect(r, "dst/h", "f2");
	expect(r, "dst/a/g", "g2");
	assert_false(exists(r, "dst/z"));
	check_index(r);
	struct stat sb;
	assert_int_equal(fstatat(r->dst, "a", &sb, 0), 0);
	assert_int_equal(sb.st_mode & 07777, 0700);
}

struct bad {
	const char *says;
	struct fake_file v[4];
};

static void test_hostile_listings(void **state)
{
	struct rig *r = *state;
	struct fake *f = fake_new(r);
	static const struct bad bad[] = {
		{"leaves the directory", {{"../x", 0644, "x", NULL, T0, 0}}},
		{"leaves the directory", {{"..", TREE_DIR | 0755, NULL, NULL, T0, 0}}},
		{"leaves the directory", {{"a", TREE_DIR | 0755, NULL, NULL, T0, 0}, {"a/../../x", 0644, "x", NULL, T0, 0}}},
		{"absolute path", {{"/tmp/test-sess-absolute", 0644, "x", NULL, T0, 0}}},
		{"unclean", {{"a//b", 0644, "x", NULL, T0, 0}}},
		{"unclean", {{"./a", 0644, "x", NULL, T0, 0}}},
		{"unclean", {{"a/", 0644, "x", NULL, T0, 0}}},
		{"unclean", {{"", 0644, "x", NULL, T0, 0}}},
		{"out of order", {{"b", 0644, "x", NULL, T0, 0}, {"a", 0644, "x", NULL, T0, 0}}},
		{"out of order", {{"a", 0644, "x", NULL, T0, 0}, {"a", 0644, "x", NULL, T0, 0}}},
		{"out of order", {{"a/b", 0644, "x", NULL, T0, 0}}},
		{"out of order", {{"a", 0644, "x", NULL, T0, 0}, {"a/b", 0644, "x", NULL, T0, 0}}},
		{"out of order", {{"l", TREE_SYMLINK | 0777, NULL, "../outside", T0, 0}, {"l/x", 0644, "x", NULL, T0, 0}}},
		{"invalid link", {{"h", 0644, NULL, "../outside/secret", T0, 0}}},
		{"invalid link", {{"h", 0644, NULL, "/etc/passwd", T0, 0}}},
		{"invalid link", {{"a", TREE_SYMLINK | 0777, NULL, "/etc/passwd", T0, 0}, {"h", 0644, NULL, "a", T0, 0}}},
		{"invalid link", {{"a", TREE_DIR | 0777, NULL, NULL, T0, 0}, {"h", 0644, NULL, "a", T0, 0}}},
		{"invalid link", {{"a", 0644, NULL, "b", T0, 0}, {"b", 0644, "x", NULL, T0, 0}}},
		{"unknown file type", {{"s", TREE_SOCKET | 0644, NULL, NULL, T0, 0}}},
		{"unknown file type", {{"s", TREE_DIR | TREE_SYMLINK, NULL, "x", T0, 0}}},
		{"unknown file type", {{"s", 0644, "", NULL, T0, -5}}},
	};
	put_file(r, "outside/secret", "secret");
	for (size_t i = 0; i < array_len(bad); i++) {
		size_t n = 0;
		while (n < 4 && bad[i].v[n].path) n++;
		assert_int_equal(sync_fake(f, bad[i].v, n), -1);
		if (!strstr(r->err.msg, bad[i].says)) fail_msg("case %zu: %s", i, r->err.msg);
		check_index(r);
	}
	expect(r, "outside/secret", "secret");
	assert_false(exists(r, "x"));
	assert_false(exists(r, "outside/x"));
	assert_int_not_equal(access("/tmp/test-sess-absolute", F_OK), 0);
	const struct fake_file good[] = {{"a", 0644, "fine", NULL, T0, 0}};
	assert_int_equal(SYNC(f, good), 0);
	expect(r, "dst/a", "fine");
}

/* A directory of the last sync is a link in this one, and something is beneath: the new link must not be followed. */
static void test_link_swap(void **state)
{
	struct rig *r = *state;
	struct fake *f = fake_new(r);
	put_file(r, "outside/f", "safe");
	const struct fake_file v1[] = {{"d", TREE_DIR | 0755, NULL, NULL, T0, 0}, {"d/f", 0644, "x", NULL, T0, 0}},
			       v2[] = {{"d", TREE_SYMLINK | 0777, NULL, "../outside", T0, 0}},
			       v3[] = {{"d", TREE_DIR | 0755, NULL, NULL, T0, 0}, {"d/f", 0644, "y", NULL, T0, 0}};
	assert_int_equal(SYNC(f, v1), 0);
	assert_int_equal(SYNC(f, v2), 0);
	check_index(r);
	assert_int_equal(SYNC(f, v3), 0);
	expect(r, "outside/f", "safe");
	expect(r, "dst/d/f", "y");
	assert_int_equal(SYNC(f, v2), 0);
	assert_int_equal(sync_fake(f, v2, 0), 0);
	assert_false(exists(r, "dst/d"));
	expect(r, "outside/f", "safe");
}

static void raw(struct fake *f, const void *p, size_t n, const char *says)
{
	f->raw = p;
	f->n_raw = n;
	assert_int_equal(rig_sync(f->r, NULL), -1);
	if (!strstr(f->r->err.msg, says)) fail_msg("%s", f->r->err.msg);
	f->raw = NULL;
}

static void test_hostile_packets(void **state)
{
	struct rig *r = *state;
	struct fake *f = fake_new(r);
	_cleanup_buf_ struct buf b = BUF_INIT;
	sess_packet_add(&b, SESS_PACKET_DATA, 0, "unasked", 7);
	raw(f, b.p, b.n, "invalid file request 0");
	buf_reset(&b);
	sess_packet_add(&b, SESS_PACKET_FIN, 0, NULL, 0);
	raw(f, b.p, b.n, "unexpected packet");
	raw(f, "\x12\x7f", 2, "malformed packet");
	raw(f, "\x12\x03\x0a\x05q", 5, "malformed Stat");
	raw(f, "\x12\x05\x0a\x03q\0q", 7, "NUL");
	_cleanup_free_ char *longer = xmalloc(6000);
	memset(longer, 'n', 6000);
	longer[5999] = 0;
	struct tree_entry t = {.path = longer, .mode = 0644};
	buf_reset(&b);
	sess_packet_add_stat(&b, &t, false);
	raw(f, b.p, b.n, "too long");
	longer[300] = 0;
	buf_reset(&b);
	sess_packet_add_stat(&b, &t, false);
	raw(f, b.p, b.n, "unclean");
	check_index(r);
}

/* The packets' bytes as protobuf defines them, and back. */
static void test_packet_bytes(void **state)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_sess_packet_ struct sess_packet p = {0};
	uint8_t value[] = {1, 0, 2};
	struct tree_xattr x[] = {{(char *)(uintptr_t) "user.a", value, 3}, {(char *)(uintptr_t) "user.b", value, 0}};
	struct tree_entry t = {.path = (char *)(uintptr_t) "d/f",
			       .mode = 0644 | TREE_SETUID,
			       .uid = 7,
			       .gid = 300,
			       .size = 1ll << 40,
			       .mtime_ns = -5,
			       .devmajor = 8,
			       .devminor = 1,
			       .xattrs = x,
			       .n_xattrs = 2,
			       .dev = 5,
			       .ino = 6,
			       .ctime_ns = 7};
	sess_packet_add(&b, SESS_PACKET_DATA, 300, "ab", 2);
	assert_int_equal(b.n, 9);
	assert_memory_equal(b.p,
			    "\x08\x02\x18\xac\x02\x22\x02"
			    "ab",
			    9);
	buf_reset(&b);
	sess_packet_add_stat(&b, &t, true);
	assert_int_equal(sess_packet_read(&p, b.p, b.n, NULL), 0);
	assert_true(p.has_stat && p.has_proof);
	assert_string_equal(p.stat.path, "d/f");
	assert_int_equal(p.stat.mode, t.mode);
	assert_true(p.stat.mtime_ns == -5 && p.stat.size == t.size && p.stat.uid == 7 && p.stat.gid == 300);
	assert_int_equal(p.stat.n_xattrs, 2);
	assert_memory_equal(p.stat.xattrs[0].value, value, 3);
	assert_true(p.stat.dev == 5 && p.stat.ino == 6 && p.stat.ctime_ns == 7);
	for (size_t n = 0; n < b.n; n++) sess_packet_read(&p, b.p, n, NULL); /* cut anywhere: no crash */
	for (size_t i = 0; i < b.n; i++) {                                   /* a byte wrong anywhere: no crash */
		b.p[i] ^= 0x55;
		sess_packet_read(&p, b.p, b.n, NULL);
		b.p[i] ^= 0x55;
	}
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN); /* as the programs do */
#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		T(test_stamps),    T(test_failure_keeps_index_true), T(test_hostile_listings),
		T(test_link_swap), T(test_hostile_packets),          cmocka_unit_test(test_packet_bytes),
	};
	return cmocka_run_group_tests_name("sess-hostile", tests, NULL, NULL);
}
