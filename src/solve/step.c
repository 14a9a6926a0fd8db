/* The whole scheduling policy: step(), what it starts, and what happens when that is done.
 *
 * State of a node: map_phase (the cache map), content of each input, exec; a slot is `done` when its result is known.
 * Only these transitions exist: IDLE -> BUSY (something started), BUSY -> DONE | FAILED (it answered), BUSY -> IDLE (it
 * was cancelled and may be wanted again later). */
#include "solve/internal.h"
#include "tele/tele.h"

#include <stdio.h>
#include <string.h>

void solve_wake(struct solve_node *n)
{
	if (n->queued) return;
	n->queued = true;
	list_add_tail(&n->solver->ready, &n->ready);
	solve_drain_soon(n->solver);
}

void solve_wake_users(struct solve_node *n)
{
	for (size_t i = 0; i < n->users.n; i++) solve_wake(n->users.v[i]);
}

void solve_raise(struct solve_node *n, size_t output, enum solve_want want)
{
	if (n->slot[output].want >= want) return;
	n->slot[output].want = want;
	solve_wake(n);
}

/* ---- keys ---- */

static bool add_key(struct solve_slot *slot, int64_t key)
{
	for (size_t i = 0; i < slot->n_keys; i++)
		if (slot->keys[i] == key) return false;
	if (slot->n_keys == SOLVE_KEYS_MAX) return false;
	slot->keys[slot->n_keys++] = key;
	return true;
}

/* A key of an input with the selector of its link: content keys take none. */
struct from_key {
	int64_t key;
	const char *selector;
};

static size_t input_keys(const struct solve_node *n, size_t i, struct from_key out[static SOLVE_KEYS_MAX + 1])
{
	const struct solve_in *in = &n->in[i];
	const struct solve_slot *slot = &in->node->slot[in->output];
	const char *selector = n->map.deps[i].selector;
	size_t c = 0;
	for (size_t k = 0; k < slot->n_keys; k++) out[c++] = (struct from_key){slot->keys[k], selector ? selector : ""};
	if (in->content_key) out[c++] = (struct from_key){in->content_key, ""};
	return c;
}

bool solve_is_random(const char *digest) { return str_starts(digest, "random:"); }

static size_t probe_root(const struct solve_node *n, size_t output, int64_t *out)
{
	size_t c = 0;
	for (size_t i = 0; i < n->map.n_digests; i++) {
		if (solve_is_random(n->map.digests[i])) continue;
		char root[DIGEST_STR];
		solve_root_key(n->map.digests[i], (int)output, root);
		c += cache_roots(n->solver->db, root, out + c, SOLVE_KEYS_MAX - c);
	}
	return c;
}

/* Rows that some key of every input leads to. */
static size_t probe_links(const struct solve_node *n, size_t output, int64_t *out)
{
	enum { HITS = SOLVE_KEYS_MAX * 4 };
	struct db *db = n->solver->db;
	size_t c = 0;
	for (size_t i = 0; i < n->n_in; i++) {
		struct from_key from[SOLVE_KEYS_MAX + 1];
		size_t n_from = input_keys(n, i, from), n_hit = 0;
		int64_t hit[HITS];
		for (size_t k = 0; k < n_from; k++)
			n_hit += cache_children(db, from[k].key, i, n->map.digests[0], from[k].selector, output, hit + n_hit, HITS - n_hit);
		if (i == 0) {
			c = min_of(n_hit, (size_t)SOLVE_KEYS_MAX);
			memcpy(out, hit, c * sizeof *hit);
			continue;
		}
		size_t w = 0;
		for (size_t a = 0; a < c; a++)
			for (size_t b = 0; b < n_hit; b++)
				if (out[a] == hit[b]) {
					out[w++] = out[a];
					break;
				}
		c = w;
	}
	return c;
}

static bool probe(struct solve_node *n)
{
	bool grew = false;
	for (size_t o = 0; o < n->n_slot; o++) {
		int64_t found[SOLVE_KEYS_MAX];
		size_t c = n->n_in ? probe_links(n, o, found) : probe_root(n, o, found);
		for (size_t i = 0; i < c; i++) grew |= add_key(&n->slot[o], found[i]);
	}
	return solve_remotes_probe(n) || grew;
}

