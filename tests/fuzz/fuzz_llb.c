/* Messages of peers: the first byte says which one. A Definition is loaded, its operations keyed, printed and marshalled again.
 */
#include "fuzz.h"
#include "llb/llb.h"
#include "proto/control.pb-c.h"
#include "proto/gateway.pb-c.h"
#include "proto/ops.pb-c.h"
#include "wire/wire.h"

#include <string.h>

enum { ARENA_MAX = 128 << 20 };

static const ProtobufCMessageDescriptor *const others[] = {
	&control__solve_request__descriptor,  &control__status_request__descriptor,        &control__prune_request__descriptor,
	&gateway__solve_request__descriptor,  &gateway__new_container_request__descriptor, &gateway__exec_message__descriptor,
	&gateway__return_request__descriptor,
};

static void key_source(const struct llb_node *n, struct arena *a)
{
	struct llb_source s;
	struct buf key = BUF_INIT;
	if (n->op->op_case != PB__OP__OP_SOURCE || llb_source_parse(n->op->source, n->op->platform, a, &s, NULL) < 0) return;
	if (s.scheme == LLB_LOCAL) llb_source_local_key(&s, "session", &key);
	if (s.scheme == LLB_HTTP) llb_source_http_key(&s, "f", "sha256:00", "", &key);
	if (s.scheme == LLB_GIT) llb_source_git_key(&s, "0123456789012345678901234567890123456789", "refs/heads/x", &key);
	if (s.scheme == LLB_IMAGE_BLOB || s.scheme == LLB_OCI_BLOB) llb_source_blob_key(&s, &key);
	buf_fini(&key);
}

static void look_at(const struct llb_node *n, struct arena *a)
{
	struct llb_cache_map map;
	struct buf out = BUF_MAX(32 << 20);
	key_source(n, a);
	llb_cache_map(n->op, a, &map, NULL);
	llb_cache_text(n->op, &out, NULL);
	buf_reset(&out);
	llb_marshal_op(n->op, &out);
	llb_node_description(n, LLB_CUSTOM_NAME);
	llb_op_outputs(n->op);
	buf_fini(&out);
}

static void definition(struct fuzz_in in, struct arena *a)
{
	struct err e = ERR_INIT;
	struct llb_graph *g;
	Pb__Definition *def = wire_unpack_as(Pb__Definition, pb__definition, in.p, in.n, a, &e);
	struct arena *own = arena_new(ARENA_MAX);
	if (def && llb_graph_load(def, own, NULL, &g, &e) >= 0) {
		for (size_t i = 0; i < g->n_nodes && i < 100; i++) {
			Pb__Location **l;
			look_at(&g->nodes[i], own);
			llb_graph_locations(g, &g->nodes[i], &l);
			if (g->nodes[i].op->n_inputs && g->nodes[i].inputs[0].node >= i) bug("an input behind its user");
		}
		llb_graph_redigest(g, NULL);
	}
	if (!def && !err_is_set(&e)) bug("failed without an error");
	arena_free(own);
	err_fini(&e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	uint8_t kind = fuzz_byte(&in);
	struct arena *a = arena_new(ARENA_MAX);
	if (kind < 128) {
		definition(in, a);
	} else {
		struct err e = ERR_INIT;
		const ProtobufCMessage *m = wire_unpack(others[kind % array_len(others)], in.p, in.n, a, &e);
		struct buf out = BUF_MAX(64 << 20);
		if (m) wire_pack(m, &out);
		if (m) llb_marshal(m, &out);
		buf_fini(&out);
		err_fini(&e);
	}
	arena_free(a);
	return 0;
}
