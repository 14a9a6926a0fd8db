#ifndef REG_INTERNAL_H
#define REG_INTERNAL_H
/* Inside reg. Layers, each using only those above it in this list: config (which hosts), challenge (pure parsing), tls,
 * client (idle handles, token cache), exchange (one request, one answer), request (auth, redirects, hosts' errors),
 * pull, push, http. Everything may run in any thread unless it blocks, which exchange and all below do. */
#include "reg/reg.h"
#include <curl/curl.h>
#include <openssl/ssl.h>

#define REG_USER_AGENT "buildkit/v0.32 slipway/0.1" /* registries and tests look for the first word */
enum { REG_ERROR_BODY_MAX = 64000, REG_REDIRECTS = 10 };

/* ---- config.c ---- */
struct reg_entry { /* a copy of a reg_host_conf */
	char *name;
	struct strvec mirrors, ca, certs, keys, dirs;
	enum reg_tri http, insecure;
	size_t max_concurrency; /* 0: the global limit */
	struct reg_own *own;    /* mirrors with settings of their own */
	size_t n_own;
};
struct reg_own {
	char *host, *path, *credentials;
	bool no_fallback;
	struct reg_entry entry;
};
struct reg_config {
	atomic_uint refs;
	uint64_t serial; /* tells configurations apart in keys of idle handles */
	struct reg_entry *entries;
	size_t n;
};
/* A place to ask, in the order of asking. */
struct reg_host {
	char *host;                    /* host[:port] of the URL */
	char *path;                    /* "/v2", "/v2/proxy.docker.io" */
	bool http;                     /* plain */
	bool insecure;                 /* certificates are not verified */
	bool fallback;                 /* http when https turns out not to be spoken */
	bool mirror;                   /* pull only */
	bool ns;                       /* tell it the domain: ?ns= */
	bool no_fallback;              /* its failure is final */
	const struct reg_entry *entry; /* TLS files; NULL: none. Borrowed from the config */
	const char *credentials;       /* file of the daemon's own; NULL: the client is asked. Borrowed too */
};
struct reg_hosts {
	struct reg_host *v;
	size_t n, cap;
};
void reg_hosts_of(const struct reg_config *c, const char *domain, struct reg_hosts *ret);
size_t reg_config_limit(const struct reg_config *c, const char *domain); /* transfers at once; 0: the global limit */
void reg_hosts_fini(struct reg_hosts *h);
#define _cleanup_reg_hosts_ __attribute__((cleanup(reg_hosts_fini)))
bool reg_is_localhost(const char *host); /* host[:port] */
bool reg_has_port(const char *host);
void reg_mirror_parse(const char *mirror, char **ret_host, char **ret_path); /* path: "/v2..." */

/* ---- challenge.c ---- */
struct reg_auth_param {
	char *key, *value; /* key lower case */
};
struct reg_auth {
	bool bearer; /* else basic */
	struct reg_auth_param *v;
	size_t n, cap;
};
/* One WWW-Authenticate value. False: neither bearer nor basic, or no scheme at all. */
bool reg_auth_parse(const char *value, struct reg_auth *ret);
const char *reg_auth_get(const struct reg_auth *a, const char *key); /* "" when absent */
void reg_auth_fini(struct reg_auth *a);
/* Adds each scope of a space-separated list, merging the actions of one resource; keeps sv normalised and sorted. */
void reg_scopes_add(struct strvec *sv, const char *list);
bool reg_scopes_contain(const struct strvec *have, const struct strvec *want);
/* What a registry says in an error body ("denied: requested access to the resource is denied"); NULL: nothing of the kind.
 * Heap. */
char *reg_error_text(const void *body, size_t n);

/* ---- tls.c ---- */
struct reg_tls; /* loaded certificates */
int reg_tls_load(const struct reg_entry *entry /* NULL: none */, bool with_keys, bool insecure, struct reg_tls **ret,
		 struct err *e);
const char *reg_tls_hint(const struct reg_tls *t); /* why the server may refuse us; NULL: nothing to say. Borrowed */
void reg_tls_free(struct reg_tls *t);
int reg_tls_apply(struct reg_tls *t, SSL_CTX *ctx); /* from curl's CURLOPT_SSL_CTX_FUNCTION; 0 or -1 */

