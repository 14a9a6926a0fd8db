"""Docker's page "Configure BuildKit", its registry examples word for word, against real servers: Debian's docker-registry behind
nginx with TLS. Mount and network namespaces of the test's own hold the names of the page (mirror.gcr.io, registry-1.docker.io,
myregistry.com), its paths (/etc/buildkitd.toml, /etc/certs) and a CA that the host's store there trusts.
"""
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from conftest import TOP, WAIT_S, Daemon, need, wait_until

MIRROR_TOML = """\
debug = true
[registry."docker.io"]
  mirrors = ["mirror.gcr.io"]
"""
CERTS_TOML = """\
# /etc/buildkitd.toml
debug = true
[registry."myregistry.com"]
  ca=["/etc/certs/myregistry.pem"]
  [[registry."myregistry.com".keypair]]
    key="/etc/certs/myregistry_key.pem"
    cert="/etc/certs/myregistry_cert.pem"
"""
HOSTS = {"mirror.gcr.io": "127.0.1.1", "registry-1.docker.io": "127.0.1.2", "myregistry.com": "127.0.1.3", "second.corp": "127.0.1.4",
         "dead.corp": "127.0.1.5", "web.corp": "127.0.1.6"}
PORTS = {"mirror.gcr.io": 5001, "registry-1.docker.io": 5002, "myregistry.com": 5003, "second.corp": 5004}


def run(*command, **more):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, **more)


# ---- certificates ----

