/* The commands of `slipway` and `docker buildx`: the tables, and the small ones. */
#include "cli/boot.h"
#include "cli/builder.h"
#include "cli/builders.h"
#include "cli/manual.h"
#include "cli/internal.h"
#include "proto/control.pb-c.h"
#include "proto/methods.h"

#include <string.h>

/* ---- the tables ---- */
static const struct flag global_flags[] = {
	{"builder", 0, FLAG_STRING, "Override the configured builder instance: a name, or an address such as tcp://host:1234",
	 NULL, "BUILDX_BUILDER", .hide_default = true},
	{"debug", 'D', FLAG_BOOL, "Enable debug logging"},
	{"config", 0, FLAG_STRING}, /* Docker's own, which it hands to its plugins */
	{"context", 'c', FLAG_STRING},
	{"host", 'H', FLAG_LIST},
	{"log-level", 'l', FLAG_STRING},
	{"tls", 0, FLAG_BOOL},
	{"tlsverify", 0, FLAG_BOOL},
	{"tlscacert", 0, FLAG_STRING},
	{"tlscert", 0, FLAG_STRING},
	{"tlskey", 0, FLAG_STRING},
	{0},
};
static const struct flag build_flags[] = {
	{"add-host", 0, FLAG_CSV, "Add a custom host-to-IP mapping (format: \"host:ip\")"},
	{"allow", 0, FLAG_LIST,
	 "Allow extra privileged entitlement (e.g., \"network.host\", \"security.insecure\", \"device\", "
	 "\"buildx.local.delete\")",
	 .values = "network.host|security.insecure|device|buildx.local.delete"},
	{"annotation", 0, FLAG_LIST, "Add annotation to the image"},
	{"attest", 0, FLAG_LIST, "Attestation parameters (format: \"type=sbom,generator=image\")"},
	{"build-arg", 0, FLAG_LIST, "Set build-time variables"},
	{"build-context", 0, FLAG_LIST, "Additional build contexts (e.g., name=path)"},
	{"cache-from", 0, FLAG_LIST, "External cache sources (e.g., \"user/app:cache\", \"type=local,src=path/to/dir\")"},
	{"cache-to", 0, FLAG_LIST, "Cache export destinations (e.g., \"user/app:cache\", \"type=local,dest=path/to/dir\")"},
	{"call", 0, FLAG_STRING, "Set method for evaluating build (\"check\", \"outline\", \"targets\")", "build",
	 .values = "build|check|outline|targets"},
	{"cgroup-parent", 0, FLAG_STRING, "Set the parent cgroup for the \"RUN\" instructions during build"},
	{"check", 0, FLAG_BOOL, "Shorthand for \"--call=check\""},
	{"file", 'f', FLAG_STRING, "Name of the Dockerfile (default: \"PATH/Dockerfile\")"},
	{"iidfile", 0, FLAG_STRING, "Write the image ID to a file"},
	{"label", 0, FLAG_LIST, "Set metadata for an image"},
	{"load", 0, FLAG_BOOL, "Shorthand for \"--output=type=docker\""},
	{"metadata-file", 0, FLAG_STRING, "Write build result metadata to a file"},
	{"network", 0, FLAG_STRING, "Set the networking mode for the \"RUN\" instructions during build", "default",
	 .values = "default|host|none"},
	{"no-cache", 0, FLAG_BOOL, "Do not use cache when building the image"},
	{"no-cache-filter", 0, FLAG_LIST, "Do not cache specified stages"},
	{"output", 'o', FLAG_LIST, "Output destination (format: \"type=local,dest=path\")",
	 .values = "type=local,dest=|type=tar,dest=|type=oci,dest=|type=docker|type=docker,dest=|type=image|type=registry"},
	{"platform", 0, FLAG_LIST, "Set target platform for build",
	 .values = "linux/amd64|linux/arm64|linux/386|linux/arm/v7|linux/ppc64le|linux/s390x|linux/riscv64"},
	{"progress", 0, FLAG_STRING,
	 "Set type of progress output (\"auto\", \"none\",  \"plain\", \"quiet\", \"rawjson\", \"tty\"). Use plain to show "
	 "container output",
	 "auto", .values = "auto|none|plain|quiet|rawjson|tty"},
	{"provenance", 0, FLAG_STRING, "Shorthand for \"--attest=type=provenance\""},
	{"pull", 0, FLAG_BOOL, "Always attempt to pull all referenced images"},
	{"push", 0, FLAG_BOOL, "Shorthand for \"--output=type=registry,unpack=false\""},
	{"quiet", 'q', FLAG_BOOL, "Suppress the build output and print image ID on success"},
	{"resource", 0, FLAG_LIST, "Resource limits for build containers (format: \"memory=2g\", \"cpu-quota=50000\")"},
	{"sbom", 0, FLAG_STRING, "Shorthand for \"--attest=type=sbom\""},
	{"secret", 0, FLAG_LIST, "Secret to expose to the build (format: \"id=mysecret[,src=/local/secret]\")"},
	{"shm-size", 0, FLAG_BYTES, "Shared memory size for build containers"},
	{"ssh", 0, FLAG_LIST,
	 "SSH agent socket or keys to expose to the build (format: \"default|<id>[=<socket>|<key>[,<key>]]\")"},
	{"tag", 't', FLAG_LIST, "Image identifier (format: \"[registry/]repository[:tag]\")"},
	{"target", 0, FLAG_STRING, "Set the target build stage to build"},
	{"ulimit", 0, FLAG_LIST, "Ulimit options", .type = "ulimit"},
	{"compress", 0, FLAG_BOOL}, /* what `docker build` took before BuildKit: accepted, without effect */
	{"force-rm", 0, FLAG_BOOL},
	{"rm", 0, FLAG_BOOL},
	{"squash", 0, FLAG_BOOL},
	{"isolation", 0, FLAG_STRING},
	{"security-opt", 0, FLAG_CSV},
	{0},
};
#define TIMEOUT_FLAG                                                                                          \
	{                                                                                                     \
		"timeout", 0, FLAG_DURATION, "Override the default timeout for loading builder status", "20s" \
	}
