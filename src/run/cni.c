/* Networks by CNI plugins, executed as the CNI specification says (cni.dev spec 1.0: protocol, section 4 on chaining).
 *
 * A namespace is a file below <state>/net/ that a new network namespace is bound to. Per namespace two lists of plugins run:
 * loopback, then the configured one as eth0; DEL runs in the reverse order and goes on after an error.
 *  1. Beside the file, `<id>.json` is the attachment: the lists as they were, where their plugins are, and the results. It is
 *     written before the first ADD, and DEL goes by it alone. So the next daemon detaches what a killed one left, with another
 *     configuration or none too.
 *  2. It is removed when every DEL has succeeded. What could not be detached is tried again, and told, at each start.
 *  3. `<state>/net.bridge` names a bridge of the mode "bridge" that we made. It is removed when the daemon ends, or by a later
 *     one after a kill. A bridge that was there before, or that a plugin makes by a file of the user's, is not ours.
 * Follows the peer's cniprovider; the reading of files follows containernetworking/cni's conventions (.conf is one plugin,
 * .conflist a chain). Job code; struct cni is constant after cni_open. */
#include "run/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <net/if.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <dirent.h>
#include <sys/file.h>
#include <sys/statfs.h>
#include <linux/magic.h>

enum { CONF_MAX_BYTES = 1 << 20, PLUGIN_TIMEOUT_MS = 60000 };

struct cni {
	json_t *lists;  /* [{"ifname": "eth0", "conf": {"cniVersion", "name", "plugins": [...]}}] */
	char *bin_dirs; /* CNI_PATH */
	char *net_dir;
	char *own_bridge; /* to remove at the end; NULL: it was there before */
};

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
	if (path_read_file(AT_FDCWD, path, CONF_MAX_BYTES, &text, &n, e) < 0)
		return err_wrap(e, "failed to read cni config \"%s\"", path);
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

/* Not by /sys/class/net, which may be another network namespace's. An interface of another kind is not ours to make either. */
static bool bridge_exists(const char *name) { return if_nametoindex(name) != 0; }

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

static void add_list(struct cni *n, const char *ifname, json_t *conf)
{
	json_array_append_new(n->lists, json_pack("{s:s, s:o}", "ifname", ifname, "conf", conf));
}

static char *bridge_note(const char *net_dir) { return xasprintf("%s.bridge", net_dir); }

/* The name on record; heap or NULL. */
static char *bridge_on_record(const char *net_dir)
{
	_cleanup_free_ char *note = bridge_note(net_dir);
	uint8_t *name = NULL;
	size_t n;
	if (path_read_file(AT_FDCWD, note, IFNAMSIZ, &name, &n, NULL) < 0) return NULL;
	return (char *)name;
}

static int own_bridge(struct cni *n, const char *name, struct err *e)
{
	_cleanup_free_ char *note = bridge_note(n->net_dir), *left = bridge_on_record(n->net_dir);
	if (bridge_exists(name) && !str_eq(left, name)) return 0;
	n->own_bridge = xstrdup(name);
	return path_write_file(AT_FDCWD, note, name, strlen(name), 0600, false, e);
}

static int set_up(struct cni *n, const struct cni_conf *c, struct err *e)
{
	json_t *conf = NULL;
	if (c->bridge) {
		if (bridge_conf(c, n, &conf, e) < 0) return -1;
		add_list(n, "eth0", conf);
		return own_bridge(n, c->bridge_name, e);
	}
	if (load_conf(c->config_path, &conf, e) < 0) return -1;
	add_list(n, "lo", list_of_plugins(json_pack("[{s:s}]", "type", "loopback"), "cni-loopback", "0.3.1"));
	add_list(n, "eth0", conf);
	if (strchr(c->bin_dir, ':') || access(c->bin_dir, F_OK) == 0) return 0;
	return err_sys(e, errno, "failed to read cni binary dir \"%s\"", c->bin_dir);
}

