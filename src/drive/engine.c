/* Docker's contexts, and requests by libcurl: a handle a request, since a client makes a few and ends.
 * Answers are small but for a pull's stream of messages; what is kept of them is bounded. */
#include "drive/engine.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <string.h>

enum { ANSWER_MAX = 8 << 20, META_MAX = 1 << 20, TIMEOUT_S = 60, CONNECT_S = 20 };
#define DEFAULT_HOST "unix:///var/run/docker.sock"

void drive_engine_fini(struct drive_engine *at)
{
	for (char **const *p = (char **const[]){&at->name, &at->host, &at->ca, &at->cert, &at->key, NULL}; *p; p++)
		free(take_ptr(**p));
}

void drive_engine_copy(struct drive_engine *dst, const struct drive_engine *src)
{
	*dst = (struct drive_engine){.name = xstrdup(src->name),
				     .host = xstrdup(src->host),
				     .ca = xstrdup(src->ca),
				     .cert = xstrdup(src->cert),
				     .key = xstrdup(src->key),
				     .insecure = src->insecure};
}

const char *drive_engine_key(const struct drive_engine *at) { return strcmp(at->name, "default") ? at->name : at->host; }

/* ---- where ---- */

static char *config_dir(void)
{
	const char *own = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
	return !str_empty(own) ? xstrdup(own) : xasprintf("%s/.docker", home ? home : "");
}

static json_t *read_json(const char *path)
{
	_cleanup_free_ uint8_t *p = NULL;
	size_t n;
	if (path_read_file(AT_FDCWD, path, META_MAX, &p, &n, NULL) < 0) return NULL;
	return json_loadb((const char *)p, n, 0, NULL);
}

static char *existing(char *path)
{
	if (access(path, R_OK) == 0) return path;
	free(path);
	return NULL;
}

static void take_certs(struct drive_engine *at, const char *dir)
{
	at->ca = existing(xasprintf("%s/ca.pem", dir));
	at->cert = existing(xasprintf("%s/cert.pem", dir));
	at->key = existing(xasprintf("%s/key.pem", dir));
}

static int check_host(const char *host, struct err *e)
{
	if (str_starts(host, "unix:///") || (str_starts(host, "tcp://") && host[6])) return 0;
	return err_set(
		e, CODE_INVALID_ARGUMENT,
		"cannot reach a docker engine at \"%s\": an address is unix:///path or tcp://host:port; for ssh use a docker "
		"CLI and its context, or --driver remote",
		host);
}

static int from_environment(struct drive_engine *at, struct err *e)
{
	const char *host = getenv("DOCKER_HOST"), *verify = getenv("DOCKER_TLS_VERIFY"), *certs = getenv("DOCKER_CERT_PATH");
	at->name = xstrdup("default");
	at->host = xstrdup(str_empty(host) ? DEFAULT_HOST : host);
	if (str_starts(at->host, "tcp://") && (!str_empty(verify) || !str_empty(getenv("DOCKER_TLS")))) {
		_cleanup_free_ char *dir = str_empty(certs) ? config_dir() : xstrdup(certs);
		take_certs(at, dir);
		at->insecure = str_empty(verify);
	}
	return check_host(at->host, e);
}

static int from_context(const char *name, struct drive_engine *at, struct err *e)
{
	char hex[65];
	_cleanup_free_ char *dir = config_dir();
	struct digest id = digest_of(name, strlen(name));
	digest_hex(&id, hex);
	_cleanup_free_ char *meta = xasprintf("%s/contexts/meta/%s/meta.json", dir, hex);
	json_t *o = read_json(meta), *docker = json_object_get(json_object_get(o, "Endpoints"), "docker");
	const char *host = json_string_value(json_object_get(docker, "Host"));
	if (!host) {
		json_decref(o);
		return err_set(e, CODE_NOT_FOUND, "docker context \"%s\" does not exist (%s)", name, meta);
	}
	_cleanup_free_ char *certs = xasprintf("%s/contexts/tls/%s/docker", dir, hex);
	at->name = xstrdup(name);
	at->host = xstrdup(host);
	at->insecure = json_is_true(json_object_get(docker, "SkipTLSVerify"));
	json_decref(o);
	if (str_starts(at->host, "tcp://")) take_certs(at, certs);
	return check_host(at->host, e);
}

static int current(struct drive_engine *at, struct err *e)
{
	const char *context = getenv("DOCKER_CONTEXT");
	if (!str_empty(getenv("DOCKER_HOST"))) return from_environment(at, e);
	if (!str_empty(context)) return strcmp(context, "default") ? from_context(context, at, e) : from_environment(at, e);
	_cleanup_free_ char *dir = config_dir(), *path = xasprintf("%s/config.json", dir);
	json_t *o = read_json(path);
	const char *name = json_string_value(json_object_get(o, "currentContext"));
	int rv = str_empty(name) || !strcmp(name, "default") ? from_environment(at, e) : from_context(name, at, e);
	json_decref(o);
	return rv;
}

