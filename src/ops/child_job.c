#include "ops/child_job.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { TICK_MS = 100, KILL_AFTER_MS = 10000, LINGER_MS = 1000, CHUNK = 16 << 10 };

/* After fork in a process with threads: only what is safe in a signal handler. */
__attribute__((noreturn)) static void child_main(const struct child_job *c, pid_t parent, const int fd[2], int report)
{
	sigset_t none;
	sigemptyset(&none);
	for (int i = 1; i < NSIG; i++) signal(i, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent) _exit(127);
	umask(022);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	/* Above all that is used, so that no dup2 hits a source. */
	int out = fcntl(fd[0], F_DUPFD_CLOEXEC, 64), err = fcntl(fd[1], F_DUPFD_CLOEXEC, 64),
	    in = fcntl(null, F_DUPFD_CLOEXEC, 64);
	report = fcntl(report, F_DUPFD_CLOEXEC, 64);
	dup2(in, 0);
	dup2(out, 1);
	dup2(err, 2);
	close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
	if (!c->cwd || chdir(c->cwd) == 0) execvpe(c->argv[0], c->argv, c->env);
	int saved = errno;
	ssize_t r = write(report, &saved, sizeof saved);
	(void)r;
	_exit(127);
}

static pid_t start(const struct child_job *c, int ret_fd[2], struct err *e)
{
	int out[2] = {-1, -1}, err[2] = {-1, -1}, report[2] = {-1, -1};
	pid_t pid = -1;
	int saved = 0, child_errno = 0;
	if (pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0 && pipe2(report, O_CLOEXEC) == 0) {
		int fd[2] = {out[1], err[1]};
		pid_t parent = getpid();
		pid = fork();
		if (pid == 0) child_main(c, parent, fd, report[1]);
	}
	saved = errno;
	int done[] = {out[1], err[1], report[1]};
	for (size_t i = 0; i < array_len(done); i++) close_fd(&done[i]);
	if (pid > 0 && read(report[0], &child_errno, sizeof child_errno) == sizeof child_errno) {
		waitpid(pid, NULL, 0);
		saved = child_errno;
		pid = -1;
	}
	close_fd(&report[0]);
	if (pid > 0) {
		ret_fd[0] = out[0];
		ret_fd[1] = err[0];
		return pid;
	}
	close_fd(&out[0]);
	close_fd(&err[0]);
	err_sys(e, saved, "cannot run %s", c->argv[0]);
	return -1;
}

struct run {
	const struct child_job *c;
	pid_t pid;
	int fd[2];
	bool exited, too_much;
	int status;
	int64_t term_ns, exit_ns; /* 0: not yet */
};

static int64_t ms_since(int64_t ns) { return (time_mono_ns() - ns) / 1000000; }

static void stop(struct run *r)
{
	if (r->exited) return;
	if (!r->term_ns) {
		kill(-r->pid, SIGTERM);
		r->term_ns = time_mono_ns();
	} else if (ms_since(r->term_ns) > KILL_AFTER_MS) {
		kill(-r->pid, SIGKILL);
	}
}

static void take(struct run *r, int i)
{
	const struct child_job *c = r->c;
	struct buf *to = i ? c->err : c->out;
	char chunk[CHUNK];
	ssize_t n = read(r->fd[i], chunk, sizeof chunk);
	if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
	if (n <= 0) {
		close(r->fd[i]);
		r->fd[i] = -1;
		return;
	}
	if (c->output) c->output(c->ctx, i + 1, chunk, (size_t)n);
	if (to && buf_add(to, chunk, (size_t)n) < 0) r->too_much |= i == 0;
}

/* Until both pipes are closed and the child is reaped. A grandchild that keeps a pipe open is not waited for long. */
static void loop(struct run *r)
{
	while (!r->exited || r->fd[0] >= 0 || r->fd[1] >= 0) {
		struct pollfd p[2] = {{.fd = r->fd[0], .events = POLLIN}, {.fd = r->fd[1], .events = POLLIN}};
		bool piped = r->fd[0] >= 0 || r->fd[1] >= 0;
		if (poll(p, 2, piped ? TICK_MS : 1) > 0)
			for (int i = 0; i < 2; i++)
				if (p[i].revents) take(r, i);
		if (!r->exited && waitpid(r->pid, &r->status, WNOHANG) == r->pid) {
			r->exited = true;
			r->exit_ns = time_mono_ns();
		}
		if (r->exited && ms_since(r->exit_ns) > LINGER_MS) break;
		if (atomic_load(r->c->cancelled) || r->too_much) stop(r);
	}
	close_fd(&r->fd[0]);
	close_fd(&r->fd[1]);
}

int child_job_run(const struct child_job *c, struct err *e)
{
	struct run r = {.c = c};
	if (atomic_load(c->cancelled)) return err_set(e, CODE_CANCELLED, "context canceled");
	r.pid = start(c, r.fd, e);
	if (r.pid < 0) return -1;
	loop(&r);
	if (atomic_load(c->cancelled)) return err_set(e, CODE_CANCELLED, "context canceled");
	if (r.too_much) return err_set(e, CODE_RESOURCE_EXHAUSTED, "%s wrote more than %zu bytes", c->argv[0], c->out->max);
	return WIFEXITED(r.status) ? WEXITSTATUS(r.status) : 128 + WTERMSIG(r.status);
}
