#ifndef DRIVE_STORE_H
#define DRIVE_STORE_H
/* Builders as buildx keeps them, so that either program sees what the other made: $BUILDX_CONFIG or ~/.docker/buildx, where
 * instances/NAME is JSON, `current` names the chosen one for an engine, defaults/HASH the one that comes back, activity/NAME
 * the time of its last use. Written by rename, under a lock on .lock. Main thread; blocks. Source: buildx
 * store/{store,nodegroup,util}.go; reference 07 §9. */
#include "base/base.h"

struct drive_file {
	char *path; /* "buildkitd.toml", "certs/HOST/ca.pem" */
	void *data;
	size_t n;
};
struct drive_node {
	char *name, *endpoint;   /* a context's name or an address */
	struct strvec platforms; /* "linux/arm64": fixed ones, usually none */
	struct strvec opts;      /* driver options "k=v" */
	struct strvec flags;     /* of the daemon */
	VEC(struct drive_file) files;
};
struct drive_builder {
	char *name, *driver;
	VEC(struct drive_node) nodes;
	bool dynamic;
};
void drive_node_fini(struct drive_node *n);
void drive_builder_fini(struct drive_builder *b);
ptrdiff_t drive_builder_node(const struct drive_builder *b, const char *name); /* -1: none */
/* "invalid name X, ..." unless it matches [a-zA-Z][a-zA-Z0-9._-]*; *ret is lower case, heap. */
int drive_name(const char *s, char **ret, struct err *e);

char *drive_store_dir(void); /* heap */
struct drive_lock {
	int fd;
};
int drive_store_lock(struct drive_lock *ret, struct err *e); /* makes the folders; waits for who holds it */
void drive_store_unlock(struct drive_lock *l);
/* NOT_FOUND: there is none of this name. */
int drive_store_load(const char *name, struct drive_builder *ret, struct err *e);
int drive_store_save(const struct drive_builder *b, struct err *e); /* also its time of use */
int drive_store_remove(const char *name, struct err *e);            /* a missing one is fine */
void drive_store_names(struct strvec *ret);                         /* sorted */
void drive_store_used(const char *name);                            /* now */
char *drive_store_activity(const char *name);                       /* RFC 3339, NULL: never; heap */
/* The builder chosen for the engine of this key (drive_engine_key), heap; NULL: none, the default. */
char *drive_store_current(const char *key);
int drive_store_choose(const char *key, const char *name, bool global, bool as_default,
		       struct err *e); /* name "": the default */
/* A name that is free: two words. Heap. */
char *drive_store_new_name(void);
#endif
