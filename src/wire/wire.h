#ifndef WIRE_WIRE_H
#define WIRE_WIRE_H
/* HTTP/2 and gRPC framing over any byte pipe, server and client; it knows no message.
 *
 * Everything here: loop thread, not blocking, unless said otherwise.
 *  1. Callbacks come from wire_conn_feed() and from turns of the loop only, never from inside any other wire_* function.
 *     In a callback every wire_* function may be called, wire_conn_close() too.
 *  2. ended() comes exactly once a call, also when its connection dies; after it returned the call does not exist.
 *  3. closed() comes exactly once a connection, after the ended() of all its calls; then the connection does not exist.
 *  4. A stream's window is credited when its bytes were consumed, so a slow consumer slows the sender; the connection's is
 *     credited at once (a stalled call must not stall the others) as long as less than WIRE_HELD_MAX waits in all calls.
 *  5. Bytes that cross a thread or wait for a disk: wire_call_manual_credit() and wire_call_consumed().
 * Sources: RFC 9113; grpc/grpc doc/PROTOCOL-HTTP2.md; texts of errors as grpc-go words them. */
#include "base/base.h"
#include "loop/loop.h"
#include <protobuf-c/protobuf-c.h>

enum {
	WIRE_WINDOW_CONN = 4 << 20,   /* receive windows we offer */
	WIRE_WINDOW_STREAM = 1 << 20, /* at least 65535 */
	WIRE_MESSAGE_MAX = 16 << 20,  /* a received message, see wire_conn_set_max_message */
	WIRE_HEADERS_MAX =
		1 << 20,          /* header list of one call (BuildKit sends path lists in it); nghttp2 takes 64 KiB a field */
	WIRE_STREAMS_MAX = 1000,  /* calls that a peer may have open */
	WIRE_HELD_MAX = 64 << 20, /* delivered and not yet consumed, all calls of a connection */
	WIRE_PARTIAL_MAX = 256 << 20, /* unfinished messages, all calls of a connection */
	WIRE_SEND_HIGH = 256 << 10,   /* stop sending above it, writable() comes below WIRE_SEND_LOW */
	WIRE_SEND_LOW = 64 << 10,
	WIRE_SEND_MAX = 64 << 20, /* hard limit of what wire_call_send takes */
};

/* ---- the pipe beneath a connection; embedded by its owner, which keeps it until close() ---- */
struct wire_pipe {
	const struct wire_pipe_ops *ops;
};
struct wire_pipe_ops {
	void (*write)(struct wire_pipe *p, const uint8_t *b, size_t n); /* takes all n bytes (copies) */
	void (*flush)(struct wire_pipe *p);                             /* end of a burst of writes; NULL allowed */
	size_t (*queued)(
		struct wire_pipe *p); /* taken and not yet gone; above 1 MiB the connection pauses till wire_conn_writable */
	void (*close)(
		struct wire_pipe *p); /* once; what was written should still go; the connection is not to be touched any more */
};

/* ---- connections ---- */
struct wire_conn;
struct wire_call;
struct wire_handler { /* of a server; borrowed, lives as long as its connections */
	void (*start)(const struct wire_handler *h, struct wire_call *call); /* a new call: must set call->ops, may set user */
	void *arg;
};
/* The pipe is borrowed until its close(). Neither can fail: a dead pipe shows by wire_conn_eof. */
struct wire_conn *wire_conn_server(struct loop *l, struct wire_pipe *p, const struct wire_handler *h);
struct wire_conn *wire_conn_client(struct loop *l, struct wire_pipe *p, const char *authority);
void wire_conn_feed(struct wire_conn *c, const uint8_t *b, size_t n); /* bytes arrived; all are digested when it returns */
void wire_conn_eof(struct wire_conn *c, const struct err *why); /* the pipe ended (why may be NULL): calls end UNAVAILABLE */
void wire_conn_writable(struct wire_conn *c);                   /* queued() has fallen */
void wire_conn_shutdown(struct wire_conn *c);                   /* GOAWAY; running calls go on, then it closes */
void wire_conn_close(struct wire_conn *c);                      /* calls end in the next turn, whatever their state */
void wire_conn_on_closed(struct wire_conn *c, void (*closed)(void *arg, const struct err *why), void *arg);
/* PING when nothing was heard for interval_ms and a call runs (a client's; a server pings always); no sign of life for
 * timeout_ms: dead. Go servers allow a ping each 5 minutes, or 10 s where they say so. */
void wire_conn_keepalive(struct wire_conn *c, uint64_t interval_ms, uint64_t timeout_ms);
void wire_conn_set_max_message(struct wire_conn *c, size_t max_bytes);
void wire_conn_set_windows(struct wire_conn *c, size_t conn_bytes, size_t stream_bytes); /* before returning to the loop */
size_t wire_conn_calls_count(const struct wire_conn *c);
bool wire_conn_usable(const struct wire_conn *c); /* new calls may be opened (client) */
struct loop *wire_conn_loop(const struct wire_conn *c);
int wire_conn_fd(const struct wire_conn *c);           /* socket beneath, for SO_PEERCRED; -1: none. Borrowed */
const char *wire_conn_peer(const struct wire_conn *c); /* "unix", "tcp 10.0.0.1:1234", "fd", "tunnel"; for logs */
void wire_conn_set_user(struct wire_conn *c, void *user);
void *wire_conn_user(const struct wire_conn *c);

