"""The codec that a benchmark trains is one for the library: same layers, same file, no pickle."""

import sys
from pathlib import Path

import numpy as np

from paligemma_lib.checkpoint import load_mask_codec
from paligemma_lib.regions.region_masks import box_and_pixels

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import train_mask_codec as benchmark


def test_what_is_trained_is_what_the_library_computes(tmp_path):
    masks = benchmark.masks_of(0, 12)
    pixels = np.stack([box_and_pixels(each, "thing")[1] for each in masks])
    trained = benchmark.train(pixels, 3, np.random.default_rng(0))
    np.savez(tmp_path / "codec.npz", **{name: np.asarray(each) for name, each in trained.items()})
    codec = load_mask_codec(tmp_path / "codec.npz")
    book = np.asarray(trained[benchmark.BOOK])
    flat = np.asarray(benchmark.encoded(trained, pixels)).reshape(-1, 1, benchmark.WIDTH)
    nearest = ((flat - book) ** 2).sum(-1).argmin(1).reshape(len(pixels), 16)
    codes = codec.encode(pixels)
    assert (codes == nearest).mean() > 0.99  # two codes may be equally near
    logits = benchmark.decoded(trained, book[codes].reshape(len(codes), 4, 4, -1))
    np.testing.assert_allclose(codec.decode(codes), logits, atol=1e-4)
    assert 0 <= benchmark.iou(codec, masks[0]) <= 1
