#ifndef LLB_LLB_H
#define LLB_LLB_H
/* Operations of the build graph: decode and check a definition, make one, name what an operation's result depends on.
 *
 * The "struct" of an operation is the generated message (Pb__Op and friends), living in the caller's arena and not
 * changed after it was made. Everything here is pure: any thread, no blocking, no I/O. Pointers that are returned live
 * as long as the arena that was given. A capped arena that is exhausted is RESOURCE_EXHAUSTED, never a crash.
 * Sources: BuildKit solver/llbsolver/{vertex.go,ops}, solver/pb, client/llb; error texts are the peer's. */
#include "base/base.h"
#include "proto/ops.pb-c.h"
#include "spec/platform.h"

#define LLB_ROOT_MOUNT "/"
#define LLB_DEFINITION_FILE "buildkit.llb.definition" /* also the name of a build op's definition input */
#define LLB_CUSTOM_NAME "llb.customname"
enum { LLB_NONE = -1 }; /* an empty input, a skipped output, the LLB builder */

/* ---- definitions in ---------------------------------------------------------------------------------------------- */

struct llb_edge {
	size_t node;    /* index in the graph; lower than that of its user */
	int64_t output; /* which output of that node, >= 0; whether the node has it shows when it ran */
};
struct llb_node {
	char digest[DIGEST_STR];        /* as it counts now: after a source policy changed something */
	char client_digest[DIGEST_STR]; /* as the client knows it: for metadata, source map, errors and progress */
	const char *name;               /* for people: llb.customname or made from the op */
	Pb__Op *op;                     /* platform always set and normalised */
	ProtobufCBinaryData bytes;      /* the op as it came, borrowed from the definition */
	Pb__Platform *client_platform;  /* as it was sent, NULL: none */
	const Pb__OpMetadata *meta;     /* NULL: none */
	struct llb_edge *inputs;        /* op->n_inputs of them, in order */
	bool proxy_network;             /* the digest carries the proxy-network mark */
	bool changed;                   /* by llb_graph_redigest: digest != client_digest */
};
struct llb_graph {
	struct arena *arena;
	struct llb_node *nodes; /* reachable from the root only, inputs before users */
	size_t n_nodes;         /* 0: the scratch result */
	struct llb_edge root;
	const Pb__Source *source; /* NULL: none; its keys are client digests */
};
struct llb_load {
	const struct spec_platform *default_platform; /* for ops without one; NULL: this machine's */
	bool proxy_network;                           /* SolveRequest.ProxyNetwork */
	bool skip_caps;                               /* do not check metadata caps (a definition of our own) */
	size_t max_ops;                               /* 0: LLB_MAX_OPS */
};
enum { LLB_MAX_OPS = 100000 };
/* def and what it points at must outlive the graph (same arena, as a rule). opt NULL: defaults. A definition that is
 * NULL or has no op is the scratch result. Errors begin with "failed to load LLB: "; code UNKNOWN as the peer's, except
 * where a limit of ours was passed. */
int llb_graph_load(const Pb__Definition *def, struct arena *a, const struct llb_load *opt, struct llb_graph **ret,
		   struct err *e);
/* After source ops were replaced in place (node->op->source->identifier or attrs, by a policy): marshal again and
 * recompute the digests of what changed and of all above it. Names of changed sources follow. */
int llb_graph_redigest(struct llb_graph *g, struct err *e);
const struct llb_node *llb_graph_find(const struct llb_graph *g, const char *client_digest); /* NULL when absent */
/* The locations of a vertex in its source map: the number, and the first into *ret (borrowed; NULL allowed). */
size_t llb_graph_locations(const struct llb_graph *g, const struct llb_node *n, Pb__Location ***ret);
/* Value of a description key, NULL when absent. */
const char *llb_node_description(const struct llb_node *n, const char *key);
static inline bool llb_node_ignore_cache(const struct llb_node *n) { return n->meta && n->meta->ignore_cache; }
/* The rules an op must keep by itself ("invalid exec op with no args", ...). */
int llb_op_validate(const Pb__Op *op, struct err *e);
/* How many outputs an op declares: what an edge's output must stay below. Never negative. */
size_t llb_op_outputs(const Pb__Op *op);

/* ---- bytes and JSON out ------------------------------------------------------------------------------------------ */

/* Go's deterministic marshal of any message of ours: fields ascending, oneof members behind all others, maps sorted by
 * key, a map entry's key and value always written, zero values left out. Appends to out. */
void llb_marshal(const ProtobufCMessage *m, struct buf *out);
void llb_marshal_op(const Pb__Op *op, struct buf *out);
/* Go's encoding/json form of any ops.proto message, with the peer's special forms of Op, FileAction and UserOpt. */
void llb_json(struct json_w *w, const ProtobufCMessage *m);

/* ---- cache keys -------------------------------------------------------------------------------------------------- */