/* ---- calls ---- */
struct wire_md {
	const char *key, *value; /* key in lower case */
};
struct wire_call {
	const struct wire_call_ops *ops;
	void *user;
	const char *path; /* "/moby.buildkit.v1.Control/Solve" */
	struct wire_conn *conn;
};
struct wire_call_ops {                                                    /* any may be NULL */
	void (*headers)(struct wire_call *c);                             /* client: the response's headers are there */
	void (*message)(struct wire_call *c, const uint8_t *p, size_t n); /* one whole message; p lives until it returns */
	void (*half_closed)(struct wire_call *c);                         /* server: the peer sends no more */
	void (*writable)(struct wire_call *c); /* queued fell below WIRE_SEND_LOW after it had been above WIRE_SEND_HIGH */
	/* Client: the status (code OK: clean). Server: code OK when the trailers went out, else CANCELLED (the peer),
	 * DEADLINE_EXCEEDED, UNAVAILABLE (connection), or what the framing found wrong. status->msg is "" or text, never NULL.
	 */
	void (*ended)(struct wire_call *c, const struct err *status);
};
/* All four: -1 when the call takes no more (finished, half-closed, cancelled) or WIRE_SEND_MAX would be passed. p is copied. */
int wire_call_send(struct wire_call *c, const void *p, size_t n);
int wire_call_send2(struct wire_call *c, const void *p, size_t n, const void *q, size_t m); /* one message of two parts */
int wire_call_send_msg(struct wire_call *c, const ProtobufCMessage *m);
/* One BytesMessage {bytes data = 1}, as most of BuildKit's byte streams carry; n may be 0. */
int wire_call_send_bytes(struct wire_call *c, const void *p, size_t n);
size_t wire_call_queued(const struct wire_call *c); /* bytes taken and not yet given to the connection's pipe */
static inline bool wire_call_congested(const struct wire_call *c) { return wire_call_queued(c) > WIRE_SEND_HIGH; }
void wire_call_close_send(struct wire_call *c); /* client: half-close behind what was sent */
/* Server: trailers behind what was sent; status NULL or code OK: clean. Details go as grpc-status-details-bin. Once; later ones
 * are ignored. */
void wire_call_finish(struct wire_call *c, const struct err *status);
void wire_call_reply(struct wire_call *c, const ProtobufCMessage *m);          /* server: one message, then OK */
void wire_call_fail(struct wire_call *c, enum code code, const char *fmt, ...) /* server: finish with an error made here */
	__attribute__((format(printf, 3, 4)));
/* Server: answers as grpc-go does. `services`: NULL-terminated names that exist ("unknown method M for service S"), may be
 * NULL. */
void wire_call_unimplemented(struct wire_call *c, const char *const *services);
void wire_call_cancel(struct wire_call *c); /* RST_STREAM CANCEL; no more message(); ended() follows with CANCELLED */
/* Metadata of the peer: a server's request, a client's response headers and trailers. Keys in lower case. */
const char *wire_call_header(const struct wire_call *c, const char *key);                           /* the first, or NULL */
size_t wire_call_headers(const struct wire_call *c, const char *key, const char **out, size_t max); /* how many there are */
bool wire_call_header_at(const struct wire_call *c, size_t i, struct wire_md *ret);                 /* all, in order */
void wire_call_set_header(struct wire_call *c, const char *key, const char *value); /* server, before the first message */
void wire_call_send_headers(struct wire_call *c);  /* server: at once, not with the first message */
void wire_call_manual_credit(struct wire_call *c); /* from now on bytes of messages count until wire_call_consumed */
void wire_call_consumed(struct wire_call *c, size_t n);
bool wire_call_peer_done(const struct wire_call *c); /* server: half-closed; client: trailers came */

/* Client. Never NULL: what is wrong comes by ended(). timeout_ms 0: none. md is copied. */
struct wire_call *wire_call_open(struct wire_conn *c, const char *path, const struct wire_md *md, size_t n_md,
				 uint64_t timeout_ms, const struct wire_call_ops *ops, void *user);
/* One request, one response. done() comes once; resp is NULL unless the status is OK, and lives until done returns.
 * The call may be cancelled until then. req NULL: an empty message. */
struct wire_call *wire_unary(struct wire_conn *c, const char *path, const struct wire_md *md, size_t n_md,
			     const ProtobufCMessage *req,
			     void (*done)(void *arg, const struct err *status, const uint8_t *resp, size_t n), void *arg,
			     uint64_t timeout_ms);

