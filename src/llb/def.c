/* Definitions that we make ourselves: operations put together in an arena, marshalled as a Go client would, collected
 * with their metadata and places in the source, and closed with the op that points at the result.
 * Invariants: (1) an op's inputs were added before it; (2) equal bytes are one op; (3) what llb_def_finish gives holds
 * only what its root needs, so one collection serves several results. */
#include "llb/internal.h"

#include <string.h>

/* ---- pieces ---- */

static Pb__Op *op_new(struct arena *a, Pb__Op__OpCase kind)
{
	Pb__Op *op = llb_new(a, Pb__Op, pb__op__init);
	op->constraints = llb_new(a, Pb__WorkerConstraints, pb__worker_constraints__init);
	op->op_case = kind;
	return op;
}

Pb__Op *llb_op_source(struct arena *a, const char *identifier, const Pb__Platform *platform)
{
	Pb__Op *op = op_new(a, PB__OP__OP_SOURCE);
	op->source = llb_new(a, Pb__SourceOp, pb__source_op__init);
	op->source->identifier = arena_strdup(a, identifier);
	if (str_starts(identifier, "docker-image://") || str_starts(identifier, "oci-layout://"))
		op->platform = (Pb__Platform *)platform;
	return op;
}

Pb__Op *llb_op_exec(struct arena *a, const Pb__Platform *platform)
{
	Pb__Op *op = op_new(a, PB__OP__OP_EXEC);
	op->exec = llb_new(a, Pb__ExecOp, pb__exec_op__init);
	op->exec->meta = llb_new(a, Pb__Meta, pb__meta__init);
	op->exec->meta->removemountstubsrecursive = true;
	op->platform = (Pb__Platform *)platform;
	return op;
}

Pb__Op *llb_op_file(struct arena *a)
{
	Pb__Op *op = op_new(a, PB__OP__OP_FILE);
	op->file = llb_new(a, Pb__FileOp, pb__file_op__init);
	return op;
}

Pb__Op *llb_op_merge(struct arena *a)
{
	Pb__Op *op = op_new(a, PB__OP__OP_MERGE);
	op->merge = llb_new(a, Pb__MergeOp, pb__merge_op__init);
	return op;
}

Pb__Op *llb_op_diff(struct arena *a)
{
	Pb__Op *op = op_new(a, PB__OP__OP_DIFF);
	op->diff = llb_new(a, Pb__DiffOp, pb__diff_op__init);
	op->diff->lower = llb_new(a, Pb__LowerDiffInput, pb__lower_diff_input__init);
	op->diff->upper = llb_new(a, Pb__UpperDiffInput, pb__upper_diff_input__init);
	op->diff->lower->input = op->diff->upper->input = LLB_NONE;
	return op;
}

Pb__Op *llb_op_build(struct arena *a)
{
	Pb__Op *op = op_new(a, PB__OP__OP_BUILD);
	op->build = llb_new(a, Pb__BuildOp, pb__build_op__init);
	op->build->builder = LLB_NONE;
	return op;
}

Pb__Op *llb_op_passthrough(struct arena *a, const char *id)
{
	Pb__Op *op = op_new(a, PB__OP__OP_PASSTHROUGH);
	op->passthrough = llb_new(a, Pb__PassthroughOp, pb__passthrough_op__init);
	op->passthrough->id = arena_strdup(a, id);
	return op;
}

