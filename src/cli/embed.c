/* The embedded daemon: where none is configured, slipwayd is started for us. It is a process of its own that outlives this one,
 * leaves when it was idle for a while, and is found again by its socket. Two clients that start it at once are sorted out by
 * the daemon's lock: the loser's daemon leaves, and both wait for the same socket.
 * Root's is a daemon like any other; that of a user namespace's root has the user's folders. An ordinary user's runs in a user
 * namespace (embed_user.c), keeps its state in $XDG_DATA_HOME/slipway and listens in $XDG_RUNTIME_DIR/slipway. */
#include "cli/internal.h"
#include "cli/embed_user.h"
#include "conf/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

enum { START_MS = 20000, POLL_MS = 10, LOG_TAIL = 2000 };

struct embed {
	char *program;          /* slipwayd */
	char *state, *run;      /* folders */
	char *socket, *address; /* below run; "unix://..." */
	char *log;
	struct strvec argv, env; /* of what is executed */
	struct embed_user user;
	bool own_paths, enter; /* the user's folders; a user namespace of our own */
};

static void embed_fini(struct embed *m)
{
	free(m->program);
	free(m->state);
	free(m->run);
	free(m->socket);
	free(m->address);
	free(m->log);
	strvec_fini(&m->argv);
	strvec_fini(&m->env);
	embed_user_fini(&m->user);
}

/* $XDG_DATA_HOME/slipway; without XDG_RUNTIME_DIR the socket is in there too. */
static void user_paths(struct embed *m)
{
	const char *data = getenv("XDG_DATA_HOME"), *run = getenv("XDG_RUNTIME_DIR");
	m->state = str_empty(data) ? xasprintf("%s/.local/share/slipway", m->user.home) : xasprintf("%s/slipway", data);
	m->run = str_empty(run) ? xasprintf("%s/run", m->state) : xasprintf("%s/slipway", run);
	if (str_empty(run)) strvec_env_set(&m->env, "XDG_RUNTIME_DIR", m->run);
}

static int set_paths(struct embed *m, struct err *e)
{
	if (m->own_paths) {
		user_paths(m);
	} else {
		m->state = xstrdup("/var/lib/slipway");
		m->run = xstrdup("/run/slipway");
	}
	m->socket = xasprintf("%s/slipwayd.sock", m->run);
	m->address = xasprintf("unix://%s", m->socket);
	m->log = xasprintf("%s/slipwayd.log", m->state);
	if (strlen(m->socket) >= sizeof((struct sockaddr_un *)0)->sun_path)
		return err_set(e, CODE_INVALID_ARGUMENT, "the path of the daemon's socket is too long, set XDG_RUNTIME_DIR: %s",
			       m->socket);
	return 0;
}

static void set_command(struct embed *m)
{
	const char *const args[] = {"--root", m->state, "--addr", m->address, "--idle-exit", "60s"};
	if (m->enter && m->user.rootlesskit) strvec_add(&m->argv, m->user.rootlesskit);
	strvec_add(&m->argv, m->program);
	for (size_t i = 0; i < array_len(args); i++) strvec_add(&m->argv, args[i]);
}

/* As the daemon's configuration wants it for a user; and where Debian has runc and iptables. */
static void set_environment(struct embed *m)
{
	for (char **p = environ; *p; p++) strvec_add(&m->env, *p);
	if (!m->enter) return;
	const char *path = strvec_env_get(&m->env, "PATH");
	_cleanup_free_ char *wide = xasprintf("%s:/usr/sbin:/sbin", str_empty(path) ? "/usr/local/bin:/usr/bin:/bin" : path);
	strvec_env_set(&m->env, "PATH", wide);
	strvec_env_set(&m->env, "USER", m->user.name);
	strvec_env_set(&m->env, "HOME", m->user.home);
}

