/* The configuration while the daemon runs. It is read again on SIGHUP, and when the file or one that it names (certificates,
 * keys, credentials) has changed.
 *
 *  1. Everything that can fail is made first (struct staged), then all of it is put into use, which cannot fail: at once or
 *     not at all. What fails leaves the old settings, and the log says why.
 *  2. The daemon's struct conf is never changed: it is swapped for the new one. Nothing else points into it: the rooms copy
 *     what they need, or hold references to immutable things made from it.
 *  3. Builds keep the registries and name servers that they started with (build/policy.c).
 *  4. Folders are watched, not files, so that editors and operators which rename or swap links are seen. Events are only
 *     hints: 300 ms after the last one (2 s after the first) the bytes decide whether there is something new. */
#include "daemon/reload.h"
#include "daemon/daemon.h"
#include "daemon/watch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <sys/statvfs.h>

enum { QUIET_MS = 300, LATEST_MS = 2000, FILE_MAX_BYTES = 4 << 20 };

struct reload {
	struct daemon *d;
	const struct conf_args *args;
	struct digest seen; /* of the files */
	struct strvec files;
	struct strvec folders; /* of which every name counts */
	struct watch *watch;
	struct loop_timer quiet;
	int64_t first_event_ns; /* 0: none waits */
};

/* ---- putting into use ---- */

struct staged {
	struct conf *conf;
	struct reg_config *registries;
	struct run_dns *dns;
	struct ssl_ctx_st *tls;
};

static const char *non_empty(const char *s) { return str_empty(s) ? NULL : s; }
static bool entitled(const struct conf *c, const char *name) { return strvec_find(&c->entitlements, name) >= 0; }

static void staged_fini(struct staged *s)
{
	conf_unref(s->conf);
	reg_config_unref(s->registries);
	run_dns_unref(s->dns);
	wire_tls_free(s->tls);
}

/* Takes conf, also on failure. */
static int stage(struct conf *conf, struct staged *s, struct err *e)
{
	struct wire_tls tls = {non_empty(conf->grpc.tls.ca), non_empty(conf->grpc.tls.cert), non_empty(conf->grpc.tls.key),
			       NULL};
	*s = (struct staged){.conf = conf};
	s->registries = daemon_registries(conf);
	if (run_dns_new(conf->dns.nameservers.v, conf->dns.nameservers.n, conf->dns.options.v, conf->dns.options.n,
			conf->dns.search_domains.v, conf->dns.search_domains.n, &s->dns, e) < 0)
		return err_wrap(e, "dns.nameservers");
	return tls.cert ? wire_tls_read(&tls, &s->tls, e) : 0;
}

static enum log_level log_level_of(const struct conf *c)
{
	enum log_level level = LOG_INFO;
	log_level_parse(c->log.level, &level);
	return level;
}

void daemon_log_setup(const struct conf *c) { log_setup(log_level_of(c), strcasecmp(c->log.format, "json") == 0); }

static void set_policy(struct daemon *d, const struct staged *s)
{
	const struct conf *c = s->conf;
	struct statvfs st;
	struct conf_gc_rules rules;
	int64_t disk = statvfs(d->dir, &st) < 0 ? 0 : (int64_t)st.f_blocks * (int64_t)st.f_frsize;
	conf_gc_rules(&c->oci, disk, &rules);
	struct engine_gc_rule *gc = xcalloc(rules.v.n + 1, sizeof *gc);
	for (size_t i = 0; i < rules.v.n; i++) {
		const struct conf_gc_rule *r = &rules.v.v[i];
		gc[i] = (struct engine_gc_rule){
			r->all, r->filters, r->keep_duration_ns, r->reserved_bytes, r->max_used_bytes, r->min_free_bytes};
	}
	struct engine_policy p = {
		.allow_network_host = entitled(c, "network.host"),
		.allow_insecure = entitled(c, "security.insecure"),
		.allow_devices = entitled(c, "device"),
		.history_max_age_ns = c->history.max_age_ns,
		.history_max_entries = c->history.max_entries,
		.dockerfile_off = c->frontend.dockerfile_enabled == CONF_FALSE,
		.gateway_off = c->frontend.gateway_enabled == CONF_FALSE,
		.proxy_network = c->proxy_network,
		.gateway_allowed = &c->frontend.gateway_allowed,
		.registries = s->registries,
		.dns = s->dns,
		.gc = gc,
		.n_gc = rules.v.n,
	};
	engine_set_policy(d->engine, &p);
	free(gc);
	vec_fini(&rules.v);
}

