/* What we can do, as clients ask for it. A row is flipped to true when the feature works; only such rows are announced and
 * accepted. Sorted by id, as the reply to Ping is. Source: BuildKit solver/pb/caps.go, frontend/gateway/pb/caps.go. */
#include "llb/llb.h"

#include <string.h>

const struct llb_cap llb_caps[] = {
	{"cache.azblob", true, false},
	{"cache.gha", true, false},
	{"cache.s3", true, false},
	{"constraints", true, false},
	{"diffop", true, false},
	{"exec.cgroup", true, false},
	{"exec.meta.base", true, false},
	{"exec.meta.cdi", true, false},
	{"exec.meta.cgroup.parent", true, false},
	{"exec.meta.linux.resources", true, false},
	{"exec.meta.network", true, false},
	{"exec.meta.network.proxy", true, false},
	{"exec.meta.proxyenv", true, false},
	{"exec.meta.security", true, false},
	{"exec.meta.security.devices.v1", true, false},
	{"exec.meta.setsdefaultpath", true, false},
	{"exec.meta.ulimit", true, false},
	{"exec.mount.bind", true, false},
	{"exec.mount.bind.readwrite-nooutput", true, false},
	{"exec.mount.cache", true, false},
	{"exec.mount.cache.content", true, false},
	{"exec.mount.cache.sharing", true, false},
	{"exec.mount.secret", true, false},
	{"exec.mount.selector", true, false},
	{"exec.mount.ssh", true, false},
	{"exec.mount.tmpfs", true, false},
	{"exec.mount.tmpfs.size", true, false},
	{"exec.secretenv", true, false},
	{"exec.validexitcode", true, false},
	{"exporter.image.annotations", true, false},
	{"exporter.image.attestations", true, false},
	{"exporter.multiple", true, false},
	{"exporter.session", true, false},
	{"exporter.sourcedateepoch", true, false},
	{"file.base", true, false},
	{"file.copy.alwaysreplaceexistingdestpaths", true, false},
	{"file.copy.includeexcludepatterns", true, false},
	{"file.copy.requiredpaths", true, false},
	{"file.rm.nofollowsymlink", true, false},
	{"file.rm.wildcard", true, false},
	{"file.symlink.create", true, false},
	{"gc.freespacefilter", true, false},
	{"history.filter", true, false},
	{"mergeop", true, false},
	{"meta.description", true, false},
	{"meta.exportcache", true, false},
	{"meta.ignorecache", true, false},
	{"passthroughop", true, false},
	{"platform", true, false},
	{"soruce.http.uidgid", true, false}, /* the typo is part of the interface */
	{"source.buildop.llbfilename", true, false},
	{"source.git", true, false},
	{"source.git.bundle", true, false},
	{"source.git.checkoutbundle", true, false},
	{"source.git.checksum", true, false},
	{"source.git.fetchbycommit", true, false},
	{"source.git.fullurl", true, false},
	{"source.git.httpauth", true, false},
	{"source.git.keepgitdir", true, false},
	{"source.git.knownsshhosts", true, false},
	{"source.git.mountsshsock", true, false},
	{"source.git.mtime", true, false},
	{"source.git.signatureverify", true, false},
	{"source.git.skipsubmodules", true, false},
	{"source.git.subdir", true, false},
	{"source.http", true, false},
	{"source.http.auth", true, false},
	{"source.http.checksum", true, false},
	{"source.http.header", true, false},
	{"source.http.perm", true, false},
	{"source.http.signatureverify", true, false},
	{"source.image", true, false},
	{"source.image.checksum", true, false},
	{"source.image.layerlimit", true, false},
	{"source.image.resolvemode", true, false},
	{"source.imageblob", true, false},
	{"source.local", true, false},
	{"source.local.differ", true, false},
	{"source.local.excludepatterns", true, false},
	{"source.local.followpaths", true, false},
	{"source.local.includepatterns", true, false},
	{"source.local.metadatatransfer", true, false},
	{"source.local.sessionid", true, false},
	{"source.local.sharedkeyhint", true, false},
	{"source.local.unique", true, false},
	{"source.ocilayout", true, false},
	{"source.policy", true, false},
	{"source.policy.session", true, false},
	{NULL, false, false},
};

const struct llb_cap llb_gateway_caps[] = {
	{"frontend.caps", true, false},
	{"frontend.inputs", true, false},
	{"gateway.evaluate", true, false},
	{"gateway.exec", true, false},
	{"gateway.exec.extrahosts", true, false},
	{"gateway.exec.filesystem", true, false},
	{"gateway.exec.secretenv", true, false},
	{"gateway.exec.signals", true, false},
	{"gateway.solve.evaluate", true, false},
	{"gateway.solve.metadata", true, false},
	{"gateway.warnings", true, false},
	{"importcaches", true, false},
	{"proto.refarray", true, false},
	{"readdir", true, false},
	{"readfile", true, false},
	{"reference.attestations", true, false},
	{"reference.output", true, false},
	{"resolveimage", true, false},
	{"resolveimage.resolvemode", true, false},
	{"return", true, false},
	{"returnmap", true, false},
	{"solve.base", true, false},
	{"solve.inlinereturn", true, true},
	{"source.metaresolver", true, false},
	{"source.metaresolver.http.checksumrequest", true, false},
	{"source.metaresolver.image.attestations", true, false},
	{"statfile", true, false},
	{NULL, false, false},
};

static const struct llb_cap *find(const struct llb_cap *table, const char *id)
{
	for (; table->id; table++)
		if (strcmp(table->id, id) == 0) return table;
	return NULL;
}

bool llb_cap_has(const struct llb_cap *table, const char *id)
{
	const struct llb_cap *c = find(table, id);
	return c && c->implemented;
}

int llb_cap_check(const char *id, struct err *e)
{
	const struct llb_cap *c = find(llb_caps, id);
	if (!c) return err_set(e, CODE_UNKNOWN, "unknown API capability %s", id);
	if (!c->implemented)
		return err_set(e, CODE_UNIMPLEMENTED, "requested experimental feature %s  is not supported by build server",
			       id);
	return 0;
}
