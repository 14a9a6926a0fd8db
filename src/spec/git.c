/* Git remotes as BuildKit names them. A reference is a URL with a scheme git knows (and a path on ".git" for http), the
 * form "user@host:path", or "github.com/...". What to check out is said in the fragment ("#ref:subdir") or the query.
 *
 * The query's keys are rows of a table; each may be said once and must agree with the fragment. */
#include "spec/git.h"
#include "spec/internal.h"

#include <string.h>

static const char *const schemes[] = {"http", "https", "ssh", "git"};

/* The length of "proto" in "proto://", 0 for none. */
static size_t proto_len(const char *s)
{
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789");
	return n && str_starts(s + n, "://") ? n : 0;
}

static bool scheme_known(const char *s)
{
	for (size_t i = 0; i < array_len(schemes); i++)
		if (strcmp(schemes[i], s) == 0) return true;
	return false;
}

static char *proto_of(const char *s, size_t n)
{
	char *proto = xstrndup(s, n);
	for (char *p = proto; *p; p++)
		if (*p >= 'A' && *p <= 'Z') *p = (char)(*p + 32);
	return proto;
}

/* "ref:subdir" */
static void set_opts(struct spec_git_url *u, const char *fragment)
{
	if (!*fragment) return;
	u->has_opts = true;
	size_t n = strcspn(fragment, ":");
	u->ref = xstrndup(fragment, n);
	_cleanup_free_ char *subdir = path_abs_in(fragment[n] ? fragment + n + 1 : "");
	u->subdir = xstrdup(subdir + 1);
}

/* u's members move or are copied; a bad query parameter is left out, as URL.Query does. */
static void from_url(struct spec_url *u, struct spec_git_url *ret)
{
	*ret = (struct spec_git_url){
		.scheme = xstrdup(u->scheme),
		.host = xstrdup(u->host),
		.path = xstrdup(u->path),
		.user = u->has_user ? xstrdup(u->user) : NULL,
		.password = u->has_password ? xstrdup(u->password) : NULL,
	};
	(void)spec_query_parse(u->raw_query, &ret->query, NULL);
	set_opts(ret, u->fragment);
	*u->fragment = *u->raw_query = 0;
	ret->remote = spec_url_format(u);
}

struct scp {
	const char *user, *host, *path, *query, *fragment;
	size_t user_n, host_n, path_n, query_n;
};

/* user@host:path[?query][#fragment] */
static bool scp_split(const char *s, struct scp *ret)
{
	static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";
	char user_chars[sizeof word + 1], host_chars[sizeof word + 1];
	memcpy(user_chars, word, sizeof word);
	memcpy(host_chars, word, sizeof word);
	memcpy(user_chars + sizeof word - 1, "_", 2);
	memcpy(host_chars + sizeof word - 1, ".", 2);
	struct scp p = {.user = s, .user_n = strspn(s, user_chars)};
	if (!p.user_n || s[p.user_n] != '@' || strchr(s, '\n')) return false;
	p.host = s + p.user_n + 1;
	p.host_n = strspn(p.host, host_chars);
	if (!p.host_n || p.host[p.host_n] != ':') return false;
	p.path = p.host + p.host_n + 1;
	p.path_n = strcspn(p.path, "?#");
	const char *rest = p.path + p.path_n;
	p.query = *rest == '?' ? rest + 1 : "";
	p.query_n = strcspn(p.query, "#");
	if (*rest == '?') rest = p.query + p.query_n;
	p.fragment = *rest == '#' ? rest + 1 : "";
	*ret = p;
	return true;
}

static int parse_scp(const char *s, struct spec_git_url *ret)
{
	struct scp p;
	if (!scp_split(s, &p)) return -1;
	_cleanup_free_ char *query = xstrndup(p.query, p.query_n);
	struct spec_query q;
	if (spec_query_parse(query, &q, NULL) < 0) {
		spec_query_fini(&q);
		return -1;
	}
	*ret = (struct spec_git_url){
		.scheme = xstrdup("ssh"),
		.host = xstrndup(p.host, p.host_n),
		.path = xstrndup(p.path, p.path_n),
		.user = xstrndup(p.user, p.user_n),
		.query = q,
		.remote = xstrndup(s, (size_t)(p.path + p.path_n - s)),
		.scp = true,
	};
	set_opts(ret, p.fragment);
	return 0;
}

