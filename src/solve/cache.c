#include "solve/cache.h"

struct ids {
	int64_t *v;
	size_t n, max;
};

static int add_id(void *ctx, const struct db_row *row, struct err *e)
{
	struct ids *ids = ctx;
	ids->v[ids->n++] = db_col_int(row, 0);
	return ids->n == ids->max;
}

static void report(struct err *e)
{
	log_warn("build cache: %s", e->msg);
	err_fini(e);
}

size_t cache_roots(struct db *db, const char *root_key, int64_t *ret, size_t max)
{
	struct ids ids = {ret, 0, max};
	struct err e = ERR_INIT;
	if (max && db_query(db, &e, "SELECT id FROM key WHERE op = ?", add_id, &ids, DB_TEXT(root_key)) < 0) report(&e);
	return ids.n;
}

size_t cache_children(struct db *db, int64_t from, size_t input, const char *op_digest, const char *selector, size_t output,
		      int64_t *ret, size_t max)
{
	struct ids ids = {ret, 0, max};
	struct err e = ERR_INIT;
	if (max && db_query(db, &e,
			    "SELECT to_key FROM link WHERE from_key = ? AND input_index = ? AND op_digest = ? AND selector = ? AND output = ?",
			    add_id, &ids, DB_INT(from), DB_INT(input), DB_TEXT(op_digest), DB_TEXT(selector), DB_INT(output)) < 0)
		report(&e);
	return ids.n;
}

int64_t cache_new_key(struct db *db, const char *root_key)
{
	struct err e = ERR_INIT;
	if (db_exec(db, &e, "INSERT INTO key(op) VALUES(?)", DB_TEXT(root_key)) < 0) {
		report(&e);
		return 0;
	}
	return db_last_id(db);
}

void cache_link(struct db *db, int64_t from, size_t input, const char *op_digest, const char *selector, size_t output, int64_t to)
{
	struct err e = ERR_INIT;
	if (db_exec(db, &e,
		    "INSERT OR IGNORE INTO link(from_key, input_index, op_digest, selector, output, to_key) VALUES(?,?,?,?,?,?)",
		    DB_INT(from), DB_INT(input), DB_TEXT(op_digest), DB_TEXT(selector), DB_INT(output), DB_INT(to)) < 0)
		report(&e);
}

struct result {
	int64_t snap, created;
	bool found;
};

static int take_result(void *ctx, const struct db_row *row, struct err *e)
{
	struct result *r = ctx;
	r->snap = db_col_int(row, 0);
	r->created = db_col_int(row, 1);
	r->found = true;
	return 1;
}

int cache_result(struct db *db, int64_t key, int64_t *ret_snap, int64_t *ret_created_ns)
{
	struct result r = {0};
	struct err e = ERR_INIT;
	if (db_query(db, &e, "SELECT snapshot_id, created_at FROM result WHERE key_id = ? ORDER BY id DESC LIMIT 1", take_result, &r,
		     DB_INT(key)) < 0)
		report(&e);
	if (r.found) *ret_snap = r.snap;
	if (r.found && ret_created_ns) *ret_created_ns = r.created;
	return r.found;
}

void cache_save(struct db *db, int64_t key, int64_t snap, int64_t created_ns)
{
	struct err e = ERR_INIT;
	struct timespec now = time_now();
	if (db_exec(db, &e, "INSERT INTO result(key_id, output, snapshot_id, created_at) VALUES(?, 0, ?, ?)", DB_INT(key),
		    snap ? DB_INT(snap) : DB_NULL, DB_INT(created_ns ? created_ns : now.tv_sec * 1000000000 + now.tv_nsec)) < 0)
		report(&e);
}

void cache_forget(struct db *db, int64_t key, int64_t snap)
{
	struct err e = ERR_INIT;
	if (db_exec(db, &e, "DELETE FROM result WHERE key_id = ? AND snapshot_id = ?", DB_INT(key), DB_INT(snap)) < 0) report(&e);
}

/* ---- for export ---- */

static int take_text(void *ctx, const struct db_row *row, struct err *e)
{
	const char *s = db_col_text(row, 0);
	*(char **)ctx = xstrdup(s);
	return 1;
}

char *cache_root_of(struct db *db, int64_t key)
{
	char *text = NULL;
	struct err e = ERR_INIT;
	if (db_query(db, &e, "SELECT op FROM key WHERE id = ? AND op IS NOT NULL", take_text, &text, DB_INT(key)) < 0) report(&e);
	return text;
}

struct rows {
	VEC(struct cache_row) v;
	size_t max;
};

static int take_link(void *ctx, const struct db_row *row, struct err *e)
{
	struct rows *r = ctx;
	vec_push(&r->v, ((struct cache_row){db_col_int(row, 0), (size_t)db_col_int(row, 1), (size_t)db_col_int(row, 2),
					    xstrdup(db_col_text(row, 3)), xstrdup(db_col_text(row, 4))}));
	return r->v.n >= r->max;
}

size_t cache_links_to(struct db *db, int64_t key, size_t max, struct cache_row **ret)
{
	struct rows r = {.max = max};
	struct err e = ERR_INIT;
	if (db_query(db, &e, "SELECT from_key, input_index, output, op_digest, selector FROM link WHERE to_key = ? ORDER BY op_digest, output",
		     take_link, &r, DB_INT(key)) < 0)
		report(&e);
	*ret = r.v.v;
	return r.v.n;
}

void cache_rows_free(struct cache_row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(rows[i].op_digest);
		free(rows[i].selector);
	}
	free(rows);
}

int cache_collect(struct db *db, struct err *e)
{
	if (db_exec(db, e, "DELETE FROM result WHERE snapshot_id IS NOT NULL AND snapshot_id NOT IN (SELECT id FROM snapshot)") < 0)
		return -1;
	/* A key without a result that leads to no other key is of no use; removing it may make another one such. */
	for (int n = 1, rounds = 0; n > 0 && rounds < 1000; rounds++) {
		n = db_exec(db, e,
			    "DELETE FROM key WHERE NOT EXISTS (SELECT 1 FROM result WHERE key_id = key.id) AND NOT EXISTS (SELECT 1 FROM "
			    "link WHERE from_key = key.id)");
		if (n < 0) return -1;
	}
	return 0;
}
