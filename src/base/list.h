#ifndef BASE_LIST_H
#define BASE_LIST_H
/* Intrusive doubly linked list. A head and an unlinked node point at themselves (list_init). */
#include "base/mem.h"
#include <stdbool.h>

struct list {
	struct list *next, *prev;
};
#define LIST_INIT(l) ((struct list){&(l), &(l)})
static inline void list_init(struct list *l) { l->next = l->prev = l; }
static inline bool list_empty(const struct list *l) { return l->next == l; }
static inline void list_add_tail(struct list *head, struct list *n)
{
	n->prev = head->prev;
	n->next = head;
	head->prev->next = n;
	head->prev = n;
}
static inline void list_add_head(struct list *head, struct list *n) { list_add_tail(head->next, n); }
/* Unlinks and makes n a list of its own: unlinking twice is harmless. */
static inline void list_del(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}
#define list_first(head, T, member) (list_empty(head) ? NULL : container_of((head)->next, T, member))
/* The entry at hand may be unlinked or freed inside the loop. */
#define LIST_EACH(head, T, it, member)                                                                             \
	for (T *it = container_of((head)->next, T, member), *it##_next = container_of(it->member.next, T, member); \
	     &it->member != (head); it = it##_next, it##_next = container_of(it->member.next, T, member))
#endif
