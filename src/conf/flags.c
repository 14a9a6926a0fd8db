/* The command line: one row a flag, most of them naming a key of the file whose value they replace. */
#include "conf/internal.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>

enum special { KEY, CONFIG, HELP, VERSION, DEBUG, TRACE, GROUP, KEEP, ROOTLESS, SAVE_DEBUG, IDLE_EXIT, NOTHING };
struct flag {
	const char *name, *key; /* key: path of the row; NULL for special ones */
	enum special special;
	char kind; /* 'b' bool, 's' string, 'n' number, 'l' repeatable */
	const char *env;
	bool hidden;
	const char *help;
};
static const struct flag flags[] = {
	{"rootless", NULL, ROOTLESS, 'b', NULL, false, "set all the default options to be compatible with rootless containers"},
	{"config", NULL, CONFIG, 's', NULL, false, "path to config file (default: \"/etc/buildkit/buildkitd.toml\")"},
	{"debug", NULL, DEBUG, 'b', NULL, false, "enable debug output in logs"},
	{"trace", NULL, TRACE, 'b', NULL, true, "enable trace output in logs"},
	{"root", "root", KEY, 's', NULL, false, "path to state directory (default: \"/var/lib/buildkit\")"},
	{"addr", "grpc/address", KEY, 'l', NULL, false,
	 "listening address (socket or tcp) (default: \"unix:///run/buildkit/buildkitd.sock\")"},
	{"log-format", "log/format", KEY, 's', NULL, false, "log formatter: json or text (default: \"text\")"},
	{"log-level", "log/level", KEY, 's', "BUILDKITD_LOG_LEVEL", false, "set the log level (default: \"info\")"},
	{"group", NULL, GROUP, 's', NULL, false, "group (name or gid) which will own all Unix socket listening addresses"},
	{"debugaddr", "grpc/debugAddress", KEY, 's', "BUILDKITD_DEBUGADDR", false, "debugging address (eg. 0.0.0.0:6060)"},
	{"tlscert", "grpc/tls/cert", KEY, 's', NULL, false, "certificate file to use"},
	{"tlskey", "grpc/tls/key", KEY, 's', NULL, false, "key file to use"},
	{"tlscacert", "grpc/tls/ca", KEY, 's', NULL, false, "ca certificate to verify clients"},
	{"allow-insecure-entitlement", "insecure-entitlements", KEY, 'l', NULL, false,
	 "allows insecure entitlements e.g. network.host, security.insecure, device"},
	{"proxy-network", "proxyNetwork", KEY, 'b', NULL, false,
	 "enable proxy network enforcement for all builds (not supported)"},
	{"otel-socket-path", "otel/socketPath", KEY, 's', NULL, false, "OTEL collector trace socket path"},
	{"cdi-disabled", "cdi/disabled", KEY, 'b', NULL, false, "disables support of the Container Device Interface (CDI)"},
	{"cdi-spec-dir", "cdi/specDirs", KEY, 'l', NULL, false, "list of directories to scan for CDI spec files"},
	{"idle-exit", NULL, IDLE_EXIT, 's', NULL, false,
	 "leave when no build ran and no client was connected for this long (e.g. 60s)"},
	{"save-cache-debug", NULL, SAVE_DEBUG, 'b', NULL, false, "enable saving cache debug info"},
#define WORKER_FLAGS(w, p, key, hide)                                                                                      \
	{p "-worker", key "/enabled", KEY, 's', NULL, hide, "enable " w " workers (true/false/auto) (default: \"auto\")"}, \
		{p "-worker-labels",                                                                                       \
		 key "/labels",                                                                                            \
		 KEY,                                                                                                      \
		 'l',                                                                                                      \
		 NULL,                                                                                                     \
		 hide,                                                                                                     \
		 "user-specific annotation labels (com.example.foo=bar)"},                                                 \
		{p "-worker-snapshotter",                                                                                  \
		 key "/snapshotter",                                                                                       \
		 KEY,                                                                                                      \
		 's',                                                                                                      \
		 NULL,                                                                                                     \
		 hide,                                                                                                     \
		 "name of snapshotter (overlayfs, native, etc.)"},                                                         \
		{p "-worker-platform", key "/platforms", KEY, 'l', NULL, hide, "override supported platforms for worker"}, \
		{p "-worker-net",                                                                                          \
		 key "/networkMode",                                                                                       \
		 KEY,                                                                                                      \
		 's',                                                                                                      \
		 NULL,                                                                                                     \
		 hide,                                                                                                     \
		 "worker network type (auto, bridge, cni or host) (default: \"auto\")"},                                   \
		{p "-cni-config-path",                                                                                     \
		 key "/cniConfigPath",                                                                                     \
		 KEY,                                                                                                      \
		 's',                                                                                                      \
		 NULL,                                                                                                     \
		 hide,                                                                                                     \
		 "path of cni config file (default: \"/etc/buildkit/cni.json\")"},                                         \
		{p "-cni-binary-dir",                                                                                      \
		 key "/cniBinaryPath",                                                                                     \
		 KEY,                                                                                                      \
		 's',                                                                                                      \
		 NULL,                                                                                                     \
		 hide,                                                                                                     \
		 "path of cni binary files (default: \"/opt/cni/bin\")"},                                                  \
		{p "-cni-pool-size",                                                                                       \
		 key "/cniPoolSize",                                                                                       \
		 KEY,                                                                                                      \
		 'n',                                                                                                      \
		 NULL,                                                                                                     \
		 hide,                                                                                                     \
		 "size of cni network namespace pool (default: 0)"},                                                       \
		{p "-worker-apparmor-profile",                                                                             \
		 key "/apparmor-profile",                                                                                  \
		 KEY,                                                                                                      \
		 's',                                                                                                      \
		 NULL,                                                                                                     \
		 hide,                                                                                                     \
		 "set the name of the apparmor profile applied to containers"},                                            \
		{p "-worker-selinux", key "/selinux", KEY, 'b', NULL, hide, "apply SELinux labels (not supported)"},       \
		{p "-max-parallelism",                                                                                     \
		 key "/max-parallelism",                                                                                   \
		 KEY,                                                                                                      \
		 'n',                                                                                                      \
		 NULL,                                                                                                     \
		 hide,                                                                                                     \
		 "limit the number of parallel build steps that can run at the same time (default: 0)"},                   \
		{p "-worker-rootless", key "/rootless", KEY, 'b', NULL, hide, "enable rootless mode"},                     \
	{                                                                                                                  \
		p "-worker-gc", key "/gc", KEY, 'b', NULL, hide, "enable automatic garbage collection on worker"           \
	}
	WORKER_FLAGS("oci", "oci", "worker/oci", false),
	{"oci-worker-proxy-snapshotter-path", "worker/oci/proxySnapshotterPath", KEY, 's', NULL, true,
	 "address of proxy snapshotter socket"},
	{"oci-worker-binary", "worker/oci/binary", KEY, 's', NULL, false,
	 "name of specified oci worker binary (default: crun, buildkit-runc or runc)"},
	{"oci-worker-no-process-sandbox", "worker/oci/noProcessSandbox", KEY, 'b', NULL, false,
	 "use the host PID namespace and procfs (WARNING: build containers can then kill any process there)"},
	{"oci-worker-gc-keepstorage", NULL, KEEP, 's', NULL, false,
	 "amount of storage GC keep locally, format \"Reserved[,Free[,Maximum]]\" (MB)"},
	WORKER_FLAGS("containerd (there are none)", "containerd", "worker/containerd", true),
	{"containerd-worker-addr", "worker/containerd/address", KEY, 's', NULL, true, "containerd socket"},
	{"containerd-worker-namespace", "worker/containerd/namespace", KEY, 's', NULL, true, "containerd namespace"},
	{"containerd-worker-runtime", "worker/containerd/runtime/name", KEY, 's', NULL, true, "containerd runtime"},
	{"containerd-worker-gc-keepstorage", NULL, NOTHING, 's', NULL, true, "accepted, without effect"},
	{"profile-cpu", NULL, NOTHING, 's', NULL, true, "accepted, without effect"},
	{"profile-memory", NULL, NOTHING, 's', NULL, true, "accepted, without effect"},
	{"profile-memoryrate", NULL, NOTHING, 's', NULL, true, "accepted, without effect"},
	{"profile-block", NULL, NOTHING, 's', NULL, true, "accepted, without effect"},
	{"profile-mutex", NULL, NOTHING, 's', NULL, true, "accepted, without effect"},
	{"profile-trace", NULL, NOTHING, 's', NULL, true, "accepted, without effect"},
	{"help", NULL, HELP, 'b', NULL, false, "show help"},
	{"version", NULL, VERSION, 'b', NULL, false, "print the version"},
};

