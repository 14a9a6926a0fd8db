/* The client's side of registry authentication: bearer tokens are fetched here, by reg, so that no password goes to the daemon.
 * The flags of --registry-auth-tlscontext say with which certificates a host's token server is asked. */
#include "cli/auth.h"
#include "reg/reg.h"

#include <string.h>

static struct { /* as long as the process: jobs may use it till the end */
	struct reg_client *client;
	struct reg_config *config;
	VEC(struct reg_host_conf) hosts;
} shared;

static int fetch(void *arg, const struct sess_token_ask *q, struct sess_token *ret, struct err *e)
{
	struct reg_io io;
	struct reg_answer got = {0};
	struct reg_token_req req = {.host = q->host,
				    .realm = q->realm,
				    .service = q->service,
				    .scopes = q->scopes,
				    .n_scopes = q->n_scopes,
				    .user = q->user,
				    .secret = q->secret};
	reg_io_init(&io, shared.client, shared.config);
	io.cancelled = q->cancelled;
	int r = reg_fetch_token(&io, &req, &got, e);
	reg_io_fini(&io);
	if (r < 0) return -1;
	*ret = (struct sess_token){got.token, got.expires_in_s, got.issued_at};
	return 0;
}

void auth_add_tls(const char *host, const char *ca, const char *cert, const char *key, bool insecure)
{
	struct reg_host_conf *h = NULL;
	for (size_t i = 0; i < shared.hosts.n && !h; i++)
		if (str_eq(shared.hosts.v[i].name, host)) h = &shared.hosts.v[i];
	if (!h) {
		h = vec_add(&shared.hosts);
		h->name = xstrdup(host);
	}
	if (insecure) h->insecure = REG_YES;
	if (ca) {
		char **v = xcalloc(h->ca_count + 1, sizeof *v);
		if (h->ca_count) memcpy(v, h->ca, h->ca_count * sizeof *v);
		v[h->ca_count++] = xstrdup(ca);
		h->ca = v;
	}
	if (cert && key) {
		struct reg_keypair *v = xcalloc(h->keypair_count + 1, sizeof *v);
		if (h->keypair_count) memcpy(v, h->keypairs, h->keypair_count * sizeof *v);
		v[h->keypair_count++] = (struct reg_keypair){xstrdup(key), xstrdup(cert)};
		h->keypairs = v;
	}
}

void auth_serve(struct sess_client *c)
{
	if (!shared.client) shared.client = reg_client_new();
	if (!shared.config) shared.config = reg_config_new(shared.hosts.v, shared.hosts.n);
	sess_client_add_auth(c, NULL);
	sess_client_set_token_fetch(c, fetch, NULL);
}
