/* What a reload replaces. The engine has one policy, for builds that start now; a build refers to the one that it started
 * with until it is gone, so a change never reaches into it. History limits and garbage collection belong to no build: they
 * change at once. */
#include "build/internal.h"

struct policy *policy_ref(struct policy *p)
{
	p->refs++;
	return p;
}

void policy_unref(struct policy *p)
{
	if (!p || --p->refs) return;
	strvec_fini(&p->gateway_allowed);
	reg_config_unref(p->settings.registries);
	run_dns_unref(p->settings.dns);
	free(p);
}

void engine_set_policy(struct engine *g, const struct engine_policy *o)
{
	struct policy *p = xnew(struct policy);
	*p = (struct policy){.refs = 1,
			     .network_host = o->allow_network_host,
			     .insecure = o->allow_insecure,
			     .devices = o->allow_devices,
			     .dockerfile_off = o->dockerfile_off,
			     .gateway_off = o->gateway_off,
			     .proxy_network = o->proxy_network,
			     .settings = {.registries = reg_config_ref(o->registries), .dns = run_dns_ref(o->dns)}};
	if (o->gateway_allowed) strvec_copy(&p->gateway_allowed, o->gateway_allowed->v, o->gateway_allowed->n);
	policy_unref(g->policy);
	g->policy = p;
	g->history_max_age_ns = o->history_max_age_ns;
	g->history_max_entries = o->history_max_entries;
	history_gc_soon(g->history);
	gc_set(g->gc, o);
}

const struct ops_settings *policy_of_sessions(void *arg, const char *const *sessions, size_t n)
{
	struct engine *g = arg;
	for (size_t i = 0; i < n; i++) {
		LIST_EACH(&g->builds, struct build, b, all)
		{
			if (b->state != BUILD_DONE && b->policy && str_eq(b->session, sessions[i])) return &b->policy->settings;
		}
	}
	return NULL;
}
