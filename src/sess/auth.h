#ifndef SESS_AUTH_H
#define SESS_AUTH_H
#include "base/base.h"

/* Credentials for a registry host from a docker config.json (a missing one has none). Job: blocks, runs helpers.
 * *ret_user and *ret_secret are heap, "" when there is none; a secret without a user is an identity token. */
int client_credentials(const char *config_path, const char *host, char **ret_user, char **ret_secret, struct err *e);
#endif
