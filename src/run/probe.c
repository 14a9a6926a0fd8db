/* Which OCI runtime works here: each candidate runs one real container at start, through the same bundle writer as steps.
 *
 * The container's program is a static ELF of a few instructions, written by us, so that nothing of the host is needed: it
 * writes a byte, waits for the end of its stdin and exits. While it waits, crun has the compiled seccomp filter in its
 * state folder; we keep it (by digest of profile, runtime and kernel) and hand it back to crun with each container
 * (annotation run.oci.seccomp_bpf_data), which saves 15 of 25 ms a step. The full profile stays in config.json too: a crun
 * that does not know the annotation compiles it.
 * Also here: removal of the containers that a killed daemon left. Runs before the loop does; blocks. */
#include "run/internal.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/utsname.h>

enum { PROBE_TIMEOUT_MS = 20000, BPF_MAX_BYTES = 64 * 1024, REASON_BYTES = 400 };
enum { SWEEP_ROUNDS = 200, SWEEP_PAUSE_MS = 10 };

#if defined(__x86_64__)
enum { MACHINE = EM_X86_64 };
static const unsigned char code[] = {
	0xb8, 1,    0,    0,    0,    0xbf, 1,    0,    0,    0,    0x48, 0x8d, 0x35, 0xef,
	0xff, 0xff, 0xff, 0xba, 1,    0,    0,    0,    0x0f, 0x05,                         /* write(1, code, 1) */
	0x31, 0xc0, 0x31, 0xff, 0x48, 0x89, 0xe6, 0xba, 1,    0,    0,    0,    0x0f, 0x05, /* read(0, stack, 1) */
	0xb8, 60,   0,    0,    0,    0x31, 0xff, 0x0f, 0x05,                               /* exit(0) */
};
#elif defined(__aarch64__)
enum { MACHINE = EM_AARCH64 };
static const uint32_t code[] = {
	0xd2800808, 0xd2800020, 0x10000001, 0xd2800022, 0xd4000001, /* write(1, pc, 1) */
	0xd28007e8, 0xd2800000, 0x910003e1, 0xd2800022, 0xd4000001, /* read(0, sp, 1) */
	0xd2800ba8, 0xd2800000, 0xd4000001,                         /* exit(0) */
};
#else
enum { MACHINE = 0 };
static const unsigned char code[] = {0};
#endif

void runtime_argv(const struct run_facts *f, const char *log, struct strvec *out)
{
	strvec_add(out, f->runtime);
	strvec_add(out, "--root");
	strvec_add(out, f->runtime_root);
	if (f->rootless && f->is_crun) strvec_add(out, "--cgroup-manager=disabled");
	if (!log) return;
	strvec_add(out, "--log");
	strvec_add(out, log);
	strvec_add(out, "--log-format");
	strvec_add(out, "json");
}

static int write_program(const char *path, struct err *e)
{
	struct {
		Elf64_Ehdr eh;
		Elf64_Phdr ph;
		unsigned char code[sizeof code];
	} f = {
		.eh = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
		       .e_type = ET_EXEC,
		       .e_machine = MACHINE,
		       .e_version = EV_CURRENT,
		       .e_entry = 0x400000 + offsetof(__typeof__(f), code),
		       .e_phoff = sizeof(Elf64_Ehdr),
		       .e_ehsize = sizeof(Elf64_Ehdr),
		       .e_phentsize = sizeof(Elf64_Phdr),
		       .e_phnum = 1},
		.ph = {.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_vaddr = 0x400000, .p_paddr = 0x400000, .p_align = 0x1000},
	};
	memcpy(f.code, code, sizeof code);
	f.ph.p_filesz = f.ph.p_memsz = sizeof f;
	return path_write_file(AT_FDCWD, path, &f, sizeof f, 0755, false, e);
}

/* The root filesystem of the probe: our program, or the host's own where we have no code for this machine. */
static int make_rootfs(const char *state_dir, char **ret, struct err *e)
{
	if (!MACHINE) {
		*ret = xstrdup("/");
		return 0;
	}
	_cleanup_free_ char *dir = xasprintf("%s/probe", state_dir), *program = xasprintf("%s/t", dir);
	if (path_mkdirs(dir, 0755, e) < 0 || write_program(program, e) < 0) return -1;
	*ret = take_ptr(dir);
	return 0;
}

