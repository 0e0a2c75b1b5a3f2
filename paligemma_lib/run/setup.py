"""Opens what the config of a run names: each part once, on first access.

setup = Setup(RunConfig(model=ModelConfig(checkpoint="nano")))
setup.model, setup.tokenizer, setup.data["train"]
setup = Setup(config, given={"train": source, "test": source})      # sources of one's own
"""

import dataclasses
import functools
from collections.abc import Mapping

from jax.sharding import Mesh

from paligemma_lib import captioner, checkpoint, hub, tokenizer
from paligemma_lib.checkpoint.configuration import MODELS, published
from paligemma_lib.data.replacing import replace_corrupt
from paligemma_lib.data.sources import (
    Source,
    despite_damage,
    from_folder,
    from_jsonl,
    from_tfds,
    is_path,
    open_source,
    splits_of,
)
from paligemma_lib.data.sources.data_path import split_path
from paligemma_lib.data.sources.split_names import chosen_split
from paligemma_lib.hub import kaggle_access
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.run.config import SPLITS, DataConfig, RunConfig
from paligemma_lib.run.dotted import is_dotted, load_dotted
from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.sharding import make_mesh
from paligemma_lib.tokenizer import Tokenizer

SAMPLE = "flickr8k_tfds"  # the TFDS builder that drawn scenes are built with


@dataclasses.dataclass(frozen=True)
class Setup:
    """Everything about a run that is known before it starts.

    Attributes:
      config: the run.
      given: sources by split, with the keys of SPLITS, instead of those that the config names.
      records: number of records of each source whose captions are checked, evenly spread; None:
        all.
    """

    config: RunConfig
    given: Mapping[str, Source] | None = None
    records: int | None = None

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The mesh of all devices."""
        return make_mesh(self.config.fsdp or None)

    @property
    def data_set(self) -> str:
        """Name of the run's TFDS data set; empty if the data are from elsewhere."""
        data = self.config.data
        if self.given is not None:
            return ""
        if data.drawn:
            return SAMPLE
        return data.name if data.form == "tfds" else ""

    @property
    def data_dir(self) -> str:
        """Folder in which TFDS stores the data set; empty for the default of TFDS."""
        data = self.config.data
        return str(path_of(self.config.workdir) / f"tfds-{data.drawn}") if data.drawn else data.dir

    @functools.cached_property
    def data(self) -> Mapping[str, Source]:
        """Sources by split. Raises ValueError or OSError if one cannot be read."""
        data = self.config.data
        found = self.given
        if found is None:
            found = {split: self._source(data, split) for split in SPLITS}
        if data.on_corrupt_image == "raise":
            return found
        return {
            # A damaged test image is left out, and never replaced: its score is not another one's.
            split: despite_damage(source)
            if split == "test"
            else replace_corrupt(source, max_corrupt=data.max_corrupt, captioned=split == "train")
            for split, source in found.items()
        }

    @functools.cached_property
    def local_checkpoint(self) -> str | None:
        """Checkpoint that can be opened now; None if it is still to be downloaded from Kaggle."""
        name = self.config.model.checkpoint
        if not hub.is_kaggle(name):
            return name
        folder = kaggle_access.cached_path(name)
        return None if folder is None else str(folder)

    @property
    def data_pending(self) -> bool:
        """Whether the run still has to draw its images."""
        if not self.config.data.drawn or self.given is not None:
            return False
        # TFDS builds in a folder named incomplete.* and renames it to the version number. A killed
        # process leaves that folder behind, so only a folder that starts with a digit counts.
        built = f"{self.data_set}/*/[0-9]*/dataset_info.json"
        return not any(path_of(self.data_dir).glob(built))

    @property
    def made_tokenizer(self) -> str:
        """Path of the tokenizer that the run trains; empty if it trains none."""
        model = self.config.model
        if model.tokenizer or not model.vocab_size:
            return ""
        return str(path_of(self.config.workdir) / "tokenizer.model")

    @property
    def tokenizer_pending(self) -> bool:
        """Whether the run still has to train its tokenizer on the training captions."""
        return bool(self.made_tokenizer) and not path_of(self.made_tokenizer).exists()

    @property
    def pending(self) -> bool:
        """Whether data, tokenizer or checkpoint are still to be made or downloaded.

        Checks of what is pending have to be repeated once it exists.
        """
        return self.data_pending or self.tokenizer_pending or self.local_checkpoint is None

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises ValueError or OSError if its file is missing or invalid."""
        if path := self.config.model.tokenizer or self.made_tokenizer:
            return tokenizer.load(path)
        if not self.local_checkpoint:
            return tokenizer.load(hub.fetch_tokenizer())
        return tokenizer.load(captioner.tokenizer_of(self.local_checkpoint))

    @functools.cached_property
    def model(self) -> PaliGemmaConfig:
        """The model's configuration, read from the checkpoint.

        Before a published model is downloaded, its name determines the configuration.

        Raises:
          ValueError, OSError: the checkpoint is missing or damaged, or no known model fits it.
        """
        given = self.config.model
        if not given.checkpoint:
            model = MODELS[given.name]()
            pieces = given.vocab_size if self.tokenizer_pending else self.tokenizer.vocab_size
            language = dataclasses.replace(model.language, vocab_size=pieces)
            model = dataclasses.replace(model, language=language)
        elif self.local_checkpoint is None:
            model = published(given.checkpoint)
        else:
            model = checkpoint.read_config(self.local_checkpoint)
        vision = model.vision
        if given.image_size:
            vision = dataclasses.replace(vision, image_size=given.image_size)
        return dataclasses.replace(model, vision=vision, dtype=given.dtype, remat=given.remat)

    def _source(self, data: DataConfig, split: str) -> Source:
        name = getattr(data, split)
        if data.form == "auto":
            return self._recognised(data, split)
        if data.kind == "jsonl":
            return from_jsonl(name)
        if data.kind == "folder":
            return from_folder(name)
        if is_dotted(data.kind):
            return load_dotted(data.kind, "data.kind")(name)
        return from_tfds(self.data_set, name, data_dir=self.data_dir or None)

    @functools.cached_property
    def _own_splits(self) -> Mapping[str, Source]:
        """Splits of the data in `train`, which is a path."""
        path, _ = split_path(self.config.data.train)
        return splits_of(path, images=self.config.data.images)

    def _recognised(self, data: DataConfig, split: str) -> Source:
        """Returns a source of recognised form: a path, or a split of the data in `train`."""
        name = getattr(data, split)
        path, named = split_path(data.train)
        if split == "train":
            apart = is_path(data.validation) and is_path(data.test)
            return chosen_split(self._own_splits, named or ("" if apart else "train"), path)
        if is_path(name):
            return open_source(name, images=data.images)
        # A recipe may name splits of another data set, as "train[:1200]".
        return chosen_split(self._own_splits, name if name in self._own_splits else split, path)
