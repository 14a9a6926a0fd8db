/* The three streams of a container on the loop: pipes (or one pseudo terminal) read as bytes come.
 *
 *  1. Each stream is the caller's descriptor, /dev/null, or ours. Ours are read into the engine's one buffer and handed
 *     out at once; nothing is kept here, so what a paused consumer does not take stays in the pipe and blocks the writer.
 *  2. ended() comes once, when every stream of ours has ended or run_stdio_cut was called.
 *  3. Closing is asynchronous in libuv: the struct lives until its last handle is closed.
 * A terminal comes in one of two ways. runc gets the slave side of a pty pair of ours as stdio, relays to the container's
 * own pty and follows SIGWINCH: resizing is to set our size, then signal runc (run.c does). crun does not follow it, but
 * sends the container's pty over a socket (--console-socket) also when it stays in the foreground; its own messages then
 * come by a pipe and are told as output of the terminal. What is written before the pty is here waits. */
#include "run/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>

struct stream {
	struct run_stdio *s;
	uv_pipe_t uv;
	int fd; /* 0 stdin, 1, 2 */
	bool open, reading;
};
struct run_stdio {
	struct run_engine *g;
	struct run_stdio_ops ops;
	void *arg;
	struct stream in, out[2]; /* a terminal uses out[0] for both ways */
	int child[3], made[3];    /* what the child gets; those of them that we close after the start */
	int pty;                  /* borrowed from out[0]; -1 */
	uv_poll_t listener;       /* the console socket */
	int listen_fd;            /* -1: none, or the pty has come */
	struct buf early;         /* written before the pty was here */
	unsigned short rows, cols;
	size_t n_open; /* handles not yet closed */
	size_t n_reading;
	bool paused, ended, closed, start_done, eof_wanted, tty;
};
struct write_req {
	uv_write_t req;
	struct run_stdio *s;
	char bytes[];
};

static void maybe_free(struct run_stdio *s)
{
	if (!s->closed || s->n_open) return;
	buf_fini(&s->early);
	free(s);
}

static void on_closed(uv_handle_t *h)
{
	struct stream *st = h->data;
	st->s->n_open--;
	maybe_free(st->s);
}

static void stream_close(struct stream *st)
{
	if (!st->open) return;
	st->open = false;
	if (st->reading) {
		st->reading = false;
		st->s->n_reading--;
	}
	uv_close((uv_handle_t *)&st->uv, on_closed);
}

static void listener_closed(uv_handle_t *h)
{
	struct run_stdio *s = h->data;
	s->n_open--;
	maybe_free(s);
}

static void listener_close(struct run_stdio *s)
{
	if (s->listen_fd < 0) return;
	uv_poll_stop(&s->listener);
	close(take_fd(s->listen_fd));
	uv_close((uv_handle_t *)&s->listener, listener_closed);
}

static void maybe_ended(struct run_stdio *s)
{
	if (s->ended || s->n_reading || s->listen_fd >= 0 || !s->start_done) return;
	s->ended = true;
	if (!s->closed) s->ops.ended(s->arg);
}

static void on_alloc(uv_handle_t *h, size_t hint, uv_buf_t *b)
{
	struct stream *st = h->data;
	(void)hint;
	*b = uv_buf_init(st->s->g->read_buf, READ_BYTES);
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b)
{
	struct stream *st = h->data;
	struct run_stdio *s = st->s;
	if (n > 0) s->ops.data(s->arg, st->fd, b->base, (size_t)n);
	if (n >= 0) return;
	stream_close(st); /* the end, or EIO: the last slave side of a terminal is gone */
	maybe_ended(s);
}

/* Take fd (owned from here on) as the loop's side of a stream. */
static int stream_open(struct run_stdio *s, struct stream *st, int which, int fd, struct err *e)
{
	st->s = s;
	st->fd = which;
	uv_pipe_init(loop_uv(s->g->loop), &st->uv, 0);
	st->uv.data = st;
	st->open = true;
	s->n_open++;
	int r = uv_pipe_open(&st->uv, fd);
	if (r == 0) return 0;
	close(fd);
	return err_set(e, CODE_INTERNAL, "open a stream: %s", uv_strerror(r));
}

