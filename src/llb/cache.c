/* What an operation's result depends on: its own digest, and what of each input counts.
 *
 * The digests are BuildKit's to the byte, so that a cache written by one is a hit in the other: sha256 of the JSON that Go
 * would write of {"Type":...} and the op, after what must not matter was taken out (IPs of extra hosts, selectors, the
 * proxy's environment, the ids of cache mounts that are not a Dockerfile's default). Quirks kept for the same reason:
 * (1) an exec with nothing but its root mount leaves the mounts out, (2) a file op with the plain chain of indices leaves
 * them out, (3) the paths of a file op's selector are sorted downwards, those of an exec are in mount order,
 * (4) when an input has several mounts, the last one decides whether its content may be the key.
 * Source: BuildKit solver/llbsolver/ops/{exec,file,merge,diff,build,passthrough}.go. */
#include "llb/internal.h"

#include <stdio.h>
#include <string.h>

/* ---- exec ---- */

/* A cache mount that is named after its target, as a Dockerfile's default or below a namespace, keeps its name. */
static bool cache_id_matters(const Pb__Mount *m)
{
	if (m->cacheopt->sharing != PB__CACHE_SHARING_OPT__SHARED) return false;
	if (strcmp(m->cacheopt->id, m->dest) == 0) return true;
	const char *slash = strchr(m->cacheopt->id, '/');
	return slash && strcmp(slash + 1, m->dest) == 0;
}

static Pb__Mount *mount_for_key(struct arena *a, const Pb__Mount *m)
{
	Pb__Mount *c = arena_memdup(a, m, sizeof *m);
	c->selector = "";
	if (m->cacheopt && !cache_id_matters(m)) {
		c->cacheopt = arena_memdup(a, m->cacheopt, sizeof *m->cacheopt);
		c->cacheopt->id = "";
		c->cacheopt->sharing = PB__CACHE_SHARING_OPT__SHARED;
	}
	return c;
}

static Pb__Meta *meta_for_key(struct arena *a, const Pb__Meta *m)
{
	Pb__Meta *c = arena_memdup(a, m, sizeof *m);
	c->proxy_env = NULL;
	c->extrahosts = arena_alloc(a, (m->n_extrahosts + 1) * sizeof *c->extrahosts);
	for (size_t i = 0; i < m->n_extrahosts; i++) {
		c->extrahosts[i] = arena_memdup(a, m->extrahosts[i], sizeof **m->extrahosts);
		c->extrahosts[i]->ip = "";
	}
	return c;
}

static bool only_plain_root(const Pb__ExecOp *x)
{
	const Pb__Mount *m = x->n_mounts == 1 ? x->mounts[0] : NULL;
	return m && strcmp(m->dest, LLB_ROOT_MOUNT) == 0 && !m->readonly && m->mounttype == PB__MOUNT_TYPE__BIND &&
	       !m->cacheopt && !m->sshopt && !m->secretopt && str_empty(m->resultid);
}

static void json_platform(struct json_w *w, const Pb__Platform *p)
{
	json_kstr(w, "OS", p->os);
	json_kstr(w, "Arch", p->architecture);
	json_kstr_omit(w, "Variant", p->variant);
	json_kstr_omit(w, "OSVersion", p->osversion);
	json_kstrs_omit(w, "OSFeatures", (char *const *)p->osfeatures, p->n_osfeatures);
}

static void text_exec(struct json_w *w, const Pb__Op *op)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	Pb__ExecOp x = *op->exec;
	x.meta = meta_for_key(a, op->exec->meta);
	x.mounts = arena_alloc(a, (x.n_mounts + 1) * sizeof *x.mounts);
	for (size_t i = 0; i < x.n_mounts; i++) x.mounts[i] = mount_for_key(a, op->exec->mounts[i]);
	if (only_plain_root(&x)) x.n_mounts = 0;
	const Pb__Platform *p = op->platform;
	if (!p) {
		_cleanup_spec_platform_ struct spec_platform host = {0};
		spec_platform_host(&host);
		p = llb_platform(a, &host);
	}
	json_kstr(w, "Type", "buildkit.exec.v0");
	json_key(w, "Exec");
	llb_json(w, &x.base);
	json_platform(w, p);
}

/* ---- file ---- */

/* Only what the action does; of a copy from an input of the op, where in that input is the selector's business. */
static void text_action(struct buf *out, const Pb__FileAction *fa, size_t n_inputs)
{
	struct json_w w = JSON_W(out);
	Pb__FileActionCopy copy;
	switch (fa->action_case) {
	case PB__FILE_ACTION__ACTION_COPY: {
		copy = *fa->copy;
		_cleanup_free_ char *clean = NULL;
		if (fa->secondaryinput != LLB_NONE && fa->secondaryinput < (int64_t)n_inputs) {
			/* Go's path.Base: trailing slashes do not count, "" is ".", only slashes are "/" */
			size_t n = strlen(copy.src);
			while (n > 1 && copy.src[n - 1] == '/') n--;
			clean = xstrndup(copy.src, n);
			const char *base = strcmp(clean, "/") == 0 ? clean : path_base(clean);
			copy.src = *base ? base : ".";
		}
		llb_json(&w, &copy.base);
		break;
	}
	case PB__FILE_ACTION__ACTION_MKFILE: llb_json(&w, &fa->mkfile->base); break;
	case PB__FILE_ACTION__ACTION_MKDIR: llb_json(&w, &fa->mkdir->base); break;
	case PB__FILE_ACTION__ACTION_RM: llb_json(&w, &fa->rm->base); break;
	case PB__FILE_ACTION__ACTION_SYMLINK: llb_json(&w, &fa->symlink->base); break;
	default: break;
	}
}

