/* Messages of peers: checked as bytes, then unpacked by protobuf-c into an arena.
 *
 * protobuf-c has no depth limit, cuts strings at NUL, checks no UTF-8 and allocates what the bytes ask for. So one pass over
 * the bytes, guided by the descriptor, first refuses all that; then the unpacker's allocator stops at WIRE_UNPACK_MAX. Groups
 * (wire types 3 and 4) are refused: nobody sends them. Any thread. */
#include "wire/internal.h"

struct check {
	size_t elements; /* repeated and unknown ones so far */
	struct err *e;
};

static int malformed(struct check *k, const ProtobufCMessageDescriptor *d, const char *what)
{
	return err_set(k->e, CODE_INVALID_ARGUMENT, "malformed %s: %s", d->name, what);
}

static int varint(const uint8_t **p, const uint8_t *end, uint64_t *ret)
{
	uint64_t v = 0;
	for (unsigned shift = 0; shift < 70; shift += 7) {
		if (*p == end) return -1;
		uint8_t c = *(*p)++;
		if (shift < 64) v |= (uint64_t)(c & 0x7f) << shift;
		if (c & 0x80) continue;
		*ret = v;
		return 0;
	}
	return -1;
}

static int count(struct check *k, const ProtobufCMessageDescriptor *d, size_t n)
{
	k->elements += n;
	if (k->elements <= WIRE_ELEMENTS_MAX) return 0;
	return err_set(k->e, CODE_RESOURCE_EXHAUSTED, "%s: more than %d elements in a message", d->name, WIRE_ELEMENTS_MAX);
}

static size_t packed_count(const ProtobufCFieldDescriptor *f, const uint8_t *p, size_t n)
{
	size_t c = 0;
	switch (f->type) {
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_FLOAT: return n / 4;
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE: return n / 8;
	default:
		for (size_t i = 0; i < n; i++) c += !(p[i] & 0x80);
		return c;
	}
}

static unsigned wire_type_of(const ProtobufCFieldDescriptor *f)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_FLOAT: return 5;
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE: return 1;
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_BYTES:
	case PROTOBUF_C_TYPE_MESSAGE: return 2;
	default: return 0;
	}
}

static int check_message(struct check *k, const ProtobufCMessageDescriptor *d, const uint8_t *p, size_t n, int depth);

static int check_string(struct check *k, const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f,
			const uint8_t *p, size_t n)
{
	if (!n) return 0;
	if (memchr(p, 0, n))
		return err_set(k->e, CODE_INVALID_ARGUMENT, "string field %s.%s contains a NUL byte", d->name, f->name);
	if (utf8_valid((const char *)p, n)) return 0;
	return err_set(k->e, CODE_INVALID_ARGUMENT, "string field %s.%s contains invalid UTF-8", d->name, f->name);
}

static int check_field(struct check *k, const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f, unsigned type,
		       const uint8_t *p, size_t n, int depth)
{
	unsigned want = wire_type_of(f);
	bool packed = type == 2 && want != 2 && f->label == PROTOBUF_C_LABEL_REPEATED;
	if (type != want && !packed)
		return err_set(k->e, CODE_INVALID_ARGUMENT, "malformed %s: field %s has wire type %u", d->name, f->name, type);
	if (f->label == PROTOBUF_C_LABEL_REPEATED && count(k, d, packed ? packed_count(f, p, n) : 1) < 0) return -1;
	if (packed && want == 0 && n && (p[n - 1] & 0x80)) return malformed(k, d, "truncated packed field");
	if (f->type == PROTOBUF_C_TYPE_STRING) return check_string(k, d, f, p, n);
	if (f->type == PROTOBUF_C_TYPE_MESSAGE) return check_message(k, f->descriptor, p, n, depth + 1);
	return 0;
}

static int check_message(struct check *k, const ProtobufCMessageDescriptor *d, const uint8_t *p, size_t n, int depth)
{
	const uint8_t *end = p + n;
	if (depth > WIRE_DEPTH_MAX)
		return err_set(k->e, CODE_INVALID_ARGUMENT, "%s: messages nested deeper than %d", d->name, WIRE_DEPTH_MAX);
	while (p < end) {
		uint64_t tag, len = 0, value;
		if (varint(&p, end, &tag) < 0 || !(tag >> 3) || tag >> 3 > 0x1fffffff) return malformed(k, d, "bad field tag");
		unsigned type = tag & 7;
		const uint8_t *start = p;
		switch (type) {
		case 0:
			if (varint(&p, end, &value) < 0) return malformed(k, d, "truncated varint");
			break;
		case 1: len = 8; break;
		case 5: len = 4; break;
		case 2:
			if (varint(&p, end, &len) < 0) return malformed(k, d, "truncated length");
			start = p;
			break;
		default: return malformed(k, d, "unknown wire type");
		}
		if (len > (uint64_t)(end - p)) return malformed(k, d, "a field is longer than its message");
		p += len;
		const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field(d, (unsigned)(tag >> 3));
		if ((f ? check_field(k, d, f, type, start, (size_t)len, depth) : count(k, d, 1)) < 0) return -1;
	}
	return 0;
}

struct budget {
	struct arena *arena;
	size_t left;
};

static void *budget_alloc(void *data, size_t n)
{
	struct budget *b = data;
	if (n > b->left) return NULL;
	b->left -= n;
	return arena_alloc(b->arena, n ? n : 1);
}

static void budget_free(void *data, void *p) {}

void *wire_unpack(const ProtobufCMessageDescriptor *d, const uint8_t *p, size_t n, struct arena *a, struct err *e)
{
	struct check k = {.e = e};
	struct budget b = {a, WIRE_UNPACK_MAX};
	ProtobufCAllocator alloc = {budget_alloc, budget_free, &b};
	if (check_message(&k, d, p, n, 1) < 0) return NULL;
	static const uint8_t none[1];
	void *m = protobuf_c_message_unpack(d, &alloc, n, p ? p : none);
	if (!m)
		err_set(e, CODE_RESOURCE_EXHAUSTED, "%s of %zu bytes: it needs too much memory or lacks a required field",
			d->name, n);
	return m;
}

int wire_pack(const ProtobufCMessage *m, struct buf *out)
{
	size_t n = protobuf_c_message_get_packed_size(m);
	uint8_t *p = buf_reserve(out, n);
	if (!p) return -1;
	protobuf_c_message_pack(m, p);
	out->n += n;
	out->p[out->n] = 0;
	return 0;
}
