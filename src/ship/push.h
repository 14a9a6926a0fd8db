#ifndef SHIP_PUSH_H
#define SHIP_PUSH_H
/* Pushing what lies in the blob store to one or more names. Loop thread.
 *
 *  1. One name after the other. Of a name all blobs go side by side, as many as the registry's pool admits (builds take
 *     turns), then the manifests from the leaves up, the root last and by its tag.
 *  2. The first failure ends what runs and starts nothing more; it is told as "failed to push NAME: ...".
 * Source: BuildKit util/push/push.go; reference 06 §5. */
#include "ops/ops.h"
#include "ship/manifest.h"

struct ship_push_req {
	struct ops_env *env;
	const struct reg_config *config;
	const char *const *sessions;
	size_t n_sessions;
	const struct strvec *names; /* full references; lives until done */
	struct ops_span span;
	bool by_digest;               /* a name has no tag: the root goes by its digest */
	const struct ship_desc *root; /* copied but for its platform and annotations, which are not looked at */
	/* A repository of the same registry that has the blob, as path ("library/alpine"); NULL: none known. May be NULL. */
	const char *(*mount_source)(void *arg, const char *digest, const struct spec_ref *to);
	void (*named)(void *arg, const char *name); /* a name is done; may be NULL */
	void (*done)(void *arg, struct err *e /* take it; unset: success */);
	void *arg;
};
struct ship_push;
/* done once, later. */
struct ship_push *ship_push_start(const struct ship_push_req *req);
void ship_push_cancel(struct ship_push *p); /* done follows with CANCELLED */
#endif
