#include "ops/remote.h"
#include "db/db.h"
#include "ops/steplog.h"

#include <stdatomic.h>
#include <string.h>

/* ---- turns ---- */

static void turn_granted(struct loop_slot *s)
{
	struct ops_turn *t = container_of(s, struct ops_turn, slot);
	t->granted(t);
}

void ops_turn_want(struct ops_env *env, const char *key, struct ops_turn *t, void (*granted)(struct ops_turn *t))
{
	struct loop_pool *p = map_get(&env->turns, key);
	if (!p) {
		p = xnew(struct loop_pool);
		loop_pool_init(p, 1);
		map_put(&env->turns, key, p);
	}
	*t = (struct ops_turn){.env = env, .key = xstrdup(key), .granted = granted};
	list_init(&t->slot.link);
	t->slot.granted = turn_granted;
	loop_slot_want(p, &t->slot);
}

void ops_turn_end(struct ops_turn *t)
{
	if (!t->key) return;
	_cleanup_free_ char *key = take_ptr(t->key);
	struct loop_pool *p = map_get(&t->env->turns, key);
	loop_slot_release(&t->slot);
	if (p && !p->used && list_empty(&p->waiting)) {
		map_del(&t->env->turns, key);
		free(p);
	}
}

/* ---- what is known ---- */

struct ops_known *ops_known_new(const char *digest, const char *name, const char *extra, struct snap *snap)
{
	struct ops_known *k = xnew(struct ops_known);
	k->refs = 1;
	k->digest = xstrdup(digest);
	k->name = xstrdup(name);
	k->extra = xstrdup(extra);
	k->snap = snap ? snap_ref(snap) : NULL;
	return k;
}

struct ops_known *ops_known_ref(struct ops_known *k)
{
	k->refs++;
	return k;
}

void ops_known_unref(struct ops_known *k)
{
	if (!k || --k->refs) return;
	snap_unref(k->snap);
	free(k->digest);
	free(k->name);
	free(k->extra);
	free(k->commit_object);
	free(k->tag_object);
	free(k);
}

void ops_memo_fini(struct ops_memo *m)
{
	MAP_EACH(&m->by_key, it) ops_known_unref(it->value);
	map_fini(&m->by_key);
}

struct memo_find {
	struct ops_env *env;
	const char *key;
	struct ops_known *found;
	struct ops_known *learn;
	struct ops_memo *memo;
};

static bool memo_one(struct memo_find *f, void *build)
{
	struct ops_memo *m = f->env->build_memo(build);
	if (!f->memo) f->memo = m;
	if (!f->key) return true;
	if (!f->learn) {
		f->found = map_get(&m->by_key, f->key);
		return f->found;
	}
	ops_known_unref(map_put(&m->by_key, f->key, ops_known_ref(f->learn)));
	return false;
}

static bool memo_of_build(void *arg, struct solve_build *b) { return memo_one(arg, solve_build_user(b)); }

static void each_memo(const struct ops_asker *a, struct memo_find *f)
{
	if (a->node)
		solve_node_each_build(a->node, memo_of_build, f);
	else if (a->build)
		memo_one(f, a->build);
}

struct ops_known *ops_asker_known(const struct ops_asker *a, const char *key)
{
	struct memo_find f = {.env = a->env, .key = key};
	each_memo(a, &f);
	return f.found;
}

struct ops_memo *ops_asker_memo(const struct ops_asker *a)
{
	struct memo_find f = {.env = a->env};
	each_memo(a, &f);
	return f.memo;
}

void ops_asker_learn(const struct ops_asker *a, const char *key, struct ops_known *k)
{
	struct memo_find f = {.env = a->env, .key = key, .learn = k};
	each_memo(a, &f);
}

/* ---- records ----
 * Rows of the tables `key` and `result`, as the solver's: they go with their snapshot. The key's text is no digest, so no
 * operation ever finds it. */

struct record {
	int64_t snap;
	char *text;
};

static int take_record(void *ctx, const struct db_row *row, struct err *e)
{
	struct record *r = ctx;
	size_t n;
	r->snap = db_col_int(row, 0);
	const void *p = db_col_blob(row, 1, &n);
	r->text = xstrndup(p ? p : "", n);
	return 1;
}

static void report(struct err *e)
{
	log_warn("sources: %s", e->msg);
	err_fini(e);
}

