/* Containers for real: needs root, a static busybox and a runtime that works here; else skipped with the reason.
 * The pure parts (users, resolv.conf, hosts, stubs) are tested everywhere. */
#include "run/internal.h"
#include "run/platforms.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#define BUSYBOX "/bin/busybox"
static char work[] = "/tmp/slipway-run.XXXXXX";
static struct loop *the_loop;
static struct run_engine *engine;
static const char *why_skipped;

static char *at(const char *name) /* leaked on purpose: a test's few paths */
{
	static char ring[16][512];
	static unsigned i;
	char *p = ring[i++ % 16];
	snprintf(p, 512, "%s/%s", work, name);
	return p;
}

static void put(const char *name, const char *text)
{
	assert_int_equal(path_write_file(AT_FDCWD, at(name), text, strlen(text), 0644, false, NULL), 0);
}

static void make_rootfs(const char *name)
{
	static const char *const applets[] = {"sh",    "true",     "cat",    "id",   "ls",   "sleep", "env",
					      "mount", "hostname", "wc",     "grep", "kill", "stat",  "pwd",
					      "touch", "stty",     "chroot", "ip",   "ps",   "tty",   "dd"};
	char dir[300];
	snprintf(dir, sizeof dir, "%s/bin", name);
	path_mkdirs(at(dir), 0755, NULL);
	snprintf(dir, sizeof dir, "%s/etc", name);
	path_mkdirs(at(dir), 0755, NULL);
	snprintf(dir, sizeof dir, "cp " BUSYBOX " %s/bin/busybox", at(name));
	assert_int_equal(system(dir), 0);
	for (size_t i = 0; i < array_len(applets); i++) {
		snprintf(dir, sizeof dir, "%s/bin/%s", name, applets[i]);
		assert_int_equal(symlink("busybox", at(dir)), 0);
	}
	snprintf(dir, sizeof dir, "%s/etc/passwd", name);
	put(dir, "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001:Ann:/home/ann:/bin/sh\n");
	snprintf(dir, sizeof dir, "%s/etc/group", name);
	put(dir, "root:x:0:root\nann:x:1001:\nwheel:x:10:root,ann\ndisk:x:6:ann\n");
}

/* ---- running one and collecting what it says ---- */
struct got {
	struct buf out, err;
	struct run_exit x;
	char *error;
	int exits, starts;
	struct run *run;
	void (*on_started)(struct got *g);
	void (*on_out)(struct got *g);
	bool stay; /* do not stop the loop */
};

static void g_started(void *u)
{
	struct got *g = u;
	g->starts++;
	if (g->on_started) g->on_started(g);
}
static void g_out(void *u, const void *p, size_t n)
{
	struct got *g = u;
	buf_add(&g->out, p, n);
	if (g->on_out) g->on_out(g);
}
static void g_err(void *u, const void *p, size_t n)
{
	struct got *g = u;
	buf_add(&g->err, p, n);
}
static void g_exited(void *u, const struct run_exit *x, const struct err *err)
{
	struct got *g = u;
	g->x = *x;
	g->exits++;
	if (err) g->error = xstrdup(err->msg);
	if (!g->stay) loop_stop(the_loop);
}
static const struct run_ops ops = {.started = g_started, .stdout_data = g_out, .stderr_data = g_err, .exited = g_exited};

static void got_fini(struct got *g)
{
	buf_fini(&g->out);
	buf_fini(&g->err);
	free(g->error);
	*g = (struct got){0};
}

static char sh_s[] = "/bin/sh", c_s[] = "-c", path_s[] = "PATH=/bin";
static char *const env[] = {path_s, NULL};

static struct run_spec sh_spec(char **args, const char *script)
{
	struct run_spec s = RUN_SPEC_INIT;
	args[0] = sh_s, args[1] = c_s, args[2] = (char *)(uintptr_t)script, args[3] = NULL;
	s.rootfs = at("rootfs");
	s.args = args;
	s.env = env;
	return s;
}

