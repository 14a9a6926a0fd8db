"""Builders in containers, against an engine of the test's own: it keeps what it is asked to create, and runs the processes that a container's
exec starts as plain processes here (`buildctl` against a daemon of the test's), with the framing and the raw connection of Docker's API.
A real dockerd is not needed; what one does differs in what the fake does not have, and was tried by hand (docs/image.md).
"""
import io
import json
import os
import re
import socket
import struct
import subprocess
import tarfile
import threading
import time

import pytest

from conftest import find_program

IMAGE = "moby/buildkit:buildx-stable-1"


class Engine:
    """One thread a connection; HTTP/1.1 with a body of known length."""

    def __init__(self, path, daemon):
        self.daemon, self.calls, self.containers, self.volumes, self.files, self.next = daemon, [], {}, set(), {}, {}
        self.images = {IMAGE}
        self.loaded, self.load_error = None, None
        self.address = f"unix://{path}"
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                c, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.connection, args=(c,), daemon=True).start()

    def connection(self, c):
        f = c.makefile("rb")
        while True:
            line = f.readline()
            if not line:
                return c.close()
            method, target, _ = line.decode().split(" ", 2)
            length, chunked = 0, False
            for h in iter(f.readline, b"\r\n"):
                if h.lower().startswith(b"content-length:"):
                    length = int(h.split(b":")[1])
                chunked = chunked or h.lower().startswith(b"transfer-encoding: chunked")
            body = self.chunks(f) if chunked else f.read(length)
            path, _, query = target.partition("?")
            self.calls.append(f"{method} {path}")
            m = re.fullmatch(r"/exec/(\w+)/start", path)
            if m:
                return self.run(c, f, m[1])
            status, answer = self.answer(method, path, query, body)
            data = json.dumps(answer).encode() if answer is not None else b""
            c.sendall(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(data)) + data)

    @staticmethod
    def chunks(f):
        body = b""
        while size := int(f.readline(), 16):
            body += f.read(size)
            f.readline()
        f.readline()
        return body

    def answer(self, method, path, query, body):
        parts = path.strip("/").split("/")
        missing = (404, {"message": f"No such thing: {path}"})
        if parts[0] == "info":
            return 200, {"CgroupDriver": "cgroupfs", "SecurityOptions": []}
        if parts[:2] == ["images", "create"]:
            return 200, {"error": "no network here"}
        if parts[:2] == ["images", "load"]:
            self.loaded = tarfile.open(fileobj=io.BytesIO(body))
            return 200, {"error": self.load_error} if self.load_error else {"stream": "Loaded image"}
        if parts[0] == "images":
            return (200, {}) if path[len("/images/"):-len("/json")] in self.images else missing
        if parts[:2] == ["containers", "create"]:
            name = query.split("=")[1]
            if name in self.containers:
                return 409, {"message": f"{name} is in use"}
            self.containers[name] = {"config": json.loads(body), "running": False}
            self.volumes.add(f"{name}_state")
            return 201, {"Id": name}
        if parts[0] == "volumes":
            return (204, None) if parts[1] in self.volumes and not self.volumes.discard(parts[1]) else missing
        container = self.containers.get(parts[1])
        if not container:
            return missing
        if method == "DELETE":
            del self.containers[parts[1]]
            return 204, None
        what = parts[2]
        if what in ("start", "stop"):
            container["running"] = what == "start"
            return 204, None
        if what == "archive":
            self.files[parts[1]] = {m.name: m for m in tarfile.open(fileobj=io.BytesIO(body))}
            return 200, None
        if what == "exec":
            ident = f"{len(self.next) + 1:x}"
            self.next[ident] = {"argv": json.loads(body)["Cmd"], "code": None}
            return 201, {"Id": ident}
        return 200, {"State": {"Running": container["running"], "Status": "running" if container["running"] else "exited"}}

    def run(self, c, f, ident):
        x = self.next[ident]
        env = dict(os.environ, BUILDKIT_HOST=f"unix://{self.daemon.socket}", ASAN_OPTIONS="detect_leaks=0")
        buildctl = self.daemon.folder / "buildctl"
        p = subprocess.Popen([str(buildctl), *x["argv"][1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
        c.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        lock = threading.Lock()

        def out(stream, number):
            while True:
                data = os.read(stream.fileno(), 9000)
                if not data:
                    return
                with lock:  # a frame may come in pieces
                    frame = struct.pack(">BxxxI", number, len(data)) + data
                    c.sendall(frame[:5])
                    c.sendall(frame[5:])
        threads = [threading.Thread(target=out, args=a, daemon=True) for a in ((p.stdout, 1), (p.stderr, 2))]
        for t in threads:
            t.start()

        def feed():
            try:
                while data := f.read1(9000):
                    p.stdin.write(data)
                    p.stdin.flush()
                p.stdin.close()
            except OSError:
                pass
        threading.Thread(target=feed, daemon=True).start()
        x["code"] = p.wait()
        for t in threads:
            t.join()
        c.shutdown(socket.SHUT_RDWR)  # f still refers to it


@pytest.fixture
def engine(daemon, folder):
    (folder / "buildctl").symlink_to(find_program("slipway", "cli"))
    e = Engine(folder / "docker.sock", daemon)
    answer = e.answer

    def with_exec_state(method, path, query, body):
        m = re.fullmatch(r"/exec/(\w+)/json", path)
        return (200, {"ExitCode": e.next[m[1]]["code"]}) if m else answer(method, path, query, body)
    e.answer = with_exec_state
    yield e
    e.socket.close()


@pytest.fixture
def slipway(engine, folder):
    def run(*args, code=0):
        env = dict(os.environ, DOCKER_HOST=engine.address, DOCKER_CONFIG=str(folder / "docker"), ASAN_OPTIONS="detect_leaks=0")
        env.pop("BUILDKIT_HOST", None)
        r = subprocess.run([str(find_program("slipway", "cli")), *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, env=env, cwd=folder, timeout=120)
        assert r.returncode == code, r.stdout
        return r.stdout
    return run


def test_life_of_a_builder(engine, slipway, folder, context):
    (folder / "buildkitd.toml").write_text('debug = true\n[registry."localhost:5000"]\nhttp = true\n')
    out = slipway("create", "--name", "mine", "--use", "--bootstrap", "--driver-opt", "network=host,env.FOO=bar", "--buildkitd-config",
                  "buildkitd.toml", "--buildkitd-flags", "--debug --allow-insecure-entitlement 'security.insecure'")
    assert "[internal] booting buildkit" in out and "using local image" in out and out.endswith("mine\n")

    config = engine.containers["buildx_buildkit_mine0"]["config"]
    assert config["Cmd"] == ["--config", "/etc/buildkit/buildkitd.toml", "--debug", "--allow-insecure-entitlement", "security.insecure",
                             "--allow-insecure-entitlement=network.host"]
    assert config["Env"] == ["FOO=bar"] and config["Image"] == IMAGE
    host = config["HostConfig"]
    assert host["Privileged"] and host["Init"] and host["NetworkMode"] == "host" and host["CgroupParent"] == "/docker/buildx"
    assert host["Mounts"] == [{"Type": "volume", "Source": "buildx_buildkit_mine0_state", "Target": "/var/lib/buildkit"}]
    files = engine.files["buildx_buildkit_mine0"]
    assert list(files) == ["buildkit", "buildkit/buildkitd.toml"] and files["buildkit/buildkitd.toml"].mode == 0o644
    assert engine.calls.index("PUT /containers/buildx_buildkit_mine0/archive") < engine.calls.index("POST /containers/buildx_buildkit_mine0/start")

    (folder / "out").mkdir()
    tree = context("FROM scratch\nCOPY words /words\n", {"words": "x" * 300000})
    out = slipway("build", "--progress=plain", "-o", "type=local,dest=out", tree)
    assert 'building with "mine" instance using docker-container driver' in out
    assert (folder / "out" / "words").read_text() == "x" * 300000

    assert re.search(r"^mine\* .*docker-container", slipway("ls"), re.M)
    assert "Status:                running" in slipway("inspect", "mine")
    slipway("stop", "mine")
    assert json.loads(slipway("ls", "--format", "json").splitlines()[0])["Nodes"][0]["Status"] == "stopped"
    assert "the builder is stopped" in slipway("du", code=1)
    assert "starting container buildx_buildkit_mine0" in slipway("build", "--progress=plain", tree)
    assert slipway("rm", "--keep-state", "mine") == "mine removed\n"
    assert not engine.containers and engine.volumes == {"buildx_buildkit_mine0_state"}
    assert 'no builder "mine" found' in slipway("inspect", "mine", code=1)


def test_what_is_wrong_is_said(engine, slipway, folder):
    assert "default is a reserved name" in slipway("create", "--name", "default", code=1)
    assert "invalid driver option colour" in slipway("create", "--driver-opt", "colour=red", code=1)
    assert "buildkit configuration file not found: nothing.toml" in slipway("create", "--buildkitd-config", "nothing.toml", code=1)
    assert 'failed to find driver "boat"' in slipway("create", "--driver", "boat", code=1)
    slipway("create", "--name", "one")
    assert "no append mode" in slipway("create", "--name", "one", code=1)
    assert "invalid duplicate endpoint" in slipway("create", "--name", "one", "--append", code=1)
    engine.images.clear()
    out = slipway("inspect", "one", "--bootstrap", code=1)
    assert "no network here" in out and not engine.containers
    assert 'failed to find instance "two"' in slipway("use", "two", code=1)
    assert "failed to remove two" in slipway("rm", "two", "one", code=1)
    assert "one" not in slipway("ls")


def test_a_daemon_that_does_not_answer(slipway, folder):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(folder / "mute.sock"))
        s.listen()
        began = time.monotonic()
        slipway("--builder", f"unix://{folder}/mute.sock", "ls", "--timeout", "1s")
        out = slipway("--builder", f"unix://{folder}/mute.sock", "inspect", "--timeout", "1s")
        assert "Error:" in out and "listing workers" in out
        assert time.monotonic() - began < 15
    assert "--timeout" in slipway("ls", "--timeout", "soon", code=1)


def test_load(engine, slipway, context, daemon):
    tree = context("FROM scratch\nCOPY words /words\n", {"words": "x" * 300000})
    build = ["--builder", f"unix://{daemon.socket}", "build", "--progress=plain", "--load", "-t", "words:1", tree]
    assert "importing to docker" in slipway(*build)
    manifest = json.load(engine.loaded.extractfile("manifest.json"))
    assert manifest[0]["RepoTags"] == ["words:1"] or manifest[0]["RepoTags"] == ["docker.io/library/words:1"]
    engine.load_error = "no space left on device"
    assert "no space left on device" in slipway(*build, code=1)
