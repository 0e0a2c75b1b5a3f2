"""The main job on a tiny model: what it leaves, going on after a kill, errors before the start."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import captioning_cases as cases
import model_cases
import numpy as np
import pytest
import tensorflow as tf
from finetune_cases import exported, finetune, losses, of, tiny_run, write_config
from process_cases import TIMEOUT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import paligemma_lib as pg
from paligemma_lib.run import batching
from paligemma_lib.train.progress import FILE

SAID = "stderr.txt"
FINETUNE = Path(__file__).parents[1] / "examples" / "finetune.py"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("finetune"))


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """A run that was never disturbed."""
    workdir = tmp_path_factory.mktemp("finished")
    finetune(of(config, workdir))
    return workdir


def test_a_run_leaves_everything_it_should(finished, config):
    assert sorted(losses(finished)) == list(range(9))
    records = [json.loads(line) for line in (finished / FILE).read_text().splitlines()]
    assert [record["step"] for record in records if "validation_loss" in record] == [3, 6, 9]
    training = [*losses(finished).values()]
    assert sum(training[-3:]) < sum(training[:3]) - 0.3
    report = (finished / "report.html").read_text()
    for told in ("validation", "captions/s", "llm/layers/attn", "3.png", "optimizer.name"):
        assert told in report
    assert set(json.loads((finished / "scores.json").read_text())) == {
        "scale",
        "scores",
        "warnings",
    }
    assert len(json.loads((finished / "predictions.json").read_text())) == 4


def test_nano_is_said_to_know_no_photographs_before_and_after(
    config, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(pg.hub.fetching, "NANO", cases.write_nano(tmp_path))
    nano = {"model.checkpoint": "nano", "model.tokenizer": "", "epochs": 0.33}
    finetune(of(config, tmp_path / "run", stages=config.stages[:1], **nano))
    assert pg.hub.NANO_KNOWS in caplog.messages
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert pg.hub.NANO_KNOWS in scores["warnings"]


def test_tensorboard_gets_losses_and_images_with_their_captions(finished, config):
    events = EventAccumulator(str(finished), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    found = {e.step: float(tf.make_ndarray(e.tensor_proto)) for e in events.Tensors("loss")}
    assert found == pytest.approx(losses(finished), rel=1e-6)
    shown = [f"{kind}/{name}" for name in ("0.png", "1.png") for kind in ("images", "captions")]
    scores = json.loads((finished / "scores.json").read_text())["scores"]
    assert [tag for tag in tags if "/" in tag] == [*shown, *(f"test/{name}" for name in scores)]
    (cider,) = events.Tensors("test/CIDEr")
    assert tf.make_ndarray(cider.tensor_proto) == pytest.approx(scores["CIDEr"]["value"], abs=1e-3)
    shown = events.Tensors("images/0.png")
    assert [each.step for each in shown] == [3, 6, 9]
    width, height, png = tf.make_ndarray(shown[0].tensor_proto)
    pixels = tf.io.decode_png(png).numpy()
    assert (int(width), int(height)) == (32, 32)
    (original,) = pg.data.from_jsonl(config.data.test).read([0])
    wanted = pg.data.decode_image(original.image, 32)
    np.testing.assert_allclose(pixels / 127.5 - 1, wanted, atol=1 / 127)
    said = tf.make_ndarray(events.Tensors("captions/0.png")[-1].tensor_proto)
    captions = json.loads((finished / "predictions.json").read_text())
    assert said.item().decode() == captions[0]["caption"]


def test_the_folder_of_a_run_is_a_checkpoint(finished, config):
    captioner = pg.load(finished)
    results = captioner.stream(
        pg.data.from_jsonl(config.data.test),
        batch_size=config.decode_batch_size,
        max_new_tokens=config.max_new_tokens,
    )
    told = [{"image_id": each.image_id, "caption": each.caption.text} for each in results]
    assert told == json.loads((finished / "predictions.json").read_text())


def test_only_what_trains_has_changed(finished, config):
    before = pg.checkpoint.load_params(config.model.checkpoint, cases.CONFIG, dtype="float32")
    after = pg.checkpoint.load_params(finished, cases.CONFIG)
    changed = {
        name
        for (name, old), new in zip(
            model_cases.flatten(before).items(), model_cases.flatten(after).values(), strict=True
        )
        if not np.allclose(old, new, atol=0, rtol=2**-8)  # frozen ones went through bfloat16
    }
    assert changed == {
        "img/head/bias",
        "img/head/kernel",
        "llm/layers/attn/attn_vec_einsum/w",
        "llm/layers/attn/kv_einsum/w",
        "llm/layers/attn/q_einsum/w",
    }


def test_a_finished_run_has_nothing_left_to_do(finished, config):
    before = exported(finished), losses(finished)
    finetune(of(config, finished))
    assert losses(finished) == before[1]
    for name, value in exported(finished).items():
        np.testing.assert_array_equal(value, before[0][name])


def test_another_config_does_not_go_on_unless_it_may_differ(finished, config):
    with pytest.raises(ValueError, match=r"config.optimizer.learning_rate: was 0.01, is 0.02"):
        finetune(of(config, finished, **{"optimizer.learning_rate": 0.02}))
    with pytest.raises(ValueError, match="config.seed: was 0, is 1"):
        changes = {"optimizer.learning_rate": 0.02, "seed": 1}
        finetune(of(config, finished, **changes, allow_changed=("optimizer.learning_rate",)))


def test_gradients_that_stay_infinite_end_the_run(config, tmp_path):
    wild = of(config, tmp_path, **{"optimizer.learning_rate": 1e30, "max_skipped": 2})
    wild.evaluate_before = False
    with pytest.raises(ValueError, match=r"2 steps in a row .* at step \d; .* finite: \d+\.png"):
        finetune(wild)
    assert any((tmp_path / "checkpoints").iterdir())


def test_gradients_that_overflow_where_losses_do_not_are_told(config, tmp_path, monkeypatch):
    monkeypatch.setattr("paligemma_lib.train.state.first_scale", lambda model: 2.0**24)
    run = of(config, tmp_path, **{"model.dtype": "float16", "max_skipped": 1})
    run.evaluate_before = False
    with pytest.raises(
        ValueError,
        match=r"1 steps in a row .* All losses of this batch are finite\. On the way back, "
        r"gradients are first not finite in layer \d of \d of the \w+ model, those of "
        r"(\d+\.png(, )?)+\.",
    ):
        finetune(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 5, "microbatches": 2}, "batch_size=5: expected a multiple of microbatches"),
        ({"text_len": 8}, "image .*png .*text_len is 8"),
        ({"model.checkpoint": "nowhere.npz"}, "nowhere.npz"),
        ({"data.kind": "zip"}, "data.kind='zip': expected auto, tfds"),
        ({"data.train": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"stages": ({"from_step": 3, "trainable": ("all",)},)}, r"begin at steps \[3\]"),
        ({"stages": ({"from_step": 0, "trainable": ("lora",)},)}, "matches no parameter"),
        ({"optimizer.name": "adam"}, "name='adam': expected 'sgd'"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_step(config, tmp_path, changes, message):
    with pytest.raises((ValueError, OSError), match=message):
        finetune(of(config, tmp_path, **changes))
    assert not (tmp_path / FILE).exists()


def start(config, workdir, folder):
    """The script in a process of its own, with this config as a file."""
    file = write_config(of(config, workdir), folder / "config.py")
    environment = os.environ | {"PYTHONPATH": str(FINETUNE.parents[1]), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(FINETUNE), f"--config={file}"]
    with (folder / SAID).open("w") as said:
        return subprocess.Popen(command, env=environment, stderr=said)


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT)
def test_a_run_that_is_killed_goes_on_bit_for_bit(config, tmp_path):
    undisturbed = tmp_path / "undisturbed"
    assert start(config, undisturbed, tmp_path).wait(TIMEOUT) == 0
    killed = tmp_path / "killed"
    for steps in (2, 4, 7):  # kill -9 after so many are done
        process = start(config, killed, tmp_path)
        while process.poll() is None:
            if (killed / FILE).exists() and len(losses(killed)) >= steps:
                process.kill()
            time.sleep(0.05)
        process.wait()
    assert start(config, killed, tmp_path).wait(TIMEOUT) == 0
    assert losses(killed) == losses(undisturbed)
    want = exported(undisturbed)
    for name, value in exported(killed).items():
        np.testing.assert_array_equal(value, want[name])


@pytest.mark.slow
def test_sigterm_before_the_first_step_ends_at_once(config, tmp_path):
    workdir = tmp_path / "run"
    process = start(config, workdir, tmp_path)
    while not (workdir / "checkpoints").exists():  # so Python is at work
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143, (tmp_path / SAID).read_text()


@pytest.fixture
def ask():
    """Sends a signal; whatever handles signals afterwards is as it was."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    yield lambda number: os.kill(os.getpid(), number)
    for each, handler in before.items():
        signal.signal(each, handler)


