"""A server on this machine in the place of Google Cloud Storage, for all that speaks to `gs://`.

    with Storage(tmp_path) as storage:
        subprocess.run(command, env=os.environ | storage.environment)
        storage.objects["bucket/run/metrics.jsonl"]

TensorFlow goes to Google's own addresses, and gets here by a proxy with a certificate of its own;
TensorStore and Google's Python client have variables for other addresses.
"""

import contextlib
import http.server
import itertools
import json
import re
import ssl
import subprocess
import threading
import urllib.parse
from pathlib import Path

_HOSTS = ("www.googleapis.com", "storage.googleapis.com")


class Storage(http.server.ThreadingHTTPServer):
    """The server; a context manager.

    Attributes:
      objects: "bucket/name" -> bytes.
      environment: variables by which programs find it.
      requests: what was asked for.
    """

    daemon_threads = True
    request_queue_size = 128  # of connections at once; beyond it, clients wait for a second

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        names = ",".join(f"DNS:{host}" for host in _HOSTS)
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=storage",
        ]
        command += ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run(
            [*command, "-addext", f"subjectAltName={names}"], check=True, capture_output=True
        )
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate, key)
        self.objects: dict[str, bytes] = {}
        self.generations: dict[str, int] = {}
        self.uploads: dict[str, str] = {}
        self.numbers = itertools.count()  # of uploads
        self.requests: list[str] = []
        self.lock = threading.Lock()
        url = f"http://127.0.0.1:{self.server_port}"
        self.environment = {
            "https_proxy": url,
            "no_proxy": "127.0.0.1,localhost",
            "CURL_CA_BUNDLE": str(certificate),
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
            "NO_GCE_CHECK": "true",
            "TENSORSTORE_GCS_HTTP_URL": url,
            "STORAGE_EMULATOR_HOST": url,
            "GOOGLE_CLOUD_PROJECT": "project",
        }

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return super().__enter__()

    def __exit__(self, *error):
        self.shutdown()
        super().__exit__(*error)

    def handle_error(self, request, client_address):
        """A client that hangs up is no news here."""

    def put(self, key: str, data: bytes) -> None:
        """Stores an object."""
        with self.lock:
            self.objects[key] = data
            self.generations[key] = len(self.requests) + 1

    def resource(self, key: str) -> dict:
        """What is said of an object."""
        bucket, _, name = key.partition("/")
        data = self.objects[key]
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "size": str(len(data)),
            "generation": str(self.generations[key]),
            "metageneration": "1",
            "updated": "2026-01-01T00:00:00.000Z",
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "storageClass": "STANDARD",
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body that follows its head would wait for 40 ms

    def log_message(self, *args):
        pass

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)

    def do_GET(self):
        self.answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def answer(self):
        server = self.server
        server.requests.append(f"{self.command} {self.path}")
        url = urllib.parse.urlsplit(self.path)
        query = {k: v[0] for k, v in urllib.parse.parse_qs(url.query).items()}
        body = self.body()
        if match := re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", url.path):
            self.upload(match[1], query, body)
        elif match := re.fullmatch(r"/uploads/(\d+)", url.path):
            self.resume(match[1], body)
        elif match := re.fullmatch(r"/storage/v1/b/([^/]+)/o", url.path):
            self.list(match[1], query)
        elif match := re.fullmatch(
            r"/storage/v1/b/([^/]+)/o/([^/]+)/(rewrite|copy)To/b/([^/]+)/o/([^/]+)", url.path
        ):
            source, target = (
                f"{b}/{urllib.parse.unquote(o)}" for b, o in (match.group(1, 2), match.group(4, 5))
            )
            if source not in server.objects:
                return self.say(404)
            server.put(target, server.objects[source])
            self.json({"done": True, "resource": server.resource(target)})
        elif match := re.fullmatch(r"/(?:download/)?storage/v1/b/([^/]+)/o/([^/]+)", url.path):
            self.object(f"{match[1]}/{urllib.parse.unquote(match[2])}", query)
        elif match := re.fullmatch(r"/storage/v1/b/([^/]+)(/storageLayout)?", url.path):
            self.json({"kind": "storage#bucket", "name": match[1], "location": "US"})
        elif match := re.fullmatch(r"/([^/]+)/(.+)", url.path):
            self.object(urllib.parse.unquote(url.path[1:]), {"alt": "media"})
        else:
            self.say(404)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def upload(self, bucket: str, query: dict, body: bytes) -> None:
        server = self.server
        kind, name = query["uploadType"], query.get("name")
        if kind == "multipart":
            boundary = re.search(r"boundary=['\"]?([^'\";]+)", self.headers["Content-Type"])[1]
            _, about, content, _ = body.split(b"--" + boundary.encode())
            name = json.loads(about.partition(b"\r\n\r\n")[2])["name"]
            body = content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        if kind == "resumable" and name is None:
            name = json.loads(body)["name"]
        key = f"{bucket}/{name}"
        if self.refused(key, query):
            return self.say(412)
        if kind == "resumable":
            number = str(next(server.numbers))
            server.uploads[number] = key
            scheme = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
            place = f"{scheme}://{self.headers['Host']}/uploads/{number}"
            return self.say(200, headers={"Location": place})
        server.put(key, body)
        self.json(server.resource(key))

    def resume(self, number: str, body: bytes) -> None:
        key, span = self.server.uploads[number], self.headers.get("Content-Range", "")
        before = self.server.objects.get(f"uploads/{number}", b"")
        match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", span)
        whole = before[: int(match[1] or len(before))] + body if match else body
        if match and match[2] != str(len(whole)):
            self.server.put(f"uploads/{number}", whole)
            return self.say(308, headers={"Range": f"bytes=0-{len(whole) - 1}"} if whole else {})
        self.server.objects.pop(f"uploads/{number}", None)
        self.server.put(key, whole)
        self.json(self.server.resource(key))

    def list(self, bucket: str, query: dict) -> None:
        start, end, prefix = (
            query.get("startOffset", ""),
            query.get("endOffset"),
            query.get("prefix", ""),
        )
        found, folders = [], set()
        for key in sorted(self.server.objects.copy()):
            name = key.removeprefix(f"{bucket}/")
            if name == key or not name.startswith(prefix) or name < start or (end and name >= end):
                continue
            first, between, _ = name[len(prefix) :].partition(query.get("delimiter") or "\0")
            if between:
                folders.add(prefix + first + between)
            else:
                with contextlib.suppress(KeyError):  # just deleted
                    found.append(self.server.resource(key))
        self.json({"kind": "storage#objects", "items": found, "prefixes": sorted(folders)})

    def object(self, key: str, query: dict) -> None:
        server = self.server
        if key not in server.objects:
            return self.say(404)
        if self.refused(key, query):
            return self.say(304 if self.command == "GET" else 412)
        if self.command == "DELETE":
            with server.lock:
                server.objects.pop(key, None)
            return self.say(204)
        if query.get("alt") != "media":
            return self.json(server.resource(key))
        data, status, headers = server.objects[key], 200, {}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
            if first >= len(data):
                return self.say(416, headers={"Content-Range": f"bytes */{len(data)}"})
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first : last + 1], 206
        headers |= {
            "x-goog-generation": str(server.generations[key]),
            "x-goog-stored-content-length": str(len(server.objects[key])),
        }
        self.say(status, data, headers)

    def refused(self, key: str, query: dict) -> bool:
        """Whether a condition does not hold."""
        generation = str(self.server.generations.get(key, 0) if key in self.server.objects else 0)
        wanted, unwanted = query.get("ifGenerationMatch"), query.get("ifGenerationNotMatch")
        return (wanted or generation) != generation or unwanted == generation

    def json(self, content: dict) -> None:
        self.say(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def say(self, status: int, body: bytes = b"", headers: dict | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
