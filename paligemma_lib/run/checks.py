"""Checks what a run needs before it starts: each check returns its finding, or raises an error.

    print(memory(setup))                     # about 1.2 GiB per device, which is free
    for name, check in CHECKS.items():
        print(name, check(setup))

Errors are ValueError, OSError or ImportError, and say what to do. The checks download nothing but
PaliGemma's tokenizer and data of the Hugging Face Hub, and leave no other files behind.
"""

import glob
import hashlib
import itertools
import logging
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import tensorflow as tf

from paligemma_lib import hub
from paligemma_lib.checkpoint.stored import open_reader
from paligemma_lib.data.replacing import Replacing
from paligemma_lib.data.sources.protocol import epoch_len
from paligemma_lib.evaluation import environment
from paligemma_lib.model import abstract_params
from paligemma_lib.parameter_spec import abstract
from paligemma_lib.run import download_checks, end_checks
from paligemma_lib.run.adapter_checks import adapter
from paligemma_lib.run.assembly import low_rank_of, optimizer_of, trainable_of
from paligemma_lib.run.config import SPLITS
from paligemma_lib.run.data_checks import (
    check_drawn,
    check_regions,
    check_sample,
    shared_images,
    verified,
)
from paligemma_lib.run.drawn_scorer import mask_codec
from paligemma_lib.run.record import check_record
from paligemma_lib.run.setup import Setup
from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.runtime.disk_space import check_space, check_writable
from paligemma_lib.runtime.regular_files import read_bounded
from paligemma_lib.runtime.sizes import gib
from paligemma_lib.tokenizer import MAX_FILE_BYTES
from paligemma_lib.train.memory import bytes_needed, bytes_of, check_memory
from paligemma_lib.train.microbatching import number_of_parts
from paligemma_lib.train.state import TrainState, abstract_state
from paligemma_lib.trainable import trained_rows

_CHIPS = {"cuda": "/dev/nvidia[0-9]*", "tpu": "/dev/accel[0-9]*"}  # pip extra -> device files


def machine(setup: Setup) -> str:
    """Reports versions and devices; raises ValueError if JAX leaves an accelerator idle."""
    found = environment()
    devices, processes = found.pop("devices"), int(found.pop("processes"))
    asked = "cpu" in (getattr(jax.config, "jax_platforms", None) or "")
    for extra, pattern in _CHIPS.items():
        chips = sorted(glob.glob(pattern))
        if chips and setup.mesh.devices.flat[0].platform == "cpu" and not asked:
            raise ValueError(
                f"{chips[0]} exists, but JAX sees only the CPU: pip install "
                f"'paligemma_lib[{extra}]', or set JAX_PLATFORMS=cpu to use the CPU"
            )
    versions = ", ".join(f"{name} {version}" for name, version in found.items())
    return f"{devices}, {processes} process{'es' * (processes > 1)}; {versions}"


def tensorflow(setup: Setup) -> str:
    """Hides accelerators from TensorFlow, which only reads data here."""
    # TensorFlow would reserve most of the memory of a GPU when it first uses it. Visible devices
    # can be set only before that, or set_visible_devices raises RuntimeError.
    for kind in ("GPU", "TPU"):
        try:
            tf.config.set_visible_devices([], kind)
        except (RuntimeError, ValueError) as error:
            if taken := tf.config.get_visible_devices(kind):
                raise ValueError(
                    f"TensorFlow already uses {taken[0].name}, whose memory JAX needs: "
                    f"call tf.config.set_visible_devices([], {kind!r}) before anything else"
                ) from error
    return "sees no accelerator"


def batch(setup: Setup) -> str:
    """Checks that a batch can be divided among devices and microbatches."""
    size, devices = setup.config.batch_size, setup.mesh.size
    parts = number_of_parts(size, devices, setup.config.microbatches)
    return f"{size} images a step, {size // devices // parts} at a time on each device"


def checkpoint(setup: Setup) -> str:
    """Checks names, shapes and dtypes of the checkpoint's parameters."""
    given, model = setup.config.model, setup.model
    if not given.checkpoint:
        return f"none: a new {given.name}"
    if setup.local_checkpoint is None:
        return f"{given.checkpoint} will be downloaded; until then, its sizes are known by its name"
    with open_reader(setup.local_checkpoint, model) as file:
        count = sum(math.prod(shape) for shape in file.shapes.values())
        types = " and ".join(sorted({str(dtype) for dtype in file.dtypes.values()}))
        return f"{file.path}: {len(file.shapes)} arrays, {count:,} parameters in {types}"


def trainable(setup: Setup) -> str:
    """Checks that each stage selects parameters that the model has."""
    params = abstract(setup.parameters)
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    rows = [trained_rows(params, trainable_of(stage)) for stage in setup.config.stages]
    for number, (earlier, later) in enumerate(itertools.pairwise(rows), 1):
        # Checkpoints hold what trains at their step; what no longer trains would be lost.
        if lost := [name for name, row in earlier.items() if later.get(name, row + 1) > row]:
            raise ValueError(
                f"stages[{number}] no longer trains {lost[0]}{', ...' * (len(lost) > 1)}: each "
                "stage must train what the stages before it do, and may add to it"
            )
    counts = [sum(part.size for part in jax.tree.leaves(state.trained)) for state in _states(setup)]
    return f"{', then '.join(f'{count:,}' for count in counts)} of {total:,} parameters train"


