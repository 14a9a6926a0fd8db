/* A connection: one nghttp2 session over a pipe, and its turns.
 *
 * Bytes come in by wire_conn_feed(), which runs nghttp2 and with it the calls' callbacks. Everything else (users' sends,
 * credit, ends, closing) only notes what is to be done and arms an idle handle; the next turn of the loop then
 *   1. delivers ended() of the calls that have an end,
 *   2. lets nghttp2 produce frames until it has none or the pipe holds 1 MiB, and flushes the pipe once,
 *   3. tells calls whose queue has fallen that they are writable,
 *   4. takes the connection down if it is dead: ends all calls, closes the pipe, closed(), free.
 * So no user is ever called from inside its own call of ours, and small frames leave together.
 * DATA goes from a call's queue to the pipe without a copy in nghttp2 (NGHTTP2_DATA_FLAG_NO_COPY).
 * A server does not use nghttp2's HTTP checks: they refuse authorities that Go clients send; call.c checks what matters. */
#include "wire/internal.h"

#include <stdio.h>

/* ---- turns ---- */

static void conn_turn(uv_idle_t *idle);

void conn_arm(struct wire_conn *c)
{
	if (c->armed) return;
	c->armed = true;
	uv_idle_start(c->idle, conn_turn);
}

static void conn_vdie(struct wire_conn *c, enum code code, const char *fmt, va_list ap)
{
	conn_arm(c);
	if (c->dead) return;
	c->dead = true;
	if (!err_is_set(&c->why)) err_vset(&c->why, code, fmt, ap);
}

void conn_die(struct wire_conn *c, enum code code, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	conn_vdie(c, code, fmt, ap);
	va_end(ap);
}

static void submit_settings(struct wire_conn *c)
{
	nghttp2_settings_entry v[] = {
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, WIRE_STREAMS_MAX},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)c->window_stream},
		{NGHTTP2_SETTINGS_MAX_FRAME_SIZE, CONN_FRAME_MAX},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, WIRE_HEADERS_MAX},
		{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
	};
	size_t n = array_len(v) - (c->handler ? 1 : 0); /* a server must not speak of push */
	nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, v, n);
	nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, (int32_t)c->window_conn);
	c->started = true;
}

static bool pipe_full(struct wire_conn *c)
{
	if (c->pipe->ops->queued(c->pipe) < CONN_PIPE_HIGH) return false;
	c->paused = true;
	return true;
}

static void conn_produce(struct wire_conn *c)
{
	if (!c->started) submit_settings(c);
	while (!pipe_full(c)) {
		const uint8_t *b;
		ssize_t n = nghttp2_session_mem_send(c->session, &b);
		if (n < 0) conn_die(c, CODE_INTERNAL, "http2: %s", nghttp2_strerror((int)n));
		if (n <= 0) break;
		c->pipe->ops->write(c->pipe, b, (size_t)n);
	}
	if (c->pipe->ops->flush) c->pipe->ops->flush(c->pipe);
	if (nghttp2_session_get_outbound_queue_size(c->session) > CONN_CONTROL_QUEUE_MAX)
		conn_die(c, CODE_RESOURCE_EXHAUSTED, "http2: the peer does not read what it asked for");
}

static void deliver_ends(struct wire_conn *c)
{
	while (!list_empty(&c->ending)) {
		struct wire_call_ *call = container_of(c->ending.next, struct wire_call_, end_link);
		call_deliver_end(call);
	}
}

static void deliver_writable(struct wire_conn *c)
{
	LIST_EACH(&c->calls, struct wire_call_, call, link)
	{
		if (!call->want_writable) continue;
		call->want_writable = false;
		if (!call->muted && !call->ending && call->pub.ops->writable) call->pub.ops->writable(&call->pub);
	}
}

