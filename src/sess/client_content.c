/* A content store on the client's disk, an OCI layout: blobs/sha256/<hex>, what is being written in ingest/.
 * Local cache import and export, oci-layout contexts, output type=oci,tar=false. Labels are not kept; index.json is the CLI's.
 *
 * 1. A blob appears by rename, after its digest and size were checked.
 * 2. One call is one job. An unfinished write leaves nothing.
 * Source: containerd plugins/services/content/contentserver, plugins/content/local; reference 02 §10. */
#include "proto/content.pb-c.h"
#include "sess/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

enum { READ_CHUNK = 1 << 20 };

struct content_call {
	struct lane_job j;
	struct sess_client *c;
	char *dir;
	bool writable;
	uint8_t *chunk;
};
struct content_task {
	struct client_task t;
	char *dir, *digest;
	bool update;
};

/* ---- the store ---- */
static int blob_path(const char *dir, const char *digest, char **ret, struct err *e)
{
	struct digest d;
	if (digest_parse(digest, &d, NULL) < 0) return err_set(e, CODE_INVALID_ARGUMENT, "\"%s\" failed validation", digest);
	*ret = xasprintf("%s/blobs/sha256/%s", dir, digest + strlen("sha256:"));
	return 0;
}

static int blob_open(const char *dir, const char *digest, struct stat *ret, struct err *e)
{
	_cleanup_free_ char *path = NULL;
	if (blob_path(dir, digest, &path, e) < 0) return -1;
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) return err_set(e, CODE_NOT_FOUND, "content %s: not found", digest);
	if (fd < 0 || fstat(fd, ret) < 0) return err_sys(e, errno, "content %s", digest);
	return take_fd(fd);
}

static const struct client_store *find_store(struct sess_client *c, struct wire_call *call)
{
	const char *id = wire_call_header(call, "buildkit-attachable-store-id");
	struct client_store *s = id ? map_get(&c->stores, id) : NULL;
	if (!id)
		wire_call_fail(call, CODE_INVALID_ARGUMENT,
			       "request lacks metadata \"buildkit-attachable-store-id\": invalid argument");
	else if (!s)
		wire_call_fail(call, CODE_NOT_FOUND, "unknown store %s: not found", id);
	return s;
}

/* ---- info ---- */
static void info_work(struct loop_job *j)
{
	struct content_task *t = container_of(j, struct content_task, t.job);
	struct stat sb;
	_cleanup_close_ int fd = blob_open(t->dir, t->digest, &sb, &t->t.err);
	if (fd < 0) return;
	Google__Timestamp at = GOOGLE__TIMESTAMP__INIT;
	Content__Info info = CONTENT__INFO__INIT;
	Content__InfoResponse m = CONTENT__INFO_RESPONSE__INIT;
	at.seconds = sb.st_mtim.tv_sec;
	at.nanos = (int32_t)sb.st_mtim.tv_nsec;
	info.digest = t->digest;
	info.size = sb.st_size;
	info.created_at = info.updated_at = &at;
	m.info = &info;
	wire_pack(&m.base, &t->t.reply); /* UpdateResponse has the same shape */
}

static void task_free(struct client_task *ct)
{
	struct content_task *t = container_of(ct, struct content_task, t);
	free(t->dir);
	free(t->digest);
	free(t);
}

static void start_info(struct sess_client *c, struct wire_call *call, const char *digest)
{
	const struct client_store *s = find_store(c, call);
	if (!s) return;
	struct content_task *t = xnew(struct content_task);
	t->dir = xstrdup(s->dir);
	t->digest = xstrdup(digest);
	t->t.free = task_free;
	client_task_start(&t->t, c, call, info_work, LOOP_DISK);
}

static void info_answer(struct sess_client *c, struct wire_call *call, const uint8_t *p, size_t n)
{
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_arena_ struct arena *mem = arena_new(1 << 20);
	Content__InfoRequest *m = wire_unpack_as(Content__InfoRequest, content__info_request, p, n, mem, &e);
	if (m)
		start_info(c, call, m->digest);
	else
		wire_call_finish(call, &e);
}

static void update_answer(struct sess_client *c, struct wire_call *call, const uint8_t *p, size_t n)
{
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_arena_ struct arena *mem = arena_new(4 << 20);
	Content__UpdateRequest *m = wire_unpack_as(Content__UpdateRequest, content__update_request, p, n, mem, &e);
	if (m)
		start_info(c, call, m->info ? m->info->digest : "");
	else
		wire_call_finish(call, &e);
}

static void status_answer(struct sess_client *c, struct wire_call *call, const uint8_t *p, size_t n)
{
	wire_call_fail(call, CODE_NOT_FOUND, "no such write: not found");
}

