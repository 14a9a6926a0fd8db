/* What every command needs: turning the loop, calls, errors on stderr.
 *
 * A call of Go's client that fails prints the gRPC code's name before the text, unless it is UNKNOWN; texts and excerpts here
 * follow BuildKit's grpcerrors and solver/errdefs so that what people search for in logs is the same. */
#include "cli/internal.h"

#include <stdarg.h>
#include <string.h>

void cli_wait(struct cli *c, const bool *done)
{
	while (!*done) uv_run(loop_uv(c->loop), UV_RUN_ONCE);
}

/* ---- calls ---- */
struct unary {
	bool done;
	struct err err;
	struct buf reply;
};

static void unary_done(void *arg, const struct err *status, const uint8_t *p, size_t n)
{
	struct unary *u = arg;
	u->done = true;
	if (status->code)
		err_copy(&u->err, status);
	else
		buf_add(&u->reply, p, n);
}

static int not_connected(struct err *e) { return err_set(e, CODE_UNAVAILABLE, "the connection to the daemon is closed"); }

int cli_unary(struct cli *c, const char *method, const ProtobufCMessage *req, const ProtobufCMessageDescriptor *d,
	      struct arena *mem, void **ret, struct err *e)
{
	if (!c->conn) return not_connected(e);
	struct unary u = {0};
	wire_unary(c->conn, method, NULL, 0, req, unary_done, &u, c->timeout_ms);
	cli_wait(c, &u.done);
	_cleanup_buf_ struct buf reply = u.reply;
	if (err_is_set(&u.err)) return err_move(e, &u.err);
	void *m = wire_unpack(d, reply.p ? reply.p : (const uint8_t *)"", reply.n, mem, e);
	if (!m) return err_wrap(e, "reply of %s", method);
	*ret = m;
	return 0;
}

struct streamed {
	bool done;
	struct err err;
	void (*item)(void *arg, const uint8_t *p, size_t n);
	void *arg;
};

static void stream_message(struct wire_call *call, const uint8_t *p, size_t n)
{
	struct streamed *s = call->user;
	s->item(s->arg, p, n);
}

static void stream_ended(struct wire_call *call, const struct err *status)
{
	struct streamed *s = call->user;
	s->done = true;
	if (status->code) err_copy(&s->err, status);
}

int cli_stream(struct cli *c, const char *method, const ProtobufCMessage *req,
	       void (*item)(void *arg, const uint8_t *p, size_t n), void *arg, struct err *e)
{
	static const struct wire_call_ops ops = {.message = stream_message, .ended = stream_ended};
	if (!c->conn) return not_connected(e);
	struct streamed s = {.item = item, .arg = arg};
	struct wire_call *call = wire_call_open(c->conn, method, NULL, 0, 0, &ops, &s);
	wire_call_send_msg(call, req);
	wire_call_close_send(call);
	cli_wait(c, &s.done);
	return err_is_set(&s.err) ? err_move(e, &s.err) : 0;
}

/* ---- errors ---- */

char *cli_error_text(const struct err *e)
{
	if (e->code == CODE_OK || e->code == CODE_UNKNOWN) return xstrdup(e->msg);
	return xasprintf("%s: %s", err_code_name(e->code), e->msg);
}

int cli_error_plain(struct err *e)
{
	char *s = cli_error_text(e);
	free(e->msg);
	e->msg = s;
	e->code = CODE_UNKNOWN;
	return -1;
}

struct line_range {
	int from, to;
};

static int line_of(json_t *range, const char *which)
{
	return (int)json_integer_value(json_object_get(json_object_get(range, which), "line"));
}

static struct line_range range_of(json_t *r)
{
	struct line_range l = {line_of(r, "start"), line_of(r, "end")};
	l.to = max_of(l.to, l.from);
	return l;
}

static bool in_ranges(json_t *ranges, int line)
{
	size_t i;
	json_t *r;
	json_array_foreach(ranges, i, r)
	{
		struct line_range l = range_of(r);
		if (l.from <= line && line <= l.to) return true;
	}
	return false;
}

static void print_excerpt(const char *filename, struct strvec *lines, json_t *ranges)
{
	int start = 0, end = 0, n = (int)lines->n;
	size_t i;
	json_t *r;
	json_array_foreach(ranges, i, r)
	{
		struct line_range l = range_of(r);
		if (i == 0 || l.from < start) start = l.from;
		end = max_of(end, l.to);
	}
	if (json_array_size(ranges) == 0 || start < 1 || start > n) return;
	end = min_of(end, n);
	int first = start, wanted = end == start ? 4 : 2;
	for (int given = 0; given < wanted; given++) { /* a round without any counts too, or it would not end */
		if (start > 1) {
			start--;
			given++;
		}
		if (end != n) {
			end++;
			given++;
		}
	}
	fprintf(stderr, "%s:%d\n--------------------\n", filename, first);
	for (int l = start; l <= end; l++)
		fprintf(stderr, " %3d | %s %s\n", l, in_ranges(ranges, l) ? ">>>" : "   ", lines->v[l - 1]);
	fprintf(stderr, "--------------------\n");
}

static void print_source(const struct err_detail *d)
{
	json_t *root = json_loadb((const char *)d->data, d->len, 0, NULL);
	json_t *info = json_object_get(root, "info");
	const char *data = json_string_value(json_object_get(info, "data")),
		   *name = json_string_value(json_object_get(info, "filename"));
	_cleanup_buf_ struct buf text = BUF_INIT;
	struct strvec lines = {0};
	if (data && base64_decode(data, strlen(data), &text, NULL) >= 0) {
		for (const char *p = buf_str(&text);; p++) {
			size_t n = strcspn(p, "\n");
			strvec_take(&lines, xstrndup(p, n));
			p += n;
			if (!*p) break;
		}
		print_excerpt(name ? name : "", &lines, json_object_get(root, "ranges"));
	}
	strvec_fini(&lines);
	json_decref(root);
}

static void print_denials(const struct err_detail *d)
{
	json_t *root = json_loadb((const char *)d->data, d->len, 0, NULL), *m;
	size_t i;
	json_array_foreach(json_object_get(root, "denyMessages"), i, m)
	{
		const char *s = json_string_value(json_object_get(m, "message"));
		if (!str_empty(s)) fprintf(stderr, "policy deny: %s\n", s);
	}
	json_decref(root);
}

void cli_print_error(const struct cli *c, const struct err *e)
{
	static const struct {
		const char *type;
		void (*print)(const struct err_detail *d);
	} details[] = {
		{"github.com/moby/buildkit/errdefs.Source+json", print_source},
		{"github.com/moby/buildkit/policysession.DecisionResponse+json", print_denials},
	};
	for (size_t i = 0; i < array_len(details); i++)
		for (const struct err_detail *d = e->details; d; d = d->next)
			if (strcmp(d->type_url, details[i].type) == 0) details[i].print(d);
	fprintf(stderr, "%s: %s\n", c->dialect == DIALECT_BUILDCTL ? "error" : "ERROR", e->msg ? e->msg : "unknown error");
}

int cli_fail(struct cli *c, const struct err *e)
{
	fflush(stdout);
	cli_print_error(c, e);
	return 1;
}
