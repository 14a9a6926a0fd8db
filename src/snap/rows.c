/* Records <-> rows. `parents` is text: ids joined by commas; a RANGE is "id/from"; a DIFF is "lower,upper" with 0 for scratch.
 *
 * A row is written by one upsert of all columns: rows change rarely, and REPLACE would take the rows that refer to it along.
 * `boot` holds the id of the boot in which the row was written until a syncfs covered its directory (design: disk). */
#include "snap/store.h"

#include <errno.h>

static char *row_parents(const struct snap *sn)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (sn->kind == SNAP_DIFF) {
		bool has_upper = sn->parents.n > (sn->diff_lower != NULL);
		buf_addf(&b, "%jd,%jd", (intmax_t)(sn->diff_lower ? sn->diff_lower->id : 0),
			 (intmax_t)(has_upper ? sn->parents.v[sn->parents.n - 1]->id : 0));
		return buf_take_str(&b);
	}
	for (size_t i = 0; i < sn->parents.n; i++) buf_addf(&b, "%s%jd", i ? "," : "", (intmax_t)sn->parents.v[i]->id);
	if (sn->kind == SNAP_RANGE) buf_addf(&b, "/%zu", sn->range_from);
	return xstrdup(buf_str(&b));
}

int snap_row_put(struct snap *sn, struct err *e)
{
	static const char sql[] =
		"INSERT INTO snapshot(id, uid, kind, state, type, description, parents, skey, diff_id, chain_id, size, "
		"created_at,"
		" last_used_at, usage_count, boot) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
		" ON CONFLICT(id) DO UPDATE SET state = excluded.state, type = excluded.type, description = "
		"excluded.description,"
		" skey = excluded.skey, diff_id = excluded.diff_id, chain_id = excluded.chain_id, size = excluded.size,"
		" last_used_at = excluded.last_used_at, usage_count = excluded.usage_count, boot = excluded.boot";
	_cleanup_free_ char *parents = row_parents(sn);
	int r = db_exec(sn->store->db, e, sql, DB_INT(sn->id), DB_TEXT(sn->uid), DB_INT(sn->kind), DB_INT(sn->state),
			DB_TEXT(sn->type), DB_TEXT(sn->description), DB_TEXT(parents), DB_TEXT(sn->key), DB_TEXT(sn->diff_id),
			DB_TEXT(sn->chain_id), DB_INT(sn->size_bytes), DB_INT(sn->created_at_ns), DB_INT(sn->last_used_at_ns),
			DB_INT(sn->usage_count), DB_TEXT(sn->durable ? NULL : sn->store->boot_id));

	if (r < 0) return err_wrap(e, "recording snapshot %jd", (intmax_t)sn->id);
	sn->has_row = true;
	return 0;
}

int snap_row_delete(struct snap *sn, struct err *e)
{
	if (!sn->has_row) return 0;
	if (db_exec(sn->store->db, e, "DELETE FROM snapshot WHERE id = ?", DB_INT(sn->id)) < 0) return -1;
	sn->has_row = false;
	return 0;
}

void snap_row_set_boot(struct snap *sn, bool durable)
{
	_cleanup_err_ struct err e = ERR_INIT;

	if (sn->durable == durable) return;
	sn->durable = durable;
	if (!sn->has_row) return;
	if (db_exec(sn->store->db, &e, "UPDATE snapshot SET boot = ? WHERE id = ?",
		    DB_TEXT(durable ? NULL : sn->store->boot_id), DB_INT(sn->id)) < 0)
		log_warn("snapshot %jd: %s", (intmax_t)sn->id, e.msg);
}

/* ---- loading ---- */

struct rows_load {
	struct snap_store *s;
	struct map *dirs;
	VEC(int64_t) bad;
};