/* All calls end with why; answers false when a user opened new ones meanwhile: then the next turn goes on. */
static bool end_all(struct wire_conn *c)
{
	LIST_EACH(&c->calls, struct wire_call_, call, link)
	{
		call->stream_open = false;
		if (call->ended)
			call_free(call);
		else
			call_end(call, c->why.code, "%s", c->why.msg);
	}
	struct list now = LIST_INIT(now);
	while (!list_empty(&c->ending)) {
		struct list *n = c->ending.next;
		list_del(n);
		list_add_tail(&now, n);
	}
	while (!list_empty(&now)) call_deliver_end(container_of(now.next, struct wire_call_, end_link));
	return list_empty(&c->calls);
}

static void conn_teardown(struct wire_conn *c)
{
	if (!err_is_set(&c->why)) err_set(&c->why, CODE_UNAVAILABLE, "the connection is closing");
	if (!end_all(c)) {
		conn_arm(c);
		return;
	}
	nghttp2_session_del(c->session);
	c->session = NULL;
	loop_timer_stop(&c->keepalive);
	loop_timer_stop(&c->pong);
	uv_close((uv_handle_t *)c->idle, (uv_close_cb)free);
	c->pipe->ops->close(c->pipe);
	if (c->closed) c->closed(c->closed_arg, &c->why);
	err_fini(&c->why);
	free(c->authority);
	free(c);
}

static bool streams_open(struct wire_conn *c)
{
	LIST_EACH(&c->calls, struct wire_call_, call, link)
	if (call->stream_open) return true;
	return false;
}

static void look_for_the_end(struct wire_conn *c)
{
	if (c->dead) return;
	if (!nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session))
		conn_die(c, CODE_UNAVAILABLE, "the connection is draining");
	else if ((c->shutting || c->draining) && !c->calls_count && !streams_open(c) && !nghttp2_session_want_write(c->session))
		conn_die(c, CODE_UNAVAILABLE, "the connection is draining");
}

static void conn_turn(uv_idle_t *idle)
{
	struct wire_conn *c = idle->data;
	uv_idle_stop(idle);
	c->armed = false;
	deliver_ends(c);
	if (!c->dead || c->goodbye) conn_produce(c);
	c->goodbye = false;
	if (!c->dead) deliver_writable(c);
	look_for_the_end(c);
	if (c->dead) conn_teardown(c);
}

/* ---- what nghttp2 says ---- */

static struct wire_call_ *call_at(nghttp2_session *s, int32_t id)
{
	return id ? nghttp2_session_get_stream_user_data(s, id) : NULL;
}

