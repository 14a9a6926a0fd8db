#include "build/collect_job.h"

#include <jansson.h>

enum { MANIFEST_MAX = 4 << 20 };

struct names {
	struct blob_store *blobs;
	struct map *known;
	struct strvec todo;
};

static void name(struct names *n, const json_t *descriptor)
{
	const char *digest = json_string_value(json_object_get(descriptor, "digest"));
	if (!digest || !digest_valid(digest) || map_has(n->known, digest)) return;
	map_put(n->known, digest, n->known);
	strvec_add(&n->todo, digest);
}

/* Blobs that are no JSON, or too long for a manifest, name nothing. */
static void look_into(struct names *n, const char *digest)
{
	_cleanup_free_ uint8_t *p = NULL;
	size_t len, i;
	json_t *m;
	if (blob_read(n->blobs, digest, MANIFEST_MAX, &p, &len, NULL) < 0 || !len || *p != '{') return;
	json_t *j = json_loadb((const char *)p, len, 0, NULL);
	name(n, json_object_get(j, "config"));
	json_array_foreach(json_object_get(j, "manifests"), i, m) name(n, m);
	/* The statements of an attestation manifest are its layers; they are asked for. Layers of files are not kept for
	 * history. */
	json_array_foreach(json_object_get(j, "layers"), i, m)
	{
		const char *type = json_string_value(json_object_get(m, "mediaType"));
		if (type && str_starts(type, "application/vnd.in-toto")) name(n, m);
	}
	json_decref(j);
}

static void close_over(struct blob_store *blobs, struct map *digests)
{
	struct names n = {.blobs = blobs, .known = digests};
	MAP_EACH(digests, it) strvec_add(&n.todo, it->key);
	for (size_t i = 0; i < n.todo.n; i++) look_into(&n, n.todo.v[i]);
	strvec_fini(&n.todo);
}

static int found(void *ctx, const char *digest, int64_t bytes, int64_t mtime, struct err *e)
{
	struct collect_scan *c = ctx;
	bool drop = map_has(&c->dropped, digest) || (c->all && mtime <= c->before);
	if (drop && !map_has(&c->wanted, digest)) strvec_add(&c->found, digest);
	return 0;
}

int collect_scan(struct collect_scan *c, struct err *e)
{
	close_over(c->blobs, &c->wanted);
	close_over(c->blobs, &c->dropped);
	return blob_list(c->blobs, found, c, e);
}
