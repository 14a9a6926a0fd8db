/* http:// and https:// sources: one file. What the URL means is resolved for the cache key, which takes the whole content
 * unless a checksum is given or the server says that it is as it was (ETag); so the result is usually there when asked for.
 *
 * A get (struct ops_http_get) does it for the vertex and for frontends that ask for metadata:
 *	WAIT for its turn -> known in this build? -> AUTH (secrets, or the client's upload) -> FETCH (job) -> SUM (job) -> done
 */
#include "ops/http_job.h"
#include "ops/internal.h"
#include "ops/remote.h"
#include "proto/methods.h"
#include "spec/url.h"

#include <string.h>

struct ops_http_get {
	struct ops_env *env;
	const struct llb_source *src;
	struct ops_asker asker;
	struct ops_ids ids;
	bool fetch, cancelled;
	const char *algo;
	struct buf suffix;
	char key[DIGEST_STR + 8]; /* "http:sha256:..." of all that the answer depends on */
	struct ops_turn turn;
	struct ops_secret *secret;
	struct ops_pick *pick;
	struct sess_op *upload;
	struct loop_pipe *pipe;
	struct sess *session;
	struct loop_job job;
	struct http_job get;
	struct http_sum_job sum;
	struct strvec headers;
	struct reg_io io;
	struct ops_span span;
	struct reg_config *config;
	bool io_ready, running, ending;
	struct snap *fresh, *old; /* being written; of the record */
	struct snap_view *view;
	char *record;
	struct ops_known *known;
	struct err error;
	void (*done)(void *arg, struct ops_known *known, const char *sum, const struct err *e);
	void *arg;
};

/* ---- records: "etag\ndigest\nmodified" ---- */

static char *take_line(char **at)
{
	char *s = *at, *end = strchr(s, '\n');
	if (end) *end++ = 0;
	*at = end ? end : s + strlen(s);
	return s;
}

/* Earlier content, when its record is whole. */
static void load_record(struct ops_http_get *g)
{
	struct http_job *j = &g->get;
	struct snap *s = ops_record_find(g->env, g->key, &g->record);
	if (!s) return;
	char *at = g->record, *etag = take_line(&at), *digest = take_line(&at), *modified = take_line(&at);
	if (!*etag || !digest_valid(digest)) return;
	j->known_etag = etag;
	j->known_digest = digest;
	j->known_modified = modified;
	g->old = snap_ref(s);
}

static void save_record(struct ops_http_get *g, struct snap *s)
{
	if (!*g->get.etag || strpbrk(g->get.etag, "\r\n")) return;
	_cleanup_free_ char *text = xasprintf("%s\n%s\n%s", g->get.etag, g->get.digest, g->get.modified);
	ops_record_put(g->env, g->key, s, text);
}

/* ---- the end ---- */

static void end(void *arg)
{
	struct ops_http_get *g = arg;
	if (g->running) return;
	if (g->upload) { /* upload_done comes back here */
		g->ending = true;
		sess_op_cancel(g->upload);
		return;
	}
	if (g->cancelled && !err_is_set(&g->error)) err_set(&g->error, CODE_CANCELLED, "context canceled");
	bool failed = err_is_set(&g->error);
	ops_turn_end(&g->turn);
	g->done(g->arg, failed ? NULL : g->known, failed ? NULL : g->sum.sum, failed ? &g->error : NULL);
	snap_view_free(g->view);
	snap_unref(g->fresh);
	snap_unref(g->old);
	sess_unref(g->session);
	ops_known_unref(g->known);
	http_job_fini(&g->get);
	if (g->pipe) loop_pipe_unref(g->pipe);
	free(g->sum.sum);
	err_fini(&g->sum.error);
	if (g->io_ready) reg_io_fini(&g->io);
	reg_config_unref(g->config);
	strvec_fini(&g->headers);
	ops_ids_fini(&g->ids);
	buf_fini(&g->suffix);
	err_fini(&g->error);
	free(g->record);
	free(g);
}

