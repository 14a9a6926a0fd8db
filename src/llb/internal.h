#ifndef LLB_INTERNAL_H
#define LLB_INTERNAL_H
/* Shared inside the room: reflection over protobuf-c messages, and allocation from an arena that may be capped. */
#include "llb/llb.h"

/* The entry messages of a map field: protobuf-c keeps maps as repeated XxxEntry{1 key, 2 value}. */
bool msg_is_map(const ProtobufCMessageDescriptor *parent, const ProtobufCFieldDescriptor *f);
/* The entries sorted by key, of equal keys only the last (that is what Go's map keeps). Heap; *ret_n of them. */
ProtobufCMessage **msg_map_sorted(ProtobufCMessage *const *entries, size_t n, size_t *ret_n);

static inline const void *msg_member(const ProtobufCMessage *m, size_t offset) { return (const char *)m + offset; }
static inline bool msg_oneof_chosen(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
	return *(const uint32_t *)msg_member(m, f->quantifier_offset) == f->id;
}
static inline size_t msg_count(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
	return *(const size_t *)msg_member(m, f->quantifier_offset);
}

static inline int no_room(struct err *e) { return err_set(e, CODE_RESOURCE_EXHAUSTED, "definition needs too much memory"); }

/* llb_cache_map's parts. */
int cache_deps_exec(const Pb__Op *op, struct arena *a, struct llb_cache_map *ret, struct err *e);
int cache_deps_file(const Pb__Op *op, struct arena *a, struct llb_cache_map *ret, struct err *e);
#endif
