/* The Auth service: credentials, and bearer tokens that are fetched here, so that the daemon never sees a password.
 *
 *  1. Tokens are served when somebody who can speak HTTP has been set (sess_client_set_token_fetch); then the daemon asks for
 * the token authority first: a key pair made from its salt and, where there are credentials, a secret seed of ours. The same
 *     user proves by it that he may use a token that an earlier build of his got.
 *  2. BUILDKIT_NO_CLIENT_TOKEN set: there is no authority, and the daemon asks for credentials.
 * Source: BuildKit session/auth/authprovider; reference 02 §6. */
#include "proto/filesync.pb-c.h"
#include "sess/auth.h"
#include "sess/client.h"

struct auth_task {
	struct client_task t;
	char *config, *host;
	struct buf salt, payload;
	struct sess_token_ask ask;
	struct strvec scopes;
	char *realm, *service;
	struct sess_client_fetcher fetcher;
};

static int load(struct auth_task *t, struct client_login *ret)
{
	return client_credentials(t->config, t->host, ret, &t->t.err);
}

static void credentials_work(struct loop_job *j)
{
	struct auth_task *t = container_of(j, struct auth_task, t.job);
	_cleanup_client_login_ struct client_login login = {0};
	Filesync__CredentialsResponse m = FILESYNC__CREDENTIALS_RESPONSE__INIT;
	if (load(t, &login) < 0) return;
	m.username = login.user;
	m.secret = login.secret;
	wire_pack(&m.base, &t->t.reply);
}

static void token_work(struct loop_job *j)
{
	struct auth_task *t = container_of(j, struct auth_task, t.job);
	_cleanup_client_login_ struct client_login login = {0};
	Filesync__FetchTokenResponse m = FILESYNC__FETCH_TOKEN_RESPONSE__INIT;
	struct sess_token token = {0};
	if (load(t, &login) < 0) return;
	if (*login.token) {
		token.token = take_ptr(login.token);
	} else {
		t->ask = (struct sess_token_ask){t->host,     t->realm,   t->service,   t->scopes.v,
						 t->scopes.n, login.user, login.secret, &t->t.job.cancelled};
		if (t->fetcher.fetch(t->fetcher.arg, &t->ask, &token, &t->t.err) < 0) return;
	}
	m.token = token.token;
	m.expiresin = token.expires_in_s ? token.expires_in_s : 60;
	m.issuedat = token.issued_at;
	wire_pack(&m.base, &t->t.reply);
	explicit_bzero(token.token, strlen(token.token));
	free(token.token);
}

static int key_of(struct auth_task *t, struct client_key *ret)
{
	_cleanup_client_login_ struct client_login login = {0};
	bool off = false;
	if (str_bool(getenv("BUILDKIT_NO_CLIENT_TOKEN") ?: "", &off) && off)
		return err_set(&t->t.err, CODE_UNAVAILABLE, "client side tokens disabled");
	if (load(t, &login) < 0) return -1;
	return client_authority(t->config, t->host, t->salt.p, t->salt.n, *login.secret != 0, ret, &t->t.err);
}

static void authority_work(struct loop_job *j)
{
	struct auth_task *t = container_of(j, struct auth_task, t.job);
	struct client_key key;
	Filesync__GetTokenAuthorityResponse m = FILESYNC__GET_TOKEN_AUTHORITY_RESPONSE__INIT;
	if (key_of(t, &key) < 0) return;
	m.publickey.data = key.public_key;
	m.publickey.len = sizeof key.public_key;
	wire_pack(&m.base, &t->t.reply);
	explicit_bzero(&key, sizeof key);
}

static void verify_work(struct loop_job *j)
{
	struct auth_task *t = container_of(j, struct auth_task, t.job);
	struct client_key key;
	_cleanup_buf_ struct buf out = BUF_INIT;
	Filesync__VerifyTokenAuthorityResponse m = FILESYNC__VERIFY_TOKEN_AUTHORITY_RESPONSE__INIT;
	if (key_of(t, &key) < 0 || client_sign(&key, t->payload.p, t->payload.n, &out, &t->t.err) < 0) return;
	m.signed_.data = out.p;
	m.signed_.len = out.n;
	wire_pack(&m.base, &t->t.reply);
	explicit_bzero(&key, sizeof key);
}

