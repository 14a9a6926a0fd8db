/* Statuses: google.rpc.Status as bytes, grpc-message's percent encoding, and what HTTP and RST_STREAM codes mean in gRPC.
 * The two small messages are read and written by hand: google.rpc.Status {int32 code = 1; string message = 2; repeated Any
 * details = 3} and google.protobuf.Any {string type_url = 1; bytes value = 2}. */
#include "wire/internal.h"

#include <stdio.h>

/* ---- reading and writing fields ---- */

static void put_varint(struct buf *b, uint64_t v)
{
	for (; v >= 0x80; v >>= 7) buf_addc(b, (char)(v | 0x80));
	buf_addc(b, (char)v);
}

static void put_bytes(struct buf *b, unsigned field, const void *p, size_t n)
{
	if (!n) return;
	put_varint(b, field << 3 | 2);
	put_varint(b, n);
	buf_add(b, p, n);
}

struct field {
	uint32_t number, type;
	uint64_t value; /* varint */
	const uint8_t *p;
	size_t n;
};

static int get_varint(const uint8_t **p, const uint8_t *end, uint64_t *ret)
{
	uint64_t v = 0;
	for (unsigned shift = 0; shift < 70 && *p < end; shift += 7) {
		uint8_t c = *(*p)++;
		if (shift < 64) v |= (uint64_t)(c & 0x7f) << shift;
		if (c & 0x80) continue;
		*ret = v;
		return 0;
	}
	return -1;
}

/* 1: a field; 0: the end; -1: malformed. */
static int get_field(const uint8_t **p, const uint8_t *end, struct field *ret)
{
	uint64_t tag, n = 0;
	if (*p == end) return 0;
	if (get_varint(p, end, &tag) < 0 || tag >> 32 || !(tag >> 3)) return -1;
	*ret = (struct field){.number = (uint32_t)(tag >> 3), .type = tag & 7};
	switch (ret->type) {
	case 0: return get_varint(p, end, &ret->value) < 0 ? -1 : 1;
	case 1: n = 8; break;
	case 5: n = 4; break;
	case 2:
		if (get_varint(p, end, &n) < 0) return -1;
		break;
	default: return -1;
	}
	if (n > (uint64_t)(end - *p)) return -1;
	ret->p = *p;
	ret->n = (size_t)n;
	*p += n;
	return 1;
}

/* ---- google.rpc.Status ---- */

void wire_status_pack(const struct err *status, struct buf *out)
{
	if (!status) return;
	if (status->code) {
		put_varint(out, 1 << 3);
		put_varint(out, (uint64_t)status->code);
	}
	_cleanup_free_ char *msg = utf8_clean(status->msg ? status->msg : "", status->msg ? strlen(status->msg) : 0);
	put_bytes(out, 2, msg, strlen(msg));
	for (const struct err_detail *d = status->details; d; d = d->next) {
		_cleanup_buf_ struct buf any = BUF_INIT;
		put_bytes(&any, 1, d->type_url, strlen(d->type_url));
		put_bytes(&any, 2, d->data, d->len);
		put_varint(out, 3 << 3 | 2);
		put_varint(out, any.n);
		buf_add(out, any.p, any.n);
	}
}

static int any_unpack(const struct field *f, struct err *to)
{
	const uint8_t *p = f->p, *end = f->p + f->n;
	struct field url = {0}, value = {0}, g;
	int rv;
	while ((rv = get_field(&p, end, &g)) > 0) {
		if (g.number == 1 && g.type == 2) url = g;
		if (g.number == 2 && g.type == 2) value = g;
	}
	if (rv < 0) return -1;
	_cleanup_free_ char *s = utf8_clean((const char *)url.p, url.n);
	err_detail_add(to, s, value.n ? value.p : (const uint8_t *)"", value.n);
	return 0;
}

int wire_status_unpack(const uint8_t *bytes, size_t n, struct err *ret, struct err *e)
{
	enum { DETAILS_COUNT_MAX = 1000 };
	const uint8_t *p = bytes, *end = bytes + n;
	_cleanup_err_ struct err got = ERR_INIT;
	_cleanup_free_ char *msg = NULL;
	struct field f;
	size_t count = 0;
	enum code code = CODE_OK;
	int rv;
	err_set(&got, CODE_OK, "%s", "");
	while ((rv = get_field(&p, end, &f)) > 0) {
		if (f.number == 1 && f.type == 0) code = (enum code)(int32_t)f.value;
		if (f.number == 2 && f.type == 2) {
			free(msg);
			msg = utf8_clean((const char *)f.p, f.n);
		}
		if (f.number == 3 && f.type == 2 && (++count > DETAILS_COUNT_MAX || any_unpack(&f, &got) < 0)) rv = -1;
		if (rv < 0) break;
	}
	if (rv < 0) return err_set(e, CODE_INTERNAL, "malformed google.rpc.Status of %zu bytes", n);
	got.code = code < 0 ? CODE_UNKNOWN : code;
	if (msg) {
		free(got.msg);
		got.msg = take_ptr(msg);
	}
	err_move(ret, &got);
	return 0;
}

