/* Builders as buildx keeps them (drive/store.h), so that what `docker buildx create` made works here and the other way round.
 * Of a builder of several nodes the first is used. */
#include "cli/builder.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "cli/boot.h"

#define BAD(...) err_set(e, CODE_UNKNOWN, __VA_ARGS__)

void builder_fini(struct builder *b)
{
	for (char **const *p = (char **const[]){&b->name, &b->driver, &b->node, &b->addr, &b->ca, &b->cert, &b->key,
						&b->server_name, &b->status, NULL};
	     *p; p++)
		free(take_ptr(**p));
	drive_builder_fini(&b->stored);
}

static char *opt(const struct drive_node *n, const char *key)
{
	const char *s = strvec_env_get(&n->opts, key);
	return str_empty(s) ? NULL : xstrdup(s);
}

static void set(struct builder *b, const char *name, const char *driver, const char *node, const char *addr)
{
	*b = (struct builder){.name = xstrdup(name), .driver = xstrdup(driver), .node = xstrdup(node), .addr = xstrdup(addr)};
}

void builder_of_node(const struct drive_builder *stored, const struct drive_node *n, struct builder *ret)
{
	set(ret, stored->name, stored->driver, n ? n->name : "", n ? n->endpoint : "");
	if (!n)
		ret->status = xasprintf("builder %s has no nodes", stored->name);
	else if (!strcmp(stored->driver, "remote")) {
		ret->ca = opt(n, "cacert");
		ret->cert = opt(n, "cert");
		ret->key = opt(n, "key");
		ret->server_name = opt(n, "servername");
	} else if (strcmp(stored->driver, "docker-container") != 0) {
		ret->status =
			xasprintf("the driver \"%s\" of builder %s is not supported by this client yet; use docker buildx, "
				  "or give --builder an address",
				  stored->driver, stored->name);
	}
}

static int load_stored(const char *name, struct builder *ret, struct err *e)
{
	_cleanup_err_ struct err why = ERR_INIT;
	struct drive_builder stored = {0};
	if (drive_store_load(name, &stored, &why) < 0) {
		if (why.code == CODE_NOT_FOUND) return BAD("no builder \"%s\" found", name);
		return err_move(e, &why);
	}
	builder_of_node(&stored, stored.nodes.n ? &stored.nodes.v[0] : NULL, ret);
	ret->stored = stored;
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
	struct drive_engine at = {0};
	bool found = false;
	if (drive_engine_find(NULL, &at, NULL) < 0) return false;
	_cleanup_free_ char *name = drive_store_current(drive_engine_key(&at));
	if (name) found = load_stored(name, ret, NULL) == 0;
	drive_engine_fini(&at);
	return found;
}

int builder_find(struct cli *c, struct args *a, struct builder *ret, struct err *e)
{
	const char *name = args_str(a, "builder"), *host = getenv("BUILDKIT_HOST");
	if (strstr(name, "://")) {
		set(ret, "default", "remote", "default", name);
		return 0;
	}
	if (*name && strcmp(name, "default") != 0) return load_stored(name, ret, e);
	if (!str_empty(host)) {
		set(ret, "default", "remote", "default", host);
		return 0;
	}
	if (!*name && from_current(ret)) return 0;
	if (!from_socket(ret)) set(ret, "default", "embedded", "default", "");
	return 0;
}

static int connect_container(struct cli *c, const struct builder *b, struct progress *p, struct err *e)
{
	const struct drive_node *n = &b->stored.nodes.v[0];
	enum drive_state state;
	struct drive_exec *x;
	if (drive_container_state(n, &state, e) < 0) return -1;
	if (state != DRIVE_RUNNING && !p) return BAD("the builder is %s", drive_state_names[state]);
	if (state != DRIVE_RUNNING && boot_container(p, n, e) < 0) return -1;
	return drive_container_dial(n, &x, e) < 0 ? -1 : cli_dial_exec(c, x, e);
}

int builder_connect(struct cli *c, struct builder *b, struct progress *p, struct err *e)
{
	if (b->status) return BAD("%s", b->status);
	if (b->stored.name) drive_store_used(b->stored.name);
	if (!strcmp(b->driver, "docker-container"))
		return connect_container(c, b, p, e) < 0 ? err_wrap(e, "builder %s", b->name) : 0;
	if (!*b->addr) {
		free(take_ptr(b->addr));
		if (cli_embedded(c, &b->addr, e) < 0) {
			b->addr = xstrdup("");
			return -1;
		}
	}
	struct wire_tls tls = {.ca = b->ca, .cert = b->cert, .key = b->key, .server_name = b->server_name};
	bool secure = b->ca || b->cert || b->key;
	if (cli_dial(c, b->addr, secure ? &tls : NULL, c->timeout_ms, e) == 0) return 0;
	cli_error_plain(e);
	return err_wrap(e, "builder %s (%s)", b->name, b->addr);
}

int builder_timeout(struct cli *c, const struct args *a, struct err *e)
{
	int64_t ns;
	if (duration_parse(args_str(a, "timeout"), &ns, e) < 0) return err_wrap(e, "--timeout");
	c->timeout_ms = ns > 0 ? (uint64_t)max_of(ns / 1000000, (int64_t)1) : 0;
	return 0;
}

int builder_list(struct cli *c, struct args *a, struct builders *ret, struct err *e)
{
	_cleanup_strvec_ struct strvec names = {0};
	struct builder first = {0};
	if (builder_find(c, a, &first, e) < 0) return -1;
	vec_push(ret, first);
	drive_store_names(&names);
	for (size_t i = 0; i < names.n; i++) {
		struct builder b = {0};
		if (strcmp(names.v[i], first.name) != 0 && load_stored(names.v[i], &b, NULL) == 0) vec_push(ret, b);
	}
	return 0;
}

char *builder_node_id(void)
{
	_cleanup_free_ char *dir = drive_store_dir(), *path = xasprintf("%s/.buildNodeID", dir);
	_cleanup_free_ uint8_t *p = NULL;
	size_t n;
	char id[ID_STR], hex[17];
	if (path_read_file(AT_FDCWD, path, 64, &p, &n, NULL) == 0 && n >= 16) return xstrndup((const char *)p, 16);
	id_new(id);
	hex_encode(id, 8, hex);
	if (path_mkdirs(dir, 0700, NULL) == 0) path_write_file(AT_FDCWD, path, hex, 16, 0600, false, NULL);
	return xstrdup(hex);
}
