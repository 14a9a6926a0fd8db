/* The engine: what all containers of the daemon share, and the pool of network namespaces.
 *
 * facts are set in run_engine_open and constant afterwards, so jobs read them without a lock. A CNI namespace that a step
 * has used goes back to the pool (set-up takes longer than most steps); those beyond the wanted number go after five idle
 * minutes, all when the daemon stops. Source of the policy: peer util/network/netpool. */
#include "run/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { NS_IDLE_MS = 5 * 60 * 1000, STOP_MS = 1000, STOP_POLL_MS = 5 };

static const char *const cap_names[] = {
	"CHOWN",
	"DAC_OVERRIDE",
	"DAC_READ_SEARCH",
	"FOWNER",
	"FSETID",
	"KILL",
	"SETGID",
	"SETUID",
	"SETPCAP",
	"LINUX_IMMUTABLE",
	"NET_BIND_SERVICE",
	"NET_BROADCAST",
	"NET_ADMIN",
	"NET_RAW",
	"IPC_LOCK",
	"IPC_OWNER",
	"SYS_MODULE",
	"SYS_RAWIO",
	"SYS_CHROOT",
	"SYS_PTRACE",
	"SYS_PACCT",
	"SYS_ADMIN",
	"SYS_BOOT",
	"SYS_NICE",
	"SYS_RESOURCE",
	"SYS_TIME",
	"SYS_TTY_CONFIG",
	"MKNOD",
	"LEASE",
	"AUDIT_WRITE",
	"AUDIT_CONTROL",
	"SETFCAP",
	"MAC_OVERRIDE",
	"MAC_ADMIN",
	"SYSLOG",
	"WAKE_ALARM",
	"BLOCK_SUSPEND",
	"AUDIT_READ",
	"PERFMON",
	"BPF",
	"CHECKPOINT_RESTORE",
};

static void current_caps(struct strvec *out)
{
	uint8_t *p = NULL;
	size_t n;
	if (path_read_file(AT_FDCWD, "/proc/self/status", 65536, &p, &n, NULL) < 0) return;
	const char *line = strstr((char *)p, "\nCapEff:");
	uint64_t bits = line ? strtoull(line + 8, NULL, 16) : 0;
	free(p);
	for (size_t i = 0; i < array_len(cap_names); i++)
		if (bits & (1ULL << i)) strvec_addf(out, "CAP_%s", cap_names[i]);
}

static bool in_userns(void)
{
	FILE *f = fopen("/proc/self/uid_map", "re");
	long a = 0, b = 0, n = 0;
	bool full = f && fscanf(f, "%ld %ld %ld", &a, &b, &n) == 3 && a == 0 && b == 0 && n == 4294967295L;
	if (f) fclose(f);
	return f && !full;
}

static bool gid_is_mapped(unsigned gid)
{
	FILE *f = fopen("/proc/self/gid_map", "re");
	unsigned a = 0, b = 0, n = 0;
	bool found = !f;
	while (f && !found && fscanf(f, "%u %u %u", &a, &b, &n) == 3) found = gid >= a && gid - a < n;
	if (f) fclose(f);
	return found;
}

static bool kernel_has_seccomp(void) { return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL, 0, 0) < 0 && errno == EFAULT; }

static int set_facts(struct run_facts *f, const struct run_engine_conf *c, struct err *e)
{
	_cleanup_strvec_ struct strvec caps = {0};
	oci_default_caps(&caps);
	if (kernel_has_seccomp()) f->seccomp = seccomp_default(&caps);
	current_caps(&f->all_caps);
	f->cgroup2 = cgroup_is_v2();
	f->cgroup_ns = f->cgroup2 && access("/proc/self/ns/cgroup", F_OK) == 0;
	f->userns = in_userns();
	f->no_tty_group = !gid_is_mapped(5);
	f->rootless = c->rootless;
	f->no_process_sandbox = c->no_process_sandbox;
	f->apparmor = str_empty(c->apparmor) ? NULL : xstrdup(c->apparmor);
	if (f->apparmor && access("/sys/kernel/security/apparmor", F_OK) < 0)
		return err_set(e, CODE_FAILED_PRECONDITION,
			       "AppArmor is not supported on this host, but the profile '%s' was specified", f->apparmor);
	f->cgroup_parent = str_empty(c->cgroup_parent) ? NULL : xstrdup(c->cgroup_parent);
	f->trace_socket = str_empty(c->trace_socket) ? NULL : xstrdup(c->trace_socket);
	f->bundles_dir = xasprintf("%s/bundles", c->state_dir);
	f->net_dir = xasprintf("%s/net", c->state_dir);
	return path_mkdirs(f->bundles_dir, 0711, e);
}