/* Nothing in here fails. */
static void commit(struct daemon *d, struct staged *s)
{
	size_t limit = (size_t)max_of(s->conf->system.max_registry_concurrency, (int64_t)1);
	struct reg_config *old = d->env.reg_config;
	daemon_log_setup(s->conf);
	d->env.reg_config = reg_config_ref(s->registries);
	reg_pools_configure(&d->pools, limit, d->env.reg_config);
	reg_client_set_limit(d->env.reg, limit);
	run_engine_set_dns(d->run, s->dns);
	solver_set_parallelism(d->solver, (size_t)max_of(s->conf->oci.max_parallelism, (int64_t)0));
	for (size_t i = 0; i < d->listeners.n; i++) wire_listener_set_tls(d->listeners.v[i], s->tls);
	set_policy(d, s);
	reg_config_unref(old);
	conf_ref(s->conf);
	conf_unref(d->conf);
	d->conf = s->conf;
}

int daemon_settings(struct daemon *d, struct err *e)
{
	struct staged s;
	int r = stage(conf_ref(d->conf), &s, e);
	if (r >= 0) commit(d, &s);
	staged_fini(&s);
	return r < 0 ? -1 : 0;
}

/* ---- reading again ---- */

static void tell(const struct conf *old, const struct conf *new)
{
	_cleanup_strvec_ struct strvec live = {0}, restart = {0};
	conf_diff(old, new, &live, &restart);
	_cleanup_free_ char *what = live.n ? strvec_join(&live, ", ") : NULL;
	if (what)
		log_info("configuration reloaded from %s: %s changed", new->path, what);
	else
		log_info("configuration reloaded from %s: no key has changed, certificates were read again", new->path);
	for (size_t i = 0; i < restart.n; i++)
		log_warn("%s has changed in %s: that takes effect at the next start", restart.v[i], new->path);
}

static int read_again(struct reload *r, struct conf_report *report, struct staged *s, struct err *e)
{
	struct conf *c = NULL;
	*s = (struct staged){0};
	return conf_read(r->args, &c, report, e) < 0 ? -1 : stage(c, s, e);
}

static void look(struct reload *r);

void reload_now(struct reload *r)
{
	_cleanup_conf_report_ struct conf_report report = {0};
	_cleanup_err_ struct err e = ERR_INIT;
	struct staged s;
	if (r->d->stopping) return;
	_cleanup_free_ char *reloading = xasprintf("RELOADING=1\nMONOTONIC_USEC=%lld", (long long)(time_mono_ns() / 1000));
	daemon_notify(reloading);
	int x = read_again(r, &report, &s, &e);
	if (x < 0) {
		log_error("configuration not reloaded, the old settings stay: %s", e.msg);
	} else {
		struct conf *old = conf_ref(r->d->conf);
		bool quieter = log_level_of(s.conf) > log_level_of(old); /* it is told at the chattier of the two levels */
		if (quieter) tell(old, s.conf);
		commit(r->d, &s);
		if (!quieter) tell(old, s.conf);
		conf_unref(old);
	}
	for (size_t i = 0; i < report.v.n; i++)
		if (x >= 0 || (report.v.v[i].level != CONF_WARN && !strstr(e.msg, report.v.v[i].text)))
			log_warn("%s", report.v.v[i].text);
	staged_fini(&s);
	daemon_notify("READY=1");
	look(r);
}

