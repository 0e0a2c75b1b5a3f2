"""Defines the model configs: frozen dataclasses that validate their fields.

    config = paligemma_3b(image_size=448)
    config = dataclasses.replace(config, dtype="bfloat16", remat="full")

Sources of the sizes: PaliGemma (arXiv 2407.07726), PaliGemma 2 (arXiv 2412.03555), SigLIP
So400m/14 (arXiv 2303.15343).
"""

import dataclasses
from typing import Literal, get_args

Dtype = Literal["float32", "bfloat16", "float16"]
Remat = Literal["none", "dots", "full"]
Name = Literal[
    "paligemma_3b", "paligemma2_3b", "paligemma2_10b", "paligemma2_28b", "nano", "scratch"
]

DTYPES: tuple[str, ...] = get_args(Dtype)
REMAT: tuple[Remat, ...] = get_args(Remat)


@dataclasses.dataclass(frozen=True)
class SiglipConfig:
    """Config of the vision transformer; sizes of images and patches are in pixels."""

    image_size: int
    patch_size: int = 14
    width: int = 1152
    depth: int = 27
    mlp_dim: int = 4304
    num_heads: int = 16

    def __post_init__(self) -> None:
        _check_positive(self)
        _check_multiple(self, "image_size", "patch_size")
        _check_multiple(self, "width", "num_heads")

    @property
    def num_tokens(self) -> int:
        """Number of image tokens P, one for each patch."""
        return (self.image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class GemmaConfig:
    """Config of the language model.

    Gemma 2 differs from Gemma by its post norms and by the soft cap on attention logits.
    `query_scale` multiplies the queries; None stands for `head_dim**-0.5`. A soft cap `c` turns
    logits into `c * tanh(logits / c)`; None switches it off. PaliGemma 2 is trained and used
    without Gemma 2's soft cap on the final logits.
    """

    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int = 256
    vocab_size: int = 257_152
    query_scale: float | None = None
    attention_softcap: float | None = None
    final_softcap: float | None = None
    post_norms: bool = False

    def __post_init__(self) -> None:
        _check_positive(self)
        _check_multiple(self, "num_heads", "num_kv_heads")
        if self.num_kv_heads == self.num_heads:
            raise ValueError(
                f"GemmaConfig: num_kv_heads={self.num_kv_heads} equals num_heads. Parameters are "
                "laid out for grouped heads, as in every PaliGemma: use fewer key/value heads."
            )
        if self.head_dim % 2:
            raise ValueError(
                f"GemmaConfig: head_dim={self.head_dim} must be even: RoPE rotates pairs."
            )


@dataclasses.dataclass(frozen=True)
class PaliGemmaConfig:
    """Config of a whole model; `dtype` and `remat` do not change its parameters.

    `dtype` is the dtype of activations: "float32", "bfloat16" or "float16". Each parameter may be
    stored in any of the three. With "float16" the residual streams stay in float32, since their
    values would overflow float16.

    `remat` selects what the forward pass saves for the backward pass: "none" saves everything and
    recomputes nothing, "dots" saves the results of matrix products with weights, "full" saves only
    the input of each block.
    """

    vision: SiglipConfig
    language: GemmaConfig
    dtype: str = "float32"
    remat: str = "none"

    def __post_init__(self) -> None:
        for name, choices in (("dtype", DTYPES), ("remat", REMAT)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"PaliGemmaConfig: {name}={getattr(self, name)!r}, expected one of {choices}."
                )

    @property
    def residual_dtype(self) -> str:
        """Dtype of the residual streams."""
        return "float32" if self.dtype == "float16" else self.dtype


def paligemma_3b(image_size: int = 224) -> PaliGemmaConfig:
    """Returns the config of PaliGemma 3B (Gemma 2B); published at 224, 448 and 896 pixels."""
    language = GemmaConfig(width=2048, depth=18, mlp_dim=16_384, num_heads=8, num_kv_heads=1)
    return PaliGemmaConfig(SiglipConfig(image_size), language)


def paligemma2_3b(image_size: int = 224) -> PaliGemmaConfig:
    """Returns the config of PaliGemma 2 3B (Gemma 2 2B); published at 224, 448 and 896 pixels."""
    return _paligemma2(image_size, width=2304, depth=26, mlp_dim=9216, num_heads=8, num_kv_heads=4)


def paligemma2_10b(image_size: int = 224) -> PaliGemmaConfig:
    """Returns the config of PaliGemma 2 10B (Gemma 2 9B); published at 224, 448 and 896 pixels."""
    return _paligemma2(
        image_size, width=3584, depth=42, mlp_dim=14_336, num_heads=16, num_kv_heads=8
    )


def paligemma2_28b(image_size: int = 224) -> PaliGemmaConfig:
    """Returns the config of PaliGemma 2 28B (Gemma 2 27B); published at 224, 448 and 896 pixels."""
    return _paligemma2(
        image_size,
        width=4608,
        depth=46,
        mlp_dim=36_864,
        num_heads=32,
        num_kv_heads=16,
        head_dim=128,
        # Gemma 2 27B scales by width / num_heads = 144, all other models by head_dim.
        query_scale=(4608 / 32) ** -0.5,
    )


def nano(image_size: int = 96) -> PaliGemmaConfig:
    """Returns the config of the embedded model: PaliGemma with 3.2 million parameters."""
    return PaliGemmaConfig(
        SiglipConfig(image_size, patch_size=12, width=128, depth=6, mlp_dim=512, num_heads=4),
        GemmaConfig(
            width=192,
            depth=4,
            mlp_dim=640,
            num_heads=4,
            num_kv_heads=1,
            head_dim=48,
            vocab_size=512,
        ),
    )


def scratch(image_size: int = 96) -> PaliGemmaConfig:
    """Returns a config to train from scratch on a few thousand images; most layers are vision."""
    return PaliGemmaConfig(
        SiglipConfig(image_size, patch_size=12, width=128, depth=6, mlp_dim=512, num_heads=4),
        GemmaConfig(
            width=192,
            depth=2,
            mlp_dim=512,
            num_heads=4,
            num_kv_heads=1,
            head_dim=48,
            vocab_size=512,
        ),
    )


def _paligemma2(image_size: int, **sizes) -> PaliGemmaConfig:
    language = GemmaConfig(**sizes, attention_softcap=50.0, post_norms=True)
    return PaliGemmaConfig(SiglipConfig(image_size), language)


def _check_positive(config: SiglipConfig | GemmaConfig) -> None:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        # bool is a subclass of int: flags are skipped here, and True is refused as a size below.
        if field.type is bool or (value is None and field.type is not int):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ValueError(
                f"{type(config).__name__}: {field.name}={value!r}, expected a positive number."
            )
        if field.type is int and not isinstance(value, int):
            raise ValueError(
                f"{type(config).__name__}: {field.name}={value!r}, expected a whole number."
            )


def _check_multiple(config: SiglipConfig | GemmaConfig, name: str, divisor: str) -> None:
    value, by = getattr(config, name), getattr(config, divisor)
    if value % by:
        raise ValueError(
            f"{type(config).__name__}: {name}={value} must be a multiple of {divisor}={by}; "
            f"the nearest are {value // by * by} and {(value // by + 1) * by}."
        )
