#ifndef SERVE_CONTENT_JOB_H
#define SERVE_CONTENT_JOB_H
/* What blobs there are. Job thread; blocks on the disk. */
#include "blob/blob.h"

struct content_info {
	char digest[DIGEST_STR];
	int64_t bytes, mtime_s;
};
struct content_list {
	struct blob_store *blobs;
	const char *digest; /* NULL: all */
	VEC(struct content_info) v;
};
int content_list(struct content_list *l, struct err *e); /* NOT_FOUND and INVALID_ARGUMENT of a digest */
#endif
