"""Builds the JSON files from which transformers creates the model and the processor.

for name, content in files(config, dtype="bfloat16").items():
    (folder / name).write_text(json.dumps(content))

The files override two defaults of transformers that are wrong for PaliGemma 2: a soft cap of 30 on
the final logits, and sliding windows of 4096 tokens in every other layer.
"""

from typing import Any

from paligemma_lib.checkpoint.huggingface.tensors import VOCABULARY_PADDING
from paligemma_lib.model.variants import PaliGemmaConfig

# Names of the sizes in transformers -> names in the configuration.
VISION_SIZES = {
    "image_size": "image_size",
    "patch_size": "patch_size",
    "hidden_size": "width",
    "intermediate_size": "mlp_dim",
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
}
LANGUAGE_SIZES = {
    "hidden_size": "width",
    "intermediate_size": "mlp_dim",
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
}
GELU = "gelu_pytorch_tanh"
EPSILON = 1e-6  # epsilon of all norms
ROPE_THETA = 10_000.0

_PAD, _EOS, _BOS, _UNKNOWN = 0, 1, 2, 3
_MAX_POSITIONS = 8192
_BILINEAR = 2  # Pillow's code of its bilinear filter, which antialiases
_SPECIAL = {"pad": _PAD, "eos": _EOS, "bos": _BOS, "unk": _UNKNOWN}


def files(config: PaliGemmaConfig, dtype: str) -> dict[str, dict[str, Any]]:
    """Returns file name -> content, for the files of the model, generation and image processor.

    Raises:
      ValueError: transformers has no such model; the message says which it has.
    """
    return {
        "config.json": model_settings(config, dtype),
        "generation_config.json": {
            "bos_token_id": _BOS,
            "eos_token_id": _EOS,
            "pad_token_id": _PAD,
        },
        **image_files(config),
    }


def image_files(config: PaliGemmaConfig) -> dict[str, dict[str, Any]]:
    """Returns file name -> content, for the file of the image processor."""
    return {
        "preprocessor_config.json": {
            "image_processor_type": "SiglipImageProcessor",
            "processor_class": "PaliGemmaProcessor",
            "image_seq_length": config.vision.num_tokens,
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"height": config.vision.image_size, "width": config.vision.image_size},
            "resample": _BILINEAR,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }
    }


def tokenizer_files(config: PaliGemmaConfig) -> dict[str, dict[str, Any]]:
    """Returns file name -> content, for the JSON files that belong to `tokenizer.model`."""
    tokens = {f"{kind}_token": f"<{kind}>" for kind in _SPECIAL}
    numbered = {f"<{kind}>": token for kind, token in _SPECIAL.items()}
    numbered["<image>"] = config.language.vocab_size
    return {
        "tokenizer_config.json": {
            "tokenizer_class": "GemmaTokenizer",
            "processor_class": "PaliGemmaProcessor",
            "add_bos_token": True,
            "add_eos_token": False,
            **tokens,
            "extra_special_tokens": {"image_token": "<image>"},
            "added_tokens_decoder": {
                str(token): {
                    "content": content,
                    "lstrip": False,
                    "normalized": False,
                    "rstrip": False,
                    "single_word": False,
                    "special": True,
                }
                for content, token in numbered.items()
            },
        },
        "special_tokens_map.json": {**tokens, "image_token": "<image>"},
    }


def model_settings(config: PaliGemmaConfig, dtype: str) -> dict[str, Any]:
    """Returns the content of `config.json`; `dtype` is the dtype of the stored weights.

    Raises:
      ValueError: transformers has no such model; the message says which it has.
    """
    vision, language = config.vision, config.language
    text: dict[str, Any] = {
        "model_type": "gemma2" if language.post_norms else "gemma",
        "vocab_size": language.vocab_size + VOCABULARY_PADDING,
        **{theirs: getattr(language, ours) for theirs, ours in LANGUAGE_SIZES.items()},
        # Gemma's classes read one of these two fields, depending on the version of transformers.
        "hidden_act": GELU,
        "hidden_activation": GELU,
        "rms_norm_eps": EPSILON,
        "rope_theta": ROPE_THETA,
        "max_position_embeddings": _MAX_POSITIONS,
        "num_image_tokens": vision.num_tokens,
        "tie_word_embeddings": True,
        "dtype": dtype,
    }
    if language.post_norms:
        text |= {
            "query_pre_attn_scalar": _query_pre_attn_scalar(config),
            "attn_logit_softcapping": language.attention_softcap,
            "final_logit_softcapping": language.final_softcap,
            "layer_types": ["full_attention"] * language.depth,
            # Older versions ignore `layer_types`. For them, a window of all positions is no window.
            "sliding_window": _MAX_POSITIONS,
        }
    else:
        _check_gemma(config)
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "model_type": "paligemma",
        "dtype": dtype,
        "bos_token_id": _BOS,
        "eos_token_id": _EOS,
        "pad_token_id": _PAD,
        "image_token_index": language.vocab_size,
        "hidden_size": language.width,
        "projection_dim": language.width,
        "tie_word_embeddings": True,
        "text_config": text,
        "vision_config": {
            "model_type": "siglip_vision_model",
            **{theirs: getattr(vision, ours) for theirs, ours in VISION_SIZES.items()},
            "num_channels": 3,
            "hidden_act": GELU,
            "layer_norm_eps": EPSILON,
            "num_image_tokens": vision.num_tokens,
            "projection_dim": language.width,
            "vision_use_head": False,
            "dtype": dtype,
        },
    }


def _query_pre_attn_scalar(config: PaliGemmaConfig) -> int:
    """Returns the field by which Gemma 2 in transformers scales queries: scale**-2, an integer."""
    # transformers multiplies queries by `query_pre_attn_scalar**-0.5`. For 28B, the scale is
    # (4608 / 32)**-0.5 and the field 144. The tolerance allows for the rounding of the scale.
    language = config.language
    scale = language.head_dim**-0.5 if language.query_scale is None else language.query_scale
    scalar = round(scale**-2)
    if scalar < 1 or abs(scalar**-0.5 / scale - 1) > 1e-6:
        raise ValueError(
            f"huggingface.export: query_scale={scale} is not 1 / sqrt(a whole number), which "
            "transformers' Gemma 2 requires. Fold it into llm/layers/attn/q_einsum/w, or save .npz."
        )
    return scalar


def _check_gemma(config: PaliGemmaConfig) -> None:
    """Raises ValueError if a model without post norms is not Gemma 1.

    Gemma 1 has no soft caps and scales queries by `head_dim**-0.5`.
    """
    language = config.language
    for name, neutral in (
        ("attention_softcap", (None,)),
        ("final_softcap", (None,)),
        ("query_scale", (None, language.head_dim**-0.5)),
    ):
        if getattr(language, name) not in neutral:
            raise ValueError(
                f"huggingface.export: {name}={getattr(language, name)} with post_norms=False. "
                "transformers supports only Gemma (no post norms, no soft caps, queries scaled by "
                "head_dim**-0.5) and Gemma 2 (post norms): save .npz instead."
            )