static int set_network(struct run_engine *g, const struct run_engine_conf *c, struct net_ns **ret_first, struct err *e)
{
	const char *mode = str_empty(c->net_mode) ? "auto" : c->net_mode;
	struct cni_conf cc = {.config_path = str_empty(c->cni_config_path) ? "/etc/buildkit/cni.json" : c->cni_config_path,
			      .bin_dir = str_empty(c->cni_bin_dir) ? "/opt/cni/bin" : c->cni_bin_dir,
			      .net_dir = g->facts.net_dir,
			      .bridge_name = str_empty(c->bridge_name) ? "buildkit0" : c->bridge_name,
			      .bridge_subnet = str_empty(c->bridge_subnet) ? "10.10.0.0/16" : c->bridge_subnet};
	if (strcmp(mode, "auto") == 0) {
		bool bridge = false;
		const char *v = getenv("BUILDKIT_NETWORK_BRIDGE_AUTO");
		if (v && str_bool(v, &bridge) && bridge)
			mode = "bridge";
		else
			mode = access(cc.config_path, F_OK) == 0 ? "cni" : "host";
		if (strcmp(mode, "host") == 0) log_debug("using host network as the default");
	}
	cc.bridge = strcmp(mode, "bridge") == 0;
	if (strcmp(mode, "none") == 0)
		g->facts.net_none = true;
	else if (cc.bridge || strcmp(mode, "cni") == 0)
		return cni_open(&cc, &g->facts.cni, ret_first, e);
	else if (strcmp(mode, "host") != 0)
		return err_set(e, CODE_INVALID_ARGUMENT, "invalid network mode: \"%s\"", mode);
	return 0;
}

static void facts_fini(struct run_facts *f)
{
	cni_close(f->cni);
	free(f->bundles_dir);
	free(f->net_dir);
	free(f->runtime_root);
	free(f->runtime);
	free(f->seccomp);
	free(f->bpf);
	free(f->cgroup_parent);
	free(f->apparmor);
	free(f->trace_socket);
	strvec_fini(&f->all_caps);
}

/* ---- the pool of namespaces ---- */
static void ns_expire(void *arg);

static void ns_put(struct run_engine *g, struct net_ns *ns)
{
	ns->idle_since_ns = time_mono_ns();
	list_add_tail(&g->idle_ns, &ns->link);
	if (g->n_ns > g->pool_size && !g->ns_timer.uv) loop_timer_start(g->loop, &g->ns_timer, NS_IDLE_MS, 0, ns_expire, g);
}

struct ns_job {
	struct loop_job job;
	struct run_engine *g;
	struct net_ns *ns;
	struct strvec left;
	struct err err;
};

static void detach_work(struct loop_job *j)
{
	struct ns_job *n = container_of(j, struct ns_job, job);
	cni_detach(n->g->facts.net_dir, n->ns);
}

static void sweep_work(struct loop_job *j)
{
	struct ns_job *n = container_of(j, struct ns_job, job);
	cni_sweep(n->g->facts.cni, n->g->facts.net_dir, &n->left);
}

static void ns_job_done(struct loop_job *j)
{
	struct ns_job *n = container_of(j, struct ns_job, job);
	n->g->n_jobs--;
	strvec_fini(&n->left);
	free(n);
}

static void ns_job_start(struct run_engine *g, struct ns_job *n)
{
	g->n_jobs++;
	loop_job_start(g->loop, &n->job, LOOP_NET);
}

static void ns_expire(void *arg)
{
	struct run_engine *g = arg;
	int64_t old = time_mono_ns() - (int64_t)NS_IDLE_MS * 1000000;
	loop_timer_stop(&g->ns_timer);
	LIST_EACH(&g->idle_ns, struct net_ns, ns, link)
	{
		if (g->n_ns <= g->pool_size || ns->idle_since_ns > old + 1000000) break;
		struct ns_job *n = xnew(struct ns_job);
		*n = (struct ns_job){.job = {.work = detach_work, .done = ns_job_done}, .g = g, .ns = ns};
		list_del(&ns->link);
		g->n_ns--;
		ns_job_start(g, n);
	}
	if (g->n_ns > g->pool_size && !list_empty(&g->idle_ns))
		loop_timer_start(g->loop, &g->ns_timer, NS_IDLE_MS, 0, ns_expire, g);
}

static void fill(struct run_engine *g);

static void fill_work(struct loop_job *j)
{
	struct ns_job *n = container_of(j, struct ns_job, job);
	cni_attach(n->g->facts.cni, NULL, &n->ns, &n->err);
}

static void fill_done(struct loop_job *j)
{
	struct ns_job *n = container_of(j, struct ns_job, job);
	struct run_engine *g = n->g;
	g->n_jobs--;
	g->filling = false;
	if (n->ns) {
		g->n_ns++;
		ns_put(g, n->ns);
		fill(g);
	} else {
		log_error("failed to create new cni network namespace while prefilling pool: %s", n->err.msg);
	}
	err_fini(&n->err);
	free(n);
}

static void fill(struct run_engine *g)
{
	if (!g->facts.cni || g->filling || g->stopping || g->n_ns >= g->pool_size) return;
	struct ns_job *n = xnew(struct ns_job);
	*n = (struct ns_job){.job = {.work = fill_work, .done = fill_done}, .g = g};
	g->filling = true;
	ns_job_start(g, n);
}

