/* config.json of a container, as the peer writes it (executor/oci/spec*.go over containerd's default spec), and the
 * process.json of `exec`. Order of mounts: the base table, resolv.conf, hosts, cgroup, the step's own, the trace socket;
 * of two with one destination the later takes the earlier's place.
 * The secure form: 14 capabilities, masked and read-only /proc and /sys paths, seccomp, no device but the default ones.
 * The insecure form: everything the daemon itself holds, ambient too; no masks, no seccomp; common devices.
 * ociVersion is 1.0.2: crun 1.8 refuses later ones and nothing here needs them. */
#include "run/internal.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <linux/loop.h>

#define TRACE_SOCKET "/dev/otel-grpc.sock"

static const char *const default_caps[] = {
	"CAP_CHOWN",   "CAP_DAC_OVERRIDE", "CAP_FSETID",           "CAP_FOWNER",
	"CAP_MKNOD",   "CAP_NET_RAW",      "CAP_SETGID",           "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP",      "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT",
	"CAP_KILL",    "CAP_AUDIT_WRITE",
};

static const char *const masked[] = {
	"/proc/acpi",       "/proc/asound",      "/proc/kcore",       "/proc/keys",    "/proc/latency_stats",
	"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/sys/devices/virtual/powercap",
	"/proc/scsi"};
static const char *const read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};

