"""Bytes that are no request: the daemon answers or hangs up, and goes on serving the others."""
import os
import random
import socket
import struct

import pytest

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(path):
    """HPACK with literal fields only."""
    out = b""
    for name, value in ((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
                        ("content-type", "application/grpc"), ("te", "trailers")):
        out += b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return out


def message(body, length=None):
    return b"\0" + struct.pack(">I", len(body) if length is None else length) + body


def talk(daemon, data, want_end_of=None):
    """Send; read frames until the stream's end (or the connection's). Returns the kinds of the frames seen."""
    kinds = []
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect(str(daemon.socket))
        try:
            s.sendall(data)
            if want_end_of is None:
                s.shutdown(socket.SHUT_WR)
            stream = s.makefile("rb")
            while len(head := stream.read(9)) == 9:
                length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                number = int.from_bytes(head[5:], "big")
                stream.read(length)
                kinds.append(kind)
                if want_end_of is not None and number == want_end_of and (kind == RST_STREAM or flags & END_STREAM and kind in (DATA, HEADERS)):
                    break
        except (BrokenPipeError, ConnectionResetError):
            pass
    return kinds


def still_serves(daemon):
    assert daemon.alive(), daemon.log()
    assert daemon.ctl("debug", "workers")


def test_garbage_instead_of_a_preface(daemon):
    for seed in range(20):
        talk(daemon, random.Random(seed).randbytes(1 + 997 * seed))
    talk(daemon, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    talk(daemon, b"")
    still_serves(daemon)


def test_junk_after_the_preface(daemon):
    hello = PREFACE + frame(SETTINGS, 0, 0)
    for seed in range(40):
        talk(daemon, hello + random.Random(seed).randbytes(2000))
    talk(daemon, PREFACE[:10])
    talk(daemon, hello + frame(HEADERS, END_HEADERS, 1, b"\xff" * 100))
    talk(daemon, hello + frame(DATA, 0, 7, b"no such stream"))
    talk(daemon, hello + b"\xff\xff\xff\0\0\0\0\0\1" + b"x" * 70000)
    still_serves(daemon)


CONTROL = "/moby.buildkit.v1.Control/"
BODIES = {
    "junk": message(os.urandom(300)),
    "truncated": message(b"\x0a\x7fshort"),
    "bad utf-8": message(b"\x0a\x02\xff\xfe"),
    "nul in a string": message(b"\x0a\x03a\0b"),
    "huge varint": message(b"\x0a" + b"\xff" * 10),
    "length of 4 GiB": message(b"abc", 0xFFFFFFFF),
    "compressed flag": b"\1" + struct.pack(">I", 3) + b"abc",
    "half a header": b"\0\0",
    "nothing": b"",
}


def nested(depth):
    """A definition whose field 2 holds itself, again and again."""
    body = b""
    for _ in range(depth):
        n, length = len(body), b""
        while True:
            length += bytes([n & 127 | (128 if n > 127 else 0)])
            n >>= 7
            if not n:
                break
        body = b"\x12" + length + body
    return body


@pytest.mark.parametrize("body", list(BODIES), ids=lambda b: b.replace(" ", "-"))
@pytest.mark.parametrize("method", ["Solve", "Prune", "DiskUsage"])
def test_broken_message(shared_daemon, method, body):
    kinds = talk(shared_daemon, PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, headers(CONTROL + method)) +
                 frame(DATA, END_STREAM, 1, BODIES[body]), want_end_of=1)
    assert HEADERS in kinds or RST_STREAM in kinds, "no answer"
    still_serves(shared_daemon)


def test_deep_nesting_and_unknown_method(shared_daemon):
    for method in ("Solve", "NoSuchMethod"):
        kinds = talk(shared_daemon, PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, headers(CONTROL + method)) +
                     frame(DATA, END_STREAM, 1, message(nested(3000))), want_end_of=1)
        assert HEADERS in kinds or RST_STREAM in kinds, "no answer"
    still_serves(shared_daemon)


@pytest.fixture(scope="module")
def shared_daemon(containers, tmp_path_factory):
    import shutil
    import tempfile
    from pathlib import Path

    from conftest import Daemon
    folder = Path(tempfile.mkdtemp(prefix="slipway-it."))
    d = Daemon(folder).start()
    yield d
    assert d.stop() == 0
    assert not d.found_by_sanitizers(), d.found_by_sanitizers()
    shutil.rmtree(folder)
