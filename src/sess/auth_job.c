/* Registry credentials as the docker CLI keeps them: config.json's auths, credsStore and credHelpers (programs).
 * Runs in a job: reads files and waits for a child. Source: docker/cli cli/config/configfile, cli/config/credentials;
 * docker/docker-credential-helpers. */
#include "sess/auth.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>

enum { CONFIG_MAX = 4 << 20, ANSWER_MAX = 1 << 20, HELPER_MS = 60000 };
#define HUB_HOST "registry-1.docker.io"
#define HUB_KEY "https://index.docker.io/v1/"

static void json_drop(json_t **j) { json_decref(*j); }
#define _cleanup_json_ __attribute__((cleanup(json_drop)))

static const char *text(const json_t *obj, const char *key)
{
	const char *s = json_string_value(json_object_get(obj, key));
	return s ? s : "";
}

/* ---- credential helpers ---- */
struct helper {
	pid_t pid;
	int in, out;
};

static int helper_spawn(const char *program, struct helper *ret, struct err *e)
{
	int in[2], out[2], rc;
	posix_spawn_file_actions_t fa;
	char *argv[] = {(char *)(uintptr_t)program, (char *)(uintptr_t) "get", NULL};
	if (pipe2(in, O_CLOEXEC) < 0) return err_sys(e, errno, "pipe");
	if (pipe2(out, O_CLOEXEC) < 0) {
		rc = errno;
		close(in[0]);
		close(in[1]);
		return err_sys(e, rc, "pipe");
	}
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, in[0], 0);
	posix_spawn_file_actions_adddup2(&fa, out[1], 1);
	rc = posix_spawnp(&ret->pid, program, &fa, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	close(in[0]);
	close(out[1]);
	ret->in = in[1];
	ret->out = out[0];
	if (rc == 0) return 0;
	close(in[1]);
	close(out[0]);
	return err_sys(e, rc, "error getting credentials: run %s", program);
}

static int helper_read(int fd, struct buf *out, struct err *e)
{
	int64_t deadline = time_mono_ns() + (int64_t)HELPER_MS * 1000000;
	for (;;) {
		int left = (int)((deadline - time_mono_ns()) / 1000000);
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (left <= 0 || poll(&p, 1, left) == 0)
			return err_set(e, CODE_DEADLINE_EXCEEDED, "error getting credentials: the helper does not answer");
		uint8_t *room = buf_reserve(out, 4096);
		if (!room) return err_set(e, CODE_RESOURCE_EXHAUSTED, "error getting credentials: the helper says too much");
		ssize_t n = read(fd, room, 4096);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return err_sys(e, errno, "read from the credential helper");
		if (n == 0) return 0;
		out->n += (size_t)n;
		room[n] = 0;
	}
}

static int helper_ask(const char *program, const char *server, struct buf *answer, struct err *e)
{
	struct helper h;
	int status = 0;
	if (helper_spawn(program, &h, e) < 0) return -1;
	/* a server's name fits into any pipe; a helper that does not read it is no error here */
	if (write(h.in, server, strlen(server)) < 0) status = -1;
	close(h.in);
	int rc = helper_read(h.out, answer, e);
	if (rc < 0) kill(h.pid, SIGKILL);
	close(h.out);
	while (waitpid(h.pid, &status, 0) < 0 && errno == EINTR) continue;
	if (rc < 0) return -1;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
	if (strstr(buf_str(answer), "credentials not found in native keychain")) return 1;
	_cleanup_free_ char *said = utf8_clean(buf_str(answer), min_of(answer->n, (size_t)1024));
	return err_set(e, CODE_UNKNOWN, "error getting credentials - %s failed, out: `%s`", program, said);
}

static void login_set(struct client_login *ret, const char *user, const char *secret, const char *token)
{
	*ret = (struct client_login){xstrdup(user), xstrdup(secret), xstrdup(token)};
}

static void wipe(char *s)
{
	if (s) explicit_bzero(s, strlen(s));
	free(s);
}

void client_login_fini(struct client_login *l)
{
	free(l->user);
	wipe(l->secret);
	wipe(l->token);
	*l = (struct client_login){0};
}