void llb_op_attr(struct arena *a, Pb__Op *op, const char *key, const char *value)
{
	value = arena_strdup(a, value);
	if (op->op_case == PB__OP__OP_SOURCE) {
		Pb__SourceOp *s = op->source;
		for (size_t i = 0; i < s->n_attrs; i++) {
			if (strcmp(s->attrs[i]->key, key) != 0) continue;
			s->attrs[i]->value = value;
			return;
		}
		Pb__SourceOp__AttrsEntry *x = llb_new(a, Pb__SourceOp__AttrsEntry, pb__source_op__attrs_entry__init);
		x->key = arena_strdup(a, key);
		x->value = value;
		LLB_PUSH(a, s->n_attrs, s->attrs, x);
		return;
	}
	ensure(op->op_case == PB__OP__OP_BUILD);
	Pb__BuildOp *b = op->build;
	for (size_t i = 0; i < b->n_attrs; i++) {
		if (strcmp(b->attrs[i]->key, key) != 0) continue;
		b->attrs[i]->value = value;
		return;
	}
	Pb__BuildOp__AttrsEntry *x = llb_new(a, Pb__BuildOp__AttrsEntry, pb__build_op__attrs_entry__init);
	x->key = arena_strdup(a, key);
	x->value = value;
	LLB_PUSH(a, b->n_attrs, b->attrs, x);
}

int64_t llb_op_input_new(struct arena *a, Pb__Op *op, const char *digest, int64_t output)
{
	if (!digest) return LLB_NONE;
	Pb__Input *in = llb_new(a, Pb__Input, pb__input__init);
	in->digest = arena_strdup(a, digest);
	in->index = output;
	LLB_PUSH(a, op->n_inputs, op->inputs, in);
	return (int64_t)op->n_inputs - 1;
}

int64_t llb_op_input(struct arena *a, Pb__Op *op, const char *digest, int64_t output)
{
	for (size_t i = 0; digest && i < op->n_inputs; i++)
		if (strcmp(op->inputs[i]->digest, digest) == 0 && op->inputs[i]->index == output) return (int64_t)i;
	return llb_op_input_new(a, op, digest, output);
}

Pb__Mount *llb_exec_mount(struct arena *a, Pb__Op *op, const char *dest)
{
	Pb__Mount *m = llb_new(a, Pb__Mount, pb__mount__init);
	m->dest = arena_strdup(a, dest);
	m->input = m->output = LLB_NONE;
	LLB_PUSH(a, op->exec->n_mounts, op->exec->mounts, m);
	return m;
}

Pb__FileAction *llb_file_action(struct arena *a, Pb__Op *op)
{
	Pb__FileAction *fa = llb_new(a, Pb__FileAction, pb__file_action__init);
	fa->input = fa->secondaryinput = fa->output = LLB_NONE;
	LLB_PUSH(a, op->file->n_actions, op->file->actions, fa);
	return fa;
}

Pb__OpMetadata *llb_meta(struct arena *a) { return llb_new(a, Pb__OpMetadata, pb__op_metadata__init); }

void llb_meta_cap(struct arena *a, Pb__OpMetadata *m, const char *cap)
{
	for (size_t i = 0; i < m->n_caps; i++)
		if (strcmp(m->caps[i]->key, cap) == 0) return;
	Pb__OpMetadata__CapsEntry *x = llb_new(a, Pb__OpMetadata__CapsEntry, pb__op_metadata__caps_entry__init);
	x->key = arena_strdup(a, cap);
	x->value = true;
	LLB_PUSH(a, m->n_caps, m->caps, x);
}

void llb_meta_describe(struct arena *a, Pb__OpMetadata *m, const char *key, const char *value)
{
	value = arena_strdup(a, value);
	for (size_t i = 0; i < m->n_description; i++) {
		if (strcmp(m->description[i]->key, key) != 0) continue;
		m->description[i]->value = value;
		return;
	}
	Pb__OpMetadata__DescriptionEntry *x =
		llb_new(a, Pb__OpMetadata__DescriptionEntry, pb__op_metadata__description_entry__init);
	x->key = arena_strdup(a, key);
	x->value = value;
	LLB_PUSH(a, m->n_description, m->description, x);
}

