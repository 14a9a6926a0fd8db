#include "base/digest.h"
#include "base/mem.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <string.h>

/* Fetched once: EVP_sha256() looks the algorithm up again for every context. */
static EVP_MD *sha256;
static void fetch_sha256(void) { sha256 = EVP_MD_fetch(NULL, "SHA256", NULL); }

void hasher_init(struct hasher *h)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, fetch_sha256);
	h->ctx = EVP_MD_CTX_new();
	if (!h->ctx || !sha256 || !EVP_DigestInit_ex2(h->ctx, sha256, NULL)) bug("no SHA-256 in this OpenSSL");
}

void hasher_update(struct hasher *h, const void *p, size_t n)
{
	if (n) EVP_DigestUpdate(h->ctx, p, n);
}

void hasher_updates(struct hasher *h, const char *s) { hasher_update(h, s, strlen(s)); }

void hasher_final(struct hasher *h, struct digest *ret)
{
	unsigned n = DIGEST_BYTES;
	EVP_DigestFinal_ex(h->ctx, ret->b, &n);
	hasher_fini(h);
}

void hasher_fini(struct hasher *h)
{
	EVP_MD_CTX_free(h->ctx);
	h->ctx = NULL;
}

struct digest digest_of(const void *p, size_t n)
{
	struct hasher h;
	struct digest d;
	hasher_init(&h);
	hasher_update(&h, p, n);
	hasher_final(&h, &d);
	return d;
}

void digest_hex(const struct digest *d, char out[static 65])
{
	static const char digit[] = "0123456789abcdef";
	for (int i = 0; i < DIGEST_BYTES; i++) {
		out[i * 2] = digit[d->b[i] >> 4];
		out[i * 2 + 1] = digit[d->b[i] & 15];
	}
	out[64] = 0;
}

void digest_format(const struct digest *d, char out[static DIGEST_STR])
{
	memcpy(out, "sha256:", 7);
	digest_hex(d, out + 7);
}

static int nibble(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

int digest_parse(const char *s, struct digest *ret, struct err *e)
{
	if (strncmp(s, "sha256:", 7)) return err_set(e, CODE_INVALID_ARGUMENT, "unsupported digest algorithm in \"%.80s\"", s);
	struct digest d;
	const char *hex = s + 7;
	if (strlen(hex) != 64) return err_set(e, CODE_INVALID_ARGUMENT, "invalid checksum digest length in \"%.100s\"", s);
	for (int i = 0; i < DIGEST_BYTES; i++) {
		int hi = nibble(hex[i * 2]), lo = nibble(hex[i * 2 + 1]);
		if (hi < 0 || lo < 0)
			return err_set(e, CODE_INVALID_ARGUMENT, "invalid checksum digest format in \"%.100s\"", s);
		d.b[i] = (uint8_t)(hi << 4 | lo);
	}
	*ret = d;
	return 0;
}

bool digest_valid(const char *s)
{
	struct digest d;
	return s && digest_parse(s, &d, NULL) == 0;
}

void digest_str_of(const void *p, size_t n, char out[static DIGEST_STR])
{
	struct digest d = digest_of(p, n);
	digest_format(&d, out);
}
