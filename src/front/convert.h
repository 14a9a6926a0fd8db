#ifndef FRONT_CONVERT_H
#define FRONT_CONVERT_H
/* Private to the room's conversion half: one run of front_convert.
 *
 * Functions that may need an answer return FOUND or PENDING (the question was added to the result) or -1. A pending part
 * is left undone and everything else goes on, so that one run asks as much as it can. */
#include "dockerfile/ast.h"
#include "front/front.h"
#include "front/image_config.h"
#include "state/state.h"
#include "spec/spec.h"

enum { PENDING = 0, FOUND = 1 };

struct host_ip {
	const char *host, *ip;
};
struct front_config {
	struct map build_args, labels; /* values are const char * of the arena */
	const char *cache_ns, *cgroup_parent, *hostname, *target, *resolve_mode;
	const struct lint_config *check; /* NULL: not given as an option */
	Pb__NetMode network;
	int64_t shm_size;
	Pb__HostIP **hosts;
	Pb__Ulimit **ulimits;
	size_t n_hosts, n_ulimits;
	Pb__LinuxResources *resources;        /* NULL: none */
	const struct spec_platform **targets; /* normalised; none: the default */
	size_t n_targets;
	const struct spec_platform *build_platform;
	bool multi_platform;
	bool no_cache_all;
	struct strs no_cache;
	const char *sbom_generator; /* NULL: no SBOM */
	struct pair *sbom_params;
	size_t n_sbom_params;
};
/* Where the Dockerfile and the files come from. */
struct front_context {
	const char *filename, *local_name, *dockerfile_local_name;
	bool force_local_dockerfile;
	bool remote; /* context is set: not local */
	struct state context;
	bool has_dockerfile;
	struct state dockerfile;
	const Pb__SourceOp *source; /* of a git or http context */
	bool http_archive;
	const char *http_filename;
	const Pb__Definition *http_def;
};
struct front {
	const struct front_input *in;
	struct arena *a;
	struct front_result *res;
	struct map opts;
	struct map asked;
	struct front_config cfg;
	struct front_context ctx;
	struct source_file file; /* the Dockerfile */
	const char *head;        /* digest of the vertex that it comes from */
	const void *ignore;      /* the ignore file, NULL: none */
	size_t n_ignore;
	const char *ignore_name;
	bool ignore_known;
	bool labs; /* the syntax line asked for the -labs channel */
};
const char *front_opt(const struct front *f, const char *key);  /* NULL when absent */
const char *front_optz(const struct front *f, const char *key); /* "" when absent */

/* ask.c */
int front_ask(struct front *f, struct front_question q, const struct front_answer **ret);
int front_ask_file(struct front *f, const Pb__Definition *def, const char *path, int64_t length,
		   const struct front_answer **ret);
int front_marshal(struct front *f, struct output *o, const struct spec_platform *p, Pb__Definition **ret, const char **ret_head,
		  struct err *e);

/* config.c */
int config_init(struct front *f, struct err *e);
void config_fini(struct front_config *c);
bool config_no_cache(const struct front *f, const char *stage);
int csv_fields(const char *s, struct strvec *ret, struct err *e);
int go_int(const char *s, int base, int bits, int64_t *ret, struct err *e);   /* strconv.ParseInt */
int go_uint(const char *s, int base, int bits, uint64_t *ret, struct err *e); /* strconv.ParseUint */

/* context.c */
int context_init(struct front *f, struct err *e);
int context_read_dockerfile(struct front *f, struct err *e); /* fills file, head, maybe ignore */
int context_main(struct front *f, const struct strs *follow, struct output **ret, struct err *e);
int context_input(struct front *f, const char *name, struct state *ret, struct err *e); /* PENDING: no such input */
int context_ignore(struct front *f, struct strvec *ret, struct err *e); /* patterns; of a remote context: none */
struct state context_git(struct arena *a, const struct spec_git_ref *g, const char *ref, bool keep_git, bool mtime_commit);

/* context_named.c */
struct named {
	const char *input, *name, *full; /* full: with the platform when the option had it */
	const char *shared_key;
	const struct spec_platform *platform;
	const char *resolve_mode;
	void (*paths)(struct arena *a, void *arg, struct strs *ret); /* what is used of it, when known */
	void *arg;
};
/* NULL when there is none of that name. */
int named_find(struct front *f, const char *name, const struct spec_platform *p, struct named **ret, struct err *e);
/* img->rootfs_type NULL: no image config came with it (*ret_has_image). */
int named_load(struct front *f, struct named *n, struct state *ret, struct image *img, bool *ret_has_image, struct err *e);
struct state state_image_config(struct arena *a, struct state s, const struct image *img);

/* where.c: errors and warnings that belong to lines */
struct llb_range *ranges_of(struct arena *a, struct ast_lines at, size_t *n); /* one a line; {0, 0}: none */
/* The places of an error become errdefs.Source details of the Dockerfile, the last one outermost. Returns -1. */
int err_to_source(struct front *f, struct err *e);
void source_json(struct arena *a, const struct source_file *s, struct ast_lines at, struct buf *out);
Pb__SourceInfo *source_info(struct arena *a, const struct source_file *s);
#endif
