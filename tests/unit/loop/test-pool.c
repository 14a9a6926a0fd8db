/* Pools of slots: the limit, turns between groups, changing the limit while slots are held and waited for. */
#include "loop/loop.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

enum { MANY = 20 };
static char order[256];
static size_t n_order;

struct step {
	struct loop_slot slot;
	char name;
};

static void granted(struct loop_slot *s)
{
	order[n_order++] = container_of(s, struct step, slot)->name;
	order[n_order] = 0;
}

static void want(struct loop_pool *p, struct step *s, char name)
{
	static const char groups[256];
	*s = (struct step){.slot = {.granted = granted, .group = &groups[(unsigned char)name]}, .name = name};
	loop_slot_want(p, &s->slot);
}

static struct step *oldest(struct loop_pool *p) { return container_of(p->holding.next, struct step, slot.link); }

static void start(struct loop_pool *p, size_t limit)
{
	loop_pool_init(p, limit);
	n_order = 0;
	order[0] = 0;
}

/* Build A has 20 steps, then B comes with one: it gets the next slot that comes free. */
static void test_second(void **state)
{
	struct loop_pool p;
	struct step a[MANY], b;
	start(&p, 1);
	for (int i = 0; i < MANY; i++) want(&p, &a[i], 'a');
	want(&p, &b, 'b');
	assert_string_equal(order, "a");
	loop_slot_release(&oldest(&p)->slot);
	assert_string_equal(order, "ab");
	while (p.used) loop_slot_release(&oldest(&p)->slot);
	assert_string_equal(order, "abaaaaaaaaaaaaaaaaaaa");
}

/* Groups take turns however many steps each has, with any limit. */
static void test_turns(void **state)
{
	struct loop_pool p;
	struct step a[8], b[4], c[2];
	start(&p, 2);
	for (int i = 0; i < 8; i++) want(&p, &a[i], 'a');
	for (int i = 0; i < 4; i++) want(&p, &b[i], 'b');
	for (int i = 0; i < 2; i++) want(&p, &c[i], 'c');
	while (p.used) loop_slot_release(&oldest(&p)->slot);
	assert_memory_equal(order, "aa", 2); /* nobody else was there */
	/* While all three wait, any window of three grants has all of them. */
	for (size_t i = 2; i + 3 <= 8; i++)
		for (const char *g = "abc"; *g; g++) assert_non_null(memchr(order + i, *g, 3));
	assert_int_equal(n_order, 14);
}

/* Four builds that want one slot after the other cannot keep a fifth from its second. */
static void test_no_starving(void **state)
{
	struct loop_pool p;
	struct step a[2], b[4];
	start(&p, 1);
	want(&p, &a[0], 'a');
	want(&p, &a[1], 'a');
	for (int i = 0; i < 4; i++) want(&p, &b[i], (char)('w' + i));
	for (int i = 0; i < 12; i++) {
		struct step *s = oldest(&p);
		char name = s->name;
		loop_slot_release(&s->slot);
		if (name != 'a') want(&p, s, name);
	}
	assert_string_equal(order, "awxyzawxyzwxy");
	while (p.used) loop_slot_release(&oldest(&p)->slot);
}

static void test_limit(void **state)
{
	struct loop_pool p;
	struct step a[8];
	start(&p, 4);
	for (int i = 0; i < 8; i++) want(&p, &a[i], 'a');
	assert_int_equal(p.used, 4);
	loop_pool_set_limit(&p, 2); /* who runs goes on; nobody new before fewer than two run */
	assert_int_equal(p.used, 4);
	for (size_t used = 4; used > 2;) {
		loop_slot_release(&oldest(&p)->slot);
		assert_int_equal(p.used, --used);
	}
	loop_slot_release(&oldest(&p)->slot);
	assert_int_equal(p.used, 2);
	loop_pool_set_limit(&p, 3);
	assert_int_equal(p.used, 3);
	loop_slot_release(&a[7].slot); /* gives up waiting */
	loop_pool_set_limit(&p, 0);
	assert_int_equal(p.used, 4);
	assert_true(list_empty(&p.waiting));
	while (p.used) loop_slot_release(&oldest(&p)->slot);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_second), cmocka_unit_test(test_turns),
					   cmocka_unit_test(test_no_starving), cmocka_unit_test(test_limit)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
