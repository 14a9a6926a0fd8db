/* Network namespaces as files, and what stands in for one that is gone.
 *
 * A namespace lives while its file is bound to it in the daemon's mount namespace: after a kill -9 it is gone, and its
 * interfaces with it. But plugins learn from those interfaces which rules of the host to take away (bridge and ptp ask eth0
 * for its addresses before they drop its masquerading). So a new namespace gets an interface of that name with the addresses
 * of the record, and DEL does its work on that. The interface is one end of a veth pair whose other end is in there too.
 * Job code: a thread leaves its namespace and always comes back. */
#include "run/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>

int netns_make(const char *dir, const char *id, char **ret_path, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, id);
	if (path_mkdirs(dir, 0700, e) < 0) return -1;
	_cleanup_close_ int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (file < 0) return err_sys(e, errno, "create %s", path);
	_cleanup_close_ int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home < 0 || unshare(CLONE_NEWNET) < 0) {
		int saved = errno;
		unlink(path);
		return err_sys(e, saved, "make a network namespace");
	}
	int r = mount("/proc/thread-self/ns/net", path, NULL, MS_BIND, NULL), saved = errno;
	if (setns(home, CLONE_NEWNET) < 0) bug("a thread cannot return to its network namespace: %s", strerror(errno));
	if (r < 0) {
		unlink(path);
		return err_sys(e, saved, "bind a network namespace to %s", path);
	}
	*ret_path = take_ptr(path);
	return 0;
}

static int listen_here(char **ret_addr, int *ret_fd)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	socklen_t n = sizeof a;
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &up) < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 ||
	    listen(fd, SOMAXCONN) < 0 || getsockname(fd, (struct sockaddr *)&a, &n) < 0)
		return -errno;
	*ret_addr = xasprintf("127.0.0.1:%d", ntohs(a.sin_port));
	*ret_fd = take_fd(fd);
	return 0;
}

int netns_proxy(const char *dir, const char *id, char **ret_path, char **ret_addr, int *ret_fd, struct err *e)
{
	_cleanup_free_ char *path = NULL;
	if (netns_make(dir, id, &path, e) < 0) return -1;
	_cleanup_close_ int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC),
			    ns = open(path, O_RDONLY | O_CLOEXEC);
	int r = home < 0 || ns < 0 || setns(ns, CLONE_NEWNET) < 0 ? -errno : listen_here(ret_addr, ret_fd);
	if (home >= 0 && setns(home, CLONE_NEWNET) < 0)
		bug("a thread cannot return to its network namespace: %s", strerror(errno));
	if (r < 0) {
		netns_remove(path);
		return err_sys(e, -r, "make the proxy's socket in a network namespace");
	}
	*ret_path = take_ptr(path);
	return 0;
}

void netns_remove(const char *path)
{
	if (umount2(path, MNT_DETACH) < 0 && errno != EINVAL && errno != ENOENT)
		log_debug("unmount %s: %s", path, strerror(errno));
	unlink(path);
}

/* ---- rtnetlink, as little as it takes ---- */
struct request {
	struct nlmsghdr h;
	union {
		struct ifinfomsg link;
		struct ifaddrmsg addr;
	};
	char attrs[256];
};

static struct rtattr *put_attr(struct request *r, unsigned short type, const void *p, size_t n)
{
	struct rtattr *a = (struct rtattr *)((char *)r + NLMSG_ALIGN(r->h.nlmsg_len));
	a->rta_type = type;
	a->rta_len = (unsigned short)RTA_LENGTH(n);
	if (n) memcpy(RTA_DATA(a), p, n);
	r->h.nlmsg_len = (unsigned)(NLMSG_ALIGN(r->h.nlmsg_len) + RTA_ALIGN(a->rta_len));
	return a;
}

static int ask(int fd, struct request *r)
{
	char answer[4096];
	r->h.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
	if (send(fd, r, r->h.nlmsg_len, 0) < 0) return -errno;
	ssize_t n = recv(fd, answer, sizeof answer, 0);
	struct nlmsghdr *h = (struct nlmsghdr *)answer;
	if (n < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)) || h->nlmsg_type != NLMSG_ERROR) return -EBADMSG;
	return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
}

static int make_veth(int fd, const char *name)
{
	struct request r = {.h = {.nlmsg_len = NLMSG_LENGTH(sizeof r.link), .nlmsg_type = RTM_NEWLINK}};
	put_attr(&r, IFLA_IFNAME, name, strlen(name) + 1);
	struct rtattr *info = put_attr(&r, IFLA_LINKINFO, NULL, 0);
	put_attr(&r, IFLA_INFO_KIND, "veth", 4);
	info->rta_len = (unsigned short)((char *)&r + r.h.nlmsg_len - (char *)info);
	return ask(fd, &r);
}

/* "10.10.0.5/16" */
static int add_address(int fd, unsigned index, const char *text)
{
	struct request r = {.h = {.nlmsg_len = NLMSG_LENGTH(sizeof r.addr), .nlmsg_type = RTM_NEWADDR}};
	char plain[INET6_ADDRSTRLEN];
	unsigned char bytes[16];
	size_t n = strcspn(text, "/");
	if (n >= sizeof plain || text[n] != '/') return -EINVAL;
	memcpy(plain, text, n);
	plain[n] = 0;
	bool v6 = strchr(plain, ':') != NULL;
	if (inet_pton(v6 ? AF_INET6 : AF_INET, plain, bytes) != 1) return -EINVAL;
	r.addr = (struct ifaddrmsg){
		.ifa_family = v6 ? AF_INET6 : AF_INET, .ifa_prefixlen = (unsigned char)atoi(text + n + 1), .ifa_index = index};
	put_attr(&r, IFA_LOCAL, bytes, v6 ? 16 : 4);
	put_attr(&r, IFA_ADDRESS, bytes, v6 ? 16 : 4);
	return ask(fd, &r);
}

static int furnish(const char *ifname, char *const *addresses, size_t n)
{
	_cleanup_close_ int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	int r = fd < 0 ? -errno : make_veth(fd, ifname);
	for (size_t i = 0; r == 0 && i < n; i++) {
		int a = add_address(fd, if_nametoindex(ifname), addresses[i]);
		if (a < 0) log_debug("address %s of a lost network namespace: %s", addresses[i], strerror(-a));
	}
	return r;
}

int netns_stand_in(const char *dir, const char *id, const char *ifname, char *const *addresses, size_t n, struct err *e)
{
	_cleanup_free_ char *path = NULL;
	if (netns_make(dir, id, &path, e) < 0) return -1;
	_cleanup_close_ int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC),
			    ns = open(path, O_RDONLY | O_CLOEXEC);
	int r = home < 0 || ns < 0 || setns(ns, CLONE_NEWNET) < 0 ? -errno : furnish(ifname, addresses, n);
	if (home >= 0 && setns(home, CLONE_NEWNET) < 0)
		bug("a thread cannot return to its network namespace: %s", strerror(errno));
	if (r == 0) return 0;
	netns_remove(path);
	return err_sys(e, -r, "make %s in a network namespace", ifname);
}