/* Write the rows that make this node findable: what it builds is then a hit for every key its inputs have now. */
static void claim_slot(struct solve_node *n, size_t o)
{
	struct db *db = n->solver->db;
	struct solve_slot *slot = &n->slot[o];
	if (!n->n_in) {
		for (size_t i = 0; i < n->map.n_digests; i++) {
			if (solve_is_random(n->map.digests[i])) continue;
			char root[DIGEST_STR];
			int64_t have;
			solve_root_key(n->map.digests[i], (int)o, root);
			int64_t key = cache_roots(db, root, &have, 1) ? have : cache_new_key(db, root);
			if (key) add_key(slot, key);
		}
		return;
	}
	struct from_key from[SOLVE_KEYS_MAX + 1];
	for (size_t i = 0; i < n->n_in; i++)
		if (!input_keys(n, i, from)) return; /* an input that cannot be found again */
	if (!slot->n_keys) {
		int64_t key = cache_new_key(db, NULL);
		if (!key) return;
		add_key(slot, key);
	}
	for (size_t i = 0; i < n->n_in; i++) {
		size_t n_from = input_keys(n, i, from);
		for (size_t k = 0; k < n_from; k++)
			cache_link(db, from[k].key, i, n->map.digests[0], from[k].selector, o, slot->keys[0]);
	}
}

/* Of a node that was matched in a remote cache: the database may not know what led there. */
void solve_write_rows(struct solve_node *n, size_t o)
{
	if (n->map_phase != SOLVE_DONE) return;
	for (size_t i = 0; i < n->n_in; i++) {
		const struct solve_in *in = &n->in[i];
		if (!in->node->slot[in->output].n_keys) solve_write_rows(in->node, in->output);
	}
	claim_slot(n, o);
}

static void claim(struct solve_node *n)
{
	for (size_t o = 0; o < n->n_slot; o++) claim_slot(n, o);
	n->claimed = true;
}

/* Another node that is building one of this node's rows. */
static struct solve_node *find_builder(const struct solve_node *n)
{
	LIST_EACH(&n->solver->all_nodes, struct solve_node, b, all)
	{
		if (b == n || !b->claimed) continue;
		for (size_t o = 0; o < n->n_slot && o < b->n_slot; o++)
			for (size_t i = 0; i < n->slot[o].n_keys; i++)
				for (size_t k = 0; k < b->slot[o].n_keys; k++)
					if (n->slot[o].keys[i] == b->slot[o].keys[k]) return b;
	}
	return NULL;
}

/* ---- results ---- */

void solve_slot_done(struct solve_node *n, size_t o, struct snap *snap /* reference given */)
{
	n->slot[o].done = true;
	n->slot[o].snap = snap;
}

bool solve_results_done(const struct solve_node *n)
{
	for (size_t o = 0; o < n->n_slot; o++)
		if (n->slot[o].want == SOLVE_RESULT && !n->slot[o].done) return false;
	return true;
}

static bool wants(const struct solve_node *n, enum solve_want at_least)
{
	for (size_t o = 0; o < n->n_slot; o++)
		if (n->slot[o].want >= at_least) return true;
	return false;
}

/* A saved result of one of the slot's keys: true when it was loaded. A row whose snapshot has gone is a miss. */
static bool load_slot(struct solve_node *n, size_t o)
{
	struct solve_slot *slot = &n->slot[o];
	for (size_t i = 0; i < slot->n_keys; i++) {
		int64_t id;
		if (!cache_result(n->solver->db, slot->keys[i], &id, NULL)) continue;
		struct snap *snap = id ? snap_find(n->solver->snaps, id) : NULL;
		if (id && !snap) {
			cache_forget(n->solver->db, slot->keys[i], id);
			continue;
		}
		if (snap) {
			snap_ref(snap);
			snap_used(snap);
		}
		solve_slot_done(n, o, snap);
		return true;
	}
	return false;
}

