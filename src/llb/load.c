/* A definition from a client becomes a graph of nodes.
 *
 * (1) A vertex is named by the sha256 of its bytes as they came. (2) Every input names an op of the same definition; a
 * cycle would need a hash collision. (3) Only what the root reaches becomes a node, inputs before users; no recursion, as
 * the depth is the client's choice. (4) Each reachable op keeps the rules of its kind and asks for capabilities that we
 * have. (5) When something about an op was changed by us (a source policy, the proxy network's mark), it and all above it
 * get new digests; what the client and people see still goes by the old ones.
 * Source: BuildKit solver/llbsolver/{vertex,network}.go, ops/opsutils/validate.go. */
#include "llb/internal.h"
#include "wire/wire.h"

#include <string.h>

#define PROXY_MARK "\0buildkit.proxy-network.v0"
enum { NAME_MAX_BYTES = 4096 }; /* of names that are put together from other names: they would double at each merge */

/* ---- rules of one op ---- */

static int bad(struct err *e, const char *what) { return err_set(e, CODE_UNKNOWN, "invalid %s", what); }

static int validate_exec(const Pb__ExecOp *x, struct err *e)
{
	if (!x) return bad(e, "nil exec op");
	if (!x->meta) return bad(e, "exec op with no meta");
	if (!x->meta->n_args) return bad(e, "exec op with no args");
	if (!x->n_mounts) return bad(e, "exec op with no mounts");
	for (size_t i = 0; i < x->n_mounts; i++)
		if (strcmp(x->mounts[i]->dest, LLB_ROOT_MOUNT) == 0) return 0;
	return bad(e, "exec op with no rootfs");
}

static int validate_passthrough(const Pb__Op *op, struct err *e)
{
	const Pb__PassthroughOp *p = op->passthrough;
	if (!p) return bad(e, "nil passthrough op");
	if (str_empty(p->id)) return bad(e, "passthrough op with no id");
	if (!p->n_outputs) return bad(e, "passthrough op with no outputs");
	for (size_t i = 0; i < p->n_outputs; i++)
		if (p->outputs[i] < 0 || (op->n_inputs && (uint64_t)p->outputs[i] >= op->n_inputs))
			return err_set(e, CODE_UNKNOWN, "invalid passthrough output input index %lld",
				       (long long)p->outputs[i]);
	return 0;
}

static int validate_diff(const Pb__Op *op, struct err *e)
{
	const Pb__DiffOp *d = op->diff;
	if (!d) return bad(e, "nil diff op");
	if (!d->lower || !d->upper) return bad(e, "diff op with nil lower or upper input");
	int64_t in[] = {d->lower->input, d->upper->input};
	for (size_t i = 0; i < array_len(in); i++)
		if (in[i] != LLB_NONE && (in[i] < 0 || (uint64_t)in[i] >= op->n_inputs))
			return err_set(e, CODE_UNKNOWN, "invalid diff input index %lld", (long long)in[i]);
	return 0;
}

static int validate_file(const Pb__FileOp *f, struct err *e)
{
	if (!f) return bad(e, "nil file op");
	if (!f->n_actions) return bad(e, "file op with no actions");
	for (size_t i = 0; i < f->n_actions; i++)
		if (f->actions[i]->action_case == PB__FILE_ACTION__ACTION__NOT_SET || !f->actions[i]->copy)
			return bad(e, "file op with an action of no kind");
	return 0;
}

int llb_op_validate(const Pb__Op *op, struct err *e)
{
	if (!op) return bad(e, "nil op");
	switch (op->op_case) {
	case PB__OP__OP_SOURCE: return op->source ? 0 : bad(e, "nil source op");
	case PB__OP__OP_EXEC: return validate_exec(op->exec, e);
	case PB__OP__OP_FILE: return validate_file(op->file, e);
	case PB__OP__OP_BUILD: return op->build ? 0 : bad(e, "nil build op");
	case PB__OP__OP_MERGE: return op->merge ? 0 : bad(e, "nil merge op");
	case PB__OP__OP_DIFF: return validate_diff(op, e);
	case PB__OP__OP_PASSTHROUGH: return validate_passthrough(op, e);
	default: return 0;
	}
}

