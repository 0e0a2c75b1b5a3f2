"""Reads the forms of caption tables, each as rows of an image and a caption.

for row in READERS["jsonl"](data, Columns()):
    row.image, row.caption, row.prefix, row.split, row.place, row.problem

A row that cannot be used is a row with a `problem`. A table is an error as a whole if its rows
cannot be told apart: it has no usable header, another encoding, an open quote, or is no JSON.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import pyarrow.parquet as pq

from paligemma_lib.data.sources.arrow_errors import UnreadableBlock, arrow_errors
from paligemma_lib.data.sources.coco_boxes import box_rows
from paligemma_lib.data.sources.coco_forms import coco_rows, karpathy_rows
from paligemma_lib.data.sources.json_forms import (
    PREFIX_KEYS,
    Columns,
    Row,
    damaged,
    json_rows,
    jsonl_rows,
    rows_of,
)
from paligemma_lib.data.sources.parquet_file import unpacked_size
from paligemma_lib.data.sources.token_table import token_rows
from paligemma_lib.data.text import decoded, lines_of

IMAGE_COLUMNS = ("image", "file_name", "filename", "image_name", "image_path", "path", "image_id")
CAPTION_COLUMNS = ("caption", "text", "suffix", "caption_text", "comment", "raw", "answer", "label")
_FLICKR30K = ["image_name", "comment_number", "comment"]
MAX_TABLE_BYTES = 4 << 30
_MAX_HEADER = 10_000  # characters


class Layout(NamedTuple):
    """Layout of a delimited table: its delimiter, and its columns; "" for one that is not there."""

    delimiter: str
    image: str
    caption: str
    prefix: str
    split: str


def captions_txt_rows(data: bytes, columns: Columns) -> Iterator[Row]:
    """Reads rows from the table of Kaggle's Flickr8k: a header image,caption and one per line."""
    del columns
    for number, line in enumerate(lines_of(data) or [""], start=1):
        # Each line is parsed by itself. With the whole file, csv would take all lines after an
        # unclosed quote for one cell.
        try:
            cells = next(csv.reader([line], strict=True), [])
            if number == 1:
                if [cell.strip() for cell in cells] != ["image", "caption"]:
                    raise ValueError(f"{cells} is not the header image,caption")
                continue
            if len(cells) != 2 or not all(cell.strip() for cell in cells):
                raise ValueError(f"{str(cells)[:200]} is not one image and one caption")
        except (ValueError, csv.Error) as error:
            problem = (
                f"line {number}: {error}. Correct it, or build flickr8k_tfds, which leaves broken "
                "rows out and lists them"
            )
            if number == 1:
                raise ValueError(problem) from error
            yield damaged(problem, f"line {number}")
        else:
            yield Row(cells[0], cells[1], None, "", f"line {number}")


def delimited_rows(data: bytes, columns: Columns) -> Iterator[Row]:
    """Reads rows from CSV or TSV with a header, such as Flickr30k's results.csv.

    Quoted cells may span several lines.
    """
    text = decoded(data)
    layout = layout_of(text, columns)
    # Flickr30k's table is delimited by "|", and its quotes are ordinary characters. With
    # `newline=""`, csv itself handles line breaks, as it must for those in quoted cells.
    file = io.StringIO(text, newline="")
    rows = csv.reader(
        file,
        delimiter=layout.delimiter,
        quoting=csv.QUOTE_NONE if layout.delimiter == "|" else csv.QUOTE_MINIMAL,
        strict=True,  # else an open quote takes all lines after it for one cell
    )
    place = "line 1"
    try:
        # Blank lines may come first, as `layout_of` allows.
        first = next((row for row in rows if any(map(str.strip, row))), [])
        header = [cell.strip() for cell in first]
        width, is_flickr30k = len(header), header == _FLICKR30K
        if lacking := {*filter(None, layout[1:])} - {*header}:
            raise ValueError(f"line 1 is not a header: it has no column {min(lacking)[:80]!r}")
        # Of columns with the same name, the first is used.
        at = [header.index(name) if name else None for name in layout[1:]]
        for row in rows:
            place = f"line {rows.line_num}"
            row = _with_delimiter(row) if is_flickr30k else row
            if len(row) > width and any(cell.strip() for cell in row[width:]):
                problem = (
                    f"{place} has {len(row)} cells, the header {width}: put a caption that "
                    f"contains {layout.delimiter!r} in double quotes"
                )
                yield damaged(problem, place)
                continue
            image, caption, prefix, split = (
                None if index is None or index >= len(row) else row[index].strip() for index in at
            )
            prefix, split = prefix or None, split or ""
            if not (image or caption or any(map(str.strip, row))):
                continue
            if not image or caption is None:
                problem = f"{place}: {str(row)[:200]} has no image, or no caption"
                yield damaged(problem, place, split)
            elif not caption:
                yield damaged(f"{place}: the caption of {image!r} is empty", place, split)
            else:
                yield Row(image, caption, prefix, split, place)
    except csv.Error as error:
        raise ValueError(
            f"after {place}: {error}. Close each quote, and double those within a quoted cell"
        ) from error