static int from_helper(const char *name, const char *server, struct client_login *ret, struct err *e)
{
	_cleanup_free_ char *program = xasprintf("docker-credential-%s", name);
	_cleanup_buf_ struct buf answer = BUF_MAX(ANSWER_MAX);
	int got = helper_ask(program, server, &answer, e);
	if (got < 0) return -1;
	_cleanup_json_ json_t *j = got ? json_object() : json_loadb((char *)answer.p, answer.n, 0, NULL);
	if (!json_is_object(j)) return err_set(e, CODE_UNKNOWN, "error getting credentials: %s answered no JSON", program);
	bool token = strcmp(text(j, "Username"), "<token>") == 0;
	login_set(ret, token ? "" : text(j, "Username"), text(j, "Secret"), "");
	explicit_bzero(answer.p, answer.n);
	return 0;
}

/* ---- the file ---- */
/* "https://host:port/v1/" and "host/path" -> "host:port", heap. */
static char *to_host(const char *url)
{
	const char *s = strstr(url, "://");
	s = s ? s + 3 : url;
	const char *at = strpbrk(s, "@/");
	if (at && *at == '@') s = at + 1;
	return xstrndup(s, strcspn(s, "/"));
}

static const json_t *find_auth(const json_t *auths, const char *key)
{
	const json_t *found = json_object_get(auths, key);
	const char *k;
	json_t *v;
	if (found) return found;
	json_object_foreach((json_t *)(uintptr_t)auths, k, v)
	{
		_cleanup_free_ char *host = to_host(k);
		if (strcmp(host, key) == 0) return v;
	}
	return NULL;
}

static int from_auth(const json_t *a, const char *key, struct client_login *ret, struct err *e)
{
	_cleanup_buf_ struct buf plain = BUF_MAX(1 << 20);
	const char *auth = text(a, "auth"), *user = text(a, "username"), *secret = text(a, "password");
	if (*auth) {
		if (base64_decode(auth, strlen(auth), &plain, e) < 0)
			return err_wrap(e, "auth of %s in the docker config", key);
		char *colon = strchr(buf_str(&plain), ':');
		if (!colon || colon == buf_str(&plain))
			return err_set(e, CODE_INVALID_ARGUMENT,
				       "invalid auth configuration file: auth of %s is not user:password", key);
		*colon = 0;
		user = buf_str(&plain);
		secret = colon + 1;
	}
	const char *identity = text(a, "identitytoken");
	login_set(ret, *identity ? "" : user, *identity ? identity : secret, text(a, "registrytoken"));
	if (plain.p) explicit_bzero(plain.p, plain.n);
	return 0;
}

static int load(const char *path, json_t **ret, struct err *e)
{
	_cleanup_free_ uint8_t *p = NULL;
	size_t n;
	_cleanup_err_ struct err local = ERR_INIT;
	json_error_t je;
	*ret = NULL;
	if (path_read_file(AT_FDCWD, path, CONFIG_MAX, &p, &n, &local) < 0)
		return local.code == CODE_NOT_FOUND ? 0 : err_move(e, &local);
	*ret = json_loadb((char *)p, n, 0, &je);
	if (json_is_object(*ret)) return 0;
	json_decref(*ret);
	*ret = NULL;
	return err_set(e, CODE_INVALID_ARGUMENT, "%s: %s (line %d)", path, je.text, je.line);
}

int client_credentials(const char *path, const char *host, struct client_login *ret, struct err *e)
{
	const char *key = strcmp(host, HUB_HOST) == 0 ? HUB_KEY : host;
	_cleanup_json_ json_t *config = NULL;
	if (load(path, &config, e) < 0) return -1;
	const char *helper = text(json_object_get(config, "credHelpers"), key);
	if (!*helper) helper = text(config, "credsStore");
	if (*helper && !strpbrk(helper, "/")) return from_helper(helper, key, ret, e);
	const json_t *auth = find_auth(json_object_get(config, "auths"), key);
	if (auth) return from_auth(auth, key, ret, e);
	login_set(ret, "", "", "");
	return 0;
}
