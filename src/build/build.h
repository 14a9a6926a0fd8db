#ifndef BUILD_BUILD_H
#define BUILD_BUILD_H
/* One request as a state machine: FRONT (a frontend makes a result of lazy references) -> SOLVE (they are evaluated) -> SHIP
 * (exporters) -> DONE. Also the bridge that frontends talk to, progress of builds, the engine that holds them, du and prune.
 *
 *  1. Loop thread only, nothing blocks. Replies come by a struct build_reply, once, later or at once.
 *  2. Messages handed in live until the reply; what a build keeps of them it copies.
 *  3. A build lives from build_start until its reply and 10 s more, so that a late Status call still sees it.
 * Sources: moby/buildkit solver/llbsolver/{solver,bridge}.go, control/control.go; reference 01 §5-8, 04. */
#include "ops/ops.h"
#include "proto/control.pb-c.h"
#include "proto/gateway.pb-c.h"
#include "solve/solve.h"
#include "wire/wire.h"

struct engine;
struct build;
struct bridge;

/* m on success (borrowed), else e. */
struct build_reply {
	void (*done)(void *arg, const ProtobufCMessage *m, const struct err *e);
	void *arg;
};

/* ---- the engine ---- */
struct engine_conf {
	struct db *db;
	struct ops_env *env; /* build_sessions and load_nested are set by engine_new */
	const char *worker_id, *version, *revision, *dockerfile_version;
	const struct strvec *labels; /* "k=v" */
	const struct spec_platform *platforms;
	size_t n_platforms;
	bool allow_network_host, allow_insecure, allow_devices;
	/* Serve LLBBridge for `b` on two descriptors (a frontend container's stdio): given by the daemon. */
	void (*serve_bridge)(void *arg, struct bridge *b, int rfd, int wfd);
	void *serve_arg;
};
struct engine *engine_new(const struct engine_conf *conf);
void engine_free(struct engine *g); /* no build may run */
size_t engine_running(const struct engine *g);
void engine_on_idle(struct engine *g, void (*fn)(void *arg), void *arg); /* told when the last build ends */
const struct engine_conf *engine_conf(const struct engine *g);
void engine_list_workers(struct engine *g, const Control__ListWorkersRequest *req, struct build_reply r);
void engine_info(struct engine *g, struct build_reply r);
void engine_disk_usage(struct engine *g, const Control__DiskUsageRequest *req, struct build_reply r);
/* each record that was removed by `removed`, then the reply (its message NULL). */
void engine_prune(struct engine *g, const Control__PruneRequest *req, void (*removed)(void *arg, const Control__UsageRecord *u), struct build_reply r);

/* ---- builds ---- */
/* Starts a build; the reply's message is a Control__SolveResponse. NULL when it was refused at once (the reply was called). */
struct build *build_start(struct engine *g, const Control__SolveRequest *req, struct build_reply r);
void build_cancel(struct build *b); /* the client went away: no reply any more */

/* Progress: batches as they come, from the beginning. end() once, when there is no more; then the reader is gone.
 * Waits up to 6 s for a build with that ref: NOT_FOUND "no such job <ref>". */
struct build_reader;
struct build_reader *build_read(struct engine *g, const char *ref, void (*batch)(void *arg, struct prog_event *const *v, size_t n),
				void (*end)(void *arg, const struct err *e), void *arg);
void build_reader_stop(struct build_reader *r); /* end() is not called */
/* Slow consumer: no batch while paused; events of one vertex status are then coalesced. */
void build_reader_pause(struct build_reader *r, bool paused);
/* The batch as a message in arena a. */
Control__StatusResponse *build_status_message(struct arena *a, struct prog_event *const *v, size_t n);

/* ---- the bridge ---- */
/* The bridge of the client-side frontend of build `ref`; waits up to 3 s: NOT_FOUND "no such job <ref>". */
struct build_wait;
struct build_wait *build_bridge_wait(struct engine *g, const char *ref, void (*done)(void *arg, struct bridge *b, const struct err *e), void *arg);
void build_wait_cancel(struct build_wait *w);
/* Each method of LLBBridge takes its request and replies with its response message. */
void bridge_ping(struct bridge *b, struct build_reply r);
void bridge_solve(struct bridge *b, const Gateway__SolveRequest *req, struct build_reply r);
void bridge_resolve_source_meta(struct bridge *b, const Gateway__ResolveSourceMetaRequest *req, struct build_reply r);
void bridge_resolve_image_config(struct bridge *b, const Gateway__ResolveImageConfigRequest *req, struct build_reply r);
void bridge_read_file(struct bridge *b, const Gateway__ReadFileRequest *req, struct build_reply r);
void bridge_read_dir(struct bridge *b, const Gateway__ReadDirRequest *req, struct build_reply r);
void bridge_stat_file(struct bridge *b, const Gateway__StatFileRequest *req, struct build_reply r);
void bridge_evaluate(struct bridge *b, const Gateway__EvaluateRequest *req, struct build_reply r);
void bridge_return(struct bridge *b, const Gateway__ReturnRequest *req, struct build_reply r);
void bridge_inputs(struct bridge *b, struct build_reply r);
void bridge_warn(struct bridge *b, const Gateway__WarnRequest *req, struct build_reply r);
#endif
