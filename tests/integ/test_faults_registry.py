"""Pulls and pushes through registries that misbehave: none may fail that could succeed, little is sent twice, and no credential
goes where it does not belong.

One process serves three "hosts" on loopback ports: the registry, a mirror of it, and the store of blobs that redirects lead to. The
first part of a repository's name says what goes wrong with it:

  plain    nothing                                reset    the connection breaks every 300 kB
  cut      the answer ends early, every 300 kB    limit    the first request for each thing: 429 with Retry-After
  error    the first request for each thing: 503  slow     it comes in small pieces
  wrong    the mirror's bytes are wrong           once     the registry's bytes are wrong the first time
  token    bearer tokens that expire every 0.3 s  cdn      blobs are elsewhere, behind a redirect, with resets there
  gone     the mirror says 401, 403, 404, 500 or closes
  own      the mirror wants a password by Basic
  auth     as token, and the tokens last    big      throttled to RATE bytes a second (also push-big)
  push-reset, push-limit, push-error, push-pieces (413 for more than 100 kB), push-token: the same, for uploads

SLIPWAY_TEST_FAULTS: how many builds (32; the issue's number is 200).
"""
import base64
import concurrent.futures
import fcntl
import gzip
import hashlib
import io
import json
import os
import random
import re
import socket
import struct
import subprocess
import tarfile
import termios
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conftest import need, wait_until