/* The node has (or will have) what it needs: results of its inputs that are not there yet are not wanted for it any more. */
void solve_spare_inputs(struct solve_node *n)
{
	for (size_t i = 0; i < n->n_in; i++) {
		const struct solve_slot *slot = &n->in[i].node->slot[n->in[i].output];
		if (slot->want != SOLVE_RESULT || slot->done) continue;
		solve_rewant_soon(n->solver);
		return;
	}
}

/* What SOLVE_CONTENT spares: its keys lead to a result. */
static bool slot_found(struct solve_node *n, size_t o)
{
	const struct solve_slot *slot = &n->slot[o];
	for (size_t i = 0; i < slot->n_keys; i++) {
		int64_t id;
		if (cache_result(n->solver->db, slot->keys[i], &id, NULL) && (!id || snap_find(n->solver->snaps, id))) return true;
	}
	return solve_remotes_have(n, o);
}

/* Content keys are wanted and nothing more, of a slot that needs them. */
static bool content_wanted(struct solve_node *n)
{
	for (size_t o = 0; o < n->n_slot; o++)
		if (n->slot[o].want == SOLVE_CONTENT && !n->slot[o].done && (n->ignore_cache || !slot_found(n, o))) return true;
	return false;
}

static bool load(struct solve_node *n)
{
	bool any = false;
	for (size_t o = 0; o < n->n_slot; o++)
		if (n->slot[o].want == SOLVE_RESULT && !n->slot[o].done) any |= load_slot(n, o);
	if (!any) return false;
	if (solve_results_done(n)) {
		n->cached = true;
		tele_count(TELE_CACHE_HITS, 1);
		tele_count(TELE_STEPS, 1, n->vt->kind, "cached");
		solve_show_vertex(n, true, true, NULL);
	}
	solve_tell_waiters(n);
	solve_wake_users(n);
	solve_spare_inputs(n);
	return solve_results_done(n);
}

/* The step that failed first is named in the error: clients show its place in the source. */
static void name_vertex(struct solve_node *n)
{
	static const char type[] = "github.com/moby/buildkit/errdefs.Vertex+json";
	if (err_detail_find(&n->error, type)) return;
	char json[128];
	int len = snprintf(json, sizeof json, "{\"digest\":\"%s\"}", n->digest);
	err_detail_push(&n->error, type, json, (size_t)len);
}

void solve_fail(struct solve_node *n, const struct err *e)
{
	if (n->exec == SOLVE_FAILED) return;
	n->exec = SOLVE_FAILED;
	n->keys_final = true;
	err_copy(&n->error, e);
	name_vertex(n);
	if (n->findable) { /* invariant 5 */
		map_del(&n->solver->nodes, n->key);
		n->findable = false;
	}
	solve_tell_waiters(n);
	solve_wake_users(n);
}

/* ---- starting things ---- */

static void start_map(struct solve_node *n)
{
	n->map_phase = SOLVE_BUSY;
	n->under_way++;
	if (n->vt->source) solve_show_vertex(n, true, false, NULL);
	n->vt->map(n->op, n);
}

static void start_content(struct solve_node *n, size_t i)
{
	n->in[i].content = SOLVE_BUSY;
	n->under_way++;
	n->vt->content(n->op, n, i);
}

static void start_exec(struct solve_node *n)
{
	n->exec = SOLVE_BUSY;
	n->under_way++;
	tele_count(TELE_CACHE_MISSES, 1);
	solve_show_vertex(n, true, false, NULL);
	n->vt->exec(n->op, n);
}

static void slot_granted(struct loop_slot *s)
{
	struct solve_node *n = container_of(s, struct solve_node, pool_slot);
	n->pool_waiting = false;
	solve_wake(n);
}

/* True when the step may run now. */
static bool admitted(struct solve_node *n)
{
	if (!n->vt->takes_slot || n->internal || n->pool_slot.held) return true;
	if (n->pool_waiting) return false;
	n->pool_waiting = true;
	n->pool_slot.granted = slot_granted;
	struct solve_member *m = list_first(&n->members, struct solve_member, in_node);
	n->pool_slot.group = m ? m->build : NULL;
	loop_slot_want(&n->solver->execs, &n->pool_slot);
	return n->pool_slot.held;
}

