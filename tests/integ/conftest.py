"""What the integration tests stand on: a registry and a daemon of our own, and the clients that talk to them.

Everything lives below one temporary folder and on loopback ports or private sockets, and is ended by its process id. Settings:
  SLIPWAY_TEST_BIN        a build folder (build/san), or a folder that holds slipwayd and slipway
  SLIPWAY_TEST_BUILDCTL   another program to be used where a test calls `buildctl` (BuildKit's own, for trying)
  SLIPWAY_TEST_PEER       1: the daemon is BuildKit's (to try the tests themselves): its exit status is not looked at
  SLIPWAY_TEST_LOG        1: print the daemon's log of each test
"""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
WAIT_S = 60  # a sanitizer build on a busy machine is slow


# ---- programs ----

def find_program(name, folder):
    bin_dir = Path(os.environ.get("SLIPWAY_TEST_BIN") or TOP / "build" / "san")
    for path in (bin_dir / "src" / folder / name, bin_dir / name):
        if path.exists():
            return path.resolve()
    pytest.exit(f"{name} is not in {bin_dir}: run `make san`, or set SLIPWAY_TEST_BIN", returncode=3)


def need(program):
    """Skip unless the program is there."""
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")


def wait_until(what, ready, timeout=WAIT_S):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        answer = ready()
        if answer:
            return answer
        time.sleep(0.05)
    pytest.fail(f"waited {timeout} s for {what}")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def processes_with(word):
    """The ids of the processes that have the word in their command line."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and int(entry) != os.getpid() and word.encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                found.append(int(entry))
        except OSError:
            pass
    return found


@pytest.fixture(scope="session")
def containers():
    """Skip where steps cannot run: it takes root, a mount namespace and a runtime."""
    if os.geteuid() != 0:
        pytest.skip("needs root: containers and mounts")
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode:
        pytest.skip("needs a mount namespace: CAP_SYS_ADMIN is missing")
    if not (shutil.which("crun") or shutil.which("runc")):
        pytest.skip("crun or runc is not installed")


# ---- the registry ----

class Registry:
    def __init__(self, folder):
        need("docker-registry")
        self.host = f"127.0.0.1:{free_port()}"
        config = folder / "registry.yml"
        config.write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {folder}/registry}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.host}'}}\n")
        self.log = open(folder / "registry.log", "wb")
        self.process = subprocess.Popen(["docker-registry", "serve", config], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        wait_until("docker-registry", self.answers)
        self.base = f"{self.host}/busybox:latest"
        subprocess.run([TOP / "tools" / "mkbase", self.base], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def answers(self):
        try:
            return urllib.request.urlopen(f"http://{self.host}/v2/", timeout=5).status == 200
        except OSError:
            return False

    def stop(self):
        self.process.terminate()
        self.process.wait(WAIT_S)
        self.log.close()


@pytest.fixture(scope="session")
def registry():
    if not (os.path.exists("/bin/busybox") or os.path.exists("/usr/bin/busybox")):
        pytest.skip("busybox-static is not installed")
    folder = Path(tempfile.mkdtemp(prefix="slipway-registry."))
    r = Registry(folder)
    yield r
    r.stop()
    shutil.rmtree(folder)


# ---- the daemon and its clients ----

class Result:
    """What a client did: exit status and everything it printed."""

    def __init__(self, process, out):
        self.code, self.out = process.returncode, out

    def cached(self):
        """The names of the steps that came from the cache."""
        names = dict(re.findall(r"^#(\d+) (\[.*)$", self.out, re.M))
        return {names[n] for n in re.findall(r"^#(\d+) CACHED$", self.out, re.M) if n in names}


class Daemon:
    def __init__(self, folder):
        self.folder = folder
        self.root, self.socket, self.log_path = folder / "root", folder / "d.sock", folder / "daemon.log"
        self.state = self.root / "slipway"
        self.process = None
        self.reports = folder / "sanitizer"

    # -- its life

    def environment(self):
        """The sanitizers write what they find to files and to the log, which the fixture reads at the end. Leaks at exit are not looked for: the
        daemon ends without freeing what the kernel frees anyway (the unit tests do look)."""
        return dict(os.environ,
                    ASAN_OPTIONS=f"detect_leaks=0:exitcode=99:log_path={self.reports}",
                    UBSAN_OPTIONS="halt_on_error=0:print_stacktrace=1")

    def command(self, *more):
        return [str(find_program("slipwayd", "daemon")), "--root", str(self.root), "--addr", f"unix://{self.socket}", "--debug", *more]

    def start(self, *more):
        assert self.process is None
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(*more), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment())
        wait_until("slipwayd", self.answers)
        return self

    def answers(self):
        assert self.process.poll() is None, f"slipwayd ended at once ({self.process.returncode}):\n{self.log()}"
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(str(self.socket))
                return True
            except OSError:
                return False

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def end(self, how):
        self.process.send_signal(how)
        try:
            code = self.process.wait(WAIT_S)
            return 0 if os.environ.get("SLIPWAY_TEST_PEER") else code
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"slipwayd did not end within {WAIT_S} s of {how.name}:\n{self.log()}")
        finally:
            self.process = None

    def stop(self):
        return self.end(signal.SIGTERM)

    def kill(self):
        return self.end(signal.SIGKILL)

    def log(self):
        return self.log_path.read_text(errors="replace")[-8000:]

    def found_by_sanitizers(self):
        found = [p.read_text(errors="replace") for p in self.folder.glob("sanitizer.*")]
        log = self.log_path.read_text(errors="replace")
        at = log.find(": runtime error: ")  # UBSan writes to the log and goes on
        if at >= 0:
            found.append(log[log.rfind("\n", 0, at) + 1:at + 2000])
        return "".join(found)

    # -- its clients

    def client(self, *args, **more):
        """Start a client under the name `buildctl`."""
        program = os.environ.get("SLIPWAY_TEST_BUILDCTL")
        if not program:
            program = self.folder / "buildctl"
            try:  # tests start clients from several threads
                program.symlink_to(find_program("slipway", "cli"))
            except FileExistsError:
                pass
        command = [str(program), "--addr", f"unix://{self.socket}", *map(str, args)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                env=self.environment(), text=True, errors="replace", **more)

    def slipway(self, *args, code=0, stdin=subprocess.DEVNULL):
        """Our client under its own name: the commands and flags of buildx."""
        command = [str(find_program("slipway", "cli")), "--builder", f"unix://{self.socket}", *map(str, args)]
        p = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.environment(), text=True,
                             errors="replace", cwd=self.folder)
        r = self.finish(p)
        assert r.code == code, f"{args}: exit status {r.code}, expected {code}\n{r.out}\n--- daemon\n{self.log()}"
        return r

    def finish(self, process, timeout=3 * WAIT_S):
        try:
            out, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
            pytest.fail(f"the client did not end within {timeout} s:\n{out}\n--- daemon\n{self.log()}")
        return Result(process, out)

    def ctl(self, *args):
        r = self.finish(self.client(*args))
        assert r.code == 0, f"{args}: {r.code}\n{r.out}\n--- daemon\n{self.log()}"
        return r.out

    def start_build(self, context, *more, args=None):
        options = [f"--opt=build-arg:{k}={v}" for k, v in (args or {}).items()]
        return self.client("build", "--progress=plain", "--frontend=dockerfile.v0", f"--local=context={context}",
                           f"--local=dockerfile={context}", *options, *more)

    def build(self, context, *more, args=None, code=0):
        """Build and expect this exit status (None: any)."""
        r = self.finish(self.start_build(context, *more, args=args))
        if code is not None:
            assert r.code == code, f"exit status {r.code}, expected {code}:\n{r.out}\n--- daemon\n{self.log()}"
        return r

    # -- what it leaves behind

    def leftovers(self):
        """What no idle daemon may hold: mounts in its namespace, runtime state, folders of steps, temporary files."""
        found = []
        with open(f"/proc/{self.process.pid}/mountinfo") as f:
            found += [line.split()[4] for line in f if str(self.folder) in line.split()[4]]
        for name in ("exec", "runtime/bundles", "tmp"):
            found += [str(p) for p in (self.state / name).glob("*")]
        return found


@pytest.fixture
def folder():
    """Short, for the sockets in it."""
    path = Path(tempfile.mkdtemp(prefix="slipway-it."))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def daemon(folder, containers):
    d = Daemon(folder).start()
    yield d
    code = d.stop() if d.process else 0
    if os.environ.get("SLIPWAY_TEST_LOG"):
        sys.stderr.write(d.log())
    found = d.found_by_sanitizers()
    assert not found, found
    assert code == 0, f"slipwayd ended with {code}:\n{d.log()}"


@pytest.fixture
def context(folder):
    """A build context: context(Dockerfile text, name=content, ...)."""
    def make(dockerfile, files={}, name="context"):
        path = folder / name
        path.mkdir(exist_ok=True)
        (path / "Dockerfile").write_text(dockerfile)
        for file, content in files.items():
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            (path / file).write_text(content)
        return path
    return make
