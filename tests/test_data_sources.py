import shutil
from pathlib import Path

import numpy as np
import pytest
from data_cases import (
    caption_example,
    captions_of,
    example,
    photo,
    write_captions,
    write_tfrecord,
)

from paligemma_lib.data import from_tfds, from_tfrecords


def test_records_have_image_captions_and_id(tmp_path):
    source = from_tfrecords(write_captions(tmp_path, 12))
    assert len(source) == 12
    for number, record in zip((11, 0, 7), source.read([11, 0, 7]), strict=True):
        assert record.image == photo(number)
        assert record.captions == tuple(captions_of(number))
        assert record.image_id == f"{number}.png"
        assert record.prefix is None


def test_features_may_have_other_names_and_be_one_text_or_numbers(tmp_path):
    features = {"jpeg": [b"image"], "text": [b"A dog ."], "id": [17], "question": [b"what?"]}
    path = write_tfrecord(tmp_path / "a", [example(features)])
    source = from_tfrecords(path, image="jpeg", captions="text", image_id="id", prefix="question")
    (record,) = source.read([0])
    assert record.captions == ("A dog .",)
    assert record.image_id == "17"
    assert record.prefix == "what?"


def test_remote_record_files():
    source = from_tfrecords(write_captions("ram://sources", 5))
    assert [record.image_id for record in source.read([4, 2])] == ["4.png", "2.png"]


def test_making_a_source_reads_nothing():
    source = from_tfrecords("/nowhere/*.tfrecord")
    with pytest.raises(FileNotFoundError, match=r"no file matches /nowhere/\*.tfrecord"):
        len(source)
    with pytest.raises(FileNotFoundError, match="no file matches"):
        source.read([0])


def test_equal_arguments_make_equal_sources():
    assert from_tfrecords("a") == from_tfrecords("a")
    assert from_tfrecords("a") != from_tfrecords("b")
    assert from_tfrecords("a") != from_tfrecords("a", captions="text")
    assert from_tfds("a", "train") == from_tfds("a", split="train")
    assert len({from_tfds("a", "train"), from_tfds("a", "train"), from_tfds("a", "test")}) == 2


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"\xff\xff\xff", "a, record 1 cannot be used"),
        (
            example({"image": [b"x"], "image_id": [b"y"]}),
            "no feature captions or .*, only image, image_id. Name the one that holds the captions",
        ),
        (
            example({"image": [], "image_id": [b"y"], "captions": [b"z"]}),
            "a, record 1 cannot be used: its feature 'image' has 0 values, expected one",
        ),
        (
            example({"image": [b"x"], "image_id": [b"y"], "captions": [b"caf\xe9"]}),
            "a, record 1 cannot be used: line 1 is not UTF-8",
        ),
    ],
    ids=["no message", "no captions", "no image", "not UTF-8"],
)
def test_a_record_that_cannot_be_used_raises_with_its_place(tmp_path, record, message):
    source = from_tfrecords(write_tfrecord(tmp_path / "a", [caption_example(0), record]))
    assert source.read([0])
    with pytest.raises(ValueError, match=message):
        source.read([1])


tfds = pytest.importorskip("tensorflow_datasets")


def test_a_data_set_that_tfds_does_not_know_is_told_in_a_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no_such_set is not prepared in .*: run") as caught:
        len(from_tfds("no_such_set", "train", data_dir=str(tmp_path)))
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


class NestedCaptions(tfds.core.GeneratorBasedBuilder):
    """Images and captions in the features of TFDS's coco_captions."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(),
            "image/filename": tfds.features.Text(),
            "captions": tfds.features.Sequence({"text": tfds.features.Text()}),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 20), "test": self._generate_examples(20, 24)}

    def _generate_examples(self, first, last):
        for number in range(first, last):
            yield (
                number,
                {
                    "image": photo(number),
                    "image/filename": f"{number}.png",
                    "captions": [{"text": caption} for caption in captions_of(number)],
                },
            )


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def data_dir(request, tmp_path_factory):
    """Where TFDS has `nested_captions`."""
    folder = tmp_path_factory.mktemp("tfds")
    builder = NestedCaptions(data_dir=folder, file_format=request.param)
    config = tfds.download.DownloadConfig(num_shards=3)
    builder.download_and_prepare(download_config=config)
    return str(folder)


def nested(data_dir, split, name="nested_captions"):
    return from_tfds(
        name, split, data_dir=data_dir, captions="captions/text", image_id="image/filename"
    )


def test_tfds_data_sets_are_read_by_number(data_dir):
    source = nested(data_dir, "train")
    assert len(source) == 20
    numbers = [int(record.image_id.removesuffix(".png")) for record in source.read(range(20))]
    assert sorted(numbers) == list(range(20))
    for record, number in zip(source.read([19, 3, 8]), np.take(numbers, [19, 3, 8]), strict=True):
        assert record.image == photo(number)
        assert record.captions == tuple(captions_of(number))


def test_slices_and_sums_of_splits(data_dir):
    ids = {
        split: [r.image_id for r in nested(data_dir, split).read(range(n))]
        for split, n in (
            ("train", 20),
            ("train[:12]", 12),
            ("train[12:]", 8),
            ("train[50%:]+test", 14),
            ("train[:2]+train[18:]", 4),
        )
    }
    train = ids["train"]
    assert ids["train[:12]"] + ids["train[12:]"] == train
    assert ids["train[50%:]+test"][:10] == train[10:]
    assert ids["train[:2]+train[18:]"] == [*train[:2], *train[18:]]
    assert len(nested(data_dir, "train[:12]")) == 12


def test_a_prepared_folder_does_instead_of_a_name(data_dir):
    folder = f"{data_dir}/nested_captions/1.0.0"
    assert len(nested(None, "test", name=folder)) == 4


def test_an_unknown_split_raises_with_those_there_are(data_dir):
    with pytest.raises(ValueError, match=r"has no split 'dev'; it has \['test', 'train'\]"):
        len(nested(data_dir, "dev"))


def test_files_that_do_not_match_the_description_raise(data_dir, tmp_path):
    folder = Path(data_dir, "nested_captions", "1.0.0")
    shards = sorted(path.name for path in folder.glob("nested_captions-train.*"))
    renamed = dict(zip(shards, [*shards[1:], shards[0]], strict=True))  # they differ in length
    for path in folder.iterdir():
        shutil.copy(path, tmp_path / renamed.get(path.name, path.name))
    with pytest.raises(ValueError, match=r"holds \d records, dataset_info.json says \d: build"):
        len(nested(None, "train", name=str(tmp_path)))


def test_numbers_may_be_numpys(tmp_path):
    source = from_tfrecords(write_captions(tmp_path, 4))
    assert source.read(np.array([3]))[0].image_id == "3.png"
