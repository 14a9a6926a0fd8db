/* Values of flags: outputs, caches, secrets, agents, entitlements, local folders, source policies. Texts of errors are
 * buildctl's (cmd/buildctl/build), where it has one. */
#include "cli/build.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define BAD(...) err_set(e, CODE_UNKNOWN, __VA_ARGS__)

int build_key_value(const char *field, char **ret_key, const char **ret_value, struct err *e)
{
	const char *eq = strchr(field, '=');
	if (!eq) return BAD("invalid value %s", field);
	char *k = xstrndup(field, (size_t)(eq - field));
	for (char *p = k; *p; p++)
		if (*p >= 'A' && *p <= 'Z') *p = (char)(*p - 'A' + 'a');
	*ret_key = k;
	*ret_value = eq + 1;
	return 0;
}

/* The fields of a CSV value: "type" into *ret_type, the rest as attributes. */
static int read_attrs(const char *spec, char **ret_type, struct strvec *attrs, struct err *e)
{
	_cleanup_strvec_ struct strvec fields = {0};
	if (csv_fields(spec, ',', &fields, e) < 0) return -1;
	for (size_t i = 0; i < fields.n; i++) {
		_cleanup_free_ char *k = NULL;
		const char *v;
		if (build_key_value(fields.v[i], &k, &v, e) < 0) return -1;
		if (strcmp(k, "type") == 0) {
			free(*ret_type);
			*ret_type = xstrdup(v);
		} else {
			strvec_env_set(attrs, k, v);
		}
	}
	return 0;
}

static void attr_del(struct strvec *attrs, const char *key)
{
	size_t n = strlen(key);
	for (size_t i = 0; i < attrs->n; i++) {
		if (strncmp(attrs->v[i], key, n) != 0 || attrs->v[i][n] != '=') continue;
		free(attrs->v[i]);
		vec_remove(attrs, i);
		attrs->v[attrs->n] = NULL;
		return;
	}
}

