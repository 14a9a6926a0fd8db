/* Networks by CNI plugins, executed as the CNI specification says (cni.dev spec 1.0: protocol, section 4 on chaining).
 *
 * A namespace is a file below <state>/net/ that a new network namespace is bound to; beside it `<id>.json` records what was
 * attached (the results, for DEL), so that the next daemon can detach what a killed one left. Per namespace two lists run:
 * loopback, then the configured one as eth0; DEL runs in the reverse order and goes on after an error.
 * Follows the peer's cniprovider; the reading of files follows containernetworking/cni's conventions (.conf is one plugin,
 * .conflist a chain). Job code; struct cni is constant after cni_open. */
#include "run/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <net/if.h>
#include <linux/sockios.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <dirent.h>
#include <sys/file.h>
#include <sys/statfs.h>
#include <linux/magic.h>

enum { CONF_MAX_BYTES = 1 << 20, PLUGIN_TIMEOUT_MS = 60000 };

struct cni_list {
	const char *ifname;
	json_t *conf; /* {"cniVersion","name","plugins":[...]} */
};
struct cni {
	struct cni_list lists[2];
	size_t n_lists;
	char *bin_dirs; /* CNI_PATH */
	char *net_dir;
	char *own_bridge; /* to remove at the end; NULL: it was there before */
};

/* ---- network namespaces ---- */
int netns_make(const char *dir, const char *id, char **ret_path, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, id);
	if (path_mkdirs(dir, 0700, e) < 0) return -1;
	_cleanup_close_ int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (file < 0) return err_sys(e, errno, "create %s", path);
	_cleanup_close_ int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home < 0 || unshare(CLONE_NEWNET) < 0) {
		int saved = errno;
		unlink(path);
		return err_sys(e, saved, "make a network namespace");
	}
	int r = mount("/proc/thread-self/ns/net", path, NULL, MS_BIND, NULL), saved = errno;
	if (setns(home, CLONE_NEWNET) < 0) bug("a thread cannot return to its network namespace: %s", strerror(errno));
	if (r < 0) {
		unlink(path);
		return err_sys(e, saved, "bind a network namespace to %s", path);
	}
	*ret_path = take_ptr(path);
	return 0;
}

void netns_remove(const char *path)
{
	if (umount2(path, MNT_DETACH) < 0 && errno != EINVAL && errno != ENOENT)
		log_debug("unmount %s: %s", path, strerror(errno));
	unlink(path);
}

/* ---- configuration ---- */
static json_t *list_of_plugins(json_t *plugins, const char *name, const char *version)
{
	return json_pack("{s:s, s:s, s:o}", "cniVersion", version, "name", name, "plugins", plugins);
}

static int check_list(json_t *list, const char *path, struct err *e)
{
	json_t *plugins = json_object_get(list, "plugins"), *p;
	size_t i;
	if (!json_is_string(json_object_get(list, "name")))
		return err_set(e, CODE_INVALID_ARGUMENT, "%s: \"name\" is missing", path);
	if (!json_is_array(plugins) || json_array_size(plugins) == 0)
		return err_set(e, CODE_INVALID_ARGUMENT, "%s: no plugins", path);
	json_array_foreach(plugins, i, p)
	{
		const char *type = json_string_value(json_object_get(p, "type"));
		if (str_empty(type) || strchr(type, '/'))
			return err_set(e, CODE_INVALID_ARGUMENT, "%s: plugin %zu has no valid \"type\"", path, i + 1);
	}
	return 0;
}

static int load_conf(const char *path, json_t **ret, struct err *e)
{
	uint8_t *text = NULL;
	size_t n;
	json_error_t je;
	if (path_read_file(AT_FDCWD, path, CONF_MAX_BYTES, &text, &n, e) < 0) return err_wrap(e, "failed to read cni config");
	json_t *j = json_loadb((char *)text, n, JSON_REJECT_DUPLICATES, &je);
	free(text);
	if (!json_is_object(j)) {
		json_decref(j);
		return err_set(e, CODE_INVALID_ARGUMENT, "%s:%d:%d: %s", path, je.line, je.column, j ? "no object" : je.text);
	}
	if (!str_ends(path, ".conflist")) {
		const char *version = json_string_value(json_object_get(j, "cniVersion"));
		const char *name = json_string_value(json_object_get(j, "name"));
		j = list_of_plugins(json_pack("[o]", j), name ? name : "", version ? version : "0.1.0");
	}
	if (!j || check_list(j, path, e) < 0) {
		json_decref(j);
		return -1;
	}
	*ret = j;
	return 0;
}

static void add_dir(struct strvec *dirs, const char *file)
{
	_cleanup_free_ char *dir = path_dir(file);
	if (strvec_find(dirs, dir) < 0) strvec_add(dirs, dir);
}

