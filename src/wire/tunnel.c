/* A connection inside a call of another connection: the pipe is the call, its bytes are BytesMessages.
 * What the inner connection writes is gathered until its flush, so that a burst of frames is one message (at most CHUNK bytes).
 * Incoming bytes are credited when the inner connection has digested them: what is then still unconsumed is bounded by the
 * inner windows. (Holding the outer window back instead would let one stalled inner call stop all the others.) Lifetime: until
 * the inner connection closed the pipe and the call has ended. */
#include "wire/internal.h"

enum { CHUNK = 256 << 10, CANCEL_AFTER_MS = 1000 };

struct tunnel {
	struct wire_pipe pipe;
	struct wire_call *call; /* NULL: ended */
	struct wire_conn *conn; /* NULL: closed */
	struct loop_timer cancel;
	struct buf out;
};

static void tunnel_unref(struct tunnel *t)
{
	if (t->call || t->conn) return;
	loop_timer_stop(&t->cancel);
	buf_fini(&t->out);
	free(t);
}

static void tunnel_flush(struct wire_pipe *p)
{
	struct tunnel *t = container_of(p, struct tunnel, pipe);
	if (!t->out.n) return;
	if (t->call && wire_call_send_bytes(t->call, t->out.p, t->out.n) < 0 && t->conn) {
		struct err e = ERR_INIT;
		err_set(&e, CODE_UNAVAILABLE, "the call beneath the connection takes no more");
		wire_conn_eof(t->conn, &e);
		err_fini(&e);
	}
	buf_reset(&t->out);
}

static void tunnel_write(struct wire_pipe *p, const uint8_t *b, size_t n)
{
	struct tunnel *t = container_of(p, struct tunnel, pipe);
	while (n) {
		size_t k = min_of(n, CHUNK - t->out.n);
		buf_add(&t->out, b, k);
		b += k;
		n -= k;
		if (t->out.n == CHUNK) tunnel_flush(p);
	}
}

static size_t tunnel_queued(struct wire_pipe *p)
{
	struct tunnel *t = container_of(p, struct tunnel, pipe);
	return t->out.n + (t->call ? wire_call_queued(t->call) : 0);
}

static void tunnel_cancel(void *arg)
{
	struct tunnel *t = arg;
	if (t->call) wire_call_cancel(t->call);
}

static void tunnel_close(struct wire_pipe *p)
{
	struct tunnel *t = container_of(p, struct tunnel, pipe);
	tunnel_flush(p);
	t->conn = NULL;
	if (t->call && t->call->conn->handler) {
		wire_call_finish(t->call, NULL);
	} else if (t->call) { /* the peer answers by its end; if it does not, cancel */
		wire_call_close_send(t->call);
		loop_timer_start(t->call->conn->loop, &t->cancel, CANCEL_AFTER_MS, 0, tunnel_cancel, t);
	}
	tunnel_unref(t);
}

static void carrier_message(struct wire_call *call, const uint8_t *p, size_t n)
{
	struct tunnel *t = call->user;
	const uint8_t *data;
	size_t data_n;
	struct err e = ERR_INIT;
	if (!t->conn) return;
	if (wire_bytes_get(p, n, &data, &data_n, &e) < 0)
		wire_conn_eof(t->conn, &e);
	else
		wire_conn_feed(t->conn, data, data_n);
	err_fini(&e);
}

static void carrier_half_closed(struct wire_call *call)
{
	struct tunnel *t = call->user;
	if (t->conn) wire_conn_eof(t->conn, NULL);
}

static void carrier_writable(struct wire_call *call)
{
	struct tunnel *t = call->user;
	if (t->conn) wire_conn_writable(t->conn);
}

static void carrier_ended(struct wire_call *call, const struct err *status)
{
	struct tunnel *t = call->user;
	t->call = NULL;
	if (t->conn) wire_conn_eof(t->conn, status->code ? status : NULL);
	tunnel_unref(t);
}

static struct wire_conn *tunnel_open(struct wire_call *call, const struct wire_handler *h, const char *authority)
{
	static const struct wire_pipe_ops pipe_ops = {
		.write = tunnel_write, .flush = tunnel_flush, .queued = tunnel_queued, .close = tunnel_close};
	static const struct wire_call_ops call_ops = {.message = carrier_message,
						      .half_closed = carrier_half_closed,
						      .writable = carrier_writable,
						      .ended = carrier_ended};
	struct tunnel *t = xnew(struct tunnel);
	struct loop *l = call->conn->loop;
	t->pipe.ops = &pipe_ops;
	t->call = call;
	call->ops = &call_ops;
	call->user = t;
	t->conn = h ? wire_conn_server(l, &t->pipe, h) : wire_conn_client(l, &t->pipe, authority);
	conn_describe(t->conn, -1, "tunnel");
	wire_call_send_headers(call);
	return t->conn;
}

struct wire_conn *wire_tunnel_client(struct wire_call *call, const char *authority)
{
	return tunnel_open(call, NULL, authority);
}
struct wire_conn *wire_tunnel_server(struct wire_call *call, const struct wire_handler *h)
{
	return tunnel_open(call, h, NULL);
}
