#ifndef REG_REG_POOLS_H
#define REG_REG_POOLS_H
/* Admission to registries, on the loop thread: per domain of the reference (not per mirror) N slots for transfers of blobs, and
 * a pool of its own for jobs with documents (manifests, configs), so that these never wait behind layers. How many connections
 * these have is not decided here but for each host in reg's client: N with blobs and one more (reg_client_set_limit).
 * A job wants a slot before it starts and gives it back in done(). No blocking. Source: BuildKit util/resolver/limited. */
#include "loop/loop.h"
#include "reg/reg.h"

struct reg_pools {
	size_t limit;
	struct reg_config *config;
	struct map by_domain;
};
void reg_pools_init(struct reg_pools *p, size_t limit); /* 0: 4 */
/* New limits: the global one and those that entries of the configuration have. What holds a slot keeps it. Wakes who waits. */
void reg_pools_configure(struct reg_pools *p, size_t limit, const struct reg_config *config);
void reg_pools_fini(struct reg_pools *p); /* no slot may be held or waited for */
/* The pool where to want a slot. is_json: a document. Borrowed, valid until fini. */
struct loop_pool *reg_pools_get(struct reg_pools *p, const char *domain, bool is_json);
/* What to set as a slot's group, so that builds take turns: made from an id of the build (its session's). */
const void *reg_pools_group(const char *build);
bool reg_media_is_json(const char *media_type); /* ends in "+json"; any thread */
#endif
