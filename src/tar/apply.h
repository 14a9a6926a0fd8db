#ifndef TAR_APPLY_H
#define TAR_APPLY_H
/* State of one unpacking, shared by apply.c and fixup.c. */
#include "tar/internal.h"

struct apply_level {
	char *name;
	size_t len;
	int fd;
};
struct apply {
	int rootfd; /* borrowed */
	const struct tar_apply_opts *o;
	struct tar_reader *r;
	VEC(struct apply_level) stack; /* open directories from the root down */
	struct map made;               /* MERGED: what this archive brought */
	struct tar_pending pending;
	struct tar_stats stats;
	struct buf path, target; /* of the entry at hand, clean and relative */
};
void apply_init(struct apply *a, int rootfd, const struct tar_apply_opts *o);
void apply_fini(struct apply *a);
int apply_clean(struct buf *out, const char *name, const char *what, struct err *e);
/* Descriptor of the parent of path (owned by the stack) and the last component, inside path. path is changed and put
 * back during the call. */
int apply_parent(struct apply *a, char *path, const char **ret_base, bool create, struct err *e);
int apply_link(struct apply *a, int dir, const char *base, const char *target, struct err *e);
int apply_set_opaque(struct apply *a, int dirfd, const char *name, struct err *e);
bool apply_is_whiteout(const struct stat *st);
int apply_dir_times(struct apply *a, const struct strvec *names, const struct timespec *mtimes, struct err *e);
#endif
