"""The scripts in several processes: they compute what one does, and stop and go on together."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import captioning_cases as cases
import numpy as np
import pytest
from finetune_cases import exported, losses, of, tiny_run, write_config
from process_cases import ENVIRONMENT, PALIGEMMA, ROOT, TIMEOUT, launched

import paligemma_lib as pg

EXAMPLES = ROOT / "examples"


def finetuned(count: int, config, workdir: Path) -> str:
    """Runs the main job in so many processes; returns what it said."""
    file = write_config(of(config, workdir), workdir.with_suffix(".py"))
    result = launched(count, [str(EXAMPLES / "finetune.py"), f"--config={file}"])
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stderr


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Six steps, two validations; no data fill their batches, and there are but three to test."""
    config = tiny_run(tmp_path_factory.mktemp("processes"))
    lines = Path(config.data.train).read_text().splitlines(keepends=True)
    for split, count in (("train", 11), ("validation", 5), ("test", 3)):
        path = Path(config.data.train).with_name(f"{split}-{count}.jsonl")
        path.write_text("".join(lines[:count]))
        config.data[split] = str(path)
    config.stages = config.stages[:1]
    config.epochs, config.save_every = 2.0, 1.0
    return config


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """The run of one process."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    finetuned(1, config, workdir)
    return workdir


@pytest.fixture(scope="module", params=[2, 4])
def together(request, config, tmp_path_factory):
    """The run of several: how many, where, and what it said."""
    workdir = tmp_path_factory.mktemp("together") / "run"
    return request.param, workdir, finetuned(request.param, config, workdir)


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT)
def test_several_processes_train_as_one(alone, together):
    count, workdir, said = together
    for name in ("loss", "validation_loss"):
        want = losses(alone, name)
        assert losses(workdir, name) == pytest.approx(want, rel=1e-5)
        assert len(want) == (2 if name == "validation_loss" else 6)
    for name in ("predictions_before.json", "predictions.json"):
        captions = json.loads((workdir / name).read_text())
        assert captions == json.loads((alone / name).read_text())
        assert len(captions) == 3
    want = exported(alone)
    for name, value in exported(workdir).items():
        # On average: AdamW makes much of rounding where a gradient is next to nothing.
        assert np.abs(value - want[name]).mean() <= 1e-4 * np.abs(want[name]).mean()
    # All write the checkpoints, each its parts of them.
    (newest,) = (workdir / "checkpoints").glob("6/state")
    parts = [len(list((newest / f"ocdbt.process_{k}" / "d").iterdir())) for k in range(count)]
    assert all(parts)
    # One of them speaks and writes the rest.
    assert said.count("step 6 of 6: validation_loss") == 1
    kinds = [sorted(path.name.split(".")[0] for path in run.iterdir()) for run in (alone, workdir)]
    assert kinds[0] == kinds[1]
    assert len(list(workdir.glob("events.out.tfevents.*"))) == 1


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT)
def test_another_number_of_processes_goes_on_with_another_mesh(alone, together, config, tmp_path):
    count, workdir, _ = together
    resumed = tmp_path / "run"
    shutil.copytree(workdir, resumed)
    shutil.rmtree(resumed / "checkpoints" / "6")
    processes, fsdp = {2: (4, 2), 4: (1, 1)}[count]  # parameters were split over all of them
    changes = {"allow_changed": ("workdir", "fsdp"), "fsdp": fsdp}
    finetuned(processes, of(config, resumed, **changes), resumed)
    assert losses(resumed) == pytest.approx(losses(alone), rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT)
def test_sigterm_to_one_stops_all_and_a_kill_of_one_ends_all(config, tmp_path):
    workdir = tmp_path / "run"
    longer = {"epochs": 400.0, "save_every": 1e6, "validate_every": 1e6, "evaluate_before": False}
    file = write_config(of(config, workdir, **longer), tmp_path / "config.py")
    command = [sys.executable, "-m", "paligemma_lib.runtime.launch", "--count", "2"]
    command += [str(EXAMPLES / "finetune.py"), f"--config={file}"]

    def run(number: signal.Signals, after: int) -> int:
        """Sends a signal to process 1 after so many steps; returns the launcher's exit code."""
        with (tmp_path / "said.txt").open("w") as said:
            launcher = subprocess.Popen(command, env=ENVIRONMENT, stderr=said)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
        while not ((workdir / "metrics.jsonl").exists() and len(losses(workdir)) > after):
            assert launcher.poll() is None, (tmp_path / "said.txt").read_text()[-3000:]
            time.sleep(0.1)
        pids = [int(pid) for pid in children.read_text().split()]
        assert len(pids) == 2
        os.kill(max(pids), number)
        code = launcher.wait(TIMEOUT)
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        return code

    assert run(signal.SIGTERM, after=3) == 143
    (saved,) = (int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    assert len(losses(workdir)) == saved
    assert (tmp_path / "said.txt").read_text().count("run the same command again to continue") == 1
    assert run(signal.SIGKILL, after=saved + 1) not in (0, 143)


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT)
def test_several_processes_caption_as_one(tmp_path):
    options = cases.write_captioner(tmp_path)  # in batches of two
    names = [f"{number}.png" for number in range(5)]
    images = cases.write_images(tmp_path / "Images", names)
    (images / "2.png").write_bytes(b"damaged")
    found = {}
    for count in (1, 4):
        out = tmp_path / f"{count}.jsonl"
        command = [PALIGEMMA, "caption", *options, str(images), "--out", str(out)]
        result = launched(count, [*command, "--sampler=sample", "--samples=2", "--seed=3"])
        assert result.returncode == 1, result.stderr[-3000:]
        said = [line for line in result.stdout.splitlines() if ".png" in line]  # not Gloo's words
        assert [line.split()[0] for line in said] == ["0.png", "1.png", "3.png", "4.png"]
        assert result.stderr.count("not a complete JPEG") == 1
        found[count] = [json.loads(line) for line in out.read_text().splitlines()]
        assert [each["image"] for each in found[count]] == [n for n in names if n != "2.png"]
        for one, other in zip(found[1], found[count], strict=True):
            assert other["caption"] == one["caption"]
            assert other["logprob"] == pytest.approx(one["logprob"], abs=2e-4)


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT)
@pytest.mark.parametrize(("count", "images"), [(4, 1), (2, 5)])
def test_each_image_is_evaluated_once(tmp_path, count, images):
    options = cases.write_captioner(tmp_path)
    names = [f"{number}.png" for number in range(images)]
    cases.write_images(tmp_path / "data" / "Images", names)
    rows = [f"{name},a dog runs\n" for name in names]
    (tmp_path / "data" / "captions.txt").write_text("".join(["image,caption\n", *rows]))
    out = tmp_path / "out"
    command = [PALIGEMMA, "evaluate", *options, "--data", str(tmp_path / "data")]
    result = launched(count, [*command, "--out-dir", str(out)])
    assert result.returncode == 0, result.stderr[-3000:]
    predictions = json.loads((out / "predictions.json").read_text())
    want = cases.captions_of(options[1], [tmp_path / "data" / "Images" / name for name in names])
    assert [each["image_id"] for each in predictions] == names
    assert [each["caption"] for each in predictions] == want
    assert result.stdout.count("wrote ") == 1


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT)
def test_what_one_process_cannot_use_ends_all(config, tmp_path):
    """An image that does not decode, and is none of those that are looked at before."""
    train = Path(config.data.train)
    train.with_name("broken.png").write_bytes(b"damaged")
    lines = train.read_text().splitlines()
    lines[6] = json.dumps({"image": "broken.png", "suffix": "a dog runs"})
    train.with_name("broken.jsonl").write_text("\n".join(lines))
    changes = {"data.train": str(train.with_name("broken.jsonl")), "evaluate_before": False}
    file = write_config(of(config, tmp_path / "run", **changes), tmp_path / "config.py")
    result = launched(2, [str(EXAMPLES / "finetune.py"), f"--config={file}"])
    assert result.returncode == 1
    told = r"process \d of 2: ValueError: image broken.png \(.*broken.jsonl, line 7\)"
    assert len(re.findall(told, result.stderr)) == 1, result.stderr[-3000:]


