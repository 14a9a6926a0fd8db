/* Making, holding and removing snapshots. See snap.h for the model.
 *
 * Holding: refs counts holders; going from 0 to 1 takes one reference on each parent, and back. children counts records that
 * name this one as parent, held or not: a record with children stays. An active snapshot without a key ends with its last
 * reference; committed and keyed ones stay as records until snap_remove. */
#include "snap/store.h"

/* ---- chains ---- */

static void chain_append(struct snap *sn, const struct snap *from, size_t first)
{
	for (size_t i = first; i < from->chain.n; i++) vec_push(&sn->chain, from->chain.v[i]);
}

void snap_make_chain(struct snap *sn)
{
	if (sn->kind != SNAP_DIFF)
		for (size_t i = 0; i < sn->parents.n; i++) chain_append(sn, sn->parents.v[i], sn->range_from);
	if (sn->kind == SNAP_LAYER || sn->kind == SNAP_DIFF) vec_push(&sn->chain, sn);
}

/* Merges and ranges of equal inputs are one record. */
char *snap_shape(const struct snap *sn)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (sn->kind != SNAP_MERGE && sn->kind != SNAP_RANGE) return NULL;
	buf_addf(&b, "%zu", sn->range_from);
	for (size_t i = 0; i < sn->parents.n; i++) buf_addf(&b, ",%jd", (intmax_t)sn->parents.v[i]->id);
	return buf_take_str(&b);
}

void snap_shape_add(struct snap *sn)
{
	_cleanup_free_ char *shape = snap_shape(sn);

	if (shape) map_put(&sn->store->by_shape, shape, sn);
}

void snap_shape_del(struct snap *sn)
{
	_cleanup_free_ char *shape = snap_shape(sn);

	if (shape && map_get(&sn->store->by_shape, shape) == sn) map_del(&sn->store->by_shape, shape);
}

/* ---- holding ---- */

static void snap_destroy(struct snap *s)
{
	_cleanup_err_ struct err e = ERR_INIT;
	struct snap_store *store = s->store;
	int64_t id = s->id;

	ensure(s->refs == 0 && s->children == 0);
	if (store->on_remove) store->on_remove(store->on_remove_arg, s);
	if (snap_row_delete(s, &e) < 0) log_warn("snapshot %jd: %s", (intmax_t)id, e.msg);
	snap_store_drop(s);
	snap_store_trash(store, id);
}

struct snap *snap_ref(struct snap *s)
{
	if (s->refs++ > 0) return s;
	for (size_t i = 0; i < s->parents.n; i++) snap_ref(s->parents.v[i]);
	if (s->is_mutable) snap_row_set_boot(s, false); /* somebody may write from here on */
	return s;
}

void snap_unref(struct snap *s)
{
	if (!s) return;
	ensure(s->refs > 0);
	if (--s->refs > 0) return;
	for (size_t i = 0; i < s->parents.n; i++) snap_unref(s->parents.v[i]);
	s->locks = 0;
	snap_mnt_unref(s->mnt); /* its views have ended too */
	s->mnt = NULL;
	if (s->state == SNAP_ACTIVE && !s->key) {
		if (s->children == 0) snap_destroy(s);
	} else if (s->is_mutable) {
		snap_store_pend(s);
	}
}

/* ---- making ---- */

static struct snap *snap_new(struct snap_store *s, enum snap_kind kind, enum snap_state state, const char *description,
			     const char *type)
{
	struct snap *sn = snap_store_add(s, 0, kind);

	id_new(sn->uid);
	map_put(&s->by_uid, sn->uid, sn);
	sn->state = state;
	sn->type = snap_type_intern(type);
	sn->description = xstrdup(description);
	sn->created_at_ns = snap_now_ns();
	return sn;
}

static void snap_add_parent(struct snap *sn, struct snap *parent)
{
	ensure(parent->state != SNAP_ACTIVE);
	vec_push(&sn->parents, parent);
	parent->children++;
}

/* The first reference, once the parents are known. */
static struct snap *snap_born(struct snap *sn)
{
	snap_make_chain(sn);
	return snap_ref(sn);
}

/* Give up one that was not recorded and has no directory. */
static void snap_unborn(struct snap *sn)
{
	for (size_t i = 0; i < sn->parents.n; i++) snap_unref(sn->parents.v[i]);
	snap_store_drop(sn);
}

