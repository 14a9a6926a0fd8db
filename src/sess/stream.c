/* Byte streams between a job of the caller's and a call: an exported file, an upload, a blob read or written.
 * The caller gets the job's end of a pipe; the operation ends with the call.
 * Source: BuildKit session/filesync (CopyFileWriter), session/upload, containerd content proxy; reference 02 §5, §9, §10. */
#include "proto/content.pb-c.h"
#include "sess/internal.h"

#include <stdio.h>

struct sess_stream {
	struct sess_op op;
	struct sess *s;
	struct lane lane;
	struct err err;
	bool over, sent_all;
	sess_done_fn *done;
	void *arg;
};

/* Tell the job why, tell the caller, go. */
static void stream_over(void *arg)
{
	struct sess_stream *t = arg;
	_cleanup_err_ struct err stop = ERR_INIT;
	bool exists = t->err.code == CODE_ALREADY_EXISTS && t->lane.out;
	if (err_is_set(&t->err)) sess_explain(t->s, &t->err);
	if (err_is_set(&t->err))
		err_copy(&stop, &t->err);
	else
		err_set(&stop, CODE_CANCELLED, "the transfer is over");
	if (t->lane.in && err_is_set(&t->err)) lane_in_close(&t->lane, &t->err);
	lane_out_close(&t->lane, &stop);
	t->done(t->arg, err_is_set(&t->err) && !exists ? &t->err : NULL);
	lane_fini(&t->lane);
	sess_unref(t->s);
	err_fini(&t->err);
	free(t);
}

static void stream_check_over(struct sess_stream *t)
{
	if (t->lane.call || t->over) return;
	if (t->lane.in && !t->lane.in_closed && !err_is_set(&t->err)) return; /* the job has not got it all yet */
	t->over = true;
	loop_post(t->s->loop, stream_over, t);
}

static void stream_ended(struct lane *l, const struct err *status)
{
	struct sess_stream *t = container_of(l, struct sess_stream, lane);
	if (status->code != CODE_OK && !err_is_set(&t->err)) err_copy(&t->err, status);
	if (status->code == CODE_OK && l->out && !t->sent_all && !err_is_set(&t->err))
		err_set(&t->err, CODE_UNAVAILABLE, "the client ended the transfer early");
	stream_check_over(t);
}

static void stream_in_drained(struct lane *l) { stream_check_over(container_of(l, struct sess_stream, lane)); }

static void stream_out_ended(struct lane *l, const struct err *e)
{
	struct sess_stream *t = container_of(l, struct sess_stream, lane);
	if (!l->call) return;
	if (e && err_is_set(e)) {
		if (!err_is_set(&t->err)) err_copy(&t->err, e);
		wire_call_cancel(l->call);
	} else {
		t->sent_all = true;
		wire_call_close_send(l->call);
	}
}

static void stream_cancel(struct sess_op *op)
{
	struct sess_stream *t = container_of(op, struct sess_stream, op);
	if (t->over) return;
	if (!err_is_set(&t->err)) err_set(&t->err, CODE_CANCELLED, "context canceled");
	if (t->lane.call)
		wire_call_cancel(t->lane.call);
	else
		stream_check_over(t);
}

/* With `out` bytes go to the client, otherwise they come from it. */
static struct sess_stream *stream_open(struct sess *s, const char *method, const struct wire_md *md, size_t n_md, bool out,
				       struct loop_pipe **ret_pipe, sess_done_fn *done, void *arg)
{
	static const struct wire_call_ops none = {0};
	struct sess_stream *t = xnew(struct sess_stream);
	t->op.cancel = stream_cancel;
	t->s = sess_ref(s);
	t->done = done;
	t->arg = arg;
	struct wire_call *call = NULL;
	if (sess_need(s, method, &t->err) == 0) call = sess_open(s, method, md, n_md, 0, &none, NULL, &t->err);
	lane_init(&t->lane, s->loop, call, false, LANE_BYTES, !out, out);
	t->lane.ended = stream_ended;
	t->lane.out_ended = stream_out_ended;
	t->lane.drained = stream_in_drained;
	*ret_pipe = loop_pipe_ref(out ? t->lane.out : t->lane.in);
	if (!call) stream_check_over(t);
	return t;
}

