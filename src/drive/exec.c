/* A process in a container. The engine answers POST /exec/ID/start with 101 and from then on the connection is the process'
 * stdio: what we send is its stdin; what comes are frames, each of a byte that names the stream (1 stdout, 2 stderr), three
 * zeros, four bytes of length (big endian), and the data. libcurl makes the connection (CURLOPT_CONNECT_ONLY: TLS too) and we
 * speak on it.
 *  1. `held` is what was received and not yet taken: first the head of the answer, then parts of frames.
 *  2. The end of the process is the end of the connection.
 * Source: Docker Engine API, "Attach to a container" (stream format) and "Start an exec instance". */

#include "drive/engine.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

enum { HEAD_MAX = 64 << 10, CHUNK = 32 << 10, FRAME_HEAD = 8, FRAME_MAX = 16 << 20, STOP_MS = 1000, ANSWER_S = 60 };

struct drive_exec {
	struct drive_engine at;
	CURL *curl;
	int sock;
	char id[129];
	struct buf held;
	size_t left; /* of the frame that is being taken */
	int stream;
	bool ended;
};

/* ---- the raw connection ---- */

static int await(int sock, short what, int ms)
{
	struct pollfd p = {.fd = sock, .events = what};
	return poll(&p, 1, ms);
}

static int send_all(struct drive_exec *x, const void *p, size_t n, struct err *e)
{
	while (n) {
		size_t sent = 0;
		CURLcode code = curl_easy_send(x->curl, p, n, &sent);
		if (code == CURLE_AGAIN) {
			if (await(x->sock, POLLOUT, ANSWER_S * 1000) == 0)
				return err_set(e, CODE_UNAVAILABLE, "docker engine: takes no bytes");
			continue;
		}
		if (code != CURLE_OK) return err_set(e, CODE_UNAVAILABLE, "docker engine: %s", curl_easy_strerror(code));
		p = (const char *)p + sent;
		n -= sent;
	}
	return 0;
}

/* 1: something came, 0: nothing now, -1; at the end x->ended. */
static int receive(struct drive_exec *x, struct err *e)
{
	size_t got = 0;
	void *room = buf_reserve(&x->held, CHUNK);
	if (!room) return err_set(e, CODE_RESOURCE_EXHAUSTED, "docker engine: an endless answer");
	CURLcode code = curl_easy_recv(x->curl, room, CHUNK, &got);
	if (code == CURLE_AGAIN) return 0;
	if (code != CURLE_OK) return err_set(e, CODE_UNAVAILABLE, "docker engine: %s", curl_easy_strerror(code));
	if (!got) x->ended = true;
	x->held.n += got;
	return 1;
}

static int read_head(struct drive_exec *x, struct err *e)
{
	for (;;) {
		const char *s = buf_str(&x->held), *end = strstr(s, "\r\n\r\n");
		if (end) {
			long status = strncmp(s, "HTTP/1.", 7) == 0 && x->held.n > 12 ? strtol(s + 9, NULL, 10) : 0;
			size_t head = (size_t)(end - s) + 4;
			if (status != 101 && status != 200)
				return drive_engine_status(status, s + head, x->held.n - head, e);
			buf_consume(&x->held, head);
			return 0;
		}
		if (x->ended || x->held.n > HEAD_MAX)
			return err_set(e, CODE_UNAVAILABLE, "docker engine: no answer to the start of a process");
		int r = receive(x, e);
		if (r < 0) return -1;
		if (r == 0 && await(x->sock, POLLIN, ANSWER_S * 1000) == 0)
			return err_set(e, CODE_UNAVAILABLE, "docker engine: no answer within %d s", ANSWER_S);
	}
}

static int connect_raw(struct drive_exec *x, struct err *e)
{
	static const char body[] = "{\"Detach\":false,\"Tty\":false}";
	curl_socket_t sock = CURL_SOCKET_BAD;
	x->curl = drive_engine_curl(&x->at, "/", e);
	if (!x->curl) return -1;
	curl_easy_setopt(x->curl, CURLOPT_CONNECT_ONLY, 1L);
	CURLcode code = curl_easy_perform(x->curl);
	if (code == CURLE_OK) code = curl_easy_getinfo(x->curl, CURLINFO_ACTIVESOCKET, &sock);
	if (code != CURLE_OK)
		return err_set(e, CODE_UNAVAILABLE, "failed to connect to the docker API at %s: %s", x->at.host,
			       curl_easy_strerror(code));
	x->sock = sock;
	_cleanup_buf_ struct buf q = BUF_INIT;
	buf_addf(&q,
		 "POST /exec/%s/start HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nConnection: "
		 "Upgrade\r\nUpgrade: tcp\r\n"
		 "Content-Length: %zu\r\n\r\n%s",
		 x->id, sizeof body - 1, body);
	return send_all(x, q.p, q.n, e) < 0 ? -1 : read_head(x, e);
}

static json_t *exec_config(const char *const *argv)
{
	json_t *cmd = json_array();
	for (; *argv; argv++) json_array_append_new(cmd, json_string(*argv));
	return json_pack("{s:b,s:b,s:b,s:b,s:o}", "AttachStdin", 1, "AttachStdout", 1, "AttachStderr", 1, "Tty", 0, "Cmd", cmd);
}