static void abort_answer(struct sess_client *c, struct wire_call *call, const uint8_t *p, size_t n)
{
	wire_call_send(call, "", 0);
	wire_call_finish(call, NULL);
}

/* ---- read ---- */
static int send_chunk(struct content_call *t, int64_t at, size_t n, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	Content__ReadContentResponse m = CONTENT__READ_CONTENT_RESPONSE__INIT;
	m.offset = at;
	m.data.data = t->chunk;
	m.data.len = n;
	wire_pack(&m.base, &out);
	return t->j.io.send(t->j.io.ctx, out.p, out.n, e);
}

static int run_read(struct lane_job *j, struct err *e)
{
	struct content_call *t = container_of(j, struct content_call, j);
	_cleanup_arena_ struct arena *mem = arena_new(1 << 20);
	const uint8_t *in;
	size_t n;
	struct stat sb;
	int got = j->io.next(j->io.ctx, &in, &n, e);
	if (got <= 0) return got < 0 ? -1 : err_set(e, CODE_INVALID_ARGUMENT, "no request in the call");
	Content__ReadContentRequest *m =
		wire_unpack_as(Content__ReadContentRequest, content__read_content_request, in, n, mem, e);
	if (!m) return -1;
	_cleanup_close_ int fd = blob_open(t->dir, m->digest, &sb, e);
	if (fd < 0) return -1;
	int64_t offset = max_of(m->offset, 0), size = m->size;
	if (offset > sb.st_size)
		return err_set(e, CODE_OUT_OF_RANGE, "read past object length %lld bytes", (long long)sb.st_size);
	if (size <= 0 || size > sb.st_size - offset) size = sb.st_size - offset;
	for (int64_t at = 0; at < size;) {
		ssize_t r = pread(fd, t->chunk, (size_t)min_of((int64_t)READ_CHUNK, size - at), offset + at);
		if (r <= 0) return err_sys(e, r < 0 ? errno : EIO, "read %s", m->digest);
		if (send_chunk(t, at, (size_t)r, e) < 0) return -1;
		at += r;
	}
	return 0;
}

/* ---- write ---- */
struct ingest {
	int fd;
	char *tmp;
	struct hasher hash;
	int64_t n, total;
	char *expected;
};

static void ingest_fini(struct ingest *g)
{
	close_fd(&g->fd);
	if (g->tmp) unlink(g->tmp);
	hasher_fini(&g->hash);
	free(g->tmp);
	free(g->expected);
}

static int ingest_begin(struct ingest *g, const char *dir, struct err *e)
{
	char id[ID_STR];
	id_new(id);
	_cleanup_free_ char *folder = xasprintf("%s/ingest", dir), *blobs = xasprintf("%s/blobs/sha256", dir);
	if (path_mkdirs(folder, 0755, e) < 0 || path_mkdirs(blobs, 0755, e) < 0) return -1;
	_cleanup_free_ char *tmp = xasprintf("%s/%s", folder, id);
	g->fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (g->fd < 0) return err_sys(e, errno, "create %s", tmp);
	g->tmp = take_ptr(tmp);
	return 0;
}

static int ingest_write(struct ingest *g, const Content__WriteContentRequest *m, struct err *e)
{
	if (m->offset > 0 && m->offset != g->n)
		return err_set(e, CODE_OUT_OF_RANGE, "write @%lld must occur at current offset %lld", (long long)m->offset,
			       (long long)g->n);
	if (m->offset == 0 && g->n > 0) {
		if (ftruncate(g->fd, 0) < 0 || lseek(g->fd, 0, SEEK_SET) < 0) return err_sys(e, errno, "truncate");
		hasher_fini(&g->hash);
		hasher_init(&g->hash);
		g->n = 0;
	}
	if (path_write_all(g->fd, m->data.data, m->data.len, e) < 0) return -1;
	hasher_update(&g->hash, m->data.data, m->data.len);
	g->n += (int64_t)m->data.len;
	return 0;
}

static int ingest_commit(struct ingest *g, const char *dir, char digest[static DIGEST_STR], struct err *e)
{
	struct digest d;
	_cleanup_free_ char *path = NULL;
	hasher_final(&g->hash, &d);
	digest_format(&d, digest);
	if (g->total > 0 && g->total != g->n)
		return err_set(e, CODE_FAILED_PRECONDITION, "unexpected commit size %lld, expected %lld", (long long)g->n,
			       (long long)g->total);
	if (!str_empty(g->expected) && strcmp(g->expected, digest) != 0)
		return err_set(e, CODE_FAILED_PRECONDITION, "unexpected commit digest %s, expected %s", digest, g->expected);
	if (blob_path(dir, digest, &path, e) < 0) return -1;
	if (fsync(g->fd) < 0 || rename(g->tmp, path) < 0) return err_sys(e, errno, "publish %s", digest);
	free(take_ptr(g->tmp));
	return 0;
}

