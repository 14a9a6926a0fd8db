#ifndef CLI_AUTH_H
#define CLI_AUTH_H
/* Registry authentication for the session: credentials of the docker config, and tokens fetched here. Main thread. */
#include "sess/sess_client.h"

/* With what the token server of a host is asked; before auth_serve. NULL: none of it. */
void auth_add_tls(const char *host, const char *ca, const char *cert, const char *key, bool insecure);
void auth_serve(struct sess_client *c);
#endif
