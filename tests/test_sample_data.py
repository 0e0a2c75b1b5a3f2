"""Tests of examples/sample_data.py: the folder, the scenes, their pictures and their captions."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import drawing
import labels
import numpy as np
import objects
import pytest
import sample_data
import scenes
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
COUNT = 400  # scenes looked at where no picture is drawn


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows(folder: Path) -> list[list[str]]:
    with open(folder / "captions.txt", newline="", encoding="ascii") as file:
        return list(csv.reader(file))


def captions_of(index: int, seed: int = 0) -> tuple[scenes.Scene, list[str]]:
    scene = sample_data.compose(seed, index)
    return scene, scenes.captions(scene, random.Random(f"{seed}/{index}/wording"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_data.write_scenes(tmp_path_factory.mktemp("data") / "scenes", count=12, seed=3)


# The folder.


def test_layout_is_kaggles(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"captions.txt", "Images"}
    header, *body = rows(folder)
    assert header == ["image", "caption"]
    names = [f"scene_{index:05d}.jpg" for index in range(12)]
    assert [name for name, _ in body] == [name for name in names for _ in range(5)]
    assert sorted(path.name for path in (folder / "Images").iterdir()) == names
    for name in names:
        with Image.open(folder / "Images" / name) as picture:
            assert picture.format == "JPEG"


def test_captions_txt_has_unix_line_ends_and_quotes_commas(folder: Path) -> None:
    text = (folder / "captions.txt").read_bytes()
    assert b"\r" not in text
    assert text.endswith(b"\n")
    body = text.decode("ascii").splitlines()[1:]
    with_commas = [line for line in body if line.count(",") > 1]
    assert with_commas
    assert all(re.fullmatch(r'scene_\d{5}\.jpg,"[^"]+"', line) for line in with_commas)


def test_captions_txt_tells_of_the_scenes_in_order(folder: Path) -> None:
    expected = [caption for index in range(12) for caption in captions_of(index, seed=3)[1]]
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


def test_other_seed_gives_other_pictures_and_captions(folder: Path, tmp_path: Path) -> None:
    other = contents(sample_data.write_scenes(tmp_path / "other", count=12, seed=4))
    this = contents(folder)
    assert other.keys() == this.keys()
    assert all(other[name] != this[name] for name in this)


@pytest.mark.parametrize("count", [0, -5])
def test_count_below_one_is_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, got {count}"):
        sample_data.write_scenes(tmp_path / "scenes", count=count)
    assert not list(tmp_path.iterdir())


def test_complete_folder_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sample_data.write_scenes(tmp_path / "scenes", count=2)
    monkeypatch.setattr(sample_data, "draw", None)  # drawing again would fail
    assert sample_data.write_scenes(folder, count=2) == folder


@pytest.mark.parametrize(("count", "seed"), [(3, 0), (1, 0), (2, 1)])
def test_folder_of_other_scenes_is_refused(tmp_path: Path, count: int, seed: int) -> None:
    folder = sample_data.write_scenes(tmp_path / "scenes", count=2, seed=0)
    before = contents(folder)
    with pytest.raises(FileExistsError, match=r"captions.txt is missing or differs.*another"):
        sample_data.write_scenes(folder, count=count, seed=seed)
    assert contents(folder) == before


def test_folder_with_a_picture_missing_is_refused(tmp_path: Path) -> None:
    folder = sample_data.write_scenes(tmp_path / "scenes", count=2)
    (folder / "Images" / "scene_00001.jpg").unlink()
    with pytest.raises(FileExistsError, match=r"1 pictures? .* Images/scene_00001.jpg"):
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
    monkeypatch.setattr(sample_data, "draw", draw)
    with pytest.raises(error):
        sample_data.write_scenes(tmp_path / "scenes", count=8, workers=1)
    assert not list(tmp_path.iterdir())


def test_killed_run_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    script = """
        import os, sys, sample_data
        sample_data.draw = lambda scene, rng: os._exit(9)
        sample_data.write_scenes(sys.argv[1], count=3)
    """
    script = "\n".join(line.strip() for line in script.splitlines())
    out = tmp_path / "scenes"
    run = subprocess.run([sys.executable, "-c", script, str(out)], cwd=EXAMPLES, timeout=60)
    assert run.returncode == 9
    assert not out.exists()
    assert sample_data.write_scenes(out, count=1) == out  # what is left is not in the way


def test_command_line(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(EXAMPLES / "sample_data.py"), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    done = run("new/scenes", "--count", "2", "--seed", "7")
    assert done.returncode == 0, done.stderr
    assert "2 pictures" in done.stdout
    expected = sample_data.write_scenes(tmp_path / "expected", count=2, seed=7)
    assert contents(tmp_path / "new" / "scenes") == contents(expected)
    refused = run("new/scenes", "--count", "0")
    assert refused.returncode == 2
    assert refused.stderr.endswith("error: count must be at least 1, got 0\n")


# The scenes and their pictures.


def test_scenes_vary() -> None:
    all_scenes = [sample_data.compose(0, index) for index in range(COUNT)]
    groups = [group for scene in all_scenes for group in scene.groups]
    assert {scene.background for scene in all_scenes} == set(drawing.BELOW)
    assert {group.kind for group in groups} == set(objects.OBJECTS)
    assert {group.colour for group in groups} == set(objects.PALETTE)
    assert {len(group.boxes) for group in groups} == {1, 2, 3, 4}
    assert {group.place for group in groups} == {"left", "middle", "right"}
    assert {len(scene.groups) for scene in all_scenes} == {1, 2, 3}
    small = sum(group.size == "small" for group in groups) / len(groups)
    assert 0.3 < small < 0.7


def test_a_few_are_greyscale_or_of_odd_sizes() -> None:
    all_scenes = [sample_data.compose(0, index) for index in range(1500)]
    assert 0.02 < np.mean([scene.greyscale for scene in all_scenes]) < 0.06
    shapes = np.array([(scene.width, scene.height) for scene in all_scenes])
    ratio = shapes[:, 0] / shapes[:, 1]
    usual = (ratio > 1.2) & (ratio < 1.6) & (shapes[:, 0] > 200)
    assert 0.85 < usual.mean() < 0.97
    assert ratio.min() < 0.8
    assert ratio.max() > 2.5
    assert shapes.min() < 100


def test_things_lie_inside_the_picture_and_hide_nothing() -> None:
    for index in range(COUNT):
        scene = sample_data.compose(0, index)
        boxes = np.array(
            [box for group in scene.groups for box in group.boxes]
            + [scene.detail_box] * (scene.detail in ("sun", "moon", "window"))
        )
        assert boxes.min() >= 0
        assert boxes.max() <= 1
        for i, (left, top, right, bottom) in enumerate(boxes):
            for other in boxes[:i]:
                apart = right <= other[0] or other[2] <= left
                assert apart or bottom <= other[1] or other[3] <= top, index


def test_things_stand_on_their_own_ground() -> None:
    for index in range(COUNT):
        scene = sample_data.compose(0, index)
        ashore = scene.horizon + (scenes.SHORE if scene.background == "beach" else 0)
        for group in scene.groups:
            for _, top, _, bottom in group.boxes:
                if group.kind in ("kite", "balloon"):
                    assert top < 0.25
                elif (group.kind, scene.background) == ("boat", "beach"):
                    assert scene.horizon < bottom < ashore
                else:
                    assert ashore < bottom, index


def test_large_things_are_clearly_larger_than_small_ones() -> None:
    heights: dict[tuple[str, str], list[float]] = {}
    for index in range(COUNT):
        scene = sample_data.compose(0, index)
        unit = min(1.0, 0.75 * scene.width / scene.height)
        for group in scene.groups:
            _, top, _, bottom = group.boxes[0]
            heights.setdefault((group.kind, group.size), []).append((bottom - top) / unit)
    for kind in objects.OBJECTS:
        assert min(heights[kind, "large"]) > 1.4 * max(heights[kind, "small"])


def test_picture_has_the_size_and_mode_of_its_scene() -> None:
    found = set()
    for index in range(80):
        scene = sample_data.compose(0, index)
        picture = drawing.draw(scene, random.Random(index))
        assert picture.size == (scene.width, scene.height)
        assert picture.mode == ("L" if scene.greyscale else "RGB")
        found.add(picture.mode)
    assert found == {"L", "RGB"}


@pytest.mark.parametrize("kind", sorted(objects.OBJECTS))
def test_things_are_drawn_in_their_box_and_colour(kind: str) -> None:
    box = (0.3, 0.3, 0.7, 0.8)
    names, palette = zip(*objects.PALETTE.items(), strict=True)
    for colour in names:
        group = scenes.Group(kind, colour, "large", (box,))
        empty = scenes.Scene(200, 150, False, "meadow", 0.5, "", (0, 0, 0.1, 0.1), ())
        full = dataclasses.replace(empty, groups=(group,))
        pixels = np.asarray(drawing.draw(full, random.Random(1)), float)
        before = np.asarray(drawing.draw(empty, random.Random(1)), float)
        drawn = np.abs(pixels - before).max(-1) > 40  # beyond the noise
        assert drawn[45:120, 60:140].mean() > 0.25
        drawn[43:124, 57:143] = False  # its box and its shadow
        assert not drawn.any()
        distance = np.linalg.norm(pixels[45:120, 60:140, None] - np.array(palette), axis=-1)
        near = [names[k] for k in distance.argmin(-1)[distance.min(-1) < 40]]
        assert near.count(colour) > 0.1 * 75 * 80


# The captions. Whatever is true of a scene is struck out of its captions until no word is left.

SIZES = {"small": ("small ", "little ", ""), "large": ("large ", "big ", "")}
NOUNS = {  # of one, of several; others add an s
    "child": [("child", "children"), ("kid", "kids")],
    "boat": [("boat", "boats"), ("sailboat", "sailboats")],
}
VERBS = {
    "ball": ("lies", "lie"),
    "house": ("stands", "stand"),
    "tree": ("grows", "grow"),
    "car": ("is parked", "are parked"),
    "dog": ("stands", "stand"),
    "child": ("stands", "stand"),
    "boat": ("sails", "sail"),
    "duck": ("swims", "swim"),
    "kite": ("flies", "fly"),
    "balloon": ("floats", "float"),
}
ON_LAND = {
    "meadow": ["on the grass", "in the grass"],
    "beach": ["on the sand"],
    "snow": ["in the snow", "on the snow"],
    "night": ["on the ground"],
    "room": ["on the floor"],
}
SETTINGS = {  # a background or a detail -> phrases
    "meadow": ["in a meadow", "in a field"],
    "beach": ["at the beach", "by the sea"],
    "sea": ["out at sea", "at sea"],
    "snow": ["on a snowy day", "in winter"],
    "night": ["at night", "in the dark"],
    "room": ["in a room", "indoors"],
    "sun": ["on a sunny day", "under the sun"],
    "clouds": ["on a cloudy day", "under the clouds"],
    "moon": ["under a full moon", "under the moon"],
    "window": ["in a room with a window"],
    "": [],
}


def true_names(scene: scenes.Scene, group: scenes.Group) -> list[str]:
    count, kind = len(group.boxes), group.kind
    sizes = ("tall ", "") if (kind, group.size) == ("child", "large") else SIZES[group.size]
    colour = "" if scene.greyscale else group.colour
    names = []
    for size in sizes:
        for noun in (nouns[count > 1] for nouns in NOUNS.get(kind, [(kind, f"{kind}s")])):
            name = f"{size}{colour} {noun}" if kind != "child" else f"{size}{noun} in {colour}"
            name = name.strip().replace("  ", " ").removesuffix(" in ").removesuffix(" in")
            article = "an" if name.startswith("orange") else "a"
            names.append(f"{[article, 'two', 'three', 'four'][count - 1]} {name}")
    return names


def true_statements(scene: scenes.Scene) -> Iterator[tuple[str, str]]:
    """Phrases with what is left when they are struck out. A group's name leaves its number."""
    for number, group in enumerate(scene.groups):
        yield from ((name, f"<{number}>") for name in true_names(scene, group))
    several = len(scene.groups[0].boxes) > 1
    yield "there are <0>" if several else "there is <0>", "<0>"
    for number, group in enumerate(scene.groups):
        flies, swims = group.kind in ("kite", "balloon"), group.kind in ("boat", "duck")
        yield f"<{number}> {VERBS[group.kind][len(group.boxes) > 1]}", f"<{number}>"
        if flies:
            places = ["in the air"] if scene.background == "room" else ["in the air", "in the sky"]
        else:
            places = ["on the water", "on the waves"] if swims else ON_LAND[scene.background]
        centre = np.mean([(box[0] + box[2]) / 2 for box in group.boxes])
        if centre < 0.45:
            places = ["at the top left" if flies else "on the left", *places]
        if centre > 0.55:
            places = ["at the top right" if flies else "on the right", *places]
        if 0.35 < centre < 0.65:
            places = [*places, "at the top" if flies else "in the middle"]
        yield from ((f"<{number}> {place}", f"<{number}>") for place in places)
    for (a, one), (b, other) in itertools.permutations(enumerate(scene.groups), 2):
        mine, its = np.array(one.boxes), np.array(other.boxes)
        if "kite" not in (one.kind, other.kind) and "balloon" not in (one.kind, other.kind):
            gap = its[:, 0].min() - mine[:, 2].max()
            if gap > 0:
                yield f"<{a}> to the left of <{b}>", ""
                yield f"<{b}> to the right of <{a}>", ""
            if 0 < gap < 0.25:
                yield f"<{a}> next to <{b}>", ""
                yield f"<{b}> next to <{a}>", ""
        over = mine[:, 0].min() < its[:, 2].max() and its[:, 0].min() < mine[:, 2].max()
        if over and mine[:, 3].max() < its[:, 1].min():
            yield f"<{a}> above <{b}>", ""
            yield f"<{b}> under <{a}>", ""
    for setting in SETTINGS[scene.detail] + SETTINGS[scene.background]:
        yield setting, ""


