/* Commands: mounts, secrets, sockets and limits put together into an exec operation.
 * Source: BuildKit client/llb/exec.go. */
#include "state/internal.h"

#include <string.h>

struct mount *exec_mount(struct arena *a, struct exec *x, const char *target, struct output *source)
{
	struct mount *m = arena_new_of(a, struct mount);
	m->target = arena_strdup(a, target);
	m->source = source;
	m->order = x->n_mounts;
	LLB_PUSH(a, x->n_mounts, x->mounts, m);
	return m;
}

static int by_target(const void *pa, const void *pb)
{
	const struct mount *x = *(struct mount *const *)pa, *y = *(struct mount *const *)pb;
	int c = strcmp(x->target, y->target);
	return c ? c : (x->order > y->order) - (x->order < y->order);
}

void exec_sort_mounts(struct exec *x)
{
	if (x->n_mounts > 1) qsort(x->mounts, x->n_mounts, sizeof *x->mounts, by_target);
}

struct output *exec_output(struct arena *a, const struct state *after, const struct mount *m)
{
	struct output *o = vertex_output(a, after->out->v);
	o->mount = m;
	o->platform = o->v->note.platform;
	return o;
}

struct state state_run(struct arena *a, struct exec *x, const struct note *note)
{
	struct vertex *v = vertex_new(a, VERTEX_EXEC, note);
	v->exec = x;
	struct mount *root = exec_mount(a, x, LLB_ROOT_MOUNT, x->base.out);
	struct output *o = vertex_output(a, v);
	o->mount = root;
	o->platform = v->note.platform;
	/* the root comes first among mounts of the same target, as in Go, where it is made with the operation */
	memmove(x->mounts + 1, x->mounts, (x->n_mounts - 1) * sizeof *x->mounts);
	x->mounts[0] = root;
	for (size_t i = 0; i < x->n_mounts; i++) x->mounts[i]->order = i;
	return state_with_output(a, x->base, o);
}

static bool has_output(const struct mount *m) { return !m->no_output && !m->readonly && !m->cache_id && !m->tmpfs; }

int64_t output_index(const struct output *o)
{
	if (o->v->kind == VERTEX_IMPORT) return o->v->import_output;
	if (!o->mount) return 0;
	const struct exec *x = o->v->exec;
	exec_sort_mounts(o->v->exec);
	int64_t n = 0;
	for (size_t i = 0; i < x->n_mounts; i++) {
		if (x->mounts[i] == o->mount) return n;
		if (has_output(x->mounts[i])) n++;
	}
	bug("a mount that is not of its command");
}

/* ---- bytes ---- */

static void put_env(struct arena *a, Pb__Meta *m, const struct exec *x)
{
	const struct env *env = x->base.env;
	if (x->n_sshs && !env_get(env, "SSH_AUTH_SOCK")) env = env_add(a, env, "SSH_AUTH_SOCK", x->sshs[0].target);
	struct keys k = env_keys(a, env);
	for (size_t i = 0; i < k.n; i++) LLB_PUSH(a, m->n_env, m->env, arena_printf(a, "%s=%s", k.v[i], env_get(env, k.v[i])));
}

static void put_meta(struct arena *a, Pb__Meta *m, const struct exec *x)
{
	put_env(a, m, x);
	m->args = x->args;
	m->n_args = x->n_args;
	m->cwd = x->base.dir;
	if (x->base.user) m->user = x->base.user;
	if (x->base.hostname) m->hostname = x->base.hostname;
	if (x->cgroup_parent) m->cgroupparent = x->cgroup_parent;
	m->proxy_env = (Pb__ProxyEnv *)x->proxy;
	m->extrahosts = x->hosts;
	m->n_extrahosts = x->n_hosts;
	m->ulimit = x->ulimits;
	m->n_ulimit = x->n_ulimits;
}

static void put_caps(struct arena *a, struct vertex *v, const struct marshal_opt *opt)
{
	const struct exec *x = v->exec;
	Pb__OpMetadata *m = v->note.meta;
	bool secret_env = false;
	for (size_t i = 0; i < x->n_secrets; i++) secret_env |= x->secrets[i].env != NULL;
	const struct {
		bool on;
		const char *cap;
	} caps[] = {
		{opt->default_path, "exec.meta.setsdefaultpath"},
		{x->n_ulimits, "exec.meta.ulimit"},
		{m->linux_resources, "exec.meta.linux.resources"},
		{x->base.network != PB__NET_MODE__UNSET, "exec.meta.network"},
		{x->security != PB__SECURITY_MODE__SANDBOX, "exec.meta.security"},
		{x->proxy, "exec.meta.proxyenv"},
		{true, "exec.meta.base"},
		{x->n_secrets, "exec.mount.secret"},
		{secret_env, "exec.secretenv"},
		{x->n_sshs, "exec.mount.ssh"},
		{x->n_devices, "exec.meta.cdi"},
	};
	for (size_t i = 0; i < array_len(caps); i++)
		if (caps[i].on) llb_meta_cap(a, m, caps[i].cap);
	for (size_t i = 0; i < x->n_mounts; i++) {
		const struct mount *mt = x->mounts[i];
		if (!str_empty(mt->selector)) llb_meta_cap(a, m, "exec.mount.selector");
		if (mt->cache_id) {
			llb_meta_cap(a, m, "exec.mount.cache");
			llb_meta_cap(a, m, "exec.mount.cache.sharing");
		} else if (mt->tmpfs) {
			llb_meta_cap(a, m, "exec.mount.tmpfs");
			if (mt->tmpfs_size > 0) llb_meta_cap(a, m, "exec.mount.tmpfs.size");
		} else if (mt->source) {
			llb_meta_cap(a, m, "exec.mount.bind");
		}
	}
}

