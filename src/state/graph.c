/* From states to a definition: the vertices below an output, inputs first, in the order in which a Go client meets them.
 * The walk keeps its own stack, so that a Dockerfile of very many lines cannot exhaust the thread's.
 * Source: BuildKit client/llb/{state,marshal,sourcemap}.go. */
#include "state/internal.h"

#include <stdatomic.h>
#include <string.h>

struct output *output_real(struct output *o)
{
	if (!o) return NULL;
	if (o->make) {
		void (*make)(void *, struct output *) = o->make;
		o->make = NULL;
		make(o->arg, o);
	}
	return o->v ? o : NULL;
}

Pb__Platform *op_platform(struct arena *a, const struct note *n, const struct marshal_opt *opt)
{
	const struct spec_platform *p = n->platform ? n->platform : opt->platform;
	if (p) return llb_platform(a, p);
	_cleanup_spec_platform_ struct spec_platform host = {0};
	spec_platform_host(&host);
	return llb_platform(a, &host);
}

static void vertex_inputs(struct arena *a, struct vertex *v, struct output ***ret, size_t *n)
{
	switch (v->kind) {
	case VERTEX_EXEC:
		exec_sort_mounts(v->exec);
		for (size_t i = 0; i < v->exec->n_mounts; i++)
			if (v->exec->mounts[i]->source) LLB_PUSH(a, *n, *ret, v->exec->mounts[i]->source);
		return;
	case VERTEX_FILE: file_inputs(a, v, ret, n); return;
	case VERTEX_MERGE:
		*ret = v->merge;
		*n = v->n_merge;
		return;
	case VERTEX_SOURCE:
	case VERTEX_IMPORT: return;
	}
}

static const Pb__Op *source_op(struct arena *a, struct vertex *v, const struct marshal_opt *opt)
{
	Pb__Op *op = llb_op_source(a, v->source.id, op_platform(a, &v->note, opt));
	bool session = false;
	for (size_t i = 0; i < v->source.n_attrs; i++) {
		llb_op_attr(a, op, v->source.attrs[i].key, v->source.attrs[i].value);
		session |= strcmp(v->source.attrs[i].key, "local.session") == 0;
	}
	if (str_starts(v->source.id, "local://") && !session) {
		llb_op_attr(a, op, "local.unique", opt->unique_id ? opt->unique_id : "");
		llb_meta_cap(a, v->note.meta, "source.local.unique");
	}
	return op;
}

static const Pb__Op *merge_op(struct arena *a, struct vertex *v)
{
	Pb__Op *op = llb_op_merge(a);
	for (size_t i = 0; i < v->n_merge; i++) {
		struct output *o = output_real(v->merge[i]);
		Pb__MergeInput *in = llb_new(a, Pb__MergeInput, pb__merge_input__init);
		in->input = llb_op_input_new(a, op, o ? o->v->digest : NULL, o ? output_index(o) : 0);
		LLB_PUSH(a, op->merge->n_inputs, op->merge->inputs, in);
	}
	return op;
}

struct walk {
	struct arena *arena;
	struct llb_def *def;
	const struct marshal_opt *opt;
	unsigned number;
	struct map places; /* digest -> how many locations it has got */
	struct bare {      /* a location without a range: llb_def_add leaves those out */
		const struct vertex *v;
		size_t at; /* among the vertex's locations */
	} * bare;
	size_t n_bare;
};

static void count_place(struct walk *w, const struct vertex *v)
{
	size_t n = (size_t)(uintptr_t)map_get(&w->places, v->digest);
	map_put(&w->places, v->digest, (void *)(uintptr_t)(n + 1));
	if (v->note.n_ranges) return;
	struct bare b = {v, n};
	LLB_PUSH(w->arena, w->n_bare, w->bare, b);
}

static bool texts_valid(const ProtobufCMessage *m);

static bool member_valid(const ProtobufCFieldDescriptor *fd, const void *member)
{
	if (fd->type == PROTOBUF_C_TYPE_STRING) {
		const char *s = *(const char *const *)member;
		return !s || utf8_valid(s, strlen(s));
	}
	const ProtobufCMessage *sub = fd->type == PROTOBUF_C_TYPE_MESSAGE ? *(const ProtobufCMessage *const *)member : NULL;
	return !sub || texts_valid(sub);
}

/* A Dockerfile may hold any bytes; a message may not. */
static bool texts_valid(const ProtobufCMessage *m)
{
	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *fd = &m->descriptor->fields[i];
		const char *at = (const char *)m + fd->offset;
		bool oneof = fd->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;
		if (fd->type != PROTOBUF_C_TYPE_STRING && fd->type != PROTOBUF_C_TYPE_MESSAGE) continue;
		if (oneof && *(const uint32_t *)((const char *)m + fd->quantifier_offset) != fd->id) continue;
		if (fd->label != PROTOBUF_C_LABEL_REPEATED) {
			if (!member_valid(fd, at)) return false;
			continue;
		}
		size_t n = *(const size_t *)((const char *)m + fd->quantifier_offset);
		for (size_t k = 0; k < n; k++)
			if (!member_valid(fd, *(const char *const *)at + k * sizeof(void *))) return false;
	}
	return true;
}

