/* The SLSA predicates, v1 and v0.2, from a reference, what it used and the request it was made for. Written in Go's field
 * order, indented. mode=max adds the graph, the sources and the layers; mode=min leaves out arguments that may be private. */
#include "build/platforms.h"
#include "build/provenance.h"
#include "ship/manifest.h"
#include "ship/purl.h"

#include <stdio.h>
#include <string.h>

struct provenance {
	struct build *build;
	struct ref *ref; /* held */
	const struct prov_scope *scope;
	struct prov_opts opts; /* strings owned */
	struct prov_capture capture;
	struct prov_request *request; /* NULL: none */
	bool has_request, scrubbed, complete;
};

void provenance_free(struct provenance *p)
{
	if (!p) return;
	ref_drop(p->ref);
	prov_capture_fini(&p->capture);
	prov_request_free(p->request);
	free(p->opts.builder_id);
	free(p->opts.filename);
	free(p);
}

const char *provenance_type(const struct provenance *p)
{
	return p->opts.v02 ? "https://slsa.dev/provenance/v0.2" : "https://slsa.dev/provenance/v1";
}

/* ---- what was used ---- */

static bool in_result(const struct build *b, const char *id)
{
	for (size_t i = 0; i < b->result.refs.n; i++)
		if (b->result.refs.v[i].ref && !strcmp(b->result.refs.v[i].ref->id, id)) return true;
	for (size_t i = 0; i < b->result.attests.n; i++)
		if (b->result.attests.v[i].ref && !strcmp(b->result.attests.v[i].ref->id, id)) return true;
	return false;
}

/* Everything the scope solved beside what it returned. */
static void merge_scope(struct provenance *p, const struct prov_scope *s)
{
	for (size_t i = 0; i < s->captures.n; i++)
		if (!in_result(p->build, s->captures.v[i]->ref_id)) prov_capture_merge(&p->capture, s->captures.v[i]);
	for (size_t i = 0; i < s->children.n; i++) merge_scope(p, s->children.v[i]);
}

static void all_images(const struct prov_scope *s, struct prov_capture *ret)
{
	for (size_t i = 0; i < s->images.n; i++) {
		struct prov_image x = {xstrdup(s->images.v[i].ref),
				       xstrdup(s->images.v[i].digest),
				       s->images.v[i].local,
				       s->images.v[i].has_platform,
				       {0}};
		if (x.has_platform) spec_platform_copy(&x.platform, &s->images.v[i].platform);
		vec_push(&ret->images, x);
	}
	for (size_t i = 0; i < s->children.n; i++) all_images(s->children.v[i], ret);
}

static bool matches(const struct spec_platform *a, const struct spec_platform *b)
{
	struct spec_platform x, y;
	spec_platform_copy(&x, a);
	spec_platform_copy(&y, b);
	spec_platform_normalize(&x);
	spec_platform_normalize(&y);
	bool r = str_eq(x.os, y.os) && str_eq(x.arch, y.arch) && str_eq(x.variant, y.variant);
	spec_platform_fini(&x);
	spec_platform_fini(&y);
	return r;
}

static bool on_every_platform(const struct prov_capture *all, const char *ref, const struct result_platforms *ps)
{
	for (size_t k = 0; k < ps->n; k++) {
		bool found = false;
		for (size_t i = 0; i < all->images.n && !found; i++) {
			const struct prov_image *v = &all->images.v[i];
			found = !strcmp(v->ref, ref) && v->has_platform && matches(&ps->v[k].platform, &v->platform);
		}
		if (!found) return false;
	}
	return true;
}

/* What was asked of registries; of an image that there is for each platform of the result only this platform's. */
static void add_images(struct provenance *p, const char *key)
{
	struct prov_capture all = {0};
	struct result_platforms ps = {0};
	const struct spec_platform *current = NULL;
	all_images(p->scope, &all);
	if (key && result_platforms(&p->build->result, &p->build->engine->conf.platforms[0], &ps, NULL) < 0) key = NULL;
	for (size_t i = 0; key && i < ps.n; i++)
		if (!strcmp(ps.v[i].id, key)) current = &ps.v[i].platform;
	for (size_t i = 0; i < all.images.n; i++) {
		const struct prov_image *v = &all.images.v[i];
		if (current && v->has_platform && on_every_platform(&all, v->ref, &ps) &&
		    (!str_eq(current->os, v->platform.os) || !str_eq(current->arch, v->platform.arch)))
			continue;
		prov_capture_image(&p->capture, v);
	}
	result_platforms_fini(&ps);
	prov_capture_fini(&all);
}

