#ifndef REMOTE_INTERNAL_H
#define REMOTE_INTERNAL_H
#include "remote/place.h"
#include "remote/remote.h"

/* place.c, loop side */
const struct remote_kind *remote_kind_find(const char *type);
/* A place for one job at a time. */
struct remote_place *remote_place_new(const struct remote_kind *kind, struct ops_env *env, const struct strvec *attrs,
				      const struct ops_ids *ids, struct err *e);
void remote_place_free(struct remote_place *p);   /* its job has ended */
void remote_place_cancel(struct remote_place *p); /* what its job waits for fails */
/* Wait for a turn at the registry where the place is one: granted is called at once or later. Released by slot's owner. */
void remote_place_admit(struct remote_place *p, struct loop_slot *slot, bool documents);
/* A registry repository ("docker.io/library/alpine") as a place to fetch from. */
struct remote_place *remote_place_repo(struct ops_env *env, const char *repo, const struct ops_ids *ids, struct err *e);

struct remote_import {
	unsigned refs; /* the owner's, and of each job under way */
	struct ops_env *env;
	const struct remote_kind *kind;
	struct strvec attrs;
	struct ops_ids ids;
	struct solve_remote *solver; /* NULL: dropped */
	void (*status)(void *arg, const struct prog_status *s);
	void (*done)(void *arg, const struct err *e);
	void *arg;
	/* the job that reads it */
	struct loop_job job;
	struct loop_slot slot;
	struct remote_place *place; /* NULL: it has ended */
	struct cache_graph *graph;
	struct err error;
	struct list loads; /* struct remote_load: under way */
};
void remote_import_unref(struct remote_import *i);
extern const struct solve_remote_ops remote_solve_ops; /* load.c; arg: struct remote_import */
void remote_loads_drop(struct remote_import *i);       /* load.c */
#endif
