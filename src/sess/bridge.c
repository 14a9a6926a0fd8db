/* Bridges: bytes both ways until either end is done.
 * 1. The call's window is credited when the socket took the bytes; the socket is read while the call is not congested.
 * 2. The end of one direction is passed on: socket EOF -> half-close (client) or the call's end (server); the call's end or
 *    half-close -> shutdown of writing. The struct is freed when socket and call are both over.
 * Source: BuildKit session/sshforward/copy.go. */
#include "sess/bridge.h"

struct bridge {
	struct loop *loop;
	uv_pipe_t sock;
	struct wire_call *call;
	bool server, closing, closed, reading, eof_in, shut;
	/* guard: where in the stream of agent requests we are */
	bool guarded;
	uint8_t head[4], head_n;
	bool at_type;
	uint32_t left; /* of the request's body */
	size_t writing;
	uint8_t buf[32 << 10];
};
struct put {
	uv_write_t req;
	struct bridge *b;
	size_t credit;
	uint8_t data[];
};

static void bridge_check(struct bridge *b)
{
	if (b->closed && !b->call) free(b);
}

static void on_sock_closed(uv_handle_t *h)
{
	struct bridge *b = h->data;
	b->closed = true;
	bridge_check(b);
}

static void sock_close(struct bridge *b)
{
	if (b->closing) return;
	b->closing = true;
	uv_close((uv_handle_t *)&b->sock, on_sock_closed);
}

/* The socket will bring nothing more, or is broken. */
static void sock_ended(struct bridge *b, bool broken)
{
	if (b->eof_in) return;
	b->eof_in = true;
	if (b->call && broken && !b->server)
		wire_call_cancel(b->call);
	else if (b->call && b->server)
		wire_call_finish(b->call, NULL);
	else if (b->call)
		wire_call_close_send(b->call);
	if (broken || !b->call) sock_close(b);
}

static void on_alloc(uv_handle_t *h, size_t want, uv_buf_t *ret)
{
	struct bridge *b = h->data;
	*ret = uv_buf_init((char *)b->buf, sizeof b->buf);
}

static void on_read(uv_stream_t *st, ssize_t n, const uv_buf_t *buf)
{
	struct bridge *b = st->data;
	if (n < 0) {
		sock_ended(b, n != UV_EOF);
		return;
	}
	if (n && b->call) wire_call_send_bytes(b->call, b->buf, (size_t)n);
	if (b->call && wire_call_congested(b->call)) {
		uv_read_stop(st);
		b->reading = false;
	}
}

static void read_on(struct bridge *b)
{
	if (b->reading || b->eof_in || b->closing) return;
	b->reading = true;
	if (uv_read_start((uv_stream_t *)&b->sock, on_alloc, on_read) < 0) sock_ended(b, true);
}

/* All is written and the call brings no more: pass the end on. */
static void shut(struct bridge *b)
{
	if (b->writing || b->closing) return;
	int fd;
	if (!b->call)
		sock_close(b);
	else if (uv_fileno((uv_handle_t *)&b->sock, &fd) == 0)
		shutdown(fd, SHUT_WR);
}

static void on_written(uv_write_t *req, int status)
{
	struct put *p = container_of(req, struct put, req);
	struct bridge *b = p->b;
	b->writing--;
	if (b->call) wire_call_consumed(b->call, p->credit);
	free(p);
	if (status < 0)
		sock_ended(b, true);
	else if (b->shut)
		shut(b);
}

/* SSH agent protocol: 4 bytes of length, big-endian, then a type byte and more. */
static void guard(struct bridge *b, uint8_t *p, size_t n)
{
	enum { LIST = 11, SIGN = 13, UNKNOWN = 255 };
	for (size_t i = 0; i < n;) {
		if (b->left && b->at_type) {
			if (p[i] != LIST && p[i] != SIGN) p[i] = UNKNOWN;
			b->at_type = false;
		}
		if (b->left) {
			size_t some = min_of((size_t)b->left, n - i);
			b->left -= (uint32_t)some;
			i += some;
			continue;
		}
		b->head[b->head_n++] = p[i++];
		if (b->head_n < 4) continue;
		b->left = (uint32_t)b->head[0] << 24 | (uint32_t)b->head[1] << 16 | (uint32_t)b->head[2] << 8 | b->head[3];
		b->head_n = 0;
		b->at_type = true;
	}
}

static void on_message(struct wire_call *c, const uint8_t *p, size_t n)
{
	struct bridge *b = c->user;
	const uint8_t *data;
	size_t len;
	if (b->closing || b->shut || wire_bytes_get(p, n, &data, &len, NULL) < 0 || !len) {
		wire_call_consumed(c, n);
		return;
	}
	struct put *put = xmalloc(sizeof *put + len);
	put->b = b;
	put->credit = n;
	memcpy(put->data, data, len);
	if (b->guarded) guard(b, put->data, len);
	uv_buf_t buf = uv_buf_init((char *)put->data, (unsigned)len);
	b->writing++;
	if (uv_write(&put->req, (uv_stream_t *)&b->sock, &buf, 1, on_written) == 0) return;
	b->writing--;
	free(put);
	sock_ended(b, true);
}

static void on_half_closed(struct wire_call *c)
{
	struct bridge *b = c->user;
	b->shut = true;
	shut(b);
}

static void on_writable(struct wire_call *c) { read_on(c->user); }

static void on_ended(struct wire_call *c, const struct err *status)
{
	struct bridge *b = c->user;
	b->call = NULL;
	b->shut = true;
	if (status->code == CODE_OK)
		shut(b);
	else
		sock_close(b);
	bridge_check(b);
}

static const struct wire_call_ops bridge_ops = {
	.message = on_message, .half_closed = on_half_closed, .writable = on_writable, .ended = on_ended};

struct bridge *bridge_new(struct loop *l, bool server)
{
	struct bridge *b = xnew(struct bridge);
	b->loop = l;
	b->server = server;
	if (uv_pipe_init(loop_uv(l), &b->sock, 0) < 0) bug("uv_pipe_init");
	b->sock.data = b;
	return b;
}

int bridge_open(struct bridge *b, int fd, struct err *e)
{
	int rc = uv_pipe_open(&b->sock, fd);
	if (rc == 0) return 0;
	close(fd);
	return err_set(e, CODE_INVALID_ARGUMENT, "not a stream socket: %s", uv_strerror(rc));
}

int bridge_accept(struct bridge *b, uv_stream_t *listener) { return uv_accept(listener, (uv_stream_t *)&b->sock); }

void bridge_start(struct bridge *b, struct wire_call *call)
{
	b->call = call;
	call->ops = &bridge_ops;
	call->user = b;
	wire_call_manual_credit(call);
	read_on(b);
}

void bridge_guard_agent(struct bridge *b) { b->guarded = true; }
void bridge_drop(struct bridge *b) { sock_close(b); }
