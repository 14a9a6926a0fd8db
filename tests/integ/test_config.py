"""The configuration of the real daemon: what it says, what it refuses, and what a reload does to it while it works."""
import http.server
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from conftest import WAIT_S, Daemon, find_program, free_port, need, wait_until


def slipwayd(*args, cwd=None):
    return subprocess.run([find_program("slipwayd", "daemon"), *map(str, args)], capture_output=True, text=True, timeout=WAIT_S, cwd=cwd)


# ---- check-config ----

@pytest.mark.parametrize("text, said", [
    ('max-paralelism = 4\n', "f.toml:1:1: unknown key max-paralelism is ignored"),
    ('[worker.oci]\n  max-paralelism = 4\n', "f.toml:2:3: unknown key worker.oci.max-paralelism is ignored, did you mean max-parallelism?"),
    ('max-parallelism = 4\n', "f.toml:1:1: unknown key max-parallelism is ignored, it belongs to [worker.oci]"),
    ('[workers.oci]\ngc = true\n', "f.toml:1:2: unknown section workers is ignored, did you mean worker?"),
    ('[worker.oci]\nmax-parallelism = "four"\n', "f.toml:2:1: worker.oci.max-parallelism: expected an integer, found a string"),
    ('debug = "yes"\n', "f.toml:1:1: debug: expected a boolean, found a string"),
    ('debug = true\n[registry."docker.io"\n', "f.toml:2:"),
    ('[registry."docker.io"]\nmirrors = ["https://mirror.gcr.io"]\n', 'f.toml:2:12: registry."docker.io".mirrors: the scheme of https://mirror.gcr.io is dropped'),
    ('[registry.docker.io]\nmirrors = ["m"]\n', 'write [registry."docker.io"]'),
    ('[registry."r.corp"]\nca = ["nosuch.pem"]\n', 'f.toml:2:7: registry."r.corp".ca: certificate nosuch.pem: No such file or directory'),
    ('[registry."r.corp"]\nca = ["f.toml"]\n', "f.toml: is no PEM certificate"),
    ('[grpc.tls]\ncert = "nosuch.pem"\nkey = "nosuch.key"\n', "f.toml:2:1: grpc.tls.cert: certificate nosuch.pem: No such file"),
    ('[log]\nlevel = "loud"\n', "f.toml:2:1: log.level: unsupported log level: loud"),
    ('[system]\nmaxRegistryConcurrency = 0\n', "f.toml:2:1: system.maxRegistryConcurrency: maxRegistryConcurrency must be greater than zero"),
    ('[[registry."docker.io".mirror]]\nhost = "http://m"\n', "f.toml:2:1: registry.\"docker.io\".mirror[0].host: http://m has a scheme"),
])
def test_check_config_names_the_place_and_what_is_right(folder, text, said):
    (folder / "f.toml").write_text(text)
    r = slipwayd("check-config", "f.toml", cwd=folder)
    assert r.returncode == 1, r
    assert "error: " in r.stderr and said in r.stderr


def test_check_config_warns_without_failing(folder):
    (folder / "f.toml").write_text('DEBUG = true\n[Worker.OCI]\nselinux = true\nGCKeepStorage = "1GB"\ncniConfigPath = "/nosuch"\n')
    r = slipwayd("check-config", "f.toml", cwd=folder)
    assert r.returncode == 0, r
    for said in ("warning: f.toml:1:1: 'debug' configuration option is deprecated", "f.toml:3:1: worker.oci.selinux is not built yet",
                 "f.toml:4:1: 'worker.oci.gckeepstorage' configuration option is deprecated, use reservedSpace",
                 "f.toml:5:1: worker.oci.cniConfigPath: /nosuch: No such file"):
        assert said in r.stderr
    r = slipwayd("check-config", "nosuch.toml", cwd=folder)
    assert r.returncode == 1 and "nosuch.toml: the configuration file does not exist" in r.stderr


def test_effective_says_where_values_come_from(folder, monkeypatch):
    monkeypatch.setenv("BUILDKITD_DEBUGADDR", "127.0.0.1:6060")
    (folder / "f.toml").write_text('root = "/from/file"\n[log]\nlevel = "warn"\n[registry."docker.io"]\nmirrors = ["m.corp"]\n')
    r = slipwayd("check-config", "--effective", "--log-level", "debug", "f.toml", cwd=folder)
    assert r.returncode == 0, r
    for line in ('root = "/from/file"  # f.toml:1', 'log.level = "debug"  # flag --log-level', 'log.format = "text"  # default',
                 'registry."docker.io".mirrors = ["m.corp"]  # f.toml:5', 'grpc.debugAddress = "127.0.0.1:6060"  # environment BUILDKITD_DEBUGADDR'):
        assert line in r.stdout.splitlines()


# ---- the daemon at its start ----

