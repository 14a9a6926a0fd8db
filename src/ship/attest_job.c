#include "ship/attest_job.h"
#include "ship/rawjson.h"
#include "snap/snap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#define PROVENANCE_PREFIX "https://slsa.dev/provenance/"

static void subjects_fini(struct attest_subject *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(v[i].name);
		free(v[i].digest);
	}
}

void attest_in_fini(struct attest_in *a)
{
	subjects_fini(a->subjects.v, a->subjects.n);
	vec_fini(&a->subjects);
	buf_fini(&a->content);
	free(a->key);
	free(a->path);
	free(a->predicate_type);
	free(a->sbom_core);
}

void attest_outs_fini(struct attest_outs *o)
{
	for (size_t i = 0; i < o->n; i++) {
		subjects_fini(o->v[i].subjects.v, o->v[i].subjects.n);
		vec_fini(&o->v[i].subjects);
		buf_fini(&o->v[i].predicate);
		free(o->v[i].path);
		free(o->v[i].predicate_type);
	}
	vec_fini(o);
}

/* ---- reading ---- */

/* A regular file below the root, whole. */
static int read_file(int root, const char *path, uint8_t **ret, size_t *ret_n, struct err *e)
{
	struct stat st;
	_cleanup_close_ int fd = path_open_in(root, path, O_RDONLY | O_NONBLOCK, 0, e);
	if (fd < 0) return err_wrap(e, "cannot read in-toto attestation");
	if (fstat(fd, &st) < 0) return err_sys(e, errno, "%s", path);
	if (!S_ISREG(st.st_mode)) return err_set(e, CODE_UNKNOWN, "%s is not a regular file", path);
	if (st.st_size > ATTEST_FILE_MAX) return err_set(e, CODE_UNKNOWN, "%s exceeds %d bytes", path, ATTEST_FILE_MAX);
	uint8_t *p = xmalloc((size_t)st.st_size + 1);
	size_t n = 0;
	while (n < (size_t)st.st_size) {
		ssize_t k = read(fd, p + n, (size_t)st.st_size - n);
		if (k < 0 && errno == EINTR) continue;
		if (k < 0) {
			free(p);
			return err_sys(e, errno, "%s", path);
		}
		if (k == 0) break;
		n += (size_t)k;
	}
	p[n] = 0;
	*ret = p;
	*ret_n = n;
	return 0;
}

static bool is_core(const struct attest_in *a, const char *path)
{
	if (!a->sbom_core) return false;
	size_t n = strcspn(path, ".");
	return strlen(a->sbom_core) == n && !strncmp(a->sbom_core, path, n);
}

static void take_subjects(json_t *list, struct attest_out *o)
{
	size_t i;
	json_t *s;
	json_array_foreach(list, i, s)
	{
		struct attest_subject *x = vec_add(&o->subjects);
		json_t *digests = json_object_get(s, "digest");
		const char *name = json_string_value(json_object_get(s, "name")), *algo, *hex = "";
		json_t *v;
		x->raw = true;
		x->name = xstrdup(name ? name : "");
		json_object_foreach(digests, algo, v)
		{
			hex = json_is_string(v) ? json_string_value(v) : "";
			if (*hex && (!x->digest || !strcmp(algo, "sha256"))) {
				free(x->digest);
				x->digest = xasprintf("%s:%s", algo, hex);
			}
		}
	}
}

/* A whole statement in a file. */
static int take_statement(const struct attest_in *a, const char *path, const uint8_t *p, size_t n, struct attest_outs *ret,
			  struct err *e)
{
	_cleanup_ship_raw_ struct ship_raw raw = {0};
	bool null = false;
	if (ship_raw_parse((const char *)p, n, &raw, &null, e) < 0) return err_wrap(e, "cannot decode in-toto statement");
	json_t *j = json_loadb((const char *)p, n, 0, NULL);
	const char *type = json_string_value(json_object_get(j, "predicateType"));
	int r = 0;
	if (!type) type = "";
	if (*a->predicate_type && strcmp(type, a->predicate_type))
		r = err_set(e, CODE_UNKNOWN, "bundle entry %s does not match required predicate type %s", type,
			    a->predicate_type);
	else if (str_starts(type, PROVENANCE_PREFIX))
		r = err_set(e, CODE_UNKNOWN, "frontend may not bundle provenance attestations");
	if (r == 0) {
		struct attest_out *o = vec_add(ret);
		const struct buf *predicate = ship_raw_get(&raw, "predicate");
		o->path = xstrdup(path);
		o->predicate_type = xstrdup(type);
		o->core = is_core(a, path);
		o->sbom = is_core(a, path_base(path));
		take_subjects(json_object_get(j, "subject"), o);
		if (predicate) buf_add(&o->predicate, predicate->p, predicate->n);
	}
	json_decref(j);
	return r;
}

