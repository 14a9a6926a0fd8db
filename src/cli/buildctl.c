/* buildctl's commands: the tables, and those that ask the daemon one thing and print it. Names, texts and layouts are the
 * real program's (cmd/buildctl), for scripts and for buildx, which runs `buildctl debug workers` and `buildctl dial-stdio`. */
#include "cli/internal.h"
#include "proto/control.pb-c.h"
#include "proto/methods.h"
#include "spec/platform.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* ---- the tables ---- */
static const struct flag global_flags[] = {
	{"debug", 0, FLAG_BOOL, "enable debug output in logs"},
	{"addr", 0, FLAG_STRING, "buildkitd address", "unix:///run/buildkit/buildkitd.sock", "BUILDKIT_HOST"},
	{"log-format", 0, FLAG_STRING, "log formatter: json or text", "text"},
	{"tlsservername", 0, FLAG_STRING, "buildkitd server name for certificate validation"},
	{"tlscacert", 0, FLAG_STRING, "CA certificate for validation"},
	{"tlscert", 0, FLAG_STRING, "client certificate"},
	{"tlskey", 0, FLAG_STRING, "client key"},
	{"tlsdir", 0, FLAG_STRING,
	 "directory containing CA certificate, client certificate, and client key. Supported file names are (ca.pem, cert.pem, "
	 "key.pem) or "
	 "(ca.crt, tls.crt, tls.key)"},
	{"timeout", 0, FLAG_INT, "timeout backend connection after value seconds", "5"},
	{"wait", 0, FLAG_BOOL, "block RPCs until the connection becomes available"},
	{0},
};
#define FORMAT_FLAG                                                                                          \
	{                                                                                                    \
		"format", 0, FLAG_STRING, "Format the output using the given Go template, e.g, '{{json .}}'" \
	}
#define VERBOSE_FLAG                                        \
	{                                                   \
		"verbose", 'v', FLAG_BOOL, "Verbose output" \
	}
static const struct flag du_flags[] = {{"filter", 'f', FLAG_LIST, "Filter records"}, VERBOSE_FLAG, FORMAT_FLAG, {0}};
static const struct flag prune_flags[] = {
	{"keep-duration", 0, FLAG_DURATION, "Keep data newer than this limit", "0s"},
	{"keep-storage", 0, FLAG_FLOAT, "Keep data below this limit (in MB)", "0"},
	{"keep-storage-min", 0, FLAG_FLOAT, "Always allow data above this limit (in MB)", "0"},
	{"free-storage", 0, FLAG_FLOAT, "Keep free data below this limit (in MB)", "0"},
	{"filter", 'f', FLAG_LIST, "Filter records"},
	{"all", 0, FLAG_BOOL, "Include internal/frontend references"},
	VERBOSE_FLAG,
	FORMAT_FLAG,
	{0},
};
static const struct flag workers_flags[] = {
	{"filter", 'f', FLAG_LIST, "containerd-style filter string slice"}, VERBOSE_FLAG, FORMAT_FLAG, {0}};
