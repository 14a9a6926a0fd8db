#include "ops/fill_job.h"

#include <string.h>

struct sink {
	struct fill_job *job;
	struct blob_ingest *ingest;
};

static int sink_write(void *ctx, const void *p, size_t n, struct err *e)
{
	struct sink *s = ctx;
	atomic_fetch_add(s->job->bytes, (long long)n);
	return blob_ingest_write(s->ingest, p, n, e);
}

static int sink_rewind(void *ctx, struct err *e)
{
	struct sink *s = ctx;
	atomic_store(s->job->bytes, 0);
	return blob_ingest_reset(s->ingest, e);
}

static int download(struct fill_job *j, struct err *e)
{
	_cleanup_blob_ingest_ struct blob_ingest *ingest = NULL;
	if (blob_ingest_begin(j->blobs, j->desc.digest, j->desc.size, &ingest, e) < 0) return -1;
	struct sink s = {j, ingest};
	struct reg_sink sink = {sink_write, sink_rewind, &s};
	if (reg_fetch_blob(j->io, j->ref, &j->desc, 0, &sink, e) < 0) return -1;
	return blob_ingest_commit(&ingest, NULL, NULL, e);
}

struct checked_in {
	struct tar_in in;
	const atomic_bool *cancelled;
};

static ssize_t checked_read(void *ctx, void *buf, size_t n, struct err *e)
{
	struct checked_in *c = ctx;
	if (atomic_load(c->cancelled)) return err_set(e, CODE_CANCELLED, "context canceled");
	return c->in.read(c->in.ctx, buf, n, e);
}

static int unpack(struct fill_job *j, struct err *e)
{
	_cleanup_close_ int fd = blob_open(j->blobs, j->desc.digest, e);
	if (fd < 0) return -1;
	struct checked_in checked = {tar_in_fd(&fd), j->cancelled};
	_cleanup_tar_decomp_ struct tar_decomp *decomp = NULL;
	if (tar_decomp_new((struct tar_in){checked_read, &checked}, 0, &decomp, e) < 0) return -1;
	struct tar_tee tee = {.in = tar_decomp_in(decomp)};
	tar_tee_init(&tee);
	_cleanup_tar_reader_ struct tar_reader *reader = tar_reader_new(tar_tee_in(&tee));
	struct tar_apply_opts o = TAR_APPLY_OPTS(snap_view_plain(j->view) ? TAR_APPLY_MERGED : TAR_APPLY_OVERLAY);
	o.userxattr = snap_view_userxattr(j->view);
	o.rootless = o.userxattr;
	int r = -1;
	if (snap_fill_begin(j->view, &j->fill, e) >= 0 && tar_apply(reader, j->fill.dirfd, &o, &j->pending, NULL, e) >= 0 &&
	    tar_reader_drain(reader, e) >= 0)
		r = 0;
	char diff_id[DIGEST_STR];
	if (r < 0) {
		tar_tee_fini(&tee);
		return -1;
	}
	tar_tee_final(&tee, diff_id);
	if (j->diff_id && strcmp(diff_id, j->diff_id))
		return err_set(e, CODE_DATA_LOSS, "layer %s unpacks to %s, but the image config says %s", j->desc.digest, diff_id, j->diff_id);
	return 0;
}

void fill_job_download(struct fill_job *j) { download(j, &j->error); }

void fill_job_unpack(struct fill_job *j)
{
	if (unpack(j, &j->error) < 0) err_wrap(&j->error, "failed to extract layer %s", j->desc.digest);
}

static bool needs_lower(const struct tar_pending *p) { return p->parents.n || p->names.n || p->dir_names.n; }

void fill_job_commit(struct fill_job *j, const struct snap_view *lower)
{
	struct err *e = &j->error;
	if (needs_lower(&j->pending)) {
		_cleanup_close_ int lower_fd = lower ? snap_view_open_root(lower, false, e) : -1;
		struct tar_apply_opts o = TAR_APPLY_OPTS(TAR_APPLY_OVERLAY);
		o.userxattr = snap_view_userxattr(j->view);
		if ((lower && lower_fd < 0) || tar_apply_fixup(&j->pending, j->fill.dirfd, lower_fd, &o, e) < 0) {
			snap_fill_abort(&j->fill);
			err_wrap(e, "failed to extract layer %s", j->desc.digest);
			return;
		}
	}
	snap_fill_commit(&j->fill, e);
}
