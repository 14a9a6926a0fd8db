#ifndef BUILD_PROVENANCE_H
#define BUILD_PROVENANCE_H
/* Private to the room: where a result came from. A scope is one frontend request (or the build's own, which may have none);
 * it keeps what its references used, and what it asked of registries. Predicates are made from that when exporters want them.
 *
 *  1. Loop thread only. The root scope belongs to the build and ends with what the build holds; it owns the scopes below.
 *  2. Captures are values: they stay when the references have gone.
 * Source: moby/buildkit solver/llbsolver/{provenance,provenance_store}.go, solver/llbsolver/provenance. */
#include "build/internal.h"

#include <jansson.h>

struct prov_image {
	char *ref, *digest;
	bool local, has_platform;
	struct spec_platform platform;
};
struct prov_blob {
	char *ref, *digest;
	bool local;
};
struct prov_git {
	char *url, *commit, *bundle; /* bundle: locator or NULL */
};
struct prov_http {
	char *url, *digest;
};
struct prov_gap { /* of the proxy network */
	char *op, *name, *method, *uri, *reason;
};
struct prov_secret {
	char *id;
	bool optional;
};
struct prov_capture {
	char ref_id[ID_STR];
	VEC(struct prov_image) images;
	VEC(struct prov_blob) blobs;
	VEC(struct prov_git) git;
	VEC(struct prov_http) http;
	VEC(struct prov_gap) gaps;
	VEC(struct prov_secret) secrets, ssh;
	struct strvec locals;
	bool network, proxy, incomplete;
};
void prov_capture_fini(struct prov_capture *c);
void prov_capture_ref(struct prov_capture *c, const struct ref *r); /* of a reference that is done */
void prov_capture_merge(struct prov_capture *c, const struct prov_capture *from);
void prov_capture_image(struct prov_capture *c, const struct prov_image *i);
void prov_capture_finish(struct prov_capture *c); /* sorted; no image by digest that is there by name */
char *prov_redact(const char *url);               /* credentials masked; heap */

struct prov_scope {
	struct build *build;
	struct prov_scope *parent;
	bool has_request; /* false: the build's own, without a frontend */
	char *frontend;
	struct strvec opts;   /* "k=v" */
	struct strvec inputs; /* "name=<head digest>" */
	struct strvec heads;  /* head digests of what was solved here */
	VEC(struct prov_capture *) captures;
	VEC(struct prov_image) images;
	VEC(struct prov_scope *) children;
	/* the root's only */
	struct timespec started;
	char invocation[ID_STR];
};
struct prov_scope *prov_root_new(struct build *b);
struct prov_scope *prov_scope_new(struct prov_scope *parent, const char *frontend, const struct strvec *opts,
				  const struct bridge *inputs);
void prov_scope_free(struct prov_scope *s);
void prov_scope_ref(struct prov_scope *s, struct ref *r); /* it was made here */
void prov_ref_done(struct ref *r);                        /* it has a result now */
void prov_scope_image(struct prov_scope *s, const char *identifier, const struct spec_platform *p, const char *digest);
char *prov_head(const uint8_t *def, size_t n); /* of a packed definition; heap, NULL: none */

/* ---- requests as they are told ---- */
struct prov_named {
	char *name;
	struct prov_request *req;
};
struct prov_request {
	char *uri, *algo, *hex, *path; /* configSource; NULL: none */
	char *frontend;
	struct strvec args; /* sorted */
	VEC(struct prov_named) inputs;
	struct prov_request *root;
};
/* The request of a scope, with inputs and root. NULL when it has none. */
struct prov_request *prov_request_of(const struct prov_scope *s, const struct prov_capture *c);
void prov_request_free(struct prov_request *r);
bool prov_request_scrub(struct prov_request *r); /* mode=min: true when something was left out */

/* ---- predicates ---- */
struct prov_opts {
	bool v02, min, reproducible, complete, inline_only;
	char *builder_id, *filename;
};
struct provenance; /* of one reference: keeps a reference on it */
struct provenance *provenance_new(struct build *b, struct ref *r, const char *key /* platform of a map result; NULL */,
				  const struct prov_opts *o, struct err *e);
void provenance_free(struct provenance *p);
int provenance_write(void *provenance, struct buf *ret, struct err *e); /* indented JSON */
const char *provenance_type(const struct provenance *p);

/* ---- provenance_env.c: what the operator adds; never NULL ---- */
json_t *prov_env_load(const char *dir);
void prov_env_write(struct json_w *w, const json_t *env); /* members of an object that is open */

/* ---- attest.c: what the request wants ---- */
int attest_check(const Control__SolveRequest *req, struct err *e); /* before anything runs */
/* After the references are evaluated: adds the attestations, evaluates theirs. */
struct attest_run;
struct attest_run *attest_start(struct build *b, void (*done)(void *arg, const struct err *e), void *arg);
void attest_cancel(struct attest_run *a);
/* The provenance of each reference as a blob, for the record of the build; after the exporters. done once, later. */
void attest_record(struct build *b, void (*done)(void *arg), void *arg);
#endif