struct mount_row {
	const char *dest, *type, *source;
	const char *options[12]; /* "%rw" is ro, or rw when insecure */
};
#define TTY_GROUP "gid=5"
static const struct mount_row base_mounts[] = {
	{"/proc", "proc", "proc", {"nosuid", "noexec", "nodev"}},
	{"/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}},
	{"/dev/pts", "devpts", "devpts", {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", TTY_GROUP}},
	{"/dev/shm", "tmpfs", "shm", {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
	{"/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"}},
	{"/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", "%rw"}},
};
static const struct mount_row cgroup_mount = {"/sys/fs/cgroup", "cgroup", "cgroup", {"%rw", "nosuid", "noexec", "nodev"}};
static const struct mount_row bound_proc = {"/proc", "bind", "/proc", {"rbind"}};

static const struct {
	const char *path;
	char type;
	int major, minor;
} insecure_devices[] = {
	{"/dev/kmsg", 'c', 1, 11},  {"/dev/cuse", 'c', 10, 203},    {"/dev/fuse", 'c', 10, 229},
	{"/dev/kvm", 'c', 10, 232}, {"/dev/net/tun", 'c', 10, 200}, {"/dev/loop-control", 'c', 10, 237},
};

void oci_default_caps(struct strvec *out)
{
	for (size_t i = 0; i < array_len(default_caps); i++) strvec_add(out, default_caps[i]);
}

static void put_strs(struct json_w *w, const char *key, char *const *v)
{
	json_key(w, key);
	json_arr(w);
	for (; v && *v; v++) json_str(w, *v);
	json_arr_end(w);
}

static void put_caps(struct json_w *w, const struct run_facts *f, bool insecure)
{
	_cleanup_strvec_ struct strvec caps = {0};
	static const char *const sets[] = {"bounding", "effective", "permitted", "inheritable", "ambient"};
	if (insecure)
		strvec_copy(&caps, f->all_caps.v, f->all_caps.n);
	else
		oci_default_caps(&caps);
	json_key(w, "capabilities");
	json_obj(w);
	for (size_t i = 0; i < (insecure ? 5 : 3); i++) put_strs(w, sets[i], caps.v);
	json_obj_end(w);
}

static void put_user(struct json_w *w, const struct run_user *u, const uint32_t *gids, size_t n_gids)
{
	bool has = false;
	json_key(w, "user");
	json_obj(w);
	json_kint(w, "uid", u->uid);
	json_kint(w, "gid", u->gid);
	for (size_t i = 0; i < u->n_groups; i++) has |= u->groups[i] == u->gid;
	json_key(w, "additionalGids");
	json_arr(w);
	if (!has) json_int(w, u->gid);
	for (size_t i = 0; i < u->n_groups; i++) json_int(w, u->groups[i]);
	for (size_t i = 0; i < n_gids; i++) json_int(w, gids[i]);
	json_arr_end(w);
	json_obj_end(w);
}

static const char *const proxy_vars[] = {"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"};
static const char no_proxy[] = "127.0.0.1,localhost,::1";

static void put_env(struct json_w *w, char *const *env, bool trace, const char *traceparent, const char *proxy)
{
	static const char *const otel[][2] = {{"OTEL_TRACES_EXPORTER", "otlp"},
					      {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "unix://" TRACE_SOCKET},
					      {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"}};
	_cleanup_strvec_ struct strvec all = {0};
	for (; env && *env; env++)
		if (strchr(*env, '=')) strvec_add(&all, *env);
	for (size_t i = 0; trace && i < array_len(otel); i++)
		if (!strvec_env_get(&all, otel[i][0])) strvec_addf(&all, "%s=%s", otel[i][0], otel[i][1]);
	if (trace && !str_empty(traceparent)) strvec_env_set(&all, "TRACEPARENT", traceparent);
	for (size_t i = 0; proxy && i < array_len(proxy_vars); i++) {
		_cleanup_free_ char *url = xasprintf("http://%s", proxy);
		strvec_env_set(&all, proxy_vars[i], url);
	}
	if (proxy) strvec_env_set(&all, "NO_PROXY", no_proxy);
	if (proxy) strvec_env_set(&all, "no_proxy", no_proxy);
	put_strs(w, "env", all.v);
}

static void put_rlimits(struct json_w *w, const struct run_ulimit *u, size_t n)
{
	if (!n) return;
	json_key(w, "rlimits");
	json_arr(w);
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *name = xasprintf("RLIMIT_%s", u[i].name);
		for (char *c = name; *c; c++) *c = *c >= 'a' && *c <= 'z' ? (char)(*c - 32) : *c;
		json_obj(w);
		json_kstr(w, "type", name);
		json_key(w, "hard");
		json_uint(w, (uint64_t)u[i].hard);
		json_key(w, "soft");
		json_uint(w, (uint64_t)u[i].soft);
		json_obj_end(w);
	}
	json_arr_end(w);
}

static void put_process(struct json_w *w, const struct run_facts *f, const struct oci_process *p)
{
	json_obj(w);
	if (p->tty) json_kbool(w, "terminal", true);
	put_user(w, p->user, p->gids, p->n_gids);
	put_strs(w, "args", p->args);
	put_env(w, p->env, p->trace, p->traceparent, p->proxy);
	json_kstr(w, "cwd", str_empty(p->cwd) ? "/" : p->cwd);
	put_caps(w, f, p->insecure);
	put_rlimits(w, p->ulimits, p->n_ulimits);
	json_kbool(w, "noNewPrivileges", false);
	if (f->apparmor && !p->insecure) json_kstr(w, "apparmorProfile", f->apparmor);
	json_obj_end(w);
}

void oci_process(const struct run_facts *f, const struct oci_process *p, struct buf *out)
{
	struct json_w w = JSON_W(out);
	put_process(&w, f, p);
}

/* ---- mounts ---- */
struct mount {
	char *dest, *type, *source;
	struct strvec options;
};
struct mounts {
	VEC(struct mount) v;
};

static void mounts_fini(struct mounts *m)
{
	for (size_t i = 0; i < m->v.n; i++) {
		free(m->v.v[i].dest);
		free(m->v.v[i].type);
		free(m->v.v[i].source);
		strvec_fini(&m->v.v[i].options);
	}
	vec_fini(&m->v);
}

/* Add a mount or take the place of the one with that destination. */
static struct mount *mounts_add(struct mounts *ms, const char *dest, const char *type, const char *source)
{
	struct mount *m = NULL;
	for (size_t i = 0; i < ms->v.n && !m; i++)
		if (strcmp(ms->v.v[i].dest, dest) == 0) m = &ms->v.v[i];
	if (m) {
		free(m->dest);
		free(m->type);
		free(m->source);
		strvec_fini(&m->options);
	} else {
		m = vec_add(&ms->v);
	}
	*m = (struct mount){.dest = xstrdup(dest), .type = xstrdup(type), .source = xstrdup(source)};
	return m;
}

static void add_row(struct mounts *ms, const struct mount_row *r, const struct run_facts *f, bool insecure)
{
	struct mount *m = mounts_add(ms, r->dest, r->type, r->source);
	for (size_t i = 0; r->options[i]; i++) {
		if (f->no_tty_group && strcmp(r->options[i], TTY_GROUP) == 0) continue;
		strvec_add(&m->options, strcmp(r->options[i], "%rw") != 0 ? r->options[i] : insecure ? "rw" : "ro");
	}
}

static void add_file(struct mounts *ms, const char *dest, const char *source)
{
	static const char *const opts[] = {"nosuid", "noexec", "nodev", "rbind", "ro"};
	struct mount *m = mounts_add(ms, dest, "bind", source);
	for (size_t i = 0; i < array_len(opts); i++) strvec_add(&m->options, opts[i]);
}

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);
	return strncmp(path, dir, n) == 0 && (!path[n] || path[n] == '/');
}

/* In a user namespace a bind mount must keep the flags its source is locked to. */
static void keep_locked_flags(struct mount *m)
{
	static const struct {
		unsigned long flag;
		const char *word;
	} flags[] = {{ST_RDONLY, "ro"},       {ST_NODEV, "nodev"},       {ST_NOEXEC, "noexec"},        {ST_NOSUID, "nosuid"},
		     {ST_NOATIME, "noatime"}, {ST_RELATIME, "relatime"}, {ST_NODIRATIME, "nodiratime"}};
	struct statvfs s;
	if (strvec_find(&m->options, "bind") < 0 && strvec_find(&m->options, "rbind") < 0) return;
	if (statvfs(m->source, &s) < 0) return;
	for (size_t i = 0; i < array_len(flags); i++)
		if ((s.f_flag & flags[i].flag) && strvec_find(&m->options, flags[i].word) < 0)
			strvec_add(&m->options, flags[i].word);
}

static void gather_mounts(struct mounts *ms, const struct run_facts *f, const struct oci_box *b)
{
	const struct run_spec *s = b->spec;
	if (f->no_process_sandbox) add_row(ms, &bound_proc, f, s->insecure);
	for (size_t i = 0; i < array_len(base_mounts); i++) {
		const char *dest = base_mounts[i].dest;
		if (f->no_process_sandbox && is_below(dest, "/proc")) continue;
		if (f->rootless && is_below(dest, "/sys")) continue;
		add_row(ms, &base_mounts[i], f, s->insecure);
	}
	add_file(ms, "/etc/resolv.conf", b->resolv_path);
	add_file(ms, "/etc/hosts", b->hosts_path);
	if (!f->rootless) add_row(ms, &cgroup_mount, f, s->insecure);
	for (size_t i = 0; i < s->n_mounts; i++) {
		const struct run_mount *rm = &s->mounts[i];
		_cleanup_free_ char *dest =
			*rm->dest == '/' ? path_clean(rm->dest) : path_join(str_empty(s->cwd) ? "/" : s->cwd, rm->dest);
		if (f->rootless && is_below(dest, "/sys")) continue;
		struct mount *m = mounts_add(ms, dest, rm->type, rm->source);
		strvec_copy(&m->options, rm->options, rm->n_options);
	}
	if (b->trace) {
		struct mount *m = mounts_add(ms, TRACE_SOCKET, "bind", f->trace_socket);
		strvec_add(&m->options, "ro");
		strvec_add(&m->options, "rbind");
	}
}

static void put_mounts(struct json_w *w, const struct run_facts *f, const struct oci_box *b)
{
	_cleanup_(mounts_fini) struct mounts ms = {0};
	gather_mounts(&ms, f, b);
	json_key(w, "mounts");
	json_arr(w);
	for (size_t i = 0; i < ms.v.n; i++) {
		struct mount *m = &ms.v.v[i];
		if (f->userns) keep_locked_flags(m);
		json_obj(w);
		json_kstr(w, "destination", m->dest);
		json_kstr(w, "type", m->type);
		json_kstr(w, "source", m->source);
		json_kstrs_omit(w, "options", m->options.v, m->options.n);
		json_obj_end(w);
	}
	json_arr_end(w);
}

/* ---- linux ---- */
static void put_device(struct json_w *w, const char *path, char type, unsigned maj, unsigned min)
{
	json_obj(w);
	json_kstr(w, "path", path);
	json_kstr(w, "type", (char[]){type, 0});
	json_kint(w, "major", maj);
	json_kint(w, "minor", min);
	json_obj_end(w);
}

/* What the caller left open is as on the host. */
static int device_facts(const struct run_device *d, struct run_device *ret, struct err *e)
{
	const char *host = d->host_path ? d->host_path : d->path;
	struct stat st;
	*ret = *d;
	if (d->type && (d->type == 'p' || d->major || d->minor)) return 0;
	if (stat(host, &st) < 0 || !(S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) || S_ISFIFO(st.st_mode)))
		return err_set(e, CODE_INVALID_ARGUMENT, "%s is no device of this machine", host);
	char is = S_ISCHR(st.st_mode) ? 'c' : S_ISBLK(st.st_mode) ? 'b' : 'p';
	if (d->type && d->type != is && !(d->type == 'u' && is == 'c'))
		return err_set(e, CODE_INVALID_ARGUMENT, "%s is a device of type %c and not %c", host, is, d->type);
	ret->type = d->type ? d->type : is;
	if (is != 'p') {
		ret->major = major(st.st_rdev);
		ret->minor = minor(st.st_rdev);
	}
	if (d->mode < 0) ret->mode = st.st_mode & 07777;
	return 0;
}

static void put_given_device(struct json_w *w, const struct run_device *d, const struct run_user *u)
{
	json_obj(w);
	json_kstr(w, "path", d->path);
	json_kstr(w, "type", (char[]){d->type, 0});
	if (d->type != 'p') {
		json_kint(w, "major", d->major);
		json_kint(w, "minor", d->minor);
	}
	if (d->mode >= 0) json_kint(w, "fileMode", d->mode);
	json_kint(w, "uid", d->uid >= 0 ? d->uid : u->uid);
	json_kint(w, "gid", d->gid >= 0 ? d->gid : u->gid);
	json_obj_end(w);
}

static int free_loop_device(void)
{
	_cleanup_close_ int fd = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int n = fd < 0 ? 0 : ioctl(fd, LOOP_CTL_GET_FREE);
	return n < 0 ? 0 : min_of(n, 1024);
}

static int put_devices(struct json_w *w, const struct run_facts *f, const struct oci_box *b, struct err *e)
{
	const struct run_spec *s = b->spec;
	bool all = s->insecure && !f->userns;
	if (!all && !s->n_devices) return 0;
	json_key(w, "devices");
	json_arr(w);
	for (size_t i = 0; all && i < array_len(insecure_devices); i++)
		put_device(w, insecure_devices[i].path, insecure_devices[i].type, (unsigned)insecure_devices[i].major,
			   (unsigned)insecure_devices[i].minor);
	for (int i = 0, n = all ? free_loop_device() + 8 : 0; i < n; i++) {
		_cleanup_free_ char *path = xasprintf("/dev/loop%d", i);
		put_device(w, path, 'b', 7, (unsigned)i);
	}
	for (size_t i = 0; i < s->n_devices; i++) {
		struct run_device d;
		if (device_facts(&s->devices[i], &d, e) < 0) return -1;
		put_given_device(w, &d, b->user);
	}
	json_arr_end(w);
	return 0;
}

static void put_device_rule(struct json_w *w, bool allow, const char *type, const struct run_device *d)
{
	json_obj(w);
	json_kbool(w, "allow", allow);
	json_kstr_omit(w, "type", type);
	if (d) {
		json_kint(w, "major", d->major);
		json_kint(w, "minor", d->minor);
	}
	json_kstr(w, "access", d && d->access ? d->access : "rwm");
	json_obj_end(w);
}

static void put_resources(struct json_w *w, const struct run_spec *s)
{
	const struct run_resources *r = &s->res;
	json_key(w, "resources");
	json_obj(w);
	json_key(w, "devices");
	json_arr(w);
	if (s->insecure) {
		put_device_rule(w, true, "c", NULL);
		put_device_rule(w, true, "b", NULL);
	} else {
		put_device_rule(w, false, NULL, NULL);
	}
	for (size_t i = 0; i < s->n_devices; i++) {
		struct run_device d;
		if (device_facts(&s->devices[i], &d, NULL) == 0 && d.type != 'p')
			put_device_rule(w, true, d.type == 'b' ? "b" : "c", &d);
	}
	json_arr_end(w);
	if (r->memory_bytes || r->memory_swap_bytes) {
		json_key(w, "memory");
		json_obj(w);
		json_kint_omit(w, "limit", r->memory_bytes);
		json_kint_omit(w, "swap", r->memory_swap_bytes);
		json_obj_end(w);
	}
	if (r->cpu_shares || r->cpu_quota_us || r->cpu_period_us || r->cpuset_cpus || r->cpuset_mems) {
		json_key(w, "cpu");
		json_obj(w);
		json_kint_omit(w, "shares", (int64_t)r->cpu_shares);
		json_kint_omit(w, "quota", r->cpu_quota_us);
		json_kint_omit(w, "period", (int64_t)r->cpu_period_us);
		json_kstr_omit(w, "cpus", r->cpuset_cpus);
		json_kstr_omit(w, "mems", r->cpuset_mems);
		json_obj_end(w);
	}
	json_obj_end(w);
}

static void put_ns(struct json_w *w, const char *type, const char *path)
{
	json_obj(w);
	json_kstr(w, "type", type);
	json_kstr_omit(w, "path", path);
	json_obj_end(w);
}

static void put_namespaces(struct json_w *w, const struct run_facts *f, const struct oci_box *b)
{
	json_key(w, "namespaces");
	json_arr(w);
	if (!f->no_process_sandbox) put_ns(w, "pid", NULL);
	put_ns(w, "ipc", NULL);
	put_ns(w, "uts", NULL);
	put_ns(w, "mount", NULL);
	if (!b->host_net) put_ns(w, "network", b->netns);
	if (f->cgroup_ns) put_ns(w, "cgroup", NULL);
	json_arr_end(w);
}

static void put_paths(struct json_w *w, const char *key, const char *const *v, size_t n, bool but_proc)
{
	json_key(w, key);
	json_arr(w);
	for (size_t i = 0; i < n; i++)
		if (!but_proc || !is_below(v[i], "/proc")) json_str(w, v[i]);
	json_arr_end(w);
}

static int put_linux(struct json_w *w, const struct run_facts *f, const struct oci_box *b, struct err *e)
{
	bool insecure = b->spec->insecure;
	json_key(w, "linux");
	json_obj(w);
	if (!f->rootless) {
		put_resources(w, b->spec);
		json_kstr_omit(w, "cgroupsPath", b->cgroups_path);
	}
	put_namespaces(w, f, b);
	if (put_devices(w, f, b, e) < 0) return -1;
	if (!insecure) {
		if (f->seccomp) {
			json_key(w, "seccomp");
			json_raw(w, f->seccomp, strlen(f->seccomp));
		}
		put_paths(w, "maskedPaths", masked, array_len(masked), f->no_process_sandbox);
		put_paths(w, "readonlyPaths", read_only, array_len(read_only), f->no_process_sandbox);
	}
	json_obj_end(w);
	return 0;
}

static void put_hook(struct json_w *w, const struct run_hook *h)
{
	json_obj(w);
	json_kstr(w, "path", h->path);
	if (h->args && h->args[0]) put_strs(w, "args", h->args);
	if (h->env && h->env[0]) put_strs(w, "env", h->env);
	json_kint_omit(w, "timeout", h->timeout_s);
	json_obj_end(w);
}

static void put_hooks(struct json_w *w, const struct run_spec *s)
{
	static const char *const kinds[] = {"prestart",       "createRuntime", "createContainer",
					    "startContainer", "poststart",     "poststop"};
	if (!s->n_hooks) return;
	json_key(w, "hooks");
	json_obj(w);
	for (size_t k = 0; k < array_len(kinds); k++) {
		size_t n = 0;
		for (size_t i = 0; i < s->n_hooks; i++) {
			if (strcmp(s->hooks[i].kind, kinds[k]) != 0) continue;
			if (!n++) {
				json_key(w, kinds[k]);
				json_arr(w);
			}
			put_hook(w, &s->hooks[i]);
		}
		if (n) json_arr_end(w);
	}
	json_obj_end(w);
}

int oci_config(const struct run_facts *f, const struct oci_box *b, struct buf *out, struct err *e)
{
	const struct run_spec *s = b->spec;
	struct json_w w = JSON_W(out);
	json_obj(&w);
	json_kstr(&w, "ociVersion", "1.0.2");
	json_key(&w, "process");
	put_process(&w, f,
		    &(struct oci_process){.args = s->args,
					  .env = s->env,
					  .cwd = s->cwd,
					  .user = b->user,
					  .tty = s->tty,
					  .insecure = s->insecure,
					  .trace = b->trace,
					  .traceparent = s->traceparent,
					  .proxy = b->proxy,
					  .ulimits = s->ulimits,
					  .n_ulimits = s->n_ulimits,
					  .gids = s->gids,
					  .n_gids = s->n_gids});
	json_key(&w, "root");
	json_obj(&w);
	json_kstr(&w, "path", s->rootfs);
	if (s->rootfs_readonly) json_kbool(&w, "readonly", true);
	json_obj_end(&w);
	json_kstr(&w, "hostname", str_empty(s->hostname) ? RUN_HOSTNAME : s->hostname);
	put_mounts(&w, f, b);
	if (f->bpf && !s->insecure) { /* crun: the filter as compiled before, in place of 15 ms of compiling */
		json_key(&w, "annotations");
		json_obj(&w);
		json_kstr(&w, "run.oci.seccomp_bpf_data", f->bpf);
		json_obj_end(&w);
	}
	put_hooks(&w, s);
	if (put_linux(&w, f, b, e) < 0) return -1;
	json_obj_end(&w);
	return 0;
}
