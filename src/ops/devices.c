#include "ops/devices.h"

#include <string.h>

static const char *const hook_kinds[] = {[CDI_PRESTART] = "prestart",
					 [CDI_CREATE_RUNTIME] = "createRuntime",
					 [CDI_CREATE_CONTAINER] = "createContainer",
					 [CDI_START_CONTAINER] = "startContainer",
					 [CDI_POSTSTART] = "poststart",
					 [CDI_POSTSTOP] = "poststop"};

/* Of two nodes with one path the later counts. */
static void add_node(struct ops_devices *d, const struct cdi_node *n)
{
	for (size_t i = 0; i < d->devices.n; i++) {
		if (strcmp(d->devices.v[i].path, n->path)) continue;
		vec_remove(&d->devices, i);
		break;
	}
	struct run_device *r = vec_add(&d->devices);
	*r = (struct run_device){n->path, n->host_path, n->type, n->major, n->minor, n->mode, n->uid, n->gid, n->access};
}

static void add_edits(const struct cdi_edits *x, struct strvec *env, struct ops_devices *d)
{
	for (size_t i = 0; i < x->env.n; i++) {
		const char *eq = strchr(x->env.v[i], '=');
		_cleanup_free_ char *key = xstrndup(x->env.v[i], (size_t)(eq - x->env.v[i]));
		strvec_env_set(env, key, eq + 1);
	}
	for (size_t i = 0; i < x->nodes.n; i++) add_node(d, &x->nodes.v[i]);
	for (size_t i = 0; i < x->mounts.n; i++) {
		const struct cdi_mount *m = &x->mounts.v[i];
		vec_push(&d->mounts, ((struct run_mount){.source = m->host_path,
							 .dest = m->path,
							 .type = m->type ? m->type : "bind",
							 .options = m->options.v,
							 .n_options = m->options.n}));
	}
	for (size_t i = 0; i < x->hooks.n; i++) {
		const struct cdi_hook *h = &x->hooks.v[i];
		vec_push(&d->hooks, ((struct run_hook){hook_kinds[h->kind], h->path, h->args.v, h->env.v, h->timeout}));
	}
	for (size_t i = 0; i < x->gids.n; i++) vec_push(&d->gids, x->gids.v[i]);
}

int ops_devices_get(const struct cdi *c, Pb__CDIDevice *const *v, size_t n, struct strvec *env, struct ops_devices *ret,
		    struct err *e)
{
	_cleanup_strvec_ struct strvec names = {0};
	for (size_t i = 0; i < n; i++)
		if (cdi_resolve(c, v[i]->name, v[i]->optional, &names, e) < 0)
			return err_wrap(e, "CDI device injection failed");
	for (size_t i = 0; i < names.n; i++) {
		const struct cdi_device *d = cdi_get(c, names.v[i]);
		bool again = false;
		for (size_t k = 0; k < i; k++) again |= cdi_get(c, names.v[k])->common == d->common;
		if (!again) add_edits(d->common, env, ret);
		add_edits(&d->edits, env, ret);
	}
	return 0;
}

void ops_devices_use(struct ops_devices *d, struct run_spec *spec)
{
	if (d->mounts.n) {
		size_t extra = d->mounts.n, own = spec->n_mounts;
		vec_grow(&d->mounts, extra + own);
		memmove(d->mounts.v + own, d->mounts.v, extra * sizeof *d->mounts.v);
		if (own) memcpy(d->mounts.v, spec->mounts, own * sizeof *d->mounts.v);
		d->mounts.n += own;
		spec->mounts = d->mounts.v;
		spec->n_mounts = d->mounts.n;
	}
	spec->devices = d->devices.v;
	spec->n_devices = d->devices.n;
	spec->hooks = d->hooks.v;
	spec->n_hooks = d->hooks.n;
	spec->gids = d->gids.v;
	spec->n_gids = d->gids.n;
}

void ops_devices_fini(struct ops_devices *d)
{
	vec_fini(&d->devices);
	vec_fini(&d->hooks);
	vec_fini(&d->mounts);
	vec_fini(&d->gids);
}
