"""kill -9 at every change of the disk, during one build that pulls, runs, copies, exports an archive and pushes.

tests/crash/crash.c, preloaded into the daemon, counts renames, links, unlinks, directories, fsyncs, mounts and the database's writes,
and kills the daemon just before the N-th. After each kill: no process of a step is left; a daemon on the same root comes up, holds
no mount, no state of a container, no temporary file, and every blob is what its name says; the build then ends with the right
output, and a last one has every step from the cache.

`make test` takes a sample of the points. All of them, by hand:
  SLIPWAY_TEST_BIN=build/release SLIPWAY_CRASH_POINTS=all pytest -q tests/integ/test_crash_points.py     (or a list: 3,17,200)
"""
import gzip
import hashlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import uuid
from pathlib import Path

import pytest

from conftest import TOP, Daemon, find_program, processes_with, wait_until

SAMPLE = 10
DOCKERFILE = """\
ARG BASE=scratch
FROM ${BASE} AS one
RUN echo %(word)s > /one && mkdir /d && cp /bin/busybox /d/b && rm -rf /etc/passwd
COPY data /data
FROM ${BASE}
COPY --from=one /one /data /out/
RUN --mount=type=cache,target=/c echo x >> /c/x; cat /out/one > /two; echo %(word)s done
"""


def library():
    bin_dir = Path(os.environ.get("SLIPWAY_TEST_BIN") or TOP / "build" / "san")
    path = bin_dir / "tests" / "crash" / "slipway-crash.so"
    if not path.exists():
        pytest.skip(f"{path} is not built")
    return path.resolve()


class CrashDaemon(Daemon):
    """A daemon that is killed at a point; 0: counts them."""

    def start_crashing(self, at):
        env = self.environment()
        env["ASAN_OPTIONS"] += ":verify_asan_link_order=0"
        env.update(LD_PRELOAD=str(library()), SLIPWAY_CRASH_AT=str(at), SLIPWAY_CRASH_COUNT=str(self.folder / "count"))
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        wait_until("slipwayd", lambda: self.process.poll() is not None or self.answers())

    def names(self):
        """The points passed so far."""
        data = (self.folder / "count").read_bytes()
        names = [data[i:i + 16].split(b"\0")[0].decode() for i in range(0, len(data), 16)]
        return names[:next((i for i, n in enumerate(names) if not n), len(names))]


def check_blobs(daemon):
    for path in (daemon.state / "blobs" / "sha256").glob("*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, f"half a blob: {path}"


def outputs(folder, registry):
    return [f"--output=type=oci,dest={folder}/out.tar", f"--output=type=image,name={registry.host}/crash:latest,push=true"]


def check_archive(path, word):
    names = {}
    with tarfile.open(path) as t:
        for m in t:
            if m.isreg() and m.name.startswith("blobs/sha256/"):
                data = t.extractfile(m).read()
                assert hashlib.sha256(data).hexdigest() == m.name.rsplit("/", 1)[1], f"{m.name} holds something else"
                if data[:2] == b"\x1f\x8b":
                    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as layer:
                        names.update({x.name: layer.extractfile(x).read() for x in layer if x.isreg()})
    assert names["two"] == f"{word}\n".encode() and names["out/data"] == b"data of " + word.encode()


def make_context(folder, word):
    path = folder / "context"
    path.mkdir()
    (path / "Dockerfile").write_text(DOCKERFILE % {"word": word})
    (path / "data").write_text("data of " + word)
    return path


def run_point(folder, registry, word, at):
    """Whether the daemon was killed, and the names of the points so far."""
    d = CrashDaemon(folder)
    args = {"BASE": registry.base}
    path = make_context(folder, word)
    d.start_crashing(at)
    client = out = None
    if d.process.poll() is None:
        client = d.start_build(path, *outputs(folder, registry), args=args)
        out = d.finish(client).out
    if client and client.returncode:
        wait_until("slipwayd to end", lambda: d.process.poll() is not None)
    killed = d.process.poll() == -signal.SIGKILL
    names = d.names()
    what = names[-1]
    if not killed:
        code = d.stop()
        killed = code == -signal.SIGKILL
        assert killed or code == 0
        assert client.returncode == 0, f"point {at}, {len(d.names())} passed: {out}{d.log()}"
    d.process = None
    wait_until("the step's processes to end", lambda: not processes_with(word), 20)
    d.start()
    try:
        wait_until(f"a clean state after point {at} ({what})", lambda: not d.leftovers(), 30)
        check_blobs(d)
        r = d.build(path, *outputs(folder, registry), args=args)
        check_archive(folder / "out.tar", word)
        (folder / "out.tar").unlink()
        steps = set(d.build(path, *outputs(folder, registry), args=args).cached())
        assert len([s for s in steps if "RUN" in s or "COPY" in s]) == 4, f"point {at} ({what}): {steps}"
        check_blobs(d)
        wait_until("a clean state", lambda: not d.leftovers(), 30)
        assert d.stop() == 0
    finally:
        if d.process:
            d.kill()
    assert not d.found_by_sanitizers(), d.found_by_sanitizers()
    return killed, names


def points(names):
    wanted = os.environ.get("SLIPWAY_CRASH_POINTS", "")
    if wanted == "all":
        return list(range(1, len(names) + 1))
    if wanted:
        return [int(n) for n in wanted.split(",")]
    telling = [i for i, n in enumerate(names, 1) if n.startswith(("rename", "f", "pwrite", "mount", "link"))]
    return [telling[i * (len(telling) - 1) // SAMPLE] for i in range(SAMPLE)]


def fresh(registry, at):
    """A point in a root of its own."""
    folder = Path(tempfile.mkdtemp(prefix="slipway-it."))
    word = "step-" + uuid.uuid4().hex
    try:
        return run_point(folder, registry, word, at)
    finally:
        for pid in processes_with(word):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def test_kill_9_at_changes_of_the_disk(containers, registry):
    library()
    killed, names = fresh(registry, 0)
    assert not killed and len(names) > 50, f"{len(names)} points: is the library in use?"
    for at in points(names):
        killed, passed = fresh(registry, at)
        print(f"point {at} of {len(names)}: {'killed before ' + passed[-1] if killed else 'not reached'}", flush=True)
