/* A request to a registry: authorization, redirects and the fallback to plain http around one exchange; and an operation
 * over all hosts of a domain with pauses between rounds. Blocks.
 *
 *  1. Authorization, Cookie and client certificates do not go to another origin (scheme, host and port) than the one asked,
 *     nor is a challenge from there answered.
 *  2. The hosts are asked in order. A failure of any kind but FAIL_FINAL leads to the next; the last one's failure decides
 *     whether another round is worth a pause. A mirror that timed out is passed over for a while, so that a dead one costs
 *     its timeout once and not for every layer.
 * Source: containerd core/remotes/docker/resolver.go; BuildKit util/resolver/{resolver,retryhandler}. */
#include "reg/internal.h"
#include <string.h>
#include <strings.h>

enum {
	RESUMES_MAX = 100, /* after next to nothing has come */
	RESUME_PAUSE_MS = 100,
	RESUME_GOOD = 64 << 10, /* bytes that make a resumed transfer worth it, however often */
	OBEY_MS = 180000,       /* spent on what Retry-After asks, in all */
};

/* ---- redirects ---- */

static bool is_redirect(const struct reg_http_res *r)
{
	return (r->status >= 301 && r->status <= 303) || r->status == 307 || r->status == 308;
}

static bool same_origin(const char *a, const char *b)
{
	_cleanup_free_ char *x = reg_url_origin(a), *y = reg_url_origin(b);
	return x && y && strcmp(x, y) == 0;
}

static void strip_headers(const struct strvec *from, struct strvec *ret)
{
	for (size_t i = 0; from && i < from->n; i++)
		if (strncasecmp(from->v[i], "authorization:", 14) != 0 && strncasecmp(from->v[i], "cookie:", 7) != 0)
			strvec_add(ret, from->v[i]);
}

static void exchange_of(const struct reg_request *rq, struct reg_exchange *x)
{
	const struct reg_host *h = rq->host;
	_cleanup_free_ char *host = reg_url_host(rq->url);
	*x = (struct reg_exchange){
		.kind = h ? rq->kind : REG_LANE_NONE,
		.limit = h && h->entry && str_eq(host, h->host) ? h->entry->max_concurrency : 0,
		.impatient = h && h->mirror && !h->no_fallback,
		.io = rq->io,
		.method = rq->method,
		.headers = rq->headers,
		.body = rq->body,
		.body_bytes = rq->body_bytes,
		.config = rq->io->config,
		.entry = h ? h->entry : NULL,
		.with_keys = h,
		.insecure = h ? h->insecure : rq->insecure,
		.decode = rq->decode,
		.on_head = rq->on_head,
		.on_data = rq->on_data,
		.ctx = rq->ctx,
	};
}

/* url is replaced by the last one asked. */
static int follow(const struct reg_request *rq, const char *authorization, char **url, struct reg_http_res *ret,
		  struct reg_fail *f, struct err *e)
{
	_cleanup_strvec_ struct strvec stripped = {0};
	_cleanup_free_ char *first = xstrdup(*url);
	struct reg_exchange x;
	exchange_of(rq, &x);
	x.authorization = authorization;
	if (rq->host) { /* the client's certificates are for the configured host, also when a realm or upload URL is asked */
		_cleanup_free_ char *host = reg_url_host(*url);
		x.with_keys = str_eq(host, rq->host->host);
	}
	for (unsigned n = 0;; n++) {
		_cleanup_reg_http_res_ struct reg_http_res res = {0};
		x.url = *url;
		if (reg_exchange(&x, &res, f, e) < 0) return -1;
		const char *location = reg_http_header(&res, "location");
		if (!is_redirect(&res) || str_empty(location)) {
			*ret = res;
			res = (struct reg_http_res){0};
			return 0;
		}
		f->kind = FAIL_NETWORK;
		if (n == (rq->redirects ? rq->redirects : REG_REDIRECTS))
			return err_set(e, CODE_UNAVAILABLE, "stopped after %u redirects", n);
		char *next = reg_url_join(*url, location);
		if (!next) return err_set(e, CODE_UNAVAILABLE, "failed to parse Location header of %s", res.reason);
		free(*url);
		*url = next;
		if (!same_origin(first, next)) {
			x.authorization = NULL;
			x.with_keys = false;
			x.limit = 0;
			if (!stripped.n) strip_headers(rq->headers, &stripped);
			x.headers = &stripped;
		}
		bool keeps = res.status >= 307 || strcmp(x.method, "GET") == 0 || strcmp(x.method, "HEAD") == 0;
		if (!keeps) {
			x.method = "GET";
			x.body = NULL;
		}
	}
}

