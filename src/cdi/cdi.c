/* The registry: folders -> devices by name. What it has read is replaced as a whole when the folders look different. */
#include "cdi/cdi.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { FILES_MAX = 256, FILE_MAX_BYTES = 4 << 20 };

struct entry {
	const struct cdi_device *device;
	bool allowed;
	size_t folder;
	bool conflict;
};
struct cdi {
	struct strvec dirs, auto_allowed;
	VEC(struct cdi_spec *) specs;
	VEC(struct cdi_device) devices; /* by name; strings and edits are the specs' */
	struct digest seen;
	bool looked;
};

struct cdi *cdi_new(char *const *dirs, size_t n_dirs, char *const *auto_allowed, size_t n_auto_allowed)
{
	struct cdi *c = xnew(struct cdi);
	strvec_copy(&c->dirs, dirs, n_dirs);
	strvec_copy(&c->auto_allowed, auto_allowed, n_auto_allowed);
	return c;
}

static void forget(struct cdi *c)
{
	for (size_t i = 0; i < c->specs.n; i++) cdi_spec_free(c->specs.v[i]);
	vec_fini(&c->specs);
	vec_fini(&c->devices);
}

void cdi_free(struct cdi *c)
{
	if (!c) return;
	forget(c);
	strvec_fini(&c->dirs);
	strvec_fini(&c->auto_allowed);
	free(c);
}

/* ---- reading ---- */

static bool is_spec(const char *name) { return *name != '.' && (str_ends(name, ".json") || str_ends(name, ".yaml")); }

static void list_folder(const char *dir, struct strvec *ret)
{
	DIR *d = opendir(dir);
	const struct dirent *de;
	while (d && (de = readdir(d)) && ret->n < FILES_MAX)
		if (is_spec(de->d_name)) strvec_add(ret, de->d_name);
	if (d) closedir(d);
	strvec_sort(ret);
}

/* Names, sizes and times of all files. */
static struct digest fingerprint(const struct cdi *c)
{
	struct digest ret;
	struct hasher h;
	hasher_init(&h);
	for (size_t i = 0; i < c->dirs.n; i++) {
		_cleanup_strvec_ struct strvec files = {0};
		list_folder(c->dirs.v[i], &files);
		for (size_t k = 0; k < files.n; k++) {
			_cleanup_free_ char *path = xasprintf("%s/%s", c->dirs.v[i], files.v[k]);
			struct stat st;
			if (stat(path, &st) < 0) continue;
			int64_t facts[] = {(int64_t)st.st_ino, st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec};
			hasher_update(&h, path, strlen(path) + 1);
			hasher_update(&h, facts, sizeof facts);
		}
	}
	hasher_final(&h, &ret);
	return ret;
}

static bool allowed(const struct cdi *c, const struct cdi_device *d, const char *kind)
{
	return d->auto_allow || strvec_find(&c->auto_allowed, d->name) >= 0 || strvec_find(&c->auto_allowed, kind) >= 0;
}

struct found {
	VEC(struct entry) v;
};

static void add(struct found *f, const struct cdi_device *d, bool allow, size_t folder)
{
	for (size_t i = 0; i < f->v.n; i++) {
		struct entry *x = &f->v.v[i];
		if (strcmp(x->device->name, d->name)) continue;
		if (x->folder == folder) {
			if (!x->conflict) log_warn("CDI: device %s is in two files of one folder: it is not offered", d->name);
			x->conflict = true;
		} else {
			*x = (struct entry){d, allow, folder, false};
		}
		return;
	}
	vec_push(&f->v, ((struct entry){d, allow, folder, false}));
}

static void read_file(struct cdi *c, struct found *f, size_t folder, const char *name)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", c->dirs.v[folder], name);
	_cleanup_free_ uint8_t *p = NULL;
	_cleanup_err_ struct err e = ERR_INIT;
	struct cdi_spec *s = NULL;
	size_t n = 0;
	if (path_read_file(AT_FDCWD, path, FILE_MAX_BYTES, &p, &n, &e) < 0 ||
	    cdi_spec_parse((const char *)p, n, str_ends(name, ".yaml"), &s, &e) < 0) {
		log_warn("CDI: %s offers no devices: %s", path, e.msg);
		return;
	}
	vec_push(&c->specs, s);
	for (size_t i = 0; i < s->devices.n; i++) add(f, &s->devices.v[i], allowed(c, &s->devices.v[i], s->kind), folder);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct cdi_device *)a)->name, ((const struct cdi_device *)b)->name);
}

void cdi_look(struct cdi *c)
{
	if (!c) return;
	struct digest now = fingerprint(c);
	if (c->looked && digest_eq(&now, &c->seen)) return;
	struct found f = {0};
	forget(c);
	for (size_t i = 0; i < c->dirs.n; i++) {
		_cleanup_strvec_ struct strvec files = {0};
		list_folder(c->dirs.v[i], &files);
		for (size_t k = 0; k < files.n; k++) read_file(c, &f, i, files.v[k]);
	}
	for (size_t i = 0; i < f.v.n; i++) {
		if (f.v.v[i].conflict) continue;
		struct cdi_device d = *f.v.v[i].device;
		d.auto_allow = f.v.v[i].allowed;
		vec_push(&c->devices, d);
	}
	vec_fini(&f.v);
	if (c->devices.n) qsort(c->devices.v, c->devices.n, sizeof *c->devices.v, by_name);
	c->seen = now;
	c->looked = true;
}

/* ---- asking ---- */

size_t cdi_count(const struct cdi *c) { return c ? c->devices.n : 0; }
const struct cdi_device *cdi_at(const struct cdi *c, size_t i) { return &c->devices.v[i]; }

const struct cdi_device *cdi_get(const struct cdi *c, const char *name)
{
	for (size_t i = 0; i < cdi_count(c); i++)
		if (!strcmp(c->devices.v[i].name, name)) return &c->devices.v[i];
	return NULL;
}

static void add_name(struct strvec *ret, const char *name)
{
	if (strvec_find(ret, name) < 0) strvec_add(ret, name);
}

/* How many there are, new or not. */
static size_t of_kind(const struct cdi *c, const char *request, size_t kind, struct strvec *ret)
{
	const char *name = request[kind] ? request + kind + 1 : "";
	bool first = !*name, all = !strcmp(name, "*");
	size_t n = 0;
	for (size_t i = 0; i < cdi_count(c) && !(first && n); i++) {
		const char *have = c->devices.v[i].name;
		if (strncmp(have, request, kind) || have[kind] != '=') continue;
		if (!first && !all && strcmp(have, request)) continue;
		add_name(ret, have);
		n++;
	}
	return n;
}

static size_t of_class(const struct cdi *c, const char *class_, struct strvec *ret)
{
	size_t n = 0;
	for (size_t i = 0; i < cdi_count(c); i++) {
		const char *is = strvec_env_get(&c->devices.v[i].annotations, "org.mobyproject.buildkit.device.class");
		if (!str_eq(is, class_)) continue;
		add_name(ret, c->devices.v[i].name);
		n++;
	}
	return n;
}

int cdi_resolve(const struct cdi *c, const char *request, bool optional, struct strvec *ret, struct err *e)
{
	size_t kind = strcspn(request, "=");
	const char *slash = memchr(request, '/', kind);
	bool qualified = slash && slash > request && slash + 1 < request + kind;
	if ((qualified && of_kind(c, request, kind, ret)) || of_class(c, request, ret)) return 0;
	if (!optional) return err_set(e, CODE_UNKNOWN, "required device \"%s\" is not registered", request);
	log_debug("optional device \"%s\" is not registered", request);
	return 0;
}
