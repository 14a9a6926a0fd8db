/* The default seccomp profile of build containers: what Docker allows, as the "linux.seccomp" object of an OCI config.
 *
 * A table: calls that are always allowed, then rows that hold under a condition (architecture, kernel, a capability in
 * the bounding set or its absence, an argument's value). Everything else answers EPERM; clone3 answers ENOSYS, so that
 * libc falls back to clone, whose namespace flags a filter can see. The behaviour is that of the peer's profile
 * (moby/profiles seccomp of v0.32.2); the names are the kernel's. Pure; any thread. */
#include "run/internal.h"

#include <stdio.h>
#include <sys/utsname.h>

static const char always[] =
	"_llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod "
	"chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime "
	"clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat "
	"dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait "
	"epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 "
	"fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl "
	"fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs "
	"fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake "
	"futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid "
	"geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid "
	"getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname "
	"getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init "
	"inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 "
	"io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset "
	"landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat "
	"llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create "
	"memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr "
	"mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink "
	"mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep "
	"newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free "
	"pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 "
	"pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom "
	"recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 "
	"restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo "
	"rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo "
	"sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam "
	"sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr "
	"sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop "
	"semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area "
	"set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer "
	"setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 "
	"setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown "
	"sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs "
	"statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time "
	"timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 "
	"timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate "
	"truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes "
	"vfork vmsplice wait4 waitid waitpid write writev";

enum arch_bit { X86_64 = 1, ARM64 = 2, ARM = 4, X86 = 8, S390X = 16, RISCV64 = 32, PPC64LE = 64, LOONG64 = 128 };
#if defined(__x86_64__)
enum { HERE = X86_64 };
#elif defined(__aarch64__)
enum { HERE = ARM64 };
#elif defined(__arm__)
enum { HERE = ARM };
#elif defined(__i386__)
enum { HERE = X86 };
#elif defined(__s390x__)
enum { HERE = S390X };
#elif defined(__riscv)
enum { HERE = RISCV64 };
#elif defined(__powerpc64__)
enum { HERE = PPC64LE };
#elif defined(__loongarch64)
enum { HERE = LOONG64 };
#else
enum { HERE = 0 };
#endif

static const struct {
	int arch;
	const char *names;
} architectures[] = {
	{X86_64, "SCMP_ARCH_X86_64 SCMP_ARCH_X86 SCMP_ARCH_X32"},
	{ARM64, "SCMP_ARCH_AARCH64 SCMP_ARCH_ARM"},
	{S390X, "SCMP_ARCH_S390X SCMP_ARCH_S390"},
	{RISCV64, "SCMP_ARCH_RISCV64"},
	{LOONG64, "SCMP_ARCH_LOONGARCH64"},
};

/* CLONE_NEW* without CLONE_NEWTIME, as a mask that must give zero. */
#define CLONE_NEW_MASK 0x7E020000
#define NO_ADMIN "CAP_SYS_ADMIN"

