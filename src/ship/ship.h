#ifndef SHIP_SHIP_H
#define SHIP_SHIP_H
/* Exporters: image (push), oci, docker, local, tar. One ship_run is one exporter of a request.
 *
 *  1. Loop thread; what blocks is in *_job.c.
 *  2. A layer's blob is made once for each compression and kept with its snapshot; layers that were pulled keep theirs.
 *  3. Nothing is pushed before all it names is there: blobs, then manifests, then the index.
 * Sources: moby/buildkit exporter/{containerimage,oci,local,tar}; reference 06. */
#include "ops/ops.h"
#include "ship/manifest.h"

struct ship_ref {
	const char *key;    /* platform id ("linux/amd64"); NULL: the single result */
	struct snap *snap;  /* NULL: scratch */
	const char *platform; /* its platform's id, also of a single result: key of its attestations; NULL: unknown */
};
struct ship_meta {
	const char *key;
	const void *data;
	size_t len;
};
struct ship_attest_subject {
	bool raw;		    /* else the result itself */
	const char *name, *digest; /* NULL or "": none */
};
/* An attestation of the result of platform `key`: a file, or a bundle (a folder of statements), in a reference; or content. */
struct ship_attest {
	const char *key, *path, *predicate_type;
	bool bundle;
	bool empty_ref;	   /* its reference is scratch */
	struct snap *snap; /* NULL: none, or scratch */
	const struct ship_attest_subject *subjects;
	size_t n_subjects;
	const struct ship_meta *meta; /* "inline-only", "sbom-core", ... */
	size_t n_meta;
	/* The daemon's own: the predicate (JSON), asked for once, on the loop thread, when the layers have their blobs. */
	int (*content)(void *arg, struct buf *ret, struct err *e);
	void *content_arg;
};
struct ship_req {
	struct ops_env *env;
	const char *type;            /* "image", "oci", "docker", "local", "tar" */
	const struct ship_kv *attrs;
	size_t n_attrs;
	unsigned index;              /* of the exporter in the request */
	const struct ship_ref *refs; /* referenced until done */
	size_t n_refs;
	bool is_map;
	const struct ship_meta *meta; /* of the frontend's result; copied */
	size_t n_meta;
	const struct ship_attest *attests; /* copied */
	size_t n_attests;
	const char *const *sessions; /* the build's own first; copied */
	size_t n_sessions;
	int64_t compatibility_version;
	/* The inline cache of reference number `ref`, given its layers (bottom to top): bytes for the config, or nothing. NULL: none. */
	int (*inline_cache)(void *arg, size_t ref, const char *const *layers, size_t n, struct buf *ret, struct err *e);
	void *inline_arg;
	struct ops_span span;
	void (*status)(void *arg, const struct prog_status *s);
	void (*warn)(void *arg, const char *text);
	/* response: "k=v" pairs. Once, later. */
	void (*done)(void *arg, const struct strvec *response, const struct err *e);
	void *arg;
};
/* `exporter "x" could not be found`, attributes that are wrong: before anything is built. */
int ship_check_exporter(const char *type, const struct ship_kv *attrs, size_t n, struct err *e);
const char *ship_vertex_name(const char *type); /* "exporting to image" */
struct ship_run *ship_start(const struct ship_req *req);
void ship_cancel(struct ship_run *r); /* done follows with CANCELLED */
#endif
