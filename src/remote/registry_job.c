/* A cache in a registry: a tag of a repository. */
#include "remote/place.h"
#include "spec/media.h"

#include <string.h>

static int init(struct remote_place *p, bool import, struct err *e)
{
	const char *ref = remote_attr(p, "ref");
	if (str_empty(ref)) return err_set(e, CODE_UNKNOWN, "missing ref");
	if (spec_ref_parse_tagged(ref, &p->ref, e) < 0 || remote_attr_bool(p, "registry.insecure", &p->insecure, e) < 0)
		return -1;
	if (!p->insecure) p->repo = spec_ref_name(&p->ref);
	return import ? 0 : remote_formats(p, e);
}

static int get_doc(struct remote_place *p, const struct reg_desc *d, size_t max, struct buf *ret, struct err *e)
{
	const char *type = d->media_type ? d->media_type : "";
	if (spec_media_is_manifest(type) || spec_media_is_index(type))
		return reg_fetch_manifest(&p->io, &p->ref, d, ret, NULL, e);
	return reg_fetch_bytes(&p->io, &p->ref, d, max, ret, e);
}

static int read_cache(struct remote_place *p, struct cache_graph *g, struct err *e)
{
	static const struct remote_docs docs = {get_doc};
	_cleanup_reg_desc_ struct reg_desc d = {0};
	_cleanup_buf_ struct buf body = BUF_MAX(REG_MANIFEST_MAX);
	if (reg_resolve(&p->io, &p->ref, &d, &body, e) < 0) return -1;
	if (d.size > CACHE_CONFIG_MAX)
		return err_set(e, CODE_UNKNOWN, "blob %s is too large (%lld > %d)", d.digest, (long long)d.size,
			       CACHE_CONFIG_MAX);
	if (!body.n && reg_fetch_manifest(&p->io, &p->ref, &d, &body, NULL, e) < 0) return -1;
	return remote_manifest_read(p, &docs, &body, g, e);
}

static int have(struct remote_place *p, const struct cache_blob *b, struct err *e)
{
	_cleanup_err_ struct err why = ERR_INIT;
	if (reg_has_blob(&p->io, &p->ref, b->digest, &why) >= 0) return 1;
	return why.code == CODE_NOT_FOUND ? 0 : err_move(e, &why);
}

static int rewind_to(void *ctx, struct err *e) { return blob_ingest_reset(ctx, e); }

static int fetch(struct remote_place *p, const struct cache_blob *b, struct blob_ingest *to, struct err *e)
{
	struct reg_desc d = {b->digest, b->media_type, b->size};
	struct reg_sink sink = {blob_ingest_out, rewind_to, to};
	return reg_fetch_blob(&p->io, &p->ref, &d, 0, &sink, e);
}

static int put(struct remote_place *p, const struct cache_blob *b, struct err *e)
{
	_cleanup_close_ int fd = blob_open(p->blobs, b->digest, e);
	if (fd < 0) return -1;
	struct reg_body body = reg_body_fd(&fd);
	struct reg_desc d = {b->digest, b->media_type, b->size};
	enum reg_pushed how;
	return reg_push_blob(&p->io, &p->ref, &d, &body, p->mount_from, &how, e);
}

static ssize_t read_buf(void *ctx, uint64_t offset, void *to, size_t n, struct err *e)
{
	const struct buf *b = ctx;
	n = min_of((uint64_t)n, b->n - offset);
	memcpy(to, b->p + offset, n);
	return (ssize_t)n;
}

static int push_docs(struct remote_place *p, struct remote_manifest *m, struct err *e)
{
	struct reg_body body = {read_buf, &m->config};
	struct reg_desc d = {m->config_digest, (char *)SPEC_BUILDKIT_CACHE_CONFIG, (int64_t)m->config.n};
	enum reg_pushed how;
	const char *what = p->image_manifest ? "writing cache image manifest" : "writing cache manifest";
	remote_note(p, false, "writing config %s", m->config_digest);
	int r = reg_push_blob(&p->io, &p->ref, &d, &body, NULL, &how, e);
	remote_note(p, true, "writing config %s", m->config_digest);
	if (r < 0) return err_wrap(e, "error writing config blob");
	remote_note(p, false, "%s %s", what, m->digest);
	r = reg_push_manifest(&p->io, &p->ref, m->media_type, m->body.p, m->body.n, &how, NULL, e);
	remote_note(p, true, "%s %s", what, m->digest);
	if (r < 0) return err_wrap(e, "error writing manifest blob");
	return 0;
}

static int finish(struct remote_place *p, struct cache_graph *g, struct strvec *response, struct err *e)
{
	struct remote_manifest m = {0};
	int r = remote_manifest_make(p, g, &m, e);
	if (r > 0) r = push_docs(p, &m, e);
	if (r >= 0 && m.body.n) remote_manifest_response(&m, response);
	remote_manifest_fini(&m);
	return r;
}

const struct remote_kind remote_registry = {.type = "registry",
					    .vertex = "exporting cache to registry",
					    .init = init,
					    .read = read_cache,
					    .have = have,
					    .fetch = fetch,
					    .put = put,
					    .finish = finish,
					    .lazy = true};
