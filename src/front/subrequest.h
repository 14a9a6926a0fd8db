#ifndef FRONT_SUBREQUEST_H
#define FRONT_SUBREQUEST_H
/* Private to the room: requests that want to know something of a Dockerfile instead of building it, and the SBOM scanner
 * that runs beside a result. Source: BuildKit frontend/{subrequests,attestations/sbom}, frontend/dockerui/requests.go. */
#include "front/stage.h"

/* FOUND, PENDING or -1; the answer is metadata of the result. */
int subrequest_run(struct front *f, const char *name, struct err *e);

struct sbom {
	const char *image; /* as it was resolved */
	struct image config;
};
int sbom_begin(struct front *f, struct sbom *ret, struct err *e);
int sbom_attest(struct front *f, const struct sbom *s, struct conv *c, struct stage *target, struct front_ref *ref,
		struct err *e);

/* front.c */
struct conv *conv_new(struct front *f, const struct spec_platform *target, bool all_stages, lint_warn_fn *fn, void *arg);
void result_warn(void *front, const struct lint_rule *rule, const char *message, struct ast_lines at);
void result_meta(struct front *f, const char *key, const void *value, size_t n);
#endif
