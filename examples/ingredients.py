"""What a run is made of, as its config says: pictures, a model, an optimizer, stages.

Everything that can be wrong with a config is found here, before the first step, by the checks of
`python -m paligemma_lib.doctor`.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import tensorflow_datasets as tfds
from jax.sharding import Mesh
from ml_collections import ConfigDict

import flickr8k_tfds
import paligemma_lib as pg
from paligemma_lib import doctor
from paligemma_lib.data.sources import Source
from paligemma_lib.doctor import Setup, Stage
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime import processes
from paligemma_lib.runtime.atomic import is_remote, path_of, remove_partial, whole_file
from paligemma_lib.sample_data import write_scenes
from paligemma_lib.tokenizer import Tokenizer

_CHUNK = 64  # records read at a time


@dataclasses.dataclass(frozen=True)
class Data:
    """Where pictures and captions of a run come from."""

    train: Source
    validation: Source
    test: Source


@dataclasses.dataclass(frozen=True)
class Ingredients:
    """All that a run starts from."""

    data: Data
    stages: Sequence[Stage]
    model: PaliGemmaConfig
    params: dict[str, Any]
    tokenizer: Tokenizer


def gather(config: ConfigDict, mesh: Mesh) -> Ingredients:
    """Finds what the config names. Raises ValueError or OSError where something is wrong."""
    setup = doctor.setup_of(config)
    is_whole = not setup.to_come
    doctor.require(setup)
    with processes.first_alone():  # it makes the files that are not there
        _make_workdir(path_of(config.workdir))
        if setup.drawn:
            _draw(config, setup)
        if setup.tokenizer_to_come:
            _make_tokenizer(setup)
        if setup.local_checkpoint is None:
            pg.hub.fetch(setup.checkpoint)
    if not is_whole:
        setup = doctor.setup_of(config)
        doctor.require(setup)
    params = params_of(config, setup.model, setup.stages, mesh)
    return Ingredients(Data(**setup.data), setup.stages, setup.model, params, setup.tokenizer)


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


def _make_workdir(workdir: Path) -> None:
    """A local one; on gs://, files make their folders, and none is half-written."""
    if not is_remote(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            remove_partial(workdir)


def _draw(config: ConfigDict, setup: Setup) -> None:
    """Draws pictures and builds a data set of them, unless that is there."""
    with _folder_of_scenes(config, setup) as folder:
        if folder is None:
            return
        scenes = write_scenes(folder, setup.drawn, config.seed, config.data.wording)
        manual = tfds.download.DownloadConfig(manual_dir=scenes)
        builder = flickr8k_tfds.Builder(data_dir=setup.data_dir)
        builder.download_and_prepare(download_config=manual)


@contextlib.contextmanager
def _folder_of_scenes(config: ConfigDict, setup: Setup) -> Iterator[Path | None]:
    """In a local workdir, where they stay; for a remote one temporary, None when not needed."""
    name = f"scenes-{setup.drawn}"
    if "://" not in config.workdir:
        yield Path(config.workdir) / name
    elif setup.data_to_come:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / name
    else:
        yield None


def _make_tokenizer(setup: Setup) -> None:
    """Makes a tokenizer of the training captions, and keeps it."""
    texts, train = [setup.prompt], setup.data["train"]
    for start in range(0, len(train), _CHUNK):
        for record in train.read(range(start, min(start + _CHUNK, len(train)))):
            texts += [c.lower() if setup.lowercase else c for c in record.captions]
    with whole_file(path_of(setup.tokenizer_path)) as file:
        file.write(pg.tokenizer.train(texts, setup.vocab_size))


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
