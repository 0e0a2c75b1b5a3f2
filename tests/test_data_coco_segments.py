"""COCO's masks as prompts, and the command that writes them as data that every run reads."""

import copy
import json
import re

import numpy as np
import pytest
from data_cases import photo
from mask_cases import square_arrays, write_codec

from paligemma_lib.cli import main
from paligemma_lib.data import open_source
from paligemma_lib.data.sources.coco_segments import segment_rows
from paligemma_lib.regions import MaskCodec, parse_regions

CODEC = MaskCodec(square_arrays())
FULL = (1,) * 16
DATA = {
    "images": [
        {"id": 1, "file_name": "1.jpg", "width": 200, "height": 100},
        {"id": 2, "file_name": "2.jpg", "width": 3, "height": 2},
    ],
    "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "traffic  light"}],
    "annotations": [
        # The box is that of the mask, whatever bbox says.
        {
            "image_id": 1,
            "category_id": 7,
            "bbox": [0, 0, 1, 1],
            "segmentation": [[20, 10, 80, 10, 80, 50, 20, 50]],
        },
        {"image_id": 1, "category_id": 8, "segmentation": [[0, 0, 200, 0, 200, 100, 0, 100]]},
        {"image_id": 1, "category_id": 7, "segmentation": [[100, 0, 300, 0, 300, 100, 100, 100]]},
        {
            "image_id": 2,
            "category_id": 7,
            "segmentation": {"size": [2, 3], "counts": [2, 4]},
            "iscrowd": 0,
        },
    ],
}


def rows(change=None) -> list:
    data = copy.deepcopy(DATA)
    if change:
        change(data)
    return list(segment_rows(json.dumps(data).encode(), CODEC))


def test_an_image_has_a_row_for_each_category():
    found = {(row.image, row.prefix): parse_regions(row.caption) for row in rows()}
    assert list(found) == [
        ("1.jpg", "segment cat"),
        ("1.jpg", "segment traffic light"),
        ("2.jpg", "segment cat"),
    ]
    first, second = found["1.jpg", "segment cat"]
    assert first.box == pytest.approx((0.1, 0.1, 0.5, 0.4), abs=1e-3)
    assert second.box == pytest.approx((0, 0.5, 1, 1), abs=1e-3)
    (small,) = found["2.jpg", "segment cat"]
    assert small.box == pytest.approx((0, 1 / 3, 1, 1), abs=1e-3)
    assert {region.mask for regions in found.values() for region in regions} == {FULL}


def test_crowds_and_what_has_no_pixel_are_left_out():
    def change(data):
        data["annotations"][0]["iscrowd"] = 1
        data["annotations"][0]["segmentation"] = {"size": [1, 1], "counts": [5]}  # not looked at
        data["annotations"][3]["segmentation"] = [[5, 5, 9, 5, 9, 9]]

    found = [(row.image, row.prefix) for row in rows(change)]
    assert found == [("1.jpg", "segment traffic light"), ("1.jpg", "segment cat")]


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("annotations", 0, "segmentation"), [[1, 2]], "annotation 1: a polygon is"),
        (("annotations", 3, "segmentation", "counts"), [7], "annotation 4: the counts of its RLE"),
        (("annotations", 0, "image_id"), 9, "annotation 1: no image has the id 9"),
        (("images", 0, "width"), 10**9, "annotation 1: its image is too large"),
        (("images", 0, "width"), 200.5, "annotation 1: its image is 200.5 x 100, not whole pixels"),
        (("images", 0, "width"), "200", "has no width and height"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(path, value, told):
    def change(data):
        *groups, last = path
        place = data
        for group in groups:
            place = place[group]
        place[last] = value

    problems = [row.problem for row in rows(change) if row.problem]
    assert re.search(told, problems[0])


def test_the_command_writes_data_with_prompts(tmp_path, capsys):
    codec = write_codec(tmp_path / "codec.npz", **square_arrays())
    table, out = tmp_path / "instances.json", tmp_path / "masks.jsonl"
    words = ["coco-masks", str(table), str(out), "--masks", str(codec)]
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(photo(1, form="JPEG"))
    table.write_text(json.dumps(DATA))
    assert main(words) == 0
    assert "3 prompts are in" in capsys.readouterr().out
    source = open_source(str(out))
    found = [(record.prefix, *record.captions) for record in source.read(range(len(source)))]
    assert found == [(row.prefix, row.caption) for row in rows()]

    damaged = copy.deepcopy(DATA)
    damaged["annotations"] += [{**DATA["annotations"][0], "segmentation": []}] * 7
    table.write_text(json.dumps(damaged))
    assert main(words) == 1  # something was skipped
    err = capsys.readouterr().err
    assert "skipped annotation 5: segmentation is []" in err and "7 were skipped" in err
    assert len(out.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("t.json x.jsonl", 2, "the codes of masks need --masks: gs://big_vision"),
        ("t.json x.json --masks c.npz", 2, "x.json: expected a name that ends in .jsonl"),
        ("t.json no/x.jsonl --masks c.npz", 1, "its folder does not exist; create it"),
        ("none.json x.jsonl --masks c.npz", 1, "none.json"),
        ("t.json x.jsonl --masks none.npz", 1, "none.npz"),
        ("t.json x.jsonl --masks c.npz", 1, "t.json has no mask that can be used"),
        ("broken.json x.jsonl --masks c.npz", 1, "broken.json, line 1 is not valid JSON"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(words, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_codec(tmp_path / "c.npz", **square_arrays())
    (tmp_path / "t.json").write_text(json.dumps({**DATA, "annotations": []}))
    (tmp_path / "broken.json").write_text("{")
    assert main(["coco-masks", *words.split()]) == code
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err
    assert not list(tmp_path.glob("x.*"))


def test_codes_are_those_of_the_masks():
    half = copy.deepcopy(DATA)
    half["annotations"] = [
        {
            "image_id": 1,
            "category_id": 7,
            # An L: the lower left quarter of its box is missing.
            "segmentation": [[0, 0, 64, 0, 64, 64, 32, 64, 32, 32, 0, 32]],
        }
    ]
    (row,) = segment_rows(json.dumps(half).encode(), CODEC)
    (region,) = parse_regions(row.caption)
    grid = np.reshape(region.mask, (4, 4))
    assert grid[:2].all() and grid[2:, 2:].all() and not grid[2:, :2].any()
