import json

import pytest
import tensorflow as tf
from data_cases import captions_of, photo

from paligemma_lib.data import from_folder, from_jsonl
from paligemma_lib.data.records import CorruptRecord


def write(folder, names, table: str, name="captions.txt"):
    """A table, and images in `Images`."""
    tf.io.gfile.makedirs(f"{folder}/Images")
    for number, image in enumerate(names):
        with tf.io.gfile.GFile(f"{folder}/Images/{image}", "wb") as file:
            file.write(photo(number))
    with tf.io.gfile.GFile(f"{folder}/{name}", "wb") as file:
        file.write(table.encode())
    return str(folder)


TABLE = (
    'image,caption\na.png,A dog .\na.png,"Two dogs, one ""red"" ."\nb.png,A cat .\na.png,Last .\n'
)


@pytest.mark.parametrize("where", ["local", "remote"])
def test_a_folder_gives_a_record_per_image_with_all_its_captions(tmp_path, where):
    folder = write(tmp_path if where == "local" else "ram://folder", ["a.png", "b.png"], TABLE)
    source = from_folder(folder)
    assert len(source) == 2
    b, a = source.read([1, 0])
    assert (a.image_id, a.captions) == ("a.png", ("A dog .", 'Two dogs, one "red" .', "Last ."))
    assert (b.image_id, b.captions) == ("b.png", ("A cat .",))
    assert (a.image, b.image) == (photo(0), photo(1))


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path):
    table = "\ufeff" + TABLE.replace("\n", "\r\n")
    assert len(from_folder(write(tmp_path, ["a.png", "b.png"], table))) == 2


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "a.png,A dog .\n",
            r"captions.txt, line 1: \['a.png', 'A dog .'\] is not the header image,caption",
        ),
        ("", r"captions.txt, line 1: \[\] is not the header"),
        ("image,caption\na.png,A dog .\na.png\n", "line 3: .* is not one image and one caption"),
        ("image,caption\na.png,A dog, running .\n", "line 2: .* is not one image and one caption"),
        ("image,caption\na.png,\n", "line 2: .* is not one image and one caption"),
        ("image,caption\n\na.png,A dog .\n", "line 2: .* is not one image and one caption"),
        ('image,caption\na.png,"A dog .\na.png,Two .\n', "line 2: unexpected end of data"),
        ('image,caption\na.png,"A dog" red\n', "line 2: ',' expected after"),
        ("image,caption\na.png,caf\udce9 .\n", "captions.txt, line 2 is not UTF-8"),
    ],
)
def test_a_broken_table_raises_with_the_line(tmp_path, table, message):
    folder = write(tmp_path, ["a.png", "x.png"], "")
    (tmp_path / "captions.txt").write_bytes(table.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=message):
        len(from_folder(folder))


def test_the_real_table(shared):
    source = from_folder(str(shared / "flickr8k" / "full"))
    assert len(source) == 529
    assert all(len(record.captions) == 5 for record in source.read(range(0, 529, 20)))


def lines(*objects) -> str:
    return "".join(json.dumps(each) + "\n" for each in objects)


@pytest.mark.parametrize("where", ["local", "remote"])
def test_json_lines_with_images_beside_them_or_elsewhere(tmp_path, where):
    table = lines(
        {"image": "a.png", "prefix": "caption en", "suffix": "A dog ."},
        {"image": "b.png", "suffix": ["A cat .", "Zwei Käse"]},
        {"image": "sub/c.png"},
    )
    folder = tmp_path if where == "local" else "ram://jsonl"
    folder = write(folder, ["a.png", "b.png"], table.rstrip(), "train.jsonl")
    tf.io.gfile.makedirs(f"{folder}/Images/sub")
    tf.io.gfile.copy(f"{folder}/Images/b.png", f"{folder}/Images/sub/c.png")
    source = from_jsonl(f"{folder}/train.jsonl", images=f"{folder}/Images")
    assert len(source) == 3
    c, a, b = source.read([2, 0, 1])
    assert (a.image_id, a.prefix, a.captions) == ("a.png", "caption en", ("A dog .",))
    assert (b.image_id, b.prefix, b.captions) == ("b.png", None, ("A cat .", "Zwei Käse"))
    assert (c.image_id, c.captions, c.image) == ("sub/c.png", (), photo(1))

    tf.io.gfile.copy(f"{folder}/train.jsonl", f"{folder}/Images/train.jsonl")
    assert from_jsonl(f"{folder}/Images/train.jsonl").read([0])[0].image == photo(0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "train.jsonl, line 2 is not valid JSON"),
        ("[1]", "train.jsonl, line 2 is not an object"),
        ('{"suffix": "x"}', "train.jsonl, line 2 has no image"),
        ('{"image": 7}', "train.jsonl, line 2 has no image"),
        ('{"image": " "}', "train.jsonl, line 2 has no image"),
        ('{"image": "a.png", "suffix": 7}', "line 2: '7' is not text, expected a caption"),
        ('{"image": "a.png", "suffix": ["x", " "]}', "line 2: the caption is empty"),
        ('{"image": "a.png", "prefix": ["x"]}', "line 2: the prefix must be text"),
    ],
)
def test_a_broken_line_raises_with_its_number(tmp_path, line, message):
    good = lines({"image": "a.png", "suffix": "x"})
    folder = write(tmp_path / "data", ["a.png"], good + line + "\n" + good, "train.jsonl")
    with pytest.raises(ValueError, match=message):
        len(from_jsonl(f"{folder}/train.jsonl", images=f"{folder}/Images"))


