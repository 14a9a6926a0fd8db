#ifndef PROXY_CERT_H
#define PROXY_CERT_H
/* The authority's certificates. Private to the room. Any thread: an authority does not change. */
#include "base/base.h"

#include <openssl/ssl.h>

struct proxy_ca;
SSL_CTX *proxy_ca_server(const struct proxy_ca *ca, const char *host, struct err *e); /* TLS as that host; NULL on an error */
#endif
