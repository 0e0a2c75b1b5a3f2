"""ROUGE-L: how long a sequence of words, with gaps, a caption shares with its references.

rouge_l(["a", "dog", "runs"], [["the", "dog", "runs"], ["a", "dog"]])
"""

from collections.abc import Sequence

_BETA = 1.2  # how much more recall weighs than precision


def rouge_l(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L (Lin, 2004) of one caption, in [0, 1], as the COCO caption evaluation takes it.

    Precision and recall are each those of the reference where they are highest.

    Args:
      candidate: tokens.
      references: tokens, at least one sequence of them.
    """
    # There, splitting an empty caption gives one empty token.
    candidate = candidate or [""]
    shared = [_longest_common(candidate, reference or [""]) for reference in references]
    precision = max(shared) / len(candidate)
    recall = max(n / max(1, len(r)) for n, r in zip(shared, references, strict=True))
    if not precision:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, by the bits of whole numbers (Hyyro, 2004).

    Bit i of `row` is 0 where taking in `first[i]` makes the common subsequence longer.
    """
    places: dict[str, int] = {}
    for place, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << place
    full = (1 << len(first)) - 1
    row = full
    for token in second:
        matches = row & places.get(token, 0)
        row = (row + matches) | (row - matches)
    return len(first) - (row & full).bit_count()
