/* OpenPGP detached signatures, version 4: RSA, ECDSA on the NIST curves, EdDSA on Ed25519; SHA-256, -384, -512.
 *
 *  1. A primary key counts when a self-signature of it verifies; a subkey when its binding does, both ways. Anything else in a
 *     key block is ignored, so it cannot make a signature good.
 *  2. A key signs only where its flags (when there are any) say so, within its validity, and when it is not revoked.
 *  3. A signature with a critical subpacket that is not understood is no signature.
 * Sources: RFC 4880; moby/buildkit util/pgpsign for what is accepted. */
#include "sig/sig.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TAG_SIGNATURE = 2, TAG_KEY = 6, TAG_USER_ID = 13, TAG_SUBKEY = 14, TAG_USER_ATTR = 17 };
enum { ALG_RSA = 1, ALG_RSA_SIGN = 3, ALG_ECDSA = 19, ALG_EDDSA = 22 };
enum {
	BINARY = 0x00,
	TEXT = 0x01,
	CERT_FIRST = 0x10,
	CERT_LAST = 0x13,
	BINDING = 0x18,
	CROSS = 0x19,
	DIRECT = 0x1f,
	REVOKE_KEY = 0x20,
	REVOKE_SUBKEY = 0x28
};
enum { KEYS_MAX = 256, SIGN_FLAG = 0x02, FUTURE_S = 300, FPR = 20 };

/* ---- bytes ---- */

static bool take(struct sig_bytes *b, size_t n, struct sig_bytes *ret)
{
	if (n > b->n) return false;
	*ret = (struct sig_bytes){b->p, n};
	b->p += n;
	b->n -= n;
	return true;
}

static bool take_uint(struct sig_bytes *b, size_t n, uint32_t *ret)
{
	struct sig_bytes v;
	if (!take(b, n, &v)) return false;
	*ret = 0;
	for (size_t i = 0; i < n; i++) *ret = *ret << 8 | v.p[i];
	return true;
}

static bool take_mpi(struct sig_bytes *b, struct sig_bytes *ret)
{
	uint32_t bits;
	return take_uint(b, 2, &bits) && take(b, (bits + 7) / 8, ret);
}

/* The next packet; partial lengths are not taken (they are for data only). */
static bool take_packet(struct sig_bytes *b, int *ret_tag, struct sig_bytes *ret)
{
	uint32_t head, len, more;
	if (!take_uint(b, 1, &head) || !(head & 0x80)) return false;
	if (!(head & 0x40)) { /* old form */
		*ret_tag = head >> 2 & 15;
		return (head & 3) != 3 && take_uint(b, (size_t)1 << (head & 3), &len) && take(b, len, ret);
	}
	*ret_tag = head & 63;
	if (!take_uint(b, 1, &len)) return false;
	if (len == 255) return take_uint(b, 4, &len) && take(b, len, ret);
	if (len >= 224) return false;
	if (len >= 192) {
		if (!take_uint(b, 1, &more)) return false;
		len = (len - 192) * 256 + more + 192;
	}
	return take(b, len, ret);
}

/* ---- signatures ---- */

struct sig {
	int type, pub, hash;
	struct sig_bytes head;                     /* version to the end of the hashed subpackets: it is signed too */
	uint8_t left[2];                           /* of the digest */
	struct sig_bytes a, b;                     /* RSA: a; others: r, s */
	int64_t created, expires_s, key_expires_s; /* seconds after; 0: never */
	bool has_flags, has_id, has_fpr, bad;
	uint8_t flags, id[8], fpr[FPR];
	struct sig_bytes cross; /* embedded signature */
};

static void read_subpacket(struct sig *s, int type, bool critical, bool hashed, struct sig_bytes v)
{
	uint32_t n = 0;
	struct sig_bytes copy = v;
	if (v.n >= 4) take_uint(&copy, 4, &n);
	switch (type) {
	case 2:
		if (hashed && v.n == 4) s->created = n;
		return;
	case 3:
		if (hashed && v.n == 4) s->expires_s = n;
		return;
	case 9:
		if (hashed && v.n == 4) s->key_expires_s = n;
		return;
	case 16:
		if (v.n == 8) memcpy(s->id, v.p, 8), s->has_id = true;
		return;
	case 27:
		if (hashed && v.n >= 1) s->flags = v.p[0], s->has_flags = true;
		return;
	case 32: s->cross = v; return;
	case 33:
		if (v.n == 1 + FPR && v.p[0] == 4) memcpy(s->fpr, v.p + 1, FPR), s->has_fpr = true;
		return;
	case 4:
	case 5:
	case 6:
	case 7:
	case 11:
	case 21:
	case 22:
	case 23:
	case 25:
	case 26:
	case 28:
	case 29:
	case 30: return; /* understood, of no matter */
	default:
		if (critical) s->bad = true;
	}
}

