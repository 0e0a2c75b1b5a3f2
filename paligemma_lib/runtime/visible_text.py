r"""Makes characters visible that would act on a terminal, as `\x1b`, where text is from outside.

print(visible("dog\x1b[2J.jpg"))           # dog\x1b[2J.jpg
print(visible_lines(str(error)))           # the same, but line breaks stay

File names, image ids, captions and errors of others may hold escape sequences, line breaks that
forge a line of a log, or marks that turn the direction of text. They are shown, never sent.
"""

import re
import unicodedata

# Joiners of letters and of emoji: they shape what is written, and act on nothing else.
_JOINERS = "\u200c\u200d"


def visible(text: str) -> str:
    r"""Returns the text with each control, format or unassigned character as an escape."""
    if text.isprintable():  # nearly all
        return text
    return "".join(_shown(each) for each in text)


def visible_lines(text: str) -> str:
    """Returns the text likewise, but keeps its line breaks."""
    return "\n".join(map(visible, text.split("\n")))


def told(text: str) -> str:
    """Returns a message of several lines, safe to print.

    What would act on a terminal is shown as an escape. Lines after the first are indented, so that
    no name with a line break in it looks like a message of ours.
    """
    return re.sub(r"\n(?=\S)", "\n  ", visible_lines(text))


def _shown(character: str) -> str:
    # Spaces of other widths (Zs) are not printable in the sense of `str`, but harmless.
    if character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode("ascii")
