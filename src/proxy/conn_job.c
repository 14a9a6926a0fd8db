/* HTTP/1.1 with the client, whatever libcurl speaks with the other side. An answer goes on as it comes: its head when the first
 * bytes of the body are there, the body with its own length, else in chunks (or to the end of the connection, for HTTP/1.0).
 *  - Hop-by-hop headers stay on their hop; compression is not asked for, so that the hash is of what is meant.
 *  - No redirect is followed: the client does that, and each request is asked about.
 *  - Whatever goes wrong before the head is a 502 with the reason; behind it the connection is cut. */
#include "proxy/conn_job.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEAD_MAX = 64 << 10, READ_BYTES = 16 << 10, HEADERS_MAX = 256, CONNECT_TIMEOUT_MS = 30000 };

struct stream {
	int fd;
	SSL *ssl; /* NULL: plain */
	struct buf in;
};
struct request {
	char *method, *target, *url; /* url: absolute */
	struct strvec headers;       /* "Name: value" */
	bool http10, close, chunked, expects, range;
	int64_t length; /* of the body; 0: none */
};
/* One request that is being forwarded. */
struct exchange {
	struct proxy_io *io;
	struct stream *s;
	struct request *q;
	struct strvec headers; /* of the answer */
	long status;
	bool sent, chunked, close, failed, body_started, body_ended;
	char *location;
	int64_t body_left; /* of the request; chunked: of the chunk */
	struct hasher hash;
};

/* ---- bytes ---- */

static ssize_t recv_some(struct stream *s)
{
	char b[READ_BYTES];
	ssize_t n;
	do n = s->ssl ? SSL_read(s->ssl, b, sizeof b) : recv(s->fd, b, sizeof b, 0);
	while (n < 0 && !s->ssl && errno == EINTR);
	if (n > 0) buf_add(&s->in, b, (size_t)n);
	return n > 0 ? n : -1;
}

static bool send_all(struct stream *s, const void *p, size_t n)
{
	while (n) {
		size_t part = min_of(n, (size_t)1 << 20);
		ssize_t w = s->ssl ? SSL_write(s->ssl, p, (int)part) : send(s->fd, p, part, MSG_NOSIGNAL);
		if (w < 0 && !s->ssl && errno == EINTR) continue;
		if (w <= 0) return false;
		p = (const char *)p + w;
		n -= (size_t)w;
	}
	return true;
}

/* A line without its end; heap. NULL: there is none. */
static char *line(struct stream *s, size_t *budget)
{
	for (size_t seen = 0;;) {
		const char *p = (const char *)s->in.p, *nl = s->in.n > seen ? memchr(p + seen, '\n', s->in.n - seen) : NULL;
		if (nl) {
			size_t n = (size_t)(nl - p), text = n && p[n - 1] == '\r' ? n - 1 : n;
			if (n + 1 > *budget || memchr(p, 0, text)) return NULL;
			*budget -= n + 1;
			char *ret = xstrndup(p, text);
			buf_consume(&s->in, n + 1);
			return ret;
		}
		seen = s->in.n;
		if (seen > *budget || recv_some(s) < 0) return NULL;
	}
}

static void refuse(struct stream *s, int status, const char *reason, const char *text)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	buf_addf(&b,
		 "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\nConnection: "
		 "close\r\n\r\n%s\n",
		 status, reason, strlen(text) + 1, text);
	send_all(s, b.p, b.n);
}

/* ---- the request ---- */

static void request_fini(struct request *q)
{
	free(q->method);
	free(q->target);
	free(q->url);
	strvec_fini(&q->headers);
	*q = (struct request){0};
}

static bool is_header(const char *h, const char *name, const char **ret_value)
{
	size_t n = strlen(name);
	if (strncasecmp(h, name, n) || h[n] != ':') return false;
	const char *v = h + n + 1;
	if (ret_value) *ret_value = v + strspn(v, " \t");
	return true;
}

