/* A call: its metadata, send queue, reassembly of messages, credit, deadline and end.
 *
 *  1. A call belongs to its user until ended() returned and to nghttp2 until its stream is closed; it is freed when both let
 * go.
 *  2. After `ending` is set no callback but ended() is made. ended() is delivered by a turn (conn.c), never from inside a
 *     function that the user called.
 *  3. Receiving: prefix bytes are credited at once. Payload is `owed` from delivery until the user consumed it. While nothing
 * is owed, the pieces of an unfinished message are credited as they come (`eager`), because a message may be larger than the
 *     window; while something is owed they wait (`part_held`). So the peer can never have more than one stream window beyond
 *     what the user consumed, and one message.
 *  4. Sending: messages stand in chunks, small ones share one; nghttp2 takes them frame by frame straight into the pipe. */
#include "wire/internal.h"

#include <stdio.h>
#include <strings.h>

static const struct wire_call_ops no_ops;

struct wire_call_ *call_new(struct wire_conn *conn)
{
	struct wire_call_ *c = xnew(struct wire_call_);
	c->pub.ops = &no_ops;
	c->pub.conn = conn;
	c->pub.path = "";
	list_init(&c->end_link);
	list_add_tail(&conn->calls, &c->link);
	conn->calls_count++;
	return c;
}

static void headers_free(struct header *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(v[i].key);
		free(v[i].value);
	}
}

static void part_drop(struct wire_call_ *c)
{
	c->pub.conn->partial -= c->part.n;
	if (c->part.cap > CONN_FRAME_MAX)
		buf_fini(&c->part);
	else
		buf_reset(&c->part);
}

void call_free(struct wire_call_ *c)
{
	list_del(&c->link);
	list_del(&c->end_link);
	loop_timer_stop(&c->deadline);
	part_drop(c);
	buf_fini(&c->part);
	c->pub.conn->headers_bytes -= c->headers_bytes;
	headers_free(c->headers.v, c->headers.n);
	headers_free(c->reply.v, c->reply.n);
	vec_fini(&c->headers);
	vec_fini(&c->reply);
	while (c->head) {
		struct chunk *next = c->head->next;
		free(c->head);
		c->head = next;
	}
	err_fini(&c->status);
	err_fini(&c->trailer);
	if (!c->pub.conn->handler) free((char *)c->pub.path);
	free(c);
}

static bool is_server(const struct wire_call_ *c) { return c->pub.conn->handler != NULL; }

static void reset_stream(struct wire_call_ *c, uint32_t code)
{
	if (!c->stream_open) return;
	nghttp2_submit_rst_stream(c->pub.conn->session, NGHTTP2_FLAG_NONE, c->id, code);
	conn_arm(c->pub.conn);
}

/* ---- the end ---- */

static bool begin_end(struct wire_call_ *c)
{
	if (c->ending || c->ended) return false;
	c->ending = c->muted = true;
	list_add_tail(&c->pub.conn->ending, &c->end_link);
	conn_arm(c->pub.conn);
	return true;
}

void call_end(struct wire_call_ *c, enum code code, const char *fmt, ...)
{
	if (!begin_end(c)) return;
	va_list ap;
	va_start(ap, fmt);
	err_vset(&c->status, code, fmt, ap);
	va_end(ap);
}

static void call_end_move(struct wire_call_ *c, struct err *status)
{
	if (begin_end(c)) err_move(&c->status, status);
}

static void credit_stream(struct wire_call_ *c, size_t n)
{
	if (!n || !c->stream_open) return;
	nghttp2_session_consume_stream(c->pub.conn->session, c->id, n);
	conn_arm(c->pub.conn);
}

static void credit_conn_debt(struct wire_conn *conn)
{
	if (!conn->conn_debt || conn->held >= WIRE_HELD_MAX || conn->dead) return;
	nghttp2_session_consume_connection(conn->session, conn->conn_debt);
	conn->conn_debt = 0;
	conn_arm(conn);
}

