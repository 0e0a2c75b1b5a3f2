"""Caption tables: the forms that Flickr8k's captions come in, read into rows, and what was wrong.

    table = parse_csv(data, where="captions.txt")      # Kaggle:  image,caption
    table = parse_tokens(data, where="Flickr8k.token.txt")  # UIUC:  image#0<TAB>caption
    table.captions["1000268201_693b08cb0e.jpg"]         # all captions, in their order

Nothing is guessed: a row that is not whole is left out and listed in `table.defects`.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterator

from flickr8k_tfds.files import DatasetError, is_escape

# A byte that is no UTF-8 is decoded to U+DC80..U+DCFF and then read as Latin-1.
_SURROGATES = re.compile("[\udc80-\udcff]")
_MAX_CAPTION_CHARACTERS = 10_000


@dataclasses.dataclass(frozen=True)
class Defect:
    """Something left out of the data set: where it stood, what it was, why it was left out."""

    where: str
    what: str
    why: str


@dataclasses.dataclass
class Table:
    """What a caption table says.

    Attributes:
      captions: image file name -> its captions in the order of their rows.
      defects: the rows left out.
      latin1_rows: line numbers (from 1) of rows with bytes that are not UTF-8, read as Latin-1.
    """

    captions: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    defects: list[Defect] = dataclasses.field(default_factory=list)
    latin1_rows: list[int] = dataclasses.field(default_factory=list)


class _BadRow(Exception):
    pass


def parse_csv(data: bytes, where: str) -> Table:
    """Reads Kaggle's table: CSV with the header `image,caption`, a row per caption.

    Args:
      data: the file's bytes; a UTF-8 byte order mark and any line ends are fine.
      where: the file's name for messages.

    Raises:
      DatasetError: the header is not there, or a name points outside the folder of pictures.
    """
    table = Table()
    lines = _lines(data, where, table)
    header = next(lines, (1, ""))[1]
    if [field.strip().lower() for field in header.split(",")] != ["image", "caption"]:
        raise DatasetError(
            f"{where}: the first line is {header[:80]!r}, expected the header 'image,caption'. "
            "Add the header, or export the table as comma-separated UTF-8 text."
        )
    for number, line in lines:
        _add_row(table, f"{where}:{number}", line, _split_csv)
    return table


def parse_tokens(data: bytes, where: str) -> Table:
    """Reads the original UIUC table: `image#number<TAB>caption`, a row per caption.

    Args:
      data: the file's bytes; a UTF-8 byte order mark and any line ends are fine.
      where: the file's name for messages.

    Raises:
      DatasetError: a name points outside the folder of pictures.
    """
    table = Table()
    for number, line in _lines(data, where, table):
        _add_row(table, f"{where}:{number}", line, _split_tokens)
    return table


def _lines(data: bytes, where: str, table: Table) -> Iterator[tuple[int, str]]:
    """Yields (number from 1, text) of each line."""
    text = data.decode("utf-8-sig", "surrogateescape")
    lines = re.split(r"\r\n|\n|\r", text)  # splitlines() would also split at U+0085 and such
    if lines[-1] == "":
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if _SURROGATES.search(line):
            line = _SURROGATES.sub(lambda byte: chr(ord(byte[0]) - 0xDC00), line)
            table.latin1_rows.append(number)
        yield number, line


def _add_row(table: Table, where: str, line: str, split) -> None:
    try:
        if not line.strip():
            raise _BadRow("blank line")
        if len(line) > _MAX_CAPTION_CHARACTERS:
            raise _BadRow(f"{len(line)} characters, at most {_MAX_CAPTION_CHARACTERS} are read")
        if "\0" in line:
            raise _BadRow("holds NUL characters: not plain text")
        image, caption = split(line)
        if is_escape(image):
            raise DatasetError(
                f"{where}: the image name {image!r} points outside the folder of pictures. "
                "Expected a bare file name: do not use this table."
            )
        if not image or "/" in image or "\\" in image:
            raise _BadRow(f"image name {image!r} is not a bare file name")
        if not caption.strip():
            raise _BadRow("empty caption")
    except _BadRow as error:
        table.defects.append(Defect(where, line[:120], str(error)))
    else:
        table.captions.setdefault(image, []).append(caption)


def _split_csv(line: str) -> tuple[str, str]:
    # Line by line: with a quote left open, csv would swallow the rows that follow.
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
