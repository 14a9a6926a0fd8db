/* One connection of the proxy between libcurl (which checks our certificates) and a small server: framing both ways, TLS, what
 * is written down, what is refused. */
#include "proxy/conn_job.h"
#include "proxy/proxy.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- the server: a line of what it got, framed as the path says ---- */

static void serve_one(int fd)
{
	char in[8192] = "", out[512], body[256];
	size_t n = 0;
	for (ssize_t r; !strstr(in, "\r\n\r\n") && (r = recv(fd, in + n, sizeof in - 1 - n, 0)) > 0; in[n += (size_t)r] = 0)
		continue;
	const char *end = strstr(in, "\r\n\r\n"), *path = strchr(in, '/');
	if (!end || !path) return;
	const char *last = strstr(in, "Transfer-Encoding: chunked") ? "0\r\n\r\n"
			   : strstr(in, "Content-Length: 3")        ? "xyz"
								    : "";
	for (ssize_t r; !strstr(end, last) && (r = recv(fd, in + n, sizeof in - 1 - n, 0)) > 0; in[n += (size_t)r] = 0)
		continue;
	bool hop = strstr(in, "Proxy-") != NULL;
	snprintf(body, sizeof body, "%.*s%s%s", (int)(path - in - 1), in, hop ? " hop" : "", strstr(end, "xyz") ? " xyz" : "");
	if (str_starts(path, "/chunked"))
		snprintf(out, sizeof out,
			 "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n%zx\r\n%s\r\n0\r\n\r\n",
			 strlen(body), body);
	else if (str_starts(path, "/end"))
		snprintf(out, sizeof out, "HTTP/1.1 200 OK\r\n\r\n%s", body);
	else if (str_starts(path, "/cut"))
		snprintf(out, sizeof out, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n%s", body);
	else if (str_starts(path, "/moved"))
		snprintf(out, sizeof out,
			 "HTTP/1.1 302 Found\r\nLocation: length\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
	else
		snprintf(out, sizeof out, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", strlen(body),
			 body);
	send(fd, out, strlen(out), MSG_NOSIGNAL);
}

static int listen_on(int *ret_port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(
		bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 9) || getsockname(fd, (struct sockaddr *)&a, &n), 0);
	*ret_port = ntohs(a.sin_port);
	return fd;
}

static void *server(void *arg)
{
	for (int fd; (fd = accept(*(int *)arg, NULL, NULL)) >= 0; close(fd)) serve_one(fd);
	return NULL;
}

/* ---- the proxy: one connection after the other ---- */

static struct proxy_ca *ca;
static struct proxy_record record;
static int web_port;
static const atomic_bool never;

/* https://site.test/x is fetched from our server. */
static char *check(void *ctx, const char *method, const char *url)
{
	if (strstr(url, "denied")) return NULL;
	const char *path = str_starts(url, "https://site.test/") ? url + strlen("https://site.test") : NULL;
	return path ? xasprintf("http://127.0.0.1:%d%s", web_port, path) : xstrdup(url);
}

static void *proxy(void *arg)
{
	for (int fd; (fd = accept(*(int *)arg, NULL, NULL)) >= 0; close(fd)) {
		struct proxy_io io = {
			.fd = fd, .ca = ca, .egress_fd = -1, .cancelled = &never, .check = check, .record = &record};
		proxy_serve(&io);
	}
	return NULL;
}

/* ---- the client ---- */

static size_t keep(char *p, size_t size, size_t n, void *arg)
{
	buf_add(arg, p, size * n);
	return size * n;
}

static CURL *client(int port)
{
	CURL *c = curl_easy_init();
	struct curl_blob pem = {(void *)proxy_ca_pem(ca), strlen(proxy_ca_pem(ca)), CURL_BLOB_COPY};
	_cleanup_free_ char *via = xasprintf("http://127.0.0.1:%d", port);
	curl_easy_setopt(c, CURLOPT_PROXY, via);
	curl_easy_setopt(c, CURLOPT_NOPROXY, "");
	curl_easy_setopt(c, CURLOPT_CAINFO_BLOB, &pem);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, keep);
	curl_easy_setopt(c, CURLOPT_TIMEOUT, 10L);
	return c;
}

/* "status body", or curl's error. */
static char *get(CURL *c, const char *url)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	long status = 0;
	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, &b);
	CURLcode r = curl_easy_perform(c);
	curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
	return r ? xasprintf("%s", curl_easy_strerror(r)) : xasprintf("%ld %s", status, buf_str(&b));
}

static size_t give(char *p, size_t size, size_t n, void *arg)
{
	const char **s = arg;
	size_t len = *s ? strlen(*s) : 0;
	memcpy(p, *s ? *s : "", len);
	*s = NULL;
	return len;
}

static void expect(CURL *c, const char *url, const char *what)
{
	_cleanup_free_ char *got = get(c, url);
	assert_string_equal(got, what);
}

