"""Captions by several processes: who reads what. The scripts' tests show that they say the same."""

import captioning_cases as cases
import jax
import pytest

from paligemma_lib.captioner import Captioner, streaming
from paligemma_lib.runtime import processes


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
        assert list(Captioner(cases.CONFIG, {}, None).stream(source, batch_size=batch_size)) == []
        read.append(source.read_numbers)
    assert sorted(number for each in read for number in each) == list(range(total))
    assert max(map(len, read)) <= -(-total // min(batch_size, total)) * -(-batch_size // count)