/* ---- SUM ---- */

static void sum_work(struct loop_job *j) { http_job_sum(&container_of(j, struct ops_http_get, job)->sum); }

static void sum_done(struct loop_job *j)
{
	struct ops_http_get *g = container_of(j, struct ops_http_get, job);
	g->running = false;
	if (err_is_set(&g->sum.error)) err_move(&g->error, &g->sum.error);
	end(g);
}

/* What the name means is in g->known. */
static void have_known(struct ops_http_get *g)
{
	const char *pubkey = g->src->http.sig_pubkey;
	if ((!g->algo && !*pubkey) || !g->known->snap || g->cancelled) {
		end(g);
		return;
	}
	snap_view_free(g->view);
	g->view = snap_view_new(g->known->snap);
	g->sum = (struct http_sum_job){.view = g->view,
				       .name = g->known->name,
				       .algo = g->algo,
				       .suffix = buf_str(&g->suffix),
				       .suffix_len = g->suffix.n,
				       .sig_pubkey = pubkey,
				       .sig_signature = g->src->http.sig_signature};
	g->job.work = sum_work;
	g->job.done = sum_done;
	g->running = true;
	loop_job_start(g->env->loop, &g->job, LOOP_DISK);
}

/* ---- FETCH ---- */

static int check_pinned(const struct ops_http_get *g, const char *digest, struct err *e)
{
	const char *want = g->src->http.checksum;
	if (!*want || !strcmp(want, digest)) return 0;
	if (g->fetch) return err_set(e, CODE_UNKNOWN, "digest mismatch %s: %s", digest, want);
	return err_set(e, CODE_UNKNOWN, "digest mismatch for %s: %s (expected: %s)", g->src->http.url, digest, want);
}

static int keep(struct ops_http_get *g, struct err *e)
{
	const struct http_job *j = &g->get;
	struct snap *s = j->unchanged ? g->old : g->fresh;
	if (!j->unchanged) {
		if (snap_commit(g->fresh, e) < 0) return -1;
		save_record(g, g->fresh);
	}
	snap_used(s);
	g->known = ops_known_new(j->digest, j->name, j->modified, s);
	ops_asker_learn(&g->asker, g->key, g->known);
	return check_pinned(g, j->digest, e);
}

static void fetch_work(struct loop_job *j) { http_job_get(&container_of(j, struct ops_http_get, job)->get); }

static void fetch_done(struct loop_job *j)
{
	struct ops_http_get *g = container_of(j, struct ops_http_get, job);
	g->running = false;
	if (err_is_set(&g->get.error))
		err_move(&g->error, &g->get.error);
	else
		keep(g, &g->error);
	if (err_is_set(&g->error))
		end(g);
	else
		have_known(g);
}

static void fetch(struct ops_http_get *g)
{
	if (g->cancelled) {
		end(g);
		return;
	}
	_cleanup_free_ char *description = xasprintf("http url %s", g->src->http.url);
	struct http_job *j = &g->get;
	g->fresh = snap_create(g->env->snaps, NULL, description, SNAP_REGULAR);
	g->view = snap_view_new(g->fresh);
	j->view = g->view;
	j->url = g->src->http.url;
	j->filename = g->src->http.filename;
	j->perm = g->src->http.perm;
	j->uid = g->src->http.uid;
	j->gid = g->src->http.gid;
	j->headers = &g->headers;
	j->io = &g->io;
	j->cancelled = &g->job.cancelled;
	g->job.work = fetch_work;
	g->job.done = fetch_done;
	g->running = true;
	loop_job_start(g->env->loop, &g->job, LOOP_NET);
}

/* ---- AUTH ---- */

static void upload_done(void *arg, const struct err *e)
{
	struct ops_http_get *g = arg;
	g->upload = NULL;
	if (g->ending) end(g);
}

static ssize_t read_upload(void *ctx, void *buf, size_t n, struct err *e) { return loop_pipe_job_read(ctx, buf, n, e); }