static const struct flag info_flags[] = {FORMAT_FLAG, {0}};
static const struct flag build_flags[] = {
	{"output", 'o', FLAG_LIST,
	 "Define exports for build result, e.g. --output type=image,name=docker.io/username/image,push=true"},
	{"progress", 0, FLAG_STRING, "Set type of progress (auto, plain, tty, rawjson). Use plain to show container output",
	 "auto", .values = "auto|plain|tty|rawjson"},
	{"trace", 0, FLAG_STRING, "Path to trace file. Defaults to no tracing."},
	{"local", 0, FLAG_LIST, "Allow build access to the local directory"},
	{"oci-layout", 0, FLAG_LIST, "Allow build access to the local OCI layout"},
	{"frontend", 0, FLAG_STRING, "Define frontend used for build", .values = "dockerfile.v0|gateway.v0"},
	{"opt", 0, FLAG_LIST, "Define custom options for frontend, e.g. --opt target=foo --opt build-arg:foo=bar"},
	{"no-cache", 0, FLAG_BOOL, "Disable cache for all the vertices"},
	{"export-cache", 0, FLAG_LIST,
	 "Export build cache, e.g. --export-cache type=registry,ref=example.com/foo/bar, or --export-cache "
	 "type=local,dest=path/to/dir"},
	{"import-cache", 0, FLAG_LIST,
	 "Import build cache, e.g. --import-cache type=registry,ref=example.com/foo/bar, or --import-cache "
	 "type=local,src=path/to/dir"},
	{"secret", 0, FLAG_LIST, "Secret value exposed to the build. Format id=secretname,src=filepath"},
	{"allow", 0, FLAG_LIST, "Allow extra privileged entitlement, e.g. network.host, security.insecure, device"},
	{"ssh", 0, FLAG_LIST,
	 "Allow forwarding SSH agent or a raw Unix socket to the builder. Format "
	 "default|<id>[=<socket>[,raw=false]|<key>[,<key>]]"},
	{"metadata-file", 0, FLAG_STRING, "Output build metadata (e.g., image digest) to a file as JSON"},
	{"source-policy-file", 0, FLAG_STRING, "Read source policy file from a JSON file"},
	{"proxy-network", 0, FLAG_BOOL, "Run build with proxy network enforcement"},
	{"ref-file", 0, FLAG_STRING, "Write build ref to a file"},
	{"registry-auth-tlscontext", 0, FLAG_LIST,
	 "Overwrite TLS configuration when authenticating with registries, e.g. --registry-auth-tlscontext "
	 "host=https://myserver:2376,insecure=false,ca=/path/to/my/ca.crt,cert=/path/to/my/cert.crt,key=/path/to/my/key.crt"},
	{"debug-json-cache-metrics", 0, FLAG_STRING,
	 "Where to output json cache metrics, use 'stdout' or 'stderr' for standard (error) output."},
	{0},
};
static const struct command debug_commands[] = {
	{"workers", NULL, "list workers", .flags = workers_flags, .run = buildctl_workers},
	{"info", NULL, "display internal information", .flags = info_flags, .run = buildctl_info},
	{0},
};
static const struct command commands[] = {
	{"du", NULL, "disk usage", .flags = du_flags, .run = buildctl_du},
	{"prune", NULL, "clean up build cache", .flags = prune_flags, .run = buildctl_prune},
	{"build", "b", "build",
	 "\n     To build and push an image using Dockerfile:\n       $ buildctl build --frontend dockerfile.v0 --opt "
	 "target=foo --opt "
	 "build-arg:foo=bar --local context=. --local dockerfile=. --output "
	 "type=image,name=docker.io/username/image,push=true\n     \n",
	 .flags = build_flags, .run = buildctl_build},
	{"debug", NULL, "debug utilities", .sub = debug_commands},
	{"dial-stdio", .run = buildctl_dial_stdio},
	{0},
};
const struct command buildctl_root = {"buildctl", NULL, "build utility", .flags = global_flags, .sub = commands};

/* ---- the connection ---- */
static int tls_file(const char *dir, const char *either, const char * or, char **ret, struct err *e)
{
	for (const char *const *name = (const char *const[]){either, or, NULL}; *name; name++) {
		_cleanup_free_ char *path = path_join(dir, *name);
		if (access(path, F_OK) == 0) {
			*ret = take_ptr(path);
			return 0;
		}
		if (errno != ENOENT) return err_sys(e, errno, "stat %s", path);
	}
	return err_set(e, CODE_UNKNOWN, "directory did not contain one of the needed files: %s or %s", either, or);
}

static int wait_ready(struct cli *c, struct err *e)
{
	_cleanup_arena_ struct arena *mem = arena_new(1 << 20);
	_cleanup_err_ struct err why = ERR_INIT;
	void *ignored;
	if (cli_unary(c, METHOD_CONTROL_INFO, NULL, &control__info_response__descriptor, mem, &ignored, &why) == 0) return 0;
	return why.code == CODE_UNIMPLEMENTED ? 0 : err_move(e, &why);
}

