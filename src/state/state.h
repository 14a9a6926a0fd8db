#ifndef STATE_STATE_H
#define STATE_STATE_H
/* File system states and the vertices behind them, as client/llb has them.
 *
 * A state is a value: where its files come from (an output of a vertex) and the settings that later steps take over.
 * Vertices are built once and become bytes only in graph_marshal: the build context's options are known last, and the order
 * of the operations follows from the root.
 * Invariants: (1) all lives in one uncapped arena; (2) a vertex's digest is computed once and then fixed; (3) an output
 * with `make` is filled in before it is used. */
#include "llb/llb.h"
#include "spec/platform.h"

struct vertex;
struct output {
	struct vertex *v;                          /* NULL: scratch */
	const struct mount *mount;                 /* of an exec: the output's number follows from the sorted mounts */
	const struct spec_platform *platform;      /* NULL: not said */
	void (*make)(void *arg, struct output *o); /* sets v and clears itself */
	void *arg;
};
/* A persistent list of variables: the newest first. */
struct env {
	const struct env *parent;
	const char *key, *value; /* value NULL: deleted */
};
struct state {
	struct output *out; /* NULL: scratch */
	const struct env *env;
	const char *dir, *user, *hostname;
	Pb__NetMode network;
	const struct spec_platform *platform; /* normalised; NULL: not said */
};
struct source_file {
	const char *filename, *language;
	const void *data;
	size_t n;
	Pb__Definition *def;
};
/* What one operation says of itself: constraints, metadata, places in the source. */
struct note {
	const struct spec_platform *platform;
	Pb__OpMetadata *meta;
	const struct source_file *file; /* NULL: no location */
	const struct llb_range *ranges;
	size_t n_ranges;
};
struct note note_new(struct arena *a);
struct note note_clone(struct arena *a, const struct note *n);
void note_name(struct arena *a, struct note *n, const char *name); /* llb.customname */
void note_internal(struct arena *a, struct note *n, const char *name);
void note_group(struct arena *a, struct note *n, const char *id, const char *name, bool weak);

/* ---- variables ---- */
const struct env *env_add(struct arena *a, const struct env *e, const char *k, const char *v); /* v NULL deletes */
const char *env_get(const struct env *e, const char *k);                                       /* NULL when absent */
struct keys {
	const char **v;
	size_t n;
};
struct keys env_keys(struct arena *a, const struct env *e); /* oldest first, by the time of the last setting */

/* ---- states ---- */
struct state state_scratch(void);
struct state state_of(struct arena *a, struct output *o); /* NewState */
struct state state_with_output(struct arena *a, struct state s, struct output *o);
struct state state_env(struct arena *a, struct state s, const char *k, const char *v);
struct state state_dir(struct arena *a, struct state s, const char *dir);
struct state state_platform(struct arena *a, struct state s, const struct spec_platform *p);
const struct spec_platform *platform_dup(struct arena *a, const struct spec_platform *p);
const struct spec_platform *platform_normal(struct arena *a, const struct spec_platform *p);
const char *platform_text(struct arena *a, const struct spec_platform *p); /* FormatAll */

/* ---- sources ---- */
/* The source keeps note; attributes are added with source_attr before the state is marshalled. */
struct vertex *source_new(struct arena *a, const char *id, const struct note *note);
void source_attr(struct arena *a, struct vertex *v, const char *k, const char *val);
void source_cap(struct arena *a, struct vertex *v, const char *cap);
struct output *vertex_output(struct arena *a, struct vertex *v);
struct local_opt {
	const char *name, *session, *shared_key;
	char *const *follow, *const *exclude;
	size_t n_follow, n_exclude;
	bool differ_none;
	const char *custom_name;
};
struct output *local_output(struct arena *a, const struct local_opt *o);
/* ref already normalised; mode as in image-resolve-mode, "default" says nothing. */
struct output *image_output(struct arena *a, const char *ref, const char *mode, const struct note *note);
struct git_opt {
	const char *remote, *ref, *subdir, *checksum, *mtime;
	bool keep_git_dir, skip_submodules, fetch_by_commit;
};
struct output *git_output(struct arena *a, const struct git_opt *o, const struct note *note);
struct output *http_output(struct arena *a, const char *url, const char *filename, const char *checksum,
			   const struct note *note);
