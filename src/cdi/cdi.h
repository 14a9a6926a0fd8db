#ifndef CDI_CDI_H
#define CDI_CDI_H
/* Devices by the Container Device Interface: what the specification files of this machine offer, and what a container must be
 * given for a device of theirs.
 *
 * A device is "VENDOR/CLASS=NAME". Files *.json and *.yaml lie in folders; a later folder wins over an earlier one, and a
 * device that two files of one folder have is nobody's. A request names one device, the first of a kind ("VENDOR/CLASS"), all
 * of a kind
 * ("VENDOR/CLASS=*"), or those whose annotation org.mobyproject.buildkit.device.class is that word.
 * All functions: loop thread. cdi_look reads the folders when something in them has changed (some small files, as a reload of
 * the configuration does); everything borrowed from a registry holds until the next cdi_look.
 * Sources: CDI specification 1.1.0; BuildKit solver/llbsolver/cdidevices, tags.cncf.io/container-device-interface/pkg/cdi. */
#include "base/base.h"

enum cdi_hook_kind { CDI_PRESTART, CDI_CREATE_RUNTIME, CDI_CREATE_CONTAINER, CDI_START_CONTAINER, CDI_POSTSTART, CDI_POSTSTOP };

struct cdi_node {
	char *path, *host_path; /* host_path NULL: the same */
	char type;              /* 'b', 'c', 'u', 'p'; 0: as on the host */
	int64_t major, minor;   /* with type, when not zero */
	int64_t mode, uid, gid; /* -1: not said */
	char *access;           /* "rwm"; NULL: all */
};
struct cdi_mount {
	char *host_path, *path, *type; /* type NULL: bind */
	struct strvec options;
};
struct cdi_hook {
	enum cdi_hook_kind kind;
	char *path;
	struct strvec args, env;
	int64_t timeout; /* seconds; 0: none */
};
struct cdi_edits {
	struct strvec env;
	VEC(struct cdi_node) nodes;
	VEC(struct cdi_mount) mounts;
	VEC(struct cdi_hook) hooks;
	VEC(uint32_t) gids;
};
struct cdi_device {
	char *name;
	bool auto_allow;
	struct strvec annotations; /* "k=v", the file's and over them its own */
	struct cdi_edits edits;
	const struct cdi_edits *common; /* of its file: once for all devices of that */
};

struct cdi;
struct cdi *cdi_new(char *const *dirs, size_t n_dirs, char *const *auto_allowed, size_t n_auto_allowed); /* copies; empty yet */
void cdi_free(struct cdi *c);                                                                            /* NULL allowed */
void cdi_look(struct cdi *c); /* blocks on the disk; a file that is wrong is a warning and offers nothing. NULL allowed */
size_t cdi_count(const struct cdi *c); /* by name; c NULL: 0 */
const struct cdi_device *cdi_at(const struct cdi *c, size_t i);
const struct cdi_device *cdi_get(const struct cdi *c, const char *name); /* NULL: none */
/* The names that a request means, appended to ret unless they are there. None: 0 when optional, else UNKNOWN. */
int cdi_resolve(const struct cdi *c, const char *request, bool optional, struct strvec *ret, struct err *e);

/* ---- spec.c: one file. Any thread ---- */
struct cdi_spec {
	char *kind;
	struct cdi_edits edits;
	VEC(struct cdi_device) devices; /* auto_allow is by annotation only */
};
int cdi_spec_parse(const char *text, size_t n, bool yaml, struct cdi_spec **ret, struct err *e); /* INVALID_ARGUMENT */
void cdi_spec_free(struct cdi_spec *s);                                                          /* NULL allowed */
#endif
