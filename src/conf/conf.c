/* Loading, the report, defaults, and what follows from the values. */
#include "conf/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
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

/* ---- the report ---- */
void conf_say(struct conf_report *r, enum conf_level level, const char *file, unsigned line, unsigned column, const char *fmt,
	      ...)
{
	va_list ap;
	va_start(ap, fmt);
	_cleanup_free_ char *text = xvasprintf(fmt, ap);
	va_end(ap);
	struct conf_note n = {level, line, column, NULL};
	if (!r) return;
	n.text = !file  ? take_ptr(text)
		 : line ? xasprintf("%s:%u:%u: %s", file, line, column, text)
			: xasprintf("%s: %s", file, text);
	vec_push(&r->v, n);
}

/* "a.b[0]" is held by "a.b", "registry.\"x.y\".ca" by "registry.\"x.y\"". */
static bool cut_last(char *path)
{
	bool quoted = false;
	char *cut = NULL;
	for (char *c = path; *c; c++) {
		if (*c == '"') quoted = !quoted;
		if (!quoted && (*c == '.' || *c == '[')) cut = c;
	}
	if (cut) *cut = 0;
	return cut != NULL;
}

void conf_say_of(const struct conf *c, struct conf_report *r, enum conf_level level, const char *path, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	_cleanup_free_ char *text = xvasprintf(fmt, ap), *at = xstrdup(path), *shown = xstrdup(path);
	va_end(ap);
	const struct conf_origin *o = conf_origin_get(c, at);
	if (str_ends(shown, "]")) cut_last(shown);
	while (!o && cut_last(at)) o = conf_origin_get(c, at);
	if (!o)
		conf_say(r, level, NULL, 0, 0, "%s: %s", shown, text);
	else if (o->from == FROM_FILE)
		conf_say(r, level, c->path, o->line, o->column, "%s: %s", shown, text);
	else
		conf_say(r, level, NULL, 0, 0, "%s%s: %s", o->from == FROM_FLAG ? "--" : "$", o->name, text);
}

void conf_report_fini(struct conf_report *r)
{
	for (size_t i = 0; i < r->v.n; i++) free(r->v.v[i].text);
	vec_fini(&r->v);
}

size_t conf_report_count(const struct conf_report *r, enum conf_level level)
{
	size_t n = 0;
	for (size_t i = 0; i < r->v.n; i++) n += r->v.v[i].level == level;
	return n;
}

static int by_place(const void *a, const void *b)
{
	const struct conf_note *x = a, *y = b;
	if (x->line != y->line) return x->line < y->line ? -1 : 1;
	return x->column < y->column ? -1 : x->column > y->column;
}

/* ---- where values come from ---- */
void conf_origin_set(struct conf *c, const char *path, struct conf_origin o)
{
	free(map_put(&c->origins, path, xmemdup(&o, sizeof o)));
}

const struct conf_origin *conf_origin_get(const struct conf *c, const char *path) { return map_get(&c->origins, path); }

void conf_show_path(struct buf *b, const char *path)
{
	for (const char *p = path; *p;) {
		size_t n = strcspn(p, "/");
		bool plain = !memchr(p, '.', n);
		buf_addf(b, plain ? "%s%.*s" : "%s\"%.*s\"", p == path ? "" : ".", (int)n, p);
		p += n + (p[n] == '/');
	}
}

char *conf_shown(const char *prefix, const char *path)
{
	struct buf b = BUF_INIT;
	if (*prefix) buf_addf(&b, "%s.", prefix);
	conf_show_path(&b, path);
	return buf_take_str(&b);
}

/* ---- load ---- */
static struct conf *conf_new(const char *path)
{
	struct conf *c = xnew(struct conf);
	atomic_init(&c->refs, 1);
	c->path = xstrdup(path);
	c->grpc.uid = c->grpc.gid = -1;
	c->system.platforms_max_age_ns = c->system.max_registry_concurrency = INT64_MIN;
	return c;
}

struct conf *conf_ref(struct conf *c)
{
	atomic_fetch_add(&c->refs, 1);
	return c;
}

void conf_unref(struct conf *c)
{
	if (!c || atomic_fetch_sub(&c->refs, 1) != 1) return;
	conf_rows_fini(&conf_all_rows, c);
	map_fini_free(&c->origins);
	free(c->path);
	free(c);
}

/* Depth costs stack in a recursive parser and destructor; a key's parts are all on one line. */
static int check_dots(const char *text, size_t n, unsigned *ret_line)
{
	size_t dots = 0;
	unsigned line = 1;
	for (size_t i = 0; i < n; i++) {
		if (text[i] == '\n') dots = 0, line++;
		*ret_line = line;
		if (text[i] == '.' && ++dots > LINE_DOTS_MAX) return -1;
	}
	return 0;
}

static struct toml_node *read_text(const char *text, size_t n, char **msg, unsigned *line, unsigned *column)
{
	*column = 1;
	if (check_dots(text, n, line) == 0) return toml_parse_text(text, n, msg, line, column);
	*msg = xstrdup("too many dots in one line");
	return NULL;
}