def untrue(scene: scenes.Scene, caption: str) -> str:
    """What no true statement accounts for."""
    rest = caption.lower().removesuffix(" .")
    for phrase, left in true_statements(scene):
        rest = re.sub(rf"(?<!\w){phrase}(?!\w)", left, rest)
    return re.sub(r"<\d>|\band\b|\bwith\b|,| ", "", rest)


def test_captions_are_true_in_every_word() -> None:
    for index in range(COUNT):
        scene, captions = captions_of(index)
        for caption in captions:
            assert not untrue(scene, caption), f"{caption!r} of {scene}"


@pytest.mark.parametrize(
    "caption",
    [
        "Two red balls and a house .",
        "Two blue balls .",
        "Three red balls .",
        "Two large red balls .",
        "Two red balls on the right .",
        "Two red balls lies on the grass .",
        "Two red balls lie on the grass to the right of a child in blue .",
        "Two red balls on a sunny day .",
        "Two red balls at the beach .",
        "There is two red balls in a field .",
    ],
)
def test_the_check_of_truth_finds_untruth(caption: str) -> None:
    balls = scenes.Group("ball", "red", "small", ((0.1, 0.8, 0.2, 0.9), (0.22, 0.8, 0.32, 0.9)))
    child = scenes.Group("child", "blue", "large", ((0.7, 0.5, 0.8, 0.9),))
    scene = scenes.Scene(320, 240, False, "meadow", 0.5, "", (0, 0, 1, 1), (balls, child))
    told = "In a field , two little red balls lie on the grass to the left of a tall kid in blue ."
    assert not untrue(scene, told)
    assert untrue(scene, caption)


