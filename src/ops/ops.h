#ifndef OPS_OPS_H
#define OPS_OPS_H
/* The operations of the graph as the solver sees them: image, local, http, git, oci-layout, exec, file, merge, diff,
 * build. Each file is one operation: a small state machine on the loop that starts jobs (X_job.c) and answers the solver.
 *
 *  1. Loop thread only; what blocks is in *_job.c and works on values.
 *  2. A graph's messages live in an arena that its nodes share by reference (struct ops_graph), because a node outlives
 *     the build that brought it.
 *  3. Whoever reads an input's bytes fills it first (ops_fill): layers of pulled images are unpacked when needed.
 *  4. What needs the client asks any live session of the builds that want the step. */
#include "blob/blob.h"
#include "cdi/cdi.h"
#include "llb/llb.h"
#include "loop/loop.h"
#include "proxy/proxy.h"
#include "reg/reg.h"
#include "reg/reg_pools.h"
#include "run/run.h"
#include "sess/sess.h"
#include "snap/snap.h"
#include "solve/solve.h"
#include "tele/tele.h"
#include "tree/tree.h"

enum { OPS_SESSIONS_MAX = 16 };

struct ops_nested;
/* build_ended: nothing is known, the build that was asked has ended. */
struct ops_check; /* a question to a build: may a step fetch this? */
typedef void ops_check_fn(void *arg, const char *target /* NULL: it may not, see e */, const struct err *e);
typedef void ops_nested_fn(void *arg, struct snap *result /* borrowed */, bool build_ended, const struct err *e);

/* What a build keeps of the configuration that held when it started. */
struct ops_settings {
	struct reg_config *registries; /* NULL: none */
	struct run_dns *dns;           /* NULL: the host's */
};

/* What every operation uses; made once by the daemon, outlives all. */
struct ops_env {
	struct loop *loop;
	struct solver *solver;
	struct snap_store *snaps;
	struct blob_store *blobs;
	struct run_engine *run;
	struct cdi *cdi; /* devices for steps; NULL: CDI is off */
	struct sess_manager *sessions;
	struct reg_client *reg;
	struct reg_config *reg_config; /* for builds that start now; what a build uses: ops_settings */
	/* What the running build of one of these sessions started with. Borrowed; NULL: there is none. Set by engine_new. */
	const struct ops_settings *(*build_settings)(void *arg, const char *const *sessions, size_t n);
	void *settings_arg;
	struct reg_pools *reg_pools;
	const char *dir; /* <root>/slipway */
	struct db *db;
	const char *proxy_env; /* private use of the daemon */
	struct spec_platform host;
	/* The ids of the sessions of a build, its own first: the count. user is the build's (solve_build_user). */
	size_t (*build_sessions)(void *user, const char **ret, size_t max);
	struct ops_memo *(*build_memo)(void *user); /* the same user */
	/* The span of a step (digest NULL: of the build itself) in that user's trace; name is borrowed. */
	bool (*build_span)(void *user, const char *digest, const char *name, struct log_span *ret); /* true: sampled */
	/* Evaluate a definition as a part of a build (solve_build_user), for ops/nested.c. NULL: that build takes nothing more.
	 * done comes once, later; nested_cancel: it does not come any more. */
	struct ops_nested *(*nested_start)(void *user, const Pb__Definition *def, ops_nested_fn *done, void *arg);
	void (*nested_cancel)(struct ops_nested *n);
	/* A request of a step, held against that build's source policy: done once, before it returns (then NULL is returned) or
	 * later; source_check_cancel: it does not come any more. */
	struct ops_check *(*source_check)(void *user, const char *method, const char *url, ops_check_fn *done, void *arg);
	void (*source_check_cancel)(struct ops_check *c);
	struct proxy_ca *proxy_ca; /* private to proxy.c */
	struct map auth_ids; /* private to auth.c: whose credentials a session has */
	struct map turns; /* private to remote.c; empty when nothing runs */
};

/* Those of the build of these sessions, else (an empty dns: the run engine's own) those that hold now. Borrowed: reference what
 * you keep. */
struct ops_settings ops_settings(const struct ops_env *env, const char *const *sessions, size_t n);

/* ---- graphs ---- */
struct ops_graph {
	struct llb_graph *graph; /* in graph->arena, which this owns */
	unsigned refs;
};
struct ops_graph *ops_graph_new(struct llb_graph *g); /* takes the arena over; one reference */
struct ops_graph *ops_graph_ref(struct ops_graph *g);
void ops_graph_unref(struct ops_graph *g);
/* The vertex of graph node i; fills in vt, op and n_outputs. The op holds a reference to g. */
int ops_vertex(struct ops_env *env, struct ops_graph *g, size_t i, struct solve_vertex *ret, struct err *e);

