/* RUN: the command line, heredocs and the flags for mounts, network, security and devices.
 *
 * The keys of a mount depend on its type and may hold variables, so a mount is read twice: when the instruction is parsed only
 * `from` (it decides which stages are needed), and with all checks when the variables are known. Invariant: a mount that
 * was not expanded is a bind mount that holds nothing but `from`. */
#include "dockerfile/instr.h"
#include "dockerfile/rune.h"
#include "spec/size.h"

#include <errno.h>
#include <string.h>

static const char *const mount_types[] = {[INSTR_BIND] = "bind",
					  [INSTR_CACHE] = "cache",
					  [INSTR_TMPFS] = "tmpfs",
					  [INSTR_SECRET] = "secret",
					  [INSTR_SSH] = "ssh"};
static const char *const sharings[] = {
	[INSTR_SHARED - 1] = "shared", [INSTR_PRIVATE - 1] = "private", [INSTR_LOCKED - 1] = "locked"};

struct mount_parse {
	struct arena *a;
	struct instr_mount m;
	bool ro_said;
	struct err *e;
};

static int index_of(const char *const *v, size_t n, const char *s)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(v[i], s)) return (int)i;
	return -1;
}

static int bad_choice(struct mount_parse *p, const char *what, const char *value, const char *const *v, size_t n)
{
	return instr_fail(p->e, "%s %s%s", what, rune_quote(p->a, value),
			  lint_mean(p->a, "", lint_suggest(p->a, value, v, n, true)));
}

static int bad_value(struct mount_parse *p, const char *key, const char *value)
{
	return instr_fail(p->e, "invalid value for %s: %s", key, value);
}

static int bad_key(struct mount_parse *p, const char *key)
{
	return instr_fail(p->e, "unexpected key '%s' for mount type '%s'", key, mount_types[p->m.type]);
}

/* Go's ParseUint of 32 bits: digits only. */
static bool parse_u32(const char *s, int base, uint32_t *ret)
{
	uint64_t v = 0;
	if (!*s) return false;
	for (; *s; s++) {
		if (*s < '0' || *s >= '0' + base) return false;
		v = v * (uint64_t)base + (uint64_t)(*s - '0');
		if (v > UINT32_MAX) return false;
	}
	*ret = (uint32_t)v;
	return true;
}

/* ---- keys of a mount ---- */

typedef int key_fn(struct mount_parse *p, const char *key, const char *value);

static int key_type(struct mount_parse *p, const char *key, const char *value)
{
	int i = index_of(mount_types, array_len(mount_types), rune_lower(p->a, value));
	if (i < 0) return bad_choice(p, "unsupported mount type", value, mount_types, array_len(mount_types));
	p->m.type = (enum instr_mount_type)i;
	return 0;
}

static int key_sharing(struct mount_parse *p, const char *key, const char *value)
{
	int i = index_of(sharings, array_len(sharings), rune_lower(p->a, value));
	if (i < 0) return bad_choice(p, "unsupported sharing value", value, sharings, array_len(sharings));
	p->m.sharing = (enum instr_sharing)(i + 1);
	return 0;
}

static int key_from(struct mount_parse *p, const char *key, const char *value) { return p->m.from = value, 0; }
static int key_source(struct mount_parse *p, const char *key, const char *value) { return p->m.source = value, 0; }
static int key_target(struct mount_parse *p, const char *key, const char *value) { return p->m.target = value, 0; }
static int key_id(struct mount_parse *p, const char *key, const char *value) { return p->m.id = value, 0; }
static int key_env(struct mount_parse *p, const char *key, const char *value) { return p->m.env = value, 0; }

/* value NULL: the key alone. */
static int key_readonly(struct mount_parse *p, const char *key, const char *value)
{
	bool on = true, ro = !strcmp(key, "ro") || !strcmp(key, "readonly");
	if (value && !str_bool(value, &on)) return bad_value(p, key, value);
	p->m.readonly = on == ro;
	p->ro_said = true;
	return 0;
}

static int key_required(struct mount_parse *p, const char *key, const char *value)
{
	bool on = true;
	if (p->m.type != INSTR_SECRET && p->m.type != INSTR_SSH) return bad_key(p, key);
	if (value && !str_bool(value, &on)) return bad_value(p, key, value);
	p->m.required = on;
	return 0;
}

