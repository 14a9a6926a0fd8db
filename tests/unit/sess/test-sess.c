/* Both sides of the session protocol against each other. */
#include "rig.h"

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

/* ---- sessions ---- */
static void test_session(void **state)
{
	struct rig *r = *state;
	rig_connect(r);
	assert_string_equal(sess_id(r->s), sess_client_id(r->client));
	assert_string_equal(sess_shared_key(r->s), "shared");
	assert_true(sess_supports(r->s, "/grpc.health.v1.health/CHECK"));
	assert_false(sess_supports(r->s, METHOD_FILESYNC_DIFF_COPY));
	_cleanup_free_ char *prefixed = xasprintf("p:%s", sess_id(r->s));
	struct sess *again = sess_find(r->manager, prefixed);
	assert_ptr_equal(again, r->s);
	sess_unref(again);
	sess_call(r->s, METHOD_HEALTH_CHECK, NULL, 0, NULL, 0, 1000, rig_bytes, r);
	rig_wait(r);
	assert_ok(r);
	assert_int_equal(r->bytes.n, 2); /* status: SERVING */
}

static void on_wait(void *arg, struct sess *s, const struct err *e) { rig_done(arg, e); }

static void test_wait(void **state)
{
	struct rig *r = *state;
	sess_wait(r->manager, "nobody", 20, on_wait, r);
	rig_wait(r);
	assert_int_equal(r->err.code, CODE_DEADLINE_EXCEEDED);
	assert_string_equal(r->err.msg, "no active session for nobody: context deadline exceeded");
	struct sess_op *op = sess_wait(r->manager, "nobody", 10000, on_wait, r);
	sess_op_cancel(op);
	rig_wait(r);
	assert_int_equal(r->err.code, CODE_CANCELLED);
}

struct watch {
	struct sess_watch w;
	bool ended;
};
static void on_end(struct sess_watch *w, const struct err *why) { container_of(w, struct watch, w)->ended = true; }

static void silent(void *arg, struct wire_call *call) {}

static void test_end(void **state)
{
	struct rig *r = *state;
	struct watch w = {.w.ended = on_end};
	sess_client_add_method(r->client, METHOD_SECRETS_GET_SECRET, silent, NULL);
	rig_connect(r);
	sess_watch_start(r->s, &w.w);
	sess_secret(r->s, "x", rig_bytes, r);
	sess_client_stop(r->client);
	rig_wait(r);
	assert_int_equal(r->err.code, CODE_UNAVAILABLE);
	for (int i = 0; i < 100 && sess_alive(r->s); i++) {
		sess_wait(r->manager, "nobody", 5, on_wait, r);
		rig_wait(r);
	}
	assert_true(w.ended);
	assert_int_equal(sess_count(r->manager), 0);
	sess_secret(r->s, "x", rig_bytes, r); /* on a session that has gone */
	rig_wait(r);
	assert_non_null(strstr(r->err.msg, "ended"));
}

/* ---- file sync ---- */
static void make_tree(struct rig *r)
{
	put_file(r, "src/a.txt", "alpha");
	put_file(r, "src/a/one", "one");
	put_file(r, "src/a/two", "two");
	put_file(r, "src/a/deep/er/three", "three");
	put_file(r, "src/a-b", "dash");
	put_file(r, "src/empty", "");
	put_file(r, "src/skip.log", "no");
	put_file(r, "src/a/skip.log", "no");
	_cleanup_free_ char *link = xasprintf("%s/src/link", r->dir), *hard = xasprintf("%s/src/hard", r->dir);
	_cleanup_free_ char *to = xasprintf("%s/src/a/one", r->dir), *fifo = xasprintf("%s/src/fifo", r->dir);
	assert_int_equal(symlink("a/../../nowhere", link), 0);
	assert_int_equal(link ? linkat(AT_FDCWD, to, AT_FDCWD, hard, 0) : -1, 0);
	assert_int_equal(mkfifo(fifo, 0640), 0);
	assert_int_equal(chmod(to, 0751), 0);
	_cleanup_free_ char *src = xasprintf("%s/src", r->dir);
	sess_client_add_dir(r->client, "src", src);
	settle();
}

static void expect_file(struct rig *r, const char *path, const char *text)
{
	_cleanup_free_ char *got = get_file(r, path);
	assert_string_equal(got, text);
}

