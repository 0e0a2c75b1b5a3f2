"""A step at 448 and 896 pixels, and of PaliGemma 2 3B: its time and memory, or how much is missing.

Eight images with five captions each; `remat=full`, since the question is whether it fits at all.
"""

from accelerator.measuring import Part
from accelerator.real_models import model_of
from accelerator.training_part import Training, measure

CASES = (("paligemma_3b", 448), ("paligemma2_3b", 224), ("paligemma_3b", 896))  # the costly last


def main() -> None:
    part = Part.of_command_line()
    for name, side in CASES[:2] if part.dry_run else CASES:
        config = model_of(name, part.dry_run, side, dtype="bfloat16", remat="full")
        training = Training(config, "bfloat16", 8, 5)
        measure(part, training, f"{name} at {side}, batch 8", rounds=3)
        del training


if __name__ == "__main__":
    main()
