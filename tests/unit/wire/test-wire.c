/* wire: a client and a server on one loop, over a socketpair and over a tunnel inside a call. */
#include "wire/wire.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

static struct loop *l;

/* ---- waiting ---- */

static void timed_out(void *arg) { *(bool *)arg = true; }

/* Late: abort, since a loop with live handles cannot be taken down. */
#define WAIT(cond)                                                                   \
	do {                                                                         \
		struct loop_timer _t = {0};                                          \
		bool _late = false;                                                  \
		loop_timer_start(l, &_t, 10000, 0, timed_out, &_late);               \
		while (!(cond) && !_late) uv_run(loop_uv(l), UV_RUN_ONCE);           \
		loop_timer_stop(&_t);                                                \
		if (!(cond)) bug("waited in vain for %s, line %d", #cond, __LINE__); \
	} while (0)

static void spin_ms(uint64_t ms)
{
	struct loop_timer t = {0};
	bool late = false;
	loop_timer_start(l, &t, ms, 0, timed_out, &late);
	while (!late) uv_run(loop_uv(l), UV_RUN_ONCE);
}

/* ---- the server ---- */

static struct {
	struct err ended; /* status of the last call that ended */
	size_t ended_count, started_count;
	size_t max_queued, sent, got;
	struct wire_call *last;
	struct wire_conn *tunnel;
	bool pause;
} srv;

static void s_ended(struct wire_call *c, const struct err *status)
{
	err_copy(&srv.ended, status);
	srv.ended_count++;
	if (srv.last == c) srv.last = NULL;
}

static void echo_message(struct wire_call *c, const uint8_t *p, size_t n) { assert_int_equal(wire_call_send(c, p, n), 0); }
static void echo_half(struct wire_call *c) { wire_call_finish(c, NULL); }

static void flood_go(struct wire_call *c)
{
	static uint8_t bytes[10000];
	while (srv.sent < 64 << 20 && !wire_call_congested(c)) {
		memset(bytes, (int)(srv.sent / sizeof bytes), sizeof bytes);
		assert_int_equal(wire_call_send(c, bytes, sizeof bytes), 0);
		srv.sent += sizeof bytes;
		srv.max_queued = max_of(srv.max_queued, wire_call_queued(c));
	}
	if (srv.sent >= 64 << 20) wire_call_finish(c, NULL);
}

static void slow_message(struct wire_call *c, const uint8_t *p, size_t n)
{
	srv.got += n;
	if (!srv.pause) wire_call_consumed(c, n);
}

static const struct wire_call_ops echo_ops = {.message = echo_message, .half_closed = echo_half, .ended = s_ended};
static const struct wire_call_ops hang_ops = {.ended = s_ended};
static const struct wire_call_ops flood_ops = {.writable = flood_go, .ended = s_ended};
static const struct wire_call_ops slow_ops = {.message = slow_message, .half_closed = echo_half, .ended = s_ended};

static void tunnel_gone(void *arg, const struct err *why) { srv.tunnel = NULL; }

static void start(const struct wire_handler *h, struct wire_call *c)
{
	static const char *const services[] = {"t.T", NULL};
	srv.started_count++;
	srv.last = c;
	c->ops = &hang_ops;
	if (!strcmp(c->path, "/t.T/Echo")) {
		c->ops = &echo_ops;
		wire_call_set_header(c, "x-was", wire_call_header(c, "x-is") ?: "absent");
	} else if (!strcmp(c->path, "/t.T/Flood")) {
		c->ops = &flood_ops;
		flood_go(c);
	} else if (!strcmp(c->path, "/t.T/Slow")) {
		c->ops = &slow_ops;
		wire_call_manual_credit(c);
	} else if (!strcmp(c->path, "/t.T/Fail")) {
		struct err e = ERR_INIT;
		err_set(&e, CODE_NOT_FOUND, "kein Weg: 100%% \xc3\xbc\n");
		err_detail_add(&e, "type.googleapis.com/a.B", "\0\1\2", 3);
		err_detail_add(&e, "type.googleapis.com/a.C", "", 0);
		wire_call_finish(c, &e);
		err_fini(&e);
	} else if (!strcmp(c->path, "/t.T/FailBig")) {
		struct err e = ERR_INIT;
		char *big = xcalloc(1, 100000);
		memset(big, 'x', 20000);
		err_set(&e, CODE_ABORTED, "%s", big);
		err_detail_add(&e, "large", big, 100000);
		err_detail_add(&e, "small", big, 10);
		wire_call_finish(c, &e);
		err_fini(&e);
		free(big);
	} else if (!strcmp(c->path, "/t.T/Tunnel")) { /* as the daemon: client inside */
		srv.tunnel = wire_tunnel_client(c, "inner");
		wire_conn_on_closed(srv.tunnel, tunnel_gone, NULL);
	} else if (strcmp(c->path, "/t.T/Hang")) {
		wire_call_unimplemented(c, services);
	}
}

static const struct wire_handler handler = {.start = start};

/* ---- the client ---- */

struct seen {
	struct err status;
	bool ended;
	size_t msgs, bytes, writables;
	struct buf last;
	char *header;
};

static void c_message(struct wire_call *c, const uint8_t *p, size_t n)
{
	struct seen *s = c->user;
	s->msgs++;
	s->bytes += n;
	buf_reset(&s->last);
	buf_add(&s->last, p, n);
}
static void c_headers(struct wire_call *c)
{
	struct seen *s = c->user;
	free(s->header);
	s->header = xstrdup(wire_call_header(c, "x-was"));
}
static void c_writable(struct wire_call *c) { ((struct seen *)c->user)->writables++; }
static void c_ended(struct wire_call *c, const struct err *status)
{
	struct seen *s = c->user;
	assert_false(s->ended);
	s->ended = true;
	err_copy(&s->status, status);
}
static const struct wire_call_ops client_ops = {
	.message = c_message, .headers = c_headers, .writable = c_writable, .ended = c_ended};

static void seen_fini(struct seen *s)
{
	err_fini(&s->status);
	buf_fini(&s->last);
	free(s->header);
}

struct pair {
	struct wire_conn *client, *server;
	char *client_why;
};

static void pair_client_closed(void *arg, const struct err *why)
{
	struct pair *p = arg;
	p->client = NULL;
	free(p->client_why);
	p->client_why = xstrdup(why->msg);
}
static void pair_server_closed(void *arg, const struct err *why) { ((struct pair *)arg)->server = NULL; }

static void pair_init(struct pair *p)
{
	int fd[2];
	memset(p, 0, sizeof *p);
	err_fini(&srv.ended);
	memset(&srv, 0, sizeof srv);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	p->server = wire_conn_fds(l, fd[0], fd[0], &handler, NULL, NULL);
	p->client = wire_conn_fds(l, fd[1], fd[1], NULL, "anything goes!", NULL);
	assert_non_null(p->server);
	assert_non_null(p->client);
	wire_conn_on_closed(p->server, pair_server_closed, p);
	wire_conn_on_closed(p->client, pair_client_closed, p);
}

static void pair_fini(struct pair *p)
{
	if (p->client) wire_conn_close(p->client);
	WAIT(!p->client && !p->server);
	free(p->client_why);
	err_fini(&srv.ended);
}

/* ---- cases ---- */

static void echo_over(struct wire_conn *conn, size_t n)
{
	struct seen s = {0};
	struct wire_md md[] = {{"x-is", "seen"}};
	uint8_t *big = xmalloc(n + 1);
	for (size_t i = 0; i < n; i++) big[i] = (uint8_t)(i * 31 + i / 251);
	struct wire_call *c = wire_call_open(conn, "/t.T/Echo", md, 1, 0, &client_ops, &s);
	wire_call_send(c, "one", 3);
	WAIT(s.msgs == 1);
	assert_string_equal(buf_str(&s.last), "one");
	assert_string_equal(s.header, "seen");
	wire_call_send(c, NULL, 0);
	wire_call_send(c, big, n);
	wire_call_close_send(c);
	assert_int_equal(wire_call_send(c, "x", 1), -1);
	WAIT(s.ended);
	assert_int_equal(s.msgs, 3);
	assert_int_equal(s.last.n, n);
	assert_memory_equal(s.last.p, big, n);
	assert_int_equal(s.status.code, CODE_OK);
	assert_int_equal(srv.ended.code, CODE_OK);
	free(big);
	seen_fini(&s);
}

static void test_echo(void **state)
{
	struct pair p;
	pair_init(&p);
	echo_over(p.client, 5);
	echo_over(p.client, 9 << 20); /* larger than any window */
	pair_fini(&p);
}

struct answer {
	bool done;
	struct err status;
	size_t n;
};
static void t_ended(void *arg, const struct err *status, const uint8_t *resp, size_t n)
{
	struct answer *a = arg;
	a->done = true;
	a->n = n;
	err_copy(&a->status, status);
}

static void test_unary_and_errors(void **state)
{
	struct pair p;
	struct answer a = {0};
	pair_init(&p);
	wire_unary(p.client, "/t.T/Fail", NULL, 0, NULL, t_ended, &a, 0);
	WAIT(a.done);
	assert_int_equal(a.status.code, CODE_NOT_FOUND);
	assert_string_equal(a.status.msg, "kein Weg: 100% \xc3\xbc\n");
	const struct err_detail *d = err_detail_find(&a.status, "type.googleapis.com/a.B");
	assert_non_null(d);
	assert_int_equal(d->len, 3);
	assert_memory_equal(d->data, "\0\1\2", 3);
	assert_ptr_equal(d->next, err_detail_find(&a.status, "type.googleapis.com/a.C"));
	static const struct {
		const char *path, *msg;
	} row[] = {{"/t.T/Nope", "unknown method Nope for service t.T"},
		   {"/u.U/Nope", "unknown service u.U"},
		   {"/nope", "malformed method name: \"/nope\""}};
	for (size_t i = 0; i < array_len(row); i++) {
		a.done = false;
		wire_unary(p.client, row[i].path, NULL, 0, NULL, t_ended, &a, 0);
		WAIT(a.done);
		assert_int_equal(a.status.code, CODE_UNIMPLEMENTED);
		assert_string_equal(a.status.msg, row[i].msg);
	}
	a.done = false;
	wire_unary(p.client, "/t.T/Echo", NULL, 0, NULL, t_ended, &a, 1000);
	WAIT(a.done);
	assert_int_equal(a.status.code, CODE_OK);
	err_fini(&a.status);
	pair_fini(&p);
}

static void test_cancel_and_deadline(void **state)
{
	struct pair p;
	struct seen s = {0}, t = {0}, u = {0};
	pair_init(&p);
	struct wire_call *c = wire_call_open(p.client, "/t.T/Hang", NULL, 0, 0, &client_ops, &s);
	WAIT(srv.started_count == 1);
	wire_call_cancel(c);
	assert_false(s.ended); /* never from inside our own call */
	WAIT(s.ended && srv.ended_count == 1);
	assert_int_equal(s.status.code, CODE_CANCELLED);
	assert_int_equal(srv.ended.code, CODE_CANCELLED);

	wire_call_open(p.client, "/t.T/Hang", NULL, 0, 30, &client_ops, &t);
	WAIT(t.ended && srv.ended_count == 2);
	assert_int_equal(t.status.code, CODE_DEADLINE_EXCEEDED);
	assert_true(srv.ended.code == CODE_DEADLINE_EXCEEDED || srv.ended.code == CODE_CANCELLED);

	/* the server's own clock: the client has no timer here */
	struct wire_md md[] = {{"grpc-timeout", "20m"}};
	wire_call_open(p.client, "/t.T/Hang", md, 1, 0, &client_ops, &u);
	WAIT(u.ended && srv.ended_count == 3);
	assert_int_equal(u.status.code, CODE_DEADLINE_EXCEEDED);
	assert_int_equal(srv.ended.code, CODE_DEADLINE_EXCEEDED);
	assert_string_equal(u.status.msg, "context deadline exceeded");
	seen_fini(&s);
	seen_fini(&t);
	seen_fini(&u);
	pair_fini(&p);
}

static void test_server_pressure(void **state) /* a client that does not consume holds the server's queue down */
{
	struct pair p;
	struct seen s = {0};
	pair_init(&p);
	struct wire_call *c = wire_call_open(p.client, "/t.T/Flood", NULL, 0, 0, &client_ops, &s);
	wire_call_manual_credit(c);
	WAIT(srv.started_count == 1);
	spin_ms(150);
	assert_true(s.bytes <= WIRE_WINDOW_STREAM);
	assert_true(s.bytes > WIRE_WINDOW_STREAM - 20000);
	assert_true(srv.sent < 2 * WIRE_WINDOW_STREAM);
	size_t before = s.bytes;
	wire_call_consumed(c, s.bytes);
	WAIT(s.bytes > before);
	while (!s.ended) {
		size_t had = s.bytes;
		WAIT(s.bytes > had || s.ended);
		if (!s.ended) wire_call_consumed(c, 1 << 20);
	}
	assert_int_equal(s.status.code, CODE_OK);
	assert_int_equal(s.bytes, srv.sent);
	assert_true(srv.max_queued <= WIRE_SEND_HIGH + 20000);
	seen_fini(&s);
	pair_fini(&p);
}

static void test_client_pressure(void **state) /* a server that does not consume; another call goes on meanwhile */
{
	struct pair p;
	struct seen s[6] = {0}, e = {0};
	static uint8_t bytes[100000];
	pair_init(&p);
	srv.pause = true;
	struct wire_call *c[6];
	for (int i = 0; i < 6; i++) { /* together more than the connection's window */
		c[i] = wire_call_open(p.client, "/t.T/Slow", NULL, 0, 0, &client_ops, &s[i]);
		for (int k = 0; k < 40; k++) wire_call_send(c[i], bytes, sizeof bytes);
	}
	spin_ms(150);
	assert_true(srv.got <= 6 * WIRE_WINDOW_STREAM);
	assert_true(srv.got > 5 * WIRE_WINDOW_STREAM);
	assert_true(wire_call_queued(c[0]) > 2 << 20);
	struct wire_call *o = wire_call_open(p.client, "/t.T/Echo", NULL, 0, 0, &client_ops, &e);
	wire_call_send(o, bytes, sizeof bytes);
	wire_call_close_send(o);
	WAIT(e.ended);
	assert_int_equal(e.bytes, sizeof bytes);
	for (int i = 1; i < 6; i++) wire_call_cancel(c[i]);
	srv.pause = false;
	for (int i = 1; i < 6; i++) WAIT(s[i].ended);
	wire_conn_close(p.client); /* with a call that is stuck */
	WAIT(s[0].ended);
	assert_int_equal(s[0].status.code, CODE_UNAVAILABLE);
	for (int i = 0; i < 6; i++) seen_fini(&s[i]);
	seen_fini(&e);
	pair_fini(&p);
}

static void test_limits(void **state)
{
	struct pair p;
	struct seen s = {0};
	struct answer a = {0};
	pair_init(&p);
	wire_conn_set_max_message(p.server, 1000);
	struct wire_call *c = wire_call_open(p.client, "/t.T/Echo", NULL, 0, 0, &client_ops, &s);
	uint8_t big[1001] = {0};
	wire_call_send(c, big, sizeof big);
	WAIT(s.ended);
	assert_int_equal(s.status.code, CODE_RESOURCE_EXHAUSTED);
	assert_string_equal(s.status.msg, "grpc: received message larger than max (1001 vs. 1000)");
	assert_int_equal(srv.ended.code, CODE_RESOURCE_EXHAUSTED);
	/* headers beyond the limit end their call, not the connection; large ones below it pass (CONTINUATION frames) */
	static char value[50001];
	memset(value, '~', sizeof value - 1); /* 13 bits each in Huffman's code, so they go as they are */
	struct wire_md md[22];
	for (size_t i = 0; i < array_len(md); i++) md[i] = (struct wire_md){"x-huge", value};
	wire_unary(p.client, "/t.T/Echo", md, 22, NULL, t_ended, &a, 0);
	WAIT(a.done);
	assert_int_not_equal(a.status.code, CODE_OK);
	a.done = false;
	wire_unary(p.client, "/t.T/Echo", md, 18, NULL, t_ended, &a, 0);
	WAIT(a.done);
	assert_int_equal(a.status.code, CODE_OK);
	/* a status that is too large for a header arrives without its largest details */
	a.done = false;
	wire_unary(p.client, "/t.T/FailBig", NULL, 0, NULL, t_ended, &a, 0);
	WAIT(a.done);
	assert_int_equal(a.status.code, CODE_ABORTED);
	assert_int_equal(strlen(a.status.msg), 20000);
	assert_non_null(a.status.details);
	assert_string_equal(a.status.details->type_url, "small");
	assert_null(a.status.details->next);
	err_fini(&a.status);
	seen_fini(&s);
	pair_fini(&p);
}

/* Client side of a session: a server inside a call that we opened. */
static void test_tunnel(void **state)
{
	struct pair p;
	struct seen s = {0};
	pair_init(&p);
	struct wire_call *c = wire_call_open(p.client, "/t.T/Tunnel", NULL, 0, 0, &client_ops, &s);
	struct wire_conn *inner = wire_tunnel_server(c, &handler);
	WAIT(srv.tunnel);
	echo_over(srv.tunnel, 7);
	echo_over(srv.tunnel, 12 << 20);
	/* a tunnel in the tunnel */
	struct seen t = {0};
	struct wire_conn *outer = srv.tunnel;
	srv.tunnel = NULL;
	struct wire_call *d = wire_call_open(outer, "/t.T/Tunnel", NULL, 0, 0, &client_ops, &t);
	struct wire_conn *inner2 = wire_tunnel_server(d, &handler);
	WAIT(srv.tunnel);
	echo_over(srv.tunnel, 3 << 20);
	struct seen f = {0};
	wire_call_open(srv.tunnel, "/t.T/Hang", NULL, 0, 0, &client_ops, &f);
	wire_conn_close(inner2);
	WAIT(f.ended && !srv.tunnel);
	assert_int_equal(f.status.code, CODE_UNAVAILABLE);
	srv.tunnel = outer;
	wire_conn_close(inner);
	WAIT(!srv.tunnel);
	seen_fini(&f);
	pair_fini(&p);
}

static void test_death(void **state)
{
	struct pair p;
	struct seen s = {0};
	pair_init(&p);
	wire_call_open(p.client, "/t.T/Hang", NULL, 0, 0, &client_ops, &s);
	WAIT(srv.started_count == 1);
	wire_conn_shutdown(p.server); /* the running call goes on */
	spin_ms(30);
	assert_false(s.ended);
	assert_false(wire_conn_usable(p.client));
	wire_call_finish(srv.last, NULL);
	WAIT(s.ended && !p.server && !p.client);
	assert_int_equal(s.status.code, CODE_OK);
	seen_fini(&s);
	pair_fini(&p);
}

static void test_keepalive(void **state)
{
	int fd[2];
	struct pair p = {0};
	struct seen s = {0};
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	p.client = wire_conn_fds(l, fd[0], fd[0], NULL, NULL, NULL);
	wire_conn_on_closed(p.client, pair_client_closed, &p);
	wire_conn_keepalive(p.client, 20, 50);
	wire_call_open(p.client, "/t.T/Hang", NULL, 0, 0, &client_ops, &s); /* nobody answers */
	WAIT(s.ended && !p.client);
	assert_int_equal(s.status.code, CODE_UNAVAILABLE);
	assert_string_equal(p.client_why, "keepalive ping failed to receive ACK within timeout");
	close(fd[1]);
	seen_fini(&s);
	free(p.client_why);
	pair_init(&p);
	struct seen t = {0};
	wire_conn_keepalive(p.client, 10, 40);
	wire_call_open(p.client, "/t.T/Hang", NULL, 0, 0, &client_ops, &t);
	spin_ms(200);
	assert_false(t.ended);
	pair_fini(&p);
	seen_fini(&t);
}

/* ---- bytes that no honest client sends ---- */

static const uint8_t preface[] =
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0"; /* with the string's NUL: 9 bytes of SETTINGS */

static void add_frame(struct buf *b, uint8_t type, uint8_t flags, uint32_t id, const void *p, size_t n)
{
	uint8_t h[9] = {(uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n, type, flags, 0, 0, (uint8_t)(id >> 8), (uint8_t)id};
	buf_add(b, h, 9);
	buf_add(b, p, n);
}

static void add_lit(struct buf *b, const char *k, const char *v)
{
	buf_addc(b, 0);
	buf_addc(b, (char)strlen(k));
	buf_adds(b, k);
	buf_addc(b, (char)strlen(v));
	buf_adds(b, v);
}

static void add_request(struct buf *b, uint32_t id, const char *path, const char *type, const char *encoding)
{
	_cleanup_buf_ struct buf h = BUF_INIT;
	add_lit(&h, ":method", "POST");
	add_lit(&h, ":scheme", "http");
	add_lit(&h, ":path", path);
	add_lit(&h, "content-type", type);
	if (encoding) add_lit(&h, "grpc-encoding", encoding);
	add_frame(b, 1, 4, id, h.p, h.n);
}

/* Feeds bytes to a fresh server; what the peer got is returned as text with NULs as dots (HPACK literals are plain or not). */
static void feed(const void *p, size_t n, bool eof)
{
	int fd[2];
	struct pair q = {0};
	err_fini(&srv.ended);
	memset(&srv, 0, sizeof srv);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	q.server = wire_conn_fds(l, fd[0], fd[0], &handler, NULL, NULL);
	wire_conn_on_closed(q.server, pair_server_closed, &q);
	assert_int_equal(write(fd[1], p, n), n);
	spin_ms(3);
	if (eof) close(fd[1]);
	if (!q.server && !eof) close(fd[1]);
	if (eof) WAIT(!q.server);
	if (q.server) {
		wire_conn_close(q.server);
		WAIT(!q.server);
		close(fd[1]);
	}
}

static void test_bad_bytes(void **state)
{
	static const struct {
		const char *enc, *data;
		size_t n;
		enum code code;
	} row[] = {
		{NULL, "\1\0\0\0\1x", 6, CODE_INTERNAL},   {"gzip", "\1\0\0\0\1x", 6, CODE_UNIMPLEMENTED},
		{NULL, "\7\0\0\0\1x", 6, CODE_INTERNAL},   {NULL, "\0\x7f\xff\xff\xffx", 6, CODE_RESOURCE_EXHAUSTED},
		{NULL, "\0\0\0", 3, CODE_INTERNAL},        /* the prefix is cut */
		{NULL, "\0\0\0\0\5abc", 8, CODE_INTERNAL}, /* the message is cut */
	};
	for (size_t i = 0; i < array_len(row); i++) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		buf_add(&b, preface, sizeof preface);
		add_request(&b, 1, "/t.T/Echo", "application/grpc", row[i].enc);
		add_frame(&b, 0, 1, 1, row[i].data, row[i].n);
		feed(b.p, b.n, false);
		assert_int_equal(srv.started_count, 1);
		assert_int_equal(srv.ended_count, 1);
		assert_int_equal(srv.ended.code, row[i].code);
	}
	_cleanup_buf_ struct buf b = BUF_INIT;
	feed("GET / HTTP/1.1\r\n\r\n", 18, false);
	buf_add(&b, preface, sizeof preface);
	add_request(&b, 1, "/t.T/Echo", "text/html", NULL);
	add_request(&b, 3, "", "application/grpc", NULL);
	feed(b.p, b.n, true);
	assert_int_equal(srv.started_count, 0);
	/* opened and reset in one breath: every call that began ends, none stays */
	buf_reset(&b);
	buf_add(&b, preface, sizeof preface);
	for (uint32_t id = 1; id < 1200; id += 2) {
		add_request(&b, id, "/t.T/Hang", "application/grpc", NULL);
		add_frame(&b, 3, 0, id, "\0\0\0\10", 4);
	}
	feed(b.p, b.n, false);
	assert_int_equal(srv.started_count, 600);
	assert_int_equal(srv.ended_count, 600);
	assert_int_equal(srv.ended.code, CODE_CANCELLED);
	/* every prefix, and random damage: no crash, no call left behind */
	buf_reset(&b);
	buf_add(&b, preface, sizeof preface);
	for (uint32_t id = 1; id < 9; id += 2) {
		add_request(&b, id, id == 5 ? "/t.T/Tunnel" : "/t.T/Echo", "application/grpc", NULL);
		add_frame(&b, 0, id == 7, id, "\0\0\0\0\5\x0a\3abc", 10);
	}
	add_frame(&b, 3, 0, 3, "\0\0\0\10", 4);
	add_frame(&b, 8, 0, 0, "\x7f\xff\xff\xff", 4); /* window overflow */
	add_frame(&b, 6, 0, 0, "12345678", 8);
	for (size_t n = 0; n < b.n; n += 7) feed(b.p, n, true);
	srand(7);
	for (int i = 0; i < 100; i++) {
		_cleanup_buf_ struct buf d = BUF_INIT;
		buf_add(&d, b.p, b.n);
		for (int k = 0; k < 4; k++) d.p[33 + (size_t)rand() % (d.n - 33)] = (uint8_t)rand();
		feed(d.p, d.n, true);
		assert_int_equal(srv.started_count - (srv.tunnel ? 1 : 0) >= srv.ended_count, 1);
	}
	err_fini(&srv.ended);
}

/* ---- sockets ---- */

static struct wire_conn *got_conn, *got_server;
static bool got_done;
static int got_fd = -1;
static struct err got_err;
static void on_connected(void *arg, struct wire_conn *c, const struct err *e)
{
	got_conn = c;
	got_done = true;
	if (e) err_copy(&got_err, e);
}
static void on_conn(void *arg, struct wire_conn *c) { got_server = c; }
static void on_foreign(void *arg, int fd) { got_fd = fd; }
static void on_client_gone(void *arg, const struct err *why) { got_conn = NULL; }
static void on_server_gone(void *arg, const struct err *why) { got_server = NULL; }

static void over_socket(const char *addr, const struct wire_tls *server, const struct wire_tls *client, bool works)
{
	struct wire_listener *s = NULL;
	struct err e = ERR_INIT;
	struct wire_listen_opts o = {.handler = &handler,
				     .mode = 0600,
				     .uid = (uid_t)-1,
				     .gid = (gid_t)-1,
				     .tls = server,
				     .on_conn = on_conn,
				     .on_foreign = on_foreign};
	got_done = false;
	if (wire_listen(l, addr, &o, &s, &e) < 0) fail_msg("%s", e.msg);
	wire_connect(l, wire_listener_addr(s), client, on_connected, NULL);
	WAIT(got_done);
	if (!got_conn) print_message("refused: %s\n", got_err.msg);
	if (got_conn) {
		struct answer a = {0};
		wire_conn_on_closed(got_conn, on_client_gone, NULL);
		wire_unary(got_conn, "/t.T/Echo", NULL, 0, NULL, t_ended, &a, 0);
		WAIT(a.done);
		if (a.status.code) print_message("failed: %s\n", a.status.msg);
		assert_int_equal(a.status.code == CODE_OK, works);
		err_fini(&a.status);
		if (works) {
			wire_conn_on_closed(got_server, on_server_gone, NULL);
			echo_over(got_conn, 3 << 20);
		}
		if (got_conn) wire_conn_close(got_conn);
		WAIT(!got_conn && !got_server);
	} else {
		assert_false(works);
	}
	wire_listener_close(s);
	err_fini(&got_err);
}

static int run(const char *cmd)
{
	int rv = system(cmd);
	return rv;
}

static void test_sockets(void **state)
{
	char dir[] = "/tmp/wire-XXXXXX", addr[64], path[64];
	struct stat st;
	assert_non_null(mkdtemp(dir));
	snprintf(addr, sizeof addr, "unix://%s/sub/x.sock", dir);
	snprintf(path, sizeof path, "%s/sub/x.sock", dir);
	over_socket(addr, NULL, NULL, true);
	assert_int_equal(lstat(path, &st), -1); /* removed */
	over_socket("tcp://127.0.0.1:0", NULL, NULL, true);
	over_socket("tcp://localhost:0", NULL, NULL, true);

	/* a foreign connection on the same socket keeps its bytes */
	struct wire_listener *s;
	struct wire_listen_opts o = {.handler = &handler, .uid = (uid_t)-1, .gid = (gid_t)-1, .on_foreign = on_foreign};
	assert_int_equal(wire_listen(l, addr, &o, &s, NULL), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	struct wire_listener *again;
	assert_int_equal(wire_listen(l, addr, &o, &again, NULL), 0); /* a stale one is replaced */
	char cmd[200], text[8] = {0};
	snprintf(cmd, sizeof cmd,
		 "python3 -c 'import socket;s=socket.socket(socket.AF_UNIX);s.connect(\"%s\");s.send(b\"hello\")'", path);
	assert_int_equal(run(cmd), 0);
	WAIT(got_fd >= 0);
	assert_int_equal(read(got_fd, text, 7), 5);
	assert_string_equal(text, "hello");
	close(got_fd);
	wire_listener_close(s);
	wire_listener_close(again);

	/* errors */
	struct err e = ERR_INIT;
	static const char *const bad[] = {"npipe://x", "tcp://nohost", "fd://", "fd://2", "unix://", "tcp://1:2:3"};
	for (size_t i = 0; i < array_len(bad); i++) {
		assert_int_equal(wire_listen(l, bad[i], &o, &s, &e), -1);
		err_fini(&e);
		got_done = false;
		wire_connect(l, bad[i], NULL, on_connected, NULL);
		assert_false(got_done);
		WAIT(got_done);
		assert_null(got_conn);
		err_fini(&got_err);
	}
	got_done = false;
	wire_connect(l, "unix:///nonexistent/x.sock", NULL, on_connected, NULL);
	WAIT(got_done);
	assert_string_equal(got_err.msg, "connect unix:///nonexistent/x.sock: no such file or directory");
	err_fini(&got_err);
	wire_connect_cancel(wire_connect(l, "tcp://localhost:1", NULL, on_connected, NULL));

	/* TLS */
	char cmd2[2000];
	snprintf(cmd2, sizeof cmd2,
		 "cd %s && exec >/dev/null 2>&1; for x in ca other; do openssl req -x509 -newkey ec -pkeyopt "
		 "ec_paramgen_curve:P-256 "
		 "-nodes -keyout $x.key -out $x.pem -days 2 -subj /CN=$x; done; "
		 "printf 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1' >ext; for x in srv cli; do "
		 "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $x.key -out $x.csr -subj /CN=$x && "
		 "openssl x509 -req -in $x.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out $x.pem -days 2 -extfile ext; done",
		 dir);
	if (!run(cmd2)) {
		char f[6][64];
		static const char *const name[] = {"ca.pem", "srv.pem", "srv.key", "cli.pem", "cli.key", "other.pem"};
		for (int i = 0; i < 6; i++) snprintf(f[i], sizeof f[i], "%s/%s", dir, name[i]);
		struct wire_tls sv = {.ca = f[0], .cert = f[1], .key = f[2]}, plain_sv = {.cert = f[1], .key = f[2]};
		struct wire_tls cl = {.ca = f[0], .cert = f[3], .key = f[4]}, nocert = {.ca = f[0]}, wrong = {.ca = f[5]};
		struct wire_tls name_wrong = {.ca = f[0], .cert = f[3], .key = f[4], .server_name = "example.org"};
		over_socket("tcp://127.0.0.1:0", &sv, &cl, true);
		over_socket("tcp://localhost:0", &plain_sv, &nocert, true);
		over_socket("tcp://127.0.0.1:0", &sv, &nocert, false);
		over_socket("tcp://127.0.0.1:0", &sv, &wrong, false);
		over_socket("tcp://127.0.0.1:0", &sv, &name_wrong, false);
	} else {
		print_message("SKIPPED: TLS, no openssl program\n");
	}
	snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	assert_int_equal(run(cmd), 0);
}

/* ---- messages: a descriptor of our own ---- */

struct m {
	ProtobufCMessage base;
	char *s;
	size_t n_m;
	struct m **m;
	size_t n_v;
	uint64_t *v;
};
extern const ProtobufCMessageDescriptor m__descriptor;
static const ProtobufCFieldDescriptor m_fields[] = {
	{"s", 1, PROTOBUF_C_LABEL_NONE, PROTOBUF_C_TYPE_STRING, 0, offsetof(struct m, s), NULL, &protobuf_c_empty_string, 0, 0,
	 NULL, NULL},
	{"m", 2, PROTOBUF_C_LABEL_REPEATED, PROTOBUF_C_TYPE_MESSAGE, offsetof(struct m, n_m), offsetof(struct m, m),
	 &m__descriptor, NULL, 0, 0, NULL, NULL},
	{"v", 3, PROTOBUF_C_LABEL_REPEATED, PROTOBUF_C_TYPE_UINT64, offsetof(struct m, n_v), offsetof(struct m, v), NULL, NULL,
	 PROTOBUF_C_FIELD_FLAG_PACKED, 0, NULL, NULL},
};
static const unsigned m_by_name[] = {1, 0, 2};
static const ProtobufCIntRange m_ranges[] = {{1, 0}, {0, 3}};
const ProtobufCMessageDescriptor m__descriptor = {PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
						  "t.M",
						  "M",
						  "M",
						  "t",
						  sizeof(struct m),
						  3,
						  m_fields,
						  m_by_name,
						  1,
						  m_ranges,
						  NULL,
						  NULL,
						  NULL,
						  NULL};

static struct m *unpack(const void *p, size_t n, struct arena *a, struct err *e)
{
	err_fini(e);
	return wire_unpack_as(struct m, m, p, n, a, e);
}

static void test_unpack(void **state)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	_cleanup_err_ struct err e = ERR_INIT;
	struct m *m = unpack("\x0a\2hi\x12\4\x0a\2yo\x1a\2\1\2\x18\3", 16, a, &e);
	assert_non_null(m);
	assert_string_equal(m->s, "hi");
	assert_string_equal(m->m[0]->s, "yo");
	assert_int_equal(m->n_v, 3);
	assert_non_null(unpack(NULL, 0, a, &e));
	assert_null(unpack("\x0a\2h\xff", 4, a, &e));
	assert_string_equal(e.msg, "string field t.M.s contains invalid UTF-8");
	assert_int_equal(e.code, CODE_INVALID_ARGUMENT);
	assert_null(unpack("\x12\4\x0a\2h\0", 6, a, &e));
	assert_string_equal(e.msg, "string field t.M.s contains a NUL byte");
	static const struct {
		const char *p;
		size_t n;
	} bad[] = {{"\x0a\5hi", 4},  {"\x0a", 1},   {"\x08\1", 2}, {"\x1a\2\1\x80", 4},
		   {"\x1b", 1},      {"\x00\1", 2}, {"\x80", 1},   {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", 11},
		   {"\x1a\2\x80", 3}};
	for (size_t i = 0; i < array_len(bad); i++) {
		assert_null(unpack(bad[i].p, bad[i].n, a, &e));
		assert_int_equal(e.code, CODE_INVALID_ARGUMENT);
	}
	/* nesting: 100 pass, 101 do not */
	uint8_t deep[600];
	size_t n = 0;
	for (int i = 0; i < 120; i++) {
		if (i == 99) assert_non_null(unpack(deep + sizeof deep - n, n, a, &e));
		if (i == 100) {
			assert_null(unpack(deep + sizeof deep - n, n, a, &e));
			break;
		}
		size_t inner = n;
		if (inner >= 128) deep[sizeof deep - ++n] = (uint8_t)(inner >> 7);
		deep[sizeof deep - ++n] = (uint8_t)(inner >= 128 ? inner | 0x80 : inner);
		deep[sizeof deep - ++n] = 0x12;
	}
	/* elements */
	_cleanup_buf_ struct buf many = BUF_INIT;
	for (int i = 0; i <= WIRE_ELEMENTS_MAX; i++) buf_add(&many, "\x12\0", 2);
	assert_null(unpack(many.p, many.n, a, &e));
	assert_int_equal(e.code, CODE_RESOURCE_EXHAUSTED);
	/* few bytes, much memory: the unpacked size is bounded as well */
	assert_null(unpack(many.p, many.n - 2, a, &e));
	assert_int_equal(e.code, CODE_RESOURCE_EXHAUSTED);
	_cleanup_buf_ struct buf out = BUF_INIT;
	m = unpack("\x0a\2hi\x1a\2\1\2", 8, a, &e);
	assert_int_equal(wire_pack(&m->base, &out), 0);
	assert_int_equal(out.n, 8);
	assert_memory_equal(out.p, "\x0a\2hi\x1a\2\1\2", 8);
}

static void test_status(void **state)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_err_ struct err e = ERR_INIT, back = ERR_INIT, bad = ERR_INIT;
	err_set(&e, CODE_ABORTED,
		"a\xff"
		"b");
	err_detail_add(&e, "u", "vv", 2);
	wire_status_pack(&e, &b);
	assert_int_equal(b.n, 2 + 2 + 5 + 2 + 3 + 4);
	assert_int_equal(wire_status_unpack(b.p, b.n, &back, NULL), 0);
	assert_int_equal(back.code, CODE_ABORTED);
	assert_string_equal(back.msg, "a\xef\xbf\xbd"
				      "b");
	assert_string_equal(back.details->type_url, "u");
	assert_int_equal(wire_status_unpack(b.p, b.n - 1, &back, &bad), -1);
	assert_int_equal(bad.code, CODE_INTERNAL);
	assert_int_equal(wire_status_unpack(NULL, 0, &back, NULL), 0);
	assert_int_equal(back.code, CODE_OK);
}

static int setup(void **state)
{
	signal(SIGPIPE, SIG_IGN);
	l = loop_new();
	return 0;
}
static int teardown(void **state)
{
	loop_free(l);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_echo, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unary_and_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cancel_and_deadline, setup, teardown),
		cmocka_unit_test_setup_teardown(test_server_pressure, setup, teardown),
		cmocka_unit_test_setup_teardown(test_client_pressure, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tunnel, setup, teardown),
		cmocka_unit_test_setup_teardown(test_death, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keepalive, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sockets, setup, teardown),
		cmocka_unit_test(test_unpack),
		cmocka_unit_test(test_status),
	};
	return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
