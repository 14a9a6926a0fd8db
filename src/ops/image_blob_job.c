#include "ops/image_blob_job.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static int sink_write(void *ctx, const void *p, size_t n, struct err *e) { return blob_ingest_write(ctx, p, n, e); }
static int sink_rewind(void *ctx, struct err *e) { return blob_ingest_reset(ctx, e); }

static int from_registry(struct blob_get_job *j, struct err *e)
{
	_cleanup_blob_ingest_ struct blob_ingest *ingest = NULL;
	struct reg_desc d = {(char *)j->digest, NULL, -1};
	if (blob_ingest_begin(j->blobs, j->digest, -1, &ingest, e) < 0) return -1;
	struct reg_sink sink = {sink_write, sink_rewind, ingest};
	if (reg_fetch_blob(j->io, j->ref, &d, 0, &sink, e) < 0) return -1;
	return blob_ingest_commit(&ingest, NULL, NULL, e);
}

void blob_job_get(struct blob_get_job *j)
{
	struct err *e = &j->error;
	j->fd = -1;
	if (j->source) {
		if (blob_ensure(j->blobs, j->source, j->digest, -1, e) < 0) return;
	} else if (!blob_has(j->blobs, j->digest) && from_registry(j, e) < 0) {
		return;
	}
	j->fd = blob_open(j->blobs, j->digest, e);
}

static int copy(const struct blob_file_job *j, int to, struct err *e)
{
	loff_t at = 0;
	ssize_t n;
	do {
		if (atomic_load(j->cancelled)) return err_set(e, CODE_CANCELLED, "context canceled");
		n = copy_file_range(j->fd, &at, to, NULL, 64 << 20, 0);
	} while (n > 0);
	return n < 0 ? err_sys(e, errno, "copy to %s", j->name) : 0;
}

static int finish(const struct blob_file_job *j, int to, struct err *e)
{
	struct timespec times[2] = {{0}, {0}};
	if ((j->uid || j->gid) && fchown(to, (uid_t)j->uid, (gid_t)j->gid) < 0) return err_sys(e, errno, "chown %s", j->name);
	if (fchmod(to, j->perm ? (mode_t)(j->perm & 0777) : 0600) < 0) return err_sys(e, errno, "chmod %s", j->name);
	if (futimens(to, times) < 0) return err_sys(e, errno, "utimes %s", j->name);
	return snap_view_seal(j->view, e);
}

void blob_job_file(struct blob_file_job *j)
{
	struct err *e = &j->error;
	_cleanup_close_ int root = snap_view_open_root(j->view, true, e);
	_cleanup_close_ int to = root < 0 ? -1 : path_open_in(root, j->name, O_WRONLY | O_CREAT | O_EXCL, 0600, e);
	if (to >= 0 && copy(j, to, e) >= 0) finish(j, to, e);
}
