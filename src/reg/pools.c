/* Admission to registries: see reg_pools.h. Two loop pools a domain; the second has the one slot that is JSON's alone. */
#include "reg/reg_pools.h"

enum { DEFAULT_LIMIT = 4 };
struct domain {
	struct loop_pool any, json;
};

void reg_pools_init(struct reg_pools *p, size_t limit) { *p = (struct reg_pools){.limit = limit ? limit : DEFAULT_LIMIT}; }

void reg_pools_fini(struct reg_pools *p)
{
	map_fini_free(&p->by_domain);
	*p = (struct reg_pools){0};
}

struct loop_pool *reg_pools_get(struct reg_pools *p, const char *domain, bool is_json)
{
	struct domain *d = map_get(&p->by_domain, domain);
	if (!d) {
		d = xnew(struct domain);
		loop_pool_init(&d->any, p->limit);
		loop_pool_init(&d->json, 1);
		map_put(&p->by_domain, domain, d);
	}
	bool full = d->any.used >= d->any.limit || !list_empty(&d->any.waiting);
	return is_json && full ? &d->json : &d->any;
}

bool reg_media_is_json(const char *media_type) { return media_type && str_ends(media_type, "+json"); }
