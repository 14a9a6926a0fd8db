/* A client's call with one request and one response. The response is gathered whole; anything but exactly one message under
 * code OK is an error, as in grpc-go. */
#include "wire/wire.h"

struct unary {
	void (*done)(void *arg, const struct err *status, const uint8_t *resp, size_t n);
	void *arg;
	struct buf resp;
	size_t count;
};

static void unary_message(struct wire_call *call, const uint8_t *p, size_t n)
{
	struct unary *u = call->user;
	if (!u->count++) buf_add(&u->resp, p, n);
}

static void unary_ended(struct wire_call *call, const struct err *status)
{
	struct unary *u = call->user;
	_cleanup_err_ struct err e = ERR_INIT;
	if (status->code == CODE_OK && u->count != 1)
		err_set(&e, CODE_INTERNAL, "cardinality violation: %zu responses to the unary call %s", u->count, call->path);
	bool ok = status->code == CODE_OK && !err_is_set(&e);
	u->done(u->arg, err_is_set(&e) ? &e : status, ok ? (const uint8_t *)buf_str(&u->resp) : NULL, ok ? u->resp.n : 0);
	buf_fini(&u->resp);
	free(u);
}

struct wire_call *wire_unary(struct wire_conn *conn, const char *path, const struct wire_md *md, size_t n_md,
			     const ProtobufCMessage *req,
			     void (*done)(void *arg, const struct err *status, const uint8_t *resp, size_t n), void *arg,
			     uint64_t timeout_ms)
{
	static const struct wire_call_ops ops = {.message = unary_message, .ended = unary_ended};
	struct unary *u = xnew(struct unary);
	u->done = done;
	u->arg = arg;
	struct wire_call *call = wire_call_open(conn, path, md, n_md, timeout_ms, &ops, u);
	wire_call_send_msg(call, req);
	wire_call_close_send(call);
	return call;
}
