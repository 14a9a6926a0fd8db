/* The client's session: what is offered, the HTTP/2 server inside the Control/Session call, and the small services.
 *
 * 1. The struct lives until its owner has let go, the connection is closed and no job runs for it.
 * 2. Stopping breaks the lanes of all jobs at once, not by the calls' ends: those need a turn of the loop, and who stops
 *    because the daemon has died may run none before loop_free(), which waits for the jobs.
 * 3. Methods are announced exactly when something was added that needs them; anything else is UNIMPLEMENTED.
 * Source: BuildKit session/session.go, session/secrets/secretsprovider, session/sshforward/sshprovider; reference 02. */
#include "sess/client.h"

#include "proto/health.pb-c.h"
#include "proto/secrets.pb-c.h"
#include "proto/ssh.pb-c.h"
#include "sess/bridge.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { SECRET_MAX = 500 << 10 };

/* ---- life ---- */
struct sess_client *client_ref(struct sess_client *c)
{
	c->refs++;
	return c;
}

static void free_secret(struct client_secret *s)
{
	free(s->where);
	buf_fini(&s->bytes);
	free(s);
}

void client_unref(struct sess_client *c)
{
	if (--c->refs) return;
	MAP_EACH(&c->secrets, it) free_secret(it->value);
	MAP_EACH(&c->uploads, it) close((int)(intptr_t)it->value - 1);
	MAP_EACH(&c->out_dirs, it) free(((struct client_out_dir *)it->value)->path);
	MAP_EACH(&c->stores, it) free(((struct client_store *)it->value)->dir);
	map_fini(&c->secrets);
	map_fini(&c->uploads);
	map_fini_free(&c->out_dirs);
	map_fini_free(&c->stores);
	map_fini_free(&c->methods);
	map_fini_free(&c->dirs);
	map_fini_free(&c->outs);
	map_fini_free(&c->agents);
	free(c->shared_key);
	free(c->docker_config);
	free(c);
}

const char *sess_client_id(const struct sess_client *c) { return c->id; }
uint64_t sess_client_sent_bytes(const struct sess_client *c) { return c->sent; }

void sess_client_free(struct sess_client *c)
{
	if (!c) return;
	c->ended = NULL;
	c->let_go = true;
	sess_client_stop(c);
	client_unref(c);
}

/* ---- calls ---- */
static void dispatch(const struct wire_handler *h, struct wire_call *call)
{
	struct sess_client *c = h->arg;
	static const struct wire_call_ops none = {0};
	struct client_method *m = map_get(&c->methods, call->path);
	call->ops = &none;
	if (m)
		m->handler(m->arg, call);
	else
		wire_call_unimplemented(call, NULL);
}

struct unary {
	struct sess_client *c;
	client_unary_fn *fn;
	bool asked;
};

static void unary_message(struct wire_call *call, const uint8_t *p, size_t n)
{
	struct unary *u = call->user;
	if (u->asked) return;
	u->asked = true;
	u->fn(u->c, call, p, n);
}

static void unary_half_closed(struct wire_call *call)
{
	struct unary *u = call->user;
	if (!u->asked) wire_call_fail(call, CODE_INTERNAL, "no request in the call");
	u->asked = true;
}

static void unary_ended(struct wire_call *call, const struct err *status) { free(call->user); }

static const struct wire_call_ops unary_ops = {
	.message = unary_message, .half_closed = unary_half_closed, .ended = unary_ended};

void client_unary(struct sess_client *c, struct wire_call *call, client_unary_fn *fn)
{
	struct unary *u = xnew(struct unary);
	u->c = c;
	u->fn = fn;
	call->ops = &unary_ops;
	call->user = u;
}

/* ---- tasks ---- */
static void task_call_ended(struct wire_call *call, const struct err *status)
{
	struct client_task *t = call->user;
	t->call = NULL;
	loop_job_cancel(&t->job);
}

static const struct wire_call_ops task_ops = {.ended = task_call_ended};
static const struct wire_call_ops over_ops = {0};

static void task_done(struct loop_job *j)
{
	struct client_task *t = container_of(j, struct client_task, job);
	if (t->call) {
		t->call->ops = &over_ops;
		if (!err_is_set(&t->err)) wire_call_send(t->call, t->reply.p ? t->reply.p : (const uint8_t *)"", t->reply.n);
		wire_call_finish(t->call, err_is_set(&t->err) ? &t->err : NULL);
	}
	buf_fini(&t->reply);
	err_fini(&t->err);
	client_unref(t->c);
	t->free(t);
}

void client_task_start(struct client_task *t, struct sess_client *c, struct wire_call *call, void (*work)(struct loop_job *j),
		       enum loop_class class_)
{
	if (call->ops == &unary_ops) free(call->user);
	t->c = client_ref(c);
	t->call = call;
	call->ops = &task_ops;
	call->user = t;
	t->job.work = work;
	t->job.done = task_done;
	loop_job_start(c->loop, &t->job, class_);
}

