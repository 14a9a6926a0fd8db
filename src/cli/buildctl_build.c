/* `buildctl build`. */
#include "cli/auth.h"
#include "cli/build.h"
#include "llb/llb.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

enum { DEFINITION_MAX = 64 << 20 };

static int each(struct args *a, const char *flag, struct build *b, int (*fn)(struct build *b, const char *spec, struct err *e),
		struct err *e)
{
	const struct strvec *v = args_list(a, flag);
	for (size_t i = 0; i < v->n; i++)
		if (fn(b, v->v[i], e) < 0) return -1;
	return 0;
}

static int add_opt(struct build *b, const char *spec, struct err *e)
{
	const char *eq = strchr(spec, '=');
	if (!eq) return err_set(e, CODE_UNKNOWN, "invalid opt: invalid value %s", spec);
	_cleanup_free_ char *k = xstrndup(spec, (size_t)(eq - spec));
	strvec_env_set(&b->attrs, k, eq + 1);
	return 0;
}

static int add_local(struct build *b, const char *spec, struct err *e)
{
	const char *eq = strchr(spec, '=');
	if (!eq) return err_set(e, CODE_UNKNOWN, "invalid local: invalid value %s", spec);
	_cleanup_free_ char *k = xstrndup(spec, (size_t)(eq - spec));
	return build_add_local(b, k, eq + 1, e) < 0 ? err_wrap(e, "invalid local") : 0;
}

static int add_layout(struct build *b, const char *spec, struct err *e)
{
	const char *eq = strchr(spec, '=');
	if (!eq)
		return err_set(e, CODE_UNKNOWN,
			       "invalid oci-layout: oci-layout option must be 'id=path/to/layout', instead had invalid %s",
			       spec);
	_cleanup_free_ char *k = xstrndup(spec, (size_t)(eq - spec));
	return build_add_oci_layout(b, k, eq + 1);
}

static int export_cache(struct build *b, const char *spec, struct err *e)
{
	return build_add_cache(b, true, "--export-cache", spec, e);
}
static int import_cache(struct build *b, const char *spec, struct err *e)
{
	return build_add_cache(b, false, "--import-cache", spec, e);
}

static int add_tls_context(struct build *b, const char *spec, struct err *e)
{
	_cleanup_strvec_ struct strvec fields = {0}, kv = {0};
	if (csv_fields(spec, ',', &fields, e) < 0) return -1;
	for (size_t i = 0; i < fields.n; i++) {
		_cleanup_free_ char *k = NULL;
		const char *v;
		if (build_key_value(fields.v[i], &k, &v, e) < 0) return -1;
		strvec_env_set(&kv, k, v);
	}
	bool insecure = false;
	const char *said = strvec_env_get(&kv, "insecure");
	if (said) str_bool(said, &insecure);
	bool ca = !str_empty(strvec_env_get(&kv, "ca")), cert = !str_empty(strvec_env_get(&kv, "cert")),
	     key = !str_empty(strvec_env_get(&kv, "key"));
	if (str_empty(strvec_env_get(&kv, "host")))
		return err_set(e, CODE_UNKNOWN, "--registry-auth-tlscontext requires host=<host>");
	if (!ca && !insecure && !(cert && key))
		return err_set(e, CODE_UNKNOWN,
			       "--registry-auth-tlscontext requires ca=<ca> or cert=<cert>,key=<key> or insecure=true");
	if (ca && cert != key) return err_set(e, CODE_UNKNOWN, "--registry-auth-tlscontext requires cert=<cert>,key=<key>");
	auth_add_tls(strvec_env_get(&kv, "host"), ca ? strvec_env_get(&kv, "ca") : NULL, cert ? strvec_env_get(&kv, "cert") : NULL,
		     key ? strvec_env_get(&kv, "key") : NULL, insecure);
	return 0;
}

/* ---- a definition on stdin ---- */
static void ignore_caches(struct build *b, Pb__Definition *def)
{
	for (size_t i = 0; i < def->n_def; i++) {
		char digest[DIGEST_STR];
		Pb__OpMetadata *meta = NULL;
		digest_str_of(def->def[i].data, def->def[i].len, digest);
		for (size_t k = 0; k < def->n_metadata; k++)
			if (strcmp(def->metadata[k]->key, digest) == 0) meta = def->metadata[k]->value;
		if (meta) {
			meta->ignore_cache = true;
			continue;
		}
		Pb__Definition__MetadataEntry **list = arena_alloc(b->mem, (def->n_metadata + 1) * sizeof *list);
		if (def->n_metadata) memcpy(list, def->metadata, def->n_metadata * sizeof *list);
		def->metadata = list;
		list[def->n_metadata] = arena_new_of(b->mem, Pb__Definition__MetadataEntry);
		pb__definition__metadata_entry__init(list[def->n_metadata]);
		list[def->n_metadata]->key = arena_strdup(b->mem, digest);
		list[def->n_metadata]->value = meta = arena_new_of(b->mem, Pb__OpMetadata);
		pb__op_metadata__init(meta);
		meta->ignore_cache = true;
		def->n_metadata++;
	}
}

