"""Scores against people: Kendall's tau-c on Flickr8k-Expert, as published for each score.

5,822 captions of other images, judged by three experts each from 1 to 4; the 158 that are captions
of the image itself are left out, as in the CLIPScore paper (arXiv 2104.08718, table 1).
"""

import shutil

import pytest
from metrics_cases import need_pycocoevalcap
from scipy.stats import kendalltau

from paligemma_lib import metrics

PUBLISHED = {"BLEU-1": 32.3, "BLEU-4": 30.8, "ROUGE-L": 32.3, "CIDEr": 43.9, "METEOR": 41.8}


@pytest.fixture(scope="module")
def expert(shared):
    """References, captions and judgements of each pair of an image and a caption."""
    folder = shared / "flickr8k" / "uiuc_text"
    rows = (folder / "Flickr8k.token.txt").read_text("utf-8").splitlines()
    texts = dict(row.split("\t") for row in rows)
    references: dict[str, list[str]] = {}
    for name, text in texts.items():
        references.setdefault(name.partition("#")[0], []).append(text)
    judged = [row.split() for row in (folder / "ExpertAnnotations.txt").read_text().splitlines()]
    pairs = [
        (image, name, marks) for image, name, *marks in judged if image != name[: name.rfind("#")]
    ]
    return (
        {number: references[image] for number, (image, _, _) in enumerate(pairs)},
        {number: texts[name] for number, (_, name, _) in enumerate(pairs)},
        [list(map(int, marks)) for _, _, marks in pairs],
    )


def tau_c(scores, judgements) -> float:
    """100 x Kendall's tau-c of the scores with each of the three judgements."""
    repeated = [score for score, marks in zip(scores, judgements, strict=True) for _ in marks]
    told = [mark for marks in judgements for mark in marks]
    return 100 * kendalltau(repeated, told, variant="c").statistic


def test_scores_agree_with_people_as_much_as_published(expert):
    references, captions, judgements = expert
    assert len(captions) == 5664
    scores = metrics.score(references, captions)
    for name in ("BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr"):
        found = tau_c(scores.per_image[name], judgements)
        assert found == pytest.approx(PUBLISHED[name], abs=0.05), name


@pytest.mark.slow
def test_meteor_agrees_with_people_as_much_as_published(expert):
    need_pycocoevalcap()
    if shutil.which("java") is None:
        pytest.skip("needs Java")
    references, captions, judgements = expert
    found = metrics.meteor(references, captions)
    assert found.reason is None
    assert tau_c(found.per_image, judgements) == pytest.approx(PUBLISHED["METEOR"], abs=0.05)
