/* ls and inspect: what the store says of a builder and what its daemons answer. Nothing is booted to be shown, but by
 * --bootstrap. Source: buildx commands/{ls,inspect}.go, util/platformutil. */
#include "cli/boot.h"
#include "cli/builder.h"
#include "cli/builders.h"
#include "proto/control.pb-c.h"
#include "proto/methods.h"

#include <string.h>

/* ---- what a node says ---- */

struct node_view {
	const struct drive_node *stored; /* NULL: of no stored builder */
	const char *name, *endpoint;
	const char *status; /* "running", "inactive", "stopped", "error" */
	struct arena *mem;
	Control__ListWorkersResponse *workers; /* NULL: it was not asked or did not answer */
	const char *version;
	struct err err;
};
struct builder_view {
	struct builder b; /* embedded, an address, or its name and driver */
	bool current;
	VEC(struct node_view) nodes;
};

static void disconnect(struct cli *c)
{
	if (c->conn) wire_conn_close(c->conn);
	while (c->conn) uv_run(loop_uv(c->loop), UV_RUN_ONCE);
	cli_pump_stop(c);
}

static void ask_daemon(struct cli *c, struct node_view *v)
{
	void *workers = NULL, *info = NULL;
	if (cli_unary(c, METHOD_CONTROL_LIST_WORKERS, NULL, &control__list_workers_response__descriptor, v->mem, &workers,
		      &v->err) < 0) {
		err_wrap(&v->err, "listing workers");
		v->status = "error";
		return;
	}
	v->workers = workers;
	v->status = "running";
	cli_unary(c, METHOD_CONTROL_INFO, NULL, &control__info_response__descriptor, v->mem, &info, NULL);
	const Types__BuildkitVersion *version = info ? ((Control__InfoResponse *)info)->buildkitversion : NULL;
	v->version = version ? version->version : "";
}

static void look(struct cli *c, struct builder *b, struct node_view *v)
{
	enum drive_state state = DRIVE_RUNNING;
	bool container = !strcmp(b->driver, "docker-container");
	v->mem = arena_new(CLI_REPLY_MAX);
	v->version = "";
	v->status = "error";
	if (b->status) {
		err_set(&v->err, CODE_UNKNOWN, "%s", b->status);
	} else if (!*b->addr && !container) { /* an embedded daemon that does not run */
		v->status = "inactive";
	} else if (container && drive_container_state(v->stored, &state, &v->err) < 0) {
		return;
	} else if (state != DRIVE_RUNNING) {
		v->status = drive_state_names[state];
	} else if (builder_connect(c, b, NULL, &v->err) == 0) {
		ask_daemon(c, v);
	} else if (!strcmp(b->driver, "remote") && v->err.code == CODE_UNAVAILABLE && b->stored.name) {
		v->status = "inactive";
		err_fini(&v->err);
	}
	disconnect(c);
}

/* Each node by itself: a builder that is reached through its first node is given another first node. */
static void look_at_nodes(struct cli *c, struct builder_view *w)
{
	struct drive_builder *stored = &w->b.stored;
	for (size_t i = 0; i < max_of(stored->nodes.n, (size_t)!stored->name); i++) {
		struct node_view *v = vec_add(&w->nodes);
		struct builder one = {0};
		if (!stored->name) {
			v->name = w->b.node;
			v->endpoint = *w->b.addr ? w->b.addr : "(starts when needed)";
			look(c, &w->b, v);
			continue;
		}
		v->stored = &stored->nodes.v[i];
		v->name = v->stored->name;
		v->endpoint = v->stored->endpoint;
		builder_of_node(stored, v->stored, &one);
		one.stored = (struct drive_builder){.name = stored->name, .driver = stored->driver};
		one.stored.nodes.v = &stored->nodes.v[i]; /* lent */
		one.stored.nodes.n = 1;
		look(c, &one, v);
		one.stored = (struct drive_builder){0};
		builder_fini(&one);
	}
}

static void view_fini(struct builder_view *w)
{
	for (size_t i = 0; i < w->nodes.n; i++) {
		arena_free(w->nodes.v[i].mem);
		err_fini(&w->nodes.v[i].err);
	}
	vec_fini(&w->nodes);
	builder_fini(&w->b);
}

/* ---- platforms ---- */

