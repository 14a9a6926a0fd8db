/* A pipe over libuv streams: a socket, or two descriptors; with TLS between when asked (OpenSSL over memory BIOs).
 *
 * Sending: write() gathers in `out`; flush() tries to write at once and hands the rest to uv_write as `busy`, while `out`
 * gathers on. With TLS what was gathered in `plain` is encrypted into `out` at flush. Life: conn is set when the stream is
 * ready; close() by the connection lets what is queued go (for LINGER_MS at most), then closes the handles; the struct is freed
 * when libuv has let go of them. */
#include "wire/internal.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

enum { READ_BYTES = 128 << 10, LINGER_MS = 3000, HANDSHAKE_MS = 20000, KEEP_BYTES = 256 << 10, LOW_BYTES = 512 << 10 };
enum { PROBE_AFTER_S = 20, PROBE_EVERY_S = 5, PROBES = 4, UNACKED_MS = 45000 };

struct stream {
	struct wire_pipe pipe;
	struct stream_opts o;
	char *authority, *peer;
	struct wire_conn *conn;
	SSL *ssl;
	BIO *in, *wire_out;
	struct buf plain, out, busy;
	size_t busy_off;
	uv_write_t req;
	bool writing, ready, closing, closed, read_ended;
	int handles;
	struct loop_timer timer; /* handshake, then linger */
};

void stream_close_handle(uv_stream_t *h) { uv_close((uv_handle_t *)h, (uv_close_cb)free); }

/* A peer that died without a word is noticed within a minute: by the kernel's probes when nothing is said, by the limit on
 * unacknowledged bytes when something is. A peer that is only stopped (Ctrl-Z) answers the probes: its kernel does. So a
 * stopped client keeps its connection, which it would lose if HTTP/2 pings decided. */
void stream_tcp_options(uv_tcp_t *h)
{
	int fd, idle = PROBE_AFTER_S, every = PROBE_EVERY_S, count = PROBES, unacked_ms = UNACKED_MS;
	uv_tcp_nodelay(h, 1);
	uv_tcp_keepalive(h, 1, PROBE_AFTER_S);
	if (uv_fileno((uv_handle_t *)h, &fd)) return;
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked_ms, sizeof unacked_ms);
}

static void handle_closed(uv_handle_t *h)
{
	struct stream *s = h->data;
	free(h);
	if (--s->handles) return;
	SSL_free(s->ssl);
	buf_fini(&s->plain);
	buf_fini(&s->out);
	buf_fini(&s->busy);
	free(s->authority);
	free(s->peer);
	free(s);
}

static void stream_close_now(void *arg)
{
	struct stream *s = arg;
	if (s->closed) return;
	s->closed = true;
	loop_timer_stop(&s->timer);
	s->handles = s->o.w == s->o.r ? 1 : 2;
	uv_close((uv_handle_t *)s->o.r, handle_closed);
	if (s->o.w != s->o.r) uv_close((uv_handle_t *)s->o.w, handle_closed);
}

/* The pipe broke: the connection hears it; without one (handshake) whoever waits for it does. */
static void stream_broken(struct stream *s, const struct err *why)
{
	s->read_ended = true;
	if (!s->closed) uv_read_stop(s->o.r);
	if (s->conn) {
		wire_conn_eof(s->conn, why);
	} else if (!s->ready) {
		s->ready = true;
		struct err e = ERR_INIT;
		err_set(&e, CODE_UNAVAILABLE, "%s", why ? why->msg : "the peer closed the connection");
		s->o.ready(s->o.arg, NULL, &e);
		err_fini(&e);
		stream_close_now(s);
	} else if (s->closing) {
		stream_close_now(s);
	}
}

static void stream_broken_uv(struct stream *s, int rv, const char *what)
{
	struct err e = ERR_INIT;
	err_set(&e, CODE_UNAVAILABLE, "%s: %s", what, uv_strerror(rv));
	stream_broken(s, &e);
	err_fini(&e);
}

