/* reg against a server that misbehaves: a tiny HTTP/1.1 server on two ports in threads of this process. Each test has a
 * repository of its own ("/v2/CASE/x/..."), whose rows in the table below say what is answered to which request. */
#include "reg/internal.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <cmocka.h>

enum { BLOB = 300000, MAX_SEEN = 64 };
static uint8_t blob[BLOB];
static char blob_digest[DIGEST_STR];
static int ports[2]; /* the origin, and another */

struct seen {
	int port;
	char method[8], path[512], head[2048];
	size_t body;
	uint8_t body_hash[DIGEST_BYTES];
};
static struct seen seen[MAX_SEEN];
static int seen_count;
static pthread_mutex_t seen_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- the server ---- */

static bool send_all(int fd, const void *p, size_t n)
{
	for (const char *s = p; n;) {
		ssize_t r = send(fd, s, n, MSG_NOSIGNAL);
		if (r <= 0) return false;
		s += r;
		n -= (size_t)r;
	}
	return true;
}

static bool answer(int fd, const char *status, const char *headers, const void *body, size_t n)
{
	_cleanup_free_ char *h = xasprintf("HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n", status, n, headers);
	return send_all(fd, h, strlen(h)) && send_all(fd, body, n);
}

static bool reset(int fd)
{
	struct linger l = {1, 0};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
	return false;
}

static bool endless(int fd, const char *head)
{
	if (!send_all(fd, head, strlen(head))) return false;
	while (send_all(fd, blob, sizeof blob)) continue;
	return false;
}

static bool has(const struct seen *q, const char *header) { return strcasestr(q->head, header) != NULL; }

static int count(const char *method, const char *part)
{
	int n = 0;
	pthread_mutex_lock(&seen_lock);
	for (int i = 0; i < seen_count; i++) n += strcmp(seen[i].method, method) == 0 && strstr(seen[i].path, part);
	pthread_mutex_unlock(&seen_lock);
	return n;
}

static bool is(const struct seen *q, const char *method, const char *prefix)
{
	return strcmp(q->method, method) == 0 && str_starts(q->path, prefix);
}

static bool serve_rest(int fd, const struct seen *q, bool with_range)
{
	const char *r = strcasestr(q->head, "range: bytes=");
	size_t from = r && with_range ? strtoul(r + 13, NULL, 10) : 0;
	_cleanup_free_ char *h = xasprintf("Content-Range: bytes %zu-%d/%d\r\n", from, BLOB - 1, BLOB);
	return answer(fd, from ? "206 Partial Content" : "200 OK", from ? h : "", blob + from, BLOB - from);
}

/* Half of what is asked for, then a reset. */
static bool serve_half(int fd)
{
	_cleanup_free_ char *h = xasprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", BLOB);
	send_all(fd, h, strlen(h));
	send_all(fd, blob, BLOB / 2);
	usleep(50000); /* a reset drops what was not read yet */
	return reset(fd);
}

static bool need_token(int fd, const char *scope, const char *more)
{
	_cleanup_free_ char *h =
		xasprintf("WWW-Authenticate: Bearer realm=\"http://127.0.0.1:%d/token\",service=\"s\",scope=\"%s\"%s\r\n",
			  ports[0], scope, more);
	return answer(fd, "401 Unauthorized", h, "", 0);
}

static bool serve_auth(int fd, const struct seen *q)
{
	if (is(q, "GET", "/token?")) {
		const char *t = strstr(q->path, "denied") ? "bad" : "good";
		_cleanup_free_ char *b = xasprintf("{\"token\":\"%s%d\",\"expires_in\":300}", t, count("GET", "/token?"));
		return answer(fd, "200 OK", "", b, strlen(b));
	}
	if (is(q, "GET", "/v2/redir/") || is(q, "GET", "/v2/expire/")) {
		_cleanup_free_ char *to = xasprintf("Location: http://127.0.0.1:%d/elsewhere?sig=1\r\n", ports[1]);
		if (!has(q, "authorization: bearer good")) return need_token(fd, "repository:redir/x:pull", "");
		return answer(fd, "307 Temporary Redirect", to, "", 0);
	}
	return need_token(fd, "repository:denied/x:pull", ",error=\"insufficient_scope\"");
}

