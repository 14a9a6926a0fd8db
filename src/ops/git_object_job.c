/* Signed commits and tags: what of the object is signed, and by which signature. A tag's signature stands behind its message; a
 * commit's is a header, "gpgsig", whose further lines begin with a blank. Both objects are compared with the id first.
 * Source: moby/buildkit util/gitutil/gitobject. */
#include "ops/git_job.h"
#include "sig/sig.h"

#include <string.h>

struct object {
	const char *type;
	struct buf signed_, signature;
	unsigned headers; /* seen: a bit each of the required ones */
};

static void object_fini(struct object *o)
{
	buf_fini(&o->signed_);
	buf_fini(&o->signature);
}

static bool begins_signature(const char *line, size_t n)
{
	static const char *const begin[] = {"-----BEGIN PGP SIGNATURE-----", "-----BEGIN SSH SIGNATURE-----"};
	for (size_t i = 0; i < 2; i++)
		if (n == strlen(begin[i]) && !memcmp(line, begin[i], n)) return true;
	return false;
}

/* How much of a header line is the key of a signature, with the blank; 0: it is none. */
static size_t signature_key(const char *line, size_t n)
{
	static const char *const keys[] = {"gpgsig ", "gpgsig-sha256 "};
	for (size_t i = 0; i < 2; i++)
		if (n >= strlen(keys[i]) && !memcmp(line, keys[i], strlen(keys[i]))) return strlen(keys[i]);
	return 0;
}

static void add_line(struct buf *b, const char *line, size_t n)
{
	buf_add(b, line, n);
	buf_addc(b, '\n');
}

static void saw_header(struct object *o, const char *const *required, const char *line, size_t n)
{
	for (unsigned i = 0; required[i]; i++) {
		size_t k = strlen(required[i]);
		if (n > k && !memcmp(line, required[i], k) && line[k] == ' ') o->headers |= 1u << i;
	}
}

static int object_parse(const char *raw, size_t len, struct object *o, struct err *e)
{
	static const char *const of_tag[] = {"object", "type", "tag", "tagger", NULL}, *const of_commit[] = {"tree", "author",
													     "committer", NULL};
	bool tag = len >= 7 && !memcmp(raw, "object ", 7), in_headers = true, in_signature = false;
	const char *const *required = tag ? of_tag : of_commit;
	o->type = tag ? "tag" : "commit";
	for (const char *p = raw, *end = raw + len; p <= end;) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((nl ? nl : end) - p), key = tag || !in_headers ? 0 : signature_key(p, n);
		bool last = !nl;
		if (in_headers && key) {
			in_signature = true;
			add_line(&o->signature, p + key, n - key);
		} else if (in_headers && in_signature && n && *p == ' ') {
			add_line(&o->signature, p + 1, n - 1);
		} else if (in_headers) {
			in_signature = false;
			in_headers = n;
			saw_header(o, required, p, n);
			add_line(&o->signed_, p, n);
		} else {
			in_signature |= tag && begins_signature(p, n);
			if (in_signature)
				add_line(&o->signature, p, n);
			else if (!last || n) /* the part behind the last line end is no line */
				add_line(&o->signed_, p, n);
		}
		if (last && n && o->signed_.n && !in_signature) o->signed_.p[--o->signed_.n] = 0; /* no line end there */
		p = nl ? nl + 1 : end + 1;
	}
	for (unsigned i = 0; required[i]; i++)
		if (!(o->headers & 1u << i))
			return err_set(e, CODE_UNKNOWN, "invalid %s object: missing %s header", o->type, required[i]);
	return 0;
}

static int check_id(const char *type, const void *p, size_t n, const char *want, struct err *e)
{
	const EVP_MD *md = strlen(want) == 64 ? EVP_sha256() : EVP_sha1();
	uint8_t digest[EVP_MAX_MD_SIZE];
	char got[2 * EVP_MAX_MD_SIZE + 1];
	unsigned len;
	_cleanup_free_ char *head = xasprintf("%s %zu", type, n);
	_cleanup_md_ EVP_MD_CTX *h = EVP_MD_CTX_new();
	EVP_DigestInit_ex(h, md, NULL);
	EVP_DigestUpdate(h, head, strlen(head) + 1);
	EVP_DigestUpdate(h, p, n);
	EVP_DigestFinal_ex(h, digest, &len);
	hex_encode(digest, len, got);
	return str_eq(got, want) ? 0
				 : err_set(e, CODE_UNKNOWN,
					   "%s object checksum verification failed: checksum mismatch: expected %s, got %s",
					   type, want, got);
}

static int verify(const struct llb_source *s, const uint8_t *raw, size_t n, const char *id, struct err *e)
{
	_cleanup_(object_fini) struct object o = {0};
	if (object_parse((const char *)raw, n, &o, e) < 0) return -1;
	if (check_id(o.type, raw, n, id, e) < 0) return -1;
	if (!o.signature.n) return err_set(e, CODE_UNKNOWN, "git object is not signed");
	struct sig_data d = {o.signed_.p, o.signed_.n, -1};
	const char *sig = buf_str(&o.signature);
	if (str_starts(sig, "-----BEGIN PGP SIGNATURE-----"))
		return pgp_verify(&d, sig, s->git.sig_pubkey, s->git.sig_reject_expired, e);
	if (str_starts(sig, "-----BEGIN SSH SIGNATURE-----")) return sshsig_verify(&d, sig, s->git.sig_pubkey, "git", e);
	return err_set(e, CODE_UNKNOWN, "invalid signature format");
}

int git_verify(struct git_job *j, struct err *e)
{
	const struct llb_source *s = j->src;
	struct err tag = ERR_INIT;
	if (!s->git.sig_ignore_signed_tag && j->tag_len && verify(s, j->tag_object, j->tag_len, j->digest, &tag) >= 0) return 0;
	if (s->git.sig_require_signed_tag)
		return err_is_set(&tag) ? err_move(e, &tag)
					: err_set(e, CODE_UNKNOWN, "signed tag required but no signed tag found");
	err_fini(&tag);
	return verify(s, j->commit_object, j->commit_len, *j->commit ? j->commit : j->digest, e);
}
