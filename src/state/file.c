/* File operations: copies, directories and files put together into one operation, and merges.
 * Source: BuildKit client/llb/{fileop,merge}.go. */
#include "state/internal.h"

#include <errno.h>
#include <string.h>

/* A number, or a name; "root" is 0. */
static bool parse_id(const char *s, uint32_t *ret)
{
	*ret = 0;
	if (strcmp(s, "root") == 0) return true;
	const char *d = *s == '+' || *s == '-' ? s + 1 : s;
	if (!*d || d[strspn(d, "0123456789")]) return false;
	errno = 0;
	long v = strtol(s, NULL, 10);
	if (errno || v > INT32_MAX || v < INT32_MIN) return false;
	*ret = (uint32_t)v;
	return true;
}

struct chown chown_parse(struct arena *a, const char *s)
{
	struct chown c = {.set = true, .has_user = true};
	const char *colon = strchr(s, ':');
	const char *user = colon ? arena_strndup(a, s, (size_t)(colon - s)) : arena_strdup(a, s);
	if (!parse_id(user, &c.uid)) c.user = user;
	if (!colon) return c;
	c.has_group = true;
	if (!parse_id(colon + 1, &c.gid)) c.group = arena_strdup(a, colon + 1);
	return c;
}

static struct action *action_add(struct arena *a, struct actions *l, enum action_kind kind, const char *path)
{
	struct action x = {.kind = kind, .path = arena_strdup(a, path), .time_ns = -1};
	LLB_PUSH(a, l->n, l->v, x);
	return &l->v[l->n - 1];
}

void action_copy(struct arena *a, struct actions *l, struct state from, const char *src, const char *dest,
		 const struct copy_opt *o)
{
	struct action *x = action_add(a, l, ACTION_COPY, dest);
	x->from = from;
	x->src = arena_strdup(a, src);
	x->copy = *o;
	x->owner = o->owner;
}

void action_mkdir(struct arena *a, struct actions *l, const char *path, uint32_t mode, bool parents, struct chown owner,
		  int64_t time_ns)
{
	struct action *x = action_add(a, l, ACTION_MKDIR, path);
	x->mode = mode;
	x->parents = parents;
	x->owner = owner;
	x->time_ns = time_ns;
}

void action_mkfile(struct arena *a, struct actions *l, const char *path, uint32_t mode, const void *data, size_t n)
{
	struct action *x = action_add(a, l, ACTION_MKFILE, path);
	x->mode = mode;
	x->data = arena_memdup(a, data, n);
	x->n_data = n;
}

struct state state_file(struct arena *a, struct state s, const struct actions *l, const struct note *note)
{
	struct vertex *v = vertex_new(a, VERTEX_FILE, note);
	v->file.base = s;
	v->file.actions = *l;
	llb_meta_cap(a, v->note.meta, "file.base");
	return state_with_output(a, s, vertex_output(a, v));
}

struct state state_merge(struct arena *a, const struct state *v, size_t n, struct note note)
{
	const struct state *first = NULL;
	struct vertex *m = vertex_new(a, VERTEX_MERGE, &note);
	for (size_t i = 0; i < n; i++) {
		if (!v[i].out) continue;
		if (!first) first = &v[i];
		LLB_PUSH(a, m->n_merge, m->merge, v[i].out);
	}
	if (!first) return state_scratch();
	if (m->n_merge == 1) return *first;
	llb_meta_cap(a, m->note.meta, "mergeop");
	return state_with_output(a, *first, vertex_output(a, m));
}

/* ---- bytes ---- */

static void push_once(struct arena *a, struct output ***v, size_t *n, struct output *o)
{
	if (!o) return;
	for (size_t i = 0; i < *n; i++)
		if ((*v)[i] == o) return;
	LLB_PUSH(a, *n, *v, o);
}

/* In the order a Go client walks them: the last action first, each time the base, then the copy's source. */
void file_inputs(struct arena *a, const struct vertex *v, struct output ***ret, size_t *n)
{
	for (size_t i = v->file.actions.n; i-- > 0;) {
		push_once(a, ret, n, v->file.base.out);
		if (v->file.actions.v[i].kind == ACTION_COPY) push_once(a, ret, n, v->file.actions.v[i].from.out);
	}
}

static int64_t add_input(struct arena *a, Pb__Op *op, struct output *o)
{
	o = output_real(o);
	return o ? llb_op_input(a, op, o->v->digest, output_index(o)) : LLB_NONE;
}

static Pb__UserOpt *user_opt(struct arena *a, const char *name, uint32_t id, int64_t base)
{
	Pb__UserOpt *u = llb_new(a, Pb__UserOpt, pb__user_opt__init);
	if (!str_empty(name)) {
		u->user_case = PB__USER_OPT__USER_BY_NAME;
		u->byname = llb_new(a, Pb__NamedUserOpt, pb__named_user_opt__init);
		u->byname->name = name;
		u->byname->input = base;
	} else {
		u->user_case = PB__USER_OPT__USER_BY_ID;
		u->byid = id;
	}
	return u;
}