void call_deliver_end(struct wire_call_ *c)
{
	struct wire_conn *conn = c->pub.conn;
	list_del(&c->end_link);
	c->ended = true;
	conn->calls_count--;
	loop_timer_stop(&c->deadline);
	conn->held -= c->owed;
	credit_stream(c, (c->owed > c->eager ? c->owed - c->eager : 0) + c->part_held);
	c->owed = c->eager = c->part_held = 0;
	part_drop(c);
	credit_conn_debt(conn);
	const struct wire_call_ops *ops = c->pub.ops;
	c->pub.ops = &no_ops;
	if (ops->ended) ops->ended(&c->pub, &c->status);
	if (!c->stream_open) call_free(c);
}

static void finish(struct wire_call_ *c, const struct err *status, bool skip_queue);

/* What the framing or the clock found wrong: the user hears it, and the peer. */
static void call_abort(struct wire_call_ *c, enum code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void call_abort(struct wire_call_ *c, enum code code, const char *fmt, ...)
{
	if (c->ending) return;
	_cleanup_err_ struct err e = ERR_INIT;
	va_list ap;
	va_start(ap, fmt);
	err_vset(&e, code, fmt, ap);
	va_end(ap);
	if (is_server(c)) {
		finish(c, &e, true);
	} else {
		reset_stream(c, NGHTTP2_CANCEL);
	}
	call_end_move(c, &e);
}

static void deadline_passed(void *arg) { call_abort(arg, CODE_DEADLINE_EXCEEDED, "context deadline exceeded"); }

static void set_deadline(struct wire_call_ *c, uint64_t after_ms)
{
	loop_timer_start(c->pub.conn->loop, &c->deadline, after_ms, 0, deadline_passed, c);
}

void call_trailers_sent(struct wire_call_ *c) { call_end(c, CODE_OK, "%s", ""); }

void call_stream_closed(struct wire_call_ *c, uint32_t code)
{
	c->stream_open = false;
	if (c->ended) {
		call_free(c);
		return;
	}
	if (is_server(c))
		call_end(c, CODE_CANCELLED, "context canceled");
	else
		call_end(c, status_of_reset(code), "stream terminated by RST_STREAM with error code: %s",
			 status_reset_name(code));
}

/* ---- metadata ---- */

bool call_add_header(struct wire_call_ *c, const uint8_t *k, size_t kn, const uint8_t *v, size_t vn)
{
	size_t size = kn + vn + 32;
	if (c->headers_bytes + size > WIRE_HEADERS_MAX || memchr(v, 0, vn) || memchr(k, 0, kn)) return false;
	c->headers_bytes += size;
	c->pub.conn->headers_bytes += size;
	struct header h = {xstrndup((const char *)k, kn), xstrndup((const char *)v, vn)};
	vec_push(&c->headers, h);
	return true;
}

size_t wire_call_headers(const struct wire_call *call, const char *key, const char **out, size_t max)
{
	struct wire_call_ *c = call_of(call);
	size_t n = 0;
	for (size_t i = 0; i < c->headers.n; i++) {
		if (strcmp(c->headers.v[i].key, key)) continue;
		if (n < max) out[n] = c->headers.v[i].value;
		n++;
	}
	return n;
}

const char *wire_call_header(const struct wire_call *call, const char *key)
{
	const char *v = NULL;
	wire_call_headers(call, key, &v, 1);
	return v;
}

bool wire_call_header_at(const struct wire_call *call, size_t i, struct wire_md *ret)
{
	struct wire_call_ *c = call_of(call);
	if (i >= c->headers.n) return false;
	*ret = (struct wire_md){c->headers.v[i].key, c->headers.v[i].value};
	return true;
}

void wire_call_set_header(struct wire_call *call, const char *key, const char *value)
{
	struct wire_call_ *c = call_of(call);
	struct header h = {xstrdup(key), xstrdup(value)};
	vec_push(&c->reply, h);
}

static bool is_grpc_type(const char *s)
{
	static const char want[] = "application/grpc";
	if (!s || strncasecmp(s, want, sizeof want - 1)) return false;
	char next = s[sizeof want - 1];
	return !next || next == '+' || next == ';';
}

/* "<1 to 8 digits><H|M|S|m|u|n>" to milliseconds, rounded up; false when malformed. */
static bool parse_timeout(const char *s, uint64_t *ret_ms)
{
	uint64_t v = 0;
	size_t i = 0;
	for (; s[i] >= '0' && s[i] <= '9' && i < 8; i++) v = v * 10 + (uint64_t)(s[i] - '0');
	if (!i || !s[i] || s[i + 1]) return false;
	switch (s[i]) {
	case 'H': *ret_ms = v * 3600000; break;
	case 'M': *ret_ms = v * 60000; break;
	case 'S': *ret_ms = v * 1000; break;
	case 'm': *ret_ms = v; break;
	case 'u': *ret_ms = (v + 999) / 1000; break;
	case 'n': *ret_ms = (v + 999999) / 1000000; break;
	default: return false;
	}
	return true;
}

static nghttp2_nv nv(const char *k, const char *v)
{
	return (nghttp2_nv){(uint8_t *)k, (uint8_t *)v, strlen(k), strlen(v), NGHTTP2_NV_FLAG_NONE};
}

/* A request that is not gRPC gets an HTTP answer. */
static void refuse_http(struct wire_call_ *c, const char *http_status)
{
	nghttp2_nv v[] = {nv(":status", http_status)};
	c->headers_sent = c->send_closed = c->finished = c->muted = true;
	nghttp2_submit_response(c->pub.conn->session, c->id, v, 1, NULL);
	conn_arm(c->pub.conn);
}

void call_request_complete(struct wire_call_ *c)
{
	const struct wire_handler *h = c->pub.conn->handler;
	const char *path = wire_call_header(&c->pub, ":path"), *timeout = wire_call_header(&c->pub, "grpc-timeout");
	uint64_t ms = 0;
	if (c->ending || c->started) return;
	if (!str_eq(wire_call_header(&c->pub, ":method"), "POST")) {
		refuse_http(c, "405");
		return;
	}
	if (!is_grpc_type(wire_call_header(&c->pub, "content-type"))) {
		refuse_http(c, "415");
		return;
	}
	if (!path || path[0] != '/' || !strchr(path + 1, '/')) {
		call_abort(c, CODE_UNIMPLEMENTED, "malformed method name: \"%s\"", path ? path : "");
		return;
	}
	if (timeout && !parse_timeout(timeout, &ms)) {
		call_abort(c, CODE_INTERNAL, "malformed grpc-timeout: \"%s\"", timeout);
		return;
	}
	c->pub.path = path;
	if (timeout) set_deadline(c, ms);
	c->started = true;
	h->start(h, &c->pub);
	if (!c->pub.ops) c->pub.ops = &no_ops;
	if (c->pub.ops == &no_ops && !c->finished) wire_call_unimplemented(&c->pub, NULL);
}

/* ---- client: headers and trailers of the response ---- */

static void status_of_trailers(struct wire_call_ *c, const char *grpc_status, struct err *ret)
{
	const char *details = wire_call_header(&c->pub, "grpc-status-details-bin");
	const char *text = wire_call_header(&c->pub, "grpc-message");
	_cleanup_free_ char *msg = status_percent_decode(text ? text : "");
	char *end;
	long code = strtol(grpc_status, &end, 10);
	if (end == grpc_status || *end || code < 0) code = CODE_UNKNOWN;
	_cleanup_buf_ struct buf b = BUF_INIT;
	if (code && details && !base64_decode(details, strlen(details), &b, NULL)) wire_status_unpack(b.p, b.n, ret, NULL);
	if (!err_is_set(ret) || (long)ret->code != code) {
		err_fini(ret);
		err_set(ret, (enum code)code, "%s", msg);
	}
}

void call_headers_complete(struct wire_call_ *c, bool last)
{
	const char *http = wire_call_header(&c->pub, ":status"), *grpc = wire_call_header(&c->pub, "grpc-status");
	if (c->ending) return;
	if (http && http[0] == '1' && !last) { /* informational: the real ones follow */
		headers_free(c->headers.v, c->headers.n);
		c->headers.n = 0;
		return;
	}
	if (!grpc && (!http || strcmp(http, "200")))
		call_abort(c, status_of_http(http ? http : ""), "unexpected HTTP status code received from server: %s",
			   http ? http : "none");
	else if (!grpc && !is_grpc_type(wire_call_header(&c->pub, "content-type")))
		call_abort(c, CODE_UNKNOWN, "the server does not answer in gRPC: unexpected content-type \"%s\"",
			   wire_call_header(&c->pub, "content-type") ?: "");
	if (c->ending) return;
	if (last && grpc) {
		_cleanup_err_ struct err e = ERR_INIT;
		status_of_trailers(c, grpc, &e);
		if ((c->prefix_n || c->part.n) && e.code == CODE_OK) err_set(&e, CODE_INTERNAL, "unexpected EOF");
		c->peer_done = true;
		call_end_move(c, &e);
	} else if (!last && !c->got_headers) {
		c->got_headers = true;
		if (c->pub.ops->headers) c->pub.ops->headers(&c->pub);
	}
}

void call_peer_done(struct wire_call_ *c)
{
	c->peer_done = true;
	if (!is_server(c)) {
		call_end(c, CODE_INTERNAL, "server closed the stream without sending trailers");
		if (c->stream_open && nghttp2_session_get_stream_local_close(c->pub.conn->session, c->id) == 0)
			reset_stream(c, NGHTTP2_NO_ERROR);
		return;
	}
	if (c->muted) return;
	if (c->prefix_n || c->part.n)
		call_abort(c, CODE_INTERNAL, "unexpected EOF");
	else if (c->pub.ops->half_closed)
		c->pub.ops->half_closed(&c->pub);
}

bool wire_call_peer_done(const struct wire_call *call) { return call_of(call)->peer_done; }

/* ---- receiving ---- */

void wire_call_manual_credit(struct wire_call *call) { call_of(call)->manual = true; }

void wire_call_consumed(struct wire_call *call, size_t n)
{
	struct wire_call_ *c = call_of(call);
	n = min_of(n, c->owed);
	size_t paid = min_of(n, c->eager);
	c->owed -= n;
	c->eager -= paid;
	c->pub.conn->held -= n;
	credit_stream(c, n - paid);
	if (!c->owed && c->part_held) { /* the consumer waits for the rest of a message: let it come */
		c->eager += c->part_held;
		credit_stream(c, c->part_held);
		c->part_held = 0;
	}
	credit_conn_debt(c->pub.conn);
}

static void deliver(struct wire_call_ *c, const uint8_t *p)
{
	size_t n = c->need;
	c->prefix_n = 0;
	c->part_held = 0;
	c->owed += n;
	c->pub.conn->held += n;
	c->msgs_count++;
	if (c->pub.ops->message) c->pub.ops->message(&c->pub, p, n);
	if (!c->manual || !c->pub.ops->message) wire_call_consumed(&c->pub, n);
}

static void check_prefix(struct wire_call_ *c)
{
	const uint8_t *p = c->prefix;
	const char *encoding = wire_call_header(&c->pub, "grpc-encoding");
	size_t max = c->pub.conn->max_message;
	c->need = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
	if (p[0] > 1)
		call_abort(c, CODE_INTERNAL, "grpc: received unexpected payload format %u", p[0]);
	else if (p[0] && (!encoding || !*encoding || !strcmp(encoding, "identity")))
		call_abort(c, CODE_INTERNAL, "grpc: compressed flag set with identity or empty encoding");
	else if (p[0])
		call_abort(c, CODE_UNIMPLEMENTED, "grpc: Decompressor is not installed for grpc-encoding \"%s\"", encoding);
	else if (c->need > max)
		call_abort(c, CODE_RESOURCE_EXHAUSTED, "grpc: received message larger than max (%zu vs. %zu)", c->need, max);
	else if (!c->need)
		deliver(c, p);
}

static size_t take_prefix(struct wire_call_ *c, const uint8_t *p, size_t n)
{
	size_t k = min_of(n, sizeof c->prefix - c->prefix_n);
	memcpy(c->prefix + c->prefix_n, p, k);
	c->prefix_n = (uint8_t)(c->prefix_n + k);
	credit_stream(c, k);
	if (c->prefix_n == sizeof c->prefix) check_prefix(c);
	return k;
}

static size_t take_part(struct wire_call_ *c, const uint8_t *p, size_t n)
{
	struct wire_conn *conn = c->pub.conn;
	size_t k = min_of(n, c->need - c->part.n);
	if (!c->part.n) buf_reserve(&c->part, min_of(c->need, (size_t)1 << 20));
	buf_add(&c->part, p, k);
	conn->partial += k;
	if (c->owed) {
		c->part_held += k;
	} else {
		c->eager += k;
		credit_stream(c, k);
	}
	if (c->part.n == c->need) {
		deliver(c, c->part.p);
		part_drop(c);
	} else if (conn->partial > WIRE_PARTIAL_MAX) {
		call_abort(c, CODE_RESOURCE_EXHAUSTED, "grpc: too many unfinished messages on the connection");
	}
	return k;
}

int call_data(struct wire_call_ *c, const uint8_t *p, size_t n)
{
	while (n && !c->muted && !c->pub.conn->dead) {
		size_t k;
		if (c->prefix_n < sizeof c->prefix) {
			k = take_prefix(c, p, n);
		} else if (!c->part.n && n >= c->need) {
			k = c->need;
			deliver(c, p);
		} else {
			k = take_part(c, p, n);
		}
		p += k;
		n -= k;
	}
	credit_stream(c, n); /* of no interest any more */
	return c->pub.conn->dead ? -1 : 0;
}

/* ---- sending ---- */

static struct chunk *chunk_for(struct wire_call_ *c, size_t n)
{
	if (c->tail && c->tail->cap - c->tail->n >= n) return c->tail;
	size_t cap = max_of(n, (size_t)(c->queued ? 16384 : 2048));
	struct chunk *k = xmalloc(sizeof *k + cap);
	*k = (struct chunk){.cap = cap};
	if (c->tail)
		c->tail->next = k;
	else
		c->head = k;
	return c->tail = k;
}

/* Let nghttp2 look at the queue in the next turn. */
static void go_on(struct wire_call_ *c)
{
	if (c->stream_open && c->deferred) {
		c->deferred = false;
		nghttp2_session_resume_data(c->pub.conn->session, c->id);
	}
	conn_arm(c->pub.conn);
}

void wire_call_send_headers(struct wire_call *call)
{
	struct wire_call_ *c = call_of(call);
	if (c->headers_sent || !c->stream_open || !is_server(c)) return;
	VEC(nghttp2_nv) v = {0};
	vec_push(&v, nv(":status", "200"));
	vec_push(&v, nv("content-type", "application/grpc"));
	for (size_t i = 0; i < c->reply.n; i++) vec_push(&v, nv(c->reply.v[i].key, c->reply.v[i].value));
	nghttp2_data_provider data = {.source.ptr = c, .read_callback = call_read};
	c->headers_sent = true;
	if (nghttp2_submit_response(c->pub.conn->session, c->id, v.v, v.n, &data))
		call_abort(c, CODE_INTERNAL, "http2: cannot send headers");
	vec_fini(&v);
	conn_arm(c->pub.conn);
}

uint8_t *call_space(struct wire_call_ *c, size_t n)
{
	if (c->send_closed || c->ending || c->ended || n > UINT32_MAX || c->queued + n > WIRE_SEND_MAX) return NULL;
	struct chunk *k = chunk_for(c, n + 5);
	uint8_t *p = k->data + k->n;
	k->n += n + 5;
	c->queued += n + 5;
	if (c->queued > WIRE_SEND_HIGH) c->was_high = true;
	p[0] = 0;
	p[1] = (uint8_t)(n >> 24);
	p[2] = (uint8_t)(n >> 16);
	p[3] = (uint8_t)(n >> 8);
	p[4] = (uint8_t)n;
	if (is_server(c)) wire_call_send_headers(&c->pub);
	go_on(c);
	return p + 5;
}

int wire_call_send2(struct wire_call *call, const void *p, size_t n, const void *q, size_t m)
{
	uint8_t *to = call_space(call_of(call), n + m);
	if (!to) return -1;
	if (n) memcpy(to, p, n);
	if (m) memcpy(to + n, q, m);
	return 0;
}

int wire_call_send(struct wire_call *call, const void *p, size_t n) { return wire_call_send2(call, p, n, NULL, 0); }

int wire_call_send_msg(struct wire_call *call, const ProtobufCMessage *m)
{
	uint8_t *to = call_space(call_of(call), m ? protobuf_c_message_get_packed_size(m) : 0);
	if (!to) return -1;
	if (m) protobuf_c_message_pack(m, to);
	return 0;
}

size_t wire_call_queued(const struct wire_call *call) { return call_of(call)->queued; }

void wire_call_close_send(struct wire_call *call)
{
	struct wire_call_ *c = call_of(call);
	ensure(!is_server(c));
	if (c->send_closed) return;
	c->send_closed = true;
	go_on(c);
}

int call_write_data(struct wire_call_ *c, struct wire_pipe *p, size_t n)
{
	ensure(n <= c->queued);
	c->queued -= n;
	while (n) {
		struct chunk *k = c->head;
		size_t m = min_of(n, k->n - k->off);
		p->ops->write(p, k->data + k->off, m);
		k->off += m;
		n -= m;
		if (k->off < k->n) break;
		c->head = k->next;
		if (!c->head) c->tail = NULL;
		free(k);
	}
	if (c->was_high && c->queued < WIRE_SEND_LOW) {
		c->was_high = false;
		c->want_writable = true;
	}
	return 0;
}

/* ---- server: the trailers ---- */

/* grpc-status and its companions. nghttp2 takes no header field above 64 KiB and drops the connection over it; grpc-go takes
 * more. So what goes to our own programs is kept below: details are left out, the largest first, then the text is cut. */
enum { FIELD_MAX_OURS = 60 << 10, FIELD_MAX = 400 << 10 };

struct trailer_text {
	char code[16];
	char *msg;
	struct buf details;
};

static void drop_largest_detail(struct err *e)
{
	struct err_detail **at = &e->details;
	for (struct err_detail **d = &e->details; *d; d = &(*d)->next)
		if ((*d)->len > (*at)->len) at = d;
	struct err one = {.details = *at};
	*at = (*at)->next;
	one.details->next = NULL;
	err_fini(&one);
}

static void cut_percent_encoded(char *s, size_t max)
{
	if (strlen(s) <= max) return;
	if (s[max - 1] == '%') max -= 1;
	if (s[max - 2] == '%') max -= 2;
	s[max] = 0;
}

static void trailer_text_init(struct trailer_text *t, struct wire_call_ *c)
{
	struct err *status = &c->trailer;
	bool ours = str_starts(wire_call_header(&c->pub, "user-agent") ?: "", "slipway");
	size_t max = ours ? FIELD_MAX_OURS : FIELD_MAX;
	_cleanup_buf_ struct buf raw = BUF_INIT;
	*t = (struct trailer_text){0};
	snprintf(t->code, sizeof t->code, "%d", status->code);
	t->msg = status_percent_encode(status->msg ? status->msg : "");
	cut_percent_encoded(t->msg, max);
	for (; status->details; drop_largest_detail(status)) {
		buf_reset(&raw);
		wire_status_pack(status, &raw);
		if (raw.n <= max / 4 * 3) break;
	}
	if (!status->details) return;
	base64_encode(&t->details, raw.p, raw.n);
	while (t->details.n && t->details.p[t->details.n - 1] == '=') t->details.p[--t->details.n] = 0;
}

static size_t trailer_nv(const struct trailer_text *t, nghttp2_nv *v)
{
	size_t n = 0;
	v[n++] = nv("grpc-status", t->code);
	if (t->msg[0]) v[n++] = nv("grpc-message", t->msg);
	if (t->details.n) v[n++] = nv("grpc-status-details-bin", buf_str(&t->details));
	return n;
}

static void submit_trailers(struct wire_call_ *c)
{
	struct trailer_text t;
	nghttp2_nv v[3];
	trailer_text_init(&t, c);
	nghttp2_submit_trailer(c->pub.conn->session, c->id, v, trailer_nv(&t, v));
	free(t.msg);
	buf_fini(&t.details);
}

static void submit_trailers_only(struct wire_call_ *c)
{
	struct trailer_text t;
	VEC(nghttp2_nv) v = {0};
	vec_push(&v, nv(":status", "200"));
	vec_push(&v, nv("content-type", "application/grpc"));
	for (size_t i = 0; i < c->reply.n; i++) vec_push(&v, nv(c->reply.v[i].key, c->reply.v[i].value));
	trailer_text_init(&t, c);
	vec_grow(&v, v.n + 3);
	v.n += trailer_nv(&t, v.v + v.n);
	c->headers_sent = true;
	nghttp2_submit_response(c->pub.conn->session, c->id, v.v, v.n, NULL);
	vec_fini(&v);
	free(t.msg);
	buf_fini(&t.details);
}

static void finish(struct wire_call_ *c, const struct err *status, bool skip_queue)
{
	if (c->finished || c->ending) return;
	c->finished = c->send_closed = c->muted = true;
	c->skip_queue = skip_queue;
	if (status) err_copy(&c->trailer, status);
	if (!c->stream_open) return;
	if (!c->headers_sent) submit_trailers_only(c);
	go_on(c);
}

ssize_t call_read(nghttp2_session *s, int32_t id, uint8_t *buf, size_t length, uint32_t *flags, nghttp2_data_source *src,
		  void *user)
{
	struct wire_call_ *c = src->ptr;
	bool cancelled = c->ending && !c->finished;
	size_t n = c->skip_queue || cancelled ? 0 : min_of(length, c->queued);
	bool end = !cancelled && c->send_closed && (c->skip_queue || n == c->queued);
	if (!n && !end) {
		c->deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	if (n) *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (!end) return (ssize_t)n;
	*flags |= NGHTTP2_DATA_FLAG_EOF;
	if (is_server(c)) {
		*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
		submit_trailers(c);
	}
	return (ssize_t)n;
}

void wire_call_finish(struct wire_call *call, const struct err *status)
{
	struct wire_call_ *c = call_of(call);
	ensure(is_server(c));
	finish(c, status, false);
}

void wire_call_reply(struct wire_call *call, const ProtobufCMessage *m)
{
	if (wire_call_send_msg(call, m) < 0)
		wire_call_fail(call, CODE_RESOURCE_EXHAUSTED, "the response does not fit a message");
	else
		wire_call_finish(call, NULL);
}

void wire_call_fail(struct wire_call *call, enum code code, const char *fmt, ...)
{
	_cleanup_err_ struct err e = ERR_INIT;
	va_list ap;
	va_start(ap, fmt);
	err_vset(&e, code, fmt, ap);
	va_end(ap);
	wire_call_finish(call, &e);
}

void wire_call_unimplemented(struct wire_call *call, const char *const *services)
{
	const char *method = strrchr(call->path, '/');
	if (!method || method == call->path) {
		wire_call_fail(call, CODE_UNIMPLEMENTED, "malformed method name: \"%s\"", call->path);
		return;
	}
	const char *service = call->path + 1;
	int n = (int)(method - service);
	for (; services && *services; services++)
		if (strlen(*services) == (size_t)n && !memcmp(*services, service, (size_t)n)) {
			wire_call_fail(call, CODE_UNIMPLEMENTED, "unknown method %s for service %.*s", method + 1, n, service);
			return;
		}
	wire_call_fail(call, CODE_UNIMPLEMENTED, "unknown service %.*s", n, service);
}

void wire_call_cancel(struct wire_call *call)
{
	struct wire_call_ *c = call_of(call);
	if (c->ending || c->ended) return;
	c->send_closed = true;
	call_end(c, CODE_CANCELLED, "context canceled");
	reset_stream(c, NGHTTP2_CANCEL);
}

/* ---- client: opening ---- */

static void submit_request(struct wire_call_ *c, const struct wire_md *md, size_t n_md, uint64_t timeout_ms)
{
	struct wire_conn *conn = c->pub.conn;
	VEC(nghttp2_nv) v = {0};
	char timeout[24];
	vec_push(&v, nv(":method", "POST"));
	vec_push(&v, nv(":scheme", "http"));
	vec_push(&v, nv(":path", c->pub.path));
	vec_push(&v, nv(":authority", conn->authority));
	vec_push(&v, nv("content-type", "application/grpc"));
	vec_push(&v, nv("user-agent", "slipway"));
	vec_push(&v, nv("te", "trailers"));
	if (timeout_ms) {
		bool small = timeout_ms < 100000000;
		snprintf(timeout, sizeof timeout, "%llu%c",
			 (unsigned long long)(small ? timeout_ms : min_of(timeout_ms / 1000, (uint64_t)99999999)),
			 small ? 'm' : 'S');
		vec_push(&v, nv("grpc-timeout", timeout));
	}
	for (size_t i = 0; i < n_md; i++) vec_push(&v, nv(md[i].key, md[i].value));
	nghttp2_data_provider data = {.source.ptr = c, .read_callback = call_read};
	int32_t id = nghttp2_submit_request(conn->session, NULL, v.v, v.n, &data, c);
	vec_fini(&v);
	if (id < 0) {
		call_end(c, CODE_UNAVAILABLE, "cannot open a call: %s", nghttp2_strerror(id));
		return;
	}
	c->id = id;
	c->stream_open = c->headers_sent = true;
	conn_arm(conn);
}

struct wire_call *wire_call_open(struct wire_conn *conn, const char *path, const struct wire_md *md, size_t n_md,
				 uint64_t timeout_ms, const struct wire_call_ops *ops, void *user)
{
	ensure(!conn->handler);
	struct wire_call_ *c = call_new(conn);
	c->pub.path = xstrdup(path);
	c->pub.ops = ops ? ops : &no_ops;
	c->pub.user = user;
	c->started = true;
	if (conn->dead)
		call_end(c, CODE_UNAVAILABLE, "%s", err_is_set(&conn->why) ? conn->why.msg : "the connection is closed");
	else if (!wire_conn_usable(conn))
		call_end(c, CODE_UNAVAILABLE, "the connection is draining");
	else
		submit_request(c, md, n_md, timeout_ms);
	if (timeout_ms && !c->ending) set_deadline(c, timeout_ms);
	return &c->pub;
}