/* What of an input counts. An empty path is the whole tree. */
struct llb_selector {
	const char *path;
	bool wildcard, follow_links;
	const char **include_patterns, **exclude_patterns, **required_paths;
	size_t n_include_patterns, n_exclude_patterns, n_required_paths;
};
struct llb_dep {
	char selector[DIGEST_STR]; /* "": none */
	bool content; /* may be keyed by content: hash these selectors (none: the whole tree, links not followed) */
	struct llb_selector *selectors;
	size_t n_selectors;
};
struct llb_cache_map {
	char digest[DIGEST_STR];
	struct llb_dep *deps; /* one an input */
	size_t n_deps;
};
/* For exec, file, merge, diff, build and passthrough; a source's key needs the world (llb_source_digest). op->platform
 * NULL: this machine's. The digests are BuildKit's own. */
int llb_cache_map(const Pb__Op *op, struct arena *a, struct llb_cache_map *ret, struct err *e);
/* The JSON under llb_cache_map's digest, for explaining a miss. */
int llb_cache_text(const Pb__Op *op, struct buf *out, struct err *e);
/* The digest of a source's cache key; a key that starts with "session:" gives "random:<hex>". */
void llb_source_digest(const char *key, char out[static DIGEST_STR + 8]);

/* ---- sources ----------------------------------------------------------------------------------------------------- */

enum llb_scheme { LLB_IMAGE, LLB_OCI_LAYOUT, LLB_IMAGE_BLOB, LLB_OCI_BLOB, LLB_GIT, LLB_HTTP, LLB_LOCAL };
enum llb_resolve_mode { LLB_RESOLVE_DEFAULT, LLB_RESOLVE_PULL, LLB_RESOLVE_LOCAL };
struct llb_strs {
	const char **v;
	size_t n;
	bool set; /* the attribute was there and not JSON null: Go's nil or not */
};
struct llb_image_ref {       /* a containerd reference: as it was written, not normalised */
	const char *text;    /* locator[:tag][@digest] */
	const char *locator; /* host and path */
	const char *host;
	const char *tag, *digest; /* "" when absent */
};
/* All strings are "" when absent, never NULL. */
struct llb_source {
	enum llb_scheme scheme;
	const char *identifier; /* canonical, "scheme://..." */
	union {
		struct {
			struct llb_image_ref ref;
			const Pb__Platform *platform; /* NULL: default */
			enum llb_resolve_mode mode;
			const char *record_type; /* "regular", "internal", "frontend" */
			int64_t layer_limit;     /* 0: none */
			const char *checksum;
			const char *session, *store; /* oci-layout */
		} image;                             /* LLB_IMAGE, LLB_OCI_LAYOUT */
		struct {
			struct llb_image_ref ref;
			const char *session, *store;
			const char *record_type, *filename;
			int64_t perm, uid, gid;
		} blob; /* LLB_IMAGE_BLOB, LLB_OCI_BLOB */
		struct {
			const char *remote, *ref, *subdir, *checksum;
			bool keep_git_dir, skip_submodules, fetch_by_commit, checkout_bundle;
			const char *auth_token_secret, *auth_header_secret, *known_ssh_hosts, *mount_ssh_sock, *mtime;
			const char *bundle, *bundle_session, *bundle_store;
			bool verify; /* one of the signature attributes was given */
			const char *sig_pubkey;
			bool sig_reject_expired, sig_require_signed_tag, sig_ignore_signed_tag;
		} git;
		struct {
			const char *url, *checksum, *filename;
			int64_t perm, uid, gid; /* perm 0: not given */
			const char *auth_header_secret;
			const char *accept, *user_agent; /* request headers */
			bool has_accept, has_user_agent;
			const char *sig_pubkey, *sig_signature;
		} http;
		struct {
			const char *name, *session; /* name already carries a session prefix: "prefix-name" */
			const char *shared_key_hint;
			struct llb_strs include_patterns, exclude_patterns, follow_paths, metadata_exceptions;
			bool differ_none, metadata_only;
		} local;
	};
};
/* "unknown scheme X", "failed to parse X", "invalid layer limit X", ... platform: the op's, may be NULL. */
int llb_source_parse(const Pb__SourceOp *op, const Pb__Platform *platform, struct arena *a, struct llb_source *ret,
		     struct err *e);
/* Cache key texts; put them through llb_source_digest. Appended to out.
 * Image: before the manifest is read, from the resolved top digest; afterwards the chain ID is the text itself. */
void llb_source_image_key(const char *digest, const Pb__Platform *p, int64_t layer_limit, struct buf *out);
void llb_source_blob_key(const struct llb_source *s, struct buf *out);
/* last_modified: "" or an HTTP date; checksum: the content's digest. */
void llb_source_http_key(const struct llb_source *s, const char *filename, const char *checksum, const char *last_modified,
			 struct buf *out);
/* commit: what was resolved; full_ref is put behind ".git#" when the git dir is kept. */
void llb_source_git_key(const struct llb_source *s, const char *commit, const char *full_ref, struct buf *out);
/* session: the id in use when the attribute is absent. */
void llb_source_local_key(const struct llb_source *s, const char *session, struct buf *out);

