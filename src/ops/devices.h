#ifndef OPS_DEVICES_H
#define OPS_DEVICES_H
/* CDI devices of a step, as a run_spec takes them. Loop thread. */
#include "cdi/cdi.h"
#include "ops/mounts.h"

struct ops_devices {
	VEC(struct run_device) devices;
	VEC(struct run_hook) hooks;
	VEC(struct run_mount) mounts;
	VEC(uint32_t) gids;
};
/* What the devices add: variables to env, the rest to ret, which borrows from the registry until the next cdi_look. */
int ops_devices_get(const struct cdi *c, Pb__CDIDevice *const *v, size_t n, struct strvec *env, struct ops_devices *ret,
		    struct err *e);
/* spec borrows from d; spec->mounts are taken into account. */
void ops_devices_use(struct ops_devices *d, struct run_spec *spec);
void ops_devices_fini(struct ops_devices *d);
#endif