def layout_of(text: str, columns: Columns) -> Layout:
    """Recognises delimiter and columns by the header. Raises ValueError if it cannot."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    if len(header) > _MAX_HEADER:
        raise ValueError(f"line 1 is not a header: it has {len(header):,} characters")
    # The delimiter is the most frequent of these characters in the header.
    delimiter = max("\t|;,", key=header.count)
    try:
        names = [cell.strip() for cell in next(csv.reader([header], delimiter=delimiter), [])]
    except csv.Error as error:
        raise ValueError(f"line 1 is not a header: {error}") from error
    image = _column(names, columns.image, IMAGE_COLUMNS, "image")
    caption = _column(names, columns.caption, CAPTION_COLUMNS, "caption")
    prefix = _column(names, columns.prompt, PREFIX_KEYS)
    split = _column(names, columns.split, ("split",))
    return Layout(delimiter, image, caption, prefix, split)


def _with_delimiter(row: list[str]) -> list[str]:
    # One row of Flickr30k's own table lacks a delimiter: "2199200615.jpg| 4   A dog runs ...".
    found = re.fullmatch(r"\s*(\d+)\s{2,}(\S.*)", row[1]) if len(row) == 2 else None
    return [row[0], found[1], found[2]] if found else row


def parquet_rows(data: bytes, columns: Columns) -> Iterator[Row]:
    """Reads rows from a Parquet table of names of images, such as imagefolder's metadata."""
    try:
        with arrow_errors():
            file = pq.ParquetFile(io.BytesIO(data))
            if (size := unpacked_size(file.metadata)) > MAX_TABLE_BYTES:
                raise UnreadableBlock(f"it unpacks to {size:,} bytes")
            rows = file.read(use_threads=False).to_pylist()
    except UnreadableBlock as error:
        raise ValueError(f"it is not a complete Parquet file: {error}") from error
    yield from rows_of(((f"row {number}", found) for number, found in enumerate(rows)), columns)


def _column(names: list[str], wanted: str, usual: tuple[str, ...], what: str = "") -> str:
    """Returns the column that is wanted, or a usual one; "" if there is none and `what` is ""."""
    if wanted:
        if wanted not in names:
            raise ValueError(f"line 1 has no column {wanted!r}, only {', '.join(names)[:200]}")
        return wanted
    by_lower = {name.lower(): name for name in names}
    found = [by_lower[name] for name in usual if name in by_lower]
    # Whole names are compared: Flickr30k has the columns image_name, comment_number and comment.
    if not found and what:
        raise ValueError(
            f"line 1: no {what} column found among {', '.join(names)[:200]}. Name it as "
            f"{what}_column, or rename it to {what}"
        )
    return found[0] if found else ""


READERS: Mapping[str, Callable[[bytes, Columns], Iterator[Row]]] = {
    "captions.txt": captions_txt_rows,
    "delimited": delimited_rows,
    "tokens": token_rows,
    "parquet": parquet_rows,
    "jsonl": jsonl_rows,
    "json": json_rows,
    "coco": coco_rows,
    "coco_boxes": box_rows,
    "karpathy": karpathy_rows,
}
