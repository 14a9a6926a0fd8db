/* The solver on random graphs, against an oracle.
 *
 *   sim [--seed N] [--count N] [-v]        default: seeds 1 to 1000; a failure prints its seed and what was wrong, and aborts
 *
 * A seed makes a world: vertices with inputs, outputs, selectors, inputs that may be matched by content, vertices of the same
 * operation, ones that fail, that ignore the cache, that have no key. Passes follow one another on one database (cold, then
 * warm; between them snapshots are removed now and then). In a pass several builds come at random moments, each with a part of
 * the graph, want some of it, lose interest, or leave. Operations answer later, in random order; one that was told to end may
 * end, or finish all the same. Everything is random by the seed alone: the same seed gives the same run.
 *
 * The oracle: a result's value is a pure function of the operation and the values of its inputs. Checked:
 *  1. who waits is told, once; when nothing runs any more nobody waits in vain;
 *  2. a result has the value that the oracle says; an error comes only where something beneath (or the vertex) fails;
 *  3. an operation runs only when its inputs are there, and they have their right values;
 *  4. never more steps at once than the limit;
 *  5. single flight: no two steps run at once that have the same operation on inputs of the same keys (unless told to end, or
 * one ignores the cache);
 *  6. a second pass of the same graph, when nothing failed, was removed or left, runs nothing but what has no key or ignores
 * the cache;
 *  7. at the end all operations are freed, no snapshot is held.
 * The solver's idea was first tried on a model like this one, so the model here is of the other side: builds and operations. */
#include "solve/solve.h"

#include <fcntl.h>

#include <stdio.h>
#include <string.h>
#include <uv.h>

enum { VERTICES_MAX = 28, INPUTS_MAX = 3, BUILDS_MAX = 4, PASSES = 3, TURNS_MAX = 200000 };

static uint64_t random_state;
static uint64_t scramble(uint64_t z) /* splitmix64 */
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}
static uint64_t next_random(void) { return scramble(random_state += 0x9e3779b97f4a7c15u); }
static unsigned dice(unsigned n) { return (unsigned)(next_random() % n); }
static bool one_in(unsigned n) { return dice(n) == 0; }

static uint64_t mix(uint64_t a, uint64_t b) { return scramble(scramble(a + 0x9e3779b97f4a7c15u) ^ (b + 0x632be59bd9b4e019u)); }

/* ---- the world ---- */

struct vertex {
	char digest[DIGEST_STR];
	uint64_t op; /* what the operation is: vertices may share it */
	size_t n_in, n_out;
	struct {
		size_t from, output;
		bool content, selector;
	} in[INPUTS_MAX];
	bool fails, ignore_cache, keyless, takes_slot, dull; /* dull: one of few values, so that contents are alike */
	uint64_t value[2], key;                              /* key: equal for vertices that must share a run */
	bool may_fail, volatile_;                            /* it, or something beneath it */
};

enum what { MAP, CONTENT, EXEC };
struct running {
	enum what what;
	struct op *op;
	struct solve_node *node;
	size_t input;
	bool cancelled;
};
struct op {
	const struct vertex *v;
};
struct client {
	struct solve_build *build;
	struct {
		struct solve_waiter *waiter;
		const struct vertex *v;
		size_t output;
		bool told;
	} want[3];
	size_t n_want;
	unsigned starts_at; /* moments of the pass */
	int leaves_at;      /* -1: stays */
};

static struct {
	uint64_t seed;
	struct vertex v[VERTICES_MAX];
	size_t n;
	struct loop *loop;
	struct db *db;
	struct snap_store *snaps;
	struct solver *solver;
	size_t limit, execs_now;
	VEC(struct running) running;
	struct client client[BUILDS_MAX];
	size_t n_clients;
	bool quiet; /* nobody leaves, nothing was removed: check 6 holds */
	long ops;   /* alive */
} w;
static struct {
	long graphs, vertices, execs, warm_execs, hits, errors, cancels, late, single;
} total;
static bool verbose;

#define wrong(...)                                                          \
	do {                                                                \
		fprintf(stderr, "seed %llu: ", (unsigned long long)w.seed); \
		bug(__VA_ARGS__);                                           \
	} while (0)

