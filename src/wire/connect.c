/* Outgoing connections: unix sockets and TCP (names are looked up in a job; the addresses are tried in turn), TLS, and
 * connections over descriptors that somebody else opened. */
#include "wire/internal.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/un.h>

enum { CONNECT_MS = 20000 };

struct lookup { /* a job: may outlive its wire_connect, which is NULL then */
	struct loop_job job;
	struct wire_connect *owner;
	char *host, *port;
	struct addr_list found;
	struct err err;
};

struct wire_connect {
	struct loop *loop;
	void (*done)(void *arg, struct wire_conn *c, const struct err *e);
	void *arg;
	char *addr, *authority, *host, *path;
	void *ssl;
	struct lookup *lookup;
	struct addr_list list;
	size_t next;
	uv_stream_t *h;
	struct stream *stream;
	struct loop_timer timer;
	struct err err;
};

static void connect_free(struct wire_connect *c)
{
	loop_timer_stop(&c->timer);
	if (c->lookup) {
		c->lookup->owner = NULL;
		loop_job_cancel(&c->lookup->job);
	}
	if (c->h) {
		c->h->data = NULL;
		stream_close_handle(c->h);
	}
	if (c->stream) stream_abandon(c->stream);
	tls_ssl_free(c->ssl);
	free(c->addr);
	free(c->authority);
	free(c->host);
	free(c->path);
	err_fini(&c->err);
	free(c);
}

void wire_connect_cancel(struct wire_connect *c) { connect_free(c); }

static void connect_failed(void *arg)
{
	struct wire_connect *c = arg;
	err_wrap(&c->err, "connect %s", c->addr);
	c->done(c->arg, NULL, &c->err);
	connect_free(c);
}

static void connect_late(void *arg)
{
	struct wire_connect *c = arg;
	err_set(&c->err, CODE_UNAVAILABLE, "no answer after %d s", CONNECT_MS / 1000);
	connect_failed(c);
}

static void connect_ready(void *arg, struct wire_conn *conn, const struct err *e)
{
	struct wire_connect *c = arg;
	c->stream = NULL;
	if (conn) {
		c->done(c->arg, conn, NULL);
		connect_free(c);
	} else {
		err_copy(&c->err, e);
		connect_failed(c);
	}
}

static void connected(struct wire_connect *c)
{
	bool later = c->ssl != NULL;
	char peer[96];
	snprintf(peer, sizeof peer, "%s", c->addr);
	if (c->h->type == UV_TCP) {
		stream_tcp_options((uv_tcp_t *)c->h);
	}
	struct stream_opts o = {.loop = c->loop,
				.r = c->h,
				.w = c->h,
				.ssl = take_ptr(c->ssl),
				.authority = c->authority,
				.peer = peer,
				.ready = connect_ready,
				.arg = c};
	c->h = NULL;
	struct stream *s = stream_open(&o);
	if (later) c->stream = s; /* the handshake goes on; else c is gone */
}

static void try_next(struct wire_connect *c);

static void on_connect(uv_connect_t *req, int status)
{
	struct wire_connect *c = req->handle->data; /* NULL: cancelled */
	free(req);
	if (!c) return;
	if (!status) {
		connected(c);
		return;
	}
	c->h->data = NULL;
	stream_close_handle(take_ptr(c->h));
	err_set(&c->err, CODE_UNAVAILABLE, "%s", uv_strerror(status));
	try_next(c);
}

static void try_next(struct wire_connect *c)
{
	if (c->next >= c->list.n) {
		connect_failed(c);
		return;
	}
	uv_connect_t *req = xnew(uv_connect_t);
	c->h = xcalloc(1, sizeof(uv_tcp_t));
	uv_tcp_init(loop_uv(c->loop), (uv_tcp_t *)c->h);
	c->h->data = c;
	int rv = uv_tcp_connect(req, (uv_tcp_t *)c->h, (struct sockaddr *)&c->list.v[c->next++], on_connect);
	if (!rv) return;
	free(req);
	stream_close_handle(take_ptr(c->h));
	err_set(&c->err, CODE_UNAVAILABLE, "%s", uv_strerror(rv));
	try_next(c);
}

static void lookup_work(struct loop_job *j)
{
	struct lookup *k = container_of(j, struct lookup, job);
	resolve_host(k->host, k->port, false, &k->found, &k->err);
}

static void lookup_done(struct loop_job *j)
{
	struct lookup *k = container_of(j, struct lookup, job);
	struct wire_connect *c = k->owner;
	if (c) {
		c->lookup = NULL;
		c->list = k->found;
		err_move(&c->err, &k->err);
	}
	free(k->host);
	free(k->port);
	err_fini(&k->err);
	free(k);
	if (c) try_next(c);
}

