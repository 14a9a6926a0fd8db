/* Builders as buildx keeps them ($BUILDX_CONFIG or ~/.docker/buildx): instances/NAME is JSON with a driver and nodes, `current`
 * names the chosen one. We read them, so that what `docker buildx create` made works here; only one node of each is used. */
#include "cli/builder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define BAD(...) err_set(e, CODE_UNKNOWN, __VA_ARGS__)
enum { INSTANCE_MAX = 4 << 20 };

void builder_fini(struct builder *b)
{
	for (char **const *p = (char **const[]){&b->name, &b->driver, &b->node, &b->addr, &b->ca, &b->cert, &b->key,
						&b->server_name, &b->status, NULL};
	     *p; p++)
		free(take_ptr(**p));
}

static char *config_dir(void)
{
	const char *own = getenv("BUILDX_CONFIG"), *docker = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
	if (!str_empty(own)) return xstrdup(own);
	if (!str_empty(docker)) return xasprintf("%s/buildx", docker);
	return xasprintf("%s/.docker/buildx", home ? home : "");
}

static json_t *read_json(const char *path, struct err *e)
{
	_cleanup_free_ uint8_t *p = NULL;
	size_t n;
	if (path_read_file(AT_FDCWD, path, INSTANCE_MAX, &p, &n, e) < 0) return NULL;
	json_t *o = json_loadb((const char *)p, n, 0, NULL);
	if (!o) err_set(e, CODE_UNKNOWN, "%s is not JSON", path);
	return o;
}

static const char *text(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? s : "";
}

static char *opt(json_t *node, const char *key)
{
	const char *s = text(json_object_get(node, "DriverOpts"), key);
	return *s ? xstrdup(s) : NULL;
}

static void set(struct builder *b, const char *name, const char *driver, const char *node, const char *addr)
{
	*b = (struct builder){.name = xstrdup(name), .driver = xstrdup(driver), .node = xstrdup(node), .addr = xstrdup(addr)};
}

static void from_instance(json_t *o, const char *name, struct builder *ret)
{
	const char *driver = text(o, "Driver");
	json_t *node = json_array_get(json_object_get(o, "Nodes"), 0);
	const char *node_name = text(node, "Name"), *endpoint = text(node, "Endpoint");
	set(ret, name, driver, node_name, endpoint);
	if (strcmp(driver, "remote") == 0) {
		ret->ca = opt(node, "cacert");
		ret->cert = opt(node, "cert");
		ret->key = opt(node, "key");
		ret->server_name = opt(node, "servername");
	} else if (strcmp(driver, "docker-container") == 0) {
		free(ret->addr);
		bool context = *endpoint && !strstr(endpoint, "://");
		ret->addr = xasprintf("docker-container://buildx_buildkit_%s%s%s", node_name, context ? "?context=" : "",
				      context ? endpoint : "");
	} else {
		ret->status = xasprintf("the driver \"%s\" of builder %s is not supported by this client; use docker buildx, "
					"or give --builder an address",
					driver, name);
	}
	if (!node) ret->status = xasprintf("builder %s has no nodes", name);
}

static bool name_ok(const char *s)
{
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_");
	return *s && !s[n] && *s != '.' && *s != '-';
}

static int load_instance(const char *name, struct builder *ret, struct err *e)
{
	_cleanup_free_ char *dir = config_dir(), *path = xasprintf("%s/instances/%s", dir, name);
	_cleanup_err_ struct err why = ERR_INIT;
	if (!name_ok(name)) return BAD("invalid builder name \"%s\"", name);
	json_t *o = read_json(path, &why);
	if (!o && why.code == CODE_NOT_FOUND) return BAD("no builder \"%s\" found", name);
	if (!o) return err_move(e, &why);
	from_instance(o, name, ret);
	json_decref(o);
	return 0;
}

static bool answers(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof sa.sun_path) return false;
	memcpy(sa.sun_path, path, strlen(path));
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0;
}