/* A bind mount that is no output says so; a cache mount only hands on what it was given. */
static bool mount_has_output(const Pb__Mount *m)
{
	if (m->output == LLB_NONE) return false;
	return m->mounttype == PB__MOUNT_TYPE__BIND || (m->mounttype == PB__MOUNT_TYPE__CACHE && m->input != LLB_NONE);
}

size_t llb_op_outputs(const Pb__Op *op)
{
	size_t n = 0;
	switch (op->op_case) {
	case PB__OP__OP_EXEC:
		for (size_t i = 0; i < op->exec->n_mounts; i++) n += mount_has_output(op->exec->mounts[i]);
		return n;
	case PB__OP__OP_FILE:
		for (size_t i = 0; i < op->file->n_actions; i++) n += op->file->actions[i]->output != LLB_NONE;
		return n;
	case PB__OP__OP_PASSTHROUGH: return op->passthrough->n_outputs;
	default: return 1;
	}
}

/* ---- names ---- */

static void name_action(struct buf *b, const Pb__FileAction *fa)
{
	switch (fa->action_case) {
	case PB__FILE_ACTION__ACTION_MKDIR: buf_addf(b, "mkdir %s", fa->mkdir->path); break;
	case PB__FILE_ACTION__ACTION_MKFILE: buf_addf(b, "mkfile %s", fa->mkfile->path); break;
	case PB__FILE_ACTION__ACTION_SYMLINK:
		buf_addf(b, "symlink %s -> %s", fa->symlink->newpath, fa->symlink->oldpath);
		break;
	case PB__FILE_ACTION__ACTION_RM: buf_addf(b, "rm %s", fa->rm->path); break;
	case PB__FILE_ACTION__ACTION_COPY: buf_addf(b, "copy %s %s", fa->copy->src, fa->copy->dest); break;
	default: break;
	}
}

static const char *input_name(const struct llb_graph *g, const struct llb_node *n, int64_t input)
{
	return g->nodes[n->inputs[input].node].name;
}

static void name_diff_side(struct buf *b, const struct llb_graph *g, const struct llb_node *n, int64_t input)
{
	if (input == LLB_NONE)
		buf_adds(b, "scratch");
	else
		buf_addf(b, "(%s)", input_name(g, n, input));
}

static void name_make(struct buf *b, const struct llb_graph *g, const struct llb_node *n)
{
	const Pb__Op *op = n->op;
	switch (op->op_case) {
	case PB__OP__OP_SOURCE: buf_adds(b, op->source->identifier); break;
	case PB__OP__OP_EXEC:
		for (size_t i = 0; i < op->exec->meta->n_args; i++) buf_addf(b, "%s%s", i ? " " : "", op->exec->meta->args[i]);
		break;
	case PB__OP__OP_FILE:
		for (size_t i = 0; i < op->file->n_actions; i++) {
			if (i) buf_adds(b, ", ");
			name_action(b, op->file->actions[i]);
		}
		break;
	case PB__OP__OP_BUILD: buf_adds(b, "build"); break;
	case PB__OP__OP_MERGE:
		buf_adds(b, "merge (");
		for (size_t i = 0; i < op->n_inputs && b->n < NAME_MAX_BYTES; i++)
			buf_addf(b, "%s%s", i ? ", " : "", input_name(g, n, (int64_t)i));
		buf_addc(b, ')');
		break;
	case PB__OP__OP_DIFF:
		buf_adds(b, "diff ");
		name_diff_side(b, g, n, op->diff->lower->input);
		buf_adds(b, " -> ");
		name_diff_side(b, g, n, op->diff->upper->input);
		break;
	case PB__OP__OP_PASSTHROUGH: buf_addf(b, "passthrough %s", op->passthrough->id); break;
	default: buf_adds(b, "unknown");
	}
}

