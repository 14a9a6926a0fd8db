/* Children: vfork-like spawn, reaped on SIGCHLD by pid (never "any child", libuv's own are none of ours).
 * The child gets the three descriptors it is given and perhaps a fourth; every other one is close-on-exec or closed. */
#include "loop/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static void reap(void *arg, int signum)
{
	struct loop *l = arg;
	struct list ended = LIST_INIT(ended);
	LIST_EACH(&l->children, struct loop_child, c, link)
	{
		int status;
		pid_t r = waitpid(c->pid, &status, WNOHANG);
		if (r == 0 || (r < 0 && errno == EINTR)) continue;
		c->uv = (void *)(intptr_t)(r < 0 ? 255 << 8 : status);
		list_del(&c->link);
		list_add_tail(&ended, &c->link);
	}
	while (!list_empty(&ended)) {
		struct loop_child *c = list_first(&ended, struct loop_child, link);
		list_del(&c->link);
		int status = (int)(intptr_t)c->uv;
		c->exited(c, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
			  WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	}
}

/* In the child: put the descriptors in place, from above first so that none is overwritten before it was used. */
static void place_stdio(const struct loop_child_spec *s)
{
	int want[4] = {s->stdio[0], s->stdio[1], s->stdio[2], s->extra_fd}, high[4];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < 4; i++)
		high[i] = want[i] >= 0 || i < 3 ? fcntl(want[i] >= 0 ? want[i] : null, F_DUPFD_CLOEXEC, 64) : -1;
	for (int i = 0; i < 4; i++)
		if (high[i] >= 0) dup2(high[i], i);
	close_range(s->extra_fd >= 0 ? 4 : 3, ~0U, CLOSE_RANGE_CLOEXEC);
}

static void child_main(const struct loop_child_spec *s, pid_t parent, int report)
{
	sigset_t none;
	sigemptyset(&none);
	for (int i = 1; i < NSIG; i++) signal(i, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (!s->keep_on_parent_death) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent) _exit(127);
	}
	if (s->new_session) setsid();
	report = fcntl(report, F_DUPFD_CLOEXEC, 128);
	place_stdio(s);
	if (!s->cwd || chdir(s->cwd) == 0) execvpe(s->argv[0], s->argv, s->env ? s->env : environ);
	int saved = errno;
	ssize_t r = write(report, &saved, sizeof saved);
	(void)r;
	_exit(127);
}

int loop_child_start(struct loop *l, struct loop_child *c, const struct loop_child_spec *spec, struct err *e)
{
	int report[2];
	if (pipe2(report, O_CLOEXEC) < 0) return err_sys(e, errno, "pipe");
	if (!l->sigchld_on) {
		loop_on_signal(l, SIGCHLD, reap, l);
		l->sigchld_on = true;
	}
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid_t parent = getpid();
	pid_t pid = fork();
	if (pid == 0) child_main(spec, parent, report[1]);
	int fork_errno = errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	close(report[1]);
	int child_errno = 0;
	ssize_t n = pid < 0 ? 0 : read(report[0], &child_errno, sizeof child_errno);
	close(report[0]);
	if (pid < 0) return err_sys(e, fork_errno, "fork");
	if (n == sizeof child_errno) {
		waitpid(pid, NULL, 0);
		return err_sys(e, child_errno, "exec %s", spec->argv[0]);
	}
	c->pid = pid;
	c->loop = l;
	list_add_tail(&l->children, &c->link);
	return 0;
}
