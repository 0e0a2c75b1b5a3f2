"""A config of a run, with the fields of `examples/configs/base.py`, as objects of the library.

config = config_of("examples/configs/flickr8k.py", ["--config.batch_size=16"])
setup = setup_of(config)
optimizer = optimizer_of(config, total_steps=1200)
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from paligemma_lib.checkpoint.configuration import MODELS
from paligemma_lib.data.replacing import replace_damaged
from paligemma_lib.data.sources import Source, from_tfds
from paligemma_lib.data.tables import from_folder, from_jsonl
from paligemma_lib.doctor.setup import SPLITS, Setup, Stage
from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.train import Optimizer, make_optimizer
from paligemma_lib.trainable import Select

SAMPLE = "flickr8k_tfds"  # the data set that drawn pictures are built to


def config_of(file: str, changes: Sequence[str]) -> ConfigDict:
    """Loads the file of a config as examples/finetune.py does, and changes fields.

    Raises:
      ValueError: there is no such field, or a value is of another type.
    """
    sys.path.insert(0, str(Path(file).absolute().parents[1]))  # whence configs import each other
    values = flags.FlagValues()
    argv = ["doctor", f"--config={file}", *changes]
    config = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        values(argv)
    except (flags.Error, AttributeError, KeyError) as error:
        raise ValueError(f"{file}: {error}") from error
    return config.value


def setup_of(config: ConfigDict) -> Setup:
    """Returns what a config says. Raises ValueError where that makes no sense."""
    data, model = config.data, config.model
    drawn = int(data.name) if data.kind == "sample" else 0
    data_dir = str(path_of(config.workdir) / f"tfds-{drawn}") if drawn else data.dir
    if not model.checkpoint and model.name not in MODELS:
        raise ValueError(f"model.name={model.name!r}, expected one of {', '.join(MODELS)}")
    made = model.vocab_size and not model.tokenizer
    kept = str(path_of(config.workdir) / "tokenizer.model") if made else ""
    return Setup(
        data=_sources_of(config, data_dir),
        data_set=SAMPLE if drawn else data.name if data.kind == "tfds" else "",
        data_dir=data_dir,
        drawn=drawn,
        checkpoint=model.checkpoint,
        new_model=model.name,
        tokenizer_path=model.tokenizer or kept,
        vocab_size=model.vocab_size if made else 0,
        image_size=model.image_size,
        dtype=model.dtype,
        remat=model.remat,
        frozen_dtype=model.frozen_dtype,
        stages=stages_of(config),
        optimizer=optimizer_of(config, total_steps=1),
        batch_size=config.batch_size,
        microbatches=config.microbatches,
        text_len=config.text_len,
        captions=config.captions,
        prompt=config.prompt,
        lowercase=config.lowercase,
        truncate=config.truncate,
        fsdp=config.fsdp,
        workdir=config.workdir,
        run={"config": plain(config)},
        may_differ=may_differ_of(config),
        keep=config.keep,
        export_dtype=config.export_dtype,
    )


def plain(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON has it."""
    return _plain(config.to_dict())


def may_differ_of(config: ConfigDict) -> list[str]:
    """The fields in which a run may differ from the one that it goes on from, with their path."""
    return [f"config.{name}" for name in (*config.may_differ, "may_differ")]


def optimizer_of(config: ConfigDict, total_steps: int) -> Optimizer:
    """The optimizer for a run of so many steps."""
    options = config.optimizer
    return make_optimizer(
        options.name,
        learning_rate=options.learning_rate,
        total_steps=total_steps,
        schedule=options.schedule,
        warmup_steps=round(options.warmup * total_steps),
        weight_decay=options.weight_decay,
        clip_norm=options.clip_norm or None,
    )


def stages_of(config: ConfigDict) -> list[Stage]:
    """What trains when. Raises ValueError for stages out of order."""
    stages = []
    for stage in config.stages:
        patterns = stage["trainable"]
        patterns = (patterns,) if isinstance(patterns, str) else patterns
        top_layers = stage.get("top_layers", 0) or None
        selects = tuple(Select(pattern, top_layers) for pattern in patterns)
        stages.append(Stage(stage["from_step"], selects))
    steps = [stage.from_step for stage in stages]
    if not steps or steps[0] != 0 or sorted(set(steps)) != steps:
        raise ValueError(f"stages begin at steps {steps}, expected 0 and then rising numbers")
    return stages


def _sources_of(config: ConfigDict, data_dir: str) -> dict[str, Source]:
    sources = _found(config, data_dir)
    if config.data.damaged == "replace":
        for split in ("train", "validation"):
            sources[split] = replace_damaged(sources[split])
    elif config.data.damaged != "raise":
        raise ValueError(f"data.damaged={config.data.damaged!r}, expected raise or replace")
    return sources


def _found(config: ConfigDict, data_dir: str) -> dict[str, Source]:
    data = config.data
    names = {split: data[split] for split in SPLITS}
    if data.kind == "sample":
        return {key: from_tfds(SAMPLE, name, data_dir=data_dir) for key, name in names.items()}
    if data.kind == "tfds":
        folder = data_dir or None
        return {key: from_tfds(data.name, name, data_dir=folder) for key, name in names.items()}
    if data.kind == "jsonl":
        return {key: from_jsonl(name) for key, name in names.items()}
    if data.kind == "folder":
        return {key: from_folder(name) for key, name in names.items()}
    raise ValueError(f"data.kind={data.kind!r}, expected tfds, jsonl, folder or sample")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value