/* Cut at a whole UTF-8 character. */
static void name_cut(struct buf *b)
{
	if (b->n <= NAME_MAX_BYTES) return;
	size_t n = NAME_MAX_BYTES;
	while (n && (b->p[n] & 0xc0) == 0x80) n--;
	b->n = n;
	buf_adds(b, "...");
}

static int name_set(struct llb_graph *g, struct llb_node *n, struct err *e)
{
	const char *custom = llb_node_description(n, LLB_CUSTOM_NAME);
	if (custom) {
		n->name = custom;
		return 0;
	}
	_cleanup_buf_ struct buf b = BUF_INIT;
	name_make(&b, g, n);
	if (n->op->op_case == PB__OP__OP_MERGE || n->op->op_case == PB__OP__OP_DIFF) name_cut(&b);
	n->name = arena_strdup(g->arena, buf_str(&b));
	return n->name ? 0 : no_room(e);
}

const char *llb_node_description(const struct llb_node *n, const char *key)
{
	for (size_t i = n->meta ? n->meta->n_description : 0; i-- > 0;)
		if (strcmp(n->meta->description[i]->key, key) == 0) return n->meta->description[i]->value;
	return NULL;
}

/* ---- loading ---- */

struct loaded { /* one distinct op of the definition */
	Pb__Op *op;
	ProtobufCBinaryData bytes;
	const Pb__OpMetadata *meta;
	char digest[DIGEST_STR];
	size_t node;  /* its index in the graph, + 1 */
	bool visited; /* on the walk's stack, or done */
};
struct loader {
	struct arena *arena;
	const struct llb_load *opt;
	struct loaded *ops;
	size_t n_ops, last;
	struct map by_digest; /* -> struct loaded */
	struct spec_platform host;
	Pb__Platform *default_platform;
	struct llb_graph *g;
};

static void loader_fini(struct loader *l)
{
	free(l->ops);
	map_fini(&l->by_digest);
	spec_platform_fini(&l->host);
}

static int decode_one(struct loader *l, const ProtobufCBinaryData *bytes, struct err *e)
{
	Pb__Op *op = wire_unpack(&pb__op__descriptor, bytes->data, bytes->len, l->arena, e);
	if (!op) return err_wrap(e, "failed to parse llb proto op");
	for (size_t i = 0; i < op->n_inputs; i++)
		if (op->inputs[i]->index < 0)
			return err_set(e, CODE_UNKNOWN, "invalid input %zu output index %lld", i,
				       (long long)op->inputs[i]->index);
	struct loaded *x = &l->ops[l->n_ops];
	digest_str_of(bytes->data, bytes->len, x->digest);
	struct loaded *same = map_get(&l->by_digest, x->digest);
	if (!same) {
		map_put(&l->by_digest, x->digest, x);
		l->n_ops++;
		same = x;
	}
	same->op = op;
	same->bytes = *bytes;
	l->last = (size_t)(same - l->ops);
	return 0;
}

static int decode(struct loader *l, const Pb__Definition *def, struct err *e)
{
	size_t max = l->opt->max_ops ? l->opt->max_ops : LLB_MAX_OPS;
	if (def->n_def > max)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "definition has %zu ops, at most %zu are allowed", def->n_def, max);
	l->ops = xcalloc(def->n_def, sizeof *l->ops);
	for (size_t i = 0; i < def->n_def; i++)
		if (decode_one(l, &def->def[i], e) < 0) return -1;
	for (size_t i = 0; i < def->n_metadata; i++) {
		struct loaded *x = map_get(&l->by_digest, def->metadata[i]->key);
		if (x) x->meta = def->metadata[i]->value;
	}
	return 0;
}