static void write_gaps(struct json_w *w, const struct prov_capture *c)
{
	for (size_t i = 0; i < c->gaps.n; i++) {
		const struct prov_gap *g = &c->gaps.v[i];
		json_obj(w);
		json_kstr(w, "op", g->op);
		json_kstr_omit(w, "name", g->name);
		json_kstr_omit(w, "method", g->method);
		json_kstr(w, "uri", g->uri);
		json_kstr(w, "reason", g->reason);
		json_obj_end(w);
	}
}

static void gaps_text(struct buf *t, const struct prov_capture *c)
{
	if (c->gaps.n) buf_adds(t, "\n\nUncaptured requests:");
	for (size_t i = 0; i < c->gaps.n; i++) {
		const struct prov_gap *g = &c->gaps.v[i];
		buf_addf(t, "\n  - %s\n    method: %s\n    url: %s\n    reason: %s", *g->name ? g->name : g->op, g->method, g->uri, g->reason);
	}
}

static void gaps_detail(struct err *e, const struct prov_capture *c)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct json_w w = JSON_W(&b);
	json_obj(&w);
	json_key(&w, "incomplete");
	json_arr(&w);
	for (size_t i = 0; i < c->locals.n; i++) {
		json_obj(&w);
		json_kstr_omit(&w, "name", c->locals.v[i]);
		json_kstr(&w, "reason", "local_source");
		json_obj_end(&w);
	}
	write_gaps(&w, c);
	json_arr_end(&w);
	json_obj_end(&w);
	err_detail_add(e, "github.com/moby/buildkit/errdefs.ProvenanceMaterialsIncomplete+json", b.p, b.n);
}

struct provenance *provenance_new(struct build *b, struct ref *r, const char *key, const struct prov_opts *o, struct err *e)
{
	struct provenance *p = xnew(struct provenance);
	p->build = b;
	p->ref = ref_hold(r);
	p->scope = r->scope ? r->scope : b->prov;
	p->opts = *o;
	p->opts.builder_id = xstrdup(o->builder_id);
	p->opts.filename = xstrdup(o->filename);
	for (size_t i = 0; i < p->scope->captures.n; i++)
		if (!strcmp(p->scope->captures.v[i]->ref_id, r->id)) prov_capture_merge(&p->capture, p->scope->captures.v[i]);
	merge_scope(p, p->scope);
	add_images(p, key);
	prov_capture_finish(&p->capture);
	p->request = prov_request_of(p->scope, &p->capture);
	p->has_request = p->request != NULL;
	p->complete = !p->capture.incomplete && !p->capture.locals.n;
	if (o->complete && !p->complete) {
		_cleanup_buf_ struct buf t = BUF_INIT;
		buf_adds(&t, "provenance materials are incomplete\n\nThe build requested complete provenance materials, but "
			     "not all dependencies could be captured.");
		if (p->capture.locals.n) buf_adds(&t, "\n\nUncaptured local sources:");
		for (size_t i = 0; i < p->capture.locals.n; i++)
			buf_addf(&t, "\n  - %s\n    reason: local_source",
				 *p->capture.locals.v[i] ? p->capture.locals.v[i] : "<unnamed>");
		gaps_text(&t, &p->capture);
		err_set(e, CODE_UNKNOWN, "%s", buf_str(&t));
		gaps_detail(e, &p->capture);
		provenance_free(p);
		return NULL;
	}
	if (o->min && p->request) p->scrubbed = prov_request_scrub(p->request);
	return p;
}

/* ---- materials ---- */

static void digest_set(struct json_w *w, const char *algo, const char *hex)
{
	json_key(w, "digest");
	json_obj(w);
	json_kstr(w, algo, hex);
	json_obj_end(w);
}

static void digest_text(struct json_w *w, const char *digest)
{
	const char *colon = strchr(digest, ':');
	if (!colon) return;
	_cleanup_free_ char *algo = xstrndup(digest, (size_t)(colon - digest));
	digest_set(w, algo, colon + 1);
}

static int material_image(struct json_w *w, const char *type, const char *ref, const struct spec_platform *p,
			  const struct purl_extra *x, size_t n, const char *digest, struct err *e)
{
	_cleanup_free_ char *uri = ship_purl(type, ref, p, x, n, e);
	if (!uri) return -1;
	json_obj(w);
	json_kstr(w, "uri", uri);
	digest_text(w, digest);
	json_obj_end(w);
	return 0;
}

