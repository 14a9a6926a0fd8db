/* Running git, and what a ref means. Source: moby/buildkit util/gitutil/git_cli.go, source/git/source.go. */
#include "ops/git_job.h"
#include "ops/child_job.h"
#include "ops/remote.h"
#include "spec/url.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

enum { OUT_MAX = 32 << 20, ERR_MAX = 256 << 10 };

bool git_is_commit(const char *s)
{
	size_t n = strlen(s);
	return (n == 40 || n == 64) && strspn(s, "0123456789abcdef") == n;
}

static void mask(char **s)
{
	free(*s);
	*s = xstrdup("xxxxx");
}

char *git_redact(const char *url)
{
	_cleanup_spec_url_ struct spec_url u = {0};
	if (spec_url_parse(url, &u, NULL) < 0) return xstrdup(url);
	if (u.has_user && *u.user) mask(&u.user);
	if (u.has_password) mask(&u.password);
	return spec_url_format(&u);
}

/* Every "user:password@" of the remote in a text is hidden. */
static char *hide(const struct git_job *j, const char *text)
{
	const char *remote = j->src->git.remote, *start = strstr(remote, "://");
	const char *at = start ? strpbrk(start + 3, "@/") : NULL;
	if (!at || *at != '@') return xstrdup(text);
	_cleanup_free_ char *secret = xstrndup(start + 3, (size_t)(at - start - 2));
	struct buf b = BUF_INIT;
	for (const char *hit; (hit = strstr(text, secret)); text = hit + strlen(secret)) {
		buf_add(&b, text, (size_t)(hit - text));
		buf_adds(&b, strchr(secret, ':') ? "xxxxx:xxxxx@" : "xxxxx@");
	}
	buf_adds(&b, text);
	return buf_take_str(&b);
}

/* ---- environment ---- */

static void add_env(struct strvec *env, const char *name)
{
	const char *v = getenv(name);
	if (v) strvec_addf(env, "%s=%s", name, v);
}

/* Generally a token is for the one remote; those of github.com serve submodules there too. */
static const char *scope(const char *remote)
{
	static const char *const shared[] = {"https://github.com/", "https://www.github.com/"};
	for (size_t i = 0; i < array_len(shared); i++)
		if (str_starts(remote, shared[i])) return shared[i];
	return remote;
}

static void make_env(const struct git_cli *g, struct strvec *env)
{
	static const char *const proxies[] = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
					      "http_proxy", "https_proxy", "no_proxy", "all_proxy"};
	const struct git_job *j = g->j;
	const char *path = getenv("PATH");
	strvec_addf(env, "PATH=%s", path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	strvec_add(env, "GIT_TERMINAL_PROMPT=0");
	strvec_add(env, "LC_ALL=C");
	strvec_add(env, "GIT_CONFIG_NOSYSTEM=1");
	strvec_add(env, "HOME=/dev/null");
	strvec_add(env, "GIT_CONFIG_GLOBAL=/dev/null");
	if (j->known_hosts)
		strvec_addf(env, "GIT_SSH_COMMAND=ssh -F /dev/null -o UserKnownHostsFile=%s", j->known_hosts);
	else
		strvec_add(env, "GIT_SSH_COMMAND=ssh -F /dev/null -o StrictHostKeyChecking=no");
	for (size_t i = 0; i < array_len(proxies); i++) add_env(env, proxies[i]);
	const char *plain = getenv("HTTP_PROXY"), *ca = getenv("SSL_CERT_FILE"), *own_ca = getenv("GIT_SSL_CAINFO");
	if (!str_empty(plain)) strvec_env_set(env, "http_proxy", plain); /* git reads the lower case one only */
	if (!str_empty(own_ca) || !str_empty(ca)) strvec_addf(env, "GIT_SSL_CAINFO=%s", str_empty(own_ca) ? ca : own_ca);
	if (j->ssh_sock) strvec_addf(env, "SSH_AUTH_SOCK=%s", j->ssh_sock);
	if (!j->auth || g->no_auth) return;
	strvec_add(env, "GIT_CONFIG_COUNT=1");
	strvec_addf(env, "GIT_CONFIG_KEY_0=http.%s.extraheader", scope(j->src->git.remote));
	strvec_addf(env, "GIT_CONFIG_VALUE_0=Authorization: %s", j->auth);
}

int git_tmp(struct git_job *j, const char *name, char **ret_path, struct err *e)
{
	if (!j->tmp_made && mkdir(j->tmp, 0700) < 0) return err_sys(e, errno, "mkdir %s", j->tmp);
	j->tmp_made = true;
	*ret_path = xasprintf("%s/%s", j->tmp, name);
	return 0;
}

static int write_known_hosts(struct git_job *j, struct err *e)
{
	const char *text = j->src->git.known_ssh_hosts;
	if (!*text || j->known_hosts) return 0;
	_cleanup_free_ char *path = NULL;
	if (git_tmp(j, "known_hosts", &path, e) < 0 || path_write_file(AT_FDCWD, path, text, strlen(text), 0600, false, e) < 0)
		return -1;
	j->known_hosts = take_ptr(path);
	return 0;
}

