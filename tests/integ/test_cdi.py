"""Devices by the Container Device Interface: who may have them, and what a step gets."""
import json

import pytest

SPEC = """
cdiVersion: "0.6.0"
kind: vendor.test/thing
containerEdits:
  env: [EVERY=1]
devices:
- name: one
  annotations: {org.mobyproject.buildkit.device.autoallow: true}
  containerEdits:
    env: [ONE=injected]
    deviceNodes:
    - {path: /dev/thing, hostPath: /dev/null, permissions: rw, fileMode: 0640}
    mounts:
    - {hostPath: %s, containerPath: /given, options: [ro, rbind]}
    additionalGids: [4242]
- name: two
  containerEdits: {env: [TWO=injected]}
"""


@pytest.fixture
def devices(daemon, context, registry, folder):
    """A daemon with a specification that came while it ran; build one step with these devices."""
    specs, given = folder / "specs", folder / "given"
    daemon.stop()
    daemon.start("--cdi-spec-dir", str(specs))
    specs.mkdir()
    given.mkdir()
    (given / "file").write_text("from the host\n")
    (specs / "vendor.yaml").write_text(SPEC % given)

    def build(command, *names, more=(), code=0):
        flags = " ".join(f"--device={n}" for n in names)
        path = context(f"# syntax=docker/dockerfile:1-labs\nARG BASE\nFROM ${{BASE}}\nRUN {flags} {command}\n", {})
        return daemon.build(path, *more, args={"BASE": registry.base}, code=code)
    return build


def test_what_a_step_gets(devices):
    devices("test $ONE = injected -a $EVERY = 1 && test -c /dev/thing -a $(stat -c %a /dev/thing) = 640 && echo x >/dev/thing "
            "&& grep 'from the host' /given/file && ! touch /given/new && id -G | grep 4242", "vendor.test/thing=one,required")


def test_who_may_have_it(devices):
    r = devices("true", "vendor.test/thing=two", code=1)
    assert "device vendor.test/thing=two is requested by the build but not allowed" in r.out
    devices("test $TWO = injected", "vendor.test/thing=two", more=["--allow=device=vendor.test/thing=two"])
    devices("test $TWO = injected -a $ONE = injected", "vendor.test/thing=*", more=["--allow=device"])


def test_what_is_not_there(devices):
    devices("test -z \"$ONE\"", "vendor.test/other=one")
    r = devices("true", "vendor.test/other=one,required", code=1)
    assert 'required device "vendor.test/other=one" is not registered' in r.out


def test_they_are_listed(daemon, devices):
    workers = json.loads(daemon.ctl("debug", "workers", "--format={{json .}}"))
    assert {d["name"]: d["autoAllow"] for d in workers[0]["cdiDevices"]} == {"vendor.test/thing=one": True, "vendor.test/thing=two": False}
