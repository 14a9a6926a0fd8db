/* The table of keys. Everything about a key is in its row: reading, checking, printing and the manual follow from it. */
#include "conf/internal.h"

#define ROWS(table, T)                             \
	{                                          \
		table, array_len(table), sizeof(T) \
	}
/* The key, its field, its default as the manual shows it (NULL: none), then what else there is, and the help. */
#define K(p, t, field, d, h, ...)                                                      \
	{                                                                              \
		.path = p, .type = t, .off = field, .def = d, .help = h, ##__VA_ARGS__ \
	}
#define LIVE .flags = F_RELOAD
#define C(f) offsetof(struct conf, f)

#define P(f) offsetof(struct conf_keypair, f)
static const struct conf_row keypair_rows[] = {
	K("key", T_STR, P(key), NULL, "Private key, a PEM file.", LIVE, .file = FILE_KEY),
	K("cert", T_STR, P(cert), NULL, "Certificate with its chain, a PEM file.", LIVE, .file = FILE_CERT),
};
static const struct conf_rows keypair_set = ROWS(keypair_rows, struct conf_keypair);

#define M(f) offsetof(struct conf_mirror, f)
static const struct conf_row mirror_rows[] = {
	K("host", T_STR, M(host), NULL, "The mirror, `host[:port]`. Needed.", LIVE),
	K("path", T_STR, M(path), NULL,
	  "Prefix of its repositories: `proxy.docker.io` makes `/v2/proxy.docker.io/library/alpine/...`.", LIVE),
	K("http", T_TRI, M(http), "as `registry.\"<its host>\"`", "Plain HTTP.", LIVE),
	K("insecure", T_TRI, M(insecure), "as `registry.\"<its host>\"`", "Do not verify its certificate.", LIVE),
	K("ca", T_STRS, M(ca), "as `registry.\"<its host>\"`", "Certificate authorities beside the system's, PEM files.", LIVE,
	  .file = FILE_CERT),
	K("keypair", T_LIST, M(keypairs), "as `registry.\"<its host>\"`", "Client certificates.", LIVE, .sub = &keypair_set),
	K("tlsconfigdir", T_STRS, M(tlsconfigdir), "as `registry.\"<its host>\"`",
	  "Folders with `*.crt` (authorities) and `X.cert` with `X.key`.", LIVE, .file = FILE_DIR),
	K("credentials", T_STR, M(credentials), NULL,
	  "A file of one line `USER:PASSWORD` for this mirror. Without it the client's credentials for the mirror's host are "
	  "asked for.",
	  LIVE, .file = FILE_SECRET),
	K("fallback", T_TRI, M(fallback), "true", "`false`: when this mirror fails, the pull fails; no later host is asked.",
	  LIVE),
};
static const struct conf_rows mirror_set = ROWS(mirror_rows, struct conf_mirror);

#define R(f) offsetof(struct conf_registry, f)
static const struct conf_row registry_rows[] = {
	K("mirrors", T_STRS, R(mirrors), NULL,
	  "Hosts that are asked before the registry, in this order, each `host[:port][/path]`. How one is reached is said by "
	  "`[registry.\"<its host>\"]`, not here.",
	  LIVE),
	K("http", T_TRI, R(http), "true for localhost, else false", "Plain HTTP.", LIVE),
	K("insecure", T_TRI, R(insecure), "false",
	  "Do not verify certificates; plain HTTP when the port does not speak TLS and `http` allows it.", LIVE),
	K("ca", T_STRS, R(ca), NULL, "Certificate authorities beside the system's, PEM files.", LIVE, .file = FILE_CERT),
	K("keypair", T_LIST, R(keypairs), NULL, "Client certificates, tables `[[registry.\"HOST\".keypair]]`.", LIVE,
	  .sub = &keypair_set),
	K("tlsconfigdir", T_STRS, R(tlsconfigdir), NULL,
	  "Folders as Docker's `certs.d/HOST`: `*.crt` are authorities, `X.cert` with `X.key` client certificates.", LIVE,
	  .file = FILE_DIR),
	K("mirror", T_LIST, R(mirror), NULL,
	  "A mirror with settings of its own, tables `[[registry.\"HOST\".mirror]]`. They are asked behind `mirrors`.", LIVE,
	  .sub = &mirror_set, .ours = true),
	K("maxRegistryConcurrency", T_INT, R(max_concurrency), "`system.maxRegistryConcurrency`",
	  "Transfers at once with this registry.", LIVE, .min = 1, .max = 1024, .ours = true),
};
static const struct conf_rows registry_set = ROWS(registry_rows, struct conf_registry);