int buildctl_connect(struct cli *c, struct args *a, struct err *e)
{
	const char *dir = args_str(a, "tlsdir"), *name = args_str(a, "tlsservername");
	_cleanup_free_ char *ca = xstrdup(args_str(a, "tlscacert")), *cert = xstrdup(args_str(a, "tlscert")),
			    *key = xstrdup(args_str(a, "tlskey"));
	if (*dir) {
		if (*ca || *cert || *key)
			return err_set(e, CODE_UNKNOWN, "cannot specify tlsdir and tlscacert/tlscert/tlskey at the same time");
		char **const all[] = {&ca, &cert, &key};
		for (size_t i = 0; i < array_len(all); i++) free(take_ptr(*all[i]));
		if (tls_file(dir, "ca.pem", "ca.crt", &ca, e) < 0 || tls_file(dir, "cert.pem", "tls.crt", &cert, e) < 0 ||
		    tls_file(dir, "key.pem", "tls.key", &key, e) < 0)
			return -1;
	}
	struct wire_tls tls = {.ca = *ca ? ca : NULL,
			       .cert = *cert ? cert : NULL,
			       .key = *key ? key : NULL,
			       .server_name = *name ? name : NULL};
	bool secure = tls.ca || tls.cert || tls.key;
	uint64_t timeout_ms = (uint64_t)max_of(args_int(a, "timeout"), 0) * 1000;
	int64_t deadline = time_mono_ns() + (int64_t)timeout_ms * 1000000;
	for (;;) {
		_cleanup_err_ struct err why = ERR_INIT;
		if (cli_dial(c, args_str(a, "addr"), secure ? &tls : NULL, timeout_ms, &why) == 0 &&
		    (!args_bool(a, "wait") || wait_ready(c, &why) == 0))
			return 0;
		if (!args_bool(a, "wait") || why.code != CODE_UNAVAILABLE || (timeout_ms && time_mono_ns() > deadline))
			return err_move(e, &why);
		usleep(200000);
	}
}

int buildctl_dial_stdio(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	return cli_dial_stdio(args_str(a, "addr"), &e) < 0 ? cli_fail(c, &e) : 0;
}

/* Connects and asks; the error's text gets the prefix of Go's client. */
static int ask(struct cli *c, struct args *a, const char *method, const ProtobufCMessage *req,
	       const ProtobufCMessageDescriptor *d, struct arena *mem, void **ret, const char *what, struct err *e)
{
	if (buildctl_connect(c, a, e) == 0 && cli_unary(c, method, req, d, mem, ret, e) == 0) return 0;
	cli_error_plain(e);
	return err_wrap(e, "%s", what);
}

static int print_template(const char *format, json_t *v, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	int rv = template_run(format, v, &out, e);
	if (rv == 0) printf("%s\n", buf_str(&out));
	return rv;
}

static void print_tabbed(struct buf *text, size_t minwidth, size_t tabwidth, char padchar)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	tab_format(buf_str(text), minwidth, tabwidth, 1, padchar, &out);
	fputs(buf_str(&out), stdout);
	fflush(stdout);
	buf_reset(text);
}

/* ---- debug info ---- */
static json_t *version_json(const Types__BuildkitVersion *v)
{
	json_t *o = json_pack("{s:s,s:s,s:s}", "package", v ? v->package : "", "version", v ? v->version : "", "revision",
			      v ? v->revision : "");
	if (v && *v->dockerfileversion) json_object_set_new(o, "dockerfileVersion", json_string(v->dockerfileversion));
	return o;
}

static void version_text(const Types__BuildkitVersion *v, struct buf *b)
{
	buf_addf(b, "BuildKit:\t%s %s %s\n", v ? v->package : "", v ? v->version : "", v ? v->revision : "");
	if (v && *v->dockerfileversion) buf_addf(b, "Dockerfile:\t%s\n", v->dockerfileversion);
}

