/* Credentials for registry jobs. The job posts its question to the loop and blocks on a pipe; the loop asks the client's
 * sessions one after the other and writes the answer. A client that serves no credentials counts as anonymous.
 *
 *  1. A client that has a token authority (a key pair made from its credentials and our salt) fetches bearer tokens itself: the
 *     password stays with it. Else it is asked for the credentials.
 *  2. The authority, once proven by a signature, is the identity by which tokens are cached: a later session of the same user
 *     uses them again. Without one the identity is the session.
 *  3. The salt is new with every start of the daemon. What a session has proven is remembered as long as it is in the map.
 * Source: BuildKit session/auth/auth.go, util/resolver/authorizer.go; reference 02 §6. */
#include "ops/ops.h"
#include "proto/methods.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <string.h>

enum { SALT = 32, PAYLOAD = 32, KEY = 32, SIGNATURE = 64, IDS_MAX = 1024 };

struct question {
	const struct ops_auth *auth;   /* of the waiting job: alive till the answer was read */
	const struct reg_challenge *c; /* NULL: only the identity is wanted */
	const char *host;
	size_t at; /* which session */
	struct sess *session;
	struct loop_pipe *pipe;
	uint8_t key[KEY], payload[PAYLOAD];
	struct reg_answer answer; /* read by the job once the pipe said so */
	char *identity;
	struct err error;
};

void ops_auth_init(struct ops_auth *a, struct ops_env *env, const char *const *sessions, size_t n)
{
	*a = (struct ops_auth){.env = env};
	for (size_t i = 0; i < n && i < OPS_SESSIONS_MAX; i++) a->sessions[a->n_sessions++] = xstrdup(sessions[i]);
}

void ops_auth_fini(struct ops_auth *a)
{
	for (size_t i = 0; i < a->n_sessions; i++) free(a->sessions[i]);
	a->n_sessions = 0;
}

void ops_auth_use(struct ops_auth *a, struct reg_io *io)
{
	io->auth = ops_auth_ask;
	io->auth_ctx = a;
	io->identity = ops_auth_identity;
	io->authority = ops_auth_authority(a);
}

const char *ops_auth_authority(const struct ops_auth *a) { return a->n_sessions ? a->sessions[0] : ""; }

const void *ops_auth_group(const struct ops_auth *a) { return reg_pools_group(ops_auth_authority(a)); }

static const uint8_t *salt(void)
{
	static uint8_t bytes[SALT];
	static bool made; /* loop thread only */
	if (!made) made = RAND_bytes(bytes, sizeof bytes) == 1;
	ensure(made);
	return bytes;
}

static void answer(struct question *q)
{
	sess_unref(q->session);
	q->session = NULL;
	struct loop_pipe *pipe = q->pipe; /* q ends when the job sees the pipe closed */
	loop_pipe_close(pipe, NULL);
	loop_pipe_unref(pipe);
}

static void ask_next(struct question *q);

static bool is_absent(const struct err *e) { return e->code == CODE_UNIMPLEMENTED || e->code == CODE_UNAVAILABLE; }

/* ---- identity ---- */

static char *memo_key(const struct question *q) { return xasprintf("%s\n%s", q->auth->sessions[q->at], q->host); }

static const char *known_identity(const struct question *q)
{
	_cleanup_free_ char *key = memo_key(q);
	return map_get(&q->auth->env->auth_ids, key);
}

static void remember(struct question *q, char *identity)
{
	struct map *m = &q->auth->env->auth_ids;
	_cleanup_free_ char *key = memo_key(q);
	if (m->count >= IDS_MAX) {
		map_fini_free(m);
		*m = (struct map){0};
	}
	free(map_put(m, key, identity));
}

static void ask_token(struct question *q);
static void ask_credentials(struct question *q);

/* The identity of the session at hand is known: go on with what was asked. */
static void identified(struct question *q)
{
	const char *id = known_identity(q);
	if (!q->c) {
		q->identity = xstrdup(id);
		answer(q);
	} else if (str_starts(id, "key ")) {
		ask_token(q);
	} else {
		ask_credentials(q);
	}
}

static void no_authority(struct question *q)
{
	remember(q, xasprintf("session %s", q->auth->sessions[q->at]));
	identified(q);
}

static bool signed_by(const struct question *q, const uint8_t *p, size_t n)
{
	if (n != SIGNATURE + PAYLOAD || memcmp(p + SIGNATURE, q->payload, PAYLOAD) != 0) return false;
	EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, q->key, KEY);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = key && ctx && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
		  EVP_DigestVerify(ctx, p, SIGNATURE, p + SIGNATURE, PAYLOAD) == 1;
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key);
	return ok;
}

