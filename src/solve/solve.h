#ifndef SOLVE_SOLVE_H
#define SOLVE_SOLVE_H
/* The solver: nodes shared between builds, cache keys, single flight.
 *
 * A node is one vertex of a graph, found by its digest, with one slot an output. Demand is a level that a slot has
 * (NONE < KEYS < CONTENT < RESULT), raised by builds and by the nodes that use it. solve_step() looks at a node and its inputs and
 * asks for more or starts one thing; it is idempotent and is called whenever the node or an input of it changed.
 *
 *  1. Only the loop thread is ever in here. Operations are seen through struct solve_op_vt; they answer asynchronously.
 *  2. A key row names "this operation on inputs with these keys"; the same row is built by one node at a time, another one
 *     that comes to it becomes a watcher of the builder (single flight; nodes are never merged).
 *  3. A definition key comes from the inputs' keys; a content key from an input's bytes, asked for only when no
 *     definition key had a result.
 *  4. Cancelling drops a build, sets every demand to NONE and raises it again from the builds that are left. What runs and
 *     is not wanted any more is told to end; a step that several builds want goes on.
 *  5. A FAILED node is found by nobody new: it lives on with the builds that saw it.
 *  6. Keys equal BuildKit's (reference 06 §7): the root key of an operation without inputs is sha256("<digest>@<output>"),
 *     a content key sha256("<content digest>@-1"). A digest "random:..." gives no key: such a step is never found again.
 * Source of the model: shared design/solver-model.c; of the key format: moby/buildkit solver/cachekey.go. */
#include "cache/cache.h"
#include "db/db.h"
#include "snap/snap.h"
#include "solve/progress.h"

/* SOLVE_CONTENT: unless its keys lead to a result already, the keys that the bytes of its inputs lead to. */
enum solve_want { SOLVE_NONE, SOLVE_KEYS, SOLVE_CONTENT, SOLVE_RESULT };
enum solve_phase { SOLVE_IDLE, SOLVE_BUSY, SOLVE_DONE, SOLVE_FAILED };
enum { SOLVE_KEYS_MAX = 32, SOLVE_MAPS_MAX = 3 };

struct solver;
struct solve_node;
struct solve_build;

/* ---- operations ---- */
struct solve_dep {
	char *selector; /* heap or NULL: digest put into the definition link */
	bool content;   /* its bytes may be matched too */
};
/* What map() answers: one digest, or several that name the same thing (an image: its manifest, then its chain). */
struct solve_map {
	char *digests[SOLVE_MAPS_MAX];
	size_t n_digests;
	struct solve_dep *deps; /* one an input */
	size_t n_deps;
};
/* What a step that failed leaves, for whoever wants to look into it. Borrowed; NULL: none, or scratch. */
struct solve_debris {
	struct snap **inputs, **mounts; /* arrays are heap: solve_debris_fini */
	size_t n_inputs, n_mounts;
	ptrdiff_t action;  /* the action of a file operation that failed; -1: none */
	ptrdiff_t content; /* the input whose content key could not be made; -1: none */
};
/* Every function: loop thread. Those that start something answer by the solve_*_done function named, at once or later,
 * exactly once; the node outlives it. `op` is what the operation's maker gave; it belongs to the node. */
struct solve_op_vt {
	const char *kind;
	void (*map)(void *op, struct solve_node *n);                    /* -> solve_map_done */
	void (*content)(void *op, struct solve_node *n, size_t input);  /* -> solve_content_done; only for content deps */
	void (*exec)(void *op, struct solve_node *n);                   /* -> solve_exec_done; inputs by solve_input */
	void (*cancel)(void *op, struct solve_node *n);                 /* what is under way shall end soon, with CANCELLED */
	void (*free)(void *op);
	void (*debris)(void *op, struct solve_node *n, struct solve_debris *ret); /* after exec failed; may be NULL */
	bool takes_slot; /* counts for max-parallelism */
	bool source;     /* no inputs: its map is shown as progress too */
};
void solve_map_done(struct solve_node *n, struct solve_map *map /* taken */, struct err *e /* taken; set: failed */);
void solve_content_done(struct solve_node *n, size_t input, const char *digest, struct err *e);
/* outputs: one an output, references given away; NULL is scratch. */
void solve_exec_done(struct solve_node *n, struct snap **outputs, struct err *e);

/* ---- nodes, for operations ---- */
struct snap *solve_input(const struct solve_node *n, size_t i); /* result of input i, borrowed; NULL is scratch */
size_t solve_input_count(const struct solve_node *n);
struct solve_node *solve_input_node(const struct solve_node *n, size_t i); /* borrowed */
const char *solve_node_digest(const struct solve_node *n);
const char *solve_node_name(const struct solve_node *n);
struct solver *solve_node_solver(const struct solve_node *n);
void *solve_node_op(const struct solve_node *n);
/* The builds that want it now, first come first: call f until it answers true. */
bool solve_node_each_build(struct solve_node *n, bool (*f)(void *arg, struct solve_build *b), void *arg);
/* Progress of the step at hand: to every build that has the node, also to those that join later. */
void solve_log(struct solve_node *n, int stream, const void *p, size_t len);
void solve_status(struct solve_node *n, const struct prog_status *s); /* a newer one of the same id replaces it */

