#include "ship/attest_files_job.h"
#include "base/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct subject_list {
	struct ship_subject *v;
	size_t n, cap;
	struct strvec names;
};
enum { DEPTH_MAX = 512 };

static int hash_file(struct subject_list *l, int dirfd, const char *name, const char *path, struct err *e)
{
	_cleanup_free_ uint8_t *block = xmalloc(1 << 16);
	_cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) return err_sys(e, errno, "%s", path);
	struct hasher h;
	struct digest d;
	hasher_init(&h);
	ssize_t k;
	while ((k = read(fd, block, 1 << 16)) > 0) hasher_update(&h, block, (size_t)k);
	int errnum = errno;
	struct ship_subject *s = vec_add(l);
	hasher_final(&h, &d);
	digest_format(&d, s->digest);
	strvec_add(&l->names, path);
	return k < 0 ? err_sys(e, errnum, "%s", path) : 0;
}

static int walk(struct subject_list *l, int dirfd /* taken */, const char *prefix, int depth, struct err *e)
{
	_cleanup_strvec_ struct strvec names = {0};
	DIR *d = depth < DEPTH_MAX ? fdopendir(dirfd) : NULL;
	if (!d) {
		close(dirfd);
		return depth < DEPTH_MAX ? err_sys(e, errno, "%s", prefix)
					 : err_set(e, CODE_RESOURCE_EXHAUSTED, "%s: too many levels", prefix);
	}
	for (struct dirent *de; (de = readdir(d));)
		if (strcmp(de->d_name, ".") && strcmp(de->d_name, "..")) strvec_add(&names, de->d_name);
	strvec_sort(&names);
	int r = 0;
	for (size_t i = 0; i < names.n && r == 0; i++) {
		struct stat st;
		_cleanup_free_ char *path = *prefix ? xasprintf("%s/%s", prefix, names.v[i]) : xstrdup(names.v[i]);
		if (fstatat(dirfd, names.v[i], &st, AT_SYMLINK_NOFOLLOW) < 0) {
			r = err_sys(e, errno, "%s", path);
		} else if (S_ISREG(st.st_mode)) {
			r = hash_file(l, dirfd, names.v[i], path, e);
		} else if (S_ISDIR(st.st_mode)) {
			int sub = openat(dirfd, names.v[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			r = sub < 0 ? err_sys(e, errno, "%s", path) : walk(l, sub, path, depth + 1, e);
		}
	}
	closedir(d);
	return r;
}

static char *file_name(const struct files_attest *f, const char *path)
{
	const char *base = path_base(path), *dot = strrchr(base, '.');
	if (!f->name_platform) return xasprintf("%s%s", f->prefix, base);
	_cleanup_free_ char *p = xstrdup(f->platform);
	for (char *c = p; *c; c++)
		if (*c == '/') *c = '_';
	size_t n = dot ? (size_t)(dot - base) : strlen(base);
	return xasprintf("%s%.*s.%s%s", f->prefix, (int)n, base, p, dot ? dot : "");
}

static int add_file(struct files_attest *f, const struct attest_out *o, const struct subject_list *l, struct err *e)
{
	struct buf text = BUF_INIT;
	char *name = file_name(f, o->path);
	for (size_t i = 0; i < f->files.n; i++)
		if (!strcmp(f->files.v[i].name, name)) {
			err_set(e, CODE_UNKNOWN, "duplicate attestation path name %s", name);
			free(name);
			return -1;
		}
	if (attest_job_statement(o, l->v, l->n, true, &text, e) < 0) {
		free(name);
		buf_fini(&text);
		return -1;
	}
	struct sess_extra_file x = {.name = name, .p = text.p, .n = text.n, .mtime_ns = f->mtime_ns};
	vec_push(&f->files, x);
	return 0;
}

int files_attest_make(struct files_attest *f, int rootfd, struct err *e)
{
	struct attest_outs outs = {0};
	struct subject_list l = {0};
	if (!f->platform) return 0;
	int r = attest_job_read(f->in, f->n_in, f->platform, true, &outs, e);
	if (r == 0 && outs.n) {
		int fd = openat(rootfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = fd < 0 ? err_sys(e, errno, "result") : walk(&l, fd, "", 0, e);
	}
	for (size_t i = 0; i < l.n; i++) l.v[i].name = l.names.v[i];
	for (size_t i = 0; i < outs.n && r == 0; i++) r = add_file(f, &outs.v[i], &l, e);
	attest_outs_fini(&outs);
	strvec_fini(&l.names);
	vec_fini(&l);
	return r;
}

void files_attest_free(struct files_attest *f)
{
	if (!f) return;
	for (size_t i = 0; i < f->files.n; i++) {
		free((void *)f->files.v[i].name);
		free((void *)f->files.v[i].p);
	}
	vec_fini(&f->files);
	free(f->platform);
	free(f->prefix);
	free(f);
}
