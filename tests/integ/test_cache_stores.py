"""Caches in object stores, against small servers that check what a real one checks: signatures, headers, the order of calls."""
import base64
import hashlib
import hmac
import json
import re
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from test_cache import all_cached, case  # noqa: F401 (a fixture)


class Store(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, code, body=b"", kind="application/octet-stream"):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def stored(self, key):
        self.answer(*((200, self.server.objects[key]) if key in self.server.objects else (404, b"NoSuchKey")))


class S3(Store):
    def signed(self):
        m = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=key/(\d+)/here/s3/aws4_request, SignedHeaders=(\S+), Signature=(\w+)",
                         self.headers.get("Authorization", ""))
        if not m:
            return False
        names = m[2].split(";")
        head = "".join(f"{n}:{self.headers[n]}\n" for n in names)
        request = "\n".join([self.command, self.path, "", head, m[2], self.headers["x-amz-content-sha256"]])
        text = "\n".join(["AWS4-HMAC-SHA256", self.headers["x-amz-date"], f"{m[1]}/here/s3/aws4_request",
                          hashlib.sha256(request.encode()).hexdigest()])
        key = b"AWS4secret"
        for part in (m[1], "here", "s3", "aws4_request", text):
            key = hmac.new(key, part.encode(), "sha256").digest()
        return "host" in names and key.hex() == m[3]

    def serve(self):
        body = self.body()
        if not self.signed() or hashlib.sha256(body).hexdigest() != self.headers["x-amz-content-sha256"]:
            return self.answer(403, b"SignatureDoesNotMatch")
        key = urllib.parse.unquote(self.path)
        if self.command != "PUT":
            return self.stored(key)
        self.server.objects[key] = body
        return self.answer(200)

    do_GET = do_HEAD = do_PUT = serve


class Actions(Store):
    def do_POST(self):
        asked, call = json.loads(self.body()), self.path.rpartition("/")[2]
        key, done, begun, url = asked["key"], self.server.done, self.server.begun, f"http://127.0.0.1:{self.server.server_port}/blob/"
        assert self.path.startswith("/twirp/github.actions.results.api.v1.CacheService/") and asked["version"]
        assert self.headers["Authorization"].startswith("Bearer ")
        reply = {"ok": False}
        if call == "GetCacheEntryDownloadURL":
            found = [k for k in done if k == key] or [k for k in done if any(k.startswith(r) for r in asked["restore_keys"])]
            if found:
                reply = {"ok": True, "signed_download_url": url + urllib.parse.quote(found[-1], safe=""), "matched_key": found[-1]}
        elif call == "CreateCacheEntry":
            if key in begun:
                return self.answer(409, b"{}")
            begun.add(key)
            reply = {"ok": True, "signed_upload_url": url + urllib.parse.quote(key, safe="") + "?sig=1"}
        elif call == "FinalizeCacheEntryUpload" and len(self.server.objects[key]) == asked["size_bytes"]:
            done.append(key)
            reply = {"ok": True, "entry_id": "1"}
        return self.answer(200, json.dumps(reply).encode(), "application/json")

    def do_PUT(self):
        assert self.headers["x-ms-blob-type"] == "BlockBlob" and self.path.endswith("?sig=1")
        self.server.objects[urllib.parse.unquote(self.path[len("/blob/"):-len("?sig=1")])] = self.body()
        self.answer(201)

    def do_GET(self):
        self.stored(urllib.parse.unquote(self.path[len("/blob/"):]))


@pytest.fixture
def store():
    servers = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.objects, server.done, server.begun = {}, [], set()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server
    yield start
    for s in servers:
        s.shutdown()
        s.server_close()


def test_s3(case, store):  # noqa: F811
    server = store(S3)
    where = (f"type=s3,bucket=b,region=here,access_key_id=key,prefix=p/,endpoint_url=http://127.0.0.1:{server.server_port},"
             "use_path_style=true,retry_max_attempts=1,secret_access_key=")
    wrong, _ = case.build(f"--export-cache={where}other,ignore-error=true")
    assert "403" in wrong.out and not server.objects
    made, files = case.build(f"--export-cache={where}secret,mode=max")
    assert "exporting cache to Amazon S3" in made.out and "/b/p/manifests/buildkit" in server.objects
    assert all(k.rpartition(":")[2] == hashlib.sha256(v).hexdigest() for k, v in server.objects.items() if "/blobs/" in k)
    case.forget()
    again, same = case.build(f"--import-cache={where}secret")
    all_cached(again)
    assert same == files
    case.forget()
    for key in [k for k in server.objects if "/blobs/" in k]:
        del server.objects[key]
    empty, _ = case.build(f"--import-cache={where}secret")
    assert not any("RUN" in s for s in empty.cached()), empty.out


def token(**claims):
    def part(o):
        return base64.urlsafe_b64encode(json.dumps(o).encode()).decode().rstrip("=")
    scopes = json.dumps([{"Scope": "refs/heads/main", "Permission": 3}])
    return ".".join([part({"alg": "HS256"}), part(dict({"ac": scopes, "exp": int(time.time()) + 3600, "nbf": 0}, **claims)), "c2ln"])


def test_github_actions(case, store):  # noqa: F811
    server = store(Actions)
    where = f"type=gha,version=2,scope=it,url_v2=http://127.0.0.1:{server.server_port}/,token="
    assert "expired" in case.daemon.build(case.path, f"--export-cache={where}{token(exp=1)}", args={"BASE": case.registry.base}, code=1).out
    for number in ("1", "2"):  # the second export makes a new index
        _, files = case.build(f"--export-cache={where}{token()},mode=max")
        assert re.fullmatch(rf"index-it-1-[0-9a-f]{{8}}#{number}", server.done[-1]), server.done
    case.forget()
    again, same = case.build(f"--import-cache={where}{token()}")
    all_cached(again)
    assert same == files
    assert token()[:80] not in case.daemon.log_path.read_text()
