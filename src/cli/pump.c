/* The connection to a daemon in a container is the stdio of `buildctl dial-stdio` there, behind the engine's framing. A job
 * copies between it and one end of a socket pair; the loop has the other end and knows nothing of it. */
#include "cli/internal.h"
#include "drive/engine.h"

#include <errno.h>
#include <sys/socket.h>

struct cli_pump {
	struct loop_job job;
	struct cli *cli;
	struct drive_exec *exec;
	int fd;
};

static bool stopped(void *arg) { return loop_job_cancelled(arg); }

static void work(struct loop_job *j)
{
	struct cli_pump *p = container_of(j, struct cli_pump, job);
	_cleanup_err_ struct err e = ERR_INIT;
	if (drive_exec_copy(p->exec, p->fd, p->fd, 2, stopped, j, &e) < 0 && e.code != CODE_CANCELLED) log_debug("%s", e.msg);
	shutdown(p->fd, SHUT_RDWR);
}

static void done(struct loop_job *j)
{
	struct cli_pump *p = container_of(j, struct cli_pump, job);
	p->cli->pump = NULL;
	drive_exec_free(p->exec);
	close(p->fd);
	free(p);
}

void cli_pump_stop(struct cli *c)
{
	if (c->pump) loop_job_cancel(&c->pump->job);
	while (c->pump) uv_run(loop_uv(c->loop), UV_RUN_ONCE);
}

int cli_dial_exec(struct cli *c, struct drive_exec *x, struct err *e)
{
	int fds[2];
	cli_pump_stop(c);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
		drive_exec_free(x);
		return err_sys(e, errno, "socketpair");
	}
	c->pump = xnew(struct cli_pump);
	*c->pump = (struct cli_pump){.job = {.work = work, .done = done}, .cli = c, .exec = x, .fd = fds[1]};
	loop_job_start(c->loop, &c->pump->job, LOOP_NET);
	struct wire_conn *conn = wire_conn_fds(c->loop, fds[0], fds[0], NULL, "container", e);
	if (!conn) return -1;
	cli_take_conn(c, conn);
	return 0;
}
