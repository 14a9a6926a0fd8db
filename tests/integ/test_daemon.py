"""The daemon's life: start, stop, its lock, its version."""
import signal
import subprocess

import pytest

from conftest import WAIT_S, Daemon, find_program


def test_version_has_four_words():
    out = subprocess.run([find_program("slipwayd", "daemon"), "--version"], check=True, capture_output=True, text=True).stdout
    assert len(out.split()) == 4 and out.startswith("buildkitd github.com/moby/buildkit v0.")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_stops_with_status_0(folder, containers, how):
    d = Daemon(folder).start()
    assert d.ctl("debug", "workers")
    assert d.end(how) == 0
    assert not d.found_by_sanitizers()


def test_starts_again_after_a_stop_and_after_a_kill(daemon):
    workers = daemon.ctl("debug", "workers")
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.ctl("debug", "workers") == workers, "the worker's id must stay"
    daemon.kill()
    daemon.start()
    assert daemon.ctl("debug", "workers") == workers


def test_one_daemon_a_root(daemon):
    command = [find_program("slipwayd", "daemon"), "--root", daemon.root, "--addr", f"unix://{daemon.folder}/second.sock"]
    r = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, env=daemon.environment())
    assert r.returncode == 1
    assert "could not lock" in r.stderr
    assert daemon.ctl("debug", "workers")


def test_unknown_flag_and_bad_config_say_what_is_wrong(folder):
    slipwayd = find_program("slipwayd", "daemon")
    r = subprocess.run([slipwayd, "--rot", folder], capture_output=True, text=True, timeout=WAIT_S)
    assert r.returncode == 1 and "did you mean --root?" in r.stderr
    config = folder / "buildkitd.toml"
    config.write_text('[worker.oci]\nmax-parallelism = "many"\n')
    r = subprocess.run([slipwayd, "--config", config, "--root", folder / "root"], capture_output=True, text=True, timeout=WAIT_S)
    assert r.returncode == 1 and "buildkitd.toml:2" in r.stderr
