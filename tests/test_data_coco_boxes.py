"""COCO's instances as prompts for boxes: what is read, and what is wrong with a row."""

import copy
import json
import re

import pytest
from data_cases import photo

from paligemma_lib.data import open_source
from paligemma_lib.data.sources.coco_boxes import box_rows
from paligemma_lib.data.sources.json_forms import USUAL
from paligemma_lib.data.sources.table_recognition import form_of_json
from paligemma_lib.regions import parse_regions

DATA = {
    "images": [
        {"id": 1, "file_name": "1.jpg", "width": 200, "height": 100},
        {"id": "b", "file_name": "2.jpg", "width": 10, "height": 10},
    ],
    "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "traffic  light"}],
    "annotations": [
        {"image_id": 1, "category_id": 7, "bbox": [20, 10, 60, 40]},
        {"image_id": 1, "category_id": 8, "bbox": [0, 0, 200, 100], "iscrowd": 0},
        {"image_id": 1, "category_id": 7, "bbox": [100.5, 0, 99.5, 100]},
        {"image_id": "b", "category_id": 7, "bbox": [-5, 5, 100, 3]},
    ],
}


def rows(change=None) -> list:
    data = copy.deepcopy(DATA)
    if change:
        change(data)
    return list(box_rows(json.dumps(data).encode(), USUAL))


def test_an_image_has_a_row_for_each_category():
    assert form_of_json(json.dumps(DATA).encode()) == "coco_boxes"
    found = {(row.image, row.prefix): parse_regions(row.caption) for row in rows()}
    assert list(found) == [
        ("1.jpg", "detect cat"),
        ("1.jpg", "detect traffic light"),
        ("2.jpg", "detect cat"),
    ]
    first, second = found["1.jpg", "detect cat"]
    assert first.box == pytest.approx((0.1, 0.1, 0.5, 0.4), abs=1e-3)
    assert second.box == pytest.approx((0, 0.5025, 1, 1), abs=1e-3)
    (outside,) = found["2.jpg", "detect cat"]
    assert outside.box == pytest.approx((0.5, 0, 0.8, 1), abs=1e-3)


def test_crowds_and_what_has_no_area_are_left_out():
    def change(data):
        data["annotations"][0]["iscrowd"] = 1
        data["annotations"][3]["bbox"] = [0, 0, 0, 5]

    found = [(row.image, row.prefix) for row in rows(change)]
    assert found == [("1.jpg", "detect traffic light"), ("1.jpg", "detect cat")]


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("annotations", 0), [], "annotation 1: .* is not an object"),
        (("annotations", 0, "image_id"), 9, "annotation 1: no image has the id 9"),
        (("annotations", 0, "category_id"), None, "annotation 1: no category has the id None"),
        (("annotations", 0, "bbox"), [1, 2, 3], "annotation 1: bbox is .*, expected left, top"),
        (("annotations", 0, "bbox"), [1, 2, "3", True], "annotation 1: bbox is"),
        (("annotations", 0, "bbox"), [1, 2, 3, 10**400], "annotation 1: bbox is"),
        (("annotations", 0, "bbox"), [1, 2, 3, float("inf")], "annotation 1: bbox is"),
        (("categories", 0, "name"), "a;b", "no category has the id 7, or it has no usable name"),
        (("images", 0, "width"), 0, "has no width and height"),
        (("images", 0, "file_name"), " ", "has no file_name"),
        (("images", 0, "id"), 1.5, "has no id"),
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


@pytest.mark.parametrize("name", ["images", "annotations", "categories"])
def test_what_is_no_list_is_an_error(name):
    with pytest.raises(ValueError, match=name):
        rows(lambda data: data.update({name: 5}))


def test_captions_stay_captions():
    captions = {"annotations": [{"image_id": 1, "caption": "a dog", "bbox": []}], "categories": []}
    assert form_of_json(json.dumps(captions).encode()) == "coco"


def test_a_file_of_instances_is_opened_with_its_images(tmp_path):
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(photo(1, form="JPEG"))
    (tmp_path / "_annotations.coco.json").write_text(json.dumps(DATA))
    source = open_source(str(tmp_path / "_annotations.coco.json"))
    found = source.read(range(3))
    assert [record.prefix for record in found] == [
        "detect cat",
        "detect traffic light",
        "detect cat",
    ]
    assert len({record.image_id for record in found}) == 3
