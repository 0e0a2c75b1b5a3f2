import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib.metrics import merge, predictions, read_predictions, write_predictions

IDS = st.text() | st.integers(-(2**63), 2**63)


def write(path, content) -> str:
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(path)


@settings(deadline=None)
@given(captions=st.dictionaries(IDS, st.text()))
def test_what_is_written_is_read(tmp_path_factory, captions):
    path = tmp_path_factory.mktemp("predictions") / "predictions.json"
    write_predictions(path, captions)
    assert list(read_predictions(path).items()) == list(captions.items())


def test_the_format_is_that_of_coco_results(tmp_path):
    path = tmp_path / "predictions.json"
    write_predictions(path, {"a.jpg": "a café", 7: "two\nlines"})
    assert json.loads(path.read_text("ascii")) == [
        {"image_id": "a.jpg", "caption": "a café"},
        {"image_id": 7, "caption": "two\nlines"},
    ]
    coco = write(path, [{"image_id": 391895, "id": 1, "caption": "a man", "score": 0.5}])
    assert read_predictions(coco) == {391895: "a man"}
    with_mark = write(path, b'\xef\xbb\xbf[{"image_id": "a", "caption": "b"}]')
    assert read_predictions(with_mark) == {"a": "b"}


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "predictions.json"
    write_predictions(path, {"a": "old"})
    with pytest.raises(ValueError, match="the caption None of 'b' is of type NoneType"):
        write_predictions(path, {"a": "new", "b": None})
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        write_predictions(path, {"a": "new"})
    assert read_predictions(path) == {"a": "old"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[{", "is not JSON in UTF-8"),
        (b"\xff\xfe[\x00]\x00", "is not JSON in UTF-8"),
        (b"[" * 100_000, "is not JSON in UTF-8"),
        ({"annotations": []}, "holds {'annotations': .*results format of COCO captions"),
        (["a"], "1 of 1 entries are wrong.*\n- entry 0: 'a' is not an object"),
        ([{"image_id": 1}], "has no caption"),
        ([{}], "has no image_id and no caption"),
        ([{"image_id": 1.0, "caption": "a"}], "image_id 1.0 is of type float"),
        ([{"image_id": True, "caption": "a"}], "image_id True is of type bool"),
        ([{"image_id": None, "caption": "a"}], "image_id None is of type NoneType"),
        ([{"image_id": [1], "caption": "a"}], "of type list"),
        ([{"image_id": 1, "caption": ["a"]}], r"the caption \['a'\] of 1 is of type list"),
        ([{"image_id": 1, "caption": c} for c in "ab"], "entry 1: duplicate image 1"),
        ([{"image_id": 1, "caption": "a"}] * 9, "8 of 9 entries.*\n(- entry .*\n){5}- and 3 more"),
    ],
)
def test_what_is_wrong_with_a_file_is_listed(tmp_path, content, message):
    path = write(tmp_path / "predictions.json", content)
    with pytest.raises(ValueError, match=message) as caught:
        read_predictions(path)
    assert path in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_files_that_are_missing_or_too_large_are_refused(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        read_predictions(tmp_path / "predictions.json")
    with pytest.raises(FileNotFoundError, match="not a folder; create it"):
        write_predictions(tmp_path / "none" / "predictions.json", {"a": "b"})
    monkeypatch.setattr(predictions, "_MAX_BYTES", 20)
    path = write(tmp_path / "predictions.json", [{"image_id": 1, "caption": "a"}])
    with pytest.raises(ValueError, match="is larger than"):
        read_predictions(path)


@settings(deadline=None)
@given(
    captions=st.dictionaries(IDS, st.text(), min_size=1),
    processes=st.integers(1, 5),
    batch=st.integers(1, 4),
)
def test_parts_of_any_number_of_processes_make_the_whole(captions, processes, batch):
    parts = []
    for process in range(processes):
        part = [(i, caption, True) for i, caption in list(captions.items())[process::processes]]
        padding = -len(part) % batch
        parts.append(part + [(next(iter(captions)), "padding", False)] * padding)
    assert merge(parts) == captions


def test_parts_may_repeat_but_not_contradict_each_other():
    assert merge([[("a", "x", True)], [("a", "x", True), ("b", "y", True)]]) == {"a": "x", "b": "y"}
    with pytest.raises(
        ValueError, match="1 images have two captions, the first is 'a': 'x' and 'z'"
    ):
        merge([[("a", "x", True)], [("a", "z", True)]])
    with pytest.raises(ValueError, match="part 1: the caption None of 'b' is of type NoneType"):
        merge([[("a", "x", True)], [("b", None, True)]])
    assert merge([]) == {}
