/* A cache in the client's folder: an OCI layout that the client serves in its session. It writes index.json itself, from the
 * descriptor that the response carries. */
#include "remote/place.h"
#include "spec/media.h"

#include <string.h>

static int init(struct remote_place *p, bool import, struct err *e)
{
	const char *dest = remote_attr(p, "dest"), *src = remote_attr(p, "src"), *digest = remote_attr(p, "digest");
	if (import) {
		if (str_empty(digest)) return err_set(e, CODE_UNKNOWN, "local cache importer requires explicit digest");
		if (str_empty(src)) return err_set(e, CODE_UNKNOWN, "local cache importer requires src");
		if (!digest_valid(digest))
			return err_set(e, CODE_UNKNOWN, "local cache importer: \"%s\" is not a digest", digest);
		return 0;
	}
	if (str_empty(dest) && str_empty(src)) return err_set(e, CODE_UNKNOWN, "local cache exporter requires dest");
	return remote_formats(p, e);
}

/* By way of the blob store, which verifies it. */
static int get_doc(struct remote_place *p, const struct reg_desc *d, size_t max, struct buf *ret, struct err *e)
{
	uint8_t *bytes;
	size_t n;
	if (d->size > (int64_t)max)
		return err_set(e, CODE_UNKNOWN, "blob %s is too large (%lld > %zu)", d->digest, (long long)d->size, max);
	if (blob_ensure(p->blobs, &p->store.source, d->digest, d->size, e) < 0 ||
	    blob_read(p->blobs, d->digest, max, &bytes, &n, e) < 0)
		return -1;
	buf_add(ret, bytes, n);
	free(bytes);
	return 0;
}

static int read_cache(struct remote_place *p, struct cache_graph *g, struct err *e)
{
	static const struct remote_docs docs = {get_doc};
	_cleanup_buf_ struct buf body = BUF_INIT;
	struct reg_desc d = {(char *)remote_attr(p, "digest"), NULL, -1};
	if (get_doc(p, &d, CACHE_CONFIG_MAX, &body, e) < 0) return -1;
	return remote_manifest_read(p, &docs, &body, g, e);
}

static int have(struct remote_place *p, const struct cache_blob *b, struct err *e)
{
	return 0; /* the client's store says so itself when it is written */
}

static int fetch(struct remote_place *p, const struct cache_blob *b, struct blob_ingest *to, struct err *e)
{
	return p->store.source.fetch(&p->store.source, b->digest, b->size, to, e);
}

/* The folder's name goes in a header of the session's calls. */
static int check_name(const struct remote_place *p, struct err *e)
{
	for (const char *s = p->store.name; *s; s++)
		if (*s < 0x20 || *s > 0x7e)
			return err_set(e, CODE_INTERNAL,
				       "header key \"buildkit-attachable-store-id\" contains value with non-printable ASCII "
				       "characters: "
				       "rename the cache's folder (%s)",
				       p->store.name);
	return 0;
}

static int put(struct remote_place *p, const struct cache_blob *b, struct err *e)
{
	return check_name(p, e) < 0 ? -1 : remote_store_put(p, b->digest, b->size, e);
}

static int put_doc(struct remote_place *p, const char *what, const struct buf *b, const char *digest, struct err *e)
{
	remote_note(p, false, "%s %s", what, digest);
	int r = blob_put(p->blobs, b->p, b->n, NULL, e) < 0 ? -1 : remote_store_put(p, digest, (int64_t)b->n, e);
	remote_note(p, true, "%s %s", what, digest);
	return r;
}

static int finish(struct remote_place *p, struct cache_graph *g, struct strvec *response, struct err *e)
{
	struct remote_manifest m = {0};
	int r = remote_manifest_make(p, g, &m, e);
	if (r > 0 && put_doc(p, "writing config", &m.config, m.config_digest, e) < 0)
		r = err_wrap(e, "error writing config blob");
	if (r > 0 &&
	    put_doc(p, p->image_manifest ? "writing cache image manifest" : "writing cache manifest", &m.body, m.digest, e) < 0)
		r = err_wrap(e, "error writing manifest blob");
	if (r > 0) remote_manifest_response(&m, response);
	remote_manifest_fini(&m);
	return r;
}

const struct remote_kind remote_local = {.type = "local",
					 .vertex = "exporting cache to client directory",
					 .init = init,
					 .read = read_cache,
					 .have = have,
					 .fetch = fetch,
					 .put = put,
					 .finish = finish};