static const struct flag create_flags[] = {
	{"append", 0, FLAG_BOOL, "Append a node to builder instead of changing it"},
	{"bootstrap", 0, FLAG_BOOL, "Boot builder after creation"},
	{"buildkitd-config", 0, FLAG_STRING, "BuildKit daemon config file", .values = "file"},
	{"buildkitd-flags", 0, FLAG_STRING, "BuildKit daemon flags"},
	{"driver", 0, FLAG_STRING, "Driver to use (available: \"docker-container\", \"remote\")",
	 .values = "docker-container|remote"},
	{"driver-opt", 0, FLAG_LIST, "Options for the driver"},
	{"leave", 0, FLAG_BOOL, "Remove a node from builder instead of changing it"},
	{"name", 0, FLAG_STRING, "Builder instance name"},
	{"node", 0, FLAG_STRING, "Create/modify node with given name"},
	{"platform", 0, FLAG_LIST, "Fixed platforms for current node"},
	TIMEOUT_FLAG,
	{"use", 0, FLAG_BOOL, "Set the current builder instance"},
	{0},
};
static const struct flag use_flags[] = {
	{"default", 0, FLAG_BOOL, "Set builder as default for current context"},
	{"global", 0, FLAG_BOOL, "Builder persists context changes"},
	{0},
};
static const struct flag rm_flags[] = {
	{"all-inactive", 0, FLAG_BOOL, "Remove all inactive builders"},
	{"force", 'f', FLAG_BOOL, "Do not prompt for confirmation"},
	{"keep-daemon", 0, FLAG_BOOL, "Keep the BuildKit daemon running"},
	{"keep-state", 0, FLAG_BOOL, "Keep BuildKit state"},
	TIMEOUT_FLAG,
	{0},
};
static const struct flag inspect_flags[] = {
	{"bootstrap", 0, FLAG_BOOL, "Ensure builder has booted before inspecting"},
	TIMEOUT_FLAG,
	{0},
};
static const struct flag ls_flags[] = {
	{"format", 0, FLAG_STRING, "Format the output", "table", .values = "table|json"},
	TIMEOUT_FLAG,
	{0},
};
static const struct flag du_flags[] = {
	{"filter", 0, FLAG_LIST, "Provide filter values", .type = "filter"},
	{"format", 0, FLAG_STRING, "Format the output"},
	TIMEOUT_FLAG,
	{"verbose", 0, FLAG_BOOL, "Shorthand for \"--format=pretty\""},
	{0},
};
static const struct flag prune_flags[] = {
	{"all", 'a', FLAG_BOOL, "Include internal/frontend images"},
	{"filter", 0, FLAG_LIST, "Provide filter values", .type = "filter"},
	{"force", 'f', FLAG_BOOL, "Do not prompt for confirmation"},
	{"max-used-space", 0, FLAG_BYTES, "Maximum amount of disk space allowed to keep for cache"},
	{"min-free-space", 0, FLAG_BYTES, "Target amount of free disk space after pruning"},
	{"reserved-space", 0, FLAG_BYTES, "Amount of disk space always allowed to keep for cache"},
	{"keep-storage", 0, FLAG_BYTES},
	TIMEOUT_FLAG,
	{"verbose", 0, FLAG_BOOL, "Provide a more verbose output"},
	{0},
};

static int version(struct cli *c, struct args *a);
static int dial_stdio(struct cli *c, struct args *a);
static int manual(struct cli *c, struct args *a);
static int completion(struct cli *c, struct args *a);
static int plugin_metadata(struct cli *c, struct args *a);