static bool serve_push(int fd, const struct seen *q)
{
	_cleanup_free_ char *to = xasprintf("Location: http://127.0.0.1:%d/upload/1?state=a%%2Bb\r\n", ports[1]);
	if (is(q, "HEAD", "/")) return answer(fd, "404 Not Found", "", "", 0);
	if (is(q, "POST", "/v2/push/x/blobs/uploads/")) {
		if (!has(q, "authorization:")) return need_token(fd, "repository:push/x:pull,push", "");
		return answer(fd, "202 Accepted", to, "", 0);
	}
	if (is(q, "PUT", "/upload/1") && count("PUT", "/upload/1") == 1)
		return answer(fd, "500 Internal Server Error", "", "oops", 4);
	return answer(fd, "201 Created", "", "", 0);
}

/* False: close the connection. */
static bool serve(int fd, const struct seen *q)
{
	static const uint8_t wrong[BLOB];
	if (is(q, "GET", "/v2/half/")) return count("GET", "/v2/half/") == 1 ? serve_half(fd) : serve_rest(fd, q, true);
	if (is(q, "GET", "/v2/norange/")) return count("GET", "/v2/norange/") == 1 ? serve_half(fd) : serve_rest(fd, q, false);
	if (is(q, "GET", "/v2/busy/"))
		return count("GET", "/v2/busy/") == 1 ? answer(fd, "503 Service Unavailable", "Retry-After: 1\r\n", "", 0)
						      : serve_rest(fd, q, true);
	if (is(q, "GET", "/v2/down/")) return answer(fd, "503 Service Unavailable", "", "", 0);
	if (is(q, "GET", "/v2/mirror/wrong/")) return answer(fd, "200 OK", "", wrong, sizeof wrong);
	if (is(q, "GET", "/v2/mirror/limit/")) return answer(fd, "429 Too Many Requests", "Retry-After: 50\r\n", "", 0);
	if (is(q, "GET", "/v2/wrong/") || is(q, "GET", "/v2/limit/")) return serve_rest(fd, q, true);
	if (is(q, "GET", "/v2/big/")) return endless(fd, "HTTP/1.1 200 OK\r\n\r\n");
	if (is(q, "HEAD", "/v2/big/")) return answer(fd, "405 Method Not Allowed", "", "", 0);
	if (is(q, "GET", "/v2/hang/")) {
		usleep(5000000);
		return false;
	}
	if (is(q, "GET", "/v2/circle/")) return answer(fd, "302 Found", "Location: again\r\n", "", 0);
	if (is(q, "GET", "/v2/header/")) return endless(fd, "HTTP/1.1 200 OK\r\nX: ");
	if (is(q, "GET", "/v2/headers/")) {
		send_all(fd, "HTTP/1.1 200 OK\r\n", 17);
		while (send_all(fd, "X-Some-Header: with a value\r\n", 29)) continue;
		return false;
	}
	if (is(q, "GET", "/v2/garbage/")) {
		send_all(fd, "SSH-2.0-OpenSSH\r\n\r\n", 19);
		return false;
	}
	if (is(q, "GET", "/etag")) {
		if (has(q, "if-none-match: \"e1\"")) return answer(fd, "304 Not Modified", "", "", 0);
		return answer(fd, "200 OK", "ETag: \"e1\"\r\n", "hello", 5);
	}
	if (is(q, "GET", "/tothere")) {
		_cleanup_free_ char *to = xasprintf("Location: http://127.0.0.1:%d/elsewhere\r\n", ports[1]);
		return answer(fd, "302 Found", to, "", 0);
	}
	if (is(q, "GET", "/v2/foreign/")) {
		_cleanup_free_ char *to = xasprintf("Location: http://127.0.0.1:%d/greedy\r\n", ports[1]);
		return answer(fd, "302 Found", to, "", 0);
	}
	if (is(q, "GET", "/greedy")) return need_token(fd, "repository:foreign/x:pull", "");
	if (is(q, "GET", "/elsewhere")) return serve_rest(fd, q, true);
	if (strstr(q->path, "/v2/push/") || strstr(q->path, "/upload/")) return serve_push(fd, q);
	if (strstr(q->path, "/token?") || strstr(q->path, "/v2/redir/") || strstr(q->path, "/v2/expire/") ||
	    strstr(q->path, "/v2/denied/"))
		return serve_auth(fd, q);
	return answer(fd, "404 Not Found", "", "", 0);
}