/* ---- an exported file ---- */
struct sess_op *sess_filesend_file(struct sess *s, unsigned exporter, char *const *pairs, size_t n, struct loop_pipe **ret_pipe,
				   sess_done_fn *done, void *arg)
{
	struct strvec keys = {0};
	VEC(struct wire_md) md = {0};
	char id[16];
	snprintf(id, sizeof id, "%u", exporter);
	vec_push(&md, ((struct wire_md){"buildkit-attachable-exporter-id", id}));
	for (size_t i = 0; i + 1 < n; i += 2) {
		strvec_addf(&keys, "exporter-md-%s", pairs[i]);
		vec_push(&md, ((struct wire_md){keys.v[keys.n - 1], pairs[i + 1]}));
	}
	struct sess_stream *t = stream_open(s, METHOD_FILESEND_DIFF_COPY, md.v, md.n, true, ret_pipe, done, arg);
	strvec_fini(&keys);
	vec_fini(&md);
	return &t->op;
}

/* ---- an upload ---- */
struct sess_op *sess_upload(struct sess *s, const char *url_path, const char *url_host, struct loop_pipe **ret_pipe,
			    sess_done_fn *done, void *arg)
{
	struct wire_md md[] = {{"urlpath", url_path}, {"urlhost", url_host}};
	struct sess_stream *t = stream_open(s, METHOD_UPLOAD_PULL, md, 2, false, ret_pipe, done, arg);
	if (t->lane.call) wire_call_close_send(t->lane.call);
	return &t->op;
}

/* ---- a blob, read ---- */
/* ReadContentResponse {1 offset, 2 data}: the data. */
static int read_data(const uint8_t *p, size_t n, const uint8_t **ret, size_t *ret_n, struct err *e)
{
	return sess_bytes_field(p, n, 2, ret, ret_n, e);
}

struct sess_op *sess_content_read(struct sess *s, const char *store, const char *digest, int64_t offset, int64_t size,
				  struct loop_pipe **ret_pipe, sess_done_fn *done, void *arg)
{
	Content__ReadContentRequest m = CONTENT__READ_CONTENT_REQUEST__INIT;
	struct wire_md md = {"buildkit-attachable-store-id", store};
	struct sess_stream *t = stream_open(s, METHOD_CONTENT_READ, &md, 1, false, ret_pipe, done, arg);
	m.digest = digest;
	m.offset = offset;
	m.size = size;
	t->lane.extract = read_data;
	if (t->lane.call) {
		wire_call_send_msg(t->lane.call, &m.base);
		wire_call_close_send(t->lane.call);
	}
	return &t->op;
}

/* ---- a blob, written: one question at a time ---- */
enum write_state { WRITE_STAT, WRITE_DATA, WRITE_COMMIT, WRITE_END };
struct writer {
	struct sess_op op;
	struct sess *s;
	struct wire_call *call;
	struct loop_pipe *pipe;
	char *ref, *digest;
	struct strvec labels;
	int64_t size, offset, sent;
	enum write_state state;
	bool waiting, over;
	struct err err;
	uint8_t *chunk;
	sess_done_fn *done;
	void *arg;
};
enum { WRITE_CHUNK = 1 << 20 };

static void writer_over(void *arg)
{
	struct writer *w = arg;
	_cleanup_err_ struct err stop = ERR_INIT;
	bool exists = w->err.code == CODE_ALREADY_EXISTS;
	if (err_is_set(&w->err) && !exists) sess_explain(w->s, &w->err);
	if (err_is_set(&w->err))
		err_copy(&stop, &w->err);
	else
		err_set(&stop, CODE_CANCELLED, "the transfer is over");
	loop_pipe_close(w->pipe, &stop);
	w->done(w->arg, err_is_set(&w->err) && !exists ? &w->err : NULL);
	loop_pipe_detach(w->pipe);
	loop_pipe_unref(w->pipe);
	sess_unref(w->s);
	strvec_fini(&w->labels);
	err_fini(&w->err);
	free(w->ref);
	free(w->digest);
	free(w->chunk);
	free(w);
}

static void writer_fail(struct writer *w)
{
	if (w->call) wire_call_cancel(w->call);
}

static void write_send(struct writer *w, Content__WriteAction action, const void *p, size_t n)
{
	Content__WriteContentRequest m = CONTENT__WRITE_CONTENT_REQUEST__INIT;
	Content__WriteContentRequest__LabelsEntry *labels = xcalloc(w->labels.n / 2 + 1, sizeof *labels),
						  **at = xcalloc(w->labels.n / 2 + 1, sizeof *at);
	m.action = action;
	m.offset = w->offset;
	m.data.data = (uint8_t *)(uintptr_t)p;
	m.data.len = n;
	if (action != CONTENT__WRITE_ACTION__WRITE) {
		m.ref = w->ref;
		m.total = w->size;
		m.expected = w->digest;
	}
	for (size_t i = 0; action == CONTENT__WRITE_ACTION__COMMIT && i < w->labels.n / 2; i++) {
		labels[i] = (Content__WriteContentRequest__LabelsEntry)CONTENT__WRITE_CONTENT_REQUEST__LABELS_ENTRY__INIT;
		labels[i].key = w->labels.v[2 * i];
		labels[i].value = w->labels.v[2 * i + 1];
		at[m.n_labels++] = &labels[i];
	}
	m.labels = at;
	w->waiting = true;
	w->sent = w->offset + (int64_t)n;
	wire_call_send_msg(w->call, &m.base);
	free(labels);
	free(at);
}

