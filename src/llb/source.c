/* Source operations as typed values, and the texts of their cache keys.
 *
 * An identifier is "scheme://rest"; attributes that are unknown are ignored, known ones are parsed by the tables below, one
 * row each. A docker-image or OCI reference is containerd's: host and path as they were written, then [:tag][@digest].
 * Sources: BuildKit source/{manager.go,containerimage,containerblob,git,http,local}, containerd pkg/reference. */
#include "llb/internal.h"
#include "spec/git.h"
#include "spec/ref.h"
#include "spec/url.h"

#include <jansson.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ctx {
	struct arena *a;
	struct llb_source *s;
	const Pb__Platform *platform;
	struct err *e;
	bool full; /* the arena is */
};

static const char *keep(struct ctx *c, const char *s)
{
	const char *copy = arena_strdup(c->a, s ? s : "");
	c->full |= !copy;
	return copy ? copy : "";
}

/* ---- values of attributes ---- */

/* strconv.ParseInt with base 0 (prefixes 0x, 0o, 0, 0b and underscores between digits), or base 10. */
static int parse_int(const char *s, int base, const char *fn, int64_t *ret, struct err *e)
{
	const char *p = s + (*s == '-' || *s == '+');
	char digits[80];
	size_t n = 0;
	bool bad = false, under = false;
	if (base == 0) {
		base = 10;
		if (p[0] == '0' && p[1]) {
			int c = p[1] | 0x20;
			base = c == 'x' ? 16 : c == 'b' ? 2 : 8;
			p += c == 'x' || c == 'b' || c == 'o' ? 2 : 1;
			under = true; /* an underscore may follow the prefix */
		}
		for (; *p && n < sizeof digits - 2; p++) {
			if (*p == '_') {
				bad |= !under || !p[1];
				under = false;
				continue;
			}
			digits[n++] = *p;
			under = true;
		}
	} else {
		for (; *p && n < sizeof digits - 2; p++) digits[n++] = *p;
	}
	digits[n] = 0;
	for (size_t i = 0; i < n; i++) {
		int d = digits[i] <= '9' ? digits[i] - '0' : (digits[i] | 0x20) - 'a' + 10;
		bad |= d < 0 || d >= base || (digits[i] > '9' && (digits[i] | 0x20) < 'a');
	}
	char text[sizeof digits + 1];
	snprintf(text, sizeof text, "%s%s", *s == '-' ? "-" : "", digits);
	errno = 0;
	long long v = strtoll(text, NULL, base);
	if (bad || !n || errno || *p) {
		_cleanup_free_ char *q = go_quote(s, strlen(s));
		return err_set(e, CODE_UNKNOWN, "strconv.%s: parsing %s: %s", fn, q,
			       bad || !n ? "invalid syntax" : "value out of range");
	}
	*ret = v;
	return 0;
}

static int set_limit(struct ctx *c, const char *v, void *at)
{
	int64_t n;
	if (parse_int(v, 10, "Atoi", &n, c->e) < 0) return err_wrap(c->e, "invalid layer limit %s", v);
	if (n <= 0) return err_set(c->e, CODE_UNKNOWN, "invalid layer limit %s", v);
	*(int64_t *)at = n;
	return 0;
}

static int set_int(struct ctx *c, const char *v, void *at) { return parse_int(v, 0, "ParseInt", at, c->e); }

static int set_str(struct ctx *c, const char *v, void *at)
{
	*(const char **)at = keep(c, v);
	return 0;
}

static int set_true(struct ctx *c, const char *v, void *at)
{
	if (strcmp(v, "true") == 0) *(bool *)at = true;
	return 0;
}

static int set_is_true(struct ctx *c, const char *v, void *at)
{
	*(bool *)at = strcmp(v, "true") == 0;
	return 0;
}