/* ---- metadata ---- */
static int hex_digit(char c) { return isdigit((unsigned char)c) ? c - '0' : (tolower((unsigned char)c) - 'a') + 10; }

/* Go's url.QueryUnescape: "" when it is malformed. */
static char *query_unescape(const char *s)
{
	struct buf b = BUF_INIT;
	for (; *s; s++) {
		if (*s == '%' && isxdigit((unsigned char)s[1]) && isxdigit((unsigned char)s[2])) {
			buf_addc(&b, (char)(hex_digit(s[1]) << 4 | hex_digit(s[2])));
			s += 2;
		} else if (*s == '%') {
			buf_reset(&b);
			break;
		} else {
			buf_addc(&b, *s == '+' ? ' ' : *s);
		}
	}
	return buf_take_str(&b);
}

void client_values(const struct wire_call *call, const char *key, struct strvec *ret)
{
	_cleanup_free_ char *flag = xasprintf("%s-encoded", key);
	const char *said = wire_call_header(call, flag);
	bool encoded = false;
	if (said && !str_bool(said, &encoded)) encoded = false;
	size_t n = wire_call_headers(call, key, NULL, 0);
	_cleanup_free_ const char **v = xcalloc(n + 1, sizeof *v);
	n = min_of(n, wire_call_headers(call, key, v, n));
	for (size_t i = 0; i < n; i++) strvec_take(ret, encoded ? query_unescape(v[i]) : xstrdup(v[i]));
}

/* ---- health ---- */
static void health_answer(struct sess_client *c, struct wire_call *call, const uint8_t *p, size_t n)
{
	Health__HealthCheckResponse m = HEALTH__HEALTH_CHECK_RESPONSE__INIT;
	m.status = HEALTH__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
	wire_call_reply(call, &m.base);
}

static void on_health(void *c, struct wire_call *call) { client_unary(c, call, health_answer); }

/* ---- secrets ---- */
struct secret_task {
	struct client_task t;
	char *id, *path;
};

static void secret_pack(const void *p, size_t n, struct buf *out)
{
	Secrets__GetSecretResponse m = SECRETS__GET_SECRET_RESPONSE__INIT;
	m.data.data = (uint8_t *)(uintptr_t)p;
	m.data.len = n;
	wire_pack(&m.base, out);
}

static void secret_work(struct loop_job *j)
{
	struct secret_task *t = container_of(j, struct secret_task, t.job);
	_cleanup_free_ uint8_t *p = NULL;
	size_t n;
	if (path_read_file(AT_FDCWD, t->path, SECRET_MAX, &p, &n, &t->t.err) == 0)
		secret_pack(p, n, &t->t.reply);
	else if (t->t.err.code == CODE_RESOURCE_EXHAUSTED)
		err_set(&t->t.err, CODE_INVALID_ARGUMENT, "secret %s too big. max size %dKB", t->id, SECRET_MAX >> 10);
}

static void secret_free(struct client_task *ct)
{
	struct secret_task *t = container_of(ct, struct secret_task, t);
	free(t->id);
	free(t->path);
	free(t);
}

static void secret_answer(struct sess_client *c, struct wire_call *call, const uint8_t *p, size_t n)
{
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_arena_ struct arena *mem = arena_new(1 << 20);
	_cleanup_buf_ struct buf reply = BUF_INIT;
	Secrets__GetSecretRequest *m = wire_unpack_as(Secrets__GetSecretRequest, secrets__get_secret_request, p, n, mem, &e);
	if (!m) {
		wire_call_finish(call, &e);
		return;
	}
	struct client_secret *s = map_get(&c->secrets, m->id);
	const char *env = s && s->kind == SECRET_ENV ? getenv(s->where) : NULL;
	if (!s || (s->kind == SECRET_ENV && !env)) {
		wire_call_fail(call, CODE_NOT_FOUND, "not found");
	} else if (s->kind == SECRET_FILE) {
		struct secret_task *t = xnew(struct secret_task);
		t->id = xstrdup(m->id);
		t->path = xstrdup(s->where);
		t->t.free = secret_free;
		client_task_start(&t->t, c, call, secret_work, LOOP_DISK);
	} else {
		size_t len = env ? strlen(env) : s->bytes.n;
		if (len > SECRET_MAX) {
			wire_call_fail(call, CODE_UNKNOWN, "invalid secret size %zu", len);
			return;
		}
		secret_pack(env ? (const void *)env : s->bytes.p, len, &reply);
		wire_call_send(call, reply.p ? reply.p : (const uint8_t *)"", reply.n);
		wire_call_finish(call, NULL);
	}
}

