"""Parses caption tables in the two forms of Flickr8k, and lists the rows that it leaves out.

    table = parse_csv(data, where="captions.txt")      # Kaggle:  image,caption
    table = parse_tokens(data, where="Flickr8k.token.txt")  # UIUC:  image#0<TAB>caption
    table.captions["1000268201_693b08cb0e.jpg"]         # all captions, in their order

Nothing is guessed: an incomplete row is left out and listed in `table.defects`.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Callable, Iterator

from flickr8k_tfds.trees import DatasetError, is_escape

# "surrogateescape" decodes a byte that is not UTF-8, 0x80..0xFF, to U+DC80..U+DCFF. Latin-1 is the
# code point less 0xDC00: byte 0xE9 becomes U+DCE9 and then U+00E9, "é".
_SURROGATES = re.compile("[\udc80-\udcff]")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")  # splitlines() also splits at U+0085
_MAX_LINE_CHARACTERS = 10_000
_MAX_DEFECTS = 100_000


@dataclasses.dataclass(frozen=True)
class Defect:
    """A row or image left out of the data set: where it is, what it is, why it is left out."""

    where: str
    what: str
    why: str


@dataclasses.dataclass
class Table:
    """Contents of a caption table.

    Attributes:
      captions: image file name -> its captions in the order of their rows.
      lines: image file name -> the line numbers (from 1) of these captions.
      defects: rows that are left out.
      latin1_rows: line numbers (from 1) of rows with bytes that are not UTF-8, read as Latin-1.
    """

    captions: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    lines: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    defects: list[Defect] = dataclasses.field(default_factory=list)
    latin1_rows: list[int] = dataclasses.field(default_factory=list)


class _BadRow(Exception):
    pass


def parse_csv(data: bytes, where: str) -> Table:
    """Reads Kaggle's table: CSV with the header `image,caption`, one row per caption.

    Args:
      data: bytes of the file. A UTF-8 byte order mark and any line ends are accepted.
      where: name of the file, for messages.

    Raises:
      DatasetError: the header is missing, a name points outside the folder of images, or
        more than 100,000 rows are bad.
    """
    table = Table()
    lines = _lines(data, table)
    header = next(lines, (1, ""))[1]
    if re.sub(r'[" ]', "", header.lower()) != "image,caption":
        raise DatasetError(
            f"{where}: the first line is {header[:80]!r}, expected the header 'image,caption'. "
            "Add the header, or export the table as comma-separated UTF-8 text."
        )
    for number, line in lines:
        _add_row(table, where, number, line, _split_csv)
    return table


def parse_tokens(data: bytes, where: str) -> Table:
    """Reads the original UIUC table: `image#number<TAB>caption`, one row per caption.

    Args:
      data: bytes of the file. A UTF-8 byte order mark and any line ends are accepted.
      where: name of the file, for messages.

    Raises:
      DatasetError: a name points outside the folder of images, or more than 100,000 rows are
        bad.
    """
    table = Table()
    for number, line in _lines(data, table):
        _add_row(table, where, number, line, _split_tokens)
    return table


def _lines(data: bytes, table: Table) -> Iterator[tuple[int, str]]:
    """Yields (number, text) of each line, with numbers from 1."""
    text = data.decode("utf-8-sig", "surrogateescape")
    for number, match in enumerate(_LINE.finditer(text), start=1):
        line = match[0].rstrip("\r\n")
        if _SURROGATES.search(line):
            line = _SURROGATES.sub(lambda byte: chr(ord(byte[0]) - 0xDC00), line)
            table.latin1_rows.append(number)
        yield number, line


def _add_row(
    table: Table,
    where: str,
    number: int,
    line: str,
    split: Callable[[str], tuple[str, str]],
) -> None:
    place = f"{where}:{number}"
    try:
        if not line.strip():
            raise _BadRow("blank line")
        if len(line) > _MAX_LINE_CHARACTERS:
            raise _BadRow(f"{len(line)} characters, at most {_MAX_LINE_CHARACTERS} are read")
        if "\0" in line:
            raise _BadRow("holds NUL characters: not plain text")
        image, caption = split(line)
        if is_escape(image):
            raise DatasetError(
                f"{place}: the image name {image!r} points outside the folder of images. "
                "Expected a bare file name: do not use this table."
            )
        if not image or "/" in image or "\\" in image:
            raise _BadRow(f"image name {image!r} is not a bare file name")
        if not caption.strip():
            raise _BadRow("empty caption")
    except _BadRow as error:
        table.defects.append(Defect(place, line[:120], str(error)))
        if len(table.defects) > _MAX_DEFECTS:
            raise DatasetError(
                f"{where} has more than {_MAX_DEFECTS:,} bad rows, the last is line {number}: "
                f"{error}. It does not look like a table of captions."
            ) from error
    else:
        table.captions.setdefault(image, []).append(caption)
        table.lines.setdefault(image, []).append(number)


def _split_csv(line: str) -> tuple[str, str]:
    # One line at a time: given the whole file, csv would read an open quote across all rows below.
    try:
        fields = next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise _BadRow(f"not a whole CSV row ({error}): a quote is open or misplaced") from error
    if len(fields) != 2:
        cure = "; a caption with commas needs quotes" if len(fields) > 2 else ""
        raise _BadRow(f"{len(fields)} fields, expected image and caption{cure}")
    return fields[0], fields[1]


def _split_tokens(line: str) -> tuple[str, str]:
    key, tab, caption = line.partition("\t")
    image, mark, number = key.rpartition("#")
    if not tab:
        raise _BadRow("no tab between image#number and caption")
    if not mark or not number.isdecimal():
        raise _BadRow(f"{key[:80]!r} is not of the form image#number")
    return image, caption