/* The built-in bridge network, of plugins shipped as buildkit-cni-NAME or those of the plugin folder. */
static int bridge_conf(const struct cni_conf *c, struct cni *n, json_t **ret, struct err *e)
{
	static const char *const names[] = {"loopback", "bridge", "host-local", "firewall"};
	_cleanup_strvec_ struct strvec dirs = {0};
	char own[4][40];
	bool all = true;
	for (size_t i = 0; i < 4; i++) {
		snprintf(own[i], sizeof own[i], "buildkit-cni-%s", names[i]);
		_cleanup_free_ char *found = child_find(own[i]);
		if (!found) all = false;
		if (found) add_dir(&dirs, found);
	}
	if (all) {
		free(n->bin_dirs);
		n->bin_dirs = strvec_join(&dirs, ":");
	} else {
		_cleanup_free_ char *bridge = xasprintf("%s/bridge", c->bin_dir);
		if (access(bridge, X_OK) < 0)
			return err_sys(e, errno, "failed to find CNI bridge \"%s\" or buildkit-cni-bridge", bridge);
	}
	const char *type[4], *backend = getenv("ROOTLESSKIT_STATE_DIR") ? "iptables" : "";
	for (size_t i = 0; i < 4; i++) type[i] = all ? own[i] : names[i];
	*ret = json_pack("{s:s, s:s, s:[{s:s}, {s:s, s:s, s:b, s:b, s:{s:s, s:[[{s:s}]]}}, {s:s, s:s, s:s}]}", "cniVersion",
			 "1.0.0", "name", "buildkit", "plugins", "type", type[0], "type", type[1], "bridge", c->bridge_name,
			 "isDefaultGateway", 1, "ipMasq", 1, "ipam", "type", type[2], "ranges", "subnet", c->bridge_subnet,
			 "type", type[3], "backend", backend, "ingressPolicy", "same-bridge");
	if (!*ret) return err_set(e, CODE_INVALID_ARGUMENT, "bad bridge name or subnet");
	return 0;
}

static bool bridge_exists(const char *name)
{
	_cleanup_free_ char *path = xasprintf("/sys/class/net/%s/bridge", name);
	return access(path, F_OK) == 0;
}

static void bridge_remove(const char *name)
{
	struct ifreq ifr = {0};
	_cleanup_close_ int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", name);
	if (s < 0 || ioctl(s, SIOCGIFFLAGS, &ifr) < 0) return;
	ifr.ifr_flags = (short)(ifr.ifr_flags & ~IFF_UP);
	if (ioctl(s, SIOCSIFFLAGS, &ifr) < 0 || ioctl(s, SIOCBRDELBR, name) < 0)
		log_debug("bridge %s stays: %s", name, strerror(errno));
}

/* BUILDKIT_CNI_INIT_LOCK_PATH: several daemons of one machine take turns in setting up. */
static int init_lock(void)
{
	const char *path = getenv("BUILDKIT_CNI_INIT_LOCK_PATH");
	int fd = str_empty(path) ? -1 : open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0) flock(fd, LOCK_EX);
	return fd;
}

int cni_open(const struct cni_conf *c, struct cni **ret, struct err *e)
{
	struct cni *n = xnew(struct cni);
	json_t *conf = NULL;
	n->bin_dirs = xstrdup(c->bin_dir);
	n->net_dir = xstrdup(c->net_dir);
	_cleanup_close_ int lock = init_lock();
	if (c->bridge) {
		if (bridge_conf(c, n, &conf, e) < 0) goto fail;
		if (!bridge_exists(c->bridge_name)) n->own_bridge = xstrdup(c->bridge_name);
	} else {
		if (load_conf(c->config_path, &conf, e) < 0) goto fail;
		if (!strchr(c->bin_dir, ':') && access(c->bin_dir, F_OK) < 0) {
			err_sys(e, errno, "failed to read cni binary dir \"%s\"", c->bin_dir);
			goto fail;
		}
		json_t *lo = list_of_plugins(json_pack("[{s:s}]", "type", "loopback"), "cni-loopback", "0.3.1");
		n->lists[n->n_lists++] = (struct cni_list){"lo", lo};
	}
	n->lists[n->n_lists++] = (struct cni_list){"eth0", conf};
	struct net_ns *first; /* as the peer: a bad set-up is told at start, and the bridge is made */
	if (cni_attach(n, NULL, &first, e) < 0) goto fail;
	cni_detach(n, first);
	*ret = n;
	return 0;
fail:
	if (conf && n->n_lists < 2 && n->lists[0].conf != conf) json_decref(conf);
	cni_close(n);
	return -1;
}

