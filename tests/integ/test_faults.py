"""A full disk, and peers that send what nobody should: the answer is an error that says what was wrong, memory stays bounded, the daemon lives."""
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import threading
import time
import uuid
from pathlib import Path

import pytest

from conftest import Daemon, processes_with, wait_until
from test_malformed import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame, headers, message, still_serves, talk

# ---- a full disk


def mount_small(path, mib):
    path.mkdir()
    r = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", path], capture_output=True, text=True)
    if r.returncode:
        pytest.skip(f"tmpfs cannot be mounted: {r.stderr}")


@pytest.fixture
def small(folder, containers):
    """A daemon whose root is a small disk; fill(n) leaves n KiB free."""
    d = Daemon(folder)
    mount_small(folder / "root", 96)
    d.root_disk = folder / "root"
    d.start()
    yield d
    code = d.stop() if d.process else 0
    subprocess.run(["umount", "-l", folder / "root"], check=False)
    assert not d.found_by_sanitizers(), d.found_by_sanitizers()
    assert code == 0, d.log()


def fill(daemon, leave_kib):
    s = os.statvfs(daemon.root_disk)
    with open(daemon.root_disk / "ballast", "ab") as f:
        f.write(b"\0" * max(0, s.f_bavail * s.f_frsize - leave_kib * 1024))


def unfill(daemon):
    (daemon.root_disk / "ballast").unlink()


def full_then_free(daemon, start, leave_kib, finish=None):
    """start() must fail, saying that the disk is full; with space it works."""
    fill(daemon, leave_kib)
    r = start(None)
    assert r.code != 0, r.out
    assert "no space left on device" in r.out.lower() or "disk is full" in r.out.lower(), r.out
    assert daemon.alive() and daemon.ctl("debug", "workers")
    unfill(daemon)
    wait_until("a clean state", lambda: not [x for x in daemon.leftovers() if x != str(daemon.root)], 20)
    return start(0)


def test_full_disk_while_pulling(small, context, registry):
    path = context("ARG BASE=scratch\nFROM ${BASE}\nRUN true\n")
    full_then_free(small, lambda code: small.build(path, args={"BASE": registry.base}, code=code), 300)


def test_full_disk_in_a_step(small, context, registry):
    path = context("ARG BASE=scratch\nFROM ${BASE}\nRUN true\n")
    small.build(path, args={"BASE": registry.base})
    context("ARG BASE=scratch\nFROM ${BASE}\nRUN true\nRUN dd if=/dev/zero of=/big bs=1M count=8\n")
    full_then_free(small, lambda code: small.build(path, args={"BASE": registry.base}, code=code), 4096)


def test_full_disk_while_copying(small, context):
    path = context("FROM scratch\nCOPY --chmod=600 big /a/big\n", {"big": "x" * (8 << 20)})  # another mode: a file of its own
    full_then_free(small, lambda code: small.build(path, code=code), 12 << 10)


def test_full_disk_while_the_context_comes(small, context):
    path = context("FROM scratch\nCOPY big /a/big\n", {"big": "x" * (8 << 20)})
    full_then_free(small, lambda code: small.build(path, code=code), 2048)


def test_full_disk_while_exporting(small, context, folder):
    path = context("FROM scratch\nCOPY big /big\n")
    (path / "big").write_bytes(os.urandom(8 << 20))
    small.build(path)
    out = folder / "out.tar"
    full_then_free(small, lambda code: small.build(path, f"--output=type=oci,dest={out}", code=code), 2048)
    assert tarfile.is_tarfile(out)


