/* The index of a tree: entries in path order in an array with a gap.
 *
 * Whoever keeps an index up to date goes through the tree in order (the receiver of a file sync), so a change is next to
 * the last one and moving the gap there is nearly free; looking up is binary search.
 * 1. Paths are unique and strictly increasing; entries are owned by the index and stay where they are until replaced.
 * 2. What is below a directory lies right behind it. */
#include "tree/internal.h"

#include <string.h>

struct tree_index *tree_index_new(void)
{
	struct tree_index *x = xnew(struct tree_index);
	x->root = (struct tree_entry){.path = xstrdup(""), .mode = TREE_DIR | 0755};
	return x;
}

static void entry_free(struct tree_entry *t)
{
	tree_entry_fini(t);
	free(t);
}

void tree_index_free(struct tree_index *x)
{
	if (!x) return;
	for (size_t i = 0; i < x->n; i++) entry_free(tree_index_at(x, i));
	free(x->v);
	tree_entry_fini(&x->root);
	free(x);
}

size_t tree_index_count(const struct tree_index *x) { return x->n; }
struct tree_entry *tree_index_at(const struct tree_index *x, size_t i) { return x->v[i < x->gap ? i : i + x->cap - x->n]; }

size_t tree_index_lower(const struct tree_index *x, const char *path)
{
	size_t lo = 0, hi = x->n;
	if (x->gap && x->gap == x->n && tree_path_cmp(tree_index_at(x, x->n - 1)->path, path) < 0) return x->n; /* in order */
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (tree_path_cmp(tree_index_at(x, mid)->path, path) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct tree_entry *tree_index_find(const struct tree_index *x, const char *path)
{
	size_t i = tree_index_lower(x, path);
	if (i == x->n) return NULL;
	struct tree_entry *t = tree_index_at(x, i);
	return strcmp(t->path, path) == 0 ? t : NULL;
}

static void move_gap(struct tree_index *x, size_t to)
{
	size_t gap_n = x->cap - x->n;
	if (to < x->gap)
		memmove(x->v + to + gap_n, x->v + to, (x->gap - to) * sizeof *x->v);
	else if (to > x->gap)
		memmove(x->v + x->gap, x->v + x->gap + gap_n, (to - x->gap) * sizeof *x->v);
	x->gap = to;
}

static void grow(struct tree_index *x)
{
	if (x->n < x->cap) return;
	move_gap(x, x->n);
	x->cap = x->cap ? x->cap * 2 : 64;
	x->v = xreallocarray(x->v, x->cap, sizeof *x->v);
}

/* Drop entries i.. that lie below path. */
static void remove_below(struct tree_index *x, size_t i, const char *path)
{
	size_t len = strlen(path);
	move_gap(x, i);
	while (x->gap < x->n) {
		struct tree_entry *t = tree_index_at(x, x->gap);
		if (len && (strncmp(t->path, path, len) != 0 || t->path[len] != '/')) return;
		entry_free(t);
		x->n--; /* the gap takes its place */
	}
}

struct tree_entry *tree_index_put(struct tree_index *x, const struct tree_entry *t)
{
	size_t i = tree_index_lower(x, t->path);
	struct tree_entry *old = i < x->n ? tree_index_at(x, i) : NULL;
	x->dirty = true;
	if (old && strcmp(old->path, t->path) == 0) {
		if (tree_is_dir(old) && !tree_is_dir(t)) remove_below(x, i + 1, t->path);
		struct tree_entry copy;
		tree_entry_copy(&copy, t);
		tree_entry_fini(old);
		*old = copy;
		return old;
	}
	struct tree_entry *fresh = xnew(struct tree_entry);
	tree_entry_copy(fresh, t);
	grow(x);
	move_gap(x, i);
	x->v[x->gap++] = fresh;
	x->n++;
	return fresh;
}

bool tree_index_remove(struct tree_index *x, const char *path)
{
	x->dirty = true;
	if (!*path) {
		bool any = x->n > 0;
		remove_below(x, 0, "");
		return any;
	}
	size_t i = tree_index_lower(x, path);
	if (i == x->n || strcmp(tree_index_at(x, i)->path, path) != 0) return false;
	remove_below(x, i + 1, path);
	move_gap(x, i);
	entry_free(tree_index_at(x, i));
	x->n--;
	return true;
}

bool tree_index_dirty(const struct tree_index *x) { return x->dirty; }

struct tree_index *tree_index_copy(const struct tree_index *x)
{
	struct tree_index *y = tree_index_new();
	y->scanned = x->scanned;
	tree_entry_fini(&y->root);
	tree_entry_copy(&y->root, &x->root);
	for (size_t i = 0; i < x->n; i++) tree_index_put(y, tree_index_at(x, i));
	y->dirty = x->dirty;
	return y;
}