struct snap *ops_record_find(struct ops_env *env, const char *key, char **ret_text)
{
	struct record r = {0};
	struct err e = ERR_INIT;
	if (db_query(env->db, &e,
		     "SELECT result.snapshot_id, result.value FROM key JOIN result ON result.key_id = key.id "
		     "WHERE key.op = ? AND result.snapshot_id IS NOT NULL ORDER BY result.id DESC LIMIT 1",
		     take_record, &r, DB_TEXT(key)) < 0)
		report(&e);
	struct snap *s = r.snap ? snap_find(env->snaps, r.snap) : NULL;
	if (s && ret_text)
		*ret_text = r.text;
	else
		free(r.text);
	return s;
}

void ops_record_put(struct ops_env *env, const char *key, struct snap *s, const char *text)
{
	struct err e = ERR_INIT;
	struct timespec now = time_now();
	if (db_exec(env->db, &e, "DELETE FROM key WHERE op = ?", DB_TEXT(key)) < 0 ||
	    db_exec(env->db, &e, "INSERT INTO key(op) VALUES(?)", DB_TEXT(key)) < 0 ||
	    db_exec(env->db, &e, "INSERT INTO result(key_id, output, snapshot_id, created_at, value) VALUES(?, 0, ?, ?, ?)",
		    DB_INT(db_last_id(env->db)), DB_INT(s->id), DB_INT(now.tv_sec * 1000000000 + now.tv_nsec),
		    DB_BLOB(text, strlen(text))) < 0)
		report(&e);
}

/* ---- sessions ---- */

void ops_ids_add(struct ops_ids *ids, const char *id)
{
	for (size_t i = 0; i < ids->n; i++)
		if (!strcmp(ids->v[i], id)) return;
	if (*id && ids->n < OPS_SESSIONS_MAX) ids->v[ids->n++] = xstrdup(id);
}

void ops_ids_fini(struct ops_ids *ids)
{
	for (size_t i = 0; i < ids->n; i++) free(ids->v[i]);
	ids->n = 0;
}

struct ops_pick {
	struct ops_env *env;
	struct ops_ids ids;
	size_t at;
	char *method;
	struct sess_op *wait;
	struct err last;
	bool cancelled;
	void (*done)(void *arg, struct sess *s, size_t index, const struct err *e);
	void *arg;
};

static void pick_next(void *arg);

static void pick_end(struct ops_pick *p, struct sess *s)
{
	p->done(p->arg, s, p->at, s ? NULL : &p->last);
	ops_ids_fini(&p->ids);
	err_fini(&p->last);
	free(p->method);
	free(p);
}

static void pick_got(void *arg, struct sess *s, const struct err *e)
{
	struct ops_pick *p = arg;
	p->wait = NULL;
	if (s && (!p->method || sess_supports(s, p->method))) {
		pick_end(p, s);
		return;
	}
	if (e)
		err_copy(&p->last, e);
	else
		err_set(&p->last, CODE_UNIMPLEMENTED, "the client does not serve %s", p->method);
	p->at++;
	pick_next(p);
}

static void pick_next(void *arg)
{
	struct ops_pick *p = arg;
	if (p->cancelled) {
		err_set(&p->last, CODE_CANCELLED, "context canceled");
		pick_end(p, NULL);
	} else if (p->at < p->ids.n) {
		p->wait = sess_wait(p->env->sessions, p->ids.v[p->at], SESS_WAIT_MS, pick_got, p);
	} else {
		if (!err_is_set(&p->last)) err_set(&p->last, CODE_UNKNOWN, "no active sessions");
		pick_end(p, NULL);
	}
}

struct ops_pick *ops_pick(struct ops_env *env, const struct ops_ids *ids, size_t from, const char *method,
			  void (*done)(void *arg, struct sess *s, size_t index, const struct err *e), void *arg)
{
	struct ops_pick *p = xnew(struct ops_pick);
	p->env = env;
	for (size_t i = 0; i < ids->n; i++) ops_ids_add(&p->ids, ids->v[i]);
	p->at = from;
	p->method = xstrdup(method);
	p->done = done;
	p->arg = arg;
	loop_post(env->loop, pick_next, p);
	return p;
}

void ops_pick_cancel(struct ops_pick *p)
{
	p->cancelled = true;
	if (p->wait) sess_op_cancel(p->wait);
}

/* ---- secrets ---- */

struct ops_secret {
	struct ops_env *env;
	struct ops_ids ids;
	struct strvec names;
	struct ops_pick *pick;
	struct sess_op *op;
	struct sess *session;
	size_t at_session, at_name;
	struct err last;
	bool cancelled;
	void (*done)(void *arg, ssize_t which, const uint8_t *p, size_t len, const struct err *e);
	void *arg;
};

