"""`make install`: the programs, manual pages and shell completions, and that nothing is left by `make uninstall`."""
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from conftest import TOP, find_program, need

BIN = Path(os.environ.get("SLIPWAY_TEST_BIN") or TOP / "build" / "san")


def run(*command, env=None, code=0, cwd=None):
    r = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", cwd=cwd,
                       env=dict(os.environ, LC_ALL="C.UTF-8", **(env or {})))
    assert r.returncode == code, f"{command}: exit status {r.returncode}\n{r.stdout}\n{r.stderr}"
    return r


def slipway(*args, **more):
    return run(find_program("slipway", "cli"), *args, **more).stdout


@pytest.fixture(scope="module")
def share(tmp_path_factory):
    """man/ and the completion folders, as the program writes them."""
    folder = tmp_path_factory.mktemp("share")
    slipway("man", "--write", folder / "man")
    slipway("completion", "--write", folder)
    return folder


def files_below(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir() or p.is_symlink()}


# ---- installing ----

def test_meson_install_honours_destdir(tmp_path):
    if not (BIN / "meson-info").is_dir():
        pytest.skip("SLIPWAY_TEST_BIN is not a build folder of meson")
    need("meson")
    run("meson", "install", "-C", BIN, "--no-rebuild", "--quiet", "--destdir", tmp_path)
    (prefix,) = [p.parent for p in tmp_path.rglob("bin") if (p / "slipway").exists()]
    got = files_below(prefix)
    assert {"bin/slipway", "sbin/slipwayd", "share/man/man1/slipway.1", "share/man/man1/slipway-build.1", "share/man/man8/slipwayd.8",
            "share/bash-completion/completions/slipway", "share/zsh/site-functions/_slipway",
            "share/fish/vendor_completions.d/slipway.fish"} <= got
    assert not [name for name in got if "docker-buildx" in name], "the plugin is installed only when asked for"
    for path in prefix.rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_ISLNK(mode) or not mode & 0o022, f"{path} is writable by others"
        assert stat.S_ISLNK(mode) or mode & 0o004, f"{path} is not readable by others"


def test_make_install_and_uninstall(tmp_path):
    """The release build, when it is there and fresh: building it takes too long for a test."""
    release = TOP / "build" / "release"
    if not (release / "build.ninja").exists():
        pytest.skip("there is no release build: make build")
    todo = subprocess.run(["ninja", "-n", "-C", release, "src/daemon/slipwayd", "src/cli/slipway"], capture_output=True, text=True).stdout
    if "no work to do" not in todo:
        pytest.skip("the release build is older than the sources: make build")
    if release.stat().st_uid != os.geteuid():
        pytest.skip("the release build belongs to another user: meson would leave files of ours in it")
    root, other = tmp_path / "root", tmp_path / "root/opt/x/bin/other"
    settings = [f"DESTDIR={root}", "PREFIX=/opt/x", "DOCKER_PLUGIN=yes", "COMPAT_NAMES=yes"]
    try:
        run("make", "-C", TOP, "install", *settings)
        got = files_below(root / "opt/x")
        assert {"bin/slipway", "bin/buildctl", "sbin/slipwayd", "sbin/buildkitd"} <= got
        plugin = root / "opt/x/lib/docker/cli-plugins/docker-buildx"
        assert plugin.resolve() == root / "opt/x/bin/slipway", "the link must hold below DESTDIR"
        assert "SchemaVersion" in run(plugin, "docker-cli-plugin-metadata").stdout
        assert b".debug_info" not in (root / "opt/x/bin/slipway").read_bytes()
        other.write_text("not ours")
        run("make", "-C", TOP, "uninstall", *settings)
        assert files_below(root / "opt/x") == {"bin/other"}
    finally:  # `make install` sets these each time; a bare `meson install` should not find the test's
        run("meson", "configure", release, "-Dprefix=/usr/local", "-Ddocker_plugin=false", "-Dcompat_names=false")


# ---- manual pages ----

def test_manual_pages_name_every_command(share):
    page = (share / "man/man1/slipway.1").read_text()
    for line in slipway("--help").split("Commands:")[1].splitlines():
        if line.startswith("  "):
            name = line.split()[0]
            assert f"slipway\\-{name}" in page and (share / f"man/man1/slipway-{name}.1").exists(), name
    build = (share / "man/man1/slipway-build.1").read_text().replace("\\", "")
    for line in slipway("build", "--help").splitlines():
        if line.lstrip().startswith("-"):
            flag = next(word for word in line.split() if word.startswith("--"))
            assert flag.rstrip(",") in build or flag in ("--builder", "--debug"), flag
    daemon = (share / "man/man8/slipwayd.8").read_text().replace("\\", "")
    assert "--oci-worker-gc" in daemon and "SIGTERM" in daemon


