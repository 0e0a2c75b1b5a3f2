import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from flickr8k_sources import (
    TEST,
    TRAIN,
    VALIDATION,
    exif_rotated,
    kaggle_files,
    picture,
    token_table,
    write_tree,
    write_zip,
)
from PIL import Image

import flickr8k_tfds
from flickr8k_tfds.files import DatasetError
from flickr8k_tfds.layout import NothingFoundError

ROOT = Path(flickr8k_tfds.__file__).parents[1]
SKIP = {"image": tfds.decode.SkipDecoding()}


class BuilderTest(tfds.testing.DatasetBuilderTestCase):
    """TFDS's own checks, on the dummy data."""

    DATASET_CLASS = flickr8k_tfds.Builder
    BUILDER_CONFIG_NAMES_TO_TEST = ("original", "square224", "square448")
    SPLITS = {"train": 3, "validation": 1, "test": 1, "unused": 1}  # noqa: RUF012


def build(manual_dir, data_dir, config=None, file_format=None, **options):
    builder = flickr8k_tfds.Builder(data_dir=data_dir, config=config, file_format=file_format)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir, **options)
    )
    return builder


def examples(builder, split="all"):
    """Undecoded examples by image_id."""
    data = tfds.as_numpy(builder.as_dataset(split=split, decoders=SKIP))
    return {example["image_id"].decode(): example for example in data}


def report_of(builder):
    return json.loads((builder.data_path / "verification.json").read_text())


PICTURES = {
    TRAIN: picture("red"),
    VALIDATION: picture("green", size=(12, 16)),
    TEST: picture(128, mode="L"),
}


def test_examples_hold_the_files_bytes_and_all_captions_in_order(tmp_path):
    captions = {name: ["First , of two .", 'Second "one" .'] for name in PICTURES}
    source = write_tree(tmp_path / "in", kaggle_files(PICTURES, captions))
    builder = build(source, tmp_path / "data")
    for split, name in [("train", TRAIN), ("validation", VALIDATION), ("test", TEST)]:
        (example,) = examples(builder, split).values()
        assert example["image_id"].decode() == name
        assert example["image"] == PICTURES[name]
        assert [c.decode() for c in example["captions"]] == captions[name]
    assert (example["height"], example["width"]) == (12, 16)


def test_decoded_pictures_have_three_channels(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files({TEST: PICTURES[TEST]}))
    build(source, tmp_path / "data")
    (example,) = tfds.load("flickr8k_tfds", data_dir=tmp_path / "data", split="test")
    assert example["image"].shape == (12, 16, 3)


def test_every_form_gives_the_same_examples(tmp_path):
    captions = {name: ["First .", "Second ."] for name in PICTURES}
    kaggle = kaggle_files(PICTURES, captions)
    uiuc = {
        "Flickr8k.token.txt": token_table(captions),
        **{f"Flicker8k_Dataset/{name}": data for name, data in PICTURES.items()},
    }
    forms = [
        write_tree(tmp_path / "kaggle", kaggle),
        write_zip(tmp_path / "kaggle.zip", kaggle),
        write_tree(tmp_path / "uiuc", uiuc),
        write_zip(tmp_path / "uiuc.zip", uiuc),
    ]
    built = [examples(build(form, tmp_path / f"data{i}")) for i, form in enumerate(forms)]
    for other in built[1:]:
        for name in PICTURES:
            np.testing.assert_equal(other[name], built[0][name])


def test_array_record_holds_the_same_examples(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files(PICTURES))
    record = build(source, tmp_path / "data", file_format="tfrecord")
    array = build(source, tmp_path / "array", file_format="array_record")
    for split, name in [("train", TRAIN), ("validation", VALIDATION), ("test", TEST)]:
        (example,) = array.as_data_source(split=split, decoders=SKIP)
        np.testing.assert_equal(example, examples(record)[name])


def own_pictures(count: int) -> dict[str, bytes]:
    return {f"own{i:03}.png": picture((i, 0, 0), form="PNG") for i in range(count)}


def split_of(builder) -> dict[str, str]:
    return {name: split for split in builder.info.splits for name in examples(builder, split)}


def test_own_pictures_keep_their_split_when_others_come(tmp_path):
    few = build(write_tree(tmp_path / "few", kaggle_files(own_pictures(40))), tmp_path / "1")
    many = build(write_tree(tmp_path / "many", kaggle_files(own_pictures(60))), tmp_path / "2")
    assert set(split_of(few).values()) == {"train", "validation", "test"}
    assert split_of(few).items() <= split_of(many).items()


def test_identical_pictures_fall_on_one_side(tmp_path):
    pictures = {f"copy{i}.jpg": picture() for i in range(20)}
    builder = build(write_tree(tmp_path / "in", kaggle_files(pictures)), tmp_path / "data")
    assert len(set(split_of(builder).values())) == 1