/* Of all workers, each once; "linux/amd64" first as they come. */
static void platforms_of(const struct node_view *v, struct strvec *ret)
{
	for (size_t i = 0; v->workers && i < v->workers->n_record; i++)
		for (size_t k = 0; k < v->workers->record[i]->n_platforms; k++) {
			const Pb__Platform *p = v->workers->record[i]->platforms[k];
			_cleanup_free_ char *s =
				xasprintf("%s/%s%s%s", p->os, p->architecture, *p->variant ? "/" : "", p->variant);
			if (strvec_find(ret, s) < 0) strvec_add(ret, s);
		}
}

/* Those given at the builder's making with a star, the others behind them. */
static char *platforms_long(const struct node_view *v)
{
	_cleanup_strvec_ struct strvec all = {0}, out = {0};
	for (size_t i = 0; v->stored && i < v->stored->platforms.n; i++) strvec_addf(&out, "%s*", v->stored->platforms.v[i]);
	platforms_of(v, &all);
	for (size_t i = 0; i < all.n; i++)
		if (!v->stored || strvec_find(&v->stored->platforms, all.v[i]) < 0) strvec_add(&out, all.v[i]);
	return strvec_join(&out, ", ");
}

static bool is_variant_of(const char *s, const char *base)
{
	size_t n = strlen(base);
	return !strncmp(s, base, n) && s[n] == '/';
}

/* "linux/amd64 (+3), linux/386": the variants of amd64 behind its name. */
static char *platforms_short(const struct node_view *v)
{
	_cleanup_strvec_ struct strvec all = {0}, out = {0};
	static const char folded[] = "linux/amd64";
	platforms_of(v, &all);
	for (size_t i = 0; i < all.n; i++) {
		size_t variants = 0;
		for (size_t k = 0; k < all.n; k++) variants += is_variant_of(all.v[k], folded);
		if (is_variant_of(all.v[i], folded)) continue;
		if (!strcmp(all.v[i], folded) && variants)
			strvec_addf(&out, "%s (+%zu)", folded, variants + 1);
		else
			strvec_add(&out, all.v[i]);
	}
	return strvec_join(&out, ", ");
}

/* ---- inspect ---- */

/* docker/go-units' BytesSize: "488.3MiB". */
static void binary_size(int64_t n, char out[static 32])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double d = (double)n;
	size_t i = 0;
	for (; d >= 1024 && i + 1 < array_len(units); i++) d /= 1024;
	snprintf(out, 32, "%.4g%s", d, units[i]);
}

static void put_space(struct buf *t, const char *what, int64_t n)
{
	char s[32];
	if (n <= 0) return;
	binary_size(n, s);
	buf_addf(t, " %s:\t%s\n", what, s);
}

static void put_policies(const Types__WorkerRecord *r, struct buf *t)
{
	for (size_t i = 0; i < r->n_gcpolicy; i++) {
		const Types__GCPolicy *p = r->gcpolicy[i];
		char s[32];
		buf_addf(t, "GC Policy rule#%zu:\n All:\t%s\n", i, p->all ? "true" : "false");
		for (size_t k = 0; k < p->n_filters; k++)
			buf_addf(t, "%s%s%s", k ? " " : " Filters:\t", p->filters[k], k + 1 < p->n_filters ? "" : "\n");
		duration_format(p->keepduration, s);
		if (p->keepduration > 0) buf_addf(t, " Keep Duration:\t%s\n", s);
		put_space(t, "Reserved Space", p->reservedspace);
		put_space(t, "Max Used Space", p->maxusedspace);
		put_space(t, "Min Free Space", p->minfreespace);
	}
}

static int by_key(const void *a, const void *b)
{
	return strcmp((*(Types__WorkerRecord__LabelsEntry *const *)a)->key,
		      (*(Types__WorkerRecord__LabelsEntry *const *)b)->key);
}

static void put_labels(Types__WorkerRecord *r, struct buf *t)
{
	if (r->n_labels) buf_adds(t, "Labels:\n");
	if (r->n_labels) qsort(r->labels, r->n_labels, sizeof *r->labels, by_key);
	for (size_t i = 0; i < r->n_labels; i++) buf_addf(t, " %s:\t%s\n", r->labels[i]->key, r->labels[i]->value);
}

static void put_files(const struct drive_node *n, struct buf *t)
{
	for (size_t i = 0; n && i < n->files.n; i++) {
		_cleanup_free_ char *text = xstrndup(n->files.v[i].data, n->files.v[i].n);
		char *rest = text;
		buf_addf(t, "File#%s:\n", n->files.v[i].path);
		for (char *line; (line = strsep(&rest, "\n"));) buf_addf(t, " > %s\n", line);
	}
}

