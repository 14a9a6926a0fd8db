/* Builds of the past, and of now: records in the database's table `history`, and who listens to them.
 *
 *  1. A build that runs has its record in its arena (struct build.record); when it ends the record becomes a row. The row is
 * written before anybody is told.
 *  2. Updating a record (pinning) sends it again as COMPLETE with its generation raised.
 *  3. A record whose ref somebody listens to is deleted when the last such listener has left; till then it is listed no more.
 *  4. A record goes by itself when it is unpinned, older than max_age and not among the newest max_entries. Looked at each 2
 * min.
 *  5. The blobs of a record are written to the disk for good within SYNC_MS, not before the client is answered: a power cut
 * within that time may cost them, and most likely the row too (the database does not sync each commit either).
 * Source: moby/buildkit solver/llbsolver/history/buildhistory.go; reference 01 §11. */
#include "build/internal.h"

#include <string.h>

enum { GC_FIRST_MS = 1000, GC_EVERY_MS = 120000, SYNC_MS = 500 };

struct history_listener {
	struct history *history;
	char *ref; /* NULL: all */
	history_event_fn *event;
	void (*end)(void *arg);
	void *arg;
	struct list link;
};
struct history {
	struct engine *engine;
	struct list listeners;
	struct map deleted; /* refs whose deletion waits for their listeners */
	struct loop_timer gc, sync;
	struct strvec unsynced; /* digests */
};

static struct db *db_of(const struct history *h) { return h->engine->conf.db; }

/* ---- rows ---- */

static Control__BuildHistoryRecord *row_record(const struct db_row *row, int col, struct arena *a, struct err *e)
{
	size_t n;
	const void *p = db_col_blob(row, col, &n);
	return wire_unpack_as(Control__BuildHistoryRecord, control__build_history_record, p, n, a, e);
}

struct get {
	struct arena *arena;
	Control__BuildHistoryRecord *record;
};

static int get_row(void *ctx, const struct db_row *row, struct err *e)
{
	struct get *g = ctx;
	g->record = row_record(row, 0, g->arena, e);
	return g->record ? 1 : -1;
}

static Control__BuildHistoryRecord *get(struct history *h, const char *ref, struct arena *a, struct err *e)
{
	struct get g = {.arena = a};
	if (db_query(db_of(h), e, "SELECT record FROM history WHERE ref = ?", get_row, &g, DB_TEXT(ref)) < 0) return NULL;
	return g.record;
}

const Control__BuildHistoryRecord *history_get(struct history *h, const char *ref, struct arena *a, struct err *e)
{
	return get(h, ref, a, e);
}

static int64_t ns(const Google__Timestamp *t) { return t ? t->seconds * 1000000000 + t->nanos : 0; }

static int put(struct history *h, const Control__BuildHistoryRecord *r, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	wire_pack(&r->base, &b);
	if (db_exec(db_of(h), e,
		    "INSERT OR REPLACE INTO history(ref, created_at, completed_at, pinned, record) VALUES(?, ?, ?, ?, ?)",
		    DB_TEXT(r->ref), DB_INT(ns(r->createdat)), DB_INT(ns(r->completedat)), DB_INT(r->pinned),
		    DB_BLOB(b.p, b.n)) < 0)
		return -1;
	return db_flush(db_of(h), e);
}

/* ---- telling ---- */

static void tell(struct history *h, Control__BuildHistoryEventType type, const Control__BuildHistoryRecord *r)
{
	Control__BuildHistoryEvent ev = CONTROL__BUILD_HISTORY_EVENT__INIT;
	ev.type = type;
	ev.record = (Control__BuildHistoryRecord *)r;
	LIST_EACH(&h->listeners, struct history_listener, l, link)
	{
		if (!l->ref || !strcmp(l->ref, r->ref)) l->event(l->arg, &ev);
	}
}

void history_started(struct history *h, struct build *b) { tell(h, CONTROL__BUILD_HISTORY_EVENT_TYPE__STARTED, b->record); }

