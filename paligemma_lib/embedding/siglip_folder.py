"""Loads SigLIP's two towers from a folder of transformers.

embedder = load_siglip(Path("siglip-base-patch16-224"), fields)       # fields of its config.json
embedder.texts(["a dog"])
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import PIL.Image

from paligemma_lib.checkpoint.arrays import open_binary
from paligemma_lib.checkpoint.finite import NotFinite, count_not_finite
from paligemma_lib.checkpoint.huggingface.folder import weight_files
from paligemma_lib.checkpoint.huggingface.format import Entry, read_header
from paligemma_lib.embedding.siglip_towers import Params, image_vectors, text_vectors
from paligemma_lib.embedding.siglip_words import SiglipWords
from paligemma_lib.model.variants import PaliGemmaConfig, SiglipConfig, nano

_BATCH = 32  # images or texts computed at a time; fewer are padded, so that one program is compiled
_HEADS = 12  # of both towers, where config.json leaves it out
_ACTIVATION = "gelu_pytorch_tanh"
_MOST_LAYERS = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class SiglipEmbedder:
    """SigLIP, by this library's own blocks; see `Embedder`.

    Attributes:
      vision, text: sizes of the towers.
      params: parameters of `image` and `text`.
      words: the tokenizer.
    """

    vision: PaliGemmaConfig
    text: SiglipConfig
    params: Params
    words: SiglipWords

    def images(self, images: Sequence[PIL.Image.Image]) -> np.ndarray:
        """Returns float32[N, D], vectors of length 1, for images in RGB."""
        size = self.vision.vision.image_size
        bicubic = PIL.Image.Resampling.BICUBIC  # as its preprocessor_config.json says
        pixels = [np.asarray(image.resize((size, size), bicubic)) for image in images]
        scaled = np.stack(pixels).astype(np.float32) / 127.5 - 1 if pixels else np.zeros((0, 1))
        return _in_batches(lambda x: image_vectors(self.vision, self.params["image"], x), scaled)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32[N, D], vectors of length 1. Texts that are too long are cut."""
        ids = self.words.encode(texts, len(self.params["text"]["positions"]))
        return _in_batches(lambda x: text_vectors(self.text, self.params["text"], x), ids)


def load_siglip(folder: Path, fields: Mapping[str, Any]) -> SiglipEmbedder:
    """Loads both towers as float32.

    Args:
      folder: the folder, with spiece.model.
      fields: content of its config.json.

    Raises:
      FileNotFoundError: the weights are missing.
      ValueError: a tensor is missing, has another shape, is there twice or is not finite, or the
        model computes otherwise.
    """
    heads = [_heads(folder, fields.get(f"{name}_config")) for name in ("vision", "text")]
    words = SiglipWords(folder)
    tensors = _Tensors(folder)
    vision, image = _image_tower(tensors, heads[0])
    config, text = _text_tower(tensors, heads[1])
    if len(text["tokens"]) < words.vocab_size:
        raise ValueError(
            f"{folder}: spiece.model has {words.vocab_size:,} pieces, the weights "
            f"{len(text['tokens']):,}: they do not belong together"
        )
    params = jax.tree.map(jax.numpy.asarray, {"image": image, "text": text})
    return SiglipEmbedder(vision, config, params, words)


