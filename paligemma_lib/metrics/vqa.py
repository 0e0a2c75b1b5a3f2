"""Scores answers to questions about images: the accuracy of VQA v2, and exact matches.

score_answers({"1": ["two", "2", "two"]}, {"1": "2"}).corpus["VQA accuracy"]

Source: arXiv 1505.00468 and https://visualqa.org/evaluation.html.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from paligemma_lib.metrics.caption_checks import check_captions
from paligemma_lib.metrics.corpus_scores import Captions, References, Scores

NAMES = ("VQA accuracy", "Exact match")

_AGREEING = 3  # people who must have given an answer for it to be right
_NUMBERS = "zero one two three four five six seven eight nine ten".split()  # noqa: SIM905
_WORDS = {word: str(value) for value, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
# A comma between digits groups them. A period ends no sentence before a digit.
_COMMA, _PERIOD = re.compile(r"(?<=\d),(?=\d)"), re.compile(r"\.(?!\d)")
_PUNCTUATION = re.compile(r"[;/\[\]\"{}()=+\\_<>@`,?!\-]")


def normalized(answer: str) -> str:
    """Returns an answer in the form in which answers are compared.

    It is lower-cased; articles and punctuation are left out; numbers up to ten become digits; and
    contractions lose their apostrophe, so that "dont" is "don't".
    """
    text = _PERIOD.sub("", _COMMA.sub("", answer.lower().replace("\n", " ")))
    words = _PUNCTUATION.sub(" ", text).replace("'", "").split()
    return " ".join(_WORDS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Returns the accuracy of one answer, 0 to 1.

    An answer is right as far as three people gave it: min(n / 3, 1), where n of them did. The mean
    is taken over all subsets without one person, as the evaluation server does. Where there are
    fewer than four references, all of the others must agree; with a single one, it must be equal.

    Args:
      answer, references: from `normalized`; at least one reference.
    """
    same = sum(each == answer for each in references)
    if len(references) == 1:
        return float(same)
    needed = min(_AGREEING, len(references) - 1)
    shares = [min((same - (each == answer)) / needed, 1.0) for each in references]
    return sum(shares) / len(shares)


def score_answers(references: References, captions: Captions) -> Scores:
    """Returns the VQA accuracy, and how many answers equal one of the references.

    Args:
      references: for each question, the answers that people gave, ten in VQA v2.
      captions: for each of the same questions, the answer of the model.

    Raises:
      ValueError: there are no questions, the ids differ, or an answer is not text.
    """
    check_captions(references, captions)
    rows, empty = [], []
    for image_id, told in references.items():
        said, theirs = normalized(captions[image_id]), [*map(normalized, told)]
        rows.append([vqa_accuracy(said, theirs), float(said in theirs), 1.0])
        empty += [image_id] * (not said)
    warnings = []
    if empty:
        warnings = [
            f"{len(empty):,} of {len(rows):,} answers are empty: is EOS the first token of all? "
            f"First: {empty[0]!r}"
        ]
    return Scores.of(NAMES, [*references], np.array(rows), _means, warnings)


def _means(sums: np.ndarray) -> np.ndarray:
    """Converts float64[..., 3] sums, of which the last counts, to float64[..., 2] means."""
    return sums[..., :2] / sums[..., 2:]