static void oracle(struct vertex *v)
{
	uint64_t x = mix(v->op, v->n_in), key = mix(v->op, 77);
	v->may_fail = v->fails;
	v->volatile_ = v->keyless || v->ignore_cache;
	for (size_t i = 0; i < v->n_in; i++) {
		const struct vertex *from = &w.v[v->in[i].from];
		x = mix(x, from->value[v->in[i].output]);
		key = mix(mix(key, from->key + v->in[i].output), v->in[i].selector);
		v->may_fail |= from->may_fail;
		v->volatile_ |= from->volatile_;
	}
	v->key = key;
	for (size_t o = 0; o < v->n_out; o++) {
		v->value[o] = mix(x, o);
		if (v->dull) v->value[o] %= 3;
	}
}

static void make_vertex(size_t i, unsigned failing)
{
	struct vertex *v = &w.v[i];
	char text[64];
	*v = (struct vertex){.n_out = 1 + one_in(5)};
	snprintf(text, sizeof text, "%llu vertex %zu", (unsigned long long)w.seed, i);
	digest_str_of(text, strlen(text), v->digest);
	v->n_in = i ? dice(min_of(i, (size_t)INPUTS_MAX) + 1) : 0;
	for (size_t k = 0; k < v->n_in; k++) {
		v->in[k].from = one_in(2) && i > 3 ? i - 1 - dice(3) : dice((unsigned)i);
		v->in[k].output = dice((unsigned)w.v[v->in[k].from].n_out);
		v->in[k].content = one_in(3);
		v->in[k].selector = one_in(4);
	}
	/* One of a few operations, or one of its own. What an operation is says everything but the inputs. */
	v->op = one_in(3) ? dice(4) : 1000 + i;
	v->dull = v->op % 2;
	v->takes_slot = v->op % 3;
	v->op = mix(mix(v->op, w.seed), v->n_in * 2 + v->n_out);
	for (size_t k = 0; k < v->n_in; k++) v->op = mix(v->op, (uint64_t)v->in[k].content * 2 + v->in[k].selector);
	v->fails = failing && one_in(failing);
	v->keyless = !v->n_in && one_in(15);
	if (v->keyless) v->op = mix(v->op, i); /* never the same as another */
	v->ignore_cache = one_in(25);
	oracle(v);
}

static void make_world(void)
{
	unsigned failing = one_in(3) ? 8 + dice(20) : 0;
	w.n = 2 + dice(VERTICES_MAX - 2);
	w.limit = one_in(4) ? 0 : 1 + dice(3);
	for (size_t i = 0; i < w.n; i++) make_vertex(i, failing);
}

/* ---- operations ---- */

static void start(enum what what, void *op, struct solve_node *n, size_t input)
{
	struct running r = {what, op, n, input, false};
	vec_push(&w.running, r);
}

static uint64_t value_of(const struct snap *s) { return s ? strtoull(s->description, NULL, 16) : 0; }

static void op_map(void *op, struct solve_node *n) { start(MAP, op, n, 0); }
static void op_content(void *op, struct solve_node *n, size_t input)
{
	const struct vertex *v = ((struct op *)op)->v;
	if (!v->in[input].content) wrong("a content key was asked for where there is none");
	if (value_of(solve_input(n, input)) != w.v[v->in[input].from].value[v->in[input].output])
		wrong("the input has another value");
	start(CONTENT, op, n, input);
}

static void check_single_flight(const struct vertex *v)
{
	if (v->ignore_cache || v->volatile_) return;
	for (size_t i = 0; i < w.running.n; i++) {
		const struct running *r = &w.running.v[i];
		if (r->what != EXEC || r->cancelled || r->op->v->ignore_cache || r->op->v->volatile_) continue;
		if (r->op->v->key == v->key && r->op->v->n_out == v->n_out) wrong("two steps with the same key run at once");
	}
}

static void op_exec(void *op, struct solve_node *n)
{
	const struct vertex *v = ((struct op *)op)->v;
	for (size_t i = 0; i < v->n_in; i++)
		if (value_of(solve_input(n, i)) != w.v[v->in[i].from].value[v->in[i].output])
			wrong("input %zu has another value", i);
	check_single_flight(v);
	start(EXEC, op, n, 0);
	if (v->takes_slot && ++w.execs_now > w.limit && w.limit)
		wrong("%zu steps at once, the limit is %zu", w.execs_now, w.limit);
}

