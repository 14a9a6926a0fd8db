/* create, use, stop, rm: changes of buildx's store (drive/store.h), under its lock, and of the containers behind it.
 * Source: buildx builder/builder.go, store/nodegroup.go, commands/{create,use,stop,rm}.go, whose texts are kept. */
#include "cli/builders.h"
#include "cli/boot.h"
#include "cli/builder.h"
#include "conf/bundle.h"
#include "spec/platform.h"

#include <string.h>

#define BAD(...) err_set(e, CODE_UNKNOWN, __VA_ARGS__)
#define CONFIG_FOLDER "/etc/buildkit"
#define NETWORK_HOST "--allow-insecure-entitlement=network.host"

/* ---- create: what is asked for ---- */

/* Words as a shell would split them, without expansions. */
static int split_words(const char *s, struct strvec *ret, struct err *e)
{
	_cleanup_buf_ struct buf word = BUF_INIT;
	bool in_word = false;
	char quote = 0;
	for (; *s; s++) {
		if (quote && *s == quote)
			quote = 0;
		else if (!quote && (*s == '\'' || *s == '"'))
			quote = *s, in_word = true;
		else if (*s == '\\' && quote != '\'' && s[1])
			buf_addc(&word, *++s), in_word = true;
		else if (!quote && strchr(" \t\r\n", *s)) {
			if (in_word) strvec_add(ret, buf_str(&word));
			buf_reset(&word);
			in_word = false;
		} else
			buf_addc(&word, *s), in_word = true;
	}
	if (quote) return BAD("failed to parse buildkit flags: EOF found when expecting closing quote");
	if (in_word) strvec_add(ret, buf_str(&word));
	return 0;
}

static int read_opts(const struct strvec *in, struct strvec *ret, struct err *e)
{
	for (size_t i = 0; i < in->n; i++) {
		_cleanup_strvec_ struct strvec fields = {0};
		if (csv_fields(in->v[i], ',', &fields, e) < 0) return -1;
		for (size_t k = 0; k < fields.n; k++) {
			char *eq = strchr(fields.v[k], '=');
			if (!eq) return BAD("invalid value \"%s\", expecting k=v", fields.v[k]);
			*eq = 0;
			strvec_env_set(ret, fields.v[k], eq + 1);
		}
	}
	strvec_sort(ret);
	return 0;
}

static int read_platforms(const struct strvec *in, struct strvec *ret, struct err *e)
{
	for (size_t i = 0; i < in->n; i++) {
		_cleanup_free_ char *copy = xstrdup(in->v[i]);
		for (char *save, *s = strtok_r(copy, ",", &save); s; s = strtok_r(NULL, ",", &save)) {
			struct spec_platform p;
			if (spec_platform_parse_normal(s + strspn(s, " "), &p, e) < 0) return -1;
			strvec_take(ret, spec_platform_format(&p));
			spec_platform_fini(&p);
		}
	}
	return 0;
}

static bool allows_any(const struct strvec *flags, bool *ret_host)
{
	static const char flag[] = "--allow-insecure-entitlement";
	bool any = false;
	*ret_host = false;
	for (size_t i = 0; i < flags->n; i++) {
		const char *s = flags->v[i];
		if (strncmp(s, flag, sizeof flag - 1) != 0) continue;
		s += sizeof flag - 1;
		const char *value = *s == '=' ? s + 1 : !*s && i + 1 < flags->n ? flags->v[i + 1] : NULL;
		any |= value != NULL;
		*ret_host |= str_eq(value, "network.host");
	}
	return any;
}

/* A builder's container has a network of its own, so steps may use it. */
static void add_network_flag(struct drive_node *n, bool in_config)
{
	bool host, any = allows_any(&n->flags, &host);
	if (str_eq(strvec_env_get(&n->opts, "network"), "host") ? !host : !any && !in_config)
		strvec_add(&n->flags, NETWORK_HOST);
}

