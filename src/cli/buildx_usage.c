/* `slipway du` and `slipway prune`, laid out as buildx's (commands/diskusage.go, commands/prune.go). */
#include "cli/builder.h"
#include "cli/internal.h"
#include "proto/control.pb-c.h"
#include "proto/methods.h"
#include "spec/size.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define BAD(...) err_set(e, CODE_UNKNOWN, __VA_ARGS__)

/* docker/go-units HumanSize: four significant digits, decimal units. */
static void human_size(int64_t n, char out[static 32])
{
	static const char *const unit[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
	double v = (double)n;
	size_t i = 0;
	for (; v >= 1000 && i + 1 < array_len(unit); i++) v /= 1000;
	snprintf(out, 32, "%.4g%s", v, unit[i]);
}

/* docker/go-units HumanDuration. */
static void human_duration(int64_t ns, char out[static 48])
{
	int64_t s = ns / 1000000000, h = (s + 1800) / 3600;
	static const struct {
		int64_t below_h, div;
		const char *unit;
	} rows[] = {{48, 1, "hours"},
		    {24 * 14, 24, "days"},
		    {24 * 60, 24 * 7, "weeks"},
		    {24 * 730, 24 * 30, "months"},
		    {INT64_MAX, 24 * 365, "years"}};
	if (s < 1)
		snprintf(out, 48, "Less than a second");
	else if (s < 60)
		snprintf(out, 48, "%" PRId64 " second%s", s, s == 1 ? "" : "s");
	else if (s < 120)
		snprintf(out, 48, "About a minute");
	else if (s < 3600)
		snprintf(out, 48, "%" PRId64 " minutes", s / 60);
	else if (h == 1)
		snprintf(out, 48, "About an hour");
	else
		for (size_t i = 0; i < array_len(rows); i++)
			if (h < rows[i].below_h) {
				snprintf(out, 48, "%" PRId64 " %s", h / rows[i].div, rows[i].unit);
				return;
			}
}

/* ---- filters ---- */
static int set_until(const char *key, const char *value, int64_t *ret, struct err *e)
{
	if (*ret) return BAD("conflicting filters \"until\" and \"unused-for\"");
	if (duration_parse(value, ret, e) < 0) return err_wrap(e, "\"%s\" filter expects a duration (e.g., '24h')", key);
	return 0;
}

/* All filters as one that must hold together; the age apart. */
static int read_filters(const struct strvec *v, char **ret, int64_t *ret_until, struct err *e)
{
	_cleanup_strvec_ struct strvec list = {0};
	*ret_until = 0;
	for (size_t i = 0; i < v->n; i++) {
		const char *eq = strchr(v->v[i], '=');
		_cleanup_free_ char *k = eq ? xstrndup(v->v[i], (size_t)(eq - v->v[i])) : xstrdup(v->v[i]);
		size_t n = strlen(k);
		if (!n) return BAD("invalid argument \"%s\" for \"--filter\" flag: invalid filter", v->v[i]);
		if (strcmp(k, "until") == 0 || strcmp(k, "unused-for") == 0) {
			if (set_until(k, eq ? eq + 1 : "", ret_until, e) < 0) return -1;
		} else if (!eq) {
			strvec_add(&list, k);
		} else if (strcmp(k, "id") == 0) {
			strvec_addf(&list, "id~=%s", eq + 1);
		} else {
			strvec_addf(&list, "%s%s%s", k,
				    k[n - 1] == '!' || k[n - 1] == '~' ? "=" : "==", eq + 1 + (eq[1] == '='));
		}
	}
	*ret = strvec_join(&list, ",");
	return 0;
}

static int connect_builder(struct cli *c, struct args *a, struct err *e)
{
	struct builder b = {0};
	int rv = builder_timeout(c, a, e);
	if (rv == 0) rv = builder_find(c, a, &b, e);
	if (rv == 0) rv = builder_connect(c, &b, NULL, e);
	c->timeout_ms = 0; /* what follows may take as long as it does */
	builder_fini(&b);
	return rv;
}

/* ---- du ---- */
static json_t *usage_json(const Control__UsageRecord *u, bool table)
{
	char size[32], ago[64] = "", created[48];
	_cleanup_free_ char *id = xasprintf("%s%s", u->id, table && u->mutable_ ? "*" : "");
	json_t *parents = u->n_parents ? json_array() : json_null();
	struct timespec now = time_now();
	for (size_t i = 0; i < u->n_parents; i++) json_array_append_new(parents, json_string(u->parents[i]));
	human_size(u->size, size);
	if (table && u->shared) strcat(size, "*");
	time_format_go(timestamp_ns(u->createdat), created);
	if (u->lastusedat) {
		human_duration(now.tv_sec * 1000000000LL + now.tv_nsec - timestamp_ns(u->lastusedat), ago);
		strcat(ago, " ago");
	}
	return json_pack("{s:s,s:s,s:s,s:s,s:b,s:o,s:b,s:b,s:s,s:s,s:I}", "CreatedAt", created, "Description", u->description,
			 "ID", id, "LastUsedAt", ago, "Mutable", u->mutable_, "Parents", parents, "Reclaimable", !u->inuse,
			 "Shared", u->shared, "Size", size, "Type", u->recordtype, "UsageCount", (json_int_t)u->usagecount);
}

static const char pretty[] =
	"ID:           {{.ID}}\n"
	"{{- if .Parents}}\nParents:\n{{- range .Parents}}\n - {{.}}\n{{- end}}\n{{- end}}\n"
	"Created at:   {{.CreatedAt}}\nMutable:      {{.Mutable}}\nReclaimable:  {{.Reclaimable}}\nShared:       "
	"{{.Shared}}\nSize:         {{.Size}}\n"
	"{{- if .Description}}\nDescription:  {{.Description}}\n{{- end}}\nUsage count:  {{.UsageCount}}\n"
	"{{- if .LastUsedAt}}\nLast used:    {{.LastUsedAt}}\n{{- end}}\n{{- if .Type}}\nType:         {{.Type}}\n{{- end}}\n";

static void print_summary(Control__UsageRecord *const *v, size_t n)
{
	int64_t total = 0, reclaimable = 0, shared = 0;
	_cleanup_buf_ struct buf text = BUF_INIT, out = BUF_INIT;
	for (size_t i = 0; i < n; i++) {
		total += max_of(v[i]->size, 0);
		if (!v[i]->inuse) reclaimable += max_of(v[i]->size, 0);
		if (v[i]->shared) shared += v[i]->size;
	}
	const struct {
		const char *what;
		int64_t bytes;
		bool show;
	} rows[] = {{"Shared", shared, shared > 0},
		    {"Private", total - shared, shared > 0},
		    {"Reclaimable", reclaimable, true},
		    {"Total", total, true}};
	for (size_t i = 0; i < array_len(rows); i++) {
		char s[32];
		human_size(rows[i].bytes, s);
		if (rows[i].show) buf_addf(&text, "%s:\t%s\n", rows[i].what, s);
	}
	tab_format(buf_str(&text), 1, 8, 1, '\t', &out);
	fputs(buf_str(&out), stdout);
}

static int by_size(const void *a, const void *b)
{
	const Control__UsageRecord *x = *(Control__UsageRecord *const *)a, *y = *(Control__UsageRecord *const *)b;
	return x->size != y->size ? (x->size < y->size ? -1 : 1) : strcmp(x->id, y->id);
}

static const struct {
	const char *field, *header;
} headers[] = {{"ID", "ID"},
	       {"Parents", "PARENTS"},
	       {"CreatedAt", "CREATED AT"},
	       {"Mutable", "MUTABLE"},
	       {"Reclaimable", "RECLAIMABLE"},
	       {"Shared", "SHARED"},
	       {"Size", "SIZE"},
	       {"Description", "DESCRIPTION"},
	       {"UsageCount", "USAGE COUNT"},
	       {"LastUsedAt", "LAST ACCESSED"},
	       {"Type", "TYPE"}};

static int print_table(const char *format, Control__UsageRecord *const *v, size_t n, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT, out = BUF_INIT;
	json_t *head = json_object();
	for (size_t i = 0; i < array_len(headers); i++)
		json_object_set_new(head, headers[i].field, json_string(headers[i].header));
	int rv = template_run(format, head, &text, e);
	json_decref(head);
	buf_addc(&text, '\n');
	for (size_t i = 0; i < n && rv == 0; i++) {
		json_t *o = usage_json(v[i], true);
		rv = template_run(format, o, &text, e);
		buf_addc(&text, '\n');
		json_decref(o);
	}
	tab_format(buf_str(&text), 10, 1, 3, ' ', &out);
	fputs(buf_str(&out), stdout);
	return rv;
}

static int print_each(const char *format, Control__UsageRecord *const *v, size_t n, struct err *e)
{
	int rv = 0;
	for (size_t i = 0; i < n && rv == 0; i++) {
		_cleanup_buf_ struct buf out = BUF_INIT;
		json_t *o = usage_json(v[i], false);
		rv = template_run(format, o, &out, e);
		if (rv == 0) printf("%s\n", buf_str(&out));
		json_decref(o);
	}
	return rv;
}

static int print_usage(struct args *a, const Control__DiskUsageResponse *r, struct err *e)
{
	const char *format = args_str(a, "format");
	bool verbose = args_bool(a, "verbose"), own = !*format || strcmp(format, "table") == 0 || strcmp(format, "pretty") == 0;
	int rv;
	if (*format && verbose) return BAD("--format and --verbose cannot be used together");
	if (verbose || strcmp(format, "pretty") == 0)
		rv = print_each(pretty, r->record, r->n_record, e);
	else if (own)
		rv = print_table("{{.ID}}\t{{.Reclaimable}}\t{{.Size}}\t{{.LastUsedAt}}", r->record, r->n_record, e);
	else if (str_starts(format, "table "))
		rv = print_table(format + 6, r->record, r->n_record, e);
	else
		rv = print_each(format, r->record, r->n_record, e);
	if (rv == 0 && own && !args_list(a, "filter")->n) print_summary(r->record, r->n_record);
	return rv;
}

int buildx_du(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_arena_ struct arena *mem = arena_new(CLI_REPLY_MAX);
	_cleanup_free_ char *filter = NULL;
	Control__DiskUsageRequest req = CONTROL__DISK_USAGE_REQUEST__INIT;
	int64_t until;
	void *m = NULL;
	int rv = read_filters(args_list(a, "filter"), &filter, &until, &e);
	const char *one = filter;
	req.filter = &one;
	req.n_filter = 1;
	if (rv == 0) rv = connect_builder(c, a, &e);
	if (rv == 0 &&
	    cli_unary(c, METHOD_CONTROL_DISK_USAGE, &req.base, &control__disk_usage_response__descriptor, mem, &m, &e) < 0) {
		cli_error_plain(&e);
		rv = err_wrap(&e, "failed to call diskusage");
	}
	Control__DiskUsageResponse *r = m;
	if (rv == 0 && r->n_record) qsort(r->record, r->n_record, sizeof *r->record, by_size);
	if (rv == 0) rv = print_usage(a, r, &e);
	return rv < 0 ? cli_fail(c, &e) : 0;
}

/* ---- prune ---- */
struct prune {
	int64_t total;
	bool any, verbose;
};

static void pruned(void *arg, const uint8_t *p, size_t n)
{
	struct prune *x = arg;
	_cleanup_arena_ struct arena *mem = arena_new(1 << 20);
	_cleanup_buf_ struct buf text = BUF_INIT, out = BUF_INIT;
	Control__UsageRecord *u = wire_unpack_as(Control__UsageRecord, control__usage_record, p, n, mem, NULL);
	char size[32];
	if (!u) return;
	x->total += u->size;
	if (x->verbose) {
		print_each(pretty, &u, 1, NULL);
		return;
	}
	if (!x->any) buf_adds(&text, "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED\n");
	x->any = true;
	human_size(u->size, size);
	_cleanup_free_ char *id = xasprintf("%s%s", u->id, u->mutable_ ? "*" : "");
	buf_addf(&text, "%-40s\t%-5s\t%s%s\t\n", id, u->inuse ? "false" : "true", size, u->shared ? "*" : "");
	tab_format(buf_str(&text), 1, 8, 1, '\t', &out);
	fputs(buf_str(&out), stdout);
	fflush(stdout);
}

static bool confirmed(bool all)
{
	char line[64];
	printf("WARNING! This will remove all %sbuild cache. Are you sure you want to continue? [y/N] ",
	       all ? "" : "dangling ");
	fflush(stdout);
	return fgets(line, sizeof line, stdin) && (line[0] == 'y' || line[0] == 'Y');
}

static int64_t bytes_of(struct args *a, const char *flag)
{
	int64_t n = 0;
	if (*args_str(a, flag)) spec_size_parse(args_str(a, flag), &n, NULL);
	return n;
}

int buildx_prune(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_free_ char *filter = NULL;
	Control__PruneRequest req = CONTROL__PRUNE_REQUEST__INIT;
	struct prune x = {.verbose = args_bool(a, "verbose")};
	char s[32];
	req.all = args_bool(a, "all");
	if (read_filters(args_list(a, "filter"), &filter, &req.keepduration, &e) < 0) return cli_fail(c, &e);
	if (!args_bool(a, "force") && !confirmed(req.all)) return 0;
	const char *one = filter;
	req.filter = &one;
	req.n_filter = 1;
	req.reservedspace = max_of(bytes_of(a, "reserved-space"), bytes_of(a, "keep-storage"));
	req.maxusedspace = bytes_of(a, "max-used-space");
	req.minfreespace = bytes_of(a, "min-free-space");
	if (connect_builder(c, a, &e) < 0) return cli_fail(c, &e);
	if (cli_stream(c, METHOD_CONTROL_PRUNE, &req.base, pruned, &x, &e) < 0) {
		cli_error_plain(&e);
		return cli_fail(c, &e);
	}
	human_size(x.total, s);
	printf("Total:\t%s\n", s);
	return 0;
}
