/* Contexts and Dockerfiles, as buildx finds them (build/opt.go loadInputs, build/git.go). */
#include "cli/inputs.h"
#include "cli/builder.h"
#include "spec/git.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>

#define BAD(...) err_set(e, CODE_UNKNOWN, __VA_ARGS__)
enum { DOCKERFILE_MAX = 16 << 20, PEEK = 1024, GIT_MAX = 64 << 10 };

static bool is_dir(const char *p)
{
	struct stat sb;
	return stat(p, &sb) == 0 && S_ISDIR(sb.st_mode);
}

static bool is_http(const char *s) { return str_starts(s, "http://") || str_starts(s, "https://"); }

static bool is_remote(const char *s)
{
	_cleanup_spec_git_ref_ struct spec_git_ref r = {0};
	bool git = false;
	if (is_http(s)) return true;
	return spec_git_ref_parse(s, &r, &git, NULL) == 0 || git;
}

static char *base_of_real(const char *path)
{
	_cleanup_free_ char *real = realpath(path, NULL);
	return xstrdup(path_base(real ? real : path));
}

/* ---- temporary folders ---- */
static const char *temp_dir(struct inputs *in, const char *prefix, struct err *e)
{
	const char *tmp = getenv("TMPDIR");
	_cleanup_free_ char *p = xasprintf("%s/%s-XXXXXX", str_empty(tmp) ? "/tmp" : tmp, prefix);
	if (in->n_temp == array_len(in->temp)) bug("too many temporary folders");
	if (!mkdtemp(p)) {
		err_sys(e, errno, "mkdtemp %s", p);
		return NULL;
	}
	return in->temp[in->n_temp++] = take_ptr(p);
}

void inputs_fini(struct inputs *in)
{
	for (size_t i = 0; i < in->n_temp; i++) {
		path_remove_all(AT_FDCWD, in->temp[i], NULL);
		free(in->temp[i]);
	}
	free(in->dockerfile_said);
}

/* ---- stdin ---- */
static int read_some(struct buf *b, size_t want, struct err *e)
{
	while (b->n < want) {
		void *p = buf_reserve(b, min_of(want - b->n, (size_t)64 << 10));
		if (!p) return err_set(e, CODE_RESOURCE_EXHAUSTED, "stdin is larger than %zu bytes", b->max);
		ssize_t n = read(0, p, min_of(want - b->n, (size_t)64 << 10));
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return err_sys(e, errno, "failed to read from STDIN");
		if (n == 0) break;
		b->n += (size_t)n;
	}
	return 0;
}

static bool tar_header(const uint8_t *p, size_t n)
{
	unsigned sum = 0, said = 0;
	if (n < 512 || !p[0]) return false;
	for (size_t i = 0; i < 512; i++) sum += i >= 148 && i < 156 ? ' ' : p[i];
	for (size_t i = 148; i < 156 && (p[i] == ' ' || (p[i] >= '0' && p[i] <= '7')); i++)
		if (p[i] != ' ') said = said * 8 + (p[i] - '0');
	return said == sum;
}

static bool is_archive(const uint8_t *p, size_t n)
{
	static const struct {
		const char *magic;
		size_t n;
	} known[] = {{"BZh", 3},
		     {"\x1f\x8b\x08", 3},
		     {"\xfd"
		      "7zXZ\0",
		      6},
		     {"\x28\xb5\x2f\xfd", 4}};
	for (size_t i = 0; i < array_len(known); i++)
		if (n >= known[i].n && memcmp(p, known[i].magic, known[i].n) == 0) return true;
	return tar_header(p, n);
}

/* The archive on stdin, of which some bytes were read already, through a pipe; a child feeds it, for stdin may block. */
static int feed_stdin(const struct buf *head, struct err *e)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0) return err_sys(e, errno, "pipe");
	pid_t pid = fork();
	if (pid < 0) {
		close(fds[0]);
		close(fds[1]);
		return err_sys(e, errno, "fork");
	}
	if (pid == 0) { /* only async-signal-safe calls */
		char b[64 << 10];
		ssize_t n = (ssize_t)head->n, done = 0;
		close(fds[0]);
		for (const char *p = (const char *)head->p; n > 0; p = b, n = read(0, b, sizeof b))
			for (done = 0; done < n;) {
				ssize_t w = write(fds[1], p + done, (size_t)(n - done));
				if (w < 0) _exit(1);
				done += w;
			}
		_exit(n < 0);
	}
	close(fds[1]);
	return fds[0];
}

