/* Attestations of a run: copies of the request, their references held, the daemon's own contents asked for when the layers are
 * there. Reading and writing them is the jobs' (attest_job.c). */
#include "ship/internal.h"

#include <string.h>

static const struct ship_meta *meta_of(const struct ship_attest *a, const char *key)
{
	for (size_t i = 0; i < a->n_meta; i++)
		if (!strcmp(a->meta[i].key, key)) return &a->meta[i];
	return NULL;
}

static char *meta_text(const struct ship_attest *a, const char *key)
{
	const struct ship_meta *m = meta_of(a, key);
	return m ? xstrndup(m->data ? m->data : "", m->len) : NULL;
}

static void copy_one(struct ship_run *r, const struct ship_attest *a)
{
	struct ship_att *t = xnew(struct ship_att);
	_cleanup_free_ char *inline_only = meta_text(a, "inline-only");
	t->snap = a->snap ? snap_ref(a->snap) : NULL;
	t->content = a->content;
	t->content_arg = a->content_arg;
	t->in = (struct attest_in){.key = xstrdup(a->key),
				   .bundle = a->bundle,
				   .path = xstrdup(a->path ? a->path : ""),
				   .predicate_type = xstrdup(a->predicate_type ? a->predicate_type : ""),
				   .inline_only = str_eq(inline_only, "true"),
				   .sbom_core = meta_text(a, "sbom-core")};
	for (size_t i = 0; i < a->n_subjects; i++) {
		struct attest_subject s = {a->subjects[i].raw, xstrdup(a->subjects[i].name), xstrdup(a->subjects[i].digest)};
		vec_push(&t->in.subjects, s);
	}
	if (t->snap)
		t->in.view = snap_view_new(t->snap);
	else if (a->empty_ref)
		t->in.view = snap_view_empty(r->req.env->snaps);
	vec_push(&r->atts, t);
	vec_push(&r->att_in, &t->in);
}

void ship_attests_copy(struct ship_run *r, const struct ship_req *req)
{
	for (size_t i = 0; i < req->n_attests; i++) copy_one(r, &req->attests[i]);
}

void ship_attests_fini(struct ship_run *r)
{
	for (size_t i = 0; i < r->atts.n; i++) {
		struct ship_att *t = r->atts.v[i];
		snap_view_free(t->in.view);
		attest_in_fini(&t->in);
		snap_unref(t->snap);
		free(t);
	}
	vec_fini(&r->atts);
	vec_fini(&r->att_in);
}

int ship_attests_content(struct ship_run *r, struct err *e)
{
	for (size_t i = 0; i < r->atts.n; i++) {
		struct ship_att *t = r->atts.v[i];
		if (!t->content || t->in.has_content) continue;
		if (t->content(t->content_arg, &t->in.content, e) < 0) return -1;
		t->in.has_content = true;
	}
	return 0;
}

bool ship_attests_any(const struct ship_run *r, bool skip_inline)
{
	for (size_t i = 0; i < r->atts.n; i++)
		if (!skip_inline || !r->atts.v[i]->in.inline_only) return true;
	return false;
}

/* ---- their references' bytes ---- */

static void filled(void *arg, const struct err *e)
{
	struct ship_run *r = arg;
	r->fill = NULL;
	if (e) {
		struct err copy = ERR_INIT;
		err_copy(&copy, e);
		ship_end(r, &copy);
		return;
	}
	r->attests_filled(r);
}

void ship_attests_fill(struct ship_run *r, void (*go)(struct ship_run *r))
{
	struct snap **snaps = xcalloc(r->atts.n + 1, sizeof *snaps);
	size_t n = 0;
	for (size_t i = 0; i < r->atts.n; i++)
		if (r->atts.v[i]->snap) snaps[n++] = r->atts.v[i]->snap;
	struct ops_fill_req req = {
		.snaps = snaps, .n = n, .sessions = r->session_ids, .n_sessions = r->n_sessions, .done = filled, .arg = r};
	r->attests_filled = go;
	r->fill = n && !r->cancelled ? ops_fill(r->req.env, &req) : NULL;
	free(snaps);
	if (!r->fill) go(r);
}
