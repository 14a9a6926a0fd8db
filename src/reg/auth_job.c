/* Answering a registry's 401: which credentials or token, from where, and for how long. Blocks.
 *
 *  1. A token belongs to (host, identity, scopes); basic credentials to (host, identity). They are sent to that host only. The
 *     identity is that of the client whose credentials they come from, or the daemon's for a mirror with a file of them.
 *  2. A request fetches at most two tokens: one for what it needs, one more when the challenge names more than it held.
 *  3. A token that was cached and is refused is dropped and fetched anew; one that was just fetched and is refused is final.
 *  4. With credentials the daemon asks the realm by GET, then by OAuth's POST where GET is not served (POST first for an
 *     identity token, which GET cannot carry); without, by GET.
 * Source: BuildKit util/resolver/authorizer.go; containerd core/remotes/docker/auth; distribution spec/auth/{token,oauth}.md.
 */
#include "reg/internal.h"
#include <fcntl.h>
#include <jansson.h>
#include <string.h>

enum { DEFAULT_EXPIRES_S = 60, LONGEST_S = 24 * 3600, TOKEN_MAX = 1 << 20 };

struct bearer {
	char *token;
	int64_t expires_in_s, issued_at;
};

static void bearer_fini(struct bearer *b)
{
	if (b->token) explicit_bzero(b->token, strlen(b->token));
	free(b->token);
}

static void answer_fini(struct reg_answer *a)
{
	if (a->secret) explicit_bzero(a->secret, strlen(a->secret));
	free(a->user);
	free(a->secret);
	free(a->token);
}

static const char *identity_of(struct reg_authz *a)
{
	struct reg_io *io = a->io;
	if (!a->identity && a->host->credentials) a->identity = xasprintf("\t%s", a->host->credentials);
	if (!a->identity && io->identity) a->identity = io->identity(io->auth_ctx, a->host->host);
	if (!a->identity) a->identity = xstrdup(io->authority ? io->authority : "");
	return a->identity;
}

static char *cache_key(struct reg_authz *a, const char *what)
{
	return xasprintf("%s\n%s\n%s", a->host->host, identity_of(a), what);
}

static void use_cached(struct reg_authz *a, char *key)
{
	a->value = reg_token_get(a->io->client, key);
	if (a->value)
		a->key = key;
	else
		free(key);
}

void reg_authz_init(struct reg_authz *a, struct reg_io *io, const struct reg_host *host, const struct strvec *scopes)
{
	*a = (struct reg_authz){.io = io, .host = host, .scopes = scopes};
	if (!scopes || !host || !reg_token_any(io->client, host->host)) return;
	_cleanup_free_ char *joined = strvec_join(scopes, " ");
	use_cached(a, cache_key(a, joined));
	if (!a->value) use_cached(a, cache_key(a, "basic"));
	if (a->value) strvec_copy(&a->held, scopes->v, scopes->n);
}

void reg_authz_fini(struct reg_authz *a)
{
	if (a->value) explicit_bzero(a->value, strlen(a->value));
	free(a->value);
	free(a->key);
	free(a->identity);
	strvec_fini(&a->held);
}

/* ---- the realm ---- */

static void form_add(struct buf *b, const char *key, const char *value)
{
	char *v = curl_easy_escape(NULL, value, (int)strlen(value));
	buf_addf(b, "%s%s=%s", b->n ? "&" : "", key, v ? v : "");
	curl_free(v);
}

static int to_buf(void *ctx, const void *p, size_t n, struct err *e)
{
	struct buf *b = ctx;
	return buf_add(b, p, n) < 0 ? err_set(e, CODE_RESOURCE_EXHAUSTED, "token answer is larger than %zu bytes", b->max) : 0;
}

static int token_parse(const struct buf *b, struct bearer *ret, struct err *e)
{
	json_error_t je;
	json_t *root = json_loadb(buf_str(b), b->n, 0, &je);
	if (!root) return err_set(e, CODE_UNKNOWN, "unable to decode token response: %s", je.text);
	const char *token = json_string_value(json_object_get(root, "access_token"));
	if (str_empty(token)) token = json_string_value(json_object_get(root, "token"));
	const char *issued = json_string_value(json_object_get(root, "issued_at"));
	json_t *expires = json_object_get(root, "expires_in");
	struct timespec at = {0};
	if (!str_empty(issued)) (void)time_parse_rfc3339(issued, &at, NULL);
	int r = 0;
	if (str_empty(token))
		r = err_set(e, CODE_UNAUTHENTICATED, "authorization server did not include a token in the response");
	else
		*ret = (struct bearer){xstrdup(token), json_is_number(expires) ? (int64_t)json_number_value(expires) : 0,
				       at.tv_sec};
	json_decref(root);
	return r;
}

