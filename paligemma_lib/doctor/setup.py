"""What a run of training is made of, by name: nothing is opened until it is asked for.

setup = Setup(checkpoint="paligemma-3b-pt-224.f16.npz", batch_size=8)
setup.model, setup.tokenizer            # opened now, and once
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from paligemma_lib import captioner, checkpoint, hub, tokenizer
from paligemma_lib.checkpoint.configuration import MODELS, published
from paligemma_lib.data.sources import Source
from paligemma_lib.hub import kaggle_access
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.sharding import make_mesh
from paligemma_lib.tokenizer import Tokenizer
from paligemma_lib.train import Optimizer, make_optimizer
from paligemma_lib.trainable import Select

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Stage:
    """What trains from a step on."""

    from_step: int
    trainable: tuple[Select, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """A run of training, as far as it can be checked before it starts.

    Attributes:
      data: sources by what they are for, of SPLITS.
      data_set: the name of a TFDS data set that they are of, or its folder; "": of none.
      data_dir: where TFDS keeps it; "": in its usual place.
      drawn: how many pictures the run draws and builds there itself; 0: none.
      records: how many records of a source are looked at, evenly spread; None: all.
      checkpoint: as for `load_params`; "": a new model.
      new_model: of which kind it is, a key of `checkpoint.configuration.MODELS`.
      tokenizer_path: "": the checkpoint's own, or PaliGemma's.
      vocab_size: pieces of the tokenizer that the run makes there itself; 0: it makes none.
      image_size: pixels; 0: the checkpoint's.
      dtype, remat: as for `PaliGemmaConfig`.
      frozen_dtype: of parameters that do not train; "": as they are stored.
      stages: what trains from which step on.
      optimizer: whose state takes memory.
      batch_size, microbatches, text_len, captions, prompt, lowercase, truncate: of batches.
      fsdp: devices over which parameters are split; 0: all.
      workdir: where the run writes; "": nowhere.
      run, may_differ: as for `train.identity.check_run`: what must be as in the workdir's
        checkpoints, and what of it need not. The parameters' fingerprint is not known yet.
      keep: checkpoints that are kept, beside the best.
      export_dtype: of the model that is written at the end.
    """

    data: Mapping[str, Source] = dataclasses.field(default_factory=dict)
    data_set: str = ""
    data_dir: str = ""
    drawn: int = 0
    records: int | None = None
    checkpoint: str = "nano"
    new_model: str = "nano"
    tokenizer_path: str = ""
    vocab_size: int = 0
    image_size: int = 0
    dtype: str = "float32"
    remat: str = "dots"
    frozen_dtype: str = ""
    stages: Sequence[Stage] = (Stage(0, (Select("attention"),)),)
    optimizer: Optimizer = dataclasses.field(
        default_factory=lambda: make_optimizer("adamw", learning_rate=5e-5, total_steps=1)
    )
    batch_size: int = 32
    microbatches: int = 1
    text_len: int = 128
    captions: str = "packed"
    prompt: str = "caption en"
    lowercase: bool = False
    truncate: bool = False
    fsdp: int = 0
    workdir: str = ""
    run: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    may_differ: Sequence[str] = ()
    keep: int = 2
    export_dtype: str = "float16"

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The devices."""
        return make_mesh(self.fsdp or None)

    @functools.cached_property
    def local_checkpoint(self) -> str | None:
        """What can be opened now; None: Kaggle has the model, and it is not on this machine yet."""
        if not hub.is_kaggle(self.checkpoint):
            return self.checkpoint
        folder = kaggle_access.kept(self.checkpoint)
        return None if folder is None else str(folder)

    @property
    def data_to_come(self) -> bool:
        """Whether the run makes the data."""
        if not self.drawn:
            return False
        # TFDS builds in a folder incomplete.*, which a killed process leaves behind.
        built = f"{self.data_set}/*/[0-9]*/dataset_info.json"
        return not any(path_of(self.data_dir).glob(built))

    @property
    def tokenizer_to_come(self) -> bool:
        """Whether the run makes the tokenizer, of the training captions."""
        return bool(self.vocab_size) and not path_of(self.tokenizer_path).exists()

    @property
    def to_come(self) -> bool:
        """Whether anything has to be made or downloaded first, and can be checked only then."""
        return self.data_to_come or self.tokenizer_to_come or self.local_checkpoint is None

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises ValueError or OSError where it is not there, or is none."""
        if self.tokenizer_path:
            return tokenizer.load(self.tokenizer_path)
        if not self.local_checkpoint:
            return tokenizer.load(hub.fetch_tokenizer())
        return tokenizer.load(captioner.tokenizer_of(self.local_checkpoint))

    @functools.cached_property
    def model(self) -> PaliGemmaConfig:
        """The model's configuration; that of a published model is known by its name too.

        Raises:
          ValueError, OSError: the checkpoint is not there, is damaged, or of no known model.
        """
        if not self.checkpoint:
            model = MODELS[self.new_model]()
            pieces = self.vocab_size if self.tokenizer_to_come else self.tokenizer.vocab_size
            language = dataclasses.replace(model.language, vocab_size=pieces)
            model = dataclasses.replace(model, language=language)
        elif self.local_checkpoint is None:
            model = published(self.checkpoint)
        else:
            model = checkpoint.read_config(self.local_checkpoint)
        vision = model.vision
        if self.image_size:
            vision = dataclasses.replace(vision, image_size=self.image_size)
        return dataclasses.replace(model, vision=vision, dtype=self.dtype, remat=self.remat)