static int key_size(struct mount_parse *p, const char *key, const char *value)
{
	if (p->m.type != INSTR_TMPFS) return bad_key(p, key);
	if (spec_size_parse(value, &p->m.size_bytes, NULL) < 0) return bad_value(p, key, value);
	return 0;
}

static int key_number(struct mount_parse *p, const char *key, const char *value)
{
	uint32_t *to = key[0] == 'm' ? &p->m.mode : key[0] == 'u' ? &p->m.uid : &p->m.gid;
	bool *has = key[0] == 'm' ? &p->m.has_mode : key[0] == 'u' ? &p->m.has_uid : &p->m.has_gid;
	if (!parse_u32(value, key[0] == 'm' ? 8 : 10, to)) return instr_fail(p->e, "invalid value %s for %s", value, key);
	*has = true;
	return 0;
}

/* The order is the peer's: suggestions take the first of equals. */
static const struct {
	const char *key;
	key_fn *fn;
	bool alone; /* may stand without a value */
} mount_keys[] = {
	{"type", key_type},
	{"from", key_from},
	{"source", key_source},
	{"target", key_target},
	{"readonly", key_readonly, true},
	{"id", key_id},
	{"sharing", key_sharing},
	{"required", key_required, true},
	{"size", key_size},
	{"mode", key_number},
	{"uid", key_number},
	{"gid", key_number},
	{"src", key_source},
	{"dst", key_target},
	{"destination", key_target},
	{"ro", key_readonly, true},
	{"rw", key_readonly, true},
	{"readwrite", key_readonly, true},
	{"env", key_env},
};

static int unknown_key(struct arena *a, const char *key, const char *field, const struct ast_strs *all, struct err *e)
{
	const char *match = lint_suggest(a, key, all->v, all->n, true);
	return instr_fail(e, "unexpected key '%s' in '%s'%s", key, field, lint_mean(a, "", match));
}

static int key_set(struct mount_parse *p, const char *field, const char *key, const char *value)
{
	struct ast_strs all = {0};
	for (size_t i = 0; i < array_len(mount_keys); i++) {
		ast_strs_add(p->a, &all, mount_keys[i].key);
		if (strcmp(key, mount_keys[i].key)) continue;
		if (!value && !mount_keys[i].alone) break;
		return mount_keys[i].fn(p, key, value);
	}
	if (!value) return instr_fail(p->e, "invalid field '%s' must be a key=value pair", field);
	return unknown_key(p->a, key, field, &all, p->e);
}

static int field_parse(struct mount_parse *p, const char *field, instr_expand_fn *fn, void *arg)
{
	const char *eq = strchr(field, '=');
	const char *key = rune_lower(p->a, eq ? arena_strndup(p->a, field, (size_t)(eq - field)) : field);
	if (fn) {
		const char *value = NULL;
		if (eq && fn(arg, eq + 1, &value, p->e) < 0) return -1;
		return key_set(p, field, key, value);
	}
	if (!eq || strcmp(key, "from")) return 0; /* later */
	const char *dollar = strchr(eq + 1, '$');
	if (dollar && dollar[1])
		return instr_fail(p->e, "'%s' doesn't support variable expansion, define alias stage instead", key);
	p->m.from = eq + 1;
	return 0;
}

static int mount_check(struct mount_parse *p)
{
	const struct instr_mount *m = &p->m;
	bool owned = m->type == INSTR_SECRET || m->type == INSTR_SSH || m->type == INSTR_CACHE;
	const char *what = m->has_mode ? "mode" : m->has_uid ? "uid" : m->has_gid ? "gid" : NULL;
	if (!owned && what) return instr_fail(p->e, "%s not allowed for \"%s\" type mounts", what, mount_types[m->type]);
	if (m->type == INSTR_SECRET) {
		if (*m->from) return instr_fail(p->e, "secret mount should not have a from");
		if (m->sharing) return instr_fail(p->e, "secret mount should not define sharing");
		if (!*m->source && !*m->target && !*m->id)
			return instr_fail(p->e, "invalid secret mount. one of source, target required");
		if (*m->source && *m->id) return instr_fail(p->e, "both source and id can't be set");
	}
	if (m->sharing && m->type != INSTR_CACHE)
		return instr_fail(p->e, "invalid cache sharing set for %s mount", mount_types[m->type]);
	return 0;
}

