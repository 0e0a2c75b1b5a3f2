"""Writes tables as CSV, and guards cells that spreadsheet programs would take for formulas.

text = csv_text([["image", "caption"], [name, caption]])      # =1+1 becomes '=1+1
caption = unguarded(cell)                                     # and comes back as it was

A caption or a file name may come from anybody. A spreadsheet runs a cell that begins with =, +, -
or @ as a formula. With an apostrophe in front it is text.
"""

import csv
import io
import re
from collections.abc import Iterable

# Apostrophes that stand there already get one more, so that what is read is what was written.
_FORMULA = re.compile("'*[=+@\t\r-]")
_GUARDED = re.compile("'+[=+@\t\r-]")


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Returns the rows as CSV with guarded cells, each row ending in a line feed."""
    lines = []
    for row in rows:
        line = io.StringIO()
        # With this end of a line, the writer quotes cells that have a carriage return in them.
        writer = csv.writer(line, lineterminator="\r\n")
        writer.writerow([guarded(cell) if isinstance(cell, str) else cell for cell in row])
        lines.append(line.getvalue().removesuffix("\r\n"))
    return "".join(f"{line}\n" for line in lines)


def guarded(cell: str) -> str:
    """Returns the cell, with an apostrophe before what a spreadsheet would take for a formula."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """Returns the cell without the apostrophe of `guarded`."""
    return cell[1:] if _GUARDED.match(cell) else cell
