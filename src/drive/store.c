/* Files of buildx, read and written. JSON members are written in the order and with the nulls that Go writes, so that a file
 * that both programs touch does not change for nothing. What a file holds beyond what we know is not kept: buildx does not
 * either. */
#include "drive/store.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/file.h>

#include "spec/platform.h"

enum { FILE_MAX = 16 << 20, FILES_MAX = 4096 };

void drive_node_fini(struct drive_node *n)
{
	free(take_ptr(n->name));
	free(take_ptr(n->endpoint));
	strvec_fini(&n->platforms);
	strvec_fini(&n->opts);
	strvec_fini(&n->flags);
	for (size_t i = 0; i < n->files.n; i++) {
		free(n->files.v[i].path);
		free(n->files.v[i].data);
	}
	vec_fini(&n->files);
}

void drive_builder_fini(struct drive_builder *b)
{
	free(take_ptr(b->name));
	free(take_ptr(b->driver));
	for (size_t i = 0; i < b->nodes.n; i++) drive_node_fini(&b->nodes.v[i]);
	vec_fini(&b->nodes);
}

ptrdiff_t drive_builder_node(const struct drive_builder *b, const char *name)
{
	for (size_t i = 0; i < b->nodes.n; i++)
		if (!strcmp(b->nodes.v[i].name, name)) return (ptrdiff_t)i;
	return -1;
}

int drive_name(const char *s, char **ret, struct err *e)
{
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_");
	if (!isalpha((unsigned char)*s) || s[n])
		return err_set(e, CODE_INVALID_ARGUMENT,
			       "invalid name %s, name needs to start with a letter and may not contain symbols, except ._-", s);
	*ret = xstrdup(s);
	for (char *p = *ret; *p; p++) *p = (char)tolower((unsigned char)*p);
	return 0;
}

/* ---- places ---- */

char *drive_store_dir(void)
{
	const char *own = getenv("BUILDX_CONFIG"), *docker = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
	if (!str_empty(own)) return xstrdup(own);
	return !str_empty(docker) ? xasprintf("%s/buildx", docker) : xasprintf("%s/.docker/buildx", home ? home : "");
}

static char *place(const char *folder, const char *name)
{
	_cleanup_free_ char *dir = drive_store_dir();
	return xasprintf("%s/%s%s%s", dir, folder, name ? "/" : "", name ? name : "");
}

int drive_store_lock(struct drive_lock *ret, struct err *e)
{
	static const char *const folders[] = {"instances", "defaults", "activity"};
	for (size_t i = 0; i < array_len(folders); i++) {
		_cleanup_free_ char *path = place(folders[i], NULL);
		if (path_mkdirs(path, 0700, e) < 0) return -1;
	}
	_cleanup_free_ char *path = place(".lock", NULL);
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0) return err_sys(e, errno, "open %s", path);
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR) return err_sys(e, errno, "lock %s", path);
	ret->fd = take_fd(fd);
	return 0;
}

void drive_store_unlock(struct drive_lock *l)
{
	close_fd(&l->fd);
	l->fd = -1;
}

static json_t *read_json(const char *path, struct err *e)
{
	_cleanup_free_ uint8_t *p = NULL;
	size_t n;
	json_error_t why;
	if (path_read_file(AT_FDCWD, path, FILE_MAX, &p, &n, e) < 0) return NULL;
	json_t *o = json_loadb((const char *)p, n, 0, &why);
	if (!o) err_set(e, CODE_UNKNOWN, "%s:%d:%d: %s", path, why.line, why.column, why.text);
	return o;
}

/* ---- a builder as JSON ---- */

static char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return xstrdup(s ? s : "");
}

static void read_platform(struct drive_node *n, const json_t *o)
{
	_cleanup_free_ char *os = text(o, "os"), *arch = text(o, "architecture"), *variant = text(o, "variant");
	strvec_addf(&n->platforms, "%s/%s%s%s", os, arch, *variant ? "/" : "", variant);
}

static int read_file(struct drive_node *n, const char *path, const json_t *value, struct err *e)
{
	const char *s = json_string_value(value);
	_cleanup_buf_ struct buf b = BUF_MAX(FILE_MAX);
	if (base64_decode(s ? s : "", s ? strlen(s) : 0, &b, e) < 0) return err_wrap(e, "file %s of node %s", path, n->name);
	struct drive_file *f = vec_add(&n->files);
	f->path = xstrdup(path);
	f->n = b.n;
	f->data = xmemdup(buf_str(&b), b.n + 1);
	return 0;
}