/* ---- plain http instead ---- */

static bool may_fall_back(const struct reg_request *rq, const char *url, const struct reg_fail *f)
{
	_cleanup_free_ char *host = reg_url_host(url);
	if (!rq->host || !rq->host->fallback || !str_starts(url, "https://") || !str_eq(host, rq->host->host)) return false;
	return f->kind == FAIL_NOT_TLS || ((f->kind == FAIL_REFUSED || f->kind == FAIL_TIMEOUT) && !reg_has_port(host));
}

static int ask(const struct reg_request *rq, const char *authorization, struct reg_http_res *ret, struct reg_fail *f,
	       struct err *e)
{
	_cleanup_free_ char *url = xstrdup(rq->url);
	int r = follow(rq, authorization, &url, ret, f, e);
	if (r < 0 && may_fall_back(rq, url, f)) {
		err_fini(e);
		reg_fall_back(rq->io->client, rq->host->host);
		char *plain = xasprintf("http%s", url + strlen("https"));
		free(url);
		url = plain;
		r = follow(rq, authorization, &url, ret, f, e);
	}
	return r;
}

/* Whether the registry itself gave this answer: where a redirect led, nobody gets to ask for its credentials. */
static bool from_host(const struct reg_request *rq, const struct reg_http_res *r)
{
	if (!rq->host) return false;
	if (same_origin(r->url, rq->url)) return true;
	_cleanup_free_ char *host = reg_url_host(r->url);
	return rq->host->fallback && str_eq(host, rq->host->host);
}

int reg_request(const struct reg_request *rq, struct reg_http_res *ret, struct reg_fail *f, struct err *e)
{
	_cleanup_(reg_authz_fini) struct reg_authz a;
	reg_authz_init(&a, rq->io, rq->host, rq->scopes);
	for (;;) {
		_cleanup_reg_http_res_ struct reg_http_res res = {0};
		if (ask(rq, rq->scopes ? a.value : rq->authorization, &res, f, e) < 0)
			return f->kind == FAIL_FINAL || !rq->scopes ? -1 : err_wrap(e, "failed to do request");
		int again = res.status == 401 && from_host(rq, &res) ? reg_authz_challenge(&a, &res, f, e) : 0;
		if (again < 0) return -1;
		if (again) continue;
		*ret = res;
		res = (struct reg_http_res){0};
		f->kind = FAIL_NONE;
		return 0;
	}
}

/* ---- errors of answers ---- */

static enum code code_of(long status)
{
	switch (status) {
	case 401: return CODE_UNAUTHENTICATED;
	case 403: return CODE_PERMISSION_DENIED;
	case 404: return CODE_NOT_FOUND;
	case 429: return CODE_RESOURCE_EXHAUSTED;
	default: return status >= 500 ? CODE_UNAVAILABLE : CODE_UNKNOWN;
	}
}

/* An answer to HEAD has no body to say why: ask for it by GET. */
static char *why_forbidden(const struct reg_request *head)
{
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	_cleanup_err_ struct err ignored = ERR_INIT;
	struct reg_request rq = *head;
	struct reg_fail f;
	rq.method = "GET";
	rq.on_head = NULL;
	rq.on_data = NULL;
	if (reg_request(&rq, &res, &f, &ignored) < 0 || res.status != 403) return NULL;
	return reg_error_text(res.error_body.p, res.error_body.n);
}