static const struct flag *flag_find(const char *name, size_t n)
{
	for (size_t i = 0; i < array_len(flags); i++)
		if (strlen(flags[i].name) == n && memcmp(flags[i].name, name, n) == 0) return &flags[i];
	return NULL;
}

static int unknown_flag(const char *name, size_t n, struct err *e)
{
	_cleanup_free_ char *given = xstrndup(name, n);
	const char *best = NULL;
	size_t best_d = SIZE_MAX;
	for (size_t i = 0; i < array_len(flags); i++) {
		size_t d = text_distance(given, flags[i].name);
		if (d < best_d) best_d = d, best = flags[i].name;
	}
	if (best_d > 2 + n / 5) return err_set(e, CODE_INVALID_ARGUMENT, "flag provided but not defined: -%s", given);
	return err_set(e, CODE_INVALID_ARGUMENT, "flag provided but not defined: -%s, did you mean --%s?", given, best);
}

bool conf_takes_value(const char *word)
{
	const char *name = word + strspn(word, "-");
	const struct flag *f = *word == '-' ? flag_find(name, strlen(name)) : NULL;
	return f && f->kind != 'b';
}

void conf_args_fini(struct conf_args *a)
{
	for (size_t i = 0; i < a->values.n; i++) free(a->values.v[i].value);
	vec_fini(&a->values);
	free(a->config_path);
	*a = (struct conf_args){0};
}

