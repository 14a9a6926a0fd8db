#ifndef RUN_RUN_H
#define RUN_RUN_H
/* Containers: everything between "a root filesystem path and a process" and "an exit code".
 *
 * An engine (one a daemon) knows the OCI runtime, the cgroup layout, the seccomp profile and the network. A run is one
 * container: a job writes its bundle, the runtime is a child of the loop (it dies with the daemon), its output comes by
 * callbacks as it is written, a second job cleans up. Order of the callbacks of one run:
 *     started?  (stdout | stderr)*  exited        and after exited() nothing: the struct is freed behind it.
 * All functions: loop thread and not blocking, unless said otherwise. Errors of bad input: INVALID_ARGUMENT.
 * Sources: OCI runtime-spec 1.1; peer executor/oci, executor/runcexecutor, util/network; reference 03 §4. */
#include "loop/loop.h"

/* ---- before any thread ---- */
/* Enter a mount namespace of our own (slave propagation), so that what the daemon mounts ends with it; there a hybrid
 * /sys/fs/cgroup/unified is unmounted (crun 1.8 refuses hybrid layouts). Main thread, before any other thread; blocks
 * shortly. Needs CAP_SYS_ADMIN; FAILED_PRECONDITION without. */
int run_enter_namespace(struct err *e);

/* ---- engine ---- */
struct run_engine_conf {
	const char *state_dir;       /* bundles, network namespaces, records; made 0711 */
	const char *runtime;         /* NULL: the first that works of crun, buildkit-runc, runc; else only this name or path */
	const char *net_mode;        /* "auto" (NULL), "host", "cni", "bridge", "none" */
	const char *cni_config_path; /* NULL: /etc/buildkit/cni.json */
	const char *cni_bin_dir;     /* NULL: /opt/cni/bin; several with ':' */
	unsigned cni_pool_size;      /* namespaces kept ready, 0: none */
	const char *bridge_name;     /* NULL: buildkit0 */
	const char *bridge_subnet;   /* NULL: 10.10.0.0/16 */
	struct run_dns *dns;         /* a reference is taken; NULL: the host's resolv.conf */
	bool rootless;               /* no cgroups, no /sys */
	bool no_process_sandbox;     /* share the daemon's pid namespace (rootless in an unprivileged container) */
	const char *apparmor;        /* profile; NULL: none */
	const char *cgroup_parent;   /* defaultCgroupParent; NULL: none */
	const char *trace_socket;    /* bound at /dev/otel-grpc.sock when it exists; NULL: none */
};
/* [dns]: immutable, shared by references. Any thread. INVALID_ARGUMENT for what is no address. */
struct run_dns;
int run_dns_new(char *const *nameservers, size_t n_nameservers, char *const *options, size_t n_options, char *const *search,
		size_t n_search, struct run_dns **ret, struct err *e);
struct run_dns *run_dns_ref(struct run_dns *d);
void run_dns_unref(struct run_dns *d); /* NULL allowed */
struct run_engine;
/* Call it at start, before loop_run; blocks where a CNI network has to be set up. conf is copied. A job then cleans up what a
 * killed daemon left and starts a trivial container with each candidate runtime; runs wait for it, and when no runtime works
 * they fail with FAILED_PRECONDITION and each one's reason. */
int run_engine_open(struct loop *l, const struct run_engine_conf *conf, struct run_engine **ret, struct err *e);
/* Before the process ends, after the loop has stopped: detaches the networks that no run holds and removes a bridge of ours.
 * Blocks on the plugins. No run may start afterwards; one that is under way still leaves its own to the next daemon. NULL
 * allowed. */
void run_engine_stop(struct run_engine *g);
void run_engine_close(struct run_engine *g); /* no run may be under way; stops it first */
void run_engine_set_dns(struct run_engine *g,
			struct run_dns *dns); /* of runs that start from now on; takes a reference; NULL: the host's */
