/* host:port to addresses. resolve_host blocks (getaddrinfo): from a job, or once at start. */
#include "wire/resolve.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <errno.h>

int resolve_split(const char *s, char **ret_host, char **ret_port, struct err *e)
{
	const char *colon = strrchr(s, ':'), *host = s;
	size_t n = colon ? (size_t)(colon - s) : 0;
	if (!colon || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1))
		return err_set(e, CODE_INVALID_ARGUMENT, "address \"%s\": want host:port", s);
	if (n >= 2 && s[0] == '[' && colon[-1] == ']') {
		host++;
		n -= 2;
	} else if (memchr(s, ':', n)) {
		return err_set(e, CODE_INVALID_ARGUMENT, "address \"%s\": an IPv6 address stands in [ ]", s);
	}
	*ret_host = xstrndup(host, n);
	*ret_port = xstrdup(colon + 1);
	return 0;
}

int resolve_host(const char *host, const char *port, bool passive, struct addr_list *ret, struct err *e)
{
	struct addrinfo hint = {.ai_socktype = SOCK_STREAM, .ai_flags = passive ? AI_PASSIVE : AI_ADDRCONFIG}, *all;
	int rv = getaddrinfo(*host ? host : NULL, port, &hint, &all);
	if (rv == EAI_SYSTEM) return err_sys(e, errno, "lookup %s", host);
	if (rv) return err_set(e, CODE_UNAVAILABLE, "lookup %s: %s", host, gai_strerror(rv));
	ret->n = 0;
	for (struct addrinfo *a = all; a && ret->n < array_len(ret->v); a = a->ai_next)
		if (a->ai_addrlen <= sizeof ret->v[0]) memcpy(&ret->v[ret->n++], a->ai_addr, a->ai_addrlen);
	freeaddrinfo(all);
	return ret->n ? 0 : err_set(e, CODE_UNAVAILABLE, "lookup %s: no address", host);
}

void resolve_format(const struct sockaddr_storage *a, char *out, size_t n)
{
	char ip[INET6_ADDRSTRLEN] = "?";
	if (a->ss_family == AF_INET6) {
		const struct sockaddr_in6 *v = (const void *)a;
		inet_ntop(AF_INET6, &v->sin6_addr, ip, sizeof ip);
		snprintf(out, n, "[%s]:%u", ip, ntohs(v->sin6_port));
	} else {
		const struct sockaddr_in *v = (const void *)a;
		inet_ntop(AF_INET, &v->sin_addr, ip, sizeof ip);
		snprintf(out, n, "%s:%u", ip, ntohs(v->sin_port));
	}
}