/* ---- proxy.c ---- */
char *reg_proxy_for(const char *url); /* heap; NULL: none */
bool reg_no_proxy(const char *list, const char *host_port, const char *default_port);

/* ---- client.c ---- */
enum reg_lane_kind {
	REG_LANE_DOC,  /* manifests, configs, and all that has hardly a body: may use the one connection more */
	REG_LANE_BLOB, /* a transfer */
	REG_LANE_NONE, /* not counted: ADD from anywhere */
};
struct reg_want {
	struct reg_io *io;
	const char *origin;
	const struct reg_config *config;
	const struct reg_entry *entry; /* NULL: no TLS files */
	bool with_keys, insecure;      /* client certificates too; no verification */
	enum reg_lane_kind kind;
	size_t limit; /* 0: the client's */
};
struct reg_handle { /* a connection's worth: used by one transfer at a time */
	CURL *easy;
	CURLM *multi;
	struct reg_tls *tls;
	char *key, *host;
	enum reg_lane_kind kind; /* of the transfer that has it */
	int64_t idle_since_ms;
	struct list link;
};
/* Waits until the host has a connection to spare; reads certificate files when the handle is new. */
int reg_handle_get(struct reg_client *c, const struct reg_want *want, struct reg_handle **ret, struct err *e);
void reg_handle_put(struct reg_client *c, struct reg_handle *h); /* NULL allowed */
/* Authorization values by key; heap or NULL. */
char *reg_token_get(struct reg_client *c, const char *key);
void reg_token_put(struct reg_client *c, const char *key, const char *authorization, int64_t valid_ms);
void reg_token_drop(struct reg_client *c, const char *key, const char *authorization);
bool reg_token_any(struct reg_client *c, const char *host); /* one for this host, of whomever */
bool reg_say_once(struct reg_client *c, const char *what);  /* false: it was said within the last minute */
bool reg_fell_back(struct reg_client *c, const char *host);
void reg_fall_back(struct reg_client *c, const char *host);
/* Hosts that timed out lately: the error they gave (heap), or NULL. */
char *reg_host_down(struct reg_client *c, const char *host);
void reg_host_set_down(struct reg_client *c, const char *host, const char *error);
bool reg_io_stopped(struct reg_io *io);
int reg_io_sleep(struct reg_io *io, int64_t ms, struct err *e); /* -1 CANCELLED */

/* ---- exchange_job.c ---- */
enum reg_fail_kind {
	FAIL_NONE,
	FAIL_FINAL,   /* cancelled, the sink's or body's error, bad configuration: no other host will help */
	FAIL_REFUSED, /* no connection */
	FAIL_TIMEOUT,
	FAIL_BROKEN,  /* reset or cut short */
	FAIL_NAME,    /* the name server did not answer */
	FAIL_NOT_TLS, /* https to something that does not speak it */
	FAIL_NETWORK, /* names, certificates and other things that do not pass by themselves */
	FAIL_STATUS,  /* an answer, but not the one wanted */
	FAIL_AUTH,    /* our authorization was refused */
	FAIL_CONTENT, /* the wrong bytes */
};
struct reg_fail {
	enum reg_fail_kind kind;
	long status;
	int64_t retry_after_ms; /* 0: not said */
	bool elsewhere;         /* the answer came from where a redirect led */
};
struct reg_exchange {
	struct reg_io *io;
	/* request */
	const char *method, *url;
	const struct strvec *headers;
	const char *authorization;   /* value or NULL */
	const struct reg_body *body; /* NULL: none */
	uint64_t body_bytes;
	const struct reg_config *config;
	const struct reg_entry *entry;
	bool with_keys, insecure;
	enum reg_lane_kind kind;
	size_t limit;   /* of connections to the host; 0: the client's */
	bool impatient; /* there is another host to ask: shorter waiting */
	bool decode;    /* undo Content-Encoding */
	/* Called once when the header of the answer is complete; answers whether the body is wanted (1), or not (0), or -1 with
	 * *e. Without it the body of a 2xx answer is wanted. */
	int (*on_head)(void *ctx, const struct reg_http_res *head, struct err *e);
	int (*on_data)(void *ctx, const void *p, size_t n, struct err *e);
	void *ctx;
};
/* One request to one URL; redirects are answers. On -1 ret_fail says of which kind. res is initialised here. */
int reg_exchange(const struct reg_exchange *x, struct reg_http_res *ret, struct reg_fail *ret_fail, struct err *e);
/* The URL with the values of its query hidden (but ns), and without password. Heap. */
char *reg_url_show(const char *url);
/* "scheme://host[:port]" with the default port left out; NULL when it is no http(s) URL. Heap. */
char *reg_url_origin(const char *url);
char *reg_url_join(const char *base, const char *location); /* heap; NULL: not a URL */
char *reg_url_host(const char *url);                        /* host[:port] as written; heap, NULL */
int64_t reg_retry_after_ms(const char *value, time_t now);  /* seconds or date; 0: none */
void reg_log_request(const struct reg_exchange *x);
void reg_log_response(const struct reg_exchange *x, const struct reg_http_res *r);
void reg_count(const struct reg_exchange *x, CURL *c, const struct reg_http_res *r /* NULL: it failed: f */,
	       const struct reg_fail *f);