static int material_git(struct json_w *w, const struct prov_git *g, struct err *e)
{
	json_obj(w);
	json_kstr(w, "uri", g->url);
	digest_set(w, strlen(g->commit) == 64 ? "sha256" : "sha1", g->commit);
	json_obj_end(w);
	const char *sep = g->bundle ? strstr(g->bundle, "://") : NULL, *at = g->bundle ? strrchr(g->bundle, '@') : NULL;
	if (!sep || !at || at <= sep + 3) return 0;
	_cleanup_free_ char *ref = xstrndup(sep + 3, (size_t)(at - sep - 3));
	struct purl_extra x[] = {{"ref_type", "bundle"}, {"vcs_url", g->url}};
	return material_image(w, str_starts(g->bundle, "oci-layout") ? "oci" : "docker", ref, NULL, x, 2, at + 1, e);
}

static int materials(struct json_w *w, const char *key, const struct prov_capture *c, struct err *e)
{
	if (!c->images.n && !c->blobs.n && !c->git.n && !c->http.n) return 0;
	json_key(w, key);
	json_arr(w);
	for (size_t i = 0; i < c->images.n; i++) {
		const struct prov_image *v = &c->images.v[i];
		if (material_image(w, v->local ? "oci" : "docker", v->ref, v->has_platform ? &v->platform : NULL, NULL, 0,
				   v->digest, e) < 0)
			return -1;
	}
	struct purl_extra blob = {"ref_type", "blob"};
	for (size_t i = 0; i < c->blobs.n; i++) {
		const struct prov_blob *v = &c->blobs.v[i];
		if (material_image(w, v->local ? "oci" : "docker", v->ref, NULL, &blob, 1, v->digest, e) < 0) return -1;
	}
	for (size_t i = 0; i < c->git.n; i++)
		if (material_git(w, &c->git.v[i], e) < 0) return -1;
	for (size_t i = 0; i < c->http.n; i++) {
		json_obj(w);
		json_kstr(w, "uri", c->http.v[i].url);
		digest_text(w, c->http.v[i].digest);
		json_obj_end(w);
	}
	json_arr_end(w);
	return 0;
}

/* ---- the request ---- */

static void config_source(struct json_w *w, const struct prov_request *r, const char *path_key)
{
	json_key(w, "configSource");
	json_obj(w);
	if (r) {
		json_kstr_omit(w, "uri", r->uri);
		if (r->hex) digest_set(w, r->algo, r->hex);
		json_kstr_omit(w, path_key, r->path);
	}
	json_obj_end(w);
}

static void secrets(struct json_w *w, const char *key, const struct prov_secret *v, size_t n)
{
	if (!n) return;
	json_key(w, key);
	json_arr(w);
	for (size_t i = 0; i < n; i++) {
		json_obj(w);
		json_kstr(w, "id", v[i].id);
		json_kbool_omit(w, "optional", v[i].optional);
		json_obj_end(w);
	}
	json_arr_end(w);
}

static void args(struct json_w *w, const struct strvec *v, bool skip_vcs)
{
	bool open = false;
	for (size_t i = 0; i < v->n; i++) {
		const char *eq = strchr(v->v[i], '=');
		if (skip_vcs && str_starts(v->v[i], "vcs:")) continue;
		if (!open) {
			json_key(w, "args");
			json_obj(w);
			open = true;
		}
		_cleanup_free_ char *k = xstrndup(v->v[i], (size_t)(eq - v->v[i]));
		json_kstr(w, k, eq + 1);
	}
	if (open) json_obj_end(w);
}

static void request_object(struct json_w *w, const struct prov_request *r);

static void inputs_and_root(struct json_w *w, const struct prov_request *r)
{
	if (!r) return;
	if (r->inputs.n) {
		json_key(w, "inputs");
		json_obj(w);
		for (size_t i = 0; i < r->inputs.n; i++) {
			json_key(w, r->inputs.v[i].name);
			request_object(w, r->inputs.v[i].req);
		}
		json_obj_end(w);
	}
	if (r->root) {
		json_key(w, "root");
		request_object(w, r->root);
	}
}