/* Those of one hop, and those that are ours to say. */
static bool stays_here(const char *h)
{
	static const char *const names[] = {"Connection",
					    "Keep-Alive",
					    "Proxy-Authenticate",
					    "Proxy-Authorization",
					    "Proxy-Connection",
					    "Te",
					    "Trailer",
					    "Transfer-Encoding",
					    "Upgrade"};
	for (size_t i = 0; i < array_len(names); i++)
		if (is_header(h, names[i], NULL)) return true;
	return false;
}

static bool take_header(struct request *q, const char *h)
{
	const char *v;
	char *end;
	if (*h == ' ' || *h == '\t' || !strchr(h, ':')) return false; /* folded, or none */
	if (is_header(h, "Content-Length", &v)) {
		errno = 0;
		q->length = strtoll(v, &end, 10);
		return end != v && !*end && !errno && q->length >= 0;
	}
	if (is_header(h, "Transfer-Encoding", &v)) {
		q->chunked = true;
		return strcasecmp(v, "chunked") == 0;
	}
	if (is_header(h, "Expect", NULL)) {
		q->expects = true;
		return true;
	}
	if ((is_header(h, "Connection", &v) || is_header(h, "Proxy-Connection", &v)) && strcasecmp(v, "close") == 0)
		q->close = true;
	if ((is_header(h, "Connection", &v) || is_header(h, "Proxy-Connection", &v)) && strcasecmp(v, "keep-alive") == 0 &&
	    q->http10)
		q->close = false;
	if (is_header(h, "Range", NULL)) q->range = true;
	if (!stays_here(h) && !is_header(h, "Accept-Encoding", NULL)) strvec_add(&q->headers, h);
	return q->headers.n < HEADERS_MAX;
}

static bool is_token(const char *s)
{
	return *s && strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!#$%&'*+^`|~") == strlen(s);
}

/* false: the connection has ended, or what came is no HTTP/1. */
static bool read_request(struct stream *s, struct request *q)
{
	size_t budget = HEAD_MAX;
	char *save = NULL;
	_cleanup_free_ char *first = line(s, &budget);
	if (!first) return false;
	const char *method = strtok_r(first, " ", &save), *target = strtok_r(NULL, " ", &save),
		   *version = strtok_r(NULL, " ", &save);
	if (!method || !target || !version || !str_starts(version, "HTTP/1.") || !is_token(method) ||
	    strtok_r(NULL, " ", &save))
		return false;
	q->method = xstrdup(method);
	q->target = xstrdup(target);
	q->http10 = q->close = !strcmp(version, "HTTP/1.0");
	for (;;) {
		_cleanup_free_ char *h = line(s, &budget);
		if (!h) return false;
		if (!*h) return !(q->chunked && q->length);
		if (!take_header(q, h)) return false;
	}
}

static const char *host_of(const struct request *q)
{
	const char *v = NULL;
	for (size_t i = 0; i < q->headers.n; i++)
		if (is_header(q->headers.v[i], "Host", &v)) return v;
	return "";
}

/* ---- the body that goes up ---- */

/* The next chunk's size, or 0 and the trailers behind it. */
static bool next_chunk(struct exchange *x)
{
	size_t budget = HEAD_MAX;
	char *end;
	if (x->body_started) { /* the end of the line behind a chunk */
		_cleanup_free_ char *empty = line(x->s, &budget);
		if (!empty || *empty) return false;
	}
	x->body_started = true;
	_cleanup_free_ char *size = line(x->s, &budget);
	if (!size) return false;
	errno = 0;
	x->body_left = strtoll(size, &end, 16);
	if (end == size || (*end && *end != ';') || errno || x->body_left < 0) return false;
	if (x->body_left) return true;
	x->body_ended = true;
	for (;;) {
		_cleanup_free_ char *trailer = line(x->s, &budget);
		if (!trailer || !*trailer) return trailer != NULL;
	}
}