static void op_cancel(void *op, struct solve_node *n)
{
	for (size_t i = 0; i < w.running.n; i++)
		if (w.running.v[i].node == n) w.running.v[i].cancelled = true;
	total.cancels++;
}

static void op_free(void *op)
{
	w.ops--;
	free(op);
}

static const struct solve_op_vt vt_step = {.kind = "step",
					   .map = op_map,
					   .content = op_content,
					   .exec = op_exec,
					   .cancel = op_cancel,
					   .free = op_free,
					   .takes_slot = true},
				vt_free = {.kind = "free",
					   .map = op_map,
					   .content = op_content,
					   .exec = op_exec,
					   .cancel = op_cancel,
					   .free = op_free};

static struct solve_map map_of(const struct vertex *v)
{
	struct solve_map m = {0};
	char text[64], digest[DIGEST_STR];
	snprintf(text, sizeof text, "%llx", (unsigned long long)v->op);
	digest_str_of(text, strlen(text), digest);
	m.digests[m.n_digests++] = v->keyless ? xasprintf("random:%s", digest + 7) : xstrdup(digest);
	m.deps = xcalloc(v->n_in, sizeof *m.deps);
	m.n_deps = v->n_in;
	for (size_t i = 0; i < v->n_in; i++) {
		m.deps[i].content = v->in[i].content;
		if (v->in[i].selector)
			m.deps[i].selector = xstrdup("sha256:5e1ec70000000000000000000000000000000000000000000000000000000000");
	}
	return m;
}

static void answer_exec(struct running *r, struct err *e)
{
	const struct vertex *v = r->op->v;
	struct snap *out[2] = {0};
	if (v->takes_slot) w.execs_now--;
	if (!err_is_set(e) && v->fails) err_set(e, CODE_UNKNOWN, "it fails");
	for (size_t o = 0; o < v->n_out && !err_is_set(e); o++) {
		char text[24];
		if (!v->value[o]) continue; /* scratch */
		snprintf(text, sizeof text, "%llx", (unsigned long long)v->value[o]);
		out[o] = snap_create(w.snaps, NULL, text, NULL);
		if (snap_commit(out[o], e) < 0) wrong("commit: %s", e->msg);
	}
	total.execs++;
	solve_exec_done(r->node, out, e);
}

/* One of the operations under way ends. */
static void answer_one(void)
{
	size_t i = dice((unsigned)w.running.n);
	struct running r = w.running.v[i];
	struct err e = ERR_INIT;
	vec_remove(&w.running, i);
	if (r.cancelled && !one_in(4))
		err_set(&e, CODE_CANCELLED, "told to end");
	else if (r.cancelled)
		total.late++;
	if (r.what == EXEC) {
		answer_exec(&r, &e);
	} else if (r.what == MAP) {
		struct solve_map m = map_of(r.op->v);
		solve_map_done(r.node, &m, &e);
	} else {
		char text[24], digest[DIGEST_STR];
		snprintf(text, sizeof text, "%llx", (unsigned long long)value_of(solve_input(r.node, r.input)));
		digest_str_of(text, strlen(text), digest);
		solve_content_done(r.node, r.input, digest, &e);
	}
}

/* ---- clients ---- */

static void told(void *arg, struct snap *result, const struct err *e)
{
	struct client *c = &w.client[(uintptr_t)arg >> 4];
	size_t k = (uintptr_t)arg & 15;
	const struct vertex *v = c->want[k].v;
	if (c->want[k].told || !c->build || !c->want[k].waiter) wrong("told twice, or after leaving");
	c->want[k].told = true;
	if (e && e->code == CODE_CANCELLED) wrong("a build that nobody cancelled ended with: %s", e->msg);
	if (e && !v->may_fail) wrong("%s, where nothing fails", e->msg);
	if (!e && value_of(result) != v->value[c->want[k].output])
		wrong("the value is %llx, not %llx", (unsigned long long)value_of(result),
		      (unsigned long long)v->value[c->want[k].output]);
	total.errors += e != NULL;
	if (verbose) printf("  client %d want %zu: %s\n", (int)(c - w.client), k, e ? e->msg : "done");
}

