"""Several adapters of one model in one engine: each writes what it writes alone."""

import dataclasses
import json
import time
import urllib.error
import urllib.request

import adapter_cases
import captioning_cases as cases
import pytest

from paligemma_lib.serving import Engine, lane

pytest.importorskip("starlette", reason="needs starlette")
pytest.importorskip("uvicorn", reason="needs uvicorn")

from endpoint_cases import LENGTH, message, serving, tiny_captioner

from paligemma_lib.serving.endpoint import Limits, ServedModels
from paligemma_lib.serving.model_threads import ModelThreads

ADAPTERS = ("birds", "dogs")


def captioner():
    arrays = {
        name: adapter_cases.random_adapters(cases.CONFIG, ["attention"], seed=seed, size=0.5)
        for seed, name in enumerate(ADAPTERS)
    }
    return dataclasses.replace(tiny_captioner(), adapters=arrays)


@pytest.fixture(scope="module")
def engine():
    engine = Engine(captioner, rows=2, prompt_tokens=48, max_new_tokens=LENGTH, adapters=ADAPTERS)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    names = [f"{number}.png" for number in range(4)]
    folder = cases.write_images(tmp_path_factory.mktemp("images"), names)
    return [(folder / name).read_bytes() for name in names]


def test_each_writes_what_it_writes_alone(engine, images):
    models = (None, *ADAPTERS)
    jobs = {
        (name, number): engine.submit(image, adapter=name)
        for number, image in enumerate(images)
        for name in models
    }
    texts = {}
    for name in models:
        alone = captioner().with_adapter(name)
        wanted = alone.caption(images, max_new_tokens=LENGTH)
        for number, each in enumerate(wanted):
            answer = jobs[name, number].wait(120)
            assert answer.caption.tokens == each.caption.tokens
        texts[name] = [each.text for each in wanted]
    assert len({tuple(each) for each in texts.values()}) == len(models)  # they do differ


def test_an_adapter_that_is_not_there_is_refused(engine, images):
    with pytest.raises(ValueError, match="adapter='cats', expected one of: birds, dogs"):
        engine.submit(images[0], adapter="cats")


def test_clients_choose_adapters_as_models(engine, images):
    wanted = captioner().with_adapter("dogs").caption(images[0], max_new_tokens=LENGTH)
    with serving({"tiny": engine}, Limits()) as port:
        address = f"http://127.0.0.1:{port}/v1"
        with urllib.request.urlopen(f"{address}/models") as answer:
            found = {each["id"]: each.get("parent") for each in json.load(answer)["data"]}
        assert found == {"tiny": None, "birds": "tiny", "dogs": "tiny"}
        body = json.dumps({"model": "dogs", "messages": message(images[0])}).encode()
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{address}/chat/completions", body, kind)
        with urllib.request.urlopen(request, timeout=120) as answer:
            told = json.load(answer)
    assert told["model"] == "dogs"
    assert told["choices"][0]["message"]["content"] == wanted.text


def test_two_models_never_share_a_name(engine):
    with pytest.raises(ValueError, match="two models are named 'dogs'"):
        ServedModels({"dogs": engine})


def test_an_adapter_that_the_model_has_not_is_a_problem():
    engine = Engine(tiny_captioner, rows=2, prompt_tokens=48, max_new_tokens=2, adapters=["ghost"])
    try:
        deadline = time.monotonic() + 120
        while engine.problem is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "no adapter is named ghost" in engine.problem
        assert not engine.healthy
    finally:
        engine.close()


def test_batches_that_all_fail_make_an_engine_ill(images, monkeypatch):
    """Also where another program has nothing to do, and so does not fail."""
    engine = Engine(captioner, rows=2, prompt_tokens=48, max_new_tokens=LENGTH, adapters=ADAPTERS)
    try:
        assert engine.submit(images[0], adapter="birds").wait(120).caption is not None

        def broken(lane, count):
            raise RuntimeError("the device is gone")

        monkeypatch.setattr(lane.Lane, "_advance", broken)
        jobs = [engine.submit(image, adapter="birds") for image in images]
        assert all(job.wait(120).fault == "server" for job in jobs)
        assert not engine.healthy
    finally:
        engine.close()


def test_an_adapter_whose_program_is_missing_makes_it_unready(images, monkeypatch, caplog):
    new_lane = ModelThreads._new_lane

    def broken(self, captioner, program):
        if program.adapter == "dogs":
            raise RuntimeError("INTERNAL: a text of the compiler")
        return new_lane(self, captioner, program)

    monkeypatch.setattr(ModelThreads, "_new_lane", broken)
    engine = Engine(captioner, rows=2, prompt_tokens=48, max_new_tokens=LENGTH, adapters=ADAPTERS)
    with serving({"tiny": engine}, Limits()) as port:
        for adapter in (None, "birds"):
            assert engine.submit(images[0], adapter=adapter).wait(120).caption is not None
        told = engine.submit(images[0], adapter="dogs").wait(120)
        assert told.fault == "server"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz")
        body = json.load(refused.value)
        assert body["not_ready"] == ["tiny"]
        assert body["problems"] == {"dogs": told.problem}
        assert "INTERNAL" not in told.problem
        assert "INTERNAL" in caplog.text