static int read_definition(struct build *b, bool no_cache, struct err *e)
{
	struct buf in = BUF_MAX(DEFINITION_MAX);
	struct stat sb;
	ssize_t n;
	if (fstat(0, &sb) < 0 || S_ISCHR(sb.st_mode))
		return err_set(e, CODE_UNKNOWN, "please specify --frontend or pipe LLB definition to stdin");
	for (void *p; (p = buf_reserve(&in, 64 << 10)) && (n = read(0, p, 64 << 10)) != 0;) {
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) break;
		in.n += (size_t)n;
	}
	/* the bytes stay: ops are views into what was unpacked, which is in the arena */
	bool too_big = in.overflow;
	b->def = too_big ? NULL
			 : wire_unpack_as(Pb__Definition, pb__definition, in.p ? in.p : (const uint8_t *)"", in.n, b->mem, e);
	buf_fini(&in);
	if (too_big)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "failed to parse input: more than %d MiB", DEFINITION_MAX >> 20);
	if (!b->def) return err_wrap(e, "failed to parse input");
	if (!b->def->n_def) return err_set(e, CODE_UNKNOWN, "empty definition sent to build. Specify --frontend instead?");
	if (no_cache) ignore_caches(b, b->def);
	return 0;
}

/* ---- the command ---- */
static int open_trace(struct build *b, const char *path, struct err *e)
{
	if (!*path) return 0;
	b->trace_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	return b->trace_fd < 0 ? err_sys(e, errno, "open %s", path) : 0;
}

static int prepare(struct build *b, struct args *a, struct err *e)
{
	const char *policy = args_str(a, "source-policy-file"), *epoch = getenv("SOURCE_DATE_EPOCH");
	b->list_workers = true;
	b->frontend = args_str(a, "frontend");
	b->proxy_network = args_bool(a, "proxy-network");
	if (epoch) strvec_env_set(&b->attrs, "build-arg:SOURCE_DATE_EPOCH", epoch);
	if (open_trace(b, args_str(a, "trace"), e) < 0 || each(a, "registry-auth-tlscontext", b, add_tls_context, e) < 0 ||
	    each(a, "ssh", b, build_add_ssh, e) < 0 || each(a, "secret", b, build_add_secret, e) < 0 ||
	    each(a, "allow", b, build_add_allow, e) < 0 || each(a, "output", b, build_add_output, e) < 0 ||
	    each(a, "export-cache", b, export_cache, e) < 0 || each(a, "import-cache", b, import_cache, e) < 0 ||
	    (*policy && build_read_policy(b, policy, e) < 0) || each(a, "opt", b, add_opt, e) < 0 ||
	    each(a, "local", b, add_local, e) < 0 || each(a, "oci-layout", b, add_layout, e) < 0)
		return -1;
	auth_serve(b->sess);
	if (!*b->frontend) {
		if (read_definition(b, args_bool(a, "no-cache"), e) < 0) return -1;
	} else if (args_bool(a, "no-cache")) {
		strvec_env_set(&b->attrs, "no-cache", "");
	}
	if (strvec_env_get(&b->attrs, "requestid") && !strvec_env_get(&b->attrs, "frontend.caps"))
		strvec_env_set(&b->attrs, "frontend.caps", "moby.buildkit.frontend.subrequests");
	return progress_new(args_str(a, "progress"), 2, NULL, &b->progress, e);
}

static void print_metadata(const struct build *b)
{
	const char *text = strvec_env_get(&b->metadata, "result.txt");
	if (text) {
		fputs(text, stdout);
		return;
	}
	for (size_t i = 0; i < b->metadata.n; i++) {
		int n = (int)strcspn(b->metadata.v[i], "=");
		printf("%.*s\n%s\n", n, b->metadata.v[i], b->metadata.v[i] + n + 1);
	}
}

static int write_metrics(const struct build *b, const char *where, int64_t since, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	if (!*where) return 0;
	progress_cache_metrics(b->progress, (time_mono_ns() - since) / 1000000, &out);
	if (strcmp(where, "stdout") == 0 || strcmp(where, "stderr") == 0)
		return path_write_all(where[3] == 'o' ? 1 : 2, out.p, out.n, e);
	_cleanup_close_ int fd = open(where, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) return err_sys(e, errno, "open %s", where);
	return path_write_all(fd, out.p, out.n, e);
}

int buildctl_build(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT, dial = ERR_INIT;
	struct build b;
	int64_t since = time_mono_ns();
	const char *metadata = args_str(a, "metadata-file"), *ref = args_str(a, "ref-file"),
		   *metrics = args_str(a, "debug-json-cache-metrics");
	build_init(&b, c, NULL);
	int rv = prepare(&b, a, &e);
	if (rv == 0 && (rv = buildctl_connect(c, a, &dial)) < 0) {
		cli_error_plain(&dial);
		err_set(&e, CODE_UNKNOWN, "listing workers for Build: failed to list workers: %s", dial.msg);
	}
	if (rv == 0) rv = build_run(&b, &e);
	if (b.progress && *ref) path_write_file(AT_FDCWD, ref, b.ref, strlen(b.ref), 0666, false, NULL);
	if (rv == 0 && *metadata) rv = build_write_metadata(metadata, &b.response, &e);
	if (rv == 0) print_metadata(&b);
	fflush(stdout);
	if (b.progress && *metrics && write_metrics(&b, metrics, since, rv == 0 ? &e : NULL) < 0) rv = -1;
	build_fini(&b);
	return rv < 0 ? cli_fail(c, &e) : 0;
}