static int read_config(struct args *a, struct drive_node *n, bool *ret_network_host, struct err *e)
{
	_cleanup_conf_bundle_ struct conf_bundle b = {0};
	_cleanup_free_ char *dir = drive_store_dir(), *usual = xasprintf("%s/buildkitd.default.toml", dir);
	const char *path = args_given(a, "buildkitd-config") ? args_str(a, "buildkitd-config") : args_str(a, "config");
	*ret_network_host = false;
	if (!*path && access(usual, R_OK) == 0) path = usual;
	if (!*path) return 0;
	if (conf_bundle_load(path, CONFIG_FOLDER, &b, e) < 0) return -1;
	*ret_network_host = b.network_host;
	for (size_t i = 0; i < b.files.n; i++) {
		struct conf_bundle_file *f = &b.files.v[i];
		vec_push(&n->files, ((struct drive_file){.path = take_ptr(f->path), .data = take_ptr(f->data), .n = f->n}));
	}
	return 0;
}

static int read_node(struct args *a, const char *driver, struct drive_node *ret, struct err *e)
{
	bool network_host;
	if (read_opts(args_list(a, "driver-opt"), &ret->opts, e) < 0 ||
	    read_platforms(args_list(a, "platform"), &ret->platforms, e) < 0 ||
	    split_words(args_str(a, "buildkitd-flags"), &ret->flags, e) < 0 || read_config(a, ret, &network_host, e) < 0)
		return -1;
	if (strcmp(driver, "docker-container") != 0) return 0;
	add_network_flag(ret, network_host);
	return drive_container_check(ret, e);
}

static int find_endpoint(struct args *a, const char *driver, char **ret, bool *ret_given, struct err *e)
{
	const char *given = a->rest.n ? a->rest.v[0] : "", *host = getenv("BUILDKIT_HOST");
	*ret_given = true;
	if (!strcmp(driver, "remote")) {
		const char *s = *given ? given : host;
		if (str_empty(s)) return BAD("no remote endpoint provided");
		if (!strstr(s, "://"))
			return BAD(
				"invalid remote endpoint \"%s\": expected an address such as tcp://host:port or unix:///path",
				s);
		*ret = xstrdup(s);
		return 0;
	}
	struct drive_engine at = {0};
	if (drive_engine_find(given, &at, e) < 0) return *given ? err_wrap(e, "failed to parse endpoint %s", given) : -1;
	*ret = xstrdup(*given && strcmp(given, "default") ? given : drive_engine_key(&at));
	*ret_given = *given;
	drive_engine_fini(&at);
	return 0;
}

/* ---- create: into the builder ---- */

static void next_name(const struct drive_builder *b, char **ret)
{
	for (unsigned i = 0;; i++) {
		*ret = xasprintf("%s%u", b->name, i);
		if (drive_builder_node(b, *ret) < 0) return;
		free(*ret);
	}
}

static int no_twins(const struct drive_builder *b, const char *endpoint, struct err *e)
{
	size_t n = 0;
	for (size_t i = 0; i < b->nodes.n; i++) n += !strcmp(b->nodes.v[i].endpoint, endpoint);
	return n > 1 ? BAD("invalid duplicate endpoint %s", endpoint) : 0;
}

static void replace(struct drive_node *old, struct drive_node *n, bool endpoint_given)
{
	char *name = take_ptr(old->name), *endpoint = take_ptr(old->endpoint);
	if (endpoint_given) {
		free(endpoint);
		endpoint = take_ptr(n->endpoint);
	}
	if (!n->platforms.n) strvec_copy(&n->platforms, old->platforms.v, old->platforms.n);
	if (!n->opts.n) strvec_copy(&n->opts, old->opts.v, old->opts.n);
	if (!n->files.n) {
		n->files = (__typeof__(n->files)){old->files.v, old->files.n, old->files.cap};
		old->files = (__typeof__(n->files)){0};
	}
	drive_node_fini(old);
	free(n->name);
	free(n->endpoint);
	n->name = name;
	n->endpoint = endpoint;
	*old = *n;
	*n = (struct drive_node){0};
	term_warn("new settings may not be used until builder is restarted");
}

