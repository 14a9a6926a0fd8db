#ifndef PROXY_PROXY_H
#define PROXY_PROXY_H
/* The HTTP(S) proxy of one build step: it asks before each request, forwards, and writes down what came.
 *
 * The daemon listens on a socket in the step's network namespace, which has nothing else. Plain requests come with an absolute
 * URL; for TLS the proxy answers CONNECT itself, with a certificate of an authority that lives as long as the daemon and that
 * the step is made to trust. A connection is a job (LOOP_NET): it reads a request, asks the owner on the loop, fetches with
 * libcurl, sends the answer on while hashing it.
 *  1. The record is whole when stopped() comes: all connections have ended by then.
 *  2. At most PROXY_CONNECTIONS at once, the rest waits in the kernel; heads of 64 KiB; PROXY_RECORDS requests are written
 * down, and what goes beyond is a gap. Loop thread, not blocking, unless said otherwise. Source: BuildKit
 * util/network/{proxy.go,proxyprovider}, docs/proxy.md. */
#include "loop/loop.h"
#include "proxy/proxy_record.h"

enum { PROXY_CONNECTIONS = 64 };

/* ---- the authority ---- */
struct proxy_ca;
int proxy_ca_new(struct proxy_ca **ret, struct err *e); /* a millisecond */
void proxy_ca_free(struct proxy_ca *ca);                /* NULL allowed */
const char *proxy_ca_pem(const struct proxy_ca *ca);    /* its certificate; any thread */

/* ---- one proxy ---- */
struct proxy_check { /* a question: may it? url is without credentials. Answer each one once, at once or later */
	const char *method, *url;
	/* private */
	struct proxy *proxy;
	struct loop_pipe *pipe;
	char *target;
};
/* target NULL: it may not (403); else what to fetch instead, or url itself. */
void proxy_check_answer(struct proxy_check *c, const char *target);
struct proxy_conf {
	struct loop *loop;
	const struct proxy_ca *ca;
	int listen_fd;            /* taken */
	const char *egress_netns; /* connections go out of this network namespace; NULL: the daemon's */
	void (*check)(void *arg, struct proxy_check *c);
	void *arg;
};
struct proxy;
int proxy_start(const struct proxy_conf *c, struct proxy **ret, struct err *e);
/* Cut all connections; stopped() comes later, once, with all that was written down (its own to keep), and then the proxy is
 * gone. Questions that are open must be answered. */
void proxy_stop(struct proxy *p, void (*stopped)(void *arg, struct proxy_record *r), void *arg);
#endif
