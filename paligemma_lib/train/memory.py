"""Estimates how much memory training takes on a device, before anything is loaded.

    need = bytes_needed(model, optimizer, trainable="attention", batch_size=8, text_len=128)
    check_memory(need, jax.local_devices()[0])     # ValueError: about 11.2 GiB, 9.8 GiB are free

The estimate uses shapes only. It shows what cannot fit: XLA's own figure differs from it by at most
a third for the sizes that `tests/test_train_memory.py` compares.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import psutil

from paligemma_lib.model.adapter_params import LowRank
from paligemma_lib.model.attention import block_bytes
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.parameter_spec import abstract, parameter_spec, quantized_kinds
from paligemma_lib.runtime.sizes import gib
from paligemma_lib.train.optimizer import Optimizer
from paligemma_lib.train.state import abstract_state
from paligemma_lib.trainable import STACKS, Trainable, trained_rows


def bytes_needed(
    config: PaliGemmaConfig,
    optimizer: Optimizer,
    *,
    trainable: Trainable,
    batch_size: int,
    text_len: int,
    frozen_dtype: str = "float32",
    low_rank: LowRank | None = None,
    microbatches: int = 1,
    devices: int = 1,
    fsdp: int = 1,
) -> int:
    """Estimates the bytes of parameters, gradients, optimizer state and activations on a device.

    Args:
      config: the model, including `remat` and `dtype`.
      optimizer: as `make_optimizer` returns it.
      trainable: parameters that train at the same time.
      batch_size: number of examples per step, over all devices.
      text_len: number of text tokens per example.
      frozen_dtype: dtype of frozen parameters, or "int8" or "nf4".
      low_rank: the adapter that the run adds; None: none.
      microbatches: as for `make_train_step`.
      devices: number of devices that a batch is split over.
      fsdp: number of devices that parameters are split over.
    """
    table = parameter_spec(config, trainable=[trainable], frozen=frozen_dtype, low_rank=low_rank)
    params = abstract(table)
    state = abstract_state(
        params,
        optimizer,
        trainable=trainable,
        quantized=quantized_kinds(table),
        undone_dtype=config.dtype,
    )
    stored = bytes_of(vars(state)) + bytes_of(state.trained)  # plus the gradients
    rows = trained_rows(params, trainable)
    # Stored arrays are split over the FSDP axis only, activations over all devices like examples.
    examples = max(1, batch_size // (devices * microbatches))
    return stored // fsdp + _activations(config, rows, text_len, examples)


def check_memory(needed: int, device: jax.Device) -> bool:
    """Raises ValueError if a device has less free memory than needed.

    For a CPU, the free memory of the system counts, which all its virtual devices share.

    Returns:
      Whether this was checked; False for a device that does not report its memory.
    """
    stats = device.memory_stats() or {}
    if device.platform == "cpu":
        free = psutil.virtual_memory().available
        needed *= jax.local_device_count()
    elif "bytes_limit" in stats:
        free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    else:
        return False
    if needed > free:
        raise ValueError(
            f"training needs about {gib(needed)} of memory on {device}, and "
            f"{gib(free)} are free. What helps, most effective first: more microbatches or a "
            "smaller batch_size, model.remat=full, model.frozen_dtype=nf4, int8 or bfloat16, fewer "
            "trainable parameters, the sgd or adafactor optimizer, more devices"
        )
    return True


def _activations(
    config: PaliGemmaConfig, rows: Mapping[str, int], text_len: int, examples: int
) -> int:
    """Returns the bytes of values saved for the backward pass, and of those of one layer."""
    vision, language = config.vision, config.language
    wide, narrow = (jnp.dtype(name).itemsize for name in (config.residual_dtype, config.dtype))
    length = vision.num_tokens + text_len
    towers = (  # tokens, width, width of all heads, inner values of the MLP, heads
        (vision.num_tokens, vision.width, 3 * vision.width, vision.mlp_dim, vision.num_heads),
        (
            length,
            language.width,
            (language.num_heads + 2 * language.num_kv_heads) * language.head_dim,
            2 * language.mlp_dim,
            language.num_heads,
        ),
    )
    depths = _backward_layers(rows, vision.depth, language.depth)
    kept, at_work = 0, 0
    for depth, (tokens, width, heads_width, inner, heads) in zip(depths, towers, strict=True):
        tokens *= examples
        block_input = tokens * width * wide
        # Saved under `dots`: the input of the block, the outputs of attention and MLP; queries,
        # keys and values; the inner values of the MLP, of which a gated one has two per unit.
        products = 3 * block_input + tokens * (heads_width + inner) * narrow
        # Three float32 matrices [heads, tokens, tokens], such as logits and weights. Where they are
        # computed in blocks, nothing of a block is saved.
        matrix = heads * tokens * (tokens // examples) * 4
        block = block_bytes(jax.default_backend())
        attention = 3 * min(matrix, block)
        everything = 2 * products + tokens * inner * narrow
        saved = everything + (attention if matrix <= block else 0)
        kept += depth * {"full": block_input, "dots": products, "none": saved}[config.remat]
        at_work = max(at_work, (everything + attention) * 3 // 4)  # XLA reuses memory
    return kept + at_work


def _backward_layers(rows: Mapping[str, int], vision_depth: int, language_depth: int) -> list[int]:
    """Returns the number of layers with a backward pass, in the vision and the language tower."""
    # The backward pass of a tower runs from its top down to the lowest layer that trains.
    lowest = [
        min((row for name, row in rows.items() if name.startswith(stack)), default=depth)
        for stack, depth in zip(STACKS, (vision_depth, language_depth), strict=True)
    ]
    # It runs through all of a tower to reach parameters below it. For the language model these are
    # its embedding table and everything in `img/`, since image tokens are its input.
    if any(name.startswith(("img/embedding/", "img/pos_embedding")) for name in rows):
        lowest[0] = 0
    if any(name.startswith(("img/", "llm/embedder/")) for name in rows):
        lowest[1] = 0
    return [vision_depth - lowest[0], language_depth - lowest[1]]


def bytes_of(tree: Any) -> int:
    """Returns the number of bytes of all arrays in a pytree."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
