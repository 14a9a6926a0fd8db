/* A result of an imported cache, wanted by a step: its layers become a chain of lazy snapshots.
 *
 *  1. Layers whose snapshot is here and whole need nothing.
 *  2. Of the others a job makes sure that the blob can be had: it asks (places that can be asked again later) or fetches it.
 *  3. What is not there is NOT_FOUND: the solver tries the next result, then runs the step. */
#include "remote/internal.h"
#include "spec/media.h"

#include <string.h>

struct remote_load {
	struct remote_import *import;
	struct solve_node *node;
	struct cache_blob *blobs; /* bottom to top */
	bool *needed;             /* has to be looked for */
	size_t n;
	struct remote_place *place;
	struct loop_job job;
	struct loop_slot slot;
	struct err error;
	bool told;
	struct list link;
};

static void load_free(struct remote_load *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->blobs[i].digest);
		free(l->blobs[i].media_type);
		free(l->blobs[i].diff_id);
		strvec_fini(&l->blobs[i].annotations);
	}
	free(l->blobs);
	free(l->needed);
	remote_place_free(l->place);
	err_fini(&l->error);
	list_del(&l->link);
	remote_import_unref(l->import);
	free(l);
}

/* What is kept with the blob: the rest is about this cache, not about the bytes. */
static void lasting(struct strvec *to, const struct strvec *annotations)
{
	for (size_t i = 0; i < annotations->n; i++)
		if (str_starts(annotations->v[i], "containerd.io/snapshot/stargz/") ||
		    str_starts(annotations->v[i], "io.containers.estargz."))
			strvec_add(to, annotations->v[i]);
}

static int add_blob(const struct remote_load *l, struct snap *s, const struct cache_blob *b, struct err *e)
{
	enum spec_compression c;
	if (snap_blob_find_digest(s, b->digest)) return 0;
	if (spec_media_compression(b->media_type, &c, e) < 0) return -1;
	_cleanup_strvec_ struct strvec annotations = {0};
	lasting(&annotations, &b->annotations);
	struct snap_blob x = {.compression = (char *)spec_compression_name(c),
			      .digest = b->digest,
			      .media_type = b->media_type,
			      .size = b->size,
			      .annotations = annotations,
			      .source = l->place ? l->place->repo : NULL};
	if (b->created.tv_sec) x.created_at_ns = b->created.tv_sec * 1000000000 + b->created.tv_nsec;
	return snap_blob_add(s, &x, e);
}

static struct snap *make_chain(const struct remote_load *l, struct err *e)
{
	struct snap *top = NULL;
	for (size_t i = 0; i < l->n; i++) {
		const struct cache_blob *b = &l->blobs[i];
		const char *description = strvec_env_get(&b->annotations, "buildkit/description");
		_cleanup_free_ char *text =
			description ? xstrdup(description) : xasprintf("imported from %s", l->import->kind->type);
		struct snap *next = snap_create_lazy(l->import->env->snaps, top, b->diff_id, text, SNAP_REGULAR, e);
		if (next && next->state == SNAP_LAZY && l->needed[i]) {
			if (b->created.tv_sec && !next->blobs.n)
				snap_set_created(next, b->created.tv_sec * 1000000000 + b->created.tv_nsec);
			if (add_blob(l, next, b, e) < 0) {
				snap_unref(next);
				next = NULL;
			}
		}
		snap_unref(top);
		top = next;
		if (!top) return NULL;
	}
	return top;
}

static void tell(struct remote_load *l)
{
	struct snap *s = NULL;
	if (l->told) return;
	l->told = true;
	if (!err_is_set(&l->error)) s = make_chain(l, &l->error);
	solve_remote_loaded(l->node, s, err_is_set(&l->error) ? &l->error : NULL);
}

static void ended(struct remote_load *l)
{
	loop_slot_release(&l->slot);
	tell(l);
	load_free(l);
}

static void work(struct loop_job *j)
{
	struct remote_load *l = container_of(j, struct remote_load, job);
	struct remote_place *p = l->place;
	for (size_t i = 0; i < l->n; i++) {
		const struct cache_blob *b = &l->blobs[i];
		if (!l->needed[i] || blob_has(p->blobs, b->digest)) continue;
		int r = p->repo ? p->kind->have(p, b, &l->error) : remote_fetch(p, b, &l->error);
		if (r == 0 && p->repo)
			r = err_set(&l->error, CODE_NOT_FOUND, "layer %s is not in %s any more", b->digest, p->repo);
		if (r < 0) return;
	}
}

