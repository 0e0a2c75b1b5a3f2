"""Batches and logits of transformers' PyTorch model, for tests that hold ours against it."""

import numpy as np
import pytest

REASON = "needs transformers and torch (pip install -e '.[parity]')"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)


def batch_of_pairs(config, seed=0):
    """Four images with a prefix and a suffix each, of different lengths; padding on the right."""
    rng = np.random.default_rng(seed)
    size = config.vision.image_size
    segment = np.full((4, 14), -1, np.int32)
    for row, (prefix, suffix) in zip(segment, [(4, 10), (3, 5), (6, 1), (2, 8)], strict=True):
        row[:prefix] = 0
        row[prefix : prefix + suffix] = 1
    there = segment >= 0
    text = np.where(there, rng.integers(4, config.language.vocab_size, segment.shape), 0)
    position = np.where(there, np.arange(segment.shape[1]), 0)
    return {
        "image": rng.uniform(-1, 1, (4, size, size, 3)).astype(np.float32),
        "text": text.astype(np.int32),
        "segment": segment,
        "position": position.astype(np.int32),
    }


def their_inputs(config, batch):
    """The same batch as transformers wants it."""
    rows, front = len(batch["text"]), config.vision.num_tokens
    segment = torch.from_numpy(np.pad(batch["segment"], ((0, 0), (front, 0)))).long()
    images = torch.full((rows, front), config.language.vocab_size)
    return {
        "input_ids": torch.cat([images, torch.from_numpy(batch["text"]).long()], dim=1),
        "pixel_values": torch.from_numpy(batch["image"]).permute(0, 3, 1, 2),
        "attention_mask": (segment >= 0).long(),
        "token_type_ids": (segment > 0).long(),
    }


def their_logits(their_model, config, batch):
    """float32[B, T, V] at the slots of the text."""
    with torch.no_grad():
        logits = their_model.eval()(**their_inputs(config, batch)).logits.float().numpy()
    return logits[:, config.vision.num_tokens :, : config.language.vocab_size]


def opened_by_transformers(folder, **options):
    """Opens the folder and insists that every tensor found its place."""
    load = transformers.PaliGemmaForConditionalGeneration.from_pretrained
    their_model, info = load(folder, output_loading_info=True, **options)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[kind], (kind, info[kind])
    return their_model