/* ---- watching ---- */

static void hash_file(struct hasher *h, const char *path);

static void hash_folder(struct hasher *h, const char *path)
{
	struct dirent **v = NULL;
	int n = scandir(path, &v, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		_cleanup_free_ char *full = xasprintf("%s/%s", path, v[i]->d_name);
		if (v[i]->d_name[0] != '.') hash_file(h, full);
		free(v[i]);
	}
	free(v);
}

static void hash_file(struct hasher *h, const char *path)
{
	struct stat st;
	uint8_t *p = NULL;
	size_t n = 0;
	hasher_update(h, path, strlen(path) + 1);
	if (stat(path, &st) < 0) return;
	if (S_ISDIR(st.st_mode))
		hash_folder(h, path);
	else if (S_ISREG(st.st_mode) && path_read_file(AT_FDCWD, path, FILE_MAX_BYTES, &p, &n, NULL) >= 0)
		hasher_update(h, p, n);
	free(p);
}

static struct digest fingerprint(const struct reload *r)
{
	struct digest d;
	struct hasher h;
	hasher_init(&h);
	for (size_t i = 0; i < r->files.n; i++) hash_file(&h, r->files.v[i]);
	hasher_final(&h, &d);
	return d;
}

static void quiet(void *arg)
{
	struct reload *r = arg;
	r->first_event_ns = 0;
	struct digest now = fingerprint(r);
	if (!digest_eq(&now, &r->seen)) reload_now(r);
}

/* A name that does not matter is most of what happens in a folder like /tmp. Kubernetes swaps "..data". */
static bool matters(const struct reload *r, const char *folder, const char *name)
{
	if (!name || str_starts(name, "..") || strvec_find(&r->folders, folder) >= 0) return true;
	for (size_t i = 0; i < r->files.n; i++)
		if (strcmp(path_base(r->files.v[i]), name) == 0) return true;
	return false;
}

static void happened(void *arg, const char *folder, const char *name)
{
	struct reload *r = arg;
	int64_t now = time_mono_ns();
	if (!matters(r, folder, name)) return;
	if (!r->first_event_ns) r->first_event_ns = now;
	int64_t left_ms = LATEST_MS - (now - r->first_event_ns) / 1000000;
	loop_timer_start(r->d->loop, &r->quiet, (uint64_t)max_of(min_of(left_ms, (int64_t)QUIET_MS), (int64_t)0), 0, quiet, r);
}

static void add_watch(struct reload *r, const char *folder)
{
	_cleanup_err_ struct err e = ERR_INIT;
	if (watch_add(r->watch, folder, &e) < 0) log_warn("changes in %s are not seen (%s): use SIGHUP", folder, e.msg);
}

/* Watch what the configuration at hand names, and remember how that looks. */
static void look(struct reload *r)
{
	strvec_fini(&r->files);
	strvec_fini(&r->folders);
	conf_files(r->d->conf, &r->files);
	watch_clear(r->watch);
	for (size_t i = 0; i < r->files.n; i++) {
		struct stat st;
		_cleanup_free_ char *folder = path_dir(r->files.v[i]);
		bool whole = stat(r->files.v[i], &st) == 0 && S_ISDIR(st.st_mode);
		if (whole) strvec_add(&r->folders, r->files.v[i]);
		add_watch(r, whole ? r->files.v[i] : folder);
	}
	r->seen = fingerprint(r);
}

static void on_hup(void *arg, int signum) { reload_now(arg); }

struct reload *reload_start(struct daemon *d, const struct conf_args *args)
{
	struct reload *r = xnew(struct reload);
	r->d = d;
	r->args = args;
	r->watch = watch_new(d->loop, happened, r);
	loop_on_signal(d->loop, SIGHUP, on_hup, r);
	look(r);
	return r;
}