static Pb__ChownOpt *chown_opt(struct arena *a, const struct chown *c, int64_t base)
{
	if (!c->set) return NULL;
	Pb__ChownOpt *o = llb_new(a, Pb__ChownOpt, pb__chown_opt__init);
	if (c->has_user) o->user = user_opt(a, c->user, c->uid, base);
	if (c->has_group) o->group = user_opt(a, c->group, c->gid, base);
	return o;
}

static const char *normal_path(struct arena *a, const char *parent, const char *p, bool keep_slash)
{
	_cleanup_free_ char *clean = path_clean(p);
	if (*clean != '/') {
		_cleanup_free_ char *dir = path_join("/", parent);
		char *joined = path_join(dir, clean);
		free(clean);
		clean = joined;
	}
	if (!keep_slash) return arena_strdup(a, clean);
	if (str_ends(p, "/") && !str_ends(clean, "/")) return arena_printf(a, "%s/", clean);
	if (str_ends(p, "/.")) return arena_printf(a, "%s.", strcmp(clean, "/") == 0 ? "/" : arena_printf(a, "%s/", clean));
	return arena_strdup(a, clean);
}

static const char *source_path(struct arena *a, const struct action *x)
{
	_cleanup_free_ char *p = path_clean(x->src);
	_cleanup_free_ char *j = path_join(*p == '/' ? "/" : x->from.dir, p);
	return arena_strdup(a, j);
}

static void put_copy(struct arena *a, Pb__FileAction *fa, const struct action *x, const char *parent, int64_t base)
{
	Pb__FileActionCopy *c = llb_new(a, Pb__FileActionCopy, pb__file_action_copy__init);
	c->src = source_path(a, x);
	c->dest = normal_path(a, parent, x->path, true);
	c->owner = chown_opt(a, &x->owner, base);
	c->mode = -1;
	if (x->copy.has_mode && x->copy.mode_text) {
		c->mode = 0;
		c->modestr = arena_strdup(a, x->copy.mode_text);
	} else if (x->copy.has_mode) {
		c->mode = (int32_t)x->copy.mode;
	}
	c->followsymlink = x->copy.follow_symlinks;
	c->dircopycontents = x->copy.contents_only;
	c->attemptunpackdockercompatibility = x->copy.unpack;
	c->createdestpath = x->copy.create_dest;
	c->allowwildcard = x->copy.wildcard;
	c->allowemptywildcard = x->copy.empty_wildcard;
	c->timestamp = x->time_ns;
	c->include_patterns = x->copy.include;
	c->n_include_patterns = x->copy.n_include;
	c->exclude_patterns = x->copy.exclude;
	c->n_exclude_patterns = x->copy.n_exclude;
	c->required_paths = x->copy.required;
	c->n_required_paths = x->copy.n_required;
	fa->action_case = PB__FILE_ACTION__ACTION_COPY;
	fa->copy = c;
}

static void put_mkdir(struct arena *a, Pb__FileAction *fa, const struct action *x, const char *parent, int64_t base)
{
	Pb__FileActionMkDir *d = llb_new(a, Pb__FileActionMkDir, pb__file_action_mk_dir__init);
	d->path = normal_path(a, parent, x->path, false);
	d->mode = (int32_t)(x->mode & 0777);
	d->makeparents = x->parents;
	d->owner = chown_opt(a, &x->owner, base);
	d->timestamp = x->time_ns;
	fa->action_case = PB__FILE_ACTION__ACTION_MKDIR;
	fa->mkdir = d;
}

static void put_mkfile(struct arena *a, Pb__FileAction *fa, const struct action *x, const char *parent, int64_t base)
{
	Pb__FileActionMkFile *f = llb_new(a, Pb__FileActionMkFile, pb__file_action_mk_file__init);
	f->path = normal_path(a, parent, x->path, false);
	f->mode = (int32_t)(x->mode & 0777);
	f->data = (ProtobufCBinaryData){x->n_data, (uint8_t *)x->data};
	f->owner = chown_opt(a, &x->owner, base);
	f->timestamp = x->time_ns;
	fa->action_case = PB__FILE_ACTION__ACTION_MKFILE;
	fa->mkfile = f;
}

const Pb__Op *file_op(struct arena *a, struct vertex *v)
{
	static void (*const put[])(struct arena *, Pb__FileAction *, const struct action *, const char *, int64_t) = {
		[ACTION_COPY] = put_copy,
		[ACTION_MKDIR] = put_mkdir,
		[ACTION_MKFILE] = put_mkfile,
	};
	Pb__Op *op = llb_op_file(a);
	const struct actions *l = &v->file.actions;
	int64_t base = LLB_NONE;
	for (size_t i = 0; i < l->n; i++) {
		base = add_input(a, op, v->file.base.out);
		Pb__FileAction *fa = llb_file_action(a, op);
		fa->input = i ? -2 : base; /* -2: fixed below, the number of inputs is not known yet */
		if (l->v[i].kind == ACTION_COPY) fa->secondaryinput = add_input(a, op, l->v[i].from.out);
		put[l->v[i].kind](a, fa, &l->v[i], v->file.base.dir, base);
	}
	for (size_t i = 1; i < l->n; i++) op->file->actions[i]->input = (int64_t)(op->n_inputs + i - 1);
	if (l->n) op->file->actions[l->n - 1]->output = 0;
	return op;
}