static size_t read_body(char *to, size_t size, size_t count, void *arg)
{
	struct exchange *x = arg;
	if (x->q->expects) {
		static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
		x->q->expects = false;
		if (!send_all(x->s, go_on, sizeof go_on - 1)) return CURL_READFUNC_ABORT;
	}
	if (x->q->chunked && !x->body_left && !x->body_ended && !next_chunk(x)) return CURL_READFUNC_ABORT;
	if (!x->body_left) return 0;
	if (!x->s->in.n && recv_some(x->s) < 0) return CURL_READFUNC_ABORT;
	size_t n = min_of(min_of(size * count, x->s->in.n), (size_t)x->body_left);
	memcpy(to, x->s->in.p, n);
	buf_consume(&x->s->in, n);
	x->body_left -= (int64_t)n;
	return n;
}

/* ---- the answer ---- */

static bool has_body(const struct exchange *x)
{
	return strcmp(x->q->method, "HEAD") && x->status != 204 && x->status != 304 && x->status >= 200;
}

static const char *reason_of(long status)
{
	static const struct {
		long status;
		const char *text;
	} rows[] = {{200, "OK"},
		    {201, "Created"},
		    {202, "Accepted"},
		    {204, "No Content"},
		    {206, "Partial Content"},
		    {301, "Moved Permanently"},
		    {302, "Found"},
		    {303, "See Other"},
		    {304, "Not Modified"},
		    {307, "Temporary Redirect"},
		    {308, "Permanent Redirect"},
		    {400, "Bad Request"},
		    {401, "Unauthorized"},
		    {403, "Forbidden"},
		    {404, "Not Found"},
		    {500, "Internal Server Error"},
		    {502, "Bad Gateway"},
		    {503, "Service Unavailable"}};
	for (size_t i = 0; i < array_len(rows); i++)
		if (rows[i].status == status) return rows[i].text;
	return "Status";
}

/* Where a Location leads to. */
static void resolve_location(struct exchange *x)
{
	char *full = NULL;
	CURLU *u = x->location ? curl_url() : NULL;
	if (u && !curl_url_set(u, CURLUPART_URL, x->q->url, 0) && !curl_url_set(u, CURLUPART_URL, x->location, 0) &&
	    !curl_url_get(u, CURLUPART_URL, &full, 0)) {
		free(x->location);
		x->location = xstrdup(full);
	}
	curl_free(full);
	curl_url_cleanup(u);
}

static bool send_head(struct exchange *x)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	bool length = false;
	buf_addf(&b, "HTTP/1.1 %ld %s\r\n", x->status, reason_of(x->status));
	for (size_t i = 0; i < x->headers.n; i++) {
		length |= is_header(x->headers.v[i], "Content-Length", NULL);
		buf_addf(&b, "%s\r\n", x->headers.v[i]);
	}
	x->chunked = has_body(x) && !length && !x->q->http10;
	x->close = x->q->close || (has_body(x) && !length && !x->chunked);
	if (x->chunked) buf_adds(&b, "Transfer-Encoding: chunked\r\n");
	if (x->close) buf_adds(&b, "Connection: close\r\n");
	buf_adds(&b, "\r\n");
	x->sent = true;
	resolve_location(x);
	proxy_note_request(x->io->record, x->q->method, x->q->url, (int)x->status, x->location);
	return send_all(x->s, b.p, b.n);
}

static size_t on_header(char *p, size_t size, size_t count, void *arg)
{
	struct exchange *x = arg;
	size_t n = size * count, text = n;
	while (text && (p[text - 1] == '\n' || p[text - 1] == '\r')) text--;
	_cleanup_free_ char *h = xstrndup(p, text);
	const char *v;
	if (str_starts(h, "HTTP/")) { /* a head begins, perhaps after one of 1xx */
		strvec_fini(&x->headers);
		free(take_ptr(x->location));
		const char *sp = strchr(h, ' ');
		x->status = sp ? strtol(sp + 1, NULL, 10) : 0;
	} else if (text && !x->sent && x->headers.n < HEADERS_MAX && !stays_here(h)) {
		if (is_header(h, "Location", &v)) x->location = xstrdup(v);
		strvec_add(&x->headers, h);
	}
	return n;
}

