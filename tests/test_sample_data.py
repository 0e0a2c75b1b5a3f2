"""Tests of paligemma_lib.sample_data: the folder, whole or not at all, and the command."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from sample_data_cases import labels_of, rows, sentences_of

from paligemma_lib import sample_data
from paligemma_lib.cli import main
from paligemma_lib.sample_data import drawing, scene_files, scenes

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_data.write_scenes(tmp_path_factory.mktemp("data") / "scenes", count=12, seed=3)


def test_layout_is_kaggles(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"captions.txt", "Images"}
    header, *body = rows(folder)
    assert header == ["image", "caption"]
    names = [f"scene_{index:05d}.jpg" for index in range(12)]
    assert [name for name, _ in body] == [name for name in names for _ in range(5)]
    assert sorted(path.name for path in (folder / "Images").iterdir()) == names
    for name in names:
        with Image.open(folder / "Images" / name) as image:
            assert image.format == "JPEG"


def test_captions_txt_has_unix_line_ends_and_quotes_commas(folder: Path) -> None:
    text = (folder / "captions.txt").read_bytes()
    assert b"\r" not in text
    assert text.endswith(b"\n")
    body = text.decode("ascii").splitlines()[1:]
    with_commas = [line for line in body if line.count(",") > 1]
    assert with_commas
    assert all(re.fullmatch(r'scene_\d{5}\.jpg,"[^"]+"', line) for line in with_commas)


def test_captions_txt_tells_of_the_scenes_in_order(folder: Path) -> None:
    expected = [caption for index in range(12) for caption in sentences_of(index, seed=3)[1]]
    assert [caption for _, caption in rows(folder)[1:]] == expected


@pytest.mark.parametrize("workers", [1, 5])
def test_bytes_do_not_depend_on_workers(folder: Path, tmp_path: Path, workers: int) -> None:
    again = sample_data.write_scenes(tmp_path / "again", count=12, seed=3, workers=workers)
    assert contents(again) == contents(folder)


def test_larger_count_only_adds(folder: Path, tmp_path: Path) -> None:
    few = contents(sample_data.write_scenes(tmp_path / "few", count=4, seed=3))
    many = contents(folder)
    table = few.pop("captions.txt")
    assert many["captions.txt"].startswith(table)
    assert few.items() <= many.items()


def test_other_seed_gives_other_images_and_captions(folder: Path, tmp_path: Path) -> None:
    other = contents(sample_data.write_scenes(tmp_path / "other", count=12, seed=4))
    this = contents(folder)
    assert other.keys() == this.keys()
    assert all(other[name] != this[name] for name in this)


@pytest.mark.parametrize("count", [0, -5])
def test_count_below_one_is_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(ValueError, match=f"count is {count}, expected 1 to"):
        sample_data.write_scenes(tmp_path / "scenes", count=count)
    assert not list(tmp_path.iterdir())


def test_complete_folder_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sample_data.write_scenes(tmp_path / "scenes", count=2)
    monkeypatch.setattr(scene_files, "draw", None)  # drawing again would fail
    assert sample_data.write_scenes(folder, count=2) == folder


@pytest.mark.parametrize(("count", "seed"), [(3, 0), (1, 0), (2, 1)])
def test_folder_of_other_scenes_is_refused(tmp_path: Path, count: int, seed: int) -> None:
    folder = sample_data.write_scenes(tmp_path / "scenes", count=2, seed=0)
    before = contents(folder)
    with pytest.raises(FileExistsError, match=r"captions.txt is missing or differs.*another"):
        sample_data.write_scenes(folder, count=count, seed=seed)
    assert contents(folder) == before


def test_folder_with_a_image_missing_is_refused(tmp_path: Path) -> None:
    folder = sample_data.write_scenes(tmp_path / "scenes", count=2)
    (folder / "Images" / "scene_00001.jpg").unlink()
    with pytest.raises(FileExistsError, match=r"1 images? .* Images/scene_00001.jpg"):
        sample_data.write_scenes(folder, count=2)


def test_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="mine exists"):
        sample_data.write_scenes(tmp_path / "mine", count=2)
    assert contents(tmp_path / "mine") == {"thesis.txt": b"years of work"}


def test_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scenes").write_text("")
    with pytest.raises(FileExistsError, match="scenes exists"):
        sample_data.write_scenes(tmp_path / "scenes", count=2)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def draw(scene: scenes.Scene, rng: random.Random) -> Image.Image:
        if next(calls) == 3:
            raise error
        return drawing.draw(scene, rng)

    calls = iter(range(100))
    monkeypatch.setattr(scene_files, "draw", draw)
    with pytest.raises(error):
        sample_data.write_scenes(tmp_path / "scenes", count=8, workers=1)
    assert not list(tmp_path.iterdir())


def test_killed_run_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    script = """
        import os, sys
        from paligemma_lib.sample_data import scene_files
        scene_files.draw = lambda scene, rng: os._exit(9)
        scene_files.write_scenes(sys.argv[1], count=3)
    """
    script = "\n".join(line.strip() for line in script.splitlines())
    out = tmp_path / "scenes"
    run = subprocess.run([sys.executable, "-c", script, str(out)], cwd=EXAMPLES, timeout=60)
    assert run.returncode == 9
    assert not out.exists()
    assert sample_data.write_scenes(out, count=1) == out  # what is left is not in the way


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new" / "scenes"
    assert main(["sample-data", str(new), "--count", "2", "--seed", "7"]) == 0
    assert "2 images" in capsys.readouterr().out
    assert contents(new) == contents(sample_data.write_scenes(tmp_path / "expected", 2, seed=7))
    assert main(["sample-data", str(new), "--count", "0"]) == 2
    assert "--count=0: expected at least 1" in capsys.readouterr().err
    assert main(["sample-data", str(new), "--count", "3"]) == 1  # another folder is there
    assert "exists, but does not hold the 3 scenes of seed 0" in capsys.readouterr().err


def test_the_folder_speaks_as_it_is_told_to(tmp_path: Path) -> None:
    folder = sample_data.write_scenes(tmp_path / "labels", 4, seed=3, wording="labels")
    assert [caption for _, caption in rows(folder)[1:]] == [
        label for index in range(4) for label in labels_of(index, seed=3)[1]
    ]
    with pytest.raises(ValueError, match="wording='songs', expected one of sentences, labels"):
        sample_data.write_scenes(tmp_path / "songs", 4, wording="songs")


def test_several_that_draw_one_folder_at_once(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        folders = list(
            pool.map(lambda _: sample_data.write_scenes(tmp_path / "x", 12, 3), range(4))
        )
    assert set(folders) == {tmp_path / "x"} and len(list((tmp_path / "x/Images").iterdir())) == 12
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
