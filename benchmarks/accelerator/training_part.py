"""PaliGemma 3B at 224 pixels, the language model's attention alone, in bfloat16, by AdamW.

Frozen parameters are bfloat16 too, what trains is float32. Five captions of an image are packed
behind it; next to that one caption an image, as the peer trains. The batch lies on the device
before the clock starts. FLOPs for MFU are those of the mathematics' matrix products: nothing that
is done again to save memory counts.
"""

import time
from typing import Any

import jax

from accelerator import needed_flops
from accelerator.measuring import (
    GIB,
    Part,
    copy_rate,
    is_out_of_memory,
    limit_bytes,
    machine,
    peak_bytes,
    product_rate,
    timed,
)
from accelerator.real_models import batch_of, model_of, random_params
from paligemma_lib import sharding, train
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.train.memory import bytes_needed

TEXT = {5: 128, 1: 24}  # captions of an image -> text positions


class Training:
    """A step that can be made again and again: `run()` makes one, and returns its metrics."""

    def __init__(self, config: PaliGemmaConfig, frozen: str, images: int, captions: int) -> None:
        start = time.perf_counter()
        mesh = sharding.make_mesh()
        self.config, self.images, self.captions = config, images, captions
        self.optimizer = train.make_optimizer("adamw", learning_rate=1e-5, total_steps=1000)
        params = random_params(config, lambda name: frozen)
        params = jax.device_put(params, sharding.replicated(mesh))
        self.state = train.init_state(
            config, params, self.optimizer, trainable="attention", mesh=mesh
        )
        self.mesh = mesh
        self.batch = sharding.put_batch(mesh, batch_of(config, images, captions, TEXT[captions]))
        step = train.make_train_step(config, self.optimizer, mesh=mesh)
        with jax.set_mesh(mesh):
            self.program = self._traced(step).lower().compile()
        self.seconds = time.perf_counter() - start

    def run(self) -> Any:
        """Makes a step."""
        changed, metrics = self.program(self.state.frozen, self._changing(), self.batch)
        self.state = train.TrainState(frozen=self.state.frozen, **changed)
        return metrics

    def flops(self) -> float:
        """Of the matrix products that the mathematics needs for a step."""
        supervised = self.images * self.captions * 14
        return needed_flops.of_step(
            self.config, self.optimizer, self.mesh, self.state, self.batch, supervised
        )

    def _changing(self) -> dict[str, Any]:
        return {name: each for name, each in vars(self.state).items() if name != "frozen"}

    def _traced(self, step: Any) -> Any:
        with jax.set_mesh(self.mesh):
            return step.jitted.trace(self.state.frozen, self._changing(), self.batch)


def planned_bytes(compiled: Any) -> int:
    """What XLA says that the program holds at once, its arguments included."""
    memory = compiled.memory_analysis()
    alias = memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + memory.temp_size_in_bytes + (
        memory.output_size_in_bytes - alias
    )  # fmt: skip


def measure(part: Part, training: Training, name: str, rounds: int = 6) -> None:
    """Runs it and tells everything, of which the first is whether it fits."""
    part.emit(f"{name}: made and compiled in", training.seconds, "s")
    planned, limit = planned_bytes(training.program), limit_bytes()
    part.emit(f"{name}: memory planned by XLA", planned / GIB, "GiB")
    config = training.config
    estimate = bytes_needed(
        config, training.optimizer, trainable="attention", batch_size=training.images,
        text_len=TEXT[training.captions], frozen_dtype=config.dtype,
    )  # fmt: skip
    part.emit(f"{name}: memory estimated by doctor", estimate / GIB, "GiB")
    if limit is not None and planned > limit:
        part.emit(f"{name}: missing", (planned - limit) / GIB, "GiB", "does not fit, not run")
        return
    try:
        seconds = timed(training.run, rounds)
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        part.emit(f"{name}: out of memory", None, "", str(error).splitlines()[0][:200])
        return
    positions = config.vision.num_tokens + TEXT[training.captions]
    part.emit(f"{name}: a step", 1e3 * seconds, "ms")
    part.emit(f"{name}: captions", training.images * training.captions / seconds, "captions/s")
    part.emit(f"{name}: tokens", training.images * positions / seconds, "tokens/s")
    part.emit(f"{name}: needed FLOPs", training.flops() / seconds / 1e12, "TFLOP/s")
    if (peak := peak_bytes()) is not None:
        part.emit(f"{name}: memory at peak of the process", peak / GIB, "GiB")


def main() -> None:
    part = Part.of_command_line()
    part.emit("machine", machine())
    part.emit("product rate", product_rate(part.dry_run) / 1e12, "TFLOP/s", "8192 cubed, bfloat16")
    part.emit("copy rate", copy_rate(part.dry_run) / 1e9, "GB/s", "read and written")
    config = model_of("paligemma_3b", part.dry_run, dtype="bfloat16", remat="dots")
    for captions in (5, 1):
        for images in (8,) if part.dry_run else (8, 32):
            training = Training(config, "bfloat16", images, captions)
            measure(part, training, f"batch {images}, {captions} an image")
            del training


if __name__ == "__main__":
    main()
