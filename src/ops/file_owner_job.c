/* Owners of --chown: by number, or by a name in /etc/passwd and /etc/group of a tree.
 * As with BuildKit a user brings its group along (its number when it is a number), and what is not found is 0.
 * Source: moby/buildkit solver/llbsolver/ops/user_linux.go, moby/sys/user; passwd(5), group(5). */
#include "ops/file_parts_job.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

enum { FILE_MAX_BYTES = 10 << 20 };

static int read_fd(int fd, const char *path, struct buf *b, struct err *e)
{
	for (;;) {
		char chunk[16384];
		ssize_t n = read(fd, chunk, sizeof chunk);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return err_sys(e, errno, "read %s", path);
		if (n == 0) return 0;
		if (buf_add(b, chunk, (size_t)n) < 0)
			return err_set(e, CODE_RESOURCE_EXHAUSTED, "\"%s\" exceeds %d bytes", path, FILE_MAX_BYTES);
	}
}

/* 1 read, 0 there is none. */
static int read_file(int rootfd, const char *path, struct buf *b, struct err *e)
{
	struct stat st;
	_cleanup_close_ int fd = path_open_in(rootfd, path, O_RDONLY | O_NONBLOCK, 0, NULL);
	if (fd < 0) return errno == ENOENT || errno == ENOTDIR ? 0 : err_sys(e, errno, "open %s", path);
	if (fstat(fd, &st) < 0) return err_sys(e, errno, "stat %s", path);
	if (!S_ISREG(st.st_mode)) return err_set(e, CODE_INVALID_ARGUMENT, "%s is not a regular file", path);
	return read_fd(fd, path, b, e) < 0 ? -1 : 1;
}

/* Go's strconv.Atoi with errors ignored. */
static uint32_t number(const char *s, size_t n)
{
	char tmp[24], *end;
	if (!n || n >= sizeof tmp) return 0;
	memcpy(tmp, s, n);
	tmp[n] = 0;
	if (strspn(tmp, "+-0123456789") != n) return 0;
	long long v = strtoll(tmp, &end, 10);
	return *end ? 0 : (uint32_t)v;
}

/* Field `k` of a line. */
static const char *field(const char *line, size_t n, size_t k, size_t *ret_len)
{
	const char *p = line, *end = line + n;
	for (;; k--) {
		const char *colon = memchr(p, ':', (size_t)(end - p));
		*ret_len = (size_t)((colon ? colon : end) - p);
		if (k == 0) return p;
		if (!colon) break;
		p = colon + 1;
	}
	*ret_len = 0;
	return end;
}

static uint32_t number_field(const char *line, size_t n, size_t k)
{
	size_t len;
	const char *p = field(line, n, k, &len);
	return number(p, len);
}

/* The first line whose first field is name; NULL. */
static const char *find_line(const char *text, const char *name, size_t *ret_len)
{
	size_t name_len = strlen(name);
	for (const char *p = text; *p;) {
		size_t n = strcspn(p, "\n"), skip = min_of(strspn(p, " \t\v\f\r"), n), len;
		const char *line = p + skip;
		size_t rest = n - skip;
		while (rest && strchr(" \t\v\f\r", line[rest - 1])) rest--;
		const char *first = field(line, rest, 0, &len);
		if (rest && len == name_len && !memcmp(first, name, len)) {
			*ret_len = rest;
			return line;
		}
		p += n + (p[n] == '\n');
	}
	return NULL;
}

static int read_user(const struct file_job_ctx *c, const Pb__UserOpt *u, struct file_owner *o, struct err *e)
{
	if (!u) return 0;
	if (u->user_case == PB__USER_OPT__USER_BY_ID) {
		o->uid = o->gid = u->byid;
		return 0;
	}
	if (u->user_case != PB__USER_OPT__USER_BY_NAME) return 0;
	if (c->userfd < 0) return err_set(e, CODE_INVALID_ARGUMENT, "invalid missing user mount");
	_cleanup_buf_ struct buf b = BUF_MAX(FILE_MAX_BYTES);
	int r = read_file(c->userfd, "/etc/passwd", &b, e);
	size_t n;
	const char *line = r > 0 ? find_line(buf_str(&b), u->byname->name, &n) : NULL;
	if (line) {
		o->uid = number_field(line, n, 2);
		o->gid = number_field(line, n, 3);
	}
	return r < 0 ? -1 : 0;
}

static int read_group(const struct file_job_ctx *c, const Pb__UserOpt *u, struct file_owner *o, struct err *e)
{
	if (!u) return 0;
	if (u->user_case == PB__USER_OPT__USER_BY_ID) {
		o->gid = u->byid;
		return 0;
	}
	if (u->user_case != PB__USER_OPT__USER_BY_NAME) return 0;
	if (c->groupfd < 0) return err_set(e, CODE_INVALID_ARGUMENT, "invalid missing group mount");
	_cleanup_buf_ struct buf b = BUF_MAX(FILE_MAX_BYTES);
	int r = read_file(c->groupfd, "/etc/group", &b, e);
	size_t n;
	const char *line = r > 0 ? find_line(buf_str(&b), u->byname->name, &n) : NULL;
	if (line && *line != '#') o->gid = number_field(line, n, 2);
	return r < 0 ? -1 : 0;
}

int file_owner_read(const struct file_job_ctx *c, const Pb__ChownOpt *opt, struct file_owner *ret, struct err *e)
{
	struct file_owner o = {.set = opt != NULL};
	if (opt && (read_user(c, opt->user, &o, e) < 0 || read_group(c, opt->group, &o, e) < 0)) return -1;
	*ret = o;
	return 0;
}
