/* Reader of tar archives: v7, ustar, GNU and PAX headers, with what Go's archive/tar accepts as the measure.
 *
 * Input goes through one window, buf[pos..end); headers are parsed in it and data handed out from it, so the bytes of a
 * file are not copied here.
 *  1. `data_left` bytes and then `pad` bytes of the entry at hand are still in the stream; the next header is behind them.
 *  2. For a sparse file `map` says which parts of the logical file the data are; else the data is the file.
 *  3. Names are at most TAR_NAME_MAX, PAX blocks TAR_PAX_MAX and sparse maps MAP_MAX: nothing grows with the peer's wish.
 *  4. Global PAX records are read over, as Go does. */
#include "tar/internal.h"
#include <inttypes.h>
#include <limits.h>
#include <string.h>

enum { IN_BYTES = 256 * 1024, MAP_MAX = 1 << 20 };

struct fragment {
	int64_t at, len;
};
struct tar_reader {
	struct tar_in in;
	uint8_t *buf;
	size_t pos, end;
	bool in_eof, over;
	int64_t data_left;
	size_t pad;
	/* sparse */
	bool sparse;
	VEC(struct fragment) map;
	size_t map_i;
	int64_t at, real_size; /* logical position and size of a sparse file */
	/* the entry at hand */
	struct buf name, linkname, uname, gname, pax;
	VEC(struct tar_xattr) xattrs;
};
/* What the PAX records in front of an entry said. */
struct overlay {
	bool has_path, has_link, has_uname, has_gname, has_size, has_uid, has_gid, has_mtime, has_atime, has_ctime;
	int64_t size, uid, gid;
	struct timespec mtime, atime, ctime;
	bool long_name, long_link; /* GNU's, already in name and linkname */
	int64_t sparse_major, sparse_minor, sparse_real;
	bool sparse_any, has_sparse_real, sparse_has_map;
	int64_t sparse_offset; /* of format 0.0: an offset that waits for its length */
};

struct tar_reader *tar_reader_new(struct tar_in in)
{
	struct tar_reader *r = xnew(struct tar_reader);
	r->in = in;
	r->buf = xmalloc(IN_BYTES);
	r->name.max = r->linkname.max = TAR_NAME_MAX + 1;
	r->uname.max = r->gname.max = TAR_NAME_MAX + 1;
	r->pax.max = TAR_PAX_MAX + 1;
	return r;
}

void tar_reader_free(struct tar_reader *r)
{
	if (!r) return;
	buf_fini(&r->name);
	buf_fini(&r->linkname);
	buf_fini(&r->uname);
	buf_fini(&r->gname);
	buf_fini(&r->pax);
	vec_fini(&r->xattrs);
	vec_fini(&r->map);
	free(r->buf);
	free(r);
}

static int bad(struct err *e, const char *what) { return err_set(e, CODE_INVALID_ARGUMENT, "invalid tar header: %s", what); }
static int cut(struct err *e) { return err_set(e, CODE_DATA_LOSS, "tar archive ends early"); }

/* ---- the window ---- */
/* At least want bytes (<= IN_BYTES) in the window unless the stream ends. Bytes there, or -1. */
static ssize_t want(struct tar_reader *r, size_t n, struct err *e)
{
	if (r->end - r->pos >= n) return (ssize_t)(r->end - r->pos);
	if (r->pos) memmove(r->buf, r->buf + r->pos, r->end - r->pos);
	r->end -= r->pos;
	r->pos = 0;
	while (r->end < n && !r->in_eof) {
		ssize_t k = r->in.read(r->in.ctx, r->buf + r->end, IN_BYTES - r->end, e);
		if (k < 0) return -1;
		r->in_eof = k == 0;
		r->end += (size_t)k;
	}
	return (ssize_t)(r->end - r->pos);
}

static int skip(struct tar_reader *r, int64_t n, struct err *e)
{
	while (n > 0) {
		ssize_t k = want(r, 1, e);
		if (k < 0) return -1;
		if (!k) return cut(e);
		k = (ssize_t)min_of((int64_t)k, n);
		r->pos += (size_t)k;
		n -= k;
	}
	return 0;
}