static void upload_session(void *arg, struct sess *s, size_t index, const struct err *e)
{
	struct ops_http_get *g = arg;
	g->pick = NULL;
	if (e) {
		err_copy(&g->error, e);
		end(g);
		return;
	}
	_cleanup_spec_url_ struct spec_url u = {0};
	if (spec_url_parse(g->src->http.url, &u, &g->error) < 0) {
		end(g);
		return;
	}
	g->session = sess_ref(s);
	g->upload = sess_upload(s, u.path, u.host, &g->pipe, upload_done, g);
	g->get.upload = read_upload;
	g->get.upload_ctx = g->pipe;
	fetch(g);
}

enum { TOKEN, HEADER }; /* a token is asked for first: it wins when both are there */

static void got_secret(void *arg, ssize_t which, const uint8_t *p, size_t n, const struct err *e)
{
	struct ops_http_get *g = arg;
	const char *named = g->src->http.auth_header_secret;
	g->secret = NULL;
	if (which >= 0) {
		if (memchr(p, '\n', n) || memchr(p, '\r', n))
			err_set(&g->error, CODE_INVALID_ARGUMENT, "the HTTP auth secret for %s has more than one line",
				g->src->http.url);
		else
			strvec_addf(&g->headers, "Authorization: %s%.*s", which == TOKEN && !*named ? "Bearer " : "", (int)n,
				    (const char *)p);
	} else if (*named) {
		err_copy(&g->error, e);
		err_wrap(&g->error, "failed to retrieve HTTP auth secret %s", named);
	}
	if (err_is_set(&g->error))
		end(g);
	else
		fetch(g);
}

/* host without port and brackets */
static char *host_name(const char *host)
{
	if (*host == '[') return xstrndup(host + 1, strcspn(host + 1, "]"));
	return xstrndup(host, strcspn(host, ":"));
}

static void ask(struct ops_http_get *g)
{
	_cleanup_spec_url_ struct spec_url u = {0};
	if (spec_url_parse(g->src->http.url, &u, &g->error) < 0) {
		end(g);
		return;
	}
	if (!strcmp(u.host, HTTP_SESSION_HOST)) {
		g->pick = ops_pick(g->env, &g->ids, 0, METHOD_UPLOAD_PULL, upload_session, g);
		return;
	}
	_cleanup_free_ char *host = host_name(u.host);
	_cleanup_strvec_ struct strvec names = {0};
	if (*g->src->http.auth_header_secret) {
		strvec_add(&names, g->src->http.auth_header_secret);
	} else {
		strvec_addf(&names, "HTTP_AUTH_TOKEN_%s", host);
		strvec_addf(&names, "HTTP_AUTH_HEADER_%s", host);
	}
	g->secret = ops_secret(g->env, &g->ids, names.v, names.n, got_secret, g);
}

/* ---- WAIT ---- */

static void take_known(struct ops_http_get *g, struct ops_known *k)
{
	g->known = ops_known_ref(k);
	const char *want = g->src->http.checksum;
	if (*want && strcmp(want, k->digest))
		err_set(&g->error, CODE_UNKNOWN, "digest mismatch for %s: %s (expected: %s)", g->src->http.url, k->digest,
			want);
	if (err_is_set(&g->error))
		end(g);
	else
		have_known(g);
}

static void begin(void *arg)
{
	struct ops_http_get *g = arg;
	if (g->cancelled) {
		end(g);
		return;
	}
	struct ops_known *k = ops_asker_known(&g->asker, g->key);
	if (k) {
		take_known(g, k);
		return;
	}
	load_record(g);
	if (g->old && *g->src->http.checksum && !strcmp(g->src->http.checksum, g->get.known_digest)) {
		/* The content is named and it is here: nothing to ask. */
		_cleanup_free_ char *name = http_file_name(g->src->http.url, g->src->http.filename, NULL);
		k = ops_known_new(g->get.known_digest, name, g->get.known_modified, g->old);
		take_known(g, k);
		ops_known_unref(k);
		return;
	}
	ask(g);
}

