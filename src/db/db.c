/* Connection, statements and grouped commits over SQLite.
 *
 *  1. One connection, used by the loop thread alone. The first writing statement begins a transaction, the timer or db_flush
 *     commits it.
 *  2. The statement cache is a table indexed by the address of the SQL text and checked by its contents, so a heap string
 *     at a reused address is merely prepared again. A statement that is stepping (a callback runs the same one) is not shared.
 *  3. A commit that fails in the timer cannot be answered to anybody: the group is rolled back, what it held is lost as after a
 *     kill, and the next db_flush reports it. Callers keep their memory as it is: the cache has a miss then.
 *  4. Closing the last connection checkpoints and removes the log; a passive checkpoint in a job does so meanwhile.
 * It does not know what the tables mean, except `meta`. */
#include "db/db.h"
#include "db/internal.h"

#include <stdint.h>

enum { DB_GROUP_MS = 5, DB_CACHE_SLOTS = 256, DB_WAL_PAGES = 1000, DB_BUSY_MS = 2000 };

struct db_row {
	sqlite3_stmt *st;
};

struct db_slot {
	const char *text;
	sqlite3_stmt *st;
	bool busy;
};

struct db {
	struct loop *loop;
	sqlite3 *h;
	char *path;
	bool in_group;
	struct loop_timer timer;
	struct db_slot slots[DB_CACHE_SLOTS];
	struct err lost; /* why a group could not be committed */
	struct loop_job checkpoint;
	bool checkpointing;
	int wal_pages;
};

int db_sqlite_err(sqlite3 *h, struct err *e, const char *what)
{
	enum code code = CODE_INTERNAL;

	switch (h ? sqlite3_errcode(h) & 0xff : SQLITE_NOMEM) {
	case SQLITE_FULL:
	case SQLITE_NOMEM: code = CODE_RESOURCE_EXHAUSTED; break;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB: code = CODE_DATA_LOSS; break;
	case SQLITE_CONSTRAINT: code = CODE_ALREADY_EXISTS; break;
	case SQLITE_PERM:
	case SQLITE_READONLY: code = CODE_PERMISSION_DENIED; break;
	case SQLITE_BUSY:
	case SQLITE_LOCKED: code = CODE_UNAVAILABLE; break;
	default: break;
	}
	return err_set(e, code, "database: %s: %s", what, h ? sqlite3_errmsg(h) : "out of memory");
}

/* ---- checkpoints ---- */

static void db_checkpoint_work(struct loop_job *j)
{
	struct db *db = container_of(j, struct db, checkpoint);
	_cleanup_err_ struct err e = ERR_INIT;

	if (db_checkpoint(db->path, &e) < 0) log_debug("%s", e.msg);
}

static void db_checkpoint_done(struct loop_job *j) { container_of(j, struct db, checkpoint)->checkpointing = false; }

static int db_on_wal(void *ctx, sqlite3 *h, const char *name, int pages)
{
	((struct db *)ctx)->wal_pages = pages;
	return SQLITE_OK;
}

