#ifndef DB_DB_H
#define DB_DB_H
/* The one SQLite file. Loop thread only; every call is synchronous and takes microseconds.
 *
 *  1. WAL with synchronous=NORMAL: a commit writes but does not fsync. kill -9 loses only the group under way (at most
 *     5 ms), power loss the last seconds; the file is whole in either case.
 *  2. Writes are grouped: the first write opens a transaction, a 5 ms timer or db_flush() commits it. Reads see what was
 *     written before them. Nobody else writes to the file; the caller holds the root's lock.
 *  3. Checkpoints (the only fsyncs) run in a job on a connection of their own: the loop never waits for the disk to settle.
 *  4. Statements are prepared once and kept by their SQL text: pass literals.
 *  5. Foreign keys are enforced: rows of `snapshot` and `key` take their `result` and `link` rows with them.
 *
 * Arguments are typed values, one a question mark; a wrong count is a bug and aborts:
 *	db_exec(db, e, "INSERT INTO meta(k, v) VALUES(?, ?)", DB_TEXT("boot"), DB_TEXT(id));
 * Errors: RESOURCE_EXHAUSTED (disk full), DATA_LOSS (damaged file), ALREADY_EXISTS (a constraint), INTERNAL. */
#include "base/base.h"
#include "loop/loop.h"

enum { DB_SCHEMA_VERSION = 1 };

struct db;
/* Open or create. A newer schema is FAILED_PRECONDITION with what to do, an older one is migrated. loop may be NULL (tests and
 * tools): then only db_flush and db_close commit. Blocks. */
int db_open(struct loop *loop, const char *path, struct db **ret, struct err *e);
/* Commits and closes. The loop must have run until no checkpoint was under way (db_idle). NULL allowed. */
void db_close(struct db *db);
static inline void db_closep(struct db **db) { db_close(*db); }
#define _cleanup_db_ _cleanup_(db_closep)
/* Commit the group under way. An earlier group that the timer could not commit is reported here too. */
int db_flush(struct db *db, struct err *e);
bool db_idle(const struct db *db);
/* Commit and make all so far durable (fsync). Blocks: for start and stop only. */
int db_sync(struct db *db, struct err *e);

/* ---- values ---- */
enum db_type { DB_T_NULL, DB_T_INT, DB_T_TEXT, DB_T_BLOB };
struct db_arg {
	enum db_type type;
	int64_t i;
	const void *p; /* borrowed for the call */
	size_t n;
};
#define DB_NULL ((struct db_arg){.type = DB_T_NULL})
#define DB_INT(x) ((struct db_arg){.type = DB_T_INT, .i = (int64_t)(x)})
static inline struct db_arg db_text_arg(const char *s)
{
	return s ? (struct db_arg){.type = DB_T_TEXT, .p = s, .n = strlen(s)} : DB_NULL;
}
#define DB_TEXT(s) db_text_arg(s) /* NULL binds NULL */
#define DB_BLOB(ptr, len) ((struct db_arg){.type = DB_T_BLOB, .p = (ptr), .n = (len)})
#define DB_ARGS_(...)                                      \
	((const struct db_arg[]){{0}, ##__VA_ARGS__} + 1), \
		(sizeof((const struct db_arg[]){{0}, ##__VA_ARGS__}) / sizeof(struct db_arg) - 1)

/* ---- statements ---- */
/* INSERT, UPDATE, DELETE, ...: the number of rows changed. */
#define db_exec(db, e, sql, ...) db_exec_args(db, e, sql, DB_ARGS_(__VA_ARGS__))
int db_exec_args(struct db *db, struct err *e, const char *sql, const struct db_arg *args, size_t n);
int64_t db_last_id(const struct db *db); /* the rowid of the last INSERT */

/* SELECT: each(ctx, row) for every row; it answers 0 to go on, > 0 to stop, < 0 to fail (having set *e). It may run other
 * statements, also the same one. Answers the number of rows seen. */
struct db_row; /* valid in the callback only */
typedef int db_each_fn(void *ctx, const struct db_row *row, struct err *e);
#define db_query(db, e, sql, each, ctx, ...) db_query_args(db, e, sql, each, ctx, DB_ARGS_(__VA_ARGS__))
int db_query_args(struct db *db, struct err *e, const char *sql, db_each_fn *each, void *ctx, const struct db_arg *args,
		  size_t n);
/* First column of the first row: 1, or 0 when there is no row (or NULL there; *ret is left alone). */
#define db_get_int(db, e, sql, ret, ...) db_get_int_args(db, e, sql, ret, DB_ARGS_(__VA_ARGS__))
int db_get_int_args(struct db *db, struct err *e, const char *sql, int64_t *ret, const struct db_arg *args, size_t n);
#define db_get_text(db, e, sql, ret, ...) db_get_text_args(db, e, sql, ret, DB_ARGS_(__VA_ARGS__)) /* heap */
int db_get_text_args(struct db *db, struct err *e, const char *sql, char **ret, const struct db_arg *args, size_t n);

/* ---- columns of a row; borrowed pointers live as long as the callback ---- */
int64_t db_col_int(const struct db_row *row, int i);      /* NULL is 0 */
const char *db_col_text(const struct db_row *row, int i); /* NULL for NULL */
const void *db_col_blob(const struct db_row *row, int i, size_t *ret_n);
bool db_col_null(const struct db_row *row, int i);

/* ---- meta: small named texts ---- */
int db_meta_get(struct db *db, const char *k, char **ret, struct err *e); /* 1 and heap, 0 when absent */
int db_meta_set(struct db *db, const char *k, const char *v, struct err *e);

/* ---- schema (db/schema.c owns the text) ----
 * snapshot(id, uid, kind, state, type, description, parents, skey, diff_id, chain_id, size, created_at, last_used_at,
 *          usage_count, boot)                                       written by snap
 * snapshot_blob(snapshot_id, digest, compression, media_type, size, annotations, source, created_at)   written by snap
 * key(id, op)                op: a root's digest, else NULL          written by solve
 * link(from_key, input_index, op_digest, selector, output, to_key)  the primary key in this order; index by to_key
 * result(id, key_id, output, snapshot_id, created_at, value)        snapshot_id NULL: scratch; indexes by key_id, snapshot_id
 * meta(k, v)
 * history(ref, created_at, completed_at, pinned, record)            times in ns; record: protobuf
 */
#endif
