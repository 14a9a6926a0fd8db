/* ResolveSourceMeta and ResolveImageConfig: what a name means now. Policies are asked first; then a vertex of the build shows the look-up.
 * A call keeps a copy of its request: policies change the source in it, and the answer echoes what it has become. */
#include "build/bridge.h"
#include "build/source_policy.h"
#include "build/provenance.h"

#include <string.h>

struct meta_call {
	struct bridge_call c;
	struct arena *arena; /* of req, src and what they point at */
	Gateway__ResolveSourceMetaRequest *req;
	char *asked_for; /* the identifier as it came */
	struct source_rules rules;
	struct source_ask *ask;
	struct ops_image_get *get;
	struct ops_http_get *http;
	struct ops_git_get *git;
	struct build_vertex *vertex;
	char *ref; /* of an image */
	bool has_asked;
	struct spec_platform asked; /* the platform that was asked for */
	bool legacy; /* ResolveImageConfig */
	bool quiet;  /* for a policy: it is not noted as used */
	struct llb_source src;
	struct buf suffix;
};

static void meta_free(struct meta_call *m)
{
	if (m->has_asked) spec_platform_fini(&m->asked);
	source_rules_fini(&m->rules);
	free(m->asked_for);
	free(m->ref);
	buf_fini(&m->suffix);
	arena_free(m->arena);
}

static void stop(struct bridge_call *c)
{
	struct meta_call *m = (struct meta_call *)c;
	if (c->busy) {
		if (m->get) ops_image_get_cancel(m->get);
		if (m->http) ops_http_get_cancel(m->http);
		if (m->git) ops_git_get_cancel(m->git);
		return;
	}
	if (m->ask) source_ask_cancel(m->ask);
	meta_free(m);
}

/* The message points into the call: reply before it goes. */
static void reply(struct meta_call *m, const ProtobufCMessage *message)
{
	list_del(&m->c.link);
	m->c.reply.done(m->c.reply.arg, message, NULL);
	meta_free(m);
	free(m);
}

static bool no_config(const struct meta_call *m) { return m->req->image && m->req->image->noconfig; }

static void show(struct meta_call *m, const struct spec_platform *p)
{
	const char *name = m->req->logname;
	_cleanup_free_ char *shown = *name ? xstrdup(name) : xasprintf("resolve image config for %s", m->asked_for);
	_cleanup_free_ char *pid = spec_platform_format(p), *id = xasprintf("%s%s", m->asked_for, pid);
	m->vertex = build_vertex_start(m->c.bridge->build, id, shown);
}

static Gateway__Blob *blob_message(struct arena *a, const struct ops_chain_blob *b)
{
	Gateway__Blob *x = llb_new(a, Gateway__Blob, gateway__blob__init);
	x->descriptor = llb_new(a, Gateway__Descriptor, gateway__descriptor__init);
	x->descriptor->media_type = b->media_type;
	x->descriptor->digest = b->digest;
	x->descriptor->size = b->size;
	for (size_t i = 0; i < b->annotations.n; i++) {
		const char *kv = b->annotations.v[i], *eq = strchr(kv, '=');
		Gateway__Descriptor__AnnotationsEntry *en =
			llb_new(a, Gateway__Descriptor__AnnotationsEntry, gateway__descriptor__annotations_entry__init);
		en->key = arena_strndup(a, kv, (size_t)(eq - kv));
		en->value = (char *)eq + 1;
		LLB_PUSH(a, x->descriptor->n_annotations, x->descriptor->annotations, en);
	}
	x->data = (ProtobufCBinaryData){b->len, b->data};
	return x;
}

/* Borrows from c. */
static Gateway__AttestationChain *chain_message(struct arena *a, const struct ops_chain *c)
{
	Gateway__AttestationChain *x = llb_new(a, Gateway__AttestationChain, gateway__attestation_chain__init);
	x->root = c->root;
	if (c->image_manifest) x->imagemanifest = c->image_manifest;
	if (c->attestation_manifest) x->attestationmanifest = c->attestation_manifest;
	x->signaturemanifests = (const char **)c->signatures.v;
	x->n_signaturemanifests = c->signatures.n;
	for (size_t i = 0; i < c->blobs.n; i++) {
		Gateway__AttestationChain__BlobsEntry *en =
			llb_new(a, Gateway__AttestationChain__BlobsEntry, gateway__attestation_chain__blobs_entry__init);
		en->key = c->blobs.v[i].digest;
		en->value = blob_message(a, &c->blobs.v[i]);
		LLB_PUSH(a, x->n_blobs, x->blobs, en);
	}
	return x;
}

