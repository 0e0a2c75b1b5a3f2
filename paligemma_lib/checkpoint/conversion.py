"""Convert a checkpoint between the reference's `.npz` and Hugging Face's folders, and prove it.

    convert("paligemma-3b-pt-224.f16.npz", "paligemma-3b", tokenizer="tokenizer.model")
    convert("my-captioner", "my-captioner.npz", dtype="bfloat16")
    print(compare_checkpoints("paligemma-3b-pt-224.f16.npz", "paligemma-3b"))

Values are read and written a block at a time, so a conversion takes little memory; a comparison
holds the parameters of one of the two at a time.
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
from paligemma_lib.checkpoint.huggingface.writer import export
from paligemma_lib.checkpoint.params import load_params, save_params
from paligemma_lib.checkpoint.placement import row_blocks
from paligemma_lib.checkpoint.stored import open_params, read_config
from paligemma_lib.model.variants import PaliGemmaConfig

_FILES = (".safetensors", ".bin", ".pt", ".pth", ".npy", ".zip", ".json", ".msgpack")
_TEXT = 16  # tokens of the made-up batch, the first half of them prefix


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a checkpoint and its conversion have in common.

    Attributes:
      parameters: how many there are.
      equal: how many of them have the same value in both, bit for bit in float32.
      difference: largest absolute difference of logits, both with the settings of the first.
      largest: largest absolute logit.
      settings: those that the second has otherwise, such as a soft cap on the final logits, which
        an `.npz` file cannot say; name -> its value there.
    """

    parameters: int
    equal: int
    difference: float
    largest: float
    settings: Mapping[str, object]

    def __str__(self) -> str:
        lines = [
            f"{self.equal:,} of {self.parameters:,} parameters are bit-equal",
            f"logits differ by {self.difference:.3g} at most, of magnitudes up to "
            f"{self.largest:.3g}, for a made-up image with {_TEXT} tokens",
            *(f"but {name} is {value} in the result" for name, value in self.settings.items()),
        ]
        return "\n".join(lines)


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    dtype: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
) -> None:
    """Writes a checkpoint anew: as `.npz` where `target` ends so, else as Hugging Face's folder.

    Args:
      source: as in `load_params`; its configuration is that of `read_config`.
      target: must not be there yet, except as an empty folder.
      dtype: "float32", "bfloat16" or "float16"; None: each parameter's own.
      tokenizer: the `.model` file to put into a folder.

    Raises:
      FileExistsError: `target` is there.
      ValueError: `target` ends as no checkpoint does, a tokenizer is given for an `.npz` file, or
        as `load_params`, `save_params` and `huggingface.export` do.
      OSError: as these do.
    """
    if "://" in os.fspath(target):
        raise ValueError(f"{target} is not on this machine: convert to a local place, then copy it")
    path = Path(target).expanduser()
    if path.suffix in _FILES:
        raise ValueError(f"{path} ends in {path.suffix}, expected .npz or the name of a folder")
    to_npz = path.suffix == ".npz"
    if to_npz and path.exists():
        raise FileExistsError(f"{path} exists: remove it, or choose another name")
    if to_npz and tokenizer is not None:
        raise ValueError(f"{path} holds parameters alone: a tokenizer goes into a folder")
    config = read_config(source)
    with open_params(source, config) as stored:
        params = flax.traverse_util.unflatten_dict(stored, sep="/")
        if to_npz:
            save_params(path, params, dtype)
        else:
            export(params, config, path, dtype=dtype, tokenizer=tokenizer)


def compare_checkpoints(
    source: str | os.PathLike[str], target: str | os.PathLike[str]
) -> Comparison:
    """Compares two checkpoints: all their values, and logits in float32 for a made-up batch.

    Raises:
      ValueError: they are not of the same model; or as `load_params` does.
    """
    config = read_config(source)
    parameters = equal = 0
    with open_params(source, config) as ours, open_params(target, config) as theirs:
        for name, array in ours.items():
            for rows in row_blocks(array.shape, array.dtype.itemsize):
                one, other = (
                    each[name][rows].astype(np.float32).view(np.uint32) for each in (ours, theirs)
                )
                equal += int(np.count_nonzero(one == other))
            parameters += math.prod(array.shape)
    one, other = (_made_up_logits(path, config) for path in (source, target))
    return Comparison(
        parameters=parameters,
        equal=equal,
        difference=float(np.abs(one - other).max()),
        largest=float(np.abs(one).max()),
        settings=differing_fields(config, read_config(target)),
    )


def _made_up_logits(path: str | os.PathLike[str], config: PaliGemmaConfig) -> np.ndarray:
    """float32[1, T, V] of parameters that are freed afterwards."""
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
