#ifndef OPS_IMAGE_BLOB_H
#define OPS_IMAGE_BLOB_H
/* One blob by digest, from a registry or from the client's content store, into the blob store. Loop thread. */
#include "ops/remote.h"

struct ops_blob_req {
	const char *ref; /* "repo@sha256:...": the registry's repository */
	const char *digest;
	const struct ops_ids *ids;
	const char *store;   /* not NULL: from the client's store of that name ... */
	const char *session; /* ... of this session; "" or NULL: of any */
	struct ops_span span;
};
struct ops_blob_get;
/* done once, later: the blob, opened; fd is the caller's. */
struct ops_blob_get *ops_blob_get(struct ops_env *env, const struct ops_blob_req *req,
				  void (*done)(void *arg, int fd, const struct err *e), void *arg);
void ops_blob_get_cancel(struct ops_blob_get *g); /* done follows */
#endif
