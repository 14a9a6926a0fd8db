/* Which part of each input an exec or a file op looks at: the selector that goes into its key, and the paths whose content
 * may stand for the input. For a file op the selectors are kept in what llb_cache_map returns; see cache.c for the quirks. */
#include "llb/internal.h"

#include <stdlib.h>
#include <string.h>

static int text_cmp(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static bool has(const char **sorted, size_t n, const char *p, size_t len)
{
	_cleanup_free_ char *key = xstrndup(p, len);
	const char *k = key;
	return bsearch(&k, sorted, n, sizeof *sorted, text_cmp) != NULL;
}

/* Is a folder above p in the list? "/" is above all. */
static bool covered(const char **sorted, size_t n, const char *p)
{
	for (const char *s = strchr(p, '/'); s; s = strchr(s + 1, '/')) {
		size_t len = (size_t)(s - p);
		if (has(sorted, n, p, len) || (s[1] && has(sorted, n, p, len + 1))) return true;
	}
	return false;
}

/* Sorted, each path once, without those that a listed folder covers. */
static void paths_dedupe(const char **v, size_t *n)
{
	if (*n <= 1) return;
	qsort(v, *n, sizeof *v, text_cmp);
	size_t uniq = 0;
	for (size_t i = 0; i < *n; i++)
		if (!uniq || strcmp(v[uniq - 1], v[i]) != 0) v[uniq++] = v[i];
	_cleanup_free_ const char **all = xmemdup(v, uniq * sizeof *v);
	size_t kept = 0;
	for (size_t i = 0; i < uniq; i++)
		if (!covered(all, uniq, all[i])) v[kept++] = all[i];
	*n = kept;
}

static void join_digest(const char **v, size_t n, char out[static DIGEST_STR])
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (size_t i = 0; i < n; i++) {
		if (i) buf_addc(&b, '\0');
		buf_adds(&b, v[i]);
	}
	digest_str_of(b.p, b.n, out);
}

/* ---- exec ---- */

static bool takes_no_input(const Pb__Mount *m)
{
	return m->mounttype == PB__MOUNT_TYPE__SECRET || m->mounttype == PB__MOUNT_TYPE__SSH ||
	       m->mounttype == PB__MOUNT_TYPE__TMPFS || m->input == LLB_NONE;
}

/* The content of a selection may be the key only when nothing beside the selection can come out again: the mount is not
 * written, not an output, or is the whole input. 1, 0, or -1. */
static int content_allowed(const Pb__Mount *m, const char *sel, struct err *e)
{
	bool safe = m->output == LLB_NONE || m->readonly || strcmp(sel, "/") == 0;
	if (m->contentcache == PB__MOUNT_CONTENT_CACHE__OFF) return 0;
	if (m->contentcache == PB__MOUNT_CONTENT_CACHE__ON && !safe)
		return err_set(e, CODE_UNKNOWN, "invalid mount cache content for %s: it is written and selects only %s",
			       m->dest, sel);
	if (m->contentcache == PB__MOUNT_CONTENT_CACHE__DEFAULT && strcmp(m->dest, LLB_ROOT_MOUNT) == 0) return 0;
	return safe;
}

/* The paths whose content is hashed; none when one of them is the whole tree. */
static int exec_selectors(const struct strvec *sel, struct arena *a, struct llb_dep *dep, struct err *e)
{
	size_t n = sel->n;
	_cleanup_free_ const char **v = xmemdup(sel->v, n * sizeof *v);
	paths_dedupe(v, &n);
	for (size_t i = 0; i < n; i++)
		if (strcmp(v[i], "/") == 0) return 0;
	if (!(dep->selectors = arena_alloc(a, n * sizeof *dep->selectors))) return no_room(e);
	for (size_t i = 0; i < n; i++) {
		dep->selectors[i] = (struct llb_selector){.path = arena_strdup(a, v[i]), .follow_links = true};
		if (!dep->selectors[i].path) return no_room(e);
	}
	dep->n_selectors = n;
	return 0;
}