static int take(struct conf_args *a, const struct flag *f, const char *value, struct err *e)
{
	bool b = true;
	if (f->kind == 'b' && !str_bool(value, &b))
		return err_set(e, CODE_INVALID_ARGUMENT, "invalid value \"%s\" for flag -%s: expected true or false", value,
			       f->name);
	if (f->special == HELP) a->help = b;
	if (f->special == VERSION) a->version = b;
	if (f->special == CONFIG) {
		free(a->config_path);
		a->config_path = xstrdup(value);
	}
	struct conf_flag_value v = {f, xstrdup(value), false};
	vec_push(&a->values, v);
	return 0;
}

static bool was_given(const struct conf_args *a, const struct flag *f)
{
	for (size_t i = 0; i < a->values.n; i++)
		if (a->values.v[i].row == f) return true;
	return false;
}

static int parse_argv(int argc, char *const *argv, struct conf_args *a, struct err *e)
{
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i];
		if (strcmp(arg, "-h") == 0 || strcmp(arg, "-v") == 0) {
			*(arg[1] == 'h' ? &a->help : &a->version) = true;
			continue;
		}
		if (strcmp(arg, "--") == 0 && i + 1 == argc) break;
		if (arg[0] != '-' || arg[1] == 0) return err_set(e, CODE_INVALID_ARGUMENT, "unexpected argument \"%s\"", arg);
		const char *name = arg + (arg[1] == '-' ? 2 : 1);
		size_t n = strcspn(name, "=");
		const struct flag *f = flag_find(name, n);
		const char *value = name[n] == '=' ? name + n + 1 : f && f->kind == 'b' ? "true" : NULL;
		if (!f) return unknown_flag(name, n, e);
		if (!value && i + 1 == argc) return err_set(e, CODE_INVALID_ARGUMENT, "flag needs an argument: -%s", f->name);
		if (take(a, f, value ? value : argv[++i], e) < 0) return -1;
	}
	return 0;
}

