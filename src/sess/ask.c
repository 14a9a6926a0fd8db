/* Questions with one answer: credentials, tokens, secrets, agents, blobs' sizes, and any unary method.
 * An ask is one call; it ends with the call, and then its `finish` turns the answer's bytes into the caller's callback.
 * Source: BuildKit session/{auth,secrets,sshforward,content}; reference 02 §6-8, §10. */
#include "proto/content.pb-c.h"
#include "proto/filesync.pb-c.h"
#include "proto/secrets.pb-c.h"
#include "proto/ssh.pb-c.h"
#include "sess/internal.h"

enum { AUTH_MS = 60000, SECRET_MAX = 500 << 10 };

static void ask_over(void *arg)
{
	struct sess_ask *a = arg;
	bool bad = err_is_set(&a->err);
	if (bad) sess_explain(a->s, &a->err);
	a->finish(a, a->resp.p ? a->resp.p : (const uint8_t *)"", a->resp.n, bad ? &a->err : NULL);
	sess_unref(a->s);
	buf_fini(&a->resp);
	err_fini(&a->err);
	free(a->noun);
	free(a);
}

static void ask_message(struct wire_call *c, const uint8_t *p, size_t n)
{
	struct sess_ask *a = c->user;
	if (a->answered) return;
	a->answered = true;
	buf_add(&a->resp, p, n);
}

static void ask_ended(struct wire_call *c, const struct err *status)
{
	struct sess_ask *a = c->user;
	a->call = NULL;
	if (status->code != CODE_OK)
		err_copy(&a->err, status);
	else if (!a->answered)
		err_set(&a->err, CODE_INTERNAL, "the client sent no answer");
	ask_over(a);
}

static const struct wire_call_ops ask_ops = {.message = ask_message, .ended = ask_ended};

static void ask_cancel(struct sess_op *op)
{
	struct sess_ask *a = container_of(op, struct sess_ask, op);
	if (a->call) wire_call_cancel(a->call);
}

struct sess_ask *sess_ask_new(struct sess *s,
			      void (*finish)(struct sess_ask *a, const uint8_t *p, size_t n, const struct err *e),
			      void (*user_fn)(void), void *arg, const char *noun)
{
	struct sess_ask *a = xnew(struct sess_ask);
	a->op.cancel = ask_cancel;
	a->s = sess_ref(s);
	a->finish = finish;
	a->user_fn = user_fn;
	a->arg = arg;
	a->noun = xstrdup(noun);
	return a;
}

struct sess_op *sess_ask_send(struct sess_ask *a, const char *method, const struct wire_md *md, size_t n_md,
			      const ProtobufCMessage *req, const void *p, size_t n, uint64_t timeout_ms)
{
	a->call = sess_open(a->s, method, md, n_md, timeout_ms, &ask_ops, a, &a->err);
	if (!a->call) {
		loop_post(a->s->loop, ask_over, a);
		return &a->op;
	}
	if (req)
		wire_call_send_msg(a->call, req);
	else
		wire_call_send(a->call, p, n);
	wire_call_close_send(a->call);
	return &a->op;
}

/* ---- any ---- */
static void bytes_finish(struct sess_ask *a, const uint8_t *p, size_t n, const struct err *e)
{
	((sess_bytes_fn *)a->user_fn)(a->arg, e ? NULL : p, e ? 0 : n, e);
}

struct sess_op *sess_call(struct sess *s, const char *method, const void *req, size_t n, char *const *md, size_t n_md,
			  uint64_t timeout_ms, sess_bytes_fn *done, void *arg)
{
	VEC(struct wire_md) v = {0};
	for (size_t i = 0; i + 1 < n_md; i += 2) vec_push(&v, ((struct wire_md){md[i], md[i + 1]}));
	struct sess_ask *a = sess_ask_new(s, bytes_finish, (void (*)(void))done, arg, NULL);
	struct sess_op *op = sess_ask_send(a, method, v.v, v.n, NULL, n ? req : "", n, timeout_ms);
	vec_fini(&v);
	return op;
}

/* ---- credentials ---- */
typedef void credentials_fn(void *, const char *, const char *, const struct err *);

static void credentials_finish(struct sess_ask *a, const uint8_t *p, size_t n, const struct err *e)
{
	credentials_fn *done = (credentials_fn *)a->user_fn;
	_cleanup_err_ struct err bad = ERR_INIT;
	_cleanup_arena_ struct arena *mem = arena_new(1 << 20);
	Filesync__CredentialsResponse *m =
		e ? NULL : wire_unpack_as(Filesync__CredentialsResponse, filesync__credentials_response, p, n, mem, &bad);
	if (m)
		done(a->arg, m->username, m->secret, NULL);
	else
		done(a->arg, NULL, NULL, e ? e : &bad);
}

