"""Captions of many images: a job that was killed goes on, with any number of processes."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import captioning_cases as cases
import pyarrow.parquet
import pytest
from process_cases import ENVIRONMENT, PALIGEMMA, launched

from paligemma_lib.cli import caption_jobs, main
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


def test_a_job_that_was_stopped_goes_on(captioner, images, whole, tmp_path, monkeypatch, capsys):
    out = tmp_path / "a.jsonl"
    begun, captioned = caption_jobs.caption_numbers, []

    def stopped(*arguments, **options):
        for count, result in enumerate(begun(*arguments, **options)):
            if count == 7:
                raise KeyboardInterrupt
            yield result

    def watched(engine, source, numbers, **options):
        captioned.extend(numbers)
        return begun(engine, source, numbers, **options)

    monkeypatch.setattr(caption_jobs, "caption_numbers", stopped)
    assert main(["caption", *captioner, str(images), "--out", str(out)]) == 130
    assert not out.exists()
    monkeypatch.setattr(caption_jobs, "caption_numbers", watched)
    assert main(["caption", *captioner, str(images), "--out", str(out)]) == 1
    assert captioned == list(range(6, NUMBER))  # three parts of two were there
    assert out.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    # What was skipped before the stop counts, too.
    assert "1 of 11 images were skipped" in capsys.readouterr().err


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
