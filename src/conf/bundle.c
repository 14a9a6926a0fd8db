/* The tree of the TOML text is changed in place and written again: keys in the order of their names, as go-toml writes a map.
 */
#include "conf/bundle.h"
#include "conf/internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>

enum { TEXT_MAX = 4 << 20, CERT_MAX = 1 << 20, FILES_MAX = 1000 };

void conf_bundle_fini(struct conf_bundle *b)
{
	for (size_t i = 0; i < b->files.n; i++) {
		free(b->files.v[i].path);
		free(b->files.v[i].data);
	}
	vec_fini(&b->files);
}

/* ---- files ---- */

struct bundler {
	struct conf_bundle *to;
	const char *folder;
};

static const struct conf_bundle_file *find_file(const struct conf_bundle *b, const char *path)
{
	for (size_t i = 0; i < b->files.n; i++)
		if (!strcmp(b->files.v[i].path, path)) return &b->files.v[i];
	return NULL;
}

/* "localhost:5000" -> "localhost_5000" */
static char *folder_of(const char *registry)
{
	struct buf b = BUF_INIT;
	for (bool bad = false; *registry; registry++) {
		bool ok = isalnum((unsigned char)*registry) || *registry == '.' || *registry == '-';
		if (ok || !bad) buf_addc(&b, ok ? *registry : '_');
		bad = !ok;
	}
	return buf_take_str(&b);
}

static char *free_path(const struct bundler *u, const char *registry, const char *source, const void *data, size_t n)
{
	_cleanup_free_ char *folder = folder_of(registry);
	for (unsigned i = 1;; i++) {
		char *path = i == 1 ? xasprintf("certs/%s/%s", folder, path_base(source))
				    : xasprintf("certs/%s/%u-%s", folder, i, path_base(source));
		const struct conf_bundle_file *f = find_file(u->to, path);
		if (!f || (f->n == n && !memcmp(f->data, data, n))) return path;
		free(path);
	}
}

/* Take the file along that the string names, and let the string name it where it will be. */
static int move_file(struct bundler *u, const char *registry, const char *what, struct toml_node *t, struct err *e)
{
	uint8_t *data;
	size_t n;
	if (t->kind != TOML_STR || !t->str_len) return 0;
	if (u->to->files.n >= FILES_MAX)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "more than %d certificates and keys", FILES_MAX);
	if (path_read_file(AT_FDCWD, t->str, CERT_MAX, &data, &n, e) < 0) return err_wrap(e, "failed to read %s file", what);
	char *path = free_path(u, registry, t->str, data, n);
	free(t->str);
	t->str = xasprintf("%s/%s", u->folder, path);
	t->str_len = strlen(t->str);
	if (find_file(u->to, path)) {
		free(path);
		free(data);
		return 0;
	}
	struct conf_bundle_file *f = vec_add(&u->to->files);
	f->path = path;
	f->data = data;
	f->n = n;
	return 0;
}

static bool named(const struct toml_node *t, const char *key) { return t->key && !strcasecmp(t->key, key); }

static int move_pair(struct bundler *u, const char *registry, struct toml_node *pair, struct err *e)
{
	for (struct toml_node *t = pair->kids; t; t = t->next) {
		if (named(t, "key") && move_file(u, registry, "key", t, e) < 0) return -1;
		if (named(t, "cert") && move_file(u, registry, "cert", t, e) < 0) return -1;
	}
	return 0;
}

/* The table of a registry or of one of its mirrors. */
static int move_files(struct bundler *u, const char *registry, struct toml_node *table, struct err *e)
{
	for (struct toml_node *t = table->kids; t; t = t->next) {
		if (named(t, "credentials") && move_file(u, registry, "credentials", t, e) < 0) return -1;
		if (named(t, "ca") && move_file(u, registry, "CA", t, e) < 0) return -1;
		if (t->kind != TOML_ARRAY) continue;
		for (struct toml_node *k = t->kids; k; k = k->next) {
			if (named(t, "ca") && move_file(u, registry, "CA", k, e) < 0) return -1;
			if (named(t, "keypair") && move_pair(u, registry, k, e) < 0) return -1;
			if (named(t, "mirror") && move_files(u, registry, k, e) < 0) return -1;
		}
	}
	return 0;
}

static int move_all(struct bundler *u, struct toml_node *root, struct err *e)
{
	for (struct toml_node *t = root->kids; t; t = t->next)
		for (struct toml_node *r = named(t, "registry") ? t->kids : NULL; r; r = r->next)
			if (r->kind == TOML_TABLE && move_files(u, r->key, r, e) < 0) return -1;
	return 0;
}

/* ---- the text ---- */

static void put_string(const char *s, size_t n, struct buf *b)
{
	bool literal = true;
	for (size_t i = 0; i < n; i++) literal &= s[i] != '\'' && (unsigned char)s[i] >= 0x20 && s[i] != 0x7f;
	if (literal) {
		buf_addf(b, "'%.*s'", (int)n, s);
		return;
	}
	buf_addc(b, '"');
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];
		if (c == '"' || c == '\\')
			buf_addf(b, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			buf_addf(b, "\\u%04x", c);
		else
			buf_addc(b, (char)c);
	}
	buf_addc(b, '"');
}

