/* Moving the write-ahead log into the database file, away from the loop: these are the only fsyncs of the database.
 *
 * A passive checkpoint takes no lock that a reader or the writer would wait for. What it could not move (a transaction was
 * under way) is moved by the next one. */
#include "db/internal.h"

int db_checkpoint(const char *path, struct err *e)
{
	sqlite3 *h = NULL;
	int rc = sqlite3_open_v2(path, &h, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);

	/* A connection that has read nothing yet does not know that there is a log, and would checkpoint nothing. */
	if (rc == SQLITE_OK) rc = sqlite3_exec(h, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
	if (rc == SQLITE_OK) rc = sqlite3_wal_checkpoint_v2(h, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	if (rc != SQLITE_OK && rc != SQLITE_BUSY && rc != SQLITE_LOCKED)
		db_sqlite_err(h, e, "checkpoint");
	else
		rc = SQLITE_OK;
	sqlite3_close(h);
	return rc == SQLITE_OK ? 0 : -1;
}