static void got_signature(void *arg, const uint8_t *p, size_t n, const struct err *e)
{
	struct question *q = arg;
	char hex[2 * KEY + 1];
	if (e || !signed_by(q, p, n)) { /* it fetches tokens, but they are for this session alone */
		remember(q, xasprintf("key of session %s", q->auth->sessions[q->at]));
	} else {
		hex_encode(q->key, KEY, hex);
		remember(q, xasprintf("key %s", hex));
	}
	identified(q);
}

static void got_authority(void *arg, const uint8_t *p, size_t n, const struct err *e)
{
	struct question *q = arg;
	if (e || n != KEY || RAND_bytes(q->payload, PAYLOAD) != 1) {
		no_authority(q);
		return;
	}
	memcpy(q->key, p, KEY);
	sess_auth_verify(q->session, q->host, q->payload, PAYLOAD, salt(), SALT, got_signature, q);
}

/* ---- the answer to a challenge ---- */

static void got_credentials(void *arg, const char *user, const char *secret, const struct err *e)
{
	struct question *q = arg;
	if (e && !is_absent(e)) {
		err_copy(&q->error, e);
		answer(q);
	} else if (e || (str_empty(user) && str_empty(secret))) {
		q->at++;
		ask_next(q);
	} else {
		q->answer = (struct reg_answer){.kind = REG_CREDS, .user = xstrdup(user), .secret = xstrdup(secret)};
		answer(q);
	}
}

static void ask_credentials(struct question *q) { sess_auth_credentials(q->session, q->host, got_credentials, q); }

static void got_token(void *arg, const char *token, int64_t expires_in_s, int64_t issued_at, const struct err *e)
{
	struct question *q = arg;
	if (e && is_absent(e)) {
		ask_credentials(q);
		return;
	}
	if (e) {
		err_copy(&q->error, e);
	} else {
		q->answer = (struct reg_answer){
			.kind = REG_TOKEN, .token = xstrdup(token), .expires_in_s = expires_in_s, .issued_at = issued_at};
	}
	answer(q);
}

static void ask_token(struct question *q)
{
	const struct reg_challenge *c = q->c;
	struct sess_token_req req = {"buildkit-client",        c->host,       c->realm, c->service,
				     (char *const *)c->scopes, c->scope_count};
	sess_auth_token(q->session, &req, got_token, q);
}

static void ask_session(struct question *q)
{
	if (q->c && q->c->basic)
		ask_credentials(q);
	else if (known_identity(q))
		identified(q);
	else if (sess_supports(q->session, METHOD_AUTH_FETCH_TOKEN) &&
		 sess_supports(q->session, METHOD_AUTH_GET_TOKEN_AUTHORITY))
		sess_auth_authority(q->session, q->host, salt(), SALT, got_authority, q);
	else
		no_authority(q);
}

static void ask_next(struct question *q)
{
	for (; q->at < q->auth->n_sessions; q->at++) {
		sess_unref(q->session);
		q->session = sess_find(q->auth->env->sessions, q->auth->sessions[q->at]);
		if (!q->session || !sess_supports(q->session, METHOD_AUTH_CREDENTIALS)) continue;
		ask_session(q);
		return;
	}
	q->answer.kind = REG_ANONYMOUS;
	answer(q);
}

static void ask(void *arg) { ask_next(arg); }

static void ask_and_wait(struct question *q)
{
	struct loop *l = q->auth->env->loop;
	q->pipe = loop_pipe_new(l, 16, NULL, NULL);
	loop_pipe_ref(q->pipe); /* the loop's */
	struct loop_pipe *mine = q->pipe;
	loop_post(l, ask, q);
	char byte;
	while (loop_pipe_job_read(mine, &byte, 1, NULL) > 0) {
	}
	loop_pipe_unref(mine);
}

int ops_auth_ask(void *ctx, const struct reg_challenge *c, struct reg_answer *ret, struct err *e)
{
	struct question q = {.auth = ctx, .c = c, .host = c->host};
	ask_and_wait(&q);
	if (err_is_set(&q.error)) return err_move(e, &q.error);
	*ret = q.answer;
	return 0;
}

char *ops_auth_identity(void *ctx, const char *host)
{
	struct question q = {.auth = ctx, .host = host};
	ask_and_wait(&q);
	err_fini(&q.error);
	return q.identity;
}
