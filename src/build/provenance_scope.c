/* Scopes: which frontend request a reference was made for, and how requests are told: arguments without what belongs to the
 * host or to the client, the context as configSource, inputs and the root request beside it. */
#include "build/bridge.h"
#include "build/provenance.h"
#include "spec/git.h"

#include <string.h>

enum { DEPTH_MAX = 8 };

struct prov_scope *prov_root_new(struct build *b)
{
	struct prov_scope *s = xnew(struct prov_scope);
	s->build = b;
	s->frontend = xstrdup("");
	s->started = time_now();
	id_new(s->invocation);
	return s;
}

char *prov_head(const uint8_t *def, size_t n)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	const Pb__Definition *d = wire_unpack_as(Pb__Definition, pb__definition, def, n, a, NULL);
	if (!d || !d->n_def) return NULL;
	const ProtobufCBinaryData *last = &d->def[d->n_def - 1];
	const Pb__Op *op = wire_unpack_as(Pb__Op, pb__op, last->data, last->len, a, NULL);
	return op && op->n_inputs ? xstrdup(op->inputs[0]->digest) : NULL;
}

static char *head_of(const Pb__Definition *def)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	wire_pack(&def->base, &b);
	return prov_head(b.p, b.n);
}

struct prov_scope *prov_scope_new(struct prov_scope *parent, const char *frontend, const struct strvec *opts,
				  const struct bridge *inputs)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	if (!parent) return NULL;
	struct prov_scope *s = xnew(struct prov_scope);
	s->build = parent->build;
	s->parent = parent;
	s->has_request = true;
	s->frontend = xstrdup(frontend);
	strvec_copy(&s->opts, opts->v, opts->n);
	if (inputs) MAP_EACH(&inputs->inputs, it)
		{
			const Pb__Definition *def = bridge_input(inputs, it->key, a);
			_cleanup_free_ char *head = def ? head_of(def) : NULL;
			if (head) strvec_addf(&s->inputs, "%s=%s", it->key, head);
		}
	strvec_sort(&s->inputs);
	vec_push(&parent->children, s);
	return s;
}

void prov_scope_free(struct prov_scope *s)
{
	if (!s) return;
	for (size_t i = 0; i < s->children.n; i++) prov_scope_free(s->children.v[i]);
	for (size_t i = 0; i < s->captures.n; i++) {
		prov_capture_fini(s->captures.v[i]);
		free(s->captures.v[i]);
	}
	for (size_t i = 0; i < s->images.n; i++) {
		free(s->images.v[i].ref);
		free(s->images.v[i].digest);
		if (s->images.v[i].has_platform) spec_platform_fini(&s->images.v[i].platform);
	}
	vec_fini(&s->children);
	vec_fini(&s->captures);
	vec_fini(&s->images);
	strvec_fini(&s->opts);
	strvec_fini(&s->inputs);
	strvec_fini(&s->heads);
	free(s->frontend);
	free(s);
}

void prov_scope_ref(struct prov_scope *s, struct ref *r)
{
	if (!s || !r || r->scope) return;
	r->scope = s;
	char *head = r->def ? prov_head(r->def, r->def_len) : NULL;
	if (head) strvec_take(&s->heads, head);
}

void prov_ref_done(struct ref *r)
{
	if (!r->scope) return;
	struct prov_capture *c = xnew(struct prov_capture);
	prov_capture_ref(c, r);
	vec_push(&r->scope->captures, c);
}

void prov_scope_image(struct prov_scope *s, const char *identifier, const struct spec_platform *p, const char *digest)
{
	if (!s) return;
	const char *sep = strstr(identifier, "://");
	struct prov_image *i = vec_add(&s->images);
	i->local = !str_starts(identifier, "docker-image://");
	i->ref = xstrdup(sep ? sep + 3 : identifier);
	i->digest = xstrdup(digest ? digest : "");
	i->has_platform = p != NULL;
	if (p) spec_platform_copy(&i->platform, p);
}

/* ---- requests ---- */

void prov_request_free(struct prov_request *r)
{
	if (!r) return;
	for (size_t i = 0; i < r->inputs.n; i++) {
		free(r->inputs.v[i].name);
		prov_request_free(r->inputs.v[i].req);
	}
	vec_fini(&r->inputs);
	prov_request_free(r->root);
	strvec_fini(&r->args);
	free(r->uri);
	free(r->algo);
	free(r->hex);
	free(r->path);
	free(r->frontend);
	free(r);
}

static bool same(const char *a, const char *b) { return !strcmp(a ? a : "", b ? b : ""); }

