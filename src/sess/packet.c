/* Packet and Stat on the wire: protobuf's varints, lengths and fixed words.
 *
 * 1. A reader never allocates for what it only looks at: data stays in the message, strings go to one reused buffer.
 * 2. proto3: zero values are not written; the last of repeated scalars wins; unknown fields are skipped.
 * 3. The text buffer is sized before anything points into it, so that pointers stay good. */
#include "sess/packet.h"

/* ---- reading ---- */
struct rd {
	const uint8_t *p, *end;
};

static int rd_varint(struct rd *r, uint64_t *ret)
{
	uint64_t v = 0;
	for (unsigned shift = 0; shift < 64 && r->p < r->end; shift += 7) {
		uint8_t b = *r->p++;
		v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80)) {
			*ret = v;
			return 0;
		}
	}
	return -1;
}

static int rd_bytes(struct rd *r, struct rd *ret)
{
	uint64_t n;
	if (rd_varint(r, &n) < 0 || n > (uint64_t)(r->end - r->p)) return -1;
	*ret = (struct rd){r->p, r->p + n};
	r->p += n;
	return 0;
}

/* One field: its number, and its value as a number or bytes by the wire type. */
struct field {
	uint64_t number;
	unsigned type;
	uint64_t v;
	struct rd b;
};

static int rd_field(struct rd *r, struct field *f)
{
	uint64_t key;
	if (rd_varint(r, &key) < 0 || key >> 3 == 0) return -1;
	*f = (struct field){.number = key >> 3, .type = key & 7};
	size_t fixed = f->type == 1 ? 8 : 4;
	switch (f->type) {
	case 0: return rd_varint(r, &f->v);
	case 2: return rd_bytes(r, &f->b);
	case 1:
	case 5:
		if ((size_t)(r->end - r->p) < fixed) return -1;
		for (size_t i = 0; i < fixed; i++) f->v |= (uint64_t)r->p[i] << (8 * i);
		r->p += fixed;
		return 0;
	default: return -1; /* groups are gone since proto2 */
	}
}

static char *stat_text(struct sess_packet *p, struct rd b, size_t max, struct err *e)
{
	size_t n = (size_t)(b.end - b.p);
	if (n > max || (n && memchr(b.p, 0, n)) || p->text.n + n + 2 > p->text.cap) {
		err_set(e, CODE_INVALID_ARGUMENT, "file transfer: a name is too long, twice there or has a NUL in it");
		return NULL;
	}
	char *at = (char *)p->text.p + p->text.n;
	buf_add(&p->text, b.p, n);
	buf_addc(&p->text, 0);
	return at;
}

static int stat_xattr(struct sess_packet *p, struct rd r, struct err *e)
{
	struct field f;
	struct rd name = {0}, value = {r.p, r.p};
	while (r.p < r.end) {
		if (rd_field(&r, &f) < 0) return err_set(e, CODE_INVALID_ARGUMENT, "file transfer: malformed xattr");
		if (f.type == 2 && f.number == 1) name = f.b;
		if (f.type == 2 && f.number == 2) value = f.b;
	}
	if (!name.p || name.p == name.end) return 0;
	if (p->xattrs.n >= SESS_XATTRS_MAX)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "file transfer: too many xattrs on a file");
	struct tree_xattr x = {.value = (uint8_t *)(uintptr_t)value.p, .len = (size_t)(value.end - value.p)};
	if (!(x.name = stat_text(p, name, 255, e))) return -1;
	size_t at = 0; /* sorted by name, one of each */
	while (at < p->xattrs.n && strcmp(p->xattrs.v[at].name, x.name) < 0) at++;
	if (at < p->xattrs.n && strcmp(p->xattrs.v[at].name, x.name) == 0) {
		p->xattrs.v[at] = x;
		return 0;
	}
	vec_push(&p->xattrs, x);
	memmove(&p->xattrs.v[at + 1], &p->xattrs.v[at], (p->xattrs.n - 1 - at) * sizeof x);
	p->xattrs.v[at] = x;
	return 0;
}

