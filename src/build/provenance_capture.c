/* What one reference used: its graph is walked when it has its result. */
#include "build/provenance.h"
#include "spec/ref.h"
#include "spec/url.h"

#include <string.h>

static void secrets_fini(struct prov_secret *v, size_t n)
{
	for (size_t i = 0; i < n; i++) free(v[i].id);
	free(v);
}

static void image_fini(struct prov_image *i)
{
	free(i->ref);
	free(i->digest);
	if (i->has_platform) spec_platform_fini(&i->platform);
}

void prov_capture_fini(struct prov_capture *c)
{
	for (size_t i = 0; i < c->images.n; i++) image_fini(&c->images.v[i]);
	for (size_t i = 0; i < c->blobs.n; i++) {
		free(c->blobs.v[i].ref);
		free(c->blobs.v[i].digest);
	}
	for (size_t i = 0; i < c->git.n; i++) {
		free(c->git.v[i].url);
		free(c->git.v[i].commit);
		free(c->git.v[i].bundle);
	}
	for (size_t i = 0; i < c->http.n; i++) {
		free(c->http.v[i].url);
		free(c->http.v[i].digest);
	}
	for (size_t i = 0; i < c->gaps.n; i++) {
		struct prov_gap *g = &c->gaps.v[i];
		free(g->op), free(g->name), free(g->method), free(g->uri), free(g->reason);
	}
	vec_fini(&c->gaps);
	secrets_fini(c->secrets.v, c->secrets.n);
	secrets_fini(c->ssh.v, c->ssh.n);
	vec_fini(&c->images);
	vec_fini(&c->blobs);
	vec_fini(&c->git);
	vec_fini(&c->http);
	strvec_fini(&c->locals);
	*c = (struct prov_capture){0};
}

char *prov_redact(const char *url)
{
	struct spec_url u = {0};
	if (spec_url_parse(url, &u, NULL) < 0) return xstrdup(url);
	if (u.has_user && *u.user) {
		free(u.user);
		u.user = xstrdup("xxxxx");
	}
	if (u.has_user && u.has_password) {
		free(u.password);
		u.password = xstrdup("xxxxx");
	}
	char *r = spec_url_format(&u);
	spec_url_fini(&u);
	return r;
}

/* ---- adding: each thing once ---- */

static bool same_platform(const struct prov_image *a, const struct prov_image *b)
{
	if (!a->has_platform && !b->has_platform) return true;
	return a->has_platform && b->has_platform && str_eq(a->platform.os, b->platform.os) &&
	       str_eq(a->platform.arch, b->platform.arch) && str_eq(a->platform.variant, b->platform.variant) &&
	       str_eq(a->platform.os_version, b->platform.os_version);
}

void prov_capture_image(struct prov_capture *c, const struct prov_image *i)
{
	for (size_t k = 0; k < c->images.n; k++) {
		const struct prov_image *v = &c->images.v[k];
		if (!strcmp(v->ref, i->ref) && v->local == i->local && same_platform(v, i)) return;
	}
	struct prov_image x = {xstrdup(i->ref), xstrdup(i->digest), i->local, i->has_platform, {0}};
	if (i->has_platform) spec_platform_copy(&x.platform, &i->platform);
	vec_push(&c->images, x);
}

static void add_blob(struct prov_capture *c, const char *ref, const char *digest, bool local)
{
	for (size_t i = 0; i < c->blobs.n; i++)
		if (!strcmp(c->blobs.v[i].ref, ref) && c->blobs.v[i].local == local) return;
	struct prov_blob x = {xstrdup(ref), xstrdup(digest), local};
	vec_push(&c->blobs, x);
}

static void add_git(struct prov_capture *c, const char *url, const char *commit, const char *bundle)
{
	_cleanup_free_ char *shown = prov_redact(url);
	for (size_t i = 0; i < c->git.n; i++)
		if (!strcmp(c->git.v[i].url, shown) &&
		    str_eq(c->git.v[i].bundle ? c->git.v[i].bundle : "", bundle ? bundle : ""))
			return;
	struct prov_git x = {take_ptr(shown), xstrdup(commit), str_empty(bundle) ? NULL : xstrdup(bundle)};
	vec_push(&c->git, x);
}

static void add_http(struct prov_capture *c, const char *url, const char *digest)
{
	_cleanup_free_ char *shown = prov_redact(url);
	for (size_t i = 0; i < c->http.n; i++)
		if (!strcmp(c->http.v[i].url, shown)) return;
	struct prov_http x = {take_ptr(shown), xstrdup(digest)};
	vec_push(&c->http, x);
}

static void add_local(struct prov_capture *c, const char *name)
{
	if (strvec_find(&c->locals, name) < 0) strvec_add(&c->locals, name);
}