static void done(struct loop_job *j) { ended(container_of(j, struct remote_load, job)); }

static void granted(struct loop_slot *s)
{
	struct remote_load *l = container_of(s, struct remote_load, slot);
	loop_job_start(l->import->env->loop, &l->job, LOOP_NET);
}

/* Which layers are here already; false: a blob that cannot become a snapshot. */
static bool look(struct remote_load *l, bool *ret_any)
{
	struct snap_store *snaps = l->import->env->snaps;
	struct digest *d = xcalloc(l->n, sizeof *d);
	bool ok = true;
	*ret_any = false;
	for (size_t i = 0; i < l->n && ok; i++) {
		enum spec_compression c;
		if (!l->blobs[i].diff_id && spec_media_compression(l->blobs[i].media_type, &c, NULL) >= 0 &&
		    c == SPEC_UNCOMPRESSED)
			l->blobs[i].diff_id = xstrdup(l->blobs[i].digest);
		ok = l->blobs[i].diff_id && digest_parse(l->blobs[i].diff_id, &d[i], NULL) >= 0;
	}
	if (ok) spec_chain_ids(d, l->n, d);
	for (size_t i = 0; i < l->n && ok; i++) {
		char chain[DIGEST_STR];
		digest_format(&d[i], chain);
		const struct snap *have = snap_find_chain(snaps, chain);
		const struct snap_blob *b = have && have->state == SNAP_LAZY ? snap_blob_find(have, NULL) : NULL;
		l->needed[i] = !have || (have->state == SNAP_LAZY && !(b && blob_has(l->import->env->blobs, b->digest)));
		*ret_any |= l->needed[i];
	}
	free(d);
	return ok;
}

static void later(void *arg) { ended(arg); }

static void load(void *arg, struct solve_node *n, size_t item, size_t result)
{
	struct remote_import *i = arg;
	struct cache_graph *g = solve_remote_graph(i->solver);
	const struct cache_result *r = cache_graph_result_at(g, item, result);
	struct remote_load *l = xnew(struct remote_load);
	bool any = false;
	l->import = i;
	i->refs++;
	l->node = n;
	l->n = r->n;
	l->blobs = xcalloc(r->n, sizeof *l->blobs);
	l->needed = xcalloc(r->n, sizeof *l->needed);
	for (size_t k = 0; k < r->n; k++) {
		const struct cache_blob *b = cache_graph_blob_at(g, r->blobs[k]);
		l->blobs[k] = (struct cache_blob){xstrdup(b->digest), xstrdup(b->media_type), xstrdup(b->diff_id), b->size, {0},
						  b->created};
		strvec_copy(&l->blobs[k].annotations, b->annotations.v, b->annotations.n);
	}
	list_init(&l->slot.link);
	list_add_tail(&i->loads, &l->link);
	if (!look(l, &any)) err_set(&l->error, CODE_INVALID_ARGUMENT, "a layer of the record has no diff ID");
	if (any && !err_is_set(&l->error)) l->place = remote_place_new(i->kind, i->env, &i->attrs, &i->ids, &l->error);
	if (!l->place) {
		loop_post(i->env->loop, later, l);
		return;
	}
	l->job.work = work;
	l->job.done = done;
	l->slot.granted = granted;
	remote_place_admit(l->place, &l->slot, false);
}

static void cancel_load(struct remote_load *l)
{
	if (!l->place) return; /* answers in a moment */
	remote_place_cancel(l->place);
	if (!l->slot.pool || l->slot.held) return;
	loop_slot_release(&l->slot);
	err_set(&l->error, CODE_CANCELLED, "context canceled");
	loop_post(l->import->env->loop, later, l);
}

static void cancel(void *arg, struct solve_node *n)
{
	struct remote_import *i = arg;
	LIST_EACH(&i->loads, struct remote_load, l, link)
	{
		if (l->node == n && !l->told) cancel_load(l);
	}
}

void remote_loads_drop(struct remote_import *i) { LIST_EACH(&i->loads, struct remote_load, l, link) cancel_load(l); }

const struct solve_remote_ops remote_solve_ops = {.load = load, .cancel = cancel};