static void db_checkpoint_maybe(struct db *db)
{
	if (db->wal_pages < DB_WAL_PAGES || db->checkpointing) return;
	db->wal_pages = 0;
	if (!db->loop) {
		sqlite3_wal_checkpoint_v2(db->h, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
		return;
	}
	db->checkpointing = true;
	db->checkpoint = (struct loop_job){.work = db_checkpoint_work, .done = db_checkpoint_done};
	loop_job_start(db->loop, &db->checkpoint, LOOP_DISK);
}

/* ---- groups ---- */

static int db_commit(struct db *db, struct err *e)
{
	if (!db->in_group) return 0;
	db->in_group = false;
	if (sqlite3_get_autocommit(db->h)) return err_set(e, CODE_ABORTED, "database: the group under way was rolled back");
	if (sqlite3_exec(db->h, "COMMIT", NULL, NULL, NULL) != SQLITE_OK) {
		db_sqlite_err(db->h, e, "commit");
		sqlite3_exec(db->h, "ROLLBACK", NULL, NULL, NULL);
		return -1;
	}
	db_checkpoint_maybe(db);
	return 0;
}

static void db_on_timer(void *arg)
{
	struct db *db = arg;
	_cleanup_err_ struct err e = ERR_INIT;

	if (db_commit(db, &e) == 0) return;
	log_warn("%s", e.msg);
	err_move(&db->lost, &e);
}

static int db_begin(struct db *db, struct err *e)
{
	if (db->in_group) return 0;
	if (sqlite3_exec(db->h, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK) return db_sqlite_err(db->h, e, "begin");
	db->in_group = true;
	if (db->loop) loop_timer_start(db->loop, &db->timer, DB_GROUP_MS, 0, db_on_timer, db);
	return 0;
}

int db_flush(struct db *db, struct err *e)
{
	if (db->in_group && db->loop) loop_timer_stop(&db->timer);
	if (db_commit(db, e) < 0) return -1;
	return err_is_set(&db->lost) ? err_move(e, &db->lost) : 0;
}

int db_sync(struct db *db, struct err *e)
{
	int rc;

	if (db_flush(db, e) < 0) return -1;
	/* Whatever a checkpoint moves is synced first, in the log; a reader cannot be in the way, there is none. */
	rc = sqlite3_wal_checkpoint_v2(db->h, NULL, SQLITE_CHECKPOINT_FULL, NULL, NULL);
	return rc == SQLITE_OK ? 0 : db_sqlite_err(db->h, e, "checkpoint");
}

bool db_idle(const struct db *db) { return !db->in_group && !db->checkpointing; }

/* ---- opening ---- */

static int db_setup(struct db *db, struct err *e)
{
	static const char sql[] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;"
				  "PRAGMA temp_store=MEMORY; PRAGMA cache_size=-4096;";

	sqlite3_extended_result_codes(db->h, 1);
	sqlite3_busy_timeout(db->h, DB_BUSY_MS);
	if (sqlite3_exec(db->h, sql, NULL, NULL, NULL) != SQLITE_OK) return db_sqlite_err(db->h, e, "setting up");
	sqlite3_wal_autocheckpoint(db->h, 0);
	sqlite3_wal_hook(db->h, db_on_wal, db);
	return db_schema_up(db->h, db->path, e);
}

int db_open(struct loop *loop, const char *path, struct db **ret, struct err *e)
{
	_cleanup_db_ struct db *db = xnew(struct db);
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;

	db->loop = loop;
	db->path = xstrdup(path);
	if (sqlite3_open_v2(path, &db->h, flags, NULL) != SQLITE_OK) {
		db_sqlite_err(db->h, e, "open");
		return err_wrap(e, "%s", path);
	}
	if (db_setup(db, e) == 0) {
		*ret = take_ptr(db);
		return 0;
	}
	if (e && e->code == CODE_DATA_LOSS)
		return err_wrap(e, "%s is damaged; move it away to start with an empty cache", path);
	return err_wrap(e, "%s", path);
}

void db_close(struct db *db)
{
	_cleanup_err_ struct err e = ERR_INIT;

	if (!db) return;
	ensure(!db->checkpointing);
	if (db->h && db_flush(db, &e) < 0) log_warn("%s", e.msg);
	for (size_t i = 0; i < DB_CACHE_SLOTS; i++) {
		ensure(!db->slots[i].busy);
		sqlite3_finalize(db->slots[i].st);
	}
	sqlite3_close(db->h);
	err_fini(&db->lost);
	free(db->path);
	free(db);
}

/* ---- statements ---- */

static struct db_slot *db_slot_of(struct db *db, const char *sql)
{
	uint64_t x = (uint64_t)(uintptr_t)sql * 0x9e3779b97f4a7c15ull;

	return &db->slots[x >> 56];
}

/* A statement with nothing bound. *ret_slot NULL: it is not in the cache and is finalized after use. */
static int db_prepare(struct db *db, const char *sql, sqlite3_stmt **ret, struct db_slot **ret_slot, struct err *e)
{
	struct db_slot *slot = db_slot_of(db, sql);
	sqlite3_stmt *st = NULL;

	if (!slot->busy && slot->st && slot->text == sql && strcmp(sqlite3_sql(slot->st), sql) == 0) {
		*ret = slot->st;
		*ret_slot = slot;
		slot->busy = true;
		return 0;
	}
	if (sqlite3_prepare_v3(db->h, sql, -1, SQLITE_PREPARE_PERSISTENT, &st, NULL) != SQLITE_OK) {
		db_sqlite_err(db->h, e, "prepare");
		return err_wrap(e, "%s", sql);
	}
	*ret_slot = NULL;
	if (!slot->busy) {
		sqlite3_finalize(slot->st);
		*slot = (struct db_slot){.text = sql, .st = st, .busy = true};
		*ret_slot = slot;
	}
	*ret = st;
	return 0;
}

static void db_release(sqlite3_stmt *st, struct db_slot *slot)
{
	if (!slot) {
		sqlite3_finalize(st);
		return;
	}
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	slot->busy = false;
}

static int db_bind(sqlite3_stmt *st, const struct db_arg *args, size_t n)
{
	int rc = SQLITE_OK;

	if ((size_t)sqlite3_bind_parameter_count(st) != n)
		bug("%zu arguments for %d parameters: %s", n, sqlite3_bind_parameter_count(st), sqlite3_sql(st));
	for (size_t i = 0; i < n && rc == SQLITE_OK; i++) {
		const struct db_arg *a = &args[i];
		int at = (int)i + 1;

		switch (a->type) {
		case DB_T_NULL: rc = sqlite3_bind_null(st, at); break;
		case DB_T_INT: rc = sqlite3_bind_int64(st, at, a->i); break;
		case DB_T_TEXT: rc = sqlite3_bind_text64(st, at, a->p, a->n, SQLITE_STATIC, SQLITE_UTF8); break;
		case DB_T_BLOB: rc = sqlite3_bind_blob64(st, at, a->n ? a->p : "", a->n, SQLITE_STATIC); break;
		}
	}
	return rc;
}

static int db_rows(struct db *db, sqlite3_stmt *st, db_each_fn *each, void *ctx, struct err *e)
{
	struct db_row row = {st};
	int n = 0, rc;

	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		int r = each ? each(ctx, &row, e) : 0;

		n++;
		if (r < 0) return -1;
		if (r > 0) return n;
	}
	if (rc == SQLITE_DONE) return n;
	db_sqlite_err(db->h, e, "step");
	return err_wrap(e, "%s", sqlite3_sql(st));
}

int db_query_args(struct db *db, struct err *e, const char *sql, db_each_fn *each, void *ctx, const struct db_arg *args,
		  size_t n)
{
	sqlite3_stmt *st = NULL;
	struct db_slot *slot = NULL;
	int r = -1;

	if (db_prepare(db, sql, &st, &slot, e) < 0) return -1;
	if (!sqlite3_stmt_readonly(st) && db_begin(db, e) < 0) goto out;
	if (db_bind(st, args, n) != SQLITE_OK)
		db_sqlite_err(db->h, e, "bind");
	else
		r = db_rows(db, st, each, ctx, e);
out:
	db_release(st, slot);
	return r;
}

int db_exec_args(struct db *db, struct err *e, const char *sql, const struct db_arg *args, size_t n)
{
	int r = db_query_args(db, e, sql, NULL, NULL, args, n);

	return r < 0 ? -1 : sqlite3_changes(db->h);
}

int64_t db_last_id(const struct db *db) { return sqlite3_last_insert_rowid(db->h); }

/* ---- single values ---- */

struct db_int {
	int64_t v;
	bool found;
};

static int db_take_int(void *ctx, const struct db_row *row, struct err *e)
{
	struct db_int *i = ctx;

	i->found = !db_col_null(row, 0);
	i->v = db_col_int(row, 0);
	return 1;
}

int db_get_int_args(struct db *db, struct err *e, const char *sql, int64_t *ret, const struct db_arg *args, size_t n)
{
	struct db_int i = {0};

	if (db_query_args(db, e, sql, db_take_int, &i, args, n) < 0) return -1;
	if (i.found) *ret = i.v;
	return i.found;
}

static int db_take_text(void *ctx, const struct db_row *row, struct err *e)
{
	*(char **)ctx = xstrdup(db_col_text(row, 0));
	return 1;
}

int db_get_text_args(struct db *db, struct err *e, const char *sql, char **ret, const struct db_arg *args, size_t n)
{
	char *s = NULL;

	if (db_query_args(db, e, sql, db_take_text, &s, args, n) < 0) return -1;
	if (!s) return 0;
	*ret = s;
	return 1;
}

int db_meta_get(struct db *db, const char *k, char **ret, struct err *e)
{
	return db_get_text(db, e, "SELECT v FROM meta WHERE k = ?", ret, DB_TEXT(k));
}

int db_meta_set(struct db *db, const char *k, const char *v, struct err *e)
{
	return db_exec(db, e, "INSERT INTO meta(k, v) VALUES(?, ?) ON CONFLICT(k) DO UPDATE SET v = excluded.v", DB_TEXT(k),
		       DB_TEXT(v));
}

/* ---- columns ---- */

int64_t db_col_int(const struct db_row *row, int i) { return sqlite3_column_int64(row->st, i); }
const char *db_col_text(const struct db_row *row, int i) { return (const char *)sqlite3_column_text(row->st, i); }
bool db_col_null(const struct db_row *row, int i) { return sqlite3_column_type(row->st, i) == SQLITE_NULL; }

const void *db_col_blob(const struct db_row *row, int i, size_t *ret_n)
{
	const void *p = sqlite3_column_blob(row->st, i);

	*ret_n = (size_t)sqlite3_column_bytes(row->st, i);
	return p;
}