/* Beside this program, then in PATH. Heap. */
static char *find_daemon(void)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	if (n > 0) {
		self[n] = 0;
		_cleanup_free_ char *dir = path_dir(self);
		for (const char *const *rel = (const char *const[]){"slipwayd", "../sbin/slipwayd", "../daemon/slipwayd", NULL};
		     *rel; rel++) {
			char *p = path_join(dir, *rel);
			if (access(p, X_OK) == 0) return p;
			free(p);
		}
	}
	return embed_find_program("slipwayd");
}

static bool answers(const struct embed *m)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	memcpy(sa.sun_path, m->socket, strlen(m->socket));
	return fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0;
}

/* In the child: away from our terminal, then the daemon. Only async-signal-safe calls. */
static void become_daemon(const struct embed *m, int log, int null)
{
	static const char no_maps[] = "the user namespace could not be made: newuidmap or newgidmap failed\n";
	setsid();
	dup2(null, 0);
	dup2(log, 1);
	dup2(log, 2);
	close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	if (m->enter && !m->user.rootlesskit && embed_user_enter(&m->user) < 0) {
		(void)!write(2, no_maps, sizeof no_maps - 1);
		_exit(126);
	}
	execve(m->argv.v[0], m->argv.v, m->env.v);
	_exit(127);
}

static int start_daemon(const struct embed *m, pid_t *ret, struct err *e)
{
	if (path_mkdirs(m->state, 0700, e) < 0 || path_mkdirs(m->run, m->own_paths ? 0700 : 0755, e) < 0) return -1;
	_cleanup_close_ int log = open(m->log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600),
			    null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (log < 0) return err_sys(e, errno, "open %s", m->log);
	pid_t pid = fork();
	if (pid < 0) return err_sys(e, errno, "fork");
	if (pid == 0) become_daemon(m, log, null);
	*ret = pid;
	return 0;
}

static int start_failed(const struct embed *m, struct err *e)
{
	_cleanup_free_ uint8_t *p = NULL;
	size_t n = 0;
	path_read_file(AT_FDCWD, m->log, 4 << 20, &p, &n, NULL);
	const char *tail = p ? (const char *)p + (n > LOG_TAIL ? n - LOG_TAIL : 0) : "";
	return err_set(e, CODE_UNAVAILABLE, "%s did not start; its log %s ends:\n%s", m->argv.v[0], m->log, tail);
}

static int wait_for(const struct embed *m, pid_t pid, struct err *e)
{
	bool left = false;
	for (int waited = 0; waited < START_MS; waited += POLL_MS) {
		if (answers(m)) return 0;
		if (left && waited % 1000 == 0 && !answers(m)) break;
		left = left || waitpid(pid, NULL, WNOHANG) == pid; /* another's daemon may hold the lock: give it a moment */
		usleep(POLL_MS * 1000);
	}
	return start_failed(m, e);
}

/* What is missing, before anything is started. */
static int prepare(struct embed *m, struct err *e)
{
	static const char advice[] = "name a daemon with --builder ADDRESS or BUILDKIT_HOST";
	m->program = find_daemon();
	if (!m->program)
		return err_set(e, CODE_UNAVAILABLE,
			       "no daemon answers, and slipwayd was found neither beside this program nor in PATH; %s", advice);
	m->enter = geteuid() != 0;
	m->own_paths = m->enter || conf_is_rootless_user(); /* the latter: root of a user namespace already */
	if (m->own_paths && !m->enter) m->user.home = xstrdup(str_empty(getenv("HOME")) ? "/" : getenv("HOME"));
	if (m->enter && embed_user_find(&m->user, e) < 0)
		return err_wrap(e, "no daemon answers, and one cannot be started for this user (else %s)", advice);
	set_environment(m);
	if (set_paths(m, e) < 0) return -1;
	set_command(m);
	return 0;
}

int cli_embedded(struct cli *c, char **ret, struct err *e)
{
	_cleanup_(embed_fini) struct embed m = {0};
	pid_t pid = 0;
	if (prepare(&m, e) < 0) return -1;
	if (!answers(&m) && (start_daemon(&m, &pid, e) < 0 || wait_for(&m, pid, e) < 0)) return -1;
	*ret = take_ptr(m.address);
	return 0;
}
