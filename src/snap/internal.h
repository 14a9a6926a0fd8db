#ifndef SNAP_INTERNAL_H
#define SNAP_INTERNAL_H
/* Of the snap room only: what jobs use (files *_job.c). The loop side's is in store.h. */
#include "snap/snap.h"
#include <pthread.h>
#include <stdio.h>

/* ---- what this machine can mount; a value, found once by snap_mount_probe ---- */
struct snap_caps {
	bool overlay;   /* else native: full copies */
	bool lower_add; /* fsconfig knows "lowerdir+"; else mount(2) with relative paths */
	bool is_volatile;
	bool userxattr;
};
enum { SNAP_LOWER_MAX = 500, SNAP_CHAIN_MAX = 4096, SNAP_DEPTH_MAX = 1000 };

/* mount_job.c. Paths are below base; lowers bottom to top. */
struct snap_mount_spec {
	const char *base;
	char *const *lowers;
	size_t n_lowers;
	const char *upper, *work; /* NULL: read-only */
};
int snap_mount_overlay(const struct snap_caps *c, const struct snap_mount_spec *m, struct err *e); /* fd of a detached mount */
/* A second mount of what fd shows (fd from open_tree, fsmount or an O_PATH directory). -1 with errno EINVAL: cannot be cloned.
 */
int snap_mount_clone(int fd, const char *path);
int snap_mount_attach(int fd, const char *target, bool read_only, struct err *e);
void snap_mount_probe(const char *base, struct snap_caps *ret, struct err *why); /* ret->overlay false: *why tells */

/* The overlay mount of an active snapshot that has lowers: one for all its views, since two mounts of one upper directory
 * would spoil each other. This lock is taken for the time of a mount call only. */
struct snap_mnt {
	atomic_size_t refs;
	pthread_mutex_t lock;
	int fd;
	char *attached; /* kernels before 6.15 clone attached mounts only */
};
struct snap_mnt *snap_mnt_new(void);
void snap_mnt_unref(struct snap_mnt *m); /* NULL allowed; the last one unmounts */
void snap_mnt_close(struct snap_mnt *m);

/* A snapshot for jobs: values only. */
struct snap_view {
	char *base; /* <dir>/snapshots */
	struct snap_caps caps;
	int64_t id;         /* 0: empty */
	bool active, lazy;  /* of its own layer */
	bool lazy_chain;    /* of any layer */
	bool owns;          /* has a layer directory */
	bool bottom_plain;  /* the bottom layer is its own tree */
	bool plain;         /* its tree is its own directory: nothing below, no whiteouts */
	VEC(int64_t) chain; /* layers bottom to top, each once, its own included */
	int64_t parent;     /* native: whose flat tree is below; 0 none */
	struct snap_mnt *mnt;
};

/* copy_job.c */
struct snap_copy {
	int dst_root;
	bool layer; /* the source is an overlay layer: whiteouts delete, opaque directories hide */
	bool userxattr;
	const atomic_bool *cancelled;
	struct map links; /* "dev:ino" -> path below dst_root */
	struct buf path;  /* of the directory at hand, below dst_root */
	unsigned depth;
};
#define SNAP_OPAQUE(userxattr) ((userxattr) ? "user.overlay.opaque" : "trusted.overlay.opaque")
void snap_copy_fini(struct snap_copy *c);
/* Contents of directory src (a layer or a tree) into directory dst, and src's own metadata. */
int snap_copy_dir(struct snap_copy *c, int src, int dst, struct err *e);
/* One entry; st is its lstat. */
int snap_copy_entry(struct snap_copy *c, int src, int dst, const char *name, const struct stat *st, struct err *e);
int snap_copy_meta(struct snap_copy *c, int src, int dst, const struct stat *st,
		   struct err *e);                             /* of an open directory or file */
int snap_dir_names(int fd, struct strvec *ret, struct err *e); /* sorted, without . and .. */
/* Names and values of xattrs that are not overlay's, equal? */
bool snap_same_xattrs(int a, int b); /* two directories */
bool snap_same_xattrs_at(int a, int b, const char *name);
int snap_cancelled(const atomic_bool *c, struct err *e); /* 0, or -1 with CANCELLED */

/* diff_job.c */
/* Of one kind, mode, owner, size and time already: xattrs, target or content too? 1, 0 or -1. */
int snap_same_entry(int upper, int lower, const char *name, mode_t mode, const atomic_bool *cancelled, struct err *e);
int snap_diff_trees(int lower, int upper, int dst, bool userxattr, const atomic_bool *cancelled, struct err *e);

/* native_job.c: full trees where overlay cannot be mounted. flat: <base>/<id>/flat */
int snap_native_root(const struct snap_view *v, struct err *e);
int snap_native_seal(const struct snap_view *v, struct err *e);

/* usage_job.c */
int snap_trash_move(const char *base, int64_t id, struct err *e); /* rename away; a missing one is fine */
int snap_trash_empty(const char *base, struct err *e);
#endif
