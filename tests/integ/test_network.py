"""Networks of steps: the host's, none, and by CNI plugins (a file of the user's, or the bridge of our own), in namespaces of the test's own.

What an attachment leaves on the host is looked at when the daemon has ended, and after a `kill -9` and the next start: interfaces, masquerading,
reserved addresses, files.
"""
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Daemon, need, wait_until

PLUGINS = next((d for d in ("/opt/cni/bin", "/usr/lib/cni") if all(os.access(f"{d}/{p}", os.X_OK) for p in ("bridge", "host-local", "loopback", "firewall"))), None)
CONF = {"cniVersion": "1.0.0", "name": "buildkit", "type": "bridge", "bridge": "buildkit0", "isDefaultGateway": True, "forceAddress": False,
        "ipMasq": True, "hairpinMode": True, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.10.0.0/16"}]]}}


def run(*command):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout


class World:
    """A mount and a network namespace: lo, a pair of interfaces that shows whose network a step has, and a place for the plugins' records."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "-m", "-n", "--propagation", "private", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        wait_until("the namespaces", lambda: Path(f"/proc/{self.holder.pid}/cmdline").read_bytes().startswith(b"sleep"))
        self.prefix = ["nsenter", "-t", str(self.holder.pid), "-m", "-n"]
        self.server = None
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "link", "add", "up0", "type", "veth", "peer", "up1")
        self.run("mount", "-t", "tmpfs", "none", "/var/lib")  # host-local keeps addresses in /var/lib/cni
        self.run("mount", "-t", "tmpfs", "none", "/run")  # the traces' socket of another daemon on this machine

    def run(self, *command):
        return run(*self.prefix, *command)

    def serve(self, folder):
        """An HTTP server on every address that the world has or will have."""
        self.server = subprocess.Popen([*self.prefix, "busybox", "httpd", "-f", "-p", "8099", "-h", str(folder)], stdin=subprocess.DEVNULL)

    def stop(self):
        for p in (self.server, self.holder):
            if p:
                p.kill()
                p.wait()

    def links(self):
        return {name for name in (link["ifname"] for link in json.loads(self.run("ip", "-j", "link"))) if name not in ("lo", "up0", "up1")}

    def rules(self):
        """Rules that name an address of ours or an attachment; the plugins' empty chains stay."""
        return [line for table in ("nat", "filter") for line in self.run("iptables", "-t", table, "-S").splitlines()
                if "10.10." in line or "10.77." in line or 'name: "buildkit"' in line]

    def addresses(self):
        return self.run("sh", "-c", "ls /var/lib/cni/networks/buildkit 2>/dev/null | grep '^[0-9]' || true").split()


@pytest.fixture
def world(containers):
    for program in ("ip", "unshare", "nsenter", "busybox"):
        need(program)
    try:
        subprocess.run(["unshare", "-m", "-n", "ip", "link", "add", "type", "veth"], check=True, capture_output=True)
    except subprocess.CalledProcessError as e:
        pytest.skip(f"no network namespaces here: {e.stderr.decode().strip()}")
    w = World()
    yield w
    w.stop()


@pytest.fixture
def cni(world):
    need("iptables")
    if not PLUGINS:
        pytest.skip("CNI plugins are neither in /opt/cni/bin nor in /usr/lib/cni (Debian: containernetworking-plugins)")
    try:
        world.run("iptables", "-t", "nat", "-S")
    except subprocess.CalledProcessError as e:
        pytest.skip(f"iptables does not work here: {e.stderr.strip()}")
    return world


class NetDaemon(Daemon):
    world = None

    def command(self, *more):
        return [*self.world.prefix, *super().command(*more)]

    def records(self):
        return list((self.state / "runtime" / "net").glob("*.json"))


@pytest.fixture
def start(folder, world):
    """start(flag, ...): a daemon in the world. Ended with a check of what sanitizers found."""
    d = NetDaemon(folder)
    d.world = world

    def go(*flags):
        return d.start(*flags)
    yield go
    if d.process:
        d.stop()
    found = d.found_by_sanitizers()
    assert not found, found


@pytest.fixture
def cni_flags(folder, cni):
    (folder / "cni.json").write_text(json.dumps(CONF))
    return ["--oci-worker-net=cni", f"--oci-cni-config-path={folder}/cni.json", f"--oci-cni-binary-dir={PLUGINS}"]


@pytest.fixture
def box(context):
    """box(text): a context whose image has busybox and nothing else."""
    busybox = shutil.which("busybox") or pytest.skip("busybox-static is not installed")

    def make(steps, name="context"):
        c = context(f"FROM scratch AS box\nCOPY busybox /bin/\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nARG TURN\n{steps}", name=name)
        shutil.copy(os.path.realpath(busybox), c / "busybox")
        return c
    return make


LOOK = "RUN echo turn $TURN; ls /sys/class/net; ip -o addr | awk '{print \"addr\", $2, $4}'; ip route\n"


def clean(world, bridge=()):
    assert world.links() == set(bridge)
    assert world.rules() == []
    assert world.addresses() == []


# ---- without plugins ----

def test_host(start, box):
    d = start("--oci-worker-net=host", "--allow-insecure-entitlement=network.host")
    assert "up0" in d.build(box(LOOK)).out
    r = d.build(box("RUN --network=none ls /sys/class/net; echo $TURN\n"), args={"TURN": 1}).out
    assert "up0" not in r and " lo\n" in r
    assert "up0" in d.build(box("RUN --network=host ls /sys/class/net; echo $TURN\n"), "--allow=network.host", args={"TURN": 2}).out
    assert "worker.network:\thost" in d.ctl("debug", "workers", "-v").replace("worker.network: ", "worker.network:\t").replace("\t\t", "\t")


def test_none(start, box):
    d = start("--oci-worker-net=none")
    r = d.build(box(LOOK)).out
    assert "up0" not in r and "eth0" not in r and "addr lo 127.0.0.1/8" in r


@pytest.mark.parametrize("flags, text", [
    (["--oci-worker-net=wild"], 'invalid network mode: "wild"'),
    (["--oci-worker-net=cni", "--oci-cni-config-path=/nonexistent/cni.json"], 'failed to read cni config "/nonexistent/cni.json"'),
    (["--oci-worker-net=cni", "--oci-cni-config-path={folder}/cni.json", "--oci-cni-binary-dir=/nonexistent"],
     'failed to read cni binary dir "/nonexistent"'),
    (["--oci-worker-net=cni", "--oci-cni-config-path={folder}/cni.json", "--oci-cni-binary-dir={folder}"],
     f'failed to find plugin "loopback" in path [{{folder}}]'),
    (["--oci-worker-net=bridge", "--oci-cni-binary-dir=/nonexistent"], 'failed to find CNI bridge "/nonexistent/bridge" or buildkit-cni-bridge')])
def test_told_at_start(folder, world, flags, text):
    (folder / "cni.json").write_text(json.dumps(CONF))
    d = NetDaemon(folder)
    d.world = world
    p = subprocess.run(d.command(*[f.format(folder=folder) for f in flags]), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert p.returncode == 1
    assert text.format(folder=folder) in p.stderr


# ---- with plugins ----

def test_cni(start, box, cni, cni_flags, folder):
    """Docker's page "Configure BuildKit", CNI networking: eth0 in 10.10.0.0/16, the gateway is reached, nothing of the host is seen."""
    (folder / "www").mkdir()
    (folder / "www" / "index.html").write_text("from the gateway\n")
    cni.serve(folder / "www")
    d = start(*cni_flags, "--allow-insecure-entitlement=network.host")
    r = d.build(box(LOOK + "RUN wget -q -O- http://10.10.0.1:8099/\n")).out
    assert "addr lo 127.0.0.1/8" in r and "addr eth0 10.10.0.2/16" in r and "default via 10.10.0.1 dev eth0" in r and "up0" not in r
    assert "from the gateway" in r
    r = d.build(box("RUN --network=none ls /sys/class/net; echo $TURN\n"), args={"TURN": 1}).out
    assert "eth0" not in r
    r = d.build(box("RUN --network=host ls /sys/class/net; echo $TURN\n"), "--allow=network.host", args={"TURN": 2}).out
    assert "up0" in r and "buildkit0" in r
    assert "cni" in next(line for line in d.ctl("debug", "workers", "-v").splitlines() if "worker.network" in line)
    assert cni.rules()
    assert d.stop() == 0
    clean(cni, {"buildkit0"})  # the plugin made it, by the user's file: it is not ours to remove
    assert not d.records()


def test_one_port_twice(start, box, cni_flags):
    """What CNI is for, on the page: two steps at once listen on one port."""
    d = start(*cni_flags)
    listen = "RUN (timeout 2 nc -l -p 8080 2>/err; true) & sleep 1; cat /err; ! grep -q 'in use' /err\n"
    d.build(box(f"FROM box AS a\n{listen}FROM box AS b\nRUN true\n{listen}FROM scratch\nCOPY --from=a /err /1\nCOPY --from=b /err /2\n"))
    assert len(d.records()) == 2


def test_pool(start, box, cni, cni_flags):
    """Namespaces are ready before a step asks, are used again, and end with the daemon."""
    d = start(*cni_flags, "--oci-cni-pool-size=3")
    wait_until("three namespaces", lambda: sum('"eth0"' in p.read_text() and '"10.10.' in p.read_text() for p in d.records()) == 3)
    before = set(d.records())
    d.build(box(LOOK * 4))
    assert set(d.records()) == before
    assert d.stop() == 0
    clean(cni, {"buildkit0"})
    assert not d.records()


@pytest.mark.parametrize("next_net", ["cni", "host"])
def test_killed(start, box, cni, cni_flags, next_net):
    """In the middle of a step; the next daemon detaches by the record, whatever its own network is."""
    d = start(*cni_flags, "--oci-cni-pool-size=2")
    p = d.start_build(box("RUN echo here; sleep 60\n"))
    wait_until("the step", lambda: "here" in p.stdout.readline())
    d.kill()
    d.finish(p)
    assert cni.rules() and cni.addresses() and d.records()
    old = {p.name for p in d.records()}
    d.start(*(cni_flags if next_net == "cni" else ["--oci-worker-net=host"]))
    wait_until("the old ones to go", lambda: not old & {p.name for p in d.records()})
    wait_until("their addresses", lambda: len(cni.addresses()) == (next_net == "cni"))
    d.build(box(LOOK))
    assert d.stop() == 0
    clean(cni, {"buildkit0"})
    assert not d.records()


def test_killed_with_its_network(start, cni, cni_flags, folder):
    """A container that is started again has another network: what was attached is forgotten without a complaint, the addresses are given back."""
    d = start(*cni_flags, "--oci-cni-pool-size=2")
    wait_until("two namespaces", lambda: len(d.records()) == 2)
    d.kill()
    old = {p.name for p in d.records()}
    d.world = World()
    d.world.prefix = ["nsenter", "-t", str(cni.holder.pid), "-m", "nsenter", "-t", str(d.world.holder.pid), "-n"]  # the files are the same
    try:
        d.start(*cni_flags)
        wait_until("the old ones to go", lambda: not old & {p.name for p in d.records()})
        assert len(cni.addresses()) == 1
        assert d.stop() == 0
        assert "failed to release" not in d.log()
    finally:
        d.world.stop()


@pytest.mark.parametrize("killed", [False, True])
def test_bridge(start, box, cni, folder, killed):
    """The bridge of our own: made at start, with the name and the subnet of the configuration, gone at the end, also after a kill."""
    (folder / "d.toml").write_text(f'[worker.oci]\nnetworkMode = "bridge"\ncniBinaryPath = "{PLUGINS}"\nbridgeName = "br77"\nbridgeSubnet = "10.77.0.0/16"\n')
    d = start(f"--config={folder}/d.toml")
    assert cni.links() >= {"br77"}
    r = d.build(box(LOOK)).out
    assert "addr eth0 10.77.0.2/16" in r and "default via 10.77.0.1 dev eth0" in r
    if killed:
        d.kill()
        assert "br77" in cni.links()
        d.start(f"--config={folder}/d.toml")
    assert d.stop() == 0
    clean(cni)
    assert not d.records()


def test_bridge_of_the_host_stays(start, cni, folder):
    cni.run("ip", "link", "add", "buildkit0", "type", "bridge")
    d = start("--oci-worker-net=bridge", f"--oci-cni-binary-dir={PLUGINS}")
    assert d.stop() == 0
    clean(cni, {"buildkit0"})


def test_plugin_that_fails(start, box, cni, folder, cni_flags):
    """A step whose network cannot be made fails with the plugin's words; what cannot be undone is told and tried again at the next start."""
    bin_dir = folder / "plugins"
    bin_dir.mkdir()
    for name in ("loopback", "host-local"):
        os.symlink(f"{PLUGINS}/{name}", bin_dir / name)
    (bin_dir / "bridge").write_text(f"""#!/bin/sh
[ $CNI_COMMAND = DEL ] && [ -e {folder}/no-del ] && {{ echo '{{"code": 7, "msg": "not now"}}'; exit 1; }}
[ $CNI_COMMAND = ADD ] && [ -e {folder}/no-add ] && {{ echo '{{"code": 7, "msg": "no cables", "details": "left"}}'; exit 1; }}
exec {PLUGINS}/bridge
""")
    (bin_dir / "bridge").chmod(0o755)
    flags = [*cni_flags[:2], f"--oci-cni-binary-dir={bin_dir}"]
    d = start(*flags)
    (folder / "no-add").touch()
    listen = "RUN sleep 1; echo $TURN\n"
    r = d.build(box(f"FROM box AS a\n{listen}FROM box AS b\nRUN true\n{listen}FROM scratch\nCOPY --from=a / /1\nCOPY --from=b / /2\n"), code=1).out
    assert 'CNI setup error: plugin type="bridge" name="buildkit" failed (add): no cables; left' in r
    (folder / "no-add").unlink()
    (folder / "no-del").touch()
    assert d.stop() == 0
    assert r'plugin type=\"bridge\" name=\"buildkit\" failed (delete): not now' in d.log() and "tried again at the next start" in d.log()
    assert d.records()
    (folder / "no-del").unlink()
    d.start(*flags)
    assert d.stop() == 0
    clean(cni, {"buildkit0"})
    assert not d.records()
