"""How much memory training takes on a device, estimated before anything is loaded.

    need = bytes_needed(model, optimizer, trainable="attention", batch_size=8, text_len=128)
    check_memory(need, jax.local_devices()[0])     # ValueError: about 11.2 GiB, 9.8 GiB are free

From shapes alone, to tell what cannot fit from what does; XLA's own figure lies within a third of
it for the sizes that were compared (`tests/test_train_memory.py`).
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import psutil

from paligemma_lib.model import abstract_params
from paligemma_lib.model.variants import PaliGemmaConfig
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
    microbatches: int = 1,
    devices: int = 1,
    fsdp: int = 1,
) -> int:
    """Estimates the bytes of parameters, gradients, optimizer state and activations on a device.

    Args:
      config: the model; `remat` and `dtype` count.
      optimizer: as `make_optimizer` returns it.
      trainable: what trains at the same time.
      batch_size: examples in a step, over all devices.
      text_len: text tokens of an example.
      frozen_dtype: of parameters that do not train.
      microbatches: as for `make_train_step`.
      devices: over which a batch is divided.
      fsdp: devices over which parameters are split.
    """
    abstract = abstract_params(config)
    state = abstract_state(abstract, optimizer, trainable=trainable, frozen_dtype=frozen_dtype)
    stored = bytes_of(vars(state)) + bytes_of(state.trained)  # with gradients
    rows = trained_rows(abstract, trainable)
    # Stored arrays are divided by the FSDP axis; activations by all devices, as examples are.
    examples = max(1, batch_size // (devices * microbatches))
    return stored // fsdp + examples * _activations(config, rows, text_len)


def check_memory(needed: int, device: jax.Device) -> None:
    """Raises ValueError where a device has less free memory than is needed.

    Of a CPU it is what the system could still give, shared by all its virtual devices; a device
    that does not tell is trusted.
    """
    stats = device.memory_stats() or {}
    if device.platform == "cpu":
        free = psutil.virtual_memory().available
        needed *= jax.local_device_count()
    elif "bytes_limit" in stats:
        free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    else:
        return
    if needed > free:
        raise ValueError(
            f"training needs about {gib(needed)} of memory on {device}, and "
            f"{gib(free)} are free. What helps, the first most: more microbatches or a "
            "smaller batch_size, model.remat=full, model.frozen_dtype=bfloat16 or float16, fewer "
            "trainable parameters, the sgd or adafactor optimizer, more devices"
        )


def _activations(config: PaliGemmaConfig, rows: Mapping[str, int], text_len: int) -> int:
    """Bytes for an example: what is kept for the backward pass, and one layer at work."""
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
        block_input = tokens * width * wide
        # Under `dots`: the block's input, what attention and MLP give back, queries, keys, values,
        # and both inner values of the gated MLP.
        products = 3 * block_input + tokens * (heads_width + inner) * narrow
        attention = 3 * heads * tokens * tokens * 4
        everything = 2 * products + tokens * inner * narrow + attention
        kept += depth * {"full": block_input, "dots": products, "none": everything}[config.remat]
        at_work = max(at_work, everything * 3 // 4)  # XLA gives memory on within a layer
    return kept + at_work


def _backward_layers(rows: Mapping[str, int], vision_depth: int, language_depth: int) -> list[int]:
    """In how many layers of the two towers a backward pass runs: from the lowest that trains up."""
    lowest = [
        min((row for name, row in rows.items() if name.startswith(stack)), default=depth)
        for stack, depth in zip(STACKS, (vision_depth, language_depth), strict=True)
    ]
    if any(name.startswith(("img/embedding/", "img/pos_embedding")) for name in rows):
        lowest[0] = 0
    if any(name.startswith(("img/", "llm/embedder/")) for name in rows):
        lowest[1] = 0
    return [vision_depth - lowest[0], language_depth - lowest[1]]


def bytes_of(tree: Any) -> int:
    """Of all arrays in a tree."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
