"""Defines the config of a run: the default, meaning, type and bounds of every option.

    config = RunConfig(batch_size=16, data=DataConfig(train="train[:1200]"))
    config = dataclasses.replace(config, epochs=3.0)
    config = parse(RunConfig, {"batch_size": 16, "data": {"train": "train[:1200]"}})

To add an option, add a field here and use it; no other file declares options. Config files, the
command line and its help, the checks of `paligemma doctor`, `paligemma plan`, the record that a
resumed run is compared with, and the report all read these classes. The string below a field is its
help text. `options.config` makes frozen dataclasses that validate their values and reject unknown
names.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, RootModel, model_validator

from paligemma_lib.data.sources import is_path
from paligemma_lib.model.variants import Dtype, Name, Remat
from paligemma_lib.run import options
from paligemma_lib.run.dotted import NameOrDotted, is_dotted
from paligemma_lib.run.options import Names
from paligemma_lib.train import optimizer

SPLITS = ("train", "validation", "test")

# Former name -> present name of the fields that were renamed in 2026. Config files, records in
# checkpoints and command lines may still use the former names.
FORMER = {
    "data.damaged": "data.on_corrupt_image",
    "data.mirror": "data.horizontal_flip",
    "may_differ": "allow_changed",
    "test_pictures": "test_images",
}


@options.config
class DataConfig:
    """The images and captions of a run."""

    kind: Annotated[str, NameOrDotted("auto", "tfds", "jsonl", "folder", "sample")] = "auto"
    """form of the data; auto: recognised where train is a path, else by name"""
    name: str = "flickr8k_tfds"
    """TFDS data set; or a number: so many scenes are drawn"""
    wording: Literal["sentences", "labels"] = "sentences"
    """captions of drawn scenes: sentences, or labels that name things"""
    dir: str = ""
    """TFDS data_dir, if not the usual one"""
    on_corrupt_image: Literal["raise", "replace"] = "raise"
    """what to do with a damaged record or image: stop, or take another one"""
    max_corrupt: float = Field(default=0.01, ge=0, le=1)
    """stop when more than this share of all records of a split, of 100 at least, is damaged"""
    train: str = "train"
    """training images: the path of a file or folder, or a TFDS split"""
    validation: str = "validation"
    """images for the validation loss: a path, or the name of a split of the same data"""
    test: str = "test"
    """images to caption and score: a path, or the name of a split of the same data"""
    images: str = ""
    """folder of images, if it is not beside the file of captions"""
    min_crop_area: float = Field(default=1.0, gt=0, le=1)
    """random crops for training, of at least this share of the area; 1: none"""
    horizontal_flip: bool = False
    """flip half of the training images left to right, at random"""

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        if self.kind == "sample" and not (self.name.isdecimal() and int(self.name)):
            raise ValueError(f"name={self.name!r}: expected how many images, as kind is sample")
        return self

    @property
    def form(self) -> str:
        """`kind`; for auto, "sample" or "tfds" by the name, or "auto" where a path is to open."""
        # The default `train` is a split, even beside a folder that happens to have its name.
        if self.kind != "auto" or (self.train != "train" and is_path(self.train)):
            return self.kind
        return "sample" if self.name.isdecimal() and int(self.name) else "tfds"

    @property
    def drawn(self) -> int:
        """Number of scenes that the run draws; 0 if it reads existing images."""
        return int(self.name) if self.form == "sample" else 0


@options.config
class ModelConfig:
    """The model, its checkpoint, and its dtypes."""

    checkpoint: str = ""
    """weights: .npz, safetensors, gs://, Kaggle, nano; empty: a new model"""
    name: Name = "nano"
    """size of a new model, where there is no checkpoint"""
    tokenizer: str = ""
    """SentencePiece file; empty: the checkpoint's, or PaliGemma's"""
    vocab_size: int = Field(default=0, ge=0)
    """train a tokenizer of so many pieces on the captions, for a new model; 0: none"""
    image_size: int = Field(default=0, ge=0)
    """side in pixels; 0: the model's own"""
    dtype: Dtype = "float32"
    """type of activations"""
    frozen_dtype: Literal["", Dtype] = ""
    """type of parameters that never train; empty: as they are stored"""
    remat: Remat = "dots"
    """what the backward pass recomputes: nothing, all but products with weights, all"""


@options.config
class StageConfig:
    """A stage of training: which parameters train from a given step on."""

    from_step: int = Field(default=0, ge=0)
    """first step of the stage"""
    trainable: Names = ("attention",)
    """attention, llm, vision, projector, all, or regular expressions for names"""
    top_layers: int = Field(default=0, ge=0)
    """only so many of the uppermost layers; 0: all"""


