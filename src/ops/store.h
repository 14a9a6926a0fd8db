#ifndef OPS_STORE_H
#define OPS_STORE_H
/* The client's content store (an OCI layout, by its session) as a place where jobs can fetch blobs from. */
#include "ops/remote.h"

struct store_ask;
struct ops_store {
	struct blob_source source; /* for jobs; one fetch at a time */
	struct ops_env *env;
	struct ops_ids ids;
	char *name;            /* "oci:<id>" */
	struct store_ask *ask; /* loop thread: under way */
	bool cancelled;        /* loop thread */
};
/* session: that one only; "" or NULL: any of ids. */
void ops_store_init(struct ops_store *s, struct ops_env *env, const struct ops_ids *ids, const char *session,
		    const char *store);
void ops_store_cancel(struct ops_store *s); /* loop; what a job waits for fails */
void ops_store_fini(struct ops_store *s);   /* loop; no job may use it */
#endif
