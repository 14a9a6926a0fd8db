/* Listeners: unix sockets, TCP (with TLS), and sockets that systemd or a parent passed.
 * A connection that is still in its TLS handshake, or whose first byte is awaited (on_foreign), belongs to its listener;
 * closing the listener drops those. Connections that were handed over do not know their listener any more. */
#include "wire/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { BACKLOG = 512, LISTEN_FD_FIRST = 3 };

struct wire_listener {
	struct loop *loop;
	struct wire_listen_opts o;
	struct ssl_ctx_st *ctx;
	char *addr, *unlink_path;
	VEC(uv_stream_t *) sockets;
	struct list pending; /* not handed over yet */
};

struct pending { /* an accepted connection */
	struct wire_listener *listener;
	struct list link;
	struct stream *stream; /* in its TLS handshake */
	uv_stream_t *h;        /* before there is a stream */
	uv_poll_t *poll;       /* waits for the first byte on fd */
	int fd;
};

static void pending_free(struct pending *p)
{
	if (p->poll) uv_close((uv_handle_t *)p->poll, (uv_close_cb)free);
	if (p->h) stream_close_handle(p->h);
	if (p->fd >= 0) close(p->fd);
	list_del(&p->link);
	free(p);
}

static void stream_ready(void *arg, struct wire_conn *c, const struct err *e)
{
	struct pending *p = arg;
	struct wire_listener *s = p->listener;
	if (c && s->o.on_conn) s->o.on_conn(s->o.arg, c);
	if (!c) log_debug("connection refused: %s", e->msg);
	pending_free(p);
}

static void peer_name(uv_stream_t *h, char *out, size_t n)
{
	struct sockaddr_storage a;
	int len = sizeof a;
	char text[80];
	if (h->type != UV_TCP || uv_tcp_getpeername((uv_tcp_t *)h, (struct sockaddr *)&a, &len)) {
		snprintf(out, n, "%s", h->type == UV_TCP ? "tcp" : "unix");
		return;
	}
	resolve_format(&a, text, sizeof text);
	snprintf(out, n, "tcp %s", text);
}

static void go_ahead(struct pending *p)
{
	struct wire_listener *s = p->listener;
	uv_stream_t *h = take_ptr(p->h);
	char peer[96];
	peer_name(h, peer, sizeof peer);
	struct stream_opts o = {.loop = s->loop,
				.r = h,
				.w = h,
				.ssl = s->ctx ? tls_server_ssl(s->ctx) : NULL,
				.handler = s->o.handler,
				.peer = peer,
				.ready = stream_ready,
				.arg = p};
	bool later = o.ssl != NULL;
	struct stream *stream = stream_open(&o);
	if (later) p->stream = stream; /* else p is gone */
}

static void first_byte(uv_poll_t *poll, int status, int events)
{
	struct pending *p = poll->data;
	char b;
	ssize_t n = recv(p->fd, &b, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR) && !status) return;
	uv_poll_stop(poll);
	uv_close((uv_handle_t *)take_ptr(p->poll), (uv_close_cb)free);
	if (n != 1) {
		pending_free(p);
	} else if (b == 'P') {
		close(take_fd(p->fd));
		go_ahead(p);
	} else {
		struct wire_listener *s = p->listener;
		int fd = take_fd(p->fd);
		int flags = fcntl(fd, F_GETFL);
		pending_free(p);
		if (flags >= 0) fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
		s->o.on_foreign(s->o.arg, fd);
	}
}

static void await_first_byte(struct pending *p)
{
	int fd;
	if (uv_fileno((uv_handle_t *)p->h, &fd) || (p->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3)) < 0) {
		pending_free(p);
		return;
	}
	p->poll = xnew(uv_poll_t);
	if (uv_poll_init(loop_uv(p->listener->loop), p->poll, p->fd)) {
		free(take_ptr(p->poll));
		pending_free(p);
		return;
	}
	p->poll->data = p;
	uv_poll_start(p->poll, UV_READABLE, first_byte);
}

static uv_stream_t *handle_new(struct loop *l, bool tcp)
{
	uv_stream_t *h = tcp ? xcalloc(1, sizeof(uv_tcp_t)) : xcalloc(1, sizeof(uv_pipe_t));
	if (tcp)
		uv_tcp_init(loop_uv(l), (uv_tcp_t *)h);
	else
		uv_pipe_init(loop_uv(l), (uv_pipe_t *)h, 0);
	return h;
}

