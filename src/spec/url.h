#ifndef SPEC_URL_H
#define SPEC_URL_H
/* URLs as Go's net/url parses and prints them. Any thread, no blocking. Error texts as net/url ("parse "...": ..."). */
#include "base/base.h"

struct spec_url {
	char *scheme; /* lower case; members are never NULL once parsed */
	char *opaque;
	bool has_user, has_password;
	char *user, *password; /* decoded */
	char *host;            /* with the port, decoded */
	char *path;            /* decoded */
	char *raw_path;        /* "" when the default encoding of path is what was given */
	char *raw_query;       /* without '?' */
	char *fragment;        /* decoded */
	char *raw_fragment;
	bool force_query, omit_host;
};
#define _cleanup_spec_url_ __attribute__((cleanup(spec_url_fini)))
int spec_url_parse(const char *s, struct spec_url *ret, struct err *e);
char *spec_url_format(const struct spec_url *u);       /* URL.String, heap */
char *spec_url_redacted(const struct spec_url *u);     /* the password as xxxxx, heap */
char *spec_url_escaped_path(const struct spec_url *u); /* heap */
void spec_url_fini(struct spec_url *u);

struct spec_query { /* the parameters in the order given; one key may come several times */
	struct strvec keys, values;
};
/* The good parameters are returned even when one is bad; -1 tells of the first bad one. */
int spec_query_parse(const char *s, struct spec_query *ret, struct err *e);
const char *spec_query_get(const struct spec_query *q, const char *key); /* first value, NULL when absent; borrowed */
void spec_query_fini(struct spec_query *q);
char *spec_query_escape(const char *s); /* url.QueryEscape, heap */
char *spec_path_escape(const char *s);  /* url.PathEscape, heap */
int spec_query_unescape(const char *s, char **ret, struct err *e);
int spec_path_unescape(const char *s, char **ret, struct err *e);
#endif
