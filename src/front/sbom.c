/* The SBOM scanner: a container that sees the result, and what else was asked for, read-only, and writes what it finds.
 * Source: BuildKit frontend/attestations/sbom/sbom.go, frontend/dockerfile/dockerfile2llb/convert.go. */
#include "front/subrequest.h"

#include <string.h>

#define SRC "/run/src"
#define OUT "/run/out/"

int sbom_begin(struct front *f, struct sbom *ret, struct err *e)
{
	const struct front_question q = {
		.ask = FRONT_IMAGE_META,
		.ref = f->cfg.sbom_generator,
		.platform = f->cfg.build_platform,
		.resolve_mode = front_optz(f, "image-resolve-mode"),
	};
	const struct front_answer *ans;
	if (front_ask(f, q, &ans) == PENDING) return PENDING;
	if (err_is_set(&ans->err)) {
		err_copy(e, &ans->err);
		return -1;
	}
	ret->image = ans->ref ? ans->ref : q.ref;
	if (image_parse(f->a, ans->data, ans->n, &ret->config, e) < 0) return -1;
	if (!ret->config.entrypoint.n && !ret->config.cmd.n)
		return err_set(e, CODE_UNKNOWN, "scanner %s does not have cmd", ret->image);
	return FOUND;
}

struct extra {
	const char *name;
	struct output *from;
};
struct extras {
	struct extra *v;
	size_t n;
};

static void add_extra(struct arena *a, struct extras *l, const char *name, struct output *from)
{
	for (size_t i = 0; i < l->n; i++) {
		if (strcmp(l->v[i].name, name) != 0) continue;
		l->v[i].from = from;
		return;
	}
	struct extra x = {name, from};
	LLB_PUSH(a, l->n, l->v, x);
}

static struct extras find_extras(struct conv *c, struct stage *target, bool *ignore_cache)
{
	struct extras l = {0};
	*ignore_cache = target->ignore_cache;
	if (target->scan_context) add_extra(c->a, &l, "context", &c->build_context);
	conv_reach(c, target);
	for (size_t i = 0; i < c->n_stages; i++) {
		struct stage *d = c->stages[i];
		if (d == target || d->reached != c->walk || !d->scan_stage) continue;
		add_extra(c->a, &l, d->name, d->state.out);
		*ignore_cache |= d->ignore_cache;
	}
	return l;
}

static struct exec *scanner(struct front *f, const struct sbom *s, const struct state *image, bool extras)
{
	struct arena *a = f->a;
	struct exec *x = arena_new_of(a, struct exec);
	struct strs args = strs_clone(a, &s->config.entrypoint);
	for (size_t i = 0; i < s->config.cmd.n; i++) strs_add(a, &args, s->config.cmd.v[i]);
	struct state st = state_dir(a, *image, s->config.working_dir);
	for (size_t i = 0; i < s->config.env.n; i++) {
		const char *kv = s->config.env.v[i], *eq = strchr(kv, '=');
		st = state_env(a, st, eq ? arena_strndup(a, kv, (size_t)(eq - kv)) : kv, eq ? eq + 1 : "");
	}
	st = state_env(a, st, "BUILDKIT_SCAN_DESTINATION", OUT);
	st = state_env(a, st, "BUILDKIT_SCAN_SOURCE", SRC "/core/sbom");
	if (extras) st = state_env(a, st, "BUILDKIT_SCAN_SOURCE_EXTRAS", SRC "/extras");
	for (size_t i = 0; i < f->cfg.n_sbom_params; i++)
		st = state_env(a, st, arena_printf(a, "BUILDKIT_SCAN_%s", f->cfg.sbom_params[i].key),
			       f->cfg.sbom_params[i].value);
	x->base = st;
	x->args = args.v;
	x->n_args = args.n;
	return x;
}

static void put_attestation(struct front *f, struct front_ref *ref, const Pb__Definition *def)
{
	struct front_kv *md = arena_alloc(f->a, 2 * sizeof *md);
	md[0] = (struct front_kv){"reason", "sbom", 4};
	md[1] = (struct front_kv){"sbom-core", "sbom", 4};
	struct front_attestation at = {
		.def = def,
		.path = "",
		.predicate_type = "https://spdx.dev/Document",
		.metadata = md,
		.n_metadata = 2,
	};
	LLB_PUSH(f->a, ref->n_attestations, ref->attestations, at);
}

int sbom_attest(struct front *f, const struct sbom *s, struct conv *c, struct stage *target, struct front_ref *ref,
		struct err *e)
{
	struct arena *a = f->a;
	struct note note = note_new(a), run = note_new(a);
	bool ignore_cache;
	const struct extras extras = find_extras(c, target, &ignore_cache);
	run.meta->ignore_cache = ignore_cache;
	_cleanup_spec_ref_ struct spec_ref full = {0};
	if (spec_ref_parse_tagged(s->image, &full, e) < 0) return -1;
	_cleanup_free_ char *image_text = spec_ref_format(&full);
	note.platform = f->cfg.build_platform;
	const struct state image = state_of(a, image_output(a, image_text, NULL, &note));
	struct exec *x = scanner(f, s, &image, extras.n);
	note_name(a, &run, arena_printf(a, "[%s] generating sbom using %s", ref->platform_id, s->image));
	struct state after = state_run(a, x, &run);
	exec_mount(a, x, "/tmp", NULL)->tmpfs = true;
	exec_mount(a, x, SRC "/core/sbom", target->state.out)->readonly = true;
	for (size_t i = 0; i < extras.n; i++)
		exec_mount(a, x, arena_printf(a, SRC "/extras/sbom-%s", extras.v[i].name), extras.v[i].from)->readonly = true;
	const struct mount *out = exec_mount(a, x, OUT, NULL);
	Pb__Definition *def;
	if (front_marshal(f, exec_output(a, &after, out), NULL, &def, NULL, e) < 0) return -1;
	put_attestation(f, ref, def);
	return FOUND;
}