static int write_dockerfile(struct inputs *in, struct build *b, const void *p, size_t n, struct err *e)
{
	const char *dir = temp_dir(in, "dockerfile", e);
	if (!dir) return -1;
	_cleanup_free_ char *path = path_join(dir, "Dockerfile");
	if (path_write_file(AT_FDCWD, path, p, n, 0644, false, e) < 0) return -1;
	strvec_env_set(&b->attrs, "dockerfilekey", "dockerfile");
	strvec_env_set(&b->attrs, "filename", "Dockerfile");
	return build_add_local(b, "dockerfile", dir, e);
}

static int dockerfile_from_stdin(struct inputs *in, struct build *b, struct buf *head, struct err *e)
{
	if (read_some(head, DOCKERFILE_MAX + 1, e) < 0) return -1;
	if (head->n > DOCKERFILE_MAX) return BAD("the Dockerfile on stdin is larger than %d MiB", DOCKERFILE_MAX >> 20);
	free(in->dockerfile_said);
	in->dockerfile_said = xstrdup("stdin");
	return write_dockerfile(in, b, head->p ? head->p : (const uint8_t *)"", head->n, e);
}

static int context_from_stdin(struct inputs *in, struct build *b, const char *dockerfile, struct err *e)
{
	_cleanup_buf_ struct buf head = BUF_MAX(DOCKERFILE_MAX + 2);
	if (strcmp(dockerfile, "-") == 0) return BAD("invalid argument: can't use stdin for both build context and dockerfile");
	if (read_some(&head, PEEK, e) < 0) return -1;
	if (is_archive(head.p, head.n)) {
		int fd = feed_stdin(&head, e);
		if (fd < 0) return -1;
		_cleanup_free_ char *url = xasprintf("http://buildkit-session/%s", sess_client_add_upload(b->sess, fd));
		strvec_env_set(&b->attrs, "context", url);
		strvec_env_set(&b->attrs, "filename", *dockerfile ? dockerfile : "Dockerfile");
		return 0;
	}
	if (*dockerfile) return BAD("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles");
	const char *empty = temp_dir(in, "empty-dir", e);
	if (!empty || build_add_local(b, "context", empty, e) < 0) return -1;
	return dockerfile_from_stdin(in, b, &head, e);
}

/* ---- Dockerfiles on disk ---- */
static const char *lower_case(const char *dir, const char *name)
{
	if (strcmp(name, "Dockerfile") != 0) return name;
	_cleanup_free_ char *upper = path_join(dir, "Dockerfile"), *lower = path_join(dir, "dockerfile");
	return access(upper, F_OK) < 0 && access(lower, F_OK) == 0 ? "dockerfile" : name;
}

static int dockerfile_on_disk(struct inputs *in, struct build *b, const char *dir, const char *name, struct err *e)
{
	strvec_env_set(&b->attrs, "filename", lower_case(dir, name));
	return build_add_local(b, "dockerfile", dir, e);
}

static int dockerfile_by_flag(struct inputs *in, struct build *b, const char *path, struct err *e)
{
	_cleanup_free_ char *dir = path_dir(path);
	return dockerfile_on_disk(in, b, dir, path_base(path), e);
}

static int local_context(struct inputs *in, struct build *b, const char *context, const char *dockerfile, struct err *e)
{
	if (build_add_local(b, "context", context, e) < 0) return -1;
	if (!*dockerfile) {
		in->dockerfile_said = path_join(context, "Dockerfile");
		return dockerfile_on_disk(in, b, context, "Dockerfile", e);
	}
	if (strcmp(dockerfile, "-") == 0) {
		_cleanup_buf_ struct buf all = BUF_MAX(DOCKERFILE_MAX + 2);
		return dockerfile_from_stdin(in, b, &all, e);
	}
	return dockerfile_by_flag(in, b, dockerfile, e);
}

/* A git URL with a query needs a frontend that knows it. */
static int check_query(struct strvec *caps, const char *url, bool forward, struct err *e)
{
	_cleanup_spec_git_url_ struct spec_git_url u = {0};
	_cleanup_err_ struct err why = ERR_INIT;
	if (spec_git_url_parse(url, &u, &why) < 0 || !u.query.keys.n) return 0;
	const char *cap = forward ? "moby.buildkit.frontend.gitquerystring+forward" : "moby.buildkit.frontend.gitquerystring";
	if (strvec_find(caps, cap) < 0) strvec_add(caps, cap);
	return 0;
}

