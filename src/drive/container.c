/* The steps are buildx's, in its order: pull (a failure is forgiven when the image is there), create, copy the files to /etc,
 * start, ask `buildctl debug workers` until it answers. Who else creates the same container at the same moment wins; then we
 * only wait. Not done: GPUs (buildx probes for them with a container of its own) and buildx's policy for the image, which is
 * off by default. */
#include "drive/container.h"

#include <stdio.h>
#include <string.h>

#include "spec/ref.h"
#include "spec/size.h"
#include "spec/url.h"
#include "tar/tar.h"

enum { TRIES = 16, PAUSE_MS = 120, PULL_S = 3600, STOP_S = 60, OUTPUT_MAX = 256 << 10, TAR_MAX = 64 << 20, FRAME_HEAD = 8 };
#define STATE_DIR "/var/lib/buildkit"
#define CONFIG "buildkitd.toml"
const char *const drive_state_names[] = {"inactive", "stopped", "running"};

/* ---- options ---- */

enum opt_kind { OPT_TEXT, OPT_BYTES, OPT_INT, OPT_BOOL };
static const struct opt {
	const char *name;
	enum opt_kind kind;
	const char *field; /* of the HostConfig; NULL: dealt with by name */
} opts[] = {
	{"image", OPT_TEXT, NULL},
	{"network", OPT_TEXT, "NetworkMode"},
	{"memory", OPT_BYTES, "Memory"},
	{"memory-swap", OPT_BYTES, "MemorySwap"},
	{"cpu-period", OPT_INT, "CpuPeriod"},
	{"cpu-quota", OPT_INT, "CpuQuota"},
	{"cpu-shares", OPT_INT, "CpuShares"},
	{"cpuset-cpus", OPT_TEXT, "CpusetCpus"},
	{"cpuset-mems", OPT_TEXT, "CpusetMems"},
	{"cgroup-parent", OPT_TEXT, NULL},
	{"restart-policy", OPT_TEXT, NULL},
	{"default-load", OPT_BOOL, NULL},
	{"provenance-add-gha", OPT_BOOL, NULL},
	{"allow-untrusted-image", OPT_BOOL, NULL},
};

static const char *opt_get(const struct drive_node *n, const char *name) { return strvec_env_get(&n->opts, name); }

static int read_number(const struct opt *o, const char *value, int64_t *ret, struct err *e)
{
	char *end;
	if (o->kind == OPT_BYTES)
		return !strcmp(value, "-1")                 ? (*ret = -1, 0)
		       : spec_size_parse(value, ret, e) < 0 ? err_wrap(e, "driver option %s=%s", o->name, value)
							    : 0;
	*ret = strtoll(value, &end, 10);
	return *value && !*end
		       ? 0
		       : err_set(e, CODE_INVALID_ARGUMENT, "driver option %s=%s: an integer is expected", o->name, value);
}

static int check_restart(const char *s, struct err *e)
{
	static const char *const words[] = {"no", "always", "unless-stopped", "on-failure"};
	size_t n = strcspn(s, ":");
	for (size_t i = 0; i < array_len(words); i++)
		if (strlen(words[i]) == n && !strncmp(words[i], s, n) && (!s[n] || i == 3)) return 0;
	return err_set(e, CODE_INVALID_ARGUMENT,
		       "driver option restart-policy=%s: no, always, unless-stopped or on-failure[:times] is expected", s);
}

