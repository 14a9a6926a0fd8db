"""Builds of Dockerfiles through a client: steps, cache, exports, errors."""
import json
import subprocess

import pytest

from conftest import need

TWO_STAGES = """\
ARG BASE=scratch
FROM ${BASE} AS make
WORKDIR /work
COPY input.txt .
RUN tr a-z A-Z < input.txt > output.txt && echo "the step says $(cat output.txt)"
FROM ${BASE}
COPY --from=make /work/output.txt /srv/output.txt
ENV COLOUR=green
CMD ["cat", "/srv/output.txt"]
"""


@pytest.fixture
def two_stages(context, registry):
    path = context(TWO_STAGES, {"input.txt": "hello"})
    return path, {"BASE": registry.base}


def skopeo(*args):
    need("skopeo")
    return json.loads(subprocess.run(["skopeo", *args], check=True, capture_output=True, text=True).stdout)


def test_two_stages_with_a_run(daemon, two_stages, folder):
    path, args = two_stages
    r = daemon.build(path, f"--output=type=local,dest={folder}/out", args=args)
    assert "the step says HELLO" in r.out
    assert (folder / "out/srv/output.txt").read_text() == "HELLO"
    assert (folder / "out/bin/sh").is_symlink()
    assert not (folder / "out/work").exists(), "the first stage must not show"
    assert not daemon.leftovers()


def test_second_build_is_cached_and_a_change_is_not(daemon, two_stages):
    path, args = two_stages
    assert not daemon.build(path, args=args).cached()
    again = daemon.build(path, args=args)
    steps = again.cached()
    assert any("RUN tr" in s for s in steps) and any("COPY --from=make" in s for s in steps), again.out
    assert "says HELLO" not in again.out
    (path / "input.txt").write_text("other")
    changed = daemon.build(path, args=args)
    assert "the step says OTHER" in changed.out
    assert any("WORKDIR" in s for s in changed.cached()) and not any("RUN tr" in s for s in changed.cached())
    no_cache = daemon.build(path, "--no-cache", args=args)
    assert "the step says OTHER" in no_cache.out


def test_same_size_and_mtime_is_still_seen(daemon, two_stages, folder):
    """Never stale: a file changed in place that keeps its size and its time."""
    import os
    path, args = two_stages
    stamp = 1_600_000_000
    os.utime(path / "input.txt", (stamp, stamp))
    assert "the step says HELLO" in daemon.build(path, args=args).out
    (path / "input.txt").write_text("jello")
    os.utime(path / "input.txt", (stamp, stamp))
    assert "the step says JELLO" in daemon.build(path, args=args).out


def test_restart_keeps_hits(daemon, two_stages):
    path, args = two_stages
    daemon.build(path, args=args)
    assert daemon.stop() == 0
    daemon.start()
    assert any("RUN tr" in s for s in daemon.build(path, args=args).cached())


def test_oci_archive(daemon, two_stages, folder):
    path, args = two_stages
    need("skopeo")
    need("umoci")
    tar = folder / "image.tar"
    daemon.build(path, f"--output=type=oci,name=example.test/a:1,dest={tar}", args=args)
    config = skopeo("inspect", "--config", f"oci-archive:{tar}")
    assert "COLOUR=green" in config["config"]["Env"]
    assert config["config"]["Cmd"] == ["cat", "/srv/output.txt"]
    assert len(config["rootfs"]["diff_ids"]) == 2
    assert [h.get("empty_layer", False) for h in config["history"]].count(False) == 2
    subprocess.run(["skopeo", "copy", f"oci-archive:{tar}", f"oci:{folder}/layout:1"], check=True, capture_output=True)
    subprocess.run(["umoci", "unpack", "--image", f"{folder}/layout:1", folder / "bundle"], check=True, capture_output=True)
    assert (folder / "bundle/rootfs/srv/output.txt").read_text() == "HELLO"
    assert (folder / "bundle/rootfs/bin/busybox").stat().st_mode & 0o777 == 0o755