/* Takes *n over, or leaves it to the caller when it fails. */
static int put_node(struct drive_builder *b, struct args *a, struct drive_node *n, bool endpoint_given, struct err *e)
{
	const char *name = args_str(a, "node");
	bool append = args_bool(a, "append");
	ptrdiff_t at = *name ? drive_builder_node(b, name) : -1;
	_cleanup_free_ char *endpoint = xstrdup(n->endpoint);
	if (at < 0 && b->nodes.n && !append) return BAD("node %s not found, did you mean to append?", name);
	if (at >= 0) {
		replace(&b->nodes.v[at], n, endpoint_given);
	} else {
		if (*name ? drive_name(name, &n->name, e) < 0 : (next_name(b, &n->name), false)) return -1;
		vec_push(&b->nodes, *n);
		*n = (struct drive_node){0};
	}
	return no_twins(b, endpoint, e);
}

static int check_driver(const char *driver, struct err *e)
{
	if (!strcmp(driver, "docker-container") || !strcmp(driver, "remote")) return 0;
	if (!strcmp(driver, "kubernetes"))
		return BAD("the driver \"kubernetes\" is not supported by this client yet; use docker buildx");
	return BAD("failed to find driver \"%s\"", driver);
}

/* The builder to change, or an empty one of the name. */
static int begin(struct args *a, struct drive_builder *ret, struct err *e)
{
	_cleanup_err_ struct err why = ERR_INIT;
	const char *name = args_str(a, "name"), *driver = args_str(a, "driver"), *host = getenv("BUILDKIT_HOST");
	bool append = args_bool(a, "append");
	if (!strcmp(name, "default")) return BAD("default is a reserved name and cannot be used to identify builder instance");
	if (append && !*name) return BAD("append requires a builder name");
	if (*name && drive_store_load(name, ret, &why) < 0) {
		if (why.code != CODE_NOT_FOUND) return err_move(e, &why);
		if (append) return BAD("failed to find instance \"%s\" for append", name);
	}
	if (ret->name && !append && !*args_str(a, "node"))
		return BAD("existing instance for \"%s\" but no append mode, specify the node name to make changes for "
			   "existing instances",
			   name);
	if (ret->name && *driver && strcmp(driver, ret->driver) != 0)
		return BAD("existing instance for \"%s\" but has mismatched driver \"%s\"", name, ret->driver);
	if (ret->name) return 0;
	ret->name = *name ? xstrdup(name) : drive_store_new_name();
	ret->driver = xstrdup(*driver ? driver : !a->rest.n && !str_empty(host) ? "remote" : "docker-container");
	return 0;
}

/* What can be known without booting: an engine that is not there, a container name that is another's. */
static int check_nodes(const struct drive_builder *b, struct err *e)
{
	enum drive_state state;
	if (strcmp(b->driver, "docker-container") != 0) return 0;
	for (size_t i = 0; i < b->nodes.n; i++)
		if (drive_container_state(&b->nodes.v[i], &state, e) < 0)
			return err_wrap(e, "failed to initialize builder %s (%s)", b->name, b->nodes.v[i].name);
	return 0;
}

static int choose(const char *name, bool global, bool as_default, struct err *e)
{
	struct drive_engine at = {0};
	if (drive_engine_find(NULL, &at, e) < 0) return -1;
	int rv = drive_store_choose(drive_engine_key(&at), name, global, as_default, e);
	drive_engine_fini(&at);
	return rv;
}

