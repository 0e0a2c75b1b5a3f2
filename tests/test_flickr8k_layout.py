import pytest
from flickr8k_sources import closed, image, kaggle_files, token_table, write_tree, write_zip

from flickr8k_tfds import layout
from flickr8k_tfds.layout import NothingFoundError, fetch_from_kaggle, locate
from flickr8k_tfds.trees import DatasetError

KAGGLE = kaggle_files({"a.jpg": image()})
TOKENS = {"Flickr8k.token.txt": token_table({"a.jpg": ["A dog ."]})}


def below(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def dataset(spelling: str) -> dict[str, bytes]:
    return {f"{spelling}/a.jpg": image()}


FOLDERS = {
    "kaggle": ("Kaggle", KAGGLE),
    "kaggle one level down": ("Kaggle", below("flickr8k", KAGGLE)),
    "uiuc": ("UIUC", {**TOKENS, **dataset("Flicker8k_Dataset")}),
    "uiuc, other spelling": ("UIUC", {**TOKENS, **dataset("Flickr8k_Dataset")}),
    "uiuc, text one level down": (
        "UIUC",
        {**below("Flickr8k_text", TOKENS), **dataset("Flicker8k_Dataset")},
    ),
    "uiuc, zip folders": (
        "UIUC",
        {
            **below("Flickr8k_text", TOKENS),
            **below("Flickr8k_Dataset", dataset("Flicker8k_Dataset")),
        },
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders(tmp_path, case):
    form, files = FOLDERS[case]
    found = locate(write_tree(tmp_path, files))
    assert (found.form, list(found.images)) == (form, ["a.jpg"])
    assert list(found.read_table().captions) == ["a.jpg"]


@pytest.mark.parametrize("case", FOLDERS)
def test_the_same_in_one_zip_beside_or_named(tmp_path, case):
    form, files = FOLDERS[case]
    path = write_zip(tmp_path / "archive.zip", files)
    for place in (path, tmp_path):
        found = locate(place)
        assert (found.form, list(found.images)) == (form, ["a.jpg"])
        assert list(found.read_table().captions) == ["a.jpg"]


def test_the_two_original_zips(tmp_path):
    write_zip(tmp_path / "Flickr8k_text.zip", {**TOKENS, "__MACOSX/._Flickr8k.token.txt": b""})
    write_zip(tmp_path / "Flickr8k_Dataset.zip", dataset("Flicker8k_Dataset"))
    found = locate(tmp_path)
    assert (found.form, list(found.images)) == ("UIUC", ["a.jpg"])
    assert found.images["a.jpg"].read(10_000) == image()


def test_an_unpacked_folder_stands_before_its_zip(tmp_path):
    write_tree(tmp_path, KAGGLE)
    write_zip(tmp_path / "archive.zip", KAGGLE)
    assert str(locate(tmp_path).table) == str(tmp_path / "captions.txt")


def test_a_broken_zip_beside_the_data_set_is_of_no_concern(tmp_path):
    write_tree(tmp_path, {"other.zip": b"broken", **FOLDERS["uiuc"][1]})
    assert list(locate(tmp_path).images) == ["a.jpg"]


def test_a_broken_zip_alone_is_named(tmp_path):
    write_tree(tmp_path, {"archive.zip": b"broken"})
    with pytest.raises(DatasetError, match="archive.zip is not a complete zip"):
        locate(tmp_path)


def test_a_closed_folder_is_named_where_nothing_else_is_found(tmp_path):
    write_tree(tmp_path, KAGGLE)
    with closed(tmp_path / "Images"), pytest.raises(DatasetError, match="Images cannot be listed"):
        locate(tmp_path)


def test_a_closed_folder_beside_the_data_set_is_of_no_concern(tmp_path):
    write_tree(tmp_path, {**KAGGLE, "lost+found/x": b""})
    with closed(tmp_path / "lost+found"):
        assert list(locate(tmp_path).images) == ["a.jpg"]


def test_images_that_are_not_taken_are_listed(tmp_path):
    found = locate(write_tree(tmp_path, {**KAGGLE, "Images/sub/b.jpg": image()}))
    assert [(defect.what, defect.why) for defect in found.defects] == [
        ("sub/b.jpg", "in a folder below that of the images")
    ]
    both = {**TOKENS, **dataset("Flickr8k_Dataset"), **dataset("Flicker8k_Dataset")}
    (defect,) = locate(write_tree(tmp_path / "both", both)).defects
    assert (defect.what, defect.why) == ("a.jpg", "another image of this name is taken")


def test_two_data_sets_are_not_chosen_between(tmp_path):
    write_tree(tmp_path, {**below("one", KAGGLE), **below("two", KAGGLE)})
    with pytest.raises(DatasetError, match=r"2 data sets(.|\n)*one/captions.txt(.|\n)*two/capt"):
        locate(tmp_path)


@pytest.mark.parametrize("missing", ["captions.txt", "Images/a.jpg"])
def test_a_part_alone_says_what_is_expected_and_found(tmp_path, missing):
    write_tree(tmp_path, {name: data for name, data in KAGGLE.items() if name != missing})
    found = "Images" if missing == "captions.txt" else "captions.txt"
    with pytest.raises(NothingFoundError, match=f"expected captions.txt beside.*found {found}"):
        locate(tmp_path)


def test_kaggle_downloads_a_folder(tmp_path, monkeypatch):
    import kagglehub

    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: f"{tmp_path}/{handle}")
    assert fetch_from_kaggle() == tmp_path / "adityajn105/flickr8k"


@pytest.mark.parametrize(
    "error", [ConnectionError("no route to host"), PermissionError("403 Client Error")]
)
def test_when_kaggle_fails_the_error_names_all_ways_out(monkeypatch, error):
    import kagglehub

    def fail(handle):
        raise error

    monkeypatch.setattr(kagglehub, "dataset_download", fail)
    with pytest.raises(DatasetError) as caught:
        fetch_from_kaggle()
    message = str(caught.value)
    assert str(error) in message
    assert layout.WAYS_OUT in message
    for command in ("kaggle.json", "--manual_dir=FOLDER_OR_ZIP", "paligemma sample-data"):
        assert command in message