int reg_status_err(const struct reg_request *rq, const struct reg_http_res *r, struct reg_fail *f, struct err *e)
{
	_cleanup_free_ char *url = reg_url_show(r->url);
	_cleanup_free_ char *why = reg_error_text(r->error_body.p, r->error_body.n);
	if (!why && r->status == 403 && strcmp(rq->method, "HEAD") == 0) why = why_forbidden(rq);
	*f = (struct reg_fail){FAIL_STATUS, r->status, reg_retry_after_ms(reg_http_header(r, "retry-after"), time_now().tv_sec),
			       !same_origin(r->url, rq->url)};
	return err_set(e, code_of(r->status), "unexpected status from %s request to %s: %s%s%s%s%s%s", rq->method, url,
		       r->reason, why ? "\n" : "", why ? why : "", r->hint ? " (" : "", r->hint ? r->hint : "",
		       r->hint ? ")" : "");
}

/* ---- operations ---- */

char *reg_host_url(struct reg_io *io, const struct reg_host *h, const struct spec_ref *ref, const char *kind,
		   const char *object)
{
	bool http = h->http || (h->fallback && reg_fell_back(io->client, h->host));
	return xasprintf("%s://%s%s/%s/%s/%s%s%s", http ? "http" : "https", h->host, h->path, ref->path, kind, object,
			 h->ns ? "?ns=" : "", h->ns ? ref->domain : "");
}

int reg_digest_check(const char *digest, struct err *e)
{
	struct digest d;
	return digest_parse(digest ? digest : "", &d, e);
}

int reg_op_init(struct reg_op *op, struct reg_io *io, const struct spec_ref *ref, bool push, struct err *e)
{
	*op = (struct reg_op){.io = io, .ref = ref};
	if (str_empty(ref->domain) || str_empty(ref->path))
		return err_set(e, CODE_INVALID_ARGUMENT, "invalid reference format");
	_cleanup_free_ char *scope = xasprintf("repository:%s:pull%s", ref->path, push ? ",push" : "");
	reg_scopes_add(&op->scopes, scope);
	reg_hosts_of(io->config, ref->domain, &op->hosts);
	if (push) { /* the origin is the last and the only one to push to */
		struct reg_host *origin = &op->hosts.v[op->hosts.n - 1];
		struct reg_hosts one = {0};
		vec_push(&one, *origin);
		op->hosts.n--;
		reg_hosts_fini(&op->hosts);
		op->hosts = one;
	}
	return 0;
}

void reg_op_fini(struct reg_op *op)
{
	reg_hosts_fini(&op->hosts);
	strvec_fini(&op->scopes);
}

static int rank(const struct reg_fail *f)
{
	if (f->kind != FAIL_STATUS) return f->kind == FAIL_CONTENT ? 4 : 1;
	return f->status == 404 ? 2 : 3;
}

static bool passes(const struct reg_fail *f)
{
	if (f->kind == FAIL_TIMEOUT || f->kind == FAIL_BROKEN || f->kind == FAIL_NAME) return true;
	if (f->kind != FAIL_STATUS) return false;
	return f->status >= 500 || f->status == 408 || f->status == 429 ||
	       (f->elsewhere && f->status >= 400); /* a signed URL that has expired: the registry gives another */
}

/* Each host with each reason once a minute; those who debug see it every time. */
static void log_next(const struct reg_op *op, const struct reg_host *h, const struct reg_fail *f, const struct err *e)
{
	_cleanup_free_ char *what = xasprintf("next %s %d %ld", h->host, f->kind, f->status);
	bool first = reg_say_once(op->io->client, what);
	if (!first && !log_enabled(LOG_DEBUG)) return;
	_cleanup_free_ char *ref = spec_ref_format(op->ref);
	struct log_field fields[] = {{"error", e->msg}, {"host", h->host}, {"ref", ref}};
	log_fields(first ? LOG_INFO : LOG_DEBUG, op->io->span, "trying next host", fields, array_len(fields));
}

