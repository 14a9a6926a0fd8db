/* One inotify descriptor for all folders. See watch.h for why it is read so little. */
#include "daemon/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/inotify.h>

enum { PAUSE_MS = 100, FOLDERS_MAX = 256, EVENTS = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO };

struct folder {
	int wd;
	char *path;
};
struct watch {
	struct loop *loop;
	uv_poll_t poll;
	struct loop_timer pause;
	int fd;
	VEC(struct folder) folders;
	void (*changed)(void *arg, const char *folder, const char *name);
	void *arg;
};

static const char *folder_of(const struct watch *w, int wd)
{
	for (size_t i = 0; i < w->folders.n; i++)
		if (w->folders.v[i].wd == wd) return w->folders.v[i].path;
	return NULL;
}

static void readable(uv_poll_t *p, int status, int events);

static void look_again(void *arg)
{
	struct watch *w = arg;
	uv_poll_start(&w->poll, UV_READABLE, readable);
}

static void readable(uv_poll_t *p, int status, int events)
{
	struct watch *w = container_of(p, struct watch, poll);
	_Alignas(struct inotify_event) char b[4096];
	uv_poll_stop(p);
	loop_timer_start(w->loop, &w->pause, PAUSE_MS, 0, look_again, w);
	ssize_t n = read(w->fd, b, sizeof b);
	for (ssize_t at = 0; at + (ssize_t)sizeof(struct inotify_event) <= n;) {
		const struct inotify_event *ev = (const void *)(b + at);
		at += (ssize_t)(sizeof *ev + ev->len);
		const char *folder = folder_of(w, ev->wd);
		if (ev->mask & IN_Q_OVERFLOW) w->changed(w->arg, NULL, NULL);
		if (folder && ev->len) w->changed(w->arg, folder, ev->name);
	}
}

struct watch *watch_new(struct loop *l, void (*changed)(void *arg, const char *folder, const char *name), void *arg)
{
	struct watch *w = xnew(struct watch);
	w->loop = l;
	w->changed = changed;
	w->arg = arg;
	w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (w->fd < 0) return w;
	uv_poll_init(loop_uv(l), &w->poll, w->fd);
	uv_poll_start(&w->poll, UV_READABLE, readable);
	uv_unref((uv_handle_t *)&w->poll);
	return w;
}

int watch_add(struct watch *w, const char *folder, struct err *e)
{
	for (size_t i = 0; i < w->folders.n; i++)
		if (!strcmp(w->folders.v[i].path, folder)) return 0;
	if (w->folders.n >= FOLDERS_MAX) return err_set(e, CODE_RESOURCE_EXHAUSTED, "more than %d folders", FOLDERS_MAX);
	int wd = w->fd < 0 ? -1 : inotify_add_watch(w->fd, folder, EVENTS | IN_ONLYDIR);
	if (wd < 0) return errno == ENOENT || errno == ENOTDIR ? 0 : err_sys(e, errno, "inotify");
	vec_push(&w->folders, ((struct folder){.wd = wd, .path = xstrdup(folder)}));
	return 0;
}

void watch_clear(struct watch *w)
{
	for (size_t i = 0; i < w->folders.n; i++) {
		inotify_rm_watch(w->fd, w->folders.v[i].wd);
		free(w->folders.v[i].path);
	}
	w->folders.n = 0;
}
