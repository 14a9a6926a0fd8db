/* The table of keys. Everything about a key is in its row: reading, checking, printing and the manual follow from it. */
#include "conf/internal.h"

#define C(f) offsetof(struct conf, f)
#define ROWS(table, T)                             \
	{                                          \
		table, array_len(table), sizeof(T) \
	}

static const struct conf_row keypair_rows[] = {
	{"key", T_STR, offsetof(struct conf_keypair, key), NULL, 0, 0, 0, NULL, "client key file"},
	{"cert", T_STR, offsetof(struct conf_keypair, cert), NULL, 0, 0, 0, NULL, "client certificate file"},
};
static const struct conf_rows keypair_set = ROWS(keypair_rows, struct conf_keypair);

#define M(f) offsetof(struct conf_mirror, f)
static const struct conf_row mirror_rows[] = {
	{"host", T_STR, M(host), NULL, 0, 0, F_RELOAD, NULL, "host[:port] of the mirror"},
	{"path", T_STR, M(path), NULL, 0, 0, F_RELOAD, NULL, "prefix of its repositories"},
	{"http", T_TRI, M(http), NULL, 0, 0, F_RELOAD, NULL, "plain HTTP"},
	{"insecure", T_TRI, M(insecure), NULL, 0, 0, F_RELOAD, NULL, "do not verify certificates"},
	{"ca", T_STRS, M(ca), NULL, 0, 0, F_RELOAD, NULL, "certificate authorities"},
	{"keypair", T_LIST, M(keypairs), NULL, 0, 0, F_RELOAD, &keypair_set, "client certificates"},
	{"tlsconfigdir", T_STRS, M(tlsconfigdir), NULL, 0, 0, F_RELOAD, NULL, "folders with *.crt, *.cert and *.key"},
	{"credentials", T_STR, M(credentials), NULL, 0, 0, F_RELOAD, NULL, "file of one line USER:PASSWORD"},
	{"fallback", T_TRI, M(fallback), "true", 0, 0, F_RELOAD, NULL, "ask the next host when this one fails"},
};
static const struct conf_rows mirror_set = ROWS(mirror_rows, struct conf_mirror);

#define R(f) offsetof(struct conf_registry, f)
static const struct conf_row registry_rows[] = {
	{"mirrors", T_STRS, R(mirrors), NULL, 0, 0, F_RELOAD, NULL,
	 "hosts tried before the registry itself, host[:port][/path]"},
	{"http", T_TRI, R(http), NULL, 0, 0, F_RELOAD, NULL, "plain HTTP"},
	{"insecure", T_TRI, R(insecure), NULL, 0, 0, F_RELOAD, NULL, "do not verify certificates; HTTP if HTTPS fails"},
	{"ca", T_STRS, R(ca), NULL, 0, 0, F_RELOAD, NULL, "certificate authorities"},
	{"keypair", T_LIST, R(keypairs), NULL, 0, 0, F_RELOAD, &keypair_set, "client certificates"},
	{"tlsconfigdir", T_STRS, R(tlsconfigdir), NULL, 0, 0, F_RELOAD, NULL,
	 "folders with *.crt, *.cert and *.key, as Docker's certs.d"},
	{"mirror", T_LIST, R(mirror), NULL, 0, 0, F_RELOAD, &mirror_set, "a mirror with settings of its own"},
	{"maxRegistryConcurrency", T_INT, R(max_concurrency), NULL, 1, 1024, F_RELOAD, NULL, "transfers at once"},
};
static const struct conf_rows registry_set = ROWS(registry_rows, struct conf_registry);

