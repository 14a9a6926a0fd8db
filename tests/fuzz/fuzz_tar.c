/* An archive, compressed or not, unpacked into a folder in each of the three ways; nothing outside of the folder may change.
 * The first byte chooses the way; the rest is the archive. */
#include "fuzz.h"
#include "tar/tar.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { UNPACKED_MAX = 8 << 20 };

static void unpack(struct tar_in in, const struct tar_apply_opts *o, int dirfd)
{
	struct tar_reader *r = tar_reader_new(in);
	struct tar_pending pending = {0};
	struct tar_stats stats;
	struct err e = ERR_INIT;
	int rc = tar_apply(r, dirfd, o, o->mode == TAR_APPLY_OVERLAY ? &pending : NULL, &stats, &e);
	if (rc < 0 && !err_is_set(&e)) bug("failed without an error");
	if (rc >= 0 && o->mode == TAR_APPLY_OVERLAY) tar_apply_fixup(&pending, dirfd, -1, o, NULL);
	tar_pending_fini(&pending);
	tar_reader_free(r);
	err_fini(&e);
}

/* What was unpacked can be read again. */
static void pack(int dirfd)
{
	struct buf b = BUF_MAX(UNPACKED_MAX * 2);
	struct tar_writer *w = tar_writer_new(tar_out_buf(&b));
	if (tar_write_tree(dirfd, "", NULL, w, NULL) >= 0) tar_writer_finish(w, NULL);
	tar_writer_free(w);
	buf_reset(&b);
	w = tar_writer_new(tar_out_buf(&b));
	if (tar_diff_overlay(dirfd, -1, w, NULL) >= 0) tar_writer_finish(w, NULL);
	tar_writer_free(w);
	buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	uint8_t how = fuzz_byte(&in);
	struct tar_mem m = {in.p, in.n}, probe = m;
	struct tar_apply_opts o = TAR_APPLY_OPTS(how % 3);
	o.override_owner = how & 8;
	o.best_effort_xattrs = how & 16;
	struct tar_decomp *d = NULL;
	tar_is_archive(tar_in_mem(&probe));
	if (tar_decomp_new(tar_in_mem(&m), UNPACKED_MAX, &d, NULL) < 0) return 0;
	int dirfd = fuzz_scratch();
	unpack(tar_decomp_in(d), &o, dirfd);
	tar_decomp_free(d);
	pack(dirfd);
	fuzz_scratch_check();
	fuzz_scratch_clear();
	return 0;
}