int drive_engine_find(const char *what, struct drive_engine *ret, struct err *e)
{
	struct drive_engine at = {0};
	int rv;
	if (str_empty(what))
		rv = current(&at, e);
	else if (!strcmp(what, "default"))
		rv = from_environment(&at, e);
	else if (strstr(what, "://")) {
		struct drive_engine env = {0};
		if (from_environment(&env, NULL) == 0 && !strcmp(env.host, what)) { /* its certificates too */
			*ret = env;
			return 0;
		}
		drive_engine_fini(&env);
		at.name = xstrdup("default");
		at.host = xstrdup(what);
		rv = check_host(what, e);
	} else
		rv = from_context(what, &at, e);
	if (rv == 0)
		*ret = at;
	else
		drive_engine_fini(&at);
	return rv;
}

/* ---- asking ---- */

CURL *drive_engine_curl(const struct drive_engine *at, const char *path, struct err *e)
{
	static bool ready;
	if (!ready) ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
	CURL *h = curl_easy_init();
	if (!h) {
		err_set(e, CODE_INTERNAL, "curl_easy_init");
		return NULL;
	}
	bool tls = at->ca || at->cert || at->key || at->insecure, local = str_starts(at->host, "unix://");
	_cleanup_free_ char *url =
		xasprintf("%s://%s%s", tls && !local ? "https" : "http", local ? "localhost" : at->host + 6, path);
	curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(h, CURLOPT_PROXY, "");
	curl_easy_setopt(h, CURLOPT_URL, url);
	curl_easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
	if (local) curl_easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, at->host + 7);
	if (at->ca) curl_easy_setopt(h, CURLOPT_CAINFO, at->ca);
	if (at->cert) curl_easy_setopt(h, CURLOPT_SSLCERT, at->cert);
	if (at->key) curl_easy_setopt(h, CURLOPT_SSLKEY, at->key);
	if (at->insecure) {
		curl_easy_setopt(h, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(h, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	return h;
}

static size_t take_answer(char *p, size_t size, size_t n, void *arg)
{
	buf_add(arg, p, size * n); /* past the maximum the rest is dropped */
	return size * n;
}

int drive_engine_status(long status, const char *answer, size_t n, struct err *e)
{
	json_t *o = json_loadb(answer, n, 0, NULL);
	const char *m = json_string_value(json_object_get(o, "message"));
	enum code code = status == 404 ? CODE_NOT_FOUND : status == 409 ? CODE_ALREADY_EXISTS : CODE_UNKNOWN;
	if (m)
		err_set(e, code, "%s", m);
	else
		err_set(e, code, "docker engine: status %ld", status);
	json_decref(o);
	return -1;
}

/* The last of the messages that stand one behind the other; an "error" of any counts. */
static int last_message(const struct buf *b, json_t **ret, struct err *e)
{
	const char *p = buf_str(b), *end = p + b->n;
	json_t *last = NULL;
	int rv = 0;
	while (p < end && rv == 0) {
		json_error_t why;
		json_t *o = json_loadb(p, (size_t)(end - p), JSON_DISABLE_EOF_CHECK, &why);
		if (!o) break;
		const char *m = json_is_object(o) ? json_string_value(json_object_get(o, "error")) : NULL;
		if (!str_empty(m)) rv = err_set(e, CODE_UNKNOWN, "%s", m);
		json_decref(last);
		last = o;
		p += max_of(why.position, 1);
	}
	if (rv == 0 && ret) *ret = take_ptr(last);
	json_decref(last);
	return rv;
}

int drive_engine_call(const struct drive_engine *at, const struct drive_request *q, json_t **ret, struct err *e)
{
	_cleanup_buf_ struct buf answer = BUF_MAX(ANSWER_MAX);
	long status = 0;
	if (ret) *ret = NULL;
	CURL *h = drive_engine_curl(at, q->path, e);
	if (!h) return -1;
	_cleanup_free_ char *type = xasprintf("Content-Type: %s", q->type ? q->type : "application/json"),
			    *auth = q->auth ? xasprintf("X-Registry-Auth: %s", q->auth) : NULL;
	struct curl_slist *headers = curl_slist_append(curl_slist_append(NULL, "Expect:"), type);
	if (auth) headers = curl_slist_append(headers, auth);
	curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(h, CURLOPT_TIMEOUT, (long)(q->timeout_s ? q->timeout_s : TIMEOUT_S));
	curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, take_answer);
	curl_easy_setopt(h, CURLOPT_WRITEDATA, q->raw ? q->raw : &answer);
	if (strcmp(q->method, "GET") != 0) {
		curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->n_body);
		curl_easy_setopt(h, CURLOPT_POSTFIELDS, q->body ? q->body : "");
		curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, q->method);
	}
	CURLcode code = curl_easy_perform(h);
	curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_cleanup(h);
	curl_slist_free_all(headers);
	if (code != CURLE_OK)
		return err_set(e, CODE_UNAVAILABLE, "failed to connect to the docker API at %s: %s", at->host,
			       curl_easy_strerror(code));
	if (status >= 400) return drive_engine_status(status, buf_str(&answer), answer.n, e);
	return last_message(&answer, ret, e);
}

int drive_engine_post(const struct drive_engine *at, const char *path, json_t *body, json_t **ret, struct err *e)
{
	_cleanup_free_ char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	json_decref(body);
	struct drive_request q = {.method = "POST", .path = path, .body = text, .n_body = text ? strlen(text) : 0};
	return drive_engine_call(at, &q, ret, e);
}
