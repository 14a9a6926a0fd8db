#ifndef PROTO_METHODS_H
#define PROTO_METHODS_H
/* Full names of the gRPC methods, as they stand in :path. U: unary; S: the reply is a stream; C: the request is one; B: both.
 * The messages: <name>.proto, the C prefix being the file's name (Control__SolveRequest in control.pb-c.h), except
 * ops.proto (Pb__Op) and worker.proto (Types__WorkerRecord). */

/* control.proto, served by the daemon */
#define SERVICE_CONTROL "moby.buildkit.v1.Control"
#define METHOD_CONTROL_DISK_USAGE "/moby.buildkit.v1.Control/DiskUsage"                    /* U */
#define METHOD_CONTROL_PRUNE "/moby.buildkit.v1.Control/Prune"                             /* S UsageRecord */
#define METHOD_CONTROL_SOLVE "/moby.buildkit.v1.Control/Solve"                             /* U */
#define METHOD_CONTROL_STATUS "/moby.buildkit.v1.Control/Status"                           /* S StatusResponse */
#define METHOD_CONTROL_SESSION "/moby.buildkit.v1.Control/Session"                         /* B BytesMessage */
#define METHOD_CONTROL_LIST_WORKERS "/moby.buildkit.v1.Control/ListWorkers"                /* U */
#define METHOD_CONTROL_INFO "/moby.buildkit.v1.Control/Info"                               /* U */
#define METHOD_CONTROL_LISTEN_BUILD_HISTORY "/moby.buildkit.v1.Control/ListenBuildHistory" /* S BuildHistoryEvent */
#define METHOD_CONTROL_UPDATE_BUILD_HISTORY "/moby.buildkit.v1.Control/UpdateBuildHistory" /* U */

/* gateway.proto, served by the daemon to frontends and to clients that run one */
#define SERVICE_BRIDGE "moby.buildkit.v1.frontend.LLBBridge"
#define METHOD_BRIDGE_RESOLVE_IMAGE_CONFIG "/moby.buildkit.v1.frontend.LLBBridge/ResolveImageConfig"
#define METHOD_BRIDGE_RESOLVE_SOURCE_META "/moby.buildkit.v1.frontend.LLBBridge/ResolveSourceMeta"
#define METHOD_BRIDGE_SOLVE "/moby.buildkit.v1.frontend.LLBBridge/Solve"
#define METHOD_BRIDGE_READ_FILE "/moby.buildkit.v1.frontend.LLBBridge/ReadFile"
#define METHOD_BRIDGE_READ_DIR "/moby.buildkit.v1.frontend.LLBBridge/ReadDir"
#define METHOD_BRIDGE_STAT_FILE "/moby.buildkit.v1.frontend.LLBBridge/StatFile"
#define METHOD_BRIDGE_EVALUATE "/moby.buildkit.v1.frontend.LLBBridge/Evaluate"
#define METHOD_BRIDGE_PING "/moby.buildkit.v1.frontend.LLBBridge/Ping"
#define METHOD_BRIDGE_RETURN "/moby.buildkit.v1.frontend.LLBBridge/Return"
#define METHOD_BRIDGE_INPUTS "/moby.buildkit.v1.frontend.LLBBridge/Inputs"
#define METHOD_BRIDGE_NEW_CONTAINER "/moby.buildkit.v1.frontend.LLBBridge/NewContainer"
#define METHOD_BRIDGE_RELEASE_CONTAINER "/moby.buildkit.v1.frontend.LLBBridge/ReleaseContainer"
#define METHOD_BRIDGE_EXEC_PROCESS "/moby.buildkit.v1.frontend.LLBBridge/ExecProcess" /* B ExecMessage; the others U */
#define METHOD_BRIDGE_READ_FILE_CONTAINER "/moby.buildkit.v1.frontend.LLBBridge/ReadFileContainer"
#define METHOD_BRIDGE_READ_DIR_CONTAINER "/moby.buildkit.v1.frontend.LLBBridge/ReadDirContainer"
#define METHOD_BRIDGE_STAT_FILE_CONTAINER "/moby.buildkit.v1.frontend.LLBBridge/StatFileContainer"
#define METHOD_BRIDGE_WARN "/moby.buildkit.v1.frontend.LLBBridge/Warn"