static int set_bool(struct ctx *c, const char *v, void *at)
{
	if (str_bool(v, at)) return 0;
	_cleanup_free_ char *q = go_quote(v, strlen(v));
	return err_set(c->e, CODE_UNKNOWN,
		       "invalid value for local.metadatatransfer %s: strconv.ParseBool: parsing %s: invalid syntax", q, q);
}

static int set_checksum(struct ctx *c, const char *v, void *at)
{
	if (spec_digest_check(v, c->e) < 0)
		return c->s->scheme == LLB_IMAGE ? err_wrap(c->e, "invalid image checksum %s", v) : -1;
	return set_str(c, v, at);
}

static int set_mode(struct ctx *c, const char *v, void *at)
{
	static const char *const names[] = {"default", "pull", "local"};
	enum llb_resolve_mode *mode = at;
	*mode = LLB_RESOLVE_DEFAULT;
	if (!*v) return 0;
	for (size_t i = 0; i < array_len(names); i++) {
		if (strcmp(v, names[i]) != 0) continue;
		*mode = (enum llb_resolve_mode)i;
		return 0;
	}
	return err_set(c->e, CODE_UNKNOWN, "invalid resolvemode: %s", v);
}

static int set_record(struct ctx *c, const char *v, void *at)
{
	static const char *const names[] = {"regular", "internal", "frontend"};
	for (size_t i = 0; i < array_len(names); i++) {
		if (strcmp(*v ? v : "regular", names[i]) != 0) continue;
		*(const char **)at = names[i];
		return 0;
	}
	return err_set(c->e, CODE_UNKNOWN, "invalid record type %s", v);
}

/* The last component, "download" when there is no good one. */
static int set_file_name(struct ctx *c, const char *v, void *at)
{
	size_t n = strlen(v);
	while (n && strchr(" \t\r\n\v\f", v[n - 1])) n--;
	while (n && strchr(" \t\r\n\v\f", *v)) v++, n--;
	while (n && v[n - 1] == '/') n--;
	_cleanup_free_ char *clean = xstrndup(v, n);
	const char *name = path_base(clean);
	bool bad = !*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
	for (const uint8_t *p = (const uint8_t *)name; *p; p++) bad |= *p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] < 0xa0);
	return set_str(c, bad ? "download" : name, at);
}

static int set_strs(struct ctx *c, const char *v, void *at)
{
	struct llb_strs s = {0};
	json_error_t je;
	json_t *j = json_loads(v, JSON_DECODE_ANY, &je);
	if (!j) return err_set(c->e, CODE_UNKNOWN, "invalid list of strings in a local source: %s", je.text);
	bool good = json_is_array(j) || json_is_null(j);
	if (json_is_array(j)) {
		s.set = true;
		s.v = arena_alloc(c->a, (json_array_size(j) + 1) * sizeof *s.v);
		c->full |= !s.v;
		for (; s.v && good && s.n < json_array_size(j); s.n++) {
			const json_t *x = json_array_get(j, s.n);
			good = json_is_string(x) || json_is_null(x);
			s.v[s.n] = keep(c, good && json_is_string(x) ? json_string_value(x) : "");
		}
	}
	json_decref(j);
	if (!good) return err_set(c->e, CODE_UNKNOWN, "invalid list of strings in a local source: %s", v);
	*(struct llb_strs *)at = s;
	return 0;
}

static int set_differ(struct ctx *c, const char *v, void *at)
{
	if (strcmp(v, "none") == 0) *(bool *)at = true;
	if (strcmp(v, "metadata") == 0 || !*v) *(bool *)at = false;
	return 0;
}

/* "prefix:id": the client keeps this folder under "prefix-name". */
static int set_local_session(struct ctx *c, const char *v, void *at)
{
	const char *colon = strchr(v, ':');
	if (colon) {
		c->s->local.name = arena_printf(c->a, "%.*s-%s", (int)(colon - v), v, c->s->local.name);
		if (!c->s->local.name) return no_room(c->e);
	}
	return set_str(c, colon ? colon + 1 : v, at);
}

