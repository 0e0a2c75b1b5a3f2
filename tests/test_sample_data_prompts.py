"""Prompts about drawn scenes: boxes and answers are true, and are data that the library reads."""

import random

import pytest

from paligemma_lib.cli import main
from paligemma_lib.data import open_source
from paligemma_lib.regions import parse_regions
from paligemma_lib.sample_data import compose, write_scenes
from paligemma_lib.sample_data.prompts import boxes, questions
from paligemma_lib.sample_data.scenes import NOUNS

SCENES = [compose(5, index) for index in range(200)]
KINDS = {names[0][0]: kind for kind, names in NOUNS.items()}
PLURALS = {names[0][1]: kind for kind, names in NOUNS.items()}


def test_boxes_are_those_of_the_scene_from_left_to_right():
    for scene in SCENES:
        for (prefix, suffix), group in zip(
            boxes(scene, random.Random(0)), scene.groups, strict=True
        ):
            noun = prefix.removeprefix("detect ")
            found = parse_regions(suffix)
            assert KINDS[noun] == group.kind
            assert {region.label for region in found} == {noun}
            for region, (left, top, right, bottom) in zip(found, sorted(group.boxes), strict=True):
                assert region.box == pytest.approx((top, left, bottom, right), abs=1e-3)


def test_answers_are_true():
    seen = set()
    for number, scene in enumerate(SCENES):
        groups = {group.kind: group for group in scene.groups}
        for prefix, answer in questions(scene, random.Random(number)):
            assert prefix.startswith("answer en ") and prefix.endswith("?")
            first, *rest = prefix.removeprefix("answer en ").rstrip("?").split()
            seen.add((first, answer))
            if first == "how":
                assert len(groups[PLURALS[rest[1]]].boxes) == int(answer)
            elif first == "is":
                assert (KINDS[rest[-1]] in groups) == (answer == "yes")
            else:
                group = groups[KINDS.get(rest[-1]) or PLURALS[rest[-1]]]
                assert answer == (group.place if first == "where" else group.colour)
    assert {("is", "yes"), ("is", "no"), ("how", "4"), ("where", "middle")} <= seen


def test_no_colour_is_asked_of_a_grey_scene():
    grey = [scene for scene in SCENES if scene.greyscale]
    assert grey
    for scene in grey:
        assert not any("colour" in prefix for prefix, _ in questions(scene, random.Random(0)))


@pytest.mark.parametrize("wording", ["boxes", "questions"])
def test_the_command_writes_data_with_prompts(tmp_path, capsys, wording):
    folder = tmp_path / wording
    words = ["sample-data", str(folder), "--count", "3", "--wording", wording]
    assert main(words) == 0
    assert "3 images with prompts and answers are in" in capsys.readouterr().out
    assert main(words) == 0  # the same folder again
    source = open_source(str(folder / f"{wording}.jsonl"))
    records = source.read(range(len(source)))
    assert len(records) > 3
    assert all(record.prefix and len(record.captions) == 1 for record in records)
    (folder / f"{wording}.jsonl").write_text("{}\n")
    with pytest.raises(FileExistsError, match=f"its {wording}.jsonl is missing or differs"):
        write_scenes(folder, 3, wording=wording)