def test_manual_pages_are_good_troff(share):
    pages = sorted((share / "man").rglob("slip*.[18]")) + [share / "man/man1/buildctl.1"]
    assert len(pages) > 5
    if not shutil.which("mandoc") and not shutil.which("man"):
        pytest.skip("neither mandoc nor man-db with groff is installed")
    for page in pages:
        if shutil.which("mandoc"):
            r = run("mandoc", "-T", "lint", "-W", "warning", page)
            assert not r.stdout + r.stderr
        if shutil.which("man") and shutil.which("groff"):
            r = run("man", "-l", "--warnings", page, env={"MANWIDTH": "100", "PAGER": "cat"})
            assert not r.stderr, r.stderr
            assert page.stem in r.stdout


def test_manual_by_command():
    assert ".TH SLIPWAY-BUILD 1" in slipway("man", "build")
    assert ".TH SLIPWAYD 8" in slipway("man", "slipwayd")
    r = run(find_program("slipway", "cli"), "man", "nonsense", code=1)
    assert "nonsense" in r.stderr and "slipwayd" in r.stderr


# ---- completion ----

def test_answers_in_cobras_form():
    out = slipway("__complete", "bu").splitlines()
    assert out[0].startswith("build\t") and out[-1] == ":4"
    assert slipway("__complete", "build", "--progress", "pl") == "plain\n:4\n"
    assert slipway("__complete", "build", "--progress=pl") == "plain\n:4\n"
    assert slipway("__complete", "build", "-t", "x", "-f", "") == ":0\n", "a file"
    assert slipway("__complete", "build", "") == ":16\n", "a folder"
    names = [line.split("\t")[0] for line in slipway("__complete", "build", "--no").splitlines()]
    assert names == ["--no-cache", "--no-cache-filter", ":4"]
    assert slipway("__complete", "no-such-command", "--") .endswith(":4\n")
    assert slipway("__completeDaemon", "--oci-worker-gc-k").startswith("--oci-worker-gc-keepstorage\t")


def test_as_dockers_plugin(tmp_path):
    plugin = tmp_path / "docker-buildx"
    plugin.symlink_to(find_program("slipway", "cli"))
    assert run(plugin, "__complete", "buildx", "bu").stdout.startswith("build\t")


@pytest.mark.parametrize("shell,path", [("bash", "bash-completion/completions/"), ("zsh", "zsh/site-functions/_"),
                                        ("fish", "fish/vendor_completions.d/")])
def test_scripts_parse(share, shell, path):
    need(shell)
    for program in ("slipway", "slipwayd"):
        script = share / f"{path}{program}{'.fish' if shell == 'fish' else ''}"
        run(shell, "-n", script)
        assert script.read_text() == slipway("completion", shell, program)


@pytest.fixture
def path_with_slipway(tmp_path):
    (tmp_path / "slipway").symlink_to(find_program("slipway", "cli"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").touch()
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "cwd": tmp_path}


def test_bash_completes(share, path_with_slipway):
    script = f"""
        source {share}/bash-completion/completions/slipway
        t() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMPREPLY=(); _slipway; echo "${{COMPREPLY[*]}}"; }}
        t slipway bui; t slipway build --no-c; t slipway build --progress tt; t slipway build fol; t slipway build -f fi"""
    cwd = path_with_slipway.pop("cwd")
    out = run("bash", "-c", script, env=path_with_slipway, cwd=cwd).stdout.splitlines()
    assert out == ["build", "--no-cache --no-cache-filter", "tty", "folder", "file.txt"]


def test_fish_completes(share, path_with_slipway):
    need("fish")
    cwd = path_with_slipway.pop("cwd")
    path_with_slipway["HOME"] = str(cwd)
    def ask(line):
        script = f"source {share}/fish/vendor_completions.d/slipway.fish; complete -C '{line}'"
        out = run("fish", "-c", script, env=path_with_slipway, cwd=cwd).stdout
        return [row.split("\t")[0] for row in out.splitlines()]
    assert ask("slipway bui") == ["build"]
    assert ask("slipway build --progress=tt") == ["--progress=tty"]
    assert "folder/" in ask("slipway build fol")


# ---- the release image ----

def test_image_builds_itself():
    """tools/mkimage --twice: minutes, and Debian's packages by apt. Asked for by SLIPWAY_TEST_IMAGE=1."""
    if not os.environ.get("SLIPWAY_TEST_IMAGE"):
        pytest.skip("takes minutes and downloads packages: set SLIPWAY_TEST_IMAGE=1 (and run `make build`)")
    if not (TOP / "build/slipwayd").exists():
        pytest.skip("there is no release build: make build")
    r = run(TOP / "tools/mkimage", "--twice", TOP / "build")
    assert "cache keys" in r.stdout
