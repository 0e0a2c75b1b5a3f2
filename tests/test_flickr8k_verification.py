import json

import pytest

from flickr8k_tfds.caption_tables import Defect, Table
from flickr8k_tfds.image_checks import ImageFacts
from flickr8k_tfds.splitting import official_splits
from flickr8k_tfds.trees import DatasetError
from flickr8k_tfds.verification import Verification


def image(content: str, *remarks: str) -> ImageFacts:
    return ImageFacts(height=3, width=4, sha256=content, remarks=remarks)


def made(captions, kept, defects=(), strict=False) -> Verification:
    report = Verification("captions.txt", Table(captions, defects=list(defects)), strict)
    for split, name, found in kept:
        report.record(split, name, f"Images/{name}", found)
    return report


def test_counts():
    report = made(
        {"a.jpg": ["1", "2"], "b.jpg": ["3"], "c.jpg": ["4"]},
        [
            ("train", "a.jpg", image("A")),
            ("train", "b.jpg", image("B", "greyscale")),
            ("test", "c.jpg", image("C", "greyscale")),
        ],
    )
    summary = report.summary()
    assert summary["splits"] == {
        "train": {"images": 2, "captions": 3, "captions_per_image": {1: 1, 2: 1}},
        "test": {"images": 1, "captions": 1, "captions_per_image": {1: 1}},
    }
    assert summary["remarks"] == {"greyscale": ["b.jpg", "c.jpg"]}
    assert summary["flickr8k"] is None


def test_duplicates_and_what_is_shared_between_splits():
    report = made(
        {
            "a.jpg": ["Same .", "Same ."],
            "b.jpg": ["Same ."],
            "c.jpg": ["Other ."],
            "d.jpg": ["D ."],
        },
        [
            ("train", "a.jpg", image("A")),
            ("test", "b.jpg", image("A")),
            ("train", "c.jpg", image("C")),
            ("train", "d.jpg", image("D")),
        ],
    )
    summary = report.summary()
    assert summary["duplicate_rows"] == [{"image": "a.jpg", "caption": "Same .", "times": 2}]
    assert summary["identical_images"] == [
        {"images": ["a.jpg", "b.jpg"], "splits": ["test", "train"], "same_captions": False}
    ]
    assert summary["captions_in_several_splits"] == [
        {"caption": "Same .", "splits": ["test", "train"]}
    ]
    assert "1 groups, 1 with different captions, 1 in several splits" in report.text()


def test_what_was_left_out_is_listed_with_place_and_reason():
    row = Defect("captions.txt:7", "a.jpg,", "empty caption")
    report = made({"a.jpg": ["A ."]}, [("train", "a.jpg", image("A"))], [row])
    report.leave_out(Defect("Images/b.jpg", "b.jpg", "empty file"))
    assert json.loads(report.json())["left_out"] == [
        {"where": "captions.txt:7", "what": "a.jpg,", "why": "empty caption"},
        {"where": "Images/b.jpg", "what": "b.jpg", "why": "empty file"},
    ]
    assert "1 x empty file: Images/b.jpg" in report.text()


def test_strict_stops_at_the_first_defect():
    row = Defect("captions.txt:7", "a.jpg,", "empty caption")
    with pytest.raises(DatasetError, match="captions.txt:7: empty caption"):
        made({}, [], [row], strict=True)


def test_complete_and_incomplete_flickr8k():
    captions = {
        name: ["One .", "Two .", "Three .", "Four .", "Five ."] for name in official_splits()
    }
    kept = [(split, name, image(name)) for name, split in official_splits().items()]
    complete = made(captions, kept)
    assert complete.summary()["flickr8k"]["complete"]
    assert "Flickr8k is complete." in complete.text()

    _, lost, _ = kept.pop()
    found = made(captions, kept).summary()["flickr8k"]
    assert not found["complete"]
    assert (found["images"], found["captions"]) == (8090, 40450)
    assert found["missing_images"] == {"unused": [lost]}


def test_a_image_with_another_number_of_captions_makes_flickr8k_incomplete():
    captions = {name: ["1", "2", "3", "4", "5"] for name in official_splits()}
    few, many, *_ = captions
    captions[many].append(captions[few].pop())
    kept = [(split, name, image(name)) for name, split in official_splits().items()]
    report = made(captions, kept)
    found = report.summary()["flickr8k"]
    assert (found["captions"], found["complete"]) == (40455, False)
    assert found["images_without_five_captions"] == {few: 4, many: 6}
    assert f"not five captions: {few}, {many}" in report.text()


def test_what_was_not_written_is_not_called_missing():
    name, split = next(iter(official_splits().items()))
    report = made({name: ["1"], "b.jpg": ["2"], "c.jpg": ["3"]}, [(split, name, image("A"))])
    report.planned = [name, "b.jpg", "c.jpg"]
    report.leave_out(Defect("Images/b.jpg", "b.jpg", "empty file"))
    assert report.summary()["not_written"] == 1
    assert "not written, as requested: 1 images" in report.text()
    assert "complete" not in report.text()


def test_images_of_ones_own_say_nothing_of_flickr8k():
    assert "Flickr8k" not in made({"a.jpg": ["A ."]}, [("train", "a.jpg", image("A"))]).text()
