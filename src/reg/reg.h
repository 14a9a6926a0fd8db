#ifndef REG_REG_H
#define REG_REG_H
/* The registry client (libcurl) and the plain HTTP client that shares its TLS, proxy and cancel code.
 *
 *  1. The transfer functions block: call them from a LOOP_NET job (or any thread that is not the loop). Each takes a
 *     struct reg_io, which one thread uses at a time; struct reg_client and struct reg_config are shared by all threads.
 *  2. Everything that is received is verified: digest and size of each body. What a peer sizes is bounded.
 *  3. Credentials go to the host that asked (host and port), never to a mirror of it nor to where a redirect leads.
 *  4. A host's failure is answered by the next host (mirrors in order, then the origin); when all fail, the error is the
 *     first host's, as BuildKit has it.
 *  5. HTTP/1.1 only: a transfer is a connection. Idle connections are kept (up to 118 s) and used again by host.
 *  6. Sockets: never more than N + 1 to one host, N of them with blobs (reg_client_set_limit); who is over waits, documents
 * first. HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY (either case) are honoured, but never for localhost and loopback
 * addresses, as Go has it. SSL_CERT_FILE and SSL_CERT_DIR say where the system's authorities are. Sources: OCI
 * distribution-spec; containerd core/remotes/docker; BuildKit util/resolver; reference 05 §4-5, 02 §6, 06 §5.
 */
#include "base/base.h"
#include "spec/ref.h"
#include <pthread.h>
#include <stdatomic.h>

/* ---- configuration: registry."<host>" of buildkitd.toml ---- */
enum reg_tri { REG_UNSET, REG_NO, REG_YES };
struct reg_keypair {
	const char *key, *cert; /* PEM files */
};
/* A mirror with settings of its own; no TLS files and http unset: as the entry under its host's name says. */
struct reg_mirror_conf {
	const char *host; /* host[:port] */
	const char *path; /* "proxy.docker.io", prefix of repositories; NULL: none */
	enum reg_tri http, insecure;
	char *const *ca;
	size_t ca_count;
	const struct reg_keypair *keypairs;
	size_t keypair_count;
	char *const *tls_config_dirs;
	size_t tls_config_dir_count;
	const char *credentials; /* file of one line USER:PASSWORD; NULL: auth() is asked */
	bool no_fallback;        /* its failure is the answer: no later host is asked */
};
/* One entry; everything is borrowed and copied by reg_config_new. */
struct reg_host_conf {
	const char *name; /* domain as in references: "docker.io", "localhost:5000"; "*.corp", "*": the most specific wins */
	char *const *mirrors; /* "host[:port][/path]" or a URL, whose scheme is ignored */
	size_t mirror_count;
	const struct reg_mirror_conf *own_mirrors; /* asked behind mirrors, in order */
	size_t own_mirror_count;
	size_t max_concurrency; /* transfers at once; 0: the global limit */
	enum reg_tri http, insecure;
	char *const *ca; /* PEM files, added to the system's */
	size_t ca_count;
	const struct reg_keypair *keypairs;
	size_t keypair_count;
	char *const *tls_config_dirs; /* each holds *.crt (CA) and X.cert with X.key */
	size_t tls_config_dir_count;
};
struct reg_config; /* immutable, reference counted; any thread */
struct reg_config *reg_config_new(const struct reg_host_conf *hosts, size_t n);
/* For a push with registry.insecure=true: that domain alone, without mirrors, https unverified, then http. */
struct reg_config *reg_config_new_insecure(const char *domain);
struct reg_config *reg_config_ref(const struct reg_config *c);
void reg_config_unref(struct reg_config *c); /* NULL allowed */

/* ---- the shared client: idle connections, token cache, hosts that fell back to http. Any thread ---- */
struct reg_client;
struct reg_client *reg_client_new(void);
/* Connections a host with transfers, beside one more for documents; where the configuration says nothing. 0: 4. Sockets that
 * are open and idle count: there are never more than limit + 1. */
void reg_client_set_limit(struct reg_client *c, size_t limit);
void reg_client_free(struct reg_client *c);                        /* no transfer may be under way */
void reg_client_trim(struct reg_client *c, int64_t older_than_ms); /* close what was idle that long; for a timer */