static void on_secret(void *c, struct wire_call *call) { client_unary(c, call, secret_answer); }

static struct client_secret *add_secret(struct sess_client *c, const char *id, enum secret_kind kind, const char *where)
{
	struct client_secret *s = xnew(struct client_secret);
	s->kind = kind;
	s->where = xstrdup(where);
	struct client_secret *old = map_put(&c->secrets, id, s);
	if (old) free_secret(old);
	client_serve(c, METHOD_SECRETS_GET_SECRET, on_secret);
	return s;
}

void sess_client_add_secret_file(struct sess_client *c, const char *id, const char *path)
{
	add_secret(c, id, SECRET_FILE, path);
}
void sess_client_add_secret_env(struct sess_client *c, const char *id, const char *env) { add_secret(c, id, SECRET_ENV, env); }
void sess_client_add_secret_bytes(struct sess_client *c, const char *id, const void *p, size_t n)
{
	buf_add(&add_secret(c, id, SECRET_BYTES, NULL)->bytes, p, n);
}

/* ---- ssh agents ---- */
static void agent_answer(struct sess_client *c, struct wire_call *call, const uint8_t *p, size_t n)
{
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_arena_ struct arena *mem = arena_new(1 << 20);
	Ssh__CheckAgentRequest *m = wire_unpack_as(Ssh__CheckAgentRequest, ssh__check_agent_request, p, n, mem, &e);
	Ssh__CheckAgentResponse reply = SSH__CHECK_AGENT_RESPONSE__INIT;
	const char *id = m && *m->id ? m->id : "default";
	if (m && map_has(&c->agents, id))
		wire_call_reply(call, &reply.base);
	else if (m)
		wire_call_fail(call, CODE_UNKNOWN, "unset ssh forward key %s", id);
	else
		wire_call_finish(call, &e);
}

static void on_check_agent(void *c, struct wire_call *call) { client_unary(c, call, agent_answer); }

static int unix_connect(const char *path, struct err *e)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof sa.sun_path) return err_set(e, CODE_INVALID_ARGUMENT, "socket path too long: %s", path);
	memcpy(sa.sun_path, path, strlen(path));
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) return err_sys(e, errno, "socket");
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0) return err_sys(e, errno, "failed to connect to %s", path);
	return take_fd(fd);
}

static void on_forward_agent(void *arg, struct wire_call *call)
{
	struct sess_client *c = arg;
	_cleanup_err_ struct err e = ERR_INIT;
	const char *id = wire_call_header(call, "buildkit.ssh.id");
	const char *path = map_get(&c->agents, str_empty(id) ? "default" : id);
	if (!path) {
		wire_call_fail(call, CODE_UNKNOWN, "unset ssh forward key %s", str_empty(id) ? "default" : id);
		return;
	}
	int fd = unix_connect(path, &e);
	struct bridge *b = fd < 0 ? NULL : bridge_new(c->loop, true);
	if (b && bridge_open(b, fd, &e) == 0) {
		wire_call_send_headers(call);
		bridge_guard_agent(b);
		bridge_start(b, call);
		return;
	}
	if (b) bridge_drop(b);
	wire_call_finish(call, &e);
}

int sess_client_add_ssh(struct sess_client *c, const char *id, const char *path, struct err *e)
{
	struct stat sb;
	if (str_empty(path)) path = getenv("SSH_AUTH_SOCK");
	if (str_empty(path))
		return err_set(e, CODE_INVALID_ARGUMENT, "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set");
	if (stat(path, &sb) < 0) return err_sys(e, errno, "ssh agent socket %s", path);
	if (!S_ISSOCK(sb.st_mode))
		return err_set(e, CODE_INVALID_ARGUMENT,
			       "%s is no agent socket: load the key with ssh-add and forward the agent", path);
	free(map_put(&c->agents, str_empty(id) ? "default" : id, xstrdup(path)));
	client_serve(c, METHOD_SSH_CHECK_AGENT, on_check_agent);
	client_serve(c, METHOD_SSH_FORWARD_AGENT, on_forward_agent);
	return 0;
}

/* ---- what is offered ---- */
void client_serve(struct sess_client *c, const char *method, void (*handler)(void *c, struct wire_call *call))
{
	sess_client_add_method(c, method, handler, c);
}

void sess_client_add_method(struct sess_client *c, const char *method, void (*handler)(void *arg, struct wire_call *call),
			    void *arg)
{
	struct client_method *m = xnew(struct client_method);
	*m = (struct client_method){handler, arg};
	free(map_put(&c->methods, method, m));
}

void sess_client_add_dir(struct sess_client *c, const char *name, const char *path)
{
	free(map_put(&c->dirs, name, xstrdup(path)));
	client_serve(c, METHOD_FILESYNC_DIFF_COPY, client_on_filesync);
}