static void run_it(const struct run_spec *s, struct got *g)
{
	struct err e = ERR_INIT;
	if (run_start(engine, s, &ops, g, &g->run, &e) < 0) fail_msg("%s", e.msg);
	loop_run(the_loop);
	assert_int_equal(g->exits, 1);
}

static void need_engine(void)
{
	if (!engine) {
		print_message("skipped: %s\n", why_skipped);
		skip();
	}
}

#define CASE(script)                               \
	need_engine();                             \
	char *args[4];                             \
	struct run_spec s = sh_spec(args, script); \
	struct got g = {0};                        \
	(void)g

static void test_exit_and_streams(void **st)
{
	CASE("echo out; echo err >&2; cat; exit 7");
	run_it(&s, &g);
	assert_null(g.error);
	assert_string_equal(buf_str(&g.out), "out\n");
	assert_string_equal(buf_str(&g.err), "err\n");
	assert_int_equal(g.x.code, 7);
	assert_false(g.x.killed);
	got_fini(&g);
	s.args = (args[2] = (char[]){"kill -TERM $$; sleep 1; exec sh -c 'exit 3'"}, args);
	run_it(&s, &g);
	assert_int_equal(g.x.code, 3);
	got_fini(&g);
}

static void test_environment(void **st)
{
	CASE("hostname; cat /etc/hosts; grep -c . /etc/resolv.conf; grep -E 'CapEff|CapBnd|Seccomp:|NoNewPrivs' "
	     "/proc/self/status;"
	     "pwd; id -u; touch /sys/x 2>/dev/null || echo ro; ls /dev; cat /proc/1/cmdline | wc -c; id; umask");
	s.cwd = "/new/dir";
	s.extra_hosts = (struct run_host[]){{"db", "10.0.0.7"}};
	s.n_extra_hosts = 1;
	run_it(&s, &g);
	const char *o = buf_str(&g.out);
	assert_null(g.error);
	assert_non_null(strstr(o, "buildkitsandbox\n127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost "
				  "ip6-loopback\n10.0.0.7\tdb\n"));
	assert_non_null(strstr(o, "CapEff:\t00000000a80425fb"));
	assert_non_null(strstr(o, "CapBnd:\t00000000a80425fb"));
	assert_non_null(strstr(o, "NoNewPrivs:\t0"));
	assert_non_null(strstr(o, "Seccomp:\t2"));
	assert_non_null(strstr(o, "\n/new/dir\n0\nro\n"));
	assert_non_null(strstr(o, "random\nshm\nstderr"));
	assert_non_null(strstr(o, "groups=0(root),10(wheel)"));
	got_fini(&g);
	/* what was made only to be mounted on is gone; the working directory stays */
	assert_int_equal(access(at("rootfs/etc/hosts"), F_OK), -1);
	assert_int_equal(access(at("rootfs/etc/resolv.conf"), F_OK), -1);
	struct stat d;
	assert_int_equal(stat(at("rootfs/new/dir"), &d), 0);
	assert_int_equal(d.st_mode & 07777, 0755);
}

static void test_user(void **st)
{
	CASE("id; stat -c %u:%g .; touch /etc/x 2>/dev/null || echo denied; echo again > /proc/self/fd/1");
	s.user = "ann";
	s.cwd = "/home/ann/work";
	run_it(&s, &g);
	assert_string_equal(buf_str(&g.out),
			    "uid=1000(ann) gid=1001(ann) groups=6(disk),10(wheel),1001(ann)\n1000:1001\ndenied\nagain\n");
	got_fini(&g);
	s.user = "nobody-such";
	run_it(&s, &g);
	assert_string_equal(g.error, "unable to find user nobody-such: no matching entries in passwd file");
	got_fini(&g);
}

