"""Opens what the config of a run names: each part once, on first access.

setup = Setup(RunConfig(model=ModelConfig(checkpoint="nano")))
setup.model, setup.tokenizer, setup.data["train"]
setup = Setup(config, given={"train": source, "test": source})      # sources of one's own
"""

import dataclasses
import functools
import json
from collections.abc import Mapping

import jax
from jax.sharding import Mesh

from paligemma_lib import captioner, checkpoint, hub, tokenizer
from paligemma_lib.checkpoint.configuration import MODELS, published
from paligemma_lib.data.replacing import replace_corrupt
from paligemma_lib.data.sources import Source, despite_damage
from paligemma_lib.data.sources.hub_commits import commits_of
from paligemma_lib.hub import huggingface_models, kaggle_access
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.parameter_spec import ParameterSpec
from paligemma_lib.run.assembly import parameters_of
from paligemma_lib.run.config import SPLITS, RunConfig
from paligemma_lib.run.open_data import OpenedData
from paligemma_lib.run.record import recorded_commits
from paligemma_lib.run.text_lengths import LongestText, longest_text
from paligemma_lib.runtime import processes
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
      seconds: time for reading the texts of each source, to find the longest.
    """

    config: RunConfig
    given: Mapping[str, Source] | None = None
    seconds: float = 60.0

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
            opened = OpenedData(data, self.data_set, self.data_dir, self.commits)
            found = {split: opened.source(split) for split in SPLITS}
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
    def commits(self) -> Mapping[str, str]:
        """Commits of data sets of the Hub, by repository and revision.

        They are those that the run's checkpoints have recorded, if it has any, so that a run goes
        on with the data that it began with. All processes read those that the main process found,
        as a branch may move while they start; so they call this together.

        Raises:
          OSError, ImportError, ValueError: the Hub does not tell a commit.
        """
        data = self.config.data
        if self.given is not None or data.form != "auto":
            return {}
        told, failure = {}, None
        if jax.process_index() == 0:
            try:
                known = recorded_commits(path_of(self.config.workdir))
                told = commits_of(data.paths, known)
            except (OSError, ImportError, ValueError) as error:
                failure = error  # raised below, as the others wait for an answer
        answer = processes.gather(json.dumps([told, failure and str(failure)]).encode())[0]
        told, why = json.loads(answer)
        if why is not None:
            raise failure or OSError(why)
        return told

    @functools.cached_property
    def local_checkpoint(self) -> str | None:
        """Checkpoint that can be opened now; None if it is still to be downloaded."""
        name = self.config.model.checkpoint
        if hub.is_kaggle(name):
            folder = kaggle_access.cached_path(name)
        elif hub.is_hub_model(name):
            folder = huggingface_models.cached_path(name)
        else:
            return name
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

    @property
    def knows_too_little(self) -> bool:
        """Whether the run begins with nano, and its images are no drawn scenes."""
        drawn = self.given is None and self.config.data.drawn
        return self.config.model.checkpoint == "nano" and not drawn

    @functools.cached_property
    def model(self) -> PaliGemmaConfig:
        """The model's configuration, read from the checkpoint.

        Before a published model is downloaded, its name determines the configuration, or the
        config.json that it has on the Hugging Face Hub.

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
            model = self._coming_model
        else:
            model = checkpoint.read_config(self.local_checkpoint)
        vision = model.vision
        if given.image_size:
            vision = dataclasses.replace(vision, image_size=given.image_size)
        return dataclasses.replace(model, vision=vision, dtype=given.dtype, remat=given.remat)

    @property
    def _coming_model(self) -> PaliGemmaConfig:
        """Configuration of a checkpoint that is still to be downloaded."""
        name = self.config.model.checkpoint
        if hub.is_hub_model(name) and (folder := huggingface_models.fetch_config(name)):
            return checkpoint.read_config(folder)
        return published(name)

    @functools.cached_property
    def parameters(self) -> Mapping[str, ParameterSpec]:
        """What becomes of each parameter, by name.

        Raises:
          ValueError: a rule of the config fits no parameter, or the model cannot be opened.
        """
        return parameters_of(self.config, self.model)

    @functools.cached_property
    def longest_texts(self) -> Mapping[str, LongestText]:
        """The longest example of the sources to train and validate on, in this process's share.

        Raises:
          ValueError, OSError: a source cannot be read.
        """
        config = self.config
        return {
            split: longest_text(
                self.data[split],
                self.tokenizer,
                prompt=config.prompt,
                lowercase=config.lowercase,
                # Validation batches always pack all captions.
                captions=config.captions if split == "train" else "packed",
                seconds=self.seconds,
            )
            for split in ("train", "validation")
            if split in self.data
        }

    @property
    def text_len(self) -> int:
        """Text tokens of an example: those of the config, or as many as this process's data need.

        Before the data and the tokenizer are there, it is the config's `assumed_text_len`.
        """
        if self.config.text_len or self.data_pending or self.tokenizer_pending:
            return self.config.assumed_text_len
        needed = [found.text_len for found in self.longest_texts.values()]
        return max(needed, default=self.config.assumed_text_len)