/* ---- the compiled filter ---- */
static char *bpf_cache_path(const struct run_facts *f, const char *state_dir)
{
	struct utsname u;
	struct stat st;
	char d[DIGEST_STR];
	if (uname(&u) < 0 || stat(f->runtime, &st) < 0) return NULL;
	_cleanup_free_ char *key = xasprintf("%s %s %lld %lld.%09ld %s", u.release, f->runtime, (long long)st.st_size,
					     (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, f->seccomp);
	digest_str_of(key, strlen(key), d);
	return xasprintf("%s/seccomp-%.32s", state_dir, d + 7);
}

static char *bpf_load(const char *path)
{
	uint8_t *p = NULL;
	size_t n;
	struct stat st;
	if (!path || stat(path, &st) < 0 || st.st_uid != geteuid() || (st.st_mode & 022)) return NULL;
	if (path_read_file(AT_FDCWD, path, 2 * BPF_MAX_BYTES, &p, &n, NULL) < 0) return NULL;
	_cleanup_buf_ struct buf raw = BUF_INIT;
	if (n && base64_decode((char *)p, n, &raw, NULL) == 0 && raw.n % 8 == 0) return (char *)p;
	free(p);
	return NULL;
}

static void bpf_take(struct run_facts *f, const char *id, const char *cache)
{
	_cleanup_free_ char *path = xasprintf("%s/%s/seccomp.bpf", f->runtime_root, id);
	uint8_t *p = NULL;
	size_t n = 0;
	if (path_read_file(AT_FDCWD, path, BPF_MAX_BYTES, &p, &n, NULL) < 0) return;
	if (n && n % 8 == 0) {
		struct buf b = BUF_INIT;
		base64_encode(&b, p, n);
		f->bpf = buf_take_str(&b);
		if (cache) path_write_file(AT_FDCWD, cache, f->bpf, strlen(f->bpf), 0600, false, NULL);
	}
	free(p);
}

/* ---- one candidate ---- */
static bool wait_byte(int fd)
{
	struct pollfd p = {fd, POLLIN, 0};
	char c;
	int r;
	do r = poll(&p, 1, PROBE_TIMEOUT_MS);
	while (r < 0 && errno == EINTR);
	return r > 0 && read(fd, &c, 1) == 1;
}

static int run_probe(struct run_facts *f, const struct box *b, const char *cache, struct err *e)
{
	_cleanup_strvec_ struct strvec argv = {0};
	_cleanup_(child_pipes_fini) struct child_pipes p = CHILD_PIPES;
	pid_t pid;
	runtime_argv(f, NULL, &argv);
	strvec_add(&argv, "run");
	strvec_add(&argv, "--bundle");
	strvec_add(&argv, b->bundle);
	strvec_add(&argv, b->id);
	if (child_spawn(argv.v, NULL, &p, &pid, e) < 0) return -1;
	bool ran = !MACHINE || wait_byte(p.out[0]);
	if (ran && f->is_crun && f->seccomp && !f->bpf) bpf_take(f, b->id, cache);
	close(take_fd(p.in[1]));
	char reason[REASON_BYTES];
	ssize_t n = 0;
	struct pollfd pf = {p.err[0], POLLIN, 0};
	if (!ran && poll(&pf, 1, 1000) > 0) n = read(p.err[0], reason, sizeof reason);
	if (!ran) kill(pid, SIGKILL);
	int status = child_wait(pid);
	if (ran && status == 0) return 0;
	return err_set(e, CODE_FAILED_PRECONDITION, "exit status %d: %.*s", status, (int)max_of(n, 0), reason);
}

static int try_runtime(struct run_facts *f, const char *state_dir, const char *rootfs, struct err *e)
{
	char id[ID_STR];
	id_new(id);
	struct run_spec spec = RUN_SPEC_INIT;
	spec.rootfs = rootfs;
	spec.rootfs_readonly = !MACHINE;
	_cleanup_strvec_ struct strvec args = {0};
	strvec_add(&args, MACHINE ? "/t" : "/bin/true");
	spec.args = args.v;
	spec.net = RUN_NET_HOST;
	struct box b = {.facts = f, .spec = &spec, .id = id, .rootfd = -1, .proxy_fd = -1};
	_cleanup_free_ char *cache = f->is_crun && f->seccomp ? bpf_cache_path(f, state_dir) : NULL;
	free(f->bpf);
	f->bpf = bpf_load(cache);
	bool had = f->bpf != NULL;
	box_prepare(&b.job);
	int r = err_is_set(&b.err) ? err_move(e, &b.err) : run_probe(f, &b, cache, e);
	box_clean(&b.job);
	strvec_fini(&b.stubs);
	free(b.bundle);
	free(b.cgroup_wrapper);
	free(b.pid_file);
	if (r == 0 || !had) return r;
	unlink(cache); /* perhaps the filter at hand is at fault: once more without */
	return try_runtime(f, state_dir, rootfs, e);
}

static void set_runtime(struct run_facts *f, const char *state_dir, const char *path)
{
	free(f->runtime);
	free(f->runtime_root);
	f->runtime = xstrdup(path);
	f->runtime_root = xasprintf("%s/rt/%s", state_dir, path_base(path));
	f->is_crun = strstr(path_base(path), "crun") != NULL;
	f->is_runc = strstr(path_base(path), "runc") != NULL;
}

int probe_runtime(struct run_facts *f, const char *state_dir, const char *wanted, struct err *e)
{
	const char *candidates[] = {"crun", "buildkit-runc", "runc", "crun"};
	const char *const *c = candidates;
	size_t n = array_len(candidates) - 1;
	_cleanup_free_ char *rootfs = NULL;
	_cleanup_buf_ struct buf reasons = BUF_INIT;
	if (f->no_process_sandbox) /* crun does not end before what a step left in the background does */
		c++;
	else if (!f->rootless && cgroup_root_is_busy()) /* crun tries a thousand times, for three seconds, and fails */
		c++;
	if (wanted) candidates[0] = wanted, c = candidates, n = 1;
	if (make_rootfs(state_dir, &rootfs, e) < 0) return -1;
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *path = child_find(c[i]);
		_cleanup_err_ struct err why = ERR_INIT;
		if (!path) {
			buf_addf(&reasons, "%s%s: not found", reasons.n ? "; " : "", c[i]);
			continue;
		}
		set_runtime(f, state_dir, path);
		if (path_mkdirs(f->runtime_root, 0711, e) < 0) return -1;
		if (try_runtime(f, state_dir, rootfs, &why) == 0) return 0;
		log_debug("runtime %s does not work: %s", path, why.msg);
		buf_addf(&reasons, "%s%s: %s", reasons.n ? "; " : "", path, why.msg);
	}
	bool proc = f->userns && !f->no_process_sandbox && strstr(buf_str(&reasons), "proc") &&
		    strstr(buf_str(&reasons), "not permitted");
	return err_set(e, CODE_FAILED_PRECONDITION, "no OCI runtime works here (%s)%s", buf_str(&reasons),
		       proc ? "; in a container that may not mount /proc, start the daemon with --oci-worker-no-process-sandbox"
			    : "");
}

