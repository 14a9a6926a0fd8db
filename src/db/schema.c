/* The tables and their migrations.
 *
 * user_version holds the schema's version. Step i of the table below brings version i to i + 1, each in a transaction of its
 * own, so a kill between two leaves a version that is known. A step that was released never changes: a new one is added.
 * A file of a newer version is refused: an older daemon must not drop what it does not understand. */
#include "db/internal.h"
#include "db/db.h"

static const char *const db_steps[DB_SCHEMA_VERSION] = {
	"CREATE TABLE snapshot("
	"  id INTEGER PRIMARY KEY,"
	"  uid TEXT NOT NULL UNIQUE,"
	"  kind INTEGER NOT NULL,"
	"  state INTEGER NOT NULL,"
	"  type TEXT NOT NULL,"
	"  description TEXT,"
	"  parents TEXT NOT NULL DEFAULT '',"
	"  skey TEXT,"
	"  diff_id TEXT,"
	"  chain_id TEXT,"
	"  size INTEGER NOT NULL DEFAULT -1,"
	"  created_at INTEGER NOT NULL,"
	"  last_used_at INTEGER NOT NULL DEFAULT 0,"
	"  usage_count INTEGER NOT NULL DEFAULT 0,"
	"  boot TEXT);"
	"CREATE UNIQUE INDEX snapshot_skey ON snapshot(skey) WHERE skey IS NOT NULL;"
	"CREATE TABLE snapshot_blob("
	"  snapshot_id INTEGER NOT NULL REFERENCES snapshot(id) ON DELETE CASCADE,"
	"  digest TEXT NOT NULL,"
	"  compression TEXT NOT NULL,"
	"  media_type TEXT NOT NULL,"
	"  size INTEGER NOT NULL,"
	"  annotations BLOB,"
	"  source TEXT,"
	"  created_at INTEGER NOT NULL,"
	"  PRIMARY KEY(snapshot_id, digest)) WITHOUT ROWID;"
	"CREATE TABLE key(id INTEGER PRIMARY KEY, op TEXT);"
	"CREATE INDEX key_op ON key(op) WHERE op IS NOT NULL;"
	"CREATE TABLE link("
	"  from_key INTEGER NOT NULL REFERENCES key(id) ON DELETE CASCADE,"
	"  input_index INTEGER NOT NULL,"
	"  op_digest TEXT NOT NULL,"
	"  selector TEXT NOT NULL DEFAULT '',"
	"  output INTEGER NOT NULL DEFAULT 0,"
	"  to_key INTEGER NOT NULL REFERENCES key(id) ON DELETE CASCADE,"
	"  PRIMARY KEY(from_key, input_index, op_digest, selector, output, to_key)) WITHOUT ROWID;"
	"CREATE INDEX link_to ON link(to_key);"
	"CREATE TABLE result("
	"  id INTEGER PRIMARY KEY,"
	"  key_id INTEGER NOT NULL REFERENCES key(id) ON DELETE CASCADE,"
	"  output INTEGER NOT NULL DEFAULT 0,"
	"  snapshot_id INTEGER REFERENCES snapshot(id) ON DELETE CASCADE,"
	"  created_at INTEGER NOT NULL,"
	"  value BLOB);"
	"CREATE INDEX result_key ON result(key_id);"
	"CREATE INDEX result_snapshot ON result(snapshot_id) WHERE snapshot_id IS NOT NULL;"
	"CREATE TABLE meta(k TEXT PRIMARY KEY, v TEXT NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE history("
	"  ref TEXT PRIMARY KEY,"
	"  created_at INTEGER NOT NULL,"
	"  completed_at INTEGER,"
	"  pinned INTEGER NOT NULL DEFAULT 0,"
	"  record BLOB NOT NULL);"
	"CREATE INDEX history_created ON history(created_at);",
};

static int db_run(sqlite3 *h, const char *sql, struct err *e)
{
	return sqlite3_exec(h, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : db_sqlite_err(h, e, "schema");
}

static int db_user_version(sqlite3 *h, int *ret, struct err *e)
{
	sqlite3_stmt *st = NULL;

	if (sqlite3_prepare_v2(h, "PRAGMA user_version", -1, &st, NULL) != SQLITE_OK || sqlite3_step(st) != SQLITE_ROW) {
		db_sqlite_err(h, e, "reading the schema's version");
		sqlite3_finalize(st);
		return -1;
	}
	*ret = sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	return 0;
}

static int db_step_up(sqlite3 *h, int from, struct err *e)
{
	_cleanup_free_ char *set = xasprintf("PRAGMA user_version = %d", from + 1);

	if (db_run(h, "BEGIN IMMEDIATE", e) < 0) return -1;
	if (db_run(h, db_steps[from], e) < 0 || db_run(h, set, e) < 0 || db_run(h, "COMMIT", e) < 0) {
		sqlite3_exec(h, "ROLLBACK", NULL, NULL, NULL);
		return -1;
	}
	return 0;
}

int db_schema_up(sqlite3 *h, const char *path, struct err *e)
{
	int version = 0;

	if (db_user_version(h, &version, e) < 0) return -1;
	if (version > DB_SCHEMA_VERSION || version < 0)
		return err_set(e, CODE_FAILED_PRECONDITION,
			       "%s was written by a newer version of this program (schema %d, this one knows up to %d): "
			       "run the newer version, or move the file away to start with an empty cache",
			       path, version, DB_SCHEMA_VERSION);
	for (; version < DB_SCHEMA_VERSION; version++)
		if (db_step_up(h, version, e) < 0) return err_wrap(e, "bringing %s to schema %d", path, version + 1);
	return 0;
}
