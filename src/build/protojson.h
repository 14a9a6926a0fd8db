#ifndef BUILD_PROTOJSON_H
#define BUILD_PROTOJSON_H
/* A message in protobuf's own JSON form (what Go's protojson reads): lower camel case names, zero values left out, 64-bit
 * numbers as strings, bytes in base64, enums by name, maps as objects. Pure. Source: protobuf.dev/programming-guides/json. */
#include "base/base.h"
#include <protobuf-c/protobuf-c.h>

void protojson(struct json_w *w, const ProtobufCMessage *m);
#endif