/* ---- after a kill ---- */
static void each_entry(const char *dir, void (*fn)(const char *dir, const char *name, void *arg), void *arg)
{
	DIR *d = opendir(dir);
	struct dirent *de;
	while (d && (de = readdir(d)))
		if (*de->d_name != '.') fn(dir, de->d_name, arg);
	if (d) closedir(d);
}

struct sweep {
	const char *runtime, *root;
};

static void delete_container(const char *dir, const char *id, void *arg)
{
	struct sweep *s = arg;
	struct child_result r;
	const char *const words[] = {s->runtime ? s->runtime : "", "--root", dir, "delete", "--force", id};
	_cleanup_strvec_ struct strvec argv = {0};
	for (size_t i = 0; i < array_len(words); i++) strvec_add(&argv, words[i]);
	if (s->runtime && child_run(argv.v, NULL, NULL, PROBE_TIMEOUT_MS, &r, NULL) == 0) child_result_fini(&r);
	_cleanup_free_ char *left = xasprintf("%s/%s", dir, id);
	path_remove_all(AT_FDCWD, left, NULL);
}

static void sweep_runtime(const char *dir, const char *name, void *arg)
{
	_cleanup_free_ char *path = child_find(name), *root = xasprintf("%s/%s", dir, name);
	(void)arg;
	each_entry(root, delete_container, &(struct sweep){path, root});
}

