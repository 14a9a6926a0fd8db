/* SSH agents for containers: a socket of ours whose connections are bridged to the client's agent.
 * Source: BuildKit session/sshforward/ssh.go; reference 02 §8. */
#include "sess/bridge.h"
#include "sess/internal.h"

#include <errno.h>
#include <fcntl.h>

struct sess_ssh {
	struct sess *s;
	uv_pipe_t listener;
	char *id, *dir, *path;
};

static void forward(struct sess *s, const char *id, struct bridge *b)
{
	static const struct wire_call_ops none = {0};
	struct wire_md md = {"buildkit.ssh.id", str_empty(id) ? "default" : id};
	struct wire_call *call = sess_open(s, METHOD_SSH_FORWARD_AGENT, &md, 1, 0, &none, NULL, NULL);
	if (call)
		bridge_start(b, call);
	else
		bridge_drop(b);
}

void sess_ssh_forward(struct sess *s, const char *id, int fd)
{
	struct bridge *b = bridge_new(s->loop, false);
	if (bridge_open(b, fd, NULL) == 0)
		forward(s, id, b);
	else
		bridge_drop(b);
}

static void on_connection(uv_stream_t *st, int status)
{
	struct sess_ssh *l = st->data;
	if (status < 0) return;
	struct bridge *b = bridge_new(l->s->loop, false);
	if (bridge_accept(b, st) == 0)
		forward(l->s, l->id, b);
	else
		bridge_drop(b);
}

static void on_listener_closed(uv_handle_t *h)
{
	struct sess_ssh *l = h->data;
	sess_unref(l->s);
	free(l->id);
	free(l->dir);
	free(l->path);
	free(l);
}

static void remove_files(struct sess_ssh *l)
{
	unlink(l->path);
	rmdir(l->dir);
}

static int listen_at(struct sess_ssh *l, uid_t uid, gid_t gid, mode_t mode, struct err *e)
{
	int rc = uv_pipe_bind(&l->listener, l->path);
	if (rc == 0) rc = uv_listen((uv_stream_t *)&l->listener, 64, on_connection);
	if (rc < 0) return err_set(e, CODE_UNKNOWN, "listen on %s: %s", l->path, uv_strerror(rc));
	if (chmod(l->path, mode & 0777) < 0) return err_sys(e, errno, "chmod %s", l->path);
	if (chown(l->path, uid, gid) < 0) return err_sys(e, errno, "chown %s", l->path);
	return chmod(l->dir, 0711) < 0 ? err_sys(e, errno, "chmod %s", l->dir) : 0;
}

int sess_ssh_listen(struct sess *s, const char *id, uid_t uid, gid_t gid, mode_t mode, struct sess_ssh **ret, struct err *e)
{
	const char *tmp = getenv("TMPDIR");
	_cleanup_free_ char *dir = xasprintf("%s/.buildkit-ssh-sockXXXXXX", str_empty(tmp) ? "/tmp" : tmp);
	if (!mkdtemp(dir)) return err_sys(e, errno, "create %s", dir);
	struct sess_ssh *l = xnew(struct sess_ssh);
	l->s = sess_ref(s);
	l->id = xstrdup(id);
	l->path = xasprintf("%s/ssh_auth_sock", dir);
	l->dir = take_ptr(dir);
	if (uv_pipe_init(loop_uv(s->loop), &l->listener, 0) < 0) bug("uv_pipe_init");
	l->listener.data = l;
	if (listen_at(l, uid, gid, mode, e) < 0) {
		sess_ssh_stop(l);
		return -1;
	}
	*ret = l;
	return 0;
}

const char *sess_ssh_path(const struct sess_ssh *l) { return l->path; }

void sess_ssh_stop(struct sess_ssh *l)
{
	if (!l) return;
	remove_files(l);
	uv_close((uv_handle_t *)&l->listener, on_listener_closed);
}