struct snap *snap_create(struct snap_store *s, struct snap *parent, const char *description, const char *type)
{
	struct snap *sn = snap_new(s, SNAP_LAYER, SNAP_ACTIVE, description, type);

	if (parent) snap_add_parent(sn, parent);
	return snap_born(sn);
}

int snap_commit(struct snap *active, struct err *e)
{
	ensure(active->state == SNAP_ACTIVE);
	active->state = SNAP_COMMITTED;
	active->is_mutable = false;
	active->durable = false;
	if (snap_row_put(active, e) < 0 || snap_blobs_put(active, e) < 0) {
		active->state = SNAP_ACTIVE;
		active->is_mutable = active->key != NULL;
		return -1;
	}
	snap_mnt_unref(active->mnt);
	active->mnt = NULL;
	snap_store_pend(active);
	return 0;
}

void snap_discard(struct snap *active)
{
	ensure(active->state == SNAP_ACTIVE);
	if (active->key) snap_set_key(active, NULL, NULL);
	snap_unref(active);
}

struct snap *snap_create_lazy(struct snap_store *s, struct snap *parent, const char *diff_id, const char *description,
			      const char *type, struct err *e)
{
	struct snap *sn, *old = NULL;
	const char *chain;

	if (!digest_valid(diff_id)) {
		err_set(e, CODE_INVALID_ARGUMENT, "bad diff ID of a layer");
		return NULL;
	}
	sn = snap_new(s, SNAP_LAYER, SNAP_LAZY, description, type);
	if (parent) snap_add_parent(sn, parent);
	sn->diff_id = xstrdup(diff_id);
	sn->durable = true; /* there is nothing on disk to be lost */
	snap_born(sn);
	chain = snap_chain_id(sn);
	old = chain ? snap_find_chain(s, chain) : NULL;
	if (old && old != sn) {
		snap_ref(old);
		snap_unborn(sn);
		return old;
	}
	if (snap_row_put(sn, e) == 0) return sn;
	snap_unborn(sn);
	return NULL;
}

int snap_filled(struct snap *lazy, struct err *e)
{
	if (lazy->state == SNAP_COMMITTED) return 0; /* another build was first */
	lazy->state = SNAP_COMMITTED;
	lazy->durable = false;
	if (snap_row_put(lazy, e) < 0) {
		lazy->state = SNAP_LAZY;
		lazy->durable = true;
		return -1;
	}
	snap_store_pend(lazy);
	return 0;
}

size_t snap_lazy_layers(const struct snap *s, struct snap **ret, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < s->chain.n; i++) {
		struct snap *l = s->chain.v[i];
		bool seen = false;
		if (l->state != SNAP_LAZY) continue;
		for (size_t k = 0; k < min_of(n, max) && !seen; k++) seen = ret[k] == l;
		if (seen) continue;
		if (n < max) ret[n] = l;
		n++;
	}
	return n;
}

/* ---- merge and diff ---- */

/* Record sn (whose parents are set), or answer the equal one that exists. */
static struct snap *snap_shared(struct snap *sn, struct err *e)
{
	_cleanup_free_ char *shape = snap_shape(sn);
	struct snap *old = map_get(&sn->store->by_shape, shape);

	sn->durable = true; /* no directory: its layers' rows say it */
	snap_born(sn);
	if (old) {
		snap_ref(old);
		snap_unborn(sn);
		return old;
	}
	if (sn->chain.n > SNAP_CHAIN_MAX)
		err_set(e, CODE_RESOURCE_EXHAUSTED, "a merge of %zu layers: at most %d", sn->chain.n, SNAP_CHAIN_MAX);
	else if (snap_row_put(sn, e) == 0) {
		snap_shape_add(sn);
		return sn;
	}
	snap_unborn(sn);
	return NULL;
}

struct snap *snap_merge(struct snap_store *s, struct snap *const *in, size_t n, const char *description, struct err *e)
{
	struct snap *one = NULL, *sn;
	size_t count = 0, layers = 0;

