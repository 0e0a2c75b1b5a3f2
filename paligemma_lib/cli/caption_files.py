"""Writes captions to files: JSON lines, CSV, Parquet, an HTML page, a PNG sheet of images.

write_captions(Path("captions.html"), done, skipped, source, {"checkpoint": "nano"})
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from paligemma_lib.captioner import Captioned, Skipped
from paligemma_lib.data.sources import Source
from paligemma_lib.decode import Caption
from paligemma_lib.evaluation import alternatives_of, environment, image_of
from paligemma_lib.regions import MaskCodec
from paligemma_lib.report import Example, Report, contact_sheet, write_report
from paligemma_lib.runtime.atomic import atomic_write
from paligemma_lib.runtime.csv_cells import csv_text
from paligemma_lib.runtime.strict_json import dumps

_SHOWN = 48  # images on a page or a sheet


def write_captions(
    path: Path,
    done: Sequence[Captioned],
    skipped: Sequence[Skipped],
    source: Source,
    asked: Mapping[str, object],
    codec: MaskCodec | None = None,
) -> None:
    """Writes a file in the format of its suffix.

    Args:
      path: ends in .jsonl, .csv, .parquet, .png or .html.
      done: images with their captions.
      skipped: images that could not be read; only a page lists them.
      source: the images themselves, for a page or a sheet.
      asked: options of the command, which a page lists.
      codec: turns the codes of masks into pixels, for a page or a sheet; None: boxes are drawn.
    """
    if path.suffix == ".html":
        write_report(path, _report(done, skipped, source, asked, codec), images=_SHOWN)
        return
    is_sheet = path.suffix == ".png"
    contents = _sheet(done, source, codec) if is_sheet else _CONTENTS[path.suffix](done)
    with atomic_write(path) as file:
        file.write(contents)


def _json_lines(done: Sequence[Captioned]) -> bytes:
    """Returns one JSON line for each image, with log-probabilities in nats."""
    lines = []
    for result in done:
        caption, *others = _weighed(result.caption)
        by = {"adapter": result.adapter} if result.adapter else {}
        lines.append(dumps({"image": result.image_id, **by, **caption, "alternatives": others}))
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


def _table(done: Sequence[Captioned]) -> bytes:
    """Returns CSV in the layout of captions.txt in Kaggle's Flickr8k, guarded against formulas.

    Where adapters have names, they have a third column.
    """
    rows = [["image", "caption"], *([each.image_id, each.caption.text] for each in done)]
    if any(each.adapter for each in done):
        names = ["adapter", *(each.adapter or "" for each in done)]
        rows = [[*row, name] for row, name in zip(rows, names, strict=True)]
    # A file name may hold bytes that are no text, which Python keeps as unpaired surrogates.
    return csv_text(rows).encode("utf-8", "backslashreplace")


def _parquet(done: Sequence[Captioned]) -> bytes:
    """Returns Parquet with the columns image, caption, logprob and alternatives.

    Where adapters have names, they have a fifth column.
    """
    import pyarrow
    import pyarrow.parquet

    weighed = [_weighed(each.caption) for each in done]
    one = {"caption": pyarrow.string(), "logprob": pyarrow.float64()}
    kinds = {"image": pyarrow.string(), **one, "alternatives": pyarrow.list_(pyarrow.struct(one))}
    # A file name may hold bytes that are no text, as for a table.
    names = [each.image_id.encode("utf-8", "backslashreplace").decode() for each in done]
    columns = {
        "image": names,
        "caption": [best["caption"] for best, *_ in weighed],
        "logprob": [best["logprob"] for best, *_ in weighed],
        "alternatives": [others for _, *others in weighed],
    }
    if any(each.adapter for each in done):
        kinds["adapter"] = pyarrow.string()
        columns["adapter"] = [each.adapter or "" for each in done]
    table = pyarrow.table(columns, schema=pyarrow.schema(list(kinds.items())))
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file)
    return file.getvalue()


def _sheet(done: Sequence[Captioned], source: Source, codec: MaskCodec | None) -> bytes:
    """Returns a PNG of the first images with their captions."""
    file = io.BytesIO()
    shown = [(image_of(source, each.number), _titled(each)) for each in done[:_SHOWN]]
    contact_sheet(shown, codec=codec).save(file, "PNG")
    return file.getvalue()


def _report(
    done: Sequence[Captioned],
    skipped: Sequence[Skipped],
    source: Source,
    asked: Mapping[str, object],
    codec: MaskCodec | None,
) -> Report:
    """Returns the contents of an HTML page."""
    examples = [
        Example(
            each.image_id,
            image_of(source, each.number),
            _titled(each),
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
        codec=codec,
        config={name: value for name, value in asked.items() if value not in (None, [])},
        environment=environment(),
    )


def _titled(result: Captioned) -> str:
    """Returns a caption behind the name of its adapter, if it has one."""
    return f"{result.adapter}: {result.text}" if result.adapter else result.text


def _weighed(caption: Caption) -> list[dict[str, object]]:
    return [
        {"caption": each.text, "logprob": round(sum(each.logprobs), 4)}
        for each in (caption, *caption.alternatives)
    ]


_CONTENTS: dict[str, Callable[[Sequence[Captioned]], bytes]] = {
    ".jsonl": _json_lines,
    ".csv": _table,
    ".parquet": _parquet,
}
