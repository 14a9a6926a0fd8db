#ifndef WIRE_INTERNAL_H
#define WIRE_INTERNAL_H
/* The room's own: what conn.c (session, turns, what nghttp2 says) and call.c (queues, credit, what users say) share. */
#include "wire/resolve.h"
#include "wire/wire.h"
#include <nghttp2/nghttp2.h>

enum { CONN_PIPE_HIGH = 1 << 20, CONN_FRAME_MAX = 64 << 10, CONN_CONTROL_QUEUE_MAX = 20000, CONN_HEADERS_TOTAL_MAX = 16 << 20 };

struct chunk { /* of a call's send queue: data[off..n) is still to go */
	struct chunk *next;
	size_t off, n, cap;
	uint8_t data[];
};

struct header {
	char *key, *value;
};

struct wire_call_ {
	struct wire_call pub;
	struct list link;     /* conn->calls */
	struct list end_link; /* conn->ending */
	int32_t id;           /* 0: no stream was made */
	bool stream_open;     /* nghttp2 knows the stream and points at us */
	bool started;         /* server: start() was called */
	bool headers_sent;    /* the response or request was submitted */
	bool send_closed;     /* nothing more is taken */
	bool finished;        /* server: trailer holds what is to be sent */
	bool skip_queue;      /* trailers go at once, before what is queued */
	bool deferred;        /* nghttp2 waits for nghttp2_session_resume_data */
	bool muted;           /* no callbacks but ended() */
	bool ending, ended;   /* status is set and in conn->ending; delivered */
	bool peer_done, got_headers, manual;
	bool was_high, want_writable;
	struct err status;  /* for ended() */
	struct err trailer; /* server: to be sent */
	VEC(struct header) headers, reply;
	size_t headers_bytes;
	/* send */
	struct chunk *head, *tail;
	size_t queued;
	/* receive */
	uint8_t prefix[5];
	uint8_t prefix_n;
	size_t need;      /* payload of the message at hand */
	struct buf part;  /* its first bytes */
	size_t owed;      /* delivered, and the user has not consumed it */
	size_t eager;     /* of which (or of part) the stream was credited before */
	size_t part_held; /* of part: not credited */
	size_t msgs_count;
	struct loop_timer deadline;
};

struct wire_conn {
	struct loop *loop;
	struct wire_pipe *pipe;
	const struct wire_handler *handler; /* NULL: a client */
	char *authority;
	nghttp2_session *session;
	uv_idle_t *idle;
	bool armed, started, paused, dead, shutting, draining, goodbye;
	struct err why;
	struct list calls, ending;
	size_t calls_count; /* not yet ended */
	size_t held, conn_debt, partial, headers_bytes;
	size_t max_message, window_conn, window_stream;
	struct loop_timer keepalive, pong;
	uint64_t keepalive_ms, pong_ms, heard, heard_then, heard_ping;
	void (*closed)(void *arg, const struct err *why);
	void *closed_arg;
	void *user;
	int fd;
	char peer[96], hint[160];
};

static inline struct wire_call_ *call_of(const struct wire_call *c)
{
	return container_of((struct wire_call *)c, struct wire_call_, pub);
}

/* conn.c */
void conn_arm(struct wire_conn *c); /* a turn soon */
void conn_die(struct wire_conn *c, enum code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void conn_describe(struct wire_conn *c, int fd, const char *peer);

/* call.c: what conn.c tells a call */
struct wire_call_ *call_new(struct wire_conn *conn);
void call_free(struct wire_call_ *c);
bool call_add_header(struct wire_call_ *c, const uint8_t *k, size_t kn, const uint8_t *v, size_t vn);
void call_request_complete(struct wire_call_ *c);            /* server: headers are there */
void call_headers_complete(struct wire_call_ *c, bool last); /* client: headers or trailers are there */
int call_data(struct wire_call_ *c, const uint8_t *p, size_t n);
void call_peer_done(struct wire_call_ *c);
void call_trailers_sent(struct wire_call_ *c);
void call_stream_closed(struct wire_call_ *c, uint32_t code);
void call_end(struct wire_call_ *c, enum code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void call_deliver_end(struct wire_call_ *c); /* ended(); frees it when its stream is closed */
ssize_t call_read(nghttp2_session *s, int32_t id, uint8_t *buf, size_t length, uint32_t *flags, nghttp2_data_source *src,
		  void *user);
int call_write_data(struct wire_call_ *c, struct wire_pipe *p, size_t n);
uint8_t *call_space(struct wire_call_ *c, size_t n); /* a message of n bytes to be filled in at once; NULL as wire_call_send */

/* status.c */
char *status_percent_encode(const char *s);
char *status_percent_decode(const char *s);
enum code status_of_http(const char *http_status);
enum code status_of_reset(uint32_t h2_error);
const char *status_reset_name(uint32_t h2_error);

/* stream.c: a pipe over libuv streams */
struct stream;
struct stream_opts {
	struct loop *loop;
	uv_stream_t *r, *w; /* heap handles, taken; w may be r */
	void *ssl;          /* SSL *, taken; NULL: plain */
	const struct wire_handler *handler;
	const char *authority, *peer;
	/* Once: the connection, or NULL and why the TLS handshake failed. Later than stream_open when there is TLS, else from
	 * within. */
	void (*ready)(void *arg, struct wire_conn *c, const struct err *e);
	void *arg;
};
struct stream *stream_open(const struct stream_opts *o);
void stream_abandon(struct stream *s);    /* before ready(): close, and ready() will not come */
void stream_close_handle(uv_stream_t *h); /* closes and frees */
void stream_tcp_options(uv_tcp_t *h);     /* no delay; a dead peer is noticed within a minute */

/* tls.c */
struct ssl_ctx_st;
struct ssl_ctx_st *tls_server_ctx(const struct wire_tls *t, struct err *e);
void *tls_server_ssl(struct ssl_ctx_st *ctx);
void *tls_client_ssl(const struct wire_tls *t, const char *host, struct err *e); /* reads files: blocks shortly */
void tls_ctx_free(struct ssl_ctx_st *ctx);
void tls_ctx_ref(struct ssl_ctx_st *ctx);
void tls_ssl_free(void *ssl); /* NULL allowed */
int tls_error(struct err *e, const void *ssl, const char *what);

#endif
