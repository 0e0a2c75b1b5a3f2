"""One engine for everybody: it outlives whatever goes wrong, and loses nobody's caption."""

import ctypes
import re
import threading
import time

import captioning_cases as cases
import jax
import numpy as np
import pytest
from fuzzing import EXAMPLES, changed_json, fuzz

import paligemma_lib as pg
from paligemma_lib.captioner import Captioner
from paligemma_lib.decode import Beam, BestOf, Greedy, Sample, generate, slots
from paligemma_lib.serving import Busy, Engine, Unavailable, model_threads
from paligemma_lib.serving.dispatch import Dispatch
from paligemma_lib.serving.prompt_reading import PromptReader
from paligemma_lib.testing import tiny_tokenizer

LENGTH = 6
SIZES = {"rows": 4, "prompt_tokens": 48, "max_new_tokens": LENGTH}


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    params = jax.tree.map(jax.numpy.asarray, cases.random_params())
    return Captioner(cases.CONFIG, params, tiny_tokenizer())


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[bytes]:
    names = [f"{number}.png" for number in range(6)]
    folder = cases.write_images(tmp_path_factory.mktemp("images"), names)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.fixture
def make(captioner):
    """Makes engines, and closes them."""
    engines = []

    def make(load=lambda: captioner, **options) -> Engine:
        engines.append(Engine(load, **(SIZES | options)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(make) -> Engine:
    return make()


def texts(jobs) -> list[str]:
    answers = [job.wait(120) for job in jobs]
    assert [answer.problem for answer in answers] == [None] * len(answers)
    return [answer.text for answer in answers]


@pytest.fixture(scope="module")
def wanted(captioner, images):
    """What `generate` says, by sampler."""
    size = captioner.config.vision.image_size
    pixels = np.stack([pg.data.decode_image(image, size) for image in images])

    def ask(sampler, length=LENGTH):
        return generate(
            captioner.config, captioner.params, pixels, captioner.tokenizer, sampler=sampler,
            max_new_tokens=length, key=jax.random.key(7),
        )  # fmt: skip

    return ask


SAMPLERS = [Greedy(), Sample(2.0, top_p=0.9), Beam(2), BestOf(3, Sample(2.0)), BestOf(2, Sample(2.0, top_k=4))]  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(
    ("sampler", "length"), [*((each, LENGTH) for each in SAMPLERS), (Greedy(), 1), (Beam(2), 1)]
)
def test_captions_are_those_of_generate(engine, images, wanted, sampler, length):
    jobs = [
        engine.submit(image, sampler=sampler, max_new_tokens=length, seed=7, number=number)
        for number, image in enumerate(images)
    ]
    for job, want in zip(jobs, wanted(sampler, length), strict=True):
        found = job.wait(120).caption
        assert found.tokens == want.tokens
        assert [other.tokens for other in found.alternatives] == [
            other.tokens for other in want.alternatives
        ]
        np.testing.assert_allclose(found.logprobs, want.logprobs, atol=1e-4)


def test_a_caption_is_the_same_to_the_last_bit_among_others(engine, images):
    one = engine.submit(images[0], seed=7).wait(120).caption
    crowd = [
        engine.submit(each, sampler=Sample(2.0), client=str(n)) for n, each in enumerate(images)
    ]
    assert engine.submit(images[0], seed=7).wait(120).caption == one
    texts(crowd)


def test_rows_are_told_in_their_order(engine, images):
    answer = engine.submit(images[0], sampler=BestOf(3, Sample(3.0)), seed=1).wait(120)
    scores = [row.score for row in answer.rows]
    assert len(scores) == 3
    assert answer.caption.score == max(scores)


def test_words_are_shown_as_they_come(make, images):
    shown = []
    job = make(look_seconds=0).submit(images[0], streamed=True)
    job.add_listener(lambda: shown.append(job.answer.text))
    (whole,) = texts([job])
    lengths = [len(text) for text in shown]
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 2
    assert shown[-1] == whole


def test_a_fault_of_one_image_is_its_own(engine, images):
    bad = [engine.submit(b"no image"), engine.submit(images[0], prompt="<image> x")]
    bad.append(engine.submit(images[0], prompt="w " * 60))
    texts([engine.submit(images[0])])
    told = [job.wait(120) for job in bad]
    assert [answer.fault for answer in told] == ["request"] * 3
    assert "not a complete JPEG" in told[0].problem
    assert "<image>" in told[1].problem
    assert "48 are allowed" in told[2].problem


def test_a_program_that_is_missing_is_compiled_while_others_are_served(engine, images, monkeypatch):
    texts([engine.submit(images[0])])
    gate = threading.Event()
    empty = slots.empty
    monkeypatch.setattr(slots, "empty", lambda *a, **k: gate.wait(60) and empty(*a, **k))
    waiting = engine.submit(images[0], sampler=Beam(3))
    assert waiting.stage() == ("compiling", 0)
    assert engine.ready  # what a client asks for does not send the others elsewhere
    texts([engine.submit(images[0])])
    gate.set()
    texts([waiting])
    assert waiting.stage() == ("over", 0)
    assert engine.is_compiled(Beam(3))


def test_a_program_that_cannot_be_compiled_is_told(engine, images, monkeypatch, caplog):
    texts([engine.submit(images[0])])
    monkeypatch.setattr(slots, "empty", lambda *a, **k: 1 / 0)
    answer = engine.submit(images[0], sampler=Beam(4)).wait(120)
    assert answer.problem.startswith("This way of choosing words does not work")
    assert answer.fault == "server"
    assert "division" not in answer.problem
    assert "division" in caplog.text
    assert engine.submit(images[0], sampler=Beam(4)).answer == answer  # at once
    assert list(engine.program_problems.values()) == [answer.problem]
    assert engine.ready
    texts([engine.submit(images[0])])


def test_clients_are_told_that_there_is_no_model_and_the_log_why(make, images, caplog):
    gate = threading.Event()

    def load():
        assert gate.wait(60)
        raise FileNotFoundError("no such checkpoint")

    engine = make(load)
    job = engine.submit(images[0])
    assert job.stage() == ("loading", 0)
    gate.set()
    told = "The model could not be loaded; the log of the server says why."
    assert job.wait(120).problem == told
    assert "no such checkpoint" in engine.problem and "no such checkpoint" in caplog.text
    assert not engine.ready
    assert not engine.healthy
    with pytest.raises(Unavailable, match=re.escape(told)):
        engine.submit(images[0])


@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        ({"max_waiting": 2}, "2 images are waiting"),
        ({"max_per_client": 2}, "2 images of yours"),
        ({"max_bytes": 8000}, "MiB already"),
    ],
)
def test_what_waits_is_bounded(make, images, bounds, told):
    gate = threading.Event()
    engine = make(lambda: gate.wait(60) and None, **bounds)
    engine.submit(images[0], client="me")
    engine.submit(images[1], client="me")
    with pytest.raises(Busy, match=told) as refused:
        engine.submit(images[2], client="me")
    assert refused.value.retry_after >= 1
    gate.set()