static void got_image(void *arg, struct ops_image *image, const struct err *e)
{
	struct meta_call *m = arg;
	m->c.busy = false;
	m->get = NULL;
	if (m->c.ended) {
		meta_free(m);
		free(m);
		return;
	}
	build_vertex_end(m->vertex, e);
	if (e) {
		struct err wrapped = ERR_INIT;
		err_copy(&wrapped, e);
		err_wrap(&wrapped, "failed to resolve source metadata for %s", m->ref);
		bridge_call_end(&m->c, NULL, &wrapped);
		err_fini(&wrapped);
		return;
	}
	if (!m->quiet) prov_scope_image(m->c.bridge->scope, m->req->source->identifier, m->has_asked ? &m->asked : NULL, image->top_digest);
	ProtobufCBinaryData config = {image->config_len, (uint8_t *)image->config};
	if (m->legacy) {
		Gateway__ResolveImageConfigResponse r = GATEWAY__RESOLVE_IMAGE_CONFIG_RESPONSE__INIT;
		r.digest = image->top_digest;
		r.config = config;
		r.ref = m->ref;
		reply(m, &r.base);
		return;
	}
	Gateway__ResolveSourceImageResponse img = GATEWAY__RESOLVE_SOURCE_IMAGE_RESPONSE__INIT;
	img.digest = image->top_digest;
	if (!no_config(m)) img.config = config;
	if (image->chain) img.attestationchain = chain_message(m->arena, image->chain);
	Gateway__ResolveSourceMetaResponse r = GATEWAY__RESOLVE_SOURCE_META_RESPONSE__INIT;
	r.source = m->req->source;
	r.image = &img;
	reply(m, &r.base);
}

static void platform_of(const struct build *build, const Pb__Platform *p, struct spec_platform *ret)
{
	if (!p || !*p->os) {
		spec_platform_copy(ret, &build->engine->conf.platforms[0]);
		return;
	}
	llb_platform_get(p, ret);
	spec_platform_normalize(ret);
}

static const char *image_name(const struct meta_call *m)
{
	static const char *const scheme[] = {"docker-image://", "oci-layout://"};
	const char *id = m->req->source->identifier;
	for (size_t i = 0; i < array_len(scheme); i++)
		if (str_starts(id, scheme[i])) return id + strlen(scheme[i]);
	return NULL;
}

static const char *attr(const Pb__SourceOp *op, const char *key)
{
	for (size_t i = 0; i < op->n_attrs; i++)
		if (!strcmp(op->attrs[i]->key, key)) return op->attrs[i]->value;
	return "";
}

static void resolve_image(struct meta_call *m)
{
	struct build *build = m->c.bridge->build;
	Pb__SourceOp *op = m->req->source;
	bool oci = str_starts(op->identifier, "oci-layout://");
	struct spec_platform p;
	struct err e = ERR_INIT;
	_cleanup_spec_ref_ struct spec_ref ref = {0};
	if (spec_ref_parse_tagged(image_name(m), &ref, &e) < 0) {
		bridge_call_end(&m->c, NULL, &e);
		err_fini(&e);
		return;
	}
	platform_of(build, m->req->platform, &p);
	m->ref = spec_ref_format(&ref);
	op->identifier = arena_printf(m->arena, "%s://%s", oci ? "oci-layout" : "docker-image", m->ref);
	m->has_asked = m->req->platform && *m->req->platform->os;
	if (m->has_asked) spec_platform_copy(&m->asked, &p);
	show(m, &p);
	const char *sessions[OPS_SESSIONS_MAX];
	const char *mode = m->req->resolvemode;
	struct ops_image_req req = {.ref = m->ref, .platform = &p, .no_config = no_config(m), .sessions = sessions};
	if (oci) {
		req.oci_store = attr(op, "oci.store");
		req.oci_session = attr(op, "oci.session");
	}
	if (m->req->image) {
		req.chain = m->req->image->attestationchain || m->req->image->n_resolveattestations;
		req.predicates = m->req->image->resolveattestations;
		req.n_predicates = m->req->image->n_resolveattestations;
	}
	req.n_sessions = build_sessions(build, sessions, OPS_SESSIONS_MAX);
	ops_span_build(&req.span, build->engine->conf.env, build, NULL, NULL);
	req.mode = !strcmp(mode, "pull") ? LLB_RESOLVE_PULL : !strcmp(mode, "local") ? LLB_RESOLVE_LOCAL : LLB_RESOLVE_DEFAULT;
	m->c.busy = true;
	m->get = ops_image_get(build->engine->conf.env, &req, got_image, m);
	spec_platform_fini(&p);
}

/* ---- sources that are no images ---- */

/* The answer of a get has come: false when nobody waits for it any more. */
static bool still_wanted(struct meta_call *m, const struct err *e)
{
	m->c.busy = false;
	if (m->c.ended) {
		meta_free(m);
		free(m);
		return false;
	}
	build_vertex_end(m->vertex, e);
	if (!e) return true;
	bridge_call_end(&m->c, NULL, e);
	return false;
}