static bool read_subpackets(struct sig *s, struct sig_bytes b, bool hashed)
{
	while (b.n) {
		uint32_t len, more, type;
		struct sig_bytes v;
		if (!take_uint(&b, 1, &len)) return false;
		if (len == 255) {
			if (!take_uint(&b, 4, &len)) return false;
		} else if (len >= 192) {
			if (!take_uint(&b, 1, &more)) return false;
			len = (len - 192) * 256 + more + 192;
		}
		if (!len || !take_uint(&b, 1, &type) || !take(&b, len - 1, &v)) return false;
		read_subpacket(s, type & 127, type & 128, hashed, v);
	}
	return true;
}

static bool sig_read(struct sig_bytes b, struct sig *ret)
{
	struct sig_bytes all = b, hashed, unhashed, left;
	uint32_t version, type, pub, hash, n;
	*ret = (struct sig){0};
	if (!take_uint(&b, 1, &version) || version != 4) return false;
	if (!take_uint(&b, 1, &type) || !take_uint(&b, 1, &pub) || !take_uint(&b, 1, &hash)) return false;
	if (!take_uint(&b, 2, &n) || !take(&b, n, &hashed)) return false;
	ret->head = (struct sig_bytes){all.p, (size_t)(b.p - all.p)};
	if (!take_uint(&b, 2, &n) || !take(&b, n, &unhashed) || !take(&b, 2, &left)) return false;
	memcpy(ret->left, left.p, 2);
	ret->type = (int)type;
	ret->pub = (int)pub;
	ret->hash = (int)hash;
	if (!read_subpackets(ret, hashed, true) || !read_subpackets(ret, unhashed, false)) return false;
	if (!take_mpi(&b, &ret->a)) return false;
	return pub == ALG_RSA || pub == ALG_RSA_SIGN || take_mpi(&b, &ret->b);
}

static const EVP_MD *md_of(int hash)
{
	switch (hash) {
	case 2: return EVP_sha1(); /* of old self-signatures only; see check_algos */
	case 8: return EVP_sha256();
	case 9: return EVP_sha384();
	case 10: return EVP_sha512();
	case 11: return EVP_sha224();
	default: return NULL;
	}
}

/* ---- keys ---- */

struct key {
	struct sig_bytes body;
	int algo;
	int64_t created, expires_s;
	EVP_PKEY *pkey;
	uint8_t fpr[FPR];
	struct key *primary; /* NULL: it is one */
	bool bound, revoked, may_sign;
	int64_t bound_at; /* creation of the newest self-signature */
	int bits;
};

static void put_key(EVP_MD_CTX *h, const struct key *k)
{
	uint8_t head[3] = {0x99, (uint8_t)(k->body.n >> 8), (uint8_t)k->body.n};
	EVP_DigestUpdate(h, head, sizeof head);
	EVP_DigestUpdate(h, k->body.p, k->body.n);
}

static EVP_PKEY *read_ec(int algo, struct sig_bytes b, int *ret_bits)
{
	static const struct {
		const char *oid; /* DER, without tag and length */
		size_t n;
		const char *group;
		int algo, bits;
	} curves[] = {
		{"\x2a\x86\x48\xce\x3d\x03\x01\x07", 8, "P-256", ALG_ECDSA, 256},
		{"\x2b\x81\x04\x00\x22", 5, "P-384", ALG_ECDSA, 384},
		{"\x2b\x81\x04\x00\x23", 5, "P-521", ALG_ECDSA, 521},
		{"\x2b\x06\x01\x04\x01\xda\x47\x0f\x01", 9, NULL, ALG_EDDSA, 256},
	};
	uint32_t n;
	struct sig_bytes oid, point;
	if (!take_uint(&b, 1, &n) || !take(&b, n, &oid) || !take_mpi(&b, &point)) return NULL;
	for (size_t i = 0; i < array_len(curves); i++) {
		if (curves[i].algo != algo || curves[i].n != oid.n || memcmp(curves[i].oid, oid.p, oid.n)) continue;
		*ret_bits = curves[i].bits;
		if (curves[i].group) return sig_ec_key(curves[i].group, point);
		return point.n == 33 && point.p[0] == 0x40 ? sig_ed25519_key((struct sig_bytes){point.p + 1, 32}) : NULL;
	}
	return NULL;
}