static void test_mounts_and_stubs(void **st)
{
	struct stat before, after;
	CASE("cat /data/in /deep/er/file; echo w > /data/out && echo bad; echo x > /t/y && cat /t/y; mount | grep ' /t '");
	path_mkdirs(at("data"), 0755, NULL);
	put("data/in", "in\n");
	put("file", "file\n");
	char rb[] = "rbind", ro[] = "ro", ns[] = "nosuid";
	char *o1[] = {rb, ro}, *o2[] = {ns};
	s.mounts = (struct run_mount[]){{at("data"), "/data", "bind", o1, 2, false},
					{at("file"), "/deep/er/file", "bind", o1, 2, false},
					{"tmpfs", "/t", "tmpfs", o2, 1, false}};
	s.n_mounts = 3;
	s.remove_stubs_recursive = true;
	utimensat(AT_FDCWD, at("rootfs"), (struct timespec[2]){{1000, 5}, {2000, 6}}, 0);
	stat(at("rootfs"), &before);
	run_it(&s, &g);
	stat(at("rootfs"), &after);
	assert_int_equal(strncmp(buf_str(&g.out), "in\nfile\nx\n", 10), 0);
	assert_non_null(strstr(buf_str(&g.out), "nosuid"));
	assert_int_equal(access(at("rootfs/data"), F_OK), -1);
	assert_int_equal(access(at("rootfs/deep"), F_OK), -1);
	assert_int_equal(access(at("rootfs/t"), F_OK), -1);
	(void)before;
	got_fini(&g);
}

static void test_failures(void **st)
{
	CASE("true");
	char nosuch[] = "nosuch";
	args[0] = nosuch;
	run_it(&s, &g);
	assert_null(g.error);
	assert_int_equal(g.x.code, 1);
	assert_non_null(strstr(buf_str(&g.err), "not found"));
	got_fini(&g);
	struct err e = ERR_INIT;
	s.id = "../x";
	assert_int_equal(run_start(engine, &s, &ops, &g, &g.run, &e), -1);
	assert_int_equal(e.code, CODE_INVALID_ARGUMENT);
	err_fini(&e);
	s.id = NULL;
	s.rootfs = "/nonexistent/root";
	run_it(&s, &g);
	assert_non_null(strstr(g.error, "/nonexistent/root"));
	got_fini(&g);
}

static void kill_now(struct got *g) { run_kill(g->run, SIGKILL); }

static void test_kill(void **st)
{
	CASE("echo go; sleep 60; echo no");
	g.on_out = kill_now;
	int64_t t = time_mono_ns();
	run_it(&s, &g);
	assert_true(g.x.killed);
	assert_int_equal(g.x.code, 137);
	assert_true(time_mono_ns() - t < 2000000000);
	got_fini(&g);
	struct err e = ERR_INIT; /* at once, while it is being prepared */
	assert_int_equal(run_start(engine, &s, &ops, &g, &g.run, &e), 0);
	run_kill(g.run, SIGKILL);
	loop_run(the_loop);
	assert_string_equal(g.error, "context canceled");
	got_fini(&g);
	g.on_started = kill_now; /* while it starts */
	run_it(&s, &g);
	assert_true(g.x.killed);
	got_fini(&g);
}

static void test_network_none(void **st)
{
	CASE("cat /proc/net/dev; cat /proc/net/route");
	s.net = RUN_NET_NONE;
	run_it(&s, &g);
	assert_non_null(strstr(buf_str(&g.out), "lo:"));
	assert_null(strstr(buf_str(&g.out), "eth0"));
	got_fini(&g);
}

static void test_insecure(void **st)
{
	CASE("grep -E 'CapAmb|Seccomp:' /proc/self/status; ls /dev/fuse /dev/loop7; touch /sys/kernel/x 2>&1 | grep -c "
	     "'Read-only'");
	s.insecure = true;
	run_it(&s, &g);
	assert_non_null(strstr(buf_str(&g.out), "Seccomp:\t0"));
	assert_null(strstr(buf_str(&g.out), "CapAmb:\t0000000000000000"));
	assert_non_null(strstr(buf_str(&g.out), "/dev/fuse\n/dev/loop7\n0\n"));
	got_fini(&g);
}

