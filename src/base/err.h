#ifndef BASE_ERR_H
#define BASE_ERR_H
/* Errors that carry a gRPC code, a text and typed details.
 *
 * A function that can fail is `int f(..., struct err *e)`: it answers >= 0, or -1 with *e set. The setters return -1 so
 * that a failure is one statement: `return err_set(e, CODE_NOT_FOUND, "no such ref: %s", id);`. A caller that only adds
 * the noun that the lower room did not know uses err_wrap: "<noun>: <what was said>". What is expected (a miss, EOF) is
 * a value and never an error. All functions here: any thread, no blocking. `e` may be NULL: then only -1 is returned.
 * Source of the codes: grpc/grpc doc/statuscodes.md. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

enum code {
	CODE_OK = 0,
	CODE_CANCELLED = 1,
	CODE_UNKNOWN = 2,
	CODE_INVALID_ARGUMENT = 3,
	CODE_DEADLINE_EXCEEDED = 4,
	CODE_NOT_FOUND = 5,
	CODE_ALREADY_EXISTS = 6,
	CODE_PERMISSION_DENIED = 7,
	CODE_RESOURCE_EXHAUSTED = 8,
	CODE_FAILED_PRECONDITION = 9,
	CODE_ABORTED = 10,
	CODE_OUT_OF_RANGE = 11,
	CODE_UNIMPLEMENTED = 12,
	CODE_INTERNAL = 13,
	CODE_UNAVAILABLE = 14,
	CODE_DATA_LOSS = 15,
	CODE_UNAUTHENTICATED = 16,
};

/* A google.protobuf.Any of the status: a type URL and bytes; owned by its err, outermost wrapper first. */
struct err_detail {
	char *type_url;
	uint8_t *data;
	size_t len;
	struct err_detail *next;
};

struct err {
	enum code code;
	char *msg; /* heap; NULL when no error is set */
	struct err_detail *details;
};

#define ERR_INIT ((struct err){0})
#define _cleanup_err_ __attribute__((cleanup(err_fini)))

/* Set the error; an error that was there is dropped. */
int err_set(struct err *e, enum code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int err_vset(struct err *e, enum code code, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));
/* "<fmt>: <strerror>", the code chosen from errnum (ENOENT -> NOT_FOUND, ENOSPC and ENOMEM -> RESOURCE_EXHAUSTED, ...). */
int err_sys(struct err *e, int errnum, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Put "<fmt>: " before the text; code and details stay. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Append a detail (copied). */
void err_detail_add(struct err *e, const char *type_url, const void *data, size_t len);
/* Put a detail (copied) before the others: what an outer wrapper says. */
void err_detail_push(struct err *e, const char *type_url, const void *data, size_t len);
const struct err_detail *err_detail_find(const struct err *e, const char *type_url);
/* Move src into *dst (NULL drops it); src is empty afterwards. Returns -1. */
int err_move(struct err *dst, struct err *src);
void err_copy(struct err *dst, const struct err *src);
void err_fini(struct err *e); /* empty again; NULL members allowed */
static inline int err_is_set(const struct err *e) { return e->msg != NULL; }
const char *err_code_name(enum code code); /* "NotFound", as grpc-go prints it */
/* A broken invariant: prints file, line and text, then aborts. */
#define bug(...) bug_at(__FILE__, __LINE__, __VA_ARGS__)
__attribute__((noreturn, format(printf, 3, 4))) void bug_at(const char *file, int line, const char *fmt, ...);
#define ensure(x) ((x) ? (void)0 : bug("broken invariant: %s", #x))
#endif