/* -1: a parent is not there. */
static int row_read_parents(struct snap *sn, const char *text)
{
	const char *p = text;

	for (size_t i = 0; *p; i++) {
		char *end;
		int64_t id = strtoll(p, &end, 10);
		if (end == p) return -1;
		if (id) {
			struct snap *parent = snap_find(sn->store, id);
			if (!parent || parent == sn) return -1;
			vec_push(&sn->parents, parent);
			parent->children++;
			if (sn->kind == SNAP_DIFF && i == 0) sn->diff_lower = parent;
		} else if (sn->kind != SNAP_DIFF) {
			return -1;
		}
		if (*end == '/') {
			sn->range_from = strtoul(end + 1, &end, 10);
			return *end == 0 && sn->parents.n == 1 && sn->range_from < sn->parents.v[0]->chain.n ? 0 : -1;
		}
		p = *end == ',' ? end + 1 : end;
		if (*end && *end != ',') return -1;
	}
	return 0;
}

static bool row_has_dir(const struct rows_load *l, int64_t id)
{
	char key[24];

	snprintf(key, sizeof key, "%jd", (intmax_t)id);
	return map_has(l->dirs, key);
}

/* Is what the row promises there? */
static bool row_good(struct rows_load *l, struct snap *sn, const char *parents, const char *boot)
{
	if (sn->kind > SNAP_DIFF || sn->state > SNAP_COMMITTED) return false;
	if (boot && !str_eq(boot, l->s->boot_id)) return false;
	if (row_read_parents(sn, parents ? parents : "") < 0) return false;
	if (sn->kind == SNAP_LAYER && sn->parents.n > 1) return false;
	if (sn->kind == SNAP_RANGE && sn->parents.n != 1) return false;
	if (sn->kind == SNAP_MERGE && sn->parents.n == 0) return false;
	if (sn->state == SNAP_ACTIVE) return sn->key != NULL && sn->kind == SNAP_LAYER;
	if (sn->state == SNAP_LAZY || sn->kind == SNAP_MERGE || sn->kind == SNAP_RANGE) return true;
	return row_has_dir(l, sn->id);
}

static int row_load(void *ctx, const struct db_row *row, struct err *e)
{
	struct rows_load *l = ctx;
	int64_t id = db_col_int(row, 0);
	struct snap *sn = snap_store_add(l->s, id, (enum snap_kind)db_col_int(row, 2));

	if (db_col_text(row, 1)) snprintf(sn->uid, sizeof sn->uid, "%s", db_col_text(row, 1));
	sn->state = (enum snap_state)db_col_int(row, 3);
	sn->type = snap_type_intern(db_col_text(row, 4));
	sn->description = xstrdup(db_col_text(row, 5));
	sn->key = xstrdup(db_col_text(row, 7));
	sn->diff_id = xstrdup(db_col_text(row, 8));
	sn->chain_id = xstrdup(db_col_text(row, 9));
	sn->size_bytes = db_col_int(row, 10);
	sn->created_at_ns = db_col_int(row, 11);
	sn->last_used_at_ns = db_col_int(row, 12);
	sn->usage_count = db_col_int(row, 13);
	sn->has_row = true;
	sn->durable = db_col_null(row, 14);
	if (!row_good(l, sn, db_col_text(row, 6), db_col_text(row, 14))) {
		vec_push(&l->bad, id);
		snap_store_drop(sn);
		return 0;
	}
	snap_make_chain(sn);
	sn->is_mutable = sn->state == SNAP_ACTIVE;
	map_put(&l->s->by_uid, sn->uid, sn);
	if (sn->key) map_put(&l->s->by_key, sn->key, sn);
	snap_chain_index(sn);
	snap_shape_add(sn);
	if (!sn->durable) snap_store_pend(sn);
	return 0;
}

int snap_rows_load(struct snap_store *s, struct map *dirs, struct err *e)
{
	struct rows_load l = {.s = s, .dirs = dirs};
	int r = db_query(s->db, e,
			 "SELECT id, uid, kind, state, type, description, parents, skey, diff_id, chain_id, size, created_at,"
			 " last_used_at, usage_count, boot FROM snapshot ORDER BY id",
			 row_load, &l);

	for (size_t i = 0; i < l.bad.n && r >= 0; i++)
		r = db_exec(s->db, e, "DELETE FROM snapshot WHERE id = ?", DB_INT(l.bad.v[i]));
	if (l.bad.n) log_info("dropped %zu snapshots that a crash left incomplete", l.bad.n);
	vec_fini(&l.bad);
	return r < 0 ? -1 : 0;
}