/* ---- fields ---- */
/* Octal, or GNU's base-256. */
static int number(const uint8_t *block, size_t at, size_t width, int64_t *ret, struct err *e)
{
	const uint8_t *p = block + at, *end = p + width;
	if (*p & 0x80) {
		uint8_t inv = *p & 0x40 ? 0xff : 0;
		uint64_t v = 0;
		for (size_t i = 0; i < width; i++) {
			uint8_t b = (uint8_t)(p[i] ^ inv);
			if (!i) b &= 0x7f;
			if (v >> 55) return bad(e, "number is too large");
			v = v << 8 | b;
		}
		*ret = inv ? (int64_t)~v : (int64_t)v;
		return 0;
	}
	while (p < end && (*p == ' ' || !*p)) p++;
	uint64_t v = 0;
	for (; p < end && *p >= '0' && *p <= '7'; p++) v = v << 3 | (uint64_t)(*p - '0');
	for (; p < end; p++)
		if (*p != ' ' && *p) return bad(e, "not an octal number");
	if (v > INT64_MAX) return bad(e, "number is too large");
	*ret = (int64_t)v;
	return 0;
}

static void string(struct buf *out, const uint8_t *block, size_t at, size_t width)
{
	buf_add(out, block + at, strnlen((const char *)block + at, width));
}

static bool decimal(const char *s, size_t n, int64_t *ret)
{
	bool neg = n && *s == '-';
	if (neg) s++, n--;
	if (!n || n > 18) return false;
	int64_t v = 0;
	for (; n; s++, n--) {
		if (*s < '0' || *s > '9') return false;
		v = v * 10 + (*s - '0');
	}
	*ret = neg ? -v : v;
	return true;
}

static bool pax_time(const char *s, size_t n, struct timespec *ret)
{
	const char *dot = memchr(s, '.', n);
	int64_t sec;
	if (!decimal(s, dot ? (size_t)(dot - s) : n, &sec)) return false;
	long ns = 0, unit = 100000000;
	for (const char *p = dot ? dot + 1 : s + n; p < s + n; p++, unit /= 10) {
		if (*p < '0' || *p > '9') return false;
		ns += unit * (*p - '0');
	}
	if (*s == '-' && ns) sec--, ns = 1000000000 - ns;
	*ret = (struct timespec){sec, ns};
	return true;
}

/* ---- sparse maps ---- */
static int map_add(struct tar_reader *r, int64_t at, int64_t len, struct err *e)
{
	if (r->map.n >= MAP_MAX) return bad(e, "too many parts in a sparse file");
	vec_push(&r->map, ((struct fragment){at, len}));
	return 0;
}

/* In order, no overlap, within the real size, and as many bytes as the archive holds. */
static int map_check(struct tar_reader *r, struct err *e)
{
	int64_t from = 0, sum = 0;
	for (size_t i = 0; i < r->map.n; i++) {
		const struct fragment *f = &r->map.v[i];
		if (f->at < from || f->len < 0 || f->at > r->real_size || f->len > r->real_size - f->at)
			return bad(e, "sparse map is out of order");
		from = f->at + f->len;
		sum += f->len;
	}
	return sum == r->data_left ? 0 : bad(e, "sparse map does not fit the data");
}

/* Old GNU: four parts in the header, 21 in each block that follows while the flag says so. */
static int map_gnu(struct tar_reader *r, const uint8_t *header, struct err *e)
{
	uint8_t block[TAR_BLOCK_BYTES];
	memcpy(block, header, sizeof block);
	if (number(block, 483, 12, &r->real_size, e) < 0) return -1;
	size_t at = 386, n = 4;
	for (;;) {
		for (size_t i = 0; i < n && block[at + i * 24]; i++) {
			int64_t off, len;
			if (number(block, at + i * 24, 12, &off, e) < 0 || number(block, at + i * 24 + 12, 12, &len, e) < 0)
				return -1;
			if (map_add(r, off, len, e) < 0) return -1;
		}
		if (!block[at + n * 24]) return 0;
		ssize_t k = want(r, TAR_BLOCK_BYTES, e);
		if (k < TAR_BLOCK_BYTES) return k < 0 ? -1 : cut(e);
		memcpy(block, r->buf + r->pos, sizeof block);
		r->pos += TAR_BLOCK_BYTES;
		at = 0;
		n = 21;
	}
}

