/* Decompression as a tar_in.
 *
 * The kind is known from the first bytes. Each kind is one `fill` function that turns input into the caller's buffer
 * directly, so a byte is copied once. gzip is ISA-L's, which verifies CRC and length of each member; zstd is libzstd's; xz and
 * bzip2, which only ADD meets, are liblzma's and libbz2's.
 *  1. `head` (what was read for the detection) is delivered before anything else from `in`.
 *  2. Behind the last member or frame only zeros may follow.
 *  3. An error is kept: reading again fails again. */
#include "tar/tar.h"
#include <bzlib.h>
#include <isa-l/igzip_lib.h>
#include <lzma.h>
#include <stdio.h>
#include <string.h>
#include <zstd.h>

enum { IN_BYTES = 128 * 1024, XZ_MEMORY = 256 << 20 };

struct tar_decomp {
	struct tar_in in;
	enum tar_kind kind;
	ssize_t (*fill)(struct tar_decomp *d, uint8_t *buf, size_t n, struct err *e);
	int64_t max_bytes, out_bytes;
	uint8_t *buf; /* input not yet used: buf[pos..end) */
	size_t pos, end;
	bool in_eof, finished, failed;
	bool between; /* at the border of members or frames */
	struct inflate_state *gz;
	ZSTD_DStream *zs;
	lzma_stream *xz;
	bz_stream *bz;
	bool bz_open;
};

enum tar_kind tar_detect(const void *head, size_t n)
{
	static const struct {
		enum tar_kind kind;
		size_t len;
		char magic[7];
	} known[] = {
		{TAR_GZIP, 3, "\x1f\x8b\x08"},
		{TAR_ZSTD, 4, "\x28\xb5\x2f\xfd"},
		{TAR_XZ, 6,
		 "\xfd"
		 "7zXZ\0"},
		{TAR_BZIP2, 3, "BZh"},
	};
	for (size_t i = 0; i < array_len(known); i++)
		if (n >= known[i].len && !memcmp(head, known[i].magic, known[i].len)) return known[i].kind;
	const uint8_t *b = head;
	if (n >= 4 && (b[0] & 0xf0) == 0x50 && !memcmp(b + 1, "\x2a\x4d\x18", 3)) return TAR_ZSTD; /* skippable frame */
	return TAR_PLAIN;
}

const char *tar_kind_name(enum tar_kind k)
{
	static const char *const name[] = {"uncompressed", "gzip", "zstd", "xz", "bzip2"};
	return name[k];
}

/* More input behind what is left. 1, 0 at the end, -1. */
static int refill(struct tar_decomp *d, struct err *e)
{
	if (d->pos) memmove(d->buf, d->buf + d->pos, d->end - d->pos);
	d->end -= d->pos;
	d->pos = 0;
	if (d->in_eof || d->end == IN_BYTES) return !d->in_eof;
	ssize_t r = d->in.read(d->in.ctx, d->buf + d->end, IN_BYTES - d->end, e);
	if (r < 0) return -1;
	d->in_eof = !r;
	d->end += (size_t)r;
	return r > 0;
}

static int truncated(struct tar_decomp *d, struct err *e)
{
	return err_set(e, CODE_DATA_LOSS, "%s stream ends early", tar_kind_name(d->kind));
}

/* At the border: 1 another member begins, 0 the stream is over. */
static int next_member(struct tar_decomp *d, struct err *e)
{
	for (;;) {
		while (d->end - d->pos < 4 && !d->in_eof)
			if (refill(d, e) < 0) return -1;
		if (d->pos == d->end) return 0;
		if (d->buf[d->pos]) break;
		d->pos++; /* padding */
	}
	if (tar_detect(d->buf + d->pos, d->end - d->pos) != d->kind)
		return err_set(e, CODE_INVALID_ARGUMENT, "garbage behind the %s stream", tar_kind_name(d->kind));
	return 1;
}

static ssize_t fill_plain(struct tar_decomp *d, uint8_t *buf, size_t n, struct err *e)
{
	if (d->pos == d->end) return d->in.read(d->in.ctx, buf, n, e);
	n = min_of(n, d->end - d->pos);
	memcpy(buf, d->buf + d->pos, n);
	d->pos += n;
	return (ssize_t)n;
}

