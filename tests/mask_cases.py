"""A codec of masks in the published form, with random weights, or one that stores masks exactly."""

from pathlib import Path

import numpy as np

CHANNELS = 8
WIDTH = 16  # of the codebook


def arrays(seed: int = 0, channels: int = CHANNELS) -> dict[str, np.ndarray]:
    """The arrays of a codec with PyTorch's names and layouts."""
    rng = np.random.default_rng(seed)
    made = {"_vq_vae._embedding": rng.normal(size=(128, WIDTH))}

    def layer(name: str, ends: tuple[int, int], side: int, out: int) -> None:
        made[f"{name}.weight"] = rng.normal(size=(*ends, side, side)) / side / ends[0] ** 0.5
        made[f"{name}.bias"] = rng.normal(size=out) / 4

    def residual(name: str) -> None:
        for place, side in ((0, 3), (2, 3), (4, 1)):
            layer(f"{name}.{place}", (channels, channels), side, channels)

    for place, before in zip((0, 2, 4, 6), (1, *[channels] * 3), strict=True):
        layer(f"encoder.{place}", (channels, before), 4, channels)
    for place in (8, 9):
        residual(f"encoder.{place}.net")
    layer("encoder.10", (WIDTH, channels), 1, WIDTH)
    layer("decoder.0", (channels, WIDTH), 1, channels)
    for place in (2, 3):
        residual(f"decoder.{place}.net")
    before = channels
    for place, after in zip((4, 6, 8, 10), (channels, 4, 4, 2), strict=True):
        layer(f"decoder.{place}", (before, after), 4, after)  # transposed: in, out
        before = after
    layer("decoder.12", (1, before), 1, 1)
    return {name: array.astype(np.float32) for name, array in made.items()}


def write_codec(path: Path, **changes) -> Path:
    """Writes a file such as vae-oid.npz, with some arrays changed, or left out where None."""
    given = {**arrays(), **changes}
    np.savez(path, **{name: array for name, array in given.items() if array is not None})
    return path


def square_arrays() -> dict[str, np.ndarray]:
    """A codec that means something: code 0 of a cell of 16 x 16 pixels is empty, code 1 full.

    Its encoder takes the mean of a cell, its decoder spreads a code over the cell.
    """
    made = {name: np.zeros_like(array) for name, array in arrays(channels=4).items()}
    made["_vq_vae._embedding"][:] = 9  # far away
    made["_vq_vae._embedding"][0], made["_vq_vae._embedding"][1] = 0, 0
    made["_vq_vae._embedding"][1, 0] = 1
    for place in (0, 2, 4, 6):  # the mean of the inner 2 x 2 of 4 x 4 that halve the size
        made[f"encoder.{place}.weight"][0, 0, 1:3, 1:3] = 0.25
    made["encoder.10.weight"][0, 0] = 1  # ReLU has cut the mean, -1 to 1, at 0
    made["decoder.0.weight"][0, 0] = 1
    for place in (4, 6, 8, 10):  # each value four times
        made[f"decoder.{place}.weight"][0, 0, 1:3, 1:3] = 1
    made["decoder.12.weight"][0, 0], made["decoder.12.bias"][:] = 2, -1
    return made
