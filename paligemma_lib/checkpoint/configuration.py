"""Derives the configuration of a model from the names and shapes of its parameters.

config = config_of_shapes(file.shapes)
published_name(config)                              # "paligemma2_3b"; None: not published
"""

import dataclasses
import math
import re
from collections.abc import Mapping

from paligemma_lib.model import variants
from paligemma_lib.model.variants import GemmaConfig, PaliGemmaConfig, SiglipConfig

POSITION_EMBEDDING = "img/pos_embedding"
MODELS = {
    make.__name__: make
    for make in (
        variants.paligemma_3b,
        variants.paligemma2_3b,
        variants.paligemma2_10b,
        variants.paligemma2_28b,
        variants.nano,
        variants.scratch,
    )
}

# Fields that change the computation but not the parameters, so shapes do not determine them.
SETTINGS = {f"language.{name}" for name in ("query_scale", "attention_softcap", "final_softcap")}

_BLOCK = "img/Transformer/encoderblock/"
_GEMMA2_SOFTCAP = 50.0
_PUBLISHED = re.compile(r".*/(paligemma2?)-(\d+b)-[\w-]+-(\d+)(/\d+)?")

Shape = tuple[int, ...]


def config_of_shapes(shapes: Mapping[str, Shape]) -> PaliGemmaConfig:
    """Returns the configuration of the model whose parameters have these names and shapes.

    Settings that shapes do not determine are those of the published models. With Gemma 2's post
    norms, attention logits have a soft cap of 50, and final logits have none. Queries are scaled by
    `head_dim**-0.5`, except in the 28B model.

    Args:
      shapes: parameter name -> shape. Only the arrays that determine a size are examined.

    Raises:
      ValueError: an array that determines a size is missing or has another number of axes, or the
        position embedding is not of a square grid.
    """

    def sizes(name: str, axes: str) -> Shape:
        shape = shapes.get(name)
        if shape is None or len(shape) != len(axes.split(",")):
            found = "is missing" if shape is None else f"has shape {list(shape)}"
            raise ValueError(f"unknown kind of model: {name} {found}, expected [{axes}]")
        return shape

    patch_size, _, _, _ = sizes("img/embedding/kernel", "patch, patch, 3, width")
    positions = sizes(POSITION_EMBEDDING, "1, patches, width")
    side = side_of_grid(positions)
    if side is None:
        raise ValueError(
            f"{POSITION_EMBEDDING} has shape {list(positions)}, expected a square grid of patches"
        )
    kernel = f"{_BLOCK}MultiHeadDotProductAttention_0/query/kernel"
    depth, width, heads, _ = sizes(kernel, "depth, width, heads, size")
    *_, mlp_dim = sizes(f"{_BLOCK}MlpBlock_0/Dense_0/kernel", "depth, width, mlp")
    vision = SiglipConfig(side * patch_size, patch_size, width, depth, mlp_dim, heads)

    vocab_size, width = sizes("llm/embedder/input_embedding", "vocabulary, width")
    query = sizes("llm/layers/attn/q_einsum/w", "depth, heads, width, size")
    _, _, kv_heads, _, _ = sizes("llm/layers/attn/kv_einsum/w", "depth, 2, heads, width, size")
    *_, mlp_dim = sizes("llm/layers/mlp/gating_einsum", "depth, 2, width, mlp")
    post_norms = any(name.startswith("llm/layers/post_") for name in shapes)
    language = GemmaConfig(
        width=width,
        depth=query[0],
        mlp_dim=mlp_dim,
        num_heads=query[1],
        num_kv_heads=kv_heads,
        head_dim=query[3],
        vocab_size=vocab_size,
        attention_softcap=_GEMMA2_SOFTCAP if post_norms else None,
        post_norms=post_norms,
    )
    # Shapes do not tell the query scale. It is taken from the published model that agrees in all
    # other fields, which matters for 28B only.
    for make in MODELS.values():
        published = make().language
        if dataclasses.replace(published, query_scale=None) == language:
            language = published
    return PaliGemmaConfig(vision, language)


def published_name(config: PaliGemmaConfig) -> str | None:
    """Returns the name in MODELS of a published model at any image size, or None for another."""
    for name, make in MODELS.items():
        published = make()
        if config.vision.patch_size != published.vision.patch_size:
            continue
        vision = dataclasses.replace(config.vision, image_size=published.vision.image_size)
        if (vision, config.language) == (published.vision, published.language):
            return name
    return None


def differing_fields(config: PaliGemmaConfig, other: PaliGemmaConfig) -> dict[str, object]:
    """Returns the fields in which `other` differs, such as `language.width` -> its value there.

    Fields that a user may choose are ignored: the image size, the activations' dtype and `remat`.
    """
    found: dict[str, object] = {}
    for part in ("vision", "language"):
        ours, theirs = _fields(getattr(config, part)), _fields(getattr(other, part))
        found |= {f"{part}.{name}": theirs[name] for name in ours if ours[name] != theirs[name]}
    return found


def side_of_grid(shape: Shape) -> int | None:
    """Returns the number of patches along a side; None: not an embedding of a square grid."""
    if len(shape) != 3 or shape[0] != 1 or shape[1] < 1:
        return None
    side = math.isqrt(shape[1])
    return side if side**2 == shape[1] else None


def _fields(config: SiglipConfig | GemmaConfig) -> dict[str, object]:
    fields = dataclasses.asdict(config)
    fields.pop("image_size", None)
    # None and an explicit default are the same scale and must compare equal.
    if isinstance(config, GemmaConfig) and config.query_scale is None:
        fields["query_scale"] = config.head_dim**-0.5
    return fields


def published(handle: str) -> PaliGemmaConfig:
    """Returns the configuration of a published model by its handle.

    Args:
      handle: such as `google/paligemma/jax/paligemma-3b-pt-224`.

    Raises:
      ValueError: the handle is not of a published model.
    """
    match = _PUBLISHED.fullmatch(handle)
    if match is None or f"{match[1]}_{match[2]}" not in MODELS:
        raise ValueError(
            f"{handle} is not on this machine yet and is not the name of a published model: "
            "download it first, for example with `paligemma show`"
        )
    return MODELS[f"{match[1]}_{match[2]}"](int(match[3]))
