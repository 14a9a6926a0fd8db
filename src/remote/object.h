#ifndef REMOTE_OBJECT_H
#define REMOTE_OBJECT_H
/* Caches in object stores: the document is an object by name, each layer one by digest. What the stores differ in is how a
 * request is addressed and signed. Jobs; no loop. */
#include "remote/place.h"

struct object_call {
	const char *method, *key; /* key: path within the bucket or container, not yet escaped; "": the container itself */
	const char *query;        /* "restype=container", already escaped; NULL: none */
	const void *body;         /* NULL: none */
	size_t n;
	char body_digest[65];         /* hex sha256 of the body */
	const struct strvec *headers; /* "Name: value", further ones; NULL: none */
	const struct reg_sink *sink;
	uint64_t max_bytes;
};
struct object_kind {
	const char *separator; /* between prefix, folder and name: "" (s3) or "/" */
	/* URL and headers, with the signature. */
	int (*prepare)(struct remote_place *p, const struct object_call *c, char **ret_url, struct strvec *ret_headers,
		       struct err *e);
	int (*begin)(struct remote_place *p, struct err *e); /* before the first write; may be NULL */
	int (*touch)(struct remote_place *p, const char *key,
		     struct err *e); /* make it new, so that it is not expired; may be NULL */
};
struct object_place { /* remote_place.own */
	const struct object_kind *kind;
	char *base;        /* URL without the key, no '/' at its end */
	char *path_prefix; /* of the URL's path, "/bucket"; "" */
	char *host;        /* host[:port], as the Host header says it */
	char *prefix, *manifests, *blobs;
	struct strvec names;
	char *account, *secret, *token, *region, *bucket;
	int64_t touch_ns;
	unsigned attempts;
	bool begun;
};
/* From the attributes prefix, manifests_prefix, blobs_prefix, name. */
struct object_place *object_place_new(struct remote_place *p, const struct object_kind *kind, const char *manifests,
				      const char *blobs);
void object_place_fini(struct remote_place *p);
int object_set_base(struct object_place *o, const char *url, struct err *e);
/* Percent-encoding of all but unreserved characters and '/'. Heap. */
char *object_escape(const char *s);
/* One request with retries; any status below 500 but 429 is an answer. */
int object_do(struct remote_place *p, const struct object_call *c, struct reg_http_res *ret, struct err *e);
int object_status(const struct object_call *c, const struct reg_http_res *r, struct err *e); /* -1: what the store says */
void object_hmac(const void *key, size_t n_key, const void *data, size_t n, uint8_t out[static 32]);

int object_read(struct remote_place *p, struct cache_graph *g, struct err *e);
int object_have(struct remote_place *p, const struct cache_blob *b, struct err *e);
int object_fetch(struct remote_place *p, const struct cache_blob *b, struct blob_ingest *to, struct err *e);
int object_put(struct remote_place *p, const struct cache_blob *b, struct err *e);
int object_finish(struct remote_place *p, struct cache_graph *g, struct strvec *response, struct err *e);
#endif
