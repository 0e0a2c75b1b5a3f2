"""Reads an adapter from a folder of PEFT, as arrays by our names.

    adapters = read_adapter("birds", config)
    adapters["llm/layers/lora/q_proj/a"]           # float32[L, I, r], see `model.low_rank`
    fingerprint(adapters)                          # the same in any layout and dtype

PEFT stores each layer's matrices by themselves, outputs first: `lora_A` is [r, I], `lora_B` [O, r].
Where layers differ in rank, the stack has the largest, and zeros. In a layer that is not adapted,
all arrays are zeros. The folder is untrusted: nothing is unpickled, and all sizes must match.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from paligemma_lib.checkpoint.adapters.adapter_folder import ADAPTER_MODEL, adapter_folder
from paligemma_lib.checkpoint.adapters.peft_modules import LAYOUTS, PREFIX, module_names
from paligemma_lib.checkpoint.adapters.peft_settings import PeftSettings, read_settings
from paligemma_lib.checkpoint.arrays import THREADS, open_binary, read_at
from paligemma_lib.checkpoint.configuration import Shape, published_name
from paligemma_lib.checkpoint.finite import NotFinite, count_not_finite
from paligemma_lib.checkpoint.huggingface.format import Entry, read_header
from paligemma_lib.checkpoint.matching import (
    differences,
    expected_shapes,
    listed,
)
from paligemma_lib.model.low_rank import scale_of
from paligemma_lib.model.projections import PROJECTIONS, adapter_name
from paligemma_lib.model.variants import PaliGemmaConfig

_Read = Callable[[str], np.ndarray]

A, B, MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"


@dataclasses.dataclass(frozen=True)
class _Module:
    """A module's share of an adapter: the product, its layer, and names of tensors in the file."""

    product: str
    layer: int
    rank: int
    scale: float
    a: str
    b: str
    magnitude: str | None


def read_adapter(folder: str | os.PathLike[str], config: PaliGemmaConfig) -> dict[str, np.ndarray]:
    """Reads an adapter.

    Args:
      folder: with adapter_config.json and adapter_model.safetensors; or the workdir of a run.
      config: its base model.

    Returns:
      The arrays by name, all float32, for `model.adapter_params.with_adapters`.

    Raises:
      FileNotFoundError: the folder, or a file in it, does not exist.
      ValueError: it is no adapter of LoRA or DoRA, has something that is not understood, is
        damaged, is of another base model (the message lists all differences), or holds values that
        are NaN or infinite.
    """
    place = adapter_folder(folder)
    settings = read_settings(place)
    path = place / ADAPTER_MODEL
    entries = read_header(path)
    modules = _modules(path, entries, settings, config)
    with _tensors(path, entries) as read:
        return _stacked(modules, read, config)


def fingerprint(adapters: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 of an adapter's names, shapes and float32 values, in hexadecimal."""
    digest = hashlib.sha256()
    for name, array in sorted(adapters.items()):
        values = np.ascontiguousarray(array, np.float32)
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _modules(
    path: Path, entries: Mapping[str, Entry], settings: PeftSettings, config: PaliGemmaConfig
) -> list[_Module]:
    """Returns the adapted modules, after a check of all names and shapes against the model's."""
    adapted = {name.partition(".lora_")[0].removeprefix(PREFIX) for name in entries}
    # All names are of one layout. Where none fits, the newest serves to list the differences.
    known = max(
        (module_names(config, layout) for layout in LAYOUTS),
        key=lambda names: len(adapted & names.keys()),
    )
    names = list(known)
    targeted = settings.targeted(names)
    chosen = [name for name in names if name in (adapted if targeted is None else targeted)]
    ranks, alphas = settings.ranks(names), settings.alphas(names)
    shapes = expected_shapes(config)
    expected: dict[str, list[Shape]] = {}
    found, high = [], []
    for module in chosen:
        product, layer = known[module]
        _, inputs, outputs = PROJECTIONS[product].shape(shapes[PROJECTIONS[product].weight])
        rank, stem = ranks[module], f"{PREFIX}{module}"
        if rank > min(inputs, outputs):
            high.append(f"{module} is {inputs} x {outputs}, and its rank {rank}")
        magnitude = stem + MAGNITUDE if settings.dora else None
        if magnitude and f"{magnitude}.weight" in entries:  # some versions of peft
            magnitude += ".weight"
        scale = scale_of(alphas[module], rank, settings.rslora)
        a, b = stem + A, stem + B
        found.append(_Module(product, layer, rank, scale, a, b, magnitude))
        expected |= {a: [(rank, inputs)], b: [(outputs, rank)]}
        expected |= {magnitude: [(outputs,)]} if magnitude else {}
    lines = differences(
        expected,
        {name: entry.shape for name, entry in entries.items()},
        {name: entry.dtype or entry.code for name, entry in entries.items()},
    )
    if high:
        lines.append(f"  {len(high)} of a rank above the matrix's smaller side: {listed(high)}")
    if any("lm_head" in name or "embed_tokens" in name for name in entries):
        lines.append(
            "  The output layer is the table of embeddings here, which adapters do not change: "
            "train without lm_head and embed_tokens, for instance with exclude_modules"
        )
    if not found and not lines:
        lines.append("  it adapts nothing")
    if lines:
        model = f"{published_name(config) or 'a custom one'} at {config.vision.image_size} pixels"
        if settings.base:
            lines.append(f"  It was made for {listed([settings.base])}.")
        raise ValueError("\n".join([f"{path} is not an adapter of this model, {model}.", *lines]))
    return found


@contextlib.contextmanager
def _tensors(path: Path, entries: Mapping[str, Entry]) -> Iterator[_Read]:
    with open_binary(os.fspath(path)) as file, ThreadPoolExecutor(THREADS) as threads:

        def read(name: str) -> np.ndarray:
            entry = entries[name]
            values = np.empty(entry.shape, entry.dtype)
            try:
                read_at(file, entry.start, values, threads)
            except EOFError as error:
                raise ValueError(f"{path}, {name}: {error}. Download it again") from error
            if bad := count_not_finite(values):
                raise NotFinite(os.fspath(path), {name: (bad, values.size)})
            return values.astype(np.float32)

        yield read


def _stacked(modules: list[_Module], read: _Read, config: PaliGemmaConfig) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    shapes = expected_shapes(config)
    largest: dict[str, int] = {}
    for each in modules:
        largest[each.product] = max(each.rank, largest.get(each.product, 0))
    for each in modules:
        depth, inputs, outputs = PROJECTIONS[each.product].shape(
            shapes[PROJECTIONS[each.product].weight]
        )
        place, rank = adapter_name(each.product), largest[each.product]

        def array(part: str, *shape: int, place: str = place) -> np.ndarray:
            return arrays.setdefault(f"{place}/{part}", np.zeros(shape, np.float32))

        array("a", depth, inputs, rank)[each.layer, :, : each.rank] = read(each.a).T
        array("b", depth, rank, outputs)[each.layer, : each.rank] = read(each.b).T
        array("scale", depth)[each.layer] = each.scale
        if each.magnitude:
            array("magnitude", depth, outputs)[each.layer] = read(each.magnitude)
    return arrays
