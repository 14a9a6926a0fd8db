/* Control groups, and the mount namespace that makes crun work on a hybrid layout.
 *
 * The runtime makes and removes a container's cgroup. On cgroup v2 we put a directory of our own around it:
 *     /sys/fs/cgroup/<parent>/buildkit/<id>/   (ours)   .../<id>/<id>   (the runtime's)
 * v2 counters are hierarchical, so ours still says what was used and whether the kernel killed something for memory when
 * the runtime has removed its own, with any runtime; and cgroup.kill there kills even while a container is being set up.
 * On v1 none of this is done (the peer reads v2 only, too).
 *
 * In a container the whole of /sys/fs/cgroup may be the container's, with us in it. A v2 cgroup that holds processes cannot
 * give controllers to its children, so limits of steps would fail. With BUILDKIT_SETUP_CGROUPV2_ROOT, which images set, we
 * make room first: own_root. */
#include "run/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <linux/magic.h>

#define CGROUP_DIR "/sys/fs/cgroup"

static long fs_type(const char *path)
{
	struct statfs s;
	return statfs(path, &s) < 0 ? 0 : (long)s.f_type;
}

static int write_text(const char *path, const char *text)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd >= 0 && write(fd, text, strlen(text)) >= 0 ? 0 : -1;
}

/* Words of a small file, each handed to take() with its errors ignored: a process may have ended meanwhile. */
static void each_word(const char *path, void (*take)(const char *word, void *arg), void *arg)
{
	char text[64 << 10], *save = NULL;
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
	text[n < 0 ? 0 : n] = 0;
	for (char *w = strtok_r(text, " \n", &save); w; w = strtok_r(NULL, " \n", &save)) take(w, arg);
}

static void move_process(const char *pid, void *arg) { write_text(CGROUP_DIR "/init/cgroup.procs", pid); }

static void hand_down(const char *controller, void *arg)
{
	_cleanup_free_ char *word = xasprintf("+%s", controller);
	if (write_text(CGROUP_DIR "/cgroup.subtree_control", word) < 0)
		log_debug("cannot enable cgroup controller %s: %s", controller, strerror(errno));
}

/* Where /sys/fs/cgroup shows more than ours (Kubernetes), a cgroup namespace makes ours its root. The mount namespace is
 * our own already. */
static bool is_cgroup_root(void)
{
	char text[4096];
	_cleanup_close_ int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
	text[n < 0 ? 0 : n] = 0;
	return strcmp(text, "0::/\n") == 0;
}

static int own_namespace(void)
{
	if (is_cgroup_root()) return 0;
	if (unshare(CLONE_NEWCGROUP) < 0 || umount2(CGROUP_DIR, MNT_DETACH) < 0) return -1;
	return mount("cgroup2", CGROUP_DIR, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RELATIME, NULL);
}

/* cgroup.type is in every cgroup but the machine's own root, which needs none of this. Source: peer
 * executor/resources/monitor.go prepareCgroupControllers, hack/buildkitd-entrypoint. */
static void own_root(void)
{
	bool wanted = false;
	const char *set = getenv("BUILDKIT_SETUP_CGROUPV2_ROOT");
	if (!set || !str_bool(set, &wanted) || !wanted || fs_type(CGROUP_DIR) != CGROUP2_SUPER_MAGIC) return;
	if (own_namespace() < 0) log_warn("cannot make a cgroup namespace: %s", strerror(errno));
	if (access(CGROUP_DIR "/cgroup.type", F_OK) < 0) return;
	if (mkdir(CGROUP_DIR "/init", 0755) < 0 && errno != EEXIST) {
		log_warn("cannot make " CGROUP_DIR "/init, so limits of steps may fail: %s", strerror(errno));
		return;
	}
	each_word(CGROUP_DIR "/cgroup.procs", move_process, NULL);
	each_word(CGROUP_DIR "/cgroup.controllers", hand_down, NULL);
}

int run_enter_namespace(struct err *e)
{
	if (unshare(CLONE_NEWNS) < 0) return err_sys(e, errno, "enter a mount namespace");
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0) return err_sys(e, errno, "make mounts slaves");
	bool hybrid = fs_type(CGROUP_DIR) != CGROUP2_SUPER_MAGIC && fs_type(CGROUP_DIR "/unified") == CGROUP2_SUPER_MAGIC;
	/* In a user namespace it is locked in place, but it can be covered. */
	if (hybrid && umount2(CGROUP_DIR "/unified", MNT_DETACH) < 0 &&
	    mount("none", CGROUP_DIR "/unified", "tmpfs", MS_RDONLY, NULL) < 0)
		log_debug("cannot unmount " CGROUP_DIR "/unified: %s", strerror(errno));
	own_root();
	return 0;
}