/* ---- sending ---- */

static void send_more(struct stream *s);

static void trim(struct buf *b)
{
	if (b->cap > KEEP_BYTES)
		buf_fini(b);
	else
		buf_reset(b);
}

static size_t stream_queued(struct wire_pipe *p)
{
	struct stream *s = container_of(p, struct stream, pipe);
	return s->plain.n + s->out.n + s->busy.n - s->busy_off;
}

static void write_done(uv_write_t *req, int status)
{
	struct stream *s = req->data;
	s->writing = false;
	s->busy_off = 0;
	trim(&s->busy);
	if (s->closed) return;
	if (status < 0) {
		buf_reset(&s->out);
		stream_broken_uv(s, status, "write");
		return;
	}
	send_more(s);
	if (s->conn && stream_queued(&s->pipe) < LOW_BYTES) wire_conn_writable(s->conn);
	if (s->closing && !s->writing) stream_close_now(s);
}

static void send_more(struct stream *s)
{
	if (s->writing || !s->out.n || s->closed) return;
	struct buf t = s->busy;
	s->busy = s->out;
	s->out = t;
	uv_buf_t b = uv_buf_init((char *)s->busy.p, (unsigned)s->busy.n);
	int n = uv_try_write(s->o.w, &b, 1);
	s->busy_off = n > 0 ? (size_t)n : 0;
	if (s->busy_off == s->busy.n) {
		s->busy_off = 0;
		trim(&s->busy);
		return;
	}
	b = uv_buf_init((char *)s->busy.p + s->busy_off, (unsigned)(s->busy.n - s->busy_off));
	s->req.data = s;
	s->writing = true;
	int rv = uv_write(&s->req, s->o.w, &b, 1, write_done);
	if (rv < 0) {
		s->writing = false;
		s->busy_off = 0;
		buf_reset(&s->busy);
		stream_broken_uv(s, rv, "write");
	}
}

static void tls_drain(struct stream *s)
{
	size_t n;
	while ((n = BIO_ctrl_pending(s->wire_out)) > 0) {
		int got = BIO_read(s->wire_out, buf_reserve(&s->out, n), (int)n);
		if (got <= 0) break;
		s->out.n += (size_t)got;
	}
}

static void tls_encrypt(struct stream *s)
{
	for (size_t off = 0; off < s->plain.n;) {
		ERR_clear_error();
		int n = SSL_write(s->ssl, s->plain.p + off, (int)min_of(s->plain.n - off, (size_t)READ_BYTES));
		if (n <= 0) break;
		off += (size_t)n;
	}
	trim(&s->plain);
	tls_drain(s);
}

static void stream_write(struct wire_pipe *p, const uint8_t *b, size_t n)
{
	struct stream *s = container_of(p, struct stream, pipe);
	buf_add(s->ssl ? &s->plain : &s->out, b, n);
}

static void stream_flush(struct wire_pipe *p)
{
	struct stream *s = container_of(p, struct stream, pipe);
	if (s->ssl && s->plain.n) tls_encrypt(s);
	send_more(s);
}

static void stream_pipe_close(struct wire_pipe *p)
{
	struct stream *s = container_of(p, struct stream, pipe);
	s->conn = NULL;
	s->closing = true;
	uv_read_stop(s->o.r);
	if (s->ssl && !s->read_ended) {
		SSL_shutdown(s->ssl);
		tls_drain(s);
	}
	stream_flush(p);
	if (s->closed) return;
	if (!s->writing)
		stream_close_now(s);
	else
		loop_timer_start(s->o.loop, &s->timer, LINGER_MS, 0, stream_close_now, s);
}

/* ---- receiving ---- */