int cni_open(const struct cni_conf *c, struct cni **ret, struct net_ns **ret_first, struct err *e)
{
	struct cni *n = xnew(struct cni);
	n->bin_dirs = xstrdup(c->bin_dir);
	n->net_dir = xstrdup(c->net_dir);
	n->lists = json_array();
	_cleanup_close_ int lock = init_lock();
	if (set_up(n, c, e) < 0 || cni_attach(n, NULL, ret_first, e) < 0) {
		cni_close(n);
		return -1;
	}
	*ret = n;
	return 0;
}

static void bridge_drop(const char *net_dir, const char *name)
{
	_cleanup_free_ char *note = bridge_note(net_dir);
	bridge_remove(name);
	if (!bridge_exists(name)) unlink(note);
}

void cni_close(struct cni *c)
{
	if (!c) return;
	if (c->own_bridge) bridge_drop(c->net_dir, c->own_bridge);
	json_decref(c->lists);
	free(c->bin_dirs);
	free(c->net_dir);
	free(c->own_bridge);
	free(c);
}

/* ---- one plugin ---- */
struct call {
	const char *command, *bin_dirs, *id, *netns, *hostname, *ifname;
};

static char *plugin_path(const char *dirs, const char *type)
{
	for (const char *d = dirs; *d;) {
		size_t n = strcspn(d, ":");
		char *path = xasprintf("%.*s/%s", (int)n, d, type);
		if (access(path, X_OK) == 0) return path;
		free(path);
		d += n + (d[n] == ':');
	}
	return NULL;
}

/* The error object a plugin wrote, else what it said on stderr. */
static int plugin_error(const struct child_result *r, struct err *e)
{
	json_t *j = json_loadb(buf_str(&r->out), r->out.n, 0, NULL);
	const char *msg = json_string_value(json_object_get(j, "msg"));
	const char *details = json_string_value(json_object_get(j, "details"));
	if (msg)
		err_set(e, CODE_INTERNAL, "%s%s%s", msg, str_empty(details) ? "" : "; ", details ? details : "");
	else
		err_set(e, CODE_INTERNAL, "exit status %d: %.500s", r->status, buf_str(r->err.n ? &r->err : &r->out));
	json_decref(j);
	return -1;
}

/* As libcni says it. */
static int name_plugin(const struct call *c, json_t *conf, struct err *e)
{
	const char *type = json_string_value(json_object_get(conf, "type")),
		   *name = json_string_value(json_object_get(conf, "name"));
	_cleanup_free_ char *named = str_empty(name) ? NULL : xasprintf(" name=\"%s\"", name);
	return err_wrap(e, "plugin type=\"%s\"%s failed (%s)", type, named ? named : "",
			strcmp(c->command, "ADD") == 0 ? "add" : "delete");
}

static int exec_plugin(const struct call *c, json_t *conf, json_t **ret_result, struct err *e)
{
	const char *type = json_string_value(json_object_get(conf, "type"));
	_cleanup_free_ char *path = plugin_path(c->bin_dirs, type), *text = json_dumps(conf, JSON_COMPACT);
	_cleanup_strvec_ struct strvec env = {0};
	struct child_result r;
	if (!path) return err_set(e, CODE_NOT_FOUND, "failed to find plugin \"%s\" in path [%s]", type, c->bin_dirs);
	for (char **p = environ; *p; p++) strvec_add(&env, *p);
	strvec_env_set(&env, "CNI_COMMAND", c->command);
	strvec_env_set(&env, "CNI_CONTAINERID", c->id);
	strvec_env_set(&env, "CNI_NETNS", c->netns);
	strvec_env_set(&env, "CNI_IFNAME", c->ifname);
	strvec_env_set(&env, "CNI_PATH", c->bin_dirs);
	_cleanup_free_ char *args = xasprintf("K8S_POD_NAME=%s;IgnoreUnknown=1", c->hostname ? c->hostname : "");
	strvec_env_set(&env, "CNI_ARGS", c->hostname ? args : "");
	if (child_run((char *const[]){path, NULL}, env.v, text, PLUGIN_TIMEOUT_MS, &r, e) < 0) return -1;
	int rc = 0;
	if (r.status != 0) {
		rc = plugin_error(&r, e);
	} else if (ret_result) {
		json_error_t je;
		*ret_result = json_loadb(buf_str(&r.out), r.out.n, 0, &je);
		if (!*ret_result) rc = err_set(e, CODE_INTERNAL, "bad result: %s", je.text);
	}
	child_result_fini(&r);
	return rc;
}