const char *run_engine_runtime(const struct run_engine *g); /* path of the runtime in use; NULL: not known yet */
const char *run_engine_network(const struct run_engine *g); /* worker label value: "host" or "cni" */
bool run_engine_cgroup2(const struct run_engine *g);

/* ---- one container ---- */
enum run_net { RUN_NET_DEFAULT, RUN_NET_HOST, RUN_NET_NONE };
struct run_mount {
	const char *source;   /* absolute host path for "bind"; "tmpfs" etc. otherwise */
	const char *dest;     /* in the container; relative ones are below the cwd */
	const char *type;     /* "bind", "tmpfs", ... */
	char *const *options; /* mount(8) words: "rbind", "ro", "size=..." */
	size_t n_options;
	bool no_stub; /* the mount point is no stub to remove afterwards (the caller made it) */
};
struct run_host {
	const char *host, *ip;
};
struct run_ulimit {
	const char *name;
	int64_t soft, hard;
};                                    /* name as "nofile" */
struct run_device {                   /* a device node */
	const char *path, *host_path; /* host_path NULL: the same */
	char type;                    /* 'b', 'c', 'u', 'p'; 0: what host_path is */
	int64_t major, minor;         /* both 0: those of host_path; not with type 'p' */
	int64_t mode, uid, gid;       /* -1: mode as on the host, 0:0 */
	const char *access;           /* NULL: "rwm" */
};
#define RUN_DEVICE_INIT ((struct run_device){.mode = -1, .uid = -1, .gid = -1})
struct run_hook {                       /* of the runtime specification */
	const char *kind;               /* "prestart", "createRuntime", ... */
	const char *path;               /* absolute, on the host */
	char *const *args, *const *env; /* NULL-terminated; NULL: none */
	int64_t timeout_s;              /* 0: none */
};
struct run_resources {                           /* zero: not set */
	int64_t memory_bytes, memory_swap_bytes; /* swap -1: unlimited */
	uint64_t cpu_shares;
	int64_t cpu_quota_us;
	uint64_t cpu_period_us;
	const char *cpuset_cpus, *cpuset_mems;
};
struct run_spec {           /* plain values, copied by run_start */
	const char *id;     /* [A-Za-z0-9]+; NULL: a new one */
	const char *rootfs; /* absolute host path, mounted and ready */
	bool rootfs_readonly;
	char *const *args, *const *env; /* NULL-terminated; env is passed as it is (PATH included) */
	const char *cwd;                /* NULL or "": "/"; made 0755 and owned by the user when missing */
	const char *user;               /* "", "user", "uid:gid", "user:group": looked up in the rootfs */
	const char *hostname;           /* NULL: buildkitsandbox */
	const struct run_mount *mounts;
	size_t n_mounts;
	enum run_net net;
	const char *proxy_ca; /* not NULL: all that the container has of a network is a proxy, which run_ops.proxy is to be; net says how
				 that one gets out. PEM, added to the rootfs' bundle of authorities while the container runs */
	bool insecure;
	bool tty; /* stdout carries both streams */
	unsigned short tty_rows, tty_cols;
	bool open_stdin; /* run_write_stdin feeds it; else /dev/null */
	bool remove_stubs_recursive;
	bool trace;              /* bind the trace socket and add its OTEL_* variables where unset */
	const char *traceparent; /* with them: TRACEPARENT; NULL or "": none */
	const struct run_host *extra_hosts;
	size_t n_extra_hosts;
	const struct run_ulimit *ulimits;
	size_t n_ulimits;
	const struct run_device *devices;
	size_t n_devices;
	const struct run_hook *hooks;
	size_t n_hooks;
	const uint32_t *gids; /* further groups of the process */
	size_t n_gids;
	const char *cgroup_parent; /* NULL: the engine's */
	struct run_dns *dns;       /* NULL: the engine's */
	struct run_resources res;
	/* Descriptors to use instead of callbacks and run_write_stdin; -1 (RUN_SPEC_INIT) for the callbacks. Borrowed
	 * until started() or exited(); not with tty. */
	int stdin_fd, stdout_fd, stderr_fd;
};
#define RUN_SPEC_INIT ((struct run_spec){.stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1})
enum { RUN_EXIT_UNKNOWN = 255 }; /* the runtime itself failed in an unknown way */

