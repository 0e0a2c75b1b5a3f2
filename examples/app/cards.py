"""Formats results of the web app as HTML, with all text escaped, and as CSV and JSON files.

    st.html(answer(result))
    st.download_button("CSV", table(results))

Nothing here depends on Streamlit.
"""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uploads import Upload

    from paligemma_lib.decode import Caption


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
    """An image with its settings, and the caption or the reason why there is none."""

    image: Upload
    way: Way
    caption: Caption | None
    problem: str | None
    seconds: float

    @property
    def description(self) -> str:
        """Alternative text of the image, for people who cannot see it."""
        if self.caption is None:
            return self.image.name
        return f"{self.image.name}: {self.caption.text}"


def masthead(model: str, light: str, status: str) -> str:
    """Returns the head of the page; `light` is "busy", "failed" or ""."""
    return (
        '<header class="masthead"><h1>Captions for images</h1><p role="status">'
        f'<span class="light {light}" aria-hidden="true"></span>'
        f'<span class="model">{html.escape(model)}</span> {html.escape(status)}</p></header>'
    )


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
        return _frame(result.image.name, message(result.problem or "Stopped.", problem=True))
    caption, way = result.caption, result.way
    facts = [
        f"probability {percent(caption.probability)}",
        f"{len(caption.tokens)} token{'s' * (len(caption.tokens) > 1)}",
        way.words,
        f"prompt “{way.prompt}”",
        f"{result.seconds:.2g} s" if result.seconds < 9.5 else f"{result.seconds:.0f} s",
    ]
    items = "".join(f"<li>{html.escape(fact)}</li>" for fact in facts)
    body = f'<p class="caption">{_shown(caption.text)}</p><ul class="facts">{items}</ul>'
    if caption.alternatives:
        body += _beams([caption, *caption.alternatives])
    return _frame(result.image.name, body)


def writing(name: str, text: str) -> str:
    """Returns a caption that is still being written."""
    return _frame(name, f'<p class="caption">{html.escape(text)}<span class="caret"></span></p>')


def table(results: Sequence[Result]) -> str:
    """Returns the captions as CSV, one row for each."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image", "caption", "probability", "prompt", "words", "length", "seed"])
    for result in results:
        if result.caption is not None:
            caption, way = result.caption, result.way
            cells = [result.image.name, caption.text, f"{caption.probability:.6g}", way.prompt]
            rows.writerow([*map(_no_formula, cells), way.words, way.length, way.seed])
    return text.getvalue()


def document(results: Sequence[Result], model: str) -> str:
    """Returns the captions as JSON, with alternatives and log-probabilities in nats."""
    captions = [
        {
            "image": result.image.name,
            **_weighed(result.caption),
            "alternatives": [_weighed(other) for other in result.caption.alternatives],
            **dataclasses.asdict(result.way),
            "seconds": round(result.seconds, 3),
        }
        for result in results
        if result.caption is not None
    ]
    return json.dumps({"model": model, "captions": captions}, indent=2, ensure_ascii=False) + "\n"


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


def _frame(name: str, body: str) -> str:
    return f'<div class="answer"><h3 class="name">{html.escape(name)}</h3>{body}</div>'


def _shown(text: str) -> str:
    return html.escape(text) if text else "<em>(an empty caption)</em>"


def _weighed(caption: Caption) -> dict[str, object]:
    return {"caption": caption.text, "logprob": round(sum(caption.logprobs), 4)}


def _no_formula(cell: str) -> str:
    """Returns the cell, with a quote before what a spreadsheet would take for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
