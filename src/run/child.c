/* A program run to its end from a job (or before the loop runs): text in, text out, a time limit. Used for CNI plugins and
 * for the runtime's administrative commands. No parent-death signal here: it would follow the job's thread, not the daemon. */
#include "run/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { OUT_MAX_BYTES = 1 << 20 };

void child_result_fini(struct child_result *r)
{
	buf_fini(&r->out);
	buf_fini(&r->err);
}

char *child_find(const char *name)
{
	if (strchr(name, '/')) return access(name, X_OK) == 0 ? xstrdup(name) : NULL;
	const char *path = getenv("PATH");
	if (!path) path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	while (*path) {
		size_t n = strcspn(path, ":");
		_cleanup_free_ char *full = xasprintf("%.*s/%s", (int)n, path, name);
		struct stat st;
		if (n && stat(full, &st) == 0 && S_ISREG(st.st_mode) && access(full, X_OK) == 0) return take_ptr(full);
		path += n + (path[n] == ':');
	}
	return NULL;
}

void child_pipes_fini(struct child_pipes *p)
{
	close_fd(&p->in[0]);
	close_fd(&p->in[1]);
	close_fd(&p->out[0]);
	close_fd(&p->out[1]);
	close_fd(&p->err[0]);
	close_fd(&p->err[1]);
}

static int pipes_init(struct child_pipes *p, struct err *e)
{
	*p = CHILD_PIPES;
	if (pipe2(p->in, O_CLOEXEC) < 0 || pipe2(p->out, O_CLOEXEC) < 0 || pipe2(p->err, O_CLOEXEC) < 0)
		return err_sys(e, errno, "pipe");
	fcntl(p->in[1], F_SETFL, O_NONBLOCK);
	return 0;
}

static int spawn(char *const *argv, char *const *env, const struct child_pipes *p, pid_t *ret, struct err *e)
{
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	sigset_t none, defaults;
	sigemptyset(&none);
	sigfillset(&defaults);
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, p->in[0], 0);
	posix_spawn_file_actions_adddup2(&fa, p->out[1], 1);
	posix_spawn_file_actions_adddup2(&fa, p->err[1], 2);
	posix_spawn_file_actions_addclosefrom_np(&fa, 3);
	posix_spawnattr_init(&at);
	posix_spawnattr_setsigmask(&at, &none);
	posix_spawnattr_setsigdefault(&at, &defaults);
	posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	int r = posix_spawnp(ret, argv[0], &fa, &at, argv, env ? env : environ);
	posix_spawnattr_destroy(&at);
	posix_spawn_file_actions_destroy(&fa);
	return r ? err_sys(e, r, "exec %s", argv[0]) : 0;
}

/* Read what is there; false at the end. What is too much is read and dropped. */
static bool drain(int fd, struct buf *b)
{
	char chunk[16384];
	ssize_t n = read(fd, chunk, sizeof chunk);
	if (n < 0) return errno == EINTR || errno == EAGAIN;
	if (n > 0) buf_add(b, chunk, (size_t)n);
	return n > 0;
}

/* Move the bytes until both outputs have ended; false when the time is over. */
static bool converse(struct child_pipes *p, const char *in, int timeout_ms, struct child_result *r)
{
	int64_t until = time_mono_ns() + (int64_t)timeout_ms * 1000000;
	size_t left = in ? strlen(in) : 0;
	while (p->out[0] >= 0 || p->err[0] >= 0) {
		if (!left && p->in[1] >= 0) close(take_fd(p->in[1]));
		struct pollfd f[3] = {{p->in[1], POLLOUT, 0}, {p->out[0], POLLIN, 0}, {p->err[0], POLLIN, 0}};
		int64_t ms = (until - time_mono_ns()) / 1000000;
		if (ms <= 0) return false;
		if (poll(f, 3, (int)min_of(ms, 1000)) < 0 && errno != EINTR) return false;
		if (f[0].revents) {
			ssize_t n = write(p->in[1], in, left);
			if (n > 0) in += n, left -= (size_t)n;
			if (n < 0 && errno != EAGAIN && errno != EINTR) left = 0;
		}
		if (f[1].revents && !drain(p->out[0], &r->out)) close(take_fd(p->out[0]));
		if (f[2].revents && !drain(p->err[0], &r->err)) close(take_fd(p->err[0]));
	}
	return true;
}

int child_spawn(char *const *argv, char *const *env, struct child_pipes *p, pid_t *ret, struct err *e)
{
	if (pipes_init(p, e) < 0 || spawn(argv, env, p, ret, e) < 0) return -1;
	close(take_fd(p->in[0]));
	close(take_fd(p->out[1]));
	close(take_fd(p->err[1]));
	return 0;
}

int child_wait(pid_t pid)
{
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int child_run(char *const *argv, char *const *env, const char *stdin_text, int timeout_ms, struct child_result *ret,
	      struct err *e)
{
	_cleanup_(child_pipes_fini) struct child_pipes p = CHILD_PIPES;
	struct child_result r = {.out = BUF_MAX(OUT_MAX_BYTES), .err = BUF_MAX(OUT_MAX_BYTES)};
	pid_t pid;
	if (child_spawn(argv, env, &p, &pid, e) < 0) return -1;
	bool in_time = converse(&p, stdin_text, timeout_ms, &r);
	if (!in_time) kill(pid, SIGKILL);
	r.status = child_wait(pid);
	if (!in_time) {
		child_result_fini(&r);
		return err_set(e, CODE_DEADLINE_EXCEEDED, "%s did not end within %d s", argv[0], timeout_ms / 1000);
	}
	*ret = r;
	return 0;
}
