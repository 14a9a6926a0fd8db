#ifndef RUN_INTERNAL_H
#define RUN_INTERNAL_H
/* Inside the run room. The parts:
 *   pure:      oci (config.json), seccomp, dns
 *   job code:  user, stubs, cgroup, child (a program run to its end), netns + cni, box (prepare and clean a container)
 *   loop code: engine, run (one container's states), stdio */
#include "run/run.h"

#define RUN_HOSTNAME "buildkitsandbox"
enum { ADDR_STR = 80, RUN_ID_MAX = 128 };

/* ---- facts: set once by run_engine_open, then read by any thread ---- */
struct run_dns {
	atomic_uint refs;
	struct strvec servers, options, search;
};
struct cni;
struct box;
struct run_facts {
	char *bundles_dir, *net_dir, *runtime_root; /* below the state dir */
	char *runtime;
	bool is_crun, is_runc;
	char *seccomp;          /* linux.seccomp; NULL when the kernel has none */
	char *bpf;              /* the same compiled, base64, as crun takes it; NULL */
	struct strvec all_caps; /* what the daemon holds, "CAP_..." */
	bool cgroup2, cgroup_ns, userns, rootless, no_process_sandbox;
	bool no_tty_group;                             /* the group 5 does not exist in this user namespace */
	bool net_none;                                 /* network mode "none" */
	char *cgroup_parent, *apparmor, *trace_socket; /* NULL: none */
	struct cni *cni;                               /* NULL: the host's network */
};

/* ---- seccomp.c ---- */
char *seccomp_default(const struct strvec *caps); /* heap */

/* ---- dns.c ---- */
bool dns_addr_canonical(const char *s, char out[static ADDR_STR]);
char *dns_host_text(bool host_net);                                                /* job; heap */
char *dns_resolv_conf(char *host_text, const struct run_dns *conf, bool host_net); /* pure; changes host_text; heap */
int dns_hosts_file(const char *hostname, const struct run_host *extra, size_t n, char **ret, struct err *e); /* pure */

/* ---- authority.c ---- job: the proxy's authority in the rootfs */
int authority_add(struct box *b, struct err *e);
void authority_remove(struct box *b);

/* ---- stubs.c ---- job */
char *stubs_resolve(int rootfd, const char *path); /* heap or NULL */
void stubs_note(struct strvec *stubs, int rootfd, const char *dest, bool recursive);
void stubs_remove(const struct strvec *stubs, int rootfd);

/* ---- cgroup.c ---- job */
bool cgroup_is_v2(void);
/* /sys/fs/cgroup is no root and holds processes, so nothing below it can get controllers. */
bool cgroup_root_is_busy(void);
char *cgroup_path(const char *parent, const char *id); /* what config.json names; heap */
/* cgroup v2: the directory around a container's cgroup, which stays after the runtime removed that one. */
char *cgroup_wrap(const char *cgroups_path); /* made below /sys/fs/cgroup; heap, NULL when that is impossible */
void cgroup_read(const char *wrapper, struct run_exit *x);
bool cgroup_kill(const char *wrapper); /* any thread; does not block */
void cgroup_unwrap(const char *wrapper);

/* ---- oci.c ---- pure, but for statfs of bind sources in a user namespace and the free loop device */
struct oci_process {
	char *const *args, *const *env;
	const char *cwd;
	const struct run_user *user;
	bool tty, insecure, trace;
	const char *traceparent; /* with trace */
	const char *proxy;       /* an address; NULL: none */
	const struct run_ulimit *ulimits;
	size_t n_ulimits;
	const uint32_t *gids; /* further groups */
	size_t n_gids;
};
struct oci_box {
	const struct run_spec *spec;
	const struct run_user *user;
	const char *id, *hosts_path, *resolv_path, *cgroups_path;
	const char *netns; /* NULL: a new one or, with host_net, ours */
	const char *proxy; /* "127.0.0.1:PORT"; NULL: none */
	bool host_net, trace;
};
int oci_config(const struct run_facts *f, const struct oci_box *b, struct buf *out, struct err *e);
void oci_process(const struct run_facts *f, const struct oci_process *p, struct buf *out);
void oci_default_caps(struct strvec *out);

/* ---- child.c ---- job or before the loop runs: a program run to its end */
struct child_result {
	int status; /* exit code, 128+n */
	struct buf out, err;
};
/* stdin_text may be NULL. Output beyond 1 MiB is cut. -1: it could not be started or took longer than timeout_ms (killed). */
int child_run(char *const *argv, char *const *env, const char *stdin_text, int timeout_ms, struct child_result *ret,
	      struct err *e);
struct child_pipes {
	int in[2], out[2], err[2];
};
#define CHILD_PIPES ((struct child_pipes){{-1, -1}, {-1, -1}, {-1, -1}})
void child_pipes_fini(struct child_pipes *p);
/* Started only: ours are in[1] (does not block), out[0], err[0]; then wait. */
int child_spawn(char *const *argv, char *const *env, struct child_pipes *p, pid_t *ret, struct err *e);
int child_wait(pid_t pid); /* exit code, 128+n */
void child_result_fini(struct child_result *r);
char *child_find(const char *name); /* in PATH; heap or NULL */