static bool request_eq(const struct prov_request *a, const struct prov_request *b, bool with_root)
{
	if (!a || !b) return a == b;
	if (!same(a->uri, b->uri) || !same(a->hex, b->hex) || !same(a->path, b->path) || !same(a->frontend, b->frontend))
		return false;
	if (a->args.n != b->args.n || a->inputs.n != b->inputs.n) return false;
	for (size_t i = 0; i < a->args.n; i++)
		if (strcmp(a->args.v[i], b->args.v[i])) return false;
	for (size_t i = 0; i < a->inputs.n; i++)
		if (strcmp(a->inputs.v[i].name, b->inputs.v[i].name) ||
		    !request_eq(a->inputs.v[i].req, b->inputs.v[i].req, true))
			return false;
	return !with_root || request_eq(a->root, b->root, true);
}

static bool host_specific(const char *kv)
{
	static const char *const names[] = {"cgroup-parent=", "image-resolve-mode=", "platform=", "cache-imports=", "attest:"};
	for (size_t i = 0; i < array_len(names); i++)
		if (str_starts(kv, names[i])) return true;
	return false;
}

static void filter_args(const struct strvec *opts, struct strvec *ret)
{
	const char *key = strvec_env_get(opts, "contextkey");
	if (str_empty(key)) key = "context";
	for (size_t i = 0; i < opts->n; i++) {
		const char *kv = opts->v[i], *eq = strchr(kv, '=');
		if (!eq || host_specific(kv)) continue;
		_cleanup_free_ char *k = xstrndup(kv, (size_t)(eq - kv));
		if (strcmp(k, key) && !str_starts(k, "context:")) {
			strvec_add(ret, kv);
			continue;
		}
		_cleanup_free_ char *shown = prov_redact(eq + 1);
		strvec_addf(ret, "%s=%s", k, shown);
	}
	strvec_sort(ret);
}

static void take_arg(struct strvec *args, const char *key)
{
	size_t n = strlen(key);
	for (size_t i = 0; i < args->n; i++) {
		if (strncmp(args->v[i], key, n) || args->v[i][n] != '=') continue;
		free(args->v[i]);
		memmove(&args->v[i], &args->v[i + 1], (args->n - i) * sizeof *args->v); /* with the NULL */
		args->n--;
		return;
	}
}

static void split_digest(const char *digest, struct prov_request *r)
{
	const char *colon = strchr(digest, ':');
	if (!colon) return;
	r->algo = xstrndup(digest, (size_t)(colon - digest));
	r->hex = xstrdup(colon + 1);
}

static void set_context(struct prov_request *r, const char *v, const struct prov_capture *c)
{
	_cleanup_free_ char *full = spec_git_fragment_format(v, true), *bare = spec_git_fragment_format(v, false);
	const char *plain = bare ? bare : v;
	for (size_t i = 0; c && i < c->git.n && !r->uri; i++) {
		if (strcmp(c->git.v[i].url, plain)) continue;
		r->uri = xstrdup(full ? full : v);
		r->algo = xstrdup(strlen(c->git.v[i].commit) == 64 ? "sha256" : "sha1");
		r->hex = xstrdup(c->git.v[i].commit);
	}
	for (size_t i = 0; c && i < c->http.n && !r->uri; i++) {
		if (strcmp(c->http.v[i].url, plain)) continue;
		r->uri = xstrdup(c->http.v[i].url);
		split_digest(c->http.v[i].digest, r);
	}
	_cleanup_free_ char *uri = r->uri ? r->uri : xstrdup(v);
	r->uri = prov_redact(uri);
}

static struct prov_request *request_new(const char *frontend, const struct strvec *opts, const struct prov_capture *c)
{
	struct prov_request *r = xnew(struct prov_request);
	const char *key = "context", *v;
	r->frontend = xstrdup(frontend);
	filter_args(opts, &r->args);
	if ((v = strvec_env_get(&r->args, "contextkey")) && *v)
		key = v;
	else if ((v = strvec_env_get(&r->args, "input:context")) && *v)
		key = "input:context";
	_cleanup_free_ char *k = xstrdup(key);
	if ((v = strvec_env_get(&r->args, k)) && *v) {
		set_context(r, v, c);
		take_arg(&r->args, k);
	}
	if ((v = strvec_env_get(&r->args, "filename")) && *v) {
		r->path = xstrdup(v);
		take_arg(&r->args, "filename");
	}
	return r;
}

/* ---- inputs: who made a definition ---- */

struct walk {
	const struct prov_scope *stack[DEPTH_MAX];
	size_t depth;
};
static struct prov_request *tell(struct walk *w, const struct prov_scope *s, const struct prov_capture *c);

