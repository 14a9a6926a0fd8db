#include "rig.h"

#include <errno.h>
#include <sys/socket.h>
#include <time.h>

static void no_half(struct wire_call *c) {}

static void on_call(const struct wire_handler *h, struct wire_call *call)
{
	static const struct wire_call_ops none = {.half_closed = no_half};
	struct rig *r = h->arg;
	call->ops = &none;
	if (strcmp(call->path, METHOD_CONTROL_SESSION) == 0)
		sess_accept(r->manager, call);
	else
		wire_call_unimplemented(call, NULL);
}

int rig_setup(void **state)
{
	struct rig *r = xnew(struct rig);
	snprintf(r->dir, sizeof r->dir, "/tmp/test-sess.XXXXXX");
	if (!mkdtemp(r->dir)) return -1;
	_cleanup_free_ char *src = xasprintf("%s/src", r->dir), *dst = xasprintf("%s/dst", r->dir);
	mkdir(src, 0755);
	mkdir(dst, 0755);
	r->dst = open(dst, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r->index = tree_index_new();
	r->loop = loop_new();
	r->manager = sess_manager_new(r->loop);
	r->client = sess_client_new(r->loop, "shared");
	r->handler = (struct wire_handler){.start = on_call, .arg = r};
	*state = r;
	return 0;
}

static void stop(void *arg) { loop_stop(((struct rig *)arg)->loop); }

static void conn_closed(void *arg, const struct err *why)
{
	struct rig *r = arg;
	r->number--;
	if (!r->number) loop_stop(r->loop);
}

int rig_teardown(void **state)
{
	struct rig *r = *state;
	struct loop_timer t = {0};
	sess_unref(r->s);
	sess_client_free(r->client);
	if (r->conn) {
		r->number = 2;
		wire_conn_on_closed(r->conn, conn_closed, r);
		wire_conn_on_closed(r->server, conn_closed, r);
		wire_conn_close(r->conn);
		loop_run(r->loop);
	}
	sess_manager_free(r->manager);
	loop_timer_start(r->loop, &t, 20, 0, stop, r); /* what was posted, closed handles */
	loop_run(r->loop);
	loop_timer_stop(&t);
	loop_free(r->loop);
	tree_index_free(r->index);
	close(r->dst);
	path_remove_all(AT_FDCWD, r->dir, NULL);
	err_fini(&r->err);
	buf_fini(&r->bytes);
	free(r);
	return 0;
}

static void on_session(void *arg, struct sess *s, const struct err *e)
{
	struct rig *r = arg;
	if (s) r->s = sess_ref(s);
	rig_done(r, e);
}

void rig_connect(struct rig *r)
{
	int sv[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	r->server = wire_conn_fds(r->loop, sv[0], dup(sv[0]), &r->handler, NULL, NULL);
	r->conn = wire_conn_fds(r->loop, sv[1], dup(sv[1]), NULL, "localhost", NULL);
	assert_int_equal(sess_client_start(r->client, r->conn, NULL, NULL, &r->err), 0);
	sess_wait(r->manager, sess_client_id(r->client), 5000, on_session, r);
	rig_wait(r);
	assert_ok(r);
}

void rig_wait(struct rig *r)
{
	loop_run(r->loop);
	assert_true(r->done);
	r->done = false;
}

void rig_done(void *arg, const struct err *e)
{
	struct rig *r = arg;
	err_fini(&r->err);
	if (e) err_copy(&r->err, e);
	r->done = true;
	loop_stop(r->loop);
}

void rig_bytes(void *arg, const uint8_t *p, size_t n, const struct err *e)
{
	struct rig *r = arg;
	buf_reset(&r->bytes);
	buf_add(&r->bytes, p ? p : (const uint8_t *)"", n);
	rig_done(arg, e);
}

void rig_synced(void *arg, const struct sess_filesync_stats *st, const struct err *e)
{
	((struct rig *)arg)->st = *st;
	rig_done(arg, e);
}

int rig_sync(struct rig *r, const struct strvec *excludes)
{
	struct sess_filesync_req q = {.name = "src", .excludes = excludes, .dest_fd = r->dst, .index = &r->index};
	q.done = rig_synced;
	q.arg = r;
	sess_filesync_start(r->s, &q);
	rig_wait(r);
	return err_is_set(&r->err) ? -1 : 0;
}

static char *in_dir(struct rig *r, const char *path) { return xasprintf("%s/%s", r->dir, path); }

void put_file(struct rig *r, const char *path, const char *text)
{
	_cleanup_free_ char *p = in_dir(r, path), *dir = path_dir(p);
	assert_int_equal(path_mkdirs(dir, 0755, NULL), 0);
	FILE *f = fopen(p, "we");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

char *get_file(struct rig *r, const char *path)
{
	_cleanup_free_ char *p = in_dir(r, path);
	uint8_t *data;
	size_t n;
	if (path_read_file(AT_FDCWD, p, 1 << 26, &data, &n, NULL) < 0) return xstrdup("(none)");
	return (char *)data;
}

void set_mtime(struct rig *r, const char *path, int64_t ns)
{
	_cleanup_free_ char *p = in_dir(r, path);
	struct timespec ts[2] = {{ns / 1000000000, ns % 1000000000}, {ns / 1000000000, ns % 1000000000}};
	assert_int_equal(utimensat(AT_FDCWD, p, ts, AT_SYMLINK_NOFOLLOW), 0);
}

void settle(void) { nanosleep(&(struct timespec){0, 40000000}, NULL); }

bool exists(struct rig *r, const char *path)
{
	struct stat sb;
	_cleanup_free_ char *p = in_dir(r, path);
	return lstat(p, &sb) == 0;
}

void check_index(struct rig *r)
{
	_cleanup_tree_index_ struct tree_index *disk = NULL;
	assert_int_equal(tree_index_scan(r->dst, NULL, &disk, NULL), 0);
	assert_int_equal(tree_index_hash(disk, r->dst, NULL, NULL), 0);
	for (size_t i = 0; i < tree_index_count(disk) || i < tree_index_count(r->index); i++) {
		const struct tree_entry *a = i < tree_index_count(disk) ? tree_index_at(disk, i) : NULL;
		const struct tree_entry *b = i < tree_index_count(r->index) ? tree_index_at(r->index, i) : NULL;
		if (!a || !b) fail_msg("index and disk differ at %s", a ? a->path : b->path);
		assert_string_equal(a->path, b->path);
		if (!b->has_digest || b->uid == UINT32_MAX) continue; /* marked: its attributes are open */
		if (!digest_eq(&a->digest, &b->digest)) fail_msg("digest of %s is not that of the file", a->path);
		if (!tree_is_hardlink(a)) assert_int_equal(a->mode, b->mode);
		if (a->mtime_ns != b->mtime_ns) fail_msg("mtime of %s differs", a->path);
	}
}