/* ---- authentication ---- */
struct reg_challenge {
	const char *host;            /* who asks: "registry-1.docker.io", "localhost:5000" */
	bool basic;                  /* user and secret are needed; a token is of no use */
	const char *realm, *service; /* bearer; service may be "" */
	const char *const *scopes;   /* bearer: "repository:library/alpine:pull", normalised and sorted */
	size_t scope_count;
};
enum reg_answer_kind {
	REG_ANONYMOUS, /* no credentials: ask the realm without */
	REG_CREDS,     /* user and secret: we ask the realm; an empty user means that the secret is an identity token */
	REG_TOKEN,     /* the client fetched a bearer token itself (session FetchToken) */
};
struct reg_answer { /* heap strings, taken over by reg */
	enum reg_answer_kind kind;
	char *user, *secret;
	char *token;
	int64_t expires_in_s; /* 0: 60 s */
	int64_t issued_at;    /* unix time, 0: now */
};

struct reg_io;
struct reg_token_req {
	const char *host, *realm, *service;
	char *const *scopes;
	size_t n_scopes;
	const char *user, *secret; /* secret "": anonymous; an empty user: an identity token */
};
/* Ask a realm for a bearer token: by POST, by GET where that is not served; anonymously by GET. What a client does for a daemon
 * (session FetchToken). ret: token, times. Job, blocks. */
int reg_fetch_token(struct reg_io *io, const struct reg_token_req *req, struct reg_answer *ret, struct err *e);

/* ---- what a transfer needs: set the public members after reg_io_init; borrowed, they outlive the transfer ---- */
struct reg_io {
	struct reg_client *client;
	const struct reg_config *config; /* NULL: no entry for any host */
	const atomic_bool *cancelled;    /* read at each chunk and every 100 ms; e.g. &job->cancelled; may be NULL */
	/* Called in the transferring thread, may block, at most once per challenge; NULL: anonymous. A -1 ends the transfer. */
	int (*auth)(void *ctx, const struct reg_challenge *c, struct reg_answer *ret, struct err *e);
	void *auth_ctx;
	/* Whose credentials auth() gives for that host: keys the token cache, so it must be proven. Heap; NULL: see authority.
	 * Called with auth_ctx in the transferring thread, may block, only where tokens are in use. May be NULL. */
	char *(*identity)(void *ctx, const char *host);
	const char *authority;                     /* the same as a constant, where identity is not set or says NULL */
	void (*note)(void *ctx, const char *line); /* "error: ...\n", "retrying in 1s\n" for the step's log; may be NULL */
	void *note_ctx;
	const struct log_span *span; /* for debug lines; may be NULL */
	unsigned retry_first_ms;     /* first pause, doubled each time; init: 1000 */
	unsigned retry_stop_ms;      /* no retry once the pause reaches this; init: 8000, so 3 retries */
	/* private */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	void *multi;
	bool stop;
};
void reg_io_init(struct reg_io *io, struct reg_client *client, const struct reg_config *config);
void reg_io_fini(struct reg_io *io);
/* End the transfer now: it fails with CANCELLED. Any thread, no blocking; later transfers of this io fail too. */
void reg_io_cancel(struct reg_io *io);

/* Where received bytes go. write: 0, or -1 with *e to end the transfer (that error is the transfer's). Called in order. */
struct reg_sink {
	int (*write)(void *ctx, const void *p, size_t n, struct err *e);
	int (*rewind)(void *ctx, struct err *e); /* forget all that was written: wrong bytes came from one host and the next is
						    tried. NULL: cannot */
	void *ctx;
};
/* Where sent bytes come from: fills buf from offset on; the count (> 0 while offset < size), or -1 with *e. */
struct reg_body {
	ssize_t (*read)(void *ctx, uint64_t offset, void *buf, size_t n, struct err *e);
	void *ctx;
};
struct reg_sink reg_sink_buf(struct buf *b); /* into b; set b->max: more is RESOURCE_EXHAUSTED */
struct reg_body reg_body_fd(const int *fd);  /* pread; *fd is borrowed */

/* ---- pull. All: job, block. Errors: NOT_FOUND, UNAUTHENTICATED, PERMISSION_DENIED, UNAVAILABLE (network, 5xx),
 * DATA_LOSS (digest or size differ), RESOURCE_EXHAUSTED (too large, 429), CANCELLED, DEADLINE_EXCEEDED, UNKNOWN ---- */
enum { REG_MANIFEST_MAX = 4 << 20 };
struct reg_desc {
	char *digest;     /* "sha256:..." */
	char *media_type; /* resolve: without parameters; "" when the registry gave none */
	int64_t size;     /* bytes; -1: unknown */
};
void reg_desc_fini(struct reg_desc *d);
#define _cleanup_reg_desc_ __attribute__((cleanup(reg_desc_fini)))
/* Name to digest: HEAD (GET where HEAD will not do). ref needs a tag or digest. The text for a missing one is
 * "docker.io/library/x:latest: not found". ret_body (may be NULL): the verified manifest when it had to be fetched, else left
 * empty. */
