"""A report with something in every part, and a reader of pages."""

from html.parser import HTMLParser

import numpy as np

from paligemma_lib.report import (
    Alternative,
    Chart,
    Example,
    Line,
    ParameterGroup,
    Report,
    Score,
)

HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>&'\""
)
VOID = {"meta", "img", "br", "hr", "link", "input"}


def image(seed: int = 0, height: int = 60, width: int = 80) -> np.ndarray:
    """uint8[H, W, 3] of noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def examples(count: int) -> list[Example]:
    """Example k is named after k and has the score k / 10."""
    return [
        Example(f"{k}.jpg", image(k), f"caption {k}", scores={"CIDEr": k / 10})
        for k in range(count)
    ]


def full_report() -> Report:
    """Every part there is, with hostile text in every place that takes text."""
    steps = list(range(1, 301))
    return Report(
        f"Title {HOSTILE}",
        subtitle=f"Subtitle {HOSTILE}",
        summary=[f"Lead {HOSTILE}", f"Sentence {HOSTILE}"],
        warnings=[f"Warning {HOSTILE}"],
        scores=[
            Score("CIDEr", 87.3, 83.9, 90.8, before=12.4, permuted=7.9, note=f"Note {HOSTILE}"),
            Score(f"Score {HOSTILE}", 0.271),
        ],
        score_label=f"Now {HOSTILE}",
        before_label=f"Then {HOSTILE}",
        examples=[
            Example(
                f"Name {HOSTILE}",
                image(),
                f"Caption {HOSTILE}",
                before=f"Former {HOSTILE}",
                references=[f"Reference {HOSTILE}"],
                alternatives=[Alternative(f"Alternative {HOSTILE}", 0.25)],
                scores={"CIDEr": 1.5, f"Example score {HOSTILE}": 2.0},
            ),
            *examples(20),
        ],
        rank_by="CIDEr",
        charts=[
            Chart(
                f"Chart {HOSTILE}",
                [
                    Line(f"Line {HOSTILE}", steps, [5 / x + (x % 2) for x in steps]),
                    Line("validation", steps[49::50], [6 / x for x in steps[49::50]]),
                ],
                unit=f"Unit {HOSTILE}",
                x_name=f"Axis {HOSTILE}",
            ),
            Chart("Throughput", [Line("training", steps, [40.0] * 300)], from_zero=True),
        ],
        parameters=[
            ParameterGroup(f"Group {HOSTILE}", 4, 250, trainable=True),
            ParameterGroup("rest", 6, 750, trainable=False),
        ],
        config={f"Key {HOSTILE}": f"Value {HOSTILE}", "optimizer": {"rate": 5e-5}},
        environment={f"Tool {HOSTILE}": f"Version {HOSTILE}"},
        files={f"File {HOSTILE}": f"/Path {HOSTILE}"},
    )


class Page(HTMLParser):
    """What a browser would make of a page: elements with attributes, and text; checks nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice: {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    def all(self, tag: str, class_: str = "") -> list[dict[str, str | None]]:
        """Attributes of the elements with this tag and, if given, this class."""
        found = [attributes for name, attributes in self.elements if name == tag]
        return [a for a in found if not class_ or class_ in (a.get("class") or "").split()]