static int set_remote(struct ctx *c, const char *v, void *at)
{
	_cleanup_free_ char *url = spec_git_is_transport(v) ? xstrdup(v) : xasprintf("https://%s", v);
	return set_str(c, url, at);
}

struct attr {
	const char *key;
	int (*set)(struct ctx *c, const char *v, void *at);
	size_t offset;
	size_t given; /* offset of a bool that tells that the attribute was there; 0: none */
};
#define AT(member) offsetof(struct llb_source, member)

static const struct attr image_attrs[] = {
	{"image.resolvemode", set_mode, AT(image.mode)},
	{"image.recordtype", set_record, AT(image.record_type)},
	{"image.layerlimit", set_limit, AT(image.layer_limit)},
	{"image.checksum", set_checksum, AT(image.checksum)},
	{NULL},
};
static const struct attr oci_attrs[] = {
	{"oci.session", set_str, AT(image.session)},
	{"oci.store", set_str, AT(image.store)},
	{"oci.layerlimit", set_limit, AT(image.layer_limit)},
	{NULL},
};
static const struct attr blob_attrs[] = {
	{"http.filename", set_file_name, AT(blob.filename)},
	{"http.perm", set_int, AT(blob.perm)},
	{"http.uid", set_int, AT(blob.uid)},
	{"http.gid", set_int, AT(blob.gid)},
	{"image.recordtype", set_record, AT(blob.record_type)},
	{"oci.session", set_str, AT(blob.session)},
	{"oci.store", set_str, AT(blob.store)},
	{NULL},
};
static const struct attr git_attrs[] = {
	{"git.keepgitdir", set_true, AT(git.keep_git_dir)},
	{"git.fullurl", set_remote, AT(git.remote)},
	{"git.authheadersecret", set_str, AT(git.auth_header_secret)},
	{"git.authtokensecret", set_str, AT(git.auth_token_secret)},
	{"git.knownsshhosts", set_str, AT(git.known_ssh_hosts)},
	{"git.mountsshsock", set_str, AT(git.mount_ssh_sock)},
	{"git.checksum", set_str, AT(git.checksum)},
	{"git.skipsubmodules", set_true, AT(git.skip_submodules)},
	{"git.mtime", set_str, AT(git.mtime)},
	{"git.fetchbycommit", set_is_true, AT(git.fetch_by_commit)},
	{"git.bundle", set_str, AT(git.bundle)},
	{"git.checkoutbundle", set_is_true, AT(git.checkout_bundle)},
	{"git.sig.pubkey", set_str, AT(git.sig_pubkey), AT(git.verify)},
	{"git.sig.rejectexpired", set_is_true, AT(git.sig_reject_expired), AT(git.verify)},
	{"git.sig.requiresignedtag", set_is_true, AT(git.sig_require_signed_tag), AT(git.verify)},
	{"git.sig.ignoresignedtag", set_is_true, AT(git.sig_ignore_signed_tag), AT(git.verify)},
	{"oci.session", set_str, AT(git.bundle_session)},
	{"oci.store", set_str, AT(git.bundle_store)},
	{NULL},
};
static const struct attr http_attrs[] = {
	{"http.checksum", set_checksum, AT(http.checksum)},
	{"http.filename", set_str, AT(http.filename)},
	{"http.perm", set_int, AT(http.perm)},
	{"http.uid", set_int, AT(http.uid)},
	{"http.gid", set_int, AT(http.gid)},
	{"http.authheadersecret", set_str, AT(http.auth_header_secret)},
	{"http.sig.pubkey", set_str, AT(http.sig_pubkey)},
	{"http.sig.signature", set_str, AT(http.sig_signature)},
	{"http.header.accept", set_str, AT(http.accept), AT(http.has_accept)},
	{"http.header.user-agent", set_str, AT(http.user_agent), AT(http.has_user_agent)},
	{NULL},
};
static const struct attr local_attrs[] = {
	{"local.session", set_local_session, AT(local.session)},
	{"local.includepattern", set_strs, AT(local.include_patterns)},
	{"local.excludepatterns", set_strs, AT(local.exclude_patterns)},
	{"local.followpaths", set_strs, AT(local.follow_paths)},
	{"local.sharedkeyhint", set_str, AT(local.shared_key_hint)},
	{"local.differ", set_differ, AT(local.differ_none)},
	{"local.metadatatransfer", set_bool, AT(local.metadata_only)},
	{"local.metadatatransferexclude", set_strs, AT(local.metadata_exceptions)},
	{NULL},
};

