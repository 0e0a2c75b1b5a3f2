"""Defines the contents of a report, apart from its layout. All parts but the title are optional.

Report("Before and after", scores=[Score("BLEU-4", 21.3, low=19.8, high=22.9, before=2.0)])
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from paligemma_lib.regions import MaskCodec
from paligemma_lib.report.thumbnails import ImageLike
from paligemma_lib.runtime.bounds import real, whole

MAX_LINES = 3  # per chart; more are hard to tell apart on a phone, in both colour schemes


@dataclass(frozen=True)
class Score:
    """One row of the table of scores.

    Attributes:
      name: name of the metric, such as "CIDEr".
      value: the score, on the metric's own scale; NaN where it could not be computed.
      low, high: bounds of the confidence interval, both or neither.
      before: the same score of the other set of captions; see `Report.before_label`.
      permuted: the same score when every caption is compared with another image's references,
        which is what the captions score without looking at the image.
      note: a few words on what the score measures.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    before: float | None = None
    permuted: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"score {self.name!r} has only one bound: give both low and high")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"score {self.name!r}: low={self.low} is above high={self.high}")


@dataclass(frozen=True)
class Alternative:
    """Another caption that the decoder considered, with its probability, 0 to 1."""

    text: str
    probability: float

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(
                f"the alternative {self.text!r} has probability {self.probability}, expected 0 to "
                "1; take the exponential of a log-probability"
            )


@dataclass(frozen=True)
class Example:
    """An image with its captions.

    Attributes:
      image_id: name of the image, such as its file name.
      image: the image; see `paligemma_lib.report.thumbnails.ImageLike`. Opened only if it is shown.
      caption: the generated caption.
      before: the caption of the other set of captions; see `Report.before_label`.
      references: human-written captions.
      alternatives: other captions that the decoder considered, best first.
      remark: what is to be said of the generated caption, such as which words are not true.
      scores: name -> value, scores of this image.
    """

    image_id: str
    image: ImageLike
    caption: str
    before: str | None = None
    references: Sequence[str] = ()
    alternatives: Sequence[Alternative] = ()
    remark: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_texts(f"references of {self.image_id!r}", self.references)


@dataclass(frozen=True)
class Line:
    """Values over steps: `y[k]` at `x[k]`, with `x` increasing. `y` may be NaN or infinite."""

    name: str
    x: Sequence[float]
    y: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(
                f"line {self.name!r} has {len(self.x)} x values and {len(self.y)} y values"
            )
        ordered = all(a < b for a, b in itertools.pairwise(self.x))
        if not ordered or not all(map(math.isfinite, self.x)):
            raise ValueError(f"the x values of line {self.name!r} must be finite and increasing")


@dataclass(frozen=True)
class Chart:
    """Lines over the same x, such as training and validation loss.

    Attributes:
      title: heading, such as "Loss".
      lines: one to three lines.
      unit: unit of y, such as "nats per token".
      x_name: name of what x counts.
      from_zero: whether the y axis includes 0, as it should for rates and shares.
    """

    title: str
    lines: Sequence[Line]
    unit: str = ""
    x_name: str = "step"
    from_zero: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.lines) <= MAX_LINES:
            raise ValueError(
                f"chart {self.title!r} has {len(self.lines)} lines, expected 1 to {MAX_LINES}: "
                "split it"
            )


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained or frozen together: `tensors` arrays of `parameters` numbers."""

    name: str
    tensors: int
    parameters: int
    trainable: bool

    def __post_init__(self) -> None:
        whole(f"group {self.name!r}: tensors", self.tensors, 0)
        whole(f"group {self.name!r}: parameters", self.parameters, 0)


@dataclass(frozen=True)
class Report:
    """Everything on the page, in the order of the page. Empty parts are left out.

    Attributes:
      title: heading of the page.
      subtitle: a line below the title, such as date, data and checkpoint.
      summary: the results, in sentences; the first sentence stands out.
      warnings: what a reader must know before believing the scores.
      scores: rows of the table of scores.
      score_label, before_label: names of the captions that `Score.value` and `before` belong to.
      confidence: level of the intervals.
      examples: all examples; `write_report` takes the number that is shown.
      rank_by: name of an example score, higher is better. The best and the worst are shown first.
      codec: turns the codes of masks in captions into pixels; None: only boxes are drawn.
      charts: curves of the training run.
      parameters: groups of trained and frozen parameters.
      config, environment: name -> value; nested mappings become dotted names.
      files: description -> path.
    """

    title: str
    subtitle: str = ""
    summary: Sequence[str] = ()
    warnings: Sequence[str] = ()
    scores: Sequence[Score] = ()
    score_label: str = "Score"
    before_label: str = "Before"
    confidence: float = 0.95
    examples: Sequence[Example] = ()
    rank_by: str = ""
    codec: MaskCodec | None = None
    charts: Sequence[Chart] = ()
    parameters: Sequence[ParameterGroup] = ()
    config: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        real("report: confidence", self.confidence, above=0, below=1)
        _check_texts("summary", self.summary)
        _check_texts("warnings", self.warnings)
        known = sorted({name for example in self.examples for name in example.scores})
        if self.rank_by and self.examples and self.rank_by not in known:
            raise ValueError(f"rank_by={self.rank_by!r}, but the examples have scores {known}")


def _check_texts(name: str, texts: Iterable[str]) -> None:
    # A str is a sequence of its characters, which would become one list item each.
    if isinstance(texts, str):
        raise ValueError(f"{name} must be a sequence of strings, got a string: {texts[:60]!r}")