SPOILED = """
    import runpy, sys
    import jax, numpy as np
    from paligemma_lib.data import batches

    following = batches.Batches.__next__

    def spoiled(self):
        batch = following(self)
        batch["image"] = batch["image"].astype(np.float32) / 127.5 - 1
        if jax.process_index() == 1:
            batch["image"][-1] = np.nan
        return batch

    batches.Batches.__next__ = spoiled
    sys.path.insert(0, {folder!r})
    sys.argv[0] = {folder!r} + "/finetune.py"
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT)
def test_a_image_whose_loss_is_not_finite_is_named_whoever_has_it(config, tmp_path):
    spoiled = of(config, tmp_path / "run", max_skipped=2, evaluate_before=False)
    file = write_config(spoiled, tmp_path / "config.py")
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SPOILED.format(folder=str(EXAMPLES))))
    result = launched(2, [str(script), f"--config={file}"])
    assert result.returncode == 1
    batches = pg.data.train_batches(
        pg.data.from_jsonl(config.data.train),
        pg.tokenizer.load(config.model.tokenizer),
        **{"image_size": 32, "text_len": 64, "batch_size": 4, "seed": config.seed},
    )
    last = batches.texts(2)[-1].image_id  # the first two steps are known by the third
    for number in range(2):  # whoever is later may repeat what the other has said
        told = rf"process {number} of 2: (process \d of 2 ended: )?ValueError: 2 steps in a row had"
        assert re.search(told, result.stderr)
    told = f"whose loss is not finite: {last} (first in the image itself). Lower"
    assert result.stderr.count(told) == 2
    assert "at step 3;" in result.stderr
