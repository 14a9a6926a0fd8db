/* Attestations that a request asks for, after its result was evaluated: the scan of each platform (unless the frontend brought
 * an SBOM), then the provenance. And the provenance of each reference for the record of the build. */
#include "build/attest.h"
#include "spec/ref.h"

#include <string.h>

/* ---- options: "attest:provenance" = "mode=max,version=v1" ---- */

/* One line of CSV; a quoted field may hold commas. */
static void fields(const char *s, struct strvec *ret)
{
	struct buf b = BUF_INIT;
	bool quoted = false;
	for (; *s; s++) {
		if (*s == '"' && quoted && s[1] == '"') {
			buf_addc(&b, '"');
			s++;
		} else if (*s == '"') {
			quoted = !quoted;
		} else if (*s == ',' && !quoted) {
			strvec_take(ret, buf_take_str(&b));
		} else {
			buf_addc(&b, *s);
		}
	}
	strvec_take(ret, buf_take_str(&b));
	buf_fini(&b);
}

/* The value of an attestation type, by either way to ask for it; NULL: not asked for. */
static int find(const Control__SolveRequest *req, const char *type, const char **ret, struct err *e)
{
	*ret = NULL;
	for (size_t i = 0; i < req->n_frontendattrs; i++) {
		const char *k = req->frontendattrs[i]->key, *name = NULL;
		if (str_starts(k, "attest:")) name = k + strlen("attest:");
		if (str_starts(k, "build-arg:BUILDKIT_ATTEST_")) name = k + strlen("build-arg:BUILDKIT_ATTEST_");
		if (!name) continue;
		if (strcasecmp(name, "sbom") && strcasecmp(name, "provenance")) {
			_cleanup_free_ char *lower = xstrdup(name);
			for (char *c = lower; *c; c++) *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
			return err_set(e, CODE_UNKNOWN, "unknown attestation type \"%s\"", lower);
		}
		if (!strcasecmp(name, type)) *ret = req->frontendattrs[i]->value;
	}
	return 0;
}

static int parse(const Control__SolveRequest *req, const char *type, struct strvec *ret, bool *ret_wanted, struct err *e)
{
	const char *v;
	if (find(req, type, &v, e) < 0) return -1;
	*ret_wanted = v != NULL;
	if (str_empty(v)) return 0;
	_cleanup_strvec_ struct strvec list = {0};
	fields(v, &list);
	for (size_t i = 0; i < list.n; i++) {
		const char *eq = strchr(list.v[i], '=');
		_cleanup_free_ char *k = xstrndup(list.v[i], eq ? (size_t)(eq - list.v[i]) : strlen(list.v[i]));
		strvec_env_set(ret, k, eq ? eq + 1 : "");
	}
	return 0;
}

static int flag(const struct strvec *o, const char *key, const char *what, bool *ret, struct err *e)
{
	const char *v = strvec_env_get(o, key);
	if (!v) return 0;
	if (!str_bool(v, ret))
		return err_set(e, CODE_UNKNOWN,
			       "failed to parse %s flag \"%s\": strconv.ParseBool: parsing \"%s\": invalid syntax", what, v, v);
	return 0;
}

/* The rules of ones that only bite when the attestation is made are checked there: full is false before the build. */
static int provenance_opts(const struct strvec *o, struct prov_opts *ret, bool full, struct err *e)
{
	const char *version = strvec_env_get(o, "version"), *mode = strvec_env_get(o, "mode");
	if (version && strcmp(version, "v1") && strcmp(version, "v0.2"))
		return *version ? err_set(e, CODE_UNKNOWN, "invalid provenance SLSA version: %s", version)
				: err_set(e, CODE_UNKNOWN, "provenance SLSA version cannot be empty");
	ret->v02 = str_eq(version, "v0.2");
	if (!full) return 0;
	if (mode && strcmp(mode, "min") && strcmp(mode, "max") && strcmp(mode, "full"))
		return err_set(e, CODE_UNKNOWN, "invalid mode \"%s\"", mode);
	ret->min = str_eq(mode, "min");
	const char *inline_only = strvec_env_get(o, "inline-only");
	if (inline_only && !str_bool(inline_only, &ret->inline_only)) ret->inline_only = false;
	if (flag(o, "reproducible", "reproducible", &ret->reproducible, e) < 0 ||
	    flag(o, "complete-materials", "complete-materials", &ret->complete, e) < 0)
		return -1;
	ret->builder_id = (char *)strvec_env_get(o, "builder-id");
	ret->filename = (char *)strvec_env_get(o, "filename");
	return 0;
}

