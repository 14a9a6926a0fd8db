/* Loading, defaults, checks, and what follows from the values. */
#include "conf/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <strings.h>

enum { FILE_MAX_BYTES = 4 << 20, DEFAULT_CAP = 2000000000, LINE_DOTS_MAX = 2000 };
#define GB INT64_C(1000000000)

/* ---- where things are ---- */
bool conf_in_userns(void)
{
	FILE *f = fopen("/proc/self/uid_map", "re");
	long a = 0, b = 0, n = 0;
	bool full = f && fscanf(f, "%ld %ld %ld", &a, &b, &n) == 3 && a == 0 && b == 0 && n == 4294967295L;
	if (f) fclose(f);
	return f && !full;
}

bool conf_is_rootless_user(void)
{
	const char *user = getenv("USER");
	return !str_empty(user) && strcmp(user, "root") != 0 && conf_in_userns();
}

/* $VAR/tail, else $HOME/home_tail. */
static char *user_path(const char *var, const char *tail, const char *home_tail)
{
	const char *v = getenv(var), *home = getenv("HOME");
	if (!str_empty(v)) return xasprintf("%s/%s", v, tail);
	return home_tail && !str_empty(home) ? xasprintf("%s/%s", home, home_tail) : NULL;
}

static char *default_config_path(void)
{
	char *p = conf_is_rootless_user()
			  ? user_path("XDG_CONFIG_HOME", "buildkit/buildkitd.toml", ".config/buildkit/buildkitd.toml")
			  : NULL;
	return p ? p : xstrdup("/etc/buildkit/buildkitd.toml");
}

/* ---- load ---- */
static struct conf *conf_new(void)
{
	struct conf *c = xnew(struct conf);
	c->grpc.uid = c->grpc.gid = -1;
	c->system.platforms_max_age_ns = c->system.max_registry_concurrency = INT64_MIN;
	return c;
}

void conf_free(struct conf *c)
{
	if (!c) return;
	conf_rows_fini(&conf_all_rows, c);
	free(c->path);
	free(c);
}

/* Depth costs stack in a recursive parser and destructor; a key's parts are all on one line. */
static int check_dots(const char *text, size_t n, const char *name, struct err *e)
{
	size_t dots = 0;
	unsigned line = 1;
	for (size_t i = 0; i < n; i++) {
		if (text[i] == '\n') dots = 0, line++;
		if (text[i] == '.' && ++dots > LINE_DOTS_MAX)
			return err_set(e, CODE_INVALID_ARGUMENT, "failed to parse config: %s:%u: too many dots in one line",
				       name, line);
	}
	return 0;
}

int conf_parse(const char *text, size_t n, const char *name, struct conf **ret, struct strvec *warnings, struct err *e)
{
	_cleanup_conf_ struct conf *c = conf_new();
	_cleanup_free_ char *msg = NULL;
	unsigned line = 0, column = 0;
	struct err mine = ERR_INIT;
	if (check_dots(text, n, name, e) < 0) return -1;
	struct toml_node *t = toml_parse_text(text, n, &msg, &line, &column);
	if (!t) return err_set(e, CODE_INVALID_ARGUMENT, "failed to parse config: %s:%u:%u: %s", name, line, column, msg);
	conf_read_table(&conf_all_rows, c, t, "", name, warnings, &mine);
	toml_free(t);
	if (err_is_set(&mine)) {
		err_wrap(&mine, "failed to parse config");
		return err_move(e, &mine);
	}
	*ret = take_ptr(c);
	return 0;
}

int conf_load(const char *path, bool explicit, struct conf **ret, struct strvec *warnings, struct err *e)
{
	_cleanup_free_ char *p = path ? xstrdup(path) : default_config_path();
	uint8_t *text = NULL;
	size_t n = 0;
	struct err mine = ERR_INIT;
	if (access(p, F_OK) < 0 && (errno == ENOENT || errno == ENOTDIR)) {
		if (explicit && warnings) strvec_addf(warnings, "config file %s does not exist", p);
		*ret = conf_new();
		return 0;
	}
	if (path_read_file(AT_FDCWD, p, FILE_MAX_BYTES, &text, &n, &mine) < 0) {
		err_wrap(&mine, "failed to load config from %s", p);
		return err_move(e, &mine);
	}
	int r = conf_parse((char *)text, n, p, ret, warnings, e);
	free(text);
	if (r == 0) (*ret)->path = take_ptr(p);
	return r;
}