static void stream_become_ready(struct stream *s)
{
	static const struct wire_pipe_ops ops = {
		.write = stream_write, .flush = stream_flush, .queued = stream_queued, .close = stream_pipe_close};
	int fd = -1;
	s->ready = true;
	loop_timer_stop(&s->timer);
	s->pipe.ops = &ops;
	s->conn = s->o.handler ? wire_conn_server(s->o.loop, &s->pipe, s->o.handler)
			       : wire_conn_client(s->o.loop, &s->pipe, s->authority);
	if (uv_fileno((uv_handle_t *)s->o.r, &fd)) fd = -1;
	conn_describe(s->conn, fd, s->peer);
	s->o.ready(s->o.arg, s->conn, NULL);
}

static bool tls_handshake(struct stream *s)
{
	ERR_clear_error();
	int rv = SSL_do_handshake(s->ssl);
	int err = rv == 1 ? 0 : SSL_get_error(s->ssl, rv);
	tls_drain(s);
	send_more(s);
	if (rv == 1) {
		stream_become_ready(s);
		return true;
	}
	if (err == SSL_ERROR_WANT_READ || err == SSL_ERROR_WANT_WRITE) return false;
	struct err e = ERR_INIT;
	tls_error(&e, s->ssl, "TLS handshake");
	stream_broken(s, &e);
	err_fini(&e);
	return false;
}

static void tls_feed(struct stream *s, const uint8_t *p, size_t n)
{
	static uint8_t clear[READ_BYTES];
	BIO_write(s->in, p, (int)n);
	if (!s->ready && !tls_handshake(s)) return;
	for (;;) {
		ERR_clear_error();
		int got = SSL_read(s->ssl, clear, sizeof clear);
		if (got > 0) {
			if (s->conn) wire_conn_feed(s->conn, clear, (size_t)got);
			continue;
		}
		int err = SSL_get_error(s->ssl, got);
		if (err == SSL_ERROR_WANT_READ || err == SSL_ERROR_WANT_WRITE) break;
		struct err e = ERR_INIT;
		if (err == SSL_ERROR_ZERO_RETURN)
			stream_broken(s, NULL);
		else {
			tls_error(&e, s->ssl, "TLS");
			stream_broken(s, &e);
		}
		err_fini(&e);
		return;
	}
	tls_drain(s);
	send_more(s);
}

static void alloc_read(uv_handle_t *h, size_t hint, uv_buf_t *b)
{
	static char bytes[READ_BYTES]; /* digested before the next read */
	*b = uv_buf_init(bytes, sizeof bytes);
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b)
{
	struct stream *s = h->data;
	if (!n || s->closed) return;
	if (n == UV_EOF) {
		stream_broken(s, NULL);
	} else if (n < 0) {
		stream_broken_uv(s, (int)n, "read");
	} else if (s->ssl) {
		tls_feed(s, (const uint8_t *)b->base, (size_t)n);
	} else if (s->conn) {
		wire_conn_feed(s->conn, (const uint8_t *)b->base, (size_t)n);
	}
}

static void handshake_late(void *arg)
{
	struct err e = ERR_INIT;
	err_set(&e, CODE_UNAVAILABLE, "TLS handshake: no end after %d s", HANDSHAKE_MS / 1000);
	stream_broken(arg, &e);
	err_fini(&e);
}

void stream_abandon(struct stream *s)
{
	s->ready = s->closing = true;
	stream_close_now(s);
}

struct stream *stream_open(const struct stream_opts *o)
{
	struct stream *s = xnew(struct stream);
	s->o = *o;
	s->authority = xstrdup(o->authority);
	s->peer = xstrdup(o->peer ? o->peer : "");
	s->o.r->data = s->o.w->data = s;
	s->ssl = o->ssl;
	if (s->ssl) {
		s->in = BIO_new(BIO_s_mem());
		s->wire_out = BIO_new(BIO_s_mem());
		SSL_set_bio(s->ssl, s->in, s->wire_out);
		loop_timer_start(o->loop, &s->timer, HANDSHAKE_MS, 0, handshake_late, s);
	}
	uv_read_start(s->o.r, alloc_read, on_read);
	if (!s->ssl)
		stream_become_ready(s);
	else if (!SSL_is_server(s->ssl))
		tls_handshake(s);
	return s;
}