static void write_twice(struct got *g)
{
	run_write_stdin(g->run, "hello\n", 6, NULL);
	run_write_stdin(g->run, "", 0, NULL);
}

static void test_stdin_and_much_output(void **st)
{
	CASE("cat; dd if=/dev/zero bs=65536 count=64 2>/dev/null");
	s.open_stdin = true;
	g.on_started = write_twice;
	run_it(&s, &g);
	assert_int_equal(g.out.n, 6 + 64 * 65536);
	assert_memory_equal(g.out.p, "hello\n", 6);
	assert_int_equal(g.starts, 1);
	got_fini(&g);
}

static void resize_it(struct got *g)
{
	if (strstr(buf_str(&g->out), "ready")) {
		g->on_out = NULL;
		run_resize(g->run, 33, 77);
		run_write_stdin(g->run, "go\n", 3, NULL);
	}
}

static void test_tty(void **st)
{
	CASE("tty; stty size; echo ready; read x; sleep 0.2; stty size; echo got $x >&2");
	s.tty = s.open_stdin = true;
	s.tty_rows = 24, s.tty_cols = 80;
	g.on_out = resize_it;
	run_it(&s, &g);
	assert_non_null(strstr(buf_str(&g.out), "/dev/pts/0\r\n"));
	assert_non_null(strstr(buf_str(&g.out), "33 77\r\n"));
	assert_non_null(strstr(buf_str(&g.out), "got go\r\n"));
	got_fini(&g);
}

static struct got inner;
static void inner_exited(void *u, const struct run_exit *x, const struct err *err)
{
	struct got *g = u;
	g->x = *x;
	g->exits++;
	if (err) g->error = xstrdup(err->msg);
	if (g->run) run_kill(g->run, SIGKILL); /* the container */
}
static const struct run_ops inner_ops = {
	.started = g_started, .stdout_data = g_out, .stderr_data = g_err, .exited = inner_exited};

static void test_exec(void **st)
{
	CASE("sleep 60");
	struct err e = ERR_INIT;
	struct run *x;
	char script[] = "id -u; echo $A; ps | grep -c '[s]leep 60$'; grep Seccomp: /proc/self/status; exit 9";
	char a_s[] = "A=b";
	char *xargs[] = {sh_s, c_s, script, NULL}, *xenv[] = {path_s, a_s, NULL};
	struct run_exec_spec xs = RUN_EXEC_SPEC_INIT;
	xs.args = xargs;
	xs.env = xenv;
	xs.user = "ann";
	assert_int_equal(run_start(engine, &s, &ops, &g, &g.run, &e), 0);
	inner.run = g.run;
	if (run_exec(g.run, &xs, &inner_ops, &inner, &x, &e) < 0) fail_msg("%s", e.msg);
	loop_run(the_loop);
	assert_int_equal(inner.exits, 1);
	assert_null(inner.error);
	assert_string_equal(buf_str(&inner.err), "");
	assert_string_equal(buf_str(&inner.out), "1000\nb\n1\nSeccomp:\t2\n");
	assert_int_equal(inner.x.code, 9);
	assert_int_equal(g.x.code, 137);
	got_fini(&g);
	got_fini(&inner);
}

static int count_entries(const char *dir)
{
	char cmd[600];
	snprintf(cmd, sizeof cmd, "find %s -mindepth 1 | wc -l", dir);
	FILE *f = popen(cmd, "re");
	int n = -1;
	assert_int_equal(fscanf(f, "%d", &n), 1);
	pclose(f);
	return n;
}

static void test_leaves_nothing(void **st)
{
	need_engine();
	assert_int_equal(count_entries(at("state/bundles")), 0);
	assert_int_equal(count_entries(engine->facts.runtime_root), 0);
}