/* False: not a key that could sign for us. */
static bool key_read(struct sig_bytes body, struct key *k)
{
	struct sig_bytes b = body, n, e;
	uint32_t version, created, algo;
	unsigned len = FPR;
	*k = (struct key){.body = body};
	if (body.n > 65535 || !take_uint(&b, 1, &version) || version != 4 || !take_uint(&b, 4, &created) ||
	    !take_uint(&b, 1, &algo))
		return false;
	k->created = created;
	k->algo = (int)algo;
	_cleanup_md_ EVP_MD_CTX *h = EVP_MD_CTX_new();
	EVP_DigestInit_ex(h, EVP_sha1(), NULL);
	put_key(h, k);
	EVP_DigestFinal_ex(h, k->fpr, &len);
	if (algo == ALG_RSA || algo == ALG_RSA_SIGN) {
		if (!take_mpi(&b, &n) || !take_mpi(&b, &e)) return false;
		k->pkey = sig_rsa_key(n, e);
		k->bits = k->pkey ? EVP_PKEY_get_bits(k->pkey) : 0;
	} else if (algo == ALG_ECDSA || algo == ALG_EDDSA) {
		k->pkey = read_ec((int)algo, b, &k->bits);
	}
	return k->pkey;
}

/* Close the hash with the signature's own head and compare. */
static bool sig_ok(const struct sig *s, const struct key *k, EVP_MD_CTX *h)
{
	uint8_t digest[EVP_MAX_MD_SIZE], tail[6] = {4, 0xff, 0, 0, (uint8_t)(s->head.n >> 8), (uint8_t)s->head.n},
					 raw[64] = {0};
	unsigned n = 0;
	bool rsa = s->pub == ALG_RSA || s->pub == ALG_RSA_SIGN,
	     same = rsa ? k->algo == ALG_RSA || k->algo == ALG_RSA_SIGN : k->algo == s->pub;
	EVP_DigestUpdate(h, s->head.p, s->head.n);
	tail[2] = (uint8_t)(s->head.n >> 24);
	tail[3] = (uint8_t)(s->head.n >> 16);
	EVP_DigestUpdate(h, tail, sizeof tail);
	EVP_DigestFinal_ex(h, digest, &n);
	if (s->bad || !same || memcmp(digest, s->left, 2)) return false;
	struct sig_bytes d = {digest, n};
	if (rsa) return sig_rsa_ok(k->pkey, md_of(s->hash), d, s->a);
	if (s->pub == ALG_ECDSA) return sig_ecdsa_ok(k->pkey, d, s->a, s->b);
	if (s->a.n > 32 || s->b.n > 32) return false;
	memcpy(raw + 32 - s->a.n, s->a.p, s->a.n);
	memcpy(raw + 64 - s->b.n, s->b.p, s->b.n);
	return sig_ed25519_ok(k->pkey, d, (struct sig_bytes){raw, 64});
}

/* A signature over a primary key and what else (a subkey, a user id), by `by`. */
static bool key_sig_ok(const struct sig *s, const struct key *by, const struct key *primary, const struct key *sub, int tag,
		       struct sig_bytes user)
{
	const EVP_MD *md = md_of(s->hash);
	_cleanup_md_ EVP_MD_CTX *h = EVP_MD_CTX_new();
	if (!md || !h || !EVP_DigestInit_ex(h, md, NULL)) return false;
	put_key(h, primary);
	if (sub) put_key(h, sub);
	if (user.p) {
		uint8_t head[5] = {tag == TAG_USER_ATTR ? 0xd1 : 0xb4, (uint8_t)(user.n >> 24), (uint8_t)(user.n >> 16),
				   (uint8_t)(user.n >> 8), (uint8_t)user.n};
		EVP_DigestUpdate(h, head, sizeof head);
		EVP_DigestUpdate(h, user.p, user.n);
	}
	return sig_ok(s, by, h);
}

/* What a self-signature says of a key; the newest one counts. */
static void bind(struct key *k, const struct sig *s, bool may_sign)
{
	if (k->bound && s->created < k->bound_at) return;
	k->bound = true;
	k->bound_at = s->created;
	k->expires_s = s->key_expires_s;
	k->may_sign = may_sign;
}