def test_a_signal_in_a_validation_saves_and_validates_later(
    config, finished, tmp_path, monkeypatch, ask
):
    asked = []

    def batches(*args, **kwargs):
        asked.append(1)
        if len(asked) in (2, 3):  # the second validation is interrupted, and again after a resume
            ask(signal.SIGTERM)
        return eval_batches(*args, **kwargs)

    eval_batches = batching.eval_batches
    monkeypatch.setattr(batching, "eval_batches", batches)
    for _ in range(2):
        assert finetune(of(config, tmp_path)) == 143
        assert list(losses(tmp_path)) == list(range(6))
        assert list(losses(tmp_path, "validation_loss")) == [3]
    assert finetune(of(config, tmp_path)) == 0
    for name in ("loss", "validation_loss"):
        assert losses(tmp_path, name) == losses(finished, name)
    want = exported(finished)
    for name, value in exported(tmp_path).items():
        np.testing.assert_array_equal(value, want[name])


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on(config, tmp_path):
    workdir = tmp_path / "run"
    longer = of(config, workdir, epochs=40.0, save_every=1000.0, validate_every=1000.0)
    process = start(longer, workdir, tmp_path)
    deadline = time.monotonic() + 200
    while not ((workdir / FILE).exists() and len(losses(workdir)) > 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert "run the same command again to continue" in (tmp_path / SAID).read_text()
    (saved,) = (int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    assert len(losses(workdir)) == saved
