/* What makes a failed step debuggable: the error that a frontend gets names the operation, and results that the frontend may
 * mount in a container: the step's inputs, and what it had written (errdefs.Solve, in protobuf's JSON).
 *
 *  1. The failed vertex is found by the Vertex detail that the solver put on the error, so it does not matter through how many
 *     hands it went. An error without one gets nothing.
 *  2. Ids are good in the bridge that gave them, as long as it lives. A Solve detail of an inner bridge is replaced.
 * Source: moby/buildkit solver/errdefs/solve.go, frontend/gateway/gateway.go (wrapSolveError). */
#include "build/bridge.h"
#include "build/protojson.h"
#include "proto/errdefs.pb-c.h"

#include <string.h>

static const char vertex_type[] = "github.com/moby/buildkit/errdefs.Vertex+json";
static const char solve_type[] = "github.com/moby/buildkit/errdefs.Solve+json";

/* The digest in {"digest":"sha256:..."}. */
static bool failed_digest(const struct err *e, char out[static DIGEST_STR])
{
	const struct err_detail *d = err_detail_find(e, vertex_type);
	const char *p = d ? memmem(d->data, d->len, "sha256:", 7) : NULL;
	if (!p || (size_t)(d->data + d->len - (const uint8_t *)p) < DIGEST_STR - 1) return false;
	memcpy(out, p, DIGEST_STR - 1);
	out[DIGEST_STR - 1] = 0;
	return true;
}

static const struct llb_node *find_node(const struct build *b, const char *digest)
{
	for (size_t i = 0; i < b->graphs.n; i++) {
		const struct llb_graph *g = b->graphs.v[i]->graph;
		for (size_t k = 0; k < g->n_nodes; k++)
			if (!strcmp(g->nodes[k].digest, digest)) return &g->nodes[k];
	}
	return NULL;
}

/* The snapshot's name in this bridge, which holds it from now on. */
static const char *give_id(struct bridge *b, struct snap *s)
{
	if (!s) return "";
	if (!map_has(&b->results, s->uid)) map_put(&b->results, s->uid, snap_ref(s));
	return s->uid;
}

static const char **give_ids(struct arena *a, struct bridge *b, struct snap *const *v, size_t n)
{
	const char **ids = arena_alloc(a, (n + 1) * sizeof *ids);
	for (size_t i = 0; i < n; i++) ids[i] = give_id(b, v[i]);
	return ids;
}

static void describe(struct arena *a, const struct llb_node *node, Errdefs__Solve *m)
{
	if (!node->meta) return;
	m->description = arena_alloc(a, (node->meta->n_description + 1) * sizeof *m->description);
	for (size_t i = 0; i < node->meta->n_description; i++) {
		Errdefs__Solve__DescriptionEntry *en = arena_new_of(a, Errdefs__Solve__DescriptionEntry);
		errdefs__solve__description_entry__init(en);
		en->key = node->meta->description[i]->key;
		en->value = node->meta->description[i]->value;
		m->description[m->n_description++] = en;
	}
}

static void add_subject(const struct solve_debris *d, Errdefs__Solve *m, Errdefs__FileAction *file,
			Errdefs__ContentCache *cache)
{
	errdefs__file_action__init(file);
	errdefs__content_cache__init(cache);
	if (d->action >= 0) {
		file->index = d->action;
		m->subject_case = ERRDEFS__SOLVE__SUBJECT_FILE;
		m->file = file;
	} else if (d->content >= 0) {
		cache->index = d->content;
		m->subject_case = ERRDEFS__SOLVE__SUBJECT_CACHE;
		m->cache = cache;
	}
}

static void copy_without(struct err *dst, const struct err *src, const char *type)
{
	err_set(dst, src->code, "%s", src->msg);
	for (const struct err_detail *d = src->details; d; d = d->next)
		if (strcmp(d->type_url, type)) err_detail_add(dst, d->type_url, d->data, d->len);
}

void bridge_solve_error(struct bridge *b, const struct err *e, struct err *ret)
{
	char digest[DIGEST_STR];
	struct solve_debris d = {.action = -1, .content = -1};
	const struct llb_node *node = failed_digest(e, digest) ? find_node(b->build, digest) : NULL;
	if (!node || !b->build->solve) {
		err_copy(ret, e);
		return;
	}
	_cleanup_arena_ struct arena *a = arena_new(0);
	_cleanup_buf_ struct buf json = BUF_INIT;
	struct json_w w = JSON_W(&json);
	Errdefs__Solve m = ERRDEFS__SOLVE__INIT;
	Errdefs__FileAction file;
	Errdefs__ContentCache cache;
	solve_debris(b->build->solve, digest, &d);
	m.n_inputids = d.n_inputs;
	m.inputids = (void *)give_ids(a, b, d.inputs, d.n_inputs);
	m.n_mountids = d.n_mounts;
	m.mountids = (void *)give_ids(a, b, d.mounts, d.n_mounts);
	m.op = node->op;
	add_subject(&d, &m, &file, &cache);
	describe(a, node, &m);
	protojson(&w, &m.base);
	copy_without(ret, e, solve_type);
	err_detail_push(ret, solve_type, json.p, json.n);
	solve_debris_fini(&d);
}

void bridge_call_failed(struct bridge_call *c, const struct err *e)
{
	struct err told = ERR_INIT;
	bridge_solve_error(c->bridge, e, &told);
	bridge_call_end(c, NULL, &told);
	err_fini(&told);
}
