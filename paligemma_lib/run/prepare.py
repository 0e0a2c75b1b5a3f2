"""Prepares a run (first of four parts): checks, makes or downloads, and loads what it needs.

    prepared = prepare(setup)
    prepared.data["train"], prepared.tokenizer, prepared.model, prepared.params

All errors in a config are found here, before the first step.
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
from paligemma_lib.run.record import COMMITS, allowed_changes, completed, record_of
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
    """A run that is ready to start or to resume.

    Attributes:
      config: the run.
      record: what checkpoints of this run must have in common, see `record_of`.
      workdir: folder of checkpoints, metrics and results.
      mesh: the devices.
      data: sources by split.
      tokenizer: the model's tokenizer.
      model: the model's configuration.
      params: nested dict of parameters on the devices; `train` empties it.
    """

    config: RunConfig
    record: Mapping[str, Any]
    workdir: Path
    mesh: Mesh
    data: Mapping[str, Source]
    tokenizer: Tokenizer
    model: PaliGemmaConfig
    params: dict[str, Any]


def prepare(setup: Setup) -> Prepared:
    """Checks a run, makes or downloads missing files, and loads data and parameters.

    All processes call it together.

    Raises:
      ChecksFailed: checks fail. The message lists all that fail.
      ValueError, OSError: something cannot be made or loaded, or the checkpoints in the workdir are
        of another run.
    """
    config, workdir = setup.config, path_of(setup.config.workdir)
    require(setup)
    # All processes take the same way, as later checks wait for each other.
    whole = not any(processes.gather(b"pending" if setup.pending else b""))
    # The main process makes missing files while the others wait. Then they run the same block, find
    # the files and make none.
    with processes.main_process_first():
        _make_workdir(workdir)
        if config.data.drawn and setup.given is None:
            _draw(setup)
        if setup.tokenizer_pending:
            _make_tokenizer(setup)
        if setup.local_checkpoint is None:
            hub.fetch(config.model.checkpoint)
    # Cached properties of the old setup still describe the state before, such as a checkpoint that
    # is not downloaded. A new setup reads everything again, and checks what is new.
    if not whole:
        setup = dataclasses.replace(setup)
        require(setup)
    params = load_params(setup)
    record = record_of(config, fingerprint(params), setup.data)
    # Each process has read its own share of the texts; arrays need the same shapes in all.
    text_len = max(int(each) for each in processes.gather(b"%d" % setup.text_len))
    config = dataclasses.replace(config, text_len=text_len)
    # Old records have no fingerprints of data. With those of today they compare equal, so that
    # their runs can be resumed.
    known = functools.partial(completed, data=record["data"])
    check_run(workdir / CHECKPOINTS, record, allowed_changes(config), known)
    record[COMMITS] = setup.commits
    return Prepared(
        config, record, workdir, setup.mesh, setup.data, setup.tokenizer, setup.model, params
    )


def load_params(setup: Setup) -> dict[str, Any]:
    """Loads or initializes the parameters, sharded over the mesh.

    Parameters of a checkpoint that train in any stage are loaded as float32, all others in the
    config's `frozen_dtype`, or as they are stored if that is empty.
    """
    config, abstract = setup.config, model.abstract_params(setup.model)
    shardings = sharding.param_shardings(setup.mesh, abstract)
    if not config.model.checkpoint:
        init = jax.jit(lambda key: model.init(setup.model, key), out_shardings=shardings)
        return init(jax.random.key(config.seed))
    # Parameters of later stages are frozen at first. Loaded in frozen_dtype, they would be rounded
    # before they train; so all that train in any stage are float32 from the start.
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
    """Creates a local workdir and removes partial files that killed processes left in it.

    A remote workdir needs neither: on gs:// folders appear with their files, and a file appears
    only when it is whole.
    """
    if not is_remote(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            remove_partial(workdir)


def _draw(setup: Setup) -> None:
    """Draws scenes and builds a TFDS data set from them, unless it exists."""
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
    """Gives a local folder for the drawn scenes.

    In a local workdir the folder is permanent. For a remote workdir it is temporary, or None if the
    data set exists already.
    """
    name = f"scenes-{setup.config.data.drawn}"
    if not is_remote(setup.config.workdir):
        yield Path(setup.config.workdir) / name
    elif setup.data_pending:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / name
    else:
        yield None


def _make_tokenizer(setup: Setup) -> None:
    """Trains a tokenizer on the prompt and the training captions, and saves it."""
    config, train = setup.config, setup.data["train"]
    texts = [config.prompt]
    for start in range(0, len(train), _CHUNK):
        for record in train.read(range(start, min(start + _CHUNK, len(train)))):
            texts += [c.lower() if config.lowercase else c for c in record.captions]
    with atomic_write(path_of(setup.made_tokenizer)) as file:
        file.write(tokenizer.train(texts, config.model.vocab_size))
