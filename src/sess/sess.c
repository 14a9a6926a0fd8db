/* Sessions: a client's offer, the HTTP/2 connection inside it, and whether it still answers.
 *
 * 1. A session is reachable by its id while its connection lives; a later one of the same id takes the name over, the
 *    earlier lives on until its client goes.
 * 2. The manager holds one reference from accept to the connection's end. Operations and callers hold their own.
 * 3. Health is asked every interval, one question at a time; after failures_max misses in a row the connection is closed,
 *    and what runs on it fails. Transfers may be slow: the limit is 15 s, or one and a half times the last answer.
 * Source: BuildKit session/{manager,grpc}.go; reference 02 §1. */
#include "sess/internal.h"

#include <ctype.h>
#include <stdio.h>

enum { HEALTH_INTERVAL_MS = 5000, HEALTH_TIMEOUT_MS = 15000, HEALTH_FAILURES = 2, METHODS_MAX = 256, ID_MAX_BYTES = 1024 };

struct sess_manager {
	struct loop *loop;
	struct map sessions; /* id -> struct sess */
	struct list waits, all;
};
struct sess_wait_op {
	struct sess_op op;
	struct sess_manager *m;
	struct list link;
	struct loop_timer timer;
	char *id;
	struct sess *found;
	struct err err;
	bool posted;
	void (*done)(void *arg, struct sess *s, const struct err *e);
	void *arg;
};

static const char *plain_id(const char *id)
{
	const char *colon = strchr(id, ':');
	return colon && colon[1] ? colon + 1 : id;
}

/* ---- references ---- */
struct sess *sess_ref(struct sess *s)
{
	s->refs++;
	return s;
}

void sess_unref(struct sess *s)
{
	if (!s || --s->refs) return;
	free(s->id);
	free(s->shared_key);
	free(s->name);
	map_fini(&s->methods);
	err_fini(&s->why);
	free(s);
}

const char *sess_id(const struct sess *s) { return s->id; }
const char *sess_shared_key(const struct sess *s) { return s->shared_key; }
const char *sess_name(const struct sess *s) { return s->name; }
bool sess_alive(const struct sess *s) { return s->conn != NULL; }
size_t sess_count(const struct sess_manager *m) { return m->sessions.count; }
void sess_watch_start(struct sess *s, struct sess_watch *w) { list_add_tail(&s->watches, &w->link); }

static char *lower(const char *s)
{
	char *t = xstrdup(s);
	for (char *p = t; *p; p++) *p = (char)tolower((unsigned char)*p);
	return t;
}

bool sess_supports(const struct sess *s, const char *method)
{
	_cleanup_free_ char *key = lower(method);
	return map_has(&s->methods, key);
}

int sess_need(const struct sess *s, const char *method, struct err *e)
{
	_cleanup_free_ char *key = lower(method);
	if (map_has(&s->methods, key)) return 0;
	return err_set(e, CODE_UNKNOWN, "method %s not supported by the client", key);
}

void sess_explain(const struct sess *s, struct err *e)
{
	if (err_is_set(&s->why) && e->code != CODE_CANCELLED)
		err_set(e, CODE_UNAVAILABLE, "session %s ended: %s", s->id, s->why.msg);
}

struct wire_call *sess_open(struct sess *s, const char *method, const struct wire_md *md, size_t n_md, uint64_t timeout_ms,
			    const struct wire_call_ops *ops, void *user, struct err *e)
{
	if (s->conn) return wire_call_open(s->conn, method, md, n_md, timeout_ms, ops, user);
	err_set(e, CODE_UNAVAILABLE, "session %s ended: %s", s->id, s->why.msg ? s->why.msg : "the client has gone");
	return NULL;
}

/* ---- the end ---- */
void sess_close(struct sess *s, const struct err *why)
{
	if (!s->conn) return;
	if (why && err_is_set(why) && !err_is_set(&s->why)) err_copy(&s->why, why);
	wire_conn_close(s->conn);
}

static void on_closed(void *arg, const struct err *why)
{
	struct sess *s = arg;
	bool said = why && why->msg && *why->msg;
	s->conn = NULL;
	loop_timer_stop(&s->timer);
	if (!err_is_set(&s->why)) err_set(&s->why, CODE_UNAVAILABLE, "%s", said ? why->msg : "the client has gone");
	list_del(&s->link);
	if (s->manager && map_get(&s->manager->sessions, s->id) == s) map_del(&s->manager->sessions, s->id);
	while (!list_empty(&s->watches)) {
		struct sess_watch *w = list_first(&s->watches, struct sess_watch, link);
		list_del(&w->link);
		w->ended(w, &s->why);
	}
	sess_unref(s);
}

/* ---- health ---- */
static void check_done(void *arg, const struct err *status, const uint8_t *resp, size_t n)
{
	struct sess *s = arg;
	s->check = NULL;
	s->last_ms = (uint64_t)(time_mono_ns() - s->check_began_ns) / 1000000;
	if (status->code == CODE_OK) {
		s->failures = 0;
	} else if (s->conn && ++s->failures >= s->failures_max) {
		_cleanup_err_ struct err e = ERR_INIT;
		err_set(&e, CODE_UNAVAILABLE, "session healthcheck failed fatally: %s", status->msg);
		log_debug("session %s: %s", s->id, e.msg);
		sess_close(s, &e);
	}
	sess_unref(s);
}

static void check(void *arg)
{
	struct sess *s = arg;
	if (s->check || !s->conn) return;
	uint64_t limit = max_of(s->timeout_ms, s->last_ms + s->last_ms / 2);
	s->check_began_ns = time_mono_ns();
	s->check = wire_unary(s->conn, METHOD_HEALTH_CHECK, NULL, 0, NULL, check_done, sess_ref(s), limit);
}

