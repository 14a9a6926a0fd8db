/* What an ordinary user needs for a daemon of their own: a user namespace in which they are root and their subordinate ids are
 * the others. rootlesskit makes one where it is installed; otherwise we do, as unshare(1) does: the child unshares, the parent
 * has newuidmap and newgidmap write its maps, the child becomes root and goes on. Only the two setuid helpers can map more
 * than one id, so what they need is looked at first and told by name.
 * After a fork only async-signal-safe calls. */
#include "cli/embed_user.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILE_MAX_BYTES = 1 << 20, IDS_WANTED = 65536 };

char *embed_find_program(const char *name)
{
	const char *path = getenv("PATH");
	for (const char *s = path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"; *s;) {
		size_t n = strcspn(s, ":");
		char *p = xasprintf("%.*s/%s", (int)n, s, name);
		if (n && access(p, X_OK) == 0) return p;
		free(p);
		s += n + (s[n] == ':');
	}
	return NULL;
}

/* ---- /etc/subuid, /etc/subgid: "name-or-uid:first:count" ---- */
static bool range_of_line(char *line, const struct passwd *pw, unsigned *first, unsigned *count)
{
	char *save = NULL, uid[16], *who = strtok_r(line, ":", &save), *a = strtok_r(NULL, ":", &save),
	     *n = strtok_r(NULL, ":", &save);
	snprintf(uid, sizeof uid, "%u", (unsigned)pw->pw_uid);
	if (!who || !a || !n || (strcmp(who, pw->pw_name) != 0 && strcmp(who, uid) != 0)) return false;
	unsigned long long from = strtoull(a, NULL, 10), many = strtoull(n, NULL, 10);
	if (!from || !many || from + many > 0xffffffffULL) return false;
	*first = (unsigned)from;
	*count = (unsigned)many;
	return true;
}

/* The first range with enough ids, else the largest; false: none. */
static bool find_range(const char *file, const struct passwd *pw, unsigned *first, unsigned *count)
{
	uint8_t *text = NULL;
	size_t n;
	char *save = NULL;
	*count = 0;
	if (path_read_file(AT_FDCWD, file, FILE_MAX_BYTES, &text, &n, NULL) < 0) return false;
	for (char *l = strtok_r((char *)text, "\n", &save); l && *count < IDS_WANTED; l = strtok_r(NULL, "\n", &save)) {
		unsigned a, m;
		if (!range_of_line(l, pw, &a, &m) || m <= *count) continue;
		*first = a;
		*count = m;
	}
	free(text);
	return *count > 0;
}

static bool reads(const char *path, const char *value)
{
	uint8_t *text = NULL;
	size_t n;
	if (path_read_file(AT_FDCWD, path, 64, &text, &n, NULL) < 0) return false;
	bool same = strcspn((char *)text, "\n") == strlen(value) && str_starts((char *)text, value);
	free(text);
	return same;
}

/* Why the kernel does not let us have one, as far as it can be seen. */
static int userns_refused(int error, struct err *e)
{
	static const struct {
		const char *file, *value, *set;
	} known[] = {
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
		 "kernel.apparmor_restrict_unprivileged_userns=0"},
		{"/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=15000"},
	};
	for (size_t i = 0; i < array_len(known); i++)
		if (reads(known[i].file, known[i].value))
			return err_set(e, CODE_FAILED_PRECONDITION,
				       "this user may not make a user namespace (%s is %s); root can allow it: sysctl -w %s",
				       known[i].file, known[i].value, known[i].set);
	return err_set(
		e, CODE_FAILED_PRECONDITION,
		"this user may not make a user namespace: %s; in a container, its seccomp or AppArmor profile forbids it",
		strerror(error));
}

static int try_userns(struct err *e)
{
	int status = 0;
	pid_t pid = fork();
	if (pid < 0) return err_sys(e, errno, "fork");
	if (pid == 0) _exit(unshare(CLONE_NEWUSER) < 0 ? errno : 0);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : userns_refused(WEXITSTATUS(status), e);
}

void embed_user_fini(struct embed_user *u)
{
	free(u->name);
	free(u->home);
	free(u->rootlesskit);
	free(u->newuidmap);
	free(u->newgidmap);
}

int embed_user_find(struct embed_user *u, struct err *e)
{
	const struct passwd *pw = getpwuid(getuid());
	if (!pw) return err_set(e, CODE_FAILED_PRECONDITION, "user %u is not in /etc/passwd", (unsigned)getuid());
	const char *home = getenv("HOME");
	u->name = xstrdup(pw->pw_name);
	u->home = xstrdup(str_empty(home) ? pw->pw_dir : home);
	u->rootlesskit = embed_find_program("rootlesskit");
	u->newuidmap = embed_find_program("newuidmap");
	u->newgidmap = embed_find_program("newgidmap");
	if (!u->newuidmap || !u->newgidmap)
		return err_set(e, CODE_FAILED_PRECONDITION, "%s is not installed (Debian: apt-get install uidmap)",
			       u->newuidmap ? "newgidmap" : "newuidmap");
	bool uids = find_range("/etc/subuid", pw, &u->first_uid, &u->uids),
	     gids = find_range("/etc/subgid", pw, &u->first_gid, &u->gids);
	if (!uids || !gids)
		return err_set(e, CODE_FAILED_PRECONDITION,
			       "%s has no subordinate ids in %s; root can give them: usermod --add-subuids 100000-165535 "
			       "--add-subgids "
			       "100000-165535 %s",
			       u->name, uids ? "/etc/subgid" : "/etc/subuid", u->name);
	return try_userns(e);
}

/* ---- our own namespace ---- */
static int map_ids(const char *program, pid_t pid, unsigned own, unsigned first, unsigned count)
{
	char args[7][16];
	const unsigned v[7] = {(unsigned)pid, 0, own, 1, 1, first, count};
	for (size_t i = 0; i < 7; i++) snprintf(args[i], sizeof args[i], "%u", v[i]);
	char *const argv[] = {(char *)program, args[0], args[1], args[2], args[3], args[4], args[5], args[6], NULL};
	int status = 0;
	pid_t child = fork();
	if (child == 0) {
		execv(program, argv);
		_exit(127);
	}
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
	return child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

/* In a child of the process that shall go into the namespace: waits for it to be there, then has its maps written. */
static int map_parent(const struct embed_user *u, pid_t pid, int ready)
{
	char c;
	if (read(ready, &c, 1) != 1) return -1;
	return map_ids(u->newuidmap, pid, getuid(), u->first_uid, u->uids) < 0 ||
			       map_ids(u->newgidmap, pid, getgid(), u->first_gid, u->gids) < 0
		       ? -1
		       : 0;
}

int embed_user_enter(const struct embed_user *u)
{
	int p[2], status = 0;
	pid_t self = getpid(), helper;
	if (pipe2(p, O_CLOEXEC) < 0 || (helper = fork()) < 0) return -1;
	if (helper == 0) {
		close(p[1]);
		_exit(map_parent(u, self, p[0]) < 0);
	}
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 || write(p[1], "", 1) != 1) return -1;
	while (waitpid(helper, &status, 0) < 0 && errno == EINTR) continue;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return -1;
	return setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0 ? -1 : 0;
}