/* Served by a client in its session */
#define METHOD_FILESYNC_DIFF_COPY "/moby.filesync.v1.FileSync/DiffCopy"   /* B fsutil Packet */
#define METHOD_FILESYNC_TAR_STREAM "/moby.filesync.v1.FileSync/TarStream" /* B fsutil Packet */
#define METHOD_FILESEND_DIFF_COPY "/moby.filesync.v1.FileSend/DiffCopy"   /* B BytesMessage, or Packet for a folder */
#define METHOD_AUTH_CREDENTIALS "/moby.filesync.v1.Auth/Credentials"
#define METHOD_AUTH_FETCH_TOKEN "/moby.filesync.v1.Auth/FetchToken"
#define METHOD_AUTH_GET_TOKEN_AUTHORITY "/moby.filesync.v1.Auth/GetTokenAuthority"
#define METHOD_AUTH_VERIFY_TOKEN_AUTHORITY "/moby.filesync.v1.Auth/VerifyTokenAuthority"
#define METHOD_SECRETS_GET_SECRET "/moby.buildkit.secrets.v1.Secrets/GetSecret"
#define METHOD_SSH_CHECK_AGENT "/moby.sshforward.v1.SSH/CheckAgent"
#define METHOD_SSH_FORWARD_AGENT "/moby.sshforward.v1.SSH/ForwardAgent" /* B BytesMessage */
#define METHOD_UPLOAD_PULL "/moby.upload.v1.Upload/Pull"                /* B BytesMessage */
#define METHOD_EXPORTER_FIND_EXPORTERS "/moby.exporter.v1.Exporter/FindExporters"
#define METHOD_EXPORTER_FINALIZE_EXPORT "/moby.exporter.v1.Exporter/FinalizeExport"
#define METHOD_POLICY_CHECK_POLICY "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy"

/* content.proto: by the client in its session (all), by the daemon (reading only) */
#define METHOD_CONTENT_INFO "/containerd.services.content.v1.Content/Info"
#define METHOD_CONTENT_UPDATE "/containerd.services.content.v1.Content/Update"
#define METHOD_CONTENT_LIST "/containerd.services.content.v1.Content/List"     /* S */
#define METHOD_CONTENT_DELETE "/containerd.services.content.v1.Content/Delete" /* answers google Empty */
#define METHOD_CONTENT_READ "/containerd.services.content.v1.Content/Read"     /* S */
#define METHOD_CONTENT_STATUS "/containerd.services.content.v1.Content/Status"
#define METHOD_CONTENT_LIST_STATUSES "/containerd.services.content.v1.Content/ListStatuses"
#define METHOD_CONTENT_WRITE "/containerd.services.content.v1.Content/Write" /* B */
#define METHOD_CONTENT_ABORT "/containerd.services.content.v1.Content/Abort" /* answers google Empty */

/* Both sides */
#define SERVICE_HEALTH "grpc.health.v1.Health"
#define METHOD_HEALTH_CHECK "/grpc.health.v1.Health/Check"
#define METHOD_HEALTH_LIST "/grpc.health.v1.Health/List"
#define METHOD_HEALTH_WATCH "/grpc.health.v1.Health/Watch" /* S HealthCheckResponse */

/* Served by the daemon; we keep no message of these */
#define METHOD_TRACE_EXPORT "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
#define METHOD_REFLECTION_V1 "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
#define METHOD_REFLECTION_V1ALPHA "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

/* otlp.proto, served on the control sockets and on the one that steps have at /dev/otel-grpc.sock */
#define METHOD_TRACE_EXPORT "/opentelemetry.proto.collector.trace.v1.TraceService/Export" /* U */
#endif
