"""One model for everybody: two threads that outlive whatever goes wrong."""

import threading
import time

import pytest

from paligemma_lib.decode import Beam, Caption, Greedy
from paligemma_lib.serving import Answer, Busy, Service, Writer

ROOM = 8
IMAGES = [b"one", b"two", b"three"]


def write(self, image, prompt, sampler, max_new_tokens, *, seed, number):
    """Stands in for the model, which `test_serving_writer` tests."""
    yield Answer("a")
    text = f"{image.decode()} {prompt} {max_new_tokens} {seed} {number}"
    yield Answer(text, Caption(text, (1,), (-1.0,), -1.0), None, 0.5)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(Writer, "write", write)
    monkeypatch.setattr(Writer, "compile", lambda self, sampler: None)


@pytest.fixture
def service():
    service = Service(lambda: "a model", prepare=[Greedy()], max_new_tokens=ROOM)
    yield service
    service.close()


def ask(service, images=IMAGES, sampler=Greedy(), length=ROOM):  # noqa: B008
    return service.ask(images, prompt="caption en", sampler=sampler, max_new_tokens=length, seed=7)


def answers(request) -> tuple[Answer, ...]:
    deadline = time.monotonic() + 120
    while not (progress := request.progress()).over:
        assert time.monotonic() < deadline, progress
        time.sleep(0.01)
    return progress.answers


def test_captions_are_written_of_what_was_asked_for(service):
    found = answers(ask(service, length=5))
    assert [answer.text for answer in found] == [
        "one caption en 5 7 0",
        "two caption en 5 7 1",
        "three caption en 5 7 2",
    ]
    assert all(answer.caption for answer in found)


def test_the_model_is_loaded_in_the_background_and_compiled_at_once(monkeypatch):
    gate, compiled = threading.Event(), []
    monkeypatch.setattr(Writer, "compile", lambda self, sampler: compiled.append(sampler))
    service = Service(lambda: gate.wait(60) and "a model", prepare=[Greedy(), Beam(4)])
    assert service.captioner is None
    assert not service.ready
    request = ask(service, IMAGES, Beam(2))
    assert request.progress().stage == "loading"
    gate.set()
    answers(request)
    while not service.ready:
        time.sleep(0.01)
    assert compiled == [Beam(2), Greedy(), Beam(4)]
    assert service.captioner == "a model"
    assert service.compiled(Beam(4))
    assert not service.compiled(Beam(8))
    service.close()


def test_others_are_served_while_a_program_is_compiled(service, monkeypatch):
    leave = threading.Event()
    while not service.ready:
        time.sleep(0.01)
    monkeypatch.setattr(Writer, "compile", lambda self, sampler: leave.wait(60))
    waiting = ask(service, IMAGES, Beam(2))
    assert all(answer.caption for answer in answers(ask(service)))
    assert waiting.progress().stage == "compiling"
    leave.set()
    assert all(answer.caption for answer in answers(waiting))


def test_what_is_cancelled_is_not_written_to_the_end(service, monkeypatch):
    entered, leave, closed = threading.Event(), threading.Event(), threading.Event()

    def slow(*_, **__):
        try:
            yield Answer("a")
            entered.set()
            assert leave.wait(60)
            yield Answer("a dog")
            raise AssertionError("nobody waits for this")
        finally:
            closed.set()

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "write", slow)
        request = ask(service)
        assert entered.wait(60)
        request.cancel()
        assert request.progress().over
        leave.set()
        assert closed.wait(60)
    assert [answer.text for answer in request.progress().answers] == ["a dog", "", ""]
    assert all(answer.caption for answer in answers(ask(service)))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no whole image"), "no whole image"),
        (MemoryError("secret path"), "The model failed on this image; the log of the server"),
    ],
)
def test_a_failure_of_one_image_leaves_the_service_alive(service, monkeypatch, caplog, error, told):
    def fail(*_, **__):
        yield Answer("a")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "write", fail)
        found = answers(ask(service))
    assert all(answer.problem.startswith(told) for answer in found)
    assert ("secret path" in caplog.text) == isinstance(error, MemoryError)
    assert all(answer.caption for answer in answers(ask(service)))


def test_a_sampler_that_cannot_be_compiled_is_told(service, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "compile", fail)
        found = answers(ask(service, IMAGES, Beam(5)))
    assert ["out of memory" in answer.problem for answer in found] == [True] * 3
    assert not service.compiled(Beam(5))
    assert all(answer.caption for answer in answers(ask(service)))


def test_a_model_that_cannot_be_loaded_is_told(caplog):
    def load():
        assert gate.wait(60)
        raise FileNotFoundError("no such checkpoint")

    gate = threading.Event()
    service = Service(load)
    request = ask(service)
    gate.set()
    assert all("no such checkpoint" in answer.problem for answer in answers(request))
    assert "no such checkpoint" in service.problem
    assert not service.ready
    with pytest.raises(RuntimeError, match="no such checkpoint"):
        ask(service)


def test_too_many_requests_are_turned_away():
    gate = threading.Event()
    service = Service(lambda: gate.wait(60) and "a model", max_waiting=1)
    ask(service)
    with pytest.raises(Busy, match="1 requests are waiting"):
        ask(service)
    gate.set()
    service.close()


@pytest.mark.parametrize(("count", "length"), [(0, 4), (1, 0), (1, ROOM + 1)])
def test_what_there_is_no_room_for_is_an_error(service, count, length):
    with pytest.raises(ValueError, match=f"{count} images and max_new_tokens={length}"):
        ask(service, IMAGES[:count], length=length)