static int start_tcp(struct wire_connect *c, const char *hostport, struct err *e)
{
	_cleanup_free_ char *host = NULL, *port = NULL;
	if (resolve_split(hostport, &host, &port, e) < 0) return -1;
	struct lookup *k = c->lookup = xnew(struct lookup);
	k->owner = c;
	c->host = xstrdup(host);
	k->host = take_ptr(host);
	k->port = take_ptr(port);
	k->job.work = lookup_work;
	k->job.done = lookup_done;
	loop_job_start(c->loop, &k->job, LOOP_NET);
	return 0;
}

static int start_unix(struct wire_connect *c, const char *path, struct err *e)
{
	struct sockaddr_un a;
	if (!*path || strlen(path) >= sizeof a.sun_path)
		return err_set(e, CODE_INVALID_ARGUMENT, "unix socket path: 1 to %zu bytes are possible",
			       sizeof a.sun_path - 1);
	c->host = xstrdup("localhost");
	c->h = xcalloc(1, sizeof(uv_pipe_t));
	uv_pipe_init(loop_uv(c->loop), (uv_pipe_t *)c->h, 0);
	c->h->data = c;
	uv_pipe_connect(xnew(uv_connect_t), (uv_pipe_t *)c->h, path, on_connect);
	return 0;
}

static int start(struct wire_connect *c, const struct wire_tls *tls, struct err *e)
{
	int rv = -1;
	if (str_starts(c->addr, "unix://"))
		rv = start_unix(c, c->addr + 7, e);
	else if (str_starts(c->addr, "tcp://"))
		rv = start_tcp(c, c->addr + 6, e);
	else
		err_set(e, CODE_INVALID_ARGUMENT, "want unix://path or tcp://host:port");
	if (rv < 0) return -1;
	if (tls && !(c->ssl = tls_client_ssl(tls, c->host, e))) return -1;
	c->authority = xstrdup(str_starts(c->addr, "tcp://") ? c->addr + 6 : "localhost");
	return 0;
}

struct wire_connect *wire_connect(struct loop *l, const char *addr, const struct wire_tls *tls,
				  void (*done)(void *arg, struct wire_conn *c, const struct err *e), void *arg)
{
	struct wire_connect *c = xnew(struct wire_connect);
	c->loop = l;
	c->done = done;
	c->arg = arg;
	c->addr = xstrdup(addr);
	if (start(c, tls, &c->err) < 0) { /* done() comes later all the same */
		if (c->lookup) c->lookup->owner = NULL;
		c->lookup = NULL;
		if (c->h) {
			c->h->data = NULL;
			stream_close_handle(take_ptr(c->h));
		}
		loop_timer_start(l, &c->timer, 0, 0, connect_failed, c);
		return c;
	}
	loop_timer_start(l, &c->timer, CONNECT_MS, 0, connect_late, c);
	return c;
}

/* ---- descriptors ---- */

static void fds_ready(void *arg, struct wire_conn *c, const struct err *e) { *(struct wire_conn **)arg = c; }

static uv_stream_t *stream_of_fd(struct loop *l, int fd, struct err *e)
{
	uv_handle_type type = uv_guess_handle(fd);
	uv_stream_t *h;
	int rv;
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (type == UV_TCP) {
		h = xcalloc(1, sizeof(uv_tcp_t));
		uv_tcp_init(loop_uv(l), (uv_tcp_t *)h);
		rv = uv_tcp_open((uv_tcp_t *)h, fd);
	} else if (type == UV_NAMED_PIPE) {
		h = xcalloc(1, sizeof(uv_pipe_t));
		uv_pipe_init(loop_uv(l), (uv_pipe_t *)h, 0);
		rv = uv_pipe_open((uv_pipe_t *)h, fd);
	} else {
		err_set(e, CODE_INVALID_ARGUMENT, "descriptor %d is neither a pipe nor a socket", fd);
		return NULL;
	}
	if (!rv) return h;
	stream_close_handle(h);
	err_set(e, CODE_UNAVAILABLE, "descriptor %d: %s", fd, uv_strerror(rv));
	return NULL;
}

struct wire_conn *wire_conn_fds(struct loop *l, int rfd, int wfd, const struct wire_handler *h, const char *authority,
				struct err *e)
{
	struct wire_conn *c = NULL;
	uv_stream_t *r = stream_of_fd(l, rfd, e), *w = r;
	if (r && wfd != rfd && !(w = stream_of_fd(l, wfd, e))) {
		stream_close_handle(r);
		close(wfd);
		return NULL;
	}
	if (!r) {
		close(rfd);
		if (wfd != rfd) close(wfd);
		return NULL;
	}
	struct stream_opts o = {
		.loop = l, .r = r, .w = w, .handler = h, .authority = authority, .peer = "fd", .ready = fds_ready, .arg = &c};
	stream_open(&o);
	return c;
}
