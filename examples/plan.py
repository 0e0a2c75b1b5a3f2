"""Says whether a run fits on TPU slices that are not here, and how fast it could be at best.

    python examples/plan.py --config=examples/configs/pod.py --topology=v5e:2x4,v5e:4x8
    python examples/plan.py --config=examples/configs/pod.py --topology=v5e:2x4 --slices=2 --search
    python examples/plan.py --config=examples/configs/pod.py --topology=v5e:2x4 --decode

Compiles the training step of every stage of the config, or with --decode its captioning, and
allocates nothing. Needs libtpu: pip install -e ".[tpu]"; for CPU devices (cpu:8) it does not.
What it prints are predictions. --search ends with what to give to finetune.py.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from ml_collections import ConfigDict

import paligemma_lib as pg
from paligemma_lib import planning
from paligemma_lib.checkpoint.configuration import published
from paligemma_lib.doctor.config import config_of, stages_of
from paligemma_lib.doctor.setup import Stage
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.planning import Compiled, Decoding, Job, Slices, Training

POD = Path(__file__).parent / "configs" / "pod.py"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 if something fits on each topology."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--config", default=str(POD), help="and --config.FIELD=VALUE to change it")
    parser.add_argument("--topology", default="v5e:2x4", help="v5e:4x8, v5p:2x2x2,v6e:2x4, cpu:8")
    parser.add_argument("--slices", type=int, default=1, help="how many, joined by slower links")
    parser.add_argument("--batch_size", type=int, help="instead of the config's")
    parser.add_argument("--decode", action="store_true", help="plan captioning, not training")
    parser.add_argument("--search", action="store_true", help="try batches, microbatches, remat")
    given = sys.argv[1:] if argv is None else argv
    changes = [word for word in given if word.startswith("--config.")]
    args = parser.parse_args([word for word in given if word not in changes])
    topologies = args.topology.split(",")
    try:
        config = config_of(args.config, changes)
        if args.batch_size:
            config["decode_batch_size" if args.decode else "batch_size"] = args.batch_size
        fits = plan(config, topologies, args.slices, args.decode)
        for topology in topologies if args.search else ():
            print(searched(config, topology, args.slices))
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0 if fits else 1


def plan(config: ConfigDict, topologies: Sequence[str], slices: int, decode: bool) -> bool:
    """Compiles and prints; returns whether something fits on each of the topologies."""
    model = model_of(config)
    plans, problems, details, fits = [], [], [], True
    for topology in topologies:
        chip = Slices.named(topology, slices).chip
        found = False
        for name, work in works_of(config, topology, slices, decode).items():
            print(f"compiling {name} ...", file=sys.stderr)
            job = Job(model, work, topology, slices)
            compiled = planning.compile_job(job)
            limits = planning.predict(compiled, chip) if chip and compiled.fits else None
            plans.append((name, compiled, limits))
            found |= compiled.fits
            if compiled.fits:
                details.append(f"{name}:\n{planning.messages(compiled)}")
            else:
                problems.append(f"{name} {compiled.problem}. {cure(job, compiled)}")
        fits &= found
    parts = [title(config, model, decode), planning.plan_table(plans), planning.NOTE]
    print(*parts, *problems, "The largest messages of a step:", *details, sep="\n\n")
    return fits


def works_of(
    config: ConfigDict, topology: str, slices: int, decode: bool
) -> dict[str, Training | Decoding]:
    """What to compile, by name: each stage with weights that are split and with whole ones."""
    place = f"{slices}*{topology}" if slices > 1 else topology
    if decode:
        layouts = ("replicated", "tensor", "fsdp")
        return {f"{place} {layout}": decoding(config, layout) for layout in layouts}
    stages = stages_of(config)
    works: dict[str, Training | Decoding] = {}
    for stage in stages:
        of_stage = f" from step {stage.from_step}" if len(stages) > 1 else ""
        for fsdp in dict.fromkeys((config.fsdp or None, 1)):
            layout = {None: "fsdp", 1: "replicated"}.get(fsdp, f"fsdp={fsdp}")
            works[f"{place} {layout}{of_stage}"] = training(config, stage, fsdp)
    return works


def training(config: ConfigDict, stage: Stage, fsdp: int | None) -> Training:
    """The step of a stage."""
    return Training(
        batch_size=config.batch_size,
        text_len=config.text_len,
        trainable=stage.trainable,
        optimizer=config.optimizer.name,
        microbatches=config.microbatches,
        fsdp=fsdp,
        frozen_dtype=config.model.frozen_dtype or "float32",
    )


def decoding(config: ConfigDict, layout: Any) -> Decoding:
    """Captions of a batch."""
    return Decoding(
        batch_size=config.decode_batch_size,
        max_new_tokens=config.max_new_tokens,
        layout=layout,
        dtype=config.model.frozen_dtype or "float32",
    )


def model_of(config: ConfigDict) -> PaliGemmaConfig:
    """The model; of a published one nothing is read but the name.

    Raises:
      ValueError, OSError: there is no such model or checkpoint.
    """
    given = config.model
    if not given.checkpoint:
        model = getattr(pg.model.variants, given.name)()
        vocab_size = given.vocab_size or model.language.vocab_size
        language = dataclasses.replace(model.language, vocab_size=vocab_size)
        model = dataclasses.replace(model, language=language)
    elif pg.hub.is_kaggle(given.checkpoint):
        model = published(given.checkpoint)
    else:
        model = pg.checkpoint.read_config(given.checkpoint)
    vision = model.vision
    if given.image_size:
        vision = dataclasses.replace(vision, image_size=given.image_size)
    return dataclasses.replace(model, vision=vision, dtype=given.dtype, remat=given.remat)


def title(config: ConfigDict, model: PaliGemmaConfig, decode: bool) -> str:
    """What the table is of."""
    what = f"{config.model.checkpoint or config.model.name}, {model.vision.image_size} pixels"
    if decode:
        return f"{what}: {config.decode_batch_size} captions of {config.max_new_tokens} tokens"
    return (
        f"{what}: a step of {config.batch_size} examples in {config.microbatches} microbatches, "
        f"{config.text_len} text slots, remat={model.remat}"
    )


def cure(job: Job, compiled: Compiled) -> str:
    """What to try where a job does not fit."""
    state_alone = compiled.arguments > compiled.limit  # then no batch is small enough
    if isinstance(job.work, Decoding):
        smaller = "" if state_alone else "a smaller decode_batch_size, "
        return f"Try {smaller}another of these layouts, or more chips."
    tries = ["fsdp=0"] if job.work.fsdp == 1 else []
    if job.work.frozen_dtype == "float32":
        tries.append("model.frozen_dtype=bfloat16")
    if state_alone:
        return f"Try {', '.join([*tries, 'more chips'])}."
    if job.model.remat != "full":
        tries.append("model.remat=full")
    tries += [f"microbatches={2 * job.work.microbatches}", "a smaller batch_size", "more chips"]
    return f"Try {', '.join(tries)}, or --search."


def searched(config: ConfigDict, topology: str, slices: int) -> str:
    """The best ways to train the config's last stage there."""
    work = training(config, stages_of(config)[-1], config.fsdp or None)

    def compile_job(job: Job) -> Compiled:
        what = " ".join(planning.overrides(job))
        compiled = planning.compile_job(job)
        print(f"{topology} {what}: {compiled.problem or 'fits'}", file=sys.stderr)
        return compiled

    found = planning.ways_to_train(Job(model_of(config), work, topology, slices), compile_job)
    if not found:
        return f"\n{topology}: nothing fits; try more chips"
    lines = [
        f"{each.examples_per_second:8.0f} examples/s at best, MFU {100 * each.limits.mfu:.0f} % at "
        f"best, {each.compiled.peak / 2**30:.1f} GiB: {' '.join(planning.overrides(each.job))}"
        for each in found
    ]
    return "\n".join([f"\nWays to train on {topology} that fit, the first is recommended:", *lines])


if __name__ == "__main__":
    sys.exit(main())