void git_job_fini(struct git_job *j)
{
	struct err e = ERR_INIT;
	if (j->tmp_made && path_remove_all(AT_FDCWD, j->tmp, &e) < 0) {
		log_warn("git: %s", e.msg);
		err_fini(&e);
	}
	j->tmp_made = false;
	free(j->known_hosts);
	free(j->staged);
	j->known_hosts = j->staged = NULL;
}

/* ---- running ---- */

static void show(void *ctx, int stream, const void *p, size_t n)
{
	const struct git_job *j = ctx;
	if (!j->log) return;
	_cleanup_free_ char *text = xstrndup(p, n), *hidden = hide(j, text);
	ops_joblog_write(j->log, stream, hidden, strlen(hidden));
}

static void make_argv(const struct git_cli *g, const struct strvec *args, struct strvec *argv)
{
	strvec_add(argv, "git");
	/* A repository must not name folders of this machine as its submodules. */
	strvec_add(argv, "-c");
	strvec_add(argv, "protocol.file.allow=user");
	/* No housekeeping that goes on behind our back. */
	strvec_add(argv, "-c");
	strvec_add(argv, "gc.autoDetach=false");
	strvec_add(argv, "-c");
	strvec_add(argv, "advice.detachedHead=false");
	if (g->tree) {
		strvec_add(argv, "--work-tree");
		strvec_add(argv, g->tree);
	}
	if (g->dir) {
		strvec_add(argv, "--git-dir");
		strvec_add(argv, g->dir);
	}
	strvec_copy(argv, args->v, args->n);
}

static int run_once(const struct git_cli *g, const struct strvec *args, struct buf *out, struct buf *err, struct err *e)
{
	_cleanup_strvec_ struct strvec argv = {0}, env = {0};
	make_argv(g, args, &argv);
	make_env(g, &env);
	struct child_job c = {.argv = argv.v,
			      .env = env.v,
			      .cwd = g->tree,
			      .cancelled = g->j->cancelled,
			      .output = show,
			      .ctx = g->j,
			      .out = out,
			      .err = err};
	return child_job_run(&c, e);
}

static bool drop_depth(struct strvec *args)
{
	ptrdiff_t i = strvec_find(args, "--depth=1");
	if (i < 0) return false;
	free(args->v[i]);
	vec_remove(args, (size_t)i);
	args->v[args->n] = NULL;
	return true;
}

/* A server that gives no single commits: fetch what it names. */
static bool drop_commit(struct strvec *args)
{
	if (args->n <= 2 || strcmp(args->v[0], "fetch") || !git_is_commit(args->v[args->n - 1])) return false;
	free(args->v[--args->n]);
	args->v[args->n] = NULL;
	return true;
}

int git_runv(const struct git_cli *g, struct buf *out, struct err *e, const struct strvec *given)
{
	_cleanup_strvec_ struct strvec args = {0};
	_cleanup_buf_ struct buf own = BUF_MAX(OUT_MAX);
	strvec_copy(&args, given->v, given->n);
	if (!out) out = &own;
	if (write_known_hosts(g->j, e) < 0) return -1;
	for (;;) {
		_cleanup_buf_ struct buf err = BUF_MAX(ERR_MAX);
		buf_reset(out);
		int r = run_once(g, &args, out, &err, e);
		if (r <= 0) return r;
		const char *text = buf_str(&err);
		if ((strstr(text, "--depth") || strstr(text, "shallow")) && drop_depth(&args)) continue;
		if ((strstr(text, "not our ref") || strstr(text, "unadvertised object")) && drop_commit(&args)) continue;
		_cleanup_free_ char *hidden = hide(g->j, text);
		return err_set(e, CODE_UNKNOWN, "git stderr:\n%s: exit status %d", hidden, r);
	}
}

int git_run(const struct git_cli *g, struct buf *out, struct err *e, const char *arg, ...)
{
	_cleanup_strvec_ struct strvec args = {0};
	va_list ap;
	va_start(ap, arg);
	for (; arg; arg = va_arg(ap, const char *)) strvec_add(&args, arg);
	va_end(ap);
	return git_runv(g, out, e, &args);
}

char *git_line(const struct buf *out)
{
	const char *s = buf_str(out);
	size_t n = strlen(s);
	while (n && strchr(" \t\r\n", s[n - 1])) n--;
	while (n && strchr(" \t\r\n", *s)) s++, n--;
	return xstrndup(s, n);
}

int git_init(const struct git_cli *g, bool bare, struct err *e)
{
	_cleanup_strvec_ struct strvec args = {0};
	static const char *const fixed[] = {"-c", "init.defaultBranch=master", "init"};
	for (size_t i = 0; i < array_len(fixed); i++) strvec_add(&args, fixed[i]);
	if (bare) strvec_add(&args, "--bare");
	if (g->j->sha256) strvec_add(&args, "--object-format=sha256");
	return git_runv(g, NULL, e, &args);
}

