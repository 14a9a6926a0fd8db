"""What can be seen of the daemon: its log, its metrics, its traces; and that no more steps run at once than it says."""
import http.server
import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from conftest import WAIT_S, Daemon, find_program, free_port, wait_until

TRACE = "b60f6ce61cc3ad279d68e1cac4214723"
PARENT = "ee6e4aa668101211"


class Server:
    """A small HTTP server on loopback; `answer(handler)` is called for each request."""

    def __init__(self, answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self):
                answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = do

            def log_message(self, *args):
                pass

            def reply(self, status, body=b"", **headers):
                self.send_response(status)
                for k, v in headers.items():
                    self.send_header(k.replace("_", "-"), v)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.httpd.server_address[1]
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()

    def close(self):
        self.httpd.shutdown()
        self.httpd.server_close()


@pytest.fixture
def start(folder, containers):
    """start(config, *flags, env={}): a daemon with that configuration; ended and looked at afterwards."""
    running = []

    def make(config="", *flags, env=None, name="one", debug=True):
        home = folder / name
        home.mkdir(exist_ok=True)
        d = Daemon(home)
        path = home / "buildkitd.toml"
        path.write_text(f'[otel]\nsocketPath = "{home}/otel.sock"\n{config}')
        base = d.environment
        d.environment = lambda: dict(base(), **(env or {}))
        d.config = path
        if not debug:  # that flag wins over the file
            command = d.command
            d.command = lambda *more: [word for word in command(*more) if word != "--debug"]
        running.append(d)
        return d.start("--config", str(path), *flags)

    yield make
    for d in running:
        code = d.stop() if d.process else 0
        assert not d.found_by_sanitizers(), d.found_by_sanitizers()
        assert code == 0, f"slipwayd ended with {code}:\n{d.log()}"


def whole_log(d):
    return d.log_path.read_text(errors="replace")


# ---- the log ----

FIELD = re.compile(r'(?:^| )([A-Za-z][\w.-]*)=("(?:[^"\\]|\\.)*"|\S*)')


def text_fields(line):
    return [(k, json.loads(v) if v.startswith('"') else v) for k, v in FIELD.findall(line)]


def test_debug_lines_of_a_pull_are_those_of_the_page(start, registry, context):
    d = start('[registry."docker.io"]\n  mirrors = ["%s"]\n' % registry.host)
    r = d.build(context("FROM docker.io/library/none\nRUN true\n"), code=1)
    assert "not found" in r.out
    d.build(context(f"FROM {registry.base}\nRUN true\n", name="second"))
    lines = [line for line in whole_log(d).splitlines() if 'msg="do request"' in line]
    mirrored = [dict(text_fields(x)) for x in lines if "library/none" in x]
    assert mirrored and mirrored[0]["url"].startswith(f"http://{registry.host}/v2/library/none/manifests/latest")
    assert "ns=docker.io" in mirrored[0]["url"], "a mirror is told whose image it is"
    for line in lines:
        fields = text_fields(line)
        keys = [k for k, _ in fields]
        assert re.match(r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)" level=debug msg="do request" ', line), line
        assert keys[3:] == sorted(keys[3:]), "fields are sorted"
        assert dict(fields)["request.method"] in ("GET", "HEAD")
    first = dict(text_fields(lines[-1]))
    assert "request.header.accept" in first and re.fullmatch("[0-9a-f]{16}", first["spanID"]) and re.fullmatch("[0-9a-f]{32}", first["traceID"])
    answers = [dict(text_fields(x)) for x in whole_log(d).splitlines() if 'msg="fetch response received"' in x]
    assert any(a["response.status"] == "200 OK" and "response.header.docker-content-digest" in a for a in answers)
    assert any(a["span"].startswith("resolving ") for a in answers)
    assert any(a["span"] == "[2/2] RUN true" or a["span"].startswith("[1/2] FROM") for a in answers), "layers belong to the step that wants them"