class _Tensors:
    """Tensors of a folder by name; `tensors("x.weight", None, 3)` checks the shape."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[str, tuple[Path, Entry]] = {}
        for path in weight_files(folder):
            for name, entry in read_header(path).items():
                if name in self._found:
                    raise ValueError(
                        f"{path}: {name} is in {self._found[name][0].name}, too: keep the files of "
                        "one model in the folder"
                    )
                self._found[name] = path, entry

    def __call__(self, name: str, *shape: int | None) -> np.ndarray:
        """Returns float32 of this shape, where None is any size."""
        if name not in self._found:
            raise ValueError(f"{self._folder} lacks the tensor {name}: is it all of SigLIP?")
        path, entry = self._found[name]
        fits = len(entry.shape) == len(shape) and all(
            want is None or want == have for want, have in zip(shape, entry.shape, strict=True)
        )
        if entry.dtype is None or not fits or not all(entry.shape):
            expected = ", ".join("any" if each is None else str(each) for each in shape)
            raise ValueError(
                f"{path}: {name} is {entry.code}{list(entry.shape)}, expected floats [{expected}]"
            )
        with open_binary(str(path)) as file:
            file.seek(entry.start)
            data = file.read(entry.num_bytes)
        values = np.frombuffer(data, entry.dtype).reshape(entry.shape).astype(np.float32)
        if wrong := count_not_finite(values):
            raise NotFinite(str(path), {name: (wrong, values.size)})
        return values

    def layers(self, prefix: str) -> Iterator[str]:
        """Yields the prefixes of the layers there are."""
        for number in range(_MOST_LAYERS):
            if f"{prefix}{number}.layer_norm1.weight" not in self._found:
                return
            yield f"{prefix}{number}."


def _image_tower(tensors: _Tensors, heads: int) -> tuple[PaliGemmaConfig, Params]:
    base = "vision_model."
    patches = tensors(base + "embeddings.patch_embedding.weight", None, 3, None, None)
    width, patch = patches.shape[0], patches.shape[2]
    positions = tensors(base + "embeddings.position_embedding.weight", None, width)
    blocks, mlp = _blocks(tensors, base, width, heads)
    side = round(len(positions) ** 0.5)
    depth = len(blocks["LayerNorm_0"]["scale"])
    sizes = SiglipConfig(side * patch, patch, width, depth, mlp, heads)
    tower = {
        "embedding": {
            "kernel": patches.transpose(2, 3, 1, 0),  # OIHW -> HWIO
            "bias": tensors(base + "embeddings.patch_embedding.bias", width),
        },
        "pos_embedding": positions[None],
        "Transformer": {
            "encoderblock": blocks,
            "encoder_norm": _norm(tensors, base + "post_layernorm.", width),
        },
        # PaliGemma's head projects patches to Gemma's width. Here they go to the pooling head.
        "head": {"kernel": np.eye(width, dtype=np.float32), "bias": np.zeros(width, np.float32)},
    }
    head = base + "head."
    kernels = np.split(tensors(head + "attention.in_proj_weight", 3 * width, width), 3)
    biases = np.split(tensors(head + "attention.in_proj_bias", 3 * width), 3)
    out, up = (_dense(tensors, head + name) for name in ("attention.out_proj.", "mlp.fc1."))
    down, norm = _dense(tensors, head + "mlp.fc2."), _norm(tensors, head + "layernorm.", width)
    pool = {"probe": tensors(head + "probe", 1, 1, width), **norm}
    for name, kernel, bias in zip(("query", "key", "value"), kernels, biases, strict=True):
        pool |= {f"{name}_kernel": kernel.T, f"{name}_bias": bias}
    for name, dense in (("out", out), ("in", up), ("down", down)):
        pool |= {f"{name}_kernel": dense["kernel"], f"{name}_bias": dense["bias"]}
    return PaliGemmaConfig(sizes, nano().language), {"tower": tower, "pool": pool}


def _text_tower(tensors: _Tensors, heads: int) -> tuple[SiglipConfig, Params]:
    base = "text_model."
    tokens = tensors(base + "embeddings.token_embedding.weight", None, None)
    width = tokens.shape[1]
    blocks, mlp = _blocks(tensors, base, width, heads)
    depth = len(blocks["LayerNorm_0"]["scale"])
    return SiglipConfig(1, 1, width, depth, mlp, heads), {
        "tokens": tokens,
        "positions": tensors(base + "embeddings.position_embedding.weight", None, width),
        "blocks": blocks,
        "norm": _norm(tensors, base + "final_layer_norm.", width),
        "head": _dense(tensors, base + "head."),
    }


def _blocks(tensors: _Tensors, base: str, width: int, heads: int) -> tuple[Params, int]:
    """Returns the layers of a tower, stacked along axis 0, and the width of their MLPs."""
    if width % heads:
        raise ValueError(f"{base} has width {width}, which {heads} heads do not divide")
    split = (width, heads, width // heads)

    def block(layer: str) -> Params:
        def heads_of(name: str) -> Params:
            dense = _dense(tensors, f"{layer}self_attn.{name}_proj.")
            return {
                "kernel": dense["kernel"].reshape(split),
                "bias": dense["bias"].reshape(split[1:]),
            }

        out = _dense(tensors, f"{layer}self_attn.out_proj.")
        return {
            "LayerNorm_0": _norm(tensors, f"{layer}layer_norm1.", width),
            "LayerNorm_1": _norm(tensors, f"{layer}layer_norm2.", width),
            "MultiHeadDotProductAttention_0": {
                "query": heads_of("q"),
                "key": heads_of("k"),
                "value": heads_of("v"),
                "out": {"kernel": out["kernel"].reshape(*split[1:], width), "bias": out["bias"]},
            },
            "MlpBlock_0": {
                "Dense_0": _dense(tensors, f"{layer}mlp.fc1."),
                "Dense_1": _dense(tensors, f"{layer}mlp.fc2."),
            },
        }

    found = [block(layer) for layer in tensors.layers(f"{base}encoder.layers.")]
    if not found:
        raise ValueError(f"the weights hold no layers {base}encoder.layers: is it all of SigLIP?")
    stacked: Params = jax.tree.map(lambda *layers: np.stack(layers), *found)
    return stacked, stacked["MlpBlock_0"]["Dense_0"]["bias"].shape[-1]


def _dense(tensors: _Tensors, base: str) -> Params:
    kernel = tensors(base + "weight", None, None).T
    return {"kernel": kernel, "bias": tensors(base + "bias", kernel.shape[1])}


def _norm(tensors: _Tensors, base: str, width: int) -> Params:
    return {"scale": tensors(base + "weight", width), "bias": tensors(base + "bias", width)}


def _heads(folder: Path, fields: Any) -> int:
    """Returns the number of heads of a tower; raises ValueError if it computes otherwise."""
    told = fields if isinstance(fields, Mapping) else {}
    activation, heads = told.get("hidden_act", _ACTIVATION), told.get("num_attention_heads", _HEADS)
    epsilon = told.get("layer_norm_eps", 1e-6)
    if activation != _ACTIVATION or epsilon != 1e-6 or type(heads) is not int or heads < 1:
        raise ValueError(
            f"{folder}/config.json: hidden_act={activation!r:.40}, layer_norm_eps={epsilon!r:.40}, "
            f"num_attention_heads={heads!r:.40}; expected SigLIP's {_ACTIVATION}, 1e-06, and heads"
        )
    return heads


def _in_batches(compute: Callable[[np.ndarray], jax.Array], rows: np.ndarray) -> np.ndarray:
    found = []
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        padding = [(0, _BATCH - len(part)), *[(0, 0)] * (rows.ndim - 1)]
        found.append(np.asarray(compute(np.pad(part, padding)))[: len(part)])
    return np.concatenate(found) if found else np.zeros((0, 1), np.float32)