static void unwatch(struct solve_node *n)
{
	struct solve_node *b = n->watching;
	for (size_t i = b ? b->users.n : 0; i-- > 0;)
		if (b->users.v[i] == n) {
			vec_remove(&b->users, i);
			break;
		}
	n->watching = NULL;
}

static void watch(struct solve_node *builder, struct solve_node *n)
{
	if (n->watching != builder) {
		unwatch(n);
		vec_push(&builder->users, n);
		n->watching = builder;
	}
	for (size_t o = 0; o < n->n_slot && o < builder->n_slot; o++)
		if (n->slot[o].want == SOLVE_RESULT) solve_raise(builder, o, SOLVE_RESULT);
}

static bool input_failed(struct solve_node *n)
{
	for (size_t i = 0; i < n->n_in; i++)
		if (n->in[i].node->exec == SOLVE_FAILED && !n->in[i].node->slot[n->in[i].output].done) {
			solve_fail(n, &n->in[i].node->error);
			return true;
		}
	return false;
}

/* Content keys, of every input that allows them: true while one of them is being made. The other inputs get theirs meanwhile: what
 * they need runs beside, as the branches of `COPY --from=a`, `COPY --from=b` do. */
static bool content_pending(struct solve_node *n)
{
	bool pending = false;
	for (size_t i = 0; i < n->n_in; i++) {
		struct solve_in *in = &n->in[i];
		if (!n->map.deps[i].content || in->content == SOLVE_DONE) continue;
		pending = true;
		solve_raise(in->node, in->output, SOLVE_RESULT);
		if (in->content == SOLVE_IDLE && in->node->slot[in->output].done) start_content(n, i);
	}
	for (size_t i = 0; pending && i < n->n_in; i++)
		if (!n->map.deps[i].content) solve_raise(n->in[i].node, n->in[i].output, SOLVE_CONTENT);
	/* A content job may have answered at once. */
	if (pending)
		for (size_t i = 0; i < n->n_in; i++)
			if (n->map.deps[i].content && n->in[i].content != SOLVE_DONE) return true;
	return false;
}

static bool inputs_ready(struct solve_node *n)
{
	bool all = true;
	for (size_t i = 0; i < n->n_in; i++) {
		solve_raise(n->in[i].node, n->in[i].output, SOLVE_RESULT);
		all &= n->in[i].node->slot[n->in[i].output].done;
	}
	return all;
}

static bool inputs_final(const struct solve_node *n)
{
	for (size_t i = 0; i < n->n_in; i++)
		if (!n->in[i].node->keys_final) return false;
	return true;
}

/* New keys may lead whoever uses this node to a result of its own; then this one's is not wanted any more. So the demand is
 * made anew before anything is started for it. */
static bool users_first(struct solve_node *n)
{
	bool wait = n->fresh && n->users.n;
	n->fresh = false;
	if (wait) solve_rewant_soon(n->solver);
	return wait;
}

static void advance(struct solve_node *n)
{
	if (wants(n, SOLVE_KEYS) && n->map_phase == SOLVE_DONE && solve_remotes_probe_new(n)) solve_wake_users(n);
	if (n->loading || n->cancelled) return; /* what was told to end ends before anything is started again */
	if (!wants(n, SOLVE_KEYS) || n->exec == SOLVE_BUSY || n->exec == SOLVE_FAILED) return;
	if (solve_results_done(n) && n->keys_final && !wants(n, SOLVE_CONTENT)) return;
	for (size_t i = 0; i < n->n_in; i++) solve_raise(n->in[i].node, n->in[i].output, SOLVE_KEYS);
	if (n->map_phase == SOLVE_IDLE) start_map(n);
	if (n->map_phase != SOLVE_DONE) return;
	if (solve_remotes_busy(n)) return; /* a cache that is being read may have it */

	if (probe(n)) {
		n->fresh = true;
		solve_wake_users(n);
	}
	bool final = inputs_final(n);
	if (final && !n->keys_final) {
		n->keys_final = true;
		solve_wake_users(n);
	}
	bool result = !solve_results_done(n);
	if (!result && !content_wanted(n)) return;
	if (result && !n->ignore_cache && (load(n) || solve_remotes_load(n))) return;
	if (!final) return; /* an input may still yield a match */
	if (input_failed(n) || users_first(n)) return;
	if (content_pending(n)) return;
	if (n->n_in && probe(n)) { /* what the content keys lead to */
		n->fresh = true;
		solve_wake_users(n);
		if (result && !n->ignore_cache && (load(n) || solve_remotes_load(n))) return;
		if (users_first(n)) return;
	}
	if (!result) return;
	if (!inputs_ready(n) || input_failed(n)) return;
	if (!n->ignore_cache) {
		struct solve_node *b = find_builder(n);
		if (b) {
			watch(b, n);
			return;
		}
	}
	if (!admitted(n)) return;
	claim(n);
	start_exec(n);
}