static void stat_proof(struct tree_entry *st, struct rd r)
{
	struct field f;
	while (r.p < r.end && rd_field(&r, &f) == 0) {
		if (f.number == 1) st->dev = f.v;
		if (f.number == 2) st->ino = f.v;
		if (f.number == 3) st->ctime_ns = (int64_t)f.v;
	}
}

/* A string or number field of Stat by its number. */
static int stat_field(struct sess_packet *p, const struct field *f, struct err *e)
{
	struct tree_entry *st = &p->stat;
	bool bytes = f->number == 1 || f->number == 7 || f->number == 10 || f->number == 1000;
	if (f->type != (bytes ? 2 : 0)) return 0;
	switch (f->number) {
	case 1: return (st->path = stat_text(p, f->b, SESS_PATH_MAX, e)) ? 0 : -1;
	case 2: st->mode = (uint32_t)f->v; return 0;
	case 3: st->uid = (uint32_t)f->v; return 0;
	case 4: st->gid = (uint32_t)f->v; return 0;
	case 5: st->size = (int64_t)f->v; return 0;
	case 6: st->mtime_ns = (int64_t)f->v; return 0;
	case 7: return (st->linkname = stat_text(p, f->b, SESS_PATH_MAX, e)) ? 0 : -1;
	case 8: st->devmajor = (int64_t)f->v; return 0;
	case 9: st->devminor = (int64_t)f->v; return 0;
	case 10: return stat_xattr(p, f->b, e);
	case 1000:
		stat_proof(st, f->b);
		p->has_proof = true;
		return 0;
	default: return 0;
	}
}

static int stat_read(struct sess_packet *p, struct rd r, struct err *e)
{
	struct field f;
	size_t n = (size_t)(r.end - r.p);
	if (n > SESS_STAT_MAX) return err_set(e, CODE_RESOURCE_EXHAUSTED, "file transfer: metadata of %zu bytes on a file", n);
	p->has_proof = false;
	p->xattrs.n = 0;
	buf_reset(&p->text);
	buf_reserve(&p->text, 2 * n + 16); /* names are a part of n; a NUL each */
	buf_addc(&p->text, 0);
	p->stat = (struct tree_entry){.path = (char *)p->text.p, .linkname = (char *)p->text.p};
	while (r.p < r.end) {
		if (rd_field(&r, &f) < 0) return err_set(e, CODE_INVALID_ARGUMENT, "file transfer: malformed Stat");
		if (stat_field(p, &f, e) < 0) return -1;
	}
	p->stat.xattrs = p->xattrs.v;
	p->stat.n_xattrs = p->xattrs.n;
	return 0;
}

int sess_packet_read(struct sess_packet *p, const uint8_t *in, size_t n, struct err *e)
{
	struct rd r = {in, in + n};
	struct field f;
	p->type = SESS_PACKET_STAT;
	p->has_stat = false;
	p->id = 0;
	p->data = NULL;
	p->n_data = 0;
	if (n > SESS_PACKET_MAX) return err_set(e, CODE_RESOURCE_EXHAUSTED, "file transfer: packet of %zu bytes", n);
	while (r.p < r.end) {
		if (rd_field(&r, &f) < 0) return err_set(e, CODE_INVALID_ARGUMENT, "file transfer: malformed packet");
		if (f.number == 1 && f.type == 0) p->type = (enum sess_packet_type)min_of(f.v, 99);
		if (f.number == 3 && f.type == 0) p->id = (uint32_t)f.v;
		if (f.number == 4 && f.type == 2) p->data = f.b.p, p->n_data = (size_t)(f.b.end - f.b.p);
		if (f.number == 2 && f.type == 2) {
			if (stat_read(p, f.b, e) < 0) return -1;
			p->has_stat = true;
		}
	}
	return 0;
}

