#ifndef FRONT_STAGE_H
#define FRONT_STAGE_H
/* Private to convert*.c: the conversion of a Dockerfile for one platform.
 *
 * Stages are made from FROM lines, and from images that COPY --from and mounts name (unregistered ones). Only what the
 * target needs is resolved and dispatched; dispatching goes in the order of the lines, so that a stage finds those before it
 * done. A conversion that is pending has asked what it could and is thrown away.
 * Source: BuildKit frontend/dockerfile/dockerfile2llb. */
#include "front/convert.h"

enum { MAX_STAGES = 10000 }; /* the walks over the stages recurse */

struct paths { /* a set, shared with the stages built on it */
	struct strs v;
};
struct arg_info {
	const char *key, *value, *doc;
	struct ast_strs deps;
	struct ast_lines at;
};
struct mount_info { /* a secret or an ssh socket, for the outline */
	const char *id;
	bool required;
	struct ast_lines at;
};
struct outline {
	struct arg_info *args;
	struct mount_info *secrets, *sshs;
	size_t n_args, n_secrets, n_sshs;
	struct strs used; /* names of arguments */
};
struct command {
	struct instr *in;
	struct stage **sources; /* one for COPY --from, one a mount for RUN */
	size_t n_sources;
	bool onbuild;
};
struct dep {
	struct stage *stage;
	const struct instr *by;
};
struct tracker {
	struct ast_lines at;
	bool set;
};
struct stage {
	struct instr_stage st; /* base as it is resolved */
	const char *name;      /* st.name, "stage-N" or "" */
	struct state state;
	struct image image;
	struct image *base_image; /* as it came, NULL: none */
	struct named *context;    /* put in its place */
	const struct spec_platform *platform;
	struct stage *base;
	struct dep *deps;
	size_t n_deps;
	struct command *commands;
	size_t n_commands;
	struct instr_arg *build_args;
	size_t n_build_args;
	struct strs ctx_paths; /* what it uses of the main context */
	struct paths *paths;   /* what others use of it */
	struct outline outline;
	struct tracker cmd, entrypoint, healthcheck;
	int cmd_index, cmd_total;
	bool cmd_onbuild;
	bool dispatched, resolved, onbuild_init, ignore_cache, unregistered, workdir_set;
	bool scan_stage, scan_context;
	unsigned reached; /* number of the walk */
	int visit;        /* of the search for cycles: 0 not yet, 1 on the path, 2 done */
};
struct conv {
	struct front *f;
	struct arena *a;
	const struct spec_platform *target;
	bool implicit_target, all_stages;
	lint_warn_fn *warn; /* NULL: nobody listens */
	void *warn_arg;
	struct map build_args;
	const struct env *global_args;
	struct shell_opt shell;
	struct lint lint;
	struct outline outline;
	const char *epoch; /* for history; NULL: none */
	int64_t epoch_s;
	long epoch_ns; /* behind the second */
	struct stage **stages;
	size_t n_stages;
	struct map by_name;
	struct output build_context;
	struct spec_patterns *ignore; /* NULL: none */
	const Pb__ProxyEnv *proxy;
	const char *group_seed;
	unsigned n_groups, walk;
};
static inline struct strs strs_of(struct ast_strs s) { return (struct strs){s.v, s.n}; }
const char *env_shell_get(void *arg, const char *name);
static inline struct shell_env env_shell(const struct env *e) { return (struct shell_env){env_shell_get, (void *)e}; }

/* convert.c: all of one platform. The caller fills in f, a, target, implicit_target, all_stages, warn. The target stage, FOUND
 * or PENDING, or -1. fini in any case. */
int conv_run(struct conv *c, struct stage **ret, struct err *e);
void conv_fini(struct conv *c);
struct stage *conv_stage_find(const struct conv *c, const char *name); /* NULL when absent */
void conv_reach(struct conv *c, struct stage *target);                 /* target and below have reached == c->walk */
int conv_command(struct conv *c, struct instr *in, struct command *ret, struct err *e);