@pytest.mark.parametrize("text, said", [
    ('[worker.oci]\ngc = "no"\n', "failed to parse config: f.toml:2:1: worker.oci.gc: expected a boolean, found a string"),
    ('[registry."r.corp"]\nca = ["/nosuch.pem"]\n', "certificate /nosuch.pem: No such file"),
    ('strict = true\nno-such-key = 1\n', "f.toml:2:1: unknown key no-such-key is ignored (strict = true)"),
    (None, "f.toml: the configuration file does not exist"),
])
def test_daemon_refuses(folder, text, said):
    if text:
        (folder / "f.toml").write_text(text)
    r = slipwayd("--config", "f.toml", "--root", "root", "--addr", f"unix://{folder}/s", cwd=folder)
    assert r.returncode == 1 and said in r.stderr, r
    assert not (folder / "root").exists(), "it must refuse before it does anything"


class Configured(Daemon):
    """A daemon with a file, and the flags of the others but --debug."""

    def __init__(self, folder, text=""):
        super().__init__(folder)
        self.config = folder / "buildkitd.toml"
        self.config.write_text(text)

    def command(self, *more):
        return [w for w in super().command("--config", str(self.config), *more) if w != "--debug"]

    def whole_log(self):
        return self.log_path.read_text(errors="replace").replace('\\"', '"')

    def processes(self):
        """How many steps run."""
        return len(list((self.state / "runtime" / "bundles").glob("*")))

    def configure(self, text, said="configuration reloaded", hup=True):
        """Write the file as an editor does, and wait until the daemon says so."""
        before = self.whole_log().count(said)
        new = self.config.with_suffix(".new")
        new.write_text(text)
        new.rename(self.config)
        if hup:
            self.process.send_signal(signal.SIGHUP)
        wait_until(said, lambda: self.whole_log().count(said) > before)


@pytest.fixture
def configured(folder, containers):
    made = []

    def make(text="", *flags):
        d = Configured(folder, text).start(*flags)
        made.append(d)
        return d
    yield make
    for d in made:
        assert d.stop() == 0, d.log()
        assert not d.found_by_sanitizers(), d.found_by_sanitizers()


def test_unknown_keys_warn_and_work(configured):
    d = configured('[worker.oci]\nmax-paralelism = 4\n[worker.oci.labels]\nfoo = "bar"\n')
    assert "did you mean max-parallelism?" in d.whole_log()
    assert "foo" in d.ctl("debug", "workers", "-v")


# ---- reload ----

class Mirror:
    """A registry on loopback that passes on what the real one has, and remembers what it was asked for."""

    def __init__(self, upstream):
        self.asked, self.credentials = asked, credentials = [], []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                asked.append((self.command, self.path))
                path = self.path.split("?")[0].replace("/v2/proxy/cache/", "/v2/")
                if self.headers.get("Authorization"):
                    credentials.append(self.headers["Authorization"])
                request = urllib.request.Request(f"http://{upstream}{path}", method=self.command)
                if self.headers.get("Accept"):
                    request.add_header("Accept", self.headers["Accept"])
                try:
                    r = urllib.request.urlopen(request, timeout=30)
                except urllib.error.HTTPError as e:
                    r = e
                body = r.read()
                self.send_response(r.status)
                for key in ("Content-Type", "Docker-Content-Digest"):
                    if r.headers.get(key):
                        self.send_header(key, r.headers[key])
                self.send_header("Content-Length", r.headers.get("Content-Length", len(body)) if self.command == "HEAD" else len(body))
                self.end_headers()
                self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def blobs(self):
        return [p for _, p in self.asked if "/blobs/" in p]

    def config(self, more=""):
        return f'{more}\n[registry."app.test"]\nmirrors = ["{self.host}"]\n'


@pytest.fixture
def mirrors(registry):
    """Two of them, before a registry that has app.test's busybox and a second image."""
    made = [Mirror(registry.host), Mirror(registry.host)]
    yield made
    for m in made:
        m.server.shutdown()
        m.server.server_close()


@pytest.fixture(scope="session")
def second_image(registry, tmp_path_factory):
    """Another layer than the base's."""
    folder = tmp_path_factory.mktemp("second")
    (folder / "second.txt").write_text("second\n")
    tar = folder / "second.tar"
    subprocess.run(["tar", "-C", folder, "-cf", tar, "second.txt"], check=True)
    from conftest import TOP
    subprocess.run([TOP / "tools" / "mkbase", "--rootfs", tar, f"{registry.host}/second:1", f"{registry.host}/third:1"], check=True, stdout=subprocess.DEVNULL)


