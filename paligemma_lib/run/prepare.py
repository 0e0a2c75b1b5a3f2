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
from paligemma_lib.data.sources.protocol import read_texts
from paligemma_lib.model.adapter_params import adapters_of, init_adapters, with_adapters
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.parameter_spec import abstract
from paligemma_lib.run.assembly import low_rank_of
from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.findings import require
from paligemma_lib.run.record import (
    COMMITS,
    ORIGIN,
    TEXT_LEN,
    allowed_changes,
    completed,
    record_of,
    recorded_text_len,
)
from paligemma_lib.run.run_facts import origin_of
from paligemma_lib.run.setup import Setup
from paligemma_lib.runtime import processes
from paligemma_lib.runtime.atomic import atomic_write, is_remote, path_of, remove_partial
from paligemma_lib.runtime.signals import stop_if_asked
from paligemma_lib.sample_data import write_scenes
from paligemma_lib.tokenizer import Tokenizer
from paligemma_lib.train import fingerprint
from paligemma_lib.train.compatibility import CHECKPOINTS, check_run

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
      setup: what the config names, from which `load_params` loads parameters again.
    """

    config: RunConfig
    record: Mapping[str, Any]
    workdir: Path
    mesh: Mesh
    data: Mapping[str, Source]
    tokenizer: Tokenizer
    model: PaliGemmaConfig
    params: dict[str, Any]
    setup: Setup


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
        stop_if_asked()
        if config.data.drawn and setup.given is None:
            _draw(setup)
        if setup.tokenizer_pending:
            stop_if_asked()
            _make_tokenizer(setup)
        if setup.local_checkpoint is None:
            hub.fetch(config.model.checkpoint)
    # Cached properties of the old setup still describe the state before, such as a checkpoint that
    # is not downloaded. A new setup reads everything again, and checks what is new.
    stop_if_asked()
    if not whole:
        setup = dataclasses.replace(setup)
        require(setup)
    params = load_params(setup)
    record = record_of(config, fingerprint(params), setup.data, setup.tokenizer)
    # Each process has read its own share of the texts; arrays need the same shapes in all. Where
    # there was time for a part of the texts only, an earlier start may have found a longer one.
    before = 0 if config.text_len else recorded_text_len(workdir)
    found = max(setup.text_len, before)
    text_len = max(int(each) for each in processes.gather(b"%d" % found))
    config = dataclasses.replace(config, text_len=text_len)
    known = functools.partial(completed, present=record)
    check_run(workdir / CHECKPOINTS, record, allowed_changes(config), known)
    origin = origin_of(config, data_given=setup.given is not None)
    record |= {COMMITS: setup.commits, ORIGIN: origin, TEXT_LEN: text_len}
    return Prepared(
        config, record, workdir, setup.mesh, setup.data, setup.tokenizer, setup.model, params, setup
    )


def load_params(setup: Setup) -> dict[str, Any]:
    """Loads or initializes the parameters, sharded over the mesh, in the dtypes of the spec.

    If the run has an adapter, its arrays are among them.
    """
    config, table = setup.config, setup.parameters
    shardings = sharding.param_shardings(setup.mesh, model.abstract_params(setup.model))
    if not config.model.checkpoint:
        init = jax.jit(lambda key: model.init(setup.model, key), out_shardings=shardings)
        params = init(jax.random.key(config.seed))
    else:
        params = checkpoint.load_params(
            config.model.checkpoint,
            setup.model,
            sharding=shardings,
            dtype=lambda name: table[name].dtype or None,
        )
    options = low_rank_of(config)
    if options is None:
        return params
    places = adapters_of(sharding.param_shardings(setup.mesh, abstract(table)))
    # Another key than that of new parameters, which may have the same seed.
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    made = jax.jit(functools.partial(init_adapters, options=options), out_shardings=places)
    return with_adapters(params, made(params, key=key))


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
    texts = [config.prompt] * len(train)  # as often as it is read
    for start in range(0, len(train), _CHUNK):
        for record in read_texts(train, range(start, min(start + _CHUNK, len(train)))):
            texts += [c.lower() if config.lowercase else c for c in record.captions]
    with atomic_write(path_of(setup.made_tokenizer)) as file:
        file.write(tokenizer.train(texts, config.model.vocab_size))
