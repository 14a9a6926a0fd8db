/* Messages to bytes and to JSON, the way Go writes them.
 *
 * Digests are taken over these bytes, so they must not vary: (1) fields ascend by number, but the members of oneofs
 * come after all the others (an Op ends with its operation, behind platform and constraints), (2) zero values are left out,
 * a chosen oneof member and a message that is set are not, (3) map entries are sorted by key, each key once (the last
 * value), key and value both written, (4) repeated numbers are packed. protobuf-c's own packer leaves out zero keys and
 * values of map entries, which is why there is one here. Both writers walk the generated descriptors; recursion is
 * bounded by wire_unpack's nesting limit.
 * Not done: unknown fields (they are dropped; bytes that are not changed are never written anew), fixed and sint types
 * (the interface has none). */
#include "llb/internal.h"

#include <stdlib.h>
#include <string.h>

bool msg_is_map(const ProtobufCMessageDescriptor *parent, const ProtobufCFieldDescriptor *f)
{
	if (f->label != PROTOBUF_C_LABEL_REPEATED || f->type != PROTOBUF_C_TYPE_MESSAGE) return false;
	const ProtobufCMessageDescriptor *d = f->descriptor;
	size_t n = strlen(parent->name);
	return d->n_fields == 2 && str_ends(d->name, "Entry") && strncmp(d->name, parent->name, n) == 0 && d->name[n] == '.' &&
	       strcmp(d->fields[0].name, "key") == 0 && strcmp(d->fields[1].name, "value") == 0;
}

struct keyed {
	ProtobufCMessage *entry;
	size_t at;
};

static int key_cmp(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
	const ProtobufCFieldDescriptor *f = &a->descriptor->fields[0];
	const void *x = msg_member(a, f->offset), *y = msg_member(b, f->offset);
	if (f->type == PROTOBUF_C_TYPE_STRING) {
		const char *s = *(char *const *)x, *t = *(char *const *)y;
		return strcmp(s ? s : "", t ? t : "");
	}
	int64_t i = *(const int64_t *)x, j = *(const int64_t *)y; /* the only other kind of key: int64 */
	return (i > j) - (i < j);
}

static int keyed_cmp(const void *a, const void *b)
{
	const struct keyed *x = a, *y = b;
	int c = key_cmp(x->entry, y->entry);
	return c ? c : (x->at > y->at) - (x->at < y->at);
}

ProtobufCMessage **msg_map_sorted(ProtobufCMessage *const *entries, size_t n, size_t *ret_n)
{
	_cleanup_free_ struct keyed *v = xcalloc(n + 1, sizeof *v);
	for (size_t i = 0; i < n; i++) v[i] = (struct keyed){entries[i], i};
	qsort(v, n, sizeof *v, keyed_cmp);
	ProtobufCMessage **out = xcalloc(n + 1, sizeof *out);
	size_t m = 0;
	for (size_t i = 0; i < n; i++)
		if (i + 1 == n || key_cmp(v[i].entry, v[i + 1].entry) != 0) out[m++] = v[i].entry;
	*ret_n = m;
	return out;
}

/* ---- numbers, common to both writers ---- */

static size_t scalar_size(ProtobufCType t)
{
	switch (t) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_ENUM: return 4;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_UINT64: return 8;
	case PROTOBUF_C_TYPE_BOOL: return sizeof(protobuf_c_boolean);
	default: bug("no such type in our interface: %d", (int)t);
	}
}

/* As the varint carries it: negative numbers are extended to 64 bits. */
static uint64_t scalar_get(ProtobufCType t, const void *p)
{
	switch (t) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_ENUM: return (uint64_t)(int64_t) * (const int32_t *)p;
	case PROTOBUF_C_TYPE_UINT32: return *(const uint32_t *)p;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_UINT64: return *(const uint64_t *)p;
	case PROTOBUF_C_TYPE_BOOL: return *(const protobuf_c_boolean *)p != 0;
	default: bug("no such type in our interface: %d", (int)t);
	}
}

/* ---- bytes ---- */

enum { WIRE_VARINT = 0, WIRE_LEN = 2 };

static void put_varint(struct buf *out, uint64_t v)
{
	uint8_t b[10];
	size_t n = 0;
	for (; v >= 0x80; v >>= 7) b[n++] = (uint8_t)(v | 0x80);
	b[n++] = (uint8_t)v;
	buf_add(out, b, n);
}

static void put_tag(struct buf *out, uint32_t id, unsigned wire) { put_varint(out, (uint64_t)id << 3 | wire); }