/* convert_args.c */
int args_default(struct conv *c, const char *target);
int args_meta(struct conv *c, struct instr *const *cmds, size_t n, const struct map *build_args, const struct env **env,
	      struct outline *o, struct err *e);
const struct arg_info *outline_arg(const struct outline *o, const char *key);
void outline_put_arg(struct arena *a, struct outline *o, const struct arg_info *i);
void outline_use(struct arena *a, struct outline *o, const char *key);
struct outline outline_clone(struct arena *a, const struct outline *o);

/* convert_epoch.c: SOURCE_DATE_EPOCH as a number, a context or a stage. */
int epoch_resolve(struct conv *c, const struct instr_file *df, struct err *e);

/* convert_stage.c */
int stage_dispatch(struct conv *c, struct stage *d, struct err *e);
const char *stage_prefix(struct conv *c, struct stage *d, const char *text, const struct spec_platform *p,
			 const struct env *env);
const char *stage_expand_name(struct conv *c, const struct shell_opt *o, const char *text, const struct shell_env *env);
void stage_commit(struct conv *c, struct stage *d, const char *created_by, bool layer);
struct note stage_note(struct conv *c, const char *command, struct ast_lines at);
void stage_unmatched(struct conv *c, struct stage *d, const struct lint *lint, const struct instr *in, const struct env *env,
		     struct ast_strs unmatched);
int dispatch_workdir(struct conv *c, struct stage *d, const struct instr *in, const char *path, bool commit,
		     const struct lint *lint, struct err *e);
void paths_add(struct arena *a, struct strs *s, const char *path);

/* convert_run.c, convert_copy.c, convert_expose.c */
int dispatch_run(struct conv *c, struct stage *d, const struct command *cmd, struct err *e);
int dispatch_copy(struct conv *c, struct stage *d, const struct command *cmd, const struct lint *lint, struct err *e);
int dispatch_expose(struct conv *c, struct stage *d, const struct instr *in, const struct lint *lint, struct err *e);

/* validate.c: what is only warned of, and cycles */
void validate_names(const struct conv *c, const struct instr_file *df);
void validate_casing(const struct conv *c, const struct instr_file *df);
void validate_default_args(struct conv *c, const struct instr_file *df);
void validate_secret_key(const struct lint *l, const char *instruction, const char *key, struct ast_lines at);
void validate_used_once(const struct lint *l, const struct instr *in, struct tracker *t);
void validate_copy_source(const struct conv *c, const struct lint *l, const struct instr *in, const char *src);
void validate_base_platform(const struct conv *c, const struct stage *d, const char *name,
			    const struct spec_platform *expected);
int validate_cycles(struct conv *c, struct err *e);

/* paths of the target's system */
const char *os_normalize(struct arena *a, const char *parent, const char *path, const char *os, bool keep_slash, struct err *e);
const char *os_workdir(struct arena *a, const char *current, const char *wd, const char *os, struct err *e);
const char *os_strip_drive(struct arena *a, const char *path, const char *os, bool keep_slash, struct err *e);
bool os_is_abs(struct arena *a, const char *path, const char *os);
const char *os_to_slash(struct arena *a, const char *path, const char *os);

/* go_text.c: values as Go prints them */
const char *go_list(struct arena *a, const char *const *v, size_t n);        /* %v of a []string */
const char *go_quoted_list(struct arena *a, const char *const *v, size_t n); /* %q */
const char *go_duration(struct arena *a, int64_t ns);                        /* Duration.String */
const char *text_join(struct arena *a, const char *const *v, size_t n, const char *sep);
const char *path_joined(struct arena *a, const char *x, const char *y);
int err_mean(struct err *e, const char *match); /* " (did you mean X?)" behind the text; match NULL: nothing; -1 */
#endif