static int generator(const struct strvec *o, char **ret, struct err *e)
{
	const char *v = strvec_env_get(o, "generator");
	if (v && !*v) return err_set(e, CODE_UNKNOWN, "sbom generator cannot be empty");
	if (!v) v = "docker/buildkit-syft-scanner:stable-1";
	_cleanup_spec_ref_ struct spec_ref r = {0};
	if (spec_ref_parse_tagged(v, &r, e) < 0) return err_wrap(e, "failed to parse sbom generator %s", v);
	*ret = spec_ref_format(&r);
	return 0;
}

int attest_check(const Control__SolveRequest *req, struct err *e)
{
	_cleanup_strvec_ struct strvec sbom = {0}, provenance = {0};
	_cleanup_free_ char *image = NULL;
	struct prov_opts o = {0};
	bool want_sbom, want_provenance;
	if (parse(req, "sbom", &sbom, &want_sbom, e) < 0 || parse(req, "provenance", &provenance, &want_provenance, e) < 0)
		return -1;
	if (want_sbom && generator(&sbom, &image, e) < 0) return -1;
	return want_provenance ? provenance_opts(&provenance, &o, false, e) : 0;
}

/* ---- the run ---- */

struct attest_run {
	struct build *build;
	struct sbom_run *sbom;
	size_t evaluating;
	bool ended, cancelled;
	struct err error;
	void (*done)(void *arg, const struct err *e);
	void *arg;
};

static void run_free(struct attest_run *a)
{
	err_fini(&a->error);
	free(a);
}

static void end_now(void *arg)
{
	struct attest_run *a = arg;
	if (!a->cancelled) a->done(a->arg, err_is_set(&a->error) ? &a->error : NULL);
	run_free(a);
}

static void finish(struct attest_run *a)
{
	a->ended = true;
	loop_post(a->build->engine->conf.env->loop, end_now, a);
}

static int add_provenance(struct build *b, struct err *e)
{
	_cleanup_strvec_ struct strvec v = {0};
	struct prov_opts o = {0};
	struct result_platforms ps = {0};
	bool wanted;
	if (parse(b->pb, "provenance", &v, &wanted, e) < 0) return -1;
	if (!wanted) return 0;
	if (provenance_opts(&v, &o, true, e) < 0 || result_platforms(&b->result, &b->engine->conf.platforms[0], &ps, e) < 0)
		return -1;
	int r = 0;
	for (size_t i = 0; i < ps.n && r == 0; i++) {
		bool found;
		struct ref *ref = attest_ref(b, ps.v[i].id, &found);
		if (!found) r = err_set(e, CODE_UNKNOWN, "no build info found for provenance %s", ps.v[i].id);
		if (!ref || r < 0) continue;
		struct provenance *p = provenance_new(b, ref, b->result.is_map ? ps.v[i].id : NULL, &o, e);
		if (!p) {
			r = -1;
			continue;
		}
		struct result_attest *a = result_attest_add(&b->result, ps.v[i].id, false,
							    o.filename ? o.filename : "provenance.json", provenance_type(p));
		a->provenance = p;
		result_attest_meta(a, "reason", "provenance", 10);
		result_attest_meta(a, "inline-only", o.inline_only ? "true" : "false", o.inline_only ? 4 : 5);
	}
	result_platforms_fini(&ps);
	return r;
}

struct ref *attest_ref(const struct build *b, const char *id, bool *ret_found)
{
	const struct result *res = &b->result;
	*ret_found = true;
	if (!res->is_map) return res->refs.n ? res->refs.v[0].ref : NULL;
	for (size_t i = 0; i < res->refs.n; i++)
		if (!strcmp(res->refs.v[i].key, id)) return res->refs.v[i].ref;
	*ret_found = false;
	return NULL;
}

static void evaluated(void *arg, struct snap *result, const struct err *e)
{
	struct attest_run *a = arg;
	if (a->ended) return;
	if (e) {
		err_copy(&a->error, e);
		finish(a);
		return;
	}
	if (--a->evaluating == 0) finish(a);
}

/* Everything is there: the references of attestations are evaluated. */
static void evaluate(struct attest_run *a)
{
	struct result *res = &a->build->result;
	a->evaluating = 1;
	for (size_t i = 0; i < res->attests.n; i++) {
		if (!res->attests.v[i].ref) continue;
		a->evaluating++;
		ref_eval(res->attests.v[i].ref, evaluated, a);
	}
	if (--a->evaluating == 0) finish(a);
}

static void go_on(struct attest_run *a)
{
	if (add_provenance(a->build, &a->error) < 0)
		finish(a);
	else
		evaluate(a);
}

static void scanned(void *arg, const struct err *e)
{
	struct attest_run *a = arg;
	a->sbom = NULL;
	if (e) {
		err_copy(&a->error, e);
		finish(a);
		return;
	}
	go_on(a);
}