static struct solve_node *add(struct client *c, size_t i, struct solve_node **nodes)
{
	const struct vertex *v = &w.v[i];
	__typeof__(*((struct solve_vertex *)0)->inputs) in[INPUTS_MAX];
	if (nodes[i]) return nodes[i];
	for (size_t k = 0; k < v->n_in; k++) {
		in[k].node = add(c, v->in[k].from, nodes);
		in[k].output = v->in[k].output;
	}
	struct op *op = xnew(struct op);
	w.ops++;
	op->v = v;
	struct solve_vertex x = {.digest = v->digest,
				 .name = "v",
				 .ignore_cache = v->ignore_cache,
				 .inputs = (void *)in,
				 .n_inputs = v->n_in,
				 .n_outputs = v->n_out,
				 .vt = v->takes_slot ? &vt_step : &vt_free,
				 .op = op};
	return nodes[i] = solve_add(c->build, &x);
}

static void on_event(void *user, struct prog_event *ev) {}

static void come(struct client *c)
{
	static const struct solve_build_ops ops = {.event = on_event};
	struct solve_node *nodes[VERTICES_MAX] = {0};
	c->build = solve_build_new(w.solver, &ops, c);
	for (size_t k = 0; k < c->n_want; k++) {
		size_t i = (size_t)(c->want[k].v - w.v);
		struct solve_node *n = add(c, i, nodes);
		uintptr_t arg = (uintptr_t)(c - w.client) << 4 | k;
		c->want[k].waiter = solve_want(c->build, n, c->want[k].output, told, (void *)arg);
	}
}

static void lose_interest(struct client *c, size_t k)
{
	solve_waiter_free(c->want[k].waiter);
	c->want[k].waiter = NULL;
}

static void leave(struct client *c)
{
	bool first = one_in(2); /* in either order */
	if (first)
		for (size_t k = 0; k < c->n_want; k++) lose_interest(c, k);
	solve_build_free(c->build);
	if (!first)
		for (size_t k = 0; k < c->n_want; k++) lose_interest(c, k);
	c->build = NULL;
}

static void make_clients(bool calm)
{
	w.n_clients = calm ? 1 : 1 + dice(BUILDS_MAX);
	for (size_t i = 0; i < w.n_clients; i++) {
		struct client *c = &w.client[i];
		*c = (struct client){.n_want = calm ? 1 : 1 + dice(3), .starts_at = i ? dice(30) : 0, .leaves_at = -1};
		for (size_t k = 0; k < c->n_want; k++) {
			c->want[k].v = &w.v[one_in(2) || calm ? w.n - 1 : dice((unsigned)w.n)];
			c->want[k].output = dice((unsigned)c->want[k].v->n_out);
			if (calm) c->want[k].output = 0;
		}
		if (!calm && one_in(3)) c->leaves_at = (int)(c->starts_at + dice(40));
	}
}

/* ---- a pass ---- */

static void turns(int n)
{
	while (n--) uv_run(loop_uv(w.loop), UV_RUN_NOWAIT);
}

static bool clients_act(unsigned moment)
{
	bool later = false;
	for (size_t i = 0; i < w.n_clients; i++) {
		struct client *c = &w.client[i];
		if (moment == c->starts_at) come(c);
		later |= moment < c->starts_at;
		if (c->build && c->leaves_at >= 0 && moment >= (unsigned)c->leaves_at) leave(c);
		if (c->build && !w.quiet && one_in(60)) lose_interest(c, dice((unsigned)c->n_want));
	}
	return later;
}

static void check_told(void)
{
	for (size_t i = 0; i < w.n_clients; i++)
		for (size_t k = 0; w.client[i].build && k < w.client[i].n_want; k++)
			if (w.client[i].want[k].waiter && !w.client[i].want[k].told)
				wrong("nothing runs, and client %zu waits for vertex %zu", i,
				      (size_t)(w.client[i].want[k].v - w.v));
}