static void sweep_bundle(const char *dir, const char *name, void *arg)
{
	_cleanup_free_ char *bundle = xasprintf("%s/%s", dir, name), *file = xasprintf("%s/cgroup", bundle);
	uint8_t *cgroup = NULL;
	size_t n;
	(void)arg;
	if (path_read_file(AT_FDCWD, file, 4096, &cgroup, &n, NULL) == 0 && str_starts((char *)cgroup, "/sys/fs/cgroup/")) {
		cgroup_kill((char *)cgroup);
		cgroup_unwrap((char *)cgroup);
	}
	free(cgroup);
	path_remove_all(AT_FDCWD, bundle, NULL);
}

/* The processes that belong to a bundle that is still there: the runtime, by its command line, and what is in the container's
 * cgroup, whose name ends in the bundle's. The runtime's state does not do for it: a daemon that is killed lets go of the
 * root's lock before its children get their signal, so a runtime may still be about to write its state, or to start its
 * container, while we look. A container's first process that has not joined its cgroup yet ends by itself when its runtime
 * does. */
struct culprit {
	const char *bundles_dir;
	const struct strvec *ids;
	size_t found;
};

static bool reads(const char *pid, const char *file, struct buf *out)
{
	_cleanup_free_ char *path = xasprintf("/proc/%s/%s", pid, file);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	char part[4096];
	ssize_t n = fd < 0 ? -1 : read(fd, part, sizeof part);
	buf_reset(out);
	for (ssize_t i = 0; i < n; i++) buf_addc(out, part[i] ? part[i] : ' '); /* a command line's words end in NULs */
	return n > 0;
}

static bool belongs(const char *pid, const struct culprit *c)
{
	_cleanup_buf_ struct buf cgroup = BUF_INIT, words = BUF_INIT;
	if (!reads(pid, "cgroup", &cgroup) || !reads(pid, "cmdline", &words)) return false;
	for (size_t i = 0; i < c->ids->n; i++) {
		_cleanup_free_ char *bundle = xasprintf("%s/%s", c->bundles_dir, c->ids->v[i]);
		if (strstr(buf_str(&cgroup), c->ids->v[i]) || strstr(buf_str(&words), bundle)) return true;
	}
	return false;
}

static void end_process(const char *dir, const char *name, void *arg)
{
	struct culprit *c = arg;
	pid_t pid = (pid_t)atol(name);
	(void)dir;
	if (pid <= 1 || pid == getpid() || !belongs(name, c)) return;
	c->found++;
	kill(pid, SIGKILL);
}

static void add_name(const char *dir, const char *name, void *arg)
{
	(void)dir;
	if (strlen(name) >= 16) strvec_add(arg, name); /* ids are random and long */
}

static void sweep_processes(const char *bundles_dir)
{
	_cleanup_strvec_ struct strvec ids = {0};
	each_entry(bundles_dir, add_name, &ids);
	if (!ids.n) return;
	for (int quiet = 0, rounds = 0; quiet < 2 && rounds < SWEEP_ROUNDS;
	     rounds++) { /* what was killed may have started one more */
		struct culprit c = {bundles_dir, &ids, 0};
		each_entry("/proc", end_process, &c);
		quiet = c.found ? 0 : quiet + 1;
		poll(NULL, 0, SWEEP_PAUSE_MS);
	}
}

void probe_sweep(const struct run_facts *f, const char *state_dir)
{
	_cleanup_free_ char *rt = xasprintf("%s/rt", state_dir);
	sweep_processes(f->bundles_dir);
	each_entry(rt, sweep_runtime, NULL);
	each_entry(f->bundles_dir, sweep_bundle, NULL);
}
