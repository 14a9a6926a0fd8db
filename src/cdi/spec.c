/* One specification file -> its devices. Numbers and truth values may come as words: so YAML is read. */
#include "cdi/cdi.h"
#include "cdi/doc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ITEMS_MAX = 4096, WORD_MAX = 64 };

/* ---- freeing ---- */

static void edits_fini(struct cdi_edits *x)
{
	strvec_fini(&x->env);
	for (size_t i = 0; i < x->nodes.n; i++) {
		free(x->nodes.v[i].path);
		free(x->nodes.v[i].host_path);
		free(x->nodes.v[i].access);
	}
	for (size_t i = 0; i < x->mounts.n; i++) {
		free(x->mounts.v[i].host_path);
		free(x->mounts.v[i].path);
		free(x->mounts.v[i].type);
		strvec_fini(&x->mounts.v[i].options);
	}
	for (size_t i = 0; i < x->hooks.n; i++) {
		free(x->hooks.v[i].path);
		strvec_fini(&x->hooks.v[i].args);
		strvec_fini(&x->hooks.v[i].env);
	}
	vec_fini(&x->nodes);
	vec_fini(&x->mounts);
	vec_fini(&x->hooks);
	vec_fini(&x->gids);
}

void cdi_spec_free(struct cdi_spec *s)
{
	if (!s) return;
	for (size_t i = 0; i < s->devices.n; i++) {
		free(s->devices.v[i].name);
		strvec_fini(&s->devices.v[i].annotations);
		edits_fini(&s->devices.v[i].edits);
	}
	vec_fini(&s->devices);
	edits_fini(&s->edits);
	free(s->kind);
	free(s);
}

/* ---- values ---- */

/* buf is for numbers. NULL: not there, or no scalar. */
static const char *word(const json_t *v, char buf[static WORD_MAX])
{
	if (json_is_string(v)) return json_string_value(v);
	if (json_is_boolean(v)) return json_is_true(v) ? "true" : "false";
	if (!json_is_integer(v)) return NULL;
	snprintf(buf, WORD_MAX, "%lld", (long long)json_integer_value(v));
	return buf;
}

static char *text_of(const json_t *o, const char *key) /* heap; NULL: not there or empty */
{
	char buf[WORD_MAX];
	const char *s = word(json_object_get(o, key), buf);
	return str_empty(s) ? NULL : xstrdup(s);
}

/* 0 in front means octal, as in YAML 1.1. */
static int number_of(const json_t *o, const char *key, int64_t min, int64_t max, int64_t *ret, struct err *e)
{
	char buf[WORD_MAX], *end;
	const json_t *v = json_object_get(o, key);
	const char *s = word(v, buf);
	if (!v || json_is_null(v)) return 0;
	errno = 0;
	long long n = s ? strtoll(str_starts(s, "0o") ? s + 2 : s, &end, str_starts(s, "0o") ? 8 : 0) : 0;
	if (!s || !*s || *end || errno || n < min || n > max)
		return err_set(e, CODE_INVALID_ARGUMENT, "%s must be a number from %lld to %lld", key, (long long)min,
			       (long long)max);
	*ret = n;
	return 0;
}

static int list_of(const json_t *o, const char *key, const json_t **ret, struct err *e)
{
	*ret = json_object_get(o, key);
	if (json_is_null(*ret)) *ret = NULL;
	if (*ret && (!json_is_array(*ret) || json_array_size(*ret) > ITEMS_MAX))
		return err_set(e, CODE_INVALID_ARGUMENT, "%s must be a list of at most %d", key, ITEMS_MAX);
	return 0;
}

static int words_of(const json_t *o, const char *key, struct strvec *ret, struct err *e)
{
	const json_t *list, *v;
	size_t i;
	if (list_of(o, key, &list, e) < 0) return -1;
	json_array_foreach(list, i, v)
	{
		char buf[WORD_MAX];
		const char *s = word(v, buf);
		if (!s) return err_set(e, CODE_INVALID_ARGUMENT, "%s must be a list of words", key);
		strvec_add(ret, s);
	}
	return 0;
}

static int annotations_of(const json_t *o, struct strvec *ret, struct err *e)
{
	const char *k;
	json_t *map = json_object_get(o, "annotations"), *v;
	if (map && !json_is_null(map) && !json_is_object(map))
		return err_set(e, CODE_INVALID_ARGUMENT, "annotations must be a table");
	json_object_foreach(map, k, v)
	{
		char buf[WORD_MAX];
		const char *s = word(v, buf);
		if (!s) return err_set(e, CODE_INVALID_ARGUMENT, "annotation %s must be a word", k);
		strvec_env_set(ret, k, s);
	}
	return 0;
}