int conf_args_parse(int argc, char *const *argv, struct conf_args *ret, struct err *e)
{
	struct conf_args a = {0};
	int r = parse_argv(argc, argv, &a, e);
	for (size_t i = 0; r == 0 && i < array_len(flags); i++) {
		const char *v = flags[i].env ? getenv(flags[i].env) : NULL;
		if (str_empty(v) || was_given(&a, &flags[i])) continue;
		r = take(&a, &flags[i], v, e);
		if (r == 0) a.values.v[a.values.n - 1].from_env = true;
	}
	if (r < 0) {
		conf_args_fini(&a);
		return -1;
	}
	*ret = a;
	return 0;
}

/* ---- apply ---- */
static void set_str(char **field, const char *v)
{
	free(*field);
	*field = xstrdup(v);
}

static int set_group(struct conf *c, const char *name, struct err *e)
{
	char *end, space[4096];
	struct group g, *found = NULL;
	long gid = strtol(name, &end, 10);
	if (*name && !*end && gid >= 0) {
		c->grpc.gid = gid;
		return 0;
	}
	getgrnam_r(name, &g, space, sizeof space, &found);
	if (!found) return err_set(e, CODE_INVALID_ARGUMENT, "group %s not found", name);
	c->grpc.gid = g.gr_gid;
	return 0;
}

/* "Reserved[,Free[,Maximum]]" in MB of 10^6. */
static int set_keep(struct conf_worker *w, const char *text, struct err *e)
{
	struct conf_space *dst[] = {&w->reserved, &w->min_free, &w->max_used};
	for (size_t i = 0; i < array_len(dst); i++) *dst[i] = (struct conf_space){0};
	for (size_t i = 0; i < array_len(dst); i++) {
		char *end;
		errno = 0;
		long long v = strtoll(text, &end, 10);
		if (end == text || (*end && *end != ',') || errno || v < 0 || v > INT64_MAX / 1000000)
			return err_set(e, CODE_INVALID_ARGUMENT, "invalid value \"%s\" for flag -oci-worker-gc-keepstorage",
				       text);
		dst[i]->bytes = v * 1000000;
		if (!*end) return 0;
		text = end + 1;
	}
	return err_set(e, CODE_INVALID_ARGUMENT, "too many values for flag -oci-worker-gc-keepstorage");
}

/* The rows that a special flag sets. */
static void special_origin(struct conf *c, const struct flag *f)
{
	static const char *const keep[] = {"worker.oci.reservedSpace", "worker.oci.minFreeSpace", "worker.oci.maxUsedSpace"};
	struct conf_origin o = {.from = FROM_FLAG, .name = f->name};
	if (f->special == DEBUG || f->special == TRACE) conf_origin_set(c, "log.level", o);
	if (f->special == ROOTLESS) conf_origin_set(c, "worker.oci.rootless", o);
	if (f->special == GROUP) conf_origin_set(c, "grpc.gid", o);
	for (size_t i = 0; f->special == KEEP && i < array_len(keep); i++) conf_origin_set(c, keep[i], o);
}

static int apply_special(struct conf *c, const struct flag *f, const char *v, struct conf_report *rep, struct err *e)
{
	bool b = false;
	str_bool(v, &b);
	special_origin(c, f);
	switch (f->special) {
	case DEBUG:
		if (b) set_str(&c->log.level, "debug");
		return 0;
	case TRACE:
		conf_say(rep, CONF_WARN, NULL, 0, 0, "--trace option is deprecated; use --log-level=trace instead");
		if (b) set_str(&c->log.level, "trace");
		return 0;
	case ROOTLESS: c->oci.rootless = b; return 0;
	case SAVE_DEBUG: c->save_cache_debug = b; return 0;
	case IDLE_EXIT:
		if (duration_parse(v, &c->idle_exit_ns, e) < 0) return err_wrap(e, "invalid value for flag -idle-exit");
		return 0;
	case GROUP: return *v ? set_group(c, v, e) : 0;
	case KEEP: return set_keep(&c->oci, v, e);
	default: return 0;
	}
}

