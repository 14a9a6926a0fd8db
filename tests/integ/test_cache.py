"""Caches that daemons share: written by one, read by another one that has nothing of its own. The steps write random bytes, so a step that
was run again is seen."""
import hashlib
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from conftest import Daemon

DOCKERFILE = """\
ARG BASE=scratch
FROM ${BASE} AS make
RUN echo one > /one && head -c 300000 /dev/urandom > /big
COPY input.txt /
RUN cat /input.txt /one > /two && head -c 16 /dev/urandom | od -An -tx1 > /random
FROM ${BASE}
WORKDIR /work
COPY --from=make /two /random /work/
RUN head -c 16 /dev/urandom | od -An -tx1 > stamp
COPY input.txt /work/
"""
MADE = ["two", "random", "stamp", "input.txt"]


class Case:
    def __init__(self, daemon, context, registry, folder):
        self.daemon, self.registry, self.folder = daemon, registry, folder
        self.path = context(DOCKERFILE, {"input.txt": f"hello {time.time_ns()}"})
        self.count = 0

    def build(self, *more):
        """The client's result and the files that were made."""
        self.count += 1
        out = self.folder / f"out{self.count}"
        r = self.daemon.build(self.path, *more, f"--output=type=local,dest={out}", args={"BASE": self.registry.base})
        return r, {n: (out / "work" / n).read_bytes() for n in MADE}

    def forget(self):
        """A daemon with nothing of its own."""
        assert self.daemon.stop() == 0
        shutil.rmtree(self.daemon.root)
        self.daemon.start()

    def manifest(self, repo, tag="1"):
        kinds = ", ".join(f"application/vnd.oci.image.{k}.v1+json" for k in ("manifest", "index"))
        rq = urllib.request.Request(f"http://{self.registry.host}/v2/{repo}/manifests/{tag}", headers={"Accept": kinds})
        return json.load(urllib.request.urlopen(rq, timeout=10))

    def push(self, repo, data, kind=None):
        """A blob, or with a media type a manifest under the tag 1."""
        base = f"http://{self.registry.host}/v2/{repo}"
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if kind:
            url, head = f"{base}/manifests/1", {"Content-Type": kind}
        else:
            begun = urllib.request.urlopen(urllib.request.Request(f"{base}/blobs/uploads/", method="POST"), timeout=10)
            url, head = begun.headers["Location"] + f"&digest={digest}", {"Content-Type": "application/octet-stream"}
        urllib.request.urlopen(urllib.request.Request(url, data, head, method="PUT"), timeout=10)
        return {"mediaType": kind or "application/octet-stream", "digest": digest, "size": len(data)}


@pytest.fixture
def case(daemon, context, registry, folder):
    return Case(daemon, context, registry, folder)


def steps(result):
    return set(re.findall(r"^#\d+ (\[(?:make|stage-1) \d/\d\] (?:RUN|COPY|WORKDIR).*)$", result.out, re.M))


def all_cached(result):
    assert len(steps(result)) == 7, result.out
    assert steps(result) <= result.cached(), result.out


@pytest.mark.parametrize("form", ["", ",image-manifest=false,oci-mediatypes=false", ",compression=zstd,force-compression=true"])
def test_registry(case, form):
    ref = f"{case.registry.host}/cache/it{abs(hash(form)) % 1000}:1"
    made, files = case.build(f"--export-cache=type=registry,ref={ref},mode=max{form}")
    assert "exporting cache to registry" in made.out and not made.cached()
    case.forget()
    again, same = case.build(f"--import-cache=type=registry,ref={ref}")
    all_cached(again)
    assert same == files
    unrelated, other = case.build()  # what came from there is this daemon's now
    all_cached(unrelated)
    assert other == files


def test_an_import_is_for_its_build_only(case):
    ref = f"{case.registry.host}/cache/only:1"
    case.build(f"--export-cache=type=registry,ref={ref},mode=max")
    case.forget()
    without, _ = case.build()
    assert not any("RUN" in s for s in without.cached()), without.out


def test_folder(case):
    dest = case.folder / "cache"
    _, files = case.build(f"--export-cache=type=local,dest={dest},mode=max")
    index = json.loads((dest / "index.json").read_text())
    assert index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] == "latest"
    case.forget()
    again, same = case.build(f"--import-cache=type=local,src={dest}", f"--export-cache=type=local,dest={dest}-2,mode=max")
    all_cached(again)
    assert same == files
    # Exported again from what was imported, it is the same cache.
    assert json.loads((case.folder / "cache-2/index.json").read_text())["manifests"][0]["digest"] == index["manifests"][0]["digest"]


