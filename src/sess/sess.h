#ifndef SESS_SESS_H
#define SESS_SESS_H
/* The session protocol, daemon side. A client offers a session (Control/Session); over that stream the daemon runs an
 * HTTP/2 client of its own and asks: files, credentials, secrets, ssh, uploads, content; or sends results.
 *
 * Rules for all that starts something here:
 *  1. Loop thread, not blocking, unless said otherwise. Arguments are borrowed for the call only, unless said otherwise.
 *  2. Each start answers a `struct sess_op *`, never NULL. Its done callback runs exactly once, later, on the loop and
 *     never from within the start; also after sess_op_cancel (CANCELLED) and when the session ends (UNAVAILABLE, "session
 *     <id> ended: ..."). In done, `e` is NULL on success; the op is gone when done returns. What done is given is borrowed.
 *  3. An operation holds its session; a session that has ended stays readable until its last holder lets go.
 *  4. Where a struct loop_pipe is answered, it is the job side and the caller owns that reference (loop_pipe_unref).
 * Source: BuildKit session/ and fsutil; /work/shared/reference/02-session.md. */
#include "base/base.h"
#include "loop/loop.h"
#include "sess/types.h"

struct wire_call;
struct wire_conn;
struct tree_index;
struct spec_patterns;
struct sess;
struct sess_manager;
struct sess_op;

/* ---- sessions ---- */
struct sess_manager *sess_manager_new(struct loop *l);
void sess_manager_free(struct sess_manager *m); /* ends all sessions; nothing may be under way. NULL allowed */
/* Take over a Control/Session call (server role): reads its metadata, opens the tunnel, watches the client's health.
 * A later session of the same id takes the name over. On bad metadata the call is ended with the error. */
void sess_accept(struct sess_manager *m, struct wire_call *call);
/* A reference for the caller, or NULL. "prefix:id" finds id. */
struct sess *sess_find(struct sess_manager *m, const char *id);
/* Waits until the session is there: DEADLINE_EXCEEDED "no active session for <id>: context deadline exceeded". The
 * session in done is borrowed: sess_ref it. */
struct sess_op *sess_wait(struct sess_manager *m, const char *id, uint64_t timeout_ms,
			  void (*done)(void *arg, struct sess *s, const struct err *e), void *arg);
enum { SESS_WAIT_MS = 5000 };            /* the usual limit */
void sess_op_cancel(struct sess_op *op); /* done follows, with CANCELLED or with what came first */
struct sess *sess_ref(struct sess *s);
void sess_unref(struct sess *s); /* NULL allowed */
static inline void sess_unrefp(struct sess **s) { sess_unref(*s); }
#define _cleanup_sess_ __attribute__((cleanup(sess_unrefp)))
const char *sess_id(const struct sess *s);
const char *sess_shared_key(const struct sess *s); /* "" when none */
const char *sess_name(const struct sess *s);
bool sess_alive(const struct sess *s);
/* method as "/moby.filesync.v1.FileSync/DiffCopy", letters of either case. */
bool sess_supports(const struct sess *s, const char *method);
void sess_close(struct sess *s, const struct err *why); /* ends it; its operations fail */
/* Called once when the session ends; node is the caller's, unlinked by list_del (or sess_watch_stop) at any time. */
struct sess_watch {
	void (*ended)(struct sess_watch *w, const struct err *why);
	struct list link;
};
void sess_watch_start(struct sess *s, struct sess_watch *w); /* check sess_alive first */
static inline void sess_watch_stop(struct sess_watch *w) { list_del(&w->link); }
size_t sess_count(const struct sess_manager *m);

/* ---- any unary call (exporters, source policy, ...): packed messages in and out. md: NULL or "key: value" pairs as
 * k0, v0, k1, v1, ... timeout_ms 0: none. */
typedef void sess_bytes_fn(void *arg, const uint8_t *p, size_t n, const struct err *e);
struct sess_op *sess_call(struct sess *s, const char *method, const void *req, size_t n, char *const *md, size_t n_md,
			  uint64_t timeout_ms, sess_bytes_fn *done, void *arg);

/* ---- files from the client ---- */
enum sess_differ { SESS_DIFFER_METADATA, SESS_DIFFER_NONE };
struct sess_filesync_req {
	const char *name;                                        /* "context", "dockerfile", ... */
	const struct strvec *includes, *excludes, *follow_paths; /* NULL: the attribute was not set */
	int dest_fd;                                             /* directory that mirrors the client; borrowed until done */
	const char *trash; /* path of a directory to be made on the same disk that takes what is gone; NULL: it is deleted at
			      once */
	/* What dest holds (an empty index at first): replaced by what it holds then, not to be touched until done. */
	struct tree_index **index;
	enum sess_differ differ;
	bool metadata_only; /* local.metadatatransfer: STATs into .fsutil-metadata, only what metadata_exceptions match is there
			     */
	const struct strvec *metadata_exceptions; /* NULL: none */
	bool override_owner;                      /* all is owned by uid, gid */
	uint32_t uid, gid;
	/* Loop thread, at most each 100 ms and once at the end. May be NULL. */
	void (*progress)(void *arg, uint64_t bytes);
	void (*done)(void *arg, const struct sess_filesync_stats *st, const struct err *e);
	void *arg;
};
/* The receiver: STATs are compared with the index, files are written and hashed by a job, the index follows the disk.
 * An entry that is as before is left alone only when its stamp proves it: our own client's dev, inode and ctime, or an
 * mtime with a nanosecond part, not in the future and not shared with another file of this listing. Anything else is
 * asked for again and compared by content.
 * On failure dest holds what the index says (files under way are removed again), so both may be used for the next try.
 * NOT_FOUND "no access allowed to dir "x"" when the client does not share that name: try another session. */