#define G(f) offsetof(struct conf_gcpolicy, f)
static const struct conf_row gcpolicy_rows[] = {
	K("all", T_BOOL, G(all), "false", "Also what belongs to no build step: frontends' images and internal records.", LIVE),
	K("filters", T_STRS, G(filters), NULL,
	  "Records that it is for, as `type==source.local`; any of them. None: all records.", LIVE),
	K("keepDuration", T_DURATION, G(keep_duration_ns), NULL, "Records used within this time stay.", LIVE),
	K("keepBytes", T_SPACE, G(keep_bytes), NULL, "use `reservedSpace`", .flags = F_RELOAD | F_OLD),
	K("reservedSpace", T_SPACE, G(reserved), NULL, "This much of the cache stays in any case.", LIVE),
	K("maxUsedSpace", T_SPACE, G(max_used), NULL, "The most that the cache may use.", LIVE),
	K("minFreeSpace", T_SPACE, G(min_free), NULL, "Room on the disk to aim at, but never below `reservedSpace`.", LIVE),
};
static const struct conf_rows gcpolicy_set = ROWS(gcpolicy_rows, struct conf_gcpolicy);

/* What both workers have; p is the prefix, w the member, x flags more. */
#define WORKER(p, w, x)                                                                                                        \
	K(p "/enabled", T_TRI, C(w.enabled), "auto", "Use this worker.", .flags = x),                                          \
		K(p "/labels", T_MAP, C(w.labels), NULL, "Labels of the worker beside its own.", .flags = x),                  \
		K(p "/platforms", T_STRS, C(w.platforms), "detected", "Platforms instead of the detected ones.", .flags = x),  \
		K(p "/snapshotter", T_STR, C(w.snapshotter), "auto",                                                           \
		  "`overlayfs`, `native` (copies), or `auto`: overlayfs where it works.", .flags = x),                         \
		K(p "/rootless", T_BOOL, C(w.rootless), "false; true in a user namespace", "Rootless mode.", .flags = x),      \
		K(p "/gc", T_TRI, C(w.gc), "true", "Collect garbage by the policies.", .flags = F_RELOAD | x),                 \
		K(p "/gckeepstorage", T_SPACE, C(w.gc_keep), NULL, "use `reservedSpace`", .flags = F_RELOAD | F_OLD | x),      \
		K(p "/reservedSpace", T_SPACE, C(w.reserved), "10%, at most 10GB", "Cache that stays in any case.",            \
		  .flags = F_RELOAD | x),                                                                                      \
		K(p "/maxUsedSpace", T_SPACE, C(w.max_used), "80%, at most 100GB", "The most that the cache may use.",         \
		  .flags = F_RELOAD | x),                                                                                      \
		K(p "/minFreeSpace", T_SPACE, C(w.min_free), "20%",                                                            \
		  "Room on the disk to aim at, but never below `reservedSpace`.", .flags = F_RELOAD | x),                      \
		K(p "/gcpolicy", T_LIST, C(w.gcpolicy), NULL,                                                                  \
		  "Policies that replace the default ones; they are applied in this order.", .flags = F_RELOAD | x,            \
		  .sub = &gcpolicy_set),                                                                                       \
		K(p "/networkMode", T_STR, C(w.network_mode), "auto",                                                          \
		  "`cni`, `bridge`, `host`, `none`, or `auto`: cni where `cniConfigPath` is there, else host.", .flags = x),   \
		K(p "/cniConfigPath", T_STR, C(w.cni_config_path), "/etc/buildkit/cni.json", "CNI configuration.", .flags = x, \
		  .file = FILE_ANY),                                                                                           \
		K(p "/cniBinaryPath", T_STR, C(w.cni_binary_path), "/opt/cni/bin", "Folder of the CNI plugins.", .flags = x,   \
		  .file = FILE_DIR),                                                                                           \
		K(p "/cniPoolSize", T_INT, C(w.cni_pool_size), "0", "Network namespaces that are kept ready.", .flags = x,     \
		  .min = 0, .max = 1024),                                                                                      \
		K(p "/bridgeName", T_STR, C(w.bridge_name), "buildkit0", "Name of the bridge of `networkMode = \"bridge\"`.",  \
		  .flags = x),                                                                                                 \
		K(p "/bridgeSubnet", T_STR, C(w.bridge_subnet), "10.10.0.0/16", "Subnet of that bridge.", .flags = x),         \
		K(p "/defaultCgroupParent", T_STR, C(w.cgroup_parent), NULL, "Parent of the containers' cgroups.",             \
		  .flags = x),                                                                                                 \
		K(p "/apparmor-profile", T_STR, C(w.apparmor), NULL, "AppArmor profile of the containers; loaded before.",     \
		  .flags = x),                                                                                                 \
		K(p "/selinux", T_BOOL, C(w.selinux), "false", "SELinux labels.", .flags = F_IGNORED),                         \
		K(p "/max-parallelism", T_INT, C(w.max_parallelism), "0",                                                      \
		  "Steps that run at once, of all builds; 0: any number.", .flags = F_RELOAD | x, .min = 0, .max = 1 << 20)

