"""What must hold when a process dies at a bad moment, and when several clients come at once."""
import os
import signal
import time
import uuid
from pathlib import Path

import pytest

from conftest import processes_with, wait_until

SLOW = """\
ARG BASE=scratch
FROM ${BASE}
RUN echo first > /first
RUN echo %(word)s is running; sleep 3600; echo %(word)s > /second
"""
QUICK = """\
ARG BASE=scratch
FROM ${BASE}
RUN echo first > /first
RUN echo %(word)s is running; sleep 0; echo %(word)s > /second
"""


@pytest.fixture
def word():
    """Found in the step's command line and nowhere else. What a failed test leaves running is ended by its ids."""
    w = "step-" + uuid.uuid4().hex
    yield w
    for pid in processes_with(w):
        os.kill(pid, signal.SIGKILL)


def wait_for_step(daemon, client, word):
    def running():
        assert client.poll() is None, client.communicate()[0] + daemon.log()
        return [p for p in processes_with(word) if Path(f"/proc/{p}/cmdline").read_bytes().startswith(b"/bin/sh\0-c\0")]
    return wait_until("the step to run", running)


def wait_for_end(word, timeout=20):
    wait_until("the step's processes to end", lambda: not processes_with(word), timeout)


@pytest.mark.parametrize("delay_s", [0, 0.5])
def test_kill_9_during_a_run(daemon, context, registry, folder, word, delay_s):
    args = {"BASE": registry.base}
    path = context(SLOW % {"word": word})
    client = daemon.start_build(path, args=args)
    wait_for_step(daemon, client, word)
    time.sleep(delay_s)
    daemon.kill()
    r = daemon.finish(client)
    assert r.code != 0
    daemon.start()
    wait_for_end(word)
    wait_until("a clean state", lambda: not daemon.leftovers(), 30)  # the runtime is looked for after the daemon answers
    context(QUICK % {"word": word})
    r = daemon.build(path, f"--output=type=local,dest={folder}/out", args=args)
    assert any("echo first" in s for s in r.cached()), f"a step that had ended must be a hit:\n{r.out}"
    assert (folder / "out/second").read_text().strip() == word
    wait_until("a clean state", lambda: not daemon.leftovers(), 30)


def test_kill_9_again_and_again(daemon, context, registry, folder, word):
    """Killed at changing moments of a build with several steps: each rebuild works, and ends with the right files."""
    args = {"BASE": registry.base}
    steps = "".join(f"RUN echo {i} >> /n && cp /bin/busybox /copy{i}\n" for i in range(6))
    path = context("ARG BASE=scratch\nFROM ${BASE}\n" + steps, {"x": word})
    for i in range(6):
        client = daemon.start_build(path, args=args)
        time.sleep(0.08 * (i + 1))
        daemon.kill()
        daemon.finish(client)
        daemon.start()
        wait_until("a clean state", lambda: not daemon.leftovers(), 30)
    daemon.build(path, f"--output=type=local,dest={folder}/out", args=args)
    assert (folder / "out/n").read_text().split() == list("012345")
    busybox = (folder / "out/bin/busybox").read_bytes()
    assert all((folder / f"out/copy{i}").read_bytes() == busybox for i in range(6))


def test_two_clients_run_each_step_once(daemon, context, registry, folder, word):
    path = context("ARG BASE=scratch\nFROM ${BASE}\nRUN cat /proc/sys/kernel/random/uuid > /id && sleep 2\nRUN cat /proc/sys/kernel/random/uuid > /id2\n")
    clients = [daemon.start_build(path, f"--output=type=local,dest={folder}/out{i}", args={"BASE": registry.base}) for i in range(2)]
    for c in clients:
        r = daemon.finish(c)
        assert r.code == 0, r.out
    for name in ("id", "id2"):
        first, second = ((folder / f"out{i}" / name).read_text() for i in range(2))
        assert first == second, f"{name}: the step ran twice"


def test_one_of_two_clients_leaves(daemon, context, registry, folder, word):
    """The step goes on for the other."""
    path = context(f"ARG BASE=scratch\nFROM ${{BASE}}\nRUN echo {word} > /id && sleep 3 && cat /proc/sys/kernel/random/uuid > /id\n")
    clients = [daemon.start_build(path, f"--output=type=local,dest={folder}/out{i}", args={"BASE": registry.base}) for i in range(2)]
    wait_for_step(daemon, clients[0], word)
    time.sleep(0.5)
    clients[0].send_signal(signal.SIGINT)
    assert daemon.finish(clients[0]).code != 0
    r = daemon.finish(clients[1])
    assert r.code == 0, r.out
    assert len((folder / "out1/id").read_text().strip()) == 36


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_cancel_ends_the_step(daemon, context, registry, word, how):
    args = {"BASE": registry.base}
    path = context(SLOW % {"word": word})
    client = daemon.start_build(path, args=args)
    wait_for_step(daemon, client, word)
    client.send_signal(how)
    assert daemon.finish(client).code != 0
    wait_for_end(word)
    wait_until("a clean state", lambda: not daemon.leftovers(), 30)
    context(QUICK % {"word": word})
    daemon.build(path, args=args)


def test_a_stop_lets_the_build_end(daemon, context, registry, folder, word):
    path = context(f"ARG BASE=scratch\nFROM ${{BASE}}\nRUN echo {word}; sleep 2; echo done > /done\n")
    client = daemon.start_build(path, f"--output=type=local,dest={folder}/out", args={"BASE": registry.base})
    wait_for_step(daemon, client, word)
    assert daemon.stop() == 0
    r = daemon.finish(client)
    assert r.code == 0, r.out
    assert (folder / "out/done").read_text() == "done\n"
