"""As on a card of 16 GB: the same step in float16, with what JAX may hold kept to 15 GiB.

Two batches tell what an image takes, and so which is the largest that should go; it is tried, and
smaller ones after it until one goes.
"""

import os

from accelerator.measuring import GIB, Part, is_out_of_memory, nvidia, timed

HELD = 15 * GIB


def main() -> None:
    part = Part.of_command_line()
    if (card := nvidia()) is not None:  # before JAX loads; it refuses the old name beside the new
        os.environ.pop("XLA_CLIENT_MEM_FRACTION", None)
        os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{min(0.95, HELD / card[2]):.4f}"

    import jax

    from accelerator.real_models import model_of
    from accelerator.training_part import Training, planned_bytes

    config = model_of("paligemma_3b", part.dry_run, dtype="float16", remat="full")

    def planned(images: int) -> int:
        return planned_bytes(Training(config, "float16", images, 5).program)

    one, two = planned(1), planned(2)
    part.emit("batch 1: memory planned by XLA", one / GIB, "GiB")
    each = max(1, two - one)
    images = min(4 if part.dry_run else 256, 1 + max(0, HELD - one) // each)
    part.emit("each image more", each / GIB, "GiB", f"so {images} should fit")
    training = None
    while images:
        del training  # or two of them would have to find room
        training = None
        try:
            training = Training(config, "float16", images, 5)
            seconds = timed(training.run, rounds=3)
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
            del error
            part.emit(f"batch {images}: out of memory", None)
            images = images * 7 // 8
            continue
        part.emit(
            "largest batch that goes", images, "images", f"{5 * images / seconds:.0f} captions/s"
        )
        return
    part.emit("largest batch that goes", 0, "images")


if __name__ == "__main__":
    main()