static size_t on_body(char *p, size_t size, size_t count, void *arg)
{
	struct exchange *x = arg;
	size_t n = size * count;
	char head[24];
	if (!x->sent && !send_head(x)) return 0;
	hasher_update(&x->hash, p, n);
	int h = x->chunked ? snprintf(head, sizeof head, "%zx\r\n", n) : 0;
	if ((h && !send_all(x->s, head, (size_t)h)) || !send_all(x->s, p, n) || (h && !send_all(x->s, "\r\n", 2))) return 0;
	return n;
}

/* ---- the other side ---- */

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	return atomic_load(((struct exchange *)arg)->io->cancelled) ? 1 : 0;
}

/* A socket of the network namespace that requests leave by. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	const struct proxy_io *io = arg;
	_cleanup_close_ int home = -1;
	if (io->egress_fd >= 0) {
		home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
		if (home < 0 || setns(io->egress_fd, CLONE_NEWNET) < 0) return CURL_SOCKET_BAD;
	}
	int fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
	if (home >= 0 && setns(home, CLONE_NEWNET) < 0)
		bug("a thread cannot return to its network namespace: %s", strerror(errno));
	return fd < 0 ? CURL_SOCKET_BAD : fd;
}

static struct curl_slist *headers_up(const struct request *q, bool converted)
{
	struct curl_slist *l = NULL;
	bool accept = false;
	for (size_t i = 0; i < q->headers.n; i++) {
		const char *h = q->headers.v[i], *value = strchr(h, ':') + 1;
		if (is_header(h, "Host", NULL) && converted) continue;
		accept |= is_header(h, "Accept", NULL);
		_cleanup_free_ char *empty =
			xasprintf("%.*s;", (int)strcspn(h, ":"), h); /* how curl wants a header without a value */
		l = curl_slist_append(l, value[strspn(value, " \t")] ? h : empty);
	}
	if (!accept) l = curl_slist_append(l, "Accept:");
	return curl_slist_append(l, "Expect:");
}

static void set_method(CURL *c, struct exchange *x)
{
	const struct request *q = x->q;
	if (q->length || q->chunked) {
		curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, q->chunked ? (curl_off_t)-1 : (curl_off_t)q->length);
		curl_easy_setopt(c, CURLOPT_READFUNCTION, read_body);
		curl_easy_setopt(c, CURLOPT_READDATA, x);
	} else if (!strcmp(q->method, "HEAD")) {
		curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
	}
	if (strcmp(q->method, "GET") || q->length || q->chunked) curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, q->method);
}

static CURLcode fetch(CURL *c, struct exchange *x, const char *url, bool converted, char *why)
{
	struct curl_slist *headers = headers_up(x->q, converted);
	curl_easy_reset(c);
	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_PROXY, "");
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, why);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, x);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, x);
	curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, x->io);
	curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(c, CURLOPT_XFERINFODATA, x);
	set_method(c, x);
	CURLcode r = curl_easy_perform(c);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, NULL);
	curl_slist_free_all(headers);
	return r;
}

/* ---- one request ---- */

static const char *gap_of(const struct exchange *x, bool whole)
{
	if (strcmp(x->q->method, "GET")) return "method_not_materializable";
	if (x->q->range || x->status == 206) return "partial_response";
	if (!whole) return "body_read_failed";
	return x->status >= 400 ? "unsuccessful_response" : NULL;
}

static void judge(struct exchange *x, bool whole)
{
	struct digest d;
	const char *gap = gap_of(x, whole);
	hasher_final(&x->hash, &d);
	if (gap)
		proxy_note_gap(x->io->record, x->q->method, x->q->url, gap);
	else if (x->status >= 200 && x->status < 300)
		proxy_note_material(x->io->record, x->q->url, &d);
}