def test_a_deadline_ends_a_job(make, images):
    gate = threading.Event()
    job = make(lambda: gate.wait(60) and None).submit(images[0], seconds=0.05)
    answer = job.wait(60)
    assert (answer.fault, answer.problem) == ("deadline", "The caption took too long.")
    gate.set()


def test_what_is_cancelled_frees_its_slots(make, images, monkeypatch):
    engine = make(rows=1, look_seconds=0)
    texts([engine.submit(images[0])])
    entered, leave = threading.Event(), threading.Event()
    advance = slots.advance

    def slow(*arguments):
        entered.set()
        assert leave.wait(60)
        return advance(*arguments)

    monkeypatch.setattr(slots, "advance", slow)
    job, behind = engine.submit(images[0]), engine.submit(images[1])
    assert entered.wait(60)
    job.cancel()
    assert job.wait(1).fault == "cancelled"
    leave.set()
    texts([behind])


def test_a_batch_that_fails_loses_no_caption(engine, images, wanted, monkeypatch, caplog):
    texts([engine.submit(images[0])])
    calls = []

    def fail_once(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("RESOURCE_EXHAUSTED")
        return advance(*arguments)

    advance = slots.advance
    monkeypatch.setattr(slots, "advance", fail_once)
    jobs = [engine.submit(each, number=n) for n, each in enumerate(images)]
    assert texts(jobs) == [caption.text for caption in wanted(Greedy())]
    assert engine.counts()["failed_batches"] == 1
    assert engine.healthy


def test_an_image_that_makes_batches_fail_is_given_up_alone(engine, images, monkeypatch, caplog):
    texts([engine.submit(images[0])])
    enter = slots.enter

    def fail(*arguments):
        if arguments[7] == 3:  # the limit of the one that is to blame
            raise RuntimeError("no")
        return enter(*arguments)

    monkeypatch.setattr(slots, "enter", fail)
    good = [engine.submit(image, client="good") for image in images]
    bad = engine.submit(images[0], max_new_tokens=3, client="bad").wait(120)
    assert bad.fault == "server"
    assert bad.problem.startswith("The model failed on this image")
    texts(good)


def test_a_device_that_is_gone_ends_jobs_and_makes_it_ill(engine, images, monkeypatch, caplog):
    texts([engine.submit(images[0])])

    def gone(*_, **__):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device is gone")

    for name in ("advance", "empty"):  # no new slots can be made, either
        monkeypatch.setattr(slots, name, gone)
    jobs = [engine.submit(image) for image in images[:2]]
    assert [job.wait(60).fault for job in jobs] == ["server"] * 2
    assert not engine.healthy
    monkeypatch.undo()
    texts([engine.submit(images[0]), engine.submit(images[1])])
    deadline = time.monotonic() + 30
    while not engine.healthy:  # a moment after the caption
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert engine.counts()["restarts"] == 0


def test_a_device_that_hangs_makes_it_ill(engine, images, monkeypatch):
    texts([engine.submit(images[0])])
    monkeypatch.setattr(model_threads, "_HANG", 0.2)
    time.sleep(0.3)
    assert engine.healthy  # nobody asks for anything
    gate, read = threading.Event(), PromptReader._read
    monkeypatch.setattr(PromptReader, "_read", lambda *args: gate.wait(60) and read(*args))
    job = engine.submit(images[0])
    deadline = time.monotonic() + 30
    while engine.healthy:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    gate.set()
    texts([job])
    assert engine.healthy


@pytest.mark.parametrize(
    ("error", "healthy"), [(jax.errors.JaxRuntimeError, False), (RuntimeError, True)]
)
def test_a_device_that_reads_no_image_makes_it_ill(
    engine, images, monkeypatch, caplog, error, healthy
):
    """But not an image that is made to cause an error."""
    texts([engine.submit(images[0])])

    def gone(*_):
        raise error("INTERNAL")

    monkeypatch.setattr(PromptReader, "_read", gone)
    jobs = [engine.submit(image) for image in images[:3]]
    assert [job.wait(60).fault for job in jobs] == ["server"] * 3
    assert engine.healthy == healthy


def test_an_image_that_fails_once_is_not_written_before_it_is_read(
    engine, images, monkeypatch, caplog
):
    """Another thread may begin to read it again before the first one goes on."""
    texts([engine.submit(images[0])])
    read, retry, calls, taken = PromptReader.read, Dispatch.retry, [], threading.Event()

    def fail_once(self, job):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("once")
        taken.set()
        time.sleep(0.3)  # the first thread goes on meanwhile
        return read(self, job)

    def slow(*arguments):
        retry(*arguments)
        assert taken.wait(60)

    monkeypatch.setattr(PromptReader, "read", fail_once)
    monkeypatch.setattr(Dispatch, "retry", slow)
    texts([engine.submit(images[1])])
    assert engine.counts()["failed_batches"] == 0


def kill(name: str) -> None:
    """Ends threads of this name as nothing but Python itself can."""
    for thread in threading.enumerate():
        if thread.name == name and thread.ident:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
            )