/* ---- outputs ---- */
static int open_dest(struct build_export *x, const char *dest, struct err *e)
{
	struct stat sb;
	if (!*dest || strcmp(dest, "-") == 0) {
		if (isatty(1)) return BAD("output file is required for %s exporter. refusing to write to console", x->type);
		x->fd = fcntl(1, F_DUPFD_CLOEXEC, 3);
		return x->fd < 0 ? err_sys(e, errno, "stdout") : 0;
	}
	if (stat(dest, &sb) == 0) {
		if (S_ISDIR(sb.st_mode)) return BAD("destination file is a directory");
	} else if (errno != ENOENT) {
		return err_sys(e, errno, "invalid destination file: %s", dest);
	}
	x->fd = open(dest, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	return x->fd < 0 ? err_sys(e, errno, "open %s", dest) : 0;
}

static int set_local_mode(struct build_export *x, struct err *e)
{
	const char *mode = strvec_env_get(&x->attrs, "mode");
	if (str_empty(mode) || strcmp(mode, "copy") == 0) return 0;
	if (strcmp(mode, "delete") != 0) return BAD("invalid local exporter mode \"%s\"", mode);
	x->delete_rest = true;
	return 0;
}

int build_set_dest(struct build_export *x, struct err *e)
{
	const char *said = strvec_env_get(&x->attrs, "dest"), *tar = strvec_env_get(&x->attrs, "tar");
	_cleanup_free_ char *dest = xstrdup(said ? said : "");
	bool image = strcmp(x->type, "oci") == 0 || strcmp(x->type, "docker") == 0, local = strcmp(x->type, "local") == 0,
	     as_tar = true;
	if (tar && !str_bool(tar, &as_tar)) as_tar = true;
	if (local || (image && !as_tar)) {
		if (!*dest) return BAD("output directory is required for %s exporter", x->type);
		x->dir = take_ptr(dest);
		x->store = image;
		if (x->store && path_mkdirs(x->dir, 0755, e) < 0) return -1;
		if (local && set_local_mode(x, e) < 0) return -1;
	} else if (image || strcmp(x->type, "tar") == 0) {
		if (open_dest(x, dest, e) < 0) return -1;
	} else if (*dest) {
		return BAD("output %s is not supported by %s exporter", dest, x->type);
	}
	attr_del(&x->attrs, "dest");
	return 0;
}

static int one_store(const struct build *b, struct err *e)
{
	size_t n = 0;
	for (size_t i = 0; i < b->exports.n; i++) n += b->exports.v[i].store;
	return n > 1 ? BAD("oci store key \"export\" already exists") : 0;
}

int build_add_output(struct build *b, const char *spec, struct err *e)
{
	struct build_export *x = vec_add(&b->exports);
	x->fd = -1;
	if (read_attrs(spec, &x->type, &x->attrs, e) < 0) return -1;
	if (str_empty(x->type)) return BAD("--output requires type=<type>");
	const char *old = strvec_env_get(&x->attrs, "output");
	if (old) return BAD("output=%s not supported for --output, you meant dest=%s?", old, old);
	if (build_set_dest(x, e) < 0) return err_wrap(e, "invalid output option: output");
	return one_store(b, e);
}

/* ---- caches ---- */
static void from_env(struct strvec *attrs, const char *key, const char *const *env)
{
	for (; *env && !strvec_env_get(attrs, key); env++) {
		const char *v = getenv(*env);
		if (v) strvec_env_set(attrs, key, v);
	}
}

static int github_env(struct strvec *attrs, struct err *e)
{
	const char *version = strvec_env_get(attrs, "version"), *v2 = getenv("ACTIONS_CACHE_SERVICE_V2");
	bool b = false;
	bool second = version ? strcmp(version, "2") == 0 : v2 && str_bool(v2, &b) && b;
	if (second) from_env(attrs, "url_v2", (const char *const[]){"ACTIONS_RESULTS_URL", NULL});
	from_env(attrs, "url", (const char *const[]){"ACTIONS_CACHE_URL", "ACTIONS_RESULTS_URL", NULL});
	if (!strvec_env_get(attrs, "url") && !strvec_env_get(attrs, "url_v2"))
		return BAD("cache with type gha requires url parameter to be set");
	from_env(attrs, "token", (const char *const[]){"ACTIONS_RUNTIME_TOKEN", NULL});
	if (!strvec_env_get(attrs, "token"))
		return BAD("cache with type gha requires token parameter or $ACTIONS_RUNTIME_TOKEN");
	return 0;
}

int build_add_cache(struct build *b, bool to, const char *flag, const char *spec, struct err *e)
{
	struct build_cache *x = to ? vec_add(&b->cache_to) : vec_add(&b->cache_from);
	if (!strstr(spec, "type=")) {
		if (b->cli->dialect == DIALECT_BUILDCTL)
			term_warn("%s <ref> is deprecated. Please use %s "
				  "type=registry,ref=<ref>,<opt>=<optval>[,<opt>=<optval>]%s instead",
				  flag, flag, to ? "" : ".");
		x->type = xstrdup("registry");
		strvec_env_set(&x->attrs, "ref", spec);
	} else if (read_attrs(spec, &x->type, &x->attrs, e) < 0) {
		return -1;
	}
	if (str_empty(x->type)) return BAD("%s requires type=<type>", flag);
	if (to && !strvec_env_get(&x->attrs, "mode")) strvec_env_set(&x->attrs, "mode", "min");
	return strcmp(x->type, "gha") == 0 ? github_env(&x->attrs, e) : 0;
}

/* ---- secrets, agents ---- */
struct secret_spec {
	char *id, *file, *env, *type;
};

static void secret_fini(struct secret_spec *s)
{
	free(s->id);
	free(s->file);
	free(s->env);
	free(s->type);
}

static int read_secret(const char *spec, struct secret_spec *s, struct err *e)
{
	_cleanup_strvec_ struct strvec fields = {0};
	const struct {
		const char *key;
		char **to;
	} keys[] = {{"id", &s->id}, {"source", &s->file}, {"src", &s->file}, {"env", &s->env}, {"type", &s->type}};
	if (csv_fields(spec, ',', &fields, e) < 0) return err_wrap(e, "failed to parse csv secret");
	for (size_t i = 0; i < fields.n; i++) {
		_cleanup_free_ char *k = NULL;
		const char *v;
		size_t which = 0;
		if (build_key_value(fields.v[i], &k, &v, e) < 0)
			return BAD("invalid field '%s' must be a key=value pair", fields.v[i]);
		while (which < array_len(keys) && strcmp(keys[which].key, k) != 0) which++;
		if (which == array_len(keys)) return BAD("unexpected key '%s' in '%s'", k, fields.v[i]);
		if (strcmp(k, "type") == 0 && strcmp(v, "file") != 0 && strcmp(v, "env") != 0)
			return BAD("unsupported secret type \"%s\"", v);
		free(*keys[which].to);
		*keys[which].to = xstrdup(v);
	}
	return 0;
}

int build_add_secret(struct build *b, const char *spec, struct err *e)
{
	_cleanup_(secret_fini) struct secret_spec s = {0};
	struct stat sb;
	if (read_secret(spec, &s, e) < 0) return -1;
	if (str_eq(s.type, "env") && str_empty(s.env)) {
		free(s.env);
		s.env = take_ptr(s.file);
	}
	if (str_empty(s.id)) return BAD("secret missing ID");
	if (str_empty(s.type) && str_empty(s.env) && str_empty(s.file)) { /* a variable of that name, or else a file */
		free(s.env);
		s.env = getenv(s.id) ? xstrdup(s.id) : NULL;
		if (!s.env) {
			free(s.file);
			s.file = xstrdup(s.id);
		}
	}
	if (!str_empty(s.env)) {
		sess_client_add_secret_env(b->sess, s.id, s.env);
		return 0;
	}
	if (str_empty(s.file)) {
		free(s.file);
		s.file = xstrdup(s.id);
	}
	if (stat(s.file, &sb) < 0) return err_sys(e, errno, "failed to stat %s: stat %s", s.file, s.file);
	if (sb.st_size > 500 << 10) return BAD("secret %s too big. max size 500KB", s.id);
	sess_client_add_secret_file(b->sess, s.id, s.file);
	return 0;
}

int build_add_ssh(struct build *b, const char *spec, struct err *e)
{
	const char *eq = strchr(spec, '=');
	_cleanup_free_ char *id = eq ? xstrndup(spec, (size_t)(eq - spec)) : xstrdup(spec), *path = NULL;
	bool raw = false;
	size_t n = 0;
	for (const char *p = eq ? eq + 1 : ""; *p;) {
		_cleanup_free_ char *part = xstrndup(p, strcspn(p, ","));
		p += strlen(part);
		p += *p == ',';
		if (str_starts(part, "raw=")) {
			if (!str_bool(part + 4, &raw)) return BAD("invalid value for 'raw': %s", part + 4);
			continue;
		}
		free(path);
		path = take_ptr(part);
		n++;
	}
	if (raw && n != 1) return BAD("raw mode must supply exactly one socket path for \"%s\"", id);
	if (n > 1) return BAD("--ssh %s: several key files need an agent: load them with ssh-add and forward the agent", id);
	return sess_client_add_ssh(b->sess, id, path, e);
}

int build_add_allow(struct build *b, const char *spec, struct err *e)
{
	static const char *const known[] = {"security.insecure", "network.host", "device"};
	bool device = str_starts(spec, "device="), ok = device;
	for (size_t i = 0; i < array_len(known); i++) ok |= strcmp(spec, known[i]) == 0;
	if (!ok) return BAD("unknown entitlement %s", spec);
	strvec_add(&b->entitlements, spec);
	return 0;
}

/* ---- folders ---- */
int build_add_local(struct build *b, const char *name, const char *dir, struct err *e)
{
	struct stat sb;
	if (stat(dir, &sb) < 0) return err_sys(e, errno, "resolve : lstat %s", dir);
	if (!S_ISDIR(sb.st_mode)) return BAD("%s: not a directory", dir);
	sess_client_add_dir(b->sess, name, dir);
	return 0;
}

int build_add_oci_layout(struct build *b, const char *id, const char *dir)
{
	_cleanup_free_ char *store = xasprintf("oci:%s", id);
	sess_client_add_content(b->sess, store, dir, false);
	return 0;
}

/* ---- source policies: JSON of the message, enums as numbers or names ---- */
static int enum_of(json_t *v, const char *const *names, int n)
{
	const char *s = json_string_value(v);
	for (int i = 0; s && i < n; i++)
		if (strcmp(names[i], s) == 0) return i;
	return (int)json_integer_value(v);
}

static const char *text_of(struct arena *mem, json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? arena_strdup(mem, s) : "";
}

static Policy__Selector *selector_of(struct arena *mem, json_t *o)
{
	static const char *const types[] = {"WILDCARD", "EXACT", "REGEX"}, *const conditions[] = {"EQUAL", "NOTEQUAL",
												  "MATCHES"};
	if (!json_is_object(o)) return NULL;
	Policy__Selector *s = arena_new_of(mem, Policy__Selector);
	json_t *list = json_object_get(o, "constraints"), *c;
	size_t i;
	policy__selector__init(s);
	s->identifier = text_of(mem, o, "identifier");
	s->match_type = (Policy__MatchType)enum_of(json_object_get(o, "match_type"), types, 3);
	s->constraints = arena_alloc(mem, (json_array_size(list) + 1) * sizeof *s->constraints);
	json_array_foreach(list, i, c)
	{
		Policy__AttrConstraint *x = s->constraints[s->n_constraints++] = arena_new_of(mem, Policy__AttrConstraint);
		policy__attr_constraint__init(x);
		x->key = text_of(mem, c, "key");
		x->value = text_of(mem, c, "value");
		x->condition = (Policy__AttrMatch)enum_of(json_object_get(c, "condition"), conditions, 3);
	}
	return s;
}

static Policy__Update *update_of(struct arena *mem, json_t *o)
{
	if (!json_is_object(o)) return NULL;
	Policy__Update *u = arena_new_of(mem, Policy__Update);
	json_t *attrs = json_object_get(o, "attrs"), *v;
	const char *k;
	policy__update__init(u);
	u->identifier = text_of(mem, o, "identifier");
	u->attrs = arena_alloc(mem, (json_object_size(attrs) + 1) * sizeof *u->attrs);
	json_object_foreach(attrs, k, v)
	{
		Policy__Update__AttrsEntry *x = u->attrs[u->n_attrs++] = arena_new_of(mem, Policy__Update__AttrsEntry);
		policy__update__attrs_entry__init(x);
		x->key = arena_strdup(mem, k);
		x->value = arena_strdup(mem, json_string_value(v) ? json_string_value(v) : "");
	}
	return u;
}

int build_read_policy(struct build *b, const char *path, struct err *e)
{
	static const char *const actions[] = {"ALLOW", "DENY", "CONVERT"};
	_cleanup_free_ uint8_t *p = NULL;
	size_t n, i;
	json_error_t why;
	if (path_read_file(AT_FDCWD, path, 16 << 20, &p, &n, e) < 0) return -1;
	json_t *root = json_loadb((const char *)p, n, 0, &why), *list = json_object_get(root, "rules"), *r;
	if (!json_is_object(root)) {
		json_decref(root);
		return BAD("failed to unmarshal source-policy-file \"%s\": %s", path, why.text);
	}
	Policy__Policy *m = arena_new_of(b->mem, Policy__Policy);
	policy__policy__init(m);
	m->version = json_integer_value(json_object_get(root, "version"));
	m->rules = arena_alloc(b->mem, (json_array_size(list) + 1) * sizeof *m->rules);
	json_array_foreach(list, i, r)
	{
		Policy__Rule *x = m->rules[m->n_rules++] = arena_new_of(b->mem, Policy__Rule);
		policy__rule__init(x);
		x->action = (Policy__PolicyAction)enum_of(json_object_get(r, "action"), actions, 3);
		x->selector = selector_of(b->mem, json_object_get(r, "selector"));
		x->updates = update_of(b->mem, json_object_get(r, "updates"));
	}
	json_decref(root);
	b->policy = m;
	return 0;
}
