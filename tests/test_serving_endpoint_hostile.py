"""Clients that are slow, that leave, and that send what is meant to do harm."""

import json
import socket
import threading
import time

import captioning_cases as cases
import pytest

try:
    import prometheus_client  # noqa: F401
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ModuleNotFoundError:
    pytest.skip("needs starlette, uvicorn, prometheus_client", allow_module_level=True)

from endpoint_cases import LENGTH, message, serving, talk, tiny_captioner
from fuzzing import EXAMPLES, changed_json, fuzz

from paligemma_lib.decode import slots
from paligemma_lib.serving import Engine
from paligemma_lib.serving.endpoint import Limits
from paligemma_lib.serving.endpoint.api_errors import ApiError
from paligemma_lib.serving.endpoint.chat_request import parse
from paligemma_lib.serving.endpoint.limits import KEYS, keys_of

LIMITS = Limits(
    max_image_bytes=1 << 16, head_seconds=0.5, body_seconds=0.5, send_seconds=0.5, max_requests=16,
    max_bytes=1 << 20,
)  # fmt: skip


@pytest.fixture(scope="module")
def engine():
    return Engine(
        tiny_captioner,
        rows=2,
        prompt_tokens=48,
        max_new_tokens=LENGTH,
        max_waiting=4,
        look_seconds=0,
    )


@pytest.fixture(scope="module")
def port(engine):
    with serving({"tiny": engine}, LIMITS) as port:
        yield port


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> bytes:
    return (cases.write_images(tmp_path_factory.mktemp("images"), ["1.png"]) / "1.png").read_bytes()


def post(body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: x", *headers]
    if length != -1:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chat(image: bytes, **fields) -> bytes:
    return post(json.dumps({"messages": message(image), **fields}).encode(), "Connection: close")


@pytest.fixture(autouse=True)
def goes_on(port, image):
    """Whatever a test sends, the server answers the next client."""
    yield
    assert b"200 OK" in talk(port, chat(image), 120)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000, b"400"),
        (b"\x16\x03\x01 no HTTP\r\n\r\n", b"400"),
        (post(b"", length=10**12), b"413"),
        (post(b"x" * (LIMITS.max_body_bytes + 1)), b"413"),
        (post(b"10000\r\n" + b"x" * 65536 + b"\r\n" + b"10000\r\n" + b"x" * 65536 + b"\r\n" +
              b"10000\r\n" + b"x" * 65536 + b"\r\n", "Transfer-Encoding: chunked", length=-1),
         b"413"),
        (post(b"[" * 60_000), b"400"),
        (post(b'{"messages": \xff}'), b"400"),
        (post(b'{"n": ' + b"9" * 5_000 + b"}"), b"400"),
        (post(b"x", length=99), b"408"),
    ],
    ids=["long head", "no HTTP", "length", "large", "endless", "deep", "bytes", "digits", "short"],
)  # fmt: skip
def test_bodies_that_mean_harm_are_refused(port, data, status):
    assert talk(port, data)[:12].split()[1] == status


def test_an_image_larger_than_allowed_is_refused(port):
    assert b"413" in talk(port, chat(b"x" * (LIMITS.max_image_bytes + 10)))[:12]


@pytest.mark.parametrize("data", [b"", b"GET /healthz HT"], ids=["nothing", "half a head"])
def test_who_sends_no_request_is_cut_off(port, data):
    begin = time.monotonic()
    assert talk(port, data) == b""
    assert time.monotonic() - begin < 15


def test_who_trickles_a_second_request_is_cut_off(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in connection.recv(1 << 16)
        connection.sendall(b"GET /heal")
        while connection.recv(1 << 16):
            pass


@pytest.fixture
def held(monkeypatch):
    """Captions are written only once the value is set."""
    event, advance = threading.Event(), slots.advance
    monkeypatch.setattr(slots, "advance", lambda *a: event.wait(60) and advance(*a))
    yield event
    event.set()


def begun(port: int, data: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(data)
    return connection


def unfinished(engine: Engine) -> int:
    counts = engine.counts()
    return counts["waiting"] + counts["writing"]


def until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
def test_jobs_of_clients_that_leave_are_cancelled(port, engine, image, held, stream):
    talk(port, b"GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n")
    until(lambda: unfinished(engine) == 0)  # a job leaves a moment after it is answered
    connections = [begun(port, chat(image, stream=stream)) for _ in range(3)]
    until(lambda: unfinished(engine) == 3)
    for connection in connections:
        connection.close()
    until(lambda: not engine._dispatch.unfinished())  # before a token is written
    held.set()
    until(lambda: unfinished(engine) == 0)


def test_too_many_jobs_are_refused_and_told_when_to_come_back(port, engine, image, held):
    until(lambda: unfinished(engine) == 0)
    connections = []
    while engine.counts()["waiting"] < 4:
        connections.append(begun(port, chat(image)))
        until(lambda: unfinished(engine) == len(connections))
    refused = talk(port, chat(image))
    assert refused.startswith(b"HTTP/1.1 429")
    assert b"\r\nretry-after: 1\r\n" in refused.lower()
    assert json.loads(refused.partition(b"\r\n\r\n")[2])["error"]["type"] == "rate_limit_error"
    held.set()
    for connection in connections:
        assert b"200 OK" in connection.recv(1 << 16)
        connection.close()


def test_a_failure_of_the_server_is_no_trace(port, image, monkeypatch, caplog):
    monkeypatch.setattr(Engine, "submit", lambda *_, **__: 1 / 0)
    answer = talk(port, chat(image))
    monkeypatch.undo()
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"its log says why" in answer
    assert b"division" not in answer
    assert "ZeroDivisionError" in caplog.text


@EXAMPLES
def test_a_body_is_a_request_or_an_error_of_ours(examples):
    valid = {
        "model": "tiny", "messages": message(b"x"), "n": 2, "temperature": 0.5, "top_p": 0.9,
        "max_tokens": 5, "seed": 3, "stream": True, "logprobs": True,
    }  # fmt: skip

    def one(asked):
        try:
            chat = parse(json.dumps(asked).encode())
            chat.asked(1 << 20, 8).sampler()
        except ApiError as error:
            assert 400 <= error.status < 500
            assert len(error.message) < 600

    fuzz(examples, one, changed_json(valid))


@pytest.mark.parametrize("keys", ["short", "x" * 20 + " y", "k" * 20 + ",ä" * 20])
def test_keys_that_can_be_guessed_are_refused(keys):
    with pytest.raises(ValueError, match=f"{KEYS}: key"):
        keys_of({KEYS: keys})


def test_keys_are_read_from_the_environment():
    assert keys_of({KEYS: f" {'a' * 16},{'b' * 16}, "}) == {"a" * 16, "b" * 16}
    assert keys_of({}) == frozenset()