struct run_exit {
	int code;    /* 0..255; 128+n for a signal n; meaningless when err is set */
	bool oom;    /* the kernel killed something of it for memory */
	bool killed; /* run_kill was called before it ended: code may be anything then */
	struct {     /* from the cgroup, zero when unknown */
		uint64_t cpu_usec, cpu_user_usec, cpu_system_usec, memory_peak_bytes, io_read_bytes, io_write_bytes, pids_peak;
	} usage;
};
struct run_ops {
	/* With proxy_ca, before the process runs: a listening socket in its network namespace (yours), and the namespace that
	 * requests are to leave by, which exists until exited() (NULL: the daemon's). -1 with *e: it does not run. */
	int (*proxy)(void *user, int listen_fd, const char *egress_netns, struct err *e);
	void (*started)(void *user);                              /* the process runs; may be NULL */
	void (*stdout_data)(void *user, const void *p, size_t n); /* may be NULL: dropped */
	void (*stderr_data)(void *user, const void *p, size_t n);
	void (*stdin_drained)(void *user); /* what run_write_stdin took has gone; may be NULL */
	/* Once. err: it could not be prepared (user not found, network...), else NULL. err is borrowed. A program that cannot
	 * be executed is no err: the runtime's message came to stderr_data, and the code is what the peer has (1). */
	void (*exited)(void *user, const struct run_exit *x, const struct err *err);
};
struct run;
/* On an error nothing was started and exited() does not come. */
int run_start(struct run_engine *g, const struct run_spec *spec, const struct run_ops *ops, void *user, struct run **ret,
	      struct err *e);
void run_kill(struct run *r, int signum);   /* SIGKILL: all of it, also while it is being prepared; exited() still comes */
void run_signal(struct run *r, int signum); /* to its first process only; dropped when it is not running */
const char *run_id(const struct run *r);
bool run_is_started(const struct run *r);
/* Pause reading its output (the consumer is slow); what is written then blocks the process. */
void run_pause_output(struct run *r, bool paused);
/* Bytes for its stdin (copied). n 0 closes it. -1 when it has ended or has no stdin. */
int run_write_stdin(struct run *r, const void *p, size_t n, struct err *e);
void run_resize(struct run *r, unsigned short rows, unsigned short cols); /* tty only */

/* ---- a further process in a running container (gateway containers) ---- */
struct run_exec_spec { /* copied */
	char *const *args, *const *env;
	const char *cwd, *user;
	bool tty, open_stdin;
	unsigned short tty_rows, tty_cols;
	int stdin_fd, stdout_fd, stderr_fd; /* as in run_spec */
};
#define RUN_EXEC_SPEC_INIT ((struct run_exec_spec){.stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1})
/* The new run has its own exited(); it ends at the latest when its container does. All functions on a run apply. */
int run_exec(struct run *container, const struct run_exec_spec *spec, const struct run_ops *ops, void *user, struct run **ret,
	     struct err *e);

/* ---- users in a root filesystem (also for COPY --chown) ---- job or any thread but the loop; blocks on the disk */
struct run_user {
	uid_t uid;
	gid_t gid;
	gid_t *groups; /* heap: supplementary groups, without gid */
	size_t n_groups;
	char *home; /* heap; NULL when the user has no passwd line */
};
void run_user_fini(struct run_user *u);
/* "" is 0:0; numeric "uid:gid" opens nothing; INVALID_ARGUMENT when a name is not there. */
int run_user_find(int rootfd, const char *user, struct run_user *ret, struct err *e);
#endif