static int write_expect(struct content_call *t, struct ingest *g, const Content__WriteContentRequest *m, struct err *e)
{
	struct stat sb;
	if (m->total > 0) g->total = m->total;
	if (!*m->expected) return 0;
	free(g->expected);
	g->expected = xstrdup(m->expected);
	_cleanup_close_ int fd = blob_open(t->dir, m->expected, &sb, NULL);
	return fd < 0 ? 0 : err_set(e, CODE_ALREADY_EXISTS, "blob with expected digest %s exists", m->expected);
}

/* One request: 0 go on, 1 committed. */
static int write_step(struct content_call *t, struct ingest *g, const Content__WriteContentRequest *m, struct err *e)
{
	char digest[DIGEST_STR] = "";
	_cleanup_buf_ struct buf out = BUF_INIT;
	Content__WriteContentResponse reply = CONTENT__WRITE_CONTENT_RESPONSE__INIT;
	bool commit = m->action == CONTENT__WRITE_ACTION__COMMIT;
	if (write_expect(t, g, m, e) < 0) return -1;
	if (m->action != CONTENT__WRITE_ACTION__STAT && ingest_write(g, m, e) < 0) return -1;
	if (commit && ingest_commit(g, t->dir, digest, e) < 0) return -1;
	reply.action = m->action;
	reply.offset = g->n;
	reply.total = g->total;
	reply.digest = digest;
	wire_pack(&reply.base, &out);
	for (int i = 0; i < (commit ? 2 : 1); i++)
		if (t->j.io.send(t->j.io.ctx, out.p, out.n, e) < 0) return -1;
	return commit;
}

static int run_write(struct lane_job *j, struct err *e)
{
	struct content_call *t = container_of(j, struct content_call, j);
	_cleanup_(ingest_fini) struct ingest g = {.fd = -1};
	const uint8_t *in;
	size_t n;
	int got;
	hasher_init(&g.hash);
	if (!t->writable) return err_set(e, CODE_PERMISSION_DENIED, "the content store is read-only");
	while ((got = j->io.next(j->io.ctx, &in, &n, e)) > 0) {
		_cleanup_arena_ struct arena *mem = arena_new(32 << 20);
		Content__WriteContentRequest *m =
			wire_unpack_as(Content__WriteContentRequest, content__write_content_request, in, n, mem, e);
		if (!m) return -1;
		if (g.fd < 0 && !*m->ref) return err_set(e, CODE_INVALID_ARGUMENT, "first message must have a reference");
		if (g.fd < 0 && ingest_begin(&g, t->dir, e) < 0) return -1;
		int done = write_step(t, &g, m, e);
		if (done) return done < 0 ? -1 : 0;
	}
	return got;
}

/* ---- calls ---- */
static void call_finished(struct lane_job *j) {}

static void call_gone(struct lane_job *j)
{
	struct content_call *t = container_of(j, struct content_call, j);
	client_unref(t->c);
	free(t->dir);
	free(t->chunk);
	free(t);
}

static void start_call(struct sess_client *c, struct wire_call *call, int (*run)(struct lane_job *j, struct err *e))
{
	const struct client_store *s = find_store(c, call);
	if (!s) return;
	struct content_call *t = xnew(struct content_call);
	t->c = client_ref(c);
	t->dir = xstrdup(s->dir);
	t->writable = s->writable;
	t->chunk = run == run_read ? xmalloc(READ_CHUNK) : NULL;
	t->j.run = run;
	t->j.finished = call_finished;
	t->j.gone = call_gone;
	wire_call_send_headers(call);
	lane_job_start(&t->j, c->loop, call, true);
	list_add_tail(&c->lanes, &t->j.lane.link);
}

static void on_read(void *c, struct wire_call *call) { start_call(c, call, run_read); }
static void on_write(void *c, struct wire_call *call) { start_call(c, call, run_write); }
static void on_info(void *c, struct wire_call *call) { client_unary(c, call, info_answer); }
static void on_update(void *c, struct wire_call *call) { client_unary(c, call, update_answer); }
static void on_status(void *c, struct wire_call *call) { client_unary(c, call, status_answer); }
static void on_abort(void *c, struct wire_call *call) { client_unary(c, call, abort_answer); }

void client_content_register(struct sess_client *c)
{
	client_serve(c, METHOD_CONTENT_READ, on_read);
	client_serve(c, METHOD_CONTENT_WRITE, on_write);
	client_serve(c, METHOD_CONTENT_INFO, on_info);
	client_serve(c, METHOD_CONTENT_UPDATE, on_update);
	client_serve(c, METHOD_CONTENT_STATUS, on_status);
	client_serve(c, METHOD_CONTENT_ABORT, on_abort);
}
