#ifndef OPS_GIT_JOB_H
#define OPS_GIT_JOB_H
/* What the git program does for a source: resolve a ref, fetch into the shared bare repository of a remote, read objects,
 * check out. Job; blocks; no loop. One job at a time works on one remote.
 *
 *  1. git sees no configuration but what we give it, and asks nobody (HOME and global config are /dev/null).
 *  2. Authorization goes by environment, never on a command line that others can read.
 *  3. URLs in errors and logs are shown without credentials. */
#include "llb/llb.h"
#include "ops/ops.h"
#include "snap/snap.h"

struct ops_joblog;
struct git_job {
	/* in */
	const struct llb_source *src;
	char *ref;                        /* heap; as asked; filled in when it was empty (the default branch) */
	char *auth;                       /* Authorization header's value; heap, NULL: none */
	const char *ssh_sock;             /* NULL: none */
	const char *tmp;                  /* folder for temporary files, made here when needed and removed by git_job_fini */
	int bundle_fd;                    /* the bundle, when there is one; borrowed, -1: none */
	const struct snap_view *repo;     /* bare repository; NULL: resolve only */
	bool repo_new;                    /* still empty */
	const struct snap_view *checkout; /* new snapshot; NULL: none */
	int64_t compat;                   /* 10: modes as before v0.15 */
	struct ops_joblog *log;           /* NULL: none */
	const atomic_bool *cancelled;
	/* in for a fetch, out of a resolve */
	char *digest, *name, *commit; /* heap; see struct ops_known */
	/* out */
	int64_t repo_bytes; /* on disk; -1: not known */
	bool repo_ok; /* the repository is worth keeping */
	bool reset;   /* failed in a way that a fresh repository would mend */
	uint8_t *commit_object, *tag_object;
	size_t commit_len, tag_len;
	struct err error;

	/* private */
	bool tmp_made;
	char *known_hosts, *staged; /* file; URL of the imported bundle */
	bool sha256;
};
/* What the ref means at the remote (or in the bundle): digest, name, commit. */
void git_job_resolve(struct git_job *j);
/* Fetch; then read the objects of digest when objects is set; verify the signature when the source wants it; then check out. */
void git_job_fetch(struct git_job *j, bool objects);
void git_job_fini(struct git_job *j); /* job: removes files */
bool git_is_commit(const char *s);
char *git_redact(const char *url); /* heap */

/* ---- private to the git files ---- */
struct git_cli {
	struct git_job *j;
	const char *dir, *tree; /* --git-dir, --work-tree; NULL: none */
	bool no_auth;
};
/* Ends with NULL. out may be NULL. 0; or -1 with "git stderr:\n...: exit status N". Tries again without --depth or with a
 * plain refspec where a server wants that. */
int git_run(const struct git_cli *g, struct buf *out, struct err *e, const char *arg, ...) __attribute__((sentinel));
int git_runv(const struct git_cli *g, struct buf *out, struct err *e, const struct strvec *args);
char *git_line(const struct buf *out); /* trimmed, heap */
int git_tmp(struct git_job *j, const char *name, char **ret_path, struct err *e);
int git_default_branch(const struct git_cli *g, const char *url, char **ret, struct err *e);
int git_init(const struct git_cli *g, bool bare, struct err *e);
int git_stage_bundle(struct git_job *j, struct err *e); /* sets j->staged and sha256 */
int git_checkout(struct git_job *j, const char *repo_dir, struct err *e);
int git_objects(struct git_job *j, const char *repo_dir, struct err *e);
int git_verify(struct git_job *j, struct err *e);
#endif