@options.config
class OptimizerConfig:
    """The optimizer and its schedule."""

    name: optimizer.Name = "adamw"
    """optimizer"""
    learning_rate: float = Field(default=5e-5, gt=0)
    """peak learning rate"""
    schedule: optimizer.Schedule = "cosine"
    """how the rate falls after the warm-up"""
    warmup: float = Field(default=0.05, ge=0, le=1)
    """share of all steps in which the rate rises linearly from 0"""
    weight_decay: float = Field(default=0.0, ge=0)
    """decoupled weight decay: a step takes off rate * weight_decay * weight"""
    clip_norm: float = Field(default=1.0, ge=0)
    """clip gradients to this global norm; 0: do not clip"""


@options.config
class RunConfig:
    """All options of a fine-tuning run, from data to report."""

    workdir: str = Field(default="workdir", min_length=1)
    """folder of checkpoints, metrics and results; may be on gs://"""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """seed of the order of images, captions, crops, flips, and of new parameters"""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()

    prompt: str = "caption en"
    """prefix of each caption"""
    text_len: int = Field(default=128, ge=4)
    """text tokens of an example: prompt and captions together"""
    captions: Literal["packed", "sample"] = "packed"
    """packed: all captions of an image at once; sample: another one of them in each epoch"""
    lowercase: bool = False
    """lower-case the captions"""
    truncate: bool = False
    """cut text that is too long, instead of stopping"""

    stages: tuple[StageConfig, ...] = (StageConfig(),)
    """what trains: from_step, trainable and top_layers of each"""
    batch_size: int = Field(default=32, ge=1)
    """images in a step, over all devices and microbatches"""
    microbatches: int = Field(default=1, ge=1)
    """gradient accumulation: parts of a batch that are computed one after the other"""
    epochs: float = Field(default=10.0, gt=0)
    """passes over the training images"""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """share of the target distribution that is spread over all tokens"""
    z_loss: float = Field(default=0.0, ge=0)
    """weight of log(Z)**2, which keeps logits from drifting; 1e-4 is usual"""
    optimizer: OptimizerConfig = OptimizerConfig()
    max_skipped: int = Field(default=20, ge=1)
    """stop after so many steps in a row whose gradients are not finite"""

    fsdp: int = Field(default=0, ge=0)
    """devices over which parameters are sharded; 0: all; 1: not sharded"""
    validate_every: float = Field(default=0.5, ge=0)
    """epochs between validations; 0: never"""
    save_every: float = Field(default=0.5, ge=0)
    """epochs between checkpoints; 0: at the end only"""
    keep: int = Field(default=2, ge=1)
    """newest checkpoints to keep, beside the one with the lowest validation loss"""
    allow_changed: Names = ()
    """fields that may differ when a run resumes"""

    evaluate_before: bool = True
    """caption and score the test images before training, too"""
    test_images: int = Field(default=0, ge=0)
    """number of test images; 0: all"""
    decode_batch_size: int = Field(default=16, ge=1)
    """images captioned at a time, over all devices"""
    sampler: Annotated[str, NameOrDotted("greedy", "beam")] = "greedy"
    """decoding: greedy, beam search of width 4, or a sampler of your own"""
    max_new_tokens: int = Field(default=48, ge=1)
    """longest caption, in tokens"""
    trackers: Names = ("tensorboard",)
    """experiment trackers: tensorboard, or your own as package.module:name"""
    export: str = Field(default="paligemma_flickr8k.params.f16.npz", min_length=1)
    """file name of the trained model, in the workdir"""
    export_dtype: Dtype = "float16"
    """type of its parameters"""

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        if wrong := [
            each for each in self.trackers if each != "tensorboard" and not is_dotted(each)
        ]:
            raise ValueError(f"trackers={wrong[0]!r}: expected tensorboard or package.module:name")
        steps = [stage.from_step for stage in self.stages]
        if not steps or steps[0] != 0 or sorted(set(steps)) != steps:
            raise ValueError(f"stages begin at steps {steps}: expected 0 and then rising ones")
        if self.batch_size % self.microbatches:
            raise ValueError(
                f"batch_size={self.batch_size}: expected a multiple of microbatches, which is "
                f"{self.microbatches}"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as nested dicts, lists and scalars that JSON can represent."""
        return RootModel(self).model_dump(mode="json")
