/* Writer of tar archives whose bytes equal those of Go's archive/tar.
 *
 * An entry that fits is one ustar block; what does not fit (a name that is not ASCII or cannot be split at a '/', a big
 * number, sub-second times, xattrs) goes in PAX records in front of it, sorted by key, and the block then carries as
 * much as it can hold.
 *  1. `left` bytes of data are still owed to the entry at hand; a new header or the end is refused before they came.
 *  2. Everything goes through one buffer, flushed when it is full and by finish.
 * Format GNU is never written. */
#include "tar/internal.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { OUT_BYTES = 256 * 1024 };

struct tar_writer {
	struct tar_out out;
	uint8_t *buf;
	size_t n, pad;
	int64_t left;
	struct buf pax;
};

struct tar_writer *tar_writer_new(struct tar_out out)
{
	struct tar_writer *w = xnew(struct tar_writer);
	w->out = out;
	w->buf = xmalloc(OUT_BYTES);
	return w;
}

void tar_writer_free(struct tar_writer *w)
{
	if (!w) return;
	buf_fini(&w->pax);
	free(w->buf);
	free(w);
}

static int flush(struct tar_writer *w, struct err *e)
{
	if (w->n && w->out.write(w->out.ctx, w->buf, w->n, e) < 0) return -1;
	w->n = 0;
	return 0;
}

static int put(struct tar_writer *w, const void *p, size_t n, struct err *e)
{
	const uint8_t *b = p;
	while (n) {
		if (w->n == OUT_BYTES && flush(w, e) < 0) return -1;
		size_t k = min_of(n, OUT_BYTES - w->n);
		if (b)
			memcpy(w->buf + w->n, b, k);
		else
			memset(w->buf + w->n, 0, k);
		w->n += k;
		n -= k;
		if (b) b += k;
	}
	return 0;
}

/* ---- fields ---- */
static bool is_ascii(const char *s)
{
	for (; *s; s++)
		if ((uint8_t)*s >= 0x80) return false;
	return true;
}

static bool fits_octal(size_t width, int64_t v) { return v >= 0 && (width >= 22 || v < (int64_t)1 << (width - 1) * 3); }

static void put_octal(uint8_t *block, size_t at, size_t width, int64_t v)
{
	if (!fits_octal(width, v)) v = 0; /* the PAX record has it */
	for (size_t i = width - 1; i-- > 0; v >>= 3) block[at + i] = (uint8_t)('0' + (v & 7));
	block[at + width - 1] = 0;
}

static void put_string(uint8_t *block, size_t at, size_t width, const char *s)
{
	size_t n = 0, full = 0;
	for (; *s; s++) {
		if ((uint8_t)*s >= 0x80) continue;
		if (n < width) block[at + n++] = (uint8_t)*s;
		full++;
	}
	/* A cut name must not end in '/': some readers would take the file for a directory. */
	if (full > width && block[at + width - 1] == '/') {
		while (n > 0 && block[at + n - 1] == '/') n--;
		block[at + n] = 0;
	}
}

/* Where a long ASCII name can be cut into prefix and name: the index of the '/', 0 when nowhere. */
static size_t ustar_split(const char *name)
{
	size_t len = strlen(name), upto = len;
	if (len <= 100 || !is_ascii(name)) return 0;
	if (upto > 156)
		upto = 156;
	else if (name[upto - 1] == '/')
		upto--;
	while (upto > 0 && name[upto - 1] != '/') upto--;
	if (upto < 2) return 0;
	size_t cut = upto - 1, rest = len - upto;
	return rest > 100 || rest == 0 ? 0 : cut;
}

static void seal(uint8_t *block)
{
	memcpy(block + 257,
	       "ustar\0"
	       "00",
	       8);
	put_octal(block, 148, 7, tar_checksum(block, NULL));
	block[155] = ' ';
}

/* ---- PAX ---- */
struct record {
	const char *key;
	const void *value;
	size_t len;
	char text[48]; /* of a number */
};
struct records {
	VEC(struct record) list;
	VEC(char *) keys;
};

static void records_fini(struct records *r)
{
	for (size_t i = 0; i < r->keys.n; i++) free(r->keys.v[i]);
	vec_fini(&r->keys);
	vec_fini(&r->list);
}

static void add_string(struct records *r, const char *key, const char *s)
{
	struct record *rec = vec_add(&r->list);
	rec->key = key;
	rec->value = s;
	rec->len = strlen(s);
}

