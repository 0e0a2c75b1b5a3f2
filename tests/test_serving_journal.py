"""Results in parts: they come back bit for bit, and damage is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.captioner import Captioned, Skipped
from paligemma_lib.decode import Caption
from paligemma_lib.serving.journal import PART, Journal, decoded, encoded

text = st.text(max_size=20)
number = st.floats(allow_nan=False, allow_infinity=False, width=32)
caption = st.builds(
    Caption,
    text,
    st.lists(st.integers(0, 99), max_size=4).map(tuple),
    st.lists(number, max_size=4).map(tuple),
    number,
)
captions = st.builds(
    Caption, text, st.just((1,)), st.just((-1.5,)), number, st.lists(caption, max_size=2).map(tuple)
)
results = st.one_of(
    st.builds(Captioned, st.integers(0, 9), text, st.lists(text, max_size=2).map(tuple), captions),
    st.builds(Skipped, text, text),
)


@given(st.lists(results, max_size=4))
def test_results_come_back_bit_for_bit(found):
    assert decoded(encoded(found)) == found


def result(number: int) -> Captioned:
    return Captioned(number, f"{number}.jpg", (), Caption("a dog", (5, 1), (-0.1, -0.2), -0.3))


@pytest.fixture
def journal(tmp_path) -> Journal:
    journal = Journal(tmp_path / "out.parts", {"prompt": "caption en"}, 2 * PART + 3)
    journal.open()
    return journal


def fill(journal: Journal) -> None:
    for part in journal.missing():
        journal.write(part, [result(number) for number in journal.numbers(part)])


def test_parts_cover_all_records_once(journal):
    numbers = [number for part in journal.missing() for number in journal.numbers(part)]
    assert numbers == list(range(2 * PART + 3))
    journal.write(1, [result(number) for number in journal.numbers(1)])
    assert journal.missing() == [0, 2]
    fill(journal)
    assert list(journal.results()) == [result(number) for number in numbers]


def test_a_job_with_other_settings_does_not_go_on(journal, tmp_path):
    other = Journal(tmp_path / "out.parts", {"prompt": "describe en"}, 2 * PART + 3)
    with pytest.raises(ValueError, match="prompt 'caption en' there, 'describe en' now"):
        other.open()
    Journal(tmp_path / "out.parts", {"prompt": "caption en"}, 2 * PART + 3).open()


DAMAGED = [b"", b"{", b"[1]\n", b'"a"\n' * PART, b"1\n", b'{"where": "a"}\n', b"\xff\n"]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_part_is_put_aside_and_missing(journal, tmp_path, caplog, content):
    fill(journal)
    (part,) = (tmp_path / "out.parts").glob("part-000001-*.jsonl")
    part.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{part.name}: it .*; start again"):
        list(journal.results())
    assert journal.missing() == [1]
    assert "put aside" in caplog.text
    assert "its images are captioned again" in caplog.text
    assert part.with_name(f"{part.name}.damaged").read_bytes() == content
    fill(journal)
    assert [each.number for each in journal.results()] == list(range(2 * PART + 3))


@pytest.mark.parametrize("content", ["[", "[]", ""])
def test_settings_that_are_damaged_are_put_aside_and_the_parts_stay(
    journal, tmp_path, caplog, content
):
    fill(journal)
    path = tmp_path / "out.parts" / "settings.json"
    whole = path.read_bytes()
    path.write_text(content)
    same = Journal(tmp_path / "out.parts", {"prompt": "caption en"}, 2 * PART + 3)
    same.open()
    assert same.missing() == []
    assert path.read_bytes() == whole
    assert "settings.json: put aside as settings.json.damaged" in caplog.text


def test_parts_without_settings_are_not_taken_for_those_of_another_job(journal, tmp_path):
    fill(journal)
    (tmp_path / "out.parts" / "settings.json").unlink()  # as when `remove` was killed
    other = Journal(tmp_path / "out.parts", {"prompt": "describe en"}, 2 * PART + 3)
    other.open()
    assert other.missing() == [0, 1, 2]


def test_nothing_is_left_at_the_end(journal, tmp_path):
    fill(journal)
    journal.remove()
    assert list(tmp_path.iterdir()) == []
