/* docker-image:// and oci-layout:// sources. Two keys name the same thing: what the reference resolved to, and the chain of
 * its layers. The result is a chain of lazy snapshots: nothing is downloaded before somebody needs the bytes; but from the
 * client's store all is fetched at once, because a later build may have another client. */
#include "ops/image_blob.h"
#include "ops/image_job.h"
#include "ops/internal.h"
#include "spec/media.h"

#include <string.h>

struct image_op {
	struct ops_node o;
	struct llb_source src;
	struct spec_platform platform;
	struct ops_image image;
	struct ops_image_get *get;
	struct solve_node *node;
	struct snap *top;          /* being made */
	size_t at;                 /* layer being fetched */
	struct ops_blob_get *blob; /* of an OCI layout */
	bool cancelled;
};

static void op_free(void *op)
{
	struct image_op *i = op;
	ops_image_fini(&i->image);
	spec_platform_fini(&i->platform);
	ops_node_fini(&i->o);
	free(i);
}

static size_t layer_count(const struct image_op *i)
{
	size_t limit = (size_t)i->src.image.layer_limit;
	return limit && limit < i->image.n_layers ? limit : i->image.n_layers;
}

const char *ops_image_pin(const void *op, const struct ops_layer **ret_layers, size_t *ret_n)
{
	const struct image_op *i = op;
	*ret_layers = i->image.layers;
	*ret_n = layer_count(i);
	return i->image.top_digest;
}

static char *chain_key(const struct image_op *i)
{
	size_t n = layer_count(i);
	if (!n) return NULL;
	struct digest *d = xcalloc(n, sizeof *d);
	char text[DIGEST_STR];
	for (size_t k = 0; k < n; k++) digest_parse(i->image.layers[k].diff_id, &d[k], NULL);
	spec_chain_ids(d, n, d);
	digest_format(&d[n - 1], text);
	free(d);
	return xstrdup(text);
}

static void add_digest(struct solve_map *m, const char *key)
{
	char d[DIGEST_STR + 8];
	llb_source_digest(key, d);
	m->digests[m->n_digests++] = xstrdup(d);
}

static void show_resolve(struct image_op *i, bool end)
{
	_cleanup_free_ char *id = xasprintf("resolve %s", i->src.image.ref.text);
	struct prog_status s = {.id = id, .name = "", .started = time_now()};
	if (end) s.completed = s.started;
	solve_status(i->node, &s);
}

static void got(void *arg, struct ops_image *image, const struct err *e)
{
	struct image_op *i = arg;
	i->get = NULL;
	show_resolve(i, true);
	if (e) {
		struct err wrapped = ERR_INIT;
		err_copy(&wrapped, e);
		ops_map_failed(i->node, &wrapped);
		err_fini(&wrapped);
		return;
	}
	i->image = *image;
	*image = (struct ops_image){0};
	struct err bad = ERR_INIT;
	const char *want = i->src.image.checksum;
	if (*want && strcmp(want, i->image.top_digest))
		err_set(&bad, CODE_UNKNOWN, "image digest %s for %s does not match expected checksum %s", i->image.top_digest,
			i->src.image.ref.text, want);
	else if ((size_t)i->src.image.layer_limit > i->image.n_layers)
		err_set(&bad, CODE_UNKNOWN, "layer limit %lld is greater than the number of layers in the image %zu",
			(long long)i->src.image.layer_limit, i->image.n_layers);
	if (err_is_set(&bad)) {
		ops_map_failed(i->node, &bad);
		err_fini(&bad);
		return;
	}
	struct solve_map m = {0};
	_cleanup_buf_ struct buf key = BUF_INIT;
	llb_source_image_key(i->image.top_digest, i->src.image.platform, i->src.image.layer_limit, &key);
	add_digest(&m, buf_str(&key));
	_cleanup_free_ char *chain = chain_key(i);
	if (chain) add_digest(&m, chain);
	solve_map_done(i->node, &m, NULL);
}

static void map(void *op, struct solve_node *n)
{
	struct image_op *i = op;
	const char *sessions[OPS_SESSIONS_MAX];
	i->node = n;
	struct ops_image_req req = {
		.ref = i->src.image.ref.text, .platform = &i->platform, .mode = i->src.image.mode, .sessions = sessions};
	req.n_sessions = ops_sessions(n, i->o.env, sessions, OPS_SESSIONS_MAX);
	ops_span_node(&req.span, i->o.env, n);
	if (i->src.scheme == LLB_OCI_LAYOUT) {
		req.oci_store = i->src.image.store;
		req.oci_session = i->src.image.session;
	}
	show_resolve(i, false);
	i->get = ops_image_get(i->o.env, &req, got, i);
}

