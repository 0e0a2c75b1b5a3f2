"""Packs the prefix and the suffixes of one image into the text arrays of the batch contract.

    row = pack(tokenizer.encode_prefix("caption en"),
               [tokenizer.encode_suffix(caption) for caption in captions], text_len=128)
    row["text"], row["segment"], row["position"], row["loss_weight"]     # each [T]

Packing puts all suffixes of an image behind one prefix. With the prefix `p q` and the suffixes
`a b .` and `c .`, where `.` is EOS, seven tokens fill seven of T = 10 positions:

    text         p  q   a   b   .   c   .   _  _  _
    segment      0  0   1   1   1   2   2  -1 -1 -1
    position     0  1   2   3   4   2   3   0  0  0
    loss_weight  0  0  1/3 1/3 1/3 1/2 1/2  0  0  0

With this `segment` and `position`, a suffix attends to the image, the prefix and its own past, but
not to other suffixes: see `batch.attention_mask`. The weights of a suffix sum to one. So
sum(weight * loss) / sum(weight) is the mean over captions of each caption's mean loss, as in
big_vision.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from paligemma_lib.batch import EOS
from paligemma_lib.data.argument_checks import MAX_TEXT_LEN, check_whole


def decoded(data: bytes) -> str:
    """Decodes text from UTF-8, with or without a byte-order mark, or from UTF-16 with one.

    Raises:
      ValueError: the text is in another encoding; the message names the line.
    """
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        name = encoding.removesuffix("-sig").upper()
        raise ValueError(f"line {line} is not {name} ({error.reason}): save it as UTF-8") from error


def lines_of(data: bytes) -> list[str]:
    """Returns the lines of decoded text, without their ends."""
    # `str.splitlines` would also split at characters such as U+2028, which may stand in a caption.
    lines = re.split(r"\r\n|\r|\n", decoded(data))
    return lines if lines[-1] else lines[:-1]


def cleaned(caption: str) -> str:
    """Returns a caption on one line, without whitespace at its ends.

    A line break within a caption becomes a space, because its token is the one that ends a prefix.
    Case, other inner whitespace and punctuation stay as they are.
    """
    caption = caption.strip()
    if "\n" not in caption and "\r" not in caption:  # nearly all
        return caption
    return re.sub(r"\s*[\r\n]+\s*", " ", caption)


def pack(
    prefix: Sequence[int],
    suffixes: Sequence[Sequence[int]],
    text_len: int,
    *,
    truncate: bool = False,
) -> dict[str, np.ndarray]:
    """Lays out the text of one example; a single suffix is the usual, unpacked case.

    Args:
      prefix: token ids, from BOS to newline.
      suffixes: token ids of each suffix, ending in EOS. An empty list gives the prefix alone.
      text_len: T, the number of text positions of an example.
      truncate: whether to cut the longest suffixes if they do not all fit; each keeps its EOS.

    Returns:
      `text`, `segment`, `position`: int32[T], `loss_weight`: float32[T].

    Raises:
      ValueError: the text needs more than T tokens, and either `truncate` is false, or truncating
        would leave a suffix with EOS alone.
    """
    if type(text_len) is not int:
        text_len = check_whole("text_len", text_len, 0, MAX_TEXT_LEN)
    lengths = [len(suffix) for suffix in suffixes]
    needed = len(prefix) + sum(lengths)
    if needed > text_len:
        if not truncate:
            raise ValueError(
                f"the text needs {needed} tokens ({len(prefix)} of prefix, {sum(lengths)} of "
                f"{len(suffixes)} suffixes), but text_len is {text_len}. Raise text_len, use "
                'captions="sample" for one suffix per example, or set truncate=True'
            )
        # All suffixes have the same limit: longer ones are cut to it, shorter ones stay whole.
        limit = _limit(lengths, text_len - len(prefix))
        # A suffix of EOS alone would teach the model empty captions, so a limit of 1 is an error.
        if limit < min(2, max(lengths, default=1)):
            raise ValueError(
                f"{len(prefix)} tokens of prefix and two for each of {len(suffixes)} suffixes do "
                f"not fit into text_len {text_len} even when truncated: raise text_len"
            )
        suffixes = [
            suffix if len(suffix) <= limit else [*suffix[: limit - 1], EOS] for suffix in suffixes
        ]

    # Segment 0 is the prefix, segment k the k-th suffix. Positions and weights follow from the
    # segment of each token and where that segment starts, so whole rows are computed at once.
    segments = [prefix, *suffixes]
    counts = np.array([len(tokens) for tokens in segments])
    segment = np.repeat(np.arange(len(segments)), counts)
    index = np.arange(len(segment))
    # For the example in the module docstring: counts [2, 3, 2], starts of segments [0, 2, 5], and
    #     start  0  0  2  2  2  5  5
    start = (np.cumsum(counts) - counts)[segment]
    supervised = segment > 0
    # The positions of every suffix continue from the end of the prefix.
    return {
        "text": _padded(np.concatenate(segments), text_len, 0, np.int32),
        "segment": _padded(segment, text_len, -1, np.int32),
        "position": _padded(index - start + supervised * counts[0], text_len, 0, np.int32),
        "loss_weight": _padded(supervised / counts[segment], text_len, 0, np.float32),
    }


def _padded(values: np.ndarray, length: int, padding: int, dtype: type) -> np.ndarray:
    row: np.ndarray = np.full(length, padding, dtype)
    row[: len(values)] = values
    return row


def _limit(lengths: Sequence[int], total: int) -> int:
    """Returns the largest length limit for which all suffixes fit into `total` tokens."""
    # This is the largest limit for which sum(min(length, limit)) <= total. A row has few suffixes,
    # so counting down is fast enough.
    limit = max(lengths, default=0)
    while limit > 0 and sum(min(length, limit) for length in lengths) > total:
        limit -= 1
    return limit