void cni_close(struct cni *c)
{
	if (!c) return;
	if (c->own_bridge) bridge_remove(c->own_bridge);
	for (size_t i = 0; i < c->n_lists; i++) json_decref(c->lists[i].conf);
	free(c->bin_dirs);
	free(c->net_dir);
	free(c->own_bridge);
	free(c);
}

/* ---- one plugin ---- */
struct call {
	const struct cni *cni;
	const char *command, *id, *netns, *ifname, *hostname;
};

static char *plugin_path(const struct cni *c, const char *type)
{
	for (const char *d = c->bin_dirs; *d;) {
		size_t n = strcspn(d, ":");
		char *path = xasprintf("%.*s/%s", (int)n, d, type);
		if (access(path, X_OK) == 0) return path;
		free(path);
		d += n + (d[n] == ':');
	}
	return NULL;
}

/* The error object a plugin wrote, else what it said on stderr. */
static int plugin_error(const char *type, const struct call *c, const struct child_result *r, struct err *e)
{
	json_t *j = json_loadb(buf_str(&r->out), r->out.n, 0, NULL);
	const char *msg = json_string_value(json_object_get(j, "msg"));
	const char *details = json_string_value(json_object_get(j, "details"));
	if (msg)
		err_set(e, CODE_INTERNAL, "plugin type=\"%s\" failed (%s): %s%s%s", type, c->command, msg,
			str_empty(details) ? "" : "; ", details ? details : "");
	else
		err_set(e, CODE_INTERNAL, "plugin type=\"%s\" failed (%s): exit status %d: %.500s", type, c->command, r->status,
			buf_str(r->err.n ? &r->err : &r->out));
	json_decref(j);
	return -1;
}

static int call_plugin(const struct call *c, json_t *conf, json_t **ret_result, struct err *e)
{
	const char *type = json_string_value(json_object_get(conf, "type"));
	_cleanup_free_ char *path = plugin_path(c->cni, type), *text = json_dumps(conf, JSON_COMPACT);
	_cleanup_strvec_ struct strvec env = {0};
	struct child_result r;
	if (!path) return err_set(e, CODE_NOT_FOUND, "failed to find plugin \"%s\" in path [%s]", type, c->cni->bin_dirs);
	for (char **p = environ; *p; p++) strvec_add(&env, *p);
	strvec_env_set(&env, "CNI_COMMAND", c->command);
	strvec_env_set(&env, "CNI_CONTAINERID", c->id);
	strvec_env_set(&env, "CNI_NETNS", c->netns);
	strvec_env_set(&env, "CNI_IFNAME", c->ifname);
	strvec_env_set(&env, "CNI_PATH", c->cni->bin_dirs);
	_cleanup_free_ char *args = xasprintf("K8S_POD_NAME=%s;IgnoreUnknown=1", c->hostname ? c->hostname : "");
	strvec_env_set(&env, "CNI_ARGS", c->hostname ? args : "");
	if (child_run((char *const[]){path, NULL}, env.v, text, PLUGIN_TIMEOUT_MS, &r, e) < 0) return -1;
	int rc = 0;
	if (r.status != 0) {
		rc = plugin_error(type, c, &r, e);
	} else if (ret_result) {
		json_error_t je;
		*ret_result = json_loadb(buf_str(&r.out), r.out.n, 0, &je);
		if (!*ret_result) rc = err_set(e, CODE_INTERNAL, "plugin type=\"%s\": bad result: %s", type, je.text);
	}
	child_result_fini(&r);
	return rc;
}

/* The plugin's own object with what the list adds. */
static json_t *plugin_conf(json_t *list, json_t *plugin, json_t *prev)
{
	json_t *conf = json_copy(plugin);
	json_object_del(conf, "capabilities");
	json_object_set(conf, "name", json_object_get(list, "name"));
	if (json_object_get(list, "cniVersion")) json_object_set(conf, "cniVersion", json_object_get(list, "cniVersion"));
	if (prev) json_object_set(conf, "prevResult", prev);
	return conf;
}

static int add_list(const struct call *c, json_t *list, json_t **ret, struct err *e)
{
	json_t *plugins = json_object_get(list, "plugins"), *p, *prev = NULL;
	size_t i;
	json_array_foreach(plugins, i, p)
	{
		json_t *conf = plugin_conf(list, p, prev), *result = NULL;
		int r = call_plugin(c, conf, &result, e);
		json_decref(conf);
		json_decref(prev);
		if (r < 0) return -1;
		prev = result;
	}
	*ret = prev;
	return 0;
}

static bool version_has_del_result(json_t *list)
{
	const char *v = json_string_value(json_object_get(list, "cniVersion"));
	int major = 0, minor = 0;
	return v && sscanf(v, "%d.%d", &major, &minor) == 2 && (major > 0 || minor >= 4);
}

