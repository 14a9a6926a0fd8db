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
};
struct ship_meta {
	const char *key;
	const void *data;
	size_t len;
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
	const char *const *sessions; /* the build's own first; copied */
	size_t n_sessions;
	int64_t compatibility_version;
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
