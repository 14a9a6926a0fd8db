/* ResolveSourceMeta and ResolveImageConfig: what a name means now. A vertex of the build shows it. */
#include "build/bridge.h"
#include "build/provenance.h"

#include <string.h>

struct meta_call {
	struct bridge_call c;
	struct ops_image_get *get;
	struct ops_http_get *http;
	struct ops_git_get *git;
	struct build_vertex *vertex;
	char *identifier, *ref;
	bool has_asked;
	struct spec_platform asked; /* the platform that was asked for */
	bool legacy, no_config;
	struct arena *arena; /* NULL, or of src and op */
	struct llb_source src;
	Pb__SourceOp *op;
	struct buf suffix;
};

static void meta_free(struct meta_call *m)
{
	if (m->has_asked) spec_platform_fini(&m->asked);
	free(m->identifier);
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
	prov_scope_image(m->c.bridge->scope, m->identifier, m->has_asked ? &m->asked : NULL, image->top_digest);
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
	if (!m->no_config) img.config = config;
	Pb__SourceOp src = PB__SOURCE_OP__INIT;
	src.identifier = m->identifier;
	Gateway__ResolveSourceMetaResponse r = GATEWAY__RESOLVE_SOURCE_META_RESPONSE__INIT;
	r.source = m->op ? m->op : &src;
	r.image = &img;
	reply(m, &r.base);
}

struct image_question {
	const char *name; /* behind "scheme://" */
	const Pb__Platform *platform;
	const char *log_name, *mode;
	bool no_config, legacy;
	const char *store, *session;                  /* store NULL: a registry's image */
	const Gateway__ResolveSourceMetaRequest *req; /* its source is echoed; NULL: by the name */
};

static void platform_of(const struct build *build, const Pb__Platform *p, struct spec_platform *ret)
{
	if (!p || !*p->os) {
		spec_platform_copy(ret, &build->engine->conf.platforms[0]);
		return;
	}
	llb_platform_get(p, ret);
	spec_platform_normalize(ret);
}

/* A copy of the source as it was asked for, to be echoed. */
static void keep_op(struct meta_call *m, const Pb__SourceOp *op)
{
	_cleanup_buf_ struct buf packed = BUF_INIT;
	m->arena = arena_new(0);
	wire_pack(&op->base, &packed);
	m->op = wire_unpack_as(Pb__SourceOp, pb__source_op, packed.p, packed.n, m->arena, NULL);
}