def test_captions_of_greyscale_pictures_name_no_colour() -> None:
    told = [captions_of(index) for index in range(1500)]
    grey = [caption for scene, captions in told if scene.greyscale for caption in captions]
    assert grey
    colours = set(objects.PALETTE) | {"grey", "gray", "brown", "pink"}
    assert not [caption for caption in grey if colours & set(caption.lower().split())]


def test_captions_are_five_different_sentences_spaced_as_flickr8ks() -> None:
    for index in range(COUNT):
        _, captions = captions_of(index)
        assert len(set(captions)) == 5
        for caption in captions:
            assert re.fullmatch(r"[A-Z][a-z]*( [a-z]+| ,)* \.", caption)
            assert len(caption.split()) <= 40


def test_captions_differ_in_detail_and_seldom_repeat_between_pictures() -> None:
    told = [captions_of(index)[1] for index in range(COUNT)]
    lengths = np.array([sorted(len(caption.split()) for caption in five) for five in told])
    assert np.all(lengths[:, -1] >= 1.4 * lengths[:, 0])
    distinct = {caption for five in told for caption in five}
    assert len(distinct) > 0.9 * 5 * COUNT
    assert len({word for caption in distinct for word in caption.lower().split()}) < 150


# The other way of speaking.


def labels_of(index: int, seed: int = 0) -> tuple[scenes.Scene, list[str]]:
    scene = sample_data.compose(seed, index)
    return scene, labels.captions(scene, random.Random(f"{seed}/{index}/wording"))