/* The names of a directory, sorted. */
static int list_dir(int root, const char *path, struct strvec *ret, struct err *e)
{
	_cleanup_free_ char *shown = path_abs_in(path);
	int fd = path_open_in(root, shown, O_RDONLY | O_DIRECTORY, 0, e);
	if (fd < 0) return -1;
	DIR *d = fdopendir(fd);
	if (!d) {
		close(fd);
		return err_sys(e, errno, "%s", shown);
	}
	for (struct dirent *de; (de = readdir(d));) {
		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, "..")) continue;
		if (ret->n == ATTEST_FILES_MAX) {
			closedir(d);
			return err_set(e, CODE_RESOURCE_EXHAUSTED, "attestation bundle has more than %d files",
				       ATTEST_FILES_MAX);
		}
		strvec_add(ret, de->d_name);
	}
	closedir(d);
	strvec_sort(ret);
	return 0;
}

static int read_bundle(const struct attest_in *a, int root, struct attest_outs *ret, struct err *e)
{
	_cleanup_strvec_ struct strvec names = {0};
	if (list_dir(root, a->path, &names, e) < 0) return -1;
	for (size_t i = 0; i < names.n; i++) {
		_cleanup_free_ char *path = path_join(a->path, names.v[i]), *inside = path_abs_in(path);
		_cleanup_free_ uint8_t *p = NULL;
		size_t n;
		if (read_file(root, inside, &p, &n, e) < 0 || take_statement(a, path, p, n, ret, e) < 0) return -1;
	}
	return 0;
}

static int read_one(const struct attest_in *a, int root, struct attest_outs *ret, struct err *e)
{
	if (str_starts(a->predicate_type, PROVENANCE_PREFIX) && !a->has_content)
		return err_set(e, CODE_UNKNOWN, "frontend may not set provenance attestations");
	_cleanup_free_ uint8_t *p = NULL;
	size_t n = 0;
	_cleanup_free_ char *inside = path_abs_in(a->path);
	if (!a->has_content && read_file(root, inside, &p, &n, e) < 0) return -1;
	struct attest_out *o = vec_add(ret);
	o->path = xstrdup(a->path);
	o->predicate_type = xstrdup(a->predicate_type);
	o->core = is_core(a, a->path);
	o->sbom = is_core(a, path_base(a->path));
	for (size_t i = 0; i < a->subjects.n; i++) {
		const struct attest_subject *s = &a->subjects.v[i];
		struct attest_subject x = {s->raw, xstrdup(s->name), xstrdup(s->digest)};
		vec_push(&o->subjects, x);
	}
	if (a->has_content)
		buf_add(&o->predicate, a->content.p, a->content.n);
	else
		buf_add(&o->predicate, p, n);
	return 0;
}

static int check(const struct attest_in *a, struct err *e)
{
	if (!a->bundle && !*a->path) return err_set(e, CODE_UNKNOWN, "attestation does not have set path");
	if (!a->view && !a->has_content) return err_set(e, CODE_UNKNOWN, "attestation does not have available content");
	return 0;
}

static void core_first(struct attest_outs *o)
{
	struct attest_outs sorted = {0};
	for (int core = 1; core >= 0; core--)
		for (size_t i = 0; i < o->n; i++)
			if (o->v[i].core == (core == 1)) vec_push(&sorted, o->v[i]);
	vec_fini(o);
	*o = sorted;
}

int attest_job_read(struct attest_in *const *in, size_t n, const char *key, bool skip_inline, struct attest_outs *ret,
		    struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		const struct attest_in *a = in[i];
		if (strcmp(a->key, key) || (skip_inline && a->inline_only)) continue;
		if (check(a, e) < 0) return -1;
		_cleanup_close_ int root = a->view ? snap_view_open_root(a->view, false, e) : -1;
		if (a->view && root < 0) return -1;
		if ((a->bundle ? read_bundle(a, root, ret, e) : read_one(a, root, ret, e)) < 0) return -1;
	}
	core_first(ret);
	for (size_t i = 0; i < ret->n; i++)
		if (!*ret->v[i].path) return err_set(e, CODE_UNKNOWN, "attestation does not have set path");
	return 0;
}

/* ---- statements ---- */

struct subjects {
	struct ship_subject *v;
	size_t n, cap;
};

static void add_subject(struct subjects *to, const char *name, const char *digest)
{
	struct ship_subject s = {.name = name};
	snprintf(s.digest, sizeof s.digest, "%s", digest ? digest : "");
	vec_push(to, s);
}

int attest_job_statement(const struct attest_out *o, const struct ship_subject *self, size_t n_self, bool indent,
			 struct buf *ret, struct err *e)
{
	struct subjects all = {0};
	static const struct attest_subject itself;
	size_t n = o->subjects.n ? o->subjects.n : 1;
	for (size_t i = 0; i < n; i++) {
		const struct attest_subject *s = o->subjects.n ? &o->subjects.v[i] : &itself;
		const char *name = str_empty(s->name) ? "_" : s->name;
		if (s->raw) {
			add_subject(&all, name, s->digest);
			continue;
		}
		for (size_t k = 0; k < n_self; k++) {
			add_subject(&all, self[k].name, self[k].digest);
			if (strcmp(name, "_")) add_subject(&all, name, self[k].digest);
		}
	}
	int r = ship_intoto_statement(o->predicate_type, all.v, all.n, buf_str(&o->predicate), o->predicate.n, indent, ret, e);
	vec_fini(&all);
	return r;
}
