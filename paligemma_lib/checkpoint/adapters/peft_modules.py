"""Names the modules of PEFT's files: which one is which matrix product in which layer.

    modules = module_names(config, "transformers5")
    modules["model.language_model.layers.3.self_attn.q_proj"]       # ("llm/q_proj", 3)
    module_pattern("llm/q_proj", {0, 1})         # a regular expression for all versions' names

The same module has had three names. transformers 4.4x names modules as the files on the Hub do;
from 4.52 on, `model.` comes first; version 5 leaves out `vision_model`, but opens files with it.
"""

import re
from collections.abc import Collection, Mapping

from paligemma_lib.checkpoint.matching import expected_shapes
from paligemma_lib.model.projections import PROJECTIONS
from paligemma_lib.model.variants import PaliGemmaConfig

PREFIX = "base_model.model."  # before the names of all tensors in PEFT's files

# Newest first. peft 0.21 with transformers 5 opens all three, but not the projector of the last.
LAYOUTS: Mapping[str, tuple[str, str, str]] = {  # language model, vision, projector
    "transformers5": (
        "model.language_model.layers",
        "model.vision_tower.encoder.layers",
        "model.multi_modal_projector",
    ),
    "transformers4.52": (
        "model.language_model.layers",
        "model.vision_tower.vision_model.encoder.layers",
        "model.multi_modal_projector",
    ),
    "transformers4": (
        "language_model.model.layers",
        "vision_tower.vision_model.encoder.layers",
        "multi_modal_projector",
    ),
}

# Regular expressions for the names of all layouts, behind what may stand before them.
_PATTERNS = (
    r"language_model\.(model\.)?layers",
    r"vision_tower\.(vision_model\.)?encoder\.layers",
    "multi_modal_projector",
)


def module_names(config: PaliGemmaConfig, layout: str) -> dict[str, tuple[str, int]]:
    """Returns the name of each module that may be adapted -> its name in PROJECTIONS, its layer.

    Args:
      config: the model.
      layout: a key of LAYOUTS.
    """
    shapes = expected_shapes(config)
    found = {}
    for name, projection in PROJECTIONS.items():
        depth, _, _ = projection.shape(shapes[projection.weight])
        for layer in range(depth):
            found[_named(name, LAYOUTS[layout], ".", str(layer))] = name, layer
    return found


def module_pattern(name: str, layers: Collection[int], depth: int) -> str:
    """Returns a regular expression for a product's modules, to stand at the end of a name.

    Args:
      name: a name in PROJECTIONS.
      layers: the layers that are meant.
      depth: number of layers of the stack.
    """
    some = "|".join(map(str, sorted(layers)))
    return _named(name, _PATTERNS, r"\.", r"\d+" if len(layers) == depth else f"({some})")


def product_of(module: str) -> tuple[str, str] | None:
    """Returns a module's name in PROJECTIONS and its layer, without a model; None: another module.

    Args:
      module: a name of any layout.
    """
    for name in PROJECTIONS:
        pattern = _named(name, _PATTERNS, r"\.", r"(?P<layer>\d+)")
        if found := re.fullmatch(rf"(.*\.)?{pattern}", module):
            return name, found.groupdict().get("layer", "0")
    return None


def _named(name: str, prefixes: tuple[str, str, str], dot: str, layer: str) -> str:
    tower, _, own = name.partition("/")
    language, vision, projector = prefixes
    if own == "projector":
        return f"{projector}{dot}linear"
    block = "self_attn" if own in ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj") else "mlp"
    return dot.join([language if tower == "llm" else vision, layer, block, own])