static void secret_pick(struct ops_secret *s);

/* Line ends behind it are an editor's, not the secret's. */
static size_t trimmed(const uint8_t *p, size_t n)
{
	while (n && (p[n - 1] == '\n' || p[n - 1] == '\r')) n--;
	return n;
}

static void secret_end(struct ops_secret *s, const uint8_t *p, size_t n)
{
	sess_unref(s->session);
	if (p) n = trimmed(p, n);
	s->done(s->arg, p ? (ssize_t)s->at_name : -1, p, n, !p && err_is_set(&s->last) ? &s->last : NULL);
	ops_ids_fini(&s->ids);
	strvec_fini(&s->names);
	err_fini(&s->last);
	free(s);
}

static void secret_ask(struct ops_secret *s);

static void secret_got(void *arg, const uint8_t *p, size_t n, const struct err *e)
{
	struct ops_secret *s = arg;
	s->op = NULL;
	if (!e) {
		secret_end(s, p ? p : (const uint8_t *)"", n);
		return;
	}
	err_copy(&s->last, e);
	if (s->cancelled) {
		secret_end(s, NULL, 0);
	} else if (e->code == CODE_NOT_FOUND && ++s->at_name < s->names.n) {
		secret_ask(s);
	} else {
		s->at_session++;
		secret_pick(s);
	}
}

static void secret_ask(struct ops_secret *s) { s->op = sess_secret(s->session, s->names.v[s->at_name], secret_got, s); }

static void secret_session(void *arg, struct sess *session, size_t index, const struct err *e)
{
	struct ops_secret *s = arg;
	s->pick = NULL;
	if (e) {
		if (!err_is_set(&s->last)) err_copy(&s->last, e);
		secret_end(s, NULL, 0);
		return;
	}
	s->at_session = index;
	s->at_name = 0;
	sess_unref(s->session);
	s->session = sess_ref(session);
	secret_ask(s);
}

static void secret_pick(struct ops_secret *s) { s->pick = ops_pick(s->env, &s->ids, s->at_session, NULL, secret_session, s); }

struct ops_secret *ops_secret(struct ops_env *env, const struct ops_ids *ids, char *const *names, size_t n,
			      void (*done)(void *arg, ssize_t which, const uint8_t *p, size_t len, const struct err *e),
			      void *arg)
{
	struct ops_secret *s = xnew(struct ops_secret);
	s->env = env;
	for (size_t i = 0; i < ids->n; i++) ops_ids_add(&s->ids, ids->v[i]);
	strvec_copy(&s->names, names, n);
	s->done = done;
	s->arg = arg;
	secret_pick(s);
	return s;
}

void ops_secret_cancel(struct ops_secret *s)
{
	s->cancelled = true;
	if (s->pick) ops_pick_cancel(s->pick);
	if (s->op) sess_op_cancel(s->op);
}

/* ---- log lines of a job ---- */

struct ops_joblog {
	struct loop *loop;
	atomic_uint refs;
	struct solve_node *node; /* loop thread; NULL: ended */
	struct ops_steplog stream[2];
};

struct line {
	struct ops_joblog *log;
	int stream;
	size_t n;
	char p[];
};

struct ops_joblog *ops_joblog_new(struct loop *l, struct solve_node *n)
{
	struct ops_joblog *j = xnew(struct ops_joblog);
	j->loop = l;
	j->node = n;
	atomic_store(&j->refs, 1);
	for (int i = 0; i < 2; i++) ops_steplog_init(&j->stream[i], n, i + 1);
	return j;
}

static void joblog_unref(struct ops_joblog *l)
{
	if (atomic_fetch_sub(&l->refs, 1) == 1) free(l);
}

static void show(void *arg)
{
	struct line *line = arg;
	if (line->log->node) ops_steplog_write(&line->log->stream[line->stream - 1], line->p, line->n);
	joblog_unref(line->log);
	free(line);
}

void ops_joblog_write(struct ops_joblog *l, int stream, const void *p, size_t n)
{
	struct line *line = xmalloc(sizeof *line + n);
	*line = (struct line){l, stream, n};
	memcpy(line->p, p, n);
	atomic_fetch_add(&l->refs, 1);
	loop_post(l->loop, show, line);
}

void ops_joblog_end(struct ops_joblog *l, bool failed)
{
	if (!l) return;
	for (int i = 0; i < 2; i++) ops_steplog_end(&l->stream[i], failed && l->node);
	l->node = NULL;
	joblog_unref(l);
}
