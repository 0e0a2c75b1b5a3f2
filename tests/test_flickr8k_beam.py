"""Building on the workers of Apache Beam gives what building without it gives."""

import filecmp

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from flickr8k_builds import IMAGES, build, own_images, report_of, tfds_build
from flickr8k_sources import exif_rotated, image, kaggle_files, write_tree, write_zip

import flickr8k_tfds
from flickr8k_tfds.trees import DatasetError

beam = pytest.importorskip("apache_beam")

TWO_PROCESSES = "runner=DirectRunner,direct_num_workers=2,direct_running_mode=multi_processing"


ODD = {"turned.jpg": exif_rotated(), "still.gif": image(form="GIF"), "bad.jpg": b"bad"}
FILES = kaggle_files({**IMAGES, **own_images(20), **ODD})


def in_process(**options):
    return {"beam_options": beam.options.pipeline_options.PipelineOptions(), **options}


def records(builder, split):
    """The records of a split in the order of its shards."""
    paths = [str(path) for path in builder.info.splits[split].filepaths]
    return [record.numpy() for record in tf.data.TFRecordDataset(paths)]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_two_processes_write_the_same_files(tmp_path, form):
    source = (write_zip if form == "zip" else write_tree)(tmp_path / f"in.{form}", FILES)
    for data_dir, flags in [("plain", []), ("beam", [f"--beam_pipeline_options={TWO_PROCESSES}"])]:
        process = tfds_build(source, tmp_path / data_dir, *flags)
        output, _ = process.communicate()
        assert process.returncode == 0, output
    (plain,) = (tmp_path / "plain").rglob("1.0.0")
    (by_beam,) = (tmp_path / "beam").rglob("1.0.0")
    names = sorted(path.name for path in plain.iterdir())
    assert names == sorted(path.name for path in by_beam.iterdir())
    assert filecmp.cmpfiles(plain, by_beam, names, shallow=False) == (names, [], [])
    assert "bad.jpg" in (by_beam / "verification.json").read_text()


@pytest.mark.slow
def test_several_shards_hold_the_same_sequence_of_records(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files({**own_images(20), **ODD}))
    config = flickr8k_tfds.Config(name="one", side=16, fractions={"train": 1.0})
    options = {"num_shards": 3, "max_examples_per_split": 12}
    plain = build(source, tmp_path / "plain", config, **options)
    by_beam = build(source, tmp_path / "beam", config, **in_process(**options))
    assert by_beam.info.splits["train"].num_shards == 3
    assert len(records(plain, "train")) == 12
    assert records(by_beam, "train") == records(plain, "train")
    assert report_of(by_beam) == report_of(plain)


@pytest.mark.slow
def test_a_strict_build_stops_at_the_same_image(tmp_path):
    source = write_tree(tmp_path / "in", FILES)
    config = flickr8k_tfds.Config(name="strict", strict=True)
    messages = []
    for options in ({}, in_process()):
        with pytest.raises(DatasetError, match="bad.jpg: not an image") as error:
            build(source, tmp_path / "data", config, **options)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert not tfds.builder("flickr8k_tfds", data_dir=tmp_path / "data").is_prepared()