/* Ask one host; a mirror that lately cost a timeout is passed over with the error it gave then. */
static int ask_host(struct reg_op *op, const struct reg_host *h, struct reg_fail *f, struct err *e)
{
	*f = (struct reg_fail){.kind = FAIL_NETWORK};
	char *down = h->mirror ? reg_host_down(op->io->client, h->host) : NULL;
	if (down) {
		err_set(e, CODE_UNAVAILABLE, "%s", down);
		free(down);
		return -1;
	}
	if (op->try_host(op, h, f, e) >= 0) return 0;
	if (h->mirror && f->kind == FAIL_TIMEOUT) reg_host_set_down(op->io->client, h->host, e->msg);
	return -1;
}

/* All hosts once. 0, or -1 with the error to tell in *e and the last host's failure in *f. */
static int round_of(struct reg_op *op, struct reg_fail *f, struct err *e)
{
	_cleanup_err_ struct err told = ERR_INIT;
	int told_rank = 0;
	for (size_t i = 0; i < op->hosts.n; i++) {
		const struct reg_host *h = &op->hosts.v[i];
		_cleanup_err_ struct err now = ERR_INIT;
		if (ask_host(op, h, f, &now) == 0) return 0;
		if (f->kind == FAIL_FINAL) return err_move(e, &now);
		if (h->no_fallback) return err_move(e, &now);
		if (i + 1 < op->hosts.n) log_next(op, h, f, &now);
		if (told_rank && !(op->ranked && rank(f) > told_rank)) continue;
		told_rank = rank(f);
		err_move(&told, &now);
	}
	return err_move(e, &told);
}

static void note(const struct reg_op *op, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(const struct reg_op *op, const char *fmt, ...)
{
	if (!op->io->note) return;
	va_list ap;
	va_start(ap, fmt);
	_cleanup_free_ char *line = xvasprintf(fmt, ap);
	va_end(ap);
	op->io->note(op->io->note_ctx, line);
}

static void note_pause(const struct reg_op *op, int64_t ms, const struct err *e)
{
	note(op, "error: %s\n", e->msg);
	if (ms % 1000)
		note(op, "retrying in %.4gs\n", (double)ms / 1000);
	else
		note(op, "retrying in %llds\n", (long long)(ms / 1000));
}

struct retries {
	int64_t pause, obeyed_ms;
	int resumes, wrong;
};

/* How long to wait before another round; -1: no more. */
static int64_t pause_ms(struct reg_op *op, struct retries *r, const struct reg_fail *f)
{
	uint64_t moved = op->progressed ? op->progressed(op) : 0;
	if (f->kind == FAIL_CONTENT) return r->wrong++ ? -1 : (int64_t)op->io->retry_first_ms; /* wrong bytes: once more */
	if (!passes(f)) return -1;
	if (f->retry_after_ms) {
		int64_t wait = min_of(f->retry_after_ms, (int64_t)OBEY_MS - r->obeyed_ms);
		r->obeyed_ms += wait;
		return wait > 0 ? wait : -1;
	}
	if (moved >= RESUME_GOOD || (moved && r->resumes++ < RESUMES_MAX)) {
		r->pause = op->io->retry_first_ms;
		int64_t short_ms = moved >= RESUME_GOOD ? RESUME_PAUSE_MS / 10 : RESUME_PAUSE_MS;
		return min_of(r->pause, short_ms);
	}
	if (r->pause >= op->io->retry_stop_ms) return -1;
	r->pause *= 2;
	return r->pause / 2;
}

int reg_op_run(struct reg_op *op, struct err *e)
{
	struct reg_io *io = op->io;
	struct retries r = {.pause = io->retry_first_ms};
	for (;;) {
		_cleanup_err_ struct err now = ERR_INIT;
		struct reg_fail f;
		if (round_of(op, &f, &now) == 0) return 0;
		int64_t wait = f.kind == FAIL_FINAL ? -1 : pause_ms(op, &r, &f);
		if (wait < 0) return err_move(e, &now);
		if (wait > RESUME_PAUSE_MS) note_pause(op, wait, &now);
		if (reg_io_sleep(io, wait, e) < 0) return -1;
	}
}