static void index_key(unsigned index, char out[static 16]) { snprintf(out, 16, "%u", index); }

void sess_client_add_output(struct sess_client *c, const struct sess_client_output *o)
{
	char key[16];
	index_key(o->index, key);
	free(map_put(&c->outs, key, xmemdup(o, sizeof *o)));
	client_serve(c, METHOD_FILESEND_DIFF_COPY, client_on_filesend);
}

void sess_client_add_output_dir(struct sess_client *c, unsigned index, const char *path, bool delete_rest)
{
	char key[16];
	struct client_out_dir *d = xnew(struct client_out_dir);
	index_key(index, key);
	*d = (struct client_out_dir){xstrdup(path), delete_rest};
	struct client_out_dir *old = map_put(&c->out_dirs, key, d);
	if (old) free(old->path);
	free(old);
	client_serve(c, METHOD_FILESEND_DIFF_COPY, client_on_filesend);
}

void sess_client_add_auth(struct sess_client *c, const char *config_path)
{
	const char *dir = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
	free(c->docker_config);
	if (config_path)
		c->docker_config = xstrdup(config_path);
	else if (!str_empty(dir))
		c->docker_config = xasprintf("%s/config.json", dir);
	else
		c->docker_config = xasprintf("%s/.docker/config.json", home ? home : "");
	client_serve(c, METHOD_AUTH_CREDENTIALS, client_on_credentials);
}

const char *sess_client_add_upload(struct sess_client *c, int fd)
{
	char id[ID_STR];
	id_new(id);
	map_put(&c->uploads, id, (void *)(intptr_t)(fd + 1));
	client_serve(c, METHOD_UPLOAD_PULL, client_on_upload);
	MAP_EACH(&c->uploads, it) if (strcmp(it->key, id) == 0) return it->key;
	return NULL;
}

void sess_client_add_content(struct sess_client *c, const char *id, const char *dir, bool writable)
{
	struct client_store *s = xnew(struct client_store);
	*s = (struct client_store){xstrdup(dir), writable};
	struct client_store *old = map_put(&c->stores, id, s);
	if (old) free(old->dir);
	free(old);
	client_content_register(c);
}

struct sess_client *sess_client_new(struct loop *l, const char *shared_key)
{
	struct sess_client *c = xnew(struct sess_client);
	c->loop = l;
	c->refs = 1;
	list_init(&c->lanes);
	id_new(c->id);
	c->shared_key = xstrdup(shared_key ? shared_key : "");
	c->handler = (struct wire_handler){.start = dispatch, .arg = c};
	client_serve(c, METHOD_HEALTH_CHECK, on_health);
	return c;
}

/* ---- the connection ---- */
static void on_closed(void *arg, const struct err *why)
{
	struct sess_client *c = arg;
	c->tunnel = NULL;
	void (*ended)(void *, const struct err *) = c->ended;
	c->ended = NULL;
	bool bad = !c->stopping && why && why->code != CODE_OK;
	if (ended) ended(c->arg, bad ? why : NULL);
	client_unref(c);
}

int sess_client_start(struct sess_client *c, struct wire_conn *conn, void (*ended)(void *arg, const struct err *e), void *arg,
		      struct err *e)
{
	static const struct wire_call_ops none = {0};
	VEC(struct wire_md) md = {0};
	if (c->tunnel) return err_set(e, CODE_FAILED_PRECONDITION, "the session runs already");
	if (!wire_conn_usable(conn)) return err_set(e, CODE_UNAVAILABLE, "the connection to the daemon is closed");
	vec_push(&md, ((struct wire_md){"x-docker-expose-session-uuid", c->id}));
	vec_push(&md, ((struct wire_md){"x-docker-expose-session-sharedkey", c->shared_key}));
	MAP_EACH(&c->methods, it) vec_push(&md, ((struct wire_md){"x-docker-expose-session-grpc-method", it->key}));
	struct wire_call *call = wire_call_open(conn, METHOD_CONTROL_SESSION, md.v, md.n, 0, &none, NULL);
	vec_fini(&md);
	c->ended = ended;
	c->arg = arg;
	c->tunnel = wire_tunnel_server(call, &c->handler);
	client_ref(c);
	wire_conn_on_closed(c->tunnel, on_closed, c);
	return 0;
}

void sess_client_stop(struct sess_client *c)
{
	_cleanup_err_ struct err e = ERR_INIT;
	c->stopping = true;
	if (c->tunnel) wire_conn_close(c->tunnel);
	err_set(&e, CODE_UNAVAILABLE, "the session has ended");
	LIST_EACH(&c->lanes, struct lane, l, link) lane_break(l, &e);
}
