/* The one step "[internal] booting buildkit", with a line for each thing that is done. */
#include "cli/boot.h"

#define ID "boot"
#define NAME "[internal] booting buildkit"

static void said(void *arg, const char *what, bool done)
{
	progress_step(arg, &(struct progress_step){.id = ID, .name = NAME, .leads = true, .part = what, .part_completed = done});
}

int boot_container(struct progress *p, const struct drive_node *n, struct err *e)
{
	_cleanup_err_ struct err why = ERR_INIT;
	struct drive_log log = {.say = said, .arg = p};
	progress_step(p, &(struct progress_step){.id = ID, .name = NAME, .leads = true});
	int rv = drive_container_boot(n, &log, &why);
	progress_step(p, &(struct progress_step){.id = ID, .name = NAME, .leads = true, .error = why.msg, .completed = true});
	return rv < 0 ? err_move(e, &why) : 0;
}

int boot_container_alone(const struct drive_node *n, struct err *e)
{
	struct progress *p;
	if (progress_new("auto", 2, NULL, &p, e) < 0) return -1;
	int rv = boot_container(p, n, e);
	progress_done(p);
	progress_free(p);
	return rv;
}
