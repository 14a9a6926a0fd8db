#ifndef CONF_BUNDLE_H
#define CONF_BUNDLE_H
/* A configuration that moves into a builder: its text with the paths of registries' certificates, keys and credentials
 * rewritten to where they will be there, and those files. Blocks on the disk; any thread. Source: buildx
 * util/confutil/container.go, which writes the same names; where two files of one registry have the same base name, it keeps
 * one of them: we give the second another name. */
#include "base/base.h"

struct conf_bundle_file {
	char *path; /* below the configuration's folder: "buildkitd.toml", "certs/localhost_5000/ca.pem" */
	void *data;
	size_t n;
};
struct conf_bundle {
	VEC(struct conf_bundle_file) files; /* the configuration comes last */
	bool network_host;                  /* insecure-entitlements has network.host */
};
#define _cleanup_conf_bundle_ __attribute__((cleanup(conf_bundle_fini)))
void conf_bundle_fini(struct conf_bundle *b);
/* folder: where it will be, "/etc/buildkit". Errors: what conf_load finds (errors only: a key that is unknown to us may be
 * known there), a file that cannot be read or is larger than 1 MiB. */
int conf_bundle_load(const char *path, const char *folder, struct conf_bundle *ret, struct err *e);
#endif