static int open_pty(struct run_stdio *s, const struct run_stdio_conf *c, struct err *e)
{
	char name[64];
	_cleanup_close_ int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0 || ptsname_r(master, name, sizeof name) != 0)
		return err_sys(e, errno, "make a terminal");
	int slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0) return err_sys(e, errno, "open %s", name);
	s->made[0] = slave;
	for (int i = 0; i < 3; i++) s->child[i] = slave;
	s->pty = master;
	if (c->rows) run_stdio_resize(s, c->rows, c->cols);
	return stream_open(s, &s->out[0], 1, take_fd(master), e);
}

static void stream_read(struct stream *st)
{
	st->reading = true;
	st->s->n_reading++;
	if (!st->s->paused) uv_read_start((uv_stream_t *)&st->uv, on_alloc, on_read);
}

/* The descriptor that a message on a connection of the console socket carries; -1. */
static int receive_fd(int listen_fd)
{
	char text[256], control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {text, sizeof text};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	int fd = -1;
	_cleanup_close_ int c = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	if (c < 0) return -1;
	/* the runtime connects and sends in one go; do not wait for one that does not */
	(void)setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_usec = 200000}, sizeof(struct timeval));
	if (recvmsg(c, &m, MSG_CMSG_CLOEXEC) <= 0) return -1;
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(h), sizeof fd);
	return fd;
}

static void on_console(uv_poll_t *p, int status, int events)
{
	struct run_stdio *s = p->data;
	(void)status, (void)events;
	int fd = receive_fd(s->listen_fd);
	if (fd >= 0 && stream_open(s, &s->out[0], 1, fd, NULL) == 0) {
		s->pty = fd;
		if (s->rows) run_stdio_resize(s, s->rows, s->cols);
		stream_read(&s->out[0]);
		if (s->early.n) run_stdio_write(s, s->early.p, s->early.n, NULL);
		buf_fini(&s->early);
	}
	listener_close(s);
	maybe_ended(s);
}

