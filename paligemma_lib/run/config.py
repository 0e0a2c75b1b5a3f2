"""ONE config of a run: the only place where an option has its type, default, meaning and bounds.

    config = RunConfig(batch_size=16, data=DataConfig(train="train[:1200]"))
    config = dataclasses.replace(config, epochs=3.0)
    config = parse(RunConfig, {"batch_size": 16, "data": {"train": "train[:1200]"}})

A new option is a field here and its use. The command line's help, the files of configs, the checks
of `paligemma doctor`, plans, the record by which a run goes on, and the report all follow.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, RootModel, model_validator

from paligemma_lib.model.variants import Dtype, Name, Remat
from paligemma_lib.run import options
from paligemma_lib.run.dotted import NameOrDotted, is_dotted
from paligemma_lib.run.options import Names
from paligemma_lib.train import optimizer

SPLITS = ("train", "validation", "test")

FORMER = {  # fields that changed their names: files, records and command lines may still have these
    "data.damaged": "data.on_corrupt_image",
    "data.mirror": "data.horizontal_flip",
    "may_differ": "allow_changed",
    "test_pictures": "test_images",
}


@options.config
class DataConfig:
    """Images with captions."""

    kind: Annotated[str, NameOrDotted("tfds", "jsonl", "folder", "sample")] = "tfds"
    """TFDS data set, JSON lines, captions.txt and Images/, drawn scenes, or a source of your own"""
    name: str = "flickr8k_tfds"
    """of the TFDS data set; for sample, how many images"""
    wording: Literal["sentences", "labels"] = "sentences"
    """of a sample's captions"""
    dir: str = ""
    """where TFDS keeps the data set, if not in its usual place"""
    on_corrupt_image: Literal["raise", "replace"] = "raise"
    """on a damaged record or image: stop, or take another one"""
    train: str = "train"
    """a split of TFDS; else the path of a file or folder"""
    validation: str = "validation"
    """likewise, for the loss while training goes on"""
    test: str = "test"
    """likewise, for captions and scores at the end"""
    min_crop_area: float = Field(default=1.0, gt=0, le=1)
    """train on random parts of images, of at least this share"""
    horizontal_flip: bool = False
    """train on half of the images with left and right exchanged"""

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        if self.kind == "sample" and not (self.name.isdecimal() and int(self.name)):
            raise ValueError(f"name={self.name!r}: expected how many images, as kind is sample")
        return self

    @property
    def drawn(self) -> int:
        """How many scenes the run draws; 0: none."""
        return int(self.name) if self.kind == "sample" else 0


@options.config
class ModelConfig:
    """The model, and how it is stored and computed."""

    checkpoint: str = ""
    """.npz, safetensors, gs://, Kaggle, nano; empty: a new model"""
    name: Name = "nano"
    """size of a new model"""
    tokenizer: str = ""
    """a .model file; empty: the checkpoint's, or PaliGemma's"""
    vocab_size: int = Field(default=0, ge=0)
    """pieces of a tokenizer that a new model makes of the captions"""
    image_size: int = Field(default=0, ge=0)
    """pixels; 0: the checkpoint's"""
    dtype: Dtype = "float32"
    """of activations"""
    frozen_dtype: Literal["", Dtype] = ""
    """of parameters that never train; empty: as they are stored"""
    remat: Remat = "dots"
    """results kept for the backward pass: all, of products, of blocks"""


@options.config
class StageConfig:
    """What trains from a step on."""

    from_step: int = Field(default=0, ge=0)
    """where it begins"""
    trainable: Names = ("attention",)
    """attention, llm, vision, projector, all, or regular expressions for names"""
    top_layers: int = Field(default=0, ge=0)
    """only so many of the uppermost layers; 0: all"""


@options.config
class OptimizerConfig:
    """How gradients become updates."""

    name: optimizer.Name = "adamw"
    """the rule of updates"""
    learning_rate: float = Field(default=5e-5, gt=0)
    """the highest of the schedule"""
    schedule: optimizer.Schedule = "cosine"
    """how the rate falls"""
    warmup: float = Field(default=0.05, ge=0, le=1)
    """share of all steps in which the rate rises"""
    weight_decay: float = Field(default=0.0, ge=0)
    """share of a weight, times the rate, that a step takes off"""
    clip_norm: float = Field(default=1.0, ge=0)
    """largest norm of all gradients together; 0: any"""


@options.config
class RunConfig:
    """A run of fine-tuning, from data to report."""

    workdir: str = Field(default="workdir", min_length=1)
    """folder of checkpoints, metrics and results; may be on gs://"""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """of the order of images, and of new parameters"""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()

    prompt: str = "caption en"
    """what comes before each caption"""
    text_len: int = Field(default=128, ge=4)
    """text positions of an image: prompt and captions"""
    captions: Literal["packed", "sample"] = "packed"
    """all captions of an image behind it, or one at a time"""
    lowercase: bool = False
    """captions in lower case"""
    truncate: bool = False
    """cut text that is too long, instead of an error"""

    stages: tuple[StageConfig, ...] = (StageConfig(),)
    """what trains: from_step, trainable and top_layers of each"""
    batch_size: int = Field(default=32, ge=1)
    """images in a step, over all devices"""
    microbatches: int = Field(default=1, ge=1)
    """parts of a batch, computed one after the other"""
    epochs: float = Field(default=10.0, gt=0)
    """passes over the training images"""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """share of the target that all tokens get alike"""
    z_loss: float = Field(default=0.0, ge=0)
    """weight of log(Z)**2, which keeps logits from drifting; 1e-4 is usual"""
    optimizer: OptimizerConfig = OptimizerConfig()
    max_skipped: int = Field(default=20, ge=1)
    """steps in a row without finite gradients that end a run"""

    fsdp: int = Field(default=0, ge=0)
    """devices over which parameters are split; 0: all"""
    validate_every: float = Field(default=0.5, ge=0)
    """epochs; 0: never"""
    save_every: float = Field(default=0.5, ge=0)
    """epochs; 0: at the end alone"""
    keep: int = Field(default=2, ge=1)
    """checkpoints, beside the best"""
    allow_changed: Names = ()
    """fields that may have changed when a run goes on"""

    evaluate_before: bool = True
    """caption the test images before training too"""
    test_images: int = Field(default=0, ge=0)
    """how many of them; 0: all"""
    decode_batch_size: int = Field(default=16, ge=1)
    """images captioned at a time"""
    sampler: Annotated[str, NameOrDotted("greedy", "beam")] = "greedy"
    """how captions are written: the likeliest token, four beams, or a sampler of your own"""
    max_new_tokens: int = Field(default=48, ge=1)
    """of a caption"""
    trackers: Names = ("tensorboard",)
    """what follows the run: tensorboard, and trackers of your own as package.module:name"""
    export: str = Field(default="paligemma_flickr8k.params.f16.npz", min_length=1)
    """file of the trained model, in the workdir"""
    export_dtype: Dtype = "float16"
    """of its parameters"""

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
        """Plain values, as JSON has them."""
        return RootModel(self).model_dump(mode="json")
