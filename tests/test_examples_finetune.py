"""The main job on a tiny model: what it leaves, going on after a kill, errors before the start."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import captioning_cases as cases
import finetune
import model_cases
import numpy as np
import pytest
from configs import base

import paligemma_lib as pg
from paligemma_lib.train.progress import FILE

PICTURES = 12
SAID = "stderr.txt"
FINETUNE = Path(__file__).parents[1] / "examples" / "finetune.py"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A run of nine steps: 12 pictures, 3 epochs in batches of 4, stages from step 5 on."""
    folder = tmp_path_factory.mktemp("finetune")
    checkpoint, _, tokenizer, *_ = cases.write_captioner(folder)
    names = [f"{number}.png" for number in range(PICTURES)]
    cases.write_pictures(folder, names)
    captions = itertools.cycle(pg.testing.tiny_captions()[::5])
    for split, count in (("train", PICTURES), ("other", 4)):
        lines = [
            {"image": name, "prefix": "caption en", "suffix": next(captions)} for name in names
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines[:count])
        (folder / f"{split}.jsonl").write_text(text)
    config = base.get_config()
    config.data.kind = "jsonl"
    config.data.train = str(folder / "train.jsonl")
    config.data.validation = config.data.test = str(folder / "other.jsonl")
    config.model.checkpoint, config.model.tokenizer = checkpoint, tokenizer
    config.model.frozen_dtype = "bfloat16"
    config.text_len = 64
    config.stages = (
        {"from_step": 0, "trainable": ("attention",), "top_layers": 2},
        {"from_step": 5, "trainable": ("attention", "projector"), "top_layers": 0},
    )
    config.batch_size = 4
    config.epochs = 3.0
    config.optimizer.learning_rate = 0.01
    config.validate_every = 1.0
    config.save_every = 0.34  # every step or two
    config.decode_batch_size = 4
    config.max_new_tokens = 6
    config.export_dtype = "float32"
    return config


def of(config, workdir, **changes):
    changed = config.copy_and_resolve_references()
    changed.workdir = str(workdir)
    with changed.unlocked():
        changed.update_from_flattened_dict(changes)
    return changed


def losses(workdir):
    """The loss of every step; later lines count."""
    lines = (Path(workdir) / FILE).read_text().splitlines()
    return {r["step"]: r["loss"] for r in map(json.loads, lines) if "loss" in r}


def exported(workdir):
    with np.load(Path(workdir) / base.get_config().export) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """A run that was never disturbed."""
    workdir = tmp_path_factory.mktemp("finished")
    finetune.finetune(of(config, workdir))
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
    assert set(json.loads((finished / "scores.json").read_text())) == {"scores", "warnings"}
    assert len(json.loads((finished / "predictions.json").read_text())) == 4
    assert list(finished.glob("events.out.tfevents.*"))


def test_only_what_trains_has_changed(finished, config):
    before = pg.checkpoint.load_params(config.model.checkpoint, cases.CONFIG, dtype="float32")
    after = pg.checkpoint.load_params(finished / config.export, cases.CONFIG)
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
    finetune.finetune(of(config, finished))
    assert losses(finished) == before[1]
    for name, value in exported(finished).items():
        np.testing.assert_array_equal(value, before[0][name])


def test_another_config_does_not_go_on_unless_it_may_differ(finished, config):
    with pytest.raises(ValueError, match=r"config.optimizer.learning_rate: was 0.01, is 0.02"):
        finetune.finetune(of(config, finished, **{"optimizer.learning_rate": 0.02}))
    with pytest.raises(ValueError, match="config.seed: was 0, is 1"):
        changes = {"optimizer.learning_rate": 0.02, "seed": 1}
        finetune.finetune(of(config, finished, **changes, may_differ=("optimizer.learning_rate",)))


def test_gradients_that_stay_infinite_end_the_run(config, tmp_path):
    wild = of(config, tmp_path, **{"optimizer.learning_rate": 1e30, "max_skipped": 2})
    wild.evaluate_before = False
    with pytest.raises(ValueError, match=r"2 steps in a row .* at step \d; .* finite: \d+\.png"):
        finetune.finetune(wild)
    assert any((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 5, "microbatches": 2}, "batch_size=5 cannot be divided among 1 devices"),
        ({"text_len": 8}, "image .*png .*text_len is 8"),
        ({"model.checkpoint": "nowhere.npz"}, "nowhere.npz"),
        ({"data.kind": "zip"}, "data.kind='zip', expected tfds"),
        ({"data.train": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"stages": ({"from_step": 3, "trainable": ("all",)},)}, r"begin at steps \[3\]"),
        ({"stages": ({"from_step": 0, "trainable": ("lora",)},)}, "selects none of the parameters"),
        ({"optimizer.name": "adam"}, "name='adam', expected one of sgd"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_step(config, tmp_path, changes, message):
    with pytest.raises((ValueError, OSError), match=message):
        finetune.finetune(of(config, tmp_path, **changes))
    assert not (tmp_path / FILE).exists()


def test_a_remote_workdir_is_refused(config):
    with pytest.raises(ValueError, match="'gs://bucket/run' is no local folder"):
        finetune.finetune(of(config, "gs://bucket/run"))


def start(config, workdir, folder):
    """The script in a process of its own, with this config as a file."""
    file = folder / "config.py"
    file.write_text(
        "import json\nfrom ml_collections import ConfigDict\ndef get_config():\n"
        f"    return ConfigDict(json.loads({of(config, workdir).to_json()!r}))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(FINETUNE.parents[1]), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(FINETUNE), f"--config={file}"]
    with (folder / SAID).open("w") as said:
        return subprocess.Popen(command, env=environment, stderr=said)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_bit_for_bit(config, tmp_path):
    undisturbed = tmp_path / "undisturbed"
    assert start(config, undisturbed, tmp_path).wait(300) == 0
    killed = tmp_path / "killed"
    for steps in (2, 4, 7):  # kill -9 after so many are done
        process = start(config, killed, tmp_path)
        deadline = time.monotonic() + 200
        while process.poll() is None and time.monotonic() < deadline:
            if (killed / FILE).exists() and len(losses(killed)) >= steps:
                process.kill()
            time.sleep(0.05)
        process.wait(10)
    assert start(config, killed, tmp_path).wait(300) == 0
    assert losses(killed) == losses(undisturbed)
    want = exported(undisturbed)
    for name, value in exported(killed).items():
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
    assert "the same command goes on from here" in (tmp_path / SAID).read_text()
    (saved,) = (int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    assert len(losses(workdir)) == saved
