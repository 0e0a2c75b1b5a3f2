"""Captions by several processes: who reads what. The scripts' tests show that they say the same."""

import captioning_cases as cases
import jax
import pytest

from paligemma_lib.captioner import Captioner, Skipped, streaming
from paligemma_lib.data import Record
from paligemma_lib.runtime import processes
from paligemma_lib.testing import tiny_tokenizer


class Watched:
    """A source of so many images that cannot be decoded; notes which are read."""

    def __init__(self, count: int):
        self.count, self.read_numbers = count, []

    def __len__(self):
        return self.count

    def where(self, number):
        return str(number)

    def read(self, numbers):
        self.read_numbers += numbers
        raise ValueError("damaged")


@pytest.mark.parametrize(("total", "batch_size"), [(11, 4), (3, 8), (1, 1), (9, 2), (8, 6)])
@pytest.mark.parametrize("count", [2, 4])
def test_each_image_is_read_by_one_process_alone(monkeypatch, count, total, batch_size):
    monkeypatch.setattr(jax, "process_count", lambda: count)
    monkeypatch.setattr(processes, "gather", lambda data: [data])
    monkeypatch.setattr(processes, "gather_rows", lambda rows: rows)
    monkeypatch.setattr(streaming, "generate", lambda *_, **__: [])
    read = []
    for index in range(count):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        source = Watched(total)
        captioner = Captioner(cases.CONFIG, {}, tiny_tokenizer())
        assert list(captioner.stream(source, batch_size=batch_size)) == []
        read.append(source.read_numbers)
    assert sorted(number for each in read for number in each) == list(range(total))
    assert max(map(len, read)) <= -(-total // min(batch_size, total)) * -(-batch_size // count)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0, expected a whole number of at least 1"),
        ({"batch_size": 2.0}, "batch_size=2.0"),
        ({"batch_size": True}, "batch_size=True"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_new_tokens": float("nan")}, "max_new_tokens=nan"),
        ({"count": 0}, "count=0, expected a whole number of at least 1"),
        ({"count": -1}, "count=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**64}, "seed=18446744073709551616"),
        ({"prompt": "<image>caption en"}, "has <image>: leave it out"),
        ({"prompt": 3}, "prompt is of type int"),
    ],
)
def test_what_is_out_of_range_is_told_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        Captioner(cases.CONFIG, {}, tiny_tokenizer()).stream(Watched(3), **options)


class Prefixed(Watched):
    """A source whose records have a prefix that cannot be a prompt."""

    def read(self, numbers):
        return [Record(b"", (), str(k), "<bos>caption en") for k in numbers]


def test_a_prefix_that_cannot_be_encoded_skips_its_image_alone(monkeypatch):
    monkeypatch.setattr(streaming, "generate", lambda *_, **__: ["caption"])
    (found,) = Captioner(cases.CONFIG, {}, tiny_tokenizer()).stream(Prefixed(1))
    assert isinstance(found, Skipped) and "has <bos>" in found.problem