static int check_opt(const char *kv, struct err *e)
{
	size_t n = strcspn(kv, "=");
	const char *value = kv[n] ? kv + n + 1 : "";
	if (str_starts(kv, "env."))
		return n > 4 ? 0 : err_set(e, CODE_INVALID_ARGUMENT, "invalid env option \"%s\", expecting env.FOO=bar", kv);
	for (size_t i = 0; i < array_len(opts); i++) {
		int64_t number;
		bool yes;
		if (strlen(opts[i].name) != n || strncmp(opts[i].name, kv, n) != 0) continue;
		if (!strcmp(opts[i].name, "restart-policy")) return check_restart(value, e);
		if (opts[i].kind == OPT_BOOL && !str_bool(value, &yes))
			return err_set(e, CODE_INVALID_ARGUMENT, "driver option %s: true or false is expected", kv);
		return opts[i].kind == OPT_BYTES || opts[i].kind == OPT_INT ? read_number(&opts[i], value, &number, e) : 0;
	}
	return err_set(e, CODE_INVALID_ARGUMENT, "invalid driver option %.*s for docker-container driver", (int)n, kv);
}

int drive_container_check(const struct drive_node *n, struct err *e)
{
	for (size_t i = 0; i < n->opts.n; i++)
		if (check_opt(n->opts.v[i], e) < 0) return -1;
	return 0;
}

/* ---- requests ---- */

static char *name_of(const struct drive_node *n) { return xasprintf("buildx_buildkit_%s", n->name); }

