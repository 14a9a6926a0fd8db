#ifndef SESS_CLIENT_H
#define SESS_CLIENT_H
/* The session protocol, client side: what our CLI offers to a daemon (ours or BuildKit's) while a build runs.
 * Set up with the add functions, then start it on a connection; from then on everything is served by itself.
 * Loop thread, not blocking, unless said otherwise; strings are copied. */
#include "base/base.h"
#include "loop/loop.h"

struct wire_conn;
struct wire_call;
struct sess_client;

struct sess_client *sess_client_new(struct loop *l, const char *shared_key); /* shared_key may be NULL */
const char *sess_client_id(const struct sess_client *c);                     /* for SolveRequest.Session */
/* Ends the session if it runs; freed when all jobs have ended. NULL allowed. */
void sess_client_free(struct sess_client *c);

/* ---- what is served ---- */
/* Directory `path` as `name` ("context", "dockerfile", ...). Files go out as uid and gid 0, with the proof of freshness
 * (dev, inode, ctime) that our daemon understands and others ignore. */
void sess_client_add_dir(struct sess_client *c, const char *name, const char *path);
/* Result of exporter `index` as one stream. open() is called on the loop when the daemon begins; md: pairs k, v. It answers
 * 1 and an fd to write to (taken over, closed at the end; a pipe or file), 0: not wanted (ALREADY_EXISTS), -1: refused.
 * closed() (may be NULL) is called when all is written, or with the error. */
struct sess_client_output {
	unsigned index;
	int (*open)(void *arg, char *const *md, size_t n_md, int *ret_fd, struct err *e);
	void (*closed)(void *arg, const struct err *e);
	void *arg;
};
void sess_client_add_output(struct sess_client *c, const struct sess_client_output *o);
/* Result of exporter `index` as files below `path` (made when missing). Merges into what is there; with delete_rest it
 * becomes a mirror (needs a daemon that sends all platforms in one call). */
void sess_client_add_output_dir(struct sess_client *c, unsigned index, const char *path, bool delete_rest);
/* Registry credentials from a docker config.json (NULL: $DOCKER_CONFIG/config.json or ~/.docker/config.json): auths,
 * credsStore, credHelpers. Read when asked. */
void sess_client_add_auth(struct sess_client *c, const char *config_path);
/* Bearer tokens are fetched by the client itself from now on, by this function: it asks the realm, with the credentials found
 * for the host (secret "": anonymously). Called in jobs, may block; arg outlives the loop's jobs. After sess_client_add_auth. */
struct sess_token_ask {
	const char *host, *realm, *service;
	char *const *scopes;
	size_t n_scopes;
	const char *user, *secret; /* an empty user: the secret is an identity token */
	const atomic_bool *cancelled;
};
struct sess_token {
	char *token; /* heap */
	int64_t expires_in_s, issued_at; /* 0: not said */
};
void sess_client_set_token_fetch(struct sess_client *c,
				 int (*fetch)(void *arg, const struct sess_token_ask *q, struct sess_token *ret, struct err *e), void *arg);
void sess_client_add_secret_file(struct sess_client *c, const char *id, const char *path);
void sess_client_add_secret_env(struct sess_client *c, const char *id, const char *env);
void sess_client_add_secret_bytes(struct sess_client *c, const char *id, const void *p, size_t n);
/* An agent's socket, or $SSH_AUTH_SOCK when path is NULL. INVALID_ARGUMENT when there is none, or it is no socket (key files
 * need an agent: say `ssh-add`). id NULL: "default". */
int sess_client_add_ssh(struct sess_client *c, const char *id, const char *path, struct err *e);
/* Serve fd (taken over) once as http://buildkit-session/<id>; answers the id (owned by c). */
const char *sess_client_add_upload(struct sess_client *c, int fd);
/* An OCI layout or a cache directory on disk as a content store: id "oci:<name>", "local:<dir>" or "export". */
void sess_client_add_content(struct sess_client *c, const char *id, const char *dir, bool writable);
/* Any other method: handler takes the call over (wire/wire.h). */
void sess_client_add_method(struct sess_client *c, const char *method, void (*handler)(void *arg, struct wire_call *call),
			    void *arg);

/* ---- run ---- */
/* Open Control/Session on conn and serve. ended(arg, e) is called once: e NULL when we or the daemon closed it cleanly. */
int sess_client_start(struct sess_client *c, struct wire_conn *conn, void (*ended)(void *arg, const struct err *e), void *arg,
		      struct err *e);
void sess_client_stop(struct sess_client *c); /* close it; ended follows */
/* Bytes sent as files so far, for a progress line. */
uint64_t sess_client_sent_bytes(const struct sess_client *c);
#endif