	for (size_t i = 0; i < n; i++)
		if (in[i]) one = in[i], count++, layers += in[i]->chain.n;
	if (count == 0) {
		err_fini(e);
		return NULL;
	}
	if (count == 1) return snap_ref(one);
	if (layers > SNAP_CHAIN_MAX) {
		err_set(e, CODE_RESOURCE_EXHAUSTED, "a merge of %zu layers: at most %d", layers, SNAP_CHAIN_MAX);
		return NULL;
	}
	sn = snap_new(s, SNAP_MERGE, SNAP_COMMITTED, description, NULL);
	for (size_t i = 0; i < n; i++)
		if (in[i]) snap_add_parent(sn, in[i]);
	return snap_shared(sn, e);
}

static bool chain_is_prefix(const struct snap *lower, const struct snap *upper)
{
	if (lower->chain.n > upper->chain.n) return false;
	for (size_t i = 0; i < lower->chain.n; i++)
		if (lower->chain.v[i] != upper->chain.v[i]) return false;
	return true;
}

int snap_diff(struct snap_store *s, struct snap *lower, struct snap *upper, const char *description, struct snap **ret,
	      struct err *e)
{
	struct snap *sn;

	if (!lower || lower == upper) {
		*ret = lower || !upper ? NULL : snap_ref(upper);
		return 1;
	}
	if (upper && chain_is_prefix(lower, upper)) {
		if (lower->chain.n == upper->chain.n) return *ret = NULL, 1;
		sn = snap_new(s, SNAP_RANGE, SNAP_COMMITTED, description, NULL);
		snap_add_parent(sn, upper);
		sn->range_from = lower->chain.n;
		sn = snap_shared(sn, e);
		if (!sn) return -1;
		*ret = sn;
		return 1;
	}
	sn = snap_new(s, SNAP_DIFF, SNAP_ACTIVE, description, NULL);
	snap_add_parent(sn, lower);
	sn->diff_lower = lower;
	if (upper) snap_add_parent(sn, upper);
	*ret = snap_born(sn);
	return 0;
}

/* ---- long-lived ---- */

static void key_forget(struct snap *s)
{
	if (!s->key) return;
	map_del(&s->store->by_key, s->key);
	free(s->key);
	s->key = NULL;
}

int snap_set_key(struct snap *s, const char *key, struct err *e)
{
	if (str_eq(s->key, key)) return 0;
	if (key && map_has(&s->store->by_key, key))
		return err_set(e, CODE_ALREADY_EXISTS, "there is a snapshot for %s already", key);
	key_forget(s);
	if (key) {
		s->key = xstrdup(key);
		map_put(&s->store->by_key, key, s);
	}
	if (s->state == SNAP_ACTIVE) s->is_mutable = key != NULL;
	if (!key && s->state == SNAP_ACTIVE) return snap_row_delete(s, e);
	if (snap_row_put(s, e) < 0) return -1;
	if (!key && !s->durable) snap_store_pend(s); /* it was kept out as a long-lived one */
	return 0;
}

enum { LOCK_EXCLUSIVE = -1 };

bool snap_lock(struct snap *s, bool exclusive)
{
	if (s->locks == (size_t)LOCK_EXCLUSIVE || (exclusive && s->locks > 0)) return false;
	s->locks = exclusive ? (size_t)LOCK_EXCLUSIVE : s->locks + 1;
	return true;
}

void snap_unlock(struct snap *s)
{
	ensure(s->locks != 0);
	s->locks = s->locks == (size_t)LOCK_EXCLUSIVE ? 0 : s->locks - 1;
}

bool snap_locked(const struct snap *s) { return s->locks != 0; }

int snap_freeze(struct snap *s, struct err *e)
{
	ensure(s->is_mutable);
	return snap_commit(s, e);
}

/* Its content will change: what was known of it as a layer is void, also as a result. */
static int snap_forget_content(struct snap *s, struct err *e)
{
	struct db *db = s->store->db;

	if (db_exec(db, e, "DELETE FROM result WHERE snapshot_id = ?", DB_INT(s->id)) < 0) return -1;
	if (db_exec(db, e, "DELETE FROM snapshot_blob WHERE snapshot_id = ?", DB_INT(s->id)) < 0) return -1;
	snap_blobs_forget(s);
	if (s->chain_id && map_get(&s->store->by_chain, s->chain_id) == s) map_del(&s->store->by_chain, s->chain_id);
	free(s->chain_id);
	free(s->diff_id);
	s->chain_id = s->diff_id = NULL;
	s->size_bytes = -1;
	return 0;
}

