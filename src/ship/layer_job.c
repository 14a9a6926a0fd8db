#include "ship/layer_job.h"

static enum tar_kind kind_of(enum spec_compression c)
{
	return c == SPEC_ZSTD ? TAR_ZSTD : c == SPEC_UNCOMPRESSED ? TAR_PLAIN : TAR_GZIP;
}

struct checked_out {
	struct tar_out out;
	const atomic_bool *cancelled;
};

static int checked_write(void *ctx, const void *p, size_t n, struct err *e)
{
	struct checked_out *c = ctx;
	if (c->cancelled && atomic_load(c->cancelled)) return err_set(e, CODE_CANCELLED, "context canceled");
	return c->out.write(c->out.ctx, p, n, e);
}

static int from_directory(struct layer_job *j, struct tar_writer *w, struct err *e)
{
	struct err missing = ERR_INIT;
	_cleanup_close_ int lower = j->lower ? snap_view_open_root(j->lower, false, e) : -1;
	if (j->lower && lower < 0) return -1;
	_cleanup_close_ int upper = snap_view_open_layer(j->view, &missing);
	if (upper < 0 && missing.code != CODE_NOT_FOUND) return err_move(e, &missing);
	err_fini(&missing);
	if (upper >= 0 && tar_diff_overlay(upper, lower, w, e) < 0) return -1; /* no directory: nothing was written */
	return tar_writer_finish(w, e);
}

static int from_blob(struct layer_job *j, struct tar_out out, struct err *e)
{
	_cleanup_close_ int fd = blob_open(j->blobs, j->from, e);
	if (fd < 0) return -1;
	_cleanup_tar_decomp_ struct tar_decomp *d = NULL;
	if (tar_decomp_new(tar_in_fd(&fd), 0, &d, e) < 0) return -1;
	if (!j->clamp) return tar_copy(tar_decomp_in(d), out, NULL, e);
	_cleanup_tar_reader_ struct tar_reader *r = tar_reader_new(tar_decomp_in(d));
	_cleanup_tar_writer_ struct tar_writer *w = tar_writer_new(out);
	return tar_clamp(r, j->epoch, w, e);
}

void layer_job_run(struct layer_job *j)
{
	struct err *e = &j->error;
	_cleanup_blob_ingest_ struct blob_ingest *ingest = NULL;
	_cleanup_tar_comp_ struct tar_comp *comp = NULL;
	if (blob_ingest_begin(j->blobs, NULL, -1, &ingest, e) < 0) return;
	struct checked_out checked = {{blob_ingest_out, ingest}, j->cancelled};
	if (tar_comp_new((struct tar_out){checked_write, &checked}, kind_of(j->compression), j->level, 0, &comp, e) < 0) return;
	int r;
	if (j->from) {
		r = from_blob(j, tar_comp_out(comp), e);
	} else {
		_cleanup_tar_writer_ struct tar_writer *w = tar_writer_new(tar_comp_out(comp));
		r = from_directory(j, w, e);
	}
	if (r < 0 || tar_comp_finish(comp, &j->sums, e) < 0) return;
	blob_ingest_commit(&ingest, NULL, NULL, e);
}
