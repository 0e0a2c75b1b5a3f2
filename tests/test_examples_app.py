"""The web page without a browser: what it shows, what it refuses, what all visitors share."""

import contextlib
import dataclasses
import io
import itertools
import os
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import adapter_cases
import captioning_cases as cases
import jax
import numpy as np
import pytest
import uploads
from mask_cases import square_arrays, write_codec
from PIL import Image

import paligemma_lib as pg
from paligemma_lib.decode import Greedy, slots
from paligemma_lib.decode.adjustable import Adjustable
from paligemma_lib.serving import Answer, Busy, Engine
from paligemma_lib.serving.jobs import program_of

try:
    import app
    import app_captions
    import app_images
    import app_settings
    import asking
    from streamlit.delta_generator import DeltaGenerator
    from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
    from streamlit.testing.v1 import AppTest
except ModuleNotFoundError:
    pytest.skip("needs streamlit", allow_module_level=True)

SCRIPT = Path(app.__file__)
HOSTILE = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Options of the scripts for a tiny model, and their values."""
    options = cases.write_captioner(tmp_path_factory.mktemp("captioner"))
    return dict(itertools.pairwise(options))


@pytest.fixture(scope="module")
def services() -> Iterator[list[Engine]]:
    """All that were made for the page, in turn."""
    made, init = [], Engine.__init__

    def remember(self, *args, **options):
        made.append(self)
        init(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "__init__", remember)
        yield made


@pytest.fixture
def visit(files, services, monkeypatch):
    """Opens the page as another visitor."""
    monkeypatch.setattr(sys, "argv", ["app.py"])
    monkeypatch.setenv("PALIGEMMA_CHECKPOINT", files["--checkpoint"])
    monkeypatch.setenv("PALIGEMMA_TOKENIZER", files["--tokenizer"])

    def visit() -> AppTest:
        page = AppTest.from_file(str(SCRIPT), default_timeout=250).run()
        assert not page.exception
        return page

    return visit


def image(seed: int = 0, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def upload(page: AppTest, *files: tuple[str, bytes]) -> AppTest:
    named = [(name, data, "image/jpeg") for name, data in files]
    page.file_uploader[0].set_value(named)
    return page.run()


def press(page: AppTest, key: str) -> AppTest:
    page.button(key=key).click()
    return page.run()


def caption(page: AppTest) -> AppTest:
    """Presses the button and waits, as the browser does by running the page again."""
    press(page, "ask")
    deadline = time.monotonic() + 800
    while page.session_state["asked"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        page.run()
    assert not page.exception
    return page


def shown(page: AppTest) -> str:
    return "\n".join(element.proto.body for element in page.get("html"))


def test_the_page_opens_with_something_to_do(visit):
    page = visit()
    assert "No captions yet" in shown(page)
    assert page.button(key="ask").disabled
    assert page.button(key="ask").label == "Choose an image first"
    assert len(page.checkbox) == 6
    assert len(page.get("download_button")) == 0


def test_a_sample_is_captioned_as_the_library_does(visit, files):
    page = visit()
    page.checkbox(key="sample beach").check().run()
    assert page.button(key="ask").label == "Caption the image"
    page.select_slider(key="length").set_value(8)  # and the button at once
    caption(page)
    ((result,),) = page.session_state["results"]
    config = pg.checkpoint.read_config(files["--checkpoint"])
    (wanted,) = pg.decode.generate(
        config,
        pg.checkpoint.load_params(files["--checkpoint"], config),
        pg.data.decode_image(app_images.drawn_samples()["beach"].encoded, config.vision.image_size)[
            None
        ],
        pg.tokenizer.load(files["--tokenizer"]),
        max_new_tokens=8,
    )
    assert result.caption.tokens == wanted.tokens
    assert wanted.text in shown(page)
    assert "No captions yet" not in shown(page)
    assert [each.proto.label for each in page.get("download_button")] == ["CSV", "JSON"]


def test_beam_search_shows_its_alternatives(visit):
    page = upload(visit(), ("one.png", image(1)), ("two.png", image(2)))
    page.radio(key="words").set_value(app_settings.BEAM).run()
    assert page.select_slider(key="beams").value == 4
    assert page.button(key="ask").label == "Caption 2 images"
    page.select_slider(key="length").set_value(8)
    caption(page)
    results = [result for (result,) in page.session_state["results"]]
    assert [each.image.name for each in results] == ["one.png", "two.png"]
    for result in results:
        assert len(result.caption.alternatives) == 3
        assert result.way.words == "beam search, 4 beams"
    assert shown(page).count("Beams by probability") == 2


@pytest.mark.slow
def test_reruns_and_other_visitors_share_one_model_and_trace_nothing(visit, services):
    def run(page, number):
        page.text_input(key="prompt").set_value("caption en" if number else "what is there")
        page.select_slider(key="length").set_value(8 + 8 * number)
        caption(upload(page, (f"{number}.png", image(number))))

    page = visit()
    run(page, 0)
    while not services[0].ready:
        time.sleep(0.05)
    count, size = len(services), sum(array.nbytes for array in jax.live_arrays())
    events = []

    def listen(event, _seconds, **_):
        events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    with contextlib.ExitStack() as stack:
        stack.callback(jax.monitoring.unregister_event_duration_listener, listen)
        run(page, 1)
        run(visit(), 2)
    assert not [event for event in events if "trace" in event or "compile" in event]
    assert len(services) == count
    # What was read is freed soon after its caption is shown.
    until = time.monotonic() + 20
    while (held := sum(array.nbytes for array in jax.live_arrays())) > size:
        assert time.monotonic() < until, held - size
        time.sleep(0.05)


@pytest.mark.slow
def test_the_server_does_without_keras():
    program = """