static int snap_thaw_copy(struct snap *s, struct snap **ret_copy, struct err *e)
{
	_cleanup_free_ char *key = xstrdup(s->key);
	struct snap *copy = snap_create(s->store, NULL, s->description, s->type);

	if (snap_set_key(s, NULL, e) < 0 || snap_set_key(copy, key, e) < 0) {
		snap_discard(copy);
		return -1;
	}
	*ret_copy = copy;
	return 0;
}

int snap_thaw(struct snap *s, struct snap **ret_copy, struct err *e)
{
	ensure(s->refs > 0 && s->key && s->kind == SNAP_LAYER);
	if (s->is_mutable) return 1;
	if (s->refs > 1 || s->children > 0) return snap_thaw_copy(s, ret_copy, e);
	if (snap_forget_content(s, e) < 0) return -1;
	s->state = SNAP_ACTIVE;
	s->is_mutable = true;
	s->durable = false;
	return snap_row_put(s, e) < 0 ? -1 : 1;
}

/* ---- record keeping ---- */

static void snap_update(struct snap *s)
{
	_cleanup_err_ struct err e = ERR_INIT;

	if (s->has_row && snap_row_put(s, &e) < 0) log_warn("%s", e.msg);
}

void snap_used(struct snap *s)
{
	s->last_used_at_ns = snap_now_ns();
	s->usage_count++;
	snap_update(s);
}

void snap_set_size(struct snap *s, int64_t bytes)
{
	if (s->size_bytes == bytes) return;
	s->size_bytes = bytes;
	snap_update(s);
}

void snap_set_description(struct snap *s, const char *text)
{
	char *copy = xstrdup(text);

	free(s->description);
	s->description = copy;
	snap_update(s);
}

void snap_set_type(struct snap *s, const char *type)
{
	s->type = snap_type_intern(type);
	snap_update(s);
}

void snap_set_created(struct snap *s, int64_t at_ns)
{
	s->created_at_ns = at_ns;
	snap_update(s);
}

bool snap_removable(const struct snap *s) { return s->refs == 0 && s->children == 0; }

int snap_remove(struct snap *s, struct err *e)
{
	if (s->refs) return err_set(e, CODE_FAILED_PRECONDITION, "snapshot %s is in use", s->uid);
	if (s->children) return err_set(e, CODE_FAILED_PRECONDITION, "snapshot %s has children", s->uid);
	if (snap_row_delete(s, e) < 0) return -1;
	snap_destroy(s);
	return 0;
}

/* ---- views ---- */

struct snap_view *snap_view_empty(struct snap_store *s)
{
	struct snap_view *v = xnew(struct snap_view);

	v->base = xstrdup(s->base);
	v->caps = s->caps;
	return v;
}

static struct snap_mnt *view_mnt(struct snap *s)
{
	if (!s->mnt) s->mnt = snap_mnt_new();
	atomic_fetch_add(&s->mnt->refs, 1);
	return s->mnt;
}

/* A layer that comes twice is shown at its upper place only, where it covers what the lower one gave. */
static void view_chain(struct snap_view *v, const struct snap *s)
{
	for (size_t i = 0; i < s->chain.n; i++) {
		bool again = false;
		for (size_t k = i + 1; k < s->chain.n && !again; k++) again = s->chain.v[k] == s->chain.v[i];
		if (!again) vec_push(&v->chain, s->chain.v[i]->id);
		v->lazy_chain |= s->chain.v[i]->state == SNAP_LAZY;
	}
}

static bool is_bottom(const struct snap *s) { return s->kind == SNAP_LAYER && s->parents.n == 0; }

struct snap_view *snap_view_new(struct snap *s)
{
	struct snap_view *v = snap_view_empty(s->store);
	const struct snap *bottom;

	v->id = s->id;
	v->active = s->state == SNAP_ACTIVE;
	v->lazy = s->state == SNAP_LAZY;
	v->owns = s->kind == SNAP_LAYER || s->kind == SNAP_DIFF;
	view_chain(v, s);
	bottom = v->chain.n ? snap_find(s->store, v->chain.v[0]) : NULL;
	v->bottom_plain = bottom && is_bottom(bottom);
	v->plain = v->chain.n == 1 && v->bottom_plain;
	v->parent = s->kind == SNAP_LAYER && s->parents.n ? s->parents.v[0]->id : 0;
	if (v->active && v->parent && v->caps.overlay) v->mnt = view_mnt(s);
	return v;
}