static const struct conf_row all_rows[] = {
	K("strict", T_BOOL, C(strict), "false", "Refuse to start, or to reload, when `check-config` finds fault with the file.",
	  LIVE, .ours = true),
	K("root", T_STR, C(root), "/var/lib/buildkit", "Folder of all state."),
	K("insecure-entitlements", T_STRS, C(entitlements), NULL,
	  "What builds may be granted beyond a plain container: `network.host`, `security.insecure`, `device`.", LIVE),
	K("provenanceEnvDir", T_STR, C(provenance_env_dir), "/etc/buildkit/provenance.d",
	  "Folder of JSON files whose keys are added to the provenance of builds.", .file = FILE_DIR),
	K("proxyNetwork", T_BOOL, C(proxy_network), "false", "Proxy network for all builds.", LIVE),
	K("debug", T_BOOL, C(debug), "false", "use `log.level = \"debug\"`", .flags = F_RELOAD | F_OLD),
	K("trace", T_BOOL, C(trace), "false", "use `log.level = \"trace\"`", .flags = F_RELOAD | F_OLD),
	K("log/format", T_STR, C(log.format), "text", "`text` or `json`.", LIVE),
	K("log/level", T_STR, C(log.level), "info", "`trace`, `debug`, `info`, `warn`, `error`, `fatal` or `panic`.", LIVE),
	K("grpc/address", T_STRS, C(grpc.address), "unix:///run/buildkit/buildkitd.sock",
	  "Where to listen: `unix://PATH`, `tcp://HOST:PORT`, `fd://` (from systemd)."),
	K("grpc/debugAddress", T_STR, C(grpc.debug_address), NULL, "Where to serve metrics and debugging, by HTTP."),
	K("grpc/uid", T_INT, C(grpc.uid), "the daemon's", "Owner of the Unix sockets.", .flags = F_SET, .min = -1,
	  .max = 0xfffffffe),
	K("grpc/gid", T_INT, C(grpc.gid), "the daemon's", "Group of the Unix sockets.", .flags = F_SET, .min = -1,
	  .max = 0xfffffffe),
	K("grpc/securityDescriptor", T_STR, C(grpc.security_descriptor), NULL, "Windows only.", .flags = F_IGNORED),
	K("grpc/tls/cert", T_STR, C(grpc.tls.cert), NULL, "Certificate of the TCP listeners, with its chain, a PEM file.", LIVE,
	  .file = FILE_CERT),
	K("grpc/tls/key", T_STR, C(grpc.tls.key), NULL, "Its private key, a PEM file.", LIVE, .file = FILE_KEY),
	K("grpc/tls/ca", T_STR, C(grpc.tls.ca), NULL, "Authority; with it, clients must show a certificate of it.", LIVE,
	  .file = FILE_CERT),
	K("otel/socketPath", T_STR, C(otel.socket_path), "otel-grpc.sock below root",
	  "Socket where build steps leave traces. BuildKit's default is one for all daemons of a machine."),
	K("cdi/disabled", T_TRI, C(cdi.disabled), "false", "No CDI devices."),
	K("cdi/specDirs", T_STRS, C(cdi.spec_dirs), "/etc/cdi /var/run/cdi /etc/buildkit/cdi", "Folders of CDI specifications."),
	K("cdi/autoAllowed", T_STRS, C(cdi.auto_allowed), NULL, "Devices, or kinds of them, that need no entitlement."),
	WORKER("worker/oci", oci, 0),
	K("worker/oci/noProcessSandbox", T_BOOL, C(oci.no_process_sandbox), "false",
	  "Steps share the daemon's pid namespace; for rootless mode in a container."),
	K("worker/oci/binary", T_STR, C(oci.binary), "the first that works of crun, buildkit-runc, runc", "OCI runtime."),
	K("worker/oci/proxySnapshotterPath", T_STR, C(oci.proxy_snapshotter_path), NULL, "Socket of a proxy snapshotter.",
	  .flags = F_IGNORED),
	K("worker/oci/userRemapUnsupported", T_STR, C(oci.userremap), NULL, "User remapping, unfinished in BuildKit too.",
	  .flags = F_IGNORED),
	K("worker/oci/stargzSnapshotter", T_ANY, 0, NULL, "Settings of the stargz snapshotter.", .flags = F_IGNORED),
	WORKER("worker/containerd", containerd, F_IGNORED),
	K("worker/containerd/address", T_STR, C(containerd.address), "/run/containerd/containerd.sock", "containerd's socket.",
	  .flags = F_IGNORED),
	K("worker/containerd/namespace", T_STR, C(containerd.namespace_), "buildkit", "containerd's namespace.",
	  .flags = F_IGNORED),
	K("worker/containerd/runtime/name", T_STR, C(containerd.runtime_name), NULL, "containerd's runtime.",
	  .flags = F_IGNORED),
	K("worker/containerd/runtime/path", T_STR, C(containerd.runtime_path), NULL, "Its program.", .flags = F_IGNORED),
	K("worker/containerd/runtime/options", T_ANY, 0, NULL, "Its options.", .flags = F_IGNORED),
	K("registry", T_NAMED, C(registries), NULL, "A registry host each, tables `[registry.\"HOST\"]`.", LIVE,
	  .sub = &registry_set),
	K("dns/nameservers", T_STRS, C(dns.nameservers), "the host's", "Addresses of the containers' DNS servers.", LIVE),
	K("dns/options", T_STRS, C(dns.options), "the host's", "Resolver options, as in resolv.conf(5).", LIVE),
	K("dns/searchDomains", T_STRS, C(dns.search_domains), "the host's", "Search domains.", LIVE),
	K("history/maxAge", T_DURATION, C(history.max_age_ns), "48h", "Records of builds older than this go.", LIVE),
	K("history/maxEntries", T_INT, C(history.max_entries), "50", "But the newest ones stay, this many.", LIVE, .min = 0,
	  .max = 1 << 30),
	K("frontend/dockerfile.v0/enabled", T_TRI, C(frontend.dockerfile_enabled), "true", "The Dockerfile frontend.", LIVE),
	K("frontend/gateway.v0/enabled", T_TRI, C(frontend.gateway_enabled), "true", "Frontends from images (`# syntax=`).",
	  LIVE),
	K("frontend/gateway.v0/allowedRepositories", T_STRS, C(frontend.gateway_allowed), NULL,
	  "Only images of these repositories may be frontends; names without tag. Empty: all may.", LIVE),
	K("system/platformsCacheMaxAge", T_DURATION, C(system.platforms_max_age_ns), "20s",
	  "How often emulators (binfmt_misc) are looked for; negative: only at the start.", .flags = F_RELOAD | F_SET),
	K("system/maxRegistryConcurrency", T_INT, C(system.max_registry_concurrency), "4",
	  "Transfers at once with one registry; manifests and configs may have one more.", .flags = F_RELOAD | F_SET,
	  .min = INT64_MIN, .max = INT32_MAX),
	K("cache/gha", T_ANY, 0, NULL, "Signing of the GitHub Actions cache (`sign`, `verify`).", .flags = F_IGNORED),
};
const struct conf_rows conf_all_rows = ROWS(all_rows, struct conf);

