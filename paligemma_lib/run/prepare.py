"""First of four: everything that a run starts from, checked, made or downloaded, and loaded.

    prepared = prepare(setup)
    prepared.data["train"], prepared.tokenizer, prepared.model, prepared.params

Everything that can be wrong with a config is found here, before the first step.
"""

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import tensorflow_datasets as tfds
from jax.sharding import Mesh

import flickr8k_tfds
from paligemma_lib import checkpoint, hub, model, sharding, tokenizer
from paligemma_lib.data.sources import Source
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.run.assembly import trainable_of
from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.findings import require
from paligemma_lib.run.record import allowed_changes, completed, record_of
from paligemma_lib.run.setup import Setup
from paligemma_lib.runtime import processes
from paligemma_lib.runtime.atomic import atomic_write, is_remote, path_of, remove_partial
from paligemma_lib.sample_data import write_scenes
from paligemma_lib.tokenizer import Tokenizer
from paligemma_lib.train import fingerprint
from paligemma_lib.train.compatibility import CHECKPOINTS, check_run
from paligemma_lib.trainable import trained_rows

_CHUNK = 64  # records read at a time


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run that can start, or go on; `record` is what tells it from others."""

    config: RunConfig
    record: Mapping[str, Any]
    workdir: Path
    mesh: Mesh
    data: Mapping[str, Source]
    tokenizer: Tokenizer
    model: PaliGemmaConfig
    params: dict[str, Any]


def prepare(setup: Setup) -> Prepared:
    """Checks, makes and loads. Raises ChecksFailed, ValueError or OSError where it cannot start."""
    config, workdir = setup.config, path_of(setup.config.workdir)
    require(setup)
    whole = not setup.pending
    with processes.main_process_first():  # it makes the files that are not there
        _make_workdir(workdir)
        if config.data.drawn and setup.given is None:
            _draw(setup)
        if setup.tokenizer_pending:
            _make_tokenizer(setup)
        if setup.local_checkpoint is None:
            hub.fetch(config.model.checkpoint)
    # A new setup: the old one has kept what it found, or did not find, before.
    if not whole:  # what has come can be checked now
        setup = dataclasses.replace(setup)
        require(setup)
    params = load_params(setup)
    record = record_of(config, fingerprint(params), setup.data)
    known = functools.partial(completed, data=record["data"])
    check_run(workdir / CHECKPOINTS, record, allowed_changes(config), known)
    return Prepared(
        config, record, workdir, setup.mesh, setup.data, setup.tokenizer, setup.model, params
    )


def load_params(setup: Setup) -> dict[str, Any]:
    """The model's parameters on their devices: those that ever train in float32."""
    config, abstract = setup.config, model.abstract_params(setup.model)
    shardings = sharding.param_shardings(setup.mesh, abstract)
    if not config.model.checkpoint:
        init = jax.jit(lambda key: model.init(setup.model, key), out_shardings=shardings)
        return init(jax.random.key(config.seed))
    # What trains in any stage is loaded in float32 from the start, so that a stage that begins
    # later finds weights that were never rounded.
    trains: set[str] = set()
    for stage in config.stages:
        trains |= set(trained_rows(abstract, trainable_of(stage)))
    frozen_dtype = config.model.frozen_dtype or None
    return checkpoint.load_params(
        config.model.checkpoint,
        setup.model,
        sharding=shardings,
        dtype=lambda name: "float32" if name in trains else frozen_dtype,
    )


def _make_workdir(workdir: Path) -> None:
    """A local one; on gs://, files make their folders, and none is half-written."""
    if not is_remote(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            remove_partial(workdir)


def _draw(setup: Setup) -> None:
    """Draws scenes and builds a data set of them, unless that is there."""
    config = setup.config
    with _folder_of_scenes(setup) as folder:
        if folder is None:
            return
        scenes = write_scenes(folder, config.data.drawn, config.seed, config.data.wording)
        manual = tfds.download.DownloadConfig(manual_dir=scenes)
        builder = flickr8k_tfds.Builder(data_dir=setup.data_dir)
        builder.download_and_prepare(download_config=manual)


@contextlib.contextmanager
def _folder_of_scenes(setup: Setup) -> Iterator[Path | None]:
    """In a local workdir, where they stay; for a remote one temporary, None when not needed."""
    name = f"scenes-{setup.config.data.drawn}"
    if not is_remote(setup.config.workdir):
        yield Path(setup.config.workdir) / name
    elif setup.data_pending:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / name
    else:
        yield None


def _make_tokenizer(setup: Setup) -> None:
    """Makes a tokenizer of the training captions, and keeps it."""
    config, train = setup.config, setup.data["train"]
    texts = [config.prompt]
    for start in range(0, len(train), _CHUNK):
        for record in train.read(range(start, min(start + _CHUNK, len(train)))):
            texts += [c.lower() if config.lowercase else c for c in record.captions]
    with atomic_write(path_of(setup.made_tokenizer)) as file:
        file.write(tokenizer.train(texts, config.model.vocab_size))