def test_inline(case):
    name = f"{case.registry.host}/cache/inline:1"
    r = case.daemon.build(case.path, "--export-cache=type=inline", f"--output=type=image,name={name},push=true", args={"BASE": case.registry.base})
    assert "preparing layers for inline cache" in r.out
    case.forget()
    again, _ = case.build(f"--import-cache=type=registry,ref={name}")
    all_cached(again)


def test_a_missing_blob_is_a_miss(case):
    ref = f"{case.registry.host}/cache/holes:1"
    case.build(f"--export-cache=type=registry,ref={ref},mode=max")
    for layer in case.manifest("cache/holes")["layers"]:
        url = f"http://{case.registry.host}/v2/cache/holes/blobs/{layer['digest']}"
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=10)
        except urllib.error.HTTPError as e:
            assert e.code == 404, e  # it is listed twice
    case.forget()
    again, files = case.build(f"--import-cache=type=registry,ref={ref}")
    assert files["two"].startswith(b"hello")
    assert not any("RUN" in s for s in again.cached()), again.out


def test_a_cache_that_is_not_there(case):
    r, files = case.build(f"--import-cache=type=registry,ref={case.registry.host}/cache/nothing:1", f"--import-cache=type=registry,ref=127.0.0.1:1/x:1")
    assert re.search(r"importing cache manifest from \S+nothing:1[\s\S]*ERROR", r.out), r.out
    assert files["two"].startswith(b"hello")


BAD = {
    "text": b"this is no JSON",
    "loop": b'{"records":[{"digest":"sha256:%s","inputs":[[{"link":0}]]}]}' % (b"a" * 64),
    "index": b'{"records":[{"digest":"sha256:%s","inputs":[[{"link":99999999}]]}]}' % (b"a" * 64),
    "deep": b"[" * 100000,
    "large": b'{"records":[' + b'{},' * 400000 + b'{}]}',
    "layers": b'{"layers":[{"blob":"x","parent":0},{"parent":-5}],"records":[{"layers":[{"layer":0}],"digest":"y"}]}',
}


def test_malformed_caches(case):
    mtype, refs = "application/vnd.oci.image.manifest.v1+json", []
    for kind, text in BAD.items():
        config = dict(case.push(f"cache/bad-{kind}", text), mediaType="application/vnd.buildkit.cacheconfig.v0")
        case.push(f"cache/bad-{kind}", json.dumps({"schemaVersion": 2, "mediaType": mtype, "config": config, "layers": []}).encode(), mtype)
        refs.append(f"--import-cache=type=registry,ref={case.registry.host}/cache/bad-{kind}:1")
    r = case.daemon.build(case.path, *refs, "--opt=target=make", args={"BASE": case.registry.base})
    assert set(re.findall(r"^#\d+ ERROR", r.out, re.M)) and len(re.findall(r"^#\d+ ERROR", r.out, re.M)) == len(BAD), r.out


def test_what_is_wrong_is_said(case):
    r = case.daemon.build(case.path, "--export-cache=type=nonsense", args={"BASE": case.registry.base}, code=1)
    assert 'unknown cache exporter: "nonsense"' in r.out, r.out
    wrong = f"--export-cache=type=local,dest={case.folder}/\N{GREEK SMALL LETTER LAMDA}"  # does not fit into a header
    r = case.daemon.build(case.path, wrong, args={"BASE": case.registry.base}, code=1)
    assert "exporting cache to client directory" in r.out and "non-printable ASCII" in r.out, r.out
    case.daemon.build(case.path, wrong + ",ignore-error=true", args={"BASE": case.registry.base})


def test_with_buildkit(case):
    """Either daemon hits what the other one wrote."""
    program = shutil.which("buildkitd")
    if not program or "moby/buildkit" not in subprocess.run([program, "--version"], capture_output=True, text=True).stdout:
        pytest.skip("BuildKit's buildkitd is not installed")

    class Peer(Daemon):
        def command(self, *more):
            return [program, "--root", str(self.root), "--addr", f"unix://{self.socket}"]

    folder = case.folder / "peer"
    folder.mkdir()
    theirs, ours = Peer(folder).start(), case.daemon
    try:
        a, b = f"{case.registry.host}/cache/ours:1", f"{case.registry.host}/cache/theirs:1"
        _, files = case.build(f"--export-cache=type=registry,ref={a},mode=max")
        case.daemon = theirs
        hit, same = case.build(f"--import-cache=type=registry,ref={a}", f"--export-cache=type=registry,ref={b},mode=max")
        all_cached(hit)
        assert same == files
        case.daemon = ours
        case.forget()
        hit, same = case.build(f"--import-cache=type=registry,ref={b}")
        all_cached(hit)
        assert same == files
    finally:
        case.daemon = ours
        theirs.stop()