/* NULL only when a capped arena is exhausted. */
Pb__Platform *llb_platform(struct arena *a, const struct spec_platform *p)
{
	Pb__Platform *out = arena_alloc(a, sizeof *out);
	const char **features = arena_alloc(a, (p->os_features.n + 1) * sizeof *features);
	if (!out || !features) return NULL;
	pb__platform__init(out);
	out->os = arena_strdup(a, p->os ? p->os : "");
	out->architecture = arena_strdup(a, p->arch ? p->arch : "");
	out->variant = arena_strdup(a, p->variant ? p->variant : "");
	out->osversion = arena_strdup(a, p->os_version ? p->os_version : "");
	bool full = !out->os || !out->architecture || !out->variant || !out->osversion;
	for (size_t i = 0; i < p->os_features.n && !full; i++) full = !(features[i] = arena_strdup(a, p->os_features.v[i]));
	out->osfeatures = features;
	out->n_osfeatures = p->os_features.n;
	return full ? NULL : out;
}

void llb_platform_get(const Pb__Platform *p, struct spec_platform *ret)
{
	if (!p) {
		spec_platform_host(ret);
		return;
	}
	*ret = (struct spec_platform){0};
	spec_platform_init(ret, p->os, p->architecture, p->variant, p->osversion);
	for (size_t i = 0; i < p->n_osfeatures; i++) strvec_add(&ret->os_features, p->osfeatures[i]);
}

/* ---- the collection ---- */

struct vertex {
	const char *digest;
	ProtobufCBinaryData bytes;
	Pb__OpMetadata *meta; /* ours: merged from all that were given */
	Pb__Locations *locations;
	size_t *inputs, n_inputs; /* indices of earlier vertices */
	bool needed;
};
struct llb_def {
	struct arena *arena;
	struct vertex *v;
	size_t n;
	Pb__SourceInfo **files;
	size_t n_files;
};

struct llb_def *llb_def_new(struct arena *a)
{
	struct llb_def *d = arena_new_of(a, struct llb_def);
	d->arena = a;
	return d;
}

static struct vertex *vertex_find(const struct llb_def *d, const char *digest)
{
	for (size_t i = d->n; i-- > 0;)
		if (strcmp(d->v[i].digest, digest) == 0) return &d->v[i];
	return NULL;
}

static bool same_definition(const Pb__Definition *x, const Pb__Definition *y)
{
	if (!x || !y || !x->n_def || !y->n_def) return (!x || !x->n_def) == (!y || !y->n_def);
	const ProtobufCBinaryData *a = &x->def[x->n_def - 1], *b = &y->def[y->n_def - 1];
	return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

int llb_def_file(struct llb_def *d, const char *filename, const char *language, const void *data, size_t n,
		 Pb__Definition *definition)
{
	for (size_t i = 0; i < d->n_files; i++) {
		const Pb__SourceInfo *f = d->files[i];
		if (str_eq(f->filename, filename) && str_eq(f->language, language) && f->data.len == n &&
		    (!n || memcmp(f->data.data, data, n) == 0) && same_definition(f->definition, definition))
			return (int)i;
	}
	Pb__SourceInfo *f = llb_new(d->arena, Pb__SourceInfo, pb__source_info__init);
	f->filename = arena_strdup(d->arena, filename);
	f->language = arena_strdup(d->arena, language);
	f->data = (ProtobufCBinaryData){n, arena_memdup(d->arena, data, n)};
	f->definition = definition;
	LLB_PUSH(d->arena, d->n_files, d->files, f);
	return (int)d->n_files - 1;
}

static void merge_meta(struct arena *a, Pb__OpMetadata *to, const Pb__OpMetadata *from)
{
	if (!from) return;
	if (from->ignore_cache) to->ignore_cache = true;
	for (size_t i = 0; i < from->n_description; i++)
		llb_meta_describe(a, to, from->description[i]->key, from->description[i]->value);
	for (size_t i = 0; i < from->n_caps; i++) llb_meta_cap(a, to, from->caps[i]->key);
	if (from->export_cache) to->export_cache = from->export_cache;
	if (from->progress_group) to->progress_group = from->progress_group;
	if (from->linux_resources) to->linux_resources = from->linux_resources;
}

static struct vertex *vertex_add(struct llb_def *d, const Pb__Op *op, const void *bytes, size_t n, const char *digest)
{
	struct vertex v = {.digest = arena_strdup(d->arena, digest), .bytes = {n, arena_memdup(d->arena, bytes, n)}};
	v.meta = llb_meta(d->arena);
	v.locations = llb_new(d->arena, Pb__Locations, pb__locations__init);
	v.inputs = arena_alloc(d->arena, (op->n_inputs + 1) * sizeof *v.inputs);
	for (size_t i = 0; i < op->n_inputs; i++) {
		const struct vertex *in = vertex_find(d, op->inputs[i]->digest);
		if (!in) bug("an op was added before its input %s", op->inputs[i]->digest);
		v.inputs[v.n_inputs++] = (size_t)(in - d->v);
	}
	LLB_PUSH(d->arena, d->n, d->v, v);
	return &d->v[d->n - 1];
}

static Pb__Position *position(struct arena *a, int32_t line, int32_t character)
{
	Pb__Position *p = llb_new(a, Pb__Position, pb__position__init);
	p->line = line;
	p->character = character;
	return p;
}

static void add_location(struct llb_def *d, struct vertex *v, int file, const struct llb_range *ranges, size_t n)
{
	Pb__Location *l = llb_new(d->arena, Pb__Location, pb__location__init);
	l->sourceindex = file;
	for (size_t i = 0; i < n; i++) {
		Pb__Range *r = llb_new(d->arena, Pb__Range, pb__range__init);
		r->start = position(d->arena, ranges[i].start_line, ranges[i].start_character);
		r->end = position(d->arena, ranges[i].end_line, ranges[i].end_character);
		LLB_PUSH(d->arena, l->n_ranges, l->ranges, r);
	}
	LLB_PUSH(d->arena, v->locations->n_locations, v->locations->locations, l);
}

const char *llb_def_add(struct llb_def *d, const Pb__Op *op, const Pb__OpMetadata *meta, int file,
			const struct llb_range *ranges, size_t n_ranges)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	llb_marshal_op(op, &b);
	char digest[DIGEST_STR];
	digest_str_of(b.p, b.n, digest);
	struct vertex *v = vertex_find(d, digest);
	if (!v) v = vertex_add(d, op, b.p, b.n, digest);
	merge_meta(d->arena, v->meta, meta);
	if (file >= 0 && n_ranges) add_location(d, v, file, ranges, n_ranges);
	return v->digest;
}

