"""Damaged files on the side are put aside, each under its own name."""

from paligemma_lib.runtime import put_aside as put_aside_module
from paligemma_lib.runtime.put_aside import put_aside


def test_nothing_is_lost_and_all_is_told(tmp_path, caplog):
    path = tmp_path / "index.json"
    names = []
    for content in ("one", "two", "three"):
        path.write_text(content)
        put_aside(path, "not an index\x1b[2J")
        (name,) = {each.name for each in tmp_path.iterdir()} - set(names)
        names.append(name)
    assert names == ["index.json.damaged", "index.json.damaged-2", "index.json.damaged-3"]
    assert [(tmp_path / name).read_text() for name in names] == ["one", "two", "three"]
    assert not path.exists()
    assert "index.json: put aside as index.json.damaged-3: not an index\\x1b[2J" in caplog.text


def test_a_file_that_is_replaced_stays_until_then(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("one")
    put_aside(path, "line 1", keep=True)
    assert path.read_text() == (tmp_path / "metrics.jsonl.damaged").read_text() == "one"


def test_where_it_cannot_be_put_aside_that_is_logged(tmp_path, caplog, monkeypatch):
    path = tmp_path / "index"
    put_aside(path, "no index")  # another process was faster
    assert "index is damaged: no index. It cannot be put aside (" in caplog.text

    def refuse(*_):
        raise OSError("no hard links")

    monkeypatch.setattr(put_aside_module.os, "link", refuse)
    path.write_text("one")
    put_aside(path, "no index", keep=True)
    assert (tmp_path / "index.damaged").read_text() == path.read_text() == "one"


def test_a_folder_in_the_place_of_a_file_is_put_aside(tmp_path):
    (tmp_path / "index").mkdir()
    put_aside(tmp_path / "index", "a folder")
    assert (tmp_path / "index.damaged").is_dir()