static void add_number(struct records *r, const char *key, size_t width, int64_t v)
{
	if (fits_octal(width, v)) return;
	struct record *rec = vec_add(&r->list);
	rec->key = key;
	snprintf(rec->text, sizeof rec->text, "%" PRId64, v);
}

static void add_time(struct records *r, const char *key, struct timespec t)
{
	struct record *rec = vec_add(&r->list);
	rec->key = key;
	int64_t s = t.tv_sec;
	if (!t.tv_nsec) {
		snprintf(rec->text, sizeof rec->text, "%" PRId64, s);
		return;
	}
	long ns = t.tv_nsec;
	const char *sign = "";
	if (s < 0) { /* -1.25 is second -2 and 0.75 up */
		sign = "-";
		s = -(s + 1);
		ns = 1000000000L - ns;
	}
	int n = snprintf(rec->text, sizeof rec->text, "%s%" PRId64 ".%09ld", sign, s, ns);
	while (rec->text[n - 1] == '0') rec->text[--n] = 0;
}

static int by_key(const void *a, const void *b)
{
	const struct record *x = a, *y = b;
	return strcmp(x->key, y->key);
}

static int decimal_width(size_t n)
{
	int w = 1;
	while (n >= 10) n /= 10, w++;
	return w;
}

static void format_record(struct buf *out, const struct record *rec)
{
	const void *value = rec->value ? rec->value : rec->text;
	size_t len = rec->value ? rec->len : strlen(rec->text);
	size_t body = strlen(rec->key) + len + 3, size = body + (size_t)decimal_width(body);
	size = body + (size_t)decimal_width(size);
	buf_addf(out, "%zu %s=", size, rec->key);
	buf_add(out, value, len);
	buf_addc(out, '\n');
}

/* Everything that a ustar block could not say. *ret_must: ustar alone would lose something. */
static int collect(const struct tar_entry *t, struct records *r, bool *ret_must, struct err *e)
{
	bool name_long = strlen(t->name) > 100 || !is_ascii(t->name);
	const struct {
		const char *key, *s;
		size_t width;
	} strings[] = {{"linkpath", t->linkname, 100}, {"uname", t->uname, 32}, {"gname", t->gname, 32}};
	for (size_t i = 0; i < array_len(strings); i++) {
		const char *s = strings[i].s;
		if (s && (strlen(s) > strings[i].width || !is_ascii(s))) add_string(r, strings[i].key, s);
	}
	add_number(r, "uid", 8, t->uid);
	add_number(r, "gid", 8, t->gid);
	add_number(r, "size", 12, t->type == TAR_REG ? t->size : 0);
	if (t->mtime.tv_nsec || !fits_octal(12, t->mtime.tv_sec)) add_time(r, "mtime", t->mtime);
	if (t->has_atime) add_time(r, "atime", t->atime);
	if (t->has_ctime) add_time(r, "ctime", t->ctime);
	for (size_t i = 0; i < t->n_xattrs; i++) {
		const struct tar_xattr *x = &t->xattrs[i];
		if (strchr(x->name, '='))
			return err_set(e, CODE_INVALID_ARGUMENT, "%s: a tar cannot hold the extended attribute \"%s\"", t->name,
				       x->name);
		struct record *rec = vec_add(&r->list);
		rec->key = xasprintf(TAR_XATTR_KEY "%s", x->name);
		vec_push(&r->keys, (char *)rec->key);
		rec->value = x->value ? x->value : "";
		rec->len = x->len;
	}
	*ret_must = r->list.n || (name_long && !ustar_split(t->name));
	if (*ret_must && name_long) add_string(r, "path", t->name);
	return 0;
}

static int put_pax(struct tar_writer *w, const char *name, struct records *r, struct err *e)
{
	qsort(r->list.v, r->list.n, sizeof *r->list.v, by_key);
	buf_reset(&w->pax);
	for (size_t i = 0; i < r->list.n; i++) format_record(&w->pax, &r->list.v[i]);
	if (w->pax.n > TAR_PAX_MAX)
		return err_set(e, CODE_INVALID_ARGUMENT, "%.200s: extended attributes are too large for a tar", name);
	const char *file = path_base(name);
	_cleanup_free_ char *joined = xasprintf("%.*s/PaxHeaders.0/%s", (int)(file - name), name, file);
	_cleanup_free_ char *pax_name = path_clean(*joined == '/' && *name != '/' ? joined + 1 : joined);
	uint8_t block[TAR_BLOCK_BYTES] = {0};
	put_string(block, TAR_F_NAME, pax_name);
	for (size_t n = strnlen((char *)block, 100); n && block[n - 1] == '/'; n--) block[n - 1] = 0;
	put_octal(block, TAR_F_MODE, 0);
	put_octal(block, TAR_F_UID, 0);
	put_octal(block, TAR_F_GID, 0);
	put_octal(block, TAR_F_SIZE, (int64_t)w->pax.n);
	put_octal(block, TAR_F_MTIME, 0);
	block[156] = 'x';
	seal(block);
	if (put(w, block, sizeof block, e) < 0 || put(w, w->pax.p, w->pax.n, e) < 0) return -1;
	return put(w, NULL, tar_padding((int64_t)w->pax.n), e);
}

