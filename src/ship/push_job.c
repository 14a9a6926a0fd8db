/* What a push does in jobs: reading the documents that name its blobs, and sending one of these. */
#include "ship/push_job.h"
#include "spec/media.h"

#include <stdlib.h>

bool push_is_manifest(const char *media_type) { return spec_media_is_manifest(media_type) || spec_media_is_index(media_type); }

void push_job_plan(struct push_plan *p)
{
	struct err *e = &p->error;
	if (spec_ref_parse(p->name, &p->ref, e) < 0) return;
	if (p->by_digest && p->ref.tag) {
		err_set(e, CODE_UNKNOWN, "can't push tagged ref %s by digest", p->name);
		return;
	}
	if (!p->by_digest) spec_ref_tag_name_only(&p->ref);
	spec_ref_copy(&p->bare, &p->ref);
	spec_ref_set_tag(&p->bare, NULL, NULL);
	ship_blobs_walk(p->blobs, p->root, &p->what, e);
}

void push_plan_fini(struct push_plan *p)
{
	spec_ref_fini(&p->ref);
	spec_ref_fini(&p->bare);
	ship_blobs_fini(&p->what);
	err_fini(&p->error);
	*p = (struct push_plan){0};
}

static void send_blob(struct push_one *o, struct err *e)
{
	_cleanup_close_ int fd = blob_open(o->blobs, o->digest, e);
	if (fd < 0) return;
	struct reg_body body = reg_body_fd(&fd);
	struct reg_desc d = {(char *)o->digest, (char *)o->media_type, o->size};
	enum reg_pushed how;
	reg_push_blob(o->io, o->ref, &d, &body, o->mount_from, &how, e);
}

static void send_manifest(struct push_one *o, struct err *e)
{
	_cleanup_free_ uint8_t *p = NULL;
	size_t n;
	enum reg_pushed how;
	if (blob_read(o->blobs, o->digest, REG_MANIFEST_MAX, &p, &n, e) < 0) return;
	reg_push_manifest(o->io, o->ref, o->media_type, p, n, &how, NULL, e);
}

void push_job_one(struct push_one *o)
{
	if (o->manifest)
		send_manifest(o, &o->error);
	else
		send_blob(o, &o->error);
}