static int create(struct args *a, struct drive_builder *b, struct err *e)
{
	struct drive_node n = {0};
	bool given;
	int rv = begin(a, b, e);
	if (rv == 0) rv = check_driver(b->driver, e);
	if (rv == 0) rv = read_node(a, b->driver, &n, e);
	if (rv == 0) rv = find_endpoint(a, b->driver, &n.endpoint, &given, e);
	if (rv == 0) rv = put_node(b, a, &n, given, e);
	drive_node_fini(&n);
	if (rv < 0 || check_nodes(b, e) < 0 || drive_store_save(b, e) < 0) return -1;
	return args_bool(a, "use") ? choose(b->name, false, false, e) : 0;
}

static int leave(struct args *a, struct err *e)
{
	_cleanup_err_ struct err why = ERR_INIT;
	struct drive_builder b = {0};
	const char *name = args_str(a, "name"), *node = args_str(a, "node");
	if (!*name) return BAD("leave requires instance name");
	if (!*node) return BAD("leave requires node name");
	if (drive_store_load(name, &b, &why) < 0)
		return why.code == CODE_NOT_FOUND ? BAD("failed to find instance \"%s\" for leave", name) : err_move(e, &why);
	ptrdiff_t at = drive_builder_node(&b, node);
	int rv = at < 0           ? BAD("node %s not found for %s", node, name)
		 : b.nodes.n == 1 ? BAD("can not leave last node, do you want to rm instance instead?")
				  : 0;
	if (rv == 0) {
		drive_node_fini(&b.nodes.v[at]);
		vec_remove(&b.nodes, (size_t)at);
		rv = drive_store_save(&b, e);
	}
	drive_builder_fini(&b);
	return rv;
}

static int boot_all(const struct drive_builder *b, struct err *e)
{
	for (size_t i = 0; i < b->nodes.n && !strcmp(b->driver, "docker-container"); i++)
		if (boot_container_alone(&b->nodes.v[i], e) < 0) return -1;
	return 0;
}

int builders_create(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	struct drive_builder b = {0};
	struct drive_lock lock;
	if (drive_store_lock(&lock, &e) < 0) return cli_fail(c, &e);
	int rv = args_bool(a, "leave") ? leave(a, &e) : create(a, &b, &e);
	drive_store_unlock(&lock);
	if (rv == 0 && b.name && args_bool(a, "bootstrap")) rv = boot_all(&b, &e);
	if (rv == 0 && b.name) printf("%s\n", b.name);
	drive_builder_fini(&b);
	return rv < 0 ? cli_fail(c, &e) : 0;
}

/* ---- use ---- */

static int use(struct args *a, struct err *e)
{
	_cleanup_err_ struct err why = ERR_INIT;
	struct drive_builder b = {0};
	const char *name = a->rest.n ? a->rest.v[0] : args_str(a, "builder");
	bool known = drive_store_load(name, &b, &why) == 0;
	drive_builder_fini(&b);
	if (!known && !strcmp(name, "default")) return choose("", false, false, e);
	if (!known)
		return BAD("failed to find instance \"%s\": %s", name,
			   why.code == CODE_NOT_FOUND ? "there is no such builder" : why.msg);
	return choose(name, args_bool(a, "global"), args_bool(a, "default"), e);
}

int builders_use(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	struct drive_lock lock;
	if (drive_store_lock(&lock, &e) < 0) return cli_fail(c, &e);
	int rv = use(a, &e);
	drive_store_unlock(&lock);
	return rv < 0 ? cli_fail(c, &e) : 0;
}

/* ---- stop and rm ---- */

/* The builder that is named, or the chosen one; its name is empty when it is none of the store's. */
static int find_stored(struct cli *c, struct args *a, const char *name, struct drive_builder *ret, struct err *e)
{
	_cleanup_err_ struct err why = ERR_INIT;
	if (*name) {
		if (drive_store_load(name, ret, &why) == 0) return 0;
		return why.code == CODE_NOT_FOUND ? BAD("no builder \"%s\" found", name) : err_move(e, &why);
	}
	struct builder b = {0};
	int rv = builder_find(c, a, &b, e);
	*ret = b.stored;
	b.stored = (struct drive_builder){0};
	if (rv == 0 && !ret->name) rv = BAD("no builder is chosen: name one");
	builder_fini(&b);
	return rv;
}