/* ---- closing ---- */

static void put_meta(struct arena *a, Pb__Definition *def, const char *digest, Pb__OpMetadata *meta)
{
	Pb__Definition__MetadataEntry *x = llb_new(a, Pb__Definition__MetadataEntry, pb__definition__metadata_entry__init);
	x->key = digest;
	x->value = meta;
	LLB_PUSH(a, def->n_metadata, def->metadata, x);
}

static void put_locations(struct arena *a, Pb__Source *s, const struct vertex *v)
{
	Pb__Source__LocationsEntry *x = llb_new(a, Pb__Source__LocationsEntry, pb__source__locations_entry__init);
	x->key = v->digest;
	x->value = v->locations;
	LLB_PUSH(a, s->n_locations, s->locations, x);
}

/* What every client of today says of the whole: it uses constraints and platforms, and what its vertices' metadata use. */
static Pb__OpMetadata *terminal_meta(struct arena *a, const Pb__Definition *def)
{
	Pb__OpMetadata *m = llb_meta(a);
	llb_meta_cap(a, m, "constraints");
	llb_meta_cap(a, m, "platform");
	for (size_t i = 0; i < def->n_metadata; i++) {
		const Pb__OpMetadata *x = def->metadata[i]->value;
		if (x->ignore_cache) llb_meta_cap(a, m, "meta.ignorecache");
		if (x->n_description) llb_meta_cap(a, m, "meta.description");
		if (x->export_cache) llb_meta_cap(a, m, "meta.exportcache");
	}
	return m;
}

