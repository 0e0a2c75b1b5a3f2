"""Splits by lists of image names."""

import pytest
from data_cases import photo

from paligemma_lib.data import open_source
from paligemma_lib.data.sources import splits_of

NAMES = [f"img_{k}.jpg" for k in range(6)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Images").mkdir()
    for number, name in enumerate(NAMES):
        (tmp_path / "Images" / name).write_bytes(photo(number))
    rows = "".join(f"{name},a {name}\n{name},b {name}\n" for name in NAMES)
    (tmp_path / "captions.csv").write_text("image,caption\n" + rows)
    return tmp_path


def ids(source):
    return [record.image_id for record in source.read(range(len(source)))]


def test_a_list_chooses_images(folder):
    (folder / "mine.txt").write_text("\ufeffIMG_3.JPG\r\n\r\nimages/img_1\n", encoding="utf-8")
    source = open_source(f"{folder}#mine.txt")
    assert ids(source) == ["img_1.jpg", "img_3.jpg"]  # in the order of the table
    assert source.read([1])[0].captions == ("a img_3.jpg", "b img_3.jpg")
    assert source.where(0).endswith("captions.csv, line 4")
    table = folder / "captions.csv"
    assert ids(open_source(f"{table}#{folder / 'mine.txt'}")) == ids(source)


@pytest.mark.parametrize(
    ("train", "dev", "test"),
    [
        ("Flickr_8k.trainImages.txt", "Flickr_8k.devImages.txt", "Flickr_8k.testImages.txt"),
        ("train.txt", "val.txt", "test.lst"),
    ],
)
def test_lists_in_a_folder_are_its_splits(folder, train, dev, test):
    for number, name in enumerate((train, dev, test)):
        (folder / name).write_text("\n".join(NAMES[2 * number : 2 * number + 2]))
    splits = {name: ids(source) for name, source in splits_of(str(folder)).items()}
    assert [*splits.values()].count(NAMES[:2]) == 1 and len(splits) == 3
    assert ids(open_source(str(folder), split="validation")) == NAMES[2:4]
    assert ids(open_source(str(folder), split="test")) == NAMES[4:]


def test_captions_of_images_called_train_and_test_are_no_lists(tmp_path):
    for number, name in enumerate(("train", "test")):
        (tmp_path / f"{name}.jpg").write_bytes(photo(number))
        (tmp_path / f"{name}.txt").write_text(f"a {name}")
    source = open_source(str(tmp_path))
    assert sorted(record.captions for record in source.read([0, 1])) == [("a test",), ("a train",)]


def test_one_file_with_the_name_of_a_split_is_not_taken_for_a_list(folder):
    (folder / "train.txt").write_text("notes about training")
    assert set(splits_of(str(folder))) == {""}


def test_names_that_are_not_images_of_the_data_are_told(folder):
    (folder / "mine.txt").write_text("img_1.jpg\nimg_9.jpg\nimg_8.jpg\n")
    with pytest.raises(ValueError, match=r"mine.txt: 2 of its 3 names .* 'img_9.jpg', 'img_8.jpg'"):
        len(open_source(f"{folder}#mine.txt"))
    (folder / "mine.txt").write_bytes(b"img_1.jpg\nb\xe9b\xe9.jpg")
    with pytest.raises(ValueError, match=r"mine.txt, line 2 is not UTF-8"):
        len(open_source(f"{folder}#mine.txt"))


def test_data_with_splits_of_their_own_take_no_list(folder):
    (folder / "mine.txt").write_text("img_1.jpg")
    table = folder / "captions.csv"
    table.write_text("image,caption,split\nimg_1.jpg,a,train\nimg_2.jpg,b,test\n")
    with pytest.raises(ValueError, match="has splits of its own: train, test"):
        open_source(f"{folder}#mine.txt")


def test_a_change_of_the_list_changes_the_fingerprint(folder):
    marks = set()
    for names in ("img_1.jpg", "img_2.jpg"):
        (folder / "mine.txt").write_text(names)
        marks.add(open_source(f"{folder}#mine.txt").fingerprint())
    assert len(marks) == 2