/* ---- definitions out --------------------------------------------------------------------------------------------- */

/* A message in the arena, initialised: Pb__ExecOp *x = llb_new(a, Pb__ExecOp, pb__exec_op__init);
 * The arena must be uncapped for the helpers of this section; they cannot fail. */
#define llb_new(a, T, init)                          \
	({                                           \
		T *_m = arena_alloc((a), sizeof(T)); \
		init(_m);                            \
		_m;                                  \
	})
/* Append to a repeated field: LLB_PUSH(a, exec->n_mounts, exec->mounts, m). Grows by powers of two in the arena. */
#define LLB_PUSH(a, n, v, x)                                                                       \
	do {                                                                                       \
		if (((n) & ((n)-1)) == 0) {                                                        \
			__typeof__((v)[0]) *_v = arena_alloc((a), ((n) ? (n)*2 : 1) * sizeof *_v); \
			if (n) memcpy(_v, (v), (n) * sizeof *_v);                                  \
			(v) = _v;                                                                  \
		}                                                                                  \
		(v)[(n)++] = (x);                                                                  \
	} while (0)
/* Ops with their oneof and the empty constraints that every Go client sends. Source and exec ops get `platform` (NULL:
 * none); of the sources only docker-image and oci-layout keep it, as in Go. */
Pb__Op *llb_op_source(struct arena *a, const char *identifier, const Pb__Platform *platform);
Pb__Op *llb_op_exec(struct arena *a, const Pb__Platform *platform); /* with an empty meta, stubs removed recursively */
Pb__Op *llb_op_file(struct arena *a);
Pb__Op *llb_op_merge(struct arena *a);
Pb__Op *llb_op_diff(struct arena *a); /* both sides scratch */
Pb__Op *llb_op_build(struct arena *a);
Pb__Op *llb_op_passthrough(struct arena *a, const char *id);
void llb_op_attr(struct arena *a, Pb__Op *op, const char *key, const char *value); /* of a source or build op; replaces */
/* The index of this input; one that the op already has is not added twice (exec, file); NULL digest: LLB_NONE. */
int64_t llb_op_input(struct arena *a, Pb__Op *op, const char *digest, int64_t output);
/* As llb_op_input, but always a new one (merge, diff, as in Go). */
int64_t llb_op_input_new(struct arena *a, Pb__Op *op, const char *digest, int64_t output);
Pb__Mount *llb_exec_mount(struct arena *a, Pb__Op *op, const char *dest); /* input and output none */
Pb__FileAction *llb_file_action(struct arena *a, Pb__Op *op);             /* input, secondary, output none */
Pb__OpMetadata *llb_meta(struct arena *a);
void llb_meta_cap(struct arena *a, Pb__OpMetadata *m, const char *cap);
void llb_meta_describe(struct arena *a, Pb__OpMetadata *m, const char *key, const char *value);
Pb__Platform *llb_platform(struct arena *a, const struct spec_platform *p);
void llb_platform_get(const Pb__Platform *p, struct spec_platform *ret); /* heap copy; p NULL: the host's */

struct llb_def;
struct llb_range {
	int32_t start_line, start_character, end_line, end_character;
};
struct llb_def *llb_def_new(struct arena *a);
/* A source file for locations; equal ones are kept once. The index for llb_def_add. definition may be NULL. */
int llb_def_file(struct llb_def *d, const char *filename, const char *language, const void *data, size_t n,
		 Pb__Definition *definition);
/* Marshal and add op after its inputs were added; an op that is there already only merges meta (NULL allowed) and
 * locations. file -1 or n_ranges 0: no location. Answers the digest, borrowed from the arena. */
const char *llb_def_add(struct llb_def *d, const Pb__Op *op, const Pb__OpMetadata *meta, int file,
			const struct llb_range *ranges, size_t n_ranges);
/* Close with the terminal op. digest NULL: the scratch result (an empty definition). Only ops that the root needs are
 * kept. May be called several times with different roots. */
Pb__Definition *llb_def_finish(struct llb_def *d, const char *digest, int64_t output);
/* Take in a definition made elsewhere (a named context, a frontend's input): its ops, metadata and locations. The root's
 * digest and output; NULL digest when it is scratch. */
int llb_def_import(struct llb_def *d, const Pb__Definition *def, const char **ret_digest, int64_t *ret_output, struct err *e);

/* ---- capabilities ------------------------------------------------------------------------------------------------ */

struct llb_cap {
	const char *id;
	bool implemented; /* announced, and accepted in metadata */
	bool deprecated;
};
extern const struct llb_cap llb_caps[];         /* LLB, sorted by id, ends with a NULL id */
extern const struct llb_cap llb_gateway_caps[]; /* of frontends, sorted by id, ends with a NULL id */
/* "unknown API capability X", or that we do not have it (code UNIMPLEMENTED). */
int llb_cap_check(const char *id, struct err *e);
bool llb_cap_has(const struct llb_cap *table, const char *id); /* known and implemented */
#endif
