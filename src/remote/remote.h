#ifndef REMOTE_REMOTE_H
#define REMOTE_REMOTE_H
/* Caches elsewhere: reading one so that the solver can use it, and writing what a build knows. See docs/cache.md.
 *
 *  1. Loop thread; what blocks is in *_job.c: one job an import, an export, or a result that is wanted.
 *  2. What a place holds is a peer's: documents are bounded, every blob is verified as it comes.
 *  3. A blob that is gone is NOT_FOUND for the one who wanted it: a miss.
 * Sources: moby/buildkit cache/remotecache; reference 06 §6. */
#include "ops/ops.h"
#include "ship/manifest.h"

struct remote_spec {      /* one --export-cache or --import-cache */
	const char *type; /* "registry", "local", "s3", ... */
	const struct ship_kv *attrs;
	size_t n_attrs;
};
/* What is wrong with it, before anything runs: unknown type, attributes. "inline" is for exports only. */
int remote_check_export(const struct remote_spec *s, struct err *e);
int remote_check_import(const struct remote_spec *s, struct err *e);
/* Do two say the same, whatever the order of their attributes? */
bool remote_spec_equal(const struct remote_spec *a, const struct remote_spec *b);
bool remote_is_inline(const struct remote_spec *s);
/* What it is called in the progress: the ref of a registry, else "<type>:<number>". Heap. */
char *remote_import_name(const struct remote_spec *s);
const char *remote_export_name(const struct remote_spec *s); /* "exporting cache to registry" */
bool remote_ignore_error(const struct remote_spec *s);

struct remote_req {
	struct ops_env *env;
	struct remote_spec spec;     /* copied */
	const char *const *sessions; /* copied */
	size_t n_sessions;
	void (*status)(void *arg, const struct prog_status *s); /* may be NULL */
	void *arg;
};

/* ---- import ---- */
struct remote_import;
/* Reads the cache. done: once, later; the solver's side of it is told by itself. */
struct remote_import *remote_import_start(const struct remote_req *req, void (*done)(void *arg, const struct err *e));
struct solve_remote *remote_import_solver(struct remote_import *i); /* for solve_build_use; borrowed */
/* Nothing is called any more; what is under way ends by itself. */
void remote_import_drop(struct remote_import *i); /* NULL allowed */

/* ---- export ---- */
struct remote_root { /* a result of the build */
	struct solve_node *node;
	size_t output;
};
struct remote_export;
/* response: "k=v" pairs. */
struct remote_export *remote_export_start(const struct remote_req *req, const struct remote_root *roots, size_t n_roots,
					  void (*done)(void *arg, const struct strvec *response, const struct err *e));
void remote_export_cancel(struct remote_export *x); /* done follows */
/* The records for an image's config: its layers' digests (or diff IDs), bottom to top. Nothing is put when none fits. */
int remote_inline(struct ops_env *env, const struct remote_root *root, const char *const *layers, size_t n, struct buf *ret,
		  struct err *e);
#endif