int history_completed(struct history *h, const Control__BuildHistoryRecord *rec, struct err *e)
{
	if (put(h, rec, e) < 0) return -1;
	tell(h, CONTROL__BUILD_HISTORY_EVENT_TYPE__COMPLETE, rec);
	return 0;
}

/* ---- what records name ---- */

static void name_blob(struct map *m, const Control__Descriptor *d)
{
	if (d) map_put(m, d->digest, m);
}

static void name_result(struct map *own, struct map *results, const Control__BuildResultInfo *r)
{
	if (!r) return;
	name_blob(results, r->resultdeprecated);
	for (size_t i = 0; i < r->n_results; i++) name_blob(results, r->results[i]->value);
	for (size_t i = 0; i < r->n_attestations; i++) name_blob(own, r->attestations[i]);
}

/* own: what was made for the record alone. */
static void name_blobs(struct map *own, struct map *results, const Control__BuildHistoryRecord *r)
{
	name_blob(own, r->logs);
	name_blob(own, r->trace);
	name_blob(own, r->externalerror);
	name_result(own, results, r->result);
	for (size_t i = 0; i < r->n_results; i++) name_result(own, results, r->results[i]->value);
}

static int blobs_row(void *ctx, const struct db_row *row, struct err *e)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	Control__BuildHistoryRecord *r = row_record(row, 0, a, NULL);
	if (r) name_blobs(ctx, ctx, r);
	return 0;
}

int history_blobs(struct history *h, struct map *ret, struct err *e)
{
	return db_query(db_of(h), e, "SELECT record FROM history", blobs_row, ret);
}

/* ---- deleting ---- */

static bool watched(const struct history *h, const char *ref)
{
	LIST_EACH(&h->listeners, struct history_listener, l, link)
	{
		if (l->ref && !strcmp(l->ref, ref)) return true;
	}
	return false;
}

static int remove_ref(struct history *h, const char *ref, struct err *e)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	_cleanup_map_ struct map blobs = {0}, results = {0};
	Control__BuildHistoryRecord gone = CONTROL__BUILD_HISTORY_RECORD__INIT, *r;
	_cleanup_free_ char *own = xstrdup(ref);
	if (watched(h, ref)) {
		map_put(&h->deleted, ref, h);
		return 0;
	}
	map_del(&h->deleted, ref);
	r = get(h, own, a, NULL); /* a record that cannot be read goes too */
	if (r) name_blobs(&blobs, &results, r);
	if (db_exec(db_of(h), e, "DELETE FROM history WHERE ref = ?", DB_TEXT(own)) < 0 || db_flush(db_of(h), e) < 0) return -1;
	gone.ref = own;
	tell(h, CONTROL__BUILD_HISTORY_EVENT_TYPE__DELETED, &gone);
	MAP_EACH(&blobs, it) collect_unwanted(h->engine->collect, it->key, false);
	MAP_EACH(&results, it) collect_unwanted(h->engine->collect, it->key, true);
	return 0;
}

static int gc_row(void *ctx, const struct db_row *row, struct err *e)
{
	strvec_add(ctx, db_col_text(row, 0));
	return 0;
}

static void gc(void *arg)
{
	struct history *h = arg;
	struct err e = ERR_INIT;
	struct timespec t = time_now();
	int64_t before = t.tv_sec * 1000000000 + t.tv_nsec - h->engine->history_max_age_ns;
	_cleanup_strvec_ struct strvec old = {0};
	int r = db_query(db_of(h), &e,
			 "SELECT ref FROM (SELECT ref, completed_at FROM history WHERE pinned = 0 ORDER BY completed_at DESC "
			 "LIMIT -1 OFFSET ?) "
			 "WHERE completed_at < ?",
			 gc_row, &old, DB_INT(h->engine->history_max_entries), DB_INT(before));
	for (size_t i = 0; r >= 0 && i < old.n; i++) r = remove_ref(h, old.v[i], &e);
	if (r < 0) log_error("history: %s", e.msg);
	err_fini(&e);
	loop_timer_start(h->engine->conf.env->loop, &h->gc, GC_EVERY_MS, 0, gc, h);
}

