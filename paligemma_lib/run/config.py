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

from paligemma_lib.metrics.tasks import Task
from paligemma_lib.model.variants import Dtype
from paligemma_lib.run import options
from paligemma_lib.run.data_config import DataConfig
from paligemma_lib.run.dotted import NameOrDotted, is_dotted
from paligemma_lib.run.options import Names, Place
from paligemma_lib.run.training_config import (
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    RewardConfig,
    StageConfig,
)

SPLITS = ("train", "validation", "test")

# The trackers of the library, by the name that a config has for them.
TRACKERS = {
    "tensorboard": "paligemma_lib.run.tensorboard_tracker:TensorBoardTracker",
    "wandb": "paligemma_lib.run.wandb_tracker:WandbTracker",
    "mlflow": "paligemma_lib.run.mlflow_tracker:MlflowTracker",
    "trackio": "paligemma_lib.run.trackio_tracker:TrackioTracker",
}

# Former name -> present name of the fields that were renamed in 2026. Config files, records in
# checkpoints and command lines may still use the former names.
FORMER = {
    "data.damaged": "data.on_corrupt_image",
    "data.mirror": "data.horizontal_flip",
    "may_differ": "allow_changed",
    "test_pictures": "test_images",
}


@options.config
class RunConfig:
    """All options of a fine-tuning run, from data to report."""

    workdir: Place = Field(default="workdir", min_length=1)
    """folder of checkpoints, metrics and results; may be on gs://"""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """seed of the order of images, captions, crops, flips, and of new parameters"""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()

    task: Task = "caption"
    """what texts are scored as: captions, answers to questions, boxes, or masks"""
    masks: str = ""
    """for task=segment: vae-oid.npz, which turns the codes of masks into pixels"""
    prompt: str = "caption en"
    """prefix of each caption; data with prompts of their own have these instead"""
    text_len: int = Field(default=0, ge=0, le=1 << 16)
    """text tokens of an example, prompt and captions; 0: as many as the data need"""
    captions: Literal["packed", "sample"] = "packed"
    """packed: all captions of an image at once; sample: a different one in each epoch"""
    lowercase: bool = False
    """lower-case the captions"""
    truncate: bool = False
    """cut text that is longer than text_len, instead of stopping"""

    reward: RewardConfig = RewardConfig()
    lora: LoraConfig = LoraConfig()
    stages: tuple[StageConfig, ...] = (StageConfig(),)
    """stages of training, each with from_step, trainable and top_layers"""
    batch_size: int = Field(default=32, ge=1, le=1 << 20)
    """images in a step, over all devices and microbatches"""
    microbatches: int = Field(default=1, ge=1)
    """gradient accumulation: parts of a batch that are computed one after the other"""
    epochs: float = Field(default=10.0, gt=0, le=1e6)
    """passes over the training images"""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """share of the target distribution that is spread over all tokens"""
    z_loss: float = Field(default=0.0, ge=0, le=1)
    """weight of log(Z)**2, which keeps logits from drifting; 1e-4 is usual"""
    optimizer: OptimizerConfig = OptimizerConfig()
    max_skipped: int = Field(default=20, ge=1, lt=2**31)
    """stop after this many steps in a row with gradients that are not finite"""

    fsdp: int = Field(default=0, ge=0, le=1 << 20)
    """devices over which parameters are sharded; 0: all; 1: not sharded"""
    validate_every: float = Field(default=0.5, ge=0, le=1e6)
    """epochs between validations; 0: never"""
    save_every: float = Field(default=0.5, ge=0, le=1e6)
    """epochs between checkpoints; 0: at the end, and by save_minutes"""
    save_minutes: float = Field(default=10.0, ge=0, le=1e5)
    """minutes after which a checkpoint is saved even if save_every is not over; 0: never"""
    keep: int = Field(default=2, ge=1, le=10_000)
    """newest checkpoints to keep, besides the one with the lowest validation loss"""
    early_stopping: int = Field(default=0, ge=0, le=10_000)
    """end after this many validations in a row without a lower loss; 0: never"""
    allow_changed: Names = ()
    """fields that may differ when a run resumes"""

    evaluate_before: bool = True
    """caption and score the test images before training, too"""
    test_images: int = Field(default=1000, ge=0, lt=2**31)
    """most test images to caption and score, the first ones; 0: all"""
    decode_batch_size: int = Field(default=16, ge=1, le=1 << 20)
    """images captioned at a time, over all devices"""
    sampler: Annotated[str, NameOrDotted("greedy", "beam")] = "greedy"
    """decoding: greedy, beam search of width 4, or a sampler of your own"""
    max_new_tokens: int = Field(default=48, ge=1, le=1 << 16)
    """longest caption, in tokens"""
    trackers: Names = ("tensorboard",)
    """experiment trackers: tensorboard, wandb, mlflow, trackio, or package.module:name"""
    export: Place = ""
    """name of the trained model in the workdir; empty: paligemma_flickr8k.params.f16.npz, or with
    lora none: the workdir then holds the adapter"""
    export_dtype: Dtype = "float16"
    """type of the exported parameters"""
    export_best: bool = False
    """export the checkpoint with the lowest validation loss instead of the last"""

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        if wrong := [n for n in self.trackers if n not in TRACKERS and not is_dotted(n)]:
            raise ValueError(
                f"trackers={wrong[0]!r}: expected {', '.join(TRACKERS)}, or package.module:name"
            )
        steps = [stage.from_step for stage in self.stages]
        if not steps or steps[0] != 0 or sorted(set(steps)) != steps:
            raise ValueError(f"stages begin at steps {steps}: expected 0, then increasing steps")
        ends = [name for name in ("early_stopping", "export_best") if getattr(self, name)]
        if ends and not self.validate_every:
            raise ValueError(f"{ends[0]} has no effect: validate_every=0 measures no loss")
        if self.truncate and not self.text_len:
            raise ValueError("truncate=True: expected a text_len to cut to, such as 128")
        if self.reward.name and (told := _without_effect(self)):
            raise ValueError(f"{told} has no effect on sampled captions: leave it out")
        if self.reward.kl and len(self.stages) > 1:
            raise ValueError(
                "reward.kl: expected one stage, as the start of later ones is not kept"
            )
        moved = {
            "horizontal_flip": self.data.horizontal_flip,
            "min_crop_area": self.data.min_crop_area < 1,
        }
        name = next((name for name, on in moved.items() if on), "")
        if (self.task == "segment") != bool(self.masks):
            raise ValueError(
                f"task={self.task}, masks={self.masks!r}: expected masks with task=segment alone, "
                "gs://big_vision/paligemma/vae-oid.npz or a copy of it"
            )
        if self.task in ("detect", "segment") and name:
            raise ValueError(f"data.{name}: boxes in the texts would not move along; leave it out")
        if self.reward.name == "truth" and name:
            raise ValueError(f"data.{name}: reward.name=truth knows scenes as drawn; leave it out")
        if self.batch_size % self.microbatches:
            raise ValueError(
                f"batch_size={self.batch_size}: expected a multiple of microbatches, which is "
                f"{self.microbatches}"
            )
        return self

    @property
    def export_name(self) -> str:
        """Name of the trained model in the workdir; "" if only an adapter is written."""
        return self.export or ("" if self.lora.rank else "paligemma_flickr8k.params.f16.npz")

    @property
    def assumed_text_len(self) -> int:
        """`text_len`, or where the data are not known yet, what holds five captions of Flickr8k."""
        return self.text_len or 128

    def trained_text_len(self, of_data: int = 0) -> int:
        """Returns the most text tokens of an example that a step trains on.

        Args:
          of_data: text tokens of an example of the data; 0: not known, `assumed_text_len`.
        """
        if not self.reward.name:
            return of_data or self.assumed_text_len
        # A prompt has no more tokens than bytes, besides BOS and the newline.
        return len(self.prompt.encode()) + 2 + self.reward.samples * self.max_new_tokens

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as nested dicts, lists and scalars that JSON can represent."""
        return RootModel(self).model_dump(mode="json")


def _without_effect(config: RunConfig) -> str:
    """Returns the name of an option for captions of people, which is set; "" if there is none."""
    unset = {"captions": "packed", "truncate": False, "label_smoothing": 0.0, "z_loss": 0.0}
    return next((name for name, usual in unset.items() if getattr(config, name) != usual), "")