static int read_node(struct drive_node *n, json_t *o, struct err *e)
{
	size_t i;
	const char *key;
	json_t *v;
	n->name = text(o, "Name");
	n->endpoint = text(o, "Endpoint");
	json_array_foreach(json_object_get(o, "Platforms"), i, v) read_platform(n, v);
	json_object_foreach(json_object_get(o, "DriverOpts"), key, v) if (json_is_string(v))
		strvec_addf(&n->opts, "%s=%s", key, json_string_value(v));
	json_array_foreach(json_object_get(o, "Flags"), i, v) if (json_is_string(v))
		strvec_add(&n->flags, json_string_value(v));
	json_object_foreach(json_object_get(o, "Files"), key, v) if (read_file(n, key, v, e) < 0) return -1;
	return 0;
}

static json_t *put_platforms(const struct drive_node *n)
{
	if (!n->platforms.n) return json_null();
	json_t *list = json_array();
	for (size_t i = 0; i < n->platforms.n; i++) {
		struct spec_platform p;
		if (spec_platform_parse_normal(n->platforms.v[i], &p, NULL) < 0) continue;
		json_t *o = json_pack("{s:s,s:s}", "architecture", p.arch, "os", p.os);
		if (!str_empty(p.variant)) json_object_set_new(o, "variant", json_string(p.variant));
		json_array_append_new(list, o);
		spec_platform_fini(&p);
	}
	return list;
}

static json_t *put_node(const struct drive_node *n)
{
	json_t *opts = n->opts.n ? json_object() : json_null(), *flags = n->flags.n ? json_array() : json_null(),
	       *files = n->files.n ? json_object() : json_null();
	for (size_t i = 0; i < n->opts.n; i++) {
		const char *eq = strchr(n->opts.v[i], '=');
		_cleanup_free_ char *key = xstrndup(n->opts.v[i], eq ? (size_t)(eq - n->opts.v[i]) : strlen(n->opts.v[i]));
		json_object_set_new(opts, key, json_string(eq ? eq + 1 : ""));
	}
	for (size_t i = 0; i < n->flags.n; i++) json_array_append_new(flags, json_string(n->flags.v[i]));
	for (size_t i = 0; i < n->files.n; i++) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		base64_encode(&b, n->files.v[i].data, n->files.v[i].n);
		json_object_set_new(files, n->files.v[i].path, json_string(buf_str(&b)));
	}
	return json_pack("{s:s,s:s,s:o,s:o,s:o,s:o}", "Name", n->name, "Endpoint", n->endpoint, "Platforms", put_platforms(n),
			 "DriverOpts", opts, "Flags", flags, "Files", files);
}

int drive_store_load(const char *name, struct drive_builder *ret, struct err *e)
{
	_cleanup_free_ char *low = NULL;
	if (drive_name(name, &low, e) < 0) return -1;
	_cleanup_free_ char *path = place("instances", low);
	json_t *o = read_json(path, e), *v;
	if (!o) return -1;
	struct drive_builder b = {
		.name = text(o, "Name"), .driver = text(o, "Driver"), .dynamic = json_is_true(json_object_get(o, "Dynamic"))};
	size_t i;
	int rv = 0;
	json_array_foreach(json_object_get(o, "Nodes"), i, v) if (rv == 0) rv = read_node(vec_add(&b.nodes), v, e);
	json_decref(o);
	if (rv == 0)
		*ret = b;
	else
		drive_builder_fini(&b);
	return rv < 0 ? err_wrap(e, "builder %s", name) : 0;
}

static int write_json(const char *path, json_t *o, struct err *e)
{
	_cleanup_free_ char *s = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	return path_write_file(AT_FDCWD, path, s, strlen(s), 0600, false, e);
}

int drive_store_save(const struct drive_builder *b, struct err *e)
{
	_cleanup_free_ char *low = NULL;
	if (drive_name(b->name, &low, e) < 0) return -1;
	_cleanup_free_ char *path = place("instances", low);
	json_t *nodes = b->nodes.n ? json_array() : json_null();
	for (size_t i = 0; i < b->nodes.n; i++) json_array_append_new(nodes, put_node(&b->nodes.v[i]));
	drive_store_used(low);
	return write_json(
		path,
		json_pack("{s:s,s:s,s:o,s:b}", "Name", b->name, "Driver", b->driver, "Nodes", nodes, "Dynamic", b->dynamic), e);
}