/* PAX 1.0: the map is the beginning of the data: a count and pairs, a decimal a line, padded to a block. */
static int map_line(struct tar_reader *r, int64_t *used, int64_t *ret, struct err *e)
{
	char line[24];
	size_t n = 0;
	for (;;) {
		ssize_t k = want(r, 1, e);
		if (k < 0) return -1;
		if (!k || *used >= r->data_left) return bad(e, "sparse map is cut");
		char c = (char)r->buf[r->pos++];
		++*used;
		if (c == '\n') break;
		if (n == sizeof line) return bad(e, "sparse map");
		line[n++] = c;
	}
	return decimal(line, n, ret) && *ret >= 0 ? 0 : bad(e, "sparse map");
}

static int map_pax1(struct tar_reader *r, struct err *e)
{
	int64_t used = 0, n, at, len;
	if (map_line(r, &used, &n, e) < 0) return -1;
	for (; n > 0; n--) {
		if (map_line(r, &used, &at, e) < 0 || map_line(r, &used, &len, e) < 0 || map_add(r, at, len, e) < 0) return -1;
	}
	int64_t pad = (int64_t)tar_padding(used);
	if (used + pad > r->data_left || skip(r, pad, e) < 0) return bad(e, "sparse map is cut");
	r->data_left -= used + pad;
	return 0;
}

/* PAX 0.1: "offset,length,offset,length". */
static int map_pax01(struct tar_reader *r, const char *s, size_t n, struct err *e)
{
	int64_t pair[2];
	for (int i = 0; n; i = !i) {
		const char *comma = memchr(s, ',', n);
		size_t k = comma ? (size_t)(comma - s) : n;
		if (!decimal(s, k, &pair[i])) return bad(e, "sparse map");
		if (i && map_add(r, pair[0], pair[1], e) < 0) return -1;
		s += k + !!comma;
		n -= k + !!comma;
		if (!n && !i) return bad(e, "sparse map");
	}
	return 0;
}

/* ---- PAX records ---- */
static int set_string(struct buf *b, const char *v, size_t n, bool *has, struct err *e)
{
	if (memchr(v, 0, n)) return bad(e, "NUL in a name");
	buf_reset(b);
	if (buf_add(b, v, n) < 0) return err_set(e, CODE_INVALID_ARGUMENT, "tar: a name is longer than %d bytes", TAR_NAME_MAX);
	*has = true;
	return 0;
}

static int record_sparse(struct tar_reader *r, struct overlay *o, const char *k, const char *v, size_t n, struct err *e)
{
	int64_t num = 0;
	o->sparse_any = true;
	if (str_eq(k, "name")) return set_string(&r->name, v, n, &o->has_path, e);
	if (str_eq(k, "map")) {
		o->sparse_has_map = true;
		return map_pax01(r, v, n, e);
	}
	if (!decimal(v, n, &num)) return bad(e, "sparse number");
	if (str_eq(k, "major"))
		o->sparse_major = num;
	else if (str_eq(k, "minor"))
		o->sparse_minor = num;
	else if (str_eq(k, "realsize") || str_eq(k, "size")) {
		o->sparse_real = num;
		o->has_sparse_real = true;
	} else if (str_eq(k, "offset"))
		o->sparse_offset = num;
	else if (str_eq(k, "numbytes")) {
		o->sparse_has_map = true;
		return map_add(r, o->sparse_offset, num, e);
	}
	return 0;
}

static int record(struct tar_reader *r, struct overlay *o, const char *k, const char *v, size_t n, struct err *e)
{
	if (str_starts(k, TAR_XATTR_KEY)) {
		struct tar_xattr *x = vec_add(&r->xattrs);
		*x = (struct tar_xattr){k + strlen(TAR_XATTR_KEY), v, n};
		return 0;
	}
	if (str_starts(k, "GNU.sparse.")) return record_sparse(r, o, k + 11, v, n, e);
	if (!n) return 0; /* "unset": what the header says stands */
	const struct {
		const char *key;
		bool *has;
		struct buf *s;
		int64_t *num;
		struct timespec *t;
	} keys[] = {
		{"path", &o->has_path, .s = &r->name},    {"linkpath", &o->has_link, .s = &r->linkname},
		{"uname", &o->has_uname, .s = &r->uname}, {"gname", &o->has_gname, .s = &r->gname},
		{"size", &o->has_size, .num = &o->size},  {"uid", &o->has_uid, .num = &o->uid},
		{"gid", &o->has_gid, .num = &o->gid},     {"mtime", &o->has_mtime, .t = &o->mtime},
		{"atime", &o->has_atime, .t = &o->atime}, {"ctime", &o->has_ctime, .t = &o->ctime},
	};
	for (size_t i = 0; i < array_len(keys); i++) {
		if (!str_eq(keys[i].key, k)) continue;
		if (keys[i].s) return set_string(keys[i].s, v, n, keys[i].has, e);
		bool ok = keys[i].num ? decimal(v, n, keys[i].num) : pax_time(v, n, keys[i].t);
		*keys[i].has = true;
		return ok ? 0 : bad(e, "PAX record is not a number");
	}
	return 0;
}