static void clean_names(struct arena *a, Pb__OpMetadata *m)
{
	for (size_t i = 0; i < m->n_description; i++) {
		_cleanup_free_ char *s = utf8_clean(m->description[i]->value, strlen(m->description[i]->value));
		m->description[i]->value = arena_strdup(a, s);
	}
}

static int vertex_put(struct walk *w, struct vertex *v, struct err *e)
{
	struct arena *a = w->arena;
	if (v->kind == VERTEX_IMPORT) return llb_def_import(w->def, v->import, &v->digest, &v->import_output, e);
	if (v->kind == VERTEX_EXEC && !v->exec->n_args) return err_set(e, CODE_UNKNOWN, "arguments are required");
	if (v->kind == VERTEX_EXEC && !*v->exec->base.dir) return err_set(e, CODE_UNKNOWN, "working directory is required");
	if (!v->op) switch (v->kind) {
		case VERTEX_SOURCE: v->op = source_op(a, v, w->opt); break;
		case VERTEX_EXEC: v->op = exec_op(a, v, w->opt); break;
		case VERTEX_FILE: v->op = file_op(a, v); break;
		case VERTEX_MERGE: v->op = merge_op(a, v); break;
		case VERTEX_IMPORT: break;
		}
	if (!texts_valid(&v->op->base)) return err_set(e, CODE_UNKNOWN, "string field contains invalid UTF-8");
	clean_names(a, v->note.meta);
	const struct source_file *f = v->note.file;
	int file = f ? llb_def_file(w->def, f->filename, f->language, f->data, f->n, f->def) : -1;
	v->digest = llb_def_add(w->def, v->op, v->note.meta, file, v->note.ranges, v->note.n_ranges);
	if (f) count_place(w, v);
	return 0;
}

struct frame {
	struct vertex *v;
	struct output **inputs;
	size_t n, next;
};

static int walk_from(struct walk *w, struct vertex *root, struct err *e)
{
	struct {
		struct frame *v;
		size_t n, cap;
	} stack = {0};
	int r = 0;
	struct vertex *enter = root;
	for (;;) {
		if (enter && enter->seen != w->number) {
			enter->seen = w->number;
			struct frame *f = vec_add(&stack);
			f->v = enter;
			vertex_inputs(w->arena, enter, &f->inputs, &f->n);
		}
		enter = NULL;
		if (!stack.n) break;
		struct frame *top = &stack.v[stack.n - 1];
		if (top->next < top->n) {
			struct output *o = output_real(top->inputs[top->next++]);
			if (o) enter = o->v;
			continue;
		}
		if ((r = vertex_put(w, top->v, e)) < 0) break;
		stack.n--;
	}
	vec_fini(&stack);
	return r;
}

static Pb__Locations *find_places(const Pb__Definition *def, const char *digest)
{
	for (size_t i = 0; i < def->source->n_locations; i++)
		if (strcmp(def->source->locations[i]->key, digest) == 0) return def->source->locations[i]->value;
	return NULL;
}

static void put_bare(struct walk *w, Pb__Definition *def)
{
	for (size_t i = 0; i < w->n_bare; i++) {
		const struct source_file *f = w->bare[i].v->note.file;
		Pb__Locations *ls = find_places(def, w->bare[i].v->digest);
		if (!ls) continue;
		Pb__Location *l = llb_new(w->arena, Pb__Location, pb__location__init);
		l->sourceindex = llb_def_file(w->def, f->filename, f->language, f->data, f->n, f->def);
		LLB_PUSH(w->arena, ls->n_locations, ls->locations, l);
		size_t at = min_of(w->bare[i].at, ls->n_locations - 1);
		for (size_t k = ls->n_locations - 1; k > at; k--) ls->locations[k] = ls->locations[k - 1];
		ls->locations[at] = l;
	}
}

int graph_marshal(struct arena *a, struct output *o, const struct marshal_opt *opt, Pb__Definition **ret, const char **ret_head,
		  struct err *e)
{
	static atomic_uint walks;
	struct walk w = {.arena = a, .def = llb_def_new(a), .opt = opt};
	do w.number = atomic_fetch_add(&walks, 1) + 1;
	while (!w.number);
	o = output_real(o);
	int r = o ? walk_from(&w, o->v, e) : 0;
	map_fini(&w.places);
	if (r < 0) return -1;
	const char *head = o ? o->v->digest : NULL;
	*ret = llb_def_finish(w.def, head, o ? output_index(o) : 0);
	if (head) put_bare(&w, *ret);
	if (ret_head) *ret_head = head;
	return 0;
}

const Pb__SourceOp *graph_only_source(const Pb__Definition *def, struct arena *a)
{
	struct llb_graph *g;
	const struct llb_load opt = {.skip_caps = true};
	const Pb__SourceOp *found = NULL;
	if (llb_graph_load(def, a, &opt, &g, NULL) < 0) return NULL;
	for (size_t i = 0; i < g->n_nodes; i++) {
		if (g->nodes[i].op->op_case != PB__OP__OP_SOURCE) continue;
		if (found) return NULL;
		found = g->nodes[i].op->source;
	}
	return found;
}
