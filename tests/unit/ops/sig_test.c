/* Signatures made by gpg and ssh-keygen (tests/unit/ops/sig, all with the clock at 2024): good ones verify, and nothing else
 * does. */
#include "ops/git_job.h"
#include "sig/sig.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const char *dir;

static char *text_of(const char *name, size_t *ret_n)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	uint8_t *p;
	size_t n;
	struct err e = ERR_INIT;
	if (path_read_file(AT_FDCWD, path, 1 << 20, &p, &n, &e) < 0) fail_msg("%s", e.msg);
	if (ret_n) *ret_n = n;
	return (char *)p;
}

static int pgp(const char *sig, const char *key, const char *data, bool reject_expired, struct err *e)
{
	_cleanup_free_ char *s = text_of(sig, NULL), *k = text_of(key, NULL);
	struct sig_data d = {data, strlen(data), -1};
	return pgp_verify(&d, s, k, reject_expired, e);
}

static const char good[] = "hello\nworld\n";

static void test_pgp_good(void **state)
{
	static const char *const names[] = {"ed", "nist", "p521", "rsa"};
	for (size_t i = 0; i < array_len(names); i++) {
		struct err e = ERR_INIT;
		_cleanup_free_ char *sig = xasprintf("%s.sig", names[i]), *pub = xasprintf("%s.pub", names[i]);
		if (pgp(sig, pub, good, true, &e) < 0) fail_msg("%s: %s", names[i], e.msg);
		assert_int_equal(pgp(sig, pub, "hello\nworlD\n", true, &e), -1);
		assert_non_null(strstr(e.msg, "invalid signature"));
		err_fini(&e);
	}
}

static void test_pgp_file_and_text(void **state)
{
	struct err e = ERR_INIT;
	_cleanup_free_ char *sig = text_of("ed.sig", NULL), *pub = text_of("ed.pub", NULL), *path = xasprintf("%s/data", dir);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct sig_data d = {.fd = fd};
	assert_int_equal(pgp_verify(&d, sig, pub, false, &e), 0);
	assert_int_equal(pgp("text.sig", "ed.pub", good, false, &e), 0);
	assert_int_equal(pgp("text.sig", "ed.pub", "hello\r\nworld\r\n", false, &e), 0);
	assert_int_equal(pgp("text.sig", "ed.pub", "hello\n\nworld\n", false, &e), -1);
	err_fini(&e);
}

static void test_pgp_several_keys(void **state)
{
	struct err e = ERR_INIT;
	_cleanup_free_ char *a = text_of("ed.pub", NULL), *b = text_of("rsa.pub", NULL), *both = xasprintf("%s\n%s", a, b);
	_cleanup_free_ char *sig = text_of("rsa.sig", NULL);
	struct sig_data d = {good, strlen(good), -1};
	assert_int_equal(pgp_verify(&d, sig, both, false, &e), 0);
}

static void refused(const char *sig, const char *key, bool reject_expired, const char *why)
{
	struct err e = ERR_INIT;
	assert_int_equal(pgp(sig, key, good, reject_expired, &e), -1);
	if (!strstr(e.msg, why)) fail_msg("%s by %s: %s", sig, key, e.msg);
	err_fini(&e);
}

static void test_pgp_refused(void **state)
{
	struct err e = ERR_INIT;
	refused("ed.sig", "nist.pub", false, "unknown entity");
	refused("weak.sig", "weak.pub", false, "RSA key too short: 1024 bits");
	refused("rev.sig", "rev.pub", false, "key revoked");
	refused("old.sig", "old.pub", true, "key expired");
	assert_int_equal(pgp("old.sig", "old.pub", good, false, &e), 0);
	refused("data", "ed.pub", false, "failed to decode armored signature");
	refused("ed.sig", "data", false, "no armored data found");
	refused("ed.sig", "ssh-ed.pub", false, "no armored data found");
}