/* "<length> <key>=<value>\n" each. Keys are made strings in place; values may hold any byte. */
static int parse_pax(struct tar_reader *r, struct overlay *o, struct err *e)
{
	char *p = (char *)r->pax.p, *end = p + r->pax.n;
	while (p < end) {
		char *space = memchr(p, ' ', (size_t)(end - p));
		int64_t n;
		if (!space || !decimal(p, (size_t)(space - p), &n) || n < space - p + 2 || n > end - p)
			return bad(e, "PAX record");
		char *stop = p + n - 1, *key = space + 1, *eq = memchr(key, '=', (size_t)(stop - key));
		if (*stop != '\n' || !eq || eq == key || memchr(key, 0, (size_t)(eq - key))) return bad(e, "PAX record");
		*eq = 0;
		*stop = 0;
		if (record(r, o, key, eq + 1, (size_t)(stop - eq - 1), e) < 0) return -1;
		p = stop + 1;
	}
	return 0;
}

/* The data of an extension header, whole, into out. */
static int extension(struct tar_reader *r, int64_t size, struct buf *out, struct err *e)
{
	size_t max = out->max ? out->max : TAR_PAX_MAX;
	if (size < 0 || (uint64_t)size >= max)
		return err_set(e, CODE_INVALID_ARGUMENT, "tar: an extended header of %" PRId64 " bytes is too large", size);
	buf_reset(out);
	for (size_t left = (size_t)size; left;) {
		ssize_t k = want(r, 1, e);
		if (k <= 0) return k < 0 ? -1 : cut(e);
		size_t take = min_of((size_t)k, left);
		buf_add(out, r->buf + r->pos, take);
		r->pos += take;
		left -= take;
	}
	return skip(r, (int64_t)tar_padding(size), e);
}

/* ---- headers ---- */
/* 1 a header in block, 0 the end. */
static int next_block(struct tar_reader *r, uint8_t *block, struct err *e)
{
	static const uint8_t zero[TAR_BLOCK_BYTES];
	ssize_t k = want(r, TAR_BLOCK_BYTES, e);
	if (k < TAR_BLOCK_BYTES) return k <= 0 ? (int)k : cut(e);
	memcpy(block, r->buf + r->pos, TAR_BLOCK_BYTES);
	r->pos += TAR_BLOCK_BYTES;
	if (!memcmp(block, zero, TAR_BLOCK_BYTES)) {
		if ((k = want(r, TAR_BLOCK_BYTES, e)) < TAR_BLOCK_BYTES) return k <= 0 ? (int)k : cut(e);
		if (memcmp(r->buf + r->pos, zero, TAR_BLOCK_BYTES)) return bad(e, "data behind a zero block");
		r->pos += TAR_BLOCK_BYTES;
		return 0;
	}
	int64_t sum;
	long sum_signed, sum_unsigned = tar_checksum(block, &sum_signed);
	if (number(block, TAR_F_SUM, &sum, e) < 0) return -1;
	if (sum != sum_unsigned && sum != sum_signed) return bad(e, "checksum does not match");
	return 1;
}