static int ask(const struct drive_engine *at, const char *method, json_t **ret, struct err *e, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
static int ask(const struct drive_engine *at, const char *method, json_t **ret, struct err *e, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	_cleanup_free_ char *path = xvasprintf(fmt, ap);
	va_end(ap);
	struct drive_request q = {.method = method, .path = path, .timeout_s = STOP_S};
	return drive_engine_call(at, &q, ret, e);
}

static int state_of(const struct drive_engine *at, const char *name, enum drive_state *ret, struct err *e)
{
	_cleanup_err_ struct err why = ERR_INIT;
	json_t *o;
	if (ask(at, "GET", &o, &why, "/containers/%s/json", name) < 0) {
		*ret = DRIVE_INACTIVE;
		return why.code == CODE_NOT_FOUND ? 0 : err_move(e, &why);
	}
	*ret = json_is_true(json_object_get(json_object_get(o, "State"), "Running")) ? DRIVE_RUNNING : DRIVE_STOPPED;
	json_decref(o);
	return 0;
}

int drive_container_state(const struct drive_node *n, enum drive_state *ret, struct err *e)
{
	struct drive_engine at = {0};
	_cleanup_free_ char *name = name_of(n);
	int rv = drive_engine_find(n->endpoint, &at, e);
	if (rv == 0) rv = state_of(&at, name, ret, e);
	drive_engine_fini(&at);
	return rv;
}

/* ---- create ---- */

static void say(const struct drive_log *log, const char *what, bool done)
{
	if (log) log->say(log->arg, what, done);
}

static int pull(const struct drive_engine *at, const char *image, struct err *e)
{
	_cleanup_spec_ref_ struct spec_ref ref = {0};
	if (spec_ref_parse(image, &ref, e) < 0) return err_wrap(e, "driver option image=%s", image);
	_cleanup_free_ char *repo = spec_ref_name(&ref), *from = spec_query_escape(repo),
			    *tag = spec_query_escape(!str_empty(ref.digest) ? ref.digest
						     : !str_empty(ref.tag)  ? ref.tag
									    : "latest"),
			    *path = xasprintf("/images/create?fromImage=%s&tag=%s", from, tag);
	struct drive_request q = {.method = "POST", .path = path, .timeout_s = PULL_S};
	return drive_engine_call(at, &q, NULL, e);
}

static int get_image(const struct drive_engine *at, const char *image, const struct drive_log *log, struct err *e)
{
	_cleanup_err_ struct err why = ERR_INIT;
	_cleanup_free_ char *pulling = xasprintf("pulling image %s", image), *local = xasprintf("using local image %s", image);
	say(log, pulling, false);
	int pulled = pull(at, image, &why);
	say(log, pulling, true);
	_cleanup_err_ struct err none = ERR_INIT;
	if (ask(at, "GET", NULL, &none, "/images/%s/json", image) < 0)
		return pulled < 0 ? err_move(e, &why) : err_move(e, &none);
	if (pulled < 0) say(log, local, true);
	return 0;
}

static void set_limits(const struct drive_node *n, json_t *host)
{
	for (size_t i = 0; i < array_len(opts); i++) {
		const char *value = opt_get(n, opts[i].name);
		int64_t number;
		if (!opts[i].field || str_empty(value)) continue;
		if (opts[i].kind == OPT_TEXT)
			json_object_set_new(host, opts[i].field, json_string(value));
		else if (read_number(&opts[i], value, &number, NULL) == 0)
			json_object_set_new(host, opts[i].field, json_integer(number));
	}
}

static void set_restart(const struct drive_node *n, json_t *host)
{
	const char *policy = opt_get(n, "restart-policy");
	if (str_empty(policy)) policy = "unless-stopped";
	size_t len = strcspn(policy, ":");
	json_object_set_new(
		host, "RestartPolicy",
		json_pack("{s:s%,s:i}", "Name", policy, len, "MaximumRetryCount", policy[len] ? atoi(policy + len + 1) : 0));
}

static void set_by_engine(const struct drive_engine *at, const struct drive_node *n, json_t *host)
{
	json_t *info, *v;
	size_t i;
	const char *parent = opt_get(n, "cgroup-parent");
	if (ask(at, "GET", &info, NULL, "/info") < 0) return;
	if (str_eq(json_string_value(json_object_get(info, "CgroupDriver")), "cgroupfs"))
		json_object_set_new(host, "CgroupParent", json_string(str_empty(parent) ? "/docker/buildx" : parent));
	json_array_foreach(json_object_get(info, "SecurityOptions"), i,
			   v) if (json_is_string(v) && strstr(json_string_value(v), "name=userns"))
		json_object_set_new(host, "UsernsMode", json_string("host"));
	json_decref(info);
}

static bool has_file(const struct drive_node *n, const char *path)
{
	for (size_t i = 0; i < n->files.n; i++)
		if (!strcmp(n->files.v[i].path, path)) return true;
	return false;
}

static json_t *container_config(const struct drive_engine *at, const struct drive_node *n, const char *name, const char *image)
{
	json_t *env = json_array(), *cmd = json_array(), *host = json_object();
	for (size_t i = 0; i < n->opts.n; i++)
		if (str_starts(n->opts.v[i], "env.")) json_array_append_new(env, json_string(n->opts.v[i] + 4));
	if (has_file(n, CONFIG)) {
		json_array_append_new(cmd, json_string("--config"));
		json_array_append_new(cmd, json_string("/etc/buildkit/" CONFIG));
	}
	for (size_t i = 0; i < n->flags.n; i++) json_array_append_new(cmd, json_string(n->flags.v[i]));
	_cleanup_free_ char *volume = xasprintf("%s_state", name);
	json_object_set_new(host, "Privileged", json_true());
	json_object_set_new(host, "Init", json_true());
	json_object_set_new(host, "Mounts",
			    json_pack("[{s:s,s:s,s:s}]", "Type", "volume", "Source", volume, "Target", STATE_DIR));
	set_restart(n, host);
	set_limits(n, host);
	set_by_engine(at, n, host);
	return json_pack("{s:s,s:o,s:o,s:o}", "Image", image, "Env", env, "Cmd", cmd, "HostConfig", host);
}

static int tar_folder(struct tar_writer *w, const char *path, struct strvec *made, struct err *e)
{
	_cleanup_free_ char *dir = path_dir(path), *name = xasprintf("%s/", dir);
	if (!strcmp(dir, ".") || strvec_find(made, dir) >= 0) return 0;
	if (tar_folder(w, dir, made, e) < 0) return -1;
	strvec_add(made, dir);
	struct tar_entry t = {.name = name, .type = TAR_DIR, .mode = 0755};
	return tar_write_header(w, &t, e);
}

static int tar_files(const struct drive_node *n, struct buf *out, struct err *e)
{
	_cleanup_tar_writer_ struct tar_writer *w = tar_writer_new(tar_out_buf(out));
	_cleanup_strvec_ struct strvec made = {0};
	for (size_t i = 0; i < n->files.n; i++) {
		const struct drive_file *f = &n->files.v[i];
		_cleanup_free_ char *clean = path_abs_in(f->path), *name = xasprintf("buildkit%s", clean);
		struct tar_entry t = {.name = name, .type = TAR_REG, .mode = 0644, .size = (int64_t)f->n};
		if (tar_folder(w, name, &made, e) < 0 || tar_write_header(w, &t, e) < 0 ||
		    tar_write_data(w, f->data, f->n, e) < 0)
			return -1;
	}
	return tar_writer_finish(w, e);
}

static int copy_files(const struct drive_engine *at, const struct drive_node *n, const char *name, struct err *e)
{
	_cleanup_buf_ struct buf tar = BUF_MAX(TAR_MAX);
	if (!n->files.n) return 0;
	if (tar_files(n, &tar, e) < 0) return err_wrap(e, "files for %s", name);
	_cleanup_free_ char *path = xasprintf("/containers/%s/archive?noOverwriteDirNonDir=true&path=%%2Fetc", name);
	struct drive_request q = {.method = "PUT", .path = path, .type = "application/x-tar", .body = tar.p, .n_body = tar.n};
	return drive_engine_call(at, &q, NULL, e);
}

/* ---- start ---- */

/* What the daemon said before it failed: the engine's frames without their heads. */
static void add_log(const struct drive_engine *at, const char *name, struct err *e)
{
	_cleanup_buf_ struct buf raw = BUF_MAX(OUTPUT_MAX), text = BUF_INIT;
	_cleanup_free_ char *path = xasprintf("/containers/%s/logs?stdout=1&stderr=1&tail=20", name);
	struct drive_request q = {.method = "GET", .path = path, .raw = &raw};
	drive_engine_call(at, &q, NULL, NULL);
	while (raw.n > FRAME_HEAD) {
		size_t n = (size_t)raw.p[5] << 16 | (size_t)raw.p[6] << 8 | raw.p[7];
		buf_consume(&raw, FRAME_HEAD);
		buf_add(&text, raw.p, min_of(n, raw.n));
		buf_consume(&raw, min_of(n, raw.n));
	}
	err_wrap(e, "the daemon in %s does not answer; its log ends:\n%s", name,
		 text.n ? buf_str(&text) : "(it said nothing)\n");
}

static int try_workers(const struct drive_engine *at, const char *name, struct err *e)
{
	const char *const argv[] = {"buildctl", "debug", "workers", NULL};
	struct drive_exec *x;
	_cleanup_buf_ struct buf out = BUF_MAX(OUTPUT_MAX);
	int code = -1;
	if (drive_exec_start(at, name, argv, &x, e) < 0) return -1;
	int rv = drive_exec_output(x, &out, &code, e);
	drive_exec_free(x);
	if (rv < 0 || code == 0) return rv;
	return err_set(e, CODE_UNAVAILABLE, "buildctl debug workers: exit code %d: %s", code, buf_str(&out));
}

static int await_daemon(const struct drive_engine *at, const char *name, struct err *e)
{
	_cleanup_err_ struct err why = ERR_INIT;
	for (unsigned i = 1; i <= TRIES; i++) {
		err_fini(&why);
		if (try_workers(at, name, &why) == 0) return 0;
		usleep(i * PAUSE_MS * 1000);
	}
	err_move(e, &why);
	add_log(at, name, e);
	return -1;
}

static int start(const struct drive_engine *at, const char *name, struct err *e)
{
	return ask(at, "POST", NULL, e, "/containers/%s/start", name);
}

static int create(const struct drive_engine *at, const struct drive_node *n, const char *name, const struct drive_log *log,
		  struct err *e)
{
	_cleanup_err_ struct err why = ERR_INIT;
	const char *image = opt_get(n, "image");
	if (str_empty(image)) image = DRIVE_IMAGE;
	_cleanup_free_ char *what = xasprintf("creating container %s", name),
			    *path = xasprintf("/containers/create?name=%s", name);
	if (get_image(at, image, log, e) < 0) return -1;
	say(log, what, false);
	int rv = drive_engine_post(at, path, container_config(at, n, name, image), NULL, &why);
	if (rv < 0 && why.code != CODE_ALREADY_EXISTS) return err_move(e, &why);
	if (rv == 0 && (copy_files(at, n, name, e) < 0 || start(at, name, e) < 0)) return -1;
	if (await_daemon(at, name, e) < 0) return -1;
	say(log, what, true);
	return 0;
}

static int boot(const struct drive_engine *at, const struct drive_node *n, const char *name, const struct drive_log *log,
		struct err *e)
{
	enum drive_state state;
	if (state_of(at, name, &state, e) < 0) return -1;
	if (state == DRIVE_INACTIVE) return create(at, n, name, log, e);
	if (state == DRIVE_RUNNING) return await_daemon(at, name, e);
	_cleanup_free_ char *what = xasprintf("starting container %s", name);
	say(log, what, false);
	if (start(at, name, e) < 0 || await_daemon(at, name, e) < 0) return -1;
	say(log, what, true);
	return 0;
}

int drive_container_boot(const struct drive_node *n, const struct drive_log *log, struct err *e)
{
	struct drive_engine at = {0};
	_cleanup_free_ char *name = name_of(n);
	int rv = drive_container_check(n, e);
	if (rv == 0) rv = drive_engine_find(n->endpoint, &at, e);
	if (rv == 0) rv = boot(&at, n, name, log, e);
	drive_engine_fini(&at);
	return rv;
}

/* ---- stop, remove, reach ---- */

int drive_container_stop(const struct drive_node *n, struct err *e)
{
	struct drive_engine at = {0};
	enum drive_state state;
	_cleanup_free_ char *name = name_of(n);
	int rv = drive_engine_find(n->endpoint, &at, e);
	if (rv == 0) rv = state_of(&at, name, &state, e);
	if (rv == 0 && state == DRIVE_RUNNING) rv = ask(&at, "POST", NULL, e, "/containers/%s/stop", name);
	drive_engine_fini(&at);
	return rv;
}

static int remove_found(const struct drive_engine *at, const char *name, bool keep_state, struct err *e)
{
	enum drive_state state;
	_cleanup_err_ struct err why = ERR_INIT;
	if (state_of(at, name, &state, e) < 0) return -1;
	if (state == DRIVE_RUNNING && ask(at, "POST", NULL, e, "/containers/%s/stop", name) < 0) return -1;
	if (state != DRIVE_INACTIVE && ask(at, "DELETE", NULL, e, "/containers/%s?force=1&v=1", name) < 0) return -1;
	if (keep_state || ask(at, "DELETE", NULL, &why, "/volumes/%s_state", name) == 0 || why.code == CODE_NOT_FOUND) return 0;
	return err_move(e, &why);
}

int drive_container_remove(const struct drive_node *n, bool keep_state, bool keep_daemon, struct err *e)
{
	struct drive_engine at = {0};
	_cleanup_free_ char *name = name_of(n);
	if (keep_daemon) return 0;
	int rv = drive_engine_find(n->endpoint, &at, e);
	if (rv == 0) rv = remove_found(&at, name, keep_state, e);
	drive_engine_fini(&at);
	return rv;
}

int drive_container_dial(const struct drive_node *n, struct drive_exec **ret, struct err *e)
{
	const char *const argv[] = {"buildctl", "dial-stdio", NULL};
	struct drive_engine at = {0};
	_cleanup_free_ char *name = name_of(n);
	int rv = drive_engine_find(n->endpoint, &at, e);
	if (rv == 0) rv = drive_exec_start(&at, name, argv, ret, e);
	drive_engine_fini(&at);
	return rv;
}