/* sel: the selections of each input, in mount order. */
static int exec_mounts(const Pb__Op *op, struct strvec *sel, struct llb_cache_map *ret, struct err *e)
{
	for (size_t i = 0; i < op->exec->n_mounts; i++) {
		const Pb__Mount *m = op->exec->mounts[i];
		if (takes_no_input(m)) continue;
		if (m->input < 0 || (uint64_t)m->input >= op->n_inputs)
			return err_set(e, CODE_UNKNOWN, "invalid mountinput %lld for %s: the op has %zu inputs",
				       (long long)m->input, m->dest, op->n_inputs);
		char *p = path_join("/", m->selector);
		strvec_take(&sel[m->input], p);
		int content = content_allowed(m, p, e);
		if (content < 0) return -1;
		ret->deps[m->input].content = content;
	}
	return 0;
}

int cache_deps_exec(const Pb__Op *op, struct arena *a, struct llb_cache_map *ret, struct err *e)
{
	_cleanup_free_ struct strvec *sel = xcalloc(op->n_inputs + 1, sizeof *sel);
	int r = exec_mounts(op, sel, ret, e);
	for (size_t i = 0; i < op->n_inputs; i++) {
		struct llb_dep *dep = &ret->deps[i];
		if (r == 0 && sel[i].n) join_digest((const char **)sel[i].v, sel[i].n, dep->selector);
		if (r == 0 && dep->content) r = exec_selectors(&sel[i], a, dep, e);
		strvec_fini(&sel[i]);
	}
	return r;
}

/* ---- file ---- */

struct wants { /* of one input */
	VEC(struct llb_selector) sel;
	bool whole; /* an action works on it: nothing can be left out */
};

static bool sel_special(const struct llb_selector *s) { return s->wildcard || s->n_include_patterns || s->n_exclude_patterns; }

static bool has_wildcard(const char *s)
{
	for (; *s; s++) {
		if (*s == '\\' && s[1])
			s++;
		else if (*s == '*' || *s == '?' || *s == '[')
			return true;
	}
	return false;
}

static int want(struct wants *w, size_t n, int64_t input, struct llb_selector s, struct err *e)
{
	if (input < 0 || (uint64_t)input >= n)
		return err_set(e, CODE_UNKNOWN, "invalid input index %lld in file op with %zu inputs", (long long)input, n);
	vec_push(&w[input].sel, s);
	return 0;
}

static int want_user(struct wants *w, size_t n, const Pb__UserOpt *u, const char *file, struct err *e)
{
	if (!u || u->user_case != PB__USER_OPT__USER_BY_NAME || !u->byname) return 0;
	if (u->byname->input < 0) return err_set(e, CODE_UNKNOWN, "invalid user index %lld", (long long)u->byname->input);
	return want(w, n, u->byname->input, (struct llb_selector){.path = file, .follow_links = true}, e);
}

static const Pb__ChownOpt *action_owner(const Pb__FileAction *fa)
{
	switch (fa->action_case) {
	case PB__FILE_ACTION__ACTION_COPY: return fa->copy->owner;
	case PB__FILE_ACTION__ACTION_MKFILE: return fa->mkfile->owner;
	case PB__FILE_ACTION__ACTION_MKDIR: return fa->mkdir->owner;
	default: return NULL; /* a symlink's owner is not looked at, as in the peer */
	}
}