PULL = ["plain", "reset", "cut", "limit", "error", "slow", "wrong", "once", "token", "cdn", "gone"]
PUSH = ["push-reset", "push-limit", "push-error", "push-pieces", "push-token"]
EVERY = 300_000
RATE = 20_000_000
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
USERS = {"registry": ("user", "the-registry-secret"), "mirror": ("other", "the-mirror-secret")}


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def make_image(seed, *sizes):
    """A layer of each size, not to be compressed, and a small one; the blobs and the manifest."""
    blobs, layers, diff_ids = {}, [], []
    for i, n in enumerate([*sizes, 2000]):
        name = f"small-{seed}" if i == len(sizes) else f"big-{seed}" + (f"-{i}" if i else "")
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            info = tarfile.TarInfo(name)
            info.size = n
            tar.addfile(info, io.BytesIO(random.Random(f"{name} {seed}").randbytes(n)))
        packed = gzip.compress(raw.getvalue(), 1, mtime=0)
        diff_ids.append(digest_of(raw.getvalue()))
        blobs[digest_of(packed)] = packed
        layers.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest_of(packed), "size": len(packed)})
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
    blobs[digest_of(config)] = config
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers, "config": {
        "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(config), "size": len(config)}}).encode()
    return blobs, manifest


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    # -- small things

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def read_body(self, most=None):
        n = int(self.headers.get("Content-Length") or 0)
        n = n if most is None else min(n, most)
        data = b""
        while len(data) < n:
            part = self.rfile.read(min(65536, n - len(data)))
            if not part:
                raise ConnectionError
            data += part
        return data

    def drained(self):
        end = time.monotonic() + 5
        while time.monotonic() < end:
            if struct.unpack("i", fcntl.ioctl(self.connection, termios.TIOCOUTQ, b"\0\0\0\0"))[0] == 0:
                return
            time.sleep(0.001)

    def break_off(self, reset=True):
        """End the connection; what was written has arrived."""
        self.wfile.flush()
        self.drained()
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        if reset:
            fd = self.connection.detach()
            os.close(fd)
        raise BreakOff

    def first_time(self, what):
        with self.server.faults.lock:
            seen = self.server.faults.seen
            if (self.server.role, what) in seen:
                return False
            seen.add((self.server.role, what))
            return True

    # -- requests

    def setup(self):
        super().setup()
        self.server.faults.count("sockets", self.server.role, 1)

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (BreakOff, ConnectionError):
            self.close_connection = True

    def finish(self):
        self.server.faults.count("sockets", self.server.role, -1)
        try:
            super().finish()
        except (ValueError, OSError):
            pass

    def do_any(self):
        f = self.server.faults
        url = urllib.parse.urlsplit(self.path)
        self.query = urllib.parse.parse_qs(url.query)
        secret = self.headers.get("Authorization") or ""
        if secret:
            f.secrets.append((self.server.role, secret))
        if self.server.role == "cdn":
            return self.blob(url.path.split("/")[2], url.path.rsplit("/", 1)[1])
        if url.path == "/token":
            return self.token()
        if url.path.rstrip("/") == "/v2":
            return self.answer(200, b"{}")
        m = re.match(r"/v2/(([^/]+)/[^/]+)/(manifests|blobs)/(.*)$", url.path)
        if not m:
            return self.answer(404)
        self.repo, self.word, kind, rest = m.groups()
        self.fault = self.word.rsplit(".", 1)[0]
        if not self.admitted(kind, rest):
            return
        if rest.startswith("uploads"):
            return self.upload(rest)
        if self.server.role == "mirror" and self.fault not in ("wrong", "gone", "own"):
            return self.answer(404)
        if kind == "blobs":
            return self.blob(self.word, rest)
        if self.command == "PUT":
            body = self.read_body()
            f.manifests[self.repo + "/" + rest] = f.manifests[self.repo + "/" + digest_of(body)] = body
            return self.answer(201, Location=self.path, Docker_Content_Digest=digest_of(body))
        data = f.manifests.get(self.repo + "/" + rest)
        if data is None:
            return self.answer(404)
        f.served.setdefault(self.word, time.monotonic())
        self.answer(200, data, Content_Type=MANIFEST, Docker_Content_Digest=digest_of(data))

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_any

    def admitted(self, kind, rest):
        """Faults before an answer. False: answered."""
        what = (self.word, self.command, kind, rest.split("?")[0])
        fault = self.fault.replace("push-", "")
        if self.server.role == "mirror" and fault == "gone":
            answer = random.choice([401, 403, 404, 500, 0])
            if not answer:
                self.break_off()
            self.answer(answer)
            return False
        if self.server.role == "mirror" and fault == "own" and not self.headers.get("Authorization"):
            self.answer(401, WWW_Authenticate='Basic realm="mirror"')
            return False
        if fault == "limit" and self.server.role == "registry" and self.command in ("GET", "POST") and self.first_time(what):
            self.read_body()
            self.answer(429, Retry_After="1")
            return False
        if fault == "error" and self.server.role == "registry" and self.command in ("HEAD", "GET", "POST") and self.first_time(what):
            self.read_body()
            self.answer(503)
            return False
        if fault in ("token", "auth") and self.server.role == "registry":
            given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            expires = self.server.faults.tokens.get(given, 0)
            if expires < time.monotonic():
                self.read_body()
                actions = "pull" if self.command in ("GET", "HEAD") else "pull,push"
                error = ',error="invalid_token"' if given else ""
                self.answer(401, WWW_Authenticate=f'Bearer realm="http://{self.server.faults.hosts["registry"]}/token",service="r",'
                                                  f'scope="repository:{self.repo}:{actions}"{error}')
                return False
        return True

    def token(self):
        form = urllib.parse.parse_qs(self.read_body().decode()) if self.command == "POST" else {}
        given = base64.b64decode((self.headers.get("Authorization") or "").removeprefix("Basic ")).decode()
        given = given or ":".join((form.get("username", [""])[0], form.get("password", [""])[0]))
        if given not in (":".join(USERS["registry"]), "second:user"):
            return self.answer(401)
        f = self.server.faults
        name = f"token-{random.random()}"
        with f.lock:
            f.tokens[name] = time.monotonic() + (300 if "auth." in str(self.query) + str(form) else 0.3)
            f.tokens_given += 1
        self.answer(200, json.dumps({"token": name, "access_token": name, "expires_in": 300}).encode())

    def blob(self, word, digest):
        f = self.server.faults
        fault = word.rsplit(".", 1)[0]
        data = f.blobs.get((word, digest))
        if data is None:
            return self.answer(404)
        if fault == "cdn" and self.server.role == "registry":
            return self.answer(307, Location=f"http://{f.hosts['cdn']}/blob/{word}/{digest}")
        if self.command == "HEAD":
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            return
        start = 0
        m = re.match(r"bytes=(\d+)-$", self.headers.get("Range") or "")
        if m:
            start = int(m.group(1))
        served = data
        if len(data) < 10000 and ((fault == "wrong" and self.server.role == "mirror") or (fault == "once" and self.first_time((word, digest)))):
            served = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(206 if m else 200)
        if m:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.stream(fault, served[start:], word, digest)

    def stream(self, fault, data, word, digest):
        breaks = fault in ("reset", "cut", "cdn") and len(data) > EVERY
        if len(data) > 10000:
            self.server.faults.count("transfers", self.server.role, 1)
        step = 20000 if fault == "slow" else 65536
        end = EVERY if breaks else len(data)
        for at in range(0, end, step):
            part = data[at:min(at + step, end)]
            self.wfile.write(part)
            with self.server.faults.lock:
                self.server.faults.sent += len(part)
            if fault == "slow":
                time.sleep(0.002)
            if fault == "big":
                time.sleep(step / RATE)
        if len(data) > 10000:
            self.wfile.flush()
            self.drained()
            self.server.faults.count("transfers", self.server.role, -1)
        if breaks:
            self.break_off(reset=fault != "cut")

    # -- uploads

    def slowly(self, n):
        while n > 0:
            part = self.rfile.read(min(65536, n))
            if not part:
                raise ConnectionError
            n -= len(part)
            time.sleep(len(part) / RATE)
            yield part

    def upload(self, rest):
        f = self.server.faults
        fault = self.fault.replace("push-", "")
        if self.command == "POST":
            name = f"{random.random()}"
            f.uploads[name] = b""
            return self.answer(202, Location=f"/v2/{self.repo}/blobs/uploads/{name}", Range="0-0")
        name = rest.split("/")[1]
        if name not in f.uploads:
            self.read_body()
            return self.answer(404)
        have = f.uploads[name]
        where = f"/v2/{self.repo}/blobs/uploads/{name}?state={len(have)}"
        if self.command == "GET":
            return self.answer(204, Location=where, Range=f"0-{max(len(have) - 1, 0)}")
        length = int(self.headers.get("Content-Length") or 0)
        if fault == "pieces" and length > 100_000:
            self.close_connection = True
            return self.answer(413, Connection="close")
        m = re.match(r"(\d+)-(\d+)$", self.headers.get("Content-Range") or "")
        if m and int(m.group(1)) != len(have):
            self.read_body()
            return self.answer(416, Location=where, Range=f"0-{max(len(have) - 1, 0)}")
        breaks = fault == "reset" and length > EVERY
        if fault == "big" and length > 10000:
            f.count("transfers", self.server.role, 1)
            body = b"".join(self.slowly(length))
            f.count("transfers", self.server.role, -1)
        else:
            body = self.read_body(EVERY if breaks else None)
        with f.lock:
            f.received += len(body)
            f.uploads[name] = have + body
        if breaks:
            self.break_off()
        if self.command == "PATCH":
            return self.answer(202, Location=f"/v2/{self.repo}/blobs/uploads/{name}?state={len(f.uploads[name])}",
                               Range=f"0-{max(len(f.uploads[name]) - 1, 0)}")
        digest, data = self.query["digest"][0], f.uploads.pop(name)
        if digest_of(data) != digest:
            return self.answer(400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
        f.blobs[self.word, digest] = data
        self.answer(201, Location=f"/v2/{self.repo}/blobs/{digest}", Docker_Content_Digest=digest)


class BreakOff(Exception):
    pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass


class Faults:
    def __init__(self):
        self.lock = threading.Lock()
        self.blobs, self.manifests, self.uploads, self.tokens = {}, {}, {}, {}
        self.seen, self.secrets = set(), []
        self.sent = self.received = self.tokens_given = 0
        self.now, self.most, self.served = {}, {}, {}
        self.servers = {}
        for role in ("registry", "mirror", "cdn"):
            s = Server(("127.0.0.1", 0), Handler)
            s.role, s.faults = role, self
            threading.Thread(target=s.serve_forever, daemon=True).start()
            self.servers[role] = s
        self.hosts = {role: f"127.0.0.1:{s.server_address[1]}" for role, s in self.servers.items()}

    def count(self, what, role, by):
        with self.lock:
            self.now[what, role] = self.now.get((what, role), 0) + by
            self.most[what, role] = max(self.most.get((what, role), 0), self.now[what, role])

    def add(self, word, *sizes):
        blobs, manifest = make_image(word, *sizes)
        for digest, data in blobs.items():
            self.blobs[word, digest] = data
        self.manifests[f"{word}/img/latest"] = self.manifests[f"{word}/img/{digest_of(manifest)}"] = manifest
        return sum(map(len, blobs.values()))

    def stop(self):
        for s in self.servers.values():
            s.shutdown()
            s.server_close()


@pytest.fixture
def faults(folder, monkeypatch):
    f = Faults()
    use_credentials(f, folder / "docker")
    monkeypatch.setenv("DOCKER_CONFIG", str(folder / "docker"))
    (folder / "buildkitd.toml").write_text(f'[registry."{f.hosts["registry"]}"]\nmirrors = ["{f.hosts["mirror"]}"]\n')
    yield f
    f.stop()


def use_credentials(faults, folder, registry=None):
    users = dict(USERS, registry=registry or USERS["registry"])
    folder.mkdir(exist_ok=True)
    auths = {faults.hosts[role]: {"auth": base64.b64encode(":".join(user).encode()).decode()} for role, user in users.items()}
    (folder / "config.json").write_text(json.dumps({"auths": auths}))


@pytest.fixture
def faulty_daemon(daemon, faults, folder):
    daemon.stop()
    daemon.start("--config", folder / "buildkitd.toml")
    return daemon


def test_builds_through_faults(faulty_daemon, faults, folder, context):
    count = int(os.environ.get("SLIPWAY_TEST_FAULTS") or 32)
    words, total, pushed = [], 0, 0
    for i in range(count):
        word = f"{(PULL + PUSH)[i % len(PULL + PUSH)]}.{i}"
        words.append(word)
        if not word.startswith("push"):
            total += faults.add(word, random.Random(i).choice([100_000, 700_000, 1_000_000]))
    registry = faults.hosts["registry"]

    def one(word):
        if word.startswith("push"):
            path = context("FROM scratch\nCOPY data /\n", name=word)
            (path / "data").write_bytes(random.Random(word).randbytes(700_000))
            r = faulty_daemon.build(path, f"--output=type=image,name={registry}/{word}/img:latest,push=true", code=None)
        else:
            path = context(f"FROM {registry}/{word}/img\n", name=word)
            r = faulty_daemon.build(path, f"--output=type=tar,dest={folder}/{word}.tar", code=None)
        return word, r

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, words))
    failed = [f"{word}:\n{r.out[-1500:]}" for word, r in results if r.code]
    assert not failed, f"{len(failed)} of {count} failed:\n" + "\n".join(failed[:3])
    # what arrived is right
    for word in words:
        if word.startswith("push"):
            manifest = json.loads(faults.manifests[f"{word}/img/latest"])
            for d in manifest["layers"] + [manifest["config"]]:
                assert digest_of(faults.blobs[word, d["digest"]]) == d["digest"]
                pushed += d["size"]
        else:
            with tarfile.open(folder / f"{word}.tar") as tar:
                assert {f"big-{word}", f"small-{word}"} == set(tar.getnames())
    # little is sent twice
    print(f"{count} builds: pulled {total}, sent {faults.sent}; pushed {pushed}, received {faults.received}; {faults.tokens_given} tokens")
    assert faults.sent <= total * 1.05, f"{faults.sent} bytes sent for {total}"
    assert faults.received <= pushed * 1.05, f"{faults.received} bytes received for {pushed}"
    # credentials stay where they belong: passwords only at the token server of their own host, tokens at the registry only
    assert faults.tokens_given
    registry_basic = base64.b64encode(":".join(USERS["registry"]).encode()).decode()
    for role, secret in faults.secrets:
        assert role == "registry", f"{role} was sent {secret}"
        assert registry_basic in secret or secret.startswith("Bearer token-")
    # and in no log
    log = faulty_daemon.log_path.read_text(errors="replace")
    for word in ("the-registry-secret", "the-mirror-secret", registry_basic, "Bearer token-"):
        assert word not in log
    # each host that was passed over is told with its reason, once
    told = [line for line in log.splitlines() if "level=info" in line and "trying next host" in line]
    assert told and len(told) <= 12, told