static bool from_socket(struct builder *ret)
{
	const char *run = getenv("XDG_RUNTIME_DIR");
	static const char *const names[] = {"slipway/slipwayd.sock", "buildkit/buildkitd.sock"};
	for (int own = geteuid() != 0 && !str_empty(run); own >= 0; own--)
		for (size_t i = 0; i < array_len(names); i++) {
			_cleanup_free_ char *path = xasprintf("%s/%s", own ? run : "/run", names[i]),
					    *addr = xasprintf("unix://%s", path);
			if (!answers(path)) continue;
			set(ret, "default", "remote", "default", addr);
			return true;
		}
	return false;
}

static bool from_current(struct builder *ret)
{
	_cleanup_free_ char *dir = config_dir(), *path = xasprintf("%s/current", dir);
	json_t *o = read_json(path, NULL);
	const char *name = text(o, "Name");
	bool found = *name && strcmp(name, "default") != 0 && load_instance(name, ret, NULL) == 0;
	json_decref(o);
	return found;
}

int builder_find(struct cli *c, struct args *a, struct builder *ret, struct err *e)
{
	const char *name = args_str(a, "builder"), *host = getenv("BUILDKIT_HOST");
	if (strstr(name, "://")) {
		set(ret, "default", "remote", "default", name);
		return 0;
	}
	if (*name && strcmp(name, "default") != 0) return load_instance(name, ret, e);
	if (!str_empty(host)) {
		set(ret, "default", "remote", "default", host);
		return 0;
	}
	if (c->plugin && !*name && from_current(ret)) return 0;
	if (!from_socket(ret)) set(ret, "default", "embedded", "default", "");
	return 0;
}

int builder_connect(struct cli *c, struct builder *b, struct err *e)
{
	if (b->status) return BAD("%s", b->status);
	if (!*b->addr) {
		free(take_ptr(b->addr));
		if (cli_embedded(c, &b->addr, e) < 0) {
			b->addr = xstrdup("");
			return -1;
		}
	}
	struct wire_tls tls = {.ca = b->ca, .cert = b->cert, .key = b->key, .server_name = b->server_name};
	bool secure = b->ca || b->cert || b->key;
	if (cli_dial(c, b->addr, secure ? &tls : NULL, 0, e) == 0) return 0;
	cli_error_plain(e);
	return err_wrap(e, "builder %s (%s)", b->name, b->addr);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct builder *)a)->name, ((const struct builder *)b)->name);
}

int builder_list(struct cli *c, struct args *a, struct builders *ret, struct err *e)
{
	_cleanup_free_ char *dir = config_dir(), *path = xasprintf("%s/instances", dir);
	struct builder first = {0};
	if (builder_find(c, a, &first, e) < 0) return -1;
	vec_push(ret, first);
	DIR *d = opendir(path);
	for (struct dirent *de; d && (de = readdir(d));) {
		struct builder b = {0};
		if (strcmp(de->d_name, first.name) == 0 || !name_ok(de->d_name) || load_instance(de->d_name, &b, NULL) < 0)
			continue;
		vec_push(ret, b);
	}
	if (d) closedir(d);
	if (ret->n > 2) qsort(ret->v + 1, ret->n - 1, sizeof *ret->v, by_name);
	return 0;
}

char *builder_node_id(void)
{
	_cleanup_free_ char *dir = config_dir(), *path = xasprintf("%s/.buildNodeID", dir);
	_cleanup_free_ uint8_t *p = NULL;
	size_t n;
	char id[ID_STR], hex[17];
	if (path_read_file(AT_FDCWD, path, 64, &p, &n, NULL) == 0 && n >= 16) return xstrndup((const char *)p, 16);
	id_new(id);
	hex_encode(id, 8, hex);
	if (path_mkdirs(dir, 0700, NULL) == 0) path_write_file(AT_FDCWD, path, hex, 16, 0600, false, NULL);
	return xstrdup(hex);
}