/* The path may be longer than a socket address: bind by way of the open folder. */
static int open_console(struct run_stdio *s, const struct run_stdio_conf *c, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int p[2];
	_cleanup_close_ int dir = open(c->console_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/%s", dir, c->console_name);
	_cleanup_close_ int l = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (dir < 0 || l < 0 || bind(l, (struct sockaddr *)&a, sizeof a) < 0 || listen(l, 1) < 0 || pipe2(p, O_CLOEXEC) < 0)
		return err_sys(e, errno, "make a console socket");
	s->child[1] = s->child[2] = s->made[2] = p[1];
	s->rows = c->rows;
	s->cols = c->cols;
	s->early.max = 65536;
	s->listen_fd = take_fd(l);
	uv_poll_init(loop_uv(s->g->loop), &s->listener, s->listen_fd);
	s->listener.data = s;
	s->n_open++;
	uv_poll_start(&s->listener, UV_READABLE, on_console);
	return stream_open(s, &s->out[1], 1, p[0], e);
}

static int open_pipes(struct run_stdio *s, const struct run_stdio_conf *c, struct err *e)
{
	for (int i = 0; i < 3; i++) {
		int p[2];
		s->child[i] = c->fds[i];
		if (c->fds[i] >= 0 || (i == 0 && !c->open_stdin)) continue;
		if (pipe2(p, O_CLOEXEC) < 0) return err_sys(e, errno, "pipe");
		int ours = i == 0 ? p[1] : p[0];
		s->child[i] = s->made[i] = i == 0 ? p[0] : p[1];
		if (stream_open(s, i == 0 ? &s->in : &s->out[i - 1], i, ours, e) < 0) return -1;
	}
	return 0;
}

int run_stdio_open(struct run_engine *g, const struct run_stdio_conf *c, const struct run_stdio_ops *ops, void *arg,
		   struct run_stdio **ret, struct err *e)
{
	struct run_stdio *s = xnew(struct run_stdio);
	s->g = g;
	s->ops = *ops;
	s->arg = arg;
	s->pty = s->listen_fd = -1;
	s->tty = c->tty;
	for (int i = 0; i < 3; i++) s->child[i] = s->made[i] = -1;
	if ((!c->tty ? open_pipes(s, c, e) : c->console_dir ? open_console(s, c, e) : open_pty(s, c, e)) < 0) {
		run_stdio_close(s);
		return -1;
	}
	*ret = s;
	return 0;
}

const int *run_stdio_child_fds(const struct run_stdio *s) { return s->child; }

static void close_made(struct run_stdio *s)
{
	for (int i = 0; i < 3; i++)
		if (s->made[i] >= 0) close(take_fd(s->made[i]));
}

void run_stdio_started(struct run_stdio *s)
{
	close_made(s);
	for (int i = 0; i < 2; i++)
		if (s->out[i].open && !s->out[i].reading) stream_read(&s->out[i]);
	s->start_done = true;
	maybe_ended(s);
}

void run_stdio_pause(struct run_stdio *s, bool paused)
{
	if (s->paused == paused) return;
	s->paused = paused;
	for (int i = 0; i < 2; i++) {
		struct stream *st = &s->out[i];
		if (!st->reading) continue;
		if (paused)
			uv_read_stop((uv_stream_t *)&st->uv);
		else
			uv_read_start((uv_stream_t *)&st->uv, on_alloc, on_read);
	}
}

static void on_written(uv_write_t *req, int status)
{
	struct write_req *w = container_of(req, struct write_req, req);
	struct run_stdio *s = w->s;
	(void)status; /* a reader that has gone takes nothing more: not our error */
	free(w);
	struct stream *st = s->tty ? &s->out[0] : &s->in;
	if (s->closed || (st->open && uv_stream_get_write_queue_size((uv_stream_t *)&st->uv) > 0)) return;
	if (s->eof_wanted) stream_close(&s->in);
	s->ops.drained(s->arg);
}

int run_stdio_write(struct run_stdio *s, const void *p, size_t n, struct err *e)
{
	struct stream *st = s->tty ? &s->out[0] : &s->in;
	if (s->listen_fd >= 0)
		return buf_add(&s->early, n ? p : "\4", n ? n : 1) < 0
			       ? err_set(e, CODE_RESOURCE_EXHAUSTED, "too much input for a terminal that is not there yet")
			       : 0;
	if (!st->open || s->eof_wanted) return err_set(e, CODE_FAILED_PRECONDITION, "stdin is closed");
	const char eof[1] = {4}; /* ^D: a terminal cannot be half closed */
	if (n == 0 && !s->tty) {
		s->eof_wanted = true; /* libuv writes nothing more after a close: not before all is written */
		if (uv_stream_get_write_queue_size((uv_stream_t *)&st->uv) == 0) stream_close(st);
		return 0;
	}
	if (n == 0) p = eof, n = 1;
	struct write_req *w = xmalloc(sizeof *w + n);
	w->s = s;
	memcpy(w->bytes, p, n);
	uv_buf_t b = uv_buf_init(w->bytes, (unsigned)n);
	int r = uv_write(&w->req, (uv_stream_t *)&st->uv, &b, 1, on_written);
	if (r == 0) return 0;
	free(w);
	return err_set(e, CODE_INTERNAL, "write to stdin: %s", uv_strerror(r));
}

void run_stdio_resize(struct run_stdio *s, unsigned short rows, unsigned short cols)
{
	struct winsize ws = {.ws_row = rows, .ws_col = cols};
	s->rows = rows, s->cols = cols;
	if (s->pty >= 0) (void)ioctl(s->pty, TIOCSWINSZ, &ws);
}

bool run_stdio_has_ended(const struct run_stdio *s) { return s->ended; }

void run_stdio_child_gone(struct run_stdio *s)
{
	if (s->listen_fd >= 0) on_console(&s->listener, 0, 0); /* it may be waiting to be accepted */
}

void run_stdio_cut(struct run_stdio *s)
{
	listener_close(s);
	stream_close(&s->in);
	stream_close(&s->out[0]);
	stream_close(&s->out[1]);
	s->pty = -1;
	s->start_done = true;
	maybe_ended(s);
}

void run_stdio_close(struct run_stdio *s)
{
	if (!s) return;
	s->closed = true;
	close_made(s);
	listener_close(s);
	stream_close(&s->in);
	stream_close(&s->out[0]);
	stream_close(&s->out[1]);
	maybe_free(s);
}