static const struct rule {
	const char *names;
	const char *op; /* on argument `arg`: NULL for none */
	uint64_t value;
	unsigned arg;
	int arch, not_arch;  /* masks; 0: any */
	const char *cap;     /* only with this capability */
	const char *not_cap; /* only without it */
	int errno_ret;       /* > 0: refuse with it instead of allowing */
	bool kernel_4_8;
} rules[] = {
	{.names = "process_vm_readv process_vm_writev ptrace", .kernel_4_8 = true},
	/* every socket family but AF_ALG (38) and AF_VSOCK (40) */
	{.names = "socket", .op = "SCMP_CMP_LT", .value = 38},
	{.names = "socket", .op = "SCMP_CMP_EQ", .value = 39},
	{.names = "socket", .op = "SCMP_CMP_GT", .value = 40},
	/* PER_LINUX, PER_LINUX32, the two with UNAME26, and the query */
	{.names = "personality", .op = "SCMP_CMP_EQ", .value = 0},
	{.names = "personality", .op = "SCMP_CMP_EQ", .value = 0x8},
	{.names = "personality", .op = "SCMP_CMP_EQ", .value = 0x20000},
	{.names = "personality", .op = "SCMP_CMP_EQ", .value = 0x20008},
	{.names = "personality", .op = "SCMP_CMP_EQ", .value = 0xffffffff},
	{.names = "sync_file_range2 swapcontext", .arch = PPC64LE},
	{.names = "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls", .arch = ARM | ARM64},
	{.names = "arch_prctl", .arch = X86_64},
	{.names = "modify_ldt", .arch = X86_64 | X86},
	{.names = "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr", .arch = S390X},
	{.names = "riscv_flush_icache", .arch = RISCV64},
	{.names = "open_by_handle_at", .cap = "CAP_DAC_READ_SEARCH"},
	{.names = "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr "
		  "lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl "
		  "quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
	 .cap = "CAP_SYS_ADMIN"},
	{.names = "clone", .op = "SCMP_CMP_MASKED_EQ", .value = CLONE_NEW_MASK, .not_cap = NO_ADMIN, .not_arch = S390X},
	{.names = "clone", .op = "SCMP_CMP_MASKED_EQ", .value = CLONE_NEW_MASK, .arg = 1, .not_cap = NO_ADMIN, .arch = S390X},
	{.names = "clone3", .not_cap = NO_ADMIN, .errno_ret = 38 /* ENOSYS */},
	{.names = "reboot", .cap = "CAP_SYS_BOOT"},
	{.names = "chroot", .cap = "CAP_SYS_CHROOT"},
	{.names = "delete_module init_module finit_module", .cap = "CAP_SYS_MODULE"},
	{.names = "acct", .cap = "CAP_SYS_PACCT"},
	{.names = "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace", .cap = "CAP_SYS_PTRACE"},
	{.names = "iopl ioperm", .cap = "CAP_SYS_RAWIO"},
	{.names = "settimeofday stime clock_settime clock_settime64", .cap = "CAP_SYS_TIME"},
	{.names = "vhangup", .cap = "CAP_SYS_TTY_CONFIG"},
	{.names = "get_mempolicy mbind set_mempolicy set_mempolicy_home_node", .cap = "CAP_SYS_NICE"},
	{.names = "syslog", .cap = "CAP_SYSLOG"},
	{.names = "bpf", .cap = "CAP_BPF"},
	{.names = "perf_event_open", .cap = "CAP_PERFMON"},
};

static bool kernel_at_least(int major, int minor)
{
	struct utsname u;
	int a = 0, b = 0;
	if (uname(&u) < 0 || sscanf(u.release, "%d.%d", &a, &b) != 2) return false;
	return a > major || (a == major && b >= minor);
}

static bool rule_holds(const struct rule *r, const struct strvec *caps)
{
	if (r->arch && !(r->arch & HERE)) return false;
	if (r->not_arch & HERE) return false;
	if (r->cap && strvec_find(caps, r->cap) < 0) return false;
	if (r->not_cap && strvec_find(caps, r->not_cap) >= 0) return false;
	return !r->kernel_4_8 || kernel_at_least(4, 8);
}

static void put_words(struct json_w *w, const char *words)
{
	json_arr(w);
	while (*words) {
		size_t n = strcspn(words, " ");
		if (n) json_strn(w, words, n);
		words += n + (words[n] == ' ');
	}
	json_arr_end(w);
}

static void put_rule(struct json_w *w, const struct rule *r)
{
	json_obj(w);
	json_key(w, "names");
	put_words(w, r->names);
	json_kstr(w, "action", r->errno_ret ? "SCMP_ACT_ERRNO" : "SCMP_ACT_ALLOW");
	if (r->errno_ret) json_kint(w, "errnoRet", r->errno_ret);
	if (r->op) {
		json_key(w, "args");
		json_arr(w);
		json_obj(w);
		json_kint(w, "index", r->arg);
		json_key(w, "value");
		json_uint(w, r->value);
		json_kstr(w, "op", r->op);
		json_obj_end(w);
		json_arr_end(w);
	}
	json_obj_end(w);
}

char *seccomp_default(const struct strvec *caps)
{
	struct buf out = BUF_INIT;
	struct json_w w = JSON_W(&out);
	json_obj(&w);
	json_kstr(&w, "defaultAction", "SCMP_ACT_ERRNO");
	json_kint(&w, "defaultErrnoRet", 1);
	for (size_t i = 0; i < array_len(architectures); i++)
		if (architectures[i].arch == HERE) {
			json_key(&w, "architectures");
			put_words(&w, architectures[i].names);
		}
	json_key(&w, "syscalls");
	json_arr(&w);
	put_rule(&w, &(struct rule){.names = always});
	for (size_t i = 0; i < array_len(rules); i++)
		if (rule_holds(&rules[i], caps)) put_rule(&w, &rules[i]);
	json_arr_end(&w);
	json_obj_end(&w);
	return buf_take_str(&out);
}
