"""Captions of many images: a job that was killed goes on, with any number of processes."""

import json
import signal
import subprocess
import sys
import time
import types
import weakref
from pathlib import Path

import captioning_cases as cases
import jax
import pyarrow.parquet
import pytest
from process_cases import ENVIRONMENT, PALIGEMMA, launched

from paligemma_lib.cli import caption_jobs, main
from paligemma_lib.runtime.locks import locked
from paligemma_lib.serving import journal

NUMBER = 11


@pytest.fixture(scope="module")
def captioner(tmp_path_factory) -> list[str]:
    return cases.write_captioner(tmp_path_factory.mktemp("captioner"))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = cases.write_images(
        tmp_path_factory.mktemp("many"), [f"{number:02}.png" for number in range(NUMBER)]
    )
    (folder / "05.png").write_bytes(b"damaged")
    return folder


@pytest.fixture(scope="module")
def whole(captioner, images, tmp_path_factory) -> bytes:
    """What a job writes that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole") / "a.jsonl"
    assert main(["caption", *captioner, str(images), "--out", str(out)]) == 1
    return out.read_bytes()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(journal, "PART", 2)


@pytest.fixture
def captioned(monkeypatch) -> list[int]:
    """Numbers of the images that are captioned; the first job is stopped after seven of them."""
    begun, found = caption_jobs.caption_numbers, []

    def stopped(*arguments, **options):
        monkeypatch.setattr(caption_jobs, "caption_numbers", watched)
        for count, result in enumerate(begun(*arguments, **options)):
            if count == 7:
                raise KeyboardInterrupt
            yield result

    def watched(engine, source, numbers, **options):
        found.extend(numbers)
        return begun(engine, source, numbers, **options)

    monkeypatch.setattr(caption_jobs, "caption_numbers", stopped)
    return found


def test_a_job_that_was_stopped_goes_on(captioner, images, whole, tmp_path, captioned, capsys):
    out = tmp_path / "a.jsonl"
    assert main(["caption", *captioner, str(images), "--out", str(out)]) == 130
    assert not out.exists()
    assert main(["caption", *captioner, str(images), "--out", str(out)]) == 1
    assert captioned == list(range(6, NUMBER))  # three parts of two were there
    assert out.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    # What was skipped before the stop counts, too.
    assert "1 of 11 images were skipped" in capsys.readouterr().err


def test_images_of_a_damaged_part_are_captioned_again(
    captioner, images, whole, tmp_path, captioned, capsys
):
    out = tmp_path / "a.jsonl"
    assert main(["caption", *captioner, str(images), "--out", str(out)]) == 130
    (part,) = (tmp_path / "a.jsonl.parts").glob("part-000001-*")
    part.write_bytes(part.read_bytes()[:-20])
    assert main(["caption", *captioner, str(images), "--out", str(out)]) == 1
    assert captioned == [2, 3, *range(6, NUMBER)]
    assert out.read_bytes() == whole
    assert f"{part.name}: put aside" in capsys.readouterr().err


def test_two_jobs_do_not_write_the_same_file_at_once(captioner, images, tmp_path, capsys):
    out = tmp_path / "a.jsonl"
    parts = tmp_path / "a.jsonl.parts"
    with locked(parts):  # as a job does that is not done
        (parts / ".part.1.partial").touch()
        assert main(["caption", *captioner, str(images), "--out", str(out)]) == 1
        assert (parts / ".part.1.partial").exists()
    assert "a.jsonl.parts is in use by process" in capsys.readouterr().err
    assert not out.exists()


def test_the_memory_of_an_engine_is_free_for_the_next(captioner, images, monkeypatch):
    made, start, results = [], caption_jobs.Engine, caption_jobs.CaptionJob.results

    def watched(*arguments, **options):
        engine = start(*arguments, **options)
        made.append(weakref.ref(engine))
        return engine

    def engine_is_gone(job):
        assert [engine() for engine in made] == [None]
        return results(job)

    monkeypatch.setattr(caption_jobs, "Engine", watched)
    monkeypatch.setattr(caption_jobs.CaptionJob, "results", engine_is_gone)
    assert main(["caption", *captioner, str(images / "00.png")]) == 0


def test_the_progress_of_several_processes_names_the_process(captioner, images, monkeypatch):
    told = []
    bar = caption_jobs.tqdm
    monkeypatch.setattr(caption_jobs, "tqdm", lambda **shown: told.append(shown) or bar(**shown))
    two = types.SimpleNamespace(
        process_index=lambda: 0, process_count=lambda: 2, local_devices=jax.local_devices
    )
    monkeypatch.setattr(caption_jobs, "jax", two)
    assert main(["caption", *captioner, str(images)]) == 1
    assert [(each["desc"], each["total"]) for each in told] == [("process 0 of 2", 6)]


def test_other_settings_do_not_go_on(captioner, images, tmp_path, monkeypatch, capsys):
    out = tmp_path / "a.jsonl"
    monkeypatch.setattr(caption_jobs, "caption_numbers", lambda *_, **__: iter(()))
    with pytest.raises(RuntimeError):
        main(["caption", *captioner, str(images), "--out", str(out)])
    given = [*captioner, str(images), "--out", str(out), "--prompt", "describe en"]
    assert main(["caption", *given]) == 1
    assert "prompt 'caption en' there, 'describe en' now" in capsys.readouterr().err


def test_captions_become_a_parquet_file(captioner, images, whole, tmp_path):
    out = tmp_path / "a.parquet"
    assert main(["caption", *captioner, str(images), "--out", str(out)]) == 1
    assert pyarrow.parquet.read_table(out).to_pylist() == list(map(json.loads, whole.splitlines()))


@pytest.mark.slow
def test_a_job_that_was_killed_goes_on_with_two_processes(captioner, images, tmp_path):
    for number in range(300):
        (images / f"more {number}.png").write_bytes((images / "00.png").read_bytes())
    command = [PALIGEMMA, "caption", *captioner, str(images), "--out"]
    try:
        assert launched(1, [*command, str(tmp_path / "whole.jsonl")]).returncode == 1
        out, parts = tmp_path / "a.jsonl", tmp_path / "a.jsonl.parts"
        killed = subprocess.Popen([sys.executable, *command, str(out)], env=ENVIRONMENT)
        deadline = time.monotonic() + 200
        while len(list(parts.glob("part-*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        killed.wait(60)
        assert parts.is_dir()
        both = launched(2, [*command, str(out)])
        assert both.returncode == 1, both.stderr
        assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
        assert not parts.exists()
    finally:
        for path in images.glob("more *"):
            path.unlink()
