/* One HTTP exchange: a request to one URL, its answer's header into a struct, its body into a callback. Blocks.
 *
 *  1. The transfer runs in curl_multi_poll, so that reg_io_cancel (curl_multi_wakeup) ends it at once; the job's own flag is
 *     looked at every 100 ms and at each chunk.
 *  2. Redirects are answers: the caller decides where credentials may go.
 *  3. Bounded: header bytes, error bodies, silence. Bodies are the callback's business; they are never kept here.
 *  4. Errors read as Go's net/http words them, since users know (and search for) those; reg_fail tells the kind.
 * What is logged and counted of it: log_job.c. */
#include "reg/internal.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

enum {
	CONNECT_MS = 30000,
	SILENCE_BODY_MS = 120000,   /* within a body */
	SILENCE_ANSWER_MS = 300000, /* before an answer */
	SILENCE_UPLOAD_MS = 900000, /* the same, when the server has a body to store first */
	HASTE_CONNECT_MS = 10000,   /* where another host can be asked */
	HASTE_BODY_MS = 30000,
	HASTE_ANSWER_MS = 60000,
	HEADER_MAX = 256 << 10,
	POLL_MS = 100,
};

struct state {
	const struct reg_exchange *x;
	struct reg_http_res *res;
	struct err err;      /* of a callback */
	bool judged, wanted; /* on_head has been asked; its answer */
	bool failed;         /* a callback failed: err */
	bool enough;         /* ended by us, without an error */
	bool head_done;
	size_t header_bytes;
	uint64_t sent;
	int64_t last_ms;      /* when something moved */
	char address[4 * 64]; /* all that was tried */
	char text[CURL_ERROR_SIZE];
	struct curl_slist *headers;
};

static int64_t now_ms(void) { return time_mono_ns() / 1000000; }

/* ---- header ---- */

static void head_reset(struct reg_http_res *r, const char *line, size_t n)
{
	const char *sp = memchr(line, ' ', n);
	strvec_fini(&r->names);
	strvec_fini(&r->values);
	r->names = r->values = (struct strvec){0};
	free(r->reason);
	r->reason = sp ? xstrndup(sp + 1, n - (size_t)(sp + 1 - line)) : xstrdup("");
	for (size_t i = strlen(r->reason); i > 0 && isspace((unsigned char)r->reason[i - 1]);) r->reason[--i] = 0;
	r->status = strtol(r->reason, NULL, 10);
	r->content_length = -1;
}

static void head_line(struct reg_http_res *r, const char *line, size_t n)
{
	const char *colon = memchr(line, ':', n);
	if (!colon) return;
	const char *from = colon + 1, *end = line + n;
	while (from < end && isspace((unsigned char)*from)) from++;
	while (end > from && isspace((unsigned char)end[-1])) end--;
	char *name = xstrndup(line, (size_t)(colon - line));
	for (char *p = name; *p; p++) *p = (char)tolower((unsigned char)*p);
	if (strcmp(name, "content-length") == 0) r->content_length = strtoll(from, NULL, 10);
	strvec_take(&r->names, name);
	strvec_take(&r->values, utf8_clean(from, (size_t)(end - from)));
}

static size_t on_header(char *p, size_t size, size_t count, void *arg)
{
	struct state *s = arg;
	size_t n = size * count;
	s->last_ms = now_ms();
	s->header_bytes += n;
	if (s->header_bytes > HEADER_MAX) {
		err_set(&s->err, CODE_RESOURCE_EXHAUSTED, "response header is larger than %d bytes", HEADER_MAX);
		s->failed = true;
		return 0;
	}
	if (n > 5 && strncasecmp(p, "HTTP/", 5) == 0) {
		head_reset(s->res, p, n);
		s->head_done = false;
	} else if (n && (*p == '\r' || *p == '\n')) {
		s->head_done = s->res->status >= 200;
	} else if (!s->head_done) { /* else a trailer */
		head_line(s->res, p, n);
	}
	return n;
}

