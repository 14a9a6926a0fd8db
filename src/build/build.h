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
#include "tele/tele.h"
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
	struct ops_env *env; /* build_sessions, nested_start and nested_cancel are set by engine_new */
	const char *provenance_dir; /* JSON files that are added to provenance; NULL: none. Read by engine_new */
	const char *worker_id, *version, *revision, *dockerfile_version;
	const struct strvec *labels; /* "k=v" */
	const struct spec_platform *platforms; /* of the worker; the first never changes. See engine_set_platforms */
	size_t n_platforms;
	void (*look_for_platforms)(void *platforms_arg); /* called before they are used; NULL: they never change */
	void *platforms_arg;
	/* Serve LLBBridge for `b` on two descriptors (a frontend container's stdio), which are taken: given by the daemon. The
	 * connection, to be closed before the bridge goes, or NULL with *e. closed() comes once, then it does not exist. */
	struct wire_conn *(*serve_bridge)(void *arg, struct bridge *b, int rfd, int wfd, void (*closed)(void *closed_arg), void *closed_arg,
					  struct err *e);
	void *serve_arg;
	struct tele_exporter *traces; /* where spans of builds go; NULL: nowhere */
};
struct engine *engine_new(const struct engine_conf *conf);

/* What a reload of the configuration replaces; everything is copied or referenced. Builds keep what held when they started.
 * Must be set once before the first build. */
struct engine_gc_rule { /* reference 01 §4, 05 §2 */
	bool all;
	const char *const *filters; /* NULL-terminated; alternatives */
	int64_t keep_duration_ns, reserved_bytes, max_used_bytes, min_free_bytes; /* 0: not said */
};
struct engine_policy {
	bool allow_network_host, allow_insecure, allow_devices;
	int64_t history_max_age_ns; /* a record goes when it is unpinned, older than this, and not among the newest ... */
	int64_t history_max_entries;
	bool dockerfile_off, gateway_off;     /* frontends */
	bool proxy_network;                   /* for every build, asked for or not */
	const struct strvec *gateway_allowed; /* repositories of frontend images; NULL or empty: all */
	struct reg_config *registries;
	struct run_dns *dns;
	const struct engine_gc_rule *gc; /* run in this order, after builds and by a timer */
	size_t n_gc;
};
void engine_set_policy(struct engine *g, const struct engine_policy *p);
void engine_free(struct engine *g); /* no build may run */
size_t engine_running(const struct engine *g);
/* The builds that run, one a line, and under each the steps that run: for the debug address. */
void engine_describe(struct engine *g, struct buf *out);
void engine_on_idle(struct engine *g, void (*fn)(void *arg), void *arg); /* told when the last build ends */
const struct engine_conf *engine_conf(const struct engine *g);
/* v is borrowed till the engine is freed. Builds that run keep what they began with. */
void engine_set_platforms(struct engine *g, const struct spec_platform *v, size_t n);
void engine_list_workers(struct engine *g, const Control__ListWorkersRequest *req, struct build_reply r);
void engine_info(struct engine *g, struct build_reply r);
void engine_disk_usage(struct engine *g, const Control__DiskUsageRequest *req, struct build_reply r);
/* each record that was removed by `removed`, then the reply (its message NULL). */
void engine_prune(struct engine *g, const Control__PruneRequest *req, void (*removed)(void *arg, const Control__UsageRecord *u), struct build_reply r);

/* ---- builds ---- */
/* Starts a build; the reply's message is a Control__SolveResponse. NULL when it was refused at once (the reply was called). */
struct build *build_start(struct engine *g, const Control__SolveRequest *req, struct build_reply r);
/* The W3C traceparent of the call that brought it; NULL or a bad one: it begins a trace of its own. Right behind build_start. */
void build_trace(struct build *b, const char *traceparent);
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

/* How many of the events go into one message (at least one): log bytes of at most 1 MiB. Any thread. */
size_t build_status_cut(struct prog_event *const *v, size_t n);

/* ---- history: reference 01 §11 ---- */
/* What there is now: the builds that run, then (unless ActiveOnly) the records that match. event() is called before it returns. */
typedef void history_event_fn(void *arg, const Control__BuildHistoryEvent *ev);
int history_list(struct engine *g, const Control__BuildHistoryRequest *req, history_event_fn *event, void *arg, struct err *e);
/* What comes from now on (ref "": of all builds). end() when the daemon stops; the listener is gone then. A record that a
 * listener asked for by its ref is not deleted before that listener stops. */
