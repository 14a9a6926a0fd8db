/* Filters of history: each is CSV of conditions that all must hold; one of the filters must. Conditions on startedAt,
 * completedAt and duration compare with <, <=, >, >=; the others are containerd's selectors on ref, status and repository. */
#include "build/internal.h"
#include "spec/spec.h"

#include <string.h>

struct time_cond {
	enum { STARTED_AT, COMPLETED_AT, DURATION } key;
	enum { LESS, LESS_EQUAL, MORE, MORE_EQUAL } op;
	int64_t value; /* seconds; of a duration ns */
};
struct alternative {
	VEC(struct time_cond) times;
	struct selectors selectors;
};
struct history_filter {
	VEC(struct alternative) any; /* none: all match */
};

void history_filter_free(struct history_filter *f)
{
	if (!f) return;
	for (size_t i = 0; i < f->any.n; i++) {
		vec_fini(&f->any.v[i].times);
		selectors_fini(&f->any.v[i].selectors);
	}
	vec_fini(&f->any);
	free(f);
}

/* ---- parsing ---- */

static int csv(const char *s, struct strvec *ret, struct err *e)
{
	for (;;) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		if (*s == '"') {
			for (s++; *s && (*s != '"' || s[1] == '"'); s++) {
				if (*s == '"') s++;
				buf_addc(&b, *s);
			}
			if (*s++ != '"' || (*s && *s != ','))
				return err_set(e, CODE_UNKNOWN,
					       "parse error in filter: extraneous or missing \" in quoted-field");
		} else {
			size_t n = strcspn(s, ",");
			if (memchr(s, '"', n))
				return err_set(e, CODE_UNKNOWN, "parse error in filter: bare \" in non-quoted-field");
			buf_add(&b, s, n);
			s += n;
		}
		strvec_add(ret, buf_str(&b));
		if (!*s++) return 0;
	}
}

static int time_value(const char *s, int64_t *ret, struct err *e)
{
	int64_t ns;
	struct timespec t;
	if (duration_parse(s, &ns, NULL) >= 0) {
		t = time_now();
		int64_t at = t.tv_sec * 1000000000 + t.tv_nsec - ns;
		*ret = at / 1000000000 - (at % 1000000000 < 0);
		return 0;
	}
	if (time_parse_rfc3339(s, &t, NULL) < 0) return err_set(e, CODE_UNKNOWN, "invalid time %s", s);
	*ret = t.tv_sec;
	return 0;
}

/* 1: it is a condition on time. The operators are looked for in this order, as BuildKit does. */
static int time_cond(const char *s, struct time_cond *ret, struct err *e)
{
	static const struct {
		const char *text;
		int op;
	} ops[] = {{">=", MORE_EQUAL}, {"<=", LESS_EQUAL}, {">", MORE}, {"<", LESS}};
	static const char *const keys[] = {"startedAt", "completedAt", "duration"};
	for (size_t i = 0; i < array_len(ops); i++) {
		const char *at = strstr(s, ops[i].text), *value = at ? at + strlen(ops[i].text) : NULL;
		if (!at) continue;
		for (size_t k = 0; k < array_len(keys); k++) {
			if (strlen(keys[k]) != (size_t)(at - s) || strncmp(s, keys[k], (size_t)(at - s))) continue;
			*ret = (struct time_cond){.key = k, .op = ops[i].op};
			if (k != DURATION) return time_value(value, &ret->value, e) < 0 ? -1 : 1;
			return duration_parse(value, &ret->value, NULL) < 0
				       ? err_set(e, CODE_UNKNOWN, "invalid duration %s", value)
				       : 1;
		}
		return 0;
	}
	return 0;
}

static int add_alternative(struct alternative *a, const char *in, struct err *e)
{
	_cleanup_strvec_ struct strvec fields = {0}, rest = {0};
	if (csv(in, &fields, e) < 0) return -1;
	for (size_t i = 0; i < fields.n; i++) {
		struct time_cond c;
		int r = time_cond(fields.v[i], &c, e);
		if (r < 0) return -1;
		if (r)
			vec_push(&a->times, c);
		else
			strvec_add(&rest, fields.v[i]);
	}
	_cleanup_free_ char *joined = strvec_join(&rest, ",");
	if (selectors_parse(joined, &a->selectors, e) < 0) return err_wrap(e, "failed to parse history filters %s", in);
	return 0;
}

int history_filter_new(const char *const *in, size_t n, struct history_filter **ret, struct err *e)
{
	struct history_filter *f = xnew(struct history_filter);
	for (size_t i = 0; i < n; i++) {
		if (add_alternative(vec_add(&f->any), in[i], e) >= 0) continue;
		history_filter_free(f);
		return -1;
	}
	*ret = f;
	return 0;
}

/* ---- matching ---- */

static bool time_holds(const struct time_cond *c, const Control__BuildHistoryRecord *r)
{
	const Google__Timestamp *from = r->createdat, *to = r->completedat;
	int64_t v = 0;
	switch (c->key) {
	case STARTED_AT: v = from ? from->seconds : 0; break;
	case COMPLETED_AT: v = to ? to->seconds : 0; break;
	case DURATION: v = from && to ? (to->seconds - from->seconds) * 1000000000 + to->nanos - from->nanos : 0; break;
	}
	switch (c->op) {
	case LESS: return v < c->value;
	case LESS_EQUAL: return v <= c->value;
	case MORE: return v > c->value;
	case MORE_EQUAL: return v >= c->value;
	}
	return false;
}

struct fields {
	const Control__BuildHistoryRecord *record;
	struct spec_git_url git;
};

static const char *attr(const Control__BuildHistoryRecord *r, const char *key)
{
	for (size_t i = 0; i < r->n_frontendattrs; i++)
		if (!strcmp(r->frontendattrs[i]->key, key)) return r->frontendattrs[i]->value;
	return NULL;
}

static const char *status(const Control__BuildHistoryRecord *r)
{
	if (!r->completedat) return "running";
	if (!r->error) return "completed";
	return strstr(r->error->message, "context canceled") ? "canceled" : "error";
}

static const char *repository(struct fields *f)
{
	const char *v = attr(f->record, "vcs:source"), *context = attr(f->record, "context");
	if (v || !context) return v;
	if (!f->git.remote && spec_git_url_parse(context, &f->git, NULL) < 0) return NULL;
	return f->git.remote;
}

static const char *field(void *ctx, const struct strvec *path)
{
	struct fields *f = ctx;
	if (!strcmp(path->v[0], "ref")) return *f->record->ref ? f->record->ref : NULL;
	if (!strcmp(path->v[0], "status")) return status(f->record);
	if (!strcmp(path->v[0], "repository")) return repository(f);
	return NULL;
}

static bool holds(const struct alternative *a, const Control__BuildHistoryRecord *r)
{
	for (size_t i = 0; i < a->times.n; i++)
		if (!time_holds(&a->times.v[i], r)) return false;
	struct fields f = {.record = r};
	bool ok = selectors_match(&a->selectors, field, &f);
	spec_git_url_fini(&f.git);
	return ok;
}

bool history_filter_match(const struct history_filter *f, const Control__BuildHistoryRecord *r)
{
	for (size_t i = 0; i < f->any.n; i++)
		if (holds(&f->any.v[i], r)) return true;
	return f->any.n == 0;
}