/* Header names are compared as Go canonicalises them; the other keys must be exact. */
static bool attr_is(const struct attr *row, const char *key)
{
	return str_starts(row->key, "http.header.") ? strcasecmp(row->key, key) == 0 : strcmp(row->key, key) == 0;
}

static int parse_attrs(struct ctx *c, const Pb__SourceOp *op, const struct attr *table)
{
	for (size_t i = 0; i < op->n_attrs; i++) {
		const char *key = op->attrs[i]->key, *value = op->attrs[i]->value;
		for (const struct attr *row = table; row->key; row++) {
			if (!attr_is(row, key)) continue;
			if (row->set(c, value ? value : "", (char *)c->s + row->offset) < 0) return -1;
			if (row->given) *(bool *)((char *)c->s + row->given) = true;
		}
	}
	return 0;
}

/* ---- identifiers ---- */

static int parse_ref(struct ctx *c, const char *s, struct llb_image_ref *ret)
{
	if (strstr(s, "://")) return err_set(c->e, CODE_UNKNOWN, "invalid reference");
	_cleanup_free_ char *url = xasprintf("dummy://%s", s);
	_cleanup_spec_url_ struct spec_url u = {0};
	if (spec_url_parse(url, &u, c->e) < 0) return -1;
	if (!*u.host) return err_set(c->e, CODE_UNKNOWN, "hostname required");
	size_t n = strcspn(u.path, ":@");
	const char *object = u.path + n + (u.path[n] == ':');
	if (!*object) return err_set(c->e, CODE_UNKNOWN, "object required");
	const char *at = strchr(object, '@');
	_cleanup_free_ char *path = xstrndup(u.path, n), *locator = path_join(u.host, path);
	_cleanup_free_ char *tag = xstrndup(object, at ? (size_t)(at - object) : strlen(object));
	*ret = (struct llb_image_ref){
		.text = arena_printf(c->a, "%s%s%s", locator, *object == '@' ? "" : ":", object),
		.locator = keep(c, locator),
		.tag = keep(c, tag),
		.digest = keep(c, at ? at + 1 : ""),
	};
	size_t host = strcspn(locator, "/");
	ret->host = arena_strndup(c->a, locator, host);
	return ret->text && ret->host ? 0 : no_room(c->e);
}

static int set_identifier(struct ctx *c, const char *scheme, const char *rest)
{
	c->s->identifier = arena_printf(c->a, "%s://%s", scheme, rest);
	return c->s->identifier ? 0 : no_room(c->e);
}

static int parse_image(struct ctx *c, const char *scheme, const char *rest, const Pb__SourceOp *op)
{
	c->s->image.platform = c->platform;
	c->s->image.record_type = "regular";
	c->s->image.checksum = c->s->image.session = c->s->image.store = "";
	if (parse_ref(c, rest, &c->s->image.ref) < 0) return -1;
	if (parse_attrs(c, op, c->s->scheme == LLB_IMAGE ? image_attrs : oci_attrs) < 0) return -1;
	return set_identifier(c, scheme, c->s->image.ref.text);
}

static int parse_blob(struct ctx *c, const char *scheme, const char *rest, const Pb__SourceOp *op)
{
	c->s->blob.record_type = "regular";
	c->s->blob.session = c->s->blob.store = c->s->blob.filename = "";
	if (parse_ref(c, rest, &c->s->blob.ref) < 0 || parse_attrs(c, op, blob_attrs) < 0) return -1;
	if (c->s->scheme == LLB_IMAGE_BLOB)
		c->s->blob.session = c->s->blob.store = "";
	else if (!*c->s->blob.store)
		return err_set(c->e, CODE_UNKNOWN, "oci-layout blob source requires store id");
	return set_identifier(c, scheme, c->s->blob.ref.text);
}

