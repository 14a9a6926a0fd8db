/* The kinds of places, and one of them made ready for a job. */
#include "remote/internal.h"
#include "tar/tar.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct remote_kind *const kinds[] = {&remote_registry, &remote_local, &remote_s3, &remote_azblob, &remote_gha};

const struct remote_kind *remote_kind_find(const char *type)
{
	for (size_t i = 0; i < array_len(kinds); i++)
		if (!strcmp(kinds[i]->type, type)) return kinds[i];
	return NULL;
}

/* ---- attributes ---- */

const char *remote_attr(const struct remote_place *p, const char *key) { return strvec_env_get(&p->attrs, key); }

int remote_attr_bool(const struct remote_place *p, const char *key, bool *ret, struct err *e)
{
	const char *v = remote_attr(p, key);
	if (!v) return 0;
	if (str_bool(v, ret)) return 1;
	_cleanup_free_ char *q = go_quote(v, strlen(v));
	return err_set(e, CODE_UNKNOWN, "failed to parse %s: strconv.ParseBool: parsing %s: invalid syntax", key, q);
}

int remote_formats(struct remote_place *p, struct err *e)
{
	const char *c = remote_attr(p, "compression"), *level = remote_attr(p, "compression-level"),
		   *force = remote_attr(p, "force-compression");
	if (c && spec_compression_parse(c, &p->compression, e) < 0) return -1;
	if (p->compression == SPEC_ESTARGZ) return err_set(e, CODE_UNIMPLEMENTED, "compression=estargz is not supported yet");
	if (force && !*force)
		p->force = true;
	else if (remote_attr_bool(p, "force-compression", &p->force, e) < 0)
		return -1;
	if (level) {
		char *end;
		long v = strtol(level, &end, 10);
		if (!*level || *end)
			return err_set(e, CODE_UNKNOWN, "non-integer value %s specified for compression-level", level);
		p->level = (int)v;
	}
	if (remote_attr_bool(p, "oci-mediatypes", &p->oci, e) < 0) return -1;
	int r = remote_attr_bool(p, "image-manifest", &p->image_manifest, e);
	if (r == 0 && !p->oci) p->image_manifest = false;
	return r < 0 ? -1 : remote_manifest_check(p, e);
}

static void copy_attrs(struct strvec *dst, const struct remote_spec *s)
{
	for (size_t i = 0; i < s->n_attrs; i++) strvec_addf(dst, "%s=%s", s->attrs[i].key, s->attrs[i].value);
}

static int check(const struct remote_spec *s, bool import, struct err *e)
{
	const struct remote_kind *k = remote_kind_find(s->type);
	if (!k)
		return err_set(e, CODE_UNKNOWN, import ? "unknown cache importer: %s" : "unknown cache exporter: \"%s\"",
			       s->type);
	struct remote_place p = {
		.kind = k, .image_manifest = true, .oci = true, .compression = SPEC_GZIP, .level = TAR_LEVEL_DEFAULT};
	copy_attrs(&p.attrs, s);
	int r = k->init(&p, import, e);
	if (k->fini) k->fini(&p);
	spec_ref_fini(&p.ref);
	free(p.repo);
	strvec_fini(&p.attrs);
	return r < 0 ? err_wrap(e, "failed to configure %s cache %s", s->type, import ? "importer" : "exporter") : 0;
}

bool remote_is_inline(const struct remote_spec *s) { return !strcmp(s->type, "inline"); }
int remote_check_export(const struct remote_spec *s, struct err *e) { return remote_is_inline(s) ? 0 : check(s, false, e); }
int remote_check_import(const struct remote_spec *s, struct err *e) { return check(s, true, e); }

static char *spec_text(const struct remote_spec *s)
{
	_cleanup_strvec_ struct strvec v = {0};
	copy_attrs(&v, s);
	strvec_sort(&v);
	strvec_add(&v, s->type);
	return strvec_join(&v, "\n");
}

bool remote_spec_equal(const struct remote_spec *a, const struct remote_spec *b)
{
	_cleanup_free_ char *ta = spec_text(a), *tb = spec_text(b);
	return !strcmp(ta, tb);
}

static const char *attr_of(const struct remote_spec *s, const char *key)
{
	for (size_t i = 0; i < s->n_attrs; i++)
		if (!strcmp(s->attrs[i].key, key)) return s->attrs[i].value;
	return NULL;
}

char *remote_import_name(const struct remote_spec *s)
{
	const char *ref = attr_of(s, "ref");
	if (!strcmp(s->type, "registry") && !str_empty(ref)) return xstrdup(ref);
	_cleanup_free_ char *text = spec_text(s);
	struct digest d = digest_of(text, strlen(text));
	uint64_t n;
	memcpy(&n, d.b, sizeof n);
	return xasprintf("%s:%ju", s->type, (uintmax_t)n);
}