static void auth_free(struct client_task *ct)
{
	struct auth_task *t = container_of(ct, struct auth_task, t);
	free(t->config);
	free(t->host);
	free(t->realm);
	free(t->service);
	strvec_fini(&t->scopes);
	buf_fini(&t->salt);
	buf_fini(&t->payload);
	free(t);
}

static struct auth_task *task_new(struct sess_client *c, const char *host)
{
	struct auth_task *t = xnew(struct auth_task);
	t->config = xstrdup(c->docker_config);
	t->host = xstrdup(host);
	t->fetcher = c->fetcher;
	t->t.free = auth_free;
	return t;
}

/* The request of a call into m, or the call has been failed. */
#define UNPACK(T, prefix, m)                                    \
	_cleanup_err_ struct err e = ERR_INIT;                  \
	_cleanup_arena_ struct arena *mem = arena_new(1 << 20); \
	T *m = wire_unpack_as(T, prefix, p, n, mem, &e);        \
	if (!m) {                                               \
		wire_call_finish(call, &e);                     \
		return;                                         \
	}

static void credentials_answer(struct sess_client *c, struct wire_call *call, const uint8_t *p, size_t n)
{
	UNPACK(Filesync__CredentialsRequest, filesync__credentials_request, m)
	client_task_start(&task_new(c, m->host)->t, c, call, credentials_work, LOOP_NET);
}

static void token_answer(struct sess_client *c, struct wire_call *call, const uint8_t *p, size_t n)
{
	UNPACK(Filesync__FetchTokenRequest, filesync__fetch_token_request, m)
	struct auth_task *t = task_new(c, m->host);
	t->realm = xstrdup(m->realm);
	t->service = xstrdup(m->service);
	for (size_t i = 0; i < m->n_scopes; i++) strvec_add(&t->scopes, m->scopes[i]);
	client_task_start(&t->t, c, call, token_work, LOOP_NET);
}

static void authority_answer(struct sess_client *c, struct wire_call *call, const uint8_t *p, size_t n)
{
	UNPACK(Filesync__GetTokenAuthorityRequest, filesync__get_token_authority_request, m)
	struct auth_task *t = task_new(c, m->host);
	buf_add(&t->salt, m->salt.data, m->salt.len);
	client_task_start(&t->t, c, call, authority_work, LOOP_NET);
}

static void verify_answer(struct sess_client *c, struct wire_call *call, const uint8_t *p, size_t n)
{
	UNPACK(Filesync__VerifyTokenAuthorityRequest, filesync__verify_token_authority_request, m)
	struct auth_task *t = task_new(c, m->host);
	buf_add(&t->salt, m->salt.data, m->salt.len);
	buf_add(&t->payload, m->payload.data, m->payload.len);
	client_task_start(&t->t, c, call, verify_work, LOOP_NET);
}

void client_on_credentials(void *c, struct wire_call *call) { client_unary(c, call, credentials_answer); }

static void on_token(void *c, struct wire_call *call) { client_unary(c, call, token_answer); }

static void on_authority(void *c, struct wire_call *call) { client_unary(c, call, authority_answer); }

static void on_verify(void *c, struct wire_call *call) { client_unary(c, call, verify_answer); }

void sess_client_set_token_fetch(struct sess_client *c,
				 int (*fetch)(void *, const struct sess_token_ask *, struct sess_token *, struct err *),
				 void *arg)
{
	c->fetcher = (struct sess_client_fetcher){fetch, arg};
	client_serve(c, METHOD_AUTH_FETCH_TOKEN, on_token);
	client_serve(c, METHOD_AUTH_GET_TOKEN_AUTHORITY, on_authority);
	client_serve(c, METHOD_AUTH_VERIFY_TOKEN_AUTHORITY, on_verify);
}
