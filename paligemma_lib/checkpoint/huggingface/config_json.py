"""Reads the configuration of a model from the config.json of a Hugging Face checkpoint.

    config = read_config_json(folder / "config.json")

A missing field has transformers' default. A feature that this library does not implement is an
error, so a model is never computed differently than by transformers. The file is untrusted: its
size is bounded, and so is every number in it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paligemma_lib.checkpoint.huggingface.json_text import json_object
from paligemma_lib.checkpoint.huggingface.refusals import check_quantisation
from paligemma_lib.checkpoint.huggingface.settings import (
    EPSILON,
    GELU,
    LANGUAGE_SIZES,
    ROPE_THETA,
    VISION_SIZES,
)
from paligemma_lib.checkpoint.huggingface.tensors import VOCABULARY_PADDING
from paligemma_lib.model.variants import GemmaConfig, PaliGemmaConfig, SiglipConfig
from paligemma_lib.runtime.regular_files import read_bounded
from paligemma_lib.runtime.visible_text import visible

CONFIG = "config.json"

# Bounds for an untrusted file: its bytes, every number in it, and the number of layers.
_MAX_BYTES = 4 << 20
_MAX_SIZE = 1 << 20
_MAX_DEPTH = 1000

# Defaults of transformers 5.23, which leaves fields that equal them out of the file.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "siglip_vision_model": {
        "image_size": 224,
        "patch_size": 16,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "gemma": {
        "vocab_size": 256_000,
        "hidden_size": 3072,
        "intermediate_size": 24_576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
    },
    "gemma2": {
        "vocab_size": 256_000,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "sliding_window": 4096,
        "layer_types": None,
    },
}


def read_config_json(path: Path) -> PaliGemmaConfig:
    """Returns the configuration of the model that transformers builds from this file.

    For PaliGemma 2, transformers differs from the reference in two settings. Its soft cap on the
    final logits, 30 unless the file says otherwise, is kept. Its sliding windows of attention in
    every other layer, which the reference lacks, are ignored if the whole image fits into one.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file is not such a config.json, or describes a model that this library cannot
        compute; the message says why.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: it is needed to identify the model")
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, expected at most {_MAX_BYTES:,}")
    data = read_bounded(path, _MAX_BYTES)
    try:
        fields = _Fields(json_object(data), "", {})
        check_quantisation(fields["quantization_config"])
        # Without a type, a model with both parts is one of this family; their fields are checked.
        fields.check("model_type", ("paligemma",), "paligemma")
        fields.check("tie_word_embeddings", (True,))
        vision = fields.section("vision_config", "siglip_vision_model")
        language = fields.section("text_config", "gemma", "gemma2")
        siglip = _vision(vision)
        gemma = _language(language, fields.number("image_token_index", 256_000))
        _check_windows(language, gemma.depth, siglip.num_tokens)
        return PaliGemmaConfig(siglip, gemma)
    except ValueError as error:
        raise ValueError(f"{path} does not describe a supported model: {error}") from error


def _vision(fields: "_Fields") -> SiglipConfig:
    fields.check("hidden_act", (GELU,))
    fields.check("layer_norm_eps", (EPSILON,))
    return SiglipConfig(**fields.sizes(VISION_SIZES))


