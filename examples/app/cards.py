"""Formats results of the web app as HTML, with all text escaped, and as CSV and JSON files.

    st.html(answer(result))
    st.download_button("CSV", table(results))

Nothing here depends on Streamlit.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import PIL.Image

from paligemma_lib.regions import parse_regions, without_tokens
from paligemma_lib.report.region_drawing import with_regions
from paligemma_lib.runtime.csv_cells import csv_text
from paligemma_lib.runtime.strict_json import dumps

if TYPE_CHECKING:
    from uploads import Upload

    from paligemma_lib.decode import Caption
    from paligemma_lib.regions import MaskCodec


@dataclasses.dataclass(frozen=True)
class Way:
    """Settings of a request.

    Attributes:
      prompt: prompt for the model.
      words: how words are chosen, for people, such as "beam search, 4 beams".
      length: maximal length of a caption in tokens.
      seed: seed of the random numbers.
    """

    prompt: str
    words: str
    length: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Result:
    """An image with its settings, and a model's caption or the reason why there is none.

    Attributes:
      codec: turns the codes of masks in the caption into pixels; None: only boxes are drawn.
    """

    image: Upload
    way: Way
    model: str
    caption: Caption | None
    problem: str | None
    seconds: float
    codec: MaskCodec | None = None

    @property
    def description(self) -> str:
        """Alternative text of the image, for people who cannot see it."""
        if self.caption is None:
            return self.image.name
        return f"{self.image.name}: {without_tokens(self.caption.text)}"

    @functools.cached_property
    def preview(self) -> bytes:
        """The image, with boxes and masks that the caption names: a JPEG, or b"" without one."""
        text = self.caption.text if self.caption else ""
        if not self.image.preview or not parse_regions(text):
            return self.image.preview
        file = io.BytesIO()
        with PIL.Image.open(io.BytesIO(self.image.preview), formats=("JPEG",)) as image:
            drawn = with_regions(image.convert("RGB"), text, codec=self.codec)
        drawn.save(file, "JPEG", quality=85)
        return file.getvalue()


def masthead(models: Sequence[tuple[str, str, str]]) -> str:
    """Returns the head of the page.

    Args:
      models: name, light ("busy", "failed" or "") and status of each.
    """
    told = "".join(
        f'<p role="status"><span class="light {light}" aria-hidden="true"></span>'
        f'<span class="model">{html.escape(name)}</span> {html.escape(status)}</p>'
        for name, light, status in models
    )
    return f'<header class="masthead"><h1>Captions for images</h1>{told}</header>'


def message(text: str, about: str = "", problem: bool = False, command: str = "") -> str:
    """Returns a highlighted message, with its subject before it and a command after it."""
    kind, role = ("problem", "alert") if problem else ("note", "status")
    about = f"<strong>{html.escape(about)}</strong>: " if about else ""
    command = f" <code>{html.escape(command)}</code>" if command else ""
    return f'<p class="{kind}" role="{role}">{about}{html.escape(text)}{command}</p>'


def nothing_yet() -> str:
    """Returns the placeholder that stands where captions will appear."""
    return (
        '<div class="empty"><p class="first">No captions yet</p><p>Upload an image or take a '
        "drawn sample, then press the button. Captions appear here as they are written.</p></div>"
    )


def answer(result: Result) -> str:
    """Returns the caption with its figures, and the alternatives of beam search."""
    if result.caption is None:
        return _frame(result, message(result.problem or "Stopped.", problem=True))
    caption, way = result.caption, result.way
    facts = [
        f"probability {percent(caption.probability)}",
        f"{len(caption.tokens)} token{'s' * (len(caption.tokens) > 1)}",
        way.words,
        f"prompt “{way.prompt}”",
        f"{result.seconds:.2g} s" if result.seconds < 9.5 else f"{result.seconds:.0f} s",
    ]
    items = "".join(f"<li>{html.escape(fact)}</li>" for fact in facts)
    copy = '<button class="copy" type="button">Copy</button>' if caption.text else ""
    body = f'<p class="caption">{_shown(caption.text)}</p>'
    body += f'<ul class="facts">{items}</ul>{copy}'
    if caption.alternatives:
        body += _beams([caption, *caption.alternatives])
    return _frame(result, body)


def writing(result: Result, text: str) -> str:
    """Returns a caption that is still being written."""
    return _frame(result, f'<p class="caption">{html.escape(text)}<span class="caret"></span></p>')


def table(results: Sequence[Result]) -> str:
    """Returns the captions as CSV, one row for each."""
    rows: list[list[object]] = [
        ["image", "caption", "probability", "model", "prompt", "words", "length", "seed"]
    ]
    for result in results:
        if result.caption is not None:
            caption, way = result.caption, result.way
            cells = [result.image.name, caption.text, f"{caption.probability:.6g}", result.model]
            rows.append([*cells, way.prompt, way.words, way.length, way.seed])
    return csv_text(rows)


def document(results: Sequence[Result]) -> str:
    """Returns the captions as JSON, with alternatives and log-probabilities in nats."""
    captions = [
        {
            "image": result.image.name,
            **_weighed(result.caption),
            "alternatives": [_weighed(other) for other in result.caption.alternatives],
            "model": result.model,
            **dataclasses.asdict(result.way),
            "seconds": round(result.seconds, 3),
        }
        for result in results
        if result.caption is not None
    ]
    return dumps({"captions": captions}, indent=2, ensure_ascii=False) + "\n"


def percent(probability: float) -> str:
    """Returns a probability for people: "12 %", "4.0 %", "0.34 %", "1 in 52,000"."""
    # Two digits. The thresholds are those at which rounding makes a digit more: 9.95 % is "10 %".
    if probability >= 0.001:
        return f"{100 * probability:.{(probability < 0.0995) + (probability < 0.00995)}f} %"
    if probability < 1e-12:
        return "next to nothing"
    digits = len(str(round(1 / probability))) - 2
    return f"1 in {round(1 / probability, -digits):,.0f}"


def _beams(captions: Sequence[Caption]) -> str:
    """Returns a list of captions with bars; the most probable one has the full width."""
    longest = max(caption.probability for caption in captions) or 1.0
    rows = "".join(
        f'<li><span class="words">{_shown(each.text)}</span>'
        f'<span class="share">{percent(each.probability)}</span>'
        f'<span class="bar" aria-hidden="true">'
        f'<span style="width:{100 * each.probability / longest:.1f}%"></span></span></li>'
        for each in captions
    )
    return f'<h4>Beams by probability</h4><ol class="beams">{rows}</ol>'


def _frame(result: Result, body: str) -> str:
    name, model = html.escape(result.image.name), html.escape(result.model)
    head = f'<h3 class="name">{name} <span class="by">{model}</span></h3>'
    return f'<div class="answer">{head}{body}</div>'


def _shown(text: str) -> str:
    text = without_tokens(text)  # boxes are drawn
    return html.escape(text) if text else "<em>(an empty caption)</em>"


def _weighed(caption: Caption) -> dict[str, object]:
    return {"caption": caption.text, "logprob": round(sum(caption.logprobs), 4)}