static void read_body(FILE *in, struct seen *q)
{
	const char *cl = strcasestr(q->head, "content-length: ");
	struct hasher h;
	struct digest d;
	static _Thread_local uint8_t part[65536];
	hasher_init(&h);
	for (size_t left = cl ? strtoul(cl + 16, NULL, 10) : 0; left;) {
		size_t n = fread(part, 1, min_of(left, sizeof part), in);
		if (!n) break;
		hasher_update(&h, part, n);
		left -= n;
		q->body += n;
	}
	hasher_final(&h, &d);
	memcpy(q->body_hash, d.b, sizeof d.b);
}

static bool read_request(FILE *in, struct seen *q)
{
	char line[2048];
	if (!fgets(line, sizeof line, in) || sscanf(line, "%7s %511s", q->method, q->path) != 2) return false;
	while (fgets(line, sizeof line, in) && *line != '\r')
		if (strlen(q->head) + strlen(line) < sizeof q->head)
			strncat(q->head, line, sizeof q->head - strlen(q->head) - 1);
	read_body(in, q);
	return true;
}

struct conn {
	int fd, port;
};

static void *connection(void *arg)
{
	struct conn *c = arg;
	FILE *in = fdopen(dup(c->fd), "r");
	for (bool go = true; go;) {
		struct seen q = {.port = c->port};
		if (!read_request(in, &q)) break;
		pthread_mutex_lock(&seen_lock);
		if (seen_count < MAX_SEEN) seen[seen_count++] = q;
		pthread_mutex_unlock(&seen_lock);
		go = serve(c->fd, &q);
	}
	fclose(in);
	close(c->fd);
	free(c);
	return NULL;
}

static void *listener(void *arg)
{
	struct conn *l = arg;
	for (int fd; (fd = accept(l->fd, NULL, NULL)) >= 0;) {
		pthread_t t;
		struct conn *c = xnew(struct conn);
		*c = (struct conn){fd, l->port};
		pthread_create(&t, NULL, connection, c);
		pthread_detach(t);
	}
	return NULL;
}