/* ret_status is set when the realm answered otherwise than with 2xx. */
static int ask_realm(struct reg_authz *a, struct reg_request *rq, long *ret_status, struct bearer *ret, struct reg_fail *f,
		     struct err *e)
{
	_cleanup_reg_http_res_ struct reg_http_res res = {0};
	_cleanup_buf_ struct buf body = BUF_MAX(TOKEN_MAX);
	struct reg_host realm = *a->host; /* its authorities; its client certificates stay with the host itself */
	_cleanup_free_ char *host = reg_url_host(rq->url);
	realm.fallback = false;
	rq->io = a->io;
	rq->host = str_eq(host, realm.host) ? a->host : &realm;
	rq->on_data = to_buf;
	rq->ctx = &body;
	rq->decode = true;
	if (reg_request(rq, &res, f, e) < 0) return -1;
	if (res.status < 200 || res.status > 299) {
		*ret_status = res.status;
		return reg_status_err(rq, &res, f, e);
	}
	f->kind = FAIL_NETWORK;
	return token_parse(&body, ret, e);
}

static int by_get(struct reg_authz *a, const struct reg_auth *c, const struct strvec *scopes, const struct reg_answer *ans,
		  long *ret_status, struct bearer *ret, struct reg_fail *f, struct err *e)
{
	_cleanup_buf_ struct buf query = BUF_INIT, basic = BUF_INIT, plain = BUF_INIT;
	const char *realm = reg_auth_get(c, "realm"), *service = reg_auth_get(c, "service");
	if (*service) form_add(&query, "service", service);
	for (size_t i = 0; i < scopes->n; i++) form_add(&query, "scope", scopes->v[i]);
	_cleanup_free_ char *url =
		query.n ? xasprintf("%s%c%s", realm, strchr(realm, '?') ? '&' : '?', buf_str(&query)) : xstrdup(realm);
	if (!str_empty(ans->secret)) {
		buf_addf(&plain, "%s:%s", ans->user ? ans->user : "", ans->secret);
		buf_adds(&basic, "Basic ");
		base64_encode(&basic, plain.p, plain.n);
	}
	struct reg_request rq = {.method = "GET", .url = url, .authorization = basic.n ? buf_str(&basic) : NULL};
	return ask_realm(a, &rq, ret_status, ret, f, e);
}

static ssize_t from_buf(void *ctx, uint64_t offset, void *p, size_t n, struct err *e)
{
	const struct buf *b = ctx;
	n = min_of(n, b->n - offset);
	memcpy(p, b->p + offset, n);
	return (ssize_t)n;
}

static int by_post(struct reg_authz *a, const struct reg_auth *c, const struct strvec *scopes, const struct reg_answer *ans,
		   long *ret_status, struct bearer *ret, struct reg_fail *f, struct err *e)
{
	_cleanup_buf_ struct buf form = BUF_INIT;
	_cleanup_strvec_ struct strvec headers = {0};
	_cleanup_free_ char *joined = strvec_join(scopes, " ");
	if (scopes->n) form_add(&form, "scope", joined);
	form_add(&form, "service", reg_auth_get(c, "service"));
	form_add(&form, "client_id", "buildkit-client");
	bool identity = str_empty(ans->user);
	form_add(&form, "grant_type", identity ? "refresh_token" : "password");
	if (!identity) form_add(&form, "username", ans->user);
	form_add(&form, identity ? "refresh_token" : "password", ans->secret);
	strvec_add(&headers, "Content-Type: application/x-www-form-urlencoded; charset=utf-8");
	struct reg_body body = {from_buf, &form};
	struct reg_request rq = {
		.method = "POST", .url = reg_auth_get(c, "realm"), .headers = &headers, .body = &body, .body_bytes = form.n};
	return ask_realm(a, &rq, ret_status, ret, f, e);
}

static int ask_with_creds(struct reg_authz *a, const struct reg_auth *c, const struct strvec *scopes,
			  const struct reg_answer *ans, bool post_first, struct bearer *ret, struct reg_fail *f, struct err *e)
{
	__typeof__(by_get) *first = by_get, *second = by_post;
	long status = 0;
	if (str_empty(ans->user) || post_first) {
		first = by_post;
		second = by_get;
	}
	int r = first(a, c, scopes, ans, &status, ret, f, e);
	if (r < 0 && (status == 405 || status == 404 || status == 401)) {
		err_fini(e);
		r = second(a, c, scopes, ans, &status, ret, f, e);
	}
	return r < 0 ? err_wrap(e, "failed to fetch oauth token") : 0;
}