def test_json_log_and_no_secret_in_it(start, context):
    """A server that hands out secrets in every place it can: headers, cookies, a redirect's query."""
    def answer(h):
        if h.path.startswith("/start"):
            h.reply(302, Location=f"http://user:GEHEIM1@127.0.0.1:{server.port}/file?token=GEHEIM2&X-Amz-Signature=GEHEIM3",
                    Set_Cookie="session=GEHEIM4", X_Auth_Token="GEHEIM5", X_Amz_Security_Token="GEHEIM6", Authorization="GEHEIM7")
        else:
            h.reply(200, b"hello", Link=f"<http://127.0.0.1:{server.port}/next?sig=GEHEIM8>; rel=next", X_Plain="shown")

    server = Server(answer)
    d = start('[log]\nformat = "json"\nlevel = "debug"\n')
    d.build(context(f"FROM scratch\nADD http://me:GEHEIM9@127.0.0.1:{server.port}/start?access_token=GEHEIM10 /f\n"))
    server.close()
    lines = [json.loads(line) for line in whole_log(d).splitlines()]
    assert all(list(x) == sorted(x) and {"time", "level", "msg"} <= set(x) for x in lines)
    answers = [x for x in lines if x["msg"] == "fetch response received"]
    assert any(x.get("response.header.x-plain") == "shown" for x in answers)
    assert any("token=REDACTED" in x.get("response.header.location", "") for x in answers)
    assert "GEHEIM" not in whole_log(d)


def test_log_level_follows_the_file_while_running(start, registry, context):
    d = start('[log]\nlevel = "warn"\n', debug=False)
    d.build(context(f"FROM {registry.base}\nRUN true\n"))
    assert "level=debug" not in whole_log(d) and "level=info" not in whole_log(d)
    d.config.write_text(d.config.read_text().replace("warn", "debug"))
    d.process.send_signal(signal.SIGHUP)
    wait_until("the reload", lambda: "reloaded" in whole_log(d))
    r = d.build(context(f"FROM {registry.base}\nRUN exit 9\n", name="second"), code=1)
    assert 'msg="do request"' in whole_log(d)
    assert re.search('level=error msg="/moby.buildkit.v1.Control/Solve returned error: rpc error: code = Unknown desc = process .* exit code: 9"', whole_log(d))
    assert r.code == 1


# ---- max-parallelism ----

STAGES = 8
NOW = "cut -d' ' -f1 /proc/uptime"


def counted(registry, word, nap):
    """Stages that write down when they ran, from inside, into a cache mount that all share; the last one prints it."""
    mount = f"--mount=type=cache,id={word},target=/c,sharing=shared"
    stages = "".join(f"FROM base AS s{i}\nRUN {mount} {NOW} >/c/{i}.a; sleep {nap}; {NOW} >/c/{i}.b; touch /t{i}\n" for i in range(STAGES))
    copies = "".join(f"COPY --from=s{i} /t{i} /\n" for i in range(STAGES))
    return f"FROM {registry.base} AS base\n{stages}FROM base\n{copies}RUN {mount} cd /c && for f in *; do echo LINE $f $(cat $f); done\n"


def intervals(out):
    """(start, end) of each step, as it wrote them down, in order of their starts."""
    at = {name: float(s) for name, s in re.findall(r"LINE (\d+\.[ab]) ([\d.]+)", out)}
    assert len(at) == 2 * STAGES, out
    return sorted((at[f"{i}.a"], at[f"{i}.b"]) for i in range(STAGES))


def most_at_once(steps):
    return max(sum(a <= s < b for a, b in steps) for s, _ in steps)


def test_never_more_than_max_parallelism(start, registry, context):
    d = start('[worker.oci]\n  max-parallelism = 4\n')
    steps = intervals(d.build(context(counted(registry, "p4", 1))).out)
    assert 2 <= most_at_once(steps) <= 4, steps  # 4 on a machine that has the time