void history_gc_soon(struct history *h) { loop_timer_start(h->engine->conf.env->loop, &h->gc, GC_FIRST_MS, 0, gc, h); }

/* ---- syncing ---- */

struct sync_job {
	struct loop_job job;
	struct blob_store *blobs;
	struct strvec digests;
};

static void sync_work(struct loop_job *j)
{
	struct sync_job *s = container_of(j, struct sync_job, job);
	struct err e = ERR_INIT;
	for (size_t i = 0; i < s->digests.n; i++) {
		if (blob_sync(s->blobs, s->digests.v[i], &e) < 0) log_warn("history: %s", e.msg);
		err_fini(&e);
	}
}

static void sync_done(struct loop_job *j)
{
	struct sync_job *s = container_of(j, struct sync_job, job);
	strvec_fini(&s->digests);
	free(s);
}

static void sync_now(void *arg)
{
	struct history *h = arg;
	struct sync_job *s = xnew(struct sync_job);
	s->blobs = h->engine->conf.env->blobs;
	s->digests = h->unsynced;
	h->unsynced = (struct strvec){0};
	s->job.work = sync_work;
	s->job.done = sync_done;
	loop_job_start(h->engine->conf.env->loop, &s->job, LOOP_DISK);
}

void history_unsynced(struct history *h, const char *digest)
{
	if (!h->unsynced.n) loop_timer_start(h->engine->conf.env->loop, &h->sync, SYNC_MS, 0, sync_now, h);
	strvec_add(&h->unsynced, digest);
}

/* ---- the API ---- */

static bool active(const struct build *b) { return b->record && b->state != BUILD_DONE; }

static void list_active(struct history *h, const char *ref, history_event_fn *event, void *arg)
{
	LIST_EACH(&h->engine->builds, struct build, b, all)
	{
		if (!active(b) || (*ref && strcmp(ref, b->ref)) || map_has(&h->deleted, b->ref)) continue;
		Control__BuildHistoryEvent ev = CONTROL__BUILD_HISTORY_EVENT__INIT;
		ev.type = CONTROL__BUILD_HISTORY_EVENT_TYPE__STARTED;
		ev.record = b->record;
		event(arg, &ev);
	}
}

struct listing {
	struct history *history;
	struct history_filter *filter;
	struct arena *arena;
	VEC(Control__BuildHistoryRecord *) v;
};

static int list_row(void *ctx, const struct db_row *row, struct err *e)
{
	struct listing *l = ctx;
	struct err bad = ERR_INIT;
	Control__BuildHistoryRecord *r = row_record(row, 0, l->arena, &bad);
	if (!r)
		log_warn("history of build %s cannot be read: %s", db_col_text(row, 1), bad.msg);
	else if (!map_has(&l->history->deleted, r->ref) && history_filter_match(l->filter, r))
		vec_push(&l->v, r);
	err_fini(&bad);
	return 0;
}

static int by_creation(const void *a, const void *b)
{
	const Control__BuildHistoryRecord *x = *(Control__BuildHistoryRecord *const *)a,
					  *y = *(Control__BuildHistoryRecord *const *)b;
	int64_t d = ns(y->createdat) - ns(x->createdat);
	return d < 0 ? -1 : d > 0;
}

static int list_stored(struct listing *l, const Control__BuildHistoryRequest *req, history_event_fn *event, void *arg,
		       struct err *e)
{
	struct db *db = db_of(l->history);
	int r = *req->ref ? db_query(db, e, "SELECT record, ref FROM history WHERE ref = ?", list_row, l, DB_TEXT(req->ref))
			  : db_query(db, e, "SELECT record, ref FROM history ORDER BY ref", list_row, l);
	if (r < 0) return -1;
	if (req->limit < 0) return err_set(e, CODE_UNKNOWN, "invalid limit %d", req->limit);
	if (req->limit && l->v.n > 1) qsort(l->v.v, l->v.n, sizeof *l->v.v, by_creation);
	for (size_t i = 0; i < l->v.n && (!req->limit || i < (size_t)req->limit); i++) {
		Control__BuildHistoryEvent ev = CONTROL__BUILD_HISTORY_EVENT__INIT;
		ev.type = CONTROL__BUILD_HISTORY_EVENT_TYPE__COMPLETE;
		ev.record = l->v.v[i];
		event(arg, &ev);
	}
	return 0;
}

