/* The loop's side: the listener, the jobs, the questions. */
#include "proxy/proxy.h"
#include "proxy/conn_job.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct conn {
	struct loop_job job;
	struct proxy *proxy;
	struct list link;
	struct proxy_record record;
	int fd;
};
struct proxy {
	struct proxy_conf conf;
	uv_poll_t *poll; /* NULL: stopping */
	bool polling;
	int listen_fd, egress_fd;
	struct list conns;
	size_t n_conns;
	struct proxy_record record;
	void (*stopped)(void *arg, struct proxy_record *r);
	void *stopped_arg;
};

/* ---- questions ---- */

static void ask(void *arg)
{
	struct proxy_check *c = arg;
	if (c->proxy->stopped)
		proxy_check_answer(c, NULL);
	else
		c->proxy->conf.check(c->proxy->conf.arg, c);
}

void proxy_check_answer(struct proxy_check *c, const char *target)
{
	struct loop_pipe *pipe = c->pipe; /* c ends when the job sees the pipe closed */
	if (target) c->target = xstrdup(target);
	loop_pipe_close(pipe, NULL);
	loop_pipe_unref(pipe);
}

static char *check(void *ctx, const char *method, const char *url) /* job */
{
	struct conn *cn = ctx;
	struct loop *l = cn->proxy->conf.loop;
	struct proxy_check c = {.method = method, .url = url, .proxy = cn->proxy, .pipe = loop_pipe_new(l, 16, NULL, NULL)};
	struct loop_pipe *mine = loop_pipe_ref(c.pipe);
	char byte;
	loop_post(l, ask, &c);
	while (loop_pipe_job_read(mine, &byte, 1, NULL) > 0) {
	}
	loop_pipe_unref(mine);
	return c.target;
}

/* ---- connections ---- */

static void serve(struct loop_job *j)
{
	struct conn *c = container_of(j, struct conn, job);
	struct proxy_io io = {.fd = c->fd,
			      .ca = c->proxy->conf.ca,
			      .egress_fd = c->proxy->egress_fd,
			      .cancelled = &j->cancelled,
			      .check = check,
			      .ctx = c,
			      .record = &c->record};
	proxy_serve(&io);
}

static void poll_closed(uv_handle_t *h) { free(h); }

static void maybe_end(struct proxy *p)
{
	if (!p->stopped || p->n_conns) return;
	struct proxy_record r = p->record;
	proxy_record_redirects(&r);
	p->stopped(p->stopped_arg, &r);
	proxy_record_fini(&r);
	if (p->egress_fd >= 0) close(p->egress_fd);
	free(p);
}

static void readable(uv_poll_t *h, int status, int events);

static void look(struct proxy *p)
{
	bool want = p->n_conns < PROXY_CONNECTIONS;
	if (!p->poll || want == p->polling) return;
	p->polling = want;
	if (want)
		uv_poll_start(p->poll, UV_READABLE, readable);
	else
		uv_poll_stop(p->poll);
}

static void served(struct loop_job *j)
{
	struct conn *c = container_of(j, struct conn, job);
	struct proxy *p = c->proxy;
	proxy_record_move(&p->record, &c->record);
	list_del(&c->link);
	close(c->fd);
	free(c);
	p->n_conns--;
	look(p);
	maybe_end(p);
}

static void readable(uv_poll_t *h, int status, int events)
{
	struct proxy *p = h->data;
	int fd = accept4(p->listen_fd, NULL, NULL, SOCK_CLOEXEC); /* blocking: a job's */
	if (fd < 0) return;
	struct conn *c = xnew(struct conn);
	c->job = (struct loop_job){.work = serve, .done = served};
	c->proxy = p;
	c->fd = fd;
	list_add_tail(&p->conns, &c->link);
	p->n_conns++;
	loop_job_start(p->conf.loop, &c->job, LOOP_NET);
	look(p);
}

int proxy_start(const struct proxy_conf *conf, struct proxy **ret, struct err *e)
{
	_cleanup_close_ int listen_fd = conf->listen_fd, egress = -1;
	if (conf->egress_netns && (egress = open(conf->egress_netns, O_RDONLY | O_CLOEXEC)) < 0)
		return err_sys(e, errno, "open the network namespace %s", conf->egress_netns);
	if (fcntl(listen_fd, F_SETFL, O_NONBLOCK) < 0) return err_sys(e, errno, "the proxy's socket");
	struct proxy *p = xnew(struct proxy);
	p->conf = *conf;
	p->conf.egress_netns = NULL;
	p->listen_fd = take_fd(listen_fd);
	p->egress_fd = take_fd(egress);
	list_init(&p->conns);
	p->poll = xnew(uv_poll_t);
	uv_poll_init(loop_uv(conf->loop), p->poll, p->listen_fd);
	p->poll->data = p;
	look(p);
	*ret = p;
	return 0;
}

static void end_soon(void *arg) { maybe_end(arg); }

void proxy_stop(struct proxy *p, void (*stopped)(void *arg, struct proxy_record *r), void *arg)
{
	p->stopped = stopped;
	p->stopped_arg = arg;
	uv_close((uv_handle_t *)take_ptr(p->poll), poll_closed);
	close(take_fd(p->listen_fd));
	LIST_EACH(&p->conns, struct conn, c, link)
	{
		loop_job_cancel(&c->job);
		shutdown(c->fd, SHUT_RDWR);
	}
	if (!p->n_conns) loop_post(p->conf.loop, end_soon, p);
}