/* ---- defaults and checks ---- */
static void set_default(char **field, char *value) /* takes value */
{
	if (str_empty(*field)) {
		free(*field);
		*field = value;
	} else {
		free(value);
	}
}

static char *or_else(char *user, const char *system) { return user ? user : xstrdup(system); }

static void default_worker(struct conf_worker *w, bool user)
{
	set_default(&w->network_mode, xstrdup("auto"));
	set_default(&w->cni_config_path,
		    or_else(user ? user_path("XDG_CONFIG_HOME", "buildkit/cni.json", ".config/buildkit/cni.json") : NULL,
			    "/etc/buildkit/cni.json"));
	set_default(&w->cni_binary_path, xstrdup("/opt/cni/bin"));
	set_default(&w->bridge_name, xstrdup("buildkit0"));
	set_default(&w->bridge_subnet, xstrdup("10.10.0.0/16"));
	strvec_sort(&w->labels);
}

static void set_defaults(struct conf *c)
{
	bool user = conf_is_rootless_user();
	set_default(&c->root, or_else(user ? user_path("XDG_DATA_HOME", "buildkit", ".local/share/buildkit") : NULL,
				      "/var/lib/buildkit"));
	if (!c->grpc.address.n) {
		_cleanup_free_ char *sock = or_else(user ? user_path("XDG_RUNTIME_DIR", "buildkit/buildkitd.sock", NULL) : NULL,
						    "/run/buildkit/buildkitd.sock");
		strvec_addf(&c->grpc.address, "unix://%s", sock);
	}
	set_default(&c->otel.socket_path, or_else(user ? user_path("XDG_RUNTIME_DIR", "buildkit/otel-grpc.sock", NULL) : NULL,
						  "/run/buildkit/otel-grpc.sock"));
	set_default(&c->provenance_env_dir, xstrdup("/etc/buildkit/provenance.d"));
	if (!c->cdi.spec_dirs.n) {
		strvec_add(&c->cdi.spec_dirs, "/etc/cdi");
		strvec_add(&c->cdi.spec_dirs, "/var/run/cdi");
		strvec_add(&c->cdi.spec_dirs, "/etc/buildkit/cdi");
	}
	if (c->grpc.uid < 0) c->grpc.uid = getuid();
	if (c->grpc.gid < 0) c->grpc.gid = getgid();
	set_default(&c->log.format, xstrdup("text"));
	set_default(&c->log.level, xstrdup(c->trace ? "trace" : c->debug ? "debug" : "info"));
	set_default(&c->oci.snapshotter, xstrdup("auto"));
	default_worker(&c->oci, user);
	default_worker(&c->containerd, user);
	if (c->oci.rootless && strcmp(c->oci.network_mode, "auto") == 0) {
		free(c->oci.network_mode);
		c->oci.network_mode = xstrdup("host");
	}
	if (!c->history.max_age_ns) c->history.max_age_ns = 48 * 3600 * GB;
	if (!c->history.max_entries) c->history.max_entries = 50;
	if (c->system.platforms_max_age_ns == INT64_MIN) c->system.platforms_max_age_ns = 20 * GB;
	if (c->system.max_registry_concurrency == INT64_MIN) c->system.max_registry_concurrency = 4;
	if (c->cdi.disabled != CONF_TRUE && strvec_find(&c->entitlements, "device") < 0) strvec_add(&c->entitlements, "device");
}

static bool one_of(const char *s, const char *const *v)
{
	for (; *v; v++)
		if (strcasecmp(s, *v) == 0) return true;
	return false;
}

static int make_root_absolute(struct conf *c, struct err *e)
{
	char cwd[4096];
	if (*c->root != '/' && !getcwd(cwd, sizeof cwd)) return err_sys(e, errno, "working directory");
	char *full = *c->root == '/' ? path_clean(c->root) : path_join(cwd, c->root);
	free(c->root);
	c->root = full;
	return 0;
}

