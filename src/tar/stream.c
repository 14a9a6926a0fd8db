/* The two stream callbacks over descriptors and memory, and the tee that hashes what passes.
 *
 * A tar_in may answer short, so loops here go on until 0. A tar_out takes everything or fails. Nothing in this file
 * owns what it reads from or writes to; only the tee owns something, its hasher. */
#include "tar/tar.h"
#include <errno.h>
#include <string.h>

static ssize_t fd_read(void *ctx, void *buf, size_t n, struct err *e)
{
	for (;;) {
		ssize_t r = read(*(const int *)ctx, buf, n);
		if (r >= 0) return r;
		if (errno != EINTR) return err_sys(e, errno, "read");
	}
}

static int fd_write(void *ctx, const void *p, size_t n, struct err *e) { return path_write_all(*(const int *)ctx, p, n, e); }

struct tar_in tar_in_fd(const int *fd) { return (struct tar_in){fd_read, (void *)fd}; }
struct tar_out tar_out_fd(const int *fd) { return (struct tar_out){fd_write, (void *)fd}; }

static int buf_write(void *ctx, const void *p, size_t n, struct err *e)
{
	struct buf *b = ctx;
	if (buf_add(b, p, n) < 0) return err_set(e, CODE_RESOURCE_EXHAUSTED, "stream is larger than %zu bytes", b->max);
	return 0;
}

struct tar_out tar_out_buf(struct buf *b) { return (struct tar_out){buf_write, b}; }

static ssize_t mem_read(void *ctx, void *buf, size_t n, struct err *e)
{
	struct tar_mem *m = ctx;
	n = min_of(n, m->n);
	if (n) memcpy(buf, m->p, n);
	m->p += n;
	m->n -= n;
	return (ssize_t)n;
}

struct tar_in tar_in_mem(struct tar_mem *m) { return (struct tar_in){mem_read, m}; }

int tar_copy(struct tar_in in, struct tar_out out, int64_t *ret_bytes, struct err *e)
{
	enum { CHUNK = 128 * 1024 };
	_cleanup_free_ uint8_t *buf = xmalloc(CHUNK);
	int64_t total = 0;
	ssize_t n;
	while ((n = in.read(in.ctx, buf, CHUNK, e)) > 0) {
		if (out.write(out.ctx, buf, (size_t)n, e) < 0) return -1;
		total += n;
	}
	if (n < 0) return -1;
	if (ret_bytes) *ret_bytes = total;
	return 0;
}

static ssize_t tee_read(void *ctx, void *buf, size_t n, struct err *e)
{
	struct tar_tee *t = ctx;
	ssize_t r = t->in.read(t->in.ctx, buf, n, e);
	if (r > 0) {
		hasher_update(&t->h, buf, (size_t)r);
		t->bytes += r;
	}
	return r;
}

static int tee_write(void *ctx, const void *p, size_t n, struct err *e)
{
	struct tar_tee *t = ctx;
	hasher_update(&t->h, p, n);
	t->bytes += (int64_t)n;
	return t->out.write ? t->out.write(t->out.ctx, p, n, e) : 0;
}

void tar_tee_init(struct tar_tee *t)
{
	hasher_init(&t->h);
	t->bytes = 0;
}

struct tar_in tar_tee_in(struct tar_tee *t) { return (struct tar_in){tee_read, t}; }
struct tar_out tar_tee_out(struct tar_tee *t) { return (struct tar_out){tee_write, t}; }

void tar_tee_final(struct tar_tee *t, char out[static DIGEST_STR])
{
	struct digest d;
	hasher_final(&t->h, &d);
	digest_format(&d, out);
}

void tar_tee_fini(struct tar_tee *t) { hasher_fini(&t->h); }
