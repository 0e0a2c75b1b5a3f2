"""Prompts about drawn scenes: boxes and answers are true, and are data that the library reads."""

import json
import random

import numpy as np
import pytest
from mask_cases import square_arrays, write_codec

from paligemma_lib.cli import main
from paligemma_lib.data import open_source
from paligemma_lib.regions import MaskCodec, parse_regions, region_masks
from paligemma_lib.sample_data import compose, write_scenes
from paligemma_lib.sample_data.drawing import draw_masks
from paligemma_lib.sample_data.prompts import boxes, masks, questions
from paligemma_lib.sample_data.scenes import NOUNS

SCENES = [compose(5, index) for index in range(200)]
KINDS = {names[0][0]: kind for kind, names in NOUNS.items()}
CODEC = MaskCodec(square_arrays())
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


def test_masks_are_of_things_that_are_alone_of_their_kind():
    for number, scene in enumerate(SCENES[:60]):
        alone = [group for group in scene.groups if len(group.boxes) == 1]
        found = masks(scene, random.Random(number), CODEC)
        drawn = draw_masks(scene, random.Random(number))
        for (prefix, suffix), group in zip(found, alone, strict=True):
            (region,) = parse_regions(suffix)
            assert prefix == f"segment {region.label}" and KINDS[region.label] == group.kind
            mask = drawn[group.boxes[0]]
            rows, columns = np.nonzero(mask)
            sides = (scene.height, scene.width) * 2
            box = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
            assert region.box == pytest.approx(np.divide(box, sides), abs=1e-3)
            assert len(region.mask) == 16
            # The codec knows cells of 16 x 16 alone: most of a thing's cells are told from others.
            (again,) = region_masks([region], CODEC, height=scene.height, width=scene.width)
            assert (mask & again).sum() / (mask | again).sum() > 0.4


def test_the_command_writes_masks_of_the_images_that_it_writes(tmp_path, capsys):
    codec = write_codec(tmp_path / "vae-oid.npz", **square_arrays())
    folder = tmp_path / "masks"
    words = ["sample-data", str(folder), "--count", "6", "--seed", "5", "--wording", "masks"]
    assert main([*words, "--masks", str(codec)]) == 0
    assert "6 images with prompts and answers are in" in capsys.readouterr().out
    assert main([*words, "--masks", str(codec)]) == 0  # the same folder again
    lines = [json.loads(line) for line in (folder / "masks.jsonl").read_text().splitlines()]
    expected = [
        (f"scene_{index:05d}.jpg", *pair)
        for index in range(6)
        for pair in masks(SCENES[index], random.Random(f"5/{index}/drawing"), CODEC)
    ]
    assert [tuple(line.values()) for line in lines] == expected
    write_codec(codec, **square_arrays() | {"encoder.10.bias": np.ones(16, np.float32)})
    assert main([*words, "--masks", str(codec)]) == 1  # another codec, other codes
    assert "its masks.jsonl is missing or differs" in capsys.readouterr().err


def test_masks_need_a_codec_and_nothing_else_does(tmp_path, capsys):
    for words, message in (
        (["--wording", "masks"], "--wording masks needs --masks: gs://big_vision"),
        (["--masks", "vae-oid.npz"], "--masks has no effect without --wording masks"),
        (["--wording", "boxes", "--masks", "vae-oid.npz"], "--masks has no effect"),
    ):
        assert main(["sample-data", str(tmp_path / "x"), *words]) == 2
        assert message in capsys.readouterr().err
    absent = str(tmp_path / "none.npz")
    assert main(["sample-data", str(tmp_path / "x"), "--wording=masks", f"--masks={absent}"]) == 1
    assert "none.npz" in capsys.readouterr().err
    with pytest.raises(ValueError, match="wording='masks' with no codec: expected a codec with"):
        write_scenes(tmp_path / "x", 2, wording="masks")
    with pytest.raises(ValueError, match="wording='labels' with a codec: expected"):
        write_scenes(tmp_path / "x", 2, wording="labels", codec=CODEC)
    assert not list(tmp_path.iterdir())