def test_labels_are_five_different_ones_that_no_sentence_equals() -> None:
    for index in range(COUNT):
        _, told = labels_of(index)
        assert len(set(told)) == 5
        assert not set(told) & {caption.lower() for caption in captions_of(index)[1]}
        for label in told:
            assert re.fullmatch(r"[a-z]+( [a-z]+| [,.:])*", label)


def test_labels_have_every_word_of_the_sentences() -> None:
    """Whose embeddings would else be as they were at random, and frozen so."""
    spoken = {word for i in range(2000) for label in labels_of(i)[1] for word in label.split()}
    sentences = {word for i in range(2000) for told in captions_of(i)[1] for word in told.split()}
    assert {word.lower() for word in sentences} <= spoken


def test_labels_name_what_is_there_and_nothing_else() -> None:
    nouns = {word: kind for kind, forms in scenes.NOUNS.items() for pair in forms for word in pair}
    for index in range(COUNT):
        scene, told = labels_of(index)
        kinds = {group.kind for group in scene.groups}
        colours = {group.colour for group in scene.groups} if not scene.greyscale else set()
        for label in told:
            words = set(label.split())
            assert {nouns[word] for word in words & set(nouns)} <= kinds
            assert words & set(objects.PALETTE) <= colours


def test_the_folder_speaks_as_it_is_told_to(tmp_path: Path) -> None:
    folder = sample_data.write_scenes(tmp_path / "labels", 4, seed=3, wording="labels")
    assert [caption for _, caption in rows(folder)[1:]] == [
        label for index in range(4) for label in labels_of(index, seed=3)[1]
    ]
    with pytest.raises(ValueError, match="wording='songs', expected one of sentences, labels"):
        sample_data.write_scenes(tmp_path / "songs", 4, wording="songs")
