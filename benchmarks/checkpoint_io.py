"""How fast does a 3B checkpoint load and save, next to plainly reading and writing its bytes?

    python benchmarks/checkpoint_io.py --folder /tmp
    python benchmarks/checkpoint_io.py --folder /tmp --kind safetensors
    python benchmarks/checkpoint_io.py --folder /tmp --forward

Makes a PaliGemma 3B checkpoint in bfloat16 (5.8 GB; twice that while saving is measured, or while
it is made as safetensors) and deletes it afterwards. The file is read from the disk, not from the
system's cache, which is told to forget it, and then once more with the cache warm. Everything is
done in turns in one run. `--forward` does something else: it loads the file, computes one forward
pass of one image in bfloat16, and says how much memory that took.
Linux only: peaks of resident memory are read from /proc.
"""

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_lib import model
from paligemma_lib.checkpoint import load_params, save_params
from paligemma_lib.checkpoint.conversion import convert
from paligemma_lib.checkpoint.matching import expected_shapes
from paligemma_lib.checkpoint.npz import write_npz
from paligemma_lib.checkpoint.placement import row_blocks

CONFIG = model.variants.paligemma_3b()
DTYPE = jnp.dtype("bfloat16")
BLOCK = 32 << 20


def make_checkpoint(path: Path) -> None:
    """Random finite bfloat16 values, made block by block."""
    rng = np.random.default_rng(0)

    def blocks(shape):
        for rows in row_blocks(shape, DTYPE.itemsize):
            bits = rng.integers(0, 2**16, (rows.stop - rows.start, *shape[1:]), np.uint16)
            yield (bits & 0xBFFF).view(DTYPE)  # below 2, so never infinite

    with open(path, "wb") as file:
        arrays = ((n, s, DTYPE, blocks(s)) for n, s in expected_shapes(CONFIG).items())
        write_npz(file, arrays)
        file.flush()
        os.fsync(file.fileno())


def files(path: Path) -> list[Path]:
    """The weights of a checkpoint of either kind."""
    return sorted(path.glob("*.safetensors")) if path.is_dir() else [path]


def read_plainly(path: Path) -> None:
    buffer = bytearray(BLOCK)
    for each in files(path):
        with open(each, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def read_to_new_memory(path: Path) -> None:
    """As plain as reading gets when the bytes are to be kept."""
    _ = [np.fromfile(each, np.uint8) for each in files(path)]


def write_plainly(path: Path, size: int) -> None:
    block = np.random.default_rng(0).bytes(BLOCK)
    with open(path, "wb", buffering=0) as file:
        for first in range(0, size, BLOCK):
            file.write(block[: size - first])
        os.fsync(file.fileno())
    path.unlink()


def load(path: Path) -> None:
    load_params(path, CONFIG)


def forget(path: Path) -> None:
    """Drops the files from the system's cache."""
    for each in files(path):
        with open(each, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(function: Callable, *args) -> float:
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def peak_resident() -> float:
    """GiB since `reset_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measure_loading(path: Path, turns: int) -> None:
    size = sum(each.stat().st_size for each in files(path))
    for cache in ("from the disk", "from the cache"):
        ratios, rates = [], []
        for _ in range(turns):
            times = []
            for read in (read_plainly, read_to_new_memory, load):
                if cache == "from the disk":
                    forget(path)
                reset_peak()
                times.append(seconds(read, path))
            ratios.append([times[0] / times[2], times[1] / times[2]])
            rates.append([size / 1e9 / each for each in times])
        plain, new, ours = np.median(rates, axis=0)
        ratio, ratio_new = np.median(ratios, axis=0)
        print(
            f"loading {cache}: {ours:.2f} GB/s against {plain:.2f} read into one buffer, ratio "
            f"{ratio:.2f} ({' '.join(f'{each:.2f}' for each, _ in ratios)}), and {new:.2f} read "
            f"into new memory, ratio {ratio_new:.2f}; peak {peak_resident():.2f} GiB resident",
            flush=True,
        )


def measure_saving(path: Path, turns: int) -> None:
    copy, size = path.with_name("copy.npz"), path.stat().st_size
    params = load_params(path, CONFIG)
    ratios, rates = [], []
    for _ in range(turns):
        reset_peak()
        ours = seconds(save_params, copy, params)
        copy.unlink()
        plain = seconds(write_plainly, copy, size)
        ratios.append([plain / ours])
        rates.append([size / 1e9 / plain, size / 1e9 / ours])
    plain, ours = np.median(rates, axis=0)
    print(
        f"saving: {ours:.2f} GB/s against {plain:.2f} plainly written, ratio "
        f"{np.median(ratios):.2f}; peak {peak_resident():.2f} GiB resident"
    )


def measure_forward(path: Path) -> None:
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    reset_peak()
    params = load_params(path, config)
    print(f"loading: peak {peak_resident():.2f} GiB resident")
    image = np.zeros((1, 224, 224, 3), np.float32)
    position = np.arange(8, dtype=np.int32)[None]
    text, segment = position + 4, position // 4

    @jax.jit
    def forward(params):
        hidden = model.hidden_states(config, params, image, text, segment, position)
        return model.logits(config, params, hidden)

    took = seconds(lambda: jax.block_until_ready(forward(params)))
    again = seconds(lambda: jax.block_until_ready(forward(params)))
    print(
        f"forward pass of one image and 8 tokens: {took:.1f} s with compiling, {again:.1f} s "
        f"without; peak {peak_resident():.2f} GiB resident"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", default=None, help="where to put the files")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--kind", choices=("npz", "safetensors"), default="npz")
    parser.add_argument("--forward", action="store_true", help="load and compute once, instead")
    args = parser.parse_args()
    jax.block_until_ready(jnp.ones(1) + 1)  # starts JAX

    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder, "params.npz")
        make_checkpoint(path)
        if args.kind == "safetensors":
            npz, path = path, Path(folder, "params")
            convert(npz, path)
            npz.unlink()
        size = sum(each.stat().st_size for each in files(path))
        print(f"{size / 1e9:.2f} GB in bfloat16, {args.kind}", flush=True)
        if args.forward:
            measure_forward(path)
        else:
            measure_loading(path, args.turns)
            if args.kind == "npz":
                measure_saving(path, args.turns)


if __name__ == "__main__":
    main()
