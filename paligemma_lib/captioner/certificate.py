"""Certifies that a merged file says what its base model says with the adapters in place.

    combination = combine("nano", [("birds", 1.0)])
    merge("nano", combination, "birds.npz")
    certificate = certify("nano", combination, "birds.npz", source)
    print(certificate)
    certificate.holds                              # False: do not use the file

The file is read back. Both models see the same images and the captions that base and adapters
write, and their logits are compared at each token, in float32. Where the file has 16 bits, its
weights are rounded, and the bounds are wider.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_lib import model
from paligemma_lib.captioner.loading import Captioner, load
from paligemma_lib.captioner.model_files import tokenizer_of
from paligemma_lib.checkpoint.adapters.merge_comparison import MergedWeights, compare_merged
from paligemma_lib.checkpoint.adapters.merging import Combination
from paligemma_lib.data.image import decode_image
from paligemma_lib.data.sources import Source
from paligemma_lib.decode import generate
from paligemma_lib.model.adapter_params import with_adapters
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime.visible_text import visible

# Largest difference of logits, relative to the largest logit, by the dtype of the file. It is that
# of a single token, so it varies much; the divergence below is the stricter bound for 16 bits.
RELATIVE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}

# KL divergence in nats per token. What rounding to 16 bits costs must be small beside what the
# adapters change, or they are lost in it: a tenth, but no less than the first and no more than the
# second of these.
_EXACT = 1e-6
_ROUNDED, _SHARE = (1e-4, 1e-3), 0.1

_TOKENS = 32  # of a caption


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far the next tokens of one model are from those of another.

    Attributes:
      logits: largest absolute difference of two logits.
      divergence: mean KL divergence, in nats per token.
    """

    logits: float
    divergence: float


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A merged file beside its base model with the adapters in place.

    Attributes:
      weights: the file's weights beside the computed ones.
      found: how far the file is from base and adapters.
      adapters: how far the base alone is from them: what the adapters change.
      largest: the largest absolute logit.
      tokens: number of tokens at which logits are compared.
      captions: of each image its id, and greedy captions of base with adapters, and of the file.
    """

    weights: MergedWeights
    found: Difference
    adapters: Difference
    largest: float
    tokens: int
    captions: Sequence[tuple[str, str, str]]

    @property
    def bound(self) -> Difference:
        """What the file may differ by."""
        dtype, divergence = self.weights.dtypes[0], _EXACT
        if dtype != "float32":
            least, most = _ROUNDED
            divergence = min(most, max(least, _SHARE * self.adapters.divergence))
        return Difference(RELATIVE[dtype] * max(self.largest, 1), divergence)

    @property
    def holds(self) -> bool:
        """Whether all weights are as computed and rounded once, and the bounds are kept."""
        finite = math.isfinite(self.found.logits) and math.isfinite(self.largest)
        return (
            finite
            and self.weights.equal == self.weights.values
            and self.found.logits <= self.bound.logits
            and self.found.divergence <= self.bound.divergence
        )

    def __str__(self) -> str:
        weights, bound = self.weights, self.bound
        same = sum(one == other for _, one, other in self.captions)
        rows = [
            ("", "merged file", "bound", "base alone"),
            ("largest difference of logits", *_numbers(self.found.logits, bound.logits,
                                                       self.adapters.logits)),
            ("KL divergence, nats a token", *_numbers(self.found.divergence, bound.divergence,
                                                      self.adapters.divergence)),
            ("weights as computed", f"{weights.equal:,}", f"{weights.values:,}", ""),
            ("equal greedy captions", f"{same:,} of {len(self.captions):,}", "", ""),
        ]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in rows
        ]
        lines += [
            f"  {visible(name)}: {one!r} with the adapters, {other!r} from the file"
            for name, one, other in self.captions
            if one != other
        ]
        lines.append(
            f"Compared at {self.tokens:,} tokens of {len(self.captions):,} images; logits reach "
            f"{self.largest:.3g}."
        )
        cost = f"rounding moves weights by {weights.rounding:.1e} of their size"
        lines.append(
            f"The file is in {' and '.join(weights.dtypes)}; "
            f"{cost if weights.rounding else 'nothing is rounded'}."
        )
        return "\n".join(lines)


def certify(
    base: str | os.PathLike[str],
    combination: Combination,
    target: str | os.PathLike[str],
    source: Source,
    *,
    tokenizer: str | os.PathLike[str] | None = None,
    prompt: str = "caption en",
) -> Certificate:
    """Compares a merged file with its base model and the adapters. One of both is loaded at a time.

    Args:
      base, combination, target: as they were given to `checkpoint.adapters.merging.merge`.
      source: images; all of them are captioned in one batch.
      tokenizer: a SentencePiece file; None: that of the base.
      prompt: the prompt.

    Raises:
      FileNotFoundError, ValueError: the target cannot be loaded, or an image cannot be decoded.
    """
    weights = compare_merged(base, combination, target)
    path = tokenizer or tokenizer_of(os.fspath(base))
    size = combination.config.vision.image_size
    records = source.read(range(len(source)))
    images = np.stack([decode_image(record.image, size) for record in records])
    # GPUs multiply float32 in fewer bits unless they are told not to.
    with jax.default_matmul_precision("highest"):
        before = load(base, path, image_size=size)
        adapted = dataclasses.replace(
            before, params=with_adapters(before.params, combination.arrays)
        )
        said = _captions(adapted, images, prompt)
        batch = _batch(before, images, prompt, [each.tokens for each in said])
        reference = _logits(adapted, batch)
        alone = _difference(reference, _logits(before, batch))
        del before, adapted
        after = load(target, path)
        found = _difference(reference, _logits(after, batch))
        again = _captions(after, images, prompt)
    return Certificate(
        weights,
        found,
        alone,
        float(np.abs(reference).max()),
        len(reference),
        [
            (record.image_id, one.text, other.text)
            for record, one, other in zip(records, said, again, strict=True)
        ],
    )


def _captions(captioner: Captioner, images: np.ndarray, prompt: str) -> list[Any]:
    return generate(
        captioner.config,
        captioner.params,
        images,
        captioner.tokenizer,
        prompt=prompt,
        max_new_tokens=_TOKENS,
    )


def _batch(
    captioner: Captioner, images: np.ndarray, prompt: str, captions: Sequence[Sequence[int]]
) -> dict[str, np.ndarray]:
    """Returns a batch of the contract, with one suffix to each image."""
    prefix = captioner.tokenizer.encode_prefix(prompt)
    length = len(prefix) + max(map(len, captions))
    text = np.zeros((len(captions), length), np.int32)
    segment = np.full_like(text, -1)
    for row, caption in enumerate(captions):
        tokens = [*prefix, *caption]
        text[row, : len(tokens)] = tokens
        segment[row, : len(tokens)] = 1
    segment[:, : len(prefix)] = 0
    position = np.broadcast_to(np.arange(length, dtype=np.int32), text.shape)
    return {"image": images, "text": text, "segment": segment, "position": position}


def _logits(captioner: Captioner, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Returns float32[N, V], the logits of each token of the captions."""
    found = np.asarray(_program(captioner.config, captioner.params, batch))
    rows = batch["segment"][:, 1:] == 1  # token t is predicted at t - 1
    return found[:, :-1][rows]


@functools.partial(jax.jit, static_argnums=0)
def _program(config: PaliGemmaConfig, params: dict[str, Any], batch: Any) -> jax.Array:
    hidden = model.hidden_states(config, params, **batch)
    return model.logits(config, params, hidden)


@jax.jit
def _compared(reference: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
    logp, logq = jax.nn.log_softmax(reference), jax.nn.log_softmax(other)
    divergence = jnp.sum(jnp.exp(logp) * (logp - logq), axis=-1)
    return jnp.abs(reference - other).max(), divergence.mean()


def _difference(reference: np.ndarray, other: np.ndarray) -> Difference:
    logits, divergence = _compared(reference, other)
    return Difference(float(logits), max(float(divergence), 0.0))


def _numbers(*values: float) -> list[str]:
    return [f"{value:.2g}" for value in values]