#define add_secret(list, name, opt)                                            \
	do {                                                                   \
		size_t _i = 0;                                                 \
		while (_i < (list)->n && strcmp((list)->v[_i].id, name)) _i++; \
		if (_i == (list)->n) {                                         \
			struct prov_secret _s = {xstrdup(name), opt};          \
			vec_push(list, _s);                                    \
		} else if (!(opt)) {                                           \
			(list)->v[_i].optional = false;                        \
		}                                                              \
	} while (0)

/* ---- the graph ---- */

static void take_image(struct prov_capture *c, const struct ops_pin *p)
{
	struct prov_image i = {
		.ref = (char *)p->src->image.ref.text, .digest = (char *)p->digest, .local = p->src->scheme == LLB_OCI_LAYOUT};
	i.has_platform = p->src->image.platform != NULL;
	if (i.has_platform) llb_platform_get(p->src->image.platform, &i.platform);
	prov_capture_image(c, &i);
	if (i.has_platform) spec_platform_fini(&i.platform);
}

static void take_git(struct prov_capture *c, const struct ops_pin *p)
{
	const struct llb_source *s = p->src;
	_cleanup_free_ char *url = *s->git.ref ? xasprintf("%s#%s", s->git.remote, s->git.ref) : xstrdup(s->git.remote);
	add_git(c, url, p->digest, s->git.bundle);
	if (*s->git.auth_token_secret) add_secret(&c->secrets, s->git.auth_token_secret, true);
	if (*s->git.auth_header_secret) add_secret(&c->secrets, s->git.auth_header_secret, true);
	if (!str_empty(s->git.mount_ssh_sock)) add_secret(&c->ssh, s->git.mount_ssh_sock, true);
}

static void take_source(struct prov_capture *c, struct solve_node *n)
{
	struct ops_pin p;
	if (!ops_node_pin(n, &p)) return;
	switch (p.src->scheme) {
	case LLB_IMAGE:
	case LLB_OCI_LAYOUT: take_image(c, &p); break;
	case LLB_IMAGE_BLOB: add_blob(c, p.src->blob.ref.text, p.digest, false); break;
	case LLB_OCI_BLOB: add_blob(c, p.src->blob.ref.text, p.digest, true); break;
	case LLB_GIT: take_git(c, &p); break;
	case LLB_HTTP: add_http(c, p.src->http.url, p.digest); break;
	case LLB_LOCAL: add_local(c, p.src->local.name); break;
	}
}

static void take_exec(struct prov_capture *c, const Pb__ExecOp *x, bool proxy)
{
	for (size_t i = 0; i < x->n_mounts; i++) {
		const Pb__Mount *m = x->mounts[i];
		if (m->mounttype == PB__MOUNT_TYPE__SECRET) {
			const char *id = m->secretopt ? m->secretopt->id : "";
			bool optional = m->secretopt && m->secretopt->optional;
			add_secret(&c->secrets, id, optional);
		}
		if (m->mounttype == PB__MOUNT_TYPE__SSH) {
			const char *id = m->sshopt && *m->sshopt->id ? m->sshopt->id : "default";
			bool optional = m->sshopt && m->sshopt->optional;
			add_secret(&c->ssh, id, optional);
		}
	}
	for (size_t i = 0; i < x->n_secretenv; i++) add_secret(&c->secrets, x->secretenv[i]->id, x->secretenv[i]->optional);
	if (x->network != PB__NET_MODE__NONE) c->network = true;
	if (proxy) c->proxy = true;
}

static void add_gap(struct prov_capture *c, const struct prov_gap *g)
{
	for (size_t i = 0; i < c->gaps.n; i++) {
		const struct prov_gap *v = &c->gaps.v[i];
		if (!strcmp(v->op, g->op) && !strcmp(v->method, g->method) && !strcmp(v->uri, g->uri) && !strcmp(v->reason, g->reason)) return;
	}
	struct prov_gap x = {xstrdup(g->op), xstrdup(g->name), xstrdup(g->method), xstrdup(g->uri), xstrdup(g->reason)};
	vec_push(&c->gaps, x);
}

static void take_proxied(struct prov_capture *c, struct solve_node *n, const struct llb_node *llb)
{
	const struct proxy_record *r = ops_node_proxied(n);
	if (!r) return;
	for (size_t i = 0; i < r->materials.n; i++) add_http(c, r->materials.v[i].url, r->materials.v[i].digest);
	struct strvec args = {(char **)llb->op->exec->meta->args, llb->op->exec->meta->n_args, 0};
	_cleanup_free_ char *name = strvec_join(&args, " ");
	for (size_t i = 0; i < r->gaps.n; i++) {
		const struct proxy_gap *g = &r->gaps.v[i];
		add_gap(c, &(struct prov_gap){(char *)llb->digest, name, g->method, g->url, (char *)g->reason});
		c->incomplete = true;
	}
}