static void got_http(void *arg, struct ops_known *known, const char *sum, const struct err *e)
{
	struct meta_call *m = arg;
	m->http = NULL;
	if (!still_wanted(m, e)) return;
	Gateway__ResolveSourceHTTPResponse http = GATEWAY__RESOLVE_SOURCE_HTTPRESPONSE__INIT;
	Gateway__ChecksumResponse checksum = GATEWAY__CHECKSUM_RESPONSE__INIT;
	Google__Timestamp modified = GOOGLE__TIMESTAMP__INIT;
	http.checksum = known->digest;
	http.filename = known->name;
	if (ops_http_date(known->extra, &modified.seconds)) http.lastmodified = &modified;
	if (sum) {
		checksum.digest = (char *)sum;
		checksum.suffix = (ProtobufCBinaryData){m->suffix.n, m->suffix.p};
		http.checksumresponse = &checksum;
	}
	Gateway__ResolveSourceMetaResponse r = GATEWAY__RESOLVE_SOURCE_META_RESPONSE__INIT;
	r.source = m->req->source;
	r.http = &http;
	reply(m, &r.base);
}

static int checksum_request(const Gateway__ResolveSourceMetaRequest *req, struct ops_http_req *ret, struct err *e)
{
	static const enum ops_sum sum[] = {OPS_SUM_SHA256, OPS_SUM_SHA384, OPS_SUM_SHA512};
	const Gateway__ChecksumRequest *c = req->http ? req->http->checksumrequest : NULL;
	if (!c) return 0;
	if (c->suffix.len > 4096) return err_set(e, CODE_UNKNOWN, "http checksum request suffix exceeds max size 4096");
	if ((size_t)c->algo >= array_len(sum))
		return err_set(e, CODE_UNKNOWN, "unsupported checksum algorithm %d", (int)c->algo);
	ret->sum = sum[c->algo];
	ret->suffix = c->suffix.data;
	ret->suffix_len = c->suffix.len;
	return 0;
}

static void resolve_http(struct meta_call *m)
{
	struct build *build = m->c.bridge->build;
	const char *sessions[OPS_SESSIONS_MAX];
	struct ops_http_req hr = {.src = &m->src, .sessions = sessions, .build = build};
	struct err e = ERR_INIT;
	hr.n_sessions = build_sessions(build, sessions, OPS_SESSIONS_MAX);
	if (checksum_request(m->req, &hr, &e) < 0) {
		build_vertex_end(m->vertex, &e);
		bridge_call_end(&m->c, NULL, &e);
		err_fini(&e);
		return;
	}
	buf_add(&m->suffix, hr.suffix, hr.suffix_len);
	m->c.busy = true;
	m->http = ops_http_get(build->engine->conf.env, &hr, got_http, m);
}

static void got_git(void *arg, struct ops_known *known, struct snap *checkout, const struct err *e)
{
	struct meta_call *m = arg;
	m->git = NULL;
	if (!still_wanted(m, e)) return;
	Gateway__ResolveSourceGitResponse git = GATEWAY__RESOLVE_SOURCE_GIT_RESPONSE__INIT;
	git.checksum = known->digest;
	git.ref = known->name;
	/* With its repository kept, a tag stays a tag: only who reads the objects is told its commit. */
	if (!m->src.git.keep_git_dir || known->commit_object) git.commitchecksum = known->extra;
	git.commitobject = (ProtobufCBinaryData){known->commit_len, known->commit_object};
	git.tagobject = (ProtobufCBinaryData){known->tag_len, known->tag_object};
	Gateway__ResolveSourceMetaResponse r = GATEWAY__RESOLVE_SOURCE_META_RESPONSE__INIT;
	r.source = m->req->source;
	r.git = &git;
	reply(m, &r.base);
}

static void resolve_git(struct meta_call *m)
{
	struct build *build = m->c.bridge->build;
	const char *sessions[OPS_SESSIONS_MAX];
	struct ops_git_req gr = {
		.src = &m->src, .sessions = sessions, .build = build, .objects = m->req->git && m->req->git->returnobject};
	gr.n_sessions = build_sessions(build, sessions, OPS_SESSIONS_MAX);
	m->c.busy = true;
	m->git = ops_git_get(build->engine->conf.env, &gr, got_git, m);
}

