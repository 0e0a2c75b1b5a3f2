"""Data before a run: whether they are there and as they were built, whether captions fit."""

import json
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from data_cases import photo
from mask_cases import write_codec
from run_cases import setup_of, sources_of, write_run

import flickr8k_tfds
from paligemma_lib.data.sources import from_jsonl
from paligemma_lib.run import checks
from paligemma_lib.run.config import SPLITS
from paligemma_lib.run.data_checks import check_sample


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def setup(tiny, tmp_path):
    return lambda **changes: setup_of(tiny, **{"workdir": str(tmp_path / "run")} | changes)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A data set as flickr8k_tfds builds it."""
    folder = tmp_path_factory.mktemp("built")
    dummy = Path(flickr8k_tfds.__file__).parent / "dummy_data"
    builder = flickr8k_tfds.Builder(data_dir=folder)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=dummy))
    return folder


def test_data_that_is_not_there_or_empty(setup, tiny, tmp_path):
    sources = sources_of(tiny)
    with pytest.raises(FileNotFoundError, match="no.jsonl"):
        checks.data(setup(given={**sources, "train": from_jsonl(tmp_path / "no.jsonl")}))
    with pytest.raises(FileNotFoundError, match="no.jsonl"):
        checks.data(setup(data={"kind": "jsonl", "train": str(tmp_path / "no.jsonl")}))
    with pytest.raises(ValueError, match="train: there are no images in"):
        checks.data(setup(given={**sources, "train": ()}))
    with pytest.raises(ValueError, match="there is no source for train, validation, test"):
        checks.data(setup(given={}))
    with pytest.raises(ValueError, match="there is no source for test"):
        checks.data(setup(given={"train": sources["train"], "validation": sources["train"]}))
    drawn = setup(data={"kind": "sample", "name": "40", **dict(zip(SPLITS, SPLITS, strict=True))})
    assert checks.data(drawn) == "40 images, to be drawn"
    assert checks.texts(drawn) == "not checked yet: the data or the tokenizer does not exist"


@pytest.mark.parametrize("field", SPLITS)
def test_a_split_that_will_not_be_drawn_is_told_before(setup, field):
    splits = {"train": "train[:20]+train[30:]", "validation": "val", "test": "test"}
    checks.data(setup(data={"kind": "sample", "name": "40", **splits}))
    with pytest.raises(ValueError, match=f"data.{field}='misspelt': .* no such split"):
        checks.data(setup(data={"kind": "sample", "name": "40", **splits, field: "misspelt"}))


def test_a_tokenizer_that_is_to_come_reads_no_captions_yet(setup):
    made = {"checkpoint": "", "tokenizer": "", "vocab_size": 300}
    assert (
        checks.texts(setup(model=made, text_len=8))
        == "not checked yet: the data or the tokenizer does not exist"
    )


def copied(built, folder):
    """A copy of the data set: the changes of a config that name it, and the folder of its files."""
    (source,) = built.glob("flickr8k_tfds/original/*")
    place = folder / source.relative_to(built)
    place.mkdir(parents=True)
    for file in source.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    splits = dict.fromkeys(SPLITS, "train")
    data = {"kind": "tfds", "name": "flickr8k_tfds", "dir": str(folder), **splits}
    return {"data": data}, place


def test_a_data_set_is_compared_with_what_was_built(setup, built, tmp_path):
    changes, place = copied(built, tmp_path / "data")
    assert "left out when it was built" in checks.data(setup(**changes))
    info = json.loads((place / "dataset_info.json").read_text())
    info["splits"][0]["numBytes"] = str(int(info["splits"][0]["numBytes"]) + 1)
    (place / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="bytes, but had .* when it was built"):
        checks.data(setup(**changes))


def test_a_report_of_another_build(setup, built, tmp_path):
    changes, place = copied(built, tmp_path / "data")
    report = json.loads((place / "verification.json").read_text())
    report["splits"]["train"]["images"] += 1
    (place / "verification.json").write_text(json.dumps(report))
    with pytest.raises(ValueError, match="from different builds"):
        checks.data(setup(**changes))


@pytest.mark.parametrize(
    "report", ["{}", "no JSON", "[" * 100_000, '{"splits": 3}', "1" * 9_999, b"\xff"]
)
def test_a_damaged_report_is_put_aside(setup, built, tmp_path, report, caplog):
    changes, place = copied(built, tmp_path / "data")
    report = report if isinstance(report, bytes) else report.encode()
    (place / "verification.json").write_bytes(report)
    assert checks.data(setup(**changes)).endswith(" images")
    assert (place / "verification.json.damaged").read_bytes() == report
    assert not (place / "verification.json").exists()
    assert "verification.json.damaged: no verification report" in caplog.text


def test_a_data_set_without_a_report_is_only_counted(setup, built, tmp_path):
    changes, place = copied(built, tmp_path / "data")
    (place / "verification.json").unlink()
    assert checks.data(setup(**changes)).endswith(" images")


def test_captions_that_do_not_fit(setup, tiny):
    with pytest.raises(ValueError, match=r"image 1\d.png .*text_len is 8"):
        checks.texts(setup(text_len=8))
    assert checks.texts(setup(text_len=8, truncate=True)).startswith("cut to 8 tokens")
    found = setup()
    needed = max(each.tokens for each in found.longest_texts.values())
    assert checks.texts(found) == f"captions of 24 images need {needed} of 32 tokens"


def test_one_caption_at_a_time_needs_fewer_slots(setup, tmp_path):
    line = {"image": "x.png", "suffix": ["a dog runs over the snow"] * 3}
    (tmp_path / "three.jsonl").write_text(json.dumps(line))
    (tmp_path / "x.png").write_bytes(photo(0))
    given = {"train": from_jsonl(tmp_path / "three.jsonl")}
    assert "of 32 tokens" in checks.texts(setup(given=given, captions="sample"))
    with pytest.raises(ValueError, match="text_len is 32"):
        checks.texts(setup(given=given, captions="packed"))


def test_images_without_captions_are_nothing_to_learn_from(setup, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(photo(number))
    (tmp_path / "bare.jsonl").write_text(
        "".join(f'{{"image": "{number}.png"}}\n' for number in range(3))
    )
    source = from_jsonl(tmp_path / "bare.jsonl")
    with pytest.raises(ValueError, match="train: none of 3 records has a caption; the first is"):
        check_sample("train", source)
    (tmp_path / "1.png").write_bytes(photo(1)[:100])
    with pytest.raises(ValueError, match="test: image 1.png .*line 2.* is not a complete JPEG"):
        check_sample("test", source)


def test_one_intact_image_is_enough_where_damaged_ones_are_replaced(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(photo(number) if number == 1 else b"damaged")
    lines = (f'{{"image": "{number}.png", "suffix": "a"}}\n' for number in range(3))
    (tmp_path / "three.jsonl").write_text("".join(lines))
    source = from_jsonl(tmp_path / "three.jsonl")
    check_sample("train", source, replace=True)
    (tmp_path / "1.png").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="train: image 2.png .*line 3.* is not a complete JPEG"):
        check_sample("train", source, replace=True)


def test_boxes_are_scored_where_some_test_image_has_one(setup, tiny, tmp_path):
    (tmp_path / "1.png").write_bytes(photo(1))
    sources = sources_of(tiny)
    box = "<loc0000><loc0000><loc0500><loc0500> dog"

    def detect(*texts: tuple[int, str], task="detect", **changes):
        rows = [{"image": "1.png", "prefix": f"detect {k}", "suffix": t} for k, t in texts]
        (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
        given = {**sources, "test": from_jsonl(tmp_path / "test.jsonl")}
        return checks.data(setup(given=given, task=task, **changes))

    texts = [*enumerate(["none"] * 20), (20, box)]
    assert "test 21 images" in detect(*texts)
    with pytest.raises(ValueError, match="none of 20 images has a text with a box, .*line 1"):
        detect(*texts, test_images=20)
    with pytest.raises(ValueError, match="none of 2 images has a text with a box"):
        detect(*texts[:2])
    masks = {"task": "segment", "masks": str(write_codec(tmp_path / "vae.npz"))}
    with pytest.raises(ValueError, match="none of 21 images has a text with a mask"):
        detect(*texts, **masks)
    codes = "".join(f"<seg{k:03d}>" for k in range(16))
    assert "test 22 images" in detect(*texts, (21, box.replace(" ", codes + " ")), **masks)
    with pytest.raises(FileNotFoundError, match="absent.npz"):
        detect(*texts, task="segment", masks="absent.npz")