/* Looks at n and its inputs, asks for more or starts one thing. Idempotent. A slot that was granted and is not used after all
 * (another node built the same meanwhile) goes back at once. */
static void step(struct solve_node *n)
{
	advance(n);
	if (n->pool_slot.held && n->exec != SOLVE_BUSY) loop_slot_release(&n->pool_slot);
}

static void drain(void *arg)
{
	struct solver *s = arg;
	s->drain_posted = false;
	if (s->draining) return;
	s->draining = true;
	while (!list_empty(&s->ready)) {
		struct solve_node *n = list_first(&s->ready, struct solve_node, ready);
		list_del(&n->ready);
		n->queued = false;
		step(n);
	}
	s->draining = false;
}

void solve_drain_soon(struct solver *s)
{
	if (s->draining || s->drain_posted) return;
	s->drain_posted = true;
	loop_post(s->loop, drain, s);
}

/* ---- answers of operations ---- */

static void map_fini_(struct solve_map *m)
{
	for (size_t i = 0; i < m->n_digests; i++) free(m->digests[i]);
	for (size_t i = 0; i < m->n_deps; i++) free(m->deps[i].selector);
	free(m->deps);
	*m = (struct solve_map){0};
}

/* Something that was told to end has ended: back to idle if a build wants it again by now. True when it was so. */
static bool ended_by_cancel(struct solve_node *n, const struct err *e, enum solve_phase *phase)
{
	if (!n->cancelled || !e || !err_is_set(e)) return false;
	*phase = SOLVE_IDLE;
	n->claimed = false;
	solve_wake(n);
	solve_wake_users(n);
	return true;
}

/* The end of every answer. Several things may have been told to end: until the last one has, a failure is no failure. */
void solve_answered(struct solve_node *n)
{
	if (!n->under_way) n->cancelled = false;
	solve_wake(n);
	if (list_empty(&n->members) && !n->under_way) solve_rewant_soon(n->solver);
}

void solve_map_done(struct solve_node *n, struct solve_map *map, struct err *e)
{
	n->under_way--;
	bool failed = e && err_is_set(e);
	if (n->vt->source) solve_show_vertex(n, false, true, failed ? e->msg : NULL);
	if (ended_by_cancel(n, e, &n->map_phase)) {
		err_fini(e);
	} else if (failed) {
		n->map_phase = SOLVE_FAILED;
		solve_fail(n, e);
		err_fini(e);
	} else {
		n->map_phase = SOLVE_DONE;
		n->map = *map;
		*map = (struct solve_map){0};
		ensure(n->map.n_digests > 0 && n->map.n_deps == n->n_in);
	}
	if (map) map_fini_(map);
	solve_answered(n);
}

void solve_content_done(struct solve_node *n, size_t i, const char *digest, struct err *e)
{
	n->under_way--;
	if (ended_by_cancel(n, e, &n->in[i].content)) {
		err_fini(e);
	} else if (e && err_is_set(e)) {
		n->in[i].content = SOLVE_FAILED;
		solve_show_vertex(n, true, true, e->msg);
		err_wrap(e, "failed to compute cache key");
		solve_fail(n, e);
		err_fini(e);
	} else {
		char root[DIGEST_STR];
		solve_root_key(digest, -1, root);
		memcpy(n->in[i].content_root, root, sizeof root);
		int64_t key;
		struct db *db = n->solver->db;
		n->in[i].content_key = cache_roots(db, root, &key, 1) ? key : cache_new_key(db, root);
		n->in[i].content = SOLVE_DONE;
	}
	solve_answered(n);
}