static void request_object(struct json_w *w, const struct prov_request *r)
{
	json_obj(w);
	config_source(w, r, "path");
	json_key(w, "request");
	json_obj(w);
	json_kstr_omit(w, "frontend", r->frontend);
	args(w, &r->args, false);
	inputs_and_root(w, r);
	json_obj_end(w);
	json_obj_end(w);
}

static void parameters(struct json_w *w, const struct provenance *p)
{
	const struct prov_capture *c = &p->capture;
	int64_t version = p->build->pb->compatibilityversion;
	json_obj(w);
	if (p->request) {
		json_kstr_omit(w, "frontend", p->request->frontend);
		args(w, &p->request->args, true);
	}
	if (!p->opts.min) {
		secrets(w, "secrets", c->secrets.v, c->secrets.n);
		secrets(w, "ssh", c->ssh.v, c->ssh.n);
	}
	if (c->locals.n) {
		json_key(w, "locals");
		json_arr(w);
		for (size_t i = 0; i < c->locals.n; i++) {
			json_obj(w);
			json_kstr(w, "name", c->locals.v[i]);
			json_obj_end(w);
		}
		json_arr_end(w);
	}
	inputs_and_root(w, p->request);
	json_kint(w, "compatibilityVersion", version ? version : 30);
	json_obj_end(w);
}

/* ---- the graph: steps in the order of a walk from the last one ---- */

struct steps {
	Pb__Op **ops; /* of the definition */
	char (*digests)[DIGEST_STR];
	size_t n;
	size_t *order, n_order; /* step -> op */
	size_t *step;           /* op -> step + 1 */
	struct map by_digest;   /* -> op + 1 */
};

static void steps_fini(struct steps *s)
{
	free(s->ops);
	free(s->digests);
	free(s->order);
	free(s->step);
	map_fini(&s->by_digest);
}

static ptrdiff_t op_of(const struct steps *s, const char *digest)
{
	return (ptrdiff_t)(uintptr_t)map_get(&s->by_digest, digest) - 1;
}

static void visit(struct steps *s, size_t top)
{
	/* Without recursion: a graph may be deep. next[k] is the input to look at when k is on top again. */
	size_t *stack = xcalloc(s->n + 1, sizeof *stack), *next = xcalloc(s->n + 1, sizeof *next), depth = 0;
	bool *seen = xcalloc(s->n + 1, sizeof *seen);
	stack[depth++] = top;
	seen[top] = true;
	while (depth) {
		size_t k = stack[depth - 1];
		if (next[k] == s->ops[k]->n_inputs) {
			s->order[s->n_order] = k;
			s->step[k] = ++s->n_order;
			depth--;
			continue;
		}
		ptrdiff_t in = op_of(s, s->ops[k]->inputs[next[k]++]->digest);
		if (in < 0 || seen[in]) continue;
		seen[in] = true;
		stack[depth++] = (size_t)in;
	}
	free(stack);
	free(next);
	free(seen);
}

static void steps_load(struct steps *s, const Pb__Definition *d, struct arena *a)
{
	s->ops = xcalloc(d->n_def + 1, sizeof *s->ops);
	s->digests = xcalloc(d->n_def + 1, sizeof *s->digests);
	s->order = xcalloc(d->n_def + 1, sizeof *s->order);
	s->step = xcalloc(d->n_def + 1, sizeof *s->step);
	for (size_t i = 0; i < d->n_def; i++) {
		s->ops[i] = wire_unpack_as(Pb__Op, pb__op, d->def[i].data, d->def[i].len, a, NULL);
		if (!s->ops[i]) return;
		digest_str_of(d->def[i].data, d->def[i].len, s->digests[i]);
		map_put(&s->by_digest, s->digests[i], (void *)(uintptr_t)(i + 1));
		s->n++;
	}
	if (s->n) visit(s, s->n - 1);
}

static void without_session(Pb__Op *op)
{
	if (op->op_case != PB__OP__OP_SOURCE) return;
	Pb__SourceOp *src = op->source;
	size_t n = 0;
	for (size_t i = 0; i < src->n_attrs; i++)
		if (strcmp(src->attrs[i]->key, "local.session") && strcmp(src->attrs[i]->key, "local.unique"))
			src->attrs[n++] = src->attrs[i];
	src->n_attrs = n;
}