/* true: the connection can go on. */
static bool forward(CURL *c, struct proxy_io *io, struct stream *s, struct request *q)
{
	char why[CURL_ERROR_SIZE] = "";
	_cleanup_free_ char *asked = proxy_url(q->url), *target = io->check(io->ctx, q->method, asked);
	if (!target) {
		refuse(s, 403, "Forbidden", "Forbidden");
		return false;
	}
	bool converted = strcmp(target, asked) != 0;
	if (converted) {
		free(q->url);
		q->url = xstrdup(target);
	}
	struct exchange x = {.io = io, .s = s, .q = q, .body_left = q->chunked ? 0 : q->length};
	hasher_init(&x.hash);
	CURLcode r = fetch(c, &x, q->url, converted, why);
	bool whole = r == CURLE_OK;
	if (whole && !x.sent) whole = send_head(&x);
	if (whole && x.chunked) whole = send_all(s, "0\r\n\r\n", 5);
	if (!x.sent) {
		proxy_note_request(io->record, q->method, q->url, 502, NULL);
		proxy_note_gap(io->record, q->method, q->url, "upstream_error");
		hasher_fini(&x.hash);
		refuse(s, 502, "Bad Gateway", *why ? why : curl_easy_strerror(r));
	} else {
		judge(&x, whole);
	}
	bool drained = !x.body_left && (!q->chunked || x.body_ended);
	strvec_fini(&x.headers);
	free(x.location);
	return whole && drained && !x.close;
}

static char *url_in_tunnel(const struct request *q, const char *authority)
{
	return *q->target == '/' ? xasprintf("https://%s%s", authority, q->target) : NULL;
}

static char *url_plain(const struct request *q)
{
	if (str_starts(q->target, "http://") || str_starts(q->target, "https://")) return xstrdup(q->target);
	return *q->target == '/' && *host_of(q) ? xasprintf("http://%s%s", host_of(q), q->target) : NULL;
}

static void tunnel(CURL *c, struct proxy_io *io, struct stream *plain, const char *authority);

/* authority NULL: not in a tunnel. */
static void serve_requests(CURL *c, struct proxy_io *io, struct stream *s, const char *authority)
{
	for (bool more = true; more && !atomic_load(io->cancelled);) {
		struct request q = {0};
		more = read_request(s, &q);
		if (more && !authority && !strcmp(q.method, "CONNECT")) {
			tunnel(c, io, s, q.target);
			more = false;
		} else if (more) {
			q.url = authority ? url_in_tunnel(&q, authority) : url_plain(&q);
			more = q.url && forward(c, io, s, &q);
			if (!q.url) refuse(s, 400, "Bad Request", "this proxy takes absolute http:// URLs and CONNECT");
		}
		request_fini(&q);
	}
}

static void tunnel(CURL *c, struct proxy_io *io, struct stream *plain, const char *authority)
{
	static const char ok[] = "HTTP/1.1 200 Connection Established\r\n\r\n";
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_free_ char *host = xstrdup(authority);
	char *colon = strrchr(host, ':'), *name = host;
	if (colon && !strchr(colon, ']')) *colon = 0;
	if (*name == '[') name[strcspn(name, "]")] = 0, name++;
	SSL_CTX *ctx = proxy_ca_server(io->ca, name, &e);
	if (!ctx) {
		refuse(plain, 400, "Bad Request", e.msg);
		return;
	}
	struct stream s = {.fd = plain->fd, .ssl = SSL_new(ctx), .in = BUF_INIT};
	if (s.ssl && SSL_set_fd(s.ssl, s.fd) && send_all(plain, ok, sizeof ok - 1) && SSL_accept(s.ssl) == 1) {
		serve_requests(c, io, &s, authority);
		SSL_shutdown(s.ssl);
	}
	SSL_free(s.ssl);
	SSL_CTX_free(ctx);
	buf_fini(&s.in);
}

void proxy_serve(struct proxy_io *io)
{
	struct stream s = {.fd = io->fd, .in = BUF_INIT};
	CURL *c = curl_easy_init();
	if (c) serve_requests(c, io, &s, NULL);
	curl_easy_cleanup(c);
	shutdown(io->fd, SHUT_RDWR);
	buf_fini(&s.in);
}