/* ---- a connection inside a call: each message is a BytesMessage {bytes data = 1}, as Control.Session carries a session ----
 * Takes over ops and user of the call. Either kind of call carries either kind of connection. When the connection closes, the
 * call is finished (server) or half-closed and cancelled (client); when the call ends, the connection is. */
struct wire_conn *wire_tunnel_client(struct wire_call *call, const char *authority);
struct wire_conn *wire_tunnel_server(struct wire_call *call, const struct wire_handler *h);

/* ---- sockets and descriptors ---- */
struct wire_tls {
	const char *ca, *cert, *key; /* PEM files; server: cert and key needed, with ca clients are required and verified */
	const char *server_name;     /* client: NULL: the host of the address */
};
struct wire_listen_opts {
	const struct wire_handler *handler;
	mode_t mode; /* unix: 0 means 0660 */
	uid_t uid;   /* unix: owner; (uid_t)-1 leaves it. Set both */
	gid_t gid;
	const struct wire_tls *tls;                      /* tcp only; read before wire_listen returns */
	void (*on_conn)(void *arg, struct wire_conn *c); /* optional: a connection was made (after its TLS handshake) */
	/* optional, unix: a connection whose first byte is not HTTP/2's 'P' is handed over; the descriptor (blocking, CLOEXEC)
	 * is the callee's, nothing has been read from it. */
	void (*on_foreign)(void *arg, int fd);
	void *arg;
};
struct wire_listener;
/* addr: unix:///path (a socket that is there is replaced: the caller holds the lock), tcp://host:port (port 0: any),
 * fd:// or that with a star (all that systemd passed), fd://N (descriptor N). Blocks shortly (bind, name, key files). */
int wire_listen(struct loop *l, const char *addr, const struct wire_listen_opts *o, struct wire_listener **ret, struct err *e);
/* Other certificates for the connections that come from now on: read first (-1: nothing is changed), then put into use, which
 * cannot fail. tls NULL: none, plain TCP. A unix socket's listener has no TLS and ignores it. wire_tls_read blocks shortly. */
struct ssl_ctx_st;
int wire_tls_read(const struct wire_tls *tls, struct ssl_ctx_st **ret, struct err *e);
void wire_tls_free(struct ssl_ctx_st *tls); /* NULL allowed */
void wire_listener_set_tls(struct wire_listener *s, struct ssl_ctx_st *tls); /* takes a reference of its own */
const char *wire_listener_addr(const struct wire_listener *s); /* with the port that was chosen */
void wire_listener_close(struct wire_listener *s); /* connections stay; removes the unix socket's file. NULL allowed */

/* addr: unix:///path or tcp://host:port. done() once, in a later turn: a connection, or NULL and e. NULL tls: plain. */
struct wire_connect;
struct wire_connect *wire_connect(struct loop *l, const char *addr, const struct wire_tls *tls,
				  void (*done)(void *arg, struct wire_conn *c, const struct err *e), void *arg);
void wire_connect_cancel(struct wire_connect *c); /* before done(): done() will not come */
/* Over two descriptors (stdio, a helper process, one socket given twice). They are taken, also on failure.
 * handler: a server; NULL: a client with this authority. */
struct wire_conn *wire_conn_fds(struct loop *l, int rfd, int wfd, const struct wire_handler *h, const char *authority,
				struct err *e);

/* ---- messages. Any thread ---- */
enum { WIRE_DEPTH_MAX = 100, WIRE_ELEMENTS_MAX = 1000000, WIRE_UNPACK_MAX = 64 << 20 };
/* Check the bytes (nesting, UTF-8 and NUL in strings, repeated and unknown elements, truncation), then unpack into the arena,
 * at most WIRE_UNPACK_MAX. NULL with INVALID_ARGUMENT or RESOURCE_EXHAUSTED. The message must not be freed by protobuf-c.
 * `#define wire_unpack_as(...)` below gives the typed form: wire_unpack_as(Control__SolveRequest, control__solve_request, p, n,
 * a, e) */
void *wire_unpack(const ProtobufCMessageDescriptor *d, const uint8_t *p, size_t n, struct arena *a, struct err *e);
#define wire_unpack_as(T, name, p, n, a, e) ((T *)wire_unpack(&name##__descriptor, (p), (n), (a), (e)))
int wire_pack(const ProtobufCMessage *m, struct buf *out); /* appends; -1 when the buffer's maximum is passed */
/* The data of a BytesMessage {bytes data = 1}; *ret points into p. */
int wire_bytes_get(const uint8_t *p, size_t n, const uint8_t **ret, size_t *ret_n, struct err *e);
/* google.rpc.Status {int32 code = 1; string message = 2; repeated Any details = 3} */
void wire_status_pack(const struct err *status, struct buf *out); /* appends; status NULL: OK */
/* *ret is set to what the bytes say (code OK: msg "" or text). 0; -1 with INTERNAL in *e when they are malformed. */
int wire_status_unpack(const uint8_t *p, size_t n, struct err *ret, struct err *e);
#endif
