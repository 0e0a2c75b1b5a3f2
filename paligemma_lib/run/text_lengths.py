"""Finds how many text tokens the examples of a run need, before it starts.

found = longest_text(source, tokenizer, prompt="caption en", seconds=10)
found.tokens, found.where, found.seen           # 87, "captions.csv, line 12", 8000
"""

import dataclasses
import time

import jax
import numpy as np

from paligemma_lib.data import order
from paligemma_lib.data.sources.protocol import Record, Source, read_texts
from paligemma_lib.tokenizer import Tokenizer

_MULTIPLE = 8  # lengths that accelerators like are multiples of this
_RESERVE = 1.25  # for longer texts among the records that were not read

_CHUNK = 64  # records read at a time


@dataclasses.dataclass(frozen=True)
class LongestText:
    """The longest example among the records that this process has read.

    Attributes:
      tokens: tokens of prompt and captions.
      prefix, suffixes: how many of them are of the prompt, and the number of captions.
      where: record of the example, with its image id.
      seen: number of records read.
      total: number of records in the share of this process.
    """

    tokens: int = 0
    prefix: int = 0
    suffixes: int = 0
    where: str = ""
    seen: int = 0
    total: int = 0

    def check(self, text_len: int) -> None:
        """Raises ValueError if the example needs more than `text_len` tokens."""
        if self.tokens > text_len:
            raise ValueError(
                f"{self.where}: its text needs {self.tokens} tokens ({self.prefix} of the prompt, "
                f"the others of {self.suffixes} captions), text_len is {text_len}. Set text_len=0 "
                "to take it from the data, use captions='sample' for one caption per example, or "
                "truncate=True"
            )

    @property
    def complete(self) -> bool:
        """Whether all records were read, so that another time finds the same length."""
        return self.seen == self.total

    @property
    def text_len(self) -> int:
        """Text positions for all examples of the source: rounded up to a multiple of 8.

        If only a part of the records was read, a quarter is added for the others.
        """
        needed = self.tokens if self.complete else self.tokens * _RESERVE
        return _MULTIPLE * -int(-needed // _MULTIPLE)


def longest_text(
    source: Source,
    tokenizer: Tokenizer,
    *,
    prompt: str,
    lowercase: bool = False,
    captions: str = "packed",
    seconds: float,
) -> LongestText:
    """Tokenizes the texts of a source, for as long as the time allows.

    Each of several processes reads its share of the records. Sources that can return texts without
    images do so. Reading records of other sources also verifies their checksums.

    Args:
      source: the records.
      tokenizer, lowercase, captions: as for `train_batches`.
      prompt: the prefix of records that have none of their own.
      seconds: time after which no more records are read. Those that were read by then are spread
        evenly over the source.

    Raises:
      ValueError, FileNotFoundError: a record cannot be read.
    """
    count = -(-len(source) // _CHUNK)
    mine = np.arange(jax.process_index(), count, jax.process_count())
    # In the order of a permutation, so that at any time the chunks read so far are a fair sample.
    starts = _CHUNK * order.permute(mine, max(count, 1), np.zeros(1, np.uint64))
    chunks = [range(start, min(start + _CHUNK, len(source))) for start in starts.tolist()]
    total = sum(map(len, chunks))
    found, end = LongestText(total=total), time.monotonic() + seconds
    for numbers in chunks:
        if found.seen and time.monotonic() > end:
            break
        for number, record in zip(numbers, read_texts(source, numbers), strict=True):
            found = dataclasses.replace(found, seen=found.seen + 1)
            prefix, suffixes = _lengths(record, tokenizer, prompt, lowercase)
            if captions == "sample":
                suffixes = [max(suffixes, default=0)]
            if (tokens := prefix + sum(suffixes)) > found.tokens:
                where = f"image {record.image_id} ({source.where(number)})"
                found = LongestText(tokens, prefix, len(suffixes), where, found.seen, total)
    return found


def _lengths(
    record: Record, tokenizer: Tokenizer, prompt: str, lowercase: bool
) -> tuple[int, list[int]]:
    """Returns the number of tokens of the prompt, and of each caption with its EOS."""
    texts = [text.lower() if lowercase else text for text in record.captions]
    prefix = tokenizer.encode_prefix(prompt if record.prefix is None else record.prefix)
    return len(prefix), [len(tokenizer.encode_suffix(text)) for text in texts]