static void put_terminal(struct arena *a, Pb__Definition *def, const char *digest, int64_t output)
{
	Pb__Op *op = llb_new(a, Pb__Op, pb__op__init);
	llb_op_input_new(a, op, digest, output);
	_cleanup_buf_ struct buf b = BUF_INIT;
	llb_marshal_op(op, &b);
	ProtobufCBinaryData bytes = {b.n, arena_memdup(a, b.p, b.n)};
	LLB_PUSH(a, def->n_def, def->def, bytes);
	char d[DIGEST_STR];
	digest_str_of(b.p, b.n, d);
	put_meta(a, def, arena_strdup(a, d), terminal_meta(a, def));
}

Pb__Definition *llb_def_finish(struct llb_def *d, const char *digest, int64_t output)
{
	struct arena *a = d->arena;
	Pb__Definition *def = llb_new(a, Pb__Definition, pb__definition__init);
	if (!digest) return def;
	struct vertex *root = vertex_find(d, digest);
	if (!root) bug("no such op in the definition: %s", digest);
	for (size_t i = 0; i < d->n; i++) d->v[i].needed = false;
	root->needed = true;
	for (size_t i = d->n; i-- > 0;)
		for (size_t k = 0; d->v[i].needed && k < d->v[i].n_inputs; k++) d->v[d->v[i].inputs[k]].needed = true;
	def->source = llb_new(a, Pb__Source, pb__source__init);
	def->source->infos = d->files;
	def->source->n_infos = d->n_files;
	for (size_t i = 0; i < d->n; i++) {
		if (!d->v[i].needed) continue;
		LLB_PUSH(a, def->n_def, def->def, d->v[i].bytes);
		put_meta(a, def, d->v[i].digest, d->v[i].meta);
		put_locations(a, def->source, &d->v[i]);
	}
	put_terminal(a, def, digest, output);
	return def;
}

/* ---- taking in ---- */

static int import_files(struct llb_def *d, const Pb__Source *s, int *ret_index, struct err *e)
{
	for (size_t i = 0; i < s->n_infos; i++) {
		const Pb__SourceInfo *f = s->infos[i];
		ret_index[i] = llb_def_file(d, f->filename, f->language, f->data.data, f->data.len, f->definition);
	}
	return 0;
}

static int import_locations(struct llb_def *d, const Pb__Source *s, struct err *e)
{
	_cleanup_free_ int *index = xcalloc(s->n_infos + 1, sizeof *index);
	if (import_files(d, s, index, e) < 0) return -1;
	for (size_t i = 0; i < s->n_locations; i++) {
		struct vertex *v = vertex_find(d, s->locations[i]->key);
		const Pb__Locations *ls = s->locations[i]->value;
		for (size_t k = 0; v && ls && k < ls->n_locations; k++) {
			if (ls->locations[k]->sourceindex < 0 || (size_t)ls->locations[k]->sourceindex >= s->n_infos)
				return err_set(e, CODE_UNKNOWN, "failed to find source map with index %d",
					       ls->locations[k]->sourceindex);
			Pb__Location *l = arena_memdup(d->arena, ls->locations[k], sizeof *l);
			l->sourceindex = index[l->sourceindex];
			LLB_PUSH(d->arena, v->locations->n_locations, v->locations->locations, l);
		}
	}
	return 0;
}

int llb_def_import(struct llb_def *d, const Pb__Definition *def, const char **ret_digest, int64_t *ret_output, struct err *e)
{
	struct llb_graph *g;
	const struct llb_load opt = {.skip_caps = true};
	if (llb_graph_load(def, d->arena, &opt, &g, e) < 0) return -1;
	if (!g->n_nodes) {
		*ret_digest = NULL;
		*ret_output = 0;
		return 0;
	}
	for (size_t i = 0; i < g->n_nodes; i++) {
		const struct llb_node *n = &g->nodes[i];
		struct vertex *v = vertex_find(d, n->digest);
		if (!v) v = vertex_add(d, n->op, n->bytes.data, n->bytes.len, n->digest);
		merge_meta(d->arena, v->meta, n->meta);
	}
	if (def->source && import_locations(d, def->source, e) < 0) return -1;
	*ret_digest = arena_strdup(d->arena, g->nodes[g->root.node].digest);
	*ret_output = g->root.output;
	return 0;
}