int history_list(struct engine *g, const Control__BuildHistoryRequest *req, history_event_fn *event, void *arg, struct err *e)
{
	struct history *h = g->history;
	if (*req->ref && map_has(&h->deleted, req->ref))
		return err_set(e, CODE_UNKNOWN, "ref %s is deleted: file does not exist", req->ref);
	list_active(h, req->ref, event, arg);
	if (req->activeonly) return 0;
	struct listing l = {.history = h};
	if (history_filter_new(req->filter, req->n_filter, &l.filter, e) < 0) return -1;
	l.arena = arena_new(0);
	int r = list_stored(&l, req, event, arg, e);
	vec_fini(&l.v);
	arena_free(l.arena);
	history_filter_free(l.filter);
	return r;
}

struct history_listener *history_listen(struct engine *g, const char *ref, history_event_fn *event, void (*end)(void *arg),
					void *arg)
{
	struct history_listener *l = xnew(struct history_listener);
	l->history = g->history;
	l->ref = *ref ? xstrdup(ref) : NULL;
	l->event = event;
	l->end = end;
	l->arg = arg;
	list_add_tail(&g->history->listeners, &l->link);
	return l;
}

void history_listener_stop(struct history_listener *l)
{
	struct history *h = l->history;
	list_del(&l->link);
	if (l->ref && map_has(&h->deleted, l->ref)) {
		struct err e = ERR_INIT;
		if (remove_ref(h, l->ref, &e) < 0) log_error("history: %s", e.msg);
		err_fini(&e);
	}
	free(l->ref);
	free(l);
}

size_t history_release(struct engine *g)
{
	struct history *h = g->history;
	size_t n = 0;
	for (; !list_empty(&h->listeners); n++) {
		struct history_listener *l = list_first(&h->listeners, struct history_listener, link);
		void (*end)(void *) = l->end;
		void *arg = l->arg;
		history_listener_stop(l);
		end(arg);
	}
	return n;
}

static int set_pinned(struct history *h, const char *ref, bool pinned, struct err *e)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	struct err inner = ERR_INIT;
	Control__BuildHistoryRecord *r = get(h, ref, a, &inner);
	if (!r) {
		if (err_is_set(&inner)) return err_move(e, &inner);
		return err_set(e, CODE_UNKNOWN, "failed to retrieve ref %s: file does not exist", ref);
	}
	r->pinned = pinned;
	r->generation++;
	return history_completed(h, r, e);
}

void history_update(struct engine *g, const Control__UpdateBuildHistoryRequest *req, struct build_reply r)
{
	struct err e = ERR_INIT;
	int n = 0;
	Control__UpdateBuildHistoryResponse m = CONTROL__UPDATE_BUILD_HISTORY_RESPONSE__INIT;
	if (req->delete_)
		n = remove_ref(g->history, req->ref, &e);
	else if (!req->finalize) /* the trace is stored with the record: nothing is pending */
		n = set_pinned(g->history, req->ref, req->pinned, &e);
	r.done(r.arg, &m.base, n < 0 ? &e : NULL);
	err_fini(&e);
}

struct history *history_new(struct engine *g)
{
	struct history *h = xnew(struct history);
	h->engine = g;
	list_init(&h->listeners);
	return h; /* old records go once the limits are known: history_gc_soon */
}

void history_free(struct history *h)
{
	loop_timer_stop(&h->gc);
	loop_timer_stop(&h->sync);
	strvec_fini(&h->unsynced);
	map_fini(&h->deleted);
	free(h);
}
