#ifndef BUILD_COLLECT_JOB_H
#define BUILD_COLLECT_JOB_H
/* The blobs there are, and what the manifests among the wanted ones name. Job thread; blocks on the disk. */
#include "blob/blob.h"

struct collect_scan {
	struct blob_store *blobs;
	int64_t before; /* mtime in seconds: younger ones are left out */
	/* Digests that history names; the job adds what these manifests and indexes name, layers excepted. Values: any pointer.
	 */
	struct map wanted;
	/* The same of deleted records. Unless `all`, only these are found. */
	struct map dropped;
	bool all;
	struct strvec found; /* old enough, and not wanted */
};
int collect_scan(struct collect_scan *c, struct err *e);
#endif
