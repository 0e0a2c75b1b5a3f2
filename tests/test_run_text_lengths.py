"""How many text tokens the examples of a run need."""

import pytest
from data_cases import photo
from run_cases import setup_of, write_run

from paligemma_lib.data.replacing import replace_corrupt
from paligemma_lib.data.sources import Record, open_source
from paligemma_lib.data.sources.hashed_splits import HashedSplit
from paligemma_lib.run import checks
from paligemma_lib.run.prepare import prepare
from paligemma_lib.run.text_lengths import longest_text
from paligemma_lib.testing import tiny_tokenizer

LONG = "a dog runs over the snow"


class Counted:
    """Records without texts of their own; all but one have the same caption."""

    def __init__(self, count, longest):
        self.count, self.longest, self.read_numbers = count, longest, []

    def __len__(self):
        return self.count

    def read(self, numbers):
        self.read_numbers += numbers
        captions = [(LONG, LONG) if number == self.longest else (LONG,) for number in numbers]
        return [Record(b"", *each) for each in zip(captions, map(str, numbers), strict=True)]

    def where(self, number):
        return f"row {number}"

    def fingerprint(self):
        return "0"


def longest(source, seconds=60.0, **options):
    return longest_text(source, tiny_tokenizer(), prompt="caption en", seconds=seconds, **options)


def tokens(*captions):
    encoder = tiny_tokenizer()
    prefix = len(encoder.encode_prefix("caption en"))
    return prefix + sum(len(encoder.encode_suffix(caption)) for caption in captions)


@pytest.mark.parametrize("captions", ["packed", "sample"])
def test_the_longest_of_all_examples_is_found(captions):
    source = Counted(1000, longest=777)
    found = longest(source, captions=captions)
    needed = tokens(LONG, LONG) if captions == "packed" else tokens(LONG)
    assert (found.tokens, found.seen, found.total) == (needed, 1000, 1000)
    if captions == "packed":
        assert found.where == "image 777 (row 777)"
    assert found.text_len % 8 == 0 and needed <= found.text_len < needed + 8
    assert sorted(source.read_numbers) == list(range(1000))


def test_with_little_time_a_part_is_read_and_a_reserve_is_added():
    found = longest(Counted(1_000_001, longest=0), seconds=0.0)
    assert 0 < found.seen < 1000 and found.total == 1_000_001
    assert found.text_len >= 1.25 * found.tokens
    assert longest(Counted(0, 0)).tokens == 0


def test_processes_share_the_records(monkeypatch):
    import jax

    monkeypatch.setattr(jax, "process_count", lambda: 3)
    read = []
    for index in range(3):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        source = Counted(333, longest=5)
        found = longest(source)
        assert found.seen == found.total == len(source.read_numbers)
        read += source.read_numbers
    assert sorted(read) == list(range(333))


def test_an_example_that_does_not_fit_is_named():
    found = longest(Counted(3, longest=1))
    found.check(found.tokens)
    with pytest.raises(ValueError, match=r"image 1 \(row 1\): its text needs .* of 2 captions"):
        found.check(found.tokens - 1)


def test_images_are_not_read_for_their_texts(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(photo(number))
        (tmp_path / f"{number}.txt").write_text(LONG)
    beside = open_source(str(tmp_path))
    table = tmp_path / "table.csv"
    table.write_text("image,caption\n" + "".join(f"{number}.png,{LONG}\n" for number in range(3)))
    rows = open_source(str(table))
    sources = [beside, rows, HashedSplit(rows, "train"), replace_corrupt(rows)]
    assert [len(source) for source in sources] == [3, 3, 3, 3]  # opens them
    for number in range(3):
        (tmp_path / f"{number}.png").unlink()
    for source in sources:
        assert longest(source).tokens == tokens(LONG)


def test_a_run_takes_its_length_from_the_data(tmp_path):
    setup = setup_of(write_run(tmp_path), text_len=0, workdir=str(tmp_path / "run"))
    needed = max(each.tokens for each in setup.longest_texts.values())
    assert setup.text_len == -(-needed // 8) * 8
    assert f"need {needed} of {setup.text_len} tokens" in checks.texts(setup)
    assert "GiB per device" in checks.memory(setup)
    assert prepare(setup).config.text_len == setup.text_len
