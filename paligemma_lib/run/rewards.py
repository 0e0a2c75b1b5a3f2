"""Makes the rewards that a run may train for: CIDEr, the truth of drawn scenes, length, your own.

    reward = reward_of(setup)
    reward(["a dog runs"], [("A dog is running .", "A dog .")], ["dog.jpg"])       # [4.2]

A reward of your own is a function with these arguments, named as `package.module:name`.
"""

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from paligemma_lib.data.sources import Source
from paligemma_lib.data.sources.protocol import read_texts
from paligemma_lib.metrics.cider import Cider, frequencies
from paligemma_lib.metrics.ngrams import Counts, count
from paligemma_lib.metrics.tokens import tokenize
from paligemma_lib.run.dotted import is_dotted, load_dotted
from paligemma_lib.run.drawn_scorer import scene_of
from paligemma_lib.run.setup import Setup
from paligemma_lib.sample_data.truth import truth

_CHUNK = 1024  # records read at a time
_KEPT = 1 << 16


class Reward(Protocol):
    """Says how good captions are, in any unit; only differences between captions matter."""

    def __call__(
        self,
        captions: Sequence[str],
        references: Sequence[Sequence[str]],
        image_ids: Sequence[str],
    ) -> Sequence[float]:
        """Returns a finite reward of each caption.

        Args:
          captions: captions that the model has sampled; several may be of one image.
          references: for each of them, what people say of its image.
          image_ids: for each of them, the name of its image.
        """
        ...


def reward_of(setup: Setup, train: Source) -> Reward:
    """Makes the reward that the config of a run names.

    Args:
      setup: the run.
      train: its training images, whose captions say how rare words are.

    Raises:
      ConfigError: a reward of one's own cannot be imported.
    """
    name = setup.config.reward.name
    if is_dotted(name):
        return own_reward(name)
    if name == "length":
        return length
    return cider(train) if name == "cider" else functools.partial(scene_truth, setup.config.seed)


def own_reward(name: str) -> Reward:
    """Imports a reward of the user's own, as `reward_of`; of a class, an object is made."""
    found = load_dotted(name, "reward.name")
    return found() if isinstance(found, type) else found


def length(
    captions: Sequence[str], references: Sequence[Sequence[str]], image_ids: Sequence[str]
) -> list[float]:
    """Returns minus the difference to the mean length of the references, in words."""
    return [
        -abs(len(caption.split()) - float(np.mean([len(each.split()) for each in told])))
        for caption, told in zip(captions, references, strict=True)
    ]


def cider(train: Source) -> Reward:
    """Returns CIDEr-D, 0 to 10, in which words are as rare as in the captions of `train`."""
    counted = functools.lru_cache(_KEPT)(_counted)
    told: list[list[Counts]] = []
    for start in range(0, len(train), _CHUNK):
        records = read_texts(train, range(start, min(start + _CHUNK, len(train))))
        told += [[_counted(text) for text in record.captions] for record in records]
    scorer = Cider(frequencies(told))

    def reward(
        captions: Sequence[str], references: Sequence[Sequence[str]], image_ids: Sequence[str]
    ) -> list[float]:
        said = [counted(caption) for caption in captions]
        return scorer.scores(said, [[counted(r) for r in each] for each in references]).tolist()

    return reward


def scene_truth(
    seed: int,
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    image_ids: Sequence[str],
) -> list[float]:
    """Returns the share that is right of what should be said, and of what is said falsely.

    A group is right with its kind, number and colour. Beside all groups, each false statement
    counts and each word that says nothing; so do a second word on the surroundings, and a second
    one on where a thing is or what it does. So 1 is a caption that names every group, and of which
    every word is true, and 0 one that says nothing. Words that are easily true give nothing: a
    model that is rewarded for them says "in winter" for ever. And nothing is below 0: a model that
    is often wrong would learn to be silent.
    """
    rewards = []
    for caption, image_id in zip(captions, image_ids, strict=True):
        scene = scene_of(seed, image_id)
        if scene is None:
            raise ValueError(f"{image_id} is not of a drawn scene: its truth is not known")
        found = truth(scene, caption)
        false = sum(not each.true for each in found.said) + len(found.unread)
        counts: Counter[str] = Counter(each.about for each in found.said)
        allowed = {"surroundings": 1, "place": counts["kind"], "doing": counts["kind"]}
        again = sum(max(0, counts[about] - most) for about, most in allowed.items())
        rewards.append(sum(found.things()) / (len(scene.groups) + false + again))
    return rewards


def _counted(text: str) -> Counts:
    return count(tokenize(text))
