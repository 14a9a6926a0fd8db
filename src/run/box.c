/* One container's folder <state>/bundles/<id>/: what a job writes before the runtime starts, and what a job undoes after.
 *     config.json  hosts  resolv.conf  pid  log  cgroup   exec-<n>.json exec-<n>.pid
 * The folder is also the record that a container may exist: the next daemon cleans whatever it finds there.
 * box_clean undoes exactly what box_prepare got done, also after a failure half way. Job code. */
#include "run/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { DELETE_TIMEOUT_MS = 20000 };

static int write_file(const char *dir, const char *name, const void *p, size_t n, mode_t mode, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	if (fd < 0 || fchmod(fd, mode) < 0) return err_sys(e, errno, "create %s", path);
	return path_write_all(fd, p, n, e);
}

static int write_network_files(const struct box *b, bool host_net, struct err *e)
{
	_cleanup_free_ char *host_text = dns_host_text(host_net), *resolv = NULL, *hosts = NULL;
	resolv = dns_resolv_conf(host_text, b->spec->dns, host_net);
	if (dns_hosts_file(b->spec->hostname, b->spec->extra_hosts, b->spec->n_extra_hosts, &hosts, e) < 0) return -1;
	if (write_file(b->bundle, "resolv.conf", resolv, strlen(resolv), 0644, e) < 0) return -1;
	return write_file(b->bundle, "hosts", hosts, strlen(hosts), 0644, e);
}

static void note_stubs(struct box *b)
{
	const struct run_spec *s = b->spec;
	stubs_note(&b->stubs, b->rootfd, "/etc/resolv.conf", s->remove_stubs_recursive);
	stubs_note(&b->stubs, b->rootfd, "/etc/hosts", s->remove_stubs_recursive);
	for (size_t i = 0; i < s->n_mounts; i++) {
		if (s->mounts[i].no_stub) continue;
		_cleanup_free_ char *dest = *s->mounts[i].dest == '/'
						    ? xstrdup(s->mounts[i].dest)
						    : path_join(str_empty(s->cwd) ? "/" : s->cwd, s->mounts[i].dest);
		stubs_note(&b->stubs, b->rootfd, dest, s->remove_stubs_recursive);
	}
}

static int make_cwd(const struct box *b, const struct run_user *u, struct err *e)
{
	struct stat st;
	if (str_empty(b->spec->cwd) || path_stat_in(b->rootfd, b->spec->cwd, &st, NULL) == 0) return 0;
	if (path_mkdirs_in(b->rootfd, b->spec->cwd, 0755, u->uid, u->gid, e) < 0)
		return err_wrap(e, "failed to create working directory %s", b->spec->cwd);
	return 0;
}

static int make_bundle(struct box *b, struct err *e)
{
	char *dir = xasprintf("%s/%s", b->facts->bundles_dir, b->id);
	if (mkdir(dir, 0711) < 0) {
		int saved = errno;
		free(dir);
		if (saved == EEXIST) return err_set(e, CODE_ALREADY_EXISTS, "container %s exists", b->id);
		return err_sys(e, saved, "create the bundle of %s", b->id);
	}
	b->bundle = dir;
	b->pid_file = xasprintf("%s/pid", dir);
	return 0;
}

/* Our own directory around the runtime's cgroup, on v2; its path is on record before the container exists. */
static int make_cgroup(struct box *b, char **cgroups_path, struct err *e)
{
	const char *parent = b->spec->cgroup_parent ? b->spec->cgroup_parent : b->facts->cgroup_parent;
	_cleanup_free_ char *path = cgroup_path(parent, b->id);
	if (b->facts->cgroup2 && !b->facts->rootless) b->cgroup_wrapper = cgroup_wrap(path);
	if (b->cgroup_wrapper && write_file(b->bundle, "cgroup", b->cgroup_wrapper, strlen(b->cgroup_wrapper), 0600, e) < 0)
		return -1;
	*cgroups_path = b->cgroup_wrapper ? xasprintf("%s/%s", path, b->id) : take_ptr(path);
	return 0;
}

static int write_config(struct box *b, const struct run_user *u, struct err *e)
{
	const struct run_spec *s = b->spec;
	_cleanup_buf_ struct buf out = BUF_INIT;
	_cleanup_free_ char *hosts = xasprintf("%s/hosts", b->bundle), *resolv = xasprintf("%s/resolv.conf", b->bundle);
	_cleanup_free_ char *cgroups_path = NULL;
	bool none = s->net == RUN_NET_NONE || (s->net == RUN_NET_DEFAULT && b->facts->net_none);
	if (make_cgroup(b, &cgroups_path, e) < 0) return -1;
	struct oci_box ob = {.spec = s,
			     .user = u,
			     .id = b->id,
			     .hosts_path = hosts,
			     .resolv_path = resolv,
			     .cgroups_path = cgroups_path,
			     .netns = b->proxy_ns ? b->proxy_ns : b->netns ? b->netns->path : NULL,
			     .proxy = b->proxy_addr,
			     .host_net = !none && !b->netns && !b->proxy_ns,
			     .trace = s->trace && b->facts->trace_socket && access(b->facts->trace_socket, F_OK) == 0};
	if (oci_config(b->facts, &ob, &out, e) < 0) return -1;
	return write_file(b->bundle, "config.json", out.p, out.n, 0600, e);
}