def test_fractions_are_configurable_and_the_data_loads_by_the_configs_name(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files(own_pictures(30)))
    config = flickr8k_tfds.Config(name="recipe", fractions={"train": 0.8, "validation": 0.2})
    built = build(source, tmp_path / "data", config=config)
    assert set(built.info.splits) == {"train", "validation"}
    loaded = tfds.builder("flickr8k_tfds/recipe", data_dir=tmp_path / "data")
    assert loaded.info.splits["train"].num_examples > loaded.info.splits["validation"].num_examples


def test_shards_and_slices(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files(own_pictures(30)))
    config = flickr8k_tfds.Config(name="one", fractions={"train": 1.0})
    builder = build(source, tmp_path / "data", config=config, num_shards=3)
    assert builder.info.splits["train"].num_shards == 3
    halves = [examples(builder, "train[:50%]"), examples(builder, "train[50%:]")]
    assert len(halves[0]) == len(halves[1]) == 15
    assert not halves[0].keys() & halves[1].keys()


def test_square_configs_keep_png_of_that_side(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files(PICTURES))
    for side in (224, 448):
        builder = build(source, tmp_path / "data", config=f"square{side}")
        example = examples(builder)[TRAIN]
        image = Image.open(io.BytesIO(example["image"]))
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (side, side))
        assert (example["height"], example["width"]) == (12, 16)


def test_bad_files_are_left_out_and_reported_and_the_rest_is_built(tmp_path):
    good = {
        TRAIN: picture(),
        "grey.jpg": picture(5, mode="L"),
        "cmyk.jpg": picture((1, 2, 3, 4), mode="CMYK"),
        "rotated.jpg": exif_rotated(),
        "png.jpg": picture("blue", form="PNG"),
    }
    bad = {
        "truncated.jpg": picture(size=(200, 200))[:-60],
        "empty.jpg": b"",
        "text.jpg": b"not a picture",
        "huge.png": picture(0, size=(20_000, 20_000), mode="1", form="PNG"),
    }
    captions = {name: ["A caption ."] for name in (*good, *bad, "nowhere.jpg")}
    files = kaggle_files({**good, **bad, "uncaptioned.jpg": picture()}, captions)
    files["captions.txt"] += b"grey.jpg,\n\nshort\n"
    builder = build(write_tree(tmp_path / "in", files), tmp_path / "data")
    assert {name: e["image"] for name, e in examples(builder).items()} == good
    report = report_of(builder)
    why = {defect["what"]: defect["why"] for defect in report["left_out"]}
    nowhere = "nowhere.jpg: A caption ."
    assert why.keys() == {*bad, nowhere, "uncaptioned.jpg", "grey.jpg,", "", "short"}
    assert why[nowhere] == "caption without picture"
    assert why["uncaptioned.jpg"] == "picture without caption"
    assert report["remarks"].keys() == {
        "greyscale",
        "CMYK",
        "rotated by EXIF, which is ignored",
        "PNG content in a .jpg file",
    }


def test_the_report_is_printed_and_a_name_that_is_not_text_does_no_harm(tmp_path, capsys):
    source = write_tree(tmp_path / "in", kaggle_files({TRAIN: picture()}))
    os.rename(
        write_tree(tmp_path, {"odd": picture()}) / "odd",
        os.fsencode(source) + b"/Images/caf\xe9.jpg",
    )
    builder = build(source, tmp_path / "data")
    assert list(examples(builder)) == [TRAIN]
    printed = capsys.readouterr().out
    assert "1 x picture without caption: Images/caf\\udce9.jpg" in printed
    assert "1 pictures       1 captions  (1 with 1)" in printed


def test_some_examples_only(tmp_path, capsys):
    source = write_tree(tmp_path / "in", kaggle_files(own_pictures(9)))
    config = flickr8k_tfds.Config(name="one", fractions={"train": 1.0})
    builder = build(source, tmp_path / "data", config=config, max_examples_per_split=2)
    assert len(examples(builder)) == 2
    assert report_of(builder)["not_read"] == 7
    nothing = flickr8k_tfds.Config(name="none", fractions={"train": 1.0})
    build(source, tmp_path / "data", config=nothing, max_examples_per_split=0)


def test_a_zip_bomb_among_the_pictures_is_left_out(tmp_path):
    files = kaggle_files({TRAIN: picture(), "bomb.jpg": bytes(65 << 20)})
    builder = build(write_zip(tmp_path / "in.zip", files), tmp_path / "data")
    assert list(examples(builder)) == [TRAIN]
    assert report_of(builder)["left_out"][0]["why"] == "larger than the limit of 64 MiB"