static bool has_sbom(const struct result *res)
{
	for (size_t i = 0; i < res->attests.n; i++)
		if (!strcmp(res->attests.v[i].predicate_type, SBOM_PREDICATE)) return true;
	return false;
}

static void begin(void *arg)
{
	struct attest_run *a = arg;
	struct build *b = a->build;
	_cleanup_strvec_ struct strvec v = {0};
	_cleanup_free_ char *image = NULL;
	bool wanted = false;
	if (a->cancelled) {
		run_free(a);
		return;
	}
	int r = parse(b->pb, "sbom", &v, &wanted, &a->error);
	if (r == 0 && wanted && !has_sbom(&b->result)) {
		r = generator(&v, &image, &a->error);
		if (r == 0) {
			a->sbom = sbom_start(b, image, &v, scanned, a);
			return;
		}
	}
	if (r < 0)
		finish(a);
	else
		go_on(a);
}

struct attest_run *attest_start(struct build *b, void (*done)(void *arg, const struct err *e), void *arg)
{
	struct attest_run *a = xnew(struct attest_run);
	a->build = b;
	a->done = done;
	a->arg = arg;
	loop_post(b->engine->conf.env->loop, begin, a);
	return a;
}

void attest_cancel(struct attest_run *a)
{
	struct result *res = &a->build->result;
	if (a->cancelled) return;
	a->cancelled = true;
	for (size_t i = 0; i < res->attests.n; i++)
		if (res->attests.v[i].ref) ref_eval_forget(res->attests.v[i].ref, a);
	if (a->ended) return; /* end_now is on its way */
	if (a->sbom) {
		sbom_cancel(a->sbom);
		a->sbom = NULL;
		run_free(a);
	} else if (a->evaluating) {
		run_free(a);
	} /* else begin() is on its way */
}

/* ---- the record ---- */

struct record_job {
	struct loop_job job;
	struct build *build;
	VEC(struct record_doc) docs;
	void (*done)(void *arg);
	void *arg;
};

static void record_work(struct loop_job *j)
{
	struct record_job *r = container_of(j, struct record_job, job);
	for (size_t i = 0; i < r->docs.n; i++) {
		struct record_doc *d = &r->docs.v[i];
		struct err e = ERR_INIT;
		d->ok = blob_put_unsynced(r->build->engine->conf.env->blobs, d->text.p, d->text.n, d->digest, &e) >= 0;
		if (!d->ok) log_warn("provenance of build %s: %s", r->build->ref, e.msg);
		err_fini(&e);
	}
}

static void record_done(struct loop_job *j)
{
	struct record_job *r = container_of(j, struct record_job, job);
	for (size_t i = 0; i < r->docs.n; i++) {
		struct record_doc *d = &r->docs.v[i];
		if (d->ok) history_unsynced(r->build->engine->history, d->digest);
		if (d->ok && r->build->record && !r->build->replied)
			build_record_attest(r->build, d->key, d->digest, (int64_t)d->text.n, "application/vnd.in-toto+json",
					    "https://slsa.dev/provenance/v1");
		buf_fini(&d->text);
		free(d->key);
	}
	vec_fini(&r->docs);
	r->done(r->arg);
	free(r);
}

static void add_doc(struct record_job *r, const struct result_ref *x, const struct prov_opts *o)
{
	struct err e = ERR_INIT;
	struct provenance *p = provenance_new(r->build, x->ref, x->key, o, &e);
	struct record_doc d = {.key = x->key ? xstrdup(x->key) : NULL};
	if (p && provenance_write(p, &d.text, &e) >= 0) {
		vec_push(&r->docs, d);
	} else {
		log_warn("provenance of build %s: %s", r->build->ref, e.msg);
		buf_fini(&d.text);
		free(d.key);
	}
	provenance_free(p);
	err_fini(&e);
}

void attest_record(struct build *b, void (*done)(void *arg), void *arg)
{
	_cleanup_strvec_ struct strvec v = {0};
	bool wanted;
	struct record_job *r = xnew(struct record_job);
	struct prov_opts o = {0};
	r->build = b;
	r->done = done;
	r->arg = arg;
	if (parse(b->pb, "provenance", &v, &wanted, NULL) >= 0) o.builder_id = (char *)strvec_env_get(&v, "builder-id");
	for (size_t i = 0; b->record && i < b->result.refs.n; i++)
		if (b->result.refs.v[i].ref && b->result.refs.v[i].ref->done) add_doc(r, &b->result.refs.v[i], &o);
	r->job.work = record_work;
	r->job.done = record_done;
	loop_job_start(b->engine->conf.env->loop, &r->job, LOOP_DISK);
}