#define G(f) offsetof(struct conf_gcpolicy, f)
static const struct conf_row gcpolicy_rows[] = {
	{"all", T_BOOL, G(all), "false", 0, 0, F_RELOAD, NULL, "also internal and shared records"},
	{"filters", T_STRS, G(filters), NULL, 0, 0, F_RELOAD, NULL, "records it is for, as type==source.local"},
	{"keepDuration", T_DURATION, G(keep_duration_ns), NULL, 0, 0, F_RELOAD, NULL, "unused for longer than this"},
	{"keepBytes", T_SPACE, G(keep_bytes), NULL, 0, 0, F_RELOAD | F_OLD, NULL, "use reservedSpace"},
	{"reservedSpace", T_SPACE, G(reserved), NULL, 0, 0, F_RELOAD, NULL, "kept in any case"},
	{"maxUsedSpace", T_SPACE, G(max_used), NULL, 0, 0, F_RELOAD, NULL, "most it may use"},
	{"minFreeSpace", T_SPACE, G(min_free), NULL, 0, 0, F_RELOAD, NULL, "free space to aim at"},
};
static const struct conf_rows gcpolicy_set = ROWS(gcpolicy_rows, struct conf_gcpolicy);

/* What both workers have; p is the prefix, w the member, x flags more. */
#define WORKER(p, w, x)                                                                                                          \
	{p "/enabled", T_TRI, C(w.enabled), "auto", 0, 0, x, NULL, "use this worker"},                                           \
		{p "/labels", T_MAP, C(w.labels), NULL, 0, 0, x, NULL, "labels more"},                                           \
		{p "/platforms", T_STRS, C(w.platforms), "detected", 0, 0, x, NULL, "platforms instead of the detected ones"},   \
		{p "/snapshotter", T_STR, C(w.snapshotter), "auto", 0, 0, x, NULL, "auto, overlayfs, fuse-overlayfs or native"}, \
		{p "/rootless", T_BOOL, C(w.rootless), "false", 0, 0, x, NULL, "rootless mode"},                                 \
		{p "/gc", T_TRI, C(w.gc), "true", 0, 0, F_RELOAD | x, NULL, "collect garbage"},                                  \
		{p "/gckeepstorage", T_SPACE, C(w.gc_keep), NULL, 0, 0, F_RELOAD | F_OLD | x, NULL, "use reservedSpace"},        \
		{p "/reservedSpace", T_SPACE, C(w.reserved),           "10%, at most 10GB", 0, 0,                                \
		 F_RELOAD | x,       NULL,    "cache kept in any case"},                                                         \
		{p "/maxUsedSpace", T_SPACE, C(w.max_used),           "80%, at most 100GB", 0, 0,                                \
		 F_RELOAD | x,      NULL,    "most the cache may use"},                                                          \
		{p "/minFreeSpace", T_SPACE, C(w.min_free), "20%", 0, 0, F_RELOAD | x, NULL, "free space to aim at"},            \
		{p "/gcpolicy",                                                                                                  \
		 T_LIST,                                                                                                         \
		 C(w.gcpolicy),                                                                                                  \
		 NULL,                                                                                                           \
		 0,                                                                                                              \
		 0,                                                                                                              \
		 F_RELOAD | x,                                                                                                   \
		 &gcpolicy_set,                                                                                                  \
		 "policies instead of the default ones"},                                                                        \
		{p "/networkMode", T_STR, C(w.network_mode), "auto", 0, 0, x, NULL, "auto, cni, bridge, host or none"},          \
		{p "/cniConfigPath", T_STR, C(w.cni_config_path), "/etc/buildkit/cni.json", 0, 0, x, NULL, "CNI configuration"}, \
		{p "/cniBinaryPath", T_STR, C(w.cni_binary_path), "/opt/cni/bin", 0, 0, x, NULL, "CNI plugins"},                 \
		{p "/cniPoolSize", T_INT, C(w.cni_pool_size), "0", 0, 1024, x, NULL, "network namespaces kept ready"},           \
		{p "/bridgeName", T_STR, C(w.bridge_name), "buildkit0", 0, 0, x, NULL, "bridge of networkMode bridge"},          \
		{p "/bridgeSubnet", T_STR, C(w.bridge_subnet), "10.10.0.0/16", 0, 0, x, NULL, "its subnet"},                     \
		{p "/defaultCgroupParent", T_STR, C(w.cgroup_parent), NULL, 0, 0, x, NULL, "parent of the containers' cgroups"}, \
		{p "/apparmor-profile", T_STR, C(w.apparmor), NULL, 0, 0, x, NULL, "AppArmor profile of containers"},            \
		{p "/selinux", T_BOOL, C(w.selinux), "false", 0, 0, F_IGNORED, NULL, "SELinux labels"},                          \
	{                                                                                                                        \
		p "/max-parallelism", T_INT, C(w.max_parallelism), "0", 0, 1 << 20, F_RELOAD | x, NULL,                          \
			"steps that run at once; 0: any number"                                                                  \
	}

