#ifndef BUILD_INTERNAL_H
#define BUILD_INTERNAL_H
#include "build/build.h"

enum { STATUS_WAIT_MS = 6000, BRIDGE_WAIT_MS = 3000, KEEP_MS = 10000 };

struct ref_wait {
	void (*fn)(void *arg, struct snap *result, const struct err *e);
	void *arg;
};
/* A lazy reference: a definition, loaded when first needed. The id is what frontends know it by. */
struct ref {
	char id[ID_STR];
	struct build *build;
	uint8_t *def; /* packed pb.Definition; NULL with len 0: scratch */
	size_t def_len;
	struct ops_graph *graph;
	struct solve_node *node;
	size_t output;
	struct solve_waiter *waiter;
	bool done, failed, scratch;
	struct snap *result; /* once done; NULL is scratch */
	struct err error;
	VEC(struct ref_wait) waits;
	unsigned refs;
	struct solve_node **nodes;  /* one a node of the graph */
	struct prov_scope *scope;   /* that it was made in; NULL: none */
	struct source_rules *rules; /* that came with it; NULL: none */
	struct ref_check *checks;   /* of its sources, while they are under way */
	size_t n_checks, checks_left;
	bool loading, checks_starting, sources_changed;
};
struct ref *ref_new(struct build *b, const Pb__Definition *def /* NULL: scratch */);
struct ref *ref_hold(struct ref *r);
void ref_drop(struct ref *r);
/* Evaluate: fn is called once, later. Loading errors come by it too. */
void ref_eval(struct ref *r, void (*fn)(void *arg, struct snap *result, const struct err *e), void *arg);
void ref_eval_forget(struct ref *r, void *arg); /* waits with this arg are not called any more */
/* Rules for its sources beside the build's own, copied and checked; before it is evaluated. */
int ref_rules(struct ref *r, Policy__Policy *const *v, size_t n, struct err *e);

/* What a frontend returned: references by platform, or one; metadata. */
struct result_ref {
	char *key; /* platform id; NULL: the single one */
	struct ref *ref; /* NULL: no reference */
};
struct result_meta {
	char *key;
	uint8_t *data;
	size_t len;
};
struct result_subject { /* of an attestation */
	bool raw;
	char *name, *digest;
};
struct provenance;
struct result_attest {
	char *key; /* platform id */
	bool bundle;
	struct ref *ref; /* NULL: none */
	char *path, *predicate_type;
	VEC(struct result_subject) subjects;
	VEC(struct result_meta) meta;
	struct provenance *provenance; /* the daemon's own; NULL: a frontend's */
};
struct result {
	VEC(struct result_attest) attests;
	VEC(struct result_ref) refs;
	VEC(struct result_meta) meta;
	bool is_map;
};
void result_fini(struct result *r);
void result_copy(struct result *dst, const struct result *src);
struct result_attest *result_attest_add(struct result *r, const char *key, bool bundle, const char *path, const char *predicate_type);
void result_attest_meta(struct result_attest *a, const char *key, const void *p, size_t n);
const struct result_meta *result_meta_find(const struct result *r, const char *key);
void result_meta_set(struct result *r, const char *key, const void *p, size_t n);

/* Answers to one frontend: the references it may name, its inputs, where its Return goes. */
struct bridge {
	struct build *build;
	struct prov_scope *scope; /* the request it serves */
	struct map refs; /* id -> struct ref * (held) */
	struct map inputs; /* name -> struct packed * */
	bool returned, gone;
	void (*on_return)(struct bridge *b, struct result *res /* taken */, const struct err *e);
	void *on_return_arg;
	struct list calls; /* struct bridge_call: under way */
	struct map containers; /* id -> struct container * */
	struct map results; /* id -> struct snap * (held): what failed steps left, see solve_error.c */
	struct list streams; /* struct exec_stream */
};
struct source_rules;
/* What a source means, for a policy session: as bridge_resolve_source_meta, but without that session, and nothing is noted as used. */
void bridge_resolve_for_policy(struct bridge *b, const Gateway__ResolveSourceMetaRequest *req, struct build_reply r);
struct bridge *build_bridge_new(struct build *b);
void build_bridge_free(struct bridge *b); /* calls under way are answered CANCELLED */
struct ref *bridge_add(struct bridge *b, struct ref *r /* held by the bridge from here on */);

