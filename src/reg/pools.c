/* Admission to registries: see reg_pools.h. Two loop pools a domain: one for transfers of blobs, one for documents. */
#include "reg/internal.h"
#include "reg/reg_pools.h"

enum { DEFAULT_LIMIT = 4, DOCUMENTS = 16 };
struct domain {
	struct loop_pool blobs, documents;
};

void reg_pools_init(struct reg_pools *p, size_t limit) { *p = (struct reg_pools){.limit = limit ? limit : DEFAULT_LIMIT}; }

void reg_pools_fini(struct reg_pools *p)
{
	map_fini_free(&p->by_domain);
	reg_config_unref(p->config);
	*p = (struct reg_pools){0};
}

static size_t limit_of(const struct reg_pools *p, const char *domain)
{
	size_t own = reg_config_limit(p->config, domain);
	return own ? own : p->limit;
}

void reg_pools_configure(struct reg_pools *p, size_t limit, const struct reg_config *config)
{
	struct reg_config *old = p->config;
	p->config = reg_config_ref(config);
	reg_config_unref(old);
	p->limit = limit ? limit : DEFAULT_LIMIT;
	MAP_EACH(&p->by_domain, it)
	{
		struct domain *d = it->value;
		loop_pool_set_limit(&d->blobs, limit_of(p, it->key));
	}
}

struct loop_pool *reg_pools_get(struct reg_pools *p, const char *domain, bool is_json)
{
	struct domain *d = map_get(&p->by_domain, domain);
	if (!d) {
		d = xnew(struct domain);
		loop_pool_init(&d->blobs, limit_of(p, domain));
		loop_pool_init(&d->documents, DOCUMENTS);
		map_put(&p->by_domain, domain, d);
	}
	return is_json ? &d->documents : &d->blobs;
}

const void *reg_pools_group(const char *build)
{
	uint64_t h = 14695981039346656037u; /* FNV-1a; two builds in one group would only share their turn */
	for (const char *s = build ? build : ""; *s; s++) h = (h ^ (uint8_t)*s) * 1099511628211u;
	return (const void *)(uintptr_t)h;
}

bool reg_media_is_json(const char *media_type) { return media_type && str_ends(media_type, "+json"); }