struct ring {
	struct key *v;
	size_t n;
	int user_tag;
	struct sig_bytes user;
	struct key *primary, *last; /* of the block at hand; NULL: one that we cannot use */
};

static void take_subkey_sig(struct ring *r, const struct sig *s)
{
	struct sig cross;
	bool signs = s->has_flags && s->flags & SIGN_FLAG;
	if (!key_sig_ok(s, r->primary, r->primary, r->last, 0, (struct sig_bytes){0})) return;
	if (s->type == REVOKE_SUBKEY) {
		r->last->revoked = true;
		return;
	}
	if (signs)
		signs = s->cross.p && sig_read(s->cross, &cross) && cross.type == CROSS &&
			key_sig_ok(&cross, r->last, r->primary, r->last, 0, (struct sig_bytes){0});
	bind(r->last, s, signs);
}

static void take_sig(struct ring *r, struct sig_bytes body)
{
	struct sig s;
	if (!r->primary || !sig_read(body, &s)) return;
	if (s.type == BINDING || s.type == REVOKE_SUBKEY) {
		if (r->last && r->last->primary) take_subkey_sig(r, &s);
	} else if (s.type == REVOKE_KEY || s.type == DIRECT) {
		if (!key_sig_ok(&s, r->primary, r->primary, NULL, 0, (struct sig_bytes){0})) return;
		if (s.type == REVOKE_KEY)
			r->primary->revoked = true;
		else
			bind(r->primary, &s, !s.has_flags || s.flags & SIGN_FLAG);
	} else if (s.type >= CERT_FIRST && s.type <= CERT_LAST && r->user.p) {
		if (key_sig_ok(&s, r->primary, r->primary, NULL, r->user_tag, r->user))
			bind(r->primary, &s, !s.has_flags || s.flags & SIGN_FLAG);
	}
}

static int ring_read(struct ring *r, struct sig_bytes b, struct err *e)
{
	int tag;
	struct sig_bytes body;
	while (b.n) {
		if (!take_packet(&b, &tag, &body))
			return err_set(e, CODE_INVALID_ARGUMENT, "failed to read armored public key: a packet is damaged");
		if (tag == TAG_KEY || tag == TAG_SUBKEY) {
			if (r->n == KEYS_MAX) return err_set(e, CODE_RESOURCE_EXHAUSTED, "more than %d public keys", KEYS_MAX);
			struct key *k = &r->v[r->n];
			bool good = key_read(body, k) && (tag == TAG_KEY || r->primary);
			if (good) r->n++;
			if (!good) EVP_PKEY_free(k->pkey);
			if (tag == TAG_KEY) r->primary = good ? k : NULL;
			if (good && tag == TAG_SUBKEY) k->primary = r->primary;
			r->last = good ? k : NULL;
			r->user.p = NULL;
		} else if (tag == TAG_USER_ID || tag == TAG_USER_ATTR) {
			r->user = body;
			r->user_tag = tag;
		} else if (tag == TAG_SIGNATURE) {
			take_sig(r, body);
		}
	}
	return 0;
}

/* ---- verifying ---- */

static int check_algos(const struct sig *s, struct err *e)
{
	if (s->hash < 8 || s->hash > 10) return err_set(e, CODE_UNKNOWN, "rejecting weak/unknown hash: %d", s->hash);
	if (s->pub != ALG_RSA && s->pub != ALG_RSA_SIGN && s->pub != ALG_ECDSA && s->pub != ALG_EDDSA)
		return err_set(e, CODE_UNKNOWN, "rejecting unsupported pubkey algorithm: %d", s->pub);
	if (s->type != BINARY && s->type != TEXT)
		return err_set(e, CODE_UNKNOWN, "signature of type 0x%02x is none of a document", s->type);
	return 0;
}

static bool made_by(const struct sig *s, const struct key *k)
{
	if (s->has_fpr) return !memcmp(s->fpr, k->fpr, FPR);
	return s->has_id && !memcmp(s->id, k->fpr + FPR - 8, 8);
}

static bool valid_at(const struct key *k, int64_t t)
{
	return k->created <= t && (!k->expires_s || t < k->created + k->expires_s);
}