/* What is installed is written by these: hidden. */
static const struct flag man_flags[] = {{"write", 0, FLAG_STRING, .values = "dir"}, {0}};
static const struct flag completion_flags[] = {{"write", 0, FLAG_STRING, .values = "dir"}, {0}};
static const struct command commands[] = {
	{"build", "b", "Start a build", "[OPTIONS] PATH | URL | -", .flags = build_flags, .run = buildx_build, .min_args = 1,
	 .max_args = 1},
	{"completion", NULL, "Print the completion script of a shell", "bash|zsh|fish [slipway|slipwayd]",
	 .flags = completion_flags, .run = completion, .max_args = 2},
	{"create", NULL, "Create a new builder instance", "[OPTIONS] [CONTEXT|ENDPOINT]", .flags = create_flags,
	 .run = builders_create, .max_args = 1},
	{"dial-stdio", NULL, "Proxy current stdio streams to builder instance", .run = dial_stdio},
	{"du", NULL, "Disk usage", .flags = du_flags, .run = buildx_du},
	{"inspect", NULL, "Inspect current builder instance", "[NAME]", .flags = inspect_flags, .run = builders_inspect,
	 .max_args = 1},
	{"ls", NULL, "List builder instances", .flags = ls_flags, .run = builders_ls},
	{"man", NULL, "Print a manual page", "[COMMAND | slipwayd | buildctl]", .flags = man_flags, .run = manual,
	 .max_args = 1},
	{"prune", NULL, "Remove build cache", .flags = prune_flags, .run = buildx_prune},
	{"rm", NULL, "Remove one or more builder instances", "[OPTIONS] [NAME...]", .flags = rm_flags, .run = builders_rm,
	 .max_args = -1},
	{"stop", NULL, "Stop builder instance", "[NAME]", .run = builders_stop, .max_args = 1},
	{"use", NULL, "Set the current builder instance", "[OPTIONS] NAME", .flags = use_flags, .run = builders_use,
	 .max_args = 1},
	{"version", NULL, "Show version information", .run = version},
	{"docker-cli-plugin-metadata", .run = plugin_metadata},
	{0},
};
const struct command buildx_root = {"slipway", NULL, "Build container images", .flags = global_flags, .sub = commands};

/* ---- the small ones ---- */
static int version(struct cli *c, struct args *a)
{
	printf("%s %s %s\n", CLI_PACKAGE, SLIPWAY_VERSION, SLIPWAY_REVISION);
	return 0;
}

static int plugin_metadata(struct cli *c, struct args *a)
{
	printf("{\"SchemaVersion\":\"0.1.0\",\"Vendor\":\"Slipway\",\"Version\":\"%s\",\"ShortDescription\":\"Slipway\"}\n",
	       SLIPWAY_VERSION);
	return 0;
}

static int manual(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_buf_ struct buf b = BUF_INIT;
	if (args_given(a, "write")) return manual_write(args_str(a, "write"), &e) < 0 ? cli_fail(c, &e) : 0;
	const char *word = a->rest.n ? a->rest.v[0] : "slipway";
	_cleanup_free_ char *page = xasprintf("slipway-%s", word);
	if (manual_page(word, &b, NULL) < 0 && manual_page(page, &b, &e) < 0) return cli_fail(c, &e);
	fputs(buf_str(&b), stdout);
	return 0;
}

static int completion(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	if (args_given(a, "write")) return complete_write(args_str(a, "write"), &e) < 0 ? cli_fail(c, &e) : 0;
	const char *shell = a->rest.n ? a->rest.v[0] : "", *program = a->rest.n > 1 ? a->rest.v[1] : "slipway";
	_cleanup_free_ char *text = complete_script(shell, program);
	if (!text) {
		err_set(&e, CODE_INVALID_ARGUMENT,
			"no completion for %s in \"%s\": the shells are bash, zsh and fish, the programs slipway and slipwayd",
			program, shell);
		return cli_fail(c, &e);
	}
	fputs(text, stdout);
	return 0;
}

static int dial_container(const struct builder *b, struct err *e)
{
	struct drive_exec *x;
	if (drive_container_dial(&b->stored.nodes.v[0], &x, e) < 0) return -1;
	int rv = drive_exec_copy(x, 0, 1, 2, NULL, NULL, e);
	drive_exec_free(x);
	return rv;
}

static int dial_stdio(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	struct builder b = {0};
	int rv = builder_find(c, a, &b, &e);
	bool container = b.driver && !strcmp(b.driver, "docker-container");
	if (rv == 0 && container) rv = boot_container_alone(&b.stored.nodes.v[0], &e);
	if (rv == 0 && !container && !*b.addr) {
		free(take_ptr(b.addr));
		rv = cli_embedded(c, &b.addr, &e);
	}
	if (rv == 0) rv = container ? dial_container(&b, &e) : cli_dial_stdio(b.addr, &e);
	builder_fini(&b);
	return rv < 0 ? cli_fail(c, &e) : 0;
}