int conf_finish(struct conf *c, struct strvec *warnings, struct err *e)
{
	static const char *const levels[] = {"panic", "fatal", "error", "warn", "warning", "info", "debug", "trace", NULL};
	static const char *const formats[] = {"text", "json", NULL};
	static const char *const modes[] = {"auto", "cni", "bridge", "host", "none", NULL};
	static const char *const entitlements[] = {"network.host", "security.insecure", "device", NULL};
	(void)warnings;
	set_defaults(c);
	if (!one_of(c->log.format, formats))
		return err_set(e, CODE_INVALID_ARGUMENT, "unsupported log type \"%s\"", c->log.format);
	if (!one_of(c->log.level, levels)) return err_set(e, CODE_INVALID_ARGUMENT, "unsupported log level: %s", c->log.level);
	if (!one_of(c->oci.network_mode, modes))
		return err_set(e, CODE_INVALID_ARGUMENT, "invalid network mode: \"%s\"", c->oci.network_mode);
	for (size_t i = 0; i < c->entitlements.n; i++)
		if (!one_of(c->entitlements.v[i], entitlements))
			return err_set(e, CODE_INVALID_ARGUMENT, "invalid entitlement : %s", c->entitlements.v[i]);
	if (c->system.max_registry_concurrency <= 0)
		return err_set(e, CODE_INVALID_ARGUMENT,
			       "maxRegistryConcurrency must be greater than zero; set to %lld in the configuration file",
			       (long long)c->system.max_registry_concurrency);
	if (c->oci.no_process_sandbox && !c->oci.rootless)
		return err_set(e, CODE_INVALID_ARGUMENT, "can't enable NoProcessSandbox without Rootless");
	if (!str_empty(c->grpc.tls.cert) != !str_empty(c->grpc.tls.key))
		return err_set(e, CODE_INVALID_ARGUMENT, "you must specify key and cert file if one is specified");
	return make_root_absolute(c, e);
}

/* ---- derived ---- */
const struct conf_registry *conf_registry_find(const struct conf *c, const char *host)
{
	for (size_t i = 0; i < c->registries.n; i++)
		if (strcmp(c->registries.v[i].name, host) == 0) return &c->registries.v[i];
	return NULL;
}

static int64_t space_bytes(struct conf_space s, int64_t total)
{
	if (s.bytes) return s.bytes;
	if (!s.percent) return 0;
	if (!total) return DEFAULT_CAP;
	__int128 part = (__int128)total * s.percent / 100;
	return (int64_t)(part / (1 << 30) + 1) * GB;
}

static bool space_set(struct conf_space s) { return s.bytes || s.percent; }

static void given_rules(const struct conf_worker *w, int64_t total, struct conf_gc_rules *ret)
{
	static const char *const none[] = {NULL};
	for (size_t i = 0; i < w->gcpolicy.n; i++) {
		const struct conf_gcpolicy *p = &w->gcpolicy.v[i];
		struct conf_gc_rule r = {.all = p->all,
					 .filters = p->filters.n ? (const char *const *)p->filters.v : none,
					 .keep_duration_ns = p->keep_duration_ns,
					 .reserved_bytes =
						 space_bytes(space_set(p->reserved) ? p->reserved : p->keep_bytes, total),
					 .max_used_bytes = space_bytes(p->max_used, total),
					 .min_free_bytes = space_bytes(p->min_free, total)};
		vec_push(&ret->v, r);
	}
}

static int64_t at_most(int64_t v, int64_t max) { return v > max ? max : v; }

void conf_gc_rules(const struct conf_worker *w, int64_t total, struct conf_gc_rules *ret)
{
	static const char *const none[] = {NULL};
	static const char *const cheap[] = {"type==source.local", "type==exec.cachemount", "type==source.git.checkout", NULL};
	*ret = (struct conf_gc_rules){0};
	if (w->gc == CONF_FALSE) return;
	if (w->gcpolicy.n) {
		given_rules(w, total, ret);
		return;
	}
	int64_t reserved, max_used, min_free;
	if (space_set(w->reserved) || space_set(w->max_used) || space_set(w->min_free)) {
		reserved = space_bytes(w->reserved, total);
		max_used = space_bytes(w->max_used, total);
		min_free = space_bytes(w->min_free, total);
	} else if (space_set(w->gc_keep)) {
		reserved = space_bytes(w->gc_keep, total);
		max_used = min_free = 0;
	} else {
		reserved = at_most(space_bytes((struct conf_space){.percent = 10}, total), 10 * GB);
		max_used = at_most(space_bytes((struct conf_space){.percent = 80}, total), 100 * GB);
		min_free = space_bytes((struct conf_space){.percent = 20}, total);
	}
	struct conf_gc_rule rules[] = {
		{false, cheap, 48 * 3600 * GB, 0, 512 * 1000000, 0},
		{false, none, 1440 * 3600 * GB, reserved, max_used, min_free},
		{false, none, 0, reserved, max_used, min_free},
		{true, none, 0, reserved, max_used, min_free},
	};
	for (size_t i = 0; i < array_len(rules); i++) vec_push(&ret->v, rules[i]);
}
