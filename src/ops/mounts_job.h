#ifndef OPS_MOUNTS_JOB_H
#define OPS_MOUNTS_JOB_H
/* What blocks in preparing and undoing mounts. Job; no loop. */
#include "snap/snap.h"

struct mount_job_item {
	struct snap_view *view; /* to mount; NULL: none (secret, ssh, tmpfs) */
	bool read_only;
	char *target;           /* where it is mounted; heap */
	const char *selector;   /* sub path to use; "" or NULL: all */
	char *source;           /* out: target with the selector resolved; heap */
	/* a secret */
	const void *secret;
	size_t secret_len;
	uint32_t uid, gid;
	mode_t mode;
	bool is_secret;
	struct snap_view *lower; /* of what is written: the tree below; NULL: none */
	bool mounted, seal;
};
struct mount_job {
	char *dir; /* <dir>/exec/<id> */
	struct mount_job_item *items;
	size_t n;
	bool secrets_mounted;
	struct err error;
};
void mount_job_up(struct mount_job *j);
void mount_job_down(struct mount_job *j); /* also seals what is marked so; everything is unmounted whatever fails */
#endif
