#ifndef DB_INTERNAL_H
#define DB_INTERNAL_H
/* Of the db room only. */
#include "base/base.h"
#include <sqlite3.h>

/* Text of SQLite's last error with a code chosen from it. */
int db_sqlite_err(sqlite3 *h, struct err *e, const char *what);
/* Bring the schema from the file's version to ours, or refuse. */
int db_schema_up(sqlite3 *h, const char *path, struct err *e);
/* checkpoint_job.c: a passive checkpoint on a connection of its own. Any thread. */
int db_checkpoint(const char *path, struct err *e);
#endif
