"""Links and names in data do not lead out of its folder, unless the user allows them."""

import json
import os

import pytest
from data_cases import photo
from form_cases import (
    NAMES,
    as_captions_txt,
    as_coco,
    as_imagefolder,
    as_parquet,
    as_sidecars,
    as_webdataset,
)

from paligemma_lib.data import from_image_files, open_source
from paligemma_lib.data.sources import splits_of
from paligemma_lib.run.data_config import DataConfig
from paligemma_lib.run.open_data import OpenedData

FIRST = NAMES[0]


@pytest.fixture
def images(tmp_path):
    """A folder with the images in its folder Images, and another image elsewhere."""
    folder = tmp_path / "data"
    (folder / "Images").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        (folder / "Images" / name).write_bytes(photo(number))
    (tmp_path / "private.jpg").write_bytes(photo(9))
    return folder


def link(path, target):
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("form", [as_captions_txt, as_imagefolder, as_sidecars])
def test_a_link_to_an_image_elsewhere_is_read_only_if_allowed(images, form):
    path = str(form(images))
    link(images / "Images" / FIRST, images.parent / "private.jpg")
    source = open_source(path)
    with pytest.raises(ValueError, match=f"{FIRST} is a link that leads out of .*allow_outside"):
        source.read([0])
    assert source.read([1])[0].image == photo(1)
    assert open_source(path, allow_outside=True).read([0])[0].image == photo(9)


def test_a_link_to_a_text_elsewhere_is_refused(images):
    as_sidecars(images)
    (images.parent / "secret").write_text("a password")
    link((images / "Images" / FIRST).with_suffix(".txt"), images.parent / "secret")
    with pytest.raises(ValueError, match="img_0.txt is a link that leads out of"):
        open_source(str(images / "Images")).texts([0])


def test_links_within_the_folder_that_was_named_are_followed(images):
    for split in ("train", "val"):
        (images / split).mkdir()
        for name in NAMES[:2]:
            link(images / split / name, images / "Images" / name)
            (images / split / name).with_suffix(".txt").write_text("a dog")
    for source in splits_of(str(images)).values():
        assert [record.image for record in source.read([0, 1])] == [photo(0), photo(1)]


@pytest.mark.parametrize("what", ["captions.txt", "Images"])
def test_a_link_to_a_table_or_folder_elsewhere_is_refused(images, what):
    as_captions_txt(images)
    (images / what).rename(images.parent / what)
    link(images / what, images.parent / what)
    with pytest.raises(ValueError, match=f"{what} is a link that leads out of"):
        splits_of(str(images))
    assert len(open_source(str(images), allow_outside=True).read(range(6))) == 6


def test_links_to_packed_files_and_to_folders_of_splits_are_refused(images, tmp_path):
    as_parquet(images)
    (tmp_path / "a").mkdir()
    link(tmp_path / "a" / "x.parquet", images / "data.parquet")
    (tmp_path / "b").mkdir()
    link(tmp_path / "b" / "train", images)
    for folder in ("a", "b"):
        with pytest.raises(ValueError, match="is a link that leads out of"):
            splits_of(str(tmp_path / folder))
        assert len(open_source(str(tmp_path / folder), split="train", allow_outside=True))


@pytest.mark.parametrize("form", [as_parquet, as_webdataset])
def test_packed_files_in_a_linked_folder_are_refused(images, tmp_path, form):
    form(images)
    (tmp_path / "a" / "b").mkdir(parents=True)
    link(tmp_path / "a" / "b" / "shards", images)
    with pytest.raises(ValueError, match="shards is a link that leads out of .*allow_outside"):
        splits_of(str(tmp_path / "a"))
    assert len(open_source(str(tmp_path / "a"), allow_outside=True)) == 6
    assert len(open_source(str(tmp_path / "a" / "b" / "shards"))) == 6  # named by the user
    images.rename(tmp_path / "a" / "here")
    link(tmp_path / "a" / "b" / "shards", tmp_path / "a" / "here")
    assert splits_of(str(tmp_path / "a"))  # a link within


@pytest.mark.parametrize("what", ["annotations", "images"])
def test_folders_of_coco_elsewhere_are_refused(images, tmp_path, what):
    (images / "Images").rename(images / "train2017")
    for name in ("annotations", "images"):
        (images / name).mkdir()
    as_coco(images).rename(images / "annotations" / "captions_train2017.json")
    (images / "train2017").rename(images / "images" / "train2017")
    assert len(splits_of(str(images))["train"].read(range(6))) == 6
    (images / what).rename(tmp_path / what)
    link(images / what, tmp_path / what)
    with pytest.raises(ValueError, match=f"{what} is a link that leads out of"):
        splits_of(str(images))
    assert len(splits_of(str(images), allow_outside=True)["train"].read(range(6))) == 6


