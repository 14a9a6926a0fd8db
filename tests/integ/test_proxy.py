"""The proxy network: what a step reaches, what is written down, what stays in the image."""
import http.server
import json
import threading

import pytest


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, **headers):
        self.server.seen.append(f"{self.command} {self.path}")
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k, v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/moved":
            self.answer(302, b"", Location="/file")
        elif self.path in ("/file", "/other"):
            self.answer(200, f"this is {self.path}\n".encode())
        else:
            self.answer(404, b"no")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, b"got " + body + b"\n")

    def log_message(self, *args):
        pass


@pytest.fixture
def web():
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    s.seen = []
    s.url = f"http://127.0.0.1:{s.server_address[1]}"
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield s
    s.shutdown()
    s.server_close()


@pytest.fixture
def build(daemon, context, registry, folder):
    """One step; its output folder. A client on loopback: NO_PROXY must not keep it from the proxy."""
    def run(command, *more, code=0, network="", proxy="--proxy-network"):
        path = context(f"ARG BASE\nFROM ${{BASE}}\nRUN {network} export NO_PROXY= no_proxy=; {command}\n", {})
        r = daemon.build(path, *([proxy] if proxy else []), "--no-cache", f"--output=type=local,dest={folder}/out", *more,
                         args={"BASE": registry.base}, code=code)
        return r
    return run


def test_what_a_step_fetches_is_written_down(build, web, folder):
    # busybox' wget makes a GET of a POST to a proxy
    post = f"POST {web.url}/post HTTP/1.1\\r\\nContent-Length: 3\\r\\nConnection: close\\r\\n\\r\\nxyz"
    r = build(f"wget -qO /a {web.url}/moved && p=${{HTTP_PROXY#http://}} && printf '{post}' | nc ${{p%:*}} ${{p#*:}} >/b",
              "--opt=attest:provenance=mode=max,version=v1")
    assert (folder / "out/a").read_text() == "this is /file\n" and (folder / "out/b").read_text().endswith("\n\ngot xyz\n")
    for line in ("proxy network requests:", f"- GET {web.url}/moved -> 302", f"- GET {web.url}/file -> 200", f"- POST {web.url}/post -> 200"):
        assert line in r.out
    predicate = json.loads((folder / "out/provenance.json").read_text())["predicate"]
    uris = [d["uri"] for d in predicate["buildDefinition"]["resolvedDependencies"]]
    assert f"{web.url}/file" in uris and f"{web.url}/moved" in uris and f"{web.url}/post" not in uris
    network = predicate["runDetails"]["metadata"]["buildkit_metadata"]["network"]
    assert network["mode"] == "proxy"
    assert [(g["method"], g["uri"], g["reason"]) for g in network["proxy"]["incomplete"]] == [
        ("POST", f"{web.url}/post", "method_not_materializable")]


def test_nothing_else_answers(build, web):
    """Neither what listens on the host's loopback nor an interface of its own."""
    build(f"unset HTTP_PROXY http_proxy; ! wget -T 2 -qO- {web.url}/file && test $(ls /sys/class/net | wc -l) = 1")
    assert web.seen == []


def test_no_network_is_no_proxy(build, web):
    build(f"! env | grep -qi ^http_proxy && ! wget -T 2 -qO- {web.url}/file", network="--network=none")
    assert web.seen == []


def test_https_that_fails_says_so_within_tls(build):
    build("! wget -S -qO- https://nowhere.invalid/ 2>/log; cat /log; grep 'HTTP/1.1 502 Bad Gateway' /log")


def test_policy(build, web, folder):
    rules = [{"action": "DENY", "selector": {"identifier": f"{web.url}/secret"}},
             {"action": "CONVERT", "selector": {"identifier": f"{web.url}/file"}, "updates": {"identifier": f"{web.url}/other"}}]
    (folder / "policy.json").write_text(json.dumps({"version": 1, "rules": rules}))
    build(f"wget -qO /a {web.url}/file; wget -S -qO /b {web.url}/secret 2>/log; grep 'HTTP/1.1 403 Forbidden' /log",
          f"--source-policy-file={folder}/policy.json")
    assert (folder / "out/a").read_text() == "this is /other\n"
    assert web.seen == ["GET /other"]


def test_materials_that_are_not_complete_refuse_the_build(build, web):
    r = build(f"wget -qO /a {web.url}/nothing; true", "--opt=attest:provenance=mode=max,version=v1,complete-materials=true", code=1)
    assert "provenance materials are incomplete" in r.out and f"{web.url}/nothing" in r.out and "unsuccessful_response" in r.out


def test_the_authority_is_there_while_the_step_runs(daemon, context, registry, folder):
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    path = context(f"""ARG BASE
FROM ${{BASE}}
RUN mkdir -p /etc/ssl/certs && printf 'old\\n' > {bundle} && touch -d @1000000 {bundle}
RUN grep 'proxy CA begin' {bundle}
RUN printf 'new\\n' >> {bundle} && cp {bundle} /tmp/copy
""", {})
    daemon.build(path, "--proxy-network", f"--output=type=local,dest={folder}/out", args={"BASE": registry.base})
    assert (folder / f"out{bundle}").read_text() == "old\nnew\n"
    assert "BEGIN CERTIFICATE" in (folder / "out/tmp/copy").read_text()
    path = context("\n".join((path / "Dockerfile").read_text().splitlines()[:-1]) + "\n", {})
    daemon.build(path, "--proxy-network", f"--output=type=local,dest={folder}/out2", args={"BASE": registry.base})
    assert (folder / f"out2{bundle}").read_text() == "old\n"
    assert int((folder / f"out2{bundle}").stat().st_mtime) == 1000000


def test_the_daemons_own_setting(daemon, build, web):
    daemon.stop()
    daemon.start("--proxy-network")
    r = build(f"wget -qO /a {web.url}/file", proxy=None)
    assert f"- GET {web.url}/file -> 200" in r.out
    assert daemon.leftovers() == []