static int ids_and_times(const uint8_t *block, const struct overlay *o, struct tar_entry *t, struct err *e)
{
	int64_t mode, major = 0, minor = 0, mtime;
	if (number(block, TAR_F_MODE, &mode, e) < 0 || number(block, TAR_F_MTIME, &mtime, e) < 0) return -1;
	if (!o->has_uid && number(block, TAR_F_UID, &t->uid, e) < 0) return -1;
	if (!o->has_gid && number(block, TAR_F_GID, &t->gid, e) < 0) return -1;
	if (!memcmp(block + 257, "ustar", 5) &&
	    (number(block, TAR_F_MAJOR, &major, e) < 0 || number(block, TAR_F_MINOR, &minor, e) < 0))
		return -1;
	if (o->has_uid) t->uid = o->uid;
	if (o->has_gid) t->gid = o->gid;
	if (t->uid < 0 || t->gid < 0 || t->uid > UINT32_MAX || t->gid > UINT32_MAX) return bad(e, "owner out of range");
	if (major < 0 || minor < 0 || major > UINT32_MAX || minor > UINT32_MAX) return bad(e, "device number out of range");
	t->mode = (uint32_t)mode & 07777;
	t->devmajor = (uint32_t)major;
	t->devminor = (uint32_t)minor;
	t->mtime = o->has_mtime ? o->mtime : (struct timespec){mtime, 0};
	t->atime = o->atime;
	t->ctime = o->ctime;
	t->has_atime = o->has_atime;
	t->has_ctime = o->has_ctime;
	return 0;
}

static void names(struct tar_reader *r, const uint8_t *block, const struct overlay *o)
{
	bool ustar = !memcmp(block + 257, "ustar\0", 6); /* GNU has a blank there, and other things in the prefix */
	if (!o->has_path && !o->long_name) {
		buf_reset(&r->name);
		if (ustar && block[345]) {
			bool star = !memcmp(block + 508, "tar\0", 4);
			string(&r->name, block, 345, star ? 131 : 155);
			buf_addc(&r->name, '/');
		}
		string(&r->name, block, TAR_F_NAME);
	}
	if (!o->has_link && !o->long_link) {
		buf_reset(&r->linkname);
		string(&r->linkname, block, TAR_F_LINK);
	}
	if (!o->has_uname) {
		buf_reset(&r->uname);
		if (!memcmp(block + 257, "ustar", 5)) string(&r->uname, block, TAR_F_UNAME);
	}
	if (!o->has_gname) {
		buf_reset(&r->gname);
		if (!memcmp(block + 257, "ustar", 5)) string(&r->gname, block, TAR_F_GNAME);
	}
}

static int kind(struct tar_reader *r, const uint8_t *block, struct overlay *o, struct tar_entry *t, struct err *e)
{
	char c = (char)block[156];
	size_t n = r->name.n;
	if (!c && n && r->name.p[n - 1] == '/') c = TAR_DIR;
	if (!c || c == '7' || c == 'S') c = TAR_REG;
	if (c < '0' || c > '6') {
		char shown[2] = {c > ' ' && c < 127 ? c : '?', 0};
		return err_set(e, CODE_INVALID_ARGUMENT, "tar: %.200s: unhandled tar header type %d (%s)", buf_str(&r->name),
			       (uint8_t)block[156], shown);
	}
	t->type = (enum tar_type)c;
	if (t->type != TAR_REG) t->size = 0;
	r->data_left = t->size;
	r->pad = tar_padding(t->size);
	r->real_size = t->size;
	if (block[156] == 'S') {
		if (map_gnu(r, block, e) < 0) return -1;
		r->sparse = true;
	} else if (t->type == TAR_REG && o->sparse_any) {
		if (o->sparse_major == 1 && o->sparse_minor == 0) {
			if (map_pax1(r, e) < 0) return -1;
			r->sparse = true;
		} else {
			r->sparse = o->sparse_has_map;
		}
		if (o->has_sparse_real) r->real_size = o->sparse_real;
	}
	if (!r->sparse) return 0;
	t->size = r->real_size;
	return r->real_size < 0 ? bad(e, "negative size") : map_check(r, e);
}

