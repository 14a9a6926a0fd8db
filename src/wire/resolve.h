#ifndef WIRE_RESOLVE_H
#define WIRE_RESOLVE_H
/* Names to addresses; internal. Any thread. */
#include "base/base.h"
#include <sys/socket.h>

struct addr_list {
	struct sockaddr_storage v[16];
	size_t n;
};
/* "host:port", "[::1]:port", ":port" (host ""); heap. INVALID_ARGUMENT. Does not block. */
int resolve_split(const char *hostport, char **ret_host, char **ret_port, struct err *e);
/* Blocks. host "": all addresses (passive) or the loopback. */
int resolve_host(const char *host, const char *port, bool passive, struct addr_list *ret, struct err *e);
void resolve_format(const struct sockaddr_storage *a, char *out, size_t n); /* "10.0.0.1:80", "[::1]:80" */
#endif
