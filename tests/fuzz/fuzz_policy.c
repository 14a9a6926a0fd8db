/* A source policy against a source. Input: the source's identifier, a newline, the Policy's bytes. */
#include "fuzz.h"
#include "llb/llb.h"
#include "policy/policy.h"
#include "wire/wire.h"

enum { IDENTIFIER_MAX = 1024 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size}, name = fuzz_until(&in, "\n");
	struct arena *a = arena_new(64 << 20), *own = arena_new(0);
	struct err e = ERR_INIT;
	Policy__Policy *p = wire_unpack_as(Policy__Policy, policy__policy, in.p, in.n, a, &e);
	name.n = min_of(name.n, (size_t)IDENTIFIER_MAX);
	_cleanup_free_ char *identifier = fuzz_text(name);
	Pb__SourceOp op = PB__SOURCE_OP__INIT;
	op.identifier = identifier;
	if (p && policy_validate(p, NULL) >= 0) {
		const Policy__Policy *all[] = {p};
		if (policy_apply(all, 1, &op, own, &e) < 0 && !err_is_set(&e)) bug("failed without an error");
	}
	arena_free(a);
	arena_free(own);
	err_fini(&e);
	return 0;
}