static void put_bytes(struct buf *out, uint32_t id, const void *p, size_t n)
{
	put_tag(out, id, WIRE_LEN);
	put_varint(out, n);
	buf_add(out, p, n);
}

static void put_message(struct buf *out, uint32_t id, const ProtobufCMessage *m)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	if (m) llb_marshal(m, &b);
	put_bytes(out, id, b.p, b.n);
}

/* One value at p, written even when it is zero. */
static void put_value(struct buf *out, const ProtobufCFieldDescriptor *f, const void *p)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING: {
		const char *s = *(char *const *)p;
		put_bytes(out, f->id, s, s ? strlen(s) : 0);
		break;
	}
	case PROTOBUF_C_TYPE_BYTES: {
		const ProtobufCBinaryData *d = p;
		put_bytes(out, f->id, d->data, d->len);
		break;
	}
	case PROTOBUF_C_TYPE_MESSAGE: put_message(out, f->id, *(ProtobufCMessage *const *)p); break;
	default: put_tag(out, f->id, WIRE_VARINT); put_varint(out, scalar_get(f->type, p));
	}
}

static void put_map(struct buf *out, const ProtobufCFieldDescriptor *f, ProtobufCMessage *const *entries, size_t n)
{
	size_t m;
	_cleanup_free_ ProtobufCMessage **v = msg_map_sorted(entries, n, &m);
	for (size_t i = 0; i < m; i++) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		for (size_t k = 0; k < 2; k++) {
			const ProtobufCFieldDescriptor *kv = &v[i]->descriptor->fields[k];
			put_value(&b, kv, msg_member(v[i], kv->offset));
		}
		put_bytes(out, f->id, b.p, b.n);
	}
}

static size_t element_size(ProtobufCType t)
{
	switch (t) {
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE: return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES: return sizeof(ProtobufCBinaryData);
	default: return scalar_size(t);
	}
}

static bool is_scalar(ProtobufCType t)
{
	return t != PROTOBUF_C_TYPE_STRING && t != PROTOBUF_C_TYPE_MESSAGE && t != PROTOBUF_C_TYPE_BYTES;
}

static void put_repeated(struct buf *out, const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
	size_t n = msg_count(m, f), size = element_size(f->type);
	const char *v = *(char *const *)msg_member(m, f->offset);
	if (!n) return;
	if (msg_is_map(m->descriptor, f)) {
		put_map(out, f, (ProtobufCMessage *const *)v, n);
	} else if (is_scalar(f->type)) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		for (size_t i = 0; i < n; i++) put_varint(&b, scalar_get(f->type, v + i * size));
		put_bytes(out, f->id, b.p, b.n);
	} else {
		for (size_t i = 0; i < n; i++) put_value(out, f, v + i * size);
	}
}

static bool is_zero(const ProtobufCFieldDescriptor *f, const void *p)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING: return str_empty(*(char *const *)p);
	case PROTOBUF_C_TYPE_BYTES: return ((const ProtobufCBinaryData *)p)->len == 0;
	case PROTOBUF_C_TYPE_MESSAGE: return *(void *const *)p == NULL;
	default: return scalar_get(f->type, p) == 0;
	}
}

void llb_marshal(const ProtobufCMessage *m, struct buf *out)
{
	const ProtobufCMessageDescriptor *d = m->descriptor;
	for (const ProtobufCFieldDescriptor *f = d->fields; f < d->fields + d->n_fields; f++) {
		const void *p = msg_member(m, f->offset);
		if (f->label == PROTOBUF_C_LABEL_REPEATED)
			put_repeated(out, m, f);
		else if (!(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) && !is_zero(f, p))
			put_value(out, f, p);
	}
	for (const ProtobufCFieldDescriptor *f = d->fields; f < d->fields + d->n_fields; f++)
		if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF && msg_oneof_chosen(m, f))
			put_value(out, f, msg_member(m, f->offset));
}

void llb_marshal_op(const Pb__Op *op, struct buf *out) { llb_marshal(&op->base, out); }

/* ---- JSON ---- */

static void json_message(struct json_w *w, const ProtobufCMessage *m);

static void json_value(struct json_w *w, const ProtobufCFieldDescriptor *f, const void *p)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING: json_str(w, *(char *const *)p); break;
	case PROTOBUF_C_TYPE_BYTES:
		json_base64(w, ((const ProtobufCBinaryData *)p)->data, ((const ProtobufCBinaryData *)p)->len);
		break;
	case PROTOBUF_C_TYPE_BOOL: json_bool(w, *(const protobuf_c_boolean *)p); break;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_UINT64: json_uint(w, scalar_get(f->type, p)); break;
	case PROTOBUF_C_TYPE_MESSAGE: {
		const ProtobufCMessage *m = *(ProtobufCMessage *const *)p;
		if (m)
			json_message(w, m);
		else
			json_nil(w);
		break;
	}
	default: json_int(w, (int64_t)scalar_get(f->type, p));
	}
}

