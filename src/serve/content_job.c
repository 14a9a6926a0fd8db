#include "serve/content_job.h"

#include <stdio.h>
#include <sys/stat.h>

static int add(void *ctx, const char *digest, int64_t bytes, int64_t mtime, struct err *e)
{
	struct content_list *l = ctx;
	struct content_info *i = vec_add(&l->v);
	snprintf(i->digest, sizeof i->digest, "%s", digest);
	i->bytes = bytes;
	i->mtime_s = mtime;
	return 0;
}

static int one(struct content_list *l, struct err *e)
{
	_cleanup_free_ char *path = blob_path(l->blobs, l->digest);
	struct stat st;
	if (!path) return err_set(e, CODE_INVALID_ARGUMENT, "%s is no digest", l->digest);
	if (stat(path, &st) < 0) return err_set(e, CODE_NOT_FOUND, "content %s: not found", l->digest);
	return add(l, l->digest, st.st_size, st.st_mtim.tv_sec, e);
}

int content_list(struct content_list *l, struct err *e) { return l->digest ? one(l, e) : blob_list(l->blobs, add, l, e); }