static void write_step(struct json_w *w, const struct steps *s, size_t i)
{
	char text[64];
	Pb__Op op = *s->ops[s->order[i]];
	snprintf(text, sizeof text, "step%zu", i);
	json_obj(w);
	json_kstr(w, "id", text);
	json_key(w, "op");
	without_session(&op);
	Pb__Input **in = op.inputs;
	size_t n = op.n_inputs;
	op.n_inputs = 0;
	llb_json(w, &op.base);
	if (n) {
		json_key(w, "inputs");
		json_arr(w);
		for (size_t k = 0; k < n; k++) {
			ptrdiff_t of = op_of(s, in[k]->digest);
			snprintf(text, sizeof text, "step%zu:%lld", of < 0 || !s->step[of] ? (size_t)0 : s->step[of] - 1,
				 (long long)in[k]->index);
			json_str(w, text);
		}
		json_arr_end(w);
	}
	json_obj_end(w);
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static void write_steps(struct json_w *w, const struct steps *s)
{
	json_key(w, "llbDefinition");
	json_arr(w);
	for (size_t i = 0; i < s->n_order; i++) write_step(w, s, i);
	json_arr_end(w);
	const char **sorted = xcalloc(s->n_order + 1, sizeof *sorted);
	for (size_t i = 0; i < s->n_order; i++) sorted[i] = s->digests[s->order[i]];
	qsort(sorted, s->n_order, sizeof *sorted, by_text);
	json_key(w, "digestMapping");
	json_obj(w);
	for (size_t i = 0; i < s->n_order; i++) {
		char text[32];
		snprintf(text, sizeof text, "step%zu", s->step[op_of(s, sorted[i])] - 1);
		json_kstr(w, sorted[i], text);
	}
	json_obj_end(w);
	free(sorted);
}

struct location {
	char step[32];
	const Pb__Locations *value;
};
static int by_step(const void *a, const void *b)
{
	return strcmp(((const struct location *)a)->step, ((const struct location *)b)->step);
}

static void write_locations(struct json_w *w, const struct steps *s, const Pb__Source *src)
{
	VEC(struct location) v = {0};
	for (size_t i = 0; i < src->n_locations; i++) {
		ptrdiff_t of = op_of(s, src->locations[i]->key);
		if (of < 0 || !s->step[of] || !src->locations[i]->value) continue;
		struct location *l = vec_add(&v);
		snprintf(l->step, sizeof l->step, "step%zu", s->step[of] - 1);
		l->value = src->locations[i]->value;
	}
	if (v.n) {
		qsort(v.v, v.n, sizeof *v.v, by_step);
		json_key(w, "locations");
		json_obj(w);
		for (size_t i = 0; i < v.n; i++) {
			json_key(w, v.v[i].step);
			llb_json(w, &v.v[i].value->base);
		}
		json_obj_end(w);
	}
	vec_fini(&v);
}

static void write_source(struct json_w *w, const struct steps *s, const Pb__Source *src, struct arena *a)
{
	if (!src || !src->n_infos) return;
	json_key(w, "source");
	json_obj(w);
	write_locations(w, s, src);
	json_key(w, "infos");
	json_arr(w);
	for (size_t i = 0; i < src->n_infos; i++) {
		const Pb__SourceInfo *info = src->infos[i];
		json_obj(w);
		json_kstr_omit(w, "filename", info->filename);
		json_kstr_omit(w, "language", info->language);
		if (info->data.len) {
			json_key(w, "data");
			json_base64(w, info->data.data, info->data.len);
		}
		if (info->definition && info->definition->n_def) {
			struct steps inner = {0};
			steps_load(&inner, info->definition, a);
			write_steps(w, &inner);
			steps_fini(&inner);
		}
		json_obj_end(w);
	}
	json_arr_end(w);
	json_obj_end(w);
}

/* ---- layers: the blobs of results that are there ---- */

static bool has_blobs(const struct snap *s)
{
	for (size_t i = 0; s && i < s->chain.n; i++)
		if (!snap_blob_find(s->chain.v[i], NULL)) return false;
	return s && s->chain.n;
}

static void write_layer(struct json_w *w, const char *media_type, const char *digest, int64_t bytes)
{
	struct ship_desc d = {.media_type = media_type, .size = bytes};
	snprintf(d.digest, sizeof d.digest, "%s", digest);
	ship_desc_write(w, &d);
}

/* The results of the graph, one place an output: node i has those from first[i] on. */
struct outcome {
	const struct provenance *p;
	const struct llb_graph *g;
	size_t *first;
	struct snap **snaps; /* NULL: not known, or scratch */
};

static struct snap **place(const struct outcome *o, const struct llb_edge *edge)
{
	return &o->snaps[o->first[edge->node] + (size_t)edge->output];
}

static bool loaded(const struct outcome *o, const struct llb_edge *edge)
{
	return solve_node_phase(o->p->ref->nodes[edge->node], (size_t)edge->output) == SOLVE_DONE;
}

/* The input that output k of a step lies upon as one more layer; NULL: there is none, or it cannot be said. */
static const struct llb_edge *base_of(const struct llb_node *n, int64_t k)
{
	const Pb__Op *op = n->op;
	int64_t in = LLB_NONE;
	if (op->op_case == PB__OP__OP_EXEC) {
		for (size_t i = 0; i < op->exec->n_mounts; i++)
			if (op->exec->mounts[i]->output == k && op->exec->mounts[i]->mounttype == PB__MOUNT_TYPE__BIND)
				in = op->exec->mounts[i]->input;
	} else if (op->op_case == PB__OP__OP_FILE) {
		for (size_t i = 0; i < op->file->n_actions; i++)
			if (op->file->actions[i]->output == k) in = op->file->actions[i]->input;
		for (size_t steps = 0; in >= (int64_t)op->n_inputs && steps < op->file->n_actions; steps++) {
			size_t action = (size_t)in - op->n_inputs;
			in = action < op->file->n_actions ? op->file->actions[action]->input : LLB_NONE;
		}
	}
	return in >= 0 && in < (int64_t)op->n_inputs ? &n->inputs[in] : NULL;
}

/* A cached step was not given its inputs: what it lies upon is its result without the topmost layer. */
static void outcome_derive(struct outcome *o)
{
	for (size_t i = o->g->n_nodes; i-- > 0;) {
		size_t outputs = llb_op_outputs(o->g->nodes[i].op);
		for (size_t k = 0; k < outputs; k++) {
			const struct llb_edge *base = base_of(&o->g->nodes[i], (int64_t)k);
			const struct snap *s = o->snaps[o->first[i] + k];
			if (!base || !s || s->chain.n < 2 || *place(o, base) || loaded(o, base)) continue;
			struct snap *below = s->chain.v[s->chain.n - 2];
			if (below->chain.n == s->chain.n - 1) *place(o, base) = below;
		}
	}
}

static void outcome_fill(struct outcome *o)
{
	const struct llb_graph *g = o->g;
	size_t total = 0;
	o->first = xcalloc(g->n_nodes, sizeof *o->first);
	for (size_t i = 0; i < g->n_nodes; i++) {
		o->first[i] = total;
		total += max_of(llb_op_outputs(g->nodes[i].op), (size_t)1);
	}
	o->snaps = xcalloc(total, sizeof(struct snap *));
	for (size_t i = 0; i < g->n_nodes; i++)
		for (size_t k = 0; k < g->nodes[i].op->n_inputs; k++)
			if (loaded(o, &g->nodes[i].inputs[k]))
				*place(o, &g->nodes[i].inputs[k]) = solve_input(o->p->ref->nodes[i], k);
	*place(o, &g->root) = o->p->ref->result;
	outcome_derive(o);
}

struct layers {
	char step[48];
	const struct snap *snap; /* or ... */
	struct ops_pin pin;      /* an image's */
};
static int by_layers(const void *a, const void *b)
{
	return strcmp(((const struct layers *)a)->step, ((const struct layers *)b)->step);
}

static void write_chain(struct json_w *w, const struct layers *l)
{
	json_key(w, l->step);
	json_arr(w);
	json_arr(w);
	for (size_t k = 0; l->snap && k < l->snap->chain.n; k++) {
		const struct snap_blob *b = snap_blob_find(l->snap->chain.v[k], NULL);
		write_layer(w, b->media_type, b->digest, b->size);
	}
	for (size_t k = 0; !l->snap && k < l->pin.n_layers; k++)
		write_layer(w, l->pin.layers[k].media_type, l->pin.layers[k].digest, l->pin.layers[k].size);
	json_arr_end(w);
	json_arr_end(w);
}

/* By step and output: the reference's own result, those its steps had as inputs, and its images. */
static void write_layers(struct json_w *w, const struct provenance *p, const struct steps *s)
{
	struct outcome o = {.p = p, .g = p->ref->graph ? p->ref->graph->graph : NULL};
	VEC(struct layers) v = {0};
	if (!o.g || !o.g->n_nodes || !p->ref->nodes) return;
	outcome_fill(&o);
	for (size_t i = 0; i < o.g->n_nodes; i++) {
		size_t outputs = max_of(llb_op_outputs(o.g->nodes[i].op), (size_t)1);
		ptrdiff_t of = op_of(s, o.g->nodes[i].client_digest);
		for (size_t k = 0; k < outputs && of >= 0 && s->step[of]; k++) {
			struct layers x = {.snap = o.snaps[o.first[i] + k]};
			bool image = ops_node_pin(p->ref->nodes[i], &x.pin) && x.pin.n_layers;
			if (!has_blobs(x.snap)) x.snap = NULL;
			if (!x.snap && !image) continue;
			if (image) x.snap = NULL;
			snprintf(x.step, sizeof x.step, "step%zu:%zu", s->step[of] - 1, k);
			vec_push(&v, x);
		}
	}
	if (v.n) {
		qsort(v.v, v.n, sizeof *v.v, by_layers);
		json_key(w, "layers");
		json_obj(w);
		for (size_t i = 0; i < v.n; i++) write_chain(w, &v.v[i]);
		json_obj_end(w);
	}
	vec_fini(&v);
	free(o.first);
	free(o.snaps);
}

/* ---- the whole ---- */

struct writing {
	const struct provenance *p;
	struct json_w *w;
	struct arena *arena;
	const Pb__Definition *def; /* NULL: none, or mode=min */
	struct steps steps;
	char started[TIME_STR], finished[TIME_STR], *platform;
};

static void buildkit_metadata(struct writing *x, const char *key)
{
	struct json_w *w = x->w;
	const struct prov_request *r = x->p->request;
	bool open = false;
	json_key(w, key);
	json_obj(w);
	for (size_t i = 0; r && i < r->args.n; i++) {
		const char *kv = r->args.v[i], *eq = strchr(kv, '=');
		if (!str_starts(kv, "vcs:") || !eq[1]) continue;
		if (!open) {
			json_key(w, "vcs");
			json_obj(w);
			open = true;
		}
		_cleanup_free_ char *k = xstrndup(kv + 4, (size_t)(eq - kv - 4)),
				    *v = !strcmp(k, "source") ? prov_redact(eq + 1) : xstrdup(eq + 1);
		json_kstr(w, k, v);
	}
	if (open) json_obj_end(w);
	if (x->def) {
		write_source(w, &x->steps, x->def->source, x->arena);
		write_layers(w, x->p, &x->steps);
	}
	if (x->p->capture.proxy) {
		json_key(w, "network");
		json_obj(w);
		json_kstr(w, "mode", "proxy");
		if (x->p->capture.gaps.n) {
			json_key(w, "proxy");
			json_obj(w);
			json_key(w, "incomplete");
			json_arr(w);
			write_gaps(w, &x->p->capture);
			json_arr_end(w);
			json_obj_end(w);
		}
		json_obj_end(w);
	}
	json_obj_end(w);
}

static void build_config(struct writing *x)
{
	if (!x->def) return;
	json_key(x->w, "buildConfig");
	json_obj(x->w);
	write_steps(x->w, &x->steps);
	json_obj_end(x->w);
}

static const char *dockerfile_version(const struct provenance *p)
{
	return p->request && str_eq(p->request->frontend, "dockerfile.v0") ? p->build->engine->conf.dockerfile_version : NULL;
}

static bool request_complete(const struct provenance *p) { return p->request && *p->request->frontend && !p->scrubbed; }
static bool hermetic(const struct provenance *p) { return p->complete && !p->capture.network; }

/* All keys sorted, at every depth: BuildKit puts them through a map to add the operator's. */
static void internal_parameters(struct writing *x)
{
	_cleanup_buf_ struct buf text = BUF_INIT;
	struct json_w own = JSON_W(&text), *w = x->w;
	x->w = &own;
	json_obj(&own);
	build_config(x);
	json_kstr(&own, "builderPlatform", x->platform);
	json_kstr_omit(&own, "dockerfileVersion", dockerfile_version(x->p));
	json_obj_end(&own);
	x->w = w;
	json_t *all = json_loadb(buf_str(&text), text.n, JSON_ALLOW_NUL, NULL);
	if (all) json_object_update(all, x->p->build->engine->provenance_env);
	json_key(w, "internalParameters");
	json_obj(w);
	if (all) prov_env_write(w, all);
	json_obj_end(w);
	json_decref(all);
}

static int write_v1(struct writing *x, struct err *e)
{
	const struct provenance *p = x->p;
	struct json_w *w = x->w;
	json_obj(w);
	json_key(w, "buildDefinition");
	json_obj(w);
	json_kstr(w, "buildType", "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md");
	if (materials(w, "resolvedDependencies", &p->capture, e) < 0) return -1;
	json_key(w, "externalParameters");
	json_obj(w);
	config_source(w, p->request, "path");
	json_key(w, "request");
	parameters(w, p);
	json_obj_end(w);
	internal_parameters(x);
	json_obj_end(w);
	json_key(w, "runDetails");
	json_obj(w);
	json_key(w, "builder");
	json_obj(w);
	json_kstr(w, "id", p->opts.builder_id ? p->opts.builder_id : "");
	json_obj_end(w);
	json_key(w, "metadata");
	json_obj(w);
	json_kstr(w, "invocationId", p->build->prov->invocation);
	json_kstr(w, "startedOn", x->started);
	json_kstr(w, "finishedOn", x->finished);
	buildkit_metadata(x, "buildkit_metadata");
	json_kbool_omit(w, "buildkit_hermetic", hermetic(p));
	json_key(w, "buildkit_completeness");
	json_obj(w);
	json_kbool(w, "request", request_complete(p));
	json_kbool(w, "resolvedDependencies", p->complete);
	json_obj_end(w);
	json_kbool_omit(w, "buildkit_reproducible", p->opts.reproducible);
	json_obj_end(w);
	json_obj_end(w);
	json_obj_end(w);
	return 0;
}

static int write_v02(struct writing *x, struct err *e)
{
	const struct provenance *p = x->p;
	struct json_w *w = x->w;
	json_obj(w);
	json_key(w, "builder");
	json_obj(w);
	json_kstr(w, "id", p->opts.builder_id ? p->opts.builder_id : "");
	json_obj_end(w);
	json_kstr(w, "buildType", "https://mobyproject.org/buildkit@v1");
	if (materials(w, "materials", &p->capture, e) < 0) return -1;
	json_key(w, "invocation");
	json_obj(w);
	config_source(w, p->request, "entryPoint");
	json_key(w, "parameters");
	parameters(w, p);
	json_key(w, "environment");
	json_obj(w);
	json_kstr(w, "platform", x->platform);
	json_kstr_omit(w, "dockerfileVersion", dockerfile_version(p));
	prov_env_write(w, p->build->engine->provenance_env);
	json_obj_end(w);
	json_obj_end(w);
	build_config(x);
	json_key(w, "metadata");
	json_obj(w);
	json_kstr(w, "buildInvocationID", p->build->prov->invocation);
	json_kstr(w, "buildStartedOn", x->started);
	json_kstr(w, "buildFinishedOn", x->finished);
	json_key(w, "completeness");
	json_obj(w);
	json_kbool(w, "parameters", request_complete(p));
	json_kbool(w, "environment", true);
	json_kbool(w, "materials", p->complete);
	json_obj_end(w);
	json_kbool(w, "reproducible", p->opts.reproducible);
	buildkit_metadata(x, "https://mobyproject.org/buildkit@v1#metadata");
	json_kbool_omit(w, "https://mobyproject.org/buildkit@v1#hermetic", hermetic(p));
	json_obj_end(w);
	json_obj_end(w);
	return 0;
}

int provenance_write(void *provenance, struct buf *ret, struct err *e)
{
	struct provenance *p = provenance;
	_cleanup_arena_ struct arena *a = arena_new(0);
	struct json_w w = {.out = ret, .indent = "  "};
	struct writing x = {.p = p, .w = &w, .arena = a};
	time_rfc3339nano(p->build->prov->started, x.started);
	time_rfc3339nano(time_now(), x.finished);
	x.platform = spec_platform_format(&p->build->engine->conf.env->host);
	if (!p->opts.min && p->ref->def)
		x.def = wire_unpack_as(Pb__Definition, pb__definition, p->ref->def, p->ref->def_len, a, NULL);
	if (x.def) steps_load(&x.steps, x.def, a);
	int r = p->opts.v02 ? write_v02(&x, e) : write_v1(&x, e);
	steps_fini(&x.steps);
	free(x.platform);
	return r;
}