/* ---- what the client says ---- */

/* The daemon's own credentials for a mirror: a file of one line USER:PASSWORD. */
static int from_file(const char *path, struct reg_answer *ret, struct err *e)
{
	_cleanup_free_ uint8_t *p = NULL;
	size_t n;
	if (path_read_file(AT_FDCWD, path, 64 << 10, &p, &n, e) < 0) return err_wrap(e, "credentials of the mirror");
	char *line = (char *)p;
	line[strcspn(line, "\r\n")] = 0;
	char *colon = strchr(line, ':');
	if (colon)
		*ret = (struct reg_answer){
			.kind = REG_CREDS, .user = xstrndup(line, (size_t)(colon - line)), .secret = xstrdup(colon + 1)};
	explicit_bzero(p, n);
	return colon ? 0
		     : err_set(e, CODE_FAILED_PRECONDITION, "credentials of the mirror: %s: one line USER:PASSWORD is expected",
			       path);
}

static int ask_client(struct reg_authz *a, const struct reg_auth *c, const struct strvec *scopes, struct reg_answer *ret,
		      struct reg_fail *f, struct err *e)
{
	struct reg_challenge ch = {
		.host = a->host->host,
		.basic = !c->bearer,
		.realm = reg_auth_get(c, "realm"),
		.service = reg_auth_get(c, "service"),
		.scopes = (const char *const *)scopes->v,
		.scope_count = scopes->n,
	};
	*ret = (struct reg_answer){.kind = REG_ANONYMOUS};
	if (a->host->credentials) {
		*f = (struct reg_fail){.kind = FAIL_NETWORK};
		return from_file(a->host->credentials, ret, e);
	}
	if (!a->io->auth || a->io->auth(a->io->auth_ctx, &ch, ret, e) >= 0) return 0;
	*f = (struct reg_fail){.kind = FAIL_FINAL};
	return err_wrap(e, "failed to authorize");
}

static int64_t valid_ms(const struct bearer *b)
{
	int64_t now = (int64_t)time_now().tv_sec;
	int64_t life = min_of(b->expires_in_s > 0 ? b->expires_in_s : DEFAULT_EXPIRES_S, (int64_t)LONGEST_S) * 900;
	int64_t age_s = b->issued_at > 0 ? now - b->issued_at : 0;
	if (age_s < 0 || age_s > LONGEST_S || age_s * 1000 >= life) age_s = 0; /* the clocks differ */
	return life - age_s * 1000;
}

static void keep(struct reg_authz *a, char *key, char *value, int64_t ms)
{
	reg_token_put(a->io->client, key, value, ms);
	free(a->key);
	free(a->value);
	a->key = key;
	a->value = value;
	a->fetched++;
}

static int get_bearer(struct reg_authz *a, const struct reg_auth *c, struct strvec *scopes, struct reg_fail *f, struct err *e)
{
	_cleanup_(answer_fini) struct reg_answer ans = {0};
	_cleanup_(bearer_fini) struct bearer b = {0};
	long status = 0;
	int r = 0;
	if (!*reg_auth_get(c, "realm")) {
		*f = (struct reg_fail){.kind = FAIL_NETWORK};
		return err_set(e, CODE_UNAUTHENTICATED, "no realm specified for token auth challenge");
	}
	if (ask_client(a, c, scopes, &ans, f, e) < 0) return -1;
	if (ans.kind == REG_TOKEN && !str_empty(ans.token))
		b = (struct bearer){take_ptr(ans.token), ans.expires_in_s, ans.issued_at};
	else if (ans.kind == REG_CREDS && !str_empty(ans.secret))
		r = ask_with_creds(a, c, scopes, &ans, false, &b, f, e);
	else if (by_get(a, c, scopes, &ans, &status, &b, f, e) < 0)
		r = err_wrap(e, "failed to fetch anonymous token");
	if (r < 0) return err_wrap(e, "failed to authorize");
	_cleanup_free_ char *joined = strvec_join(a->scopes, " ");
	keep(a, cache_key(a, joined), xasprintf("Bearer %s", b.token), valid_ms(&b));
	strvec_fini(&a->held);
	a->held = *scopes;
	*scopes = (struct strvec){0};
	return 1;
}