static bool is_head(const struct reg_exchange *x) { return strcmp(x->method, "HEAD") == 0; }

static bool is_ok(const struct reg_http_res *r) { return r->status >= 200 && r->status < 300; }

/* Ask once whether the body is wanted. False: the transfer is to end. */
static bool judge(struct state *s)
{
	const struct reg_exchange *x = s->x;
	if (s->judged) return !s->failed;
	s->judged = true;
	if (reg_http_header(s->res, "content-encoding")) s->res->content_length = -1;
	int r = x->on_head ? x->on_head(x->ctx, s->res, &s->err) : 1;
	s->failed = r < 0;
	s->wanted = r > 0;
	return !s->failed;
}

static size_t on_body(char *p, size_t size, size_t count, void *arg)
{
	struct state *s = arg;
	const struct reg_exchange *x = s->x;
	size_t n = size * count;
	if (!is_ok(s->res)) {
		buf_add(&s->res->error_body, p, min_of(n, REG_ERROR_BODY_MAX - s->res->error_body.n));
		s->enough = s->res->error_body.n >= REG_ERROR_BODY_MAX;
		return s->enough ? 0 : n;
	}
	if (!judge(s)) return 0;
	s->enough = !s->wanted;
	if (s->enough) return 0;
	if (reg_io_stopped(x->io)) return 0;
	if (x->on_data && x->on_data(x->ctx, p, n, &s->err) < 0) s->failed = true;
	s->last_ms = now_ms();
	return s->failed ? 0 : n;
}

static size_t on_read(char *p, size_t size, size_t count, void *arg)
{
	struct state *s = arg;
	const struct reg_exchange *x = s->x;
	size_t want = min_of((uint64_t)(size * count), x->body_bytes - s->sent);
	if (reg_io_stopped(x->io)) return CURL_READFUNC_ABORT;
	if (!want) return 0;
	ssize_t n = x->body->read(x->body->ctx, s->sent, p, want, &s->err);
	if (n == 0)
		err_set(&s->err, CODE_DATA_LOSS, "body ends at %llu of %llu bytes", (unsigned long long)s->sent,
			(unsigned long long)x->body_bytes);
	if (n <= 0) {
		s->failed = true;
		return CURL_READFUNC_ABORT;
	}
	s->sent += (uint64_t)n;
	s->last_ms = now_ms();
	return (size_t)n;
}

/* curl sends a request again by itself when a connection that was used before ends without an answer. Part of a blob may be
 * stored by then: sent from the begin it would be appended to that. Our own retry asks what was stored. */
static int on_seek(void *arg, curl_off_t offset, int origin)
{
	struct state *s = arg;
	if (s->x->kind == REG_LANE_BLOB && s->sent) return CURL_SEEKFUNC_FAIL;
	if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > s->x->body_bytes) return CURL_SEEKFUNC_FAIL;
	s->sent = (uint64_t)offset;
	return CURL_SEEKFUNC_OK;
}

/* ---- connection ---- */