/* A daemon that dies leaves a container behind; the next one removes it. */
static void test_crash(void **st)
{
	CASE("exec sleep 61");
	pid_t pid = fork();
	if (pid == 0) {
		struct run *r;
		struct loop *l = loop_new();
		engine->loop = l;
		the_loop = l;
		g.on_started = NULL;
		if (run_start(engine, &s, &ops, &g, &r, NULL) < 0) _exit(1);
		loop_run(l);
		_exit(0);
	}
	for (int i = 0; i < 200 && count_entries(engine->facts.runtime_root) == 0; i++) usleep(10000);
	usleep(50000);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_true(count_entries(at("state/bundles")) > 0);
	probe_sweep(&engine->facts, at("state"));
	assert_int_equal(count_entries(at("state/bundles")), 0);
	assert_int_equal(count_entries(engine->facts.runtime_root), 0);
	assert_int_not_equal(system("pgrep -f '^sleep 61$' >/dev/null"), 0);
}

/* Plugins are scripts here: what they are told is compared; the second of the chain gets the first one's result. */
static void test_cni(void **st)
{
	need_engine();
	struct cni *c = NULL;
	struct net_ns *first = NULL;
	struct err e = ERR_INIT;
	char cmd[900];
	path_mkdirs(at("cni"), 0755, NULL);
	put("cni/one", "#!/bin/sh\necho one $CNI_COMMAND $CNI_IFNAME \"$CNI_ARGS\" >> $(dirname $0)/log\ncat >/dev/null\n"
		       "[ $CNI_COMMAND = ADD ] && echo '{\"cniVersion\":\"1.0.0\",\"ips\":[]}'\nexit 0\n");
	put("cni/loopback", "#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = ADD ] && echo '{}'\nexit 0\n");
	put("cni/two", "#!/bin/sh\nD=$(dirname $0)\necho two $CNI_COMMAND $(grep -c prevResult) >> $D/log\n"
		       "[ -e $D/fail ] && [ $CNI_COMMAND = ADD ] && { echo '{\"code\":7,\"msg\":\"no luck\"}'; exit 1; }\n"
		       "[ $CNI_COMMAND = ADD ] && echo '{\"cniVersion\":\"1.0.0\",\"ips\":[]}'\nexit 0\n");
	snprintf(cmd, sizeof cmd, "chmod 755 %s/*", at("cni"));
	assert_int_equal(system(cmd), 0);
	put("net.conflist", "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"one\"},{\"type\":\"two\"}]}");
	struct cni_conf cc = {.config_path = at("net.conflist"), .bin_dir = at("cni"), .net_dir = at("cninet")};
	if (cni_open(&cc, &c, &first, &e) < 0) fail_msg("%s", e.msg); /* attaches once */
	cni_detach(at("cninet"), first);
	unlink(at("cni/log"));
	struct net_ns *ns = NULL;
	assert_int_equal(cni_attach(c, "host1", &ns, &e), 0);
	assert_int_equal(count_entries(at("cninet")), 2);
	cni_detach(at("cninet"), ns);
	assert_int_equal(count_entries(at("cninet")), 0);
	uint8_t *log = NULL;
	size_t n;
	assert_int_equal(path_read_file(AT_FDCWD, at("cni/log"), 4096, &log, &n, NULL), 0);
	assert_string_equal((char *)log, "one ADD eth0 K8S_POD_NAME=host1;IgnoreUnknown=1\ntwo ADD 1\ntwo DEL 1\n"
					 "one DEL eth0 K8S_POD_NAME=host1;IgnoreUnknown=1\n");
	free(log);
	put("cni/fail", "");
	assert_int_equal(cni_attach(c, NULL, &ns, &e), -1);
	assert_string_equal(e.msg, "CNI setup error: plugin type=\"two\" name=\"n\" failed (add): no luck");
	assert_int_equal(count_entries(at("cninet")), 0);
	err_fini(&e);
	cni_close(c);
}