const struct conf_section conf_sections[] = {
	{"", "The top level", "These stand before the first section."},
	{"log", "[log]", NULL},
	{"grpc", "[grpc]", NULL},
	{"grpc/tls", "[grpc.tls]", "For the TCP listeners and those of systemd; Unix sockets have no TLS."},
	{"registry", "[registry.\"HOST\"]",
	 "HOST is the registry's name as references have it: `docker.io`, `localhost:5000`. `\"*.corp\"` is for all hosts "
	 "below corp, `\"*\"` for "
	 "all; the most specific entry holds, alone. For pull, push and cache alike, but only pulls ask mirrors. `localhost` "
	 "and loopback "
	 "addresses are asked by plain HTTP unless `http = false`."},
	{"registry/keypair", "[[registry.\"HOST\".keypair]]", NULL},
	{"registry/mirror", "[[registry.\"HOST\".mirror]]",
	 "What is not set here is as `[registry.\"<the mirror's host>\"]` says."},
	{"worker/oci", "[worker.oci]",
	 "Spaces are bytes (`512000000`), sizes (`\"512MB\"`, in units of 1024) or shares of the disk (`\"10%\"`)."},
	{"worker/oci/gcpolicy", "[[worker.oci.gcpolicy]]",
	 "Without any, four policies: local sources, cache mounts and git checkouts unused for 48 hours, above 512 MB; what "
	 "was unused "
	 "for 60 days; what is above the limits; then also internal records. They run after builds and every ten minutes. What "
	 "a build uses "
	 "is never touched."},
	{"dns", "[dns]", NULL},
	{"history", "[history]", NULL},
	{"frontend/dockerfile.v0", "[frontend.\"dockerfile.v0\"]", NULL},
	{"frontend/gateway.v0", "[frontend.\"gateway.v0\"]", NULL},
	{"system", "[system]", NULL},
	{"otel", "[otel]", NULL},
	{"cdi", "[cdi]", NULL},
	{"cache", "[cache]", NULL},
	{"worker/containerd", "[worker.containerd]", "Read, and without effect: there is no containerd worker."},
	{"worker/containerd/runtime", "[worker.containerd.runtime]", NULL},
};
const size_t conf_n_sections = array_len(conf_sections);