static void test_proxy(void **state)
{
	int port, listener = listen_on(&port), web = listen_on(&web_port);
	pthread_t a, b;
	_cleanup_err_ struct err e = ERR_INIT;
	assert_int_equal(proxy_ca_new(&ca, &e), 0);
	pthread_create(&a, NULL, server, &web);
	pthread_create(&b, NULL, proxy, &listener);
	CURL *c = client(port);
	_cleanup_free_ char *base = xasprintf("http://127.0.0.1:%d", web_port), *len = xasprintf("%s/length", base),
			    *chunked = xasprintf("%s/chunked", base), *end = xasprintf("%s/end", base),
			    *cut = xasprintf("%s/cut", base), *moved = xasprintf("%s/moved", base),
			    *denied = xasprintf("%s/denied", base);
	expect(c, len, "200 GET");
	expect(c, chunked, "200 GET");
	expect(c, end, "200 GET");
	expect(c, moved, "302 ");
	expect(c, cut, curl_easy_strerror(CURLE_PARTIAL_FILE));
	expect(c, denied, "403 Forbidden\n");
	curl_easy_setopt(c, CURLOPT_POSTFIELDS, "xyz");
	expect(c, len, "200 POST xyz");
	const char *text = "xyz"; /* of unknown length: chunked */
	curl_easy_setopt(c, CURLOPT_POSTFIELDS, NULL);
	curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(c, CURLOPT_READFUNCTION, give);
	curl_easy_setopt(c, CURLOPT_READDATA, &text);
	expect(c, len, "200 PUT xyz");
	curl_easy_cleanup(c);

	c = client(port); /* TLS, checked by the client, two requests on one connection */
	expect(c, "https://site.test/length", "200 GET");
	expect(c, "https://site.test/chunked", "200 GET");
	expect(c, "https://site.test/denied", "403 Forbidden\n");
	expect(c, "https://nowhere.invalid/", "502 Could not resolve host: nowhere.invalid\n");
	curl_easy_cleanup(c);
	shutdown(listener, SHUT_RDWR);
	shutdown(web, SHUT_RDWR);
	pthread_join(a, NULL);
	pthread_join(b, NULL);

	proxy_record_redirects(&record);
	char get_digest[DIGEST_STR];
	digest_str_of("GET", 3, get_digest);
	_cleanup_free_ char *shown = xasprintf("http://127.0.0.1:%d/", web_port),
			    *moved_shown = xasprintf("%smoved", shown);
	assert_int_equal(record.materials.n, 6); /* length, chunked, end, two by TLS, moved */
	for (size_t i = 0; i < record.materials.n; i++) assert_string_equal(record.materials.v[i].digest, get_digest);
	assert_string_equal(record.materials.v[5].url, moved_shown);
	static const char *const gaps[] = {"body_read_failed", "method_not_materializable", "method_not_materializable",
					   "upstream_error"};
	assert_int_equal(record.gaps.n, array_len(gaps));
	for (size_t i = 0; i < record.gaps.n; i++) assert_string_equal(record.gaps.v[i].reason, gaps[i]);
	assert_int_equal(record.requests.n, 10);
	proxy_record_fini(&record);
	proxy_ca_free(ca);
	close(listener);
	close(web);
}

static void test_rubbish(void **state)
{
	static const char *const rows[] = {"\r\n\r\n",
					   "GET\r\n\r\n",
					   "GET / HTTP/2.0\r\n\r\n",
					   "GET http://x/ HTTP/1.1\r\n folded\r\n\r\n",
					   "POST http://x/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
					   "POST http://x/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
					   "GET ftp://x/ HTTP/1.1\r\n\r\n",
					   "GET / HTTP/1.1\r\n\r\n",
					   "CONNECT a,b:1 HTTP/1.1\r\n\r\n"};
	_cleanup_err_ struct err e = ERR_INIT;
	assert_int_equal(proxy_ca_new(&ca, &e), 0);
	for (size_t i = 0; i < array_len(rows); i++) {
		int fd[2];
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
		send(fd[0], rows[i], strlen(rows[i]), 0);
		shutdown(fd[0], SHUT_WR);
		struct proxy_io io = {
			.fd = fd[1], .ca = ca, .egress_fd = -1, .cancelled = &never, .check = check, .record = &record};
		proxy_serve(&io);
		char answer[64] = "";
		ssize_t n = recv(fd[0], answer, sizeof answer - 1, 0);
		if (n > 0 && !str_starts(answer, "HTTP/1.1 400 ")) fail_msg("%s: %s", rows[i], answer);
		close(fd[0]);
		close(fd[1]);
	}
	assert_int_equal(record.requests.n, 0);
	proxy_ca_free(ca);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_proxy), cmocka_unit_test(test_rubbish)};
	signal(SIGPIPE, SIG_IGN);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
