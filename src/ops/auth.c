/* Credentials for registry jobs. The job posts its question to the loop and blocks on a pipe; the loop asks the client's
 * sessions one after the other and writes the answer. A client that serves no credentials counts as anonymous. */
#include "ops/ops.h"
#include "proto/methods.h"

#include <string.h>

struct question {
	const struct ops_auth *auth; /* of the waiting job: alive till the answer was read */
	const struct reg_challenge *c;
	size_t at; /* which session */
	struct sess *session;
	struct loop_pipe *pipe;
	struct reg_answer answer; /* read by the job once the pipe said so */
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

const char *ops_auth_authority(const struct ops_auth *a) { return a->n_sessions ? a->sessions[0] : ""; }

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

static void got_token(void *arg, const char *token, int64_t expires_in_s, int64_t issued_at, const struct err *e)
{
	struct question *q = arg;
	if (e && is_absent(e)) {
		sess_auth_credentials(q->session, q->c->host, got_credentials, q);
		return;
	}
	if (e) {
		err_copy(&q->error, e);
	} else {
		q->answer = (struct reg_answer){.kind = REG_TOKEN, .token = xstrdup(token), .expires_in_s = expires_in_s, .issued_at = issued_at};
	}
	answer(q);
}

static void ask_session(struct question *q)
{
	const struct reg_challenge *c = q->c;
	if (c->basic || !sess_supports(q->session, METHOD_AUTH_FETCH_TOKEN)) {
		sess_auth_credentials(q->session, c->host, got_credentials, q);
		return;
	}
	struct sess_token_req req = {"buildkit-client", c->host, c->realm, c->service, (char *const *)c->scopes, c->scope_count};
	sess_auth_token(q->session, &req, got_token, q);
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

int ops_auth_ask(void *ctx, const struct reg_challenge *c, struct reg_answer *ret, struct err *e)
{
	const struct ops_auth *a = ctx;
	struct question q = {.auth = a, .c = c};
	q.pipe = loop_pipe_new(a->env->loop, 16, NULL, NULL);
	loop_pipe_ref(q.pipe); /* the loop's */
	loop_post(a->env->loop, ask, &q);
	char byte;
	while (loop_pipe_job_read(q.pipe, &byte, 1, NULL) > 0) {}
	loop_pipe_unref(q.pipe);
	if (err_is_set(&q.error)) return err_move(e, &q.error);
	*ret = q.answer;
	return 0;
}
