/* The stream from the daemon goes through a pipe to a job that posts it with libcurl; the engine's answer is a list of JSON
 * messages, of which an error counts.
 *  1. The pipe's end for writing belongs to the session, that for reading to the job.
 *  2. The job ends when the engine has answered; a failure closes the pipe, so the daemon's export fails too.
 * Source: Docker Engine API v1.41, POST /images/load and GET /info. */
#include "cli/load.h"
#include "drive/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

enum { ANSWER_MAX = 1 << 20, INFO_TIMEOUT_S = 5 };

struct load {
	struct loop_job job;
	struct cli *cli;
	struct progress *progress;
	struct drive_engine engine; /* docker's current context */
	int fds[2]; /* read, write; -1: given away */
	bool started, done;
	bool began; /* the first bytes are there */
	struct buf answer;
	struct err err;
};

/* ---- the engine ---- */
static size_t take_answer(char *p, size_t size, size_t n, void *arg)
{
	struct buf *b = arg;
	buf_add(b, p, size * n); /* past the maximum the rest is dropped */
	return size * n;
}

static CURL *open_curl(struct load *l, const char *path, struct err *e)
{
	CURL *h = drive_engine_curl(&l->engine, path, e);
	if (!h) return NULL;
	curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, take_answer);
	curl_easy_setopt(h, CURLOPT_WRITEDATA, &l->answer);
	return h;
}

static int perform(struct load *l, CURL *h, struct err *e)
{
	long status = 0;
	CURLcode rv = curl_easy_perform(h);
	curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &status);
	if (rv != CURLE_OK)
		return err_set(e, CODE_UNAVAILABLE, "failed to connect to the docker API at %s: %s", l->engine.host,
			       curl_easy_strerror(rv));
	return status == 200 ? 0 : drive_engine_status(status, buf_str(&l->answer), l->answer.n, e);
}

static bool keeps_by_containerd(json_t *info)
{
	size_t i;
	json_t *row;
	json_array_foreach(json_object_get(info, "DriverStatus"), i, row)
	{
		const char *k = json_string_value(json_array_get(row, 0)), *v = json_string_value(json_array_get(row, 1));
		if (str_eq(k, "driver-type") && str_eq(v, "io.containerd.snapshotter.v1")) return true;
	}
	return false;
}

static int ask_info(struct load *l, bool *ret_oci, struct err *e)
{
	CURL *h = open_curl(l, "/info", e);
	if (!h) return -1;
	curl_easy_setopt(h, CURLOPT_TIMEOUT, (long)INFO_TIMEOUT_S);
	int rv = perform(l, h, e);
	curl_easy_cleanup(h);
	if (rv < 0) return -1;
	json_t *info = json_loadb(buf_str(&l->answer), l->answer.n, 0, NULL);
	*ret_oci = keeps_by_containerd(info);
	json_decref(info);
	buf_reset(&l->answer);
	return 0;
}

struct load *load_new(struct cli *c, struct progress *p, bool *ret_oci, struct err *e)
{
	struct load *l = xnew(struct load);
	l->cli = c;
	l->progress = p;
	l->answer = BUF_MAX(ANSWER_MAX);
	l->fds[0] = l->fds[1] = -1;
	if (drive_engine_find(NULL, &l->engine, e) == 0 && ask_info(l, ret_oci, e) == 0) return l;
	load_free(l);
	return NULL;
}

/* ---- the job ---- */
static size_t give_body(char *p, size_t size, size_t n, void *arg)
{
	struct load *l = arg;
	for (;;) {
		ssize_t got = read(l->fds[0], p, size * n);
		if (got >= 0) return (size_t)got;
		if (errno != EINTR) return CURL_READFUNC_ABORT;
	}
}

static void find_error(struct load *l)
{
	const char *p = buf_str(&l->answer), *end = p + l->answer.n;
	while (p < end && !err_is_set(&l->err)) {
		json_error_t why;
		json_t *o = json_loadb(p, (size_t)(end - p), JSON_DISABLE_EOF_CHECK, &why);
		if (!o) break;
		const char *m = json_string_value(json_object_get(o, "error"));
		if (m) err_set(&l->err, CODE_UNKNOWN, "%s", m);
		json_decref(o);
		p += max_of(why.position, 1);
	}
}

static void begin(void *arg)
{
	struct load *l = arg;
	l->began = true;
	progress_step(l->progress, &(struct progress_step){"importing to docker", "importing to docker", NULL, false});
}

/* The daemon opens the stream early and writes when the image is made: the step begins with the first bytes, as in buildx. */
static bool wait_for_bytes(struct load *l)
{
	struct pollfd p = {.fd = l->fds[0], .events = POLLIN};
	while (poll(&p, 1, -1) < 0 && errno == EINTR) {
	}
	return p.revents & POLLIN;
}

static void load_work(struct loop_job *j)
{
	struct load *l = container_of(j, struct load, job);
	if (!wait_for_bytes(l)) { /* the build failed */
		close(take_fd(l->fds[0]));
		return;
	}
	loop_post(l->cli->loop, begin, l);
	CURL *h = open_curl(l, "/images/load?quiet=1", &l->err);
	if (h) {
		struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/x-tar");
		headers = curl_slist_append(headers, "Expect:");
		headers = curl_slist_append(headers, "Transfer-Encoding: chunked");
		curl_easy_setopt(h, CURLOPT_POST, 1L);
		curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers);
		curl_easy_setopt(h, CURLOPT_READFUNCTION, give_body);
		curl_easy_setopt(h, CURLOPT_READDATA, l);
		if (perform(l, h, &l->err) == 0) find_error(l);
		curl_easy_cleanup(h);
		curl_slist_free_all(headers);
	}
	close(take_fd(l->fds[0]));
}

static void load_done(struct loop_job *j)
{
	struct load *l = container_of(j, struct load, job);
	l->done = true;
	if (l->began)
		progress_step(l->progress,
			      &(struct progress_step){"importing to docker", "importing to docker", l->err.msg, true});
}

/* ---- the session's side ---- */
static int sink_open(void *arg, char *const *md, size_t n_md, int *ret_fd, struct err *e)
{
	struct load *l = arg;
	if (l->started) return err_set(e, CODE_FAILED_PRECONDITION, "the output was sent already");
	if (pipe2(l->fds, O_CLOEXEC) < 0) return err_sys(e, errno, "pipe");
	l->started = true;
	l->job.work = load_work;
	l->job.done = load_done;
	loop_job_start(l->cli->loop, &l->job, LOOP_NET);
	*ret_fd = take_fd(l->fds[1]);
	return 1;
}

void load_sink(struct load *l, struct sess_client_output *ret)
{
	*ret = (struct sess_client_output){.open = sink_open, .arg = l};
}

int load_finish(struct load *l, struct err *e)
{
	if (!l->started) return 0;
	cli_wait(l->cli, &l->done);
	return err_is_set(&l->err) ? err_move(e, &l->err) : 0;
}

void load_free(struct load *l)
{
	if (!l) return;
	if (l->started) cli_wait(l->cli, &l->done);
	close_fd(&l->fds[0]);
	close_fd(&l->fds[1]);
	buf_fini(&l->answer);
	err_fini(&l->err);
	drive_engine_fini(&l->engine);
	free(l);
}