static int remote_context(struct inputs *in, struct build *b, const char *context, const char *dockerfile, struct strvec *caps,
			  struct err *e)
{
	strvec_env_set(&b->attrs, "context", context);
	if (check_query(caps, context, false, e) < 0) return -1;
	if (strcmp(dockerfile, "-") == 0) {
		_cleanup_buf_ struct buf all = BUF_MAX(DOCKERFILE_MAX + 2);
		return dockerfile_from_stdin(in, b, &all, e);
	}
	if (*dockerfile == '/') {
		strvec_env_set(&b->attrs, "dockerfilekey", "dockerfile");
		return dockerfile_by_flag(in, b, dockerfile, e);
	}
	strvec_env_set(&b->attrs, "filename", *dockerfile ? dockerfile : "Dockerfile");
	return 0;
}

/* ---- named contexts ---- */
/* "PATH[:tag][@digest]" */
static int layout_context(struct build *b, const char *attr, const char *spec, struct err *e)
{
	const char *at = strrchr(spec, '@');
	_cleanup_free_ char *path = at ? xstrndup(spec, (size_t)(at - spec)) : xstrdup(spec),
			    *digest = at ? xstrdup(at + 1) : NULL, *tag = NULL;
	char *colon = strrchr(path, ':');
	char store[ID_STR];
	if (colon && !strchr(colon, '/')) {
		tag = xstrdup(colon + 1);
		*colon = 0;
	}
	if (!digest && !(digest = build_index_get(path, tag ? tag : "latest", e)))
		return err_wrap(e, "oci-layout reference \"oci-layout://%s\" could not be resolved", spec);
	id_new(store);
	build_add_oci_layout(b, store, path);
	_cleanup_free_ char *value = xasprintf("oci-layout://%s%s%s@%s", store, tag ? ":" : "", tag ? tag : "", digest);
	strvec_env_set(&b->attrs, attr, value);
	return 0;
}

static int local_named(struct build *b, const char *name, const char *attr, const char *path, struct err *e)
{
	struct stat sb;
	if (stat(path, &sb) < 0) return err_sys(e, errno, "failed to get build context %s: stat %s", name, path);
	if (!S_ISDIR(sb.st_mode)) return BAD("failed to get build context path {%s <nil> <nil>}: not a directory", path);
	bool taken = strcmp(name, "context") == 0 || strcmp(name, "dockerfile") == 0;
	_cleanup_free_ char *local = xasprintf("%s%s", taken ? "_" : "", name), *value = xasprintf("local:%s", local);
	_cleanup_free_ char *key = xasprintf("sharedkey:localdir:%s", name), *base = base_of_real(path),
			    *node = builder_node_id();
	_cleanup_free_ char *shared = xasprintf("%s:%s", base, node);
	strvec_env_set(&b->attrs, attr, value);
	strvec_env_set(&b->attrs, key, shared);
	return build_add_local(b, local, path, e);
}

static int named_context(struct build *b, const char *spec, struct strvec *caps, struct err *e)
{
	const char *eq = strchr(spec, '=');
	if (!eq || eq == spec) return BAD("invalid context value: %s, expected key=value", spec);
	_cleanup_free_ char *name = xstrndup(spec, (size_t)(eq - spec)), *attr = xasprintf("context:%s", name);
	const char *v = eq + 1;
	if (strvec_find(caps, "moby.buildkit.frontend.contexts+forward") < 0)
		strvec_add(caps, "moby.buildkit.frontend.contexts+forward");
	if (str_starts(v, "oci-layout://")) return layout_context(b, attr, v + 13, e);
	if (str_starts(v, "docker-image://") || str_starts(v, "target:") || is_remote(v)) {
		strvec_env_set(&b->attrs, attr, v);
		return check_query(caps, v, true, e);
	}
	return local_named(b, name, attr, v, e);
}

int inputs_load(struct inputs *in, struct build *b, const char *context, const char *dockerfile, const struct strvec *named,
		struct err *e)
{
	_cleanup_strvec_ struct strvec caps = {0};
	int rv;
	*in = (struct inputs){.dockerfile_said = *dockerfile ? xstrdup(dockerfile) : NULL};
	if (is_http(dockerfile)) return BAD("a Dockerfile from a URL is not supported yet: fetch it and give -f -");
	if (strcmp(context, "-") == 0)
		rv = context_from_stdin(in, b, dockerfile, e);
	else if (is_dir(context))
		rv = local_context(in, b, context, dockerfile, e);
	else if (is_remote(context))
		rv = remote_context(in, b, context, dockerfile, &caps, e);
	else
		rv = BAD("unable to prepare context: path \"%s\" not found", context);
	for (size_t i = 0; i < named->n && rv == 0; i++) rv = named_context(b, named->v[i], &caps, e);
	if (rv == 0 && caps.n) {
		strvec_sort(&caps);
		_cleanup_free_ char *joined = strvec_join(&caps, ",");
		strvec_env_set(&b->attrs, "frontend.caps", joined);
	}
	return rv;
}