int spec_git_url_parse(const char *s, struct spec_git_url *ret, struct err *e)
{
	size_t n = proto_len(s);
	if (!n) return parse_scp(s, ret) < 0 ? err_set(e, SPEC_BAD, "unknown protocol") : 0;
	_cleanup_free_ char *proto = proto_of(s, n);
	if (!scheme_known(proto)) return err_set(e, SPEC_BAD, "%s: invalid protocol", proto);
	_cleanup_spec_url_ struct spec_url u = {0};
	if (spec_url_parse(s, &u, e) < 0) return -1;
	from_url(&u, ret);
	return 0;
}

void spec_git_url_fini(struct spec_git_url *u)
{
	char *members[] = {u->scheme, u->host, u->path, u->user, u->password, u->ref, u->subdir, u->remote};
	for (size_t i = 0; i < array_len(members); i++) free(members[i]);
	spec_query_fini(&u->query);
	*u = (struct spec_git_url){0};
}

bool spec_git_is_transport(const char *s)
{
	struct scp p;
	size_t n = proto_len(s);
	if (!n) return scp_split(s, &p);
	_cleanup_free_ char *proto = proto_of(s, n);
	return scheme_known(proto);
}

/* ---- Dockerfile references ---- */

/* A reference under way: tag and branch are told apart from ref until all of the query is read. */
struct reading {
	struct spec_git_ref *r;
	char *tag, *branch; /* borrowed from the query */
};

static int conflict(struct err *e, const char *what, const char *a, const char *b)
{
	_cleanup_free_ char *qa = go_quote(a, strlen(a)), *qb = go_quote(b, strlen(b));
	return err_set(e, SPEC_BAD, "%s conflicts: %s vs %s", what, qa, qb);
}

static int set_agreeing(char **member, const char *what, const char *v, struct err *e)
{
	if (*member && **member && strcmp(*member, v) != 0) return conflict(e, what, *member, v);
	char *copy = xstrdup(v);
	free(*member);
	*member = copy;
	return 0;
}

static int read_ref(struct reading *g, char *v, struct err *e) { return set_agreeing(&g->r->ref, "ref", v, e); }
static int read_subdir(struct reading *g, char *v, struct err *e) { return set_agreeing(&g->r->subdir, "subdir", v, e); }

static int read_tag(struct reading *g, char *v, struct err *e)
{
	(void)e;
	g->tag = v;
	return 0;
}

static int read_branch(struct reading *g, char *v, struct err *e)
{
	(void)e;
	g->branch = v;
	return 0;
}

static int read_checksum(struct reading *g, char *v, struct err *e)
{
	(void)e;
	free(g->r->checksum);
	g->r->checksum = xstrdup(v);
	return 0;
}

static int read_mtime(struct reading *g, char *v, struct err *e)
{
	if (strcmp(v, "checkout") != 0 && strcmp(v, "commit") != 0) {
		_cleanup_free_ char *q = go_quote(v, strlen(v));
		return err_set(e, SPEC_BAD, "invalid mtime value: %s (must be \"checkout\" or \"commit\")", q);
	}
	free(g->r->mtime);
	g->r->mtime = xstrdup(v);
	return 0;
}

static int read_flag(const char *key, const char *v, bool *ret, struct err *e)
{
	*ret = true;
	if (!*v || str_bool(v, ret)) return 0;
	_cleanup_free_ char *q = go_quote(v, strlen(v));
	return err_set(e, SPEC_BAD, "invalid %s value: %s", key, q);
}

static int read_keep_git_dir(struct reading *g, char *v, struct err *e)
{
	bool b;
	if (read_flag("keep-git-dir", v, &b, e) < 0) return -1;
	g->r->keep_git_dir = b;
	return 0;
}

static int read_submodules(struct reading *g, char *v, struct err *e)
{
	bool b;
	if (read_flag("submodules", v, &b, e) < 0) return -1;
	g->r->submodules = b;
	return 0;
}

static int read_fetch_by_commit(struct reading *g, char *v, struct err *e)
{
	return read_flag("fetch-by-commit", v, &g->r->fetch_by_commit, e);
}

static const struct query_key {
	const char *name;
	bool may_be_empty;
	int (*read)(struct reading *g, char *v, struct err *e);
} query_keys[] = {
	{"ref", false, read_ref},
	{"tag", false, read_tag},
	{"branch", false, read_branch},
	{"subdir", false, read_subdir},
	{"checksum", false, read_checksum},
	{"commit", false, read_checksum},
	{"keep-git-dir", true, read_keep_git_dir},
	{"submodules", true, read_submodules},
	{"mtime", false, read_mtime},
	{"fetch-by-commit", true, read_fetch_by_commit},
};

