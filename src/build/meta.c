/* ResolveSourceMeta and ResolveImageConfig: what a name means now. A vertex of the build shows it. */
#include "build/bridge.h"

#include <string.h>

struct meta_call {
	struct bridge_call c;
	struct ops_image_get *get;
	struct build_vertex *vertex;
	char *identifier, *ref;
	bool legacy, no_config;
};

static void meta_free(struct meta_call *m)
{
	free(m->identifier);
	free(m->ref);
}

static void stop(struct bridge_call *c)
{
	struct meta_call *m = (struct meta_call *)c;
	if (c->busy) {
		ops_image_get_cancel(m->get);
		return;
	}
	meta_free(m);
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
	ProtobufCBinaryData config = {image->config_len, (uint8_t *)image->config};
	if (m->legacy) {
		Gateway__ResolveImageConfigResponse r = GATEWAY__RESOLVE_IMAGE_CONFIG_RESPONSE__INIT;
		r.digest = image->top_digest;
		r.config = config;
		r.ref = m->ref;
		bridge_call_end(&m->c, &r.base, NULL);
		return;
	}
	Gateway__ResolveSourceImageResponse img = GATEWAY__RESOLVE_SOURCE_IMAGE_RESPONSE__INIT;
	img.digest = image->top_digest;
	if (!m->no_config) img.config = config;
	Pb__SourceOp src = PB__SOURCE_OP__INIT;
	src.identifier = m->identifier;
	Gateway__ResolveSourceMetaResponse r = GATEWAY__RESOLVE_SOURCE_META_RESPONSE__INIT;
	r.source = &src;
	r.image = &img;
	bridge_call_end(&m->c, &r.base, NULL);
}

static void resolve_image(struct bridge *b, const char *identifier, const Pb__Platform *platform, const char *log_name,
			  const char *mode, bool no_config, bool legacy, struct build_reply r)
{
	struct build *build = b->build;
	struct spec_platform p;
	struct err e = ERR_INIT;
	_cleanup_spec_ref_ struct spec_ref ref = {0};
	const char *name = identifier + strlen("docker-image://");
	if (spec_ref_parse_tagged(name, &ref, &e) < 0) {
		r.done(r.arg, NULL, &e);
		err_fini(&e);
		return;
	}
	if (platform && *platform->os) {
		llb_platform_get(platform, &p);
		spec_platform_normalize(&p);
	} else {
		spec_platform_copy(&p, &build->engine->conf.platforms[0]);
	}
	struct meta_call *m = (struct meta_call *)bridge_call_new(b, r, sizeof *m);
	m->c.stop = stop;
	m->c.busy = true;
	m->ref = spec_ref_format(&ref);
	m->identifier = xasprintf("docker-image://%s", m->ref);
	m->legacy = legacy;
	m->no_config = no_config;
	_cleanup_free_ char *shown = *log_name ? xstrdup(log_name) : xasprintf("resolve image config for %s", m->identifier);
	_cleanup_free_ char *pid = spec_platform_format(&p), *id = xasprintf("%s%s", m->identifier, pid);
	m->vertex = build_vertex_start(build, id, shown);
	const char *sessions[OPS_SESSIONS_MAX];
	struct ops_image_req req = {.ref = m->ref, .platform = &p, .no_config = no_config, .sessions = sessions};
	req.n_sessions = build_sessions(build, sessions, OPS_SESSIONS_MAX);
	req.mode = !strcmp(mode, "pull") ? LLB_RESOLVE_PULL : !strcmp(mode, "local") ? LLB_RESOLVE_LOCAL : LLB_RESOLVE_DEFAULT;
	m->get = ops_image_get(build->engine->conf.env, &req, got_image, m);
	spec_platform_fini(&p);
}

void bridge_resolve_source_meta(struct bridge *b, const Gateway__ResolveSourceMetaRequest *req, struct build_reply r)
{
	if (!req->source) {
		bridge_refuse(r, CODE_INVALID_ARGUMENT, "source is required");
		return;
	}
	const char *id = req->source->identifier;
	if (!str_starts(id, "docker-image://")) {
		bridge_refuse(r, CODE_UNIMPLEMENTED, "metadata of sources like %s is not supported yet", id);
		return;
	}
	resolve_image(b, id, req->platform, req->logname, req->resolvemode, req->image && req->image->noconfig, false, r);
}

void bridge_resolve_image_config(struct bridge *b, const Gateway__ResolveImageConfigRequest *req, struct build_reply r)
{
	if (req->resolvertype != 0) {
		bridge_refuse(r, CODE_UNIMPLEMENTED, "oci-layout images are not supported yet");
		return;
	}
	_cleanup_free_ char *id = xasprintf("docker-image://%s", req->ref);
	resolve_image(b, id, req->platform, req->logname, req->resolvemode, false, true, r);
}
