/* moby.buildkit.v1.frontend.LLBBridge. */
#include "serve/internal.h"

#define REQ(T) ((const T *)c->req)
#define FORWARD(name, T)                                                       \
	static void name(struct serve_call *c)                                 \
	{                                                                      \
		bridge_##name(c->bridge, REQ(Gateway__##T), serve_reply(c));   \
	}
FORWARD(solve, SolveRequest)
FORWARD(resolve_source_meta, ResolveSourceMetaRequest)
FORWARD(resolve_image_config, ResolveImageConfigRequest)
FORWARD(read_file, ReadFileRequest)
FORWARD(read_dir, ReadDirRequest)
FORWARD(stat_file, StatFileRequest)
FORWARD(evaluate, EvaluateRequest)
FORWARD(warn, WarnRequest)
FORWARD(new_container, NewContainerRequest)
FORWARD(release_container, ReleaseContainerRequest)
FORWARD(read_file_container, ReadFileRequest)
FORWARD(read_dir_container, ReadDirRequest)
FORWARD(stat_file_container, StatFileRequest)
static void return_(struct serve_call *c) { bridge_return(c->bridge, REQ(Gateway__ReturnRequest), serve_reply(c)); }
static void ping(struct serve_call *c) { bridge_ping(c->bridge, serve_reply(c)); }
static void inputs(struct serve_call *c) { bridge_inputs(c->bridge, serve_reply(c)); }

const struct method serve_bridge_methods[] = {
	{METHOD_BRIDGE_PING, &gateway__ping_request__descriptor, ping, true},
	{METHOD_BRIDGE_SOLVE, &gateway__solve_request__descriptor, solve, true},
	{METHOD_BRIDGE_RESOLVE_SOURCE_META, &gateway__resolve_source_meta_request__descriptor, resolve_source_meta, true},
	{METHOD_BRIDGE_RESOLVE_IMAGE_CONFIG, &gateway__resolve_image_config_request__descriptor, resolve_image_config, true},
	{METHOD_BRIDGE_READ_FILE, &gateway__read_file_request__descriptor, read_file, true},
	{METHOD_BRIDGE_READ_DIR, &gateway__read_dir_request__descriptor, read_dir, true},
	{METHOD_BRIDGE_STAT_FILE, &gateway__stat_file_request__descriptor, stat_file, true},
	{METHOD_BRIDGE_EVALUATE, &gateway__evaluate_request__descriptor, evaluate, true},
	{METHOD_BRIDGE_RETURN, &gateway__return_request__descriptor, return_, true},
	{METHOD_BRIDGE_INPUTS, &gateway__inputs_request__descriptor, inputs, true},
	{METHOD_BRIDGE_NEW_CONTAINER, &gateway__new_container_request__descriptor, new_container, true},
	{METHOD_BRIDGE_RELEASE_CONTAINER, &gateway__release_container_request__descriptor, release_container, true},
	{METHOD_BRIDGE_READ_FILE_CONTAINER, &gateway__read_file_request__descriptor, read_file_container, true},
	{METHOD_BRIDGE_READ_DIR_CONTAINER, &gateway__read_dir_request__descriptor, read_dir_container, true},
	{METHOD_BRIDGE_STAT_FILE_CONTAINER, &gateway__stat_file_request__descriptor, stat_file_container, true},
	{METHOD_BRIDGE_EXEC_PROCESS, NULL, serve_exec_process, true},
	{METHOD_BRIDGE_WARN, &gateway__warn_request__descriptor, warn, true},
	{0},
};