static bool is_commit(const char *s)
{
	size_t n = strlen(s);
	return (n == 40 || n == 64) && strspn(s, "0123456789abcdef") == n;
}

static int check_bundle(struct ctx *c)
{
	const char *raw = c->s->git.bundle, *sep = strstr(raw, "://");
	if (!sep) return err_set(c->e, CODE_UNKNOWN, "failed to parse git.bundle locator \"%s\": missing scheme", raw);
	if (!str_starts(raw, "docker-image+blob://") && !str_starts(raw, "oci-layout+blob://"))
		return err_set(c->e, CODE_UNKNOWN,
			       "git.bundle locator scheme \"%.*s\" is not supported; expected \"docker-image+blob\" or "
			       "\"oci-layout+blob\"",
			       (int)(sep - raw), raw);
	struct llb_image_ref ref;
	if (parse_ref(c, sep + 3, &ref) < 0) return err_wrap(c->e, "failed to parse git.bundle locator \"%s\"", raw);
	if (spec_digest_check(ref.digest, c->e) < 0)
		return err_wrap(c->e, "failed to parse git.bundle locator \"%s\": invalid digest", raw);
	if (!str_starts(ref.digest, "sha256:"))
		return err_set(c->e, CODE_UNKNOWN,
			       "git.bundle locator \"%s\": digest algorithm \"%.*s\" not supported, expected \"sha256\"", raw,
			       (int)strcspn(ref.digest, ":"), ref.digest);
	if (!*c->s->git.checksum) return err_set(c->e, CODE_UNKNOWN, "git.bundle requires git.checksum to be set");
	if (is_commit(c->s->git.ref) && !str_starts(c->s->git.ref, c->s->git.checksum))
		return err_set(c->e, CODE_UNKNOWN, "expected checksum to match %s, got %s", c->s->git.checksum, c->s->git.ref);
	return 0;
}

static int check_git(struct ctx *c)
{
	if (c->s->git.ref[0] == '-') return err_set(c->e, CODE_UNKNOWN, "invalid git ref \"%s\"", c->s->git.ref);
	if (*c->s->git.bundle && check_bundle(c) < 0) return -1;
	if (!c->s->git.checkout_bundle) return 0;
	if (c->s->git.keep_git_dir)
		return err_set(c->e, CODE_UNKNOWN, "git.checkoutbundle is incompatible with git.keepgitdir");
	if (*c->s->git.subdir) return err_set(c->e, CODE_UNKNOWN, "git.checkoutbundle is incompatible with git.subdir");
	return 0;
}

static int parse_git(struct ctx *c, const char *scheme, const char *rest, const Pb__SourceOp *op)
{
	struct llb_source *s = c->s;
	_cleanup_free_ char *url = spec_git_is_transport(rest) ? xstrdup(rest) : xasprintf("https://%s", rest);
	_cleanup_spec_git_url_ struct spec_git_url u = {0};
	if (spec_git_url_parse(url, &u, c->e) < 0) return -1;
	s->git.remote = keep(c, u.remote);
	s->git.ref = keep(c, u.has_opts ? u.ref : "");
	s->git.subdir = keep(c, u.has_opts ? u.subdir : "");
	s->git.checksum = s->git.auth_token_secret = s->git.auth_header_secret = s->git.known_ssh_hosts = "";
	s->git.mount_ssh_sock = s->git.mtime = s->git.bundle = s->git.bundle_session = s->git.bundle_store = s->git.sig_pubkey =
		"";
	if (parse_attrs(c, op, git_attrs) < 0 || check_git(c) < 0) return -1;
	/* The canonical form goes by the real remote: host and path, whatever the transport. */
	_cleanup_spec_git_url_ struct spec_git_url full = {0};
	_cleanup_free_ char *where = NULL;
	if (spec_git_url_parse(s->git.remote, &full, NULL) == 0) {
		_cleanup_free_ char *path = path_abs_in(full.path);
		where = xasprintf("%s%s", full.host, path);
	}
	bool frag = *s->git.ref || *s->git.subdir;
	_cleanup_free_ char *id = xasprintf("%s%s%s%s%s", where ? where : s->git.remote, frag ? "#" : "", s->git.ref,
					    *s->git.subdir ? ":" : "", s->git.subdir);
	return set_identifier(c, scheme, id);
}

