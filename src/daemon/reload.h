#ifndef DAEMON_RELOAD_H
#define DAEMON_RELOAD_H
/* The configuration while the daemon runs. Loop thread; they block shortly (the files). */
#include "conf/conf.h"

struct daemon;
struct reload;
/* Put d->conf into use where it can be changed later: registries, certificates, limits, log, garbage collection, frontends. */
int daemon_settings(struct daemon *d, struct err *e);
void daemon_log_setup(const struct conf *c);
/* SIGHUP, and a watch on the files. args must live on. */
struct reload *reload_start(struct daemon *d, const struct conf_args *args);
void reload_now(struct reload *r);
#endif