@pytest.mark.parametrize("name", ["../../x.jpg", "/x.jpg"])
@pytest.mark.parametrize("where", ["table", "zip"])
def test_a_path_that_escapes_stops_the_build(tmp_path, name, where):
    files = kaggle_files({TRAIN: picture()})
    if where == "zip":
        source = write_zip(tmp_path / "in.zip", {**files, name: picture()})
    else:
        files["captions.txt"] += f"{name},A dog .\n".encode()
        source = write_tree(tmp_path / "in", files)
    with pytest.raises(DatasetError, match="points outside"):
        build(source, tmp_path / "data")
    assert not list((tmp_path / "data").glob("**/*.tfrecord*"))


def test_a_split_whose_pictures_are_all_bad_is_left_away(tmp_path):
    files = kaggle_files({TRAIN: picture(), TEST: b""})
    assert set(build(write_tree(tmp_path / "in", files), tmp_path / "data").info.splits) == {
        "train"
    }


def test_when_nothing_usable_remains_it_stops_and_says_why(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files({TRAIN: b"", TEST: b"x"}))
    with pytest.raises(DatasetError, match=r"Nothing usable remains(.|\n)*1 x not a picture"):
        build(source, tmp_path / "data")


def test_strict_stops_at_the_first_bad_picture(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files({TRAIN: picture(), TEST: b""}))
    with pytest.raises(DatasetError, match="empty file.*The build is strict"):
        build(source, tmp_path / "data", config=flickr8k_tfds.Config(name="s", strict=True))


def test_a_folder_with_something_else_says_what_was_found(tmp_path):
    write_tree(tmp_path / "in", {"notes.txt": b""})
    with pytest.raises(NothingFoundError, match="found notes.txt"):
        build(tmp_path / "in", tmp_path / "data")


@pytest.mark.parametrize("given", ["not given", "empty"])
def test_without_data_it_comes_from_kaggle(tmp_path, monkeypatch, given):
    import kagglehub

    source = write_tree(tmp_path / "in", kaggle_files(PICTURES))
    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: str(source))
    (tmp_path / "empty").mkdir()
    builder = build(None if given == "not given" else tmp_path / given, tmp_path / "data")
    assert examples(builder).keys() == PICTURES.keys()


def test_bad_configs():
    with pytest.raises(ValueError, match="must add up to 1"):
        flickr8k_tfds.Config(name="bad", fractions={"train": 0.5})
    for side in (0, "224"):
        with pytest.raises(ValueError, match="side is"):
            flickr8k_tfds.Config(name="bad", side=side)
    with pytest.raises(ValueError, match="strict is 'false'"):
        flickr8k_tfds.Config(name="bad", strict="false")


def tfds_build(manual_dir, data_dir, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "tensorflow_datasets.scripts.cli.main", "build", "flickr8k_tfds"]
        + [f"--manual_dir={manual_dir}", f"--data_dir={data_dir}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize("moment", np.linspace(0, 1, 4))
def test_a_build_killed_at_any_moment_leaves_nothing_that_loads(tmp_path, moment):
    rng = np.random.default_rng(0)
    noise = {}
    for i in range(300):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (200, 200, 3), np.uint8)).save(buffer, "PNG")
        noise[f"noise{i:03}.png"] = buffer.getvalue()
    source = write_tree(tmp_path / "in", kaggle_files(noise))
    data = tmp_path / "data"
    process = tfds_build(source, data)
    while not list(data.glob("flickr8k_tfds/original/*")) and process.poll() is None:
        time.sleep(0.005)
    time.sleep(4.0 * moment)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    builder = flickr8k_tfds.Builder(data_dir=data)
    if builder.is_prepared():
        assert len(examples(builder)) == 300
    else:
        with pytest.raises(AssertionError, match="not found|not find|Failed"):
            builder.as_dataset()
    assert tfds_build(source, data).wait() == 0
    assert len(examples(flickr8k_tfds.Builder(data_dir=data))) == 300


@pytest.mark.slow
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files(own_pictures(200)))
    # No file may grow: what a full disk does, on any machine.
    process = tfds_build(
        source,
        tmp_path / "data",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    output, _ = process.communicate()
    assert process.returncode != 0
    assert "File too large" in output
    assert not flickr8k_tfds.Builder(data_dir=tmp_path / "data").is_prepared()


@pytest.mark.slow
def test_real_photographs(shared, tmp_path):
    source = shared / "flickr8k" / "full"
    builder = build(source, tmp_path)
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert counts == {"train": 400, "validation": 119, "unused": 10}
    for name, example in examples(builder).items():
        original = (source / "Images" / name).read_bytes()
        assert hashlib.sha256(example["image"]).digest() == hashlib.sha256(original).digest()
    report = report_of(builder)
    assert not report["left_out"]
    assert (report["flickr8k"]["pictures"], report["flickr8k"]["captions"]) == (529, 2645)