static int parse_http(struct ctx *c, const char *scheme, const char *rest, const Pb__SourceOp *op)
{
	struct llb_source *s = c->s;
	if (set_identifier(c, scheme, rest) < 0) return -1;
	s->http.url = s->identifier;
	s->http.checksum = s->http.filename = s->http.auth_header_secret = s->http.accept = s->http.user_agent = "";
	s->http.sig_pubkey = s->http.sig_signature = "";
	if (parse_attrs(c, op, http_attrs) < 0) return -1;
	if (!*s->http.sig_pubkey != !*s->http.sig_signature)
		return err_set(c->e, CODE_UNKNOWN, "http signature verification requires both pubkey and signature");
	return 0;
}

static int parse_local(struct ctx *c, const char *scheme, const char *rest, const Pb__SourceOp *op)
{
	c->s->local.name = keep(c, rest);
	c->s->local.session = c->s->local.shared_key_hint = "";
	if (parse_attrs(c, op, local_attrs) < 0) return -1;
	return set_identifier(c, scheme, c->s->local.name);
}

int llb_source_parse(const Pb__SourceOp *op, const Pb__Platform *platform, struct arena *a, struct llb_source *ret,
		     struct err *e)
{
	static const struct {
		const char *name;
		enum llb_scheme scheme;
		int (*parse)(struct ctx *c, const char *scheme, const char *rest, const Pb__SourceOp *op);
	} schemes[] = {
		{"docker-image", LLB_IMAGE, parse_image},
		{"oci-layout", LLB_OCI_LAYOUT, parse_image},
		{"docker-image+blob", LLB_IMAGE_BLOB, parse_blob},
		{"oci-layout+blob", LLB_OCI_BLOB, parse_blob},
		{"git", LLB_GIT, parse_git},
		{"http", LLB_HTTP, parse_http},
		{"https", LLB_HTTP, parse_http},
		{"local", LLB_LOCAL, parse_local},
	};
	const char *id = op->identifier ? op->identifier : "", *sep = strstr(id, "://");
	if (!sep) return err_set(e, CODE_UNKNOWN, "failed to parse %s: invalid", id);
	_cleanup_free_ char *name = xstrndup(id, (size_t)(sep - id));
	for (size_t i = 0; i < array_len(schemes); i++) {
		if (strcmp(name, schemes[i].name) != 0) continue;
		struct llb_source s = {.scheme = schemes[i].scheme};
		struct ctx c = {.a = a, .s = &s, .platform = platform, .e = e};
		if (schemes[i].parse(&c, name, sep + 3, op) < 0) return -1;
		if (c.full) return no_room(e);
		*ret = s;
		return 0;
	}
	return err_set(e, CODE_UNKNOWN, "unknown scheme %s: not found", name);
}

/* ---- cache keys ---- */

static void add_digest(struct buf *out, const struct buf *json)
{
	char d[DIGEST_STR];
	digest_str_of(json->p, json->n, d);
	buf_adds(out, d);
}