static curl_socket_t on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	struct state *s = arg;
	char host[NI_MAXHOST], port[16];
	if (getnameinfo(&a->addr, (socklen_t)a->addrlen, host, sizeof host, port, sizeof port,
			NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
		size_t n = strlen(s->address);
		snprintf(s->address + n, sizeof s->address - n, a->family == AF_INET6 ? "%s[%s]:%s" : "%s%s:%s",
			 n ? " and " : "", host, port);
	}
	return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

static CURLcode on_ssl_ctx(CURL *easy, void *ctx, void *arg)
{
	return reg_tls_apply(arg, ctx) < 0 ? CURLE_ABORTED_BY_CALLBACK : CURLE_OK;
}

/* A proxy as the daemon's environment says; none for this machine itself, as in Go. */
static void set_proxy(CURL *c, const char *url)
{
	_cleanup_free_ char *proxy = reg_proxy_for(url);
	curl_easy_setopt(c, CURLOPT_PROXY, proxy ? proxy : "");
	curl_easy_setopt(c, CURLOPT_NOPROXY, "");
	curl_easy_setopt(c, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
}

static void set_tls(CURL *c, const struct reg_exchange *x, struct reg_handle *h)
{
	curl_easy_setopt(c, CURLOPT_CAINFO, NULL); /* the handle has them */
	curl_easy_setopt(c, CURLOPT_CAPATH, NULL);
	curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, x->insecure ? 0L : 1L);
	curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, x->insecure ? 0L : 2L);
	if (!h->tls) return;
	curl_easy_setopt(c, CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
	curl_easy_setopt(c, CURLOPT_SSL_CTX_DATA, h->tls);
}

static void set_method(CURL *c, const struct reg_exchange *x, struct state *s)
{
	if (x->body) {
		curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)x->body_bytes);
		curl_easy_setopt(c, CURLOPT_READFUNCTION, on_read);
		curl_easy_setopt(c, CURLOPT_READDATA, s);
		curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, on_seek);
		curl_easy_setopt(c, CURLOPT_SEEKDATA, s);
		curl_easy_setopt(c, CURLOPT_UPLOAD_BUFFERSIZE, 256L << 10);
		curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, x->method);
	} else if (is_head(x)) {
		curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
	} else if (strcmp(x->method, "POST") == 0 || strcmp(x->method, "PUT") == 0) {
		curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE, 0L);
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, "");
		curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, x->method);
		s->headers = curl_slist_append(s->headers, "Content-Type:");
	} else if (strcmp(x->method, "GET") != 0) {
		curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, x->method);
	}
}

static int set_headers(CURL *c, const struct reg_exchange *x, struct state *s, struct err *e)
{
	for (size_t i = 0; x->headers && i < x->headers->n; i++) {
		const char *h = x->headers->v[i];
		if (strpbrk(h, "\r\n"))
			return err_set(e, CODE_INVALID_ARGUMENT, "invalid header field value: it holds a line break");
		s->headers = curl_slist_append(s->headers, h);
	}
	if (x->authorization) {
		_cleanup_free_ char *a = xasprintf("Authorization: %s", x->authorization);
		if (strpbrk(a, "\r\n")) return err_set(e, CODE_UNAUTHENTICATED, "the token holds a line break");
		s->headers = curl_slist_append(s->headers, a);
	}
	s->headers = curl_slist_append(s->headers, "Expect:");
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, s->headers);
	return 0;
}

static int setup(struct reg_handle *h, const struct reg_exchange *x, struct state *s, struct err *e)
{
	CURL *c = h->easy;
	curl_easy_setopt(c, CURLOPT_URL, x->url);
	curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(c, CURLOPT_USERAGENT, REG_USER_AGENT);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, x->impatient ? (long)HASTE_CONNECT_MS : (long)CONNECT_MS);
	curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(c, CURLOPT_BUFFERSIZE, 256L << 10);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, s->text);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, s);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, s);
	curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, on_socket);
	curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, s);
	if (x->decode) curl_easy_setopt(c, CURLOPT_ACCEPT_ENCODING, "gzip, deflate");
	set_proxy(c, x->url);
	set_tls(c, x, h);
	set_method(c, x, s);
	return set_headers(c, x, s, e);
}

/* ---- errors ---- */

struct cause {
	enum reg_fail_kind kind;
	const char *text;
};

static struct cause verify_cause(const char *text)
{
	static const struct {
		const char *part, *says;
	} known[] = {
		{"unable to get local issuer", "certificate signed by unknown authority"},
		{"self-signed", "certificate signed by unknown authority"},
		{"self signed", "certificate signed by unknown authority"},
		{"unable to verify the first", "certificate signed by unknown authority"},
		{"has expired", "certificate has expired or is not yet valid"},
		{"not yet valid", "certificate has expired or is not yet valid"},
		{"subject name", "certificate is not valid for this host name"},
	};
	for (size_t i = 0; i < array_len(known); i++)
		if (strstr(text, known[i].part)) return (struct cause){FAIL_NETWORK, known[i].says};
	return (struct cause){FAIL_NETWORK, text};
}