static int open_proxy(struct box *b, struct err *e)
{
	_cleanup_free_ char *id = xasprintf("%s-proxy", b->id);
	if (b->spec->net == RUN_NET_DEFAULT && b->facts->net_none)
		return err_set(e, CODE_FAILED_PRECONDITION, "the proxy network has no way out: networkMode is \"none\"");
	if (netns_proxy(b->facts->net_dir, id, &b->proxy_ns, &b->proxy_addr, &b->proxy_fd, e) < 0) return -1;
	return authority_add(b, e);
}

static int prepare(struct box *b, struct err *e)
{
	_cleanup_(run_user_fini) struct run_user u = {0};
	b->rootfd = open(b->spec->rootfs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (b->rootfd < 0) return err_sys(e, errno, "open the root filesystem %s", b->spec->rootfs);
	if (make_bundle(b, e) < 0) return -1;
	note_stubs(b);
	if (run_user_find(b->rootfd, b->spec->user, &u, e) < 0) return -1;
	if (make_cwd(b, &u, e) < 0) return -1;
	if (write_network_files(b, b->spec->net == RUN_NET_HOST, e) < 0) return -1;
	if (loop_job_cancelled(&b->job)) return err_set(e, CODE_CANCELLED, "context canceled");
	if (b->wants_netns && !b->netns && cni_attach(b->facts->cni, b->spec->hostname, &b->netns, e) < 0) return -1;
	if (b->spec->proxy_ca && open_proxy(b, e) < 0) return -1;
	return write_config(b, &u, e);
}

void box_prepare(struct loop_job *j)
{
	struct box *b = container_of(j, struct box, job);
	prepare(b, &b->err);
}

/* The runtime removes its state when it ends by itself; one that had to be killed leaves it, and perhaps the container. */
static void delete_left(const struct box *b)
{
	_cleanup_free_ char *state = xasprintf("%s/%s", b->facts->runtime_root, b->id);
	_cleanup_strvec_ struct strvec argv = {0};
	struct child_result r;
	if (access(state, F_OK) < 0) return;
	runtime_argv(b->facts, NULL, &argv);
	strvec_add(&argv, "delete");
	strvec_add(&argv, "--force");
	strvec_add(&argv, b->id);
	if (child_run(argv.v, NULL, NULL, DELETE_TIMEOUT_MS, &r, NULL) == 0) child_result_fini(&r);
}

void box_clean(struct loop_job *j)
{
	struct box *b = container_of(j, struct box, job);
	if (b->bundle) delete_left(b);
	cgroup_read(b->cgroup_wrapper, &b->exit);
	cgroup_unwrap(b->cgroup_wrapper);
	authority_remove(b);
	close_fd(&b->proxy_fd);
	b->proxy_fd = -1;
	if (b->proxy_ns) netns_remove(b->proxy_ns);
	if (b->rootfd >= 0) stubs_remove(&b->stubs, b->rootfd);
	if (b->netns && b->release_netns) cni_detach(b->facts->net_dir, take_ptr(b->netns));
	if (b->bundle) {
		_cleanup_err_ struct err e = ERR_INIT;
		if (path_remove_all(AT_FDCWD, b->bundle, &e) < 0) log_debug("bundle of %s stays: %s", b->id, e.msg);
	}
	if (b->rootfd >= 0) close(take_fd(b->rootfd));
}

static int exec_prepare(struct exec_box *b, struct err *e)
{
	_cleanup_(run_user_fini) struct run_user u = {0};
	_cleanup_buf_ struct buf out = BUF_INIT;
	const struct run_exec_spec *s = b->spec;
	const struct run_spec *c = b->container;
	_cleanup_close_ int rootfd = open(c->rootfs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (rootfd < 0) return err_sys(e, errno, "open the root filesystem %s", c->rootfs);
	if (run_user_find(rootfd, str_empty(s->user) ? c->user : s->user, &u, e) < 0) return -1;
	oci_process(b->facts,
		    &(struct oci_process){.args = s->args,
					  .env = s->env && s->env[0] ? s->env : c->env,
					  .cwd = str_empty(s->cwd) ? c->cwd : s->cwd,
					  .user = &u,
					  .tty = s->tty,
					  .insecure = c->insecure,
					  .ulimits = c->ulimits,
					  .n_ulimits = c->n_ulimits},
		    &out);
	_cleanup_free_ char *name = xasprintf("exec-%u.json", b->seq);
	b->process_file = xasprintf("%s/%s", b->bundle, name);
	b->pid_file = xasprintf("%s/exec-%u.pid", b->bundle, b->seq);
	return write_file(b->bundle, name, out.p, out.n, 0600, e);
}

void exec_box_prepare(struct loop_job *j)
{
	struct exec_box *b = container_of(j, struct exec_box, job);
	exec_prepare(b, &b->err);
}
