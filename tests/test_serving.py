"""One model for everybody: same captions as `generate`, pictures in turn, nothing traced twice."""

import contextlib
import threading
import time

import captioning_cases as cases
import jax
import numpy as np
import pytest

import paligemma_lib as pg
from paligemma_lib.captioner import Captioner
from paligemma_lib.decode import Beam, Greedy, Sample
from paligemma_lib.serving import Busy, Service
from paligemma_lib.testing import tiny_tokenizer

ROOM = 8
PROMPT = "caption en"


class Observed(Service):
    """Remembers which pictures were taken in which order, and all that was shown."""

    def __init__(self, *args, **kwargs):
        self.order, self.shown = [], []
        super().__init__(*args, max_new_tokens=ROOM, **kwargs)

    def _write(self, request, number):
        self.order.append((request, number))
        super()._write(request, number)

    def _show(self, request, number, answer):
        self.shown.append(answer.text)
        super()._show(request, number, answer)


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    params = jax.tree.map(jax.numpy.asarray, cases.random_params())
    return Captioner(cases.CONFIG, params, tiny_tokenizer())


@pytest.fixture(scope="module")
def service(captioner):
    service = Observed(lambda: captioner, prepare=[Greedy()], slice_tokens=1)
    yield service
    service.close()


@pytest.fixture
def gate(captioner):
    """A service whose model is loaded when the second value is set."""
    gate = threading.Event()
    service = Observed(lambda: gate.wait(60) and captioner)
    yield service, gate
    gate.set()
    service.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[bytes]:
    folder = cases.write_pictures(tmp_path_factory.mktemp("pictures"), ["1.png", "2.jpg", "3.png"])
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def ask(service, pictures, sampler=Greedy(), length=ROOM, prompt=PROMPT, seed=0):  # noqa: B008
    return service.ask(pictures, prompt=prompt, sampler=sampler, max_new_tokens=length, seed=seed)


def answers(request):
    deadline = time.monotonic() + 120
    while not (progress := request.progress()).over:
        assert time.monotonic() < deadline, progress
        time.sleep(0.01)
    return progress.answers


def expected(captioner, pictures, **options):
    size = captioner.config.vision.image_size
    pixels = np.stack([pg.data.decode_image(picture, size) for picture in pictures])
    return pg.decode.generate(
        captioner.config, captioner.params, pixels, captioner.tokenizer, prompt=PROMPT, **options
    )


@pytest.mark.parametrize("length", [1, 5, ROOM])
@pytest.mark.parametrize("sampler", [Greedy(), Beam(3)], ids=["greedy", "beam"])
def test_captions_are_those_of_generate(service, captioner, pictures, sampler, length):
    found = answers(ask(service, pictures, sampler, length))
    wanted = expected(captioner, pictures, sampler=sampler, max_new_tokens=length)
    for answer, want in zip(found, wanted, strict=True):
        for one, other in zip(
            (answer.caption, *answer.caption.alternatives),
            (want, *want.alternatives),
            strict=True,
        ):
            assert one.tokens == other.tokens
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
        assert answer.text == want.text
        assert answer.seconds > 0


def test_words_are_shown_as_they_come(service, pictures):
    service.shown.clear()
    (answer,) = answers(ask(service, pictures[:1]))
    assert len(service.shown) >= 4
    assert service.shown[-1] == answer.text
    lengths = [len(text) for text in service.shown]
    assert lengths == sorted(lengths)
    assert 0 < lengths[0] < lengths[-1]


