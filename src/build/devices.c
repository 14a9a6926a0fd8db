/* Which devices a step may have: those that the request was granted (entitlement "device", "device=NAME[,alias=WORD]"), and
 * those that allow themselves. What a step asks for is replaced by the names that it gets: so the cache key knows them. Source:
 * moby/buildkit util/entitlements, solver/llbsolver/vertex.go (ValidateEntitlements). */
#include "build/devices.h"
#include "cdi/cdi.h"

#include <string.h>

struct grants {
	bool all;
	struct strvec devices; /* "alias=name"; a device by its own name: "name" */
};

static int parse(const char *rest, struct grants *g, struct err *e)
{
	_cleanup_free_ char *text = xstrdup(rest), *alias = NULL;
	char *save = NULL, *name = strtok_r(text, ",", &save), *field;
	if (!name) {
		g->all = true;
		return 0;
	}
	while ((field = strtok_r(NULL, ",", &save))) {
		if (!strchr(field, '=')) return err_set(e, CODE_UNKNOWN, "invalid device config \"%s\"", field);
		if (!str_starts(field, "alias="))
			return err_set(e, CODE_UNKNOWN, "unknown device config key \"%.*s\"", (int)strcspn(field, "="), field);
		free(alias);
		alias = xstrdup(field + strlen("alias="));
	}
	if (!str_empty(alias))
		strvec_addf(&g->devices, "%s\n%s", alias, name);
	else
		strvec_addf(&g->devices, "%s\n", name);
	return 0;
}

static int read_grants(const Control__SolveRequest *req, struct grants *g, struct err *e)
{
	for (size_t i = 0; i < req->n_entitlements; i++) {
		const char *x = req->entitlements[i];
		if (strcmp(x, "device") && !str_starts(x, "device=")) continue;
		if (parse(x[strlen("device")] ? x + strlen("device=") : "", g, e) < 0) return -1;
	}
	return 0;
}

int devices_check(const Control__SolveRequest *req, struct err *e)
{
	struct grants g = {0};
	int r = read_grants(req, &g, e);
	strvec_fini(&g.devices);
	return r;
}

/* The name behind an alias; NULL: it is none. */
static const char *behind_alias(const struct grants *g, const char *name)
{
	size_t n = strlen(name);
	for (size_t i = g->devices.n; i > 0; i--) {
		const char *s = g->devices.v[i - 1];
		if (!strncmp(s, name, n) && s[n] == '\n') return s[n + 1] ? s + n + 1 : NULL;
	}
	return NULL;
}

static void give(Pb__CDIDevice *d, Pb__CDIDevice **v, size_t *n) { v[(*n)++] = d; }

static int allow(const struct cdi *c, const struct grants *g, Pb__ExecOp *x, struct arena *a, struct err *e)
{
	_cleanup_strvec_ struct strvec wanted = {0}, granted = {0}, forbidden = {0};
	Pb__CDIDevice **got = arena_alloc(a, (x->n_cdidevices + cdi_count(c) + 1) * sizeof *got);
	size_t n = 0;
	for (size_t i = 0; i < x->n_cdidevices; i++) {
		Pb__CDIDevice *d = x->cdidevices[i];
		const char *name = behind_alias(g, d->name);
		if (name) {
			d->name = arena_strdup(a, name);
			give(d, got, &n);
		} else if (cdi_resolve(c, d->name, d->optional, &wanted, e) < 0) {
			return -1;
		}
	}
	for (size_t i = 0; i < g->devices.n && wanted.n; i++) {
		_cleanup_free_ char *name = xstrndup(g->devices.v[i], strcspn(g->devices.v[i], "\n"));
		if (cdi_resolve(c, name, false, &granted, e) < 0) return -1;
	}
	for (size_t i = 0; i < wanted.n; i++) {
		if (strvec_find(&granted, wanted.v[i]) < 0 && !cdi_get(c, wanted.v[i])->auto_allow) {
			strvec_add(&forbidden, wanted.v[i]);
			continue;
		}
		Pb__CDIDevice *d = arena_new_of(a, Pb__CDIDevice);
		pb__cdidevice__init(d);
		d->name = arena_strdup(a, wanted.v[i]);
		give(d, got, &n);
	}
	if (forbidden.n) {
		_cleanup_free_ char *names = strvec_join(&forbidden, ", ");
		return err_set(e, CODE_UNKNOWN, "device%s %s %s requested by the build but not allowed",
			       forbidden.n > 1 ? "s" : "", names, forbidden.n > 1 ? "are" : "is");
	}
	x->cdidevices = got;
	x->n_cdidevices = n;
	return 0;
}

int devices_allow(struct cdi *c, const Control__SolveRequest *req, Pb__ExecOp *x, struct arena *a, struct err *e)
{
	struct grants g = {0};
	if (!x->n_cdidevices) return 0;
	cdi_look(c);
	int r = read_grants(req, &g, e);
	if (r >= 0 && !g.all) r = allow(c, &g, x, a, e);
	strvec_fini(&g.devices);
	return r < 0 ? err_wrap(e, "failed to load LLB") : 0;
}