static int check_inputs(const struct loader *l, struct err *e)
{
	for (size_t i = 0; i < l->n_ops; i++)
		for (size_t k = 0; k < l->ops[i].op->n_inputs; k++)
			if (!map_has(&l->by_digest, l->ops[i].op->inputs[k]->digest))
				return err_set(e, CODE_UNKNOWN, "invalid missing input digest %s",
					       l->ops[i].op->inputs[k]->digest);
	if (l->n_ops < 2) return err_set(e, CODE_UNKNOWN, "invalid LLB with %zu vertexes", l->n_ops);
	if (!l->ops[l->last].op->n_inputs) return err_set(e, CODE_UNKNOWN, "invalid LLB with no inputs on last vertex");
	return 0;
}

static int set_platform(struct loader *l, Pb__Op *op, struct err *e)
{
	if (!op->platform) {
		op->platform = l->default_platform;
		return 0;
	}
	_cleanup_spec_platform_ struct spec_platform p = {0};
	llb_platform_get(op->platform, &p);
	spec_platform_normalize(&p);
	if (!(op->platform = llb_platform(l->arena, &p))) return no_room(e);
	return 0;
}

static int check_caps(const struct loader *l, const Pb__OpMetadata *meta, struct err *e)
{
	if (l->opt->skip_caps || !meta) return 0;
	for (size_t i = 0; i < meta->n_caps; i++)
		if (llb_cap_check(meta->caps[i]->key, e) < 0) return -1;
	return 0;
}

/* The proxy network takes what would have the sandbox's or the host's network. */
static int check_proxy(const struct loader *l, const Pb__Op *op, bool *ret, struct err *e)
{
	*ret = false;
	if (!l->opt->proxy_network || op->op_case != PB__OP__OP_EXEC || op->exec->network == PB__NET_MODE__NONE) return 0;
	if (op->exec->network != PB__NET_MODE__UNSET && op->exec->network != PB__NET_MODE__HOST)
		return err_set(e, CODE_UNKNOWN, "network mode %d is not allowed when proxy network is enabled",
			       (int)op->exec->network);
	*ret = true;
	return 0;
}

static int add_node(struct loader *l, struct loaded *x, struct err *e)
{
	struct llb_graph *g = l->g;
	struct llb_node *n = &g->nodes[g->n_nodes];
	if (llb_op_validate(x->op, e) < 0 || check_caps(l, x->meta, e) < 0) return -1;
	if (check_proxy(l, x->op, &n->proxy_network, e) < 0) return -1;
	n->op = x->op;
	n->bytes = x->bytes;
	n->meta = x->meta;
	n->client_platform = x->op->platform;
	if (set_platform(l, n->op, e) < 0) return -1;
	memcpy(n->digest, x->digest, sizeof n->digest);
	memcpy(n->client_digest, x->digest, sizeof n->digest);
	if (!(n->inputs = arena_alloc(l->arena, (n->op->n_inputs + 1) * sizeof *n->inputs))) return no_room(e);
	for (size_t i = 0; i < n->op->n_inputs; i++) {
		const struct loaded *in = map_get(&l->by_digest, n->op->inputs[i]->digest);
		n->inputs[i] = (struct llb_edge){in->node - 1, n->op->inputs[i]->index};
	}
	if (name_set(g, n, e) < 0) return -1;
	x->node = ++g->n_nodes;
	return 0;
}

/* Depth first from the root with a stack of our own; a node is added when all its inputs were. */
static int walk(struct loader *l, struct loaded *root, struct err *e)
{
	struct step {
		struct loaded *x;
		size_t next;
	};
	_cleanup_free_ struct step *stack = xcalloc(l->n_ops, sizeof *stack);
	size_t depth = 0;
	root->visited = true;
	stack[depth++] = (struct step){root, 0};
	while (depth) {
		struct step *s = &stack[depth - 1];
		if (s->next == s->x->op->n_inputs) {
			if (add_node(l, s->x, e) < 0) return -1;
			depth--;
			continue;
		}
		struct loaded *in = map_get(&l->by_digest, s->x->op->inputs[s->next++]->digest);
		if (in->visited) continue;
		in->visited = true;
		stack[depth++] = (struct step){in, 0};
	}
	return 0;
}

