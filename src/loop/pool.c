/* Pools: N slots and a waiting list. A free slot goes to the group that holds fewest, so that one build with many steps cannot
 * starve another; among those that hold the same number, to the one whose turn is oldest; within a group, first come first
 * served.
 *
 *  1. All waiting slots of a group have the same turn: taken when its first one came, and anew whenever a slot of the group is
 *     released. So a group that was just served stands behind everybody who waits.
 *  2. Nobody starves: a waiting group is passed only by older turns and by those that hold less. */
#include "loop/internal.h"

struct holder {
	const void *group;
	size_t n;
};

void loop_pool_init(struct loop_pool *p, size_t limit)
{
	p->limit = limit;
	p->used = 0;
	p->turns = 0;
	list_init(&p->waiting);
	list_init(&p->holding);
}

static bool has_room(const struct loop_pool *p) { return !p->limit || p->used < p->limit; }

static size_t held_by(const struct loop_pool *p, const void *group)
{
	size_t n = 0;
	for (struct list *i = p->holding.next; i != &p->holding; i = i->next)
		n += container_of(i, struct loop_slot, link)->group == group;
	return n;
}

static struct loop_slot *next_waiting(struct loop_pool *p)
{
	struct loop_slot *best = NULL;
	size_t best_n = 0;
	LIST_EACH(&p->waiting, struct loop_slot, s, link)
	{
		size_t n = held_by(p, s->group);
		if (best && (n > best_n || (n == best_n && s->turn >= best->turn))) continue;
		best = s;
		best_n = n;
	}
	return best;
}

static uint64_t turn_of(struct loop_pool *p, const void *group)
{
	LIST_EACH(&p->waiting, struct loop_slot, s, link)
	if (s->group == group) return s->turn;
	return ++p->turns;
}

static void to_the_end(struct loop_pool *p, const void *group)
{
	uint64_t turn = ++p->turns;
	LIST_EACH(&p->waiting, struct loop_slot, s, link)
	if (s->group == group) s->turn = turn;
}

size_t loop_pool_waiting(const struct loop_pool *p)
{
	size_t n = 0;
	for (const struct list *i = p->waiting.next; i != &p->waiting; i = i->next) n++;
	return n;
}

static void grant(struct loop_pool *p, struct loop_slot *s)
{
	list_del(&s->link);
	list_add_tail(&p->holding, &s->link);
	p->used++;
	s->held = true;
	s->granted(s);
}

static void admit(struct loop_pool *p)
{
	while (!list_empty(&p->waiting) && has_room(p)) grant(p, next_waiting(p));
}

void loop_pool_set_limit(struct loop_pool *p, size_t limit)
{
	p->limit = limit;
	admit(p);
}

void loop_slot_want(struct loop_pool *p, struct loop_slot *s)
{
	s->pool = p;
	s->held = false;
	list_init(&s->link);
	if (list_empty(&p->waiting) && has_room(p)) {
		grant(p, s);
		return;
	}
	s->turn = turn_of(p, s->group);
	list_add_tail(&p->waiting, &s->link);
}

void loop_slot_release(struct loop_slot *s)
{
	struct loop_pool *p = s->pool;
	if (!p) return;
	list_del(&s->link);
	s->pool = NULL;
	if (!s->held) return;
	s->held = false;
	p->used--;
	to_the_end(p, s->group);
	admit(p);
}
