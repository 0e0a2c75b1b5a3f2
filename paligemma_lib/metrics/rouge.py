"""Computes ROUGE-L from the longest common subsequence of a caption and its references.

rouge_l(["a", "dog", "runs"], [["the", "dog", "runs"], ["a", "dog"]])
"""

from collections.abc import Sequence

_BETA = 1.2  # recall weighs beta^2 times as much as precision in the F-measure


def rouge_l(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns ROUGE-L (Lin, 2004) of one caption, in [0, 1], as the COCO caption evaluation does.

    Precision and recall are each the highest over the references, so they may come from different
    references.

    Args:
      candidate: tokens of the caption.
      references: tokens of each reference, at least one.
    """
    # The COCO evaluation splits the text at spaces: "".split(" ") is [""], one empty token.
    candidate = candidate or [""]
    shared = [_longest_common(candidate, reference or [""]) for reference in references]
    precision = max(shared) / len(candidate)
    recall = max(n / max(1, len(r)) for n, r in zip(shared, references, strict=True))
    if not precision:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Returns the length of the longest common subsequence, by bit-parallel addition (Hyyro, 2004).

    Let L[i] be that length for `first[:i]` and the part of `second` read so far. Bit i of `row` is
    0 where L[i + 1] = L[i] + 1, and 1 where they are equal, so the zeros count the length.
    """
    places: dict[str, int] = {}
    for place, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << place
    full = (1 << len(first)) - 1
    # For first = a b and second = b: row = 0b11, matches = 0b10, and (0b101 | 0b01) & 0b11 = 0b01:
    # only b makes the subsequence longer. Carries beyond the last bit never come back down, so
    # dropping them once at the end, with `full`, is enough.
    row = full
    for token in second:
        matches = row & places.get(token, 0)
        row = (row + matches) | (row - matches)
    return len(first) - (row & full).bit_count()
