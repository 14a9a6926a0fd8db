/* The debug address: libmicrohttpd on our loop, without a thread of its own. It keeps its sockets in an epoll descriptor; the
 * loop watches that one, and a timer stands for its time-outs.
 *
 *  1. GET and HEAD of a table of pages; anything else is 404 or 405 with a text that says what there is.
 *  2. Bounded: connections, memory a connection, time a connection, no request bodies.
 *  3. Permission is that of the address: as with BuildKit, setting it is the decision to show this to whoever can reach it. */
#include "tele/tele.h"

#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { CONNECTIONS_MAX = 16, CONNECTION_BYTES = 16 << 10, IDLE_S = 10, BACKLOG = 16 };

struct tele_http {
	struct loop *loop;
	struct tele_http_conf conf;
	struct MHD_Daemon *mhd;
	uv_poll_t *poll;
	struct loop_timer timer;
	char *addr, *unix_path;
	bool running; /* within MHD_run */
};

/* ---- pages ---- */

static void metrics(struct tele_http *h, struct buf *out)
{
	if (h->conf.before) h->conf.before(h->conf.arg);
	tele_process();
	tele_prometheus(out);
}

static void vars(struct tele_http *h, struct buf *out)
{
	if (h->conf.before) h->conf.before(h->conf.arg);
	tele_process();
	tele_json(out);
}

static void list(struct tele_http *h, struct buf *out)
{
	buf_adds(out, "/metrics\tcounters in Prometheus' text format\n/debug/vars\tthe same as JSON\n");
	for (const struct tele_page *p = h->conf.pages; p && p->path; p++) buf_addf(out, "%s\t%s\n", p->path, p->help);
}

struct own_page {
	const char *path, *type;
	void (*fill)(struct tele_http *h, struct buf *out);
};
static const struct own_page own_pages[] = {
	{"/", "text/plain; charset=utf-8", list},
	{"/debug", "text/plain; charset=utf-8", list},
	{"/debug/", "text/plain; charset=utf-8", list},
	{"/metrics", "text/plain; version=0.0.4; charset=utf-8", metrics},
	{"/debug/vars", "application/json; charset=utf-8", vars},
};

/* The content type, or NULL: there is no such page. */
static const char *fill_page(struct tele_http *h, const char *path, struct buf *out)
{
	for (size_t i = 0; i < array_len(own_pages); i++)
		if (!strcmp(path, own_pages[i].path)) {
			own_pages[i].fill(h, out);
			return own_pages[i].type;
		}
	for (const struct tele_page *p = h->conf.pages; p && p->path; p++)
		if (!strcmp(path, p->path)) {
			p->fill(h->conf.arg, out);
			return p->type;
		}
	return NULL;
}

/* ---- requests ---- */

static enum MHD_Result answer(struct MHD_Connection *c, unsigned status, const char *type, struct buf *body)
{
	struct MHD_Response *r =
		MHD_create_response_from_buffer(body->n, (void *)(uintptr_t)buf_str(body), MHD_RESPMEM_MUST_COPY);
	if (!r) return MHD_NO;
	MHD_add_response_header(r, "Content-Type", type);
	MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
	MHD_add_response_header(r, "Cache-Control", "no-store");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED) MHD_add_response_header(r, "Allow", "GET, HEAD");
	enum MHD_Result ok = MHD_queue_response(c, status, r);
	MHD_destroy_response(r);
	return ok;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url, const char *method, const char *version,
				  const char *upload, size_t *upload_n, void **state)
{
	static const char text[] = "text/plain; charset=utf-8";
	struct tele_http *h = arg;
	_cleanup_buf_ struct buf body = BUF_INIT;
	if (strcmp(method, "GET") && strcmp(method, "HEAD")) {
		buf_addf(&body, "%s is not allowed here: GET or HEAD\n", strlen(method) < 16 ? method : "this method");
		return answer(c, MHD_HTTP_METHOD_NOT_ALLOWED, text, &body);
	}
	const char *type = fill_page(h, url, &body);
	if (type) return answer(c, MHD_HTTP_OK, type, &body);
	buf_adds(&body, str_starts(url, "/debug/pprof")
				? "not found: there is no Go runtime in here to be profiled; use perf. There is:\n"
				: "not found; there is:\n");
	list(h, &body);
	return answer(c, MHD_HTTP_NOT_FOUND, text, &body);
}

/* ---- the loop ---- */

static void turn(void *arg)
{
	struct tele_http *h = arg;
	if (h->running) return;
	h->running = true;
	MHD_run(h->mhd);
	h->running = false;
	MHD_UNSIGNED_LONG_LONG ms;
	if (MHD_get_timeout(h->mhd, &ms) == MHD_YES)
		loop_timer_start(h->loop, &h->timer, ms, 0, turn, h);
	else
		loop_timer_stop(&h->timer);
}

static void readable(uv_poll_t *p, int status, int events) { turn(p->data); }

/* ---- opening ---- */

