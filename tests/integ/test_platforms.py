"""Platforms that are not the machine's own: which are offered, and what a step for one that cannot run here says.

The emulator is a copy of busybox called `echo`, registered for LoongArch programs while the test runs: the kernel then starts it with the
path of the program, so a step that runs such a program prints that path.
"""
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

RULES = Path("/proc/sys/fs/binfmt_misc")
NAME = "slipway-test-loong64"
HEAD = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 258)
DOCKERFILE = """FROM --platform=linux/loong64 scratch
COPY program /bin/program
RUN ["/bin/program"]
"""


@pytest.fixture
def emulator(tmp_path):
    """A function that registers the emulator; whatever it did is undone."""
    mounted = False
    if not (RULES / "register").exists():
        mounted = subprocess.run(["mount", "-t", "binfmt_misc", "none", RULES], capture_output=True).returncode == 0
        if not mounted:
            pytest.skip("binfmt_misc is not to be had")
    if (RULES / NAME).exists() or any(b"0201" in p.read_bytes() for p in RULES.glob("*loong*")):
        pytest.skip("this machine has an emulator for loong64")
    program = tmp_path / "echo"
    shutil.copy(shutil.which("busybox") or "/bin/busybox", program)

    def register():
        magic = "".join(f"\\x{b:02x}" for b in HEAD)
        try:
            (RULES / "register").write_text(f":{NAME}:M:0:{magic}::{program}:F")
        except OSError as e:
            pytest.skip(f"binfmt_misc takes no rule: {e}")
    yield register
    if (RULES / NAME).exists():
        (RULES / NAME).write_text("-1")
    if mounted:
        subprocess.run(["umount", RULES], check=True)


def test_platform_without_and_with_an_emulator(daemon, context, emulator, tmp_path):
    config = tmp_path / "d.toml"
    config.write_text('[system]\nplatformsCacheMaxAge = "0s"\n')
    daemon.stop()
    daemon.start("--config", str(config))
    folder = context(DOCKERFILE)
    (folder / "program").write_bytes(HEAD + bytes(100))
    os.chmod(folder / "program", 0o755)

    assert "loong64" not in daemon.ctl("debug", "workers")
    r = daemon.build(folder, "--opt=platform=linux/loong64", code=1)
    assert "no linux/loong64 programs run on this machine" in r.out
    emulator()
    assert "linux/loong64" in daemon.ctl("debug", "workers")
    r = daemon.build(folder, "--opt=platform=linux/loong64")
    assert re.search(r"^#\d+ [0-9.]+ /bin/program", r.out, re.M), r.out
