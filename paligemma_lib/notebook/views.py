"""Shows training progress, the attention mask, and what fits into memory, in a notebook.

with Live(total_steps) as live, pg.train.Progress(..., trackers=[live]) as progress: ...
mask(batch, tokenizer)                         # as the last line of a cell
lines(pg.batch.describe(batch, tokenizer))     # likewise
print(what_fits({"a T4": 15 << 30}))
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

import paligemma_lib as pg
from paligemma_lib.batch import Batch, attention_mask
from paligemma_lib.report import Chart, Line
from paligemma_lib.report.markup import element, to_html
from paligemma_lib.report.thumbnails import data_uri, thumbnail
from paligemma_lib.report.training import charts_section
from paligemma_lib.runtime.sizes import gib
from paligemma_lib.tokenizer import Tokenizer

JOBS = (  # model, pixels, trained parts
    ("paligemma_3b", 224, "attention"),
    ("paligemma_3b", 448, "attention"),
    ("paligemma2_3b", 224, "attention"),
    ("paligemma_3b", 224, "llm"),
)
AT_A_TIME = (1, 10)  # batch sizes
USABLE = 0.94  # usable share of a device's memory, see machine.py

_BETWEEN_DRAWINGS = 2.0  # seconds
_CELL = 13  # pixels
_MARGIN = 96  # pixels, for tokens


@dataclasses.dataclass(frozen=True)
class View:
    """HTML that a notebook shows as the value of a cell."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


def lines(text: str) -> View:
    """Returns a view of text in a scrolling box, without wrapping its lines."""
    return View(_view(element("pre", {"tabindex": 0}, text)))


class Live:
    """Tracker that draws the loss and the captions of a run, and updates them in place.

    As a context manager, it draws the final state on exit.
    """

    def __init__(self, total_steps: int) -> None:
        self._total = total_steps
        self._values: dict[str, dict[int, float]] = {}  # name -> step -> value
        self._images: dict[str, str] = {}  # image id -> data URI
        self._captions: dict[str, dict[int, str]] = {}  # image id -> step -> caption
        self._handle: Any = None
        self._drawn = 0.0

    def __enter__(self) -> Live:
        from IPython.display import display  # notebooks have IPython; tests may not

        self._handle = display(self, display_id=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._draw()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._values.setdefault(name, {})[step] = value
        if time.monotonic() - self._drawn > _BETWEEN_DRAWINGS:
            self._draw()

    def caption(self, image_id: str, image: np.ndarray, caption: str, step: int) -> None:
        self._images.setdefault(image_id, data_uri(thumbnail(image, 224)))
        self._captions.setdefault(image_id, {})[step] = caption

    def close(self) -> None:
        self._draw()

    def _draw(self) -> None:
        if self._handle is not None:
            self._handle.update(self)
            self._drawn = time.monotonic()

    def _repr_html_(self) -> str:
        lines = [
            Line(name, list(values), list(values.values()))
            for name, tag in (("training", "loss"), ("validation", "validation_loss"))
            if (values := self._values.get(tag))
        ]
        if not lines:
            return _view(element("p", {}, "The first step compiles the model."))
        done = max(self._values["loss"], default=-1) + 1
        speed = [*self._values.get("captions_per_second", {}).values()][-1:]
        said = f"step {done} of {self._total}" + "".join(f", {s:,.0f} captions/s" for s in speed)
        shown = [
            element("div", {}, element("img", {"src": uri, "alt": image_id}), self._told(image_id))
            for image_id, uri in self._images.items()
        ]
        return _view(
            *charts_section([Chart("Loss", lines, "nats per token")]),
            element("p", {}, said),
            element("div", {"class": "captions"}, *shown),
        )

    def _told(self, image_id: str) -> Element:
        captions = self._captions.get(image_id, {})
        return element(
            "ol",
            {},
            *(
                element("li", {}, element("small", {}, f"step {step}"), f" {caption}")
                for step, caption in captions.items()
            ),
        )


def mask(batch: Batch, tokenizer: Tokenizer, example: int = 0, suffixes: int = 2) -> View:
    """Returns a view of the attention mask of an example: each row attends to the marked columns.

    All positions of the image share one row and one column, since their attention is the same.

    Args:
      batch: a batch as `paligemma_lib.batch` defines it.
      tokenizer: tokenizer of the batch.
      example: index of the example.
      suffixes: number of captions to show.
    """
    text, segment, position = (batch[key][example] for key in ("text", "segment", "position"))
    positions = np.flatnonzero((segment >= 0) & (segment <= suffixes))
    sees = attention_mask(segment[positions], position[positions], num_image_tokens=1)
    names = ["image", *(tokenizer.piece(int(token)) for token in text[positions])]
    kinds = ["image", *("prefix" if s == 0 else f"suffix-{s}" for s in segment[positions])]
    side = _MARGIN + len(names) * _CELL
    parts = []
    for k, name in enumerate(names):
        middle = _MARGIN + (k + 0.75) * _CELL
        turned = f"translate({middle} {_MARGIN - 6}) rotate(-90)"
        parts.append(element("text", {"transform": turned}, name))
        here = {"x": _MARGIN - 6, "y": middle, "text-anchor": "end"}
        parts.append(element("text", here, name))
    for row, column in np.argwhere(sees):
        place = {"x": _MARGIN + column * _CELL, "y": _MARGIN + row * _CELL}
        size = {"width": _CELL - 1, "height": _CELL - 1}
        parts.append(element("rect", {"class": kinds[column], **place, **size}))
    label = f"{len(names)} positions attend to the filled columns, all to the image and the prompt"
    box = {"viewBox": f"0 0 {side} {side}", "width": side, "role": "img", "aria-label": label}
    return View(_view(element("svg", box, *parts)))


def what_fits(memories: Mapping[str, int]) -> str:
    """Returns a table of the parts of large models that can be trained in the given memory.

    Frozen parameters and activations are in float16, the backward pass recomputes blocks, the
    optimizer is AdamW, and a text has 128 positions: see `pg.train.bytes_needed`.

    Args:
      memories: name of a device -> bytes of its memory.
    """
    optimizer = pg.train.make_optimizer("adamw", learning_rate=5e-5, total_steps=1)
    rows = [f"{'model':<22}{'trains':<10}{'at a time':>10}{'needed':>10}"]
    rows[0] += "".join(f"  {name:>14}" for name in memories)
    for name, pixels, trainable in JOBS:
        config = getattr(pg.model.variants, name)(pixels)
        config = dataclasses.replace(config, dtype="float16", remat="full")
        for images in AT_A_TIME:
            needed = pg.train.bytes_needed(
                config,
                optimizer,
                trainable=trainable,
                batch_size=images,
                text_len=128,
                frozen_dtype="float16",
            )
            row = f"{f'{name} at {pixels}':<22}{trainable:<10}{images:>10}"
            row += f"{gib(needed):>10}"
            for memory in memories.values():
                row += f"  {'fits' if needed < USABLE * memory else 'does not fit':>14}"
            rows.append(row)
    return "\n".join(rows)


def _view(*parts: Element) -> str:
    style = Path(__file__).with_suffix(".css").read_text("utf-8")
    return to_html(element("div", {"class": "view"}, element("style", {}, style), *parts))
