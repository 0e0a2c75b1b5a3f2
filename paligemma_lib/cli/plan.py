"""Predicts, without TPUs, whether a run fits on TPU slices, and its top speed.

  paligemma plan --config=pod --topology=v5e:2x4,v5e:4x8
  paligemma plan --config=pod --topology=v5e:2x4 --search

Compiles the training step of every stage of the config, or with --decode its captioning, and
allocates no device memory. It needs libtpu (the extra `tpu`), except for CPU devices (cpu:8). All
figures are predictions; --search prints options for `paligemma finetune`. The exit code is 1 if
nothing fits on one of the topologies.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from paligemma_lib.cli.console import WrongUse, load_tensorflow
from paligemma_lib.cli.parser import Parser
from paligemma_lib.runtime.sizes import gib
from paligemma_lib.runtime.visible_text import visible, visible_lines

if TYPE_CHECKING:
    from paligemma_lib.model.variants import PaliGemmaConfig
    from paligemma_lib.planning import Compiled, Decoding, Job, Training
    from paligemma_lib.run import RunConfig


def configure(parser: Parser) -> None:
    """Adds the options."""
    parser.takes_config("pod")
    parser.add_argument(
        "--topology", default="v5e:2x4", metavar="T", help="v5e:4x8,v5p:2x2x2,v6e:2x4,cpu:8"
    )
    parser.add_argument("--slices", type=int, default=1, metavar="N", help="joined by slower links")
    parser.add_argument("--batch_size", type=int, metavar="N", help="instead of the config's")
    parser.add_argument("--decode", action="store_true", help="plan captioning, not training")
    parser.add_argument("--search", action="store_true", help="try batches, microbatches, remat")


def run(args: argparse.Namespace) -> int:
    """Compiles and prints plans; returns 0 if something fits on each topology, and 1 otherwise."""
    if args.search and args.decode:
        raise WrongUse("--search tries ways to train: give it without --decode")
    load_tensorflow()
    from paligemma_lib.planning import Slices
    from paligemma_lib.run import Setup, load

    config, topologies = args.config, args.topology.split(",")
    if args.batch_size is not None:
        field = "decode_batch_size" if args.decode else "batch_size"
        config = load(args.config_file, [*args.changes, f"--config.{field}={args.batch_size}"])
    for topology in topologies:
        try:
            Slices.named(topology, args.slices)
        except ValueError as error:
            raise WrongUse(str(error)) from error
    model = Setup(config).model
    fits = plan(config, model, topologies, args.slices, args.decode)
    for topology in topologies if args.search else ():
        print(visible_lines(searched(config, model, topology, args.slices)))
    return 0 if fits else 1


def plan(
    config: RunConfig,
    model: PaliGemmaConfig,
    topologies: Sequence[str],
    slices: int,
    decode: bool,
) -> bool:
    """Compiles and prints plans; returns whether something fits on each of the topologies."""
    from paligemma_lib import planning

    plans, problems, costs, details, fits = [], [], [], [], True
    images = config.decode_batch_size if decode else config.batch_size
    for topology in topologies:
        place = planning.Slices.named(topology, slices)
        found = False
        for name, work in works_of(config, topology, slices, decode).items():
            print(f"compiling {visible(name)} ...", file=sys.stderr)
            job = planning.Job(model, work, topology, slices)
            compiled = planning.compile_job(job)
            limits = (
                planning.predict(compiled, place.chip) if place.chip and compiled.fits else None
            )
            plans.append((name, compiled, limits))
            if limits:
                costs.append(f"{name}: {planning.per_million(limits, images, place)}")
            found |= compiled.fits
            if compiled.fits:
                details.append(f"{name}:\n{planning.messages(compiled)}")
            else:
                problems.append(f"{name} {compiled.problem}. {suggestion(job, compiled)}")
        fits &= found
    parts = [title(config, model, decode), planning.plan_table(plans), planning.NOTE]
    if costs:
        parts.append("\n".join(["A million images take at least:", *costs]))
    shown = (*parts, *problems, "The largest messages of a step:", *details)
    print(*map(visible_lines, shown), sep="\n\n")
    return fits


def works_of(
    config: RunConfig, topology: str, slices: int, decode: bool
) -> dict[str, Training | Decoding]:
    """Returns what to compile, by name.

    Training is planned for each stage, with parameters sharded as the config says and with
    replicated ones; captioning is planned in three layouts of the parameters.
    """
    from paligemma_lib.planning import Decoding, Training

    place = f"{slices}*{topology}" if slices > 1 else topology
    if decode:
        return {
            f"{place} replicated": Decoding(config, "replicated"),
            f"{place} tensor": Decoding(config, "tensor"),
            f"{place} fsdp": Decoding(config, "fsdp"),
        }
    works: dict[str, Training | Decoding] = {}
    for number, stage in enumerate(config.stages):
        of_stage = f" from step {stage.from_step}" if len(config.stages) > 1 else ""
        for fsdp in dict.fromkeys((config.fsdp, 1)):
            layout = {0: "fsdp", 1: "replicated"}.get(fsdp, f"fsdp={fsdp}")
            split = dataclasses.replace(config, fsdp=fsdp)
            works[f"{place} {layout}{of_stage}"] = Training(split, number)
    return works


def title(config: RunConfig, model: PaliGemmaConfig, decode: bool) -> str:
    """Returns the heading of the table of plans."""
    what = f"{config.model.checkpoint or config.model.name}, {model.vision.image_size} pixels"
    if decode:
        return f"{what}: {config.decode_batch_size} captions of {config.max_new_tokens} tokens"
    return (
        f"{what}: a step of {config.batch_size} examples in {config.microbatches} microbatches, "
        f"{config.trained_text_len()} text tokens, remat={model.remat}"
    )


def suggestion(job: Job, compiled: Compiled) -> str:
    """Returns advice for a job that does not fit."""
    from paligemma_lib.planning import Decoding
    from paligemma_lib.quantized import KINDS

    config = job.work.config
    # If parameters and optimizer state alone exceed the limit, no batch is small enough.
    state_alone = compiled.arguments > compiled.limit
    if isinstance(job.work, Decoding):
        smaller = "" if state_alone else "a smaller decode_batch_size, "
        return f"Try {smaller}another of these layouts, or more chips."
    tries = ["fsdp=0"] if config.fsdp == 1 else []
    if config.model.frozen_dtype in ("", "float32"):
        tries.append("model.frozen_dtype=bfloat16")
    elif config.model.frozen_dtype not in KINDS:
        tries.append("model.frozen_dtype=nf4")
    if state_alone:
        return f"Try {', '.join([*tries, 'more chips'])}."
    if job.model.remat != "full":
        tries.append("model.remat=full")
    tries += [f"microbatches={2 * config.microbatches}", "a smaller batch_size", "more chips"]
    return f"Try {', '.join(tries)}, or --search."


def searched(config: RunConfig, model: PaliGemmaConfig, topology: str, slices: int) -> str:
    """Searches for the fastest ways to train the config's last stage on a topology."""
    from paligemma_lib import planning

    def compile_job(job: Job) -> Compiled:
        what = " ".join(planning.overrides(job))
        compiled = planning.compile_job(job)
        print(visible(f"{topology} {what}: {compiled.problem or 'fits'}"), file=sys.stderr)
        return compiled

    work = planning.Training(config, len(config.stages) - 1)
    found = planning.ways_to_train(planning.Job(model, work, topology, slices), compile_job)
    if not found:
        return f"\n{topology}: nothing fits; try more chips"
    lines = [
        f"{each.examples_per_second:8.0f} examples/s at best, MFU {100 * each.limits.mfu:.0f} % at "
        f"best, {gib(each.compiled.peak)}: {' '.join(planning.overrides(each.job))}"
        for each in found
    ]
    return "\n".join([f"\nWays to train that fit on {topology}; the first is recommended:", *lines])