class Authority:
    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        folder.mkdir(parents=True, exist_ok=True)
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")
        self.pem = folder / f"{name}.pem"

    def issue(self, name, usage, days=2, names=()):
        key, request, cert = (self.folder / f"{name}{suffix}" for suffix in (".key.pem", ".csr", ".cert.pem"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"extendedKeyUsage={usage}\n" + (f"subjectAltName={','.join('DNS:' + n for n in names)}\n" if names else ""))
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        if days < 0:  # has expired: from a hand-kept date
            (self.folder / "index").write_text("")
            config = self.folder / f"{name}.cnf"
            config.write_text(f"[ca]\ndefault_ca=d\n[d]\ndatabase={self.folder}/index\nnew_certs_dir={self.folder}\nrand_serial=yes\n"
                              "default_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n")
            run("openssl", "ca", "-batch", "-notext", "-config", config, "-cert", self.pem, "-keyfile", self.folder / f"{self.name}.key",
                "-in", request, "-out", cert, "-extfile", extensions, "-startdate", "20200101000000Z", "-enddate", "20200102000000Z")
        else:
            run("openssl", "x509", "-req", "-in", request, "-CA", self.pem, "-CAkey", self.folder / f"{self.name}.key", "-CAcreateserial",
                "-days", days, "-extfile", extensions, "-out", cert)
        return key, cert


# ---- the world: namespaces with servers in them ----

class World:
    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        self.holder = subprocess.Popen(["unshare", "-m", "-n", "--propagation", "private", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        wait_until("the namespaces", lambda: os.readlink(f"/proc/{self.holder.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
        wait_until("sleep", lambda: b"sleep" in Path(f"/proc/{self.holder.pid}/cmdline").read_bytes())
        self.prefix = ["nsenter", "-t", str(self.holder.pid), "-m", "-n"]
        etc = folder / "etc"
        etc.mkdir()
        self.run("ip", "link", "set", "lo", "up")
        try:  # an /etc of its own: what is written there is in memory
            self.run("mount", "-t", "tmpfs", "none", etc)
            self.run("mkdir", etc / "upper", etc / "work")
            self.run("mount", "-t", "overlay", "none", "-o", f"lowerdir=/etc,upperdir={etc}/upper,workdir={etc}/work", "/etc")
        except subprocess.CalledProcessError as e:
            self.stop()
            pytest.skip(f"no overlay on /etc here: {e.stderr}")
        self.write("/etc/hosts", "127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for name, ip in HOSTS.items()))
        self.ca = Authority(folder / "ca", "test-ca")
        self.other_ca = Authority(folder / "other-ca", "other-ca")
        bundle = Path("/etc/ssl/certs/ca-certificates.crt")
        self.write("/etc/ssl/certs/ca-certificates.crt", (bundle.read_text() if bundle.exists() else "") + self.ca.pem.read_text())

    def run(self, *command, **more):
        return run(*self.prefix, *command, **more)

    def write(self, path, text):
        """A file inside."""
        run(*self.prefix, "mkdir", "-p", Path(path).parent)
        subprocess.run([*self.prefix, "sh", "-c", 'cat > "$0"', str(path)], input=text, text=True, check=True)

    def spawn(self, *command):
        log = open(self.folder / "servers.log", "ab")
        p = subprocess.Popen([*self.prefix, *map(str, command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        self.processes.append(p)
        return p

    def answers(self, ip, port):
        return self.try_run("sh", "-c", f"exec 3<>/dev/tcp/{ip}/{port}", shell="bash")

    def try_run(self, *command, shell=None):
        if shell:
            command = (shell, *command[1:])
        return subprocess.run([*self.prefix, *map(str, command)], capture_output=True).returncode == 0

    def stop(self):
        for p in self.processes:
            p.terminate()
        for p in self.processes:
            p.wait(WAIT_S)
        self.holder.kill()
        self.holder.wait()

    # -- servers

    def registry(self, name):
        config = self.folder / f"{name}.yml"
        config.write_text("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
                          f"storage: {{filesystem: {{rootdirectory: {self.folder}/data-{name}}}}}\nhttp: {{addr: '127.0.0.1:{PORTS[name]}'}}\n")
        self.spawn("docker-registry", "serve", config)
        wait_until(f"the registry {name}", lambda: self.answers("127.0.0.1", PORTS[name]))

    def fill(self, name, *references):
        for r in references:
            self.run(TOP / "tools/mkbase", f"127.0.0.1:{PORTS[name]}/{r}")

    def nginx(self):
        key, cert = self.ca.issue("servers", "serverAuth", names=[n for n in HOSTS if n != "dead.corp"])
        _, self.wrong_cert = self.other_ca.issue("servers", "serverAuth", names=list(HOSTS))
        servers = ""
        for name, port in PORTS.items():
            client = f"ssl_client_certificate {self.ca.pem}; ssl_verify_client on;" if name == "myregistry.com" else ""
            servers += (f"server {{ listen {HOSTS[name]}:443 ssl; server_name {name}; ssl_certificate {cert}; ssl_certificate_key {key}; {client}\n"
                        f"  location / {{ proxy_pass http://127.0.0.1:{port}; proxy_set_header Host $http_host;\n"
                        "    proxy_set_header X-Forwarded-Proto https; client_max_body_size 0; proxy_request_buffering off; } }\n")
        temp = "".join(f"{kind}_temp_path {self.folder}/nginx-{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        self.access = self.folder / "access.log"
        config = self.folder / "nginx.conf"
        config.write_text(f"daemon off; master_process off; pid {self.folder}/nginx.pid; error_log {self.folder}/nginx-error.log;\n"
                          f"events {{}}\nhttp {{ {temp} log_format one '$server_name $connection $request_method $request_uri $status $http_user_agent';\n"
                          f"access_log {self.access} one;\n{servers}}}\n")
        self.spawn("nginx", "-c", config)
        wait_until("nginx", lambda: self.answers(HOSTS["mirror.gcr.io"], 443))

    def requests(self, host):
        return [line.split(" ", 1)[1] for line in self.access.read_text().splitlines() if line.startswith(host + " ")]

    def forget(self):
        os.truncate(self.access, 0)


class InsideDaemon(Daemon):
    """The daemon in the world's namespaces."""

    def __init__(self, folder, world, **environment):
        super().__init__(folder)
        self.world, self.more = world, environment

    def environment(self):
        return dict(super().environment(), **self.more)

    def command(self, *more):
        return [*self.world.prefix, *super().command(*more)]


@pytest.fixture(scope="module")
def world(containers):
    for program in ("docker-registry", "nginx", "openssl", "nsenter", "ip"):
        need(program)
    folder = Path(tempfile.mkdtemp(prefix="slipway-world."))
    w = World(folder)
    try:
        for name in PORTS:
            w.registry(name)
        w.fill("mirror.gcr.io", "library/alpine:latest")
        w.fill("registry-1.docker.io", "library/alpine:latest")
        (folder / "tree").mkdir()
        (folder / "tree/origin").write_text("upstream")
        run("tar", "-cf", folder / "tree.tar", "-C", folder / "tree", ".")
        w.run(TOP / "tools/mkbase", "--rootfs", folder / "tree.tar", f"127.0.0.1:{PORTS['registry-1.docker.io']}/library/debian:latest")
        w.fill("second.corp", "team/base:latest")
        w.nginx()
        yield w
    finally:
        w.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def inside(world, folder):
    """inside(toml) starts a daemon with that /etc/buildkitd.toml."""
    started = []

    def start(toml, name="d", **environment):
        world.write("/etc/buildkitd.toml", toml)
        place = folder / f"{name}{len(started)}"
        place.mkdir()
        d = InsideDaemon(place, world, **environment)
        started.append(d)
        world.forget()
        return d.start("--config", "/etc/buildkitd.toml")

    yield start
    for d in started:
        code = d.stop() if d.process else 0
        assert not d.found_by_sanitizers(), d.found_by_sanitizers()
        assert code == 0, d.log()


def whole_log(daemon):
    return daemon.log_path.read_text(errors="replace")


# ---- the page: registry mirror ----

def test_page_mirror(inside, world, context, folder):
    daemon = inside(MIRROR_TOML)
    r = daemon.build(context('FROM alpine\nRUN echo "hello world"\n'))
    assert "hello world" in r.out
    seen = world.requests("mirror.gcr.io")
    assert any(" HEAD /v2/library/alpine/manifests/latest?ns=docker.io 200 buildkit/" in " " + line for line in seen), seen
    assert any(re.search(r"GET /v2/library/alpine/blobs/sha256:\w+\?ns=docker.io 200", line) for line in seen), seen
    assert not world.requests("registry-1.docker.io")
    assert len({line.split()[0] for line in seen}) <= 5, "more connections than the limit allows"
    requests = [line for line in whole_log(daemon).splitlines() if 'msg="do request"' in line]
    assert any('request.method=HEAD' in line and 'url="https://mirror.gcr.io/v2/library/alpine/manifests/latest?ns=docker.io"' in line
               for line in requests), requests
    answers = [line for line in whole_log(daemon).splitlines() if 'msg="fetch response received"' in line]
    assert any('response.status="200 OK"' in line and "mirror.gcr.io" in line for line in answers), answers
    # what the mirror lacks comes from upstream
    world.forget()
    daemon.build(context("FROM debian\n", name="upstream"), f"--output=type=local,dest={folder}/o")
    assert (folder / "o/origin").read_text() == "upstream"
    assert any("library/debian/manifests/latest?ns=docker.io 404" in line for line in world.requests("mirror.gcr.io"))
    assert any("GET /v2/library/debian/blobs/" in line and "ns=" not in line for line in world.requests("registry-1.docker.io"))


@pytest.mark.parametrize("table", [
    'mirrors = ["dead.corp", "mirror.gcr.io"]',                # nothing listens there
    'mirrors = ["no.such.host.corp", "mirror.gcr.io"]',        # no such name
    'mirrors = ["second.corp/nothing/here", "mirror.gcr.io"]',  # a path prefix without the image
])
def test_next_mirror(inside, world, context, folder, table):
    daemon = inside(f'debug = true\n[registry."docker.io"]\n{table}\n')
    daemon.build(context("FROM alpine\n"), f"--output=type=tar,dest={folder}/o.tar")
    assert any("GET /v2/library/alpine/blobs/" in line for line in world.requests("mirror.gcr.io"))
    assert not world.requests("registry-1.docker.io")
    told = [line for line in whole_log(daemon).splitlines() if "level=info" in line and "trying next host" in line]
    assert len(told) == 1, told  # once, with its reason


def test_own_mirror_wildcard_and_no_fallback(inside, world, context, folder):
    """Our own: a table for a mirror, "*.corp", and fallback = false."""
    world.write("/etc/certs/second.pem", world.ca.pem.read_text())
    daemon = inside("""\
debug = true
[[registry."docker.io".mirror]]
  host = "second.corp"
  path = "proxy"
  fallback = false
[registry."*.corp"]
  mirrors = ["mirror.gcr.io"]
""")
    r = daemon.build(context("FROM alpine\n"), f"--output=type=tar,dest={folder}/o.tar", code=1)
    assert "not found" in r.out
    assert any("/v2/proxy/library/alpine/manifests/latest?ns=docker.io 404" in line for line in world.requests("second.corp"))
    assert not world.requests("registry-1.docker.io") and not world.requests("mirror.gcr.io")
    daemon.build(context("FROM second.corp/team/base\n", name="wild"), f"--output=type=tar,dest={folder}/o.tar")
    assert any("team/base/manifests/latest?ns=second.corp 404" in line for line in world.requests("mirror.gcr.io"))
    assert any("GET /v2/team/base/blobs/" in line for line in world.requests("second.corp"))


# ---- the page: registry certificates ----

def put_certificates(world, key, cert, ca):
    world.write("/etc/certs/myregistry.pem", ca.read_text())
    world.write("/etc/certs/myregistry_key.pem", key.read_text())
    world.write("/etc/certs/myregistry_cert.pem", cert.read_text())


def push(daemon, context, code=0):
    return daemon.build(context("FROM scratch\nCOPY file /\n", {"file": "x" * 1000}),
                        "--output=type=image,name=myregistry.com/myimage:latest,push=true", code=code)


def test_page_certificates(inside, world, context, folder):
    pair = world.ca.issue("client", "clientAuth")
    put_certificates(world, *pair, world.ca.pem)
    daemon = inside(CERTS_TOML)
    push(daemon, context)
    seen = world.requests("myregistry.com")
    assert any("PUT /v2/myimage/manifests/latest 201" in line for line in seen), seen
    manifest_at = next(i for i, line in enumerate(seen) if "PUT /v2/myimage/manifests/" in line)
    assert all("/manifests/" in line for line in seen[manifest_at:]), "a blob came behind a manifest"
    # and pull, with the same settings
    daemon.build(context("FROM myregistry.com/myimage\n", name="back"), f"--output=type=tar,dest={folder}/o.tar")
    # a layer that another repository of the registry has is mounted from there, not sent
    world.forget()
    daemon.build(context("FROM myregistry.com/myimage\nLABEL a=b\n", name="mount"), "--output=type=image,name=myregistry.com/team/other,push=true")
    seen = world.requests("myregistry.com")
    assert any(re.search(r"POST /v2/team/other/blobs/uploads/\?mount=sha256:\w+&from=myimage 201", line) for line in seen), seen


def test_page_certificates_are_needed(inside, world, context):
    put_certificates(world, *world.ca.issue("client2", "clientAuth"), world.ca.pem)
    daemon = inside('[registry."myregistry.com"]\n  ca=["/etc/certs/myregistry.pem"]\n')
    r = push(daemon, context, code=1)
    assert "400 Bad Request (the server asked for a client certificate: the registry's configuration has no keypair)" in r.out, r.out


def test_page_certificates_expired(inside, world, context):
    put_certificates(world, *world.ca.issue("old", "clientAuth", days=-1), world.ca.pem)
    r = push(inside(CERTS_TOML), context, code=1)
    assert re.search(r"\(the client certificate /etc/certs/myregistry_cert.pem expired on 2020-01-02 ", r.out), r.out


def test_page_certificates_from_another_ca(inside, world, context):
    put_certificates(world, *world.other_ca.issue("stranger", "clientAuth"), world.ca.pem)
    r = push(inside(CERTS_TOML), context, code=1)
    assert "none of the 1 in the registry's configuration is signed by an authority that it accepts" in r.out, r.out


def test_page_certificates_wrong_ca(inside, world, context):
    """The registry's certificate is not signed by the CA that is configured, nor by one of the host's."""
    put_certificates(world, *world.ca.issue("client3", "clientAuth"), world.other_ca.pem)
    world.run("cp", "/etc/ssl/certs/ca-certificates.crt", "/etc/kept.crt")
    world.write("/etc/ssl/certs/ca-certificates.crt", world.other_ca.pem.read_text())
    try:
        r = push(inside(CERTS_TOML), context, code=1)
        assert "certificate signed by unknown authority" in r.out, r.out
        # SSL_CERT_FILE and SSL_CERT_DIR of the daemon: a folder of PEM files, no hashed names needed
        world.write("/etc/own-certs/ours.pem", world.ca.pem.read_text())
        push(inside(CERTS_TOML, SSL_CERT_DIR="/etc/none:/etc/own-certs"), context)
        push(inside(CERTS_TOML, SSL_CERT_FILE="/etc/own-certs/ours.pem"), context)
    finally:
        world.run("cp", "/etc/kept.crt", "/etc/ssl/certs/ca-certificates.crt")


def test_tls_config_dir_and_insecure(inside, world, context):
    key, cert = world.ca.issue("client4", "clientAuth")
    world.write("/etc/tls.d/ca.crt", world.ca.pem.read_text())
    world.write("/etc/tls.d/client.key", key.read_text())
    world.write("/etc/tls.d/client.cert", cert.read_text())
    push(inside('[registry."myregistry.com"]\ntlsconfigdir = ["/etc/no-such-folder", "/etc/tls.d"]\n'), context)
    world.run("cp", "/etc/ssl/certs/ca-certificates.crt", "/etc/kept.crt")
    world.write("/etc/ssl/certs/ca-certificates.crt", "")
    try:
        push(inside('[registry."myregistry.com"]\ninsecure = true\n'
                    '[[registry."myregistry.com".keypair]]\nkey = "/etc/tls.d/client.key"\ncert = "/etc/tls.d/client.cert"\n'), context)
    finally:
        world.run("cp", "/etc/kept.crt", "/etc/ssl/certs/ca-certificates.crt")


# ---- proxies ----

PROXY = r"""
import socket, sys, threading
def pump(a, b):
    try:
        while data := a.recv(65536): b.sendall(data)
    except OSError: pass
    for s in (a, b):
        try: s.shutdown(socket.SHUT_RDWR)
        except OSError: pass
def serve(c):
    head = b""
    while b"\r\n\r\n" not in head: head += c.recv(65536)
    line = head.split(b"\r\n")[0].decode(); method, target, _ = line.split(" ")
    print(method, target, flush=True)
    if method == "CONNECT":
        host, port = target.rsplit(":", 1); u = socket.create_connection((host, int(port))); c.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    else:
        host = target.split("/")[2]; name, _, port = host.partition(":"); u = socket.create_connection((name, int(port or 80)))
        u.sendall(head.replace(target.encode(), target.split(host, 1)[1].encode() or b"/", 1))
    threading.Thread(target=pump, args=(u, c), daemon=True).start(); pump(c, u)
s = socket.create_server(("127.0.0.9", 3128))
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""


def test_proxies_of_the_daemon(inside, world, context, folder):
    """For registries and ADD; NO_PROXY is obeyed."""
    web = folder / "web"
    web.mkdir()
    (web / "file.txt").write_text("over http")
    world.spawn("python3", "-m", "http.server", "--bind", HOSTS["web.corp"], "--directory", web, "80")
    wait_until("the web server", lambda: world.answers(HOSTS["web.corp"], 80))
    log = folder / "proxy.log"
    script = folder / "proxy.py"
    script.write_text(PROXY)
    world.spawn("sh", "-c", f"exec python3 {script} > {log}")
    wait_until("the proxy", lambda: world.answers("127.0.0.9", 3128))
    proxy = "http://127.0.0.9:3128"
    daemon = inside(MIRROR_TOML, HTTPS_PROXY=proxy, http_proxy=proxy, NO_PROXY=".corp:8080,mirror.gcr.io")
    path = context("FROM debian\nADD http://web.corp/file.txt /\n")
    daemon.build(path, f"--output=type=tar,dest={folder}/o.tar")
    used = log.read_text().splitlines()
    assert any(line.startswith("CONNECT registry-1.docker.io:443") for line in used), used
    assert any(line.startswith("GET http://web.corp/file.txt") for line in used), used
    assert not any("mirror.gcr.io" in line for line in used), used
    log.write_text("")
    daemon = inside(MIRROR_TOML, ALL_PROXY=proxy)
    daemon.build(path, f"--output=type=tar,dest={folder}/o.tar")
    assert "CONNECT mirror.gcr.io:443" in log.read_text()
