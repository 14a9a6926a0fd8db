/* Wiring: what is opened, in which order, and closed in the reverse one. */
#include "daemon/daemon.h"
#include "daemon/memory.h"
#include "daemon/observe.h"
#include "daemon/reload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/utsname.h>

enum { DRAIN_MS = 3000, TRIM_FIRST_MS = 300, TRIM_AGAIN_MS = 900, TRIM_EVERY_MS = 30000, TRIM_IDLE_MS = 60000 };

/* ---- the root: one daemon at a time ---- */

static int lock_root(struct daemon *d, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/lock", d->dir);
	static const char *const sub[] = {"index", "exec", "runtime", "tmp"};
	if (path_mkdirs(d->conf->root, 0711, e) < 0 || path_mkdirs(d->dir, 0711, e) < 0) return -1;
	for (size_t i = 0; i < array_len(sub); i++) {
		_cleanup_free_ char *dir = xasprintf("%s/%s", d->dir, sub[i]);
		if (path_mkdirs(dir, 0711, e) < 0) return -1;
	}
	d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (d->lock_fd < 0) return err_sys(e, errno, "open %s", path);
	if (flock(d->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(e, CODE_FAILED_PRECONDITION, "could not lock %s, another instance is using it", path);
	return 0;
}

/* What a killed daemon left of running steps: their mounts ended with its namespace. */
static int clean_exec(struct daemon *d, struct err *e)
{
	_cleanup_close_ int dir = open(d->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) return err_sys(e, errno, "open %s", d->dir);
	if (path_remove_all(dir, "exec", e) < 0) return -1;
	_cleanup_free_ char *path = xasprintf("%s/exec", d->dir);
	return path_mkdirs(path, 0711, e);
}

static int load_worker_id(struct daemon *d, struct err *e)
{
	int r = db_meta_get(d->db, "worker-id", &d->worker_id, e);
	if (r != 0) return r < 0 ? -1 : 0;
	d->worker_id = xmalloc(ID_STR);
	id_new(d->worker_id);
	return db_meta_set(d->db, "worker-id", d->worker_id, e);
}

/* ---- configuration to values ---- */

static enum reg_tri tri(enum conf_tri t) { return t == CONF_TRUE ? REG_YES : t == CONF_FALSE ? REG_NO : REG_UNSET; }

static struct reg_keypair *keypairs(const struct conf_keypair *v, size_t n)
{
	struct reg_keypair *p = xcalloc(n ? n : 1, sizeof *p);
	for (size_t i = 0; i < n; i++) p[i] = (struct reg_keypair){v[i].key, v[i].cert};
	return p;
}

static struct reg_mirror_conf *own_mirrors(const struct conf_registry *r)
{
	struct reg_mirror_conf *p = xcalloc(r->mirror.n + 1, sizeof *p);
	for (size_t i = 0; i < r->mirror.n; i++) {
		const struct conf_mirror *m = &r->mirror.v[i];
		p[i] = (struct reg_mirror_conf){.host = m->host, .path = m->path, .http = tri(m->http), .insecure = tri(m->insecure), .ca = m->ca.v,
						.ca_count = m->ca.n, .keypairs = keypairs(m->keypairs.v, m->keypairs.n),
						.keypair_count = m->keypairs.n, .tls_config_dirs = m->tlsconfigdir.v,
						.tls_config_dir_count = m->tlsconfigdir.n, .credentials = m->credentials,
						.no_fallback = m->fallback == CONF_FALSE};
	}
	return p;
}

/* reg copies all of it. */
struct reg_config *daemon_registries(const struct conf *c)
{
	struct reg_host_conf *hosts = xcalloc(c->registries.n + 1, sizeof *hosts);
	for (size_t i = 0; i < c->registries.n; i++) {
		const struct conf_registry *r = &c->registries.v[i];
		hosts[i] = (struct reg_host_conf){.name = r->name, .mirrors = r->mirrors.v, .mirror_count = r->mirrors.n,
						  .own_mirrors = own_mirrors(r), .own_mirror_count = r->mirror.n,
						  .max_concurrency = (size_t)r->max_concurrency, .http = tri(r->http), .insecure = tri(r->insecure),
						  .ca = r->ca.v, .ca_count = r->ca.n, .keypairs = keypairs(r->keypairs.v, r->keypairs.n),
						  .keypair_count = r->keypairs.n, .tls_config_dirs = r->tlsconfigdir.v,
						  .tls_config_dir_count = r->tlsconfigdir.n};
	}
	struct reg_config *config = reg_config_new(hosts, c->registries.n);
	for (size_t i = 0; i < c->registries.n; i++) {
		for (size_t k = 0; k < hosts[i].own_mirror_count; k++) free((void *)hosts[i].own_mirrors[k].keypairs);
		free((void *)hosts[i].own_mirrors);
		free((void *)hosts[i].keypairs);
	}
	free(hosts);
	return config;
}

static void add_label(struct daemon *d, const char *key, const char *value)
{
	_cleanup_free_ char *full = xasprintf("org.mobyproject.buildkit.worker.%s", key);
	strvec_env_set(&d->labels, full, value);
}

static void add_labels(struct daemon *d)
{
	struct utsname u;
	uname(&u);
	add_label(d, "executor", "oci");
	add_label(d, "snapshotter", snap_store_name(d->snaps));
	add_label(d, "hostname", u.nodename);
	add_label(d, "network", run_engine_network(d->run));
	add_label(d, "oci.process-mode", d->conf->oci.no_process_sandbox ? "no-sandbox" : "sandbox");
	add_label(d, "selinux.enabled", "false");
	if (!str_empty(d->conf->oci.apparmor)) add_label(d, "apparmor.profile", d->conf->oci.apparmor);
	for (size_t i = 0; i < d->conf->oci.labels.n; i++) {
		const char *kv = d->conf->oci.labels.v[i], *eq = strchr(kv, '=');
		_cleanup_free_ char *k = xstrndup(kv, eq ? (size_t)(eq - kv) : strlen(kv));
		strvec_env_set(&d->labels, k, eq ? eq + 1 : "");
	}
}

static const char *non_empty(const char *s) { return str_empty(s) ? NULL : s; }

static int open_runtime(struct daemon *d, struct err *e)
{
	const struct conf *c = d->conf;
	_cleanup_free_ char *state = xasprintf("%s/runtime", d->dir);
	struct run_engine_conf rc = {
		.state_dir = state,
		.runtime = non_empty(c->oci.binary),
		.net_mode = non_empty(c->oci.network_mode),
		.cni_config_path = non_empty(c->oci.cni_config_path),
		.cni_bin_dir = non_empty(c->oci.cni_binary_path),
		.cni_pool_size = (unsigned)c->oci.cni_pool_size,
		.bridge_name = non_empty(c->oci.bridge_name),
		.bridge_subnet = non_empty(c->oci.bridge_subnet),
		.rootless = c->oci.rootless,
		.no_process_sandbox = c->oci.no_process_sandbox,
		.apparmor = non_empty(c->oci.apparmor),
		.cgroup_parent = non_empty(c->oci.cgroup_parent),
		.trace_socket = non_empty(c->otel.socket_path),
	};
	return run_engine_open(d->loop, &rc, &d->run, e);
}

static void snapshot_gone(void *arg, struct snap *sn)
{
	struct daemon *d = arg;
	_cleanup_free_ char *index = ops_index_path(&d->env, sn->id);
	unlink(index);
}

static void trim(void *arg)
{
	struct daemon *d = arg;
	reg_client_trim(d->env.reg, TRIM_IDLE_MS);
	if (!engine_running(d->engine)) memory_give_back();
}

/* Once more when what is put off till after the start (old history goes after a second) has run. */
static void trim_first(void *arg)
{
	struct daemon *d = arg;
	trim(d);
	loop_timer_start(d->loop, &d->trim, TRIM_AGAIN_MS, TRIM_EVERY_MS, trim, d);
}

static struct wire_conn *serve_frontend(void *arg, struct bridge *b, int rfd, int wfd, void (*closed)(void *closed_arg), void *closed_arg,
					struct err *e)
{
	struct daemon *d = arg;
	return serve_bridge(d->serve, b, rfd, wfd, closed, closed_arg, e);
}

static int open_stores(struct daemon *d, struct err *e)
{
	_cleanup_free_ char *db_path = xasprintf("%s/db.sqlite", d->dir);
	struct snap_opts so = {.dir = d->dir, .mode = non_empty(d->conf->oci.snapshotter)};
	if (!str_eq(so.mode, "native") && !str_eq(so.mode, "overlayfs")) so.mode = NULL; /* conf has refused what does not exist */
	if (lock_root(d, e) < 0 || clean_exec(d, e) < 0 || db_open(d->loop, db_path, &d->db, e) < 0 || load_worker_id(d, e) < 0 ||
	    blob_store_open(d->dir, &d->blobs, e) < 0 || snap_store_open(d->loop, d->db, &so, &d->snaps, e) < 0)
		return -1;
	snap_store_on_remove(d->snaps, snapshot_gone, d);
	struct solver_conf sc = {d->loop, d->db, d->snaps, (size_t)max_of(d->conf->oci.max_parallelism, (int64_t)0)};
	return solver_new(&sc, &d->solver, e);
}

int daemon_open(struct daemon *d, struct conf *conf, struct err *e)
{
	if (geteuid() != 0)
		return err_set(e, CODE_FAILED_PRECONDITION,
			       "rootless mode requires to be executed as the mapped root in a user namespace, and this is user %u: start it by "
			       "`rootlesskit slipwayd` or `unshare -Urm --map-auto slipwayd`, or let `slipway build` start one",
			       (unsigned)geteuid());
	d->conf = conf;
	list_init(&d->connections);
	d->dir = xasprintf("%s/slipway", conf->root);
	struct err ns = ERR_INIT;
	if (run_enter_namespace(&ns) < 0) log_warn("%s", ns.msg);
	err_fini(&ns);
	d->env.reg = reg_client_new(); /* before any thread */
	d->loop = loop_new();
	if (observe_open(d, e) < 0 || open_stores(d, e) < 0 || open_runtime(d, e) < 0) return -1;
	d->sessions = sess_manager_new(d->loop);
	reg_pools_init(&d->pools, (size_t)max_of(conf->system.max_registry_concurrency, (int64_t)0));
	d->env.loop = d->loop;
	d->env.solver = d->solver;
	d->env.snaps = d->snaps;
	d->env.blobs = d->blobs;
	d->env.run = d->run;
	if (conf->cdi.disabled != CONF_TRUE)
		d->env.cdi = cdi_new(conf->cdi.spec_dirs.v, conf->cdi.spec_dirs.n, conf->cdi.auto_allowed.v, conf->cdi.auto_allowed.n);
	d->env.sessions = d->sessions;
	d->env.reg_pools = &d->pools;
	d->env.dir = d->dir;
	d->env.db = d->db;
	spec_platform_host(&d->env.host);
	daemon_platforms_init(d);
	add_labels(d);
	struct engine_conf ec = {
		.provenance_dir = d->conf->provenance_env_dir,
		.db = d->db,
		.env = &d->env,
		.worker_id = d->worker_id,
		.version = CONF_BUILDKIT_VERSION,
		.revision = SLIPWAY_REVISION,
		.dockerfile_version = "1.26.0",
		.labels = &d->labels,
		.platforms = d->platforms.v[0].v,
		.n_platforms = d->platforms.v[0].n,
		.look_for_platforms = daemon_platforms_look,
		.platforms_arg = d,
		.serve_bridge = serve_frontend,
		.serve_arg = d,
		.traces = d->traces,
	};
	d->engine = engine_new(&ec);
	d->serve = serve_new(d->engine, d->sessions, d->blobs);
	loop_timer_start(d->loop, &d->trim, TRIM_FIRST_MS, 0, trim_first, d);
	return daemon_settings(d, e);
}

/* ---- --idle-exit: an embedded daemon leaves when nobody needs it ---- */

struct connection {
	struct wire_conn *conn;
	struct daemon *daemon;
	struct list link;
};

static void conn_closed(void *arg, const struct err *why)
{
	struct connection *c = arg;
	struct daemon *d = c->daemon;
	list_del(&c->link);
	free(c);
	if (d->drain.uv && list_empty(&d->connections)) loop_stop(d->loop);
}

static void conn_opened(void *arg, struct wire_conn *conn)
{
	struct daemon *d = arg;
	struct connection *c = xnew(struct connection);
	c->conn = conn;
	c->daemon = d;
	list_add_tail(&d->connections, &c->link);
	wire_conn_on_closed(conn, conn_closed, c);
}

static void drained(void *arg) { loop_stop(((struct daemon *)arg)->loop); }

void daemon_drain(struct daemon *d)
{
	if (d->drain.uv) return;
	loop_timer_start(d->loop, &d->drain, DRAIN_MS, 0, drained, d);
	if (list_empty(&d->connections)) loop_stop(d->loop);
	LIST_EACH(&d->connections, struct connection, c, link) wire_conn_shutdown(c->conn);
}

static void check_idle(void *arg)
{
	struct daemon *d = arg;
	int64_t now = time_mono_ns();
	if (engine_running(d->engine) || !list_empty(&d->connections) || !d->busy_ns) d->busy_ns = now;
	if (now - d->busy_ns < d->conf->idle_exit_ns) return;
	log_info("idle: leaving");
	loop_stop(d->loop);
}

int daemon_listen(struct daemon *d, struct err *e)
{
	const struct conf *c = d->conf;
	if (observe_listen(d, e) < 0) return -1;
	struct wire_tls tls = {non_empty(c->grpc.tls.ca), non_empty(c->grpc.tls.cert), non_empty(c->grpc.tls.key), NULL};
	struct wire_listen_opts o = {.handler = serve_control(d->serve), .mode = 0660, .uid = (uid_t)c->grpc.uid, .gid = (gid_t)c->grpc.gid,
				     .tls = tls.cert ? &tls : NULL, .on_conn = conn_opened, .arg = d};
	for (size_t i = 0; i < c->grpc.address.n; i++) {
		struct wire_listener *l;
		const char *addr = c->grpc.address.v[i];
		if (str_starts(addr, "unix://")) {
			_cleanup_free_ char *dir = path_dir(addr + strlen("unix://"));
			if (path_mkdirs(dir, 0711, e) < 0) return -1;
		}
		if (wire_listen(d->loop, addr, &o, &l, e) < 0) return err_wrap(e, "listen on %s", addr);
		vec_push(&d->listeners, l);
		log_info("running server on %s", wire_listener_addr(l));
	}
	if (c->idle_exit_ns > 0) loop_timer_start(d->loop, &d->idle, 1000, 1000, check_idle, d);
	daemon_notify("READY=1");
	return 0;
}

void daemon_close(struct daemon *d)
{
	for (size_t i = 0; i < d->listeners.n; i++) wire_listener_close(d->listeners.v[i]);
	vec_fini(&d->listeners);
	observe_close(d);
	run_engine_stop(d->run);
	struct err e = ERR_INIT;
	if (d->db && db_flush(d->db, &e) < 0) log_error("%s", e.msg);
	err_fini(&e);
	/* Builds that a second signal cut off hold references: the process ends, and what is on disk is whole at any moment. */
	if (d->lock_fd >= 0) close(d->lock_fd);
}