static void resolve_image(struct bridge *b, const struct image_question *q, struct build_reply r)
{
	struct build *build = b->build;
	struct spec_platform p;
	struct err e = ERR_INIT;
	_cleanup_spec_ref_ struct spec_ref ref = {0};
	if (spec_ref_parse_tagged(q->name, &ref, &e) < 0) {
		r.done(r.arg, NULL, &e);
		err_fini(&e);
		return;
	}
	platform_of(build, q->platform, &p);
	struct meta_call *m = (struct meta_call *)bridge_call_new(b, r, sizeof *m);
	m->c.stop = stop;
	m->c.busy = true;
	m->ref = spec_ref_format(&ref);
	m->identifier = xasprintf("%s://%s", q->store ? "oci-layout" : "docker-image", m->ref);
	m->has_asked = q->platform && *q->platform->os;
	if (m->has_asked) spec_platform_copy(&m->asked, &p);
	m->legacy = q->legacy;
	m->no_config = q->no_config;
	if (q->req && q->store) keep_op(m, q->req->source);
	_cleanup_free_ char *shown =
		*q->log_name ? xstrdup(q->log_name) : xasprintf("resolve image config for %s", m->identifier);
	_cleanup_free_ char *pid = spec_platform_format(&p), *id = xasprintf("%s%s", m->identifier, pid);
	m->vertex = build_vertex_start(build, id, shown);
	const char *sessions[OPS_SESSIONS_MAX];
	struct ops_image_req req = {.ref = m->ref,
				    .platform = &p,
				    .no_config = q->no_config,
				    .sessions = sessions,
				    .oci_store = q->store,
				    .oci_session = q->session};
	req.n_sessions = build_sessions(build, sessions, OPS_SESSIONS_MAX);
	req.mode = !strcmp(q->mode, "pull")    ? LLB_RESOLVE_PULL
		   : !strcmp(q->mode, "local") ? LLB_RESOLVE_LOCAL
					       : LLB_RESOLVE_DEFAULT;
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
	r.source = m->op;
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

static void resolve_http(struct meta_call *m, const Gateway__ResolveSourceMetaRequest *req)
{
	struct build *build = m->c.bridge->build;
	const char *sessions[OPS_SESSIONS_MAX];
	struct ops_http_req hr = {.src = &m->src, .sessions = sessions, .build = build};
	struct err e = ERR_INIT;
	hr.n_sessions = build_sessions(build, sessions, OPS_SESSIONS_MAX);
	if (checksum_request(req, &hr, &e) < 0) {
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
	r.source = m->op;
	r.git = &git;
	reply(m, &r.base);
}

static void resolve_git(struct meta_call *m, const Gateway__ResolveSourceMetaRequest *req)
{
	struct build *build = m->c.bridge->build;
	const char *sessions[OPS_SESSIONS_MAX];
	struct ops_git_req gr = {
		.src = &m->src, .sessions = sessions, .build = build, .objects = req->git && req->git->returnobject};
	gr.n_sessions = build_sessions(build, sessions, OPS_SESSIONS_MAX);
	m->c.busy = true;
	m->git = ops_git_get(build->engine->conf.env, &gr, got_git, m);
}

/* A call with a vertex of its own and the source parsed. NULL: refused. */
static struct meta_call *meta_new(struct bridge *b, const Gateway__ResolveSourceMetaRequest *req, struct build_reply r)
{
	struct build *build = b->build;
	_cleanup_arena_ struct arena *a = arena_new(0);
	_cleanup_buf_ struct buf packed = BUF_INIT;
	struct llb_source src;
	struct err e = ERR_INIT;
	wire_pack(&req->source->base, &packed);
	Pb__SourceOp *op = wire_unpack_as(Pb__SourceOp, pb__source_op, packed.p, packed.n, a, &e);
	if (!op || llb_source_parse(op, req->platform, a, &src, &e) < 0) {
		r.done(r.arg, NULL, &e);
		err_fini(&e);
		return NULL;
	}
	struct meta_call *m = (struct meta_call *)bridge_call_new(b, r, sizeof *m);
	m->c.stop = stop;
	m->arena = take_ptr(a);
	m->src = src;
	m->op = op;
	_cleanup_free_ char *pid = spec_platform_format(&build->engine->conf.platforms[0]);
	_cleanup_free_ char *shown =
		*req->logname ? xstrdup(req->logname) : xasprintf("resolve image config for %s", op->identifier);
	_cleanup_free_ char *id = xasprintf("%s%s", op->identifier, pid);
	m->vertex = build_vertex_start(build, id, shown);
	return m;
}

static void resolve_other(struct bridge *b, const Gateway__ResolveSourceMetaRequest *req, struct build_reply r)
{
	struct meta_call *m = meta_new(b, req, r);
	if (!m) return;
	switch (m->src.scheme) {
	case LLB_HTTP: resolve_http(m, req); break;
	case LLB_GIT: resolve_git(m, req); break;
	default: {
		Gateway__ResolveSourceMetaResponse res = GATEWAY__RESOLVE_SOURCE_META_RESPONSE__INIT;
		res.source = m->op;
		build_vertex_end(m->vertex, NULL);
		reply(m, &res.base);
	}
	}
}

static const char *attr(const Pb__SourceOp *op, const char *key)
{
	for (size_t i = 0; i < op->n_attrs; i++)
		if (!strcmp(op->attrs[i]->key, key)) return op->attrs[i]->value;
	return "";
}

void bridge_resolve_source_meta(struct bridge *b, const Gateway__ResolveSourceMetaRequest *req, struct build_reply r)
{
	if (!req->source) {
		bridge_refuse(r, CODE_INVALID_ARGUMENT, "source is required");
		return;
	}
	static const char *const scheme[] = {"docker-image://", "oci-layout://"};
	struct image_question q = {.platform = req->platform, .log_name = req->logname, .mode = req->resolvemode, .req = req};
	for (size_t i = 0; i < array_len(scheme); i++)
		if (str_starts(req->source->identifier, scheme[i])) q.name = req->source->identifier + strlen(scheme[i]);
	if (!q.name) {
		resolve_other(b, req, r);
		return;
	}
	q.no_config = req->image && req->image->noconfig;
	if (str_starts(req->source->identifier, "oci-layout://")) {
		q.store = attr(req->source, "oci.store");
		q.session = attr(req->source, "oci.session");
	}
	resolve_image(b, &q, r);
}

void bridge_resolve_image_config(struct bridge *b, const Gateway__ResolveImageConfigRequest *req, struct build_reply r)
{
	struct image_question q = {.name = req->ref,
				   .platform = req->platform,
				   .log_name = req->logname,
				   .mode = req->resolvemode,
				   .legacy = true};
	if (req->resolvertype != 0) { /* an OCI layout */
		q.store = req->storeid;
		q.session = req->sessionid;
	}
	resolve_image(b, &q, r);
}