static struct cause cause_of(CURLcode rc, long errnum, const char *text)
{
	const char *alert = strstr(text, "SSL routines::") ? strstr(text, " alert ") : NULL;
	if (alert) return (struct cause){FAIL_NETWORK, alert + 1};
	switch (rc) {
	case CURLE_COULDNT_CONNECT: return (struct cause){errnum == ETIMEDOUT ? FAIL_TIMEOUT : FAIL_REFUSED, NULL};
	case CURLE_OPERATION_TIMEDOUT: return (struct cause){FAIL_TIMEOUT, "i/o timeout"};
	case CURLE_COULDNT_RESOLVE_HOST: return (struct cause){FAIL_NETWORK, "no such host"};
	case CURLE_COULDNT_RESOLVE_PROXY: return (struct cause){FAIL_NETWORK, "the proxy's name cannot be resolved"};
	case CURLE_PEER_FAILED_VERIFICATION: return verify_cause(text);
	case CURLE_SSL_CONNECT_ERROR:
		if (strstr(text, "wrong version number") || strstr(text, "http request"))
			return (struct cause){FAIL_NOT_TLS, "http: server gave HTTP response to HTTPS client"};
		return (struct cause){errnum == ECONNRESET ? FAIL_BROKEN : FAIL_NETWORK, text};
	case CURLE_SEND_FAIL_REWIND: return (struct cause){FAIL_BROKEN, "connection reset by peer"};
	case CURLE_GOT_NOTHING: return (struct cause){FAIL_BROKEN, "EOF"};
	case CURLE_PARTIAL_FILE: return (struct cause){FAIL_BROKEN, "unexpected EOF"};
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR: return (struct cause){FAIL_BROKEN, text};
	default: return (struct cause){FAIL_NETWORK, text};
	}
}

static const char *method_title(const char *m)
{
	static const char *const names[][2] = {{"GET", "Get"},   {"HEAD", "Head"},   {"PUT", "Put"},
					       {"POST", "Post"}, {"PATCH", "Patch"}, {"DELETE", "Delete"}};
	for (size_t i = 0; i < array_len(names); i++)
		if (strcmp(names[i][0], m) == 0) return names[i][1];
	return m;
}

/* Whether a name that was not found is unknown, or the question got no answer this time. Blocks. */
static bool name_may_come(const char *host_port)
{
	struct addrinfo *found = NULL, hints = {.ai_socktype = SOCK_STREAM};
	const char *colon = strrchr(host_port, ':');
	_cleanup_free_ char *host = colon ? xstrndup(host_port, (size_t)(colon - host_port)) : xstrdup(host_port);
	int r = getaddrinfo(host, NULL, &hints, &found);
	if (r == 0) freeaddrinfo(found);
	return r == 0 || r == EAI_AGAIN || r == EAI_SYSTEM;
}

