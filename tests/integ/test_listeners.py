"""How the daemon is reached: unix, tcp, TLS with a client's certificate, sockets of systemd, several at once; its socket's file, the service
manager's datagrams, the two signals; and a tcp peer that dies without a word."""
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid

import pytest

from conftest import WAIT_S, Daemon, find_program, free_port, need, processes_with, wait_until


class Custom(Daemon):
    """A daemon with listeners, environment and descriptors of the test's choice."""

    def start_with(self, *flags, env=None, pass_fds=(), prefix=(), ready=None):
        command = [*prefix, str(find_program("slipwayd", "daemon")), "--root", str(self.root), "--debug", *flags]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(self.environment(), **(env or {})),
                                            pass_fds=pass_fds)
        wait_until("slipwayd", ready or self.answers)
        return self

    def ctl_at(self, addr, *args, code=0):
        program = find_program("slipway", "cli")
        link = self.folder / "buildctl"
        if not link.exists():
            link.symlink_to(program)
        r = subprocess.run([link, "--addr", addr, *args, "debug", "workers"], capture_output=True, text=True, timeout=WAIT_S, env=self.environment())
        assert (r.returncode == 0) == (code == 0), f"{addr}: {r.returncode}\n{r.stdout}{r.stderr}\n--- daemon\n{self.log()}"
        return r.stdout + r.stderr


@pytest.fixture
def custom(folder, containers):
    d = Custom(folder)
    d.log_path.touch()
    yield d
    code = d.stop() if d.process else 0
    assert not d.found_by_sanitizers(), d.found_by_sanitizers()
    assert code == 0, d.log()


def tcp_ready(port):
    def ready():
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0
    return ready


def test_several_at_once(custom):
    ports = free_port(), free_port()
    second = custom.folder / "a/b/second.sock"
    custom.start_with(f"--addr=unix://{custom.socket}", f"--addr=unix://{second}", f"--addr=tcp://127.0.0.1:{ports[0]}", f"--addr=tcp://localhost:{ports[1]}")
    for addr in (f"unix://{custom.socket}", f"unix://{second}", f"tcp://127.0.0.1:{ports[0]}", f"tcp://localhost:{ports[1]}"):
        assert "linux/" in custom.ctl_at(addr)
    assert oct(custom.socket.stat().st_mode & 0o777) == "0o660"
    custom.stop()
    assert not custom.socket.exists() and not second.exists(), "the sockets' files must go with the daemon"


def test_a_stale_socket_is_replaced_and_another_file_is_not(custom):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(custom.socket))  # nobody listens
    custom.start_with(f"--addr=unix://{custom.socket}")
    custom.ctl_at(f"unix://{custom.socket}")
    custom.kill()
    assert custom.socket.exists()
    custom.start_with(f"--addr=unix://{custom.socket}")
    custom.stop()
    custom.socket.write_text("precious")
    r = subprocess.run([find_program("slipwayd", "daemon"), "--root", custom.root, f"--addr=unix://{custom.socket}"], capture_output=True, text=True,
                       timeout=WAIT_S, env=custom.environment())
    assert r.returncode == 1 and "is no socket" in r.stderr and custom.socket.read_text() == "precious"


@pytest.mark.parametrize("addr,says", [("tcp://127.0.0.1:{port}", "in use"), ("http://x", "unix://PATH, tcp://HOST:PORT or fd://"), ("fd://", "LISTEN_FDS"), ("fd://99", "99"),
                                       ("unix://" + "/x" * 100, "108")])
def test_an_address_that_cannot_be(custom, addr, says):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        r = subprocess.run([find_program("slipwayd", "daemon"), "--root", custom.root, "--addr", addr.format(port=taken.getsockname()[1])],
                           capture_output=True, text=True, timeout=WAIT_S, env=custom.environment())
    assert r.returncode == 1 and (says in r.stderr or says == "108" and "107" in r.stderr), r.stderr


def test_sockets_of_systemd(custom):
    """LISTEN_PID must be the daemon's own: a program says so and becomes it."""
    port = free_port()
    with socket.socket(socket.AF_UNIX) as a, socket.socket() as b:
        a.bind(str(custom.socket))
        a.listen()
        b.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        b.bind(("127.0.0.1", port))
        b.listen()
        become = ("import fcntl, os, sys; a, b = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 20) for n in sys.argv[1:3]); os.dup2(a, 3); os.dup2(b, 4); "
                  "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2'); os.execv(sys.argv[3], sys.argv[3:])")
        prefix = (sys.executable, "-c", become, str(a.fileno()), str(b.fileno()))
        custom.start_with("--addr=fd://", prefix=prefix, pass_fds=(a.fileno(), b.fileno()), ready=lambda: "running server on" in custom.log())
    custom.ctl_at(f"unix://{custom.socket}")
    custom.ctl_at(f"tcp://127.0.0.1:{port}")
    custom.stop()
    assert custom.socket.exists(), "it is systemd's"


def test_the_service_manager_is_told(custom, folder):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(folder / "notify"))
        s.settimeout(20)
        custom.start_with(f"--addr=unix://{custom.socket}", env={"NOTIFY_SOCKET": str(folder / "notify")})
        assert s.recv(1000) == b"READY=1"
        custom.ctl_at(f"unix://{custom.socket}")
        custom.process.send_signal(signal.SIGTERM)
        assert s.recv(1000) == b"STOPPING=1"
        assert custom.process.wait(WAIT_S) == 0
        custom.process = None