static void json_map(struct json_w *w, ProtobufCMessage *const *entries, size_t n)
{
	size_t m;
	_cleanup_free_ ProtobufCMessage **v = msg_map_sorted(entries, n, &m);
	json_obj(w);
	for (size_t i = 0; i < m; i++) {
		const ProtobufCFieldDescriptor *k = &v[i]->descriptor->fields[0], *val = &v[i]->descriptor->fields[1];
		ensure(k->type == PROTOBUF_C_TYPE_STRING); /* all maps of ops.proto are */
		const char *key = *(char *const *)msg_member(v[i], k->offset);
		json_key(w, key ? key : "");
		json_value(w, val, msg_member(v[i], val->offset));
	}
	json_obj_end(w);
}

static void json_repeated(struct json_w *w, const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
	size_t n = msg_count(m, f), size = element_size(f->type);
	const char *v = *(char *const *)msg_member(m, f->offset);
	if (!n) return;
	json_key(w, f->name);
	if (msg_is_map(m->descriptor, f)) {
		json_map(w, (ProtobufCMessage *const *)v, n);
		return;
	}
	json_arr(w);
	for (size_t i = 0; i < n; i++) json_value(w, f, v + i * size);
	json_arr_end(w);
}

/* The members from descriptor index `from` on; those of oneofs are the special forms' business. */
static void json_fields(struct json_w *w, const ProtobufCMessage *m)
{
	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		const void *p = msg_member(m, f->offset);
		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			json_repeated(w, m, f);
		} else if (!(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) && !is_zero(f, p)) {
			json_key(w, f->name);
			json_value(w, f, p);
		}
	}
}

/* {"<name>":{"<member>":{...}}}: the member of m's oneof that is chosen, message members only. */
static void json_oneof(struct json_w *w, const char *name, const ProtobufCMessage *m, bool skip_symlink)
{
	json_key(w, name);
	json_obj(w);
	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		if (!(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) || !msg_oneof_chosen(m, f)) continue;
		if (f->type != PROTOBUF_C_TYPE_MESSAGE || (skip_symlink && strcmp(f->name, "symlink") == 0)) continue;
		json_key(w, f->name);
		json_value(w, f, msg_member(m, f->offset));
	}
	json_obj_end(w);
}

static void json_op(struct json_w *w, const Pb__Op *op)
{
	json_repeated(w, &op->base, protobuf_c_message_descriptor_get_field_by_name(&pb__op__descriptor, "inputs"));
	json_oneof(w, "Op", &op->base, false);
	if (op->platform) {
		json_key(w, "platform");
		json_message(w, &op->platform->base);
	}
	if (op->constraints) {
		json_key(w, "constraints");
		json_message(w, &op->constraints->base);
	}
}

static void json_file_action(struct json_w *w, const Pb__FileAction *fa)
{
	json_kint(w, "input", fa->input);
	json_kint(w, "secondaryInput", fa->secondaryinput);
	json_kint(w, "output", fa->output);
	json_oneof(w, "Action", &fa->base, true); /* the peer's form has no symlink */
}

static void json_user(struct json_w *w, const Pb__UserOpt *u)
{
	json_key(w, "User");
	json_obj(w);
	if (u->user_case == PB__USER_OPT__USER_BY_NAME && u->byname) {
		json_key(w, "byName");
		json_message(w, &u->byname->base);
	}
	if (u->user_case == PB__USER_OPT__USER_BY_ID) json_kint_omit(w, "byId", u->byid);
	json_obj_end(w);
}

static void json_message(struct json_w *w, const ProtobufCMessage *m)
{
	json_obj(w);
	if (m->descriptor == &pb__op__descriptor)
		json_op(w, (const Pb__Op *)m);
	else if (m->descriptor == &pb__file_action__descriptor)
		json_file_action(w, (const Pb__FileAction *)m);
	else if (m->descriptor == &pb__user_opt__descriptor)
		json_user(w, (const Pb__UserOpt *)m);
	else
		json_fields(w, m);
	json_obj_end(w);
}

void llb_json(struct json_w *w, const ProtobufCMessage *m) { json_message(w, m); }
