"""What a run is made of, as its config says: pictures, a model, an optimizer, stages.

Everything that can be wrong with a config is found here, before the first step.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorflow_datasets as tfds
from jax.sharding import Mesh
from ml_collections import ConfigDict
from sample_data import write_scenes

import flickr8k_tfds
import paligemma_lib as pg
from paligemma_lib import processes
from paligemma_lib.atomic import whole_file
from paligemma_lib.data.sources import Source
from paligemma_lib.model.config import PaliGemmaConfig
from paligemma_lib.tokenizer import Tokenizer
from paligemma_lib.train import Optimizer
from paligemma_lib.trainable import Select

_CHUNK = 64  # records read at a time


@dataclasses.dataclass(frozen=True)
class Data:
    """Where pictures and captions of a run come from."""

    train: Source
    validation: Source
    test: Source


@dataclasses.dataclass(frozen=True)
class Stage:
    """What trains from a step on."""

    from_step: int
    trainable: tuple[Select, ...]


@dataclasses.dataclass(frozen=True)
class Ingredients:
    """All that a run starts from."""

    data: Data
    stages: Sequence[Stage]
    model: PaliGemmaConfig
    params: dict[str, Any]
    tokenizer: Tokenizer


def gather(config: ConfigDict, workdir: Path, mesh: Mesh) -> Ingredients:
    """Finds what the config names. Raises ValueError or OSError where something is wrong."""
    parts = mesh.size * config.microbatches
    if config.batch_size % parts:
        raise ValueError(
            f"batch_size={config.batch_size} cannot be divided among {mesh.size} devices and "
            f"{config.microbatches} microbatches: take a multiple of {parts}"
        )
    stages = stages_of(config)
    with processes.first_alone():  # it makes the files that are not there
        data = data_of(config, workdir)
        tokenizer = tokenizer_of(config, data.train, workdir)
    model = model_of(config, tokenizer)
    for stage in stages:
        needed = pg.train.bytes_needed(
            model,
            optimizer_of(config, total_steps=1),
            trainable=stage.trainable,
            batch_size=config.batch_size,
            text_len=config.text_len,
            frozen_dtype=config.model.frozen_dtype or "float32",
            microbatches=config.microbatches,
            devices=mesh.size,
            fsdp=mesh.shape["fsdp"],
        )
        pg.train.check_memory(needed, mesh.local_devices[0])
    check_texts(config, data.train, tokenizer, config.captions)
    check_texts(config, data.validation, tokenizer, "packed")
    params = params_of(config, model, stages, mesh)
    return Ingredients(data, stages, model, params, tokenizer)


def optimizer_of(config: ConfigDict, total_steps: int) -> Optimizer:
    """The optimizer for a run of so many steps."""
    options = config.optimizer
    return pg.train.make_optimizer(
        options.name,
        learning_rate=options.learning_rate,
        total_steps=total_steps,
        schedule=options.schedule,
        warmup_steps=round(options.warmup * total_steps),
        weight_decay=options.weight_decay,
        clip_norm=options.clip_norm or None,
    )


def batch_options(config: ConfigDict, model: PaliGemmaConfig) -> dict[str, Any]:
    """What batches for training and for validation have in common."""
    return {
        "image_size": model.vision.image_size,
        "text_len": config.text_len,
        "batch_size": config.batch_size,
        "prefix": config.prompt,
        "lowercase": config.lowercase,
        "truncate": config.truncate,
        "image_dtype": "uint8",
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }


def data_of(config: ConfigDict, workdir: Path) -> Data:
    """The three sources. Raises FileNotFoundError with a cure where one is not there."""
    data = config.data
    names = (data.train, data.validation, data.test)
    if data.kind == "sample":
        count = int(data.name)
        folder = workdir / f"scenes-{count}"
        scenes = write_scenes(folder, count, config.seed, data.wording)
        builder = flickr8k_tfds.Builder(data_dir=workdir / f"tfds-{count}")
        manual = tfds.download.DownloadConfig(manual_dir=scenes)
        builder.download_and_prepare(download_config=manual)
        found = [
            pg.data.from_tfds("flickr8k_tfds", split, data_dir=workdir / f"tfds-{count}")
            for split in names
        ]
    elif data.kind == "tfds":
        found = [pg.data.from_tfds(data.name, split, data_dir=data.dir or None) for split in names]
    elif data.kind == "jsonl":
        found = [pg.data.from_jsonl(path) for path in names]
    elif data.kind == "folder":
        found = [pg.data.from_folder(path) for path in names]
    else:
        raise ValueError(f"data.kind={data.kind!r}, expected tfds, jsonl, folder or sample")
    for name, source in zip(names, found, strict=True):
        if len(source) == 0:
            raise ValueError(f"{name} of {data.name} has no pictures")
    return Data(*found)


def check_texts(config: ConfigDict, source: Source, tokenizer: Tokenizer, captions: str) -> None:
    """Raises ValueError if captions do not fit `text_len`, which else would show hours later.

    Each process looks at its share of the records.
    """
    if config.truncate:
        return
    mine = range(jax.process_index(), len(source), jax.process_count())
    for start in range(0, len(mine), _CHUNK):
        numbers = mine[start : start + _CHUNK]
        for number, record in zip(numbers, source.read(numbers), strict=True):
            texts = [c.lower() if config.lowercase else c for c in record.captions]
            prefix = tokenizer.encode_prefix(record.prefix or config.prompt)
            suffixes = [tokenizer.encode_suffix(text) for text in texts]
            if captions == "sample":
                suffixes = [max(suffixes, key=len, default=[])]
            try:
                pg.data.pack(prefix, suffixes, config.text_len)
            except ValueError as error:
                where = source.where(number)
                raise ValueError(f"image {record.image_id} ({where}): {error}") from error


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


def tokenizer_of(config: ConfigDict, train: Source, workdir: Path) -> Tokenizer:
    """The tokenizer that the config names, or one of the training captions, kept in the workdir."""
    given = config.model
    if given.tokenizer or not given.vocab_size:
        return pg.tokenizer.load(given.tokenizer or pg.captioner.tokenizer_of(given.checkpoint))
    path = workdir / "tokenizer.model"
    if not path.is_file():
        texts = [config.prompt]
        for start in range(0, len(train), _CHUNK):
            for record in train.read(range(start, min(start + _CHUNK, len(train)))):
                texts += [c.lower() if config.lowercase else c for c in record.captions]
        with whole_file(path) as file:
            file.write(pg.tokenizer.train(texts, given.vocab_size))
    return pg.tokenizer.load(path)


def model_of(config: ConfigDict, tokenizer: Tokenizer) -> PaliGemmaConfig:
    """The model's configuration. Raises ValueError where the tokenizer does not belong to it."""
    given = config.model
    if given.checkpoint:
        model = pg.checkpoint.read_config(given.checkpoint)
        tokenizer.check_fits(model.language.vocab_size)
    else:
        model = getattr(pg.model.config, given.name)()
        language = dataclasses.replace(model.language, vocab_size=tokenizer.vocab_size)
        model = dataclasses.replace(model, language=language)
    vision = model.vision
    if given.image_size:
        vision = dataclasses.replace(vision, image_size=given.image_size)
    return dataclasses.replace(model, vision=vision, dtype=given.dtype, remat=given.remat)


def params_of(
    config: ConfigDict, model: PaliGemmaConfig, stages: Sequence[Stage], mesh: Mesh
) -> dict[str, Any]:
    """The model's parameters, on the devices of the mesh."""
    given = config.model
    abstract = pg.model.abstract_params(model)
    shardings = pg.sharding.param_shardings(mesh, abstract)
    if not given.checkpoint:
        init = jax.jit(lambda key: pg.model.init(model, key), out_shardings=shardings)
        return init(jax.random.key(config.seed))
    trains = set()
    for stage in stages:
        trains |= set(pg.trainable.trained_rows(abstract, stage.trainable))
    return pg.checkpoint.load_params(
        given.checkpoint,
        model,
        sharding=shardings,
        dtype=lambda name: "float32" if name in trains else given.frozen_dtype or None,
    )


def plain(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON has it."""
    return _plain(config.to_dict())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value
