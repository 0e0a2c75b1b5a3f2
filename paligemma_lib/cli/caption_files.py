"""Writes captions to files: JSON lines, CSV, an HTML page, a PNG sheet of images.

write_captions(Path("captions.html"), done, skipped, source, {"checkpoint": "nano"})
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from paligemma_lib.captioner import Captioned, Skipped
from paligemma_lib.data.sources import Source
from paligemma_lib.decode import Caption
from paligemma_lib.evaluation import alternatives_of, environment, image_of
from paligemma_lib.report import Example, Report, contact_sheet, write_report
from paligemma_lib.runtime.atomic import atomic_write

_SHOWN = 48  # images on a page or a sheet


def write_captions(
    path: Path,
    done: Sequence[Captioned],
    skipped: Sequence[Skipped],
    source: Source,
    asked: Mapping[str, object],
) -> None:
    """Writes a file in the format of its suffix.

    Args:
      path: ends in .jsonl, .csv, .png or .html.
      done: images with their captions.
      skipped: images that could not be read; only a page lists them.
      source: the images themselves, for a page or a sheet.
      asked: options of the command, which a page lists.
    """
    if path.suffix == ".html":
        write_report(path, _report(done, skipped, source, asked), images=_SHOWN)
        return
    with atomic_write(path) as file:
        file.write(_CONTENTS[path.suffix](done, source))


def _json_lines(done: Sequence[Captioned], source: Source) -> bytes:
    """Returns one JSON line for each image, with log-probabilities in nats."""
    lines = []
    for result in done:
        caption, *others = _weighed(result.caption)
        lines.append(json.dumps({"image": result.image_id, **caption, "alternatives": others}))
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


def _table(done: Sequence[Captioned], source: Source) -> bytes:
    """Returns CSV in the layout of captions.txt in Kaggle's Flickr8k."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image", "caption"])
    rows.writerows((result.image_id, result.caption.text) for result in done)
    return text.getvalue().encode("utf-8")


def _sheet(done: Sequence[Captioned], source: Source) -> bytes:
    """Returns a PNG of the first images with their captions."""
    file = io.BytesIO()
    shown = [(image_of(source, each.number), each.caption.text) for each in done[:_SHOWN]]
    contact_sheet(shown).save(file, "PNG")
    return file.getvalue()


def _report(
    done: Sequence[Captioned],
    skipped: Sequence[Skipped],
    source: Source,
    asked: Mapping[str, object],
) -> Report:
    """Returns the contents of an HTML page."""
    examples = [
        Example(
            each.image_id,
            image_of(source, each.number),
            each.caption.text,
            references=each.references,
            alternatives=alternatives_of(each.caption),
        )
        for each in done
    ]
    return Report(
        f"Captions of {len(done):,} images",
        subtitle=str(asked["checkpoint"] or "nano"),
        warnings=[f"Skipped {each.where}: {each.problem}" for each in skipped],
        examples=examples,
        config={name: value for name, value in asked.items() if value not in (None, [])},
        environment=environment(),
    )


def _weighed(caption: Caption) -> list[dict[str, object]]:
    return [
        {"caption": each.text, "logprob": round(sum(each.logprobs), 4)}
        for each in (caption, *caption.alternatives)
    ]


_CONTENTS: dict[str, Callable[[Sequence[Captioned], Source], bytes]] = {
    ".jsonl": _json_lines,
    ".csv": _table,
    ".png": _sheet,
}
