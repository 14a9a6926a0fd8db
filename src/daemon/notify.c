/* The service manager is told when we are ready and when we stop: sd_notify(3) without libsystemd, it is one datagram. */
#include "daemon/daemon.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>

static int address(const char *name, struct sockaddr_un *ret, socklen_t *ret_len)
{
	size_t n = strlen(name);
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if ((*name != '/' && *name != '@') || n < 2 || n >= sizeof ret->sun_path) return -1;
	memcpy(ret->sun_path, name, n);
	if (*name == '@') ret->sun_path[0] = 0;
	*ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (*name == '/'));
	return 0;
}

void daemon_notify(const char *state)
{
	const char *name = getenv("NOTIFY_SOCKET");
	struct sockaddr_un a;
	socklen_t len;
	if (str_empty(name)) return;
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || address(name, &a, &len) < 0 ||
	    sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&a, len) < 0)
		log_debug("could not notify %s: %s", name, strerror(errno));
}