int buildctl_info(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_arena_ struct arena *mem = arena_new(CLI_REPLY_MAX);
	_cleanup_buf_ struct buf b = BUF_INIT;
	void *m;
	if (ask(c, a, METHOD_CONTROL_INFO, NULL, &control__info_response__descriptor, mem, &m, "failed to call info", &e) < 0)
		return cli_fail(c, &e);
	const Types__BuildkitVersion *v = ((Control__InfoResponse *)m)->buildkitversion;
	if (args_given(a, "format")) {
		json_t *o = json_pack("{s:o}", "buildkitVersion", version_json(v));
		int rv = print_template(args_str(a, "format"), o, &e);
		json_decref(o);
		return rv < 0 ? cli_fail(c, &e) : 0;
	}
	version_text(v, &b);
	print_tabbed(&b, 0, 0, ' ');
	return 0;
}

/* ---- debug workers ---- */
static json_t *platform_json(const Pb__Platform *p)
{
	json_t *o = json_pack("{s:s,s:s}", "architecture", p->architecture, "os", p->os);
	if (*p->osversion) json_object_set_new(o, "os.version", json_string(p->osversion));
	if (*p->variant) json_object_set_new(o, "variant", json_string(p->variant));
	return o;
}

static json_t *strings_json(const char *const *v, size_t n)
{
	if (n == 0) return json_null();
	json_t *a = json_array();
	for (size_t i = 0; i < n; i++) json_array_append_new(a, json_string(v[i]));
	return a;
}

static int by_key(const void *a, const void *b)
{
	const Types__WorkerRecord__LabelsEntry *const *x = a, *const *y = b;
	return strcmp((*x)->key, (*y)->key);
}

static json_t *policy_json(const Types__GCPolicy *p)
{
	return json_pack("{s:b,s:o,s:I,s:I,s:I,s:I}", "all", p->all, "filter", strings_json(p->filters, p->n_filters),
			 "keepDuration", (json_int_t)p->keepduration, "reservedSpace", (json_int_t)p->reservedspace,
			 "maxUsedSpace", (json_int_t)p->maxusedspace, "minFreeSpace", (json_int_t)p->minfreespace);
}

static json_t *device_json(const Types__CDIDevice *d)
{
	json_t *notes = d->n_annotations ? json_object() : json_null();
	for (size_t i = 0; i < d->n_annotations; i++)
		json_object_set_new(notes, d->annotations[i]->key, json_string(d->annotations[i]->value));
	return json_pack("{s:s,s:b,s:o,s:b}", "name", d->name, "autoAllow", d->autoallow, "annotations", notes, "onDemand",
			 d->ondemand);
}

static json_t *worker_json(const Types__WorkerRecord *w)
{
	json_t *labels = json_object(), *platforms = json_array(), *policies = json_array();
	json_t *devices = w->n_cdidevices ? json_array() : json_null();
	for (size_t i = 0; i < w->n_labels; i++)
		json_object_set_new(labels, w->labels[i]->key, json_string(w->labels[i]->value));
	for (size_t i = 0; i < w->n_platforms; i++) json_array_append_new(platforms, platform_json(w->platforms[i]));
	for (size_t i = 0; i < w->n_gcpolicy; i++) json_array_append_new(policies, policy_json(w->gcpolicy[i]));
	for (size_t i = 0; i < w->n_cdidevices; i++) json_array_append_new(devices, device_json(w->cdidevices[i]));
	return json_pack("{s:s,s:o,s:o,s:o,s:o,s:o}", "id", w->id, "labels", labels, "platforms", platforms, "gcPolicy",
			 policies, "buildkitVersion", version_json(w->buildkitversion), "cdiDevices", devices);
}