def test_mirror_swapped_during_a_build(configured, mirrors, second_image, context, folder):
    one, two = mirrors
    d = configured(one.config())
    gate = folder / "gate"
    slow = context("FROM app.test/busybox AS run\nRUN --mount=type=secret,id=x echo begun; sleep 4; echo done >/done\n"
                   "FROM app.test/second:1\nCOPY --from=run /done /done\n", name="slow")
    gate.write_text("x")
    build = d.start_build(slow, f"--secret=id=x,src={gate}", f"--output=type=tar,dest={folder}/out.tar")
    wait_until("the pull of the base", one.blobs)
    time.sleep(1)
    before = len(one.blobs())
    d.configure(two.config(), hup=False)  # the watch sees it
    assert "registry changed" in d.whole_log()
    assert build.poll() is None, "the build must still run"
    r = d.finish(build)
    assert r.code == 0, r.out
    assert two.asked == [], "the build that ran keeps its mirror"
    assert len(one.blobs()) > before, "the second image's layer came after the reload, from the old mirror"
    other = context("FROM app.test/third:1\nCOPY Dockerfile /\n", name="other")
    d.build(other, "--no-cache")
    assert two.asked, "a build that starts now uses the new mirror"
    asked = len(one.asked)

    # a bad file keeps what holds, and says why
    d.configure('[registry."app.test"]\nmirrors = "none"\n', "configuration not reloaded, the old settings stay: ")
    assert 'buildkitd.toml:2:1: registry."app.test".mirrors: expected an array of strings, found a string' in d.whole_log()
    d.build(context("FROM app.test/third:1\nCOPY Dockerfile /again\n", name="third"), "--no-cache")
    assert len(one.asked) == asked
    d.configure(one.config('debug = true\nprovenanceEnvDir = "/elsewhere"'))
    assert "provenanceEnvDir has changed in" in d.whole_log() and "takes effect at the next start" in d.whole_log()
    d.build(context("FROM app.test/busybox:latest\nCOPY Dockerfile /more\n", name="fourth"), "--no-cache")
    assert len(one.asked) > asked


def test_reload_of_entitlements_frontends_and_dns(configured, registry, context):
    d = configured()
    c = context(f"FROM {registry.base}\nRUN cat /etc/resolv.conf; echo over\n")
    r = d.build(c, "--allow=network.host", code=1)
    assert "granting entitlement network.host is not allowed by build daemon configuration" in r.out
    d.configure('insecure-entitlements = ["network.host"]\n[dns]\nnameservers = ["10.1.2.3"]\nsearchDomains = ["corp.test"]\n')
    r = d.build(c, "--allow=network.host")
    assert "nameserver 10.1.2.3" in r.out and "search corp.test" in r.out
    d.configure('[frontend."dockerfile.v0"]\nenabled = false\n')
    assert "invalid frontend: dockerfile.v0" in d.build(c, code=1).out
    d.configure('[frontend."gateway.v0"]\nenabled = false\n')
    syntax = context(f"# syntax={registry.host}/frontend:1\nFROM {registry.base}\n", name="syntax")
    assert "invalid frontend: gateway.v0" in d.build(syntax, code=1).out
    d.configure('[frontend."gateway.v0"]\nallowedRepositories = ["docker.io/docker/dockerfile"]\n')
    assert "is not an allowed gateway source" in d.build(syntax, code=1).out
    d.configure('[dns]\nnameservers = ["nonsense"]\n', "configuration not reloaded")
    assert "bad nameserver address nonsense" in d.whole_log()


def make_certificate(folder, name):
    """A self-signed one."""
    need("openssl")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                    "-keyout", folder / "key.new", "-out", folder / "cert.new"], check=True, capture_output=True)
    (folder / "key.new").rename(folder / "key.pem")
    (folder / "cert.new").rename(folder / "cert.pem")
    return (folder / "cert.pem").read_text()


def test_certificate_of_a_listener_renewed(configured, folder):
    first, port = make_certificate(folder, "first"), free_port()

    def shown():
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
    d = configured(f'[grpc]\naddress = ["unix://{folder}/d.sock", "tcp://127.0.0.1:{port}"]\n[grpc.tls]\ncert = "{folder}/cert.pem"\nkey = "{folder}/key.pem"\n',
                   "--addr", f"tcp://127.0.0.1:{port}")
    assert shown().split() == first.split()
    second = make_certificate(folder, "second")
    wait_until("the new certificate", lambda: shown().split() == second.split())
    (folder / "key.pem").write_text("nothing\n")  # a bad one: the old one goes on being shown
    wait_until("the refusal", lambda: "configuration not reloaded" in d.whole_log())
    assert shown().split() == second.split()


# ---- garbage collection and history ----

def used(d):
    return {line.split()[0]: line for line in d.ctl("du").splitlines() if re.match(r"^[a-z0-9]{20,}", line)}