const char *remote_export_name(const struct remote_spec *s)
{
	const struct remote_kind *k = remote_kind_find(s->type);
	return k ? k->vertex : "exporting inline cache";
}

bool remote_ignore_error(const struct remote_spec *s)
{
	bool yes = false;
	const char *v = attr_of(s, "ignore-error");
	return v && str_bool(v, &yes) && yes;
}

/* ---- places ---- */

static void begin_io(struct remote_place *p, const struct ops_ids *ids)
{
	const char *sessions[OPS_SESSIONS_MAX];
	for (size_t i = 0; i < ids->n; i++) sessions[i] = ids->v[i];
	p->config = p->insecure ? reg_config_new_insecure(p->ref.domain) : reg_config_ref(p->env->reg_config);
	reg_io_init(&p->io, p->env->reg, p->config);
	ops_auth_init(&p->auth, p->env, sessions, ids->n);
	p->io.cancelled = &p->cancelled;
	ops_auth_use(&p->auth, &p->io);
	p->has_io = true;
}

static struct remote_place *place(const struct remote_kind *kind, struct ops_env *env)
{
	struct remote_place *p = xnew(struct remote_place);
	p->kind = kind;
	p->env = env;
	p->blobs = env->blobs;
	p->image_manifest = p->oci = true;
	p->compression = SPEC_GZIP;
	p->level = TAR_LEVEL_DEFAULT;
	return p;
}

struct remote_place *remote_place_new(const struct remote_kind *kind, struct ops_env *env, const struct strvec *attrs,
				      const struct ops_ids *ids, struct err *e)
{
	struct remote_place *p = place(kind, env);
	strvec_copy(&p->attrs, attrs->v, attrs->n);
	if (kind->init(p, false, e) < 0) {
		remote_place_free(p);
		return NULL;
	}
	begin_io(p, ids);
	if (kind != &remote_local) return p;
	const char *dir = remote_attr(p, "dest") ? remote_attr(p, "dest") : remote_attr(p, "src");
	ops_store_init(&p->store, env, ids, NULL, dir);
	free(p->store.name);
	p->store.name = xasprintf("local:%s", dir);
	p->has_store = true;
	return p;
}

struct remote_place *remote_place_repo(struct ops_env *env, const char *repo, const struct ops_ids *ids, struct err *e)
{
	struct remote_place *p = place(&remote_registry, env);
	if (spec_ref_parse(repo, &p->ref, e) < 0) {
		remote_place_free(p);
		return NULL;
	}
	begin_io(p, ids);
	return p;
}

void remote_place_free(struct remote_place *p)
{
	if (!p) return;
	if (p->kind->fini) p->kind->fini(p);
	if (p->has_io) {
		reg_io_fini(&p->io);
		ops_auth_fini(&p->auth);
		reg_config_unref(p->config);
	}
	if (p->has_store) ops_store_fini(&p->store);
	spec_ref_fini(&p->ref);
	strvec_fini(&p->attrs);
	free(p->repo);
	free(p);
}

void remote_store_cancel(struct remote_place *p);

void remote_place_cancel(struct remote_place *p)
{
	atomic_store(&p->cancelled, true);
	if (p->has_io) reg_io_cancel(&p->io);
	if (!p->has_store) return;
	ops_store_cancel(&p->store);
	remote_store_cancel(p);
}

void remote_place_admit(struct remote_place *p, struct loop_slot *slot, bool documents)
{
	list_init(&slot->link);
	if (p->kind != &remote_registry) {
		slot->granted(slot);
		return;
	}
	slot->group = ops_auth_group(&p->auth);
	loop_slot_want(reg_pools_get(p->env->reg_pools, p->ref.domain, documents), slot);
}

/* ---- for jobs ---- */

void remote_note(struct remote_place *p, bool end, const char *fmt, ...)
{
	va_list ap;
	if (!p->note) return;
	va_start(ap, fmt);
	_cleanup_free_ char *id = xvasprintf(fmt, ap);
	va_end(ap);
	p->note(p->note_arg, id, end);
}

int remote_fetch(struct remote_place *p, const struct cache_blob *b, struct err *e)
{
	if (blob_has(p->blobs, b->digest)) return 0;
	_cleanup_blob_ingest_ struct blob_ingest *in = NULL;
	if (blob_ingest_begin(p->blobs, b->digest, b->size, &in, e) < 0 || p->kind->fetch(p, b, in, e) < 0) return -1;
	return blob_ingest_commit(&in, NULL, NULL, e);
}
