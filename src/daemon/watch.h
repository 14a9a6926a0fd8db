#ifndef DAEMON_WATCH_H
#define DAEMON_WATCH_H
/* Hints that something in a folder has changed. Loop thread; nothing blocks.
 * By inotify itself and not by libuv's wrapper of it, which reads until there are no more events: a folder in which somebody
 * writes without pause would keep the loop for itself. We read one buffer and then look away for a moment; what overflows is a
 * hint too. */
#include "loop/loop.h"

struct watch;
/* name NULL: events were lost, anything may have changed. */
struct watch *watch_new(struct loop *l, void (*changed)(void *arg, const char *folder, const char *name), void *arg);
/* An absent folder is not watched: 0. -1: why it cannot be. The same folder twice is one. */
int watch_add(struct watch *w, const char *folder, struct err *e);
void watch_clear(struct watch *w);
#endif