def test_tokens_are_shared_by_the_builds_of_one_user(faulty_daemon, faults, folder, context, monkeypatch):
    """The client fetches them and proves who it is: a second build uses the first one's token, another user's does not."""
    for i in range(3):
        faults.add(f"auth.{i}", 3000)
    faults.manifests["auth.0/img/two"] = faults.manifests["auth.1/img/latest"]
    for digest in [d for word, d in faults.blobs if word == "auth.1"]:
        faults.blobs["auth.0", digest] = faults.blobs["auth.1", digest]
    faults.manifests["auth.0/img/" + digest_of(faults.manifests["auth.0/img/two"])] = faults.manifests["auth.0/img/two"]
    host = faults.hosts["registry"]

    def build(tag):
        return faulty_daemon.build(context(f"FROM {host}/auth.0/img:{tag}\n"), "--no-cache", f"--output=type=tar,dest={folder}/o.tar")

    build("latest")
    assert faults.tokens_given == 1
    build("two")
    assert faults.tokens_given == 1, "the second build of the same user asked for a token again"
    assert (folder / "docker/.token_seed").stat().st_mode & 0o777 == 0o600
    use_credentials(faults, folder / "other", ("second", "user"))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder / "other"))
    build("latest")
    assert faults.tokens_given == 2, "another user was given the first one's token"
    monkeypatch.setenv("BUILDKIT_NO_CLIENT_TOKEN", "1")  # then the daemon gets the credentials and asks itself
    build("two")
    assert faults.tokens_given == 3