static void find_busy(const char *controller, void *busy)
{
	_cleanup_free_ char *word = xasprintf("+%s", controller);
	if (write_text(CGROUP_DIR "/cgroup.subtree_control", word) < 0 && errno == EBUSY) *(bool *)busy = true;
}

/* The write is the one that any runtime begins with. */
bool cgroup_root_is_busy(void)
{
	bool busy = false;
	if (cgroup_is_v2() && access(CGROUP_DIR "/cgroup.type", F_OK) == 0)
		each_word(CGROUP_DIR "/cgroup.controllers", find_busy, &busy);
	return busy;
}

bool cgroup_is_v2(void) { return fs_type(CGROUP_DIR) == CGROUP2_SUPER_MAGIC; }

char *cgroup_path(const char *parent, const char *id)
{
	if (str_empty(parent)) return xasprintf("/buildkit/%s", id);
	if (strstr(parent, ".slice") && str_ends(parent, ":")) return xasprintf("%s%s", parent, id);
	_cleanup_free_ char *joined = xasprintf("/%s/buildkit/%s", parent, id);
	return path_clean(joined);
}

char *cgroup_wrap(const char *cgroups_path)
{
	if (*cgroups_path != '/') return NULL; /* systemd's slice:prefix:name */
	char *dir = xasprintf(CGROUP_DIR "%s", cgroups_path);
	if (path_mkdirs(dir, 0755, NULL) == 0) return dir;
	free(dir);
	return NULL;
}

/* A small file of the wrapper as text; false when it is not there. */
static bool read_text(const char *dir, const char *name, char *out, size_t n)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, out, n - 1);
	if (got < 0) return false;
	out[got] = 0;
	return true;
}

/* The number behind "key " at the start of a line; 0 when absent. */
static uint64_t keyed(const char *text, const char *key)
{
	size_t n = strlen(key);
	for (const char *l = text; l; l = strchr(l, '\n'), l = l ? l + 1 : NULL)
		if (strncmp(l, key, n) == 0 && l[n] == ' ') return strtoull(l + n + 1, NULL, 10);
	return 0;
}

static uint64_t io_sum(const char *text, const char *key)
{
	uint64_t sum = 0;
	for (const char *at = text; (at = strstr(at, key)); at += strlen(key)) sum += strtoull(at + strlen(key), NULL, 10);
	return sum;
}

void cgroup_read(const char *wrapper, struct run_exit *x)
{
	char t[8192];
	if (!wrapper) return;
	if (read_text(wrapper, "memory.events", t, sizeof t)) x->oom = keyed(t, "oom_kill") > 0;
	if (read_text(wrapper, "cpu.stat", t, sizeof t)) {
		x->usage.cpu_usec = keyed(t, "usage_usec");
		x->usage.cpu_user_usec = keyed(t, "user_usec");
		x->usage.cpu_system_usec = keyed(t, "system_usec");
	}
	if (read_text(wrapper, "memory.peak", t, sizeof t)) x->usage.memory_peak_bytes = strtoull(t, NULL, 10);
	if (read_text(wrapper, "pids.peak", t, sizeof t)) x->usage.pids_peak = strtoull(t, NULL, 10);
	if (read_text(wrapper, "io.stat", t, sizeof t)) {
		x->usage.io_read_bytes = io_sum(t, "rbytes=");
		x->usage.io_write_bytes = io_sum(t, "wbytes=");
	}
}

bool cgroup_kill(const char *wrapper)
{
	_cleanup_free_ char *path = wrapper ? xasprintf("%s/cgroup.kill", wrapper) : NULL;
	_cleanup_close_ int fd = path ? open(path, O_WRONLY | O_CLOEXEC) : -1;
	return fd >= 0 && write(fd, "1", 1) == 1;
}

void cgroup_unwrap(const char *wrapper)
{
	if (!wrapper) return;
	_cleanup_free_ char *inner = xasprintf("%s/%s", wrapper, path_base(wrapper));
	rmdir(inner);
	if (rmdir(wrapper) < 0 && errno != ENOENT) log_debug("cgroup %s stays: %s", wrapper, strerror(errno));
}
