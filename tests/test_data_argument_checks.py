"""Numbers out of range, and what is no number, are an error that names the argument."""

import numpy as np
import pytest
from data_cases import photo, write_captions
from flickr8k_builds import IMAGES, build
from flickr8k_sources import kaggle_files, write_tree

import flickr8k_tfds
from paligemma_lib.data import (
    decode_image,
    eval_batches,
    from_tfds,
    from_tfrecords,
    open_source,
    order,
    pack,
    replace_corrupt,
    train_batches,
)
from paligemma_lib.data.sources import Mixture
from paligemma_lib.data.survey import record_shown
from paligemma_lib.sample_data import write_scenes
from paligemma_lib.testing import tiny_tokenizer

NAN, INF = float("nan"), float("inf")
NO_NUMBERS = (True, NAN, INF, "1", None, 1.5, 10**400, np.nan)
USUAL = {"image_size": 16, "text_len": 64, "batch_size": 4}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return from_tfrecords(write_captions(tmp_path_factory.mktemp("data"), 6))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("image_size", (0, -1, 1 << 15)),
        ("text_len", (0, -1, 1 << 21)),
        ("batch_size", (0, -1, 1 << 25)),
        ("process_count", (0, -1)),
        ("process_index", (-1, 1)),
        ("start_step", (-1, 1 << 62)),
        ("seed", (1 << 63, -(1 << 63) - 1)),
        ("min_crop_area", (0, -0.5, 1.5)),
    ],
)
def test_numbers_of_batches(source, name, wrong):
    for value in (*wrong, *NO_NUMBERS):
        if name == "min_crop_area" and value is True:
            continue
        options = {**USUAL, "seed": 0, name: value}
        with pytest.raises(ValueError, match=f"{name}="):
            train_batches(source, tiny_tokenizer(), **options)
        if name in USUAL:
            with pytest.raises(ValueError, match=f"{name}="):
                eval_batches(source, tiny_tokenizer(), **{**USUAL, name: value})


@pytest.mark.parametrize("value", [16, 16.0, np.int32(16), np.uint8(16), np.float32(16)])
def test_whole_numbers_of_any_type(source, value):
    (first, *_) = eval_batches(source, tiny_tokenizer(), **{**USUAL, "image_size": value})
    assert first["image"].shape[1:] == (16, 16, 3)
    assert decode_image(photo(0), value).shape == (16, 16, 3)


@pytest.mark.parametrize("seed", [-1, -(1 << 63), (1 << 63) - 1, np.int64(-5)])
def test_every_int64_is_a_seed(source, seed):
    first = next(train_batches(source, tiny_tokenizer(), seed=seed, **USUAL))
    again = next(train_batches(source, tiny_tokenizer(), seed=int(seed), **USUAL))
    np.testing.assert_array_equal(first["text"], again["text"])


@pytest.mark.parametrize("name", ["lowercase", "truncate", "apply_exif", "horizontal_flip"])
def test_switches(source, name):
    for value in ("false", 2, None):
        with pytest.raises(ValueError, match=f"{name}=.* expected True or False"):
            train_batches(source, tiny_tokenizer(), seed=0, **USUAL, **{name: value})
    train_batches(source, tiny_tokenizer(), seed=0, **USUAL, **{name: np.bool_(True)})


def test_other_arguments():
    for size in (0, *NO_NUMBERS):
        with pytest.raises(ValueError, match="size="):
            decode_image(photo(0), size)
    with pytest.raises(ValueError, match="dtype='float16'"):
        decode_image(photo(0), 8, dtype="float16")
    for length in (NAN, 1.5, "8", None, True):
        with pytest.raises(ValueError, match="text_len="):
            pack([2, 3], [[4, 1]], length)


def test_weights_of_a_mixture(source):
    for weight in (0, -1, NAN, INF, 1e300, True, "1", None):
        with pytest.raises(ValueError, match="the weight of a source="):
            Mixture((source,), (weight,), ("",))
    with pytest.raises(ValueError, match="the prompt of a source=3, expected text"):
        Mixture((source,), (1.0,), (3,))
    with pytest.raises(ValueError, match="a mixture has no sources"):
        Mixture((), (), ())


def test_a_part_of_a_mixture_without_records_is_told(source, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"image": "a.jpg", "suffix": "a"}')
    (tmp_path / "a.jpg").write_bytes(photo(0))
    parts = {part: open_source(str(tmp_path / "x.jsonl"), split=part) for part in ("train", "test")}
    empty = next(part for part in parts.values() if not len(part))
    with pytest.raises(ValueError, match="source 1 of a mixture has no records"):
        Mixture((source, empty), (1.0, 1.0), ("", "")).epoch_len()


def test_the_limit_of_damaged_records(source):
    for share in (-0.1, 1.1, NAN, "1", True):
        if share is not True:
            with pytest.raises(ValueError, match="max_corrupt="):
                replace_corrupt(source, max_corrupt=share)
    assert replace_corrupt(source, max_corrupt=0).max_corrupt == 0


def test_numbers_of_records(source):
    for number in (-1, 6, 1 << 70):
        with pytest.raises(ValueError, match=f"no record {number}: the data has 6, numbered from"):
            source.read([0, number])
    batches = train_batches(source, tiny_tokenizer(), seed=0, **USUAL)
    for step in (-1, 1 << 62, NAN):
        with pytest.raises(ValueError, match="step="):
            batches.texts(step)
    for number in (-1, 1 << 70, 1.5):
        with pytest.raises(ValueError, match="the number of a record="):
            record_shown({"": source}, tiny_tokenizer(), "caption en", number)


def test_numbers_of_the_order():
    examples = np.arange(3)
    for records in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="records="):
            order.record_numbers(examples, records=records, seed=0)
    for seed in (1 << 63, 0.5, NAN, True):
        with pytest.raises(ValueError, match="seed="):
            order.flipped(examples, seed=seed)
    with pytest.raises(ValueError, match="min_area="):
        order.crop_boxes(examples, min_area=NAN, seed=0)
    with pytest.raises(ValueError, match="process_count="):
        order.example_numbers(examples, batch_size=4, process_count=0)


def test_numbers_of_scenes(tmp_path):
    for name, wrong in {
        "count": (0, -1, 1 << 40, 1.5, True, NAN, "3", None),
        "seed": (1 << 63, 0.5, None, True),
        "workers": (-1, 1 << 20, 1.5),
    }.items():
        for value in wrong:
            with pytest.raises(ValueError, match=f"{name} is"):
                write_scenes(tmp_path / "x", **{"count": 1, name: value})
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "fractions",
    [
        {"train": True}, {"train": NAN}, {"train": INF, "test": 0}, {"train": "1"},
        {"train": None}, {"train": -0.5, "test": 1.5}, {}, [1.0],
    ],
)  # fmt: skip
def test_fractions_of_a_build(fractions):
    with pytest.raises(ValueError, match="fractions"):
        flickr8k_tfds.Config(name="x", fractions=fractions)


def test_the_side_of_a_build():
    for side in (True, 0, 4097, 1.5, NAN, "224"):
        with pytest.raises(ValueError, match="side is"):
            flickr8k_tfds.Config(name="x", side=side)


def test_a_split_without_records_is_told(tmp_path):
    build(write_tree(tmp_path / "in", kaggle_files(IMAGES)), tmp_path / "data")
    for split in ("train[:0]", "train[100%:]", "train[5:]"):
        with pytest.raises(ValueError, match="has no records|has no split"):
            len(from_tfds("flickr8k_tfds", split, data_dir=str(tmp_path / "data")))