static int add_blob(struct snap *s, const struct image_op *i, const struct ops_layer *l, struct err *e)
{
	enum spec_compression c = SPEC_UNCOMPRESSED;
	if (spec_media_compression(l->media_type, &c, e) < 0) return -1;
	struct snap_blob b = {.compression = (char *)spec_compression_name(c),
			      .digest = l->digest,
			      .media_type = l->media_type,
			      .size = l->size,
			      .annotations = l->annotations,
			      .source = i->src.scheme == LLB_IMAGE ? i->image.repo : NULL};
	return snap_blob_find_digest(s, l->digest) ? 0 : snap_blob_add(s, &b, e);
}

/* ---- layers of an OCI layout ---- */

static void fetch_layers(struct image_op *i);

static void have_top(struct image_op *i)
{
	struct snap *top = take_ptr(i->top);
	if (top) snap_used(top);
	solve_exec_done(i->node, &top, NULL);
}

static void got_layer(void *arg, int fd, const struct err *e)
{
	struct image_op *i = arg;
	struct err copy = ERR_INIT;
	i->blob = NULL;
	close_fd(&fd);
	if (!e) {
		i->at++;
		fetch_layers(i);
		return;
	}
	err_copy(&copy, e);
	snap_unref(take_ptr(i->top));
	solve_exec_done(i->node, NULL, &copy);
}

static void fetch_layers(struct image_op *i)
{
	while (i->at < layer_count(i) && blob_has(i->o.env->blobs, i->image.layers[i->at].digest)) i->at++;
	if (i->at == layer_count(i)) {
		have_top(i);
		return;
	}
	const char *sessions[OPS_SESSIONS_MAX];
	struct ops_ids ids = {0};
	size_t c = ops_sessions(i->node, i->o.env, sessions, OPS_SESSIONS_MAX);
	for (size_t k = 0; k < c; k++) ops_ids_add(&ids, sessions[k]);
	struct ops_blob_req req = {.ref = i->src.image.ref.text,
				   .digest = i->image.layers[i->at].digest,
				   .ids = &ids,
				   .store = i->src.image.store,
				   .session = i->src.image.session};
	ops_span_node(&req.span, i->o.env, i->node);
	i->blob = ops_blob_get(i->o.env, &req, got_layer, i);
	if (i->cancelled) ops_blob_get_cancel(i->blob);
	ops_ids_fini(&ids);
}

static void exec(void *op, struct solve_node *n)
{
	struct image_op *i = op;
	struct err e = ERR_INIT;
	struct snap *top = NULL;
	i->node = n;
	i->cancelled = false;
	i->at = 0;
	_cleanup_free_ char *description = xasprintf("pulled from %s", i->src.image.ref.text);
	const char *type = !strcmp(i->src.image.record_type, "frontend")   ? SNAP_FRONTEND
			   : !strcmp(i->src.image.record_type, "internal") ? SNAP_INTERNAL
									   : SNAP_REGULAR;
	for (size_t k = 0; k < layer_count(i); k++) {
		const struct ops_layer *l = &i->image.layers[k];
		struct snap *next = snap_create_lazy(i->o.env->snaps, top, l->diff_id, description, type, &e);
		if (!next || add_blob(next, i, l, &e) < 0) {
			snap_unref(next);
			snap_unref(top);
			solve_exec_done(n, NULL, &e);
			return;
		}
		snap_unref(top);
		top = next;
	}
	i->top = top;
	if (i->src.scheme == LLB_OCI_LAYOUT)
		fetch_layers(i);
	else
		have_top(i);
}

static void cancel(void *op, struct solve_node *n)
{
	struct image_op *i = op;
	i->cancelled = true;
	if (i->blob) ops_blob_get_cancel(i->blob);
	if (i->get) ops_image_get_cancel(i->get);
}

static const struct solve_op_vt image_vt = {
	.kind = "image", .map = map, .exec = exec, .cancel = cancel, .free = op_free, .source = true};

void ops_image_source(struct ops_env *env, struct ops_graph *g, const struct llb_node *llb, const struct llb_source *src,
		      struct solve_vertex *ret)
{
	struct image_op *i = xnew(struct image_op);
	ops_node_init(&i->o, env, g, llb);
	i->src = *src;
	llb_platform_get(src->image.platform, &i->platform);
	ret->vt = &image_vt;
	ret->op = i;
}