int instr_mount_parse(struct arena *a, const char *text, instr_expand_fn *fn, void *arg, struct instr_mount *ret, struct err *e)
{
	struct ast_strs fields = {0};
	struct mount_parse p = {.a = a, .e = e, .m = {.from = "", .source = "", .target = "", .id = ""}};
	if (instr_csv(a, text, &fields, e) < 0) return err_wrap(e, "failed to parse csv mounts");
	for (size_t i = 0; i < fields.n; i++)
		if (field_parse(&p, fields.v[i], fn, arg) < 0) return -1;
	if (!p.ro_said) p.m.readonly = p.m.type != INSTR_CACHE && p.m.type != INSTR_TMPFS;
	if (mount_check(&p) < 0) return -1;
	*ret = p.m;
	return 0;
}

/* ---- devices ---- */

static int device_field(struct arena *a, struct instr_device *d, const char *field, struct err *e)
{
	static const char *const keys[] = {"name", "required"};
	const char *eq = strchr(field, '=');
	const char *key = rune_lower(a, eq ? arena_strndup(a, field, (size_t)(eq - field)) : field);
	bool named = d->name && *d->name;
	if (!strcmp(key, "required")) {
		d->required = true;
		if (eq && !str_bool(eq + 1, &d->required)) return instr_fail(e, "invalid value for %s: %s", key, eq + 1);
	} else if (eq && !strcmp(key, "name")) {
		if (named) return instr_fail(e, "device name already set to %s", d->name);
		d->name = eq + 1;
	} else if (!named) {
		d->name = field;
	} else if (!eq) {
		return instr_fail(e, "invalid field '%s' must be a key=value pair", field);
	} else {
		struct ast_strs all = {(const char **)keys, array_len(keys)};
		return unknown_key(a, key, field, &all, e);
	}
	return 0;
}

int instr_device_parse(struct arena *a, const char *text, struct instr_device *ret, struct err *e)
{
	struct ast_strs fields = {0};
	struct instr_device d = {.name = ""};
	if (instr_csv(a, text, &fields, e) < 0) return err_wrap(e, "failed to parse csv devices");
	for (size_t i = 0; i < fields.n; i++)
		if (device_field(a, &d, fields.v[i], e) < 0) return -1;
	*ret = d;
	return 0;
}

/* ---- the instruction ---- */

static int mounts_parse(struct arena *a, struct instr_run *run, struct err *e)
{
	run->n_mounts = run->mount_flags.n;
	run->mounts = arena_alloc(a, run->n_mounts * sizeof *run->mounts);
	for (size_t i = 0; i < run->n_mounts; i++)
		if (instr_mount_parse(a, run->mount_flags.v[i], NULL, NULL, &run->mounts[i], e) < 0) return -1;
	return 0;
}

static int devices_parse(struct arena *a, struct instr_run *run, const struct ast_strs *flags, struct err *e)
{
	run->n_devices = flags->n;
	run->devices = arena_alloc(a, flags->n * sizeof *run->devices);
	for (size_t i = 0; i < flags->n; i++)
		if (instr_device_parse(a, flags->v[i], &run->devices[i], e) < 0) return -1;
	return 0;
}

int instr_parse_run(const struct instr_req *q, struct instr *ret, struct err *e)
{
	enum { DEVICE, MOUNT, NETWORK, SECURITY, N };
	static const char *const networks[] = {"default", "none", "host"}, *const securities[] = {"sandbox", "insecure"};
	struct instr_flag f[N] = {[DEVICE] = {"device", FLAG_STRINGS},
				  [MOUNT] = {"mount", FLAG_STRINGS},
				  [NETWORK] = {"network", FLAG_STRING, "default"},
				  [SECURITY] = {"security", FLAG_STRING, "sandbox"}};
	struct instr_run *run = &ret->run;
	if (instr_flags_parse(q->a, &q->node->flags, f, N, &run->flags_used, e) < 0) return -1;
	instr_parse_line(q, &run->line);
	if (devices_parse(q->a, run, &f[DEVICE].values, e) < 0) return -1;
	run->mount_flags = f[MOUNT].values;
	if (mounts_parse(q->a, run, e) < 0) return -1;
	run->network = f[NETWORK].value;
	if (index_of(networks, array_len(networks), run->network) < 0)
		return instr_fail(e, "invalid network mode %s", rune_quote(q->a, run->network));
	run->security = f[SECURITY].value;
	if (index_of(securities, array_len(securities), run->security) < 0)
		return instr_fail(e, "security %s is not valid", rune_quote(q->a, run->security));
	return 0;
}
