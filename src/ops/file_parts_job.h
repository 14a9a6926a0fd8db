#ifndef OPS_FILE_PARTS_JOB_H
#define OPS_FILE_PARTS_JOB_H
/* The parts that file_job.c is made of. All of it: job; blocks; no loop. Private to file_*job.c.
 * A "canonical" path is absolute inside its tree, clean, and no component but perhaps the last one is a link. */
#include "ops/file_job.h"
#include <sys/stat.h>

struct file_owner {
	bool set; /* false: leave what is there */
	uid_t uid;
	gid_t gid;
};
struct file_time {
	bool set; /* false: leave, or keep the source's */
	struct timespec ts;
};
/* What --chown asks for. opt NULL: not set. A name that the tree does not know is 0:0, as with BuildKit. */
int file_owner_read(const struct file_job_ctx *c, const Pb__ChownOpt *opt, struct file_owner *ret, struct err *e);
/* -1 and CANCELLED once the job was cancelled. */
int file_check(const struct file_job_ctx *c, struct err *e);

/* ---- the tree (file_tree_job.c) ---- */
/* Go's fs.RootPath: every link resolved inside the root, missing components kept as they are; heap, NULL on error. Without
 * `follow` the last component stays what it is. */
char *file_root_path(int rootfd, const char *path, bool follow, struct err *e);
/* The parent of a canonical path (O_PATH), and its last component inside path; "/" gives itself and ".". Errno is set. */
int file_open_parent(int rootfd, const char *path, const char **ret_base);
/* mkdirat whose permission bits are `mode` whatever the umask; set-group-id that was inherited stays. -1 and errno. */
int file_mkdir_at(int dirfd, const char *name, mode_t mode);
int file_owner_set(int dirfd, const char *name, const struct file_owner *o); /* no link followed; -1 and errno */
int file_time_set(int dirfd, const char *name, const struct file_time *t);   /* no link followed; -1 and errno */
/* mkdir -p of a canonical path; those that were made are appended to `made`. */
int file_mkdirs(int rootfd, const char *path, mode_t mode, const struct file_owner *o, const struct file_time *t,
		struct strvec *made, struct err *e);
/* Set the time once more on directories that were made, the deepest first: what was put into them has changed it. */
int file_times_again(int rootfd, const struct strvec *made, const struct file_time *t, struct err *e);
/* The paths that src matches, in lexical order; src itself when it holds no wildcard. */
int file_wildcards(const struct file_job_ctx *c, int rootfd, const char *src, bool follow, struct strvec *ret, struct err *e);

/* ---- chmod's symbolic and octal modes (file_mode_job.c) ---- */
struct file_mode_cmd {
	char op;      /* '+' '-' 'X', or the class copied from: 'u' 'g' 'o' */
	uint8_t what; /* for copies: FILE_MODE_* */
	uint16_t bits;
};
struct file_mode {
	VEC(struct file_mode_cmd) cmds;
};
int file_mode_parse(const char *s, struct file_mode *ret, struct err *e);
mode_t file_mode_apply(const struct file_mode *m, mode_t mode); /* mode with its type bits; answers the 12 lower ones */
void file_mode_fini(struct file_mode *m);

/* ---- contents (file_data_job.c) ---- */
struct file_data {
	const struct file_job_ctx *ctx;
	bool no_clone, no_range; /* this pair of file systems cannot */
	uint8_t *chunk;
};
void file_data_fini(struct file_data *d);
/* All of src into the empty dst: as a reflink, in the kernel, or by reading and writing; holes stay holes. */
int file_data_copy(struct file_data *d, int src, int dst, const struct stat *st, struct err *e);
/* All extended attributes but overlayfs' own. Those that cannot be read or set are left out, as with BuildKit. */
void file_xattrs_copy_fd(int src, int dst);
void file_xattrs_copy_at(int srcdir, const char *from, int dstdir, const char *to); /* no link followed */

/* ---- trees (file_copy_job.c) ---- */
struct spec_patterns;
struct file_copy_opts {
	struct file_owner owner;
	struct file_time time;
	const char *mode_text; /* as chmod takes it; NULL: none */
	int64_t mode;          /* -1: the source's */
	bool contents, follow, replace;
	const struct spec_patterns *include, *exclude; /* NULL: none */
};
/* fsutil's copy.Copy of one source. src and dst are clean, a '/' or "/." at their end counts. */
int file_copy(const struct file_job_ctx *c, int sourcefd, const char *src, const char *dst, const struct file_copy_opts *o,
	      struct err *e);
#endif