/* ---- resolving ---- */

int git_default_branch(const struct git_cli *g, const char *url, char **ret, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_MAX(OUT_MAX);
	_cleanup_free_ char *shown = git_redact(url);
	if (git_run(g, &out, e, "ls-remote", "--symref", url, "HEAD", NULL) < 0)
		return err_wrap(e, "error fetching default branch for repository %s", shown);
	const char *at = strstr(buf_str(&out), "refs/heads/");
	size_t n = at ? strcspn(at + 11, " \t\r\n\v\f") : 0;
	if (!n) return err_set(e, CODE_UNKNOWN, "could not find default branch for repository: %s", shown);
	_cleanup_free_ char *branch = xstrndup(at + 11, n);
	if (*branch == '-') return err_set(e, CODE_UNKNOWN, "invalid git ref \"%s\"", branch);
	*ret = take_ptr(branch);
	return 0;
}

struct refs {
	char *name[4]; /* what to look for, best first: the partial ref, branch, tag, the tag's commit */
	char *sha[4];
};
enum { PARTIAL, HEAD, TAG, PEELED };

static const char *without(const char *s, const char *prefix) { return str_starts(s, prefix) ? s + strlen(prefix) : s; }

static void refs_fini(struct refs *r)
{
	for (size_t i = 0; i < 4; i++) {
		free(r->name[i]);
		free(r->sha[i]);
	}
}

/* A line's ref takes the first name it equals: branch, tag, the tag's commit, then the partial one. */
static void read_refs(struct refs *r, char *text)
{
	static const int order[] = {HEAD, TAG, PEELED, PARTIAL};
	for (char *line = text, *next; line && *line; line = next) {
		next = strchr(line, '\n');
		if (next) *next++ = 0;
		char *tab = strchr(line, '\t');
		if (!tab) continue;
		*tab = 0;
		for (size_t i = 0; i < 4; i++) {
			if (strcmp(tab + 1, r->name[order[i]])) continue;
			free(r->sha[order[i]]);
			r->sha[order[i]] = xstrdup(line);
			break;
		}
	}
}

static int take_refs(struct git_job *j, struct refs *r, const char *ref, const char *raw, struct err *e)
{
	int best = r->sha[PARTIAL] ? PARTIAL : r->sha[HEAD] ? HEAD : TAG;
	const char *sha = r->sha[best], *peeled = best == TAG && r->sha[PEELED] ? r->sha[PEELED] : "",
		   *want = j->src->git.checksum;
	if (!sha) {
		_cleanup_free_ char *q = go_quote(raw, strlen(raw));
		return err_set(e, CODE_UNKNOWN, "repository does not contain ref %s, output: %s", ref, q);
	}
	if (!git_is_commit(sha)) return err_set(e, CODE_UNKNOWN, "invalid commit sha \"%s\"", sha);
	if (*want && !str_starts(sha, want) && !str_starts(peeled, want))
		return err_set(e, CODE_UNKNOWN, "expected checksum to match %s, got %s%s", want, *peeled ? " or " : sha,
			       peeled);
	j->digest = xstrdup(sha);
	j->name = xstrdup(r->name[best]);
	j->commit = xstrdup(peeled);
	return 0;
}

static int resolve_at(struct git_job *j, const char *url, struct err *e)
{
	struct git_cli g = {.j = j};
	_cleanup_buf_ struct buf out = BUF_MAX(OUT_MAX);
	_cleanup_(refs_fini) struct refs r = {0};
	_cleanup_free_ char *ref = *j->ref ? xstrdup(j->ref) : NULL;
	if (!ref && git_default_branch(&g, url, &ref, e) < 0) return -1;
	_cleanup_free_ char *peeled = xasprintf("%s^{}", ref), *shown = git_redact(url);
	if (git_run(&g, &out, e, "ls-remote", "--", url, ref, peeled, NULL) < 0)
		return err_wrap(e, "failed to fetch remote %s", shown);
	r.name[PARTIAL] = xasprintf("refs/%s", without(ref, "refs/"));
	r.name[HEAD] = xasprintf("refs/heads/%s", without(ref, "refs/heads/"));
	r.name[TAG] = xasprintf("refs/tags/%s", without(ref, "refs/tags/"));
	r.name[PEELED] = xasprintf("%s^{}", r.name[TAG]);
	_cleanup_free_ char *text = xstrdup(buf_str(&out));
	read_refs(&r, text);
	return take_refs(j, &r, ref, buf_str(&out), e);
}

void git_job_resolve(struct git_job *j)
{
	if (*j->src->git.bundle && git_stage_bundle(j, &j->error) < 0) return;
	resolve_at(j, j->staged ? j->staged : j->src->git.remote, &j->error);
}