enum build_state { BUILD_FRONT, BUILD_SOLVE, BUILD_SHIP, BUILD_SAVE, BUILD_DONE };

struct build {
	struct engine *engine;
	char *ref;
	char *session;
	char *frontend;
	struct strvec attrs; /* "k=v" */
	enum build_state state;
	struct solve_build *solve;
	struct bridge *bridge; /* of a client-side or in-process frontend */
	struct result result;
	size_t at; /* of refs being evaluated */
	struct policy *policy; /* that it started with */
	struct build_reply reply;
	bool replied, internal;
	struct list all;
	struct loop_timer keep;
	uint8_t *req; /* packed request */
	size_t req_len;
	struct arena *arena;
	Control__SolveRequest *pb; /* in arena */
	struct front_run *front;
	struct attest_run *attest;
	struct prov_scope *prov; /* root scope; NULL once all is let go */
	struct list checks; /* struct ops_check: requests of the proxy network that wait for a verdict */
	struct list nested; /* struct ops_nested: graphs that its steps brought */
	struct ship_run_all *ship;
	struct list shares; /* caches that it imports: share.c */
	size_t evaluating;
	struct ops_memo memo; /* what its sources resolved to */
	struct err error; /* how it ended */
	struct tele_context trace;
	char root_span[17];
	struct strvec response;
	Control__BuildHistoryRecord *record; /* in arena; NULL: none is kept */

	VEC(struct prog_event *) events;
	struct map last_status; /* vertex + id -> index + 1 into events */
	bool events_closed;
	struct list readers;
	VEC(struct ops_graph *) graphs; /* for source maps of errors */
};

struct policy { /* an engine_policy that is kept */
	unsigned refs;
	bool network_host, insecure, devices, dockerfile_off, gateway_off, proxy_network;
	struct strvec gateway_allowed;
	struct ops_settings settings;
};

struct engine {
	struct engine_conf conf;
	struct policy *policy; /* of builds that start now */
	struct gc *gc;
	int64_t history_max_age_ns, history_max_entries;
	struct list builds;
	struct list waits, reader_waits; /* for a build that is to come */
	void (*on_idle)(void *arg);
	void *idle_arg;
	struct history *history;
	struct collect *collect;
	struct json_t *provenance_env; /* see provenance_env.c */
};

struct build *engine_find(struct engine *g, const char *ref);
void engine_build_came(struct engine *g, struct build *b);
Types__WorkerRecord *engine_worker(struct engine *g, struct arena *a, bool brief);

/* policy.c */
struct policy *policy_ref(struct policy *p);
void policy_unref(struct policy *p); /* NULL allowed */
const struct ops_settings *policy_of_sessions(void *engine, const char *const *sessions, size_t n); /* ops_env.build_settings */

/* gc.c */
struct gc *gc_new(struct engine *g);
void gc_free(struct gc *c);
void gc_set(struct gc *c, const struct engine_policy *p);
void gc_soon(struct gc *c); /* a build has ended */
const struct engine_gc_rule *gc_rule(const struct gc *c, size_t i); /* NULL: there is none */

/* usage.c: what a rule lets go; removed as in engine_prune, NULL: not told. done comes once, later. */
void engine_prune_rule(struct engine *g, const struct engine_gc_rule *r, void (*removed)(void *arg, int64_t bytes), void (*done)(void *arg),
		       void *arg);

/* progress.c */
void build_event(struct build *b, struct prog_event *ev); /* borrowed */
void build_events_close(struct build *b);
void build_readers_attach(struct engine *g, struct build *b);
void build_readers_drop(struct build *b);
/* A vertex of the build's own: "load metadata", "exporting to image". digest is sha256 of id. */
struct build_vertex {
	struct build *build;
	struct prog_vertex v;
};
struct build_vertex *build_vertex_start(struct build *b, const char *id, const char *name);
void build_vertex_status(struct build_vertex *v, const struct prog_status *s);
void build_vertex_log(struct build_vertex *v, int stream, const char *text);
void build_vertex_end(struct build_vertex *v, const struct err *e); /* frees */

