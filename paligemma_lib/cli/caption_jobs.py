"""Captions a source with an engine in each process, and goes on where a killed job stopped.

for job in jobs_of(args, source, Path("captions.jsonl")):    # one for each adapter
    with job:
        for result in job.run():        # what this process captions, as it comes
            print(result)
        results = job.results()         # all, in the main process
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import jax
from tqdm import tqdm

from paligemma_lib.captioner import Captioner, Skipped
from paligemma_lib.runtime import processes
from paligemma_lib.runtime.locks import locked
from paligemma_lib.serving.bulk import caption_numbers
from paligemma_lib.serving.engine import Engine
from paligemma_lib.serving.journal import Journal, decoded, encoded

if TYPE_CHECKING:
    from paligemma_lib.captioner import Captioned
    from paligemma_lib.data.sources import Source

_PROMPT_TOKENS = 128  # of prefixes that records bring; a longer prompt has as many as it needs


def jobs_of(args: argparse.Namespace, source: Source, output: Path | None) -> Iterator[CaptionJob]:
    """Loads the model, and yields a job for each of its adapters, or one without.

    Args:
      args: options of `add_captioning_options`, after `check_options`.
      source: the images.
      output: a file that is written at the end; parts lie beside it meanwhile. None: a killed job
        begins again.

    Raises:
      FileNotFoundError, ValueError: see `captioner.load`.
    """
    from paligemma_lib.cli.captioning_options import model_of

    model = model_of(args, jax.local_devices())
    names = list(args.adapter or ())
    for number, name in enumerate(names or [None]):
        suffix = f"-{number}.parts" if len(names) > 1 else ".parts"
        folder = None if output is None else output.with_name(output.name + suffix)
        yield CaptionJob(args, source, folder, model.with_adapter(name) if name else model, name)


class CaptionJob:
    """Captions of a whole source, by this process and the others.

    Within `with`, the main process holds the lock of the folder for parts.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        source: Source,
        folder: Path | None,
        model: Captioner,
        adapter: str | None = None,
    ):
        """Takes what is to be captioned.

        Args:
          args: options of `add_captioning_options`, after `check_options`.
          source: the images.
          folder: for parts of the results; None: a killed job begins again.
          model: the model.
          adapter: name of the adapter that it has in place, if results are to name it.

        Raises:
          WrongUse: the prompt cannot be encoded.
        """
        from paligemma_lib.cli.captioning_options import prompt_told

        self._args, self._source, self._adapter = args, source, adapter
        self._model, self._folder = model, folder
        self._prompt_tokens = max(_PROMPT_TOKENS, len(prompt_told(model, args.prompt)))
        self._journal = None
        if folder is not None:
            self._journal = Journal(folder, _settings(args, model, source), len(source))
        self._lock = contextlib.ExitStack()
        self._own: list[Captioned | Skipped] = []

    def __enter__(self) -> Self:
        """Makes the folder for parts, or goes on with the parts that are there.

        Raises:
          OSError: another job uses the folder.
          ValueError: see `Journal.open`.
        """
        if self._journal is not None and self._folder is not None:
            with contextlib.ExitStack() as lock, processes.main_process_first():
                if jax.process_index() == 0:
                    lock.enter_context(locked(self._folder))
                self._journal.open()
                self._lock = lock.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if kind is None and self._journal is not None and jax.process_index() == 0:
                self._journal.remove()  # what it holds is written

    def run(self) -> Iterator[Captioned | Skipped]:
        """Yields the results of this process, as they come."""
        total = len(self._source)
        if self._journal is None:
            # Part by part, as with a journal: the processes take turns.
            journal = Journal(Path("."), {}, total)
            parts = list(range(len(range(0, total, len(journal.numbers(0)) or 1))))
        else:
            journal = self._journal
            missing = journal.missing() if jax.process_index() == 0 else []
            (told, *_) = processes.gather(" ".join(map(str, missing)).encode())
            parts = list(map(int, told.split()))
        mine = parts[jax.process_index() :: jax.process_count()]
        numbers = [number for part in mine for number in journal.numbers(part)]
        there = total - sum(len(journal.numbers(part)) for part in parts)
        share = there if jax.process_index() == 0 else 0
        count = jax.process_count()
        bar = tqdm(  # in a terminal only: rate and time left
            desc=f"process {jax.process_index()} of {count}" if count > 1 else None,
            total=share + len(numbers),
            initial=share,
            unit="image",
            disable=None,
        )
        # The engine ends with this block, since the job of another adapter may need its memory.
        with contextlib.closing(self._engine()) as engine, bar:
            results = caption_numbers(
                engine,
                self._source,
                numbers,
                prompt=self._args.prompt,
                sampler=self._args.how,
                max_new_tokens=self._args.max_new_tokens,
                seed=self._args.seed or 0,
            )
            for part in mine:
                found = []
                for _ in journal.numbers(part):
                    found.append(self._named(next(results)))
                    bar.update()
                    yield found[-1]
                if self._journal is not None:
                    self._journal.write(part, found)
                else:
                    self._own += found

    def _engine(self) -> Engine:
        args = self._args
        return Engine(
            lambda: self._model,
            prepare=[args.how],
            rows=max(args.batch_size, args.how.rows),
            prompt_tokens=self._prompt_tokens,
            max_new_tokens=args.max_new_tokens,
            max_waiting=1 << 20,  # `caption_numbers` bounds what waits
            max_per_client=1 << 20,
            max_bytes=1 << 40,
            apply_exif=not args.ignore_exif,
        )

    def _named(self, result: Captioned | Skipped) -> Captioned | Skipped:
        if self._adapter is None or isinstance(result, Skipped):
            return result
        return dataclasses.replace(result, adapter=self._adapter)

    def results(self) -> list[Captioned | Skipped]:
        """Returns all results in the order of the source, once all processes have called it.

        Without a journal, every process gets them; with one, the main process alone.
        """
        if self._journal is not None:
            processes.gather(b"")  # waits for the others
            return list(self._journal.results()) if jax.process_index() == 0 else []
        if jax.process_count() == 1:
            return self._own
        return _interleaved([decoded(each) for each in processes.gather(encoded(self._own))])


def _interleaved(found: list[list[Captioned | Skipped]]) -> list[Captioned | Skipped]:
    """Joins what processes have captioned, part by part in turn, in the order of the source."""
    size = len(Journal(Path("."), {}, 1 << 30).numbers(0))
    longest = max(map(len, found))
    return [
        each
        for start in range(0, longest, size)
        for results in found
        for each in results[start : start + size]
    ]


def _settings(args: argparse.Namespace, model: Captioner, source: Source) -> dict[str, object]:
    """Returns what captions depend on."""
    from paligemma_lib.run.record import tokenizer_fingerprint
    from paligemma_lib.train.digests import fingerprint

    return {
        "images": _fingerprint(source),
        "params": fingerprint(model.params),
        "tokenizer": tokenizer_fingerprint(model.tokenizer),
        "dtype": model.config.dtype,
        "prompt": args.prompt,
        "sampler": repr(args.how),
        "max_new_tokens": args.max_new_tokens,
        "batch_size": args.batch_size,
        "seed": args.seed or 0,
        "ignore_exif": args.ignore_exif,
    }


def _fingerprint(source: Source) -> str:
    from paligemma_lib.train.digests import checksum

    try:
        return source.fingerprint()
    except (OSError, ValueError):  # an image is missing, which is skipped later
        return checksum([source.where(number) for number in range(len(source))])
