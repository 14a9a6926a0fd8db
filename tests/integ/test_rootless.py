"""An ordinary user, made for the test: slipwayd in a user namespace (rootlesskit, unshare), and `slipway build`, which starts one of the user's own.

The user's home and runtime folder are below the test's folder. The user and the lines in /etc/subuid go at the end.
"""
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from conftest import WAIT_S, Daemon, find_program, need, wait_until

USER = "slipwaytest"
BARE_PATH = "/usr/local/bin:/usr/bin:/bin"


class User:
    def __init__(self, home):
        self.home, self.run_dir = home, home / "run"
        self.env = {"PATH": BARE_PATH, "HOME": str(home), "XDG_RUNTIME_DIR": str(self.run_dir), "LANG": "C.UTF-8",
                    "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}

    def command(self, *command):
        return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--inh-caps=-all", "env", "-i",
                *(f"{k}={v}" for k, v in self.env.items()), *map(str, command)]

    def run(self, *command, code=0, stdin=subprocess.DEVNULL):
        p = subprocess.run(self.command(*command), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                           timeout=3 * WAIT_S, cwd=self.home)
        assert code is None or p.returncode == code, f"{command}: exit status {p.returncode}\n{p.stdout}\n{self.log()}"
        return p.stdout

    def log(self):
        path = self.home / ".local/share/slipway/slipwayd.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def processes(self, name):
        uid = str(pwd.getpwnam(USER).pw_uid)
        found = []
        for p in Path("/proc").iterdir():
            try:
                status = (p / "status").read_text() if p.name.isdigit() and (p / "comm").read_text().strip() == name else ""
                if f"Uid:\t{uid}\t" in status and "State:\tZ" not in status:
                    found.append(int(p.name))
            except OSError:
                pass
        return found

    def end_all(self):
        for name in ("slipwayd", "rootlesskit"):
            for pid in self.processes(name):
                os.kill(pid, signal.SIGTERM)
            try:
                wait_until(f"{name} to end", lambda: not self.processes(name), 10)
            except pytest.fail.Exception:
                for pid in self.processes(name):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def account(containers):
    """An account with subordinate ids of its own."""
    for program in ("useradd", "userdel", "setpriv", "unshare"):
        need(program)
    if not shutil.which("newuidmap"):
        pytest.skip("newuidmap is not installed (Debian: uidmap)")
    try:
        pwd.getpwnam(USER)
    except KeyError:
        subprocess.run(["useradd", "--no-create-home", "--home-dir", "/nonexistent", USER], check=True)
    try:
        if f"{USER}:" not in Path("/etc/subuid").read_text():
            subprocess.run(["usermod", "--add-subuids", "500000-565535", "--add-subgids", "500000-565535", USER], check=True)
        p = subprocess.run(["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "unshare", "-Urm", "--map-auto", "true"], capture_output=True, text=True)
        if p.returncode:
            pytest.skip(f"an ordinary user may not make a user namespace with subordinate ids here: {p.stderr.strip()}")
        yield
    finally:
        subprocess.run(["userdel", USER], capture_output=True)


@pytest.fixture
def user(account, folder):
    home = folder / "home"
    home.mkdir()
    u = User(home)
    u.run_dir.mkdir(mode=0o700)
    for name, part in (("slipwayd", "daemon"), ("slipway", "cli")):  # the build folder may be one that only root can enter
        shutil.copy(find_program(name, part), home / name)
    for p in (home, *home.iterdir()):
        shutil.chown(p, USER, USER)
    folder.chmod(0o755)
    yield u
    u.end_all()
    assert "runtime error" not in u.log() and "AddressSanitizer" not in u.log(), u.log()


@pytest.fixture
def sources(user, registry, context):
    """A build in which owners, modes and deletions matter."""
    return context(f"""FROM {registry.base} AS a
ARG TURN
RUN echo "turn $TURN"; id -u; rm /bin/ls; rm -r /usr; mkdir /usr; touch /usr/x; chown 5:6 /tmp; ln /etc/passwd /etc/p2
RUN mkdir -p /w/d && chown 1234:1 /w/d
USER 1234
RUN id -u; touch /w/d/b
USER 0
RUN --mount=type=cache,target=/c touch /c/x; chown 65000:65000 /w/d/b; rm /usr/x
RUN (sleep 0.3; echo late) & echo "me: $$"
FROM scratch
COPY --from=a /w /w
COPY --chown=77:78 Dockerfile /x
""")


def owners(user, *command):
    """Build with this client into a tar; {name: owner}."""
    import tarfile
    out = user.home / "out.tar"
    text = user.run(*command, "--output", f"type=tar,dest={out}")
    with tarfile.open(out) as tar:
        return text, {m.name.rstrip("/"): (m.uid, m.gid) for m in tar}


EXPECTED = {"w": (0, 0), "w/d": (1234, 1), "w/d/b": (65000, 65000), "x": (77, 78)}


@pytest.mark.parametrize("how", ["rootlesskit", "unshare"])
def test_daemon(user, sources, how, folder):
    """slipwayd as the mapped root: with rootlesskit as BuildKit's manual has it, and with unshare."""
    need(how)
    address = f"unix://{user.run_dir}/d.sock"
    more = [] if how == "rootlesskit" else ["-Urm", "--map-auto"]
    user.env["USER"] = USER
    with open(folder / "daemon.log", "wb") as log:
        p = subprocess.Popen(user.command(how, *more, "env", "PATH=/usr/sbin:" + BARE_PATH, user.home / "slipwayd", "--addr", address, "--debug"),
                             stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=user.home)
    try:
        wait_until("the socket", lambda: (user.run_dir / "d.sock").exists() or p.poll() is not None)
        assert p.poll() is None, (folder / "daemon.log").read_text()
        text, found = owners(user, user.home / "slipway", "--builder", address, "build", "--progress=plain", sources)
        assert found == EXPECTED, text
        assert (user.home / ".local/share/buildkit/slipway/db.sqlite").exists()
        snapshots = user.home / ".local/share/buildkit/slipway/snapshots"
        uids = {e.stat(follow_symlinks=False).st_uid for d in snapshots.iterdir() if (d / "fs").is_dir() for e in os.scandir(d / "fs")}
        assert 0 not in uids and pwd.getpwnam(USER).pw_uid in uids
        assert "overlayfs cannot be used" not in (folder / "daemon.log").read_text()
    finally:
        user.end_all()
        p.wait(WAIT_S)


def test_no_process_sandbox(user, sources, folder):
    """Steps see the daemon's processes; the flag is refused where it makes no sense."""
    need("runc")
    address = f"unix://{user.run_dir}/d.sock"
    with open(folder / "daemon.log", "wb") as log:
        p = subprocess.Popen(user.command("unshare", "-Urm", "--map-auto", "env", f"USER={USER}", "PATH=/usr/sbin:" + BARE_PATH, user.home / "slipwayd",
                                          "--addr", address, "--debug", "--oci-worker-no-process-sandbox"), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until("the socket", lambda: (user.run_dir / "d.sock").exists() or p.poll() is not None)
        text, found = owners(user, user.home / "slipway", "--builder", address, "build", "--progress=plain", sources)
        assert found == EXPECTED, text
        assert "me: 1\n" not in text and "me: " in text
    finally:
        user.end_all()
        p.wait(WAIT_S)
    d = Daemon(folder)
    p = subprocess.run(d.command("--rootless=false", "--oci-worker-no-process-sandbox"), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT_S)
    assert p.returncode == 1 and "NoProcessSandbox" in p.stderr


@pytest.mark.parametrize("how", ["rootlesskit", "newuidmap"])
def test_build_starts_one(user, sources, how, folder):
    """`slipway build` with no daemon anywhere."""
    need(how)
    if how == "newuidmap":  # everything but rootlesskit
        bin_dir = folder / "bin"
        bin_dir.mkdir()
        for d in ("/usr/bin", "/usr/sbin"):
            for p in os.scandir(d):
                if not p.name.startswith("rootlesskit") and not (bin_dir / p.name).exists():
                    os.symlink(p.path, bin_dir / p.name)
        user.env["PATH"] = str(bin_dir)
    text, found = owners(user, user.home / "slipway", "build", "--progress=plain", "--build-arg=TURN=1", sources)
    assert found == EXPECTED, text
    assert len(user.processes("slipwayd")) == 1 and bool(user.processes("rootlesskit")) == (how == "rootlesskit")
    assert (user.run_dir / "slipway/slipwayd.sock").exists()
    assert (user.home / ".local/share/slipway/slipway/db.sqlite").exists()
    first = user.processes("slipwayd")
    text, found = owners(user, user.home / "slipway", "build", "--progress=plain", "--build-arg=TURN=1", sources)
    assert found == EXPECTED and "CACHED" in text
    assert user.processes("slipwayd") == first
    assert f"{user.run_dir}/slipway/slipwayd.sock" in user.run(user.home / "slipway", "ls")


def test_two_at_once(user, sources):
    """Two clients start a daemon at the same time: one daemon, two builds."""
    clients = [subprocess.Popen(user.command(user.home / "slipway", "build", "--progress=plain", f"--build-arg=TURN={i}", sources), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=user.home) for i in range(2)]
    for c in clients:
        out, _ = c.communicate(timeout=2 * WAIT_S)
        assert c.returncode == 0, out
    time.sleep(0.5)
    assert len(user.processes("slipwayd")) == 1


def test_what_is_missing(user, folder, sources):
    """Nothing is started, and the message says what to do."""
    bin_dir = folder / "bin"
    bin_dir.mkdir()
    os.symlink("/usr/bin/env", bin_dir / "env")
    user.env["PATH"] = str(bin_dir)
    out = user.run(user.home / "slipway", "build", sources, code=1)
    assert "newuidmap is not installed (Debian: apt-get install uidmap)" in out and "--builder ADDRESS or BUILDKIT_HOST" in out
    user.env["PATH"] = BARE_PATH
    files = {name: Path(name).read_text() for name in ("/etc/subuid", "/etc/subgid")}
    try:
        for name, text in files.items():
            Path(name).write_text("".join(line for line in text.splitlines(True) if not line.startswith(USER)))
        out = user.run(user.home / "slipway", "build", sources, code=1)
    finally:
        for name, text in files.items():
            Path(name).write_text(text)
    assert f"{USER} has no subordinate ids in /etc/subuid" in out and "usermod --add-subuids" in out
    # a place where user namespaces are forbidden
    holder = subprocess.Popen(["unshare", "-U", "sleep", "infinity"], stdin=subprocess.DEVNULL)
    try:
        wait_until("the namespace", lambda: Path(f"/proc/{holder.pid}/cmdline").read_bytes().startswith(b"sleep"))
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{name}").write_text("0 0 4294967295")
        inside = ["nsenter", "-t", str(holder.pid), "-U", "--preserve-credentials"]
        subprocess.run([*inside, "sh", "-c", "echo 0 > /proc/sys/user/max_user_namespaces"], check=True)
        p = subprocess.run([*inside, *user.command(user.home / "slipway", "build", sources)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=WAIT_S)
    finally:
        holder.kill()
        holder.wait()
    assert p.returncode == 1
    assert "/proc/sys/user/max_user_namespaces is 0" in p.stdout and "sysctl -w user.max_user_namespaces=" in p.stdout
    # the daemon without a namespace
    out = user.run(user.home / "slipwayd", "--root", user.home / "r", "--addr", f"unix://{user.home}/d.sock", code=1)
    assert "rootless mode requires to be executed as the mapped root in a user namespace" in out and "rootlesskit slipwayd" in out


def test_inside_a_namespace(user, sources):
    """`slipway build` by one who is root of a user namespace already: the user's folders, no further namespace."""
    user.env["USER"] = USER
    user.env["PATH"] = "/usr/sbin:" + BARE_PATH
    text, found = owners(user, "unshare", "-Urm", "--map-auto", user.home / "slipway", "build", "--progress=plain", sources)
    assert found == EXPECTED, text
    assert (user.home / ".local/share/slipway/slipway/db.sqlite").exists() and not user.processes("rootlesskit")