static int want_action(struct wants *w, const Pb__Op *op, const Pb__FileAction *fa, struct err *e)
{
	size_t n = op->n_inputs;
	if (fa->input >= 0 && (uint64_t)fa->input < n) w[fa->input].whole = true;
	const Pb__ChownOpt *owner = action_owner(fa);
	if (owner && (want_user(w, n, owner->user, "/etc/passwd", e) < 0 || want_user(w, n, owner->group, "/etc/group", e) < 0))
		return -1;
	if (fa->action_case != PB__FILE_ACTION__ACTION_COPY || fa->secondaryinput == LLB_NONE ||
	    fa->secondaryinput >= (int64_t)n)
		return 0;
	const Pb__FileActionCopy *c = fa->copy;
	return want(w, n, fa->secondaryinput,
		    (struct llb_selector){
			    .path = c->src,
			    .wildcard = c->allowwildcard && has_wildcard(c->src),
			    .follow_links = c->followsymlink,
			    .include_patterns = c->include_patterns,
			    .exclude_patterns = c->exclude_patterns,
			    .required_paths = c->required_paths,
			    .n_include_patterns = c->n_include_patterns,
			    .n_exclude_patterns = c->n_exclude_patterns,
			    .n_required_paths = c->n_required_paths,
		    },
		    e);
}

static int text_cmp_down(const void *a, const void *b) { return -text_cmp(a, b); }

static void file_selector_digest(const struct wants *w, char out[static DIGEST_STR])
{
	_cleanup_free_ const char **v = xcalloc(w->sel.n + 1, sizeof *v);
	for (size_t i = 0; i < w->sel.n; i++) v[i] = w->sel.v[i].path;
	qsort(v, w->sel.n, sizeof *v, text_cmp_down);
	join_digest(v, w->sel.n, out);
}

/* The plain paths of one kind, without doubles, appended to out. */
static size_t add_plain(const struct wants *w, bool follow, struct llb_selector *out, size_t at)
{
	_cleanup_free_ const char **v = xcalloc(w->sel.n + 1, sizeof *v);
	size_t n = 0;
	for (size_t i = 0; i < w->sel.n; i++)
		if (!sel_special(&w->sel.v[i]) && w->sel.v[i].follow_links == follow) v[n++] = w->sel.v[i].path;
	paths_dedupe(v, &n);
	for (size_t i = 0; i < n; i++) out[at++] = (struct llb_selector){.path = v[i], .follow_links = follow};
	return at;
}

struct ranked {
	struct llb_selector s;
	size_t at;
};

static int ranked_cmp(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;
	int c = strcmp(x->s.path, y->s.path);
	return c ? c : (x->at > y->at) - (x->at < y->at);
}

/* Plain ones first, then those that follow links, then those with patterns; sorted by path, equal paths in that order. */
static int file_selectors(const struct wants *w, struct arena *a, struct llb_dep *dep, struct err *e)
{
	if (!(dep->selectors = arena_alloc(a, w->sel.n * sizeof *dep->selectors))) return no_room(e);
	size_t n = add_plain(w, false, dep->selectors, 0);
	n = add_plain(w, true, dep->selectors, n);
	for (size_t i = 0; i < w->sel.n; i++)
		if (sel_special(&w->sel.v[i])) dep->selectors[n++] = w->sel.v[i];
	_cleanup_free_ struct ranked *v = xcalloc(n + 1, sizeof *v);
	for (size_t i = 0; i < n; i++) v[i] = (struct ranked){dep->selectors[i], i};
	qsort(v, n, sizeof *v, ranked_cmp);
	for (size_t i = 0; i < n; i++) dep->selectors[i] = v[i].s;
	dep->n_selectors = n;
	return 0;
}

int cache_deps_file(const Pb__Op *op, struct arena *a, struct llb_cache_map *ret, struct err *e)
{
	_cleanup_free_ struct wants *w = xcalloc(op->n_inputs + 1, sizeof *w);
	int r = 0;
	for (size_t i = 0; i < op->file->n_actions && r == 0; i++) r = want_action(w, op, op->file->actions[i], e);
	for (size_t i = 0; i < op->n_inputs; i++) {
		if (r == 0 && !w[i].whole && w[i].sel.n) {
			file_selector_digest(&w[i], ret->deps[i].selector);
			ret->deps[i].content = true;
			r = file_selectors(&w[i], a, &ret->deps[i], e);
		}
		vec_fini(&w[i].sel);
	}
	return r;
}