int drive_store_remove(const char *name, struct err *e)
{
	static const char *const folders[] = {"activity", "refs", "instances"};
	_cleanup_free_ char *low = NULL;
	if (drive_name(name, &low, e) < 0) return -1;
	for (size_t i = 0; i < array_len(folders); i++) {
		_cleanup_free_ char *path = place(folders[i], low);
		if (path_remove_all(AT_FDCWD, path, e) < 0) return -1;
	}
	return 0;
}

void drive_store_names(struct strvec *ret)
{
	_cleanup_free_ char *path = place("instances", NULL);
	DIR *d = opendir(path);
	for (struct dirent *de; d && (de = readdir(d)) && ret->n < FILES_MAX;) {
		_cleanup_free_ char *low = NULL;
		if (drive_name(de->d_name, &low, NULL) == 0 && !strcmp(low, de->d_name)) strvec_add(ret, low);
	}
	if (d) closedir(d);
	strvec_sort(ret);
}

/* ---- when, and which ---- */

void drive_store_used(const char *name)
{
	_cleanup_free_ char *path = place("activity", name);
	char s[TIME_STR];
	struct timespec now = time_now();
	now.tv_nsec = 0;
	time_rfc3339nano(now, s);
	path_write_file(AT_FDCWD, path, s, strlen(s), 0600, false, NULL);
}

static char *read_word(const char *path)
{
	_cleanup_free_ uint8_t *p = NULL;
	size_t n;
	return path_read_file(AT_FDCWD, path, 4096, &p, &n, NULL) < 0 || !n ? NULL : xstrndup((const char *)p, n);
}

char *drive_store_activity(const char *name)
{
	_cleanup_free_ char *path = place("activity", name);
	return read_word(path);
}

static char *default_path(const char *key)
{
	char hex[65];
	struct digest d = digest_of(key, strlen(key));
	digest_hex(&d, hex);
	hex[20] = 0;
	return place("defaults", hex);
}

static bool there_is(const char *name)
{
	_cleanup_free_ char *path = place("instances", name);
	return access(path, F_OK) == 0;
}

char *drive_store_current(const char *key)
{
	_cleanup_free_ char *path = place("current", NULL), *other = default_path(key);
	json_t *o = read_json(path, NULL);
	_cleanup_free_ char *name = text(o, "Name"), *of = text(o, "Key");
	bool counts = *name && (json_is_true(json_object_get(o, "Global")) || !strcmp(of, key));
	json_decref(o);
	if (counts) return there_is(name) ? take_ptr(name) : NULL;
	char *by_default = read_word(other);
	if (by_default && there_is(by_default)) return by_default;
	free(by_default);
	return NULL;
}

int drive_store_choose(const char *key, const char *name, bool global, bool as_default, struct err *e)
{
	_cleanup_free_ char *path = place("current", NULL), *other = default_path(key);
	if (write_json(path, json_pack("{s:s,s:s,s:b}", "Key", key, "Name", name, "Global", global), e) < 0) return -1;
	if (as_default) return path_write_file(AT_FDCWD, other, name, strlen(name), 0600, false, e);
	unlink(other);
	return 0;
}

char *drive_store_new_name(void)
{
	static const char *const how[] = {"able",  "bold",   "brave", "calm", "clear", "eager", "fair",
					  "fast",  "firm",   "fresh", "keen", "quick", "quiet", "ready",
					  "sharp", "steady", "stout", "sure", "swift", "trim"};
	static const char *const what[] = {"anchor", "beacon", "bow",   "cleat", "dock", "gaff",  "halyard",
					   "harbor", "hull",   "jetty", "keel",  "mast", "oar",   "pier",
					   "pilot",  "rudder", "sail",  "sloop", "spar", "tiller"};
	for (;;) {
		char id[ID_STR];
		id_new(id);
		unsigned a = 0, b = 0;
		for (int i = 0; i < 12; i++) a = a * 37 + (unsigned char)id[i], b = b * 41 + (unsigned char)id[12 + i];
		char *name = xasprintf("%s_%s", how[a % array_len(how)], what[b % array_len(what)]);
		if (!there_is(name)) return name;
		free(name);
	}
}
