#ifndef BASE_VEC_H
#define BASE_VEC_H
/* Typed growing arrays: `VEC(struct foo) foos = {0}; vec_push(&foos, f); vec_fini(&foos);`, and string vectors. Any thread. */
#include "base/mem.h"
#include <string.h>

#define VEC(T)                 \
	struct {               \
		T *v;          \
		size_t n, cap; \
	}
#define vec_grow(vec, want)                                                                   \
	do {                                                                                  \
		if ((want) > (vec)->cap) {                                                    \
			(vec)->cap = max_of((size_t)(want), (vec)->cap ? (vec)->cap * 2 : 4); \
			(vec)->v = xreallocarray((vec)->v, (vec)->cap, sizeof *(vec)->v);     \
		}                                                                             \
	} while (0)
#define vec_push(vec, x)                     \
	do {                                 \
		vec_grow(vec, (vec)->n + 1); \
		(vec)->v[(vec)->n++] = (x);  \
	} while (0)
/* Append a zeroed element and point at it. */
#define vec_add(vec)                                              \
	({                                                        \
		vec_grow(vec, (vec)->n + 1);                      \
		memset(&(vec)->v[(vec)->n], 0, sizeof *(vec)->v); \
		&(vec)->v[(vec)->n++];                            \
	})
#define vec_remove(vec, i)                                                                        \
	do {                                                                                      \
		memmove(&(vec)->v[i], &(vec)->v[(i) + 1], ((vec)->n - (i)-1) * sizeof *(vec)->v); \
		(vec)->n--;                                                                       \
	} while (0)
#define vec_fini(vec)                      \
	do {                               \
		free((vec)->v);            \
		(vec)->v = NULL;           \
		(vec)->n = (vec)->cap = 0; \
	} while (0)

/* A vector of owned strings; v is NULL-terminated once anything was added, so it serves as argv and environ. */
struct strvec {
	char **v;
	size_t n, cap;
};
#define _cleanup_strvec_ __attribute__((cleanup(strvec_fini)))
void strvec_add(struct strvec *sv, const char *s); /* copied */
void strvec_take(struct strvec *sv, char *s);      /* owned from here on */
void strvec_addf(struct strvec *sv, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void strvec_copy(struct strvec *dst, char *const *v, size_t n); /* appends copies */
void strvec_fini(struct strvec *sv);
ptrdiff_t strvec_find(const struct strvec *sv, const char *s); /* index, -1 */
void strvec_sort(struct strvec *sv);                           /* bytewise */
char *strvec_join(const struct strvec *sv, const char *sep);   /* heap */
/* Environment lists of "K=V": the value of k or NULL; set replaces in place or appends. */
const char *strvec_env_get(const struct strvec *sv, const char *k);
void strvec_env_set(struct strvec *sv, const char *k, const char *v);
#endif
