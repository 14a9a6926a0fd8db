/* The generated code against bytes written down by hand, so that a wrong number or type in a .proto shows. */
#include "proto/content.pb-c.h"
#include "proto/control.pb-c.h"
#include "proto/fsutil.pb-c.h"
#include "proto/gateway.pb-c.h"
#include "proto/ops.pb-c.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#define BYTES(s) ((const uint8_t *)(s)), (sizeof(s) - 1)

static void assert_packs(const ProtobufCMessage *m, const uint8_t *want, size_t n)
{
	uint8_t out[512];
	assert_int_equal(protobuf_c_message_get_packed_size(m), n);
	protobuf_c_message_pack(m, out);
	assert_memory_equal(out, want, n);
}

static void test_solve_request(void **state)
{
	static const char wire[] = "\x0a\x02r1" /* Ref */
				   "\x32\x0d"
				   "dockerfile.v0" /* Frontend */
				   "\x3a\x10\x0a\x08"
				   "filename\x12\x04"
				   "a.df"                  /* FrontendAttrs */
				   "\x6a\x07\x0a\x05image" /* Exporters */
				   "\x80\x01\x1e";         /* CompatibilityVersion */
	Control__SolveRequest *r = control__solve_request__unpack(NULL, sizeof wire - 1, (const uint8_t *)wire);
	assert_non_null(r);
	assert_string_equal(r->ref, "r1");
	assert_string_equal(r->frontend, "dockerfile.v0");
	assert_int_equal(r->n_frontendattrs, 1);
	assert_string_equal(r->frontendattrs[0]->key, "filename");
	assert_string_equal(r->frontendattrs[0]->value, "a.df");
	assert_int_equal(r->n_exporters, 1);
	assert_string_equal(r->exporters[0]->type, "image");
	assert_int_equal(r->compatibilityversion, 30);
	assert_string_equal(r->session, ""); /* absent strings are "", never NULL */
	assert_packs(&r->base, BYTES(wire));
	control__solve_request__free_unpacked(r, NULL);
}

static void test_op(void **state)
{
	static const char wire[] = "\x12\x22\x0a\x08\x0a\x02id\x62\x02\x00\x07" /* exec.meta: args, validExitCodes packed */
				   "\x12\x16\x1a\x01/\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xa2\x01\x05\x0a\x01k\x10\x02"
				   "\x5a\x00"; /* constraints */
	Pb__Op *op = pb__op__unpack(NULL, sizeof wire - 1, (const uint8_t *)wire);
	assert_non_null(op);
	assert_int_equal(op->op_case, PB__OP__OP_EXEC);
	assert_int_equal(op->exec->meta->n_validexitcodes, 2);
	assert_int_equal(op->exec->meta->validexitcodes[1], 7);
	assert_int_equal(op->exec->mounts[0]->output, -1);
	assert_int_equal(op->exec->mounts[0]->cacheopt->sharing, PB__CACHE_SHARING_OPT__LOCKED);
	assert_non_null(op->constraints);
	assert_packs(&op->base, BYTES(wire));
	pb__op__free_unpacked(op, NULL);
}

static void test_packet(void **state)
{
	Fsutil__Stat st = FSUTIL__STAT__INIT;
	st.path = "d";
	st.mode = 0x800001ed;
	st.modtime = 1;
	Fsutil__Packet p = FSUTIL__PACKET__INIT;
	p.type = FSUTIL__PACKET__PACKET_TYPE__PACKET_STAT;
	p.stat = &st;
	assert_packs(&p.base, BYTES("\x12\x0b\x0a\x01"
				    "d\x10\xed\x83\x80\x80\x08\x30\x01"));

	Fsutil__Packet *q = fsutil__packet__unpack(NULL, 9, (const uint8_t *)"\x08\x02\x18\x05\x22\x03xyz");
	assert_non_null(q);
	assert_int_equal(q->type, FSUTIL__PACKET__PACKET_TYPE__PACKET_DATA);
	assert_int_equal(q->id, 5);
	assert_int_equal(q->data.len, 3);
	assert_null(q->stat);
	fsutil__packet__free_unpacked(q, NULL);
}

/* The full names are what reflection and the type URLs show; the C prefix must not leak into them. */
static void test_names(void **state)
{
	assert_string_equal(control__solve_request__descriptor.name, "moby.buildkit.v1.SolveRequest");
	assert_string_equal(gateway__solve_request__descriptor.name, "moby.buildkit.v1.frontend.SolveRequest");
	assert_string_equal(content__info__descriptor.name, "containerd.services.content.v1.Info");
	assert_string_equal(google__any__descriptor.name, "google.protobuf.Any");
	assert_string_equal(pb__meta__descriptor.fields[5].name, "extraHosts");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_solve_request),
		cmocka_unit_test(test_op),
		cmocka_unit_test(test_packet),
		cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