struct net_ns *engine_ns_take(struct run_engine *g)
{
	if (list_empty(&g->idle_ns)) return NULL;
	struct net_ns *ns = container_of(g->idle_ns.prev, struct net_ns, link); /* the one used last: warm */
	list_del(&ns->link);
	return ns;
}

void engine_ns_give(struct run_engine *g, struct net_ns *ns) { ns_put(g, ns); }

/* ---- which runtime works: found out beside the daemon's start; runs wait for it ---- */
static void probe_work(struct loop_job *j)
{
	struct run_engine *g = container_of(j, struct run_engine, probe);
	probe_sweep(&g->facts, g->state_dir);
	probe_runtime(&g->facts, g->state_dir, g->wanted_runtime, &g->probe_err);
}

static void probe_done(struct loop_job *j)
{
	struct run_engine *g = container_of(j, struct run_engine, probe);
	g->probed = true;
	if (err_is_set(&g->probe_err)) log_error("%s", g->probe_err.msg);
	while (!list_empty(&g->waiting)) {
		struct list *link = g->waiting.next;
		list_del(link);
		run_probed(link);
	}
}

/* ---- open and close ---- */
static void sweep(struct run_engine *g, struct strvec *left)
{
	struct ns_job *n = xnew(struct ns_job);
	*n = (struct ns_job){.job = {.work = sweep_work, .done = ns_job_done}, .g = g, .left = *left};
	*left = (struct strvec){0};
	ns_job_start(g, n);
}

int run_engine_open(struct loop *l, const struct run_engine_conf *conf, struct run_engine **ret, struct err *e)
{
	struct run_engine *g = xnew(struct run_engine);
	_cleanup_free_ char *state_dir = path_abs_in(conf->state_dir);
	_cleanup_strvec_ struct strvec left = {0};
	struct run_engine_conf c = *conf;
	struct net_ns *first = NULL;
	g->loop = l;
	g->pool_size = c.cni_pool_size;
	g->dns = run_dns_ref(c.dns);
	list_init(&g->idle_ns);
	list_init(&g->waiting);
	g->read_buf = xmalloc(READ_BYTES);
	c.state_dir = state_dir;
	signal(SIGPIPE, SIG_IGN); /* libuv writes to pipes whose reader may have gone */
	if (*conf->state_dir != '/') {
		err_set(e, CODE_INVALID_ARGUMENT, "the state folder %s must be an absolute path", conf->state_dir);
		goto fail;
	}
	if (path_mkdirs(state_dir, 0711, e) < 0 || set_facts(&g->facts, &c, e) < 0) goto fail;
	g->state_dir = xstrdup(state_dir);
	g->wanted_runtime = str_empty(c.runtime) ? NULL : xstrdup(c.runtime);
	cni_left(g->facts.net_dir, &left);
	if (set_network(g, &c, &first, e) < 0) goto fail;
	if (first) {
		g->n_ns++;
		ns_put(g, first);
	}
	sweep(g, &left);
	g->probe.work = probe_work;
	g->probe.done = probe_done;
	loop_job_start(l, &g->probe, LOOP_NET);
	fill(g);
	*ret = g;
	return 0;
fail:
	run_engine_close(g);
	return -1;
}

void run_engine_stop(struct run_engine *g)
{
	if (!g || g->stopping) return;
	g->stopping = true;
	loop_timer_stop(&g->ns_timer);
	for (int ms = 0; g->facts.cni && g->n_runs && ms < STOP_MS;
	     ms += STOP_POLL_MS) { /* steps of cancelled builds are about to end */
		uv_run(loop_uv(g->loop), UV_RUN_NOWAIT);
		usleep(STOP_POLL_MS * 1000);
	}
	while (g->n_jobs)
		uv_run(loop_uv(g->loop), UV_RUN_ONCE); /* a namespace that is half made has to be whole to be undone */
	LIST_EACH(&g->idle_ns, struct net_ns, ns, link)
	{
		list_del(&ns->link);
		g->n_ns--;
		cni_detach(g->facts.net_dir, ns);
	}
	if (g->n_ns) return; /* steps that were cut off hold the rest: the next daemon's */
	cni_close(g->facts.cni);
	g->facts.cni = NULL;
}

void run_engine_close(struct run_engine *g)
{
	if (!g) return;
	ensure(g->n_runs == 0);
	while (g->probe.loop && !g->probed) uv_run(loop_uv(g->loop), UV_RUN_ONCE); /* its job uses g */
	run_engine_stop(g);
	facts_fini(&g->facts);
	run_dns_unref(g->dns);
	err_fini(&g->probe_err);
	free(g->wanted_runtime);
	free(g->state_dir);
	free(g->read_buf);
	free(g);
}

void run_engine_set_dns(struct run_engine *g, struct run_dns *dns)
{
	run_dns_ref(dns);
	run_dns_unref(g->dns);
	g->dns = dns;
}

const char *run_engine_runtime(const struct run_engine *g) { return g->facts.runtime; }
const char *run_engine_network(const struct run_engine *g) { return g->facts.cni ? "cni" : "host"; }
bool run_engine_cgroup2(const struct run_engine *g) { return g->facts.cgroup2; }