static int check_key(const struct key *k, const struct sig *s, bool reject_expired, struct err *e)
{
	const struct key *primary = k->primary ? k->primary : k;
	int64_t now = time_now().tv_sec, at = reject_expired ? now : s->created;
	if (primary->revoked || k->revoked) return err_set(e, CODE_UNKNOWN, "key revoked");
	if (!primary->bound || !k->bound || !k->may_sign)
		return err_set(e, CODE_UNKNOWN, "openpgp: signature made by unknown entity");
	if (!valid_at(k, at) || !valid_at(primary, at)) return err_set(e, CODE_UNKNOWN, "openpgp: key expired");
	if (s->expires_s && at >= s->created + s->expires_s) return err_set(e, CODE_UNKNOWN, "openpgp: signature expired");
	if (s->created > now + FUTURE_S) return err_set(e, CODE_UNKNOWN, "signature creation time is in the future");
	const struct key *both[] = {k, primary};
	for (size_t i = 0; i < 2; i++)
		if ((both[i]->algo == ALG_RSA || both[i]->algo == ALG_RSA_SIGN) && both[i]->bits < 2048)
			return err_set(e, CODE_UNKNOWN, "RSA key too short: %d bits", both[i]->bits);
	return 0;
}

static int verify_one(const struct sig_data *d, const struct sig *s, const struct ring *r, bool reject_expired, struct err *e)
{
	if (check_algos(s, e) < 0) return -1;
	for (size_t i = 0; i < r->n; i++) {
		const struct key *k = &r->v[i];
		if (!made_by(s, k)) continue;
		_cleanup_md_ EVP_MD_CTX *h = EVP_MD_CTX_new();
		EVP_DigestInit_ex(h, md_of(s->hash), NULL);
		if (check_key(k, s, reject_expired, e) < 0 || sig_feed(d, s->type == TEXT, h, e) < 0) return -1;
		return sig_ok(s, k, h) ? 0 : err_set(e, CODE_UNKNOWN, "openpgp: invalid signature");
	}
	return err_set(e, CODE_UNKNOWN, "openpgp: signature made by unknown entity");
}

/* The first signature by a key that is known decides. */
static int verify(const struct sig_data *d, struct sig_bytes b, const struct ring *r, bool reject_expired, struct err *e)
{
	struct sig_bytes body;
	bool any = false;
	int tag;
	while (take_packet(&b, &tag, &body)) {
		struct sig s;
		bool known = false;
		if (tag != TAG_SIGNATURE || !sig_read(body, &s)) continue;
		for (size_t i = 0; i < r->n && !known; i++) known = made_by(&s, &r->v[i]);
		any = true;
		err_fini(e);
		if (verify_one(d, &s, r, reject_expired, e) >= 0) return 0;
		char id[17];
		hex_encode(s.has_fpr ? s.fpr + FPR - 8 : s.id, 8, id);
		for (char *p = id; *p; p++)
			if (*p >= 'a') *p = (char)(*p - 32);
		err_wrap(e, "signature by %s", id);
		if (known) return -1;
	}
	return any ? -1 : err_set(e, CODE_UNKNOWN, "no signature packet found");
}

int pgp_verify(const struct sig_data *d, const char *signature, const char *keys, bool reject_expired, struct err *e)
{
	/* Keys point into their blocks: all are read into one buffer. */
	_cleanup_buf_ struct buf sig = BUF_MAX(1 << 20), blocks = BUF_MAX(4 << 20);
	struct ring r = {.v = xcalloc(KEYS_MAX, sizeof *r.v)};
	const char *at = signature;
	int found = sig_armor(&at, "PGP SIGNATURE", &sig, e), more, ok = -1;
	if (found <= 0) {
		free(r.v);
		return found < 0 ? err_wrap(e, "failed to decode armored signature")
				 : err_set(e, CODE_UNKNOWN, "failed to decode armored signature: EOF");
	}
	for (at = keys; (more = sig_armor(&at, "PGP PUBLIC KEY BLOCK", &blocks, e)) > 0;) {
	}
	if (more < 0)
		err_wrap(e, "failed to decode armored public key");
	else if (!blocks.n)
		err_set(e, CODE_UNKNOWN, "failed to read armored public key: no armored data found");
	else if (ring_read(&r, (struct sig_bytes){blocks.p, blocks.n}, e) >= 0)
		ok = verify(d, (struct sig_bytes){sig.p, sig.n}, &r, reject_expired, e);
	for (size_t i = 0; i < r.n; i++) EVP_PKEY_free(r.v[i].pkey);
	free(r.v);
	return ok;
}