static int check(const struct tar_writer *w, const struct tar_entry *t, struct err *e)
{
	if (w->left) return err_set(e, CODE_INTERNAL, "tar: %" PRId64 " bytes of the previous entry are missing", w->left);
	size_t n = strlen(t->name);
	if (!n || (t->type != TAR_DIR && t->type != TAR_LINK && t->type != TAR_SYMLINK && t->name[n - 1] == '/'))
		return err_set(e, CODE_INVALID_ARGUMENT, "tar: bad file name \"%.200s\"", t->name);
	if (!fits_octal(8, t->devmajor) || !fits_octal(8, t->devminor) || (t->type == TAR_REG && t->size < 0))
		return err_set(e, CODE_INVALID_ARGUMENT, "tar: %.200s: device number or size cannot be written", t->name);
	return 0;
}

int tar_write_header(struct tar_writer *w, const struct tar_entry *t, struct err *e)
{
	if (check(w, t, e) < 0 || put(w, NULL, w->pad, e) < 0) return -1;
	w->pad = 0;
	_cleanup_(records_fini) struct records r = {0};
	bool pax;
	if (collect(t, &r, &pax, e) < 0 || (pax && put_pax(w, t->name, &r, e) < 0)) return -1;
	int64_t size = t->type == TAR_REG ? t->size : 0;
	uint8_t block[TAR_BLOCK_BYTES] = {0};
	size_t cut = pax ? 0 : ustar_split(t->name);
	put_string(block, TAR_F_NAME, cut ? t->name + cut + 1 : t->name);
	if (cut) memcpy(block + 345, t->name, cut);
	put_octal(block, TAR_F_MODE, t->mode);
	put_octal(block, TAR_F_UID, t->uid);
	put_octal(block, TAR_F_GID, t->gid);
	put_octal(block, TAR_F_SIZE, size);
	put_octal(block, TAR_F_MTIME, t->mtime.tv_sec);
	block[156] = (uint8_t)t->type;
	put_string(block, TAR_F_LINK, t->linkname ? t->linkname : "");
	put_string(block, TAR_F_UNAME, t->uname ? t->uname : "");
	put_string(block, TAR_F_GNAME, t->gname ? t->gname : "");
	put_octal(block, TAR_F_MAJOR, t->devmajor);
	put_octal(block, TAR_F_MINOR, t->devminor);
	seal(block);
	if (put(w, block, sizeof block, e) < 0) return -1;
	w->left = size;
	w->pad = tar_padding(size);
	return 0;
}

int tar_write_data(struct tar_writer *w, const void *p, size_t n, struct err *e)
{
	if ((int64_t)n > w->left) return err_set(e, CODE_INTERNAL, "tar: more data than the entry's size");
	w->left -= (int64_t)n;
	return put(w, p, n, e);
}

int tar_write_data_fd(struct tar_writer *w, int fd, int64_t size, struct err *e)
{
	ensure(size == w->left);
	while (w->left > 0) {
		if (w->n == OUT_BYTES && flush(w, e) < 0) return -1;
		size_t k = (size_t)min_of(w->left, (int64_t)(OUT_BYTES - w->n));
		ssize_t r = read(fd, w->buf + w->n, k);
		if (r < 0 && errno == EINTR) continue;
		if (r < 0) return err_sys(e, errno, "read");
		if (!r)
			return err_set(e, CODE_ABORTED, "file changed while it was read: %" PRId64 " bytes are missing",
				       w->left);
		w->n += (size_t)r;
		w->left -= r;
	}
	return 0;
}

int tar_writer_finish(struct tar_writer *w, struct err *e)
{
	if (w->left) return err_set(e, CODE_INTERNAL, "tar: %" PRId64 " bytes of the last entry are missing", w->left);
	if (put(w, NULL, w->pad + 2 * TAR_BLOCK_BYTES, e) < 0) return -1;
	w->pad = 0;
	return flush(w, e);
}
