"""Samples captions of each batch and rewards them, so that a step trains for the reward.

    self_critical = SelfCritical(prepared, start)
    batch, told = self_critical.batch(state, batch, batches, step)
    state, metrics = train_step(state, batch)

The K captions of an image are drawn after one prefill, and packed behind it like the captions of
people: the backward pass computes the image once, too. Which captions are drawn depends on the
seed, the step and the parameters alone, so that a run that goes on is one that never stopped.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from paligemma_lib import sharding
from paligemma_lib.batch import EOS, Batch
from paligemma_lib.data.batches import Batches
from paligemma_lib.data.text import pack
from paligemma_lib.decode import BestOf, Sample, image_keys
from paligemma_lib.decode.devices import images_sharding
from paligemma_lib.decode.loop import extend, hypotheses, prefill
from paligemma_lib.decode.prompt import pad_prompts
from paligemma_lib.decode.samples import check_finite
from paligemma_lib.run.prepare import Prepared
from paligemma_lib.run.rewards import reward_of
from paligemma_lib.runtime import processes
from paligemma_lib.train import TrainState
from paligemma_lib.train.policy import advantages, divergence, make_logprob_step, policy_weights
from paligemma_lib.trainable import Parts, merge

_LENGTHS = 8  # a step compiles for each length of text, so the shortest of eight is taken


class SelfCritical:
    """Turns batches of a run into batches of its own captions, weighted by their rewards."""

    def __init__(self, prepared: Prepared, start: Parts) -> None:
        """Makes the reward.

        Args:
          prepared: the run.
          start: trained parameters before the first step; only read where `reward.kl` is not 0.
        """
        self._prepared, self._options = prepared, prepared.config.reward
        self._reward = reward_of(prepared.setup, prepared.data["train"])
        self._start = start
        self._logprobs = make_logprob_step(prepared.model, mesh=prepared.mesh)
        self._key = jax.random.fold_in(jax.random.key(prepared.config.seed), 2)
        self._sampler = BestOf(self._options.samples, Sample(self._options.temperature))

    def batch(
        self, state: TrainState, batch: Batch, batches: Batches, step: int
    ) -> tuple[Batch, Mapping[str, float]]:
        """Returns a batch of sampled captions of the same images, and what is to be recorded.

        Args:
          state: the model that writes.
          batch: this process's rows; their images and prompts are kept.
          batches: the iterator that made it.
          step: index of the step.

        Raises:
          NotFinite: the model's logits for an image are NaN or infinite.
          ValueError: a reward is not finite, or there are not as many as captions.
        """
        prompts = _prompts(batch)
        tokens, logprobs = self._drawn(state, batch["image"], prompts, step)
        rows = slice(first := jax.process_index() * len(batch["text"]), first + len(batch["text"]))
        captions = [[_ended(row) for row in image] for image in tokens[rows].tolist()]
        rewards = self._rewards(captions, batches, step)
        made = {
            "image": batch["image"],
            **_packed(prompts[rows], captions, _text_len(prompts, tokens)),
        }
        weight = policy_weights(advantages(rewards), made["segment"])
        told = {"reward": (rewards.sum(), rewards.size)}
        if kl := self._options.kl:
            supervised = made["loss_weight"] > 0
            logprob = np.zeros(supervised.shape, np.float32)
            # Both are in the order of images, captions, tokens.
            logprob[supervised] = logprobs[rows][_written(tokens[rows])]
            start = self._logprobs(merge(self._start, state.frozen), made)[rows]
            apart, pull = divergence(logprob, start)
            weight = np.where(supervised, weight - np.float32(kl) * pull, 0)
            told["divergence"] = (apart[supervised].sum(), supervised.sum())
        # Means over all processes, of which one may have more tokens than another.
        sums = processes.gather_rows(np.array([list(told.values())], np.float32)).sum(axis=0)
        means = (sums[:, 0] / sums[:, 1]).tolist()
        return {**made, "loss_weight": weight}, dict(zip(told, means, strict=True))

    def _drawn(
        self, state: TrainState, image: np.ndarray, prompts: Sequence[Sequence[int]], step: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws captions of all processes' images: tokens and log-probabilities, [B, K, M] each."""
        prepared = self._prepared
        # In the layout of training, every token would all-gather all weights.
        params = sharding.resharded(state.all_params(), "tensor")
        images = sharding.put_batch(prepared.mesh, {"image": image})["image"]
        images = jax.device_put(images, images_sharding(None, params))
        text, lengths = pad_prompts(prompts)
        keys = image_keys(jax.random.fold_in(self._key, step), range(len(prompts)))
        most = prepared.config.max_new_tokens
        written = prefill(
            prepared.model, params, images, text, lengths,
            sampler=self._sampler, max_new_tokens=most, keys=keys,
        )  # fmt: skip
        found = hypotheses(extend(prepared.model, params, written, most))
        check_finite(np.flatnonzero(np.isnan(np.asarray(found.score)).any(axis=1)))
        return np.asarray(found.tokens), np.asarray(found.logprobs)

    def _rewards(
        self, captions: Sequence[Sequence[Sequence[int]]], batches: Batches, step: int
    ) -> np.ndarray:
        """Returns float64[B, K], the reward of each caption of this process's images."""
        records = batches.texts(step)
        decode, count = self._prepared.tokenizer.decode, self._options.samples
        texts = [decode(tokens).strip() for image in captions for tokens in image]
        references = [record.captions for record in records for _ in range(count)]
        names = [record.image_id for record in records for _ in range(count)]
        rewards = np.asarray(self._reward(texts, references, names), np.float64)
        if rewards.shape != (len(texts),):
            raise ValueError(
                f"reward.name={self._options.name}: it returned numbers of shape {rewards.shape} "
                f"for {len(texts)} captions, expected one for each"
            )
        return rewards.reshape(len(records), count)


def _prompts(batch: Batch) -> list[list[int]]:
    """Returns the tokens of the prompts of all processes' rows."""
    text, segment = (processes.gather_rows(batch[key]) for key in ("text", "segment"))
    return [row[part == 0].tolist() for row, part in zip(text, segment, strict=True)]


def _written(tokens: np.ndarray) -> np.ndarray:
    """Returns which tokens are of a caption: up to EOS, or all if there is none; bool[..., M]."""
    ends = tokens == EOS
    return np.cumsum(ends, axis=-1) - ends == 0


def _ended(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens


def _text_len(prompts: Sequence[Sequence[int]], tokens: np.ndarray) -> int:
    """Returns the number of text positions: the shortest of a few lengths that holds every row."""
    longest = max(map(len, prompts))
    most = tokens.shape[1] * tokens.shape[2]
    needed = int(_written(tokens).sum(axis=(1, 2)).max())
    return longest + most * -(-needed * _LENGTHS // most) // _LENGTHS


def _packed(
    prompts: Sequence[Sequence[int]], captions: Sequence[Sequence[Sequence[int]]], text_len: int
) -> Batch:
    rows = [pack(*each, text_len) for each in zip(prompts, captions, strict=True)]
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