def test_images_beside_a_table_are_refused_as_those_of_its_folder_are(images, tmp_path):
    path = str(as_captions_txt(images) / "captions.txt")
    (images / "Images").rename(tmp_path / "elsewhere")
    link(images / "Images", tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="Images is a link that leads out of"):
        open_source(path)
    for how in ({"allow_outside": True}, {"images": str(images / "Images")}):
        assert len(open_source(path, **how).read(range(6))) == 6


def test_record_files_of_tfds_elsewhere_are_refused(images, tmp_path):
    (images / "dataset_info.json").write_text('{"splits": []}')
    link(images / "x-train.tfrecord-00000-of-00001", tmp_path / "private.jpg")
    with pytest.raises(ValueError, match="x-train.* is a link that leads out of"):
        splits_of(str(images))


def test_what_the_user_names_is_followed(images, tmp_path):
    as_captions_txt(images)
    link(tmp_path / "here", images)
    assert len(open_source(str(tmp_path / "here")).read(range(6))) == 6
    (images / "Images").rename(tmp_path / "Pictures")
    link(images / "Images", tmp_path / "Pictures")
    given = open_source(str(images), images=str(images / "Images"))
    assert len(given.read(range(6))) == 6


@pytest.mark.parametrize("name", ["../../private.jpg", "{}/private.jpg"])
def test_a_name_that_leads_out_is_followed_only_if_allowed(images, tmp_path, name):
    rows = [{"image": name.format(tmp_path), "caption": "a"}, {"image": FIRST, "caption": "b"}]
    (images / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = str(images / "x.jsonl")
    with pytest.raises(ValueError, match="there is no image .*It leads out.*allow_outside"):
        open_source(path).read([0])
    allowed = open_source(path, allow_outside=True)
    assert [record.image for record in allowed.read([0, 1])] == [photo(9), photo(0)]


def test_absolute_names_of_images_in_the_folder_are_allowed_for(images):
    row = {"image": str(images / "Images" / FIRST), "caption": "a"}
    (images / "x.jsonl").write_text(json.dumps(row))
    assert open_source(str(images / "x.jsonl")).read([0])[0].image == photo(0)


@pytest.mark.parametrize("splits", [["../other"], ["/etc"], [".."], [3], "train", {"train": 1}])
def test_names_of_splits_do_not_lead_out(images, splits):
    (images / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
    with pytest.raises(ValueError, match=r"dataset_dict.json: splits is .* expected names"):
        splits_of(str(images))


def test_images_of_a_folder_to_caption(images):
    link(images / "Images" / FIRST, images.parent / "private.jpg")
    folder = str(images / "Images")
    with pytest.raises(ValueError, match="img_0.jpg is a link that leads out of"):
        from_image_files([folder]).read([0])
    assert from_image_files([folder], allow_outside=True).read([0])[0].image == photo(9)
    named = from_image_files([os.path.join(folder, FIRST)])
    assert named.read([0])[0].image == photo(9)


@pytest.mark.parametrize("kind", ["auto", "jsonl", "folder"])
def test_the_option_of_a_run_is_passed_on(images, kind):
    as_captions_txt(images)
    rows = [json.dumps({"image": name, "suffix": "a"}) for name in NAMES]
    (images / "Images" / "x.jsonl").write_text("\n".join(rows))
    link(images / "Images" / FIRST, images.parent / "private.jpg")
    train = images / "Images" / "x.jsonl" if kind == "jsonl" else images
    for allowed in (False, True):
        config = DataConfig(
            kind=kind, train=str(train), validation="x.csv", test="x.csv", allow_outside=allowed
        )
        source = OpenedData(config, "", "", {}).source("train")
        if allowed:
            assert source.read([0])[0].image == photo(9)
            continue
        with pytest.raises(ValueError, match="is a link that leads out of"):
            source.read([0])


def test_a_folder_of_images_elsewhere_is_refused_for_a_named_form_too(images, tmp_path):
    as_captions_txt(images)
    (images / "Images").rename(tmp_path / "elsewhere")
    link(images / "Images", tmp_path / "elsewhere")
    for given, allowed in (("", False), ("", True), (str(tmp_path / "elsewhere"), False)):
        config = DataConfig(kind="folder", train=str(images), images=given, allow_outside=allowed)
        opened = OpenedData(config, "", "", {})
        if given or allowed:
            assert len(opened.source("train").read([0])) == 1
            continue
        with pytest.raises(ValueError, match="Images is a link that leads out of"):
            opened.source("train")


def test_folders_nested_too_deeply_are_told(tmp_path):
    deep = tmp_path
    for _ in range(700):
        (deep / "dataset_dict.json").write_text('{"splits": ["a"]}')
        deep = deep / "a"
        deep.mkdir()
    with pytest.raises(ValueError, match="nested too deeply"):
        splits_of(str(tmp_path))


def test_a_path_with_a_nul_is_told(tmp_path):
    for read in (open_source, lambda path: from_image_files([path])):
        with pytest.raises(ValueError, match="is no path: it contains a NUL"):
            read("a\0b.jpg")