static void count(const struct solve_node *n, bool failed)
{
	struct timespec now = time_now();
	tele_count(TELE_STEPS, 1, n->vt->kind, !failed ? "ran" : n->cancelled ? "canceled" : "failed");
	tele_observe(TELE_STEP_SECONDS, (double)(now.tv_sec - n->started.tv_sec) + (double)(now.tv_nsec - n->started.tv_nsec) / 1e9, n->vt->kind);
}

void solve_exec_done(struct solve_node *n, struct snap **outputs, struct err *e)
{
	n->under_way--;
	loop_slot_release(&n->pool_slot);
	n->pool_waiting = false;
	bool failed = e && err_is_set(e);
	count(n, failed);
	solve_show_vertex(n, false, true, failed ? (n->cancelled ? "context canceled" : e->msg) : NULL);
	if (ended_by_cancel(n, e, &n->exec)) {
		err_fini(e);
	} else if (failed) {
		n->claimed = false;
		solve_fail(n, e);
		err_fini(e);
	} else {
		n->exec = SOLVE_DONE;
		n->keys_final = true;
		n->claimed = false;
		for (size_t o = 0; o < n->n_slot; o++) {
			struct solve_slot *slot = &n->slot[o];
			if (slot->done) { /* loaded from the cache before */
				if (outputs[o]) snap_unref(outputs[o]);
				continue;
			}
			for (size_t k = 0; k < slot->n_keys; k++)
				cache_save(n->solver->db, slot->keys[k], outputs[o] ? outputs[o]->id : 0, 0);
			solve_slot_done(n, o, outputs[o]);
		}
		solve_tell_waiters(n);
		solve_wake_users(n);
	}
	solve_answered(n);
}

/* ---- demand from scratch ---- */

static void lower(struct solve_node *n)
{
	for (size_t o = 0; o < n->n_slot; o++) n->slot[o].want = SOLVE_NONE;
}

static void cancel_unwanted(struct solve_node *n)
{
	if (wants(n, SOLVE_KEYS)) return;
	if (n->exec != SOLVE_BUSY) { /* waiting, or granted and not used; a step that runs keeps its slot to its end */
		loop_slot_release(&n->pool_slot);
		n->pool_waiting = false;
	}
	if (n->under_way && !n->cancelled) {
		n->cancelled = true;
		if (n->loading) solve_remotes_cancel(n);
		if (n->under_way > (unsigned)n->loading) n->vt->cancel(n->op, n);
	}
}

/* Nodes that no build has go, users before their inputs. */
static void sweep(struct solver *s)
{
	for (bool more = true; more;) {
		more = false;
		for (struct list *at = s->all_nodes.prev, *prev; at != &s->all_nodes; at = prev) {
			struct solve_node *n = container_of(at, struct solve_node, all);
			prev = at->prev;
			if (!list_empty(&n->members) || n->under_way || n->users.n) continue;
			solve_node_free(n);
			more = true;
		}
	}
}

static void rewant(void *arg)
{
	struct solver *s = arg;
	s->rewant_posted = false;
	LIST_EACH(&s->all_nodes, struct solve_node, n, all)
	{
		lower(n);
		unwatch(n);
	}
	LIST_EACH(&s->builds, struct solve_build, b, all)
	LIST_EACH(&b->waiters, struct solve_waiter, w, in_build) solve_raise(w->node, w->output, SOLVE_RESULT);
	LIST_EACH(&s->all_nodes, struct solve_node, n, all) solve_wake(n);
	drain(s);
	LIST_EACH(&s->all_nodes, struct solve_node, n, all) cancel_unwanted(n);
	sweep(s);
}

void solve_rewant_soon(struct solver *s)
{
	if (s->rewant_posted) return;
	s->rewant_posted = true;
	loop_post(s->loop, rewant, s);
}