import sys, time, app
engine = app.start("no/such.npz", None, None, {})
while not engine.problem:
    time.sleep(0.1)
print("tensorflow" in sys.modules, "keras" in sys.modules)
"""
    paths = os.pathsep.join([str(SCRIPT.parent), str(SCRIPT.parents[2])])
    environment = os.environ | {"PYTHONPATH": paths}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert found.stdout == "True False\n", found.stderr[-2000:]


@pytest.mark.parametrize("path", sorted(SCRIPT.parent.glob("app*.py")), ids=lambda path: path.name)
def test_nothing_is_jitted_in_the_page(path):
    source = path.read_text("utf-8")
    assert "import jax" not in source
    assert "jit" not in source


def test_what_is_no_image_is_told_and_what_is_one_goes_on(visit):
    page = upload(visit(), ("notes.jpg", b"dear diary"), (HOSTILE, image()))
    text = shown(page)
    assert "<strong>notes.jpg</strong>: This is a text file." in text
    assert 'role="alert"' in text
    caption(page)
    ((result,),) = page.session_state["results"]
    assert result.image.name == HOSTILE
    assert HOSTILE not in shown(page)
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in shown(page)
    assert len(page.get("download_button")) == 2


def test_a_file_is_decoded_once_however_often_the_page_runs(visit, monkeypatch):
    calls, check = [], uploads.check
    monkeypatch.setattr(uploads, "check", lambda *file: calls.append(file) or check(*file))
    page = upload(visit(), ("a.png", image()), ("b.jpg", b"no"))
    count = len(calls)
    page.run()
    page.run()
    assert len(calls) == count == 2
    page.file_uploader[0].set_value(None)
    page.run()
    assert page.session_state["checked"] == {}


def test_only_so_many_images_are_taken_at_a_time(visit):
    many = [(f"{number}.png", image(number)) for number in range(app_images.MAX_IMAGES + 1)]
    page = upload(visit(), *many)
    assert "The first 12 of 13 images are used" in shown(page)
    assert page.button(key="ask").label == "Caption 12 images"


def test_more_bytes_than_a_visit_may_hold_are_dropped(visit, monkeypatch):
    monkeypatch.setattr(app_images, "MAX_BYTES", len(image(1)) + 10)
    removed, remove = [], MemoryUploadedFileManager.remove_file

    def watched(manager, session_id, file_id):
        remove(manager, session_id, file_id)
        removed.append(manager.get_files(session_id, [file_id]))

    monkeypatch.setattr(MemoryUploadedFileManager, "remove_file", watched)
    page = upload(visit(), ("a.png", image(1)), ("b.png", image(2)))
    told = "<strong>2 images with 0 MB were dropped</strong>: At most 0 MB are accepted at a time"
    assert told in shown(page)
    assert page.button(key="ask").disabled
    assert page.session_state["checked"] == {}
    assert removed == [[], []]
    page.run()
    assert told in shown(page)
    upload(page, ("a.png", image(1)))
    assert "were dropped" not in shown(page)
    assert page.button(key="ask").label == "Caption the image"


@pytest.mark.slow
def test_the_history_is_bounded_holds_no_files_and_can_be_cleared(visit):
    page = caption(upload(visit(), ("a.png", image(1)), ("b.png", image(2))))
    page.session_state["results"] = page.session_state["results"] * 25
    results = caption(page).session_state["results"]
    assert [each.image.name for (each,) in results[:3]] == ["a.png", "b.png", "a.png"]
    assert len(results) == app_captions.MAX_HISTORY
    assert all(each.image.encoded == b"" for (each,) in results)
    press(page, "clear")
    assert page.session_state["results"] == []
    assert "No captions yet" in shown(page)


@pytest.fixture
def held(monkeypatch):
    """Captions are written only once the value is set."""
    event, advance = threading.Event(), slots.advance

    def wait(*arguments):
        assert event.wait(60)
        return advance(*arguments)

    monkeypatch.setattr(slots, "advance", wait)
    yield event
    event.set()


def test_a_request_can_be_stopped_while_others_go_on(visit, held):
    first, second = (upload(visit(), ("a.png", image())) for _ in range(2))
    press(first, "ask")
    press(second, "ask")
    press(second, "stop")
    assert "Stopped." in shown(second)
    assert second.session_state["asked"] is None
    held.set()
    while first.session_state["asked"]:
        time.sleep(0.05)
        first.run()
    assert first.session_state["results"][0][0].caption


def test_who_does_not_look_any_more_is_not_waited_for(visit, held):
    page = upload(visit(), ("a.png", image()))
    press(page, "ask")
    ((job,),) = page.session_state["asked"].jobs
    job.extend_deadline(0.1)  # the last look is long ago
    assert job.wait(60).fault == "deadline"


@pytest.mark.slow
def test_two_models_are_shown_side_by_side(visit, files, monkeypatch):
    path = files["--checkpoint"]
    monkeypatch.setattr(sys, "argv", ["app.py", "--checkpoint", path, "--checkpoint", f"b={path}"])
    page = upload(visit(), ("a.png", image()))
    page.selectbox(key="second model").set_value("b").run()
    caption(page)
    (group,) = page.session_state["results"]
    assert [each.model for each in group] == [Path(path).name, "b"]
    assert group[0].caption == group[1].caption
    assert shown(page).count('class="beside"') == 1


@pytest.mark.slow
def test_adapters_are_models_beside_their_base(visit, files, services, tmp_path, monkeypatch):
    path = files["--checkpoint"]
    adapter_cases.write_birds_and_dogs(tmp_path, path, size=0.5)
    given = ["--checkpoint", path, "--adapter", str(tmp_path / "birds")]
    given += ["--adapter", f"hounds={tmp_path / 'dogs'}"]
    monkeypatch.setattr(sys, "argv", ["app.py", *given])
    monkeypatch.setattr(app_settings, "all_samplers", lambda: [Greedy()])
    count = len(services)
    page = upload(visit(), ("a.png", image()))
    assert len(services) == count + 1  # they share the weights of one
    names = [Path(path).name, "birds", "hounds"]
    assert page.selectbox(key="model").options == names
    page.select_slider(key="length").set_value(8)
    found = {}
    for first, second in itertools.pairwise([*names, names[0]]):
        page.selectbox(key="second model").set_value(None).run()
        page.selectbox(key="model").set_value(first).run()
        page.selectbox(key="second model").set_value(second).run()
        group = caption(page).session_state["results"][0]
        assert [each.model for each in group] == [first, second]
        for each in group:
            assert found.setdefault(each.model, each.caption.tokens) == each.caption.tokens
    folders = {"birds": tmp_path / "birds", "hounds": tmp_path / "dogs"}
    model = pg.load(path, files["--tokenizer"], adapters=folders)
    for name in names:
        wanted = model.with_adapter(name if name in folders else None)
        assert found[name] == wanted.caption(image(), max_new_tokens=8).caption.tokens
    assert len(set(found.values())) == 3
    assert "an adapter: " in shown(page)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--checkpoint", "a/x", "--checkpoint", "b/x"], "two are named x"),
        (["--adapter", "a/x", "--adapter", "b/x"], "two are named x"),
        (["--checkpoint", "a", "--checkpoint", "b", "--adapter", "c"], "needs one --checkpoint"),
    ],
)
def test_models_of_one_name_are_told(visit, services, monkeypatch, given, told):
    count = len(services)
    monkeypatch.setattr(sys, "argv", ["app.py", *given])
    page = visit()
    assert told in shown(page)
    assert len(page.button) == 0
    assert len(services) == count


@pytest.mark.slow
def test_masks_of_captions_are_drawn(visit, tmp_path, monkeypatch):
    codec = write_codec(tmp_path / "vae<b>.npz", **square_arrays())
    shown_images, show = [], DeltaGenerator.image
    monkeypatch.setattr(
        DeltaGenerator,
        "image",
        lambda self, data, **how: shown_images.append(data) or show(self, data, **how),
    )
    monkeypatch.setattr(sys, "argv", ["app.py", "--masks", str(codec)])
    page = caption(upload(visit(), ("a.png", image())))
    ((result,),) = page.session_state["results"]
    assert result.preview == result.image.preview  # the tiny model names nothing
    text = "<loc0100><loc0100><loc0900><loc0900>" + "<seg001>" * 16
    named = dataclasses.replace(result, caption=dataclasses.replace(result.caption, text=text))
    page.session_state["results"] = [(named,)]
    page.run()
    assert named.preview in shown_images
    assert named.preview != dataclasses.replace(named, codec=None).preview
    monkeypatch.setattr(sys, "argv", ["app.py", "--masks", f"{tmp_path}/no<b>.npz"])
    text = shown(visit())
    assert "no&lt;b&gt;.npz" in text and 'role="alert"' in text


@pytest.mark.slow
def test_too_many_visitors_are_asked_to_come_back(visit, monkeypatch):
    page = upload(visit(), ("a.png", image()))

    def busy(*_, **__):
        raise Busy("64 requests are waiting already")

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "submit", busy)
        press(page, "ask")
    assert "Too many people are waiting" in shown(page)
    caption(page)
    assert "Too many people are waiting" not in shown(page)


def test_a_checkpoint_that_is_not_there_is_told(visit, services, monkeypatch, caplog):
    monkeypatch.setattr(sys, "argv", ["app.py", "--checkpoint", "no/such<b>.npz"])
    page = visit()
    while not services[-1].problem:
        time.sleep(0.05)
    page.checkbox(key="sample sea").check().run()
    assert "The model could not be loaded: no/such&lt;b&gt;.npz" in shown(page)
    assert page.button(key="ask").disabled


def test_a_wrong_command_line_is_told(visit, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["app.py", "--chekpoint", "a.npz"])
    page = visit()
    assert "The command line is invalid" in shown(page)
    assert len(page.button) == 0
    assert "--chekpoint" in capsys.readouterr().err


def test_all_that_can_be_chosen_is_compiled_at_start():
    samplers = app_settings.all_samplers()
    assert len(samplers) == len(set(samplers)) == 7
    assert samplers[0] == Greedy()
    ways = [(app_settings.GREEDY, 4, "medium")]
    ways += [(app_settings.BEAM, beams, "medium") for beams in app_settings.BEAMS]
    ways += [(app_settings.SAMPLING, 4, variety) for variety in app_settings.VARIETY]
    assert {app_settings.sampler_of(*way) for way in ways} == set(samplers)
    programs = {program_of(each).strategy for each in samplers}
    assert len(programs - {Adjustable()}) == len(app_settings.BEAMS)


@pytest.mark.parametrize(
    ("stage", "ahead", "told"),
    [
        ("loading", 0, "Image 2 of 3: the model is being loaded"),
        ("compiling", 0, "Image 2 of 3: the model is being compiled for these settings, once"),
        ("waiting", 5, "Image 2 of 3: 5 other images come first"),
        ("waiting", 1, "Image 2 of 3: 1 other image comes first"),
        ("writing", 0, "Image 2 of 3"),
    ],
)
def test_stages_are_told(stage, ahead, told):
    answers = ((Answer(problem="over"),), (Answer(),), (Answer(),))
    assert app_captions.stage_of(asking.Progress(stage, ahead, answers)) == told


def test_the_server_listens_to_this_machine_alone_and_bounds_uploads():
    settings = tomllib.loads((SCRIPT.parent / ".streamlit" / "config.toml").read_text("utf-8"))
    assert settings["server"]["address"] == "localhost"
    assert settings["server"]["maxUploadSize"] << 20 == uploads.MAX_BYTES
    assert settings["browser"]["gatherUsageStats"] is False
    assert settings["runner"]["postScriptGC"] is False