/* ---- auth_job.c ---- */
/* The authorization of one request: what was sent, and what a 401 leads to. */
struct reg_authz {
	struct reg_io *io;
	const struct reg_host *host;
	const struct strvec *scopes; /* what the request needs */
	char *value;                 /* of the Authorization header; NULL: none */
	char *key;                   /* of value in the token cache */
	struct strvec held;          /* scopes of value */
	char *identity;              /* whose credentials: keys the cache. NULL: not asked yet */
	int fetched;                 /* how many were fetched for this request */
};
void reg_authz_init(struct reg_authz *a, struct reg_io *io, const struct reg_host *host, const struct strvec *scopes);
/* After a 401: 1 try again with the new value; 0 the 401 is the answer; -1 with *e and *f. */
int reg_authz_challenge(struct reg_authz *a, const struct reg_http_res *r, struct reg_fail *f, struct err *e);
void reg_authz_fini(struct reg_authz *a);

/* ---- request_job.c ---- */
struct reg_request {
	struct reg_io *io;
	const char *method, *url;
	const struct reg_host *host;  /* TLS files, fallback; answers challenges. NULL: none of these */
	const struct strvec *scopes;  /* NULL: challenges are not answered */
	const char *authorization;    /* fixed; for scopes NULL */
	const struct strvec *headers; /* Authorization and Cookie do not follow to another origin */
	const struct reg_body *body;
	uint64_t body_bytes;
	enum reg_lane_kind kind; /* for host NULL: not counted */
	unsigned redirects;      /* 0: REG_REDIRECTS */
	bool insecure;           /* for host NULL */
	bool decode;
	int (*on_head)(void *ctx, const struct reg_http_res *head, struct err *e); /* as in reg_exchange */
	int (*on_data)(void *ctx, const void *p, size_t n, struct err *e);
	void *ctx;
};
/* With authorization, redirects and the fallback to http. 0: some status in ret. */
int reg_request(const struct reg_request *rq, struct reg_http_res *ret, struct reg_fail *f, struct err *e);
/* The error of an answer that was not wanted, in containerd's words. -1; *f is filled in. */
int reg_status_err(const struct reg_request *rq, const struct reg_http_res *r, struct reg_fail *f, struct err *e);
char *reg_host_url(struct reg_io *io, const struct reg_host *h, const struct spec_ref *ref, const char *kind,
		   const char *object);

/* One operation over hosts and in time: try_host is asked for each host in order until one succeeds (0); when all failed
 * and the last one's failure may pass, again after a pause. */
struct reg_op {
	struct reg_io *io;
	const struct spec_ref *ref;
	struct reg_hosts hosts;
	struct strvec scopes;
	void *ctx;
	int (*try_host)(struct reg_op *op, const struct reg_host *h, struct reg_fail *f, struct err *e);
	uint64_t (*progressed)(struct reg_op *op); /* bytes since last asked: the pauses begin anew. NULL: none */
	bool ranked; /* of the hosts' errors the one that got furthest is told (resolve), else the first */
};
int reg_op_init(struct reg_op *op, struct reg_io *io, const struct spec_ref *ref, bool push, struct err *e);
int reg_op_run(struct reg_op *op, struct err *e);
void reg_op_fini(struct reg_op *op);
#define _cleanup_reg_op_ __attribute__((cleanup(reg_op_fini)))
int reg_digest_check(const char *digest, struct err *e); /* sha256 only */
#endif