static int on_begin_headers(nghttp2_session *s, const nghttp2_frame *f, void *user)
{
	struct wire_conn *c = user;
	if (!c->handler || f->hd.type != NGHTTP2_HEADERS || f->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
	if (c->dead || c->headers_bytes > CONN_HEADERS_TOTAL_MAX) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	struct wire_call_ *call = call_new(c);
	call->id = f->hd.stream_id;
	call->stream_open = true;
	nghttp2_session_set_stream_user_data(s, call->id, call);
	return 0;
}

static int on_header(nghttp2_session *s, const nghttp2_frame *f, const uint8_t *k, size_t kn, const uint8_t *v, size_t vn,
		     uint8_t flags, void *user)
{
	struct wire_call_ *call = call_at(s, f->hd.stream_id);
	if (!call) return 0;
	return call_add_header(call, k, kn, v, vn) ? 0 : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static void on_headers_frame(struct wire_conn *c, struct wire_call_ *call, const nghttp2_frame *f)
{
	bool last = f->hd.flags & NGHTTP2_FLAG_END_STREAM;
	if (!c->handler)
		call_headers_complete(call, last);
	else if (f->headers.cat == NGHTTP2_HCAT_REQUEST)
		call_request_complete(call);
	if (last) call_peer_done(call);
}

static int on_frame_recv(nghttp2_session *s, const nghttp2_frame *f, void *user)
{
	struct wire_conn *c = user;
	if (c->dead) return NGHTTP2_ERR_CALLBACK_FAILURE;
	if (f->hd.type == NGHTTP2_GOAWAY) {
		c->draining = true;
		if (f->goaway.error_code && !err_is_set(&c->why))
			err_set(&c->why, CODE_UNAVAILABLE, "closing transport due to: the peer sent GOAWAY: %s%s%.*s",
				status_reset_name(f->goaway.error_code), f->goaway.opaque_data_len ? ": " : "",
				(int)min_of(f->goaway.opaque_data_len, (size_t)200), (const char *)f->goaway.opaque_data);
		return 0;
	}
	struct wire_call_ *call = call_at(s, f->hd.stream_id);
	if (!call) return 0;
	if (f->hd.type == NGHTTP2_HEADERS)
		on_headers_frame(c, call, f);
	else if (f->hd.type == NGHTTP2_DATA && (f->hd.flags & NGHTTP2_FLAG_END_STREAM))
		call_peer_done(call);
	return c->dead ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* The connection's window: credited at once while little is held, else when users have consumed (wire_call_consumed). */
static void credit_conn(struct wire_conn *c, size_t n)
{
	c->conn_debt += n;
	if (c->held >= WIRE_HELD_MAX) return;
	nghttp2_session_consume_connection(c->session, c->conn_debt);
	c->conn_debt = 0;
}

static int on_data(nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *user)
{
	struct wire_conn *c = user;
	struct wire_call_ *call = call_at(s, id);
	if (call && call_data(call, p, n) < 0) return NGHTTP2_ERR_CALLBACK_FAILURE;
	if (!call) nghttp2_session_consume_stream(s, id, n);
	credit_conn(c, n);
	return c->dead ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_frame_send(nghttp2_session *s, const nghttp2_frame *f, void *user)
{
	struct wire_conn *c = user;
	struct wire_call_ *call = call_at(s, f->hd.stream_id);
	if (f->hd.type == NGHTTP2_GOAWAY && f->goaway.error_code && !err_is_set(&c->why))
		err_set(&c->why, CODE_UNAVAILABLE, "http2: %s%s%s", status_reset_name(f->goaway.error_code),
			f->goaway.error_code == NGHTTP2_COMPRESSION_ERROR ? " (a header field of the peer above 64 KiB?)"
			: c->hint[0]                                      ? ": "
									  : "",
			c->hint);
	if (!c->handler || !call || f->hd.type != NGHTTP2_HEADERS || !(f->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
	if (!nghttp2_session_get_stream_remote_close(s, call->id)) /* the client may stop sending */
		nghttp2_submit_rst_stream(s, NGHTTP2_FLAG_NONE, call->id, NGHTTP2_NO_ERROR);
	call_trailers_sent(call);
	return 0;
}

static int on_frame_not_send(nghttp2_session *s, const nghttp2_frame *f, int error, void *user)
{
	struct wire_call_ *call = call_at(s, f->hd.stream_id);
	if (!call || f->hd.type != NGHTTP2_HEADERS) return 0;
	call_end(call, CODE_INTERNAL, "http2: cannot send headers: %s", nghttp2_strerror(error));
	if (call->stream_open) nghttp2_submit_rst_stream(s, NGHTTP2_FLAG_NONE, call->id, NGHTTP2_INTERNAL_ERROR);
	return 0;
}

static int on_stream_close(nghttp2_session *s, int32_t id, uint32_t code, void *user)
{
	struct wire_call_ *call = call_at(s, id);
	if (call) call_stream_closed(call, code);
	return 0;
}

static int on_send_data(nghttp2_session *s, nghttp2_frame *f, const uint8_t *framehd, size_t n, nghttp2_data_source *src,
			void *user)
{
	struct wire_conn *c = user;
	if (pipe_full(c)) return NGHTTP2_ERR_WOULDBLOCK;
	c->pipe->ops->write(c->pipe, framehd, 9);
	return call_write_data(src->ptr, c->pipe, n);
}

static ssize_t data_length(nghttp2_session *s, uint8_t type, int32_t id, int32_t conn_window, int32_t stream_window,
			   uint32_t frame_max, void *user)
{
	int64_t n = min_of(conn_window, stream_window);
	return (ssize_t)min_of(n, (int64_t)min_of(frame_max, (uint32_t)CONN_FRAME_MAX));
}

static int on_error(nghttp2_session *s, int lib_error, const char *msg, size_t n, void *user)
{
	struct wire_conn *c = user;
	snprintf(c->hint, sizeof c->hint, "%.*s", (int)min_of(n, (size_t)150), msg);
	return 0;
}

static int on_invalid_frame(nghttp2_session *s, const nghttp2_frame *f, int lib_error, void *user)
{
	return on_error(s, lib_error, nghttp2_strerror(lib_error), strlen(nghttp2_strerror(lib_error)), user);
}

static nghttp2_session *session_new(struct wire_conn *c)
{
	nghttp2_session_callbacks *cb;
	nghttp2_option *o;
	nghttp2_session *s;
	if (nghttp2_session_callbacks_new(&cb) || nghttp2_option_new(&o)) bug("out of memory");
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
	nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_frame_not_send);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	nghttp2_session_callbacks_set_send_data_callback(cb, on_send_data);
	nghttp2_session_callbacks_set_data_source_read_length_callback(cb, data_length);
	nghttp2_session_callbacks_set_error_callback2(cb, on_error);
	nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
	nghttp2_option_set_no_auto_window_update(o, 1);
	nghttp2_option_set_no_closed_streams(o, 1);
	nghttp2_option_set_max_send_header_block_length(o, 2 * WIRE_HEADERS_MAX);
	nghttp2_option_set_max_continuations(o, WIRE_HEADERS_MAX / 16384 + 8);
	nghttp2_option_set_stream_reset_rate_limit(o, 10000, 1000);
	if (c->handler) nghttp2_option_set_no_http_messaging(o, 1);
	int rv = c->handler ? nghttp2_session_server_new2(&s, cb, c, o) : nghttp2_session_client_new2(&s, cb, c, o);
	if (rv) bug("nghttp2: %s", nghttp2_strerror(rv));
	nghttp2_session_callbacks_del(cb);
	nghttp2_option_del(o);
	return s;
}

/* ---- for users ---- */

static struct wire_conn *conn_new(struct loop *l, struct wire_pipe *p, const struct wire_handler *h, const char *authority)
{
	struct wire_conn *c = xnew(struct wire_conn);
	c->loop = l;
	c->pipe = p;
	c->handler = h;
	c->authority = xstrdup(authority ? authority : "localhost");
	c->fd = -1;
	c->max_message = WIRE_MESSAGE_MAX;
	c->window_conn = WIRE_WINDOW_CONN;
	c->window_stream = WIRE_WINDOW_STREAM;
	list_init(&c->calls);
	list_init(&c->ending);
	c->session = session_new(c);
	c->idle = xnew(uv_idle_t);
	uv_idle_init(loop_uv(l), c->idle);
	c->idle->data = c;
	conn_arm(c);
	return c;
}

struct wire_conn *wire_conn_server(struct loop *l, struct wire_pipe *p, const struct wire_handler *h)
{
	ensure(h && h->start);
	return conn_new(l, p, h, NULL);
}

struct wire_conn *wire_conn_client(struct loop *l, struct wire_pipe *p, const char *authority)
{
	return conn_new(l, p, NULL, authority);
}

void wire_conn_feed(struct wire_conn *c, const uint8_t *b, size_t n)
{
	if (c->dead) return;
	c->heard++;
	if (!c->started) submit_settings(c); /* ahead of the acknowledgement of the peer's */
	ssize_t rv = nghttp2_session_mem_recv(c->session, b, n);
	if (rv == NGHTTP2_ERR_BAD_CLIENT_MAGIC)
		conn_die(c, CODE_UNAVAILABLE, "http2: the peer does not speak HTTP/2");
	else if (rv < 0)
		conn_die(c, CODE_UNAVAILABLE, "http2: %s", nghttp2_strerror((int)rv));
	conn_arm(c);
}

void wire_conn_eof(struct wire_conn *c, const struct err *why)
{
	if (c->dead) return;
	if (why && err_is_set(why)) {
		err_copy(&c->why, why);
		c->why.code = CODE_UNAVAILABLE;
	}
	conn_die(c, CODE_UNAVAILABLE, c->handler ? "the client closed the connection" : "error reading from server: EOF");
}

void wire_conn_writable(struct wire_conn *c)
{
	if (!c->paused) return;
	c->paused = false;
	conn_arm(c);
}

void wire_conn_shutdown(struct wire_conn *c)
{
	if (c->dead || c->shutting) return;
	c->shutting = true;
	nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->session),
			      NGHTTP2_NO_ERROR, NULL, 0);
	conn_arm(c);
}

void wire_conn_close(struct wire_conn *c)
{
	if (c->dead) return;
	nghttp2_session_terminate_session(c->session, NGHTTP2_NO_ERROR);
	c->goodbye = true; /* GOAWAY and what stands before it still go, as far as the pipe takes them */
	conn_die(c, CODE_UNAVAILABLE, "the connection is closing");
}

void wire_conn_on_closed(struct wire_conn *c, void (*closed)(void *arg, const struct err *why), void *arg)
{
	c->closed = closed;
	c->closed_arg = arg;
}

static void pong_missing(void *arg)
{
	struct wire_conn *c = arg;
	if (c->heard == c->heard_ping) conn_die(c, CODE_UNAVAILABLE, "keepalive ping failed to receive ACK within timeout");
}

static void keepalive_tick(void *arg)
{
	struct wire_conn *c = arg;
	bool quiet = c->heard == c->heard_then;
	c->heard_then = c->heard;
	if (c->dead || !quiet || c->pong.uv || (!c->handler && !c->calls_count)) return;
	c->heard_ping = c->heard;
	nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL);
	loop_timer_start(c->loop, &c->pong, c->pong_ms, 0, pong_missing, c);
	conn_arm(c);
}

void wire_conn_keepalive(struct wire_conn *c, uint64_t interval_ms, uint64_t timeout_ms)
{
	c->keepalive_ms = interval_ms;
	c->pong_ms = timeout_ms;
	loop_timer_stop(&c->keepalive);
	loop_timer_stop(&c->pong);
	if (interval_ms) loop_timer_start(c->loop, &c->keepalive, interval_ms, interval_ms, keepalive_tick, c);
}

void wire_conn_set_max_message(struct wire_conn *c, size_t max_bytes) { c->max_message = max_bytes; }

void wire_conn_set_windows(struct wire_conn *c, size_t conn_bytes, size_t stream_bytes)
{
	ensure(!c->started);
	c->window_conn = max_of(conn_bytes, (size_t)65535);
	c->window_stream = max_of(stream_bytes, (size_t)65535);
}

size_t wire_conn_calls_count(const struct wire_conn *c) { return c->calls_count; }
bool wire_conn_usable(const struct wire_conn *c) { return !c->dead && !c->shutting && !c->draining; }
struct loop *wire_conn_loop(const struct wire_conn *c) { return c->loop; }
int wire_conn_fd(const struct wire_conn *c) { return c->fd; }
const char *wire_conn_peer(const struct wire_conn *c) { return c->peer; }
void wire_conn_set_user(struct wire_conn *c, void *user) { c->user = user; }
void *wire_conn_user(const struct wire_conn *c) { return c->user; }

void conn_describe(struct wire_conn *c, int fd, const char *peer)
{
	c->fd = fd;
	snprintf(c->peer, sizeof c->peer, "%s", peer);
}
