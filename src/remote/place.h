#ifndef REMOTE_PLACE_H
#define REMOTE_PLACE_H
/* One cache's place as its job sees it. Functions of struct remote_kind but init are called in jobs and block; a place is used
 * by one job at a time. No loop. */
#include "blob/blob.h"
#include "cache/cache.h"
#include "ops/store.h"
#include "reg/reg.h"
#include "spec/media.h"

struct remote_place;
struct remote_kind {
	const char *type, *vertex;
	/* Check and keep the attributes; import: to read from it. Loop thread, also with env NULL (only checking). */
	int (*init)(struct remote_place *p, bool import, struct err *e);
	/* The cache into g. */
	int (*read)(struct remote_place *p, struct cache_graph *g, struct err *e);
	/* A layer: 1 it is there, 0 not. */
	int (*have)(struct remote_place *p, const struct cache_blob *b, struct err *e);
	int (*fetch)(struct remote_place *p, const struct cache_blob *b, struct blob_ingest *to, struct err *e);
	int (*put)(struct remote_place *p, const struct cache_blob *b, struct err *e); /* the bytes are in p->blobs */
	/* After all layers: the documents. */
	int (*finish)(struct remote_place *p, struct cache_graph *g, struct strvec *response, struct err *e);
	void (*fini)(struct remote_place *p); /* loop; may be NULL */
	bool lazy;                            /* what it has can be fetched later, by p->repo */
};
struct remote_place {
	const struct remote_kind *kind;
	struct ops_env *env; /* jobs: only what is for any thread */
	struct blob_store *blobs;
	struct strvec attrs;
	atomic_bool cancelled;
	/* registry, and what speaks HTTP */
	struct reg_io io;
	bool has_io, insecure;
	struct reg_config *config;
	struct ops_auth auth;
	struct spec_ref ref;
	char *repo; /* "docker.io/library/alpine"; NULL: not lazy */
	/* the client's folder */
	struct ops_store store;
	struct store_put *putting;
	bool has_store;
	/* documents */
	bool image_manifest, oci;
	enum spec_compression compression; /* of layers that are made for it */
	int level;
	bool force;
	const char *mount_from; /* a repository of the same registry that has the blob at hand, NULL */
	/* of a kind's own */
	void *own;
	/* progress of the job: a line that begins and ends. Any thread. */
	void (*note)(void *arg, const char *id, bool end);
	void *note_arg;
};
extern const struct remote_kind remote_registry, remote_local, remote_s3, remote_azblob, remote_gha;

const char *remote_attr(const struct remote_place *p, const char *key);                        /* NULL: not given */
int remote_attr_bool(const struct remote_place *p, const char *key, bool *ret, struct err *e); /* 1 given, 0 not */
void remote_note(struct remote_place *p, bool end, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int remote_formats(struct remote_place *p, struct err *e); /* the attributes on compression and manifests */
/* Bytes of a layer into p->blobs unless they are there. */
int remote_fetch(struct remote_place *p, const struct cache_blob *b, struct err *e);
/* Into the client's store: store.c. The bytes are in p->blobs. */
int remote_store_put(struct remote_place *p, const char *digest, int64_t size, struct err *e);

/* ---- manifest_job.c: how registries and folders hold it ---- */
struct remote_docs {
	/* A document (manifest or config) by descriptor; at most max_bytes. */
	int (*get)(struct remote_place *p, const struct reg_desc *d, size_t max_bytes, struct buf *ret, struct err *e);
};
int remote_manifest_read(struct remote_place *p, const struct remote_docs *docs, const struct buf *manifest,
			 struct cache_graph *g, struct err *e);
struct remote_manifest {
	struct buf config, body;
	char config_digest[DIGEST_STR], digest[DIGEST_STR];
	const char *media_type;
};
int remote_manifest_check(const struct remote_place *p, struct err *e); /* image-manifest and oci-mediatypes fit */
/* 0: nothing to write (no result at all); 1. */
int remote_manifest_make(struct remote_place *p, struct cache_graph *g, struct remote_manifest *ret, struct err *e);
void remote_manifest_response(const struct remote_manifest *m, struct strvec *response);
void remote_manifest_fini(struct remote_manifest *m);
#endif