static int get_basic(struct reg_authz *a, const struct reg_auth *c, struct reg_fail *f, struct err *e)
{
	_cleanup_(answer_fini) struct reg_answer ans = {0};
	_cleanup_buf_ struct buf plain = BUF_INIT, value = BUF_INIT;
	if (a->fetched) return 0;
	if (ask_client(a, c, &(struct strvec){0}, &ans, f, e) < 0) return -1;
	if (ans.kind != REG_CREDS || str_empty(ans.user) || str_empty(ans.secret)) return 0;
	buf_addf(&plain, "%s:%s", ans.user, ans.secret);
	buf_adds(&value, "Basic ");
	base64_encode(&value, plain.p, plain.n);
	keep(a, cache_key(a, "basic"), buf_take_str(&value), (int64_t)DEFAULT_EXPIRES_S * 10 * 1000);
	return 1;
}

/* A token was fetched for this request and refused all the same: is another with more scopes worth it? */
static int refused(struct reg_authz *a, const struct reg_auth *c, const struct strvec *wanted, struct reg_fail *f,
		   struct err *e)
{
	const char *said = reg_auth_get(c, "error");
	if (a->fetched < 2 && !reg_scopes_contain(&a->held, wanted)) return 1;
	reg_token_drop(a->io->client, a->key, a->value);
	if (!*said) return 0;
	*f = (struct reg_fail){.kind = FAIL_AUTH, .status = 401};
	return err_set(e, CODE_PERMISSION_DENIED, "server message: %s: authorization failed", said);
}

static bool choose(const struct reg_http_res *r, struct reg_auth *ret)
{
	bool found = false;
	for (size_t i = 0; i < r->names.n; i++) {
		struct reg_auth c = {0};
		if (!str_eq(r->names.v[i], "www-authenticate") || !reg_auth_parse(r->values.v[i], &c)) continue;
		if (!found || (c.bearer && !ret->bearer)) {
			if (found) reg_auth_fini(ret);
			*ret = c;
			found = true;
		} else {
			reg_auth_fini(&c);
		}
	}
	return found;
}

int reg_authz_challenge(struct reg_authz *a, const struct reg_http_res *res, struct reg_fail *f, struct err *e)
{
	_cleanup_(reg_auth_fini) struct reg_auth c = {0};
	_cleanup_strvec_ struct strvec scopes = {0};
	if (!a->scopes || !choose(res, &c)) return 0;
	if (a->value && !a->fetched) reg_token_drop(a->io->client, a->key, a->value);
	if (!c.bearer) return get_basic(a, &c, f, e);
	reg_scopes_add(&scopes, reg_auth_get(&c, "scope"));
	if (a->fetched) {
		int r = refused(a, &c, &scopes, f, e);
		if (r <= 0) return r;
	}
	for (size_t i = 0; i < a->scopes->n; i++) reg_scopes_add(&scopes, a->scopes->v[i]);
	for (size_t i = 0; i < a->held.n; i++) reg_scopes_add(&scopes, a->held.v[i]);
	return get_bearer(a, &c, &scopes, f, e);
}

/* ---- for the client, which fetches tokens on the daemon's behalf ---- */

int reg_fetch_token(struct reg_io *io, const struct reg_token_req *req, struct reg_answer *ret, struct err *e)
{
	_cleanup_reg_hosts_ struct reg_hosts hosts = {0};
	_cleanup_strvec_ struct strvec scopes = {0};
	_cleanup_(bearer_fini) struct bearer b = {0};
	struct reg_auth_param params[] = {{(char *)"realm", (char *)req->realm}, {(char *)"service", (char *)req->service}};
	struct reg_auth c = {.bearer = true, .v = params, .n = array_len(params)};
	struct reg_answer ans = {.user = (char *)req->user, .secret = (char *)req->secret};
	struct reg_fail f;
	long status = 0;
	reg_hosts_of(io->config, req->host, &hosts);
	strvec_copy(&scopes, (char *const *)req->scopes, req->n_scopes);
	struct reg_host host = hosts.v[hosts.n - 1];
	host.host = (char *)req->host;
	struct reg_authz a = {.io = io, .host = &host};
	int r = str_empty(req->secret) ? by_get(&a, &c, &scopes, &ans, &status, &b, &f, e)
				       : ask_with_creds(&a, &c, &scopes, &ans, true, &b, &f, e);
	if (r < 0) return str_empty(req->secret) ? err_wrap(e, "failed to fetch anonymous token") : -1;
	*ret = (struct reg_answer){.kind = REG_TOKEN,
				   .token = take_ptr(b.token),
				   .issued_at = b.issued_at,
				   .expires_in_s = b.expires_in_s ? b.expires_in_s : DEFAULT_EXPIRES_S};
	return 0;
}
