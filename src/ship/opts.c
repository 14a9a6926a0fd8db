/* One row an attribute: its name, which exporters know it, where it goes. */
#include "ship/annotations.h"
#include "ship/opts.h"

#include <stdio.h>
#include <string.h>

enum { K_IMAGE = 1 << SHIP_IMAGE, K_OCI = 1 << SHIP_OCI, K_DOCKER = 1 << SHIP_DOCKER, K_LOCAL = 1 << SHIP_LOCAL, K_TAR = 1 << SHIP_TAR };
enum { K_IMAGES = K_IMAGE | K_OCI | K_DOCKER, K_ALL = K_IMAGES | K_LOCAL | K_TAR };
enum row_type { R_STR, R_BOOL, R_INT, R_IGNORED };

struct row {
	const char *name;
	int kinds;
	enum row_type type;
	size_t offset, has_offset; /* has_offset 0: none */
};
#define AT(m) offsetof(struct ship_opts, m)
static const struct row rows[] = {
	{"name", K_IMAGES, R_STR, AT(name), 0},
	{"push", K_IMAGE, R_BOOL, AT(push), 0},
	{"push-by-digest", K_IMAGE, R_BOOL, AT(push_by_digest), 0},
	{"registry.insecure", K_IMAGE, R_BOOL, AT(insecure), 0},
	{"store", K_IMAGE, R_IGNORED, 0, 0},  /* no image store: as BuildKit's OCI worker */
	{"unpack", K_IMAGE, R_IGNORED, 0, 0},
	{"dangling-name-prefix", K_IMAGE, R_STR, AT(dangling_prefix), 0},
	{"danging-name-empty-only", K_IMAGE, R_IGNORED, 0, 0},
	{"name-canonical", K_IMAGE, R_BOOL, AT(name_canonical), 0},
	{"unsafe-internal-store-allow-incomplete", K_IMAGE, R_IGNORED, 0, 0},
	{"oci-mediatypes", K_IMAGES, R_BOOL, AT(oci_types), AT(has_oci_types)},
	{"oci-artifact", K_IMAGES, R_BOOL, AT(oci_artifact), AT(has_oci_artifact)},
	{"attestation-inline", K_IMAGES, R_BOOL, AT(attest_inline), 0},
	{"prefer-nondist-layers", K_IMAGES, R_BOOL, AT(prefer_nondist), 0},
	{"force-compression", K_IMAGES, R_BOOL, AT(force_compression), 0},
	{"compression-level", K_IMAGES, R_INT, AT(level), 0},
	{"rewrite-timestamp", K_IMAGES, R_BOOL, AT(rewrite_timestamp), 0},
	{"tar", K_OCI | K_DOCKER, R_BOOL, AT(tar), 0},
	{"platform-split", K_LOCAL | K_TAR, R_BOOL, AT(split), AT(has_split)},
	{"attestation-prefix", K_LOCAL | K_TAR, R_STR, AT(attest_prefix), 0},
};

static int parse_epoch(const char *v, struct ship_opts *o, struct err *e)
{
	char *end;
	long long s = strtoll(v, &end, 10);
	o->epoch_given = true;
	if (!*v) return 0;
	if (*end) return err_set(e, CODE_UNKNOWN, "invalid source-date-epoch: %s: strconv.ParseInt: parsing \"%s\": invalid syntax", v, v);
	o->has_epoch = true;
	o->epoch = (struct timespec){s, 0};
	return 0;
}

static int set_row(const struct row *r, const char *v, struct ship_opts *o, struct err *e)
{
	char *end;
	char *at = (char *)o + r->offset;
	if (r->has_offset) *((bool *)((char *)o + r->has_offset)) = true;
	switch (r->type) {
	case R_STR: *(const char **)at = v; break;
	case R_BOOL:
		if (!*v)
			*(bool *)at = true;
		else if (!str_bool(v, (bool *)at))
			return err_set(e, CODE_UNKNOWN, "non-bool value specified for %s", r->name);
		break;
	case R_INT:
		*(int *)at = (int)strtol(v, &end, 10);
		if (*end || !*v) return err_set(e, CODE_UNKNOWN, "non-int value %s specified for %s", v, r->name);
		break;
	case R_IGNORED: break;
	}
	return 0;
}

