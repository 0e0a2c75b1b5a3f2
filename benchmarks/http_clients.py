"""Clients of a server, as cheap as they can be: the server has the same cores as they.

server = started([...], port)
seconds, status, body = await ask(port, request)
"""

import asyncio
import base64
import contextlib
import io
import json
import random
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator

from paligemma_lib import sample_data


def scenes(count: int) -> list[bytes]:
    """Drawn images, as JPEG."""
    found = []
    for number in range(count):
        file = io.BytesIO()
        scene = sample_data.compose(5, number)
        sample_data.draw(scene, random.Random(number)).save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def upload(image: bytes, **fields: str) -> bytes:
    """`POST /caption` as bytes."""
    parts = [
        f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = b'--B\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    body = b"".join([*parts, head, image, b"\r\n--B--\r\n"])
    return post("/caption", body, "multipart/form-data; boundary=B")


def chat(image: bytes, **fields: object) -> bytes:
    """`POST /v1/chat/completions` as bytes."""
    url = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}]
    body = {"messages": [{"role": "user", "content": content}], **fields}
    return post("/v1/chat/completions", json.dumps(body).encode(), "application/json")


def post(path: str, body: bytes, kind: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Connection:
    """A connection that is kept for many requests."""

    def __init__(self, port: int):
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.first_text = 0.0  # when the last answer, if it was a stream, had text; else 0

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Returns status, head and body; a stream is read to its end."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        self.first_text = 0.0
        writer.write(request)
        await writer.drain()
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        head = {
            name.lower(): value
            for name, _, value in (line.partition(": ") for line in lines if line)
        }
        if "content-length" in head:
            body = await reader.readexactly(int(head["content-length"]))
        else:
            body = b""
            while not body.endswith(b"\r\n0\r\n\r\n"):
                if not (more := await reader.read(1 << 16)):
                    raise ConnectionError("the stream has ended too early")
                body += more
                if not self.first_text and re.search(rb'"content": ?"[^"]', body):
                    self.first_text = time.perf_counter()
        if head.get("connection") == "close":
            self.close()
        return int(status.split()[1]), head, body

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def started(command: list[str], port: int, path: str = "/readyz") -> Iterator[subprocess.Popen]:
    """Starts a server, and gives it when it is ready."""
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 600
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).read()
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{command} has not started") from error
                time.sleep(0.2)
        yield process
    finally:
        process.terminate()
        process.wait(60)
