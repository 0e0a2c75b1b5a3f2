"""What README and docs say: their commands, blocks of code, links and quoted messages."""

import ast
import dataclasses
import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TROUBLES = ROOT / "docs" / "troubleshooting.md"

_PROGRAMS = r"(?:paligemma|python|pip|pytest|tfds|streamlit|gcloud|pre-commit|mkdocs) "
_GAP = "…"  # for what differs from case to case


@dataclasses.dataclass(frozen=True)
class Command:
    """A command as its words; `&&` and the ends of lines part commands."""

    words: tuple[str, ...]
    page: str

    def __str__(self) -> str:
        return shlex.join(self.words)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def commands() -> list[Command]:
    """All commands of all pages, those within quotes and within running text too."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        for script in [*blocks(page, "bash"), *re.findall(rf"`({_PROGRAMS}[^`]*)`", prose)]:
            found += [Command(words, page.name) for words in _split(script)]
    return found


def _split(script: str) -> Iterator[tuple[str, ...]]:
    lexer = shlex.shlex(script.replace("\\\n", " "), posix=True, punctuation_chars="&\n")
    lexer.whitespace, lexer.whitespace_split = " \t", True
    words: list[str] = []
    for token in [*lexer, "\n"]:
        if token.startswith("--command="):  # what runs elsewhere is a command as well
            yield from _split(token.removeprefix("--command="))
        if token.strip("&\n"):
            words.append(token)
        elif words:
            yield tuple(words)
            words = []


def links(page: Path) -> list[str]:
    """Targets that are not on the web."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    return [target for target in targets if "://" not in target]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to headings."""
    heads = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def quoted_messages() -> list[str]:
    """The first column of the table of troubles that holds code."""
    rows = re.findall(r"^\|[^|]*\| (`+)(.*?)\1 \|", TROUBLES.read_text("utf-8"), re.M)
    return [message.strip() for _, message in rows]


@functools.cache
def messages(folder: str) -> str:
    """All texts in the code of a folder or file, with a gap for each value that is filled in."""
    path = Path(folder)
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return "\0".join(text for file in files for text in _texts(ast.parse(file.read_text("utf-8"))))


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(parts):
                yield "".join(p.value if isinstance(p, ast.Constant) else _GAP for p in parts)
            case ast.Constant(str(text)):
                yield text