/* ---- grpc-message ---- */

char *status_percent_encode(const char *s)
{
	struct buf b = BUF_INIT;
	_cleanup_free_ char *clean = utf8_clean(s, strlen(s));
	for (const unsigned char *p = (const unsigned char *)clean; *p; p++)
		if (*p < 0x20 || *p > 0x7e || *p == '%')
			buf_addf(&b, "%%%02X", *p);
		else
			buf_addc(&b, (char)*p);
	return b.p ? buf_take_str(&b) : xstrdup("");
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9') return c - '0';
	if (c >= 'a' && c <= 'f') return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

char *status_percent_decode(const char *s)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (; *s; s++) {
		if (*s == '%' && hex_value(s[1]) >= 0 && hex_value(s[2]) >= 0) {
			buf_addc(&b, (char)(hex_value(s[1]) << 4 | hex_value(s[2])));
			s += 2;
		} else {
			buf_addc(&b, *s);
		}
	}
	return utf8_clean(buf_str(&b), b.n);
}

/* ---- codes ---- */

enum code status_of_http(const char *s)
{
	static const struct {
		const char *http;
		enum code code;
	} row[] = {{"400", CODE_INTERNAL},      {"401", CODE_UNAUTHENTICATED}, {"403", CODE_PERMISSION_DENIED},
		   {"404", CODE_UNIMPLEMENTED}, {"429", CODE_UNAVAILABLE},     {"502", CODE_UNAVAILABLE},
		   {"503", CODE_UNAVAILABLE},   {"504", CODE_UNAVAILABLE}};
	for (size_t i = 0; i < array_len(row); i++)
		if (!strcmp(row[i].http, s)) return row[i].code;
	return CODE_UNKNOWN;
}

/* By HTTP/2 error code, RFC 9113 section 7; the gRPC side as grpc-go maps it. */
static const struct {
	const char *name;
	enum code code;
} resets[] = {
	{"NO_ERROR", CODE_INTERNAL},
	{"PROTOCOL_ERROR", CODE_INTERNAL},
	{"INTERNAL_ERROR", CODE_INTERNAL},
	{"FLOW_CONTROL_ERROR", CODE_RESOURCE_EXHAUSTED},
	{"SETTINGS_TIMEOUT", CODE_INTERNAL},
	{"STREAM_CLOSED", CODE_INTERNAL},
	{"FRAME_SIZE_ERROR", CODE_INTERNAL},
	{"REFUSED_STREAM", CODE_UNAVAILABLE},
	{"CANCEL", CODE_CANCELLED},
	{"COMPRESSION_ERROR", CODE_INTERNAL},
	{"CONNECT_ERROR", CODE_INTERNAL},
	{"ENHANCE_YOUR_CALM", CODE_RESOURCE_EXHAUSTED},
	{"INADEQUATE_SECURITY", CODE_PERMISSION_DENIED},
	{"HTTP_1_1_REQUIRED", CODE_INTERNAL},
};

enum code status_of_reset(uint32_t c) { return c < array_len(resets) ? resets[c].code : CODE_UNKNOWN; }
const char *status_reset_name(uint32_t c) { return c < array_len(resets) ? resets[c].name : "UNKNOWN"; }

/* ---- BytesMessage {bytes data = 1} ---- */

int wire_bytes_get(const uint8_t *bytes, size_t n, const uint8_t **ret, size_t *ret_n, struct err *e)
{
	const uint8_t *p = bytes, *end = bytes + n, *data = bytes;
	size_t data_n = 0;
	struct field f;
	int rv;
	while ((rv = get_field(&p, end, &f)) > 0)
		if (f.number == 1 && f.type == 2) {
			data = f.p;
			data_n = f.n;
		}
	if (rv < 0) return err_set(e, CODE_INVALID_ARGUMENT, "malformed BytesMessage of %zu bytes", n);
	*ret = data;
	*ret_n = data_n;
	return 0;
}

int wire_call_send_bytes(struct wire_call *c, const void *p, size_t n)
{
	uint8_t head[11] = {1 << 3 | 2};
	size_t k = 1, v = n;
	if (!n) return wire_call_send(c, NULL, 0);
	for (; v >= 0x80; v >>= 7) head[k++] = (uint8_t)(v | 0x80);
	head[k++] = (uint8_t)v;
	return wire_call_send2(c, head, k, p, n);
}