struct sess_op *sess_filesync_start(struct sess *s, const struct sess_filesync_req *req);

/* ---- results to the client ---- */
typedef void sess_done_fn(void *arg, const struct err *e);
/* One file (oci, docker, tar exporter): a job writes into *ret_pipe and closes it; done when the client has it all.
 * md: pairs k, v that go as exporter-md-<k>. When the client wants nothing (ALREADY_EXISTS) done is success and the
 * job's write fails with ALREADY_EXISTS: the job stops there, which is no failure. */
struct sess_op *sess_filesend_file(struct sess *s, unsigned exporter, char *const *md, size_t n_md, struct loop_pipe **ret_pipe,
				   sess_done_fn *done, void *arg);
/* Directories (local exporter), see types.h for the roots. Everything that is pointed at must stay until done. */
struct sess_filesend_dir_req {
	unsigned exporter;
	const struct sess_send_root *roots; /* one; or several with different tops */
	size_t n_roots;
	bool multi_platform; /* mode=delete: says that this call carries all platforms */
	bool override_owner;
	uint32_t uid, gid;
	bool override_mtime; /* SOURCE_DATE_EPOCH, for all but extras and tops */
	int64_t mtime_ns;
	void (*progress)(void *arg, uint64_t bytes); /* as above, may be NULL */
	sess_done_fn *done;
	void *arg;
};
struct sess_op *sess_filesend_dir(struct sess *s, const struct sess_filesend_dir_req *req);

/* ---- credentials: UNIMPLEMENTED and UNAVAILABLE are told as they are; 60 s each ---- */
struct sess_op *sess_auth_credentials(struct sess *s, const char *host,
				      void (*done)(void *arg, const char *user, const char *secret, const struct err *e),
				      void *arg);
struct sess_token_req {
	const char *client_id, *host, *realm, *service;
	char *const *scopes;
	size_t n_scopes;
};
struct sess_op *sess_auth_token(struct sess *s, const struct sess_token_req *req,
				void (*done)(void *arg, const char *token, int64_t expires_in_s, int64_t issued_at_unix,
					     const struct err *e),
				void *arg);
struct sess_op *sess_auth_authority(struct sess *s, const char *host, const void *salt, size_t n, sess_bytes_fn *done,
				    void *arg);
struct sess_op *sess_auth_verify(struct sess *s, const char *host, const void *payload, size_t n_payload, const void *salt,
				 size_t n_salt, sess_bytes_fn *done, void *arg);

/* ---- secrets: NOT_FOUND "secret <id>: not found" also when the client serves none ---- */
struct sess_op *sess_secret(struct sess *s, const char *id, sess_bytes_fn *done, void *arg);

/* ---- ssh agent: id NULL or "" is "default" ---- */
/* "no SSH key "<id>" forwarded from the client" when the client serves none. */
struct sess_op *sess_ssh_check(struct sess *s, const char *id, sess_done_fn *done, void *arg);
/* Bridge one connected stream socket (owned from here on) to the client's agent; ends by itself. */
void sess_ssh_forward(struct sess *s, const char *id, int fd);
/* A listening unix socket `<dir>/ssh_auth_sock` in a fresh temporary directory (mode 0711) for containers. Blocks on a
 * few small file operations. Stop closes and removes it; bridges under way go on. */
struct sess_ssh;
int sess_ssh_listen(struct sess *s, const char *id, uid_t uid, gid_t gid, mode_t mode, struct sess_ssh **ret, struct err *e);
const char *sess_ssh_path(const struct sess_ssh *l);
void sess_ssh_stop(struct sess_ssh *l); /* NULL allowed */

/* ---- upload: the bytes of http://buildkit-session/<path>; a job reads *ret_pipe to its end, which carries errors too ---- */
struct sess_op *sess_upload(struct sess *s, const char *url_path, const char *url_host, struct loop_pipe **ret_pipe,
			    sess_done_fn *done, void *arg);

/* ---- the client's content stores: "local:<dir>", "oci:<name>", "export" ---- */
struct sess_op *sess_content_info(struct sess *s, const char *store, const char *digest,
				  void (*done)(void *arg, int64_t size, const struct err *e), void *arg);
/* size 0: to the end. A job reads *ret_pipe. */
struct sess_op *sess_content_read(struct sess *s, const char *store, const char *digest, int64_t offset, int64_t size,
				  struct loop_pipe **ret_pipe, sess_done_fn *done, void *arg);
/* A job writes the blob's bytes into *ret_pipe and closes it; then it is committed. A blob that is there already is success
 * (the job's write fails with ALREADY_EXISTS). labels: pairs k, v. */
struct sess_op *sess_content_write(struct sess *s, const char *store, const char *ref, const char *digest, int64_t size,
				   char *const *labels, size_t n_labels, struct loop_pipe **ret_pipe, sess_done_fn *done,
				   void *arg);
#endif