static void platforms_text(const Types__WorkerRecord *w, struct buf *b)
{
	for (size_t i = 0; i < w->n_platforms; i++) {
		_cleanup_spec_platform_ struct spec_platform p = {0};
		const Pb__Platform *m = w->platforms[i];
		spec_platform_init(&p, m->os, m->architecture, m->variant, m->osversion);
		spec_platform_normalize(&p);
		_cleanup_free_ char *s = spec_platform_format_short(&p);
		buf_addf(b, "%s%s", i ? "," : "", s);
	}
	buf_addc(b, '\n');
}

static void policy_text(const Types__GCPolicy *p, size_t i, struct buf *b)
{
	char s[32];
	buf_addf(b, "GC Policy rule#%zu:\n\tAll:\t%s\n", i, p->all ? "true" : "false");
	if (p->n_filters) buf_adds(b, "\tFilters:\t");
	for (size_t k = 0; k < p->n_filters; k++) buf_addf(b, "%s%s", p->filters[k], k + 1 < p->n_filters ? " " : "\n");
	if (p->keepduration > 0) {
		duration_format(p->keepduration, s);
		buf_addf(b, "\tKeep duration:\t%s\n", s);
	}
	const struct {
		const char *what;
		int64_t bytes;
	} space[] = {{"Reserved space", p->reservedspace},
		     {"Minimum free space", p->minfreespace},
		     {"Maximum used space", p->maxusedspace}};
	for (size_t k = 0; k < array_len(space); k++) {
		if (space[k].bytes <= 0) continue;
		bytes_format(space[k].bytes, -1, s);
		buf_addf(b, "\t%s:\t%s\n", space[k].what, s);
	}
}

static void worker_text(const Types__WorkerRecord *w, struct buf *b)
{
	buf_addf(b, "ID:\t%s\nPlatforms:\t", w->id);
	platforms_text(w, b);
	version_text(w->buildkitversion, b);
	buf_adds(b, "Labels:\n");
	for (size_t i = 0; i < w->n_labels; i++) buf_addf(b, "\t%s:\t%s\n", w->labels[i]->key, w->labels[i]->value);
	if (w->n_cdidevices) buf_adds(b, "Devices:\n");
	for (size_t i = 0; i < w->n_cdidevices; i++) {
		const Types__CDIDevice *d = w->cdidevices[i];
		buf_addf(b, "\tName:\t%s\n\t%s:\t%s\n", d->name, d->ondemand ? "OnDemand" : "AutoAllow",
			 d->ondemand || d->autoallow ? "true" : "false");
		for (size_t k = 0; k < d->n_annotations; k++)
			buf_addf(b, "\tAnnotations:\t%s:\t%s\n", d->annotations[k]->key, d->annotations[k]->value);
	}
	if (w->n_cdidevices) buf_addc(b, '\n');
	for (size_t i = 0; i < w->n_gcpolicy; i++) policy_text(w->gcpolicy[i], i, b);
	buf_addc(b, '\n');
}

int buildctl_workers(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_arena_ struct arena *mem = arena_new(CLI_REPLY_MAX);
	_cleanup_buf_ struct buf b = BUF_INIT;
	const struct strvec *filters = args_list(a, "filter");
	Control__ListWorkersRequest req = CONTROL__LIST_WORKERS_REQUEST__INIT;
	req.filter = (const char **)filters->v;
	req.n_filter = filters->n;
	void *m;
	if (ask(c, a, METHOD_CONTROL_LIST_WORKERS, &req.base, &control__list_workers_response__descriptor, mem, &m,
		"failed to list workers", &e) < 0)
		return cli_fail(c, &e);
	Control__ListWorkersResponse *r = m;
	for (size_t i = 0; i < r->n_record; i++)
		if (r->record[i]->n_labels)
			qsort(r->record[i]->labels, r->record[i]->n_labels, sizeof *r->record[i]->labels, by_key);
	if (args_given(a, "format")) {
		json_t *list = json_array();
		for (size_t i = 0; i < r->n_record; i++) json_array_append_new(list, worker_json(r->record[i]));
		int rv = print_template(args_str(a, "format"), list, &e);
		json_decref(list);
		return rv < 0 ? cli_fail(c, &e) : 0;
	}
	if (!args_bool(a, "verbose")) buf_adds(&b, "ID\tPLATFORMS\n");
	for (size_t i = 0; i < r->n_record; i++) {
		if (args_bool(a, "verbose")) {
			worker_text(r->record[i], &b);
			continue;
		}
		buf_addf(&b, "%s\t", r->record[i]->id);
		platforms_text(r->record[i], &b);
	}
	print_tabbed(&b, 1, 8, '\t');
	return 0;
}