def test_mirror_with_credentials_of_the_daemon(daemon, faults, folder, context):
    """[[registry.HOST.mirror]] credentials: from a file, for that mirror alone, and the client's are not asked for."""
    faults.add("own.0", 3000)
    (folder / "password").write_text("daemon:its-own-secret\n")
    (folder / "own.toml").write_text(f'[[registry."{faults.hosts["registry"]}".mirror]]\nhost = "{faults.hosts["mirror"]}"\n'
                                     f'credentials = "{folder}/password"\n')
    daemon.stop()
    daemon.start("--config", folder / "own.toml")
    daemon.build(context(f"FROM {faults.hosts['registry']}/own.0/img\n"), f"--output=type=tar,dest={folder}/o.tar")
    expected = ("mirror", "Basic " + base64.b64encode(b"daemon:its-own-secret").decode())
    assert faults.secrets and set(faults.secrets) == {expected}
    assert "its-own-secret" not in daemon.log_path.read_text(errors="replace") and expected[1] not in daemon.log_path.read_text(errors="replace")
    assert "own.0" in faults.served and faults.most.get(("transfers", "registry"), 0) == 0


def sockets_to(port):
    """What `ss` says: established connections from here to that port."""
    out = subprocess.run(["ss", "-Htn", "state", "established", f"( dport = :{port} )"], capture_output=True, text=True, check=True).stdout
    return len(out.splitlines())


