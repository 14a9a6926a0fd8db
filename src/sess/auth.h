#ifndef SESS_AUTH_H
#define SESS_AUTH_H
#include "base/base.h"

/* What a docker config.json says of a registry: heap, "" where there is nothing. A secret without a user is an identity token;
 * token is a bearer token to be used as it is. */
struct client_login {
	char *user, *secret, *token;
};
void client_login_fini(struct client_login *l);
#define _cleanup_client_login_ __attribute__((cleanup(client_login_fini)))
/* A missing file has none. Job: blocks, runs helpers. */
int client_credentials(const char *config_path, const char *host, struct client_login *ret, struct err *e);

/* The key pair by which a user is known to a daemon, for its salt: made with the seed for the host that is kept beside the
 * config (.token_seed) where there are credentials; all anonymous users have the same. Job: blocks on the disk. */
struct client_key {
	uint8_t private_key[32], public_key[32]; /* ed25519 */
};
int client_authority(const char *config_path, const char *host, const void *salt, size_t n, bool with_seed,
		     struct client_key *ret, struct err *e);
int client_sign(const struct client_key *k, const void *p, size_t n, struct buf *ret, struct err *e); /* signature, then p */
#endif
