"""Names of one image in a table are one record; names of two images are never the same file."""

import pytest
from data_cases import photo

from paligemma_lib.data import open_source


def written(folder, lines, files):
    for number, file in enumerate(files):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(photo(number))
    (folder / "table.csv").write_text("image,caption\n" + "".join(f"{line}\n" for line in lines))
    return open_source(str(folder / "table.csv"), images=str(folder))


def test_spellings_of_one_file_are_one_record(tmp_path):
    lines = ["1.jpg,a", "./1.jpg,b", "1.JPG,c", "x/1.jpg,d", "1,e", "2.jpg,f"]
    source = written(tmp_path, lines, ["1.jpg", "2.jpg"])
    found = [(r.image_id, r.captions) for r in source.read(range(len(source)))]
    assert found == [("1.jpg", ("a", "b", "c", "d", "e")), ("2.jpg", ("f",))]


def test_two_names_are_not_one_file_because_one_is_missing(tmp_path):
    source = written(tmp_path, ["dogs/1.jpg,a dog", "cats/1.jpg,a cat"], ["dogs/1.jpg"])
    assert source.read([0])[0].captions == ("a dog",) and len(source) == 2
    with pytest.raises(ValueError, match="there is no image 'cats/1.jpg'"):
        source.read([1])