/* The flags, the binding and the primary's self-signature are looked at: a subkey without its binding signs nothing. */
static void test_pgp_unbound_subkey(void **state)
{
	_cleanup_free_ char *armored = text_of("rsa.pub", NULL), *sig = text_of("rsa.sig", NULL);
	_cleanup_buf_ struct buf raw = BUF_MAX(1 << 16), cut = BUF_INIT;
	const char *at = armored;
	struct err e = ERR_INIT;
	struct sig_data d = {good, strlen(good), -1};
	assert_int_equal(sig_armor(&at, "PGP PUBLIC KEY BLOCK", &raw, &e), 1);
	/* The binding is the last packet: old form, two bytes of length. */
	size_t last = 0;
	for (size_t i = 0; i + 3 < raw.n;) {
		size_t n = raw.p[i] & 1 ? (size_t)raw.p[i + 1] << 8 | raw.p[i + 2] : raw.p[i + 1];
		last = i;
		i += n + (raw.p[i] & 1 ? 3 : 2);
	}
	buf_adds(&cut, "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n");
	base64_encode(&cut, raw.p, last);
	buf_adds(&cut, "\n-----END PGP PUBLIC KEY BLOCK-----\n");
	assert_int_equal(pgp_verify(&d, sig, buf_str(&cut), false, &e), -1);
	assert_non_null(strstr(e.msg, "unknown entity"));
	err_fini(&e);
}

/* Whatever one damaged byte does to signature or key, the answer is "no", without a crash. */
static void test_pgp_damaged(void **state)
{
	static const char *const names[] = {"ed", "rsa"};
	struct sig_data d = {good, strlen(good), -1};
	for (size_t k = 0; k < array_len(names); k++) {
		_cleanup_free_ char *file = xasprintf("%s.sig", names[k]), *pub_file = xasprintf("%s.pub", names[k]);
		_cleanup_free_ char *sig = text_of(file, NULL), *pub = text_of(pub_file, NULL);
		_cleanup_buf_ struct buf raw = BUF_MAX(1 << 16);
		const char *at = sig;
		assert_int_equal(sig_armor(&at, "PGP SIGNATURE", &raw, NULL), 1);
		for (size_t i = 0; i < raw.n; i++) {
			struct err e = ERR_INIT;
			_cleanup_buf_ struct buf text = BUF_INIT;
			raw.p[i] ^= 0x41;
			buf_adds(&text, "-----BEGIN PGP SIGNATURE-----\n\n");
			base64_encode(&text, raw.p, raw.n);
			buf_adds(&text, "\n-----END PGP SIGNATURE-----\n");
			raw.p[i] ^= 0x41;
			pgp_verify(&d, buf_str(&text), pub, true, &e); /* an unhashed subpacket may change freely */
			struct sig_data other = {"x", 1, -1};
			assert_int_equal(pgp_verify(&other, buf_str(&text), pub, true, &e), -1);
			err_fini(&e);
		}
	}
}

static int ssh(const char *sig, const char *key, const char *data, const char *ns, struct err *e)
{
	_cleanup_free_ char *s = text_of(sig, NULL), *k = text_of(key, NULL),
			    *with = xasprintf("# comment\ncert-authority,from=\"a b\" %s", k);
	struct sig_data d = {data, strlen(data), -1};
	return sshsig_verify(&d, s, with, ns, e);
}

static void test_ssh(void **state)
{
	static const char *const names[] = {"ssh-ed", "ssh-ec", "ssh-rsa"};
	for (size_t i = 0; i < array_len(names); i++) {
		struct err e = ERR_INIT;
		_cleanup_free_ char *sig = xasprintf("%s.sig", names[i]), *pub = xasprintf("%s.pub", names[i]);
		if (ssh(sig, pub, good, "git", &e) < 0) fail_msg("%s: %s", names[i], e.msg);
		assert_int_equal(ssh(sig, pub, "hello", "git", &e), -1);
		assert_int_equal(ssh(sig, pub, good, "file", &e), -1);
		assert_int_equal(ssh(sig, names[i][4] == 'r' ? "ssh-ed.pub" : "ssh-rsa.pub", good, "git", &e), -1);
		err_fini(&e);
	}
}

