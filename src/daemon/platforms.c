/* The platforms that the worker offers. A configured list is taken as it is. Else they are what the machine runs now: an
 * emulator may be registered while the daemon runs (docker run --privileged tonistiigi/binfmt), so who asks is told by a look
 * that is at most system.platformsCacheMaxAge old.
 *
 * A build keeps the list that it began with; a list that was given out stays until the daemon ends (one comes to be only when
 * the set of emulators changes). */
#include "daemon/daemon.h"

#include "build/build.h"
#include "run/run.h"

static void configured(const struct daemon *d, struct run_platforms *ret)
{
	const struct strvec *list = &d->conf->oci.platforms;
	*ret = (struct run_platforms){.v = xcalloc(list->n + 1, sizeof *ret->v)};
	for (size_t i = 0; i < list->n; i++)
		if (spec_platform_parse_normal(list->v[i], &ret->v[ret->n], NULL) >= 0) ret->n++;
	if (!ret->n) spec_platform_host(&ret->v[ret->n++]);
}

void daemon_platforms_init(struct daemon *d)
{
	struct run_platforms *p = vec_add(&d->platforms);
	if (d->conf->oci.platforms.n)
		configured(d, p);
	else
		run_platforms_find(p);
	d->platforms_at_ns = time_mono_ns();
}

void daemon_platforms_look(void *arg)
{
	struct daemon *d = arg;
	int64_t max_age = d->conf->system.platforms_max_age_ns, now = time_mono_ns();
	if (d->conf->oci.platforms.n || max_age < 0 || now - d->platforms_at_ns < max_age) return;
	struct run_platforms found;
	run_platforms_find(&found);
	d->platforms_at_ns = now;
	if (run_platforms_equal(&found, &d->platforms.v[d->platforms.n - 1])) {
		run_platforms_fini(&found);
		return;
	}
	vec_push(&d->platforms, found);
	engine_set_platforms(d->engine, found.v, found.n);
	log_info("platforms: %zu are offered now", found.n);
}