static int read_key(struct reading *g, const char *key, char *value, bool again, struct err *e)
{
	const struct query_key *row = NULL;
	for (size_t i = 0; i < array_len(query_keys) && !row; i++)
		if (strcmp(query_keys[i].name, key) == 0) row = &query_keys[i];
	_cleanup_free_ char *q = go_quote(key, strlen(key));
	if (again) return err_set(e, SPEC_BAD, "query %s has multiple values", q);
	if (!*value && !(row && row->may_be_empty)) return err_set(e, SPEC_BAD, "query %s has no value", q);
	if (!row) return err_set(e, SPEC_BAD, "unexpected query %s", q);
	return row->read(g, value, e);
}

static int set_full_ref(struct spec_git_ref *r, const char *prefix, const char *name, struct err *e)
{
	_cleanup_free_ char *full = xasprintf("%s%s", str_starts(name, prefix) ? "" : prefix, name);
	return set_agreeing(&r->ref, "ref", full, e);
}

static int load_query(struct spec_git_ref *r, const struct spec_query *q, struct err *e)
{
	struct reading g = {.r = r};
	for (size_t i = 0; i < q->keys.n; i++) {
		bool again = strvec_find(&q->keys, q->keys.v[i]) != (ptrdiff_t)i;
		if (read_key(&g, q->keys.v[i], q->values.v[i], again, e) < 0) return -1;
	}
	if (g.tag && set_full_ref(r, "refs/tags/", g.tag, e) < 0) return -1;
	if (g.branch && g.tag) return err_set(e, SPEC_BAD, "branch conflicts with tag");
	return g.branch ? set_full_ref(r, "refs/heads/", g.branch, e) : 0;
}

/* "github.com/owner/repo", which could be a path as well. */
static int parse_github(const char *s, struct spec_git_url *ret, struct err *e)
{
	_cleanup_spec_url_ struct spec_url u = {0};
	if (spec_url_parse(s, &u, e) < 0) return -1;
	free(u.scheme);
	u.scheme = xstrdup("https");
	from_url(&u, ret);
	return 0;
}

static char *short_name(const char *remote)
{
	const char *base = path_base(remote);
	return xstrndup(base, strlen(base) - (str_ends(base, ".git") ? strlen(".git") : 0));
}

int spec_git_ref_parse(const char *s, struct spec_git_ref *ret, bool *ret_is_git, struct err *e)
{
	_cleanup_spec_git_url_ struct spec_git_url u = {0};
	_cleanup_spec_git_ref_ struct spec_git_ref r = {.keep_git_dir = -1, .submodules = -1};
	if (ret_is_git) *ret_is_git = false;
	if (str_starts(s, "./") || str_starts(s, "../")) return err_set(e, SPEC_BAD, "invalid argument");
	r.indistinguishable_from_local = str_starts(s, "github.com/");
	if ((r.indistinguishable_from_local ? parse_github : spec_git_url_parse)(s, &u, e) < 0) return -1;
	bool http = !r.indistinguishable_from_local && str_starts(u.scheme, "http");
	r.unencrypted_tcp = strcmp(u.scheme, "http") == 0 || strcmp(u.scheme, "git") == 0;
	if (http && !str_ends(u.path, ".git")) return err_set(e, SPEC_BAD, "invalid argument");
	const char *scheme_end = r.indistinguishable_from_local ? strstr(u.remote, "://") : NULL;
	r.remote = xstrdup(scheme_end ? scheme_end + 3 : u.remote);
	r.ref = xstrdup(u.ref ? u.ref : "");
	r.subdir = xstrdup(u.subdir ? u.subdir : "");
	r.checksum = xstrdup("");
	r.mtime = xstrdup("");
	r.short_name = short_name(r.remote);
	if (ret_is_git) *ret_is_git = true;
	if (load_query(&r, &u.query, e) < 0) return -1;
	*ret = r;
	r = (struct spec_git_ref){0};
	return 0;
}

void spec_git_ref_fini(struct spec_git_ref *r)
{
	char *members[] = {r->remote, r->short_name, r->ref, r->checksum, r->subdir, r->mtime};
	for (size_t i = 0; i < array_len(members); i++) free(members[i]);
	*r = (struct spec_git_ref){.keep_git_dir = -1, .submodules = -1};
}

char *spec_git_fragment_format(const char *s, bool with_subdir)
{
	_cleanup_spec_git_ref_ struct spec_git_ref r = {0};
	if (spec_git_ref_parse(s, &r, NULL, NULL) < 0) return NULL;
	_cleanup_free_ char *abs = path_abs_in(r.subdir);
	const char *subdir = with_subdir ? abs + 1 : "";
	bool any = *r.ref || *subdir;
	return xasprintf("%s%s%s%s%s", r.remote, any ? "#" : "", r.ref, *subdir ? ":" : "", subdir);
}
