"""METEOR and SPICE: what is said where they, or the programs that they need, are missing."""

import importlib.util
import shutil

import pytest
from metrics_cases import CAPTIONS, REFERENCES, need_pycocoevalcap

from paligemma_lib import metrics


@pytest.mark.slow
def test_meteor_where_it_is_installed():
    need_pycocoevalcap()
    if shutil.which("java") is None:
        pytest.skip("needs Java")
    result = metrics.meteor(REFERENCES, CAPTIONS)
    assert result.reason is None
    assert 0.2 < result.value < 0.6
    assert len(result.per_image) == len(REFERENCES)


def test_java_scores_say_what_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for ask in (metrics.meteor, metrics.spice):
        found = ask(REFERENCES, CAPTIONS)
        assert found.value is None
        assert "needs pycocoevalcap: pip install pycocoevalcap" in found.reason
    with pytest.raises(ValueError, match="no references"):
        metrics.meteor({}, {})


def test_java_scores_say_that_java_is_missing(monkeypatch):
    need_pycocoevalcap()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "METEOR needs Java" in metrics.meteor(REFERENCES, CAPTIONS).reason
    assert "SPICE needs" in metrics.spice(REFERENCES, CAPTIONS).reason


def test_java_scores_tell_why_a_program_failed(monkeypatch):
    need_pycocoevalcap()
    from pycocoevalcap.meteor import meteor

    class Died:
        def compute_score(self, references, captions):
            return float(b"".strip()), []  # what it reads from a program that is no more

    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(meteor, "Meteor", Died)
    result = metrics.meteor(REFERENCES, CAPTIONS)
    assert result.value is None
    assert "METEOR failed: ValueError" in result.reason
