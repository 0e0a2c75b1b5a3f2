"""A server with a tiny model, on this machine, and bytes to send to it."""

import base64
import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator

import captioning_cases as cases
import jax

from paligemma_lib.captioner import Captioner
from paligemma_lib.serving import Engine
from paligemma_lib.serving.endpoint import Limits, ServedModels, make_app
from paligemma_lib.serving.endpoint.http_server import DrainingServer, config_of
from paligemma_lib.testing import tiny_tokenizer

LENGTH = 6


def tiny_captioner() -> Captioner:
    params = jax.tree.map(jax.numpy.asarray, cases.random_params())
    return Captioner(cases.CONFIG, params, tiny_tokenizer())


@contextlib.contextmanager
def serving(models: dict[str, Engine], limits: Limits) -> Iterator[int]:
    """Runs a server in a thread; gives its port."""
    with running(models, limits) as (port, _):
        yield port


@contextlib.contextmanager
def running(models: dict[str, Engine], limits: Limits) -> Iterator[tuple[int, DrainingServer]]:
    """Runs a server in a thread; gives its port, and the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = ServedModels(models)
    app = make_app(served, limits)
    config = config_of(app, host="127.0.0.1", port=port, limits=limits)
    server = DrainingServer(config, served, limits)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield port, server
    finally:
        server.should_exit = True
        thread.join(60)


def message(image: bytes, prompt: str = "caption en") -> list[dict]:
    url = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}]
    return [{"role": "user", "content": parts}]


def talk(port: int, data: bytes, seconds: float = 20) -> bytes:
    """Sends bytes as they are; returns an answer, or what comes until the server closes."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.settimeout(seconds)
        with contextlib.suppress(TimeoutError, ConnectionError):
            connection.sendall(data)
            while more := connection.recv(1 << 16):
                received += more
                head, end, body = received.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                if end and length and len(body) >= int(length[1]):
                    break
    return received