int reg_resolve(struct reg_io *io, const struct spec_ref *ref, struct reg_desc *ret, struct buf *ret_body, struct err *e);
/* The manifest or index with that digest (size -1: any up to REG_MANIFEST_MAX; media_type NULL or "": any). ret_body is
 * appended to, on success only; ret_media_type (may be NULL): heap, what the registry said, else d's. */
int reg_fetch_manifest(struct reg_io *io, const struct spec_ref *ref, const struct reg_desc *d, struct buf *ret_body,
		       char **ret_media_type, struct err *e);
/* A blob from offset on into sink. A broken transfer is resumed by Range, also from the next host. The digest is
 * verified when offset is 0; from elsewhere only the size is, and the caller verifies the whole. */
int reg_fetch_blob(struct reg_io *io, const struct spec_ref *ref, const struct reg_desc *d, uint64_t offset,
		   const struct reg_sink *sink, struct err *e);
/* A small blob (an image config) as bytes: fetch_blob into ret, at most max_bytes. */
int reg_fetch_bytes(struct reg_io *io, const struct spec_ref *ref, const struct reg_desc *d, size_t max_bytes, struct buf *ret,
		    struct err *e);
/* The index of what refers to manifest `digest` (signatures, ...) in ref's repository: 1, 0 there is none, -1. Appended. */
int reg_fetch_referrers(struct reg_io *io, const struct spec_ref *ref, const char *digest, struct buf *ret, struct err *e);

/* 0 when some host of ref's has the blob; NOT_FOUND when none has. */
int reg_has_blob(struct reg_io *io, const struct spec_ref *ref, const char *digest, struct err *e);

/* ---- push (to the origin only). Job, block ---- */
enum reg_pushed { REG_PUSHED, REG_EXISTED, REG_MOUNTED };
/* HEAD; then POST, with a mount from another repository of the same registry when mount_from (its path; NULL: none) is
 * given; then one PUT. d's digest and size must be right: the registry refuses otherwise. */
int reg_push_blob(struct reg_io *io, const struct spec_ref *ref, const struct reg_desc *d, const struct reg_body *body,
		  const char *mount_from, enum reg_pushed *ret, struct err *e);
/* ref->tag set: to that tag; else by digest. The bytes' digest is computed here; ret_digest (may be NULL) gets it. */
int reg_push_manifest(struct reg_io *io, const struct spec_ref *ref, const char *media_type, const void *p, size_t n,
		      enum reg_pushed *ret, char ret_digest[DIGEST_STR], struct err *e);

/* ---- plain HTTP, for the http source. Job, block ---- */
struct reg_http_req {
	const char *method;           /* NULL: "GET"; "HEAD", ... */
	const char *url;              /* http or https */
	const struct strvec *headers; /* "Name: value"; Authorization and Cookie stay with the url's own host. NULL: none */
	const void *body;             /* for POST; NULL: none */
	size_t body_bytes;
	uint64_t max_bytes;          /* of a 2xx body; 0: unlimited */
	unsigned max_redirects;      /* 0: 10 */
	bool insecure;               /* certificates are not verified */
	bool decode;                 /* undo gzip and deflate of the answer (Content-Encoding) */
	const struct reg_sink *sink; /* gets the body of a 2xx answer, as sent unless decode is set; NULL: dropped */
};
struct reg_http_res {
	long status;
	char *reason;        /* "404 Not Found" */
	char *url;           /* the last one, after redirects */
	struct strvec names; /* header names, lower case, in order; values beside them */
	struct strvec values;
	int64_t content_length; /* -1: not said */
	struct buf error_body;  /* first 64,000 bytes of an answer that is not 2xx */
	char *hint;             /* private: what may be wrong with our certificate */
};
#define _cleanup_reg_http_res_ __attribute__((cleanup(reg_http_res_fini)))
/* Any HTTP status is a success (-1: no answer). An answer cut short is an error. Not retried: the caller knows what may be
 * repeated. */
int reg_http_do(struct reg_io *io, const struct reg_http_req *req, struct reg_http_res *ret, struct err *e);
const char *reg_http_header(const struct reg_http_res *r, const char *lower_name); /* first value, NULL: absent; borrowed */
void reg_http_res_fini(struct reg_http_res *r);

/* ---- admission: see reg_pools.h (loop thread) ---- */
#endif