/* ---- pure parts ---- */
static void test_resolv(void **st)
{
	struct run_dns none = {0}, own = {0};
	char a[] = "# c\nnameserver 127.0.0.1\nnameserver 10.0.0.1\nnameserver bad\ndomain x\nsearch a b\noptions "
		   "ndots:1\noptions edns0\nsortlist 1.2.3.4\n";
	_cleanup_free_ char *t = xstrdup(a), *r = dns_resolv_conf(t, &none, false);
	assert_string_equal(r, "nameserver 10.0.0.1\nsearch a b\noptions ndots:1 edns0\nsortlist 1.2.3.4\n");
	_cleanup_free_ char *t2 = xstrdup("nameserver ::1\n"), *r2 = dns_resolv_conf(t2, &none, false);
	assert_string_equal(
		r2,
		"nameserver 8.8.8.8\nnameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\nnameserver 2001:4860:4860::8844\n");
	_cleanup_free_ char *t3 = xstrdup("nameserver ::1\n"), *r3 = dns_resolv_conf(t3, &none, true);
	assert_string_equal(r3, "nameserver ::1\n");
	strvec_add(&own.servers, "127.0.0.9");
	strvec_add(&own.search, ".");
	_cleanup_free_ char *t4 = xstrdup(a), *r4 = dns_resolv_conf(t4, &own, false);
	assert_string_equal(r4, "nameserver 127.0.0.9\noptions ndots:1 edns0\nsortlist 1.2.3.4\n");
	strvec_fini(&own.servers);
	strvec_fini(&own.search);
	char *h;
	struct err e = ERR_INIT;
	assert_int_equal(dns_hosts_file(NULL, (struct run_host[]){{"x", "nope"}}, 1, &h, &e), -1);
	err_fini(&e);
}

