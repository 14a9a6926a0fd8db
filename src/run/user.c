/* Users and groups of a root filesystem, from its own /etc/passwd and /etc/group.
 *
 * The files are a peer's: opened beneath the root, regular files only, at most 10 MiB, bad lines tolerated. Numbers are
 * never taken for names. A user that came by name or number with a passwd line also gets the groups that list its name,
 * unless the group was given. Follows the peer's GetUser (executor/oci/user.go, moby/sys/user). */
#include "run/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

enum { FILE_MAX_BYTES = 10 << 20, ID_MAX = 0x7fffffff, GROUPS_MAX = 65536 };

void run_user_fini(struct run_user *u)
{
	free(u->groups);
	free(u->home);
	*u = (struct run_user){0};
}

/* A whole user file, NULL when it is missing or no regular file; -1 when it is too large or unreadable. */
static int read_user_file(int rootfd, const char *path, char **ret, struct err *e)
{
	_cleanup_close_ int fd = path_open_in(rootfd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, NULL);
	struct stat st;
	*ret = NULL;
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) return 0;
	_cleanup_buf_ struct buf b = BUF_MAX(FILE_MAX_BYTES + 2);
	for (;;) {
		char chunk[16384];
		ssize_t n = read(fd, chunk, sizeof chunk);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return err_sys(e, errno, "read %s", path);
		if (n == 0) break;
		if (buf_add(&b, chunk, (size_t)n) < 0)
			return err_set(e, CODE_INVALID_ARGUMENT, "\"%s\" exceeds %d bytes", path, FILE_MAX_BYTES);
	}
	*ret = buf_take_str(&b);
	return 0;
}

/* One line cut at ':' into at most n fields; missing ones are "". */
static void split_fields(char *line, char **fields, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		fields[i] = line;
		char *colon = strchr(line, ':');
		if (!colon) {
			line += strlen(line);
			continue;
		}
		*colon = 0;
		line = colon + 1;
	}
}

static char *next_line(char **at)
{
	for (;;) {
		char *line = *at;
		if (!line || !*line) return NULL;
		char *nl = strchr(line, '\n');
		*at = nl ? nl + 1 : line + strlen(line);
		if (nl) *nl = 0;
		line += strspn(line, " \t\r\v\f");
		size_t n = strlen(line);
		while (n && strchr(" \t\r\v\f", line[n - 1])) line[--n] = 0;
		if (n) return line;
	}
}

/* 1: a number in range, 0: none, -1: out of range. */
static int parse_id(const char *s, int64_t *ret, struct err *e)
{
	char *end;
	if (!*s || !strchr("+-0123456789", *s)) return 0;
	errno = 0;
	long long v = strtoll(s, &end, 10);
	if (end == s || *end) return 0;
	if (errno == ERANGE || v < 0 || v > ID_MAX)
		return err_set(e, CODE_INVALID_ARGUMENT, "uids and gids must be in range 0-%d", ID_MAX);
	*ret = v;
	return 1;
}

static uid_t field_id(const char *s) { return (uid_t)strtoll(s, NULL, 10); }
static bool has_id(const char *s) { return *s >= '0' && *s <= '9'; } /* lines like "+::::::" name nobody */

static bool list_has(char *list, const char *name)
{
	char *save = NULL;
	for (char *m = strtok_r(list, ",", &save); m; m = strtok_r(NULL, ",", &save))
		if (strcmp(m, name) == 0) return true;
	return false;
}

/* "uid:gid", both numbers or "root": no file is needed. */
static bool fast_path(const char *user, struct run_user *u)
{
	uint64_t v[2];
	const char *at = user;
	for (int i = 0; i < 2; i++) {
		size_t n = strcspn(at, ":");
		char *end;
		if (i == 1) n = strlen(at);
		if (n == 4 && memcmp(at, "root", 4) == 0) {
			v[i] = 0;
		} else {
			if (*at < '0' || *at > '9') return false;
			errno = 0;
			v[i] = strtoull(at, &end, 10);
			if (end != at + n || errno || v[i] > UINT32_MAX) return false;
		}
		if (i == 0 && at[n] != ':') return false;
		at += n + 1;
	}
	u->uid = (uid_t)v[0];
	u->gid = (gid_t)v[1];
	return true;
}