def test_max_parallelism_reloaded_during_a_build(start, registry, context):
    d = start('[worker.oci]\n  max-parallelism = 4\n')
    client = d.start_build(context(counted(registry, "p2", 1)))
    wait_until("four steps", lambda: len(list(d.state.glob("runtime/bundles/*"))) >= 4)
    d.config.write_text(d.config.read_text().replace("max-parallelism = 4", "max-parallelism = 2"))
    d.process.send_signal(signal.SIGHUP)
    r = d.finish(client)
    assert r.code == 0, r.out
    steps = intervals(r.out)
    assert 2 < most_at_once(steps[:4]) <= 4, "those that ran go on"
    assert most_at_once(steps[4:]) <= 2, "those that came later are two at a time"


def test_a_small_build_does_not_wait_for_a_big_one(start, registry, context):
    d = start('[worker.oci]\n  max-parallelism = 1\n')
    many = "FROM %s AS base\n" % registry.base + "".join(f"FROM base AS s{i}\nRUN sleep 0.3; touch /t{i}\n" for i in range(20))
    many += "FROM base\n" + "".join(f"COPY --from=s{i} /t{i} /\n" for i in range(20))
    big = d.start_build(context(many, name="big"))
    wait_until("the first step", lambda: list(d.state.glob("runtime/bundles/*")))
    began = time.monotonic()
    d.build(context(f"FROM {registry.base}\nRUN echo small\n", name="small"))
    took = time.monotonic() - began
    assert big.poll() is None, "the big build must still run"
    assert took < 3, f"one step took {took:.1f} s beside 20 queued ones of 0.3 s"
    big.terminate()
    d.finish(big)


# ---- the debug address ----

def get(port, path, method="GET"):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as r:
            return r.status, r.headers, r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.headers, e.read().decode()


def samples(text):
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line and not line.startswith("#")}


def test_metrics(start, registry, context):
    port = free_port()
    d = start(f'[grpc]\ndebugAddress = "127.0.0.1:{port}"\n[worker.oci]\nmax-parallelism = 3\n')
    status, headers, text = get(port, "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    before = samples(text)
    assert before["slipway_exec_limit"] == 3 and before["slipway_cache_hits_total"] == 0 and before["process_resident_memory_bytes"] > 1e6
    assert abs(before["process_start_time_seconds"] - time.time()) < 2 * WAIT_S
    ok = context(f"FROM {registry.base}\nRUN echo one\n")
    d.build(ok)
    d.build(ok)
    d.build(context(f"FROM {registry.base}\nRUN exit 3\n", name="bad"), code=1)
    text = get(port, "/metrics")[2]
    after = samples(text)
    assert after['buildkit_builds_total{status="success"}'] == 2
    assert after['buildkit_builds_total{status="failure",error_code="Unknown"}'] == 1
    assert after['buildkit_build_duration_seconds_count{status="success"}'] == 2
    assert after['slipway_steps_total{op="exec",outcome="ran"}'] == 1
    assert after['slipway_steps_total{op="exec",outcome="cached"}'] == 1
    assert after['slipway_steps_total{op="exec",outcome="failed"}'] == 1
    assert after["slipway_cache_hits_total"] >= 1 and after["slipway_exec_running"] == 0 and after["slipway_builds_running"] == 0
    assert after[f'slipway_transfers_total{{host="{registry.host}",method="GET",result="2xx"}}'] >= 3
    assert after[f'slipway_transfer_bytes_total{{host="{registry.host}",direction="received"}}'] > 100_000
    for name in {k.split("{")[0] for k in after}:  # every sample has its type
        assert re.search(f"^# TYPE {re.sub('_(bucket|sum|count)$', '', name)} |^# TYPE {name} ", text, re.M), name
    variables = json.loads(get(port, "/debug/vars")[2])
    assert variables["slipway_cache_hits_total"] == after["slipway_cache_hits_total"]


def test_debug_address_pages_and_bad_requests(start):
    port = free_port()
    d = start("", f"--debugaddr=127.0.0.1:{port}")
    assert "/metrics" in get(port, "/")[2]
    assert get(port, "/debug/requests")[2].startswith("0 builds run")
    status, _, text = get(port, "/debug/pprof/goroutine?debug=2")
    assert status == 404 and "/metrics" in text
    assert get(port, "/metrics", "POST")[0] == 405
    status, headers, text = get(port, "/metrics", "HEAD")
    assert status == 200 and text == "" and int(headers["Content-Length"]) > 1000
    for junk in (b"\0" * 70_000, b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                 b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 20_000, b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as s:
            try:
                s.sendall(junk)
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
            except OSError:
                pass
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]  # slow clients take no thread and no turn
    assert get(port, "/metrics")[0] == 200
    for s in idle:
        s.close()
    assert d.ctl("debug", "workers")


def test_debug_address_on_a_unix_socket(start, folder):
    path = folder / "debug.sock"
    start("", f"--debugaddr=unix://{path}")
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(path))
        s.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = b""
        while chunk := s.recv(65536):
            text += chunk
    assert b"slipway_build_info" in text