static int call_plugin(const struct call *c, json_t *conf, json_t **ret_result, struct err *e)
{
	return exec_plugin(c, conf, ret_result, e) < 0 ? name_plugin(c, conf, e) : 0;
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

static int run_add(const struct call *c, json_t *list, json_t **ret, struct err *e)
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

/* All of them, also after an error; the first one is kept. */
static int run_del(const struct call *c, json_t *list, json_t *result, struct err *e)
{
	json_t *plugins = json_object_get(list, "plugins");
	int r = 0;
	if (!version_has_del_result(list)) result = NULL;
	for (size_t i = json_array_size(plugins); i-- > 0;) {
		json_t *conf = plugin_conf(list, json_array_get(plugins, i), result);
		if (call_plugin(c, conf, NULL, r < 0 ? NULL : e) < 0) r = -1;
		json_decref(conf);
	}
	return r;
}

/* ---- attach and detach ---- */
static char *record_path(const char *net_dir, const char *id) { return xasprintf("%s/%s.json", net_dir, id); }

static struct net_ns *net_ns_new(const char *id, const char *hostname)
{
	struct net_ns *ns = xnew(struct net_ns);
	list_init(&ns->link);
	ns->id = xstrdup(id);
	ns->hostname = str_empty(hostname) || strpbrk(hostname, ";=") ? NULL : xstrdup(hostname);
	return ns;
}

static void net_ns_free(struct net_ns *ns)
{
	free(ns->path);
	free(ns->id);
	free(ns->hostname);
	free(ns);
}

static int record(const struct cni *c, const struct net_ns *ns, json_t *results, struct err *e)
{
	_cleanup_free_ char *path = record_path(c->net_dir, ns->id);
	json_t *j = json_pack("{s:s?, s:s, s:O, s:O}", "hostname", ns->hostname, "binDirs", c->bin_dirs, "lists", c->lists,
			      "results", results);
	_cleanup_free_ char *text = json_dumps(j, JSON_COMPACT);
	json_decref(j);
	return path_write_file(AT_FDCWD, path, text, strlen(text), 0600, false, e);
}

static const char *member(json_t *j, const char *key) { return json_string_value(json_object_get(j, key)); }

static int attach(const struct cni *c, struct net_ns *ns, json_t *results, struct err *e)
{
	json_t *list;
	size_t i;
	if (record(c, ns, results, e) < 0) return -1; /* before the first ADD: a kill from here on is swept */
	json_array_foreach(c->lists, i, list)
	{
		struct call call = {"ADD", c->bin_dirs, ns->id, ns->path, ns->hostname, member(list, "ifname")};
		json_t *result = NULL;
		if (run_add(&call, json_object_get(list, "conf"), &result, e) < 0) return -1;
		json_array_append_new(results, result ? result : json_null());
	}
	return record(c, ns, results, e);
}

int cni_attach(const struct cni *c, const char *hostname, struct net_ns **ret, struct err *e)
{
	char id[ID_STR];
	id_new(id);
	struct net_ns *ns = net_ns_new(id, hostname);
	if (netns_make(c->net_dir, id, &ns->path, e) < 0) {
		net_ns_free(ns);
		return -1;
	}
	json_t *results = json_array();
	int r = attach(c, ns, results, e);
	json_decref(results);
	if (r < 0) {
		cni_detach(c->net_dir, ns);
		return err_wrap(e, "CNI setup error");
	}
	*ret = ns;
	return 0;
}

static bool is_netns(const char *path)
{
	struct statfs s;
	return statfs(path, &s) == 0 && s.f_type == NSFS_MAGIC;
}

/* After a kill -9 the bind mount has gone with the daemon's mount namespace. DEL without a namespace is allowed, but bridge
 * then leaves its masquerading: see netns.c. False: there was nothing to replace. */
static bool replace_lost(const char *net_dir, const struct net_ns *ns, const char *ifname, json_t *result)
{
	_cleanup_strvec_ struct strvec addresses = {0};
	_cleanup_err_ struct err e = ERR_INIT;
	json_t *ip;
	size_t i;
	json_array_foreach(json_object_get(result, "ips"), i, ip)
	{
		if (member(ip, "address")) strvec_add(&addresses, member(ip, "address"));
	}
	if (!addresses.n || is_netns(ns->path)) return false;
	unlink(ns->path);
	if (netns_stand_in(net_dir, ns->id, ifname, addresses.v, addresses.n, &e) == 0) return true;
	log_debug("%s", e.msg);
	return false;
}

static int detach_list(const char *net_dir, const struct net_ns *ns, json_t *rec, size_t i, struct err *e)
{
	json_t *list = json_array_get(json_object_get(rec, "lists"), i), *conf = json_object_get(list, "conf");
	json_t *result = json_array_get(json_object_get(rec, "results"), i);
	struct call call = {"DEL", member(rec, "binDirs"), ns->id, "", member(rec, "hostname"), member(list, "ifname")};
	if (!call.ifname || !call.bin_dirs) return 0;
	if (!json_is_object(result)) result = NULL;
	if (replace_lost(net_dir, ns, call.ifname, result)) {
		call.netns = ns->path;
		if (run_del(&call, conf, result, NULL) == 0) return 0;
		/* The rules may have gone with the network they were in: a container that was started again. */
		netns_remove(ns->path);
	}
	call.netns = is_netns(ns->path) ? ns->path : "";
	return run_del(&call, conf, result, e);
}

static int detach(const char *net_dir, const struct net_ns *ns, json_t *rec, struct err *e)
{
	int r = 0;
	for (size_t i = json_array_size(json_object_get(rec, "lists")); i-- > 0;)
		if (detach_list(net_dir, ns, rec, i, r < 0 ? NULL : e) < 0) r = -1;
	return r;
}

void cni_detach(const char *net_dir, struct net_ns *ns)
{
	_cleanup_free_ char *path = record_path(net_dir, ns->id);
	_cleanup_err_ struct err e = ERR_INIT;
	json_t *rec = json_load_file(path, 0, NULL);
	if (detach(net_dir, ns, rec, &e) < 0)
		log_warn("failed to release network namespace %s: %s; tried again at the next start, remove %s to give it up",
			 ns->id, e.msg, path);
	else
		unlink(path);
	json_decref(rec);
	netns_remove(ns->path);
	net_ns_free(ns);
}

/* ---- what a killed daemon left ---- */
void cni_left(const char *net_dir, struct strvec *ids)
{
	DIR *d = opendir(net_dir);
	struct dirent *de;
	while (d && (de = readdir(d))) {
		const char *end = strchr(de->d_name, '.');
		_cleanup_free_ char *id = xstrndup(de->d_name, end ? (size_t)(end - de->d_name) : strlen(de->d_name));
		if (strstr(de->d_name, ".tmp-")) unlinkat(dirfd(d), de->d_name, 0);
		if (*id && strvec_find(ids, id) < 0) strvec_add(ids, id);
	}
	if (d) closedir(d);
}

void cni_sweep(const struct cni *c, const char *net_dir, const struct strvec *ids)
{
	for (size_t i = 0; i < ids->n; i++) {
		struct net_ns *ns = net_ns_new(ids->v[i], NULL);
		ns->path = xasprintf("%s/%s", net_dir, ids->v[i]);
		cni_detach(net_dir, ns);
	}
	_cleanup_free_ char *bridge = bridge_on_record(net_dir);
	if (bridge && !(c && str_eq(c->own_bridge, bridge))) bridge_drop(net_dir, bridge);
}