struct objects {
	struct llb_source src;
	struct git_job j;
	char *pub;
};

static void load(struct objects *o, int n, const char *key, bool tag)
{
	char name[32];
	*o = (struct objects){.pub = text_of(key, NULL)};
	o->src.git.sig_pubkey = o->pub;
	o->j.src = &o->src;
	snprintf(name, sizeof name, "commit%d", n);
	o->j.commit_object = (uint8_t *)text_of(name, &o->j.commit_len);
	snprintf(name, sizeof name, "commit%d.id", n);
	o->j.commit = text_of(name, NULL);
	o->j.commit[40] = 0;
	snprintf(name, sizeof name, "tag%d", n);
	if (tag) o->j.tag_object = (uint8_t *)text_of(name, &o->j.tag_len);
	snprintf(name, sizeof name, "tag%d.id", n);
	o->j.digest = tag ? text_of(name, NULL) : xstrdup(o->j.commit);
	o->j.digest[40] = 0;
}

static void drop(struct objects *o)
{
	free(o->pub);
	free(o->j.commit_object);
	free(o->j.tag_object);
	free(o->j.commit);
	free(o->j.digest);
}

static void expect(int n, const char *key, bool tag, bool require_tag, bool ignore_tag, const char *why)
{
	struct objects o;
	struct err e = ERR_INIT;
	load(&o, n, key, tag);
	o.src.git.sig_require_signed_tag = require_tag;
	o.src.git.sig_ignore_signed_tag = ignore_tag;
	int r = git_verify(&o.j, &e);
	if (!why && r < 0) fail_msg("object %d by %s: %s", n, key, e.msg);
	if (why && (r == 0 || !strstr(e.msg, why))) fail_msg("object %d by %s: %s", n, key, r ? e.msg : "verified");
	err_fini(&e);
	drop(&o);
}

static void test_git(void **state)
{
	expect(1, "ed.pub", true, true, false, NULL);
	expect(1, "ed.pub", false, false, false, NULL);
	expect(1, "ed.pub", true, false, true, NULL);
	expect(1, "nist.pub", true, false, false, "unknown entity");
	expect(1, "ed.pub", false, true, false, "signed tag required but no signed tag found");
	expect(2, "ssh-ed.pub", true, true, false, NULL);
	expect(2, "ssh-ed.pub", false, false, false, NULL);
	expect(2, "ssh-ec.pub", true, false, false, "does not match");
	expect(3, "ed.pub", true, true, false, "git object is not signed");
	expect(3, "ed.pub", true, false, false, "git object is not signed");
}

static void test_git_id(void **state)
{
	struct objects o;
	struct err e = ERR_INIT;
	load(&o, 1, "ed.pub", false);
	o.j.digest[0] ^= 1;
	free(o.j.commit);
	o.j.commit = xstrdup("");
	assert_int_equal(git_verify(&o.j, &e), -1);
	assert_non_null(strstr(e.msg, "checksum mismatch"));
	err_fini(&e);
	drop(&o);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pgp_good),
		cmocka_unit_test(test_pgp_file_and_text),
		cmocka_unit_test(test_pgp_several_keys),
		cmocka_unit_test(test_pgp_refused),
		cmocka_unit_test(test_pgp_unbound_subkey),
		cmocka_unit_test(test_pgp_damaged),
		cmocka_unit_test(test_ssh),
		cmocka_unit_test(test_git),
		cmocka_unit_test(test_git_id),
	};
	dir = argc > 1 ? argv[1] : "sig";
	return cmocka_run_group_tests(tests, NULL, NULL);
}