# ---- traces ----

def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 128:
            return value, at


def fields(data):
    """The fields of a protobuf message: (number, value), bytes for what has a length."""
    at, found = 0, []
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 0:
            value, at = varint(data, at)
        elif tag & 7 == 1:
            value, at = struct.unpack("<Q", data[at:at + 8])[0], at + 8
        elif tag & 7 == 2:
            n, at = varint(data, at)
            value, at = data[at:at + n], at + n
        else:
            value, at = struct.unpack("<I", data[at:at + 4])[0], at + 4
        found.append((tag >> 3, value))
    return found


def all_of(data, number):
    return [v for k, v in fields(data) if k == number]


def first_of(data, number, default=b""):
    return next(iter(all_of(data, number)), default)


class Collector:
    """An OpenTelemetry collector: OTLP over HTTP."""

    def __init__(self, status=200):
        self.status, self.spans, self.requests = status, [], []
        self.server = Server(self.answer)
        self.url = f"http://127.0.0.1:{self.server.port}"

    def answer(self, h):
        body = h.rfile.read(int(h.headers["Content-Length"]))
        self.requests.append((h.path, dict(h.headers)))
        if self.status == 200:
            for resource in all_of(body, 1):
                attributes = {first_of(kv, 1).decode(): first_of(first_of(kv, 2), 1) for kv in all_of(first_of(resource, 1), 1)}
                for scope in all_of(resource, 2):
                    for span in all_of(scope, 2):
                        self.spans.append({"resource": attributes, "trace": first_of(span, 1).hex(), "id": first_of(span, 2).hex(),
                                           "parent": first_of(span, 4).hex(), "name": first_of(span, 5).decode(),
                                           "from": first_of(span, 7, 0), "to": first_of(span, 8, 0),
                                           "status": first_of(first_of(span, 15), 3, 0)})
        h.reply(self.status, b"")

    def wait(self, name):
        return wait_until(f"a span {name!r}, got {[s['name'] for s in self.spans]}", lambda: next((s for s in self.spans if s["name"] == name), None))


@pytest.fixture
def collector():
    c = Collector()
    yield c
    c.server.close()


def otlp(url, **more):
    return dict({"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_BSP_SCHEDULE_DELAY": "100"}, **more)


def test_spans_of_builds_and_steps(start, registry, context, collector):
    d = start(env=otlp(collector.url, OTEL_SERVICE_NAME="farm", OTEL_RESOURCE_ATTRIBUTES="team=blue", OTEL_EXPORTER_OTLP_HEADERS="x-key=a%20b"))
    out = d.build(context(f"FROM {registry.base}\nRUN echo parent=$TRACEPARENT\n")).out
    root = collector.wait("moby.buildkit.v1.Control/Solve")
    step = collector.wait("[2/2] RUN echo parent=$TRACEPARENT")
    assert root["resource"] == {"service.name": b"farm", "service.version": root["resource"]["service.version"], "team": b"blue"}
    assert step["parent"] == root["id"] and step["trace"] == root["trace"] and root["parent"] == ""
    assert root["from"] <= step["from"] <= step["to"] <= root["to"]
    assert f"parent=00-{step['trace']}-{step['id']}-01" in out, "the step knows its span"
    assert collector.requests[0][0] == "/v1/traces" and collector.requests[0][1]["x-key"] == "a b"
    assert step["id"] in whole_log(d), "the log names the same span"