/* A flag of a key that stands in the file replaces it. */
static int apply_key(struct conf *c, const struct conf_flag_value *fv, bool first, struct conf_report *rep, struct err *e)
{
	const struct flag *f = fv->row;
	const struct conf_row *r = conf_row_find(&conf_all_rows, f->key);
	ensure(r);
	if ((r->flags & F_IGNORED) && !str_starts(r->path, "worker/containerd/") && strcmp(fv->value, "false") != 0)
		conf_say(rep, CONF_WARN, NULL, 0, 0, "--%s is not built yet and has no effect", f->name);
	if (r->type == T_STRS && first) conf_clear(c, r);
	if (conf_set_text(c, r, fv->value, e) < 0) return err_wrap(e, "invalid value \"%s\" for flag -%s", fv->value, f->name);
	_cleanup_free_ char *shown = conf_shown("", r->path);
	struct conf_origin o = {.from = fv->from_env ? FROM_ENV : FROM_FLAG, .name = fv->from_env ? f->env : f->name};
	conf_origin_set(c, shown, o);
	for (size_t i = 0; r->type == T_STRS; i++) { /* the file's elements are no more */
		_cleanup_free_ char *elem = xasprintf("%s[%zu]", shown, i);
		if (!conf_origin_get(c, elem)) break;
		free(map_del(&c->origins, elem));
	}
	return 0;
}

/* --debug comes before --log-level, whatever their order: as the peer applies them. */
static int apply(struct conf *c, const struct conf_args *a, bool special, struct conf_report *rep, struct err *e)
{
	const struct flag *seen[array_len(flags)] = {0};
	for (size_t i = 0; i < a->values.n; i++) {
		const struct flag *f = a->values.v[i].row;
		if ((f->special != KEY) != special) continue;
		int r = special ? apply_special(c, f, a->values.v[i].value, rep, e)
				: apply_key(c, &a->values.v[i], !seen[f - flags], rep, e);
		if (r < 0) return -1;
		seen[f - flags] = f;
	}
	return 0;
}

int conf_apply_flags(struct conf *c, const struct conf_args *a, struct conf_report *r, struct err *e)
{
	if (conf_in_userns()) c->oci.rootless = true;
	if (apply(c, a, true, r, e) < 0) return -1;
	return apply(c, a, false, r, e);
}

void conf_help(const char *program, struct buf *out)
{
	buf_addf(out,
		 "NAME:\n   %s - build daemon\n\nUSAGE:\n   %s [global options]\n\nCOMMANDS:\n   check-config [FILE]  tell "
		 "what is wrong with a configuration file, "
		 "or where every value comes from (--effective)\n\nGLOBAL OPTIONS:\n",
		 program, program);
	for (size_t i = 0; i < array_len(flags); i++) {
		const struct flag *f = &flags[i];
		if (f->hidden) continue;
		_cleanup_free_ char *left = NULL;
		const char *word = f->kind == 'b' ? "" : f->kind == 'n' ? " int" : " string";
		if (f->kind == 'l')
			left = xasprintf("--%s string [ --%s string ]", f->name, f->name);
		else
			left = xasprintf("--%s%s%s", f->name, word,
					 f->special == HELP      ? ", -h"
					 : f->special == VERSION ? ", -v"
								 : "");
		buf_addf(out, "   %-75s  %s", left, f->help);
		if (f->env) buf_addf(out, " [$%s]", f->env);
		buf_addc(out, '\n');
	}
}

bool conf_flag_at(size_t i, struct conf_flag_info *ret)
{
	if (i >= array_len(flags)) return false;
	*ret = (struct conf_flag_info){.name = flags[i].name,
				       .env = flags[i].env,
				       .help = flags[i].help,
				       .kind = flags[i].kind,
				       .hidden = flags[i].hidden};
	return true;
}

void conf_version(const char *program, const char *revision, struct buf *out)
{
	buf_addf(out, "%s github.com/moby/buildkit " CONF_BUILDKIT_VERSION " %s\n", program,
		 str_empty(revision) ? "unknown" : revision);
}