static void resolve_other(struct meta_call *m)
{
	struct err e = ERR_INIT;
	if (m->legacy) {
		err_set(&e, CODE_UNKNOWN, "ref mutated by policy to non-image: %s -> %s", m->asked_for, m->req->source->identifier);
	} else if (llb_source_parse(m->req->source, m->req->platform, m->arena, &m->src, &e) >= 0) {
		show(m, &m->c.bridge->build->engine->conf.platforms[0]);
		if (m->src.scheme == LLB_HTTP) {
			resolve_http(m);
		} else if (m->src.scheme == LLB_GIT) {
			resolve_git(m);
		} else {
			Gateway__ResolveSourceMetaResponse res = GATEWAY__RESOLVE_SOURCE_META_RESPONSE__INIT;
			res.source = m->req->source;
			build_vertex_end(m->vertex, NULL);
			reply(m, &res.base);
		}
		return;
	}
	bridge_call_end(&m->c, NULL, &e);
	err_fini(&e);
}

/* ---- policies, and the calls ---- */

static void judged(void *arg, bool changed, const struct err *e)
{
	struct meta_call *m = arg;
	m->ask = NULL;
	if (e) {
		struct err wrapped = ERR_INIT;
		err_copy(&wrapped, e);
		err_wrap(&wrapped, "could not resolve image due to policy");
		bridge_call_end(&m->c, NULL, &wrapped);
		err_fini(&wrapped);
	} else if (image_name(m)) {
		resolve_image(m);
	} else {
		resolve_other(m);
	}
}

static int copy_request(struct meta_call *m, const Gateway__ResolveSourceMetaRequest *req, struct err *e)
{
	_cleanup_buf_ struct buf packed = BUF_INIT;
	wire_pack(&req->base, &packed);
	m->arena = arena_new(0);
	m->req = wire_unpack_as(Gateway__ResolveSourceMetaRequest, gateway__resolve_source_meta_request, packed.p, packed.n, m->arena, e);
	if (!m->req || source_rules_copy(&m->rules, req->sourcepolicies, req->n_sourcepolicies, e) < 0) return -1;
	m->asked_for = xstrdup(m->req->source->identifier);
	return 0;
}

enum { LEGACY = 1, FOR_POLICY = 2 };

static void resolve(struct bridge *b, const Gateway__ResolveSourceMetaRequest *req, int flags, struct build_reply r)
{
	struct meta_call *m = (struct meta_call *)bridge_call_new(b, r, sizeof *m);
	struct err e = ERR_INIT;
	m->c.stop = stop;
	m->legacy = flags & LEGACY;
	m->quiet = flags & FOR_POLICY;
	if (copy_request(m, req, &e) < 0) {
		bridge_call_end(&m->c, NULL, &e);
		err_fini(&e);
	} else if (!source_policy_wanted(b->build, &m->rules)) {
		judged(m, false, NULL);
	} else {
		/* When it is judged at once the call may be gone by now. */
		struct source_ask *ask =
			source_ask_start(b->build, &m->rules, m->req->source, m->req->platform, m->arena, !m->quiet, judged, m);
		if (ask) m->ask = ask;
	}
}

void bridge_resolve_source_meta(struct bridge *b, const Gateway__ResolveSourceMetaRequest *req, struct build_reply r)
{
	if (!req->source)
		bridge_refuse(r, CODE_INVALID_ARGUMENT, "source is required");
	else
		resolve(b, req, 0, r);
}

void bridge_resolve_for_policy(struct bridge *b, const Gateway__ResolveSourceMetaRequest *req, struct build_reply r)
{
	resolve(b, req, FOR_POLICY, r);
}

/* The older form of the question, for images only. */
void bridge_resolve_image_config(struct bridge *b, const Gateway__ResolveImageConfigRequest *req, struct build_reply r)
{
	bool oci = req->resolvertype != 0;
	_cleanup_free_ char *id = xasprintf("%s://%s", oci ? "oci-layout" : "docker-image", req->ref);
	Pb__SourceOp src = PB__SOURCE_OP__INIT;
	Pb__SourceOp__AttrsEntry attr[2] = {PB__SOURCE_OP__ATTRS_ENTRY__INIT, PB__SOURCE_OP__ATTRS_ENTRY__INIT}, *attrs[2] = {&attr[0], &attr[1]};
	Gateway__ResolveSourceMetaRequest meta = GATEWAY__RESOLVE_SOURCE_META_REQUEST__INIT;
	src.identifier = id;
	if (oci) {
		attr[0].key = "oci.session";
		attr[0].value = req->sessionid;
		attr[1].key = "oci.store";
		attr[1].value = req->storeid;
		src.attrs = attrs;
		src.n_attrs = array_len(attrs);
	}
	meta.source = &src;
	meta.platform = req->platform;
	meta.logname = req->logname;
	meta.resolvemode = req->resolvemode;
	meta.sourcepolicies = req->sourcepolicies;
	meta.n_sourcepolicies = req->n_sourcepolicies;
	resolve(b, &meta, LEGACY, r);
}
