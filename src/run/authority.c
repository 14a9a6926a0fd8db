/* The proxy's authority among those that the rootfs trusts, for as long as the container runs: it is added at the end of the
 * first bundle that is there, between two comments. Not a mount over the bundle: a step may replace that file (ca-certificates'
 * own trigger does). What the step did to it stays; only our lines go, and a file that is as we left it gets its old time back.
 */
#include "run/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define CA_BEGIN "\n# buildkit proxy CA begin\n"
#define CA_END "# buildkit proxy CA end\n"

enum { BUNDLE_MAX = 10 << 20 };

static const char *const bundles[] = {
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/pki/tls/cacert.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/cert.pem",
};

static const char *find_bundle(const struct box *b)
{
	for (size_t i = 0; i < array_len(bundles); i++) {
		struct stat st;
		if (path_stat_in(b->rootfd, bundles[i], &st, NULL) == 0 && S_ISREG(st.st_mode)) return bundles[i];
	}
	return NULL;
}

static int read_bundle(int fd, struct buf *ret, struct err *e)
{
	for (;;) {
		ssize_t n = read(fd, buf_reserve(ret, 65536), 65536);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return err_sys(e, errno, "read");
		if (!n) return 0;
		ret->n += (size_t)n;
		if (ret->n > BUNDLE_MAX) return err_set(e, CODE_RESOURCE_EXHAUSTED, "it has more than %d bytes", BUNDLE_MAX);
	}
}

int authority_add(struct box *b, struct err *e)
{
	const char *name = find_bundle(b);
	_cleanup_buf_ struct buf text = BUF_INIT;
	struct stat st;
	if (!name || b->spec->rootfs_readonly) return 0;
	_cleanup_close_ int fd = path_open_in(b->rootfd, name, O_RDWR | O_CLOEXEC, 0, e);
	if (fd < 0 || read_bundle(fd, &text, e) < 0) return err_wrap(e, "add the proxy's authority to %s", name);
	if (fstat(fd, &st) < 0) return err_sys(e, errno, "stat %s", name);
	b->ca_at = text.n;
	if (text.n && text.p[text.n - 1] != '\n') buf_addc(&text, '\n');
	buf_addf(&text, "%s%s%s", CA_BEGIN, b->spec->proxy_ca, CA_END);
	b->ca_len = text.n - b->ca_at;
	b->ca_mtime = st.st_mtim;
	b->ca_path = xstrdup(name);
	b->ca_digest = digest_of(text.p, text.n);
	return path_write_all(fd, text.p + b->ca_at, b->ca_len, e);
}

static int cut(int fd, const struct box *b, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT;
	if (read_bundle(fd, &text, e) < 0) return -1;
	struct digest now = digest_of(text.p, text.n);
	if (digest_eq(&now, &b->ca_digest)) {
		struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, b->ca_mtime};
		if (ftruncate(fd, (off_t)b->ca_at) < 0 || futimens(fd, times) < 0) return err_sys(e, errno, "restore");
		return 0;
	}
	const char *from = buf_str(&text), *begin = strstr(from, CA_BEGIN), *end = begin ? strstr(begin, CA_END) : NULL;
	if (!end) return 0;
	end += sizeof CA_END - 1;
	size_t rest = text.n - (size_t)(end - from);
	if (pwrite(fd, end, rest, begin - from) != (ssize_t)rest || ftruncate(fd, (off_t)(text.n - (size_t)(end - begin))) < 0)
		return err_sys(e, errno, "rewrite");
	return 0;
}

void authority_remove(struct box *b)
{
	_cleanup_err_ struct err e = ERR_INIT;
	if (!b->ca_path) return;
	_cleanup_close_ int fd = path_open_in(b->rootfd, b->ca_path, O_RDWR | O_CLOEXEC, 0, &e);
	if (fd < 0 && e.code == CODE_NOT_FOUND) return;
	if (fd < 0 || cut(fd, b, &e) < 0) log_warn("the proxy's authority stays in %s of a step: %s", b->ca_path, e.msg);
}
