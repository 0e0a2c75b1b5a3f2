"""Which splits a run gets of the data that its config names."""

import json

import pytest
from data_cases import photo
from run_cases import setup_of, write_run

from paligemma_lib.run import checks


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return write_run(folder), folder


@pytest.fixture
def photos(tmp_path):
    """Forty images with texts beside them, and lists of some."""
    for number in range(40):
        (tmp_path / f"{number:02d}.png").write_bytes(photo(number % 3, size=(8, 8)))
        (tmp_path / f"{number:02d}.txt").write_text(f"number {number}")
    (tmp_path / "mine.lst").write_text("".join(f"{number:02d}.png\n" for number in range(30)))
    return tmp_path


def opened(run, train, **data):
    data = {"kind": "auto", "validation": "validation", "test": "test"} | data
    return setup_of(run[0], data={"train": str(train)} | data)


def names(setup):
    return {
        split: {record.image_id for record in source.read(range(len(source)))}
        for split, source in setup.data.items()
    }


def test_a_list_to_train_on_is_divided(run, photos):
    found = names(opened(run, f"{photos}#mine.lst"))
    assert set.union(*found.values()) == {f"{number:02d}.png" for number in range(30)}
    assert sum(map(len, found.values())) == 30 and all(found.values())


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("named", [False, True])
def test_one_split_alone_is_divided(run, photos, tmp_path, split, named):
    table = tmp_path / "one.jsonl"
    rows = [{"image": f"{k:02d}.png", "caption": f"number {k}", "split": split} for k in range(40)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = names(opened(run, f"{table}#{split}" if named else table))
    assert sum(map(len, found.values())) == 40 and len(found["train"]) > 20
    assert len(set.union(*found.values())) == 40
    with pytest.raises(ValueError, match="has no split 'dev'"):
        _ = opened(run, f"{table}#dev").data


def test_images_in_several_splits_are_told(run, photos, caplog):
    (photos / "val.lst").write_text("01.png\n02.png\n03.png\n")
    setup = opened(run, photos, validation=f"{photos}#val.lst", test=str(photos))
    checks.data(setup)
    assert "in other splits, too" in caplog.text and "of validation" in caplog.text
    caplog.clear()
    checks.data(opened(run, f"{photos}#mine.lst"))
    assert "other splits" not in caplog.text


@pytest.mark.parametrize("kind", ["jsonl", "folder"])
def test_columns_are_not_passed_over(run, photos, tmp_path, kind):
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"photo": "01.png", "said": "a dog"}\n')
    where = lines if kind == "jsonl" else run[1]
    data = {"validation": str(where), "test": str(where), "kind": kind}
    named = opened(run, where, image_column="photo", caption_column="said", **data)
    if kind == "jsonl":
        assert named.data["train"].read([0])[0].captions == ("a dog",)
    else:
        with pytest.raises(ValueError, match="'photo' is named for the image"):
            len(named.data["train"])


def test_data_without_columns_refuse_names(run, photos):
    with pytest.raises(ValueError, match="'said' is named as a column, but the data have no"):
        _ = opened(run, photos, caption_column="said").data
