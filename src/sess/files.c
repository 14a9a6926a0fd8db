/* File transfers of the daemon: a client's directory into a snapshot, and directories to a client. Each is a job over a lane.
 * Source: BuildKit session/filesync/filesync.go; reference 02 §4, §5. */
#include "sess/internal.h"

#include <ctype.h>
#include <stdio.h>

enum { PROGRESS_MS = 100 };

struct transfer {
	struct sess_op op;
	struct lane_job j;
	struct sess *s;
	struct loop_timer timer;
	uint64_t told;
	void (*progress)(void *arg, uint64_t bytes);
	void *arg;
	bool finished;
	/* receiving */
	struct sess_recv recv;
	char *trash;
	struct spec_patterns *exceptions;
	struct tree_index **index, *result;
	struct sess_filesync_stats stats;
	void (*sync_done)(void *arg, const struct sess_filesync_stats *st, const struct err *e);
	/* sending */
	struct sess_send send;
	sess_done_fn *send_done;
};

static void tell_progress(void *arg)
{
	struct transfer *t = arg;
	uint64_t now = atomic_load(&t->j.bytes);
	if (now == t->told) return;
	t->told = now;
	t->progress(t->arg, now);
}

static void transfer_finished(struct lane_job *j)
{
	struct transfer *t = container_of(j, struct transfer, j);
	const struct err *e = NULL;
	if (err_is_set(&j->err)) {
		sess_explain(t->s, &j->err);
		e = &j->err;
	}
	t->finished = true;
	loop_timer_stop(&t->timer);
	if (t->progress) t->progress(t->arg, atomic_load(&j->bytes));
	if (t->sync_done) {
		if (t->result) {
			tree_index_free(*t->index);
			*t->index = take_ptr(t->result);
		}
		t->sync_done(t->arg, &t->stats, e);
	} else {
		t->send_done(t->arg, e);
	}
}

static void transfer_gone(struct lane_job *j)
{
	struct transfer *t = container_of(j, struct transfer, j);
	spec_patterns_free(t->exceptions);
	free(t->trash);
	tree_index_free(t->result);
	sess_unref(t->s);
	free(t);
}

/* Nothing was begun: only tell. */
static void transfer_fail(void *arg)
{
	struct transfer *t = arg;
	transfer_finished(&t->j);
	err_fini(&t->j.err);
	transfer_gone(&t->j);
}

static void transfer_cancel(struct sess_op *op)
{
	struct transfer *t = container_of(op, struct transfer, op);
	if (!t->finished) lane_job_cancel(&t->j);
}

static void no_cancel(struct sess_op *op) {}

static struct transfer *transfer_new(struct sess *s, void (*progress)(void *, uint64_t), void *arg)
{
	struct transfer *t = xnew(struct transfer);
	t->op.cancel = transfer_cancel;
	t->s = sess_ref(s);
	t->progress = progress;
	t->arg = arg;
	t->j.finished = transfer_finished;
	t->j.gone = transfer_gone;
	return t;
}

static struct sess_op *transfer_start(struct transfer *t, const char *method, const struct wire_md *md, size_t n_md)
{
	static const struct wire_call_ops none = {0};
	struct wire_call *call = err_is_set(&t->j.err) ? NULL : sess_open(t->s, method, md, n_md, 0, &none, NULL, &t->j.err);
	if (!call) {
		t->op.cancel = no_cancel;
		loop_post(t->s->loop, transfer_fail, t);
		return &t->op;
	}
	if (t->progress) loop_timer_start(t->s->loop, &t->timer, PROGRESS_MS, PROGRESS_MS, tell_progress, t);
	lane_job_start(&t->j, t->s->loop, call, false);
	return &t->op;
}

/* ---- metadata ---- */
struct md_list {
	VEC(struct wire_md) v;
	struct strvec held;
};

static void md_fini(struct md_list *md)
{
	vec_fini(&md->v);
	strvec_fini(&md->held);
}

/* Go's url.QueryEscape. */
static char *query_escape(const char *s)
{
	struct buf b = BUF_INIT;
	for (; *s; s++) {
		if (isalnum((unsigned char)*s) || strchr("-_.~", *s))
			buf_addc(&b, *s);
		else if (*s == ' ')
			buf_addc(&b, '+');
		else
			buf_addf(&b, "%%%02X", (unsigned char)*s);
	}
	return buf_take_str(&b);
}

