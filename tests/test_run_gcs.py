"""A workdir on gs://: the main job leaves there what it leaves in a folder, and goes on from it."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from finetune_cases import exported, losses, of, tiny_run, write_config
from gcs_cases import Storage
from process_cases import ENVIRONMENT, PALIGEMMA, ROOT, TIMEOUT

from paligemma_lib.run.config import SPLITS

pytest.importorskip("gcsfs", reason="needs the extra gcs")

WORKDIR = "gs://bucket/runs/one"
KEY = "bucket/runs/one/"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Nine steps with a checkpoint every step or two, of which two are kept."""
    return tiny_run(tmp_path_factory.mktemp("gcs"))


@pytest.fixture
def storage(tmp_path):
    with Storage(tmp_path) as storage:
        yield storage


def run(count: int, config, workdir, folder: Path, storage, *command: str) -> str:
    """Runs a script, by default the main job, in so many processes; returns what it printed."""
    file = write_config(of(config, workdir), folder / f"config{count}.py")
    script = [*(command or (str(ROOT / "examples" / "finetune.py"), f"--config={file}"))]
    if count > 1:
        script = ["-m", "paligemma_lib.runtime.launch", "--count", str(count), *script]
    environment = ENVIRONMENT | storage.environment
    done = subprocess.run(
        [sys.executable, *script], env=environment, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def metrics(storage) -> dict[int, float]:
    lines = storage.objects[f"{KEY}metrics.jsonl"].decode().splitlines()
    return {r["step"]: r["loss"] for r in map(json.loads, lines) if "loss" in r}


GATHER = """
import sys
from paligemma_lib.run import Setup, load
from paligemma_lib.run.prepare import prepare
print(sum(map(len, prepare(Setup(load(sys.argv[1]))).data.values())))
"""


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_what_a_run_makes_for_itself_lies_there_too(config, tmp_path, storage):
    drawn = of(config, WORKDIR, **{"data.kind": "sample", "data.name": "30", "batch_size": 2})
    drawn.data.train, drawn.data.validation, drawn.data.test = SPLITS
    drawn.model.checkpoint = drawn.model.tokenizer = ""
    drawn.model.vocab_size, drawn.text_len = 300, 512
    file = write_config(drawn, tmp_path / "drawn.py")

    def gathered() -> list[str]:
        """What was written meanwhile."""
        asked = len(storage.requests)
        done = subprocess.run(  # TensorFlow reads the storage's address once
            [sys.executable, "-c", GATHER, str(file)],
            cwd=ROOT,
            env=ENVIRONMENT | storage.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.stdout.splitlines()[-1:] == ["30"], done.stderr[-3000:]
        found = [each for each in storage.requests[asked:] if "/upload/" in each]
        return [each for each in found if "doctor" not in each]

    assert gathered()
    assert f"{KEY}tokenizer.model" in storage.objects
    built = f"{KEY}tfds-30/flickr8k_tfds/original/"
    assert any(name.startswith(built) for name in storage.objects)
    assert not gathered()  # it finds it all


@pytest.mark.slow
@pytest.mark.timeout(3 * TIMEOUT)
def test_a_run_on_gs_leaves_what_a_local_one_does_and_goes_on(config, tmp_path, storage):
    local = tmp_path / "local"
    run(1, config, local, tmp_path, storage)
    run(1, config, WORKDIR, tmp_path, storage)
    mine = {name.removeprefix(KEY) for name in storage.objects if name.startswith(KEY)}
    for path in local.iterdir():
        stem = path.name.split(".")[0]
        assert any(name.startswith(stem) for name in mine), path.name
    assert metrics(storage) == losses(local)
    for name in ("predictions.json", "predictions_before.json", "scores.json"):
        assert storage.objects[KEY + name] == (local / name).read_bytes()
    (export,) = (path.name for path in local.glob("*.npz"))
    with np.load(io.BytesIO(storage.objects[KEY + export])) as file:
        for name, value in exported(local).items():
            np.testing.assert_array_equal(file[name], value)
    kept = {name.split("/")[1] for name in mine if name.startswith("checkpoints/")} - {""}
    assert kept == {path.name for path in (local / "checkpoints").iterdir()}

    newest = max(kept, key=int)
    for name in [
        name for name in storage.objects if name.startswith(f"{KEY}checkpoints/{newest}/")
    ]:
        del storage.objects[name]
    for name in ("metrics.jsonl", export):
        storage.objects.pop(KEY + name)
    run(2, config, WORKDIR, tmp_path, storage)  # in two processes
    with np.load(io.BytesIO(storage.objects[KEY + export])) as file:
        for name, value in exported(local).items():
            assert np.abs(file[name] - value).mean() <= 1e-4 * np.abs(value).mean()

    lines = (Path(config.data.test)).read_text().splitlines()
    images = [str(Path(config.data.test).parent / json.loads(line)["image"]) for line in lines]
    out = tmp_path / "captions.jsonl"
    options = ["--checkpoint", WORKDIR, "--max-new-tokens", "6", "--batch-size", "4"]
    outputs = [f"--out={out}", "--out-dir=gs://bucket/told"]
    run(1, config, WORKDIR, tmp_path, storage, PALIGEMMA, "caption", *images, *options, *outputs)
    assert storage.objects["bucket/told/captions.jsonl"] == out.read_bytes()
    assert storage.objects["bucket/told/captions.html"].startswith(b"<!DOCTYPE html>")
    captions = json.loads(storage.objects[f"{KEY}predictions.json"])
    told = [json.loads(line)["caption"] for line in out.read_text().splitlines()]
    assert told == [each["caption"] for each in captions]