def test_captions_of_an_image_are_one_record_wherever_they_stand(tmp_path):
    """A line for each caption, as many tools write it, must not lose all but the last."""
    table = lines(
        {"image": "a.png", "suffix": "one"},
        {"image": "b.png", "suffix": "two"},
        {"image": "a.png", "suffix": "three"},
        {"image": "a.png", "prefix": "how many?", "suffix": "four"},
    )
    folder = write(tmp_path, ["a.png", "b.png"], table + "\n\n", "train.jsonl")
    source = from_jsonl(f"{folder}/train.jsonl", images=f"{folder}/Images")
    assert [(r.image_id, r.prefix, r.captions) for r in source.read(range(3))] == [
        ("a.png#1", None, ("one", "three")),
        ("b.png", None, ("two",)),
        ("a.png#2", "how many?", ("four",)),
    ]
    assert source.where(2).endswith("train.jsonl, line 4")


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "/etc/hostname", "..\\secret.png", "x/../../secret.png", "a.png\0.txt"],
)
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    (tmp_path / "secret.png").write_bytes(photo(0))
    table = lines({"image": "a.png"}, {"image": name})
    folder = write(tmp_path / "data", ["a.png"], table, "train.jsonl")
    source = from_jsonl(f"{folder}/train.jsonl", images=f"{folder}/Images")
    with pytest.raises(CorruptRecord, match="line 2: there is no image .* in .*Images"):
        source.read([1])


def test_an_image_that_is_missing_or_huge_raises_with_line_and_name(tmp_path):
    table = lines({"image": "none.png"}, {"image": "huge.png"}, {"image": "a.png"})
    folder = write(tmp_path, ["a.png"], table, "train.jsonl")
    with open(f"{folder}/Images/huge.png", "wb") as file:
        file.truncate(65 << 20)
    source = from_jsonl(f"{folder}/train.jsonl", images=f"{folder}/Images")
    with pytest.raises(CorruptRecord, match="line 1: there is no image 'none.png' in"):
        source.read([0])
    with pytest.raises(ValueError, match="huge.png is larger than the limit of 64 MiB"):
        source.read([1])
    (tmp_path / "Images" / "a.png").unlink()
    with pytest.raises(CorruptRecord, match="line 3: there is no image 'a.png' in"):
        source.read([2])


def test_a_folder_without_any_of_the_images_is_told_at_once(tmp_path):
    folder = write(tmp_path, ["other.png"], lines({"image": "a.png"}), "train.jsonl")
    with pytest.raises(ValueError, match="none of its 1 images is in .* names 'a.png'; the fold"):
        len(from_jsonl(f"{folder}/train.jsonl", images=f"{folder}/Images"))


def test_a_table_that_is_missing_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="captions.txt does not exist"):
        len(from_folder(str(tmp_path)))
    with pytest.raises(FileNotFoundError, match="x.jsonl does not exist"):
        len(from_jsonl(str(tmp_path / "x.jsonl")))


def test_all_records_of_an_image_keep_their_captions_in_the_tables_order(tmp_path):
    rows = [("a.png", caption) for caption in captions_of(4)]
    table = "image,caption\n" + "".join(f"{name},{caption}\n" for name, caption in rows)
    (record,) = from_folder(write(tmp_path, ["a.png"], table)).read([0])
    assert list(record.captions) == captions_of(4)