/* One header block: 1 it was an entry, 2 an extension (go on), 0 the end. */
static int header(struct tar_reader *r, struct overlay *o, struct tar_entry *t, struct err *e)
{
	uint8_t block[TAR_BLOCK_BYTES];
	int k = next_block(r, block, e);
	if (k <= 0) return k;
	int64_t size;
	if (number(block, TAR_F_SIZE, &size, e) < 0) return -1;
	switch (block[156]) {
	case 'x': r->xattrs.n = r->map.n = 0; return extension(r, size, &r->pax, e) < 0 || parse_pax(r, o, e) < 0 ? -1 : 2;
	case 'g': {
		_cleanup_buf_ struct buf unused = BUF_MAX(TAR_PAX_MAX + 1);
		return extension(r, size, &unused, e) < 0 ? -1 : 2;
	}
	case 'L':
	case 'K': {
		struct buf *b = block[156] == 'L' ? &r->name : &r->linkname;
		if (extension(r, size, b, e) < 0) return -1;
		b->n = strlen(buf_str(b)); /* it carries its NUL */
		*(block[156] == 'L' ? &o->long_name : &o->long_link) = true;
		return 2;
	}
	}
	if (o->has_size) size = o->size;
	if (size < 0) return bad(e, "negative size");
	t->size = size;
	names(r, block, o);
	if (kind(r, block, o, t, e) < 0 || ids_and_times(block, o, t, e) < 0) return -1;
	return 1;
}

int tar_read_next(struct tar_reader *r, struct tar_entry *ret, struct err *e)
{
	if (r->over) return 0;
	if (skip(r, r->data_left, e) < 0 || skip(r, (int64_t)r->pad, e) < 0) return -1;
	r->data_left = r->at = r->real_size = 0;
	r->pad = r->map_i = r->map.n = r->xattrs.n = 0;
	r->sparse = false;
	struct overlay o = {0};
	struct tar_entry t = {0};
	int k;
	do k = header(r, &o, &t, e);
	while (k == 2);
	if (k < 0) return -1;
	r->over = k == 0;
	if (r->over) return 0;
	if (strlen(buf_str(&r->name)) != r->name.n) return bad(e, "NUL in a name");
	t.name = buf_str(&r->name);
	t.linkname = buf_str(&r->linkname);
	t.uname = buf_str(&r->uname);
	t.gname = buf_str(&r->gname);
	t.xattrs = r->xattrs.v;
	t.n_xattrs = r->xattrs.n;
	*ret = t;
	return 1;
}

/* ---- data ---- */
/* Up to max bytes from the stream. */
static ssize_t stored(struct tar_reader *r, int64_t max, const uint8_t **ret, struct err *e)
{
	if (!max) return 0;
	ssize_t k = want(r, 1, e);
	if (k <= 0) return k < 0 ? -1 : cut(e);
	k = (ssize_t)min_of((int64_t)k, max);
	*ret = r->buf + r->pos;
	r->pos += (size_t)k;
	r->data_left -= k;
	return k;
}

ssize_t tar_read_span(struct tar_reader *r, const uint8_t **ret, struct err *e)
{
	if (!r->sparse) return stored(r, r->data_left, ret, e);
	while (r->map_i < r->map.n && r->at >= r->map.v[r->map_i].at + r->map.v[r->map_i].len) r->map_i++;
	const struct fragment *f = r->map_i < r->map.n ? &r->map.v[r->map_i] : NULL;
	int64_t hole = (f ? f->at : r->real_size) - r->at;
	if (hole > 0) {
		ssize_t n = (ssize_t)min_of(hole, (int64_t)1 << 40);
		*ret = NULL;
		r->at += n;
		return n;
	}
	if (!f) return 0;
	ssize_t n = stored(r, f->at + f->len - r->at, ret, e);
	if (n > 0) r->at += n;
	return n;
}

ssize_t tar_read_data(struct tar_reader *r, void *buf, size_t n, struct err *e)
{
	if (!r->sparse) {
		const uint8_t *p;
		ssize_t k = stored(r, min_of((int64_t)min_of(n, (size_t)1 << 30), r->data_left), &p, e);
		if (k > 0) memcpy(buf, p, (size_t)k);
		return k;
	}
	int64_t at = r->at;
	const uint8_t *p;
	ssize_t k = tar_read_span(r, &p, e);
	if (k <= 0) return k;
	ssize_t use = (ssize_t)min_of((size_t)k, n);
	if (p) {
		memcpy(buf, p, (size_t)use);
		r->pos -= (size_t)(k - use); /* the rest stays in the window */
		r->data_left += k - use;
	} else {
		memset(buf, 0, (size_t)use);
	}
	r->at = at + use;
	return use;
}

int tar_reader_drain(struct tar_reader *r, struct err *e)
{
	for (;;) {
		ssize_t k = want(r, 1, e);
		if (k <= 0) return (int)k;
		r->pos = r->end;
	}
}