def test_failed_steps_are_failed_spans(start, registry, context, collector):
    d = start(env=otlp(collector.url))
    d.build(context(f"FROM {registry.base}\nRUN exit 7\n"), code=1)
    assert collector.wait("[2/2] RUN exit 7")["status"] == 2
    assert collector.wait("moby.buildkit.v1.Control/Solve")["status"] == 2


def test_the_clients_trace_goes_on(start, registry, context, collector):
    buildctl = "/work/peers/bin/buildctl"
    if not os.path.exists(buildctl):
        pytest.skip("needs BuildKit's buildctl: ours has no traces of its own")
    d = start(env=otlp(collector.url))
    path = context(f"FROM {registry.base}\nRUN echo trace=$TRACEPARENT\n")
    r = subprocess.run([buildctl, "--addr", f"unix://{d.socket}", "build", "--progress=plain", "--frontend=dockerfile.v0", f"--local=context={path}",
                        f"--local=dockerfile={path}"], capture_output=True, text=True, timeout=WAIT_S,
                       env=dict(os.environ, TRACEPARENT=f"00-{TRACE}-{PARENT}-01"))
    assert r.returncode == 0, r.stderr
    assert f"trace=00-{TRACE}-" in r.stderr
    assert collector.wait("moby.buildkit.v1.Control/Solve")["trace"] == TRACE


def test_traces_of_others_go_on_by_grpc(start, registry, context, collector):
    """Two daemons in a row: the first sends by OTLP/gRPC to the socket that steps of the second have, the second to the collector."""
    second = start(env=otlp(collector.url), name="second")
    first = start(env={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"unix://{second.folder}/otel.sock", "OTEL_BSP_SCHEDULE_DELAY": "100",
                       "OTEL_SERVICE_NAME": "first"}, name="first")
    first.build(context(f"FROM {registry.base}\nRUN echo far\n"))
    assert collector.wait("[2/2] RUN echo far")["resource"]["service.name"] == b"first"
    # that socket serves traces and nothing else
    r = subprocess.run([str(find_program("slipway", "cli")), "--builder", f"unix://{second.folder}/otel.sock", "du"], capture_output=True, text=True,
                       timeout=WAIT_S, env=second.environment())
    assert r.returncode != 0


def test_a_dead_collector_costs_nothing(start, registry, context):
    port = free_port()
    d = start(f'[grpc]\ndebugAddress = "127.0.0.1:{port}"\n', env=otlp("http://127.0.0.1:1", OTEL_BSP_MAX_QUEUE_SIZE="10"))
    for i in range(6):
        d.build(context(f"FROM scratch\nCOPY Dockerfile /{i}\n", name=f"c{i}"))
    wait_until("drops", lambda: samples(get(port, "/metrics")[2])["slipway_trace_spans_dropped_total"] > 0)
    said = "level=warning msg=\"traces: "
    wait_until("the warning", lambda: said in whole_log(d))
    assert whole_log(d).count(said) == 1, "said once"
    began = time.monotonic()
    assert d.stop() == 0
    assert time.monotonic() - began < 10


def test_bad_otel_variables_are_named(folder):
    for name, value in (("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://x")):
        r = subprocess.run([find_program("slipwayd", "daemon"), "--root", folder / "root", "--addr", f"unix://{folder}/s"], capture_output=True,
                           text=True, timeout=WAIT_S, env=dict(os.environ, **{name: value}))
        assert r.returncode == 1 and name in r.stderr, r.stderr
