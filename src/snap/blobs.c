/* The compressed forms of layers, and chain IDs. Annotations are kept as one BLOB, "key=value" texts each ended by NUL. */
#include "snap/store.h"

/* ---- in memory ---- */

static void blob_fini(struct snap_blob *b)
{
	free(b->compression);
	free(b->digest);
	free(b->media_type);
	free(b->source);
	strvec_fini(&b->annotations);
}

static void blob_copy(struct snap_blob *dst, const struct snap_blob *src)
{
	*dst = (struct snap_blob){
		.compression = xstrdup(src->compression),
		.digest = xstrdup(src->digest),
		.media_type = xstrdup(src->media_type),
		.source = xstrdup(src->source),
		.size = src->size,
		.created_at_ns = src->created_at_ns ? src->created_at_ns : snap_now_ns(),
	};
	strvec_copy(&dst->annotations, src->annotations.v, src->annotations.n);
}

/* How many records name a digest: the map's value is the number. */
static void blob_count(struct snap_store *s, const char *digest, intptr_t by)
{
	intptr_t n = (intptr_t)map_get(&s->blobs, digest) + by;

	if (n > 0)
		map_put(&s->blobs, digest, (void *)n);
	else
		map_del(&s->blobs, digest);
}

static ptrdiff_t blob_index(const struct snap *sn, const char *digest)
{
	for (size_t i = 0; i < sn->blobs.n; i++)
		if (strcmp(sn->blobs.v[i].digest, digest) == 0) return (ptrdiff_t)i;
	return -1;
}

static void blob_forget(struct snap *sn, size_t i)
{
	blob_count(sn->store, sn->blobs.v[i].digest, -1);
	blob_fini(&sn->blobs.v[i]);
	vec_remove(&sn->blobs, i);
}

void snap_blobs_forget(struct snap *sn)
{
	while (sn->blobs.n) blob_forget(sn, sn->blobs.n - 1);
	vec_fini(&sn->blobs);
}

const struct snap_blob *snap_blob_find(const struct snap *layer, const char *compression)
{
	for (size_t i = 0; i < layer->blobs.n; i++)
		if (!compression || str_eq(layer->blobs.v[i].compression, compression)) return &layer->blobs.v[i];
	return NULL;
}

const struct snap_blob *snap_blob_find_digest(const struct snap *layer, const char *digest)
{
	ptrdiff_t i = blob_index(layer, digest);

	return i < 0 ? NULL : &layer->blobs.v[i];
}

bool snap_store_has_blob(struct snap_store *s, const char *digest) { return map_has(&s->blobs, digest); }

/* ---- changes ---- */

static int blob_row_put(struct snap *layer, const struct snap_blob *b, struct err *e)
{
	static const char sql[] = "INSERT OR REPLACE INTO snapshot_blob(snapshot_id, digest, compression, media_type, size,"
				  " annotations, source, created_at) VALUES(?, ?, ?, ?, ?, ?, ?, ?)";
	_cleanup_buf_ struct buf notes = BUF_INIT;

	if (!layer->has_row) return 0;
	for (size_t i = 0; i < b->annotations.n; i++) buf_add(&notes, b->annotations.v[i], strlen(b->annotations.v[i]) + 1);
	return db_exec(layer->store->db, e, sql, DB_INT(layer->id), DB_TEXT(b->digest),
		       DB_TEXT(b->compression ? b->compression : ""), DB_TEXT(b->media_type ? b->media_type : ""),
		       DB_INT(b->size), DB_BLOB(buf_str(&notes), notes.n), DB_TEXT(b->source), DB_INT(b->created_at_ns)) < 0
		       ? -1
		       : 0;
}

int snap_blobs_put(struct snap *layer, struct err *e)
{
	for (size_t i = 0; i < layer->blobs.n; i++)
		if (blob_row_put(layer, &layer->blobs.v[i], e) < 0) return -1;
	return 0;
}

int snap_blob_add(struct snap *layer, const struct snap_blob *b, struct err *e)
{
	struct snap_blob copy;
	ptrdiff_t old;

	if (!digest_valid(b->digest))
		return err_set(e, CODE_INVALID_ARGUMENT, "blob of snapshot %jd: bad digest", (intmax_t)layer->id);
	blob_copy(&copy, b);
	if (blob_row_put(layer, &copy, e) < 0) {
		blob_fini(&copy);
		return -1;
	}
	if ((old = blob_index(layer, copy.digest)) >= 0) blob_forget(layer, (size_t)old);
	vec_push(&layer->blobs, copy);
	blob_count(layer->store, copy.digest, 1);
	return 0;
}

