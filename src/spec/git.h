#ifndef SPEC_GIT_H
#define SPEC_GIT_H
/* Git remotes: URLs, SCP-like "git@host:path", and the Dockerfile's git references with "#ref:subdir" and "?tag=...".
 * Source: BuildKit util/gitutil/git_url.go and frontend/dockerfile/dfgitutil. Any thread, no blocking. */
#include "spec/url.h"

struct spec_git_url {
	char *scheme; /* http, https, ssh, git */
	char *host, *path;
	char *user, *password; /* NULL: none */
	struct spec_query query;
	bool has_opts;      /* a fragment was there */
	char *ref, *subdir; /* of the fragment; subdir cleaned, relative */
	char *remote;       /* what git is given: no fragment, no query */
	bool scp;           /* git@host:path form */
};
#define _cleanup_spec_git_url_ __attribute__((cleanup(spec_git_url_fini)))
/* "unknown protocol" when it is no URL and not SCP-like; "<proto>: invalid protocol" for another scheme. */
int spec_git_url_parse(const char *s, struct spec_git_url *ret, struct err *e);
void spec_git_url_fini(struct spec_git_url *u);
bool spec_git_is_transport(const char *s); /* IsGitTransport */

struct spec_git_ref { /* members are never NULL once parsed */
	char *remote, *short_name, *ref, *checksum, *subdir, *mtime;
	bool indistinguishable_from_local; /* "github.com/..." */
	bool unencrypted_tcp;
	bool fetch_by_commit;
	int keep_git_dir, submodules; /* -1: not said, 0, 1 */
};
#define _cleanup_spec_git_ref_ __attribute__((cleanup(spec_git_ref_fini)))
/* ParseGitRef. *ret_is_git (may be NULL) is set also on failure: it was meant as a git reference but is wrong. */
int spec_git_ref_parse(const char *s, struct spec_git_ref *ret, bool *ret_is_git, struct err *e);
void spec_git_ref_fini(struct spec_git_ref *r);
/* FragmentFormat: "remote#ref[:subdir]"; NULL when it is no git reference. Heap. */
char *spec_git_fragment_format(const char *s, bool with_subdir);
#endif