static void health_start(struct sess *s, const char *custom)
{
	s->interval_ms = HEALTH_INTERVAL_MS;
	s->timeout_ms = HEALTH_TIMEOUT_MS;
	s->failures_max = HEALTH_FAILURES;
	char *end;
	long ms = custom ? strtol(custom, &end, 10) : 0;
	if (ms > 0 && !*end && ms < 86400000) {
		s->interval_ms = s->timeout_ms = (uint64_t)max_of(ms, 1000);
		s->failures_max = 1;
	}
	loop_timer_start(s->loop, &s->timer, s->interval_ms, s->interval_ms, check, s);
}

/* ---- waiting for one ---- */
static void wait_finish(void *arg)
{
	struct sess_wait_op *w = arg;
	w->done(w->arg, w->found, err_is_set(&w->err) ? &w->err : NULL);
	sess_unref(w->found);
	err_fini(&w->err);
	free(w->id);
	free(w);
}

/* It is decided: found, or err is set. done comes in a later turn. */
static void wait_decide(struct sess_wait_op *w)
{
	if (w->posted) return;
	w->posted = true;
	list_del(&w->link);
	loop_timer_stop(&w->timer);
	loop_post(w->m->loop, wait_finish, w);
}

static void wait_timeout(void *arg)
{
	struct sess_wait_op *w = arg;
	err_set(&w->err, CODE_DEADLINE_EXCEEDED, "no active session for %s: context deadline exceeded", w->id);
	wait_decide(w);
}

static void wait_cancel(struct sess_op *op)
{
	struct sess_wait_op *w = container_of(op, struct sess_wait_op, op);
	if (w->posted) return;
	err_set(&w->err, CODE_CANCELLED, "no active session for %s: context canceled", w->id);
	wait_decide(w);
}

struct sess_op *sess_wait(struct sess_manager *m, const char *id, uint64_t timeout_ms,
			  void (*done)(void *arg, struct sess *s, const struct err *e), void *arg)
{
	struct sess_wait_op *w = xnew(struct sess_wait_op);
	w->op.cancel = wait_cancel;
	w->m = m;
	w->id = xstrdup(plain_id(id));
	w->done = done;
	w->arg = arg;
	list_add_tail(&m->waits, &w->link);
	w->found = sess_find(m, id);
	if (w->found)
		wait_decide(w);
	else
		loop_timer_start(m->loop, &w->timer, timeout_ms, 0, wait_timeout, w);
	return &w->op;
}

static void tell_waiting(struct sess_manager *m, struct sess *s)
{
	LIST_EACH(&m->waits, struct sess_wait_op, w, link)
	{
		if (strcmp(w->id, s->id) != 0) continue;
		w->found = sess_ref(s);
		wait_decide(w);
	}
}

struct sess *sess_find(struct sess_manager *m, const char *id)
{
	struct sess *s = map_get(&m->sessions, plain_id(id));
	return s ? sess_ref(s) : NULL;
}

void sess_op_cancel(struct sess_op *op) { op->cancel(op); }

/* ---- accepting ---- */
static int check_id(const char *id, struct err *e)
{
	if (str_empty(id)) return err_set(e, CODE_INVALID_ARGUMENT, "session: no x-docker-expose-session-uuid in the request");
	if (strlen(id) > ID_MAX_BYTES) return err_set(e, CODE_INVALID_ARGUMENT, "session: the id is too long");
	return 0;
}

static void read_methods(struct sess *s, const struct wire_call *call)
{
	const char *v[METHODS_MAX];
	size_t n = min_of(wire_call_headers(call, "x-docker-expose-session-grpc-method", v, METHODS_MAX), (size_t)METHODS_MAX);
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *key = lower(v[i]);
		map_put(&s->methods, key, s);
	}
}

static char *header_copy(const struct wire_call *call, const char *key)
{
	const char *v = wire_call_header(call, key);
	return xstrdup(v ? v : "");
}

void sess_accept(struct sess_manager *m, struct wire_call *call)
{
	_cleanup_err_ struct err e = ERR_INIT;
	const char *id = wire_call_header(call, "x-docker-expose-session-uuid");
	if (check_id(id, &e) < 0) {
		wire_call_finish(call, &e);
		return;
	}
	struct sess *s = xnew(struct sess);
	s->refs = 1;
	s->manager = m;
	s->loop = m->loop;
	list_init(&s->watches);
	list_add_tail(&m->all, &s->link);
	s->id = xstrdup(id);
	s->shared_key = header_copy(call, "x-docker-expose-session-sharedkey");
	s->name = header_copy(call, "x-docker-expose-session-name");
	read_methods(s, call);
	_cleanup_free_ char *custom = header_copy(call, "x-buildkit-session-health-custom-timeout");
	wire_call_send_headers(call);
	s->conn = wire_tunnel_client(call, "localhost");
	wire_conn_on_closed(s->conn, on_closed, s);
	health_start(s, custom);
	map_put(&m->sessions, s->id, s);
	tell_waiting(m, s);
}

/* ---- the manager ---- */
struct sess_manager *sess_manager_new(struct loop *l)
{
	struct sess_manager *m = xnew(struct sess_manager);
	m->loop = l;
	list_init(&m->waits);
	list_init(&m->all);
	return m;
}

void sess_manager_free(struct sess_manager *m)
{
	if (!m) return;
	ensure(list_empty(&m->waits));
	LIST_EACH(&m->all, struct sess, s, link)
	{
		s->manager = NULL;
		list_del(&s->link);
		sess_close(s, NULL);
	}
	map_fini(&m->sessions);
	free(m);
}