/* What a source's node resolved to; borrowed from its operation. digest "": not known (yet), or local. image: of what the name
 * means; http: of the content; git: the object id that the ref names (an annotated tag: the tag's). */
struct ops_layer;
struct ops_pin {
	const struct llb_source *src;
	const char *digest;
	const struct ops_layer *layers; /* of an image; NULL: none */
	size_t n_layers;
};
bool ops_node_pin(struct solve_node *n, struct ops_pin *ret); /* false: it is no source */

/* What a step fetched through the proxy network when it ran; NULL: it did not run, or there was none. Borrowed from its node. */
const struct proxy_record *ops_node_proxied(struct solve_node *n);

/* ---- sessions ---- */
/* Ids of the sessions of the builds that want n; borrowed strings, valid until the next loop turn. */
size_t ops_sessions(struct solve_node *n, struct ops_env *env, const char **ret, size_t max);

/* ---- spans: values, zero is none ---- */
struct ops_span {
	struct log_span log;
	char name[200], traceparent[TELE_TRACEPARENT_STR];
};
void ops_span_node(struct ops_span *s, struct ops_env *env, struct solve_node *n); /* the step's, in the first build that wants it */
void ops_span_build(struct ops_span *s, struct ops_env *env, void *build, const char *digest, const char *name);
void ops_span_rename(struct ops_span *s, const char *name);
const struct log_span *ops_span_log(struct ops_span *s); /* NULL: none. Lives as s does, at its place */

/* ---- images ---- */
#define OPS_LAYER_URL "slipway.url" /* among the annotations: where a foreign layer is to be had */
struct ops_layer {
	char *digest, *media_type, *diff_id;
	int64_t size;
	struct strvec annotations; /* "k=v" */
};
/* What vouches for an image: documents that its index names, with their bytes. Source: moby/policy-helpers image/resolve.go. */
struct ops_chain_blob {
	char *digest, *media_type;
	int64_t size;
	struct strvec annotations; /* "k=v" */
	uint8_t *data;
	size_t len;
};
struct ops_chain {
	char *root, *image_manifest;
	char *attestation_manifest; /* NULL: none */
	struct strvec signatures;   /* digests of manifests */
	VEC(struct ops_chain_blob) blobs;
};
void ops_chain_free(struct ops_chain *c); /* NULL allowed */
struct ops_image {
	struct ops_chain *chain; /* when it was asked for and the name means an OCI index */
	char *ref;             /* normalised, without digest unless it was asked by digest */
	char *repo;            /* "docker.io/library/alpine" */
	char *top_digest;      /* what the name means: index or manifest */
	char *manifest_digest; /* for the platform */
	char *config;          /* JSON */
	size_t config_len;
	char *config_digest;
	struct ops_layer *layers;
	size_t n_layers;
	bool is_oci;
};
void ops_image_fini(struct ops_image *m);
struct ops_image_req {
	const char *ref;              /* any reference with tag or digest */
	const struct spec_platform *platform;
	enum llb_resolve_mode mode;
	bool no_config;               /* manifest and config are not needed: only the digest */
	bool chain;                   /* with what vouches for it; from a registry only */
	const char *const *predicates; /* and the attestations of these predicate types; copied */
	size_t n_predicates;
	const char *const *sessions;  /* copied */
	size_t n_sessions;
	const char *oci_store, *oci_session; /* oci-layout: from the client's store; NULL: registry */
	struct ops_span span;
};
struct ops_image_get;
/* Resolve and read manifest and config. done once, later; image borrowed (move what you keep). */
struct ops_image_get *ops_image_get(struct ops_env *env, const struct ops_image_req *req,
				    void (*done)(void *arg, struct ops_image *image, const struct err *e), void *arg);
void ops_image_get_cancel(struct ops_image_get *g); /* done follows with CANCELLED */

/* ---- http(s) and git: what a name means now ---- */
/* One answer, shared by reference. http: digest of the content, file name, Last-Modified ("" or an HTTP date). git: object id
 * (of an annotated tag: the tag's), full ref, and the commit that the tag points to ("": it is no tag). */