/* ---- netns.c, cni.c ---- job, or before and after the loop runs */
struct net_ns {
	struct list link;
	char *path, *id, *hostname; /* bind mount of the namespace; what CNI knows it as */
	int64_t idle_since_ns;
};
int netns_make(const char *dir, const char *id, char **ret_path, struct err *e);
void netns_remove(const char *path);
/* A new namespace with nothing but a listening socket on its loopback. */
int netns_proxy(const char *dir, const char *id, char **ret_path, char **ret_addr, int *ret_fd, struct err *e);
/* A new namespace dir/id with an interface of that name and these addresses ("10.10.0.2/16"), in place of one that is gone. */
int netns_stand_in(const char *dir, const char *id, const char *ifname, char *const *addresses, size_t n, struct err *e);
struct cni_conf {
	const char *config_path, *bin_dir, *net_dir, *bridge_name, *bridge_subnet;
	bool bridge; /* the built-in list instead of config_path */
};
/* One namespace is attached, so that a bad set-up is told at start and the bridge is made; it can be used (*ret_first). */
int cni_open(const struct cni_conf *c, struct cni **ret, struct net_ns **ret_first, struct err *e);
void cni_close(struct cni *c); /* removes a bridge that it made */
int cni_attach(const struct cni *c, const char *hostname, struct net_ns **ret, struct err *e);
void cni_detach(const char *net_dir, struct net_ns *ns); /* by its record; frees ns */
/* What a killed daemon left: look before cni_open, sweep at any time afterwards. c NULL: no CNI network now. */
void cni_left(const char *net_dir, struct strvec *ids);
void cni_sweep(const struct cni *c, const char *net_dir, const struct strvec *ids);

/* ---- box.c ---- job code: one container's folder, before and after ---- */
struct box {
	struct loop_job job;
	void *owner; /* the struct run */
	const struct run_facts *facts;
	const struct run_spec *spec; /* of the run's arena */
	const char *id;
	bool wants_netns, release_netns;
	struct net_ns *netns;
	char *proxy_ns, *proxy_addr, *ca_path; /* with spec->proxy_ca; ca_path: in the rootfs, NULL: it has no bundle */
	struct digest ca_digest;               /* of that as we left it */
	struct timespec ca_mtime;              /* as it was */
	size_t ca_at, ca_len;                  /* what we added */
	int proxy_fd;
	char *bundle, *cgroup_wrapper, *pid_file;
	struct strvec stubs;
	int rootfd;
	struct run_exit exit;
	struct err err;
};
void box_prepare(struct loop_job *j);
void box_clean(struct loop_job *j);
struct exec_box {
	struct loop_job job;
	void *owner;
	const struct run_facts *facts;
	const struct run_spec *container;
	const struct run_exec_spec *spec;
	const char *bundle;
	unsigned seq;
	char *process_file, *pid_file;
	struct err err;
};
void exec_box_prepare(struct loop_job *j);

/* ---- probe.c ---- before the loop runs */
/* Find a runtime that can run a container here and now; sets facts->runtime, is_crun, is_runc, bpf, runtime_root. */
int probe_runtime(struct run_facts *f, const char *state_dir, const char *wanted, struct err *e);
void probe_sweep(const struct run_facts *f, const char *state_dir);                /* containers of a killed daemon */
void runtime_argv(const struct run_facts *f, const char *log, struct strvec *out); /* program and global options */

/* ---- engine.c ---- */
enum { READ_BYTES = 64 * 1024 };
struct run_engine {
	struct loop *loop;
	struct run_facts facts;
	struct run_dns *dns; /* of containers that start now; NULL: the host's */
	struct list idle_ns; /* struct net_ns, oldest first */
	size_t n_ns, pool_size;
	struct loop_timer ns_timer;
	bool filling, stopping;
	size_t n_runs, n_jobs; /* n_jobs: those on namespaces */
	char *read_buf;
	char *bridge_name;
	/* the runtime is looked for in a job; `facts` of it are set once probed */
	struct loop_job probe;
	char *state_dir, *wanted_runtime;
	bool probed;
	struct err probe_err;
	struct list waiting; /* runs that wait for it */
};
void run_probed(struct list *link);                  /* run.c: a waiting run may start, or fails with probe_err */
struct net_ns *engine_ns_take(struct run_engine *g); /* NULL: none ready */
void engine_ns_give(struct run_engine *g, struct net_ns *ns);

/* ---- stdio.c ---- the three streams of a run, on the loop */
struct run_stdio;
struct run_stdio_ops {
	void (*data)(void *arg, int fd, const void *p, size_t n); /* fd 1 or 2 */
	void (*ended)(void *arg);                                 /* all output has ended; once */
	void (*drained)(void *arg);
};
struct run_stdio_conf {
	bool tty, open_stdin;
	unsigned short rows, cols;
	int fds[3];                             /* the caller's; -1: ours */
	const char *console_dir, *console_name; /* a terminal by console socket, made there; NULL: by a pty pair of ours */
};
int run_stdio_open(struct run_engine *g, const struct run_stdio_conf *c, const struct run_stdio_ops *ops, void *arg,
		   struct run_stdio **ret, struct err *e);
const int *run_stdio_child_fds(const struct run_stdio *s); /* for the child; -1: /dev/null */
void run_stdio_started(struct run_stdio *s);               /* close the child's ends, begin to read */
void run_stdio_pause(struct run_stdio *s, bool paused);
int run_stdio_write(struct run_stdio *s, const void *p, size_t n, struct err *e);
void run_stdio_resize(struct run_stdio *s, unsigned short rows, unsigned short cols);
bool run_stdio_has_ended(const struct run_stdio *s);
void run_stdio_child_gone(struct run_stdio *s); /* a console that has not come will not come */
void run_stdio_cut(struct run_stdio *s);        /* no more output: ended() comes */
void run_stdio_close(struct run_stdio *s);      /* NULL allowed; no callback afterwards */
#endif