def test_random_captions_depend_on_the_seed_alone(service, pictures):
    wild = Sample(temperature=5.0)
    first, again, other = (
        [each.text for each in answers(ask(service, [pictures[0]] * 2, wild, seed=seed))]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert first[0] != first[1]  # of two equal pictures too


def test_nothing_is_traced_twice(service, pictures):
    def traced(call):
        events = []

        def listen(event, _seconds, **_):
            events.append(event)

        jax.monitoring.register_event_duration_secs_listener(listen)
        with contextlib.closing(contextlib.ExitStack()) as stack:
            stack.callback(jax.monitoring.unregister_event_duration_listener, listen)
            call()
        return [event for event in events if "trace" in event or "compile" in event]

    assert traced(lambda: jax.jit(lambda x: x + 1)(0))  # the listener hears
    answers(ask(service, pictures, Beam(2)))
    arrays = sum(array.nbytes for array in jax.live_arrays())
    other = [*pictures, b"no picture"]
    assert not traced(lambda: answers(ask(service, other, Beam(2), 5, "what is there", seed=99)))
    assert sum(array.nbytes for array in jax.live_arrays()) == arrays


def test_requests_take_turns_by_the_picture(gate, pictures):
    service, gate = gate
    long = ask(service, pictures)
    short = ask(service, pictures[:2])
    assert [each.progress().stage for each in (long, short)] == ["loading"] * 2
    gate.set()
    answers(long), answers(short)
    wanted = [(long, 0), (short, 0), (long, 1), (short, 1), (long, 2)]
    assert service.order == wanted


def test_places_in_the_queue_are_told(gate, pictures):
    service, gate = gate
    entered, leave = threading.Event(), threading.Event()

    def write(request, number):
        entered.set()
        assert leave.wait(60)
        raise ValueError("no matter what")

    service._write = write
    requests = [ask(service, pictures[:1]) for _ in range(3)]
    gate.set()
    assert entered.wait(60)
    told = [request.progress() for request in requests]
    assert [each.stage for each in told] == ["writing", "waiting", "waiting"]
    assert [each.ahead for each in told] == [0, 1, 2]
    requests[1].cancel()
    assert requests[1].progress().over
    assert requests[2].progress().ahead == 1
    leave.set()
    assert answers(requests[2])[0].problem == "no matter what"
    assert answers(requests[1])[0].problem is None


def test_a_sampler_in_demand_is_compiled_before_the_others(captioner, pictures, monkeypatch):
    compiled, gate = [], threading.Event()
    monkeypatch.setattr(
        Service, "_compile", lambda self, captioner, sampler: compiled.append(sampler)
    )
    service = Service(lambda: gate.wait(60) and captioner, prepare=[Greedy(), Beam(4)])
    request = ask(service, pictures[:1], Beam(2))
    gate.set()
    while not service.ready:
        time.sleep(0.01)
    assert compiled == [Beam(2), Greedy(), Beam(4)]
    assert service.compiled(Beam(4))
    assert not service.compiled(Beam(8))
    request.cancel()
    service.close()


def test_others_are_served_while_a_program_is_compiled(service, pictures, monkeypatch):
    started, leave, compile_ = threading.Event(), threading.Event(), service._compile

    def slow(captioner, sampler):
        started.set()
        assert leave.wait(60)
        compile_(captioner, sampler)

    monkeypatch.setattr(service, "_compile", slow)
    waiting = ask(service, pictures[:1], Beam(2, 0.5))
    assert started.wait(60)
    assert answers(ask(service, pictures[:1]))[0].caption
    assert waiting.progress().stage == "compiling"
    leave.set()
    assert answers(waiting)[0].caption


def test_a_bad_picture_and_a_long_prompt_are_told(service, pictures):
    found = answers(ask(service, [b"no picture", pictures[0]]))
    assert "not a whole JPEG" in found[0].problem
    assert found[1].caption
    (answer,) = answers(ask(service, pictures[:1], prompt="word " * 60))
    assert "there is room for 48" in answer.problem


def test_a_failure_of_one_picture_leaves_the_service_alive(service, pictures, monkeypatch, caplog):
    def fail(*_):
        raise MemoryError("secret path")

    with monkeypatch.context() as patch:
        patch.setattr(service, "_read", fail)
        (answer,) = answers(ask(service, pictures[:1]))
    assert "failed on this picture" in answer.problem
    assert "secret" not in answer.problem
    assert "secret path" in caplog.text
    assert answers(ask(service, pictures[:1]))[0].caption


def test_a_sampler_that_cannot_be_compiled_is_told(service, pictures, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(service, "_compile", fail)
        found = answers(ask(service, pictures, Beam(5)))
    assert ["out of memory" in each.problem for each in found] == [True] * 3
    assert not service.compiled(Beam(5))


def test_a_model_that_cannot_be_loaded_is_told(gate, pictures, caplog):
    def load():
        assert event.wait(60)
        raise FileNotFoundError("no such checkpoint")

    event = threading.Event()
    service = Service(load)
    request = ask(service, pictures)
    event.set()
    assert all("no such checkpoint" in answer.problem for answer in answers(request))
    assert "no such checkpoint" in service.problem
    assert not service.ready
    with pytest.raises(RuntimeError, match="no such checkpoint"):
        ask(service, pictures)


def test_what_nobody_asks_about_is_dropped(captioner, pictures):
    gate = threading.Event()
    service = Observed(lambda: gate.wait(60) and captioner, patience=0.05)
    left = ask(service, pictures)
    time.sleep(0.1)
    gate.set()
    while left in service._aside or left in service._queue or service._current is left:
        time.sleep(0.01)
    assert service.order == [(left, 0)]
    assert left.progress().over
    assert left.progress().answers[0].caption is None
    service.close()


def test_too_many_requests_are_turned_away(gate, pictures):
    service, _ = gate
    service._max_waiting = 2
    first, _ = ask(service, pictures), ask(service, pictures)
    with pytest.raises(Busy, match="2 requests are waiting"):
        ask(service, pictures)
    first.cancel()
    ask(service, pictures)


@pytest.mark.parametrize(("count", "length"), [(0, 4), (1, 0), (1, ROOM + 1)])
def test_what_there_is_no_room_for_is_an_error(service, pictures, count, length):
    with pytest.raises(ValueError, match=f"{count} pictures and max_new_tokens={length}"):
        ask(service, pictures[:count], length=length)


@pytest.mark.slow
def test_parameters_may_be_split_over_devices(run_on_devices):
    found = run_on_devices(
        2,
        """
        import io, time
        import captioning_cases as cases, jax
        import PIL.Image
        import paligemma_lib as pg
        from paligemma_lib.captioner import Captioner
        from paligemma_lib.serving import Service
        from paligemma_lib.testing import tiny_tokenizer

        params = cases.random_params()
        mesh = pg.sharding.make_mesh()
        file = io.BytesIO()
        PIL.Image.effect_noise((30, 30), 90).save(file, "PNG")
        for layout in ("tensor", "replicated"):
            shardings = pg.sharding.param_shardings(mesh, params, layout)
            split = jax.device_put(params, shardings)
            service = Service(lambda: Captioner(cases.CONFIG, split, tiny_tokenizer()))
            request = service.ask(
                [file.getvalue()], prompt="", sampler=pg.decode.Beam(2), max_new_tokens=4
            )
            while not (progress := request.progress()).over:
                time.sleep(0.1)
            print(progress.answers[0].caption.tokens)
        """,
    )
    one, other = found.splitlines()
    assert one == other
