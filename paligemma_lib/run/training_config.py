"""Defines the options of what trains and how: the model, adapter, stages, optimizer and reward.

`config.RunConfig` holds them.
"""

from typing import Annotated, Literal

from pydantic import Field

from paligemma_lib.decode.samplers import MAX_ROWS
from paligemma_lib.model.variants import Dtype, Name, Remat
from paligemma_lib.quantized import Kind
from paligemma_lib.run import options
from paligemma_lib.run.dotted import NameOrDotted
from paligemma_lib.run.options import Names, Place
from paligemma_lib.train import optimizer


@options.config
class ModelConfig:
    """The model, its checkpoint, and its dtypes."""

    checkpoint: Place = ""
    """weights: .npz, safetensors, gs://, the Hub, Kaggle, nano; empty: a new model"""
    name: Name = "nano"
    """size of a new model, if no checkpoint is given"""
    tokenizer: Place = ""
    """SentencePiece file; empty: the checkpoint's, or PaliGemma's"""
    vocab_size: int = Field(default=0, ge=0, le=1 << 20)
    """vocabulary size of a tokenizer to train on the captions, for a new model; 0: none"""
    image_size: int = Field(default=0, ge=0, le=1 << 13)
    """side in pixels; 0: the model's own"""
    dtype: Dtype = "float32"
    """type of activations"""
    frozen_dtype: Literal["", Dtype, Kind] = ""
    """type of parameters that never train, or int8 or nf4 for matrices; empty: as stored"""
    remat: Remat = "dots"
    """what the backward pass recomputes: nothing, all but products with weights, all"""


@options.config
class StageConfig:
    """A stage of training: which parameters train from a given step on."""

    from_step: int = Field(default=0, ge=0, lt=2**31)
    """first step of the stage"""
    trainable: Names = ("attention",)
    """attention, llm, vision, projector, all, lora, or regular expressions for names"""
    top_layers: int = Field(default=0, ge=0, le=1000)
    """train only this many of the top layers; 0: all"""


@options.config
class LoraConfig:
    """A low-rank adapter beside the weights (LoRA); trains where a stage's trainable has lora."""

    rank: int = Field(default=0, ge=0, le=1 << 12)
    """rank of the adapter; 0: there is none"""
    alpha: float = Field(default=16.0, gt=0, le=1e6)
    """strength: what the adapter computes is multiplied by alpha / rank"""
    targets: Names = ("attention",)
    """products: attention, mlp, llm, vision, projector, all-linear, or regular expressions"""
    rslora: bool = False
    """multiply by alpha / sqrt(rank) instead"""
    dora: bool = False
    """train the norms of weights, too (DoRA)"""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """share of the adapter's inputs that are zeroed while it trains"""


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
    weight_decay: float = Field(default=0.0, ge=0, le=1e6)
    """decoupled weight decay: a step subtracts rate * weight_decay * weight"""
    clip_norm: float = Field(default=1.0, ge=0)
    """clip gradients to this global norm; 0: do not clip"""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """decay of a moving average of what trains, which is then validated and exported; 0: none"""


@options.config
class RewardConfig:
    """Self-critical training: the model's own captions, by how much each is worth."""

    name: Annotated[str, NameOrDotted("", "cider", "truth", "length")] = ""
    """cider, truth (of drawn scenes), length, or package.module:name; empty: train on captions"""
    samples: int = Field(default=5, ge=2, le=MAX_ROWS)
    """captions that are sampled of each image; each is compared with the mean of all"""
    temperature: float = Field(default=1.0, gt=0, le=100)
    """temperature of the sampling"""
    kl: float = Field(default=0.0, ge=0, le=1e6)
    """penalty on leaving the model of the start, in units of reward per nat"""
