/* OTLP by curl: http/protobuf is a POST of the message; grpc is a POST of the framed message over HTTP/2, whose status comes in
 * the trailers. What the collector answers is read and dropped. Source: OTLP specification; gRPC over HTTP2. */
#include "tele/export_job.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { GRPC_HEAD = 5, GRPC_UNAVAILABLE = 14, GRPC_EXHAUSTED = 8, GRPC_DEADLINE = 4, MESSAGE_MAX = 200 };

struct answer {
	int grpc_status; /* -1: none came */
	char message[MESSAGE_MAX];
};

static size_t drop(char *p, size_t size, size_t n, void *arg) { return size * n; }

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
	struct answer *a = arg;
	size_t len = size * n;
	static const char status[] = "grpc-status:", message[] = "grpc-message:";
	if (len > sizeof status && !strncasecmp(p, status, sizeof status - 1)) {
		_cleanup_free_ char *v = xstrndup(p + sizeof status - 1, len - sizeof status + 1);
		a->grpc_status = atoi(v);
	} else if (len > sizeof message && !strncasecmp(p, message, sizeof message - 1)) {
		_cleanup_free_ char *v = utf8_clean(p + sizeof message - 1, len - sizeof message + 1);
		snprintf(a->message, sizeof a->message, "%.*s", (int)strcspn(v + strspn(v, " "), "\r\n"), v + strspn(v, " "));
	}
	return len;
}

static struct curl_slist *headers_of(const struct tele_send *s)
{
	struct curl_slist *h =
		curl_slist_append(NULL, s->grpc ? "Content-Type: application/grpc" : "Content-Type: application/x-protobuf");
	if (s->grpc) h = curl_slist_append(h, "TE: trailers");
	h = curl_slist_append(h, "Expect:");
	for (size_t i = 0; s->headers && i < s->headers->n; i++) h = curl_slist_append(h, s->headers->v[i]);
	return h;
}

static void set_options(struct tele_send *s, CURL *c, struct curl_slist *h, const void *body, size_t n, struct answer *a)
{
	curl_easy_reset(c); /* keeps connections */
	curl_easy_setopt(c, CURLOPT_URL, s->url);
	if (s->unix_path) curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, s->unix_path);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_USERAGENT, "slipwayd");
	curl_easy_setopt(c, CURLOPT_POST, 1L);
	curl_easy_setopt(c, CURLOPT_POSTFIELDS, body);
	curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)n);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, h);
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)s->timeout_ms);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, drop);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, a);
	curl_easy_setopt(c, CURLOPT_HTTP_VERSION,
			 !s->grpc                         ? CURL_HTTP_VERSION_1_1
			 : str_starts(s->url, "https://") ? CURL_HTTP_VERSION_2TLS
							  : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
	if (s->ca) curl_easy_setopt(c, CURLOPT_CAINFO, s->ca);
	if (s->cert) curl_easy_setopt(c, CURLOPT_SSLCERT, s->cert);
	if (s->key) curl_easy_setopt(c, CURLOPT_SSLKEY, s->key);
}

static void judge(struct tele_send *s, CURL *c, CURLcode rc, const struct answer *a)
{
	long status = 0;
	curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
	if (rc != CURLE_OK) {
		s->again = true;
		err_set(&s->error, CODE_UNAVAILABLE, "%s: %s", s->url, curl_easy_strerror(rc));
	} else if (status < 200 || status > 299) {
		s->again = status == 429 || (status >= 502 && status <= 504);
		err_set(&s->error, CODE_UNKNOWN, "%s: status %ld", s->url, status);
	} else if (s->grpc && a->grpc_status != 0) {
		s->again = a->grpc_status == GRPC_UNAVAILABLE || a->grpc_status == GRPC_EXHAUSTED ||
			   a->grpc_status == GRPC_DEADLINE;
		err_set(&s->error, CODE_UNKNOWN, "%s: grpc status %d: %s", s->url, a->grpc_status, a->message);
	}
}

void tele_send(struct tele_send *s)
{
	_cleanup_buf_ struct buf framed = BUF_INIT;
	struct answer a = {.grpc_status = -1};
	s->again = false;
	err_fini(&s->error);
	if (!s->curl) s->curl = curl_easy_init();
	if (!s->curl) {
		err_set(&s->error, CODE_INTERNAL, "curl_easy_init failed");
		return;
	}
	const void *body = s->body;
	size_t n = s->n;
	if (s->grpc) {
		const uint8_t head[GRPC_HEAD] = {0, (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};
		buf_add(&framed, head, sizeof head);
		buf_add(&framed, body, n);
		body = framed.p;
		n = framed.n;
	}
	struct curl_slist *h = headers_of(s);
	set_options(s, s->curl, h, body, n, &a);
	judge(s, s->curl, curl_easy_perform(s->curl), &a);
	curl_slist_free_all(h);
}

void tele_send_fini(struct tele_send *s)
{
	if (s->curl) curl_easy_cleanup(s->curl);
	s->curl = NULL;
	err_fini(&s->error);
}
