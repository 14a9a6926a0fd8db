#ifndef BASE_DIGEST_H
#define BASE_DIGEST_H
/* SHA-256 and digest strings "sha256:<64 hex>". Any thread, no blocking. Source: OCI image-spec descriptor.md. */
#include "base/err.h"
#include <stdbool.h>

enum { DIGEST_BYTES = 32, DIGEST_STR = 72 }; /* DIGEST_STR: with the NUL */

struct digest {
	uint8_t b[DIGEST_BYTES];
};
/* OpenSSL's EVP context beneath. */
struct hasher {
	void *ctx;
};
void hasher_init(struct hasher *h);
void hasher_update(struct hasher *h, const void *p, size_t n);
void hasher_updates(struct hasher *h, const char *s);
void hasher_final(struct hasher *h, struct digest *ret); /* also releases it */
void hasher_fini(struct hasher *h);                      /* release without a result; harmless after final */
struct digest digest_of(const void *p, size_t n);
void digest_format(const struct digest *d, char out[static DIGEST_STR]);
void digest_hex(const struct digest *d, char out[static 65]);
/* Only sha256 with 64 lower-case hex digits is accepted; INVALID_ARGUMENT otherwise. */
int digest_parse(const char *s, struct digest *ret, struct err *e);
bool digest_valid(const char *s);
static inline bool digest_eq(const struct digest *a, const struct digest *b)
{
	return __builtin_memcmp(a->b, b->b, DIGEST_BYTES) == 0;
}
/* sha256 of n bytes as a "sha256:..." string into out. */
void digest_str_of(const void *p, size_t n, char out[static DIGEST_STR]);
#endif