static void test_users(void **st)
{
	static const struct {
		const char *spec;
		unsigned uid, gid;
		size_t groups;
		const char *error;
	} rows[] = {
		{"", 0, 0, 1, NULL},
		{"ann", 1000, 1001, 2, NULL},
		{"1000", 1000, 1001, 2, NULL},
		{"1000:7", 1000, 7, 0, NULL},
		{"ann:7", 1000, 7, 0, NULL},
		{"ann:wheel", 1000, 10, 0, NULL},
		{"root:root", 0, 0, 0, NULL},
		{"4242", 4242, 0, 0, NULL},
		{"ann:none", 0, 0, 0, "unable to find group none"},
		{"-1", 0, 0, 0, "must be in range"},
		{"x:y", 0, 0, 0, "unable to find user x"},
	};
	path_mkdirs(at("u/etc"), 0755, NULL);
	put("u/etc/passwd", "bad line\n\nroot:x:0:0::/root:\nann:x:1000:1001::/home/ann:\n");
	put("u/etc/group", "root:x:0:\nwheel:x:10:ann,root\ndisk:x:6:ann\n");
	_cleanup_close_ int fd = open(at("u"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < array_len(rows); i++) {
		struct err e = ERR_INIT;
		struct run_user u = {0};
		int r = run_user_find(fd, rows[i].spec, &u, &e);
		if (rows[i].error) {
			assert_int_equal(r, -1);
			assert_non_null(strstr(e.msg, rows[i].error));
			err_fini(&e);
			continue;
		}
		if (r < 0) fail_msg("%s: %s", rows[i].spec, e.msg);
		assert_int_equal(u.uid, rows[i].uid);
		assert_int_equal(u.gid, rows[i].gid);
		assert_int_equal(u.n_groups, rows[i].groups);
		run_user_fini(&u);
	}
}

static void test_stub_paths(void **st)
{
	path_mkdirs(at("s/a"), 0755, NULL);
	assert_int_equal(symlink("/../../b/c", at("s/a/l")), 0);
	assert_int_equal(symlink("loop", at("s/loop")), 0);
	_cleanup_close_ int fd = open(at("s"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_free_ char *r = stubs_resolve(fd, "/a/l/../x"), *loop = stubs_resolve(fd, "/loop/x");
	assert_string_equal(r, "/b/x");
	assert_null(loop);
	_cleanup_strvec_ struct strvec v = {0};
	stubs_note(&v, fd, "/a/n/m", true);
	assert_int_equal(v.n, 2);
	path_mkdirs(at("s/a/n/m"), 0755, NULL);
	put("s/a/n/kept", "x");
	stubs_remove(&v, fd);
	assert_int_equal(access(at("s/a/n/m"), F_OK), -1);
	assert_int_equal(access(at("s/a/n/kept"), F_OK), 0);
}

static int setup(void **st)
{
	struct err e = ERR_INIT;
	if (!mkdtemp(work)) return -1;
	if (geteuid() != 0) {
		why_skipped = "needs root";
		return 0;
	}
	if (access(BUSYBOX, X_OK) < 0) {
		why_skipped = "needs " BUSYBOX " (static)";
		return 0;
	}
	if (run_enter_namespace(&e) < 0) {
		why_skipped = e.msg;
		return 0;
	}
	make_rootfs("rootfs");
	the_loop = loop_new();
	struct run_engine_conf c = {.state_dir = at("state"), .runtime = getenv("RUN_TEST_RUNTIME"), .net_mode = "host"};
	if (run_engine_open(the_loop, &c, &engine, &e) < 0) why_skipped = e.msg;
	if (engine) print_message("runtime %s, cgroup v%d\n", run_engine_runtime(engine), run_engine_cgroup2(engine) ? 2 : 1);
	return 0;
}

static int teardown(void **st)
{
	run_engine_close(engine);
	if (the_loop) loop_free(the_loop);
	return path_remove_all(AT_FDCWD, work, NULL);
}

/* ---- platforms ---- */

#define QEMU_ARM64                                                                 \
	"enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: %s\noffset 0\n" \
	"magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n"

static void test_binfmt(void **st)
{
	(void)st;
	_cleanup_free_ char *rule = xasprintf(QEMU_ARM64, "OCF"), *lost = xasprintf(QEMU_ARM64, "OC"), *off = xstrdup(rule);
	memcpy(off, "disable", 7);
	assert_true(run_binfmt_runs(rule, "arm64"));
	assert_false(run_binfmt_runs(rule, "arm"));
	assert_false(run_binfmt_runs(rule, "riscv64"));
	assert_false(run_binfmt_runs(lost, "arm64")); /* its interpreter is not in the container */
	assert_false(run_binfmt_runs(off, "arm64"));
	assert_false(run_binfmt_runs("enabled\ninterpreter /x\nflags: F\nextension .pyc\n", "arm64"));
	assert_false(run_binfmt_runs("enabled\ninterpreter /x\nflags: F\noffset 0\nmagic 7f\n", "arm64"));
	assert_false(run_binfmt_runs("", "arm64"));
}

static void test_platforms(void **st)
{
	(void)st;
	struct run_platforms a, b;
	struct spec_platform host;
	spec_platform_host(&host);
	run_platforms_find(&a);
	run_platforms_find(&b);
	assert_true(a.n >= 1 && spec_platform_equal(&a.v[0], &host));
	assert_true(run_platforms_equal(&a, &b));
	run_platforms_fini(&b);
	assert_false(run_platforms_equal(&a, &b));
	run_platforms_fini(&a);
	spec_platform_fini(&host);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resolv),
		cmocka_unit_test(test_binfmt),
		cmocka_unit_test(test_platforms),
		cmocka_unit_test(test_users),
		cmocka_unit_test(test_stub_paths),
		cmocka_unit_test(test_exit_and_streams),
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_user),
		cmocka_unit_test(test_mounts_and_stubs),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_kill),
		cmocka_unit_test(test_network_none),
		cmocka_unit_test(test_insecure),
		cmocka_unit_test(test_stdin_and_much_output),
		cmocka_unit_test(test_tty),
		cmocka_unit_test(test_exec),
		cmocka_unit_test(test_cni),
		cmocka_unit_test(test_leaves_nothing),
		cmocka_unit_test(test_crash),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
