#include "ops/local_job.h"

#include <fcntl.h>
#include <string.h>

/* An index that is missing or damaged cannot vouch for the directory: start from an empty one. */
static int empty_directory(int root, struct err *e)
{
	_cleanup_tree_index_ struct tree_index *there = NULL;
	if (tree_index_scan(root, NULL, &there, e) < 0) return -1;
	for (size_t i = 0; i < tree_index_count(there); i++) {
		const char *path = tree_index_at(there, i)->path;
		if (!strchr(path, '/') && path_remove_all(root, path, e) < 0) return -1;
	}
	return 0;
}

void local_job_open(struct local_job *j)
{
	struct err *e = &j->error;
	if (j->from && snap_copy_tree(j->from, j->view, j->cancelled, e) < 0) return;
	j->root = snap_view_open_root(j->view, true, e);
	if (j->root < 0) return;
	j->trash = snap_view_trash(j->view);
	const char *index = j->index_from ? j->index_from : j->index_path;
	if (tree_index_load(AT_FDCWD, index, &j->index, NULL) >= 0) {
		/* While the sync writes, the file on disk would be wrong after a kill. */
		if (j->index_from) unlinkat(AT_FDCWD, j->index_path, 0);
		if (!j->index_from) tree_index_suspend(AT_FDCWD, j->index_path, e);
		return;
	}
	if (empty_directory(j->root, e) < 0) return;
	j->index = tree_index_new();
}

void local_job_drop_trash(struct local_job *j)
{
	if (j->trash) j->trashed |= snap_view_trash_give(j->view, take_ptr(j->trash));
}

void local_job_seal(struct local_job *j)
{
	struct err *e = &j->error;
	struct err saved = ERR_INIT;
	if (tree_index_save(j->index, AT_FDCWD, j->index_path, &saved) < 0) {
		log_warn("content index: %s", saved.msg);
		err_fini(&saved);
	}
	close(j->root);
	j->root = -1;
	local_job_drop_trash(j);
	if (err_is_set(&j->sync_error)) {
		err_move(e, &j->sync_error);
		return;
	}
	snap_view_seal(j->view, e);
}