static void put_node(const struct node_view *v, struct buf *t)
{
	_cleanup_free_ char *platforms = platforms_long(v);
	buf_addf(t, "Name:\t%s\nEndpoint:\t%s\n", v->name, v->endpoint);
	for (size_t i = 0; v->stored && i < v->stored->opts.n; i++) {
		const char *kv = v->stored->opts.v[i];
		size_t k = strcspn(kv, "=");
		_cleanup_free_ char *quoted = kv[k] ? go_quote(kv + k + 1, strlen(kv + k + 1)) : xstrdup("\"\"");
		buf_addf(t, "%s%.*s=%s%s", i ? " " : "Driver Options:\t", (int)k, kv, quoted,
			 i + 1 < v->stored->opts.n ? "" : "\n");
	}
	if (err_is_set(&v->err)) {
		buf_addf(t, "Error:\t%s\n", v->err.msg);
		return;
	}
	buf_addf(t, "Status:\t%s\n", v->status);
	if (v->stored && v->stored->flags.n) {
		_cleanup_free_ char *flags = strvec_join(&v->stored->flags, " ");
		buf_addf(t, "BuildKit daemon flags:\t%s\n", flags);
	}
	if (*v->version) buf_addf(t, "BuildKit version:\t%s\n", v->version);
	if (*platforms) buf_addf(t, "Platforms:\t%s\n", platforms);
	if (v->workers && v->workers->n_record) {
		put_labels(v->workers->record[0], t);
		put_policies(v->workers->record[0], t);
	}
	put_files(v->stored, t);
}

/* Go's tabwriter aligns runs of lines that have a tab; lines without one end a run. */
static void print_aligned(const struct buf *t)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	tab_format(buf_str(t), 0, 0, 1, ' ', &out);
	fputs(buf_str(&out), stdout);
}

static void print_inspect(const struct builder_view *w)
{
	_cleanup_buf_ struct buf t = BUF_INIT;
	_cleanup_free_ char *activity = w->b.stored.name ? drive_store_activity(w->b.stored.name) : NULL;
	struct timespec at;
	char when[48];
	buf_addf(&t, "Name:\t%s\nDriver:\t%s\n", w->b.name, w->b.driver);
	if (activity && time_parse_rfc3339(activity, &at, NULL) == 0) {
		time_format_go(at.tv_sec * 1000000000LL, when);
		buf_addf(&t, "Last Activity:\t%s\n", when);
	}
	buf_adds(&t, "\nNodes:\n");
	for (size_t i = 0; i < w->nodes.n; i++) {
		if (i) buf_addc(&t, '\n');
		put_node(&w->nodes.v[i], &t);
	}
	print_aligned(&t);
}

static int find_named(struct cli *c, struct args *a, struct builder *ret, struct err *e)
{
	_cleanup_err_ struct err why = ERR_INIT;
	struct drive_builder stored = {0};
	if (!a->rest.n) return builder_find(c, a, ret, e);
	if (drive_store_load(a->rest.v[0], &stored, &why) < 0)
		return why.code == CODE_NOT_FOUND ? err_set(e, CODE_NOT_FOUND, "no builder \"%s\" found", a->rest.v[0])
						  : err_move(e, &why);
	builder_of_node(&stored, stored.nodes.n ? &stored.nodes.v[0] : NULL, ret);
	ret->stored = stored;
	return 0;
}

static int boot(const struct builder *b, struct err *e)
{
	for (size_t i = 0; i < b->stored.nodes.n && !strcmp(b->driver, "docker-container"); i++) {
		enum drive_state state;
		if (drive_container_state(&b->stored.nodes.v[i], &state, e) < 0) return -1;
		if (state != DRIVE_RUNNING && boot_container_alone(&b->stored.nodes.v[i], e) < 0) return -1;
	}
	return 0;
}

int builders_inspect(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	struct builder_view w = {0};
	int rv = builder_timeout(c, a, &e);
	if (rv == 0) rv = find_named(c, a, &w.b, &e);
	if (rv == 0 && args_bool(a, "bootstrap")) rv = boot(&w.b, &e);
	if (rv == 0) {
		look_at_nodes(c, &w);
		print_inspect(&w);
	}
	view_fini(&w);
	return rv < 0 ? cli_fail(c, &e) : 0;
}

/* ---- ls ---- */