static void write_next(struct writer *w)
{
	bool end;
	if (!w->call || w->waiting || w->state != WRITE_DATA) return;
	ssize_t n = loop_pipe_read(w->pipe, w->chunk, WRITE_CHUNK, &end, &w->err);
	if (n < 0) {
		writer_fail(w);
	} else if (n > 0) {
		write_send(w, CONTENT__WRITE_ACTION__WRITE, w->chunk, (size_t)n);
	} else if (end) {
		w->state = WRITE_COMMIT;
		write_send(w, CONTENT__WRITE_ACTION__COMMIT, NULL, 0);
	}
}

static void writer_message(struct wire_call *c, const uint8_t *p, size_t n)
{
	struct writer *w = c->user;
	_cleanup_arena_ struct arena *mem = arena_new(1 << 20);
	if (!w->waiting || err_is_set(&w->err)) return; /* the answer to a commit comes twice */
	Content__WriteContentResponse *m =
		wire_unpack_as(Content__WriteContentResponse, content__write_content_response, p, n, mem, &w->err);
	w->waiting = false;
	/* what an earlier try left behind is truncated by our first write, at 0 */
	if (m && w->state != WRITE_STAT && m->offset != w->sent)
		err_set(&w->err, CODE_DATA_LOSS, "the client took %lld bytes of blob %s instead of %lld", (long long)m->offset,
			w->digest, (long long)w->sent);
	if (m && w->state == WRITE_COMMIT && *m->digest && strcmp(m->digest, w->digest) != 0)
		err_set(&w->err, CODE_DATA_LOSS, "unexpected digest: %s != %s", m->digest, w->digest);
	if (err_is_set(&w->err)) {
		writer_fail(w);
		return;
	}
	w->offset = w->sent;
	if (w->state == WRITE_COMMIT) {
		w->state = WRITE_END;
		wire_call_close_send(c);
		return;
	}
	w->state = WRITE_DATA;
	write_next(w);
}

static void writer_ended(struct wire_call *c, const struct err *status)
{
	struct writer *w = c->user;
	w->call = NULL;
	w->over = true;
	if (w->state != WRITE_END && !err_is_set(&w->err)) {
		if (status->code != CODE_OK)
			err_copy(&w->err, status);
		else
			err_set(&w->err, CODE_UNAVAILABLE, "the client ended the write of blob %s early", w->digest);
	}
	writer_over(w);
}

static const struct wire_call_ops writer_ops = {.message = writer_message, .ended = writer_ended};
static void writer_event(void *arg) { write_next(arg); }

static void writer_cancel(struct sess_op *op)
{
	struct writer *w = container_of(op, struct writer, op);
	if (w->over || w->state == WRITE_END) return;
	if (!err_is_set(&w->err)) err_set(&w->err, CODE_CANCELLED, "context canceled");
	writer_fail(w);
}

struct sess_op *sess_content_write(struct sess *s, const char *store, const char *ref, const char *digest, int64_t size,
				   char *const *labels, size_t n_labels, struct loop_pipe **ret_pipe, sess_done_fn *done,
				   void *arg)
{
	struct wire_md md = {"buildkit-attachable-store-id", store};
	struct writer *w = xnew(struct writer);
	w->op.cancel = writer_cancel;
	w->s = sess_ref(s);
	w->pipe = loop_pipe_new(s->loop, WRITE_CHUNK, writer_event, w);
	w->ref = xstrdup(ref);
	w->digest = xstrdup(digest);
	w->size = size;
	strvec_copy(&w->labels, labels, n_labels);
	w->chunk = xmalloc(WRITE_CHUNK);
	w->done = done;
	w->arg = arg;
	*ret_pipe = loop_pipe_ref(w->pipe);
	if (sess_need(s, METHOD_CONTENT_WRITE, &w->err) == 0)
		w->call = sess_open(s, METHOD_CONTENT_WRITE, &md, 1, 0, &writer_ops, w, &w->err);
	if (w->call)
		write_send(w, CONTENT__WRITE_ACTION__STAT, NULL, 0);
	else
		w->over = true, loop_post(s->loop, writer_over, w);
	return &w->op;
}