struct sess_op *sess_auth_credentials(struct sess *s, const char *host,
				      void (*done)(void *arg, const char *user, const char *secret, const struct err *e),
				      void *arg)
{
	Filesync__CredentialsRequest m = FILESYNC__CREDENTIALS_REQUEST__INIT;
	m.host = host;
	struct sess_ask *a = sess_ask_new(s, credentials_finish, (void (*)(void))done, arg, NULL);
	return sess_ask_send(a, METHOD_AUTH_CREDENTIALS, NULL, 0, &m.base, NULL, 0, AUTH_MS);
}

typedef void token_fn(void *, const char *, int64_t, int64_t, const struct err *);

static void token_finish(struct sess_ask *a, const uint8_t *p, size_t n, const struct err *e)
{
	token_fn *done = (token_fn *)a->user_fn;
	_cleanup_err_ struct err bad = ERR_INIT;
	_cleanup_arena_ struct arena *mem = arena_new(4 << 20);
	Filesync__FetchTokenResponse *m =
		e ? NULL : wire_unpack_as(Filesync__FetchTokenResponse, filesync__fetch_token_response, p, n, mem, &bad);
	if (m)
		done(a->arg, m->token, m->expiresin, m->issuedat, NULL);
	else
		done(a->arg, NULL, 0, 0, e ? e : &bad);
}

struct sess_op *sess_auth_token(struct sess *s, const struct sess_token_req *req,
				void (*done)(void *arg, const char *token, int64_t expires_in_s, int64_t issued_at_unix,
					     const struct err *e),
				void *arg)
{
	Filesync__FetchTokenRequest m = FILESYNC__FETCH_TOKEN_REQUEST__INIT;
	m.clientid = req->client_id ? req->client_id : "";
	m.host = req->host ? req->host : "";
	m.realm = req->realm ? req->realm : "";
	m.service = req->service ? req->service : "";
	m.scopes = (void *)(uintptr_t)req->scopes;
	m.n_scopes = req->n_scopes;
	struct sess_ask *a = sess_ask_new(s, token_finish, (void (*)(void))done, arg, NULL);
	return sess_ask_send(a, METHOD_AUTH_FETCH_TOKEN, NULL, 0, &m.base, NULL, 0, AUTH_MS);
}

static void authority_finish(struct sess_ask *a, const uint8_t *p, size_t n, const struct err *e)
{
	sess_bytes_fn *done = (sess_bytes_fn *)a->user_fn;
	_cleanup_err_ struct err bad = ERR_INIT;
	_cleanup_arena_ struct arena *mem = arena_new(1 << 20);
	Filesync__GetTokenAuthorityResponse *m = e ? NULL
						   : wire_unpack_as(Filesync__GetTokenAuthorityResponse,
								    filesync__get_token_authority_response, p, n, mem, &bad);
	if (m)
		done(a->arg, m->publickey.data, m->publickey.len, NULL);
	else
		done(a->arg, NULL, 0, e ? e : &bad);
}

struct sess_op *sess_auth_authority(struct sess *s, const char *host, const void *salt, size_t n, sess_bytes_fn *done,
				    void *arg)
{
	Filesync__GetTokenAuthorityRequest m = FILESYNC__GET_TOKEN_AUTHORITY_REQUEST__INIT;
	m.host = host;
	m.salt.data = (uint8_t *)(uintptr_t)salt;
	m.salt.len = n;
	struct sess_ask *a = sess_ask_new(s, authority_finish, (void (*)(void))done, arg, NULL);
	return sess_ask_send(a, METHOD_AUTH_GET_TOKEN_AUTHORITY, NULL, 0, &m.base, NULL, 0, AUTH_MS);
}

static void verify_finish(struct sess_ask *a, const uint8_t *p, size_t n, const struct err *e)
{
	sess_bytes_fn *done = (sess_bytes_fn *)a->user_fn;
	_cleanup_err_ struct err bad = ERR_INIT;
	_cleanup_arena_ struct arena *mem = arena_new(1 << 20);
	Filesync__VerifyTokenAuthorityResponse *m =
		e ? NULL
		  : wire_unpack_as(Filesync__VerifyTokenAuthorityResponse, filesync__verify_token_authority_response, p, n, mem,
				   &bad);
	if (m)
		done(a->arg, m->signed_.data, m->signed_.len, NULL);
	else
		done(a->arg, NULL, 0, e ? e : &bad);
}