static void put_key(const struct toml_node *t, struct buf *b)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
	if (t->key_len && strspn(t->key, plain) == t->key_len)
		buf_adds(b, t->key);
	else
		put_string(t->key, t->key_len, b);
}

static void put_inline(const struct toml_node *t, struct buf *b)
{
	bool table = t->kind == TOML_TABLE;
	switch (t->kind) {
	case TOML_STR: put_string(t->str, t->str_len, b); return;
	case TOML_INT: buf_addf(b, "%lld", (long long)t->num); return;
	case TOML_BOOL: buf_adds(b, t->num ? "true" : "false"); return;
	case TOML_OTHER: buf_add(b, t->str, t->str_len); return;
	case TOML_ARRAY:
	case TOML_TABLE: break;
	}
	buf_adds(b, table ? "{ " : "[");
	for (const struct toml_node *k = t->kids; k; k = k->next) {
		if (table) {
			put_key(k, b);
			buf_adds(b, " = ");
		}
		put_inline(k, b);
		if (k->next) buf_adds(b, ", ");
	}
	buf_adds(b, table ? " }" : "]");
}

static bool is_tables(const struct toml_node *t)
{
	if (t->kind != TOML_ARRAY || !t->kids) return false;
	for (const struct toml_node *k = t->kids; k; k = k->next)
		if (k->kind != TOML_TABLE) return false;
	return true;
}

static int by_key(const void *a, const void *b)
{
	return strcmp((*(struct toml_node *const *)a)->key, (*(struct toml_node *const *)b)->key);
}

struct sorted {
	VEC(struct toml_node *) v;
};

static struct sorted sort_kids(const struct toml_node *t)
{
	struct sorted s = {0};
	for (struct toml_node *k = t->kids; k; k = k->next) vec_push(&s.v, k);
	if (s.v.n) qsort(s.v.v, s.v.n, sizeof *s.v.v, by_key);
	return s;
}

/* path: of t, as it stands in headers; "" for the whole. */
static void put_table(const struct toml_node *t, const char *path, struct buf *b)
{
	struct sorted kids = sort_kids(t);
	for (size_t i = 0; i < kids.v.n; i++) {
		const struct toml_node *k = kids.v.v[i];
		if (k->kind == TOML_TABLE || is_tables(k)) continue;
		put_key(k, b);
		buf_adds(b, " = ");
		put_inline(k, b);
		buf_addc(b, '\n');
	}
	for (size_t i = 0; i < kids.v.n; i++) {
		const struct toml_node *k = kids.v.v[i];
		struct buf own = BUF_INIT;
		if (k->kind != TOML_TABLE && !is_tables(k)) continue;
		if (*path) buf_addf(&own, "%s.", path);
		put_key(k, &own);
		if (k->kind == TOML_TABLE) {
			buf_addf(b, "\n[%s]\n", buf_str(&own));
			put_table(k, buf_str(&own), b);
		}
		for (const struct toml_node *element = k->kind == TOML_TABLE ? NULL : k->kids; element;
		     element = element->next) {
			buf_addf(b, "\n[[%s]]\n", buf_str(&own));
			put_table(element, buf_str(&own), b);
		}
		buf_fini(&own);
	}
	vec_fini(&kids.v);
}

/* ---- all ---- */

static int check(const char *path, struct conf_bundle *b, struct err *e)
{
	_cleanup_conf_report_ struct conf_report report = {0};
	_cleanup_conf_ struct conf *c = NULL;
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return err_set(e, CODE_NOT_FOUND, "buildkit configuration file not found: %s", path);
	int rv = conf_load(path, &c, &report);
	for (size_t i = 0; i < report.v.n; i++)
		if (report.v.v[i].level == CONF_ERROR)
			return err_set(e, CODE_INVALID_ARGUMENT, "failed to parse config: %s", report.v.v[i].text);
	if (rv < 0 || !c) return err_set(e, CODE_INVALID_ARGUMENT, "failed to load buildkit configuration file: %s", path);
	b->network_host = strvec_find(&c->entitlements, "network.host") >= 0;
	return 0;
}

int conf_bundle_load(const char *path, const char *folder, struct conf_bundle *ret, struct err *e)
{
	_cleanup_conf_bundle_ struct conf_bundle b = {0};
	_cleanup_free_ uint8_t *text = NULL;
	_cleanup_free_ char *msg = NULL;
	struct bundler u = {.to = &b, .folder = folder};
	struct buf out = BUF_INIT;
	unsigned line, column;
	size_t n;
	if (check(path, &b, e) < 0 || path_read_file(AT_FDCWD, path, TEXT_MAX, &text, &n, e) < 0) return -1;
	struct toml_node *root = toml_parse_text((const char *)text, n, &msg, &line, &column);
	if (!root) return err_set(e, CODE_INVALID_ARGUMENT, "%s:%u:%u: %s", path, line, column, msg);
	int rv = move_all(&u, root, e);
	if (rv == 0) put_table(root, "", &out);
	toml_free(root);
	if (rv < 0) return -1;
	struct conf_bundle_file *f = vec_add(&b.files);
	f->path = xstrdup("buildkitd.toml");
	f->n = out.n;
	f->data = buf_take_str(&out);
	*ret = b;
	b = (struct conf_bundle){0};
	return 0;
}