static const char *isal_text(int rc)
{
	switch (rc) {
	case ISAL_INCORRECT_CHECKSUM: return "checksum does not match";
	case ISAL_INVALID_WRAPPER: return "invalid header";
	case ISAL_UNSUPPORTED_METHOD: return "unsupported compression method";
	case ISAL_INVALID_LOOKBACK: return "invalid distance";
	case ISAL_INVALID_SYMBOL: return "invalid symbol";
	default: return "invalid block";
	}
}

static ssize_t fill_gzip(struct tar_decomp *d, uint8_t *buf, size_t n, struct err *e)
{
	struct inflate_state *s = d->gz;
	for (;;) {
		if (d->between) {
			int r = next_member(d, e);
			if (r <= 0) return r;
			isal_inflate_reset(s);
			s->crc_flag = ISAL_GZIP;
			d->between = false;
		}
		if (d->pos == d->end && refill(d, e) < 0) return -1;
		s->next_in = d->buf + d->pos;
		s->avail_in = (uint32_t)(d->end - d->pos);
		s->next_out = buf;
		s->avail_out = (uint32_t)n;
		bool starved = !s->avail_in;
		int rc = isal_inflate(s);
		d->pos = d->end - s->avail_in;
		if (rc < 0) return err_set(e, CODE_INVALID_ARGUMENT, "gzip: %s", isal_text(rc));
		if (rc == ISAL_NEED_DICT) return err_set(e, CODE_INVALID_ARGUMENT, "gzip: needs a dictionary");
		d->between = s->block_state == ISAL_BLOCK_FINISH;
		size_t made = n - s->avail_out;
		if (made) return (ssize_t)made;
		if (starved && !d->between) return truncated(d, e);
	}
}

static ssize_t fill_zstd(struct tar_decomp *d, uint8_t *buf, size_t n, struct err *e)
{
	for (;;) {
		if (d->between) {
			int r = next_member(d, e);
			if (r <= 0) return r;
			d->between = false;
		}
		if (d->pos == d->end && refill(d, e) < 0) return -1;
		ZSTD_inBuffer in = {d->buf + d->pos, d->end - d->pos, 0};
		ZSTD_outBuffer out = {buf, n, 0};
		size_t rc = ZSTD_decompressStream(d->zs, &out, &in);
		if (ZSTD_isError(rc)) return err_set(e, CODE_INVALID_ARGUMENT, "zstd: %s", ZSTD_getErrorName(rc));
		d->pos += in.pos;
		d->between = rc == 0;
		if (out.pos) return (ssize_t)out.pos;
		if (!in.size && !d->between) return truncated(d, e);
	}
}

static const char *lzma_text(lzma_ret rc)
{
	switch (rc) {
	case LZMA_MEM_ERROR: return "out of memory";
	case LZMA_MEMLIMIT_ERROR: return "needs more than 256 MiB of memory";
	case LZMA_FORMAT_ERROR: return "invalid header";
	case LZMA_OPTIONS_ERROR: return "unsupported options";
	default: return "damaged stream";
	}
}

static ssize_t fill_xz(struct tar_decomp *d, uint8_t *buf, size_t n, struct err *e)
{
	lzma_stream *s = d->xz;
	for (;;) {
		if (d->between) {
			int r = next_member(d, e);
			if (r <= 0) return r;
			lzma_ret rc = lzma_stream_decoder(s, XZ_MEMORY, 0); /* also from one stream to the next */
			if (rc != LZMA_OK) return err_set(e, CODE_RESOURCE_EXHAUSTED, "xz: %s", lzma_text(rc));
			d->between = false;
		}
		if (d->pos == d->end && refill(d, e) < 0) return -1;
		s->next_in = d->buf + d->pos;
		s->avail_in = d->end - d->pos;
		s->next_out = buf;
		s->avail_out = n;
		bool starved = !s->avail_in;
		lzma_ret rc = lzma_code(s, LZMA_RUN);
		d->pos = d->end - s->avail_in;
		if (rc != LZMA_OK && rc != LZMA_STREAM_END && rc != LZMA_BUF_ERROR)
			return err_set(e, CODE_INVALID_ARGUMENT, "xz: %s", lzma_text(rc));
		d->between = rc == LZMA_STREAM_END;
		if (s->avail_out < n) return (ssize_t)(n - s->avail_out);
		if (starved && !d->between) return truncated(d, e);
	}
}

