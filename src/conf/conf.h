#ifndef CONF_CONF_H
#define CONF_CONF_H
/* buildkitd.toml and the daemon's command line, as one struct of typed fields.
 *
 *  1. Order of precedence: flag > its environment variable > file > default.
 *  2. Keys and flags are tables (rows.c, flags.c): name, type, default, range, help, whether a change takes effect by a
 *     reload, whether this daemon acts on it. The reader, the checks, --effective and docs/config.md follow from the rows.
 *  3. Keys match without regard to case. Whatever is wrong is noted with file:line:column in a report: an error (wrong type,
 *     a certificate that is missing: nobody starts), a fault (an unknown key: refused by check-config, and by the daemon when
 *     the file says strict = true), or a warning.
 *  4. What conf_read answers is never changed again. It is shared by references; a reload makes another one.
 * All functions: any thread, one at a time on one conf being made; conf_read and conf_load block on the disk.
 * Source: peer cmd/buildkitd/config, main.go, main_oci_worker.go v0.32.2; reference 05. */
#include "base/base.h"
#include <stdatomic.h>

#define CONF_BUILDKIT_VERSION "v0.32.2" /* whose configuration and API this is */
enum conf_tri { CONF_UNSET = 0, CONF_FALSE = 1, CONF_TRUE = 2 };
struct conf_space {
	int64_t bytes, percent; /* both 0: unset */
};
struct conf_keypair {
	char *key, *cert;
};
/* [[registry."docker.io".mirror]]: a mirror with settings of its own. What is unset there is as [registry."<its host>"] has
 * it. Order of asking: mirrors, then these in the file's order, then the registry itself. */
struct conf_mirror {
	char *host, *path;                      /* host[:port]; path: prefix between /v2 and the repository, NULL none */
	enum conf_tri http, insecure, fallback; /* fallback = false: when this mirror fails, no later host is asked */
	struct strvec ca, tlsconfigdir;
	VEC(struct conf_keypair) keypairs;
	char *credentials; /* a file of one line USER:PASSWORD; NULL: those of the client's session */
};
struct conf_registry {
	char *name; /* host[:port], "*" or "*.domain"; the most specific wins: see conf_registry_find */
	struct strvec mirrors, ca, tlsconfigdir;
	enum conf_tri http, insecure;
	VEC(struct conf_keypair) keypairs;
	VEC(struct conf_mirror) mirror;
	int64_t max_concurrency; /* 0: system.maxRegistryConcurrency */
};
struct conf_gcpolicy {
	bool all;
	struct strvec filters;
	int64_t keep_duration_ns;
	struct conf_space keep_bytes /* deprecated */, reserved, max_used, min_free;
};
struct conf_worker { /* [worker.oci]; [worker.containerd] is read into one of its own and not acted upon */
	enum conf_tri enabled, gc;
	struct strvec labels;    /* "K=V", sorted by conf_finish */
	struct strvec platforms; /* empty: detect */
	char *snapshotter, *proxy_snapshotter_path, *binary, *cgroup_parent, *apparmor, *userremap;
	bool rootless, no_process_sandbox, selinux;
	int64_t max_parallelism; /* 0: unlimited */
	struct conf_space gc_keep /* deprecated */, reserved, max_used, min_free;
	VEC(struct conf_gcpolicy) gcpolicy;
	char *network_mode, *cni_config_path, *cni_binary_path, *bridge_name, *bridge_subnet;
	int64_t cni_pool_size;
	char *address, *namespace_, *runtime_name, *runtime_path; /* containerd's only */
};
struct conf {
	atomic_uint refs;
	char *path;         /* the file: also when it was not there */
	bool from_file;     /* it was there */
	struct map origins; /* private: where values come from */
	bool strict;
	bool debug, trace; /* deprecated */
	char *root;
	struct strvec entitlements; /* "network.host", "security.insecure", "device" */
	bool proxy_network;
	char *provenance_env_dir;
	struct {
		char *format, *level;
	} log;
	struct {
		struct strvec address;
		char *debug_address, *security_descriptor;
		int64_t uid, gid; /* -1: unset (conf_finish: ours) */
		struct {
			char *cert, *key, *ca;
		} tls;
	} grpc;
	struct {
		char *socket_path;
	} otel;
	struct {
		enum conf_tri disabled;
		struct strvec spec_dirs, auto_allowed;
	} cdi;
	struct conf_worker oci, containerd;
	VEC(struct conf_registry) registries;
	struct {
		struct strvec nameservers, options, search_domains;
	} dns;
	struct {
		int64_t max_age_ns, max_entries;
	} history; /* 0: default (conf_finish: 48h, 50) */
	struct {
		enum conf_tri dockerfile_enabled, gateway_enabled; /* unset: enabled */
		struct strvec gateway_allowed;
	} frontend;
	struct {
		int64_t platforms_max_age_ns, max_registry_concurrency;
	} system; /* INT64_MIN: unset */
	bool save_cache_debug;
	int64_t idle_exit_ns; /* --idle-exit; 0: never */
};

