"""The client under its own name: `slipway build` and its kin."""
import json
import subprocess

import pytest

from conftest import find_program, need

DOCKERFILE = """\
ARG BASE=scratch
FROM ${BASE} AS make
ARG WHO=nobody
COPY input.txt .
RUN echo "hello $WHO" | tee /out.txt
FROM scratch
COPY --from=make /out.txt input.txt /
LABEL a=b
"""


@pytest.fixture
def project(context, registry):
    return context(DOCKERFILE, {"input.txt": "some text"}), f"--build-arg=BASE={registry.base}"


def test_help_and_version():
    slipway = find_program("slipway", "cli")
    r = subprocess.run([slipway, "version"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert r.stdout.strip()
    r = subprocess.run([slipway, "build", "--help"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert "--build-arg" in r.stdout and "--platform" in r.stdout
    r = subprocess.run([slipway, "build", "--no-such-flag", "."], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert r.returncode != 0 and "no-such-flag" in r.stderr


def test_build_to_a_folder(daemon, project, folder):
    path, base = project
    r = daemon.slipway("build", "--progress=plain", base, "--build-arg", "WHO=there", "-o", f"type=local,dest={folder}/out", path)
    assert "hello there" in r.out
    assert (folder / "out/out.txt").read_text() == "hello there\n"
    assert (folder / "out/input.txt").read_text() == "some text"


def test_file_target_and_label(daemon, project, folder, registry):
    path, base = project
    (path / "Dockerfile").rename(path / "Other.Dockerfile")
    daemon.slipway("build", "--progress=plain", base, "-f", path / "Other.Dockerfile", "--target=make", "-o", f"{folder}/out", path)
    assert (folder / "out/bin/sh").is_symlink()


def test_push_with_a_tag(daemon, project, registry, folder):
    path, base = project
    need("skopeo")
    name = f"{registry.host}/slipway/tagged:3"
    daemon.slipway("build", "--progress=plain", base, "-t", name, "--label", "c=d", "--push", "--metadata-file", folder / "meta.json", path)
    out = subprocess.run(["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"], check=True, capture_output=True, text=True).stdout
    image = json.loads(out)
    assert image["Labels"] == {"a": "b", "c": "d"}
    assert json.loads((folder / "meta.json").read_text())["containerimage.digest"].startswith("sha256:")


def test_dockerfile_from_stdin(daemon, folder):
    """`slipway build - < Dockerfile`: no context."""
    (folder / "text").write_text("FROM scratch\nLABEL x=y\n")
    with open(folder / "text") as f:
        daemon.slipway("build", "--progress=plain", "-o", f"type=oci,dest={folder}/out.tar", "-", stdin=f)
    assert (folder / "out.tar").stat().st_size > 0


def test_failed_step(daemon, context, registry):
    r = daemon.slipway("build", "--progress=plain", context(f"FROM {registry.base}\nRUN exit 9\n"), code=1)
    assert "exit code: 9" in r.out and ">>> RUN exit 9" in r.out


def test_du_and_prune(daemon, project):
    path, base = project
    daemon.slipway("build", "--progress=plain", base, path)
    before = daemon.slipway("du").out
    assert "Total:" in before
    assert "Total:" in daemon.slipway("prune", "--force", "--all").out
    wait = daemon.slipway("build", "--progress=plain", base, path)
    assert not wait.cached(), "what was pruned must be built again"
