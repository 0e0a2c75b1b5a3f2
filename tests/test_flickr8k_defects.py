"""Building from bad data: what is left out and told of, what stops the build, and what is left."""

import io
import os
import resource
import signal
import time

import numpy as np
import pytest
from flickr8k_builds import build, examples, own_images, report_of, tfds_build
from flickr8k_sources import (
    TEST,
    TRAIN,
    exif_rotated,
    image,
    kaggle_files,
    write_tree,
    write_zip,
)
from PIL import Image

import flickr8k_tfds
from flickr8k_tfds.layout import NothingFoundError
from flickr8k_tfds.trees import DatasetError


def test_bad_files_are_left_out_and_reported_and_the_rest_is_built(tmp_path):
    good = {
        TRAIN: image(),
        "grey.jpg": image(5, mode="L"),
        "cmyk.jpg": image((1, 2, 3, 4), mode="CMYK"),
        "rotated.jpg": exif_rotated(),
        "png.jpg": image("blue", form="PNG"),
    }
    bad = {
        "truncated.jpg": image(size=(200, 200))[:-60],
        "empty.jpg": b"",
        "text.jpg": b"not an image",
        "huge.png": image(0, size=(20_000, 20_000), mode="1", form="PNG"),
    }
    captions = {name: ["A caption ."] for name in (*good, *bad, "nowhere.jpg")}
    files = kaggle_files({**good, **bad, "uncaptioned.jpg": image()}, captions)
    files["captions.txt"] += b"grey.jpg,\n\nshort\n"
    builder = build(write_tree(tmp_path / "in", files), tmp_path / "data")
    built = {name: example["image"] for name, example in examples(builder).items()}
    assert built.pop("rotated.jpg").startswith(b"\x89PNG")  # turned
    assert built.items() <= good.items() and len(built) == len(good) - 1
    report = report_of(builder)
    why = {defect["what"]: defect["why"] for defect in report["left_out"]}
    nowhere = "nowhere.jpg: A caption ."
    assert why.keys() == {*bad, nowhere, "uncaptioned.jpg", "grey.jpg,", "", "short"}
    assert why[nowhere] == "caption without image"
    assert why["uncaptioned.jpg"] == "image without caption"
    assert report["remarks"].keys() == {
        "greyscale",
        "CMYK",
        "turned upright by EXIF",
        "PNG content in a .jpg file",
    }


def test_the_report_is_printed_and_a_name_that_is_not_text_does_no_harm(tmp_path, capsys):
    source = write_tree(tmp_path / "in", kaggle_files({TRAIN: image()}))
    os.rename(
        write_tree(tmp_path, {"odd": image()}) / "odd",
        os.fsencode(source) + b"/Images/caf\xe9.jpg",
    )
    builder = build(source, tmp_path / "data")
    assert list(examples(builder)) == [TRAIN]
    printed = capsys.readouterr().out
    assert "1 x image without caption: Images/caf\\udce9.jpg" in printed
    assert "1 images       1 captions  (1 with 1)" in printed


def test_a_zip_bomb_among_the_images_is_left_out(tmp_path):
    files = kaggle_files({TRAIN: image(), "bomb.jpg": bytes(65 << 20)})
    builder = build(write_zip(tmp_path / "in.zip", files), tmp_path / "data")
    assert list(examples(builder)) == [TRAIN]
    assert report_of(builder)["left_out"][0]["why"] == "larger than the limit of 64 MiB"


@pytest.mark.parametrize("name", ["../../x.jpg", "/x.jpg"])
@pytest.mark.parametrize("where", ["table", "zip"])
def test_a_path_that_escapes_stops_the_build(tmp_path, name, where):
    files = kaggle_files({TRAIN: image()})
    if where == "zip":
        source = write_zip(tmp_path / "in.zip", {**files, name: image()})
    else:
        files["captions.txt"] += f"{name},A dog .\n".encode()
        source = write_tree(tmp_path / "in", files)
    with pytest.raises(DatasetError, match="points outside"):
        build(source, tmp_path / "data")
    assert not list((tmp_path / "data").glob("**/*.tfrecord*"))


def test_a_split_whose_images_are_all_bad_is_left_away(tmp_path):
    files = kaggle_files({TRAIN: image(), TEST: b""})
    assert set(build(write_tree(tmp_path / "in", files), tmp_path / "data").info.splits) == {
        "train"
    }


def test_when_nothing_usable_remains_it_stops_and_says_why(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files({TRAIN: b"", TEST: b"x"}))
    with pytest.raises(DatasetError, match=r"has no usable images(.|\n)*1 x not an image"):
        build(source, tmp_path / "data")


def test_strict_stops_at_the_first_bad_image(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files({TRAIN: image(), TEST: b""}))
    with pytest.raises(DatasetError, match="empty file.*The build is strict"):
        build(source, tmp_path / "data", config=flickr8k_tfds.Config(name="s", strict=True))


def test_a_folder_with_something_else_says_what_was_found(tmp_path):
    write_tree(tmp_path / "in", {"notes.txt": b""})
    with pytest.raises(NothingFoundError, match="found notes.txt"):
        build(tmp_path / "in", tmp_path / "data")


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
    source = write_tree(tmp_path / "in", kaggle_files(own_images(200)))
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