/* Each action works on the one before, the first on input 0, and the last one is the output. */
static bool plain_chain(const Pb__FileOp *f)
{
	for (size_t i = 0; i < f->n_actions; i++) {
		const Pb__FileAction *fa = f->actions[i];
		if (fa->input != (i ? (int64_t)(f->n_actions + i - 1) : 0)) return false;
		if (fa->secondaryinput != LLB_NONE && fa->secondaryinput != 1) return false;
		if (fa->output != (i + 1 == f->n_actions ? 0 : LLB_NONE)) return false;
	}
	return f->n_actions > 0;
}

static void text_file(struct json_w *w, const Pb__Op *op)
{
	const Pb__FileOp *f = op->file;
	json_kstr(w, "Type", "buildkit.file.v0");
	json_key(w, "Actions");
	json_arr(w);
	for (size_t i = 0; i < f->n_actions; i++) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		text_action(&b, f->actions[i], op->n_inputs);
		json_base64(w, b.p, b.n);
	}
	json_arr_end(w);
	if (plain_chain(f)) return;
	json_key(w, "indexes");
	json_arr(w);
	for (size_t i = 0; i < f->n_actions; i++) {
		json_arr(w);
		json_int(w, f->actions[i]->input);
		json_int(w, f->actions[i]->secondaryinput);
		json_int(w, f->actions[i]->output);
		json_arr_end(w);
	}
	json_arr_end(w);
}

/* ---- all ---- */

int llb_cache_text(const Pb__Op *op, struct buf *out, struct err *e)
{
	static const struct {
		Pb__Op__OpCase kind;
		const char *type, *key;
	} plain[] = {
		{PB__OP__OP_MERGE, "buildkit.merge.v0", "Merge"},
		{PB__OP__OP_DIFF, "buildkit.diff.v0", "Diff"},
		{PB__OP__OP_BUILD, "buildkit.build.v0", "Exec"},
		{PB__OP__OP_PASSTHROUGH, "buildkit.passthrough.v0", "Passthrough"},
	};
	if (llb_op_validate(op, e) < 0) return -1;
	struct json_w w = JSON_W(out);
	json_obj(&w);
	switch (op->op_case) {
	case PB__OP__OP_EXEC: text_exec(&w, op); break;
	case PB__OP__OP_FILE: text_file(&w, op); break;
	default:
		for (size_t i = 0; i < array_len(plain); i++) {
			if (plain[i].kind != op->op_case) continue;
			json_kstr(&w, "Type", plain[i].type);
			json_key(&w, plain[i].key);
			llb_json(&w, &op->merge->base); /* whichever message it is: the oneof is a union of pointers */
			json_obj_end(&w);
			return 0;
		}
		return err_set(e, CODE_UNKNOWN, "operation without a cache key of its own");
	}
	json_obj_end(&w);
	return 0;
}

/* A merge or diff names its inputs a second time inside; both lists must tell the same. */
static int check_inner_inputs(const Pb__Op *op, struct err *e)
{
	size_t n = op->n_inputs;
	if (op->op_case == PB__OP__OP_MERGE) n = op->merge->n_inputs;
	if (op->op_case == PB__OP__OP_DIFF) n = (op->diff->lower->input != LLB_NONE) + (op->diff->upper->input != LLB_NONE);
	if (n != op->n_inputs)
		return err_set(e, CODE_UNKNOWN, "invalid %s op: it uses %zu inputs but has %zu",
			       op->op_case == PB__OP__OP_MERGE ? "merge" : "diff", n, op->n_inputs);
	return 0;
}

int llb_cache_map(const Pb__Op *op, struct arena *a, struct llb_cache_map *ret, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT;
	if (llb_cache_text(op, &text, e) < 0 || check_inner_inputs(op, e) < 0) return -1;
	struct llb_cache_map m = {.n_deps = op->n_inputs};
	m.deps = arena_alloc(a, (op->n_inputs + 1) * sizeof *m.deps);
	if (!m.deps) return no_room(e);
	digest_str_of(text.p, text.n, m.digest);
	if (op->op_case == PB__OP__OP_EXEC && cache_deps_exec(op, a, &m, e) < 0) return -1;
	if (op->op_case == PB__OP__OP_FILE && cache_deps_file(op, a, &m, e) < 0) return -1;
	*ret = m;
	return 0;
}

void llb_source_digest(const char *key, char out[static DIGEST_STR + 8])
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	buf_addf(&b, "buildkit.source.v0:%s", key);
	struct digest d = digest_of(b.p, b.n);
	char hex[65];
	digest_hex(&d, hex);
	snprintf(out, DIGEST_STR + 8, "%s:%s", str_starts(key, "session:") ? "random" : "sha256", hex);
}