/* front_run.c: in-process frontends */
struct front_run *front_run_start(struct build *b, struct bridge *parent, const char *frontend, const struct strvec *opts,
				  void (*done)(void *arg, struct result *res /* taken */, const struct err *e), void *arg);
void front_run_cancel(struct front_run *f); /* done is not called any more */

/* proxy_check.c: see ops_env */
struct ops_check *build_source_check(void *user, const char *method, const char *url, ops_check_fn *done, void *arg);
void build_source_check_cancel(struct ops_check *c);
void build_checks_end(struct build *b);
/* nested.c: see ops_env */
struct ops_nested *build_nested_start(void *user, const Pb__Definition *def, ops_nested_fn *done, void *arg);
void build_nested_cancel(struct ops_nested *n);
void build_nested_end(struct build *b); /* before its solve_build goes */

/* trace.c */
void build_trace_init(struct build *b);
/* The span of a step (digest NULL: of the build itself); user is a build, name is borrowed. True: it is sampled. */
bool build_span(void *user, const char *digest, const char *name, struct log_span *ret);

/* Add typed details to an error that a client will see: the vertex's source location, the frontend. */
void build_error_details(struct build *b, struct err *e);
/* What went wrong inside a build is UNKNOWN to clients (they print the bare text then), as BuildKit has it; only what they
 * act upon keeps its code. */
void build_error_code(struct err *e);
const char *build_attr(const struct build *b, const char *key);
size_t build_sessions(void *user, const char **ret, size_t max);
struct ops_memo *build_memo(void *user);

/* history.c: records in the database, who listens */
struct history *history_new(struct engine *g);
void history_free(struct history *h);
void history_gc_soon(struct history *h); /* the limits are others now */
void history_started(struct history *h, struct build *b);
int history_completed(struct history *h, const Control__BuildHistoryRecord *rec, struct err *e); /* stored, then told */
void history_unsynced(struct history *h, const char *digest); /* blob_sync is due */
int history_blobs(struct history *h, struct map *ret, struct err *e); /* digests of what the records name */
const Control__BuildHistoryRecord *history_get(struct history *h, const char *ref, struct arena *a, struct err *e); /* NULL: none, or *e */
/* history_record.c: the record of one build, from its start to its end. Nothing happens for internal builds. */
void build_record_start(struct build *b);
void build_record_export(struct build *b, size_t exporter, const struct strvec *response); /* what an exporter made */
/* An attestation of the result (key NULL: of the single one): a blob that is in the store. */
void build_record_attest(struct build *b, const char *key, const char *digest, int64_t bytes, const char *media_type, const char *predicate_type);
void build_record_end(struct build *b, const struct err *e /* NULL: success */); /* while the result is still there */
/* After the events are closed: logs and error become blobs, the record is stored; then saved(arg), at once or later. */
void build_record_save(struct build *b, void (*saved)(void *arg, const struct err *e), void *arg);
/* history_filter.c */
struct history_filter;
int history_filter_new(const char *const *in, size_t n, struct history_filter **ret, struct err *e);
bool history_filter_match(const struct history_filter *f, const Control__BuildHistoryRecord *r);
void history_filter_free(struct history_filter *f);
/* collect.c */
struct collect *collect_new(struct engine *g);
void collect_free(struct collect *c);
void collect_kick(struct collect *c);	 /* a build has ended */
void collect_disturb(struct collect *c); /* a build has started */
/* Of a record that was deleted: goes when nothing names it; of a result, with what it names, when no build runs. */
void collect_unwanted(struct collect *c, const char *digest, bool result);

/* ship_run.c: exporters one after the other; done with the response map ("k=v" lists) */
struct ship_run_all *ship_run_start(struct build *b, void (*done)(void *arg, const struct strvec *response, const struct err *e), void *arg);
void ship_run_cancel(struct ship_run_all *s);
int ship_check(const Control__SolveRequest *req, struct err *e); /* exporters and their attributes, before anything runs */
#endif