def test_full_disk_for_the_database(small, context, registry):
    """Not a byte is free: whatever fails says so, and nothing is lost."""
    path = context("ARG BASE=scratch\nFROM ${BASE}\nRUN echo first > /first\n")
    small.build(path, args={"BASE": registry.base})
    fill(small, 0)
    for i in range(4):
        context(f"ARG BASE=scratch\nFROM ${{BASE}}\nRUN echo first > /first\nRUN echo {i} > /x\n")
        small.build(path, args={"BASE": registry.base}, code=None)
        assert small.alive()
    unfill(small)
    context("ARG BASE=scratch\nFROM ${BASE}\nRUN echo first > /first\nRUN echo again > /x\n")
    r = small.build(path, args={"BASE": registry.base})
    assert any("echo first" in s for s in r.cached()), r.out
    assert small.stop() == 0
    small.start()
    assert any("echo again" in s for s in small.build(path, args={"BASE": registry.base}).cached())


def test_full_disk_of_the_client(daemon, context, folder):
    path = context("FROM scratch\nCOPY big /big\n")
    (path / "big").write_bytes(os.urandom(8 << 20))
    mount_small(folder / "small", 2)
    try:
        for output in (f"type=oci,dest={folder}/small/out.tar", f"type=local,dest={folder}/small/tree"):
            r = daemon.build(path, f"--output={output}", code=None)
            assert r.code != 0 and "no space left on device" in r.out.lower(), r.out
            still_serves(daemon)
    finally:
        subprocess.run(["umount", "-l", folder / "small"], check=False)


# ---- peers

def memory_kib(daemon):
    for line in Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def bounded(daemon, before_kib, mib):
    """A sanitizer keeps 256 MiB of what was freed."""
    if "libasan" in Path(f"/proc/{daemon.process.pid}/maps").read_text():
        mib += 300
    assert memory_kib(daemon) - before_kib < mib << 10, f"{memory_kib(daemon) - before_kib} KiB more"


CONTROL = "/moby.buildkit.v1.Control/"
BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"
METHODS = [CONTROL + m for m in ("Solve", "Status", "Session", "ListWorkers", "Info", "DiskUsage", "Prune", "ListenBuildHistory", "UpdateBuildHistory")] + \
    [BRIDGE + m for m in ("ResolveImageConfig", "ResolveSourceMeta", "Solve", "ReadFile", "ReadDir", "StatFile", "Evaluate", "Ping", "Return", "Inputs", "NewContainer",
                          "ReleaseContainer", "ExecProcess", "Warn")] + \
    ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/containerd.services.content.v1.Content/Info", "/containerd.services.content.v1.Content/Read",
     "/opentelemetry.proto.collector.trace.v1.TraceService/Export"]
BROKEN = [b"\x0a\x7fshort", b"\xff" * 40, b"\x0a\x02\xff\xfe", b"\x12\x03\x0a\x01\x00" * 20, b"\x0a\x00\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x3a\x00\x42\x00", b"\x08\x96\x01"]


def test_broken_messages_to_every_method(daemon):
    """Each on a connection of its own, so that one cannot shield the other; Session and the watchers are cut."""
    for path in METHODS:
        for body in BROKEN:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(10)
                s.connect(str(daemon.socket))
                s.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, headers(path)) + frame(DATA, END_STREAM, 1, message(body)))
                s.settimeout(0.02)
                try:
                    while s.recv(4096):
                        pass
                except OSError:
                    pass
        assert daemon.alive(), f"{path}: {daemon.log()}"
    still_serves(daemon)


