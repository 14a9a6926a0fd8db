/* HTTP/2 and gRPC: bytes of a peer, to a server and to a client with calls under way, over a pipe that remembers nothing.
 * First byte: 1 a client, 2 a connection inside a call (as a session is); otherwise a server. The next says how the rest is
 * cut. */
#include "fuzz.h"
#include "proto/ops.pb-c.h"
#include "wire/wire.h"

#include <string.h>
#include <uv.h>

static struct loop *l;
static unsigned open_calls, open_conns;
static size_t written;

static void p_write(struct wire_pipe *p, const uint8_t *b, size_t n) { written += n; }
static size_t p_queued(struct wire_pipe *p) { return 0; }
static void p_close(struct wire_pipe *p) {}
static const struct wire_pipe_ops pipe_ops = {.write = p_write, .queued = p_queued, .close = p_close};

static void on_message(struct wire_call *c, const uint8_t *p, size_t n)
{
	struct arena *a = arena_new(1 << 20);
	wire_unpack(&pb__definition__descriptor, p, n, a, NULL);
	arena_free(a);
	wire_call_send(c, p, n);
}
static void on_half(struct wire_call *c) { wire_call_finish(c, NULL); }
static void on_ended(struct wire_call *c, const struct err *status)
{
	if (!status->msg) bug("a status without a text");
	open_calls--;
}
static const struct wire_call_ops ops = {.message = on_message, .half_closed = on_half, .ended = on_ended};

static void inner_start(const struct wire_handler *h, struct wire_call *c)
{
	open_calls++;
	c->ops = &ops;
	wire_call_header(c, "grpc-timeout");
}
static const struct wire_handler inner = {.start = inner_start};

static void conn_closed(void *arg, const struct err *why)
{
	open_conns--;
	if (arg) *(struct wire_conn **)arg = NULL;
}

static bool tunnel;
static void start(const struct wire_handler *h, struct wire_call *c)
{
	if (tunnel) {
		struct wire_conn *in = wire_tunnel_server(c, &inner);
		open_conns++;
		wire_conn_on_closed(in, conn_closed, NULL);
		return;
	}
	inner_start(h, c);
}
static const struct wire_handler handler = {.start = start};

static void turns(int n)
{
	for (int i = 0; i < n; i++) uv_run(loop_uv(l), UV_RUN_NOWAIT);
}

static const uint8_t hello_server[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
		     hello_client[] = "\0\0\0\4\0\0\0\0\0";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	struct wire_pipe pipe = {&pipe_ops};
	uint8_t kind = fuzz_byte(&in), cut = fuzz_byte(&in);
	if (!l) l = loop_new();
	tunnel = kind == 2;
	bool client = kind == 1;
	struct wire_conn *c = client ? wire_conn_client(l, &pipe, "localhost") : wire_conn_server(l, &pipe, &handler);
	open_conns++;
	wire_conn_on_closed(c, conn_closed, &c);
	if (client)
		for (int i = 0; i < 3; i++) {
			struct wire_md md[] = {{"a", "b"}};
			struct wire_call *call = wire_call_open(c, "/a.B/C", md, 1, 0, &ops, NULL);
			open_calls++;
			wire_call_send(call, "\12\1a", 3);
			if (i == 1) wire_call_close_send(call);
		}
	turns(2);
	if (kind < 128) wire_conn_feed(c, client ? hello_client : hello_server, client ? 9 : sizeof hello_server - 1);
	size_t step = cut ? 1 + (size_t)cut * 8 : in.n;
	while (in.n && c) {
		size_t n = min_of(step ? step : 1, in.n);
		uint8_t *piece = xmemdup(in.p, n); /* the sanitizer sees a read beyond */
		wire_conn_feed(c, piece, n);
		free(piece);
		in.p += n;
		in.n -= n;
		turns(1);
	}
	turns(2);
	if (c) wire_conn_eof(c, NULL);
	for (int i = 0; i < 1000 && (open_calls || open_conns); i++) turns(1);
	if (open_calls || open_conns) bug("%u calls and %u connections did not end", open_calls, open_conns);
	return 0;
}