static int start_server(void **state)
{
	static struct conn l[2];
	for (size_t i = 0; i < BLOB; i++) blob[i] = (uint8_t)(i * 2654435761u >> 13);
	digest_str_of(blob, BLOB, blob_digest);
	for (int i = 0; i < 2; i++) {
		struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		socklen_t n = sizeof a;
		pthread_t t;
		l[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (bind(l[i].fd, (void *)&a, sizeof a) || listen(l[i].fd, 16) || getsockname(l[i].fd, (void *)&a, &n))
			return -1;
		l[i].port = i;
		ports[i] = ntohs(a.sin_port);
		pthread_create(&t, NULL, listener, &l[i]);
		pthread_detach(t);
	}
	return 0;
}

/* ---- one test's client ---- */

struct fix {
	struct reg_client *client;
	struct reg_config *config;
	struct reg_io io;
	struct spec_ref ref;
	struct reg_desc desc;
	struct buf got;
	struct err e;
	int notes;
};

static void on_note(void *ctx, const char *line) { ((struct fix *)ctx)->notes++; }

static void fix_init(struct fix *f, const char *repo, const char *mirror)
{
	*f = (struct fix){.got = BUF_INIT, .e = ERR_INIT};
	_cleanup_free_ char *ref = xasprintf("127.0.0.1:%d/%s/x:t", ports[0], repo);
	assert_int_equal(spec_ref_parse(ref, &f->ref, &f->e), 0);
	if (mirror) {
		char *m = xasprintf("127.0.0.1:%d/%s", ports[0], mirror);
		f->config = reg_config_new(&(struct reg_host_conf){.name = f->ref.domain, .mirrors = &m, .mirror_count = 1}, 1);
		free(m);
	}
	f->client = reg_client_new();
	f->desc = (struct reg_desc){blob_digest, (char *)"application/vnd.oci.image.layer.v1.tar", BLOB};
	reg_io_init(&f->io, f->client, f->config);
	f->io.retry_first_ms = 20;
	f->io.retry_stop_ms = 100;
	f->io.note = on_note;
	f->io.note_ctx = f;
	pthread_mutex_lock(&seen_lock);
	seen_count = 0;
	memset(seen, 0, sizeof seen);
	pthread_mutex_unlock(&seen_lock);
}

static void fix_fini(struct fix *f)
{
	reg_io_fini(&f->io);
	reg_client_free(f->client);
	reg_config_unref(f->config);
	spec_ref_fini(&f->ref);
	buf_fini(&f->got);
	err_fini(&f->e);
}

static int fetch(struct fix *f)
{
	struct reg_sink sink = reg_sink_buf(&f->got);
	return reg_fetch_blob(&f->io, &f->ref, &f->desc, 0, &sink, &f->e);
}

static void check_blob(struct fix *f, int r)
{
	if (r < 0) print_error("%s\n", f->e.msg);
	assert_int_equal(r, 0);
	assert_int_equal(f->got.n, BLOB);
	assert_memory_equal(f->got.p, blob, BLOB);
}

static void check_err(struct fix *f, int r, enum code code, const char *part)
{
	assert_int_equal(r, -1);
	if (!strstr(f->e.msg, part) || f->e.code != code) print_error("%s: %s\n", err_code_name(f->e.code), f->e.msg);
	assert_int_equal(f->e.code, code);
	assert_non_null(strstr(f->e.msg, part));
}

static const struct seen *last(const char *path)
{
	for (int i = seen_count; i-- > 0;)
		if (str_starts(seen[i].path, path)) return &seen[i];
	fail_msg("%s was not asked for", path);
	return NULL;
}

/* ---- tests ---- */

static void resumes(void **state)
{
	struct fix f;
	fix_init(&f, "half", NULL);
	check_blob(&f, fetch(&f));
	assert_true(has(last("/v2/half"), "range: bytes=150000-"));
	assert_int_equal(f.notes, 0);
	fix_fini(&f);
	fix_init(&f, "norange", NULL);
	check_blob(&f, fetch(&f));
	fix_fini(&f);
}

static void waits(void **state)
{
	struct fix f;
	fix_init(&f, "busy", NULL);
	int64_t from = time_mono_ns();
	check_blob(&f, fetch(&f));
	assert_true(time_mono_ns() - from >= 1000000000);
	assert_int_equal(f.notes, 2);
	fix_fini(&f);
	fix_init(&f, "down", NULL);
	check_err(&f, fetch(&f), CODE_UNAVAILABLE, "unexpected status from GET request to http://127.0.0.1:");
	assert_non_null(strstr(f.e.msg, ": 503 Service Unavailable"));
	assert_int_equal(count("GET", "/v2/down"), 4); /* 20, 40, 80 ms */
	fix_fini(&f);
}

static int rewind_buf(void *ctx, struct err *e)
{
	buf_reset(ctx);
	return 0;
}

static void wrong_bytes(void **state)
{
	struct fix f;
	fix_init(&f, "wrong", "mirror");
	check_err(&f, fetch(&f), CODE_DATA_LOSS, "unexpected commit digest");
	fix_fini(&f);
	fix_init(&f, "wrong", "mirror");
	struct reg_sink sink = {reg_sink_buf(&f.got).write, rewind_buf, &f.got};
	check_blob(&f, reg_fetch_blob(&f.io, &f.ref, &f.desc, 0, &sink, &f.e));
	assert_int_equal(seen_count, 2);
	fix_fini(&f);
	fix_init(&f, "half", NULL); /* the descriptor says less: refused before a byte reaches the sink */
	f.desc.size = 1000;
	check_err(&f, fetch(&f), CODE_DATA_LOSS, "failed size validation");
	assert_int_equal(f.got.n, 0);
	fix_fini(&f);
	fix_init(&f, "big", NULL); /* nor may it be endless */
	check_err(&f, fetch(&f), CODE_DATA_LOSS, "more than the expected 300000 bytes");
	fix_fini(&f);
}

static void mirror_limit(void **state)
{
	struct fix f;
	fix_init(&f, "limit", "mirror");
	check_blob(&f, fetch(&f)); /* at once: nobody waits for a mirror */
	fix_fini(&f);
}

static void redirects(void **state)
{
	struct fix f;
	fix_init(&f, "redir", NULL);
	check_blob(&f, fetch(&f));
	assert_false(has(last("/elsewhere"), "authorization"));
	assert_int_equal(last("/elsewhere")->port, 1);
	assert_true(has(last("/v2/redir"), "authorization: bearer good1"));
	assert_int_equal(count("GET", "/token"), 1);
	buf_reset(&f.got);
	check_blob(&f, fetch(&f)); /* with the token that is known */
	assert_int_equal(count("GET", "/token"), 1);
	fix_fini(&f);
	fix_init(&f, "foreign", NULL); /* where a redirect leads, credentials are not for the asking */
	check_err(&f, fetch(&f), CODE_UNAUTHENTICATED, "/greedy: 401 Unauthorized");
	assert_int_equal(count("GET", "/token"), 0);
	fix_fini(&f);
	fix_init(&f, "circle", NULL);
	check_err(&f, fetch(&f), CODE_UNAVAILABLE, "stopped after 10 redirects");
	assert_int_equal(seen_count, 11);
	fix_fini(&f);
}

static void tokens(void **state)
{
	struct fix f;
	fix_init(&f, "expire", NULL); /* a cached token that is refused is replaced */
	_cleanup_free_ char *key = xasprintf("127.0.0.1:%d\n\nrepository:expire/x:pull", ports[0]);
	reg_token_put(f.client, key, "Bearer old", 60000);
	check_blob(&f, fetch(&f));
	assert_int_equal(count("GET", "/v2/expire"), 2);
	_cleanup_free_ char *now = reg_token_get(f.client, key);
	assert_string_equal(now, "Bearer good1");
	fix_fini(&f);
	fix_init(&f, "denied", NULL);
	check_err(&f, fetch(&f), CODE_PERMISSION_DENIED,
		  "pull access denied, repository does not exist or may require authorization: server message: "
		  "insufficient_scope: authorization failed");
	assert_int_equal(count("GET", "/token"), 1);
	fix_fini(&f);
}

static ssize_t read_blob(void *ctx, uint64_t offset, void *p, size_t n, struct err *e)
{
	n = min_of(n, BLOB - offset);
	memcpy(p, blob + offset, n);
	return (ssize_t)n;
}

static void pushes(void **state)
{
	struct fix f;
	struct reg_body body = {read_blob, NULL};
	enum reg_pushed how = REG_EXISTED;
	fix_init(&f, "push", NULL);
	int r = reg_push_blob(&f.io, &f.ref, &f.desc, &body, NULL, &how, &f.e);
	if (r < 0) print_error("%s\n", f.e.msg);
	assert_int_equal(r, 0);
	assert_int_equal(how, REG_PUSHED);
	assert_int_equal(count("PUT", "/upload/1"), 2); /* the first met a 500 */
	const struct seen *put = last("/upload/1");
	struct digest d = digest_of(blob, BLOB);
	assert_int_equal(put->body, BLOB);
	assert_memory_equal(put->body_hash, d.b, DIGEST_BYTES);
	assert_int_equal(put->port, 1);
	assert_false(has(put, "authorization"));
	assert_true(str_starts(put->path, "/upload/1?state=a%2Bb&digest=sha256%3A"));
	fix_fini(&f);
}

static void bounded(void **state)
{
	static const struct {
		const char *repo;
		enum code code;
		const char *text;
	} t[] = {
		{"headers", CODE_RESOURCE_EXHAUSTED, "response header is larger"},
		{"header", CODE_UNAVAILABLE, "Get \"http"}, /* curl's own limit for a line */
		{"garbage", CODE_UNAVAILABLE, "Get \"http"},
	};
	struct fix f;
	for (size_t i = 0; i < array_len(t); i++) {
		fix_init(&f, t[i].repo, NULL);
		check_err(&f, fetch(&f), t[i].code, t[i].text);
		fix_fini(&f);
	}
	fix_init(&f, "big", NULL);
	struct reg_desc d = {0};
	check_err(&f, reg_resolve(&f.io, &f.ref, &d, NULL, &f.e), CODE_RESOURCE_EXHAUSTED, "rejecting");
	fix_fini(&f);
}

static void *cancel_soon(void *arg)
{
	usleep(110000); /* just after a poll of 100 ms has begun anew */
	reg_io_cancel(arg);
	return NULL;
}

/* How long a fetch took that is cancelled after 110 ms: the best of five, as the machine may be busy. */
static int64_t cancelled_after_ms(const char *repo, unsigned pause_ms)
{
	int64_t best = INT64_MAX;
	for (int i = 0; i < 5 && best > 160; i++) {
		struct fix f;
		pthread_t t;
		fix_init(&f, repo, NULL);
		f.io.retry_first_ms = pause_ms;
		f.io.retry_stop_ms = 60000;
		int64_t from = time_mono_ns();
		pthread_create(&t, NULL, cancel_soon, &f.io);
		check_err(&f, fetch(&f), CODE_CANCELLED, "context canceled");
		best = min_of(best, (time_mono_ns() - from) / 1000000);
		pthread_join(t, NULL);
		fix_fini(&f);
	}
	return best;
}

static void cancels(void **state)
{
	struct fix f;
	atomic_bool flag = true;
	assert_in_range(cancelled_after_ms("hang", 20), 100, 160);
	assert_in_range(cancelled_after_ms("down", 5000), 100, 160); /* during a pause */
	fix_init(&f, "half", NULL);
	f.io.cancelled = &flag;
	check_err(&f, fetch(&f), CODE_CANCELLED, "context canceled");
	assert_int_equal(seen_count, 0);
	fix_fini(&f);
}

static void plain_http(void **state)
{
	struct fix f;
	struct reg_http_res res = {0};
	struct strvec headers = {0};
	fix_init(&f, "none", NULL);
	_cleanup_free_ char *url = xasprintf("http://127.0.0.1:%d/etag", ports[0]),
			    *there = xasprintf("http://127.0.0.1:%d/tothere", ports[0]);
	struct reg_sink sink = reg_sink_buf(&f.got);
	struct reg_http_req req = {.url = url, .headers = &headers, .sink = &sink};
	assert_int_equal(reg_http_do(&f.io, &req, &res, &f.e), 0);
	assert_int_equal(res.status, 200);
	assert_string_equal(reg_http_header(&res, "etag"), "\"e1\"");
	assert_string_equal(buf_str(&f.got), "hello");
	reg_http_res_fini(&res);
	strvec_add(&headers, "If-None-Match: \"e1\"");
	strvec_add(&headers, "Authorization: secret");
	assert_int_equal(reg_http_do(&f.io, &req, &res, &f.e), 0);
	assert_string_equal(res.reason, "304 Not Modified");
	reg_http_res_fini(&res);
	req.url = there;
	req.max_bytes = 1000;
	check_err(&f, reg_http_do(&f.io, &req, &res, &f.e), CODE_RESOURCE_EXHAUSTED, "more than the 1000 bytes allowed");
	assert_true(has(last("/tothere"), "authorization: secret"));
	assert_false(has(last("/elsewhere"), "authorization"));
	strvec_add(&headers, "X: a\r\nInjected: b");
	err_fini(&f.e);
	check_err(&f, reg_http_do(&f.io, &req, &res, &f.e), CODE_INVALID_ARGUMENT, "line break");
	strvec_fini(&headers);
	fix_fini(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(resumes),      cmocka_unit_test(waits),     cmocka_unit_test(wrong_bytes),
		cmocka_unit_test(mirror_limit), cmocka_unit_test(redirects), cmocka_unit_test(tokens),
		cmocka_unit_test(pushes),       cmocka_unit_test(bounded),   cmocka_unit_test(cancels),
		cmocka_unit_test(plain_http),
	};
	return cmocka_run_group_tests(tests, start_server, NULL);
}