/* ---- git ---- */
/* What git prints, without the last newline; NULL when it fails. Heap. */
static char *git(const char *dir, const char *const *args)
{
	int fds[2], status;
	struct buf out = BUF_MAX(GIT_MAX);
	if (pipe2(fds, O_CLOEXEC) < 0) return NULL;
	_cleanup_close_ int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	const char *argv[12] = {"git", "-C", dir};
	for (size_t i = 0; args[i] && i < 8; i++) argv[i + 3] = args[i];
	pid_t pid = fork();
	if (pid == 0) {
		dup2(null, 0);
		dup2(fds[1], 1);
		dup2(null, 2);
		execvp("git", (char *const *)argv);
		_exit(127);
	}
	close(fds[1]);
	for (void *p; pid > 0 && (p = buf_reserve(&out, 4096));) {
		ssize_t n = read(fds[0], p, 4096);
		if (n <= 0 && !(n < 0 && errno == EINTR)) break;
		out.n += (size_t)max_of(n, 0);
	}
	close(fds[0]);
	bool ok = pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0 && out.n > 0;
	char *s = buf_take_str(&out);
	if (!ok) {
		free(s);
		return NULL;
	}
	size_t n = strlen(s);
	if (n && s[n - 1] == '\n') s[n - 1] = 0;
	return s;
}

/* A checkout around the folder: only then is git worth starting. */
static bool in_checkout(const char *dir)
{
	_cleanup_free_ char *p = realpath(dir, NULL);
	while (p) {
		_cleanup_free_ char *dot = path_join(p, ".git");
		if (access(dot, F_OK) == 0) return true;
		if (strcmp(p, "/") == 0) break;
		char *up = path_dir(p);
		free(p);
		p = up;
	}
	return false;
}

static bool env_true(const char *name, bool def)
{
	const char *s = getenv(name);
	bool b;
	return s && str_bool(s, &b) ? b : def;
}

/* The part between "//" and "@" may hold a password. */
static char *without_user(const char *url)
{
	const char *sep = strstr(url, "://"), *at = sep ? strchr(sep + 3, '@') : NULL,
		   *slash = sep ? strchr(sep + 3, '/') : NULL;
	if (!at || (slash && slash < at)) return xstrdup(url);
	return xasprintf("%.*s%s", (int)(sep + 3 - url), url, at + 1);
}

static void set_localdir(struct build *b, const char *root, const char *name, const char *dir)
{
	_cleanup_free_ char *real = realpath(dir, NULL), *key = xasprintf("vcs:localdir:%s", name);
	size_t n = strlen(root);
	if (!real || strncmp(real, root, n) != 0 || (real[n] && real[n] != '/')) return;
	strvec_env_set(&b->attrs, key, real[n] ? real + n + 1 : ".");
}

void inputs_add_git(struct build *b, const char *context, const char *dockerfile)
{
	bool info = env_true("BUILDX_GIT_INFO", true),
	     labels = env_true("BUILDX_GIT_LABELS", false) || str_eq(getenv("BUILDX_GIT_LABELS"), "full");
	if (!is_dir(context) || (!info && !labels) || !in_checkout(context)) return;
	_cleanup_free_ char *root = git(context, (const char *const[]){"rev-parse", "--show-toplevel", NULL});
	_cleanup_free_ char *sha = git(context, (const char *const[]){"rev-parse", "HEAD", NULL});
	_cleanup_free_ char *remote = git(context, (const char *const[]){"config", "--get", "remote.origin.url", NULL});
	if (!root) return;
	if (sha && env_true("BUILDX_GIT_CHECK_DIRTY", false)) {
		_cleanup_free_ char *dirty = git(context, (const char *const[]){"status", "--porcelain", "--ignored=no", NULL}),
				    *old = sha;
		sha = xasprintf("%s%s", old, dirty ? "-dirty" : "");
	}
	_cleanup_free_ char *url = remote ? without_user(remote) : NULL;
	if (info && sha) strvec_env_set(&b->attrs, "vcs:revision", sha);
	if (info && url) strvec_env_set(&b->attrs, "vcs:source", url);
	if (labels && sha) strvec_env_set(&b->attrs, "label:org.opencontainers.image.revision", sha);
	if (labels && url) strvec_env_set(&b->attrs, "label:org.opencontainers.image.source", url);
	if (!info) return;
	_cleanup_free_ char *dir = *dockerfile && strcmp(dockerfile, "-") != 0 ? path_dir(dockerfile) : xstrdup(context);
	set_localdir(b, root, "context", context);
	set_localdir(b, root, "dockerfile", dir);
}