static void test_sync(void **state)
{
	struct rig *r = *state;
	_cleanup_strvec_ struct strvec ex = {0};
	strvec_add(&ex, "**/*.log");
	make_tree(r);
	rig_connect(r);
	assert_int_equal(rig_sync(r, &ex), 0);
	expect_file(r, "dst/a.txt", "alpha");
	expect_file(r, "dst/a/deep/er/three", "three");
	expect_file(r, "dst/empty", "");
	assert_false(exists(r, "dst/skip.log"));
	assert_false(exists(r, "dst/a/skip.log"));
	struct stat a, b;
	_cleanup_free_ char *one = xasprintf("%s/dst/a/one", r->dir), *hard = xasprintf("%s/dst/hard", r->dir);
	_cleanup_free_ char *link = xasprintf("%s/dst/link", r->dir);
	assert_int_equal(lstat(one, &a) | lstat(hard, &b), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	assert_int_equal(a.st_mode & 07777, 0751);
	char to[64] = "";
	assert_true(readlink(link, to, sizeof to - 1) > 0);
	assert_string_equal(to, "a/../../nowhere");
	assert_int_equal(r->st.requested, 6);
	check_index(r);

	/* the same again: nothing moves */
	assert_int_equal(rig_sync(r, &ex), 0);
	assert_int_equal(r->st.requested, 0);
	assert_int_equal(r->st.changed, 0);
	check_index(r);

	/* one changed, its size as before; one gone; one added below; a directory becomes a file and the reverse */
	put_file(r, "src/a/two", "TWO");
	_cleanup_free_ char *gone = xasprintf("%s/src/a.txt", r->dir), *deep = xasprintf("%s/src/a/deep", r->dir);
	_cleanup_free_ char *dash = xasprintf("%s/src/a-b", r->dir);
	unlink(gone);
	put_file(r, "src/new/x", "x");
	assert_int_equal(path_remove_all(AT_FDCWD, deep, NULL), 0);
	put_file(r, "src/a/deep", "flat");
	unlink(dash);
	put_file(r, "src/a-b/now/dir", "d");
	settle();
	assert_int_equal(rig_sync(r, &ex), 0);
	assert_int_equal(r->st.requested, 4);
	expect_file(r, "dst/a/two", "TWO");
	expect_file(r, "dst/a/deep", "flat");
	expect_file(r, "dst/a-b/now/dir", "d");
	expect_file(r, "dst/new/x", "x");
	assert_false(exists(r, "dst/a.txt"));
	check_index(r);

	/* the file behind a hard link is replaced: the link must follow */
	_cleanup_free_ char *src_one = xasprintf("%s/src/a/one", r->dir);
	FILE *f = fopen(src_one, "re+");
	fputs("ONE", f);
	fclose(f);
	settle();
	assert_int_equal(rig_sync(r, &ex), 0);
	assert_int_equal(r->st.requested, 1);
	expect_file(r, "dst/a/one", "ONE");
	expect_file(r, "dst/hard", "ONE");
	check_index(r);

	/* an exclude less: what was left out comes */
	assert_int_equal(rig_sync(r, NULL), 0);
	assert_int_equal(r->st.requested, 2);
	expect_file(r, "dst/a/skip.log", "no");
	check_index(r);
}

static void test_sync_mode_and_times(void **state)
{
	struct rig *r = *state;
	put_file(r, "src/d/f", "x");
	_cleanup_free_ char *d = xasprintf("%s/src/d", r->dir), *f = xasprintf("%s/src/d/f", r->dir),
			    *src = xasprintf("%s/src", r->dir);
	sess_client_add_dir(r->client, "src", src);
	chmod(d, 01777);
	chmod(f, 04755);
	set_mtime(r, "src/d", 1000000000123456789);
	settle();
	rig_connect(r);
	assert_int_equal(rig_sync(r, NULL), 0);
	check_index(r); /* mode and times are those of the disk */
	struct stat sb;
	assert_int_equal(fstatat(r->dst, "d", &sb, 0), 0);
	assert_int_equal(sb.st_mode & 07777, 01777);
	assert_int_equal(sb.st_mtim.tv_nsec, 123456789);
	chmod(d, 0700);
	settle();
	assert_int_equal(rig_sync(r, NULL), 0);
	assert_int_equal(fstatat(r->dst, "d", &sb, 0), 0);
	assert_int_equal(sb.st_mode & 07777, 0700);
	assert_int_equal(r->st.requested, 0);
	check_index(r);
}

static void test_sync_no_dir(void **state)
{
	struct rig *r = *state;
	make_tree(r);
	rig_connect(r);
	struct sess_filesync_req q = {.name = "other", .dest_fd = r->dst, .index = &r->index, .done = rig_synced, .arg = r};
	sess_filesync_start(r->s, &q);
	rig_wait(r);
	assert_int_equal(r->err.code, CODE_NOT_FOUND);
	assert_non_null(strstr(r->err.msg, "no access allowed to dir \"other\""));
}

static void test_sync_utf8_patterns(void **state)
{
	struct rig *r = *state;
	_cleanup_strvec_ struct strvec in = {0};
	put_file(r, "src/grün e.txt", "1");
	put_file(r, "src/rot", "2");
	_cleanup_free_ char *src = xasprintf("%s/src", r->dir);
	sess_client_add_dir(r->client, "src", src);
	strvec_add(&in, "grün e.*");
	rig_connect(r);
	struct sess_filesync_req q = {
		.name = "src", .includes = &in, .dest_fd = r->dst, .index = &r->index, .done = rig_synced, .arg = r};
	sess_filesync_start(r->s, &q);
	rig_wait(r);
	assert_ok(r);
	expect_file(r, "dst/grün e.txt", "1");
	assert_false(exists(r, "dst/rot"));
}

static void test_metadata_only(void **state)
{
	struct rig *r = *state;
	_cleanup_strvec_ struct strvec except = {0};
	make_tree(r);
	strvec_add(&except, "a/deep/er/three");
	rig_connect(r);
	struct sess_filesync_req q = {.name = "src",
				      .dest_fd = r->dst,
				      .index = &r->index,
				      .metadata_only = true,
				      .metadata_exceptions = &except,
				      .done = rig_synced,
				      .arg = r};
	sess_filesync_start(r->s, &q);
	rig_wait(r);
	assert_ok(r);
	expect_file(r, "dst/a/deep/er/three", "three");
	assert_false(exists(r, "dst/a/one"));
	assert_false(exists(r, "dst/a.txt"));
	assert_true(exists(r, "dst/.fsutil-metadata"));
	assert_int_equal(r->st.requested, 1);
	sess_filesync_start(r->s, &q);
	rig_wait(r);
	assert_ok(r);
	assert_int_equal(r->st.requested, 0);
}

static void test_big_file(void **state)
{
	struct rig *r = *state;
	_cleanup_free_ char *src = xasprintf("%s/src", r->dir), *p = xasprintf("%s/src/big", r->dir);
	size_t n = 24 << 20;
	_cleanup_free_ uint32_t *data = xmalloc(n);
	for (uint32_t i = 0, x = 1; i < n / 4; i++) data[i] = x = x * 1664525 + 1013904223;
	sess_client_add_dir(r->client, "src", src);
	int fd = open(p, O_WRONLY | O_CREAT, 0644);
	assert_int_equal(path_write_all(fd, data, n, NULL), 0);
	close(fd);
	settle();
	rig_connect(r);
	assert_int_equal(rig_sync(r, NULL), 0);
	check_index(r);
	/* a change near the end */
	fd = open(p, O_WRONLY);
	assert_int_equal(pwrite(fd, "x", 1, (off_t)n - 100), 1);
	close(fd);
	settle();
	assert_int_equal(rig_sync(r, NULL), 0);
	assert_int_equal(r->st.requested, 1);
	check_index(r);
	/* same metadata, no proof: compared, and left alone */
	struct stat a, b;
	assert_int_equal(fstatat(r->dst, "big", &a, 0), 0);
	struct sess_filesync_req q = {
		.name = "src", .dest_fd = r->dst, .index = &r->index, .differ = SESS_DIFFER_NONE, .done = rig_synced, .arg = r};
	sess_filesync_start(r->s, &q);
	rig_wait(r);
	assert_ok(r);
	assert_int_equal(r->st.requested_again, 1);
	assert_int_equal(r->st.changed, 0);
	assert_int_equal(fstatat(r->dst, "big", &b, 0), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	check_index(r);
}

static void test_sync_cancel(void **state)
{
	struct rig *r = *state;
	make_tree(r);
	rig_connect(r);
	struct sess_filesync_req q = {.name = "src", .dest_fd = r->dst, .index = &r->index, .done = rig_synced, .arg = r};
	sess_op_cancel(sess_filesync_start(r->s, &q));
	rig_wait(r);
	assert_int_equal(r->err.code, CODE_CANCELLED);
	check_index(r);
	assert_int_equal(rig_sync(r, NULL), 0);
	check_index(r);
}

/* ---- results ---- */
struct writer {
	struct loop_job job;
	struct loop_pipe *pipe;
	size_t n;
	struct err err;
	bool done;
};
static void write_work(struct loop_job *j)
{
	struct writer *w = container_of(j, struct writer, job);
	uint8_t b[7001];
	for (size_t at = 0; at < w->n;) {
		size_t n = min_of(sizeof b, w->n - at);
		for (size_t i = 0; i < n; i++) b[i] = (uint8_t)((at + i) * 31 >> 3);
		if (loop_pipe_job_write(w->pipe, b, n, &w->err) < 0) break;
		at += n;
	}
	loop_pipe_job_close(w->pipe, NULL);
	loop_pipe_unref(w->pipe);
}
static void write_done(struct loop_job *j) { container_of(j, struct writer, job)->done = true; }
static void write_start(struct rig *r, struct writer *w)
{
	w->job.work = write_work;
	w->job.done = write_done;
	loop_job_start(r->loop, &w->job, LOOP_NET);
}
static void write_join(struct rig *r, struct writer *w)
{
	while (!w->done) {
		sess_wait(r->manager, "nobody", 2, on_wait, r);
		rig_wait(r);
	}
}

struct output {
	struct rig *r;
	int answer;
	char md[64];
	bool closed;
};
static int out_open(void *arg, char *const *md, size_t n, int *ret_fd, struct err *e)
{
	struct output *o = arg;
	if (n == 2) snprintf(o->md, sizeof o->md, "%s=%s", md[0], md[1]);
	if (o->answer <= 0) return o->answer;
	_cleanup_free_ char *p = xasprintf("%s/out.tar", o->r->dir);
	*ret_fd = open(p, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	return 1;
}
static void out_closed(void *arg, const struct err *e) { ((struct output *)arg)->closed = !e; }

static void test_send_file(void **state)
{
	struct rig *r = *state;
	struct output o = {.r = r, .answer = 1}, exists_already = {.r = r, .answer = 0};
	sess_client_add_output(r->client,
			       &(struct sess_client_output){.index = 3, .open = out_open, .closed = out_closed, .arg = &o});
	sess_client_add_output(r->client, &(struct sess_client_output){.index = 4, .open = out_open, .arg = &exists_already});
	rig_connect(r);
	char *md[] = {(char *)(uintptr_t) "containerimage.digest", (char *)(uintptr_t) "sha256:1"};
	struct writer w = {.n = 5000001};
	sess_filesend_file(r->s, 3, md, 2, &w.pipe, rig_done, r);
	write_start(r, &w);
	rig_wait(r);
	assert_ok(r);
	write_join(r, &w);
	assert_true(o.closed);
	assert_string_equal(o.md, "containerimage.digest=sha256:1");
	_cleanup_free_ char *got = get_file(r, "out.tar");
	for (size_t i = 0; i < w.n; i++)
		if ((uint8_t)got[i] != (uint8_t)(i * 31 >> 3)) fail_msg("byte %zu is wrong", i);
	_cleanup_free_ char *p = xasprintf("%s/out.tar", r->dir);
	struct stat sb;
	stat(p, &sb);
	assert_int_equal(sb.st_size, w.n);

	struct writer w2 = {.n = 5000001};
	sess_filesend_file(r->s, 4, NULL, 0, &w2.pipe, rig_done, r);
	write_start(r, &w2);
	rig_wait(r);
	assert_ok(r); /* it exists: success, and the job is told */
	write_join(r, &w2);
	assert_int_equal(w2.err.code, CODE_ALREADY_EXISTS);
	err_fini(&w2.err);

	struct writer w3 = {.n = 10};
	sess_filesend_file(r->s, 9, NULL, 0, &w3.pipe, rig_done, r);
	write_start(r, &w3);
	rig_wait(r);
	assert_non_null(strstr(r->err.msg, "exporter 9 not found"));
	write_join(r, &w3);
	err_fini(&w3.err);
}

static void send_dir(struct rig *r, unsigned exporter, bool multi)
{
	_cleanup_free_ char *src = xasprintf("%s/src", r->dir);
	_cleanup_close_ int fd = open(src, O_RDONLY | O_DIRECTORY);
	struct sess_extra_file extra = {"provenance.json", "{}", 2, 1000000000123456789};
	struct sess_send_root roots[] = {{.fd = fd, .top = "linux_amd64", .extras = &extra, .n_extras = 1},
					 {.fd = fd, .top = "linux_arm64"}};
	struct sess_filesend_dir_req q = {.exporter = exporter,
					  .roots = roots,
					  .n_roots = 2,
					  .multi_platform = multi,
					  .done = rig_done,
					  .override_mtime = true,
					  .mtime_ns = 1700000000000000000,
					  .arg = r};
	sess_filesend_dir(r->s, &q);
	rig_wait(r);
}

static void test_send_dir(void **state)
{
	struct rig *r = *state;
	make_tree(r);
	put_file(r, "out/stays", "mine");
	put_file(r, "mirror/goes", "old");
	put_file(r, "out/linux_amd64/a.txt", "old");
	put_file(r, "out/linux_amd64/a-b/was/dir", "old");
	_cleanup_free_ char *out = xasprintf("%s/out", r->dir), *mirror = xasprintf("%s/mirror", r->dir);
	sess_client_add_output_dir(r->client, 0, out, false);
	sess_client_add_output_dir(r->client, 1, mirror, true);
	rig_connect(r);
	send_dir(r, 0, false);
	assert_ok(r);
	expect_file(r, "out/stays", "mine");
	expect_file(r, "out/linux_amd64/a.txt", "alpha");
	expect_file(r, "out/linux_amd64/a-b", "dash");
	expect_file(r, "out/linux_amd64/provenance.json", "{}");
	expect_file(r, "out/linux_arm64/a/deep/er/three", "three");
	struct stat a, b;
	_cleanup_free_ char *one = xasprintf("%s/out/linux_arm64/a/one", r->dir),
			    *hard = xasprintf("%s/out/linux_arm64/hard", r->dir);
	assert_int_equal(lstat(one, &a) | lstat(hard, &b), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	assert_int_equal(a.st_mtim.tv_sec, 1700000000);

	send_dir(r, 1, false);
	assert_non_null(strstr(r->err.msg, "mode=delete requires"));
	send_dir(r, 1, true);
	assert_ok(r);
	assert_false(exists(r, "mirror/goes"));
	expect_file(r, "mirror/linux_arm64/a.txt", "alpha");
	send_dir(r, 1, true);
	assert_ok(r);
}

/* ---- secrets, credentials ---- */
static void test_secrets(void **state)
{
	struct rig *r = *state;
	put_file(r, "secret", "from a file");
	_cleanup_free_ char *p = xasprintf("%s/secret", r->dir);
	sess_client_add_secret_file(r->client, "file", p);
	setenv("TEST_SESS_SECRET", "from env", 1);
	sess_client_add_secret_env(r->client, "env", "TEST_SESS_SECRET");
	sess_client_add_secret_bytes(r->client, "bytes", "a\0b", 3);
	rig_connect(r);
	sess_secret(r->s, "file", rig_bytes, r);
	rig_wait(r);
	assert_string_equal(buf_str(&r->bytes), "from a file");
	sess_secret(r->s, "env", rig_bytes, r);
	rig_wait(r);
	assert_string_equal(buf_str(&r->bytes), "from env");
	sess_secret(r->s, "bytes", rig_bytes, r);
	rig_wait(r);
	assert_int_equal(r->bytes.n, 3);
	sess_secret(r->s, "nope", rig_bytes, r);
	rig_wait(r);
	assert_int_equal(r->err.code, CODE_NOT_FOUND);
	assert_string_equal(r->err.msg, "secret nope: not found");
}

static void test_no_secrets(void **state)
{
	struct rig *r = *state;
	rig_connect(r);
	sess_secret(r->s, "x", rig_bytes, r);
	rig_wait(r);
	assert_int_equal(r->err.code, CODE_NOT_FOUND);
}

static void on_credentials(void *arg, const char *user, const char *secret, const struct err *e)
{
	struct rig *r = arg;
	buf_reset(&r->bytes);
	if (!e) buf_addf(&r->bytes, "%s|%s", user, secret);
	rig_done(r, e);
}

static void test_auth(void **state)
{
	struct rig *r = *state;
	_cleanup_free_ char *config = xasprintf("%s/config.json", r->dir), *bin = xasprintf("%s/bin", r->dir);
	_cleanup_free_ char *helper = xasprintf("%s/bin/docker-credential-test", r->dir);
	put_file(r, "config.json",
		 "{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"aHVidXNlcjpwOnc=\"},"
		 "\"https://reg.example:5000/v2/\":{\"auth\":\"dTpw\"},\"id.example\":{\"identitytoken\":\"tok\"}},"
		 "\"credHelpers\":{\"helped.example\":\"test\",\"lost.example\":\"missing\"}}");
	put_file(r, "bin/docker-credential-test",
		 "#!/bin/sh\nread s; echo \"{\\\"Username\\\":\\\"for-$s\\\",\\\"Secret\\\":\\\"$1\\\"}\"\n");
	chmod(helper, 0755);
	_cleanup_free_ char *path = xasprintf("%s:%s", bin, getenv("PATH"));
	setenv("PATH", path, 1);
	sess_client_add_auth(r->client, config);
	rig_connect(r);
	static const char *const want[][2] = {{"registry-1.docker.io", "hubuser|p:w"},
					      {"reg.example:5000", "u|p"},
					      {"id.example", "|tok"},
					      {"unknown.example", "|"},
					      {"helped.example", "for-helped.example|get"}};
	for (size_t i = 0; i < array_len(want); i++) {
		sess_auth_credentials(r->s, want[i][0], on_credentials, r);
		rig_wait(r);
		assert_ok(r);
		assert_string_equal(buf_str(&r->bytes), want[i][1]);
	}
	sess_auth_credentials(r->s, "lost.example", on_credentials, r);
	rig_wait(r);
	assert_non_null(strstr(r->err.msg, "docker-credential-missing"));
	sess_auth_authority(r->s, "x", "salt", 4, rig_bytes, r);
	rig_wait(r);
	assert_int_equal(r->err.code, CODE_UNIMPLEMENTED);
}

/* ---- ssh ---- */
static void *agent(void *arg)
{
	int fd = accept(*(int *)arg, NULL, NULL);
	char b[64];
	ssize_t n;
	while ((n = read(fd, b, sizeof b)) > 0)
		if (write(fd, b, (size_t)n) != n) break;
	close(fd);
	return NULL;
}

struct ssh_use {
	struct loop_job job;
	struct rig *r;
	const char *path;
	uint8_t got[10];
	size_t n;
};
static void ssh_work(struct loop_job *j)
{
	struct ssh_use *u = container_of(j, struct ssh_use, job);
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	snprintf(sa.sun_path, sizeof sa.sun_path, "%s", u->path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(fd, (void *)&sa, sizeof sa) == 0 && write(fd, "\0\0\0\1\13\0\0\0\1\23", 10) == 10) {
		shutdown(fd, SHUT_WR);
		for (ssize_t n; (n = read(fd, u->got + u->n, sizeof u->got - u->n)) > 0;) u->n += (size_t)n;
	}
	close(fd);
}
static void ssh_work_done(struct loop_job *j) { rig_done(container_of(j, struct ssh_use, job)->r, NULL); }

static void test_ssh(void **state)
{
	struct rig *r = *state;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	snprintf(sa.sun_path, sizeof sa.sun_path, "%s/agent", r->dir);
	int l = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(l, (void *)&sa, sizeof sa) | listen(l, 4), 0);
	assert_int_equal(sess_client_add_ssh(r->client, NULL, sa.sun_path, NULL), 0);
	assert_int_equal(sess_client_add_ssh(r->client, "k", "/etc/passwd", NULL), -1);
	rig_connect(r);
	sess_ssh_check(r->s, NULL, rig_done, r);
	rig_wait(r);
	assert_ok(r);
	sess_ssh_check(r->s, "other", rig_done, r);
	rig_wait(r);
	assert_string_equal(r->err.msg, "unset ssh forward key other");
	pthread_t t;
	pthread_create(&t, NULL, agent, &l);
	struct sess_ssh *ssh;
	assert_int_equal(sess_ssh_listen(r->s, "", getuid(), getgid(), 0600, &ssh, NULL), 0);
	struct ssh_use u = {.job = {.work = ssh_work, .done = ssh_work_done}, .r = r, .path = sess_ssh_path(ssh)};
	loop_job_start(r->loop, &u.job, LOOP_NET);
	rig_wait(r);
	pthread_join(t, NULL);
	assert_int_equal(u.n, 10);
	assert_memory_equal(u.got, "\0\0\0\1\13\0\0\0\1\377", 10); /* "list" passes, "remove all" does not */
	sess_ssh_stop(ssh);
	close(l);
}

static void test_no_ssh(void **state)
{
	struct rig *r = *state;
	rig_connect(r);
	sess_ssh_check(r->s, "", rig_done, r);
	rig_wait(r);
	assert_string_equal(r->err.msg, "no SSH key \"default\" forwarded from the client");
}

/* ---- upload, content ---- */
struct reader {
	struct loop_job job;
	struct loop_pipe *pipe;
	struct buf got;
	struct err err;
	bool done;
};
static void read_work(struct loop_job *j)
{
	struct reader *rd = container_of(j, struct reader, job);
	for (;;) {
		uint8_t *room = buf_reserve(&rd->got, 5000);
		ssize_t n = loop_pipe_job_read(rd->pipe, room, 5000, &rd->err);
		if (n <= 0) break;
		rd->got.n += (size_t)n;
	}
	loop_pipe_job_close(rd->pipe, NULL);
	loop_pipe_unref(rd->pipe);
}
static void read_done(struct loop_job *j) { container_of(j, struct reader, job)->done = true; }
static void read_start(struct rig *r, struct reader *rd)
{
	rd->job.work = read_work;
	rd->job.done = read_done;
	loop_job_start(r->loop, &rd->job, LOOP_NET);
}
static void read_join(struct rig *r, struct reader *rd)
{
	while (!rd->done) {
		sess_wait(r->manager, "nobody", 2, on_wait, r);
		rig_wait(r);
	}
}

static void test_upload(void **state)
{
	struct rig *r = *state;
	char *big = xmalloc(3000001);
	memset(big, 'u', 3000000);
	big[3000000] = 0;
	put_file(r, "up", big);
	_cleanup_free_ char *p = xasprintf("%s/up", r->dir);
	const char *id = sess_client_add_upload(r->client, open(p, O_RDONLY | O_CLOEXEC));
	_cleanup_free_ char *url = xasprintf("/%s", id);
	rig_connect(r);
	struct reader rd = {0};
	sess_upload(r->s, url, "buildkit-session", &rd.pipe, rig_done, r);
	read_start(r, &rd);
	rig_wait(r);
	assert_ok(r);
	read_join(r, &rd);
	assert_int_equal(rd.got.n, 3000000);
	assert_memory_equal(rd.got.p, big, 3000000);
	struct reader again = {0};
	sess_upload(r->s, url, "buildkit-session", &again.pipe, rig_done, r);
	read_start(r, &again);
	rig_wait(r);
	assert_non_null(strstr(r->err.msg, "no http response from session for"));
	read_join(r, &again);
	assert_true(err_is_set(&again.err));
	buf_fini(&rd.got);
	buf_fini(&again.got);
	err_fini(&again.err);
	free(big);
}

static void on_info(void *arg, int64_t size, const struct err *e)
{
	struct rig *r = arg;
	r->number = size;
	rig_done(r, e);
}

static void test_content(void **state)
{
	struct rig *r = *state;
	_cleanup_free_ char *dir = xasprintf("%s/store", r->dir);
	sess_client_add_content(r->client, "local:x", dir, true);
	rig_connect(r);
	char digest[DIGEST_STR];
	struct writer w = {.n = 3000000};
	_cleanup_free_ uint8_t *want = xmalloc(w.n);
	for (size_t i = 0; i < w.n; i++) want[i] = (uint8_t)(i * 31 >> 3);
	digest_str_of(want, w.n, digest);
	sess_content_info(r->s, "local:x", digest, on_info, r);
	rig_wait(r);
	assert_int_equal(r->err.code, CODE_NOT_FOUND);
	sess_content_write(r->s, "local:x", "ref", digest, (int64_t)w.n, NULL, 0, &w.pipe, rig_done, r);
	write_start(r, &w);
	rig_wait(r);
	assert_ok(r);
	write_join(r, &w);
	sess_content_info(r->s, "local:x", digest, on_info, r);
	rig_wait(r);
	assert_int_equal(r->number, w.n);
	struct writer w2 = {.n = 3000000}; /* again: there already */
	sess_content_write(r->s, "local:x", "ref", digest, (int64_t)w2.n, NULL, 0, &w2.pipe, rig_done, r);
	write_start(r, &w2);
	rig_wait(r);
	assert_ok(r);
	write_join(r, &w2);
	err_fini(&w2.err);
	struct reader rd = {0};
	sess_content_read(r->s, "local:x", digest, 1000, 2000000, &rd.pipe, rig_done, r);
	read_start(r, &rd);
	rig_wait(r);
	assert_ok(r);
	read_join(r, &rd);
	assert_int_equal(rd.got.n, 2000000);
	assert_memory_equal(rd.got.p, want + 1000, 2000000);
	buf_fini(&rd.got);
	struct writer w3 = {.n = 10}; /* wrong digest */
	digest_str_of("x", 1, digest);
	sess_content_write(r->s, "local:x", "ref", digest, 10, NULL, 0, &w3.pipe, rig_done, r);
	write_start(r, &w3);
	rig_wait(r);
	assert_non_null(strstr(r->err.msg, "unexpected commit digest"));
	write_join(r, &w3);
	err_fini(&w3.err);
	sess_content_info(r->s, "other", digest, on_info, r);
	rig_wait(r);
	assert_non_null(strstr(r->err.msg, "unknown store other"));
}

/* ---- the daemon dies in the middle ---- */
/* A peer that takes part in a transfer, then says nothing more. The client then goes the CLI's way: free, close, loop_free
 * without a further turn. loop_free waits for the client's jobs: each must end by itself. */
struct half {
	struct rig *r;
	struct wire_conn *to_client;
	struct wire_call *call;
	bool heard;
};
static void half_message(struct wire_call *c, const uint8_t *p, size_t n) { ((struct half *)c->user)->heard = true; }
static void half_ended(struct wire_call *c, const struct err *status) { ((struct half *)c->user)->call = NULL; }
static struct half *half;

static void half_session(const struct wire_handler *h, struct wire_call *call)
{
	half->to_client = wire_tunnel_client(call, "localhost");
}

static void spin(struct rig *r, int ms)
{
	struct loop_timer t = {0};
	loop_timer_start(r->loop, &t, (uint64_t)ms, 0, (void (*)(void *))loop_stop, r->loop);
	loop_run(r->loop);
	loop_timer_stop(&t);
}

static void threads_are_stuck(int signum)
{
	static const char text[] = "a job of the client waits for a peer that is dead\n";
	if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(2);
	_exit(1);
}

/* Start `method` on the client, let it get going, kill the peer (or not), leave. What was opened for it hangs on r->dir. */
static void die_during(struct rig *r, const char *method, const struct wire_md *md, size_t n_md, bool killed)
{
	static const struct wire_call_ops ops = {.message = half_message, .ended = half_ended};
	struct half h = {.r = r};
	struct wire_handler server = {.start = half_session};
	int sv[2];
	half = &h;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	int kill_fd = dup(sv[0]);
	struct wire_conn *peer = wire_conn_fds(r->loop, sv[0], sv[0], &server, NULL, NULL);
	struct wire_conn *conn = wire_conn_fds(r->loop, sv[1], sv[1], NULL, "localhost", NULL);
	assert_int_equal(sess_client_start(r->client, conn, NULL, NULL, &r->err), 0);
	for (int i = 0; i < 200 && !h.to_client; i++) spin(r, 5);
	assert_non_null(h.to_client);
	h.call = wire_call_open(h.to_client, method, md, n_md, 0, &ops, &h);
	spin(r, 50);             /* the job runs, and waits */
	assert_non_null(h.call); /* taken, not refused */
	if (killed) shutdown(kill_fd, SHUT_RDWR);
	close(kill_fd);
	signal(SIGALRM, threads_are_stuck);
	alarm(5);
	sess_client_free(take_ptr(r->client));
	if (!killed) wire_conn_close(conn);
	if (!killed) wire_conn_close(peer);
	loop_free(r->loop);
	alarm(0);
	r->loop = loop_new(); /* for the teardown */
}

static void die_twice(void **state, void (*offer)(struct rig *r), const char *method, const struct wire_md *md, size_t n_md)
{
	struct rig *r = *state;
	for (int killed = 0; killed < 2; killed++) {
		sess_manager_free(r->manager);
		r->manager = NULL;
		if (r->client) sess_client_free(r->client);
		r->client = sess_client_new(r->loop, "shared");
		offer(r);
		die_during(r, method, md, n_md, killed);
	}
}

static void offer_out_dir(struct rig *r)
{
	_cleanup_free_ char *p = xasprintf("%s/out", r->dir);
	sess_client_add_output_dir(r->client, 0, p, false);
}
static void test_death_tree(void **state) { die_twice(state, offer_out_dir, METHOD_FILESEND_DIFF_COPY, NULL, 0); }

static void no_closed(void *arg, const struct err *e) { fail_msg("the owner had let go"); }
static void offer_out_file(struct rig *r)
{
	static struct output o = {.answer = 1};
	o.r = r;
	sess_client_add_output(r->client, &(struct sess_client_output){.open = out_open, .closed = no_closed, .arg = &o});
}
static void test_death_stream(void **state) { die_twice(state, offer_out_file, METHOD_FILESEND_DIFF_COPY, NULL, 0); }

static void offer_src(struct rig *r)
{
	_cleanup_free_ char *src = xasprintf("%s/src", r->dir);
	put_file(r, "src/a.txt", "alpha");
	sess_client_add_dir(r->client, "src", src);
}
static void test_death_sync(void **state)
{
	static const struct wire_md md = {"dir-name", "src"};
	die_twice(state, offer_src, METHOD_FILESYNC_DIFF_COPY, &md, 1);
}

static int upload_w = -1;
static char upload_path[ID_STR + 1];
static void offer_upload(struct rig *r) /* of a pipe that brings nothing, like a terminal */
{
	int p[2];
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	if (upload_w >= 0) close(upload_w);
	upload_w = p[1];
	snprintf(upload_path, sizeof upload_path, "/%s", sess_client_add_upload(r->client, p[0]));
}
static void test_death_upload(void **state)
{
	static const struct wire_md md = {"urlpath", upload_path};
	die_twice(state, offer_upload, METHOD_UPLOAD_PULL, &md, 1);
	close(take_fd(upload_w));
}

static void offer_store(struct rig *r)
{
	_cleanup_free_ char *dir = xasprintf("%s/store", r->dir);
	sess_client_add_content(r->client, "local:x", dir, true);
}
static void test_death_content(void **state)
{
	static const struct wire_md md = {"buildkit-attachable-store-id", "local:x"};
	die_twice(state, offer_store, METHOD_CONTENT_WRITE, &md, 1);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN); /* as the programs do */
#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		T(test_session),
		T(test_wait),
		T(test_end),
		T(test_sync),
		T(test_sync_mode_and_times),
		T(test_sync_no_dir),
		T(test_sync_utf8_patterns),
		T(test_metadata_only),
		T(test_big_file),
		T(test_sync_cancel),
		T(test_send_file),
		T(test_send_dir),
		T(test_secrets),
		T(test_no_secrets),
		T(test_auth),
		T(test_ssh),
		T(test_no_ssh),
		T(test_upload),
		T(test_content),
		T(test_death_tree),
		T(test_death_stream),
		T(test_death_sync),
		T(test_death_upload),
		T(test_death_content),
	};
	return cmocka_run_group_tests_name("sess", tests, NULL, NULL);
}
