#ifndef DRIVE_CONTAINER_H
#define DRIVE_CONTAINER_H
/* The docker-container driver: a builder is a container buildx_buildkit_<node> with a volume <container>_state, made as buildx
 * makes it, so that either program can use, stop and remove what the other made. Main thread; everything blocks. Source: buildx
 * driver/docker-container/driver.go; reference 07 §2. */
#include "drive/engine.h"
#include "drive/store.h"

#define DRIVE_IMAGE "moby/buildkit:buildx-stable-1"
enum drive_state { DRIVE_INACTIVE, DRIVE_STOPPED, DRIVE_RUNNING };
extern const char *const drive_state_names[]; /* "inactive", ... */
/* What happens, for a display: the same text twice is the beginning and the end of one thing. */
struct drive_log {
	void (*say)(void *arg, const char *what, bool done);
	void *arg;
};
/* Bad driver options: INVALID_ARGUMENT. */
int drive_container_check(const struct drive_node *n, struct err *e);
int drive_container_state(const struct drive_node *n, enum drive_state *ret, struct err *e);
/* Create what is missing, start it, and wait until the daemon answers (at most about 15 s; then its log is in the error). */
int drive_container_boot(const struct drive_node *n, const struct drive_log *log, struct err *e);
int drive_container_stop(const struct drive_node *n, struct err *e);
int drive_container_remove(const struct drive_node *n, bool keep_state, bool keep_daemon, struct err *e);
/* A connection to the daemon: `buildctl dial-stdio` in the container. */
int drive_container_dial(const struct drive_node *n, struct drive_exec **ret, struct err *e);
#endif