static int load(struct loader *l, const Pb__Definition *def, struct err *e)
{
	if (decode(l, def, e) < 0 || check_inputs(l, e) < 0) return -1;
	if (l->opt->default_platform)
		spec_platform_copy(&l->host, l->opt->default_platform);
	else
		spec_platform_host(&l->host);
	spec_platform_normalize(&l->host);
	struct llb_graph *g = l->g;
	if (!(l->default_platform = llb_platform(l->arena, &l->host))) return no_room(e);
	if (!(g->nodes = arena_alloc(l->arena, l->n_ops * sizeof *g->nodes))) return no_room(e);
	const Pb__Input *in = l->ops[l->last].op->inputs[0];
	struct loaded *root = map_get(&l->by_digest, in->digest);
	if (walk(l, root, e) < 0) return -1;
	g->root = (struct llb_edge){root->node - 1, in->index};
	g->source = def->source;
	return l->opt->proxy_network ? llb_graph_redigest(g, e) : 0;
}

int llb_graph_load(const Pb__Definition *def, struct arena *a, const struct llb_load *opt, struct llb_graph **ret,
		   struct err *e)
{
	static const struct llb_load defaults;
	_cleanup_(loader_fini) struct loader l = {.arena = a, .opt = opt ? opt : &defaults};
	if (!(l.g = arena_new_of(a, struct llb_graph))) return no_room(e);
	l.g->arena = a;
	if (def && def->n_def && load(&l, def, e) < 0) return err_wrap(e, "failed to load LLB");
	*ret = l.g;
	return 0;
}

/* ---- after loading ---- */

/* Point the op's inputs at the digests that count now; did any change? 1, 0, or -1. */
static int follow_inputs(struct llb_graph *g, struct llb_node *n, struct err *e)
{
	int changed = 0;
	for (size_t i = 0; i < n->op->n_inputs; i++) {
		const char *now = g->nodes[n->inputs[i].node].digest;
		if (strcmp(n->op->inputs[i]->digest, now) == 0) continue;
		if (!(n->op->inputs[i]->digest = arena_strdup(g->arena, now))) return no_room(e);
		changed = 1;
	}
	return changed;
}

static int redigest_one(struct llb_graph *g, struct llb_node *n, struct err *e)
{
	int changed = follow_inputs(g, n, e);
	if (changed < 0) return -1;
	if (changed || n->proxy_network || n->op->op_case == PB__OP__OP_SOURCE) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		Pb__Op op = *n->op;
		op.platform = n->client_platform;
		llb_marshal_op(&op, &b);
		if (n->proxy_network) buf_add(&b, PROXY_MARK, sizeof PROXY_MARK - 1);
		digest_str_of(b.p, b.n, n->digest);
	}
	n->changed = strcmp(n->digest, n->client_digest) != 0;
	return name_set(g, n, e);
}

int llb_graph_redigest(struct llb_graph *g, struct err *e)
{
	for (size_t i = 0; i < g->n_nodes; i++)
		if (redigest_one(g, &g->nodes[i], e) < 0) return -1;
	return 0;
}

const struct llb_node *llb_graph_find(const struct llb_graph *g, const char *client_digest)
{
	for (size_t i = 0; i < g->n_nodes; i++)
		if (strcmp(g->nodes[i].client_digest, client_digest) == 0) return &g->nodes[i];
	return NULL;
}

size_t llb_graph_locations(const struct llb_graph *g, const struct llb_node *n, Pb__Location ***ret)
{
	for (size_t i = g->source ? g->source->n_locations : 0; i-- > 0;) {
		const Pb__Source__LocationsEntry *x = g->source->locations[i];
		if (strcmp(x->key, n->client_digest) != 0 || !x->value) continue;
		if (ret) *ret = x->value->locations;
		return x->value->n_locations;
	}
	return 0;
}