static int listen_unix(struct tele_http *h, const char *path, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct stat st;
	if (*path != '/' || strlen(path) >= sizeof a.sun_path)
		return err_set(e, CODE_INVALID_ARGUMENT, "unix://%s: expected an absolute path of at most %zu bytes", path,
			       sizeof a.sun_path - 1);
	memcpy(a.sun_path, path, strlen(path) + 1);
	_cleanup_free_ char *dir = path_dir(path);
	if (path_mkdirs(dir, 0711, e) < 0) return -1;
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) unlink(path);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0) return err_sys(e, errno, "bind %s", path);
	h->unix_path = xstrdup(path);
	if (chmod(path, 0660) < 0 || listen(fd, BACKLOG) < 0) return err_sys(e, errno, "listen on %s", path);
	h->addr = xasprintf("unix://%s", path);
	return take_fd(fd);
}

static int split(const char *s, char **ret_host, char **ret_port, struct err *e)
{
	const char *colon = strrchr(s, ':');
	if (!colon || !colon[1]) return err_set(e, CODE_INVALID_ARGUMENT, "%s: expected HOST:PORT", s);
	bool brackets = *s == '[' && colon > s && colon[-1] == ']';
	*ret_host = brackets ? xstrndup(s + 1, (size_t)(colon - s) - 2) : xstrndup(s, (size_t)(colon - s));
	*ret_port = xstrdup(colon + 1);
	return 0;
}

static int bind_first(const struct addrinfo *list, struct err *e)
{
	int why = EADDRNOTAVAIL;
	for (const struct addrinfo *a = list; a; a = a->ai_next) {
		int on = 1;
		_cleanup_close_ int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (fd < 0) continue;
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
		if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) return take_fd(fd);
		why = errno;
	}
	return err_sys(e, why, "listen");
}

static int listen_tcp(struct tele_http *h, const char *s, struct err *e)
{
	_cleanup_free_ char *host = NULL, *port = NULL;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
	if (split(s, &host, &port, e) < 0) return -1;
	int r = getaddrinfo(*host ? host : NULL, port, &hints, &found);
	if (r) return err_set(e, CODE_INVALID_ARGUMENT, "%s: %s", s, gai_strerror(r));
	int fd = bind_first(found, e);
	freeaddrinfo(found);
	if (fd < 0) return -1;
	struct sockaddr_storage a;
	socklen_t n = sizeof a;
	char name[NI_MAXHOST] = "", number[NI_MAXSERV] = "";
	getsockname(fd, (struct sockaddr *)&a, &n);
	getnameinfo((struct sockaddr *)&a, n, name, sizeof name, number, sizeof number, NI_NUMERICHOST | NI_NUMERICSERV);
	h->addr = xasprintf(strchr(name, ':') ? "tcp://[%s]:%s" : "tcp://%s:%s", name, number);
	return fd;
}

static int start(struct tele_http *h, int fd, struct err *e)
{
	h->mhd = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, on_request, h, MHD_OPTION_LISTEN_SOCKET, fd,
				  MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
				  (unsigned)IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
				  MHD_OPTION_END);
	if (!h->mhd) return err_set(e, CODE_INTERNAL, "libmicrohttpd does not start: %s", strerror(errno)); /* it closed fd */
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->mhd, MHD_DAEMON_INFO_EPOLL_FD);
	h->poll = xnew(uv_poll_t);
	h->poll->data = h;
	if (!info || uv_poll_init(loop_uv(h->loop), h->poll, info->epoll_fd)) {
		free(take_ptr(h->poll));
		return err_set(e, CODE_INTERNAL, "libmicrohttpd gives no epoll descriptor");
	}
	uv_poll_start(h->poll, UV_READABLE, readable);
	return 0;
}

int tele_http_open(struct loop *l, const char *addr, const struct tele_http_conf *conf, struct tele_http **ret, struct err *e)
{
	struct tele_http *h = xnew(struct tele_http);
	int fd;
	h->loop = l;
	h->conf = *conf;
	if (str_starts(addr, "unix://"))
		fd = listen_unix(h, addr + strlen("unix://"), e);
	else if (str_starts(addr, "tcp://") || !strstr(addr, "://"))
		fd = listen_tcp(h, str_starts(addr, "tcp://") ? addr + strlen("tcp://") : addr, e);
	else
		fd = err_set(e, CODE_INVALID_ARGUMENT, "%s: expected HOST:PORT, tcp://HOST:PORT or unix:///PATH", addr);
	if (fd < 0 || start(h, fd, e) < 0) {
		tele_http_close(h);
		return -1;
	}
	*ret = h;
	return 0;
}

const char *tele_http_addr(const struct tele_http *h) { return h->addr; }

void tele_http_close(struct tele_http *h)
{
	if (!h) return;
	loop_timer_stop(&h->timer);
	if (h->poll) {
		uv_poll_stop(h->poll);
		uv_close((uv_handle_t *)h->poll, (uv_close_cb)free);
	}
	if (h->mhd) MHD_stop_daemon(h->mhd);
	if (h->unix_path) unlink(h->unix_path);
	free(h->unix_path);
	free(h->addr);
	free(h);
}
