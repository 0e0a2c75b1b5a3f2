"""Clients without a key take nothing from those that have one."""

import socket
import time

import pytest

try:
    import prometheus_client  # noqa: F401
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ModuleNotFoundError:
    pytest.skip("needs starlette, uvicorn, prometheus_client", allow_module_level=True)

from endpoint_cases import serving, talk

from paligemma_lib.serving import Engine
from paligemma_lib.serving.endpoint import Limits

KEY = "a-key-that-nobody-guesses"


@pytest.fixture(scope="module")
def port():
    engine = Engine(lambda: None)
    limits = Limits(keys=frozenset({KEY}), max_requests=1, body_seconds=60)
    with serving({"none": engine}, limits) as port:
        yield port


def test_strangers_do_not_count_and_are_answered_soon(port):
    head = b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nthe rest never comes"
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as stranger:
        stranger.sendall(head)
        time.sleep(0.2)  # it is being read
        asked = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        assert talk(port, asked.encode()).startswith(b"HTTP/1.1 200")
        answer = b""
        while more := stranger.recv(1 << 16):
            answer += more
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"connection: close" in answer.lower()
    assert time.monotonic() - begin < 30


def test_a_key_that_is_missing_keeps_a_connection_whose_body_has_come(port):
    asked = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = talk(port, asked)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"connection: close" not in answer.lower()


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_the_description_needs_no_key(port, path):
    asked = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"
    assert talk(port, asked.encode()).startswith(b"HTTP/1.1 200")