static int transport_err(struct state *s, CURL *c, CURLcode rc, struct reg_fail *f, struct err *e)
{
	const struct reg_exchange *x = s->x;
	long errnum = 0;
	curl_easy_getinfo(c, CURLINFO_OS_ERRNO, &errnum);
	struct cause k = cause_of(rc, errnum, *s->text ? s->text : curl_easy_strerror(rc));
	_cleanup_free_ char *url = reg_url_show(x->url), *host = reg_url_host(x->url);
	const char *m = method_title(x->method);
	f->kind = k.kind;
	if (rc == CURLE_COULDNT_CONNECT) {
		_cleanup_free_ char *why = xstrdup(errnum ? strerror((int)errnum) : "failed");
		*why = (char)tolower((unsigned char)*why);
		return err_set(e, CODE_UNAVAILABLE, "%s \"%s\": dial tcp %s: connect: %s", m, url, s->address, why);
	}
	if (rc == CURLE_COULDNT_RESOLVE_HOST) {
		bool may_come = host && name_may_come(host);
		if (may_come) f->kind = FAIL_NAME;
		return err_set(e, CODE_UNAVAILABLE, "%s \"%s\": dial tcp: lookup %s: %s", m, url, host ? host : "",
			       may_come ? "the name server does not answer" : k.text);
	}
	if (str_starts(k.text, "alert "))
		return err_set(e, CODE_UNAVAILABLE, "%s \"%s\": remote error: tls: %.*s", m, url, (int)strcspn(k.text + 6, ","),
			       k.text + 6);
	if (rc == CURLE_PEER_FAILED_VERIFICATION)
		return err_set(e, CODE_UNAVAILABLE, "%s \"%s\": tls: failed to verify certificate: x509: %s", m, url, k.text);
	return err_set(e, CODE_UNAVAILABLE, "%s \"%s\": %s", m, url, k.text);
}

/* ---- the transfer ---- */

static int64_t silence_limit(const struct state *s)
{
	if (s->x->impatient) return s->head_done ? HASTE_BODY_MS : HASTE_ANSWER_MS;
	return s->head_done ? SILENCE_BODY_MS : s->x->body ? SILENCE_UPLOAD_MS : SILENCE_ANSWER_MS;
}

enum outcome { ENDED, STOPPED, SILENT };

static void io_set_multi(struct reg_io *io, CURLM *m)
{
	pthread_mutex_lock(&io->lock);
	io->multi = m;
	pthread_mutex_unlock(&io->lock);
}

static enum outcome drive(struct reg_handle *h, struct state *s, CURLcode *ret_rc)
{
	enum outcome o = ENDED;
	int running = 1, left;
	curl_multi_add_handle(h->multi, h->easy);
	io_set_multi(s->x->io, h->multi);
	s->last_ms = now_ms();
	while (o == ENDED) {
		curl_multi_perform(h->multi, &running);
		if (!running) break;
		if (reg_io_stopped(s->x->io))
			o = STOPPED;
		else if (now_ms() - s->last_ms > silence_limit(s))
			o = SILENT;
		else
			curl_multi_poll(h->multi, NULL, 0, POLL_MS, NULL);
	}
	io_set_multi(s->x->io, NULL);
	for (CURLMsg *m; (m = curl_multi_info_read(h->multi, &left));)
		if (m->msg == CURLMSG_DONE) *ret_rc = m->data.result;
	curl_multi_remove_handle(h->multi, h->easy);
	return o;
}

/* A name that leads to several addresses of which one listens, as localhost with ::1 and 127.0.0.1: curl tries the first of
 * each family side by side, and has been seen to give up with the first that refuses. Nothing was sent, so ask once more. */
static enum outcome drive_again(struct reg_handle *h, struct state *s, CURLcode *rc)
{
	char first[sizeof s->address], text[sizeof s->text];
	CURLcode again = CURLE_OK;
	memcpy(first, s->address, sizeof first);
	memcpy(text, s->text, sizeof text);
	curl_easy_setopt(h->easy, CURLOPT_IPRESOLVE, CURL_IPRESOLVE_V4);
	enum outcome o = drive(h, s, &again);
	if (o == ENDED && again == CURLE_COULDNT_RESOLVE_HOST) { /* it has no such address: what was said first counts */
		memcpy(s->address, first, sizeof first);
		memcpy(s->text, text, sizeof text);
		return o;
	}
	*rc = again;
	return o;
}