static void producers(struct walk *w, const struct prov_scope *s, const char *head, struct prov_request **found,
		      bool *ambiguous)
{
	bool busy = false;
	for (size_t i = 0; i < w->depth; i++) busy |= w->stack[i] == s;
	if (s->has_request && !busy && strvec_find(&s->heads, head) >= 0) {
		struct prov_request *r = tell(w, s, NULL);
		if (r) {
			prov_request_free(r->root);
			r->root = NULL;
		}
		if (!*found)
			*found = r;
		else {
			*ambiguous |= !request_eq(*found, r, false);
			prov_request_free(r);
		}
	}
	for (size_t i = 0; i < s->children.n; i++) producers(w, s->children.v[i], head, found, ambiguous);
}

static void add_inputs(struct walk *w, const struct prov_scope *s, const struct strvec *inputs, struct prov_request *r)
{
	for (size_t i = 0; i < inputs->n; i++) {
		const char *eq = strchr(inputs->v[i], '=');
		struct prov_request *found = NULL;
		bool ambiguous = false;
		LIST_EACH(&s->build->engine->builds, struct build, b, all)
		{
			if (b->prov) producers(w, b->prov, eq + 1, &found, &ambiguous);
		}
		if (!found || ambiguous) {
			prov_request_free(found);
			continue;
		}
		struct prov_named x = {xstrndup(inputs->v[i], (size_t)(eq - inputs->v[i])), found};
		vec_push(&r->inputs, x);
	}
}

/* The request that a client made first: of the scopes above, the outermost that has one. */
static struct prov_request *root_request(struct walk *w, const struct prov_scope *s, const struct prov_capture *c)
{
	const struct prov_scope *root = s;
	while (root->parent) root = root->parent;
	const struct build *b = root->build;
	_cleanup_strvec_ struct strvec opts = {0}, inputs = {0};
	_cleanup_arena_ struct arena *a = arena_new(0);
	struct prov_request *r;
	bool builtin = !strcmp(b->frontend, "gateway.v0") && str_eq(strvec_env_get(&b->attrs, "source"), "dockerfile.v0");
	if (!*b->frontend && !b->attrs.n && !b->pb->n_frontendinputs) { /* the first frontend that was called then */
		const struct prov_scope *first = s;
		while (first->parent && first->parent->has_request) first = first->parent;
		if (first == s || !first->has_request) return NULL;
		r = request_new(first->frontend, &first->opts, c);
		add_inputs(w, first, &first->inputs, r);
		return r;
	}
	for (size_t i = 0; i < b->attrs.n; i++)
		if (!builtin || !str_starts(b->attrs.v[i], "source=")) strvec_add(&opts, b->attrs.v[i]);
	for (size_t i = 0; i < b->pb->n_frontendinputs; i++) {
		_cleanup_free_ char *head = b->pb->frontendinputs[i]->value ? head_of(b->pb->frontendinputs[i]->value) : NULL;
		if (head) strvec_addf(&inputs, "%s=%s", b->pb->frontendinputs[i]->key, head);
	}
	strvec_sort(&inputs);
	r = request_new(builtin ? "dockerfile.v0" : b->frontend, &opts, c);
	add_inputs(w, s, &inputs, r);
	if (*r->frontend || r->args.n || r->inputs.n) return r;
	prov_request_free(r);
	return NULL;
}

static struct prov_request *tell(struct walk *w, const struct prov_scope *s, const struct prov_capture *c)
{
	if (!s->has_request || w->depth == DEPTH_MAX) return NULL;
	w->stack[w->depth++] = s;
	struct prov_request *r = request_new(s->frontend, &s->opts, c), *root;
	add_inputs(w, s, &s->inputs, r);
	root = root_request(w, s, c);
	if (root && request_eq(root, r, false)) {
		prov_request_free(root);
		root = NULL;
	}
	r->root = root;
	w->depth--;
	return r;
}

struct prov_request *prov_request_of(const struct prov_scope *s, const struct prov_capture *c)
{
	struct walk w = {0};
	return s ? tell(&w, s, c) : NULL;
}

bool prov_request_scrub(struct prov_request *r)
{
	bool out = false;
	if (!r) return false;
	for (size_t i = r->args.n; i-- > 0;) {
		if (!str_starts(r->args.v[i], "build-arg:") && !str_starts(r->args.v[i], "label:")) continue;
		_cleanup_free_ char *k = xstrndup(r->args.v[i], strcspn(r->args.v[i], "="));
		take_arg(&r->args, k);
		out = true;
	}
	for (size_t i = 0; i < r->inputs.n; i++) out |= prov_request_scrub(r->inputs.v[i].req);
	return prov_request_scrub(r->root) | out;
}