struct history_listener;
struct history_listener *history_listen(struct engine *g, const char *ref, history_event_fn *event, void (*end)(void *arg), void *arg);
void history_listener_stop(struct history_listener *l); /* end() is not called */
size_t history_release(struct engine *g);		/* the daemon stops: all listeners end; how many there were */
void history_update(struct engine *g, const Control__UpdateBuildHistoryRequest *req, struct build_reply r);
/* The stored progress of build `ref`: packed StatusResponses, one a call. NULL when there is no record of it, or when the build is
 * still there (build_read then). end() once, then the replay is gone. */
struct history_replay;
struct history_replay *history_replay(struct engine *g, const char *ref, void (*message)(void *arg, const uint8_t *p, size_t n),
				      void (*end)(void *arg, const struct err *e), void *arg);
void history_replay_pause(struct history_replay *r, bool paused);
void history_replay_stop(struct history_replay *r); /* end() is not called */

/* ---- blobs ---- */
/* The bytes [offset, offset + size) of a blob (size <= 0, or beyond its end: to its end), read by a job, at most 256 KiB a call.
 * NOT_FOUND, INVALID_ARGUMENT, OUT_OF_RANGE (offset beyond its end) by end(). data() may pause and stop; end() is called once. */
struct blob_flow;
struct blob_flow *blob_flow_start(struct loop *l, struct blob_store *s, const char *digest, int64_t offset, int64_t size,
				  void (*data)(void *arg, const uint8_t *p, size_t n), void (*end)(void *arg, const struct err *e), void *arg);
void blob_flow_pause(struct blob_flow *f, bool paused);
void blob_flow_stop(struct blob_flow *f); /* end() is not called */
/* Remove the blobs that no snapshot and no history record names, and that are older than min_age_s. Only while no build runs:
 * else it is done when the last one has ended. done(arg) (NULL allowed) comes when it has run, or at once when it has to wait. */
void engine_collect_blobs(struct engine *g, int64_t min_age_s, void (*done)(void *arg), void *arg);

/* ---- containerd's filter language: `field.path==value,other~=regexp` ---- */
struct selector {
	struct strvec path;
	enum { SELECT_PRESENT, SELECT_EQUAL, SELECT_NOT_EQUAL, SELECT_MATCH } op;
	char *value;
};
struct selectors {
	VEC(struct selector) all; /* every one must hold; none: always */
};
int selectors_parse(const char *s, struct selectors *ret, struct err *e);
/* field() answers the value at a path, or NULL when it is absent. */
bool selectors_match(const struct selectors *s, const char *(*field)(void *ctx, const struct strvec *path), void *ctx);
void selectors_fini(struct selectors *s);

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
void bridge_new_container(struct bridge *b, const Gateway__NewContainerRequest *req, struct build_reply r);
void bridge_release_container(struct bridge *b, const Gateway__ReleaseContainerRequest *req, struct build_reply r);
void bridge_read_file_container(struct bridge *b, const Gateway__ReadFileRequest *req, struct build_reply r);
void bridge_read_dir_container(struct bridge *b, const Gateway__ReadDirRequest *req, struct build_reply r);
void bridge_stat_file_container(struct bridge *b, const Gateway__StatFileRequest *req, struct build_reply r);

/* ExecProcess: the processes of a bridge's containers over one stream of ExecMessages. Whoever carries the stream gives ops. */
struct exec_stream;
struct exec_stream_ops {
	void (*send)(void *arg, const Gateway__ExecMessage *m);
	size_t (*queued)(void *arg); /* bytes sent that have not gone yet: exec_stream_writable comes when few are left */
	void (*consumed)(void *arg, size_t n);	/* so many bytes of what exec_stream_message got have gone on */
	void (*end)(void *arg, const struct err *e); /* once, the last one; e NULL: clean. Not after exec_stream_close */
};
struct exec_stream *exec_stream_open(struct bridge *b, const struct exec_stream_ops *ops, void *arg);
/* One packed ExecMessage. end() may come from within it: the stream is gone then. */
void exec_stream_message(struct exec_stream *s, const uint8_t *p, size_t n);
void exec_stream_half_closed(struct exec_stream *s); /* the peer sends no more; end() comes when its processes have ended */
void exec_stream_writable(struct exec_stream *s);
void exec_stream_close(struct exec_stream *s); /* the peer has gone: its processes run on without input and output */
#endif
