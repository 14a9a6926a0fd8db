/* The kernel chooses an emulator by the first bytes of a program: a rule has an offset, a magic and a mask. We make the first
 * 20 bytes of an ELF program of each architecture that we know by name, and see whether a rule would take it.
 *
 * binfmt_misc may not be mounted where we live (a container of dockerd's has none): then a mount of our own, attached to no
 * path, shows the same rules. It needs CAP_SYS_ADMIN; without, only the usual place is looked at. Nothing is ever registered
 * here. */
#include "run/platforms.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <unistd.h>

static const struct arch {
	const char *name; /* with variant where it is no default */
	unsigned char class, data;
	unsigned short machine;
	const char *also; /* a lower variant that comes with it */
} archs[] = {
	{"amd64", 2, 1, 62, NULL},   {"arm64", 2, 1, 183, NULL},   {"riscv64", 2, 1, 243, NULL}, {"ppc64", 2, 2, 21, NULL},
	{"ppc64le", 2, 1, 21, NULL}, {"s390x", 2, 2, 22, NULL},    {"386", 1, 1, 3, NULL},       {"mips64le", 2, 1, 8, NULL},
	{"mips64", 2, 2, 8, NULL},   {"loong64", 2, 1, 258, NULL}, {"arm", 1, 1, 40, "arm/v6"},
};
enum { HEAD = 20, MAX_RULE = 4096, MAX_RULES = 256 };

static void elf_head(const struct arch *a, unsigned char h[HEAD])
{
	memset(h, 0, HEAD);
	memcpy(h, "\177ELF", 4);
	h[4] = a->class;
	h[5] = a->data;
	h[6] = 1;                      /* version */
	h[a->data == 1 ? 16 : 17] = 2; /* ET_EXEC */
	h[a->data == 1 ? 18 : 19] = (unsigned char)a->machine;
	h[a->data == 1 ? 19 : 18] = (unsigned char)(a->machine >> 8);
}

/* The value of a line "key value"; its length without the end of the line. */
static const char *line_of(const char *rule, const char *key, size_t *ret_n)
{
	size_t k = strlen(key);
	for (const char *p = rule; *p; p += strcspn(p, "\n"), p += *p == '\n')
		if (!strncmp(p, key, k)) {
			*ret_n = strcspn(p + k, "\n");
			return p + k;
		}
	return NULL;
}

static size_t unhex(const char *s, size_t n, unsigned char *ret, size_t cap)
{
	size_t k = 0;
	for (; k < cap && 2 * k + 1 < n; k++) {
		char two[3] = {s[2 * k], s[2 * k + 1], 0}, *end;
		ret[k] = (unsigned char)strtoul(two, &end, 16);
		if (*end) return 0;
	}
	return k;
}

static bool rule_takes(const char *rule, const unsigned char head[HEAD])
{
	size_t n_flags = 0, n_offset = 0, n_magic = 0, n_mask = 0;
	const char *flags = line_of(rule, "flags: ", &n_flags), *offset = line_of(rule, "offset ", &n_offset),
		   *magic = line_of(rule, "magic ", &n_magic), *mask = line_of(rule, "mask ", &n_mask);
	if (!str_starts(rule, "enabled") || !flags || !memchr(flags, 'F', n_flags)) return false;
	if (!magic || (offset && (n_offset != 1 || *offset != '0'))) return false; /* by extension, or not the head of a file */
	unsigned char want[HEAD], care[HEAD];
	memset(care, 0xff, sizeof care);
	size_t n = unhex(magic, n_magic, want, HEAD);
	if (mask) unhex(mask, n_mask, care, HEAD);
	for (size_t i = 0; i < n; i++)
		if ((head[i] ^ want[i]) & care[i]) return false;
	return n > 4;
}

bool run_binfmt_runs(const char *rule, const char *arch)
{
	for (size_t i = 0; i < array_len(archs); i++) {
		unsigned char head[HEAD];
		if (strcmp(archs[i].name, arch) != 0) continue;
		elf_head(&archs[i], head);
		return rule_takes(rule, head);
	}
	return false;
}

/* ---- the kernel's rules ---- */