int conf_parse(const char *text, size_t n, const char *name, struct conf **ret, struct conf_report *r)
{
	_cleanup_conf_ struct conf *c = conf_new(name);
	_cleanup_free_ char *msg = NULL;
	unsigned line = 0, column = 0;
	struct toml_node *t = read_text(text, n, &msg, &line, &column);
	if (!t) {
		conf_say(r, CONF_ERROR, name, line, column, "%s", msg);
		return -1;
	}
	c->from_file = true;
	conf_read_tree(c, t, name, r);
	toml_free(t);
	*ret = take_ptr(c);
	return 0;
}

int conf_load(const char *path, struct conf **ret, struct conf_report *r)
{
	_cleanup_free_ char *p = path ? xstrdup(path) : default_config_path();
	uint8_t *text = NULL;
	size_t n = 0;
	struct err e = ERR_INIT;
	bool absent = access(p, F_OK) < 0 && (errno == ENOENT || errno == ENOTDIR);
	if (absent && !path) {
		*ret = conf_new(p);
		return 0;
	}
	if (absent || path_read_file(AT_FDCWD, p, FILE_MAX_BYTES, &text, &n, &e) < 0) {
		conf_say(r, CONF_ERROR, p, 0, 0, "%s", absent ? "the configuration file does not exist" : e.msg);
		err_fini(&e);
		return -1;
	}
	int x = conf_parse((char *)text, n, p, ret, r);
	free(text);
	return x;
}

static const char *first(const struct conf_report *r, enum conf_level level)
{
	for (size_t i = 0; i < r->v.n; i++)
		if (r->v.v[i].level == level) return r->v.v[i].text;
	return NULL;
}

int conf_read(const struct conf_args *a, struct conf **ret, struct conf_report *r, struct err *e)
{
	_cleanup_conf_ struct conf *c = NULL;
	int x = conf_load(a->config_path, &c, r);
	size_t in_file = conf_report_count(r, CONF_ERROR);
	if (x == 0 && (conf_apply_flags(c, a, r, e) < 0 || conf_finish(c, r, e) < 0)) return -1;
	if (r->v.n > 1) qsort(r->v.v, r->v.n, sizeof *r->v.v, by_place);
	size_t errors = conf_report_count(r, CONF_ERROR), faults = c && c->strict ? conf_report_count(r, CONF_FAULT) : 0,
	       n = errors + faults;
	if (n) {
		bool placed = !c || c->from_file;
		if (!c && r->v.n && !r->v.v[0].line) placed = false;
		const char *more = n > 1 ? "; `slipwayd check-config` tells the rest" : "";
		return err_set(e, CODE_INVALID_ARGUMENT, "%s%s%s%s", in_file && placed ? "failed to parse config: " : "",
			       first(r, errors ? CONF_ERROR : CONF_FAULT), errors ? "" : " (strict = true)", more);
	}
	*ret = take_ptr(c);
	return 0;
}

int conf_dump_json(const char *text, size_t n, const char *name, struct buf *out, struct err *e)
{
	_cleanup_free_ char *msg = NULL;
	unsigned line = 0, column = 0;
	struct toml_node *t = read_text(text, n, &msg, &line, &column);
	if (!t) return err_set(e, CODE_INVALID_ARGUMENT, "%s:%u:%u: %s", name, line, column, msg);
	conf_put_json(t, out);
	toml_free(t);
	return 0;
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
	/* BuildKit's is /run/buildkit/otel-grpc.sock for all daemons of a machine: the end of one broke the steps of another. */
	set_default(&c->otel.socket_path, xasprintf("%s/slipway/otel-grpc.sock", c->root));
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

static int make_root_absolute(struct conf *c, struct err *e)
{
	char cwd[4096];
	if (*c->root != '/' && !getcwd(cwd, sizeof cwd)) return err_sys(e, errno, "working directory");
	char *full = *c->root == '/' ? path_clean(c->root) : path_join(cwd, c->root);
	free(c->root);
	c->root = full;
	return 0;
}

int conf_finish(struct conf *c, struct conf_report *r, struct err *e)
{
	set_defaults(c);
	conf_check(c, r);
	return make_root_absolute(c, e);
}

/* ---- derived ---- */
/* How well an entry's name fits a host: 0 not at all. Behind an own name comes the longest suffix; a port counts. */
static size_t fits(const char *name, const char *host)
{
	size_t n = strlen(host), port = 0;
	const char *colon = strrchr(host, ':');
	if (colon && host[n - 1] != ']' && !memchr(colon, ']', strlen(colon))) port = strlen(colon);
	if (strcasecmp(name, host) == 0) return SIZE_MAX;
	if (strcmp(name, "*") == 0) return 1;
	if (!str_starts(name, "*.")) return 0;
	const char *suffix = name + 1;
	size_t m = strlen(suffix);
	if (n > m && strcasecmp(host + n - m, suffix) == 0) return 2 * m + 1;
	if (port && n - port > m && strncasecmp(host + n - port - m, suffix, m) == 0) return 2 * m;
	return 0;
}

const struct conf_registry *conf_registry_find(const struct conf *c, const char *host)
{
	const struct conf_registry *best = NULL;
	size_t most = 0;
	for (size_t i = 0; i < c->registries.n; i++) {
		size_t f = fits(c->registries.v[i].name, host);
		if (f > most) most = f, best = &c->registries.v[i];
	}
	return best;
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