static void on_accept(uv_stream_t *socket, int status)
{
	struct wire_listener *s = socket->data;
	bool tcp = socket->type == UV_TCP;
	if (status < 0) return;
	struct pending *p = xnew(struct pending);
	p->listener = s;
	p->fd = -1;
	list_add_tail(&s->pending, &p->link);
	p->h = handle_new(s->loop, tcp);
	if (uv_accept(socket, p->h)) {
		pending_free(p);
		return;
	}
	if (tcp) stream_tcp_options((uv_tcp_t *)p->h);
	if (!tcp && s->o.on_foreign)
		await_first_byte(p);
	else
		go_ahead(p);
}

/* Takes the descriptor of a bound socket. */
static int add_socket(struct wire_listener *s, int fd, bool tcp, struct err *e)
{
	uv_stream_t *h = handle_new(s->loop, tcp);
	int rv = tcp ? uv_tcp_open((uv_tcp_t *)h, fd) : uv_pipe_open((uv_pipe_t *)h, fd);
	if (rv) close(fd);
	if (!rv) rv = uv_listen(h, BACKLOG, on_accept);
	if (rv) {
		stream_close_handle(h);
		return err_set(e, CODE_UNAVAILABLE, "listen: %s", uv_strerror(rv));
	}
	h->data = s;
	vec_push(&s->sockets, h);
	return 0;
}

static int unix_address(const char *path, struct sockaddr_un *ret, struct err *e)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (!*path || strlen(path) >= sizeof ret->sun_path)
		return err_set(e, CODE_INVALID_ARGUMENT, "unix socket path \"%s\": 1 to %zu bytes are possible", path,
			       sizeof ret->sun_path - 1);
	memcpy(ret->sun_path, path, strlen(path));
	return 0;
}

static int listen_unix(struct wire_listener *s, const char *path, struct err *e)
{
	struct sockaddr_un a;
	struct stat st;
	if (unix_address(path, &a, e) < 0) return -1;
	_cleanup_free_ char *dir = path_dir(path);
	if (path_mkdirs(dir, 0711, e) < 0) return -1;
	if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		return err_set(e, CODE_FAILED_PRECONDITION, "%s is there and is no socket", path);
	if (unlink(path) < 0 && errno != ENOENT) return err_sys(e, errno, "unlink %s", path);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) return err_sys(e, errno, "socket");
	/* The mode that the socket is born with comes from the descriptor, so there is no moment in which it is wider. */
	mode_t mode = s->o.mode ? s->o.mode : 0660;
	if (fchmod(fd, mode & 0700) < 0) return err_sys(e, errno, "fchmod of a socket");
	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0) return err_sys(e, errno, "listen unix %s: bind", path);
	s->unlink_path = xstrdup(path);
	if (chown(path, s->o.uid, s->o.gid) < 0) return err_sys(e, errno, "chown %s", path);
	if (chmod(path, mode) < 0) return err_sys(e, errno, "chmod %s", path);
	return add_socket(s, take_fd(fd), false, e);
}

static int bind_tcp(const struct sockaddr_storage *a, struct err *e)
{
	char text[80];
	int one = 1;
	socklen_t len = a->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	_cleanup_close_ int fd = socket(a->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) return err_sys(e, errno, "socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	resolve_format(a, text, sizeof text);
	if (bind(fd, (const struct sockaddr *)a, len) < 0) return err_sys(e, errno, "listen tcp %s: bind", text);
	return take_fd(fd);
}

/* One socket, as Go's net.Listen has it: an empty host is [::] where IPv6 is (it takes IPv4 too), a name its first address. */
static int listen_tcp(struct wire_listener *s, const char *hostport, struct err *e)
{
	_cleanup_free_ char *host = NULL, *port = NULL;
	struct addr_list list;
	struct sockaddr_storage a;
	socklen_t len = sizeof a;
	char text[80];
	int fd = -1;
	if (resolve_split(hostport, &host, &port, e) < 0) return -1;
	if (!*host) {
		fd = resolve_host("::", port, true, &list, NULL) < 0 ? -1 : bind_tcp(&list.v[0], NULL);
		if (fd >= 0) goto bound;
	}
	if (resolve_host(*host ? host : "0.0.0.0", port, true, &list, e) < 0) return -1;
	fd = bind_tcp(&list.v[0], e);
	if (fd < 0) return -1;
bound:
	if (getsockname(fd, (struct sockaddr *)&a, &len) == 0) {
		resolve_format(&a, text, sizeof text);
		free(s->addr);
		s->addr = xasprintf("tcp://%s", text);
	}
	return add_socket(s, fd, true, e);
}

static int adopt_fd(struct wire_listener *s, int fd, struct err *e)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof a;
	int listening = 0;
	socklen_t n = sizeof listening;
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) < 0 || getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		return err_sys(e, errno, "descriptor %d is no socket", fd);
	if (!listening) return err_set(e, CODE_INVALID_ARGUMENT, "descriptor %d is not a listening socket", fd);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	return add_socket(s, fd, a.ss_family != AF_UNIX, e);
}