static json_t *strings(const struct strvec *v)
{
	json_t *list = json_array();
	for (size_t i = 0; i < v->n; i++) json_array_append_new(list, json_string(v->v[i]));
	return list;
}

static json_t *node_json(const struct node_view *v)
{
	_cleanup_strvec_ struct strvec platforms = {0}, ids = {0};
	json_t *o = json_pack("{s:s,s:s}", "Endpoint", v->endpoint, "Name", v->name);
	platforms_of(v, &platforms);
	for (size_t i = 0; v->workers && i < v->workers->n_record; i++) strvec_add(&ids, v->workers->record[i]->id);
	if (v->stored && v->stored->flags.n) json_object_set_new(o, "Flags", strings(&v->stored->flags));
	if (ids.n) json_object_set_new(o, "IDs", strings(&ids));
	if (platforms.n) json_object_set_new(o, "Platforms", strings(&platforms));
	if (err_is_set(&v->err))
		json_object_set_new(o, "Err", json_string(v->err.msg));
	else
		json_object_set_new(o, "Status", json_string(v->status));
	if (*v->version) json_object_set_new(o, "Version", json_string(v->version));
	return o;
}

static json_t *view_json(const struct builder_view *w)
{
	_cleanup_free_ char *activity = w->b.stored.name ? drive_store_activity(w->b.stored.name) : NULL;
	json_t *nodes = json_array();
	for (size_t i = 0; i < w->nodes.n; i++) json_array_append_new(nodes, node_json(&w->nodes.v[i]));
	return json_pack("{s:b,s:s,s:b,s:s,s:s,s:o}", "Current", w->current, "Driver", w->b.driver, "Dynamic", 0,
			 "LastActivity", activity ? activity : "0001-01-01T00:00:00Z", "Name", w->b.name, "Nodes", nodes);
}

static void put_row(const struct builder_view *w, struct buf *t)
{
	buf_addf(t, "%s%s\t%s\t\t\t\n", w->b.name, w->current ? "*" : "", w->b.driver);
	for (size_t i = 0; i < w->nodes.n; i++) {
		const struct node_view *v = &w->nodes.v[i];
		_cleanup_free_ char *platforms = platforms_short(v);
		buf_addf(t, " \\_ %s\t \\_ %s\t%s\t%s\t%s\n", v->name, v->endpoint, err_is_set(&v->err) ? "error" : v->status,
			 v->version, platforms);
	}
}

static int print_format(const char *format, json_t *row, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	_cleanup_free_ char *text = !strcmp(format, "json") ? json_dumps(row, JSON_COMPACT) : NULL;
	if (text)
		puts(text);
	else if (template_run(format, row, &out, e) < 0)
		return -1;
	else
		puts(buf_str(&out));
	return 0;
}

static void print_errors(const struct builder_view *w)
{
	for (size_t i = 0; i < w->nodes.n; i++)
		if (err_is_set(&w->nodes.v[i].err))
			fprintf(stderr, "\nFailed to get status for %s (%s): %s\n", w->b.name, w->nodes.v[i].name,
				w->nodes.v[i].err.msg);
}

int builders_ls(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_buf_ struct buf text = BUF_INIT, out = BUF_INIT;
	struct builders list = {0};
	VEC(struct builder_view) views = {0};
	const char *format = args_str(a, "format");
	int rv = builder_timeout(c, a, &e);
	if (rv == 0) rv = builder_list(c, a, &list, &e);
	buf_adds(&text, "NAME/NODE\tDRIVER/ENDPOINT\tSTATUS\tBUILDKIT\tPLATFORMS\n");
	for (size_t i = 0; rv == 0 && i < list.n; i++) {
		struct builder_view *w = vec_add(&views);
		w->b = list.v[i];
		w->current = i == 0;
		look_at_nodes(c, w);
		put_row(w, &text);
		json_t *row = view_json(w);
		if (*format && strcmp(format, "table") != 0) rv = print_format(format, row, &e);
		json_decref(row);
	}
	tab_format(buf_str(&text), 0, 1, 3, ' ', &out);
	if (!*format || !strcmp(format, "table")) fputs(buf_str(&out), stdout);
	fflush(stdout);
	for (size_t i = 0; i < views.n; i++) print_errors(&views.v[i]);
	for (size_t i = views.n; i < list.n; i++) builder_fini(&list.v[i]);
	for (size_t i = 0; i < views.n; i++) view_fini(&views.v[i]);
	vec_fini(&views);
	vec_fini(&list);
	return rv < 0 ? cli_fail(c, &e) : 0;
}
