"""A tiny SigLIP with random weights, in a folder as transformers writes it."""

import io
import json
from pathlib import Path

import numpy as np
import sentencepiece
from safetensors.numpy import save_file

WIDTH, HEADS, MLP, DEPTH, PATCH, SIDE, LENGTH, PIECES = 24, 4, 40, 2, 8, 3, 16, 60
SENTENCES = ["a dog runs on the grass", "two red balls lie in the snow", "A photo depicts a cat."]


def tower(prefix: str, tensors: dict, rng: np.random.Generator) -> None:
    """Adds the layers of a tower."""

    def add(name: str, *shape: int) -> None:
        tensors[prefix + name] = rng.normal(0, 0.3, shape).astype(np.float32)

    for layer in (f"encoder.layers.{k}." for k in range(DEPTH)):
        for norm in ("layer_norm1", "layer_norm2"):
            add(f"{layer}{norm}.weight", WIDTH)
            add(f"{layer}{norm}.bias", WIDTH)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            add(f"{layer}self_attn.{name}.weight", WIDTH, WIDTH)
            add(f"{layer}self_attn.{name}.bias", WIDTH)
        add(f"{layer}mlp.fc1.weight", MLP, WIDTH)
        add(f"{layer}mlp.fc1.bias", MLP)
        add(f"{layer}mlp.fc2.weight", WIDTH, MLP)
        add(f"{layer}mlp.fc2.bias", WIDTH)


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """All tensors, by the names of transformers."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    shapes = {
        "vision_model.embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        "vision_model.embeddings.patch_embedding.bias": (WIDTH,),
        "vision_model.embeddings.position_embedding.weight": (SIDE**2, WIDTH),
        "vision_model.post_layernorm.weight": (WIDTH,),
        "vision_model.post_layernorm.bias": (WIDTH,),
        "vision_model.head.probe": (1, 1, WIDTH),
        "vision_model.head.attention.in_proj_weight": (3 * WIDTH, WIDTH),
        "vision_model.head.attention.in_proj_bias": (3 * WIDTH,),
        "vision_model.head.attention.out_proj.weight": (WIDTH, WIDTH),
        "vision_model.head.attention.out_proj.bias": (WIDTH,),
        "vision_model.head.layernorm.weight": (WIDTH,),
        "vision_model.head.layernorm.bias": (WIDTH,),
        "vision_model.head.mlp.fc1.weight": (MLP, WIDTH),
        "vision_model.head.mlp.fc1.bias": (MLP,),
        "vision_model.head.mlp.fc2.weight": (WIDTH, MLP),
        "vision_model.head.mlp.fc2.bias": (WIDTH,),
        "text_model.embeddings.token_embedding.weight": (PIECES, WIDTH),
        "text_model.embeddings.position_embedding.weight": (LENGTH, WIDTH),
        "text_model.final_layer_norm.weight": (WIDTH,),
        "text_model.final_layer_norm.bias": (WIDTH,),
        "text_model.head.weight": (WIDTH, WIDTH),
        "text_model.head.bias": (WIDTH,),
        "logit_scale": (1,),
        "logit_bias": (1,),
    }
    for name, shape in shapes.items():
        tensors[name] = rng.normal(0, 0.3, shape).astype(np.float32)
    for prefix in ("vision_model.", "text_model."):
        tower(prefix, tensors, rng)
    return tensors


def pieces() -> bytes:
    """A SentencePiece model with the conventions of SigLIP's."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([each.lower() for each in SENTENCES] * 20),
        model_writer=model,
        vocab_size=PIECES - 5,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


def siglip_folder(folder: Path, seed: int = 0) -> Path:
    """Writes the model; returns the folder."""
    folder.mkdir(parents=True)
    sizes = {
        "hidden_size": WIDTH,
        "intermediate_size": MLP,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
    }
    config = {
        "model_type": "siglip",
        "architectures": ["SiglipModel"],
        "vision_config": {**sizes, "image_size": SIDE * PATCH, "patch_size": PATCH},
        "text_config": {**sizes, "max_position_embeddings": LENGTH, "vocab_size": PIECES},
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights(seed), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "spiece.model").write_bytes(pieces())
    return folder