static int activation_count(void)
{
	const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");
	if (!pid || !n || atol(pid) != (long)getpid()) return 0;
	long v = strtol(n, NULL, 10);
	return v > 0 && v < 1000 ? (int)v : 0;
}

static int listen_fd(struct wire_listener *s, const char *which, struct err *e)
{
	char *end;
	long fd = strtol(which, &end, 10);
	int n = activation_count();
	if (*which && strcmp(which, "*")) {
		if (end == which || *end || fd < LISTEN_FD_FIRST || fd > 100000)
			return err_set(e, CODE_INVALID_ARGUMENT,
				       "address \"fd://%s\": want fd://, fd://* or fd://N with N >= 3", which);
		return adopt_fd(s, (int)fd, e);
	}
	if (!n)
		return err_set(e, CODE_FAILED_PRECONDITION,
			       "no sockets via socket activation: LISTEN_PID and LISTEN_FDS are not ours");
	for (int i = 0; i < n; i++)
		if (adopt_fd(s, LISTEN_FD_FIRST + i, e) < 0) return -1;
	return 0;
}

static int listen_at(struct wire_listener *s, const char *addr, struct err *e)
{
	if (str_starts(addr, "unix://")) return listen_unix(s, addr + 7, e);
	if (s->o.tls && !(s->ctx = tls_server_ctx(s->o.tls, e))) return -1;
	if (str_starts(addr, "tcp://")) return listen_tcp(s, addr + 6, e);
	if (str_starts(addr, "fd://")) return listen_fd(s, addr + 5, e);
	return err_set(e, CODE_INVALID_ARGUMENT, "address \"%s\": want unix://, tcp:// or fd://", addr);
}

int wire_listen(struct loop *l, const char *addr, const struct wire_listen_opts *o, struct wire_listener **ret, struct err *e)
{
	struct wire_listener *s = xnew(struct wire_listener);
	s->loop = l;
	s->o = *o;
	s->addr = xstrdup(addr);
	list_init(&s->pending);
	if (listen_at(s, addr, e) < 0) {
		wire_listener_close(s);
		return -1;
	}
	s->o.tls = NULL; /* was read */
	*ret = s;
	return 0;
}

int wire_tls_read(const struct wire_tls *tls, struct ssl_ctx_st **ret, struct err *e)
{
	struct ssl_ctx_st *ctx = tls_server_ctx(tls, e);
	if (!ctx) return -1;
	*ret = ctx;
	return 0;
}

void wire_tls_free(struct ssl_ctx_st *tls)
{
	if (tls) tls_ctx_free(tls);
}

void wire_listener_set_tls(struct wire_listener *s, struct ssl_ctx_st *tls)
{
	if (str_starts(s->addr, "unix://")) return;
	if (tls) tls_ctx_ref(tls);
	if (s->ctx) tls_ctx_free(s->ctx);
	s->ctx = tls;
}

const char *wire_listener_addr(const struct wire_listener *s) { return s->addr; }

void wire_listener_close(struct wire_listener *s)
{
	if (!s) return;
	for (size_t i = 0; i < s->sockets.n; i++) stream_close_handle(s->sockets.v[i]);
	vec_fini(&s->sockets);
	LIST_EACH(&s->pending, struct pending, p, link)
	{
		if (p->stream) stream_abandon(p->stream);
		pending_free(p);
	}
	if (s->unlink_path) unlink(s->unlink_path);
	if (s->ctx) tls_ctx_free(s->ctx);
	free(s->unlink_path);
	free(s->addr);
	free(s);
}