void prov_capture_ref(struct prov_capture *c, const struct ref *r)
{
	const struct llb_graph *g = r->graph ? r->graph->graph : NULL;
	memcpy(c->ref_id, r->id, sizeof c->ref_id);
	for (size_t i = 0; g && r->nodes && i < g->n_nodes; i++) {
		const Pb__Op *op = g->nodes[i].op;
		if (op->op_case == PB__OP__OP_SOURCE) take_source(c, r->nodes[i]);
		if (op->op_case == PB__OP__OP_EXEC) take_exec(c, op->exec, g->nodes[i].proxy_network);
		if (g->nodes[i].proxy_network) take_proxied(c, r->nodes[i], &g->nodes[i]);
		if (op->op_case == PB__OP__OP_BUILD) c->incomplete = true;
	}
}

void prov_capture_merge(struct prov_capture *c, const struct prov_capture *from)
{
	for (size_t i = 0; i < from->images.n; i++) prov_capture_image(c, &from->images.v[i]);
	for (size_t i = 0; i < from->blobs.n; i++)
		add_blob(c, from->blobs.v[i].ref, from->blobs.v[i].digest, from->blobs.v[i].local);
	for (size_t i = 0; i < from->git.n; i++) add_git(c, from->git.v[i].url, from->git.v[i].commit, from->git.v[i].bundle);
	for (size_t i = 0; i < from->http.n; i++) add_http(c, from->http.v[i].url, from->http.v[i].digest);
	for (size_t i = 0; i < from->gaps.n; i++) add_gap(c, &from->gaps.v[i]);
	for (size_t i = 0; i < from->locals.n; i++) add_local(c, from->locals.v[i]);
	for (size_t i = 0; i < from->secrets.n; i++)
		add_secret(&c->secrets, from->secrets.v[i].id, from->secrets.v[i].optional);
	for (size_t i = 0; i < from->ssh.n; i++) add_secret(&c->ssh, from->ssh.v[i].id, from->ssh.v[i].optional);
	c->network |= from->network;
	c->proxy |= from->proxy;
	c->incomplete |= from->incomplete;
}

/* ---- the end ---- */

static int first_string(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* A stable sort of few things by the string that each begins with. */
static void sort_stable(void *v, size_t n, size_t size)
{
	_cleanup_free_ uint8_t *tmp = xmalloc(size);
	uint8_t *p = v;
	for (size_t i = 1; i < n; i++) {
		size_t k = i;
		memcpy(tmp, p + i * size, size);
		while (k && first_string(p + (k - 1) * size, tmp) > 0) k--;
		memmove(p + (k + 1) * size, p + k * size, (i - k) * size);
		memcpy(p + k * size, tmp, size);
	}
}

static char *name_tag(const char *ref, bool *ret_canonical)
{
	_cleanup_spec_ref_ struct spec_ref r = {0};
	*ret_canonical = false;
	if (spec_ref_parse(ref, &r, NULL) < 0) return xstrdup(ref);
	*ret_canonical = r.digest != NULL;
	_cleanup_free_ char *name = spec_ref_name(&r);
	return xasprintf("%s:%s", name, r.tag ? r.tag : "latest");
}

void prov_capture_finish(struct prov_capture *c)
{
	_cleanup_strvec_ struct strvec tags = {0};
	bool canonical;
	for (size_t i = 0; i < c->images.n; i++) {
		char *t = name_tag(c->images.v[i].ref, &canonical);
		if (canonical)
			free(t);
		else
			strvec_take(&tags, t);
	}
	for (size_t i = c->images.n; i-- > 0;) {
		_cleanup_free_ char *t = name_tag(c->images.v[i].ref, &canonical);
		if (!canonical || strvec_find(&tags, t) < 0) continue;
		image_fini(&c->images.v[i]);
		vec_remove(&c->images, i);
	}
	sort_stable(c->images.v, c->images.n, sizeof *c->images.v);
	sort_stable(c->blobs.v, c->blobs.n, sizeof *c->blobs.v);
	sort_stable(c->git.v, c->git.n, sizeof *c->git.v);
	sort_stable(c->http.v, c->http.n, sizeof *c->http.v);
	sort_stable(c->secrets.v, c->secrets.n, sizeof *c->secrets.v);
	sort_stable(c->ssh.v, c->ssh.n, sizeof *c->ssh.v);
	strvec_sort(&c->locals);
}
