"""Merges adapters into the weights of their base model, a layer at a time.

    combination = combine("nano", [("birds", 1.0)])
    merge("nano", combination, "birds.npz", dtype="float32")

The sum is taken in float32 and rounded once, to the dtype of the file. What rounding costs is
measured by `captioner.certificate`.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import flax.traverse_util
import numpy as np

from paligemma_lib import hub
from paligemma_lib.checkpoint.adapters.adapter_folder import is_adapter
from paligemma_lib.checkpoint.adapters.adapter_image_size import at_image_size
from paligemma_lib.checkpoint.adapters.adapter_products import Arrays, products_of
from paligemma_lib.checkpoint.adapters.adapter_reading import fingerprint, read_adapter
from paligemma_lib.checkpoint.adapters.combining import combined
from paligemma_lib.checkpoint.adapters.merge_record import Merged, merged_adapters, with_merged
from paligemma_lib.checkpoint.adapters.merged_weights import MergedWeight
from paligemma_lib.checkpoint.huggingface.config_json import CONFIG
from paligemma_lib.checkpoint.huggingface.json_text import json_object
from paligemma_lib.checkpoint.huggingface.writer import export
from paligemma_lib.checkpoint.params import save_params
from paligemma_lib.checkpoint.stored import StoredArray, metadata_of, open_params, read_config
from paligemma_lib.checkpoint.target_names import target_kind
from paligemma_lib.model.projections import PROJECTIONS, Projection
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime.atomic import is_remote
from paligemma_lib.runtime.bounds import real
from paligemma_lib.runtime.regular_files import read_bounded

_MAX_BYTES = 4 << 20  # of config.json


@dataclasses.dataclass(frozen=True)
class Combination:
    """Adapters of a base model, ready to be merged.

    Attributes:
      config: the base model, at the image size of the merged one.
      arrays: the adapters as one, by name; see `combining`.
      metadata: what the merged file is to hold: the base's own, and which adapters these are.
    """

    config: PaliGemmaConfig
    arrays: Mapping[str, np.ndarray]
    metadata: Mapping[str, str]


def combine(
    base: str | os.PathLike[str],
    adapters: Sequence[tuple[str | os.PathLike[str], float]],
    *,
    image_size: int | None = None,
) -> Combination:
    """Reads adapters, checks that they may be merged into a base model, and combines them.

    Args:
      base: a checkpoint, as in `load_params`, with plain weights.
      adapters: the folder of each adapter, and the weight of its change.
      image_size: that of the merged model; None: the adapters', or else the base model's.

    Raises:
      FileNotFoundError: the base, or an adapter, does not exist.
      ValueError: the base is quantised, or an adapter itself; an adapter is not of this base, has
        been merged into it already, is given twice, or is for another image size than the others;
        or there is none.
    """
    _check_plain(base)
    config, metadata = read_config(base), metadata_of(base)
    earlier = {each.fingerprint for each in merged_adapters(metadata)}
    merged: dict[str, Merged] = {}
    read = []
    for folder, weight in adapters:
        arrays = read_adapter(folder, config)
        mark = fingerprint(arrays)
        if mark in earlier:
            raise ValueError(
                f"{os.fspath(folder)} has been merged into {os.fspath(base)} already, as its "
                "record says. Give the model from before that merge"
            )
        if mark in merged:
            raise ValueError(f"{os.fspath(folder)} is given twice: give it once, with a weight")
        merged[mark] = Merged(mark, real("merge: weight", weight))
        read.append((arrays, weight))
    if not read:
        raise ValueError("merge: no adapter is given")
    config = at_image_size(config, [folder for folder, _ in adapters], image_size)
    with open_params(base, config) as stored:

        def matrix(product: str, layer: int) -> np.ndarray:
            projection = PROJECTIONS[product]
            weight = stored[projection.weight]
            rows = weight[layer : layer + 1][0] if projection.is_stacked else weight[:]
            return np.asarray(projection.matrix(rows.astype(np.float32)))

        arrays = combined(read, config, matrix)
    return Combination(config, arrays, with_merged(metadata, [*merged.values()]))


def merge(
    base: str | os.PathLike[str],
    combination: Combination,
    target: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    tokenizer: bytes | None = None,
) -> None:
    """Writes the base model with adapters merged into it.

    Args:
      base: the checkpoint for which `combine` made the combination.
      combination: the adapters.
      target: a name that ends in .npz, or of a new folder, as in `conversion.convert`.
      dtype: "float32", "bfloat16" or "float16"; None: the dtype of each parameter of the base.
      tokenizer: a serialized SentencePiece model, for a folder.

    Raises:
      FileExistsError: the target exists.
      ValueError, OSError: as in `save_params` and `huggingface.export`.
    """
    config, metadata = combination.config, combination.metadata
    to_npz = target_kind(target) == "npz"
    if to_npz and Path(target).expanduser().exists():
        raise FileExistsError(f"{os.fspath(target)} exists: remove it, or choose another name")
    with merged_arrays(base, combination) as arrays:
        params = flax.traverse_util.unflatten_dict(arrays, sep="/")
        if to_npz:
            save_params(target, params, dtype, metadata)
        else:
            export(params, config, target, dtype=dtype, tokenizer=tokenizer, metadata=metadata)


@contextlib.contextmanager
def merged_arrays(
    base: str | os.PathLike[str], combination: Combination
) -> Iterator[dict[str, StoredArray | MergedWeight]]:
    """Gives the parameters of the merged model by name; each is computed when its rows are read.

    Arguments and errors are those of `merge`.
    """
    of_weight: dict[str, list[tuple[Projection, Arrays]]] = {}
    for product, arrays in products_of(combination.arrays, combination.config).items():
        projection = PROJECTIONS[product]
        of_weight.setdefault(projection.weight, []).append((projection, arrays))
    with open_params(base, combination.config) as stored:
        yield {
            name: MergedWeight(name, array, of_weight[name]) if name in of_weight else array
            for name, array in stored.items()
        }


def _check_plain(base: str | os.PathLike[str]) -> None:
    """Raises ValueError for a base whose weights are quantised, or that is an adapter."""
    if is_adapter(base):
        raise ValueError(
            f"{os.fspath(base)} is an adapter. Its base model comes first: paligemma merge BASE "
            "ADAPTER --out X"
        )
    if is_remote(base):
        return
    path = hub.fetch(base) / CONFIG
    if not path.is_file():
        return
    settings = json_object(read_bounded(path, _MAX_BYTES)).get("quantization_config")
    if settings is not None:
        raise ValueError(
            f"{os.fspath(base)} holds quantised weights (quantization_config in {CONFIG}), and a "
            "merge needs plain ones, or they would be rounded a second time. Give the model from "
            "which it was made"
        )
