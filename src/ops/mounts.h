#ifndef OPS_MOUNTS_H
#define OPS_MOUNTS_H
/* The mounts of a container, from LLB to host paths: for exec steps, gateway containers and frontends.
 * Life: ops_mounts_start -> done(ready) -> the container runs -> ops_mounts_commit or none -> ops_mounts_free.
 * Loop thread. Sources: moby/buildkit frontend/gateway/container/container.go, solver/llbsolver/mounts/mount.go. */
#include "ops/ops.h"

struct ops_mounts;
struct ops_mounts_req {
	struct ops_env *env;
	Pb__Mount *const *mounts; /* live as long as the mounts */
	size_t n;
	struct snap *const *inputs; /* one a mount; NULL: none. Referenced */
	const char *cwd;
	const char *what;         /* "exec /bin/sh -c ...": for descriptions */
	const char *const *sessions; /* copied */
	size_t n_sessions;
	Pb__SecretEnv *const *secret_env;
	size_t n_secret_env;
	struct ops_span span;
	bool prune_caches; /* ignore_cache: the named cache mounts start empty */
	void (*status)(void *arg, const struct prog_status *s); /* filling; may be NULL */
	void (*done)(void *arg, const struct err *e);           /* once, later */
	void *arg;
};
struct ops_mounts *ops_mounts_start(const struct ops_mounts_req *req);
void ops_mounts_cancel(struct ops_mounts *m); /* before done: it comes with CANCELLED */
/* After done: the container's root and the other mounts, borrowed. */
const char *ops_mounts_rootfs(const struct ops_mounts *m);
bool ops_mounts_root_readonly(const struct ops_mounts *m);
const struct run_mount *ops_mounts_list(const struct ops_mounts *m, size_t *ret_n);
const struct strvec *ops_mounts_secret_env(const struct ops_mounts *m); /* "K=V" */
/* Host path of mount i of the request; NULL when it was skipped. */
const char *ops_mounts_path(const struct ops_mounts *m, size_t i);
/* The whole tree of mount i, whatever part of it was selected; NULL when it is none of ours (tmpfs, secret, ssh). */
const char *ops_mounts_host_path(const struct ops_mounts *m, size_t i);
enum ops_keep {
	OPS_DROP,    /* what was written goes */
	OPS_OUTPUTS, /* outputs[o] for each output index */
	OPS_ALL,     /* a failed step: outputs[i] for each mount that was written to (no caches), NULL for the others */
};
/* The container is gone. Unmount, and make snapshots of what is to be kept (references given, the count in n). done once,
 * later; then free it. */
void ops_mounts_finish(struct ops_mounts *m, enum ops_keep keep, void (*done)(void *arg, struct snap **outputs, size_t n, const struct err *e),
		       void *arg);
/* Drop what OPS_ALL gave: the record goes too when nobody else uses it. NULL allowed. */
void ops_mounts_drop(struct snap *s);
void ops_mounts_free(struct ops_mounts *m); /* after finish's or a failed start's done; NULL allowed */
#endif
