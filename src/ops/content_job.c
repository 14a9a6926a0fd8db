#include "ops/content_job.h"
#include "ops/ops.h"

#include <fcntl.h>

int ops_index_load_job(const char *path, int rootfd, const atomic_bool *cancelled, struct tree_index **ret, struct err *e)
{
	if (tree_index_load(AT_FDCWD, path, ret, NULL) >= 0) return 0;
	return tree_index_scan(rootfd, cancelled, ret, e);
}

void content_job_run(struct content_job *j)
{
	struct err *e = &j->error;
	if (!j->index_path) {
		tree_checksum(NULL, -1, j->selectors, j->n_selectors, j->cancelled, j->digest, e);
		return;
	}
	_cleanup_close_ int root = snap_view_open_root(j->view, false, e);
	if (root < 0) return;
	_cleanup_tree_index_ struct tree_index *index = NULL;
	if (ops_index_load_job(j->index_path, root, j->cancelled, &index, e) < 0) return;
	if (tree_checksum(index, root, j->selectors, j->n_selectors, j->cancelled, j->digest, e) < 0) return;
	struct err ignored = ERR_INIT; /* without the sidecar it is only slower */
	if (tree_index_dirty(index) && tree_index_save(index, AT_FDCWD, j->index_path, &ignored) < 0) {
		log_debug("content index: %s", ignored.msg);
		err_fini(&ignored);
	}
}