/* A header takes visible ASCII, without spaces at its ends. */
static bool plain_value(const char *s)
{
	size_t n = strlen(s);
	if (n && (s[0] == ' ' || s[n - 1] == ' ')) return false;
	for (; *s; s++)
		if (*s < 0x20 || *s > 0x7e) return false;
	return true;
}

static void md_add(struct md_list *md, const char *key, char *const *v, size_t n)
{
	bool encode = false;
	for (size_t i = 0; i < n; i++) encode |= !plain_value(v[i]);
	for (size_t i = 0; i < n; i++) {
		char *value = encode ? query_escape(v[i]) : xstrdup(v[i]);
		strvec_take(&md->held, value);
		vec_push(&md->v, ((struct wire_md){key, value}));
	}
	if (!encode) return;
	char *flag = xasprintf("%s-encoded", key);
	strvec_take(&md->held, flag);
	vec_push(&md->v, ((struct wire_md){flag, "1"}));
}

static void md_add_list(struct md_list *md, const char *key, const struct strvec *sv)
{
	if (sv) md_add(md, key, sv->v, sv->n);
}

/* ---- receiving ---- */
static int run_recv(struct lane_job *j, struct err *e)
{
	struct transfer *t = container_of(j, struct transfer, j);
	return sess_recv_run(&t->recv, &j->io, &t->result, &t->stats, e);
}

struct sess_op *sess_filesync_start(struct sess *s, const struct sess_filesync_req *req)
{
	struct transfer *t = transfer_new(s, req->progress, req->arg);
	_cleanup_(md_fini) struct md_list md = {0};
	char *name = (char *)(uintptr_t)req->name;
	t->sync_done = req->done;
	t->index = req->index;
	t->j.run = run_recv;
	t->trash = req->trash ? xstrdup(req->trash) : NULL;
	t->recv = (struct sess_recv){
		.dest_fd = req->dest_fd,
		.trash = t->trash,
		.old = *req->index,
		.leave = true,
		.differ_none = req->differ == SESS_DIFFER_NONE,
		.metadata_only = req->metadata_only,
		.override_owner = req->override_owner,
		.uid = req->uid,
		.gid = req->gid,
		.cancelled = &t->j.job.cancelled,
		.bytes = &t->j.bytes,
	};
	const struct strvec *x = req->metadata_exceptions;
	if (!sess_supports(s, METHOD_FILESYNC_DIFF_COPY)) err_set(&t->j.err, CODE_UNKNOWN, "no local sources enabled");
	if (req->metadata_only && x && x->n && spec_patterns_new(x->v, x->n, &t->exceptions, &t->j.err) == 0)
		t->recv.exceptions = t->exceptions;
	md_add_list(&md, "include-patterns", req->includes);
	md_add_list(&md, "exclude-patterns", req->excludes);
	md_add_list(&md, "followpaths", req->follow_paths);
	md_add(&md, "dir-name", &name, 1);
	return transfer_start(t, METHOD_FILESYNC_DIFF_COPY, md.v.v, md.v.n);
}

/* ---- sending ---- */
static int run_send(struct lane_job *j, struct err *e)
{
	struct transfer *t = container_of(j, struct transfer, j);
	return sess_send_run(&t->send, &j->io, e);
}

struct sess_op *sess_filesend_dir(struct sess *s, const struct sess_filesend_dir_req *req)
{
	struct transfer *t = transfer_new(s, req->progress, req->arg);
	char id[16];
	struct wire_md md[] = {{"buildkit-attachable-exporter-id", id}, {"buildkit-exporter-multi-platform", "1"}};
	snprintf(id, sizeof id, "%u", req->exporter);
	t->send_done = req->done;
	t->j.run = run_send;
	t->send = (struct sess_send){
		.roots = req->roots,
		.n_roots = req->n_roots,
		.walk = {.set_owner = req->override_owner, .uid = req->uid, .gid = req->gid, .cancelled = &t->j.job.cancelled},
		.override_mtime = req->override_mtime,
		.mtime_ns = req->mtime_ns,
		.cancelled = &t->j.job.cancelled,
		.bytes = &t->j.bytes,
	};
	sess_need(s, METHOD_FILESEND_DIFF_COPY, &t->j.err);
	return transfer_start(t, METHOD_FILESEND_DIFF_COPY, md, req->multi_platform ? 2 : 1);
}
