"""Converts checkpoints between `.npz` files and Hugging Face folders, and compares the results.

    convert("paligemma-3b-pt-224.f16.npz", "paligemma-3b", tokenizer="tokenizer.model")
    convert("my-captioner", "my-captioner.npz", dtype="bfloat16")
    print(compare_checkpoints("paligemma-3b-pt-224.f16.npz", "paligemma-3b"))

A conversion reads and writes one block of rows at a time, so it takes little memory. A comparison
holds the parameters of one of the two checkpoints at a time.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from paligemma_lib import model
from paligemma_lib.checkpoint.configuration import differing_fields
from paligemma_lib.checkpoint.finite import NotFinite
from paligemma_lib.checkpoint.huggingface.writer import export
from paligemma_lib.checkpoint.params import load_params, save_params
from paligemma_lib.checkpoint.placement import row_blocks
from paligemma_lib.checkpoint.stored import metadata_of, open_params, read_config
from paligemma_lib.checkpoint.target_names import target_kind
from paligemma_lib.model.variants import PaliGemmaConfig

_TEXT = 16  # tokens of the made-up batch; the first half is the prefix


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Result of the comparison of a checkpoint with its conversion.

    Attributes:
      parameters: number of values in all parameters.
      equal: number of values that are equal in both checkpoints, bit for bit in float32.
      difference: largest absolute difference of logits, both with the first one's settings.
      largest: largest absolute logit of the first checkpoint.
      settings: name -> value of each setting that differs in the second checkpoint, such as a soft
        cap on the final logits, which an `.npz` file cannot store.
    """

    parameters: int
    equal: int
    difference: float
    largest: float
    settings: Mapping[str, object]

    @property
    def is_finite(self) -> bool:
        """Whether all logits of both checkpoints are finite."""
        return math.isfinite(self.difference) and math.isfinite(self.largest)

    def __str__(self) -> str:
        lines = [
            f"{self.equal:,} of {self.parameters:,} parameters are bit-equal",
            f"logits differ by at most {self.difference:.3g}, with magnitudes up to "
            f"{self.largest:.3g}, for a made-up image with {_TEXT} tokens",
            *(f"but {name} is {value} in the result" for name, value in self.settings.items()),
        ]
        return "\n".join(lines)


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    dtype: str | None = None,
    tokenizer: str | os.PathLike[str] | bytes | None = None,
) -> None:
    """Writes a checkpoint as `.npz` if `target` ends so, or as a folder if it has no suffix.

    Args:
      source: as in `load_params`. `read_config` determines its configuration.
      target: a local path that does not exist yet, or an empty folder.
      dtype: "float32", "bfloat16" or "float16"; None: the dtype of each parameter.
      tokenizer: the `.model` file to copy into a folder, or its content.

    Raises:
      FileExistsError: `target` exists.
      ValueError: `target` is a URL or has the ending of another kind of file, the source has values
        that are NaN or infinite, or a tokenizer is given for an `.npz` file; also as in
        `load_params`, `save_params` and `huggingface.export`.
      OSError: as in these functions.
    """
    if "://" in os.fspath(target):
        raise ValueError(f"{target} is not a local path: convert to a local path, then copy it")
    path = Path(target).expanduser()
    to_npz = target_kind(target) == "npz"
    if to_npz and path.exists():
        raise FileExistsError(f"{path} exists: remove it, or choose another name")
    if to_npz and tokenizer is not None:
        raise ValueError(f"{path} holds only parameters: convert to a folder to add a tokenizer")
    config, metadata = read_config(source), metadata_of(source)
    with open_params(source, config) as stored:
        params = flax.traverse_util.unflatten_dict(stored, sep="/")
        try:
            if to_npz:
                save_params(path, params, dtype, metadata)
            else:
                export(params, config, path, dtype=dtype, tokenizer=tokenizer, metadata=metadata)
        except NotFinite as error:
            raise NotFinite(f"{os.fspath(source)} cannot be converted", error.found) from error


def compare_checkpoints(
    source: str | os.PathLike[str], target: str | os.PathLike[str]
) -> Comparison:
    """Compares all values of two checkpoints, and their logits in float32 for a made-up batch.

    Raises:
      ValueError: the checkpoints are not of the same model; also as in `load_params`.
    """
    config = read_config(source)
    parameters = equal = 0
    with open_params(source, config) as ours, open_params(target, config) as theirs:
        for name, array in ours.items():
            # Bits are compared, so NaN equals itself and 0.0 differs from -0.0. float32 holds all
            # values of the three dtypes exactly.
            for rows in row_blocks(array.shape, array.dtype.itemsize):
                one, other = (
                    each[name][rows].astype(np.float32).view(np.uint32) for each in (ours, theirs)
                )
                equal += int(np.count_nonzero(one == other))
            parameters += math.prod(array.shape)
    one, other = (_made_up_logits(path, config) for path in (source, target))
    with np.errstate(invalid="ignore"):  # infinities, which `is_finite` tells
        difference = float(np.abs(one - other).max())
    return Comparison(
        parameters=parameters,
        equal=equal,
        difference=difference,
        largest=float(np.abs(one).max()),
        settings=differing_fields(config, read_config(target)),
    )


def _made_up_logits(path: str | os.PathLike[str], config: PaliGemmaConfig) -> np.ndarray:
    """Returns logits float32[1, T, V]; the parameters are freed before it returns."""
    config = dataclasses.replace(config, dtype="float32", remat="none")
    rng = np.random.default_rng(0)
    size, vocab_size = config.vision.image_size, config.language.vocab_size
    batch = {
        "image": rng.uniform(-1, 1, (1, size, size, 3)).astype(np.float32),
        "text": rng.integers(0, vocab_size, (1, _TEXT)).astype(np.int32),
        "segment": np.repeat([[0, 1]], _TEXT // 2, axis=1).astype(np.int32),
        "position": np.arange(_TEXT, dtype=np.int32)[None],
    }
    return np.asarray(_logits(config, load_params(path, config), batch))


@functools.partial(jax.jit, static_argnums=0)
def _logits(config: PaliGemmaConfig, params: dict[str, Any], batch: dict[str, Any]) -> jax.Array:
    return model.logits(config, params, model.hidden_states(config, params, **batch))