int sess_bytes_field(const uint8_t *in, size_t n, unsigned number, const uint8_t **ret, size_t *ret_n, struct err *e)
{
	struct rd r = {in, in + n}, data = {in, in};
	struct field f;
	while (r.p < r.end) {
		if (rd_field(&r, &f) < 0) return err_set(e, CODE_INVALID_ARGUMENT, "malformed message");
		if (f.number == number && f.type == 2) data = f.b;
	}
	*ret = data.p;
	*ret_n = (size_t)(data.end - data.p);
	return 0;
}

/* ---- writing ---- */
static size_t varint_put(uint8_t *p, uint64_t v)
{
	size_t n = 0;
	for (; v >= 0x80; v >>= 7) p[n++] = (uint8_t)(v | 0x80);
	p[n++] = (uint8_t)v;
	return n;
}

static void add_varint(struct buf *out, uint64_t v)
{
	uint8_t b[10];
	buf_add(out, b, varint_put(b, v));
}

static void add_number(struct buf *out, unsigned number, uint64_t v)
{
	if (!v) return;
	add_varint(out, (uint64_t)number << 3);
	add_varint(out, v);
}

static void add_bytes(struct buf *out, unsigned number, const void *p, size_t n)
{
	add_varint(out, (uint64_t)number << 3 | 2);
	add_varint(out, n);
	buf_add(out, p, n);
}

static void add_text(struct buf *out, unsigned number, const char *s)
{
	if (s && *s) add_bytes(out, number, s, strlen(s));
}

static size_t varint_size(uint64_t v)
{
	size_t n = 1;
	while (v >>= 7) n++;
	return n;
}

static void add_xattr(struct buf *out, const struct tree_xattr *x)
{
	size_t k = strlen(x->name), n = 1 + varint_size(k) + k + 1 + varint_size(x->len) + x->len;
	add_varint(out, 10 << 3 | 2);
	add_varint(out, n);
	add_bytes(out, 1, x->name, k);
	add_bytes(out, 2, x->value, x->len);
}

static void add_proof(struct buf *out, const struct tree_entry *st)
{
	uint8_t b[36], *p = b;
	*p++ = 1 << 3;
	p += varint_put(p, st->dev);
	*p++ = 2 << 3;
	p += varint_put(p, st->ino);
	*p++ = 3 << 3;
	p += varint_put(p, (uint64_t)st->ctime_ns);
	add_bytes(out, 1000, b, (size_t)(p - b));
}

void sess_stat_add(struct buf *out, const struct tree_entry *st, bool with_proof)
{
	add_text(out, 1, st->path);
	add_number(out, 2, st->mode);
	add_number(out, 3, st->uid);
	add_number(out, 4, st->gid);
	add_number(out, 5, (uint64_t)st->size);
	add_number(out, 6, (uint64_t)st->mtime_ns);
	add_text(out, 7, st->linkname);
	add_number(out, 8, (uint64_t)st->devmajor);
	add_number(out, 9, (uint64_t)st->devminor);
	for (size_t i = 0; i < st->n_xattrs; i++) add_xattr(out, &st->xattrs[i]);
	if (with_proof) add_proof(out, st);
}

void sess_packet_add_stat(struct buf *out, const struct tree_entry *st, bool with_proof)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	if (!st) return; /* type 0 and nothing else: an empty message */
	sess_stat_add(&b, st, with_proof);
	add_bytes(out, 2, b.p, b.n);
}

void sess_packet_add(struct buf *out, enum sess_packet_type type, uint32_t id, const void *data, size_t n)
{
	add_number(out, 1, type);
	add_number(out, 3, id);
	if (n) add_bytes(out, 4, data, n);
}

void sess_packet_fini(struct sess_packet *p)
{
	vec_fini(&p->xattrs);
	buf_fini(&p->text);
}