/* granted() may run inside the wish for a turn: begin later. */
static void granted(struct ops_turn *t) { loop_post(t->env->loop, begin, container_of(t, struct ops_http_get, turn)); }

/* A checksum alone answers what the URL means. */
static void pinned(void *arg)
{
	struct ops_http_get *g = arg;
	_cleanup_free_ char *name = http_file_name(g->src->http.url, g->src->http.filename, NULL);
	g->known = ops_known_new(g->src->http.checksum, name, "", NULL);
	end(g);
}

/* ---- making one ---- */

static void add_header(struct json_w *w, struct ops_http_get *g, bool has, const char *name, const char *value)
{
	if (!has) return;
	json_obj(w);
	json_kstr(w, "Name", name);
	json_kstr(w, "Value", value);
	json_obj_end(w);
	strvec_addf(&g->headers, "%s: %s", name, value);
}

static void make_key(struct ops_http_get *g)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct json_w w = JSON_W(&b);
	char digest[DIGEST_STR];
	json_obj(&w);
	json_kstr(&w, "url", g->src->http.url);
	json_kstr(&w, "filename", g->src->http.filename);
	json_kint(&w, "perm", g->src->http.perm);
	json_kint(&w, "uid", g->src->http.uid);
	json_kint(&w, "gid", g->src->http.gid);
	json_kstr(&w, "secret", g->src->http.auth_header_secret);
	json_key(&w, "header");
	json_arr(&w);
	add_header(&w, g, g->src->http.has_accept, "Accept", g->src->http.accept);
	add_header(&w, g, g->src->http.has_user_agent, "User-Agent", g->src->http.user_agent);
	json_arr_end(&w);
	json_obj_end(&w);
	digest_str_of(b.p, b.n, digest);
	snprintf(g->key, sizeof g->key, "http:%s", digest);
}

static void check(struct ops_http_get *g)
{
	const char *values[] = {g->src->http.accept, g->src->http.user_agent};
	if (!*g->src->http.sig_pubkey != !*g->src->http.sig_signature)
		err_set(&g->error, CODE_UNKNOWN, "http signature verification requires both pubkey and signature");
	for (size_t i = 0; i < array_len(values); i++)
		if (values[i] && strpbrk(values[i], "\r\n"))
			err_set(&g->error, CODE_INVALID_ARGUMENT, "a header of %s has a line break", g->src->http.url);
}

struct ops_http_get *ops_http_get(struct ops_env *env, const struct ops_http_req *req,
				  void (*done)(void *arg, struct ops_known *known, const char *sum, const struct err *e),
				  void *arg)
{
	static const char *const algos[] = {NULL, "sha256", "sha384", "sha512"};
	struct ops_http_get *g = xnew(struct ops_http_get);
	g->env = env;
	g->src = req->src;
	g->asker = (struct ops_asker){env, req->node, req->build};
	for (size_t i = 0; i < req->n_sessions; i++) ops_ids_add(&g->ids, req->sessions[i]);
	g->fetch = req->fetch;
	g->algo = algos[req->sum];
	buf_add(&g->suffix, req->suffix, req->suffix_len);
	g->get = (struct http_job){.known_etag = "", .known_digest = "", .known_modified = ""};
	g->done = done;
	g->arg = arg;
	make_key(g);
	check(g);
	if (err_is_set(&g->error)) {
		loop_post(env->loop, end, g);
		return g;
	}
	g->config = reg_config_ref(ops_settings(env, req->sessions, req->n_sessions).registries);
	reg_io_init(&g->io, env->reg, g->config);
	if (req->node)
		ops_span_node(&g->span, env, req->node);
	else if (req->build)
		ops_span_build(&g->span, env, req->build, NULL, req->src->http.url);
	g->io.span = ops_span_log(&g->span);
	g->io.cancelled = &g->job.cancelled;
	g->io_ready = true;
	if (*req->src->http.checksum && !req->fetch && !g->algo && !*req->src->http.sig_pubkey)
		loop_post(env->loop, pinned, g);
	else
		ops_turn_want(env, g->key, &g->turn, granted);
	return g;
}