@pytest.mark.parametrize("what", ["pull", "push"])
def test_connection_limit(faulty_daemon, faults, folder, context, what):
    """12 layers, throttled: never more than 4 transfers and 5 sockets, and another build's manifest does not wait for them.

    SLIPWAY_TEST_LAYER: bytes of a layer (2,000,000; the issue's number is 20,000,000)."""
    need("ss")
    size = int(os.environ.get("SLIPWAY_TEST_LAYER") or 2_000_000)
    host, port = faults.hosts["registry"], faults.servers["registry"].server_address[1]
    faults.add("plain.0", 3000)

    def other_manifest(name):
        """How long another build takes until the registry serves it a manifest."""
        faults.served.pop("plain.0", None)
        start = time.monotonic()
        other = faulty_daemon.start_build(context(f"FROM {host}/plain.0/img\nLABEL n={name}\n", name=name), "--no-cache")
        faulty_daemon.finish(other)
        return faults.served["plain.0"] - start

    idle = [other_manifest(f"idle{i}") for i in range(2)]
    if what == "pull":
        faults.add("big.0", *[size] * 12)
        build = faulty_daemon.start_build(context(f"FROM {host}/big.0/img\n", name="big"), f"--output=type=local,dest={folder}/out")
    else:
        path = context("FROM scratch\n" + "".join(f"COPY data{i} /\n" for i in range(12)), name="big")
        for i in range(12):
            (path / f"data{i}").write_bytes(random.Random(i).randbytes(size))
        build = faulty_daemon.start_build(path, f"--output=type=image,name={host}/push-big.0/img:latest,push=true")
    wait_until("four transfers", lambda: faults.now.get(("transfers", "registry")) == 4 or build.poll() is not None)
    assert build.poll() is None, build.communicate()[0]
    seen, waits = [], []
    for i in range(3):
        waits.append(other_manifest(f"other{i}"))
        seen.append(sockets_to(port))
    while build.poll() is None:
        seen.append(sockets_to(port))
        time.sleep(0.02)
    r = faulty_daemon.finish(build)
    assert r.code == 0, r.out
    most = {k[0]: n for k, n in faults.most.items() if k[1] == "registry"}
    print(f"{what}: at most {most}, by ss {max(seen)} sockets; another build's manifest after "
          f"{', '.join(f'{w:.3f}' for w in waits)} s, with nothing else {', '.join(f'{w:.3f}' for w in idle)} s")
    assert most["transfers"] == 4, "four at once were expected"
    assert most["sockets"] <= 5 and max(seen) <= 5
    assert min(waits) < max(0.1, 3 * max(idle)), "it waited for the layers"  # starting a client takes its time on a busy machine