static int run(struct reg_handle *h, struct state *s, struct reg_fail *f, struct err *e)
{
	const struct reg_exchange *x = s->x;
	CURLcode rc = CURLE_OK;
	f->kind = FAIL_FINAL;
	if (reg_io_stopped(x->io)) return err_set(e, CODE_CANCELLED, "context canceled");
	if (setup(h, x, s, e) < 0) return -1;
	enum outcome o = drive(h, s, &rc);
	if (o == ENDED && rc == CURLE_COULDNT_CONNECT && strchr(s->address, '[')) o = drive_again(h, s, &rc);
	if (s->failed) return err_move(e, &s->err);
	if (o == STOPPED || reg_io_stopped(x->io)) return err_set(e, CODE_CANCELLED, "context canceled");
	if (o == SILENT) {
		_cleanup_free_ char *url = reg_url_show(x->url);
		f->kind = FAIL_TIMEOUT;
		return err_set(e, CODE_DEADLINE_EXCEEDED, "%s \"%s\": i/o timeout: nothing moved for %lld s",
			       method_title(x->method), url, (long long)silence_limit(s) / 1000);
	}
	if (rc != CURLE_OK && !s->enough) return transport_err(s, h->easy, rc, f, e);
	if (is_ok(s->res) && !is_head(x) && !judge(s)) return err_move(e, &s->err);
	f->kind = FAIL_NONE;
	return 0;
}

/* Say what may be wrong with our certificate where the server refuses: it seldom does. */
static void add_hint(const char *hint, int r, struct reg_http_res *res, struct err *e)
{
	if (!hint) return;
	if (r == 0 &&
	    (res->status == 400 || res->status == 401 || res->status == 403 || res->status == 495 || res->status == 496))
		res->hint = xstrdup(hint);
	if (r < 0 && e && e->msg && strstr(e->msg, "tls: ")) {
		_cleanup_free_ char *msg = xstrdup(e->msg);
		err_set(e, e->code, "%s (%s)", msg, hint);
	}
}

int reg_exchange(const struct reg_exchange *x, struct reg_http_res *ret, struct reg_fail *f, struct err *e)
{
	_cleanup_reg_http_res_ struct reg_http_res res = {.content_length = -1, .error_body = BUF_MAX(REG_ERROR_BODY_MAX)};
	_cleanup_free_ char *origin = reg_url_origin(x->url);
	struct state s = {.x = x, .res = &res};
	struct reg_handle *h = NULL;
	*f = (struct reg_fail){.kind = FAIL_NETWORK};
	if (!origin) {
		_cleanup_free_ char *url = reg_url_show(x->url);
		return err_set(e, CODE_INVALID_ARGUMENT, "\"%s\" is not an http or https URL", url);
	}
	struct reg_want want = {.io = x->io,
				.origin = origin,
				.config = x->config,
				.entry = x->entry,
				.with_keys = x->with_keys,
				.insecure = x->insecure,
				.kind = x->kind,
				.limit = x->limit};
	if (reg_handle_get(x->io->client, &want, &h, e) < 0) {
		f->kind = FAIL_FINAL;
		if (e && e->code != CODE_CANCELLED)
			e->code = CODE_FAILED_PRECONDITION; /* a file of the configuration: "not found" would mean the image */
		return -1;
	}
	res.url = xstrdup(x->url);
	reg_log_request(x);
	int r = run(h, &s, f, e);
	add_hint(reg_tls_hint(h->tls), r, &res, e);
	reg_count(x, h->easy, r < 0 ? NULL : &res, f);
	curl_slist_free_all(s.headers);
	err_fini(&s.err);
	reg_handle_put(x->io->client, h);
	if (r < 0) return -1;
	reg_log_response(x, &res);
	*ret = res;
	res = (struct reg_http_res){0};
	return 0;
}

/* ---- answers ---- */

const char *reg_http_header(const struct reg_http_res *r, const char *lower_name)
{
	for (size_t i = 0; i < r->names.n; i++)
		if (strcmp(r->names.v[i], lower_name) == 0) return r->values.v[i];
	return NULL;
}

void reg_http_res_fini(struct reg_http_res *r)
{
	free(r->reason);
	free(r->url);
	strvec_fini(&r->names);
	strvec_fini(&r->values);
	buf_fini(&r->error_body);
	free(r->hint);
	*r = (struct reg_http_res){0};
}