@pytest.mark.parametrize("name", ["write", "read 0"])
def test_a_thread_that_dies_is_started_again(engine, images, wanted, name, caplog):
    texts([engine.submit(images[0])])
    kill(name)
    jobs = [engine.submit(each, number=n) for n, each in enumerate(images)]
    assert texts(jobs) == [caption.text for caption in wanted(Greedy())]
    deadline = time.monotonic() + 30
    while not engine.counts()["restarts"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine.counts()["restarts"] == 1


def test_an_image_whose_reader_dies_is_read_again(engine, images, monkeypatch, caplog):
    texts([engine.submit(images[0])])
    read, calls = PromptReader.read, []

    def die_once(self, job):
        calls.append(1)
        if len(calls) == 1:
            raise SystemExit
        return read(self, job)

    monkeypatch.setattr(PromptReader, "read", die_once)
    texts([engine.submit(images[1])])


def test_draining_finishes_what_is_there_and_refuses_the_rest(engine, images):
    jobs = [engine.submit(image) for image in images]
    assert engine.drain(120)
    assert all(job.answer.caption for job in jobs)
    with pytest.raises(Unavailable, match="shutting down"):
        engine.submit(images[0])


def test_draining_does_not_wait_forever(make, images):
    gate = threading.Event()
    engine = make(lambda: gate.wait(60) and None)
    job = engine.submit(images[0])
    assert not engine.drain(0.1)
    assert job.answer.problem == "The engine was closed."
    gate.set()


@EXAMPLES
def test_a_job_is_queued_or_refused(make, examples):
    engine = make(lambda: None, max_waiting=10**6, max_per_client=10**6)
    valid = {"image": "one", "prompt": "caption en", "max_new_tokens": 4, "seed": 7, "seconds": 9.5}

    def one(asked):
        if not isinstance(asked, dict) or set(asked) != set(valid):
            return  # Python itself refuses names of arguments
        if asked["image"] == "one":
            asked["image"] = b"one"
        try:
            job = engine.submit(**asked)
        except ValueError as error:
            assert str(error).startswith("submit: ")
        except Unavailable:
            pass  # this engine has no model
        else:
            job.cancel()

    fuzz(examples, one, changed_json(valid))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows=0"),
        ({"max_new_tokens": 8.0}, "max_new_tokens=8.0"),
        ({"prompt_tokens": 1}, "prompt_tokens=1"),
        ({"look_seconds": float("nan")}, "look_seconds=nan"),
        ({"max_waiting": True}, "max_waiting=True"),
        ({"max_bytes": 0}, "max_bytes=0"),
    ],
)
def test_sizes_out_of_range_are_refused_at_once(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": LENGTH + 1}, "max_new_tokens=7"),
        ({"sampler": BestOf(5, Sample())}, "rows of the sampler=5"),
        ({"sampler": "greedy"}, "sampler='greedy'"),
        ({"seconds": 0}, "seconds=0"),
    ],
)
def test_what_there_is_no_space_for_is_an_error(engine, images, options, message):
    with pytest.raises(ValueError, match=message):
        engine.submit(images[0], **options)