static void put_mounts(struct arena *a, Pb__Op *op, const struct exec *x)
{
	int64_t out = 0;
	for (size_t i = 0; i < x->n_mounts; i++) {
		const struct mount *m = x->mounts[i];
		Pb__Mount *pm = llb_exec_mount(a, op, m->target);
		struct output *src = output_real(m->source);
		if (src) pm->input = llb_op_input(a, op, src->v->digest, output_index(src));
		if (has_output(m)) pm->output = out++;
		pm->readonly = m->readonly;
		if (m->selector) pm->selector = m->selector;
		if (m->cache_id) {
			pm->mounttype = PB__MOUNT_TYPE__CACHE;
			pm->cacheopt = llb_new(a, Pb__CacheOpt, pb__cache_opt__init);
			pm->cacheopt->id = m->cache_id;
			pm->cacheopt->sharing = m->sharing;
		}
		if (m->tmpfs) {
			pm->mounttype = PB__MOUNT_TYPE__TMPFS;
			pm->tmpfsopt = llb_new(a, Pb__TmpfsOpt, pb__tmpfs_opt__init);
			pm->tmpfsopt->size = m->tmpfs_size;
		}
	}
}

static void put_secrets(struct arena *a, Pb__Op *op, const struct exec *x)
{
	for (size_t i = 0; i < x->n_secrets; i++) {
		const struct secret *s = &x->secrets[i];
		if (s->env) {
			Pb__SecretEnv *se = llb_new(a, Pb__SecretEnv, pb__secret_env__init);
			se->id = s->id;
			se->name = s->env;
			se->optional = s->optional;
			LLB_PUSH(a, op->exec->n_secretenv, op->exec->secretenv, se);
		}
		if (!s->target) continue;
		Pb__Mount *pm = llb_exec_mount(a, op, s->target);
		pm->output = 0; /* a Go client leaves it at its zero */
		pm->mounttype = PB__MOUNT_TYPE__SECRET;
		pm->secretopt = llb_new(a, Pb__SecretOpt, pb__secret_opt__init);
		pm->secretopt->id = s->id;
		pm->secretopt->uid = s->uid;
		pm->secretopt->gid = s->gid;
		pm->secretopt->mode = s->mode;
		pm->secretopt->optional = s->optional;
	}
}

static void put_sshs(struct arena *a, Pb__Op *op, const struct exec *x)
{
	for (size_t i = 0; i < x->n_sshs; i++) {
		const struct ssh *s = &x->sshs[i];
		Pb__Mount *pm = llb_exec_mount(a, op, s->target);
		pm->output = 0;
		pm->mounttype = PB__MOUNT_TYPE__SSH;
		pm->sshopt = llb_new(a, Pb__SSHOpt, pb__sshopt__init);
		pm->sshopt->id = s->id;
		pm->sshopt->uid = s->uid;
		pm->sshopt->gid = s->gid;
		pm->sshopt->mode = s->mode;
		pm->sshopt->optional = s->optional;
	}
}

const Pb__Op *exec_op(struct arena *a, struct vertex *v, const struct marshal_opt *opt)
{
	struct exec *x = v->exec;
	exec_sort_mounts(x);
	for (size_t i = 0; i < x->n_sshs; i++)
		if (str_empty(x->sshs[i].target)) x->sshs[i].target = arena_printf(a, "/run/buildkit/ssh_agent.%zu", i);
	if (!v->note.platform) v->note.platform = x->base.platform;
	Pb__Op *op = llb_op_exec(a, op_platform(a, &v->note, opt));
	put_meta(a, op->exec->meta, x);
	op->exec->network = x->base.network;
	op->exec->security = x->security;
	op->exec->cdidevices = x->devices;
	op->exec->n_cdidevices = x->n_devices;
	put_caps(a, v, opt);
	put_mounts(a, op, x);
	put_secrets(a, op, x);
	put_sshs(a, op, x);
	return op;
}