def test_garbage_collection_by_policy(configured, registry, context):
    small = '[[worker.oci.gcpolicy]]\nall = true\nmaxUsedSpace = "3MB"\nfilters = ["type==regular"]\n'
    d = configured('[[worker.oci.gcpolicy]]\nfilters = ["type==source.local"]\nkeepDuration = "1h"\nmaxUsedSpace = "1GB"\n')
    shown = d.ctl("debug", "workers", "-v")
    assert "GC Policy rule#0" in shown and "type==source.local" in shown and "rule#1" not in shown
    d.build(context(f"FROM {registry.base}\nRUN dd if=/dev/urandom of=/a bs=1M count=4\nRUN dd if=/dev/urandom of=/b bs=1M count=4\n"))
    before = used(d)
    assert any("RUN dd" in line or "MB" in line for line in before.values())
    d.configure(small)
    wait_until("garbage collection", lambda: "garbage collection: " in d.whole_log(), 30)
    assert len(used(d)) < len(before)
    d.build(context(f"FROM {registry.base}\nRUN dd if=/dev/urandom of=/c bs=1M count=4\n", name="after"))
    count = d.whole_log().count("garbage collection: ")
    wait_until("garbage collection behind a build", lambda: d.whole_log().count("garbage collection: ") > count, 30)
    d.configure("[worker.oci]\ngc = false\n")
    assert "GC Policy" not in d.ctl("debug", "workers", "-v")


def test_history_limits(configured, registry, context):
    d = configured()
    for i in range(3):
        d.build(context(f"FROM {registry.base}\nRUN echo {i}\n"))
    blobs = d.state / "db.sqlite"
    assert blobs.exists()
    import sqlite3

    def records():
        with sqlite3.connect(f"file:{blobs}?mode=ro", uri=True) as db:
            return db.execute("SELECT count(*) FROM history").fetchone()[0]
    assert records() == 3
    time.sleep(1.2)
    d.configure('[history]\nmaxAge = "1s"\nmaxEntries = 1\n')
    wait_until("the records to go", lambda: records() == 1, 20)


# ---- registries ----

def test_wildcard_and_own_mirror(configured, mirrors, context, folder):
    """The most specific entry holds alone; a mirror's table has its own path; what it lacks is asked of the next one."""
    one, two = mirrors
    (folder / "secret").write_text("me:pass\n")
    d = configured(f"""
[registry."*"]
  mirrors = ["127.0.0.1:1"]
[registry."*.test"]
  mirrors = ["{one.host}"]
[[registry."own.test".mirror]]
  host = "{two.host}"
  path = "proxy/cache"
  credentials = "{folder}/secret"
  fallback = false
""")
    d.build(context("FROM app.test/busybox\nCOPY Dockerfile /\n"))
    assert one.asked and not two.asked
    assert all(p.startswith("/v2/busybox/") and "ns=app.test" in p for _, p in one.asked)
    asked = len(one.asked)
    d.build(context("FROM own.test/busybox\nCOPY Dockerfile /\n", name="own"), "--no-cache")
    assert len(one.asked) == asked
    assert two.asked and all(p.startswith("/v2/proxy/cache/busybox/") for _, p in two.asked)
    r = d.build(context("FROM own.test/nosuch\n", name="nosuch"), code=1)
    assert "own.test/nosuch:latest: not found" in r.out, r.out


# ---- parallelism ----

def test_parallelism_reloaded_during_a_build(configured, registry, context, folder):
    """Each step writes when it began and ended; at most 4 at once, and at most 2 among those that began after the reload."""
    d = configured("[worker.oci]\nmax-parallelism = 4\n")
    n = 10
    stages = "".join(f"FROM {registry.base} AS s{i}\nRUN cut -d' ' -f1 /proc/uptime >/t{i}; sleep 1; cut -d' ' -f1 /proc/uptime >>/t{i}\n" for i in range(n))
    mounts = " ".join(f"--mount=from=s{i},target=/m{i}" for i in range(n))
    out = folder / "out"
    last = f"FROM {registry.base} AS all\nRUN {mounts} mkdir /srv && cp /m*/t? /srv\nFROM scratch\nCOPY --from=all /srv /\n"
    build = d.start_build(context(stages + last), f"--output=type=local,dest={out}")
    wait_until("the first steps", lambda: d.processes() >= 4, 10)
    d.configure("[worker.oci]\nmax-parallelism = 2\n")
    reloaded = float(open("/proc/uptime").read().split()[0])
    r = d.finish(build)
    assert r.code == 0, r.out
    spans = [tuple(map(float, (out / f"t{i}").read_text().split())) for i in range(n)]

    def most(among):
        return max((sum(a <= begin < b for a, b in among) for begin, _ in among), default=0)
    late = [s for s in spans if s[0] > reloaded + 0.5]
    assert most(spans) <= 4 and len(late) >= 2
    assert most(late) <= 2, sorted(late)