void llb_source_image_key(const char *digest, const Pb__Platform *p, int64_t layer_limit, struct buf *out)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct json_w w = JSON_W(&b);
	json_obj(&w);
	json_kstr(&w, "Digest", digest);
	json_kstr(&w, "OS", p->os);
	json_kstr(&w, "Arch", p->architecture);
	json_kstr_omit(&w, "Variant", p->variant);
	json_kstr_omit(&w, "OSVersion", p->osversion);
	json_kstrs_omit(&w, "OSFeatures", (char *const *)p->osfeatures, p->n_osfeatures);
	json_kint_omit(&w, "Limit", layer_limit);
	json_obj_end(&w);
	add_digest(out, &b);
}

void llb_source_blob_key(const struct llb_source *s, struct buf *out)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct json_w w = JSON_W(&b);
	json_obj(&w);
	json_kstr(&w, "Digest", s->blob.ref.digest);
	json_kstr(&w, "Filename", s->blob.filename);
	json_kint(&w, "Perm", s->blob.perm);
	json_kint(&w, "UID", s->blob.uid);
	json_kint(&w, "GID", s->blob.gid);
	json_obj_end(&w);
	add_digest(out, &b);
}

static void json_header(struct json_w *w, bool given, const char *name, const char *value)
{
	if (!given) return;
	json_obj(w);
	json_kstr(w, "Name", name);
	json_kstr(w, "Value", value);
	json_obj_end(w);
}

void llb_source_http_key(const struct llb_source *s, const char *filename, const char *checksum, const char *last_modified,
			 struct buf *out)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct json_w w = JSON_W(&b);
	json_obj(&w);
	json_kstr(&w, "Filename", filename);
	json_kint(&w, "Perm", s->http.perm);
	json_kint(&w, "UID", s->http.uid);
	json_kint(&w, "GID", s->http.gid);
	json_kstr(&w, "Checksum", checksum);
	json_kstr_omit(&w, "LastModTime", last_modified);
	json_kstr_omit(&w, "AuthHeaderSecret", s->http.auth_header_secret);
	if (s->http.has_accept || s->http.has_user_agent) {
		json_key(&w, "Header");
		json_arr(&w);
		json_header(&w, s->http.has_accept, "Accept", s->http.accept);
		json_header(&w, s->http.has_user_agent, "User-Agent", s->http.user_agent);
		json_arr_end(&w);
	}
	json_obj_end(&w);
	add_digest(out, &b);
}

void llb_source_git_key(const struct llb_source *s, const char *commit, const char *full_ref, struct buf *out)
{
	buf_adds(out, commit);
	if (s->git.keep_git_dir) buf_addf(out, ".git%s%s", str_empty(full_ref) ? "" : "#", full_ref ? full_ref : "");
	if (*s->git.subdir) buf_addf(out, ":%s", s->git.subdir);
	if (s->git.skip_submodules) buf_adds(out, "(skip-submodules)");
	if (*s->git.mtime && strcmp(s->git.mtime, "checkout") != 0) buf_addf(out, "(mtime=%s)", s->git.mtime);
	if (s->git.checkout_bundle) buf_adds(out, "(bundle)");
}

static void json_strs(struct json_w *w, const char *key, const struct llb_strs *s)
{
	json_key(w, key);
	if (!s->set) {
		json_nil(w);
		return;
	}
	json_arr(w);
	for (size_t i = 0; i < s->n; i++) json_str(w, s->v[i]);
	json_arr_end(w);
}

void llb_source_local_key(const struct llb_source *s, const char *session, struct buf *out)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct json_w w = JSON_W(&b);
	json_obj(&w);
	json_kstr(&w, "SessionID", *s->local.session ? s->local.session : session);
	json_strs(&w, "IncludePatterns", &s->local.include_patterns);
	json_strs(&w, "ExcludePatterns", &s->local.exclude_patterns);
	json_strs(&w, "FollowPaths", &s->local.follow_paths);
	json_kbool_omit(&w, "MetadataTransfer", s->local.metadata_only);
	if (s->local.metadata_exceptions.n) json_strs(&w, "MetadataExceptions", &s->local.metadata_exceptions);
	json_obj_end(&w);
	buf_addf(out, "session:%s:", s->local.name);
	add_digest(out, &b);
}