void ops_http_get_cancel(struct ops_http_get *g)
{
	if (g->cancelled) return;
	g->cancelled = true;
	g->asker.build = NULL;
	loop_job_cancel(&g->job);
	if (g->io_ready) reg_io_cancel(&g->io);
	if (g->secret) ops_secret_cancel(g->secret);
	if (g->pick) ops_pick_cancel(g->pick);
	if (g->upload) sess_op_cancel(g->upload);
	if (g->turn.key && !g->turn.slot.held) { /* still waiting: begin() will not be called */
		ops_turn_end(&g->turn);
		loop_post(g->env->loop, end, g);
	}
}

bool ops_http_date(const char *s, int64_t *ret_unix_s) { return http_date(s, ret_unix_s, NULL); }

/* ---- the vertex ---- */

struct http_op {
	struct ops_node o;
	struct llb_source src;
	struct solve_node *node;
	struct ops_http_get *get;
	struct ops_known *known;
};

const char *ops_http_pin(const void *op)
{
	const struct http_op *o = op;
	return o->known ? o->known->digest : NULL;
}

static void op_free(void *op)
{
	struct http_op *h = op;
	ops_known_unref(h->known);
	ops_node_fini(&h->o);
	free(h);
}

static void start(struct http_op *h, struct solve_node *n, bool content,
		  void (*done)(void *arg, struct ops_known *known, const char *sum, const struct err *e))
{
	const char *sessions[OPS_SESSIONS_MAX];
	struct ops_http_req req = {.src = &h->src, .sessions = sessions, .node = n, .fetch = content};
	h->node = n;
	req.n_sessions = ops_sessions(n, h->o.env, sessions, OPS_SESSIONS_MAX);
	h->get = ops_http_get(h->o.env, &req, done, h);
}

static void mapped(void *arg, struct ops_known *known, const char *sum, const struct err *e)
{
	struct http_op *h = arg;
	_cleanup_buf_ struct buf key = BUF_INIT;
	char digest[DIGEST_STR + 8];
	h->get = NULL;
	if (e) {
		ops_map_failed(h->node, e);
		return;
	}
	ops_known_unref(h->known);
	h->known = ops_known_ref(known);
	llb_source_http_key(&h->src, known->name, known->digest, known->extra, &key);
	llb_source_digest(buf_str(&key), digest);
	ops_map_one(h->node, digest);
}

static void map(void *op, struct solve_node *n) { start(op, n, false, mapped); }

static void fetched(void *arg, struct ops_known *known, const char *sum, const struct err *e)
{
	struct http_op *h = arg;
	struct err copy = ERR_INIT;
	h->get = NULL;
	if (e) {
		err_copy(&copy, e);
		solve_exec_done(h->node, NULL, &copy);
		return;
	}
	struct snap *out = snap_ref(known->snap);
	solve_exec_done(h->node, &out, NULL);
}

static void exec(void *op, struct solve_node *n)
{
	struct http_op *h = op;
	if (h->known && h->known->snap) {
		struct snap *out = snap_ref(h->known->snap);
		solve_exec_done(n, &out, NULL);
		return;
	}
	start(h, n, true, fetched);
}

static void cancel(void *op, struct solve_node *n)
{
	struct http_op *h = op;
	if (h->get) ops_http_get_cancel(h->get);
}

static const struct solve_op_vt http_vt = {
	.kind = "http", .map = map, .exec = exec, .cancel = cancel, .free = op_free, .source = true};

void ops_http_source(struct ops_env *env, struct ops_graph *g, const struct llb_node *llb, const struct llb_source *src,
		     struct solve_vertex *ret)
{
	struct http_op *h = xnew(struct http_op);
	ops_node_init(&h->o, env, g, llb);
	h->src = *src;
	ret->vt = &http_vt;
	ret->op = h;
}
