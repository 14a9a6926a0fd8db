/* Reaching a daemon: sockets, and helper programs that give a daemon's stdio. */
#include "cli/internal.h"
#include "spec/url.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

struct dial {
	struct cli *cli;
	bool done;
	struct err err;
	struct wire_connect *pending;
	struct loop_timer timer;
};

static void conn_closed(void *arg, const struct err *why)
{
	struct cli *c = arg;
	c->conn = NULL;
}

void cli_take_conn(struct cli *c, struct wire_conn *conn)
{
	c->conn = conn;
	wire_conn_on_closed(conn, conn_closed, c);
}

static void dial_done(void *arg, struct wire_conn *conn, const struct err *e)
{
	struct dial *d = arg;
	d->done = true;
	d->pending = NULL;
	if (conn)
		cli_take_conn(d->cli, conn);
	else
		err_copy(&d->err, e);
}

static void dial_late(void *arg)
{
	struct dial *d = arg;
	d->done = true;
	if (d->pending) wire_connect_cancel(d->pending);
	d->pending = NULL;
	err_set(&d->err, CODE_UNAVAILABLE, "i/o timeout");
}

/* wire says "connect ADDR: why"; grpc-go's words are what scripts look for. */
static int dial_error(const char *addr, const char *said, struct err *e)
{
	_cleanup_free_ char *prefix = xasprintf("connect %s: ", addr);
	const char *why = str_starts(said, prefix) ? said + strlen(prefix) : said, *sep = strstr(addr, "://");
	if (!sep)
		return err_set(e, CODE_UNAVAILABLE,
			       "connection error: desc = \"transport: Error while dialing: dial tcp: address %s: missing port "
			       "in address\"",
			       addr);
	return err_set(e, CODE_UNAVAILABLE,
		       "connection error: desc = \"transport: Error while dialing: dial %.*s %s: connect: %s\"",
		       (int)(sep - addr), addr, sep + 3, why);
}

static int dial_socket(struct cli *c, const char *addr, const struct wire_tls *tls, uint64_t timeout_ms, struct err *e)
{
	struct dial d = {.cli = c};
	d.pending = wire_connect(c->loop, addr, tls, dial_done, &d);
	if (timeout_ms) loop_timer_start(c->loop, &d.timer, timeout_ms, 0, dial_late, &d);
	cli_wait(c, &d.done);
	loop_timer_stop(&d.timer);
	_cleanup_err_ struct err why = d.err;
	return c->conn ? 0 : dial_error(addr, why.msg ? why.msg : "failed", e);
}

/* ---- helper programs ---- */
static const char *query_or(const struct spec_query *q, const char *key)
{
	const char *s = spec_query_get(q, key);
	return s ? s : "";
}

static void argv_docker(const struct spec_url *u, const struct spec_query *q, struct strvec *argv)
{
	const char *context = query_or(q, "context");
	strvec_add(argv, "docker");
	if (*context) strvec_addf(argv, "--context=%s", context);
	for (const char *const *p = (const char *const[]){"exec", "-i", u->host, "buildctl", "dial-stdio", NULL}; *p; p++)
		strvec_add(argv, *p);
}

static void argv_podman(const struct spec_url *u, const struct spec_query *q, struct strvec *argv)
{
	for (const char *const *p = (const char *const[]){"podman", "exec", "-i", u->host, "buildctl", "dial-stdio", NULL}; *p;
	     p++)
		strvec_add(argv, *p);
}

static void argv_nerdctl(const struct spec_url *u, const struct spec_query *q, struct strvec *argv)
{
	const char *ns = query_or(q, "namespace");
	strvec_add(argv, "nerdctl");
	strvec_add(argv, "exec");
	if (*ns) {
		strvec_add(argv, "--namespace");
		strvec_add(argv, ns);
	}
	for (const char *const *p = (const char *const[]){"-i", u->host, "buildctl", "dial-stdio", NULL}; *p; p++)
		strvec_add(argv, *p);
}

static void argv_kube(const struct spec_url *u, const struct spec_query *q, struct strvec *argv)
{
	strvec_add(argv, "kubectl");
	strvec_addf(argv, "--context=%s", query_or(q, "context"));
	strvec_addf(argv, "--namespace=%s", query_or(q, "namespace"));
	strvec_add(argv, "exec");
	strvec_addf(argv, "--container=%s", query_or(q, "container"));
	for (const char *const *p = (const char *const[]){"-i", u->host, "--", "buildctl", "dial-stdio", NULL}; *p; p++)
		strvec_add(argv, *p);
}

