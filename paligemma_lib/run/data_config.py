"""Defines the options of a run's data; `config.RunConfig` holds them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from paligemma_lib.data.sources import Columns, is_path
from paligemma_lib.run import options
from paligemma_lib.run.dotted import NameOrDotted
from paligemma_lib.run.options import Place

_MOST_DRAWN = 1_000_000
_DRAWN = 300  # scenes, where kind is sample and no number is given
FLICKR8K = "flickr8k_tfds"


@options.config
class PartConfig:
    """A part of a mixture of training data."""

    train: Place = Field(min_length=1)
    """path of the data, as for data.train"""
    weight: float = Field(default=1.0, gt=0, lt=1e6)
    """visits to each of its images in an epoch, on average"""
    prompt: str = ""
    """prefix of its captions; empty: that of the run"""
    images: Place = ""
    """folder of images, if it is not next to the caption file"""


@options.config
class DataConfig:
    """The images and captions of a run."""

    kind: Annotated[str, NameOrDotted("auto", "tfds", "jsonl", "folder", "sample")] = "auto"
    """form of the data; auto: detected from the path in train, or else from name"""
    name: str = FLICKR8K
    """TFDS data set, or the number of scenes to draw; with kind=sample 300 are drawn by default"""
    wording: Literal["sentences", "labels"] = "sentences"
    """captions of drawn scenes: sentences, or labels that name things"""
    dir: Place = ""
    """TFDS data_dir, if not the default"""
    on_corrupt_image: Literal["raise", "replace"] = "raise"
    """what to do with a damaged record or image: stop, or use another one"""
    max_corrupt: float = Field(default=0.01, ge=0, le=1)
    """stop when more than this share of all records of a split, of 100 at least, is damaged"""
    train: Place = "train"
    """training images: the path of a file or folder, or a TFDS split"""
    validation: Place = "validation"
    """images for the validation loss: a path, or the name of a split of the same data"""
    test: Place = "test"
    """images to caption and score: a path, or the name of a split of the same data"""
    mixture: tuple[PartConfig, ...] = ()
    """several data sets instead of train: train, weight, prompt and images of each"""
    images: Place = ""
    """folder of images, if it is not next to the caption file"""
    allow_outside: bool = False
    """read images that links or relative paths put outside of the data's folder"""
    image_column: str = ""
    """column, key or feature of the image, if it is not a usual one"""
    caption_column: str = ""
    """column, key or feature of the captions, if it is not a usual one"""
    prompt_column: str = ""
    """column, key or feature of the prompt, if it is not a usual one"""
    id_column: str = ""
    """column or feature of the image id in Parquet, Arrow and TFRecords"""
    split_column: str = ""
    """column or key of the split in a table, if it is not `split`"""
    apply_exif: bool = True
    """turn images upright by their EXIF orientation; false: as they are stored"""
    min_crop_area: float = Field(default=1.0, gt=0, le=1)
    """smallest area of random training crops, as a share of the image; 1: no crops"""
    horizontal_flip: bool = False
    """flip half of the training images left to right, at random, and these words in their texts"""

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        given = self.name != FLICKR8K and not (self.name.isdecimal() and int(self.name[:9]))
        if self.kind == "sample" and given:
            raise ValueError(
                f"name={self.name!r}: expected a positive number of images, as kind is sample"
            )
        if self.name.isdecimal() and int(self.name[:9]) > _MOST_DRAWN:
            raise ValueError(f"name={self.name[:20]!r}: expected at most {_MOST_DRAWN:,} images")
        if self.mixture and (self.kind != "auto" or self.train != "train"):
            raise ValueError("mixture: leave out kind and train, since each part names its data")
        return self

    @property
    def columns(self) -> Columns:
        """Names of columns that the data are read by; "" stands for the usual ones."""
        return Columns(
            self.image_column,
            self.caption_column,
            self.prompt_column,
            self.id_column,
            self.split_column,
        )

    @property
    def paths(self) -> list[str]:
        """Everything that may be a path of data; names of splits are among them."""
        train = [part.train for part in self.mixture] or [self.train]
        return [*train, self.validation, self.test]

    @property
    def form(self) -> str:
        """`kind`; for auto, "sample" or "tfds" by the name, or "auto" where a path is to open."""
        if self.mixture:
            return "auto"
        # The default `train` is a split, even beside a folder that happens to have its name.
        if self.kind != "auto" or (self.train != "train" and is_path(self.train)):
            return self.kind
        return "sample" if self.name.isdecimal() and int(self.name) else "tfds"

    @property
    def drawn(self) -> int:
        """Number of scenes that the run draws; 0 if it reads existing images."""
        if self.form != "sample":
            return 0
        return int(self.name) if self.name.isdecimal() else _DRAWN