int drive_exec_start(const struct drive_engine *at, const char *container, const char *const *argv, struct drive_exec **ret,
		     struct err *e)
{
	_cleanup_free_ char *path = xasprintf("/containers/%s/exec", container);
	json_t *answer;
	if (drive_engine_post(at, path, exec_config(argv), &answer, e) < 0) return -1;
	const char *id = json_string_value(json_object_get(answer, "Id"));
	struct drive_exec *x = xnew(struct drive_exec);
	drive_engine_copy(&x->at, at);
	x->sock = -1;
	x->held = BUF_MAX(HEAD_MAX + FRAME_MAX);
	snprintf(x->id, sizeof x->id, "%s", id ? id : "");
	json_decref(answer);
	bool ok = *x->id && !x->id[strspn(x->id, "0123456789abcdef")];
	int rv = ok ? connect_raw(x, e) : err_set(e, CODE_UNKNOWN, "docker engine: an exec without id");
	if (rv == 0)
		*ret = x;
	else
		drive_exec_free(x);
	return rv;
}

void drive_exec_free(struct drive_exec *x)
{
	if (!x) return;
	if (x->curl) curl_easy_cleanup(x->curl);
	buf_fini(&x->held);
	drive_engine_fini(&x->at);
	free(x);
}

/* ---- frames ---- */

/* A part of a frame that is here, its bytes borrowed until take(): 1; 0: none is; -1. */
static int part(struct drive_exec *x, const uint8_t **ret, size_t *ret_n, struct err *e)
{
	while (!x->left) {
		const uint8_t *h = x->held.p;
		if (x->held.n < FRAME_HEAD) return 0;
		x->stream = h[0];
		x->left = (size_t)h[4] << 24 | (size_t)h[5] << 16 | (size_t)h[6] << 8 | h[7];
		if (x->stream > 2 || h[1] || h[2] || h[3])
			return err_set(e, CODE_UNKNOWN, "docker engine: the process' output is not framed");
		buf_consume(&x->held, FRAME_HEAD);
	}
	*ret = x->held.p;
	*ret_n = min_of(x->left, x->held.n);
	return *ret_n > 0;
}

static void take(struct drive_exec *x, size_t n)
{
	x->left -= n;
	buf_consume(&x->held, n);
}

/* Write what has come. */
static int hand_out(struct drive_exec *x, int fd, int errfd, struct err *e)
{
	const uint8_t *p;
	size_t n;
	int r;
	while ((r = part(x, &p, &n, e)) > 0) {
		if (path_write_all(x->stream == 2 ? errfd : fd, p, n, e) < 0) return -1;
		take(x, n);
	}
	return r;
}

static int drain(struct drive_exec *x, int fd, int errfd, struct err *e)
{
	for (;;) {
		int r = receive(x, e);
		if (r < 0) return -1;
		if (hand_out(x, fd, errfd, e) < 0) return -1;
		if (r == 0 || x->ended) return 0;
	}
}

int drive_exec_copy(struct drive_exec *x, int infd, int outfd, int errfd, bool (*stop)(void *arg), void *arg, struct err *e)
{
	bool input = true;
	char chunk[CHUNK];
	while (!(stop && stop(arg))) {
		if (drain(x, outfd, errfd, e) < 0) return -1;
		if (x->ended) return 0;
		struct pollfd p[2] = {{.fd = x->sock, .events = POLLIN}, {.fd = input ? infd : -1, .events = POLLIN}};
		if (poll(p, 2, STOP_MS) < 0 && errno != EINTR) return err_sys(e, errno, "poll");
		if (!p[1].revents) continue;
		ssize_t n = read(infd, chunk, sizeof chunk);
		if (n > 0 && send_all(x, chunk, (size_t)n, e) < 0) return -1;
		if (n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN))) continue;
		input = false;
		shutdown(x->sock, SHUT_WR); /* with TLS this cuts the connection: the client has gone anyway */
	}
	return err_set(e, CODE_CANCELLED, "stopped");
}

int drive_exec_output(struct drive_exec *x, struct buf *out, int *ret_code, struct err *e)
{
	const uint8_t *p;
	size_t n;
	for (int r = 1; !x->ended || r > 0;) {
		if ((r = part(x, &p, &n, e)) > 0) {
			buf_add(out, p, n);
			take(x, n);
		}
		if (r < 0 || (r == 0 && !x->ended && (r = receive(x, e)) < 0)) return -1;
		if (r == 0 && !x->ended && await(x->sock, POLLIN, ANSWER_S * 1000) == 0)
			return err_set(e, CODE_UNAVAILABLE, "docker engine: the process says nothing for %d s", ANSWER_S);
	}
	json_t *state;
	_cleanup_free_ char *path = xasprintf("/exec/%s/json", x->id);
	struct drive_request q = {.method = "GET", .path = path};
	if (drive_engine_call(&x->at, &q, &state, e) < 0) return -1;
	json_t *code = json_object_get(state, "ExitCode");
	*ret_code = json_is_integer(code) ? (int)json_integer_value(code) : -1;
	json_decref(state);
	return 0;
}