/* ---- du, prune ---- */
static json_t *time_json(const Google__Timestamp *t)
{
	char s[TIME_STR];
	if (!t) return json_null();
	time_format_rfc3339(timestamp_ns(t), s);
	return json_string(s);
}

static json_t *usage_json(const Control__UsageRecord *u)
{
	return json_pack("{s:s,s:b,s:b,s:I,s:o,s:o,s:I,s:o,s:s,s:s,s:b}", "id", u->id, "mutable", u->mutable_, "inUse",
			 u->inuse, "size", (json_int_t)u->size, "createdAt", time_json(u->createdat), "lastUsedAt",
			 time_json(u->lastusedat), "usageCount", (json_int_t)u->usagecount, "parents",
			 strings_json(u->parents, u->n_parents), "description", u->description, "recordType", u->recordtype,
			 "shared", u->shared);
}

static const char *yes_no(bool b) { return b ? "true" : "false"; }

static void usage_verbose(const Control__UsageRecord *u, struct buf *b)
{
	char s[48];
	buf_addf(b, "ID:\t%s\n", u->id);
	if (u->n_parents) buf_adds(b, "Parents:\t");
	for (size_t i = 0; i < u->n_parents; i++) buf_addf(b, "%s%s", u->parents[i], i + 1 < u->n_parents ? ";" : "\n");
	time_format_go(timestamp_ns(u->createdat), s);
	buf_addf(b, "Created at:\t%s\nMutable:\t%s\nReclaimable:\t%s\nShared:\t%s\n", s, yes_no(u->mutable_), yes_no(!u->inuse),
		 yes_no(u->shared));
	bytes_format(u->size, 2, s);
	buf_addf(b, "Size:\t%s\n", s);
	if (*u->description) buf_addf(b, "Description:\t%s\n", u->description);
	buf_addf(b, "Usage count:\t%" PRId64 "\n", u->usagecount);
	if (u->lastusedat) {
		time_format_go(timestamp_ns(u->lastusedat), s);
		buf_addf(b, "Last used:\t%s\n", s);
	}
	if (*u->recordtype) buf_addf(b, "Type:\t%s\n", u->recordtype);
	buf_addc(b, '\n');
}

static void usage_row(const Control__UsageRecord *u, struct buf *b)
{
	char s[32];
	_cleanup_free_ char *id = xasprintf("%s%s", u->id, u->mutable_ ? "*" : "");
	bytes_format(u->size, 2, s);
	buf_addf(b, "%-71s\t%-11s\t%s%s\t\n", id, yes_no(!u->inuse), s, u->shared ? "*" : "");
}

static const char usage_header[] = "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED\n";

static void usage_summary(Control__UsageRecord *const *v, size_t n, struct buf *b)
{
	int64_t total = 0, reclaimable = 0, shared = 0;
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
		bytes_format(rows[i].bytes, 2, s);
		if (rows[i].show) buf_addf(b, "%s:\t%s\n", rows[i].what, s);
	}
}

static int by_size(const void *a, const void *b)
{
	const Control__UsageRecord *x = *(Control__UsageRecord *const *)a, *y = *(Control__UsageRecord *const *)b;
	return x->size != y->size ? (x->size < y->size ? -1 : 1) : strcmp(x->id, y->id);
}