def status_of(daemon, data, stream=1, timeout=30):
    """Send and answer grpc-status and grpc-message of a stream's trailers; our own HPACK reader would be much: the words are looked for."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(timeout)
        s.connect(str(daemon.socket))
        seen = b""
        try:
            s.sendall(data)
        except OSError:
            pass
        try:
            while part := s.recv(65536):
                seen += part
                if ended(seen, stream):
                    break
        except OSError:
            pass
        return seen


def ended(data, stream):
    at = 0
    while at + 9 <= len(data):
        length, kind, flags = int.from_bytes(data[at:at + 3], "big"), data[at + 3], data[at + 4]
        number = int.from_bytes(data[at + 5:at + 9], "big")
        if number == stream and (kind == RST_STREAM or kind in (DATA, HEADERS) and flags & END_STREAM) or kind == 7:
            return True
        at += 9 + length
    return False


def test_a_message_above_16_mib(daemon):
    before = memory_kib(daemon)
    big = b"\0" + struct.pack(">I", (16 << 20) + 1)
    body = b"".join(frame(DATA, 0, 1, b"x" * 16384) for _ in range(3000))
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect(str(daemon.socket))
        s.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(8, 0, 0, struct.pack(">I", 1 << 30)) + frame(HEADERS, END_HEADERS, 1, headers(CONTROL + "Solve")) + frame(DATA, 0, 1, big))
        seen = b""
        while not ended(seen, 1):
            part = s.recv(65536)
            assert part, "closed without a word"
            seen += part
        try:
            s.sendall(body)
        except OSError:
            pass
    bounded(daemon, before, 8)
    still_serves(daemon)


def test_header_floods(daemon):
    before = memory_kib(daemon)
    block = headers(CONTROL + "Info")
    flood = PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, 0, 1, block) + b"".join(frame(9, 0, 1, b"\0\x01a\x7e" + b"b" * 126) for _ in range(20000))
    status_of(daemon, flood, timeout=5)
    many = PREFACE + frame(SETTINGS, 0, 0) + b"".join(frame(HEADERS, END_HEADERS, 1 + 2 * i, block) for i in range(5000))
    status_of(daemon, many, timeout=5)
    resets = PREFACE + frame(SETTINGS, 0, 0) + b"".join(frame(HEADERS, END_HEADERS, 1 + 2 * i, block) + frame(RST_STREAM, 0, 1 + 2 * i, b"\0\0\0\x08") for i in range(20000))
    status_of(daemon, resets, timeout=5)
    bounded(daemon, before, 64)
    still_serves(daemon)


def test_grpc_timeout_is_obeyed(daemon):
    """A Status of a build that nobody starts waits; with a deadline it ends then."""
    h = headers(CONTROL + "Status") + b"\0\x0cgrpc-timeout\x04500m"
    began = time.monotonic()
    seen = status_of(daemon, PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, h) + frame(DATA, END_STREAM, 1, message(b"\x0a\x04none")))
    took = time.monotonic() - began
    assert ended(seen, 1) and 0.4 < took < 5, took
    still_serves(daemon)


def varint(n):
    n &= (1 << 64) - 1
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


def digest(op):
    return "sha256:" + hashlib.sha256(op).hexdigest()


def build_llb(daemon, definition):
    p = subprocess.run([daemon.folder / "buildctl", "--addr", f"unix://{daemon.socket}", "build", "--progress=plain"], input=definition, capture_output=True, timeout=120,
                       env=daemon.environment())
    return p.returncode, (p.stdout + p.stderr).decode(errors="replace")


def op(inputs, body=b""):
    return b"".join(field(1, field(1, d)) for d in inputs) + body


MKDIR = field(4, field(2, field(1, -1) + field(2, -1) + field(3, 0) + field(6, field(1, "/a") + field(2, 0o755))))


def run_definition(base, word):
    image = op([], field(3, field(1, f"docker-image://{base}")) + field(10, field(1, "amd64") + field(2, "linux")))
    words = b"".join(field(1, w) for w in ("/bin/sh", "-c", f"echo {word}; sleep 3600; echo over"))
    run = op([digest(image)], field(2, field(1, words + field(3, "/")) + field(2, field(1, 0) + field(3, "/") + field(4, 0))) + field(10, field(1, "amd64") + field(2, "linux")))
    return b"".join(field(1, o) for o in (image, run, op([digest(run)])))


@pytest.mark.parametrize("how", ["reset", "deadline"])
def test_a_call_that_is_cancelled_cancels_its_work(daemon, registry, how):
    """RST_STREAM, or a deadline that passes, while the connection stays: the step ends."""
    word = "step-" + uuid.uuid4().hex
    body = message(field(1, "ref" + word) + field(2, run_definition(registry.base, word)))
    h = headers(CONTROL + "Solve") + (b"\0\x0cgrpc-timeout\x0310S" if how == "deadline" else b"")
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30)
        s.connect(str(daemon.socket))
        s.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, h) + frame(DATA, END_STREAM, 1, body))
        wait_until("the step to run", lambda: processes_with(word), 30)
        if how == "reset":
            s.sendall(frame(RST_STREAM, 0, 1, b"\0\0\0\x08"))
        wait_until("the step to end", lambda: not processes_with(word), 20)
        s.sendall(frame(6, 0, 0, b"12345678"))
        assert s.recv(100), "the connection must stay"
    wait_until("a clean state", lambda: not daemon.leftovers(), 20)
    still_serves(daemon)


@pytest.mark.parametrize("name,ops,says", [
    ("unknown op", [op([], field(99, b"x"))], "unknown|invalid|unsupported|no op|not supported|op"),
    ("missing input", [op(["sha256:" + "1" * 64], MKDIR)], "missing|not found|unknown"),
    ("not protobuf", [b"\xff\xff\xff"], "malformed|failed to|unmarshal|truncated|parse"),
    ("no op at all", [op([])], "op|invalid|unknown"),
])
def test_graphs_that_cannot_be(daemon, name, ops, says):
    still_serves(daemon)
    last = op([digest(ops[-1])])
    code, out = build_llb(daemon, b"".join(field(1, o) for o in [*ops, last]))
    assert code != 0 and re.search(says, out.split("error:")[-1]), out
    still_serves(daemon)


def test_a_graph_of_a_million_operations(daemon):
    still_serves(daemon)
    before = memory_kib(daemon)
    for count, says in ((1000001, "more than 1000000 elements"), (600000, "100000")):  # the client refuses the first, the daemon the second
        code, out = build_llb(daemon, field(1, b"\x0a\x00") * count)
        assert code != 0 and says in out, out[-500:]
    bounded(daemon, before, 400)
    still_serves(daemon)


def test_a_dockerfile_of_100_mb(daemon, context):
    before = memory_kib(daemon)
    path = context("")
    with open(path / "Dockerfile", "wb") as f:
        f.write(b"FROM scratch\n")
        for _ in range(100):
            f.write((b"# " + b"x" * 1021 + b"\n") * 1024)
    r = daemon.build(path, code=None)
    assert r.code != 0 and "Dockerfile" in r.out and ("16 MiB" in r.out or "16777216" in r.out or "too large" in r.out), r.out[-2000:]
    bounded(daemon, before, 100)
    still_serves(daemon)


def archive(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for name, kind, more in entries:
            x = tarfile.TarInfo(name)
            x.type = kind
            x.linkname = more if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            data = more.encode() if kind == tarfile.REGTYPE else b""
            x.size = len(data)
            t.addfile(x, io.BytesIO(data))
    return out.getvalue()


def test_archives_that_climb(daemon, context, folder):
    """ADD of an archive: what climbs is refused, links are resolved inside the tree; the host is untouched."""
    secret = folder / "secret"
    secret.write_text("secret")
    climb = "/".join([".."] * 12) + str(secret)
    path = context("FROM scratch\nADD a.tar /x/\n")
    R, S, H = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
    for entries, fine in (([(climb, R, "stolen")], False), ([("l", S, climb), ("l", R, "over")], True), ([("d", S, str(folder)), ("d/secret", R, "inside")], False),
                          ([("h", H, climb)], False), ([("h", H, str(secret))], False), ([(str(secret), R, "inside")], True)):
        (path / "a.tar").write_bytes(archive(entries))
        out = folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        r = daemon.build(path, f"--output=type=local,dest={out}", code=None)
        assert (r.code == 0) == fine, f"{entries}: {r.out}"
        if not fine:
            assert "a.tar" in r.out or "tar" in r.out or "archive" in r.out, r.out
        assert secret.read_text() == "secret" and sorted(os.listdir(folder)).count("secret") == 1
    still_serves(daemon)


class Liar(http.server.BaseHTTPRequestHandler):
    """A registry whose bytes are what the test says: how is a class attribute."""
    protocol_version = "HTTP/1.1"
    how = "layer"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        layer = archive([("f", tarfile.REGTYPE, "hello")])
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}).encode()
        desc = lambda b, t: {"mediaType": t, "digest": "sha256:" + hashlib.sha256(b).hexdigest(), "size": len(b)}
        manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": desc(config, "application/vnd.oci.image.config.v1+json"),
                               "layers": [desc(layer, "application/vnd.oci.image.layer.v1.tar")]}).encode()
        known = {desc(b, "")["digest"]: b for b in (layer, config, manifest)}
        name = self.path.rsplit("/", 1)[1]
        body = manifest if "/manifests/" in self.path else known.get(name, b"{}") if "/v2/" in self.path else b""
        told = "sha256:" + hashlib.sha256(body).hexdigest()
        if self.how == "layer" and body == layer or self.how == "config" and body == config:
            body = bytes([body[0] ^ 1]) + body[1:]
        if self.how == "manifest" and body == manifest and self.command == "GET":
            body = body + b" "
        if self.how == "long" and body == layer:
            body = body + b"\0" * 4096
        length = len(body)
        if self.how == "short" and body == layer:
            body, length = body[:-100], len(body) - 100
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.send_header("Content-Type", "application/vnd.oci.image.manifest.v1+json" if "/manifests/" in self.path else "application/octet-stream")
        self.send_header("Docker-Content-Digest", told)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.mark.parametrize("how", ["manifest", "config", "layer", "long", "short"])
def test_a_registry_that_lies(daemon, context, folder, how):
    handler = type("Handler", (Liar,), {"how": how})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        host = f"127.0.0.1:{server.server_address[1]}"
        path = context(f"FROM {host}/lie:1\nCOPY Dockerfile /d\n")
        r = daemon.build(path, f"--output=type=local,dest={folder}/out", code=None)
        assert r.code != 0, r.out
        assert any(w in r.out for w in ("digest", "size", "bytes", "unexpected")), r.out
        assert not (folder / "out" / "f").exists()
        for blob in (daemon.state / "blobs/sha256").glob("*"):
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
        handler.how = "truth"
        daemon.build(path, f"--output=type=local,dest={folder}/out")
        assert (folder / "out/f").read_text() == "hello"
    finally:
        server.shutdown()
        server.server_close()
    still_serves(daemon)


@pytest.mark.skipif(not os.environ.get("SLIPWAY_TEST_SLOW"), reason="takes most of a minute: set SLIPWAY_TEST_SLOW=1")
def test_a_client_that_stalls(daemon, context, folder):
    """It accepts everything and answers nothing, in the middle of its context: the build ends within a minute, others go on meanwhile."""
    path = context("FROM scratch\nCOPY big /big\n")
    with open(path / "big", "wb") as f:
        f.truncate(20 << 30)  # sparse: it would take a long time
    client = daemon.start_build(path)
    wait_until("the context to come", lambda: sum(p.stat().st_size for p in daemon.state.glob("snapshots/*/fs/big*")) > 1 << 20 or
               sum(p.stat().st_blocks for p in daemon.state.glob("snapshots/*/fs/*")) > 2048)
    client.send_signal(signal.SIGSTOP)
    try:
        other = context("FROM scratch\nCOPY Dockerfile /d\n", name="other")
        began = time.monotonic()
        daemon.build(other)
        assert time.monotonic() - began < 20
        wait_until("the session to be given up", lambda: "healthcheck failed" in daemon.log(), 60)
        print(f"given up after {time.monotonic() - began:.0f} s")
        (path / "big").write_bytes(b"small")
        daemon.build(path, f"--output=type=local,dest={folder}/out")  # the same context: nobody holds it any more
        assert (folder / "out/big").read_bytes() == b"small"
    finally:
        client.kill()
        client.wait()
    still_serves(daemon)