struct sess_op *sess_auth_verify(struct sess *s, const char *host, const void *payload, size_t n_payload, const void *salt,
				 size_t n_salt, sess_bytes_fn *done, void *arg)
{
	Filesync__VerifyTokenAuthorityRequest m = FILESYNC__VERIFY_TOKEN_AUTHORITY_REQUEST__INIT;
	m.host = host;
	m.payload.data = (uint8_t *)(uintptr_t)payload;
	m.payload.len = n_payload;
	m.salt.data = (uint8_t *)(uintptr_t)salt;
	m.salt.len = n_salt;
	struct sess_ask *a = sess_ask_new(s, verify_finish, (void (*)(void))done, arg, NULL);
	return sess_ask_send(a, METHOD_AUTH_VERIFY_TOKEN_AUTHORITY, NULL, 0, &m.base, NULL, 0, AUTH_MS);
}

/* ---- secrets ---- */
static void secret_finish(struct sess_ask *a, const uint8_t *p, size_t n, const struct err *e)
{
	sess_bytes_fn *done = (sess_bytes_fn *)a->user_fn;
	_cleanup_err_ struct err bad = ERR_INIT;
	_cleanup_arena_ struct arena *mem = arena_new(4 << 20);
	Secrets__GetSecretResponse *m = NULL;
	if (e && (e->code == CODE_NOT_FOUND || e->code == CODE_UNIMPLEMENTED))
		err_set(&bad, CODE_NOT_FOUND, "secret %s: not found", a->noun);
	else if (e)
		err_copy(&bad, e);
	else
		m = wire_unpack_as(Secrets__GetSecretResponse, secrets__get_secret_response, p, n, mem, &bad);
	if (m && m->data.len > SECRET_MAX) {
		err_set(&bad, CODE_INVALID_ARGUMENT, "invalid secret size %zu", m->data.len);
		m = NULL;
	}
	if (m)
		done(a->arg, m->data.data ? m->data.data : (const uint8_t *)"", m->data.len, NULL);
	else
		done(a->arg, NULL, 0, &bad);
}

struct sess_op *sess_secret(struct sess *s, const char *id, sess_bytes_fn *done, void *arg)
{
	Secrets__GetSecretRequest m = SECRETS__GET_SECRET_REQUEST__INIT;
	m.id = id;
	struct sess_ask *a = sess_ask_new(s, secret_finish, (void (*)(void))done, arg, id);
	return sess_ask_send(a, METHOD_SECRETS_GET_SECRET, NULL, 0, &m.base, NULL, 0, AUTH_MS);
}

/* ---- ssh ---- */
static void check_finish(struct sess_ask *a, const uint8_t *p, size_t n, const struct err *e)
{
	sess_done_fn *done = (sess_done_fn *)a->user_fn;
	_cleanup_err_ struct err bad = ERR_INIT;
	if (e && e->code == CODE_UNIMPLEMENTED) {
		err_set(&bad, CODE_UNKNOWN, "no SSH key \"%s\" forwarded from the client", a->noun);
		e = &bad;
	}
	done(a->arg, e);
}

struct sess_op *sess_ssh_check(struct sess *s, const char *id, sess_done_fn *done, void *arg)
{
	Ssh__CheckAgentRequest m = SSH__CHECK_AGENT_REQUEST__INIT;
	m.id = str_empty(id) ? "default" : id;
	struct sess_ask *a = sess_ask_new(s, check_finish, (void (*)(void))done, arg, m.id);
	return sess_ask_send(a, METHOD_SSH_CHECK_AGENT, NULL, 0, &m.base, NULL, 0, AUTH_MS);
}

/* ---- content ---- */
typedef void info_fn(void *, int64_t, const struct err *);

static void info_finish(struct sess_ask *a, const uint8_t *p, size_t n, const struct err *e)
{
	info_fn *done = (info_fn *)a->user_fn;
	_cleanup_err_ struct err bad = ERR_INIT;
	_cleanup_arena_ struct arena *mem = arena_new(4 << 20);
	Content__InfoResponse *m = e ? NULL : wire_unpack_as(Content__InfoResponse, content__info_response, p, n, mem, &bad);
	if (m && !m->info) err_set(&bad, CODE_INTERNAL, "the client's content store sent no info");
	if (m && m->info)
		done(a->arg, m->info->size, NULL);
	else
		done(a->arg, 0, e ? e : &bad);
}

struct sess_op *sess_content_info(struct sess *s, const char *store, const char *digest,
				  void (*done)(void *arg, int64_t size, const struct err *e), void *arg)
{
	Content__InfoRequest m = CONTENT__INFO_REQUEST__INIT;
	struct wire_md md = {"buildkit-attachable-store-id", store};
	m.digest = digest;
	struct sess_ask *a = sess_ask_new(s, info_finish, (void (*)(void))done, arg, NULL);
	return sess_ask_send(a, METHOD_CONTENT_INFO, &md, 1, &m.base, NULL, 0, AUTH_MS);
}