int buildctl_du(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_arena_ struct arena *mem = arena_new(CLI_REPLY_MAX);
	_cleanup_buf_ struct buf b = BUF_INIT;
	const struct strvec *filters = args_list(a, "filter");
	Control__DiskUsageRequest req = CONTROL__DISK_USAGE_REQUEST__INIT;
	req.filter = (const char **)filters->v;
	req.n_filter = filters->n;
	void *m;
	if (ask(c, a, METHOD_CONTROL_DISK_USAGE, &req.base, &control__disk_usage_response__descriptor, mem, &m,
		"failed to call diskusage", &e) < 0)
		return cli_fail(c, &e);
	Control__DiskUsageResponse *r = m;
	if (r->n_record) qsort(r->record, r->n_record, sizeof *r->record, by_size);
	if (args_given(a, "format")) {
		json_t *list = r->n_record ? json_array() : json_null();
		for (size_t i = 0; i < r->n_record; i++) json_array_append_new(list, usage_json(r->record[i]));
		int rv = print_template(args_str(a, "format"), list, &e);
		json_decref(list);
		return rv < 0 ? cli_fail(c, &e) : 0;
	}
	bool verbose = args_bool(a, "verbose");
	if (!verbose) buf_adds(&b, usage_header);
	for (size_t i = 0; i < r->n_record; i++) (verbose ? usage_verbose : usage_row)(r->record[i], &b);
	print_tabbed(&b, 1, 8, '\t');
	if (filters->n == 0) {
		usage_summary(r->record, r->n_record, &b);
		print_tabbed(&b, 1, 8, '\t');
	}
	return 0;
}

struct prune {
	struct args *args;
	int64_t total;
	bool any;
	struct err err;
};

static void pruned(void *arg, const uint8_t *p, size_t n)
{
	struct prune *x = arg;
	_cleanup_arena_ struct arena *mem = arena_new(1 << 20);
	_cleanup_buf_ struct buf b = BUF_INIT;
	Control__UsageRecord *u = wire_unpack_as(Control__UsageRecord, control__usage_record, p, n, mem, NULL);
	if (!u) return;
	x->total += u->size;
	if (args_given(x->args, "format")) {
		json_t *o = usage_json(u);
		if (!err_is_set(&x->err)) print_template(args_str(x->args, "format"), o, &x->err);
		json_decref(o);
		return;
	}
	bool verbose = args_bool(x->args, "verbose");
	if (!verbose && !x->any) buf_adds(&b, usage_header);
	x->any = true;
	(verbose ? usage_verbose : usage_row)(u, &b);
	print_tabbed(&b, 1, 8, '\t');
}

int buildctl_prune(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_buf_ struct buf b = BUF_INIT;
	const struct strvec *filters = args_list(a, "filter");
	struct prune x = {.args = a};
	char s[32];
	Control__PruneRequest req = CONTROL__PRUNE_REQUEST__INIT;
	req.filter = (const char **)filters->v;
	req.n_filter = filters->n;
	req.all = args_bool(a, "all");
	duration_parse(args_str(a, "keep-duration"), &req.keepduration, NULL);
	req.reservedspace = (int64_t)(args_float(a, "keep-storage-min") * 1e6);
	req.maxusedspace = (int64_t)(args_float(a, "keep-storage") * 1e6);
	req.minfreespace = (int64_t)(args_float(a, "free-storage") * 1e6);
	int rv = buildctl_connect(c, a, &e);
	if (rv == 0) rv = cli_stream(c, METHOD_CONTROL_PRUNE, &req.base, pruned, &x, &e);
	if (rv < 0) cli_error_plain(&e);
	if (rv == 0 && err_is_set(&x.err)) rv = err_move(&e, &x.err);
	err_fini(&x.err);
	if (rv < 0) return cli_fail(c, &e);
	if (args_given(a, "format")) return 0;
	bytes_format(x.total, 2, s);
	buf_addf(&b, "Total:\t%s\n", s);
	print_tabbed(&b, 1, 8, '\t');
	return 0;
}
