#ifndef REG_REG_POOLS_H
#define REG_REG_POOLS_H
/* Admission to registries, on the loop thread: per domain of the reference (not per mirror) N slots for transfers and
 * one more that only JSON documents (manifests, configs) may take, so that these never wait behind layers.
 * A job wants a slot before it starts and gives it back in done(). No blocking. Source: BuildKit util/resolver/limited. */
#include "loop/loop.h"

struct reg_pools {
	size_t limit;
	struct map by_domain;
};
void reg_pools_init(struct reg_pools *p, size_t limit); /* 0: 4 */
void reg_pools_fini(struct reg_pools *p);               /* no slot may be held or waited for */
/* The pool where to want a slot now. is_json: any free slot of the N, else the extra one. Borrowed, valid until fini. */
struct loop_pool *reg_pools_get(struct reg_pools *p, const char *domain, bool is_json);
bool reg_media_is_json(const char *media_type); /* ends in "+json"; any thread */
#endif