static const struct conf_row all_rows[] = {
	{"debug", T_BOOL, C(debug), "false", 0, 0, F_RELOAD | F_OLD, NULL, "use log.level = \"debug\""},
	{"trace", T_BOOL, C(trace), "false", 0, 0, F_RELOAD | F_OLD, NULL, "use log.level = \"trace\""},
	{"root", T_STR, C(root), "/var/lib/buildkit", 0, 0, 0, NULL, "state folder"},
	{"insecure-entitlements", T_STRS, C(entitlements), NULL, 0, 0, F_RELOAD, NULL,
	 "network.host, security.insecure, device"},
	{"proxyNetwork", T_BOOL, C(proxy_network), "false", 0, 0, F_IGNORED, NULL, "proxy network for all builds"},
	{"provenanceEnvDir", T_STR, C(provenance_env_dir), "/etc/buildkit/provenance.d", 0, 0, 0, NULL,
	 "JSON files added to provenance"},
	{"log/format", T_STR, C(log.format), "text", 0, 0, F_RELOAD, NULL, "text or json"},
	{"log/level", T_STR, C(log.level), "info", 0, 0, F_RELOAD, NULL, "trace, debug, info, warn, error"},
	{"grpc/address", T_STRS, C(grpc.address), "unix:///run/buildkit/buildkitd.sock", 0, 0, 0, NULL, "listening addresses"},
	{"grpc/debugAddress", T_STR, C(grpc.debug_address), NULL, 0, 0, 0, NULL, "debugging address"},
	{"grpc/uid", T_INT, C(grpc.uid), "ours", -1, 0xfffffffe, F_SET, NULL, "owner of Unix sockets"},
	{"grpc/gid", T_INT, C(grpc.gid), "ours", -1, 0xfffffffe, F_SET, NULL, "group of Unix sockets"},
	{"grpc/securityDescriptor", T_STR, C(grpc.security_descriptor), NULL, 0, 0, F_IGNORED, NULL, "Windows only"},
	{"grpc/tls/cert", T_STR, C(grpc.tls.cert), NULL, 0, 0, 0, NULL, "server certificate"},
	{"grpc/tls/key", T_STR, C(grpc.tls.key), NULL, 0, 0, 0, NULL, "server key"},
	{"grpc/tls/ca", T_STR, C(grpc.tls.ca), NULL, 0, 0, 0, NULL, "authority that clients must show a certificate of"},
	{"otel/socketPath", T_STR, C(otel.socket_path), "/run/buildkit/otel-grpc.sock", 0, 0, 0, NULL,
	 "trace collector socket"},
	{"cdi/disabled", T_TRI, C(cdi.disabled), "false", 0, 0, 0, NULL, "no CDI devices"},
	{"cdi/specDirs", T_STRS, C(cdi.spec_dirs), "/etc/cdi /var/run/cdi /etc/buildkit/cdi", 0, 0, 0, NULL,
	 "CDI specifications"},
	{"cdi/autoAllowed", T_STRS, C(cdi.auto_allowed), NULL, 0, 0, 0, NULL, "devices that need no entitlement"},
	WORKER("worker/oci", oci, 0),
	{"worker/oci/noProcessSandbox", T_BOOL, C(oci.no_process_sandbox), "false", 0, 0, 0, NULL,
	 "the daemon's pid namespace for steps"},
	{"worker/oci/binary", T_STR, C(oci.binary), "crun, buildkit-runc or runc", 0, 0, 0, NULL, "OCI runtime"},
	{"worker/oci/proxySnapshotterPath", T_STR, C(oci.proxy_snapshotter_path), NULL, 0, 0, F_IGNORED, NULL,
	 "proxy snapshotter"},
	{"worker/oci/userRemapUnsupported", T_STR, C(oci.userremap), NULL, 0, 0, F_IGNORED, NULL,
	 "unsupported by the peer, too"},
	{"worker/oci/stargzSnapshotter", T_ANY, 0, NULL, 0, 0, F_IGNORED, NULL, "stargz snapshotter"},
	WORKER("worker/containerd", containerd, F_IGNORED),
	{"worker/containerd/address", T_STR, C(containerd.address), "/run/containerd/containerd.sock", 0, 0, F_IGNORED, NULL,
	 "containerd"},
	{"worker/containerd/namespace", T_STR, C(containerd.namespace_), "buildkit", 0, 0, F_IGNORED, NULL,
	 "containerd namespace"},
	{"worker/containerd/runtime/name", T_STR, C(containerd.runtime_name), NULL, 0, 0, F_IGNORED, NULL,
	 "containerd runtime"},
	{"worker/containerd/runtime/path", T_STR, C(containerd.runtime_path), NULL, 0, 0, F_IGNORED, NULL,
	 "containerd runtime"},
	{"worker/containerd/runtime/options", T_ANY, 0, NULL, 0, 0, F_IGNORED, NULL, "containerd runtime"},
	{"registry", T_NAMED, C(registries), NULL, 0, 0, F_RELOAD, &registry_set, "a registry host each"},
	{"dns/nameservers", T_STRS, C(dns.nameservers), NULL, 0, 0, 0, NULL, "DNS servers of containers"},
	{"dns/options", T_STRS, C(dns.options), NULL, 0, 0, 0, NULL, "resolver options"},
	{"dns/searchDomains", T_STRS, C(dns.search_domains), NULL, 0, 0, 0, NULL, "search domains"},
	{"history/maxAge", T_DURATION, C(history.max_age_ns), "48h", 0, 0, F_RELOAD, NULL, "build records older than this go"},
	{"history/maxEntries", T_INT, C(history.max_entries), "50", 0, 1 << 30, F_RELOAD, NULL, "build records kept"},
	{"frontend/dockerfile.v0/enabled", T_TRI, C(frontend.dockerfile_enabled), "true", 0, 0, F_RELOAD, NULL,
	 "Dockerfile frontend"},
	{"frontend/gateway.v0/enabled", T_TRI, C(frontend.gateway_enabled), "true", 0, 0, F_RELOAD, NULL,
	 "frontends from images"},
	{"frontend/gateway.v0/allowedRepositories", T_STRS, C(frontend.gateway_allowed), NULL, 0, 0, F_RELOAD, NULL,
	 "only these; empty: all"},
	{"system/platformsCacheMaxAge", T_DURATION, C(system.platforms_max_age_ns), "20s", 0, 0, F_RELOAD | F_SET, NULL,
	 "how often emulators are looked for; negative: never again"},
	{"system/maxRegistryConcurrency", T_INT, C(system.max_registry_concurrency), "4", INT64_MIN, INT32_MAX,
	 F_RELOAD | F_SET, NULL, "transfers at once a registry host"},
	{"cache/gha", T_ANY, 0, NULL, 0, 0, F_IGNORED, NULL, "signing of the GitHub Actions cache"},
};
const struct conf_rows conf_all_rows = ROWS(all_rows, struct conf);
