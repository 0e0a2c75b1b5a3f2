"""The same work by Hugging Face transformers on PyTorch: a training step, and `generate`.

The sizes are those of our model. In training the language model's attention is float32 under
autocast to bfloat16, all else bfloat16 and frozen; a row is one caption with its image, as long as
it is. Attention is SDPA. JAX is kept to the CPU here, so that all of the card is PyTorch's.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

from accelerator.measuring import GIB, Part, is_out_of_memory
from accelerator.real_models import CAPTION, PROMPT, model_of
from paligemma_lib.checkpoint.huggingface.settings import model_settings

NEW = 20


def model(part: Part) -> Any:
    """transformers' model with random parameters, made in bfloat16 where they lie."""
    import torch
    import transformers

    config = model_of("paligemma_3b", part.dry_run)
    settings = model_settings(config, "bfloat16")
    made = transformers.PaliGemmaConfig.from_dict(settings)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device()):
        found = transformers.PaliGemmaForConditionalGeneration._from_config(
            made, attn_implementation="sdpa"
        )
    return found


def device() -> str:
    """Where PyTorch computes."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def inputs(found: Any, rows: int, new: int) -> dict[str, Any]:
    """Images of noise, the prompt and so many tokens behind it."""
    import torch

    vision = found.config.vision_config
    tokens = (vision.image_size // vision.patch_size) ** 2
    vocab = found.config.image_token_id
    prompt = [token % vocab for token in PROMPT]
    ids = torch.tensor([[vocab] * tokens + prompt] * rows)
    suffix = torch.randint(3, vocab, (rows, new))
    text = torch.cat([ids, suffix], dim=1).to(device())
    kinds = torch.cat([torch.zeros_like(ids), torch.ones_like(suffix)], dim=1).to(device())
    side = vision.image_size
    return {
        "input_ids": text,
        "token_type_ids": kinds,
        "attention_mask": torch.ones_like(text),
        "pixel_values": torch.randn(rows, 3, side, side, dtype=torch.bfloat16, device=device()),
    }


def timed(run: Callable[[], Any], rounds: int, warm_up: int = 2) -> float:
    """Median seconds; the first runs do not count."""
    import torch

    seconds = []
    for number in range(warm_up + rounds):
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if number >= warm_up:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def train(part: Part, found: Any) -> None:
    """Steps of AdamW, a caption a row."""
    import torch

    found.train()
    for name, parameter in found.named_parameters():
        trains = "language_model" in name and "self_attn" in name
        parameter.requires_grad_(trains)
        if trains:
            parameter.data = parameter.data.float()
    trained = [each for each in found.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-5, fused=torch.cuda.is_available())

    def step_of(given: dict[str, Any], forward: Callable[..., Any]) -> Callable[[], None]:
        labels = torch.where(given["token_type_ids"] == 1, given["input_ids"], -100)

        def step() -> None:
            optimizer.zero_grad()
            with torch.autocast(device(), torch.bfloat16):
                loss = forward(**given, labels=labels).loss
            loss.backward()
            optimizer.step()

        return step

    best: dict[int, float] = {}
    for compiled in (False, True):  # compiled last: it may take all the time that is left
        if compiled and (part.dry_run or not torch.cuda.is_available()):
            continue
        forward = torch.compile(found) if compiled else found
        for rows in (8, 32):
            what = f"batch {rows}{', compiled' * compiled}"
            try:
                seconds = timed(step_of(inputs(found, rows, CAPTION), forward), rounds=5)
            except torch.OutOfMemoryError as error:
                assert is_out_of_memory(error)
                part.emit(f"{what}: out of memory", None)
                torch.cuda.empty_cache()
                continue
            part.emit(f"{what}: captions", rows / seconds, "captions/s")
            best[rows] = max(best.get(rows, 0.0), rows / seconds)
            part.emit(f"best, batch {rows}: captions", best[rows], "captions/s")
            if torch.cuda.is_available():
                peak = torch.cuda.max_memory_allocated() / GIB
                part.emit(f"{what}: memory at peak of the process", peak, "GiB")


def generate(part: Part, found: Any) -> None:
    """Captions of 20 tokens, greedy and by beams of 4."""
    import torch

    found.eval()
    for rows in (1, 8, 32):
        given = inputs(found, rows, 0)
        for name, beams in (("greedy", 1), ("beams of 4", 4)):

            def run(given: Any = given, beams: int = beams) -> Any:
                with torch.inference_mode():
                    return found.generate(
                        **given,
                        do_sample=False,
                        num_beams=beams,
                        min_new_tokens=NEW,
                        max_new_tokens=NEW,
                    )

            try:
                seconds = timed(run, rounds=3, warm_up=1)
            except torch.OutOfMemoryError:
                part.emit(f"{name}, batch {rows}: out of memory", None)
                torch.cuda.empty_cache()
                continue
            part.emit(f"{name}, batch {rows}: captions", rows / seconds, "captions/s")
        if part.dry_run:
            break


def main() -> None:
    part = Part.of_command_line()
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ModuleNotFoundError as error:
        part.emit("not compared", None, "", f"{error.name} is not installed")
        return
    work = train if part.name.startswith("training") else generate
    work(part, model(part))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
