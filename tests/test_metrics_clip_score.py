"""CLIPScore and RefCLIPScore: the formulas of the paper, on vectors that are written down."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.metrics.clip_score import clip_scores, ref_clip_scores


def at(*degrees: float) -> np.ndarray:
    """Vectors of length 1 in a plane."""
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_a_score_is_2_5_times_the_cosine_and_never_negative():
    found = clip_scores(at(0, 0, 0), at(0, 60, 120))
    assert found == pytest.approx([2.5, 1.25, 0])


def test_with_references_it_is_the_harmonic_mean_with_the_nearest_of_them():
    captions = at(60, 60)
    clip = clip_scores(at(0, 0), captions)  # 1.25
    found = ref_clip_scores(clip, captions, [at(0, 120, 60), at(0)])  # cosines 1 and 0.5
    assert found == pytest.approx([2 * 1.25 / 2.25, 2 * 1.25 * 0.5 / 1.75])


def test_a_caption_like_nothing_scores_0():
    assert ref_clip_scores(np.zeros(1), at(0), [at(180)]).tolist() == [0]


@given(st.lists(st.tuples(*[st.floats(0, 360)] * 3), min_size=1, max_size=9))
def test_scores_are_in_bounds_and_a_mean_lies_between(angles):
    images, captions, references = (at(*each) for each in zip(*angles, strict=True))
    clip = clip_scores(images, captions)
    both = ref_clip_scores(clip, captions, [each[None] for each in references])
    best = np.maximum(np.sum(captions * references, axis=1), 0)
    assert np.all((clip >= 0) & (clip <= 2.5 + 1e-6))
    assert np.all(both <= np.maximum(clip, best) + 1e-6)
    assert np.all(both >= np.minimum(clip, best) - 1e-6)