int builders_stop(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	struct drive_builder b = {0};
	int rv = find_stored(c, a, a->rest.n ? a->rest.v[0] : "", &b, &e);
	for (size_t i = 0; rv == 0 && i < b.nodes.n && !strcmp(b.driver, "docker-container"); i++)
		rv = drive_container_stop(&b.nodes.v[i], &e);
	drive_builder_fini(&b);
	return rv < 0 ? cli_fail(c, &e) : 0;
}

static int remove_builder(const struct drive_builder *b, struct args *a, struct err *e)
{
	_cleanup_err_ struct err why = ERR_INIT;
	for (size_t i = 0; i < b->nodes.n && !strcmp(b->driver, "docker-container"); i++) {
		struct err *first = err_is_set(&why) ? NULL : &why;
		drive_container_remove(&b->nodes.v[i], args_bool(a, "keep-state"), args_bool(a, "keep-daemon"), first);
	}
	if (drive_store_remove(b->name, e) < 0)
		return -1; /* also when an engine has gone: there is no other way to forget it */
	return err_is_set(&why) ? err_move(e, &why) : 0;
}

static bool rm_one(struct cli *c, struct args *a, const char *name)
{
	_cleanup_err_ struct err e = ERR_INIT;
	struct drive_builder b = {0};
	int rv = find_stored(c, a, name, &b, &e);
	if (rv == 0) rv = remove_builder(&b, a, &e);
	if (rv == 0)
		fprintf(stderr, "%s removed\n", b.name);
	else
		fprintf(stderr, "failed to remove %s: %s\n", *name ? name : b.name ? b.name : "the current builder", e.msg);
	drive_builder_fini(&b);
	return rv == 0;
}

static bool is_inactive(const struct drive_builder *b)
{
	for (size_t i = 0; i < b->nodes.n; i++) {
		enum drive_state state;
		if (strcmp(b->driver, "docker-container") != 0 || drive_container_state(&b->nodes.v[i], &state, NULL) < 0 ||
		    state == DRIVE_RUNNING)
			return false;
	}
	return true;
}

static void add_inactive(struct strvec *ret)
{
	_cleanup_strvec_ struct strvec names = {0};
	drive_store_names(&names);
	for (size_t i = 0; i < names.n; i++) {
		struct drive_builder b = {0};
		if (drive_store_load(names.v[i], &b, NULL) == 0 && is_inactive(&b)) strvec_add(ret, b.name);
		drive_builder_fini(&b);
	}
}

static bool agreed(void)
{
	char answer[16] = "";
	fputs("WARNING! This will remove all builders that are not in running state. Are you sure you want to continue? [y/N] ",
	      stdout);
	fflush(stdout);
	return fgets(answer, sizeof answer, stdin) && (*answer == 'y' || *answer == 'Y');
}

int builders_rm(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_strvec_ struct strvec names = {0};
	struct drive_lock lock;
	bool all = args_bool(a, "all-inactive"), ok = true;
	if (all && a->rest.n) {
		err_set(&e, CODE_INVALID_ARGUMENT, "cannot specify builder name when --all-inactive is set");
		return cli_fail(c, &e);
	}
	if (all && !args_bool(a, "force") && !agreed()) return 0;
	if (drive_store_lock(&lock, &e) < 0) return cli_fail(c, &e);
	strvec_copy(&names, a->rest.v, a->rest.n);
	if (all) add_inactive(&names);
	if (!all && !names.n) strvec_add(&names, args_str(a, "builder"));
	for (size_t i = 0; i < names.n; i++) ok &= rm_one(c, a, names.v[i]);
	drive_store_unlock(&lock);
	if (ok) return 0;
	err_set(&e, CODE_UNKNOWN, "failed to remove one or more builders");
	return cli_fail(c, &e);
}