static int bzip2_member(struct tar_decomp *d, struct err *e)
{
	if (d->bz_open) BZ2_bzDecompressEnd(d->bz);
	memset(d->bz, 0, sizeof *d->bz);
	d->bz_open = BZ2_bzDecompressInit(d->bz, 0, 0) == BZ_OK;
	return d->bz_open ? 0 : err_set(e, CODE_RESOURCE_EXHAUSTED, "bzip2: out of memory");
}

static ssize_t fill_bzip2(struct tar_decomp *d, uint8_t *buf, size_t n, struct err *e)
{
	bz_stream *s = d->bz;
	for (;;) {
		if (d->between) {
			int r = next_member(d, e);
			if (r <= 0) return r;
			if (bzip2_member(d, e) < 0) return -1;
			d->between = false;
		}
		if (d->pos == d->end && refill(d, e) < 0) return -1;
		s->next_in = (char *)d->buf + d->pos;
		s->avail_in = (unsigned)(d->end - d->pos);
		s->next_out = (char *)buf;
		s->avail_out = (unsigned)n;
		bool starved = !s->avail_in;
		int rc = BZ2_bzDecompress(s);
		d->pos = d->end - s->avail_in;
		if (rc != BZ_OK && rc != BZ_STREAM_END)
			return err_set(e, CODE_INVALID_ARGUMENT, "bzip2: %s",
				       rc == BZ_DATA_ERROR_MAGIC ? "invalid header" : "damaged stream");
		d->between = rc == BZ_STREAM_END;
		if (s->avail_out < n) return (ssize_t)(n - s->avail_out);
		if (starved && !d->between) return truncated(d, e);
	}
}

static int open_kind(struct tar_decomp *d, struct err *e)
{
	d->between = true;
	switch (d->kind) {
	case TAR_PLAIN: d->fill = fill_plain; return 0;
	case TAR_GZIP:
		d->fill = fill_gzip;
		d->gz = xnew(struct inflate_state);
		isal_inflate_init(d->gz);
		return 0;
	case TAR_ZSTD:
		d->fill = fill_zstd;
		d->zs = ZSTD_createDStream();
		return d->zs ? 0 : err_set(e, CODE_RESOURCE_EXHAUSTED, "zstd: out of memory");
	case TAR_XZ:
		d->fill = fill_xz;
		d->xz = xnew(lzma_stream);
		return 0;
	case TAR_BZIP2:
		d->fill = fill_bzip2;
		d->bz = xnew(bz_stream);
		return 0;
	}
	return err_set(e, CODE_INTERNAL, "unknown compression");
}

int tar_decomp_new(struct tar_in in, int64_t max_bytes, struct tar_decomp **ret, struct err *e)
{
	_cleanup_tar_decomp_ struct tar_decomp *d = xnew(struct tar_decomp);
	d->in = in;
	d->max_bytes = max_bytes;
	d->buf = xmalloc(IN_BYTES);
	while (d->end < TAR_MAGIC_BYTES && !d->in_eof)
		if (refill(d, e) < 0) return -1;
	d->kind = tar_detect(d->buf, d->end);
	if (open_kind(d, e) < 0) return -1;
	*ret = take_ptr(d);
	return 0;
}

enum tar_kind tar_decomp_kind(const struct tar_decomp *d) { return d->kind; }

static ssize_t decomp_read(void *ctx, void *buf, size_t n, struct err *e)
{
	struct tar_decomp *d = ctx;
	if (d->failed) return err_set(e, CODE_FAILED_PRECONDITION, "%s stream has failed before", tar_kind_name(d->kind));
	if (d->finished || !n) return 0;
	ssize_t r = d->fill(d, buf, min_of(n, (size_t)1 << 30), e);
	d->finished = r == 0;
	d->failed = r < 0;
	if (r <= 0) return r;
	d->out_bytes += r;
	if (d->max_bytes && d->out_bytes > d->max_bytes) {
		d->failed = true;
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "decompressed stream is larger than %lld bytes",
			       (long long)d->max_bytes);
	}
	return r;
}

struct tar_in tar_decomp_in(struct tar_decomp *d) { return (struct tar_in){decomp_read, d}; }

void tar_decomp_free(struct tar_decomp *d)
{
	if (!d) return;
	if (d->xz) lzma_end(d->xz);
	if (d->bz_open) BZ2_bzDecompressEnd(d->bz);
	ZSTD_freeDStream(d->zs);
	free(d->xz);
	free(d->bz);
	free(d->gz);
	free(d->buf);
	free(d);
}
