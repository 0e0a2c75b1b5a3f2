"""What is said of captions, references and arguments that cannot be."""

import pytest
from metrics_cases import CAPTIONS, REFERENCES

from paligemma_lib import metrics


@pytest.mark.parametrize(
    ("references", "captions", "message"),
    [
        ({}, {}, "no references"),
        ({"a": ["x"]}, {}, "1 only in the references: 'a'.*score the same split"),
        ({"a": ["x"]}, {"a": "x", "b": "y"}, "1 only in the captions: 'b'"),
        ({1: ["x"]}, {"1": "x"}, "int on one side and str on the other"),
        ({i: ["x"] for i in range(9)}, {0: "x"}, "8 only in the references: 1, 2, 3, 4, 5 and 3"),
        ({"a": "x"}, {"a": "x"}, "that are empty or not a sequence of str: 'a'.*give a list"),
        ({"a": []}, {"a": "x"}, "references that are empty .*: 'a'"),
        ({"a": ["x", None]}, {"a": "x"}, "not a sequence of str"),
        ({"a": ["x"]}, {"a": ["x"]}, "captions that are not str: 'a'.*type list"),
        ({"a": ["x"]}, {"a": b"x"}, "type bytes"),
        ({1.5: ["x"]}, {1.5: "x"}, "neither str nor int: 1.5"),
        ([["x"]], {"a": "x"}, "references are of type list, expected a mapping"),
        ({"a": ["x"]}, ["x"], "captions are of type list, expected a mapping"),
    ],
)
def test_bad_input_is_named(references, captions, message):
    with pytest.raises(ValueError, match=message):
        metrics.score(references, captions)


def test_bad_arguments_are_named():
    scores = metrics.score(REFERENCES, CAPTIONS)
    with pytest.raises(ValueError, match="confidence=95, expected a finite number above 0"):
        scores.intervals(confidence=95)
    with pytest.raises(ValueError, match="resamples=0, expected a whole number from 1"):
        scores.intervals(resamples=0)
    for name, value in (("resamples", 10.0), ("resamples", True), ("seed", -1), ("seed", 0.5)):
        with pytest.raises(ValueError, match=f"{name}={value}, expected a whole number"):
            scores.intervals(**{name: value})
        with pytest.raises(ValueError, match=f"{name}={value}, expected a whole number"):
            metrics.compare(scores, scores, **{name: value})
    for value in (0, 1, True, float("nan"), "0.9"):
        with pytest.raises(ValueError, match="confidence="):
            scores.intervals(confidence=value)
    with pytest.raises(ValueError, match="seed=-1"):
        metrics.permuted(REFERENCES, CAPTIONS, seed=-1)
    other = metrics.score({"a.jpg": ["x"]}, {"a.jpg": "x"})
    with pytest.raises(ValueError, match="2 only in the first scores: 'b.jpg', 'c.jpg'"):
        metrics.compare(scores, other)
