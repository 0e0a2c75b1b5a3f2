"""Damaged records of a run: counted over starts, listed in the workdir, and limited."""

import json
import types

import pytest
from data_cases import photo

from paligemma_lib.data.replacing import replace_corrupt
from paligemma_lib.data.sources import from_jsonl
from paligemma_lib.run.damage import DAMAGED, count_damage, recall_damage


@pytest.fixture
def start(tmp_path):
    """Starts a run of twelve images, of which 3 does not decode and 7 is missing."""
    images = tmp_path / "images"
    images.mkdir()
    for number in set(range(12)) - {7}:
        (images / f"{number}.png").write_bytes(photo(number) if number != 3 else b"damaged")
    rows = [{"image": f"{number}.png", "suffix": "a dog"} for number in range(12)]
    (images / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def start(max_corrupt=0.5):
        source = replace_corrupt(from_jsonl(images / "x.jsonl"), max_corrupt=max_corrupt)
        data = {"train": source, "test": from_jsonl(images / "x.jsonl")}
        return types.SimpleNamespace(workdir=tmp_path, data=data)

    return start


def test_what_was_found_is_listed_and_known_after_a_restart(start, tmp_path):
    run = start()
    assert recall_damage(run) == {"train": {}} and not (tmp_path / DAMAGED).exists()
    run.data["train"].verify(range(12))
    found = count_damage(run)["train"]
    assert list(found) == [3, 7]
    assert "image 3.png" in found[3] and "no image '7.png'" in found[7]
    listed = json.loads((tmp_path / DAMAGED).read_text())
    assert listed == {"train": {str(number): told for number, told in found.items()}}
    again = start()
    assert recall_damage(again)["train"] == found == again.data["train"].damaged


def test_what_was_repaired_counts_as_whole(start, tmp_path):
    run = start()
    run.data["train"].verify(range(12))
    count_damage(run)
    (tmp_path / "images" / "3.png").write_bytes(photo(3))
    assert list(recall_damage(start())["train"]) == [7]
    assert list(json.loads((tmp_path / DAMAGED).read_text())["train"]) == ["7"]


def test_above_the_share_the_run_stops_at_this_and_the_next_start(start):
    run = start()
    run.data["train"].verify(range(12))
    count_damage(run)
    told = r"2 of 12 records are damaged so far; the limit is 1.00%. Repair the data, or .*3.png"
    with pytest.raises(ValueError, match=f"(?s){told}.*7.png"):
        recall_damage(start(max_corrupt=0.01))


@pytest.mark.parametrize("text", ["{", "[]", '{"train": {"x": ""}}', '{"train": 3}', "[" * 99_999])
def test_a_list_that_is_none_is_put_aside(start, tmp_path, text, caplog):
    (tmp_path / DAMAGED).write_text(text)
    assert not any(recall_damage(start()).values())
    assert (tmp_path / f"{DAMAGED}.damaged").read_text() == text
    assert f"{DAMAGED}.damaged: not a list of damaged records" in caplog.text


def test_numbers_beyond_the_data_are_ignored(start, tmp_path):
    (tmp_path / DAMAGED).write_text('{"train": {"99": "gone", "-1": "", "3": ""}, "other": {}}')
    assert list(recall_damage(start())["train"]) == [3]


def test_what_several_processes_have_found_is_counted_once(start, monkeypatch):
    run = start(max_corrupt=0.03)
    run.data["train"].damaged.update({1: "one", 2: "two"})
    other = json.dumps({"train": {"2": "two", "5": "five"}}).encode()
    parts = [other]
    monkeypatch.setattr("paligemma_lib.run.damage.processes.gather", lambda data: [data, *parts])
    assert list(count_damage(run)["train"]) == [1, 2, 5]
    parts.append(b'{"train": {"9": "nine"}}')
    with pytest.raises(ValueError, match="4 of 12 records are damaged"):
        count_damage(run)