static void del_list(const struct call *c, json_t *list, json_t *result)
{
	json_t *plugins = json_object_get(list, "plugins");
	if (!version_has_del_result(list)) result = NULL;
	for (size_t i = json_array_size(plugins); i-- > 0;) {
		_cleanup_err_ struct err e = ERR_INIT;
		json_t *conf = plugin_conf(list, json_array_get(plugins, i), result);
		if (call_plugin(c, conf, NULL, &e) < 0) log_debug("cni: %s", e.msg);
		json_decref(conf);
	}
}

/* ---- attach and detach ---- */
static char *record_path(const struct cni *c, const char *id) { return xasprintf("%s/%s.json", c->net_dir, id); }

static void net_ns_free(struct net_ns *ns)
{
	free(ns->path);
	free(ns->id);
	free(ns->hostname);
	free(ns);
}

static int record(const struct cni *c, const struct net_ns *ns, json_t *results, struct err *e)
{
	_cleanup_free_ char *path = record_path(c, ns->id);
	json_t *j = json_pack("{s:s?, s:O}", "hostname", ns->hostname, "results", results);
	_cleanup_free_ char *text = json_dumps(j, JSON_COMPACT);
	json_decref(j);
	return path_write_file(AT_FDCWD, path, text, strlen(text), 0600, false, e);
}

int cni_attach(const struct cni *c, const char *hostname, struct net_ns **ret, struct err *e)
{
	char id[ID_STR];
	id_new(id);
	struct net_ns *ns = xnew(struct net_ns);
	list_init(&ns->link);
	ns->id = xstrdup(id);
	ns->hostname = str_empty(hostname) || strpbrk(hostname, ";=") ? NULL : xstrdup(hostname);
	json_t *results = json_array();
	if (netns_make(c->net_dir, id, &ns->path, e) < 0) {
		json_decref(results);
		net_ns_free(ns);
		return -1;
	}
	int r = record(c, ns, results, e); /* before the first ADD: a kill from here on is swept */
	for (size_t i = 0; r == 0 && i < c->n_lists; i++) {
		struct call call = {c, "ADD", id, ns->path, c->lists[i].ifname, ns->hostname};
		json_t *result = NULL;
		r = add_list(&call, c->lists[i].conf, &result, e);
		if (r == 0) json_array_append_new(results, result ? result : json_null());
	}
	if (r == 0) r = record(c, ns, results, e);
	json_decref(results);
	if (r < 0) {
		cni_detach(c, ns);
		return err_wrap(e, "CNI setup error");
	}
	*ret = ns;
	return 0;
}

/* After a kill -9 the bind mount has gone with the daemon's mount namespace: DEL without a namespace is allowed. */
static bool is_netns(const char *path)
{
	struct statfs s;
	return statfs(path, &s) == 0 && s.f_type == NSFS_MAGIC;
}

void cni_detach(const struct cni *c, struct net_ns *ns)
{
	_cleanup_free_ char *rec = record_path(c, ns->id);
	json_t *j = json_load_file(rec, 0, NULL), *results = json_object_get(j, "results");
	if (!ns->hostname && json_is_string(json_object_get(j, "hostname")))
		ns->hostname = xstrdup(json_string_value(json_object_get(j, "hostname")));
	for (size_t i = c->n_lists; i-- > 0;) {
		json_t *result = json_array_get(results, i);
		struct call call = {c, "DEL", ns->id, is_netns(ns->path) ? ns->path : "", c->lists[i].ifname, ns->hostname};
		del_list(&call, c->lists[i].conf, json_is_object(result) ? result : NULL);
	}
	json_decref(j);
	netns_remove(ns->path);
	unlink(rec);
	net_ns_free(ns);
}

void cni_sweep(const struct cni *c, const char *net_dir)
{
	DIR *d = opendir(net_dir);
	struct dirent *de;
	while (d && (de = readdir(d))) {
		if (*de->d_name == '.') continue;
		_cleanup_free_ char *path = xasprintf("%s/%s", net_dir, de->d_name);
		_cleanup_free_ char *rec = xasprintf("%s.json", path);
		if (str_ends(de->d_name, ".json")) {
			_cleanup_free_ char *ns = xstrndup(path, strlen(path) - 5);
			if (access(ns, F_OK) < 0) unlink(path);
		} else if (c && access(rec, F_OK) == 0) {
			struct net_ns *ns = xnew(struct net_ns);
			ns->id = xstrdup(de->d_name);
			ns->path = xstrdup(path);
			cni_detach(c, ns);
		} else {
			netns_remove(path);
		}
	}
	if (d) closedir(d);
}
