"""How the server ends: it answers every request that has begun."""

import json
import socket
import time

import captioning_cases as cases
import pytest

try:
    import prometheus_client  # noqa: F401
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ModuleNotFoundError:
    pytest.skip("needs starlette, uvicorn, prometheus_client", allow_module_level=True)

from endpoint_cases import LENGTH, message, running, tiny_captioner

from paligemma_lib.serving import Engine
from paligemma_lib.serving.endpoint import Limits


def test_a_body_that_is_coming_at_the_end_is_answered(tmp_path):
    image = (cases.write_images(tmp_path, ["1.png"]) / "1.png").read_bytes()
    engine = Engine(tiny_captioner, rows=2, prompt_tokens=48, max_new_tokens=LENGTH)
    body = json.dumps({"messages": message(image)}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    assert engine.submit(image).wait(120).caption is not None  # it is compiled
    with (
        running({"tiny": engine}, Limits()) as (port, server),
        socket.create_connection(("127.0.0.1", port), timeout=120) as connection,
    ):
        connection.sendall(head.encode() + body[:10])
        until(lambda: server.server_state.tasks)
        server.should_exit = True
        until(lambda: not can_connect(port))
        time.sleep(0.5)  # what ends at once has ended
        connection.sendall(body[10:])
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")


def until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except OSError:
        return False
    return True