struct ops_known {
	unsigned refs;
	char *digest, *name, *extra;
	struct snap *snap; /* the content, held; NULL: not fetched */
	uint8_t *commit_object, *tag_object; /* git, when asked for; NULL: none */
	size_t commit_len, tag_len;
};
struct ops_known *ops_known_ref(struct ops_known *k);
void ops_known_unref(struct ops_known *k); /* NULL allowed */
/* What a build has resolved: embedded in the build, ended with it. */
struct ops_memo {
	struct map by_key;
	int64_t compat; /* the build's compatibility version; 0: current */
};
void ops_memo_fini(struct ops_memo *m);
enum ops_sum { OPS_SUM_NONE, OPS_SUM_SHA256, OPS_SUM_SHA384, OPS_SUM_SHA512 };
struct ops_http_req {
	const struct llb_source *src; /* its strings must live until done */
	const char *const *sessions;  /* copied */
	size_t n_sessions;
	struct solve_node *node; /* who asks: a vertex ... */
	void *build;             /* ... or a frontend, by its build (the user of env->build_memo) */
	bool fetch;              /* the content is wanted although the checksum is given */
	enum ops_sum sum;        /* a checksum over the content and a suffix */
	const void *suffix;      /* copied */
	size_t suffix_len;
};
struct ops_http_get;
/* done once, later; known and sum borrowed; sum ("sha512:...") is NULL unless it was asked for. */
struct ops_http_get *ops_http_get(struct ops_env *env, const struct ops_http_req *req,
				  void (*done)(void *arg, struct ops_known *known, const char *sum, const struct err *e), void *arg);
bool ops_http_date(const char *s, int64_t *ret_unix_s); /* any thread; false: it is none */
void ops_http_get_cancel(struct ops_http_get *g); /* done follows with CANCELLED; the build is not looked at any more */

struct ops_git_req {
	const struct llb_source *src; /* its strings must live until done */
	const char *const *sessions;  /* copied */
	size_t n_sessions;
	struct solve_node *node; /* as in ops_http_req */
	void *build;
	bool objects;            /* commit_object and tag_object are wanted */
	struct ops_known *known; /* check this out; NULL: resolve only */
};
struct ops_git_get;
/* done once, later; both borrowed; checkout NULL unless it was asked for. */
struct ops_git_get *ops_git_get(struct ops_env *env, const struct ops_git_req *req,
				void (*done)(void *arg, struct ops_known *known, struct snap *checkout, const struct err *e), void *arg);
void ops_git_get_cancel(struct ops_git_get *g); /* as ops_http_get_cancel */

/* ---- filling lazy snapshots ---- */
struct ops_fill;
struct ops_fill_req {
	struct snap *const *snaps; /* NULLs allowed; referenced until done */
	size_t n;
	const char *const *sessions;
	size_t n_sessions;
	struct ops_span span;
	bool blobs_only;           /* only have the blobs locally (export), do not unpack; for all layers, lazy or not */
	/* Progress: bytes of a blob, unpacking. May be NULL. */
	void (*status)(void *arg, const struct prog_status *s);
	void (*done)(void *arg, const struct err *e);
	void *arg;
};
/* done once, later. NULL when there is nothing to do: done is then not called. */
struct ops_fill *ops_fill(struct ops_env *env, const struct ops_fill_req *req);
void ops_fill_cancel(struct ops_fill *f);

/* ---- the content index of a snapshot (sidecar files) ---- */
char *ops_index_path(const struct ops_env *env, int64_t snap_id); /* heap */
/* Job: load or scan. */
int ops_index_load_job(const char *path, int rootfd, const atomic_bool *cancelled, struct tree_index **ret, struct err *e);

/* ---- registry work in jobs ---- */
/* The auth callback of reg_io for jobs: asks the sessions by way of the loop. */
struct ops_auth {
	struct ops_env *env;
	char *sessions[OPS_SESSIONS_MAX];
	size_t n_sessions;
};
void ops_auth_init(struct ops_auth *a, struct ops_env *env, const char *const *sessions, size_t n);
void ops_auth_fini(struct ops_auth *a);
int ops_auth_ask(void *ctx, const struct reg_challenge *c, struct reg_answer *ret, struct err *e); /* job; blocks */
char *ops_auth_identity(void *ctx, const char *host); /* job; blocks; see reg_io.identity */
const char *ops_auth_authority(const struct ops_auth *a);
void ops_auth_use(struct ops_auth *a, struct reg_io *io); /* io asks by it from now on */
const void *ops_auth_group(const struct ops_auth *a);     /* for a registry slot: builds take turns */

/* ---- exec, also for gateway containers: see exec.h ---- */
#endif