/* ---- edits ---- */

static int add_node(const json_t *v, struct cdi_edits *x, struct err *e)
{
	struct cdi_node *n = vec_add(&x->nodes);
	*n = (struct cdi_node){.mode = -1, .uid = -1, .gid = -1};
	_cleanup_free_ char *type = text_of(v, "type");
	n->path = text_of(v, "path");
	n->host_path = text_of(v, "hostPath");
	n->access = text_of(v, "permissions");
	if (!n->path || *n->path != '/') return err_set(e, CODE_INVALID_ARGUMENT, "a device node needs an absolute path");
	if (type && (strlen(type) != 1 || !strchr("bcup", *type)))
		return err_set(e, CODE_INVALID_ARGUMENT, "device %s: type must be b, c, u or p, and not %s", n->path, type);
	if (n->access && strspn(n->access, "rwm") != strlen(n->access))
		return err_set(e, CODE_INVALID_ARGUMENT, "device %s: permissions are of r, w and m, and not %s", n->path,
			       n->access);
	n->type = type ? *type : 0;
	if (number_of(v, "major", 0, UINT32_MAX, &n->major, e) < 0 || number_of(v, "minor", 0, UINT32_MAX, &n->minor, e) < 0 ||
	    number_of(v, "fileMode", 0, 07777, &n->mode, e) < 0 || number_of(v, "uid", 0, UINT32_MAX, &n->uid, e) < 0 ||
	    number_of(v, "gid", 0, UINT32_MAX, &n->gid, e) < 0)
		return err_wrap(e, "device %s", n->path);
	return 0;
}

static int add_mount(const json_t *v, struct cdi_edits *x, struct err *e)
{
	struct cdi_mount *m = vec_add(&x->mounts);
	m->host_path = text_of(v, "hostPath");
	m->path = text_of(v, "containerPath");
	m->type = text_of(v, "type");
	if (!m->host_path || !m->path) return err_set(e, CODE_INVALID_ARGUMENT, "a mount needs hostPath and containerPath");
	return words_of(v, "options", &m->options, e);
}

static int add_hook(const json_t *v, struct cdi_edits *x, struct err *e)
{
	static const char *const kinds[] = {[CDI_PRESTART] = "prestart",
					    [CDI_CREATE_RUNTIME] = "createRuntime",
					    [CDI_CREATE_CONTAINER] = "createContainer",
					    [CDI_START_CONTAINER] = "startContainer",
					    [CDI_POSTSTART] = "poststart",
					    [CDI_POSTSTOP] = "poststop"};
	struct cdi_hook *h = vec_add(&x->hooks);
	_cleanup_free_ char *kind = text_of(v, "hookName");
	h->path = text_of(v, "path");
	if (!h->path || *h->path != '/') return err_set(e, CODE_INVALID_ARGUMENT, "a hook needs an absolute path");
	size_t i = 0;
	while (i < array_len(kinds) && !str_eq(kind, kinds[i])) i++;
	if (i == array_len(kinds))
		return err_set(e, CODE_INVALID_ARGUMENT, "there is no hook with the name %s", kind ? kind : "");
	h->kind = (enum cdi_hook_kind)i;
	if (words_of(v, "args", &h->args, e) < 0 || words_of(v, "env", &h->env, e) < 0) return -1;
	return number_of(v, "timeout", 0, INT32_MAX, &h->timeout, e);
}

static int add_gid(const json_t *v, struct cdi_edits *x, struct err *e)
{
	char buf[WORD_MAX], *end = NULL;
	const char *s = word(v, buf);
	unsigned long n = s ? strtoul(s, &end, 10) : 0;
	if (!s || !*s || *end || n > UINT32_MAX) return err_set(e, CODE_INVALID_ARGUMENT, "additionalGids must be numbers");
	if (n) vec_push(&x->gids, (uint32_t)n);
	return 0;
}