/* Answers how many steps ran. */
static long pass(int number, bool calm)
{
	long before = total.execs;
	w.quiet = calm;
	make_clients(calm);
	int idle = 0;
	for (unsigned moment = 0; idle < 20; moment++) {
		if (moment > TURNS_MAX) wrong("does not end");
		bool later = clients_act(moment);
		turns(1 + (int)dice(3));
		if (w.running.n && !one_in(4)) answer_one();
		idle = later || w.running.n ? 0 : idle + 1;
		if (idle == 3 && !calm && one_in(3)) solver_set_parallelism(w.solver, w.limit);
	}
	check_told();
	if (verbose) printf(" pass %d: %zu clients, %ld steps ran\n", number, w.n_clients, total.execs - before);
	for (size_t i = 0; i < w.n_clients; i++)
		if (w.client[i].build) leave(&w.client[i]);
	for (int n = 0; w.ops; n++) { /* what was not wanted any more ends */
		if (n > 10000) wrong("%ld operations are not freed", w.ops);
		turns(2);
		if (w.running.n) answer_one();
	}
	SNAP_EACH(w.snaps, s)
	if (snap_in_use(s)) wrong("a snapshot is held by nobody we know");
	return total.execs - before;
}

static void remove_some(void)
{
	struct err e = ERR_INIT;
	SNAP_EACH(w.snaps, s)
	{
		if (one_in(3) && snap_remove(s, &e) < 0) wrong("remove: %s", e.msg);
	}
	if (one_in(2) && solver_collect(w.solver, &e) < 0) wrong("collect: %s", e.msg);
}

static void run(uint64_t seed)
{
	struct solver_conf conf = {w.loop, w.db, w.snaps, 0};
	w.seed = seed;
	random_state = seed * 0x2545f4914f6cdd1du;
	make_world();
	if (verbose) printf("seed %llu: %zu vertices, limit %zu\n", (unsigned long long)seed, w.n, w.limit);
	conf.max_parallelism = w.limit;
	if (solver_new(&conf, &w.solver, NULL) < 0) wrong("solver_new");
	bool calm = one_in(3);
	const struct vertex *last = &w.v[w.n - 1];
	for (int i = 0; i < PASSES; i++) {
		bool removed = i && !calm && one_in(2);
		if (removed) remove_some();
		long ran = pass(i, calm);
		if (i) total.warm_execs += ran;
		if (i && calm && !last->may_fail && !last->volatile_ && ran) wrong("warm, and %ld steps ran", ran);
	}
	turns(4); /* what was posted */
	solver_free(w.solver);
	total.graphs++;
	total.vertices += (long)w.n;
}

static void open_stores(const char *dir)
{
	_cleanup_free_ char *path = xasprintf("%s/db", dir);
	struct err e = ERR_INIT;
	struct snap_opts o = {.dir = dir, .mode = "native"};
	if (db_open(NULL, path, &w.db, &e) < 0 || snap_store_open(NULL, w.db, &o, &w.snaps, &e) < 0) wrong("%s", e.msg);
}

static void close_stores(void)
{
	SNAP_EACH(w.snaps, s) snap_remove(s, NULL);
	snap_store_close(w.snaps);
	db_close(w.db);
}

int main(int argc, char **argv)
{
	enum { FRESH = 100 }; /* graphs that share a database: what others left must not matter */
	unsigned long long seed = 1, count = 1000;
	char dir[64];
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--seed") && i + 1 < argc)
			seed = strtoull(argv[++i], NULL, 0);
		else if (!strcmp(argv[i], "--count") && i + 1 < argc)
			count = strtoull(argv[++i], NULL, 0);
		else if (!strcmp(argv[i], "-v"))
			verbose = true;
		else
			return fprintf(stderr, "usage: %s [--seed N] [--count N] [-v]\n", argv[0]), 2;
	}
	snprintf(dir, sizeof dir, "%s/slipway-sim.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(dir)) return perror("mkdtemp"), 1;
	w.loop = loop_new();
	for (unsigned long long i = 0; i < count; i++) {
		if (i % FRESH == 0) {
			if (i) close_stores();
			path_remove_all(AT_FDCWD, dir, NULL);
			path_mkdirs(dir, 0700, NULL);
			open_stores(dir);
		}
		run(seed + i);
	}
	if (count) close_stores();
	loop_free(w.loop);
	vec_fini(&w.running);
	path_remove_all(AT_FDCWD, dir, NULL);
	printf("%ld graphs, %ld vertices: %ld steps (%ld of them warm), %ld errors, %ld told to end, %ld of them finished all "
	       "the same\n",
	       total.graphs, total.vertices, total.execs, total.warm_execs, total.errors, total.cancels, total.late);
	return 0;
}
