/* The embedded daemon: where none is configured, slipwayd is started for us. It is a process of its own that outlives this one,
 * leaves when it was idle for a while, and is found again by its socket. Two clients that start it at once are sorted out by
 * the daemon's lock: the loser's daemon leaves, and both wait for the same socket. */
#include "cli/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define SOCKET_PATH "/run/slipway/slipwayd.sock"
#define STATE_DIR "/var/lib/slipway"
#define LOG_PATH STATE_DIR "/slipwayd.log"
enum { START_MS = 20000, POLL_MS = 10, LOG_TAIL = 2000 };

/* Beside this program, then in PATH. Heap. */
static char *find_daemon(void)
{
	char self[4096];
	const char *path = getenv("PATH");
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
	for (const char *s = path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"; *s;) {
		size_t len = strcspn(s, ":");
		char *p = xasprintf("%.*s/slipwayd", (int)len, s);
		if (len && access(p, X_OK) == 0) return p;
		free(p);
		s += len + (s[len] == ':');
	}
	return NULL;
}

static bool answers(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = SOCKET_PATH};
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0;
}

/* In the child: away from our terminal, then the daemon. Only async-signal-safe calls. */
static void become_daemon(const char *program, int log, int null)
{
	static const char *const args[] = {"slipwayd",    "--root", STATE_DIR, "--addr", "unix://" SOCKET_PATH,
					   "--idle-exit", "60s",    NULL};
	setsid();
	dup2(null, 0);
	dup2(log, 1);
	dup2(log, 2);
	close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	execv(program, (char *const *)args);
	_exit(127);
}

static int start_daemon(const char *program, pid_t *ret, struct err *e)
{
	if (path_mkdirs(STATE_DIR, 0700, e) < 0 || path_mkdirs("/run/slipway", 0755, e) < 0) return -1;
	_cleanup_close_ int log = open(LOG_PATH, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600),
			    null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (log < 0) return err_sys(e, errno, "open %s", LOG_PATH);
	pid_t pid = fork();
	if (pid < 0) return err_sys(e, errno, "fork");
	if (pid == 0) become_daemon(program, log, null);
	*ret = pid;
	return 0;
}

static int start_failed(const char *program, struct err *e)
{
	_cleanup_free_ uint8_t *p = NULL;
	size_t n = 0;
	path_read_file(AT_FDCWD, LOG_PATH, 4 << 20, &p, &n, NULL);
	const char *tail = p ? (const char *)p + (n > LOG_TAIL ? n - LOG_TAIL : 0) : "";
	return err_set(e, CODE_UNAVAILABLE, "%s did not start; its log %s ends:\n%s", program, LOG_PATH, tail);
}

int cli_embedded(struct cli *c, char **ret, struct err *e)
{
	pid_t pid = 0;
	bool left = false;
	if (geteuid() != 0)
		return err_set(e, CODE_UNAVAILABLE,
			       "no daemon answers, and starting one needs root for now: run as root, start slipwayd or "
			       "buildkitd yourself, or name one "
			       "with --builder ADDRESS or BUILDKIT_HOST");
	_cleanup_free_ char *program = find_daemon();
	if (!program)
		return err_set(
			e, CODE_UNAVAILABLE,
			"no daemon answers, and slipwayd was found neither beside this program nor in PATH; name a daemon with "
			"--builder ADDRESS or BUILDKIT_HOST");
	if (start_daemon(program, &pid, e) < 0) return -1;
	for (int waited = 0; waited < START_MS; waited += POLL_MS) {
		if (answers()) {
			*ret = xstrdup("unix://" SOCKET_PATH);
			return 0;
		}
		if (left && waited % 1000 == 0 && !answers()) return start_failed(program, e);
		left = left || waitpid(pid, NULL, WNOHANG) == pid; /* another's daemon may hold the lock: give it a moment */
		usleep(POLL_MS * 1000);
	}
	return start_failed(program, e);
}
