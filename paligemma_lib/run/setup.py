"""What the config of a run names, opened when it is asked for, and once.

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
from paligemma_lib.data.sources import Source, from_tfds
from paligemma_lib.data.tables import from_folder, from_jsonl
from paligemma_lib.hub import kaggle_access
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.run.config import SPLITS, DataConfig, RunConfig
from paligemma_lib.run.dotted import is_dotted, load_dotted
from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.sharding import make_mesh
from paligemma_lib.tokenizer import Tokenizer

SAMPLE = "flickr8k_tfds"  # the data set that drawn scenes are built to


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run, as far as it can be known before it starts.

    Attributes:
      config: the run.
      given: sources by what they are for, of SPLITS, instead of what the config names.
      records: of each source whose captions the checks look at, evenly spread; None: all.
    """

    config: RunConfig
    given: Mapping[str, Source] | None = None
    records: int | None = None

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The devices."""
        return make_mesh(self.config.fsdp or None)

    @property
    def data_set(self) -> str:
        """The name of the TFDS data set that the data are of; empty: of none."""
        data = self.config.data
        if self.given is not None:
            return ""
        return SAMPLE if data.drawn else data.name if data.kind == "tfds" else ""

    @property
    def data_dir(self) -> str:
        """Where TFDS keeps it; empty: in its usual place."""
        data = self.config.data
        return str(path_of(self.config.workdir) / f"tfds-{data.drawn}") if data.drawn else data.dir

    @functools.cached_property
    def data(self) -> Mapping[str, Source]:
        """Sources by what they are for. Raises ValueError or OSError for what cannot be read."""
        if self.given is not None:
            return self.given
        sources = {split: self._source(self.config.data, split) for split in SPLITS}
        if self.config.data.on_corrupt_image == "replace":
            for split in ("train", "validation"):
                sources[split] = replace_corrupt(sources[split])
        return sources

    @functools.cached_property
    def local_checkpoint(self) -> str | None:
        """What can be opened now; None: Kaggle has the model, and it is not on this machine yet."""
        name = self.config.model.checkpoint
        if not hub.is_kaggle(name):
            return name
        folder = kaggle_access.cached_path(name)
        return None if folder is None else str(folder)

    @property
    def data_pending(self) -> bool:
        """Whether the run draws the data."""
        if not self.config.data.drawn or self.given is not None:
            return False
        # TFDS builds in a folder incomplete.*, which a killed process leaves behind.
        built = f"{self.data_set}/*/[0-9]*/dataset_info.json"
        return not any(path_of(self.data_dir).glob(built))

    @property
    def made_tokenizer(self) -> str:
        """The path of the tokenizer that the run makes, or has made; empty: it makes none."""
        model = self.config.model
        if model.tokenizer or not model.vocab_size:
            return ""
        return str(path_of(self.config.workdir) / "tokenizer.model")

    @property
    def tokenizer_pending(self) -> bool:
        """Whether the run makes the tokenizer, of the training captions."""
        return bool(self.made_tokenizer) and not path_of(self.made_tokenizer).exists()

    @property
    def pending(self) -> bool:
        """Whether anything has to be made or downloaded first, and can be checked only then."""
        return self.data_pending or self.tokenizer_pending or self.local_checkpoint is None

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises ValueError or OSError where it is not there, or is none."""
        if path := self.config.model.tokenizer or self.made_tokenizer:
            return tokenizer.load(path)
        if not self.local_checkpoint:
            return tokenizer.load(hub.fetch_tokenizer())
        return tokenizer.load(captioner.tokenizer_of(self.local_checkpoint))

    @functools.cached_property
    def model(self) -> PaliGemmaConfig:
        """The model's configuration; that of a published model is known by its name too.

        Raises:
          ValueError, OSError: the checkpoint is not there, is damaged, or of no known model.
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
        if data.kind == "jsonl":
            return from_jsonl(name)
        if data.kind == "folder":
            return from_folder(name)
        if is_dotted(data.kind):
            return load_dotted(data.kind, "data.kind")(name)
        return from_tfds(self.data_set, name, data_dir=self.data_dir or None)
