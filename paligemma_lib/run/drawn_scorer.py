"""Scores captions of drawn scenes: beside CIDEr and the like, how many of them are true.

scorer = scorer_of(setup)              # for any run; drawn scenes have more scores
scores = scorer(references, captions)
scores.corpus["True captions"]         # 0.36
"""

import dataclasses
import functools
import re

import numpy as np

from paligemma_lib.checkpoint import load_mask_codec
from paligemma_lib.metrics import ImageId, Scores, tasks
from paligemma_lib.metrics.corpus_scores import Captions, References
from paligemma_lib.metrics.sanity_warnings import EQUALS_A_REFERENCE
from paligemma_lib.metrics.tasks import Scorer
from paligemma_lib.regions import MaskCodec
from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.setup import Setup
from paligemma_lib.sample_data import compose
from paligemma_lib.sample_data.pretraining_scenes import held_out
from paligemma_lib.sample_data.scenes import Scene
from paligemma_lib.sample_data.truth import Truth, truth

TRUE = "True captions"
_NAMES = (TRUE, "True and whole", "Right things", "Right kinds")


def scorer_of(setup: Setup, quiet: bool = False) -> Scorer:
    """Returns what scores the captions of a run.

    Args:
      setup: the run.
      quiet: whether the captions are bad by intention, of which no warning is wanted.
    """
    config = setup.config
    scorer = tasks.scorer_of(config.task, mask_codec(config.masks), quiet)
    if setup.given is not None or not config.data.drawn or config.data.wording != "sentences":
        return scorer
    return functools.partial(_with_truth, scorer, config.seed)


@functools.lru_cache(1)
def mask_codec(path: str) -> MaskCodec | None:
    """Returns the codec of masks in a file; None for "". See `load_mask_codec` for errors."""
    return load_mask_codec(path) if path else None


def score_truth(image_ids: list[ImageId], found: list[Truth]) -> Scores:
    """Returns shares of captions and things that are right, with all that `Scores` can do.

    The names are those of captions that are true in every word; that name every group, too; of
    things whose kind, number and colour are right; of kinds that are there.
    """
    rows = []
    for each in found:
        things, kinds = each.things(), [said.true for said in each.said if said.about == "kind"]
        rows.append(
            [1, each.is_true, each.is_whole, sum(things), len(things), sum(kinds), len(kinds)]
        )
    return Scores.of(_NAMES, image_ids, np.array(rows, float), _shares)


def tell_truth(scores: Scores, config: RunConfig) -> list[str]:
    """Returns a sentence on drawn scenes: how many captions are true; none of other images."""
    if TRUE not in scores.per_image:
        return []
    true = scores.per_image[TRUE]
    told = f"{int(true.sum()):,} of {len(true):,} captions are true in every word"
    scenes = [scene_of(config.seed, image_id) for image_id in scores.image_ids]
    new = np.array([scene is not None and held_out(scene) for scene in scenes])
    if config.model.checkpoint == "nano" and new.any():
        told += (
            f", {int(true[new].sum()):,} of {int(new.sum()):,} where colours, kinds and numbers "
            "come together as the pretraining of nano never showed them"
        )
    return [f"{told}."]


def remark_on(image_id: ImageId, caption: str, seed: int) -> str:
    """Returns what is not true of a caption of a drawn scene; "" if all is, and of other images."""
    scene = scene_of(seed, image_id)
    if scene is None or (found := truth(scene, caption)).is_true:
        return ""
    wrong = [*(each.text for each in found.said if not each.true), *found.unread]
    return f"Not true: {', '.join(wrong)}" if wrong else "It names nothing."


def scene_of(seed: int, image_id: ImageId) -> Scene | None:
    """Returns the scene of an image by the name that `write_scenes` gives to it."""
    number = re.fullmatch(r"scene_(\d+)\.jpg", str(image_id))
    return compose(seed, int(number[1])) if number else None


def _shares(sums: np.ndarray) -> np.ndarray:
    images, true, whole, things, of_things, kinds, of_kinds = np.moveaxis(sums, -1, 0)
    pairs = ((true, images), (whole, images), (things, of_things), (kinds, of_kinds))
    return np.stack([right / np.maximum(number, 1) for right, number in pairs], axis=-1)


def _with_truth(scorer: Scorer, seed: int, references: References, captions: Captions) -> Scores:
    scores = scorer(references, captions)
    # A grammar says few things of a scene: who tells one anew says what a reference says in a third
    # of all images, and nothing has leaked.
    kept = tuple(warning for warning in scores.warnings if EQUALS_A_REFERENCE not in warning)
    scores = dataclasses.replace(scores, warnings=kept)
    found = []
    for image_id in scores.image_ids:
        scene = scene_of(seed, image_id)
        if scene is None or not all(truth(scene, text).is_true for text in references[image_id]):
            told = (
                f"{image_id} is not of the scenes of seed {seed}, as what people say of it is not "
                "true of them: captions are not scored for truth. Use another workdir"
            )
            return dataclasses.replace(scores, warnings=(*scores.warnings, told))
        found.append(truth(scene, captions[image_id]))
    return scores.beside(score_truth(list(scores.image_ids), found))
