#include "build/protojson.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const void *member(const ProtobufCMessage *m, unsigned offset) { return (const char *)m + offset; }

/* protoc makes a message for the entries of a map: they are told by their name and fields. */
static bool is_map_entry(const ProtobufCFieldDescriptor *f)
{
	if (f->type != PROTOBUF_C_TYPE_MESSAGE || f->label != PROTOBUF_C_LABEL_REPEATED) return false;
	const ProtobufCMessageDescriptor *d = f->descriptor;
	return d->n_fields == 2 && str_ends(d->short_name, "Entry") && !strcmp(d->fields[0].name, "key") &&
	       !strcmp(d->fields[1].name, "value");
}

static size_t size_of(ProtobufCType t)
{
	switch (t) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE: return 8;
	case PROTOBUF_C_TYPE_BOOL: return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE: return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES: return sizeof(ProtobufCBinaryData);
	default: return 4;
	}
}

/* "proxy_env" -> "proxyEnv", as protoc derives it. */
static void put_name(struct json_w *w, const char *name)
{
	char out[64];
	size_t n = 0;
	bool up = false;
	for (; *name && n < sizeof out - 1; name++) {
		if (*name != '_') out[n++] = up && *name >= 'a' && *name <= 'z' ? (char)(*name - 'a' + 'A') : *name;
		up = *name == '_';
	}
	out[n] = 0;
	json_key(w, out);
}

static void quoted_int(struct json_w *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void quoted_int(struct json_w *w, const char *fmt, ...)
{
	char text[24];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	json_str(w, text);
}

static void float_value(struct json_w *w, double v)
{
	char text[40];
	int n = snprintf(text, sizeof text, "%.17g", v);
	json_raw(w, text, (size_t)n);
}

static void enum_value(struct json_w *w, const ProtobufCEnumDescriptor *d, int v)
{
	const ProtobufCEnumValue *e = protobuf_c_enum_descriptor_get_value(d, v);
	if (e)
		json_str(w, e->name);
	else
		json_int(w, v);
}

static void value(struct json_w *w, const ProtobufCFieldDescriptor *f, const void *p)
{
	const ProtobufCBinaryData *b = p;
	switch (f->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32: json_int(w, *(const int32_t *)p); break;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32: json_uint(w, *(const uint32_t *)p); break;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64: quoted_int(w, "%" PRId64, *(const int64_t *)p); break;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64: quoted_int(w, "%" PRIu64, *(const uint64_t *)p); break;
	case PROTOBUF_C_TYPE_FLOAT: float_value(w, (double)*(const float *)p); break;
	case PROTOBUF_C_TYPE_DOUBLE: float_value(w, *(const double *)p); break;
	case PROTOBUF_C_TYPE_BOOL: json_bool(w, *(const protobuf_c_boolean *)p); break;
	case PROTOBUF_C_TYPE_ENUM: enum_value(w, f->descriptor, *(const int *)p); break;
	case PROTOBUF_C_TYPE_STRING: json_str(w, *(const char *const *)p ? *(const char *const *)p : ""); break;
	case PROTOBUF_C_TYPE_BYTES: json_base64(w, b->data, b->len); break;
	case PROTOBUF_C_TYPE_MESSAGE: protojson(w, *(const ProtobufCMessage *const *)p); break;
	}
}

static void map_field(struct json_w *w, const ProtobufCFieldDescriptor *f, const ProtobufCMessage *const *v, size_t n)
{
	const ProtobufCMessageDescriptor *d = f->descriptor;
	json_obj(w);
	for (size_t i = 0; i < n; i++) {
		_cleanup_buf_ struct buf key = BUF_INIT;
		struct json_w kw = JSON_W(&key);
		if (d->fields[0].type == PROTOBUF_C_TYPE_STRING) {
			json_key(w, *(const char *const *)member(v[i], d->fields[0].offset));
		} else {
			value(&kw, &d->fields[0], member(v[i], d->fields[0].offset));
			json_key(w, buf_str(&key));
		}
		value(w, &d->fields[1], member(v[i], d->fields[1].offset));
	}
	json_obj_end(w);
}

static void repeated(struct json_w *w, const ProtobufCFieldDescriptor *f, const ProtobufCMessage *m)
{
	size_t n = *(const size_t *)member(m, f->quantifier_offset);
	const char *v = *(const char *const *)member(m, f->offset);
	if (!n) return;
	put_name(w, f->name);
	if (is_map_entry(f)) {
		map_field(w, f, (const ProtobufCMessage *const *)v, n);
		return;
	}
	json_arr(w);
	for (size_t i = 0; i < n; i++) value(w, f, v + i * size_of(f->type));
	json_arr_end(w);
}

static bool is_zero(const ProtobufCFieldDescriptor *f, const void *p)
{
	static const char zero[8];
	const char *s;
	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING: s = *(const char *const *)p; return !s || !*s;
	case PROTOBUF_C_TYPE_BYTES: return !((const ProtobufCBinaryData *)p)->len;
	case PROTOBUF_C_TYPE_MESSAGE: return !*(const void *const *)p;
	default: return !memcmp(p, zero, size_of(f->type));
	}
}

/* A member of a oneof is there when it was chosen, also with a zero value. */
static bool is_absent(const ProtobufCFieldDescriptor *f, const ProtobufCMessage *m)
{
	if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) return *(const uint32_t *)member(m, f->quantifier_offset) != f->id;
	return is_zero(f, member(m, f->offset));
}

void protojson(struct json_w *w, const ProtobufCMessage *m)
{
	json_obj(w);
	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			repeated(w, f, m);
		} else if (!is_absent(f, m)) {
			put_name(w, f->name);
			value(w, f, member(m, f->offset));
		}
	}
	json_obj_end(w);
}
