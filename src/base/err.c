#include "base/err.h"
#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void bug_at(const char *file, int line, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fprintf(stderr, "slipway: bug at %s:%d: ", file, line);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	abort();
}

int err_vset(struct err *e, enum code code, const char *fmt, va_list ap)
{
	if (!e) return -1;
	char *msg = xvasprintf(fmt, ap); /* before the old text goes: it may be an argument */
	err_fini(e);
	e->code = code;
	e->msg = msg;
	return -1;
}

int err_set(struct err *e, enum code code, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	err_vset(e, code, fmt, ap);
	va_end(ap);
	return -1;
}

static enum code code_of_errno(int errnum)
{
	switch (errnum) {
	case ENOENT: return CODE_NOT_FOUND;
	case EEXIST: return CODE_ALREADY_EXISTS;
	case EACCES:
	case EPERM: return CODE_PERMISSION_DENIED;
	case ENOMEM:
	case ENOSPC:
	case EDQUOT: return CODE_RESOURCE_EXHAUSTED;
	case EIO:
	case EFAULT: return CODE_INTERNAL;
	case ECANCELED: return CODE_CANCELLED;
	case ETIMEDOUT: return CODE_DEADLINE_EXCEEDED;
	case ECONNREFUSED:
	case ECONNRESET:
	case EPIPE: return CODE_UNAVAILABLE;
	default: return CODE_UNKNOWN;
	}
}

/* The words of Go's syscall.Errno: strerror's with a small first letter, since clients and tests compare them. */
static void errno_text(int errnum, char *out, size_t n)
{
	char tmp[128];
	const char *s = strerror_r(errnum, tmp, sizeof tmp);
	snprintf(out, n, "%s", s);
	if (out[0] >= 'A' && out[0] <= 'Z' && !(out[1] >= 'A' && out[1] <= 'Z')) out[0] = (char)(out[0] + 32);
}

int err_sys(struct err *e, int errnum, const char *fmt, ...)
{
	if (!e) return -1;
	char text[160];
	errno_text(errnum, text, sizeof text);
	va_list ap;
	va_start(ap, fmt);
	char *what = xvasprintf(fmt, ap);
	va_end(ap);
	err_set(e, code_of_errno(errnum), "%s: %s", what, text);
	free(what);
	return -1;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
	if (!e) return -1;
	va_list ap;
	va_start(ap, fmt);
	char *what = xvasprintf(fmt, ap);
	va_end(ap);
	char *msg = xasprintf("%s: %s", what, e->msg ? e->msg : "unknown error");
	if (!e->msg) e->code = CODE_UNKNOWN;
	free(what);
	free(e->msg);
	e->msg = msg;
	return -1;
}

static struct err_detail *detail_new(const char *type_url, const void *data, size_t len)
{
	struct err_detail *d = xnew(struct err_detail);
	d->type_url = xstrdup(type_url);
	d->data = xmemdup(data, len);
	d->len = len;
	return d;
}

void err_detail_add(struct err *e, const char *type_url, const void *data, size_t len)
{
	if (!e) return;
	struct err_detail **at = &e->details;
	while (*at) at = &(*at)->next;
	*at = detail_new(type_url, data, len);
}

void err_detail_push(struct err *e, const char *type_url, const void *data, size_t len)
{
	if (!e) return;
	struct err_detail *d = detail_new(type_url, data, len);
	d->next = e->details;
	e->details = d;
}

const struct err_detail *err_detail_find(const struct err *e, const char *type_url)
{
	for (const struct err_detail *d = e->details; d; d = d->next)
		if (!strcmp(d->type_url, type_url)) return d;
	return NULL;
}

int err_move(struct err *dst, struct err *src)
{
	if (dst == src) return -1;
	if (!dst) {
		err_fini(src);
		return -1;
	}
	err_fini(dst);
	*dst = *src;
	*src = ERR_INIT;
	return -1;
}

void err_copy(struct err *dst, const struct err *src)
{
	if (!dst || dst == src) return;
	err_fini(dst);
	dst->code = src->code;
	dst->msg = xstrdup(src->msg);
	for (const struct err_detail *d = src->details; d; d = d->next) err_detail_add(dst, d->type_url, d->data, d->len);
}

void err_fini(struct err *e)
{
	if (!e) return;
	free(e->msg);
	for (struct err_detail *d = e->details; d;) {
		struct err_detail *next = d->next;
		free(d->type_url);
		free(d->data);
		free(d);
		d = next;
	}
	*e = ERR_INIT;
}

const char *err_code_name(enum code code)
{
	static const char *const name[] = {
		"OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
		"NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
		"Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
		"DataLoss", "Unauthenticated"};
	return (size_t)code < array_len(name) ? name[code] : "Unknown";
}