def openssl(folder, *args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, cwd=folder)


def make_certificates(folder):
    """A CA, a server's certificate for localhost, a client's, and one of a CA that nobody knows."""
    for ca in ("ca", "other"):
        openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-days", 2, "-subj", f"/CN={ca}")
    for name, ca in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
        (folder / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-out", f"{name}.pem", "-days", 2,
                "-extfile", "ext")


def test_tls_with_a_clients_certificate(custom, folder):
    need("openssl")
    make_certificates(folder)
    port = free_port()
    custom.start_with(f"--addr=tcp://127.0.0.1:{port}", f"--tlscert={folder}/server.pem", f"--tlskey={folder}/server.key", f"--tlscacert={folder}/ca.pem",
                      ready=tcp_ready(port))
    addr = f"tcp://127.0.0.1:{port}"
    tls = lambda name: (f"--tlscacert={folder}/ca.pem", f"--tlscert={folder}/{name}.pem", f"--tlskey={folder}/{name}.key")
    assert "linux/" in custom.ctl_at(addr, *tls("client"))
    custom.ctl_at(addr, *tls("stranger"), code=1)
    custom.ctl_at(addr, f"--tlscacert={folder}/ca.pem", code=1)
    custom.ctl_at(addr, code=1)
    with socket.create_connection(("127.0.0.1", port)) as s:  # a handshake that never comes must not stop the others
        s.sendall(b"\x16\x03\x01")
        assert "linux/" in custom.ctl_at(addr, *tls("client"))


SLOW = "ARG BASE=scratch\nFROM ${BASE}\nRUN echo %s is running; sleep 3600; echo over\n"  # with something behind it: a shell becomes its last command


def test_a_second_signal_ends_at_once(daemon, context, registry):
    word = "step-" + uuid.uuid4().hex
    client = daemon.start_build(context(SLOW % word), args={"BASE": registry.base})
    wait_until("the step to run", lambda: processes_with(word))
    daemon.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert daemon.alive(), "the first one lets the build go on"
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 10
    assert daemon.finish(client).code != 0
    daemon.start()
    wait_until("the step's processes to end", lambda: not processes_with(word), 20)


@pytest.fixture
def network(containers):
    """A network namespace with a veth pair to it: (its name, our address, its address)."""
    need("ip")
    name = "slw" + uuid.uuid4().hex[:6]
    run = lambda *a: subprocess.run(["ip", *a], capture_output=True, text=True)
    if run("netns", "add", name).returncode:
        pytest.skip("network namespaces cannot be made here")
    net = f"10.213.{os.getpid() % 250}"
    steps = [("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name), ("addr", "add", f"{net}.1/24", "dev", name), ("link", "set", name, "up"),
             ("-n", name, "addr", "add", f"{net}.2/24", "dev", "eth0"), ("-n", name, "link", "set", "eth0", "up"), ("-n", name, "link", "set", "lo", "up")]
    failed = [s for s in steps if run(*s).returncode]
    yield None if failed else (name, f"{net}.1")
    run("link", "del", name)
    run("netns", "del", name)


@pytest.mark.skipif(not os.environ.get("SLIPWAY_TEST_SLOW"), reason="takes a minute: set SLIPWAY_TEST_SLOW=1")
def test_a_tcp_peer_that_died_is_noticed(custom, context, registry, network):
    """The client's network goes away in the middle of a step: within a minute the step has ended."""
    if not network:
        pytest.skip("a veth pair cannot be made here")
    word = "step-" + uuid.uuid4().hex
    name, ours = network
    port = free_port()
    custom.start_with(f"--addr=tcp://{ours}:{port}", f"--addr=unix://{custom.socket}")
    custom.ctl_at(f"unix://{custom.socket}")
    path = context(SLOW % word)
    client = subprocess.Popen(["ip", "netns", "exec", name, custom.folder / "buildctl", "--addr", f"tcp://{ours}:{port}", "build", "--frontend=dockerfile.v0",
                               f"--local=context={path}", f"--local=dockerfile={path}", f"--opt=build-arg:BASE={registry.base}"],
                              stdin=subprocess.DEVNULL, stdout=open(custom.folder / "client.log", "wb"), stderr=subprocess.STDOUT, env=custom.environment())
    try:
        def runs():
            assert client.poll() is None, (custom.folder / "client.log").read_text()
            return processes_with(word)
        wait_until("the step to run", runs)
        subprocess.run(["ip", "link", "set", name, "down"], check=True)
        began = time.monotonic()
        wait_until("the step to end", lambda: not processes_with(word), 75)
        print(f"noticed after {time.monotonic() - began:.0f} s")
        assert time.monotonic() - began < 61
    finally:
        client.kill()
        client.wait()


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def test_pings_are_answered_and_never_too_many(daemon):
    """Go's client with keepalive pings each 10 s or so; a hundred at once must not be answered by GOAWAY either."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect(str(daemon.socket))
        s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
        s.sendall(b"".join(frame(6, 0, 0, struct.pack(">Q", i)) for i in range(100)))
        stream, answers = s.makefile("rb"), []
        while len(answers) < 100:
            head = stream.read(9)
            body = stream.read(int.from_bytes(head[:3], "big"))
            assert head[3] != 7, "GOAWAY"
            if head[3] == 6:
                assert head[4] == 1
                answers.append(struct.unpack(">Q", body)[0])
        assert answers == list(range(100))