/* 1: it was one of these. */
static int set_special(const struct ship_kv *kv, struct ship_opts *o, struct err *e)
{
	bool image = o->kind <= SHIP_DOCKER;
	if (!strcmp(kv->key, "source-date-epoch")) return parse_epoch(kv->value, o, e) < 0 ? -1 : 1;
	if (image && !strcmp(kv->key, "compression")) return spec_compression_parse(kv->value, &o->compression, e) < 0 ? -1 : 1;
	if (image && str_starts(kv->key, "annotation")) {
		struct ship_annotations checked = {0};
		int is = ship_annotation_add(&checked, kv->key, kv->value, strlen(kv->value), e);
		ship_annotations_fini(&checked);
		if (is > 0) vec_push(&o->annotations, *kv);
		return is;
	}
	if (o->kind == SHIP_LOCAL && !strcmp(kv->key, "mode")) {
		o->delete_mode = !strcmp(kv->value, "delete");
		if (!o->delete_mode && strcmp(kv->value, "copy") && *kv->value)
			return err_set(e, CODE_UNKNOWN, "invalid local exporter mode \"%s\"", kv->value);
		return 1;
	}
	return 0;
}

static int set(const struct ship_kv *kv, struct ship_opts *o, struct err *e)
{
	int r = set_special(kv, o, e);
	if (r != 0) return r < 0 ? -1 : 0;
	for (size_t i = 0; i < array_len(rows); i++)
		if (rows[i].kinds & (1 << o->kind) && !strcmp(rows[i].name, kv->key)) return set_row(&rows[i], kv->value, o, e);
	vec_push(&o->rest, *kv);
	return 0;
}

int ship_opts_parse(const char *type, const struct ship_kv *attrs, size_t n, struct ship_opts *ret, struct err *e)
{
	static const char *const kinds[] = {"image", "oci", "docker", "local", "tar"};
	struct ship_opts o = {.compression = SPEC_GZIP, .level = TAR_LEVEL_DEFAULT, .tar = true, .oci_types = true};
	size_t k = 0;
	while (k < array_len(kinds) && strcmp(kinds[k], type)) k++;
	if (k == array_len(kinds)) return err_set(e, CODE_UNKNOWN, "exporter \"%s\" could not be found", type);
	o.kind = (enum ship_kind)k;
	for (size_t i = 0; i < n; i++)
		if (set(&attrs[i], &o, e) < 0) {
			ship_opts_fini(&o);
			return -1;
		}
	if (!o.has_oci_artifact) o.oci_artifact = o.oci_types;
	if (o.kind == SHIP_IMAGE) o.attest_inline = true;
	if (o.oci_artifact && !o.oci_types) {
		ship_opts_fini(&o);
		return err_set(e, CODE_UNKNOWN, "exporter option \"oci-artifact=true\" conflicts with \"oci-mediatypes=false\"");
	}
	if (o.compression == SPEC_ESTARGZ) {
		ship_opts_fini(&o);
		return err_set(e, CODE_UNIMPLEMENTED, "compression=estargz is not supported yet");
	}
	*ret = o;
	return 0;
}

void ship_opts_fini(struct ship_opts *o)
{
	vec_fini(&o->annotations);
	vec_fini(&o->rest);
}

int ship_check_exporter(const char *type, const struct ship_kv *attrs, size_t n, struct err *e)
{
	struct ship_opts o;
	if (ship_opts_parse(type, attrs, n, &o, e) < 0) return -1;
	ship_opts_fini(&o);
	return 0;
}

const char *ship_vertex_name(const char *type)
{
	return !strcmp(type, "image")	 ? "exporting to image"
	       : !strcmp(type, "oci")	 ? "exporting to oci image format"
	       : !strcmp(type, "docker") ? "exporting to docker image format"
	       : !strcmp(type, "local")	 ? "exporting to client directory"
					 : "exporting to client tarball";
}