/* ---- the solver ---- */
struct solver_conf {
	struct loop *loop;
	struct db *db;
	struct snap_store *snaps;
	size_t max_parallelism; /* 0: unlimited */
};
int solver_new(const struct solver_conf *conf, struct solver **ret, struct err *e);
void solver_free(struct solver *s); /* no build may be left */
void solver_set_parallelism(struct solver *s, size_t n); /* steps that run go on; fewer are let in until n or less run */
/* Steps that hold a slot of max-parallelism now, and those that wait for one. */
void solver_load(const struct solver *s, size_t *ret_running, size_t *ret_waiting);
/* Drop rows whose snapshot is gone, and keys that lead nowhere. */
int solver_collect(struct solver *s, struct err *e);
struct loop *solver_loop(struct solver *s);
struct snap_store *solver_snaps(struct solver *s);

/* ---- builds ---- */
struct solve_build_ops {
	void (*event)(void *user, struct prog_event *ev); /* progress; borrowed: take a reference to keep it */
};
struct solve_build *solve_build_new(struct solver *s, const struct solve_build_ops *ops, void *user);
/* Cancels what only it wanted; its waiters are not called any more (their owners still free them). */
void solve_build_free(struct solve_build *b);
void *solve_build_user(struct solve_build *b);

/* A vertex to add; everything is copied except op, which is given away (freed at once when the node exists already). */
struct solve_vertex {
	const char *digest;   /* as the client sent it */
	const char *name;
	bool ignore_cache;
	struct { struct solve_node *node; size_t output; } *inputs;
	size_t n_inputs, n_outputs;
	const struct solve_op_vt *vt;
	void *op;
	const char *group_id, *group_name; /* progress group; NULL: none */
	bool group_weak;
	bool no_export; /* its result is left out of cache exports */
	bool internal; /* no slot taken, whatever the vt says (frontends) */
};
/* A node with that digest, old or new, now part of the build. */
struct solve_node *solve_add(struct solve_build *b, const struct solve_vertex *v);

/* Wait for the result of one output. done() is called once, also with an error, never from inside solve_want. */
struct solve_waiter;
struct solve_waiter *solve_want(struct solve_build *b, struct solve_node *n, size_t output,
				void (*done)(void *arg, struct snap *result /* borrowed; NULL scratch */, const struct err *e), void *arg);
void solve_waiter_free(struct solve_waiter *w); /* not interested any more: lowers the demand; NULL allowed */

/* What the failed vertex of this digest left: false when the build has no such vertex. */
bool solve_debris(struct solve_build *b, const char *digest, struct solve_debris *ret);
void solve_debris_fini(struct solve_debris *d);

/* ---- caches from elsewhere ----
 * Records that a build may use beside the database's rows, in memory, for that build's nodes only. While it is being read the
 * nodes wait. Loop thread. */
struct solve_remote;
struct solve_remote_ops {
	/* Have result number `result` of item `item` as a snapshot; solve_remote_loaded answers, later, once. */
	void (*load)(void *arg, struct solve_node *n, size_t item, size_t result);
	void (*cancel)(void *arg, struct solve_node *n); /* it answers soon, with CANCELLED */
};
struct solve_remote *solve_remote_new(struct solver *s, const struct solve_remote_ops *ops, void *arg);
void solve_remote_ready(struct solve_remote *r, struct cache_graph *g /* taken; NULL: there is none */);
void solve_remote_drop(struct solve_remote *r); /* by its owner: ops are not called any more; NULL allowed */
void solve_build_use(struct solve_build *b, struct solve_remote *r);
struct cache_graph *solve_remote_graph(struct solve_remote *r); /* borrowed; NULL: none (yet) */
void *solve_remote_arg(struct solve_remote *r); /* NULL once dropped */
/* snap: reference given; e set: a miss. */
void solve_remote_loaded(struct solve_node *n, struct snap *snap, const struct err *e);

/* ---- cache export ---- */
struct solve_export {
	bool brief; /* only this build's steps: to learn whose results take part */
	bool max; /* else: the first result upwards that has blobs, and below it those that have them anyway */
	/* The blobs of a result, bottom to top, as put into g by cache_graph_blob: how many; 0: none that may be used. make: they
	 * may be made for it. Of a remote cache's: the blobs are those of solve_remote_graph(r). */
	size_t (*local)(void *arg, struct snap *snap, bool make, size_t *ret, size_t max);
	size_t (*remote)(void *arg, struct solve_remote *r, const struct cache_result *res, size_t *ret, size_t max);
	void *arg;
};
/* What led to this output, into g: every step's record, its links in this build and in the database. */
void solve_export(struct solve_node *n, size_t output, const struct solve_export *x, struct cache_graph *g);

/* ---- for "why" ---- */
enum solve_phase solve_node_phase(const struct solve_node *n, size_t output);
size_t solve_node_keys(const struct solve_node *n, size_t output, int64_t *ret, size_t max);
bool solve_node_was_cached(const struct solve_node *n);
void solve_root_key(const char *digest, int output, char out[static DIGEST_STR]);
#endif
