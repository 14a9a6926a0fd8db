#ifndef PROXY_CONN_JOB_H
#define PROXY_CONN_JOB_H
/* One connection of a client, from its first byte to its end. Job code; blocks. Private to the room. */
#include "proxy/cert.h"
#include "proxy/record.h"

#include <stdatomic.h>

struct proxy_io {
	int fd; /* blocking */
	const struct proxy_ca *ca;
	int egress_fd; /* a network namespace; -1: ours */
	const atomic_bool *cancelled;
	char *(*check)(void *ctx, const char *method, const char *url); /* what to fetch, heap; NULL: it may not */
	void *ctx;
	struct proxy_record *record;
};
void proxy_serve(struct proxy_io *io);
#endif