def _language(fields: "_Fields", image_token: int) -> GemmaConfig:
    # For Gemma 1, "gelu" means the tanh form too. Which of the two fields, hidden_act or
    # hidden_activation, transformers reads depends on its version, so both are checked.
    is_gemma2 = fields["model_type"] == "gemma2"
    fields.check("hidden_act", (GELU,) if is_gemma2 else (GELU, "gelu"))
    fields.check("hidden_activation", (GELU, None))
    fields.check("rms_norm_eps", (EPSILON,))
    fields.check("tie_word_embeddings", (True,))
    fields.check("attention_bias", (False,))
    fields.check("use_bidirectional_attention", (True, None))
    fields.check("rope_theta", (ROPE_THETA,))
    fields.check("rope_scaling", (None,))
    default_rope = {"rope_type": "default", "rope_theta": ROPE_THETA}
    fields.check("rope_parameters", (None, default_rope))
    # The file counts the rows of the table, with or without 64 that pad it: 257,216 or 257,152. The
    # id of `<image>` is the first after the vocabulary, so it is the vocabulary's size.
    rows = fields.number("vocab_size")
    if rows - image_token not in (0, VOCABULARY_PADDING):
        raise ValueError(
            f"text_config.vocab_size is {rows}, expected image_token_index={image_token} (the size "
            f"of the vocabulary) or {VOCABULARY_PADDING} more"
        )
    sizes = fields.sizes(LANGUAGE_SIZES) | {"vocab_size": image_token}
    if not is_gemma2:
        return GemmaConfig(**sizes)
    scalar = fields.positive("query_pre_attn_scalar")
    return GemmaConfig(
        **sizes,
        query_scale=None if scalar in (None, sizes["head_dim"]) else scalar**-0.5,
        attention_softcap=fields.positive("attn_logit_softcapping"),
        final_softcap=fields.positive("final_logit_softcapping"),
        post_norms=True,
    )


def _check_windows(fields: "_Fields", depth: int, num_image_tokens: int) -> None:
    window, layers = fields["sliding_window"], fields["layer_types"]
    if fields["model_type"] != "gemma2" or window is None or layers == ["full_attention"] * depth:
        return
    if fields.number("sliding_window") < num_image_tokens:
        raise ValueError(
            f"text_config.sliding_window is {window}, less than the {num_image_tokens} tokens of "
            "an image: only full attention is supported"
        )


class _Fields:
    """A JSON object with defaults for missing fields, whose errors name its section."""

    def __init__(self, values: Any, section: str, defaults: Mapping[str, Any]) -> None:
        if not isinstance(values, dict):
            raise ValueError(f"{section.rstrip('.') or 'it'} is not a JSON object")
        self._values, self._section, self._defaults = values, section, defaults

    def __getitem__(self, name: str) -> Any:
        return self._values.get(name, self._defaults.get(name))

    def section(self, name: str, *kinds: str) -> "_Fields":
        """Returns a part of the model; without a type it has the first of `kinds`, as there."""
        values = self._values.get(name)
        section = _Fields(values, f"{name}.", {"model_type": kinds[0]})
        section.check("model_type", kinds, kinds[0])
        defaults = {"model_type": kinds[0], **_DEFAULTS[section["model_type"]]}
        return _Fields(values, f"{name}.", defaults)

    def check(self, name: str, allowed: tuple[Any, ...], default: Any = ...) -> None:
        """Raises ValueError unless a field has an allowed value.

        A missing field counts as `default`; without a default it is accepted.
        """
        if name not in self._values and default is ...:
            return
        found = self._values.get(name, default)
        # In Python `True == 1`, so a bool is allowed only where the allowed value is a bool too.
        if not any(
            found == value and isinstance(found, bool) == isinstance(value, bool)
            for value in allowed
        ):
            expected = " or ".join(map(repr, allowed))
            raise ValueError(f"{self._section}{name} is {_short(found)}, expected {expected}")

    def number(self, name: str, default: int | None = None) -> int:
        value = self._values.get(name, self._defaults.get(name, default))
        if type(value) is not int or not 0 < value <= _MAX_SIZE:
            raise ValueError(
                f"{self._section}{name} is {_short(value)}, expected a whole number from 1 to "
                f"{_MAX_SIZE:,}"
            )
        return value

    def positive(self, name: str) -> float | None:
        value = self[name]
        if value is None:
            return None
        if type(value) not in (int, float) or not 0 < value <= _MAX_SIZE:
            raise ValueError(f"{self._section}{name} is {_short(value)}, expected null or a number")
        return value

    def sizes(self, names: Mapping[str, str]) -> dict[str, Any]:
        sizes: dict[str, Any] = {ours: self.number(theirs) for theirs, ours in names.items()}
        if sizes["depth"] > _MAX_DEPTH:
            raise ValueError(f"{self._section}num_hidden_layers is more than {_MAX_DEPTH:,}")
        return sizes


def _short(value: Any) -> str:
    text = visible(repr(value))
    return text if len(text) <= 40 else f"{text[:40]}..."
