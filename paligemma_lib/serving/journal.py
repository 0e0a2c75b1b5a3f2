"""Keeps the results of a long job in parts that outlive a kill, for any number of processes.

    journal = Journal(Path("captions.jsonl.parts"), settings, total=10_000)
    journal.open()                  # under `locked(folder)`: two jobs would undo each other's work
    for part in journal.missing():
        journal.write(part, [... for number in journal.numbers(part)])
    results = list(journal.results())
    journal.remove()

A part is a file of JSON lines, and appears complete or not at all. It holds the results of the
records of a range, whoever captioned them, so the processes of a job that goes on may be others.
Its name has a digest of the settings, so that it is never taken for a part of another job.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paligemma_lib.captioner import Captioned, Skipped
from paligemma_lib.decode import Caption
from paligemma_lib.runtime.atomic import atomic_write, is_remote, remove_partial
from paligemma_lib.runtime.put_aside import put_aside
from paligemma_lib.runtime.regular_files import read_bounded
from paligemma_lib.runtime.strict_json import dumps

PART = 32  # records; a kill loses fewer of each process
_SETTINGS = "settings.json"
_MOST_BYTES = 64 << 20  # of a part


class Journal:
    """Parts of the results of a job, in a folder of their own."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], total: int):
        """Takes the folder, what the results depend on, and the number of records."""
        self._folder = folder
        told = dumps({**settings, "total": total}, sort_keys=True)
        self._settings = json.loads(told)
        self._digest = hashlib.sha256(told.encode()).hexdigest()[:16]
        self._total = total

    def open(self) -> None:
        """Makes the folder, or takes it over from a job that was killed.

        The file with the settings is put aside if it is damaged, and written again.

        Raises:
          ValueError: the folder is of another job.
        """
        path = self._folder / _SETTINGS
        self._folder.mkdir(parents=True, exist_ok=True)
        if not is_remote(self._folder):
            remove_partial(self._folder)
        there = self._settings_there(path)
        if there is None:
            with atomic_write(path) as file:
                file.write(dumps(self._settings, indent=1).encode())
            return
        differing = [
            f"{name} {there.get(name)!r:.60} there, {self._settings.get(name)!r:.60} now"
            for name in sorted(there.keys() | self._settings.keys())
            if there.get(name) != self._settings.get(name)
        ]
        if differing:
            raise ValueError(
                f"{self._folder} holds captions of a job that was stopped, with other settings: "
                f"{'; '.join(differing)}. Give the same ones to go on, or remove the folder"
            )

    def missing(self) -> list[int]:
        """Returns the numbers of parts that are not there yet; a damaged one is put aside."""
        there = {path.name for path in self._folder.iterdir()}
        parts = range(-(-self._total // PART))
        return [
            part for part in parts if self._path(part).name not in there or not self._is_whole(part)
        ]

    def numbers(self, part: int) -> range:
        """Returns the numbers of the records of a part."""
        return range(part * PART, min((part + 1) * PART, self._total))

    def write(self, part: int, results: Sequence[Captioned | Skipped]) -> None:
        """Writes a part."""
        with atomic_write(self._path(part)) as file:
            file.write(encoded(results))

    def results(self) -> Iterator[Captioned | Skipped]:
        """Yields all results, in the order of records.

        Raises:
          ValueError: a part has been damaged since `missing` was called.
        """
        for part in range(-(-self._total // PART)):
            try:
                found = self._read(part)
            except ValueError as error:
                raise ValueError(
                    f"{self._path(part)}: {error}; start again, and its images are captioned again"
                ) from error
            yield from found

    def remove(self) -> None:
        """Removes the folder: its results are elsewhere."""
        if is_remote(self._folder):
            self._folder.rmtree()  # type: ignore[attr-defined]  # of etils
        else:
            shutil.rmtree(self._folder)

    def _settings_there(self, path: Path) -> dict[str, Any] | None:
        """Returns the settings in a file; None if there is none, or none any more."""
        if not path.exists():
            return None
        try:
            found = json.loads(read_bounded(path, _MOST_BYTES))
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            return found
        put_aside(path, "it does not hold the settings of a job")
        return None

    def _is_whole(self, part: int) -> bool:
        try:
            self._read(part)
        except ValueError as error:
            put_aside(self._path(part), f"{error}; its images are captioned again")
            return False
        return True

    def _read(self, part: int) -> list[Captioned | Skipped]:
        """Returns the results of a part; raises ValueError if it is damaged."""
        content = read_bounded(self._path(part), _MOST_BYTES)
        try:
            found = decoded(content)
        except Exception as error:  # damaged content may be JSON of any form
            raise ValueError("it does not hold captions") from error
        if (expected := len(self.numbers(part))) != len(found):
            raise ValueError(f"it holds {len(found)} results of {expected}")
        return found

    def _path(self, part: int) -> Path:
        return self._folder / f"part-{part:06d}-{self._digest}.jsonl"


def encoded(results: Iterable[Captioned | Skipped]) -> bytes:
    """Returns results as JSON lines, from which `decoded` makes them again, bit for bit."""
    return b"".join(dumps(dataclasses.asdict(each)).encode() + b"\n" for each in results)


def decoded(lines: bytes) -> list[Captioned | Skipped]:
    """Returns the results that `encoded` was given."""
    return [_result(json.loads(line)) for line in lines.splitlines()]


def _result(told: Any) -> Captioned | Skipped:
    if "problem" in told:
        return Skipped(**told)
    caption = _caption(told.pop("caption"))
    return Captioned(**told | {"references": tuple(told["references"])}, caption=caption)


def _caption(told: Any) -> Caption:
    return Caption(
        told["text"],
        tuple(told["tokens"]),
        tuple(told["logprobs"]),
        told["score"],
        tuple(map(_caption, told["alternatives"])),
    )
