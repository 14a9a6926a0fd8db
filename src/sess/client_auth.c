/* The Auth service: Credentials only. Without GetTokenAuthority the daemon does the token exchange itself. */
#include "proto/filesync.pb-c.h"
#include "sess/auth.h"
#include "sess/client.h"

struct auth_task {
	struct client_task t;
	char *config, *host;
};

static void auth_work(struct loop_job *j)
{
	struct auth_task *t = container_of(j, struct auth_task, t.job);
	_cleanup_free_ char *user = NULL, *secret = NULL;
	Filesync__CredentialsResponse m = FILESYNC__CREDENTIALS_RESPONSE__INIT;
	if (client_credentials(t->config, t->host, &user, &secret, &t->t.err) < 0) return;
	m.username = user;
	m.secret = secret;
	wire_pack(&m.base, &t->t.reply);
	explicit_bzero(secret, strlen(secret));
}

static void auth_free(struct client_task *ct)
{
	struct auth_task *t = container_of(ct, struct auth_task, t);
	free(t->config);
	free(t->host);
	free(t);
}

static void credentials_answer(struct sess_client *c, struct wire_call *call, const uint8_t *p, size_t n)
{
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_arena_ struct arena *mem = arena_new(1 << 20);
	Filesync__CredentialsRequest *m =
		wire_unpack_as(Filesync__CredentialsRequest, filesync__credentials_request, p, n, mem, &e);
	if (!m) {
		wire_call_finish(call, &e);
		return;
	}
	struct auth_task *t = xnew(struct auth_task);
	t->config = xstrdup(c->docker_config);
	t->host = xstrdup(m->host);
	t->t.free = auth_free;
	client_task_start(&t->t, c, call, auth_work, LOOP_NET);
}

void client_on_credentials(void *c, struct wire_call *call) { client_unary(c, call, credentials_answer); }