def tokenizer(setup: Setup) -> str:
    """Checks that the tokenizer fits the model; reports its size and hash."""
    if setup.tokenizer_pending:
        return f"{setup.config.model.vocab_size:,} pieces, to be trained on the training captions"
    found = setup.tokenizer
    found.check_fits(setup.model.language.vocab_size)
    digest = hashlib.sha256(read_bounded(found.name, MAX_FILE_BYTES)).hexdigest()
    own = ", PaliGemma's" if hub.TOKENIZER_SHA256.fullmatch(digest) else ""
    return f"{found.name}: {found.vocab_size:,} pieces, sha256 {digest[:8]}...{digest[-6:]}{own}"


def data(setup: Setup) -> str:
    """Checks that all sources exist and are not empty, and that files of TFDS are complete."""
    if setup.data_pending:
        check_drawn(setup.config.data)
        return f"{setup.config.data.drawn:,} images, to be drawn"
    if missing := [split for split in SPLITS if split not in setup.data]:
        raise ValueError(f"there is no source for {', '.join(missing)}")
    counts = {}
    for split, source in setup.data.items():
        counts[split] = len(source)
        if not counts[split]:
            named = "the given source" if setup.given else getattr(setup.config.data, split)
            of = f" of {setup.data_set}" if setup.data_set else ""
            raise ValueError(f"{split}: there are no images in {named}{of}")
        check_sample(split, source, replace=setup.config.data.on_corrupt_image == "replace")
    if (task := setup.config.task) in ("detect", "segment"):
        mask_codec(setup.config.masks)  # is needed at the end
        check_regions(setup.data["test"], setup.config.test_images, task)
    steps = setup.config.epochs * epoch_len(setup.data["train"]) / setup.config.batch_size
    if steps < 0.5:
        raise ValueError(
            f"epochs={setup.config.epochs:g} of {counts['train']:,} images are less than a step of "
            f"batch_size={setup.config.batch_size}: raise epochs, or lower batch_size"
        )
    if not setup.given and (shared := shared_images(setup.config.data, setup.data)):
        logging.getLogger(__name__).warning("%s", shared)
    said = ", ".join(f"{split} {count:,}" for split, count in counts.items()) + " images"
    report = verified(setup.data_set, setup.data_dir) if setup.data_set else ""
    return f"{said}; {report}" if report else said


def texts(setup: Setup) -> str:
    """Checks that captions fit `text_len`, or says how many tokens they need if it is 0."""
    config = setup.config
    if setup.data_pending or setup.tokenizer_pending:
        return "not checked yet: the data or the tokenizer does not exist"
    if config.truncate and config.text_len:
        return f"cut to {config.text_len} tokens, as `truncate` is set"
    found = setup.longest_texts.values()
    for longest in found:
        longest.check(setup.text_len)
    seen, total = (sum(getattr(each, name) for each in found) for name in ("seen", "total"))
    needed = max((each.tokens for each in found), default=0)
    how_many = f"{seen:,}" if seen == total else f"{seen:,} of {total:,}"
    replaced = {
        split: len(s.damaged) for split, s in setup.data.items() if isinstance(s, Replacing)
    }
    told = "".join(f"; {n:,} damaged in {split} are replaced" for split, n in replaced.items() if n)
    return f"captions of {how_many} images need {needed} of {setup.text_len} tokens{told}"


def memory(setup: Setup) -> str:
    """Compares the estimated memory of a step of each stage with the free memory."""
    config, estimates, known = setup.config, [], False
    for stage in config.stages:
        estimates.append(
            bytes_needed(
                setup.model,
                optimizer_of(config),
                trainable=trainable_of(stage),
                batch_size=config.batch_size,
                text_len=config.trained_text_len(setup.text_len),
                frozen_dtype=config.model.frozen_dtype or "float32",
                low_rank=low_rank_of(config),
                microbatches=config.microbatches,
                devices=setup.mesh.size,
                fsdp=setup.mesh.shape["fsdp"],
            )
        )
        known = check_memory(estimates[-1], setup.mesh.local_devices[0])
    free = "which is free" if known else "whose free memory is unknown"
    return f"about {gib(max(estimates))} per device, {free}"


def workdir(setup: Setup) -> str:
    """Checks that the workdir is writable, holds no other run, and has enough disk space."""
    config = setup.config
    check_writable(config.workdir)
    check_record(path_of(config.workdir), config)
    checkpoints = [bytes_of([state.trained, state.opt_state]) for state in _states(setup)]
    size = jnp.dtype(config.export_dtype).itemsize
    export = 0
    if config.export_name:
        export = sum(leaf.size * size for leaf in jax.tree.leaves(abstract_params(setup.model)))
    kept = config.keep + 2  # plus the best one, and the one that is being written
    return check_space(config.workdir, kept * max(checkpoints) + export)


def _states(setup: Setup) -> list[TrainState]:
    """Returns the abstract state (shapes and dtypes) at the beginning of each stage."""
    params, optimizer = abstract(setup.parameters), optimizer_of(setup.config)
    stages = setup.config.stages
    return [abstract_state(params, optimizer, trainable=trainable_of(stage)) for stage in stages]


CHECKS: Mapping[str, Callable[[Setup], str]] = {
    "machine": machine,
    "tensorflow": tensorflow,
    "batch": batch,
    "kaggle": download_checks.kaggle,
    "hugging_face": download_checks.hugging_face,
    "checkpoint": checkpoint,
    "adapter": adapter,
    "trainable": trainable,
    "tokenizer": tokenizer,
    "data": data,
    "memory": memory,
    "texts": texts,
    "decoding": end_checks.decoding,
    "reward": end_checks.reward,
    "trackers": end_checks.trackers,
    "export": end_checks.export,
    "workdir": workdir,
}