/* Another's definition as a state; the settings are those of an empty one. */
int import_output(struct arena *a, const Pb__Definition *def, struct output **ret, struct err *e); /* *ret NULL: scratch */

/* ---- file operations ---- */
struct action;
struct chown {
	bool set, has_user, has_group;
	const char *user, *group; /* NULL: the number */
	uint32_t uid, gid;
};
struct chown chown_parse(struct arena *a, const char *s);
struct copy_opt {
	bool has_mode;
	uint32_t mode;
	const char *mode_text;
	bool follow_symlinks, contents_only, unpack, create_dest, wildcard, empty_wildcard;
	const char **include, **exclude, **required;
	size_t n_include, n_exclude, n_required;
	struct chown owner;
};
struct actions { /* one file operation under way; {0} is empty */
	struct action *v;
	size_t n;
};
void action_copy(struct arena *a, struct actions *l, struct state from, const char *src, const char *dest,
		 const struct copy_opt *o);
void action_mkdir(struct arena *a, struct actions *l, const char *path, uint32_t mode, bool parents, struct chown owner,
		  int64_t time_ns);
void action_mkfile(struct arena *a, struct actions *l, const char *path, uint32_t mode, const void *data, size_t n);
struct state state_file(struct arena *a, struct state s, const struct actions *l, const struct note *note);
struct state state_merge(struct arena *a, const struct state *v, size_t n, struct note note);

/* ---- commands ---- */
struct mount {
	const char *target, *selector, *cache_id;
	struct output *source; /* NULL: scratch */
	bool readonly, tmpfs, no_output;
	int64_t tmpfs_size;
	Pb__CacheSharingOpt sharing;
	size_t order;
};
struct secret {
	const char *id, *target, *env; /* target NULL: no file */
	uint32_t mode, uid, gid;
	bool optional;
};
struct ssh {
	const char *id, *target;
	uint32_t mode, uid, gid;
	bool optional;
};
struct exec {
	struct state base;
	const char **args;
	size_t n_args;
	const char *cgroup_parent;
	const Pb__ProxyEnv *proxy; /* NULL: none */
	Pb__SecurityMode security;
	struct mount **mounts;
	struct secret *secrets;
	struct ssh *sshs;
	Pb__Ulimit **ulimits;
	Pb__HostIP **hosts;
	Pb__CDIDevice **devices;
	size_t n_mounts, n_secrets, n_sshs, n_ulimits, n_hosts, n_devices;
};
struct mount *exec_mount(struct arena *a, struct exec *x, const char *target, struct output *source);
/* The root file system afterwards. x is kept; mounts may still be added until it is marshalled. */
struct state state_run(struct arena *a, struct exec *x, const struct note *note);
/* What is under a mount after the command (not read-only, cache or tmpfs). */
struct output *exec_output(struct arena *a, const struct state *after, const struct mount *m);

/* ---- bytes ---- */
struct marshal_opt {
	const struct spec_platform *platform; /* for ops that say none; NULL: this machine's */
	bool default_path;                    /* the daemon sets PATH itself: exec.meta.setsdefaultpath */
	const char *unique_id;                /* for local sources without a session */
};
/* The definition of what o stands for; no op at all when it is scratch. *ret_head: digest of the result's vertex. */
int graph_marshal(struct arena *a, struct output *o, const struct marshal_opt *opt, Pb__Definition **ret, const char **ret_head,
		  struct err *e);
/* The only source op below o, NULL when there is none or more than one. */
const Pb__SourceOp *graph_only_source(const Pb__Definition *def, struct arena *a);
#endif