def test_docker_archive_and_tar(daemon, two_stages, folder):
    path, args = two_stages
    need("skopeo")
    daemon.build(path, f"--output=type=docker,name=example.test/a:1,dest={folder}/docker.tar", args=args)
    assert len(skopeo("inspect", f"docker-archive:{folder}/docker.tar")["Layers"]) == 2
    daemon.build(path, f"--output=type=tar,dest={folder}/files.tar", args=args)
    names = subprocess.run(["tar", "-tf", folder / "files.tar"], check=True, capture_output=True, text=True).stdout.split()
    assert "srv/output.txt" in names and "bin/busybox" in names


def test_push(daemon, two_stages, registry):
    path, args = two_stages
    need("skopeo")
    name = f"{registry.host}/pushed/app:2"
    daemon.build(path, f"--output=type=image,name={name},push=true", args=args)
    config = skopeo("inspect", "--config", "--tls-verify=false", f"docker://{name}")
    assert "COLOUR=green" in config["config"]["Env"]
    manifest = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    if "manifests" in manifest:  # an index: one platform and its attestation
        assert manifest["manifests"][0]["platform"]["os"] == "linux"
    # What was pushed can be built upon.
    assert daemon.build(path, args={"BASE": name}).code == 0


def test_build_arguments_secrets_and_cache_mounts(daemon, context, registry, folder):
    path = context("""\
ARG BASE=scratch
FROM ${BASE}
ARG WHO=nobody
RUN --mount=type=secret,id=word test "$(cat /run/secrets/word)" = xyzzy && echo "who is $WHO"
RUN --mount=type=cache,target=/c echo one >> /c/n && echo "lines $(wc -l < /c/n)"
RUN test ! -e /run/secrets/word && test ! -e /c/n
""")
    (folder / "secret").write_text("xyzzy")
    secret = f"--secret=id=word,src={folder}/secret"
    r = daemon.build(path, secret, args={"BASE": registry.base, "WHO": "me"})
    assert "who is me" in r.out and "lines 1" in r.out
    r = daemon.build(path, secret, args={"BASE": registry.base, "WHO": "you"})
    assert "who is you" in r.out and "lines 2" in r.out


def test_dockerignore(daemon, context, registry, folder):
    path = context("FROM scratch\nCOPY . /\n", {"keep.txt": "1", "drop.log": "2", "sub/drop.log": "3", "sub/keep.txt": "4",
                                               ".dockerignore": "**/*.log\nDockerfile\n"})
    daemon.build(path, f"--output=type=local,dest={folder}/out")
    names = sorted(str(p.relative_to(folder / "out")) for p in (folder / "out").rglob("*") if p.is_file())
    assert names == [".dockerignore", "keep.txt", "sub/keep.txt"]


# ---- errors ----

def test_failed_step_shows_the_line_and_the_exit_code(daemon, context, registry):
    path = context(f"FROM {registry.base}\nRUN true\nRUN echo going down; exit 37\n")
    r = daemon.build(path, code=1)
    assert "going down" in r.out
    assert "exit code: 37" in r.out
    assert "Dockerfile:3" in r.out and ">>> RUN echo going down; exit 37" in r.out


@pytest.mark.parametrize("text, line, words", [
    ("FROM scratch\nCOYP a b\n", "Dockerfile:2", "unknown instruction: COYP"),
    ("FROM scratch\nCOPY missing.txt /\n", "Dockerfile:2", "missing.txt"),
    ("FROM scratch\nCOPY --from=nowhere /a /b\n", None, "nowhere"),
    ("RUN true\n", None, "no build stage in current context"),
    ("", None, "empty"),
], ids=["instruction", "file", "stage", "no-from", "empty"])
def test_dockerfile_errors(daemon, context, text, line, words):
    r = daemon.build(context(text), code=1)
    assert words in r.out
    if line:
        assert line in r.out and ">>>" in r.out


def test_missing_image(daemon, context, registry):
    r = daemon.build(context(f"FROM {registry.host}/nothing/here:1\nRUN true\n"), code=1)
    assert f"{registry.host}/nothing/here:1" in r.out and "not found" in r.out


def test_no_dockerfile(daemon, folder):
    (folder / "empty").mkdir()
    r = daemon.build(folder / "empty", code=1)
    assert "Dockerfile" in r.out and "no such file or directory" in r.out