/* The passwd line of the user wanted: its name (heap) or NULL. */
static char *match_passwd(char *text, const char *name, int64_t uid, struct run_user *u)
{
	char *line, *f[7];
	while ((line = next_line(&text))) {
		split_fields(line, f, 7);
		if (!has_id(f[2])) continue;
		if (uid >= 0 ? field_id(f[2]) != (uid_t)uid : strcmp(f[0], name) != 0) continue;
		u->uid = field_id(f[2]);
		u->gid = field_id(f[3]);
		u->home = xstrdup(f[5]);
		return xstrdup(f[0]);
	}
	return NULL;
}

static bool match_group(char *text, const char *name, int64_t gid, struct run_user *u)
{
	char *line, *f[4];
	while ((line = next_line(&text))) {
		split_fields(line, f, 4);
		if (!has_id(f[2])) continue;
		if (gid >= 0 ? field_id(f[2]) != (gid_t)gid : strcmp(f[0], name) != 0) continue;
		u->gid = field_id(f[2]);
		return true;
	}
	return false;
}

static void supplementary(char *text, const char *user, struct run_user *u)
{
	char *line, *f[4];
	while ((line = next_line(&text)) && u->n_groups < GROUPS_MAX) {
		split_fields(line, f, 4);
		if (!list_has(f[3], user)) continue;
		u->groups = xreallocarray(u->groups, u->n_groups + 1, sizeof *u->groups);
		u->groups[u->n_groups++] = field_id(f[2]);
	}
}

static int find_in_files(int rootfd, char *name, char *group_arg, struct run_user *u, struct err *e)
{
	_cleanup_free_ char *passwd = NULL, *group = NULL, *matched = NULL;
	int64_t uid = -1, gid = -1;
	int is_uid = parse_id(name, &uid, e);
	int is_gid = is_uid < 0 ? -1 : parse_id(group_arg, &gid, e);
	if (is_gid < 0) return -1;
	if (read_user_file(rootfd, "/etc/passwd", &passwd, e) < 0) return err_wrap(e, "unable to find user %s", name);
	if (read_user_file(rootfd, "/etc/group", &group, e) < 0) return -1;
	matched = match_passwd(passwd, name, !*name ? 0 : uid, u);
	if (!matched && *name) {
		if (!is_uid)
			return err_set(e, CODE_INVALID_ARGUMENT, "unable to find user %s: no matching entries in passwd file",
				       name);
		u->uid = (uid_t)uid;
	}
	if (*group_arg) {
		if (!match_group(group, group_arg, gid, u)) {
			if (!is_gid)
				return err_set(e, CODE_INVALID_ARGUMENT,
					       "unable to find group %s: no matching entries in group file", group_arg);
			u->gid = (gid_t)gid;
		}
	} else if (matched) {
		supplementary(group, matched, u);
	}
	return 0;
}

int run_user_find(int rootfd, const char *user, struct run_user *ret, struct err *e)
{
	struct run_user u = {0};
	bool is_default = str_empty(user);
	if (!is_default && fast_path(user, &u)) {
		*ret = u;
		return 0;
	}
	_cleanup_free_ char *copy = xstrdup(is_default ? "0" : user);
	char *f[2];
	split_fields(copy, f, 2);
	f[1][strcspn(f[1], ":")] = 0;
	if (find_in_files(rootfd, f[0], f[1], &u, is_default ? NULL : e) < 0) {
		run_user_fini(&u);
		if (!is_default) return -1;
	}
	*ret = u;
	return 0;
}