static int edits_of(const json_t *o, struct cdi_edits *x, struct err *e)
{
	static const struct {
		const char *key;
		int (*add)(const json_t *v, struct cdi_edits *x, struct err *e);
	} lists[] = {{"deviceNodes", add_node}, {"mounts", add_mount}, {"hooks", add_hook}, {"additionalGids", add_gid}};
	const json_t *edits = json_object_get(o, "containerEdits"), *list, *v;
	if (words_of(edits, "env", &x->env, e) < 0) return -1;
	for (size_t i = 0; i < x->env.n; i++)
		if (!strchr(x->env.v[i], '='))
			return err_set(e, CODE_INVALID_ARGUMENT, "env %s is not NAME=VALUE", x->env.v[i]);
	for (size_t k = 0; k < array_len(lists); k++) {
		size_t i;
		if (list_of(edits, lists[k].key, &list, e) < 0) return -1;
		json_array_foreach(list, i, v) if (lists[k].add(v, x, e) < 0) return -1;
	}
	static const char *const not_ours[] = {"intelRdt", "netDevices"};
	for (size_t i = 0; i < array_len(not_ours); i++)
		if (json_object_get(edits, not_ours[i]))
			return err_set(e, CODE_UNIMPLEMENTED, "containerEdits.%s cannot be given to a build step", not_ours[i]);
	return 0;
}

/* ---- names ---- */

static bool is_letter(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }
static bool is_alnum(char c) { return is_letter(c) || (c >= '0' && c <= '9'); }

static bool is_name(const char *s, size_t n, const char *inside, bool digit_first)
{
	if (!n || !(is_letter(*s) || (digit_first && is_alnum(*s))) || !is_alnum(s[n - 1])) return false;
	for (size_t i = 0; i < n; i++)
		if (!is_alnum(s[i]) && !strchr(inside, s[i])) return false;
	return true;
}

static bool is_kind(const char *s)
{
	const char *slash = strchr(s, '/');
	return slash && is_name(s, (size_t)(slash - s), "_-.", false) && is_name(slash + 1, strlen(slash + 1), "_-.", false);
}

/* ---- the file ---- */

static int add_device(const json_t *root, const json_t *v, struct cdi_spec *s, struct err *e)
{
	_cleanup_free_ char *name = text_of(v, "name");
	if (!name || !is_name(name, strlen(name), "_-.:", true))
		return err_set(e, CODE_INVALID_ARGUMENT, "\"%s\" is no name of a device: letters, digits and _ - . : inside",
			       name ? name : "");
	struct cdi_device *d = vec_add(&s->devices);
	d->name = xasprintf("%s=%s", s->kind, name);
	for (size_t i = 0; i + 1 < s->devices.n; i++)
		if (!strcmp(s->devices.v[i].name, d->name))
			return err_set(e, CODE_INVALID_ARGUMENT, "device %s is there twice", name);
	bool allow = false;
	if (annotations_of(root, &d->annotations, e) < 0 || annotations_of(v, &d->annotations, e) < 0 ||
	    edits_of(v, &d->edits, e) < 0)
		return err_wrap(e, "device %s", name);
	const char *said = strvec_env_get(&d->annotations, "org.mobyproject.buildkit.device.autoallow");
	d->auto_allow = said && str_bool(said, &allow) && allow;
	return 0;
}

static int read_spec(const json_t *root, struct cdi_spec *s, struct err *e)
{
	const json_t *list, *v;
	size_t i;
	_cleanup_free_ char *version = text_of(root, "cdiVersion");
	if (!json_is_object(root)) return err_set(e, CODE_INVALID_ARGUMENT, "the file must be a table");
	if (!version || !(str_starts(version, "0.") || str_starts(version, "1.")))
		return err_set(e, CODE_INVALID_ARGUMENT, "cdiVersion must be 0.x or 1.x, and not \"%s\"",
			       version ? version : "");
	s->kind = text_of(root, "kind");
	if (!s->kind || !is_kind(s->kind))
		return err_set(e, CODE_INVALID_ARGUMENT, "kind must be VENDOR/CLASS, and not \"%s\"", s->kind ? s->kind : "");
	if (edits_of(root, &s->edits, e) < 0 || list_of(root, "devices", &list, e) < 0) return -1;
	if (!json_array_size(list)) return err_set(e, CODE_INVALID_ARGUMENT, "it has no devices");
	json_array_foreach(list, i, v) if (add_device(root, v, s, e) < 0) return -1;
	for (i = 0; i < s->devices.n; i++) s->devices.v[i].common = &s->edits;
	return 0;
}

int cdi_spec_parse(const char *text, size_t n, bool yaml, struct cdi_spec **ret, struct err *e)
{
	json_error_t je;
	json_t *root = NULL;
	if (yaml) {
		if (yaml_read(text, n, &root, e) < 0) return -1;
	} else if (!(root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je))) {
		return err_set(e, CODE_INVALID_ARGUMENT, "line %d: %s", je.line, je.text);
	}
	struct cdi_spec *s = xnew(struct cdi_spec);
	int r = read_spec(root, s, e);
	json_decref(root);
	if (r < 0) {
		cdi_spec_free(s);
		return -1;
	}
	*ret = s;
	return 0;
}