/* ---- command line ---- */
struct conf_flag_value {
	const void *row; /* private */
	char *value;
	bool from_env;
};
struct conf_args {
	char *config_path; /* NULL: the default place */
	bool help, version;
	VEC(struct conf_flag_value) values; /* in order */
};
/* "--flag=value", "--flag value", bool flags also bare; environment variables of flags that were not given. */
int conf_args_parse(int argc, char *const *argv, struct conf_args *ret, struct err *e);
void conf_args_fini(struct conf_args *a);
bool conf_takes_value(const char *word); /* "--root": the next word is its value */
void conf_help(const char *program, struct buf *out);
/* The rows of the command line, for the manual page and completion: false behind the last. All strings are static. */
struct conf_flag_info {
	const char *name, *env /* NULL: none */, *help;
	char kind; /* 'b' bool, 's' string, 'n' number, 'l' repeatable */
	bool hidden;
};
bool conf_flag_at(size_t i, struct conf_flag_info *ret);
/* Exactly four words, "buildkitd github.com/moby/buildkit v0.32.2 <revision>": drivers count them. */
void conf_version(const char *program, const char *revision, struct buf *out);

/* ---- what was found ---- */
enum conf_level { CONF_WARN, CONF_FAULT, CONF_ERROR };
struct conf_note {
	enum conf_level level;
	unsigned line, column;
	char *text; /* "buildkitd.toml:3:1: ..." */
};
struct conf_report {
	VEC(struct conf_note) v; /* conf_read: in the file's order */
};
#define _cleanup_conf_report_ __attribute__((cleanup(conf_report_fini)))
void conf_report_fini(struct conf_report *r);
size_t conf_report_count(const struct conf_report *r, enum conf_level level);

/* ---- reading ---- */
/* File, flags, defaults, checks. -1 with the first error in *e (and how many more there are) when the report holds one, or a
 * fault and the file is strict. The report is filled in either case. *ret has one reference. */
int conf_read(const struct conf_args *a, struct conf **ret, struct conf_report *r, struct err *e);
/* The parts of it, for tests. path NULL: the default place (of this user when rootless), which may be missing; a named one
 * may not. */
int conf_load(const char *path, struct conf **ret, struct conf_report *r);
int conf_parse(const char *text, size_t n, const char *name, struct conf **ret, struct conf_report *r);
int conf_apply_flags(struct conf *c, const struct conf_args *a, struct conf_report *r, struct err *e);
int conf_finish(struct conf *c, struct conf_report *r, struct err *e);
struct conf *conf_ref(struct conf *c);
void conf_unref(struct conf *c); /* NULL allowed */
static inline void conf_unrefp(struct conf **c) { conf_unref(*c); }
#define _cleanup_conf_ __attribute__((cleanup(conf_unrefp)))

/* ---- printing ---- */
/* Every value as "path = value  # where it came from", in the table's order. What this daemon does not act on is left out
 * unless it is set. */
void conf_effective(const struct conf *c, struct buf *out);
void conf_manual(struct buf *out); /* docs/config.md */
void conf_man(struct buf *out);    /* slipwayd.toml(5) */
/* The TOML as toml-test's tagged JSON; -1: what is wrong in *e. */
int conf_dump_json(const char *text, size_t n, const char *name, struct buf *out, struct err *e);
/* Paths of keys whose values differ: those that a reload changes, those that need a restart. NULL allowed. */
void conf_diff(const struct conf *a, const struct conf *b, struct strvec *ret_live, struct strvec *ret_restart);
/* Files that it names and that a reload reads again: itself, certificates, keys, credentials; also folders of them. */
void conf_files(const struct conf *c, struct strvec *ret);

/* ---- derived ---- */
bool conf_is_rootless_user(void); /* in a user namespace with $USER set and not root: paths of this user are used */
/* The entry for a host[:port]: its own name, else the longest "*.suffix" (any depth below, not suffix itself; without a port in
 * it, it is for any port), else "*". NULL: none. One entry holds: entries are not merged. reg decides by the same rule. */
const struct conf_registry *conf_registry_find(const struct conf *c, const char *host);
/* The worker's policies, defaults where none are given; spaces in bytes of a file system of total_bytes (0: unknown). */
struct conf_gc_rule {
	bool all;
	const char *const *filters; /* NULL-terminated, borrowed from c or static */
	int64_t keep_duration_ns, reserved_bytes, max_used_bytes, min_free_bytes;
};
struct conf_gc_rules {
	VEC(struct conf_gc_rule) v; /* empty: gc = false */
};
void conf_gc_rules(const struct conf_worker *w, int64_t total_bytes, struct conf_gc_rules *ret);
int conf_parse_space(const char *s, struct conf_space *ret); /* "512MB" is 512 MiB, "10%", bytes; -1 */
int conf_parse_duration(const char *s, int64_t *ret_ns);     /* "48h" or seconds; -1 */
#endif
