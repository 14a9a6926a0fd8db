#ifndef SOLVE_INTERNAL_H
#define SOLVE_INTERNAL_H
#include "cache/cache.h"
#include "loop/loop.h"
#include "solve/cache.h"
#include "solve/solve.h"

struct solve_rkey { /* a record of a remote cache: a key as good as those of the database */
	struct solve_remote *remote;
	size_t item;
};
struct solve_slot { /* one output of a node */
	enum solve_want want;
	bool done;
	struct snap *snap; /* once done; NULL is scratch */
	int64_t keys[SOLVE_KEYS_MAX]; /* grows only */
	size_t n_keys;
	VEC(struct solve_rkey) rkeys;
};

struct solve_in { /* one input of a node */
	struct solve_node *node;
	size_t output;
	enum solve_phase content;
	int64_t content_key;
	char content_root[DIGEST_STR]; /* the same as text; "": none */
};

struct solve_member { /* a build has a node */
	struct solve_build *build;
	struct solve_node *node;
	struct list in_build, in_node;
};

struct solve_waiter {
	struct solve_build *build;
	struct solve_node *node;
	size_t output;
	void (*done)(void *arg, struct snap *result, const struct err *e);
	void *arg;
	bool told;
	struct list in_build, in_node;
};

struct solve_load { /* a remote result that is being had, or that could not be */
	size_t output, item, result;
	struct solve_remote *remote;
};
struct solve_remote {
	struct solver *solver;
	unsigned refs;
	bool busy; /* still being read: nodes wait */
	struct cache_graph *graph; /* NULL: nothing */
	const struct solve_remote_ops *ops; /* NULL: its owner has gone */
	void *arg;
};

struct solve_node {
	struct solver *solver;
	char digest[DIGEST_STR], key[DIGEST_STR]; /* key: in the solver's map; differs for ignore_cache */
	char *name, *group_id, *group_name;
	bool group_weak, ignore_cache, internal, findable, no_export;
	const struct solve_op_vt *vt;
	void *op;

	struct solve_in *in;
	size_t n_in;
	struct solve_slot *slot;
	size_t n_slot;

	enum solve_phase map_phase, exec;
	struct solve_map map;
	bool keys_final; /* no further key can appear without running something */
	bool cached, cancelled, claimed;
	struct err error; /* once failed */

	VEC(struct solve_node *) users; /* nodes that have it as an input, or watch it */
	struct solve_node *watching;    /* the builder of a row of ours that we wait for */
	struct list members, waiters;
	struct list all;
	struct loop_slot pool_slot;
	bool pool_waiting;
	unsigned under_way; /* map, content, exec not answered yet */
	bool queued;
	bool fresh;   /* keys were found that its users have not looked at */
	bool shown;   /* its end was told */
	bool loading; /* load answers later */
	struct solve_load load;
	VEC(struct solve_load) tried; /* results of remote caches that could not be had */
	size_t remotes_seen; /* how many of its builds' were looked at */
	struct list ready;

	VEC(struct prog_event *) events; /* for builds that join later */
	struct timespec started; /* of the step at hand */
};

struct solve_build {
	struct solver *solver;
	const struct solve_build_ops *ops;
	void *user;
	struct list members, waiters, all;
	struct map by_digest; /* digest -> node */
	VEC(struct solve_remote *) remotes;
	bool gone; /* freed, but something of it is still on the stack */
};

struct solver {
	struct loop *loop;
	struct db *db;
	struct snap_store *snaps;
	struct loop_pool execs;
	struct map nodes; /* key -> node */
	struct list all_nodes, builds, ready;
	bool draining, drain_posted, rewant_posted;
};

/* progress.c's solver side: show.c */
void solve_show_vertex(struct solve_node *n, bool started, bool completed, const char *error);
void solve_show_announce(struct solve_node *n, struct solve_build *b);

/* step.c */
void solve_wake(struct solve_node *n);
void solve_wake_users(struct solve_node *n);
void solve_raise(struct solve_node *n, size_t output, enum solve_want want);
void solve_drain_soon(struct solver *s);
void solve_rewant_soon(struct solver *s);
void solve_answered(struct solve_node *n);
void solve_tell_waiters(struct solve_node *n);
void solve_fail(struct solve_node *n, const struct err *e);

void solve_slot_done(struct solve_node *n, size_t o, struct snap *snap /* reference given */);
bool solve_results_done(const struct solve_node *n); /* of what is wanted */
void solve_write_rows(struct solve_node *n, size_t o); /* its keys and those that lead to it */
void solve_spare_inputs(struct solve_node *n);
bool solve_is_random(const char *digest);

/* remote.c */
bool solve_remotes_busy(const struct solve_node *n);
bool solve_remotes_probe(struct solve_node *n); /* true: a key was found */
bool solve_remotes_probe_new(struct solve_node *n); /* only when its builds have caches it has not looked at */
bool solve_remotes_load(struct solve_node *n);  /* true: something was started */
bool solve_remotes_have(struct solve_node *n, size_t output); /* a result that could be loaded */
void solve_remotes_cancel(struct solve_node *n);
void solve_remote_unref(struct solve_remote *r);

/* node.c */
void solve_node_free(struct solve_node *n);
#endif
