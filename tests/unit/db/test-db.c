/* The database room on a real file: grouping, statements, migrations, what a kill leaves. */
#include "db/db.h"
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/wait.h>

static char dir[64];
static char *path_of(const char *name) { return path_join(dir, name); }

static int setup(void **st)
{
	snprintf(dir, sizeof dir, "/tmp/test-db.XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **st)
{
	struct err e = ERR_INIT;
	int r = path_remove_all(AT_FDCWD, dir, &e);

	err_fini(&e);
	return r;
}

static struct db *open_ok(struct loop *l, const char *path)
{
	struct err e = ERR_INIT;
	struct db *db = NULL;

	if (db_open(l, path, &db, &e) < 0) fail_msg("%s", e.msg);
	return db;
}

static void test_values(void **st)
{
	_cleanup_free_ char *p = path_of("values");
	_cleanup_db_ struct db *db = open_ok(NULL, p);
	struct err e = ERR_INIT;
	_cleanup_free_ char *s = NULL;
	int64_t n = 7;

	assert_int_equal(db_meta_get(db, "a", &s, &e), 0);
	assert_int_equal(db_meta_set(db, "a", "1", &e), 1);
	assert_int_equal(db_meta_set(db, "a", "2", &e), 1);
	assert_int_equal(db_meta_get(db, "a", &s, &e), 1);
	assert_string_equal(s, "2");
	assert_int_equal(db_get_int(db, &e, "SELECT max(id) FROM key", &n), 0);
	assert_int_equal(n, 7);
	assert_int_equal(db_exec(db, &e, "INSERT INTO key(id, op) VALUES(?, ?)", DB_INT(1ll << 40), DB_TEXT(NULL)), 1);
	assert_true(db_last_id(db) == 1ll << 40);
	assert_int_equal(db_get_int(db, &e, "SELECT max(id) FROM key", &n), 1);
	assert_true(n == 1ll << 40);
	assert_int_equal(db_exec(db, &e, "INSERT INTO result(key_id, created_at, value) VALUES(?, ?, ?)", DB_INT(n), DB_INT(-5),
				 DB_BLOB("a\0b", 3)),
			 1);
	assert_int_equal(db_get_int(db, &e, "SELECT length(value) FROM result WHERE created_at = ?", &n, DB_INT(-5)), 1);
	assert_int_equal(n, 3);
	/* Foreign keys hold and cascade. */
	assert_int_equal(db_exec(db, &e, "INSERT INTO result(key_id, created_at) VALUES(?, 0)", DB_INT(99)), -1);
	assert_int_equal(e.code, CODE_ALREADY_EXISTS);
	assert_int_equal(db_exec(db, &e, "DELETE FROM key"), 1);
	assert_int_equal(db_get_int(db, &e, "SELECT count(*) FROM result", &n), 1);
	assert_int_equal(n, 0);
	assert_int_equal(db_exec(db, &e, "SELEC"), -1);
	err_fini(&e);
}

struct nest {
	struct db *db;
	int seen, inner;
};

static int count_row(void *ctx, const struct db_row *row, struct err *e) { return ++*(int *)ctx, 0; }

static int nest_row(void *ctx, const struct db_row *row, struct err *e)
{
	struct nest *n = ctx;
	static const char sql[] = "SELECT k FROM meta";

	n->seen++;
	if (n->seen > 3) return 0;
	return db_query(n->db, e, sql, n->seen == 1 ? nest_row : count_row, n->seen == 1 ? (void *)n : (void *)&n->inner) < 0
		       ? -1
		       : 0;
}

/* A callback may run the statement it is in, and a heap string at an address used before is another statement. */
static void test_cache(void **st)
{
	_cleanup_free_ char *p = path_of("cache");
	_cleanup_db_ struct db *db = open_ok(NULL, p);
	struct nest n = {.db = db};
	struct err e = ERR_INIT;
	char sql[64];
	int64_t v;

	assert_int_equal(db_meta_set(db, "a", "", &e), 1);
	assert_int_equal(db_meta_set(db, "b", "", &e), 1);
	assert_int_equal(db_query(db, &e, "SELECT k FROM meta", nest_row, &n), 2);
	assert_true(n.seen > 2);
	for (int i = 0; i < 50; i++) {
		snprintf(sql, sizeof sql, "SELECT %d", i);
		assert_int_equal(db_get_int(db, &e, sql, &v), 1);
		assert_int_equal(v, i);
	}
}

/* The group is invisible outside until the timer commits it. */
struct timed {
	struct loop *l;
	char *path;
	int before, after;
	struct loop_timer t;
};

static int outside(const char *path)
{
	sqlite3 *h;
	sqlite3_stmt *s = NULL;
	int n = -1;

	sqlite3_open_v2(path, &h, SQLITE_OPEN_READONLY, NULL);
	if (sqlite3_prepare_v2(h, "SELECT count(*) FROM meta", -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW)
		n = sqlite3_column_int(s, 0);
	sqlite3_finalize(s);
	sqlite3_close(h);
	return n;
}

static void timed_end(void *arg)
{
	struct timed *t = arg;

	t->after = outside(t->path);
	loop_timer_stop(&t->t);
	loop_stop(t->l);
}

static void test_group(void **st)
{
	_cleanup_free_ char *p = path_of("group");
	struct loop *l = loop_new();
	struct db *db = open_ok(l, p);
	struct timed t = {.l = l, .path = p};
	struct err e = ERR_INIT;

	assert_int_equal(db_meta_set(db, "a", "1", &e), 1);
	assert_false(db_idle(db));
	t.before = outside(p);
	loop_timer_start(l, &t.t, 60, 0, timed_end, &t);
	loop_run(l);
	assert_int_equal(t.before, 0);
	assert_int_equal(t.after, 1);
	assert_true(db_idle(db));
	assert_int_equal(db_meta_set(db, "b", "1", &e), 1);
	assert_int_equal(db_flush(db, &e), 0);
	assert_int_equal(outside(p), 2);
	db_close(db);
	loop_free(l);
}

/* Many pages: the checkpoint runs in its job and the loop ends idle; the log is reused rather than growing for ever. */
static void test_checkpoint(void **st)
{
	_cleanup_free_ char *p = path_of("cp"), *wal = path_of("cp-wal");
	struct loop *l = loop_new();
	struct db *db = open_ok(l, p);
	struct timed t = {.l = l, .path = p};
	struct err e = ERR_INIT;
	struct stat sb;
	off_t first = 0;
	static char big[4096];

	for (int round = 0; round < 6; round++) {
		for (int i = 0; i < 1100; i++) {
			char k[16];

			snprintf(k, sizeof k, "%d", i);
			memset(big, 'a' + round, sizeof big - 1);
			assert_int_equal(db_meta_set(db, k, big, &e), 1);
		}
		assert_int_equal(db_flush(db, &e), 0);
		loop_timer_start(l, &t.t, 150, 0, timed_end, &t);
		loop_run(l);
		assert_true(db_idle(db));
		assert_int_equal(stat(wal, &sb), 0);
		if (round == 1) first = sb.st_size;
	}
	if (sb.st_size > first * 3 / 2) fail_msg("log grew from %jd to %jd", (intmax_t)first, (intmax_t)sb.st_size);
	db_close(db);
	loop_free(l);
}

/* A killed process leaves the committed groups and nothing of the one under way. */
static void test_kill(void **st)
{
	_cleanup_free_ char *p = path_of("kill");
	pid_t pid = fork();

	if (pid == 0) {
		struct db *db = open_ok(NULL, p);

		db_meta_set(db, "kept", "1", NULL);
		db_flush(db, NULL);
		db_meta_set(db, "lost", "1", NULL);
		kill(getpid(), SIGKILL);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	_cleanup_db_ struct db *db = open_ok(NULL, p);
	_cleanup_free_ char *v = NULL;
	assert_int_equal(db_meta_get(db, "kept", &v, NULL), 1);
	assert_int_equal(db_meta_get(db, "lost", &v, NULL), 0);
}

static void test_refused(void **st)
{
	_cleanup_free_ char *p = path_of("newer"), *q = path_of("junk");
	struct db *db = open_ok(NULL, p);
	struct err e = ERR_INIT;

	db_close(db);
	sqlite3 *h;
	assert_int_equal(sqlite3_open(p, &h), SQLITE_OK);
	assert_int_equal(sqlite3_exec(h, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(h);
	assert_int_equal(db_open(NULL, p, &db, &e), -1);
	assert_int_equal(e.code, CODE_FAILED_PRECONDITION);
	assert_non_null(strstr(e.msg, "newer version"));
	assert_int_equal(path_write_file(AT_FDCWD, q, "not a database at all, much longer than a header", 48, 0600, false, &e),
			 0);
	assert_int_equal(db_open(NULL, q, &db, &e), -1);
	assert_int_equal(e.code, CODE_DATA_LOSS);
	err_fini(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),     cmocka_unit_test(test_cache), cmocka_unit_test(test_group),
		cmocka_unit_test(test_checkpoint), cmocka_unit_test(test_kill),  cmocka_unit_test(test_refused),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