static void argv_ssh(const struct spec_url *u, const struct spec_query *q, struct strvec *argv)
{
	const char *colon = strrchr(u->host, ':');
	strvec_add(argv, "ssh");
	if (u->has_user) {
		strvec_add(argv, "-l");
		strvec_add(argv, u->user);
	}
	if (colon) {
		strvec_add(argv, "-p");
		strvec_add(argv, colon + 1);
	}
	strvec_add(argv, "--");
	strvec_take(argv, xstrndup(u->host, colon ? (size_t)(colon - u->host) : strlen(u->host)));
	strvec_add(argv, "buildctl");
	if (u->path[0] && strcmp(u->path, "/") != 0) {
		strvec_add(argv, "--addr");
		strvec_addf(argv, "unix://%s", u->path);
	}
	strvec_add(argv, "dial-stdio");
}

static const struct {
	const char *scheme;
	void (*argv)(const struct spec_url *u, const struct spec_query *q, struct strvec *argv);
} helpers[] = {
	{"docker-container", argv_docker},
	{"podman-container", argv_podman},
	{"nerdctl-container", argv_nerdctl},
	{"kube-pod", argv_kube},
	{"ssh", argv_ssh},
};

static void helper_exited(struct loop_child *child, int status, int term_signal)
{
	struct cli *c = container_of(child, struct cli, helper);
	c->has_helper = false;
}

static int dial_helper(struct cli *c, const char *addr, size_t which, struct err *e)
{
	_cleanup_spec_url_ struct spec_url u = {0};
	struct spec_query q = {0};
	_cleanup_strvec_ struct strvec argv = {0};
	int fds[2];
	if (spec_url_parse(addr, &u, e) < 0) return -1;
	if (!*u.host || *u.host == '-') return err_set(e, CODE_INVALID_ARGUMENT, "url lacks a name: %s", addr);
	if (spec_query_parse(u.raw_query, &q, e) < 0) {
		spec_query_fini(&q);
		return -1;
	}
	helpers[which].argv(&u, &q, &argv);
	spec_query_fini(&q);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) return err_sys(e, errno, "socketpair");
	_cleanup_close_ int ours = fds[0], theirs = fds[1];
	struct loop_child_spec spec = {.argv = argv.v, .stdio = {theirs, theirs, 2}, .extra_fd = -1};
	c->helper.exited = helper_exited;
	if (loop_child_start(c->loop, &c->helper, &spec, e) < 0) return -1;
	c->has_helper = true;
	int fd = take_fd(ours);
	struct wire_conn *conn = wire_conn_fds(c->loop, fd, fd, NULL, u.host, e);
	if (!conn) return -1;
	cli_take_conn(c, conn);
	return 0;
}

int cli_dial(struct cli *c, const char *addr, const struct wire_tls *tls, uint64_t timeout_ms, struct err *e)
{
	for (size_t i = 0; i < array_len(helpers); i++) {
		size_t n = strlen(helpers[i].scheme);
		if (strncmp(addr, helpers[i].scheme, n) == 0 && str_starts(addr + n, "://")) return dial_helper(c, addr, i, e);
	}
	return dial_socket(c, addr, tls, timeout_ms, e);
}

/* ---- dial-stdio ---- */
static int unix_socket(const char *addr, struct err *e)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	const char *sep = strstr(addr, "://");
	if (!sep) return err_set(e, CODE_INVALID_ARGUMENT, "invalid address %s", addr);
	if (!str_starts(addr, "unix://"))
		return err_set(e, CODE_INVALID_ARGUMENT, "invalid address %s (expected unix://, got %.*s://)", addr,
			       (int)(sep - addr), addr);
	if (strlen(sep + 3) >= sizeof sa.sun_path) return err_set(e, CODE_INVALID_ARGUMENT, "socket path too long: %s", addr);
	memcpy(sa.sun_path, sep + 3, strlen(sep + 3));
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) return err_sys(e, errno, "socket");
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0) return err_sys(e, errno, "dial unix %s: connect", sa.sun_path);
	return take_fd(fd);
}

/* One read and all of it written; 0 at the end of the input. */
static int copy_some(int from, int to, struct err *e)
{
	char b[64 << 10];
	ssize_t n = read(from, b, sizeof b);
	if (n < 0 && (errno == EINTR || errno == EAGAIN)) return 1;
	if (n < 0 && errno == ECONNRESET) return 0;
	if (n < 0) return err_sys(e, errno, "read");
	if (n > 0 && path_write_all(to, b, (size_t)n, e) < 0) return -1;
	return n > 0;
}

int cli_dial_stdio(const char *addr, struct err *e)
{
	_cleanup_close_ int sock = unix_socket(addr, e);
	if (sock < 0) return -1;
	struct pollfd p[2] = {{.fd = 0, .events = POLLIN}, {.fd = sock, .events = POLLIN}};
	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR) return err_sys(e, errno, "poll");
		if (p[1].revents) { /* the daemon's end is the end; that of stdin is not */
			int rv = copy_some(sock, 1, e);
			if (rv <= 0) return rv;
		}
		if (p[0].fd >= 0 && p[0].revents) {
			int rv = copy_some(0, sock, e);
			if (rv < 0) return -1;
			if (rv == 0) {
				p[0].fd = -1;
				shutdown(sock, SHUT_WR);
			}
		}
	}
}