int snap_blob_drop(struct snap *layer, const char *digest, struct err *e)
{
	ptrdiff_t i = blob_index(layer, digest);

	if (i < 0) return 0;
	if (layer->has_row && db_exec(layer->store->db, e, "DELETE FROM snapshot_blob WHERE snapshot_id = ? AND digest = ?",
				      DB_INT(layer->id), DB_TEXT(digest)) < 0)
		return -1;
	blob_forget(layer, (size_t)i);
	return 0;
}

/* ---- loading ---- */

static int blob_load(void *ctx, const struct db_row *row, struct err *e)
{
	struct snap *sn = snap_find(ctx, db_col_int(row, 0));
	struct snap_blob b = {0};
	size_t n;
	const char *p = db_col_blob(row, 5, &n);

	if (!sn || !db_col_text(row, 1)) return 0;
	b.digest = xstrdup(db_col_text(row, 1));
	b.compression = xstrdup(db_col_text(row, 2));
	b.media_type = xstrdup(db_col_text(row, 3));
	b.size = db_col_int(row, 4);
	for (size_t at = 0; at < n; at += strnlen(p + at, n - at) + 1) strvec_take(&b.annotations, xstrndup(p + at, n - at));
	b.source = xstrdup(db_col_text(row, 6));
	b.created_at_ns = db_col_int(row, 7);
	vec_push(&sn->blobs, b);
	blob_count(sn->store, b.digest, 1);
	return 0;
}

int snap_blobs_load(struct snap_store *s, struct err *e)
{
	return db_query(s->db, e,
			"SELECT snapshot_id, digest, compression, media_type, size, annotations, source, created_at"
			" FROM snapshot_blob ORDER BY snapshot_id, created_at",
			blob_load, s) < 0
		       ? -1
		       : 0;
}

/* ---- diff IDs and chain IDs ---- */

void snap_chain_index(struct snap *sn)
{
	if (sn->chain_id && !sn->key && sn->kind != SNAP_RANGE && !map_has(&sn->store->by_chain, sn->chain_id))
		map_put(&sn->store->by_chain, sn->chain_id, sn);
}

int snap_set_diff_id(struct snap *layer, const char *diff_id, struct err *e)
{
	if (str_eq(layer->diff_id, diff_id)) return 0;
	if (!digest_valid(diff_id)) return err_set(e, CODE_INVALID_ARGUMENT, "snapshot %jd: bad diff ID", (intmax_t)layer->id);
	if (layer->diff_id)
		return err_set(e, CODE_FAILED_PRECONDITION, "snapshot %jd has the diff ID %s, not %s", (intmax_t)layer->id,
			       layer->diff_id, diff_id);
	if (layer->has_row && db_exec(layer->store->db, e, "UPDATE snapshot SET diff_id = ? WHERE id = ?", DB_TEXT(diff_id),
				      DB_INT(layer->id)) < 0)
		return -1;
	layer->diff_id = xstrdup(diff_id);
	return 0;
}

static void chain_fold(char chain[static DIGEST_STR], const char *diff_id)
{
	_cleanup_free_ char *both = NULL;

	if (!chain[0]) {
		snprintf(chain, DIGEST_STR, "%s", diff_id);
		return;
	}
	both = xasprintf("%s %s", chain, diff_id);
	digest_str_of(both, strlen(both), chain);
}

const char *snap_chain_id(struct snap *s)
{
	_cleanup_err_ struct err e = ERR_INIT;
	char chain[DIGEST_STR] = "";

	if (s->chain_id) return s->chain_id;
	for (size_t i = 0; i < s->chain.n; i++) {
		if (!s->chain.v[i]->diff_id) return NULL;
		chain_fold(chain, s->chain.v[i]->diff_id);
	}
	s->chain_id = xstrdup(chain);
	snap_chain_index(s);
	if (s->has_row &&
	    db_exec(s->store->db, &e, "UPDATE snapshot SET chain_id = ? WHERE id = ?", DB_TEXT(chain), DB_INT(s->id)) < 0)
		log_warn("snapshot %jd: %s", (intmax_t)s->id, e.msg);
	return s->chain_id;
}

struct snap *snap_find_chain(struct snap_store *s, const char *chain_id) { return map_get(&s->by_chain, chain_id); }

struct snap *snap_layer_lower(const struct snap *layer)
{
	if (layer->kind == SNAP_DIFF) return layer->diff_lower;
	return layer->kind == SNAP_LAYER && layer->parents.n ? layer->parents.v[0] : NULL;
}