static int open_rules(void)
{
	int dir = open("/proc/sys/fs/binfmt_misc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir >= 0 && faccessat(dir, "status", F_OK, 0) == 0) return dir;
	if (dir >= 0) close(dir);
	_cleanup_close_ int fs = fsopen("binfmt_misc", FSOPEN_CLOEXEC);
	if (fs < 0 || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) return -1;
	_cleanup_close_ int mnt = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	return mnt < 0 ? -1 : openat(mnt, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static unsigned emulated(void)
{
	unsigned found = 0;
	int fd = open_rules();
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (fd >= 0 && !dir) close(fd);
	for (int left = MAX_RULES; dir && left > 0; left--) {
		char rule[MAX_RULE];
		const struct dirent *d = readdir(dir);
		if (!d) break;
		if (d->d_name[0] == '.' || !strcmp(d->d_name, "register") || !strcmp(d->d_name, "status")) continue;
		_cleanup_close_ int file = openat(dirfd(dir), d->d_name, O_RDONLY | O_CLOEXEC);
		ssize_t n = file < 0 ? -1 : read(file, rule, sizeof rule - 1);
		if (n <= 0) continue;
		rule[n] = 0;
		for (size_t i = 0; i < array_len(archs); i++)
			if (run_binfmt_runs(rule, archs[i].name)) found |= 1u << i;
	}
	if (dir) closedir(dir);
	return found;
}

/* ---- the processor's relatives ---- */

static bool runs_natively(const char *host, const char *arch)
{
	if (!strcmp(host, "amd64") && !strcmp(arch, "386")) return access("/proc/sys/abi/vsyscall32", F_OK) == 0;
#if defined __aarch64__
	if (!strcmp(arch, "arm")) { /* PER_LINUX32 is refused where no core runs 32-bit programs */
		int before = personality(0xffffffff);
		if (before < 0 || personality(PER_LINUX32) < 0) return false;
		personality((unsigned)before);
		return true;
	}
#endif
	return false;
}

static void add(struct run_platforms *p, const char *arch)
{
	_cleanup_free_ char *text = xasprintf("linux/%s", arch);
	p->v = xrealloc(p->v, (p->n + 1) * sizeof *p->v);
	if (spec_platform_parse_normal(text, &p->v[p->n], NULL) >= 0) p->n++;
}

static void add_variants(struct run_platforms *p)
{
#if defined __x86_64__ && (!defined __clang__ || __clang_major__ >= 18) /* older ones do not know these names */
	if (__builtin_cpu_supports("x86-64-v2")) add(p, "amd64/v2");
	if (__builtin_cpu_supports("x86-64-v3")) add(p, "amd64/v3");
	if (__builtin_cpu_supports("x86-64-v4")) add(p, "amd64/v4");
#else
	(void)p;
#endif
}

void run_platforms_find(struct run_platforms *ret)
{
	*ret = (struct run_platforms){.v = xcalloc(1, sizeof *ret->v), .n = 1};
	spec_platform_host(&ret->v[0]);
	char host[16];
	snprintf(host, sizeof host, "%s", ret->v[0].arch);
	add_variants(ret);
	unsigned found = emulated();
	for (size_t i = 0; i < array_len(archs); i++) {
		const struct arch *a = &archs[i];
		if (!strcmp(a->name, host) || !(found & 1u << i || runs_natively(host, a->name))) continue;
		add(ret, a->name);
		if (a->also) add(ret, a->also);
	}
}

bool run_platforms_offer(const struct spec_platform *p)
{
	struct run_platforms all;
	bool found = false;
	run_platforms_find(&all);
	for (size_t i = 0; i < all.n && !found; i++) found = !strcmp(all.v[i].arch, p->arch);
	run_platforms_fini(&all);
	return found;
}

void run_platforms_fini(struct run_platforms *p)
{
	for (size_t i = 0; i < p->n; i++) spec_platform_fini(&p->v[i]);
	free(p->v);
	*p = (struct run_platforms){0};
}

bool run_platforms_equal(const struct run_platforms *a, const struct run_platforms *b)
{
	if (a->n != b->n) return false;
	for (size_t i = 0; i < a->n; i++)
		if (!spec_platform_equal(&a->v[i], &b->v[i])) return false;
	return true;
}
